//! One outbound connection: what it delivers, over its [`Wire`]. It takes handles
//! from its lane one after the other, keeps the next transaction's commands
//! behind the body of the one before where the server allows, and returns every
//! handle exactly once.
//!
//! Cost of a message on a busy connection: one write (body and next commands
//! together), one read. A small body is copied behind the commands, a large one
//! is written from where it lies, one that is not in memory is read from the
//! log in parts, when the server takes them and the shard's budget allows
//! (`memory`). Deadlines are the lane's watch's, not timers.

use std::rc::Rc;
use std::sync::Arc;

use super::attempt::{Attempt, trouble, unreadable};
use super::carriage::{Body, COPIED_MAX, Carriage, Chunks, send_chunk, send_from_log};
use super::parcel::{Handle, Knows};
use super::reach::Target;
use super::round::Stray;
use super::secure::Opened;
use super::station::Station;
use super::wire::Wire;
use super::{Core, IDLE_MAX};
use crate::base::limits::client_timeout;
use crate::base::{EnhancedCode, Reply};
use crate::io::clock;
use crate::io::executor::within;
use crate::io::store::Store;
use crate::io::watch::Interrupt;
use crate::policy::governor::Failure;
use crate::policy::tls::Plan;
use crate::proto::smtp::client::{Event, Phase, Recipient, Transaction, Unsupported};
use crate::queue::QueueError;

/// A transaction under way.
struct Flight<S: Store> {
    attempt: Attempt,
    body: Body<S>,
    carriage: Carriage,
}

/// An open connection.
pub(super) struct Connection<S: Store> {
    core: Rc<Core<S>>,
    station: Rc<Station>,
    target: Target,
    wire: Wire,
    /// What was decided about TLS.
    plan: Plan,
    /// A message for another host, to which the connection makes way.
    stray: Option<Stray>,
    /// An attempt that goes on with further recipients.
    rest: Option<Attempt>,
    /// The transaction whose replies are awaited, and the one behind it.
    current: Option<Flight<S>>,
    next: Option<Flight<S>>,
    /// Transactions begun, and those that ended in a reply other than 421.
    begun: u32,
    finished: u32,
    chunks: Chunks,
    /// The 421 that ended the last transaction.
    farewell: Option<Failure>,
    /// It was told to make way for another lane, which counts on that.
    yields: bool,
}

impl<S: Store> Connection<S> {
    pub(super) fn new(
        core: &Rc<Core<S>>,
        station: &Rc<Station>,
        target: Target,
        opened: Opened,
    ) -> Self {
        Connection {
            core: Rc::clone(core),
            station: Rc::clone(station),
            target,
            wire: opened.wire,
            plan: opened.plan,
            stray: None,
            rest: None,
            current: None,
            next: None,
            begun: 0,
            finished: 0,
            chunks: Chunks::default(),
            farewell: None,
            yields: false,
        }
    }

    /// Delivers until the lane has no more, the connection has had its share
    /// of messages, or something fails; `stray` first. A message that this host may
    /// not have ends it too, and is the result, for the next host.
    pub(super) async fn deliver(mut self, stray: Option<Stray>) -> Option<Stray> {
        if let Some(stray) = stray {
            self.take_in(stray).await;
        }
        // What waits may be one message: further connections are for what is
        // left when that has been taken.
        if self.current.is_none() {
            self.begin_next().await;
        }
        self.core.kick(&self.station);
        let why = loop {
            if self.wire.client.may_begin() {
                self.begin_next().await;
            }
            if self.current.is_none() {
                if self.idle().await {
                    continue;
                }
                self.quit().await;
                break self.farewell.take();
            }
            match self.wire.event().await {
                Ok(Event::SendBody) => {
                    if let Err(failure) = self.send_body().await {
                        break Some(failure);
                    }
                }
                Ok(Event::Finished) if self.wire.client.denies_chunks() => {
                    self.take_back();
                    break None;
                }
                Ok(event) => self.note(event),
                Err(failure) => break Some(failure),
            }
        };
        self.end(why)
    }

    /// Begins the next transaction if there is one to begin.
    async fn begin_next(&mut self) {
        let station = Rc::clone(&self.station);
        if let Some(attempt) = self.rest.take() {
            return self.go_on(attempt).await;
        }
        while self.may_go_on() {
            let now = clock::monotonic();
            let handle = match &self.current {
                None => station.lane.take(now),
                // Its other recipients come first.
                Some(flight) if !flight.attempt.rest().is_empty() => None,
                Some(_) => station.lane.take_ahead(now),
            };
            let Some(handle) = handle else { break };
            if self.begin(handle).await {
                break;
            }
        }
    }

    /// True unless the connection has had its share, another lane or a message for
    /// another host needs it, or the server is ending.
    fn may_go_on(&mut self) -> bool {
        if self.stray.is_some() || self.begun >= self.share() || self.core.stopping() {
            return false;
        }
        self.yields = self.yields || (self.begun > 0 && self.station.lane.must_yield());
        !self.yields
    }

    /// Transactions that may go over the connection.
    fn share(&self) -> u32 {
        let most = self.wire.client.offer().limits.mails.unwrap_or(u32::MAX);
        self.station.messages_per_connection().min(most)
    }

    /// Begins with a message that other hosts may not have.
    async fn take_in(&mut self, mut stray: Stray) {
        let Some(handle) = self.station.lane.fetch(stray.number) else { return };
        match self.admits(&handle) {
            Ok(()) => {
                self.begin(handle).await;
            }
            Err(reply) => {
                let said = Failure { reply, host: self.wire.host.clone() };
                stray.turned_away(&self.target, said);
                stray.number = self.station.lane.set_aside(handle);
                self.stray = Some(stray);
            }
        }
    }

    /// Whether a message may go over this connection, as far as TLS goes.
    fn admits(&self, handle: &Handle) -> Result<(), Reply> {
        match handle.requires_tls() {
            true => self.core.admits(&self.station, (&self.wire, self.plan)),
            false => Ok(()),
        }
    }

    /// The message may not go over this connection: it is for another host, if there
    /// is one.
    fn turn_away(&mut self, handle: Handle, reply: Reply) {
        let said = Failure { reply, host: self.wire.host.clone() };
        if self.station.has_other_hosts() {
            let number = self.station.lane.set_aside(handle);
            self.stray = Some(Stray::new(number, &self.target, said));
        } else {
            let attempt = self.attempt(handle);
            self.core.settled(attempt.finish(&said, clock::wall()));
        }
    }

    fn attempt(&self, handle: Handle) -> Attempt {
        let knows = Knows::of(self.wire.client.offer(), self.target.way);
        Attempt::new(handle, knows, self.wire.security())
    }

    /// Begins a transaction; false when the server cannot take the message or
    /// the message cannot be read, and its handle went back.
    async fn begin(&mut self, handle: Handle) -> bool {
        if let Err(reply) = self.admits(&handle) {
            self.turn_away(handle, reply);
            return false;
        }
        match self.open_body(&handle).await {
            Ok(body) => {
                let attempt = self.attempt(handle);
                self.transact(attempt, body).await
            }
            Err(error) => {
                self.core.unreadable(handle, &error);
                false
            }
        }
    }

    /// Begins the next transaction of an attempt, which is for those recipients that
    /// the server did not take in one.
    async fn go_on(&mut self, attempt: Attempt) {
        let most = self.wire.client.offer().limits.mails;
        let failure = if most.is_some_and(|most| self.begun >= most) {
            let text = format!("{} takes no more messages in one session", self.wire.host);
            Failure::ours(trouble(EnhancedCode(4, 5, 3), text))
        } else {
            match self.open_body(&attempt.handle).await {
                Ok(body) => {
                    self.transact(attempt, body).await;
                    return;
                }
                Err(error) => unreadable(error),
            }
        };
        self.core.settled(attempt.finish(&failure, clock::wall()));
    }

    async fn open_body(&self, handle: &Handle) -> Result<Body<S>, QueueError> {
        Ok(match handle.body() {
            Some(_) => Body::Memory,
            None => Body::Log(Box::new(self.core.open_body(handle).await?)),
        })
    }

    /// Begins a transaction for as many recipients of an attempt as the server takes
    /// in one; false when it cannot take the message.
    async fn transact(&mut self, mut attempt: Attempt, body: Body<S>) -> bool {
        let offer = self.wire.client.offer();
        let needs = self.core.needs(&attempt.handle, offer).await;
        let mail = Arc::clone(&attempt.handle.mail);
        // With others waiting, the next one's commands go behind the body, which saves
        // the same round trip.
        let is_alone = self.current.is_none() && self.station.lane.queued() == 0;
        let choice = self.core.choose(&attempt, needs, (&self.wire, &self.target), is_alone);
        let begun = {
            let envelope = &mail.envelope;
            let transaction = Transaction {
                eight_bit: needs.eight_bit,
                smtputf8: needs.smtputf8,
                binary: needs.binary,
                chunked: choice.is_chunked(),
                ..Transaction::of(envelope, attempt.handle.size, clock::wall())
            };
            let address = |index: &u16| &*envelope.recipients[usize::from(*index)];
            let count = offer.limits.fitting(attempt.rest().iter().map(address));
            let recipients = attempt.rest()[..count].iter();
            let recipients = recipients.map(|index| Recipient::of(envelope, usize::from(*index)));
            let begun = self.wire.client.begin(&transaction, recipients, &mut self.wire.out);
            begun.map(|()| count).map_err(Unsupported::reply)
        };
        let count = match begun {
            Ok(count) => count,
            Err(reply) => {
                let failure = Failure { reply, host: self.wire.host.clone() };
                self.core.settled(attempt.finish(&failure, clock::wall()));
                return false;
            }
        };
        attempt.begin(count);
        self.begun += 1;
        self.count_attempt(&body);
        if choice.is_chunked() && self.chunks == Chunks::Unused {
            self.chunks = Chunks::Tried;
        }
        let carriage = choice.begin(&mut self.wire, &mail);
        let flight = Some(Flight { attempt, body, carriage });
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
        let flight = self.current.as_mut().expect("a body is asked for within a transaction");
        if let Carriage::Chunks(chunker) = &mut flight.carriage {
            let mail = Arc::clone(&flight.attempt.handle.mail);
            return send_chunk(&mut self.wire, mail, &mut flight.body, chunker).await;
        }
        match &mut flight.body {
            Body::Memory => {
                let mail = Arc::clone(&flight.attempt.handle.mail);
                let room = (mail.body.len() <= COPIED_MAX)
                    .then(|| self.core.memory.keep(mail.body.len()))
                    .flatten();
                if let Some(room) = room {
                    self.wire.copy(&mail.body, room);
                } else {
                    self.wire.flush().await?;
                    self.wire.write(&mail.body).await?;
                }
            }
            Body::Log(body) => {
                self.wire.flush().await?;
                send_from_log(&mut self.wire, body).await?;
            }
        }
        self.wire.client.body_sent();
        Ok(())
    }

    /// Acts on what the server said of the current transaction.
    fn note(&mut self, event: Event) {
        match event {
            Event::Refused { recipient } => {
                let reply = self.wire.client.reply();
                let flight = self.current.as_mut().expect("a recipient is of a transaction");
                flight.attempt.refused(recipient, reply, &self.wire.host);
            }
            Event::Verdict { recipient } => {
                let reply = self.wire.client.reply();
                let flight = self.current.as_mut().expect("a recipient is of a transaction");
                flight.attempt.decided(recipient, reply, &self.wire.host);
            }
            Event::Finished if self.turned_away_late() => {}
            Event::Finished => {
                let mut flight = self.current.take().expect("a transaction was under way");
                self.current = self.next.take();
                let said = self.wire.peer_said();
                if said.reply.code == 421 {
                    self.farewell = Some(said.clone());
                } else {
                    self.finished += 1;
                    let now = clock::monotonic();
                    self.station.lane.finished(now);
                    if asks_for_less(&said.reply) {
                        self.station.lane.slow_down(now);
                    }
                }
                if flight.carriage.is_chunked() && said.reply.code / 100 == 2 {
                    self.chunks_were_taken();
                }
                flight.attempt.heard(&said);
                if flight.attempt.rest().is_empty() || said.reply.code == 421 {
                    self.core.settled(flight.attempt.finish(&said, clock::wall()));
                } else {
                    self.rest = Some(flight.attempt);
                }
            }
            _ => unreachable!("handled where events are read, or never asked for"),
        }
    }

    /// The server took a message in chunks.
    fn chunks_were_taken(&mut self) {
        self.core.counters.borrow_mut().outbound_chunked += 1;
        if self.chunks != Chunks::Work {
            self.chunks = Chunks::Work;
            self.core.chunks_work(&self.target);
        }
    }

    /// The server does not know the chunks that it offers to take: nothing is held
    /// against the message, which goes without them at once. Where that would come out
    /// as before, or some of its recipients have it already, it waits.
    fn take_back(&mut self) {
        let flight = self.current.take().expect("a transaction was under way");
        let said = self.wire.peer_said();
        let is_remembered = self.core.chunks_fail(&self.target, &said.reply.to_string());
        self.chunks = Chunks::Unused;
        if is_remembered && flight.attempt.is_first() {
            self.station.lane.put_back(flight.attempt.handle);
        } else {
            let text = format!("{} does not know BDAT, which it offers: {}", said.host, said.reply);
            let failure = Failure::ours(trouble(EnhancedCode(4, 5, 1), text));
            self.core.settled(flight.attempt.finish(&failure, clock::wall()));
        }
    }

    /// True when the server, having served before, ends the connection with
    /// 421 instead of taking MAIL: the message is not to blame, and goes back.
    fn turned_away_late(&self) -> bool {
        self.wire.client.phase() == Phase::Mail
            && self.wire.client.code() == 421
            && self.finished > 0
    }

    /// Waits for the lane to have more; false when the connection shall close.
    async fn idle(&mut self) -> bool {
        if !self.wire.client.may_begin() || !self.may_go_on() {
            return false;
        }
        let station = Rc::clone(&self.station);
        let idle = station.lane.idle(clock::monotonic());
        // Something may have come between the last look and now; and when the
        // next message may go is asked for here.
        self.core.kick(&station);
        idle.signal.wait().await;
        let has_work = || station.lane.has_work(clock::monotonic(), IDLE_MAX);
        !self.core.stopping() && (!idle.is_expired() || has_work())
    }

    /// Says goodbye and waits a moment for the answer.
    async fn quit(&mut self) {
        self.wire.client.quit(&mut self.wire.out);
        if self.wire.client.phase() == Phase::Quit {
            // Whatever comes of it, the connection ends.
            let goodbye = async {
                let _ = self.wire.event().await;
                self.wire.say_goodbye().await;
            };
            within(client_timeout::QUIT.min(IDLE_MAX), goodbye).await;
        }
    }

    /// The connection has ended, for this reason if it was not idle: returns
    /// what was under way, and tells the lane. The result is for the next host.
    fn end(mut self, why: Option<Failure>) -> Option<Stray> {
        let now = clock::wall();
        let mut stray = self.stray.take();
        if why.is_some() {
            // Whatever else there is about the host comes first.
            let handle = stray.take().and_then(|stray| self.station.lane.fetch(stray.number));
            handle.into_iter().for_each(|handle| self.station.lane.put_back(handle));
        }
        if let Some(flight) = self.next.take() {
            self.station.lane.put_back(flight.attempt.handle);
        }
        if let Some(attempt) = self.rest.take() {
            let text = format!("{} ended the session between two transactions", self.wire.host);
            let lost = Failure::ours(trouble(EnhancedCode(4, 4, 2), text));
            let failure = why.as_ref().unwrap_or(&lost);
            self.core.settled(attempt.finish(failure, now));
        }
        let before_mail = matches!(self.wire.client.phase(), Phase::Mail | Phase::Reset);
        let cut = self.wire.interrupted() == Some(Interrupt::Cut);
        match (self.current.take(), &why) {
            (None, _) => {}
            // Nothing is held against the message: it is tried again at once.
            (Some(flight), _) if cut || (before_mail && self.finished > 0) => {
                self.station.lane.put_back(flight.attempt.handle);
            }
            (Some(flight), Some(failure)) => {
                self.core.settled(flight.attempt.finish(failure, now));
            }
            (Some(_), None) => unreachable!("only an idle connection ends without a reason"),
        }
        if let Some(failure) = why.as_ref().filter(|_| self.chunks == Chunks::Tried && !cut) {
            self.core.chunks_fail(&self.target, &failure.reply.text);
        }
        let fruitful = self.finished > 0 || self.wire.refused_early;
        let steady_now = clock::monotonic();
        // One that was closed between messages may have been idle for too long.
        if self.finished > 0 && why.is_some() && !cut && !before_mail {
            self.station.lane.slow_down(steady_now);
        }
        let fruitless = why.filter(|_| !fruitful && !cut);
        if fruitless.is_some() {
            self.station.failed(&self.target, steady_now);
        }
        let Connection { core, station, wire, .. } = self;
        // The socket goes first: another connection may be opened at once.
        drop(wire);
        if stray.is_some() && !core.stopping() {
            station.lane.moves_on(steady_now);
            // What waits has no part in that.
            core.kick(&station);
            return stray;
        }
        let waiting = station.lane.closed(fruitless, steady_now);
        waiting.into_iter().for_each(|handle| core.release(handle));
        if core.stopping() {
            core.purge(|_| true);
        }
        core.kick(&station);
        None
    }
}

/// True for the replies of a host that gets more than it wants: its policy
/// (4.7.x) or its load (4.3.2, 4.4.5) stands against the message, for now.
fn asks_for_less(reply: &Reply) -> bool {
    reply.code / 100 == 4
        && matches!(
            reply.enhanced,
            Some(EnhancedCode(4, 7, _) | EnhancedCode(4, 3, 2) | EnhancedCode(4, 4, 5))
        )
}
