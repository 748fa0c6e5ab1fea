//! What a demonstration came to, from the ledgers that its load and its sink
//! wrote: per phase the rates and latencies, over time the flow in and out, and
//! the verdict on loss. Written as JSON, printed as text, drawn by
//! [`super::chart`].

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::latency::{self, Percentiles, ns};
use crate::ledger::{Side, read};
use crate::machine::Machine;
use crate::verify::{self, Verdict};

/// The whole result.
#[derive(Serialize)]
pub struct Demonstration {
    /// Version of the tools and the server, which are built together.
    pub version: &'static str,
    /// What it ran on.
    pub machine: Machine,
    /// How it was set up.
    pub setup: Setup,
    /// First flat out, then at half load.
    pub phases: Vec<Phase>,
    /// What the server used for all of it.
    pub server: Server,
    /// What arrived.
    pub verdict: Verdict,
    /// Flow over time.
    pub timeline: Timeline,
}

/// How it was set up.
#[derive(Clone, Debug, Serialize)]
pub struct Setup {
    /// What was sent, in words.
    pub mail: String,
    /// Connections of the load.
    pub connections: u32,
    /// What a 250 waited for.
    pub durability: &'static str,
    /// Filesystem under the queue.
    pub filesystem: String,
    /// CPUs of the server.
    pub server_cpus: Vec<usize>,
    /// CPUs that load and sink shared.
    pub load_cpus: Vec<usize>,
}

/// One phase.
#[derive(Serialize)]
pub struct Phase {
    /// "flat out" or "half load".
    pub name: &'static str,
    /// Intended messages each second, of an open loop.
    pub rate: Option<f64>,
    /// Messages answered 250.
    pub accepted: u64,
    /// Each second, from the first message's start to the last 250.
    pub accepted_per_s: f64,
    /// Each second, from the first message's start to the last receipt.
    pub relayed_per_s: f64,
    /// From a message's start to its 250; the beginning left out.
    pub accept: Percentiles,
    /// From a message's start to the sink's 250; the beginning left out.
    pub end_to_end: Percentiles,
    /// When its first message began, in seconds on the timeline.
    pub from_s: f64,
    /// When its last 250 came.
    pub until_s: f64,
    #[serde(skip)]
    pub(super) accept_distribution: Histogram<u64>,
    #[serde(skip)]
    pub(super) end_to_end_distribution: Histogram<u64>,
}

/// What the server used, over both phases.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Server {
    /// Processor time, in seconds.
    pub cpu_s: f64,
    /// Processor seconds for a thousand messages accepted and relayed.
    pub cpu_s_per_1000: f64,
    /// Flushes to disk for each message.
    pub flushes_per_message: f64,
    /// Bytes written to disk for each byte accepted.
    pub written_per_byte: f64,
    /// The most memory seen, in MiB.
    pub memory_mib: f64,
}

/// Messages each second over time, in bins.
#[derive(Clone, Debug, Serialize)]
pub struct Timeline {
    /// Length of a bin, in seconds.
    pub bin_s: f64,
    /// Answered 250 in the bin, as a rate.
    pub accepted_per_s: Vec<f64>,
    /// Taken by the sink in the bin, as a rate.
    pub relayed_per_s: Vec<f64>,
}

/// Length of a bin of the timeline.
const BIN: Duration = Duration::from_millis(250);

/// A phase, as its load was made.
pub struct Made {
    /// Its name.
    pub name: &'static str,
    /// Of an open loop.
    pub rate: Option<f64>,
    /// Ledger of the load.
    pub ledger: PathBuf,
    /// Left out of latencies at its beginning.
    pub warmup: Duration,
}

/// What one phase's ledger says before the sink's is read.
struct Gathered {
    first_ns: u64,
    last_ns: u64,
    last_receipt_ns: u64,
    count: u64,
    accept: Histogram<u64>,
    end_to_end: Histogram<u64>,
}

/// Reads the ledgers of the phases and of the sink.
///
/// # Errors
/// A ledger cannot be read.
pub fn gather(made: &[Made], received: &Path) -> io::Result<(Vec<Phase>, Timeline, Verdict)> {
    let mut bins = Bins::default();
    let mut gathered = Vec::new();
    for phase in made {
        gathered.push(read_phase(phase, &mut bins)?);
    }
    let origin = gathered.iter().map(|one| one.first_ns).min().unwrap_or(0);
    let ledgers: Vec<PathBuf> = made.iter().map(|phase| phase.ledger.clone()).collect();
    let verdict = verify::compare(&ledgers, received, |arrival| {
        let phase = &mut gathered[arrival.ledger];
        phase.last_receipt_ns = phase.last_receipt_ns.max(arrival.received_ns);
        if arrival.start_ns >= phase.first_ns + ns(made[arrival.ledger].warmup) {
            let took = arrival.received_ns.saturating_sub(arrival.start_ns);
            latency::record(&mut phase.end_to_end, took);
        }
        bins.relayed.push(arrival.received_ns);
    })?;
    let phases = made.iter().zip(gathered).map(|(made, one)| one.finish(made, origin)).collect();
    Ok((phases, bins.timeline(origin), verdict))
}

fn read_phase(made: &Made, bins: &mut Bins) -> io::Result<Gathered> {
    let mut first_ns = u64::MAX;
    read(&made.ledger, Side::Sent, |entry| {
        first_ns = first_ns.min(entry.unix_ns.saturating_sub(entry.figure));
    })?;
    let mut one = Gathered {
        first_ns,
        last_ns: 0,
        last_receipt_ns: 0,
        count: 0,
        accept: latency::histogram(),
        end_to_end: latency::histogram(),
    };
    let measured_from = first_ns.saturating_add(ns(made.warmup));
    read(&made.ledger, Side::Sent, |entry| {
        one.count += 1;
        one.last_ns = one.last_ns.max(entry.unix_ns);
        if entry.unix_ns.saturating_sub(entry.figure) >= measured_from {
            latency::record(&mut one.accept, entry.figure);
        }
        bins.accepted.push(entry.unix_ns);
    })?;
    Ok(one)
}

impl Gathered {
    fn finish(self, made: &Made, origin: u64) -> Phase {
        let seconds = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e9;
        let rate = |until: u64| match seconds(self.first_ns, until) {
            span if span > 0.0 => self.count as f64 / span,
            _ => 0.0,
        };
        Phase {
            name: made.name,
            rate: made.rate,
            accepted: self.count,
            accepted_per_s: rate(self.last_ns),
            relayed_per_s: rate(self.last_receipt_ns),
            accept: Percentiles::from(&self.accept),
            end_to_end: Percentiles::from(&self.end_to_end),
            from_s: seconds(origin, self.first_ns),
            until_s: seconds(origin, self.last_ns),
            accept_distribution: self.accept,
            end_to_end_distribution: self.end_to_end,
        }
    }
}

/// Times of acceptance and receipt, until the origin is known.
#[derive(Default)]
struct Bins {
    accepted: Vec<u64>,
    relayed: Vec<u64>,
}

impl Bins {
    fn timeline(&self, origin: u64) -> Timeline {
        let index = |time: &u64| (time.saturating_sub(origin) / ns(BIN)) as usize;
        let last = self.accepted.iter().chain(&self.relayed).map(index).max().unwrap_or(0);
        let rates = |times: &[u64]| {
            let mut bins = vec![0.0; last + 1];
            for time in times {
                bins[index(time)] += 1.0 / BIN.as_secs_f64();
            }
            bins
        };
        Timeline {
            bin_s: BIN.as_secs_f64(),
            accepted_per_s: rates(&self.accepted),
            relayed_per_s: rates(&self.relayed),
        }
    }
}

impl fmt::Display for Demonstration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let setup = &self.setup;
        writeln!(
            f,
            "{} over {} connections; a 250 waits for: {}; queue on {}",
            setup.mail, setup.connections, setup.durability, setup.filesystem
        )?;
        writeln!(
            f,
            "{}, {} CPUs, Linux {}; server on CPU {:?}, load and sink on CPU {:?}\n",
            self.machine.processor,
            self.machine.cpus,
            self.machine.kernel,
            setup.server_cpus,
            setup.load_cpus
        )?;
        for phase in &self.phases {
            write!(f, "{:<10}", phase.name)?;
            write!(f, "{:>9.0} accepted/s {:>9.0} relayed/s", phase.accepted_per_s, {
                phase.relayed_per_s
            })?;
            match phase.rate {
                Some(rate) => writeln!(f, "   (open loop at {rate:.0}/s)")?,
                None => writeln!(f, "   (closed loop)")?,
            }
        }
        writeln!(f, "\nlatency, ms")?;
        let rows: Vec<(String, &Histogram<u64>)> = self
            .phases
            .iter()
            .flat_map(|phase| {
                let name = phase.name;
                [
                    (format!("{name}: to the 250"), &phase.accept_distribution),
                    (format!("{name}: to the sink"), &phase.end_to_end_distribution),
                ]
            })
            .collect();
        let rows: Vec<(&str, &Histogram<u64>)> =
            rows.iter().map(|(name, histogram)| (name.as_str(), *histogram)).collect();
        latency::write_table(f, &rows)?;
        let Server { cpu_s_per_1000, flushes_per_message, written_per_byte, memory_mib, .. } =
            self.server;
        writeln!(
            f,
            "\nthe server used {cpu_s_per_1000:.3} CPU s per 1,000 messages, \
             {flushes_per_message:.3} flushes a message, {written_per_byte:.2} bytes written \
             per byte accepted, {memory_mib:.0} MiB of memory at most"
        )?;
        let Verdict { sent, received, lost, damaged, duplicated, .. } = self.verdict;
        writeln!(
            f,
            "of {sent} messages answered 250, {received} arrived: {lost} lost, {damaged} damaged, \
             {duplicated} duplicated"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Writer, create};
    use crate::message::Mark;

    const MS: u64 = 1_000_000;

    fn ledger(path: &Path, side: Side, run: u32, entries: &[(u64, u64, u64)]) {
        if run <= 1 {
            create(path, side).unwrap();
        }
        let mut writer = Writer::open(path).unwrap();
        for &(seq, at_ms, figure) in entries {
            let mark = Some(Mark { run, seq });
            let at = 1_000_000 * MS + at_ms * MS;
            writer.note(mark, at, figure, 5, [b"a@b".as_slice()].into_iter()).unwrap();
        }
        writer.flush().unwrap();
    }

    #[test]
    fn phases_and_flow_come_out_of_the_ledgers() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        ledger(&path("one"), Side::Sent, 1, &[(0, 10, 10 * MS), (1, 510, 10 * MS)]);
        ledger(&path("two"), Side::Sent, 0, &[(0, 2_002, 2 * MS), (1, 3_002, 2 * MS)]);
        ledger(&path("sink"), Side::Received, 1, &[(0, 30, 1), (1, 1_000, 1)]);
        let mut writer = Writer::open(&path("sink")).unwrap();
        for (seq, at_ms) in [(0, 2_004), (1, 4_000)] {
            let mark = Some(Mark { run: 0, seq });
            let at = 1_000_000 * MS + at_ms * MS;
            writer.note(mark, at, 1, 5, [b"a@b".as_slice()].into_iter()).unwrap();
        }
        writer.flush().unwrap();
        let made = |name, rate, file: &str| Made {
            name,
            rate,
            ledger: path(file),
            warmup: Duration::from_millis(100),
        };
        let made = [made("flat out", None, "one"), made("half load", Some(1.0), "two")];
        let (phases, timeline, verdict) = gather(&made, &path("sink")).unwrap();
        assert!(verdict.is_good());
        assert_eq!((phases[0].accepted, phases[1].accepted), (2, 2));
        assert!((phases[0].accepted_per_s - 2.0 / 0.51).abs() < 0.01);
        assert!((phases[0].relayed_per_s - 2.0).abs() < 0.01);
        // The first of each phase is warm-up.
        assert_eq!((phases[0].accept.count, phases[1].end_to_end.count), (1, 1));
        assert!((phases[0].accept.max_ms - 10.0).abs() < 0.1);
        assert!((phases[1].from_s - 2.0).abs() < 0.01);
        assert_eq!(timeline.accepted_per_s.len(), 17);
        assert_eq!(timeline.accepted_per_s.iter().sum::<f64>() * timeline.bin_s, 4.0);
        assert_eq!(timeline.relayed_per_s[16], 4.0);
    }
}
