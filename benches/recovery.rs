//! How fast a queue comes back after a stop, and how fast a log is cleaned, on a
//! real disk. A log of deferred messages is made by the queue itself, then opened
//! with its checkpoints and without any; the checkpoints are read alone; and a
//! log of which four messages in five have been settled is cleaned.
//!
//! While what is queued is read, a task wants to run every millisecond, as
//! sessions would: the longest that it had to wait is shown.
//!
//! It works in the directory that `RINGPOST_BENCH_DIR` names, by default one
//! under `target`. `--messages N` (50,000) of `--body BYTES` (200) are queued, the
//! log that is cleaned holds `--clean MIB` (512) of 4 KiB messages. Of criterion's
//! options `--sample-size` is how many times each is measured at most, and
//! `--measurement-time` the seconds after which it is not measured again. Run as a
//! test it does everything once and with little.

mod support;

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringpost::base::{Disposition, EnhancedCode, Envelope, Outcome, QueueId, Reply, UnixMillis};
use ringpost::io::executor::{Task, run_pinned, sleep, spawn};
use ringpost::io::store::{OpenMode, Store, StoreFile};
use ringpost::io::uring::{Access, UringStore};
use ringpost::queue::checkpoint::Checkpoint;
use ringpost::queue::fact::What;
use ringpost::queue::format::{DATA_START, FileName, SegmentHeader, checkpoint_name, segment_name};
use ringpost::queue::{Queue, QueueCounters, QueueOptions};
use support::arguments::{Arguments, directory};

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
/// Messages that wait for one flush while a log is made.
const TOGETHER: u64 = 512;
/// Size of the messages of the log that is cleaned.
const CLEAN_BODY: usize = 4096;
/// Cleaning has ended when nothing has been moved or freed for so long.
const STILL: Duration = Duration::from_millis(500);

#[derive(Clone)]
struct Plan {
    dir: PathBuf,
    messages: u64,
    body: usize,
    clean_bytes: u64,
    turns: usize,
    span: Duration,
}

fn plan() -> Plan {
    let arguments = Arguments::read();
    let option = |name: &str| arguments.number(name);
    let dir = directory();
    let bench = arguments.is_bench();
    let (messages, clean) = if bench { (50_000.0, 512.0) } else { (2000.0, 16.0) };
    Plan {
        dir,
        messages: option("--messages").unwrap_or(messages) as u64,
        body: option("--body").unwrap_or(200.0) as usize,
        clean_bytes: (option("--clean").unwrap_or(clean) * f64::from(1 << 20)) as u64,
        turns: if bench { option("--sample-size").unwrap_or(5.0) as usize } else { 1 },
        span: Duration::from_secs_f64(option("--measurement-time").unwrap_or(5.0)),
    }
}

fn options() -> QueueOptions {
    QueueOptions { outcomes_wait: true, reserve: 0, ..QueueOptions::default() }
}

/// Numbers without a pattern, the same in every run.
fn scattered(seed: u64) -> u64 {
    let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn outcome(disposition: Disposition, next_ms: u64) -> Outcome {
    Outcome {
        recipient: 0,
        disposition,
        reply: Reply::new(451, EnhancedCode(4, 3, 0), "Temporary local problem"),
        host: "192.0.2.1:25".into(),
        at: NOW,
        attempts: 1,
        next_attempt: UnixMillis(next_ms),
        security: None,
    }
}

/// Queues messages, each deferred once to some time in the next four hours.
async fn fill(dir: &Path, messages: u64, body: usize) {
    let (queue, _) = Queue::open(UringStore::new(dir), options(), NOW).await.expect("a log");
    let commits = spawn(queue.clone().run_commits());
    let envelope = Envelope {
        sender: "sender@example.com".into(),
        recipients: vec!["recipient@example.org".into()],
        arrival_ms: NOW.0,
        client: "192.0.2.7".into(),
        helo: "client.example.com".into(),
        ..Envelope::default()
    };
    let (trace, body) = ([b'r'; 150], vec![b'x'; body]);
    let mut made = 0;
    while made < messages {
        let mut last = None;
        let mut ids = Vec::with_capacity(TOGETHER as usize);
        for _ in 0..TOGETHER.min(messages - made) {
            let prefix = |_: QueueId, out: &mut Vec<u8>| out.extend_from_slice(&trace);
            let (id, commit) = queue.append(&envelope, prefix, &[&body]).expect("room");
            ids.push(id);
            last = Some(commit);
        }
        last.expect("one at least").await.expect("durable");
        for id in ids {
            let next_ms = NOW.0 + scattered(made) % 14_400_000;
            let word = [outcome(Disposition::Deferred, next_ms)];
            drop(queue.record(id, &word).expect("room"));
            made += 1;
        }
    }
    queue.close();
    commits.await;
}

/// Bytes of the files of a log with this ending.
fn bytes_of(dir: &Path, ending: &str) -> u64 {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry"));
    let of_it = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(ending));
    of_it.map(|entry| entry.metadata().expect("a file").len()).sum()
}

fn remove_checkpoints(dir: &Path) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|ending| ending == "idx") {
            fs::remove_file(path).expect("removed");
        }
    }
}

/// Makes reads go to the disk, as after a reboot. Direct I/O does so anyway; for
/// a filesystem without, only root can have the page cache dropped.
async fn drop_page_cache(store: &UringStore) {
    if store.access().await.is_ok_and(|access| access == Access::Buffered) {
        let dropped = fs::write("/proc/sys/vm/drop_caches", "1");
        dropped.unwrap_or_else(|error| println!("read from the page cache: {error}"));
    }
}

/// The longest that the executor kept a task waiting that wants to run every
/// millisecond.
struct Ticks {
    longest: Rc<Cell<Duration>>,
    task: Task<()>,
}

impl Ticks {
    fn start() -> Self {
        let longest = Rc::new(Cell::new(Duration::ZERO));
        let seen = Rc::clone(&longest);
        let task = spawn(async move {
            loop {
                let before = Instant::now();
                sleep(Duration::from_millis(1)).await;
                let late = before.elapsed().saturating_sub(Duration::from_millis(1));
                seen.set(seen.get().max(late));
            }
        });
        Ticks { longest, task }
    }

    async fn stop(self) -> Duration {
        // It has to run once more to see the end of a long wait.
        sleep(Duration::from_millis(3)).await;
        self.task.cancel().await;
        self.longest.get()
    }
}

/// What was measured, time by time.
#[derive(Default)]
struct Seen(Vec<f64>);

impl Seen {
    /// Median and range.
    fn show(&mut self, digits: usize) -> String {
        self.0.sort_by(f64::total_cmp);
        let at = |index: usize| self.0.get(index).copied().unwrap_or(f64::NAN);
        let (median, last) = (at(self.0.len() / 2), at(self.0.len().saturating_sub(1)));
        format!("{median:.digits$} ({:.digits$}-{last:.digits$})", at(0))
    }
}

#[derive(Default)]
struct Starts {
    begin: Seen,
    finish: Seen,
    messages: Seen,
    gigabytes: Seen,
    held: Seen,
}

/// Opens the log once, as a start does.
async fn start(plan: &Plan, dir: &Path, with_checkpoints: bool, starts: &mut Starts) {
    if !with_checkpoints {
        remove_checkpoints(dir);
    }
    let store = UringStore::new(dir);
    drop_page_cache(&store).await;
    let begun = Instant::now();
    let begin = Queue::begin(store, options()).await;
    let (queue, loading) = begin.expect("it opens");
    starts.begin.0.push(begun.elapsed().as_secs_f64() * 1e3);
    let ticks = Ticks::start();
    let begun = Instant::now();
    let report = loading.finish(NOW).await.expect("it can be read");
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!((report.messages, queue.live() as u64), (plan.messages, plan.messages));
    assert!(report.damage.is_empty() && report.missing.is_empty(), "{report:?}");
    starts.held.0.push(ticks.stop().await.as_secs_f64() * 1e3);
    starts.finish.0.push(seconds * 1e3);
    starts.messages.0.push(plan.messages as f64 / seconds / 1e6);
    // The newest was read when it began.
    let bytes = report.segments.saturating_sub(1) * u64::from(options().segment_size);
    starts.gigabytes.0.push(bytes as f64 / seconds / 1e9);
}

async fn starting(plan: &Plan, dir: &Path) {
    let (mut with, mut without) = (Starts::default(), Starts::default());
    let begun = Instant::now();
    for turn in 0..plan.turns.max(1) {
        if turn > 0 && begun.elapsed() > plan.span {
            break;
        }
        start(plan, dir, true, &mut with).await;
        start(plan, dir, false, &mut without).await;
    }
    println!("{} messages, {} MB of segments:\n", plan.messages, bytes_of(dir, ".seg") / 1_000_000);
    println!(
        "| checkpoints | until mail is taken, ms | until all is scheduled, ms | million \
         messages/s | GB/s of segments read | longest hold of the executor, ms |\n|---|---|---|---|---|---|"
    );
    for (name, starts) in [("all", &mut with), ("none", &mut without)] {
        println!(
            "| {name} | {} | {} | {} | {} | {} |",
            starts.begin.show(0),
            starts.finish.show(0),
            starts.messages.show(2),
            if name == "none" { starts.gigabytes.show(2) } else { "-".into() },
            starts.held.show(1)
        );
    }
}

/// Reads all checkpoints: the messages in them.
async fn read_checkpoints(store: &UringStore) -> u64 {
    let mut messages = 0;
    for name in store.list().await.expect("a directory") {
        let Some(FileName::Checkpoint(number)) = FileName::parse(&name) else { continue };
        let segment = store.open(&segment_name(number), OpenMode::Read).await.expect("opened");
        let header = segment.read_at(0, DATA_START as usize).await.expect("read");
        let seal = SegmentHeader::decode(&header).expect("a header").seal();
        segment.close().await;
        let file = store.open(&checkpoint_name(number), OpenMode::Read).await.expect("opened");
        let len = file.len().await.expect("a length") as usize;
        let bytes = file.read_at(0, len).await.expect("read");
        file.close().await;
        let checkpoint = Checkpoint::decode(bytes, number, seal).expect("sound");
        let made = checkpoint.facts().filter(|fact| matches!(fact.what, What::Message(_)));
        messages += made.count() as u64;
    }
    messages
}

async fn checkpoints(plan: &Plan, dir: &Path) {
    let store = UringStore::new(dir);
    let (mut speed, mut messages) = (Seen::default(), 0);
    for _ in 0..plan.turns.max(1) {
        drop_page_cache(&store).await;
        let begun = Instant::now();
        messages = read_checkpoints(&store).await;
        speed.0.push(messages as f64 / begun.elapsed().as_secs_f64() / 1e6);
    }
    let bytes = bytes_of(dir, ".idx");
    println!("\n| checkpoints alone: million messages/s | bytes a message, deferred once |");
    println!("|---|---|");
    println!("| {} | {:.1} |", speed.show(2), bytes as f64 / messages.max(1) as f64);
}

/// Cleans until nothing moves any more: how long that took.
async fn clean(queue: &Queue<UringStore>) -> Duration {
    let progress = |counters: QueueCounters| (counters.messages_moved, counters.segments_freed);
    let begun = Instant::now();
    let (mut last, mut seen) = (begun, progress(queue.counters()));
    while last.elapsed() < STILL {
        queue.allow_cleaning(u64::MAX);
        sleep(Duration::from_millis(1)).await;
        let now = progress(queue.counters());
        if now != seen {
            (last, seen) = (Instant::now(), now);
        }
    }
    last - begun
}

async fn cleaning(plan: &Plan, base: &Path) {
    let mut columns: [Seen; 4] = Default::default();
    let begun = Instant::now();
    for turn in 0..plan.turns.max(1) {
        if turn > 0 && begun.elapsed() > plan.span {
            break;
        }
        let dir = base.join(format!("clean-{turn}"));
        fs::create_dir(&dir).expect("a directory");
        fill(&dir, plan.clean_bytes / CLEAN_BODY as u64, CLEAN_BODY).await;
        // Opened again, the log is cleaned as far as is allowed and no further.
        let open = Queue::open(UringStore::new(&*dir), options(), NOW).await;
        let (queue, _) = open.expect("it opens");
        let commits = spawn(queue.clone().run_commits());
        let ids = queue.ids_after(None, usize::MAX);
        let mut last = None;
        for (index, id) in ids.into_iter().enumerate() {
            if !scattered(index as u64).is_multiple_of(5) {
                let word = [outcome(Disposition::Delivered, 0)];
                last = Some(queue.record(id, &word).expect("room"));
            }
        }
        queue.nudge();
        last.expect("some are settled").await.expect("durable");
        let before = (queue.counters(), queue.segments());
        let seconds = clean(&queue).await.as_secs_f64();
        let (after, segments) = (queue.counters(), queue.segments());
        let freed = after.segments_freed - before.0.segments_freed;
        let written = (after.bytes_written - before.0.bytes_written) as f64;
        columns[0].0.push((after.bytes_moved - before.0.bytes_moved) as f64 / seconds / 1e6);
        columns[1].0.push(freed as f64 / seconds);
        columns[2].0.push(written / (freed * segments.segment_size).max(1) as f64);
        columns[3].0.push(segments.in_use as f64 / before.1.in_use as f64);
        queue.close();
        commits.await;
        fs::remove_dir_all(&dir).expect("removed");
    }
    println!(
        "\n| cleaning {} MiB, 80 % settled: MB/s moved | segments freed/s | bytes written for \
         each byte freed | of the segments remain |\n|---|---|---|---|",
        plan.clean_bytes >> 20
    );
    let [moved, freed, written, remain] = &mut columns;
    println!(
        "| {} | {} | {} | {} |",
        moved.show(0),
        freed.show(1),
        written.show(2),
        remain.show(2)
    );
}

fn main() {
    let plan = plan();
    let base = tempfile::tempdir_in(&plan.dir).expect("a directory to work in");
    let path = base.path().to_path_buf();
    let run = run_pinned("bench", Some(0), move || async move {
        let dir = path.join("log");
        fs::create_dir(&dir).expect("a directory");
        let access = UringStore::new(&*dir).access().await.expect("a probe");
        let begun = Instant::now();
        fill(&dir, plan.messages, plan.body).await;
        println!(
            "{}: {access:?}; {} messages of {} bytes queued in {:.1} s\n",
            dir.display(),
            plan.messages,
            plan.body,
            begun.elapsed().as_secs_f64()
        );
        let ticks = Ticks::start();
        sleep(Duration::from_millis(200)).await;
        println!(
            "longest hold of an idle executor: {:.1} ms\n",
            ticks.stop().await.as_secs_f64() * 1e3
        );
        starting(&plan, &dir).await;
        checkpoints(&plan, &dir).await;
        cleaning(&plan, &path).await;
    });
    run.expect("an executor").join().expect("no panic");
}
