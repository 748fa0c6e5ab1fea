//! What a queued message costs in memory, counted with everything that the queue
//! allocates: while mail is queued and after it has been found again at a start.

#[path = "support/counting.rs"]
mod counting;

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use ringpost::base::{Disposition, EnhancedCode, Envelope, Outcome, QueueId, Reply, UnixMillis};
use ringpost::io::memory::MemoryStore;
use ringpost::io::store::{OpenMode, Space, Store, StoreFile};
use ringpost::queue::{Queue, QueueOptions};

use counting::live;

/// A disk that takes everything and keeps nothing.
#[derive(Clone)]
struct Nothing;

struct NoFile(Cell<u64>);

type Done = std::io::Result<()>;

impl Store for Nothing {
    type File = NoFile;

    async fn open(&self, _: &str, _: OpenMode) -> std::io::Result<NoFile> {
        Ok(NoFile(Cell::new(0)))
    }

    async fn rename(&self, _: &str, _: &str) -> Done {
        Ok(())
    }

    async fn remove(&self, _: &str) -> Done {
        Ok(())
    }

    async fn list(&self) -> std::io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn sync_dir(&self) -> Done {
        Ok(())
    }

    fn space(&self) -> std::io::Result<Space> {
        Ok(Space { total: u64::MAX, available: u64::MAX })
    }

    fn describe(&self) -> String {
        "nowhere".into()
    }
}

impl StoreFile for NoFile {
    type Buf = Vec<u8>;

    fn alloc(&self, len: usize) -> Vec<u8> {
        vec![0; len]
    }

    async fn write_at(&self, _: Vec<u8>, _: usize, _: u64) -> Done {
        Ok(())
    }

    async fn read_at(&self, _: u64, len: usize) -> std::io::Result<Vec<u8>> {
        Ok(vec![0; len])
    }

    async fn sync(&self) -> Done {
        Ok(())
    }

    async fn allocate(&self, len: u64) -> Done {
        self.0.set(len);
        Ok(())
    }

    async fn truncate(&self, len: u64) -> Done {
        self.0.set(len);
        Ok(())
    }

    async fn len(&self) -> std::io::Result<u64> {
        Ok(self.0.get())
    }

    async fn close(self) {}
}

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn options(load: Load) -> QueueOptions {
    let segment_size = load.segment_size;
    QueueOptions { outcomes_wait: true, reserve: 0, segment_size, ..QueueOptions::default() }
}

fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls `future` to its end, and does something else in between.
fn run<T>(future: impl Future<Output = T>, mut between: impl FnMut()) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = poll(future.as_mut()) {
            return output;
        }
        between();
    }
}

/// The last outcome of a recipient that is to be tried again: in no order.
fn deferred(id: QueueId, recipient: u16) -> Outcome {
    let scattered = id.place.offset.wrapping_mul(2_654_435_761);
    Outcome {
        recipient,
        disposition: Disposition::Deferred,
        reply: Reply::new(451, EnhancedCode(4, 3, 0), "Temporary local problem"),
        host: "192.0.2.1:25".into(),
        at: NOW,
        attempts: 1,
        next_attempt: UnixMillis(NOW.0 + u64::from(scattered)),
        security: None,
    }
}

/// What is queued: messages for so many recipients, so many to a flush.
#[derive(Clone, Copy)]
struct Load {
    messages: u64,
    recipients: u16,
    together: u64,
    segment_size: u32,
}

/// Queues messages that wait for another attempt. Calls `see` after each flush,
/// and at the end when everything is durable and has settled down.
fn queue_up<S: Store>(store: S, load: Load, mut see: impl FnMut(&Queue<S>)) {
    let (queue, _) = run(Queue::open(store, options(load), NOW), || {}).expect("a log");
    let mut commits = Box::pin(queue.clone().run_commits());
    let mut turn = || assert!(poll(commits.as_mut()).is_pending());
    let envelope = Envelope {
        sender: "sender@example.com".into(),
        recipients: (0..load.recipients).map(|n| format!("recipient{n}@example.org")).collect(),
        arrival_ms: NOW.0,
        client: "192.0.2.7".into(),
        helo: "client.example.com".into(),
        ..Envelope::default()
    };
    let append = |_| queue.append(&envelope, |_, _| {}, &[&[b'x'; 200]]).expect("room");
    let mut sent = Vec::with_capacity(load.together as usize);
    for _ in 0..load.messages / load.together {
        sent.extend((0..load.together).map(append));
        let mut last = None;
        for (id, commit) in sent.drain(..) {
            let outcomes: Vec<Outcome> = (0..load.recipients).map(|n| deferred(id, n)).collect();
            drop(queue.record(id, &outcomes).expect("room"));
            last = Some(commit);
        }
        run(last.expect("one at least"), &mut turn).expect("durable");
        see(&queue);
    }
    queue.nudge();
    (0..200).for_each(|_| turn());
    assert_eq!(queue.live() as u64, load.messages);
    see(&queue);
    queue.close();
    run(commits, || {});
}

/// Bytes that a queue holds for each of its messages.
fn each_while_queueing(load: Load) -> f64 {
    let (before, mut held) = (live(), 0);
    queue_up(Nothing, load, |_| held = live() - before);
    held as f64 / load.messages as f64
}

/// Bytes that a queue holds for each message that it has found at its start.
fn each_after_a_start(load: Load) -> f64 {
    let store = MemoryStore::untracked();
    queue_up(store.clone(), load, |_| {});
    let (queue, report) =
        run(Queue::open(store.clone(), options(load), NOW), || {}).expect("a log");
    assert_eq!((report.messages, queue.live() as u64), (load.messages, load.messages));
    drop(report);
    // What the store holds stays when the queue goes.
    let with_it = live();
    drop(queue);
    (with_it - live()) as f64 / load.messages as f64
}

const MANY: Load = Load { messages: 200_000, recipients: 1, together: 100, segment_size: 64 << 20 };

#[test]
fn a_queued_message_costs_little_memory() {
    let each = each_while_queueing(MANY);
    println!("{each:.1} bytes a message while mail is queued");
    assert!((60.0..150.0).contains(&each), "{each}");
}

#[test]
fn a_message_found_at_a_start_costs_little_memory() {
    let each = each_after_a_start(MANY);
    println!("{each:.1} bytes a message after a start");
    assert!((60.0..150.0).contains(&each), "{each}");
}

#[test]
fn a_message_that_was_moved_costs_little_memory() {
    let store = MemoryStore::untracked();
    // One to a flush takes a block of its own, so that cleaning is worth it.
    let load = Load { messages: 60_000, together: 1, ..MANY };
    let (before, mut moved) = (live(), 0);
    queue_up(store.clone(), load, |queue| moved = queue.counters().messages_moved);
    assert!(live() > before && moved > load.messages / 2, "{moved}");
    let (queue, _) = run(Queue::open(store.clone(), options(load), NOW), || {}).expect("a log");
    assert_eq!(queue.live() as u64, load.messages);
    let with_it = live();
    drop(queue);
    let each = (with_it - live()) as f64 / load.messages as f64;
    println!("{each:.1} bytes a message, {moved} of {} moved", load.messages);
    assert!((60.0..150.0).contains(&each), "{each}");
}

#[test]
fn further_recipients_cost_their_share() {
    // What a segment says is kept for its checkpoint until it is complete, however
    // many messages there are: small segments, so that it does not count for much.
    let one = Load { messages: 10_000, segment_size: 4 << 20, ..MANY };
    let hundred = Load { recipients: 100, ..one };
    for each in [each_while_queueing, each_after_a_start] {
        let more = (each(hundred) - each(one)) / 99.0;
        println!("{more:.1} bytes a further recipient");
        assert!((20.0..40.0).contains(&more), "{more}");
    }
}
