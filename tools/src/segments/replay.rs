//! What is still queued, from the facts of the segments alone: the recovery of
//! the server without its schedule. A message is found by its id wherever it
//! has moved to, and is in the state that was said last.
//!
//! What is settled is forgotten at once, unless it is wanted, so that memory is
//! what is queued and not what the log is long.

use std::collections::BTreeMap;

use ringpost::base::{Location, Place};
use ringpost::queue::fact::{Fact, Restated, Ruling, Surviving, Timing, What};
use ringpost::queue::record::NOWHERE;

/// A recipient of a message.
#[derive(Clone, Copy, Default)]
pub(super) struct Recipient {
    /// Nothing is left to do for it.
    pub(super) done: bool,
    /// An operator holds it back.
    pub(super) held: bool,
    /// Its sender wants it kept until `next_ms`.
    pub(super) postponed: bool,
    pub(super) attempts: u16,
    /// When the next attempt is due; 0 if nothing says so.
    pub(super) next_ms: u64,
}

/// A message seen in the log.
pub(super) struct Seen {
    /// Where it lies now.
    pub(super) at: Location,
    /// True for a streamed message whose end has not been seen.
    pub(super) unfinished: bool,
    pub(super) recipients: Box<[Recipient]>,
}

impl Seen {
    fn new(first: Place, recipients: u16, unfinished: bool) -> Self {
        let recipients = vec![Recipient::default(); usize::from(recipients)].into();
        Seen { at: Location { first, commit: None }, unfinished, recipients }
    }

    /// True if something is left to do for it.
    pub(super) fn is_live(&self) -> bool {
        !self.unfinished && !self.recipients.iter().all(|recipient| recipient.done)
    }

    fn rule(&mut self, ruling: Ruling) -> Option<&mut Recipient> {
        let recipient = self.recipients.get_mut(usize::from(ruling.recipient))?;
        if recipient.done {
            return None;
        }
        recipient.done = ruling.is_final;
        recipient.postponed = false;
        recipient.attempts = ruling.attempts;
        recipient.next_ms = ruling.next_ms;
        Some(recipient)
    }

    /// What the terms of the message say of recipients that nothing else speaks of.
    fn time(&mut self, timing: Timing) {
        let untold = |recipient: &&mut Recipient| {
            !recipient.done && !recipient.held && recipient.attempts == 0 && recipient.next_ms == 0
        };
        for recipient in self.recipients.iter_mut().filter(untold) {
            recipient.postponed = timing.hold_until_ms > 0;
            recipient.next_ms = timing.hold_until_ms;
        }
    }

    fn restate(&mut self, known: &[Restated]) {
        for Restated { ruling, held, .. } in known {
            if let Some(recipient) = self.rule(*ruling) {
                recipient.held = *held;
            }
        }
    }
}

/// The messages of a log.
pub(super) struct Replay {
    keep_settled: bool,
    /// By id.
    pub(super) messages: BTreeMap<Place, Seen>,
    /// Ids of the messages that have moved, by where they are.
    moved: BTreeMap<Place, Place>,
    /// Ids of the messages whose end is there and whose beginning is not.
    pub(super) headless: Vec<Place>,
    /// The segments in use when the newest one was begun.
    pub(super) roster: Vec<u32>,
}

impl Replay {
    /// Settled messages are kept if `keep_settled`.
    pub(super) fn new(keep_settled: bool) -> Self {
        Replay {
            keep_settled,
            messages: BTreeMap::new(),
            moved: BTreeMap::new(),
            headless: Vec::new(),
            roster: Vec::new(),
        }
    }

    /// Applies the next fact of the log, which lies in `segment`.
    pub(super) fn apply(&mut self, segment: u32, fact: Fact) {
        let place = Place { segment, offset: fact.at };
        match fact.what {
            What::Message(first) => {
                self.messages.insert(place, Seen::new(place, first.recipients, false));
            }
            What::Head(first) => {
                self.messages.insert(place, Seen::new(place, first.recipients, true));
            }
            // Whether all parts are there is seen when they are read.
            What::Chunk { .. } => {}
            What::Commit(commit) => match self.messages.get_mut(&commit.head) {
                Some(seen) => {
                    seen.unfinished = false;
                    seen.at.commit = Some(place);
                }
                None => self.headless.push(commit.head),
            },
            What::Outcome { message, ruling } => {
                self.change(message, |seen| {
                    seen.rule(ruling);
                });
            }
            What::Survivors(survivors) => self.survivors(&survivors),
            What::Moved(moved) => {
                let known = moved.known;
                self.relocate(moved.id, place, moved.first.recipients);
                self.change(moved.id, |seen| seen.restate(&known));
            }
            What::Order(order) => self.change(order.message, |seen| {
                for index in order.recipients {
                    let Some(recipient) = seen.recipients.get_mut(usize::from(index)) else {
                        continue;
                    };
                    if (recipient.held || recipient.postponed) && !order.hold {
                        recipient.next_ms = order.at_ms;
                    }
                    recipient.postponed = false;
                    recipient.held = order.hold && !recipient.done;
                }
            }),
            What::Roster(segments) => self.roster = *segments,
            What::Timing { message, timing } => {
                let message = if message == NOWHERE { place } else { message };
                self.change(message, |seen| seen.time(timing));
            }
        }
    }

    /// Changes a message that is queued, and forgets it if that settles it.
    fn change(&mut self, id: Place, how: impl FnOnce(&mut Seen)) {
        let Some(seen) = self.messages.get_mut(&id) else { return };
        how(seen);
        if !seen.unfinished && !seen.is_live() && !self.keep_settled {
            self.moved.remove(&seen.at.first);
            self.messages.remove(&id);
        }
    }

    /// The message is at `place` from now on.
    fn relocate(&mut self, id: Place, place: Place, recipients: u16) {
        let seen = self.messages.entry(id).or_insert_with(|| Seen::new(id, recipients, false));
        self.moved.remove(&seen.at.first);
        seen.at = Location { first: place, commit: None };
        seen.unfinished = false;
        self.moved.insert(place, id);
    }

    /// Survivors speak about the messages whose first record lies in that range
    /// now: not about those that have moved away, but about those that have
    /// moved there. What they do not list is settled.
    fn survivors(&mut self, survivors: &Surviving) {
        let place = |offset| Place { segment: survivors.segment, offset };
        let range = place(survivors.from)..place(survivors.to);
        let at_home = self.messages.range(range.clone());
        let mut spoken_of: Vec<(Place, Place)> = at_home
            .filter(|(id, seen)| seen.at.first == **id && !seen.unfinished)
            .map(|(id, _)| (*id, *id))
            .collect();
        spoken_of.extend(self.moved.range(range).map(|(first, id)| (*first, *id)));
        for (first, id) in spoken_of {
            let listed =
                survivors.messages.binary_search_by_key(&first.offset, |(offset, _)| *offset);
            self.change(id, |seen| match listed {
                Ok(index) => seen.restate(&survivors.messages[index].1),
                Err(_) => seen.recipients.iter_mut().for_each(|recipient| recipient.done = true),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use ringpost::queue::fact::{First, MovedTo, Ordered};

    use super::*;

    fn place(segment: u32, offset: u32) -> Place {
        Place { segment, offset }
    }

    fn first(recipients: u16) -> First {
        First { meta: 10, part: 20, recipients, arrival_ms: 5 }
    }

    fn known(recipient: u16, done: bool, held: bool) -> Restated {
        let ruling = Ruling { recipient, is_final: done, attempts: 2, next_ms: 9 };
        Restated { ruling, held, said: false }
    }

    fn moved(id: Place, known: Vec<Restated>) -> What {
        let first = first(2);
        What::Moved(Box::new(MovedTo { id, first, size: 20, extents: Vec::new(), known }))
    }

    fn survivors(segment: u32, messages: Vec<(u32, Vec<Restated>)>) -> What {
        What::Survivors(Box::new(Surviving { segment, from: 0, to: u32::MAX, messages }))
    }

    fn replay(facts: Vec<(u32, u32, What)>) -> Replay {
        let mut replay = Replay::new(false);
        for (segment, at, what) in facts {
            replay.apply(segment, Fact { at, what });
        }
        replay
    }

    #[test]
    fn survivors_speak_of_what_lies_there_now() {
        let (gone, stays, settled) = (place(1, 100), place(1, 200), place(1, 300));
        let replay = replay(vec![
            (1, 100, What::Message(first(2))),
            (1, 200, What::Message(first(2))),
            (1, 300, What::Message(first(2))),
            (2, 400, moved(gone, vec![known(0, true, false)])),
            (3, 100, survivors(1, vec![(200, vec![known(1, true, false)])])),
        ]);
        assert_eq!(replay.messages.len(), 2, "what has moved away is not settled by them");
        assert_eq!(replay.messages[&gone].at.first, place(2, 400));
        let done = |id| replay.messages[&id].recipients.iter().map(|r| r.done).collect::<Vec<_>>();
        assert_eq!((done(gone), done(stays)), (vec![true, false], vec![false, true]));
        assert!(!replay.messages.contains_key(&settled));
    }

    #[test]
    fn survivors_settle_what_has_moved_there() {
        let (one, other) = (place(1, 100), place(1, 200));
        let replay = replay(vec![
            (2, 400, moved(one, Vec::new())),
            (2, 500, moved(other, Vec::new())),
            (3, 100, survivors(2, vec![(500, vec![known(0, false, true)])])),
        ]);
        assert_eq!(replay.messages.keys().collect::<Vec<_>>(), [&other]);
        assert!(replay.messages[&other].recipients[0].held);
        assert_eq!(replay.moved.len(), 1);
    }

    #[test]
    fn holds_last_until_released() {
        let id = place(1, 100);
        let order = |hold| {
            let recipients = vec![0, 7];
            What::Order(Box::new(Ordered { message: id, hold, at_ms: 77, recipients }))
        };
        let mut facts =
            vec![(1, 100, What::Message(first(2))), (1, 200, order(true)), (1, 300, order(true))];
        let held = |replay: Replay| {
            let recipients = &replay.messages[&id].recipients;
            recipients.iter().map(|r| (r.held, r.next_ms)).collect::<Vec<_>>()
        };
        assert_eq!(held(replay(facts.clone())), [(true, 0), (false, 0)]);
        facts.push((1, 400, order(false)));
        assert_eq!(held(replay(facts)), [(false, 77), (false, 0)]);
    }

    #[test]
    fn what_its_sender_wants_kept_is_kept_until_then_or_a_release() {
        let id = place(1, 100);
        let timing = Timing { hold_until_ms: 99, priority: 0 };
        let mut facts = vec![
            (1, 100, What::Message(first(2))),
            (1, 100, What::Timing { message: NOWHERE, timing }),
        ];
        let kept = |facts: &[_]| {
            let replay = replay(facts.to_vec());
            let recipients = &replay.messages[&id].recipients;
            recipients.iter().map(|r| (r.postponed, r.next_ms)).collect::<Vec<_>>()
        };
        assert_eq!(kept(&facts), [(true, 99), (true, 99)]);
        let release = Ordered { message: id, hold: false, at_ms: 77, recipients: vec![1] };
        facts.push((1, 200, What::Order(Box::new(release))));
        assert_eq!(kept(&facts), [(true, 99), (false, 77)]);
        facts.push((2, 100, moved(id, vec![known(1, false, false)])));
        facts.push((2, 100, What::Timing { message: id, timing }));
        assert_eq!(kept(&facts), [(true, 99), (false, 9)]);
    }
}
