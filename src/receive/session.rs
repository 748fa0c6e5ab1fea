//! One session: the driver between a stream and the sans-IO engine. It reads,
//! lets the engine take what it can, answers the engine's questions from
//! policy, and writes all replies of a batch at once.
//!
//! Made by `listener` for each connection; runs as one task. The future is kept
//! small, since an idle session is little else: what a body needs lives in a
//! box while it is taken.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use crate::base::{EnhancedCode, Envelope, Reply, Share};
use crate::config::ListenerTls;
use crate::io::store::Store;
use crate::io::tls::Conn;
use crate::io::watch::{Guard, Interrupt};
use crate::policy::route::Destination;
use crate::policy::{access, terms};
use crate::proto::address::Address;
use crate::proto::smtp::asks::Asks;
use crate::proto::smtp::server::{Kind, Overdraft, Question, Server, Step, Verdict, write_reply};

use super::Shared;
use super::authenticate::{Identity, Secure};
use super::body::Lost;
use super::bounds::{Load, Needs};
use super::buffer::{Buffer, SMALL};
use super::chunks::Chunks;
use super::clients::Seat;
use super::front::{Front, MayClaim};
use super::hooks::{Broken, Hooks, Refused};
use super::profile::Profile;

/// A session and what it owns, but for the state of its engine.
pub(super) struct Session<S: Store, H: Hooks> {
    pub(super) shard: Rc<Shared<S, H>>,
    pub(super) profile: Rc<Profile>,
    pub(super) stream: Conn,
    pub(super) guard: Guard,
    pub(super) buffer: Buffer,
    pub(super) peer: SocketAddr,
    /// What is known of the client beside its address, if another speaks for it.
    pub(super) front: Option<Box<Front>>,
    pub(super) may_claim: MayClaim,
    /// The client has a reply that it had not when it was waited for last: it has
    /// its whole time again for the next command.
    answered: bool,
    /// Why the driver gives the session up, and what the client is told.
    pub(super) given_up: Option<(Broken, Box<Reply>)>,
    /// `None` before it is known whose it is.
    pub(super) seat: Option<Seat>,
    /// What TLS lends to authentication; nothing without it.
    pub(super) secure: Option<Box<Secure>>,
    pub(super) identity: Identity,
    /// A message of which more chunks are to come.
    pub(super) chunks: Option<Box<Chunks<S>>>,
    pub(super) out: Vec<u8>,
    pub(super) envelope: Load,
    /// What replies hold that are more than a few.
    replies: Share,
}

/// What a session must do before its engine can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// Write the replies.
    Flush,
    /// Write the replies, read more.
    Read,
    /// Write the replies, ask who it is that a trusted peer has authenticated.
    LookUp,
    /// Write the replies, go on with an authentication.
    Authenticate,
    /// Write the replies, take a body.
    Body,
    /// Write the replies, do the handshake of TLS.
    StartTls,
    /// Write the replies, take a chunk.
    Chunk { octets: u64, first: bool, last: bool },
    /// Write the replies, close.
    Close,
}

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The engine closed.
    Done,
    /// The peer closed, or its connection broke.
    Gone,
    /// Its reads were ended from here.
    Interrupted(Interrupt),
    /// The handshake of TLS failed; that is in the log already.
    Insecure,
    /// It does not read what it is told.
    Deaf,
}

impl<S: Store, H: Hooks> Session<S, H> {
    /// A session on `stream`.
    pub(super) fn new(
        shard: Rc<Shared<S, H>>,
        profile: Rc<Profile>,
        stream: Conn,
        peer: SocketAddr,
        seat: Option<Seat>,
    ) -> Self {
        let guard = shard.watch.guard(stream.hangup());
        let buffer = Buffer::new(Rc::clone(&shard.pool));
        let may_claim = profile.may_claim(peer.ip());
        let memory = shard.pool.memory();
        Session {
            envelope: Load::of(memory),
            replies: Share::of(memory),
            shard,
            profile,
            stream,
            guard,
            buffer,
            peer,
            front: None,
            may_claim,
            answered: false,
            given_up: None,
            seat,
            secure: None,
            identity: Identity::default(),
            chunks: None,
            out: Vec::new(),
        }
    }

    /// Runs the session to its end.
    pub(super) async fn run(mut self) {
        if let Err(end) = self.open().await {
            if let End::Interrupted(_) = end {
                self.say(&Reply::new(
                    421,
                    EnhancedCode(4, 3, 2),
                    "Shutting down, closing connection",
                ));
            }
            // The peer may have gone: then nobody waits for these words.
            let _ = self.flush().await;
            return;
        }
        let mut server = self.begin();
        let end = loop {
            let pause;
            (server, pause) = self.advance(server);
            if pause == Pause::Close {
                break End::Done;
            }
            if let Err(end) = self.reply().await {
                break end;
            }
            let went_on = match pause {
                Pause::Read => self.wait(&server).await,
                Pause::LookUp => Box::pin(self.look_up_user()).await,
                Pause::Authenticate => {
                    server = Box::pin(self.authenticate(server)).await;
                    Ok(())
                }
                Pause::Body => match Box::pin(self.take_body(&mut server)).await {
                    Ok(verdict) => {
                        server = server.body_done(verdict, &mut self.out);
                        Ok(())
                    }
                    Err(Lost) => Err(self.cause()),
                },
                Pause::StartTls => {
                    self.drop_unread(&server);
                    let secured = Box::pin(self.do_handshake(server.helo())).await;
                    if secured.is_ok() {
                        server = self.believed(server.secured());
                    }
                    secured
                }
                Pause::Chunk { octets, first, last } => {
                    match Box::pin(self.take_chunk(&mut server, octets, first, last)).await {
                        Ok(None) => {
                            server = server.chunk_taken(&mut self.out);
                            Ok(())
                        }
                        Ok(Some(verdict)) => {
                            server = server.body_done(verdict, &mut self.out);
                            Ok(())
                        }
                        Err(Lost) => Err(self.cause()),
                    }
                }
                Pause::Flush | Pause::Close => Ok(()),
            };
            if let Err(end) = went_on {
                break end;
            }
        };
        self.finish(server, end).await;
    }

    /// What comes before the greeting.
    async fn open(&mut self) -> Result<(), End> {
        if self.profile.fronts.proxy_protocol {
            Box::pin(self.read_header()).await?;
        }
        if self.profile.tls == ListenerTls::Implicit {
            Box::pin(self.do_handshake("")).await?;
        }
        if self.profile.strict || !self.profile.greet_delay.is_zero() {
            Box::pin(self.hold_greeting()).await?;
        }
        Ok(())
    }

    /// The engine, its greeting to be written.
    fn begin(&mut self) -> Server {
        let mut server = Server::new(Arc::clone(&self.profile.settings), &mut self.out);
        server.introduce(self.may_relay(), self.shard.hooks.now());
        server.allow_proxying(self.may_claim.xclient, self.may_claim.xforward);
        match self.stream.tls() {
            Some(_) => self.believed(server.over_tls()),
            None => server,
        }
    }

    /// Holds a reply to be written.
    pub(super) fn say(&mut self, reply: &Reply) {
        write_reply(reply, &mut self.out);
    }

    /// Reads what has come already; whether anything had.
    pub(super) async fn read_now(&mut self) -> Result<bool, End> {
        let Session { stream, buffer, .. } = self;
        let read = poll_fn(|cx| Poll::Ready(stream.poll_read(cx, buffer.room()))).await;
        match read {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(count)) if count > 0 => {
                self.buffer.advance(count);
                Ok(true)
            }
            Poll::Ready(_) => Err(self.cause()),
        }
    }

    /// Lets the engine take what is buffered, until it needs more.
    fn advance(&mut self, mut server: Server) -> (Server, Pause) {
        loop {
            let (next, used, step) = server.step(self.buffer.filled(), &mut self.out);
            server = next;
            self.chunks.take_if(|_| !server.is_amid_chunks());
            let pause = match step {
                Step::NeedInput => Some(Pause::Read),
                Step::Flush => Some(Pause::Flush),
                Step::Authenticate => Some(Pause::Authenticate),
                Step::Body => Some(Pause::Body),
                Step::StartTls if !self.may_start_tls(server.helo()) => {
                    server = server.put_tls_off(&mut self.out);
                    None
                }
                Step::StartTls => Some(Pause::StartTls),
                Step::Chunk { octets, first, last } => Some(Pause::Chunk { octets, first, last }),
                Step::Close => Some(Pause::Close),
                Step::Ask(Question::Xclient(attributes)) => {
                    let verdict = self.replace_client(attributes.claims(), server.helo());
                    let is_accepted = verdict == Verdict::Accept;
                    server = server.answer(verdict, &mut self.out);
                    if is_accepted {
                        server.trust_login(self.user_name().is_some());
                        server.introduce(self.may_relay(), self.shard.hooks.now());
                    }
                    (is_accepted && self.must_look_up()).then_some(Pause::LookUp)
                }
                Step::Ask(Question::Xforward(attributes)) => {
                    let verdict = self.note_origin(attributes.claims(), server.helo());
                    server = server.answer(verdict, &mut self.out);
                    None
                }
                Step::Ask(question) => {
                    let verdict = self.decide(&server, question, used);
                    let needs = Needs::of(&question, used);
                    if verdict == Verdict::Accept {
                        self.meet(needs);
                    }
                    server = server.answer(verdict, &mut self.out);
                    None
                }
            };
            self.buffer.consume(used);
            if let Some(pause) = pause {
                if server.transaction().is_none() {
                    self.envelope.clear();
                }
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
        if server.exchange().is_none() {
            self.identity.forget_attempt();
        }
        self.buffer.shrink();
        if self.buffer.room().is_empty() {
            self.buffer.compact();
            if self.buffer.room().is_empty() && !self.buffer.grow() {
                self.run_short();
                return Err(End::Gone);
            }
        }
        self.guard.set_idle(idle);
        // The time is that of the command, however many reads it comes in.
        if std::mem::take(&mut self.answered) {
            self.guard.arm(self.shard.config().limits.command_timeout);
        }
        let read = self.read().await;
        self.guard.set_idle(false);
        read.map_err(|Lost| self.cause())
    }

    /// Reads more into the buffer's room, which is not empty.
    pub(super) async fn read(&mut self) -> Result<(), Lost> {
        match self.stream.read(self.buffer.room()).await {
            Ok(count) if count > 0 => {
                self.buffer.advance(count);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::OutOfMemory => {
                self.run_short();
                Err(Lost)
            }
            _ => Err(Lost),
        }
    }

    /// Why the stream has ended.
    pub(super) fn cause(&self) -> End {
        self.guard.interrupted().map_or(End::Gone, End::Interrupted)
    }

    /// Writes the replies held, within the time that the client has to take them.
    async fn reply(&mut self) -> Result<(), End> {
        self.flush().await?;
        // The kernel may have taken the rest after the time was up.
        match self.guard.interrupted() {
            Some(Interrupt::TimedOut) => Err(End::Deaf),
            _ => Ok(()),
        }
    }

    /// Writes the replies held.
    async fn flush(&mut self) -> Result<(), End> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.guard.arm(self.shard.config().limits.command_timeout);
        if self.out.capacity() > SMALL {
            self.replies.set(self.out.capacity());
        }
        let written = self.stream.write_all(&self.out).await;
        self.answered = true;
        self.out.clear();
        if self.out.capacity() > SMALL {
            self.out = Vec::new();
            self.replies.set(0);
        }
        written.map_err(|_| match self.guard.interrupted() {
            Some(Interrupt::TimedOut) => End::Deaf,
            _ => self.cause(),
        })
    }

    /// Says the last words and tells the log.
    async fn finish(mut self, server: Server, end: End) {
        let given_up = self.given_up.take();
        let broken = match end {
            _ if given_up.is_some() => given_up.as_ref().map(|(how, _)| *how),
            End::Deaf => Some(Broken::Deaf),
            End::Done => match server.overdraft() {
                Some(Overdraft::Ahead) => Some(Broken::Ahead),
                Some(Overdraft::Commands) => Some(Broken::Idle),
                None => server.had_too_many_errors().then_some(Broken::Errors),
            },
            End::Gone => server.transaction().is_some().then_some(Broken::Gone),
            End::Interrupted(Interrupt::TimedOut) => Some(Broken::TimedOut),
            End::Interrupted(_) | End::Insecure => None,
        };
        if let Some(how) = broken {
            let mut counters = self.shard.counters.borrow_mut();
            match how {
                Broken::TimedOut => counters.sessions_timed_out += 1,
                Broken::Errors | Broken::Gone => counters.sessions_aborted += 1,
                Broken::Deaf => counters.sessions_deaf += 1,
                Broken::Slow => counters.sessions_slow += 1,
                Broken::Ahead => counters.sessions_ahead += 1,
                Broken::Idle => counters.sessions_idle_commands += 1,
                Broken::Short => counters.sessions_shed += 1,
            }
            drop(counters);
            self.shard.hooks.broken(self.peer, server.helo(), how);
        }
        match end {
            _ if let Some((_, reply)) = given_up => drop(server.dismissed(&reply, &mut self.out)),
            End::Interrupted(Interrupt::TimedOut) => drop(server.timed_out(&mut self.out)),
            End::Interrupted(_) => drop(server.shutting_down(&mut self.out)),
            End::Done | End::Gone | End::Deaf => {}
            // Nobody could read them.
            End::Insecure => return,
        }
        if end == End::Deaf {
            return;
        }
        // The peer may have gone: then nobody waits for these words.
        if self.flush().await.is_ok() {
            self.stream.close().await;
        }
    }

    /// The envelope of the transaction whose body is about to be taken.
    pub(super) fn envelope(&self, server: &mut Server) -> Envelope {
        let helo = self.claimed_helo().unwrap_or(server.helo()).to_owned();
        let client = self.peer.ip().to_canonical().to_string();
        let now = self.shard.hooks.now();
        let mut envelope = server.take_transaction().into_envelope(now, client, helo);
        if let Some(facts) = self.stream.tls() {
            let secured = format!("{} {}", facts.version, facts.cipher);
            envelope.terms.get_or_insert_default().secured = Some(secured);
        }
        if let Some(user) = self.user_name() {
            envelope.terms.get_or_insert_default().user = Some(user.to_owned());
        }
        envelope
    }

    /// Answers a question of the engine, which `line` octets of input have led to, from
    /// policy and the shard's state.
    fn decide(&self, server: &Server, question: Question<'_>, line: usize) -> Verdict {
        let refusal = match &question {
            Question::Xclient(_) | Question::Xforward(_) => unreachable!("decided before"),
            Question::Mail { sender, asks, .. } => self
                .shard
                .refuses_mail()
                .or_else(|| self.refuses_to_submit(sender.as_ref()?, true))
                .or_else(|| self.refuses_sender(sender.map_or("", |sender| sender.text())))
                .or_else(|| self.refuses_asks(asks))
                .or_else(|| self.refuses_load(line))
                .or_else(|| self.refuses_more()),
            Question::Data => self.shard.refuses_mail().or_else(|| self.refuses_body()),
            Question::Recipient(recipient) => {
                let refusal = self.refuses_recipient(recipient);
                let refused = u64::from(refusal.is_some());
                self.shard.counters.borrow_mut().recipients_refused += refused;
                refusal.or_else(|| self.refuses_load(line))
            }
            Question::Verify(address) => {
                return self.refuses_recipient(address).map_or(Verdict::Accept, Verdict::Refuse);
            }
            Question::Turn { domain, below } => {
                let begun = self.shard.hooks.turn(self.peer, domain, *below);
                let text = "the queue cannot be started now for that domain";
                (!begun).then(|| Reply::new(458, EnhancedCode(4, 3, 0), text))
            }
        };
        let Some(reply) = refusal else { return Verdict::Accept };
        let sender = match &question {
            Question::Mail { sender, .. } => sender.map_or("", |sender| sender.text()),
            _ => server.transaction().map_or("", |transaction| &transaction.sender),
        };
        let recipient = match &question {
            Question::Recipient(recipient) => Some(recipient.text()),
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

    /// True if the client may relay anywhere.
    fn may_relay(&self) -> bool {
        access::is_trusted(&self.shard.config().access, self.policy_address())
    }

    /// Why a message cannot be taken on these terms, if so.
    fn refuses_asks(&self, asks: &Asks) -> Option<Reply> {
        let (config, now) = (self.shard.config(), self.shard.hooks.now());
        terms::refusal(asks, now, config.queue.hold_max).or_else(|| {
            let is_for_later = asks.hold.is_some_and(|hold| hold.until(now) > now);
            let user = self.user_name().filter(|_| is_for_later)?;
            self.shard.authority.refuses_hold(user, config.limits.held_per_user, now)
        })
    }

    /// Why this address cannot stand in an envelope here, if so.
    fn refuses_to_submit(&self, address: &Address<'_>, is_sender: bool) -> Option<Reply> {
        let is_submitted = self.profile.settings.kind() == Kind::Submission;
        is_submitted.then(|| access::refuses_to_submit(address, is_sender)).flatten()
    }

    /// Why mail for this recipient is not taken from this client, if so.
    fn refuses_recipient(&self, recipient: &Address<'_>) -> Option<Reply> {
        if let Some(reply) = self.refuses_to_submit(recipient, false) {
            return Some(reply);
        }
        let config = self.shard.config();
        let is_user = self.user_name().is_some();
        match access::may_relay(&config.access, self.policy_address(), is_user, recipient) {
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
