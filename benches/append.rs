//! What the queue costs a message: envelope, framing, checksum and the one copy
//! of the body, index, commit and outcome. First over a store in memory, without
//! a disk; then appending and committing alone, with 1, 16 and 256 messages that
//! wait for one flush, in memory and on a disk.
//!
//! The disk is that of the directory which `RINGPOST_BENCH_DIR` names, by default
//! one under `target`.

mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_lite::future;
use ringpost::base::UnixMillis;
use ringpost::io::executor::{run_pinned, spawn};
use ringpost::io::memory::MemoryStore;
use ringpost::io::store::Store;
use ringpost::io::uring::UringStore;
use ringpost::queue::{Queue, QueueOptions};
use support::log::{accept, envelope, settle};

/// Messages that share a flush, as with a hundred busy connections.
const TOGETHER: u64 = 100;
/// Messages that wait for one flush when appending and committing is measured
/// alone.
const WAITING: [u64; 3] = [1, 16, 256];
const SIZE: usize = 4096;

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append, commit and settle");
    for size in [1024, SIZE, 32 * 1024, 100 * 1024] {
        let body = vec![b'x'; size];
        let envelope = envelope();
        let options = QueueOptions { segment_size: 16 << 20, ..QueueOptions::default() };
        let open = Queue::open(MemoryStore::untracked(), options, UnixMillis(0));
        let (queue, _) = future::block_on(open).expect("memory opens");
        let mut commits = Box::pin(queue.clone().run_commits());
        group.throughput(Throughput::Elements(TOGETHER));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                let work =
                    async { settle(&queue, &accept(&queue, &envelope, &body, TOGETHER).await) };
                let commits = async { commits.as_mut().await };
                future::block_on(future::or(work, commits));
            });
        });
    }
    group.finish();
}

/// How long `rounds` rounds of appending `count` messages and waiting for them
/// take. They are settled outside the time, by outcomes that go with the next
/// round's flush, as they do under load.
async fn rounds<S: Store>(queue: &Queue<S>, count: u64, rounds: u64) -> Duration {
    let (envelope, body) = (envelope(), vec![b'x'; SIZE]);
    let mut spent = Duration::ZERO;
    for _ in 0..rounds {
        let begun = Instant::now();
        let ids = accept(queue, &envelope, &body, count).await;
        spent += begun.elapsed();
        settle(queue, &ids);
    }
    spent
}

/// Answers each request, how many messages and rounds, with the time they took.
async fn serve<S: Store>(store: S, requests: Receiver<(u64, u64)>, answers: Sender<Duration>) {
    let options = QueueOptions { outcomes_wait: true, reserve: 0, ..QueueOptions::default() };
    let (queue, _) = Queue::open(store, options, UnixMillis(0)).await.expect("a log");
    let commits = spawn(queue.clone().run_commits());
    while let Ok((count, times)) = requests.recv().await {
        let spent = rounds(&queue, count, times).await;
        answers.send(spent).await.expect("somebody waits");
    }
    queue.close();
    commits.await;
}

fn commit(criterion: &mut Criterion) {
    let base = std::env::var_os("RINGPOST_BENCH_DIR");
    let base = base.map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let dir = tempfile::tempdir_in(base).expect("a directory to work in");
    for on_disk in [false, true] {
        let name = if on_disk { "append and commit, disk" } else { "append and commit, memory" };
        let mut group = criterion.benchmark_group(name);
        let (ask, requests) = async_channel::bounded(1);
        let (answers, answer) = async_channel::bounded(1);
        let path = dir.path().to_path_buf();
        let executor = run_pinned("bench", Some(0), move || async move {
            if on_disk {
                serve(UringStore::new(path), requests, answers).await;
            } else {
                serve(MemoryStore::untracked(), requests, answers).await;
            }
        });
        let executor = executor.expect("an executor");
        for count in WAITING {
            group.throughput(Throughput::Elements(count));
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                bencher.iter_custom(|times| {
                    ask.send_blocking((count, times)).expect("it runs");
                    answer.recv_blocking().expect("it answers")
                });
            });
        }
        ask.close();
        executor.join().expect("no panic");
        group.finish();
    }
}

criterion_group!(benches, append, commit);
criterion_main!(benches);
