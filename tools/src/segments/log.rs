//! The files of a log: which they are, by their names and headers. Nothing of
//! them stays open or in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use ringpost::base::ShardId;
use ringpost::queue::checkpoint::Checkpoint;
use ringpost::queue::format::{DATA_START, FileName, SegmentHeader};

use super::file::{Segment, read_through};

/// Longest file that is taken for a checkpoint.
const CHECKPOINT_MAX: u64 = 1 << 30;

/// What a file is.
pub(super) enum Item {
    Segment(Segment),
    /// The checkpoint of a segment.
    Checkpoint(u32),
    /// A file that waits to be used again, and what it was before that, if its
    /// header tells.
    Spare(Option<SegmentHeader>),
    Unusable(String),
}

/// Files of one log, in the order of their names.
pub(super) struct Log {
    /// Its number: by the name of the directory, else by the first header.
    pub(super) number: ShardId,
    pub(super) files: Vec<(PathBuf, Item)>,
    /// All files of the directory are here, so that what is not here is missing.
    pub(super) whole: bool,
}

impl Log {
    /// Looks at `paths`, directories or files. Each directory, and each that
    /// files lie in, is one log.
    ///
    /// # Errors
    /// A path cannot be read.
    pub(super) fn open_all(paths: &[PathBuf]) -> io::Result<Vec<Log>> {
        let mut by_directory: BTreeMap<PathBuf, (bool, BTreeSet<PathBuf>)> = BTreeMap::new();
        for path in paths {
            let failed = |error| in_path(path, error);
            if fs::metadata(path).map_err(failed)?.is_dir() {
                let (whole, files) = by_directory.entry(path.clone()).or_default();
                *whole = true;
                for entry in fs::read_dir(path).map_err(failed)? {
                    files.insert(entry.map_err(failed)?.path());
                }
            } else {
                let parent = path.parent().unwrap_or(Path::new("")).to_owned();
                by_directory.entry(parent).or_default().1.insert(path.clone());
            }
        }
        by_directory
            .into_iter()
            .map(|(directory, (whole, files))| Log::open(&directory, whole, files))
            .collect()
    }

    fn open(directory: &Path, whole: bool, files: BTreeSet<PathBuf>) -> io::Result<Log> {
        let mut log = number_of(directory);
        let mut items = Vec::new();
        for path in files {
            let failed = |error| in_path(&path, error);
            if !fs::metadata(&path).map_err(failed)?.is_file() {
                continue;
            }
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let item = match FileName::parse(name) {
                None => Item::Unusable("not a name of a segment".into()),
                Some(FileName::Spare(_)) => Item::Spare(header(&path).map_err(failed)?),
                Some(FileName::Checkpoint(number)) => Item::Checkpoint(number),
                Some(FileName::Segment(number)) => {
                    match Segment::open(&path, number, log).map_err(failed)? {
                        Ok(segment) => {
                            // The first segment tells the log where the
                            // directory does not.
                            let told = segment.header.map(|header| header.log);
                            log = log.or(told);
                            Item::Segment(segment)
                        }
                        Err(why) => Item::Unusable(why),
                    }
                }
            };
            items.push((path, item));
        }
        if let Some(log) = log {
            // Those whose headers are lost, and that came before one that is not.
            for (_, item) in &mut items {
                if let Item::Segment(segment) = item {
                    segment.log = log;
                }
            }
        }
        Ok(Log { number: log.unwrap_or_default(), files: items, whole })
    }

    /// The segments that can be read, by number.
    pub(super) fn segments(&self) -> BTreeMap<u32, &Segment> {
        let files = self.files.iter();
        files
            .filter_map(|(_, item)| match item {
                Item::Segment(segment) => Some((segment.number, segment)),
                _ => None,
            })
            .collect()
    }

    /// The checkpoint of a segment, if there is one. Why it cannot be used is in
    /// the inner result.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn checkpoint(
        &self,
        segment: &Segment,
    ) -> io::Result<Option<Result<Checkpoint, &'static str>>> {
        let is_it = |item: &Item| matches!(item, Item::Checkpoint(of) if *of == segment.number);
        let Some((path, _)) = self.files.iter().find(|(_, item)| is_it(item)) else {
            return Ok(None);
        };
        let failed = |error| in_path(path, error);
        if fs::metadata(path).map_err(failed)?.len() > CHECKPOINT_MAX {
            return Ok(Some(Err("too long")));
        }
        let bytes = fs::read(path).map_err(failed)?;
        Ok(Some(Checkpoint::decode(bytes, segment.number, segment.seal)))
    }

    /// Those of `roster`, the segments that were in use, of which nothing is
    /// left: neither the file, nor its name as a spare, nor a file that says it
    /// was that segment before.
    pub(super) fn missing(&self, roster: &[u32]) -> Vec<u32> {
        let mut there = BTreeSet::new();
        for (path, item) in &self.files {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Some(FileName::Segment(number) | FileName::Spare(number)) = FileName::parse(name)
            {
                there.insert(number);
            }
            let header = match item {
                Item::Segment(segment) => segment.header,
                Item::Spare(header) => *header,
                _ => None,
            };
            there.extend(header.into_iter().flat_map(|header| [header.segment, header.was]));
        }
        roster.iter().filter(|number| !there.contains(number)).copied().collect()
    }
}

/// The header of a file that need not have one.
fn header(path: &Path) -> io::Result<Option<SegmentHeader>> {
    let bytes = read_through(&File::open(path)?, 0, DATA_START)?;
    Ok(SegmentHeader::decode(&bytes).ok())
}

/// The log that a directory named `log-NNNNN` holds.
fn number_of(directory: &Path) -> Option<ShardId> {
    let full = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let full = fs::canonicalize(full).ok()?;
    full.file_name()?.to_str()?.strip_prefix("log-")?.parse().ok().map(ShardId)
}

fn in_path(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
