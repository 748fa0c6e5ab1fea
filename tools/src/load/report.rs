//! The result of a run: as text on standard output, as JSON, as a distribution
//! for HdrHistogram's plotters, and as a page with charts (`super::html`).

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::figures::Figures;
use super::html;
use super::options::Options;
use super::profile::{Profile, Shape};
use super::series::Timeline;
use crate::latency::{self, Percentiles};
use crate::machine::Machine;
use crate::text::counted;
use crate::values::TlsStart;

/// What a run came to.
#[derive(Serialize)]
pub struct Report {
    /// Version of the tool.
    pub version: &'static str,
    /// How the tool was called; empty if it was not from a command line.
    pub command_line: String,
    /// When the run ended, in seconds since the epoch.
    pub ended_unix_s: u64,
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
    /// TLS connections made, if they were.
    pub tls: Option<Handshakes>,
    /// How long things took.
    pub latency: Latency,
    /// The parts of a ramp or of steps.
    pub parts: Vec<Part>,
    /// The run over time.
    pub timeline: Timeline,
    /// Everything that was not 2xx, by kind.
    pub failures: Vec<Failure>,
    /// Processor time of the load generator, in seconds.
    pub cpu_s: f64,
    /// True if a signal ended the run.
    pub interrupted: bool,
    #[serde(skip)]
    pub(super) accept: Histogram<u64>,
    #[serde(skip)]
    pub(super) connect: Histogram<u64>,
    #[serde(skip)]
    pub(super) first_reply: Histogram<u64>,
    #[serde(skip)]
    pub(super) handshake: Histogram<u64>,
}

/// TLS connections made.
#[derive(Serialize)]
pub struct Handshakes {
    /// Version and cipher of the first: "TLS1.3 TLS_AES_256_GCM_SHA384".
    pub cipher: String,
    /// How many there were behind the warm-up.
    pub handshakes: u64,
    /// Of those each second.
    pub handshakes_per_s: f64,
    /// Those of all, the warm-up counted, that resumed an earlier session.
    pub resumed: u64,
}

/// How the load was made.
#[derive(Serialize)]
pub struct Load {
    /// "closed" or "open".
    pub r#loop: &'static str,
    /// Intended messages each second, of an open loop at one rate.
    pub rate: Option<f64>,
    /// Where the rate of an open loop began and ended, if it changed.
    pub rates: Option<(f64, f64)>,
    /// Connections at a time.
    pub connections: u32,
    /// Octets of a message; `None` when files or a mix were sent.
    pub size: Option<u64>,
    /// The mail in words.
    pub mail: String,
    /// Recipients of a message.
    pub recipients: u32,
    /// Messages on a connection.
    pub messages_per_connection: Option<u64>,
    /// Whether PIPELINING was used where offered.
    pub pipelining: bool,
    /// Whether messages went by BDAT.
    pub bdat: bool,
    /// "starttls" or "implicit".
    pub tls: Option<&'static str>,
    /// Whether TLS sessions were resumed where they could be.
    pub tls_resume: bool,
    /// Whether sessions were authenticated.
    pub auth: bool,
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
    /// Handshakes of TLS; `None` without.
    pub handshake: Option<Percentiles>,
    /// From a message's start (open loop: its intended start) to its 250.
    pub accept: Percentiles,
}

/// Part of a ramp, or one of the steps.
#[derive(Serialize)]
pub struct Part {
    /// From the start of the run.
    pub from_s: f64,
    /// Its end.
    pub until_s: f64,
    /// Messages a second that were to begin, on average.
    pub intended_per_s: f64,
    /// Messages a second that were accepted during it.
    pub accepted_per_s: f64,
    /// From a message's intended start to its 250, of those that began in it.
    pub accept: Percentiles,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}: {} {}", self.stage, self.what, self.example);
        f.write_str(text.trim_end())
    }
}

/// What a report is made of besides figures and options.
pub struct Conditions {
    /// The warm-up.
    pub measured_from: Duration,
    /// From the start to the end.
    pub ended: Duration,
    /// Of an open loop.
    pub profile: Option<Arc<Profile>>,
    /// From the start to when the last message should have begun; `None` if none
    /// was the last.
    pub intended_until: Option<Duration>,
    /// Processor time used.
    pub cpu_s: f64,
    /// Cores used.
    pub cores: usize,
    /// A signal ended the run.
    pub interrupted: bool,
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
    pub fn new(options: &Options, figures: Figures, conditions: &Conditions) -> Self {
        let Conditions { measured_from, cpu_s, interrupted, .. } = *conditions;
        let span = figures.last_after().map(|last| last.saturating_sub(measured_from));
        let seconds = span.unwrap_or_default().as_secs_f64();
        let parts = parts(&figures, conditions);
        let timeline = timeline(&figures, conditions);
        let each_second = |count: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
        let tls = figures.cipher.clone().map(|cipher| Handshakes {
            cipher,
            handshakes: figures.handshakes,
            handshakes_per_s: each_second(figures.handshakes as f64),
            resumed: figures.resumed,
        });
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
            command_line: String::new(),
            ended_unix_s: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            machine: Machine::here(),
            target: options.target.clone(),
            load: Load::new(options, conditions.cores),
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
                handshake: tls.is_some().then(|| Percentiles::from(&figures.handshake)),
                connect: Percentiles::from(&figures.connect),
                first_reply: Percentiles::from(&figures.first_reply),
                accept: Percentiles::from(&figures.accept),
            },
            tls,
            parts,
            timeline,
            failures,
            cpu_s,
            interrupted,
            accept: figures.accept,
            connect: figures.connect,
            first_reply: figures.first_reply,
            handshake: figures.handshake,
        }
    }

    /// What was measured of time, by name.
    pub(super) fn histograms(&self) -> impl Iterator<Item = (&'static str, &Histogram<u64>)> {
        let handshake = self.tls.as_ref().map(|_| ("handshake", &self.handshake));
        let first = [("connect", &self.connect), ("first reply", &self.first_reply)];
        first.into_iter().chain(handshake).chain([("accept", &self.accept)])
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
        if let Some(path) = &options.security.tls_hgrm {
            let mut file = BufWriter::new(File::create(path)?);
            latency::write_hgrm(&mut file, &self.handshake)?;
            file.flush()?;
        }
        if let Some(path) = &options.html {
            std::fs::write(path, html::page(self))?;
        }
        Ok(())
    }
}

impl Load {
    /// That of `options`.
    pub fn new(options: &Options, cores: usize) -> Self {
        let sizes = options.eml.is_none() && !options.corpus && options.template.is_empty();
        Load {
            r#loop: if options.shape().is_some() { "open" } else { "closed" },
            rate: options.rate,
            rates: match options.shape() {
                Some(Shape::Ramp(from, to)) => Some((from, to)),
                Some(Shape::Steps(rates)) => Some((rates[0], rates[rates.len() - 1])),
                _ => None,
            },
            connections: options.connections,
            size: options.size.single().filter(|_| sizes),
            mail: options.mail(),
            recipients: options.recipients,
            messages_per_connection: options.messages_per_connection,
            pipelining: options.pipelining,
            bdat: options.bdat,
            tls: options.security.tls.map(TlsStart::name),
            tls_resume: options.security.tls_resume,
            auth: options.security.auth.is_some(),
            cores,
        }
    }

    /// How the mail is sent beside plainly, in words that follow others.
    pub fn ways(&self) -> String {
        let resumed = if self.tls_resume { " resumed" } else { "" };
        let tls = self.tls.map(|how| format!("TLS ({how}){resumed}"));
        let named = |name: &str, is_so: bool| is_so.then(|| name.to_owned());
        let all = [named("pipelining", self.pipelining), named("BDAT", self.bdat), tls];
        let all = all.into_iter().chain([named("AUTH", self.auth)]).flatten();
        all.fold(String::new(), |text, one| text + ", " + &one)
    }

    /// The loop and its rate in words.
    pub fn pace(&self) -> String {
        match (self.rate, self.rates) {
            (Some(rate), _) => format!("open loop at {rate:.0}/s"),
            (None, Some((from, to))) => format!("open loop from {from:.0}/s to {to:.0}/s"),
            (None, None) => "closed loop".into(),
        }
    }
}

/// What came of each part of the profile.
fn parts(figures: &Figures, conditions: &Conditions) -> Vec<Part> {
    let parts = conditions.profile.as_ref().map_or(&[][..], |profile| profile.parts());
    let one = |((part, histogram), answered): ((&super::profile::Part, _), &u64)| {
        let histogram: &Histogram<u64> = histogram;
        let span = (part.until - part.from).as_secs_f64().max(1e-9);
        Part {
            from_s: part.from.as_secs_f64(),
            until_s: part.until.as_secs_f64(),
            intended_per_s: part.rate,
            accepted_per_s: *answered as f64 / span,
            accept: Percentiles::from(histogram),
        }
    };
    parts.iter().zip(&figures.parts).zip(&figures.answered).map(one).collect()
}

fn timeline(figures: &Figures, conditions: &Conditions) -> Timeline {
    let Conditions { ended, measured_from, .. } = *conditions;
    let mut timeline = Timeline::new(&figures.series, ended, measured_from);
    if let Some(profile) = &conditions.profile {
        let middle = |index: usize| (index as f64 + 0.5) * timeline.bin_s;
        let over = |at: Duration| conditions.intended_until.is_some_and(|until| at > until);
        timeline.intended_per_s = (0..timeline.accepted_per_s.len())
            .map(|index| Duration::from_secs_f64(middle(index)))
            .map(|at| if over(at) { 0.0 } else { profile.rate_at(at) })
            .collect();
    }
    timeline
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let load = &self.load;
        write!(f, "{}: {}", self.target, counted(load.connections.into(), "connection"))?;
        let recipients = counted(load.recipients.into(), "recipient");
        write!(f, ", {}, {}, {recipients}", load.pace(), load.mail)?;
        writeln!(f, "{}", load.ways())?;
        if self.interrupted {
            writeln!(f, "interrupted")?;
        }
        writeln!(
            f,
            "\n{:.0} messages/s   {:.1} MB/s   {} accepted in {:.2} s",
            self.messages_per_s, self.megabytes_per_s, self.messages.accepted, self.seconds
        )?;
        if let Some(Handshakes { cipher, handshakes, handshakes_per_s, resumed }) = &self.tls {
            write!(f, "{handshakes_per_s:.0} handshakes/s   {cipher}   {handshakes} made")?;
            writeln!(
                f,
                "{}",
                if *resumed > 0 { format!(", {resumed} resumed") } else { "".into() }
            )?;
        }
        if self.messages.refused + self.messages.unanswered > 0 {
            let Messages { refused, unanswered, .. } = self.messages;
            writeln!(f, "{refused} refused   {unanswered} unanswered")?;
        }
        writeln!(f, "\nlatency, ms")?;
        latency::write_table(f, &self.histograms().collect::<Vec<_>>())?;
        if !self.parts.is_empty() {
            writeln!(
                f,
                "\n{:>10}{:>14}{:>14}{:>12}{:>12}",
                "from, s", "intended/s", "accepted/s", "p50, ms", "p99, ms"
            )?;
            for part in &self.parts {
                let Part { from_s, intended_per_s, accepted_per_s, accept, .. } = part;
                let (p50, p99) = (accept.p50_ms, accept.p99_ms);
                writeln!(
                    f,
                    "{from_s:>10.1}{intended_per_s:>14.0}{accepted_per_s:>14.0}{p50:>12.3}{p99:>12.3}"
                )?;
            }
        }
        if !self.failures.is_empty() {
            writeln!(f, "\nnot 2xx:")?;
            for failure in &self.failures {
                writeln!(f, "{:>10}  {failure}", failure.count)?;
            }
        }
        writeln!(
            f,
            "\nload generator: {:.2} s of processor time on {}",
            self.cpu_s,
            counted(load.cores as u64, "core")
        )
    }
}
