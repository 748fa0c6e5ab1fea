//! Throughput of the DATA scanner, each variant that this machine can run,
//! against a plain search for the terminator with `memchr::memmem` (which
//! checks nothing else).
//!
//! `cargo bench --bench scanner`; `-- Avx2/mail` for a part of it.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use memchr::memmem::Finder;
use ringpost::proto::scan::{Scan, Scanner, Variant};

/// A message of about `len` octets with lines of `from` to `to` octets, whose
/// lengths follow no pattern that a branch predictor could learn.
fn message(len: usize, from: usize, to: usize) -> Vec<u8> {
    let mut body = vec![];
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    while body.len() + to + 5 < len {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let line = from + (random >> 33) as usize % (to - from + 1);
        body.extend((0..line - 2).map(|at| b"etaoin. shrdlu "[at % 15]));
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b".\r\n");
    body
}

fn scanner(criterion: &mut Criterion) {
    let shapes = [("mail", 2, 78), ("base64", 78, 78), ("long", 400, 998), ("short", 2, 20)];
    for size in [4 << 10, 256 << 10] {
        for (shape, from, to) in shapes {
            let body = message(size, from, to);
            let mut group = criterion.benchmark_group(format!("{}KiB", size >> 10));
            group.throughput(Throughput::Bytes(body.len() as u64));
            for variant in Variant::ALL.into_iter().filter(|variant| variant.is_available()) {
                group.bench_function(BenchmarkId::new(format!("{variant:?}"), shape), |bencher| {
                    bencher.iter(|| {
                        let mut scanner = Scanner::with(variant).expect("an available variant");
                        let found = scanner.scan(black_box(&body));
                        assert_eq!(found, Scan::End { len: body.len() });
                        scanner.longest_line()
                    });
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
criterion_main!(benches);
