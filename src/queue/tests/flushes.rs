//! Nothing is acknowledged without a flush: whatever the order in which senders
//! run and writes and flushes end, a commit resolves only when each byte of what
//! it is about lies in a write for which a flush, begun after that write had
//! completed, has itself completed.
//!
//! The disk keeps a journal of every write and flush with the times of their
//! beginnings and ends. What was written is known by its contents and by its
//! place, not by what the queue says of itself.

use std::collections::BTreeMap;
use std::io;

use futures_lite::future::yield_now;
use memchr::memmem;
use proptest::prelude::*;

use super::*;
use crate::base::Place;
use crate::io::memory::MemoryFile;
use crate::io::store::{OpenMode, Space, Store, StoreFile};
use crate::queue::QueueError;
use crate::queue::format::segment_name;

/// What every marker begins with. It does not come up by chance.
const MAGIC: [u8; 8] = *b"\x91mark\xa7\xc3\xe9";
const MARKER_LEN: usize = 16;

/// A marker: who wrote it, and which of its markers it is.
type Marker = (u32, u32);

fn marker((owner, at): Marker) -> [u8; MARKER_LEN] {
    let mut bytes = [0; MARKER_LEN];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&owner.to_le_bytes());
    bytes[12..].copy_from_slice(&at.to_le_bytes());
    bytes
}

/// A body of nothing but markers.
fn body(owner: u32, markers: u32) -> Vec<u8> {
    (0..markers).flat_map(|at| marker((owner, at))).collect()
}

/// The same, as an address may hold it.
fn word(owner: u32) -> String {
    format!("marker-{owner}-of-an-outcome")
}

/// A write or flush: its file, and when it began and ended.
struct Act {
    file: usize,
    /// Of the file; nothing for a flush.
    bytes: std::ops::Range<u64>,
    began: u64,
    /// Unless it failed or goes on.
    ended: Option<u64>,
}

/// What is to fail: the write or flush of this number.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    write: Option<usize>,
    sync: Option<usize>,
}

/// The journal of a disk, and how slow it is.
struct Journal {
    now: u64,
    files: BTreeMap<String, usize>,
    opened: usize,
    writes: Vec<Act>,
    syncs: Vec<Act>,
    /// The writes that hold a marker, or an outcome's word.
    marked: BTreeMap<Marker, Vec<usize>>,
    worded: BTreeMap<String, Vec<usize>>,
    faults: Faults,
    dice: u64,
    slowness: u64,
}

impl Journal {
    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 20) % bound.max(1)
    }

    /// Whether a flush that covers a write is over.
    fn is_durable(&self, write: &Act) -> bool {
        let Some(written) = write.ended else { return false };
        let covers =
            |sync: &Act| sync.file == write.file && sync.began > written && sync.ended.is_some();
        self.syncs.iter().any(covers)
    }

    fn demand(&self, mut writes: impl Iterator<Item = usize>, what: &str) {
        let durable = writes.any(|write| self.is_durable(&self.writes[write]));
        assert!(durable, "acknowledged at {}, and not durable: {what}", self.now);
    }

    /// A record at `place` that must be durable by now.
    fn demand_place(&self, place: Place) {
        let file = self.files[&segment_name(place.segment)];
        let at = u64::from(place.offset);
        let hits = |write: &Act| write.file == file && write.bytes.contains(&at);
        let writes = (0..self.writes.len()).filter(|&write| hits(&self.writes[write]));
        self.demand(writes, &format!("the record at {place:?}"));
    }

    fn demand_marker(&self, marker: Marker) {
        let writes = self.marked.get(&marker).into_iter().flatten().copied();
        self.demand(writes, &format!("part {} of message {}", marker.1, marker.0));
    }

    fn demand_word(&self, word: &str) {
        let writes = self.worded.get(word).into_iter().flatten().copied();
        self.demand(writes, word);
    }

    /// Finds what a write holds.
    fn look_into(&mut self, write: usize, bytes: &[u8]) {
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        for at in memmem::find_iter(bytes, &MAGIC) {
            self.marked.entry((number(at + 8), number(at + 12))).or_default().push(write);
        }
        for at in memmem::find_iter(bytes, b"marker-") {
            let len = memmem::find(&bytes[at..], b"-of-an-outcome").unwrap() + 14;
            let word = String::from_utf8(bytes[at..at + len].to_vec()).unwrap();
            self.worded.entry(word).or_default().push(write);
        }
    }
}

/// A disk in memory with a journal. Its operations take any time.
#[derive(Clone)]
struct Watched {
    inner: MemoryStore,
    journal: Rc<RefCell<Journal>>,
}

struct WatchedFile {
    inner: MemoryFile,
    file: usize,
    journal: Rc<RefCell<Journal>>,
}

impl Watched {
    fn new(seed: u64, slowness: u64, faults: Faults) -> Self {
        let (files, marked, worded) = Default::default();
        let (writes, syncs) = Default::default();
        let (now, opened, dice) = (0, 0, seed | 1);
        let journal =
            Journal { now, files, opened, writes, syncs, marked, worded, faults, dice, slowness };
        Watched { inner: MemoryStore::new(), journal: Rc::new(RefCell::new(journal)) }
    }
}

impl Store for Watched {
    type File = WatchedFile;

    async fn open(&self, name: &str, mode: OpenMode) -> io::Result<WatchedFile> {
        let inner = self.inner.open(name, mode).await?;
        let mut journal = self.journal.borrow_mut();
        if mode == OpenMode::CreateNew {
            let file = journal.opened;
            journal.opened += 1;
            journal.files.insert(name.to_owned(), file);
        }
        let file = journal.files[name];
        drop(journal);
        Ok(WatchedFile { inner, file, journal: Rc::clone(&self.journal) })
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to).await?;
        let mut journal = self.journal.borrow_mut();
        let file = journal.files.remove(from).unwrap();
        journal.files.insert(to.to_owned(), file);
        Ok(())
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name).await?;
        self.journal.borrow_mut().files.remove(name);
        Ok(())
    }

    async fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list().await
    }

    async fn sync_dir(&self) -> io::Result<()> {
        self.inner.sync_dir().await
    }

    fn space(&self) -> io::Result<Space> {
        self.inner.space()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

impl WatchedFile {
    async fn dawdle(&self) {
        let turns = {
            let mut journal = self.journal.borrow_mut();
            let slowness = journal.slowness;
            journal.below(slowness)
        };
        for _ in 0..turns {
            yield_now().await;
        }
    }
}

impl StoreFile for WatchedFile {
    type Buf = Vec<u8>;

    fn alloc(&self, len: usize) -> Vec<u8> {
        self.inner.alloc(len)
    }

    async fn write_at(&self, buf: Vec<u8>, len: usize, pos: u64) -> io::Result<()> {
        let (number, fails) = {
            let mut journal = self.journal.borrow_mut();
            let (number, began) = (journal.writes.len(), journal.tick());
            let bytes = pos..pos + len as u64;
            journal.writes.push(Act { file: self.file, bytes, began, ended: None });
            journal.look_into(number, &buf[..len]);
            (number, journal.faults.write == Some(number))
        };
        self.dawdle().await;
        let written = self.inner.write_at(buf, len, pos).await;
        self.dawdle().await;
        if fails {
            return Err(io::Error::other("the write fails"));
        }
        let mut journal = self.journal.borrow_mut();
        journal.writes[number].ended = written.is_ok().then(|| journal.tick());
        written
    }

    async fn read_at(&self, pos: u64, len: usize) -> io::Result<Vec<u8>> {
        self.inner.read_at(pos, len).await
    }

    async fn sync(&self) -> io::Result<()> {
        let (number, fails) = {
            let mut journal = self.journal.borrow_mut();
            let (number, began) = (journal.syncs.len(), journal.tick());
            journal.syncs.push(Act { file: self.file, bytes: 0..0, began, ended: None });
            (number, journal.faults.sync == Some(number))
        };
        self.dawdle().await;
        let synced = self.inner.sync().await;
        self.dawdle().await;
        if fails {
            return Err(io::Error::other("the flush fails"));
        }
        let mut journal = self.journal.borrow_mut();
        journal.syncs[number].ended = synced.is_ok().then(|| journal.tick());
        synced
    }

    async fn allocate(&self, len: u64) -> io::Result<()> {
        self.inner.allocate(len).await
    }

    async fn truncate(&self, len: u64) -> io::Result<()> {
        self.inner.truncate(len).await
    }

    async fn len(&self) -> io::Result<u64> {
        self.inner.len().await
    }

    async fn close(self) {
        self.inner.close().await;
    }
}

/// What senders were told.
#[derive(Default)]
struct Told {
    messages: u32,
    outcomes: u32,
}

/// Sends messages one after the other, of which the longest are streamed, and
/// has each delivered; holds each acknowledgement against the journal.
async fn send(
    store: Watched,
    queue: Queue<Watched>,
    owners: std::ops::Range<u32>,
    told: Rc<RefCell<Told>>,
) -> Result<(), QueueError> {
    for owner in owners {
        let below = |bound| store.journal.borrow_mut().below(bound);
        for _ in 0..below(30) {
            yield_now().await;
        }
        let is_long = below(6) == 0;
        let markers = 1 + below(if is_long { 2500 } else { 300 }) as u32;
        let body = body(owner, markers);
        queue.room().await?;
        let sent = envelope("s@example.com", 1);
        let (id, commit) = if is_long {
            let mut stream = queue.stream(&sent, |_, _| {})?;
            for part in body.chunks(200 * MARKER_LEN) {
                stream.push(part).await?;
            }
            (stream.id(), stream.finish()?)
        } else {
            queue.append(&sent, |_, _| {}, &[&body])?
        };
        commit.await?;
        let at = queue.message(id).expect("nobody settled it").at;
        let check = |check: &dyn Fn(&Journal)| check(&store.journal.borrow());
        check(&|journal| (0..markers).for_each(|at| journal.demand_marker((owner, at))));
        check(&|journal| journal.demand_place(at.first));
        if let Some(commit) = at.commit {
            check(&|journal| journal.demand_place(commit));
        }
        told.borrow_mut().messages += 1;
        let delivered = Outcome { host: word(owner), ..outcome(0, Disposition::Delivered, 1) };
        queue.record(id, &[delivered])?.await?;
        check(&|journal| journal.demand_word(&word(owner)));
        told.borrow_mut().outcomes += 1;
    }
    Ok(())
}

/// Lets `senders` send `each` messages, in an order that the dice tell. Returns
/// what they were told, and whether the log failed.
fn run(store: &Watched, senders: u32, each: u32, outcomes_wait: bool) -> (Told, bool) {
    let options = QueueOptions { outcomes_wait, ..options() };
    let opening = Queue::open(store.clone(), options, NOW);
    let Ok((queue, _)) = futures_lite::future::block_on(opening) else {
        return (Told::default(), true);
    };
    let told = Rc::new(RefCell::new(Told::default()));
    let mut jobs: Vec<Pin<Box<dyn Future<Output = ()>>>> =
        vec![Box::pin(queue.clone().run_commits())];
    for sender in 0..senders {
        let owners = sender * each..(sender + 1) * each;
        let sending = send(store.clone(), queue.clone(), owners, Rc::clone(&told));
        jobs.push(Box::pin(async { drop(sending.await) }));
    }
    let mut cx = Context::from_waker(Waker::noop());
    let mut rounds = 0;
    while jobs.len() > 1 {
        rounds += 1;
        assert!(rounds < 2_000_000, "it has an end");
        // The committer is one of many, and must get on.
        let dice = store.journal.borrow_mut().below(2 * jobs.len() as u64) as usize;
        let at = if dice < jobs.len() { dice } else { 0 };
        if jobs[at].as_mut().poll(&mut cx).is_ready() {
            assert!(at > 0 || queue.poisoned().is_some(), "it ends with the queue");
            drop(jobs.swap_remove(at));
            if at == 0 {
                // The others learn of it: any of them may stand first now.
                jobs.insert(0, Box::pin(std::future::pending()));
            }
        }
        if rounds % 50 == 0 {
            queue.nudge();
        }
    }
    let failed = queue.poisoned().is_some();
    drop(jobs);
    (Rc::into_inner(told).unwrap().into_inner(), failed)
}

fn faults() -> impl Strategy<Value = Faults> {
    prop_oneof![
        2 => Just(Faults::default()),
        1 => (0usize..60).prop_map(|write| Faults { write: Some(write), sync: None }),
        1 => (0usize..30).prop_map(|sync| Faults { write: None, sync: Some(sync) }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").map_or(48, |cases| cases.parse().unwrap()),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_acknowledged_was_flushed_after_it_was_written(
        seed in any::<u64>(),
        slowness in 1u64..60,
        senders in 1u32..40,
        each in 1u32..6,
        outcomes_wait in any::<bool>(),
        faults in faults(),
    ) {
        let store = Watched::new(seed, slowness, faults);
        let (told, failed) = run(&store, senders, each, outcomes_wait);
        let all = senders * each;
        prop_assert!(failed || (told.messages, told.outcomes) == (all, all));
        let is_whole = faults.write.is_none() && faults.sync.is_none();
        prop_assert!(!is_whole || !failed);
    }
}

#[test]
fn many_senders_share_flushes_and_each_has_its_own() {
    let store = Watched::new(7, 40, Faults::default());
    let (told, failed) = run(&store, 100, 5, true);
    assert!(!failed && (told.messages, told.outcomes) == (500, 500));
    let journal = store.journal.borrow();
    assert!(journal.syncs.len() < 250, "{} flushes for 500 messages", journal.syncs.len());
    assert!(journal.syncs.iter().all(|sync| sync.ended.is_some_and(|ended| ended > sync.began)));
}

#[test]
fn after_a_failed_flush_nothing_is_acknowledged() {
    let failing = |sync| Watched::new(11, 20, Faults { write: None, sync });
    let (all, _) = run(&failing(None), 20, 4, false);
    assert_eq!(all.messages, 80);
    let mut cut_short = 0;
    for sync in 0..20 {
        let store = failing(Some(sync));
        let (told, failed) = run(&store, 20, 4, false);
        assert!(failed, "flush {sync}");
        cut_short += u32::from(told.messages > 0 && told.messages < 80);
    }
    assert!(cut_short >= 3, "flushes of mail were among them: {cut_short}");
}
