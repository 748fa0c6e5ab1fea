//! Ids name the physical place of a message: (log, segment, offset of its first
//! record). So a look-up by id needs no table, and ids of one log sort by age.
//!
//! The printed form, which `250 2.0.0 Ok: queued as ID`, `Received:` and
//! `ringpost queue show` use, is 16 characters of Crockford's base 32: 80 bits,
//! no padding, no letters that look alike, safe in file names and URLs.

use std::fmt;
use std::str::FromStr;

/// Number of a shard (one executor on one core), and of the log it writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A byte position in one log.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
pub struct Place {
    /// Sequence number of the segment; grows for ever, never reused.
    pub segment: u32,
    /// Offset of a record's header in that segment, in bytes.
    pub offset: u32,
}

/// Where the records of a message lie in its log: at the place that its id names,
/// unless it has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Location {
    /// Its first record.
    pub first: Place,
    /// The record that ends a streamed message, where that is one of its own.
    pub commit: Option<Place>,
}

/// The id of a queued message: the log and the place of its first record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId {
    /// The log that holds the message; the shard that first wrote it.
    pub log: ShardId,
    /// The first record of the message in that log.
    pub place: Place,
}

/// Length of the printed form of a [`QueueId`], in characters.
pub const QUEUE_ID_LEN: usize = 16;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl QueueId {
    /// The printed form, without allocating.
    pub fn encode(self) -> [u8; QUEUE_ID_LEN] {
        let mut bits = (u128::from(self.log.0) << 64)
            | (u128::from(self.place.segment) << 32)
            | u128::from(self.place.offset);
        let mut out = [b'0'; QUEUE_ID_LEN];
        for slot in out.iter_mut().rev() {
            *slot = ALPHABET[(bits & 31) as usize];
            bits >>= 5;
        }
        out
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.encode();
        f.pad(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

/// A text that is no [`QueueId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadQueueId;

impl fmt::Display for BadQueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a queue id: {QUEUE_ID_LEN} characters of 0-9 and A-Z without I, L, O, U")
    }
}

impl std::error::Error for BadQueueId {}

impl FromStr for QueueId {
    type Err = BadQueueId;

    fn from_str(text: &str) -> Result<Self, BadQueueId> {
        if text.len() != QUEUE_ID_LEN {
            return Err(BadQueueId);
        }
        let mut bits: u128 = 0;
        for byte in text.bytes() {
            let upper = byte.to_ascii_uppercase();
            let digit = ALPHABET.iter().position(|&c| c == upper).ok_or(BadQueueId)?;
            bits = (bits << 5) | digit as u128;
        }
        Ok(QueueId {
            log: ShardId((bits >> 64) as u16),
            place: Place { segment: (bits >> 32) as u32, offset: bits as u32 },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(log: u16, segment: u32, offset: u32) -> QueueId {
        QueueId { log: ShardId(log), place: Place { segment, offset } }
    }

    #[test]
    fn printed_form_round_trips_and_keeps_order() {
        let ids = [
            id(0, 0, 0),
            id(0, 1, 4096),
            id(0, 1, 8192),
            id(7, 0, 3),
            id(u16::MAX, u32::MAX, u32::MAX),
        ];
        for pair in ids.windows(2) {
            assert!(pair[0].to_string() < pair[1].to_string());
        }
        for id in ids {
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(id.to_string().to_lowercase().parse(), Ok(id));
        }
    }

    #[test]
    fn refuses_what_is_no_id() {
        for bad in ["", "0", "000000000000000U", "00000000000000000", "0000000000000 00"] {
            assert_eq!(bad.parse::<QueueId>(), Err(BadQueueId), "{bad:?}");
        }
    }
}
