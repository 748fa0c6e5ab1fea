//! Commands as clients send them (RFC 5321, 4.1.1; parameters of RFC 1870,
//! 3461, 6152 and 6531).
//!
//! Called by the server engine with one line, its CRLF taken off. Parsing
//! borrows from the line and never allocates.
//!
//! Two liberties, since real clients need them: spaces between `FROM:` or `TO:`
//! and the path, and white space at the end of a line (which 4.1.1 asks for).

use std::str::from_utf8;

use crate::base::BodyType;
use crate::base::dsn::{self, Notify, Ret};
use crate::base::limits::DOMAIN_MAX;
use crate::proto::address::{BadAddress, Path};

/// One command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `EHLO name`.
    Ehlo(&'a str),
    /// `HELO name`.
    Helo(&'a str),
    /// `MAIL FROM:<path> [parameters]`.
    Mail(MailFrom<'a>),
    /// `RCPT TO:<path> [parameters]`.
    Rcpt(RcptTo<'a>),
    /// `DATA`.
    Data,
    /// `RSET`.
    Rset,
    /// `NOOP [anything]`.
    Noop,
    /// `QUIT`.
    Quit,
    /// `VRFY something`.
    Vrfy,
    /// `EXPN something`.
    Expn,
    /// `HELP [anything]`.
    Help,
}

/// What MAIL says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailFrom<'a> {
    /// The reverse-path.
    pub path: Path<'a>,
    /// SIZE (RFC 1870); more than fits counts as the most that fits.
    pub size: Option<u64>,
    /// BODY (RFC 6152).
    pub body: Option<BodyType>,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// RET (RFC 3461).
    pub ret: Option<Ret>,
    /// ENVID (RFC 3461), encoded as it came; well-formed.
    pub envid: Option<&'a str>,
}

impl MailFrom<'_> {
    /// True when any parameter of an extension was given.
    pub fn has_parameters(&self) -> bool {
        let of_size_or_form = self.size.is_some() || self.body.is_some() || self.smtputf8;
        of_size_or_form || self.ret.is_some() || self.envid.is_some()
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
    /// A request of HTTP: a browser was made to talk to us.
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
}

impl<'a> Command<'a> {
    /// Parses one line without its line end.
    #[inline]
    pub fn parse(line: &'a [u8]) -> Result<Command<'a>, BadCommand> {
        // No early exit: so the compiler looks at 16 bytes at a time.
        let control = |seen, &byte: &u8| seen | (byte.is_ascii_control() & (byte != b'\t'));
        if line.iter().fold(false, control) {
            return Err(BadCommand::Control);
        }
        let line = line.trim_ascii_end();
        let verb_len =
            line.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(line.len());
        let (verb, rest) = line.split_at(verb_len);
        let Ok(verb) = <[u8; 4]>::try_from(verb) else { return Err(other_verb(verb)) };
        match &verb.map(|byte| byte.to_ascii_uppercase()) {
            b"MAIL" => mail(rest).map(Command::Mail),
            b"RCPT" => recipient(rest).map(Command::Rcpt),
            b"DATA" => alone(rest, Command::Data, "DATA takes no argument"),
            b"EHLO" => name(rest).map(Command::Ehlo),
            b"HELO" => name(rest).map(Command::Helo),
            b"RSET" => alone(rest, Command::Rset, "RSET takes no argument"),
            b"QUIT" => alone(rest, Command::Quit, "QUIT takes no argument"),
            b"NOOP" => Ok(Command::Noop),
            b"HELP" => Ok(Command::Help),
            b"VRFY" => with(rest, Command::Vrfy, "VRFY takes a user name or address"),
            b"EXPN" => with(rest, Command::Expn, "EXPN takes the name of a list"),
            b"AUTH" | b"BDAT" | b"ETRN" | b"TURN" | b"ATRN" | b"SEND" | b"SOML" | b"SAML"
            | b"BURL" | b"LHLO" => Err(BadCommand::NotOffered),
            b"POST" | b"HEAD" => Err(BadCommand::Foreign),
            _ => Err(BadCommand::Unknown),
        }
    }
}

/// Verbs that do not have four letters.
#[cold]
fn other_verb(verb: &[u8]) -> BadCommand {
    let is = |name: &&str| verb.eq_ignore_ascii_case(name.as_bytes());
    if ["GET", "PUT", "DELETE", "OPTIONS", "CONNECT", "PATCH", "TRACE", "PRI"].iter().any(is) {
        BadCommand::Foreign
    } else if is(&"STARTTLS") {
        BadCommand::NotOffered
    } else {
        BadCommand::Unknown
    }
}

fn alone<'a>(
    rest: &[u8],
    command: Command<'a>,
    usage: &'static str,
) -> Result<Command<'a>, BadCommand> {
    if rest.is_empty() { Ok(command) } else { Err(BadCommand::Arguments(usage)) }
}

fn with<'a>(
    rest: &[u8],
    command: Command<'a>,
    usage: &'static str,
) -> Result<Command<'a>, BadCommand> {
    if rest.is_empty() { Err(BadCommand::Arguments(usage)) } else { Ok(command) }
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
    let mut mail =
        MailFrom { path, size: None, body: None, smtputf8: false, ret: None, envid: None };
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
        let body = value.and_then(body_type);
        let body = body.ok_or(BadCommand::Parameter("BODY is 7BIT or 8BITMIME"))?;
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
    } else {
        Err(BadCommand::UnknownParameter)
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

fn once<T>(slot: &mut Option<T>, value: T, twice: &'static str) -> Result<(), BadCommand> {
    if slot.replace(value).is_some() { Err(BadCommand::Parameter(twice)) } else { Ok(()) }
}

/// `1*20DIGIT` (RFC 1870, section 4).
fn size(value: &[u8]) -> Option<u64> {
    if !(1..=20).contains(&value.len()) || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let step =
        |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(value.iter().fold(0, step))
}

fn body_type(value: &[u8]) -> Option<BodyType> {
    if value.eq_ignore_ascii_case(b"8BITMIME") {
        Some(BodyType::EightBitMime)
    } else if value.eq_ignore_ascii_case(b"7BIT") {
        Some(BodyType::SevenBit)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command<'_>, BadCommand> {
        Command::parse(line.as_bytes())
    }

    fn mail_of(line: &str) -> MailFrom<'_> {
        match parse(line) {
            Ok(Command::Mail(mail)) => mail,
            other => panic!("{line:?}: {other:?}"),
        }
    }

    #[test]
    fn verbs_are_read_in_any_case() {
        for (line, command) in [
            ("EHLO a.example", Command::Ehlo("a.example")),
            ("helo  [192.0.2.1] ", Command::Helo("[192.0.2.1]")),
            ("dAtA", Command::Data),
            ("DATA \t", Command::Data),
            ("rset", Command::Rset),
            ("QUIT", Command::Quit),
            ("NOOP whatever \u{e4}", Command::Noop),
            ("HELP MAIL", Command::Help),
            ("VRFY someone", Command::Vrfy),
            ("EXPN list", Command::Expn),
        ] {
            assert_eq!(parse(line), Ok(command), "{line:?}");
        }
    }

    #[test]
    fn mail_takes_the_parameters_we_offer() {
        let mail = mail_of("MAIL FROM:<a@b.example> size=1000 Body=8bitmime SMTPUTF8");
        assert_eq!(
            (mail.size, mail.body, mail.smtputf8),
            (Some(1000), Some(BodyType::EightBitMime), true)
        );
        assert!(mail.has_parameters() && !mail_of("mail from: <>").has_parameters());
        assert_eq!(mail_of("MAIL FROM:<> SIZE=99999999999999999999").size, Some(u64::MAX));
        for (line, bad) in [
            ("MAIL FROM:<> SIZE=", "write SIZE=octets"),
            ("MAIL FROM:<> SIZE", "write SIZE=octets"),
            ("MAIL FROM:<> SIZE=-1", "write SIZE=octets"),
            ("MAIL FROM:<> SIZE=999999999999999999999", "write SIZE=octets"),
            ("MAIL FROM:<> SIZE=1 SIZE=1", "SIZE was given twice"),
            ("MAIL FROM:<> BODY=BINARYMIME", "BODY is 7BIT or 8BITMIME"),
            ("MAIL FROM:<> BODY=7BIT BODY=7BIT", "BODY was given twice"),
            ("MAIL FROM:<> SMTPUTF8=1", "SMTPUTF8 has no value and is given once"),
        ] {
            assert_eq!(parse(line), Err(BadCommand::Parameter(bad)), "{line:?}");
        }
        for line in ["MAIL FROM:<> AUTH=<>", "MAIL FROM:<> =", "RCPT TO:<a@b> RET=FULL"] {
            assert_eq!(parse(line), Err(BadCommand::UnknownParameter), "{line:?}");
        }
    }

    #[test]
    fn parameters_about_reports_are_read() {
        let mail = mail_of("MAIL FROM:<s@a> ret=hdrs ENVID=QQ+2B1");
        assert_eq!((mail.ret, mail.envid), (Some(Ret::Headers), Some("QQ+2B1")));
        assert!(mail.has_parameters());
        let line = "RCPT TO:<r@b> NOTIFY=success,DELAY  ORCPT=rfc822;R+2B@b";
        let Ok(Command::Rcpt(to)) = parse(line) else { panic!("{line}") };
        let notify = Notify { success: true, failure: false, delay: true };
        assert_eq!((to.notify, to.orcpt), (Some(notify), Some("rfc822;R+2B@b")));
        for (line, bad) in [
            ("MAIL FROM:<> RET", "RET is FULL or HDRS"),
            ("MAIL FROM:<> RET=BODY", "RET is FULL or HDRS"),
            ("MAIL FROM:<> RET=FULL RET=FULL", "RET was given twice"),
            ("MAIL FROM:<> ENVID=a ENVID=a", "ENVID was given twice"),
            ("RCPT TO:<a@b> NOTIFY=DELAY NOTIFY=DELAY", "NOTIFY was given twice"),
            ("RCPT TO:<a@b> ORCPT=x;y ORCPT=x;y", "ORCPT was given twice"),
        ] {
            assert_eq!(parse(line), Err(BadCommand::Parameter(bad)), "{line:?}");
        }
        for line in ["MAIL FROM:<> ENVID", "MAIL FROM:<> ENVID=", "MAIL FROM:<> ENVID=a+0D"] {
            assert!(
                matches!(parse(line), Err(BadCommand::Parameter(bad)) if bad.contains("ENVID"))
            );
        }
        for line in ["RCPT TO:<a@b> NOTIFY", "RCPT TO:<a@b> NOTIFY=NEVER,DELAY"] {
            assert!(
                matches!(parse(line), Err(BadCommand::Parameter(bad)) if bad.contains("NOTIFY"))
            );
        }
    }

    #[test]
    fn refuses_what_is_malformed() {
        use BadCommand::*;
        for (line, bad) in [
            ("", Unknown),
            (" NOOP", Unknown),
            ("FOO", Unknown),
            ("MAILFROM:<a@b>", Unknown),
            ("\u{e4}\u{e4}", Unknown),
            ("STARTTLS", NotOffered),
            ("AUTH PLAIN AGEAYg==", NotOffered),
            ("BDAT 10 LAST", NotOffered),
            ("GET / HTTP/1.1", Foreign),
            ("post / HTTP/1.1", Foreign),
            ("NOOP \0", Control),
            ("NOOP\rQUIT", Control),
            ("RCPT TO:<a@b>\r", Control),
            ("EHLO", Name),
            ("EHLO a b", Name),
            ("EHLO b\u{fc}cher.example", Name),
            ("DATA now", Arguments("DATA takes no argument")),
            ("QUIT now", Arguments("QUIT takes no argument")),
            ("VRFY ", Arguments("VRFY takes a user name or address")),
            ("MAIL", Arguments("write MAIL FROM:<address>")),
            ("MAIL TO:<a@b>", Arguments("write MAIL FROM:<address>")),
            ("MAIL FROM <a@b>", Arguments("write MAIL FROM:<address>")),
            ("RCPT FROM:<a@b>", Arguments("write RCPT TO:<address>")),
            ("MAIL FROM:a@b", Sender(BadAddress::Brackets)),
            ("MAIL FROM:<a@b>SIZE=1", Sender(BadAddress::Brackets)),
            ("MAIL FROM:<postmaster>", Sender(BadAddress::NoDomain)),
            ("RCPT TO:<>", NullRecipient),
            ("RCPT TO:<a@b>>", Recipient(BadAddress::Brackets)),
            ("RCPT TO:<a@b>,<c@d>", Recipient(BadAddress::Brackets)),
        ] {
            assert_eq!(parse(line), Err(bad), "{line:?}");
        }
        assert_eq!(parse(&format!("EHLO {}", "a".repeat(256))), Err(Name));
    }
}
