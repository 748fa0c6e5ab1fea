//! Where mail for a domain goes. Pure: built from the configuration, asked by
//! `receive` and `relay` for every recipient.
//!
//! A route leads to hosts that it names, to nowhere, or to the MX records of the
//! domain, as does no route at all. Hosts with the same limits are one *site*
//! (`site`), whichever domains lead there; limits come from `tables`.

use std::sync::Arc;

pub use super::site::{Hop, Host, Rate, Set, SetBy, Site, SiteLimits, Way};
use super::tables::Tables;
use crate::config::{Config, DomainPattern, HostPort, NextHop, Route, Tls};

/// What the routes say about a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination<'a> {
    /// Relay to these hosts.
    Site(&'a Arc<Site>),
    /// Relay by the MX records of the domain; what no route matches.
    Mx,
    /// Throw away.
    Discard,
    /// Refuse for good.
    Reject,
}

/// The routes, compiled.
#[derive(Debug)]
pub struct Routes {
    rules: Vec<(DomainPattern, Rule)>,
    tables: Tables,
    /// Whether TLS is used where no route says.
    tls: Tls,
    hostname: String,
}

#[derive(Debug)]
enum Rule {
    /// A site, and those of narrower classes of domains that the `[[site]]`
    /// tables tell apart, the narrowest first.
    Sites(Arc<Site>, Vec<(DomainPattern, Arc<Site>)>),
    /// By the records of DNS, with TLS as is said here.
    Mx(Tls),
    Discard,
    Reject,
}

impl Routes {
    /// Compiles the routes and `[[site]]` tables of `config`; its hostname
    /// stands in for the domain of an address that has none (`postmaster`).
    pub fn new(config: &Config) -> Self {
        let tables = Tables::new(config);
        let mut known: Vec<Arc<Site>> = Vec::new();
        let rules = config.routes.iter().map(|route| {
            let rule = match &route.next_hop {
                NextHop::Hosts(hosts) => static_rule(config, route, hosts, &tables, &mut known),
                NextHop::Mx => Rule::Mx(route.tls.unwrap_or(config.delivery.tls)),
                NextHop::Discard => Rule::Discard,
                NextHop::Reject => Rule::Reject,
            };
            (route.domain.clone(), rule)
        });
        let rules = rules.collect();
        Routes { rules, tables, tls: config.delivery.tls, hostname: config.hostname.clone() }
    }

    /// What the first route that matches `domain` says.
    pub fn domain(&self, domain: &str) -> Destination<'_> {
        let Some(index) = self.rule(domain) else { return Destination::Mx };
        match &self.rules[index].1 {
            Rule::Sites(site, split) => {
                let narrower = split.iter().find(|(class, _)| class.matches(domain));
                Destination::Site(narrower.map_or(site, |(_, site)| site))
            }
            Rule::Mx(_) => Destination::Mx,
            Rule::Discard => Destination::Discard,
            Rule::Reject => Destination::Reject,
        }
    }

    /// What [`Routes::domain`] says of the domain of `address`.
    pub fn address(&self, address: &str) -> Destination<'_> {
        self.domain(self.domain_of(address))
    }

    /// The domain of `address`; the server's own name where it has none.
    pub fn domain_of<'a>(&'a self, address: &'a str) -> &'a str {
        match memchr::memrchr(b'@', address.as_bytes()) {
            Some(at) => &address[at + 1..],
            None => &self.hostname,
        }
    }

    /// Which `[[route]]`, from 0, is the first to match `domain`.
    pub fn rule(&self, domain: &str) -> Option<usize> {
        self.rules.iter().position(|(pattern, _)| pattern.matches(domain))
    }

    /// True when some route leads to the static `site`.
    pub fn leads_to(&self, site: &Site) -> bool {
        self.rules.iter().any(|(_, rule)| match rule {
            Rule::Sites(plain, split) => {
                **plain == *site || split.iter().any(|(_, split)| **split == *site)
            }
            _ => false,
        })
    }

    /// The site of mail for `domain` by its MX hosts, which come in any order.
    ///
    /// # Panics
    /// When there are no hosts.
    pub fn mx_site(&self, domain: &str, mut hops: Vec<Hop>) -> Site {
        hops.sort_by(|a, b| (a.rank, &a.host).cmp(&(b.rank, &b.host)));
        let (limits, suffix) = self.tables.limits(self.tables.class(domain), &hops);
        let hosts: Vec<String> = hops.iter().map(|hop| hop.host.to_string()).collect();
        let tls = match self.rule(domain).map(|index| &self.rules[index].1) {
            Some(Rule::Mx(tls)) => *tls,
            _ => self.tls,
        };
        Site::new(false, hosts.join(",") + &suffix, hops, limits, tls, None)
    }

    /// The limits of a site that was made by other rules than these. Where these
    /// do not tell its domains apart any more, or in another way, those of its
    /// hosts for any other domain.
    pub fn limits_now(&self, site: &Site) -> SiteLimits {
        let suffix = site.name.find('#').map_or("", |at| &site.name[at..]);
        let classes = self.tables.classes().iter().rev().map(Some).chain([None]);
        let mut by_class = classes.map(|class| self.tables.limits(class, &site.hops));
        let (others, its_own) = by_class.next().expect("one at least");
        if its_own == suffix {
            return others;
        }
        let same = by_class.find(|(_, added)| added == suffix);
        same.map_or(others, |(limits, _)| limits)
    }
}

/// The sites that a `route` to `hosts` leads to. `known` has the sites so far,
/// which are shared.
fn static_rule(
    config: &Config,
    route: &Route,
    hosts: &[HostPort],
    tables: &Tables,
    known: &mut Vec<Arc<Site>>,
) -> Rule {
    let pattern = &route.domain;
    let port = |hop: &HostPort| match hop.host {
        Host::Socket(_) => 0,
        _ => hop.port.or(hop.way.port()).unwrap_or(config.delivery.port),
    };
    let hops = hosts.iter().enumerate().map(|(rank, hop)| Hop {
        rank: u16::try_from(rank).unwrap_or(u16::MAX),
        way: hop.way,
        host: hop.host.clone(),
        port: port(hop),
    });
    let hops: Vec<Hop> = hops.collect();
    let names: Vec<String> = hops.iter().map(|hop| hop.written().to_string()).collect();
    let tls = route.tls.unwrap_or(config.delivery.tls);
    let login = route.login.clone().map(Arc::new);
    let mut site = |class: Option<&DomainPattern>| {
        let (limits, suffix) = tables.limits(class, &hops);
        let name = names.join(",") + &suffix;
        let site = Site::new(true, name, hops.clone(), limits, tls, login.clone());
        if let Some(known) = known.iter().find(|known| ***known == site) {
            return Arc::clone(known);
        }
        known.push(Arc::new(site));
        Arc::clone(&known[known.len() - 1])
    };
    let classes = tables.classes();
    let plain = site(classes.iter().find(|class| class.covers(pattern)));
    let narrower = |class: &&DomainPattern| pattern.covers(class) && !class.covers(pattern);
    let split = classes.iter().filter(narrower).map(|class| (class.clone(), site(Some(class))));
    Rule::Sites(plain, split.collect())
}

#[cfg(test)]
mod tests;
