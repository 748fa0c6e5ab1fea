//! Segments are made ready ahead of their use, beside the commits: a file that
//! waits is taken, or a new one created, allocated and overwritten with zeroes.
//!
//! The zeroes are for speed alone. A block that was never written costs a flush
//! more when it is: the filesystem has to note that it now holds something
//! (docs/decisions/0007-flushes.md). So they give way to mail: once records wait
//! for the segment it is used as far as it is filled, and the first segment of a
//! process, for which mail waits from the start, is not filled at all. A crash
//! while a file is being filled leaves it to be used like any other.
//!
//! The life of a file: created under a spare's name, allocated, filled; its
//! header written and flushed; renamed to the segment it now is, the directory
//! flushed. `upkeep` renames it back when the segment is settled.

use std::io::{self, ErrorKind};
use std::rc::Rc;

use crate::base::Durability;
use crate::io::clock;
use crate::io::store::{OpenMode, Store, StoreFile};
use crate::queue::Queue;
use crate::queue::error::QueueError;
use crate::queue::format::{DATA_START, SegmentHeader, segment_name, spare_name};
use crate::queue::state::Purpose;

/// Segments prepared beyond the current one.
const PREPARED_AHEAD: u32 = 1;
/// Records appended between two calls of [`Queue::trim`] past which the log is
/// busy.
const TRIM_APPENDS_MAX: u64 = 50;
/// Most zeroes written at once: a commit never waits for more than these.
const FILL_STEP_MAX: u32 = 256 * 1024;

impl<S: Store> Queue<S> {
    /// Prepares segments until the end of the queue.
    pub(in crate::queue) async fn prepare_loop(&self) {
        loop {
            if let Err(error) = self.prepare_ahead().await {
                self.poison(&error.to_string());
            }
            {
                let state = self.0.state.borrow();
                if state.poisoned.is_some() || (state.closing && !state.has_promised()) {
                    return;
                }
            }
            self.0.prepare.wait().await;
        }
    }

    /// Has one file removed, if more wait to be used again than are kept and
    /// little was appended since the last call: removing a file can hold up the
    /// filesystem. The owner calls this every few seconds.
    pub fn trim(&self) {
        let mut state = self.0.state.borrow_mut();
        let appends = state.counters.appends;
        let since = appends - std::mem::replace(&mut state.appends_at_trim, appends);
        state.may_trim = since <= TRIM_APPENDS_MAX;
        self.0.upkeep.raise();
    }

    async fn prepare_ahead(&self) -> Result<(), QueueError> {
        loop {
            let segment = {
                let state = self.0.state.borrow();
                let promised = state.has_promised();
                let wanted = !state.closing && state.prepared < state.tail.segment + PREPARED_AHEAD;
                if state.poisoned.is_some() || !(promised || wanted) {
                    return Ok(());
                }
                let room = state.can_grow(Purpose::Mail, || self.0.store.space());
                if !promised && room.is_err() {
                    return Ok(());
                }
                state.prepared + 1
            };
            if !self.prepare(segment).await? {
                return Ok(());
            }
        }
    }

    /// Makes the file of `segment`. False if the disk is full, which is an
    /// error only if records already wait for the segment, or if the log has
    /// failed meanwhile.
    pub(in crate::queue) async fn prepare(&self, segment: u32) -> Result<bool, QueueError> {
        let spare = self.0.state.borrow_mut().spares.pop();
        let name = spare_name(spare.unwrap_or(segment));
        match self.make_segment(segment, &name, spare).await {
            Ok(None) => Ok(false),
            Ok(Some(file)) => {
                let mut state = self.0.state.borrow_mut();
                state.files.insert(segment, Rc::new(file));
                state.prepared = segment;
                state.counters.segments_recycled += u64::from(spare.is_some());
                state.counters.segments_created += u64::from(spare.is_none());
                drop(state);
                self.0.prepared.raise();
                Ok(true)
            }
            Err(error) => {
                let full = matches!(&error, QueueError::Io { source, .. } if is_full(source));
                if !full || self.0.state.borrow().has_promised() {
                    return Err(error);
                }
                // What was created has no blocks to speak of; it is tried again.
                self.0.state.borrow_mut().spares.extend(spare);
                if spare.is_none() {
                    self.0.store.remove(&name).await.map_err(QueueError::io(format!(
                        "removing {name}, for which there was no room, failed"
                    )))?;
                }
                Ok(false)
            }
        }
    }

    /// The file, ready for records; `None` if the log has failed meanwhile.
    async fn make_segment(
        &self,
        segment: u32,
        name: &str,
        recycled: Option<u32>,
    ) -> Result<Option<S::File>, QueueError> {
        let store = &self.0.store;
        let failed = |what: &str| QueueError::io(format!("{what} {name} failed"));
        let sync = self.0.options.durability == Durability::Sync;
        if recycled.is_none() {
            let file = store.open(name, OpenMode::CreateNew).await.map_err(failed("creating"))?;
            let size = self.0.options.segment_size;
            file.allocate(u64::from(size)).await.map_err(failed("allocating"))?;
            if sync {
                self.fill(&file, segment).await.map_err(failed("filling"))?;
            }
            file.close().await;
            if self.poisoned().is_some() {
                return Ok(None);
            }
        }
        let mode = if sync { OpenMode::WriteThrough } else { OpenMode::Write };
        let file = store.open(name, mode).await.map_err(failed("opening"))?;
        self.begin_segment(segment, recycled.unwrap_or(0), &file)
            .await
            .map_err(failed("writing the header of"))?;
        let renamed = store.rename(name, &segment_name(segment)).await;
        renamed.map_err(failed("renaming"))?;
        store.sync_dir().await.map_err(failed("making durable the renaming of"))?;
        Ok(Some(file))
    }

    /// Writes zeroes over a new file, a step at a time, until records wait for it.
    async fn fill(&self, file: &S::File, segment: u32) -> io::Result<()> {
        let size = self.0.options.segment_size;
        let step = (size / 4).min(FILL_STEP_MAX);
        let mut at = DATA_START;
        while at < size {
            {
                let state = self.0.state.borrow();
                if state.tail.segment >= segment || state.closing || state.poisoned.is_some() {
                    return Ok(());
                }
            }
            let len = step.min(size - at) as usize;
            let mut zeroes = file.alloc(len);
            zeroes.fill(0);
            file.write_at(zeroes, len, u64::from(at)).await?;
            self.0.state.borrow_mut().counters.bytes_zeroed += len as u64;
            at += len as u32;
        }
        Ok(())
    }

    /// Gives a file the size and the header of the segment it is to be.
    async fn begin_segment(&self, segment: u32, was: u32, file: &S::File) -> io::Result<()> {
        let size = self.0.options.segment_size;
        let len = file.len().await?;
        if len > u64::from(size) {
            file.truncate(u64::from(size)).await?;
        } else if len < u64::from(size) {
            file.allocate(u64::from(size)).await?;
        }
        let header = SegmentHeader {
            log: self.0.options.log,
            segment,
            size,
            created: clock::wall(),
            salt: self.0.state.borrow().salt(segment),
            was,
        };
        let mut buf = file.alloc(DATA_START as usize);
        header.encode(&mut buf);
        file.write_at(buf, DATA_START as usize, 0).await?;
        // This covers the allocation and the zeroes, too.
        file.sync().await
    }
}

pub(in crate::queue) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
