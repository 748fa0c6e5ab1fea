//! Commands as clients send them (RFC 5321, 4.1.1; AUTH of RFC 4954, BDAT of RFC
//! 3030, ETRN of RFC 1985; parameters of RFC 1870, 3461, 4954, 6152 and 6531, and
//! those in `asks`).
//!
//! Called by the server engine with one line, its CRLF taken off. Parsing
//! borrows from the line and never allocates.
//!
//! Two liberties, since real clients need them: spaces between `FROM:` or `TO:`
//! and the path, and white space at the end of a line (which 4.1.1 asks for).

use std::fmt;
use std::str::from_utf8;

use crate::base::dsn::{self, Notify, Ret};
use crate::base::limits::{AUTH_PARAMETER_MAX, DOMAIN_MAX};
use crate::base::{BodyType, Mechanism, xtext};
use crate::proto::address::{Address, BadAddress, Path};
use crate::proto::smtp::asks::Asks;
use crate::proto::smtp::server::proxying::{Attributes, Verb};

/// One command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `EHLO name`.
    Ehlo(&'a str),
    /// `HELO name`.
    Helo(&'a str),
    /// `LHLO name` (RFC 2033).
    Lhlo(&'a str),
    /// `XCLIENT` or `XFORWARD`, and attributes.
    Claims(Attributes<'a>),
    /// `MAIL FROM:<path> [parameters]`.
    Mail(MailFrom<'a>),
    /// `RCPT TO:<path> [parameters]`.
    Rcpt(RcptTo<'a>),
    /// `DATA`.
    Data,
    /// `BDAT octets [LAST]`: that many octets follow the line.
    Bdat {
        /// More than fits counts as the most that fits.
        octets: u64,
        /// The message ends with them.
        last: bool,
    },
    /// `RSET`.
    Rset,
    /// `NOOP [anything]`.
    Noop,
    /// `AUTH mechanism [initial-response]`.
    Auth(AuthCommand<'a>),
    /// `QUIT`.
    Quit,
    /// `STARTTLS` (RFC 3207).
    StartTls,
    /// `VRFY something [SMTPUTF8]`.
    Vrfy(Asked<'a>),
    /// `EXPN something [SMTPUTF8]`.
    Expn(Asked<'a>),
    /// `HELP [topic]`.
    Help(&'a str),
    /// `ETRN name`.
    Etrn(Turn<'a>),
}

/// Whom VRFY or EXPN is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked<'a> {
    /// The name or address, as written.
    pub text: &'a str,
    /// The client takes addresses beyond ASCII in the reply (RFC 6531, 3.7.4.2).
    pub smtputf8: bool,
}

/// Whose queue ETRN is about (RFC 1985, 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn<'a> {
    /// A domain.
    Domain(&'a str),
    /// `@`: a domain and all below it.
    Tree(&'a str),
    /// `#`: a queue by its name.
    Queue(&'a str),
}

/// What AUTH says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AuthCommand<'a> {
    /// The mechanism, if it is known here.
    pub mechanism: Option<Mechanism>,
    /// The initial response, as it came.
    pub initial: Option<&'a [u8]>,
}

impl fmt::Debug for AuthCommand<'_> {
    /// Without the response: that may be a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthCommand").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

/// What MAIL says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailFrom<'a> {
    /// The reverse-path.
    pub path: Path<'a>,
    /// SIZE (RFC 1870); more than fits counts as the most that fits.
    pub size: Option<u64>,
    /// BODY (RFC 6152); BINARYMIME counts as 8BITMIME and is among `asks`.
    pub body: Option<BodyType>,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// RET (RFC 3461).
    pub ret: Option<Ret>,
    /// ENVID (RFC 3461), encoded as it came; well-formed.
    pub envid: Option<&'a str>,
    /// What else is asked.
    pub asks: Asks,
    /// AUTH (RFC 4954), encoded as it came: an address or `<>`.
    pub auth: Option<&'a str>,
}

impl MailFrom<'_> {
    /// True when any parameter of an extension was given.
    pub fn has_parameters(&self) -> bool {
        let of_size_or_form = self.size.is_some() || self.body.is_some() || self.smtputf8;
        let of_reports = self.ret.is_some() || self.envid.is_some();
        of_size_or_form || of_reports || self.auth.is_some() || !self.asks.is_empty()
    }
}

/// What RCPT says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RcptTo<'a> {
    /// The forward-path.
    pub path: Path<'a>,
    /// NOTIFY (RFC 3461).
    pub notify: Option<Notify>,
    /// ORCPT (RFC 3461), encoded as it came; well-formed.
    pub orcpt: Option<&'a str>,
}

/// Why a line is no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadCommand {
    /// A control character, NUL or a bare CR.
    Control,
    /// No command of SMTP.
    Unknown,
    /// A command of SMTP that is not offered here.
    NotOffered,
    /// A request of HTTP, since a browser was made to talk to us, or the header of a
    /// proxy that we do not listen to.
    Foreign,
    /// An argument is missing, malformed or too much; says which is right.
    Arguments(&'static str),
    /// The name in EHLO or HELO.
    Name,
    /// The reverse-path.
    Sender(BadAddress),
    /// The forward-path.
    Recipient(BadAddress),
    /// The forward-path is empty.
    NullRecipient,
    /// A parameter of MAIL or RCPT that is not known.
    UnknownParameter,
    /// A known parameter with a malformed value, or given twice.
    Parameter(&'static str),
    /// BDAT that does not say how many octets follow.
    Chunk,
}

impl<'a> Command<'a> {
    /// Parses one line without its line end.
    #[inline]
    pub fn parse(line: &'a [u8]) -> Result<Command<'a>, BadCommand> {
        // No early exit: so the compiler looks at 16 bytes at a time.
        let control = |seen, &byte: &u8| seen | (byte.is_ascii_control() & (byte != b'\t'));
        if line.iter().fold(false, control) {
            return Err(if begins_chunk(line) { BadCommand::Chunk } else { BadCommand::Control });
        }
        let line = line.trim_ascii_end();
        let verb_len =
            line.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(line.len());
        let (verb, rest) = line.split_at(verb_len);
        let Ok(verb) = <[u8; 4]>::try_from(verb) else {
            return other_verb(verb, rest);
        };
        match &verb.map(|byte| byte.to_ascii_uppercase()) {
            b"MAIL" => mail(rest).map(Command::Mail),
            b"RCPT" => recipient(rest).map(Command::Rcpt),
            b"DATA" => alone(rest, Command::Data, "DATA takes no argument"),
            b"EHLO" => name(rest).map(Command::Ehlo),
            b"HELO" => name(rest).map(Command::Helo),
            b"LHLO" => name(rest).map(Command::Lhlo),
            b"RSET" => alone(rest, Command::Rset, "RSET takes no argument"),
            b"QUIT" => alone(rest, Command::Quit, "QUIT takes no argument"),
            b"NOOP" => Ok(Command::Noop),
            b"AUTH" => auth(rest).map(Command::Auth),
            b"BDAT" => chunk(rest).ok_or(BadCommand::Chunk),
            b"HELP" => Ok(Command::Help(from_utf8(rest.trim_ascii_start()).unwrap_or(""))),
            b"VRFY" => asked(rest, "VRFY takes a user name or address").map(Command::Vrfy),
            b"EXPN" => asked(rest, "EXPN takes the name of a list").map(Command::Expn),
            b"ETRN" => turn(rest).map(Command::Etrn),
            b"TURN" | b"ATRN" | b"SEND" | b"SOML" | b"SAML" | b"BURL" => {
                Err(BadCommand::NotOffered)
            }
            b"POST" | b"HEAD" => Err(BadCommand::Foreign),
            _ => Err(BadCommand::Unknown),
        }
    }
}

/// Verbs that do not have four letters.
#[cold]
fn other_verb<'a>(verb: &[u8], rest: &'a [u8]) -> Result<Command<'a>, BadCommand> {
    let is = |name: &&str| verb.eq_ignore_ascii_case(name.as_bytes());
    if ["GET", "PUT", "DELETE", "OPTIONS", "CONNECT", "PATCH", "TRACE", "PRI", "PROXY"]
        .iter()
        .any(is)
    {
        Err(BadCommand::Foreign)
    } else if is(&"XCLIENT") {
        Attributes::parse(Verb::Xclient, rest).map(Command::Claims)
    } else if is(&"XFORWARD") {
        Attributes::parse(Verb::Xforward, rest).map(Command::Claims)
    } else if is(&"STARTTLS") {
        alone(rest, Command::StartTls, "STARTTLS takes no argument")
    } else if begins_chunk(verb) {
        Err(BadCommand::Chunk)
    } else {
        Err(BadCommand::Unknown)
    }
}

fn alone<'a>(
    rest: &[u8],
    command: Command<'a>,
    usage: &'static str,
) -> Result<Command<'a>, BadCommand> {
    if rest.is_empty() { Ok(command) } else { Err(BadCommand::Arguments(usage)) }
}

/// True if a line, malformed as it may be, announces a chunk: then what follows it
/// is no command, and nobody knows where the next one begins.
pub fn begins_chunk(line: &[u8]) -> bool {
    let (verb, rest) = line.split_at(line.len().min(4));
    verb.eq_ignore_ascii_case(b"BDAT") && !rest.first().is_some_and(u8::is_ascii_alphanumeric)
}

/// `chunk-size [SP "LAST"]` (RFC 3030, 2).
fn chunk<'a>(rest: &[u8]) -> Option<Command<'a>> {
    let mut words = words(rest);
    let octets = decimal(words.next()?)?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case(b"LAST") => true,
        Some(_) => return None,
    };
    words.next().is_none().then_some(Command::Bdat { octets, last })
}

fn asked<'a>(rest: &'a [u8], usage: &'static str) -> Result<Asked<'a>, BadCommand> {
    let bad = BadCommand::Arguments(usage);
    let text = from_utf8(rest.trim_ascii_start()).map_err(|_| bad)?;
    let asked = match text.rsplit_once(' ') {
        Some((text, word)) if word.eq_ignore_ascii_case("SMTPUTF8") => {
            Asked { text: text.trim_ascii_end(), smtputf8: true }
        }
        _ => Asked { text, smtputf8: false },
    };
    if asked.text.is_empty() { Err(bad) } else { Ok(asked) }
}

/// `["@" / "#"] node` (RFC 1985, 5.1).
fn turn(rest: &[u8]) -> Result<Turn<'_>, BadCommand> {
    let usage = "ETRN takes the full name of a domain, @ before it for all below";
    let bad = BadCommand::Arguments(usage);
    let node = from_utf8(rest.trim_ascii_start()).map_err(|_| bad)?;
    let (kind, node): (fn(_) -> _, _) = match node.split_at_checked(1) {
        Some(("@", node)) => (Turn::Tree, node),
        Some(("#", node)) => (Turn::Queue, node),
        _ => (Turn::Domain, node),
    };
    let is_queue = rest.trim_ascii_start().starts_with(b"#");
    let is_full = node.contains('.') || is_queue;
    if is_full && Address::is_domain_name(node) { Ok(kind(node)) } else { Err(bad) }
}

/// The argument of EHLO and HELO. By 4.1.1.1 a domain or an address literal;
/// names with underscores and the like are common and say nothing either way,
/// so any printable ASCII word is taken.
fn name(rest: &[u8]) -> Result<&str, BadCommand> {
    let word = rest.trim_ascii_start();
    let fits = !word.is_empty()
        && word.len() <= DOMAIN_MAX
        && word.iter().all(|byte| byte.is_ascii_graphic());
    match from_utf8(word) {
        Ok(word) if fits => Ok(word),
        _ => Err(BadCommand::Name),
    }
}

/// The arguments of AUTH (RFC 4954, section 8).
fn auth(rest: &[u8]) -> Result<AuthCommand<'_>, BadCommand> {
    let mut words = rest.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    let usage = BadCommand::Arguments("write AUTH mechanism [base64]");
    let mechanism = words.next().ok_or(usage)?;
    let initial = words.next();
    if words.next().is_some() {
        return Err(usage);
    }
    Ok(AuthCommand { mechanism: Mechanism::parse(mechanism), initial })
}

/// What follows `keyword:` and spaces behind the verb.
fn path_of<'a>(rest: &'a [u8], keyword: &str, usage: &'static str) -> Result<&'a [u8], BadCommand> {
    let rest = rest.trim_ascii_start();
    match rest.split_at_checked(keyword.len()) {
        Some((word, path)) if word.eq_ignore_ascii_case(keyword.as_bytes()) => {
            Ok(path.trim_ascii_start())
        }
        _ => Err(BadCommand::Arguments(usage)),
    }
}

fn mail(rest: &[u8]) -> Result<MailFrom<'_>, BadCommand> {
    let rest = path_of(rest, "FROM:", "write MAIL FROM:<address>")?;
    let (path, parameters) = Path::parse(rest).map_err(BadCommand::Sender)?;
    if let Path::Mailbox(address) = path
        && address.domain_text().is_none()
    {
        return Err(BadCommand::Sender(BadAddress::NoDomain));
    }
    let mut mail = MailFrom {
        path,
        size: None,
        body: None,
        smtputf8: false,
        ret: None,
        envid: None,
        asks: Asks::default(),
        auth: None,
    };
    match parameters.first() {
        None => {}
        Some(b' ') => words(parameters).try_for_each(|word| mail_parameter(word, &mut mail))?,
        Some(_) => return Err(BadCommand::Sender(BadAddress::Brackets)),
    }
    Ok(mail)
}

fn recipient(rest: &[u8]) -> Result<RcptTo<'_>, BadCommand> {
    let rest = path_of(rest, "TO:", "write RCPT TO:<address>")?;
    let (path, parameters) = Path::parse(rest).map_err(BadCommand::Recipient)?;
    if path == Path::Null {
        return Err(BadCommand::NullRecipient);
    }
    let mut to = RcptTo { path, notify: None, orcpt: None };
    match parameters.first() {
        None => {}
        Some(b' ') => words(parameters).try_for_each(|word| recipient_parameter(word, &mut to))?,
        Some(_) => return Err(BadCommand::Recipient(BadAddress::Brackets)),
    }
    Ok(to)
}

/// The words of `SP keyword [ "=" value ] ...` (4.1.2, `Mail-parameters`).
fn words(parameters: &[u8]) -> impl Iterator<Item = &[u8]> {
    parameters.split(|&byte| byte == b' ').filter(|word| !word.is_empty())
}

/// The keyword of a parameter, and its value.
fn keyword(parameter: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'=', parameter) {
        Some(at) => (&parameter[..at], Some(&parameter[at + 1..])),
        None => (parameter, None),
    }
}

fn mail_parameter<'a>(parameter: &'a [u8], mail: &mut MailFrom<'a>) -> Result<(), BadCommand> {
    let (keyword, value) = keyword(parameter);
    if keyword.eq_ignore_ascii_case(b"SIZE") {
        let size = value.and_then(size).ok_or(BadCommand::Parameter("write SIZE=octets"))?;
        once(&mut mail.size, size, "SIZE was given twice")
    } else if keyword.eq_ignore_ascii_case(b"BODY") {
        let bad = BadCommand::Parameter("BODY is 7BIT, 8BITMIME or BINARYMIME");
        let (body, binary) = value.and_then(body_type).ok_or(bad)?;
        mail.asks.binary |= binary;
        once(&mut mail.body, body, "BODY was given twice")
    } else if keyword.eq_ignore_ascii_case(b"SMTPUTF8") {
        if value.is_some() || mail.smtputf8 {
            return Err(BadCommand::Parameter("SMTPUTF8 has no value and is given once"));
        }
        mail.smtputf8 = true;
        Ok(())
    } else if keyword.eq_ignore_ascii_case(b"RET") {
        let ret = value.and_then(Ret::parse).ok_or(BadCommand::Parameter("RET is FULL or HDRS"))?;
        once(&mut mail.ret, ret, "RET was given twice")
    } else if keyword.eq_ignore_ascii_case(b"ENVID") {
        let envid =
            value.filter(|value| dsn::is_envid(value)).and_then(|envid| from_utf8(envid).ok());
        let envid = envid
            .ok_or(BadCommand::Parameter("ENVID is up to 100 characters of printable xtext"))?;
        once(&mut mail.envid, envid, "ENVID was given twice")
    } else if keyword.eq_ignore_ascii_case(b"AUTH") {
        let auth = value.and_then(auth_parameter);
        let auth = auth.ok_or(BadCommand::Parameter("AUTH is an address in xtext, or <>"))?;
        once(&mut mail.auth, auth, "AUTH was given twice")
    } else {
        mail.asks.parameter(keyword, value)
    }
}

fn recipient_parameter<'a>(parameter: &'a [u8], to: &mut RcptTo<'a>) -> Result<(), BadCommand> {
    let (keyword, value) = keyword(parameter);
    if keyword.eq_ignore_ascii_case(b"NOTIFY") {
        let notify = value.and_then(Notify::parse).ok_or(BadCommand::Parameter(
            "NOTIFY is NEVER, or some of SUCCESS, FAILURE and DELAY with commas between",
        ))?;
        once(&mut to.notify, notify, "NOTIFY was given twice")
    } else if keyword.eq_ignore_ascii_case(b"ORCPT") {
        let orcpt = value.and_then(dsn::orcpt).ok_or(BadCommand::Parameter(
            "ORCPT is type;address, the address in printable xtext, up to 500 characters",
        ))?;
        once(&mut to.orcpt, orcpt, "ORCPT was given twice")
    } else {
        Err(BadCommand::UnknownParameter)
    }
}

/// The value of AUTH (RFC 4954, section 5), still encoded.
fn auth_parameter(value: &[u8]) -> Option<&str> {
    let text = from_utf8(value).ok()?;
    if value.len() > AUTH_PARAMETER_MAX || !xtext::is_printable(value) {
        return None;
    }
    let meant = xtext::decode(text);
    (meant == "<>" || Address::parse(&meant).is_ok()).then_some(text)
}

pub(super) fn once<T>(
    slot: &mut Option<T>,
    value: T,
    twice: &'static str,
) -> Result<(), BadCommand> {
    if slot.replace(value).is_some() { Err(BadCommand::Parameter(twice)) } else { Ok(()) }
}

/// `1*20DIGIT` (RFC 1870, section 4).
fn size(value: &[u8]) -> Option<u64> {
    if value.len() > 20 { None } else { decimal(value) }
}

/// `1*DIGIT`; more than fits counts as the most that fits.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let step =
        |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(value.iter().fold(0, step))
}

/// The body type, and whether it is binary.
fn body_type(value: &[u8]) -> Option<(BodyType, bool)> {
    if value.eq_ignore_ascii_case(b"8BITMIME") {
        Some((BodyType::EightBitMime, false))
    } else if value.eq_ignore_ascii_case(b"7BIT") {
        Some((BodyType::SevenBit, false))
    } else if value.eq_ignore_ascii_case(b"BINARYMIME") {
        Some((BodyType::EightBitMime, true))
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
