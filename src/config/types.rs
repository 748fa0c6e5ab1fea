//! The configuration as the rest of ringpost sees it: plain structs of checked,
//! typed values, a struct for each table of the file. Who holds a [`Config`] may
//! rely on the bounds that `docs/config.md` states.
//!
//! The defaults here are the ones that the schema documents; `schema` and
//! `tests/config_docs.rs` prove that they agree.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::base::Durability;
use crate::config::cores::Cores;
use crate::config::pattern::DomainPattern;

const MIB: u64 = 1 << 20;
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What the server calls itself in greetings, `Received:` and reports.
    pub hostname: String,
    /// Where logs, lock and admin socket live.
    pub data_dir: PathBuf,
    /// Which CPUs get a shard.
    pub cores: Cores,
    /// When an accepted message counts as stored.
    pub durability: Durability,
    /// How long transactions in flight may take to finish at the end.
    pub shutdown_grace: Duration,
    /// Where mail comes in; at least one.
    pub listeners: Vec<Listener>,
    /// Who may relay.
    pub access: Access,
    /// Where mail goes; the first match wins; at least one.
    pub routes: Vec<Route>,
    /// How mail is delivered.
    pub delivery: Delivery,
    /// How mail is kept and retried.
    pub queue: Queue,
    /// What clients may ask of the server.
    pub limits: Limits,
    /// How operators reach the server.
    pub admin: Admin,
}

/// `[[listener]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The addresses to listen on; at least one, none twice.
    pub addresses: Vec<SocketAddr>,
    /// What is spoken there.
    pub kind: ListenerKind,
    /// Whether TLS is offered or demanded there.
    pub tls: Tls,
}

/// What a listener serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListenerKind {
    /// SMTP between servers (RFC 5321).
    #[default]
    Relay,
}

/// How TLS is used on a listener or towards a next hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// Never.
    #[default]
    Off,
}

/// `[access]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Clients that may relay to any domain.
    pub relay_from: Vec<IpNet>,
    /// Recipient domains accepted from every client.
    pub relay_domains: Vec<DomainPattern>,
}

/// `[[route]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The recipient domains it is for.
    pub domain: DomainPattern,
    /// What is done with mail for them.
    pub next_hop: NextHop,
    /// Whether TLS is used towards the next hop.
    pub tls: Tls,
}

/// What a route does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// Relay to the first of these that can be reached; at least one, none twice.
    Hosts(Vec<SocketAddr>),
    /// Accept and throw away.
    Discard,
    /// Refuse.
    Reject,
}

/// `[delivery]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Most connections to one site at a time, over all cores.
    pub connections_per_site: u32,
    /// Messages sent over one connection before it is closed.
    pub messages_per_connection: u32,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
}

/// `[queue]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Waits between attempts; the last repeats; at least one.
    pub retry: Vec<Duration>,
    /// Age at which delivery is given up.
    pub expire: Duration,
    /// Size of one file of the log, in bytes; a multiple of 4096.
    pub segment_size: u32,
}

/// `[limits]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest message taken, in bytes as sent in DATA.
    pub message_size: u64,
    /// Most recipients in one transaction.
    pub recipients: u32,
    /// Most open sessions, over all cores.
    pub connections: u32,
    /// Most open sessions of one client, over all cores.
    pub connections_per_client: u32,
    /// How long a client may take to send a command.
    pub command_timeout: Duration,
    /// How long a client may pause within DATA.
    pub data_timeout: Duration,
    /// Errors after which a session is ended.
    pub errors_per_session: u32,
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The admin socket; relative to `data_dir`. See [`Config::admin_socket`].
    pub socket: PathBuf,
    /// Where metrics and health are served; `None` for nowhere.
    pub http: Option<SocketAddr>,
}

impl Config {
    /// Path of the admin socket: `admin.socket` within `data_dir`, unless it is
    /// absolute.
    pub fn admin_socket(&self) -> PathBuf {
        self.data_dir.join(&self.admin.socket)
    }
}

impl Default for Config {
    /// What the embedded default says, with `localhost` for the host's name.
    fn default() -> Self {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Config {
            hostname: "localhost".into(),
            data_dir: PathBuf::from("./ringpost-data"),
            cores: Cores::default(),
            durability: Durability::default(),
            shutdown_grace: SHUTDOWN_GRACE,
            listeners: vec![Listener {
                addresses: vec![loopback(2525)],
                kind: ListenerKind::Relay,
                tls: Tls::Off,
            }],
            access: Access::default(),
            routes: vec![Route {
                domain: DomainPattern::Any,
                next_hop: NextHop::Hosts(vec![loopback(2526)]),
                tls: Tls::Off,
            }],
            delivery: Delivery::default(),
            queue: Queue::default(),
            limits: Limits::default(),
            admin: Admin::default(),
        }
    }
}

/// Default of `shutdown_grace`.
pub(crate) const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);
/// Default of `data_dir` in a configuration file.
pub(crate) const DATA_DIR: &str = "/var/lib/ringpost";

impl Default for Access {
    fn default() -> Self {
        let net = |text: &str| text.parse().expect("a constant network");
        Access { relay_from: vec![net("127.0.0.0/8"), net("::1/128")], relay_domains: Vec::new() }
    }
}

impl Default for Delivery {
    fn default() -> Self {
        Delivery {
            connections_per_site: 20,
            messages_per_connection: 1000,
            connect_timeout: Duration::from_secs(30),
        }
    }
}

impl Default for Queue {
    fn default() -> Self {
        let waits = [MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR];
        Queue {
            retry: waits.map(Duration::from_secs).to_vec(),
            expire: Duration::from_secs(5 * DAY),
            segment_size: 64 << 20,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            message_size: 50 * MIB,
            recipients: 1000,
            connections: 100_000,
            connections_per_client: 1000,
            command_timeout: Duration::from_secs(5 * MINUTE),
            data_timeout: Duration::from_secs(10 * MINUTE),
            errors_per_session: 20,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Admin {
            socket: PathBuf::from("admin.sock"),
            http: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 8025))),
        }
    }
}
