//! Relaying from a queue in memory to scripted next hops over loopback.

mod ahead;
mod changes;
mod failures;
mod flow;
mod lanes;
mod large;
mod peer;
mod random;
mod reports;
mod round;
mod scale;
mod secure;
mod shards;
mod sites;
mod terms;
mod time;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::base::{Disposition, EnhancedCode, UnixMillis};
use crate::config::{NextHop, Route};
use crate::io::executor::{Task, run_pinned, sleep, within};
use crate::io::memory::MemoryStore;
use crate::io::signal::Signal;
use crate::queue::QueueOptions;
use peer::{HELLO, Peer, Sink, script, takes_one};

/// What the relay has told of.
#[derive(Default)]
struct Told {
    outcomes: RefCell<Vec<(QueueId, String, Outcome)>>,
    reports: RefCell<Vec<(QueueId, QueueId)>>,
    /// Done when a report is told of.
    at_report: RefCell<Option<Box<dyn FnOnce()>>>,
    signal: Signal,
}

impl Events for Rc<Told> {
    fn outcome(&self, id: QueueId, envelope: &Envelope, outcome: &Outcome) {
        let address = envelope.recipients[usize::from(outcome.recipient)].clone();
        self.outcomes.borrow_mut().push((id, address, outcome.clone()));
        self.signal.raise();
    }

    fn reported(&self, report: QueueId, envelope: &Envelope, id: QueueId) {
        assert_eq!(envelope.sender, "");
        self.reports.borrow_mut().push((report, id));
        if let Some(act) = self.at_report.take() {
            act();
        }
    }
}

/// Shards on one executor: parcels arrive as soon as they are sent.
#[derive(Default)]
struct Net {
    relays: RefCell<Vec<Option<Relay<MemoryStore>>>>,
    accounts: RefCell<Option<Arc<Accounts>>>,
}

struct Port {
    net: Rc<Net>,
    me: u16,
    shards: u16,
}

impl Mesh for Port {
    fn shards(&self) -> u16 {
        self.shards
    }

    fn me(&self) -> ShardId {
        ShardId(self.me)
    }

    fn send(&self, to: ShardId, parcel: Parcel) {
        let net = Rc::clone(&self.net);
        spawn(async move {
            let relay = net.relays.borrow()[usize::from(to.0)].clone();
            relay.expect("shards start before mail").receive(parcel);
        })
        .detach();
    }
}

/// One shard under test.
struct Rig {
    relay: Relay<MemoryStore>,
    queue: Queue<MemoryStore>,
    store: MemoryStore,
    told: Rc<Told>,
    counters: SharedCounters,
    commits: Task<()>,
}

/// A configuration that relays everything to `hosts`.
fn config(hosts: &[SocketAddr]) -> Config {
    let next_hop = NextHop::Hosts(hosts.iter().map(|host| (*host).into()).collect());
    let route = Route::new("*".parse().unwrap(), next_hop);
    let mut config = Config { routes: vec![route], ..Config::default() };
    config.hostname = "relay.test".into();
    config.delivery.connections_per_site = 1;
    config
}

impl Rig {
    /// The only shard.
    async fn new(config: Config) -> Self {
        Rig::open(config, MemoryStore::new()).await
    }

    async fn open(config: Config, store: MemoryStore) -> Self {
        let net = Rc::new(Net::default());
        let rig = Rig::shard(config, vec![store], 0, Rc::clone(&net)).await;
        net.relays.borrow_mut().push(Some(rig.relay.clone()));
        rig.relay.start();
        rig
    }

    async fn shard(config: Config, stores: Vec<MemoryStore>, me: u16, net: Rc<Net>) -> Self {
        let store = stores[usize::from(me)].clone();
        let options =
            QueueOptions { log: ShardId(me), segment_size: 4 << 20, ..QueueOptions::default() };
        let (queue, _) = Queue::open(store.clone(), options, clock::wall()).await.unwrap();
        let commits = spawn(queue.clone().run_commits());
        let (told, counters) = (Rc::new(Told::default()), SharedCounters::default());
        let shards = stores.len() as u16;
        let accounts =
            Arc::clone(net.accounts.borrow_mut().get_or_insert_with(|| Accounts::new(shards)));
        let resolver = Resolver::new(DnsOptions::from(&config.dns));
        resolver.start();
        let relay = Relay::new(Parts {
            config: Arc::new(config),
            accounts,
            resolver,
            tick: Duration::from_millis(10),
            logs: vec![(ShardId(me), queue.clone())],
            stores: Box::new(move |log| stores[usize::from(log.0)].clone()),
            mesh: Box::new(Port { net, me, shards }),
            events: Box::new(Rc::clone(&told)),
            counters: counters.clone(),
        });
        Rig { relay, queue, store, told, counters, commits }
    }

    /// Accepts a message as `receive` would.
    async fn mail(&self, recipients: &[&str], text: &str) -> QueueId {
        self.envelope(envelope(recipients), text, true).await
    }

    async fn envelope(&self, envelope: Envelope, text: &str, in_memory: bool) -> QueueId {
        let trace = b"Received: here\r\n";
        let body = format!("{text}.\r\n");
        let parts: &[&[u8]] = &[body.as_bytes()];
        let (id, commit) =
            self.queue.append(&envelope, |_, out| out.extend_from_slice(trace), parts).unwrap();
        commit.await.unwrap();
        let size = (trace.len() + body.len()) as u64;
        let body = in_memory.then_some(body.as_bytes());
        let commit = self.queue.message(id).unwrap().at.commit;
        self.relay.accepted(id, envelope, (trace, body), commit, size);
        id
    }

    /// Waits until `count` outcomes were told of; all of them.
    async fn outcomes(&self, count: usize) -> Vec<(QueueId, String, Outcome)> {
        let wait = async {
            while self.told.outcomes.borrow().len() < count {
                self.told.signal.wait().await;
            }
        };
        within(Duration::from_secs(20), wait).await.expect("the outcomes are there in time");
        let outcomes = self.told.outcomes.borrow().clone();
        assert_eq!(outcomes.len(), count, "{outcomes:?}");
        outcomes
    }

    /// The one outcome of one recipient.
    async fn outcome(&self) -> Outcome {
        self.outcomes(1).await.remove(0).2
    }

    async fn drain(&self) {
        within(Duration::from_secs(20), self.relay.drain()).await.expect("a drain has an end");
        assert_eq!((self.relay.out(), self.relay.body_memory()), (0, 0));
    }
}

fn envelope(recipients: &[&str]) -> Envelope {
    Envelope {
        sender: "sender@example.com".into(),
        recipients: recipients.iter().map(|address| address.to_string()).collect(),
        arrival_ms: clock::wall().0,
        ..Envelope::default()
    }
}

/// Runs a test on an executor.
fn run<F: Future<Output = ()> + 'static>(test: impl FnOnce() -> F + Send + 'static) {
    run_pinned("relay", None, test).unwrap().join().unwrap();
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}
