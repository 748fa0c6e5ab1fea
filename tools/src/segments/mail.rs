//! Reading a message back by where it lies, record by record: at most a few files
//! are open, and one record is in memory.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;

use ringpost::base::{Envelope, Location, Place};
use ringpost::proto::scan::{Scan, Scanner};
use ringpost::queue::format::{Kind, RECORD_HEADER, RecordHeader};
use ringpost::queue::record::{Commit, Extent, Moved, decode_chunk, first_envelope};

use super::file::{Segment, read_through};

/// Files kept open.
const OPEN_MAX: usize = 4;

/// Why a message cannot be had.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It is not all there, or not what was written.
    Broken(&'static str),
    /// The disk, on either side.
    Io(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::Io(error)
    }
}

/// A record as read.
struct Record {
    header: RecordHeader,
    payload: Vec<u8>,
}

/// A message, but for the parts of its body that lie elsewhere.
pub(super) struct Mail {
    pub(super) envelope: Envelope,
    /// Bytes of the whole body, in wire form.
    pub(super) size: u64,
    /// Segments that hold some of it.
    pub(super) segments: Vec<u32>,
    /// The body ends as one must on the wire; known once it has been checked.
    pub(super) ends: bool,
    id: Place,
    /// The body in the first record.
    part: Vec<u8>,
    /// Where the rest lies.
    extents: Vec<Extent>,
}

/// Reads records of a log by their places.
pub(super) struct Reader<'a> {
    segments: BTreeMap<u32, &'a Segment>,
    /// The one used last at the end.
    open: VecDeque<(u32, File)>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(segments: BTreeMap<u32, &'a Segment>) -> Self {
        Reader { segments, open: VecDeque::new() }
    }

    /// The message `id`, which lies there.
    pub(super) fn mail(&mut self, id: Place, at: Location) -> Result<Mail, Trouble> {
        let first = self.record(at.first)?;
        let RecordHeader { kind, meta, .. } = first.header;
        let broken = |_| Trouble::Broken("its first record does not validate");
        let envelope = first_envelope(kind, meta, &first.payload).map_err(broken)?;
        let part = first.payload[meta as usize..].to_vec();
        let mut segments = vec![at.first.segment];
        let (size, extents) = match (kind, at.commit) {
            (Kind::Moved, None) => {
                let (moved, ..) = Moved::decode(meta, &first.payload).map_err(broken)?;
                if moved.id != id {
                    return Err(Trouble::Broken("another message lies where it moved to"));
                }
                (moved.size, moved.extents)
            }
            (Kind::Head, Some(place)) => {
                let commit = self.record(place)?;
                let told = Commit::decode(&commit.payload).map_err(broken)?;
                if commit.header.kind != Kind::Commit || told.head != id {
                    return Err(Trouble::Broken("what should complete it is another record"));
                }
                segments.push(place.segment);
                (told.size, told.extents)
            }
            (Kind::Message, None) => (part.len() as u64, Vec::new()),
            _ => return Err(Trouble::Broken("its first record is of another kind")),
        };
        segments.extend(extents.iter().map(|extent| extent.place.segment));
        segments.sort_unstable();
        segments.dedup();
        let listed: u64 = extents.iter().map(|extent| u64::from(extent.len)).sum();
        if listed + part.len() as u64 != size {
            return Err(Trouble::Broken("its parts do not make up its size"));
        }
        Ok(Mail { envelope, size, segments, ends: false, id, part, extents })
    }

    /// Calls `each` with every part of the body, in order.
    pub(super) fn parts(
        &mut self,
        mail: &Mail,
        mut each: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Trouble> {
        each(&mail.part)?;
        for extent in &mail.extents {
            let chunk = self.record(extent.place)?;
            match decode_chunk(&chunk.payload) {
                Ok((head, part))
                    if chunk.header.kind == Kind::Chunk
                        && head == mail.id
                        && part.len() == extent.len as usize =>
                {
                    each(part)?;
                }
                _ => return Err(Trouble::Broken("a part of it is another record")),
            }
        }
        Ok(())
    }

    /// Makes sure that the whole body can be read, so that nobody is given the
    /// beginning of a message that has no end.
    pub(super) fn check(&mut self, mail: &mut Mail) -> Result<(), Trouble> {
        let (mut scanner, mut ended, mut behind) = (Scanner::new(), false, false);
        self.parts(mail, |part| {
            behind |= ended && !part.is_empty();
            if !ended && let Scan::End { len } = scanner.scan(part) {
                ended = true;
                behind |= len != part.len();
            }
            Ok(())
        })?;
        mail.ends = ended && !behind;
        Ok(())
    }

    /// The record at `place`, checked.
    fn record(&mut self, place: Place) -> Result<Record, Trouble> {
        let Some(&segment) = self.segments.get(&place.segment) else {
            return Err(Trouble::Broken("a segment that holds some of it is missing"));
        };
        let len = segment.len;
        let file = self.file(segment)?;
        let damaged = Trouble::Broken("a record that holds some of it is damaged");
        if u64::from(place.offset) + RECORD_HEADER as u64 > u64::from(len) {
            return Err(damaged);
        }
        let bytes = read_through(file, place.offset, RECORD_HEADER as u32)?;
        let Some(header) = RecordHeader::decode(&bytes, segment.seal, place.offset) else {
            return Err(damaged);
        };
        let start = place.offset + RECORD_HEADER as u32;
        if header.len > len - start {
            return Err(damaged);
        }
        let payload = read_through(file, start, header.len)?;
        if payload.len() != header.len as usize || !header.verify(segment.seal, &payload) {
            return Err(damaged);
        }
        Ok(Record { header, payload })
    }

    fn file(&mut self, segment: &Segment) -> io::Result<&File> {
        let number = segment.number;
        let found = self.open.iter().position(|(open, _)| *open == number);
        let entry = match found.and_then(|at| self.open.remove(at)) {
            Some(entry) => entry,
            None => (number, File::open(&segment.path)?),
        };
        if self.open.len() >= OPEN_MAX {
            self.open.pop_front();
        }
        self.open.push_back(entry);
        Ok(&self.open.back().expect("it has just been added").1)
    }
}
