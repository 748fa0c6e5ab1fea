//! A next hop that follows a script.
//!
//! Lines of a script: `> text` is sent with CRLF, `< text` is a line that must
//! begin so, `.` is a body up to its terminator, `+ 5` is five octets of one, `=` a TLS
//! handshake, `!` closes at once, `~ text` is sent over and over until the client has
//! gone. At the end the peer waits for
//! the client to close.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::io::executor::{Task, spawn, within};
use crate::io::net::{Listener, Stream, listen};
use crate::io::tls::{self, Conn};

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
        Peer::at("127.0.0.1:0".parse().unwrap(), scripts)
    }

    /// One that listens on `address`.
    pub(super) fn at(address: SocketAddr, scripts: Vec<Vec<&'static str>>) -> Self {
        Peer::with(address, None, scripts)
    }

    /// One that can do TLS.
    pub(super) fn with_tls(tls: tls::Server, scripts: Vec<Vec<&'static str>>) -> Self {
        Peer::with("127.0.0.1:0".parse().unwrap(), Some(tls), scripts)
    }

    fn with(
        address: SocketAddr,
        tls: Option<tls::Server>,
        scripts: Vec<Vec<&'static str>>,
    ) -> Self {
        let listener = Listener::adopt(listen(address).unwrap());
        let address = listener.local_addr().unwrap();
        let task = spawn(async move {
            let mut seen = Vec::new();
            for script in scripts {
                let (stream, _) = listener.accept().await.unwrap();
                seen.push(Session::new(stream, tls.clone()).follow(&script).await);
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

/// Where a session stands when a [`Sink`] is asked what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Greeting,
    Hello,
    Mail,
    Recipient,
    Data,
    /// The body is there.
    End,
}

/// What a sink says to an argument (an address, or nothing): a reply that
/// begins with its code, or `None` to hang up.
pub(super) type Mood = Rc<dyn Fn(Stage, &str) -> Option<String>>;

/// The mood of one that takes everything.
pub(super) fn takes_all(stage: Stage, _: &str) -> Option<String> {
    let reply = match stage {
        Stage::Greeting => "220 sink",
        Stage::Hello => "250-sink\r\n250-8BITMIME\r\n250 PIPELINING",
        Stage::Data => "354 go",
        Stage::Mail | Stage::Recipient | Stage::End => "250 ok",
    };
    Some(reply.to_owned())
}

/// A next hop on any number of connections that takes everything, or what its
/// mood lets it.
pub(super) struct Sink {
    pub(super) address: SocketAddr,
    /// Recipients, in the order of their messages' ends.
    pub(super) taken: Rc<RefCell<Vec<String>>>,
    pub(super) connections: Rc<Cell<usize>>,
    /// The most there were at a time.
    pub(super) most: Rc<Cell<usize>>,
    _task: Task<()>,
}

impl Sink {
    pub(super) fn at(address: SocketAddr) -> Self {
        Sink::with(address, Rc::new(takes_all))
    }

    pub(super) fn with(address: SocketAddr, mood: Mood) -> Self {
        let listener = Listener::adopt(listen(address).unwrap());
        let address = listener.local_addr().unwrap();
        let taken: Rc<RefCell<Vec<String>>> = Rc::default();
        let (connections, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let (to, open, peak) = (Rc::clone(&taken), Rc::clone(&connections), Rc::clone(&most));
        let task = spawn(async move {
            let mut sessions = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                let presence = Presence::new(Rc::clone(&open));
                peak.set(open.get().max(peak.get()));
                let (to, mood) = (Rc::clone(&to), Rc::clone(&mood));
                sessions.push(spawn(async move {
                    Session::new(stream, None).take(&to, &*mood, &presence).await;
                }));
            }
        });
        Sink { address, taken, connections, most, _task: task }
    }
}

/// A connection that counts until its client has said goodbye, or is gone: so
/// none counts any more when the client knows that it is closed.
struct Presence {
    open: Rc<Cell<usize>>,
    has_left: Cell<bool>,
}

impl Presence {
    fn new(open: Rc<Cell<usize>>) -> Self {
        open.set(open.get() + 1);
        Presence { open, has_left: Cell::new(false) }
    }

    fn leave(&self) {
        if !self.has_left.replace(true) {
            self.open.set(self.open.get() - 1);
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.leave();
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
    stream: Conn,
    unread: Vec<u8>,
    tls: Option<tls::Server>,
}

impl Session {
    fn new(stream: Stream, tls: Option<tls::Server>) -> Self {
        Session { stream: Conn::plain(stream), unread: Vec::new(), tls }
    }
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
                ("=", _) => {
                    let tls = self.tls.as_ref().expect("a peer with a certificate");
                    self.stream.accept_tls(tls, Duration::from_secs(20)).await.unwrap();
                }
                ("+", len) => {
                    let len = len.trim().parse().unwrap();
                    while self.unread.len() < len && self.more().await {}
                    let octets = self.unread.drain(..len).collect();
                    seen.push(String::from_utf8(octets).unwrap());
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

    /// Takes mail until the client has gone, or the mood is to hang up.
    async fn take(
        &mut self,
        taken: &RefCell<Vec<String>>,
        mood: &dyn Fn(Stage, &str) -> Option<String>,
        presence: &Presence,
    ) {
        let mut recipients: Option<Vec<String>> = None;
        let mut answer = mood(Stage::Greeting, "");
        while let Some(reply) = answer {
            let written = self.stream.write_all(format!("{reply}\r\n").as_bytes()).await;
            if written.is_err() || !self.has_line().await {
                return;
            }
            let line = self.until(b"\r\n").await;
            let (command, argument) = line.trim_end().split_once(':').unwrap_or((line.trim(), ""));
            let argument = argument.split('>').next().unwrap_or("").trim_start_matches('<');
            let is_good =
                |reply: &Option<String>| reply.as_ref().is_some_and(|reply| reply.starts_with('2'));
            answer = match (command, &mut recipients) {
                ("MAIL FROM", _) => {
                    let reply = mood(Stage::Mail, argument);
                    recipients = is_good(&reply).then(Vec::new);
                    reply
                }
                ("RCPT TO", Some(to)) => {
                    let reply = mood(Stage::Recipient, argument);
                    to.extend(is_good(&reply).then(|| argument.to_owned()));
                    reply
                }
                ("DATA", Some(to)) if !to.is_empty() => {
                    let reply = mood(Stage::Data, "");
                    match reply {
                        Some(go) if go.starts_with('3') => {
                            let go = format!("{go}\r\n");
                            let sent = self.stream.write_all(go.as_bytes()).await;
                            if sent.is_err() || !self.has(b"\r\n.\r\n").await {
                                return;
                            }
                            self.until(b"\r\n.\r\n").await;
                            let reply = mood(Stage::End, "");
                            if is_good(&reply) {
                                taken.borrow_mut().append(to);
                            }
                            reply
                        }
                        other => other,
                    }
                }
                ("RCPT TO" | "DATA", _) => Some("503 5.5.1 not now".to_owned()),
                ("QUIT", _) => {
                    presence.leave();
                    Some("221 bye".to_owned())
                }
                (hello, _) if hello.starts_with("EHLO") => mood(Stage::Hello, ""),
                _ => Some("250 ok".to_owned()),
            };
        }
    }

    /// Waits for a line; false if the client has gone.
    async fn has_line(&mut self) -> bool {
        self.has(b"\r\n").await
    }

    async fn has(&mut self, end: &[u8]) -> bool {
        while memchr::memmem::find(&self.unread, end).is_none() {
            if !self.more().await {
                return false;
            }
        }
        true
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
