//! The part for the person who reads it: what happened, to whom, and what can be
//! done. Plain words, since most who get a report know nothing of mail servers.

use super::returned::Attached;
use super::status::is_by_time;
use super::{Kind, MESSAGE_RETURNED_MAX, Part, ReportInput, date, encode, one_line};
use crate::base::{Disposition, EnhancedCode, Outcome, limits};
use crate::mail::headers::fields;

/// Longest subject that is quoted, in characters.
const SUBJECT_MAX: usize = 80;

/// The subject of the report.
pub(super) fn subject(input: &ReportInput<'_>) -> &'static str {
    match input.kind {
        Kind::Failed if all_missed(input) => "Undelivered mail: not delivered in time",
        Kind::Failed if all_expired(input) => "Undelivered mail: given up after many attempts",
        Kind::Failed => "Undelivered mail: returned to sender",
        Kind::Delayed => "Delayed mail: still being tried",
        Kind::Relayed if input.deliver_by.is_some() => "Mail passed on",
        Kind::Relayed => "Mail passed on: no report on its delivery will come",
        Kind::Delivered => "Mail delivered",
    }
}

/// The part.
pub(super) fn part(input: &ReportInput<'_>, attached: Attached, utf8: bool) -> Part {
    let mut text = format!("This is the mail system at {}.\r\n\r\n", input.host);
    wrap(&format!("{} {}", message_named(input), what_happened(input)), 0, &mut text);
    for reported in input.recipients {
        text.push_str(&format!("\r\n<{}>\r\n", one_line(reported.address, true)));
        wrap(&reason(input, reported.outcome), 4, &mut text);
        if let Some(advice) = advice(input.kind, reported.outcome) {
            wrap(advice, 4, &mut text);
        }
    }
    text.push_str("\r\n");
    wrap(&closing(input, attached), 0, &mut text);
    let charset = if text.is_ascii() { "us-ascii" } else { "utf-8" };
    encode(&format!("text/plain; charset={charset}"), text.into_bytes(), utf8)
}

/// The message, so that its sender knows which one it was.
fn message_named(input: &ReportInput<'_>) -> String {
    let subject = fields(input.original).find(|field| field.is("Subject"));
    let value = subject.map(|field| field.value().into_owned()).unwrap_or_default();
    let subject = String::from_utf8(value).unwrap_or_default();
    let of = date(input.arrival);
    // One that is encoded would be a riddle.
    if subject.is_empty() || subject.contains("=?") {
        return format!("Your message of {of}");
    }
    let mut quoted: String = one_line(&subject, true).chars().take(SUBJECT_MAX).collect();
    if subject.chars().count() > SUBJECT_MAX {
        quoted.push_str("...");
    }
    format!("Your message \"{quoted}\" of {of}")
}

/// The rest of the sentence, and what follows from it for all recipients.
fn what_happened(input: &ReportInput<'_>) -> String {
    match input.kind {
        Kind::Failed if all_missed(input) => "could not be delivered to the recipients named \
             below by the time that you have set for it. It will not be tried again."
            .to_owned(),
        Kind::Failed if all_expired(input) => "could not be delivered to the recipients named \
             below although it was tried for a long time. It is given up now."
            .to_owned(),
        Kind::Failed => "could not be delivered to the recipients named below, and will not be \
             tried again. The reason is given under each address, in the words of the host that \
             gave it."
            .to_owned(),
        Kind::Delayed if input.is_overdue => format!(
            "has not reached the recipients named below by the time that you have set for it. You \
             need not do anything: it is tried again until {}. If it cannot be delivered by then, \
             you will be told.",
            date(input.retry_until)
        ),
        Kind::Delayed => format!(
            "has not reached the recipients named below yet. You need not do anything: it is \
             tried again until {}. If it cannot be delivered by then, you will be told.",
            date(input.retry_until)
        ),
        Kind::Relayed if input.deliver_by.is_some() => "was passed on for the recipients named \
             below, to mail systems which may not report when they have delivered it. You are \
             told because you have set a time for the message."
            .to_owned(),
        Kind::Relayed => "was passed on for the recipients named below, to mail systems that do \
             not report when they have delivered it. You will hear of these recipients again \
             only if one of those systems tells you that it failed."
            .to_owned(),
        Kind::Delivered => "was delivered to the recipients named below. You are told because \
             you have asked for it."
            .to_owned(),
    }
}

/// What was said about one recipient.
fn reason(input: &ReportInput<'_>, outcome: &Outcome) -> String {
    let said = one_line(&outcome.reply.to_string(), true);
    let who = match outcome.host.as_str() {
        "" => String::new(),
        host => format!("{} said: ", one_line(host, true)),
    };
    let attempts = outcome.attempts;
    match input.kind {
        Kind::Failed if outcome.disposition == Disposition::Expired && !is_by_time(outcome) => {
            format!(
                "Given up after {} (attempts: {attempts}). The last answer was: {who}{said}",
                age(input, outcome)
            )
        }
        Kind::Delayed => format!(
            "Not delivered for {} (attempts: {attempts}). The last answer was: {who}{said}",
            age(input, outcome)
        ),
        Kind::Failed | Kind::Relayed | Kind::Delivered => format!("{who}{said}"),
    }
}

/// How old the message was at the outcome.
fn age(input: &ReportInput<'_>, outcome: &Outcome) -> String {
    let hours = outcome.at.since(input.arrival).as_secs() / 3600;
    match (hours / 24, hours % 24) {
        (0, 0) => "less than an hour".to_owned(),
        (0, hours) => format!("{hours} h"),
        (days, 0) => format!("{days} d"),
        (days, hours) => format!("{days} d {hours} h"),
    }
}

/// What the sender can do about a failure, as far as its code tells (RFC 3463).
fn advice(kind: Kind, outcome: &Outcome) -> Option<&'static str> {
    if kind != Kind::Failed {
        return None;
    }
    let EnhancedCode(_, subject, detail) = outcome.reply.enhanced?;
    Some(match (subject, detail) {
        (2, 2) => {
            "The mailbox is full. Tell the recipient in another way, or send the message again \
             later."
        }
        (3, 4) | (2, 3) => "The message is too large for that system. Send less at a time.",
        _ if outcome.disposition == Disposition::Expired => {
            "You can send the message again; if this goes on, reach the recipient in another way."
        }
        (1, 2 | 10) | (4, 4) => {
            "There is no mail system for what is behind the @ sign. See whether it is spelled \
             right."
        }
        (1, _) => {
            "See whether the address is spelled right. If it is, ask the recipient for another."
        }
        (6, _) => {
            "That system cannot take a message of this form. Send it as plain text, with a plain \
             address."
        }
        (7, _) => "A rule of that system forbids it. Its postmaster can tell which, and why.",
        _ => return None,
    })
}

/// Who can help, and what is attached.
fn closing(input: &ReportInput<'_>, attached: Attached) -> String {
    let attached = match attached {
        Attached::Header => "The header of your message is attached".to_owned(),
        Attached::Message => "Your message is attached".to_owned(),
        Attached::TooLong => format!(
            "You asked for the whole message to be returned, but it is longer than {} KiB, and \
             only its header is attached",
            MESSAGE_RETURNED_MAX / 1024
        ),
        Attached::Unfit => "You asked for the whole message to be returned, but it has octets or \
             lines that a report cannot hold, and only its header is attached"
            .to_owned(),
    };
    format!(
        "If you need help, send this report to the postmaster of {}. {attached}; its id there \
         was {}.",
        input.host, input.queue_id
    )
}

/// All were missed by the time that the sender has set.
fn all_missed(input: &ReportInput<'_>) -> bool {
    input.recipients.iter().all(|reported| is_by_time(reported.outcome))
}

fn all_expired(input: &ReportInput<'_>) -> bool {
    let mut outcomes = input.recipients.iter().map(|reported| reported.outcome);
    outcomes.all(|outcome| outcome.disposition == Disposition::Expired)
}

/// Appends `text` in lines of usual length, indented; words are not broken.
fn wrap(text: &str, indent: usize, out: &mut String) {
    let mut column = 0;
    for word in text.split_ascii_whitespace() {
        let width = word.chars().count();
        if column == 0 || column + 1 + width > limits::TEXT_LINE_ADVISED - 2 {
            if column > 0 {
                out.push_str("\r\n");
            }
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent + width;
        } else {
            out.push(' ');
            column += 1 + width;
        }
        out.push_str(word);
    }
    out.push_str("\r\n");
}
