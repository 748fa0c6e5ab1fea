//! Relaying: from a message that is durable to an outcome that is.
//!
//! One [`Relay`] a shard, in two roles. As *origin* it owns the schedule of the
//! messages in this shard's logs: it routes recipients (`origin`, by DNS in
//! `directory`), gives out handles as far as their sites have room and has the
//! others wait, by priority (`waiting`, `outflow`, `ranks`), reads what is due
//! (`due`), makes the retry schedule from what comes back, sends reports and records
//! outcomes (`settle`, `bounce`, `joining`, `notice`). As *lane* it delivers what any
//! shard has for the sites whose lanes lie here (`lane`, `reach`, `secure`,
//! `connection`, `carriage`, `wire`, `attempt`); `body` reads what it sends from the log, within
//! the budget of `memory`. A `station` is one site in both roles; what all shards
//! share about it is its account (`accounts`). Where a site has a lane on every core
//! nothing crosses.
//!
//! Called by `shard`: [`Relay::accepted`] after each commit, [`Relay::receive`]
//! for parcels of other shards, [`Relay::drain`] at the end.
//!
//! Invariants:
//! * a message is *out* (in the index of its log) exactly while a handle with
//!   that recipient exists; every handle comes back once;
//! * a failure is recorded only after the report about it is durable;
//! * memory is bounded: bodies by [`BODY_MEMORY_MAX`], handles by [`OUT_MAX`];
//!   what is past that waits in the log;
//! * what waits for a site is not looked at before its turn.

mod accounts;
mod attempt;
mod body;
mod bounce;
mod carriage;
mod connection;
mod directory;
mod due;
mod explain;
mod joining;
mod lane;
mod memory;
mod notice;
mod origin;
mod outflow;
mod parcel;
mod ranks;
mod reach;
mod round;
mod secure;
mod settle;
mod station;
#[cfg(test)]
mod tests;
mod tick;
mod waiting;
mod wire;

use std::cell::{Cell, Ref, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::base::counters::SharedCounters;
use crate::base::envelope::SharedMail;
use crate::base::{Envelope, Outcome, Place, QueueId, ShardId};
use crate::config::Config;
use crate::io::clock;
use crate::io::dns::{DnsOptions, Resolver};
use crate::io::executor::spawn;
use crate::io::signal::Signal;
use crate::io::store::Store;
use crate::io::tls;
use crate::io::watch::Watch;
use crate::policy::back_off::HostTrouble;
use crate::policy::route::{Routes, Site};
use crate::queue::{Queue, Reader};

pub use accounts::Accounts;
use directory::Directory;
pub use directory::{Decision, decide};
pub use explain::{SiteState, SiteTotals, Standing, Way};
use joining::Joining;
use lane::Kick;
pub use memory::BODY_MEMORY_MAX;
use memory::Memory;
pub use parcel::{Events, Handle, Mesh, Parcel, Settled};
pub use secure::authorities;
use station::{Station, Stations};

/// Handles that a shard has out; further messages wait in the log.
pub const OUT_MAX: usize = 20_000;
/// Recipients in one transaction (RFC 5321, 4.5.3.1.8: what every server takes).
const RECIPIENTS_PER_HANDLE: usize = crate::base::limits::RECIPIENTS_MIN;
/// How long a connection is kept without work.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// How often the schedule, sites and idle connections are looked at.
pub const TICK: Duration = Duration::from_millis(250);

/// What a shard gives to its relay.
pub struct Parts<S: Store> {
    /// The configuration.
    pub config: Arc<Config>,
    /// The logs that this shard has open, its own among them.
    pub logs: Vec<(ShardId, Queue<S>)>,
    /// Where the files of any log are, for messages of other shards.
    pub stores: Box<dyn Fn(ShardId) -> S>,
    /// The way to the other shards.
    pub mesh: Box<dyn Mesh>,
    /// What all shards share about sites.
    pub accounts: Arc<Accounts>,
    /// Who knows where mail for a domain goes.
    pub resolver: Resolver,
    /// How often the schedule and the sites are looked at: [`TICK`].
    pub tick: Duration,
    /// Who wants to hear of outcomes.
    pub events: Box<dyn Events>,
    /// The shard's counters.
    pub counters: SharedCounters,
}

/// What follows from the configuration.
struct Settings {
    config: Arc<Config>,
    routes: Routes,
}

impl Settings {
    fn new(config: Arc<Config>) -> Self {
        let routes = Routes::new(&config);
        Settings { config, routes }
    }
}

/// What is to be sent to one other shard.
#[derive(Default)]
struct Outbox {
    deliver: Vec<(Arc<Site>, Vec<Handle>)>,
    settled: Vec<Settled>,
}

/// The state that the tasks of a relay share.
struct Core<S: Store> {
    settings: RefCell<Rc<Settings>>,
    logs: Vec<(ShardId, Queue<S>)>,
    stores: Box<dyn Fn(ShardId) -> S>,
    /// Logs of other shards, as far as they were read.
    readers: RefCell<HashMap<ShardId, Reader<S>>>,
    mesh: Box<dyn Mesh>,
    events: Box<dyn Events>,
    counters: SharedCounters,
    watch: Watch,
    /// What TLS connections are made with, once one was.
    tls_client: RefCell<Option<tls::Client>>,
    /// Hosts with which TLS has failed lately.
    tls_trouble: RefCell<HostTrouble>,
    /// Hosts that failed at chunks, which they offer.
    chunk_trouble: RefCell<HostTrouble>,
    directory: Directory,
    stations: RefCell<Stations>,
    /// Stations that have room for some of what waits for them.
    to_refill: RefCell<VecDeque<Rc<Station>>>,
    refill: Signal,
    /// Stations whose mail an operator wants to be tried now.
    hurried: RefCell<Vec<Rc<Station>>>,
    /// The schedule is to be looked at before its next tick.
    urgent: Signal,
    outboxes: RefCell<Vec<Outbox>>,
    post: Signal,
    tick: Duration,
    random: Cell<u64>,
    /// Handles out, messages whose domains are being looked up, batches being
    /// read from the log, reports being made, and established connections; a drain
    /// waits for all of them.
    out: Cell<usize>,
    resolving: Cell<usize>,
    reading: Cell<usize>,
    reports: Cell<usize>,
    connections: Cell<usize>,
    memory: Rc<Memory>,
    draining: Cell<bool>,
    drained: Signal,
    /// Failures and delays that wait for others of their messages.
    joining: Joining,
    /// Deferrals of late messages, whose senders may have to be told.
    unsure: RefCell<VecDeque<(Handle, Vec<Outcome>)>>,
    /// Outcomes that found no room on the disk.
    unrecorded: RefCell<Vec<(QueueId, SharedMail, Vec<Outcome>)>>,
    /// Own logs that have failed.
    halted: RefCell<Vec<ShardId>>,
}

/// The relay of one shard. Cheap to clone.
pub struct Relay<S: Store>(Rc<Core<S>>);

impl<S: Store> Clone for Relay<S> {
    fn clone(&self) -> Self {
        Relay(Rc::clone(&self.0))
    }
}

impl<S: Store> Relay<S> {
    /// A relay that does nothing until started.
    pub fn new(parts: Parts<S>) -> Self {
        let shards = parts.mesh.shards();
        let outboxes = (0..shards).map(|_| Outbox::default()).collect();
        Relay(Rc::new(Core {
            settings: RefCell::new(Rc::new(Settings::new(parts.config))),
            logs: parts.logs,
            stores: parts.stores,
            readers: RefCell::default(),
            directory: Directory::new(parts.resolver),
            stations: RefCell::new(Stations::new(parts.mesh.me(), parts.accounts)),
            to_refill: RefCell::default(),
            refill: Signal::default(),
            hurried: RefCell::default(),
            urgent: Signal::default(),
            tick: parts.tick,
            random: Cell::new(clock::wall().0 << 16 | u64::from(parts.mesh.me().0) << 1 | 1),
            mesh: parts.mesh,
            events: parts.events,
            counters: parts.counters,
            watch: Watch::default(),
            tls_client: RefCell::default(),
            tls_trouble: RefCell::default(),
            chunk_trouble: RefCell::default(),
            outboxes: RefCell::new(outboxes),
            post: Signal::default(),
            out: Cell::new(0),
            resolving: Cell::new(0),
            reading: Cell::new(0),
            reports: Cell::new(0),
            connections: Cell::new(0),
            memory: Memory::new(BODY_MEMORY_MAX),
            draining: Cell::new(false),
            drained: Signal::default(),
            joining: Joining::default(),
            unsure: RefCell::default(),
            unrecorded: RefCell::default(),
            halted: RefCell::default(),
        }))
    }

    /// Starts the tasks: retries (recovered messages first), the post to other
    /// shards, deadlines.
    pub fn start(&self) {
        spawn(self.0.watch.clone().run()).detach();
        spawn(Rc::clone(&self.0).run_post()).detach();
        spawn(Rc::clone(&self.0).run_refills()).detach();
        spawn(Rc::clone(&self.0).run_schedule()).detach();
        spawn(Rc::clone(&self.0).run_ticks()).detach();
    }

    /// A message is durable: deliver it. Its recipients are *out* in the log's
    /// index. `body` is the body as stored but for the trace header, if it is
    /// in memory; `size` is the stored size with both.
    pub fn accepted(
        &self,
        id: QueueId,
        envelope: Envelope,
        (trace, body): (&[u8], Option<&[u8]>),
        commit: Option<Place>,
        size: u64,
    ) {
        self.0.accepted(id, envelope, (trace, body), commit, size);
    }

    /// Takes a parcel of another shard.
    pub fn receive(&self, parcel: Parcel) {
        match parcel {
            Parcel::Deliver(batches) => {
                for (site, handles) in batches {
                    let station = self.0.stations.borrow_mut().of(&site);
                    for handle in handles {
                        self.0.push(&station, handle);
                    }
                }
            }
            Parcel::Outcomes(batch) => {
                for settled in batch {
                    self.0.conclude(settled);
                }
            }
            Parcel::Halt(log) => self.0.purge(|of| of == log),
        }
    }

    /// Uses this configuration from now on. What is under way goes where it was
    /// going.
    pub fn reload(&self, config: Arc<Config>) {
        self.0.directory.resolver().reload(DnsOptions::from(&config.dns));
        self.0.settings.replace(Rc::new(Settings::new(config)));
        self.0.directory.clear();
        self.0.tls_client.take();
        self.0.stations.borrow_mut().follow(&self.0.settings().routes);
        // What waits may go now, or go elsewhere: even from a site that is down.
        for station in self.0.stations.borrow().all() {
            if station.account.closed_for(clock::monotonic()).is_some() {
                station.account.with(|governor| governor.lift());
            }
            self.0.kick(&station);
            self.0.refill_soon(&station);
        }
    }

    /// Gives out nothing more, lets the transactions under way finish, and
    /// returns when every handle is back and every report durable. The caller
    /// bounds the wait, keeps passing parcels in, and calls [`Relay::cut`] when
    /// it is out of patience.
    pub async fn drain(&self) {
        self.0.draining.set(true);
        self.0.purge(|_| true);
        self.0.report_all();
        for station in self.0.stations.borrow().all() {
            station.lane.wake_idle(clock::monotonic(), Duration::ZERO);
        }
        while !self.0.is_quiet() {
            self.0.drained.wait().await;
        }
    }

    /// Ends all connections at once. What was under way is as if untouched: a
    /// server that had it may get it again.
    pub fn cut(&self) {
        self.0.watch.cut_all();
    }

    /// Bytes of bodies in memory: kept for first attempts, or read from the log
    /// to be sent.
    pub fn body_memory(&self) -> u64 {
        self.0.memory.total() as u64
    }

    /// Handles out.
    pub fn out(&self) -> usize {
        self.0.out.get()
    }
}

impl<S: Store> Core<S> {
    fn settings(&self) -> Rc<Settings> {
        Rc::clone(&self.settings.borrow())
    }

    fn config(&self) -> Ref<'_, Config> {
        Ref::map(self.settings.borrow(), |settings| &*settings.config)
    }

    /// True when nothing more is to be given out.
    fn stopping(&self) -> bool {
        self.draining.get()
    }

    /// The log `id` is in, if this shard has it open.
    fn log(&self, id: QueueId) -> Option<&Queue<S>> {
        self.logs.iter().find(|(log, _)| *log == id.log).map(|(_, queue)| queue)
    }

    /// The log that takes new mail.
    fn own_log(&self) -> &(ShardId, Queue<S>) {
        let me = self.mesh.me();
        self.logs.iter().find(|(log, _)| *log == me).expect("a shard has a log of its own")
    }

    /// Queues a handle at its lane.
    fn push(self: &Rc<Self>, station: &Rc<Station>, handle: Handle) {
        if self.stopping() {
            self.release(handle);
            return;
        }
        let kick = station.lane.push(handle, clock::monotonic());
        self.act(station, kick);
    }

    /// Opens a connection if the lane needs one.
    fn kick(self: &Rc<Self>, station: &Rc<Station>) {
        if !self.stopping() {
            let kick = station.lane.kick(clock::monotonic());
            self.act(station, kick);
        }
    }

    fn act(self: &Rc<Self>, station: &Rc<Station>, kick: Kick) {
        let (core, station) = (Rc::clone(self), Rc::clone(station));
        match kick {
            Kick::Wait => {}
            Kick::Open => spawn(round::run(core, station)).detach(),
            Kick::Pace(at) => spawn(async move {
                reach::sleep_until(at).await;
                station.lane.paced(at);
                core.kick(&station);
            })
            .detach(),
        }
    }

    /// Puts `items` into a random order.
    fn shuffle<T>(&self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            // Xorshift: the order is nobody's secret.
            let mut random = self.random.get();
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            self.random.set(random);
            items.swap(last, (random % (last as u64 + 1)) as usize);
        }
    }

    /// Sends what has gathered for other shards, once for each turn of the
    /// executor.
    async fn run_post(self: Rc<Self>) {
        loop {
            self.post.wait().await;
            let outboxes: Vec<_> =
                self.outboxes.borrow_mut().iter_mut().map(std::mem::take).collect();
            for (shard, outbox) in outboxes.into_iter().enumerate() {
                let to = ShardId(shard as u16);
                let mut counters = self.counters.borrow_mut();
                if !outbox.deliver.is_empty() {
                    counters.hand_off_batches += 1;
                    self.mesh.send(to, Parcel::Deliver(outbox.deliver));
                }
                if !outbox.settled.is_empty() {
                    counters.hand_off_batches += 1;
                    self.mesh.send(to, Parcel::Outcomes(outbox.settled));
                }
            }
            self.check_drained();
        }
    }

    /// Sends home untouched what waits of these logs.
    fn purge(self: &Rc<Self>, of_log: impl Fn(ShardId) -> bool) {
        let stations = self.stations.borrow().all();
        for station in stations {
            for handle in station.lane.purge(&of_log) {
                self.release(handle);
            }
        }
    }

    fn is_quiet(&self) -> bool {
        let posted = |outbox: &Outbox| outbox.deliver.is_empty() && outbox.settled.is_empty();
        self.out.get() == 0
            && self.resolving.get() == 0
            && self.reading.get() == 0
            && self.reports.get() == 0
            && self.joining.is_empty()
            && self.connections.get() == 0
            && self.outboxes.borrow().iter().all(posted)
    }

    fn check_drained(&self) {
        if self.stopping() && self.is_quiet() {
            self.drained.raise();
        }
    }
}
