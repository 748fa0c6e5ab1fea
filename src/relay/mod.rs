//! Relaying: from a message that is durable to an outcome that is.
//!
//! One [`Relay`] a shard, in two roles. As *origin* it owns the schedule of the
//! messages in this shard's logs: it routes recipients, gives out handles, makes
//! the retry schedule from what comes back, sends reports and records outcomes
//! (`origin`, `settle`, `bounce`). As *lane* it delivers what any shard has for
//! the sites whose lanes lie here (`lane`, `connection`, `wire`, `attempt`);
//! `body` reads what it sends from the log, within the budget of `memory`. Where a
//! site has a lane on every core both are the same shard and nothing crosses.
//!
//! Called by `shard`: [`Relay::accepted`] after each commit, [`Relay::receive`]
//! for parcels of other shards, [`Relay::drain`] at the end.
//!
//! Invariants:
//! * a message is *out* (in the index of its log) exactly while a handle with
//!   that recipient exists; every handle comes back once;
//! * a failure is recorded only after the report about it is durable;
//! * memory is bounded: bodies by [`BODY_MEMORY_MAX`], handles by [`OUT_MAX`];
//!   what is past that waits in the log.

mod attempt;
mod body;
mod bounce;
mod connection;
mod lane;
mod memory;
mod origin;
mod parcel;
mod settle;
#[cfg(test)]
mod tests;
mod wire;

use std::cell::{Cell, Ref, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::base::counters::SharedCounters;
use crate::base::envelope::SharedMail;
use crate::base::{Envelope, Outcome, Place, QueueId, ShardId, UnixMillis};
use crate::config::Config;
use crate::io::clock;
use crate::io::executor::{sleep, spawn};
use crate::io::signal::Signal;
use crate::io::store::Store;
use crate::io::watch::Watch;
use crate::policy::route::{Lanes, Routes, Site};
use crate::queue::{Queue, Reader};

use lane::{Kick, Lane};
pub use memory::BODY_MEMORY_MAX;
use memory::Memory;
pub use parcel::{Events, Handle, Mesh, Parcel, Settled};

/// Handles that a shard has out; further messages wait in the log.
pub const OUT_MAX: usize = 20_000;
/// Recipients in one transaction (RFC 5321, 4.5.3.1.8: what every server takes).
const RECIPIENTS_PER_HANDLE: usize = crate::base::limits::RECIPIENTS_MIN;
/// How long a connection is kept without work.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// How often retries and idle connections are looked at.
const TICK: Duration = Duration::from_millis(250);

/// A destination as this shard delivers to it.
#[derive(Clone, Debug)]
pub struct SiteState {
    /// Its name: the list of next hops.
    pub site: String,
    /// Handles waiting.
    pub queued: u64,
    /// Open connections.
    pub connections: u64,
    /// Until when it is left alone after a failure, if it is.
    pub back_off_until: Option<UnixMillis>,
    /// The last failure, in words.
    pub last_failure: Option<String>,
}

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
    /// Who wants to hear of outcomes.
    pub events: Box<dyn Events>,
    /// The shard's counters.
    pub counters: SharedCounters,
}

/// What follows from the configuration.
struct Settings {
    config: Arc<Config>,
    routes: Routes,
    lanes: Lanes,
}

impl Settings {
    fn new(config: Arc<Config>, shards: u16) -> Self {
        let routes = Routes::new(&config.routes, &config.hostname);
        let lanes = Lanes { shards, connections: config.delivery.connections_per_site };
        Settings { config, routes, lanes }
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
    lanes: RefCell<HashMap<Arc<Site>, Rc<Lane>>>,
    outboxes: RefCell<Vec<Outbox>>,
    post: Signal,
    /// Handles out, reports being made, and established connections; a drain
    /// waits for all three.
    out: Cell<usize>,
    reports: Cell<usize>,
    connections: Cell<usize>,
    memory: Rc<Memory>,
    draining: Cell<bool>,
    drained: Signal,
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
            settings: RefCell::new(Rc::new(Settings::new(parts.config, shards))),
            logs: parts.logs,
            stores: parts.stores,
            readers: RefCell::default(),
            mesh: parts.mesh,
            events: parts.events,
            counters: parts.counters,
            watch: Watch::default(),
            lanes: RefCell::default(),
            outboxes: RefCell::new(outboxes),
            post: Signal::default(),
            out: Cell::new(0),
            reports: Cell::new(0),
            connections: Cell::new(0),
            memory: Memory::new(BODY_MEMORY_MAX),
            draining: Cell::new(false),
            drained: Signal::default(),
            unrecorded: RefCell::default(),
            halted: RefCell::default(),
        }))
    }

    /// Starts the tasks: retries (recovered messages first), the post to other
    /// shards, deadlines.
    pub fn start(&self) {
        spawn(self.0.watch.clone().run()).detach();
        spawn(Rc::clone(&self.0).run_post()).detach();
        spawn(Rc::clone(&self.0).run_retries()).detach();
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
                    let lane = self.0.lane(&site);
                    for handle in handles {
                        self.0.push(&lane, handle);
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
        let settings = Rc::new(Settings::new(config, self.0.mesh.shards()));
        for (site, lane) in self.0.lanes.borrow().iter() {
            lane.set_share(settings.lanes.share(site, self.0.mesh.me().0));
        }
        self.0.settings.replace(settings);
    }

    /// Gives out nothing more, lets the transactions under way finish, and
    /// returns when every handle is back and every report durable. The caller
    /// bounds the wait, keeps passing parcels in, and calls [`Relay::cut`] when
    /// it is out of patience.
    pub async fn drain(&self) {
        self.0.draining.set(true);
        self.0.purge(|_| true);
        for lane in self.0.lanes.borrow().values() {
            lane.wake_idle(UnixMillis(u64::MAX));
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

    /// The destinations that this shard delivers to.
    pub fn sites(&self) -> Vec<SiteState> {
        let now = clock::wall();
        let lanes = self.0.lanes.borrow();
        let mut states: Vec<_> = lanes.values().map(|lane| lane.figures(now)).collect();
        states.sort_by(|a, b| a.site.cmp(&b.site));
        states
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

    /// The lane of a site.
    fn lane(&self, site: &Arc<Site>) -> Rc<Lane> {
        if let Some(lane) = self.lanes.borrow().get(site) {
            return Rc::clone(lane);
        }
        let share = self.settings.borrow().lanes.share(site, self.mesh.me().0);
        let lane = Rc::new(Lane::new(Arc::clone(site), share));
        self.lanes.borrow_mut().insert(Arc::clone(site), Rc::clone(&lane));
        lane
    }

    /// Queues a handle at its lane.
    fn push(self: &Rc<Self>, lane: &Rc<Lane>, handle: Handle) {
        if self.stopping() {
            self.release(handle);
            return;
        }
        match lane.push(handle, clock::wall()) {
            Ok(kick) => self.open(lane, kick),
            Err(refused) => {
                let (handle, failure) = *refused;
                self.defer_all(vec![handle], &failure);
            }
        }
    }

    /// Opens a connection if the lane needs one.
    fn kick(self: &Rc<Self>, lane: &Rc<Lane>) {
        if !self.stopping() {
            let kick = lane.kick(clock::wall());
            self.open(lane, kick);
        }
    }

    fn open(self: &Rc<Self>, lane: &Rc<Lane>, kick: Kick) {
        if kick == Kick::Open {
            spawn(connection::run(Rc::clone(self), Rc::clone(lane))).detach();
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

    /// Looks at retries and idle connections until the drain.
    async fn run_retries(self: Rc<Self>) {
        while !self.stopping() {
            self.record_again();
            self.give_out_due().await;
            let now = clock::wall();
            let idle_since = UnixMillis(now.0.saturating_sub(IDLE_MAX.as_millis() as u64));
            self.lanes.borrow_mut().retain(|site, lane| {
                lane.wake_idle(idle_since);
                !lane.is_forgettable(now) || self.settings.borrow().routes.leads_to(site)
            });
            sleep(TICK).await;
        }
    }

    /// Sends home untouched what waits of these logs.
    fn purge(self: &Rc<Self>, of_log: impl Fn(ShardId) -> bool) {
        let lanes: Vec<_> = self.lanes.borrow().values().map(Rc::clone).collect();
        for lane in lanes {
            for handle in lane.purge(&of_log) {
                self.release(handle);
            }
        }
    }

    fn is_quiet(&self) -> bool {
        let posted = |outbox: &Outbox| outbox.deliver.is_empty() && outbox.settled.is_empty();
        self.out.get() == 0
            && self.reports.get() == 0
            && self.connections.get() == 0
            && self.outboxes.borrow().iter().all(posted)
    }

    fn check_drained(&self) {
        if self.stopping() && self.is_quiet() {
            self.drained.raise();
        }
    }
}
