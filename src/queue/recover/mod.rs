//! Opening a log, in two steps. [`Queue::begin`] finds where it ends, cuts off
//! what a crash left unfinished and begins a new segment: mail can be accepted.
//! [`Loading::finish`] then finds out what is queued from before, while mail goes
//! on: it needs nothing of what is new, and nothing new needs it.
//!
//! The log ends where the last durable write ended, or later if what follows is
//! whole. Each batch begins with a mark that says what was durable when it was
//! written, so that a hole is known for what it is: after the last such claim
//! it is the torn tail of a write that nobody was told had succeeded, and is
//! cut together with what follows it; before it, it is damage, which is
//! reported, and the segment kept as it is (quarantined). The rest of a damaged
//! segment is used.
//!
//! `scan` reads a segment record by record, `cut` finds and cuts the torn tail,
//! `replay` makes the index, `load` drives it from checkpoints and scans.

mod cut;
mod load;
mod replay;
mod scan;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::rc::Rc;

pub use load::Loading;
pub(super) use scan::is_unreadable;
use scan::{Opened, Scan, open_segment, scan};

use super::format::{DATA_START, FileName, segment_name, spare_name};
use super::index::{Index, Segment};
use super::options::{QueueOptions, SEGMENT_SIZE_MAX, SEGMENT_SIZE_MIN};
use super::record::NOWHERE;
use super::state::State;
use super::{Inner, Queue, QueueError, Reader};
use crate::base::{Place, UnixMillis};
use crate::io::signal::Signal;
use crate::io::store::{BLOCK, Store, StoreFile};

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
    /// Segments in use.
    pub segments: u64,
    /// Those of them whose checkpoint was used.
    pub checkpoints: u64,
    /// Checkpoints that could not be used: the segment and why. The segments were
    /// read instead.
    pub bad_checkpoints: Vec<(u32, &'static str)>,
    /// Files that wait to be used again.
    pub spares: u64,
    /// Facts that the segments state.
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
    /// Segments that were in use and are not there any more.
    pub missing: Vec<u32>,
    /// Files that are not segments of this log, or that cannot be read: the
    /// name and why. They are left alone.
    pub foreign: Vec<(String, String)>,
}

impl<S: Store> Queue<S> {
    /// Opens the log in `store`'s directory, or begins it there, and reads what
    /// is queued. What was never attempted is due `now`.
    ///
    /// # Errors
    /// `Io` if the directory or a file cannot be read or a segment cannot be
    /// prepared. Damage is no error; it is in the report.
    pub async fn open(
        store: S,
        options: QueueOptions,
        now: UnixMillis,
    ) -> Result<(Self, RecoveryReport), QueueError> {
        let (queue, loading) = Self::begin(store, options).await?;
        let report = loading.finish(now).await?;
        Ok((queue, report))
    }

    /// Opens the log in `store`'s directory, or begins it there, as far as is
    /// needed to accept mail. What is queued from before is not known until
    /// [`Loading::finish`] has ended.
    ///
    /// # Errors
    /// `Io` if the directory or the end of the log cannot be read or a segment
    /// cannot be prepared. A full disk is no error: new mail is refused then.
    pub async fn begin(store: S, options: QueueOptions) -> Result<(Self, Loading<S>), QueueError> {
        check(&options)?;
        let mut found = find(&store).await?;
        let end = read_end(&store, &options, &mut found).await?;
        reuse_empty(&store, &mut found, &end).await?;
        let tail = Place { segment: found.last + 1, offset: DATA_START };
        let mut index = Index::default();
        for &segment in &found.segments {
            index.segments.insert(segment, Segment { unread: true, ..Segment::default() });
        }
        let mut state = State::new(options.clone(), index, tail, end.previous);
        state.loading = true;
        state.left_unread = found.segments.len() as u64;
        state.spares = found.spares.iter().copied().collect();
        let queue = Queue(Rc::new(Inner {
            reader: Reader::new(store.clone()),
            store,
            options,
            state: RefCell::new(state),
            work: Signal::default(),
            urgent: Cell::new(false),
            recorded: Signal::default(),
            upkeep: Signal::default(),
            clean: Signal::default(),
            prepare: Signal::default(),
            prepared: Signal::default(),
        }));
        queue.prepare(tail.segment).await?;
        let loading = Loading::new(queue.clone(), found, end);
        Ok((queue, loading))
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

/// The files of a log, by their names.
struct Found {
    segments: BTreeSet<u32>,
    /// Segments by name, those that turn out to be none of ours too.
    named: BTreeSet<u32>,
    spares: BTreeSet<u32>,
    checkpoints: BTreeSet<u32>,
    /// Highest number ever used.
    last: u32,
    /// Files that are none of ours, and why.
    foreign: Vec<(String, String)>,
}

async fn find<S: Store>(store: &S) -> Result<Found, QueueError> {
    let failed = || QueueError::io(format!("reading {} failed", store.describe()));
    let mut names = store.list().await.map_err(failed())?;
    names.sort_unstable();
    let mut found = Found {
        segments: BTreeSet::new(),
        named: BTreeSet::new(),
        spares: BTreeSet::new(),
        checkpoints: BTreeSet::new(),
        last: 0,
        foreign: Vec::new(),
    };
    for name in names {
        let number = match FileName::parse(&name) {
            Some(FileName::Segment(number)) => {
                found.segments.insert(number);
                number
            }
            Some(FileName::Spare(number)) => {
                found.spares.insert(number);
                number
            }
            Some(FileName::Checkpoint(number)) => {
                found.checkpoints.insert(number);
                continue;
            }
            None => {
                found.foreign.push((name, "not a name of a segment".into()));
                continue;
            }
        };
        found.last = found.last.max(number);
    }
    found.named = found.segments.clone();
    // A rename that was not yet durable may be undone by a crash after this
    // recovery, unless it is made durable now.
    store.sync_dir().await.map_err(failed())?;
    Ok(found)
}

/// The end of the log: the segments that had to be read to find it.
struct End {
    scans: BTreeMap<u32, (Opened, Scan)>,
    cut: Option<Place>,
    /// Where the log ends.
    previous: Place,
}

/// Reads segments from the newest back to the last claim of durability, cuts off
/// a torn tail, and makes durable what was read and may not be.
async fn read_end<S: Store>(
    store: &S,
    options: &QueueOptions,
    found: &mut Found,
) -> Result<End, QueueError> {
    let mut scans = BTreeMap::new();
    let mut durable = NOWHERE;
    let newest_first: Vec<u32> = found.segments.iter().rev().copied().collect();
    for number in newest_first {
        if durable != NOWHERE && number < durable.segment {
            break;
        }
        let (file, opened) = match open_segment(store, options, number).await? {
            Ok(opened) => opened,
            Err(why) => {
                found.foreign.push((segment_name(number), why));
                found.segments.remove(&number);
                continue;
            }
        };
        let read = scan(&file, &opened).await?;
        file.close().await;
        durable = durable.max(read.durable);
        scans.insert(number, (opened, read));
    }
    let cut = cut::find_cut(&scans, durable);
    if let Some(cut) = cut {
        cut::cut_off(store, &mut scans, &mut found.checkpoints, cut).await?;
    }
    cut::make_durable(store, scans.range(durable.segment..).map(|(number, _)| *number)).await?;
    let last = scans.iter().rev().find(|(_, (_, scan))| scan.end > DATA_START);
    let end = last.map_or(NOWHERE, |(&segment, (_, scan))| Place { segment, offset: scan.end });
    let previous = cut.unwrap_or(NOWHERE).max(end);
    Ok(End { scans, cut, previous })
}

/// Segments at the end into which nothing was written are used first: so there
/// is one even if the disk is full.
async fn reuse_empty<S: Store>(store: &S, found: &mut Found, end: &End) -> Result<(), QueueError> {
    let empty: Vec<(u32, u32)> = end
        .scans
        .range(end.previous.segment.saturating_add(1)..)
        .filter(|(_, (_, scan))| scan.is_empty())
        .map(|(number, (opened, _))| (*number, opened.header.was))
        .collect();
    if empty.is_empty() {
        return Ok(());
    }
    for (number, was) in empty {
        // No roster has named it, while one may name what the file was before:
        // under that name it is not missed.
        let spare = if was == 0 { number } else { was };
        let name = segment_name(number);
        let renamed = store.rename(&name, &spare_name(spare)).await;
        renamed.map_err(QueueError::io(format!("freeing {name} failed")))?;
        found.segments.remove(&number);
        found.spares.insert(spare);
    }
    // Before the file gets the header of another segment.
    let synced = store.sync_dir().await;
    synced.map_err(QueueError::io("making durable the freeing of segments failed"))
}
