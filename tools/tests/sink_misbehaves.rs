//! What the sink does wrong on purpose, as a client over TCP sees it: words,
//! limits, delays and broken connections; and that a seed repeats them.

#[path = "support/pair.rs"]
mod pair;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use pair::{count, load, sink, verified};
use ringpost_tools::sink::Sink;

/// A client that says one thing at a time.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(sink: &Sink) -> Self {
        let stream = TcpStream::connect(sink.addresses[0]).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Client(BufReader::new(stream))
    }

    /// A reply, its last line; empty when the connection has ended.
    fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).unwrap_or(0) == 0 {
                return String::new();
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return line.trim_end_matches("\r\n").to_owned();
            }
        }
    }

    fn say(&mut self, line: &str) -> String {
        let _ = self.0.get_mut().write_all(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    /// Greeted, and with a transaction open.
    fn begun(sink: &Sink) -> Self {
        let mut client = Client::connect(sink);
        assert!(client.reply().starts_with("220 "));
        client.say("EHLO client.example");
        assert!(client.say("MAIL FROM:<s@example.org>").starts_with("250 "));
        client
    }
}

#[test]
fn refusals_speak_as_the_persona_does_and_to_whom_they_should() {
    let sink = sink(&[
        "--discard",
        "--persona=strict",
        "--reject=unknown-user:1:rcpt:bad.example",
        "--reject=spam:1",
    ]);
    let mut client = Client::begun(&sink);
    let refused = client.say("RCPT TO:<who@bad.example>");
    assert!(refused.starts_with("550 5.1.1 <who@bad.example>: Recipient rejected"), "{refused}");
    assert!(client.say("RCPT TO:<who@good.example>").starts_with("250 "));
    assert!(client.say("DATA").starts_with("354 "));
    let refused = client.say("Subject: x\r\n\r\nx\r\n.");
    assert!(refused.starts_with("554 5.7.1 Message rejected by the content filter"), "{refused}");
    assert!(client.say("NOOP").starts_with("250 "), "the session goes on");
    sink.stop().unwrap();
}

#[test]
fn greylisting_lets_in_who_comes_back() {
    let sink = sink(&["--discard", "--greylist=300ms", "--persona=yahoo"]);
    let begun = Instant::now();
    let mut tries = 0;
    loop {
        let mut client = Client::begun(&sink);
        let reply = client.say("RCPT TO:<a@example.net>");
        tries += 1;
        if reply.starts_with("250 ") {
            break;
        }
        assert!(reply.starts_with("451 4.7.1 [GL01] Mail from 127.0.0.1"), "{reply}");
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::yield_now();
    }
    assert!(tries > 1 && begun.elapsed() >= Duration::from_millis(300));
    sink.stop().unwrap();
}

#[test]
fn connections_and_messages_beyond_the_limits_are_turned_away() {
    let sink_ = sink(&["--discard", "--max-connections-per-client=2", "--persona=gmail"]);
    let kept = [Client::begun(&sink_), Client::begun(&sink_)];
    let mut third = Client::connect(&sink_);
    let reply = third.reply();
    assert!(reply.starts_with("421 4.7.0 127.0.0.1 has opened too many connections"), "{reply}");
    assert_eq!(third.reply(), "", "and closed");
    drop(kept);
    let begun = Instant::now();
    while !Client::connect(&sink_).reply().starts_with("220 ") {
        assert!(begun.elapsed() < Duration::from_secs(20), "places become free again");
    }
    sink_.stop().unwrap();

    let sink_ = sink(&["--discard", "--messages-per-connection=3"]);
    let report = load(&sink_, "--messages 10 --connections 1");
    sink_.stop().unwrap();
    // Of ten, the fourth and the eighth are turned away with their connection.
    assert_eq!((report.messages.accepted, report.messages.refused), (8, 2));
    assert_eq!(count(&report, "MAIL or DATA", "421 4.7.0"), 2);

    let sink_ = sink(&["--discard", "--rate-per-recipient=2/s"]);
    let report = load(&sink_, "--messages 5 --connections 1");
    sink_.stop().unwrap();
    assert_eq!(report.messages.accepted, 2);
    assert_eq!(count(&report, "RCPT", "450 4.2.1"), 3);
}

#[test]
fn delays_are_where_they_were_asked_for() {
    let sink = sink(&[
        "--discard",
        "--latency=rcpt:50ms",
        "--tarpit=70ms",
        "--reject=550:1:rcpt:bad@x.example",
    ]);
    let mut client = Client::begun(&sink);
    let mut took = |line: &str| {
        let begun = Instant::now();
        client.say(line);
        begun.elapsed()
    };
    assert!(took("RCPT TO:<a@x.example>") >= Duration::from_millis(50));
    assert!(took("RCPT TO:<bad@x.example>") >= Duration::from_millis(50));
    assert!(took("RCPT TO:<a@x.example>") >= Duration::from_millis(120), "in the tarpit");
    sink.stop().unwrap();
}

#[test]
fn connections_break_where_they_were_asked_to() {
    for (option, greeted) in [("--drop=1:connect", false), ("--drop=1:mail", true)] {
        let sink = sink(&["--discard", option]);
        let mut client = Client::connect(&sink);
        assert_eq!(client.reply().is_empty(), !greeted, "{option}");
        assert_eq!(client.say("EHLO client.example").is_empty(), !greeted, "{option}");
        assert_eq!(client.say("MAIL FROM:<>"), "", "{option}");
        sink.stop().unwrap();
    }
    let sink_ = sink(&["--discard", "--half-reply=1:mail"]);
    let mut client = Client::connect(&sink_);
    client.reply();
    client.say("EHLO client.example");
    client.0.get_mut().write_all(b"MAIL FROM:<>\r\n").unwrap();
    let mut rest = String::new();
    client.0.read_to_string(&mut rest).unwrap();
    assert!(rest.starts_with("250") && !rest.ends_with('\n'), "{rest:?}");
    sink_.stop().unwrap();
    // What breaks in its middle was not taken, and is not called so.
    let (report, verdict) =
        verified(&["--drop=20%:body", "--seed=5"], "--messages 50 --connections 2");
    assert!(report.messages.unanswered > 0);
    assert_eq!(report.messages.accepted, verdict.received);
    assert!(verdict.is_good() && verdict.unacknowledged == 0);
    // A 250 that is lost on its way leaves a message that was taken.
    let (report, verdict) = verified(&["--half-reply=20%:dot"], "--messages 50 --connections 2");
    assert!(verdict.is_good());
    assert_eq!(verdict.unacknowledged, report.messages.unanswered);
    assert!(verdict.unacknowledged > 0);
}

#[test]
fn the_same_seed_refuses_the_same() {
    let run = |seed: &str| {
        let sink = sink(&["--discard", "--reject=450:40%", "--reject=451:20%:dot", seed]);
        let report = load(&sink, "--messages 60 --connections 1");
        sink.stop().unwrap();
        (report.messages.accepted, count(&report, "RCPT", "450 4.0.0"))
    };
    assert_eq!(run("--seed=11"), run("--seed=11"));
    let others = [run("--seed=12"), run("--seed=13"), run("--seed=14")];
    assert!(others.iter().any(|other| *other != run("--seed=11")));
}
