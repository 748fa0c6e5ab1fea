//! The durable queue: an append-only log of segments for each shard, with group
//! commit, an index in memory, recovery and reclaim. `docs/durability.md` says
//! what is promised, `docs/segment-format.md` what is on disk.
//!
//! `receive` appends and waits for the [`Commit`] before it answers 250; `relay`
//! reads messages and records outcomes; `shard` opens queues, spawns
//! [`Queue::run_commits`] and feeds what is due to the relay.
//!
//! The files by job. What is on disk: `format` and `record` are the bytes, `walk`
//! reads a segment's records in order, `fact` is what the index needs of them and
//! `checkpoint` keeps that for completed segments. Writing: `batch` is what one
//! write carries, `append`, `stream` and `orders` put records into batches,
//! `commit` writes and flushes them. Segments: `upkeep` prepares, frees and cleans
//! them. What is queued: `index`, rebuilt by `recover`; `reader` reads messages
//! back, `ahead` many of them in order, `due` is the schedule, `view` answers
//! questions. `state` is what all of these share, `options`
//! how a log is kept and what is counted.
//!
//! Invariants:
//! * A record is applied to the index in the call that puts it into a batch, so
//!   that the index is at every moment what recovery would make of the log.
//! * One flush is in flight at a time; what is appended meanwhile waits in the
//!   next batch and is committed by the next flush, together.
//! * A segment is recycled only when every message in it is durably settled and
//!   nothing in it is needed to know the state of messages elsewhere.
//! * After the first failed write or flush nothing is written any more.

mod ahead;
mod append;
mod batch;
pub mod checkpoint;
mod commit;
mod due;
mod error;
pub mod fact;
pub mod format;
mod index;
mod options;
mod orders;
pub mod reader;
pub mod record;
mod recover;
mod state;
mod stream;
mod upkeep;
mod view;
pub mod walk;

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

pub use batch::Commit;
pub use error::QueueError;
pub use options::{QueueCounters, QueueOptions, SegmentStats};
pub use orders::{Action, Carried};
pub use reader::{BodyReader, Reader};
pub use recover::{Damage, Loading, RecoveryReport};
pub use stream::StreamedAppend;
pub use view::{MessageState, PendingRecipient};

use crate::io::signal::Signal;
use crate::io::store::Store;
use state::State;

/// Longest body, or part of one, in a single record.
pub const BODY_PART_MAX: usize = 256 * 1024;
/// Longest text that the `prefix` of an append may write.
pub const PREFIX_MAX: usize = 4096;

/// One log and what is queued in it. Cheap to clone; all clones are one queue.
pub struct Queue<S: Store>(Rc<Inner<S>>);

impl<S: Store> Clone for Queue<S> {
    fn clone(&self) -> Self {
        Queue(Rc::clone(&self.0))
    }
}

struct Inner<S: Store> {
    store: S,
    options: QueueOptions,
    state: RefCell<State<S::File>>,
    reader: Reader<S>,
    /// Something waits to be written, or the end has come.
    work: Signal,
    /// What waits must not wait for company.
    urgent: Cell<bool>,
    /// Outcomes wait for company.
    recorded: Signal,
    /// Something may be freed or closed.
    upkeep: Signal,
    /// Something may be cleaned, or cleaning may write more.
    clean: Signal,
    /// A segment may have to be prepared.
    prepare: Signal,
    /// A segment has been prepared.
    prepared: Signal,
}

impl<S: Store> Inner<S> {
    /// Has what waits written as soon as the flush under way has ended.
    fn urge(&self) {
        self.urgent.set(true);
        self.work.raise();
    }
}
