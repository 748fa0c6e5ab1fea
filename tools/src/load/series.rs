//! How a run went over time: counts and latencies in equal intervals, few
//! enough to be drawn. A run that lasts longer gets longer intervals: when all
//! are used, neighbours are added up and each stands for twice the time.
//!
//! Latencies go into histograms of some hundred counters ([`Coarse`]), which
//! tell values apart by 6 %: enough for a chart, cheap enough for every message.

use std::time::Duration;

use serde::Serialize;

/// Intervals kept, at most.
const BINS_MAX: usize = 512;

/// The first length of an interval, in nanoseconds.
const BIN_NS: u64 = 50_000_000;

/// Counters for each doubling of a latency.
const PER_OCTAVE_LOG2: u32 = 4;
const PER_OCTAVE: usize = 1 << PER_OCTAVE_LOG2;

/// The finest unit is 2^10 ns, about a microsecond; the longest latency told
/// apart is 2^40 ns, 18 minutes.
const UNIT_LOG2: u32 = 10;
const OCTAVES: usize = 27;

/// Counters of a [`Coarse`].
pub const COUNTERS: usize = OCTAVES * PER_OCTAVE;

/// A coarse histogram of latencies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coarse(Vec<u32>);

impl Default for Coarse {
    fn default() -> Self {
        Coarse(vec![0; COUNTERS])
    }
}

impl Coarse {
    fn index(ns: u64) -> usize {
        let units = (ns >> UNIT_LOG2).max(1);
        if units < PER_OCTAVE as u64 {
            return units as usize;
        }
        let octave = units.ilog2() - PER_OCTAVE_LOG2;
        let within = (units >> octave) as usize - PER_OCTAVE;
        (((octave + 1) as usize * PER_OCTAVE) + within).min(COUNTERS - 1)
    }

    /// The middle of counter `index`, in milliseconds.
    pub fn ms(index: usize) -> f64 {
        let unit_ms = f64::from(1u32 << UNIT_LOG2) / 1e6;
        if index < PER_OCTAVE {
            return (index as f64 + 0.5) * unit_ms;
        }
        let (octave, within) = (index / PER_OCTAVE - 1, index % PER_OCTAVE);
        ((PER_OCTAVE + within) as f64 + 0.5) * 2f64.powi(octave as i32) * unit_ms
    }

    /// Notes a latency.
    pub fn record(&mut self, ns: u64) {
        self.0[Self::index(ns)] += 1;
    }

    /// Adds another.
    pub fn add(&mut self, other: &Coarse) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// How many were noted.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|count| u64::from(*count)).sum()
    }

    /// The counters, by rising latency.
    pub fn counters(&self) -> &[u32] {
        &self.0
    }

    /// The latency that `quantile` of them did not exceed, in milliseconds;
    /// `None` of none.
    pub fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        let count = self.count();
        let rank = ((count as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        let index = self.0.iter().position(|here| {
            seen += u64::from(*here);
            seen >= rank
        });
        index.filter(|_| count > 0).map(Self::ms)
    }
}

/// Kinds of failure that are drawn apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// 4xx.
    Deferred,
    /// 5xx.
    Rejected,
    /// No reply: the connection broke, or could not be made.
    Broken,
}

/// One interval.
#[derive(Clone, Debug, Default)]
pub struct Bin {
    /// Messages answered 250 in it.
    pub accepted: u64,
    /// Their octets.
    pub bytes: u64,
    /// Failures by [`Failed`].
    pub failed: [u64; 3],
    /// Of the messages answered in it.
    pub latency: Coarse,
}

impl Bin {
    /// Adds another.
    pub fn add(&mut self, other: &Bin) {
        self.accepted += other.accepted;
        self.bytes += other.bytes;
        for (mine, theirs) in self.failed.iter_mut().zip(other.failed) {
            *mine += theirs;
        }
        self.latency.add(&other.latency);
    }
}

/// A run over time.
#[derive(Clone, Debug)]
pub struct Series {
    bin_ns: u64,
    bins: Vec<Bin>,
}

impl Default for Series {
    fn default() -> Self {
        Series { bin_ns: BIN_NS, bins: Vec::new() }
    }
}

impl Series {
    /// The interval at `ns` from the start of the run.
    pub fn at(&mut self, ns: u64) -> &mut Bin {
        while ns / self.bin_ns >= BINS_MAX as u64 {
            self.double();
        }
        let index = (ns / self.bin_ns) as usize;
        if index >= self.bins.len() {
            self.bins.resize_with(index + 1, Bin::default);
        }
        &mut self.bins[index]
    }

    fn double(&mut self) {
        self.bin_ns *= 2;
        let merged = self.bins.chunks(2).map(|pair| {
            let mut sum = pair[0].clone();
            pair[1..].iter().for_each(|other| sum.add(other));
            sum
        });
        self.bins = merged.collect();
    }

    /// Adds another worker's.
    pub fn add(&mut self, other: &Series) {
        let mut other = other.clone();
        while self.bin_ns < other.bin_ns {
            self.double();
        }
        while other.bin_ns < self.bin_ns {
            other.double();
        }
        self.bins.resize_with(self.bins.len().max(other.bins.len()), Bin::default);
        for (mine, theirs) in self.bins.iter_mut().zip(&other.bins) {
            mine.add(theirs);
        }
    }

    /// The length of an interval.
    pub fn bin(&self) -> Duration {
        Duration::from_nanos(self.bin_ns)
    }

    /// The intervals.
    pub fn bins(&self) -> &[Bin] {
        &self.bins
    }

    /// The last `count` intervals before `ns` that are over, added up.
    pub fn recent(&self, ns: u64, count: usize) -> Bin {
        let end = ((ns / self.bin_ns) as usize).min(self.bins.len());
        let mut sum = Bin::default();
        self.bins[end.saturating_sub(count)..end].iter().for_each(|bin| sum.add(bin));
        sum
    }
}

/// A series as reports and comparisons have it; rates are for each second.
#[derive(Clone, Debug, Default, Serialize, serde::Deserialize)]
pub struct Timeline {
    /// Length of an interval.
    pub bin_s: f64,
    /// When the warm-up ended.
    pub measured_from_s: f64,
    /// Messages answered 250.
    pub accepted_per_s: Vec<f64>,
    /// Messages that should have begun; empty in a closed loop.
    pub intended_per_s: Vec<f64>,
    /// Median latency, by when the 250 came; 0 where none came.
    pub p50_ms: Vec<f64>,
    /// 99 of a hundred were faster.
    pub p99_ms: Vec<f64>,
    /// Replies 4xx.
    pub deferred_per_s: Vec<f64>,
    /// Replies 5xx.
    pub rejected_per_s: Vec<f64>,
    /// Connections that broke or could not be made.
    pub broken_per_s: Vec<f64>,
}

impl Timeline {
    /// The figures of `series`; the interval that the run ended in is left out
    /// when it was cut short, since its rates would seem too low.
    pub fn new(series: &Series, ended: Duration, measured_from: Duration) -> Self {
        let bin_s = series.bin().as_secs_f64();
        let whole = (ended.as_secs_f64() / bin_s) as usize;
        let bins = &series.bins()[..series.bins().len().min(whole.max(1))];
        let rates = |count: fn(&Bin) -> u64| -> Vec<f64> {
            bins.iter().map(|bin| rounded(count(bin) as f64 / bin_s)).collect()
        };
        let at = |quantile: f64| -> Vec<f64> {
            bins.iter()
                .map(|bin| rounded(bin.latency.quantile_ms(quantile).unwrap_or(0.0)))
                .collect()
        };
        Timeline {
            bin_s,
            measured_from_s: measured_from.as_secs_f64(),
            accepted_per_s: rates(|bin| bin.accepted),
            intended_per_s: Vec::new(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            deferred_per_s: rates(|bin| bin.failed[Failed::Deferred as usize]),
            rejected_per_s: rates(|bin| bin.failed[Failed::Rejected as usize]),
            broken_per_s: rates(|bin| bin.failed[Failed::Broken as usize]),
        }
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_told_apart_by_a_sixteenth() {
        for ns in [1_100, 20_000, 123_456, 1_000_000, 33_333_333, 5_000_000_000, 99_000_000_000] {
            let mut coarse = Coarse::default();
            coarse.record(ns);
            let got = coarse.quantile_ms(0.99).unwrap() * 1e6;
            let fault = (got / ns as f64 - 1.0).abs();
            assert!(fault < if ns < 10_000 { 0.5 } else { 0.04 }, "{ns}: {got}");
        }
        assert!((1..COUNTERS).all(|index| Coarse::ms(index) > Coarse::ms(index - 1)));
        for index in 1..COUNTERS {
            assert_eq!(Coarse::index((Coarse::ms(index) * 1e6) as u64), index);
        }
        let mut both = Coarse::default();
        both.record(0);
        both.record(u64::MAX);
        assert_eq!((both.count(), both.quantile_ms(0.5)), (2, Some(Coarse::ms(1))));
        assert_eq!(both.quantile_ms(1.0), Some(Coarse::ms(COUNTERS - 1)));
        assert_eq!(Coarse::default().quantile_ms(0.5), None);
    }

    #[test]
    fn a_long_run_gets_longer_intervals_and_loses_nothing() {
        let mut series = Series::default();
        for second in 0..200 {
            let bin = series.at(second * 1_000_000_000);
            bin.accepted += 2;
            bin.latency.record(1_000_000);
            bin.failed[Failed::Broken as usize] += 1;
        }
        assert!(series.bins().len() <= BINS_MAX);
        assert_eq!(series.bin(), Duration::from_millis(400));
        let mut short = Series::default();
        short.at(0).accepted = 7;
        short.add(&series);
        assert_eq!(short.bins().iter().map(|bin| bin.accepted).sum::<u64>(), 407);
        assert_eq!(short.bins().iter().map(|bin| bin.latency.count()).sum::<u64>(), 200);
        assert_eq!(short.bins()[0].accepted, 9);
        assert_eq!(short.recent(2_400_000_000, 5).accepted, 4);
    }

    #[test]
    fn a_timeline_leaves_out_what_was_cut_short() {
        let mut series = Series::default();
        for bin in 0..4 {
            series.at(bin * BIN_NS).accepted = 5;
        }
        let timeline = Timeline::new(&series, Duration::from_millis(190), Duration::ZERO);
        assert_eq!(timeline.accepted_per_s, [100.0; 3]);
        assert_eq!(timeline.p50_ms, [0.0; 3]);
    }
}
