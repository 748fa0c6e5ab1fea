//! A next hop that does as it is told at each step of each session, made of
//! blocking sockets and threads: it can refuse, hang, drip, babble, close in the
//! middle, and go away and come back. It keeps what it took, and who connected
//! when. With [`Skills`] it speaks TLS and LMTP and has clients authenticate.
//! [`super::peer::NextHop`] is for tests that need nothing of that.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringpost::proto::sasl::base64::encode as base64;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::peer::{PATIENCE, header, read_body};

/// Where a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A connection was made.
    Connect,
    /// EHLO or LHLO.
    Ehlo,
    Helo,
    StartTls,
    /// AUTH, or a line in answer to a challenge.
    Auth,
    Mail,
    Rcpt,
    Data,
    /// A message has come as far as its final dot.
    Body,
    Other,
    Quit,
}

/// What a hop is asked about.
#[derive(Clone, Debug)]
pub struct Moment {
    pub step: Step,
    /// The number of the connection, from 0.
    pub connection: usize,
    /// The command as it came, without CRLF.
    pub line: String,
}

impl Moment {
    /// Whether the command has `text` in it.
    pub fn has(&self, text: &str) -> bool {
        self.line.contains(text)
    }
}

/// What a hop does.
#[derive(Clone, Debug)]
pub enum Act {
    /// What a server does that takes everything.
    Well,
    /// Says this, lines parted by CRLF.
    Say(&'static str),
    /// Says this and closes.
    Last(&'static str),
    /// Closes.
    Close,
    /// Says nothing until the client has gone.
    Silence,
    /// Says what [`Act::Well`] says, one octet at a time.
    Drip,
    /// Says this line over and over, until the client has gone.
    Babble(&'static str),
    /// At [`Step::Data`]: goes on, takes so many octets, says this and closes
    /// when the client has gone.
    Interrupt(usize, &'static str),
}

/// What a hop can do beyond plain SMTP.
#[derive(Clone, Default)]
pub struct Skills {
    /// TLS, by STARTTLS.
    pub tls: Option<Arc<ServerConfig>>,
    /// TLS from the first octet on.
    pub is_implicit: bool,
    /// LMTP instead of SMTP.
    pub is_lmtp: bool,
    /// Offered in the reply to EHLO too.
    pub offers: &'static [&'static str],
    /// Who may authenticate by PLAIN, as `\0user\0password`; nobody else may send
    /// mail then.
    pub login: Option<&'static str>,
}

/// A message as a hop took it.
#[derive(Clone, Debug)]
pub struct Taken {
    pub connection: usize,
    pub at: Instant,
    pub is_secured: bool,
    pub sender: String,
    pub recipients: Vec<String>,
    /// Un-stuffed, without the terminator.
    pub body: Vec<u8>,
}

impl Taken {
    /// The value of its field `X-Test`, by which tests know their messages.
    pub fn name(&self) -> String {
        header(&self.body, "X-Test").unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What a hop has seen so far.
#[derive(Default)]
pub struct Seen {
    pub taken: Vec<Taken>,
    /// When each connection was made.
    pub connected: Vec<Instant>,
    /// Connections open now, and the most there were.
    pub open: usize,
    pub most: usize,
    /// Commands with the numbers of their connections.
    pub commands: Vec<(usize, String)>,
}

impl Seen {
    pub fn names(&self) -> Vec<String> {
        self.taken.iter().map(Taken::name).collect()
    }

    /// Messages taken over each connection.
    pub fn by_connection(&self) -> Vec<usize> {
        let of = |connection| self.taken.iter().filter(|t| t.connection == connection).count();
        (0..self.connected.len()).map(of).collect()
    }
}

type Behaviour = dyn Fn(&Moment) -> Act + Send + Sync;

struct Shared {
    behaviour: Box<Behaviour>,
    skills: Skills,
    seen: Mutex<(Seen, Vec<TcpStream>)>,
    changed: Condvar,
    stop: AtomicBool,
}

/// A running hop; it is gone when dropped, with its connections.
pub struct Hop {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Sockets on each of these hosts, with one port, on which nothing else listens.
pub fn on_one_port(hosts: &[&str]) -> Vec<TcpListener> {
    for _ in 0..100 {
        let first = TcpListener::bind((parse(hosts[0]), 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        let others = hosts[1..].iter().map(|host| TcpListener::bind((parse(host), port)));
        if let Ok(others) = others.collect::<Result<Vec<_>, _>>() {
            return std::iter::once(first).chain(others).collect();
        }
    }
    panic!("no port is free on all of {hosts:?}");
}

fn parse(host: &str) -> IpAddr {
    host.parse().expect("an address")
}

impl Hop {
    /// One that takes everything.
    pub fn start(listener: TcpListener) -> Self {
        Self::with(listener, |_| Act::Well)
    }

    /// One that does as `behaviour` says. It may wait there for what it likes:
    /// each connection has a thread.
    pub fn with(
        listener: TcpListener,
        behaviour: impl Fn(&Moment) -> Act + Send + Sync + 'static,
    ) -> Self {
        Self::skilled(listener, Skills::default(), behaviour)
    }

    /// One that can do more.
    pub fn skilled(
        listener: TcpListener,
        skills: Skills,
        behaviour: impl Fn(&Moment) -> Act + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            behaviour: Box::new(behaviour),
            skills,
            seen: Mutex::default(),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if for_thread.stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let number = for_thread.connected(&stream);
                let shared = Arc::clone(&for_thread);
                std::thread::spawn(move || {
                    // The client may go away at any point.
                    let end = stream.try_clone();
                    let _ = Session::new(&shared, number, stream).and_then(Session::run);
                    // Another handle of it is kept, so that it is not reset by
                    // what the client still sent.
                    let _ = end.map(|end| end.shutdown(Shutdown::Both));
                    shared.change(|seen| seen.open -= 1);
                });
            }
        });
        Hop { address, shared, thread: Some(thread) }
    }

    /// Waits until `enough` of what was seen is true, and tells of it.
    #[track_caller]
    pub fn wait<R>(&self, enough: impl Fn(&Seen) -> bool, tell: impl FnOnce(&Seen) -> R) -> R {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = self.shared.seen.lock().unwrap();
        while !enough(&seen.0) {
            let left = deadline.saturating_duration_since(Instant::now());
            let (names, connections) = (seen.0.names(), seen.0.connected.len());
            assert!(
                !left.is_zero(),
                "the hop took {names:?} over {connections} connections: {:?}",
                seen.0.commands
            );
            seen = self.shared.changed.wait_timeout(seen, left).unwrap().0;
        }
        tell(&seen.0)
    }

    /// Waits until so many messages were taken, and returns them.
    #[track_caller]
    pub fn wait_taken(&self, count: usize) -> Vec<Taken> {
        self.wait(|seen| seen.taken.len() >= count, |seen| seen.taken.clone())
    }

    /// What was seen by now.
    pub fn seen<R>(&self, tell: impl FnOnce(&Seen) -> R) -> R {
        tell(&self.shared.seen.lock().unwrap().0)
    }

    /// Goes away: nobody listens any more, and connections are closed.
    pub fn stop(mut self) -> SocketAddr {
        self.go();
        self.address
    }

    fn go(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.shared.stop.store(true, Ordering::SeqCst);
        // So that it looks up.
        let _ = TcpStream::connect(self.address);
        let _ = thread.join();
        if let Ok(seen) = self.shared.seen.lock() {
            seen.1.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        }
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        self.go();
    }
}

impl Shared {
    fn change<R>(&self, act: impl FnOnce(&mut Seen) -> R) -> R {
        let result = act(&mut self.seen.lock().unwrap().0);
        self.changed.notify_all();
        result
    }

    fn connected(&self, stream: &TcpStream) -> usize {
        let mut seen = self.seen.lock().unwrap();
        seen.1.extend(stream.try_clone());
        let (seen, _) = &mut *seen;
        seen.connected.push(Instant::now());
        seen.open += 1;
        seen.most = seen.most.max(seen.open);
        self.changed.notify_all();
        seen.connected.len() - 1
    }
}

/// What a session reads from and writes to.
trait Channel: Read + Write + Send {}

impl<C: Read + Write + Send> Channel for C {}

struct Session<'a> {
    shared: &'a Shared,
    connection: usize,
    stream: TcpStream,
    reader: BufReader<Box<dyn Channel>>,
    is_secured: bool,
    is_known: bool,
    /// MAIL was taken.
    begun: bool,
    sender: String,
    recipients: Vec<String>,
}

/// Whether a session goes on.
type Goes = std::io::Result<bool>;

impl<'a> Session<'a> {
    fn new(shared: &'a Shared, connection: usize, stream: TcpStream) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        let reader: Box<dyn Channel> = Box::new(stream.try_clone()?);
        Ok(Session {
            shared,
            connection,
            stream,
            reader: BufReader::new(reader),
            is_secured: false,
            is_known: false,
            begun: false,
            sender: String::new(),
            recipients: Vec::new(),
        })
    }

    fn secure(&mut self) -> std::io::Result<()> {
        let config = self.shared.skills.tls.clone().expect("a hop that can do TLS");
        let mut session = ServerConnection::new(config).map_err(std::io::Error::other)?;
        let mut stream = self.stream.try_clone()?;
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        self.reader = BufReader::new(Box::new(StreamOwned::new(session, stream)));
        self.is_secured = true;
        Ok(())
    }

    fn run(mut self) -> std::io::Result<()> {
        if self.shared.skills.is_implicit {
            self.secure()?;
        }
        if !self.step(Step::Connect, "", "220 hop.test ESMTP")? {
            return Ok(());
        }
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_owned();
            let number = self.connection;
            self.shared.change(|seen| seen.commands.push((number, line.clone())));
            if !self.command(&line)? {
                return Ok(());
            }
        }
    }

    fn command(&mut self, line: &str) -> Goes {
        let path = || line.split(['<', '>']).nth(1).unwrap_or("").to_owned();
        let verb = line.get(..4).unwrap_or(line).to_ascii_uppercase();
        match &*verb {
            "EHLO" | "LHLO" if (verb == "LHLO") == self.shared.skills.is_lmtp => {
                let offer = self.offer();
                self.step(Step::Ehlo, line, &offer)
            }
            "HELO" => self.step(Step::Helo, line, "250 hop.test"),
            "STAR" => {
                let act = self.ask(Step::StartTls, line);
                let begins = matches!(act, Act::Well | Act::Drip);
                let goes_on = self.act(act, "220 2.0.0 go on")?;
                if begins {
                    self.secure()?;
                }
                Ok(goes_on)
            }
            "AUTH" => {
                let expected = self.shared.skills.login.map(|login| base64(login.as_bytes()));
                self.is_known = line.rsplit(' ').next() == expected.as_deref();
                let reply = if self.is_known { "235 2.7.0 welcome" } else { "535 5.7.8 who?" };
                self.step(Step::Auth, line, reply)
            }
            "MAIL" if self.shared.skills.login.is_some() && !self.is_known => {
                self.act(Act::Say("530 5.7.0 authenticate first"), "")
            }
            "MAIL" => {
                (self.sender, self.recipients) = (path(), Vec::new());
                let act = self.ask(Step::Mail, line);
                self.begun = matches!(act, Act::Well | Act::Drip);
                self.act(act, "250 2.1.0 ok")
            }
            "RCPT" if !self.begun => self.act(Act::Say("503 5.5.1 MAIL first"), ""),
            "RCPT" => {
                let act = self.ask(Step::Rcpt, line);
                if matches!(act, Act::Well | Act::Drip) {
                    self.recipients.push(path());
                }
                self.act(act, "250 2.1.5 ok")
            }
            "DATA" => self.data(line),
            "BDAT" if self.shared.skills.offers.contains(&"CHUNKING") => self.chunk(line),
            "QUIT" => {
                self.step(Step::Quit, line, "221 2.0.0 bye")?;
                Ok(false)
            }
            _ => self.step(Step::Other, line, "250 2.0.0 ok"),
        }
    }

    fn data(&mut self, line: &str) -> Goes {
        if self.recipients.is_empty() {
            return self.step(Step::Data, line, "554 5.5.1 no valid recipients");
        }
        let act = self.ask(Step::Data, line);
        if let Act::Interrupt(octets, words) = act {
            self.say("354 go on")?;
            self.reader.read_exact(&mut vec![0; octets])?;
            self.say(words)?;
            return self.until_gone();
        }
        let takes_body = match &act {
            Act::Well | Act::Drip => true,
            Act::Say(words) => words.starts_with("354"),
            _ => false,
        };
        let goes_on = self.act(act, "354 go on")?;
        if !goes_on || !takes_body {
            return Ok(goes_on);
        }
        let body = read_body(&mut self.reader)?;
        let name = header(&body, "X-Test").unwrap_or_default();
        if self.shared.skills.is_lmtp {
            return self.deliver(&name, body);
        }
        let act = self.ask(Step::Body, &name);
        if matches!(&act, Act::Well | Act::Drip) {
            self.take(self.recipients.clone(), body);
        }
        self.act(act, "250 2.0.0 taken")
    }

    /// A whole message in one chunk.
    fn chunk(&mut self, line: &str) -> Goes {
        let act = self.ask(Step::Data, line);
        if !matches!(&act, Act::Well | Act::Drip) {
            // It does not know the command, and takes what follows for others.
            return self.act(act, "");
        }
        let len = line.split(' ').nth(1).and_then(|len| len.parse().ok()).expect("a length");
        let mut body = vec![0; len];
        self.reader.read_exact(&mut body)?;
        if self.recipients.is_empty() {
            return self.act(Act::Say("503 5.5.1 no valid recipients"), "");
        }
        let name = header(&body, "X-Test").unwrap_or_default();
        let recipients = std::mem::take(&mut self.recipients);
        self.take(recipients, body);
        let act = self.ask(Step::Body, &name);
        self.act(act, "250 2.0.0 taken")
    }

    fn take(&self, recipients: Vec<String>, body: Vec<u8>) {
        let taken = Taken {
            connection: self.connection,
            at: Instant::now(),
            is_secured: self.is_secured,
            sender: self.sender.clone(),
            recipients,
            body,
        };
        self.shared.change(|seen| seen.taken.push(taken));
    }

    /// LMTP: asks and answers for each recipient, the line being its address.
    fn deliver(&mut self, name: &str, body: Vec<u8>) -> Goes {
        for recipient in std::mem::take(&mut self.recipients) {
            let act = self.ask(Step::Body, &format!("{name} {recipient}"));
            if matches!(&act, Act::Well | Act::Drip) {
                self.take(vec![recipient.clone()], body.clone());
            }
            if !self.act(act, "250 2.1.5 delivered")? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn offer(&self) -> String {
        let skills = &self.shared.skills;
        let mut words = vec!["hop.test", "PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8"];
        words.extend(skills.offers);
        words.extend((skills.tls.is_some() && !self.is_secured).then_some("STARTTLS"));
        words.extend(skills.login.map(|_| "AUTH PLAIN"));
        let last = words.len() - 1;
        let line = |(at, word)| format!("250{}{word}", if at == last { ' ' } else { '-' });
        words.iter().enumerate().map(line).collect::<Vec<_>>().join("\r\n")
    }

    fn ask(&self, step: Step, line: &str) -> Act {
        let line = line.to_owned();
        (self.shared.behaviour)(&Moment { step, connection: self.connection, line })
    }

    fn step(&mut self, step: Step, line: &str, usual: &str) -> Goes {
        let act = self.ask(step, line);
        self.act(act, usual)
    }

    fn act(&mut self, act: Act, usual: &str) -> Goes {
        match act {
            Act::Well => self.say(usual)?,
            Act::Say(words) => self.say(words)?,
            Act::Last(words) => {
                self.say(words)?;
                return Ok(false);
            }
            Act::Close | Act::Interrupt(..) => return Ok(false),
            Act::Silence => return self.until_gone(),
            Act::Drip => {
                for octet in format!("{usual}\r\n").as_bytes() {
                    self.reader.get_mut().write_all(&[*octet])?;
                    // So that each arrives by itself; nothing is waited for.
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            Act::Babble(words) => {
                let line = format!("{words}\r\n").repeat(100);
                while self.reader.get_mut().write_all(line.as_bytes()).is_ok() {}
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn say(&mut self, words: &str) -> std::io::Result<()> {
        self.reader.get_mut().write_all(format!("{words}\r\n").as_bytes())
    }

    fn until_gone(&mut self) -> Goes {
        std::io::copy(&mut self.reader, &mut std::io::sink())?;
        Ok(false)
    }
}
