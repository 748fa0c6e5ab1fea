//! The command line of `ringpost-load`. Every option is documented in
//! `docs/man/ringpost-load.md`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::profile::{self, Shape};
use super::security::Security;
use super::sizes::Sizes;
use crate::dist::Dist;
use crate::pattern::{self, Pattern};
use crate::values::{self, Cores};

/// Load generator for SMTP servers.
#[derive(Debug, Parser)]
#[command(
    name = "ringpost-load",
    version,
    about = "Sends mail over many connections and measures what the server makes of it",
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Cli {
    /// What to do instead of a run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The run.
    #[command(flatten)]
    pub options: Options,
}

/// What else the tool does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Hold the ledger of a run against the sink's: nothing lost, nothing damaged
    Verify(VerifyOptions),
    /// Compare two results written with --json: ratios, and which of them are
    /// beyond noise
    Diff(DiffOptions),
}

/// Options of `diff`.
#[derive(Debug, Args)]
pub struct DiffOptions {
    /// Result to compare with; several of one kind are separated by commas
    #[arg(value_name = "A", value_delimiter = ',', required = true, num_args = 1)]
    pub before: Vec<PathBuf>,
    /// Result that is compared
    #[arg(value_name = "B", value_delimiter = ',', required = true, num_args = 1)]
    pub after: Vec<PathBuf>,
    /// Print the comparison as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `verify`.
#[derive(Debug, Args)]
pub struct VerifyOptions {
    /// Ledger written by ringpost-load; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    pub sent: Vec<PathBuf>,
    /// Ledger written by ringpost-sink
    #[arg(long, value_name = "FILE")]
    pub received: PathBuf,
    /// Print the verdict as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of a run.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Server to load
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:2525")]
    pub target: String,
    /// Connections open at a time, over all cores
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections: u32,
    /// Open at most so many connections at a time: the next when one has been
    /// greeted [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub opening: Option<u32>,
    /// End after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub messages: Option<u64>,
    /// End after this time [default: 10s, unless --messages is given]
    #[arg(long, value_name = "SPAN", value_parser = values::span)]
    pub duration: Option<Duration>,
    /// Begin messages at this rate whether the server keeps up or not, and
    /// measure from when each should have begun (open loop)
    #[arg(long, value_name = "N/s", value_parser = values::rate, group = "open")]
    pub rate: Option<f64>,
    /// Open loop at a rate that rises or falls evenly from the first to the
    /// second over --duration
    #[arg(long, value_name = "N/s..N/s", value_parser = profile::ramp, group = "open")]
    pub ramp: Option<Shape>,
    /// Open loop at each of these rates for an equal part of --duration; a list,
    /// or first, last and how many: "1000/s..8000/s:8"
    #[arg(long, value_name = "RATES", value_parser = profile::steps, group = "open")]
    pub steps: Option<Shape>,
    /// Find the highest rate at which 99 of 100 messages are answered within
    /// this time, by short runs of --duration [default: 3s] each
    #[arg(long, value_name = "P99", value_parser = values::span, conflicts_with_all = ["open", "messages", "ledger", "hgrm", "tls_hgrm"])]
    pub find_knee: Option<Duration>,
    /// Size of the messages, or a mix with weights: "4KiB:80,100KiB:20"
    #[arg(long, value_name = "SIZES", default_value = "4KiB")]
    pub size: Sizes,
    /// Send the .eml files of this folder in turn instead
    #[arg(long, value_name = "DIR", conflicts_with_all = ["size", "corpus", "template"])]
    pub eml: Option<PathBuf>,
    /// Send the messages that ship with the tool in turn instead
    #[arg(long, conflicts_with_all = ["size", "template"])]
    pub corpus: bool,
    /// Send this message with its counters filled in instead: {n} of the
    /// message, {connection}, {n%100} and so on; several take turns
    #[arg(long, value_name = "FILE", conflicts_with = "size")]
    pub template: Vec<PathBuf>,
    /// Recipients of each message
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub recipients: u32,
    /// Messages on one connection before it is closed and made anew [default:
    /// no end]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub messages_per_connection: Option<u64>,
    /// Wait so long between an answer and the next message of a connection: a
    /// span, or a distribution as in "5ms..200ms", "exp:20ms", "p50=5ms,p99=1s"
    #[arg(long, value_name = "SPAN", default_value = "0s", conflicts_with_all = ["open", "find_knee"])]
    pub think_time: Dist,
    /// Have this share of the connections read replies at so many octets a
    /// second only
    #[arg(long, value_name = "SHARE:OCTETS/s")]
    pub slow_reader: Option<SlowReader>,
    /// Connect from these local addresses in turn
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub bind: Vec<IpAddr>,
    /// Use PIPELINING if the server offers it: a round trip for a message
    #[arg(long)]
    pub pipelining: bool,
    /// Send messages by BDAT (CHUNKING), not by DATA; with --pipelining in one write
    /// with the envelope
    #[arg(long)]
    pub bdat: bool,
    /// TLS and authentication
    #[command(flatten)]
    pub security: Security,
    /// Envelope sender; may have the counters {n} and {connection}
    #[arg(long, value_name = "ADDRESS", default_value = "load@example.org", value_parser = pattern::address)]
    pub from: String,
    /// Envelope recipient; with --recipients, USER, USER+1, USER+2 and so on,
    /// unless it has the counter {recipient}; {n} and {connection} too
    #[arg(long, value_name = "ADDRESS", default_value = "sink@example.net", value_parser = pattern::address)]
    pub to: String,
    /// Name said in EHLO
    #[arg(long, value_name = "NAME", default_value = "load.ringpost.invalid")]
    pub helo: String,
    /// Leave out of the figures what begins within this time
    #[arg(long, value_name = "SPAN", default_value = "0s", value_parser = values::span)]
    pub warmup: Duration,
    /// How long the server may take for a reply
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = values::span)]
    pub timeout: Duration,
    /// Cores to use: "all", a count, or a list as in "0-3,8"
    #[arg(long, value_name = "CORES", default_value = "1", value_parser = values::cores)]
    pub cores: Cores,
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the distribution of accept latencies for HdrHistogram plotters
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
    /// Write a page with charts
    #[arg(long, value_name = "FILE", conflicts_with = "find_knee")]
    pub html: Option<PathBuf>,
    /// Write a line for each message answered 250, for `verify`
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// Say how it goes in plain lines, also on a terminal
    #[arg(long)]
    pub plain: bool,
    /// Say nothing until the end
    #[arg(long, conflicts_with = "plain")]
    pub quiet: bool,
}

/// Connections that read slowly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowReader {
    /// How many of all.
    pub share: f64,
    /// At how many octets a second.
    pub octets_per_s: u32,
}

impl FromStr for SlowReader {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("\"{text}\": the form is SHARE:OCTETS/s, as in \"10%:50/s\"");
        let (share, rate) = text.split_once(':').ok_or_else(form)?;
        let octets = rate.strip_suffix("/s").unwrap_or(rate).parse().ok();
        let octets_per_s = octets.filter(|octets| *octets > 0).ok_or_else(form)?;
        Ok(SlowReader { share: values::share(share)?, octets_per_s })
    }
}

impl SlowReader {
    /// Whether connection `number` is one: they are spread evenly.
    pub fn takes(&self, number: u64) -> bool {
        let whole = |number: u64| (number as f64 * self.share) as u64;
        whole(number + 1) > whole(number)
    }
}

impl Options {
    /// When the run ends by time; never when only a number of messages is given.
    pub fn end_after(&self) -> Option<Duration> {
        let shaped = self.ramp.is_some() || self.steps.is_some();
        match (self.duration, self.messages) {
            (None, Some(_)) if !shaped => None,
            (duration, _) => Some(duration.unwrap_or(Duration::from_secs(10))),
        }
    }

    /// The files that results are written to.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let all = [&self.json, &self.hgrm, &self.html, &self.ledger, &self.security.tls_hgrm];
        all.into_iter().filter_map(|path| path.as_deref())
    }

    /// The rates of an open loop; `None` for a closed one.
    pub fn shape(&self) -> Option<Shape> {
        let constant = self.rate.map(Shape::Constant);
        constant.or_else(|| self.ramp.clone()).or_else(|| self.steps.clone())
    }

    /// The mail in words.
    pub fn mail(&self) -> String {
        match (&self.eml, self.template.len()) {
            (Some(dir), _) => format!("files of {}", dir.display()),
            (None, 0) if self.corpus => "the corpus".into(),
            (None, 0) => self.size.to_string(),
            (None, 1) => format!("template {}", self.template[0].display()),
            (None, count) => format!("{count} templates"),
        }
    }

    /// The recipients of each message, their counters not filled in.
    pub fn recipient_list(&self) -> Vec<String> {
        if Pattern::parse(self.to.as_bytes()).counts_recipients() {
            return vec![self.to.clone(); self.recipients as usize];
        }
        let (user, domain) = self.to.rsplit_once('@').unwrap_or((&self.to, ""));
        let numbered = |index: u32| match (index, domain) {
            (0, _) => self.to.clone(),
            (_, "") => format!("{user}+{index}"),
            _ => format!("{user}+{index}@{domain}"),
        };
        (0..self.recipients).map(numbered).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let cli = Cli::parse_from(["ringpost-load", "--rate", "500/s", "--recipients", "3"]);
        assert_eq!(cli.options.rate, Some(500.0));
        assert_eq!(cli.options.end_after(), Some(Duration::from_secs(10)));
        let recipients = ["sink@example.net", "sink+1@example.net", "sink+2@example.net"];
        assert_eq!(cli.options.recipient_list(), recipients);
        let cli = Cli::parse_from(["ringpost-load", "--messages", "5"]);
        assert_eq!(cli.options.end_after(), None);
        let both = ["ringpost-load", "--rate", "5", "--ramp", "1..2"];
        assert!(Cli::try_parse_from(both).is_err());
        let closed = ["ringpost-load", "--rate", "5", "--think-time", "1s"];
        assert!(Cli::try_parse_from(closed).is_err());
        let knee = ["ringpost-load", "--find-knee", "10ms", "--steps", "1,2"];
        assert!(Cli::try_parse_from(knee).is_err());
        let ramp = Cli::parse_from(["ringpost-load", "--ramp", "1..9", "--messages", "5"]).options;
        assert_eq!(ramp.shape(), Some(Shape::Ramp(1.0, 9.0)));
        assert_eq!(ramp.end_after(), Some(Duration::from_secs(10)));
        let diff = ["ringpost-load", "diff", "a,b,c", "d", "--json"];
        match Cli::parse_from(diff).command {
            Some(Command::Diff(diff)) => assert_eq!((diff.before.len(), diff.after.len()), (3, 1)),
            other => panic!("{other:?}"),
        }
        let verify = ["ringpost-load", "verify", "--sent", "a", "--received", "b"];
        assert!(matches!(Cli::parse_from(verify).command, Some(Command::Verify(_))));
        assert!(Cli::try_parse_from(["ringpost-load", "--corpus", "--eml", "x"]).is_err());
    }

    #[test]
    fn slow_readers_are_spread_evenly() {
        let slow: SlowReader = "25%:50/s".parse().unwrap();
        assert_eq!(slow.octets_per_s, 50);
        let taken: Vec<u64> = (0..12).filter(|number| slow.takes(*number)).collect();
        assert_eq!(taken, [3, 7, 11]);
        for bad in ["", "5%", "5%:0", "5%:x", "200%:5/s"] {
            assert!(bad.parse::<SlowReader>().is_err(), "{bad}");
        }
    }

    #[test]
    fn recipients_may_have_counters() {
        let all = |to: &str| {
            let given = ["ringpost-load", "--recipients", "2", "--to", to];
            Cli::parse_from(given).options.recipient_list()
        };
        assert_eq!(all("r{recipient}@x.example"), ["r{recipient}@x.example"; 2]);
        assert_eq!(all("u{n}@x.example"), ["u{n}@x.example", "u{n}+1@x.example"]);
        assert!(Cli::try_parse_from(["ringpost-load", "--to", "{who}@x.example"]).is_err());
    }
}
