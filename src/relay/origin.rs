//! The origin's way out: recipients of new and of due messages are routed, and
//! their handles go to the lanes.

use std::rc::Rc;
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use super::attempt::{settle_all, trouble};
use super::body::while_read;
use super::memory::Kept;
use super::{Core, Handle, OUT_MAX, RECIPIENTS_PER_HANDLE};
use crate::base::envelope::SharedMail;
use crate::base::limits::BODY_PART_MAX;
use crate::base::{
    Disposition, EnhancedCode, Envelope, Location, Mail, Place, QueueId, Reply, ShardId, UnixMillis,
};
use crate::io::clock;
use crate::io::executor::spawn;
use crate::io::store::Store;
use crate::policy::route::{Destination, Site};
use crate::queue::{MessageState, PREFIX_MAX, Queue, QueueError};

/// Due messages read from the log at a time.
const DUE_BATCH: usize = 128;
/// When a message that cannot be read is looked at again.
const UNREADABLE_WAIT: std::time::Duration = std::time::Duration::from_secs(3600);

type Indices = SmallVec<[u16; 1]>;

impl<S: Store> Core<S> {
    /// See [`super::Relay::accepted`].
    pub(super) fn accepted(
        self: &Rc<Self>,
        id: QueueId,
        envelope: Envelope,
        (trace, body): (&[u8], Option<&[u8]>),
        commit: Option<Place>,
        size: u64,
    ) {
        let all: Indices = (0..envelope.recipients.len() as u16).collect();
        if self.room() == 0 {
            self.put_back(id, &all, clock::wall());
            return;
        }
        let room = body.and_then(|body| self.memory.keep(trace.len() + body.len()));
        let body = match (&room, body) {
            (Some(_), Some(body)) => [trace, body].concat().into(),
            _ => Box::default(),
        };
        let mail = Arc::new(Mail { envelope, body });
        let _kept = room.map(|room| room.of(&mail));
        // A message that came whole is streamed too if it is too long for a record.
        let at = self.log(id).and_then(|queue| queue.location(id));
        let at = at.unwrap_or(Location { first: id.place, commit });
        self.give_out(Handle { id, recipients: all, attempts: 0, at, size, mail });
    }

    /// Handles that may be given out now.
    fn room(&self) -> usize {
        if self.stopping() || !self.unrecorded.borrow().is_empty() {
            return 0;
        }
        OUT_MAX.saturating_sub(self.out.get())
    }

    /// Routes the recipients of `whole` and sends each lane its part.
    fn give_out(self: &Rc<Self>, whole: Handle) {
        let settings = self.settings();
        if let [only] = *whole.recipients {
            let address = &whole.mail.envelope.recipients[usize::from(only)];
            let destination = settings.routes.address(address);
            self.dispatch(whole, destination);
            return;
        }
        let mut parts: Vec<(Destination<'_>, Indices)> = Vec::new();
        for &index in &whole.recipients {
            let address = &whole.mail.envelope.recipients[usize::from(index)];
            let destination = settings.routes.address(address);
            let room = |(to, indices): &&mut (_, Indices)| {
                *to == destination && indices.len() < RECIPIENTS_PER_HANDLE
            };
            match parts.iter_mut().find(room) {
                Some((_, indices)) => indices.push(index),
                None => parts.push((destination, smallvec![index])),
            }
        }
        for (destination, recipients) in parts {
            self.dispatch(Handle { recipients, ..whole.clone() }, destination);
        }
    }

    /// Sends a handle where it goes; counts it as out.
    fn dispatch(self: &Rc<Self>, handle: Handle, destination: Destination<'_>) {
        self.out.set(self.out.get() + 1);
        self.memory.hold(&handle.mail);
        let (disposition, reply) = match destination {
            Destination::Site(site) => return self.send(site, handle),
            Destination::Discard => (
                Disposition::Dropped,
                Reply::new(250, EnhancedCode(2, 0, 0), "discarded by a route"),
            ),
            Destination::Reject => (
                Disposition::Failed,
                Reply::new(550, EnhancedCode(5, 7, 1), "mail for this domain is not relayed"),
            ),
            // A gap in the configuration is no reason to lose mail over.
            Destination::Unrouted => (
                Disposition::Deferred,
                trouble(EnhancedCode(4, 4, 4), "no route matches the domain"),
            ),
        };
        self.conclude(settle_all(handle, disposition, &reply, "", clock::wall()));
    }

    fn send(self: &Rc<Self>, site: &Arc<Site>, handle: Handle) {
        let me = self.mesh.me();
        let to = self.settings.borrow().lanes.shard(site, me.0);
        if to == me.0 {
            let lane = self.lane(site);
            self.push(&lane, handle);
            return;
        }
        self.counters.borrow_mut().handed_off += 1;
        let deliver = &mut self.outboxes.borrow_mut()[usize::from(to)].deliver;
        match deliver.iter_mut().find(|(known, _)| known == site) {
            Some((_, handles)) => handles.push(handle),
            None => deliver.push((Arc::clone(site), vec![handle])),
        }
        self.post.raise();
    }

    /// Gives out what is due, as far as there is room.
    pub(super) async fn give_out_due(self: &Rc<Self>) {
        for (log, queue) in &self.logs {
            loop {
                let room = self.room().min(DUE_BATCH);
                if room == 0 || self.is_halted(*log) || !queue.can_record() {
                    break;
                }
                let due = queue.take_due(clock::wall(), room);
                if due.is_empty() {
                    break;
                }
                let reads: Vec<_> = due
                    .into_iter()
                    .map(|(id, recipients)| {
                        let (core, queue) = (Rc::clone(self), queue.clone());
                        spawn(async move { core.give_out_again(queue, id, recipients).await })
                    })
                    .collect();
                for read in reads {
                    read.await;
                }
            }
        }
    }

    /// Reads a message that is due and gives it out.
    async fn give_out_again(self: Rc<Self>, queue: Queue<S>, id: QueueId, recipients: Indices) {
        // Settled meanwhile, by an operator say: nothing is left to do.
        let Some(state) = queue.message(id) else { return };
        match self.read(&queue, id, state.size).await {
            Ok((mail, _kept)) => {
                let (at, size) = (state.at, state.size);
                for (attempts, recipients) in by_attempts(&recipients, &state) {
                    let mail = Arc::clone(&mail);
                    self.give_out(Handle { id, recipients, attempts, at, size, mail });
                }
            }
            Err(error) => {
                tracing::error!(target: "relay", %id, %error, "a queued message cannot be read");
                self.put_back(id, &recipients, clock::wall().plus(UNREADABLE_WAIT));
            }
        }
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

    /// Recipients wait again until `due`; nothing is logged.
    pub(super) fn put_back(&self, id: QueueId, recipients: &[u16], due: UnixMillis) {
        if let Some(queue) = self.log(id) {
            queue.put_back(id, recipients, due);
        }
    }

    /// True when outcomes cannot be recorded in this log any more.
    pub(super) fn is_halted(&self, log: ShardId) -> bool {
        self.halted.borrow().contains(&log)
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
