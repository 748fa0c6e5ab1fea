//! What the control thread may ask of a shard, and what it gets back: plain
//! values by message, so that no memory is shared. `admin` sends these;
//! `shard` answers them.

use std::sync::Arc;
use std::time::Duration;

use async_channel::Sender;
use hdrhistogram::Histogram;

use crate::base::counters::Counters;
use crate::base::{Outcome, QueueId, ShardId, UnixMillis};
pub use crate::relay::SiteState;

/// A question from the control thread. Replies go to the sender inside; a
/// dropped sender means that the shard has gone.
pub enum Request<C> {
    /// The shard's figures.
    Snapshot(Sender<ShardSnapshot>),
    /// Queued messages in order of id, `limit` at most, those after `after`.
    List {
        /// Start after this id; `None` for the beginning.
        after: Option<QueueId>,
        /// Most entries to return.
        limit: usize,
        /// Where the page goes.
        reply: Sender<Page>,
    },
    /// One message.
    Show {
        /// Its id.
        id: QueueId,
        /// Whether the body is wanted too (un-stuffed).
        message: bool,
        /// `None`: this shard has no such message.
        reply: Sender<Option<Shown>>,
    },
    /// Use this configuration from now on.
    Reload(Arc<C>),
    /// Stop accepting, finish what is in flight within `grace`, flush, end.
    Drain {
        /// How long transactions may take to finish.
        grace: Duration,
        /// Told when the shard is done.
        reply: Sender<()>,
    },
}

/// A page of the queue.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The messages, in order of id.
    pub messages: Vec<Listed>,
    /// Where the next page begins; `None` when this was the last.
    pub next: Option<QueueId>,
}

/// A queued message as listed.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its id.
    pub id: QueueId,
    /// When it was accepted.
    pub arrival: UnixMillis,
    /// Stored size of the body, in bytes.
    pub size: u64,
    /// Reverse-path; empty for the null sender.
    pub sender: String,
    /// Recipients that have no final outcome yet.
    pub recipients: Vec<ListedRecipient>,
    /// Set when the envelope could not be read from the log, with the cause.
    pub damaged: Option<String>,
}

/// A recipient still to be delivered.
#[derive(Clone, Debug)]
pub struct ListedRecipient {
    /// Its address.
    pub address: String,
    /// Attempts made.
    pub attempts: u16,
    /// When the next is due; `None` while one is being made or waits in its
    /// site's queue.
    pub next_attempt: Option<UnixMillis>,
    /// The last outcome, if there was one.
    pub last: Option<Outcome>,
}

/// A message with its details.
#[derive(Clone, Debug)]
pub struct Shown {
    /// As listed.
    pub listed: Listed,
    /// How the client announced itself, and its address.
    pub helo: String,
    /// Address of the client; empty for mail made here.
    pub client: String,
    /// The message, un-stuffed, if asked for (cut at 64 MiB).
    pub message: Option<Vec<u8>>,
}

/// The figures of one shard.
#[derive(Clone, Debug)]
pub struct ShardSnapshot {
    /// Which.
    pub shard: ShardId,
    /// The CPU it is pinned to.
    pub cpu: Option<usize>,
    /// Its counters.
    pub counters: Counters,
    /// Open sessions.
    pub sessions: u64,
    /// Messages in its logs that are not settled.
    pub queued_messages: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Segments in use.
    pub segments: u64,
    /// Bytes of bodies in memory to be delivered.
    pub body_memory: u64,
    /// Why the shard refuses mail for good, if it does.
    pub poisoned: Option<String>,
    /// Why what was queued before the start could not be read, if so.
    pub unreadable: Option<String>,
    /// True while new mail is answered 452 because the disk is nearly full.
    pub full: bool,
    /// Time from the end of DATA to the 250, in microseconds.
    pub accept_latency: Histogram<u64>,
    /// Time from the 250 to the last recipient's delivery, in milliseconds.
    pub delivery_latency: Histogram<u64>,
    /// Destinations that this shard delivers to.
    pub sites: Vec<SiteState>,
}
