//! Checks of one value of a configuration against another, and of the whole
//! against common sense. Runs once every single value is known to be right.

use std::net::SocketAddr;

use super::error::ConfigError;
use super::host::{Host, HostPort};
use super::pattern::DomainPattern;
use super::tls::Certificates;
use super::tls_checks;
use super::tree::Tree;
use super::types::{Config, ListenerKind, ListenerTls, NextHop, Route, SiteTable, Tls};
use super::units::{print_duration, print_size};
use crate::base::limits::{BODY_PART_MAX, PATH_MAX};

/// What one recipient can take in a record, in bytes: the longest path, and the
/// archive's own words for it.
const RECIPIENT_BYTES: u64 = PATH_MAX as u64 + 16;
/// What a message's first record holds besides recipients and body: sender, helo,
/// framing, padding.
const RECORD_EXTRA_BYTES: u64 = 64 << 10;

/// Everything that does not fit together.
pub(super) fn check(config: &Config, tree: &Tree) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    addresses_are_unique(config, tree, &mut errors);
    errors.extend(tls_checks::check(config, tree));
    fronts_are_named(config, tree, &mut errors);
    lmtp_is_whole(config, tree, &mut errors);
    routes_are_reached(config, tree, &mut errors);
    next_hops_are_elsewhere(config, tree, &mut errors);
    logins_are_protected(config, tree, &mut errors);
    sites_are_meant(config, tree, &mut errors);
    segments_hold_messages(config, tree, &mut errors);
    clients_can_authenticate(config, tree, &mut errors);
    errors
}

fn addresses_are_unique(config: &Config, tree: &Tree, errors: &mut Vec<ConfigError>) {
    let mut seen: Vec<SocketAddr> = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        for (item, &address) in listener.addresses.iter().enumerate() {
            if address.port() != 0 && seen.contains(&address) {
                let steps = [&index.to_string(), "address", &item.to_string()];
                let at = tree.locate(&["listener", steps[0], steps[1], steps[2]]);
                let problem = format!("{address} is listened on already");
                let remedy = "name each address once".into();
                errors.push(tree.error(at, "listener.address", problem, remedy));
            }
            seen.push(address);
        }
    }
    if let Some(http) = config.admin.http.filter(|http| http.port() != 0 && seen.contains(http)) {
        let at = tree.locate(&["admin", "http"]);
        let problem = format!("{http} is listened on for mail already");
        errors.push(tree.error(
            at,
            "admin.http",
            problem,
            "choose another port, or \"off\"".into(),
        ));
    }
}

/// The PROXY protocol and those who may speak it go together.
fn fronts_are_named(config: &Config, tree: &Tree, errors: &mut Vec<ConfigError>) {
    for (index, listener) in config.listeners.iter().enumerate() {
        let fronts = &listener.fronts;
        let (key, problem, remedy) = match (fronts.proxy_protocol, fronts.proxy_from.is_empty()) {
            (true, true) => (
                "proxy_protocol",
                "no proxy is named, so nobody could connect",
                "name the proxies in `proxy_from`",
            ),
            (false, false) => (
                "proxy_from",
                "never used: `proxy_protocol` is not set",
                "set `proxy_protocol = true`, on a listener for the proxies alone",
            ),
            _ => continue,
        };
        let at = tree.locate(&["listener", &index.to_string(), key]);
        let key = format!("listener.{key}");
        errors.push(tree.error(at, &key, problem.into(), remedy.into()));
    }
}

/// What RFC 2033 asks of a server (section 5).
fn lmtp_is_whole(config: &Config, tree: &Tree, errors: &mut Vec<ConfigError>) {
    for (index, listener) in config.listeners.iter().enumerate() {
        if listener.kind != ListenerKind::Lmtp {
            continue;
        }
        let mut note = |key: &str, problem: &str, remedy: &str| {
            let at = tree.locate(&["listener", &index.to_string(), key]);
            let key = format!("listener.{key}");
            errors.push(tree.error(at, &key, problem.into(), remedy.into()));
        };
        if !listener.offers("PIPELINING") {
            let problem = "LMTP must offer PIPELINING (RFC 2033, 5)";
            note("disable", problem, "take it out of the list");
        }
        if listener.addresses.iter().any(|address| address.port() == 25) {
            let problem = "LMTP must not be served on port 25 (RFC 2033, 5)";
            note("address", problem, "choose another port; 24 is common");
        }
    }
}

fn routes_are_reached(config: &Config, tree: &Tree, errors: &mut Vec<ConfigError>) {
    for (index, route) in config.routes.iter().enumerate() {
        let hides = |earlier: &&Route| earlier.domain.covers(&route.domain);
        if let Some(earlier) = config.routes[..index].iter().find(hides) {
            let at = tree.locate(&["route", &index.to_string(), "domain"]);
            let problem =
                format!("never used: the earlier route \"{}\" matches first", earlier.domain);
            let remedy = "put the narrower route first".into();
            errors.push(tree.error(at, "route.domain", problem, remedy));
        }
    }
}

fn next_hops_are_elsewhere(config: &Config, tree: &Tree, errors: &mut Vec<ConfigError>) {
    let own: Vec<SocketAddr> =
        config.listeners.iter().flat_map(|listener| listener.addresses.iter().copied()).collect();
    let port = |hop: &HostPort| hop.port.or(hop.way.port()).unwrap_or(config.delivery.port);
    let is_own = |hop: &HostPort| {
        own.iter().filter(|own| own.port() == port(hop)).any(|own| match &hop.host {
            Host::Address(address) => {
                let everywhere = own.ip().is_unspecified() && address.is_loopback();
                own.ip() == *address || everywhere
            }
            Host::Name(name) => name.eq_ignore_ascii_case(&config.hostname),
            Host::Socket(_) => false,
        })
    };
    for (index, route) in config.routes.iter().enumerate() {
        let NextHop::Hosts(hosts) = &route.next_hop else { continue };
        if let Some(item) = hosts.iter().position(is_own) {
            let at = tree.locate(&["route", &index.to_string(), "next_hop", &item.to_string()]);
            let problem =
                format!("{} is this server's own listener: mail would go round", hosts[item]);
            let remedy = "name the host that mail is to be passed on to".into();
            errors.push(tree.error(at, "route.next_hop", problem, remedy));
        }
    }
}

/// Credentials go to hosts, and never in the clear.
fn logins_are_protected(config: &Config, tree: &Tree, errors: &mut Vec<ConfigError>) {
    for (index, route) in config.routes.iter().enumerate() {
        if route.login.is_none() {
            continue;
        }
        let index = index.to_string();
        let at = tree.locate(&["route", &index, "user"]);
        let mut note = |problem: &str, remedy: &str| {
            errors.push(tree.error(at, "route.user", problem.into(), remedy.into()));
        };
        let NextHop::Hosts(hosts) = &route.next_hop else {
            note("is for the hosts of a route, and this one names none", "name them in `next_hop`");
            continue;
        };
        if hosts.iter().any(|hop| matches!(hop.host, Host::Socket(_))) {
            note("is not for sockets: credentials go over TLS only", "leave it out");
        }
        let mode = route.tls.unwrap_or(config.delivery.tls);
        if !matches!(mode, Tls::Required | Tls::Verified) {
            note(
                "credentials go over TLS only, and this route may do without",
                "set its `tls` to \"verified\", or to \"required\" if the host's certificate cannot \
                 be verified",
            );
        }
    }
}

/// Each `[[site]]` table names sites and sets a limit that no earlier one sets
/// for all of them.
fn sites_are_meant(config: &Config, tree: &Tree, errors: &mut Vec<ConfigError>) {
    for (index, table) in config.sites.iter().enumerate() {
        let at = tree.locate(&["site", &index.to_string()]);
        let mut note = |problem: &str, remedy: &str| {
            errors.push(tree.error(at, "site", problem.into(), remedy.into()));
        };
        if table.domains.is_empty() && table.mx.is_empty() {
            note("is about no site", "set `domain`, `mx` or both");
            continue;
        }
        let set = limits_set(table);
        if set.is_empty() {
            let remedy = "set `connections`, `messages_per_connection`, `connection_rate` or \
                          `message_rate`";
            note("sets no limit", remedy);
            continue;
        }
        let wider = config.sites[..index].iter().filter(|earlier| covers(earlier, table));
        let taken: Vec<&str> = wider.flat_map(limits_set).collect();
        if set.iter().all(|limit| taken.contains(limit)) {
            let problem = "never used: earlier tables set all its limits for the same sites";
            note(problem, "put the narrower table first");
        }
    }
}

/// The names of the limits that a table sets.
fn limits_set(table: &SiteTable) -> Vec<&'static str> {
    let limits = [
        ("connections", table.connections.is_some()),
        ("messages_per_connection", table.messages_per_connection.is_some()),
        ("connection_rate", table.connection_rate.is_some()),
        ("message_rate", table.message_rate.is_some()),
    ];
    limits.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect()
}

/// Whether `earlier` is about every site that `table` is about.
fn covers(earlier: &SiteTable, table: &SiteTable) -> bool {
    let within = |wide: &[DomainPattern], narrow: &[DomainPattern]| {
        narrow.iter().all(|narrow| wide.iter().any(|wide| wide.covers(narrow)))
    };
    let everything = earlier.domains.contains(&DomainPattern::Any);
    everything || within(&earlier.domains, &table.domains) && within(&earlier.mx, &table.mx)
}

fn segments_hold_messages(config: &Config, tree: &Tree, errors: &mut Vec<ConfigError>) {
    let recipients = u64::from(config.limits.recipients);
    let need = recipients * RECIPIENT_BYTES + BODY_PART_MAX as u64 + RECORD_EXTRA_BYTES;
    let segment = u64::from(config.queue.segment_size);
    if segment >= need {
        return;
    }
    let size_at = tree.locate(&["queue", "segment_size"]);
    let (at, key) = match tree.locate(&["limits", "recipients"]) {
        Some(at) => (Some(at), "limits.recipients"),
        None => (size_at, "queue.segment_size"),
    };
    let problem = format!(
        "a message of {recipients} recipients may not fit in a segment of {}",
        print_size(segment)
    );
    let whole_mib = need.next_multiple_of(1 << 20);
    let remedy = format!(
        "set queue.segment_size to \"{}\" or more, or limits.recipients to {} or less",
        print_size(whole_mib),
        recipients_that_fit(segment)
    );
    errors.push(tree.error(at, key, problem, remedy));
}

/// Where clients authenticate there are TLS, users and a way to do it.
fn clients_can_authenticate(config: &Config, tree: &Tree, errors: &mut Vec<ConfigError>) {
    let listeners = config.listeners.iter().enumerate();
    for (index, listener) in listeners.filter(|(_, listener)| listener.authenticates()) {
        let index = index.to_string();
        let at = |key| tree.locate(&["listener", &index, key]);
        let mut note = |at, key: &str, problem: &str, remedy: &str| {
            errors.push(tree.error(at, key, problem.into(), remedy.into()));
        };
        if listener.kind == ListenerKind::Lmtp {
            let problem = "clients of LMTP do not authenticate here";
            note(at("auth"), "listener.auth", problem, "leave it out");
        } else if listener.tls == ListenerTls::Off {
            let place = at("tls").or(at("kind")).or(at("auth"));
            let problem = "clients authenticate there, and never without TLS";
            let remedy = "set tls to \"required\", \"optional\" or \"implicit\", and certificates \
                          in [tls]";
            note(place, "listener.tls", problem, remedy);
        } else if config.auth.users.is_none() {
            let place = at("kind").or(at("auth"));
            let problem = "is missing: clients authenticate on this listener";
            let remedy = "name a file, and add users to it with `ringpost user add`";
            note(place, "auth.users", problem, remedy);
        } else if config.auth.mechanisms.is_empty() {
            let place = tree.locate(&["auth", "mechanisms"]);
            let problem = "the list is empty, but clients authenticate";
            note(place, "auth.mechanisms", problem, "leave it out for all mechanisms");
        }
    }
}

fn recipients_that_fit(segment: u64) -> u64 {
    (segment - BODY_PART_MAX as u64 - RECORD_EXTRA_BYTES) / RECIPIENT_BYTES
}

/// What is allowed, but should be known to the operator.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let is_public = |address: &SocketAddr| !address.ip().is_loopback();
    let listens_publicly = config.listeners.iter().any(|l| l.addresses.iter().any(is_public));
    if let Some(open) = config.access.relay_from.iter().find(|net| net.prefix_len() == 0)
        && listens_publicly
    {
        warnings.push(format!(
            "access.relay_from holds {open}: every client that reaches a listener may relay \
             anywhere (an open relay)"
        ));
    }
    if config.access.relay_domains.contains(&DomainPattern::Any) && listens_publicly {
        warnings.push(
            "access.relay_domains holds \"*\": every client that reaches a listener may relay \
             anywhere (an open relay)"
                .to_owned(),
        );
    }
    if config.tls.certificates == Certificates::SelfSigned && listens_publicly {
        warnings.push(
            "tls.certificate is \"self-signed\": clients cannot tell this server from one that \
             pretends to be it, and those that verify certificates refuse it"
                .to_owned(),
        );
    }
    for listener in config.listeners.iter().filter(|l| l.addresses.iter().any(is_public)) {
        let fronts = &listener.fronts;
        let lists = [("proxy_from", &fronts.proxy_from), ("xclient_from", &fronts.xclient_from)];
        for (key, nets) in lists {
            if let Some(open) = nets.iter().find(|net| net.prefix_len() == 0) {
                warnings.push(format!(
                    "listener.{key} holds {open}: every client that reaches the listener may \
                     claim to be another (an open relay)"
                ));
            }
        }
    }
    if config.delivery.allow_private_targets && listens_publicly {
        warnings.push(
            "delivery.allow_private_targets is set: whoever owns a domain can have mail sent to \
             addresses inside of this network"
                .to_owned(),
        );
    }
    if let Some(age) = config.queue.delay_notice.filter(|age| *age >= config.queue.expire) {
        warnings.push(format!(
            "queue.delay_notice is {}, but mail is returned after {} (queue.expire): nobody is \
             told of a delay before",
            print_duration(age),
            print_duration(config.queue.expire)
        ));
    }
    if config.durability != crate::base::Durability::Sync {
        warnings.push(format!(
            "durability is \"{}\": accepted mail can be lost in a {}",
            config.durability,
            match config.durability {
                crate::base::Durability::Memory => "crash",
                _ => "power failure",
            }
        ));
    }
    warnings
}
