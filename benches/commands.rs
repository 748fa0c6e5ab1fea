//! What the SMTP server engine costs: a transaction command by command and
//! pipelined, and the parsing of single commands. `cargo bench --bench commands`.
//!
//! A transaction is MAIL, RCPT, DATA, the end of an empty body and the reply,
//! with every question answered by the access policy of a trusted client.

mod support;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringpost::proto::smtp::command::Command;
use support::dialog::{COMMANDS, Session};

fn transactions(criterion: &mut Criterion) {
    let pipelined = COMMANDS.concat();
    let mut group = criterion.benchmark_group("transaction");
    group.throughput(Throughput::Elements(1));
    for (name, inputs) in [("by command", &COMMANDS[..]), ("pipelined", &[&pipelined])] {
        let mut session = Session::new();
        group.bench_function(name, |bencher| bencher.iter(|| session.transaction(inputs)));
        assert!(session.went_well(), "the dialog went wrong");
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
