//! The bytes of a segment: its header and the framing of records. Everything
//! that reads or writes a segment, the offline inspector too, goes through
//! these functions; `docs/segment-format.md` describes the same in prose.
//!
//! * Integers are little-endian and of fixed width.
//! * A segment begins with two copies of its header, a block each; data begins
//!   at [`DATA_START`].
//! * A record is a header of [`RECORD_HEADER`] bytes and its payload, and takes
//!   a multiple of [`ALIGN`] bytes. It never spans segments.
//! * The checksums of a record are seeded with the segment's salt, the log and
//!   the segment's number, that of the header with the record's offset too. So
//!   neither what a recycled file held before nor bytes inside a message can
//!   pass for a record, whoever wrote them: the salt is random and never leaves
//!   the segment's header.

use crate::base::checksum::{crc32c, crc32c_unwind};
use crate::base::{ShardId, UnixMillis};
use crate::io::store::BLOCK;

/// First bytes of a segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"RINGPOST";
/// Version of the format written.
pub const FORMAT_VERSION: u32 = 4;
/// Oldest version that is read.
pub const FORMAT_OLDEST: u32 = 1;
/// Where the first record of a segment lies.
pub const DATA_START: u32 = 2 * BLOCK as u32;
/// Bytes of a record's header.
pub const RECORD_HEADER: usize = 16;
/// Records begin at multiples of this.
pub const ALIGN: usize = 16;
/// Longest envelope, in bytes: its length takes 24 bits of the header.
pub const META_MAX: usize = (1 << 24) - 1;
/// Version numbers from here on are damage, not the future.
const VERSION_PLAUSIBLE: u32 = 1000;
/// Bytes of a segment header that are used.
const SEGMENT_HEADER: usize = 48;

const _: () = assert!(RECORD_HEADER.is_multiple_of(ALIGN) && BLOCK.is_multiple_of(ALIGN));
const _: () = assert!(SEGMENT_HEADER <= 512, "the header fits into one sector");

/// `len` rounded up to a multiple of [`ALIGN`].
pub const fn aligned(len: usize) -> usize {
    len.next_multiple_of(ALIGN)
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Fills a batch up to a whole block. Its payload is not checksummed.
    Pad = 1,
    /// Begins a batch: what was durable when the batch was written.
    Mark = 2,
    /// A whole message: envelope and body.
    Message = 3,
    /// Begins a streamed message: envelope and the first part of the body.
    Head = 4,
    /// A further part of a streamed body.
    Chunk = 5,
    /// Completes a streamed message: where its parts lie.
    Commit = 6,
    /// Outcomes of attempts for a message.
    Outcome = 7,
    /// The state of all live messages in a range of another segment.
    Survivors = 8,
    /// What an operator ordered for a message. Since version 2.
    Order = 9,
    /// A message once more, with all that is known of it: it moved here from
    /// a segment that was to be freed. Since version 2.
    Moved = 10,
    /// The segments in use when this one was begun. Since version 2.
    Roster = 11,
}

impl Kind {
    /// The kind with this number.
    pub fn from_u8(number: u8) -> Option<Kind> {
        const KINDS: [Kind; 11] = [
            Kind::Pad,
            Kind::Mark,
            Kind::Message,
            Kind::Head,
            Kind::Chunk,
            Kind::Commit,
            Kind::Outcome,
            Kind::Survivors,
            Kind::Order,
            Kind::Moved,
            Kind::Roster,
        ];
        KINDS.into_iter().find(|&kind| kind as u8 == number)
    }

    /// Lower-case word for listings.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Pad => "pad",
            Kind::Mark => "mark",
            Kind::Message => "message",
            Kind::Head => "head",
            Kind::Chunk => "chunk",
            Kind::Commit => "commit",
            Kind::Outcome => "outcome",
            Kind::Survivors => "survivors",
            Kind::Order => "order",
            Kind::Moved => "moved",
            Kind::Roster => "roster",
        }
    }
}

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The log that the segment belongs to.
    pub log: ShardId,
    /// Its number.
    pub segment: u32,
    /// Its size in bytes when it was written.
    pub size: u32,
    /// When it was prepared.
    pub created: UnixMillis,
    /// Random; seeds the checksums of its records.
    pub salt: u64,
    /// Number of the segment that the file was before, 0 for a new file. (In
    /// version 1 always 0.)
    pub was: u32,
}

/// Why a header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// Not the header of a segment, or damaged.
    Damaged,
    /// A segment of another format version.
    Version(u32),
}

impl std::fmt::Display for BadHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BadHeader::Damaged => f.write_str("neither copy of its header is sound"),
            BadHeader::Version(version) => write!(
                f,
                "format version {version}; this version of ringpost reads {FORMAT_OLDEST} to \
                 {FORMAT_VERSION}"
            ),
        }
    }
}

impl SegmentHeader {
    /// Writes both copies to the first [`DATA_START`] bytes of a segment.
    pub fn encode(&self, out: &mut [u8]) {
        out[..DATA_START as usize].fill(0);
        let (first, second) = out[..DATA_START as usize].split_at_mut(BLOCK);
        first[0..8].copy_from_slice(&SEGMENT_MAGIC);
        first[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        first[12..14].copy_from_slice(&self.log.0.to_le_bytes());
        first[16..20].copy_from_slice(&self.segment.to_le_bytes());
        first[20..24].copy_from_slice(&self.size.to_le_bytes());
        first[24..32].copy_from_slice(&self.created.0.to_le_bytes());
        first[32..40].copy_from_slice(&self.salt.to_le_bytes());
        first[40..44].copy_from_slice(&self.was.to_le_bytes());
        let crc = crc32c(0, &first[..44]);
        first[44..48].copy_from_slice(&crc.to_le_bytes());
        second[..SEGMENT_HEADER].copy_from_slice(&first[..SEGMENT_HEADER]);
    }

    /// The header from the first bytes of a segment, from whichever copy is
    /// sound.
    ///
    /// # Errors
    /// Neither copy is sound, or the version is another.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let second = bytes.get(BLOCK..).unwrap_or_default();
        Self::decode_copy(bytes).or_else(|first| match Self::decode_copy(second) {
            Err(BadHeader::Damaged) => Err(first),
            other => other,
        })
    }

    fn decode_copy(bytes: &[u8]) -> Result<Self, BadHeader> {
        let bytes = bytes.get(..SEGMENT_HEADER).ok_or(BadHeader::Damaged)?;
        let version = read_u32(bytes, 8);
        // Later versions may have longer headers: whether one of those is sound
        // is for others to tell.
        let crc_at = if version == 1 { 40 } else { 44 };
        if bytes[..8] != SEGMENT_MAGIC {
            return Err(BadHeader::Damaged);
        }
        if version > FORMAT_VERSION && version < VERSION_PLAUSIBLE {
            return Err(BadHeader::Version(version));
        }
        if version < FORMAT_OLDEST || read_u32(bytes, crc_at) != crc32c(0, &bytes[..crc_at]) {
            return Err(BadHeader::Damaged);
        }
        Ok(SegmentHeader {
            log: ShardId(u16::from_le_bytes([bytes[12], bytes[13]])),
            segment: read_u32(bytes, 16),
            size: read_u32(bytes, 20),
            created: UnixMillis(read_u64(bytes, 24)),
            salt: read_u64(bytes, 32),
            was: if version == 1 { 0 } else { read_u32(bytes, 40) },
        })
    }

    /// The checksum seed of the segment's records.
    pub fn seal(&self) -> Seal {
        Seal::new(self.log, self.segment, self.salt)
    }
}

/// What ties the checksums of records to their segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal(u32);

impl Seal {
    /// The seal of segment `segment` of `log` with this salt.
    pub fn new(log: ShardId, segment: u32, salt: u64) -> Self {
        let mut bytes = [0; 14];
        bytes[..8].copy_from_slice(&salt.to_le_bytes());
        bytes[8..10].copy_from_slice(&log.0.to_le_bytes());
        bytes[10..].copy_from_slice(&segment.to_le_bytes());
        Seal(crc32c(0, &bytes))
    }

    /// The seal with which a record that begins at `offset` with `bytes` was
    /// written, for a segment whose header is lost; `None` if there are too few.
    ///
    /// Any bytes give some seal: whether they are a record, its payload tells
    /// when it is verified with that seal.
    pub fn of_record(bytes: &[u8], offset: u32) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER)?;
        let before_fields = crc32c_unwind(read_u32(bytes, 0), &bytes[4..]);
        Some(Seal(crc32c_unwind(before_fields, &offset.to_le_bytes())))
    }

    /// What the checksum of a payload starts from.
    pub fn payload_seed(self) -> u32 {
        self.0
    }

    fn check(self, offset: u32, fields: &[u8]) -> u32 {
        crc32c(crc32c(self.0, &offset.to_le_bytes()), fields)
    }
}

/// The header of a record. Its first word, the check, covers the rest of the
/// header and binds it to its place, so that looking for a record costs a few
/// bytes a position, whatever lengths the bytes there claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// What the record is.
    pub kind: Kind,
    /// Bytes of payload.
    pub len: u32,
    /// Bytes of the payload that are its envelope (messages and heads).
    pub meta: u32,
    /// Checksum of the payload; for [`Kind::Pad`] not looked at.
    pub crc: u32,
}

impl RecordHeader {
    /// The header at the start of `bytes`, if there is one that belongs to
    /// `offset` of the sealed segment.
    #[inline]
    pub fn decode(bytes: &[u8], seal: Seal, offset: u32) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER)?;
        let kind = Kind::from_u8(bytes[12])?;
        if read_u32(bytes, 0) != seal.check(offset, &bytes[4..RECORD_HEADER]) {
            return None;
        }
        let header = RecordHeader {
            kind,
            len: read_u32(bytes, 8),
            meta: read_u32(bytes, 12) >> 8,
            crc: read_u32(bytes, 4),
        };
        (header.meta <= header.len && header.len <= i32::MAX as u32).then_some(header)
    }

    /// The bytes of the header at `offset` of the sealed segment.
    pub fn encode(&self, seal: Seal, offset: u32) -> [u8; RECORD_HEADER] {
        debug_assert!(self.meta as usize <= META_MAX);
        let mut bytes = [0; RECORD_HEADER];
        bytes[4..8].copy_from_slice(&self.crc.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.meta << 8 | self.kind as u32).to_le_bytes());
        let check = seal.check(offset, &bytes[4..]);
        bytes[0..4].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// True if `payload` is what the header was written for.
    pub fn verify(&self, seal: Seal, payload: &[u8]) -> bool {
        debug_assert_eq!(payload.len(), self.len as usize);
        self.kind == Kind::Pad || self.crc == crc32c(seal.0, payload)
    }

    /// Bytes that the record takes in the segment.
    pub fn extent(&self) -> usize {
        aligned(RECORD_HEADER + self.len as usize)
    }
}

/// The u32 at `at`; the caller has checked the length.
#[inline]
pub(crate) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The u64 at `at`; the caller has checked the length.
#[inline]
pub(crate) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from(read_u32(bytes, at)) | u64::from(read_u32(bytes, at + 4)) << 32
}

/// Name of the file of a segment in use.
pub fn segment_name(segment: u32) -> String {
    format!("{segment:08x}.seg")
}

/// Name of the checkpoint of a segment.
pub fn checkpoint_name(segment: u32) -> String {
    format!("{segment:08x}.idx")
}

/// Name of a file that waits to be used again; the number is that of the
/// segment it last was.
pub fn spare_name(segment: u32) -> String {
    format!("{segment:08x}.free")
}

/// What a file name of a log's directory says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileName {
    /// A segment in use.
    Segment(u32),
    /// A file that waits to be used again.
    Spare(u32),
    /// The checkpoint of a segment.
    Checkpoint(u32),
}

impl FileName {
    /// Reads a name; `None` if it is none of ours.
    pub fn parse(name: &str) -> Option<FileName> {
        let (stem, extension) = name.split_once('.')?;
        let lower_hex = stem.len() == 8
            && stem.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
        let number = u32::from_str_radix(stem, 16).ok().filter(|_| lower_hex)?;
        match extension {
            "seg" => Some(FileName::Segment(number)),
            "free" => Some(FileName::Spare(number)),
            "idx" => Some(FileName::Checkpoint(number)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            log: ShardId(3),
            segment: 77,
            size: 1 << 20,
            created: UnixMillis(1_700_000_000_000),
            salt: 0x0123_4567_89ab_cdef,
            was: 5,
        }
    }

    #[test]
    fn a_segment_header_survives_the_loss_of_either_copy() {
        let mut bytes = vec![0xff; DATA_START as usize];
        header().encode(&mut bytes);
        for damaged_at in [0, 11, 30, 43, 47, BLOCK, BLOCK + 43] {
            let mut copy = bytes.clone();
            copy[damaged_at] ^= 1;
            assert_eq!(SegmentHeader::decode(&copy), Ok(header()), "{damaged_at}");
        }
        bytes[20] ^= 1;
        bytes[BLOCK + 20] ^= 1;
        assert_eq!(SegmentHeader::decode(&bytes), Err(BadHeader::Damaged));
        assert_eq!(SegmentHeader::decode(&bytes[..10]), Err(BadHeader::Damaged));
    }

    #[test]
    fn another_version_is_told_apart_from_damage() {
        let mut bytes = vec![0; DATA_START as usize];
        header().encode(&mut bytes);
        for copy in [0, BLOCK] {
            bytes[copy + 8..copy + 12].copy_from_slice(&9u32.to_le_bytes());
        }
        assert_eq!(SegmentHeader::decode(&bytes), Err(BadHeader::Version(9)));
    }

    #[test]
    fn a_record_tells_the_seal_it_was_written_with() {
        for offset in [DATA_START, 0x00ff_fff0] {
            let seal = header().seal();
            let crc = crc32c(seal.payload_seed(), b"hello");
            let record = RecordHeader { kind: Kind::Mark, len: 5, meta: 0, crc };
            let bytes = record.encode(seal, offset);
            assert_eq!(Seal::of_record(&bytes, offset), Some(seal));
            let elsewhere = Seal::of_record(&bytes, offset + 16).unwrap();
            assert!(!record.verify(elsewhere, b"hello"));
            assert_eq!(Seal::of_record(&bytes[..15], offset), None);
        }
    }

    #[test]
    fn a_record_belongs_to_its_place_only() {
        let seal = header().seal();
        let crc = crc32c(seal.payload_seed(), b"hello");
        let record = RecordHeader { kind: Kind::Message, len: 5, meta: 2, crc };
        let bytes = record.encode(seal, 8192);
        assert_eq!(RecordHeader::decode(&bytes, seal, 8192), Some(record));
        assert!(record.verify(seal, b"hello") && !record.verify(seal, b"hellp"));
        assert_eq!(RecordHeader::decode(&bytes, seal, 8208), None);
        for at in 0..bytes.len() {
            let mut damaged = bytes;
            damaged[at] ^= 0x10;
            assert_eq!(RecordHeader::decode(&damaged, seal, 8192), None, "{at}");
        }
        let other = [
            SegmentHeader { log: ShardId(4), ..header() },
            SegmentHeader { segment: 78, ..header() },
            SegmentHeader { salt: 1, ..header() },
        ];
        for other in other {
            assert_eq!(RecordHeader::decode(&bytes, other.seal(), 8192), None);
            assert!(!record.verify(other.seal(), b"hello"));
        }
    }

    #[test]
    fn file_names_round_trip() {
        assert_eq!(FileName::parse(&segment_name(0xab)), Some(FileName::Segment(0xab)));
        assert_eq!(FileName::parse(&spare_name(7)), Some(FileName::Spare(7)));
        assert_eq!(FileName::parse(&checkpoint_name(7)), Some(FileName::Checkpoint(7)));
        for foreign in ["lock", "000000AB.seg", "1.seg", "000000ab.seg.bak", "+00000ab.seg"] {
            assert_eq!(FileName::parse(foreign), None, "{foreign}");
        }
    }
}
