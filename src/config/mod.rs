//! Layer 1: the configuration, from the text an operator writes to checked,
//! typed values.
//!
//! Everybody else sees [`Config`] and the structs in it. [`Config::load`] reads
//! a file in steps, each in a file of its own: `tree` (TOML and `--set` options,
//! with their places), `read` and `values` (every key of `schema` to its type),
//! `checks` (values against one another). Faults are collected, not thrown one
//! by one: [`ConfigErrors`]. `print` is the way back.

mod checks;
mod cores;
mod error;
mod host;
mod load;
mod pattern;
mod print;
mod rate;
mod read;
pub mod schema;
mod suggest;
#[cfg(test)]
mod tests;
mod tree;
mod types;
mod units;
mod values;

pub use cores::Cores;
pub use error::{ConfigError, ConfigErrors};
pub use host::{Host, HostPort};
pub use load::{EMBEDDED, EMBEDDED_NAME};
pub use pattern::DomainPattern;
pub use rate::{Per, Rate};
pub use types::{
    Access, Admin, Config, Delivery, Dns, Limits, Listener, ListenerKind, NextHop, Queue, Route,
    SiteTable, Tls, Written,
};
pub use units::{DURATION_FORM, SIZE_FORM, parse_duration, parse_size, print_duration};
