//! The torn tail of a log: where it begins, and cutting it off.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

use super::scan::{Opened, Scan};
use crate::base::Place;
use crate::io::store::{OpenMode, Store, StoreFile};
use crate::queue::QueueError;
use crate::queue::format::{DATA_START, checkpoint_name, segment_name};

/// Where the torn tail begins, if there is one, given the segments from the last
/// claim of durability on and that claim.
pub(super) fn find_cut(scans: &BTreeMap<u32, (Opened, Scan)>, durable: Place) -> Option<Place> {
    let mut end: Option<Place> = None;
    for (&segment, (_, scan)) in scans.range(durable.segment..) {
        let place = |offset| Place { segment, offset };
        // The batch before this segment is not all there.
        if let (Some(previous), Some(end)) = (scan.previous, end)
            && previous > end
            && previous > durable
        {
            return Some(end.max(durable));
        }
        if let Some(hole) = scan.holes.iter().find(|hole| place(hole.to) > durable) {
            return Some(place(hole.from).max(durable));
        }
        if !scan.is_empty() || end.is_none() {
            end = Some(place(scan.end));
        }
    }
    None
}

/// Cuts the log at `cut`.
pub(super) async fn cut_off<S: Store>(
    store: &S,
    scans: &mut BTreeMap<u32, (Opened, Scan)>,
    checkpoints: &mut BTreeSet<u32>,
    cut: Place,
) -> Result<(), QueueError> {
    // A checkpoint tells of what is about to go.
    for (&number, _) in scans.range(cut.segment..) {
        let name = checkpoint_name(number);
        match store.remove(&name).await {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(QueueError::io(format!("removing {name} failed"))(error));
            }
            _ => {
                checkpoints.remove(&number);
            }
        }
    }
    store.sync_dir().await.map_err(QueueError::io("removing checkpoints failed"))?;
    for (&number, (opened, scan)) in scans.range_mut(cut.segment..) {
        let len = if number == cut.segment { cut.offset.max(DATA_START) } else { DATA_START };
        scan.cut(len);
        if opened.len <= len {
            continue;
        }
        let name = segment_name(number);
        let failed = || QueueError::io(format!("cutting {name} failed"));
        let file = store.open(&name, OpenMode::Write).await.map_err(failed())?;
        file.truncate(u64::from(len)).await.map_err(failed())?;
        file.sync().await.map_err(failed())?;
        file.close().await;
        opened.len = len;
    }
    Ok(())
}

/// Flushes the segments of which something was read that may not be durable:
/// from now on it is relied upon.
pub(super) async fn make_durable<S: Store>(
    store: &S,
    segments: impl Iterator<Item = u32>,
) -> Result<(), QueueError> {
    for number in segments {
        let name = segment_name(number);
        let failed = || QueueError::io(format!("flushing {name} failed"));
        let file = store.open(&name, OpenMode::Write).await.map_err(failed())?;
        file.sync().await.map_err(failed())?;
        file.close().await;
    }
    Ok(())
}
