//! Messages given to a server again, over SMTP, with the envelopes they had. The
//! protocol is the engine that the server delivers with (`proto::smtp::client`);
//! here is only the socket, and a limit to every wait on it.
//!
//! A message goes to the recipients that are left, in groups that every server
//! must take at once. What is answered is reported for each recipient; the log
//! is not changed, so that to do it twice sends everything twice.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringpost::base::limits::{PEER_REPLY_LINE_MAX, RECIPIENTS_MIN};
use ringpost::base::{QueueId, UnixMillis};
use ringpost::proto::smtp::client::{Client, Event, Recipient, Transaction};

use super::mail::{Mail, Reader, Trouble};
use super::recover::Taker;
use super::replay::Seen;

/// How long a server that breaks off a message may take to say why.
const LAST_WORD: Duration = Duration::from_secs(2);

/// Gives messages to a server.
pub(super) struct Resend {
    target: String,
    timeout: Duration,
    held: bool,
    connection: Option<Connection>,
}

/// What the server said to one group of recipients.
#[derive(Default)]
struct Answers {
    /// Recipients refused by themselves, by their index in the group.
    refused: Vec<(usize, String)>,
    /// The answer to the message; for all other recipients.
    message: Option<(bool, String)>,
}

impl Resend {
    /// Will connect to `target`, `HOST:PORT`, and wait `timeout` at most for
    /// each answer. Recipients that are held, or that their senders want kept for
    /// later, are left out unless `held`.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub(super) fn new(target: &str, timeout: Duration, held: bool) -> io::Result<Self> {
        let target = target.to_owned();
        let mut resend = Resend { target, timeout, held, connection: None };
        // Before anything is read: most mistakes show here.
        resend.connection()?;
        Ok(resend)
    }

    /// The connection, made anew if the server ended the last one.
    fn connection(&mut self) -> io::Result<&mut Connection> {
        let ready = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.target, self.timeout).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", self.target))
            })?,
        };
        Ok(self.connection.insert(ready))
    }

    /// Offers the message to one group of recipients.
    fn offer(
        &mut self,
        mail: &Mail,
        group: &[Recipient<'_>],
        reader: &mut Reader<'_>,
    ) -> Result<Answers, Trouble> {
        let connection = self.connection()?;
        let mut answers = Answers::default();
        let result = connection.transact(mail, group, reader, &mut answers);
        if !connection.client.may_begin() {
            self.connection = None;
        }
        match result {
            Ok(()) => Ok(answers),
            Err(Trouble::Io(error)) => {
                // This message may have arrived or not; the next one gets a
                // connection of its own.
                self.connection = None;
                let why = format!("no answer: {error}; it may have been taken all the same");
                answers.message = Some((false, why));
                Ok(answers)
            }
            Err(broken) => {
                self.connection = None;
                Err(broken)
            }
        }
    }
}

impl Taker for Resend {
    fn take(
        &mut self,
        id: QueueId,
        seen: &Seen,
        mail: &Mail,
        reader: &mut Reader<'_>,
        out: &mut dyn Write,
    ) -> Result<bool, Trouble> {
        if !mail.ends {
            // What follows its end would be taken for commands.
            return Err(Trouble::Broken("its body does not end as a body must"));
        }
        let recipients = (0..mail.envelope.recipients.len()).zip(&seen.recipients);
        let (mut wanted, mut held) = (Vec::new(), 0);
        for (index, state) in recipients.filter(|(_, state)| !state.done) {
            let is_kept = state.postponed && state.next_ms > now().0;
            if (state.held || is_kept) && !self.held {
                held += 1;
            } else {
                wanted.push(Recipient::of(&mail.envelope, index));
            }
        }
        if held > 0 {
            writeln!(out, "{id}: {held} recipients are held, and were not sent to")?;
        }
        let mut good = held == 0;
        for group in wanted.chunks(RECIPIENTS_MIN) {
            let answers = self.offer(mail, group, reader)?;
            for (index, reply) in &answers.refused {
                good = false;
                writeln!(out, "{id}: <{}> refused: {reply}", group[*index].address)?;
            }
            let others = group.len() - answers.refused.len();
            match &answers.message {
                Some((true, reply)) => writeln!(out, "{id}: taken for {others}: {reply}")?,
                Some((false, reply)) => {
                    good = false;
                    writeln!(out, "{id}: not taken for {others}: {reply}")?;
                }
                None => {}
            }
        }
        Ok(good)
    }

    fn finish(&mut self, _: u64) -> String {
        if let Some(mut connection) = self.connection.take() {
            connection.quit();
        }
        format!("given to {}", self.target)
    }
}

/// A connection and its client.
struct Connection {
    stream: TcpStream,
    client: Client,
    timeout: Duration,
    input: Vec<u8>,
    out: Vec<u8>,
}

impl Connection {
    fn open(target: &str, timeout: Duration) -> io::Result<Self> {
        let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for address in target.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => {
                    // A client without a name says its address (RFC 5321, 4.1.3).
                    let helo = match stream.local_addr()?.ip() {
                        IpAddr::V4(ip) => format!("[{ip}]"),
                        IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
                    };
                    let client = Client::new(&helo);
                    let (input, out) = (Vec::new(), Vec::new());
                    let mut connection = Connection { stream, client, timeout, input, out };
                    connection.greet()?;
                    return Ok(connection);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn greet(&mut self) -> io::Result<()> {
        match self.next()? {
            Event::Ready => Ok(()),
            event => Err(self.unexpected(event)),
        }
    }

    /// The next event that the server brings about. The wait for each is
    /// limited, however few bytes come at a time.
    fn next(&mut self) -> io::Result<Event> {
        let mut deadline = Instant::now() + self.timeout;
        loop {
            let (used, event) = self.client.step(&self.input, &mut self.out);
            self.input.drain(..used);
            if event != Event::NeedInput {
                return Ok(event);
            }
            if !self.out.is_empty() {
                let out = std::mem::take(&mut self.out);
                self.write(&out)?;
                deadline = Instant::now() + self.timeout;
            }
            self.read(deadline)?;
        }
    }

    fn read(&mut self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(self.timed_out());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut buffer = [0; PEER_REPLY_LINE_MAX];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "the connection was closed")),
            Ok(count) => {
                self.input.extend_from_slice(&buffer[..count]);
                Ok(())
            }
            Err(error) if is_timeout(&error) => Err(self.timed_out()),
            Err(error) => Err(error),
        }
    }

    /// Writes all of `bytes`, and gives up if that takes too long.
    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let deadline = Instant::now() + self.timeout;
        while !bytes.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.timed_out());
            }
            self.stream.set_write_timeout(Some(left))?;
            match self.stream.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => return Err(self.timed_out()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn timed_out(&self) -> io::Error {
        let (phase, timeout) = (self.client.phase().text(), self.timeout.as_secs_f64());
        io::Error::new(ErrorKind::TimedOut, format!("gave up {phase} after {timeout} s"))
    }

    fn transact(
        &mut self,
        mail: &Mail,
        group: &[Recipient<'_>],
        reader: &mut Reader<'_>,
        answers: &mut Answers,
    ) -> Result<(), Trouble> {
        let transaction = Transaction::of(&mail.envelope, mail.size, now());
        let begun = self.client.begin(&transaction, group.iter().copied(), &mut self.out);
        if let Err(unsupported) = begun {
            answers.message = Some((false, unsupported.reply().to_string()));
            return Ok(());
        }
        loop {
            match self.next()? {
                Event::Refused { recipient } => {
                    answers.refused.push((recipient, self.client.reply().to_string()));
                }
                Event::SendBody => self.send_body(mail, reader)?,
                Event::Finished => {
                    let reply = self.client.reply();
                    if answers.refused.len() < group.len() {
                        answers.message = Some((reply.is_positive(), reply.to_string()));
                    }
                    return Ok(());
                }
                event => return Err(self.unexpected(event).into()),
            }
        }
    }

    fn send_body(&mut self, mail: &Mail, reader: &mut Reader<'_>) -> Result<(), Trouble> {
        let sent = reader.parts(mail, |part| self.write(part));
        match sent {
            Ok(()) => {
                self.client.body_sent();
                Ok(())
            }
            // The server may have said why it wants no more of it.
            Err(Trouble::Io(error)) if !is_timeout(&error) => {
                let said = self.read(Instant::now() + LAST_WORD);
                if said.is_ok() { Ok(()) } else { Err(error.into()) }
            }
            Err(trouble) => Err(trouble),
        }
    }

    fn unexpected(&self, event: Event) -> io::Error {
        let what = match event {
            Event::Closed(end) => format!("the server {}: {}", end.text(), self.client.reply()),
            other => format!("the session went wrong: {other:?}"),
        };
        io::Error::other(what)
    }

    /// Says goodbye, and does not insist on an answer.
    fn quit(&mut self) {
        self.client.quit(&mut self.out);
        self.timeout = self.timeout.min(LAST_WORD);
        let out = std::mem::take(&mut self.out);
        if self.write(&out).is_ok() {
            let _ = self.next();
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn now() -> UnixMillis {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(now.as_millis() as u64)
}
