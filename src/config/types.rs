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

use crate::base::{Durability, Mechanism, Mechanisms};
use crate::config::cores::Cores;
use crate::config::host::HostPort;
use crate::config::pattern::DomainPattern;
use crate::config::rate::Rate;
use crate::config::secret::Secret;
use crate::config::tls::{Certificates, ServerTls};

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
    /// The certificates of the server.
    pub tls: ServerTls,
    /// Who may relay.
    pub access: Access,
    /// Where mail goes; the first match wins. What none matches goes by MX.
    pub routes: Vec<Route>,
    /// The line of the file that each route begins in; 0 when it comes from an
    /// option.
    pub route_lines: Written<Vec<u32>>,
    /// How mail is delivered.
    pub delivery: Delivery,
    /// Limits of single sites, in the order written.
    pub sites: Vec<SiteTable>,
    /// How mail is kept and retried.
    pub queue: Queue,
    /// Whom names are looked up with.
    pub dns: Dns,
    /// What clients may ask of the server.
    pub limits: Limits,
    /// How clients authenticate.
    pub auth: Auth,
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
    pub tls: ListenerTls,
    /// Keywords of EHLO that are not offered there, in capitals.
    pub disable: Vec<&'static str>,
    /// VRFY tells whether mail for an address would be taken.
    pub vrfy: bool,
    /// EXPN is answered.
    pub expn: bool,
    /// Clients may authenticate there. See [`Listener::authenticates`].
    pub auth: bool,
    /// How long the greeting is held back.
    pub greet_delay: Duration,
    /// Whom it believes about other clients.
    pub fronts: Fronts,
}

/// The hosts in front of a listener that speak for others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fronts {
    /// Each connection begins with a PROXY header.
    pub proxy_protocol: bool,
    /// Who may send one; not empty where it is asked for.
    pub proxy_from: Vec<IpNet>,
    /// Who may send XCLIENT.
    pub xclient_from: Vec<IpNet>,
    /// Who may send XFORWARD.
    pub xforward_from: Vec<IpNet>,
}

impl Listener {
    /// True unless the operator has taken `keyword` out.
    pub fn offers(&self, keyword: &str) -> bool {
        !self.disable.contains(&keyword)
    }

    /// True if message submission is served, where clients have to authenticate.
    pub fn is_submission(&self) -> bool {
        matches!(self.kind, ListenerKind::Submission | ListenerKind::Submissions)
    }

    /// True if clients may authenticate.
    pub fn authenticates(&self) -> bool {
        self.auth || self.is_submission()
    }
}

/// What a listener serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListenerKind {
    /// SMTP between servers (RFC 5321).
    #[default]
    Relay,
    /// Message submission (RFC 6409).
    Submission,
    /// Message submission over implicit TLS (RFC 8314).
    Submissions,
    /// LMTP (RFC 2033).
    Lmtp,
}

/// How TLS is used on a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListenerTls {
    /// Never.
    #[default]
    Off,
    /// Offered with STARTTLS (RFC 3207).
    Optional,
    /// Offered with STARTTLS, and nothing is done without it.
    Required,
    /// From the first octet on (RFC 8314).
    Implicit,
}

/// How TLS is used towards a next hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tls {
    /// Never.
    Off,
    /// Where the host offers it, with any certificate.
    #[default]
    Optional,
    /// Always, with any certificate.
    Required,
    /// Always, with a certificate for the host from a trusted authority.
    Verified,
}

impl Tls {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Tls::Off => "off",
            Tls::Optional => "optional",
            Tls::Required => "required",
            Tls::Verified => "verified",
        }
    }
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
    /// Whether TLS is used towards the next hop; [`Delivery::tls`] for `None`.
    pub tls: Option<Tls>,
    /// Who the server is towards the next hop.
    pub login: Option<Login>,
}

impl Route {
    /// A route that says nothing but where mail goes.
    pub fn new(domain: DomainPattern, next_hop: NextHop) -> Route {
        Route { domain, next_hop, tls: None, login: None }
    }
}

/// A name and a password for a next hop.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The file that the password was read from.
    pub password_file: PathBuf,
    /// The password.
    pub password: Secret,
}

/// What a route does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// Relay to the first of these that can be reached; at least one, none twice.
    Hosts(Vec<HostPort>),
    /// Relay by the MX records of the domain.
    Mx,
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
    /// Most new connections to one site in a time; `None` for any number.
    pub connection_rate: Option<Rate>,
    /// Most messages to one site in a time; `None` for any number.
    pub message_rate: Option<Rate>,
    /// The port of hosts that are not written with one; never 0.
    pub port: u16,
    /// Whether hosts that MX records or address literals name may be in private
    /// space; those of a route may.
    pub allow_private_targets: bool,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// Whether TLS is used towards hosts, where a route does not say.
    pub tls: Tls,
    /// The authorities that certificates of hosts must be from, in PEM; those of the
    /// system for `None`.
    pub tls_ca: Option<PathBuf>,
    /// Whether a lone short message goes in one chunk where a host takes that.
    pub chunking: bool,
    /// The names of the keys that were given.
    pub given: Written<Vec<&'static str>>,
}

/// `[[site]]`: limits of the sites that it names. A table is about a site when a
/// pattern in either of its lists matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteTable {
    /// The recipient domains it is about.
    pub domains: Vec<DomainPattern>,
    /// The host names it is about; not empty if `domains` is.
    pub mx: Vec<DomainPattern>,
    /// As [`Delivery::connections_per_site`].
    pub connections: Option<u32>,
    /// As [`Delivery::messages_per_connection`].
    pub messages_per_connection: Option<u32>,
    /// As [`Delivery::connection_rate`]; `Some(None)` where it says "off".
    pub connection_rate: Option<Option<Rate>>,
    /// As [`Delivery::message_rate`]; `Some(None)` where it says "off".
    pub message_rate: Option<Option<Rate>>,
    /// The line of the file that it begins in; 0 when it comes from an option.
    pub line: Written<u32>,
}

/// How or where something was written, to be told to operators. It takes no part
/// in comparisons: two configurations that say the same are equal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written<T>(pub T);

impl<T> PartialEq for Written<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for Written<T> {}

/// `[queue]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Waits between attempts; the last repeats; at least one.
    pub retry: Vec<Duration>,
    /// Age at which delivery is given up.
    pub expire: Duration,
    /// Age at which the sender is told of the delay; `None` for never.
    pub delay_notice: Option<Duration>,
    /// Longest time that a client may have a message held back.
    pub hold_max: Duration,
    /// Size of one file of the log, in bytes; a multiple of 4096.
    pub segment_size: u32,
}

/// `[dns]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// The servers to ask, each in turn; empty for those of the host.
    pub servers: Vec<SocketAddr>,
    /// How long a look-up may take in all.
    pub timeout: Duration,
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
    /// Commands without mail after which a session is ended.
    pub commands_without_mail: u32,
    /// Whether clients that send before they may are heard.
    pub commands_ahead: Ahead,
    /// Most new connections of a client in a time; `None` for any number.
    pub connection_rate_per_client: Option<Rate>,
    /// Most transactions of a client in a time; `None` for any number.
    pub message_rate_per_client: Option<Rate>,
    /// Most transactions of a user in a time; `None` for any number.
    pub message_rate_per_user: Option<Rate>,
    /// Most messages of a user that are held for later; 0 for any number.
    pub held_per_user: u32,
    /// Clients that the limits by client do not hold for.
    pub unlimited: Vec<IpNet>,
    /// Bytes a second that a body has to come at; 0 for any.
    pub data_rate: u64,
    /// Most memory for sessions and the bodies they take, in bytes, over all cores.
    pub receive_memory: u64,
}

/// What becomes of clients that send before they may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ahead {
    /// They are ended.
    #[default]
    Refuse,
    /// They are heard.
    Allow,
}

/// `[auth]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// The users file; given if any listener has clients authenticate.
    pub users: Option<PathBuf>,
    /// How clients may authenticate.
    pub mechanisms: Mechanisms,
    /// Whether senders must be the user's own.
    pub sender_match: SenderMatch,
    /// Wait before the answer to a first failure.
    pub failure_delay: Duration,
    /// Failures after which a client or user is shut out; 1 or more.
    pub lockout_failures: u32,
    /// For how long, and when failures are forgotten.
    pub lockout_time: Duration,
}

/// Whether the sender of a user's mail must be one of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SenderMatch {
    /// It must.
    #[default]
    Strict,
    /// It may be any.
    Off,
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
                tls: ListenerTls::Optional,
                disable: Vec::new(),
                vrfy: false,
                expn: false,
                greet_delay: Duration::ZERO,
                fronts: Fronts::default(),
                auth: false,
            }],
            tls: ServerTls { certificates: Certificates::SelfSigned, ..ServerTls::default() },
            access: Access::default(),
            routes: vec![Route::new(
                DomainPattern::Any,
                NextHop::Hosts(vec![loopback(2526).into()]),
            )],
            route_lines: Written::default(),
            delivery: Delivery::default(),
            sites: Vec::new(),
            queue: Queue::default(),
            dns: Dns::default(),
            limits: Limits::default(),
            auth: Auth::default(),
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
            connection_rate: None,
            message_rate: None,
            port: 25,
            allow_private_targets: false,
            connect_timeout: Duration::from_secs(30),
            tls: Tls::default(),
            tls_ca: None,
            chunking: true,
            given: Written::default(),
        }
    }
}

impl Default for Queue {
    fn default() -> Self {
        let waits = [MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR];
        Queue {
            retry: waits.map(Duration::from_secs).to_vec(),
            expire: Duration::from_secs(5 * DAY),
            delay_notice: Some(Duration::from_secs(4 * HOUR)),
            hold_max: Duration::from_secs(30 * DAY),
            segment_size: 64 << 20,
        }
    }
}

impl Default for Dns {
    fn default() -> Self {
        Dns { servers: Vec::new(), timeout: Duration::from_secs(5) }
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
            commands_without_mail: 200,
            commands_ahead: Ahead::Refuse,
            connection_rate_per_client: None,
            message_rate_per_client: None,
            message_rate_per_user: None,
            held_per_user: 1000,
            unlimited: Vec::new(),
            data_rate: 100,
            receive_memory: 1 << 30,
        }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Auth {
            users: None,
            mechanisms: Mechanism::ALL.into_iter().collect(),
            sender_match: SenderMatch::default(),
            failure_delay: Duration::from_millis(500),
            lockout_failures: 10,
            lockout_time: Duration::from_secs(10 * MINUTE),
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
