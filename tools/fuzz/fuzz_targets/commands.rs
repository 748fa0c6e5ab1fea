//! The SMTP server engine on anything a client may send: it never panics, says
//! the same however the input is cut, answers with well-formed lines, takes
//! only addresses that can be sent on as they are, and of chunks exactly the octets
//! that were announced.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use ringpost::base::{EnhancedCode, Mechanism, Mechanisms, QueueId, Reply, UnixMillis};
use ringpost::proto::address::Address;
use ringpost::proto::sasl::derive_keys;
use ringpost::proto::sasl::server::{Keys, Need};
use ringpost::proto::scan::{Scan, Scanner};
use ringpost::proto::smtp::server::{
    Authentication, BodyVerdict, Identified, Offers, Question, Server, Settings, Spec, Step, Transaction, Verdict,
};

/// What came of a session: the replies, and the transactions that were taken.
#[derive(Debug, Default, PartialEq)]
struct Played {
    said: Vec<u8>,
    taken: Vec<Transaction>,
    /// The octets of the messages that came in chunks.
    chunks: Vec<Vec<u8>>,
}

/// Plays `data` in pieces of `step` octets.
fn play(data: &[u8], step: usize) -> Played {
    let mut played = Played::default();
    let mut out = Vec::new();
    let all: Mechanisms = Mechanism::ALL.into_iter().collect();
    let settings = Settings::new(Spec {
        hostname: "mx.example".into(),
        message_size: 1000,
        recipients_max: 5,
        errors_max: 10,
        offers: Offers { auth: all, vrfy: true, expn: true, ..Offers::default() },
        ..Spec::default()
    });
    let mut server = Server::new(Arc::new(settings), &mut out);
    server.introduce(data.len() % 2 == 0, UnixMillis(1_700_000_000_000));
    server.offer_mechanisms(all);
    let mut chunk: Option<(usize, bool)> = None;
    let mut scanner: Option<Scanner> = None;
    let mut unread: Vec<u8> = Vec::new();
    for piece in data.chunks(step) {
        unread.extend_from_slice(piece);
        loop {
            if let Some(reading) = &mut scanner {
                match reading.scan(&unread) {
                    Scan::More => {
                        unread.clear();
                        break;
                    }
                    Scan::End { len } => drop(unread.drain(..len)),
                }
                scanner = None;
                server = server.body_done(BodyVerdict::Queued(QueueId::default()), &mut out);
            }
            if let Some((octets, last)) = chunk {
                if unread.len() < octets {
                    break;
                }
                chunk = None;
                let message = played.chunks.last_mut().expect("begun");
                message.extend(unread.drain(..octets));
                assert!(message.len() <= 1000);
                server = if last {
                    server.body_done(BodyVerdict::Queued(QueueId::default()), &mut out)
                } else if octets % 7 == 6 {
                    let reply = Reply::new(450, EnhancedCode(4, 2, 0), "busy");
                    server.body_done(BodyVerdict::Refuse(reply), &mut out)
                } else {
                    server.chunk_taken(&mut out)
                };
            }
            let (next, used, step) = server.step(&unread, &mut out);
            server = match step {
                Step::NeedInput => {
                    server = next;
                    unread.drain(..used);
                    break;
                }
                Step::Flush => {
                    played.said.append(&mut out);
                    next
                }
                Step::Ask(question) => next.answer(verdict(question), &mut out),
                Step::Authenticate => authenticate(next, &mut out),
                Step::Body => {
                    let mut next = next;
                    played.taken.push(next.take_transaction());
                    scanner = Some(Scanner::new());
                    next
                }
                Step::StartTls => unreachable!("STARTTLS is not offered"),
                Step::Chunk { octets, first, last } => {
                    let mut next = next;
                    assert!(next.is_amid_chunks());
                    if first {
                        played.taken.push(next.take_transaction());
                        played.chunks.push(Vec::new());
                    }
                    chunk = Some((usize::try_from(octets).expect("bounded"), last));
                    next
                }
                Step::Close => {
                    played.said.append(&mut out);
                    return played;
                }
            };
            unread.drain(..used);
        }
    }
    played.said.append(&mut out);
    played
}

/// Some passwords are right.
fn authenticate(server: Server, out: &mut Vec<u8>) -> Server {
    let answer = match server.authentication() {
        Some(Authentication::Need(Need::Password(asked))) => {
            let right = asked.filter(|(_, password)| password.len() % 2 == 0);
            Identified::Checked(right.map(|(name, _)| name.to_owned()))
        }
        Some(Authentication::Need(Need::Certificate(_))) => Identified::Checked(None),
        Some(Authentication::Need(Need::Keys(name))) => {
            let keys = derive_keys("pencil", b"salt", 4096.try_into().expect("not 0"));
            let user = name.map(str::to_owned);
            Identified::Keys(Keys { keys, user, nonce: "nonce", bindings: &[] })
        }
        Some(Authentication::Ended(_)) | None => return server.answer(Verdict::Accept, out),
    };
    server.identified(answer, out)
}

/// Some yes, some no, by nothing but the question.
fn verdict(question: Question<'_>) -> Verdict {
    match question {
        Question::Recipient(address) if address.local().len() % 4 == 3 => {
            Verdict::Refuse(Reply::new(450, EnhancedCode(4, 2, 0), "busy"))
        }
        _ => Verdict::Accept,
    }
}

fuzz_target!(|input: (u16, Vec<u8>)| {
    let (step, data) = input;
    let whole = play(&data, data.len().max(1));
    assert_eq!(play(&data, usize::from(step).max(1)), whole);
    assert_eq!(play(&data, 1), whole);

    let said = std::str::from_utf8(&whole.said).expect("replies are ASCII");
    for line in said.split_inclusive("\r\n") {
        assert!(line.len() <= 512 && line.ends_with("\r\n"), "{line:?}");
        assert!(line.as_bytes()[..3].iter().all(u8::is_ascii_digit), "{line:?}");
        assert!(matches!(line.as_bytes()[3], b' ' | b'-'), "{line:?}");
    }
    for transaction in &whole.taken {
        assert!((1..=5).contains(&transaction.recipients.len()));
        assert!(transaction.asks.priority.is_none_or(|it| (-9..=9).contains(&it)));
        let sender = (!transaction.sender.is_empty()).then_some(&transaction.sender);
        for text in transaction.recipients.iter().chain(sender) {
            let address = Address::parse(text).expect("it was taken");
            assert_eq!((address.text(), address.was_routed()), (text.as_str(), false));
            assert!(address.domain_text().is_some());
            assert!(!text.chars().any(char::is_control));
            assert!(text.is_ascii() || transaction.smtputf8);
        }
    }
});
