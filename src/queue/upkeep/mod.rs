//! Upkeep of segments, beside the commits and never in their way: `prepare` makes
//! the next one ready, segments of which nothing is needed are freed here,
//! `survivors` and `clean` see to it that little keeps a segment from being freed.
//!
//! When a segment is settled it is renamed back to a spare's name, and only when
//! that is durable may records elsewhere that speak about its messages go: a
//! settled message can never come back.

mod clean;
mod prepare;
mod survivors;

use std::io::ErrorKind;
use std::rc::Rc;

use crate::io::store::{Store, StoreFile};
use crate::queue::Queue;
use crate::queue::checkpoint::{self, Draft};
use crate::queue::error::QueueError;
use crate::queue::format::{checkpoint_name, segment_name, spare_name};
use crate::queue::state::State;
use prepare::is_full;

impl<S: Store> Queue<S> {
    pub(in crate::queue) async fn upkeep_loop(&self) {
        loop {
            if self.poisoned().is_none()
                && let Err(error) = self.upkeep_once().await
            {
                self.poison(&error.to_string());
            }
            {
                let mut state = self.0.state.borrow_mut();
                if state.poisoned.is_some() || state.closing {
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
        self.close_written().await;
        self.write_drafts().await?;
        self.mark_doubted().await?;
        if !self.0.state.borrow().closing {
            if stirred {
                self.write_survivors().await?;
            }
            self.trim_spares().await?;
        }
        if stirred || self.0.state.borrow().clean_waits {
            self.0.clean.raise();
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
                self.remove_checkpoint(segment).await?;
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

    /// Removes one file if more wait than are kept and [`Queue::trim`] has said
    /// that it may be done.
    async fn trim_spares(&self) -> Result<(), QueueError> {
        let Some(segment) = self.0.state.borrow_mut().take_excess() else { return Ok(()) };
        let name = spare_name(segment);
        let removed = self.0.store.remove(&name).await;
        removed.map_err(QueueError::io(format!("removing {name} failed")))
    }

    /// Has the next start look for the damage that was found.
    async fn mark_doubted(&self) -> Result<(), QueueError> {
        let doubted = std::mem::take(&mut self.0.state.borrow_mut().doubted);
        for segment in doubted {
            checkpoint::doubt(&self.0.store, segment).await?;
        }
        Ok(())
    }

    async fn remove_checkpoint(&self, segment: u32) -> Result<(), QueueError> {
        match self.0.store.remove(&checkpoint_name(segment)).await {
            // There is none if it was never written, or not to be used.
            Err(error) if error.kind() != ErrorKind::NotFound => {
                let what = format!("removing the checkpoint of {segment:08x} failed");
                Err(QueueError::io(what)(error))
            }
            _ => Ok(()),
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
    pub(in crate::queue) async fn write_checkpoint(
        &self,
        draft: &Draft,
        replace: bool,
    ) -> Result<(), QueueError> {
        let doubted = {
            let state = self.0.state.borrow();
            state.index.segments.get(&draft.segment).is_some_and(|segment| segment.quarantined)
        };
        match draft.write(&self.0.store, replace, doubted).await {
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
