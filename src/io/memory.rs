//! [`Store`] in memory, for tests and benches. It keeps apart what has been
//! made durable and what has not, so that a test can stop the world at any
//! operation and look at what a power loss would have left: everything unsynced
//! lost, all of it kept, writes torn at sectors, or any part of them.
//!
//! It runs on any executor: an operation yields once before it takes effect, as
//! one on a disk would.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use futures_lite::future;

use super::store::{BLOCK, OpenMode, Space, Store, StoreFile};

/// Writes are atomic in units of this when they are torn.
const SECTOR: usize = 512;

/// What a power loss does to what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPolicy {
    /// All of it is gone.
    Lose,
    /// All of it is there, as after the end of a process.
    Keep,
    /// Writes up to some point, the last one in part, sector by sector.
    Torn {
        /// Decides which.
        seed: u64,
    },
    /// Any of the writes, in any order.
    Subset {
        /// Decides which.
        seed: u64,
    },
}

/// An operation that changes the disk, as fault injection counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// [`StoreFile::write_at`].
    Write,
    /// [`StoreFile::sync`].
    Sync,
    /// [`Store::sync_dir`].
    SyncDir,
    /// Creating, renaming or removing a name.
    Name,
    /// [`StoreFile::allocate`] and [`StoreFile::truncate`].
    Resize,
}

#[derive(Clone)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Resize(usize),
}

impl Change {
    fn apply(&self, data: &mut Vec<u8>) {
        match self {
            Change::Write { at, bytes } => {
                if data.len() < at + bytes.len() {
                    data.resize(at + bytes.len(), 0);
                }
                data[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Change::Resize(len) => data.resize(*len, 0),
        }
    }
}

#[derive(Clone, Default)]
struct Contents {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// What leads from `durable` to `now`.
    unsynced: Vec<Change>,
}

#[derive(Clone, Default)]
struct Names {
    now: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    /// The states of `now` since `durable`, the last one excepted.
    unsynced: Vec<BTreeMap<String, usize>>,
}

#[derive(Default)]
struct Disk {
    files: Vec<Contents>,
    names: Names,
    /// False: no crash images, nothing kept twice.
    tracked: bool,
    capacity: u64,
    operations: Vec<Operation>,
    /// From this operation on, everything fails.
    stop_at: Option<usize>,
    /// The operation of this number fails, once.
    fail_at: Option<usize>,
    /// A file and the bytes of it that cannot be read.
    unreadable: Option<(usize, std::ops::Range<usize>)>,
    hold_syncs: bool,
    held: Vec<std::task::Waker>,
    syncs_held: usize,
}

impl Disk {
    fn used(&self) -> u64 {
        self.names.now.values().map(|&file| self.files[file].now.len() as u64).sum()
    }

    fn begin(&mut self, operation: Operation) -> io::Result<()> {
        let number = self.operations.len();
        if self.stop_at.is_some_and(|stop| number >= stop) {
            return Err(io::Error::other("power lost"));
        }
        if self.tracked {
            self.operations.push(operation);
        }
        if self.fail_at == Some(number) {
            self.fail_at = None;
            return Err(io::Error::other("injected failure"));
        }
        Ok(())
    }

    fn change(&mut self, file: usize, change: Change) {
        let contents = &mut self.files[file];
        change.apply(&mut contents.now);
        if self.tracked {
            contents.unsynced.push(change);
        }
    }

    fn rename(&mut self, change: impl FnOnce(&mut BTreeMap<String, usize>)) {
        if self.tracked {
            let before = self.names.now.clone();
            self.names.unsynced.push(before);
        }
        change(&mut self.names.now);
    }
}

/// A directory in memory. Clones share it.
#[derive(Clone)]
pub struct MemoryStore(Rc<RefCell<Disk>>);

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore::new()
    }
}

impl MemoryStore {
    /// An empty directory that keeps crash images.
    pub fn new() -> Self {
        Self::with(Disk { tracked: true, ..Disk::default() })
    }

    /// An empty directory without crash images, for benches.
    pub fn untracked() -> Self {
        Self::with(Disk::default())
    }

    fn with(disk: Disk) -> Self {
        let capacity = if disk.capacity == 0 { 1 << 40 } else { disk.capacity };
        MemoryStore(Rc::new(RefCell::new(Disk { capacity, ..disk })))
    }

    /// Makes the filesystem this large.
    pub fn set_capacity(&self, bytes: u64) {
        self.0.borrow_mut().capacity = bytes;
    }

    /// Bytes that the files take.
    pub fn used(&self) -> u64 {
        self.0.borrow().used()
    }

    /// The operations so far, in order.
    pub fn operations(&self) -> Vec<Operation> {
        self.0.borrow().operations.clone()
    }

    /// Loses power at operation number `at`: it and all later ones fail.
    pub fn stop_at(&self, at: usize) {
        self.0.borrow_mut().stop_at = Some(at);
    }

    /// Makes operation number `at` fail, once.
    pub fn fail_at(&self, at: usize) {
        self.0.borrow_mut().fail_at = Some(at);
    }

    /// Makes reads of these bytes of a file fail as on a worn disk (EIO).
    ///
    /// # Panics
    /// If there is no such file.
    pub fn spoil(&self, name: &str, bytes: std::ops::Range<usize>) {
        let mut disk = self.0.borrow_mut();
        let file = disk.names.now[name];
        disk.unreadable = Some((file, bytes));
    }

    /// Makes syncs wait until they are let go.
    pub fn hold_syncs(&self, hold: bool) {
        let held = {
            let mut disk = self.0.borrow_mut();
            disk.hold_syncs = hold;
            std::mem::take(&mut disk.held)
        };
        held.into_iter().for_each(std::task::Waker::wake);
    }

    /// Syncs that wait.
    pub fn syncs_held(&self) -> usize {
        self.0.borrow().syncs_held
    }

    /// What a power loss now would leave, on a disk of its own.
    pub fn crash_image(&self, policy: CrashPolicy) -> MemoryStore {
        let disk = self.0.borrow();
        assert!(disk.tracked, "this store keeps no crash images");
        let mut dice = Dice(match policy {
            CrashPolicy::Torn { seed } | CrashPolicy::Subset { seed } => seed,
            CrashPolicy::Lose | CrashPolicy::Keep => 0,
        });
        let names = match policy {
            CrashPolicy::Lose => disk.names.durable.clone(),
            CrashPolicy::Keep => disk.names.now.clone(),
            CrashPolicy::Torn { .. } | CrashPolicy::Subset { .. } => {
                let mut states: Vec<_> = disk.names.unsynced.iter().collect();
                states.push(&disk.names.now);
                states.insert(0, &disk.names.durable);
                states[dice.below(states.len())].clone()
            }
        };
        let survive = |contents: &Contents| {
            let mut contents = contents.clone();
            surviving(&mut contents, policy, &mut dice);
            contents.unsynced.clear();
            contents.now.clone_from(&contents.durable);
            contents
        };
        let files = disk.files.iter().map(survive).collect();
        let names = Names { now: names.clone(), durable: names, unsynced: Vec::new() };
        let capacity = disk.capacity;
        Self::with(Disk { files, names, tracked: true, capacity, ..Disk::default() })
    }

    /// The contents of a file.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.0.borrow();
        Some(disk.files[*disk.names.now.get(name)?].now.clone())
    }

    /// Puts a file there, durably; how tests damage files.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut disk = self.0.borrow_mut();
        let file = disk.files.len();
        disk.files.push(Contents { now: bytes.clone(), durable: bytes, unsynced: Vec::new() });
        disk.names.now.insert(name.to_owned(), file);
        disk.names.durable.insert(name.to_owned(), file);
    }

    async fn turn(&self, operation: Operation) -> io::Result<std::cell::RefMut<'_, Disk>> {
        future::yield_now().await;
        let mut disk = self.0.borrow_mut();
        disk.begin(operation)?;
        Ok(disk)
    }
}

fn surviving(contents: &mut Contents, policy: CrashPolicy, dice: &mut Dice) {
    let changes = std::mem::take(&mut contents.unsynced);
    match policy {
        CrashPolicy::Lose => {}
        CrashPolicy::Keep => changes.iter().for_each(|change| change.apply(&mut contents.durable)),
        CrashPolicy::Torn { .. } => {
            let whole = dice.below(changes.len() + 1);
            changes[..whole].iter().for_each(|change| change.apply(&mut contents.durable));
            if let Some(Change::Write { at, bytes }) = changes.get(whole) {
                for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                    if dice.below(2) == 0 {
                        let at = at + index * SECTOR;
                        Change::Write { at, bytes: sector.to_vec() }.apply(&mut contents.durable);
                    }
                }
            }
        }
        CrashPolicy::Subset { .. } => {
            for change in &changes {
                if dice.below(2) == 0 {
                    change.apply(&mut contents.durable);
                }
            }
        }
    }
}

/// A small deterministic generator (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) % bound as u64) as usize
    }
}

impl Store for MemoryStore {
    type File = MemoryFile;

    async fn open(&self, name: &str, mode: OpenMode) -> io::Result<MemoryFile> {
        let existing = self.0.borrow().names.now.get(name).copied();
        let file = match (existing, mode) {
            (None, OpenMode::CreateNew) => {
                let mut disk = self.turn(Operation::Name).await?;
                let file = disk.files.len();
                disk.files.push(Contents::default());
                disk.rename(|names| {
                    names.insert(name.to_owned(), file);
                });
                file
            }
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
            (Some(file), _) => file,
        };
        Ok(MemoryFile { store: self.clone(), file })
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.turn(Operation::Name).await?;
        if !disk.names.now.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.rename(|names| {
            let file = names.remove(from).expect("the name has just been there");
            names.insert(to.to_owned(), file);
        });
        Ok(())
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.turn(Operation::Name).await?;
        if !disk.names.now.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.rename(|names| {
            names.remove(name);
        });
        Ok(())
    }

    async fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.borrow().names.now.keys().cloned().collect())
    }

    async fn sync_dir(&self) -> io::Result<()> {
        let mut disk = self.turn(Operation::SyncDir).await?;
        disk.names.durable = disk.names.now.clone();
        disk.names.unsynced.clear();
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        let disk = self.0.borrow();
        let available = disk.capacity.saturating_sub(disk.used());
        Ok(Space { total: disk.capacity, available })
    }

    fn describe(&self) -> String {
        "memory".into()
    }
}

/// An open file of a [`MemoryStore`].
pub struct MemoryFile {
    store: MemoryStore,
    file: usize,
}

impl StoreFile for MemoryFile {
    type Buf = Vec<u8>;

    fn alloc(&self, len: usize) -> Vec<u8> {
        assert_eq!(len % BLOCK, 0, "buffers are whole blocks");
        vec![0; len]
    }

    async fn write_at(&self, mut buf: Vec<u8>, len: usize, pos: u64) -> io::Result<()> {
        assert!(len.is_multiple_of(BLOCK) && pos.is_multiple_of(BLOCK as u64), "whole blocks");
        assert!(len <= buf.len());
        buf.truncate(len);
        let mut disk = self.store.turn(Operation::Write).await?;
        let end = pos as usize + len;
        let grown = end.saturating_sub(disk.files[self.file].now.len()) as u64;
        if disk.used() + grown > disk.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.change(self.file, Change::Write { at: pos as usize, bytes: buf });
        Ok(())
    }

    async fn read_at(&self, pos: u64, len: usize) -> io::Result<Vec<u8>> {
        future::yield_now().await;
        let disk = self.store.0.borrow();
        let pos = pos as usize;
        let touches = |bad: &std::ops::Range<usize>| pos < bad.end && bad.start < pos + len;
        if disk.unreadable.as_ref().is_some_and(|(file, bad)| *file == self.file && touches(bad)) {
            const EIO: i32 = 5;
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let bytes = disk.files[self.file].now.get(pos..pos + len);
        bytes.map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    async fn sync(&self) -> io::Result<()> {
        // What the sync covers is what had been written when it began.
        let covered = {
            let disk = self.store.turn(Operation::Sync).await?;
            disk.files[self.file].unsynced.len()
        };
        self.store.0.borrow_mut().syncs_held += 1;
        let waited = std::future::poll_fn(|cx| {
            let mut disk = self.store.0.borrow_mut();
            if disk.hold_syncs {
                disk.held.push(cx.waker().clone());
                return std::task::Poll::Pending;
            }
            std::task::Poll::Ready(())
        });
        waited.await;
        let mut disk = self.store.0.borrow_mut();
        disk.syncs_held -= 1;
        let contents = &mut disk.files[self.file];
        let covered = covered.min(contents.unsynced.len());
        for change in contents.unsynced.drain(..covered) {
            change.apply(&mut contents.durable);
        }
        Ok(())
    }

    async fn allocate(&self, len: u64) -> io::Result<()> {
        let mut disk = self.store.turn(Operation::Resize).await?;
        let now = disk.files[self.file].now.len() as u64;
        if disk.used() + len.saturating_sub(now) > disk.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.change(self.file, Change::Resize(len.max(now) as usize));
        Ok(())
    }

    async fn truncate(&self, len: u64) -> io::Result<()> {
        let mut disk = self.store.turn(Operation::Resize).await?;
        disk.change(self.file, Change::Resize(len as usize));
        Ok(())
    }

    async fn len(&self) -> io::Result<u64> {
        Ok(self.store.0.borrow().files[self.file].now.len() as u64)
    }

    async fn close(self) {}
}
