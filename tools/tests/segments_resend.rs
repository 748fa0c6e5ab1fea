//! `ringpost-segments recover --resend`: what a server is given, and what is said
//! of servers that refuse, hang up or never answer.

#[path = "support/log.rs"]
#[allow(dead_code, reason = "other tests use the rest of it")]
mod log;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use clap::Parser;
use log::{Made, Maker, envelope, outcome};
use ringpost::base::dsn::{Dsn, Notify, RecipientDsn, Ret};
use ringpost::base::{BodyType, Disposition, Envelope, QueueId};
use ringpost::queue::Action;
use ringpost_tools::segments::{Cli, run};

/// How a server behaves that is not as it should be.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Good,
    /// Greets nobody.
    Silent,
    /// Does not answer the end of a message.
    SilentAfterDot,
    /// Hangs up instead of answering the end of a message.
    HangsUpAfterDot,
    /// Says no in the middle of a message, and hangs up.
    BreaksOff,
}

/// A transaction as the server saw it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Taken {
    mail: String,
    recipients: Vec<String>,
    body: Vec<u8>,
}

#[derive(Clone)]
struct Server {
    address: SocketAddr,
    manner: Manner,
    taken: Arc<Mutex<Vec<Taken>>>,
}

impl Server {
    fn start(manner: Manner) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server { address, manner, taken: Arc::default() };
        let mine = server.clone();
        thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming().map(Result::unwrap) {
                if mine.manner == Manner::Silent {
                    silent.push(stream);
                } else {
                    mine.session(stream);
                }
            }
        });
        server
    }

    fn session(&self, mut stream: TcpStream) {
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        stream.write_all(b"220 test\r\n").unwrap();
        let mut taken = Taken::default();
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|count| count > 0) {
            let command = std::mem::take(&mut line);
            let reply = match command.get(..4).unwrap_or_default() {
                "EHLO" => {
                    "250-test\r\n250-8BITMIME\r\n250-DSN\r\n250-PIPELINING\r\n250 SMTPUTF8\r\n"
                }
                "MAIL" => {
                    taken = Taken { mail: command.trim_end().to_owned(), ..Taken::default() };
                    "250 ok\r\n"
                }
                "RCPT" if command.contains("<r1@") => "550 5.1.1 not known\r\n",
                "RCPT" => {
                    taken.recipients.push(command.trim_end().to_owned());
                    "250 ok\r\n"
                }
                "DATA" => {
                    stream.write_all(b"354 go on\r\n").unwrap();
                    if !self.body(&mut lines, &mut stream, &mut taken) {
                        return;
                    }
                    self.taken.lock().unwrap().push(taken.clone());
                    "250 2.0.0 queued as X\r\n"
                }
                "QUIT" => "221 bye\r\n",
                _ => "500 what\r\n",
            };
            if stream.write_all(reply.as_bytes()).is_err() {
                return;
            }
        }
    }

    /// False if the session ends here.
    fn body(
        &self,
        lines: &mut BufReader<TcpStream>,
        stream: &mut TcpStream,
        taken: &mut Taken,
    ) -> bool {
        loop {
            let start = taken.body.len();
            if lines.read_until(b'\n', &mut taken.body).unwrap() == 0 {
                return false;
            }
            if self.manner == Manner::BreaksOff {
                let _ = stream.write_all(b"552 5.3.4 too much\r\n");
                return false;
            }
            if &taken.body[start..] == b".\r\n" {
                break;
            }
        }
        match self.manner {
            Manner::HangsUpAfterDot => false,
            Manner::SilentAfterDot => {
                // Until the client has had enough.
                let _ = lines.read_line(&mut String::new());
                false
            }
            _ => true,
        }
    }
}

/// What the tool says of giving the log's messages to the server.
fn resend(made: &Made, server: &Server, more: &[&str]) -> (bool, String) {
    let target = server.address.to_string();
    let arguments = ["ringpost-segments", "recover", made.path(), "--resend", &target];
    let arguments: Vec<&str> = arguments.iter().chain(more).copied().collect();
    let mut out = Vec::new();
    let sound = run(&Cli::try_parse_from(arguments).unwrap(), &mut out);
    let text = String::from_utf8(out).unwrap();
    match sound {
        Ok(sound) => (sound, text),
        Err(error) => (false, format!("{text}{error}")),
    }
}

const BODY: &[u8] = b"Subject: x\r\n\r\n..dot\r\n.\r\n";

/// A log with one message for `recipients`.
fn one(recipients: usize) -> (Made, QueueId) {
    let mut maker = Maker::new(3);
    let id = maker.put_deferred(&envelope("a@example.com", recipients), BODY);
    (maker.finish(3), id)
}

#[test]
fn messages_go_out_with_their_envelopes_to_who_is_left() {
    let mut maker = Maker::new(3);
    let plain = maker.put_deferred(&envelope("plain@example.com", 4), BODY);
    maker.record(plain, &[outcome(0, Disposition::Delivered)]);
    let carried = maker.queue.order(plain, Action::Hold, &[3], "root (uid 0)", log::NOW).unwrap();
    maker.run(carried.commit).unwrap();
    let special = Envelope {
        recipients: vec!["ä@example.org".into()],
        body_type: BodyType::EightBitMime,
        smtputf8: true,
        dsn: Some(Box::new(Dsn {
            ret: Some(Ret::Headers),
            envid: Some("QQ+2B1".into()),
            recipients: vec![RecipientDsn { notify: Some(Notify::NEVER), orcpt: None }],
        })),
        ..envelope("", 1)
    };
    let long: Vec<u8> =
        [&b"Subject: \xc3\xa4\r\n\r\n"[..], &b"0123456789\r\n".repeat(60_000), b".\r\n"].concat();
    maker.put_deferred(&special, &long);
    let gone = maker.put(&envelope("gone@example.com", 1), BODY);
    maker.record(gone, &[outcome(0, Disposition::Delivered)]);
    let made = maker.finish(3);
    let before: Vec<_> = made.numbers("seg").iter().map(|n| read(&made, *n)).collect();

    let server = Server::start(Manner::Good);
    let (sound, text) = resend(&made, &server, &[]);
    assert!(!sound, "one is refused and one held: {text}");
    assert!(text.contains(&format!("{plain}: <r1@example.org> refused: 550 5.1.1 not")), "{text}");
    assert!(text.contains(&format!("{plain}: 1 recipients are held")), "{text}");
    assert!(text.contains(&format!("{plain}: taken for 1: 250 2.0.0 queued as X")), "{text}");
    let taken = server.taken.lock().unwrap().clone();
    assert_eq!(taken.len(), 2);
    assert_eq!(taken[0].mail, "MAIL FROM:<plain@example.com>");
    assert_eq!(taken[0].recipients, ["RCPT TO:<r2@example.org>"]);
    assert_eq!(taken[0].body, BODY);
    assert_eq!(taken[1].mail, "MAIL FROM:<> BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ+2B1");
    assert_eq!(taken[1].recipients, ["RCPT TO:<ä@example.org> NOTIFY=NEVER"]);
    assert!(taken[1].body == long, "as it was, byte for byte");
    let after: Vec<_> = made.numbers("seg").iter().map(|n| read(&made, *n)).collect();
    assert!(before == after, "the log is not changed");

    let (_, text) = resend(&made, &server, &["--held", "--id", &plain.to_string()]);
    let taken = server.taken.lock().unwrap().clone();
    assert_eq!(taken.len(), 3, "{text}");
    assert_eq!(taken[2].recipients, ["RCPT TO:<r2@example.org>", "RCPT TO:<r3@example.org>"]);
}

fn read(made: &Made, number: u32) -> Vec<u8> {
    std::fs::read(made.file(number, "seg")).unwrap()
}

#[test]
fn many_recipients_go_in_groups_that_every_server_takes() {
    let mut maker = Maker::new(3);
    let recipients = (0..250).map(|n| format!("x{n}@example.org")).collect();
    maker.put_deferred(&Envelope { recipients, ..envelope("a@example.com", 1) }, BODY);
    let made = maker.finish(3);
    let server = Server::start(Manner::Good);
    let (sound, text) = resend(&made, &server, &[]);
    assert!(sound && text.contains("1 messages given to 127.0.0.1"), "{text}");
    let taken = server.taken.lock().unwrap().clone();
    let groups: Vec<usize> = taken.iter().map(|taken| taken.recipients.len()).collect();
    assert_eq!(groups, [100, 100, 50]);
}

#[test]
fn a_message_that_is_not_whole_is_never_begun() {
    let mut maker = Maker::new(3);
    let long = [&b"0123456789\r\n".repeat(60_000)[..], b".\r\n"].concat();
    let id = maker.put_deferred(&envelope("a@example.com", 1), &long);
    let unended = maker.put_deferred(&envelope("b@example.com", 1), b"no end");
    let made = maker.finish(3);
    made.alter(3, "seg", |bytes| bytes[30_000] ^= 1);
    let server = Server::start(Manner::Good);
    let (sound, text) = resend(&made, &server, &[]);
    assert!(!sound && text.contains(&format!("{id}: a record that holds some of it")), "{text}");
    assert!(text.contains(&format!("{unended}: its body does not end")), "{text}");
    assert_eq!(server.taken.lock().unwrap().len(), 0);
}

#[test]
fn no_server_makes_it_hang() {
    let (made, id) = one(1);
    let soon = ["--timeout", "200ms"];
    let (sound, text) = resend(&made, &Server::start(Manner::Silent), &soon);
    assert!(!sound && text.contains("gave up waiting for the greeting"), "{text}");
    let (sound, text) = resend(&made, &Server::start(Manner::SilentAfterDot), &soon);
    assert!(
        !sound && text.contains(&format!("{id}: not taken for 1: no answer: gave up")),
        "{text}"
    );
    assert!(text.contains("it may have been taken all the same"), "{text}");
    let (sound, text) = resend(&made, &Server::start(Manner::HangsUpAfterDot), &[]);
    assert!(!sound && text.contains("no answer: the connection was closed"), "{text}");
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Server { address: listener.local_addr().unwrap(), ..Server::start(Manner::Good) }
    };
    let (sound, text) = resend(&made, &closed, &[]);
    assert!(!sound && text.contains("refused"), "{text}");
}

#[test]
fn a_refusal_in_the_middle_is_reported_and_the_next_message_goes_on() {
    let mut maker = Maker::new(3);
    let long = [&b"0123456789\r\n".repeat(400_000)[..], b".\r\n"].concat();
    let ids: Vec<_> =
        (0..2).map(|_| maker.put_deferred(&envelope("a@example.com", 1), &long)).collect();
    let made = maker.finish(3);
    let server = Server::start(Manner::BreaksOff);
    let (sound, text) = resend(&made, &server, &["--timeout", "10s"]);
    assert!(!sound, "{text}");
    for id in ids {
        assert!(text.contains(&format!("{id}: not taken for 1: ")), "{text}");
    }
    assert!(text.contains("0 messages given to"), "{text}");
}
