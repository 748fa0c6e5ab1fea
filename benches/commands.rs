//! What the SMTP server engine costs: a transaction command by command and
//! pipelined, and the parsing of single commands. `cargo bench --bench commands`.
//!
//! A transaction is MAIL, RCPT, DATA, the end of an empty body and the reply,
//! with every question answered by the access policy of a trusted client.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringpost::base::QueueId;
use ringpost::config::Access;
use ringpost::policy::access::may_relay;
use ringpost::proto::smtp::command::Command;
use ringpost::proto::smtp::server::{BodyVerdict, Question, Server, Settings, Step, Verdict};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const COMMANDS: [&[u8]; 3] = [
    b"MAIL FROM:<sender.name@client.example> SIZE=4096 BODY=8BITMIME\r\n",
    b"RCPT TO:<recipient.name@destination.example>\r\n",
    b"DATA\r\n",
];

/// Feeds `input` to its end.
fn feed(mut server: Server, mut input: &[u8], access: &Access, out: &mut Vec<u8>) -> Server {
    loop {
        let (next, used, step) = server.step(input, out);
        input = &input[used..];
        server = match step {
            Step::NeedInput => return next,
            Step::Ask(Question::Recipient(address)) => {
                next.answer(may_relay(access, CLIENT, &address), out)
            }
            Step::Ask(_) => next.answer(Verdict::Accept, out),
            Step::Body => {
                let mut next = next;
                black_box(next.take_transaction());
                next.body_done(BodyVerdict::Queued(QueueId::default()), out)
            }
            Step::Flush | Step::Close => panic!("not in this dialog"),
        };
    }
}

fn transactions(criterion: &mut Criterion) {
    let access = Access::default();
    let pipelined = COMMANDS.concat();
    let mut group = criterion.benchmark_group("transaction");
    group.throughput(Throughput::Elements(1));
    for (name, inputs) in [("by command", &COMMANDS[..]), ("pipelined", &[&pipelined])] {
        let mut out = Vec::with_capacity(4096);
        let settings = Arc::new(Settings::new("mx.example", 50 << 20, 1000, 20));
        let mut server = Some(Server::new(settings, &mut out));
        server = server.map(|server| feed(server, b"EHLO client.example\r\n", &access, &mut out));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for input in inputs {
                    out.clear();
                    let next = server.take().expect("put back");
                    server = Some(feed(next, black_box(input), &access, &mut out));
                }
            });
        });
        assert!(out.starts_with(b"354 ") || out.starts_with(b"250 2.1.0"), "the dialog went wrong");
    }
    group.finish();
}

fn parsing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    for (name, line) in [
        ("MAIL", &b"MAIL FROM:<sender.name@client.example> SIZE=4096 BODY=8BITMIME"[..]),
        ("RCPT", b"RCPT TO:<recipient.name@destination.example>"),
        ("RCPT quoted", b"RCPT TO:<\"recipient name\"@destination.example>"),
        ("RCPT UTF-8", "RCPT TO:<empfänger@größe.example>".as_bytes()),
        ("DATA", b"DATA"),
    ] {
        assert!(Command::parse(line).is_ok());
        group.throughput(Throughput::Bytes(line.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| Command::parse(black_box(line))));
    }
    group.finish();
}

criterion_group!(benches, transactions, parsing);
criterion_main!(benches);
