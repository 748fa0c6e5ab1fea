//! The payloads of records: what each kind carries, to and from bytes. Framing
//! and checksums are `format`'s; here the bytes have passed their checksum, and
//! are validated nevertheless, since a checksum is not proof of good form.
//!
//! Envelopes and outcomes are rkyv archives; the rest are a few integers.

use rkyv::rancor;

use super::format::{Kind, read_u32, read_u64};
use crate::base::envelope::ArchivedEnvelope;
use crate::base::{Envelope, Outcome, Place};

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

/// Appends the archive of `envelope`.
pub fn encode_envelope(envelope: &Envelope, out: &mut Vec<u8>) {
    rkyv::api::high::to_bytes_in::<_, rancor::Error>(envelope, &mut *out)
        .expect("an envelope is plain data, and a vector takes it");
}

/// What the index needs of an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvelopeFacts {
    /// Number of recipients, at least one.
    pub recipients: u16,
    /// `Envelope::arrival_ms`.
    pub arrival_ms: u64,
}

/// Validates an envelope without building it.
///
/// # Errors
/// It is no envelope, or one with no recipient or too many.
pub fn envelope_facts(bytes: &[u8]) -> Result<EnvelopeFacts, Malformed> {
    let archived = rkyv::access::<ArchivedEnvelope, rancor::Failure>(bytes)
        .map_err(|_| Malformed("an envelope that does not validate"))?;
    match u16::try_from(archived.recipients.len()) {
        Ok(0) | Err(_) => Err(Malformed("an envelope without recipients, or with too many")),
        Ok(recipients) => {
            Ok(EnvelopeFacts { recipients, arrival_ms: archived.arrival_ms.to_native() })
        }
    }
}

/// Reads an envelope.
///
/// # Errors
/// It does not validate.
pub fn decode_envelope(bytes: &[u8]) -> Result<Envelope, Malformed> {
    rkyv::from_bytes::<Envelope, rancor::Failure>(bytes)
        .map_err(|_| Malformed("an envelope that does not validate"))
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl Commit {
    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&place_bytes(self.head));
        out.extend_from_slice(&self.size.to_le_bytes());
        for extent in &self.extents {
            out.extend_from_slice(&place_bytes(extent.place));
            out.extend_from_slice(&extent.len.to_le_bytes());
        }
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
        let extents = list
            .chunks_exact(EXTENT_LEN)
            .map(|item| Extent { place: read_place(item, 0), len: read_u32(item, 8) })
            .collect();
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

/// Payload of [`Kind::Survivors`]: of the messages that begin in `segment` at
/// offsets in `from..to`, those listed are live and all others are not.
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
    pub recipients: Vec<SurvivorRecipient>,
}

/// What is known of a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SurvivorRecipient {
    /// Index into the envelope's recipients.
    pub recipient: u16,
    /// Nothing is left to do for it.
    pub done: bool,
    /// Attempts so far.
    pub attempts: u16,
    /// When to try again.
    pub next_ms: u64,
    /// Its last outcome; `None` if that is in a record that stays needed.
    pub last: Option<Outcome>,
}

const SURVIVORS_PREFIX: usize = 16;
const SURVIVOR_PREFIX: usize = 8;
const RECIPIENT_PREFIX: usize = 14;

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
            let recipients = (0..count)
                .map(|_| SurvivorRecipient::take(&mut rest))
                .collect::<Result<Vec<_>, _>>()?;
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

impl SurvivorRecipient {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.recipient.to_le_bytes());
        out.push(u8::from(self.done));
        out.push(u8::from(self.last.is_some()));
        out.extend_from_slice(&self.attempts.to_le_bytes());
        out.extend_from_slice(&self.next_ms.to_le_bytes());
        if let Some(last) = &self.last {
            push_outcome(last, out);
        }
    }

    fn take(rest: &mut &[u8]) -> Result<Self, Malformed> {
        let Some(prefix) = rest.get(..RECIPIENT_PREFIX) else {
            return Err(Malformed("survivors that end within a recipient"));
        };
        *rest = &rest[RECIPIENT_PREFIX..];
        Ok(SurvivorRecipient {
            recipient: u16::from_le_bytes([prefix[0], prefix[1]]),
            done: prefix[2] != 0,
            attempts: u16::from_le_bytes([prefix[4], prefix[5]]),
            next_ms: read_u64(prefix, 6),
            last: if prefix[3] != 0 { Some(take_outcome(rest)?) } else { None },
        })
    }
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
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Disposition, EnhancedCode, Reply, UnixMillis};

    fn outcome(recipient: u16) -> Outcome {
        Outcome {
            recipient,
            disposition: Disposition::Deferred,
            reply: Reply::new(450, EnhancedCode(4, 2, 0), "busy"),
            host: "192.0.2.1:25".into(),
            at: UnixMillis(5),
            attempts: 3,
            next_attempt: UnixMillis(900),
        }
    }

    const PLACE: Place = Place { segment: 9, offset: 8224 };

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
        let recipients = vec![
            SurvivorRecipient {
                recipient: 0,
                done: true,
                attempts: 1,
                next_ms: 0,
                last: Some(outcome(0)),
            },
            SurvivorRecipient { recipient: 1, done: false, attempts: 2, next_ms: 5, last: None },
        ];
        let survivors = Survivors {
            segment: 4,
            from: 8192,
            to: u32::MAX,
            messages: vec![Survivor { offset: 8224, recipients }],
        };
        let mut bytes = Vec::new();
        survivors.encode(&mut bytes);
        assert_eq!(Survivors::decode(&bytes), Ok(survivors));
    }

    #[test]
    fn every_cut_of_a_payload_is_refused_not_a_panic() {
        let mut outcomes = Vec::new();
        begin_outcomes(PLACE, &mut outcomes);
        push_outcome(&outcome(0), &mut outcomes);
        let mut envelope = Vec::new();
        encode_envelope(
            &Envelope { recipients: vec!["b@example.org".into()], ..Envelope::default() },
            &mut envelope,
        );
        for cut in 0..outcomes.len() {
            // Eight bytes are a record about no recipient.
            assert_eq!(decode_outcomes(&outcomes[..cut]).is_ok(), cut == 8, "{cut}");
        }
        assert_eq!(envelope_facts(&envelope).unwrap().recipients, 1);
        for cut in 0..envelope.len() {
            let facts = envelope_facts(&envelope[..cut]);
            assert!(facts.is_err() || cut > 0, "{cut}: {facts:?}");
        }
        assert!(envelope_facts(&[]).is_err());
    }

    #[test]
    fn an_envelope_without_recipients_is_malformed() {
        let mut bytes = Vec::new();
        encode_envelope(&Envelope::default(), &mut bytes);
        assert!(envelope_facts(&bytes).is_err());
    }
}
