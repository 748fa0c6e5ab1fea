//! Which site a domain without a route of its own belongs to: what DNS says about
//! its mail exchangers, decided on by `policy::mx`, and kept as long as DNS says
//! it holds. The resolver underneath shares queries and remembers answers; here
//! the decision is remembered, so that a message for a known domain costs a
//! look-up.
//!
//! Memory is bounded by two generations: what was not asked for while the
//! younger one filled up is forgotten with the older one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::{EnhancedCode, Reply};
use crate::config::Config;
use crate::io::clock;
use crate::io::dns::{DnsFailure, Exchangers, Lookup, Resolver};
use crate::policy::mx::{self, MxFacts, Verdict};
use crate::policy::route::{Routes, Site};

/// Domains in a generation.
const GENERATION_MAX: usize = 32_768;
/// How long what was decided about an address literal is kept.
const LITERAL_KEPT: Duration = Duration::from_secs(3600);

/// Where mail for a domain goes.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// To this site.
    Site(Arc<Site>),
    /// Nowhere, for good.
    Fail(Reply),
    /// That is not to be found out now.
    Defer(Reply),
}

#[derive(Clone)]
struct Entry {
    known: Known,
    until: Instant,
    /// From then on the resolver is asked beside, so that it fetches the answer
    /// anew before it expires.
    old_from: Instant,
}

type Generation = HashMap<Box<str>, Entry>;

/// See the module's comment.
pub(super) struct Directory {
    resolver: Resolver,
    young: RefCell<Generation>,
    old: RefCell<Generation>,
}

/// What a decision depends on besides DNS.
pub(super) struct Rules<'a> {
    pub(super) config: &'a Config,
    pub(super) routes: &'a Routes,
}

impl Directory {
    pub(super) fn new(resolver: Resolver) -> Self {
        Directory { resolver, young: RefCell::default(), old: RefCell::default() }
    }

    /// The resolver underneath.
    pub(super) fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// What is known about a domain (in lower case), here or in the resolver's
    /// cache, without asking anybody. `intern` makes one of equal sites.
    pub(super) fn known(
        &self,
        domain: &str,
        rules: &Rules<'_>,
        intern: impl Fn(Site) -> Arc<Site>,
        now: Instant,
    ) -> Option<Known> {
        let entry = self.entry(domain).filter(|entry| now < entry.until);
        if let Some(Entry { known, .. }) = entry.as_ref().filter(|entry| now < entry.old_from) {
            return Some(known.clone());
        }
        let Some(name) = ascii(domain) else { return Some(Known::Fail(no_domain(domain))) };
        let cached = if domain.starts_with('[') { None } else { self.resolver.cached_mx(&name) };
        if let Some(entry) = entry {
            return Some(entry.known);
        }
        let lookup = cached?;
        Some(self.learn(
            domain,
            verdict(&name, &lookup, rules.config),
            lookup.expires,
            rules,
            intern,
        ))
    }

    /// What was known about a domain last, even if it may have changed since.
    pub(super) fn last_known(&self, domain: &str) -> Option<Known> {
        Some(self.entry(domain)?.known)
    }

    fn entry(&self, domain: &str) -> Option<Entry> {
        if let Some(entry) = self.young.borrow().get(domain) {
            return Some(entry.clone());
        }
        let entry = self.old.borrow_mut().remove(domain)?;
        self.insert(domain, entry.clone());
        Some(entry)
    }

    fn insert(&self, domain: &str, entry: Entry) {
        let mut young = self.young.borrow_mut();
        if young.len() >= GENERATION_MAX {
            self.old.replace(std::mem::take(&mut *young));
        }
        young.insert(domain.into(), entry);
    }

    /// Forgets everything: the rules have changed.
    pub(super) fn clear(&self) {
        self.young.take();
        self.old.take();
    }

    /// Finds out where mail for a domain (in lower case) goes; nothing when
    /// `is_current` says that the rules were replaced meanwhile.
    pub(super) async fn find(
        &self,
        domain: &str,
        rules: &Rules<'_>,
        intern: impl Fn(Site) -> Arc<Site>,
        is_current: impl Fn() -> bool,
    ) -> Option<Known> {
        let Decision { verdict, until, .. } = decide(&self.resolver, domain, rules.config).await;
        is_current().then(|| self.learn(domain, verdict, until, rules, intern))
    }

    /// Keeps what was decided, unless it may be otherwise in a moment.
    fn learn(
        &self,
        domain: &str,
        verdict: Verdict,
        until: Instant,
        rules: &Rules<'_>,
        intern: impl Fn(Site) -> Arc<Site>,
    ) -> Known {
        let known = match verdict {
            Verdict::Hops(hops) => Known::Site(intern(rules.routes.mx_site(domain, hops))),
            Verdict::Fail(reply) => Known::Fail(reply),
            Verdict::Defer(reply) => return Known::Defer(reply),
        };
        let now = clock::monotonic();
        let old_from = now + until.saturating_duration_since(now) / 10 * 9;
        self.insert(domain, Entry { known: known.clone(), until, old_from });
        known
    }
}

/// What is to be done with mail for a domain, and what that was decided by.
#[derive(Clone, Debug)]
pub struct Decision {
    /// What is to be done.
    pub verdict: Verdict,
    /// How long that holds.
    pub until: Instant,
    /// What DNS said about the domain's mail exchangers; `None` where it was not
    /// asked, as for an address literal.
    pub mx: Option<Lookup<Exchangers>>,
}

/// Decides on mail for a domain (in lower case) without a route of its own.
pub async fn decide(resolver: &Resolver, domain: &str, config: &Config) -> Decision {
    let delivery = &config.delivery;
    if let Some(verdict) = mx::literal(domain, delivery.port, delivery.allow_private_targets) {
        return Decision { verdict, until: clock::monotonic() + LITERAL_KEPT, mx: None };
    }
    let Some(name) = ascii(domain) else {
        let verdict = Verdict::Fail(no_domain(domain));
        return Decision { verdict, until: clock::monotonic(), mx: None };
    };
    let lookup = resolver.mx(&name).await;
    Decision { verdict: verdict(&name, &lookup, config), until: lookup.expires, mx: Some(lookup) }
}

/// A domain as it stands in DNS; none if it cannot.
fn ascii(domain: &str) -> Option<String> {
    idna::domain_to_ascii(domain).ok()
}

fn no_domain(domain: &str) -> Reply {
    Reply::new(550, EnhancedCode(5, 1, 2), format!("{domain} is no domain name"))
}

fn verdict(name: &str, lookup: &Lookup<Exchangers>, config: &Config) -> Verdict {
    let facts = match &lookup.result {
        Ok(found) => MxFacts::Found(found),
        Err(DnsFailure::NoData) => MxFacts::NoMx,
        Err(DnsFailure::NoSuchDomain) => MxFacts::NoSuchDomain,
        Err(DnsFailure::Trouble(why)) => MxFacts::Trouble(why),
    };
    let is_me = |host: &str| host.eq_ignore_ascii_case(&config.hostname);
    mx::decide(name, facts, config.delivery.port, is_me)
}
