//! [`Store`] on io_uring, one directory, with direct I/O: writes bypass the
//! page cache, so a flush has only the device's own cache left to empty.
//!
//! Opening, listing and renaming happen at start-up, when a segment is added
//! and when one is freed, never for each message; they run as ring operations
//! or on the executor's helper thread, so that they never block the shard.

use std::cell::RefCell;
use std::fs;
use std::io::{self, Write};
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread;

use glommio::GlommioError;
use glommio::io::{DmaBuffer, DmaFile, OpenOptions};

use super::executor::blocking;
use super::store::{BLOCK, OpenMode, Space, Store, StoreFile};

/// The system's own error where there is one: callers look at its number, and
/// say themselves which file it is about.
fn plain<T>(error: GlommioError<T>) -> io::Error {
    match error {
        GlommioError::EnhancedIoError { source, .. } => source,
        other => other.into(),
    }
}

/// A directory on a real filesystem.
#[derive(Clone)]
pub struct UringStore {
    dir: Rc<PathBuf>,
}

impl UringStore {
    /// The directory `dir`, which must exist.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        UringStore { dir: Rc::new(dir.into()) }
    }

    /// Lets glommio find out, on a file with something in it, whether the device
    /// can be polled for completions.
    ///
    /// glommio asks once for each device and executor, by reading from the first
    /// file that is opened there. An empty file answers that read without the
    /// device, which passes for a yes, and every later read fails with ENOTSUP.
    async fn probe_device(&self) -> io::Result<()> {
        thread_local! {
            static PROBED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
        }
        let dir = PathBuf::clone(&self.dir);
        let device = fs::metadata(&dir)?.dev();
        if PROBED.with_borrow(|probed| probed.contains(&device)) {
            return Ok(());
        }
        let path = dir.join(format!(".probe-{:?}", thread::current().id()));
        let made = path.clone();
        blocking(move || {
            let mut file = fs::File::create(&made)?;
            file.write_all(&[1; BLOCK])?;
            file.sync_all()
        })
        .await?;
        let opened = OpenOptions::new().read(true).dma_open(&path).await;
        fs::remove_file(&path)?;
        opened.map_err(plain)?.close().await.map_err(plain)?;
        PROBED.with_borrow_mut(|probed| probed.push(device));
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        debug_assert!(!name.contains('/'), "a store is one flat directory");
        self.dir.join(name)
    }
}

impl Store for UringStore {
    type File = UringFile;

    async fn open(&self, name: &str, mode: OpenMode) -> io::Result<UringFile> {
        self.probe_device().await?;
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => {
                options.write(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        let file = options.dma_open(self.path(name)).await.map_err(plain)?;
        Ok(UringFile { file })
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

/// An open file with direct I/O.
pub struct UringFile {
    file: DmaFile,
}

/// A buffer aligned for direct I/O.
pub struct UringBuf(DmaBuffer);

impl Deref for UringBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl DerefMut for UringBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0.as_bytes_mut()
    }
}

impl StoreFile for UringFile {
    type Buf = UringBuf;

    fn alloc(&self, len: usize) -> UringBuf {
        assert_eq!(len % BLOCK, 0, "buffers are whole blocks");
        UringBuf(self.file.alloc_dma_buffer(len))
    }

    async fn write_at(&self, mut buf: UringBuf, len: usize, pos: u64) -> io::Result<()> {
        assert!(len.is_multiple_of(BLOCK) && pos.is_multiple_of(BLOCK as u64), "whole blocks");
        assert!(len <= buf.len());
        buf.0.trim_to_size(len);
        let written = self.file.write_at(buf.0, pos).await.map_err(plain)?;
        if written == len {
            Ok(())
        } else {
            Err(io::Error::new(
                io::ErrorKind::WriteZero,
                format!("short write: {written} of {len} bytes"),
            ))
        }
    }

    async fn read_at(&self, pos: u64, len: usize) -> io::Result<Vec<u8>> {
        let read = self.file.read_at(pos, len).await.map_err(plain)?;
        if read.len() < len {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("read {} of {len} bytes at {pos}", read.len()),
            ));
        }
        Ok(read.to_vec())
    }

    async fn sync(&self) -> io::Result<()> {
        self.file.fdatasync().await.map_err(plain)
    }

    async fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.pre_allocate(len, false).await.map_err(plain)
    }

    async fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len).await.map_err(plain)
    }

    async fn len(&self) -> io::Result<u64> {
        self.file.file_size().await.map_err(plain)
    }

    async fn close(self) {
        // An error on close says nothing that sync has not said before.
        let _ = self.file.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::executor::run_pinned;

    #[test]
    fn writes_blocks_reads_anything_and_names_endure() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_path_buf();
        run_pinned("store", None, move || async move {
            let store = UringStore::new(path);
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
            store.rename("a", "b").await.unwrap();
            store.sync_dir().await.unwrap();
            assert_eq!(store.list().await.unwrap(), ["b"]);
            assert!(store.space().unwrap().available > 0);
            store.remove("b").await.unwrap();
            let missing = store.open("b", OpenMode::Read).await.err().unwrap();
            assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
        })
        .unwrap()
        .join()
        .unwrap();
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
