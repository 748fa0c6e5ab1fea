//! `ringpost-segments`: looks into the log of a stopped server, or a copy of
//! one, file by file. It reads with the server's own rules
//! (`ringpost::queue::{format, record, walk}`) and writes nothing into the log.

mod export;
mod replay;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use ringpost::base::{Outcome, Place, QueueId, UnixMillis};
use ringpost::queue::format::{DATA_START, FileName, RecordHeader, SegmentHeader};
use ringpost::queue::record::Payload;
use ringpost::queue::walk::{Walk, Walked};

/// Looks into the segments of a queue, offline.
#[derive(Debug, Parser)]
#[command(name = "ringpost-segments", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One line for each file: what it is and what it holds.
    List(Which),
    /// Check every record; exit 1 if something is damaged.
    Verify(Which),
    /// One line for each record.
    Dump(Which),
    /// Write the messages that are still queued to files.
    Recover(Recover),
}

#[derive(Debug, Args)]
struct Which {
    /// A log's directory (data_dir/log-NNNNN), or files of one log.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct Recover {
    /// The log's directory.
    log: PathBuf,
    /// Where the messages go: ID.eml, and ID.json with the envelope. Made if it
    /// does not exist.
    #[arg(long)]
    out: PathBuf,
    /// Settled messages too, as far as they are still there.
    #[arg(long)]
    all: bool,
}

/// Runs the tool. True if nothing was found damaged.
///
/// # Errors
/// A path cannot be read, or the output not written.
pub fn run(cli: &Cli, out: &mut impl Write) -> io::Result<bool> {
    match &cli.command {
        Command::List(which) => list(&which.paths, out),
        Command::Verify(which) => verify(&which.paths, out),
        Command::Dump(which) => dump(&which.paths, out),
        Command::Recover(recover) => export::recover(recover, out),
    }
}

/// A segment read whole.
struct Segment {
    header: SegmentHeader,
    bytes: Vec<u8>,
}

/// A record of it.
struct Found<'a> {
    offset: u32,
    header: RecordHeader,
    payload: &'a [u8],
    /// Bytes before it that belong to no sound record.
    skipped: u32,
}

impl Segment {
    fn records(&self) -> impl Iterator<Item = Found<'_>> {
        let len = self.bytes.len() as u32;
        let mut walk = Walk::new(self.header.seal(), DATA_START.min(len), len);
        std::iter::from_fn(move || match walk.step(&self.bytes, 0) {
            Walked::Record { offset, header, payload, skipped } => {
                let end = (payload + header.len as usize).min(self.bytes.len());
                Some(Found { offset, header, payload: &self.bytes[payload..end], skipped })
            }
            // The window is the whole file: there is no more to bring.
            Walked::Need { .. } | Walked::End => None,
        })
    }

    /// The record at `offset`, if a sound one begins there.
    fn record_at(&self, offset: u32) -> Option<Found<'_>> {
        let mut walk = Walk::new(self.header.seal(), offset, self.bytes.len() as u32);
        match walk.step(&self.bytes, 0) {
            Walked::Record { offset: at, header, payload, .. } if at == offset => {
                let end = (payload + header.len as usize).min(self.bytes.len());
                Some(Found { offset, header, payload: &self.bytes[payload..end], skipped: 0 })
            }
            _ => None,
        }
    }

    fn place(&self, offset: u32) -> Place {
        Place { segment: self.header.segment, offset }
    }

    fn id(&self, place: Place) -> QueueId {
        QueueId { log: self.header.log, place }
    }
}

/// What a file turned out to be.
enum File {
    Segment(Segment),
    Spare,
    Unusable(String),
}

fn files(paths: &[PathBuf]) -> io::Result<Vec<(String, File)>> {
    let mut all = Vec::new();
    for path in paths {
        if path.is_dir() {
            for entry in fs::read_dir(path)? {
                all.push(entry?.path());
            }
        } else {
            all.push(path.clone());
        }
    }
    all.sort();
    let read = all.into_iter().filter(|path| path.is_file());
    read.map(|path| Ok((path.display().to_string(), read_file(&path)?))).collect()
}

fn read_file(path: &Path) -> io::Result<File> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    match FileName::parse(&name) {
        Some(FileName::Spare(_) | FileName::Checkpoint(_)) => Ok(File::Spare),
        None => Ok(File::Unusable("not a name of a segment".into())),
        Some(FileName::Segment(number)) => {
            let bytes = fs::read(path)?;
            Ok(match SegmentHeader::decode(&bytes) {
                Ok(header) if header.segment == number => File::Segment(Segment { header, bytes }),
                Ok(header) => {
                    File::Unusable(format!("segment {:08x} by its header", header.segment))
                }
                Err(bad) => File::Unusable(bad.to_string()),
            })
        }
    }
}

fn list(paths: &[PathBuf], out: &mut impl Write) -> io::Result<bool> {
    let mut sound = true;
    for (path, file) in files(paths)? {
        match file {
            File::Spare => writeln!(out, "{path}: spare")?,
            File::Unusable(why) => {
                sound = false;
                writeln!(out, "{path}: {why}")?;
            }
            File::Segment(segment) => {
                let (mut counts, mut end) = (BTreeMap::<&str, u64>::new(), DATA_START);
                for found in segment.records() {
                    *counts.entry(found.header.kind.name()).or_default() += 1;
                    end = found.offset + found.header.extent() as u32;
                }
                let counts: Vec<_> = counts.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
                let SegmentHeader { log, segment: number, created, .. } = segment.header;
                writeln!(
                    out,
                    "{path}: log {log} segment {number:08x} created {created}, {end} of {} bytes \
                     used: {}",
                    segment.bytes.len(),
                    counts.join(", ")
                )?;
            }
        }
    }
    Ok(sound)
}

/// What `verify` has seen of a log.
#[derive(Default)]
struct Verdict {
    records: u64,
    complaints: Vec<String>,
    /// Bytes that belong to no sound record: where, and how many.
    holes: Vec<(Place, u32)>,
    /// Where the records of each segment end.
    ends: BTreeMap<u32, u32>,
    /// The greatest claim of what was durable.
    durable: Place,
}

impl Verdict {
    fn segment(&mut self, path: &str, segment: &Segment) {
        self.ends.insert(segment.header.segment, DATA_START);
        for found in segment.records() {
            self.records += 1;
            let (offset, kind) = (found.offset, found.header.kind);
            if found.skipped > 0 {
                self.holes.push((segment.place(offset - found.skipped), found.skipped));
            }
            self.ends.insert(segment.header.segment, offset + found.header.extent() as u32);
            match Payload::decode(kind, found.header.meta, found.payload) {
                Ok(Payload::Mark(mark)) => {
                    self.durable = self.durable.max(mark.durable);
                    let end = self.ends.get(&mark.previous.segment).copied();
                    if let Some(end) = end.filter(|&end| end < mark.previous.offset) {
                        let place = Place { segment: mark.previous.segment, offset: end };
                        self.holes.push((place, mark.previous.offset - end));
                        self.ends.insert(mark.previous.segment, mark.previous.offset);
                    }
                }
                Ok(_) => {}
                Err(bad) => {
                    let kind = kind.name();
                    self.complaints.push(format!("{path}: {kind} at offset {offset}: {}", bad.0));
                }
            }
        }
    }

    fn report(mut self, out: &mut impl Write) -> io::Result<bool> {
        for (Place { segment, offset }, len) in self.holes {
            let hole = format!("segment {segment:08x}: {len} bytes at offset {offset}");
            if (Place { segment, offset }) < self.durable {
                self.complaints.push(format!("{hole} are damaged"));
            } else {
                // Nobody was told that it had been written.
                writeln!(out, "{hole} are an unfinished write, cut at the next start")?;
            }
        }
        for complaint in &self.complaints {
            writeln!(out, "{complaint}")?;
        }
        let verdict = if self.complaints.is_empty() { "sound" } else { "DAMAGED" };
        let (records, segments) = (self.records, self.ends.len());
        writeln!(out, "{verdict}: {records} records in {segments} segments")?;
        Ok(self.complaints.is_empty())
    }
}

fn verify(paths: &[PathBuf], out: &mut impl Write) -> io::Result<bool> {
    let mut verdict = Verdict::default();
    for (path, file) in files(paths)? {
        match file {
            File::Segment(segment) => verdict.segment(&path, &segment),
            File::Spare => {}
            File::Unusable(why) => verdict.complaints.push(format!("{path}: {why}")),
        }
    }
    verdict.report(out)
}

fn dump(paths: &[PathBuf], out: &mut impl Write) -> io::Result<bool> {
    let mut sound = true;
    for (path, file) in files(paths)? {
        let File::Segment(segment) = file else { continue };
        writeln!(out, "{path}: {:?}", segment.header)?;
        for found in segment.records() {
            if found.skipped > 0 {
                sound = false;
                let from = found.offset - found.skipped;
                writeln!(out, "{from:>10} ???       {} bytes", found.skipped)?;
            }
            let (kind, len) = (found.header.kind, found.header.len);
            let detail = detail(&segment, &found);
            writeln!(out, "{:>10} {:<9} {len:>8} {detail}", found.offset, kind.name())?;
        }
    }
    Ok(sound)
}

fn detail(segment: &Segment, found: &Found<'_>) -> String {
    let place = segment.place(found.offset);
    match Payload::decode(found.header.kind, found.header.meta, found.payload) {
        Err(bad) => format!("malformed: {}", bad.0),
        Ok(Payload::Pad) => String::new(),
        Ok(Payload::Mark(mark)) => format!(
            "durable {:08x}:{} previous {:08x}:{}",
            mark.durable.segment, mark.durable.offset, mark.previous.segment, mark.previous.offset
        ),
        Ok(Payload::Message { facts, body: part } | Payload::Head { facts, part }) => format!(
            "{} recipients {} body {} arrival {}",
            segment.id(place),
            facts.recipients,
            part.len(),
            UnixMillis(facts.arrival_ms)
        ),
        Ok(Payload::Chunk { head, part }) => format!("{} body {}", segment.id(head), part.len()),
        Ok(Payload::Commit(commit)) => format!(
            "{} body {} in {} further parts",
            segment.id(commit.head),
            commit.size,
            commit.extents.len()
        ),
        Ok(Payload::Outcomes { message, outcomes }) => {
            let each = outcomes.iter().map(|outcome| {
                let Outcome { recipient, disposition, reply, .. } = outcome;
                format!("{recipient} {} ({reply})", disposition.name())
            });
            format!("{} {}", segment.id(message), each.collect::<Vec<_>>().join("; "))
        }
        Ok(Payload::Order(order)) => format!(
            "{} {} recipients {:?} by {} at {}",
            segment.id(order.message),
            order.kind.name(),
            order.recipients,
            order.by,
            order.at
        ),
        Ok(Payload::Moved { moved, facts, part }) => format!(
            "{} recipients {} body {} of {} arrival {}",
            segment.id(moved.id),
            facts.recipients,
            part.len(),
            moved.size,
            UnixMillis(facts.arrival_ms)
        ),
        Ok(Payload::Roster(segments)) => format!("{} segments in use", segments.len()),
        Ok(Payload::Survivors(survivors)) => format!(
            "segment {:08x} offsets {}..{}: {} messages",
            survivors.segment,
            survivors.from,
            survivors.to,
            survivors.messages.len()
        ),
    }
}
