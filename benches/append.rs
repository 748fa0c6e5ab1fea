//! What the queue itself costs a message: envelope, framing, checksum and the
//! one copy of the body, index and outcome, over a store in memory. No disk.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_lite::future;
use ringpost::base::{Disposition, EnhancedCode, Envelope, Outcome, QueueId, Reply, UnixMillis};
use ringpost::io::memory::MemoryStore;
use ringpost::queue::{Queue, QueueOptions};

/// Messages that share a flush, as with a hundred busy connections.
const TOGETHER: u64 = 100;

fn envelope() -> Envelope {
    Envelope {
        sender: "sender@example.com".into(),
        recipients: vec!["recipient@example.org".into()],
        arrival_ms: 1_700_000_000_000,
        client: "192.0.2.7".into(),
        helo: "client.example.com".into(),
        ..Envelope::default()
    }
}

fn delivered() -> Outcome {
    Outcome {
        recipient: 0,
        disposition: Disposition::Delivered,
        reply: Reply::new(250, EnhancedCode(2, 0, 0), "Ok: queued as 0000G00080001000"),
        host: "192.0.2.1:25".into(),
        at: UnixMillis(1_700_000_000_500),
        attempts: 1,
        next_attempt: UnixMillis(0),
    }
}

async fn accept_and_settle(queue: &Queue<MemoryStore>, envelope: &Envelope, body: &[u8]) {
    let trace = [b'r'; 150];
    let mut ids: Vec<QueueId> = Vec::with_capacity(TOGETHER as usize);
    let mut last = None;
    for _ in 0..TOGETHER {
        let prefix = |_: QueueId, out: &mut Vec<u8>| out.extend_from_slice(&trace);
        let (id, commit) = queue.append(envelope, prefix, &[black_box(body)]).expect("room");
        ids.push(id);
        last = Some(commit);
    }
    last.expect("one at least").await.expect("memory does not fail");
    let outcome = [delivered()];
    for id in ids {
        drop(queue.record(id, &outcome).expect("room"));
    }
}

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append, commit and settle");
    for size in [1024, 4096, 32 * 1024, 100 * 1024] {
        let body = vec![b'x'; size];
        let envelope = envelope();
        let options = QueueOptions { segment_size: 16 << 20, ..QueueOptions::default() };
        let open = Queue::open(MemoryStore::untracked(), options, UnixMillis(0));
        let (queue, _) = future::block_on(open).expect("memory opens");
        let mut commits = Box::pin(queue.clone().run_commits());
        group.throughput(Throughput::Elements(TOGETHER));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                let work = accept_and_settle(&queue, &envelope, &body);
                let commits = async { commits.as_mut().await };
                future::block_on(future::or(work, commits));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
