//! One segment on disk: what its header says, or what can be found out without
//! it, and its records one after the other. A window of the file is in memory,
//! never all of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ringpost::base::{Place, QueueId, ShardId};
use ringpost::io::store::BLOCK;
use ringpost::queue::fact::{Fact, push_facts};
use ringpost::queue::format::{
    BadHeader, DATA_START, Kind, RECORD_HEADER, RecordHeader, Seal, SegmentHeader,
};
use ringpost::queue::record::{MARK_LEN, Malformed, Mark, Payload};
use ringpost::queue::walk::{Walk, Walked};

/// Bytes read at once.
const WINDOW: u32 = 1 << 20;
/// Longest file that is looked at; the server makes none that is longer.
const LEN_MAX: u64 = 1 << 30;

/// A segment whose records can be read.
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) log: ShardId,
    pub(super) number: u32,
    pub(super) seal: Seal,
    /// `None` if it is lost: the seal is from the first mark then.
    pub(super) header: Option<SegmentHeader>,
    /// Its format version, if the header tells.
    pub(super) version: Option<u32>,
    /// Length of the file in bytes.
    pub(super) len: u32,
}

/// A record of it.
pub(super) struct Found<'a> {
    pub(super) offset: u32,
    pub(super) header: RecordHeader,
    pub(super) payload: &'a [u8],
    /// Bytes before it that belong to no sound record.
    pub(super) skipped: u32,
}

impl<'a> Found<'a> {
    pub(super) fn decode(&self) -> Result<Payload<'a>, Malformed> {
        Payload::decode(self.header.kind, self.header.meta, self.payload)
    }

    /// Bytes of it in the segment.
    pub(super) fn extent(&self) -> u32 {
        self.header.extent() as u32
    }
}

impl Segment {
    /// Opens the file of segment `number`. `log` is the log it should be of,
    /// which only its header knows for certain. Why it cannot be read is in the
    /// inner result.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(super) fn open(
        path: &Path,
        number: u32,
        log: Option<ShardId>,
    ) -> io::Result<Result<Self, String>> {
        let file = File::open(path)?;
        let len = file.metadata()?.len().min(LEN_MAX) as u32;
        if len < DATA_START {
            return Ok(Err("too short for a segment".into()));
        }
        let bytes = read_through(&file, 0, DATA_START)?;
        let (header, log, seal) = match SegmentHeader::decode(&bytes) {
            Ok(header) if header.segment != number => {
                return Ok(Err(format!("segment {:08x} by its header", header.segment)));
            }
            Ok(header) if log.is_some_and(|log| log != header.log) => {
                return Ok(Err(format!("a segment of log {}", header.log)));
            }
            Ok(header) => (Some(header), header.log, header.seal()),
            Err(BadHeader::Damaged) => match find_seal(&file, number, len)? {
                Some(seal) => (None, log.unwrap_or_default(), seal),
                None => {
                    let why = format!("{}, and no record is sound", BadHeader::Damaged);
                    return Ok(Err(why));
                }
            },
            Err(newer) => return Ok(Err(newer.to_string())),
        };
        let version = header.and(version(&bytes));
        Ok(Ok(Segment { path: path.to_owned(), log, number, seal, header, version, len }))
    }

    /// Calls `each` for every sound record, in order. Gives the place where the
    /// last one ends.
    ///
    /// # Errors
    /// The file cannot be read, or those of `each`.
    pub(super) fn walk(
        &self,
        mut each: impl FnMut(&Found<'_>) -> io::Result<()>,
    ) -> io::Result<u32> {
        let file = File::open(&self.path)?;
        let mut walk = Walk::new(self.seal, DATA_START, self.len);
        walk_on(&file, &mut walk, self.len, |found| each(found).map(|()| true))?;
        Ok(walk.sound_end())
    }

    /// What its records say, and what is wrong with them.
    pub(super) fn facts(&self) -> io::Result<Facts> {
        let mut said = Facts::default();
        said.end = self.walk(|found| {
            said.records += 1;
            if found.skipped > 0 {
                said.holes.push((found.offset - found.skipped, found.skipped));
            }
            match found.decode() {
                Ok(Payload::Mark(mark)) => said.marks.push((found.offset, mark)),
                Ok(payload) => {
                    let (at, meta, extent) = (found.offset, found.header.meta, found.extent());
                    push_facts(&mut said.facts, at, meta, extent, &payload);
                }
                Err(bad) => said.malformed.push((found.offset, found.header.kind, bad.0)),
            }
            Ok(())
        })?;
        Ok(said)
    }

    pub(super) fn place(&self, offset: u32) -> Place {
        Place { segment: self.number, offset }
    }

    pub(super) fn id(&self, place: Place) -> QueueId {
        QueueId { log: self.log, place }
    }
}

/// What a segment says.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) records: u64,
    pub(super) facts: Vec<Fact>,
    pub(super) marks: Vec<(u32, Mark)>,
    /// Bytes between sound records: offset and length.
    pub(super) holes: Vec<(u32, u32)>,
    /// Records that pass their checksum and make no sense.
    pub(super) malformed: Vec<(u32, Kind, &'static str)>,
    /// Where the last sound record ends.
    pub(super) end: u32,
}

impl Facts {
    /// True if nothing is wrong.
    pub(super) fn is_sound(&self) -> bool {
        self.holes.is_empty() && self.malformed.is_empty()
    }

    /// Where the log ended before this segment, by the mark that begins it.
    pub(super) fn previous(&self) -> Option<Place> {
        let (offset, mark) = self.marks.first()?;
        (*offset == DATA_START).then_some(mark.previous)
    }
}

/// Goes on with `walk` until its end, or until `each` says false.
fn walk_on(
    file: &File,
    walk: &mut Walk,
    len: u32,
    mut each: impl FnMut(&Found<'_>) -> io::Result<bool>,
) -> io::Result<()> {
    let (mut window, mut window_at) = (Vec::new(), DATA_START);
    loop {
        match walk.step(&window, window_at) {
            Walked::Need { at, len: wanted } => {
                window = read_through(file, at, wanted.max(WINDOW).min(len - at))?;
                window_at = at;
                if window.len() < wanted as usize {
                    // Else it would be asked for again and again.
                    let what = "the file has become shorter while it was read";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
                }
            }
            Walked::Record { offset, header, payload, skipped } => {
                // Padding may reach past the window; nobody looks at it.
                let end = (payload + header.len as usize).min(window.len());
                let payload = &window[payload.min(end)..end];
                if !each(&Found { offset, header, payload, skipped })? {
                    return Ok(());
                }
            }
            Walked::End => return Ok(()),
        }
    }
}

/// Reads `len` bytes at `at`, or what there is. Blocks that the device cannot
/// read are zeroes, which no record is made of.
pub(super) fn read_through(file: &File, at: u32, len: u32) -> io::Result<Vec<u8>> {
    const EIO: i32 = 5;
    let mut bytes = vec![0; len as usize];
    let mut done = 0;
    while done < bytes.len() {
        let from = u64::from(at) + done as u64;
        match file.read_at(&mut bytes[done..], from) {
            Ok(0) => {
                bytes.truncate(done);
                break;
            }
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(EIO) => {
                // Up to the sector that is bad reads succeed, block by block.
                let to_boundary = BLOCK - (from % BLOCK as u64) as usize;
                let piece = to_boundary.min(bytes.len() - done);
                if file.read_exact_at(&mut bytes[done..done + piece], from).is_err() {
                    bytes[done..done + piece].fill(0);
                }
                done += piece;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// The seal of a segment whose header is lost. Each batch begins with a mark at
/// the start of a block, and a mark's check gives the seal that its payload then
/// confirms.
///
/// A recycled file holds what it was before, with the seal of then. So the first
/// mark counts, and only if what follows it does not speak for another segment.
fn find_seal(file: &File, number: u32, len: u32) -> io::Result<Option<Seal>> {
    let (mut at, mut window, mut window_at) = (DATA_START, Vec::new(), DATA_START);
    while len - at >= BLOCK as u32 {
        let skip = (at - window_at) as usize;
        if skip + BLOCK > window.len() {
            window = read_through(file, at, WINDOW.min(len - at))?;
            window_at = at;
            if window.len() < BLOCK {
                break;
            }
            continue;
        }
        if let Some((seal, mark)) = mark_at(&window[skip..], at) {
            let own = at == DATA_START || mark.previous == Place { segment: number, offset: at };
            if own && speaks_for(file, seal, number, at, len)? {
                return Ok(Some(seal));
            }
        }
        at += BLOCK as u32;
    }
    Ok(None)
}

/// The mark at the start of `bytes`, which lie at `offset`, if there is one.
fn mark_at(bytes: &[u8], offset: u32) -> Option<(Seal, Mark)> {
    let seal = Seal::of_record(bytes, offset)?;
    let header = RecordHeader::decode(bytes, seal, offset)?;
    let payload = bytes.get(RECORD_HEADER..RECORD_HEADER + MARK_LEN)?;
    let is_mark = header.kind == Kind::Mark && header.len as usize == MARK_LEN;
    if !(is_mark && header.verify(seal, payload)) {
        return None;
    }
    Some((seal, Mark::decode(payload).ok()?))
}

/// True if records from `start` on verify with `seal`, at least two of them, and
/// none says that it lies in another segment than `number`.
fn speaks_for(file: &File, seal: Seal, number: u32, start: u32, len: u32) -> io::Result<bool> {
    let mut walk = Walk::new(seal, start, len);
    let (mut records, mut contradicted) = (0, false);
    let mut window_start = true;
    walk_on(file, &mut walk, len, |found| {
        records += 1;
        match found.decode() {
            // A batch that is not the segment's first begins where the one
            // before it ended.
            Ok(Payload::Mark(mark)) if !window_start => {
                contradicted = mark.previous.segment != number;
            }
            Ok(Payload::Roster(segments)) => {
                contradicted = segments.last().is_some_and(|last| *last != number);
            }
            _ => {}
        }
        window_start = false;
        Ok(!contradicted && records < 10_000)
    })?;
    Ok(records >= 2 && !contradicted)
}

/// The format version of the segment whose first bytes these are, from whichever
/// copy of the header is sound.
fn version(bytes: &[u8]) -> Option<u32> {
    let mut copies = bytes.chunks(BLOCK).take(2);
    let sound = copies.find(|copy| SegmentHeader::decode(copy).is_ok())?;
    Some(u32::from_le_bytes([sound[8], sound[9], sound[10], sound[11]]))
}
