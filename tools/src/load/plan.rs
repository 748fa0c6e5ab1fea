//! What a run is to do, worked out from the options once and shared by all
//! workers.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ringpost::mail::stuffing::unstuff;

use super::options::{Options, SlowReader};
use super::profile::Profile;
use super::security::{Login, Tls};
use crate::corpus;
use crate::dist::Dist;
use crate::draw;
use crate::message::{MARK_LINES_LEN, TERMINATOR, Template};
use crate::pattern::{Counters, Pattern};

/// A run.
pub struct Plan {
    /// The server.
    pub target: SocketAddr,
    /// Said in EHLO.
    pub helo: String,
    /// Envelope of every message.
    pub envelope: Envelope,
    mails: Vec<Mail>,
    order: Vec<u16>,
    /// How long a reply may take.
    pub timeout: Duration,
    /// Messages on one connection.
    pub messages_per_connection: Option<u64>,
    /// Between an answer and the next message of its connection.
    pub think_time: Dist,
    /// Which connections read slowly.
    pub slow_reader: Option<SlowReader>,
    /// Where connections come from, in turn; empty: as the kernel chooses.
    pub bind: Vec<IpAddr>,
    /// Whether PIPELINING may be used.
    pub pipelining: bool,
    /// Whether messages go in chunks, not behind DATA.
    pub bdat: bool,
    /// How connections are secured, if they are.
    pub tls: Option<Tls>,
    /// Who sends the mail, if someone is named.
    pub login: Option<Arc<Login>>,
    /// When messages begin in an open loop.
    pub profile: Option<Arc<Profile>>,
    /// Names the run in marks.
    pub run: u32,
    /// Where messages answered 250 are noted.
    pub ledger: Option<PathBuf>,
    /// Whether someone watches, so that figures are shown while it runs.
    pub watched: bool,
}

/// Sender and recipients; made anew for each message if they have counters.
pub struct Envelope {
    /// Of all messages, when neither has counters.
    pub fixed: Option<(String, Vec<String>)>,
    sender: Pattern,
    recipients: Vec<Pattern>,
}

impl Envelope {
    fn new(sender: &str, recipients: Vec<String>) -> Self {
        let pattern = |text: &str| Pattern::parse(text.as_bytes());
        let patterns: Vec<Pattern> = recipients.iter().map(|text| pattern(text)).collect();
        let is_fixed = pattern(sender).is_fixed() && patterns.iter().all(Pattern::is_fixed);
        Envelope {
            sender: pattern(sender),
            recipients: patterns,
            fixed: is_fixed.then(|| (sender.to_owned(), recipients)),
        }
    }

    /// Recipients of each message.
    pub fn count(&self) -> usize {
        self.recipients.len()
    }

    /// Sender and recipients of the message that `counters` name.
    pub fn of(&self, counters: Counters) -> (String, Vec<String>) {
        let one = |(index, pattern): (usize, &Pattern)| {
            pattern.text(&Counters { recipient: index as u64, ..counters })
        };
        (self.sender.text(&counters), self.recipients.iter().enumerate().map(one).collect())
    }
}

/// One of the messages that take turns.
pub struct Mail {
    /// It as it is sent, unless it has counters.
    pub template: Template,
    /// It with its counters, if there are any.
    pub pattern: Option<Pattern>,
    /// It as it is, if it goes in chunks and has no counters.
    text: Option<Box<[u8]>>,
}

impl Mail {
    fn fixed(template: Template) -> Self {
        Mail { template, pattern: None, text: None }
    }

    /// With counters wherever the message of a file has them. They cannot
    /// make a line begin with a dot, so the wire form stays one.
    fn counted(content: &[u8]) -> Self {
        let template = Template::from_file(content);
        let pattern = Some(Pattern::parse(&template.wire)).filter(|it| !it.is_fixed());
        Mail { template, pattern, text: None }
    }

    /// Keeps it as it goes in chunks: neither stuffed nor ended.
    fn keep_text(&mut self) {
        if self.pattern.is_none() {
            self.text = Some(unstuff(&self.template.wire).into());
        }
    }

    /// What follows the mark in the copy that `counters` name, as it goes in chunks,
    /// and the CRC32C of its wire form.
    pub fn text(&self, counters: &Counters) -> (Cow<'_, [u8]>, u32) {
        let unstuffed = |wire: &[u8]| Cow::Owned(unstuff(wire));
        match (&self.text, &self.pattern) {
            (Some(text), _) => (Cow::Borrowed(&**text), self.template.crc),
            (None, None) => (unstuffed(&self.template.wire), self.template.crc),
            (None, Some(pattern)) => {
                let mut wire = Vec::new();
                pattern.write(counters, &mut wire);
                (unstuffed(&wire), crc32c::crc32c(&wire))
            }
        }
    }

    /// Octets of the copy that `counters` name, without the terminator, as they are
    /// sent; dots that a chunk leaves out of a message with counters are counted.
    pub fn size(&self, counters: &Counters) -> u64 {
        match (&self.text, &self.pattern) {
            (Some(text), _) => (MARK_LINES_LEN + text.len()) as u64,
            (None, None) => self.template.size(),
            (None, Some(pattern)) => {
                (MARK_LINES_LEN + pattern.len(counters) - TERMINATOR.len()) as u64
            }
        }
    }
}

impl Plan {
    /// Works out a run.
    ///
    /// # Errors
    /// The target does not resolve, or the messages cannot be read.
    pub fn new(options: &Options) -> io::Result<Self> {
        if options.target.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
            let text = format!("--target {}: the form is HOST:PORT", options.target);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let target = options.target.to_socket_addrs().and_then(|mut all| {
            all.next().ok_or_else(|| io::Error::other("the name has no address"))
        });
        let target = target.map_err(|error| {
            io::Error::new(error.kind(), format!("--target {}: {error}", options.target))
        })?;
        let (mut mails, order) = mails(options)?;
        if options.bdat {
            mails.iter_mut().for_each(Mail::keep_text);
        }
        let span = options.end_after().unwrap_or_default();
        let profile = options.shape().map(|shape| Profile::new(&shape, options.warmup, span));
        Ok(Plan {
            target,
            helo: options.helo.clone(),
            envelope: Envelope::new(&options.from, options.recipient_list()),
            mails,
            order,
            timeout: options.timeout,
            messages_per_connection: options.messages_per_connection,
            think_time: options.think_time.clone(),
            slow_reader: options.slow_reader,
            bind: options.bind.clone(),
            pipelining: options.pipelining,
            bdat: options.bdat,
            tls: options.security.of_connections(&options.target)?,
            login: options.security.login()?,
            profile: profile.map(Arc::new),
            run: draw::seed() as u32,
            ledger: options.ledger.clone(),
            watched: !options.quiet,
        })
    }

    /// Message `seq`: they take turns.
    pub fn mail(&self, seq: u64) -> &Mail {
        &self.mails[usize::from(self.order[(seq % self.order.len() as u64) as usize])]
    }

    /// Octets of the largest message on the wire.
    pub fn wire_max(&self) -> usize {
        self.mails.iter().map(|mail| mail.template.wire.len()).max().unwrap_or(0)
    }
}

/// The messages, and in which order they take turns.
fn mails(options: &Options) -> io::Result<(Vec<Mail>, Vec<u16>)> {
    let (from, to) = (&options.from, &options.to);
    let mails: Vec<Mail> = match &options.eml {
        Some(dir) => corpus::folder(dir)?.into_iter().map(Mail::fixed).collect(),
        None if options.corpus => corpus::shipped(from, to).into_iter().map(Mail::fixed).collect(),
        None if !options.template.is_empty() => {
            options.template.iter().map(|path| counted(path)).collect::<io::Result<_>>()?
        }
        None => {
            let generated = |size| Mail::fixed(Template::generated(size, from, to));
            return Ok((options.size.all().map(generated).collect(), options.size.order()));
        }
    };
    let count = u16::try_from(mails.len())
        .map_err(|_| io::Error::other("more than 65,535 messages take turns"))?;
    Ok((mails, (0..count).collect()))
}

fn counted(path: &Path) -> io::Result<Mail> {
    let content = fs::read(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    Ok(Mail::counted(&content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_with_counters_knows_its_size() {
        let mail = Mail::counted(b"Subject: {n}\n\nDear {connection%7}\n.{n}\n");
        for n in [0, 10, 12345] {
            let counters = Counters { n, connection: 13, recipient: 0 };
            let mut wire = Vec::new();
            mail.pattern.as_ref().unwrap().write(&counters, &mut wire);
            let want = format!("Subject: {n}\r\n\r\nDear 6\r\n..{n}\r\n.\r\n");
            assert_eq!(String::from_utf8(wire).unwrap(), want);
            assert_eq!(mail.size(&counters) as usize, MARK_LINES_LEN + want.len() - 3);
        }
        assert!(Mail::counted(b"A: {b}\n\n").pattern.is_none());
    }

    #[test]
    fn an_envelope_is_made_for_each_message_only_if_it_differs() {
        let to = vec!["r{recipient}@d{n%2}.example".to_owned(); 2];
        let envelope = Envelope::new("s@example.org", to);
        assert!(envelope.fixed.is_none());
        let counters = Counters { n: 3, ..Counters::default() };
        let (sender, recipients) = envelope.of(counters);
        assert_eq!(sender, "s@example.org");
        assert_eq!(recipients, ["r0@d1.example", "r1@d1.example"]);
        assert!(Envelope::new("a@b", vec!["c@d".into()]).fixed.is_some());
    }
}
