//! `--find-knee`: the highest rate of an open loop at which 99 of a hundred
//! messages are answered within a bound.
//!
//! Short runs at fixed rates, each good or bad ([`Search`] decides which rate is
//! next): first outwards until a good and a bad one are known, then halving the
//! gap between them. Machines are noisy, so the two rates that are left are
//! tried again in turn, good, bad, good, bad, and what two of three runs said
//! holds; if that overturns one of them the search goes on from there. A server
//! that refuses the same share of the mail at half of a rate refuses it for other
//! reasons than the rate: the search ends and says so.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::options::Options;
use crate::text::{can_write, grouped, say, time_label};

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

/// Failures from which on their share says something.
const FAILED_MANY: u64 = 10;

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
    /// They as a share of all that were answered or lost.
    pub failed_share: f64,
    /// The most frequent failure, in words.
    pub failure: Option<String>,
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
            (_, true) => "  good",
            (_, false) => "  too much",
        };
        let failed = match self.failed {
            0 => "-".into(),
            _ => percent(self.failed_share),
        };
        write!(
            f,
            "{rate:>14}{:>14}{:>12}{:>12}{failed:>10}{verdict}",
            grouped(self.messages_per_s) + "/s",
            time_label(self.p50_ms),
            time_label(self.p99_ms),
        )
    }
}

/// A share with the digits that small ones need.
fn percent(share: f64) -> String {
    let decimals = if share < 0.0995 { 2 } else { 1 };
    format!("{:.decimals$} %", share * 100.0)
}

/// True if the last of `probes` failed as often as the one before it at twice its
/// rate, and what was accepted fell with the rate: as it does not where the
/// rate is what is too much.
fn fails_at_any_rate(probes: &[Probe]) -> bool {
    let [.., before, last] = probes else { return false };
    let halved = matches!((before.rate, last.rate), (Some(a), Some(b)) if b <= a * 0.6);
    let both_fail = [before, last].iter().all(|it| !it.good && it.failed >= FAILED_MANY);
    let as_often = last.failed_share > before.failed_share / 2.0;
    halved && both_fail && as_often && last.messages_per_s <= before.messages_per_s * 0.75
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
    /// Messages fail at any rate as often, and why: no rate can be told to be good.
    pub fails_anyhow: Option<String>,
    /// Every run, in order.
    pub probes: Vec<Probe>,
}

/// Finds it, with a line on standard output for each run.
pub fn find_and_print(options: &Options) -> io::Result<ExitCode> {
    let bound = options.find_knee.unwrap_or_default();
    can_write(options.files())?;
    say(format_args!("p99 within {}", time_label(bound.as_secs_f64() * 1e3)))?;
    say(format_args!(
        "{:>14}{:>14}{:>12}{:>12}{:>10}",
        "intended", "accepted", "p50", "p99", "failed"
    ))?;
    let knee = find(options, bound, |probe| say(probe))?;
    say(match (knee.knee_per_s, knee.too_much_per_s, &knee.fails_anyhow) {
        (.., Some(why)) => format!("\nno knee: {why}"),
        (Some(rate), Some(too_much), None) => {
            format!("\nknee: {}/s ({}/s is too much)", grouped(rate), grouped(too_much))
        }
        (Some(rate), None, None) => format!("\nno knee found up to {}/s", grouped(rate)),
        (None, ..) => "\nno rate keeps p99 within the bound".into(),
    })?;
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
/// Those of a run and of `each`.
pub fn find(
    options: &Options,
    bound: Duration,
    mut each: impl FnMut(&Probe) -> io::Result<()>,
) -> io::Result<Knee> {
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
        let all = failed + messages.accepted_in_all;
        let complete = messages.accepted as f64 >= intended * (1.0 - FAILED_MAX) - 1.0;
        let probe = Probe {
            rate,
            messages_per_s: report.messages_per_s,
            p50_ms: accept.p50_ms,
            p99_ms: accept.p99_ms,
            failed,
            failed_share: failed as f64 / all.max(1) as f64,
            failure: report.failures.first().map(ToString::to_string),
            good: complete && accept.count > 0 && accept.p99_ms <= bound_ms,
        };
        thread::sleep(PAUSE);
        Ok((probe, report.interrupted))
    };
    let (first, mut interrupted) = run(None)?;
    each(&first)?;
    let mut search = Search::new(first.messages_per_s * FIRST);
    probes.push(first);
    let mut fails_anyhow = None;
    while let Some(rate) = search.next().filter(|_| !interrupted) {
        let probe;
        (probe, interrupted) = run(Some(rate))?;
        each(&probe)?;
        search.note(probe.good);
        probes.push(probe);
        if let Some(last) = probes.last().filter(|_| fails_at_any_rate(&probes)) {
            let failure = last.failure.as_deref().unwrap_or_default();
            let share = percent(last.failed_share);
            fails_anyhow =
                Some(format!("{share} of the messages fail at any rate, as in {failure}"));
            break;
        }
    }
    let (knee_per_s, too_much_per_s) = search.found();
    Ok(Knee { bound_ms, knee_per_s, too_much_per_s, fails_anyhow, probes })
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

    #[test]
    fn a_share_that_fails_at_half_the_rate_too_is_none_of_its_doing() {
        let probe = |rate: f64, accepted: f64, failed: u64| Probe {
            rate: Some(rate),
            messages_per_s: accepted,
            p50_ms: 1.0,
            p99_ms: 2.0,
            failed,
            failed_share: failed as f64 / (accepted + failed as f64).max(1.0),
            failure: None,
            good: false,
        };
        let fails = |before, last| fails_at_any_rate(&[before, last]);
        assert!(fails(probe(1000.0, 950.0, 50), probe(500.0, 475.0, 25)));
        assert!(fails(probe(1000.0, 0.0, 1000), probe(500.0, 0.0, 500)), "nothing is accepted");
        // A limit of the rate, an overload that ends, too few to tell, no lower rate.
        assert!(!fails(probe(1000.0, 100.0, 900), probe(500.0, 100.0, 400)));
        assert!(!fails(probe(1000.0, 900.0, 100), probe(500.0, 490.0, 10)));
        assert!(!fails(probe(10.0, 9.0, 1), probe(5.0, 4.0, 1)));
        assert!(!fails(probe(1000.0, 950.0, 50), probe(900.0, 700.0, 45)));
        assert!(!fails_at_any_rate(&[probe(1000.0, 950.0, 50)]));
    }
}
