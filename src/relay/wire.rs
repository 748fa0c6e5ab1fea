//! The wire of one outbound connection: the stream, its deadline, and the engine
//! of the SMTP client between two buffers. Events come in, commands and bodies
//! go out; what goes wrong is put into words for those concerned.
//!
//! While a body is sent the wire listens too: a server that has made up its mind
//! says so before the end, and the rest need not be sent.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::attempt::trouble;
use super::memory::{Part, Room};
use crate::base::limits::{PEER_REPLY_LINE_MAX, client_timeout};
use crate::base::{EnhancedCode, Security};
use crate::io::clock;
use crate::io::tls::{self, Conn};
use crate::io::watch::{Guard, Interrupt};
use crate::policy::governor::Failure;
use crate::proto::sasl::Binding;
use crate::proto::smtp::client::{Client, End, Event, Phase};

/// Room that is kept for what is to be written, in bytes.
pub(super) const OUT_KEPT: usize = 16 * 1024;

/// A connection without what it is used for.
pub(super) struct Wire {
    pub(super) host: String,
    pub(super) client: Client,
    /// What the next write sends.
    pub(super) out: Vec<u8>,
    /// The server refused a message before it had the whole of it.
    pub(super) refused_early: bool,
    conn: Conn,
    guard: Guard,
    /// Replies read before the one that is awaited, and since when it is.
    awaits: (u64, Instant),
    input: Box<[u8]>,
    from: usize,
    to: usize,
    /// Room of a body that was copied to `out`.
    copied: Option<Room>,
}

/// Bytes to be sent.
enum Source<'a> {
    Bytes(&'a [u8]),
    Part(&'a Part),
}

impl Source<'_> {
    fn with<R>(&self, act: impl FnOnce(&[u8]) -> R) -> Option<R> {
        match self {
            Source::Bytes(bytes) => Some(act(bytes)),
            Source::Part(part) => part.with(act),
        }
    }

    fn rest(&self) {
        if let Source::Part(part) = self {
            part.rest();
        }
    }
}

/// Why sending has paused.
enum Pause {
    /// All is sent.
    Sent,
    /// The bytes were taken away.
    TakenAway,
    /// The server has said something.
    Heard,
    /// The server has closed.
    Closed,
}

impl Wire {
    pub(super) fn new(conn: Conn, guard: Guard, host: String, client: Client) -> Self {
        Wire {
            host,
            client,
            out: Vec::new(),
            refused_early: false,
            conn,
            guard,
            awaits: (0, clock::monotonic()),
            input: vec![0; PEER_REPLY_LINE_MAX].into(),
            from: 0,
            to: 0,
            copied: None,
        }
    }

    /// Why the stream was ended by us, if it was.
    pub(super) fn interrupted(&self) -> Option<Interrupt> {
        self.guard.interrupted()
    }

    /// Makes a TLS handshake with the server `name` within `limit`.
    ///
    /// # Errors
    /// Why there is no TLS; the connection is of no more use.
    pub(super) async fn shake(
        &mut self,
        client: &tls::Client,
        name: &str,
        verify: tls::Verify<'_>,
        limit: Duration,
    ) -> Result<(), tls::Failure> {
        assert!(self.from == self.to, "the engine has seen all that came in the clear");
        self.conn.connect_tls(client, name, verify, limit).await
    }

    /// What is known of TLS on the connection, if it is on.
    pub(super) fn tls(&self) -> Option<&tls::Facts> {
        self.conn.tls()
    }

    /// The same, as the log has it.
    pub(super) fn security(&self) -> Security {
        let secured = |facts: &tls::Facts| Security::Tls {
            version: facts.version.name(),
            is_verified: facts.peer.as_ref().is_some_and(|peer| peer.is_verified),
        };
        self.tls().map_or(Security::Plain, secured)
    }

    /// What SASL can bind an exchange to.
    pub(super) fn bindings(&self) -> Vec<Binding> {
        self.conn.bindings()
    }

    /// Ends TLS as it is to be ended.
    pub(super) async fn say_goodbye(&mut self) {
        self.conn.say_goodbye().await;
    }

    /// The next event; an error, in the words for those concerned, when the
    /// connection is of no more use.
    pub(super) async fn event(&mut self) -> Result<Event, Failure> {
        loop {
            match self.step() {
                Event::Closed(end) => return Err(self.closed(end)),
                Event::NeedInput => {
                    self.flush().await?;
                    self.fill().await?;
                }
                event => return Ok(event),
            }
        }
    }

    fn step(&mut self) -> Event {
        let input = &self.input[self.from..self.to];
        let (used, event) = self.client.step(input, &mut self.out);
        self.from += used;
        event
    }

    /// Moves what is unread to the front of the input.
    fn compact(&mut self) {
        self.input.copy_within(self.from..self.to, 0);
        self.to -= self.from;
        self.from = 0;
    }

    /// Reads more input.
    async fn fill(&mut self) -> Result<(), Failure> {
        self.compact();
        let patience = self.patience();
        self.guard.arm(patience);
        let read = self.conn.read(&mut self.input[self.to..]).await;
        self.guard.disarm();
        match read {
            Ok(0) => Err(self.lost(None)),
            Ok(len) => {
                self.to += len;
                Ok(())
            }
            Err(error) => Err(self.lost(Some(&error))),
        }
    }

    /// How long the reply that is awaited may still take: the time is for the whole
    /// of it, or a server could keep us for days with an octet now and then.
    fn patience(&mut self) -> Duration {
        let (replies, now) = (self.client.replies(), clock::monotonic());
        if self.awaits.0 != replies {
            self.awaits = (replies, now);
        }
        let waited = now.saturating_duration_since(self.awaits.1);
        self.client.phase().timeout().saturating_sub(waited)
    }

    /// Puts a body behind what the next write sends.
    pub(super) fn copy(&mut self, body: &[u8], room: Room) {
        self.out.extend_from_slice(body);
        self.copied = Some(room);
    }

    /// Writes what has gathered.
    pub(super) async fn flush(&mut self) -> Result<(), Failure> {
        if self.out.is_empty() {
            return Ok(());
        }
        let out = std::mem::take(&mut self.out);
        let written = self.write(&out).await;
        self.out = out;
        self.out.clear();
        self.out.shrink_to(OUT_KEPT);
        self.copied = None;
        written
    }

    /// Writes all of `bytes`.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.be_patient();
        let mut from = 0;
        self.send(&Source::Bytes(bytes), &mut from).await?;
        self.guard.disarm();
        Ok(())
    }

    /// Begins the time that the server has for a block of data.
    pub(super) fn be_patient(&self) {
        self.guard.arm(client_timeout::DATA_BLOCK);
    }

    /// Ends it.
    pub(super) fn be_at_ease(&self) {
        self.guard.disarm();
    }

    /// Sends a part from `from` on, which moves with what is sent. False when
    /// the bytes were taken away before the server took them, and it takes more
    /// now.
    pub(super) async fn send_part(
        &mut self,
        part: &Part,
        from: &mut usize,
    ) -> Result<bool, Failure> {
        self.send(&Source::Part(part), from).await
    }

    async fn send(&mut self, source: &Source<'_>, from: &mut usize) -> Result<bool, Failure> {
        loop {
            match poll_fn(|cx| self.poll_send(cx, source, from)).await {
                Ok(Pause::Sent) => return Ok(true),
                Ok(Pause::TakenAway) => return Ok(false),
                Ok(Pause::Heard) => self.heed()?,
                Ok(Pause::Closed) => return Err(self.lost(None)),
                Err(error) => return Err(self.last_word(&error).await),
            }
        }
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        source: &Source<'_>,
        from: &mut usize,
    ) -> Poll<io::Result<Pause>> {
        loop {
            let conn = &mut self.conn;
            let written = source.with(|bytes| match &bytes[*from..] {
                [] => None,
                rest => Some(conn.poll_write(cx, rest)),
            });
            match written {
                None => return Poll::Ready(Ok(Pause::TakenAway)),
                Some(None) => match self.conn.poll_flush(cx) {
                    Poll::Ready(flushed) => return Poll::Ready(flushed.map(|()| Pause::Sent)),
                    Poll::Pending => return self.poll_hear(cx),
                },
                Some(Some(Poll::Ready(Ok(0)))) => {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                Some(Some(Poll::Ready(Ok(count)))) => *from += count,
                Some(Some(Poll::Ready(Err(error)))) => return Poll::Ready(Err(error)),
                Some(Some(Poll::Pending)) => {
                    source.rest();
                    return self.poll_hear(cx);
                }
            }
        }
    }

    /// Takes what the server says while it is sent a body.
    fn poll_hear(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pause>> {
        if self.client.phase() != Phase::Body {
            return Poll::Pending;
        }
        self.compact();
        let read = self.conn.poll_read(cx, &mut self.input[self.to..]);
        read.map_ok(|len| {
            self.to += len;
            if len == 0 { Pause::Closed } else { Pause::Heard }
        })
    }

    /// Hears what the server has said by now, before more of a body is sent.
    pub(super) async fn listen(&mut self) -> Result<(), Failure> {
        let heard = poll_fn(|cx| match self.poll_hear(cx) {
            Poll::Ready(heard) => Poll::Ready(Some(heard)),
            Poll::Pending => Poll::Ready(None),
        });
        match heard.await {
            None => Ok(()),
            Some(Ok(Pause::Heard)) => self.heed(),
            Some(Ok(_)) => Err(self.lost(None)),
            Some(Err(error)) => Err(self.lost(Some(&error))),
        }
    }

    /// Acts on what the server has said while it was sent a body: the rest is
    /// not wanted.
    fn heed(&mut self) -> Result<(), Failure> {
        match self.step() {
            // Half a line.
            Event::NeedInput => Ok(()),
            Event::Finished => {
                self.refused_early = true;
                Err(self.peer_said())
            }
            Event::Closed(end) => Err(self.closed(end)),
            _ => unreachable!("no command waits for a reply"),
        }
    }

    /// After a failed write: the server may have said why it hung up.
    async fn last_word(&mut self, error: &io::Error) -> Failure {
        if self.client.phase() == Phase::Body {
            while self.fill().await.is_ok() {
                if let Err(said) = self.heed() {
                    return said;
                }
            }
        }
        self.lost(Some(error))
    }

    /// In words: the connection broke.
    fn lost(&self, error: Option<&io::Error>) -> Failure {
        let (host, phase) = (&self.host, self.client.phase().text());
        let (code, text) = match (self.guard.interrupted(), error) {
            (Some(Interrupt::TimedOut), _) => {
                (EnhancedCode(4, 4, 2), format!("{host} timed out while {phase}"))
            }
            (Some(_), _) => (EnhancedCode(4, 3, 2), format!("shutting down while {phase}")),
            (None, Some(error)) => {
                (EnhancedCode(4, 4, 2), format!("lost connection to {host} while {phase}: {error}"))
            }
            (None, None) => {
                (EnhancedCode(4, 4, 2), format!("{host} closed the connection while {phase}"))
            }
        };
        Failure::ours(trouble(code, text))
    }

    /// The server's last reply, as a failure.
    pub(super) fn peer_said(&self) -> Failure {
        Failure { reply: self.client.reply(), host: self.host.clone() }
    }

    /// In words: the server ended the session, or broke the protocol.
    fn closed(&self, end: End) -> Failure {
        match end {
            End::TurnedAway | End::Unavailable => self.peer_said(),
            _ => {
                let (host, phase) = (&self.host, self.client.phase().text());
                let text = format!("{host} {} while {phase}", end.text());
                Failure::ours(trouble(EnhancedCode(4, 5, 0), text))
            }
        }
    }
}
