//! A site as one shard knows it: what the shard has out for it as an origin, and
//! its lane, for what is delivered from here. Made when mail for the site first
//! comes by, dropped when nothing is left to know about it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::accounts::{Account, Accounts};
use super::lane::Lane;
use super::outflow::Outflow;
use super::reach::Target;
use crate::base::ShardId;
use crate::policy::back_off::HostTrouble;
use crate::policy::lanes::Split;
use crate::policy::route::{Routes, Site};

/// Sites kept only because they are left alone after a failure.
const BACK_OFFS_MAX: usize = 4096;

/// See the module's comment.
pub(super) struct Station {
    /// What handles name it by.
    pub(super) id: u32,
    pub(super) account: Arc<Account>,
    pub(super) flow: RefCell<Outflow>,
    pub(super) lane: Lane,
    /// Addresses that could not be reached lately.
    pub(super) hosts: RefCell<HostTrouble>,
    /// Whether the site needs a lane on each core; asked by its owner.
    pub(super) split: RefCell<Split>,
    /// It is on the list of those to be refilled.
    pub(super) listed: Cell<bool>,
    site: RefCell<Arc<Site>>,
}

impl Station {
    /// The site, with the limits that hold now.
    pub(super) fn site(&self) -> Arc<Site> {
        Arc::clone(&self.site.borrow())
    }

    /// Messages a second that the site may get, if that is limited.
    pub(super) fn rate(&self) -> Option<f64> {
        self.site.borrow().limits.message_rate.value.map(|rate| rate.per_second())
    }

    /// Messages over one connection.
    pub(super) fn messages_per_connection(&self) -> u32 {
        self.site.borrow().limits.messages_per_connection.value
    }

    /// True when an operator has named several hosts, of which one may be able to do
    /// what another cannot.
    pub(super) fn has_other_hosts(&self) -> bool {
        let site = self.site.borrow();
        site.is_static && site.hops.len() > 1
    }

    /// A connection to an address was of no use.
    pub(super) fn failed(&self, target: &Target, now: Instant) {
        if let Some(address) = target.address() {
            self.hosts.borrow_mut().failed(address, now);
        }
    }

    /// What is left to know about the site.
    fn rest(&self, now: Instant) -> Rest {
        if !self.flow.borrow().is_unused() || !self.lane.is_unused() {
            return Rest::Busy;
        }
        self.account.with(|governor| match governor.closed_until(now) {
            _ if !governor.is_unused(now) => Rest::Busy,
            Some(until) => Rest::BackOff(until),
            None => Rest::Over,
        })
    }
}

/// What is left to know about a site.
enum Rest {
    /// Mail, connections, or a rate that would be forgotten.
    Busy,
    /// That it failed and is left alone, until then.
    BackOff(Instant),
    /// Nothing.
    Over,
}

/// The stations of a shard.
pub(super) struct Stations {
    me: ShardId,
    accounts: Arc<Accounts>,
    by_site: HashMap<Arc<Site>, Rc<Station>>,
    by_id: HashMap<u32, Rc<Station>>,
    last_id: u32,
}

impl Stations {
    pub(super) fn new(me: ShardId, accounts: Arc<Accounts>) -> Self {
        let (by_site, by_id) = (HashMap::new(), HashMap::new());
        Stations { me, accounts, by_site, by_id, last_id: 0 }
    }

    /// The station of a site, made if there is none.
    pub(super) fn of(&mut self, site: &Arc<Site>) -> Rc<Station> {
        if let Some(known) = self.by_site.get(site) {
            let known = Rc::clone(known);
            let is_same = Arc::ptr_eq(&known.site.borrow(), site);
            if !is_same && known.site.borrow().limits != site.limits {
                self.update(site, &known);
            }
            return known;
        }
        let account = self.accounts.open(site);
        self.add(site, account)
    }

    fn add(&mut self, site: &Arc<Site>, account: Arc<Account>) -> Rc<Station> {
        // 0 is no station; after four thousand million the numbers of old ones
        // are free.
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if self.last_id != 0 && !self.by_id.contains_key(&self.last_id) {
                break;
            }
        }
        let is_limited = site.limits.message_rate.value.is_some();
        let station = Rc::new(Station {
            id: self.last_id,
            lane: Lane::new(self.me, Arc::clone(&account), is_limited),
            account,
            flow: RefCell::default(),
            hosts: RefCell::default(),
            split: RefCell::default(),
            listed: Cell::new(false),
            site: RefCell::new(Arc::clone(site)),
        });
        self.by_site.insert(Arc::clone(site), Rc::clone(&station));
        self.by_id.insert(station.id, Rc::clone(&station));
        station
    }

    /// The station of a site, if there is one.
    pub(super) fn find(&self, site: &Arc<Site>) -> Option<&Rc<Station>> {
        self.by_site.get(site)
    }

    /// The station that a handle names.
    pub(super) fn numbered(&self, id: u32) -> Option<&Rc<Station>> {
        self.by_id.get(&id)
    }

    /// The site as it is known here already, or as it is given.
    pub(super) fn intern(&self, site: Site) -> Arc<Site> {
        match self.by_site.get_key_value(&site) {
            Some((known, _)) if known.limits == site.limits => Arc::clone(known),
            _ => Arc::new(site),
        }
    }

    /// The limits of a site have changed.
    fn update(&self, site: &Arc<Site>, station: &Station) {
        station.lane.give_way();
        self.accounts.open(site);
        station.lane.set_limited(site.limits.message_rate.value.is_some());
        station.site.replace(Arc::clone(site));
    }

    /// Other rules hold from now on: all sites get the limits that follow.
    pub(super) fn follow(&mut self, routes: &Routes) {
        let changed: Vec<_> = self
            .by_site
            .values()
            .filter_map(|station| {
                let site = station.site();
                let limits = routes.limits_now(&site);
                (limits != site.limits).then(|| Arc::new(Site { limits, ..Site::clone(&site) }))
            })
            .collect();
        for site in changed {
            // Under the new one, which later ones are to be equal to in all.
            let station = self.by_site.remove(&site).expect("it was there");
            self.update(&site, &station);
            self.by_site.insert(site, station);
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Rc<Station>> {
        self.by_site.values().map(Rc::clone).collect()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_site.len()
    }

    /// How many sites there are on all shards together.
    pub(super) fn len_of_all(&self) -> usize {
        self.accounts.len()
    }

    /// Drops those of which nothing is left to know, and of those that wait for
    /// the end of a back-off, with no mail here, all but [`BACK_OFFS_MAX`]: a
    /// million domains that are down must not keep a million sites. Those go
    /// whose back-off ends first; mail for them comes by its own schedule.
    pub(super) fn forget_idle(&mut self, now: Instant) {
        let mut back_offs = Vec::new();
        let by_id = &mut self.by_id;
        self.by_site.retain(|site, station| {
            // Somebody at work with it holds another reference.
            if Rc::strong_count(station) > 2 {
                return true;
            }
            match station.rest(now) {
                Rest::Busy => return true,
                Rest::BackOff(until) => {
                    back_offs.push((until, Arc::clone(site)));
                    return true;
                }
                Rest::Over => by_id.remove(&station.id),
            };
            false
        });
        let excess = back_offs.len().saturating_sub(BACK_OFFS_MAX);
        if excess == 0 {
            return;
        }
        back_offs.select_nth_unstable_by_key(excess, |(until, _)| *until);
        for (_, site) in &back_offs[..excess] {
            if let Some(station) = self.by_site.remove(site) {
                self.by_id.remove(&station.id);
            }
        }
    }
}
