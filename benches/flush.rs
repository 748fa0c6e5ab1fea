//! What making a batch durable costs on a real disk: `fdatasync` after the write
//! against `O_DSYNC`, one batch in flight against two, blocks that were never
//! written against written ones, for batches of 1, 16 and 100 messages of 4 KiB;
//! then what filling a segment with zeroes costs, and what it does to a commit
//! beside it. The ways alternate in one run.
//!
//! It works in the directory that `RINGPOST_BENCH_DIR` names, by default one under
//! `target`. Of criterion's options `--measurement-time` is how many seconds each
//! way is measured in all and `--sample-size` in how many turns, at least 0.2 s
//! each; the others mean nothing here. Run as a test it has one short turn.

mod support;

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_lite::future;
use ringpost::io::executor::{run_pinned, spawn, yield_now};
use ringpost::io::store::{BLOCK, OpenMode, Store, StoreFile};
use ringpost::io::uring::{UringFile, UringStore};
use support::arguments::{Arguments, directory};

const SEGMENT: u64 = 64 << 20;
/// Bytes of a message of 4 KiB in the log: envelope, trace, framing.
const MESSAGE: usize = 4096 + 460;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Way {
    mode: OpenMode,
    written: bool,
    in_flight: usize,
    messages: usize,
}

struct Plan {
    dir: PathBuf,
    turns: usize,
    /// How long one way is measured in one turn.
    span: Duration,
}

/// What was seen of one way.
#[derive(Default)]
struct Seen {
    micros: Vec<u64>,
    elapsed: Duration,
}

impl Seen {
    fn quantile(&mut self, share: f64) -> u64 {
        self.micros.sort_unstable();
        let last = self.micros.len().saturating_sub(1);
        self.micros.get((last as f64 * share) as usize).copied().unwrap_or(0)
    }

    fn per_second(&self, messages: usize) -> f64 {
        (self.micros.len() * messages) as f64 / self.elapsed.as_secs_f64()
    }
}

fn plan() -> Plan {
    let arguments = Arguments::read();
    let option = |name: &str| arguments.number(name);
    let dir = directory();
    if !arguments.is_bench() {
        return Plan { dir, turns: 1, span: Duration::from_millis(2) };
    }
    let total = option("--measurement-time").unwrap_or(3.0);
    // Each turn takes a new file, which takes longer than little measuring.
    let turns = option("--sample-size").unwrap_or(10.0).min(total / 0.2).max(1.0).ceil();
    Plan { dir, turns: turns as usize, span: Duration::from_secs_f64(total / turns) }
}

/// A file of a segment's size: allocated, and if `written` also overwritten.
async fn make(store: &UringStore, name: &str, written: bool) -> UringFile {
    let file = store.open(name, OpenMode::CreateNew).await.expect("a new file");
    file.allocate(SEGMENT).await.expect("room");
    if written {
        fill(&file, 1 << 20).await;
    }
    file.sync().await.expect("flushed");
    file
}

/// Writes zeroes over the whole file in steps.
async fn fill(file: &UringFile, step: usize) {
    for at in (0..SEGMENT).step_by(step) {
        let mut buf = file.alloc(step);
        buf.fill(0);
        file.write_at(buf, step, at).await.expect("written");
        yield_now().await;
    }
}

/// Commits batches until `until` or the end of the file; every lane takes the
/// next place when its batch is durable.
async fn commit(
    file: Rc<UringFile>,
    next: Rc<std::cell::Cell<u64>>,
    len: usize,
    until: Instant,
) -> Vec<u64> {
    let mut micros = Vec::new();
    while Instant::now() < until && next.get() + len as u64 <= SEGMENT {
        let at = next.replace(next.get() + len as u64);
        let mut buf = file.alloc(len);
        buf.fill(at as u8 | 1);
        let begun = Instant::now();
        file.write_at(buf, len, at).await.expect("written");
        file.sync().await.expect("flushed");
        micros.push(begun.elapsed().as_micros() as u64);
    }
    micros
}

/// One turn of one way, on a file of its own.
async fn turn(store: &UringStore, way: Way, span: Duration, seen: &mut Seen) {
    make(store, "bench", way.written).await.close().await;
    let file = Rc::new(store.open("bench", way.mode).await.expect("opened"));
    file.sync().await.expect("flushed");
    let len = (way.messages * MESSAGE).next_multiple_of(BLOCK);
    let next = Rc::new(std::cell::Cell::new(0));
    let begun = Instant::now();
    let lane = || spawn(commit(Rc::clone(&file), Rc::clone(&next), len, begun + span));
    let lanes: Vec<_> = (0..way.in_flight).map(|_| lane()).collect();
    for lane in lanes {
        seen.micros.extend(lane.await);
    }
    seen.elapsed += begun.elapsed();
    Rc::into_inner(file).expect("all lanes have ended").close().await;
    store.remove("bench").await.expect("removed");
}

async fn flushes(store: &UringStore, plan: &Plan) {
    let mut ways = Vec::new();
    for messages in [1, 16, 100] {
        for written in [false, true] {
            for in_flight in [1, 2] {
                for mode in [OpenMode::Write, OpenMode::WriteThrough] {
                    ways.push((Way { mode, written, in_flight, messages }, Seen::default()));
                }
            }
        }
    }
    for _ in 0..plan.turns {
        for (way, seen) in &mut ways {
            turn(store, *way, plan.span, seen).await;
        }
    }
    println!("| messages a batch | blocks | in flight | flush | p50, µs | p99, µs | messages/s |");
    println!("|---|---|---|---|---|---|---|");
    for (way, seen) in &mut ways {
        println!(
            "| {} | {} | {} | {} | {} | {} | {:.0} |",
            way.messages,
            if way.written { "written before" } else { "new" },
            way.in_flight,
            if way.mode == OpenMode::Write { "fdatasync" } else { "O_DSYNC" },
            seen.quantile(0.5),
            seen.quantile(0.99),
            seen.per_second(way.messages)
        );
    }
}

/// How long filling takes alone, and what commits beside it see.
async fn filling(store: &UringStore, plan: &Plan) {
    println!(
        "\n| filling 64 MiB | takes, ms | commit beside it: p50, µs | p99, µs |\n|---|---|---|---|"
    );
    let turns = plan.turns.div_ceil(3);
    let mut quiet = Seen::default();
    let beside = Way { mode: OpenMode::WriteThrough, written: true, in_flight: 1, messages: 16 };
    for _ in 0..turns {
        turn(store, beside, plan.span, &mut quiet).await;
    }
    println!("| not at all | | {} | {} |", quiet.quantile(0.5), quiet.quantile(0.99));
    for (step, mode) in [
        (64 << 10, OpenMode::WriteThrough),
        (256 << 10, OpenMode::WriteThrough),
        (256 << 10, OpenMode::Write),
        (1 << 20, OpenMode::WriteThrough),
        (1 << 20, OpenMode::Write),
    ] {
        let (mut alone, mut seen) = (Seen::default(), Seen::default());
        for _ in 0..turns {
            make(store, "fill", false).await.close().await;
            let file = store.open("fill", mode).await.expect("opened");
            let begun = Instant::now();
            fill(&file, step).await;
            file.sync().await.expect("flushed");
            alone.micros.push(begun.elapsed().as_micros() as u64);
            file.close().await;
            store.remove("fill").await.expect("removed");

            make(store, "fill", false).await.close().await;
            let file = store.open("fill", mode).await.expect("opened");
            let filled = async {
                fill(&file, step).await;
                // The commits go on; the end of their span ends the turn.
                future::pending::<()>().await;
            };
            future::or(turn(store, beside, plan.span, &mut seen), filled).await;
            file.close().await;
            store.remove("fill").await.expect("removed");
        }
        println!(
            "| {} KiB at a time, {} | {} | {} | {} |",
            step >> 10,
            if mode == OpenMode::Write { "one flush" } else { "each flushed" },
            alone.quantile(0.5) / 1000,
            seen.quantile(0.5),
            seen.quantile(0.99)
        );
    }
}

fn main() {
    let plan = plan();
    let dir = tempfile::tempdir_in(&plan.dir).expect("a directory to work in");
    let path = Path::to_path_buf(dir.path());
    // Pinned, as shards are: an executor that wanders between CPUs finds out late
    // about completions that arrive on another.
    let run = run_pinned("bench", Some(0), move || async move {
        let store = UringStore::new(path).through_up_to(usize::MAX);
        println!("{}: {:?}\n", store.describe(), store.access().await.expect("a probe"));
        flushes(&store, &plan).await;
        filling(&store, &plan).await;
    });
    run.expect("an executor").join().expect("no panic");
}
