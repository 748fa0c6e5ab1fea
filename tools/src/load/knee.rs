//! `--find-knee`: the highest rate of an open loop at which 99 of a hundred
//! messages are answered within a bound.
//!
//! Short runs at fixed rates, each good or bad ([`Search`] decides which rate is
//! next): first outwards until a good and a bad one are known, then halving the
//! gap between them. Machines are noisy, so the two rates that are left are
//! tried again in turn, good, bad, good, bad, and what two of three runs said
//! holds; if that overturns one of them the search goes on from there.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::options::Options;
use crate::text::{grouped, time_label};

/// How close the highest good and the lowest bad rate must come.
const GAP: f64 = 1.05;

/// Runs in all, at most.
const PROBES_MAX: usize = 32;

/// Runs at each of the last two rates; an odd number.
const VOTES: u32 = 3;

/// The first rate as a share of what a closed loop took.
const FIRST: f64 = 0.6;

/// Most messages that may fail in a good run, as a share.
const FAILED_MAX: f64 = 0.001;

/// Length of a run, unless --duration says otherwise.
const SPAN: Duration = Duration::from_secs(3);

/// Between runs, for the server to get rid of what is left of the last.
const PAUSE: Duration = Duration::from_millis(300);

/// Rates that are no good any more: below one message a second.
const LEAST: f64 = 1.0;

/// Votes on a rate.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    rate: f64,
    good: u32,
    bad: u32,
}

impl Candidate {
    fn votes(&self) -> u32 {
        self.good + self.bad
    }
}

/// Which rate to try next, and what it comes to.
#[derive(Clone, Debug)]
pub struct Search {
    low: Option<Candidate>,
    high: Option<Candidate>,
    next: f64,
    probes: usize,
    done: bool,
}

impl Search {
    /// Begins at `rate`, in messages a second.
    pub fn new(rate: f64) -> Self {
        Search { low: None, high: None, next: rate.max(LEAST), probes: 0, done: false }
    }

    /// The rate to try; `None` when the search is over.
    pub fn next(&self) -> Option<f64> {
        (!self.done && self.probes < PROBES_MAX).then_some(self.next)
    }

    /// The rate of [`Search::next`] was tried.
    pub fn note(&mut self, good: bool) {
        self.probes += 1;
        let rate = self.next;
        let near = |candidate: &mut Option<Candidate>| match candidate {
            Some(it) if it.rate == rate => {
                it.good += u32::from(good);
                it.bad += u32::from(!good);
                true
            }
            _ => false,
        };
        if !near(&mut self.low) && !near(&mut self.high) {
            let found = Candidate { rate, good: good.into(), bad: (!good).into() };
            *if good { &mut self.low } else { &mut self.high } = Some(found);
        }
        self.overturn();
        self.choose();
    }

    /// Moves an end of the gap that the votes speak against.
    fn overturn(&mut self) {
        if self.low.is_some_and(|low| low.bad > VOTES / 2) {
            self.high = self.low.take();
        }
        if self.high.is_some_and(|high| high.good > VOTES / 2) {
            self.low = self.high.take();
        }
    }

    fn choose(&mut self) {
        match (self.low, self.high) {
            (Some(low), None) => self.next = low.rate * 1.5,
            (None, Some(high)) => {
                self.next = high.rate / 2.0;
                self.done = self.next < LEAST;
            }
            (Some(low), Some(high)) if high.rate / low.rate > GAP => {
                self.next = (low.rate + high.rate) / 2.0;
            }
            (Some(low), Some(high)) => {
                self.done = low.votes() >= VOTES && high.votes() >= VOTES;
                self.next = if low.votes() <= high.votes() { low.rate } else { high.rate };
            }
            (None, None) => {}
        }
    }

    /// The highest rate found good and the lowest found bad.
    pub fn found(&self) -> (Option<f64>, Option<f64>) {
        (self.low.map(|low| low.rate), self.high.map(|high| high.rate))
    }
}

/// One short run.
#[derive(Clone, Debug, Serialize)]
pub struct Probe {
    /// Messages a second intended; `None` of the closed loop at the beginning.
    pub rate: Option<f64>,
    /// Messages a second accepted.
    pub messages_per_s: f64,
    /// Median from the intended start to the 250.
    pub p50_ms: f64,
    /// 99 of a hundred were faster.
    pub p99_ms: f64,
    /// Messages refused or unanswered.
    pub failed: u64,
    /// Within the bound.
    pub good: bool,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = match self.rate {
            Some(rate) => format!("{}/s", grouped(rate)),
            None => "closed loop".into(),
        };
        let verdict = match (self.rate, self.good) {
            (None, _) => "",
            (_, true) => "good",
            (_, false) => "too much",
        };
        write!(
            f,
            "{rate:>14}{:>14}{:>12}{:>12}{:>10}  {verdict}",
            grouped(self.messages_per_s) + "/s",
            time_label(self.p50_ms),
            time_label(self.p99_ms),
            self.failed
        )
    }
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Knee {
    /// The bound on the 99th percentile.
    pub bound_ms: f64,
    /// Highest rate within it; `None` if there is none.
    pub knee_per_s: Option<f64>,
    /// Lowest rate found to be too much.
    pub too_much_per_s: Option<f64>,
    /// Every run, in order.
    pub probes: Vec<Probe>,
}

/// Finds it, with a line on standard output for each run.
pub fn find_and_print(options: &Options) -> io::Result<ExitCode> {
    let bound = options.find_knee.unwrap_or_default();
    println!("p99 within {}", time_label(bound.as_secs_f64() * 1e3));
    println!("{:>14}{:>14}{:>12}{:>12}{:>10}", "intended", "accepted", "p50", "p99", "failed");
    let knee = find(options, bound, |probe| println!("{probe}"))?;
    match (knee.knee_per_s, knee.too_much_per_s) {
        (Some(rate), Some(too_much)) => {
            println!("\nknee: {}/s ({}/s is too much)", grouped(rate), grouped(too_much));
        }
        (Some(rate), None) => println!("\nno knee found up to {}/s", grouped(rate)),
        (None, _) => println!("\nno rate keeps p99 within the bound"),
    }
    if let Some(path) = &options.json {
        let mut file = BufWriter::new(File::create(path)?);
        serde_json::to_writer_pretty(&mut file, &knee)?;
        writeln!(file)?;
        file.flush()?;
    }
    Ok(if knee.knee_per_s.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Makes the runs; `each` is told of every one.
///
/// # Errors
/// Those of a run.
pub fn find(options: &Options, bound: Duration, mut each: impl FnMut(&Probe)) -> io::Result<Knee> {
    let bound_ms = bound.as_secs_f64() * 1e3;
    let span = options.duration.unwrap_or(SPAN);
    let mut probes = Vec::new();
    let run = |rate: Option<f64>| -> io::Result<(Probe, bool)> {
        let options = Options {
            rate,
            duration: Some(span),
            warmup: options.warmup.max(span / 6),
            json: None,
            quiet: true,
            ..options.clone()
        };
        let report = super::run(&options)?;
        let (messages, accept) = (&report.messages, report.latency.accept);
        let failed = messages.refused + messages.unanswered;
        let intended = rate.unwrap_or_default() * span.as_secs_f64();
        let complete = messages.accepted as f64 >= intended * (1.0 - FAILED_MAX) - 1.0;
        let probe = Probe {
            rate,
            messages_per_s: report.messages_per_s,
            p50_ms: accept.p50_ms,
            p99_ms: accept.p99_ms,
            failed,
            good: complete && accept.count > 0 && accept.p99_ms <= bound_ms,
        };
        thread::sleep(PAUSE);
        Ok((probe, report.interrupted))
    };
    let (first, mut interrupted) = run(None)?;
    each(&first);
    let mut search = Search::new(first.messages_per_s * FIRST);
    probes.push(first);
    while let Some(rate) = search.next().filter(|_| !interrupted) {
        let probe;
        (probe, interrupted) = run(Some(rate))?;
        each(&probe);
        search.note(probe.good);
        probes.push(probe);
    }
    let (knee_per_s, too_much_per_s) = search.found();
    Ok(Knee { bound_ms, knee_per_s, too_much_per_s, probes })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches where a run at a rate is good as `judge` says; the rates tried.
    fn searched(first: f64, mut judge: impl FnMut(usize, f64) -> bool) -> (Search, Vec<f64>) {
        let (mut search, mut tried) = (Search::new(first), Vec::new());
        while let Some(rate) = search.next() {
            search.note(judge(tried.len(), rate));
            tried.push(rate);
        }
        (search, tried)
    }

    #[test]
    fn finds_the_knee_from_either_side() {
        for first in [100.0, 9_000.0, 10_000.0, 80_000.0] {
            let (search, tried) = searched(first, |_, rate| rate <= 10_000.0);
            let (low, high) = search.found();
            let (low, high) = (low.unwrap(), high.unwrap());
            assert!(low <= 10_000.0 && high > 10_000.0 && high / low <= GAP, "{low} {high}");
            assert!(tried.len() < PROBES_MAX, "{}", tried.len());
            // The last two rates were tried in turn.
            let last = &tried[tried.len() - 3..];
            assert!(last[0] != last[1] && last[1] != last[2], "{tried:?}");
        }
    }

    #[test]
    fn one_run_that_was_disturbed_does_not_decide() {
        // Each of the first ten runs in turn is judged wrongly.
        for disturbed in 0..10 {
            let judge = |number, rate: f64| (rate <= 10_000.0) != (number == disturbed);
            let (search, _) = searched(9_700.0, judge);
            let low = search.found().0.unwrap();
            assert!((9_000.0..=10_500.0).contains(&low), "{disturbed}: {low}");
        }
    }

    #[test]
    fn ends_where_there_is_no_knee() {
        let (search, tried) = searched(1_000.0, |_, _| false);
        assert_eq!(search.found().0, None);
        assert!(tried.len() < 12);
        let (search, tried) = searched(1_000.0, |_, _| true);
        assert_eq!((search.found().1, tried.len()), (None, PROBES_MAX));
    }
}
