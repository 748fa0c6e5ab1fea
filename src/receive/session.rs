//! One session: the driver between a stream and the sans-IO engine. It reads,
//! lets the engine take what it can, answers the engine's questions from
//! policy, and writes all replies of a batch at once.
//!
//! Made by `listener` for each connection; runs as one task. The future is kept
//! small, since an idle session is little else: what a body needs lives in a
//! box while it is taken.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::base::{EnhancedCode, Envelope, Reply};
use crate::io::net::Stream;
use crate::io::store::Store;
use crate::io::watch::{Guard, Interrupt};
use crate::policy::access;
use crate::policy::route::Destination;
use crate::proto::address::Address;
use crate::proto::smtp::server::{Question, Server, Step, Verdict};

use super::Shared;
use super::body::Lost;
use super::buffer::{Buffer, SMALL};
use super::clients::Seat;
use super::hooks::{Broken, Hooks, Refused};

/// A session and what it owns, but for the state of its engine.
pub(super) struct Session<S: Store, H: Hooks> {
    pub(super) shard: Rc<Shared<S, H>>,
    pub(super) stream: Stream,
    pub(super) guard: Guard,
    pub(super) buffer: Buffer,
    pub(super) peer: SocketAddr,
    out: Vec<u8>,
    _seat: Seat,
}

/// What a session must do before its engine can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// Write the replies.
    Flush,
    /// Write the replies, read more.
    Read,
    /// Write the replies, take a body.
    Body,
    /// Write the replies, close.
    Close,
}

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The engine closed.
    Done,
    /// The peer closed, or its connection broke.
    Gone,
    /// Its reads were ended from here.
    Interrupted(Interrupt),
}

impl<S: Store, H: Hooks> Session<S, H> {
    /// A session on `stream`.
    pub(super) fn new(
        shard: Rc<Shared<S, H>>,
        stream: Stream,
        peer: SocketAddr,
        seat: Seat,
    ) -> Self {
        let guard = shard.watch.guard(stream.hangup());
        let buffer = Buffer::new(Rc::clone(&shard.pool));
        Session { shard, stream, guard, buffer, peer, out: Vec::new(), _seat: seat }
    }

    /// Runs the session to its end.
    pub(super) async fn run(mut self) {
        let mut server = Server::new(self.shard.settings(), &mut self.out);
        let end = loop {
            let pause;
            (server, pause) = self.advance(server);
            if pause == Pause::Close {
                break End::Done;
            }
            if let Err(end) = self.flush().await {
                break end;
            }
            let went_on = match pause {
                Pause::Read => self.wait(&server).await,
                Pause::Body => match Box::pin(self.take_body(&mut server)).await {
                    Ok(verdict) => {
                        server = server.body_done(verdict, &mut self.out);
                        Ok(())
                    }
                    Err(Lost) => Err(self.cause()),
                },
                Pause::Flush | Pause::Close => Ok(()),
            };
            if let Err(end) = went_on {
                break end;
            }
        };
        self.finish(server, end).await;
    }

    /// Lets the engine take what is buffered, until it needs more.
    fn advance(&mut self, mut server: Server) -> (Server, Pause) {
        loop {
            let (next, used, step) = server.step(self.buffer.filled(), &mut self.out);
            server = next;
            let pause = match step {
                Step::NeedInput => Some(Pause::Read),
                Step::Flush => Some(Pause::Flush),
                Step::Body => Some(Pause::Body),
                Step::Close => Some(Pause::Close),
                Step::Ask(question) => {
                    let verdict = self.decide(&server, question);
                    server = server.answer(verdict, &mut self.out);
                    None
                }
            };
            self.buffer.consume(used);
            if let Some(pause) = pause {
                let tally = server.take_tally();
                let mut counters = self.shard.counters.borrow_mut();
                counters.commands += u64::from(tally.commands);
                counters.command_errors += u64::from(tally.errors);
                return (server, pause);
            }
        }
    }

    /// Waits for more from the client.
    async fn wait(&mut self, server: &Server) -> Result<(), End> {
        let idle = server.transaction().is_none() && self.buffer.is_empty();
        if idle && self.shard.draining.get() {
            return Err(End::Interrupted(Interrupt::Drained));
        }
        self.buffer.shrink();
        if self.buffer.room().is_empty() {
            self.buffer.compact();
            if self.buffer.room().is_empty() {
                self.buffer.grow();
            }
        }
        self.guard.set_idle(idle);
        let limit = self.shard.config().limits.command_timeout;
        let read = self.read(limit).await;
        self.guard.set_idle(false);
        read.map_err(|Lost| self.cause())
    }

    /// Reads more into the buffer's room, which is not empty.
    pub(super) async fn read(&mut self, limit: Duration) -> Result<(), Lost> {
        self.guard.arm(limit);
        match self.stream.read(self.buffer.room()).await {
            Ok(count) if count > 0 => {
                self.buffer.advance(count);
                Ok(())
            }
            _ => Err(Lost),
        }
    }

    /// Why the stream has ended.
    fn cause(&self) -> End {
        self.guard.interrupted().map_or(End::Gone, End::Interrupted)
    }

    /// Writes the replies held.
    async fn flush(&mut self) -> Result<(), End> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.guard.arm(self.shard.config().limits.command_timeout);
        let written = self.stream.write_all(&self.out).await;
        self.out.clear();
        if self.out.capacity() > SMALL {
            self.out = Vec::new();
        }
        written.map_err(|_| self.cause())
    }

    /// Says the last words and tells the log.
    async fn finish(mut self, server: Server, end: End) {
        let broken = match end {
            End::Done => server.had_too_many_errors().then_some(Broken::Errors),
            End::Gone => server.transaction().is_some().then_some(Broken::Gone),
            End::Interrupted(Interrupt::TimedOut) => Some(Broken::TimedOut),
            End::Interrupted(_) => None,
        };
        if let Some(how) = broken {
            let mut counters = self.shard.counters.borrow_mut();
            match how {
                Broken::TimedOut => counters.sessions_timed_out += 1,
                Broken::Errors | Broken::Gone => counters.sessions_aborted += 1,
            }
            drop(counters);
            self.shard.hooks.broken(self.peer, server.helo(), how);
        }
        match end {
            End::Interrupted(Interrupt::TimedOut) => drop(server.timed_out(&mut self.out)),
            End::Interrupted(_) => drop(server.shutting_down(&mut self.out)),
            End::Done | End::Gone => {}
        }
        // The peer may have gone: then nobody waits for these words.
        let _ = self.flush().await;
    }

    /// The envelope of the transaction whose body is about to be taken.
    pub(super) fn envelope(&self, server: &mut Server) -> Envelope {
        let helo = server.helo().to_owned();
        let client = self.peer.ip().to_canonical().to_string();
        server.take_transaction().into_envelope(self.shard.hooks.now(), client, helo)
    }

    /// Answers a question of the engine from policy and the shard's state.
    fn decide(&self, server: &Server, question: Question<'_>) -> Verdict {
        let refusal = match &question {
            Question::Mail { .. } | Question::Data => self.shard.refuses_mail(),
            Question::Recipient(recipient) => self.refuses_recipient(recipient),
        };
        let Some(reply) = refusal else { return Verdict::Accept };
        let sender = match &question {
            Question::Mail { sender, .. } => sender.map_or("", |sender| sender.text()),
            _ => server.transaction().map_or("", |transaction| &transaction.sender),
        };
        let recipient = match &question {
            Question::Recipient(recipient) => {
                self.shard.counters.borrow_mut().recipients_refused += 1;
                Some(recipient.text())
            }
            _ => None,
        };
        self.shard.hooks.refused(Refused {
            client: self.peer,
            helo: server.helo(),
            sender,
            recipient,
            reply: &reply,
        });
        Verdict::Refuse(reply)
    }

    /// Why mail for this recipient is not taken from this client, if so.
    fn refuses_recipient(&self, recipient: &Address<'_>) -> Option<Reply> {
        let config = self.shard.config();
        match access::may_relay(&config.access, self.peer.ip(), recipient) {
            Verdict::Accept => {}
            Verdict::Refuse(reply) | Verdict::Close(reply) => return Some(reply),
        }
        match self.shard.routes.borrow().address(recipient.text()) {
            Destination::Site(_) | Destination::Mx | Destination::Discard => None,
            Destination::Reject => {
                let text = "mail for this domain is not accepted here";
                Some(Reply::new(550, EnhancedCode(5, 7, 1), text))
            }
        }
    }
}
