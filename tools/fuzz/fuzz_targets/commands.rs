//! The SMTP server engine on anything a client may send: it never panics, says
//! the same however the input is cut, answers with well-formed lines, and takes
//! only addresses that can be sent on as they are.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use ringpost::base::{EnhancedCode, QueueId, Reply};
use ringpost::proto::address::Address;
use ringpost::proto::scan::{Scan, Scanner};
use ringpost::proto::smtp::server::{
    BodyVerdict, Question, Server, Settings, Step, Transaction, Verdict,
};

/// What came of a session: the replies, and the transactions that were taken.
#[derive(Debug, Default, PartialEq)]
struct Played {
    said: Vec<u8>,
    taken: Vec<Transaction>,
}

/// Plays `data` in pieces of `step` octets.
fn play(data: &[u8], step: usize) -> Played {
    let mut played = Played::default();
    let mut out = Vec::new();
    let settings = Arc::new(Settings::new("mx.example", 100_000, 5, 10));
    let mut server = Server::new(settings, &mut out);
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
                Step::Body => {
                    let mut next = next;
                    played.taken.push(next.take_transaction());
                    scanner = Some(Scanner::new());
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
