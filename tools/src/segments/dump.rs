//! `ringpost-segments dump`: a line for each record.

use std::io::{self, Write};

use ringpost::base::{Outcome, Place, UnixMillis};
use ringpost::queue::format::BadHeader;
use ringpost::queue::record::{Extent, Known, NOWHERE, Payload, Survivors};

use super::file::{Found, Segment};
use super::list;
use super::log::{Item, Log};

/// Writes the records of all segments in `logs`. False if there are bytes that
/// belong to no record, or a file that cannot be read.
pub(super) fn dump(logs: &[Log], out: &mut impl Write) -> io::Result<bool> {
    let mut sound = true;
    for log in logs {
        let segments = log.segments();
        for (path, item) in &log.files {
            let path = path.display();
            match item {
                Item::Spare(_) => {}
                Item::Unusable(why) => {
                    sound = false;
                    writeln!(out, "{path}: {why}")?;
                }
                Item::Checkpoint(number) => {
                    let what = list::checkpoint(log, *number, segments.get(number))?;
                    writeln!(out, "{path}: {what}")?;
                }
                Item::Segment(segment) => {
                    writeln!(out, "{path}: {}", list::headline(segment))?;
                    sound &= records(segment, out)?;
                }
            }
        }
    }
    Ok(sound)
}

fn records(segment: &Segment, out: &mut impl Write) -> io::Result<bool> {
    // Without a header, and the rest in order: still a segment to be told of.
    let mut sound = segment.header.is_some();
    segment.walk(|found| {
        if found.skipped > 0 {
            sound = false;
            let from = found.offset - found.skipped;
            writeln!(out, "{from:>10} ???       {:>8} bytes that are no record", found.skipped)?;
        }
        let (kind, len) = (found.header.kind.name(), found.header.len);
        writeln!(out, "{:>10} {kind:<9} {len:>8} {}", found.offset, detail(segment, found))
    })?;
    if segment.header.is_none() {
        writeln!(out, "           {}", BadHeader::Damaged)?;
    }
    Ok(sound)
}

fn detail(segment: &Segment, found: &Found<'_>) -> String {
    let place = segment.place(found.offset);
    match found.decode() {
        Err(bad) => format!("malformed: {}", bad.0),
        Ok(Payload::Pad) => String::new(),
        Ok(Payload::Mark(mark)) => {
            format!("durable {} previous {}", at(mark.durable), at(mark.previous))
        }
        Ok(Payload::Message { facts, body: part } | Payload::Head { facts, part }) => format!(
            "{} recipients {} body {} arrival {}",
            segment.id(place),
            facts.recipients,
            part.len(),
            UnixMillis(facts.arrival_ms)
        ),
        Ok(Payload::Chunk { head, part }) => format!("{} body {}", segment.id(head), part.len()),
        Ok(Payload::Commit(commit)) => {
            format!("{} body {}{}", segment.id(commit.head), commit.size, parts(&commit.extents))
        }
        Ok(Payload::Outcomes { message, outcomes }) => {
            let each: Vec<_> = outcomes.iter().map(outcome).collect();
            format!("{} {}", segment.id(message), each.join("; "))
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
            "{} recipients {} body {} arrival {}, {} of it here{}{}",
            segment.id(moved.id),
            facts.recipients,
            moved.size,
            UnixMillis(facts.arrival_ms),
            part.len(),
            parts(&moved.extents),
            known(&moved.known)
        ),
        Ok(Payload::Roster(segments)) => format!("in use: {}", ranges(&segments)),
        Ok(Payload::Survivors(said)) => survivors(&said),
    }
}

fn at(place: Place) -> String {
    if place == NOWHERE {
        return "-".into();
    }
    format!("{:08x}:{}", place.segment, place.offset)
}

fn outcome(outcome: &Outcome) -> String {
    let Outcome { recipient, disposition, reply, .. } = outcome;
    format!("{recipient} {} ({reply})", disposition.name())
}

fn parts(extents: &[Extent]) -> String {
    let each: Vec<_> =
        extents.iter().map(|extent| format!("{}+{}", at(extent.place), extent.len)).collect();
    if each.is_empty() { String::new() } else { format!(", further parts {}", each.join(" ")) }
}

fn known(recipients: &[Known]) -> String {
    let one = |known: &Known| {
        let Known { recipient, done, held, attempts, next_ms, last } = known;
        let state = match (done, held) {
            (true, _) => "done".to_owned(),
            (false, true) => "held".to_owned(),
            (false, false) => format!("next {}", UnixMillis(*next_ms)),
        };
        let word = last.as_ref().map_or_else(String::new, |last| format!(" ({})", last.reply));
        format!("; {recipient} {state} attempts {attempts}{word}")
    };
    recipients.iter().map(one).collect()
}

fn survivors(survivors: &Survivors) -> String {
    let Survivors { segment, from, to, messages } = survivors;
    let to = if *to == u32::MAX { "end".to_owned() } else { to.to_string() };
    let each: String = messages
        .iter()
        .map(|message| format!("; at {}{}", message.offset, known(&message.recipients)))
        .collect();
    format!("segment {segment:08x} offsets {from}..{to}: {} messages{each}", messages.len())
}

/// Ascending numbers, those in a row as one range.
fn ranges(numbers: &[u32]) -> String {
    let mut found: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match found.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => found.push((number, number)),
        }
    }
    let text = |&(from, to): &(u32, u32)| {
        if from == to { format!("{from:08x}") } else { format!("{from:08x}-{to:08x}") }
    };
    found.iter().map(text).collect::<Vec<_>>().join(" ")
}
