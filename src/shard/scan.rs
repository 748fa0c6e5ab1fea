//! Goes through the queue for operators without disturbing mail: what the index
//! can decide is decided a few hundred messages at a time, and only what is left
//! is read from the log, in its order, so that one read brings many messages.
//! Between any two steps other tasks have their turn, and after reading for a
//! while there is a rest twice as long. One request looks at a bounded number of
//! messages, whatever its filter lets through; the caller goes on from there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::control::Range;
use super::guide::Guide;
use super::logs::Logs;
use super::select::{Chosen, Selection};
use crate::base::{Envelope, Outcome, QueueId, ShardId, UnixMillis};
use crate::io::clock;
use crate::io::executor::{sleep, yield_now};
use crate::io::store::Store;
use crate::queue::{MessageState, PendingRecipient, Queue, QueueError, Reader};

/// Most messages returned for one request, whatever was asked for.
const PAGE_MAX: usize = 1000;
/// Recipients after which a page is full.
const RECIPIENTS_MAX: usize = 10_000;
/// Messages that one request looks at in the index.
const EXAMINED_MAX: usize = 32_768;
/// Messages that one request reads from the log.
const READ_MAX: usize = 2048;
/// Messages looked at in the index before other tasks get a turn.
const TURN: usize = 256;
/// How long messages are read before disk and core are left to mail for twice
/// as long.
const SLICE: Duration = Duration::from_micros(200);
/// Longest such rest.
const REST_MAX: Duration = Duration::from_millis(20);

/// What is wanted of each message besides what decides whether it is meant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wants {
    pub(super) envelope: bool,
    pub(super) outcomes: bool,
}

/// A message that is meant, as far as it was read.
pub(super) struct Found<S: Store> {
    pub(super) queue: Queue<S>,
    pub(super) state: MessageState,
    /// The recipients that are meant.
    pub(super) chosen: Chosen,
    /// Default if it was not wanted, or is damaged.
    pub(super) envelope: Envelope,
    pub(super) outcomes: Vec<Outcome>,
    /// Why the log could not be read, if it could not.
    pub(super) damaged: Option<String>,
}

/// What envelopes and outcomes of a log are read by.
type Readers<S> = BTreeMap<ShardId, (Reader<S>, Reader<S>)>;

/// How far a request has come.
struct Progress {
    after: Option<QueueId>,
    examined: usize,
    is_at_end: bool,
}

/// Goes through `range` of all `logs`. Recipients for which `concerns` is false
/// are passed over. Returns the messages that are meant, by id, and where to go
/// on; `None` at the end.
pub(super) async fn scan<S: Store>(
    logs: &Logs<S>,
    guide: &dyn Guide,
    range: &Range,
    concerns: impl Fn(&PendingRecipient) -> bool,
    wants: Wants,
) -> (Vec<Found<S>>, Option<QueueId>) {
    let limit = range.limit.clamp(1, PAGE_MAX);
    let mut progress = Progress { after: range.after, examined: 0, is_at_end: false };
    let (mut found, mut recipients, mut read_count) = (Vec::new(), 0, 0);
    loop {
        let room = (limit - found.len(), RECIPIENTS_MAX - recipients);
        let candidates = gather(logs, range, &concerns, room, &mut progress).await;
        read_count += candidates.len();
        for message in read(candidates, &range.selection, guide, wants).await {
            if !message.chosen.is_empty() {
                recipients += message.state.recipients.len();
                found.push(message);
            }
        }
        let is_full = found.len() >= limit || recipients >= RECIPIENTS_MAX;
        let is_enough = progress.examined >= EXAMINED_MAX || read_count >= READ_MAX;
        if progress.is_at_end {
            return (found, None);
        }
        if is_full || is_enough {
            return (found, progress.after);
        }
    }
}

/// Those of `ids` that are queued here. What `selection` does not mean is among
/// them, without recipients.
pub(super) async fn named<S: Store>(
    logs: &Logs<S>,
    guide: &dyn Guide,
    ids: &[QueueId],
    selection: &Arc<Selection>,
    wants: Wants,
) -> Vec<Found<S>> {
    let now = clock::wall();
    let queued = ids.iter().filter_map(|id| {
        let queue = logs.get(&id.log)?;
        let state = queue.message(*id)?;
        let chosen = selection.by_index(&state, now);
        Some(Found::new(queue.clone(), state, chosen))
    });
    read(queued.collect(), selection, guide, wants).await
}

/// Candidates by the index: `room` messages at most, or few more than that many
/// recipients.
async fn gather<S: Store>(
    logs: &Logs<S>,
    range: &Range,
    concerns: &impl Fn(&PendingRecipient) -> bool,
    (room, recipients_room): (usize, usize),
    progress: &mut Progress,
) -> Vec<Found<S>> {
    let now = clock::wall();
    let (mut candidates, mut recipients) = (Vec::new(), 0);
    while progress.examined < EXAMINED_MAX {
        let ids = ids_after(logs, progress.after, TURN);
        progress.is_at_end = ids.len() < TURN;
        for id in ids {
            progress.after = Some(id);
            progress.examined += 1;
            if let Some(candidate) = candidate(logs, range, concerns, id, now) {
                recipients += candidate.state.recipients.len();
                candidates.push(candidate);
            }
            if candidates.len() >= room || recipients >= recipients_room {
                // There may be more behind this one.
                progress.is_at_end = false;
                return candidates;
            }
        }
        if progress.is_at_end {
            break;
        }
        yield_now().await;
    }
    candidates
}

fn candidate<S: Store>(
    logs: &Logs<S>,
    range: &Range,
    concerns: &impl Fn(&PendingRecipient) -> bool,
    id: QueueId,
    now: UnixMillis,
) -> Option<Found<S>> {
    let queue = logs.get(&id.log)?;
    let state = queue.message(id).filter(|state| state.arrival <= range.until)?;
    let mut chosen = range.selection.by_index(&state, now);
    chosen.retain(|index| {
        let recipient = state.recipients.iter().find(|pending| pending.recipient == *index);
        recipient.is_some_and(concerns)
    });
    (!chosen.is_empty()).then(|| Found::new(queue.clone(), state, chosen))
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

/// Reads what the selection asks for and what is wanted, and drops the recipients
/// that are not meant. Messages that were settled meanwhile are left out.
async fn read<S: Store>(
    messages: Vec<Found<S>>,
    selection: &Arc<Selection>,
    guide: &dyn Guide,
    wants: Wants,
) -> Vec<Found<S>> {
    let reads_envelope = wants.envelope || selection.asks_envelope();
    if !reads_envelope && !wants.outcomes && !selection.asks_outcomes() {
        return messages;
    }
    let mut readers = Readers::default();
    let mut found = Vec::with_capacity(messages.len());
    let mut begun = Instant::now();
    for mut message in messages {
        let readers = readers
            .entry(message.state.id.log)
            .or_insert_with(|| (message.queue.reader_in_order(), message.queue.reader_in_order()));
        match message.complete(selection, guide, wants, readers).await {
            Ok(()) => found.push(message),
            Err(QueueError::Unknown(_)) => {}
            Err(error) => {
                if selection.asks_envelope() || selection.asks_outcomes() {
                    message.chosen.clear();
                }
                message.damaged = Some(error.to_string());
                found.push(message);
            }
        }
        let took = begun.elapsed();
        if took >= SLICE {
            sleep((2 * took).min(REST_MAX)).await;
            begun = Instant::now();
        }
    }
    found
}

impl<S: Store> Found<S> {
    fn new(queue: Queue<S>, state: MessageState, chosen: Chosen) -> Self {
        let (envelope, outcomes) = (Envelope::default(), Vec::new());
        Found { queue, state, chosen, envelope, outcomes, damaged: None }
    }

    /// Reads as much as is needed, in order of what it costs.
    async fn complete(
        &mut self,
        selection: &Selection,
        guide: &dyn Guide,
        wants: Wants,
        (envelopes, outcomes): &(Reader<S>, Reader<S>),
    ) -> Result<(), QueueError> {
        let id = self.state.id;
        if wants.envelope || selection.asks_envelope() {
            self.envelope = self.queue.envelope_by(envelopes, id).await?;
            selection.by_envelope(&self.envelope, |address| guide.way(address), &mut self.chosen);
        }
        if self.chosen.is_empty() {
            return Ok(());
        }
        if wants.outcomes || selection.asks_outcomes() {
            self.outcomes = self.queue.last_outcomes_by(outcomes, id).await?;
            selection.by_outcomes(&self.outcomes, &mut self.chosen);
        }
        Ok(())
    }
}
