//! What it brings that a short message goes in one chunk ahead of the replies to its
//! envelope (`delivery.chunking`): two servers, one that may and one that may not, take
//! messages of 4 KiB and send them on.
//!
//! *A lone message* goes over a wire of 20 ms there and back; the servers have one in
//! turn, on kept connections. *Flat out* they have many at a time, over a hundred
//! connections, to a next hop on this machine; turns of one and the other.
//!
//! The servers have CPU 0, client and next hop the last. They work in the directory that
//! `RINGPOST_BENCH_DIR` names, by default one under `target`. `--lone N` (100) messages
//! go by themselves, and turns of `--messages N` (20,000) flat out; of those there are
//! `--sample-size` at most (6), and none begins after `--measurement-time` seconds (60).
//! Run as a test it does everything once and with little.

mod support;

#[path = "carriage/client.rs"]
mod client;
#[path = "carriage/hop.rs"]
mod hop;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use ringpost::io::executor::run_pinned;
use ringpost::io::process::{allowed_cpus, raise_open_files};

use client::{Client, SIZE, Server, send};
use hop::{Taken, start_hop, start_wire};
use support::arguments::{Arguments, directory};

/// Half of the wire's round trip.
const DELAY: Duration = Duration::from_millis(10);
/// Connections of those who send flat out.
const CONNECTIONS: usize = 100;
/// How long a message or a turn may take.
const PATIENCE: Duration = Duration::from_secs(120);

struct Plan {
    dir: PathBuf,
    lone: u64,
    messages: u64,
    turns: usize,
    span: Duration,
}

fn plan() -> Plan {
    let arguments = Arguments::read();
    let option = |name: &str| arguments.number(name);
    let dir = directory();
    // A short measurement is one that CI asks for.
    let span = option("--measurement-time").unwrap_or(60.0);
    let bench = arguments.is_bench() && span >= 1.0;
    let (lone, messages) = if bench { (100.0, 20_000.0) } else { (5.0, 500.0) };
    Plan {
        dir,
        lone: option("--lone").unwrap_or(lone).max(1.0) as u64,
        messages: option("--messages").unwrap_or(messages).max(1.0) as u64,
        turns: if bench { option("--sample-size").unwrap_or(6.0).max(1.0) as usize } else { 1 },
        span: Duration::from_secs_f64(span),
    }
}

/// Milliseconds from when a server had a message until it had the reply of the next hop:
/// with chunks and without.
fn lone(plan: &Plan, cpus: &[usize]) -> [Vec<f64>; 2] {
    let work = tempfile::tempdir_in(&plan.dir).expect("a directory to work in");
    let last = cpus[cpus.len() - 1];
    let (messages, first) = (plan.lone, cpus[0]);
    let ways = [true, false].map(|chunking| {
        let (hop, taken) = start_hop(last);
        let (wire, delivered) = start_wire(hop, DELAY);
        let data = work.path().join(chunking.to_string());
        (Server::start(&data, first, wire, chunking), taken, delivered)
    });
    let addresses = ways.each_ref().map(|(server, ..)| server.address);
    let arrivals = ways.each_ref().map(|(_, _, delivered)| Arc::clone(delivered));
    let run = run_pinned("client", Some(last), move || async move {
        let mut clients = [Client::open(addresses[0]).await, Client::open(addresses[1]).await];
        let mut seen = [Vec::new(), Vec::new()];
        // The first of each has a connection made for it.
        for number in 1..=messages + 1 {
            for ((client, delivered), seen) in clients.iter_mut().zip(&arrivals).zip(&mut seen) {
                client.begin().await;
                let begun = Instant::now();
                client.finish().await;
                delivered.wait(number, PATIENCE);
                if number > 1 {
                    seen.push(begun.elapsed().as_secs_f64() * 1e3);
                }
            }
        }
        seen
    });
    let seen = run.expect("an executor").join().expect("no panic");
    let [(_, with, _), (_, without, _)] = &ways;
    let all = messages + 1;
    assert_eq!((in_chunks(with), with.all()), (all, all), "each went in a chunk");
    assert_eq!((in_chunks(without), without.all()), (0, all), "none did");
    seen
}

fn in_chunks(taken: &Taken) -> u64 {
    taken.by_chunks.load(Ordering::Relaxed)
}

/// What a turn came to: messages a second, CPU seconds for 1,000, the share in chunks.
type Turn = [f64; 3];

/// Turns flat out, with chunks and without.
fn flat_out(plan: &Plan, cpus: &[usize]) -> Vec<[Turn; 2]> {
    let work = tempfile::tempdir_in(&plan.dir).expect("a directory to work in");
    let last = cpus[cpus.len() - 1];
    let ways = [true, false].map(|chunking| {
        let (hop, taken) = start_hop(last);
        let data = work.path().join(chunking.to_string());
        (Server::start(&data, cpus[0], hop, chunking), taken)
    });
    let turn = |(server, taken): &(Server, Arc<Taken>)| -> Turn {
        let (before, chunks, cpu) = (taken.all(), in_chunks(taken), server.cpu_s());
        let (begun, messages, address) = (Instant::now(), plan.messages, server.address);
        let run = run_pinned("clients", Some(last), move || send(address, messages, CONNECTIONS));
        run.expect("an executor").join().expect("no panic");
        while taken.all() < before + messages {
            assert!(begun.elapsed() < PATIENCE, "not all were delivered");
            thread::sleep(Duration::from_micros(100));
        }
        let each = |value: f64| value / messages as f64;
        let seconds = begun.elapsed().as_secs_f64();
        let cpu = each((server.cpu_s() - cpu) * 1000.0);
        [1.0 / each(seconds), cpu, each((in_chunks(taken) - chunks) as f64)]
    };
    // Makes connections, grows what grows.
    ways.iter().for_each(|way| {
        turn(way);
    });
    let (begun, mut turns) = (Instant::now(), Vec::new());
    while turns.is_empty() || turns.len() < plan.turns && begun.elapsed() < plan.span {
        // Who comes first changes, so that none always has the other behind it.
        turns.push(match turns.len() % 2 {
            0 => [turn(&ways[0]), turn(&ways[1])],
            _ => {
                let without = turn(&ways[1]);
                [turn(&ways[0]), without]
            }
        });
    }
    turns
}

/// Median and range.
fn show(values: impl Iterator<Item = f64>) -> String {
    let mut seen: Vec<f64> = values.collect();
    seen.sort_by(f64::total_cmp);
    let digits = match seen[0] {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    let (median, last) = (seen[seen.len() / 2], seen[seen.len() - 1]);
    format!("{median:.digits$} ({:.digits$}-{last:.digits$})", seen[0])
}

fn main() {
    let plan = plan();
    raise_open_files().expect("a limit");
    let cpus = allowed_cpus().expect("the CPUs");
    let [with, without] = lone(&plan, &cpus);
    let turns = flat_out(&plan, &cpus);
    println!(
        "Messages of {SIZE} bytes; {} by themselves, {} turns of {} over {CONNECTIONS} connections; \
         median and range:\n",
        plan.lone,
        turns.len(),
        plan.messages
    );
    println!("| | with chunks | without | ratio, turn by turn |\n|---|---|---|---|");
    let ratios = with.iter().zip(&without).map(|(with, without)| with / without);
    let ratios = show(ratios);
    let (with, without) = (show(with.into_iter()), show(without.iter().copied()));
    println!("| a lone message, arrival to delivered, ms | {with} | {without} | {ratios} |");
    for (at, name) in ["messages/s", "CPU s for 1,000"].into_iter().enumerate() {
        let [with, without] = [0, 1].map(|way: usize| show(turns.iter().map(|turn| turn[way][at])));
        let ratio = show(turns.iter().map(|[with, without]| with[at] / without[at]));
        println!("| flat out, {name} | {with} | {without} | {ratio} |");
    }
    let shares = show(turns.iter().map(|turn| turn[0][2]));
    println!("| flat out, share in chunks | {shares} | 0 | |");
}
