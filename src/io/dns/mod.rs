//! DNS on the shard: a stub resolver with its own cache, for mail exchangers and
//! addresses.
//!
//! It asks the recursive resolvers that the host or the configuration names, and
//! trusts them, but nobody who forges their answers: each query goes out from a
//! socket of its own (so from a random port, and the kernel drops what comes from
//! anywhere else), with a random id and letters in random case, all of which the
//! answer has to repeat. What does not fit is passed over; where there is doubt,
//! the question is asked again over TCP.
//!
//! What comes out is either certain (records, [`DnsFailure::NoSuchDomain`],
//! [`DnsFailure::NoData`]) or [`DnsFailure::Trouble`], which says nothing about
//! the domain and may be over in a moment.
//!
//! | file | holds |
//! |---|---|
//! | `name` | domains as text, and as they are asked for |
//! | `message` | queries written, answers read and held against the query |
//! | `cache` | what was learnt, bounded, by TTL |
//! | `servers` | which server is asked next; bad ones are left alone |
//! | `conf` | `/etc/resolv.conf` |
//! | `transport` | one query over UDP or TCP |
//! | `flight` | many waiters for one query |
//! | `families` | addresses of both families as one answer |
//! | `resolver` | all of these joined |
//!
//! RFC 1034 and 1035, 2181 (TTLs), 2308 (negative answers), 5452 (forgery), 6891
//! (EDNS), 7766 (TCP).

mod cache;
mod conf;
mod families;
mod flight;
pub mod message;
mod name;
mod random;
mod resolver;
#[cfg(test)]
#[allow(dead_code, missing_docs, reason = "shared with other tests")]
#[path = "../../../tests/support/dns.rs"]
pub(crate) mod server;
mod servers;
#[cfg(test)]
mod tests;
mod transport;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::config::Dns;

pub use resolver::Resolver;
pub use servers::ServerFigures;

/// The port of DNS.
const PORT: u16 = 53;

/// What a look-up came to, and until when that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup<T> {
    /// What was found, or why nothing was.
    pub result: Result<T, DnsFailure>,
    /// When to look again.
    pub expires: Instant,
    /// With addresses: why one of the two families is not among them, where that
    /// is not known for certain.
    pub missing: Option<Box<str>>,
}

/// Mail exchangers: preferences and names.
pub type Exchangers = Vec<(u16, Box<str>)>;

/// Why there are no records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsFailure {
    /// The name does not exist (NXDOMAIN). Certain.
    NoSuchDomain,
    /// The name exists, but has no such records. Certain.
    NoData,
    /// Nothing is known: no server answered, or none with sense. In words.
    Trouble(Box<str>),
}

/// Where the servers are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// These, each in turn.
    Fixed(Vec<SocketAddr>),
    /// A file in the form of resolv.conf(5), watched.
    File(PathBuf),
}

/// How a [`Resolver`] works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsOptions {
    /// Whom to ask.
    pub source: Source,
    /// How long a look-up may take in all, once it is begun.
    pub timeout: Duration,
    /// Most names and types kept in the cache.
    pub entries_max: usize,
    /// Most bytes kept in the cache.
    pub bytes_max: usize,
    /// Most look-ups under way at a time; more wait their turn.
    pub in_flight_max: usize,
}

/// Most entries of a shard's cache.
const ENTRIES_MAX: usize = 64 << 10;
/// Most bytes of a shard's cache. An entry takes about 130, so that this holds
/// only where answers are unusually long.
const BYTES_MAX: usize = 16 << 20;
/// Look-ups under way at a time, each with a socket.
const IN_FLIGHT_MAX: usize = 256;

impl From<&Dns> for DnsOptions {
    fn from(dns: &Dns) -> Self {
        DnsOptions {
            source: match &dns.servers[..] {
                [] => Source::File(conf::PATH.into()),
                servers => Source::Fixed(servers.to_vec()),
            },
            timeout: dns.timeout,
            entries_max: ENTRIES_MAX,
            bytes_max: BYTES_MAX,
            in_flight_max: IN_FLIGHT_MAX,
        }
    }
}

/// Figures of a resolver, counted from its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsFigures {
    /// Queries sent, over UDP or TCP, repetitions counted.
    pub queries: u64,
    /// Look-ups answered from the cache.
    pub hits: u64,
    /// Look-ups that had to ask.
    pub misses: u64,
    /// Look-ups that joined one that was under way; not in `misses`.
    pub joined: u64,
    /// Queries that nobody answered in time.
    pub timeouts: u64,
    /// Answers that were cut short, so that TCP was needed.
    pub truncated: u64,
    /// Answers that did not fit the query: forged, or to an older one.
    pub mismatched: u64,
    /// Names fetched anew before they expired.
    pub prefetched: u64,
    /// Look-ups that ended in trouble.
    pub troubles: u64,
    /// Names and types in the cache.
    pub entries: usize,
    /// Bytes of the cache.
    pub bytes: usize,
    /// Look-ups under way.
    pub in_flight: usize,
    /// Look-ups that wait their turn.
    pub waiting: usize,
    /// The servers, in their order.
    pub servers: Vec<ServerFigures>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Mail exchangers.
    Mx,
}

/// What one question came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Preferences and hosts, the most preferred first; the root, of the null MX,
    /// is an empty text.
    Mx(Vec<(u16, Box<str>)>),
    /// Addresses of one family.
    Addresses(Vec<std::net::IpAddr>),
    /// None.
    Nothing(DnsFailure),
}
