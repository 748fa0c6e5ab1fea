//! Survivors: the state of the messages that lie in a range of another segment,
//! said again so that the records it was told by can go; and what such a record,
//! or a moved message, knows of a recipient.

use super::{Malformed, push_outcome, take_outcome};
use crate::base::Outcome;
use crate::queue::format::{read_u32, read_u64};

/// Payload of [`Kind::Survivors`](super::Kind::Survivors): of the messages whose
/// first record lies in `segment` at offsets in `from..to`, those listed are live
/// and all others are not, unless they have moved away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivors {
    /// The segment spoken about.
    pub segment: u32,
    /// First offset spoken about.
    pub from: u32,
    /// First offset no longer spoken about.
    pub to: u32,
    /// The live messages, by offset.
    pub messages: Vec<Survivor>,
}

/// A live message in [`Survivors`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// Where its first record lies in the segment.
    pub offset: u32,
    /// Those of its recipients of which anything is known.
    pub recipients: Vec<Known>,
}

/// What is known of a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Index into the envelope's recipients.
    pub recipient: u16,
    /// Nothing is left to do for it.
    pub done: bool,
    /// An operator holds it back. (Since version 2.)
    pub held: bool,
    /// Attempts so far.
    pub attempts: u16,
    /// When to try again.
    pub next_ms: u64,
    /// Its last outcome; `None` if that is in a record that stays needed.
    pub last: Option<Outcome>,
}

const SURVIVORS_PREFIX: usize = 16;
const SURVIVOR_PREFIX: usize = 8;
const KNOWN_PREFIX: usize = 14;
const DONE: u8 = 1;
const HELD: u8 = 2;

impl Survivors {
    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for word in [self.segment, self.from, self.to, self.messages.len() as u32] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        self.messages.iter().for_each(|message| message.encode(out));
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// The payload is malformed.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        const SHORT: Malformed = Malformed("survivors that end within an item");
        let prefix = payload.get(..SURVIVORS_PREFIX).ok_or(SHORT)?;
        let mut rest = &payload[SURVIVORS_PREFIX..];
        let mut messages = Vec::new();
        for _ in 0..read_u32(prefix, 12) {
            let item = rest.get(..SURVIVOR_PREFIX).ok_or(SHORT)?;
            let (offset, count) = (read_u32(item, 0), read_u32(item, 4));
            rest = &rest[SURVIVOR_PREFIX..];
            let recipients =
                (0..count).map(|_| Known::take(&mut rest)).collect::<Result<Vec<_>, _>>()?;
            messages.push(Survivor { offset, recipients });
        }
        if !rest.is_empty() {
            return Err(Malformed("survivors with bytes left over"));
        }
        Ok(Survivors {
            segment: read_u32(prefix, 0),
            from: read_u32(prefix, 4),
            to: read_u32(prefix, 8),
            messages,
        })
    }
}

impl Survivor {
    /// Appends the item as it lies in the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&(self.recipients.len() as u32).to_le_bytes());
        self.recipients.iter().for_each(|recipient| recipient.encode(out));
    }
}

impl Known {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.recipient.to_le_bytes());
        out.push(if self.done { DONE } else { 0 } | if self.held { HELD } else { 0 });
        out.push(u8::from(self.last.is_some()));
        out.extend_from_slice(&self.attempts.to_le_bytes());
        out.extend_from_slice(&self.next_ms.to_le_bytes());
        if let Some(last) = &self.last {
            push_outcome(last, out);
        }
    }

    pub(super) fn take(rest: &mut &[u8]) -> Result<Self, Malformed> {
        let Some(prefix) = rest.get(..KNOWN_PREFIX) else {
            return Err(Malformed("a list that ends within a recipient"));
        };
        *rest = &rest[KNOWN_PREFIX..];
        Ok(Known {
            recipient: u16::from_le_bytes([prefix[0], prefix[1]]),
            done: prefix[2] & DONE != 0,
            held: prefix[2] & HELD != 0,
            attempts: u16::from_le_bytes([prefix[4], prefix[5]]),
            next_ms: read_u64(prefix, 6),
            last: if prefix[3] != 0 { Some(take_outcome(rest)?) } else { None },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::record::tests::outcome;

    #[test]
    fn survivors_round_trip_and_no_cut_of_them_is_taken() {
        let known = |recipient, done, held, last| Known {
            recipient,
            done,
            held,
            attempts: 2,
            next_ms: 5,
            last,
        };
        let recipients = vec![known(0, true, false, Some(outcome(0))), known(1, false, true, None)];
        let survivors = Survivors {
            segment: 4,
            from: 8192,
            to: u32::MAX,
            messages: vec![Survivor { offset: 8224, recipients }],
        };
        let mut bytes = Vec::new();
        survivors.encode(&mut bytes);
        for cut in 0..bytes.len() {
            assert!(Survivors::decode(&bytes[..cut]).is_err(), "{cut}");
        }
        assert_eq!(Survivors::decode(&bytes), Ok(survivors));
    }
}
