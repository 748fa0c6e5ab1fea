//! What a refusal sounds like: codes and words in the style of large mailbox
//! providers and of a small strict server, so that a relay's logs, reports and
//! reading of replies can be tried on what they will meet. The wording is this
//! sink's own.

use std::net::IpAddr;

use clap::ValueEnum;
use ringpost::base::{EnhancedCode, Reply};

use super::options::Step;

/// Whose style.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Persona {
    /// Says that it is a sink.
    #[default]
    Plain,
    /// Long sentences with an id of the transaction behind them.
    Gmail,
    /// Codes of its own in the third number and in brackets.
    Outlook,
    /// Names of its rules in brackets in front.
    Yahoo,
    /// A small server that takes every rule at its word.
    Strict,
}

/// Why something is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The server has too much to do.
    Busy,
    /// The client has too many connections.
    Connections,
    /// The client sends too fast, or too much on one connection.
    TooFast,
    /// The recipient gets too much.
    RecipientTooFast,
    /// Come back later, to show that you do.
    Greylisted,
    /// Nobody of that name.
    UnknownUser,
    /// No room.
    MailboxFull,
    /// The client is on a list.
    Blocked,
    /// Who the sender is cannot be proven.
    Unauthenticated,
    /// The content is not wanted.
    Spam,
}

/// Every reason with its name in options and where it is given if not said.
pub const REASONS: [(&str, Reason, Step); 10] = [
    ("busy", Reason::Busy, Step::Mail),
    ("connections", Reason::Connections, Step::Connect),
    ("too-fast", Reason::TooFast, Step::Mail),
    ("recipient-too-fast", Reason::RecipientTooFast, Step::Rcpt),
    ("greylisted", Reason::Greylisted, Step::Rcpt),
    ("unknown-user", Reason::UnknownUser, Step::Rcpt),
    ("mailbox-full", Reason::MailboxFull, Step::Rcpt),
    ("blocked", Reason::Blocked, Step::Connect),
    ("unauthenticated", Reason::Unauthenticated, Step::Dot),
    ("spam", Reason::Spam, Step::Dot),
];

/// What a reply may name.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The client.
    pub client: IpAddr,
    /// The recipient in question; empty if there is none.
    pub recipient: &'a str,
    /// A number for the id of the transaction.
    pub id: u64,
}

type Words = (u16, (u8, u16, u16), &'static str);

impl Persona {
    /// The reply for `reason`.
    pub fn reply(self, reason: Reason, facts: Facts<'_>) -> Reply {
        let (code, (class, subject, detail), text) = self.words(reason);
        Reply::new(code, EnhancedCode(class, subject, detail), filled(text, facts))
    }

    /// A reply with this code at `step`, in the words of the reason that mostly
    /// is behind such a code there.
    pub fn reply_with(self, code: u16, step: Step, facts: Facts<'_>) -> Reply {
        let class = (code / 100) as u8;
        if self == Persona::Plain {
            return Reply::new(code, EnhancedCode(class, 0, 0), "The sink refuses this as asked");
        }
        let reason = match (step, class, code) {
            (Step::Connect, 4, _) => Reason::Connections,
            (Step::Connect, ..) => Reason::Blocked,
            (Step::Rcpt, _, 452 | 552) => Reason::MailboxFull,
            (Step::Rcpt, 4, _) => Reason::RecipientTooFast,
            (Step::Rcpt, ..) => Reason::UnknownUser,
            (Step::Mail, 4, _) => Reason::TooFast,
            (_, 4, _) => Reason::Busy,
            (Step::Mail, ..) => Reason::Unauthenticated,
            _ => Reason::Spam,
        };
        let (_, (_, subject, detail), text) = self.words(reason);
        Reply::new(code, EnhancedCode(class, subject, detail), filled(text, facts))
    }

    fn words(self, reason: Reason) -> Words {
        match self {
            Persona::Plain => plain(reason),
            Persona::Gmail => gmail(reason),
            Persona::Outlook => outlook(reason),
            Persona::Yahoo => yahoo(reason),
            Persona::Strict => strict(reason),
        }
    }
}

fn plain(reason: Reason) -> Words {
    match reason {
        Reason::Busy => (451, (4, 3, 2), "The sink is busy"),
        Reason::Connections => (421, (4, 7, 0), "The sink has enough connections from {client}"),
        Reason::TooFast => (450, (4, 7, 1), "The sink takes no more from {client} for now"),
        Reason::RecipientTooFast => (450, (4, 2, 1), "{recipient} takes no more for now"),
        Reason::Greylisted => (450, (4, 7, 1), "Greylisted, come back later"),
        Reason::UnknownUser => (550, (5, 1, 1), "{recipient} is not known here"),
        Reason::MailboxFull => (452, (4, 2, 2), "The mailbox of {recipient} is full"),
        Reason::Blocked => (554, (5, 7, 1), "The sink does not talk to {client}"),
        Reason::Unauthenticated => (550, (5, 7, 26), "The sender is not proven"),
        Reason::Spam => (554, (5, 7, 1), "The sink does not want this message"),
    }
}

fn gmail(reason: Reason) -> Words {
    match reason {
        Reason::Busy => (
            451,
            (4, 3, 0),
            "This server has a passing problem. Please send it again later. {id} - gsmtp",
        ),
        Reason::Connections => (
            421,
            (4, 7, 0),
            "{client} has opened too many connections at once. Please use fewer and try again. {id} - gsmtp",
        ),
        Reason::TooFast => (
            421,
            (4, 7, 28),
            "An unusual amount of unsolicited mail comes from {client}. To protect our users, mail from there is slowed down for now. {id} - gsmtp",
        ),
        Reason::RecipientTooFast => (
            450,
            (4, 2, 1),
            "The account you write to gets mail at a pace that keeps more from being delivered. Please send this again later. {id} - gsmtp",
        ),
        Reason::Greylisted => (
            421,
            (4, 7, 0),
            "Nothing is known of {client} so far. Please try again later. {id} - gsmtp",
        ),
        Reason::UnknownUser => (
            550,
            (5, 1, 1),
            "There is no account of that name here. Please look for slips of the pen and needless spaces in the address. {id} - gsmtp",
        ),
        Reason::MailboxFull => (
            452,
            (4, 2, 2),
            "The storage of the account you write to is used up. Please ask its owner to make room. {id} - gsmtp",
        ),
        Reason::Blocked => (
            550,
            (5, 7, 1),
            "{client} is believed to send unwanted mail and has been shut out. {id} - gsmtp",
        ),
        Reason::Unauthenticated => (
            550,
            (5, 7, 26),
            "This message proves its sender neither by SPF nor by DKIM and is not accepted. {id} - gsmtp",
        ),
        Reason::Spam => (
            550,
            (5, 7, 1),
            "This message looks as if nobody had asked for it. To keep such mail away from our users it was blocked. {id} - gsmtp",
        ),
    }
}

fn outlook(reason: Reason) -> Words {
    match reason {
        Reason::Busy => (
            451,
            (4, 7, 500),
            "The server is busy. Come back later from [{client}]. (S77{n}) [{id}.mail.protection.outlook.com]",
        ),
        Reason::Connections => (
            421,
            (4, 3, 2),
            "The maximum of connections from this source is reached. (E{n}) [{id}.mail.protection.outlook.com]",
        ),
        Reason::TooFast => (
            451,
            (4, 7, 650),
            "Mail from [{client}] is slowed down because of its reputation. (S{n}) [{id}.mail.protection.outlook.com]",
        ),
        Reason::RecipientTooFast => (
            450,
            (4, 2, 1),
            "The limit of messages an hour for this recipient is exceeded. (E{n}) [{id}.mail.protection.outlook.com]",
        ),
        Reason::Greylisted => (
            451,
            (4, 7, 651),
            "Mail from [{client}] is put off until more is known of it. (S{n}) [{id}.mail.protection.outlook.com]",
        ),
        Reason::UnknownUser => (
            550,
            (5, 5, 0),
            "The mailbox asked for does not exist (S20{n}). [{id}.mail.protection.outlook.com]",
        ),
        Reason::MailboxFull => (
            452,
            (4, 2, 2),
            "The mailbox is over its quota. (E{n}) [{id}.mail.protection.outlook.com]",
        ),
        Reason::Blocked => (
            550,
            (5, 7, 1),
            "Mail from [{client}] was not sent: its network is on our block list (S31{n}). [{id}.mail.protection.outlook.com]",
        ),
        Reason::Unauthenticated => (
            550,
            (5, 7, 509),
            "Access denied, the sending domain fails DMARC and asks for rejection. [{id}.mail.protection.outlook.com]",
        ),
        Reason::Spam => (
            550,
            (5, 7, 520),
            "Access denied, the content of the message was taken for spam. (S{n}) [{id}.mail.protection.outlook.com]",
        ),
    }
}

fn yahoo(reason: Reason) -> Words {
    match reason {
        Reason::Busy => (451, (4, 3, 2), "Resources are short for the moment, try again later"),
        Reason::Connections => (
            421,
            (4, 7, 0),
            "[CON{n}] Too many open connections from {client}, some must be closed first",
        ),
        Reason::TooFast => (
            421,
            (4, 7, 0),
            "[TSS04] Mail from {client} is put off for a while, as its amount is unusual or users complained",
        ),
        Reason::RecipientTooFast => {
            (451, (4, 2, 1), "[RL{n}] Too many messages for this mailbox, put off")
        }
        Reason::Greylisted => (451, (4, 7, 1), "[GL01] Mail from {client} is put off, try again"),
        Reason::UnknownUser => {
            (554, (5, 1, 1), "delivery error: this user has no account at this domain [-5] - {id}")
        }
        Reason::MailboxFull => {
            (552, (5, 2, 2), "delivery error: the mailbox is over its quota [-20] - {id}")
        }
        Reason::Blocked => (
            553,
            (5, 7, 1),
            "[BL21] Connections from {client} are not taken, as it is on a public list",
        ),
        Reason::Unauthenticated => {
            (554, (5, 7, 9), "Not accepted, as the domain of the sender asks for by its policy")
        }
        Reason::Spam => (554, (5, 7, 9), "Not accepted by the rules on content - {id}"),
    }
}

fn strict(reason: Reason) -> Words {
    match reason {
        Reason::Busy => (451, (4, 3, 0), "Local error in processing"),
        Reason::Connections => (421, (4, 7, 0), "Error: too many connections from {client}"),
        Reason::TooFast => (450, (4, 7, 1), "Error: too much mail from {client}"),
        Reason::RecipientTooFast => {
            (450, (4, 2, 1), "<{recipient}>: Recipient rejected: rate limit")
        }
        Reason::Greylisted => (450, (4, 7, 1), "<{recipient}>: Recipient rejected: greylisted"),
        Reason::UnknownUser => (
            550,
            (5, 1, 1),
            "<{recipient}>: Recipient rejected: no such user in the table of local recipients",
        ),
        Reason::MailboxFull => (452, (4, 2, 2), "<{recipient}>: Over quota"),
        Reason::Blocked => (554, (5, 7, 1), "Service unavailable; client [{client}] is listed"),
        Reason::Unauthenticated => (550, (5, 7, 1), "Sender rejected: SPF fail"),
        Reason::Spam => (554, (5, 7, 1), "Message rejected by the content filter, id={id}"),
    }
}

fn filled(text: &str, facts: Facts<'_>) -> String {
    if !text.contains('{') {
        return text.to_owned();
    }
    text.replace("{client}", &facts.client.to_string())
        .replace("{recipient}", facts.recipient)
        .replace("{id}", &format!("{:016x}", facts.id))
        .replace("{n}", &format!("{:02}", facts.id % 100))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts<'_> = Facts {
        client: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)),
        recipient: "a@example.org",
        id: 0xabc,
    };

    #[test]
    fn every_reply_is_one_that_a_client_can_read() {
        for persona in Persona::value_variants() {
            for (name, reason, _) in REASONS {
                let reply = persona.reply(reason, FACTS);
                let class = u16::from(reply.enhanced.unwrap().0);
                assert_eq!(reply.code / 100, class, "{persona:?} {name}");
                assert!(!reply.text.contains(['{', '}', '\r', '\n']), "{persona:?} {name}");
                assert!(reply.to_string().len() < 500 && reply.text.is_ascii());
                let permanent = !matches!(
                    reason,
                    Reason::Busy
                        | Reason::Connections
                        | Reason::TooFast
                        | Reason::RecipientTooFast
                        | Reason::Greylisted
                );
                if reason != Reason::MailboxFull {
                    assert_eq!(reply.is_permanent(), permanent, "{persona:?} {name}");
                }
            }
        }
    }

    #[test]
    fn a_code_that_was_asked_for_is_given() {
        for persona in Persona::value_variants() {
            for step in [Step::Connect, Step::Mail, Step::Rcpt, Step::Data, Step::Dot] {
                for code in [421, 450, 452, 550, 552, 554] {
                    let reply = persona.reply_with(code, step, FACTS);
                    assert_eq!(reply.code, code);
                    assert_eq!(u16::from(reply.enhanced.unwrap().0), code / 100);
                }
            }
        }
        let reply = Persona::Strict.reply_with(550, Step::Rcpt, FACTS);
        assert!(reply.text.starts_with("<a@example.org>: Recipient rejected"), "{reply}");
        let reply = Persona::Outlook.reply(Reason::TooFast, FACTS);
        assert!(reply.to_string().starts_with("451 4.7.650 Mail from [192.0.2.7]"), "{reply}");
    }
}
