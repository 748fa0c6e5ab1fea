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

mod file;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::thread;

use glommio::GlommioError;
use glommio::io::OpenOptions;

use super::executor::{blocking, pause};
use super::store::{BLOCK, OpenMode, Space, Store};
use file::Handle;
pub use file::{UringBuf, UringFile};

/// Longest write that goes through. Longer ones were faster flushed when the
/// CPUs are busy, which is when batches are long (docs/decisions/0007-flushes.md).
const THROUGH_MAX: usize = 64 * 1024;

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
    /// The directory itself, once it was synced.
    opened: Rc<Cell<Option<fs::File>>>,
    through_max: usize,
}

impl UringStore {
    /// The directory `dir`, which must exist. Direct I/O is used where the
    /// filesystem has it; where it has not, a warning is logged.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let (dir, access, opened) = (Rc::new(dir.into()), Rc::default(), Rc::default());
        UringStore { dir, access, opened, through_max: THROUGH_MAX }
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
        let (dir, opened) = (PathBuf::clone(&self.dir), self.opened.take());
        let (result, file) = blocking(move || {
            // Kept open: a log must not fail because the process has too many
            // other files open.
            let opened = opened.map_or_else(|| fs::File::open(dir), Ok);
            opened.map_or_else(|error| (Err(error), None), |file| (file.sync_all(), Some(file)))
        })
        .await;
        self.opened.set(file);
        result
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
