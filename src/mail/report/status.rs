//! The part for programs (RFC 3464, 2; RFC 6533, 3).

use super::{Kind, Part, ReportInput, Reported, date, encode, one_line};
use crate::base::dsn::{escape_utf8, unescape_utf8};
use crate::base::{Disposition, EnhancedCode, Outcome, UnixMillis, xtext};

/// Longest value of a field, in characters: with its name it must fit into a line
/// of 998 octets, since this part may not be encoded.
const VALUE_MAX: usize = 900;

/// The part.
pub(super) fn part(input: &ReportInput<'_>, utf8: bool) -> Part {
    let mut fields = Fields { text: String::new(), utf8 };
    if let Some(envid) = input.envid {
        fields.put("Original-Envelope-Id", &xtext::decode(envid));
    }
    fields.put("Reporting-MTA", &format!("dns; {}", input.host));
    fields.put("X-Ringpost-Queue-ID", input.queue_id);
    fields.put("Arrival-Date", &date(input.arrival));
    if let Some(until) = input.hold_until {
        // RFC 4865, 5.1.2. HOLDFOR counts as the time that it came to.
        let until = UnixMillis(until.as_secs() * 1000).to_string().replace(".000", "");
        fields.put("Future-Release-Request", &format!("until;{until}"));
    }
    if let Some(by) = input.deliver_by {
        fields.put("Deliver-By-Date", &date(by));
    }
    for reported in input.recipients {
        fields.text.push_str("\r\n");
        recipient(input, reported, &mut fields);
    }
    let kind = if utf8 { "message/global-delivery-status" } else { "message/delivery-status" };
    encode(kind, fields.text.into_bytes(), utf8)
}

/// The fields of one recipient.
fn recipient(input: &ReportInput<'_>, reported: &Reported<'_>, fields: &mut Fields) {
    let Reported { address, orcpt, outcome } = *reported;
    if let Some(orcpt) = orcpt {
        fields.put("Original-Recipient", &original(orcpt, fields.utf8));
    }
    fields.put("Final-Recipient", &typed_address(address, fields.utf8));
    fields.put("Action", action(input.kind));
    fields.put("Status", &status_code(input, outcome).to_string());
    if !outcome.host.is_empty() {
        fields.put("Remote-MTA", &format!("dns; {}", host_name(&outcome.host)));
    }
    let kind = if outcome.host.is_empty() { "x-ringpost" } else { "smtp" };
    fields.put("Diagnostic-Code", &format!("{kind}; {}", outcome.reply));
    fields.put("Last-Attempt-Date", &date(outcome.at));
    if input.kind == Kind::Delayed {
        fields.put("Will-Retry-Until", &date(input.retry_until));
    }
}

/// Fields as they are written.
struct Fields {
    text: String,
    utf8: bool,
}

impl Fields {
    /// One field, whatever its value holds.
    fn put(&mut self, name: &str, value: &str) {
        let value: String = one_line(value, self.utf8).chars().take(VALUE_MAX).collect();
        self.text.push_str(&format!("{name}: {value}\r\n"));
    }
}

/// What was done (RFC 3464, 2.3.3).
fn action(kind: Kind) -> &'static str {
    match kind {
        Kind::Failed => "failed",
        Kind::Delayed => "delayed",
        Kind::Relayed => "relayed",
        Kind::Delivered => "delivered",
    }
}

/// The status of a recipient: of the class that the action has. What was deferred
/// until it expired did not fail for the reason last given, but for the time
/// (RFC 3463, X.4.7); what a peer called permanent may count as passing, as when
/// it turns away everybody. Where the sender has set the time, it is that which was
/// missed (RFC 2852, section 4).
pub(super) fn status_code(input: &ReportInput<'_>, outcome: &Outcome) -> EnhancedCode {
    if outcome.disposition == Disposition::Expired && !is_by_time(outcome) {
        return EnhancedCode(4, 4, 7);
    }
    if input.kind == Kind::Delayed && input.is_overdue {
        return EnhancedCode(4, 4, 7);
    }
    let class = match input.kind {
        Kind::Failed => 5,
        Kind::Delayed => 4,
        Kind::Relayed | Kind::Delivered => 2,
    };
    match outcome.reply.enhanced {
        Some(EnhancedCode(_, subject, detail)) => EnhancedCode(class, subject, detail),
        None => EnhancedCode(class, 0, 0),
    }
}

/// True when the time that the sender has set was up before the delivery.
pub(super) fn is_by_time(outcome: &Outcome) -> bool {
    outcome.reply.enhanced == Some(EnhancedCode(5, 4, 7))
}

/// ORCPT as a field has it: the type, and the address that was encoded. An
/// internationalised one stays escaped where UTF-8 may not be, and is not elsewhere; what
/// cannot be read as one is left as it is (RFC 6533, 3).
fn original(orcpt: &str, utf8: bool) -> String {
    let (kind, address) = orcpt.split_once(';').unwrap_or(("rfc822", orcpt));
    if !kind.eq_ignore_ascii_case("utf-8") {
        return format!("{kind}; {}", xtext::decode(address));
    }
    let mut typed = format!("{kind}; ");
    if utf8 {
        typed.push_str(&unescape_utf8(address).unwrap_or_else(|| address.to_owned()));
    } else {
        escape_utf8(address, &mut typed)
    }
    typed
}

/// An address with its type. RFC 6533, 3: an internationalised one is given as
/// it is where UTF-8 may be, and with escapes elsewhere.
fn typed_address(address: &str, utf8: bool) -> String {
    if address.is_ascii() {
        return format!("rfc822; {address}");
    }
    if utf8 {
        return format!("utf-8; {address}");
    }
    let mut typed = "utf-8; ".to_owned();
    for letter in address.chars() {
        match letter {
            '\\' | '+' | '=' => typed.push_str(&format!("\\x{{{:X}}}", letter as u32)),
            '!'..='~' => typed.push(letter),
            _ => typed.push_str(&format!("\\x{{{:X}}}", letter as u32)),
        }
    }
    typed
}

/// The host of `host:port`, an address in the brackets of a literal.
pub(super) fn host_name(place: &str) -> String {
    match place.parse() {
        Ok(std::net::SocketAddr::V4(place)) => format!("[{}]", place.ip()),
        Ok(std::net::SocketAddr::V6(place)) => format!("[IPv6:{}]", place.ip()),
        Err(_) => place.rsplit_once(':').map_or(place, |(host, _)| host).to_owned(),
    }
}
