//! Answers to the control thread: figures, pages of the queue, one message.
//!
//! A page reads the envelope of each message from the log, a bounded number of
//! them between two turns of the executor, so that listing a long queue does
//! not hold up mail. What is listed is collected page by page, never whole.

use crate::base::{Outcome, QueueId, ShardId};
use crate::io::executor::yield_now;
use crate::io::store::Store;
use crate::mail::stuffing;
use crate::queue::{MessageState, Queue, QueueError};

use super::control::{Listed, ListedRecipient, Page, Shown};
use super::logs::Logs;

/// Most messages read for one page, whatever was asked for.
const PAGE_MAX: usize = 1000;
/// Most bytes of a message that `show` returns.
const SHOWN_MAX: usize = 64 * 1024 * 1024;
/// Envelopes read before other tasks get a turn.
const TURN: usize = 16;

/// One page of the queue of all `logs`, in order of id.
pub(super) async fn page<S: Store>(logs: &Logs<S>, after: Option<QueueId>, limit: usize) -> Page {
    let limit = limit.clamp(1, PAGE_MAX);
    let ids = ids_after(logs, after, limit);
    let next = if ids.len() == limit { ids.last().copied() } else { None };
    let mut messages = Vec::with_capacity(ids.len());
    for (index, id) in ids.into_iter().enumerate() {
        let queue = logs.get(&id.log).cloned();
        if let Some(queue) = queue {
            messages.extend(listed(&queue, id).await.map(|found| found.0));
        }
        if index % TURN == TURN - 1 {
            yield_now().await;
        }
    }
    Page { messages, next }
}

fn ids_after<S: Store>(logs: &Logs<S>, after: Option<QueueId>, limit: usize) -> Vec<QueueId> {
    let mut ids = Vec::new();
    let first = after.map_or(ShardId(0), |id| id.log);
    for (log, queue) in logs.range(first..) {
        let from = after.filter(|id| id.log == *log);
        ids.extend(queue.ids_after(from, limit - ids.len()));
        if ids.len() >= limit {
            break;
        }
    }
    ids
}

/// One message with its details; `None` when no log here has it.
pub(super) async fn shown<S: Store>(logs: &Logs<S>, id: QueueId, message: bool) -> Option<Shown> {
    let queue = logs.get(&id.log).cloned()?;
    let (listed, helo, client) = listed(&queue, id).await?;
    let message =
        if message && listed.damaged.is_none() { body(&queue, id).await.ok() } else { None };
    Some(Shown { listed, helo, client, message })
}

async fn body<S: Store>(queue: &Queue<S>, id: QueueId) -> Result<Vec<u8>, QueueError> {
    let mut reader = queue.body(id).await?;
    let mut wire = Vec::new();
    while let Some(part) = reader.next().await? {
        wire.extend_from_slice(&part);
        if wire.len() > SHOWN_MAX {
            wire.truncate(SHOWN_MAX);
            break;
        }
    }
    Ok(stuffing::unstuff(&wire))
}

/// A message as listed, with HELO and client; `None` when it has been settled
/// meanwhile.
async fn listed<S: Store>(queue: &Queue<S>, id: QueueId) -> Option<(Listed, String, String)> {
    let state = queue.message(id)?;
    let mut listed = Listed {
        id,
        arrival: state.arrival,
        size: state.size,
        sender: String::new(),
        recipients: Vec::new(),
        damaged: None,
    };
    let read = async {
        let envelope = queue.envelope(id).await?;
        let outcomes = queue.last_outcomes(id).await?;
        Ok::<_, QueueError>((envelope, outcomes))
    };
    match read.await {
        Ok((envelope, outcomes)) => {
            listed.recipients = recipients(&state, &envelope.recipients, &outcomes);
            listed.sender = envelope.sender;
            Some((listed, envelope.helo, envelope.client))
        }
        Err(error) => {
            listed.damaged = Some(error.to_string());
            Some((listed, String::new(), String::new()))
        }
    }
}

fn recipients(
    state: &MessageState,
    addresses: &[String],
    outcomes: &[Outcome],
) -> Vec<ListedRecipient> {
    state
        .recipients
        .iter()
        .map(|pending| ListedRecipient {
            address: addresses.get(usize::from(pending.recipient)).cloned().unwrap_or_default(),
            attempts: pending.attempts,
            next_attempt: (!pending.out).then_some(pending.next_attempt),
            last: outcomes.iter().find(|o| o.recipient == pending.recipient).cloned(),
        })
        .collect()
}
