//! Distributions of a span of time, as options take them: how long the sink
//! waits before it answers, how long a client thinks before it sends.
//!
//! | written as | means |
//! |---|---|
//! | `20ms` | always this |
//! | `5ms..200ms` | anything between, all alike |
//! | `exp:20ms` | exponential with this mean |
//! | `p50=5ms,p99=200ms` | these percentiles, with an exponential course between and behind them |

use std::str::FromStr;
use std::time::Duration;

use crate::values;

/// How far behind the last percentile given its tail goes, as a factor.
const TAIL_MAX: f64 = 4.0;

/// Least of what is drawn before the first percentile given, as a share of it.
const HEAD: f64 = 0.5;

/// A distribution of spans.
#[derive(Clone, Debug, PartialEq)]
pub enum Dist {
    /// Always the same.
    Fixed(Duration),
    /// From the first to the second, all alike.
    Uniform(Duration, Duration),
    /// Exponential with this mean.
    Exponential(Duration),
    /// Through these points of (quantile, span), both rising.
    Percentiles(Vec<(f64, Duration)>),
}

impl Dist {
    /// The span at `quantile`, from 0 to less than 1; a uniform draw for it
    /// makes a draw from the distribution.
    pub fn at(&self, quantile: f64) -> Duration {
        match self {
            Dist::Fixed(span) => *span,
            Dist::Uniform(least, most) => *least + (*most - *least).mul_f64(quantile),
            Dist::Exponential(mean) => mean.mul_f64(nines(quantile)),
            Dist::Percentiles(points) => through(points, quantile),
        }
    }

    /// True if nothing is ever waited for.
    pub fn is_zero(&self) -> bool {
        matches!(self, Dist::Fixed(Duration::ZERO))
    }
}

/// Where a quantile lies on an axis on which an exponential distribution is a
/// straight line.
fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile.clamp(0.0, 1.0 - 1e-12)).ln()
}

/// The span at `quantile` of a curve through `points`, straight between them
/// where time is logarithmic and quantiles are nines.
fn through(points: &[(f64, Duration)], quantile: f64) -> Duration {
    let (first, last) = (points[0], points[points.len() - 1]);
    let mut before = (0.0, first.1.as_secs_f64() * HEAD);
    let mut after = before;
    for &(at, span) in points {
        (before, after) = (after, (nines(at), span.as_secs_f64()));
        if quantile <= at {
            break;
        }
    }
    let share = (nines(quantile) - before.0) / (after.0 - before.0);
    let seconds = before.1 * (after.1 / before.1).powf(share);
    Duration::from_secs_f64(seconds.min(last.1.as_secs_f64() * TAIL_MAX))
}

impl FromStr for Dist {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(mean) = text.strip_prefix("exp:") {
            return Ok(Dist::Exponential(values::span(mean)?));
        }
        if text.contains('=') {
            return percentiles(text);
        }
        let Some((least, most)) = text.split_once("..") else {
            return Ok(Dist::Fixed(values::span(text)?));
        };
        let (least, most) = (values::span(least)?, values::span(most)?);
        if least <= most {
            Ok(Dist::Uniform(least, most))
        } else {
            Err(format!("\"{text}\": the range ends before it begins"))
        }
    }
}

fn percentiles(text: &str) -> Result<Dist, String> {
    let form = || format!("\"{text}\": percentiles are written as in \"p50=5ms,p99=200ms\"");
    let mut points: Vec<(f64, Duration)> = Vec::new();
    for part in text.split(',') {
        let (name, span) = part.split_once('=').ok_or_else(form)?;
        let number = name.trim().strip_prefix('p').ok_or_else(form)?;
        let quantile = number.parse::<f64>().map_err(|_| form())? / 100.0;
        let span = values::span(span.trim())?;
        if !(quantile > 0.0 && quantile < 1.0) || span.is_zero() {
            return Err(format!("{}, each above 0 and below p100", form()));
        }
        if points.last().is_some_and(|last| last.0 >= quantile || last.1 > span) {
            return Err(format!("{}, rising", form()));
        }
        points.push((quantile, span));
    }
    Ok(Dist::Percentiles(points))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Draw;

    fn drawn(text: &str) -> Vec<f64> {
        let (dist, mut draw) = (text.parse::<Dist>().unwrap(), Draw::new(5));
        let mut all: Vec<f64> =
            (0..20_000).map(|_| dist.at(draw.unit()).as_secs_f64() * 1e3).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    fn close(got: f64, want: f64) {
        assert!((got / want - 1.0).abs() < 0.06, "{got} is not {want}");
    }

    #[test]
    fn draws_follow_what_was_asked_for() {
        assert!(drawn("20ms").iter().all(|ms| *ms == 20.0));
        let uniform = drawn("5ms..15ms");
        assert!(uniform[0] >= 5.0 && uniform[19_999] <= 15.0);
        close(uniform[10_000], 10.0);
        let exponential = drawn("exp:10ms");
        close(exponential.iter().sum::<f64>() / 20_000.0, 10.0);
        close(exponential[19_800], 46.0);
        let bent = drawn("p50=5ms,p90=20ms,p99=200ms");
        close(bent[10_000], 5.0);
        close(bent[18_000], 20.0);
        close(bent[19_800], 200.0);
        assert!(bent[0] >= 2.5 && bent[19_999] <= 800.0);
        close(drawn("p99=100ms")[19_800], 100.0);
    }

    #[test]
    fn zero_is_known_and_nonsense_refused() {
        assert!("0s".parse::<Dist>().unwrap().is_zero());
        assert!(!"0s..1ms".parse::<Dist>().unwrap().is_zero());
        for bad in [
            "3ms..1ms",
            "",
            "1",
            "1ms..",
            "exp:",
            "exp:x",
            "p50",
            "p50=1ms,p40=2ms",
            "p50=2ms,p99=1ms",
            "p0=1ms",
            "p100=1ms",
            "p50=0s",
            "q50=1ms",
        ] {
            assert!(bad.parse::<Dist>().is_err(), "{bad}");
        }
    }
}
