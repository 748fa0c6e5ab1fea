//! Questions about what is queued: for the relay (what is due, the bodies), for
//! `ringpost queue` and for metrics.

use super::Queue;
use super::error::QueueError;
use super::index::Status;
use super::options::{QueueCounters, SegmentStats};
use super::reader::{BodyReader, Reader};
use super::record::NOWHERE;
use super::state::TYPICAL_RECORD;
use crate::base::{Envelope, Location, Mail, Outcome, Place, QueueId, ShardId, UnixMillis};
use crate::io::store::Store;

/// A queued message as the index knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageState {
    /// Its id.
    pub id: QueueId,
    /// Bytes of its body as stored.
    pub size: u64,
    /// When it was accepted.
    pub arrival: UnixMillis,
    /// Where it lies, which a [`Reader`](super::Reader) needs. It stays there
    /// while a recipient is out.
    pub at: Location,
    /// Recipients that it began with.
    pub recipients_total: u16,
    /// Those that have no final outcome.
    pub recipients: Vec<PendingRecipient>,
}

/// A recipient without a final outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingRecipient {
    /// Index into the envelope's recipients.
    pub recipient: u16,
    /// Attempts so far.
    pub attempts: u16,
    /// When it is due; meaningless while it is out or waits.
    pub next_attempt: UnixMillis,
    /// Given to the relay, no outcome yet.
    pub out: bool,
    /// Due, and waits for its destination.
    pub waiting: bool,
    /// How many of the moments at which its sender is to be told of the delay are
    /// dealt with.
    pub noticed: u8,
    /// Its sender wants it kept until `next_attempt`.
    pub postponed: bool,
    /// Held back by an operator.
    pub held: bool,
}

impl<S: Store> Queue<S> {
    /// The log.
    pub fn log(&self) -> ShardId {
        self.0.options.log
    }

    /// Messages queued.
    pub fn live(&self) -> usize {
        self.0.state.borrow().index.live()
    }

    /// Bytes of their bodies.
    pub fn bytes_live(&self) -> u64 {
        self.0.state.borrow().index.bytes()
    }

    /// The files of the log.
    pub fn segments(&self) -> SegmentStats {
        self.0.state.borrow().segment_stats()
    }

    /// What has been done since the queue was opened.
    pub fn counters(&self) -> QueueCounters {
        self.0.state.borrow().counters
    }

    /// True while new mail is refused for want of room on the disk.
    pub fn is_full(&self) -> bool {
        let state = self.0.state.borrow();
        matches!(
            state.admits(TYPICAL_RECORD, || self.0.store.space()),
            Err(QueueError::Full { .. })
        )
    }

    /// True if outcomes can be recorded. Not so after a start without room for a
    /// segment.
    pub fn can_record(&self) -> bool {
        let state = self.0.state.borrow();
        state.writable().is_ok() && !state.files.is_empty()
    }

    /// True until what was queued before the start is known.
    pub fn is_loading(&self) -> bool {
        self.0.state.borrow().loading
    }

    /// A message; `None` if it is not queued here.
    pub fn message(&self, id: QueueId) -> Option<MessageState> {
        let state = self.0.state.borrow();
        let entry = state.index.get(id.place).filter(|_| id.log == self.0.options.log)?;
        let recipients = entry.recipients().iter().enumerate();
        Some(MessageState {
            id,
            size: entry.size(),
            arrival: UnixMillis(entry.arrival_ms),
            at: entry.location(id.place),
            recipients_total: entry.recipients().len() as u16,
            recipients: recipients
                .filter(|(_, recipient)| recipient.status != Status::Done)
                .map(|(index, recipient)| PendingRecipient {
                    recipient: index as u16,
                    attempts: recipient.attempts,
                    next_attempt: UnixMillis(recipient.next_ms),
                    out: recipient.status.is_out(),
                    waiting: recipient.status == Status::Waiting,
                    noticed: recipient.noticed,
                    postponed: recipient.postponed,
                    held: recipient.status.is_held(),
                })
                .collect(),
        })
    }

    /// Where a message lies; `None` if it is not queued here.
    pub fn location(&self, id: QueueId) -> Option<Location> {
        let state = self.0.state.borrow();
        let entry = state.index.get(id.place).filter(|_| id.log == self.0.options.log)?;
        Some(entry.location(id.place))
    }

    /// Ids of queued messages in order, `limit` at most, those after `after`.
    pub fn ids_after(&self, after: Option<QueueId>, limit: usize) -> Vec<QueueId> {
        let log = self.0.options.log;
        let after = match after {
            Some(after) if after.log > log => return Vec::new(),
            Some(after) if after.log == log => after.place,
            _ => NOWHERE,
        };
        let state = self.0.state.borrow();
        let places = state.index.ids_after(after);
        places.take(limit).map(|place| QueueId { log, place }).collect()
    }

    /// The envelope of a queued message.
    ///
    /// # Errors
    /// `Unknown`, `Io` or `Damaged`.
    pub async fn envelope(&self, id: QueueId) -> Result<Envelope, QueueError> {
        self.envelope_by(&self.0.reader, id).await
    }

    /// A reader for [`Queue::envelope_by`] or [`Queue::last_outcomes_by`], for
    /// who goes through the queue in order. One for each of the two: they read
    /// different places.
    pub fn reader_in_order(&self) -> Reader<S> {
        self.0.reader.in_order()
    }

    /// As [`Queue::envelope`], by a reader of the caller's.
    ///
    /// # Errors
    /// `Unknown`, `Io` or `Damaged`.
    pub async fn envelope_by(
        &self,
        reader: &Reader<S>,
        id: QueueId,
    ) -> Result<Envelope, QueueError> {
        let (at, _, _reading) = self.written(id).await?;
        self.noticing(reader.envelope(at.first).await)
    }

    /// The last outcome of each pending recipient that has one. Words that can
    /// no longer be read are left out.
    ///
    /// # Errors
    /// `Unknown`, or `Poisoned` before they were written.
    pub async fn last_outcomes(&self, id: QueueId) -> Result<Vec<Outcome>, QueueError> {
        self.last_outcomes_by(&self.0.reader, id).await
    }

    /// As [`Queue::last_outcomes`], by a reader of the caller's.
    ///
    /// # Errors
    /// `Unknown`, or `Poisoned` before they were written.
    pub async fn last_outcomes_by(
        &self,
        reader: &Reader<S>,
        id: QueueId,
    ) -> Result<Vec<Outcome>, QueueError> {
        let (first, known): (Place, Vec<(u16, Place)>) = {
            let state = self.0.state.borrow();
            let entry = state.index.get(id.place).filter(|_| id.log == self.0.options.log);
            let entry = entry.ok_or(QueueError::Unknown(id))?;
            let recipients = entry.recipients().iter().enumerate();
            let known = recipients
                .filter(|(_, r)| r.status != Status::Done && r.last != NOWHERE)
                .map(|(index, recipient)| (index as u16, recipient.last))
                .collect();
            (entry.location(id.place).first, known)
        };
        let mut outcomes = Vec::with_capacity(known.len());
        for (recipient, at) in known {
            self.wait_written(at).await?;
            if let Ok(found) = reader.outcome(at, id.place, first, recipient).await {
                outcomes.extend(found);
            }
        }
        Ok(outcomes)
    }

    /// The last outcome of one recipient, if there is one.
    ///
    /// # Errors
    /// `Unknown`, `Poisoned` before it was written, `Io` or `Damaged`.
    pub async fn last_outcome(
        &self,
        id: QueueId,
        recipient: u16,
    ) -> Result<Option<Outcome>, QueueError> {
        let (first, last) = {
            let state = self.0.state.borrow();
            let entry = state.index.get(id.place).filter(|_| id.log == self.0.options.log);
            let entry = entry.ok_or(QueueError::Unknown(id))?;
            let known = entry.recipients().get(usize::from(recipient));
            (entry.location(id.place).first, known.map_or(NOWHERE, |known| known.last))
        };
        if last == NOWHERE {
            return Ok(None);
        }
        self.wait_written(last).await?;
        self.noticing(self.0.reader.outcome(last, id.place, first, recipient).await)
    }

    /// A small message whole (256 KiB at most).
    ///
    /// # Errors
    /// `Unknown`, `TooLarge`, `Io` or `Damaged`.
    pub async fn load(&self, id: QueueId) -> Result<Mail, QueueError> {
        let (at, hint, _reading) = self.written(id).await?;
        self.noticing(self.0.reader.load_hinted(id.place, at, hint).await)
    }

    /// The body of a message in parts of bounded size. The message stays where it
    /// is while the reader exists.
    ///
    /// # Errors
    /// `Unknown`, `Io` or `Damaged`.
    pub async fn body(&self, id: QueueId) -> Result<BodyReader<S>, QueueError> {
        let (at, _, reading) = self.written(id).await?;
        let body = self.noticing(self.0.reader.body(id.place, at).await)?;
        Ok(body.holding(reading))
    }

    /// Sees to it that the segment of a damaged record is kept.
    fn noticing<T>(&self, read: Result<T, QueueError>) -> Result<T, QueueError> {
        if let Err(error) = &read {
            self.notice(error);
        }
        read
    }

    /// Told of every error of reading: when a record is damaged, its segment is
    /// kept as it is from now on, and the log says so.
    pub fn notice(&self, error: &QueueError) {
        if let QueueError::Damaged { place, what } = error {
            self.quarantine(*place, what);
        }
    }

    /// Waits until a message can be read from its segments: where it is, and the
    /// size of its first record. It stays there while the last is kept.
    async fn written(&self, id: QueueId) -> Result<(Location, usize, Reading<S>), QueueError> {
        let (at, len) = {
            let mut state = self.0.state.borrow_mut();
            let entry = state.index.get(id.place).filter(|_| id.log == self.0.options.log);
            let entry = entry.ok_or(QueueError::Unknown(id))?;
            let found = (entry.location(id.place), entry.first_extent() as usize);
            *state.reading.entry(id.place).or_default() += 1;
            found
        };
        let reading = Reading { queue: self.clone(), id: id.place };
        self.wait_written(at.commit.unwrap_or(at.first)).await?;
        Ok((at, len, reading))
    }

    pub(super) async fn wait_written(&self, place: Place) -> Result<(), QueueError> {
        let unwritten = self.0.state.borrow().unwritten(place);
        match unwritten {
            Some(commit) => {
                // What waits for company may wait for long.
                self.0.urge();
                commit.await
            }
            None => Ok(()),
        }
    }
}

/// Keeps a message from being moved.
pub(super) struct Reading<S: Store> {
    pub(super) queue: Queue<S>,
    id: Place,
}

impl<S: Store> Drop for Reading<S> {
    fn drop(&mut self) {
        let mut state = self.queue.0.state.borrow_mut();
        if let Some(count) = state.reading.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                state.reading.remove(&self.id);
            }
        }
    }
}
