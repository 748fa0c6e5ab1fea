//! A sink and a load generator as calls, over loopback on a free port.

#![allow(dead_code, reason = "each test program uses some of it")]

use clap::Parser;
use ringpost_tools::load::options::Cli;
use ringpost_tools::load::report::Report;
use ringpost_tools::sink::Sink;
use ringpost_tools::sink::options::Options;
use ringpost_tools::verify::{Verdict, compare};
use ringpost_tools::{load, sink};

/// A sink with these options.
pub fn sink(arguments: &[&str]) -> Sink {
    let given = ["ringpost-sink", "--listen", "127.0.0.1:0"].iter().chain(arguments);
    sink::start(&Options::parse_from(given)).unwrap()
}

/// The options of a load on `target`, separated by spaces.
pub fn options(target: &Sink, arguments: &str) -> ringpost_tools::load::options::Options {
    let target = format!("--target={}", target.addresses[0]);
    let given = ["ringpost-load", "--quiet", &target].into_iter();
    Cli::parse_from(given.chain(arguments.split_whitespace())).options
}

/// A load on `target`.
pub fn load(target: &Sink, arguments: &str) -> Report {
    load::run(&options(target, arguments)).unwrap()
}

/// A run against a sink with ledgers on both sides.
pub fn verified(sink_arguments: &[&str], load_arguments: &str) -> (Report, Verdict) {
    let dir = tempfile::tempdir().unwrap();
    let (sent, received) = (dir.path().join("sent"), dir.path().join("received"));
    let ledger = format!("--ledger={}", received.display());
    let arguments: Vec<&str> = sink_arguments.iter().copied().chain([ledger.as_str()]).collect();
    let sink = sink(&arguments);
    let report = load(&sink, &format!("{load_arguments} --ledger={}", sent.display()));
    sink.stop().unwrap();
    let verdict = compare(&[sent], &received, |_| ()).unwrap();
    (report, verdict)
}

/// How often `what` failed at `stage`.
pub fn count(report: &Report, stage: &str, what: &str) -> u64 {
    let found = report.failures.iter().find(|one| one.stage == stage && one.what == what);
    found.map_or(0, |one| one.count)
}
