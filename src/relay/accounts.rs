//! The accounts of sites: what all shards of the server share about one, so that
//! its limits hold for the server as a whole. An account is found by the site
//! when a shard first has mail for it, and ends with its last holder.
//!
//! What decides is the [`Governor`], a pure thing behind a lock. The lock is
//! taken when a connection is opened or ends, for each message of a site whose
//! message rate is limited, and while a site is starting or in trouble; what a
//! message of any other site asks is answered from flags that mirror it. So the
//! way of mail is shared with nobody, unless its limit is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::base::ShardId;
use crate::io::clock;
use crate::policy::governor::Governor;
use crate::policy::route::Site;

/// Only one connection may try the site.
const PROBING: u8 = 1;
/// All connections that the limits allow may be opened.
const STEADY: u8 = 2;
/// Some lane waits for a connection that others have.
const CONTENDED: u8 = 4;
/// Accounts that have ended and are not worth a sweep.
const ENDED_FREE: usize = 256;

/// The accounts of all sites.
pub struct Accounts {
    begun: Instant,
    shards: u16,
    sites: Mutex<Register>,
}

#[derive(Default)]
struct Register {
    /// Sites of one name may differ in the ranks of their hosts, or the port.
    by_site: HashMap<Arc<Site>, Weak<Account>>,
    sweep_at: usize,
}

impl Accounts {
    /// For a server of so many shards.
    pub fn new(shards: u16) -> Arc<Self> {
        Arc::new(Accounts { begun: clock::monotonic(), shards, sites: Mutex::default() })
    }

    /// Accounts that some shard holds.
    pub(super) fn len(&self) -> usize {
        let register = locked(&self.sites);
        register.by_site.values().filter(|account| account.strong_count() > 0).count()
    }

    /// The account of a site, opened if nobody has it; with the limits that
    /// `site` names.
    pub(super) fn open(&self, site: &Arc<Site>) -> Arc<Account> {
        let mut register = locked(&self.sites);
        let known = register.by_site.get(site).and_then(Weak::upgrade);
        if let Some(known) = known {
            drop(register);
            known.with(|governor| governor.set_limits(&site.limits));
            if site.is_static {
                known.set_laned(self.gives_lanes(site));
            }
            return known;
        }
        if register.by_site.len() >= register.sweep_at {
            register.by_site.retain(|_, account| account.strong_count() > 0);
            register.sweep_at = 2 * register.by_site.len() + ENDED_FREE;
        }
        let account = Arc::new(Account {
            site: Arc::clone(site),
            begun: self.begun,
            governor: Mutex::new(Governor::new(&site.limits)),
            closed_until_ms: AtomicU64::new(0),
            flags: AtomicU8::new(0),
            laned: AtomicBool::new(site.is_static && self.gives_lanes(site)),
            taken: AtomicU64::new(0),
        });
        account.with(|_| ());
        register.by_site.insert(Arc::clone(site), Arc::downgrade(&account));
        account
    }

    /// True when there is a connection for each shard.
    fn gives_lanes(&self, site: &Site) -> bool {
        site.limits.connections.value >= u32::from(self.shards)
    }
}

/// What shards share about a site.
pub struct Account {
    /// The site, with the limits that held when the account was opened.
    pub(super) site: Arc<Site>,
    begun: Instant,
    governor: Mutex<Governor>,
    /// Until when the site is left alone, in milliseconds after `begun`.
    closed_until_ms: AtomicU64,
    flags: AtomicU8,
    /// Each shard has a lane of its own.
    laned: AtomicBool,
    /// Messages that lanes have taken, as far as they have said so.
    taken: AtomicU64,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Account({})", self.site.name)
    }
}

impl Account {
    /// Asks or tells the governor.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut Governor) -> R) -> R {
        let mut governor = locked(&self.governor);
        let result = act(&mut governor);
        let now = clock::monotonic();
        let until = governor.closed_until(now);
        let until_ms = until.map_or(0, |until| self.ms(until).max(1));
        self.closed_until_ms.store(until_ms, Ordering::Relaxed);
        let mut flags = 0;
        for (flag, is_set) in [
            (PROBING, governor.is_probing(now)),
            (STEADY, governor.is_steady()),
            (CONTENDED, governor.is_contended()),
        ] {
            flags |= if is_set { flag } else { 0 };
        }
        self.flags.store(flags, Ordering::Relaxed);
        result
    }

    fn ms(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.begun).as_millis() as u64
    }

    fn has(&self, flag: u8) -> bool {
        self.flags.load(Ordering::Relaxed) & flag != 0
    }

    /// How long the site is still left alone, if it is.
    pub(super) fn closed_for(&self, now: Instant) -> Option<Duration> {
        let until = self.closed_until_ms.load(Ordering::Relaxed);
        // Nearly always: no clock is asked.
        if until == 0 {
            return None;
        }
        let left = until.saturating_sub(self.ms(now));
        (left > 0).then(|| Duration::from_millis(left))
    }

    /// True while the site is to be tried with one message.
    pub(super) fn is_probing(&self) -> bool {
        self.has(PROBING) || self.closed_until_ms.load(Ordering::Relaxed) != 0
    }

    /// True when finished transactions need not be told.
    pub(super) fn is_steady(&self) -> bool {
        self.has(STEADY)
    }

    /// True when a lane with connections should ask whether to give one up.
    pub(super) fn is_contended(&self) -> bool {
        self.has(CONTENDED)
    }

    /// True when each shard delivers what it has for the site.
    pub(super) fn is_laned(&self) -> bool {
        self.laned.load(Ordering::Relaxed)
    }

    /// Splits the site into lanes, or gives it back to its owner.
    pub(super) fn set_laned(&self, laned: bool) {
        self.laned.store(laned, Ordering::Relaxed);
    }

    /// The shard that delivers to the site while it is not split.
    pub(super) fn owner(&self, shards: u16) -> ShardId {
        ShardId((self.site.hash % u32::from(shards)) as u16)
    }

    /// A lane has taken so many more messages.
    pub(super) fn count_taken(&self, messages: u64) {
        if messages > 0 {
            self.taken.fetch_add(messages, Ordering::Relaxed);
        }
    }

    /// Messages taken since the account was opened.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

/// The governor is a value that each call leaves whole: a panic of another shard
/// is no reason to stop using it.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
