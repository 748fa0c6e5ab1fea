//! The part that returns the message, or its header (RFC 6522, 3; RFC 3461, 6.2).

use super::{HEADER_RETURNED_MAX, Part, ReportInput, Returned, encode};
use crate::mail::headers::header_section;
use crate::mail::{encoding, stuffing};

/// What is attached, for the words about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attached {
    /// The header, as is usual.
    Header,
    /// The message.
    Message,
    /// The header, since the message is too long.
    TooLong,
    /// The header, since the message cannot be put into a report as it is.
    Unfit,
}

/// The part, and what it is.
pub(super) fn part(input: &ReportInput<'_>, utf8: bool) -> (Part, Attached) {
    let attached = match input.returned {
        Returned::Header => Attached::Header,
        Returned::TooLong => Attached::TooLong,
        Returned::Whole => {
            if let Some(part) = message(input.original, utf8) {
                return (part, Attached::Message);
            }
            Attached::Unfit
        }
    };
    (header(input.original, utf8), attached)
}

/// The whole message. It may not be encoded (RFC 2046, 5.2.1): so it is not
/// returned where the report would have to be.
fn message(stored: &[u8], utf8: bool) -> Option<Part> {
    let text = stuffing::unstuff(stored);
    if encoding::is_seven_bit(&text) {
        return Some(encode("message/rfc822", text, utf8));
    }
    let is_global = utf8 && encoding::is_clean(&text) && std::str::from_utf8(&text).is_ok();
    is_global.then(|| encode("message/global", text, utf8))
}

/// The header of the message.
fn header(stored: &[u8], utf8: bool) -> Part {
    let section = header_section(stored);
    let mut kept = &section[..section.len().min(HEADER_RETURNED_MAX)];
    if kept.len() < section.len() {
        // Cut behind a whole line; none at all fits if the first is too long.
        let end = memchr::memmem::rfind(kept, b"\r\n").map_or(0, |at| at + 2);
        kept = &kept[..end];
    }
    let text = stuffing::unstuff(kept);
    let is_global = utf8 && encoding::is_clean(&text) && std::str::from_utf8(&text).is_ok();
    let kind = if is_global { "message/global-headers" } else { "text/rfc822-headers" };
    encode(kind, text, is_global)
}
