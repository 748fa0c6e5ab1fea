//! Fake shards for the tests of this folder: tasks that answer requests as a
//! shard would, badly or not at all.

use std::path::PathBuf;
use std::sync::Arc;

use async_channel::Receiver;
use hdrhistogram::Histogram;

use super::control::{Control, Phase};
use super::fleet::{Fleet, Member};
use crate::base::{Disposition, EnhancedCode, Outcome, Place, QueueId, Reply, ShardId, UnixMillis};
use crate::config::Config;
use crate::shard::control::{
    Listed, ListedRecipient, Page, Request, ShardSnapshot, Shown, SiteState,
};

/// How a fake shard behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Answers everything.
    Well,
    /// Answers, and its log is poisoned.
    Poisoned,
    /// Takes requests and never answers.
    Silent,
    /// Takes nothing: its inbox is full.
    Stuck,
    /// Has ended.
    Gone,
}

/// Messages queued on each fake shard.
pub const QUEUED: u32 = 5;

/// The configuration of the tests.
pub fn config() -> Arc<Config> {
    Arc::new(Config::default())
}

/// A ready server on fake shards.
pub fn control(manners: &[Manner]) -> Arc<Control> {
    let control = Control::new(fleet(manners), config(), UnixMillis(1_700_000_000_000));
    control.enter(Phase::Ready);
    control
}

/// Fake shards, one for each manner; on the tokio runtime of the caller.
pub fn fleet(manners: &[Manner]) -> Fleet {
    Fleet::new(manners.iter().enumerate().map(|(index, manner)| {
        let id = ShardId(index as u16);
        let capacity = if *manner == Manner::Stuck { 1 } else { 16 };
        let (requests, inbox) = async_channel::bounded(capacity);
        if *manner == Manner::Stuck {
            let (reply, _) = async_channel::bounded(1);
            requests.try_send(Request::Snapshot(reply)).ok().unwrap();
        }
        if *manner != Manner::Gone {
            tokio::spawn(serve(id, *manner, inbox));
        }
        Member { id, requests }
    }))
}

async fn serve(id: ShardId, manner: Manner, inbox: Receiver<Request<Config>>) {
    let mut kept = Vec::new();
    if manner == Manner::Stuck {
        std::future::pending::<()>().await;
    }
    while let Ok(request) = inbox.recv().await {
        match (manner, request) {
            (Manner::Well | Manner::Poisoned, request) => {
                if answer(id, manner, request) {
                    return;
                }
            }
            (_, request) => kept.push(request),
        }
    }
}

/// Answers one request; true when it was the last.
pub fn answer(id: ShardId, manner: Manner, request: Request<Config>) -> bool {
    match request {
        Request::Snapshot(reply) => {
            let mut snapshot = snapshot(id.0);
            snapshot.poisoned = (manner == Manner::Poisoned).then(|| "fdatasync failed".into());
            let _ = reply.try_send(snapshot);
        }
        Request::List { after, limit, reply } => {
            let mut rest: Vec<_> =
                (1..=QUEUED).map(|n| listed(id, n)).filter(|m| Some(m.id) > after).collect();
            let more = rest.len() > limit;
            rest.truncate(limit);
            let next = more.then(|| rest.last().expect("limit is not 0").id);
            let _ = reply.try_send(Page { messages: rest, next });
        }
        Request::Show { id: wanted, message, reply } => {
            let listed = (1..=QUEUED).map(|n| listed(id, n)).find(|m| m.id == wanted);
            let _ = reply.try_send(listed.map(|listed| Shown {
                listed,
                helo: "client.example".into(),
                client: "192.0.2.7".into(),
                message: message.then(|| b"Subject: x\r\n\r\n\xff\n{\"page\":1}\n".to_vec()),
            }));
        }
        Request::Reload(_) => {}
        Request::Drain { reply, .. } => {
            let _ = reply.try_send(());
            return true;
        }
    }
    false
}

/// The `number`th message of a fake shard: the first is out for delivery, the
/// others wait.
pub fn listed(shard: ShardId, number: u32) -> Listed {
    let at = UnixMillis(1_700_000_060_000);
    let last = Outcome {
        recipient: 0,
        disposition: Disposition::Deferred,
        reply: Reply::new(450, EnhancedCode(4, 2, 0), "mailbox busy"),
        host: "127.0.0.1:2526".into(),
        at,
        attempts: 2,
        next_attempt: UnixMillis(1_700_000_360_000),
    };
    let waits = number > 1;
    Listed {
        id: QueueId { log: shard, place: Place { segment: 1, offset: number * 4096 } },
        arrival: UnixMillis(1_700_000_000_000),
        size: 1000 + u64::from(number),
        sender: if number == 2 { String::new() } else { format!("s{number}@example.com") },
        recipients: vec![ListedRecipient {
            address: format!("r{number}@example.org"),
            attempts: if waits { 2 } else { 0 },
            next_attempt: waits.then_some(last.next_attempt),
            last: waits.then_some(last),
        }],
        damaged: None,
    }
}

/// The figures of a fake shard.
pub fn snapshot(shard: u16) -> ShardSnapshot {
    ShardSnapshot {
        shard: ShardId(shard),
        cpu: Some(usize::from(shard)),
        counters: crate::base::counters::Counters {
            messages_accepted: 10,
            recipients_delivered: 8,
            ..Default::default()
        },
        sessions: 1,
        queued_messages: u64::from(QUEUED),
        queued_bytes: 5015,
        segments: 2,
        body_memory: 0,
        poisoned: None,
        unreadable: None,
        full: false,
        accept_latency: Histogram::new(3).unwrap(),
        delivery_latency: Histogram::new(3).unwrap(),
        sites: vec![SiteState {
            site: "127.0.0.1:2526".into(),
            queued: 4,
            connections: 1,
            back_off_until: (shard == 1).then_some(UnixMillis(1_700_000_360_000)),
            last_failure: (shard == 1).then(|| "connection refused".into()),
        }],
    }
}

/// A directory for one test, and the path of a socket in it.
pub fn socket() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("admin.sock");
    (temp, path)
}
