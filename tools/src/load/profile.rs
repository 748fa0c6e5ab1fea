//! The rate of an open loop over time: constant, rising (a ramp), or in steps.
//! It says when each message should begin, fixed before the run begins.
//!
//! A profile is a row of pieces in each of which the rate goes straight from
//! one value to another; behind the last the rate stays. The time of message
//! `n` is where the area under the rate comes to `n`.

use std::time::Duration;

/// Rates, in messages a second, that an open loop goes through.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Always this one.
    Constant(f64),
    /// From the first to the second, evenly over the run.
    Ramp(f64, f64),
    /// Each for an equal part of the run.
    Steps(Vec<f64>),
}

/// Parts that a ramp is reported in.
const RAMP_PARTS: u32 = 10;

/// Most steps.
const STEPS_MAX: usize = 100;

#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Seconds from the start, and messages until then.
    begins: f64,
    count: f64,
    seconds: f64,
    rates: (f64, f64),
}

/// A part of the run that has figures of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// From the start of the run.
    pub from: Duration,
    /// Its end.
    pub until: Duration,
    /// Messages a second intended, on average.
    pub rate: f64,
}

/// When messages begin.
#[derive(Clone, Debug)]
pub struct Profile {
    pieces: Vec<Piece>,
    parts: Vec<Part>,
}

impl Profile {
    /// `shape` over `span`, behind a warm-up at its first rate.
    pub fn new(shape: &Shape, warmup: Duration, span: Duration) -> Self {
        let mut profile = Profile { pieces: Vec::new(), parts: Vec::new() };
        let first = match shape {
            Shape::Constant(rate) | Shape::Ramp(rate, _) => *rate,
            Shape::Steps(rates) => rates[0],
        };
        profile.push(warmup, (first, first));
        match shape {
            Shape::Constant(_) => {}
            Shape::Ramp(from, to) => {
                profile.push(span, (*from, *to));
                let part = span / RAMP_PARTS;
                for index in 0..RAMP_PARTS {
                    let middle = (f64::from(index) + 0.5) / f64::from(RAMP_PARTS);
                    let rate = from + (to - from) * middle;
                    profile.part(warmup + part * index, part, rate);
                }
            }
            Shape::Steps(rates) => {
                let part = span / rates.len() as u32;
                for (index, &rate) in rates.iter().enumerate() {
                    profile.push(part, (rate, rate));
                    profile.part(warmup + part * index as u32, part, rate);
                }
            }
        }
        profile
    }

    fn push(&mut self, span: Duration, rates: (f64, f64)) {
        let (begins, count) = self.pieces.last().map_or((0.0, 0.0), |last| {
            let area = last.seconds * (last.rates.0 + last.rates.1) / 2.0;
            (last.begins + last.seconds, last.count + area)
        });
        self.pieces.push(Piece { begins, count, seconds: span.as_secs_f64(), rates });
    }

    fn part(&mut self, from: Duration, span: Duration, rate: f64) {
        self.parts.push(Part { from, until: from + span, rate });
    }

    /// When message `n` should begin, from the start of the run.
    pub fn at(&self, n: u64) -> Duration {
        let n = n as f64;
        let index = self.pieces.iter().rposition(|piece| piece.count <= n).unwrap_or(0);
        let piece = &self.pieces[index];
        let (beyond, (from, to)) = (n - piece.count, piece.rates);
        let last = index + 1 == self.pieces.len();
        let slope = if piece.seconds > 0.0 { (to - from) / piece.seconds } else { 0.0 };
        // The root of from·t + slope·t²/2 = beyond, in the form that loses no
        // digits when the slope is slight.
        let root = (from * from + 2.0 * slope * beyond).max(0.0).sqrt();
        let mut seconds = 2.0 * beyond / (from + root);
        if last && seconds > piece.seconds && slope != 0.0 {
            let area = piece.seconds * (from + to) / 2.0;
            seconds = piece.seconds + (beyond - area) / to;
        }
        Duration::from_nanos(((piece.begins + seconds) * 1e9).round() as u64)
    }

    /// The rate intended at `at` from the start.
    pub fn rate_at(&self, at: Duration) -> f64 {
        let at = at.as_secs_f64();
        let index = self.pieces.iter().rposition(|piece| piece.begins <= at).unwrap_or(0);
        let piece = &self.pieces[index];
        let share = if piece.seconds > 0.0 { (at - piece.begins) / piece.seconds } else { 1.0 };
        piece.rates.0 + (piece.rates.1 - piece.rates.0) * share.min(1.0)
    }

    /// The parts with figures of their own; none if the rate is constant.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The part that a message which begins at `at` belongs to.
    pub fn part_of(&self, at: Duration) -> Option<usize> {
        let index = self.parts.partition_point(|part| part.until <= at);
        self.parts.get(index).filter(|part| part.from <= at).map(|_| index)
    }
}

/// `FROM..TO` for a ramp.
///
/// # Errors
/// With what is allowed.
pub fn ramp(text: &str) -> Result<Shape, String> {
    let form = || format!("\"{text}\" is no ramp: as in \"1000/s..20000/s\"");
    let (from, to) = text.split_once("..").ok_or_else(form)?;
    let rate = |text: &str| crate::values::rate(text).map_err(|_| form());
    Ok(Shape::Ramp(rate(from)?, rate(to)?))
}

/// `RATE,RATE,...` or `FROM..TO:COUNT` for steps.
///
/// # Errors
/// With what is allowed.
pub fn steps(text: &str) -> Result<Shape, String> {
    let form = || {
        format!(
            "\"{text}\" are no steps: as in \"1000/s,2000/s,4000/s\" or \"1000/s..8000/s:8\", 2 to \
             {STEPS_MAX} of them"
        )
    };
    let rates = match text.split_once("..") {
        None => text.split(',').map(|rate| crate::values::rate(rate.trim())).collect(),
        Some((from, rest)) => {
            let (to, count) = rest.rsplit_once(':').ok_or_else(form)?;
            let (from, to) = (crate::values::rate(from)?, crate::values::rate(to)?);
            let count: usize = count.parse().map_err(|_| form())?;
            let last = count.clamp(2, STEPS_MAX + 1) - 1;
            let at = |index: usize| Ok(from + (to - from) * index as f64 / last as f64);
            (0..count.min(STEPS_MAX + 1)).map(at).collect::<Result<Vec<f64>, String>>()
        }
    }?;
    if (2..=STEPS_MAX).contains(&rates.len()) { Ok(Shape::Steps(rates)) } else { Err(form()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate_between(profile: &Profile, from: f64, until: f64) -> f64 {
        let within = |n: &u64| (from..until).contains(&profile.at(*n).as_secs_f64());
        (0..200_000).filter(within).count() as f64 / (until - from)
    }

    #[test]
    fn constant_is_even_and_goes_on() {
        let profile = Profile::new(&Shape::Constant(100.0), SECOND, SECOND);
        for n in [0, 1, 99, 100, 101, 100_000] {
            assert_eq!(profile.at(n), Duration::from_millis(10 * n));
        }
        assert!(profile.parts().is_empty() && profile.part_of(SECOND).is_none());
        assert_eq!(profile.rate_at(SECOND * 9), 100.0);
    }

    #[test]
    fn a_ramp_rises_evenly() {
        for (from, to) in [(100.0, 1100.0), (1100.0, 100.0)] {
            let profile = Profile::new(&Shape::Ramp(from, to), SECOND, SECOND * 10);
            assert!((rate_between(&profile, 0.0, 1.0) - from).abs() <= 2.0);
            for second in 1..11 {
                let want = from + (to - from) * (f64::from(second) - 0.5) / 10.0;
                let got = rate_between(&profile, f64::from(second), f64::from(second) + 1.0);
                assert!((got - want).abs() <= 2.0, "{second}: {got} is not {want}");
                let middle = Duration::from_millis(second as u64 * 1000 + 500);
                assert!((profile.rate_at(middle) - want).abs() < 1e-6);
            }
            assert!((rate_between(&profile, 11.0, 20.0) - to).abs() <= 2.0, "it stays");
            assert!((0..20_000).all(|n| profile.at(n) <= profile.at(n + 1)));
            assert_eq!(profile.parts().len(), 10);
            assert_eq!(profile.part_of(SECOND / 2), None);
            assert_eq!(profile.part_of(SECOND), Some(0));
            assert_eq!(profile.part_of(SECOND * 11 - Duration::from_nanos(1)), Some(9));
            assert_eq!(profile.part_of(SECOND * 11), None);
        }
    }

    #[test]
    fn steps_follow_each_other() {
        let profile = Profile::new(&Shape::Steps(vec![100.0, 400.0]), Duration::ZERO, SECOND * 4);
        assert_eq!(profile.at(199), Duration::from_millis(1990));
        assert_eq!(profile.at(200), SECOND * 2);
        assert_eq!(profile.at(204), Duration::from_millis(2010));
        assert_eq!(profile.part_of(SECOND * 2), Some(1));
        assert_eq!(profile.parts()[1], Part { from: SECOND * 2, until: SECOND * 4, rate: 400.0 });
        assert_eq!((profile.rate_at(SECOND), profile.rate_at(SECOND * 2)), (100.0, 400.0));
    }

    #[test]
    fn shapes_are_read() {
        assert_eq!(ramp("10/s..600/m"), Ok(Shape::Ramp(10.0, 10.0)));
        assert_eq!(steps("1,2,3"), Ok(Shape::Steps(vec![1.0, 2.0, 3.0])));
        assert_eq!(steps("1..4/s:4"), Ok(Shape::Steps(vec![1.0, 2.0, 3.0, 4.0])));
        for bad in ["", "1", "1..", "..1", "0..1", "1..2..3"] {
            assert!(ramp(bad).is_err(), "{bad}");
        }
        for bad in ["", "1", "1..2", "1..2:1", "1..2:101", "1,x", "1..2:x"] {
            assert!(steps(bad).is_err(), "{bad}");
        }
    }
}
