//! Fake shards for the tests of this folder: tasks that answer requests as a
//! shard would, badly or not at all.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_channel::Receiver;
use hdrhistogram::Histogram;

use super::control::{Control, Phase};
use super::fleet::{Fleet, Member};
use crate::base::{
    Disposition, EnhancedCode, Envelope, Location, Outcome, Place, QueueId, Reply, ShardId,
    UnixMillis,
};
use crate::config::Config;
use crate::io::clock;
use crate::io::dns::{DnsFigures, ServerFigures};
use crate::policy::route::{Destination, Routes};
use crate::queue::{MessageState, PendingRecipient};
use crate::relay::Way;
use crate::shard::control::{
    Action, Listed, ListedRecipient, LogFiles, Order, Ordered, OrderedMessage, Page, Part, Range,
    Request, ShardSnapshot, Shown, SiteState, SiteTotals, Standing, Target,
};
use crate::shard::order::concerns;
use crate::shard::select::Selection;

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
    /// Looks for long at its queue and finds nothing, for ever.
    Barren,
    /// Has not read all of its queue yet.
    Loading,
    /// Can record nothing: orders fail, and messages break off.
    Failing,
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
        if manner == Manner::Silent {
            kept.push(request);
            continue;
        }
        if manner == Manner::Barren {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if answer(id, manner, request).await {
            return;
        }
    }
}

/// Answers one request; true when it was the last.
pub async fn answer(id: ShardId, manner: Manner, request: Request<Config>) -> bool {
    match request {
        Request::Snapshot(reply) => {
            let mut snapshot = snapshot(id.0);
            snapshot.poisoned = (manner == Manner::Poisoned).then(|| "fdatasync failed".into());
            let _ = reply.try_send(snapshot);
        }
        Request::Sites(names, reply) => {
            let mut known = snapshot(id.0).sites;
            known.retain(|site| names.iter().any(|name| **name == *site.site));
            let _ = reply.try_send(known);
        }
        Request::List { range, reply } => {
            let _ = reply.try_send(page(id, manner, &range));
        }
        Request::Show { id: wanted, parts, reply } => {
            let listed = (1..=QUEUED).map(|n| listed(id, n)).find(|m| m.id == wanted);
            let has_it = listed.is_some();
            let (helo, client) = ("client.example".into(), "192.0.2.7".into());
            let standings = vec![standing()];
            let _ = reply.try_send(listed.map(|listed| Shown {
                listed,
                standings,
                helo,
                client,
                terms: None,
            }));
            if let (Some(parts), true) = (parts, has_it) {
                let last = match manner {
                    Manner::Failing => Part::Failed("damaged record".into()),
                    _ => Part::End,
                };
                let first = b"Subject: x\r\n\r\n".to_vec();
                for part in [Part::Bytes(first), Part::Bytes(b"{\"page\":1}\n".to_vec()), last] {
                    let _ = parts.send(part).await;
                }
            }
        }
        Request::Order { order, target, reply } => {
            let _ = reply.try_send(ordered(id, manner, &order, &target));
        }
        Request::Reload(_) | Request::Tls(_) => {}
        Request::Drain { reply, .. } => {
            let _ = reply.try_send(());
            return true;
        }
    }
    false
}

/// What a shard that is still reading has left to read.
fn unread(manner: Manner) -> u64 {
    if manner == Manner::Loading { 12 } else { 0 }
}

/// As `shard::answer` does, of messages that do not change.
fn page(id: ShardId, manner: Manner, range: &Range) -> Page {
    if manner == Manner::Barren {
        return Page { next: Some(listed(id, 1).id), ..Page::default() };
    }
    let mut messages: Vec<_> = (1..=QUEUED)
        .map(|number| listed(id, number))
        .filter(|m| Some(m.id) > range.after && m.arrival <= range.until)
        .filter(|m| !chosen(m, &range.selection, None).is_empty())
        .collect();
    let next = (messages.len() > range.limit).then(|| messages[range.limit - 1].id);
    messages.truncate(range.limit);
    Page { messages, next, unread: unread(manner) }
}

/// As `shard::order` does, of messages that do not change.
fn ordered(id: ShardId, manner: Manner, order: &Order, target: &Target) -> Ordered {
    if manner == Manner::Failing {
        let trouble = Some("the queue's log has failed: EIO".into());
        return Ordered { trouble, ..Ordered::default() };
    }
    let (found, selection, next) = match target {
        Target::Named(ids, selection) => {
            let all = (1..=QUEUED).map(|number| listed(id, number));
            (all.filter(|m| ids.contains(&m.id)).collect(), selection, None)
        }
        Target::Matching(range) => {
            let page = page(id, manner, range);
            (page.messages, &range.selection, page.next)
        }
    };
    let is_named = matches!(target, Target::Named(..));
    let told = found.iter().map(|listed| {
        let recipients = chosen(listed, selection, Some(order.action));
        OrderedMessage {
            id: listed.id,
            sender: listed.sender.clone(),
            recipients: recipients.iter().map(|_| listed.recipients[0].address.clone()).collect(),
            damaged: None,
        }
    });
    let messages = told.filter(|message| is_named || !message.recipients.is_empty()).collect();
    Ordered { messages, next, unread: unread(manner), trouble: None }
}

/// The recipients of `listed` that are meant, and that `action` concerns.
fn chosen(listed: &Listed, selection: &Selection, action: Option<Action>) -> Vec<u16> {
    let config = config();
    let routes = Routes::new(&config);
    let recipients = listed.recipients.iter().enumerate();
    let pending: Vec<_> = recipients
        .map(|(index, recipient)| PendingRecipient {
            recipient: index as u16,
            attempts: recipient.attempts,
            next_attempt: recipient.next_attempt.unwrap_or_default(),
            out: recipient.out,
            waiting: recipient.waiting,
            noticed: 0,
            postponed: recipient.postponed,
            held: recipient.held,
        })
        .collect();
    let state = MessageState {
        id: listed.id,
        size: listed.size,
        arrival: listed.arrival,
        at: Location::default(),
        recipients_total: pending.len() as u16,
        recipients: pending,
    };
    let envelope = Envelope {
        sender: listed.sender.clone(),
        recipients: listed.recipients.iter().map(|r| r.address.clone()).collect(),
        ..Envelope::default()
    };
    let outcomes: Vec<_> = listed.recipients.iter().filter_map(|r| r.last.clone()).collect();
    let mut chosen = selection.by_index(&state, clock::wall());
    let way = |address: &str| match routes.address(address) {
        Destination::Site(site) => Way { site: Some(site.name.to_string()), by_mx: false },
        _ => Way::default(),
    };
    selection.by_envelope(&envelope, way, &mut chosen);
    selection.by_outcomes(&outcomes, &mut chosen);
    let concerned = |index: &u16| {
        action.is_none_or(|action| concerns(action, &state.recipients[usize::from(*index)]))
    };
    chosen.into_iter().filter(concerned).collect()
}

/// The `number`th message of a fake shard: the first is out for delivery, the
/// fifth is held, the others wait.
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
        security: None,
    };
    let (out, held) = (number == 1, number == 5);
    Listed {
        id: QueueId { log: shard, place: Place { segment: 1, offset: number * 4096 } },
        arrival: UnixMillis(1_700_000_000_000),
        size: 1000 + u64::from(number),
        sender: if number == 2 { String::new() } else { format!("s{number}@example.com") },
        recipients: vec![ListedRecipient {
            address: format!("r{number}@example.org"),
            attempts: if out { 0 } else { 2 },
            next_attempt: (!out && !held).then_some(last.next_attempt),
            out,
            waiting: false,
            held,
            postponed: false,
            last: (!out).then_some(last),
        }],
        damaged: None,
    }
}

/// Where all recipients of fake shards stand.
fn standing() -> Standing {
    Standing {
        site: Some("127.0.0.1:2526".into()),
        owner: Some(ShardId(1)),
        next_attempt: Some(UnixMillis(1_700_000_360_000)),
        why: "retry 2 of 7, then every 4h".into(),
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
        receive_memory: 4096,
        queued_messages: u64::from(QUEUED),
        queued_bytes: 5015,
        files: LogFiles { in_use: 2, spare: 3, amplification: 1.25, ..LogFiles::default() },
        body_memory: 0,
        poisoned: None,
        unreadable: None,
        full: false,
        accept_latency: Histogram::new(3).unwrap(),
        delivery_latency: Histogram::new(3).unwrap(),
        sites: vec![SiteState {
            site: "127.0.0.1:2526".into(),
            owner: ShardId(0),
            lanes: 2,
            queued: 4,
            out: 5,
            waiting: 6,
            connections: 1,
            connections_allowed: 2,
            connections_limit: 20,
            message_rate: None,
            back_off_until: (shard == 1).then_some(UnixMillis(1_700_000_360_000)),
            last_failure: (shard == 1).then(|| "connection refused".into()),
        }],
        site_totals: SiteTotals {
            sites: 3,
            sites_of_all: 4,
            queued: 5,
            out: 7,
            waiting: 9,
            connections: 2,
            backing_off: u64::from(shard),
        },
        dns: DnsFigures {
            queries: 12,
            hits: 30,
            entries: 7,
            servers: vec![ServerFigures {
                address: SocketAddr::from(([192, 0, 2, 53], 53)),
                queries: 12,
                failures: 2,
                is_backing_off: shard == 1,
            }],
            ..DnsFigures::default()
        },
    }
}

/// A directory for one test, and the path of a socket in it.
pub fn socket() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("admin.sock");
    (temp, path)
}
