//! Letting a segment go that holds nothing but word about older ones: what it
//! says about their messages is said again, whole, at the end of the log. So a
//! message that waits for days holds its own segment, and no chain of others.

use std::collections::HashMap;

use crate::base::{Outcome, Place};
use crate::io::store::{Store, StoreFile};
use crate::queue::Queue;
use crate::queue::error::QueueError;
use crate::queue::fact::What;
use crate::queue::format::{Kind, RECORD_HEADER, aligned};
use crate::queue::index::{Entry, Status};
use crate::queue::record::{Known, Survivor, Survivors};
use crate::queue::state::{Purpose, State};

/// Last outcomes by message, recipient and the record they came from.
pub(in crate::queue) type Words = HashMap<(Place, u16, Place), Outcome>;

impl<S: Store> Queue<S> {
    /// Writes survivors for the segments that hold nothing but references.
    pub(in crate::queue) async fn write_survivors(&self) -> Result<(), QueueError> {
        loop {
            let Some(holder) = releasable(&self.0.state.borrow()) else { return Ok(()) };
            let subjects: Vec<u32> = {
                let mut state = self.0.state.borrow_mut();
                let segment = state.index.segment(holder);
                segment.releasing = true;
                segment.refs.iter().copied().collect()
            };
            for subject in subjects {
                let words = self.words_in(holder, subject).await;
                match self.restate(holder, subject, words) {
                    // The disk is full: the segment goes when there is room.
                    Err(QueueError::Full { .. }) => {
                        self.0.state.borrow_mut().index.segment(holder).releasing = false;
                        return Ok(());
                    }
                    // Closed, or failed already, while the words were read.
                    Err(QueueError::Poisoned(_)) => return Ok(()),
                    other => other?,
                }
            }
            self.0.urge();
        }
    }

    /// Outcomes in `holder` that are the last word about live recipients of
    /// `subject`. What cannot be read is left out: the words are for people.
    async fn words_in(&self, holder: u32, subject: u32) -> Words {
        let wanted = {
            let state = self.0.state.borrow();
            let mut wanted = Vec::new();
            for (offset, id) in state.index.messages_in(subject) {
                let first = Place { segment: subject, offset };
                let entry = state.index.get(id).expect("it has just been listed");
                let recipients = entry.worth_saying();
                wanted.extend(
                    recipients
                        .filter(|(_, r)| r.last.segment == holder && r.status != Status::Done)
                        .map(|(recipient, r)| (id, first, recipient, r.last)),
                );
            }
            wanted
        };
        let mut words = Words::new();
        for (id, first, recipient, at) in wanted {
            if let Ok(Some(outcome)) = self.0.reader.outcome(at, id, first, recipient).await {
                words.insert((id, recipient, at), outcome);
            }
        }
        words
    }

    /// Says again what is known about the messages of `subject`, in one call:
    /// between its records nothing else is applied to the index.
    fn restate(&self, holder: u32, subject: u32, mut words: Words) -> Result<(), QueueError> {
        let mut state = self.0.state.borrow_mut();
        let state = &mut *state;
        state.writable()?;
        let all = survivors_of(state, subject, &mut words);
        let part_max = state.options.part_max();
        let mut rest = all.into_iter().peekable();
        let mut from = 0;
        loop {
            let mut part = Survivors { segment: subject, from, to: u32::MAX, messages: Vec::new() };
            let (mut payload, mut ids) = (Vec::new(), Vec::new());
            while payload.len() < part_max
                && let Some((id, message)) = rest.next()
            {
                message.encode(&mut payload);
                part.messages.push(message);
                ids.push(id);
            }
            if let Some((_, next)) = rest.peek() {
                part.to = next.offset;
            }
            from = part.to;
            self.put_survivors(state, holder, &mut part, &ids)?;
            if rest.peek().is_none() {
                return Ok(());
            }
        }
    }

    fn put_survivors(
        &self,
        state: &mut State<S::File>,
        holder: u32,
        part: &mut Survivors,
        ids: &[Place],
    ) -> Result<(), QueueError> {
        state.scratch.clear();
        part.encode(&mut state.scratch);
        if aligned(RECORD_HEADER + state.scratch.len()) > state.options.record_max() {
            // One message with very many recipients: what counts is their state,
            // and the words are for people.
            let messages = part.messages.iter_mut();
            messages.flat_map(|m| &mut m.recipients).for_each(|known| known.last = None);
            state.scratch.clear();
            part.encode(&mut state.scratch);
        }
        let len = state.scratch.len();
        let place = state.make_room(len, Purpose::Settling, || self.0.store.space())?;
        let batch = state.open.as_mut().expect("room has been made");
        batch.put(Kind::Survivors, 0, [&state.scratch[..]]);
        state.count(len);
        state.note(place, What::Survivors(Box::new((&*part).into())));
        let number = state.batch_number();
        for (message, &id) in part.messages.iter().zip(ids) {
            for known in message.recipients.iter().filter(|known| known.last.is_some()) {
                state.index.word_moved(id, known.recipient, holder, place);
            }
        }
        state.index.segment(place.segment).refs.insert(part.segment);
        let holder = state.index.segment(holder);
        holder.settled_in = holder.settled_in.max(number);
        Ok(())
    }

    /// Lets go of what has been said again durably.
    pub(in crate::queue) fn finish_release(&self) {
        let mut state = self.0.state.borrow_mut();
        let flushed = state.flushed;
        for segment in state.index.segments.values_mut() {
            if segment.releasing && segment.settled_in <= flushed {
                segment.releasing = false;
                segment.refs.clear();
            }
        }
    }
}

/// A segment of which only references are left.
fn releasable<F: StoreFile>(state: &State<F>) -> Option<u32> {
    let sealed = state.index.segments.range(..state.tail.segment);
    let mut dead = sealed.filter(|(_, segment)| {
        segment.is_dead()
            && !segment.refs.is_empty()
            && !segment.releasing
            && segment.settled_in <= state.flushed
    });
    dead.next().map(|(&number, _)| number)
}

/// The live messages of `subject` with their ids.
fn survivors_of<F: StoreFile>(
    state: &State<F>,
    subject: u32,
    words: &mut Words,
) -> Vec<(Place, Survivor)> {
    let messages = state.index.messages_in(subject).into_iter();
    messages
        .map(|(offset, id)| {
            let entry = state.index.get(id).expect("it has just been listed");
            (id, Survivor { offset, recipients: known(id, entry, words) })
        })
        .collect()
}

/// What is known about the recipients of a message, with the words at hand.
pub(in crate::queue) fn known(id: Place, entry: &Entry, words: &mut Words) -> Vec<Known> {
    let known = entry.worth_saying().map(|(recipient, state)| Known {
        recipient,
        done: state.status == Status::Done,
        held: state.status.is_held(),
        attempts: state.attempts,
        next_ms: state.due_ms(),
        last: words.remove(&(id, recipient, state.last)),
    });
    known.collect()
}
