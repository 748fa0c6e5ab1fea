//! What the control thread may ask of a shard, and what it gets back: plain
//! values by message, so that no memory is shared. `admin` sends these;
//! `shard` answers them.

use std::sync::Arc;
use std::time::Duration;

use async_channel::Sender;
use hdrhistogram::Histogram;

use super::select::Selection;
use crate::base::counters::Counters;
use crate::base::terms::Terms;
use crate::base::{Outcome, QueueId, ShardId, UnixMillis};
pub use crate::io::dns::DnsFigures;
use crate::io::tls;
pub use crate::queue::Action;
pub use crate::relay::{SiteState, SiteTotals, Standing};

/// Destinations that a snapshot tells of: those with most mail.
pub const SITES_TOLD: usize = 50;

/// A question from the control thread. Replies go to the sender inside; a
/// dropped sender means that the shard has gone.
pub enum Request<C> {
    /// The shard's figures.
    Snapshot(Sender<ShardSnapshot>),
    /// What the shard knows of these destinations, by name; those that it has
    /// nothing for are left out.
    Sites(Arc<[Box<str>]>, Sender<Vec<SiteState>>),
    /// A page of queued messages, in order of id.
    List {
        /// Which.
        range: Range,
        /// Where the page goes.
        reply: Sender<Page>,
    },
    /// One message.
    Show {
        /// Its id.
        id: QueueId,
        /// Where the message itself goes, un-stuffed and in parts, if it is
        /// wanted. A slow reader holds up nothing but these parts.
        parts: Option<Sender<Part>>,
        /// `None`: this shard has no such message.
        reply: Sender<Option<Shown>>,
    },
    /// Do something to queued messages.
    Order {
        /// What, and on whose behalf.
        order: Order,
        /// To which messages.
        target: Target,
        /// Told when what was done is durable.
        reply: Sender<Ordered>,
    },
    /// Use this configuration from now on.
    Reload(Arc<C>),
    /// Do the handshakes that begin from now on with this.
    Tls(tls::Server),
    /// Stop accepting, finish what is in flight within `grace`, flush, end.
    Drain {
        /// How long transactions may take to finish.
        grace: Duration,
        /// Told when the shard is done.
        reply: Sender<()>,
    },
}

/// A part of the queue: messages in order of id.
#[derive(Clone, Debug)]
pub struct Range {
    /// Which messages.
    pub selection: Arc<Selection>,
    /// Start after this id; `None` for the beginning.
    pub after: Option<QueueId>,
    /// Leave out what was accepted after this, so that who goes through the
    /// queue does not run after new mail for ever.
    pub until: UnixMillis,
    /// Most messages to return.
    pub limit: usize,
}

/// A page of the queue. It may be short, or empty, and not the last: a shard
/// looks at a bounded number of messages for each page.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The messages, in order of id.
    pub messages: Vec<Listed>,
    /// Where the next page begins; `None` when this was the last.
    pub next: Option<QueueId>,
    /// Segments that are still to be read after a start; what is queued in them
    /// is not known yet.
    pub unread: u64,
}

/// What an operator wants done.
#[derive(Clone, Debug)]
pub struct Order {
    /// What.
    pub action: Action,
    /// Who wants it, for the record and the log.
    pub by: Arc<str>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// To which messages an order is.
#[derive(Clone, Debug)]
pub enum Target {
    /// To these, as far as the selection has them.
    Named(Arc<[QueueId]>, Arc<Selection>),
    /// To all of a part of the queue.
    Matching(Range),
}

/// What became of an order.
#[derive(Clone, Debug, Default)]
pub struct Ordered {
    /// The messages concerned. Of those that were named also the ones for which
    /// there was nothing to do: without recipients.
    pub messages: Vec<OrderedMessage>,
    /// Where the next page begins; `None` when this was the last.
    pub next: Option<QueueId>,
    /// Segments that are still to be read after a start.
    pub unread: u64,
    /// Why the rest was not done, if something stopped it.
    pub trouble: Option<String>,
}

/// A message to which an order was.
#[derive(Clone, Debug)]
pub struct OrderedMessage {
    /// Its id.
    pub id: QueueId,
    /// Reverse-path; empty for the null sender.
    pub sender: String,
    /// Recipients for which something was done.
    pub recipients: Vec<String>,
    /// Set when the envelope could not be read from the log, with the cause.
    /// Recipients are then named by their numbers.
    pub damaged: Option<String>,
}

/// A piece of a message that is shown.
#[derive(Debug)]
pub enum Part {
    /// Its next bytes.
    Bytes(Vec<u8>),
    /// That was all of it.
    End,
    /// The rest cannot be read, and why.
    Failed(String),
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
    /// site's queue, while the recipient waits for its site, and while it is held.
    pub next_attempt: Option<UnixMillis>,
    /// One is being made or waits in its site's queue.
    pub out: bool,
    /// It is due, and waits until its site has room.
    pub waiting: bool,
    /// Held back by an operator.
    pub held: bool,
    /// Its sender wants it kept until `next_attempt`.
    pub postponed: bool,
    /// The last outcome, if there was one.
    pub last: Option<Outcome>,
}

/// A message with its details.
#[derive(Clone, Debug)]
pub struct Shown {
    /// As listed.
    pub listed: Listed,
    /// Where each of the recipients listed stands; none of a damaged message.
    pub standings: Vec<Standing>,
    /// How the client announced itself, and its address.
    pub helo: String,
    /// Address of the client; empty for mail made here.
    pub client: String,
    /// The terms on which it was taken, if there are any.
    pub terms: Option<Box<Terms>>,
}

/// The files of a shard's logs, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LogFiles {
    /// Segments in use.
    pub in_use: u64,
    /// Files that wait to be used again, or are prepared to be the next segment.
    pub spare: u64,
    /// Segments kept because some of their bytes are damaged.
    pub quarantined: u64,
    /// Segments that are still to be read after the start.
    pub unread: u64,
    /// Bytes of records that queued messages need.
    pub live_bytes: u64,
    /// Bytes in segments for each byte that is needed.
    pub amplification: f64,
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
    /// Memory that they and their buffers take, in bytes.
    pub receive_memory: u64,
    /// Messages in its logs that are not settled.
    pub queued_messages: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Its files.
    pub files: LogFiles,
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
    /// The destinations that it has most mail for, the fullest first:
    /// [`SITES_TOLD`] at most.
    pub sites: Vec<SiteState>,
    /// All of its destinations in sum.
    pub site_totals: SiteTotals,
    /// Figures of its resolver.
    pub dns: DnsFigures,
}
