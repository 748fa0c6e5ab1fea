//! One outbound connection: the driver of the SMTP client on a stream. It takes
//! handles from its lane one after the other, keeps the next transaction's
//! commands behind the body of the one before where the server allows, and
//! returns every handle exactly once.
//!
//! Cost of a message on a busy connection: one write (body and next commands
//! together), one read. A small body is copied behind the commands, a large one
//! is written from where it lies, one that is not in memory is read from the
//! log in parts. Deadlines are the lane's watch's, not timers.

use std::rc::Rc;
use std::sync::Arc;

use super::attempt::{Attempt, settle_all, trouble};
use super::lane::{Failure, Lane};
use super::parcel::Handle;
use super::{Core, IDLE_MAX};
use crate::base::limits::{PEER_REPLY_LINE_MAX, client_timeout};
use crate::base::{BodyType, Disposition, EnhancedCode};
use crate::io::clock;
use crate::io::executor::within;
use crate::io::net::Stream;
use crate::io::store::Store;
use crate::io::watch::{Guard, Interrupt};
use crate::mail::headers::header_section;
use crate::proto::smtp::client::{Client, End, Event, Offer, Phase, Transaction};
use crate::queue::BodyReader;

/// Bodies up to this many bytes are copied behind the commands, so that one
/// system call sends both.
const COPIED_MAX: usize = 64 * 1024;

/// Where the body of the transaction begun comes from.
enum Body<S: Store> {
    Memory,
    Log(Box<BodyReader<S>>),
}

/// A transaction under way.
struct Flight<S: Store> {
    attempt: Attempt,
    body: Body<S>,
}

/// An open connection.
struct Connection<S: Store> {
    core: Rc<Core<S>>,
    lane: Rc<Lane>,
    host: String,
    stream: Stream,
    guard: Guard,
    client: Client,
    input: Box<[u8]>,
    from: usize,
    to: usize,
    out: Vec<u8>,
    /// The transaction whose replies are awaited, and the one behind it.
    current: Option<Flight<S>>,
    next: Option<Flight<S>>,
    /// Transactions begun, and those that ended in a reply other than 421.
    begun: u32,
    finished: u32,
    /// The 421 that ended the last transaction.
    farewell: Option<Failure>,
}

/// Opens a connection to the first host of the lane's site that takes one,
/// delivers what the lane has, and closes it.
pub(super) async fn run<S: Store>(core: Rc<Core<S>>, lane: Rc<Lane>) {
    let mut failure = None;
    for host in &lane.site.hosts {
        match open(&core, &lane, *host).await {
            Ok(connection) => {
                lane.connected();
                core.connections.set(core.connections.get() + 1);
                connection.deliver().await;
                core.connections.set(core.connections.get() - 1);
                core.check_drained();
                return;
            }
            Err(why) => failure = Some(why),
        }
    }
    let failure = failure.expect("a site has a host");
    let waiting = lane.connect_failed(failure.clone(), clock::wall());
    core.defer_all(waiting, &failure);
    core.kick(&lane);
}

/// Connects to one host and gets through greeting and EHLO.
async fn open<S: Store>(
    core: &Rc<Core<S>>,
    lane: &Rc<Lane>,
    host: std::net::SocketAddr,
) -> Result<Connection<S>, Failure> {
    let limit = core.config().delivery.connect_timeout;
    let stream = Stream::connect(host, limit).await.map_err(|error| {
        core.counters.borrow_mut().outbound_connect_failures += 1;
        Failure::ours(trouble(EnhancedCode(4, 4, 1), format!("connect to {host}: {error}")))
    })?;
    core.counters.borrow_mut().outbound_connections += 1;
    let mut connection = Connection {
        core: Rc::clone(core),
        lane: Rc::clone(lane),
        host: host.to_string(),
        guard: core.watch.guard(stream.hangup()),
        stream,
        client: Client::new(&core.config().hostname),
        input: vec![0; PEER_REPLY_LINE_MAX].into(),
        from: 0,
        to: 0,
        out: Vec::new(),
        current: None,
        next: None,
        begun: 0,
        finished: 0,
        farewell: None,
    };
    match connection.event().await {
        Ok(Event::Ready) => Ok(connection),
        Ok(_) => unreachable!("nothing was begun"),
        Err(failure) => {
            core.counters.borrow_mut().outbound_connect_failures += 1;
            Err(failure)
        }
    }
}

impl<S: Store> Connection<S> {
    /// Delivers until the lane has no more, the connection has had its share
    /// of messages, or something fails.
    async fn deliver(mut self) {
        self.core.kick(&self.lane);
        let why = loop {
            if self.client.may_begin() {
                self.begin_next().await;
            }
            if self.current.is_none() {
                if self.idle().await {
                    continue;
                }
                self.quit().await;
                break self.farewell.take();
            }
            match self.event().await {
                Ok(Event::SendBody) => {
                    if let Err(failure) = self.send_body().await {
                        break Some(failure);
                    }
                }
                Ok(event) => self.note(event),
                Err(failure) => break Some(failure),
            }
        };
        self.end(why);
    }

    /// Begins the next transaction if there is one to begin.
    async fn begin_next(&mut self) {
        let most = self.core.config().delivery.messages_per_connection;
        while self.begun < most && !self.core.stopping() {
            let handle = match self.current {
                None => self.lane.take(),
                Some(_) => self.lane.take_ahead(),
            };
            let Some(handle) = handle else { break };
            if self.begin(handle).await {
                break;
            }
        }
    }

    /// Begins a transaction; false when the server cannot take the message or
    /// the message cannot be read, and its handle went back.
    async fn begin(&mut self, handle: Handle) -> bool {
        let body = match handle.body() {
            Some(_) => Body::Memory,
            None => match self.core.open_body(&handle).await {
                Ok(reader) => Body::Log(Box::new(reader)),
                Err(error) => {
                    self.core.unreadable(handle, &error);
                    return false;
                }
            },
        };
        let needs = self.core.needs(&handle, self.client.offer()).await;
        let begun = {
            let transaction = Transaction {
                sender: &handle.mail.envelope.sender,
                size: handle.size,
                eight_bit: needs.eight_bit,
                smtputf8: needs.smtputf8,
            };
            self.client.begin(&transaction, handle.addresses(), &mut self.out)
        };
        if let Err(unsupported) = begun {
            let reply = unsupported.reply();
            let now = clock::wall();
            let settled = settle_all(handle, Disposition::Failed, &reply, &self.host, now);
            self.core.settled(settled);
            return false;
        }
        self.begun += 1;
        self.count_attempt(&body);
        let flight = Some(Flight { attempt: Attempt::new(handle), body });
        if self.current.is_none() {
            self.current = flight;
        } else {
            self.next = flight;
        }
        true
    }

    fn count_attempt(&self, body: &Body<S>) {
        let mut counters = self.core.counters.borrow_mut();
        counters.attempts += 1;
        match body {
            Body::Memory => counters.bodies_from_memory += 1,
            Body::Log(_) => counters.bodies_from_log += 1,
        }
    }

    /// Sends the body of the current transaction, or puts it where the next
    /// write sends it.
    async fn send_body(&mut self) -> Result<(), Failure> {
        let flight = self.current.as_ref().expect("a body is asked for within a transaction");
        match (&flight.body, flight.attempt.handle.body()) {
            (Body::Memory, Some(bytes)) if bytes.len() <= COPIED_MAX => {
                self.out.extend_from_slice(bytes);
            }
            (Body::Memory, _) => {
                let mail = Arc::clone(&flight.attempt.handle.mail);
                self.flush().await?;
                self.write(&mail.body).await?;
            }
            (Body::Log(_), _) => {
                self.flush().await?;
                while let Some(part) = self.next_part().await? {
                    self.write(&part).await?;
                }
            }
        }
        self.client.body_sent();
        Ok(())
    }

    async fn next_part(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let Some(Flight { body: Body::Log(reader), .. }) = &mut self.current else {
            unreachable!("only bodies in the log come in parts")
        };
        reader.next().await.map_err(|error| {
            tracing::error!(target: "relay", %error, "a message cannot be read from the queue");
            let text = format!("reading the message: {error}");
            Failure::ours(trouble(EnhancedCode(4, 3, 0), text))
        })
    }

    /// Acts on what the server said of the current transaction.
    fn note(&mut self, event: Event) {
        match event {
            Event::Refused { recipient } => {
                let reply = self.client.reply();
                let flight = self.current.as_mut().expect("a recipient is of a transaction");
                flight.attempt.refused(recipient, reply);
            }
            Event::Finished if self.turned_away_late() => {}
            Event::Finished => {
                let flight = self.current.take().expect("a transaction was under way");
                self.current = self.next.take();
                let reply = self.client.reply();
                if reply.code == 421 {
                    self.farewell = Some(self.peer_said());
                } else {
                    self.finished += 1;
                    self.lane.fruitful();
                }
                let settled = flight.attempt.finish(&reply, &self.host, clock::wall());
                self.core.settled(settled);
            }
            Event::NeedInput | Event::Ready | Event::SendBody | Event::Closed(_) => {
                unreachable!("handled where events are read")
            }
        }
    }

    /// True when the server, having served before, ends the connection with
    /// 421 instead of taking MAIL: the message is not to blame, and goes back.
    fn turned_away_late(&self) -> bool {
        self.client.phase() == Phase::Mail && self.client.code() == 421 && self.finished > 0
    }

    /// The next event; an error, in the words for those concerned, when the
    /// connection is of no more use.
    async fn event(&mut self) -> Result<Event, Failure> {
        loop {
            let input = &self.input[self.from..self.to];
            let (used, event) = self.client.step(input, &mut self.out);
            self.from += used;
            match event {
                Event::Closed(end) => return Err(self.closed(end)),
                Event::NeedInput => {
                    self.flush().await?;
                    self.fill().await?;
                }
                event => return Ok(event),
            }
        }
    }

    /// Reads more input.
    async fn fill(&mut self) -> Result<(), Failure> {
        self.input.copy_within(self.from..self.to, 0);
        self.to -= self.from;
        self.from = 0;
        self.guard.arm(self.client.phase().timeout());
        let read = self.stream.read(&mut self.input[self.to..]).await;
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

    /// Writes what has gathered.
    async fn flush(&mut self) -> Result<(), Failure> {
        if self.out.is_empty() {
            return Ok(());
        }
        let out = std::mem::take(&mut self.out);
        let written = self.write(&out).await;
        self.out = out;
        self.out.clear();
        // A large body passed through here once is no reason to keep its room.
        self.out.shrink_to(COPIED_MAX);
        written
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.guard.arm(client_timeout::DATA_BLOCK);
        let written = self.stream.write_all(bytes).await;
        self.guard.disarm();
        match written {
            Ok(()) => Ok(()),
            Err(error) => Err(self.last_word(&error).await),
        }
    }

    /// After a failed write: the server may have said why it hung up.
    async fn last_word(&mut self, error: &std::io::Error) -> Failure {
        if self.client.phase() == Phase::Body {
            while self.fill().await.is_ok() {
                let input = &self.input[self.from..self.to];
                let (used, event) = self.client.step(input, &mut self.out);
                self.from += used;
                match event {
                    Event::NeedInput => {}
                    Event::Finished => {
                        self.finished += 1;
                        return self.peer_said();
                    }
                    _ => break,
                }
            }
        }
        self.lost(Some(error))
    }

    /// In words: the connection broke.
    fn lost(&self, error: Option<&std::io::Error>) -> Failure {
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
    fn peer_said(&self) -> Failure {
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

    /// Waits for the lane to have more; false when the connection shall close.
    async fn idle(&mut self) -> bool {
        let most = self.core.config().delivery.messages_per_connection;
        if !self.client.may_begin() || self.begun >= most || self.core.stopping() {
            return false;
        }
        let idle = self.lane.idle(clock::wall());
        idle.signal.wait().await;
        !self.core.stopping() && (!idle.is_expired() || self.lane.has_queued())
    }

    /// Says goodbye and waits a moment for the answer.
    async fn quit(&mut self) {
        self.client.quit(&mut self.out);
        if self.client.phase() == Phase::Quit {
            // Whatever comes of it, the connection ends.
            let _ = within(client_timeout::QUIT.min(IDLE_MAX), self.event()).await;
        }
    }

    /// The connection has ended, for this reason if it was not idle: returns
    /// what was under way, and tells the lane.
    fn end(mut self, why: Option<Failure>) {
        let now = clock::wall();
        if let Some(flight) = self.next.take() {
            self.lane.put_back(flight.attempt.handle);
        }
        let before_mail = matches!(self.client.phase(), Phase::Mail | Phase::Reset);
        let cut = self.guard.interrupted() == Some(Interrupt::Cut);
        match (self.current.take(), &why) {
            (None, _) => {}
            // Nothing is held against the message: it is tried again at once.
            (Some(flight), _) if cut || (before_mail && self.finished > 0) => {
                self.lane.put_back(flight.attempt.handle);
            }
            (Some(flight), Some(failure)) => {
                let settled = flight.attempt.finish(&failure.reply, &failure.host, now);
                self.core.settled(settled);
            }
            (Some(_), None) => unreachable!("only an idle connection ends without a reason"),
        }
        let fruitless = why.filter(|_| self.finished == 0 && !cut);
        let waiting = self.lane.closed(fruitless.clone(), now);
        if let Some(failure) = fruitless {
            self.core.defer_all(waiting, &failure);
        }
        if self.core.stopping() {
            self.core.purge(|_| true);
        }
        self.core.kick(&self.lane);
    }
}

/// What a message needs of the server that gets it.
#[derive(Clone, Copy, Default)]
pub(super) struct Needs {
    eight_bit: bool,
    smtputf8: bool,
}

impl<S: Store> Core<S> {
    /// What a message needs of a server with this offer. What the sender
    /// declared is believed where the server offers it; where it does not, the
    /// message is looked at: many senders declare more than they use.
    async fn needs(&self, handle: &Handle, offer: Offer) -> Needs {
        let envelope = &handle.mail.envelope;
        let mut needs = Needs {
            eight_bit: envelope.body_type == BodyType::EightBitMime,
            smtputf8: envelope.smtputf8,
        };
        if needs.smtputf8 && !offer.smtputf8 {
            let plain = envelope.sender.is_ascii() && handle.addresses().all(str::is_ascii);
            let head = self.first_part(handle).await;
            needs.smtputf8 = !(plain && header_section(&head).is_ascii());
        }
        if needs.eight_bit && !offer.eight_bit_mime {
            needs.eight_bit = !self.is_seven_bit(handle).await;
        }
        needs
    }

    /// The first part of a body, which holds the headers but for extreme ones;
    /// empty when it cannot be read.
    pub(super) async fn first_part(&self, handle: &Handle) -> Vec<u8> {
        if let Some(body) = handle.body() {
            return header_section(body).to_vec();
        }
        match self.open_body(handle).await {
            Ok(mut reader) => reader.next().await.ok().flatten().unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    async fn is_seven_bit(&self, handle: &Handle) -> bool {
        if let Some(body) = handle.body() {
            return body.is_ascii();
        }
        let Ok(mut reader) = self.open_body(handle).await else { return false };
        loop {
            match reader.next().await {
                Ok(Some(part)) if part.is_ascii() => {}
                Ok(None) => return true,
                _ => return false,
            }
        }
    }
}
