//! Which `[[site]]` tables are about a site, and the limits that come of them.
//!
//! All matching tables count, in the order written: for each limit the first
//! that sets it, then `[delivery]`. A table matches by the domain of a recipient
//! or by the name of a host. Whoever matches by host matches for every domain
//! that has these hosts; a match by domain splits the domain's site from that of
//! the others, unless the table sets nothing that holds, or is about every
//! domain.

use super::site::{Hop, Host, Set, SetBy, SiteLimits};
use crate::config::{Config, Delivery, DomainPattern, SiteTable};

/// The `[[site]]` tables, compiled.
#[derive(Debug)]
pub(super) struct Tables {
    tables: Vec<Table>,
    /// What holds where no table says otherwise.
    base: SiteLimits,
    /// Every pattern of domains in the tables, the narrower before the wider.
    patterns: Vec<DomainPattern>,
}

#[derive(Debug)]
struct Table {
    rules: SiteTable,
    /// What it adds to the names of sites that it splits off: its own.
    label: Box<str>,
}

impl Tables {
    pub(super) fn new(config: &Config) -> Self {
        let mut tables: Vec<Table> = Vec::new();
        for rules in &config.sites {
            let first = rules.domains.first();
            let alike = |table: &&Table| first.is_some() && table.rules.domains.first() == first;
            let earlier = tables.iter().filter(alike).count();
            let label = match (first, earlier) {
                (None, _) => String::new(),
                (Some(pattern), 0) => format!("#{pattern}"),
                (Some(pattern), earlier) => format!("#{pattern}/{}", earlier + 1),
            };
            tables.push(Table { rules: rules.clone(), label: label.into() });
        }
        let all = config.sites.iter().flat_map(|table| &table.domains);
        let mut patterns: Vec<DomainPattern> = Vec::new();
        for pattern in all {
            if !patterns.contains(pattern) {
                patterns.push(pattern.clone());
            }
        }
        patterns.sort_by_key(breadth);
        Tables { tables, base: base(&config.delivery), patterns }
    }

    /// The narrowest pattern that matches `domain`. All that it covers are
    /// treated alike by the tables.
    pub(super) fn class(&self, domain: &str) -> Option<&DomainPattern> {
        self.patterns.iter().find(|pattern| pattern.matches(domain))
    }

    /// Every class but that of domains that no table names.
    pub(super) fn classes(&self) -> &[DomainPattern] {
        &self.patterns
    }

    /// The limits of a site for domains of `class` with the hosts `hops`, and
    /// what is added to its name.
    pub(super) fn limits(
        &self,
        class: Option<&DomainPattern>,
        hops: &[Hop],
    ) -> (SiteLimits, String) {
        let mut limits = self.base;
        let mut suffix = String::new();
        let mut open = Open { connections: true, messages: true, connects: true, rate: true };
        for (index, table) in self.tables.iter().enumerate() {
            let by_host = table.matches_host(hops);
            if !by_host && !table.matches_class(class) {
                continue;
            }
            let by = SetBy::Site {
                line: table.rules.line.0,
                index: u16::try_from(index).unwrap_or(u16::MAX),
            };
            if open.fill(&mut limits, &table.rules, by) && !by_host && !table.is_about_all() {
                suffix.push_str(&table.label);
            }
        }
        (limits, suffix)
    }
}

impl Table {
    fn matches_class(&self, class: Option<&DomainPattern>) -> bool {
        let covers = |class| self.rules.domains.iter().any(|pattern| pattern.covers(class));
        class.is_some_and(covers)
    }

    fn matches_host(&self, hops: &[Hop]) -> bool {
        let matches = |hop: &Hop| match &hop.host {
            Host::Name(name) => self.rules.mx.iter().any(|pattern| pattern.matches(name)),
            Host::Address(_) | Host::Socket(_) => false,
        };
        hops.iter().any(matches)
    }

    fn is_about_all(&self) -> bool {
        self.rules.domains.contains(&DomainPattern::Any)
    }
}

/// Which limits no table has set yet.
struct Open {
    connections: bool,
    messages: bool,
    connects: bool,
    rate: bool,
}

impl Open {
    /// Takes from `rules` what is not set yet; true when that was something.
    fn fill(&mut self, limits: &mut SiteLimits, rules: &SiteTable, by: SetBy) -> bool {
        let mut any = put(&mut self.connections, &mut limits.connections, rules.connections, by);
        let per_connection = rules.messages_per_connection;
        any |= put(&mut self.messages, &mut limits.messages_per_connection, per_connection, by);
        any |= put(&mut self.connects, &mut limits.connection_rate, rules.connection_rate, by);
        any | put(&mut self.rate, &mut limits.message_rate, rules.message_rate, by)
    }
}

fn put<T>(is_open: &mut bool, limit: &mut Set<T>, value: Option<T>, by: SetBy) -> bool {
    match value {
        Some(value) if *is_open => {
            *limit = Set { value, by };
            *is_open = false;
            true
        }
        _ => false,
    }
}

fn base(delivery: &Delivery) -> SiteLimits {
    let by = |key: &str| match delivery.given.0.contains(&key) {
        true => SetBy::Delivery,
        false => SetBy::Default,
    };
    let d = delivery;
    SiteLimits {
        connections: Set { value: d.connections_per_site, by: by("connections_per_site") },
        messages_per_connection: Set {
            value: d.messages_per_connection,
            by: by("messages_per_connection"),
        },
        connection_rate: Set { value: d.connection_rate, by: by("connection_rate") },
        message_rate: Set { value: d.message_rate, by: by("message_rate") },
    }
}

/// Sorts patterns that can match one domain, the narrowest first: they are all
/// ends of it, so the longest is the narrowest.
fn breadth(pattern: &DomainPattern) -> (u8, usize) {
    match pattern {
        DomainPattern::Exact(_) => (0, 0),
        DomainPattern::Below(parent) => (1, usize::MAX - parent.len()),
        DomainPattern::Any => (2, 0),
    }
}
