//! The command line of `ringpost-compare`. Every option is documented in
//! `docs/man/ringpost-compare.md`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use super::server::Mode;
use crate::values::{self, Cores};

/// Measures mail servers against each other.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "ringpost-compare",
    version,
    about = "Measures mail servers on this machine against each other, in turn in one run"
)]
pub struct Options {
    /// A server of your own, described by this TOML file; may be repeated
    #[arg(long, value_name = "FILE")]
    pub server: Vec<PathBuf>,
    /// Only servers of these names [default: all that are installed]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub only: Vec<String>,
    /// What the servers do with the mail
    #[arg(long, value_name = "MODE", value_delimiter = ',', default_value = "accept,relay")]
    pub modes: Vec<Mode>,
    /// Connections at a time
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,10,100,500", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: Vec<u32>,
    /// Sizes of the messages
    #[arg(long, value_name = "SIZE", value_delimiter = ',', default_value = "4KiB,100KiB", value_parser = values::size)]
    pub sizes: Vec<u64>,
    /// Without and with PIPELINING
    #[arg(long, value_name = "WHETHER", value_delimiter = ',', default_value = "no,yes")]
    pub pipelining: Vec<Whether>,
    /// Without TLS, over kept TLS connections, over a new one for each message; TLS is
    /// for accepting, of the first size and way of pipelining [default: all]
    #[arg(long, value_name = "HOW", value_delimiter = ',')]
    pub tls: Vec<Tls>,
    /// How long mail is sent in each measurement, behind a warm-up of up to 2 seconds
    #[arg(long, value_name = "SPAN", default_value = "3s", value_parser = values::span)]
    pub duration: Duration,
    /// How long a queue may take to drain behind that; what is relayed then counts
    #[arg(long, value_name = "SPAN", default_value = "6s", value_parser = values::span)]
    pub drain: Duration,
    /// Begin no other setting after this time, however much is left; 0s for no end
    #[arg(long, value_name = "SPAN", default_value = "25m", value_parser = values::span)]
    pub within: Duration,
    /// How often each is measured, if there is time; the table has the medians
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Idle connections to measure the memory of one by; 0 for not at all
    #[arg(long, value_name = "N", default_value_t = 400)]
    pub idle: u32,
    /// Cores of the servers [default: half of all for accepting, all for relaying]
    #[arg(long, value_name = "CORES", value_parser = values::cores)]
    pub server_cores: Option<Cores>,
    /// Cores of load and sink [default: the other half for accepting, all for
    /// relaying]
    #[arg(long, value_name = "CORES", value_parser = values::cores)]
    pub load_cores: Option<Cores>,
    /// Folder for queues, on the disk that is to be measured
    #[arg(long, value_name = "DIR", default_value = "compare-data")]
    pub data: PathBuf,
    /// File that the table is written to [default: benches/record/compare-HOST.md
    /// if there is that folder, else compare-HOST.md]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Write every measurement as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// A small run, to see that everything works: 10 connections, 4 KiB, one
    /// round of half a second, no file unless --out is given
    #[arg(long)]
    pub quick: bool,
}

/// Without or with something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Whether {
    /// Without.
    No,
    /// With.
    Yes,
}

/// Whether and how mail is sent over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// In the clear.
    No,
    /// Over connections that are kept.
    Kept,
    /// Over a new connection for each message, with a whole handshake.
    New,
}

impl ValueEnum for Mode {
    fn value_variants<'a>() -> &'a [Self] {
        &[Mode::Accept, Mode::Relay]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.name()))
    }
}

/// One setting that all servers are measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Setting {
    /// What they do.
    pub mode: Mode,
    /// Octets of a message.
    pub size: u64,
    /// With PIPELINING.
    pub pipelining: bool,
    /// Over TLS.
    pub tls: Tls,
    /// Connections at a time.
    pub connections: u32,
}

impl Options {
    /// With what `--quick` means filled in.
    pub fn settled(mut self) -> Self {
        if self.tls.is_empty() {
            let all = [Tls::No, Tls::Kept, Tls::New];
            self.tls = if self.quick { vec![Tls::No] } else { all.to_vec() };
        }
        if self.quick {
            self.connections = vec![10];
            self.sizes = vec![4096];
            self.pipelining = vec![Whether::No];
            self.duration = Duration::from_millis(500);
            self.rounds = 1;
            self.idle = self.idle.min(20);
        }
        self
    }

    /// Every setting, in the order of the tables.
    pub fn settings(&self) -> Vec<Setting> {
        let mut all = Vec::new();
        let modes = self.modes.iter().filter(|_| self.tls.contains(&Tls::No));
        for &mode in modes {
            for &size in &self.sizes {
                for &pipelining in &self.pipelining {
                    for &connections in &self.connections {
                        let pipelining = pipelining == Whether::Yes;
                        let tls = Tls::No;
                        all.push(Setting { mode, size, pipelining, tls, connections });
                    }
                }
            }
        }
        let tls = self.tls.iter().filter(|tls| **tls != Tls::No);
        for &tls in tls.filter(|_| self.modes.contains(&Mode::Accept)) {
            let (mode, size) = (Mode::Accept, self.sizes[0]);
            let pipelining = self.pipelining[0] == Whether::Yes;
            let of = |&connections| Setting { mode, size, pipelining, tls, connections };
            all.extend(self.connections.iter().map(of));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
        let options = Options::parse_from(["ringpost-compare"]).settled();
        assert_eq!(options.settings().len(), 2 * 2 * 2 * 4 + 2 * 4);
        let quick = Options::parse_from(["ringpost-compare", "--quick", "--modes=relay"]).settled();
        let (size, pipelining, connections) = (4096, false, 10);
        let setting = |mode, tls| Setting { mode, size, pipelining, tls, connections };
        assert_eq!(quick.settings(), [setting(Mode::Relay, Tls::No)]);
        let given = ["ringpost-compare", "--quick", "--tls=new,kept"];
        let over_tls = [setting(Mode::Accept, Tls::New), setting(Mode::Accept, Tls::Kept)];
        assert_eq!(Options::parse_from(given).settled().settings(), over_tls);
        assert!(Options::try_parse_from(["ringpost-compare", "--modes=keep"]).is_err());
    }
}
