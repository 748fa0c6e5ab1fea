//! The command line of `ringpost-sink`. Every option is documented in
//! `docs/man/ringpost-sink.md`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Parser;

use super::limits::Bounds;
use super::persona::{Persona, REASONS, Reason};
use super::tls::Security;
use crate::dist::Dist;
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
    /// Time before the answer at connect, mail, rcpt, data or dot (default): a
    /// span or a distribution, "5ms..200ms", "exp:20ms", "p50=5ms,p99=200ms";
    /// may be repeated
    #[arg(long, value_name = "[STEP:]SPAN")]
    pub latency: Vec<Latency>,
    /// Refuse this share with this code or for this reason, at connect, mail,
    /// rcpt, data or dot (421 closes too); of recipients those of an address or
    /// domain; may be repeated
    #[arg(long, value_name = "WHAT:SHARE[:STEP[:WHOM]]")]
    pub reject: Vec<Reject>,
    /// Whose style refusals are in
    #[arg(long, value_name = "NAME", default_value = "plain")]
    pub persona: Persona,
    /// Put off what is new (network of the client, sender, recipient) for so long
    #[arg(long, value_name = "SPAN", value_parser = values::span)]
    pub greylist: Option<Duration>,
    /// Once a session was refused something, wait so long before each answer
    #[arg(long, value_name = "SPAN", value_parser = values::span)]
    pub tarpit: Option<Duration>,
    /// Turn away connections beyond so many
    #[arg(long, value_name = "N")]
    pub max_connections: Option<u32>,
    /// Turn away connections of one client beyond so many
    #[arg(long, value_name = "N")]
    pub max_connections_per_client: Option<u32>,
    /// Close a connection that begins a message after so many
    #[arg(long, value_name = "N")]
    pub messages_per_connection: Option<u64>,
    /// Put off messages of one client beyond this rate
    #[arg(long, value_name = "N/s", value_parser = values::rate)]
    pub rate_per_client: Option<f64>,
    /// Put off messages to one recipient beyond this rate
    #[arg(long, value_name = "N/s", value_parser = values::rate)]
    pub rate_per_recipient: Option<f64>,
    /// Close without an answer at this share of connect, mail, rcpt (default),
    /// data, body (in its middle) or dot; may be repeated
    #[arg(long, value_name = "SHARE[:STEP]")]
    pub drop: Vec<Break>,
    /// Close after half of the answer, likewise
    #[arg(long, value_name = "SHARE[:STEP]", value_parser = half_reply)]
    pub half_reply: Vec<Break>,
    /// Close without an answer after this share of messages, not counting them
    /// as taken
    #[arg(long, value_name = "SHARE", value_parser = values::share, default_value = "0")]
    pub drop_after_dot: f64,
    /// Number that chance follows from: with the same one, the same connections
    /// meet the same [default: another each time]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// TLS and authentication
    #[command(flatten)]
    pub security: Security,
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

impl Options {
    /// The limits on clients and recipients.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            connections: self.max_connections,
            connections_per_client: self.max_connections_per_client,
            rate_per_client: self.rate_per_client,
            rate_per_recipient: self.rate_per_recipient,
            greylist: self.greylist,
        }
    }
}

/// How long the answers at a step take.
#[derive(Clone, Debug, PartialEq)]
pub struct Latency {
    /// Where.
    pub step: Step,
    /// How long.
    pub dist: Dist,
}

impl FromStr for Latency {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = text.split_once(':').and_then(|(name, rest)| Some((Step::named(name)?, rest)));
        let (step, dist) = named.unwrap_or((Step::Dot, text));
        Ok(Latency { step, dist: dist.parse()? })
    }
}

/// A step at which the sink can misbehave.
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
    /// In the middle of the message.
    Body,
    /// The end of the message.
    Dot,
}

const STEPS: [(&str, Step); 6] = [
    ("connect", Step::Connect),
    ("mail", Step::Mail),
    ("rcpt", Step::Rcpt),
    ("data", Step::Data),
    ("body", Step::Body),
    ("dot", Step::Dot),
];

impl Step {
    fn named(name: &str) -> Option<Step> {
        STEPS.iter().find(|(known, _)| *known == name).map(|(_, step)| *step)
    }
}

/// What to refuse with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// This code, in words that go with it.
    Code(u16),
    /// This reason, with the code that the persona gives it.
    Reason(Reason),
}

/// Whom a refusal meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Everyone.
    All,
    /// A whole address, or a domain with `@` in front; in lower case.
    End(String),
    /// Domains below this one, a dot in front; in lower case.
    Below(String),
}

impl Whom {
    fn parse(text: &str) -> Whom {
        let text = text.to_ascii_lowercase();
        match text.strip_prefix("*.") {
            Some(parent) => Whom::Below(format!(".{parent}")),
            None if text.contains('@') => Whom::End(text),
            None => Whom::End(format!("@{text}")),
        }
    }

    /// True if `recipient` is met.
    pub fn meets(&self, recipient: &str) -> bool {
        let recipient = recipient.to_ascii_lowercase();
        match self {
            Whom::All => true,
            Whom::End(end) if end.starts_with('@') => recipient.ends_with(end.as_str()),
            Whom::End(end) => recipient == *end,
            Whom::Below(end) => recipient.ends_with(end.as_str()),
        }
    }
}

/// A share of commands to refuse.
#[derive(Clone, Debug, PartialEq)]
pub struct Reject {
    /// With what.
    pub what: What,
    /// How many of them.
    pub share: f64,
    /// Where.
    pub step: Step,
    /// To whom.
    pub whom: Whom,
}

impl Reject {
    /// True if it meets the same recipients each time, as what is behind it in
    /// life does.
    pub fn sticks(&self) -> bool {
        let lasting = [Reason::UnknownUser, Reason::MailboxFull];
        self.step == Step::Rcpt && lasting.iter().any(|one| self.what == What::Reason(*one))
    }
}

impl FromStr for Reject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "the form is WHAT:SHARE, WHAT:SHARE:STEP or WHAT:SHARE:rcpt:WHOM, as in \
                    \"451:5%:dot\" or \"unknown-user:10%:rcpt:example.org\"";
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let reason = REASONS.iter().find(|(known, ..)| *known == name);
        let (what, usual) = match (reason, name.parse()) {
            (Some((_, reason, step)), _) => (What::Reason(*reason), *step),
            (None, Ok(code @ 400..=599)) => (What::Code(code), Step::Rcpt),
            _ => {
                let names: Vec<&str> = REASONS.iter().map(|(name, ..)| *name).collect();
                let names = names.join(", ");
                return Err(format!("{form}; WHAT is a code from 400 to 599, or {names}"));
            }
        };
        let share = values::share(parts.next().ok_or(form)?)?;
        let step = match parts.next() {
            None => usual,
            Some(name) => Step::named(name)
                .filter(|step| *step != Step::Body)
                .ok_or_else(|| format!("{form}; a step is connect, mail, rcpt, data or dot"))?,
        };
        let whom = match parts.next() {
            None => Whom::All,
            Some(whom) if step == Step::Rcpt && !whom.is_empty() => Whom::parse(whom),
            Some(_) => return Err(form.into()),
        };
        if parts.next().is_some() {
            Err(form.into())
        } else {
            Ok(Reject { what, share, step, whom })
        }
    }
}

/// A share of connections to break at a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Break {
    /// How many of the commands.
    pub share: f64,
    /// Where.
    pub step: Step,
}

impl FromStr for Break {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (share, name) = text.split_once(':').unwrap_or((text, "rcpt"));
        let step = Step::named(name).ok_or_else(|| {
            format!("\"{text}\": a step is connect, mail, rcpt, data, body or dot")
        })?;
        Ok(Break { share: values::share(share)?, step })
    }
}

/// Half a reply: like [`Break`], but where there is a reply.
///
/// # Errors
/// With what is allowed.
fn half_reply(text: &str) -> Result<Break, String> {
    let found: Break = text.parse()?;
    if found.step == Step::Body {
        return Err(format!("\"{text}\": in the middle of a message there is no reply"));
    }
    Ok(found)
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
        let reject =
            |code, share, step| Reject { what: What::Code(code), share, step, whom: Whom::All };
        assert_eq!(options.reject[0], reject(451, 0.05, Step::Dot));
        assert_eq!(options.reject[1], reject(550, 0.1, Step::Rcpt));
        let ms = Duration::from_millis;
        let uniform = |step| Latency { step, dist: Dist::Uniform(ms(1), ms(3)) };
        assert_eq!(options.latency, [uniform(Step::Dot)]);
        assert_eq!("rcpt:1ms..3ms".parse(), Ok(uniform(Step::Rcpt)));
        let exponential = Latency { step: Step::Mail, dist: Dist::Exponential(ms(5)) };
        assert_eq!("mail:exp:5ms".parse(), Ok(exponential));
        assert_eq!("5%:body".parse(), Ok(Break { share: 0.05, step: Step::Body }));
    }

    #[test]
    fn reasons_have_their_place_and_recipients_can_be_chosen() {
        let reject: Reject = "spam:5%".parse().unwrap();
        assert_eq!((reject.step, reject.what), (Step::Dot, What::Reason(Reason::Spam)));
        let reject: Reject = "unknown-user:1:rcpt:Example.org".parse().unwrap();
        assert!(reject.sticks() && reject.whom.meets("A@example.ORG"));
        assert!(!reject.whom.meets("a@mail.example.org"));
        let reject: Reject = "550:1:rcpt:*.example.org".parse().unwrap();
        assert!(!reject.sticks() && reject.whom.meets("a@mail.example.org"));
        assert!(!reject.whom.meets("a@example.org"));
        let reject: Reject = "550:1:rcpt:a@example.org".parse().unwrap();
        assert!(reject.whom.meets("a@example.org") && !reject.whom.meets("ba@example.org"));
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        for bad in [
            "250:1",
            "451",
            "451:2",
            "451:1:ehlo",
            "451:1:dot:x",
            "x:1",
            "451:1:body",
            "451:1:rcpt:",
            "451:1:rcpt:a:b",
        ] {
            assert!(bad.parse::<Reject>().is_err(), "{bad}");
        }
        for bad in ["3ms..1ms", "", "1", "1ms..", "ehlo:1ms", "dot:"] {
            assert!(bad.parse::<Latency>().is_err(), "{bad}");
        }
        assert!("5%:ehlo".parse::<Break>().is_err() && half_reply("5%:body").is_err());
        let both = ["ringpost-sink", "--discard", "--ledger", "x"];
        assert!(Options::try_parse_from(both).is_err());
    }
}
