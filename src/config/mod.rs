//! Layer 1: the configuration, from the text an operator writes to checked,
//! typed values.
//!
//! Everybody else sees [`Config`] and the structs in it.

mod cores;
mod pattern;
mod types;

pub use cores::Cores;
pub use pattern::DomainPattern;
pub use types::{
    Access, Admin, Config, Delivery, Limits, Listener, ListenerKind, NextHop, Queue, Route, Tls,
};
