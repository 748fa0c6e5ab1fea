//! `ringpost-load diff`: holds the results of two runs, or of two sets of runs,
//! against each other, and says which differences are beyond what chance does.
//!
//! Chance is judged by what varied: with three runs or more on both sides by
//! their figures, otherwise by stretches of each run. A difference counts when
//! it is more than three standard errors of the mean logarithm. Stretches of
//! one run know nothing of what changes from run to run, so several runs, taken
//! in turn, are the better witness; the comparison says which it used.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::series::Timeline;
use crate::latency::Percentiles;
use crate::text::counted;

/// Stretches that one run is cut into.
const STRETCHES: usize = 10;

/// Runs on each side from which on they are the measure themselves.
const RUNS: usize = 3;

/// Standard errors that a difference must come to.
const ERRORS: f64 = 3.0;

/// Differences below this are never called one.
const LEAST: f64 = 0.01;

/// What is read of a result.
#[derive(Clone, Debug, Deserialize)]
struct Run {
    target: String,
    load: serde_json::Value,
    messages_per_s: f64,
    messages: Messages,
    #[serde(default)]
    tls: Option<Tls>,
    latency: Latency,
    timeline: Timeline,
}

#[derive(Clone, Debug, Deserialize)]
struct Messages {
    accepted_in_all: u64,
    refused: u64,
    unanswered: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct Tls {
    handshakes_per_s: f64,
}

#[derive(Clone, Debug, Deserialize)]
struct Latency {
    #[serde(default)]
    handshake: Option<Percentiles>,
    accept: Percentiles,
}

/// Whether more is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Better {
    More,
    Less,
}

/// One figure of both sides.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name and unit.
    pub name: &'static str,
    /// Of A; the mean (of logarithms) over runs.
    pub a: f64,
    /// Of B.
    pub b: f64,
    /// B over A.
    pub ratio: Option<f64>,
    /// What chance alone may make of the ratio, as a share; `None` if it cannot
    /// be judged.
    pub noise: Option<f64>,
    /// "better", "worse", "no difference" or "unknown".
    pub verdict: &'static str,
}

/// What the comparison found.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// What chance was judged by.
    pub basis: String,
    /// In what the two sides were not made alike.
    pub differences: Vec<String>,
    /// The figures.
    pub rows: Vec<Row>,
}

/// Reads and compares results written by `--json`.
///
/// # Errors
/// A file cannot be read or is no such result.
pub fn compare(a: &[PathBuf], b: &[PathBuf]) -> io::Result<Comparison> {
    let read = |paths: &[PathBuf]| paths.iter().map(read).collect::<io::Result<Vec<Run>>>();
    Ok(of_runs(&read(a)?, &read(b)?))
}

fn read(path: &PathBuf) -> io::Result<Run> {
    let named = |error: &dyn fmt::Display| {
        let text = format!("{}: not a result of ringpost-load --json: {error}", path.display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    };
    let text = fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    serde_json::from_str(&text).map_err(|error| named(&error))
}

fn of_runs(a: &[Run], b: &[Run]) -> Comparison {
    let by_runs = a.len() >= RUNS && b.len() >= RUNS;
    let basis = if by_runs {
        format!("{} and {} runs", a.len(), b.len())
    } else {
        format!("stretches within {} and {}", a.len(), counted(b.len() as u64, "run"))
    };
    let row =
        |name, better, whole: fn(&Run) -> f64, over_time: Option<fn(&Timeline) -> Vec<f64>>| {
            let wholes = |runs: &[Run]| -> Vec<f64> { runs.iter().map(whole).collect() };
            let samples = |runs: &[Run]| -> Option<Vec<f64>> {
                match over_time {
                    _ if by_runs => Some(wholes(runs)),
                    Some(over_time) => {
                        Some(runs.iter().flat_map(|run| stretches(run, over_time)).collect())
                    }
                    None => None,
                }
            };
            let noise = samples(a).zip(samples(b)).and_then(|(a, b)| noise(&a, &b));
            let (a, b) = (mean(&wholes(a)), mean(&wholes(b)));
            judge(name, better, (a, b), noise)
        };
    let mut rows = vec![
        row(
            "messages/s",
            Better::More,
            |run| run.messages_per_s,
            Some(|it| it.accepted_per_s.clone()),
        ),
        row("p50, ms", Better::Less, |run| run.latency.accept.p50_ms, Some(|it| it.p50_ms.clone())),
        row("p90, ms", Better::Less, |run| run.latency.accept.p90_ms, None),
        row("p99, ms", Better::Less, |run| run.latency.accept.p99_ms, Some(|it| it.p99_ms.clone())),
        row("p99.9, ms", Better::Less, |run| run.latency.accept.p999_ms, None),
    ];
    if a.iter().chain(b).all(|run| run.tls.is_some()) {
        let rate = |run: &Run| run.tls.as_ref().map_or(0.0, |tls| tls.handshakes_per_s);
        let p50 = |run: &Run| run.latency.handshake.map_or(0.0, |it| it.p50_ms);
        let p99 = |run: &Run| run.latency.handshake.map_or(0.0, |it| it.p99_ms);
        rows.push(row("handshakes/s", Better::More, rate, None));
        rows.push(row("handshake p50, ms", Better::Less, p50, None));
        rows.push(row("handshake p99, ms", Better::Less, p99, None));
    }
    let failed = |runs: &[Run]| -> f64 {
        let lost: u64 = runs.iter().map(|run| run.messages.refused + run.messages.unanswered).sum();
        let all: u64 = runs.iter().map(|run| run.messages.accepted_in_all).sum::<u64>() + lost;
        lost as f64 * 100.0 / all.max(1) as f64
    };
    let (a_failed, b_failed) = (failed(a), failed(b));
    let verdict = if a_failed == b_failed { "no difference" } else { "unknown" };
    rows.push(Row {
        name: "failed, %",
        a: a_failed,
        b: b_failed,
        ratio: None,
        noise: None,
        verdict,
    });
    Comparison { basis, differences: differences(a, b), rows }
}

fn judge(name: &'static str, better: Better, (a, b): (f64, f64), noise: Option<f64>) -> Row {
    let ratio = (a > 0.0 && b > 0.0).then(|| b / a);
    let verdict = match (ratio, noise) {
        (Some(ratio), Some(noise)) => {
            let difference = ratio.ln().abs();
            if difference <= noise.max(LEAST) {
                "no difference"
            } else if (ratio > 1.0) == (better == Better::More) {
                "better"
            } else {
                "worse"
            }
        }
        _ => "unknown",
    };
    Row { name, a, b, ratio, noise, verdict }
}

/// The mean of positive values by their logarithms; 0 if one is not positive.
fn mean(values: &[f64]) -> f64 {
    if values.is_empty() || values.iter().any(|value| *value <= 0.0) {
        return 0.0;
    }
    (values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp()
}

/// What chance may make of the ratio of the means, as a logarithm.
fn noise(a: &[f64], b: &[f64]) -> Option<f64> {
    let part = |values: &[f64]| -> Option<f64> {
        let logs: Vec<f64> = values.iter().filter(|it| **it > 0.0).map(|it| it.ln()).collect();
        let count = logs.len() as f64;
        if logs.len() < RUNS {
            return None;
        }
        let middle = logs.iter().sum::<f64>() / count;
        let variance = logs.iter().map(|it| (it - middle).powi(2)).sum::<f64>() / (count - 1.0);
        Some(variance / count)
    };
    Some(ERRORS * (part(a)? + part(b)?).sqrt())
}

/// The means of a figure over equal stretches of a run, its warm-up left out.
fn stretches(run: &Run, over_time: fn(&Timeline) -> Vec<f64>) -> Vec<f64> {
    let timeline = &run.timeline;
    let skipped = (timeline.measured_from_s / timeline.bin_s.max(1e-9)).ceil() as usize;
    let values = over_time(timeline);
    let values = values.get(skipped..).unwrap_or_default();
    let length = (values.len() / STRETCHES).max(1);
    values.chunks_exact(length).map(|stretch| stretch.iter().sum::<f64>() / length as f64).collect()
}

fn differences(a: &[Run], b: &[Run]) -> Vec<String> {
    let (a, b) = (&a[0], &b[0]);
    let mut found = Vec::new();
    if a.target != b.target {
        found.push(format!("target: {} and {}", a.target, b.target));
    }
    let keys = a.load.as_object().into_iter().flat_map(|object| object.keys());
    for key in keys.filter(|key| a.load[*key] != b.load[*key]) {
        found.push(format!("{key}: {} and {}", a.load[key], b.load[key]));
    }
    found
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for difference in &self.differences {
            writeln!(f, "not alike: {difference}")?;
        }
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or_default();
        writeln!(f, "{:<width$}{:>12}{:>12}{:>10}{:>10}", "", "A", "B", "B/A", "noise")?;
        for row in &self.rows {
            let digits = if row.a.max(row.b) < 1000.0 { 3 } else { 0 };
            write!(f, "{:<width$}{:>12.digits$}{:>12.digits$}", row.name, row.a, row.b)?;
            match row.ratio {
                Some(ratio) => write!(f, "{ratio:>10.3}")?,
                None => write!(f, "{:>10}", "-")?,
            }
            match row.noise {
                Some(noise) => write!(f, "{:>10}", format!("±{:.1} %", noise.exp_m1() * 100.0))?,
                None => write!(f, "{:>10}", "-")?,
            }
            writeln!(f, "   {}", row.verdict)?;
        }
        writeln!(f, "\nnoise judged by {}", self.basis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rate: f64, p99: f64, wobble: f64) -> Run {
        let waver = |value: f64| -> Vec<f64> {
            (0..100).map(|at| value * (1.0 + wobble * f64::from(at % 7 - 3) / 3.0)).collect()
        };
        let accept = Percentiles {
            count: 1000,
            p50_ms: p99 / 4.0,
            p90_ms: p99 / 2.0,
            p99_ms: p99,
            p999_ms: p99,
            max_ms: p99,
        };
        Run {
            target: "t".into(),
            load: serde_json::json!({"connections": 100}),
            messages_per_s: rate,
            messages: Messages { accepted_in_all: 1000, refused: 0, unanswered: 0 },
            tls: None,
            latency: Latency { handshake: None, accept },
            timeline: Timeline {
                bin_s: 0.1,
                accepted_per_s: waver(rate),
                p50_ms: waver(p99 / 4.0),
                p99_ms: waver(p99),
                ..Timeline::default()
            },
        }
    }

    fn verdict<'a>(comparison: &'a Comparison, name: &str) -> &'a str {
        comparison.rows.iter().find(|row| row.name == name).unwrap().verdict
    }

    #[test]
    fn a_clear_difference_is_told_from_noise() {
        let found = of_runs(&[run(1000.0, 8.0, 0.05)], &[run(1300.0, 8.05, 0.05)]);
        assert_eq!(verdict(&found, "messages/s"), "better");
        assert_eq!(verdict(&found, "p99, ms"), "no difference");
        assert_eq!(verdict(&found, "p99.9, ms"), "unknown");
        assert!((found.rows[0].ratio.unwrap() - 1.3).abs() < 1e-9);
        assert!(found.differences.is_empty());
        let found = of_runs(&[run(1000.0, 8.0, 0.05)], &[run(1001.0, 16.0, 0.05)]);
        assert_eq!(verdict(&found, "messages/s"), "no difference");
        assert_eq!(verdict(&found, "p99, ms"), "worse");
        assert!(found.basis.starts_with("stretches"));
    }

    #[test]
    fn several_runs_are_their_own_measure() {
        let set = |rates: [f64; 3]| rates.map(|rate| run(rate, 8.0, 0.0));
        let found = of_runs(&set([900.0, 1000.0, 1100.0]), &set([1000.0, 1100.0, 1200.0]));
        assert_eq!(verdict(&found, "messages/s"), "no difference");
        assert_eq!(found.basis, "3 and 3 runs");
        let found = of_runs(&set([1000.0, 1010.0, 990.0]), &set([1100.0, 1110.0, 1090.0]));
        assert_eq!(verdict(&found, "messages/s"), "better");
        // Percentiles that a timeline does not have are judged by runs too.
        assert_eq!(verdict(&found, "p99.9, ms"), "no difference");
    }

    #[test]
    fn handshakes_are_compared_where_both_sides_have_them() {
        let secured = |rate: f64| {
            let mut run = run(1000.0, 8.0, 0.0);
            run.tls = Some(Tls { handshakes_per_s: rate });
            run.latency.handshake = Some(run.latency.accept);
            run
        };
        let set = |rates: [f64; 3]| rates.map(secured);
        let found = of_runs(&set([900.0, 905.0, 910.0]), &set([450.0, 455.0, 460.0]));
        assert_eq!(verdict(&found, "handshakes/s"), "worse");
        assert_eq!(verdict(&found, "handshake p99, ms"), "no difference");
        // The names are of different lengths, and their figures below each other.
        let text = found.to_string();
        let (head, rows) = text.split_once('\n').unwrap();
        let end = head.find("B/A").unwrap() + 3;
        for row in rows.lines().take(found.rows.len()) {
            let row = row.as_bytes();
            assert!(row[end - 1] != b' ' && row[end] == b' ', "{text}");
        }
        let found = of_runs(&set([900.0; 3]), &[run(1000.0, 8.0, 0.0)]);
        assert!(found.rows.iter().all(|row| !row.name.starts_with("handshake")));
    }

    #[test]
    fn what_was_not_alike_is_said() {
        let mut other = run(1000.0, 8.0, 0.0);
        other.load = serde_json::json!({"connections": 10});
        other.messages.refused = 10;
        let found = of_runs(&[run(1000.0, 8.0, 0.0)], &[other]);
        assert_eq!(found.differences, ["connections: 100 and 10"]);
        let text = found.to_string();
        assert!(text.contains("not alike: connections: 100 and 10"), "{text}");
        assert!(text.contains("failed, %") && text.contains("noise judged by"), "{text}");
    }
}
