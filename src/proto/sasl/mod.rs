//! SASL (RFC 4422) without I/O: both sides of the exchanges by which a client
//! shows who it is. PLAIN (RFC 4616), LOGIN, SCRAM-SHA-256 and -PLUS (RFC 5802,
//! RFC 7677) and EXTERNAL.
//!
//! [`server`] is driven by the SMTP server engine, [`client`] by the SMTP client
//! engine. Both deal in messages; how SMTP writes them in lines (RFC 4954: base64,
//! `=` for an empty initial response, `*` to cancel) is in [`base64`].
//!
//! Nonces are arguments, and so is what binds an exchange to its TLS connection.
//! Hashing a password costs milliseconds and is never done within a call: the
//! server asks for it, the client gives it out as work.

pub mod base64;
pub mod client;
mod prep;
mod scram;
pub mod server;
#[cfg(test)]
mod tests;

pub use prep::{prepared_name, prepared_password};
pub use scram::{Binding, BindingKind, derive_keys};
