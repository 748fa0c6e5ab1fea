//! Relaying by a whole server: the binary on real sockets, names from a DNS server
//! on loopback, next hops on addresses of 127.0.0.0/8 that share a port and do as
//! they are told. Each test has addresses of its own, so that all may run at once.

mod support;

#[path = "relay/chunks.rs"]
mod chunks;
#[path = "relay/finding.rs"]
mod finding;
#[path = "relay/limits.rs"]
mod limits;
#[path = "relay/operating.rs"]
mod operating;
#[path = "relay/queueing.rs"]
mod queueing;
#[path = "relay/replies.rs"]
mod replies;
#[path = "relay/secure.rs"]
mod secure;
#[path = "relay/store.rs"]
mod store;
