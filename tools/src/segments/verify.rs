//! `ringpost-segments verify`: every record and its checksum, where one batch
//! ends and the next begins, checkpoints against the segments they are of, and
//! segments that are missing.

use std::collections::BTreeMap;
use std::io::{self, Write};

use ringpost::base::Place;
use ringpost::queue::checkpoint::Checkpoint;
use ringpost::queue::fact::What;
use ringpost::queue::format::{BadHeader, DATA_START};

use super::file::{Facts, Segment};
use super::log::{Item, Log};

/// Checks `logs`. True if nothing is damaged.
pub(super) fn verify(logs: &[Log], out: &mut impl Write) -> io::Result<bool> {
    let mut sound = true;
    for log in logs {
        let mut verdict = Verdict::default();
        verdict.log(log)?;
        sound &= verdict.report(out)?;
    }
    Ok(sound)
}

/// What has been seen of a log.
#[derive(Default)]
struct Verdict {
    records: u64,
    checkpoints: u64,
    complaints: Vec<String>,
    /// What an operator may want to know, and need do nothing about.
    notes: Vec<String>,
    /// Bytes that belong to no sound record: where, and how many.
    holes: Vec<(Place, u32)>,
    /// Where the records of each segment end.
    ends: BTreeMap<u32, u32>,
    /// The greatest claim of what was durable.
    durable: Place,
    /// The segments in use when the newest one was begun.
    roster: Vec<u32>,
}

impl Verdict {
    fn log(&mut self, log: &Log) -> io::Result<()> {
        for (path, item) in &log.files {
            if let Item::Unusable(why) = item {
                self.complaints.push(format!("{}: {why}", path.display()));
            }
        }
        let segments = log.segments();
        for (path, item) in &log.files {
            if let Item::Checkpoint(number) = item
                && !segments.contains_key(number)
            {
                let path = path.display();
                self.notes.push(format!(
                    "{path}: checkpoint of segment {number:08x}, which cannot be read or is not \
                     here; removed at the next start if the segment is gone"
                ));
            }
        }
        for segment in segments.values() {
            let said = segment.facts()?;
            self.segment(segment, &said);
            match log.checkpoint(segment)? {
                None => {}
                Some(Ok(checkpoint)) => self.checkpoint(segment, &said, &checkpoint),
                Some(Err(why)) => self.notes.push(format!(
                    "checkpoint of segment {:08x}: {why}; will be written anew at the next start",
                    segment.number
                )),
            }
        }
        if log.whole {
            for number in log.missing(&self.roster) {
                self.complaints
                    .push(format!("segment {number:08x} was in use and is not here: MISSING"));
            }
        }
        Ok(())
    }

    fn segment(&mut self, segment: &Segment, said: &Facts) {
        let (number, path) = (segment.number, segment.path.display());
        if segment.header.is_none() {
            self.complaints.push(format!(
                "{path}: {}; its records can be read with the seal found from the first record",
                BadHeader::Damaged
            ));
        }
        self.records += said.records;
        self.holes.extend(said.holes.iter().map(|&(at, len)| (segment.place(at), len)));
        for (offset, kind, why) in &said.malformed {
            self.complaints.push(format!("{path}: {} at offset {offset}: {why}", kind.name()));
        }
        for &(offset, mark) in &said.marks {
            // What this segment's own batches say of one another is seen in the
            // holes already, but for the end of the one before.
            self.durable = self.durable.max(mark.durable);
            if offset == DATA_START {
                self.expect_end(mark.previous);
            }
        }
        self.ends.insert(number, said.end);
        let mut rosters = said.facts.iter().filter_map(|fact| match &fact.what {
            What::Roster(roster) => Some(&roster[..]),
            _ => None,
        });
        if let Some(newest) = rosters.next_back() {
            self.roster = newest.to_vec();
        }
    }

    /// The records of that segment should end there.
    fn expect_end(&mut self, expected: Place) {
        let end = self.ends.get(&expected.segment).copied();
        if let Some(end) = end.filter(|&end| end < expected.offset) {
            let place = Place { segment: expected.segment, offset: end };
            self.holes.push((place, expected.offset - end));
            self.ends.insert(expected.segment, expected.offset);
        }
    }

    fn checkpoint(&mut self, segment: &Segment, said: &Facts, checkpoint: &Checkpoint) {
        self.checkpoints += 1;
        let number = segment.number;
        let same = checkpoint.facts().eq(said.facts.iter().cloned())
            && checkpoint.end == said.end
            && Some(checkpoint.previous) == said.previous();
        if same {
            return;
        }
        // It was written when all of the segment was durable.
        let end = segment.place(checkpoint.end);
        self.durable = self.durable.max(end);
        self.expect_end(end);
        if said.is_sound() && checkpoint.end <= said.end {
            self.complaints.push(format!(
                "checkpoint of segment {number:08x}: it is sound and does not say what the segment \
                 says; remove it, and it will be written anew at the next start"
            ));
        } else {
            // The records that it differs by are the damaged ones.
            let facts = checkpoint.facts().count();
            self.notes.push(format!(
                "checkpoint of segment {number:08x}: it states {facts} facts, of which the \
                 damaged segment still tells {}",
                said.facts.len()
            ));
        }
    }

    fn report(mut self, out: &mut impl Write) -> io::Result<bool> {
        self.holes.sort_unstable();
        for (Place { segment, offset }, len) in self.holes {
            let hole = format!("segment {segment:08x}: {len} bytes at offset {offset}");
            if (Place { segment, offset }) < self.durable {
                self.complaints.push(format!("{hole} are damaged"));
            } else {
                // Nobody was told that it had been written.
                writeln!(out, "{hole} are an unfinished write, cut at the next start")?;
            }
        }
        for line in self.notes.iter().chain(&self.complaints) {
            writeln!(out, "{line}")?;
        }
        let verdict = if self.complaints.is_empty() { "sound" } else { "DAMAGED" };
        let (records, segments) = (self.records, self.ends.len());
        writeln!(
            out,
            "{verdict}: {records} records in {segments} segments, {} checkpoints",
            self.checkpoints
        )?;
        Ok(self.complaints.is_empty())
    }
}
