//! From the tree of what was written to a [`Config`]: every key once, unknown
//! ones refused, all faults collected. Checks of one value against another are
//! in `checks`.

use super::error::ConfigError;
use super::schema::{self, Fallback, Kind, LISTS};
use super::secret::Secret;
use super::suggest::nearest;
use super::tls::{CertificateFiles, Certificates, ClientCertificates, ServerTls, TlsVersion};
use super::tree::{At, Entry, Node, Tree, Value};
use super::types::{
    Access, Admin, Ahead, Auth, Config, DATA_DIR, Delivery, Dns, Fronts, Limits, Listener,
    ListenerKind, ListenerTls, Login, NextHop, Queue, Route, SHUTDOWN_GRACE, SenderMatch,
    SiteTable, Tls, Written,
};
use super::values::{self, Checked};
use crate::base::{Durability, Mechanism};
use std::time::Duration;

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

/// In the order of the schema.
const TLS_MODES: [Tls; 4] = [Tls::Off, Tls::Optional, Tls::Required, Tls::Verified];

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
            tls: self.tls(root),
            access: self.access(root),
            route_lines: Written(routes.iter().map(|section| self.line(section)).collect()),
            routes: routes.iter().map(|section| self.route(section)).collect(),
            delivery: self.delivery(root),
            sites: self.list(root, "site").into_iter().map(|s| self.site(&s)).collect(),
            queue: self.queue(root),
            dns: self.dns(root),
            limits: self.limits(root),
            auth: self.auth(root),
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
        use {ListenerKind as Kind, ListenerTls as Mode};
        let kinds = [Kind::Relay, Kind::Submission, Kind::Submissions, Kind::Lmtp];
        let modes = [Mode::Off, Mode::Optional, Mode::Required, Mode::Implicit];
        let kind = kinds[self.key(section, "listener.kind", 0, values::choice)];
        let implied = if kind == Kind::Submissions { 3 } else { 0 };
        Listener {
            addresses: self.key(section, "listener.address", Vec::new(), values::addresses),
            kind,
            tls: modes[self.key(section, "listener.tls", implied, values::choice)],
            disable: self.key(section, "listener.disable", Vec::new(), values::choices),
            vrfy: self.key(section, "listener.vrfy", false, values::flag),
            expn: self.key(section, "listener.expn", false, values::flag),
            greet_delay: self.key(section, "listener.greet_delay", Duration::ZERO, values::span),
            fronts: self.fronts(section),
            auth: self.key(section, "listener.auth", false, values::flag),
        }
    }

    fn fronts(&mut self, section: &Section<'t>) -> Fronts {
        let mut networks = |path| self.key(section, path, Vec::new(), values::networks);
        let proxy_from = networks("listener.proxy_from");
        let xclient_from = networks("listener.xclient_from");
        let xforward_from = networks("listener.xforward_from");
        let proxy_protocol = self.key(section, "listener.proxy_protocol", false, values::flag);
        Fronts { proxy_protocol, proxy_from, xclient_from, xforward_from }
    }

    fn route(&mut self, section: &Section<'t>) -> Route {
        let any = super::DomainPattern::Any;
        Route {
            domain: self.key(section, "route.domain", any, values::pattern),
            next_hop: self.key(section, "route.next_hop", NextHop::Reject, values::next_hop),
            tls: self.optional(section, "route.tls", values::choice).map(|mode| TLS_MODES[mode]),
            login: self.login(section),
        }
    }

    fn tls(&mut self, root: &Section<'t>) -> ServerTls {
        use ClientCertificates::{Off, Request, Require};
        let s = self.table(root, "tls");
        let entry = |name| s.entries.iter().find(|entry| entry.key == name);
        let has_tables = |items: &Vec<Node>| {
            items.first().is_none_or(|item| matches!(item.value, Value::Table(_)))
        };
        let tables = entry("certificate")
            .is_some_and(
                |entry| matches!(&entry.node.value, Value::List(items) if has_tables(items)),
            )
            .then(|| self.list(&s, "tls.certificate"))
            .filter(|tables| !tables.is_empty());
        let certificates = match tables {
            Some(tables) => {
                Certificates::Files(tables.iter().map(|s| self.certificate(s)).collect())
            }
            None => {
                let certificate = self.optional(&s, "tls.certificate", values::path);
                Certificates::of_path(certificate, self.optional(&s, "tls.key", values::path))
            }
        };
        let is_keyed = matches!(certificates.files(), [only] if only.is_only);
        if let Some(key) = entry("key").filter(|_| !is_keyed && self.errors.is_empty()) {
            let problem = "is a key without its certificate".to_owned();
            let remedy = "set tls.certificate to the file of the certificate".to_owned();
            self.note(Some(key.at), "tls.key", problem, remedy);
        }
        let versions = [TlsVersion::Tls12, TlsVersion::Tls13];
        let asked = self.key(&s, "tls.client_certificates", 0, values::choice);
        ServerTls {
            certificates,
            min_version: versions[self.key(&s, "tls.min_version", 0, values::choice)],
            client_certificates: [Off, Request, Require][asked],
            client_ca: self.optional(&s, "tls.client_ca", values::path),
        }
    }

    fn certificate(&mut self, section: &Section<'t>) -> CertificateFiles {
        CertificateFiles {
            names: self.key(section, "tls.certificate.names", Vec::new(), values::patterns),
            certificate: self.key(
                section,
                "tls.certificate.certificate",
                Default::default(),
                values::path,
            ),
            key: self.key(section, "tls.certificate.key", Default::default(), values::path),
            is_only: false,
        }
    }

    /// Who the server is towards a next hop; its password is read later.
    fn login(&mut self, section: &Section<'t>) -> Option<Login> {
        let user = self.optional(section, "route.user", values::line);
        let file = self.optional(section, "route.password_file", values::path);
        let lacks = |name| section.entries.iter().all(|entry| entry.key != name);
        for (path, is_given, other) in [
            ("route.user", user.is_some(), "password_file"),
            ("route.password_file", file.is_some(), "user"),
        ] {
            if is_given && lacks(other) {
                let remedy = format!("give `{other}` too, or neither");
                self.note(section.at, path, format!("stands without `{other}`"), remedy);
            }
        }
        Some(Login { user: user?, password_file: file?, password: Secret::default() })
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
            tls: TLS_MODES[self.key(&s, "delivery.tls", 1, values::choice)],
            tls_ca: self.optional(&s, "delivery.tls_ca", values::path),
            chunking: self.key(&s, "delivery.chunking", d.chunking, values::flag),
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
            hold_max: self.key(&s, "queue.hold_max", d.hold_max, values::span),
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
            ..self.abuse(&s, d)
        }
    }

    /// The keys of `[limits]` against abuse, in `limits`.
    fn abuse(&mut self, s: &Section<'t>, limits: Limits) -> Limits {
        let ahead = [Ahead::Refuse, Ahead::Allow];
        let commands = "limits.commands_without_mail";
        let mut rate = |path| self.key(s, path, None, values::rate);
        let connection_rate_per_client = rate("limits.connection_rate_per_client");
        let message_rate_per_client = rate("limits.message_rate_per_client");
        let message_rate_per_user = rate("limits.message_rate_per_user");
        let (held, memory) = ("limits.held_per_user", "limits.receive_memory");
        Limits {
            commands_without_mail: self.key(
                s,
                commands,
                limits.commands_without_mail,
                values::count,
            ),
            commands_ahead: ahead[self.key(s, "limits.commands_ahead", 0, values::choice)],
            connection_rate_per_client,
            message_rate_per_client,
            message_rate_per_user,
            held_per_user: self.key(s, held, limits.held_per_user, values::count),
            unlimited: self.key(s, "limits.unlimited", Vec::new(), values::networks),
            data_rate: self.key(s, "limits.data_rate", limits.data_rate, values::size),
            receive_memory: self.key(s, memory, limits.receive_memory, values::size),
            ..limits
        }
    }

    fn auth(&mut self, root: &Section<'t>) -> Auth {
        let (s, d) = (self.table(root, "auth"), Auth::default());
        let all = Mechanism::ALL.map(Mechanism::name).to_vec();
        let mechanisms = self.key(&s, "auth.mechanisms", all, values::choices).into_iter();
        let failures = self.key(&s, "auth.lockout_failures", d.lockout_failures, values::count);
        let modes = [SenderMatch::Strict, SenderMatch::Off];
        Auth {
            users: self.optional(&s, "auth.users", values::path),
            mechanisms: mechanisms.filter_map(|name| Mechanism::parse(name.as_bytes())).collect(),
            sender_match: modes[self.key(&s, "auth.sender_match", 0, values::choice)],
            failure_delay: self.key(&s, "auth.failure_delay", d.failure_delay, values::span),
            lockout_failures: failures,
            lockout_time: self.key(&s, "auth.lockout_time", d.lockout_time, values::span),
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
        let own = name.rsplit('.').next().expect("rsplit gives at least one part");
        let Some(entry) = root.entries.iter().find(|entry| entry.key == own) else {
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
        let (home, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
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
