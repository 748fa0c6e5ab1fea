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
mod passwords;
mod pattern;
mod print;
mod rate;
mod read;
pub mod schema;
mod secret;
mod suggest;
#[cfg(test)]
mod tests;
mod tls;
mod tls_checks;
mod tree;
mod types;
mod units;
mod values;

pub use cores::Cores;
pub use error::{ConfigError, ConfigErrors};
pub use host::{Host, HostPort, Way};
pub use load::{EMBEDDED, EMBEDDED_NAME};
pub use pattern::DomainPattern;
pub use rate::{Per, Rate};
pub use secret::Secret;
pub use tls::{CertificateFiles, Certificates, ClientCertificates, ServerTls, TlsVersion};
pub use types::{
    Access, Admin, Ahead, Auth, Config, Delivery, Dns, Fronts, Limits, Listener, ListenerKind,
    ListenerTls, Login, NextHop, Queue, Route, SenderMatch, SiteTable, Tls, Written,
};
pub use units::{DURATION_FORM, SIZE_FORM, parse_duration, parse_size, print_duration};
