//! Messages of a pair: what is asked for each, and what the server has to have been
//! told of it, by what it offers.

use proptest::prelude::*;

use super::super::{By, Client, Recipient, Transaction, Unsupported};
use crate::base::dsn::{Dsn, Notify, RecipientDsn, Ret};
use crate::base::terms::ByMode;
use crate::base::{BodyType, Terms};
use crate::proto::smtp::asks::{self, Asks};
use crate::proto::smtp::server::{Offers, Transaction as Taken};

/// How the octets of a message travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Carriage {
    /// By DATA.
    Data,
    /// In chunks of these sizes, over and over.
    Chunks(Vec<usize>),
    /// In one chunk, ahead of the replies if that can be.
    Ahead,
}

/// One message: what is asked about it, and what the server makes of it.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) content: Vec<u8>,
    pub(super) carriage: Carriage,
    pub(super) binary: bool,
    eight_bit: bool,
    utf8: bool,
    ret: Option<Ret>,
    envid: Option<&'static str>,
    asked: Vec<RecipientDsn>,
    by: Option<By>,
    priority: i8,
    require_tls: bool,
    auth: Option<&'static str>,
    /// The server's word on each recipient, the sender, and the body.
    pub(super) refused: Vec<bool>,
    pub(super) sender_refused: bool,
    pub(super) body_refused: bool,
    /// The body is refused with its first chunk if there are more.
    pub(super) is_refused_early: bool,
}

/// A server as far as parameters go.
pub(super) struct Standing<'a> {
    pub(super) offers: &'a Offers,
    pub(super) is_secured: bool,
    pub(super) offers_auth: bool,
    pub(super) is_authenticated: bool,
}

impl Message {
    /// The sender of the message with this number.
    pub(super) fn sender(&self, number: usize) -> String {
        format!("s{number}{}@example.com", if self.utf8 { "\u{f6}" } else { "" })
    }

    fn recipient(&self, number: usize, index: usize) -> String {
        format!("r{index}{}@m{number}.example.org", if self.utf8 { "\u{e9}" } else { "" })
    }

    /// Has the client begin it.
    pub(super) fn begin(
        &self,
        number: usize,
        is_chunked: bool,
        client: &mut Client,
        out: &mut Vec<u8>,
    ) -> Result<(), Unsupported> {
        let sender = self.sender(number);
        let addresses: Vec<_> =
            (0..self.refused.len()).map(|index| self.recipient(number, index)).collect();
        let transaction = Transaction {
            sender: &sender,
            size: self.content.len() as u64,
            eight_bit: self.eight_bit,
            binary: self.binary,
            chunked: is_chunked,
            smtputf8: self.utf8,
            ret: self.ret,
            envid: self.envid,
            by: self.by,
            priority: self.priority,
            require_tls: self.require_tls,
            auth: self.auth,
        };
        let recipients = addresses
            .iter()
            .zip(&self.asked)
            .map(|(address, asked)| Recipient { address, asked: Some(asked) });
        client.begin(&transaction, recipients, out)
    }

    /// Whether it can be given to such a server at all.
    pub(super) fn is_fit(&self, there: &Standing<'_>) -> bool {
        let offers = there.offers;
        let in_time = |by: &By| by.mode == ByMode::Notify || offers.deliver_by && by.seconds > 0;
        (!self.utf8 || offers.smtputf8)
            && (!self.binary || offers.binarymime && offers.chunking)
            && (self.binary || !self.eight_bit || offers.eight_bit)
            && (!self.require_tls || offers.requiretls && there.is_secured)
            && self.by.as_ref().is_none_or(in_time)
    }

    /// The reply code that the recipient with this index ends up with.
    pub(super) fn code(&self, index: usize) -> u16 {
        match (self.sender_refused || self.refused[index], self.body_refused) {
            (true, _) => 550,
            (false, true) => 452,
            (false, false) => 250,
        }
    }

    /// What the server has to have been told, if it takes the message for anybody.
    pub(super) fn expected(&self, number: usize, there: &Standing<'_>) -> Option<Taken> {
        let is_taken = |index: &usize| self.code(*index) == 250;
        let taken: Vec<usize> = (0..self.refused.len()).filter(is_taken).collect();
        if taken.is_empty() {
            return None;
        }
        let offers = there.offers;
        let by = self.by.filter(|_| offers.deliver_by).map(|By { seconds, mode, trace }| {
            asks::By { seconds: seconds.try_into().unwrap(), mode, trace }
        });
        let auth = self.auth.filter(|_| there.offers_auth).map(|auth| {
            let is_believed = there.is_authenticated && auth.is_ascii();
            if is_believed { auth } else { "" }.to_owned()
        });
        let full = self.eight_bit || self.binary;
        Some(Taken {
            sender: self.sender(number),
            recipients: taken.iter().map(|&index| self.recipient(number, index)).collect(),
            size: Some(self.content.len() as u64).filter(|&size| size > 0),
            body: if full { BodyType::EightBitMime } else { BodyType::SevenBit },
            smtputf8: self.utf8,
            dsn: offers.dsn.then(|| self.reports(number, offers, &taken)).flatten(),
            asks: Asks {
                binary: self.binary,
                by,
                hold: None,
                priority: (offers.mt_priority && self.priority != 0).then_some(self.priority),
                require_tls: self.require_tls,
            },
            terms: auth.map(|auth| Box::new(Terms { auth: Some(auth), ..Terms::default() })),
        })
    }

    /// RFC 3461, 5.2.1; RFC 2852, 4.1.4.2.
    fn reports(&self, number: usize, offers: &Offers, taken: &[usize]) -> Option<Box<Dsn>> {
        let mut dsn =
            Dsn { ret: self.ret, envid: self.envid.map(String::from), recipients: Vec::new() };
        let adds_delay = !offers.deliver_by && self.by.is_some_and(|by| by.mode == ByMode::Notify);
        for (at, &index) in taken.iter().enumerate() {
            let RecipientDsn { notify, orcpt } = self.asked[index].clone();
            let wants_reports = notify.is_some_and(|notify| notify != Notify::NEVER);
            let own = || format!("rfc822;{}", self.recipient(number, index));
            let orcpt = orcpt.or_else(|| (wants_reports && !self.utf8).then(own));
            let notify = match notify {
                Some(Notify::NEVER) => notify,
                _ if adds_delay => Some(Notify { delay: true, ..notify.unwrap_or(Notify::ABSENT) }),
                _ => notify,
            };
            dsn.note(at, RecipientDsn { notify, orcpt });
        }
        (dsn != Dsn::default()).then(|| Box::new(dsn))
    }
}

fn content(binary: bool, eight_bit: bool) -> BoxedStrategy<Vec<u8>> {
    if binary {
        let piece = prop::sample::select(vec![
            &b"\r\n.\r\n"[..],
            b"\n.\n",
            b"\r",
            b"\0\xff",
            b".\r\nMAIL FROM:<evil@example.com>\r\n",
            b"BDAT 7 LAST\r\n",
        ]);
        return prop::collection::vec(piece, 0..8).prop_map(|all| all.concat()).boxed();
    }
    let last = if eight_bit { "gr\u{fc}n" } else { "a.b" };
    let line = prop::sample::select(vec!["..", "..x", ".", "", "QUIT", last]);
    prop::collection::vec(line, 0..8)
        .prop_map(|lines| lines.iter().map(|line| format!("{line}\r\n")).collect::<String>())
        .prop_map(String::into_bytes)
        .boxed()
}

fn asked() -> impl Strategy<Value = RecipientDsn> {
    let notify = prop_oneof![
        Just(None),
        Just(Some("NEVER")),
        Just(Some("SUCCESS")),
        Just(Some("FAILURE,DELAY"))
    ];
    (notify, prop::bool::weighted(0.3)).prop_map(|(notify, given)| RecipientDsn {
        notify: notify.map(|words| Notify::parse(words.as_bytes()).unwrap()),
        orcpt: given.then(|| "rfc822;a+2Bb@example.net".to_owned()),
    })
}

fn by() -> impl Strategy<Value = Option<By>> {
    prop::option::weighted(0.3, (-5..100i64, any::<bool>(), any::<bool>())).prop_map(|by| {
        let (seconds, returns, trace) = by?;
        let mode = if returns { ByMode::Return } else { ByMode::Notify };
        Some(By { seconds, mode, trace })
    })
}

fn carriage() -> impl Strategy<Value = Carriage> {
    prop_oneof![
        Just(Carriage::Data),
        prop::collection::vec(0..20usize, 1..4)
            .prop_filter("it has to end", |sizes| sizes.iter().any(|&size| size > 0))
            .prop_map(Carriage::Chunks),
        Just(Carriage::Ahead),
    ]
}

/// Any message.
pub(super) fn message() -> impl Strategy<Value = Message> {
    let form = (prop::bool::weighted(0.2), prop::bool::weighted(0.3), prop::bool::weighted(0.2));
    let octets = form.prop_flat_map(|(binary, eight_bit, utf8)| {
        content(binary, eight_bit).prop_map(move |content| (binary, eight_bit, utf8, content))
    });
    let recipients = prop::collection::vec((prop::bool::weighted(0.3), asked()), 1..5);
    let ret = prop_oneof![Just(None), Just(Some(Ret::Full)), Just(Some(Ret::Headers))];
    let auth = prop_oneof![
        Just(None),
        Just(Some("")),
        Just(Some("a+b=c@example.com")),
        Just(Some("j\u{f6}rg@example.com"))
    ];
    let dsn = (ret, prop::option::of(Just("QQ+2B314")), by());
    let terms = (-9..10i8, prop::bool::weighted(0.2), auth);
    let word = (prop::bool::weighted(0.1), prop::bool::weighted(0.2), prop::bool::weighted(0.5));
    (octets, carriage(), recipients, dsn, terms, word).prop_map(
        |(octets, carriage, recipients, (ret, envid, by), terms, word)| {
            let (binary, eight_bit, utf8, content) = octets;
            let (priority, require_tls, auth) = terms;
            let (sender_refused, body_refused, is_refused_early) = word;
            let (refused, asked) = recipients.into_iter().unzip();
            Message {
                content,
                carriage,
                binary,
                eight_bit,
                utf8,
                ret,
                envid,
                asked,
                by,
                priority,
                require_tls,
                auth,
                refused,
                sender_refused,
                body_refused,
                is_refused_early,
            }
        },
    )
}

/// Any offer; what is not offered is seldom more than a few things.
pub(super) fn offers() -> impl Strategy<Value = Offers> {
    prop::collection::vec(prop::bool::weighted(0.8), 9).prop_map(|is_offered| Offers {
        pipelining: is_offered[0],
        eight_bit: is_offered[1],
        // RFC 6531, 3.1: together only.
        smtputf8: is_offered[1] && is_offered[2],
        dsn: is_offered[3],
        chunking: is_offered[4],
        binarymime: is_offered[5],
        deliver_by: is_offered[6],
        mt_priority: is_offered[7],
        requiretls: is_offered[8],
        ..Offers::default()
    })
}
