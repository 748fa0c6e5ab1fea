//! A next hop that follows a script.
//!
//! Lines of a script: `> text` is sent with CRLF, `< text` is a line that must
//! begin so, `.` is a body up to its terminator, `!` closes at once, `~ text` is
//! sent over and over until the client has gone. At the end the peer waits for
//! the client to close.

use std::net::SocketAddr;
use std::time::Duration;

use crate::io::executor::{Task, spawn, within};
use crate::io::net::{Listener, Stream, listen};

/// What a peer saw on one connection: the lines and bodies, in order.
pub(super) type Seen = Vec<String>;

/// The usual session up to the greeting's end.
pub(super) const HELLO: [&str; 5] =
    ["> 220 peer", "< EHLO ", "> 250-peer", "> 250-SIZE", "> 250 PIPELINING"];

/// Takes one connection after the other, each with its script, and ends with
/// what was seen.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    task: Task<Vec<Seen>>,
}

impl Peer {
    pub(super) fn start(scripts: Vec<Vec<&'static str>>) -> Self {
        let listener = Listener::adopt(listen("127.0.0.1:0".parse().unwrap()).unwrap());
        let address = listener.local_addr().unwrap();
        let task = spawn(async move {
            let mut seen = Vec::new();
            for script in scripts {
                let (stream, _) = listener.accept().await.unwrap();
                seen.push(Session { stream, unread: Vec::new() }.follow(&script).await);
            }
            seen
        });
        Peer { address, task }
    }

    /// Waits for all scripts to be followed.
    pub(super) async fn finish(self) -> Vec<Seen> {
        within(Duration::from_secs(20), self.task).await.expect("the peer's scripts were followed")
    }
}

/// A transaction for one recipient, the first on a connection or any other.
pub(super) fn takes_one() -> [&'static str; 8] {
    ["< MAIL", "< RCPT", "< DATA", "> 250 ok", "> 250 ok", "> 354 go", ".", "> 250 2.0.0 taken"]
}

/// A script of several pieces.
pub(super) fn script(pieces: &[&[&'static str]]) -> Vec<&'static str> {
    pieces.concat()
}

struct Session {
    stream: Stream,
    unread: Vec<u8>,
}

impl Session {
    async fn follow(mut self, script: &[&str]) -> Seen {
        let mut seen = Seen::new();
        for step in script {
            match step.split_at(1) {
                (">", text) => {
                    let line = format!("{}\r\n", text.trim_start());
                    let _ = self.stream.write_all(line.as_bytes()).await;
                }
                ("<", start) => {
                    let line = self.until(b"\r\n").await;
                    assert!(line.starts_with(start.trim_start()), "{line:?} is no {step:?}");
                    seen.push(line);
                }
                (".", _) => seen.push(self.until(b"\r\n.\r\n").await),
                ("~", text) => {
                    let line = format!("{}\r\n", text.trim_start()).repeat(100);
                    while self.stream.write_all(line.as_bytes()).await.is_ok() {}
                    return seen;
                }
                ("!", _) => return seen,
                _ => panic!("no step of a script: {step:?}"),
            }
        }
        while self.more().await {}
        let rest = String::from_utf8(self.unread).unwrap();
        if !rest.is_empty() {
            seen.push(rest);
        }
        seen
    }

    async fn until(&mut self, end: &[u8]) -> String {
        loop {
            if let Some(at) = memchr::memmem::find(&self.unread, end) {
                let taken = self.unread.drain(..at + end.len()).collect();
                return String::from_utf8(taken).unwrap();
            }
            assert!(self.more().await, "the client closed; unread: {:?}", self.unread);
        }
    }

    async fn more(&mut self) -> bool {
        let mut buf = [0; 65536];
        match self.stream.read(&mut buf).await {
            Ok(len @ 1..) => {
                self.unread.extend_from_slice(&buf[..len]);
                true
            }
            _ => false,
        }
    }
}
