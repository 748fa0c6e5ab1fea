//! What is queued, in memory: for each segment the live messages that begin in
//! it, by offset, and what the segment is still needed for. A message costs an
//! [`Entry`] and, while it waits for a retry, one element of a heap; its
//! addresses, its body and the words of its last outcome stay in the log.
//!
//! Entries of a segment are appended in the order of the log, so that a vector
//! stays sorted by itself: look-up is a binary search, listing a walk.
//! Recovery and the running queue change the index through the same functions.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use smallvec::SmallVec;

use super::record::{EnvelopeFacts, NOWHERE, Survivors};
use crate::base::{Outcome, Place, UnixMillis};

/// What is left to do for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// Waits for `next_ms`.
    Pending,
    /// Given to the relay.
    Out,
    /// Nothing.
    Done,
}

/// A recipient of a queued message.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecipientState {
    /// The record that holds its last outcome; [`NOWHERE`] for none.
    pub(super) last: Place,
    /// When it is due.
    pub(super) next_ms: u64,
    pub(super) attempts: u16,
    pub(super) status: Status,
}

/// The recipients of a message: nearly always one.
enum Recipients {
    One(RecipientState),
    Many(Box<[RecipientState]>),
}

/// More about a streamed message.
pub(super) struct Streamed {
    /// Its commit record.
    pub(super) commit: Place,
    /// Bytes of the whole body.
    pub(super) size: u64,
    /// Segments that hold parts of it.
    pub(super) pins: Vec<u32>,
}

/// A queued message.
pub(super) struct Entry {
    /// Bytes of the envelope in that record.
    pub(super) meta: u32,
    /// Bytes of body in that record.
    pub(super) part: u32,
    pub(super) arrival_ms: u64,
    recipients: Recipients,
    pub(super) streamed: Option<Box<Streamed>>,
}

const _: () =
    assert!(size_of::<Option<Entry>>() <= 48, "RAM of a queued message: see docs/durability.md");

impl Entry {
    /// A whole message, or the head of a streamed one.
    pub(super) fn new(
        meta: u32,
        part: u32,
        facts: EnvelopeFacts,
        status: Status,
        due: UnixMillis,
    ) -> Self {
        let state = RecipientState { last: NOWHERE, next_ms: due.0, attempts: 0, status };
        let recipients = match facts.recipients {
            1 => Recipients::One(state),
            many => Recipients::Many(vec![state; usize::from(many)].into()),
        };
        Entry { meta, part, arrival_ms: facts.arrival_ms, recipients, streamed: None }
    }

    /// Bytes of the whole body.
    pub(super) fn size(&self) -> u64 {
        self.streamed.as_ref().map_or(u64::from(self.part), |streamed| streamed.size)
    }

    /// Its recipients; an index is what outcomes name them by.
    pub(super) fn recipients(&self) -> &[RecipientState] {
        match &self.recipients {
            Recipients::One(one) => std::slice::from_ref(one),
            Recipients::Many(many) => many,
        }
    }

    fn recipients_mut(&mut self) -> &mut [RecipientState] {
        match &mut self.recipients {
            Recipients::One(one) => std::slice::from_mut(one),
            Recipients::Many(many) => many,
        }
    }

    fn is_settled(&self) -> bool {
        self.recipients().iter().all(|recipient| recipient.status == Status::Done)
    }
}

/// A segment, as far as the index is concerned.
#[derive(Default)]
pub(super) struct Segment {
    /// Offsets of the messages that begin here, in order, settled ones too
    /// until they are swept out.
    offsets: Vec<u32>,
    /// The messages at those offsets; `None` once settled.
    entries: Vec<Option<Entry>>,
    vacant: usize,
    /// Parts of streamed messages, live or still coming, that lie here.
    pub(super) pins: u32,
    /// Other segments about whose messages records here say something.
    pub(super) refs: BTreeSet<u32>,
    /// The last batch that wrote here, or on which its being settled depends.
    pub(super) settled_in: u64,
    /// Some of its bytes are damaged: it is kept as it is.
    pub(super) quarantined: bool,
    /// Survivors are on their way to disk so that it may be let go.
    pub(super) releasing: bool,
}

impl Segment {
    /// Live messages that begin here.
    pub(super) fn live(&self) -> usize {
        self.entries.len() - self.vacant
    }

    /// True if nothing that is stored here itself is needed; records about
    /// other segments may be.
    pub(super) fn is_dead(&self) -> bool {
        self.live() == 0 && self.pins == 0 && !self.quarantined
    }

    /// The live messages, by offset.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Entry)> {
        self.after(0)
    }

    /// The live messages at `offset` and after.
    fn after(&self, offset: u32) -> impl Iterator<Item = (u32, &Entry)> {
        let from = self.offsets.partition_point(|&at| at < offset);
        let pairs = self.offsets[from..].iter().zip(&self.entries[from..]);
        pairs.filter_map(|(&at, entry)| Some((at, entry.as_ref()?)))
    }

    fn insert(&mut self, offset: u32, entry: Entry) {
        let at = self.offsets.partition_point(|&other| other < offset);
        if self.offsets.get(at) == Some(&offset) {
            self.vacant -= usize::from(self.entries[at].is_none());
            self.entries[at] = Some(entry);
        } else {
            self.offsets.insert(at, offset);
            self.entries.insert(at, Some(entry));
        }
    }

    /// Takes a message out. Sweeps when more is vacant than not, so that the
    /// work a message costs stays constant.
    fn take(&mut self, offset: u32) -> Option<Entry> {
        let at = self.offsets.binary_search(&offset).ok()?;
        let entry = self.entries[at].take()?;
        self.vacant += 1;
        if self.vacant == self.entries.len() {
            self.offsets = Vec::new();
            self.entries = Vec::new();
            self.vacant = 0;
        } else if self.vacant >= 64 && self.vacant * 2 > self.entries.len() {
            let kept = |(at, entry): (u32, Option<Entry>)| Some((at, Some(entry?)));
            let entries = std::mem::take(&mut self.entries);
            let pairs = std::mem::take(&mut self.offsets).into_iter().zip(entries);
            (self.offsets, self.entries) = pairs.filter_map(kept).unzip();
            self.vacant = 0;
        }
        Some(entry)
    }
}

/// All that is queued in one log.
#[derive(Default)]
pub(super) struct Index {
    /// Every segment in use, the one being written too.
    pub(super) segments: BTreeMap<u32, Segment>,
    due: BinaryHeap<Reverse<(u64, Place)>>,
    live: usize,
    bytes: u64,
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

    /// The message at `place`, if it is queued.
    pub(super) fn get(&self, place: Place) -> Option<&Entry> {
        let segment = self.segments.get(&place.segment)?;
        segment.entries[segment.offsets.binary_search(&place.offset).ok()?].as_ref()
    }

    fn get_mut(&mut self, place: Place) -> Option<&mut Entry> {
        let segment = self.segments.get_mut(&place.segment)?;
        segment.entries[segment.offsets.binary_search(&place.offset).ok()?].as_mut()
    }

    /// The segment, begun if it is new.
    pub(super) fn segment(&mut self, segment: u32) -> &mut Segment {
        self.segments.entry(segment).or_default()
    }

    /// Adds a message. The pins of a streamed one are the caller's.
    pub(super) fn insert(&mut self, place: Place, entry: Entry) {
        self.live += 1;
        self.bytes += entry.size();
        self.schedule(place, &entry);
        self.segment(place.segment).insert(place.offset, entry);
    }

    fn schedule(&mut self, place: Place, entry: &Entry) {
        if let Some(next) = pending_min(entry) {
            self.due.push(Reverse((next, place)));
        }
    }

    /// Forgets a message, as `batch` will say.
    pub(super) fn remove(&mut self, place: Place, batch: u64) {
        let segment = self.segment(place.segment);
        let Some(entry) = segment.take(place.offset) else { return };
        segment.settled_in = segment.settled_in.max(batch);
        let dead = segment.is_dead();
        self.stirred |= dead;
        self.live -= 1;
        self.bytes -= entry.size();
        for pinned in entry.streamed.iter().flat_map(|streamed| &streamed.pins) {
            self.unpin(*pinned, batch);
        }
    }

    /// One streamed message less has parts in `segment`, as `batch` will say.
    pub(super) fn unpin(&mut self, segment: u32, batch: u64) {
        let segment = self.segment(segment);
        segment.pins -= 1;
        segment.settled_in = segment.settled_in.max(batch);
        let dead = segment.is_dead();
        self.stirred |= dead;
    }

    /// Nothing more will be appended to `segment`.
    pub(super) fn sealed(&mut self, segment: u32) {
        let segment = self.segment(segment);
        segment.offsets.shrink_to_fit();
        segment.entries.shrink_to_fit();
        self.stirred = true;
    }

    /// Applies outcomes that lie in the record `at`, in `batch`. What concerns
    /// no queued message, or a recipient that is done, changes nothing.
    pub(super) fn apply(&mut self, message: Place, outcomes: &[Outcome], at: Place, batch: u64) {
        let Some(entry) = self.get_mut(message) else { return };
        let mut next = None;
        for outcome in outcomes {
            let states = entry.recipients_mut();
            let Some(state) = states.get_mut(usize::from(outcome.recipient)) else { continue };
            if state.status == Status::Done {
                continue;
            }
            state.last = at;
            state.attempts = outcome.attempts;
            state.next_ms = outcome.next_attempt.0;
            state.status = Status::Done;
            if !outcome.disposition.is_final() {
                state.status = Status::Pending;
                next = Some(next.map_or(state.next_ms, |other: u64| other.min(state.next_ms)));
            }
        }
        if entry.is_settled() {
            self.remove(message, batch);
        } else if let Some(next) = next {
            self.due.push(Reverse((next, message)));
        }
        if at.segment != message.segment {
            self.segment(at.segment).refs.insert(message.segment);
        }
    }

    /// Applies survivors that lie in the record `at`: what they do not list is
    /// settled, what they list is as they say.
    pub(super) fn apply_survivors(&mut self, survivors: &Survivors, at: Place, batch: u64) {
        let number = survivors.segment;
        let Some(segment) = self.segments.get(&number) else { return };
        let listed =
            |offset| survivors.messages.binary_search_by_key(&offset, |m| m.offset).is_ok();
        let gone: Vec<u32> = segment
            .after(survivors.from)
            .map(|(offset, _)| offset)
            .take_while(|&offset| offset < survivors.to)
            .filter(|&offset| !listed(offset))
            .collect();
        for offset in gone {
            self.remove(Place { segment: number, offset }, batch);
        }
        for message in &survivors.messages {
            let place = Place { segment: number, offset: message.offset };
            let Some(entry) = self.get_mut(place) else { continue };
            for known in &message.recipients {
                let states = entry.recipients_mut();
                let Some(state) = states.get_mut(usize::from(known.recipient)) else { continue };
                if known.last.is_some() {
                    state.last = at;
                }
                state.attempts = known.attempts;
                state.next_ms = known.next_ms;
                if known.done {
                    state.status = Status::Done;
                }
            }
            if let Some(next) = pending_min(entry) {
                self.due.push(Reverse((next, place)));
            }
        }
        self.segment(at.segment).refs.insert(number);
    }

    /// The last outcome that lay in segment `from` now lies in the record `to`.
    pub(super) fn moved(&mut self, message: Place, recipient: u16, from: u32, to: Place) {
        let Some(entry) = self.get_mut(message) else { return };
        let states = entry.recipients_mut();
        if let Some(state) =
            states.get_mut(usize::from(recipient)).filter(|s| s.last.segment == from)
        {
            state.last = to;
        }
    }

    /// Marks recipients as waiting again until `due`, unlogged.
    pub(super) fn put_back(&mut self, place: Place, recipients: &[u16], due: UnixMillis) {
        let Some(entry) = self.get_mut(place) else { return };
        for &recipient in recipients {
            let states = entry.recipients_mut();
            let Some(state) = states.get_mut(usize::from(recipient)) else { continue };
            if state.status == Status::Out {
                state.status = Status::Pending;
                state.next_ms = due.0;
            }
        }
        if let Some(next) = pending_min(entry) {
            self.due.push(Reverse((next, place)));
        }
    }

    /// When the next message is due.
    pub(super) fn next_due(&mut self) -> Option<UnixMillis> {
        loop {
            let &Reverse((at, place)) = self.due.peek()?;
            // Elements whose message was settled or rescheduled are left in the
            // heap until they come up.
            if self.get(place).and_then(pending_min).is_some_and(|next| next <= at) {
                return Some(UnixMillis(at));
            }
            self.due.pop();
        }
    }

    /// Takes out what is due: `limit` messages at most.
    pub(super) fn take_due(
        &mut self,
        now: UnixMillis,
        limit: usize,
    ) -> Vec<(Place, SmallVec<[u16; 1]>)> {
        let mut taken = Vec::new();
        while taken.len() < limit {
            match self.due.peek() {
                Some(&Reverse((at, place))) if at <= now.0 => {
                    self.due.pop();
                    let Some(entry) = self.get_mut(place) else { continue };
                    let recipients = take_out(entry, now);
                    if !recipients.is_empty() {
                        taken.push((place, recipients));
                    }
                }
                _ => break,
            }
        }
        taken
    }

    /// Live messages after `after`, in order.
    pub(super) fn places_after(&self, after: Place) -> impl Iterator<Item = Place> {
        self.segments.range(after.segment..).flat_map(move |(&number, segment)| {
            let from = if number == after.segment { after.offset.saturating_add(1) } else { 0 };
            segment.after(from).map(move |(offset, _)| Place { segment: number, offset })
        })
    }
}

fn pending_min(entry: &Entry) -> Option<u64> {
    let pending = entry.recipients().iter().filter(|r| r.status == Status::Pending);
    pending.map(|recipient| recipient.next_ms).min()
}

fn take_out(entry: &mut Entry, now: UnixMillis) -> SmallVec<[u16; 1]> {
    let mut recipients = SmallVec::new();
    for (index, state) in entry.recipients_mut().iter_mut().enumerate() {
        if state.status == Status::Pending && state.next_ms <= now.0 {
            state.status = Status::Out;
            recipients.push(index as u16);
        }
    }
    recipients
}
