//! Sites and their limits: what is delivered to as one, and how much of it at a
//! time. Built by `route` from the routes, the `[[site]]` tables and what DNS
//! says; asked by `governor` and `relay`.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::base::checksum::crc32c;
pub use crate::config::{Host, HostPort, Login, Rate, Tls, Way};

/// One host of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Hosts of rank 0 are tried first; those of equal rank in random order.
    /// There is a host of every rank up to the last.
    pub rank: u16,
    /// What is spoken to it.
    pub way: Way,
    /// The host.
    pub host: Host,
    /// The port; 0 for a socket of this machine only.
    pub port: u16,
}

impl Hop {
    /// As a configuration names it.
    pub fn written(&self) -> HostPort {
        let port = (self.port != 0).then_some(self.port);
        HostPort { way: self.way, host: self.host.clone(), port }
    }
}

/// A destination: hosts in order of preference, and limits. Domains whose mail
/// goes to the same hosts within the same limits share one.
///
/// Sites are equal when their names and hosts are, and how they are
/// dealt with. Their limits follow from the
/// configuration, so a reload may give an equal site other limits.
#[derive(Clone, Debug)]
pub struct Site {
    /// The hosts, by rank and then name, joined by commas: `IP:PORT` or
    /// `NAME:PORT` for hosts of a route, `NAME` for those of MX records. Where a
    /// `[[site]]` table is about some of the domains only, `#` and the table's
    /// first pattern follow.
    pub name: Box<str>,
    /// Spreads sites over cores; the same in every process.
    pub hash: u32,
    /// The hosts, by rank and then name; at least one.
    pub hops: Box<[Hop]>,
    /// How much at a time.
    pub limits: SiteLimits,
    /// Whether TLS is used towards them.
    pub tls: Tls,
    /// Who the server is towards them, if it has to say so.
    pub login: Option<Arc<Login>>,
    /// True when a route names the hosts: the operator's own choice, which may be
    /// in private space.
    pub is_static: bool,
}

impl Site {
    pub(super) fn new(
        is_static: bool,
        name: String,
        hops: Vec<Hop>,
        limits: SiteLimits,
        tls: Tls,
        login: Option<Arc<Login>>,
    ) -> Self {
        assert!(!hops.is_empty(), "a site has a host");
        let hash = crc32c(0, name.as_bytes());
        Site { name: name.into(), hash, hops: hops.into(), limits, tls, login, is_static }
    }

    /// Its name, or only the first host of many.
    pub fn in_short(&self) -> String {
        match (&self.hops[..], self.name.split_once(',')) {
            ([_, _, _, ..], Some((first, _))) => {
                format!("{first} and {} others", self.hops.len() - 1)
            }
            _ => self.name.to_string(),
        }
    }
}

impl PartialEq for Site {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
            && self.name == other.name
            && self.hops == other.hops
            && (self.tls, &self.login) == (other.tls, &other.login)
    }
}

impl Eq for Site {}

impl Hash for Site {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.hash);
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// What set a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetBy {
    /// Nobody: the default of `[delivery]`.
    Default,
    /// A key that was given in `[delivery]`.
    Delivery,
    /// A `[[site]]` table.
    Site {
        /// The line that it begins in; 0 when it comes from an option.
        line: u32,
        /// Which table, from 0.
        index: u16,
    },
}

impl fmt::Display for SetBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetBy::Default => f.write_str("default"),
            SetBy::Delivery => f.write_str("[delivery]"),
            SetBy::Site { line: 0, index } => write!(f, "[[site]] number {}", index + 1),
            SetBy::Site { line, .. } => write!(f, "[[site]] in line {line}"),
        }
    }
}

/// A limit and what set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set<T> {
    /// The limit.
    pub value: T,
    /// What set it.
    pub by: SetBy,
}

/// How much goes to a site at a time, over all cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteLimits {
    /// Most open connections; at least 1.
    pub connections: Set<u32>,
    /// Messages over one connection; at least 1.
    pub messages_per_connection: Set<u32>,
    /// Most new connections in a time; any number for `None`.
    pub connection_rate: Set<Option<Rate>>,
    /// Most messages in a time; any number for `None`.
    pub message_rate: Set<Option<Rate>>,
}
