//! Where things stand, for operators: the sites of a shard, and for a recipient
//! why it is not delivered yet and when it will be tried.
//!
//! There may be many thousand sites. What goes through all of them looks at
//! plain figures only; names and the words of governors are for those that are
//! told of.

use std::cmp::Reverse;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::directory::{Known, Rules};
use super::station::Station;
use super::{Core, Relay};
use crate::base::{Outcome, ShardId, UnixMillis};
use crate::io::clock;
use crate::io::dns::DnsFigures;
use crate::io::store::Store;
use crate::policy::governor::Why;
use crate::policy::retry;
use crate::policy::route::{Destination, Rate};
use crate::queue::PendingRecipient;

/// A destination as this shard knows it.
#[derive(Clone, Debug)]
pub struct SiteState {
    /// Its name: the hosts.
    pub site: String,
    /// The shard that has its only lane, if it has only one.
    pub owner: ShardId,
    /// Lanes: one, or one on each core.
    pub lanes: u16,
    /// Deliveries that wait in the lane here for a connection.
    pub queued: u64,
    /// Deliveries out from here: in a lane's queue or under way.
    pub out: u64,
    /// Recipients of messages of this shard that wait until more may go out.
    pub waiting: u64,
    /// Open connections of the lane here.
    pub connections: u64,
    /// Connections that it may have now.
    pub connections_allowed: u32,
    /// Connections that it may ever have at a time.
    pub connections_limit: u32,
    /// Messages that it may get in a time, if that is limited.
    pub message_rate: Option<Rate>,
    /// Until when it is left alone after a failure, if it is.
    pub back_off_until: Option<UnixMillis>,
    /// The last failure, in words.
    pub last_failure: Option<String>,
}

/// The sites of a shard in sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SiteTotals {
    /// Sites that this shard has something for, or has lately had.
    pub sites: u64,
    /// Sites that any shard has something for.
    pub sites_of_all: u64,
    /// As [`SiteState::queued`].
    pub queued: u64,
    /// As [`SiteState::out`].
    pub out: u64,
    /// As [`SiteState::waiting`].
    pub waiting: u64,
    /// As [`SiteState::connections`].
    pub connections: u64,
    /// Those of `sites` that are left alone after a failure.
    pub backing_off: u64,
}

/// Where mail for an address goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Name of the site, as far as that is known; `discard` or `reject` for
    /// routes that lead to none.
    pub site: Option<String>,
    /// It goes by the MX records of its domain.
    pub by_mx: bool,
}

impl Way {
    /// True when `wanted` is the site, as it is printed, or one of its hosts; or
    /// `mx` for what goes by MX records.
    pub fn leads_to(&self, wanted: &str) -> bool {
        let is_it = |name: &str| {
            let hosts = name.split('#').next().unwrap_or_default();
            name.eq_ignore_ascii_case(wanted)
                || hosts.split(',').any(|host| host.eq_ignore_ascii_case(wanted))
        };
        (self.by_mx && wanted == "mx") || self.site.as_deref().is_some_and(is_it)
    }
}

/// Where one recipient stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The site that it is for, as far as that is known; `discard` or `reject`
    /// for routes that lead to none.
    pub site: Option<String>,
    /// The shard that delivers to the site; `None` while each one does.
    pub owner: Option<ShardId>,
    /// When it will be tried, as far as that can be said.
    pub next_attempt: Option<UnixMillis>,
    /// Why then, and not now.
    pub why: String,
}

impl<S: Store> Relay<S> {
    /// The destinations that this shard has most mail for, `most` at most and the
    /// fullest first, and all of them in sum.
    pub fn fullest_sites(&self, most: usize) -> (Vec<SiteState>, SiteTotals) {
        self.0.fullest(most)
    }

    /// All destinations that this shard has something for.
    #[cfg(test)]
    pub(super) fn sites(&self) -> Vec<SiteState> {
        self.0.fullest(usize::MAX).0
    }

    /// Those of the destinations named that this shard has something for.
    pub fn sites_named(&self, names: &[Box<str>]) -> Vec<SiteState> {
        let stations = self.0.stations.borrow().all();
        let named = stations.iter().filter(|station| names.contains(&station.site().name));
        named.map(|station| self.0.state_of(station)).collect()
    }

    /// Figures of the resolver.
    pub fn dns(&self) -> DnsFigures {
        self.0.directory.resolver().figures()
    }

    /// Where mail for an address goes, as far as this shard knows; what was found
    /// by DNS may have changed since.
    pub fn way(&self, address: &str) -> Way {
        self.0.way_of(address).0
    }

    /// Where a recipient stands.
    pub fn standing(
        &self,
        address: &str,
        pending: &PendingRecipient,
        last: Option<&Outcome>,
    ) -> Standing {
        self.0.standing(address, pending, last)
    }

    /// An operator wants mail for this address to be tried now: its site is not
    /// left alone any longer.
    pub fn hurry(&self, address: &str) {
        let (_, station) = self.0.way_of(address);
        let Some(station) = station else { return };
        station.account.with(|governor| governor.lift());
        // What has become due by the same order goes by its age, among what waits.
        self.0.hurried.borrow_mut().push(station);
        self.0.urgent.raise();
    }
}

impl<S: Store> Core<S> {
    fn fullest(&self, most: usize) -> (Vec<SiteState>, SiteTotals) {
        let now = Instant::now();
        let stations = self.stations.borrow();
        let mut totals = SiteTotals {
            sites: stations.len() as u64,
            sites_of_all: stations.len_of_all() as u64,
            ..SiteTotals::default()
        };
        let mut all = stations.all();
        for station in &all {
            let flow = station.flow.borrow();
            totals.queued += station.lane.queued() as u64;
            totals.out += flow.out() as u64;
            totals.waiting += flow.waiting() as u64;
            totals.connections += u64::from(station.lane.connections());
            totals.backing_off += u64::from(station.account.closed_for(now).is_some());
        }
        let rank = |station: &Rc<Station>| {
            let flow = station.flow.borrow();
            Reverse((flow.waiting() + flow.out(), station.lane.connections()))
        };
        if all.len() > most {
            all.select_nth_unstable_by_key(most, rank);
            all.truncate(most);
        }
        all.sort_by_cached_key(|station| (rank(station), station.site().name.clone()));
        (all.iter().map(|station| self.state_of(station)).collect(), totals)
    }

    fn state_of(&self, station: &Station) -> SiteState {
        let (now, wall) = (clock::monotonic(), clock::wall());
        let site = station.site();
        let laned = station.account.is_laned();
        let (allowed, failure) = station.account.with(|governor| {
            let failure = governor.last_failure().map(|failure| match failure.host.as_str() {
                "" => failure.reply.to_string(),
                host => format!("{host}: {}", failure.reply),
            });
            (governor.allowed(), failure)
        });
        let flow = station.flow.borrow();
        SiteState {
            site: site.name.to_string(),
            owner: station.account.owner(self.mesh.shards()),
            lanes: if laned { self.mesh.shards() } else { 1 },
            queued: station.lane.queued() as u64,
            out: flow.out() as u64,
            waiting: flow.waiting() as u64,
            connections: u64::from(station.lane.connections()),
            connections_allowed: allowed,
            connections_limit: site.limits.connections.value,
            message_rate: site.limits.message_rate.value,
            back_off_until: station.account.closed_for(now).map(|left| wall.plus(left)),
            last_failure: failure,
        }
    }

    /// Where an address leads, and the station of the site if there is one.
    fn way_of(&self, address: &str) -> (Way, Option<Rc<Station>>) {
        let settings = self.settings();
        let to_none = |name: &str| (Way { site: Some(name.into()), by_mx: false }, None);
        let (site, by_mx) = match settings.routes.address(address) {
            Destination::Site(site) => (Arc::clone(site), false),
            Destination::Discard => return to_none("discard"),
            Destination::Reject => return to_none("reject"),
            Destination::Mx => {
                let domain = settings.routes.domain_of(address).to_lowercase();
                let rules = Rules { config: &settings.config, routes: &settings.routes };
                let intern = |site| self.stations.borrow().intern(site);
                // After a reload only the resolver remembers.
                let known = self
                    .directory
                    .last_known(&domain)
                    .or_else(|| self.directory.known(&domain, &rules, intern, clock::monotonic()));
                match known {
                    Some(Known::Site(site)) => (site, true),
                    _ => return (Way { site: None, by_mx: true }, None),
                }
            }
        };
        let station = self.stations.borrow().find(&site).map(Rc::clone);
        (Way { site: Some(site.name.to_string()), by_mx }, station)
    }

    fn standing(
        &self,
        address: &str,
        pending: &PendingRecipient,
        last: Option<&Outcome>,
    ) -> Standing {
        let now = clock::wall();
        let (Way { site, .. }, station) = self.way_of(address);
        let owner = station.as_ref().filter(|station| !station.account.is_laned());
        let owner = owner.map(|station| station.account.owner(self.mesh.shards()));
        let (next_attempt, why) = if pending.held {
            (None, "held by an operator".to_owned())
        } else if pending.out {
            (None, "under way, or next in line for a connection".to_owned())
        } else if pending.waiting {
            self.why_waiting(station.as_deref())
        } else {
            let why = self.why_scheduled(pending, last, now);
            (Some(pending.next_attempt), why)
        };
        Standing { site, owner, next_attempt, why }
    }

    fn why_scheduled(
        &self,
        pending: &PendingRecipient,
        last: Option<&Outcome>,
        now: UnixMillis,
    ) -> String {
        let queue = &self.config().queue;
        if pending.next_attempt <= now {
            return match pending.attempts {
                0 => "due: it is given out when there is room for more deliveries".to_owned(),
                _ => "due: its retry is given out when there is room for more".to_owned(),
            };
        }
        if pending.postponed {
            return "its sender wants it kept until then".to_owned();
        }
        if pending.attempts == 0 {
            return "put off for a moment without an attempt".to_owned();
        }
        let step = retry::step(queue, pending.attempts);
        match last.and_then(|last| last.reply.enhanced) {
            Some(code) => format!("{step}; the last answer was {code}"),
            None => step.to_string(),
        }
    }

    fn why_waiting(&self, station: Option<&Station>) -> (Option<UnixMillis>, String) {
        let Some(station) = station else {
            return (None, "waits for its site to have room".to_owned());
        };
        let (now, wall) = (clock::monotonic(), clock::wall());
        let at = |instant: Instant| wall.plus(instant.saturating_duration_since(now));
        let state = self.state_of(station);
        if let Some(until) = state.back_off_until {
            let failure = state.last_failure.unwrap_or_else(|| "it failed".to_owned());
            return (Some(until), format!("back-off of the site, which failed: {failure}"));
        }
        if station.account.is_probing() {
            return (None, "the site failed, and is tried with one message first".to_owned());
        }
        let before = state.out + state.waiting;
        if let Some(rate) = state.message_rate {
            let span = Duration::from_secs_f64(before as f64 / rate.per_second());
            let why = format!(
                "message rate of the site, {rate}; {before} wait or are under way, the last of \
                 them goes then"
            );
            return (Some(at(now + span)), why);
        }
        let why = match station.lane.held_up(now) {
            Some((Why::ConnectionRate, _)) => "connection rate of the site".to_owned(),
            Some((Why::SlowStart, _)) => format!(
                "the site is given {} of {} connections until it has shown that it bears more",
                state.connections_allowed, state.connections_limit
            ),
            _ => format!("connections of the site, {}", state.connections_limit),
        };
        (None, format!("{why}; {before} wait or are under way"))
    }
}
