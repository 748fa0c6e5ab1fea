//! The command line of `ringpost-load`. Every option is documented in
//! `docs/man/ringpost-load.md`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

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
    /// End after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub messages: Option<u64>,
    /// End after this time [default: 10s, unless --messages is given]
    #[arg(long, value_name = "SPAN", value_parser = values::span)]
    pub duration: Option<Duration>,
    /// Begin messages at this rate whether the server keeps up or not, and
    /// measure from when each should have begun (open loop)
    #[arg(long, value_name = "N/s", value_parser = values::rate)]
    pub rate: Option<f64>,
    /// Size of the messages
    #[arg(long, value_name = "SIZE", default_value = "4KiB", value_parser = values::size)]
    pub size: u64,
    /// Send the .eml files of this folder in turn instead
    #[arg(long, value_name = "DIR", conflicts_with_all = ["size", "corpus"])]
    pub eml: Option<PathBuf>,
    /// Send the messages that ship with the tool in turn instead
    #[arg(long, conflicts_with = "size")]
    pub corpus: bool,
    /// Recipients of each message
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub recipients: u32,
    /// Messages on one connection before it is closed and made anew [default:
    /// no end]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub messages_per_connection: Option<u64>,
    /// Use PIPELINING if the server offers it: a round trip for a message
    #[arg(long)]
    pub pipelining: bool,
    /// Envelope sender
    #[arg(long, value_name = "ADDRESS", default_value = "load@example.org")]
    pub from: String,
    /// Envelope recipient; with --recipients, USER, USER+1, USER+2 and so on
    #[arg(long, value_name = "ADDRESS", default_value = "sink@example.net")]
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
    /// Write a line for each message answered 250, for `verify`
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
}

impl Options {
    /// When the run ends by time; never when only a number of messages is given.
    pub fn end_after(&self) -> Option<Duration> {
        match (self.duration, self.messages) {
            (None, None) => Some(Duration::from_secs(10)),
            (duration, _) => duration,
        }
    }

    /// The recipients of each message.
    pub fn recipient_list(&self) -> Vec<String> {
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
        let verify = ["ringpost-load", "verify", "--sent", "a", "--received", "b"];
        assert!(matches!(Cli::parse_from(verify).command, Some(Command::Verify(_))));
        assert!(Cli::try_parse_from(["ringpost-load", "--corpus", "--eml", "x"]).is_err());
    }
}
