//! What of a log's messages is held for users (FUTURERELEASE): counted after a start,
//! once the queue is read, and looked up when an operator has done something to one.

use crate::base::QueueId;
use crate::io::clock;
use crate::io::executor::yield_now;
use crate::io::store::Store;
use crate::queue::Queue;
use crate::receive::authority::Authority;

/// Messages looked at before other tasks get a turn.
const TURN: usize = 256;

/// True while a recipient of the message waits for the time that its sender wants.
pub(super) fn is_held<S: Store>(queue: &Queue<S>, id: QueueId) -> bool {
    queue.message(id).is_some_and(|message| message.recipients.iter().any(|r| r.postponed))
}

/// Counts what was held for users before the start. What cannot be read does not
/// count.
pub(super) async fn count_held<S: Store>(queue: &Queue<S>, authority: &Authority) {
    let reader = queue.reader_in_order();
    let mut after = None;
    loop {
        let ids = queue.ids_after(after, TURN);
        let Some(last) = ids.last() else { return };
        after = Some(*last);
        for id in ids.into_iter().filter(|id| is_held(queue, *id)) {
            let envelope = queue.envelope_by(&reader, id).await;
            // An operator may have released it meanwhile.
            if let (Ok(envelope), true) = (envelope, is_held(queue, id)) {
                authority.holds(id, &envelope, clock::wall());
            }
        }
        yield_now().await;
    }
}
