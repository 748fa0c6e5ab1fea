//! Latencies: the histogram that all tools record into, the table of
//! percentiles, and the HdrHistogram text form that its plotters read.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longest latency told apart, in nanoseconds; longer ones count as this.
const CEILING_NS: u64 = 3_600_000_000_000;

/// An empty histogram of nanoseconds: 1 µs to 1 h, three significant digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, CEILING_NS, 3).expect("the bounds are fixed and sound")
}

/// Notes one latency.
pub fn record(histogram: &mut Histogram<u64>, ns: u64) {
    histogram.saturating_record(ns.min(CEILING_NS));
}

/// A span in nanoseconds, as histograms and ledgers take it.
pub fn ns(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// The percentiles that every report names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many were measured.
    pub count: u64,
    /// Half were faster; milliseconds, as all that follow.
    pub p50_ms: f64,
    /// Nine of ten were faster.
    pub p90_ms: f64,
    /// 99 of a hundred were faster.
    pub p99_ms: f64,
    /// 999 of a thousand were faster.
    pub p999_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

impl From<&Histogram<u64>> for Percentiles {
    fn from(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Percentiles::default();
        }
        let at = |quantile| ms(histogram.value_at_quantile(quantile));
        Percentiles {
            count: histogram.len(),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: ms(histogram.max()),
        }
    }
}

fn ms(ns: u64) -> f64 {
    (ns as f64 / 1e3).round() / 1e3
}

/// Writes a table with one line for each named histogram, in milliseconds.
///
/// # Errors
/// Those of the writer.
pub fn write_table(
    out: &mut dyn fmt::Write,
    rows: &[(&str, &Histogram<u64>)],
) -> Result<(), fmt::Error> {
    writeln!(
        out,
        "{:<14}{:>11}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "", "count", "p50", "p90", "p99", "p99.9", "max"
    )?;
    for (name, histogram) in rows {
        let p = Percentiles::from(*histogram);
        writeln!(
            out,
            "{name:<14}{:>11}{:>10.3}{:>10.3}{:>10.3}{:>10.3}{:>10.3}",
            p.count, p.p50_ms, p.p90_ms, p.p99_ms, p.p999_ms, p.max_ms
        )?;
    }
    Ok(())
}

/// Writes the distribution as HdrHistogram's plotters read it, in milliseconds.
///
/// # Errors
/// Those of the writer.
pub fn write_hgrm(out: &mut dyn Write, histogram: &Histogram<u64>) -> io::Result<()> {
    writeln!(out, "{:>12} {:>14} {:>10} {:>14}\n", "Value", "Percentile", "TotalCount", "1/(1-P)")?;
    let mut total = 0;
    for step in histogram.iter_quantiles(5) {
        total += step.count_since_last_iteration();
        let quantile = step.quantile_iterated_to();
        write!(out, "{:>12.3} {quantile:>14.12} {total:>10}", ms(step.value_iterated_to()))?;
        if quantile < 1.0 {
            write!(out, " {:>14.2}", 1.0 / (1.0 - quantile))?;
        }
        writeln!(out)?;
    }
    let (mean, deviation) = (histogram.mean() / 1e6, histogram.stdev() / 1e6);
    writeln!(out, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]")?;
    let (max, count) = (ms(histogram.max()), histogram.len());
    writeln!(out, "#[Max     = {max:>12.3}, Total count    = {count:>12}]")?;
    let (buckets, sub) = (histogram.buckets(), 2048);
    writeln!(out, "#[Buckets = {buckets:>12}, SubBuckets     = {sub:>12}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Histogram<u64> {
        let mut histogram = histogram();
        for ms in 1..=1000 {
            record(&mut histogram, ms * 1_000_000);
        }
        histogram
    }

    #[test]
    fn percentiles_in_milliseconds() {
        let p = Percentiles::from(&sample());
        assert_eq!(p.count, 1000);
        for (got, want) in [(p.p50_ms, 500.0), (p.p99_ms, 990.0), (p.max_ms, 1000.0)] {
            assert!((got - want).abs() / want < 0.002, "{got} is not {want}");
        }
        assert_eq!(Percentiles::from(&histogram()), Percentiles::default());
    }

    #[test]
    fn hgrm_is_cumulative_and_complete() {
        let mut text = Vec::new();
        write_hgrm(&mut text, &sample()).unwrap();
        let text = String::from_utf8(text).unwrap();
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|word| word.parse().unwrap()).collect())
            .collect();
        assert!(rows.windows(2).all(|pair| pair[0][0] <= pair[1][0] && pair[0][1] <= pair[1][1]));
        assert_eq!(rows.last().unwrap()[1..3], [1.0, 1000.0]);
        assert!(text.contains("Total count    =         1000]"));
    }
}
