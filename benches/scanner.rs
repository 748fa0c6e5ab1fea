//! Throughput of the DATA scanner, each variant that this machine can run,
//! against a plain search for the terminator with `memchr::memmem` (which
//! checks nothing else).
//!
//! `cargo bench --bench scanner` first prints a table of the best of many short
//! runs, which other load on the machine disturbs little, and then what
//! criterion makes of longer ones; `-- Avx2/mail` for a part of those.

mod support;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use memchr::memmem::Finder;
use ringpost::proto::scan::{Scan, Scanner, Variant};
use support::mail::message;

/// Sizes of messages, in octets.
const SIZES: [usize; 2] = [4 << 10, 256 << 10];

/// Kinds of text: the shortest and the longest line, in octets.
const SHAPES: [(&str, usize, usize); 4] =
    [("mail", 2, 78), ("base64", 78, 78), ("long", 400, 998), ("short", 2, 20)];

fn available() -> impl Iterator<Item = Variant> {
    Variant::ALL.into_iter().filter(|variant| variant.is_available())
}

fn scan(variant: Variant, body: &[u8]) -> u64 {
    let mut scanner = Scanner::with(variant).expect("an available variant");
    assert_eq!(scanner.scan(black_box(body)), Scan::End { len: body.len() });
    scanner.longest_line()
}

/// GB/s of the best of 20 runs over about 10 MB each.
fn best(body: &[u8], mut run: impl FnMut()) -> f64 {
    let rounds = (10_000_000 / body.len()).max(1);
    let took = (0..20).map(|_| {
        let start = Instant::now();
        (0..rounds).for_each(|_| run());
        start.elapsed()
    });
    let shortest = took.min().expect("20 runs").as_secs_f64();
    (rounds * body.len()) as f64 / shortest / 1e9
}

fn table() {
    let names: Vec<String> = available().map(|variant| format!("{variant:?}")).collect();
    println!("GB/s, best of 20        {} memmem", names.join(" "));
    let finder = Finder::new(b"\r\n.\r\n");
    for size in SIZES {
        for (shape, from, to) in SHAPES {
            let body = message(size, from, to);
            print!("{:>4} KiB {shape:>8}      ", size >> 10);
            for variant in available() {
                print!(" {:6.1}", best(&body, || _ = black_box(scan(variant, &body))));
            }
            println!(" {:6.1}", best(&body, || assert!(finder.find(black_box(&body)).is_some())));
        }
    }
    println!();
}

fn scanner(criterion: &mut Criterion) {
    for size in SIZES {
        for (shape, from, to) in SHAPES {
            let body = message(size, from, to);
            let mut group = criterion.benchmark_group(format!("{}KiB", size >> 10));
            group.throughput(Throughput::Bytes(body.len() as u64));
            for variant in available() {
                group.bench_function(BenchmarkId::new(format!("{variant:?}"), shape), |bencher| {
                    bencher.iter(|| scan(variant, &body));
                });
            }
            let finder = Finder::new(b"\r\n.\r\n");
            group.bench_function(BenchmarkId::new("memmem", shape), |bencher| {
                bencher.iter(|| assert!(finder.find(black_box(&body)).is_some()));
            });
            group.finish();
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500));
    targets = scanner
}

fn main() {
    table();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
