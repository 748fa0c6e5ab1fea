//! What outcomes, survivors, moves and orders do to the state of recipients.

use super::{Entry, Index, Place, RecipientState, Status};
use crate::queue::fact::{Restated, Ruling, Surviving, Timing};

impl Index {
    /// Applies rulings about a message that lie in the record `at`, in `batch`.
    /// What concerns no queued message, or a recipient that is done, changes
    /// nothing.
    pub(in crate::queue) fn apply(
        &mut self,
        message: Place,
        rulings: impl IntoIterator<Item = Ruling>,
        at: Place,
        batch: u64,
    ) {
        let Some(entry) = self.get_mut(message) else { return };
        let first = entry.location(message).first;
        let mut deferred = false;
        for ruling in rulings {
            let Some(state) = entry.recipient_mut(ruling.recipient) else { continue };
            if state.status == Status::Done {
                continue;
            }
            state.last = at;
            state.spoken_of = true;
            state.postponed = false;
            state.attempts = ruling.attempts;
            state.next_ms = ruling.next_ms;
            state.status = if ruling.is_final { Status::Done } else { state.status.back() };
            deferred |= !ruling.is_final;
        }
        let (settled, next) = (entry.is_settled(), entry.next_due());
        if settled {
            self.remove(message, batch);
        } else if deferred {
            self.schedule.push(next, message);
            self.tidy_schedule();
        }
        self.refer(at.segment, first.segment);
    }

    /// A record in `segment` says something about messages of `other`.
    fn refer(&mut self, segment: u32, other: u32) {
        if segment != other {
            self.segment(segment).refs.insert(other);
        }
    }

    /// Applies survivors that lie in the record `at`: what they do not list is
    /// settled, what they list is as they say. Messages that have moved away are
    /// none of their business.
    pub(in crate::queue) fn apply_survivors(&mut self, survivors: &Surviving, at: Place) {
        let number = survivors.segment;
        if !self.segments.contains_key(&number) {
            return;
        }
        let range = survivors.from..survivors.to;
        for (offset, id) in self.messages_in(number) {
            let found = survivors.messages.binary_search_by_key(&offset, |(at, _)| *at);
            match found {
                Ok(index) => self.restate(id, &survivors.messages[index].1, at),
                Err(_) if range.contains(&offset) => self.remove(id, 0),
                Err(_) => {}
            }
        }
        self.refer(at.segment, number);
    }

    /// The state of a message's recipients is as the record `at` says.
    pub(in crate::queue) fn restate(&mut self, id: Place, known: &[Restated], at: Place) {
        let Some(entry) = self.get_mut(id) else { return };
        for Restated { ruling, held, said } in known {
            let Some(state) = entry.recipient_mut(ruling.recipient) else { continue };
            if *said {
                state.last = at;
            }
            state.spoken_of = true;
            state.postponed = false;
            state.attempts = ruling.attempts;
            state.next_ms = ruling.next_ms;
            state.status = match (ruling.is_final, held) {
                (true, _) => Status::Done,
                (false, true) => Status::Held,
                (false, false) => Status::Pending,
            };
        }
        let next = entry.next_due();
        self.schedule.push(next, id);
    }

    /// The record `at` holds the last outcomes of those recipients of which
    /// `known` says so.
    pub(in crate::queue) fn words_at(&mut self, id: Place, known: &[Restated], at: Place) {
        let Some(entry) = self.get_mut(id) else { return };
        for Restated { ruling, .. } in known.iter().filter(|known| known.said) {
            if let Some(state) = entry.recipient_mut(ruling.recipient) {
                state.last = at;
            }
        }
    }

    /// What the terms of a message say, for a replay at `now_ms`: recipients of
    /// which nothing else is known are due when their sender wants them to be, or
    /// at once, by priority.
    pub(in crate::queue) fn time(&mut self, id: Place, timing: Timing, now_ms: u64) {
        let Some(entry) = self.get_mut(id).filter(|_| !timing.is_usual()) else { return };
        for state in entry.recipients_mut().iter_mut().filter(|state| !state.spoken_of) {
            if timing.hold_until_ms > 0 {
                state.postponed = true;
                state.next_ms = timing.hold_until_ms;
            } else {
                // What is due at the same time goes in this order.
                state.next_ms = now_ms.saturating_add_signed(-i64::from(timing.priority));
            }
        }
        let next = entry.next_due();
        self.schedule.push(next, id);
    }

    /// Recipients that are out wait until `until`: their sender wants it so.
    pub(in crate::queue) fn postpone(&mut self, id: Place, until_ms: u64) {
        let Some(entry) = self.get_mut(id) else { return };
        for state in entry.recipients_mut().iter_mut().filter(|state| state.status.is_out()) {
            state.postponed = state.status == Status::Out;
            state.status = state.status.back();
            state.next_ms = until_ms;
        }
        let next = entry.next_due();
        self.schedule.push(next, id);
        self.tidy_schedule();
    }

    /// Carries out an operator's order that lies in the record `at`: holds
    /// recipients back, or makes due at `now_ms` those that are held or that their
    /// senders want kept.
    pub(in crate::queue) fn hold(
        &mut self,
        id: Place,
        recipients: &[u16],
        hold: bool,
        now_ms: u64,
        at: Place,
    ) {
        let Some(entry) = self.get_mut(id) else { return };
        let first = entry.location(id).first;
        for &recipient in recipients {
            let Some(state) = entry.recipient_mut(recipient) else { continue };
            state.spoken_of = true;
            let postponed = std::mem::take(&mut state.postponed);
            match (state.status, hold) {
                (Status::Pending | Status::Waiting, true) => state.status = Status::Held,
                (Status::Out, true) => state.status = Status::OutHeld,
                (Status::Pending, false) if postponed => state.next_ms = now_ms,
                (Status::Held, false) => {
                    state.status = Status::Pending;
                    state.next_ms = now_ms;
                }
                (Status::OutHeld, false) => state.status = Status::Out,
                _ => {}
            }
        }
        let next = entry.next_due();
        self.schedule.push(next, id);
        self.refer(at.segment, first.segment);
    }

    /// The last outcome of a recipient that lay in segment `from` now lies in
    /// the record `to`.
    pub(in crate::queue) fn word_moved(&mut self, id: Place, recipient: u16, from: u32, to: Place) {
        let Some(entry) = self.get_mut(id) else { return };
        let state = entry.recipient_mut(recipient);
        if let Some(state) = state.filter(|state| state.last.segment == from) {
            state.last = to;
        }
    }
}

impl Entry {
    /// The recipients of which something is to be said again, with their states.
    pub(in crate::queue) fn worth_saying(&self) -> impl Iterator<Item = (u16, &RecipientState)> {
        let recipients = self.recipients().iter().enumerate();
        recipients.filter(|(_, state)| state.spoken_of).map(|(index, state)| (index as u16, state))
    }
}
