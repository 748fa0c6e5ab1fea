//! Finding out what is queued: the facts of every segment, from its checkpoint
//! or, where there is none that can be used, from its records.

use std::collections::{BTreeMap, BTreeSet};

use super::replay::{Replay, STRIDE};
use super::scan::{Opened, Scan, open_segment, scan};
use super::{End, Found, RecoveryReport};
use crate::base::{Place, UnixMillis};
use crate::io::store::{Store, StoreFile};
use crate::queue::checkpoint::{Checkpoint, Draft};
use crate::queue::format::{checkpoint_name, segment_name};
use crate::queue::index::Index;
use crate::queue::record::NOWHERE;
use crate::queue::{Queue, QueueError};

/// What is left to do after [`Queue::begin`].
#[must_use = "nothing queued from before is delivered until it is finished"]
pub struct Loading<S: Store> {
    queue: Queue<S>,
    found: Found,
    scans: BTreeMap<u32, (Opened, Scan)>,
    previous: Place,
    report: RecoveryReport,
    /// Numbers that the files of present segments had before.
    were: BTreeSet<u32>,
}

impl<S: Store> Loading<S> {
    pub(super) fn new(queue: Queue<S>, found: Found, end: End) -> Self {
        let report = RecoveryReport {
            cut: end.cut,
            spares: found.spares.len() as u64,
            ..RecoveryReport::default()
        };
        let (scans, previous) = (end.scans, end.previous);
        let were = scans.values().map(|(opened, _)| opened.header.was).collect();
        Loading { queue, found, scans, previous, report, were }
    }

    /// Where a torn tail was cut, if there was one.
    pub fn cut(&self) -> Option<Place> {
        self.report.cut
    }

    /// Reads what is queued and makes it known to the queue. What was never
    /// attempted is due `now`.
    ///
    /// # Errors
    /// `Io` if a file cannot be read; `Poisoned` if the queue was closed
    /// meanwhile. Nothing that is queued is known then.
    pub async fn finish(mut self, now: UnixMillis) -> Result<RecoveryReport, QueueError> {
        let mut replay = Replay::new(now);
        for number in self.found.segments.clone() {
            self.queue.still_loading()?;
            self.segment(&mut replay, number).await?;
            self.queue.one_less_unread();
            self.pause().await;
        }
        replay.end(self.previous, &mut self.report);
        while replay.check_parts(STRIDE, &mut self.report) {
            self.pause().await;
        }
        self.report.segments = self.found.segments.len() as u64;
        self.report.foreign = std::mem::take(&mut self.found.foreign);
        self.report.foreign.sort_unstable();
        let there = |segment: &u32| {
            let Found { segments, spares, .. } = &self.found;
            segments.contains(segment) || spares.contains(segment) || self.were.contains(segment)
        };
        self.report.missing =
            replay.roster().iter().filter(|segment| !there(segment)).copied().collect();
        let roster = replay.roster().to_vec();
        let mut index = replay.finish(&mut self.report);
        index.begin_schedule();
        let mut scheduled = NOWHERE;
        while let Some(last) = index.schedule_some(scheduled, STRIDE) {
            scheduled = last;
            self.pause().await;
        }
        self.queue.still_loading()?;
        self.queue.loaded(index, roster);
        self.remove_orphans().await?;
        Ok(self.report)
    }

    async fn pause(&self) {
        self.queue.0.store.pause().await;
    }

    async fn segment(&mut self, replay: &mut Replay, number: u32) -> Result<(), QueueError> {
        if let Some((opened, scan)) = self.scans.remove(&number) {
            let replace = self.found.checkpoints.contains(&number);
            return self.scanned(replay, number, &opened, scan, replace).await;
        }
        let queue = self.queue.clone();
        let (store, options) = (&queue.0.store, &queue.0.options);
        let (file, opened) = match open_segment(store, options, number).await? {
            Ok(opened) => opened,
            Err(why) => {
                self.found.foreign.push((segment_name(number), why));
                self.found.segments.remove(&number);
                return Ok(());
            }
        };
        self.were.insert(opened.header.was);
        let has_checkpoint = self.found.checkpoints.contains(&number);
        if has_checkpoint {
            match Checkpoint::read(store, number, opened.header.seal()).await? {
                Ok(checkpoint) => {
                    self.report.checkpoints += 1;
                    replay.begin_segment(number, Some(checkpoint.previous), &mut self.report);
                    // Checking it and finding the facts take a while each.
                    store.pause().await;
                    let facts = checkpoint.facts();
                    self.report.records += replay.apply_all(store, number, facts).await;
                    replay.end_segment(number, checkpoint.end);
                    if checkpoint.doubted {
                        scan(&file, &opened).await?.report(number, replay, &mut self.report);
                    }
                    file.close().await;
                    return Ok(());
                }
                Err(why) => self.report.bad_checkpoints.push((number, why)),
            }
        }
        let scan = scan(&file, &opened).await?;
        file.close().await;
        self.scanned(replay, number, &opened, scan, has_checkpoint).await
    }

    /// Replays a segment that was read record by record, and writes its checkpoint.
    async fn scanned(
        &mut self,
        replay: &mut Replay,
        number: u32,
        opened: &Opened,
        scan: Scan,
        replace: bool,
    ) -> Result<(), QueueError> {
        let report = &mut self.report;
        replay.begin_segment(number, scan.previous, report);
        scan.report(number, replay, report);
        let facts = scan.facts.iter().cloned();
        report.records += replay.apply_all(&self.queue.0.store, number, facts).await;
        replay.end_segment(number, scan.end);
        if scan.is_sound()
            && !scan.is_empty()
            && let Some(previous) = scan.previous
        {
            let draft = Draft {
                segment: number,
                seal: opened.header.seal(),
                end: scan.end,
                previous,
                batch: 0,
                facts: scan.facts,
            };
            self.queue.still_loading()?;
            self.queue.write_checkpoint(&draft, replace).await?;
        }
        Ok(())
    }

    /// Removes the checkpoints of segments that are gone.
    async fn remove_orphans(&mut self) -> Result<(), QueueError> {
        let store = self.queue.0.store.clone();
        for number in self.found.checkpoints.difference(&self.found.named) {
            let name = checkpoint_name(*number);
            let removed = store.remove(&name).await;
            removed.map_err(QueueError::io(format!("removing {name} failed")))?;
        }
        Ok(())
    }
}

impl Scan {
    /// Reports what is wrong with the segment.
    fn report(&self, number: u32, replay: &mut Replay, report: &mut RecoveryReport) {
        for hole in &self.holes {
            replay.damage(number, hole.from, hole.to - hole.from, "no sound record", report);
        }
        for (offset, len, what) in &self.malformed {
            replay.damage(number, *offset, *len, what, report);
        }
    }
}

impl<S: Store> Queue<S> {
    /// # Errors
    /// `Poisoned` if the queue was closed: what is queued is of no more interest.
    fn still_loading(&self) -> Result<(), QueueError> {
        self.0.state.borrow().writable()
    }

    fn one_less_unread(&self) {
        self.0.state.borrow_mut().left_unread -= 1;
    }

    /// What is queued from before is known from now on.
    fn loaded(&self, index: Index, roster: Vec<u32>) {
        let mut state = self.0.state.borrow_mut();
        if state.rostered_in == 0 {
            state.roster = roster;
        }
        state.index.absorb(index);
        // What turned out to be none of ours.
        state.index.segments.retain(|_, segment| !segment.unread);
        state.loading = false;
        drop(state);
        self.0.upkeep.raise();
        self.0.clean.raise();
    }
}
