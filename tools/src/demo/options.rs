//! The command line of `ringpost-demo`. Every option is documented in
//! `docs/man/ringpost-demo.md`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use ringpost::base::Durability;

use crate::values;

/// The demonstration.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "ringpost-demo",
    version,
    about = "Relays mail through ringpost on this machine, and shows how fast, how durably and \
             whether all of it arrived",
    after_help = "Everything stays on loopback. The results are in --out: latency.svg, \
                  result.json, the ledgers and the server's configuration."
)]
pub struct Options {
    /// How long mail is sent, three fifths of it flat out, the rest at half load
    #[arg(long, value_name = "SPAN", default_value = "15s", value_parser = values::span)]
    pub duration: Duration,
    /// Connections to the server at a time
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub connections: u32,
    /// Send the .eml files of this folder [default: the mail that ships with the
    /// tool]
    #[arg(long, value_name = "DIR", conflicts_with = "size")]
    pub eml: Option<PathBuf>,
    /// Send generated messages of this size instead
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub size: Option<u64>,
    /// What the server's 250 waits for: "sync", "os" or "memory"
    #[arg(long, value_name = "MODE", default_value = "sync")]
    pub durability: Durability,
    /// Where queue, ledgers and results go; on the disk that is to be shown
    #[arg(long, value_name = "DIR", default_value = "demo-result")]
    pub out: PathBuf,
}

/// Shortest duration that shows anything.
const DURATION_MIN: Duration = Duration::from_secs(2);

impl Options {
    /// The two phases' lengths.
    ///
    /// # Errors
    /// The duration is too short to show anything.
    pub fn phases(&self) -> Result<[Duration; 2], String> {
        if self.duration < DURATION_MIN {
            return Err(format!("--duration: at least {} s", DURATION_MIN.as_secs()));
        }
        let flat_out = self.duration.mul_f64(0.6);
        Ok([flat_out, self.duration - flat_out])
    }

    /// What is sent, in words.
    pub fn mail(&self) -> String {
        match (&self.eml, self.size) {
            (Some(dir), _) => format!("messages of {}", dir.display()),
            (None, None) => "mail of many kinds".into(),
            (None, Some(size)) if size % 1024 == 0 => format!("{} KiB messages", size / 1024),
            (None, Some(size)) => format!("{size}-octet messages"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
        let options = Options::parse_from(["ringpost-demo", "--durability", "os"]);
        assert_eq!(options.durability, Durability::Os);
        assert_eq!(options.phases(), Ok([Duration::from_secs(9), Duration::from_secs(6)]));
        assert_eq!(options.mail(), "mail of many kinds");
        let sized = Options::parse_from(["ringpost-demo", "--size", "4KiB"]);
        assert_eq!(sized.mail(), "4 KiB messages");
        let short = Options::parse_from(["ringpost-demo", "--duration", "1s"]);
        assert!(short.phases().is_err());
    }
}
