//! A [`Config`] written out in full, every key with its value: as TOML that
//! loads to the same `Config`, and as JSON with the same values.

use std::fmt::Write;

use toml::Value;

use super::cores::Cores;
use super::rate::Rate;
use super::schema;
use super::tls::{CertificateFiles, Certificates, ClientCertificates, ServerTls, TlsVersion};
use super::types::{
    Ahead, Auth, Config, Listener, ListenerKind, ListenerTls, Login, NextHop, Route, SenderMatch,
    SiteTable, Tls,
};
use super::units::{print_duration, print_size};

type Pairs = Vec<(&'static str, Value)>;

impl Config {
    /// The configuration as TOML, every key written out, in the order of the
    /// documentation. Loads to the same configuration.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for (name, value) in root_pairs(self) {
            write_pair(&mut text, name, &value);
        }
        for table in tables() {
            let is_list = schema::LISTS.contains(&table);
            for pairs in table_pairs(self, table) {
                let head = if is_list { format!("[[{table}]]") } else { format!("[{table}]") };
                text.push_str(&format!("\n{head}\n"));
                for (name, value) in pairs {
                    write_pair(&mut text, name, &value);
                }
            }
            for pairs in inner_pairs(self, table) {
                text.push_str(&format!("\n[[{table}.{INNER}]]\n"));
                for (name, value) in pairs {
                    write_pair(&mut text, name, &value);
                }
            }
        }
        text
    }

    /// The configuration as JSON: the same keys and values as in TOML.
    pub fn to_json(&self) -> serde_json::Value {
        let mut root = object(root_pairs(self));
        for table in tables() {
            let mut rows: Vec<serde_json::Value> =
                table_pairs(self, table).into_iter().map(|pairs| object(pairs).into()).collect();
            // As in TOML, a list without tables is not there.
            if rows.is_empty() {
                continue;
            }
            let value = match schema::LISTS.contains(&table) {
                true => serde_json::Value::Array(rows),
                false => rows.remove(0),
            };
            let inner: Vec<serde_json::Value> =
                inner_pairs(self, table).into_iter().map(|pairs| object(pairs).into()).collect();
            root.insert(table.into(), value);
            if !inner.is_empty() {
                root[table][INNER] = serde_json::Value::Array(inner);
            }
        }
        root.into()
    }
}

fn tables() -> impl Iterator<Item = &'static str> {
    let is_table = |name: &&str| !schema::names(name).is_empty();
    schema::names("").into_iter().filter(is_table)
}

fn write_pair(text: &mut String, name: &str, value: &Value) {
    writeln!(text, "{name} = {value}").expect("a String takes everything");
}

fn object(pairs: Pairs) -> serde_json::Map<String, serde_json::Value> {
    let json = |value: Value| serde_json::to_value(value).expect("texts, integers and lists");
    pairs.into_iter().map(|(name, value)| (name.to_owned(), json(value))).collect()
}

fn root_pairs(config: &Config) -> Pairs {
    vec![
        ("hostname", text(&config.hostname)),
        ("data_dir", text(config.data_dir.display())),
        ("cores", cores(&config.cores)),
        ("durability", text(config.durability)),
        ("shutdown_grace", text(print_duration(config.shutdown_grace))),
    ]
}

/// The rows of a table that may stand several times, or its one row.
fn table_pairs(config: &Config, table: &str) -> Vec<Pairs> {
    match table {
        "listener" => config.listeners.iter().map(listener).collect(),
        "route" => config.routes.iter().map(route).collect(),
        "tls" => vec![server_tls(&config.tls)],
        "access" => vec![vec![
            ("relay_from", list(&config.access.relay_from)),
            ("relay_domains", list(&config.access.relay_domains)),
        ]],
        "delivery" => vec![delivery(config)],
        "site" => config.sites.iter().map(site).collect(),
        "queue" => vec![vec![
            ("retry", list(config.queue.retry.iter().map(|span| print_duration(*span)))),
            ("expire", text(print_duration(config.queue.expire))),
            (
                "delay_notice",
                config.queue.delay_notice.map_or_else(off, |s| text(print_duration(s))),
            ),
            ("hold_max", text(print_duration(config.queue.hold_max))),
            ("segment_size", text(print_size(config.queue.segment_size.into()))),
        ]],
        "dns" => vec![vec![
            ("servers", list(&config.dns.servers)),
            ("timeout", text(print_duration(config.dns.timeout))),
        ]],
        "limits" => vec![limits(config)],
        "auth" => vec![auth(&config.auth)],
        "admin" => vec![vec![
            ("socket", text(config.admin.socket.display())),
            ("http", config.admin.http.map_or_else(off, text)),
        ]],
        other => unreachable!("the schema has a table {other} that is not printed"),
    }
}

fn listener(listener: &Listener) -> Pairs {
    let kind = match listener.kind {
        ListenerKind::Relay => "relay",
        ListenerKind::Submission => "submission",
        ListenerKind::Submissions => "submissions",
        ListenerKind::Lmtp => "lmtp",
    };
    let tls = match listener.tls {
        ListenerTls::Off => "off",
        ListenerTls::Optional => "optional",
        ListenerTls::Required => "required",
        ListenerTls::Implicit => "implicit",
    };
    vec![
        ("address", list(&listener.addresses)),
        ("kind", text(kind)),
        ("tls", text(tls)),
        ("disable", list(&listener.disable)),
        ("vrfy", listener.vrfy.into()),
        ("expn", listener.expn.into()),
        ("greet_delay", text(print_duration(listener.greet_delay))),
        ("proxy_protocol", listener.fronts.proxy_protocol.into()),
        ("proxy_from", list(&listener.fronts.proxy_from)),
        ("xclient_from", list(&listener.fronts.xclient_from)),
        ("xforward_from", list(&listener.fronts.xforward_from)),
        ("auth", listener.auth.into()),
    ]
}

/// The name of the one list of tables that stands within a table.
const INNER: &str = "certificate";

/// The rows of the list within `table`.
fn inner_pairs(config: &Config, table: &str) -> Vec<Pairs> {
    let files = if table == "tls" { config.tls.certificates.files() } else { &[] };
    files.iter().filter(|files| !files.is_only).map(certificate).collect()
}

fn certificate(files: &CertificateFiles) -> Pairs {
    let mut pairs = vec![
        ("certificate", text(files.certificate.display())),
        ("key", text(files.key.display())),
    ];
    if !files.names.is_empty() {
        pairs.push(("names", list(&files.names)));
    }
    pairs
}

/// A file that is not given is not written.
fn server_tls(tls: &ServerTls) -> Pairs {
    let only = tls.certificates.files().first().filter(|files| files.is_only);
    let certificate = match (&tls.certificates, only) {
        (Certificates::SelfSigned, _) => Some(text(super::tls::SELF_SIGNED)),
        (_, only) => only.map(|files| text(files.certificate.display())),
    };
    let asked = match tls.client_certificates {
        ClientCertificates::Off => "off",
        ClientCertificates::Request => "request",
        ClientCertificates::Require => "require",
    };
    let min_version = match tls.min_version {
        TlsVersion::Tls12 => "1.2",
        TlsVersion::Tls13 => "1.3",
    };
    let pairs = [
        ("certificate", certificate),
        ("key", only.map(|files| text(files.key.display()))),
        ("min_version", Some(text(min_version))),
        ("client_certificates", Some(text(asked))),
        ("client_ca", tls.client_ca.as_ref().map(|path| text(path.display()))),
    ];
    pairs.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn route(route: &Route) -> Pairs {
    let next_hop = match &route.next_hop {
        NextHop::Hosts(hosts) => list(hosts),
        NextHop::Mx => text("mx"),
        NextHop::Discard => text("discard"),
        NextHop::Reject => text("reject"),
    };
    let login = |value: fn(&Login) -> String| route.login.as_ref().map(|login| text(value(login)));
    let pairs = [
        ("domain", Some(text(&route.domain))),
        ("next_hop", Some(next_hop)),
        ("tls", route.tls.map(tls)),
        ("user", login(|login| login.user.clone())),
        ("password_file", login(|login| login.password_file.display().to_string())),
    ];
    pairs.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn delivery(config: &Config) -> Pairs {
    let delivery = &config.delivery;
    let mut pairs = vec![
        ("connections_per_site", delivery.connections_per_site.into()),
        ("messages_per_connection", delivery.messages_per_connection.into()),
        ("connection_rate", rate(delivery.connection_rate)),
        ("message_rate", rate(delivery.message_rate)),
        ("port", u32::from(delivery.port).into()),
        ("allow_private_targets", delivery.allow_private_targets.into()),
        ("connect_timeout", text(print_duration(delivery.connect_timeout))),
        ("tls", tls(delivery.tls)),
        ("chunking", delivery.chunking.into()),
    ];
    pairs.extend(delivery.tls_ca.as_ref().map(|path| ("tls_ca", text(path.display()))));
    pairs
}

/// A key that is not given is not written: what holds then is another matter for
/// each site.
fn site(table: &SiteTable) -> Pairs {
    let some = |patterns: &[_]| (!patterns.is_empty()).then(|| list(patterns));
    let pairs = [
        ("domain", some(&table.domains)),
        ("mx", some(&table.mx)),
        ("connections", table.connections.map(Value::from)),
        ("messages_per_connection", table.messages_per_connection.map(Value::from)),
        ("connection_rate", table.connection_rate.map(rate)),
        ("message_rate", table.message_rate.map(rate)),
    ];
    pairs.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn limits(config: &Config) -> Pairs {
    let limits = &config.limits;
    vec![
        ("message_size", text(print_size(limits.message_size))),
        ("recipients", limits.recipients.into()),
        ("connections", limits.connections.into()),
        ("connections_per_client", limits.connections_per_client.into()),
        ("command_timeout", text(print_duration(limits.command_timeout))),
        ("data_timeout", text(print_duration(limits.data_timeout))),
        ("errors_per_session", limits.errors_per_session.into()),
        ("commands_without_mail", limits.commands_without_mail.into()),
        ("commands_ahead", text(ahead(limits.commands_ahead))),
        ("connection_rate_per_client", rate(limits.connection_rate_per_client)),
        ("message_rate_per_client", rate(limits.message_rate_per_client)),
        ("message_rate_per_user", rate(limits.message_rate_per_user)),
        ("held_per_user", limits.held_per_user.into()),
        ("unlimited", list(&limits.unlimited)),
        ("data_rate", text(print_size(limits.data_rate))),
        ("receive_memory", text(print_size(limits.receive_memory))),
    ]
}

fn ahead(ahead: Ahead) -> &'static str {
    match ahead {
        Ahead::Refuse => "refuse",
        Ahead::Allow => "allow",
    }
}

fn auth(auth: &Auth) -> Pairs {
    let sender_match = match auth.sender_match {
        SenderMatch::Strict => "strict",
        SenderMatch::Off => "off",
    };
    let users = auth.users.as_ref().map(|users| ("users", text(users.display())));
    let rest = [
        ("mechanisms", list(auth.mechanisms.iter())),
        ("sender_match", text(sender_match)),
        ("failure_delay", text(print_duration(auth.failure_delay))),
        ("lockout_failures", auth.lockout_failures.into()),
        ("lockout_time", text(print_duration(auth.lockout_time))),
    ];
    users.into_iter().chain(rest).collect()
}

fn tls(tls: Tls) -> Value {
    text(tls.name())
}

fn rate(rate: Option<Rate>) -> Value {
    rate.map_or_else(off, text)
}

fn off() -> Value {
    text("off")
}

fn cores(cores: &Cores) -> Value {
    match cores {
        Cores::Count(count) => Value::Integer(i64::try_from(*count).unwrap_or(i64::MAX)),
        words => text(words),
    }
}

fn text(value: impl ToString) -> Value {
    Value::String(value.to_string())
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> Value {
    Value::Array(items.into_iter().map(text).collect())
}
