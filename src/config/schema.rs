//! Every key of the configuration in one table: what it means, what is allowed,
//! what holds when it is not given. The reader takes its bounds from here, its
//! messages quote it, and `docs/config.md` is proved to agree with it
//! (`tests/config_docs.rs`).

use std::fmt;

use super::rate::RATE_FORM;
use super::units::{DURATION_FORM, SIZE_FORM, print_duration, print_size};
use crate::base::Mechanism;
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
    /// Any text of one line.
    Text,
    /// Which CPUs.
    Cores,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// A list of some of these texts, in any case.
    Choices(&'static [&'static str]),
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
            Kind::Text => f.write_str("a text of one line"),
            Kind::Cores => f.write_str("\"all\", a count, or a CPU list like \"0-3,8\""),
            Kind::Choice(words) => {
                let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
                f.write_str(&quoted.join(" or "))
            }
            Kind::Choices(words) => {
                let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
                write!(f, "a list of any of {}", quoted.join(", "))
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
                 preference, like [\"192.0.2.1:25\", \"mx.example.org\"], also \
                 \"smtps://HOST:PORT\", \"lmtp://HOST:PORT\" and \"lmtp+unix:///PATH\"; \"mx\", \
                 \"discard\" or \"reject\"",
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

/// Extensions that a listener may do without.
const EXTENSIONS: &[&str] = &[
    "PIPELINING",
    "8BITMIME",
    "SMTPUTF8",
    "DSN",
    "CHUNKING",
    "BINARYMIME",
    "DELIVERBY",
    "FUTURERELEASE",
    "MT-PRIORITY",
    "REQUIRETLS",
    "LIMITS",
    "ETRN",
];

/// How TLS may be used towards a host.
const TLS_MODES: &[&str] = &["off", "optional", "required", "verified"];

/// Mechanisms of AUTH, by name.
const MECHANISMS: &[&str] = &[
    Mechanism::ScramSha256Plus.name(),
    Mechanism::ScramSha256.name(),
    Mechanism::External.name(),
    Mechanism::Plain.name(),
    Mechanism::Login.name(),
];

/// Tables that may stand several times, as `[[listener]]`.
pub const LISTS: &[&str] = &["listener", "route", "site", "tls.certificate"];

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
        Kind::Choice(&["relay", "submission", "submissions", "lmtp"]),
        Value("\"relay\""),
        "What is served there: SMTP between servers (`relay`), message submission (`submission`, port 587), message submission over implicit TLS (`submissions`, port 465), or LMTP (`lmtp`).",
    ),
    key(
        "listener.tls",
        Kind::Choice(&["off", "optional", "required", "implicit"]),
        Value("\"off\""),
        "Whether TLS is used there: never (`off`), by STARTTLS if the client wants it (`optional`), by STARTTLS or no mail is taken (`required`), or from the first octet on (`implicit`).",
    ),
    key(
        "listener.disable",
        Kind::Choices(EXTENSIONS),
        Value("[]"),
        "Extensions that are not offered there, by their keywords in the reply to EHLO. Without 8BITMIME there is no SMTPUTF8, without CHUNKING no BINARYMIME.",
    ),
    key(
        "listener.greet_delay",
        Kind::Span(0, 30 * SECOND),
        Value("\"0s\""),
        "How long the greeting is held back. A client that does not wait for it is turned away, unless `limits.commands_ahead` allows it.",
    ),
    key(
        "listener.proxy_protocol",
        Kind::Flag,
        Value("false"),
        "Whether each connection begins with a PROXY header, version 1 or 2, that tells who the client is. Connections that do not come from `proxy_from` are turned away.",
    ),
    key(
        "listener.proxy_from",
        Kind::Networks,
        Value("[]"),
        "The proxies whose PROXY header is believed.",
    ),
    key(
        "listener.xclient_from",
        Kind::Networks,
        Value("[]"),
        "Clients that may say by XCLIENT on whose behalf they speak: what they say decides who may relay.",
    ),
    key(
        "listener.xforward_from",
        Kind::Networks,
        Value("[]"),
        "Clients that may say by XFORWARD where a message came from, for the log alone.",
    ),
    key(
        "listener.vrfy",
        Kind::Flag,
        Value("false"),
        "Whether VRFY tells a client if mail for an address would be taken from it; else it says nothing.",
    ),
    key(
        "listener.expn",
        Kind::Flag,
        Value("false"),
        "Whether EXPN is answered, with the truth that there are no mailing lists here; else it is refused.",
    ),
    key(
        "listener.auth",
        Kind::Flag,
        Value("false"),
        "Whether clients may authenticate there. On `submission` and `submissions` listeners they always may, and must.",
    ),
    key(
        "tls.certificate",
        Kind::Path,
        Nothing,
        "The certificate of the server and those that lead to its authority, in PEM. For several, write `[[tls.certificate]]` tables instead.",
    ),
    key(
        "tls.key",
        Kind::Path,
        Nothing,
        "The private key of `certificate`, in PEM, without a passphrase.",
    ),
    key(
        "tls.min_version",
        Kind::Choice(&["1.2", "1.3"]),
        Value("\"1.2\""),
        "The lowest version of TLS that is spoken with clients.",
    ),
    key(
        "tls.client_certificates",
        Kind::Choice(&["off", "request", "require"]),
        Value("\"off\""),
        "Whether clients are asked for a certificate: never, but taken if they have one (`request`), or refused unless they have one that `client_ca` leads to (`require`).",
    ),
    key(
        "tls.client_ca",
        Kind::Path,
        Nothing,
        "The authorities that certificates of clients must lead to, in PEM.",
    ),
    key(
        "tls.certificate.names",
        Kind::Patterns,
        Nothing,
        "Names that clients get it for when they ask for one of them (SNI); `*.` stands for one label. Without it, those that the certificate has.",
    ),
    key(
        "tls.certificate.certificate",
        Kind::Path,
        Required,
        "The certificate and those that lead to its authority, in PEM.",
    ),
    key(
        "tls.certificate.key",
        Kind::Path,
        Required,
        "The private key of `certificate`, in PEM, without a passphrase.",
    ),
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
        "Where mail for them goes: the hosts are tried in order; a name is looked up for addresses, its port is `delivery.port` unless written (465 for `smtps`, 24 for `lmtp`). `\"mx\"` relays by the MX records of the domain, `\"discard\"` accepts mail and throws it away, `\"reject\"` refuses it.",
    ),
    key(
        "route.tls",
        Kind::Choice(TLS_MODES),
        Inherited,
        "Whether TLS is used towards the next hop.",
    ),
    key(
        "route.user",
        Kind::Text,
        Nothing,
        "Who the server is towards the next hop, which it authenticates to (AUTH). Needs `password_file`, and `tls` to be `required` or `verified`.",
    ),
    key(
        "route.password_file",
        Kind::Path,
        Nothing,
        "The file whose first line is the password for `user`. Nobody but its owner may have access to it (mode 0600).",
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
    key(
        "delivery.tls",
        Kind::Choice(TLS_MODES),
        Value("\"optional\""),
        "Whether TLS is used towards hosts: never (`off`), where the host offers it, with any certificate (`optional`), always, with any certificate (`required`), or always, with a certificate for the host from a trusted authority (`verified`).",
    ),
    key(
        "delivery.tls_ca",
        Kind::Path,
        Nothing,
        "A PEM file with the authorities that are trusted, in place of those of the system.",
    ),
    key(
        "delivery.chunking",
        Kind::Flag,
        Value("true"),
        "Whether a message up to 16 KiB that no other waits behind goes in one chunk (BDAT), together with its recipients and ahead of the replies to them, where a host offers CHUNKING and PIPELINING. Binary messages always go in chunks.",
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
        "queue.hold_max",
        Kind::Span(1_000, 365 * DAY),
        Value("\"30d\""),
        "Longest time for which a client may ask that a message be held back (FUTURERELEASE). Only where mail is submitted may it be asked.",
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
        "limits.commands_without_mail",
        Kind::Count(10, 1_000_000),
        Value("200"),
        "Commands that are no step of a transaction (NOOP, RSET, EHLO, VRFY, HELP and the like) after which a session is ended with 421, counted anew with each message that is taken.",
    ),
    key(
        "limits.commands_ahead",
        Kind::Choice(&["refuse", "allow"]),
        Value("\"refuse\""),
        "What becomes of a client that sends before it may: ahead of the greeting, or commands ahead of a reply that it has to wait for (RFC 2920, 3.1). It is ended with 421, or heard.",
    ),
    key(
        "limits.connection_rate_per_client",
        Kind::Rate,
        Value("\"off\""),
        "Most new connections from one client in a time, over all cores; more are answered 421.",
    ),
    key(
        "limits.message_rate_per_client",
        Kind::Rate,
        Value("\"off\""),
        "Most transactions that one client begins in a time, over all cores; more are answered 451.",
    ),
    key(
        "limits.message_rate_per_user",
        Kind::Rate,
        Value("\"off\""),
        "Most transactions that one user begins in a time, over all cores, wherever the user comes from; more are answered 451.",
    ),
    key(
        "limits.held_per_user",
        Kind::Count(0, 1_000_000),
        Value("1000"),
        "Most messages of one user that are held back for later (FUTURERELEASE), over all cores; more are answered 452. 0 for any number.",
    ),
    key(
        "limits.unlimited",
        Kind::Networks,
        Value("[]"),
        "Clients that `connections_per_client` and the rates by client do not hold for.",
    ),
    key(
        "limits.data_rate",
        Kind::Size(0, GIB, 1),
        Value("\"100B\""),
        "Bytes a second that a message has to come at, after a minute; a slower client is ended with 421. `0B` for any.",
    ),
    key(
        "limits.receive_memory",
        Kind::Size(16 * MIB, 1024 * GIB, 1),
        Value("\"1GiB\""),
        "Most memory for sessions and the bodies that they take. Near it bodies go to the log in smaller parts, at it messages are answered 452 and connections 421. Each core has its share.",
    ),
    key(
        "auth.users",
        Kind::Path,
        Nothing,
        "The file of those who may authenticate; `ringpost user` keeps it. Relative to the working directory. Needed where clients authenticate.",
    ),
    key(
        "auth.mechanisms",
        Kind::Choices(MECHANISMS),
        Value("[\"SCRAM-SHA-256-PLUS\", \"SCRAM-SHA-256\", \"EXTERNAL\", \"PLAIN\", \"LOGIN\"]"),
        "How clients may authenticate, always over TLS; `EXTERNAL` by a client certificate.",
    ),
    key(
        "auth.sender_match",
        Kind::Choice(&["strict", "off"]),
        Value("\"strict\""),
        "Whether the sender that a user names in MAIL must be one of their own (`strict`); where it must, a message whose author is somebody else gets a `Sender:` field.",
    ),
    key(
        "auth.failure_delay",
        Kind::Span(0, MINUTE),
        Value("\"500ms\""),
        "How long the answer to a first failed attempt of a client, or for a user, is held back; it doubles with each further one, up to 16 times as long.",
    ),
    key(
        "auth.lockout_failures",
        Kind::Count(1, 1000),
        Value("10"),
        "Failed attempts of a client (an IPv4 address or an IPv6 /64), or for a user, after which further ones are answered 454 without being looked at.",
    ),
    key(
        "auth.lockout_time",
        Kind::Span(WAIT_MIN, DAY),
        Value("\"10m\""),
        "For how long, counted from the last failure; also the time after which failures are forgotten.",
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
        .filter_map(|key| match key.path.rsplit_once('.') {
            Some((head, name)) if head == table => Some(name),
            Some((head, _)) if table.is_empty() && !head.contains('.') => Some(head),
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
        for table in
            ["listener", "access", "route", "delivery", "site", "queue", "limits", "auth", "admin"]
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
