//! From the tree of what was written to a [`Config`]: every key once, unknown
//! ones refused, all faults collected. Checks of one value against another are
//! in `checks`.

use super::error::ConfigError;
use super::schema::{self, Fallback, Kind, LISTS};
use super::suggest::nearest;
use super::tree::{At, Entry, Node, Tree, Value};
use super::types::{
    Access, Admin, Config, DATA_DIR, Delivery, Dns, Limits, Listener, ListenerKind, NextHop, Queue,
    Route, SHUTDOWN_GRACE, SiteTable, Tls, Written,
};
use super::values::{self, Checked};
use crate::base::Durability;

/// Reads a whole configuration. `host_name` is what the host calls itself, asked
/// for when `hostname` is not given.
///
/// # Errors
/// Everything that is wrong with single values.
pub(super) fn read(
    tree: &Tree,
    host_name: impl FnOnce() -> Result<String, String>,
) -> Result<Config, Vec<ConfigError>> {
    let mut reader = Reader { tree, errors: Vec::new() };
    let root = Section { path: "", at: None, entries: tree.root.value.entries() };
    let config = reader.config(&root, host_name);
    if reader.errors.is_empty() { Ok(config) } else { Err(reader.errors) }
}

struct Reader<'t> {
    tree: &'t Tree,
    errors: Vec<ConfigError>,
}

/// One table of the tree; without entries if it is missing.
#[derive(Clone, Copy)]
struct Section<'t> {
    path: &'static str,
    at: Option<At>,
    entries: &'t [Entry],
}

impl<'t> Reader<'t> {
    fn config(
        &mut self,
        root: &Section<'t>,
        host_name: impl FnOnce() -> Result<String, String>,
    ) -> Config {
        self.refuse_unknown(root);
        let mut hostname = self.key(root, "hostname", String::new(), values::domain);
        if root.entries.iter().all(|entry| entry.key != "hostname") {
            hostname = host_name().unwrap_or_else(|problem| {
                let problem = format!("not given, and the host's own name will not do: {problem}");
                self.fault(None, "hostname", problem);
                String::new()
            });
        }
        let routes = self.list(root, "route");
        let modes = [Durability::Sync, Durability::Os, Durability::Memory];
        Config {
            hostname,
            data_dir: self.key(root, "data_dir", DATA_DIR.into(), values::path),
            cores: self.key(root, "cores", Default::default(), values::cores),
            durability: modes[self.key(root, "durability", 0, values::choice)],
            shutdown_grace: self.key(root, "shutdown_grace", SHUTDOWN_GRACE, values::span),
            listeners: self.listeners(root),
            access: self.access(root),
            route_lines: Written(routes.iter().map(|section| self.line(section)).collect()),
            routes: routes.iter().map(|section| self.route(section)).collect(),
            delivery: self.delivery(root),
            sites: self.list(root, "site").into_iter().map(|s| self.site(&s)).collect(),
            queue: self.queue(root),
            dns: self.dns(root),
            limits: self.limits(root),
            admin: self.admin(root),
        }
    }

    fn listeners(&mut self, root: &Section<'t>) -> Vec<Listener> {
        let entry = root.entries.iter().find(|entry| entry.key == "listener");
        let nothing = match entry.map(|entry| &entry.node.value) {
            None => Some("is missing"),
            Some(Value::List(items)) if items.is_empty() => Some("the list is empty"),
            Some(_) => None,
        };
        if let Some(problem) = nothing {
            let at = entry.map(|entry| entry.at);
            self.note(at, "listener", problem.into(), table_form("listener"));
        }
        self.list(root, "listener").into_iter().map(|s| self.listener(&s)).collect()
    }

    fn listener(&mut self, section: &Section<'t>) -> Listener {
        Listener {
            addresses: self.key(section, "listener.address", Vec::new(), values::addresses),
            kind: [ListenerKind::Relay][self.key(section, "listener.kind", 0, values::choice)],
            tls: [Tls::Off][self.key(section, "listener.tls", 0, values::choice)],
        }
    }

    fn route(&mut self, section: &Section<'t>) -> Route {
        let any = super::DomainPattern::Any;
        Route {
            domain: self.key(section, "route.domain", any, values::pattern),
            next_hop: self.key(section, "route.next_hop", NextHop::Reject, values::next_hop),
            tls: [Tls::Off][self.key(section, "route.tls", 0, values::choice)],
        }
    }

    fn access(&mut self, root: &Section<'t>) -> Access {
        let (s, d) = (self.table(root, "access"), Access::default());
        Access {
            relay_from: self.key(&s, "access.relay_from", d.relay_from, values::networks),
            relay_domains: self.key(&s, "access.relay_domains", d.relay_domains, values::patterns),
        }
    }

    fn delivery(&mut self, root: &Section<'t>) -> Delivery {
        let (s, d) = (self.table(root, "delivery"), Delivery::default());
        let per_site = "delivery.connections_per_site";
        let per_connection = "delivery.messages_per_connection";
        let private = "delivery.allow_private_targets";
        let timeout = "delivery.connect_timeout";
        let given = schema::names("delivery").into_iter();
        let given = given.filter(|name| s.entries.iter().any(|entry| entry.key == *name));
        Delivery {
            connections_per_site: self.key(&s, per_site, d.connections_per_site, values::count),
            messages_per_connection: self.key(
                &s,
                per_connection,
                d.messages_per_connection,
                values::count,
            ),
            connection_rate: self.key(
                &s,
                "delivery.connection_rate",
                d.connection_rate,
                values::rate,
            ),
            message_rate: self.key(&s, "delivery.message_rate", d.message_rate, values::rate),
            port: u16::try_from(self.key(&s, "delivery.port", d.port.into(), values::count))
                .expect("the schema bounds it by 65535"),
            allow_private_targets: self.key(&s, private, d.allow_private_targets, values::flag),
            connect_timeout: self.key(&s, timeout, d.connect_timeout, values::span),
            given: Written(given.collect()),
        }
    }

    fn site(&mut self, section: &Section<'t>) -> SiteTable {
        SiteTable {
            domains: self.key(section, "site.domain", Vec::new(), values::patterns),
            mx: self.key(section, "site.mx", Vec::new(), values::patterns),
            connections: self.optional(section, "site.connections", values::count),
            messages_per_connection: self.optional(
                section,
                "site.messages_per_connection",
                values::count,
            ),
            connection_rate: self.optional(section, "site.connection_rate", values::rate),
            message_rate: self.optional(section, "site.message_rate", values::rate),
            line: Written(self.line(section)),
        }
    }

    /// The line that a table begins in; 0 when it comes from an option.
    fn line(&self, section: &Section<'t>) -> u32 {
        section.at.map_or(0, |at| self.tree.line(at))
    }

    fn queue(&mut self, root: &Section<'t>) -> Queue {
        let (s, d) = (self.table(root, "queue"), Queue::default());
        let segment_size =
            self.key(&s, "queue.segment_size", u64::from(d.segment_size), values::size);
        Queue {
            retry: self.key(&s, "queue.retry", d.retry, values::spans),
            expire: self.key(&s, "queue.expire", d.expire, values::span),
            delay_notice: self.key(&s, "queue.delay_notice", d.delay_notice, values::span_or_off),
            segment_size: u32::try_from(segment_size).expect("the schema bounds it by 1 GiB"),
        }
    }

    fn dns(&mut self, root: &Section<'t>) -> Dns {
        let (s, d) = (self.table(root, "dns"), Dns::default());
        Dns {
            servers: self.key(&s, "dns.servers", d.servers, values::resolvers),
            timeout: self.key(&s, "dns.timeout", d.timeout, values::span),
        }
    }

    fn limits(&mut self, root: &Section<'t>) -> Limits {
        let (s, d) = (self.table(root, "limits"), Limits::default());
        let per_client = "limits.connections_per_client";
        let errors = "limits.errors_per_session";
        Limits {
            message_size: self.key(&s, "limits.message_size", d.message_size, values::size),
            recipients: self.key(&s, "limits.recipients", d.recipients, values::count),
            connections: self.key(&s, "limits.connections", d.connections, values::count),
            connections_per_client: self.key(
                &s,
                per_client,
                d.connections_per_client,
                values::count,
            ),
            command_timeout: self.key(
                &s,
                "limits.command_timeout",
                d.command_timeout,
                values::span,
            ),
            data_timeout: self.key(&s, "limits.data_timeout", d.data_timeout, values::span),
            errors_per_session: self.key(&s, errors, d.errors_per_session, values::count),
        }
    }

    fn admin(&mut self, root: &Section<'t>) -> Admin {
        let (s, d) = (self.table(root, "admin"), Admin::default());
        Admin {
            socket: self.key(&s, "admin.socket", d.socket, values::path),
            http: self.key(&s, "admin.http", d.http, values::address_or_off),
        }
    }

    /// The value of one key, or what holds without it. A fault is noted and
    /// `missing` stands in, so that the other keys are looked at too.
    fn key<T>(
        &mut self,
        section: &Section<'t>,
        path: &'static str,
        missing: T,
        check: fn(&Node, &Kind) -> Checked<T>,
    ) -> T {
        let key = schema::find(path);
        let name = path.rsplit('.').next().expect("rsplit gives at least one part");
        let Some(entry) = section.entries.iter().find(|entry| entry.key == name) else {
            if key.default == Fallback::Required {
                self.fault(section.at, path, "is missing".into());
            }
            return missing;
        };
        check(&entry.node, &key.kind).unwrap_or_else(|fault| {
            self.fault(Some(fault.at), path, fault.problem);
            missing
        })
    }

    /// The value of one key if it is given and right. A fault is noted.
    fn optional<T>(
        &mut self,
        section: &Section<'t>,
        path: &'static str,
        check: fn(&Node, &Kind) -> Checked<T>,
    ) -> Option<T> {
        let name = path.rsplit('.').next().expect("rsplit gives at least one part");
        let entry = section.entries.iter().find(|entry| entry.key == name)?;
        check(&entry.node, &schema::find(path).kind)
            .map_err(|fault| self.fault(Some(fault.at), path, fault.problem))
            .ok()
    }

    /// The table `name`, empty if it is missing or no table.
    fn table(&mut self, root: &Section<'t>, name: &'static str) -> Section<'t> {
        let mut section = Section { path: name, at: None, entries: &[] };
        let Some(entry) = root.entries.iter().find(|entry| entry.key == name) else {
            return section;
        };
        section.at = Some(entry.node.at);
        match &entry.node.value {
            Value::Table(entries) => section.entries = entries,
            other => {
                let problem = format!("must be a table, not {}", other.kind());
                let remedy = format!("write `[{name}]` on a line, and its keys below");
                self.note(section.at, name, problem, remedy);
            }
        }
        self.refuse_unknown(&section);
        section
    }

    /// The tables of the list `name`.
    fn list(&mut self, root: &Section<'t>, name: &'static str) -> Vec<Section<'t>> {
        let Some(entry) = root.entries.iter().find(|entry| entry.key == name) else {
            return Vec::new();
        };
        let items = match &entry.node.value {
            Value::List(items) => items.as_slice(),
            Value::Table(_) => {
                let problem = "is one table, but must be a list of tables".into();
                self.note(Some(entry.at), name, problem, table_form(name));
                return Vec::new();
            }
            other => {
                let problem = format!("must be a list of tables, not {}", other.kind());
                self.note(Some(entry.node.at), name, problem, table_form(name));
                return Vec::new();
            }
        };
        let mut sections = Vec::new();
        for item in items {
            let Value::Table(entries) = &item.value else {
                let problem = format!("must be a list of tables, this is {}", item.value.kind());
                self.note(Some(item.at), name, problem, table_form(name));
                continue;
            };
            let section = Section { path: name, at: Some(item.at), entries };
            self.refuse_unknown(&section);
            sections.push(section);
        }
        sections
    }

    fn refuse_unknown(&mut self, section: &Section<'t>) {
        let known = schema::names(section.path);
        for entry in section.entries {
            if known.contains(&entry.key.as_str()) {
                continue;
            }
            let is_table = matches!(entry.node.value, Value::Table(_));
            let problem = if is_table { "there is no such table" } else { "there is no such key" };
            let path = match section.path {
                "" => entry.key.clone(),
                table => format!("{table}.{}", entry.key),
            };
            self.note(
                Some(entry.at),
                &path,
                problem.into(),
                remedy(&entry.key, section.path, &known),
            );
        }
    }

    fn fault(&mut self, at: Option<At>, path: &str, problem: String) {
        let remedy = format!("allowed: {}", schema::find(path).kind);
        self.note(at, path, problem, remedy);
    }

    fn note(&mut self, at: Option<At>, path: &str, problem: String, remedy: String) {
        self.errors.push(self.tree.error(at, path, problem, remedy));
    }
}

fn table_form(name: &str) -> String {
    let keys: Vec<&str> = schema::names(name);
    format!("write `[[{name}]]` on a line, and its keys below: {}", keys.join(", "))
}

/// What may have been meant by an unknown key.
fn remedy(written: &str, table: &str, known: &[&'static str]) -> String {
    if let Some(meant) = nearest(written, known) {
        return format!("did you mean `{meant}`?");
    }
    let elsewhere = schema::KEYS.iter().find_map(|key| {
        let (home, name) = key.path.split_once('.').unwrap_or(("", key.path));
        (name == written).then_some(home)
    });
    match elsewhere {
        Some("") => format!("`{written}` stands above all tables"),
        Some(home) if LISTS.contains(&home) => format!("`{written}` belongs in `[[{home}]]`"),
        Some(home) => format!("`{written}` belongs in `[{home}]`"),
        None if table.is_empty() => format!("known here: {}", known.join(", ")),
        None => format!("known in `{table}`: {}", known.join(", ")),
    }
}
