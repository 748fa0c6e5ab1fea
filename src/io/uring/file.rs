//! An open file of a [`UringStore`](super::UringStore): with direct I/O or through
//! the page cache, and what of it is durable.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::ops::{Deref, DerefMut};

use glommio::io::{BufferedFile, DmaBuffer, DmaFile};

use super::plain;
use crate::io::store::{BLOCK, StoreFile};
use crate::io::way::Awaited;

/// Bytes of zeroes written at once where the filesystem cannot allocate.
const ZEROES_STEP: usize = 1 << 20;

/// A file as glommio has it.
pub(super) enum Handle {
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
    pub(super) file: Handle,
    /// The same file once more, with `O_DSYNC`: a write to it is durable when it
    /// completes.
    pub(super) through: Option<DmaFile>,
    pub(super) through_max: usize,
    /// Counts what was done otherwise.
    pub(super) changes: Cell<u64>,
    /// As many of them are durable.
    pub(super) synced: Cell<u64>,
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
        let _awaited = Awaited::new();
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
        let _awaited = Awaited::new();
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
