//! Messages on their way through a queue: appended, committed together, settled.

use std::hint::black_box;

use ringpost::base::{Disposition, EnhancedCode, Envelope, Outcome, QueueId, Reply, UnixMillis};
use ringpost::io::store::Store;
use ringpost::queue::Queue;

/// The envelope of each message.
pub fn envelope() -> Envelope {
    Envelope {
        sender: "sender@example.com".into(),
        recipients: vec!["recipient@example.org".into()],
        arrival_ms: 1_700_000_000_000,
        client: "192.0.2.7".into(),
        helo: "client.example.com".into(),
        ..Envelope::default()
    }
}

fn delivered() -> Outcome {
    Outcome {
        recipient: 0,
        disposition: Disposition::Delivered,
        reply: Reply::new(250, EnhancedCode(2, 0, 0), "Ok: queued as 0000G00080001000"),
        host: "192.0.2.1:25".into(),
        at: UnixMillis(1_700_000_000_500),
        attempts: 1,
        next_attempt: UnixMillis(0),
        security: None,
    }
}

/// Appends `count` messages and waits until they are durable.
pub async fn accept<S: Store>(
    queue: &Queue<S>,
    envelope: &Envelope,
    body: &[u8],
    count: u64,
) -> Vec<QueueId> {
    let trace = [b'r'; 150];
    let mut ids: Vec<QueueId> = Vec::with_capacity(count as usize);
    let mut last = None;
    for _ in 0..count {
        let prefix = |_: QueueId, out: &mut Vec<u8>| out.extend_from_slice(&trace);
        let (id, commit) = queue.append(envelope, prefix, &[black_box(body)]).expect("room");
        ids.push(id);
        last = Some(commit);
    }
    last.expect("one at least").await.expect("the log does not fail");
    ids
}

/// Records that they have been delivered.
pub fn settle<S: Store>(queue: &Queue<S>, ids: &[QueueId]) {
    let outcome = [delivered()];
    for id in ids {
        drop(queue.record(*id, &outcome).expect("room"));
    }
}
