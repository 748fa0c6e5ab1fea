//! Reading a segment record by record: its facts, and what is wrong with it.

use std::io;

use crate::base::Place;
use crate::io::store::{BLOCK, OpenMode, Store, StoreFile};
use crate::queue::QueueError;
use crate::queue::fact::{Fact, push_facts};
use crate::queue::format::{DATA_START, SegmentHeader, segment_name};
use crate::queue::options::{QueueOptions, SEGMENT_SIZE_MAX};
use crate::queue::record::{NOWHERE, Payload};
use crate::queue::walk::{Walk, Walked};

/// Bytes read at once.
const WINDOW: u32 = 1 << 20;

/// A segment that can be read.
pub(super) struct Opened {
    pub(super) header: SegmentHeader,
    /// Length of the file in bytes.
    pub(super) len: u32,
}

/// Bytes between sound records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) from: u32,
    pub(super) to: u32,
}

/// What a segment says.
#[derive(Default)]
pub(super) struct Scan {
    pub(super) facts: Vec<Fact>,
    pub(super) holes: Vec<Hole>,
    /// Records that pass their checksum and make no sense: offset, length, why.
    pub(super) malformed: Vec<(u32, u32, &'static str)>,
    /// Where the batch before ended, by the mark that begins the segment.
    pub(super) previous: Option<Place>,
    /// The greatest claim of durability.
    pub(super) durable: Place,
    /// Where the last sound record ends.
    pub(super) end: u32,
}

impl Scan {
    /// True if there is no record.
    pub(super) fn is_empty(&self) -> bool {
        self.end <= DATA_START
    }

    /// True if nothing is wrong.
    pub(super) fn is_sound(&self) -> bool {
        self.holes.is_empty() && self.malformed.is_empty()
    }

    /// Forgets what lies at `at` and after.
    pub(super) fn cut(&mut self, at: u32) {
        self.facts.retain(|fact| fact.at < at);
        self.holes.retain(|hole| hole.to < at);
        self.malformed.retain(|(offset, ..)| *offset < at);
        self.end = self.end.min(at);
        if at <= DATA_START {
            self.previous = None;
        }
    }
}

/// Opens a segment. What is wrong with the file itself is in the inner result;
/// what is wrong with reading it would make its mail disappear, and is an error.
pub(super) async fn open_segment<S: Store>(
    store: &S,
    options: &QueueOptions,
    number: u32,
) -> Result<Result<(S::File, Opened), String>, QueueError> {
    let name = segment_name(number);
    let failed = || QueueError::io(format!("opening {name} in {} failed", store.describe()));
    let file = store.open(&name, OpenMode::Read).await.map_err(failed())?;
    let len = file.len().await.map_err(failed())?.min(u64::from(SEGMENT_SIZE_MAX)) as u32;
    let why = if len < DATA_START {
        "too short for a segment".into()
    } else {
        let bytes = read_through(&file, 0, DATA_START).await.map_err(failed())?;
        match SegmentHeader::decode(&bytes) {
            Err(bad) => bad.to_string(),
            Ok(header) if header.log != options.log => format!("a segment of log {}", header.log),
            Ok(header) if header.segment != number => {
                format!("segment {:08x} by its header", header.segment)
            }
            Ok(header) => return Ok(Ok((file, Opened { header, len }))),
        }
    };
    file.close().await;
    Ok(Err(why))
}

/// Reads `len` bytes at `at`. Blocks that the device cannot read are zeroes,
/// which no record is made of, so that they show as damage and not as an end.
async fn read_through<F: StoreFile>(file: &F, at: u32, len: u32) -> io::Result<Vec<u8>> {
    match file.read_at(u64::from(at), len as usize).await {
        Err(error) if is_unreadable(&error) => {}
        other => return other,
    }
    let mut bytes = Vec::with_capacity(len as usize);
    while bytes.len() < len as usize {
        let from = u64::from(at) + bytes.len() as u64;
        let to_boundary = BLOCK - (from % BLOCK as u64) as usize;
        let piece = to_boundary.min(len as usize - bytes.len());
        match file.read_at(from, piece).await {
            Ok(read) => bytes.extend_from_slice(&read),
            Err(error) if is_unreadable(&error) => bytes.resize(bytes.len() + piece, 0),
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// True for an error that concerns some sectors (EIO), not the file or us.
pub(in crate::queue) fn is_unreadable(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    error.raw_os_error() == Some(EIO)
}

/// Reads a whole segment.
pub(super) async fn scan<F: StoreFile>(file: &F, opened: &Opened) -> Result<Scan, QueueError> {
    let number = opened.header.segment;
    let mut walk = Walk::new(opened.header.seal(), DATA_START, opened.len);
    let (mut window, mut window_at) = (Vec::new(), DATA_START);
    let mut scan = Scan { durable: NOWHERE, end: DATA_START, ..Scan::default() };
    loop {
        match walk.step(&window, window_at) {
            Walked::Need { at, len } => {
                let len = len.max(WINDOW).min(opened.len - at);
                let read = read_through(file, at, len).await;
                let what = format!("reading segment {number:08x} failed");
                window = read.map_err(QueueError::io(what))?;
                window_at = at;
            }
            Walked::Record { offset, header, payload, skipped } => {
                // Padding may reach past the window; nobody looks at it.
                let end = (payload + header.len as usize).min(window.len());
                let payload = &window[payload.min(end)..end];
                if skipped > 0 {
                    scan.holes.push(Hole { from: offset - skipped, to: offset });
                }
                scan.record(offset, header.extent() as u32, header.meta, {
                    Payload::decode(header.kind, header.meta, payload)
                });
            }
            Walked::End => {
                scan.end = walk.sound_end();
                return Ok(scan);
            }
        }
    }
}

impl Scan {
    fn record(
        &mut self,
        offset: u32,
        extent: u32,
        meta: u32,
        payload: Result<Payload<'_>, crate::queue::record::Malformed>,
    ) {
        match payload {
            Ok(Payload::Mark(mark)) => {
                if offset == DATA_START {
                    self.previous = Some(mark.previous);
                }
                self.durable = self.durable.max(mark.durable);
            }
            Ok(payload) => push_facts(&mut self.facts, offset, meta, extent, &payload),
            Err(bad) => self.malformed.push((offset, extent, bad.0)),
        }
    }
}
