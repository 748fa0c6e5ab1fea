//! What is counted.

use std::hint::black_box;

use futures_lite::future;
use ringpost::base::UnixMillis;
use ringpost::io::memory::MemoryStore;
use ringpost::proto::scan::{Scan, Scanner, Variant};
use ringpost::proto::smtp::client::{Client, Event, Transaction};
use ringpost::queue::{Queue, QueueOptions};

use crate::support::dialog::{COMMANDS, Session};
use crate::support::{log, mail};

/// Something to count.
pub struct Work {
    /// Its name in the record.
    pub name: &'static str,
    /// Operations that a turn does.
    pub operations: u64,
    /// Turns, as many to warm up and as many to count.
    pub turns: u64,
    /// Sets it up; what it returns does a turn.
    pub prepare: fn() -> Box<dyn FnMut()>,
}

/// Messages that share a flush, as with a hundred busy connections.
const TOGETHER: u64 = 100;
/// Turns over which a log begins new segments and uses old ones again.
const LOG_TURNS: u64 = 80;

/// All that is counted.
pub fn all() -> impl Iterator<Item = Work> {
    let each = |name, turns, prepare| Work { name, operations: 1, turns, prepare };
    [
        each("scan 4 KiB, AVX2", 100, || scan(Variant::Avx2, 4 << 10)),
        each("scan 100 KiB, AVX2", 10, || scan(Variant::Avx2, 100 << 10)),
        each("scan 4 KiB, scalar", 20, || scan(Variant::Scalar, 4 << 10)),
        each("scan 100 KiB, scalar", 2, || scan(Variant::Scalar, 100 << 10)),
        each("session, by command", 100, || session(false)),
        each("session, pipelined", 100, || session(true)),
        each("client, by command", 100, || client(false)),
        each("client, pipelined", 100, || client(true)),
        Work {
            name: "append, commit and settle 4 KiB",
            operations: TOGETHER,
            turns: LOG_TURNS,
            prepare: append,
        },
    ]
    .into_iter()
}

fn scan(variant: Variant, len: usize) -> Box<dyn FnMut()> {
    let body = mail::message(len, 2, 78);
    Box::new(move || {
        let mut scanner = Scanner::with(variant).expect("a processor with AVX2");
        assert_eq!(scanner.scan(black_box(&body)), Scan::End { len: body.len() });
        black_box(scanner.longest_line());
    })
}

/// A whole transaction of the server's engine.
fn session(pipelined: bool) -> Box<dyn FnMut()> {
    let mut session = Session::new();
    let together = COMMANDS.concat();
    Box::new(move || {
        if pipelined {
            session.transaction(&[&together]);
        } else {
            session.transaction(&COMMANDS);
        }
        assert!(session.went_well());
    })
}

/// A message's way through a log of 16 MiB segments.
fn append() -> Box<dyn FnMut()> {
    let (envelope, body) = (log::envelope(), vec![b'x'; 4096]);
    let options = QueueOptions { segment_size: 16 << 20, ..QueueOptions::default() };
    let open = Queue::open(MemoryStore::untracked(), options, UnixMillis(0));
    let (queue, _) = future::block_on(open).expect("memory opens");
    let mut commits = Box::pin(queue.clone().run_commits());
    Box::new(move || {
        let work = async {
            let ids = log::accept(&queue, &envelope, &body, TOGETHER).await;
            log::settle(&queue, &ids);
        };
        future::block_on(future::or(work, async { commits.as_mut().await }));
    })
}

/// A whole transaction of the client's engine, whose server offers what ours does.
fn client(pipelined: bool) -> Box<dyn FnMut()> {
    const OFFER: &[u8] = b"250-mx.example\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n\
        250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250-SMTPUTF8\r\n250 DSN\r\n";
    const ACCEPTED: [&[u8]; 3] =
        [b"250 2.1.0 Ok\r\n", b"250 2.1.5 Ok\r\n", b"354 End data with <CR><LF>.<CR><LF>\r\n"];
    const QUEUED: &[u8] = b"250 2.0.0 Ok: queued as 0000G00080001000\r\n";

    let mut client = Client::new("client.example");
    let mut out = Vec::with_capacity(4096);
    let events = [&b"220 mx.example ESMTP\r\n"[..], OFFER].map(|said| client.step(said, &mut out));
    assert_eq!(events[1], (OFFER.len(), Event::Ready));
    if !pipelined {
        client.send_one_by_one();
    }
    let together = ACCEPTED.concat();
    Box::new(move || {
        out.clear();
        let transaction = Transaction {
            sender: "sender.name@client.example",
            size: 4096,
            eight_bit: true,
            ..Transaction::default()
        };
        let recipients = ["recipient.name@destination.example"];
        client.begin(black_box(&transaction), recipients, &mut out).expect("all is offered");
        if pipelined {
            assert_eq!(client.step(black_box(&together), &mut out).1, Event::SendBody);
        } else {
            for said in &ACCEPTED[..2] {
                assert_eq!(client.step(black_box(said), &mut out).1, Event::NeedInput);
            }
            assert_eq!(client.step(black_box(ACCEPTED[2]), &mut out).1, Event::SendBody);
        }
        client.body_sent();
        assert_eq!(client.step(black_box(QUEUED), &mut out).1, Event::Finished);
        black_box(client.code());
        assert_eq!(client.step(b"", &mut out).1, Event::NeedInput);
    })
}
