//! The resolver of a shard: cache, look-ups under way, servers and transport
//! joined.
//!
//! A look-up that the cache cannot answer joins one for the same name and type,
//! or begins one; so many run at a time, the others wait in the order in which
//! they came. It asks one server after the other, each with twice the patience of
//! the one before, until one answers, none is left or its time is up. A look-up
//! goes on when those who wait for it have gone: the cache has the use of it.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use hickory_proto::rr::Name;
use smallvec::SmallVec;

use super::super::clock::monotonic;
use super::super::executor::{blocking, sleep, spawn};
use super::cache::{Cache, Hit};
use super::conf::{self, Conf, Stamp};
use super::families::both;
use super::flight::{Flight, Found};
use super::message::{Asked, Fault, LINKS_MAX, Reading, Says};
use super::random::Random;
use super::servers::{Choice, Health, Servers};
use super::transport::{self, Failure};
use super::{DnsFailure, DnsFigures, DnsOptions, Exchangers, Kind, Lookup, Outcome, Source, name};

/// Look-ups that may wait their turn; more are turned away.
pub(super) const WAITING_MAX: usize = 16 << 10;
/// How long one waits its turn, in times of its own time-out.
const TURN_PATIENCE: u32 = 4;
/// The first server is given this part of the time, unless resolv.conf says
/// otherwise.
const FIRST_SHARE: u32 = 5;
/// How long an answer holds that is not kept.
pub(super) const MAKESHIFT: Duration = Duration::from_secs(5);
/// Between two looks at what has expired.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Entries looked at each time: the whole of a full cache in about a minute.
const SWEEP_STEPS: usize = 1024;
/// Sweeps between two looks at resolv.conf.
const WATCH_SWEEPS: u32 = 5;

type Key = (Box<str>, Kind);

/// The resolver of one shard. Clones are the same resolver.
#[derive(Clone)]
pub struct Resolver(Rc<Inner>);

struct Inner {
    options: RefCell<DnsOptions>,
    servers: RefCell<Servers>,
    pace: Cell<Pace>,
    /// How resolv.conf stood when it was read.
    stamp: Cell<Stamp>,
    cache: RefCell<Cache>,
    /// Counts changes of the servers: what others said is not kept after one.
    era: Cell<u32>,
    flights: RefCell<HashMap<Key, Rc<Flight>>>,
    /// Look-ups that have not begun, in order.
    waiting: RefCell<VecDeque<Key>>,
    running: Cell<usize>,
    random: RefCell<Random>,
    counts: RefCell<DnsFigures>,
}

/// How the servers are gone through.
#[derive(Clone, Copy)]
struct Pace {
    /// How long the first is waited for; a share of the time-out if not given.
    first: Option<Duration>,
    /// Rounds over the servers.
    rounds: u32,
}

impl Resolver {
    /// A resolver with an empty cache. Reads resolv.conf if it is to; one that
    /// cannot be read counts as empty until it can.
    pub fn new(options: DnsOptions) -> Self {
        let inner = Inner {
            servers: RefCell::new(Servers::new(&[], false)),
            pace: Cell::new(Pace { first: None, rounds: conf::ATTEMPTS }),
            stamp: Cell::default(),
            cache: RefCell::new(Cache::new(options.entries_max, options.bytes_max, monotonic())),
            era: Cell::new(0),
            flights: RefCell::default(),
            waiting: RefCell::default(),
            running: Cell::new(0),
            random: RefCell::new(Random::new()),
            counts: RefCell::default(),
            options: RefCell::new(options),
        };
        inner.find_servers();
        Resolver(Rc::new(inner))
    }

    /// Starts what goes on beside look-ups, on the executor of the calling
    /// thread: dropping what has expired, watching resolv.conf. Ends with the last
    /// clone.
    pub fn start(&self) {
        spawn(upkeep(Rc::downgrade(&self.0))).detach();
    }

    /// Goes on with other options. If the servers are others, nothing that the old
    /// ones said is kept.
    pub fn reload(&self, options: DnsOptions) {
        let bounds = |options: &DnsOptions| (options.entries_max, options.bytes_max);
        let old = self.0.options.replace(options.clone());
        if bounds(&old) != bounds(&options) {
            let cache = Cache::new(options.entries_max, options.bytes_max, monotonic());
            self.0.cache.replace(cache);
        }
        self.0.find_servers();
    }

    /// The mail exchangers of `domain`, the most preferred first, with their
    /// preferences; at least one. Of the null MX (RFC 7505) the name is empty.
    /// Names are lower case without a final dot; octets that no host name has are
    /// written `\DDD`. At most [`super::message::RECORDS_MAX`].
    pub async fn mx(&self, domain: &str) -> Lookup<Exchangers> {
        let Some(name) = name::normal(domain) else { return no_name() };
        exchangers(self.0.look_up(&name, Kind::Mx).await)
    }

    /// What the cache knows of the mail exchangers of `domain`; asks nobody, but
    /// has hot names fetched anew in time.
    pub fn cached_mx(&self, domain: &str) -> Option<Lookup<Exchangers>> {
        let Some(name) = name::normal(domain) else { return Some(no_name()) };
        self.0.cached(&name, Kind::Mx).map(exchangers)
    }

    /// The addresses of `host`, IPv4 before IPv6, at least one. If those of one
    /// family are there and the others are not within a second, they are not
    /// waited for; [`Lookup::missing`] tells.
    pub async fn addresses(&self, host: &str) -> Lookup<Vec<IpAddr>> {
        let Some(name) = name::normal(host) else { return no_name() };
        let v4 = self.0.look_up(&name, Kind::A);
        let v6 = self.0.look_up(&name, Kind::Aaaa);
        both(v4, v6).await
    }

    /// Figures so far, and how things stand.
    pub fn figures(&self) -> DnsFigures {
        let inner = &self.0;
        let cache = inner.cache.borrow();
        DnsFigures {
            entries: cache.len(),
            bytes: cache.bytes(),
            in_flight: inner.running.get(),
            waiting: inner.waiting.borrow().len(),
            servers: inner.servers.borrow().figures(monotonic()),
            ..inner.counts.borrow().clone()
        }
    }

    /// Looks whether resolv.conf has changed, and goes by it.
    #[cfg(test)]
    pub(super) async fn look_at_conf(&self) {
        self.0.look_at_conf().await;
    }

    /// Puts into the cache what was learnt `age` ago.
    #[cfg(test)]
    pub(super) fn put_aged(
        &self,
        name: &str,
        kind: Kind,
        outcome: &Outcome,
        ttl: u32,
        age: Duration,
    ) {
        let now = monotonic();
        let mut cache = Cache::new(1000, 1 << 20, now - age);
        cache.put(name, kind, outcome, ttl, now - age);
        self.0.cache.replace(cache);
    }
}

/// A name that DNS cannot have does not exist, for ever.
fn no_name<T>() -> Lookup<T> {
    let expires = monotonic() + Duration::from_secs(3600);
    Lookup { result: Err(DnsFailure::NoSuchDomain), expires, missing: None }
}

fn exchangers(found: Found) -> Lookup<Exchangers> {
    let result = match found.outcome {
        Outcome::Mx(hosts) => Ok(hosts),
        Outcome::Nothing(failure) => Err(failure),
        Outcome::Addresses(_) => unreachable!("kinds are kept apart"),
    };
    Lookup { result, expires: found.expires, missing: None }
}

/// What goes on beside look-ups, as long as there is a resolver.
async fn upkeep(inner: Weak<Inner>) {
    for turn in 1_u32.. {
        sleep(SWEEP_EVERY).await;
        let Some(inner) = inner.upgrade() else { return };
        inner.cache.borrow_mut().sweep(SWEEP_STEPS, monotonic());
        if turn.is_multiple_of(WATCH_SWEEPS) {
            inner.look_at_conf().await;
        }
    }
}

impl Inner {
    /// Learns the servers anew from where the options say.
    fn find_servers(&self) {
        let source = self.options.borrow().source.clone();
        match source {
            Source::Fixed(servers) => {
                self.pace.set(Pace { first: None, rounds: conf::ATTEMPTS });
                self.use_servers(&servers, true);
            }
            Source::File(path) => {
                let (stamp, conf) = conf::read(&path);
                self.take_conf(&path, stamp, conf);
            }
        }
    }

    /// Reads resolv.conf again if it is not as it was. Files are slow: on a thread
    /// beside.
    async fn look_at_conf(&self) {
        let Source::File(path) = self.options.borrow().source.clone() else { return };
        let old = self.stamp.get();
        let reading = blocking(move || {
            let is_as_it_was = Stamp::of(&path) == old;
            (!is_as_it_was).then(|| (conf::read(&path), path))
        });
        if let Some(((stamp, conf), path)) = reading.await
            && self.options.borrow().source == Source::File(path.clone())
        {
            self.take_conf(&path, stamp, conf);
        }
    }

    fn take_conf(&self, path: &Path, stamp: Stamp, conf: io::Result<Conf>) {
        self.stamp.set(stamp);
        let conf = match conf {
            Ok(conf) => conf,
            Err(error) => {
                tracing::warn!("cannot read {}: {error}", path.display());
                if self.servers.borrow().len() > 0 {
                    return;
                }
                Conf::default()
            }
        };
        self.pace.set(Pace { first: conf.timeout, rounds: conf.attempts });
        self.use_servers(&conf.servers, conf.rotates);
    }

    fn use_servers(&self, servers: &[SocketAddr], rotates: bool) {
        if self.servers.borrow_mut().replace(servers, rotates) {
            self.era.set(self.era.get().wrapping_add(1));
            self.cache.borrow_mut().clear();
        }
    }

    /// What the cache knows; has it fetched anew if that is due.
    fn cached(self: &Rc<Self>, name: &str, kind: Kind) -> Option<Found> {
        let Hit { outcome, expires, is_due } =
            self.cache.borrow_mut().get(name, kind, monotonic())?;
        self.counts.borrow_mut().hits += 1;
        if is_due {
            self.fetch_ahead(name, kind);
        }
        Some(Found { outcome, expires })
    }

    async fn look_up(self: &Rc<Self>, name: &str, kind: Kind) -> Found {
        if let Some(found) = self.cached(name, kind) {
            return found;
        }
        let key = (name.into(), kind);
        let flight = self.flights.borrow().get(&key).cloned();
        if let Some(flight) = flight {
            self.counts.borrow_mut().joined += 1;
            return flight.landed().await;
        }
        self.counts.borrow_mut().misses += 1;
        if self.may_run() {
            return self.fly(key).landed().await;
        }
        if self.waiting.borrow().len() >= WAITING_MAX {
            return self.trouble("too many look-ups wait for their turn".into());
        }
        let flight = Flight::new(monotonic());
        self.waiting.borrow_mut().push_back(key.clone());
        self.flights.borrow_mut().insert(key, Rc::clone(&flight));
        flight.landed().await
    }

    /// Fetches a name that is in the cache anew; not while others wait.
    fn fetch_ahead(self: &Rc<Self>, name: &str, kind: Kind) {
        let key = (name.into(), kind);
        if self.may_run() && !self.flights.borrow().contains_key(&key) {
            self.counts.borrow_mut().prefetched += 1;
            self.fly(key);
        }
    }

    /// Whether one more look-up may run.
    fn may_run(&self) -> bool {
        self.running.get() < self.options.borrow().in_flight_max.max(1)
    }

    /// Begins a look-up.
    fn fly(self: &Rc<Self>, key: Key) -> Rc<Flight> {
        let flight = Flight::new(monotonic());
        self.flights.borrow_mut().insert(key.clone(), Rc::clone(&flight));
        self.running.set(self.running.get() + 1);
        spawn(Rc::clone(self).work(key, Rc::clone(&flight))).detach();
        flight
    }

    /// One look-up after the other, until none waits.
    async fn work(self: Rc<Self>, mut key: Key, mut flight: Rc<Flight>) {
        loop {
            let found = self.resolve(&key.0, key.1).await;
            self.flights.borrow_mut().remove(&key);
            flight.land(found);
            match self.next() {
                Some(next) => (key, flight) = next,
                None => break,
            }
        }
        self.running.set(self.running.get() - 1);
    }

    /// The next look-up whose turn it is, if more may run. Those that nobody waits
    /// for any longer are dropped, those that waited too long end in trouble.
    fn next(&self) -> Option<(Key, Rc<Flight>)> {
        let (limit, patience) = {
            let options = self.options.borrow();
            (options.in_flight_max.max(1), options.timeout * TURN_PATIENCE)
        };
        while self.running.get() <= limit {
            let key = self.waiting.borrow_mut().pop_front()?;
            let flight = self.flights.borrow().get(&key).cloned();
            let Some(flight) = flight else { continue };
            if flight.since.elapsed() > patience {
                self.flights.borrow_mut().remove(&key);
                flight.land(self.trouble("its turn did not come in time".into()));
            } else if Rc::strong_count(&flight) > 2 {
                return Some((key, flight));
            } else {
                self.flights.borrow_mut().remove(&key);
            }
        }
        None
    }

    /// Trouble of our own, which says nothing about the name.
    fn trouble(&self, text: Box<str>) -> Found {
        self.counts.borrow_mut().troubles += 1;
        let outcome = Outcome::Nothing(DnsFailure::Trouble(text));
        Found { outcome, expires: monotonic() + MAKESHIFT }
    }

    /// Looks a name up, and keeps what was found.
    async fn resolve(&self, name: &str, kind: Kind) -> Found {
        let era = self.era.get();
        let deadline = monotonic() + self.options.borrow().timeout;
        let (outcome, ttl) = match self.chase(name::parse(name), kind, deadline).await {
            Ok(found) => found,
            Err(text) => {
                self.counts.borrow_mut().troubles += 1;
                (Outcome::Nothing(DnsFailure::Trouble(text)), 0)
            }
        };
        let now = monotonic();
        let expires = match self.era.get() == era {
            true => self.cache.borrow_mut().put(name, kind, &outcome, ttl, now),
            false => now + MAKESHIFT,
        };
        Found { outcome, expires }
    }

    /// Asks, and asks on where an answer only leads to another name.
    async fn chase(
        &self,
        mut name: Name,
        kind: Kind,
        deadline: Instant,
    ) -> Result<(Outcome, u32), Box<str>> {
        let (mut links_before, mut ttl_before) = (0, u32::MAX);
        loop {
            let reading = self.ask(&name, kind, deadline).await?;
            let ttl = reading.ttl.min(ttl_before);
            match reading.says {
                Says::Found(outcome) => return Ok((outcome, ttl)),
                Says::LeadsTo { name: next, links } => {
                    links_before += links;
                    if links_before > LINKS_MAX {
                        return Err(Failure::Fault(Fault::Loop).to_string().into());
                    }
                    (name, ttl_before) = (next, ttl);
                }
            }
        }
    }

    /// Asks one server after the other.
    async fn ask(&self, name: &Name, kind: Kind, deadline: Instant) -> Result<Reading, Box<str>> {
        let Pace { first, rounds } = self.pace.get();
        let timeout = self.options.borrow().timeout;
        let mut wait = first.unwrap_or(timeout / FIRST_SHARE).min(timeout / 2);
        let (begin, tries_max) = {
            let mut servers = self.servers.borrow_mut();
            (servers.begin(), servers.len() * rounds as usize)
        };
        let (mut tried, mut out) = (SmallVec::<[SocketAddr; 4]>::new(), SmallVec::<[_; 2]>::new());
        let mut trouble = Box::from("no time was left");
        while tried.len() < tries_max {
            let now = monotonic();
            let left = deadline.saturating_duration_since(now);
            if left.is_zero() {
                break;
            }
            let choice = self.servers.borrow_mut().choose(begin, &tried, &out, now);
            let Some(choice) = choice else { break };
            tried.push(choice.address);
            // Nobody comes after the last.
            let limit = if tried.len() == tries_max { left } else { wait.min(left) };
            let failure = match self.exchange(choice, name, kind, limit, deadline).await {
                Ok(reading) => {
                    self.report(choice, Health::Good);
                    return Ok(reading);
                }
                Err(failure) => failure,
            };
            trouble = format!("{}: {failure}", choice.address).into();
            let (health, next) = self.judge(&failure);
            if let Some(health) = health {
                self.report(choice, health);
            }
            match next {
                Next::Nobody => break,
                Next::Others => out.push(choice.address),
                Next::Anybody => {}
            }
            wait *= 2;
        }
        Err(trouble)
    }

    fn report(&self, choice: Choice, health: Health) {
        self.servers.borrow_mut().report(choice.address, health, monotonic());
    }

    /// What a failure says about the server, and whom it is worth asking next.
    fn judge(&self, failure: &Failure) -> (Option<Health>, Next) {
        match failure {
            Failure::TimedOut => {
                self.counts.borrow_mut().timeouts += 1;
                (Some(Health::Silent), Next::Anybody)
            }
            Failure::Guessed => (Some(Health::Silent), Next::Anybody),
            Failure::Absent(_) => (Some(Health::Absent), Next::Others),
            Failure::Local(_) => (None, Next::Nobody),
            // It answered well: the domain is so.
            Failure::Fault(Fault::Loop) => (Some(Health::Good), Next::Nobody),
            Failure::Fault(Fault::Failed(_) | Fault::Referral) => {
                (Some(Health::Failed), Next::Others)
            }
            Failure::Fault(_) => (Some(Health::Silent), Next::Others),
        }
    }

    /// Asks one server: over UDP, and over TCP where the answer has to be longer
    /// or surer.
    async fn exchange(
        &self,
        choice: Choice,
        name: &Name,
        kind: Kind,
        limit: Duration,
        deadline: Instant,
    ) -> Result<Reading, Failure> {
        let server = choice.address;
        let new_query = |is_plain| {
            self.counts.borrow_mut().queries += 1;
            Asked::new(name, kind, is_plain, &mut self.random.borrow_mut())
        };
        let left = || limit.min(deadline.saturating_duration_since(monotonic()));
        let mut has_edns = choice.has_edns;
        let mut misfits = 0;
        let asked = new_query(choice.is_plain);
        let mut answer = transport::udp(server, &asked, has_edns, limit, &mut misfits).await;
        if has_edns && matches!(answer, Err(Failure::Fault(Fault::NotUnderstood))) {
            has_edns = false;
            let asked = new_query(choice.is_plain);
            answer = transport::udp(server, &asked, has_edns, left(), &mut misfits).await;
            if !matches!(answer, Err(Failure::Fault(Fault::NotUnderstood) | Failure::TimedOut)) {
                self.servers.borrow_mut().lacks_edns(server, monotonic());
            }
        }
        {
            let mut counts = self.counts.borrow_mut();
            counts.mismatched += u64::from(misfits);
            match answer {
                Err(Failure::Fault(Fault::Truncated)) => counts.truncated += 1,
                Err(Failure::Fault(Fault::OtherCase)) => counts.mismatched += 1,
                Err(Failure::Guessed) => {}
                answer => return answer,
            }
        }
        // Nobody can answer for the server over TCP.
        let asked = new_query(false);
        let reading = transport::tcp(server, &asked, has_edns, left()).await?;
        if !reading.is_exact {
            self.servers.borrow_mut().loses_case(server, monotonic());
        }
        Ok(reading)
    }
}

/// Whom it is worth asking after a failure.
enum Next {
    /// Any server, the same too.
    Anybody,
    /// Any other.
    Others,
    /// None.
    Nobody,
}
