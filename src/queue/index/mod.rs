//! What is queued, in memory. A message costs an [`Entry`] and, while it waits
//! for a retry, one element of a heap; its addresses, its body and the words of
//! its last outcome stay in the log.
//!
//! Messages are found by their ids, the places where they were first written: a
//! *home* for each segment that ids name, in it the entries by offset, in the
//! order of the log, so that look-up is a binary search and listing a walk.
//! Beside that, for each segment on disk, what it is needed for.
//!
//! Recovery and the running queue change the index through the same functions.

mod entry;
mod home;
mod schedule;
mod segment;
mod settle;

use std::collections::BTreeMap;

pub(super) use entry::{Entry, Far, PartSizes, RecipientState, Status};
use home::Home;
use schedule::Schedule;
pub(super) use segment::Segment;

use crate::base::{Location, Place};

/// All that is queued in one log.
#[derive(Default)]
pub(super) struct Index {
    /// Every segment on disk that is in use, the one being written too.
    pub(super) segments: BTreeMap<u32, Segment>,
    homes: BTreeMap<u32, Home>,
    schedule: Schedule,
    live: usize,
    bytes: u64,
    live_bytes: u64,
    /// A segment may have become free since this was last cleared.
    pub(super) stirred: bool,
}

impl Index {
    /// Messages queued.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Bytes of their bodies.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of the records that hold them.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// The message with this id, if it is queued.
    pub(super) fn get(&self, id: Place) -> Option<&Entry> {
        self.homes.get(&id.segment)?.get(id.offset)
    }

    fn get_mut(&mut self, id: Place) -> Option<&mut Entry> {
        self.homes.get_mut(&id.segment)?.get_mut(id.offset)
    }

    /// The segment, begun if it is new.
    pub(super) fn segment(&mut self, segment: u32) -> &mut Segment {
        self.segments.entry(segment).or_default()
    }

    /// Adds a message. The parts of a far one are pinned already.
    pub(super) fn insert(&mut self, id: Place, entry: Entry) {
        self.live += 1;
        self.bytes += entry.size();
        match &entry.far {
            None => self.pin(id.segment, entry.first_extent(), true),
            Some(far) => {
                for &(segment, _) in &far.parts {
                    self.segments.entry(segment).or_default().far.push(id);
                }
            }
        }
        self.schedule.push(entry.next_due(), id);
        self.homes.entry(id.segment).or_default().insert(id.offset, entry);
        self.tidy_schedule();
    }

    /// A message has `bytes` more of records in `segment`; `first` if it had none
    /// there before.
    pub(super) fn pin(&mut self, segment: u32, bytes: u64, first: bool) {
        let segment = self.segment(segment);
        segment.needed += u32::from(first);
        segment.live_bytes += bytes;
        self.live_bytes += bytes;
    }

    /// A message less has records in `segment`, as `batch` will say.
    pub(super) fn unpin(&mut self, segment: u32, bytes: u64, batch: u64) {
        let segment = self.segment(segment);
        segment.needed -= 1;
        segment.live_bytes -= bytes;
        segment.settled_in = segment.settled_in.max(batch);
        let dead = segment.is_dead();
        self.stirred |= dead;
        self.live_bytes -= bytes;
    }

    /// Forgets a message, as `batch` will say.
    pub(super) fn remove(&mut self, id: Place, batch: u64) {
        let Some(home) = self.homes.get_mut(&id.segment) else { return };
        let Some(entry) = home.take(id.offset) else { return };
        if home.is_empty() {
            self.homes.remove(&id.segment);
        }
        self.live -= 1;
        self.bytes -= entry.size();
        self.release_parts(id, &entry, batch);
    }

    fn release_parts(&mut self, id: Place, entry: &Entry, batch: u64) {
        match &entry.far {
            None => self.unpin(id.segment, entry.first_extent(), batch),
            Some(far) => {
                for &(segment, bytes) in &far.parts {
                    self.unpin(segment, bytes, batch);
                }
            }
        }
    }

    /// Nothing more will be appended to `segment`.
    pub(super) fn sealed(&mut self, segment: u32) {
        if let Some(home) = self.homes.get_mut(&segment) {
            home.shrink();
        }
        self.segment(segment).far.shrink_to_fit();
        self.stirred = true;
    }

    /// The message has moved, and nothing is needed of it where it was once
    /// `batch` is durable. Its new parts are pinned already.
    pub(super) fn relocate(&mut self, id: Place, meta: u32, part: u32, far: Far, batch: u64) {
        let Some(mut entry) = self.homes.get_mut(&id.segment).and_then(|h| h.take(id.offset))
        else {
            return;
        };
        self.release_parts(id, &entry, batch);
        let from = entry.location(id).first.segment;
        let to = far.at.first.segment;
        if from != to && self.segments.contains_key(&from) {
            self.segment(to).refs.insert(from);
        }
        for &(segment, _) in &far.parts {
            self.segment(segment).far.push(id);
        }
        entry.meta = meta;
        entry.part = part;
        entry.far = Some(Box::new(far));
        self.homes.entry(id.segment).or_default().insert(id.offset, entry);
    }

    /// The messages that have records in `segment`, by id, each once.
    pub(super) fn messages_with_parts_in(&self, segment: u32) -> Vec<Place> {
        let at_home = self.homes.get(&segment).into_iter().flat_map(|home| home.after(0));
        let mut ids: Vec<Place> = at_home
            .filter(|(_, entry)| entry.far.is_none())
            .map(|(offset, _)| Place { segment, offset })
            .collect();
        let far = self.segments.get(&segment).map(|segment| &segment.far[..]).unwrap_or_default();
        ids.extend(far.iter().filter(|&&id| {
            let entry = self.get(id).and_then(|entry| entry.far.as_ref());
            entry.is_some_and(|far| far.parts.iter().any(|&(part, _)| part == segment))
        }));
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The messages whose first record lies in `segment`: its offset and the id,
    /// by offset.
    pub(super) fn messages_in(&self, segment: u32) -> Vec<(u32, Place)> {
        let all = self.messages_with_parts_in(segment).into_iter();
        let mut found: Vec<(u32, Place)> = all
            .filter_map(|id| {
                let Location { first, .. } = self.get(id)?.location(id);
                (first.segment == segment).then_some((first.offset, id))
            })
            .collect();
        found.sort_unstable();
        found
    }

    /// Ids of live messages after `after`, in order.
    pub(super) fn ids_after(&self, after: Place) -> impl Iterator<Item = Place> {
        entries_after(&self.homes, after).map(|(id, _)| id)
    }

    /// Takes over what was found on disk, for the segments that were unread so
    /// far.
    pub(super) fn absorb(&mut self, found: Index) {
        for (number, segment) in found.segments {
            self.segments.insert(number, segment);
        }
        for (number, home) in found.homes {
            debug_assert!(!self.homes.contains_key(&number), "a segment is read once");
            self.homes.insert(number, home);
        }
        self.live += found.live;
        self.bytes += found.bytes;
        self.live_bytes += found.live_bytes;
        self.schedule.absorb(found.schedule);
        self.stirred = true;
    }
}

/// Live messages after `after`, in order.
fn entries_after(
    homes: &BTreeMap<u32, Home>,
    after: Place,
) -> impl Iterator<Item = (Place, &Entry)> {
    homes.range(after.segment..).flat_map(move |(&segment, home)| {
        let from = if segment == after.segment { after.offset.saturating_add(1) } else { 0 };
        home.after(from).map(move |(offset, entry)| (Place { segment, offset }, entry))
    })
}
