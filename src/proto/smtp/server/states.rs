//! The states of a session and what each command does in them (RFC 5321, 3.3,
//! 4.1.4). A state is named for what it awaits and holds what it needs for that.

use super::authentication::AuthAsked;
use super::chunks::{Chunk, ChunkAsked, Chunked, Skip};
use super::lmtp::Hello;
use super::proxying::ClaimsAsked;
use super::queries::QueryAsked;
use super::settings::Standing;
use super::transaction::Transaction;
use super::{Kind, Question, Server, Session, replies};
use crate::base::dsn::{Dsn, RecipientDsn};
use crate::base::{BodyType, Terms, xtext};
use crate::proto::address::{Address, Path};
use crate::proto::sasl::server::Exchange;
use crate::proto::smtp::asks::Asks;
use crate::proto::smtp::command::{Command, MailFrom, RcptTo};

/// What a session waits for.
#[derive(Debug)]
pub(super) enum State {
    /// EHLO or HELO.
    AwaitHello,
    /// MAIL.
    AwaitMail,
    /// The handshake of TLS.
    AwaitHandshake,
    /// The client's next line of an authentication.
    AwaitResponse(Box<Exchange>),
    /// What the users say, or that the end of an authentication may be said.
    AuthAsked(AuthAsked),
    /// The verdict on MAIL.
    MailAsked(MailAsked),
    /// RCPT, or DATA.
    Open(Box<Transaction>),
    /// The verdict on RCPT.
    RecipientAsked(RecipientAsked),
    /// The verdict on DATA.
    DataAsked(DataAsked),
    /// The verdict on XCLIENT or XFORWARD.
    ClaimsAsked(ClaimsAsked),
    /// The end of the message.
    AwaitBody(Box<Transaction>),
    /// The verdict on the first BDAT.
    ChunkAsked(ChunkAsked),
    /// A chunk.
    AwaitChunk(Box<Chunk>),
    /// The next BDAT.
    Chunked(Box<Chunked>),
    /// The end of a message in chunks that has failed: RSET, EHLO or BDAT LAST.
    Failed,
    /// The end of a chunk that is refused.
    Skipping(Box<Skip>),
    /// The verdict on VRFY or ETRN.
    QueryAsked(Box<QueryAsked>),
    /// Nothing: the session is over.
    Closed,
}

/// A transaction that is not open yet.
#[derive(Debug)]
pub(super) struct MailAsked {
    transaction: Box<Transaction>,
    /// What is said when it is taken.
    yes: &'static str,
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
        out.extend_from_slice(self.yes.as_bytes());
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
            State::MailAsked(_) | State::AuthAsked(_) => State::AwaitMail,
            State::RecipientAsked(asked) => State::Open(asked.transaction),
            State::DataAsked(asked) => State::Open(asked.transaction),
            State::ClaimsAsked(asked) => asked.refused(),
            State::ChunkAsked(asked) => State::Open(asked.transaction),
            State::QueryAsked(asked) => asked.then,
            _ => panic!("an answer to no question"),
        }
    }

    pub(super) fn transaction(&self) -> Option<&Transaction> {
        match self {
            State::Open(transaction) | State::AwaitBody(transaction) => Some(transaction),
            State::RecipientAsked(asked) => Some(&asked.transaction),
            State::DataAsked(asked) => Some(&asked.transaction),
            State::ChunkAsked(asked) => Some(&asked.transaction),
            State::AwaitChunk(chunk) => Some(&chunk.transaction),
            State::Chunked(chunked) => Some(&chunked.transaction),
            State::QueryAsked(asked) => asked.then.transaction(),
            State::AwaitHello
            | State::AwaitMail
            | State::AwaitHandshake
            | State::AwaitResponse(_)
            | State::AuthAsked(_)
            | State::MailAsked(_)
            | State::ClaimsAsked(_)
            | State::Failed
            | State::Skipping(_)
            | State::Closed => None,
        }
    }

    /// True while a question is not answered.
    pub(super) fn is_question(&self) -> bool {
        use State::{ChunkAsked, ClaimsAsked, DataAsked, MailAsked, QueryAsked, RecipientAsked};
        matches!(
            self,
            MailAsked(_)
                | RecipientAsked(_)
                | DataAsked(_)
                | ChunkAsked(_)
                | QueryAsked(_)
                | ClaimsAsked(_)
        )
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
pub(super) type Next<'a> = (Server, Option<Question<'a>>);

impl Server {
    /// Does what one line says.
    #[inline]
    pub(super) fn line<'a>(self, line: &'a [u8], out: &mut Vec<u8>) -> Next<'a> {
        match Command::parse(line) {
            Ok(command) if self.waits_for_tls(&command) => {
                (self.error(replies::TLS_FIRST, out), None)
            }
            Ok(Command::StartTls) => (self.start_tls(out), None),
            Ok(command) if self.session.must_authenticate() && does_more(&command) => {
                (self.error(replies::AUTH_REQUIRED, out), None)
            }
            Ok(Command::Mail(mail)) => self.mail(mail, out),
            Ok(Command::Rcpt(to)) => self.recipient(to, out),
            Ok(Command::Data) => self.data(out),
            Ok(Command::Ehlo(name)) => (self.greeted(name, Hello::Ehlo, out), None),
            Ok(Command::Helo(name)) => (self.greeted(name, Hello::Helo, out), None),
            Ok(Command::Lhlo(name)) => (self.greeted(name, Hello::Lhlo, out), None),
            Ok(Command::Claims(attributes)) => self.claims(attributes, out),
            Ok(Command::Rset) => {
                let Server { session, state } = self.say(replies::OK, out);
                (Server { session, state: state.reset() }, None)
            }
            Ok(Command::Noop) => (self.say(replies::OK, out), None),
            Ok(Command::Auth(command)) => (self.authenticate(command, out), None),
            Ok(Command::Bdat { octets, last }) => self.bdat(octets, last, out),
            Ok(Command::Help(topic)) => (self.help(topic, out), None),
            Ok(Command::Vrfy(asked)) => self.verify(asked, out),
            Ok(Command::Expn(asked)) => self.expand(asked, out),
            Ok(Command::Etrn(turn)) => self.turn(turn, out),
            Ok(Command::Quit) => (self.close(replies::BYE, out), None),
            Err(bad) => match Session::reply_to(bad) {
                Ok(text) => (self.error(&text, out), None),
                Err(text) => (self.close(text, out), None),
            },
        }
    }

    pub(super) fn say(self, text: &str, out: &mut Vec<u8>) -> Server {
        out.extend_from_slice(text.as_bytes());
        self
    }

    /// EHLO and HELO also end a transaction (4.1.4).
    pub(super) fn hello(mut self, name: &str, extended: bool, out: &mut Vec<u8>) -> Server {
        if extended {
            self.session.settings.write_ehlo(&self.session.standing(), out);
        } else {
            self.session.settings.write_helo(out);
        }
        self.session.helo = name.into();
        self.session.extended = extended;
        self.state = State::AwaitMail;
        self
    }

    fn mail<'a>(mut self, mail: MailFrom<'a>, out: &mut Vec<u8>) -> Next<'a> {
        let refusal = match self.state {
            State::AwaitMail => self.session.refusal_of(&mail),
            State::AwaitHello => Some(self.session.hello_first()),
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
        let (asks, yes) = self.session.granted(mail.asks);
        let transaction = Box::new(Transaction {
            sender: sender.map_or_else(String::new, |address| address.text().into()),
            recipients: Vec::new(),
            size: mail.size,
            body,
            smtputf8: mail.smtputf8,
            dsn: asked_of(&mail),
            asks,
            terms: self.session.terms_of(&mail),
        });
        self.state = State::MailAsked(MailAsked { transaction, yes });
        let (size, smtputf8) = (mail.size, mail.smtputf8);
        let question = Question::Mail { sender, size, body, smtputf8, asks };
        (self, Some(question))
    }

    fn recipient<'a>(mut self, to: RcptTo<'a>, out: &mut Vec<u8>) -> Next<'a> {
        let transaction = match self.state {
            State::Open(transaction) => transaction,
            State::AwaitHello => {
                let text = self.session.hello_first();
                return (self.error(text, out), None);
            }
            State::Chunked(_) => return (self.error(replies::IN_CHUNKS, out), None),
            State::Failed => return (self.error(replies::CHUNKS_FAILED, out), None),
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
                let text = self.session.no_recipients();
                (self.say(text, out), None)
            }
            State::Open(transaction) if transaction.asks.binary => {
                self.state = State::Open(transaction);
                (self.error(replies::BINARY_BY_DATA, out), None)
            }
            State::Chunked(_) => {
                self.state = State::Failed;
                (self.error(replies::IN_CHUNKS, out), None)
            }
            State::Failed => (self.error(replies::CHUNKS_FAILED, out), None),
            State::Open(transaction) => {
                self.state = State::DataAsked(DataAsked { transaction });
                (self, Some(Question::Data))
            }
            State::AwaitHello => {
                let text = self.session.hello_first();
                (self.error(text, out), None)
            }
            _ => (self.error(replies::MAIL_FIRST, out), None),
        }
    }
}

impl Session {
    /// Whether nothing but authentication is served now (RFC 6409, 4.3).
    fn must_authenticate(&self) -> bool {
        self.settings.kind() == Kind::Submission && !self.authenticated
    }

    /// What MAIL asks beside reports, if anything. Who submitted a message is
    /// believed of a client that has authenticated; from others, nobody did (RFC
    /// 4954, section 5).
    fn terms_of(&self, mail: &MailFrom<'_>) -> Option<Box<Terms>> {
        let auth = mail.auth.map(|auth| match xtext::decode(auth) {
            auth if auth == "<>" || !self.authenticated => String::new(),
            auth => auth,
        })?;
        Some(Box::new(Terms { auth: Some(auth), ..Terms::default() }))
    }

    /// Why MAIL cannot be taken, if so.
    fn refusal_of(&self, mail: &MailFrom<'_>) -> Option<&'static str> {
        if !self.extended && mail.has_parameters() {
            return Some(replies::NO_PARAMETERS);
        }
        let offers = self.settings.offers();
        let is_offered = (offers.eight_bit || mail.body.is_none() || mail.asks.binary)
            && (offers.smtputf8 || !mail.smtputf8)
            && (offers.dsn || mail.ret.is_none() && mail.envid.is_none())
            && (!self.mechanisms.is_empty() || mail.auth.is_none());
        if !is_offered {
            return Some(replies::NOT_OFFERED);
        }
        if let Some(refusal) = self.refusal_of_asks(&mail.asks) {
            return Some(refusal);
        }
        if mail.size.is_some_and(|size| size > self.settings.message_size()) {
            return Some(replies::TOO_LARGE);
        }
        match mail.path {
            Path::Mailbox(address) if address.needs_smtputf8() && !mail.smtputf8 => {
                Some(replies::SENDER_NEEDS_UTF8)
            }
            _ => None,
        }
    }

    /// Why what else MAIL asks cannot be granted, if so.
    fn refusal_of_asks(&self, asks: &Asks) -> Option<&'static str> {
        if asks.is_empty() {
            return None;
        }
        let offers = self.settings.offers();
        let is_offered = (offers.binarymime && offers.chunking || !asks.binary)
            && (offers.deliver_by || asks.by.is_none())
            && (self.settings.future_release().is_some() || asks.hold.is_none())
            && (offers.mt_priority || asks.priority.is_none())
            && (offers.requiretls || !asks.require_tls);
        if !is_offered {
            Some(replies::NOT_OFFERED)
        } else if asks.require_tls && !self.secured {
            Some(replies::NEEDS_TLS)
        } else {
            None
        }
    }

    /// What is granted of what MAIL asks, and the words for it: a client that may not
    /// relay is not let past others (RFC 6710, 4.1).
    fn granted(&self, mut asks: Asks) -> (Asks, &'static str) {
        if asks.priority.is_some_and(|priority| priority > 0) && !self.is_trusted() {
            asks.priority = Some(0);
            return (asks, replies::SENDER_LOWERED);
        }
        (asks, replies::SENDER_OK)
    }

    /// True if the client may relay.
    pub(super) fn is_trusted(&self) -> bool {
        self.trusted || self.authenticated
    }

    /// What the reply to EHLO depends on beside the listener.
    fn standing(&self) -> Standing {
        Standing {
            secured: self.secured,
            trusted: self.is_trusted(),
            begun: self.begun,
            mechanisms: self.mechanisms,
            starttls: self.offers_tls(),
            xclient: self.xclient,
            xforward: self.xforward,
        }
    }

    /// Why RCPT cannot be taken, if so.
    fn refusal_of_recipient(&self, to: &RcptTo<'_>, smtputf8: bool) -> Option<&'static str> {
        let has_parameters = to.notify.is_some() || to.orcpt.is_some();
        if has_parameters && !self.extended {
            return Some(replies::NO_PARAMETERS);
        }
        if has_parameters && !self.settings.offers().dsn {
            return Some(replies::NOT_OFFERED);
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

/// Whether a command does more than to greet, authenticate and leave (RFC 4954,
/// section 6, of 530). A trusted peer may say who has authenticated. BDAT does
/// not: without a transaction it is refused too, and what it announced must be
/// passed over.
fn does_more(command: &Command<'_>) -> bool {
    use Command::{Auth, Bdat, Claims, Ehlo, Helo, Help, Noop, Quit, Rset};
    !matches!(
        command,
        Auth(_) | Bdat { .. } | Claims(_) | Ehlo(_) | Helo(_) | Help(_) | Noop | Quit | Rset
    )
}

/// What MAIL asks about reports, if anything.
fn asked_of(mail: &MailFrom<'_>) -> Option<Box<Dsn>> {
    let given = mail.ret.is_some() || mail.envid.is_some();
    let envid = mail.envid.map(String::from);
    given.then(|| Box::new(Dsn { ret: mail.ret, envid, recipients: Vec::new() }))
}
