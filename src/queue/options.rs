//! How a log is kept, and the figures that tell what it does.

use super::BODY_PART_MAX;
use super::batch::BATCH_PREFIX;
use super::format::DATA_START;
use crate::base::{Durability, ShardId};

/// Smallest segment: room for records, with many blocks to a batch.
pub const SEGMENT_SIZE_MIN: u32 = 64 * 1024;
/// Largest segment: offsets are 32 bits, record lengths 31.
pub const SEGMENT_SIZE_MAX: u32 = 1 << 30;

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct QueueOptions {
    /// The log; its number is part of every id.
    pub log: ShardId,
    /// Size of a segment, in bytes: whole blocks.
    pub segment_size: u32,
    /// When a commit resolves.
    pub durability: Durability,
    /// Bytes of the filesystem that new mail leaves free, so that outcomes can
    /// still be written.
    pub reserve: u64,
    /// Files kept for use as segments; [`Queue::trim`](super::Queue) removes more.
    pub spares_max: usize,
    /// Outcomes wait for company: for mail, or for [`Queue::nudge`](super::Queue),
    /// which the owner then calls a few milliseconds after
    /// [`Queue::recorded`](super::Queue) has returned.
    pub outcomes_wait: bool,
    /// New mail lets cleaning write as many bytes as itself, beside what
    /// [`Queue::allow_cleaning`](super::Queue) adds.
    pub mail_allows_cleaning: bool,
}

impl Default for QueueOptions {
    fn default() -> Self {
        QueueOptions {
            log: ShardId(0),
            segment_size: 64 << 20,
            durability: Durability::Sync,
            reserve: 128 << 20,
            spares_max: 4,
            outcomes_wait: false,
            mail_allows_cleaning: true,
        }
    }
}

impl QueueOptions {
    /// Most bytes that a record can take.
    pub(super) fn record_max(&self) -> usize {
        self.segment_size as usize - DATA_START as usize - BATCH_PREFIX
    }

    /// Longest part of a body in one record; a longer body is streamed.
    pub(super) fn part_max(&self) -> usize {
        BODY_PART_MAX.min(self.segment_size as usize / 8)
    }

    /// Room at the end of the last segment that mail leaves to outcomes when
    /// no other segment is to be had.
    pub(super) fn outcome_room(&self) -> usize {
        (self.segment_size as usize / 8).min(4 << 20)
    }
}

/// What a queue has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// Records appended, marks and padding not counted.
    pub appends: u64,
    /// Flushes completed (with `sync`), or batches of writes (otherwise).
    pub flushes: u64,
    /// Writes or flushes that failed.
    pub failures: u64,
    /// Bytes of records appended, marks and padding not counted.
    pub bytes_appended: u64,
    /// Bytes written to segments.
    pub bytes_written: u64,
    /// Zeroes written into new segment files ahead of their use.
    pub bytes_zeroed: u64,
    /// Segment files created.
    pub segments_created: u64,
    /// Segment files used again.
    pub segments_recycled: u64,
    /// Segments of which nothing was needed any more.
    pub segments_freed: u64,
    /// Messages moved out of segments of which little was needed.
    pub messages_moved: u64,
    /// Bytes of records written to move them.
    pub bytes_moved: u64,
    /// Checkpoints of completed segments written.
    pub checkpoints: u64,
    /// Records found damaged when they were read.
    pub damaged: u64,
}

/// The files of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentStats {
    /// Segments that hold something needed, the current one included.
    pub in_use: u64,
    /// Segments prepared to be the next.
    pub prepared: u64,
    /// Files that wait to be used again.
    pub spare: u64,
    /// Segments kept because some of their bytes are damaged.
    pub quarantined: u64,
    /// Size of a segment in bytes.
    pub segment_size: u64,
    /// Bytes of records that queued messages need.
    pub live_bytes: u64,
    /// Segments whose contents are still to be read after the start.
    pub unread: u64,
}

impl SegmentStats {
    /// Bytes on disk, the segments in use whole, for each byte needed. The
    /// segment being written and one beside it are not counted, so that a queue
    /// with little in it has no absurd figure.
    pub fn amplification(&self) -> f64 {
        let counted = self.in_use.saturating_sub(2) * self.segment_size;
        counted as f64 / self.live_bytes.max(1) as f64
    }
}
