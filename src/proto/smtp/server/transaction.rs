//! A mail transaction as it grows from MAIL to DATA (RFC 5321, 3.3).

use std::collections::HashSet;

use crate::base::dsn::{Dsn, RecipientDsn};
use crate::base::{BodyType, Envelope, Terms, UnixMillis};
use crate::proto::smtp::asks::Asks;

/// What MAIL and RCPT said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Reverse-path without angle brackets; empty for the null sender.
    pub sender: String,
    /// Forward-paths without angle brackets and source routes, in order.
    pub recipients: Vec<String>,
    /// SIZE, if it was declared.
    pub size: Option<u64>,
    /// BODY.
    pub body: BodyType,
    /// SMTPUTF8.
    pub smtputf8: bool,
    /// RET, ENVID, NOTIFY and ORCPT, if any was given.
    pub dsn: Option<Box<Dsn>>,
    /// What else was asked, as far as it is granted.
    pub asks: Asks,
    /// Who sends it, if that is known.
    pub terms: Option<Box<Terms>>,
}

impl Transaction {
    /// The envelope to be queued.
    pub fn into_envelope(self, arrival: UnixMillis, client: String, helo: String) -> Envelope {
        Envelope {
            sender: self.sender,
            recipients: self.recipients,
            arrival_ms: arrival.0,
            body_type: self.body,
            smtputf8: self.smtputf8,
            client,
            helo,
            dsn: self.dsn,
            terms: self.asks.terms(arrival, self.terms),
        }
    }

    /// One more recipient.
    pub(super) fn add(&mut self, recipient: String, asked: Option<Box<RecipientDsn>>) {
        if let Some(asked) = asked {
            self.dsn.get_or_insert_default().note(self.recipients.len(), *asked);
        }
        self.recipients.push(recipient);
    }

    /// Leaves each recipient in once, where it was named first, with what was
    /// asked there. Octets decide: what two local parts mean is for their host to
    /// say.
    pub(super) fn forget_repeats(&mut self) {
        if self.recipients.len() < 2 {
            return;
        }
        let mut seen = HashSet::with_capacity(self.recipients.len());
        let first: Vec<bool> = self.recipients.iter().map(|text| seen.insert(&**text)).collect();
        if first.contains(&false) {
            let mut kept = first.iter();
            self.recipients.retain(|_| kept.next() == Some(&true));
            if let Some(dsn) = &mut self.dsn {
                let mut kept = first.iter();
                dsn.recipients.retain(|_| kept.next() == Some(&true));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::dsn::Notify;

    #[test]
    fn a_recipient_named_twice_gets_one_copy() {
        let named = ["a@b", "c@d", "a@b", "A@b", "c@d"];
        let mut transaction =
            Transaction { recipients: named.map(String::from).to_vec(), ..Transaction::default() };
        transaction.forget_repeats();
        assert_eq!(transaction.recipients, ["a@b", "c@d", "A@b"]);
    }

    #[test]
    fn what_was_asked_stays_with_its_recipient() {
        let asked = |notify| Some(Box::new(RecipientDsn { notify: Some(notify), orcpt: None }));
        let mut transaction = Transaction::default();
        transaction.add("a@b".into(), None);
        transaction.add("a@b".into(), asked(Notify::NEVER));
        transaction.add("c@d".into(), asked(Notify::ABSENT));
        transaction.add("a@b".into(), None);
        transaction.forget_repeats();
        let envelope = transaction.into_envelope(UnixMillis(7), String::new(), String::new());
        assert_eq!(envelope.recipients, ["a@b", "c@d"]);
        assert_eq!(envelope.recipient_dsn(0), Some(&RecipientDsn::default()));
        assert_eq!(envelope.recipient_dsn(1).unwrap().notify, Some(Notify::ABSENT));
    }

    #[test]
    fn becomes_an_envelope() {
        let transaction = Transaction {
            sender: "s@a".into(),
            recipients: vec!["r@b".into()],
            size: Some(9),
            body: BodyType::EightBitMime,
            smtputf8: true,
            dsn: Some(Box::new(Dsn { envid: Some("e".into()), ..Dsn::default() })),
            asks: Asks { priority: Some(3), ..Asks::default() },
            terms: Some(Box::new(Terms { user: Some("u".into()), ..Terms::default() })),
        };
        let envelope = transaction.into_envelope(UnixMillis(7), "192.0.2.1".into(), "h".into());
        let expected = Envelope {
            sender: "s@a".into(),
            recipients: vec!["r@b".into()],
            arrival_ms: 7,
            body_type: BodyType::EightBitMime,
            smtputf8: true,
            client: "192.0.2.1".into(),
            helo: "h".into(),
            dsn: Some(Box::new(Dsn { envid: Some("e".into()), ..Dsn::default() })),
            terms: Some(Box::new(Terms {
                priority: 3,
                user: Some("u".into()),
                ..Terms::default()
            })),
        };
        assert_eq!(envelope, expected);
    }
}
