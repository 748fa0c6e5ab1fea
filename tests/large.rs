//! Large messages through a whole server: what arrives is what was sent, and
//! the server's memory follows from its limits, not from the size of the mail.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use support::peer::{Client, PATIENCE};
use support::process::Server;

const MIB: u64 = 1 << 20;
/// What the server may hold for one session.
const SESSION_MAX: u64 = 256 * 1024;
/// What may wait for the disk on one shard: `BACKLOG_MAX` of the queue.
const BACKLOG_MAX: u64 = 8 * MIB;
/// Bodies in memory on one shard: `BODY_MEMORY_MAX` of the relay.
const BODY_MEMORY_MAX: u64 = 64 * MIB;
/// Buffers for the disk (glommio maps 10 MiB for each executor), pages of code
/// that are touched for the first time, and what an allocator keeps.
const OTHER: u64 = 24 * MIB;

/// A body in wire form made of unlike blocks: each a line with its number and
/// ordinary and stuffed lines.
struct Mail {
    head: &'static [u8],
    lines: Vec<u8>,
    blocks: u64,
}

const NUMBER_LEN: usize = "00000000\r\n".len();

impl Mail {
    /// A mail of at least `bytes`.
    fn new(bytes: u64) -> Mail {
        let mut lines = Vec::new();
        for number in 0..16_000_u32 {
            let length = (number * 7 % 77) as usize;
            let dots = if number % 5 == 0 { ".." } else { "" };
            let line = format!("{dots}{number:x}{:.<length$}\r\n", ' ');
            lines.extend_from_slice(line.as_bytes());
        }
        let blocks = bytes.div_ceil((NUMBER_LEN + lines.len()) as u64);
        Mail { head: b"Subject: large\r\n\r\n", lines, blocks }
    }

    /// The pieces of the wire form, in order.
    fn pieces(&self, mut each: impl FnMut(&[u8])) {
        each(self.head);
        for block in 0..self.blocks {
            each(format!("{block:08}\r\n").as_bytes());
            each(&self.lines);
        }
        each(b".\r\n");
    }

    /// Its length on the wire.
    fn len(&self) -> u64 {
        let mut len = 0;
        self.pieces(|piece| len += piece.len() as u64);
        len
    }

    /// Sends it; the reply to its end.
    fn send(&self, to: SocketAddr) -> String {
        let mut client = Client::connect(to).unwrap();
        for command in ["MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>"] {
            assert!(client.command(command).unwrap().starts_with("250"));
        }
        assert!(client.command("DATA").unwrap().starts_with("354"));
        self.pieces(|piece| client.send(piece).unwrap());
        client.reply().unwrap()
    }

    /// Takes it from a server that delivers it, and compares as it comes.
    fn expect(&self, hop: &TcpListener) {
        let (stream, _) = hop.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut reader = BufReader::with_capacity(256 * 1024, stream);
        let say = |reader: &mut BufReader<TcpStream>, text: &str| {
            reader.get_mut().write_all(text.as_bytes()).unwrap();
        };
        let mut line = String::new();
        say(&mut reader, "220 hop\r\n");
        for (command, reply) in [
            ("EHLO", "250 hop\r\n"),
            ("MAIL", "250 ok\r\n"),
            ("RCPT", "250 ok\r\n"),
            ("DATA", "354 go\r\n"),
        ] {
            line.clear();
            reader.read_line(&mut line).unwrap();
            assert!(line.starts_with(command), "{line}");
            say(&mut reader, reply);
        }
        let mut trace = Vec::new();
        while !trace.ends_with(b"\r\nSubject:") {
            reader.read_until(b':', &mut trace).unwrap();
        }
        let mut got = Vec::new();
        let mut skip = "Subject:".len();
        self.pieces(|piece| {
            let piece = &piece[std::mem::take(&mut skip)..];
            got.resize(piece.len(), 0);
            reader.read_exact(&mut got).unwrap();
            assert!(got == piece, "it was damaged on the way");
        });
        say(&mut reader, "250 taken\r\n");
        line.clear();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, "QUIT\r\n", "there is more than was sent");
    }
}

#[test]
fn a_message_of_a_gibibyte_passes_in_bounded_memory() {
    let dir = tempfile::tempdir().unwrap();
    let hop = TcpListener::bind("127.0.0.1:0").unwrap();
    let route = format!(r#"route=[{{domain="*", next_hop=["{}"]}}]"#, hop.local_addr().unwrap());
    let settings = [&*route, r#"limits.message_size="2GiB""#, r#"queue.segment_size="64MiB""#];
    let server = Server::start(dir.path(), &settings);
    let (before, _) = server.memory();
    let mail = Arc::new(Mail::new(1 << 30));
    let taken = {
        let mail = Arc::clone(&mail);
        thread::spawn(move || mail.expect(&hop))
    };
    let reply = mail.send(server.smtp);
    assert!(reply.starts_with("250 2.0.0 Ok: queued"), "{reply}");
    taken.join().unwrap();
    let grown = server.memory().1 - before;
    let bound = SESSION_MAX + BACKLOG_MAX + BODY_MEMORY_MAX + OTHER;
    assert!(bound < mail.len() / 10 && grown < bound, "{} KiB more than before", grown / 1024);
    server.wait_log(|line| line.contains("delivered"));
    assert!(server.get("/metrics").contains("ringpost_body_memory_bytes{shard=\"0\"} 0"));
}

#[test]
fn many_large_messages_at_once_are_taken_in_bounded_memory() {
    const SENDERS: u64 = 50;
    let dir = tempfile::tempdir().unwrap();
    let settings = [r#"route=[{domain="*", next_hop="discard"}]"#, r#"queue.segment_size="16MiB""#];
    let server = Server::start(dir.path(), &settings);
    let (before, _) = server.memory();
    let mail = Arc::new(Mail::new(8 * MIB));
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (mail, to) = (Arc::clone(&mail), server.smtp);
            thread::spawn(move || mail.send(to))
        })
        .collect();
    for sender in senders {
        let reply = sender.join().unwrap();
        assert!(reply.starts_with("250 2.0.0 Ok: queued"), "{reply}");
    }
    let grown = server.memory().1 - before;
    let bound = SENDERS * SESSION_MAX + BACKLOG_MAX + OTHER;
    let sent = SENDERS * mail.len();
    assert!(bound < sent / 5 && grown < bound, "{} KiB more than before", grown / 1024);
}
