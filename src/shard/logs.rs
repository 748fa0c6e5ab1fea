//! The logs that a shard opens: its own, and those of shards that this server
//! no longer has (it was started with fewer cores than before). Log `k` of a
//! server with `n` shards is opened by shard `k mod n`; new mail goes to a
//! shard's own log only.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::base::ShardId;
use crate::io::clock;
use crate::io::uring::UringStore;
use crate::queue::{Queue, QueueOptions, RecoveryReport};

use super::{Recovered, ShardPlan};

/// The logs of a shard, by number.
pub(super) type Logs<S> = BTreeMap<ShardId, Queue<S>>;

/// The directory of a log.
pub fn log_dir(data_dir: &Path, log: ShardId) -> PathBuf {
    data_dir.join(format!("log-{:05}", log.0))
}

/// Opens and recovers the logs of a shard, its own included.
pub(super) async fn open_logs(plan: &ShardPlan) -> Result<(Logs<UringStore>, Recovered), String> {
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
    let mut logs = Logs::new();
    let mut recovered = Recovered::default();
    for log in numbers {
        let dir = log_dir(data_dir, log);
        let options = QueueOptions {
            log,
            segment_size: plan.config.queue.segment_size,
            durability: plan.config.durability,
            outcomes_wait: true,
            ..QueueOptions::default()
        };
        let (queue, report) = Queue::open(UringStore::new(dir.clone()), options, clock::wall())
            .await
            .map_err(|error| format!("cannot open the log in {}: {error}", dir.display()))?;
        recovered.messages += report.messages;
        notes(&dir, log != plan.id, &report, &mut recovered.notes);
        logs.insert(log, queue);
    }
    Ok((logs, recovered))
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
fn notes(dir: &Path, adopted: bool, report: &RecoveryReport, notes: &mut Vec<String>) {
    let dir = dir.display();
    if adopted && report.messages > 0 {
        notes.push(format!(
            "{dir}: adopted, with {} messages, from a core this server no longer uses",
            report.messages
        ));
    }
    if let Some(cut) = report.cut {
        notes.push(format!(
            "{dir}: the end of the log was torn by a crash and has been cut off in segment {} at \
             {}; nothing there had been acknowledged",
            cut.segment, cut.offset
        ));
    }
    for damage in &report.damage {
        notes.push(format!(
            "{dir}: {damage}; the segment is kept as it is, inspect it with ringpost-segments"
        ));
    }
    for (name, why) in &report.foreign {
        notes.push(format!("{dir}: the file {name} was left alone: {why}"));
    }
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
