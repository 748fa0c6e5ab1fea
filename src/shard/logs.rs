//! The logs that a shard opens: its own, and those of shards that this server
//! no longer has (it was started with fewer cores than before). Log `k` of a
//! server with `n` shards is opened by shard `k mod n`; new mail goes to a
//! shard's own log only.
//!
//! A shard begins its logs before it takes mail, and reads what is queued in them
//! while it does ([`read_queue`]).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::base::ShardId;
use crate::io::clock;
use crate::io::uring::UringStore;
use crate::queue::{Loading, Queue, QueueError, QueueOptions, RecoveryReport};

use super::{Recovered, ShardPlan};

/// The logs of a shard, by number.
pub(super) type Logs<S> = BTreeMap<ShardId, Queue<S>>;

/// The directory of a log.
pub fn log_dir(data_dir: &Path, log: ShardId) -> PathBuf {
    data_dir.join(format!("log-{:05}", log.0))
}

/// A log whose queue is still to be read.
pub(super) struct Unread {
    pub(super) log: ShardId,
    dir: PathBuf,
    adopted: bool,
    loading: Loading<UringStore>,
}

/// The logs of a shard as they are when it begins to take mail.
pub(super) struct Begun {
    pub(super) logs: Logs<UringStore>,
    pub(super) unread: Vec<Unread>,
    pub(super) recovered: Recovered,
}

/// Begins the logs of a shard, its own included.
pub(super) async fn begin_logs(plan: &ShardPlan) -> Result<Begun, String> {
    let data_dir = &plan.config.data_dir;
    let own = log_dir(data_dir, plan.id);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&own)
        .and_then(|()| fs::File::open(data_dir)?.sync_all())
        .map_err(|error| format!("cannot create {}: {error}", own.display()))?;
    let numbers = numbers(data_dir, plan.id, plan.shards)
        .map_err(|error| format!("cannot list {}: {error}", data_dir.display()))?;
    let mut begun =
        Begun { logs: Logs::new(), unread: Vec::new(), recovered: Recovered::default() };
    for log in numbers {
        let dir = log_dir(data_dir, log);
        let options = QueueOptions {
            log,
            segment_size: plan.config.queue.segment_size,
            reserve: reserve(plan),
            durability: plan.config.durability,
            outcomes_wait: true,
            ..QueueOptions::default()
        };
        let (queue, loading) = Queue::begin(UringStore::new(dir.clone()), options)
            .await
            .map_err(|error| format!("cannot open the log in {}: {error}", dir.display()))?;
        if let Some(cut) = loading.cut() {
            begun.recovered.notes.push(format!(
                "{}: the end of the log was torn by a crash and has been cut off in segment {:08x} \
                 at {}; nothing there had been acknowledged",
                dir.display(),
                cut.segment,
                cut.offset
            ));
        }
        begun.logs.insert(log, queue);
        begun.unread.push(Unread { log, dir, adopted: log != plan.id, loading });
    }
    Ok(begun)
}

/// What new mail leaves free on the filesystem, in bytes: a segment for each core,
/// so that each can still record outcomes, and one more.
fn reserve(plan: &ShardPlan) -> u64 {
    (u64::from(plan.shards) + 1) * u64::from(plan.config.queue.segment_size)
}

/// Reads what is queued in a log, and tells the operator of what was found.
///
/// # Errors
/// Why it cannot be read, in words. Nothing that was queued before is delivered
/// then; it is all there.
pub(super) async fn read_queue(unread: Unread) -> Result<(), String> {
    let Unread { dir, adopted, loading, .. } = unread;
    let began = clock::monotonic();
    let dir = dir.display();
    match loading.finish(clock::wall()).await {
        Ok(report) => {
            for note in notes(&dir.to_string(), adopted, &report) {
                tracing::warn!(target: "ringpost", "found in the queue: {note}");
            }
            tracing::info!(
                target: "ringpost",
                log = %dir,
                queued = report.messages,
                segments = report.segments,
                checkpoints = report.checkpoints,
                ms = began.elapsed().as_millis() as u64,
                "queue read"
            );
            Ok(())
        }
        // The server was stopped meanwhile.
        Err(QueueError::Poisoned(_)) => Ok(()),
        Err(error) => {
            let why = format!("{dir}: {error}");
            tracing::error!(
                target: "ringpost",
                "the queue cannot be read, what was queued before the start is not delivered: {why}; \
                 repair it and restart ringpost"
            );
            Err(why)
        }
    }
}

/// Numbers of the logs under `data_dir` that shard `me` of `shards` opens.
fn numbers(data_dir: &Path, me: ShardId, shards: u16) -> io::Result<Vec<ShardId>> {
    let mut numbers = vec![me];
    for entry in fs::read_dir(data_dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("log-")?.parse().ok());
        let Some(number) = number.map(ShardId) else { continue };
        if number.0 >= shards && number.0 % shards == me.0 {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// What an operator should know of a recovery.
fn notes(dir: &str, adopted: bool, report: &RecoveryReport) -> Vec<String> {
    let mut notes = Vec::new();
    if adopted && report.messages > 0 {
        notes.push(format!(
            "{dir}: adopted, with {} messages, from a core this server no longer uses",
            report.messages
        ));
    }
    for damage in &report.damage {
        notes.push(format!(
            "{dir}: {damage}; the segment is kept as it is, inspect it with ringpost-segments"
        ));
    }
    for segment in &report.missing {
        notes.push(format!(
            "{dir}: {segment:08x}.seg is missing: it was in use when the server ran last, and the \
             mail in it is lost unless the file is brought back (stop ringpost, put it there, start)"
        ));
    }
    for (segment, why) in &report.bad_checkpoints {
        notes.push(format!(
            "{dir}: the checkpoint {segment:08x}.idx is {why}; its segment was read instead, and the \
             checkpoint written anew"
        ));
    }
    for (name, why) in &report.foreign {
        notes.push(format!("{dir}: the file {name} was left alone: {why}"));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_log_is_opened_by_exactly_one_shard() {
        let dir = tempfile::tempdir().unwrap();
        for log in 0..7 {
            fs::create_dir(log_dir(dir.path(), ShardId(log))).unwrap();
        }
        fs::create_dir(dir.path().join("log-x")).unwrap();
        for shards in 1..9 {
            let mut all: Vec<_> = (0..shards)
                .flat_map(|me| numbers(dir.path(), ShardId(me), shards).unwrap())
                .collect();
            all.sort_unstable();
            let expected: Vec<_> = (0..shards.max(7)).map(ShardId).collect();
            assert_eq!(all, expected, "{shards} shards");
        }
    }
}
