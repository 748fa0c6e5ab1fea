//! A [`Config`] written out in full, every key with its value: as TOML that
//! loads to the same `Config`, and as JSON with the same values.

use std::fmt::Write;

use toml::Value;

use super::cores::Cores;
use super::rate::Rate;
use super::schema;
use super::types::{Config, Listener, ListenerKind, NextHop, Route, SiteTable, Tls};
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
            root.insert(table.into(), value);
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
            ("segment_size", text(print_size(config.queue.segment_size.into()))),
        ]],
        "dns" => vec![vec![
            ("servers", list(&config.dns.servers)),
            ("timeout", text(print_duration(config.dns.timeout))),
        ]],
        "limits" => vec![limits(config)],
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
    };
    vec![("address", list(&listener.addresses)), ("kind", text(kind)), ("tls", tls(listener.tls))]
}

fn route(route: &Route) -> Pairs {
    let next_hop = match &route.next_hop {
        NextHop::Hosts(hosts) => list(hosts),
        NextHop::Mx => text("mx"),
        NextHop::Discard => text("discard"),
        NextHop::Reject => text("reject"),
    };
    vec![("domain", text(&route.domain)), ("next_hop", next_hop), ("tls", tls(route.tls))]
}

fn delivery(config: &Config) -> Pairs {
    let delivery = &config.delivery;
    vec![
        ("connections_per_site", delivery.connections_per_site.into()),
        ("messages_per_connection", delivery.messages_per_connection.into()),
        ("connection_rate", rate(delivery.connection_rate)),
        ("message_rate", rate(delivery.message_rate)),
        ("port", u32::from(delivery.port).into()),
        ("allow_private_targets", delivery.allow_private_targets.into()),
        ("connect_timeout", text(print_duration(delivery.connect_timeout))),
    ]
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
    ]
}

fn tls(tls: Tls) -> Value {
    match tls {
        Tls::Off => text("off"),
    }
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
