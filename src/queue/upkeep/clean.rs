//! Cleaning: what is still needed in a segment of which little is needed is
//! written again at the end of the log, so that the segment can be used again.
//! A message keeps its id; only its bytes move.
//!
//! Messages that the relay has, or that somebody reads, stay where they are:
//! their readers know the place. They are come back for.
//!
//! What cleaning may write is given to it: a byte for each byte of new mail, and
//! what [`Queue::allow_cleaning`] adds. Moves ride the flushes of mail.

use std::io::ErrorKind;

use super::survivors::{Words, known};
use crate::base::{Location, Place};
use crate::io::store::{Store, StoreFile};
use crate::queue::Queue;
use crate::queue::batch::Commit;
use crate::queue::error::QueueError;
use crate::queue::fact::{First, MovedTo, Restated, What};
use crate::queue::format::{Kind, META_MAX, RECORD_HEADER, aligned};
use crate::queue::index::{Entry, Far, PartSizes, Status};
use crate::queue::reader::{Reader, Told};
use crate::queue::record::{self, Moved, NOWHERE};
use crate::queue::state::{Purpose, State};
use crate::queue::stream::Pins;

/// A segment of which more than this share is needed is left alone, in percent.
const WORTH_PERCENT: u64 = 60;
/// The log is cleaned when it takes more than this share of what is needed, in
/// percent, ...
const SLACK_PERCENT: u64 = 150;
/// ... and these many segments besides: the one that is written.
const SLACK_SEGMENTS: u64 = 1;
/// Segments looked at for something that may be moved.
const CANDIDATES: usize = 8;
/// Moves that may be on their way to the disk.
const UNDER_WAY: usize = 16;

/// A message about to be moved: what has been read of it, and what has been
/// written. Dropping it gives up what was written.
struct Move<S: Store> {
    queue: Queue<S>,
    id: Place,
    at: Location,
    told: Told,
    /// Where the last outcomes of its recipients were, and those of them that
    /// could be read.
    wanted: Vec<(u16, Place)>,
    words: Words,
    /// Parts of the body that lie elsewhere from now on, those that stay too.
    pins: Pins,
}

impl<S: Store> Drop for Move<S> {
    fn drop(&mut self) {
        self.pins.release(&mut self.queue.0.state.borrow_mut().index);
    }
}

impl<S: Store> Queue<S> {
    /// Lets cleaning write `bytes` more. What is not used is kept up to a
    /// segment's worth.
    pub fn allow_cleaning(&self, bytes: u64) {
        let mut state = self.0.state.borrow_mut();
        state.allow_cleaning(bytes);
        let lacks_a_segment = state.lacks_a_segment();
        drop(state);
        self.0.clean.raise();
        if lacks_a_segment {
            // There may be room by now.
            self.0.prepare.raise();
        }
    }

    /// Cleans until the queue is closed or has failed.
    pub(in crate::queue) async fn clean_loop(&self) {
        let mut told = false;
        loop {
            {
                let state = self.0.state.borrow();
                if state.closing || state.poisoned.is_some() {
                    return;
                }
            }
            let victim = choose(&self.0.state.borrow());
            let cleaned = match victim {
                Some(segment) => self.clean(segment).await,
                None => Ok(false),
            };
            match cleaned {
                Ok(true) => told = false,
                // There is nothing to clean now, or no room to do so.
                Ok(false) | Err(QueueError::Full { .. }) => self.0.clean.wait().await,
                // Closed or poisoned: seen above.
                Err(QueueError::Poisoned(_)) => {}
                // Something could not be read, for want of descriptors say: no
                // reason to stop the log, what it writes is looked at elsewhere.
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(
                            target: "ringpost",
                            "{}: cleaning is put off: {error}",
                            self.0.store.describe()
                        );
                    }
                    self.0.clean.wait().await;
                }
            }
        }
    }

    /// Moves what can be moved out of `segment`. False if nothing could.
    async fn clean(&self, segment: u32) -> Result<bool, QueueError> {
        let ids = self.0.state.borrow().index.messages_with_parts_in(segment);
        // Messages come in the order of the segment, and their words mostly so.
        let (messages, words) = (self.0.reader.in_order(), self.0.reader.in_order());
        let mut commits: Vec<Commit> = Vec::new();
        let (mut moved, mut stays) = (false, false);
        for id in ids {
            self.wait_for_credit().await?;
            match self.move_message(id, segment, &messages, &words).await {
                Ok(None) => {}
                Ok(Some(commit)) => {
                    commits.push(commit);
                    moved = true;
                }
                // Settled while it was read: its segments may be others by now.
                Err(QueueError::Damaged { .. } | QueueError::Io { .. }) if self.has_gone(id) => {}
                Err(QueueError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                    // Nothing can be moved out of what somebody took away.
                    stays = true;
                    break;
                }
                Err(QueueError::Damaged { place, what }) => {
                    // Whoever needs the rest of it can still read it.
                    self.quarantine(place, what);
                    stays = true;
                    break;
                }
                Err(QueueError::TooLarge { .. }) => stays = true,
                Err(error) => return Err(error),
            }
            if commits.len() >= UNDER_WAY {
                self.0.urge();
                let oldest: Vec<Commit> = commits.drain(..UNDER_WAY / 2).collect();
                for commit in oldest {
                    commit.await?;
                }
            }
        }
        // What was only taken out for an attempt meanwhile is come back for.
        if !moved && stays {
            // It may have been freed meanwhile.
            let mut state = self.0.state.borrow_mut();
            if let Some(segment) = state.index.segments.get_mut(&segment) {
                segment.futile_at = Some(segment.live_bytes);
            }
        }
        self.0.urge();
        for commit in commits {
            commit.await?;
        }
        self.0.upkeep.raise();
        Ok(moved)
    }

    fn has_gone(&self, id: Place) -> bool {
        self.0.state.borrow().index.get(id).is_none()
    }

    async fn wait_for_credit(&self) -> Result<(), QueueError> {
        loop {
            {
                let mut state = self.0.state.borrow_mut();
                state.writable()?;
                state.clean_waits = state.clean_credit <= 0;
                if !state.clean_waits {
                    return Ok(());
                }
            }
            self.0.urge();
            self.0.clean.wait().await;
        }
    }

    /// Moves a message; `None` if it has gone, or must stay.
    async fn move_message(
        &self,
        id: Place,
        segment: u32,
        messages: &Reader<S>,
        said: &Reader<S>,
    ) -> Result<Option<Commit>, QueueError> {
        let (at, hint, wanted) = {
            let state = self.0.state.borrow();
            let Some(entry) = movable(&state, id) else { return Ok(None) };
            (entry.location(id), entry.first_extent() as usize, last_words(entry))
        };
        self.wait_written(at.commit.unwrap_or(at.first)).await?;
        let told = messages.told(id, at, hint).await?;
        let mut words = Words::new();
        for &(recipient, last) in &wanted {
            self.wait_written(last).await?;
            let word = said.outcome(last, id, at.first, recipient).await;
            if let Ok(Some(word)) = word {
                words.insert((id, recipient, last), word);
            }
        }
        let queue = self.clone();
        let mut moving = Move { queue, id, at, told, wanted, words, pins: Pins::default() };
        if moving.write_parts(segment).await? { moving.finish() } else { Ok(None) }
    }

    /// Keeps a segment as it is for whoever wants to look at it: a record of it
    /// was found damaged.
    pub(in crate::queue) fn quarantine(&self, place: Place, what: &str) {
        let mut state = self.0.state.borrow_mut();
        let state = &mut *state;
        // A segment that was freed meanwhile has been overwritten, not damaged.
        let Some(segment) = state.index.segments.get_mut(&place.segment) else { return };
        state.counters.damaged += 1;
        if !segment.quarantined {
            segment.quarantined = true;
            state.doubted.push(place.segment);
            self.0.upkeep.raise();
            let (segment, offset) = (place.segment, place.offset);
            tracing::error!(
                target: "ringpost",
                "{}: damaged record at offset {offset} of segment {segment:08x}: {what}; the \
                 segment is kept as it is, inspect it with ringpost-segments",
                self.0.store.describe()
            );
        }
    }
}

impl<S: Store> Move<S> {
    /// Writes the parts of the body again that lie in `segment`, one by one. False
    /// if the message has gone meanwhile, or changed.
    async fn write_parts(&mut self, segment: u32) -> Result<bool, QueueError> {
        for index in 0..self.told.extents.len() {
            // Once it is settled its segments may be freed.
            if !self.is_as_it_was(&self.queue.0.state.borrow()) {
                return Ok(false);
            }
            let extent = self.told.extents[index];
            let len = record::CHUNK_PREFIX + extent.len as usize;
            if extent.place.segment != segment {
                self.pin(extent.place, len);
                continue;
            }
            self.queue.wait_for_credit().await?;
            let bytes = self.queue.0.reader.chunk(self.id, extent).await?;
            let (place, commit) = self.put_chunk(&bytes)?;
            self.pin(place, len);
            self.told.extents[index].place = place;
            self.queue.0.urge();
            commit.await?;
        }
        Ok(true)
    }

    fn is_as_it_was(&self, state: &State<S::File>) -> bool {
        movable(state, self.id).is_some_and(|entry| {
            entry.location(self.id) == self.at && last_words(entry) == self.wanted
        })
    }

    fn pin(&mut self, place: Place, len: usize) {
        self.pins.add(&mut self.queue.0.state.borrow_mut().index, place, len);
    }

    fn put_chunk(&self, bytes: &[u8]) -> Result<(Place, Commit), QueueError> {
        let queue = &self.queue.0;
        let mut state = queue.state.borrow_mut();
        state.writable()?;
        let len = record::CHUNK_PREFIX + bytes.len();
        let place = state.make_room(len, Purpose::Moving, || queue.store.space())?;
        let prefix = record::encode_chunk_prefix(self.id);
        state.open_batch().put(Kind::Chunk, 0, [&prefix[..], bytes]);
        spend(&mut state, len);
        state.note(place, What::Chunk { head: self.id, len: bytes.len() as u32 });
        Ok((place, state.commit()))
    }

    /// Writes the record that makes the move; `None` if the message has gone or
    /// changed meanwhile.
    ///
    /// # Errors
    /// `TooLarge` if it does not fit into a record with all that is known of it;
    /// as appends otherwise.
    fn finish(mut self) -> Result<Option<Commit>, QueueError> {
        let queue = self.queue.clone();
        let mut state = queue.0.state.borrow_mut();
        let state = &mut *state;
        state.writable()?;
        let id = self.id;
        if !self.is_as_it_was(state) {
            return Ok(self.give_up(state));
        }
        let entry = state.index.get(id).expect("it is there as it was");
        let known = known(id, entry, &mut self.words);
        let (envelope, part) = self.told.first.split();
        let moved = Moved {
            id,
            size: self.told.size,
            extents: std::mem::take(&mut self.told.extents),
            known,
        };
        let mut head = Vec::new();
        moved.encode(envelope, &mut head);
        let timing = record::timing_of(envelope);
        let (meta, len) = (head.len(), head.len() + part.len());
        let most = META_MAX.min(state.options.record_max() / 2);
        if len > most {
            self.give_up(state);
            return Err(QueueError::TooLarge { bytes: len as u64, limit: most as u64 });
        }
        let first = First {
            meta: meta as u32,
            part: part.len() as u32,
            recipients: entry.recipients().len() as u16,
            arrival_ms: entry.arrival_ms,
        };
        let place = match state.make_room(len, Purpose::Moving, || queue.0.store.space()) {
            Ok(place) => place,
            Err(error) => {
                self.give_up(state);
                return Err(error);
            }
        };
        state.open_batch().put(Kind::Moved, meta, [&head[..], part]);
        spend(state, len);
        self.pins.add(&mut state.index, place, len);
        relocate(state, moved, first, place, self.pins.take());
        state.note_timing(place, id, timing);
        Ok(Some(state.commit()))
    }

    /// Lets go of what was written while the state is borrowed.
    fn give_up<F: StoreFile>(&mut self, state: &mut State<F>) -> Option<Commit> {
        self.pins.release(&mut state.index);
        None
    }
}

/// Where the last outcomes are of those recipients for which something is left to
/// do.
fn last_words(entry: &Entry) -> Vec<(u16, Place)> {
    let recipients = entry.worth_saying();
    recipients
        .filter(|(_, state)| state.status != Status::Done && state.last != NOWHERE)
        .map(|(index, state)| (index, state.last))
        .collect()
}

/// The index and the next checkpoint learn of a move whose record is at `place`.
fn relocate<F: StoreFile>(
    state: &mut State<F>,
    moved: Moved,
    first: First,
    place: Place,
    parts: PartSizes,
) {
    let Moved { id, size, extents, known } = moved;
    let far = Far { at: Location { first: place, commit: None }, size, parts };
    let number = state.batch_number();
    state.index.relocate(id, first.meta, first.part, far, number);
    let known: Vec<Restated> = known.iter().map(Restated::from).collect();
    state.index.words_at(id, &known, place);
    state.counters.messages_moved += 1;
    state.note(place, What::Moved(Box::new(MovedTo { id, first, size, extents, known })));
}

/// Counts a record that a move has written.
fn spend<F: StoreFile>(state: &mut State<F>, len: usize) {
    state.count(len);
    let bytes = aligned(RECORD_HEADER + len) as u64;
    state.counters.bytes_moved += bytes;
    state.clean_credit -= bytes as i64;
}

/// The message, if it may be moved.
fn movable<F: StoreFile>(state: &State<F>, id: Place) -> Option<&Entry> {
    let entry = state.index.get(id)?;
    (!entry.is_out() && !state.reading.contains_key(&id)).then_some(entry)
}

/// The segment that is cheapest to clean, if it is time.
fn choose<F: StoreFile>(state: &State<F>) -> Option<u32> {
    let size = u64::from(state.options.segment_size);
    let used = state.index.segments.len() as u64 * size;
    let needed = state.index.live_bytes();
    if state.loading || used * 100 <= needed * SLACK_PERCENT + SLACK_SEGMENTS * size * 100 {
        return None;
    }
    let sealed = state.index.segments.range(..state.tail.segment);
    let mut candidates: Vec<(u64, u32)> = sealed
        .filter(|(_, segment)| {
            segment.needed > 0
                && segment.live_bytes * 100 < size * WORTH_PERCENT
                && segment.futile_at != Some(segment.live_bytes)
                && segment.settled_in <= state.flushed
                && !(segment.quarantined || segment.releasing || segment.unread)
        })
        .map(|(&number, segment)| (segment.live_bytes, number))
        .collect();
    candidates.sort_unstable();
    let has_movable = |segment: &u32| {
        let ids = state.index.messages_with_parts_in(*segment);
        ids.into_iter().any(|id| movable(state, id).is_some())
    };
    candidates.into_iter().take(CANDIDATES).map(|(_, segment)| segment).find(has_movable)
}
