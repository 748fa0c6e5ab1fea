//! The result of a run: as text on standard output, as JSON, and as a
//! distribution for HdrHistogram's plotters.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::time::Instant;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::figures::Figures;
use super::options::Options;
use crate::latency::{self, Percentiles};
use crate::machine::Machine;

/// What a run came to.
#[derive(Serialize)]
pub struct Report {
    /// Version of the tool.
    pub version: &'static str,
    /// What it ran on.
    pub machine: Machine,
    /// The server.
    pub target: String,
    /// How the load was made.
    pub load: Load,
    /// From the end of the warm-up to the last acceptance, in seconds.
    pub seconds: f64,
    /// Messages by their fate.
    pub messages: Messages,
    /// Messages accepted each second.
    pub messages_per_s: f64,
    /// Megabytes (10^6) of messages accepted each second.
    pub megabytes_per_s: f64,
    /// How long things took.
    pub latency: Latency,
    /// Everything that was not 2xx, by kind.
    pub failures: Vec<Failure>,
    /// Processor time of the load generator, in seconds.
    pub cpu_s: f64,
    /// True if a signal ended the run.
    pub interrupted: bool,
    #[serde(skip)]
    accept: Histogram<u64>,
    #[serde(skip)]
    connect: Histogram<u64>,
    #[serde(skip)]
    first_reply: Histogram<u64>,
}

/// How the load was made.
#[derive(Serialize)]
pub struct Load {
    /// "closed" or "open".
    pub r#loop: &'static str,
    /// Intended messages each second, of an open loop.
    pub rate: Option<f64>,
    /// Connections at a time.
    pub connections: u32,
    /// Octets of a message; `None` when files were sent.
    pub size: Option<u64>,
    /// Recipients of a message.
    pub recipients: u32,
    /// Messages on a connection.
    pub messages_per_connection: Option<u64>,
    /// Whether PIPELINING was used where offered.
    pub pipelining: bool,
    /// Cores used.
    pub cores: usize,
}

/// Messages by their fate; the warm-up is left out of the first three.
#[derive(Serialize)]
pub struct Messages {
    /// Answered 250.
    pub accepted: u64,
    /// Their octets.
    pub accepted_bytes: u64,
    /// Their recipients that were accepted.
    pub accepted_recipients: u64,
    /// Answered 250, the warm-up counted: what the ledger holds.
    pub accepted_in_all: u64,
    /// Refused, whole.
    pub refused: u64,
    /// Under way when their connection ended.
    pub unanswered: u64,
}

/// How long things took.
#[derive(Serialize)]
pub struct Latency {
    /// connect(2).
    pub connect: Percentiles,
    /// From the connection to the greeting.
    pub first_reply: Percentiles,
    /// From a message's start (open loop: its intended start) to its 250.
    pub accept: Percentiles,
}

/// A kind of failure.
#[derive(Serialize)]
pub struct Failure {
    /// At which step.
    pub stage: &'static str,
    /// Code and enhanced code, or the error.
    pub what: String,
    /// Words of the first such reply.
    pub example: String,
    /// How often.
    pub count: u64,
}

impl Report {
    /// Sums up `figures`.
    pub fn new(
        options: &Options,
        figures: Figures,
        measure_from: Instant,
        (cpu_s, cores): (f64, usize),
        interrupted: bool,
    ) -> Self {
        let span = figures.last.map(|last| last.saturating_duration_since(measure_from));
        let seconds = span.unwrap_or_default().as_secs_f64();
        let each_second = |count: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
        let files = options.eml.is_some() || options.corpus;
        let mut failures: Vec<Failure> = figures
            .failures
            .into_iter()
            .map(|(kind, (count, example))| Failure {
                stage: kind.stage,
                what: kind.what,
                example,
                count,
            })
            .collect();
        failures.sort_by_key(|failure| std::cmp::Reverse(failure.count));
        Report {
            version: env!("CARGO_PKG_VERSION"),
            machine: Machine::here(),
            target: options.target.clone(),
            load: Load {
                r#loop: if options.rate.is_some() { "open" } else { "closed" },
                rate: options.rate,
                connections: options.connections,
                size: (!files).then_some(options.size),
                recipients: options.recipients,
                messages_per_connection: options.messages_per_connection,
                pipelining: options.pipelining,
                cores,
            },
            seconds,
            messages: Messages {
                accepted: figures.accepted,
                accepted_bytes: figures.accepted_bytes,
                accepted_recipients: figures.accepted_recipients,
                accepted_in_all: figures.accepted_ever,
                refused: figures.refused,
                unanswered: figures.unanswered,
            },
            messages_per_s: each_second(figures.accepted as f64),
            megabytes_per_s: each_second(figures.accepted_bytes as f64 / 1e6),
            latency: Latency {
                connect: Percentiles::from(&figures.connect),
                first_reply: Percentiles::from(&figures.first_reply),
                accept: Percentiles::from(&figures.accept),
            },
            failures,
            cpu_s,
            interrupted,
            accept: figures.accept,
            connect: figures.connect,
            first_reply: figures.first_reply,
        }
    }

    /// Writes the files that the options name.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write_files(&self, options: &Options) -> io::Result<()> {
        if let Some(path) = &options.json {
            let mut file = BufWriter::new(File::create(path)?);
            serde_json::to_writer_pretty(&mut file, self)?;
            writeln!(file)?;
            file.flush()?;
        }
        if let Some(path) = &options.hgrm {
            let mut file = BufWriter::new(File::create(path)?);
            latency::write_hgrm(&mut file, &self.accept)?;
            file.flush()?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let load = &self.load;
        write!(f, "{}: {} connections", self.target, load.connections)?;
        match load.rate {
            Some(rate) => write!(f, ", open loop at {rate:.0}/s")?,
            None => write!(f, ", closed loop")?,
        }
        if let Some(size) = load.size {
            write!(f, ", {size} octets")?;
        }
        write!(f, ", {} recipient(s)", load.recipients)?;
        writeln!(f, "{}", if load.pipelining { ", pipelining" } else { "" })?;
        if self.interrupted {
            writeln!(f, "interrupted")?;
        }
        writeln!(
            f,
            "\n{:.0} messages/s   {:.1} MB/s   {} accepted in {:.2} s",
            self.messages_per_s, self.megabytes_per_s, self.messages.accepted, self.seconds
        )?;
        if self.messages.refused + self.messages.unanswered > 0 {
            let Messages { refused, unanswered, .. } = self.messages;
            writeln!(f, "{refused} refused   {unanswered} unanswered")?;
        }
        writeln!(f, "\nlatency, ms")?;
        latency::write_table(
            f,
            &[
                ("connect", &self.connect),
                ("first reply", &self.first_reply),
                ("accept", &self.accept),
            ],
        )?;
        if !self.failures.is_empty() {
            writeln!(f, "\nnot 2xx:")?;
            for Failure { stage, what, example, count } in &self.failures {
                writeln!(f, "{count:>10}  {stage}: {what} {example}")?;
            }
        }
        writeln!(
            f,
            "\nload generator: {:.2} s of processor time on {} core(s)",
            self.cpu_s, load.cores
        )
    }
}
