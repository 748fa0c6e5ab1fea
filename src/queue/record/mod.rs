//! The payloads of records: what each kind carries, to and from bytes. Framing
//! and checksums are `format`'s; here the bytes have passed their checksum, and
//! are validated nevertheless, since a checksum is not proof of good form.
//!
//! Envelopes and outcomes are rkyv archives; the rest are a few integers.
//!
//! `envelope` is what goes before a body, `survivors` is the state of messages said again, `moved` a message said again
//! whole, `order` what an operator wanted.

mod envelope;
mod moved;
mod order;
mod survivors;

use rkyv::rancor;

use super::format::{Kind, read_u32, read_u64};
use crate::base::{Envelope, Outcome, Place};

pub use envelope::{EnvelopeFacts, decode_envelope, encode_envelope, envelope_facts, timing_of};
pub use moved::{MOVED_PREFIX, Moved};
pub use order::{Order, OrderKind};
pub use survivors::{Known, Survivor, Survivors};

/// A payload that is not what its kind says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// No place: segments have their header at offset 0, so that no record is there.
pub const NOWHERE: Place = Place { segment: 0, offset: 0 };

/// Payload of [`Kind::Mark`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Every record before this place was durable when the batch was written.
    pub durable: Place,
    /// Where the batch before this one ended.
    pub previous: Place,
}

/// Bytes of a mark's payload.
pub const MARK_LEN: usize = 16;

impl Mark {
    /// The payload.
    pub fn encode(&self) -> [u8; MARK_LEN] {
        let mut out = [0; MARK_LEN];
        out[..8].copy_from_slice(&place_bytes(self.durable));
        out[8..].copy_from_slice(&place_bytes(self.previous));
        out
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// It has another length.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        if payload.len() != MARK_LEN {
            return Err(Malformed("a mark of the wrong length"));
        }
        Ok(Mark { durable: read_place(payload, 0), previous: read_place(payload, 8) })
    }
}

/// Begins the payload of a [`Kind::Chunk`]: the head of its message.
pub fn encode_chunk_prefix(head: Place) -> [u8; 8] {
    place_bytes(head)
}

/// The head that a chunk belongs to, and the part of the body.
///
/// # Errors
/// The payload is too short.
pub fn decode_chunk(payload: &[u8]) -> Result<(Place, &[u8]), Malformed> {
    if payload.len() < CHUNK_PREFIX {
        return Err(Malformed("a chunk that is too short"));
    }
    Ok((read_place(payload, 0), &payload[CHUNK_PREFIX..]))
}

/// Bytes of a chunk's payload before the body.
pub const CHUNK_PREFIX: usize = 8;

/// A part of a streamed body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Extent {
    /// The chunk's record.
    pub place: Place,
    /// Bytes of body in it.
    pub len: u32,
}

/// Payload of [`Kind::Commit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The head of the message.
    pub head: Place,
    /// Bytes of the whole body, the head's part included.
    pub size: u64,
    /// Where the rest of the body lies, in order.
    pub extents: Vec<Extent>,
}

const COMMIT_PREFIX: usize = 16;
const EXTENT_LEN: usize = 12;

fn encode_extents(extents: &[Extent], out: &mut Vec<u8>) {
    for extent in extents {
        out.extend_from_slice(&place_bytes(extent.place));
        out.extend_from_slice(&extent.len.to_le_bytes());
    }
}

/// Reads extents from a list whose length the caller has checked.
fn decode_extents(list: &[u8]) -> Vec<Extent> {
    let items = list.chunks_exact(EXTENT_LEN);
    items.map(|item| Extent { place: read_place(item, 0), len: read_u32(item, 8) }).collect()
}

impl Commit {
    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&place_bytes(self.head));
        out.extend_from_slice(&self.size.to_le_bytes());
        encode_extents(&self.extents, out);
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// Its length cannot be that of a commit.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let Some(list) = payload.get(COMMIT_PREFIX..) else {
            return Err(Malformed("a commit that is too short"));
        };
        if list.len() % EXTENT_LEN != 0 {
            return Err(Malformed("a commit of the wrong length"));
        }
        let extents = decode_extents(list);
        Ok(Commit { head: read_place(payload, 0), size: read_u64(payload, 8), extents })
    }
}

/// Begins the payload of a [`Kind::Outcome`]: the message it is about.
pub fn begin_outcomes(message: Place, out: &mut Vec<u8>) {
    out.extend_from_slice(&place_bytes(message));
}

/// Adds one outcome to a payload.
pub fn push_outcome(outcome: &Outcome, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    rkyv::api::high::to_bytes_in::<_, rancor::Error>(outcome, &mut *out)
        .expect("an outcome is plain data, and a vector takes it");
    let len = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
}

/// The message and the outcomes of a [`Kind::Outcome`].
///
/// # Errors
/// The payload is malformed.
pub fn decode_outcomes(payload: &[u8]) -> Result<(Place, Vec<Outcome>), Malformed> {
    let Some(mut rest) = payload.get(8..) else {
        return Err(Malformed("an outcome record that is too short"));
    };
    let mut outcomes = Vec::new();
    while !rest.is_empty() {
        outcomes.push(take_outcome(&mut rest)?);
    }
    Ok((read_place(payload, 0), outcomes))
}

fn take_outcome(rest: &mut &[u8]) -> Result<Outcome, Malformed> {
    let archive = take_sized(rest)?;
    rkyv::from_bytes::<Outcome, rancor::Failure>(archive)
        .map_err(|_| Malformed("an outcome that does not validate"))
}

fn take_sized<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    const SHORT: Malformed = Malformed("a list that ends within an item");
    let len = read_u32(rest.get(..4).ok_or(SHORT)?, 0) as usize;
    let item = rest.get(4..4usize.saturating_add(len)).ok_or(SHORT)?;
    *rest = &rest[4 + len..];
    Ok(item)
}

fn place_bytes(place: Place) -> [u8; 8] {
    let mut out = [0; 8];
    out[..4].copy_from_slice(&place.segment.to_le_bytes());
    out[4..].copy_from_slice(&place.offset.to_le_bytes());
    out
}

fn read_place(bytes: &[u8], at: usize) -> Place {
    Place { segment: read_u32(bytes, at), offset: read_u32(bytes, at + 4) }
}

/// Everything that a record can say, for readers that take any.
#[derive(Debug)]
pub enum Payload<'a> {
    /// [`Kind::Pad`].
    Pad,
    /// [`Kind::Mark`].
    Mark(Mark),
    /// [`Kind::Message`]: envelope and body.
    Message {
        /// What the index needs of the envelope.
        facts: EnvelopeFacts,
        /// The whole body.
        body: &'a [u8],
    },
    /// [`Kind::Head`]: envelope and first part of the body.
    Head {
        /// What the index needs of the envelope.
        facts: EnvelopeFacts,
        /// First part of the body.
        part: &'a [u8],
    },
    /// [`Kind::Chunk`].
    Chunk {
        /// Head of its message.
        head: Place,
        /// Part of the body.
        part: &'a [u8],
    },
    /// [`Kind::Commit`].
    Commit(Commit),
    /// [`Kind::Outcome`].
    Outcomes {
        /// First record of the message.
        message: Place,
        /// What became of its recipients.
        outcomes: Vec<Outcome>,
    },
    /// [`Kind::Survivors`].
    Survivors(Survivors),
    /// [`Kind::Order`].
    Order(Order),
    /// [`Kind::Moved`].
    Moved {
        /// All of it but the body.
        moved: Moved,
        /// What the index needs of the envelope.
        facts: EnvelopeFacts,
        /// The whole body, or the first part of a streamed one.
        part: &'a [u8],
    },
    /// [`Kind::Roster`]: numbers of the segments in use, ascending.
    Roster(Vec<u32>),
}

impl<'a> Payload<'a> {
    /// Reads the payload of a record of `kind`, whose first `meta` bytes are
    /// its envelope.
    ///
    /// # Errors
    /// The payload is not what the kind says.
    pub fn decode(kind: Kind, meta: u32, payload: &'a [u8]) -> Result<Self, Malformed> {
        let split = || payload.split_at_checked(meta as usize).ok_or(Malformed("no envelope"));
        Ok(match kind {
            Kind::Pad => Payload::Pad,
            Kind::Mark => Payload::Mark(Mark::decode(payload)?),
            Kind::Message => {
                let (envelope, body) = split()?;
                Payload::Message { facts: envelope_facts(envelope)?, body }
            }
            Kind::Head => {
                let (envelope, part) = split()?;
                Payload::Head { facts: envelope_facts(envelope)?, part }
            }
            Kind::Chunk => {
                let (head, part) = decode_chunk(payload)?;
                Payload::Chunk { head, part }
            }
            Kind::Commit => Payload::Commit(Commit::decode(payload)?),
            Kind::Outcome => {
                let (message, outcomes) = decode_outcomes(payload)?;
                Payload::Outcomes { message, outcomes }
            }
            Kind::Survivors => Payload::Survivors(Survivors::decode(payload)?),
            Kind::Order => Payload::Order(Order::decode(payload)?),
            Kind::Moved => {
                let (moved, envelope, part) = Moved::decode(meta, payload)?;
                Payload::Moved { moved, facts: envelope_facts(envelope)?, part }
            }
            Kind::Roster => Payload::Roster(decode_roster(payload)?),
        })
    }
}

/// Appends the payload of a [`Kind::Roster`].
pub fn encode_roster(segments: impl Iterator<Item = u32>, out: &mut Vec<u8>) {
    segments.for_each(|segment| out.extend_from_slice(&segment.to_le_bytes()));
}

fn decode_roster(payload: &[u8]) -> Result<Vec<u32>, Malformed> {
    if !payload.len().is_multiple_of(4) {
        return Err(Malformed("a roster of the wrong length"));
    }
    Ok(payload.chunks_exact(4).map(|number| read_u32(number, 0)).collect())
}

/// The envelope of a message in a first record (message, head or moved).
///
/// # Errors
/// The record is of another kind, or the envelope does not validate.
pub fn first_envelope(kind: Kind, meta: u32, payload: &[u8]) -> Result<Envelope, Malformed> {
    let archive = match kind {
        Kind::Message | Kind::Head => {
            payload.get(..meta as usize).ok_or(Malformed("no envelope"))?
        }
        Kind::Moved => Moved::decode(meta, payload)?.1,
        _ => return Err(Malformed("not the first record of a message")),
    };
    decode_envelope(archive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Disposition, EnhancedCode, Reply, UnixMillis};

    pub(super) fn outcome(recipient: u16) -> Outcome {
        Outcome {
            recipient,
            disposition: Disposition::Deferred,
            reply: Reply::new(450, EnhancedCode(4, 2, 0), "busy"),
            host: "192.0.2.1:25".into(),
            at: UnixMillis(5),
            attempts: 3,
            next_attempt: UnixMillis(900),
            security: None,
        }
    }

    pub(super) const PLACE: Place = Place { segment: 9, offset: 8224 };

    #[test]
    fn each_payload_round_trips() {
        let mark = Mark { durable: PLACE, previous: NOWHERE };
        assert_eq!(Mark::decode(&mark.encode()), Ok(mark));
        let commit =
            Commit { head: PLACE, size: 1 << 33, extents: vec![Extent { place: PLACE, len: 7 }] };
        let mut bytes = Vec::new();
        commit.encode(&mut bytes);
        assert_eq!(Commit::decode(&bytes), Ok(commit));
        let mut bytes = Vec::new();
        begin_outcomes(PLACE, &mut bytes);
        push_outcome(&outcome(0), &mut bytes);
        push_outcome(&outcome(7), &mut bytes);
        assert_eq!(decode_outcomes(&bytes), Ok((PLACE, vec![outcome(0), outcome(7)])));
        let mut bytes = Vec::new();
        encode_roster([1, 5].into_iter(), &mut bytes);
        assert_eq!(decode_roster(&bytes), Ok(vec![1, 5]));
        assert!(decode_roster(&bytes[..3]).is_err());
    }

    #[test]
    fn every_cut_of_a_payload_is_refused_not_a_panic() {
        let mut outcomes = Vec::new();
        begin_outcomes(PLACE, &mut outcomes);
        push_outcome(&outcome(0), &mut outcomes);
        for cut in 0..outcomes.len() {
            // Eight bytes are a record about no recipient.
            assert_eq!(decode_outcomes(&outcomes[..cut]).is_ok(), cut == 8, "{cut}");
        }
    }
}
