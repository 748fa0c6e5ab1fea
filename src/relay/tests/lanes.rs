//! Sites with a lane on each core, on real threads: their limits hold for all
//! together, and no core's mail waits for another's. And when a site gets lanes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::Instant;

use async_channel::{Receiver, Sender};

use super::peer::{Stage, takes_all};
use super::*;
use crate::config::{DomainPattern, Per, Rate, SiteTable};
use crate::io::clock::moved;
use crate::io::dns::server::DnsServer;

const TEXT: &str = "Subject: x\r\n\r\nhello\r\n";
const SHARDS: u16 = 3;
/// Messages that each shard has under way all the time.
const BUSY: usize = 40;

/// What the threads of a test share.
struct Shared {
    config: Config,
    accounts: Arc<Accounts>,
    to: Vec<Sender<Parcel>>,
    /// Delivered messages of each shard.
    delivered: Vec<AtomicUsize>,
    begun: Barrier,
    /// Shards that have drained: they pass parcels on until all have.
    drained: AtomicUsize,
}

impl Shared {
    fn least(&self) -> usize {
        self.delivered.iter().map(|count| count.load(Ordering::SeqCst)).min().unwrap()
    }
}

struct Wire {
    shared: Arc<Shared>,
    me: u16,
}

impl Mesh for Wire {
    fn shards(&self) -> u16 {
        SHARDS
    }

    fn me(&self) -> ShardId {
        ShardId(self.me)
    }

    fn send(&self, to: ShardId, parcel: Parcel) {
        let _ = self.shared.to[usize::from(to.0)].try_send(parcel);
    }
}

struct Tally(Arc<Shared>, u16);

impl Events for Tally {
    fn outcome(&self, _: QueueId, _: &Envelope, outcome: &Outcome) {
        assert_eq!(outcome.disposition, Disposition::Delivered, "{outcome:?}");
        self.0.delivered[usize::from(self.1)].fetch_add(1, Ordering::SeqCst);
    }

    fn reported(&self, report: QueueId, _: &Envelope, id: QueueId) {
        panic!("{report} reports on {id}");
    }
}

/// One shard: keeps its lane busy until every shard has had `each` messages
/// delivered. Its counters.
async fn shard(
    shared: Arc<Shared>,
    me: u16,
    parcels: Receiver<Parcel>,
    laned: bool,
    each: usize,
) -> crate::base::counters::Counters {
    let options =
        QueueOptions { log: ShardId(me), segment_size: 4 << 20, ..QueueOptions::default() };
    let store = MemoryStore::untracked();
    let (queue, _) = Queue::open(store, options, clock::wall()).await.unwrap();
    let commits = spawn(queue.clone().run_commits());
    let counters = SharedCounters::default();
    let relay = Relay::new(Parts {
        config: Arc::new(shared.config.clone()),
        accounts: Arc::clone(&shared.accounts),
        resolver: Resolver::new(DnsOptions::from(&shared.config.dns)),
        tick: Duration::from_millis(10),
        logs: vec![(ShardId(me), queue.clone())],
        stores: Box::new(|_| panic!("bodies travel with their handles")),
        mesh: Box::new(Wire { shared: Arc::clone(&shared), me }),
        events: Box::new(Tally(Arc::clone(&shared), me)),
        counters: counters.clone(),
    });
    relay.start();
    let taker = relay.clone();
    let parcels = spawn(async move {
        while let Ok(parcel) = parcels.recv().await {
            taker.receive(parcel);
        }
    });
    let station = {
        let settings = relay.0.settings();
        let crate::policy::route::Destination::Site(site) = settings.routes.address("r@x.org")
        else {
            panic!("no site")
        };
        relay.0.stations.borrow_mut().of(site)
    };
    station.account.set_laned(laned);
    shared.begun.wait();
    let mut sent = 0;
    while shared.least() < each {
        let open = sent - shared.delivered[usize::from(me)].load(Ordering::SeqCst);
        if open >= BUSY {
            sleep(Duration::from_micros(200)).await;
            continue;
        }
        let envelope = envelope(&[&format!("r{sent}@s{me}.org")]);
        let body = format!("{TEXT}.\r\n");
        let (id, commit) = queue.append(&envelope, |_, _| {}, &[body.as_bytes()]).unwrap();
        sent += 1;
        commit.await.unwrap();
        relay.accepted(id, envelope, (b"", Some(body.as_bytes())), None, body.len() as u64);
    }
    relay.drain().await;
    shared.drained.fetch_add(1, Ordering::SeqCst);
    while shared.drained.load(Ordering::SeqCst) < usize::from(SHARDS) {
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!((relay.out(), relay.body_memory()), (0, 0));
    let delivered = shared.delivered[usize::from(me)].load(Ordering::SeqCst);
    assert_eq!(queue.live() + delivered, sent, "each is delivered or queued");
    parcels.cancel().await;
    queue.close();
    commits.await;
    counters.take()
}

/// What a peer saw.
struct Seen {
    /// The most connections at a time.
    connections: usize,
    /// When each transaction began.
    begun: Vec<Instant>,
}

/// All shards on threads of their own with one peer, which takes everything. The
/// shards' counters, and what the peer saw.
fn all_busy(
    change: impl Fn(&mut Config),
    laned: bool,
    each: usize,
) -> (Vec<crate::base::counters::Counters>, Seen) {
    let (tell, address) = std::sync::mpsc::channel();
    let (stop, stopped) = async_channel::bounded::<()>(1);
    let begun: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let times = Arc::clone(&begun);
    let peer = run_pinned("peer", None, move || async move {
        let mood = move |stage, argument: &str| {
            if stage == Stage::Mail {
                times.lock().unwrap().push(Instant::now());
            }
            takes_all(stage, argument)
        };
        let sink = Sink::with("127.0.0.1:0".parse().unwrap(), Rc::new(mood));
        tell.send(sink.address).unwrap();
        let _ = stopped.recv().await;
        sink.most.get()
    })
    .unwrap();
    let mut config = config(&[address.recv().unwrap()]);
    change(&mut config);
    let (to, from): (Vec<_>, Vec<_>) = (0..SHARDS).map(|_| async_channel::unbounded()).unzip();
    let shared = Arc::new(Shared {
        config,
        accounts: Accounts::new(SHARDS),
        to,
        delivered: (0..SHARDS).map(|_| AtomicUsize::new(0)).collect(),
        begun: Barrier::new(usize::from(SHARDS)),
        drained: AtomicUsize::new(0),
    });
    let threads: Vec<_> = from
        .into_iter()
        .zip(0..)
        .map(|(parcels, me)| {
            let shared = Arc::clone(&shared);
            run_pinned("shard", None, move || shard(shared, me, parcels, laned, each)).unwrap()
        })
        .collect();
    let counters = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    drop(stop);
    let connections = peer.join().unwrap();
    let begun = begun.lock().unwrap().clone();
    // While the shard that gets least has had its part, others do not get many
    // times that.
    let fair = 4 * usize::from(SHARDS) * each;
    assert!(begun.len() <= fair, "{} for {each} each", begun.len());
    (counters, Seen { connections, begun })
}

fn sum(
    counters: &[crate::base::counters::Counters],
    field: fn(&crate::base::counters::Counters) -> u64,
) -> u64 {
    counters.iter().map(field).sum()
}

#[test]
fn lanes_share_fewer_connections_than_there_are_of_them() {
    for limit in [1, 2] {
        let change = |config: &mut Config| config.delivery.connections_per_site = limit;
        let (counters, seen) = all_busy(change, true, 300);
        assert!((1..=limit as usize).contains(&seen.connections), "{}", seen.connections);
        assert_eq!(sum(&counters, |c| c.handed_off + c.hand_off_batches), 0, "nothing crosses");
        assert!(counters.iter().all(|c| c.outbound_connections > 0), "each lane had its turn");
    }
}

#[test]
fn lanes_share_as_many_connections_and_more() {
    for limit in [3, 7] {
        let change = |config: &mut Config| config.delivery.connections_per_site = limit;
        let (counters, seen) = all_busy(change, true, 500);
        assert!((3..=limit as usize).contains(&seen.connections), "{}", seen.connections);
        assert_eq!(sum(&counters, |c| c.handed_off + c.hand_off_batches), 0, "nothing crosses");
        assert!(counters.iter().all(|c| c.outbound_connections > 0), "each lane has its own");
    }
}

#[test]
fn connections_that_end_after_few_messages_are_counted_as_well() {
    let change = |config: &mut Config| {
        config.delivery.connections_per_site = 4;
        config.delivery.messages_per_connection = 3;
    };
    let (_, seen) = all_busy(change, true, 200);
    assert!((3..=4).contains(&seen.connections), "{}", seen.connections);
}

#[test]
fn a_site_without_lanes_is_sent_to_by_its_owner_in_batches() {
    let change = |config: &mut Config| config.delivery.connections_per_site = 2;
    let (counters, seen) = all_busy(change, false, 300);
    assert!((1..=2).contains(&seen.connections), "{}", seen.connections);
    let opened = counters.iter().filter(|c| c.outbound_connections > 0).count();
    assert_eq!(opened, 1, "one shard has all the connections");
    let delivered = sum(&counters, |c| c.recipients_delivered);
    let crossed = sum(&counters, |c| c.handed_off);
    assert!(crossed > 0 && crossed < delivered + 3 * BUSY as u64, "{crossed} of {delivered}");
}

#[test]
fn lanes_together_keep_to_the_message_rate() {
    let rate = Rate { count: 400, per: Per::Second };
    let before = Instant::now();
    let change = |config: &mut Config| {
        config.delivery.connections_per_site = 6;
        let domains: Vec<DomainPattern> = vec!["*".parse().unwrap()];
        let table = SiteTable { domains, message_rate: Some(Some(rate)), ..SiteTable::default() };
        config.sites = vec![table];
    };
    let (counters, seen) = all_busy(change, true, 150);
    assert!(seen.begun.len() >= 3 * 150 && seen.connections <= 6);
    assert_eq!(sum(&counters, |c| c.handed_off), 0);
    // None comes before its time: that it comes late proves nothing and cannot
    // be helped.
    for (count, at) in seen.begun.iter().enumerate() {
        let passed = at.duration_since(before).as_secs_f64();
        let most = f64::from(rate.burst()) + rate.per_second() * passed;
        assert!(count as f64 + 1.0 <= most + 1e-6, "{count} after {passed} s");
    }
}

#[test]
fn handles_for_another_shard_travel_together() {
    run(|| async {
        let peer = Sink::at("127.0.0.1:0".parse().unwrap());
        let rigs = super::shards::shards(2, peer.address).await;
        // The limit is one connection: there is one lane.
        for rig in &rigs {
            rig.mail_all((0..500).map(|n| format!("r{n}@x.org"))).await;
        }
        for rig in &rigs {
            rig.outcomes(500).await;
        }
        let crossed: Vec<_> = rigs.iter().map(|rig| rig.counters.borrow().handed_off).collect();
        assert_eq!(crossed.iter().sum::<u64>(), 500, "one of the two is the owner");
        let sender = rigs.iter().find(|rig| rig.counters.borrow().handed_off > 0).unwrap();
        let batches = sender.counters.borrow().hand_off_batches;
        assert!(batches <= 2, "{batches} batches");
        for rig in &rigs {
            rig.drain().await;
        }
    });
}

#[test]
fn a_site_of_much_traffic_gets_lanes_and_is_made_whole_again() {
    run(|| async {
        let dns = DnsServer::start();
        dns.set_mx("x.org", &[(10, "mx.test")]);
        dns.set_addresses("mx.test", &["127.0.0.1"]);
        let peer = Sink::at("127.0.0.1:0".parse().unwrap());
        let mut config = super::sites::by_mx(&dns, peer.address.port());
        config.delivery.connections_per_site = 4;
        let stores: Vec<_> = (0..SHARDS).map(|_| MemoryStore::new()).collect();
        let net = Rc::new(Net::default());
        let mut rigs = Vec::new();
        for me in 0..SHARDS {
            let rig = Rig::shard(config.clone(), stores.clone(), me, Rc::clone(&net)).await;
            net.relays.borrow_mut().push(Some(rig.relay.clone()));
            rigs.push(rig);
        }
        rigs.iter().for_each(|rig| rig.relay.start());
        let lanes = || {
            let states = rigs.iter().flat_map(|rig| rig.relay.sites());
            states.map(|site| site.lanes).max().unwrap_or(1)
        };
        let mut sent = 0;
        while lanes() == 1 {
            for rig in &rigs {
                rig.mail_all((0..200).map(|n| format!("r{n}@x.org"))).await;
            }
            sent += 200;
            for rig in &rigs {
                rig.outcomes(sent).await;
            }
            assert!(sent < 50_000, "it gets lanes in the end");
        }
        let crossed = || rigs.iter().map(|rig| rig.counters.borrow().handed_off).sum::<u64>();
        let before = crossed();
        assert!(before > 0);
        for rig in &rigs {
            rig.mail_all((0..200).map(|n| format!("r{n}@x.org"))).await;
        }
        sent += 200;
        for rig in &rigs {
            rig.outcomes(sent).await;
        }
        assert_eq!((crossed(), lanes()), (before, SHARDS), "mail leaves where it came in");
        // A trickle of mail is no reason for lanes.
        let calm = async {
            while lanes() > 1 {
                moved::pass(Duration::from_secs(1));
                rigs[0].mail(&["a@x.org"], TEXT).await;
                rigs[1].mail(&["a@x.org"], TEXT).await;
                sleep(Duration::from_millis(20)).await;
            }
        };
        within(Duration::from_secs(20), calm).await.expect("it is made whole again");
        for rig in &rigs {
            rig.mail(&["last@x.org"], TEXT).await;
        }
        let all = async {
            while rigs.iter().any(|rig| rig.queue.live() > 0) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        within(Duration::from_secs(20), all).await.expect("all is delivered");
        assert!(crossed() > before, "there is one lane again");
        assert!(peer.most.get() <= 4, "{}", peer.most.get());
        for rig in &rigs {
            rig.drain().await;
        }
    });
}
