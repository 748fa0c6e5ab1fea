//! `ringpost-segments recover`: the messages of a log as files that any other
//! program takes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};

use ringpost::base::{Place, QueueId};
use ringpost::mail::stuffing::unstuff;
use ringpost::queue::record::{Payload, decode_envelope};
use serde_json::json;

use super::replay::{Replay, Seen};
use super::{File, Found, Recover, Segment, files};

pub(super) fn recover(options: &Recover, out: &mut impl Write) -> io::Result<bool> {
    let (mut segments, mut sound) = (BTreeMap::new(), true);
    for (path, file) in files(std::slice::from_ref(&options.log))? {
        match file {
            File::Segment(segment) => {
                segments.insert(segment.header.segment, segment);
            }
            File::Spare => {}
            File::Unusable(why) => {
                sound = false;
                writeln!(out, "{path}: {why}")?;
            }
        }
    }
    let mut replay = Replay::default();
    for segment in segments.values() {
        for found in segment.records() {
            sound &= found.skipped == 0;
            if let Ok(payload) = decode(&found) {
                replay.apply(segment.place(found.offset), &payload);
            }
        }
    }
    fs::create_dir_all(&options.out)?;
    let (mut written, mut broken) = (0, 0);
    for (&place, seen) in &replay.messages {
        if seen.unfinished || !(options.all || seen.is_live()) {
            continue;
        }
        let segment = &segments[&place.segment];
        let id = segment.id(place);
        if !seen.is_whole() {
            broken += 1;
            sound = false;
            writeln!(out, "{id}: parts of it are missing")?;
            continue;
        }
        export(options, &segments, id, seen)?;
        written += 1;
    }
    writeln!(out, "{written} messages written to {}, {broken} incomplete", options.out.display())?;
    Ok(sound)
}

fn decode<'a>(found: &Found<'a>) -> Result<Payload<'a>, ringpost::queue::record::Malformed> {
    Payload::decode(found.header.kind, found.header.meta, found.payload)
}

fn export(
    options: &Recover,
    segments: &BTreeMap<u32, Segment>,
    id: QueueId,
    seen: &Seen,
) -> io::Result<()> {
    let damaged = || io::Error::other(format!("{id}: a record that was sound is not"));
    let record = |place: Place| {
        let segment = segments.get(&place.segment)?;
        segment.record_at(place.offset)
    };
    let first = record(id.place).ok_or_else(damaged)?;
    let (archive, part) = first.payload.split_at(first.header.meta as usize);
    let envelope = decode_envelope(archive).map_err(|_| damaged())?;
    let mut body = part.to_vec();
    for extent in seen.commit.iter().flat_map(|commit| &commit.extents) {
        let chunk = record(extent.place).ok_or_else(damaged)?;
        match decode(&chunk) {
            Ok(Payload::Chunk { part, .. }) => body.extend_from_slice(part),
            _ => return Err(damaged()),
        }
    }
    fs::write(options.out.join(format!("{id}.eml")), unstuff(&body))?;
    let recipients = envelope.recipients.iter().zip(&seen.pending);
    let recipients: Vec<_> = recipients
        .map(|(address, pending)| json!({ "address": address, "pending": pending }))
        .collect();
    let described = json!({
        "queue_id": id.to_string(),
        "sender": envelope.sender,
        "recipients": recipients,
        "arrival_time": envelope.arrival().as_secs(),
        "smtputf8": envelope.smtputf8,
        "client": envelope.client,
        "helo": envelope.helo,
    });
    fs::write(options.out.join(format!("{id}.json")), format!("{described:#}\n"))
}
