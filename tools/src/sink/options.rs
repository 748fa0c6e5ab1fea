//! The command line of `ringpost-sink`. Every option is documented in
//! `docs/man/ringpost-sink.md`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Parser;

use crate::draw::Draw;
use crate::values::{self, Cores};

/// An SMTP server that takes everything, or misbehaves as asked.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "ringpost-sink",
    version,
    about = "Takes mail for tests and measurements: prints, counts, notes, keeps or discards it",
    after_help = "Without --discard, --ledger and --maildir, a line is printed for each message."
)]
pub struct Options {
    /// Address to listen on; port 0 takes a free one; may be repeated
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:2526")]
    pub listen: Vec<SocketAddr>,
    /// Look for the end of each message and at nothing else
    #[arg(long, conflicts_with_all = ["ledger", "maildir"])]
    pub discard: bool,
    /// Write a line for each message taken, for `ringpost-load verify`
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// Keep the messages in this Maildir
    #[arg(long, value_name = "DIR")]
    pub maildir: Option<PathBuf>,
    /// Time before the answer to the end of a message; a range is drawn from
    #[arg(long, value_name = "SPAN[..SPAN]")]
    pub latency: Option<Latency>,
    /// Refuse this share with this code, at connect, mail, rcpt, data or dot
    /// (421 closes too); may be repeated
    #[arg(long, value_name = "CODE:SHARE[:STEP]")]
    pub reject: Vec<Reject>,
    /// Close without an answer after this share of messages, not counting them
    /// as taken
    #[arg(long, value_name = "SHARE", value_parser = values::share, default_value = "0")]
    pub drop_after_dot: f64,
    /// Largest message taken
    #[arg(long, value_name = "SIZE", value_parser = values::size, default_value = "64MiB")]
    pub message_size: u64,
    /// Name said in the greeting
    #[arg(long, value_name = "NAME", default_value = "sink.ringpost.invalid")]
    pub hostname: String,
    /// Cores to use: "all", a count, or a list as in "0-3,8"
    #[arg(long, value_name = "CORES", default_value = "1", value_parser = values::cores)]
    pub cores: Cores,
    /// End when so many messages have been taken
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub messages: Option<u64>,
}

/// How long the answer to a message takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    least: Duration,
    most: Duration,
}

impl Latency {
    /// The time for one answer.
    pub fn draw(&self, draw: &mut Draw) -> Duration {
        self.least + (self.most - self.least).mul_f64(draw.unit())
    }
}

impl FromStr for Latency {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (least, most) = text.split_once("..").unwrap_or((text, text));
        let (least, most) = (values::span(least)?, values::span(most)?);
        if least <= most {
            Ok(Latency { least, most })
        } else {
            Err(format!("\"{text}\": the range ends before it begins"))
        }
    }
}

/// A step at which the sink can refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The greeting.
    Connect,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA.
    Data,
    /// The end of the message.
    Dot,
}

/// A share of commands to refuse.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reject {
    /// With which code.
    pub code: u16,
    /// How many of them.
    pub share: f64,
    /// Where.
    pub step: Step,
}

impl FromStr for Reject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "the form is CODE:SHARE or CODE:SHARE:STEP, as in \"451:5%:dot\"";
        let mut parts = text.split(':');
        let code = parts.next().and_then(|code| code.parse().ok());
        let code = code.filter(|code| (400..=599).contains(code));
        let code = code.ok_or_else(|| format!("{form}; a code is 400 to 599"))?;
        let share = values::share(parts.next().ok_or(form)?)?;
        let step = match parts.next() {
            None | Some("rcpt") => Step::Rcpt,
            Some("connect") => Step::Connect,
            Some("mail") => Step::Mail,
            Some("data") => Step::Data,
            Some("dot") => Step::Dot,
            Some(_) => {
                return Err(format!("{form}; a step is connect, mail, rcpt, data or dot"));
            }
        };
        if parts.next().is_some() { Err(form.into()) } else { Ok(Reject { code, share, step }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
        let options = Options::parse_from([
            "ringpost-sink",
            "--reject",
            "451:5%:dot",
            "--reject",
            "550:0.1",
            "--latency",
            "1ms..3ms",
        ]);
        assert_eq!(options.reject[0], Reject { code: 451, share: 0.05, step: Step::Dot });
        assert_eq!(options.reject[1], Reject { code: 550, share: 0.1, step: Step::Rcpt });
        let mut draw = Draw::new(3);
        for _ in 0..100 {
            let span = options.latency.unwrap().draw(&mut draw);
            assert!((1_000..=3_000).contains(&span.as_micros()));
        }
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        for bad in ["250:1", "451", "451:2", "451:1:ehlo", "451:1:dot:x", "x:1"] {
            assert!(bad.parse::<Reject>().is_err(), "{bad}");
        }
        for bad in ["3ms..1ms", "", "1", "1ms.."] {
            assert!(bad.parse::<Latency>().is_err(), "{bad}");
        }
        let both = ["ringpost-sink", "--discard", "--ledger", "x"];
        assert!(Options::try_parse_from(both).is_err());
    }
}
