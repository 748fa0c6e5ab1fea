//! One session of the sink: drives the SMTP server engine over a stream, and
//! takes, refuses or drops what comes.
//!
//! A session costs its replies: the message is looked through once for its end,
//! where it was received, and with `--discard` nothing else is done with it.

use std::io::{self, Write};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringpost::base::{EnhancedCode, Place, QueueId, Reply, ShardId};
use ringpost::io::executor::sleep;
use ringpost::io::tls::Conn;
use ringpost::io::watch::Guard;
use ringpost::proto::scan::{Scan, Scanner};
use ringpost::proto::smtp::server::{BodyVerdict, Server, Step, Transaction, Verdict, write_reply};
use ringpost::receive::buffer::Buffer;

use super::chunks::Chunks;
use super::mood::{Act, Mood};
use super::receipt::{Delivery, Head, Sum};
use super::worker::Worker;
use crate::latency::ns;
use crate::text::note;

/// What is known of a message while it comes in.
#[derive(Default)]
pub(super) struct Receipt {
    sum: Option<Sum>,
    head: Option<Head>,
    delivery: Option<Delivery>,
    /// What went wrong here, not at the client's.
    failure: Option<io::Error>,
}

/// A session.
pub struct Session {
    pub(super) worker: Rc<Worker>,
    pub(super) stream: Conn,
    pub(super) guard: Guard,
    pub(super) buffer: Buffer,
    pub(super) out: Vec<u8>,
    client: IpAddr,
    pub(super) mood: Mood,
    /// A message of which more chunks are to come.
    pub(super) chunks: Option<Box<Chunks>>,
}

/// What the end of a message came to.
pub(super) enum Ending {
    Verdict(BodyVerdict),
    /// Answered with half of what this leads to, and closed.
    Half(BodyVerdict),
    /// Closed without an answer.
    Gone,
}

impl Session {
    /// A session on a connection just accepted.
    pub fn new(worker: Rc<Worker>, stream: Conn, client: IpAddr) -> Self {
        let guard = worker.watch.guard(stream.hangup());
        let buffer = Buffer::new(Rc::clone(&worker.pool));
        let mood = Mood::new(Rc::clone(&worker.habits), worker.next_connection(), client);
        let (out, chunks) = (Vec::new(), None);
        Session { worker, stream, guard, buffer, out, client, mood, chunks }
    }

    /// Serves until the client or the sink closes.
    pub async fn run(mut self) {
        // What the kernel says about a connection that broke interests nobody.
        if !self.secure_at_once().await.unwrap_or(false) {
            return;
        }
        if self.mood.is_calm() {
            let server = self.server();
            let _ = self.serve(server).await;
        } else {
            let turned_away = self.worker.habits.limits.enter(self.client);
            let act = self.mood.connected(turned_away);
            let _ = self.greet_and_serve(act).await;
            self.worker.habits.limits.leave(self.client);
        }
        if self.stream.tls().is_some() {
            self.guard.arm(self.worker.patience);
            self.stream.close().await;
        }
    }

    /// A session that begins, its greeting written.
    fn server(&mut self) -> Server {
        let mut server = Server::new(Arc::clone(&self.worker.settings), &mut self.out);
        if self.stream.tls().is_some() {
            server = server.over_tls();
            self.trust(&mut server);
        }
        server
    }

    /// Greets as `act` says, and serves if it is not against it.
    async fn greet_and_serve(&mut self, act: Act) -> io::Result<()> {
        self.wait(act.wait).await;
        if act.drop {
            return Ok(());
        }
        if let Some(reply) = &act.refuse {
            write_reply(reply, &mut self.out);
            self.out.truncate(if act.half { self.out.len() / 2 } else { self.out.len() });
            return self.flush().await;
        }
        let server = self.server();
        if act.half {
            self.out.truncate(self.out.len() / 2);
            return self.flush().await;
        }
        self.serve(server).await
    }

    /// Waits, if there is anything to wait for.
    async fn wait(&self, span: Duration) {
        if !span.is_zero() {
            self.guard.disarm();
            sleep(span).await;
        }
    }

    async fn serve(&mut self, mut server: Server) -> io::Result<()> {
        loop {
            let (mut next, used, step) = server.step(self.buffer.filled(), &mut self.out);
            match step {
                Step::NeedInput => {
                    self.buffer.consume(used);
                    self.flush().await?;
                    // Who waits for a command holds little.
                    self.buffer.shrink();
                    if !self.read().await? {
                        return Ok(());
                    }
                }
                Step::Authenticate => {
                    self.buffer.consume(used);
                    next = self.identify(next);
                }
                Step::Flush => {
                    self.buffer.consume(used);
                    self.flush().await?;
                }
                Step::Ask(_) if self.mood.is_calm() => {
                    self.buffer.consume(used);
                    next = next.answer(Verdict::Accept, &mut self.out);
                }
                Step::Ask(question) => {
                    let sender = next.transaction().map_or("", |it| it.sender.as_str());
                    let act = self.mood.asked(&question, sender);
                    self.buffer.consume(used);
                    self.wait(act.wait).await;
                    if act.drop {
                        return Ok(());
                    }
                    let before = self.out.len();
                    next = next.answer(verdict(act.refuse), &mut self.out);
                    if act.half {
                        self.out.truncate(before + (self.out.len() - before) / 2);
                        return self.flush().await;
                    }
                }
                Step::Body => {
                    self.buffer.consume(used);
                    self.flush().await?;
                    let transaction = next.take_transaction();
                    let ending = self.message(&transaction).await?;
                    let Some(answered) = self.end_body(next, Some(ending)).await? else {
                        return Ok(());
                    };
                    next = answered;
                }
                Step::StartTls => {
                    let Some(secured) = self.start_tls(next).await? else { return Ok(()) };
                    next = secured;
                }
                Step::Chunk { octets, first, last } => {
                    self.buffer.consume(used);
                    self.flush().await?;
                    let ending = self.chunk(&mut next, octets, first, last).await?;
                    let Some(answered) = self.end_body(next, ending).await? else {
                        return Ok(());
                    };
                    next = answered;
                }
                Step::Close => return self.flush().await,
            }
            server = next;
        }
    }

    /// Says what a message came to, or without an ending that a chunk of it was taken;
    /// `None` if the connection is over with it.
    async fn end_body(
        &mut self,
        server: Server,
        ending: Option<Ending>,
    ) -> io::Result<Option<Server>> {
        match ending {
            None => Ok(Some(server.chunk_taken(&mut self.out))),
            Some(Ending::Verdict(verdict)) => Ok(Some(server.body_done(verdict, &mut self.out))),
            Some(Ending::Half(verdict)) => {
                let _ = server.body_done(verdict, &mut self.out);
                self.say_half().await?;
                Ok(None)
            }
            Some(Ending::Gone) => Ok(None),
        }
    }

    /// Says half of what was to be said.
    async fn say_half(&mut self) -> io::Result<()> {
        self.out.truncate(self.out.len() / 2);
        self.flush().await
    }

    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.stream.write_all(&self.out).await?;
            self.out.clear();
        }
        Ok(())
    }

    /// Reads more behind what is not used; false at the end of the stream.
    pub(super) async fn read(&mut self) -> io::Result<bool> {
        if self.buffer.room().is_empty() {
            self.buffer.compact();
            if self.buffer.room().is_empty() {
                self.buffer.grow();
            }
        }
        self.guard.arm(self.worker.patience);
        let count = self.stream.read(self.buffer.room()).await?;
        self.buffer.advance(count);
        Ok(count > 0)
    }

    /// Takes a message in, up to its end.
    async fn message(&mut self, transaction: &Transaction) -> io::Result<Ending> {
        let breaks = !self.mood.is_calm() && self.mood.breaks_body();
        let mut receipt = self.worker.begin(transaction);
        let mut scanner = Scanner::new();
        self.buffer.want_large();
        loop {
            let chunk = self.buffer.filled();
            let (len, ended) = match scanner.scan(chunk) {
                Scan::More => (chunk.len(), false),
                Scan::End { len } => (len, true),
            };
            if let Some(receipt) = &mut receipt {
                receipt.take(&chunk[..len]);
            }
            self.buffer.consume(len);
            if breaks && len > 0 {
                return Ok(Ending::Gone);
            }
            if ended {
                break;
            }
            if !self.read().await? {
                return Ok(Ending::Gone);
            }
        }
        self.settle(transaction, receipt, scanner.size()).await
    }

    /// Answers a message that is whole.
    pub(super) async fn settle(
        &mut self,
        transaction: &Transaction,
        receipt: Option<Receipt>,
        size: u64,
    ) -> io::Result<Ending> {
        let mut half = false;
        if !self.mood.is_calm() {
            let act = self.mood.ended();
            self.wait(act.wait).await;
            if act.drop {
                return Ok(Ending::Gone);
            }
            if let Some(reply) = act.refuse {
                let verdict = match reply.code {
                    421 => BodyVerdict::Close(reply),
                    _ => BodyVerdict::Refuse(reply),
                };
                return Ok(if act.half { Ending::Half(verdict) } else { Ending::Verdict(verdict) });
            }
            half = act.half;
        }
        let verdict = self.keep(transaction, receipt, size);
        Ok(if half { Ending::Half(verdict) } else { Ending::Verdict(verdict) })
    }

    /// Takes a message that nothing speaks against.
    fn keep(&self, transaction: &Transaction, receipt: Option<Receipt>, size: u64) -> BodyVerdict {
        if size > self.worker.settings.message_size() {
            let text = "Message larger than this sink takes";
            return BodyVerdict::Refuse(Reply::new(552, EnhancedCode(5, 3, 4), text));
        }
        if let Some(Err(error)) = receipt.map(|it| it.finish(transaction, size, &self.worker)) {
            note(format_args!("ringpost-sink: a message could not be kept: {error}"));
            let text = "The sink cannot keep the message";
            return BodyVerdict::Refuse(Reply::new(451, EnhancedCode(4, 3, 0), text));
        }
        let count = self.worker.count_taken(size);
        let place = Place { segment: (count >> 32) as u32, offset: count as u32 };
        BodyVerdict::Queued(QueueId { log: ShardId(self.worker.index), place })
    }
}

fn verdict(refusal: Option<Reply>) -> Verdict {
    match refusal {
        None => Verdict::Accept,
        Some(reply) if reply.code == 421 => Verdict::Close(reply),
        Some(reply) => Verdict::Refuse(reply),
    }
}

impl Receipt {
    pub(super) fn take(&mut self, chunk: &[u8]) {
        if let Some(sum) = &mut self.sum {
            sum.take(chunk);
        }
        if let Some(head) = &mut self.head {
            head.take(chunk);
        }
        if let Some(delivery) = &mut self.delivery
            && let Err(error) = delivery.take(chunk)
        {
            self.failure = Some(error);
            self.delivery = None;
        }
    }

    /// The message was taken: notes it wherever it is to be noted.
    fn finish(self, transaction: &Transaction, size: u64, worker: &Worker) -> io::Result<()> {
        if let Some(error) = self.failure {
            return Err(error);
        }
        if let Some(delivery) = self.delivery {
            delivery.finish()?;
        }
        if let Some(head) = self.head {
            let recipients = transaction.recipients.join(", ");
            let subject = head.subject();
            let sender = &transaction.sender;
            // Whoever closed standard output does not want to read it.
            let _ = writeln!(io::stdout(), "{size:>9}  <{sender}> -> {recipients}  {subject}");
        }
        if let (Some(sum), Some(ledger)) = (self.sum, worker.ledger.borrow_mut().as_mut()) {
            let (mark, crc) = sum.result();
            let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let recipients = transaction.recipients.iter().map(|text| text.as_bytes());
            ledger.note(mark, ns(unix), size, crc, recipients)?;
        }
        Ok(())
    }
}

impl Worker {
    /// What is to be known of a message; `None` if nothing.
    pub(super) fn begin(&self, transaction: &Transaction) -> Option<Receipt> {
        if self.discard {
            return None;
        }
        let mut receipt = Receipt {
            sum: self.ledger.borrow().is_some().then(Sum::default),
            head: self.prints.then(Head::default),
            ..Receipt::default()
        };
        if let Some(maildir) = &self.maildir {
            match maildir.begin(&transaction.sender, &transaction.recipients) {
                Ok(delivery) => receipt.delivery = Some(delivery),
                Err(error) => receipt.failure = Some(error),
            }
        }
        Some(receipt)
    }
}
