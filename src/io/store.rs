//! The disk as the queue sees it: one flat directory of files, behind two small
//! traits. `io::uring` implements them on io_uring with direct I/O,
//! `io::memory` in memory with crash images for tests.
//!
//! Contract for implementations and callers:
//! * writes are whole multiples of [`BLOCK`] at offsets that are multiples of
//!   it; reads may be of any length at any offset;
//! * a write is durable once a [`StoreFile::sync`] *begun after the write
//!   completed* has returned `Ok`, be it on the same open file or on one opened
//!   after the write; a created, renamed or removed name once
//!   [`Store::sync_dir`] has. This holds for every [`OpenMode`]: what a mode
//!   changes is when the work is done;
//! * after a write or sync has failed nothing is known of what reached the
//!   disk: the caller must not retry on the same file (it poisons its log).

use std::future::Future;
use std::io;
use std::ops::DerefMut;

/// Alignment and granularity of writes, in bytes.
pub const BLOCK: usize = 4096;

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// As `Write`, for a file whose every write is followed by a sync: a write
    /// may do the work of the sync, which then has little or nothing to do.
    WriteThrough,
    /// A new file, for reading and writing; fails when the name exists.
    CreateNew,
}

/// Room on the filesystem, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Size of the filesystem.
    pub total: u64,
    /// What this process may still allocate.
    pub available: u64,
}

/// A directory of files.
pub trait Store: Clone + 'static {
    /// An open file of it.
    type File: StoreFile;

    /// Opens `name`, a plain file name without directories.
    fn open(&self, name: &str, mode: OpenMode) -> impl Future<Output = io::Result<Self::File>>;
    /// Renames within the directory, replacing the target.
    fn rename(&self, from: &str, to: &str) -> impl Future<Output = io::Result<()>>;
    /// Removes a file.
    fn remove(&self, name: &str) -> impl Future<Output = io::Result<()>>;
    /// Names of all files, in no particular order.
    fn list(&self) -> impl Future<Output = io::Result<Vec<String>>>;
    /// Makes created, renamed and removed names durable.
    fn sync_dir(&self) -> impl Future<Output = io::Result<()>>;
    /// Room left.
    fn space(&self) -> io::Result<Space>;
    /// For messages: the directory, as the operator knows it.
    fn describe(&self) -> String;
    /// Lets what else runs on this thread go on, its I/O too. Long work on what
    /// has been read does this from time to time.
    fn pause(&self) -> impl Future<Output = ()> {
        futures_lite::future::yield_now()
    }
}

/// An open file.
#[expect(clippy::len_without_is_empty, reason = "nobody asks a file whether it is empty")]
pub trait StoreFile: 'static {
    /// A buffer for writes, aligned as the file wants it.
    type Buf: DerefMut<Target = [u8]>;

    /// A buffer of `len` bytes (a multiple of [`BLOCK`]), contents unspecified.
    fn alloc(&self, len: usize) -> Self::Buf;
    /// Writes the first `len` bytes of `buf` at `pos`, all of them or an error.
    fn write_at(
        &self,
        buf: Self::Buf,
        len: usize,
        pos: u64,
    ) -> impl Future<Output = io::Result<()>>;
    /// Reads `len` bytes at `pos`. The caller stays within the file's length:
    /// what lies past it is an error or unspecified bytes.
    fn read_at(&self, pos: u64, len: usize) -> impl Future<Output = io::Result<Vec<u8>>>;
    /// Flushes data (and the size, if it changed) to stable storage.
    fn sync(&self) -> impl Future<Output = io::Result<()>>;
    /// Makes the file `len` bytes long with its blocks allocated.
    fn allocate(&self, len: u64) -> impl Future<Output = io::Result<()>>;
    /// Cuts or extends the file.
    fn truncate(&self, len: u64) -> impl Future<Output = io::Result<()>>;
    /// Length in bytes.
    fn len(&self) -> impl Future<Output = io::Result<u64>>;
    /// Closes the file. Dropping without it leaks nothing but may be slower.
    fn close(self) -> impl Future<Output = ()>;
}
