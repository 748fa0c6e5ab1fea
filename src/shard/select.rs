//! Which messages and which of their recipients an operator means. Pure: what
//! the index knows, the envelope and the last outcomes are arguments, in this
//! order, so that the shard reads from its log only what the rest depends on.
//!
//! A message is meant when all that is asked of messages holds for it, and all
//! that is asked of recipients holds for at least one and the same recipient
//! that is not settled. An order then concerns the recipients for which it
//! holds.

use std::ops::RangeInclusive;
use std::time::Duration;

use smallvec::SmallVec;

use crate::base::{Envelope, Outcome, Reply, UnixMillis};
use crate::config::DomainPattern;
use crate::queue::{MessageState, PendingRecipient};
use crate::relay::Way;

/// Indices of recipients into the envelope.
pub type Chosen = SmallVec<[u16; 1]>;

/// An address, or all of a domain. Case does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressPattern {
    /// This address; empty for the null sender.
    Address(String),
    /// Addresses of this domain.
    Domain(String),
}

impl AddressPattern {
    /// Whether `address` is meant.
    pub fn matches(&self, address: &str) -> bool {
        match self {
            AddressPattern::Address(wanted) => address.eq_ignore_ascii_case(wanted),
            AddressPattern::Domain(wanted) => {
                domain(address).is_some_and(|domain| domain.eq_ignore_ascii_case(wanted))
            }
        }
    }
}

/// What is behind the last `@`.
fn domain(address: &str) -> Option<&str> {
    address.rfind('@').map(|at| &address[at + 1..])
}

/// What a recipient waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// A delivery is under way, or waits its turn.
    Active,
    /// The next attempt, or room at its site.
    Deferred,
    /// Room at its site: it is due.
    Site,
    /// An operator.
    Held,
    /// Its sender wants it kept for later.
    Kept,
}

/// The last word about a recipient, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LastReply {
    /// Its code begins with these digits.
    Code(String),
    /// It contains this text, kept in lower case.
    Text(String),
}

impl LastReply {
    /// One to three digits are the beginning of a code, anything else is text.
    pub fn new(wanted: &str) -> Self {
        let digits = wanted.bytes().all(|byte| byte.is_ascii_digit());
        if digits && (1..=3).contains(&wanted.len()) {
            LastReply::Code(wanted.to_owned())
        } else {
            LastReply::Text(wanted.to_lowercase())
        }
    }

    fn matches(&self, reply: &Reply) -> bool {
        match self {
            LastReply::Code(digits) => format!("{:03}", reply.code).starts_with(digits),
            LastReply::Text(text) => reply.to_string().to_lowercase().contains(text),
        }
    }
}

/// See the file's comment. Each field bounds what is meant; the default means
/// everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Messages from there.
    pub sender: Option<AddressPattern>,
    /// Messages accepted longer ago than this.
    pub older_than: Option<Duration>,
    /// Messages accepted less long ago than this.
    pub newer_than: Option<Duration>,
    /// Messages whose stored body has more bytes.
    pub larger_than: Option<u64>,
    /// Messages whose stored body has fewer bytes.
    pub smaller_than: Option<u64>,
    /// Recipients that wait like this.
    pub waiting: Option<Waiting>,
    /// No recipients that their senders want kept for later: they are not for
    /// clients to have sent.
    pub leaves_kept: bool,
    /// Recipients for which so many attempts have been made.
    pub attempts: RangeInclusive<u16>,
    /// Recipients there.
    pub recipient: Option<AddressPattern>,
    /// Recipients of these domains.
    pub domain: Option<DomainPattern>,
    /// Recipients whose mail goes to a site of this name, or with this host, as
    /// far as the shard knows; or to `discard`, `reject` or `mx`.
    pub site: Option<String>,
    /// Recipients about which this was said last.
    pub last_reply: Option<LastReply>,
}

impl Default for Selection {
    fn default() -> Self {
        Selection {
            sender: None,
            older_than: None,
            newer_than: None,
            larger_than: None,
            smaller_than: None,
            waiting: None,
            leaves_kept: false,
            attempts: 0..=u16::MAX,
            recipient: None,
            domain: None,
            site: None,
            last_reply: None,
        }
    }
}

impl Selection {
    /// Whether the envelope is needed to decide.
    pub fn asks_envelope(&self) -> bool {
        let recipients = self.recipient.is_some() || self.domain.is_some() || self.site.is_some();
        self.sender.is_some() || recipients
    }

    /// Whether the last outcomes are needed to decide.
    pub fn asks_outcomes(&self) -> bool {
        self.last_reply.is_some()
    }

    /// The recipients that may be meant, by what the index knows; none when the
    /// message is not.
    pub fn by_index(&self, message: &MessageState, now: UnixMillis) -> Chosen {
        let age = now.since(message.arrival);
        let is_meant = self.older_than.is_none_or(|span| age > span)
            && self.newer_than.is_none_or(|span| age < span)
            && self.larger_than.is_none_or(|bytes| message.size > bytes)
            && self.smaller_than.is_none_or(|bytes| message.size < bytes);
        let pending = message.recipients.iter().filter(|recipient| {
            is_meant
                && !(self.leaves_kept && recipient.postponed)
                && self.attempts.contains(&recipient.attempts)
                && self.waits(recipient)
        });
        pending.map(|recipient| recipient.recipient).collect()
    }

    fn waits(&self, recipient: &PendingRecipient) -> bool {
        match self.waiting {
            None => true,
            Some(Waiting::Active) => recipient.out,
            Some(Waiting::Deferred) => !recipient.out && !recipient.held,
            Some(Waiting::Site) => recipient.waiting,
            Some(Waiting::Held) => recipient.held,
            Some(Waiting::Kept) => recipient.postponed,
        }
    }

    /// Keeps of `chosen` what is meant by the envelope. `way` knows where mail for
    /// an address goes.
    pub fn by_envelope(&self, envelope: &Envelope, way: impl Fn(&str) -> Way, chosen: &mut Chosen) {
        if self.sender.as_ref().is_some_and(|wanted| !wanted.matches(&envelope.sender)) {
            chosen.clear();
        }
        chosen.retain(|index| {
            let Some(address) = envelope.recipients.get(usize::from(*index)) else { return false };
            self.recipient.as_ref().is_none_or(|wanted| wanted.matches(address))
                && self.domain.as_ref().is_none_or(|wanted| {
                    domain(address).is_some_and(|domain| wanted.matches(domain))
                })
                && self.site.as_ref().is_none_or(|wanted| way(address).leads_to(wanted))
        });
    }

    /// Keeps of `chosen` what is meant by the last outcomes.
    pub fn by_outcomes(&self, outcomes: &[Outcome], chosen: &mut Chosen) {
        let Some(wanted) = &self.last_reply else { return };
        chosen.retain(|index| {
            let last = outcomes.iter().find(|outcome| outcome.recipient == *index);
            last.is_some_and(|outcome| wanted.matches(&outcome.reply))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Disposition, EnhancedCode, Location, QueueId};

    const NOW: UnixMillis = UnixMillis(1_000_000);

    /// Four recipients: one tried twice and waiting for its site, one never and
    /// out, one held, one held and out.
    fn message() -> MessageState {
        let pending = |recipient, attempts, out, held| PendingRecipient {
            recipient,
            attempts,
            next_attempt: NOW,
            out,
            waiting: recipient == 0,
            noticed: 0,
            postponed: false,
            held,
        };
        MessageState {
            id: QueueId::default(),
            size: 1000,
            arrival: UnixMillis(NOW.0 - 60_000),
            at: Location::default(),
            recipients_total: 5,
            recipients: vec![
                pending(0, 2, false, false),
                pending(1, 0, true, false),
                pending(3, 1, false, true),
                pending(4, 7, true, true),
            ],
        }
    }

    fn envelope() -> Envelope {
        let recipients = ["a@x.org", "b@sub.X.org", "done@x.org", "\"c@d\"@y.org", "postmaster"];
        Envelope {
            sender: "From@Example.com".into(),
            recipients: recipients.map(str::to_owned).to_vec(),
            ..Envelope::default()
        }
    }

    fn way(address: &str) -> Way {
        let to = |site: &str| (Some(site.to_owned()), false);
        let (site, by_mx) = match address.rsplit_once('@').map(|(_, domain)| domain) {
            Some("x.org") => to("127.0.0.1:1,127.0.0.1:2"),
            Some("sub.X.org") => to("discard"),
            Some("y.org") => (Some("mx1.y.org,mx2.y.org#y.org".to_owned()), true),
            _ => (None, true),
        };
        Way { site, by_mx }
    }

    fn chosen(selection: &Selection) -> Vec<u16> {
        let mut chosen = selection.by_index(&message(), NOW);
        selection.by_envelope(&envelope(), way, &mut chosen);
        chosen.to_vec()
    }

    fn address(text: &str) -> Option<AddressPattern> {
        Some(AddressPattern::Address(text.into()))
    }

    fn at(text: &str) -> Option<AddressPattern> {
        Some(AddressPattern::Domain(text.into()))
    }

    #[test]
    fn all_that_is_not_settled_is_meant_by_default() {
        let all = Selection::default();
        assert_eq!(chosen(&all), [0, 1, 3, 4]);
        assert!(!all.asks_envelope() && !all.asks_outcomes());
    }

    #[test]
    fn the_index_knows_age_size_attempts_and_state() {
        let minute = Duration::from_secs(60);
        let (more, less) = (Duration::from_secs(59), Duration::from_secs(61));
        let all = [0, 1, 3, 4];
        type Change = fn(&mut Selection, Duration);
        let cases: [(Change, Duration, &[u16]); 6] = [
            (|s, d| s.older_than = Some(d), more, &all),
            (|s, d| s.older_than = Some(d), minute, &[]),
            (|s, d| s.newer_than = Some(d), minute, &[]),
            (|s, d| s.newer_than = Some(d), less, &all),
            (|s, _| s.larger_than = Some(1000), minute, &[]),
            (|s, _| s.smaller_than = Some(1000), minute, &[]),
        ];
        for (change, span, expected) in cases {
            let mut selection = Selection::default();
            change(&mut selection, span);
            assert_eq!(chosen(&selection), expected, "{selection:?}");
            assert!(!selection.asks_envelope(), "{selection:?}");
        }
        let size = |larger, smaller| Selection {
            larger_than: Some(larger),
            smaller_than: Some(smaller),
            ..Selection::default()
        };
        assert_eq!(chosen(&size(999, 1001)), all);
        let tried = |attempts| Selection { attempts, ..Selection::default() };
        assert_eq!(chosen(&tried(1..=2)), [0, 3]);
        assert_eq!(chosen(&tried(0..=0)), [1]);
        let waits = |waiting| Selection { waiting: Some(waiting), ..Selection::default() };
        assert_eq!(chosen(&waits(Waiting::Active)), [1, 4]);
        assert_eq!(chosen(&waits(Waiting::Deferred)), [0]);
        assert_eq!(chosen(&waits(Waiting::Site)), [0]);
        assert_eq!(chosen(&waits(Waiting::Held)), [3, 4]);
        assert!(chosen(&waits(Waiting::Kept)).is_empty());
        let mut kept = message();
        kept.recipients[0].postponed = true;
        assert_eq!(waits(Waiting::Kept).by_index(&kept, NOW)[..], [0]);
        let others = Selection { leaves_kept: true, ..Selection::default() };
        assert_eq!(others.by_index(&kept, NOW)[..], [1, 3, 4]);
    }

    #[test]
    fn the_envelope_knows_addresses_and_where_they_lead() {
        let all = &[0, 1, 3, 4][..];
        let of = |sender, recipient, domain: Option<&str>, site: Option<&str>| Selection {
            sender,
            recipient,
            domain: domain.map(|domain| domain.parse().unwrap()),
            site: site.map(str::to_owned),
            ..Selection::default()
        };
        for (selection, expected) in [
            (of(address("from@example.COM"), None, None, None), all),
            (of(address("from@example.org"), None, None, None), &[]),
            (of(address(""), None, None, None), &[]),
            (of(at("example.com"), None, None, None), all),
            (of(at("ample.com"), None, None, None), &[]),
            (of(None, address("A@x.org"), None, None), &[0]),
            (of(None, at("x.org"), None, None), &[0]),
            (of(None, at("y.org"), None, None), &[3]),
            (of(None, address("Postmaster"), None, None), &[4]),
            (of(None, None, Some("x.org"), None), &[0]),
            (of(None, None, Some("*.x.org"), None), &[1]),
            (of(None, None, Some("*"), None), &[0, 1, 3]),
            (of(None, None, None, Some("127.0.0.1:1,127.0.0.1:2")), &[0]),
            (of(None, None, None, Some("127.0.0.1:2")), &[0]),
            (of(None, None, None, Some("127.0.0.1")), &[]),
            (of(None, None, None, Some("discard")), &[1]),
            (of(None, None, None, Some("reject")), &[]),
            (of(None, None, None, Some("mx1.y.org,mx2.y.org#y.org")), &[3]),
            (of(None, None, None, Some("MX2.y.org")), &[3]),
            (of(None, None, None, Some("y.org")), &[]),
            (of(None, None, None, Some("mx")), &[3, 4]),
            (of(at("example.com"), at("x.org"), Some("*.x.org"), None), &[]),
        ] {
            assert_eq!(chosen(&selection), expected, "{selection:?}");
            assert!(selection.asks_envelope(), "{selection:?}");
        }
    }

    #[test]
    fn the_last_reply_is_asked_for_by_code_or_by_text() {
        let said = |recipient, code, text: &str| Outcome {
            recipient,
            disposition: Disposition::Deferred,
            reply: Reply::new(code, EnhancedCode(4, 2, 0), text),
            host: String::new(),
            at: NOW,
            attempts: 1,
            next_attempt: NOW,
            security: None,
        };
        let outcomes = [said(0, 450, "Mailbox 421 busy"), said(3, 421, "Greylisted")];
        for (wanted, expected) in [
            ("4", &[0, 3][..]),
            ("421", &[3]),
            ("45", &[0]),
            ("5", &[]),
            ("GREY", &[3]),
            ("450 4.2.0 mail", &[0]),
            ("421 busy", &[0]),
            ("4210", &[]),
            ("", &[0, 3]),
        ] {
            let last_reply = Some(LastReply::new(wanted));
            let selection = Selection { last_reply, ..Selection::default() };
            let mut chosen = selection.by_index(&message(), NOW);
            selection.by_outcomes(&outcomes, &mut chosen);
            assert_eq!(&chosen[..], expected, "{wanted}");
            assert!(selection.asks_outcomes());
        }
        let mut all = Chosen::from_slice(&[0, 1]);
        Selection::default().by_outcomes(&outcomes, &mut all);
        assert_eq!(all[..], [0, 1]);
    }
}
