//! What can go wrong in the queue, in words for operators. Whose fault it is
//! decides what the caller does: `Full` passes (452), `Poisoned` does not until
//! an operator has looked (451 and 421), `Damaged` concerns one message.

use std::fmt;
use std::io;

use crate::base::{Place, QueueId};

/// An operation on the queue that was not done.
#[derive(Debug)]
pub enum QueueError {
    /// The filesystem has no room for another segment above the reserve. New
    /// mail is refused, outcomes are still taken.
    Full {
        /// Bytes that the filesystem would have to have free.
        needed: u64,
        /// Bytes that it has.
        available: u64,
    },
    /// A write or flush failed earlier; nothing is written any more.
    Poisoned(String),
    /// The directory or a file of it could not be read or prepared.
    Io {
        /// What was attempted.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A record would not fit into a segment.
    TooLarge {
        /// Bytes of the record.
        bytes: u64,
        /// Most bytes that a record may have.
        limit: u64,
    },
    /// No such message is queued, or no such recipient of it.
    Unknown(QueueId),
    /// Bytes of the log do not pass their checks.
    Damaged {
        /// The record.
        place: Place,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QueueError::Full { needed, available } => write!(
                f,
                "the queue's filesystem is nearly full: {available} bytes available, {needed} \
                 needed for another segment and the reserve"
            ),
            QueueError::Poisoned(why) => write!(f, "the queue's log has failed: {why}"),
            QueueError::Io { what, source } => write!(f, "{what}: {source}"),
            QueueError::TooLarge { bytes, limit } => write!(
                f,
                "a record of {bytes} bytes does not fit, the limit is {limit}; \
                 queue.segment_size bounds it"
            ),
            QueueError::Unknown(id) => write!(f, "{id} is not queued, or has no such recipient"),
            QueueError::Damaged { place, what } => write!(
                f,
                "damaged record at offset {} of segment {:08x}: {what}",
                place.offset, place.segment
            ),
        }
    }
}

impl std::error::Error for QueueError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            QueueError::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl QueueError {
    /// An [`QueueError::Io`] maker for `map_err`.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> QueueError {
        let what = what.into();
        move |source| QueueError::Io { what, source }
    }
}
