//! `ringpost-segments list`: a line for each file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use ringpost::queue::format::DATA_START;

use super::file::Segment;
use super::log::{Item, Log};

/// Lists the files of `logs`. False if there is one that cannot be used.
pub(super) fn list(logs: &[Log], out: &mut impl Write) -> io::Result<bool> {
    let mut sound = true;
    for log in logs {
        let segments = log.segments();
        for (path, item) in &log.files {
            let what = match item {
                Item::Spare(_) => "spare".to_owned(),
                Item::Unusable(why) => {
                    sound = false;
                    why.clone()
                }
                Item::Checkpoint(number) => checkpoint(log, *number, segments.get(number))?,
                Item::Segment(segment) => describe(segment)?,
            };
            writeln!(out, "{}: {what}", path.display())?;
        }
    }
    Ok(sound)
}

/// What a checkpoint is worth.
pub(super) fn checkpoint(log: &Log, number: u32, of: Option<&&Segment>) -> io::Result<String> {
    let of_segment = format!("checkpoint of segment {number:08x}");
    let Some(segment) = of else {
        return Ok(format!("{of_segment}, which is not here"));
    };
    Ok(match log.checkpoint(segment)? {
        Some(Ok(checkpoint)) => {
            let (facts, end) = (checkpoint.facts().count(), checkpoint.end);
            format!("{of_segment}, {facts} facts, up to offset {end}")
        }
        Some(Err(why)) => format!("{of_segment}, not to be used: {why}"),
        None => of_segment,
    })
}

/// A segment in one line, without what it holds.
pub(super) fn headline(segment: &Segment) -> String {
    let Segment { log, number, .. } = segment;
    let mut line = format!("log {log} segment {number:08x} ");
    match (&segment.header, segment.version) {
        (Some(header), Some(version)) => {
            let _ = write!(line, "created {} format {version}", header.created);
            if header.was != 0 {
                let _ = write!(line, " was {:08x}", header.was);
            }
        }
        _ => line.push_str("header lost; records read with the seal found from the first record"),
    }
    line
}

fn describe(segment: &Segment) -> io::Result<String> {
    let (mut counts, mut end) = (BTreeMap::<&str, u64>::new(), DATA_START);
    segment.walk(|found| {
        *counts.entry(found.header.kind.name()).or_default() += 1;
        end = found.offset + found.extent();
        Ok(())
    })?;
    let counts: Vec<_> = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let (headline, counts) = (headline(segment), counts.join(", "));
    Ok(format!("{headline}, {end} of {} bytes used: {counts}", segment.len))
}
