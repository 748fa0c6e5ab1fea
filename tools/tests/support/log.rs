//! Logs made by the queue itself, over the store in memory and on this thread,
//! then written to a directory for the tool to look at.

use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use ringpost::base::{
    Disposition, EnhancedCode, Envelope, Outcome, QueueId, Reply, ShardId, UnixMillis,
};
use ringpost::io::memory::MemoryStore;
use ringpost::io::store::Store;
use ringpost::queue::{Queue, QueueOptions};

/// The smallest segment, so that a little mail fills many.
pub const SEGMENT_SIZE: u32 = 64 * 1024;
/// When the queues are opened.
pub const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

/// A queue that runs, and what runs it.
pub struct Maker {
    store: MemoryStore,
    pub queue: Queue<MemoryStore>,
    commits: Pin<Box<dyn Future<Output = ()>>>,
}

pub fn envelope(sender: &str, recipients: usize) -> Envelope {
    Envelope {
        sender: sender.to_owned(),
        recipients: (0..recipients).map(|n| format!("r{n}@example.org")).collect(),
        arrival_ms: NOW.0,
        client: "192.0.2.7".into(),
        helo: "client.example".into(),
        ..Envelope::default()
    }
}

pub fn outcome(recipient: u16, disposition: Disposition) -> Outcome {
    Outcome {
        recipient,
        disposition,
        reply: Reply::new(450, EnhancedCode(4, 2, 0), format!("word {recipient}")),
        host: "192.0.2.1:25".into(),
        at: NOW,
        attempts: 1,
        next_attempt: UnixMillis(NOW.0 + 60_000),
        security: None,
    }
}

impl Maker {
    pub fn new(log: u16) -> Self {
        let store = MemoryStore::untracked();
        let options = QueueOptions {
            log: ShardId(log),
            segment_size: SEGMENT_SIZE,
            reserve: 0,
            spares_max: 1000,
            mail_allows_cleaning: false,
            ..QueueOptions::default()
        };
        let mut nothing: Pin<Box<dyn Future<Output = ()>>> = Box::pin(std::future::pending());
        let opened = drive(&mut nothing, Queue::open(store.clone(), options, NOW));
        let (queue, _) = opened.unwrap();
        let commits = Box::pin(queue.clone().run_commits());
        Maker { store, queue, commits }
    }

    /// Runs `future` and the queue until it has ended.
    pub fn run<T>(&mut self, future: impl Future<Output = T>) -> T {
        drive(&mut self.commits, future)
    }

    /// Lets the queue do what it has to do.
    pub fn settle(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..2000 {
            if self.commits.as_mut().poll(&mut cx).is_ready() {
                self.commits = Box::pin(std::future::pending());
            }
        }
    }

    /// Appends a message of several parts if it is long.
    pub fn put(&mut self, envelope: &Envelope, body: &[u8]) -> QueueId {
        let (id, commit) = self.queue.append(envelope, |_, _| {}, &[body]).unwrap();
        self.run(commit).unwrap();
        id
    }

    pub fn record(&mut self, id: QueueId, outcomes: &[Outcome]) {
        let commit = self.queue.record(id, outcomes).unwrap();
        self.run(commit).unwrap();
    }

    /// Appends a message that is deferred for all its recipients.
    pub fn put_deferred(&mut self, envelope: &Envelope, body: &[u8]) -> QueueId {
        let id = self.put(envelope, body);
        let all = 0..envelope.recipients.len() as u16;
        let outcomes: Vec<_> = all.map(|index| outcome(index, Disposition::Deferred)).collect();
        self.record(id, &outcomes);
        id
    }

    /// Appends mail that is delivered at once, as much as about `segments` take.
    pub fn fill(&mut self, segments: u32) {
        for _ in 0..segments * SEGMENT_SIZE / 7000 {
            let id = self.put(&envelope("filler@example.com", 1), &[b'x'; 6000]);
            self.record(id, &[outcome(0, Disposition::Delivered)]);
        }
        self.settle();
    }

    /// Lets the queue clean as much as it wants to.
    pub fn clean(&mut self) {
        for _ in 0..20 {
            self.queue.allow_cleaning(u64::MAX);
            self.settle();
        }
    }

    /// Names and contents of the files.
    pub fn files(&mut self) -> Vec<(String, Vec<u8>)> {
        let store = self.store.clone();
        let names = self.run(async { store.list().await.unwrap() });
        let contents = |name: String| {
            let bytes = self.store.contents(&name).unwrap();
            (name, bytes)
        };
        names.into_iter().map(contents).collect()
    }

    /// Closes the queue, and writes its files to a directory named as a log's is.
    pub fn finish(mut self, log: u16) -> Made {
        self.queue.close();
        self.settle();
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join(format!("log-{log:05}"));
        fs::create_dir(&dir).unwrap();
        for (name, bytes) in self.files() {
            fs::write(dir.join(name), bytes).unwrap();
        }
        Made { _root: root, dir }
    }
}

/// A log on disk.
pub struct Made {
    _root: tempfile::TempDir,
    pub dir: PathBuf,
}

impl Made {
    pub fn path(&self) -> &str {
        self.dir.to_str().unwrap()
    }

    pub fn file(&self, segment: u32, extension: &str) -> PathBuf {
        self.dir.join(format!("{segment:08x}.{extension}"))
    }

    /// Numbers of the files with this extension, ascending.
    pub fn numbers(&self, extension: &str) -> Vec<u32> {
        let names = fs::read_dir(&self.dir).unwrap().map(|entry| entry.unwrap().path());
        let named = names.filter(|path| path.extension().is_some_and(|e| e == extension));
        let number = |path: PathBuf| {
            u32::from_str_radix(path.file_stem().unwrap().to_str().unwrap(), 16).unwrap()
        };
        let mut numbers: Vec<u32> = named.map(number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Changes the bytes of a file.
    pub fn alter(&self, segment: u32, extension: &str, how: impl FnOnce(&mut Vec<u8>)) {
        let path = self.file(segment, extension);
        let mut bytes = fs::read(&path).unwrap();
        how(&mut bytes);
        fs::write(path, bytes).unwrap();
    }
}

fn drive<T>(commits: &mut Pin<Box<dyn Future<Output = ()>>>, future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..100_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        assert!(commits.as_mut().poll(&mut cx).is_pending(), "the queue has ended");
    }
    panic!("the queue makes no progress");
}
