//! XCLIENT and XFORWARD, by which a trusted client says on whose behalf it
//! speaks (Postfix, XCLIENT_README and XFORWARD_README): the attributes, and what
//! the commands do to a session.
//!
//! Called by the engine with what follows the verb. Both commands are refused
//! within a transaction. Whether this client may send them is the driver's to
//! decide, by [`Question::Xclient`] and [`Question::Xforward`]; it also holds what
//! was said. A session whose client was replaced by XCLIENT is greeted anew.
//!
//! Security: values end up in the log and in `Received:`. They are xtext (RFC
//! 3461, 4), and nothing with a control character or of more than 255 octets is
//! taken.

use std::net::{IpAddr, Ipv6Addr};

use super::{Question, Server, State, replies};
use crate::base::xtext;
use crate::proto::smtp::command::BadCommand;

/// What XCLIENT offers in the reply to EHLO.
pub(super) const XCLIENT: &[u8] = b"XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT";
/// What XFORWARD offers.
pub(super) const XFORWARD: &[u8] = b"XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE";

/// Longest value, decoded, in octets.
const VALUE_MAX: usize = 255;

/// One of the two commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// The client is another from now on.
    Xclient,
    /// The next message came from another.
    Xforward,
}

/// The attributes of a command, well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes<'a> {
    verb: Verb,
    text: &'a [u8],
}

/// What was said about one attribute: nothing, that it is not to be had, or what
/// it is.
pub type Claim<T> = Option<Option<T>>;

/// What was said about a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// NAME: its name by DNS.
    pub name: Claim<String>,
    /// ADDR.
    pub address: Claim<IpAddr>,
    /// PORT.
    pub port: Claim<u16>,
    /// PROTO: SMTP, ESMTP or another word.
    pub protocol: Claim<String>,
    /// HELO: what it called itself.
    pub helo: Claim<String>,
    /// LOGIN: as whom it has authenticated; [UNAVAILABLE] for nobody.
    pub login: Claim<String>,
    /// DESTADDR: where it had connected to.
    pub destination: Claim<IpAddr>,
    /// DESTPORT.
    pub destination_port: Claim<u16>,
    /// IDENT: the message's id there.
    pub ident: Claim<String>,
    /// SOURCE: LOCAL or REMOTE.
    pub source: Claim<String>,
}

impl<'a> Attributes<'a> {
    /// Checks what follows the verb.
    ///
    /// # Errors
    /// Which attributes are right.
    pub(crate) fn parse(verb: Verb, text: &'a [u8]) -> Result<Attributes<'a>, BadCommand> {
        let usage = match verb {
            Verb::Xclient => "XCLIENT attribute=value, each once, in xtext",
            Verb::Xforward => "XFORWARD attribute=value, each once, in xtext",
        };
        let attributes = Attributes { verb, text };
        attributes.read().map(|_| attributes).ok_or(BadCommand::Arguments(usage))
    }

    /// What they say.
    pub fn claims(&self) -> Claims {
        self.read().expect("it was checked")
    }

    fn read(&self) -> Option<Claims> {
        let mut claims = Claims::default();
        let words = self.text.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
        let mut count = 0;
        for word in words {
            let at = memchr::memchr(b'=', word)?;
            let name = word[..at].to_ascii_uppercase();
            claims.set(self.verb, &name, &word[at + 1..])?;
            count += 1;
        }
        (count > 0).then_some(claims)
    }
}

impl Claims {
    /// Takes what `newer` says in place of what was said before.
    pub fn update(&mut self, newer: Claims) {
        fn take<T>(old: &mut Claim<T>, new: Claim<T>) {
            if new.is_some() {
                *old = new;
            }
        }
        take(&mut self.name, newer.name);
        take(&mut self.address, newer.address);
        take(&mut self.port, newer.port);
        take(&mut self.protocol, newer.protocol);
        take(&mut self.helo, newer.helo);
        take(&mut self.login, newer.login);
        take(&mut self.destination, newer.destination);
        take(&mut self.destination_port, newer.destination_port);
        take(&mut self.ident, newer.ident);
        take(&mut self.source, newer.source);
    }

    fn set(&mut self, verb: Verb, name: &[u8], value: &[u8]) -> Option<()> {
        match (verb, name) {
            (_, b"NAME") => once(&mut self.name, value, word),
            (_, b"ADDR") => once(&mut self.address, value, address),
            (_, b"PORT") => once(&mut self.port, value, port),
            (_, b"HELO") => once(&mut self.helo, value, word),
            (Verb::Xclient, b"PROTO") => once(&mut self.protocol, value, |text| {
                let known = ["SMTP", "ESMTP"].contains(&&*text.to_ascii_uppercase());
                known.then(|| text.to_ascii_uppercase())
            }),
            (Verb::Xforward, b"PROTO") => once(&mut self.protocol, value, word),
            (Verb::Xclient, b"LOGIN") => {
                once(&mut self.login, value, |text| (!text.is_empty()).then(|| text.to_owned()))
            }
            (Verb::Xclient, b"DESTADDR") => once(&mut self.destination, value, address),
            (Verb::Xclient, b"DESTPORT") => once(&mut self.destination_port, value, port),
            (Verb::Xforward, b"IDENT") => once(&mut self.ident, value, word),
            (Verb::Xforward, b"SOURCE") => once(&mut self.source, value, |text| {
                let known = ["LOCAL", "REMOTE"].contains(&&*text.to_ascii_uppercase());
                known.then(|| text.to_ascii_uppercase())
            }),
            _ => None,
        }
    }
}

/// Sets a claim that was not made yet; `None` if it was, or the value is wrong.
fn once<T>(claim: &mut Claim<T>, value: &[u8], read: fn(&str) -> Option<T>) -> Option<()> {
    let octets = xtext::octets(value)?;
    let text = str::from_utf8(&octets).ok()?;
    if text.len() > VALUE_MAX || text.chars().any(char::is_control) {
        return None;
    }
    let absent = ["[UNAVAILABLE]", "[TEMPUNAVAIL]"];
    let value = match absent.iter().any(|absent| text.eq_ignore_ascii_case(absent)) {
        true => None,
        false => Some(read(text)?),
    };
    claim.replace(value).is_none().then_some(())
}

/// Printable ASCII without blanks.
fn word(text: &str) -> Option<String> {
    let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| text.to_owned())
}

fn address(text: &str) -> Option<IpAddr> {
    match text.split_at_checked("IPV6:".len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case("IPV6:") => {
            rest.parse::<Ipv6Addr>().ok().map(IpAddr::from)
        }
        _ => text.parse::<std::net::Ipv4Addr>().ok().map(IpAddr::from),
    }
}

fn port(text: &str) -> Option<u16> {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// A command that is in question.
#[derive(Debug)]
pub(super) struct ClaimsAsked {
    verb: Verb,
    /// The client has said EHLO or HELO.
    greeted: bool,
}

impl ClaimsAsked {
    /// The state before the command.
    pub(super) fn refused(self) -> State {
        if self.greeted { State::AwaitMail } else { State::AwaitHello }
    }
}

impl Server {
    /// Says by the reply to EHLO that the client may send XCLIENT, XFORWARD.
    pub fn allow_proxying(&mut self, xclient: bool, xforward: bool) {
        (self.session.xclient, self.session.xforward) = (xclient, xforward);
    }

    /// Says whether the client has authenticated elsewhere, after XCLIENT was
    /// accepted.
    pub fn trust_login(&mut self, is_user: bool) {
        self.session.authenticated = is_user;
    }

    pub(super) fn claims<'a>(
        mut self,
        attributes: Attributes<'a>,
        out: &mut Vec<u8>,
    ) -> (Server, Option<Question<'a>>) {
        let greeted = match self.state {
            State::AwaitHello => false,
            State::AwaitMail => true,
            _ => return (self.error(replies::IN_TRANSACTION, out), None),
        };
        self.state = State::ClaimsAsked(ClaimsAsked { verb: attributes.verb, greeted });
        let question = match attributes.verb {
            Verb::Xclient => Question::Xclient(attributes),
            Verb::Xforward => Question::Xforward(attributes),
        };
        (self, Some(question))
    }

    /// After [`Verdict::Accept`](super::Verdict::Accept): XCLIENT leads to the
    /// state of a new connection.
    pub(super) fn claims_accepted(mut self, asked: ClaimsAsked, out: &mut Vec<u8>) -> Server {
        match asked.verb {
            Verb::Xclient => {
                out.extend_from_slice(self.session.settings.greeting());
                self.session.helo = Box::default();
                self.session.extended = false;
                self.session.authenticated = false;
                self.state = State::AwaitHello;
            }
            Verb::Xforward => {
                out.extend_from_slice(replies::OK.as_bytes());
                self.state = asked.refused();
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(verb: Verb, text: &str) -> Option<Claims> {
        Attributes::parse(verb, text.as_bytes()).ok().map(|attributes| attributes.claims())
    }

    #[test]
    fn attributes_are_read() {
        let text = " NAME=spike.example addr=192.0.2.7 Port=1025 PROTO=esmtp HELO=a+2Bb \
                    LOGIN=user+20name DESTADDR=IPv6:2001:db8::1 DESTPORT=25 ";
        let expected = Claims {
            name: Some(Some("spike.example".into())),
            address: Some(Some("192.0.2.7".parse().unwrap())),
            port: Some(Some(1025)),
            protocol: Some(Some("ESMTP".into())),
            helo: Some(Some("a+b".into())),
            login: Some(Some("user name".into())),
            destination: Some(Some("2001:db8::1".parse().unwrap())),
            destination_port: Some(Some(25)),
            ..Claims::default()
        };
        assert_eq!(read(Verb::Xclient, text), Some(expected));
        let text = "NAME=[UNAVAILABLE] ADDR=[tempunavail] IDENT=4F2A SOURCE=local PROTO=LMTP";
        let expected = Claims {
            name: Some(None),
            address: Some(None),
            ident: Some(Some("4F2A".into())),
            source: Some(Some("LOCAL".into())),
            protocol: Some(Some("LMTP".into())),
            ..Claims::default()
        };
        assert_eq!(read(Verb::Xforward, text), Some(expected));
    }

    #[test]
    fn what_is_no_attribute_is_refused() {
        let long = format!("NAME={}", "x".repeat(256));
        for text in [
            "",
            "NAME",
            "NAME=",
            "=x",
            "NAME=a NAME=b",
            "WHAT=x",
            "ADDR=192.0.2.7.1",
            "ADDR=2001:db8::1",
            "ADDR=IPV6:192.0.2.7",
            "ADDR=[192.0.2.7]",
            "ADDR=spike.example",
            "PORT=65536",
            "PORT=+2B1",
            "PORT=-1",
            "PROTO=HTTP",
            "HELO=a+20b",
            "HELO=a+0D+0AMAIL",
            "HELO=a+00",
            "LOGIN=a+0Ab",
            "LOGIN=+C2+85",
            "LOGIN=+FF",
            "LOGIN=+C3",
            "NAME=a+2b",
            "NAME=a+2",
            "NAME=a\tb",
            "IDENT=x",
            "SOURCE=LOCAL",
            &long,
        ] {
            assert_eq!(read(Verb::Xclient, text), None, "{text}");
        }
        for text in ["LOGIN=x", "DESTADDR=192.0.2.1", "DESTPORT=25", "SOURCE=HERE"] {
            assert_eq!(read(Verb::Xforward, text), None, "{text}");
        }
    }

    #[test]
    fn what_is_said_later_counts() {
        let mut claims = read(Verb::Xclient, "NAME=a ADDR=192.0.2.1").unwrap();
        claims.update(read(Verb::Xclient, "ADDR=[UNAVAILABLE] HELO=h").unwrap());
        let expected = Claims {
            name: Some(Some("a".into())),
            address: Some(None),
            helo: Some(Some("h".into())),
            ..Claims::default()
        };
        assert_eq!(claims, expected);
    }
}
