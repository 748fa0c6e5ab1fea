//! One connection of the load generator: drives the SMTP client engine over a
//! stream, one message after the other.
//!
//! On the way of a message nothing is allocated or formatted: commands and the
//! message go into one buffer that lives as long as the connection and leave
//! with one write; a reply costs one read, a message two readings of the clock;
//! the deadline for a reply is one store (`io::watch`).

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringpost::io::executor::sleep;
use ringpost::io::net::Stream;
use ringpost::io::tls::Conn;
use ringpost::io::watch::{Guard, Interrupt};
use ringpost::proto::smtp::client::{Client, End, Event, Transaction};

use super::body::COPIED_MAX;
use super::gate::Turn;
use super::opening::Opening;
use super::plan::Plan;
use super::schedule::Ticket;
use super::worker::Worker;
use crate::latency::{self, ns};
use crate::message::Mark;
use crate::pattern::Counters;

/// Room for replies; holds any line that the engine takes.
const INPUT: usize = 4096;

const _: () = assert!(INPUT >= ringpost::base::limits::PEER_REPLY_LINE_MAX);

/// How often a second a slow reader reads, unless that is less than an octet.
const SLOW_READS_PER_S: u32 = 10;

/// A greeting that has not come for so long by the end of the run is told of.
const GREETING: Duration = Duration::from_secs(1);

/// How it is told of.
const NOT_GREETED: &str = "the run was over before it came";

/// A message under way.
pub(super) struct Sending {
    pub(super) ticket: Ticket,
    /// When it began, or should have.
    start: Instant,
    /// Its recipients, when they are its own.
    recipients: Option<Vec<String>>,
    /// Indexes of recipients that were refused.
    refused: Vec<usize>,
    pub(super) body_sent: bool,
    /// Octets of it as sent, without the terminator.
    size: u64,
    /// CRC32C of what follows its mark, once that was sent.
    pub(super) crc: u32,
}

/// A connection and its client.
pub struct Connection {
    /// Its number within the run.
    pub(super) number: u64,
    /// Octets a second that it reads at most.
    reads_per_s: Option<u32>,
    pub(super) worker: Rc<Worker>,
    pub(super) plan: Arc<Plan>,
    pub(super) stream: Conn,
    pub(super) guard: Guard,
    pub(super) client: Client,
    input: Box<[u8]>,
    filled: (usize, usize),
    pub(super) out: Vec<u8>,
    pub(super) current: Option<Sending>,
    pub(super) next: Option<Sending>,
    /// What comes before mail.
    pub(super) opening: Opening,
    /// The step that it broke off at, unless that is the client's.
    pub(super) stage: Option<&'static str>,
    begun: u64,
    /// When connected, and the right to be on the way, until the first bytes have come.
    ungreeted: Option<(Instant, Option<Turn>)>,
    heard_421: bool,
    answered: bool,
}

impl Connection {
    /// Connects; `turn` is given back when the server has greeted.
    ///
    /// # Errors
    /// Those of connect(2).
    pub async fn open(worker: Rc<Worker>, turn: Option<Turn>) -> io::Result<Self> {
        let plan = Arc::clone(&worker.plan);
        let number = worker.next_connection();
        let start = Instant::now();
        let patience = worker.patience(start);
        let stream = match plan.bind.len() {
            0 => Stream::connect(plan.target, patience).await?,
            count => {
                let source = plan.bind[(number % count as u64) as usize];
                Stream::connect_from(source, plan.target, patience).await?
            }
        };
        let connected = Instant::now();
        latency::record(&mut worker.figures.borrow_mut().connect, ns(connected - start));
        let guard = worker.watch.guard(stream.hangup());
        guard.set_idle(true);
        Ok(Connection {
            number,
            reads_per_s: plan
                .slow_reader
                .and_then(|slow| slow.takes(number).then_some(slow.octets_per_s)),
            client: Client::new(&plan.helo),
            out: Vec::with_capacity(1024 + plan.wire_max().min(COPIED_MAX)),
            worker,
            plan,
            stream: Conn::plain(stream),
            guard,
            input: vec![0; INPUT].into_boxed_slice(),
            filled: (0, 0),
            current: None,
            next: None,
            opening: Opening::default(),
            stage: None,
            begun: 0,
            ungreeted: Some((connected, turn)),
            heard_421: false,
            answered: false,
        })
    }

    /// Sends messages until the run is over or the connection has ended; false
    /// if no message was answered on it.
    pub async fn run(mut self) -> bool {
        if let Err(error) = self.drive().await {
            let what = match self.guard.interrupted() {
                Some(Interrupt::TimedOut) => Some("timed out".to_owned()),
                Some(Interrupt::Drained) => self.is_overdue().then(|| NOT_GREETED.to_owned()),
                _ => Some(error.to_string()),
            };
            let stage = self.stage.unwrap_or(self.client.phase().text());
            if let Some(what) = what {
                self.worker.figures.borrow_mut().error(stage, what);
            }
        }
        let unanswered = self.current.iter().chain(&self.next).count() as u64;
        self.worker.figures.borrow_mut().unanswered += unanswered;
        if self.stream.tls().is_some() {
            self.guard.arm(self.plan.timeout);
            self.stream.close().await;
        }
        self.answered
    }

    /// True if the greeting has taken longer than servers take that are well.
    fn is_overdue(&self) -> bool {
        self.ungreeted.as_ref().is_some_and(|(since, _)| since.elapsed() > GREETING)
    }

    async fn drive(&mut self) -> io::Result<()> {
        self.secure_at_once().await?;
        loop {
            let (start, end) = self.filled;
            let (used, event) = self.client.step(&self.input[start..end], &mut self.out);
            self.filled.0 += used;
            match event {
                Event::NeedInput => self.exchange().await?,
                Event::Ready => self.ready().await?,
                Event::Handshake => self.secure().await?,
                Event::NoTls => self.not_secured(),
                Event::Challenge => self.challenged(),
                Event::Authenticated => self.authenticated().await?,
                Event::NotAuthenticated => self.not_authenticated(),
                Event::Refused { recipient } => {
                    self.worker.figures.borrow_mut().refusal("RCPT", &self.client.reply());
                    if let Some(current) = &mut self.current {
                        current.refused.push(recipient);
                    }
                }
                Event::SendBody => self.send_body().await?,
                Event::Finished => {
                    let mut now = Instant::now();
                    self.finished(now)?;
                    if !self.plan.think_time.is_zero() {
                        now = self.think(now).await;
                    }
                    self.begin_or_quit(now).await?;
                }
                Event::Closed(end) => {
                    self.closed(end);
                    return Ok(());
                }
                Event::Verdict { .. } => unreachable!("LMTP is not spoken"),
            }
        }
    }

    /// Writes what there is to write and reads what comes.
    async fn exchange(&mut self) -> io::Result<()> {
        self.guard.arm(self.plan.timeout);
        if !self.out.is_empty() {
            self.stream.write_all(&self.out).await?;
            self.out.clear();
        }
        let (start, end) = self.filled;
        self.input.copy_within(start..end, 0);
        self.filled = (0, end - start);
        let count = match self.reads_per_s {
            None => self.stream.read(&mut self.input[end - start..]).await?,
            Some(rate) => self.read_slowly(end - start, rate).await?,
        };
        if count == 0 {
            let text = "the server closed the connection";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        self.filled.1 += count;
        if let Some((connected, _turn)) = self.ungreeted.take() {
            self.guard.set_idle(false);
            if self.plan.tls.is_none() {
                self.worker.heard_from_server();
            }
            latency::record(
                &mut self.worker.figures.borrow_mut().first_reply,
                ns(connected.elapsed()),
            );
        }
        Ok(())
    }

    /// Reads a little behind the first `filled` octets of the input, and then
    /// takes as long as that many octets take at `rate` a second.
    async fn read_slowly(&mut self, filled: usize, rate: u32) -> io::Result<usize> {
        let most = (rate / SLOW_READS_PER_S).max(1) as usize;
        let room = self.input.len().min(filled + most);
        let count = self.stream.read(&mut self.input[filled..room]).await?;
        self.guard.disarm();
        sleep(Duration::from_secs_f64(count as f64 / f64::from(rate))).await;
        Ok(count)
    }

    /// Waits before the next message as its sender would, but not past the end
    /// of the run; returns what time it is then.
    async fn think(&mut self, now: Instant) -> Instant {
        let span = self.plan.think_time.at(self.worker.draw.borrow_mut().unit());
        self.guard.disarm();
        sleep(self.worker.schedule.until_end(now).map_or(span, |left| span.min(left))).await;
        Instant::now()
    }

    /// Begins the next message when it is due, unless one was begun already
    /// behind the last; says goodbye if there is none.
    pub(super) async fn begin_or_quit(&mut self, mut now: Instant) -> io::Result<()> {
        while self.client.may_begin() {
            if self.is_worn_out() {
                self.client.quit(&mut self.out);
                return Ok(());
            }
            let Some(ticket) = self.worker.schedule.take(now) else {
                self.client.quit(&mut self.out);
                return Ok(());
            };
            if let Some(due) = ticket.due
                && due > now
            {
                self.guard.disarm();
                sleep(due - now).await;
                now = due;
            }
            self.current = self.begin(ticket, now);
            if self.current.is_some() {
                return Ok(());
            }
        }
        Ok(())
    }

    pub(super) fn is_worn_out(&self) -> bool {
        self.plan.messages_per_connection.is_some_and(|most| self.begun >= most)
    }

    /// Begins a message; `None` if the server does not offer what it needs.
    pub(super) fn begin(&mut self, ticket: Ticket, now: Instant) -> Option<Sending> {
        let mail = self.plan.mail(ticket.seq);
        let counters = Counters { n: ticket.seq, connection: self.number, recipient: 0 };
        let own = match &self.plan.envelope.fixed {
            Some(_) => None,
            None => Some(self.plan.envelope.of(counters)),
        };
        let (sender, recipients) =
            own.as_ref().or(self.plan.envelope.fixed.as_ref()).expect("one of the two");
        let size = mail.size(&counters);
        let eight_bit = mail.template.eight_bit;
        let chunked = self.plan.bdat;
        let transaction =
            Transaction { sender, size, eight_bit, chunked, ..Transaction::default() };
        let recipients = recipients.iter().map(String::as_str);
        match self.client.begin(&transaction, recipients, &mut self.out) {
            Ok(()) => {
                self.begun += 1;
                let mut sending = Sending {
                    ticket,
                    start: ticket.due.unwrap_or(now),
                    recipients: own.map(|(_, recipients)| recipients),
                    refused: Vec::new(),
                    body_sent: false,
                    size,
                    crc: mail.template.crc,
                };
                self.send_ahead(&mut sending);
                Some(sending)
            }
            Err(unsupported) => {
                let mut figures = self.worker.figures.borrow_mut();
                figures.refused += 1;
                figures.refusal("before MAIL", &unsupported.reply());
                None
            }
        }
    }

    /// Counts the message that is over. One that was begun behind it in the
    /// closed loop starts now: the wait for its turn was the other's.
    fn finished(&mut self, now: Instant) -> io::Result<()> {
        let done = self.current.take().expect("a message was under way");
        self.current = self.next.take();
        self.answered = true;
        if let Some(current) = &mut self.current
            && current.ticket.due.is_none()
        {
            current.start = now;
        }
        let code = self.client.code();
        let all_refused = done.refused.len() == self.plan.envelope.count();
        if done.body_sent && code / 100 == 2 {
            return self.accepted(&done, now);
        }
        let mut figures = self.worker.figures.borrow_mut();
        figures.refused += 1;
        if !all_refused {
            let stage = if done.body_sent { "end of data" } else { "MAIL or DATA" };
            figures.refusal(stage, &self.client.reply());
            self.heard_421 = code == 421;
        }
        Ok(())
    }

    fn accepted(&mut self, done: &Sending, now: Instant) -> io::Result<()> {
        let took = ns(now - done.start);
        let mut figures = self.worker.figures.borrow_mut();
        let parts = [done.start, now].map(|at| self.worker.part_of(at));
        figures.accept(now, took, done.size, parts);
        if done.start >= self.worker.measure_from {
            let taken = self.plan.envelope.count() - done.refused.len();
            figures.accepted += 1;
            figures.accepted_bytes += done.size;
            figures.accepted_recipients += taken as u64;
            latency::record(&mut figures.accept, took);
        }
        drop(figures);
        self.worker.count_accepted();
        if let Some(ledger) = self.worker.ledger.borrow_mut().as_mut() {
            let mark = Mark { run: self.plan.run, seq: done.ticket.seq };
            let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let fixed = self.plan.envelope.fixed.as_ref().map(|(_, recipients)| recipients);
            let all = done.recipients.as_ref().or(fixed).expect("one of the two");
            let accepted = all.iter().enumerate();
            let accepted = accepted.filter(|(index, _)| !done.refused.contains(index));
            let recipients = accepted.map(|(_, recipient)| recipient.as_bytes());
            ledger.note(Some(mark), ns(unix), took, done.crc, recipients)?;
        }
        Ok(())
    }

    fn closed(&self, end: End) {
        let mut figures = self.worker.figures.borrow_mut();
        match end {
            End::Quit => {}
            End::Unavailable if self.heard_421 => {}
            End::TurnedAway | End::Unavailable => {
                figures.refusal(self.client.phase().text(), &self.client.reply());
            }
            _ => figures.error(self.client.phase().text(), format!("the server {}", end.text())),
        }
    }
}
