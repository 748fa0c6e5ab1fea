//! What is due by its schedule, or has waited and has room now: read from the log
//! and given out, in order, a bounded number of messages at a time.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use smallvec::{SmallVec, smallvec};

use super::attempt::{settle_all, trouble};
use super::body::while_read;
use super::memory::Kept;
use super::origin::{Came, Indices};
use super::{Core, Handle};
use crate::base::envelope::SharedMail;
use crate::base::limits::BODY_PART_MAX;
use crate::base::{Disposition, EnhancedCode, Mail, QueueId, UnixMillis};
use crate::io::clock;
use crate::io::executor::spawn;
use crate::io::store::Store;
use crate::queue::{MessageState, PREFIX_MAX, Queue, QueueError};

/// Messages read from the log at a time.
pub(super) const READ_BATCH: usize = 128;
/// When a message that cannot be read is looked at again.
const UNREADABLE_WAIT: Duration = Duration::from_secs(3600);

impl<S: Store> Core<S> {
    /// Gives out what is due, as far as there is room.
    pub(super) async fn give_out_due(self: &Rc<Self>) {
        for (log, queue) in &self.logs {
            loop {
                let room = self.room().min(READ_BATCH);
                if room == 0 || self.is_halted(*log) || !queue.can_record() {
                    break;
                }
                let due = queue.take_due(clock::wall(), room);
                if due.is_empty() {
                    break;
                }
                let due = due.into_iter().map(|(id, to)| (queue.clone(), id, to)).collect();
                self.read_and_give_out(due, Came::Due).await;
            }
        }
    }

    /// Reads messages and gives them out, in their order.
    pub(super) async fn read_and_give_out(
        self: &Rc<Self>,
        due: Vec<(Queue<S>, QueueId, Indices)>,
        came: Came,
    ) {
        self.counters.borrow_mut().wakeups += due.len() as u64;
        self.reading.set(self.reading.get() + 1);
        let reads: Vec<_> = due
            .into_iter()
            .filter_map(|(queue, id, recipients)| {
                // Settled meanwhile, by an operator say: nothing is left to do.
                let state = queue.message(id)?;
                let core = Rc::clone(self);
                let size = state.size;
                let read = spawn(async move { core.read(&queue, id, size).await });
                Some((read, state, recipients))
            })
            .collect();
        for (read, state, recipients) in reads {
            match read.await {
                Ok(mail) => self.give_out_again(&state, mail, &recipients, came),
                Err(QueueError::Unknown(_)) => {}
                Err(error) => {
                    let id = state.id;
                    tracing::error!(target: "relay", %id, %error, "a queued message cannot be read");
                    self.put_back(id, &recipients, clock::wall().plus(UNREADABLE_WAIT));
                }
            }
        }
        self.reading.set(self.reading.get() - 1);
        self.check_drained();
    }

    /// Gives out a message that was read.
    fn give_out_again(
        self: &Rc<Self>,
        state: &MessageState,
        (mail, kept): (SharedMail, Option<Kept>),
        recipients: &[u16],
        came: Came,
    ) {
        let MessageState { id, at, size, .. } = *state;
        for (attempts, recipients) in by_attempts(recipients, state) {
            let kept = kept.as_ref().map(|_| self.hold(&mail));
            let mail = Arc::clone(&mail);
            let whole = Handle { id, recipients, attempts, at, size, station: 0, mail };
            self.give_out(whole, kept, came);
        }
    }

    /// A hold on a mail's body, if that is in memory.
    pub(super) fn hold(&self, mail: &SharedMail) -> Kept {
        self.memory.hold(mail);
        self.memory.returned(mail)
    }

    /// A small message whole while there is room to keep it, the envelope of any
    /// other.
    async fn read(
        &self,
        queue: &Queue<S>,
        id: QueueId,
        size: u64,
    ) -> Result<(SharedMail, Option<Kept>), QueueError> {
        // A longer one begins with a record that holds little of the body.
        let whole = usize::try_from(size).ok().filter(|&size| size <= BODY_PART_MAX);
        let room = whole.and_then(|size| self.memory.keep(size));
        let _reading = self.memory.read(while_read(whole.unwrap_or(PREFIX_MAX))).await;
        if let Some(room) = room {
            let mail = Arc::new(queue.load(id).await?);
            let kept = room.of(&mail);
            return Ok((mail, Some(kept)));
        }
        let envelope = queue.envelope(id).await?;
        Ok((Arc::new(Mail { envelope, body: Box::default() }), None))
    }

    /// A handle whose message cannot be read: deferred, so that an operator
    /// sees why.
    pub(super) fn unreadable(self: &Rc<Self>, handle: Handle, error: &QueueError) {
        tracing::error!(target: "relay", id = %handle.id, %error, "a queued message cannot be read");
        let reply = trouble(EnhancedCode(4, 3, 0), format!("reading the message: {error}"));
        self.settled(settle_all(handle, Disposition::Deferred, &reply, "", clock::wall()));
    }

    /// The recipients of a new message wait until `until`, as its sender wants.
    pub(super) fn postpone(&self, id: QueueId, until: UnixMillis) {
        if let Some(queue) = self.log(id) {
            queue.postpone(id, until);
        }
    }

    /// Recipients wait again until `due`; nothing is logged.
    pub(super) fn put_back(&self, id: QueueId, recipients: &[u16], due: UnixMillis) {
        if let Some(queue) = self.log(id) {
            queue.put_back(id, recipients, due);
        }
    }
}

/// Splits recipients by the number of attempts made for them.
fn by_attempts(recipients: &[u16], message: &MessageState) -> SmallVec<[(u16, Indices); 1]> {
    let mut parts: SmallVec<[(u16, Indices); 1]> = SmallVec::new();
    for &index in recipients {
        let pending = message.recipients.iter().find(|pending| pending.recipient == index);
        let made = pending.map_or(0, |pending| pending.attempts);
        match parts.iter_mut().find(|(known, _)| *known == made) {
            Some((_, indices)) => indices.push(index),
            None => parts.push((made, smallvec![index])),
        }
    }
    parts
}
