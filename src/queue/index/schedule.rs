//! When queued messages are due: a heap of (time, id). Elements whose message
//! was settled or rescheduled stay in it until they come up, or until they are
//! too many.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use smallvec::SmallVec;

use super::entry::{Entry, Status};
use super::{Index, Place, entries_after};
use crate::base::UnixMillis;
use crate::queue::record::NOWHERE;

/// Stale elements that are not worth a sweep.
const STALE_FREE: usize = 4096;

/// See the module's comment.
#[derive(Default)]
pub(super) struct Schedule {
    due: BinaryHeap<Reverse<(u64, Place)>>,
    /// Nothing is scheduled during a replay.
    suspended: bool,
}

impl Schedule {
    pub(super) fn push(&mut self, next_ms: Option<u64>, id: Place) {
        if let (Some(next), false) = (next_ms, self.suspended) {
            self.due.push(Reverse((next, id)));
        }
    }

    pub(super) fn absorb(&mut self, mut other: Schedule) {
        self.due.append(&mut other.due);
    }
}

impl Index {
    /// An index to be filled by a replay, in which nothing is due before
    /// [`Index::begin_schedule`].
    pub(in crate::queue) fn for_replay() -> Self {
        let schedule = Schedule { suspended: true, ..Schedule::default() };
        Index { schedule, ..Index::default() }
    }

    /// Ends the suspension of the schedule, with nothing in it yet.
    pub(in crate::queue) fn begin_schedule(&mut self) {
        // With room for what comes meanwhile: growing copies it all.
        let room = self.live + self.live / 8;
        self.schedule = Schedule { due: BinaryHeap::with_capacity(room), suspended: false };
    }

    /// Schedules what is pending of `limit` messages after `after`. The last of
    /// them, or `None` if there was none.
    pub(in crate::queue) fn schedule_some(&mut self, after: Place, limit: usize) -> Option<Place> {
        let mut last = None;
        for (id, entry) in entries_after(&self.homes, after).take(limit) {
            self.schedule.push(entry.next_due(), id);
            last = Some(id);
        }
        last
    }

    /// Sweeps the heap when most of it is stale, so that its size follows the
    /// number of messages and not of retries.
    pub(super) fn tidy_schedule(&mut self) {
        if self.schedule.due.len() > 2 * self.live + STALE_FREE && !self.schedule.suspended {
            self.begin_schedule();
            self.schedule_some(NOWHERE, usize::MAX);
        }
    }

    /// When the next message is due.
    pub(in crate::queue) fn next_due(&mut self) -> Option<UnixMillis> {
        loop {
            let &Reverse((at, id)) = self.schedule.due.peek()?;
            let next = self.get(id).and_then(Entry::next_due);
            if next.is_some_and(|next| next <= at) {
                return Some(UnixMillis(at));
            }
            self.schedule.due.pop();
            // It may have stood for a recipient that is due later, too.
            self.schedule.push(next, id);
        }
    }

    /// Takes out what is due: `limit` messages at most.
    pub(in crate::queue) fn take_due(
        &mut self,
        now: UnixMillis,
        limit: usize,
    ) -> Vec<(Place, SmallVec<[u16; 1]>)> {
        let mut taken = Vec::new();
        while taken.len() < limit {
            match self.schedule.due.peek() {
                Some(&Reverse((at, id))) if at <= now.0 => {
                    self.schedule.due.pop();
                    let Some(entry) = self.get_mut(id) else { continue };
                    let recipients = take_out(entry, now);
                    if !recipients.is_empty() {
                        taken.push((id, recipients));
                    }
                    // Those that are due later had their turn with this element.
                    let next = self.get(id).and_then(Entry::next_due);
                    self.schedule.push(next, id);
                }
                _ => break,
            }
        }
        taken
    }

    /// Marks recipients that are out as waiting again until `due`, unlogged.
    pub(in crate::queue) fn put_back(&mut self, id: Place, recipients: &[u16], due: UnixMillis) {
        let Some(entry) = self.get_mut(id) else { return };
        for &recipient in recipients {
            if let Some(state) = entry.recipient_mut(recipient).filter(|s| s.status.is_out()) {
                state.status = state.status.back();
                state.next_ms = due.0;
            }
        }
        let next = entry.next_due();
        self.schedule.push(next, id);
        self.tidy_schedule();
    }

    /// Recipients that are out wait for their destination. They come up by
    /// themselves at `wake`.
    pub(in crate::queue) fn park(&mut self, id: Place, recipients: &[u16], wake: UnixMillis) {
        let Some(entry) = self.get_mut(id) else { return };
        for &recipient in recipients {
            if let Some(state) = entry.recipient_mut(recipient).filter(|s| s.status.is_out()) {
                let held = state.status.is_held();
                state.status = if held { Status::Held } else { Status::Waiting };
                state.next_ms = wake.0;
            }
        }
        let next = entry.next_due();
        self.schedule.push(next, id);
        self.tidy_schedule();
    }

    /// Takes out those of `recipients` that wait for their destination.
    pub(in crate::queue) fn unpark(&mut self, id: Place, recipients: &[u16]) -> SmallVec<[u16; 1]> {
        let mut taken = SmallVec::new();
        let Some(entry) = self.get_mut(id) else { return taken };
        for &recipient in recipients {
            let waiting = entry.recipient_mut(recipient);
            if let Some(state) = waiting.filter(|state| state.status == Status::Waiting) {
                state.status = Status::Out;
                taken.push(recipient);
            }
        }
        taken
    }

    /// Brings what would come up later than `latest` forward to it, unless its
    /// sender wants it so. Says how many messages that were.
    pub(in crate::queue) fn bring_within(&mut self, latest: UnixMillis) -> usize {
        let mut late = Vec::new();
        for (id, _) in entries_after(&self.homes, NOWHERE).filter(|(_, entry)| {
            let mut recipients = entry.recipients().iter();
            recipients.any(|r| r.is_scheduled() && !r.postponed && r.next_ms > latest.0)
        }) {
            late.push(id);
        }
        for &id in &late {
            let Some(entry) = self.get_mut(id) else { continue };
            let scheduled = entry.recipients_mut().iter_mut().filter(|state| state.is_scheduled());
            for state in scheduled.filter(|state| !state.postponed) {
                state.next_ms = state.next_ms.min(latest.0);
            }
            let next = entry.next_due();
            self.schedule.push(next, id);
        }
        self.tidy_schedule();
        late.len()
    }

    /// `moments` of those at which the senders of these recipients are to be told of
    /// a delay are dealt with.
    pub(in crate::queue) fn set_noticed(&mut self, id: Place, recipients: &[u16], moments: u8) {
        let Some(entry) = self.get_mut(id) else { return };
        for &recipient in recipients {
            if let Some(state) = entry.recipient_mut(recipient) {
                state.noticed = moments;
            }
        }
    }

    /// Makes those of `recipients` due at `now` that wait.
    pub(in crate::queue) fn bring_forward(
        &mut self,
        id: Place,
        recipients: &[u16],
        now: UnixMillis,
    ) {
        let Some(entry) = self.get_mut(id) else { return };
        for &recipient in recipients {
            let waiting = entry.recipient_mut(recipient);
            if let Some(state) = waiting.filter(|s| s.status == Status::Pending) {
                state.next_ms = state.next_ms.min(now.0);
            }
        }
        let next = entry.next_due();
        self.schedule.push(next, id);
        self.tidy_schedule();
    }
}

fn take_out(entry: &mut Entry, now: UnixMillis) -> SmallVec<[u16; 1]> {
    let mut recipients = SmallVec::new();
    for (index, state) in entry.recipients_mut().iter_mut().enumerate() {
        if state.is_scheduled() && state.next_ms <= now.0 {
            state.status = Status::Out;
            state.postponed = false;
            recipients.push(index as u16);
        }
    }
    recipients
}
