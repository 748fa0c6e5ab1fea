//! `ringpost-segments recover`: finds the messages of a log that are still
//! queued and whole, and gives each to what was asked for: to files, or to a
//! server.

use std::io::{self, Write};

use ringpost::base::{Place, QueueId};

use super::export::Export;
use super::file::Segment;
use super::log::{Item, Log};
use super::mail::{Mail, Reader, Trouble};
use super::replay::{Replay, Seen};
use super::resend::Resend;
use super::{Recover, Where};

/// What is done with a message.
pub(super) trait Taker {
    /// Takes a whole message. False, with a word in `out`, if it did not work;
    /// others are tried nevertheless.
    ///
    /// # Errors
    /// Nothing more can be taken.
    fn take(
        &mut self,
        id: QueueId,
        seen: &Seen,
        mail: &Mail,
        reader: &mut Reader<'_>,
        out: &mut dyn Write,
    ) -> Result<bool, Trouble>;

    /// Ends it. A word about what was done with `count` messages, as in
    /// "written to".
    fn finish(&mut self, count: u64) -> String;
}

/// What was asked for and found.
struct Selected {
    ids: Vec<(QueueId, bool)>,
    segments: Vec<u32>,
}

impl Selected {
    /// Whether the message is wanted by its id. Those found are noted.
    fn wants(&mut self, id: QueueId) -> bool {
        let mut wanted = self.ids.is_empty();
        for (asked, found) in self.ids.iter_mut().filter(|(asked, _)| *asked == id) {
            debug_assert_eq!(*asked, id);
            (wanted, *found) = (true, true);
        }
        wanted
    }

    /// Whether it has something in one of the segments asked for.
    fn lies_there(&self, mail: &Mail) -> bool {
        self.segments.is_empty() || mail.segments.iter().any(|one| self.segments.contains(one))
    }
}

/// Does what `options` ask for. True if nothing was damaged or refused.
pub(super) fn recover(options: &Recover, out: &mut impl Write) -> io::Result<bool> {
    let logs = Log::open_all(std::slice::from_ref(&options.log))?;
    let mut sound = true;
    let mut taker: Box<dyn Taker> = match &options.to {
        Where { out: Some(directory), .. } => Box::new(Export::new(directory)?),
        Where { resend: Some(target), .. } => {
            Box::new(Resend::new(target, options.timeout, options.held)?)
        }
        Where { .. } => unreachable!("one of the two is required"),
    };
    let ids = options.id.iter().map(|id| (*id, false)).collect();
    let mut selected = Selected { ids, segments: options.segment.clone() };
    let (mut taken, mut failed) = (0, 0);
    for log in &logs {
        let segments = log.segments();
        let (replay, told_sound) = replay(log, options.all, out)?;
        sound &= told_sound;
        let mut reader = Reader::new(segments);
        let number = log.number;
        for (&place, seen) in &replay.messages {
            let id = QueueId { log: number, place };
            if seen.unfinished || !(options.all || seen.is_live()) || !selected.wants(id) {
                continue;
            }
            match one(taker.as_mut(), id, seen, &mut reader, &selected, out) {
                Ok(None) => {}
                Ok(Some(true)) => taken += 1,
                Ok(Some(false)) => failed += 1,
                // Of what is settled, parts may have been freed.
                Err(Trouble::Broken(_)) if !seen.is_live() => {}
                Err(Trouble::Broken(why)) => {
                    writeln!(out, "{id}: {why}")?;
                    failed += 1;
                }
                Err(Trouble::Io(error)) => return Err(error),
            }
        }
        failed += headless(&replay, log, out)?;
    }
    for (id, _) in selected.ids.iter().filter(|(_, found)| !found) {
        writeln!(out, "{id}: not queued in this log")?;
        sound = false;
    }
    writeln!(out, "{taken} messages {}, {failed} not", taker.finish(taken))?;
    Ok(sound && failed == 0)
}

/// Gives a message to the taker, if it lies where it was asked for; `None` if
/// not.
fn one(
    taker: &mut dyn Taker,
    id: QueueId,
    seen: &Seen,
    reader: &mut Reader<'_>,
    selected: &Selected,
    out: &mut dyn Write,
) -> Result<Option<bool>, Trouble> {
    let mut mail = reader.mail(id.place, seen.at)?;
    if !selected.lies_there(&mail) {
        return Ok(None);
    }
    reader.check(&mut mail)?;
    taker.take(id, seen, &mail, reader, out).map(Some)
}

/// Replays a log. False if something is wrong with it.
fn replay(log: &Log, keep_settled: bool, out: &mut impl Write) -> io::Result<(Replay, bool)> {
    let (mut replay, mut sound) = (Replay::new(keep_settled), true);
    for (path, item) in &log.files {
        if let Item::Unusable(why) = item {
            sound = false;
            writeln!(out, "{}: {why}", path.display())?;
        }
    }
    for segment in log.segments().values() {
        sound &= replay_segment(&mut replay, log, segment, out)?;
    }
    for number in log.missing(&replay.roster) {
        sound = false;
        writeln!(
            out,
            "segment {number:08x} was in use and is not here: what it says about messages of \
             other segments is not known"
        )?;
    }
    Ok((replay, sound))
}

fn replay_segment(
    replay: &mut Replay,
    log: &Log,
    segment: &Segment,
    out: &mut impl Write,
) -> io::Result<bool> {
    let number = segment.number;
    let mut said = segment.facts()?;
    let mut sound = said.is_sound();
    if segment.header.is_none() {
        sound = false;
        writeln!(out, "{}: {}", segment.path.display(), super::list::headline(segment))?;
    }
    if let Some(Ok(checkpoint)) = log.checkpoint(segment)?
        && (!said.is_sound() || said.end < checkpoint.end)
    {
        // It knows what damaged records said of messages that are whole.
        sound = false;
        said.facts = checkpoint.facts().collect();
    }
    let bytes: u32 = said.holes.iter().map(|(_, len)| len).sum();
    if bytes > 0 {
        writeln!(out, "segment {number:08x}: {bytes} bytes belong to no sound record")?;
    }
    said.facts.into_iter().for_each(|fact| replay.apply(number, fact));
    Ok(sound)
}

/// Names the messages whose first record should be in a segment of the log and
/// is not. If the segment is not here either they were settled, or are lost
/// with it.
fn headless(replay: &Replay, log: &Log, out: &mut impl Write) -> io::Result<u64> {
    let (segments, mut count) = (log.segments(), 0);
    let missing = log.missing(&replay.roster);
    let is_known = |id: &Place| replay.messages.contains_key(id);
    for place in &replay.headless {
        let lost = segments.contains_key(&place.segment) || missing.contains(&place.segment);
        if lost && !is_known(place) {
            let id = QueueId { log: log.number, place: *place };
            writeln!(
                out,
                "{id}: its first record is damaged or missing; lost unless it was settled"
            )?;
            count += 1;
        }
    }
    Ok(count)
}
