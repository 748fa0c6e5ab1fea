//! Commands that ask about the server or its queue and change no transaction:
//! VRFY, EXPN, HELP (RFC 5321, 3.5 and 4.1.1.6 to 4.1.1.8), ETRN (RFC 1985).

use super::settings::Settings;
use super::states::{Next, State};
use super::{Question, Server, replies};
use crate::proto::address::Address;
use crate::proto::smtp::command::{Asked, Turn};

/// A question about something beside the transaction.
#[derive(Debug)]
pub(super) struct QueryAsked {
    /// What to say when it is answered with yes.
    yes: &'static str,
    /// What holds then, whatever the answer.
    pub(super) then: State,
}

impl QueryAsked {
    pub(super) fn accepted(self, out: &mut Vec<u8>) -> State {
        out.extend_from_slice(self.yes.as_bytes());
        self.then
    }
}

/// What each command is for, by topic of HELP.
const TOPICS: [(&str, &str); 13] = [
    ("EHLO", "EHLO name: begin, and hear what is offered"),
    ("HELO", "HELO name: begin as of old"),
    ("MAIL", "MAIL FROM:<address> [parameters]: begin a message"),
    ("RCPT", "RCPT TO:<address> [parameters]: name a recipient"),
    ("DATA", "DATA: the message follows, with a dot on a line of its own behind it"),
    ("BDAT", "BDAT octets [LAST]: a part of the message follows (RFC 3030)"),
    ("RSET", "RSET: forget the message"),
    ("NOOP", "NOOP: nothing"),
    ("QUIT", "QUIT: the end"),
    ("VRFY", "VRFY address: would mail for it be taken?"),
    ("EXPN", "EXPN name: who is on a mailing list?"),
    ("HELP", "HELP [command]: this"),
    ("ETRN", "ETRN domain: deliver now what is queued for it (RFC 1985)"),
];

impl Server {
    /// VRFY. Tells nothing unless the operator wants it to.
    pub(super) fn verify<'a>(self, asked: Asked<'a>, out: &mut Vec<u8>) -> Next<'a> {
        if !self.session.settings.offers().vrfy {
            return (self.say(replies::VERIFY, out), None);
        }
        if matches!(self.state, State::AwaitHello) {
            let text = self.session.hello_first();
            return (self.error(text, out), None);
        }
        let text = asked.text;
        let inside = text.rsplit_once('<').map(|(_, rest)| rest);
        let text = inside.map_or(text, |rest| rest.strip_suffix('>').unwrap_or(rest));
        match Address::parse(text) {
            Ok(address) if address.needs_smtputf8() && !asked.smtputf8 => {
                (self.error(replies::SENDER_NEEDS_UTF8, out), None)
            }
            Ok(address) => self.query(Question::Verify(address), replies::VERIFIED),
            Err(_) => (self.error(replies::NO_SUCH_NAME, out), None),
        }
    }

    /// EXPN. There are no mailing lists here.
    pub(super) fn expand<'a>(self, _: Asked<'a>, out: &mut Vec<u8>) -> Next<'a> {
        let offered = self.session.settings.offers().expn;
        (self.error(if offered { replies::NO_LIST } else { replies::EXPAND }, out), None)
    }

    /// ETRN. Not within a transaction (RFC 1985, 5).
    pub(super) fn turn<'a>(self, turn: Turn<'a>, out: &mut Vec<u8>) -> Next<'a> {
        let refusal = match (&self.state, turn) {
            _ if !self.session.settings.has_etrn() => replies::NO_ETRN,
            (State::AwaitHello, _) => self.session.hello_first(),
            (State::Open(_) | State::Chunked(_) | State::Failed, _) => replies::IN_TRANSACTION,
            _ if !self.session.is_trusted() => replies::NO_TURN,
            (_, Turn::Queue(_)) => replies::NO_NAMED_QUEUE,
            (_, Turn::Domain(domain)) => {
                return self.query(Question::Turn { domain, below: false }, replies::TURNED);
            }
            (_, Turn::Tree(domain)) => {
                return self.query(Question::Turn { domain, below: true }, replies::TURNED);
            }
        };
        (self.error(refusal, out), None)
    }

    fn query<'a>(mut self, question: Question<'a>, yes: &'static str) -> Next<'a> {
        self.state = State::QueryAsked(Box::new(QueryAsked { yes, then: self.state }));
        (self, Some(question))
    }

    /// HELP.
    pub(super) fn help(self, topic: &str, out: &mut Vec<u8>) -> Server {
        let settings = &self.session.settings;
        let word = topic.split([' ', '\t']).next().unwrap_or("");
        let known = TOPICS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        match known.filter(|(name, _)| has_command(settings, name)) {
            Some((_, text)) => {
                out.extend_from_slice(format!("214 2.0.0 {text}\r\n").as_bytes());
            }
            None => {
                out.extend_from_slice(b"214-2.0.0 Commands:");
                for (name, _) in TOPICS.iter().filter(|(name, _)| has_command(settings, name)) {
                    out.push(b' ');
                    out.extend_from_slice(name.as_bytes());
                }
                out.extend_from_slice(b"\r\n214 2.0.0 ringpost follows RFC 5321\r\n");
            }
        }
        self
    }
}

/// True if a command can be of use on this listener.
fn has_command(settings: &Settings, name: &str) -> bool {
    match name {
        "BDAT" => settings.offers().chunking,
        "EXPN" => settings.offers().expn,
        "ETRN" => settings.has_etrn(),
        _ => true,
    }
}
