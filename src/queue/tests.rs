//! Tests of the queue as a whole, over the store in memory.

mod adverse;
mod cleaning;
mod crash;
mod fixture;
mod flushes;
mod model;
mod prepare;
mod random;
mod running;
mod starting;
mod terms;

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::{Queue, QueueOptions, RecoveryReport};
use crate::base::{Disposition, EnhancedCode, Envelope, Outcome, QueueId, Reply, UnixMillis};
use crate::io::memory::MemoryStore;

/// When the tests open their queues.
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
/// The smallest segment, so that tests cross many.
const SMALL: u32 = super::options::SEGMENT_SIZE_MIN;

fn options() -> QueueOptions {
    QueueOptions { segment_size: SMALL, reserve: 0, ..QueueOptions::default() }
}

fn envelope(sender: &str, recipients: usize) -> Envelope {
    Envelope {
        sender: sender.to_owned(),
        recipients: (0..recipients).map(|n| format!("r{n}@example.org")).collect(),
        arrival_ms: NOW.0 - 5,
        client: "192.0.2.7".into(),
        helo: "client.example".into(),
        ..Envelope::default()
    }
}

fn outcome(recipient: u16, disposition: Disposition, attempts: u16) -> Outcome {
    Outcome {
        recipient,
        disposition,
        reply: Reply::new(450, EnhancedCode(4, 2, 0), format!("word {recipient}.{attempts}")),
        host: "192.0.2.1:25".into(),
        at: NOW,
        attempts,
        next_attempt: UnixMillis(NOW.0 + 1000 * u64::from(attempts)),
        security: None,
    }
}

/// Where a message lies that is one record and has not moved.
fn at_home(id: QueueId) -> crate::base::Location {
    crate::base::Location { first: id.place, commit: None }
}

type Job = Pin<Box<dyn Future<Output = ()>>>;

/// Runs a queue's committer and what a test does with the queue, on this
/// thread, until the test's part ends or nothing moves any more.
struct Bench {
    jobs: Rc<RefCell<Vec<Job>>>,
}

impl Bench {
    fn new() -> Self {
        Bench { jobs: Rc::default() }
    }

    fn spawn(&self, job: impl Future<Output = ()> + 'static) {
        self.jobs.borrow_mut().push(Box::pin(job));
    }

    /// Polls every job `rounds` times.
    fn turn(&self, rounds: usize) {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..rounds {
            let mut jobs = std::mem::take(&mut *self.jobs.borrow_mut());
            jobs.retain_mut(|job| job.as_mut().poll(&mut cx).is_pending());
            self.jobs.borrow_mut().extend(jobs);
        }
    }

    /// Runs `future` to its end; `None` if it has not come within many rounds.
    fn run<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = Box::pin(future);
        for _ in 0..20_000 {
            let mut cx = Context::from_waker(Waker::noop());
            if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return Some(output);
            }
            self.turn(1);
        }
        None
    }
}

fn open(store: &MemoryStore) -> (Queue<MemoryStore>, RecoveryReport) {
    open_with(store, options())
}

fn open_with(store: &MemoryStore, options: QueueOptions) -> (Queue<MemoryStore>, RecoveryReport) {
    futures_lite::future::block_on(Queue::open(store.clone(), options, NOW)).unwrap()
}

/// A queue with its committer running.
fn start(store: &MemoryStore) -> (Bench, Queue<MemoryStore>) {
    start_with(store, options())
}

fn start_with(store: &MemoryStore, options: QueueOptions) -> (Bench, Queue<MemoryStore>) {
    let bench = Bench::new();
    let (queue, _) = open_with(store, options);
    bench.spawn(queue.clone().run_commits());
    (bench, queue)
}

/// Appends a message and waits until it is durable.
fn put(bench: &Bench, queue: &Queue<MemoryStore>, sender: &str, n: usize, body: &[u8]) -> QueueId {
    let (id, commit) = queue.append(&envelope(sender, n), |_, _| {}, &[body]).unwrap();
    bench.run(commit).unwrap().unwrap();
    id
}

fn body_of(bench: &Bench, queue: &Queue<MemoryStore>, id: QueueId) -> Vec<u8> {
    let read = async {
        let mut reader = queue.body(id).await.unwrap();
        let mut body = Vec::new();
        while let Some(part) = reader.next().await.unwrap() {
            body.extend_from_slice(&part);
        }
        assert_eq!(body.len() as u64, reader.len());
        body
    };
    bench.run(read).unwrap()
}
