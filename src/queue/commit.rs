//! The committer: takes all batches that wait, writes them, flushes once, and
//! tells everyone who waited. While it does so the next batch fills.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use futures_lite::future;

use super::Queue;
use super::error::QueueError;
use super::record::Mark;
use super::state::InFlight;
use crate::base::{Durability, Place};
use crate::io::store::{Store, StoreFile};

/// A batch in the committer's hands.
struct Write<B> {
    place: Place,
    buf: B,
    len: usize,
}

impl<S: Store> Queue<S> {
    /// Writes what is appended and keeps the segments in order, until the queue
    /// is closed and all that waited is durable, or the log has failed. Whoever
    /// opens a queue spawns this once.
    pub async fn run_commits(self) {
        let commits = future::zip(self.commit_loop(), self.prepare_loop());
        let segments = future::zip(self.upkeep_loop(), self.clean_loop());
        future::zip(commits, segments).await;
    }

    /// Takes no more, lets what waits become durable, then ends
    /// [`Queue::run_commits`].
    pub fn close(&self) {
        self.0.state.borrow_mut().closing = true;
        self.0.clean.raise();
        self.0.upkeep.raise();
        self.0.prepare.raise();
        self.0.work.raise();
    }

    /// Has outcomes written that wait for company.
    pub fn nudge(&self) {
        self.0.urge();
    }

    /// Waits until outcomes wait for company.
    pub async fn recorded(&self) {
        self.0.recorded.wait().await;
    }

    /// Why nothing is written any more, if so.
    pub fn poisoned(&self) -> Option<String> {
        self.0.state.borrow().poisoned.as_ref().map(|why| why.to_string())
    }

    /// Stops the log for good.
    pub(super) fn poison(&self, why: &str) {
        let why: Rc<str> = Rc::from(format!("{}: {why}", self.0.store.describe()));
        let first = self.0.state.borrow().poisoned.is_none();
        let tickets = self.0.state.borrow_mut().poison(&why);
        if first {
            tracing::error!(
                target: "ringpost",
                "the log has failed, no more mail is taken (451, 421) and deliveries from it stop: \
                 {why}; nothing that was answered 250 is lost: look at the disk (dmesg, smartctl), \
                 then restart ringpost"
            );
        }
        tickets.iter().for_each(|ticket| ticket.fail(&why));
        self.0.work.raise();
        self.0.upkeep.raise();
        self.0.clean.raise();
        self.0.prepare.raise();
        self.0.prepared.raise();
    }

    async fn commit_loop(&self) {
        while let Some(writes) = self.next_writes().await {
            match self.flush(writes).await {
                Ok(flushes) => self.flushed(flushes),
                Err(error) => {
                    self.poison(&error.to_string());
                    return;
                }
            }
        }
    }

    /// All batches that wait; `None` at the end.
    async fn next_writes(&self) -> Option<Vec<Write<<S::File as StoreFile>::Buf>>> {
        loop {
            {
                let mut state = self.0.state.borrow_mut();
                if state.poisoned.is_some() {
                    return None;
                }
                if self.0.urgent.take() || state.closing {
                    state.seal();
                }
                if !state.sealed.is_empty() {
                    if state.prepared <= state.tail.segment {
                        self.0.prepare.raise();
                    }
                    return Some(take_writes(&mut state));
                }
                if state.closing && state.upkeep_done {
                    return None;
                }
            }
            self.0.work.wait().await;
        }
    }

    /// Writes batches and makes them durable, as far as the queue's durability
    /// says. Returns how many flushes that took.
    async fn flush(
        &self,
        writes: Vec<Write<<S::File as StoreFile>::Buf>>,
    ) -> Result<u64, QueueError> {
        let mut files: Vec<(u32, Rc<S::File>)> = Vec::with_capacity(1);
        let mut pending = Vec::with_capacity(writes.len());
        for write in writes {
            let segment = write.place.segment;
            let file = self.prepared_file(segment).await?;
            if files.last().is_none_or(|(last, _)| *last != segment) {
                files.push((segment, Rc::clone(&file)));
            }
            let at = u64::from(write.place.offset);
            pending.push(Box::pin(async move { file.write_at(write.buf, write.len, at).await }));
        }
        join_all(pending).await.map_err(QueueError::io("writing to the log failed"))?;
        if self.0.options.durability != Durability::Sync {
            return Ok(1);
        }
        let flushes = files.len() as u64;
        for (segment, file) in files {
            let what = format!("flushing segment {segment:08x} failed");
            file.sync().await.map_err(QueueError::io(what))?;
        }
        Ok(flushes)
    }

    /// The file of a segment; waits while it is being prepared.
    async fn prepared_file(&self, segment: u32) -> Result<Rc<S::File>, QueueError> {
        loop {
            {
                let state = self.0.state.borrow();
                if let Some(file) = state.files.get(&segment) {
                    return Ok(Rc::clone(file));
                }
                if let Some(why) = &state.poisoned {
                    return Err(QueueError::Poisoned(why.to_string()));
                }
            }
            self.0.prepared.wait().await;
        }
    }

    /// What was in flight is durable.
    fn flushed(&self, flushes: u64) {
        let mut state = self.0.state.borrow_mut();
        let done = std::mem::take(&mut state.in_flight);
        if let Some(last) = done.last() {
            state.flushed = last.number;
            state.durable = last.end;
        }
        state.counters.flushes += flushes;
        let unprepared = state.prepared <= state.tail.segment;
        drop(state);
        done.iter().for_each(|batch| batch.ticket.complete());
        self.0.upkeep.raise();
        if unprepared {
            self.0.prepare.raise();
        }
    }
}

fn take_writes<F: StoreFile>(state: &mut super::state::State<F>) -> Vec<Write<F::Buf>> {
    let mut writes = Vec::with_capacity(state.sealed.len());
    state.backlog = 0;
    while let Some(batch) = state.sealed.pop_front() {
        let (number, place, end) = (batch.number, batch.place, batch.end());
        let ticket = Rc::clone(&batch.ticket);
        state.in_flight.push(InFlight { number, start: place, end, ticket });
        let mark = Mark { durable: state.durable, previous: state.previous };
        let (buf, len) = batch.finish(mark);
        state.previous = end;
        state.counters.bytes_written += len as u64;
        state.backlog += len;
        writes.push(Write { place, buf, len });
    }
    writes
}

/// Runs all of `pending` at once to their ends; the first error, if any.
async fn join_all<F: Future<Output = io::Result<()>>>(
    mut pending: Vec<Pin<Box<F>>>,
) -> io::Result<()> {
    let mut result = Ok(());
    poll_fn(|cx| {
        pending.retain_mut(|one| match one.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(done) => {
                if result.is_ok() {
                    result = done;
                }
                false
            }
        });
        if pending.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    result
}
