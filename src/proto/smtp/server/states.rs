//! The states of a session and what each command does in them (RFC 5321, 3.3,
//! 4.1.4). A state is named for what it awaits and holds what it needs for that.

use super::transaction::Transaction;
use super::{Question, Server, Session, replies};
use crate::base::BodyType;
use crate::base::dsn::{Dsn, RecipientDsn};
use crate::proto::address::{Address, Path};
use crate::proto::smtp::command::{Command, MailFrom, RcptTo};

/// What a session waits for.
#[derive(Debug)]
pub(super) enum State {
    /// EHLO or HELO.
    AwaitHello,
    /// MAIL.
    AwaitMail,
    /// The verdict on MAIL.
    MailAsked(MailAsked),
    /// RCPT, or DATA.
    Open(Box<Transaction>),
    /// The verdict on RCPT.
    RecipientAsked(RecipientAsked),
    /// The verdict on DATA.
    DataAsked(DataAsked),
    /// The end of the message.
    AwaitBody(Box<Transaction>),
    /// Nothing: the session is over.
    Closed,
}

/// A transaction that is not open yet.
#[derive(Debug)]
pub(super) struct MailAsked {
    transaction: Box<Transaction>,
}

/// A recipient that is not part of the transaction yet.
#[derive(Debug)]
pub(super) struct RecipientAsked {
    transaction: Box<Transaction>,
    recipient: Box<str>,
    asked: Option<Box<RecipientDsn>>,
}

/// A transaction that is complete but for the message.
#[derive(Debug)]
pub(super) struct DataAsked {
    transaction: Box<Transaction>,
}

impl MailAsked {
    pub(super) fn accepted(self, out: &mut Vec<u8>) -> State {
        out.extend_from_slice(replies::SENDER_OK.as_bytes());
        State::Open(self.transaction)
    }
}

impl RecipientAsked {
    pub(super) fn accepted(mut self, out: &mut Vec<u8>) -> State {
        out.extend_from_slice(replies::RECIPIENT_OK.as_bytes());
        self.transaction.add(self.recipient.into(), self.asked);
        State::Open(self.transaction)
    }
}

impl DataAsked {
    pub(super) fn accepted(mut self, out: &mut Vec<u8>) -> State {
        out.extend_from_slice(replies::SEND_BODY.as_bytes());
        self.transaction.forget_repeats();
        State::AwaitBody(self.transaction)
    }
}

impl State {
    /// The state after the question was answered with a refusal.
    ///
    /// # Panics
    ///
    /// If there was none.
    pub(super) fn refused(self) -> State {
        match self {
            State::MailAsked(_) => State::AwaitMail,
            State::RecipientAsked(asked) => State::Open(asked.transaction),
            State::DataAsked(asked) => State::Open(asked.transaction),
            _ => panic!("an answer to no question"),
        }
    }

    pub(super) fn transaction(&self) -> Option<&Transaction> {
        match self {
            State::Open(transaction) | State::AwaitBody(transaction) => Some(transaction),
            State::RecipientAsked(asked) => Some(&asked.transaction),
            State::DataAsked(asked) => Some(&asked.transaction),
            State::AwaitHello | State::AwaitMail | State::MailAsked(_) | State::Closed => None,
        }
    }

    /// After RSET, and after EHLO once more: without a transaction.
    fn reset(self) -> State {
        match self {
            State::AwaitHello => State::AwaitHello,
            _ => State::AwaitMail,
        }
    }
}

/// What a command led to.
type Next<'a> = (Server, Option<Question<'a>>);

impl Server {
    /// Does what one line says.
    #[inline]
    pub(super) fn line<'a>(self, line: &'a [u8], out: &mut Vec<u8>) -> Next<'a> {
        match Command::parse(line) {
            Ok(Command::Mail(mail)) => self.mail(mail, out),
            Ok(Command::Rcpt(to)) => self.recipient(to, out),
            Ok(Command::Data) => self.data(out),
            Ok(Command::Ehlo(name)) => (self.hello(name, true, out), None),
            Ok(Command::Helo(name)) => (self.hello(name, false, out), None),
            Ok(Command::Rset) => {
                let Server { session, state } = self.say(replies::OK, out);
                (Server { session, state: state.reset() }, None)
            }
            Ok(Command::Noop) => (self.say(replies::OK, out), None),
            Ok(Command::Help) => (self.say(replies::HELP, out), None),
            Ok(Command::Vrfy) => (self.say(replies::VERIFY, out), None),
            Ok(Command::Expn) => (self.error(replies::EXPAND, out), None),
            Ok(Command::Quit) => (self.close(replies::BYE, out), None),
            Err(bad) => match Session::reply_to(bad) {
                Ok(text) => (self.error(&text, out), None),
                Err(text) => (self.close(text, out), None),
            },
        }
    }

    fn say(self, text: &str, out: &mut Vec<u8>) -> Server {
        out.extend_from_slice(text.as_bytes());
        self
    }

    /// EHLO and HELO also end a transaction (4.1.4).
    fn hello(mut self, name: &str, extended: bool, out: &mut Vec<u8>) -> Server {
        out.extend_from_slice(self.session.settings.hello(extended));
        self.session.helo = name.into();
        self.session.extended = extended;
        self.state = State::AwaitMail;
        self
    }

    fn mail<'a>(mut self, mail: MailFrom<'a>, out: &mut Vec<u8>) -> Next<'a> {
        let refusal = match self.state {
            State::AwaitMail => self.session.refusal_of(&mail),
            State::AwaitHello => Some(replies::HELLO_FIRST),
            _ => Some(replies::MAIL_TWICE),
        };
        if let Some(text) = refusal {
            return (self.error(text, out), None);
        }
        let sender = match mail.path {
            Path::Null => None,
            Path::Mailbox(address) => Some(address),
        };
        let body = mail.body.unwrap_or(BodyType::SevenBit);
        let transaction = Box::new(Transaction {
            sender: sender.map_or_else(String::new, |address| address.text().into()),
            recipients: Vec::new(),
            size: mail.size,
            body,
            smtputf8: mail.smtputf8,
            dsn: asked_of(&mail),
        });
        self.state = State::MailAsked(MailAsked { transaction });
        let question = Question::Mail { sender, size: mail.size, body, smtputf8: mail.smtputf8 };
        (self, Some(question))
    }

    fn recipient<'a>(mut self, to: RcptTo<'a>, out: &mut Vec<u8>) -> Next<'a> {
        let transaction = match self.state {
            State::Open(transaction) => transaction,
            State::AwaitHello => return (self.error(replies::HELLO_FIRST, out), None),
            _ => return (self.error(replies::MAIL_FIRST, out), None),
        };
        let Path::Mailbox(address) = to.path else { unreachable!("the parser refuses it") };
        if let Some(text) = self.session.refusal_of_recipient(&to, transaction.smtputf8) {
            self.state = State::Open(transaction);
            return (self.error(text, out), None);
        }
        if transaction.recipients.len() >= self.session.settings.recipients_max() {
            self.state = State::Open(transaction);
            return (self.say(replies::TOO_MANY_RECIPIENTS, out), None);
        }
        let recipient = self.session.stored(address);
        let asked = RecipientDsn { notify: to.notify, orcpt: to.orcpt.map(String::from) };
        let asked = (!asked.is_empty()).then(|| Box::new(asked));
        self.state = State::RecipientAsked(RecipientAsked { transaction, recipient, asked });
        (self, Some(Question::Recipient(address)))
    }

    fn data<'a>(mut self, out: &mut Vec<u8>) -> Next<'a> {
        match self.state {
            State::Open(transaction) if transaction.recipients.is_empty() => {
                // No error of the client when it pipelines: it could not know.
                self.state = State::Open(transaction);
                (self.say(replies::NO_RECIPIENTS, out), None)
            }
            State::Open(transaction) => {
                self.state = State::DataAsked(DataAsked { transaction });
                (self, Some(Question::Data))
            }
            State::AwaitHello => (self.error(replies::HELLO_FIRST, out), None),
            _ => (self.error(replies::MAIL_FIRST, out), None),
        }
    }
}

impl Session {
    /// Why MAIL cannot be taken, if so.
    fn refusal_of(&self, mail: &MailFrom<'_>) -> Option<&'static str> {
        if !self.extended && mail.has_parameters() {
            return Some(replies::NO_PARAMETERS);
        }
        if mail.size.is_some_and(|size| size > self.settings.message_size()) {
            return Some(replies::TOO_LARGE);
        }
        match mail.path {
            Path::Mailbox(address) if address.needs_smtputf8() && !mail.smtputf8 => {
                Some(replies::NEEDS_UTF8)
            }
            _ => None,
        }
    }

    /// Why RCPT cannot be taken, if so.
    fn refusal_of_recipient(&self, to: &RcptTo<'_>, smtputf8: bool) -> Option<&'static str> {
        if !self.extended && (to.notify.is_some() || to.orcpt.is_some()) {
            return Some(replies::NO_PARAMETERS);
        }
        match to.path {
            Path::Mailbox(address) if address.needs_smtputf8() && !smtputf8 => {
                Some(replies::NEEDS_UTF8)
            }
            _ if !smtputf8 && to.orcpt.is_some_and(|orcpt| !orcpt.is_ascii()) => {
                Some(replies::ORCPT_NEEDS_UTF8)
            }
            _ => None,
        }
    }

    /// The text under which a recipient is queued: the bare `postmaster` is the
    /// one of this host.
    fn stored(&self, address: Address<'_>) -> Box<str> {
        match address.domain_text() {
            Some(_) => address.text().into(),
            None => format!("{}@{}", address.text(), self.settings.hostname()).into(),
        }
    }
}

/// What MAIL asks about reports, if anything.
fn asked_of(mail: &MailFrom<'_>) -> Option<Box<Dsn>> {
    let given = mail.ret.is_some() || mail.envid.is_some();
    let envid = mail.envid.map(String::from);
    given.then(|| Box::new(Dsn { ret: mail.ret, envid, recipients: Vec::new() }))
}
