//! TLS (RFC 8446, RFC 5246) on the shard: rustls over our own streams. [`Conn`] is
//! a stream that may become a TLS connection, as server or as client; `receive`,
//! `relay` and the tools read and write it as they would the plain one.
//!
//! [`Server`] and [`Client`] are what connections are made with: certificates, keys
//! and trust, made on the control thread and shared by the shards.
//!
//! What the peer sends is authenticated by rustls before it is seen here. Invariant:
//! nothing that was read before a handshake is part of what is read after it; the
//! callers drop what they hold of it.

mod certificates;
mod choice;
mod client;
mod conn;
mod engine;
mod facts;
mod failure;
mod held;
mod self_signed;
mod server;
#[cfg(test)]
mod tests;
mod verify;

use std::sync::{Arc, OnceLock};

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::version::{TLS12, TLS13};

pub use client::{Client, Roots, Verify};
pub use conn::Conn;
pub use facts::{Facts, Peer, Version};
pub use failure::{Cause, Failure};
pub use held::HANDSHAKE;
pub use self_signed::{Pem, self_signed};
pub use server::{Identity, Names, Server, Setup, Visitors};

/// The cryptography: aws-lc-rs.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Arc::clone(PROVIDER.get_or_init(make))
}

/// The versions from `min` on.
fn versions(min: Version) -> &'static [&'static SupportedProtocolVersion] {
    static ALL: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];
    match min {
        Version::Tls12 => &ALL,
        Version::Tls13 => &ALL[1..],
    }
}
