//! Answers to the control thread from the queue: pages of it, one message, its
//! bytes. `scan` finds and reads the messages; `order` does something to them.

use std::rc::Rc;
use std::sync::Arc;

use async_channel::Sender;

use super::control::{Listed, ListedRecipient, Page, Part, Range, Shown, Standing};
use super::guide::Guide;
use super::logs::Logs;
use super::maillog::MailLog;
use super::order::Hurried;
use super::scan::{Found, Wants, named, scan};
use super::select::Selection;
use crate::base::counters::SharedCounters;
use crate::base::{Outcome, QueueId};
use crate::io::store::Store;
use crate::mail::stuffing::Unstuffer;
use crate::queue::{BodyReader, MessageState, PendingRecipient, QueueError};
use crate::receive::authority::Authority;

/// What a shard needs to answer questions about its queue.
pub(super) struct Desk<S: Store> {
    pub(super) logs: Rc<Logs<S>>,
    pub(super) guide: Rc<dyn Guide>,
    pub(super) maillog: Rc<MailLog>,
    pub(super) counters: SharedCounters,
    pub(super) authority: Arc<Authority>,
    /// Sites that the order under way has hurried.
    pub(super) hurried: Hurried,
}

const ALL: Wants = Wants { envelope: true, outcomes: true };

impl<S: Store> Desk<S> {
    /// One page of the queue of all logs, in order of id.
    pub(super) async fn page(&self, range: &Range) -> Page {
        let (found, next) = scan(&self.logs, &*self.guide, range, |_| true, ALL).await;
        let messages = found.into_iter().map(|found| listed(found).0).collect();
        Page { messages, next, unread: self.unread() }
    }

    /// Segments that are still to be read after the start.
    pub(super) fn unread(&self) -> u64 {
        self.logs.values().map(|queue| queue.segments().unread).sum()
    }

    /// One message with its details; `None` when no log here has it.
    pub(super) async fn shown(&self, id: QueueId) -> Option<Shown> {
        let all = Arc::new(Selection::default());
        let found = named(&self.logs, &*self.guide, &[id], &all, ALL).await.pop()?;
        let standings = self.standings(&found);
        let terms = found.envelope.terms.clone();
        let (listed, helo, client) = listed(found);
        Some(Shown { listed, standings, helo, client, terms })
    }

    fn standings(&self, found: &Found<S>) -> Vec<Standing> {
        if found.damaged.is_some() {
            return Vec::new();
        }
        let standing = |pending: &PendingRecipient| {
            let address = found.envelope.recipients.get(usize::from(pending.recipient));
            let last = found.outcomes.iter().find(|o| o.recipient == pending.recipient);
            self.guide.standing(address.map_or("", |address| address), pending, last)
        };
        found.state.recipients.iter().map(standing).collect()
    }

    /// Sends the message itself, un-stuffed. Not more than one part is read
    /// ahead of a slow reader; one that has gone ends it.
    pub(super) async fn send_parts(&self, id: QueueId, parts: Sender<Part>) {
        let Some(queue) = self.logs.get(&id.log) else { return };
        let last = match queue.body(id).await {
            Ok(mut body) => match send_body(&mut body, &parts).await {
                Ok(()) => Part::End,
                Err(error) => Part::Failed(error.to_string()),
            },
            Err(error) => Part::Failed(error.to_string()),
        };
        let _ = parts.send(last).await;
    }
}

async fn send_body<S: Store>(
    body: &mut BodyReader<S>,
    parts: &Sender<Part>,
) -> Result<(), QueueError> {
    let mut unstuffer = Unstuffer::new();
    while let Some(wire) = body.next().await? {
        let mut bytes = Vec::with_capacity(wire.len());
        unstuffer.chunk(&wire).for_each(|piece| bytes.extend_from_slice(piece));
        if parts.send(Part::Bytes(bytes)).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// A message as listed, with HELO and client.
fn listed<S: Store>(found: Found<S>) -> (Listed, String, String) {
    let Found { state, envelope, outcomes, damaged, .. } = found;
    let recipients = match damaged {
        None => recipients(&state, &envelope.recipients, &outcomes),
        Some(_) => Vec::new(),
    };
    let listed = Listed {
        id: state.id,
        arrival: state.arrival,
        size: state.size,
        sender: envelope.sender,
        recipients,
        damaged,
    };
    (listed, envelope.helo, envelope.client)
}

fn recipients(
    state: &MessageState,
    addresses: &[String],
    outcomes: &[Outcome],
) -> Vec<ListedRecipient> {
    let waits = |pending: &PendingRecipient| !pending.out && !pending.waiting && !pending.held;
    state
        .recipients
        .iter()
        .map(|pending| ListedRecipient {
            address: addresses.get(usize::from(pending.recipient)).cloned().unwrap_or_default(),
            attempts: pending.attempts,
            next_attempt: waits(pending).then_some(pending.next_attempt),
            out: pending.out,
            waiting: pending.waiting,
            held: pending.held,
            postponed: pending.postponed,
            last: outcomes.iter().find(|o| o.recipient == pending.recipient).cloned(),
        })
        .collect()
}
