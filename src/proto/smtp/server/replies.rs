//! The words of the server. Each with its enhanced status code (RFC 3463, RFC
//! 2034) except where RFC 2034 has none: greeting, EHLO, HELO, 354.

use super::Session;
use crate::base::limits::REPLY_LINE_MAX;
use crate::base::{QueueId, Reply};
use crate::proto::smtp::command::BadCommand;

pub(super) const BYE: &str = "221 2.0.0 Bye\r\n";
pub(super) const OK: &str = "250 2.0.0 Ok\r\n";
pub(super) const SENDER_OK: &str = "250 2.1.0 Ok\r\n";
pub(super) const RECIPIENT_OK: &str = "250 2.1.5 Ok\r\n";
pub(super) const SEND_BODY: &str = "354 End data with <CR><LF>.<CR><LF>\r\n";
pub(super) const VERIFY: &str =
    "252 2.0.0 Cannot verify a mailbox, but will take mail for it and attempt delivery\r\n";
pub(super) const EXPAND: &str = "502 5.5.1 EXPN is not offered\r\n";
pub(super) const HELP: &str = "214-2.0.0 Commands: EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY HELP\r\n\
     214 2.0.0 ringpost follows RFC 5321\r\n";

pub(super) const HELLO_FIRST: &str = "503 5.5.1 Send EHLO or HELO first\r\n";
pub(super) const MAIL_FIRST: &str = "503 5.5.1 Send MAIL first\r\n";
pub(super) const MAIL_TWICE: &str = "503 5.5.1 A transaction is open already\r\n";
pub(super) const NO_RECIPIENTS: &str = "554 5.5.1 No valid recipients\r\n";
pub(super) const NO_PARAMETERS: &str = "555 5.5.4 Parameters need EHLO\r\n";
pub(super) const TOO_LARGE: &str = "552 5.3.4 Message larger than this server takes\r\n";
pub(super) const TOO_MANY_RECIPIENTS: &str = "452 4.5.3 Too many recipients\r\n";
pub(super) const NEEDS_UTF8: &str = "553 5.6.7 Address needs SMTPUTF8\r\n";
pub(super) const ORCPT_NEEDS_UTF8: &str = "501 5.5.4 ORCPT beyond ASCII needs SMTPUTF8\r\n";
pub(super) const BARE_LF: &str = "500 5.5.2 Command line must end in CRLF\r\n";
pub(super) const LINE_TOO_LONG: &str = "500 5.5.2 Command line too long\r\n";

pub(super) const ENDLESS_LINE: &str = "421 4.7.0 Endless line, closing connection\r\n";
pub(super) const FOREIGN: &str = "421 4.7.0 This is a mail server, closing connection\r\n";
pub(super) const TOO_MANY_ERRORS: &str = "421 4.7.0 Too many errors, closing connection\r\n";
pub(super) const TIMED_OUT: &str = "421 4.4.2 Timeout, closing connection\r\n";
pub(super) const SHUTTING_DOWN: &str = "421 4.3.2 Shutting down, closing connection\r\n";

/// `250` with the id of the message.
pub(super) fn queued(id: QueueId, out: &mut Vec<u8>) {
    out.extend_from_slice(b"250 2.0.0 Ok: queued as ");
    out.extend_from_slice(&id.encode());
    out.extend_from_slice(b"\r\n");
}

/// Appends `reply` as one line. Whatever its text is, the line keeps to the
/// length of RFC 5321 (4.5.3.1.5) and holds nothing but printable ASCII.
pub fn write_reply(reply: &Reply, out: &mut Vec<u8>) {
    debug_assert!((200..=599).contains(&reply.code));
    let head = match reply.enhanced {
        Some(enhanced) => format!("{} {enhanced} ", reply.code),
        None => format!("{} ", reply.code),
    };
    out.extend_from_slice(head.as_bytes());
    let room = REPLY_LINE_MAX - 2 - head.len();
    out.extend(reply.text.chars().take(room).map(|c| match c {
        ' '..='~' => c as u8,
        '\t' | '\r' | '\n' => b' ',
        _ => b'?',
    }));
    out.extend_from_slice(b"\r\n");
}

impl Session {
    /// The reply to a line that is no command; `Err` when it ends the session.
    pub(super) fn reply_to(
        bad: BadCommand,
    ) -> Result<std::borrow::Cow<'static, str>, &'static str> {
        let text = match bad {
            BadCommand::Foreign => return Err(FOREIGN),
            BadCommand::Control => "500 5.5.2 Control character in command\r\n",
            BadCommand::Unknown => "500 5.5.1 Unknown command\r\n",
            BadCommand::NotOffered => "502 5.5.1 Command not offered\r\n",
            BadCommand::Name => "501 5.5.4 Give the name of the client\r\n",
            BadCommand::NullRecipient => "501 5.1.3 A recipient cannot be empty\r\n",
            BadCommand::UnknownParameter => "555 5.5.4 Unknown parameter\r\n",
            BadCommand::Arguments(usage) | BadCommand::Parameter(usage) => {
                return Ok(format!("501 5.5.4 Syntax: {usage}\r\n").into());
            }
            BadCommand::Sender(bad) => return Ok(format!("501 5.1.7 Bad sender: {bad}\r\n").into()),
            BadCommand::Recipient(bad) => {
                return Ok(format!("501 5.1.3 Bad recipient: {bad}\r\n").into());
            }
        };
        Ok(text.into())
    }
}
