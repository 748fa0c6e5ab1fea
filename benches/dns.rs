//! What the resolver of a shard costs: an answer from the cache, a look-up of a
//! new name over loopback with 1, 64 and 256 under way, and the memory of an
//! entry. `cargo bench --bench dns`.
//!
//! The server that answers runs on another thread; the processor time of the
//! resolver's own is told apart. Of criterion's options `--measurement-time` is how
//! many seconds each figure is measured; the others mean nothing here.

use std::hint::black_box;
use std::time::{Duration, Instant};

use ringpost::config::Dns;
use ringpost::io::dns::{DnsOptions, Resolver};
use ringpost::io::executor::{run_pinned, spawn};

#[allow(dead_code, reason = "shared with tests")]
#[path = "../tests/support/dns.rs"]
mod server;

use server::{Answer, DnsServer};

/// Entries of a full cache.
const ENTRIES: usize = 64 << 10;
/// Answers from the cache between two looks at the clock.
const ROUND: u32 = 10_000;

fn span() -> Duration {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--measurement-time");
    let seconds = arguments.nth(1).and_then(|seconds| seconds.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or(3.0))
}

/// Time that this thread ran on a processor.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux has it");
    let nanos = text.split_whitespace().next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanos.expect("schedstat begins with nanoseconds"))
}

/// Bytes of the process in RAM.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages = text.split_whitespace().nth(1).and_then(|word| word.parse::<usize>().ok());
    pages.expect("statm has numbers") * 4096
}

/// Looks new names up for a while, `width` at a time; `names` is the first number
/// that was not used yet.
async fn look_up(resolver: &Resolver, width: usize, span: Duration, names: &mut usize) {
    let (began, ran_before) = (Instant::now(), processor_time());
    let (first, timeouts_before) = (*names, resolver.figures().timeouts);
    let mut tasks = std::collections::VecDeque::new();
    while began.elapsed() < span || !tasks.is_empty() {
        while tasks.len() < width && began.elapsed() < span {
            let (resolver, name) = (resolver.clone(), format!("domain{names}.example"));
            *names += 1;
            tasks.push_back(spawn(async move { resolver.mx(&name).await.result.is_ok() }));
        }
        if let Some(task) = tasks.pop_front() {
            assert!(task.await);
        }
    }
    let (count, elapsed) = (*names - first, began.elapsed());
    let processor = processor_time() - ran_before;
    println!(
        "look-up, {width:>3} at a time: {:>7.0}/s, {:>5.1} us of processor each, {} not answered at first",
        count as f64 / elapsed.as_secs_f64(),
        processor.as_secs_f64() * 1e6 / count as f64,
        resolver.figures().timeouts - timeouts_before,
    );
}

/// Fills the cache and tells what an entry takes.
async fn fill(resolver: &Resolver, names: &mut usize) {
    let before = (resident(), resolver.figures());
    let mut tasks = std::collections::VecDeque::new();
    while resolver.figures().entries < ENTRIES {
        let (resolver, name) = (resolver.clone(), format!("domain{names}.example"));
        *names += 1;
        tasks.push_back(spawn(async move { resolver.mx(&name).await.result.is_ok() }));
        if tasks.len() == 64 {
            assert!(tasks.pop_front().expect("64 of them").await);
        }
    }
    let figures = resolver.figures();
    let added = figures.entries - before.1.entries;
    println!(
        "an entry of two exchangers: {} bytes by the cache's account, {} of resident memory",
        figures.bytes / figures.entries,
        resident().saturating_sub(before.0) / added.max(1),
    );
}

/// Answers from a full cache.
fn hit(resolver: &Resolver, span: Duration, last: usize) {
    for (what, spread) in [("one name", 1), ("1,000 names", 1000), ("50,000 names", 50_000)] {
        let names: Vec<String> =
            (last - spread..last).map(|n| format!("domain{n}.example")).collect();
        let (began, mut count) = (Instant::now(), 0);
        while began.elapsed() < span {
            for _ in 0..ROUND {
                let name = &names[count * 7919 % spread];
                assert!(black_box(resolver.cached_mx(name)).is_some(), "{name}");
                count += 1;
            }
        }
        let nanos = began.elapsed().as_secs_f64() * 1e9 / count as f64;
        println!("from the cache, {what}: {nanos:.0} ns");
    }
}

fn main() {
    let span = span();
    let server = DnsServer::with(|question| {
        let (a, b) = (format!("mx1.{}", question.name), format!("mx2.{}", question.name));
        Some(Answer::mx(&[(10, &a), (20, &b)]).ttl(3600))
    });
    server.count_in_all_only();
    let dns = Dns { servers: vec![server.address], timeout: Duration::from_secs(5) };
    let resolver = run_pinned("dns", Some(0), move || async move {
        let (resolver, mut names) = (Resolver::new(DnsOptions::from(&dns)), 0);
        fill(&resolver, &mut names).await;
        hit(&resolver, span, names);
        for width in [1, 64, 256] {
            look_up(&resolver, width, span, &mut names).await;
        }
        assert!(resolver.figures().entries <= ENTRIES);
    });
    resolver.expect("an executor starts").join().expect("it does not panic");
}
