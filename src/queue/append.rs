//! Appending messages and outcomes: the hot path. Each call copies its bytes
//! into the open batch, applies them to the index and wakes the committer.

use super::batch::Commit;
use super::error::QueueError;
use super::fact::{First, Ruling, Timing, What};
use super::format::{Kind, META_MAX};
use super::index::{Entry, Status};
use super::record::{self, EnvelopeFacts};
use super::state::{Purpose, State};
use super::{PREFIX_MAX, Queue, stream};
use crate::base::limits::RECIPIENTS_RECORD_MAX;
use crate::base::{Envelope, Outcome, Place, QueueId};
use crate::io::store::{Store, StoreFile};

impl<S: Store> Queue<S> {
    /// Appends a whole message. `prefix` writes what goes before `body`, given
    /// the message's id: its `Received:` header, [`PREFIX_MAX`] bytes at most.
    /// All bytes have been copied when this returns.
    ///
    /// The message counts as given to the relay: it is not due until an outcome
    /// says so, or [`Queue::put_back`].
    ///
    /// # Errors
    /// `Full`, `Poisoned`, or `TooLarge` for an envelope that fits no segment.
    /// Nothing has been appended then.
    ///
    /// # Panics
    /// If the envelope has no recipient, which `receive` never lets pass.
    pub fn append(
        &self,
        envelope: &Envelope,
        prefix: impl FnOnce(QueueId, &mut Vec<u8>),
        body: &[&[u8]],
    ) -> Result<(QueueId, Commit), QueueError> {
        let space = || self.0.store.space();
        let mut state = self.0.state.borrow_mut();
        let state = &mut *state;
        state.writable()?;
        let facts = take_envelope(state, envelope)?;
        let meta = state.scratch.len();
        let len: usize = body.iter().map(|part| part.len()).sum();
        if len > state.options.part_max() {
            return stream::append_long(state, facts, prefix, body, &space)
                .inspect(|_| self.0.urge());
        }
        let place = state.make_room(meta + PREFIX_MAX + len, Purpose::Mail, space)?;
        let id = QueueId { log: state.options.log, place };
        write_prefix(state, id, prefix)?;
        let parts = [&state.scratch[..], &state.prefix[..]];
        let batch = state.open.as_mut().expect("room has been made");
        batch.put(Kind::Message, meta, parts.into_iter().chain(body.iter().copied()));
        let part = state.prefix.len() + len;
        state.count(meta + part);
        let commit = state.commit();
        let first = facts.first(meta, part);
        state.note(place, What::Message(first));
        state.note_timing(place, record::NOWHERE, facts.timing);
        state.index.insert(place, Entry::new(first, Status::Out, 0));
        state.mail_came(meta + part);
        self.0.urge();
        Ok((id, commit))
    }

    /// Records outcomes of a message. The index has them when this returns;
    /// they are durable when the commit resolves: with
    /// [`QueueOptions::outcomes_wait`](super::QueueOptions) that is with the next
    /// mail, or after the next [`Queue::nudge`].
    ///
    /// # Errors
    /// `Unknown` if the message is not queued or has no such recipient,
    /// `Poisoned`, or `Full` when not even the reserve has room. Nothing has
    /// been recorded then.
    pub fn record(&self, id: QueueId, outcomes: &[Outcome]) -> Result<Commit, QueueError> {
        let mut state = self.0.state.borrow_mut();
        let state = &mut *state;
        state.writable()?;
        let entry = state.index.get(id.place).filter(|_| id.log == state.options.log);
        let recipients = entry.ok_or(QueueError::Unknown(id))?.recipients().len();
        if outcomes.iter().any(|outcome| usize::from(outcome.recipient) >= recipients) {
            return Err(QueueError::Unknown(id));
        }
        let mut commit = Commit::resolved();
        let mut rest = outcomes;
        while !rest.is_empty() {
            let taken;
            (taken, commit) = self.record_some(state, id.place, rest)?;
            rest = &rest[taken..];
        }
        if state.options.outcomes_wait {
            self.0.recorded.raise();
        } else {
            self.0.urge();
        }
        Ok(commit)
    }

    /// Records as many of `outcomes` as go into one record.
    fn record_some(
        &self,
        state: &mut State<S::File>,
        message: Place,
        outcomes: &[Outcome],
    ) -> Result<(usize, Commit), QueueError> {
        state.scratch.clear();
        record::begin_outcomes(message, &mut state.scratch);
        let mut taken = 0;
        for outcome in outcomes {
            record::push_outcome(outcome, &mut state.scratch);
            taken += 1;
            if state.scratch.len() >= state.options.part_max() {
                break;
            }
        }
        let len = state.scratch.len();
        let place = state.make_room(len, Purpose::Settling, || self.0.store.space())?;
        let batch = state.open.as_mut().expect("room has been made");
        batch.put(Kind::Outcome, 0, [&state.scratch[..]]);
        state.count(len);
        let commit = state.commit();
        let number = state.batch_number();
        let rulings = outcomes[..taken].iter().map(Ruling::from);
        for ruling in rulings.clone() {
            state.note(place, What::Outcome { message, ruling });
        }
        state.index.apply(message, rulings, place, number);
        Ok((taken, commit))
    }
}

impl EnvelopeFacts {
    /// The facts about the first record of a message with `meta` bytes before
    /// `part` bytes of body.
    pub(super) fn first(&self, meta: usize, part: usize) -> First {
        First {
            meta: meta as u32,
            part: part as u32,
            recipients: self.recipients,
            arrival_ms: self.arrival_ms,
        }
    }
}

/// Archives the envelope into the scratch.
pub(super) fn take_envelope<F: StoreFile>(
    state: &mut State<F>,
    envelope: &Envelope,
) -> Result<EnvelopeFacts, QueueError> {
    let recipients = envelope.recipients.len();
    assert!(
        (1..=RECIPIENTS_RECORD_MAX).contains(&recipients),
        "an envelope with {recipients} recipients cannot be queued"
    );
    state.scratch.clear();
    record::encode_envelope(envelope, &mut state.scratch);
    if state.scratch.len() > META_MAX {
        let bytes = state.scratch.len() as u64;
        return Err(QueueError::TooLarge { bytes, limit: META_MAX as u64 });
    }
    let timing = envelope.terms.as_deref().map_or_else(Timing::default, Timing::from);
    let recipients = recipients as u16;
    Ok(EnvelopeFacts { recipients, arrival_ms: envelope.arrival_ms, timing })
}

/// Lets the caller write what goes before the body.
pub(super) fn write_prefix<F: StoreFile>(
    state: &mut State<F>,
    id: QueueId,
    prefix: impl FnOnce(QueueId, &mut Vec<u8>),
) -> Result<(), QueueError> {
    state.prefix.clear();
    prefix(id, &mut state.prefix);
    if state.prefix.len() > PREFIX_MAX {
        let bytes = state.prefix.len() as u64;
        return Err(QueueError::TooLarge { bytes, limit: PREFIX_MAX as u64 });
    }
    Ok(())
}
