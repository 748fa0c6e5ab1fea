//! Every key of the configuration in one table: what it means, what is allowed,
//! what holds when it is not given. The reader takes its bounds from here, its
//! messages quote it, and `docs/config.md` is proved to agree with it
//! (`tests/config_docs.rs`).

use std::fmt;

use super::rate::RATE_FORM;
use super::units::{DURATION_FORM, SIZE_FORM, print_duration, print_size};
use crate::base::limits::{RECIPIENTS_MIN, RECIPIENTS_RECORD_MAX};
use std::time::Duration;

/// A key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// The table it stands in, a dot, and its name; the name alone for keys
    /// outside of tables.
    pub path: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// What holds when it is not given.
    pub default: Fallback,
    /// What it decides.
    pub meaning: &'static str,
}

/// What holds when a key is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// This value, as TOML.
    Value(&'static str),
    /// Nothing: the key must be given.
    Required,
    /// What the host calls itself.
    HostName,
    /// What the key of the same meaning in `[delivery]` says.
    Inherited,
    /// Nothing, and that is allowed.
    Nothing,
}

/// What a key may be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A domain name of ASCII letters, digits and hyphens.
    Domain,
    /// A path of the file system.
    Path,
    /// Which CPUs.
    Cores,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// A whole number, bounds included.
    Count(u32, u32),
    /// `true` or `false`.
    Flag,
    /// A rate, or "off".
    Rate,
    /// A size in bytes, bounds included, a multiple of the last.
    Size(u64, u64, u64),
    /// A duration in milliseconds, bounds included.
    Span(u64, u64),
    /// As [`Kind::Span`], or "off".
    SpanOrOff(u64, u64),
    /// A list of durations in milliseconds, bounds included; not empty.
    Spans(u64, u64),
    /// Addresses to listen on.
    Addresses,
    /// An address, or "off".
    AddressOrOff,
    /// Networks.
    Networks,
    /// A pattern for domains.
    Pattern,
    /// A list of patterns for domains.
    Patterns,
    /// Hosts to relay to, or what else to do.
    NextHop,
    /// Servers of DNS.
    Resolvers,
}

impl fmt::Display for Kind {
    /// What is allowed, in words; the alternate form (`{:#}`) leaves out how
    /// units are written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = |ms| print_duration(Duration::from_millis(ms));
        match *self {
            Kind::Domain => f.write_str(
                "a domain name of ASCII letters, digits and hyphens, like \"relay1.example.com\"",
            ),
            Kind::Path => f.write_str("a path"),
            Kind::Cores => f.write_str("\"all\", a count, or a CPU list like \"0-3,8\""),
            Kind::Choice(words) => {
                let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
                f.write_str(&quoted.join(" or "))
            }
            Kind::Count(min, max) => write!(f, "{min} to {max}"),
            Kind::Flag => f.write_str("true or false"),
            Kind::Rate => write!(f, "{RATE_FORM}, or \"off\""),
            Kind::Size(min, max, step) => {
                write!(f, "{} to {}", print_size(min), print_size(max))?;
                if step > 1 {
                    write!(f, ", a multiple of {}", print_size(step))?;
                }
                unit_form(f, SIZE_FORM)
            }
            Kind::Span(min, max) => {
                write!(f, "{} to {}", span(min), span(max))?;
                unit_form(f, DURATION_FORM)
            }
            Kind::SpanOrOff(min, max) => {
                write!(f, "{} to {}, or \"off\"", span(min), span(max))?;
                unit_form(f, DURATION_FORM)
            }
            Kind::Spans(min, max) => {
                let (min, max) = (span(min), span(max));
                write!(f, "a list of at least one duration, each {min} to {max}")?;
                unit_form(f, DURATION_FORM)
            }
            Kind::Addresses => {
                f.write_str("IP:PORT or a list of them, like [\"0.0.0.0:25\", \"[::]:25\"]")
            }
            Kind::AddressOrOff => f.write_str("IP:PORT, like \"127.0.0.1:8025\", or \"off\""),
            Kind::Networks => {
                f.write_str("a list of networks or addresses, like [\"10.0.0.0/8\", \"::1\"]")
            }
            Kind::Pattern => f.write_str("\"example.org\", \"*.example.org\" or \"*\""),
            Kind::Patterns => {
                f.write_str("\"example.org\", \"*.example.org\", \"*\" or a list of them")
            }
            Kind::NextHop => f.write_str(
                "IP:PORT, a host name, a host name with a port, or a list of them in order of \
                 preference, like [\"192.0.2.1:25\", \"mx.example.org\"]; \"mx\", \"discard\" or \
                 \"reject\"",
            ),
            Kind::Resolvers => f.write_str(
                "a list of IP or IP:PORT, at most 8, like [\"192.0.2.53\", \"127.0.0.1:5353\"]",
            ),
        }
    }
}

fn unit_form(f: &mut fmt::Formatter<'_>, form: &str) -> fmt::Result {
    if f.alternate() { Ok(()) } else { write!(f, "; {form}") }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// Shortest time-out or wait, in milliseconds.
const WAIT_MIN: u64 = 10;
/// Fewest bytes a server must take in a message (RFC 5321, 4.5.3.1.7).
const MESSAGE_SIZE_FLOOR: u64 = 64 * KIB;
/// Log files are written in blocks of this size.
const BLOCK: u64 = 4 * KIB;
/// Recipients that a record can name; also few enough for 16 bits.
const RECIPIENTS_MOST: u32 = RECIPIENTS_RECORD_MAX as u32;
const RECIPIENTS_FEWEST: u32 = RECIPIENTS_MIN as u32;

/// Tables that may stand several times, as `[[listener]]`.
pub const LISTS: &[&str] = &["listener", "route", "site"];

/// Shorthand for a row of [`KEYS`].
const fn key(path: &'static str, kind: Kind, default: Fallback, meaning: &'static str) -> Key {
    Key { path, kind, default, meaning }
}

use Fallback::{HostName, Inherited, Nothing, Required, Value};

/// The table, in the order in which the file is written and documented.
pub const KEYS: &[Key] = &[
    key(
        "hostname",
        Kind::Domain,
        HostName,
        "What the server calls itself in greetings, `Received:` fields and reports.",
    ),
    key(
        "data_dir",
        Kind::Path,
        Value("\"/var/lib/ringpost\""),
        "Where the logs of queued mail, the lock and the admin socket live. Made if missing. Relative to the working directory.",
    ),
    key(
        "cores",
        Kind::Cores,
        Value("\"all\""),
        "Which CPUs get a shard; `\"all\"` means every CPU that the process may use.",
    ),
    key(
        "durability",
        Kind::Choice(&["sync", "os", "memory"]),
        Value("\"sync\""),
        "When a message counts as stored and `250` is sent: flushed to stable storage (`sync`), handed to the operating system (`os`), or copied to the write buffer (`memory`).",
    ),
    key(
        "shutdown_grace",
        Kind::Span(0, HOUR),
        Value("\"30s\""),
        "How long transactions in flight may take to finish when the server is stopped.",
    ),
    key(
        "listener.address",
        Kind::Addresses,
        Required,
        "Where to listen. Port 0 takes any free port.",
    ),
    key(
        "listener.kind",
        Kind::Choice(&["relay"]),
        Value("\"relay\""),
        "What is served there: SMTP between servers (`relay`).",
    ),
    key("listener.tls", Kind::Choice(&["off"]), Value("\"off\""), "Whether TLS is used there."),
    key(
        "access.relay_from",
        Kind::Networks,
        Value("[\"127.0.0.0/8\", \"::1/128\"]"),
        "Clients that may relay to any domain.",
    ),
    key(
        "access.relay_domains",
        Kind::Patterns,
        Value("[]"),
        "Recipient domains that are accepted from every client.",
    ),
    key(
        "route.domain",
        Kind::Pattern,
        Required,
        "The recipient domains that the route is for. `*.example.org` means every domain below `example.org`, not `example.org` itself.",
    ),
    key(
        "route.next_hop",
        Kind::NextHop,
        Required,
        "Where mail for them goes: the hosts are tried in order; a name is looked up for addresses, its port is `delivery.port` unless written. `\"mx\"` relays by the MX records of the domain, `\"discard\"` accepts mail and throws it away, `\"reject\"` refuses it.",
    ),
    key(
        "route.tls",
        Kind::Choice(&["off"]),
        Value("\"off\""),
        "Whether TLS is used towards the next hop.",
    ),
    key(
        "delivery.connections_per_site",
        Kind::Count(1, 10_000),
        Value("20"),
        "Most connections to one site at a time, over all cores.",
    ),
    key(
        "delivery.messages_per_connection",
        Kind::Count(1, 1_000_000),
        Value("1000"),
        "Messages sent over one connection before it is closed.",
    ),
    key(
        "delivery.connection_rate",
        Kind::Rate,
        Value("\"off\""),
        "Most new connections to one site in a time, over all cores.",
    ),
    key(
        "delivery.message_rate",
        Kind::Rate,
        Value("\"off\""),
        "Most messages to one site in a time, over all cores.",
    ),
    key(
        "delivery.port",
        Kind::Count(1, 65_535),
        Value("25"),
        "The port of hosts that MX records name, and of next hops written without one.",
    ),
    key(
        "delivery.allow_private_targets",
        Kind::Flag,
        Value("false"),
        "Whether mail may go to loopback, private and link-local addresses that MX records or address literals lead to. Hosts that a route names are always allowed.",
    ),
    key(
        "delivery.connect_timeout",
        Kind::Span(WAIT_MIN, 10 * MINUTE),
        Value("\"30s\""),
        "How long a connection to a next hop may take to be made.",
    ),
    key("site.domain", Kind::Patterns, Nothing, "Recipient domains whose sites are meant."),
    key(
        "site.mx",
        Kind::Patterns,
        Nothing,
        "Hosts whose sites are meant: names in MX records, or in a route's `next_hop`.",
    ),
    key(
        "site.connections",
        Kind::Count(1, 10_000),
        Inherited,
        "As `connections_per_site`, for these.",
    ),
    key(
        "site.messages_per_connection",
        Kind::Count(1, 1_000_000),
        Inherited,
        "As in `[delivery]`, for these.",
    ),
    key("site.connection_rate", Kind::Rate, Inherited, "As in `[delivery]`, for these."),
    key("site.message_rate", Kind::Rate, Inherited, "As in `[delivery]`, for these."),
    key(
        "queue.retry",
        Kind::Spans(WAIT_MIN, 7 * DAY),
        Value("[\"1m\", \"5m\", \"15m\", \"30m\", \"1h\", \"2h\", \"4h\"]"),
        "Waits between the attempts for a recipient; the last repeats. Each is varied a little, so that attempts do not come in waves.",
    ),
    key(
        "queue.expire",
        Kind::Span(WAIT_MIN, 30 * DAY),
        Value("\"5d\""),
        "Age at which a message that could not be delivered is returned to its sender.",
    ),
    key(
        "queue.delay_notice",
        Kind::SpanOrOff(WAIT_MIN, 30 * DAY),
        Value("\"4h\""),
        "Age at which the sender is told once that a message is delayed, if it was not delivered by then.",
    ),
    key(
        "queue.segment_size",
        Kind::Size(MIB, GIB, BLOCK),
        Value("\"64MiB\""),
        "Size of one file of the log. Must hold a message of `limits.recipients` recipients.",
    ),
    key(
        "dns.servers",
        Kind::Resolvers,
        Value("[]"),
        "The DNS servers to ask, each in turn; they must be recursive. None: those of `/etc/resolv.conf`.",
    ),
    key(
        "dns.timeout",
        Kind::Span(WAIT_MIN, MINUTE),
        Value("\"5s\""),
        "How long a look-up may take in all, over all servers.",
    ),
    key(
        "limits.message_size",
        Kind::Size(MESSAGE_SIZE_FLOOR, 4 * GIB, 1),
        Value("\"50MiB\""),
        "Largest message taken, announced with SIZE (RFC 1870).",
    ),
    key(
        "limits.recipients",
        Kind::Count(RECIPIENTS_FEWEST, RECIPIENTS_MOST),
        Value("1000"),
        "Most recipients in one transaction; more are answered 452, and the client sends the rest in another (RFC 5321, 4.5.3.1.10).",
    ),
    key(
        "limits.connections",
        Kind::Count(1, 1_000_000),
        Value("100000"),
        "Most open sessions; more are answered 421. Each core allows its share.",
    ),
    key(
        "limits.connections_per_client",
        Kind::Count(1, 1_000_000),
        Value("1000"),
        "Most open sessions from one client, an IPv4 address or an IPv6 /64; more are answered 421. Each core allows its share, at least one.",
    ),
    key(
        "limits.command_timeout",
        Kind::Span(WAIT_MIN, HOUR),
        Value("\"5m\""),
        "How long a client may take to send a command (RFC 5321, 4.5.3.2.7).",
    ),
    key(
        "limits.data_timeout",
        Kind::Span(WAIT_MIN, HOUR),
        Value("\"10m\""),
        "How long a client may pause within DATA.",
    ),
    key(
        "limits.errors_per_session",
        Kind::Count(1, 1000),
        Value("20"),
        "Commands answered with an error after which the session is ended with 421.",
    ),
    key(
        "admin.socket",
        Kind::Path,
        Value("\"admin.sock\""),
        "The socket that `ringpost queue` talks to; relative to `data_dir`.",
    ),
    key(
        "admin.http",
        Kind::AddressOrOff,
        Value("\"127.0.0.1:8025\""),
        "Where `/metrics` and `/healthz` are served. Port 0 takes any free port.",
    ),
];

/// The row of `path`.
///
/// # Panics
/// When there is none: the reader asks only for keys that exist.
pub(super) fn find(path: &str) -> &'static Key {
    KEYS.iter().find(|key| key.path == path).unwrap_or_else(|| panic!("no key {path}"))
}

/// The names of the keys of `table`; for the root (`""`) the keys outside of
/// tables and the tables.
pub(super) fn names(table: &str) -> Vec<&'static str> {
    let mut names: Vec<&str> = KEYS
        .iter()
        .filter_map(|key| match key.path.split_once('.') {
            Some((head, name)) if head == table => Some(name),
            Some((head, _)) if table.is_empty() => Some(head),
            None if table.is_empty() => Some(key.path),
            _ => None,
        })
        .collect();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keys_and_tables_once() {
        let root = names("");
        assert_eq!(root[..3], ["hostname", "data_dir", "cores"]);
        for table in ["listener", "access", "route", "delivery", "site", "queue", "limits", "admin"]
        {
            assert_eq!(root.iter().filter(|name| **name == table).count(), 1, "{table}");
            assert!(!names(table).is_empty());
        }
        assert_eq!(names("admin"), ["socket", "http"]);
    }

    #[test]
    fn paths_are_unique() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(KEYS[..index].iter().all(|other| other.path != key.path), "{}", key.path);
        }
    }
}
