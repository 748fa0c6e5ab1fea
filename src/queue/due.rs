//! The schedule as the relay uses it: what is due, what goes back untried, what
//! waits for its destination. None of this is recorded: a restart makes
//! everything due that was not deferred, or that its sender does not want kept.

use smallvec::SmallVec;

use super::Queue;
use crate::base::{Place, QueueId, UnixMillis};
use crate::io::store::Store;

impl<S: Store> Queue<S> {
    /// When [`Queue::take_due`] will next have something to give.
    pub fn next_due(&self) -> Option<UnixMillis> {
        self.0.state.borrow_mut().index.next_due()
    }

    /// Takes out the recipients that are due, of `limit` messages at most. They
    /// are out until an outcome is recorded for them.
    pub fn take_due(&self, now: UnixMillis, limit: usize) -> Vec<(QueueId, SmallVec<[u16; 1]>)> {
        let log = self.0.options.log;
        let taken = self.0.state.borrow_mut().index.take_due(now, limit);
        taken.into_iter().map(|(place, recipients)| (QueueId { log, place }, recipients)).collect()
    }

    /// Marks recipients that are out as due at `due` again: for those that the
    /// relay gives back untried.
    pub fn put_back(&self, id: QueueId, recipients: &[u16], due: UnixMillis) {
        self.0.state.borrow_mut().index.put_back(id.place, recipients, due);
    }

    /// Marks recipients that are out as waiting for their destination: the relay
    /// will [`Queue::unpark`] them when it has room. Nothing wakes them before
    /// `wake`, when [`Queue::take_due`] gives them whatever the destination does.
    pub fn park(&self, id: QueueId, recipients: &[u16], wake: UnixMillis) {
        self.0.state.borrow_mut().index.park(id.place, recipients, wake);
    }

    /// Takes out those of `recipients` that still wait for their destination:
    /// operators may have held or dropped them meanwhile.
    pub fn unpark(&self, message: Place, recipients: &[u16]) -> SmallVec<[u16; 1]> {
        self.0.state.borrow_mut().index.unpark(message, recipients)
    }

    /// Brings what would come up later than `latest` forward to it, after the clock
    /// has jumped back, unless its sender wants it so. Says how many messages that
    /// were.
    pub fn bring_within(&self, latest: UnixMillis) -> usize {
        self.0.state.borrow_mut().index.bring_within(latest)
    }

    /// `moments` of those at which the senders of these recipients are to be told of
    /// the delay are dealt with.
    pub fn set_noticed(&self, id: QueueId, recipients: &[u16], moments: u8) {
        self.0.state.borrow_mut().index.set_noticed(id.place, recipients, moments);
    }

    /// Marks the recipients of a new message as due at `until`, and not before
    /// unless an operator wants it: its sender has said so. This outlasts the
    /// process, since the envelope says the same.
    pub fn postpone(&self, id: QueueId, until: UnixMillis) {
        self.0.state.borrow_mut().index.postpone(id.place, until.0);
    }
}
