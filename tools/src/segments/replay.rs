//! What is still queued, from the records alone: the recovery of the server
//! without its schedule.

use std::collections::BTreeMap;

use ringpost::base::Place;
use ringpost::queue::record::{Commit, EnvelopeFacts, Payload, Survivors};

/// A message seen in the log.
pub(super) struct Seen {
    /// Its commit record's payload, if it is a streamed message.
    pub(super) commit: Option<Commit>,
    /// True for a streamed message whose end has not been seen.
    pub(super) unfinished: bool,
    /// For each recipient: whether something is left to do.
    pub(super) pending: Vec<bool>,
    /// Chunks: where they lie.
    pub(super) chunks: BTreeMap<Place, u32>,
}

impl Seen {
    fn new(facts: EnvelopeFacts, unfinished: bool) -> Self {
        let pending = vec![true; usize::from(facts.recipients)];
        Seen { commit: None, unfinished, pending, chunks: BTreeMap::new() }
    }

    /// True if something is left to do for it.
    pub(super) fn is_live(&self) -> bool {
        !self.unfinished && self.pending.contains(&true)
    }

    /// True if every part of it has been seen.
    pub(super) fn is_whole(&self) -> bool {
        let mut extents = self.commit.iter().flat_map(|commit| &commit.extents);
        extents.all(|extent| self.chunks.get(&extent.place) == Some(&extent.len))
    }

    fn settle(&mut self, recipient: u16) {
        if let Some(pending) = self.pending.get_mut(usize::from(recipient)) {
            *pending = false;
        }
    }
}

/// The messages of a log, by place.
#[derive(Default)]
pub(super) struct Replay {
    pub(super) messages: BTreeMap<Place, Seen>,
}

impl Replay {
    /// Applies the next record of the log.
    pub(super) fn apply(&mut self, place: Place, payload: &Payload<'_>) {
        match payload {
            Payload::Pad | Payload::Mark(_) | Payload::Order(_) | Payload::Roster(_) => {}
            Payload::Moved { moved, facts, .. } => {
                let mut seen = Seen::new(*facts, false);
                moved.known.iter().filter(|k| k.done).for_each(|k| seen.settle(k.recipient));
                self.messages.insert(moved.id, seen);
            }
            Payload::Message { facts, .. } => {
                self.messages.insert(place, Seen::new(*facts, false));
            }
            Payload::Head { facts, .. } => {
                self.messages.insert(place, Seen::new(*facts, true));
            }
            Payload::Chunk { head, part } => {
                if let Some(seen) = self.messages.get_mut(head) {
                    seen.chunks.insert(place, part.len() as u32);
                }
            }
            Payload::Commit(commit) => {
                if let Some(seen) = self.messages.get_mut(&commit.head) {
                    seen.commit = Some(commit.clone());
                    seen.unfinished = false;
                }
            }
            Payload::Outcomes { message, outcomes } => {
                if let Some(seen) = self.messages.get_mut(message) {
                    let last = outcomes.iter().filter(|outcome| outcome.disposition.is_final());
                    last.for_each(|outcome| seen.settle(outcome.recipient));
                }
            }
            Payload::Survivors(survivors) => self.survivors(survivors),
        }
    }

    fn survivors(&mut self, survivors: &Survivors) {
        let at = |offset| Place { segment: survivors.segment, offset };
        for (place, seen) in self.messages.range_mut(at(survivors.from)..at(survivors.to)) {
            let found = survivors.messages.binary_search_by_key(&place.offset, |m| m.offset);
            match found.ok().map(|index| &survivors.messages[index]) {
                None if !seen.unfinished => seen.pending.fill(false),
                None => {}
                Some(known) => {
                    let done = known.recipients.iter().filter(|recipient| recipient.done);
                    done.for_each(|recipient| seen.settle(recipient.recipient));
                }
            }
        }
    }
}
