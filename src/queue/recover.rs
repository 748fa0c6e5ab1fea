//! Opening a log: finds where it ends, rebuilds the index in one pass in the
//! order of the log, and begins a new segment.
//!
//! The log ends where the last durable write ended, or later if what follows is
//! whole. Each batch begins with a mark that says what was durable when it was
//! written, so that a hole is known for what it is: after the last such claim
//! it is the torn tail of a write that nobody was told had succeeded, and is
//! cut together with what follows it; before it, it is damage, which is
//! reported, and the segment kept as it is (quarantined). The rest of a damaged
//! segment is used.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::rc::Rc;

use super::format::{DATA_START, FileName, Kind, RecordHeader, SegmentHeader};
use super::index::{Entry, Index, Status, Streamed};
use super::record::{Commit, EnvelopeFacts, Mark, NOWHERE, Payload};
use super::state::{QueueOptions, SEGMENT_SIZE_MAX, SEGMENT_SIZE_MIN, State};
use super::walk::{Walk, Walked};
use super::{Inner, Queue, QueueError, Reader};
use crate::base::{Place, UnixMillis};
use crate::io::signal::Signal;
use crate::io::store::{BLOCK, OpenMode, Store, StoreFile};

/// Bytes read at once.
const WINDOW: u32 = 1 << 20;

/// Bytes of a log that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub segment: u32,
    /// First byte of it.
    pub offset: u32,
    /// Bytes concerned.
    pub len: u32,
    /// What is wrong.
    pub what: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { segment, offset, len, what } = self;
        write!(f, "segment {segment:08x}, {len} bytes at offset {offset}: {what}")
    }
}

/// What opening a log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Segments read.
    pub segments: u64,
    /// Files that wait to be used again.
    pub spares: u64,
    /// Sound records.
    pub records: u64,
    /// Messages that are queued.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Streamed messages whose end never came; nobody was told otherwise.
    pub unfinished: u64,
    /// Where a torn tail was cut, if there was one.
    pub cut: Option<Place>,
    /// Damage in what was durable. The segments concerned are quarantined.
    pub damage: Vec<Damage>,
    /// Files that are not segments of this log, or that cannot be read: the
    /// name and why. They are left alone.
    pub foreign: Vec<(String, String)>,
}

/// A segment that can be walked.
struct Opened<F> {
    file: F,
    header: SegmentHeader,
    len: u32,
}

impl<S: Store> Queue<S> {
    /// Opens the log in `store`'s directory, or begins it there. What was never
    /// attempted is due `now`.
    ///
    /// # Errors
    /// `Io` if the directory cannot be read or a segment cannot be prepared.
    /// Damage is no error; it is in the report.
    pub async fn open(
        store: S,
        options: QueueOptions,
        now: UnixMillis,
    ) -> Result<(Self, RecoveryReport), QueueError> {
        check(&options)?;
        let mut report = RecoveryReport::default();
        let found = find(&store, &options, &mut report).await?;
        let cut = find_cut(&found.segments).await?;
        let mut segments = found.segments;
        if let Some(cut) = cut {
            report.cut = Some(cut);
            cut_off(&store, &mut segments, cut).await?;
        }
        let end = cut.unwrap_or(NOWHERE);
        let mut replay = Replay::new(now, report);
        for (&number, segment) in &segments {
            replay.segment(number, segment).await?;
        }
        let previous = end.max(replay.end);
        make_durable(&store, &segments, replay.durable).await?;
        let (index, mut report) = replay.finish(previous);
        report.spares = found.spares.len() as u64;
        for segment in segments.into_values() {
            segment.file.close().await;
        }
        let tail = Place { segment: found.last + 1, offset: DATA_START };
        let mut state = State::new(options.clone(), index, tail, previous);
        state.spares = found.spares;
        let queue = Queue(Rc::new(Inner {
            reader: Reader::new(store.clone()),
            store,
            options,
            state: RefCell::new(state),
            work: Signal::default(),
            urgent: Cell::new(false),
            recorded: Signal::default(),
            upkeep: Signal::default(),
            prepare: Signal::default(),
            prepared: Signal::default(),
        }));
        queue.prepare(tail.segment).await?;
        Ok((queue, report))
    }
}

fn check(options: &QueueOptions) -> Result<(), QueueError> {
    let size = options.segment_size;
    if (SEGMENT_SIZE_MIN..=SEGMENT_SIZE_MAX).contains(&size)
        && (size as usize).is_multiple_of(BLOCK)
    {
        return Ok(());
    }
    let what = format!(
        "a segment size of {size} bytes cannot be used: whole blocks of {BLOCK} bytes, from \
         {SEGMENT_SIZE_MIN} to {SEGMENT_SIZE_MAX}"
    );
    Err(QueueError::Io { what, source: io::ErrorKind::InvalidInput.into() })
}

/// The files of a log.
struct Found<F> {
    segments: BTreeMap<u32, Opened<F>>,
    spares: Vec<u32>,
    /// Highest number ever used.
    last: u32,
}

async fn find<S: Store>(
    store: &S,
    options: &QueueOptions,
    report: &mut RecoveryReport,
) -> Result<Found<S::File>, QueueError> {
    let mut found = Found { segments: BTreeMap::new(), spares: Vec::new(), last: 0 };
    let failed = || QueueError::io(format!("reading {} failed", store.describe()));
    let mut names = store.list().await.map_err(failed())?;
    names.sort_unstable();
    for name in names {
        let number = match FileName::parse(&name) {
            Some(FileName::Segment(number)) => number,
            Some(FileName::Spare(number)) => {
                found.last = found.last.max(number);
                found.spares.push(number);
                continue;
            }
            None => {
                report.foreign.push((name, "not a name of a segment".into()));
                continue;
            }
        };
        found.last = found.last.max(number);
        match open_segment(store, options, &name, number).await? {
            Ok(segment) => {
                found.segments.insert(number, segment);
            }
            Err(why) => report.foreign.push((name, why)),
        }
    }
    // A rename that was not yet durable may be undone by a crash after this
    // recovery, unless it is made durable now.
    store.sync_dir().await.map_err(failed())?;
    Ok(found)
}

/// Opens a segment. What is wrong with the file itself is in the inner result;
/// what is wrong with reading it would make its mail disappear, and is an error.
async fn open_segment<S: Store>(
    store: &S,
    options: &QueueOptions,
    name: &str,
    number: u32,
) -> Result<Result<Opened<S::File>, String>, QueueError> {
    let failed = || QueueError::io(format!("opening {name} in {} failed", store.describe()));
    let file = store.open(name, OpenMode::Read).await.map_err(failed())?;
    let len = file.len().await.map_err(failed())?.min(u64::from(SEGMENT_SIZE_MAX)) as u32;
    if len < DATA_START {
        return Ok(Err("too short for a segment".into()));
    }
    let bytes = read_through(&file, 0, DATA_START).await.map_err(failed())?;
    Ok(match SegmentHeader::decode(&bytes) {
        Err(bad) => Err(bad.to_string()),
        Ok(header) if header.log != options.log => Err(format!("a segment of log {}", header.log)),
        Ok(header) if header.segment != number => {
            Err(format!("segment {:08x} by its header", header.segment))
        }
        Ok(header) => Ok(Opened { file, header, len }),
    })
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
fn is_unreadable(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    error.raw_os_error() == Some(EIO)
}

/// Walks a segment, handing each sound record to `visit` with its payload and
/// the bytes skipped before it. Returns where the last one ended.
async fn walk<F: StoreFile>(
    segment: &Opened<F>,
    mut visit: impl FnMut(u32, RecordHeader, &[u8], u32),
) -> Result<u32, QueueError> {
    let mut walk = Walk::new(segment.header.seal(), DATA_START, segment.len);
    let (mut window, mut window_at) = (Vec::new(), DATA_START);
    loop {
        match walk.step(&window, window_at) {
            Walked::Need { at, len } => {
                let len = len.max(WINDOW).min(segment.len - at);
                let read = read_through(&segment.file, at, len).await;
                let number = segment.header.segment;
                let what = format!("reading segment {number:08x} failed");
                window = read.map_err(QueueError::io(what))?;
                window_at = at;
            }
            Walked::Record { offset, header, payload, skipped } => {
                // Padding may reach past the window; nobody looks at it.
                let end = (payload + header.len as usize).min(window.len());
                visit(offset, header, &window[payload.min(end)..end], skipped);
            }
            Walked::End => return Ok(walk.sound_end()),
        }
    }
}

/// Where the torn tail begins, if there is one. Only the segments after the
/// last claim of durability are walked.
async fn find_cut<F: StoreFile>(
    segments: &BTreeMap<u32, Opened<F>>,
) -> Result<Option<Place>, QueueError> {
    let mut durable = NOWHERE;
    for segment in segments.values().rev() {
        walk(segment, |_, header, payload, _| {
            if let (Kind::Mark, Ok(mark)) = (header.kind, Mark::decode(payload)) {
                durable = durable.max(mark.durable);
            }
        })
        .await?;
        if durable != NOWHERE {
            break;
        }
    }
    let mut end = None;
    let mut cut: Option<Place> = None;
    for (&number, segment) in segments.range(durable.segment..) {
        let place = |offset| Place { segment: number, offset };
        let mut segment_end = place(DATA_START);
        walk(segment, |offset, header, payload, skipped| {
            if skipped > 0 && place(offset) > durable {
                cut = cut.or(Some(segment_end.max(durable)));
            }
            if let (Kind::Mark, Ok(mark)) = (header.kind, Mark::decode(payload)) {
                let before = if skipped > 0 || offset > DATA_START { None } else { end };
                let lost = before.filter(|&end| mark.previous > end && mark.previous > durable);
                cut = cut.or(lost.map(|end: Place| end.max(durable)));
            }
            segment_end = place(offset + header.extent() as u32);
        })
        .await?;
        if segment_end.offset > DATA_START || end.is_none() {
            end = Some(segment_end);
        }
    }
    Ok(cut)
}

/// Cuts the log at `cut`.
async fn cut_off<S: Store>(
    store: &S,
    segments: &mut BTreeMap<u32, Opened<S::File>>,
    cut: Place,
) -> Result<(), QueueError> {
    for (&number, segment) in segments.range_mut(cut.segment..) {
        let len = if number == cut.segment { cut.offset.max(DATA_START) } else { DATA_START };
        if segment.len <= len {
            continue;
        }
        let name = super::format::segment_name(number);
        let failed = || QueueError::io(format!("cutting {name} failed"));
        let file = store.open(&name, OpenMode::Write).await.map_err(failed())?;
        file.truncate(u64::from(len)).await.map_err(failed())?;
        file.sync().await.map_err(failed())?;
        file.close().await;
        segment.len = len;
    }
    Ok(())
}

/// Flushes the segments of which something was read that may not be durable:
/// from now on it is relied upon.
async fn make_durable<S: Store>(
    store: &S,
    segments: &BTreeMap<u32, Opened<S::File>>,
    durable: Place,
) -> Result<(), QueueError> {
    for &number in segments.range(durable.segment..).map(|(number, _)| number) {
        let name = super::format::segment_name(number);
        let failed = || QueueError::io(format!("flushing {name} failed"));
        let file = store.open(&name, OpenMode::Write).await.map_err(failed())?;
        file.sync().await.map_err(failed())?;
        file.close().await;
    }
    Ok(())
}

/// A head whose commit has not been seen.
struct Head {
    meta: u32,
    part: u32,
    facts: EnvelopeFacts,
    chunks: HashMap<Place, u32>,
}

/// The single pass that rebuilds the index.
struct Replay {
    now: UnixMillis,
    index: Index,
    heads: HashMap<Place, Head>,
    /// Streamed messages of which parts are missing: the head, the commit
    /// record and its length.
    partial: Vec<(Place, Place, u32)>,
    report: RecoveryReport,
    /// Where the last sound record ended.
    end: Place,
    /// The greatest claim of durability.
    durable: Place,
    /// Where the sound records of each segment end.
    ends: BTreeMap<u32, u32>,
}

impl Replay {
    fn new(now: UnixMillis, report: RecoveryReport) -> Self {
        Replay {
            now,
            index: Index::default(),
            heads: HashMap::new(),
            partial: Vec::new(),
            report,
            end: NOWHERE,
            durable: NOWHERE,
            ends: BTreeMap::new(),
        }
    }

    async fn segment<F: StoreFile>(
        &mut self,
        number: u32,
        segment: &Opened<F>,
    ) -> Result<(), QueueError> {
        self.index.segment(number);
        self.report.segments += 1;
        let end = walk(segment, |offset, header, payload, skipped| {
            self.report.records += 1;
            if skipped > 0 {
                self.damage(number, offset - skipped, skipped, "no sound record");
            }
            let place = Place { segment: number, offset };
            match Payload::decode(header.kind, header.meta, payload) {
                Ok(payload) => self.apply(place, header, payload),
                Err(bad) => self.damage(number, offset, header.extent() as u32, bad.0),
            }
            self.ends.insert(number, offset + header.extent() as u32);
        })
        .await?;
        self.ends.insert(number, end);
        if end > DATA_START {
            self.end = Place { segment: number, offset: end };
        }
        Ok(())
    }

    fn damage(&mut self, segment: u32, offset: u32, len: u32, what: &'static str) {
        if let Some(segment) = self.index.segments.get_mut(&segment) {
            segment.quarantined = true;
        }
        self.report.damage.push(Damage { segment, offset, len, what });
    }

    fn apply(&mut self, place: Place, header: RecordHeader, payload: Payload<'_>) {
        match payload {
            Payload::Pad => {}
            Payload::Mark(mark) => self.mark(mark),
            Payload::Message { facts, body } => {
                let part = body.len() as u32;
                let entry = Entry::new(header.meta, part, facts, Status::Pending, self.now);
                self.index.insert(place, entry);
            }
            Payload::Head { facts, part } => {
                let (meta, part) = (header.meta, part.len() as u32);
                self.heads.insert(place, Head { meta, part, facts, chunks: HashMap::new() });
            }
            Payload::Chunk { head, part } => {
                if let Some(head) = self.heads.get_mut(&head) {
                    head.chunks.insert(place, part.len() as u32);
                }
            }
            Payload::Commit(commit) => self.commit(place, header, &commit),
            Payload::Outcomes { message, outcomes } => {
                self.index.apply(message, &outcomes, place, 0);
            }
            Payload::Survivors(survivors) => self.index.apply_survivors(&survivors, place, 0),
        }
    }

    fn mark(&mut self, mark: Mark) {
        self.durable = self.durable.max(mark.durable);
        let expected = mark.previous;
        self.expect_end(expected, "the end of the segment is missing");
    }

    /// Reports what is missing if the records of a segment that is still there
    /// end before `expected`.
    fn expect_end(&mut self, expected: Place, what: &'static str) {
        if let Some(&end) = self.ends.get(&expected.segment)
            && end < expected.offset
        {
            self.damage(expected.segment, end, expected.offset - end, what);
            self.ends.insert(expected.segment, expected.offset);
        }
    }

    fn commit(&mut self, place: Place, header: RecordHeader, commit: &Commit) {
        // Without its head the message was settled, and the head's segment
        // freed: only then is it gone.
        let Some(head) = self.heads.remove(&commit.head) else { return };
        let whole =
            commit.extents.iter().all(|extent| head.chunks.get(&extent.place) == Some(&extent.len));
        let listed = commit.extents.iter().map(|extent| u64::from(extent.len)).sum::<u64>();
        if !whole || listed + u64::from(head.part) != commit.size {
            // Most likely it was settled and the segments of its parts freed:
            // then an outcome that follows says so.
            self.partial.push((commit.head, place, header.extent() as u32));
        }
        let mut pins: Vec<u32> = commit.extents.iter().map(|e| e.place.segment).collect();
        pins.extend([commit.head.segment, place.segment]);
        pins.sort_unstable();
        pins.dedup();
        pins.retain(|segment| self.index.segments.contains_key(segment));
        for &segment in &pins {
            self.index.segment(segment).pins += 1;
        }
        let mut entry = Entry::new(head.meta, head.part, head.facts, Status::Pending, self.now);
        entry.streamed = Some(Box::new(Streamed { commit: place, size: commit.size, pins }));
        self.index.insert(commit.head, entry);
    }

    fn finish(mut self, expected_end: Place) -> (Index, RecoveryReport) {
        self.expect_end(expected_end, "no sound record before the end of the log");
        for (message, at, len) in std::mem::take(&mut self.partial) {
            if self.index.get(message).is_some() {
                let what = "a streamed message of which parts are missing";
                self.damage(at.segment, at.offset, len, what);
                self.index.remove(message, 0);
            }
        }
        self.report.unfinished = self.heads.len() as u64;
        self.report.messages = self.index.live() as u64;
        self.report.bytes = self.index.bytes();
        self.index.stirred = true;
        (self.index, self.report)
    }
}
