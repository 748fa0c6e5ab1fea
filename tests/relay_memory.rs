//! What a recipient costs in memory while its mail cannot be delivered, counted
//! with everything that the queue and the relay of a shard allocate: a million
//! to one domain that is down, and as many to as many domains.
//!
//! `RINGPOST_SCALE` is the number of messages; by default there are fewer, so that
//! a build without optimisation takes seconds. The whole:
//! `RINGPOST_SCALE=1000000 cargo test --release --test relay_memory -- --nocapture`

#[path = "support/counting.rs"]
mod counting;
#[path = "support/dns.rs"]
#[allow(dead_code)]
mod dns;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringpost::base::counters::SharedCounters;
use ringpost::base::{Envelope, Outcome, QueueId, ShardId};
use ringpost::config::{Config, NextHop, Route};
use ringpost::io::clock;
use ringpost::io::dns::{DnsOptions, Resolver};
use ringpost::io::executor::{pause, run_pinned, spawn};
use ringpost::io::memory::MemoryStore;
use ringpost::queue::{Queue, QueueOptions};
use ringpost::relay::{Accounts, Events, Mesh, Parcel, Parts, Relay};

use counting::live;
use dns::{Answer, DnsServer, Question, RecordType};

/// What a recipient may cost: of the index, and of the schedule.
const INDEX_MAX: f64 = 150.0;
const SCHEDULE_MAX: f64 = 64.0;
/// What a shard keeps for its speed, however many recipients there are: what is
/// known of domains, and the sites that failed a short time ago.
const CACHES_MAX: f64 = 96e6;
/// With so many recipients that is a part of their share.
const MANY: usize = 1_000_000;
/// Messages at a time.
const BATCH: usize = 500;

/// How many messages there are.
fn scale(small: usize) -> usize {
    let given = std::env::var("RINGPOST_SCALE").ok();
    given.map_or(small, |text| text.parse().expect("RINGPOST_SCALE is a number"))
}

/// The only shard.
struct Alone;

impl Mesh for Alone {
    fn shards(&self) -> u16 {
        1
    }

    fn me(&self) -> ShardId {
        ShardId(0)
    }

    fn send(&self, _: ShardId, _: Parcel) {
        unreachable!("there is no other shard");
    }
}

struct Nobody;

impl Events for Nobody {
    fn outcome(&self, _: QueueId, _: &Envelope, _: &Outcome) {}

    fn reported(&self, _: QueueId, _: &Envelope, _: QueueId) {}
}

struct Shard {
    relay: Relay<MemoryStore>,
    queue: Queue<MemoryStore>,
    store: MemoryStore,
    counters: SharedCounters,
}

impl Shard {
    async fn start(mut config: Config) -> Self {
        // One attempt, and then a long wait.
        config.queue.retry = vec![Duration::from_secs(4 * 3600)];
        config.delivery.allow_private_targets = true;
        let (store, counters) = (MemoryStore::untracked(), SharedCounters::default());
        let options = QueueOptions { reserve: 0, ..QueueOptions::default() };
        let (queue, _) = Queue::open(store.clone(), options, clock::wall()).await.expect("a log");
        spawn(queue.clone().run_commits()).detach();
        let resolver = Resolver::new(DnsOptions::from(&config.dns));
        resolver.start();
        let stores = store.clone();
        let relay = Relay::new(Parts {
            config: Arc::new(config),
            logs: vec![(ShardId(0), queue.clone())],
            stores: Box::new(move |_| stores.clone()),
            mesh: Box::new(Alone),
            accounts: Accounts::new(1),
            resolver,
            tick: Duration::from_millis(50),
            events: Box::new(Nobody),
            counters: Rc::clone(&counters),
        });
        relay.start();
        Shard { relay, queue, store, counters }
    }

    /// Bytes allocated but for the disk's.
    fn held(&self) -> i64 {
        live() - self.store.used() as i64
    }

    /// Takes one message for each of these, as `receive` does.
    async fn accept(&self, recipients: impl Iterator<Item = String>) {
        let body: &[u8] = b"Subject: x\r\n\r\nhello\r\n.\r\n";
        let (mut taken, mut last) = (Vec::with_capacity(BATCH), None);
        for recipient in recipients {
            let envelope = Envelope {
                sender: "sender@example.com".into(),
                recipients: vec![recipient],
                arrival_ms: clock::wall().0,
                client: "192.0.2.7".into(),
                helo: "client.example.com".into(),
                ..Envelope::default()
            };
            let (id, commit) = self.queue.append(&envelope, |_, _| {}, &[body]).expect("room");
            taken.push((id, envelope));
            last = Some(commit);
        }
        last.expect("one at least").await.expect("durable");
        for (id, envelope) in taken {
            self.relay.accepted(id, envelope, (b"", Some(body)), None, body.len() as u64);
        }
    }

    /// Takes `count` messages, number `n` for `recipient(n)`, with few at a time
    /// under way, and waits until all have been tried or wait for their site.
    /// Bytes that are held then for each; the most there were for each.
    async fn take(&self, count: usize, recipient: impl Fn(usize) -> String) -> (f64, f64) {
        let (before, mut most) = (self.held(), 0);
        for first in (0..count).step_by(BATCH) {
            self.accept((first..(first + BATCH).min(count)).map(&recipient)).await;
            while self.relay.out() > 2 * BATCH {
                pause().await;
            }
            most = most.max(self.held() - before);
        }
        let is_idle = || {
            let counters = self.counters.borrow();
            (counters.recipients_deferred + counters.parked) as usize >= count
                && self.relay.out() == 0
        };
        while !is_idle() {
            pause().await;
        }
        let each = |bytes: i64| bytes as f64 / count as f64;
        (each(self.held() - before), each(most))
    }
}

/// What `count` recipients may cost, each.
fn allowed(count: usize) -> f64 {
    let caches = if count >= MANY { 0.0 } else { CACHES_MAX / count as f64 };
    INDEX_MAX + SCHEDULE_MAX + caches
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    listener.local_addr().expect("an address")
}

fn run<F: Future<Output = ()> + 'static>(test: impl FnOnce() -> F + Send + 'static) {
    run_pinned("relay", None, test).expect("an executor").join().expect("it passed");
}

#[test]
fn many_recipients_of_one_domain_that_is_down_cost_little() {
    run(|| async {
        let next_hop = NextHop::Hosts(vec![nobody().into()]);
        let route = Route::new("*".parse().unwrap(), next_hop);
        let shard = Shard::start(Config { routes: vec![route], ..Config::default() }).await;
        let count = scale(100_000);
        let (held, most) = shard.take(count, |n| format!("r{n}@x.org")).await;
        println!("{count} for one domain: {held:.1} bytes each, {most:.1} at most");
        assert!(held > 50.0 && most <= INDEX_MAX + SCHEDULE_MAX, "{held} {most}");
        assert_eq!(shard.relay.fullest_sites(usize::MAX).0.len(), 1);
        assert!(shard.relay.fullest_sites(usize::MAX).0[0].waiting as usize > count - 100);
    });
}

#[test]
fn as_many_domains_that_are_down_cost_no_more() {
    run(|| async {
        let mut config = Config { routes: Vec::new(), ..Config::default() };
        config.delivery.port = nobody().port();
        let shard = Shard::start(config).await;
        let count = scale(40_000);
        // Domain literals, each a site of its own.
        let literal = |n: usize| {
            let [_, a, b, c] = (n as u32 + 1).to_be_bytes();
            format!("r@[127.{a}.{b}.{c}]")
        };
        let (held, most) = shard.take(count, literal).await;
        let sites = shard.relay.fullest_sites(usize::MAX).0.len();
        println!(
            "{count} for as many domains: {held:.1} bytes each, {most:.1} at most, {sites} sites"
        );
        assert!(held > 50.0 && most <= allowed(count), "{held} {most}");
        assert!(sites <= 20_000, "{sites}");
        let failed = shard.counters.borrow().outbound_connect_failures as usize;
        assert!(failed >= count, "each was tried: {failed}");
    });
}

#[test]
fn domains_that_dns_knows_cost_no_more_than_their_caches() {
    run(|| async {
        // Every name has one host of its own, which is down.
        let dns = DnsServer::with(|question: &Question| match question.kind {
            RecordType::MX => Some(Answer::mx(&[(10, &format!("mx.{}", question.name))])),
            RecordType::A => Some(Answer::addresses(&["127.0.0.1"])),
            _ => Some(Answer::no_data()),
        });
        let mut config = Config { routes: Vec::new(), ..Config::default() };
        config.delivery.port = nobody().port();
        config.dns.servers = vec![dns.address];
        let shard = Shard::start(config).await;
        let count = scale(100_000) / 20;
        let (held, most) = shard.take(count, |n| format!("r@d{n}.test")).await;
        let sites = shard.relay.fullest_sites(usize::MAX).0.len();
        println!(
            "{count} for as many names: {held:.1} bytes each, {most:.1} at most, {sites} sites"
        );
        assert!(held > 50.0 && most <= allowed(count), "{held} {most}");
        assert!(sites <= 20_000, "{sites}");
        let failed = shard.counters.borrow().outbound_connect_failures as usize;
        assert!(failed >= count, "each was tried: {failed}");
    });
}
