//! Upkeep of segments, beside the commits and never in their way: the next
//! segment is prepared ahead, segments of which nothing is needed are freed,
//! their files used again.
//!
//! The life of a file: created under a spare's name, allocated; its header
//! written and flushed; renamed to the segment it now is, the directory
//! flushed. When the segment is settled it is renamed back to a spare's name,
//! and only when that is durable may records elsewhere that speak about its
//! messages go: a settled message can never come back.

use std::io::ErrorKind;
use std::rc::Rc;

use super::Queue;
use super::checkpoint::Draft;
use super::error::QueueError;
use super::format::{DATA_START, SegmentHeader, checkpoint_name, segment_name, spare_name};
use super::state::{Purpose, State};
use crate::io::clock;
use crate::io::store::{OpenMode, Store, StoreFile};

/// Segments prepared beyond the current one.
const PREPARED_AHEAD: u32 = 1;

impl<S: Store> Queue<S> {
    pub(super) async fn upkeep_loop(&self) {
        loop {
            if self.poisoned().is_none()
                && let Err(error) = self.upkeep_once().await
            {
                self.poison(&error.to_string());
            }
            {
                let mut state = self.0.state.borrow_mut();
                if state.poisoned.is_some() || (state.closing && !state.has_promised()) {
                    state.upkeep_done = true;
                    break;
                }
            }
            self.0.upkeep.wait().await;
        }
        self.0.work.raise();
    }

    async fn upkeep_once(&self) -> Result<(), QueueError> {
        // With many segments a look at each would cost more than a flush.
        let stirred = self.0.state.borrow().index.stirred;
        if stirred {
            self.finish_release();
            self.free_settled().await?;
        }
        self.prepare_ahead().await?;
        self.close_written().await;
        self.write_drafts().await?;
        if !self.0.state.borrow().closing {
            if stirred {
                self.write_survivors().await?;
            }
            self.trim_spares().await?;
        }
        if stirred {
            let mut state = self.0.state.borrow_mut();
            let current = state.tail.segment;
            // What is dead but waits for a flush is looked at again after it.
            state.index.stirred =
                state.index.segments.range(..current).any(|(_, segment)| segment.is_dead());
        }
        Ok(())
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
    /// error only if records already wait for the segment.
    pub(super) async fn prepare(&self, segment: u32) -> Result<bool, QueueError> {
        let spare = self.0.state.borrow_mut().spares.pop();
        let name = spare_name(spare.unwrap_or(segment));
        match self.make_segment(segment, &name, spare).await {
            Ok(file) => {
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
                let promised = self.0.state.borrow().has_promised();
                if !full || promised {
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

    async fn make_segment(
        &self,
        segment: u32,
        name: &str,
        recycled: Option<u32>,
    ) -> Result<S::File, QueueError> {
        let store = &self.0.store;
        let size = self.0.options.segment_size;
        let failed = |what: &str| QueueError::io(format!("{what} {name} failed"));
        let mode = if recycled.is_some() { OpenMode::Write } else { OpenMode::CreateNew };
        let file = store.open(name, mode).await.map_err(failed("opening"))?;
        let len = file.len().await.map_err(failed("measuring"))?;
        if len > u64::from(size) {
            file.truncate(u64::from(size)).await.map_err(failed("cutting"))?;
        } else if len < u64::from(size) {
            file.allocate(u64::from(size)).await.map_err(failed("allocating"))?;
        }
        let header = SegmentHeader {
            log: self.0.options.log,
            segment,
            size,
            created: clock::wall(),
            salt: self.0.state.borrow().salt(segment),
            was: recycled.unwrap_or(0),
        };
        let mut buf = file.alloc(DATA_START as usize);
        header.encode(&mut buf);
        let written = file.write_at(buf, DATA_START as usize, 0).await;
        written.map_err(failed("writing the header of"))?;
        file.sync().await.map_err(failed("flushing"))?;
        let renamed = store.rename(name, &segment_name(segment)).await;
        renamed.map_err(failed("renaming"))?;
        store.sync_dir().await.map_err(failed("making durable the renaming of"))?;
        Ok(file)
    }

    /// Frees the segments of which nothing is needed.
    async fn free_settled(&self) -> Result<(), QueueError> {
        loop {
            let settled = settled(&self.0.state.borrow());
            if settled.is_empty() {
                return Ok(());
            }
            for &segment in &settled {
                let from = segment_name(segment);
                let renamed = self.0.store.rename(&from, &spare_name(segment)).await;
                renamed.map_err(QueueError::io(format!("freeing {from} failed")))?;
            }
            let synced = self.0.store.sync_dir().await;
            synced.map_err(QueueError::io("making durable the freeing of segments failed"))?;
            for &segment in &settled {
                // There is none if it was never written, or not to be used.
                match self.0.store.remove(&checkpoint_name(segment)).await {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        let what = format!("removing the checkpoint of {segment:08x} failed");
                        return Err(QueueError::io(what)(error));
                    }
                    _ => {}
                }
            }
            let mut state = self.0.state.borrow_mut();
            let state = &mut *state;
            for segment in settled {
                state.index.segments.remove(&segment);
                state.files.remove(&segment);
                state.spares.push(segment);
                state.counters.segments_freed += 1;
                for other in state.index.segments.values_mut() {
                    other.refs.remove(&segment);
                }
            }
        }
    }

    /// Removes the files that are more than is kept.
    async fn trim_spares(&self) -> Result<(), QueueError> {
        loop {
            let excess = self.0.state.borrow_mut().take_excess_spare();
            let Some(segment) = excess else { return Ok(()) };
            let name = spare_name(segment);
            let removed = self.0.store.remove(&name).await;
            removed.map_err(QueueError::io(format!("removing {name} failed")))?;
        }
    }

    /// Writes the checkpoints of completed segments.
    async fn write_drafts(&self) -> Result<(), QueueError> {
        loop {
            let draft = {
                let mut state = self.0.state.borrow_mut();
                let flushed = state.flushed;
                let ready = state.drafts.front().is_some_and(|draft| draft.batch <= flushed);
                let draft = if ready { state.drafts.pop_front() } else { None };
                match draft {
                    // Freed already: there is nothing to find out about it.
                    Some(draft) if !state.index.segments.contains_key(&draft.segment) => continue,
                    Some(draft) => draft,
                    None => return Ok(()),
                }
            };
            self.write_checkpoint(&draft, false).await?;
        }
    }

    /// Writes a checkpoint, unless the disk is full: it can be done without.
    pub(super) async fn write_checkpoint(
        &self,
        draft: &Draft,
        replace: bool,
    ) -> Result<(), QueueError> {
        match draft.write(&self.0.store, replace).await {
            Err(QueueError::Io { source, .. }) if is_full(&source) => return Ok(()),
            other => other?,
        }
        self.0.state.borrow_mut().counters.checkpoints += 1;
        Ok(())
    }

    /// Closes the files into which nothing more is written.
    async fn close_written(&self) {
        loop {
            let file = {
                let mut state = self.0.state.borrow_mut();
                let flushed = state.flushed;
                let current = state.tail.segment.min(state.prepared);
                let index = &state.index;
                let written = state.files.range(..current).map(|(&segment, _)| segment).find(|s| {
                    index.segments.get(s).is_none_or(|segment| segment.settled_in <= flushed)
                });
                written.and_then(|segment| state.files.remove(&segment))
            };
            match file.map(Rc::try_unwrap) {
                Some(Ok(file)) => file.close().await,
                Some(Err(_)) => {}
                None => return,
            }
        }
    }
}

/// Segments that may be freed now.
fn settled<F: StoreFile>(state: &State<F>) -> Vec<u32> {
    let sealed = state.index.segments.range(..state.tail.segment);
    sealed
        .filter(|(_, segment)| {
            segment.is_dead() && segment.refs.is_empty() && segment.settled_in <= state.flushed
        })
        .map(|(&number, _)| number)
        .collect()
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
