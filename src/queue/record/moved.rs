//! A message that was moved: all that its first record said, and all that is
//! known of its recipients, so that neither that record nor the outcomes
//! recorded before are needed any more.
//!
//! The message keeps its id, the place where it was first written; only the
//! bytes are elsewhere. The parts of a streamed body that lay elsewhere stay
//! there: the list of them is said anew, and replaces the commit record.

use super::read_place;
use super::{EXTENT_LEN, Extent, Known, Malformed, decode_extents, encode_extents, place_bytes};
use crate::base::Place;
use crate::queue::format::{read_u32, read_u64};

/// Payload of [`Kind::Moved`](super::Kind::Moved) but for envelope and body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The id of the message: where it was first written.
    pub id: Place,
    /// Bytes of the whole body.
    pub size: u64,
    /// Where the rest of a streamed body lies, in order.
    pub extents: Vec<Extent>,
    /// All that is known of its recipients, last outcomes included.
    pub known: Vec<Known>,
}

/// Bytes before the lists.
pub const MOVED_PREFIX: usize = 28;

impl Moved {
    /// Appends the payload up to the body; its length is the record's `meta`.
    pub fn encode(&self, envelope: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&place_bytes(self.id));
        out.extend_from_slice(&self.size.to_le_bytes());
        for count in [self.extents.len(), self.known.len(), envelope.len()] {
            out.extend_from_slice(&(count as u32).to_le_bytes());
        }
        encode_extents(&self.extents, out);
        self.known.iter().for_each(|known| known.encode(out));
        out.extend_from_slice(envelope);
    }

    /// Reads the payload of a record with this `meta`; gives the archive of the
    /// envelope and the first part of the body too.
    ///
    /// # Errors
    /// The payload is malformed.
    pub fn decode(meta: u32, payload: &[u8]) -> Result<(Self, &[u8], &[u8]), Malformed> {
        const SHORT: Malformed = Malformed("a moved message that ends within an item");
        let (head, part) = payload.split_at_checked(meta as usize).ok_or(SHORT)?;
        let prefix = head.get(..MOVED_PREFIX).ok_or(SHORT)?;
        let count = |at| read_u32(prefix, at) as usize;
        let lists = &head[MOVED_PREFIX..];
        let extents_len = count(16).checked_mul(EXTENT_LEN).ok_or(SHORT)?;
        let (extents, mut rest) = lists.split_at_checked(extents_len).ok_or(SHORT)?;
        let known =
            (0..count(20)).map(|_| Known::take(&mut rest)).collect::<Result<Vec<_>, _>>()?;
        if rest.len() != count(24) {
            return Err(Malformed("a moved message whose envelope has another length"));
        }
        let moved = Moved {
            id: read_place(prefix, 0),
            size: read_u64(prefix, 8),
            extents: decode_extents(extents),
            known,
        };
        Ok((moved, rest, part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::record::tests::{PLACE, outcome};

    #[test]
    fn a_moved_message_round_trips_and_no_cut_of_it_is_taken() {
        let known = Known {
            recipient: 3,
            done: false,
            held: true,
            attempts: 1,
            next_ms: 9,
            last: Some(outcome(3)),
        };
        let moved = Moved {
            id: PLACE,
            size: 1 << 33,
            extents: vec![Extent { place: PLACE, len: 7 }],
            known: vec![known],
        };
        let mut bytes = Vec::new();
        moved.encode(b"envelope", &mut bytes);
        let meta = bytes.len() as u32;
        bytes.extend_from_slice(b"body");
        assert_eq!(Moved::decode(meta, &bytes), Ok((moved, &b"envelope"[..], &b"body"[..])));
        for cut in 0..meta {
            assert!(Moved::decode(cut, &bytes[..cut as usize]).is_err(), "{cut}");
        }
        assert!(Moved::decode(meta, &bytes[..4]).is_err());
    }
}
