//! The single pass that rebuilds the index from facts, in the order of the log.

use std::collections::{BTreeMap, HashMap};

use super::{Damage, RecoveryReport};
use crate::base::{Location, Place, UnixMillis};
use crate::io::store::Store;
use crate::queue::fact::{Committed, Fact, First, MovedTo, Timing, What};
use crate::queue::format::{RECORD_HEADER, aligned};
use crate::queue::index::{Entry, Far, Index, Status};
use crate::queue::record::{CHUNK_PREFIX, Extent, NOWHERE};
use crate::queue::stream::Pins;

/// Facts or messages dealt with between two pauses: less than a millisecond's
/// worth.
pub(super) const STRIDE: usize = 4096;

/// See the module's comment.
pub(super) struct Replay {
    now: UnixMillis,
    index: Index,
    /// Heads whose commit has not been seen.
    heads: HashMap<Place, (First, Timing)>,
    /// Parts of bodies: the message, and bytes of body.
    chunks: HashMap<Place, (Place, u32)>,
    /// Where the parts of live streamed messages should be: by id, the record
    /// that says so and its length.
    promised: BTreeMap<Place, (Vec<Extent>, Place, u32)>,
    /// Where the sound records of each segment end.
    ends: BTreeMap<u32, u32>,
    roster: Vec<u32>,
}

impl Replay {
    pub(super) fn new(now: UnixMillis) -> Self {
        Replay {
            now,
            index: Index::for_replay(),
            heads: HashMap::new(),
            chunks: HashMap::new(),
            promised: BTreeMap::new(),
            ends: BTreeMap::new(),
            roster: Vec::new(),
        }
    }

    /// The segments that were in use when the last one was begun.
    pub(super) fn roster(&self) -> &[u32] {
        &self.roster
    }

    /// Goes on to a segment; `previous` is where the log ended before it.
    pub(super) fn begin_segment(
        &mut self,
        number: u32,
        previous: Option<Place>,
        report: &mut RecoveryReport,
    ) {
        self.index.segment(number);
        if let Some(previous) = previous {
            self.expect_end(previous, "the end of the segment is missing", report);
        }
    }

    /// The records of a segment end there.
    pub(super) fn end_segment(&mut self, number: u32, end: u32) {
        self.ends.insert(number, end);
        self.index.sealed(number);
    }

    /// Reports what is missing if the records of a segment that is still there
    /// end before `expected`.
    fn expect_end(&mut self, expected: Place, what: &'static str, report: &mut RecoveryReport) {
        if let Some(&end) = self.ends.get(&expected.segment)
            && end < expected.offset
        {
            self.damage(expected.segment, end, expected.offset - end, what, report);
            self.ends.insert(expected.segment, expected.offset);
        }
    }

    /// Reports damage, and keeps the segment.
    pub(super) fn damage(
        &mut self,
        segment: u32,
        offset: u32,
        len: u32,
        what: &'static str,
        report: &mut RecoveryReport,
    ) {
        if let Some(segment) = self.index.segments.get_mut(&segment) {
            segment.quarantined = true;
        }
        report.damage.push(Damage { segment, offset, len, what });
    }

    /// Applies the facts of a segment, with pauses: how many they were.
    pub(super) async fn apply_all<S: Store>(
        &mut self,
        store: &S,
        segment: u32,
        facts: impl Iterator<Item = Fact>,
    ) -> u64 {
        let mut applied = 0u64;
        for fact in facts {
            self.apply(segment, fact);
            applied += 1;
            if applied.is_multiple_of(STRIDE as u64) {
                store.pause().await;
            }
        }
        applied
    }

    /// Applies the next fact of a segment.
    fn apply(&mut self, segment: u32, fact: Fact) {
        let place = Place { segment, offset: fact.at };
        match fact.what {
            What::Message(first) => {
                let entry = Entry::new(first, Status::Pending, self.now.0);
                self.index.insert(place, entry);
            }
            What::Head(first) => {
                self.heads.insert(place, (first, Timing::default()));
            }
            What::Chunk { head, len } => {
                self.chunks.insert(place, (head, len));
            }
            What::Commit(commit) => self.commit(place, *commit),
            What::Outcome { message, ruling } => {
                self.index.apply(message, [ruling], place, 0);
            }
            What::Survivors(survivors) => self.index.apply_survivors(&survivors, place),
            What::Moved(moved) => self.moved(place, *moved),
            What::Order(order) => {
                let (id, to) = (order.message, &order.recipients);
                self.index.hold(id, to, order.hold, order.at_ms, place);
            }
            What::Roster(segments) => self.roster = *segments,
            What::Timing { message, timing } => {
                let message = if message == NOWHERE { place } else { message };
                match self.heads.get_mut(&message) {
                    Some((_, of_head)) => *of_head = timing,
                    None => self.index.time(message, timing, self.now.0),
                }
            }
        }
    }

    fn commit(&mut self, place: Place, commit: Committed) {
        // Without its head the message was settled, and the head's segment
        // freed: only then is it gone.
        let Some((first, timing)) = self.heads.remove(&commit.head) else { return };
        let mut pins = Pins::default();
        pins.add(&mut self.index, commit.head, (first.meta + first.part) as usize);
        self.pin_extents(&mut pins, &commit.extents);
        pins.add(&mut self.index, place, commit.extent as usize - RECORD_HEADER);
        let at = Location { first: commit.head, commit: Some(place) };
        let mut entry = Entry::new(first, Status::Pending, self.now.0);
        entry.far = Some(Box::new(Far { at, size: commit.size, parts: pins.take() }));
        self.index.insert(commit.head, entry);
        self.index.time(commit.head, timing, self.now.0);
        self.promised.insert(commit.head, (commit.extents, place, commit.extent));
    }

    fn pin_extents(&mut self, pins: &mut Pins, extents: &[Extent]) {
        for extent in extents {
            // Gone with what lay there, if the message was settled since.
            if self.index.segments.contains_key(&extent.place.segment) {
                pins.add(&mut self.index, extent.place, CHUNK_PREFIX + extent.len as usize);
            }
        }
    }

    fn moved(&mut self, place: Place, moved: MovedTo) {
        let MovedTo { id, first, size, extents, known } = moved;
        let len = (first.meta + first.part) as usize;
        let mut pins = Pins::default();
        self.pin_extents(&mut pins, &extents);
        pins.add(&mut self.index, place, len);
        let far = Far { at: Location { first: place, commit: None }, size, parts: pins.take() };
        if self.index.get(id).is_some() {
            self.index.relocate(id, first.meta, first.part, far, 0);
        } else {
            // A head that lost its commit to a segment that was freed.
            self.heads.remove(&id);
            let mut entry = Entry::new(first, Status::Pending, self.now.0);
            entry.far = Some(Box::new(far));
            self.index.insert(id, entry);
        }
        self.index.restate(id, &known, place);
        self.promised.remove(&id);
        if !extents.is_empty() {
            let extent = aligned(RECORD_HEADER + len) as u32;
            self.promised.insert(id, (extents, place, extent));
        }
    }

    /// Everything has been applied; the log ends at `end`.
    pub(super) fn end(&mut self, end: Place, report: &mut RecoveryReport) {
        self.expect_end(end, "no sound record before the end of the log", report);
    }

    /// Looks whether the parts of streamed messages are there, for `limit` of
    /// them. False once there are no more.
    pub(super) fn check_parts(&mut self, limit: usize, report: &mut RecoveryReport) -> bool {
        for _ in 0..limit {
            let Some((id, (extents, at, len))) = self.promised.pop_first() else { return false };
            let Some(entry) = self.index.get(id) else { continue };
            let is_there =
                |extent: &Extent| self.chunks.get(&extent.place) == Some(&(id, extent.len));
            let listed: u64 = extents.iter().map(|extent| u64::from(extent.len)).sum();
            let whole = listed + u64::from(entry.part) == entry.size();
            if !(whole && extents.iter().all(is_there)) {
                let what = "a streamed message of which parts are missing";
                self.damage(at.segment, at.offset, len, what, report);
                self.index.remove(id, 0);
            }
        }
        true
    }

    /// The index, once everything has been applied and checked. Nothing in it is
    /// scheduled yet.
    pub(super) fn finish(mut self, report: &mut RecoveryReport) -> Index {
        report.unfinished = self.heads.len() as u64;
        report.messages = self.index.live() as u64;
        report.bytes = self.index.bytes();
        self.index.stirred = true;
        self.index
    }
}
