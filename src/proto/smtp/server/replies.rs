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
pub(super) const VERIFIED: &str = "252 2.0.0 Mail for it would be taken and delivery attempted\r\n";
pub(super) const NO_SUCH_NAME: &str =
    "550 5.1.1 That is no address; nobody is known here by name\r\n";
pub(super) const NO_LIST: &str = "550 5.2.4 There is no mailing list of that name here\r\n";
pub(super) const TURNED: &str = "250 2.0.0 What is queued for it is tried now\r\n";
pub(super) const NO_ETRN: &str = "502 5.5.1 ETRN is not offered\r\n";
pub(super) const NO_TURN: &str = "459 4.7.1 ETRN is for clients that may relay\r\n";
pub(super) const NO_NAMED_QUEUE: &str = "501 5.5.4 Queues have no names here; give a domain\r\n";
pub(super) const SENDER_LOWERED: &str = "250 2.3.6 0 is the new priority\r\n";
pub(super) const NEEDS_TLS: &str = "530 5.7.10 REQUIRETLS needs TLS on this connection\r\n";

pub(super) const NO_CHUNKING: &str = "502 5.5.1 BDAT is not offered\r\n";
pub(super) const IN_CHUNKS: &str = "503 5.5.1 The message comes in chunks already\r\n";
pub(super) const CHUNKS_FAILED: &str = "503 5.5.1 The message has failed, send RSET\r\n";
pub(super) const BINARY_BY_DATA: &str = "503 5.5.1 A BINARYMIME message needs BDAT\r\n";
pub(super) const BAD_CHUNK: &str = "521 5.5.4 Syntax: BDAT octets [LAST]; closing connection\r\n";
pub(super) const CHUNK_TOO_LARGE: &str =
    "552 5.3.4 Chunk far larger than a message may be, closing connection\r\n";

pub(super) const START_TLS: &str = "220 2.0.0 Ready to start TLS\r\n";

pub(super) const NO_TLS_NOW: &str = "454 4.7.0 TLS is not available just now\r\n";
pub(super) const TLS_FIRST: &str = "530 5.7.0 Must issue a STARTTLS command first\r\n";
pub(super) const TLS_WITHIN_MAIL: &str = "503 5.5.1 STARTTLS within a transaction\r\n";
pub(super) const NOT_OFFERED_NOW: &str = "502 5.5.1 Command not offered\r\n";
pub(super) const HELLO_FIRST: &str = "503 5.5.1 Send EHLO or HELO first\r\n";
pub(super) const LHLO_FIRST: &str = "503 5.5.1 Send LHLO first\r\n";
pub(super) const LMTP_ONLY: &str = "500 5.5.1 This is LMTP: send LHLO\r\n";
pub(super) const NO_LMTP: &str = "502 5.5.1 This is SMTP: send EHLO\r\n";
pub(super) const NO_LMTP_RECIPIENTS: &str = "503 5.5.1 No valid recipients\r\n";
pub(super) const IN_TRANSACTION: &str = "503 5.5.1 Not within a transaction\r\n";
pub(super) const MAIL_FIRST: &str = "503 5.5.1 Send MAIL first\r\n";
pub(super) const MAIL_TWICE: &str = "503 5.5.1 A transaction is open already\r\n";
pub(super) const NO_RECIPIENTS: &str = "554 5.5.1 No valid recipients\r\n";
pub(super) const NO_PARAMETERS: &str = "555 5.5.4 Parameters need EHLO\r\n";
pub(super) const NOT_OFFERED: &str = "555 5.5.4 Parameter of an extension that is not offered\r\n";
pub(super) const TOO_LARGE: &str = "552 5.3.4 Message larger than this server takes\r\n";
pub(super) const TOO_MANY_RECIPIENTS: &str = "452 4.5.3 Too many recipients\r\n";
pub(super) const NEEDS_UTF8: &str = "553 5.6.7 Address needs SMTPUTF8\r\n";
pub(super) const SENDER_NEEDS_UTF8: &str = "550 5.6.7 Address needs SMTPUTF8\r\n";
pub(super) const ORCPT_NEEDS_UTF8: &str = "501 5.5.4 ORCPT beyond ASCII needs SMTPUTF8\r\n";
pub(super) const COMMAND_NOT_OFFERED: &str = "502 5.5.1 Command not offered\r\n";
pub(super) const EHLO_FIRST: &str = "503 5.5.1 Send EHLO first\r\n";
pub(super) const AUTH_IN_TRANSACTION: &str = "503 5.5.1 Not within a transaction\r\n";
pub(super) const AUTH_TWICE: &str = "503 5.5.1 Authenticated already\r\n";
pub(super) const AUTH_NEEDS_TLS: &str = "538 5.7.11 Encryption required for authentication\r\n";
pub(super) const AUTH_REQUIRED: &str = "530 5.7.0 Authentication required\r\n";
pub(super) const BOUND_ALREADY: &str =
    "454 4.7.0 An exchange was bound to this connection already; open another\r\n";
pub(super) const NO_SUCH_MECHANISM: &str = "504 5.5.4 Mechanism not offered\r\n";
pub(super) const NO_BASE64: &str = "501 5.5.2 Not a line of base64\r\n";
pub(super) const BAD_EXCHANGE: &str = "501 5.5.2 Malformed authentication\r\n";
pub(super) const RESPONSE_TOO_LONG: &str = "500 5.5.6 Authentication line too long\r\n";
pub(super) const AUTH_CANCELLED: &str = "501 5.7.0 Authentication cancelled\r\n";
pub(super) const AUTHENTICATED: &str = "235 2.7.0 Authenticated\r\n";
pub(super) const NOT_AUTHENTICATED: &str = "535 5.7.8 Wrong name or password\r\n";
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
            BadCommand::Chunk => return Err(BAD_CHUNK),
            BadCommand::Control => "500 5.5.2 Control character in command\r\n",
            BadCommand::Unknown => "500 5.5.1 Unknown command\r\n",
            BadCommand::NotOffered => COMMAND_NOT_OFFERED,
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
