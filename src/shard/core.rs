//! One core: its wiring, in the order of the data path. The logs are opened and
//! recovered, the relay is built on them, the receiver in front of it; then the
//! control thread's requests are answered until it asks for the end.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use hdrhistogram::Histogram;

use crate::base::counters::SharedCounters;
use crate::io::dns::{DnsOptions, Resolver};
use crate::io::executor::{Task, sleep, spawn, within};
use crate::io::uring::UringStore;
use crate::queue::Queue;
use crate::receive;
use crate::receive::meters::Meters;
use crate::relay::{Accounts, Parcel, Parts, Relay, TICK};

use super::answer::Desk;
use super::control::{LogFiles, Request, SITES_TOLD, ShardSnapshot};
use super::hooks::{Back, Front};
use super::logs::{Begun, Logs, begin_logs, log_dir, read_queue};
use super::maillog::MailLog;
use super::mesh::ShardMesh;
use super::shelf::count_held;
use super::turns::{self, Turn, Turns};
use super::{Config, Recovered, ShardPlan};

/// How often log lines are shipped to the writer.
const SHIP_EVERY: Duration = Duration::from_millis(100);
/// How long an outcome waits for mail to be committed with. With the flush it
/// is durable well within the 10 ms that docs/durability.md promises.
const OUTCOMES_WAIT: Duration = Duration::from_millis(5);
/// How often cleaning is allowed to write more, and how much, beside what new
/// mail allows it: 32 MiB a second.
const CLEAN_EVERY: Duration = Duration::from_millis(100);
const CLEAN_BYTES: u64 = 32 * (1 << 20) / 10;
/// How often a file may be removed that no log needs any more.
const TRIM_EVERY: Duration = Duration::from_secs(5);
/// How long the relay may take, once cut, to hand back what was under way.
const CUT_GRACE: Duration = Duration::from_secs(2);

/// The channels of a shard.
pub(super) struct Channels {
    pub(super) requests: Receiver<Request<Config>>,
    pub(super) ready: Sender<Result<Recovered, String>>,
    pub(super) parcels: Receiver<Parcel>,
    pub(super) mesh: Vec<Sender<Parcel>>,
    pub(super) accounts: Arc<Accounts>,
    pub(super) meters: Arc<Meters>,
    pub(super) turns: Receiver<Turn>,
    pub(super) all_turns: Vec<Sender<Turn>>,
}

/// The parts of a running shard.
struct Core {
    plan: ShardPlan,
    logs: Rc<Logs<UringStore>>,
    relay: Relay<UringStore>,
    receiver: receive::Receiver<UringStore, Front>,
    maillog: Rc<MailLog>,
    delivery_latency: Rc<RefCell<Histogram<u64>>>,
    counters: SharedCounters,
    desk: Rc<Desk<UringStore>>,
    commits: RefCell<Vec<Task<()>>>,
    /// Why what was queued before the start could not be read.
    unreadable: RefCell<Option<String>>,
}

/// Runs a shard from start to end.
pub(super) async fn run(mut plan: ShardPlan, channels: Channels) {
    let Begun { logs, unread, recovered } = match begin_logs(&plan).await {
        Ok(begun) => begun,
        Err(why) => {
            // A dropped receiver means that the start was given up already.
            let _ = channels.ready.try_send(Err(why));
            return;
        }
    };
    let listeners = std::mem::take(&mut plan.listeners);
    let shared = (channels.accounts, channels.meters);
    let turns = Turns::new(channels.all_turns);
    let core = Rc::new(build(plan, logs, channels.mesh, shared, turns));
    core.relay.start();
    let parcels = spawn(take_parcels(Rc::clone(&core), channels.parcels));
    let turns = spawn(turns::take(Rc::clone(&core.desk), channels.turns));
    let ship = spawn(ship_log(Rc::clone(&core.maillog)));
    core.receiver.start(listeners);
    let _ = channels.ready.try_send(Ok(recovered));
    for unread in unread {
        let core = Rc::clone(&core);
        let read = async move {
            let log = unread.log;
            match read_queue(unread).await {
                Ok(()) => count_held(&core.logs[&log], &core.plan.authority).await,
                Err(why) => {
                    core.unreadable.borrow_mut().get_or_insert(why);
                }
            }
        };
        spawn(read).detach();
    }
    let done = serve(&core, channels.requests).await;
    turns.cancel().await;
    parcels.cancel().await;
    ship.cancel().await;
    core.maillog.ship();
    if let Some(done) = done {
        let _ = done.try_send(());
    }
}

fn build(
    plan: ShardPlan,
    logs: Logs<UringStore>,
    mesh: Vec<Sender<Parcel>>,
    (accounts, meters): (Arc<Accounts>, Arc<Meters>),
    turns: Turns,
) -> Core {
    let counters = SharedCounters::default();
    let maillog = Rc::new(MailLog::new(plan.log.clone(), Rc::clone(&counters)));
    let delivery_latency = Rc::new(RefCell::new(latency_ms()));
    let commits = logs.values().map(|queue| spawn(queue.clone().run_commits())).collect();
    for queue in logs.values() {
        spawn(nudge(queue.clone())).detach();
        spawn(look_after_space(queue.clone())).detach();
        spawn(trim(queue.clone())).detach();
    }
    let commits = RefCell::new(commits);
    let data_dir = plan.config.data_dir.clone();
    let resolver = Resolver::new(DnsOptions::from(&plan.config.dns));
    resolver.start();
    let relay = Relay::new(Parts {
        // The shard's own copy: no two cores count references to one.
        config: Arc::new(Config::clone(&plan.config)),
        logs: logs.iter().map(|(log, queue)| (*log, queue.clone())).collect(),
        stores: Box::new(move |log| UringStore::new(log_dir(&data_dir, log))),
        mesh: Box::new(ShardMesh::new(plan.id, mesh)),
        accounts,
        resolver,
        tick: TICK,
        events: Box::new(Back {
            log: Rc::clone(&maillog),
            delivery_latency: Rc::clone(&delivery_latency),
        }),
        counters: Rc::clone(&counters),
    });
    let receiver = receive::Receiver::new(
        Rc::new(Config::clone(&plan.config)),
        plan.shards,
        logs[&plan.id].clone(),
        Front { log: Rc::clone(&maillog), relay: relay.clone(), turns },
        Arc::clone(&plan.authority),
        Rc::clone(&counters),
        meters,
    );
    receiver.use_tls(plan.tls.clone());
    let logs = Rc::new(logs);
    let desk = Rc::new(Desk {
        logs: Rc::clone(&logs),
        guide: Rc::new(relay.clone()),
        maillog: Rc::clone(&maillog),
        counters: Rc::clone(&counters),
        authority: Arc::clone(&plan.authority),
        hurried: RefCell::default(),
    });
    let unreadable = RefCell::default();
    Core {
        plan,
        logs,
        relay,
        receiver,
        maillog,
        delivery_latency,
        counters,
        desk,
        commits,
        unreadable,
    }
}

/// 1 ms to 30 days, two significant digits.
fn latency_ms() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 30 * 24 * 3_600_000, 2).expect("the bounds are in order")
}

async fn take_parcels(core: Rc<Core>, parcels: Receiver<Parcel>) {
    while let Ok(parcel) = parcels.recv().await {
        core.relay.receive(parcel);
    }
}

/// Bounds how long an outcome waits for mail to be committed with.
async fn nudge(queue: Queue<UringStore>) {
    loop {
        queue.recorded().await;
        sleep(OUTCOMES_WAIT).await;
        queue.nudge();
    }
}

/// Lets a log be cleaned, within a budget, and tells the operator when the disk
/// fills up and when it has room again.
async fn look_after_space(queue: Queue<UringStore>) {
    let mut was_full = false;
    loop {
        sleep(CLEAN_EVERY).await;
        queue.allow_cleaning(CLEAN_BYTES);
        let log = queue.log();
        match (was_full, queue.is_full()) {
            (false, true) => tracing::warn!(
                target: "ringpost",
                %log,
                "the disk of data_dir is nearly full: new mail is put off (452), deliveries go on; \
                 free space there (df -h)"
            ),
            (true, false) => {
                tracing::info!(target: "ringpost", %log, "the disk has room again: mail is taken");
            }
            _ => {}
        }
        was_full = queue.is_full();
    }
}

/// Gives space back when more files wait than are kept.
async fn trim(queue: Queue<UringStore>) {
    loop {
        sleep(TRIM_EVERY).await;
        queue.trim();
    }
}

async fn ship_log(maillog: Rc<MailLog>) {
    loop {
        sleep(SHIP_EVERY).await;
        maillog.ship();
    }
}

/// Answers requests until the drain is done; returns whom to tell.
async fn serve(core: &Rc<Core>, requests: Receiver<Request<Config>>) -> Option<Sender<()>> {
    loop {
        // The control thread holds the sender while it lives. Without it there
        // is nobody to serve: end as if asked to.
        match requests.recv().await {
            Err(_) => {
                core.drain(Duration::ZERO).await;
                return None;
            }
            Ok(Request::Drain { grace, reply }) => {
                let others = spawn(answer_all(Rc::clone(core), requests));
                core.drain(grace).await;
                others.cancel().await;
                return Some(reply);
            }
            Ok(request) => core.answer(request),
        }
    }
}

/// Answers what is asked during a drain.
async fn answer_all(core: Rc<Core>, requests: Receiver<Request<Config>>) {
    while let Ok(request) = requests.recv().await {
        core.answer(request);
    }
}

impl Core {
    /// Answers one request; those that read the log do so in a task of their
    /// own. A dropped reply channel means that nobody waits any more.
    fn answer(self: &Rc<Self>, request: Request<Config>) {
        match request {
            Request::Snapshot(reply) => {
                let _ = reply.try_send(self.snapshot());
            }
            Request::Sites(names, reply) => {
                let _ = reply.try_send(self.relay.sites_named(&names));
            }
            Request::List { range, reply } => {
                let desk = Rc::clone(&self.desk);
                let answer = async move {
                    let _ = reply.try_send(desk.page(&range).await);
                };
                spawn(answer).detach();
            }
            Request::Show { id, parts, reply } => {
                let desk = Rc::clone(&self.desk);
                let answer = async move {
                    let shown = desk.shown(id).await;
                    let is_whole = shown.as_ref().is_some_and(|s| s.listed.damaged.is_none());
                    let _ = reply.try_send(shown);
                    if let (Some(parts), true) = (parts, is_whole) {
                        desk.send_parts(id, parts).await;
                    }
                };
                spawn(answer).detach();
            }
            Request::Order { order, target, reply } => {
                let desk = Rc::clone(&self.desk);
                let answer = async move {
                    let _ = reply.try_send(desk.ordered(&order, &target).await);
                };
                spawn(answer).detach();
            }
            Request::Reload(config) => {
                self.receiver.reload(Rc::new(Config::clone(&config)));
                self.relay.reload(Arc::new(Config::clone(&config)));
            }
            Request::Tls(server) => self.receiver.use_tls(Some(server)),
            // A second drain while one is under way: the first one answers.
            Request::Drain { .. } => {}
        }
    }

    /// The files of all logs. A log's amplification counts by what it holds.
    fn files(&self) -> LogFiles {
        let mut files = LogFiles::default();
        let (mut weighted, mut weight) = (0.0, 0.0);
        for queue in self.logs.values() {
            let log = queue.segments();
            files.in_use += log.in_use;
            files.spare += log.spare + log.prepared;
            files.quarantined += log.quarantined;
            files.unread += log.unread;
            files.live_bytes += log.live_bytes;
            let live = log.live_bytes.max(1) as f64;
            weighted += log.amplification() * live;
            weight += live;
        }
        files.amplification = weighted / weight;
        files
    }

    fn snapshot(&self) -> ShardSnapshot {
        let mut counters = self.counters.borrow().clone();
        for queue in self.logs.values() {
            let done = queue.counters();
            counters.appends += done.appends;
            counters.flushes += done.flushes;
            counters.flush_failures += done.failures;
            counters.bytes_appended += done.bytes_appended;
            counters.bytes_written += done.bytes_written;
            counters.bytes_zeroed += done.bytes_zeroed;
            counters.segments_created += done.segments_created;
            counters.segments_recycled += done.segments_recycled;
            counters.segments_freed += done.segments_freed;
            counters.messages_moved += done.messages_moved;
            counters.bytes_moved += done.bytes_moved;
            counters.checkpoints_written += done.checkpoints;
            counters.records_damaged += done.damaged;
        }
        let (sites, site_totals) = self.relay.fullest_sites(SITES_TOLD);
        ShardSnapshot {
            shard: self.plan.id,
            cpu: self.plan.cpu,
            counters,
            sessions: self.receiver.sessions() as u64,
            receive_memory: self.receiver.memory() as u64,
            queued_messages: self.logs.values().map(|queue| queue.live() as u64).sum(),
            queued_bytes: self.logs.values().map(|queue| queue.bytes_live()).sum(),
            files: self.files(),
            body_memory: self.relay.body_memory(),
            poisoned: self.logs.values().find_map(|queue| queue.poisoned()),
            unreadable: self.unreadable.borrow().clone(),
            full: self.logs[&self.plan.id].is_full(),
            accept_latency: self.receiver.accept_latency(),
            delivery_latency: self.delivery_latency.borrow().clone(),
            sites,
            site_totals,
            dns: self.relay.dns(),
        }
    }

    /// Stops accepting, waits up to `grace` for transactions on both sides,
    /// then ends what is left, and makes every outcome durable.
    async fn drain(&self, grace: Duration) {
        self.receiver.drain().await;
        let quiet = async {
            // Both at once: neither may use up the grace of the other.
            futures_lite::future::zip(self.receiver.quiet(), self.relay.drain()).await;
        };
        if within(grace, quiet).await.is_none() {
            self.receiver.cut();
            self.relay.cut();
            within(CUT_GRACE, async {
                futures_lite::future::zip(self.receiver.quiet(), self.relay.drain()).await;
            })
            .await;
        }
        for queue in self.logs.values() {
            queue.close();
        }
        for commits in self.commits.take() {
            commits.await;
        }
    }
}
