//! [`Store`] on io_uring, one directory, with direct I/O: writes bypass the
//! page cache, so a flush has only the device's own cache left to empty. Short
//! writes to files opened to be written through go by `O_DSYNC`, with which the
//! kernel empties it in the same call.
//!
//! A filesystem that refuses direct I/O gets writes into the page cache, each
//! made durable by fdatasync: slower, with the same promise.
//!
//! Opening, listing and renaming happen at start-up, when a segment is added
//! and when one is freed, never for each message; they run as ring operations
//! or on the executor's helper thread, so that they never block the shard.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::thread;

use glommio::GlommioError;
use glommio::io::{BufferedFile, DmaBuffer, DmaFile, OpenOptions};

use super::executor::{blocking, pause};
use super::store::{BLOCK, OpenMode, Space, Store, StoreFile};

/// Longest write that goes through. Longer ones were faster flushed when the
/// CPUs are busy, which is when batches are long (docs/decisions/0007-flushes.md).
const THROUGH_MAX: usize = 64 * 1024;

/// Bytes of zeroes written at once where the filesystem cannot allocate.
const ZEROES_STEP: usize = 1 << 20;

/// The system's own error where there is one: callers look at its number, and
/// say themselves which file it is about.
fn plain<T>(error: GlommioError<T>) -> io::Error {
    match error {
        GlommioError::EnhancedIoError { source, .. } => source,
        other => other.into(),
    }
}

/// How the files of a directory are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Past the page cache, with `O_DIRECT`.
    Direct,
    /// Through the page cache.
    Buffered,
}

/// A directory on a real filesystem.
#[derive(Clone)]
pub struct UringStore {
    dir: Rc<PathBuf>,
    /// Known once the first file is to be opened.
    access: Rc<Cell<Option<Access>>>,
    through_max: usize,
}

impl UringStore {
    /// The directory `dir`, which must exist. Direct I/O is used where the
    /// filesystem has it; where it has not, a warning is logged.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let (dir, access) = (Rc::new(dir.into()), Rc::default());
        UringStore { dir, access, through_max: THROUGH_MAX }
    }

    /// The same directory, with files opened to be written through doing so for
    /// writes of up to `bytes`; longer ones leave the work to the sync.
    #[must_use]
    pub fn through_up_to(self, bytes: usize) -> Self {
        UringStore { through_max: bytes, ..self }
    }

    /// The directory `dir`, through the page cache whatever the filesystem can.
    pub fn buffered(dir: impl Into<PathBuf>) -> Self {
        let store = Self::new(dir);
        store.access.set(Some(Access::Buffered));
        store
    }

    /// How the files are read and written.
    ///
    /// # Errors
    /// When no file can be created in the directory, or read again.
    pub async fn access(&self) -> io::Result<Access> {
        if let Some(access) = self.access.get() {
            return Ok(access);
        }
        let access = self.probe().await?;
        self.access.set(Some(access));
        Ok(access)
    }

    /// Finds out whether the filesystem takes direct I/O, and lets glommio find
    /// out, on a file with something in it, whether the device can be polled for
    /// completions.
    ///
    /// glommio asks once for each device and executor, by reading from the first
    /// file that is opened there. An empty file answers that read without the
    /// device, which passes for a yes, and every later read fails with ENOTSUP.
    async fn probe(&self) -> io::Result<Access> {
        thread_local! {
            static PROBED: RefCell<Vec<(u64, Access)>> = const { RefCell::new(Vec::new()) };
        }
        let dir = PathBuf::clone(&self.dir);
        let device = fs::metadata(&dir)?.dev();
        let known = PROBED.with_borrow(|probed| probed.iter().find(|one| one.0 == device).copied());
        if let Some((_, access)) = known {
            return Ok(access);
        }
        let probe = dir.join(format!(".probe-{:?}", thread::current().id()));
        let (made, within) = (probe.clone(), dir.clone());
        let path = blocking(move || probe_file(made, &within)).await?;
        let opened = OpenOptions::new().read(true).dma_open(&path).await.map_err(plain);
        if path == probe {
            fs::remove_file(&path)?;
        }
        let access = match opened {
            Ok(file) => {
                file.close().await.map_err(plain)?;
                Access::Direct
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                warn_of_buffering(&dir, device);
                Access::Buffered
            }
            Err(error) => return Err(error),
        };
        PROBED.with_borrow_mut(|probed| probed.push((device, access)));
        Ok(access)
    }

    fn path(&self, name: &str) -> PathBuf {
        debug_assert!(!name.contains('/'), "a store is one flat directory");
        self.dir.join(name)
    }
}

/// A file in `dir` with something in it: `probe`, newly made, or one that is there
/// when there is no room for that.
fn probe_file(probe: PathBuf, dir: &Path) -> io::Result<PathBuf> {
    let mut file = fs::File::create(&probe)?;
    match file.write_all(&[1; BLOCK]).and_then(|()| file.sync_all()) {
        Ok(()) => Ok(probe),
        Err(error) => {
            fs::remove_file(&probe)?;
            let full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
            let names = if full { list_files(dir)? } else { Vec::new() };
            let mut paths = names.into_iter().map(|name| dir.join(name));
            let long = |path: &PathBuf| fs::metadata(path).is_ok_and(|m| m.len() >= BLOCK as u64);
            paths.find(long).ok_or(error)
        }
    }
}

/// Warns of a filesystem without direct I/O, once for all the logs on it.
fn warn_of_buffering(dir: &Path, device: u64) {
    static WARNED: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());
    let mut warned = WARNED.lock().unwrap_or_else(PoisonError::into_inner);
    if warned.insert(device) {
        tracing::warn!(
            target: "ringpost",
            "the filesystem of {} refuses direct I/O (O_DIRECT): mail is written through the page \
             cache and flushed with fdatasync, as durable but slower",
            dir.display()
        );
    }
}

impl Store for UringStore {
    type File = UringFile;

    async fn open(&self, name: &str, mode: OpenMode) -> io::Result<UringFile> {
        let access = self.access().await?;
        let path = self.path(name);
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600);
        options.write(mode != OpenMode::Read).create_new(mode == OpenMode::CreateNew);
        let file = match access {
            Access::Direct => Handle::Direct(options.dma_open(&path).await.map_err(plain)?),
            Access::Buffered => {
                Handle::Buffered(options.buffered_open(&path).await.map_err(plain)?)
            }
        };
        let through = if mode == OpenMode::WriteThrough && access == Access::Direct {
            Some(options.custom_flags(libc::O_DSYNC).dma_open(&path).await.map_err(plain)?)
        } else {
            None
        };
        // What was done to the file before is not known to be durable.
        let (changes, synced) = (Cell::new(1), Cell::new(0));
        Ok(UringFile { file, through, through_max: self.through_max, changes, synced })
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.path(from), self.path(to));
        blocking(move || fs::rename(from, to)).await
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        blocking(move || fs::remove_file(path)).await
    }

    async fn list(&self) -> io::Result<Vec<String>> {
        let dir = PathBuf::clone(&self.dir);
        blocking(move || list_files(&dir)).await
    }

    async fn sync_dir(&self) -> io::Result<()> {
        let dir = PathBuf::clone(&self.dir);
        blocking(move || fs::File::open(dir)?.sync_all()).await
    }

    fn space(&self) -> io::Result<Space> {
        super::space::of(&self.dir)
    }

    fn describe(&self) -> String {
        self.dir.display().to_string()
    }

    async fn pause(&self) {
        pause().await;
    }
}

fn list_files(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry.file_name().into_string().ok());
        }
    }
    Ok(names)
}

enum Handle {
    Direct(DmaFile),
    Buffered(BufferedFile),
}

/// Calls a method that both kinds of file have.
macro_rules! on_file {
    ($handle:expr, $file:ident => $call:expr) => {
        match $handle {
            Handle::Direct($file) => $call,
            Handle::Buffered($file) => $call,
        }
    };
}

/// An open file.
pub struct UringFile {
    file: Handle,
    /// The same file once more, with `O_DSYNC`: a write to it is durable when it
    /// completes.
    through: Option<DmaFile>,
    through_max: usize,
    /// Counts what was done otherwise.
    changes: Cell<u64>,
    /// As many of them are durable.
    synced: Cell<u64>,
}

/// A buffer, aligned if direct I/O wants it so.
pub enum UringBuf {
    /// For direct I/O.
    Aligned(DmaBuffer),
    /// For the page cache.
    Plain(Vec<u8>),
}

impl Deref for UringBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            UringBuf::Aligned(buf) => buf.as_bytes(),
            UringBuf::Plain(buf) => buf,
        }
    }
}

impl DerefMut for UringBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            UringBuf::Aligned(buf) => buf.as_bytes_mut(),
            UringBuf::Plain(buf) => buf,
        }
    }
}

impl UringFile {
    fn changed(&self) {
        self.changes.set(self.changes.get() + 1);
    }

    /// Allocates by writing zeroes, for filesystems without fallocate.
    async fn append_zeroes(&self, len: u64) -> io::Result<()> {
        let mut at = self.len().await?.next_multiple_of(BLOCK as u64);
        while at < len {
            let step = ((len - at) as usize).next_multiple_of(BLOCK).min(ZEROES_STEP);
            let mut buf = self.alloc(step);
            buf.fill(0);
            self.write_at(buf, step, at).await.map_err(|error| match error.kind() {
                // Part of it was written, and there was no room for the rest.
                ErrorKind::WriteZero => ErrorKind::StorageFull.into(),
                _ => error,
            })?;
            at += step as u64;
        }
        Ok(())
    }
}

impl StoreFile for UringFile {
    type Buf = UringBuf;

    fn alloc(&self, len: usize) -> UringBuf {
        assert_eq!(len % BLOCK, 0, "buffers are whole blocks");
        match &self.file {
            Handle::Direct(file) => UringBuf::Aligned(file.alloc_dma_buffer(len)),
            Handle::Buffered(_) => UringBuf::Plain(vec![0; len]),
        }
    }

    async fn write_at(&self, buf: UringBuf, len: usize, pos: u64) -> io::Result<()> {
        assert!(len.is_multiple_of(BLOCK) && pos.is_multiple_of(BLOCK as u64), "whole blocks");
        assert!(len <= buf.len());
        let through = self.through.as_ref().filter(|_| len <= self.through_max);
        let written = match (&self.file, buf) {
            (Handle::Direct(file), UringBuf::Aligned(mut buf)) => {
                buf.trim_to_size(len);
                through.unwrap_or(file).write_at(buf, pos).await
            }
            (Handle::Buffered(file), UringBuf::Plain(mut buf)) => {
                buf.truncate(len);
                file.write_at(buf, pos).await
            }
            _ => unreachable!("a buffer is written to a file of the store it was made for"),
        };
        if through.is_none() {
            self.changed();
        }
        let written = written.map_err(plain)?;
        if written == len {
            Ok(())
        } else {
            Err(io::Error::new(
                ErrorKind::WriteZero,
                format!("short write: {written} of {len} bytes"),
            ))
        }
    }

    async fn read_at(&self, pos: u64, len: usize) -> io::Result<Vec<u8>> {
        let read = on_file!(&self.file, file => file.read_at(pos, len).await).map_err(plain)?;
        if read.len() < len {
            return Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                format!("read {} of {len} bytes at {pos}", read.len()),
            ));
        }
        Ok(read.to_vec())
    }

    async fn sync(&self) -> io::Result<()> {
        // Changes are counted when they are complete: what completes while the
        // flush is under way is not covered by it.
        let changes = self.changes.get();
        if self.through.is_some() && self.synced.get() == changes {
            return Ok(());
        }
        on_file!(&self.file, file => file.fdatasync().await).map_err(plain)?;
        self.synced.set(self.synced.get().max(changes));
        Ok(())
    }

    async fn allocate(&self, len: u64) -> io::Result<()> {
        let allocated = on_file!(&self.file, file => file.pre_allocate(len, false).await);
        self.changed();
        match allocated.map_err(plain) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                self.append_zeroes(len).await
            }
            other => other,
        }
    }

    async fn truncate(&self, len: u64) -> io::Result<()> {
        let cut = on_file!(&self.file, file => file.truncate(len).await);
        self.changed();
        cut.map_err(plain)
    }

    async fn len(&self) -> io::Result<u64> {
        on_file!(&self.file, file => file.file_size().await).map_err(plain)
    }

    async fn close(self) {
        // An error on close says nothing that sync has not said before.
        if let Some(through) = self.through {
            let _ = through.close().await;
        }
        let _ = on_file!(self.file, file => file.close().await);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::process::Command;
    use std::sync::Arc;

    use super::*;
    use crate::io::executor::run_pinned;

    /// Runs `test` on an executor, with a directory for it.
    fn on_disk<Fut: Future<Output = ()> + 'static>(
        test: impl FnOnce(PathBuf) -> Fut + Send + 'static,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_path_buf();
        run_pinned("store", None, move || test(path)).unwrap().join().unwrap();
    }

    async fn blocks_and_names(store: UringStore) {
        let file = store.open("a", OpenMode::CreateNew).await.unwrap();
        assert!(store.open("a", OpenMode::CreateNew).await.is_err());
        file.allocate(16 * BLOCK as u64).await.unwrap();
        let mut buf = file.alloc(2 * BLOCK);
        buf.fill(7);
        file.write_at(buf, BLOCK, BLOCK as u64).await.unwrap();
        file.sync().await.unwrap();
        let read = file.read_at(BLOCK as u64 - 2, 4).await.unwrap();
        assert_eq!(read, [0, 0, 7, 7]);
        assert_eq!(file.read_at(2 * BLOCK as u64, 1).await.unwrap(), [0]);
        assert_eq!(file.len().await.unwrap(), 16 * BLOCK as u64);
        file.close().await;
        let file = store.open("a", OpenMode::WriteThrough).await.unwrap();
        let mut buf = file.alloc(BLOCK);
        buf.fill(9);
        file.write_at(buf, BLOCK, 0).await.unwrap();
        file.sync().await.unwrap();
        assert_eq!(file.read_at(BLOCK as u64 - 2, 4).await.unwrap(), [9, 9, 7, 7]);
        file.truncate(BLOCK as u64).await.unwrap();
        assert_eq!(file.len().await.unwrap(), BLOCK as u64);
        file.close().await;
        store.rename("a", "b").await.unwrap();
        store.sync_dir().await.unwrap();
        assert_eq!(store.list().await.unwrap(), ["b"]);
        store.remove("b").await.unwrap();
        let missing = store.open("b", OpenMode::Read).await.err().unwrap();
        assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn writes_blocks_reads_anything_and_names_endure() {
        on_disk(async |path| {
            let store = UringStore::new(path);
            assert!(store.space().unwrap().available > 0);
            blocks_and_names(store).await;
        });
    }

    #[test]
    fn the_page_cache_does_the_same() {
        on_disk(async |path| {
            let store = UringStore::buffered(path);
            blocks_and_names(store.clone()).await;
            assert_eq!(store.access().await.unwrap(), Access::Buffered);
        });
    }

    #[test]
    fn short_writes_go_through_and_all_else_is_flushed() {
        on_disk(async |path| {
            let store = UringStore::new(path);
            if store.access().await.unwrap() == Access::Buffered {
                eprintln!("skipped: no direct I/O where the tests have their files");
                return;
            }
            let file = store.open("a", OpenMode::CreateNew).await.unwrap();
            assert!(file.through.is_none());
            file.allocate(1 << 20).await.unwrap();
            file.close().await;
            let file = store.open("a", OpenMode::WriteThrough).await.unwrap();
            let flags = |fd| {
                // SAFETY: the call takes no pointers, and the descriptor is open.
                unsafe { libc::fcntl(fd, libc::F_GETFL) }
            };
            let through = flags(file.through.as_ref().unwrap().as_raw_fd());
            assert_eq!(through & libc::O_DSYNC, libc::O_DSYNC);
            let Handle::Direct(direct) = &file.file else { panic!("direct I/O") };
            assert_eq!(flags(direct.as_raw_fd()) & libc::O_DSYNC, 0);
            let flushed = || file.synced.get() == file.changes.get();
            assert!(!flushed(), "what was done before it was opened may not be durable");
            file.sync().await.unwrap();
            assert!(flushed());
            file.write_at(file.alloc(BLOCK), BLOCK, 0).await.unwrap();
            assert!(flushed());
            let long = THROUGH_MAX + BLOCK;
            file.write_at(file.alloc(long), long, 0).await.unwrap();
            assert!(!flushed());
            file.sync().await.unwrap();
            file.truncate(BLOCK as u64).await.unwrap();
            assert!(!flushed());
            file.sync().await.unwrap();
            file.allocate(1 << 20).await.unwrap();
            assert!(!flushed());
            file.close().await;
        });
    }

    /// A mount that ends with the test.
    struct Mounted(PathBuf);

    impl Drop for Mounted {
        fn drop(&mut self) {
            let ended = Command::new("umount").arg(&self.0).status();
            assert!(ended.is_ok_and(|status| status.success()), "{} stays", self.0.display());
        }
    }

    /// A new filesystem on `dir`; `None`, and a word about it, without the right
    /// to mount one.
    fn mount(kind: &str, options: &str, dir: &Path) -> Option<Mounted> {
        let mut mount = Command::new("mount");
        mount.args(["-t", kind, "-o", options, "none"]).arg(dir);
        let mounted = mount.output();
        if mounted.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Mounted(dir.to_path_buf()));
        }
        eprintln!("skipped: cannot mount {kind}, which takes root: {mounted:?}");
        None
    }

    #[test]
    fn a_full_filesystem_can_still_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let Some(mounted) = mount("tmpfs", "size=8k", dir.path()) else { return };
        let full = fs::write(dir.path().join("a"), vec![7; 4 * BLOCK]).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        let path = dir.path().to_path_buf();
        let run = run_pinned("store", None, move || async move {
            let store = UringStore::new(path);
            let file = store.open("a", OpenMode::Read).await.unwrap();
            assert_eq!(file.read_at(5, 3).await.unwrap(), [7; 3]);
            assert_eq!(store.list().await.unwrap(), ["a"]);
            file.close().await;
        });
        run.unwrap().join().unwrap();
        drop(mounted);
    }

    #[test]
    fn a_filesystem_without_direct_io_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let Some(mounted) = mount("ramfs", "mode=700", dir.path()) else { return };
        let path = dir.path().to_path_buf();
        let said = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&said);
        let run = run_pinned("store", None, move || async move {
            let log = tracing_subscriber::fmt().with_writer(move || Said(Arc::clone(&log)));
            let _guard = tracing::subscriber::set_default(log.finish());
            for _ in 0..2 {
                let store = UringStore::new(path.clone());
                assert_eq!(store.access().await.unwrap(), Access::Buffered);
                blocks_and_names(store).await;
            }
        });
        run.unwrap().join().unwrap();
        let said = String::from_utf8(said.lock().unwrap().clone()).unwrap();
        assert_eq!(said.matches("refuses direct I/O").count(), 1, "{said}");
        assert!(said.contains(&dir.path().display().to_string()), "{said}");
        drop(mounted);
    }

    struct Said(Arc<Mutex<Vec<u8>>>);

    impl Write for Said {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn reads_from_the_device_on_every_executor_whose_first_file_was_empty() {
        for _ in 0..2 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().to_path_buf();
            run_pinned("store", None, move || async move {
                let store = UringStore::new(path.clone());
                let file = store.open("a", OpenMode::CreateNew).await.unwrap();
                let mut buf = file.alloc(64 * BLOCK);
                buf.fill(7);
                file.write_at(buf, 64 * BLOCK, 0).await.unwrap();
                file.sync().await.unwrap();
                assert_eq!(file.read_at(0, 64 * BLOCK).await.unwrap(), [7; 64 * BLOCK]);
                assert_eq!(store.list().await.unwrap(), ["a"], "the probe is gone");
                file.close().await;
            })
            .unwrap()
            .join()
            .unwrap();
        }
    }
}
