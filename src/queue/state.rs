//! The state of a running queue that its parts share: where the log ends, the
//! batches on their way, the segments in use and prepared. No I/O here.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;

use super::PREFIX_MAX;
use super::batch::{BATCH_PREFIX, Batch, Commit, Ticket};
use super::checkpoint::Draft;
use super::error::QueueError;
use super::fact::{Fact, Timing, What};
use super::format::{DATA_START, Kind, RECORD_HEADER, Seal, aligned};
use super::index::Index;
use super::options::{QueueCounters, QueueOptions, SegmentStats};
use super::record;
use crate::base::{Durability, Place};
use crate::io::store::{BLOCK, Space, StoreFile};

/// Size of the buffer of a batch, unless a record needs more.
const BATCH_LEN: usize = 512 * 1024;
/// Bytes that wait for the disk past which streams wait too, and appends that
/// otherwise need not.
pub(super) const BACKLOG_MAX: usize = 8 << 20;
/// Size of a message for which there is always room unless the queue is full.
pub(super) const TYPICAL_RECORD: usize = 4096;

/// A batch whose write or flush is under way.
pub(super) struct InFlight {
    pub(super) number: u64,
    pub(super) start: Place,
    pub(super) end: Place,
    pub(super) ticket: Rc<Ticket>,
}

/// What an append is for: new mail leaves room for what settles the old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Mail,
    Settling,
    /// Cleaning, which makes room only in the end: until then it leaves the last
    /// of it to outcomes.
    Moving,
}

/// The state of a running queue.
pub(super) struct State<F: StoreFile> {
    pub(super) options: QueueOptions,
    /// Where the next batch begins.
    pub(super) tail: Place,
    /// The batch that takes records.
    pub(super) open: Option<Batch<F::Buf>>,
    /// Batches that wait for the committer.
    pub(super) sealed: VecDeque<Batch<F::Buf>>,
    /// Batches that the committer has in hand.
    pub(super) in_flight: Vec<InFlight>,
    /// Number of the next batch.
    pub(super) next_batch: u64,
    /// Every batch up to this is durable.
    pub(super) flushed: u64,
    /// Everything before this is durable.
    pub(super) durable: Place,
    /// Where the last batch given to the committer ends.
    pub(super) previous: Place,
    /// Bytes in batches that are not yet durable.
    pub(super) backlog: usize,
    /// Segments open for writing.
    pub(super) files: BTreeMap<u32, Rc<F>>,
    /// The last segment whose file is ready.
    pub(super) prepared: u32,
    /// Old numbers of the files that wait to be used again.
    pub(super) spares: Vec<u32>,
    /// One of them may be removed if they are too many.
    pub(super) may_trim: bool,
    /// Records appended when that was last asked.
    pub(super) appends_at_trim: u64,
    /// The segments that the newest roster names, and the batch it is in. A file
    /// that was one of them keeps its name until a newer roster is durable: else
    /// the next start would miss it.
    pub(super) roster: Vec<u32>,
    pub(super) rostered_in: u64,
    pub(super) index: Index,
    /// What the records of the current segment say, for its checkpoint.
    facts: Vec<Fact>,
    /// Where the segment before the current one ended.
    came_from: Place,
    /// Completed segments whose checkpoints are to be written.
    pub(super) drafts: VecDeque<Draft>,
    /// Segments found damaged whose checkpoints are to say so.
    pub(super) doubted: Vec<u32>,
    /// What is queued from before the start is not known yet.
    pub(super) loading: bool,
    /// Segments that are still to be read to know it.
    pub(super) left_unread: u64,
    /// Bytes that may be written to move messages.
    pub(super) clean_credit: i64,
    /// Cleaning waits until it may write more.
    pub(super) clean_waits: bool,
    /// Messages that are being read and must stay where they are, and how often.
    pub(super) reading: BTreeMap<Place, u32>,
    pub(super) counters: QueueCounters,
    pub(super) poisoned: Option<Rc<str>>,
    pub(super) closing: bool,
    pub(super) upkeep_done: bool,
    /// Scratch for envelopes, prefixes and small payloads.
    pub(super) scratch: Vec<u8>,
    pub(super) prefix: Vec<u8>,
    salts: RandomState,
}

impl<F: StoreFile> State<F> {
    /// A log whose next batch begins at `tail`, a segment that is still to be
    /// prepared.
    pub(super) fn new(options: QueueOptions, index: Index, tail: Place, previous: Place) -> Self {
        State {
            options,
            tail,
            open: None,
            sealed: VecDeque::new(),
            in_flight: Vec::new(),
            next_batch: 1,
            flushed: 0,
            durable: previous,
            previous,
            backlog: 0,
            files: BTreeMap::new(),
            prepared: tail.segment - 1,
            spares: Vec::new(),
            may_trim: false,
            appends_at_trim: 0,
            roster: Vec::new(),
            rostered_in: 0,
            index,
            facts: Vec::new(),
            came_from: previous,
            drafts: VecDeque::new(),
            doubted: Vec::new(),
            loading: false,
            left_unread: 0,
            clean_credit: 0,
            clean_waits: false,
            reading: BTreeMap::new(),
            counters: QueueCounters::default(),
            poisoned: None,
            closing: false,
            upkeep_done: false,
            scratch: Vec::new(),
            prefix: Vec::with_capacity(PREFIX_MAX),
            salts: RandomState::new(),
        }
    }

    /// The salt of a segment that this process prepares.
    pub(super) fn salt(&self, segment: u32) -> u64 {
        self.salts.hash_one(segment)
    }

    /// Whether anything may be appended.
    pub(super) fn writable(&self) -> Result<(), QueueError> {
        match &self.poisoned {
            Some(why) => Err(QueueError::Poisoned(why.to_string())),
            None if self.closing => Err(QueueError::Poisoned("the queue is closed".into())),
            None => Ok(()),
        }
    }

    /// Where the next record will lie if it fits into the open batch.
    fn next(&self) -> Place {
        self.open.as_ref().map_or(self.tail, Batch::next)
    }

    /// Whether a segment beyond the current one is to be had.
    pub(super) fn can_grow(
        &self,
        purpose: Purpose,
        space: impl FnOnce() -> std::io::Result<Space>,
    ) -> Result<(), QueueError> {
        // Segments that are promised already and have no file yet.
        let promised =
            if self.has_promised() { self.tail.segment - self.prepared } else { 0 } as usize;
        if self.prepared > self.tail.segment || self.spares.len() > promised {
            return Ok(());
        }
        let reserve = if purpose == Purpose::Mail { self.options.reserve } else { 0 };
        let lacking = (promised + 1 - self.spares.len()) as u64;
        let needed = lacking * u64::from(self.options.segment_size) + reserve;
        let available =
            space().map_err(QueueError::io("reading the room on the queue's filesystem"))?;
        if available.available < needed {
            return Err(QueueError::Full { needed, available: available.available });
        }
        Ok(())
    }

    /// Whether new mail of `need` bytes leaves room for outcomes.
    pub(super) fn admits(
        &self,
        need: usize,
        space: impl FnOnce() -> std::io::Result<Space>,
    ) -> Result<(), QueueError> {
        self.leaves_room(need, Purpose::Mail, space)
    }

    fn leaves_room(
        &self,
        need: usize,
        purpose: Purpose,
        space: impl FnOnce() -> std::io::Result<Space>,
    ) -> Result<(), QueueError> {
        if self.lacks_a_segment() {
            return self.refuse_for_want_of_one(purpose, space);
        }
        let used = self.next().offset as usize + need + BATCH_PREFIX + BLOCK;
        if self.options.segment_size as usize >= used + self.options.outcome_room() {
            return Ok(());
        }
        self.can_grow(purpose, space)
    }

    /// Makes sure that the open batch takes a record with a payload of `len`
    /// bytes, in the next segment if need be. Returns the record's place.
    pub(super) fn make_room(
        &mut self,
        len: usize,
        purpose: Purpose,
        space: impl Fn() -> std::io::Result<Space>,
    ) -> Result<Place, QueueError> {
        let need = aligned(RECORD_HEADER + len);
        let limit = self.options.record_max();
        if need > limit {
            return Err(QueueError::TooLarge { bytes: need as u64, limit: limit as u64 });
        }
        if purpose != Purpose::Settling {
            self.leaves_room(need, purpose, &space)?;
        }
        if let Some(open) = self.open.as_ref().filter(|open| open.room() >= need) {
            return Ok(open.next());
        }
        self.seal();
        if self.lacks_a_segment() {
            self.refuse_for_want_of_one(purpose, &space)?;
        }
        let left = self.options.segment_size as usize - self.tail.offset as usize;
        if left < BATCH_PREFIX + need {
            self.can_grow(purpose, &space)?;
            self.end_segment();
        }
        Ok(self.begin_batch(need))
    }

    /// Why nothing can be appended before there is a segment. Upkeep goes on
    /// trying to make it.
    fn refuse_for_want_of_one(
        &self,
        purpose: Purpose,
        space: impl FnOnce() -> std::io::Result<Space>,
    ) -> Result<(), QueueError> {
        self.can_grow(purpose, space)?;
        let needed = u64::from(self.options.segment_size);
        Err(QueueError::Full { needed, available: 0 })
    }

    /// Goes on in the next segment.
    fn end_segment(&mut self) {
        let Place { segment, offset } = self.tail;
        self.index.sealed(segment);
        self.drafts.push_back(Draft {
            segment,
            seal: self.seal_of(segment),
            end: offset,
            previous: self.came_from,
            batch: self.next_batch - 1,
            facts: std::mem::take(&mut self.facts),
        });
        self.came_from = self.tail;
        self.tail = Place { segment: segment + 1, offset: DATA_START };
    }

    fn seal_of(&self, segment: u32) -> Seal {
        Seal::new(self.options.log, segment, self.salt(segment))
    }

    fn begin_batch(&mut self, need: usize) -> Place {
        let left = self.options.segment_size as usize - self.tail.offset as usize;
        self.index.segment(self.tail.segment);
        let roster = self
            .roster()
            .filter(|bytes| left >= BATCH_PREFIX + aligned(RECORD_HEADER + bytes.len()) + need);
        let before = roster.as_ref().map_or(0, |bytes| aligned(RECORD_HEADER + bytes.len()));
        let len = BATCH_PREFIX + before + need;
        let len = len.next_multiple_of(BLOCK).max(BATCH_LEN).min(left);
        let file = self.files.values().next_back().expect("the last segment stays open");
        let buf = file.alloc(len);
        let segment = self.tail.segment;
        let mut batch = Batch::new(self.next_batch, self.tail, self.seal_of(segment), buf);
        self.next_batch += 1;
        self.index.segment(segment).settled_in = batch.number;
        if let Some(bytes) = roster {
            self.roster = self.index.segments.keys().copied().collect();
            self.rostered_in = batch.number;
            let what = What::Roster(Box::new(self.roster.clone()));
            self.facts.push(Fact { at: batch.next().offset, what });
            batch.put(Kind::Roster, 0, [&bytes[..]]);
        }
        let place = batch.next();
        self.open = Some(batch);
        place
    }

    /// What the first record of a segment says: which segments are in use.
    fn roster(&self) -> Option<Vec<u8>> {
        if self.tail.offset != DATA_START {
            return None;
        }
        let mut bytes = Vec::new();
        record::encode_roster(self.index.segments.keys().copied(), &mut bytes);
        Some(bytes)
    }

    /// Keeps what a record at `place` says for the checkpoint of its segment,
    /// the current one.
    pub(super) fn note(&mut self, place: Place, what: What) {
        debug_assert_eq!(place.segment, self.tail.segment, "records go to the last segment");
        self.facts.push(Fact { at: place.offset, what });
    }

    /// Keeps what the terms of a message say for the checkpoint too, if they say
    /// something. `message` is as in [`What::Timing`].
    pub(super) fn note_timing(&mut self, place: Place, message: Place, timing: Timing) {
        if !timing.is_usual() {
            self.note(place, What::Timing { message, timing });
        }
    }

    /// New mail lets cleaning keep up with it.
    pub(super) fn mail_came(&mut self, bytes: usize) {
        if self.options.mail_allows_cleaning {
            self.allow_cleaning(bytes as u64);
        }
    }

    /// Lets cleaning write `bytes` more; what is not used is kept up to a
    /// segment's worth.
    pub(super) fn allow_cleaning(&mut self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let most = i64::from(self.options.segment_size);
        self.clean_credit = self.clean_credit.saturating_add(bytes).min(most);
    }

    /// True after a start without room for a segment, until there is one.
    pub(super) fn lacks_a_segment(&self) -> bool {
        self.files.is_empty()
    }

    /// True while something waits to be written to a segment that has no file
    /// yet.
    pub(super) fn has_promised(&self) -> bool {
        let begun = self.tail.offset > DATA_START || self.open.is_some();
        self.prepared < self.tail.segment && begun
    }

    /// The open batch; [`State::make_room`] has just made sure of it.
    pub(super) fn open_batch(&mut self) -> &mut Batch<F::Buf> {
        self.open.as_mut().expect("room has been made")
    }

    /// Counts a record of `len` bytes of payload that went into the open batch.
    pub(super) fn count(&mut self, len: usize) {
        let bytes = aligned(RECORD_HEADER + len);
        self.counters.appends += 1;
        self.counters.bytes_appended += bytes as u64;
        self.backlog += bytes;
    }

    /// The commit of what has just gone into the open batch.
    pub(super) fn commit(&self) -> Commit {
        let unheld = self.options.durability == Durability::Memory && self.backlog < BACKLOG_MAX;
        match &self.open {
            Some(open) if !unheld => Commit::of(&open.ticket),
            _ => Commit::resolved(),
        }
    }

    /// Number of the batch that takes records.
    pub(super) fn batch_number(&self) -> u64 {
        self.open.as_ref().map_or(self.next_batch, |open| open.number)
    }

    /// Hands the open batch to the committer.
    pub(super) fn seal(&mut self) {
        if let Some(open) = self.open.take() {
            self.tail = open.end();
            self.sealed.push_back(open);
        }
    }

    /// The batch that contains `place`, if it is not yet written.
    pub(super) fn unwritten(&self, place: Place) -> Option<Commit> {
        let waiting = self.sealed.iter().chain(&self.open);
        let waiting = waiting.map(|batch| (batch.place, batch.end(), &batch.ticket));
        let flying = self.in_flight.iter().map(|batch| (batch.start, batch.end, &batch.ticket));
        flying
            .chain(waiting)
            .find(|(start, end, _)| (*start..*end).contains(&place))
            .map(|(_, _, ticket)| Commit::of(ticket))
    }

    /// The batch that has waited longest.
    pub(super) fn oldest(&self) -> Option<Commit> {
        let flying = self.in_flight.first().map(|batch| &batch.ticket);
        let ticket = flying.or_else(|| self.sealed.front().map(|batch| &batch.ticket))?;
        Some(Commit::of(ticket))
    }

    /// Gives up: what waits fails, and nothing is written any more. Returns the
    /// tickets, to be failed when the state is no longer borrowed.
    pub(super) fn poison(&mut self, why: &Rc<str>) -> Vec<Rc<Ticket>> {
        if self.poisoned.is_none() {
            self.poisoned = Some(Rc::clone(why));
            self.counters.failures += 1;
        }
        let waiting = self.sealed.drain(..).chain(self.open.take()).map(|batch| batch.ticket);
        self.in_flight.drain(..).map(|batch| batch.ticket).chain(waiting).collect()
    }

    /// A file that is to be removed: one that is more than is kept, and that
    /// nobody would miss.
    pub(super) fn take_excess(&mut self) -> Option<u32> {
        let settled = !self.loading && self.rostered_in <= self.flushed;
        let excess = self.spares.len() > self.options.spares_max;
        if !(std::mem::take(&mut self.may_trim) && settled && excess) {
            return None;
        }
        let roster = &self.roster;
        let at = self.spares.iter().rposition(|spare| roster.binary_search(spare).is_err())?;
        Some(self.spares.remove(at))
    }

    /// Figures about files.
    pub(super) fn segment_stats(&self) -> SegmentStats {
        let quarantined = self.index.segments.values().filter(|segment| segment.quarantined);
        SegmentStats {
            in_use: self.index.segments.len() as u64,
            prepared: u64::from(self.prepared.saturating_sub(self.tail.segment)),
            spare: self.spares.len() as u64,
            quarantined: quarantined.count() as u64,
            segment_size: u64::from(self.options.segment_size),
            live_bytes: self.index.live_bytes(),
            unread: self.left_unread,
        }
    }
}
