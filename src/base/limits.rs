//! Limits that the standards set, in one place, with the relations between
//! them asserted. What an operator may choose is in `config`.

use std::time::Duration;

/// Longest command line, CRLF included (RFC 5321, 4.5.3.1.4).
pub const COMMAND_LINE_MAX: usize = 512;
/// What the parameters add: to MAIL, RFC 6531 (3.2) 10, RFC 1870 26, RFC 6152 17
/// and RFC 3461 116, to RCPT RFC 3461 (5.4) 530; and what we allow beyond, since
/// real clients are longer.
pub const COMMAND_LINE_ALLOWED: usize = 2048;
/// Longest line of an authentication exchange, CRLF included (RFC 4954, 4).
pub const AUTH_LINE_MAX: usize = 12_288;
/// Longest value of AUTH of MAIL in octets (RFC 4954, 3).
pub const AUTH_PARAMETER_MAX: usize = 500;
/// Longest value of ENVID in octets (RFC 3461, 4.4).
pub const ENVID_MAX: usize = 100;
/// Longest value of ORCPT in octets (RFC 3461, 4.2).
pub const ORCPT_MAX: usize = 500;
/// Longest local part in octets (4.5.3.1.1).
pub const LOCAL_PART_MAX: usize = 64;
/// Longest domain in octets (4.5.3.1.2).
pub const DOMAIN_MAX: usize = 255;
/// Longest path, angle brackets and source route included (4.5.3.1.3).
pub const PATH_MAX: usize = 256;
/// Longest reply line we send, CRLF included (4.5.3.1.5).
pub const REPLY_LINE_MAX: usize = 512;
/// Longest line of a message in octets, CRLF included, a stuffing dot not
/// counted (4.5.3.1.6). Longer lines are taken and counted, not refused: they
/// are common, and cutting them would damage mail (see `docs/decisions`).
pub const TEXT_LINE_MAX: usize = 1000;
/// Octets of a line, CRLF not counted, that RFC 5322 (2.1.1) advises; what the
/// lines that we write ourselves are folded to.
pub const TEXT_LINE_ADVISED: usize = 78;
/// Fewest recipients a server must take in one transaction (4.5.3.1.8).
pub const RECIPIENTS_MIN: usize = 100;
/// Most recipients that a record can name.
pub const RECIPIENTS_RECORD_MAX: usize = 65_535;
/// Largest part of a body that one record of the log holds, trace header
/// included, in bytes; also what bounds the memory of a session and of an
/// attempt. Longer bodies are stored and sent in parts.
pub const BODY_PART_MAX: usize = 256 * 1024;
/// `Received:` fields past which a message is looping (6.3).
pub const RECEIVED_MAX: usize = 100;
/// Longest reply text kept of a peer's words, in bytes.
pub const REPLY_TEXT_KEPT: usize = 480;
/// Longest reply line taken from a peer, in bytes (ours are shorter).
pub const PEER_REPLY_LINE_MAX: usize = 4096;
/// Most lines in one reply taken from a peer.
pub const PEER_REPLY_LINES_MAX: usize = 128;

/// Client time-outs (4.5.3.2), each for the wait on one reply.
pub mod client_timeout {
    use super::Duration;
    /// 4.5.3.2.1: the greeting.
    pub const GREETING: Duration = Duration::from_secs(300);
    /// EHLO and HELO: no value in the RFC; as MAIL.
    pub const EHLO: Duration = Duration::from_secs(300);
    /// The reply to STARTTLS, and the handshake.
    pub const HANDSHAKE: Duration = Duration::from_secs(60);
    /// Each step of AUTH: a server may have to ask another.
    pub const AUTH: Duration = Duration::from_secs(120);
    /// 4.5.3.2.2.
    pub const MAIL: Duration = Duration::from_secs(300);
    /// 4.5.3.2.3.
    pub const RCPT: Duration = Duration::from_secs(300);
    /// 4.5.3.2.4: the 354.
    pub const DATA_INIT: Duration = Duration::from_secs(120);
    /// 4.5.3.2.5: between two blocks of data.
    pub const DATA_BLOCK: Duration = Duration::from_secs(180);
    /// 4.5.3.2.6: the reply to the final dot.
    pub const DATA_DONE: Duration = Duration::from_secs(600);
    /// QUIT is a courtesy: a peer that does not answer is left.
    pub const QUIT: Duration = Duration::from_secs(5);
}

const _: () = assert!(COMMAND_LINE_ALLOWED >= COMMAND_LINE_MAX);
const _: () = assert!(COMMAND_LINE_ALLOWED > 2 * PATH_MAX);
const _: () = assert!(COMMAND_LINE_ALLOWED > COMMAND_LINE_MAX + ORCPT_MAX + ENVID_MAX);
const _: () = assert!(PATH_MAX > LOCAL_PART_MAX);
const _: () = assert!(REPLY_TEXT_KEPT < REPLY_LINE_MAX);
