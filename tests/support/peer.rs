//! Peers for whole-server tests, made of blocking sockets and nothing of
//! ringpost's own: a client that sends messages and a next hop that keeps what
//! it got. So they cannot share a mistake with what they test.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A message as the next hop got it.
#[derive(Clone, Debug)]
pub struct Got {
    pub sender: String,
    pub recipients: Vec<String>,
    /// Un-stuffed, without the terminator.
    pub body: Vec<u8>,
}

/// How the next hop behaves, by recipient: the reply to RCPT, or `None` to take it.
pub type Behaviour = dyn Fn(&str) -> Option<String> + Send + Sync;

/// A next hop on loopback that keeps what it got.
pub struct NextHop {
    pub address: SocketAddr,
    got: Arc<(Mutex<Vec<Got>>, Condvar)>,
    stop: Arc<AtomicBool>,
}

impl NextHop {
    /// One that takes everything.
    pub fn start() -> Self {
        Self::with(|_| None)
    }

    /// One that answers RCPT as `behaviour` says.
    pub fn with(behaviour: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), behaviour)
    }

    /// One on a socket bound before.
    pub fn on(
        listener: TcpListener,
        behaviour: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let got = Arc::new((Mutex::default(), Condvar::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let behaviour: Arc<Behaviour> = Arc::new(behaviour);
        let (got2, stop2) = (Arc::clone(&got), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop2.load(Ordering::SeqCst) {
                    return;
                }
                let (got, behaviour) = (Arc::clone(&got2), Arc::clone(&behaviour));
                let Ok(stream) = stream else { continue };
                std::thread::spawn(move || {
                    // The client may go away at any point; its loss.
                    let _ = serve(stream, &got, &*behaviour);
                });
            }
        });
        NextHop { address, got, stop }
    }

    /// Waits until `enough` of what was got is true, and returns it all.
    pub fn wait(&self, enough: impl Fn(&[Got]) -> bool) -> Vec<Got> {
        let deadline = Instant::now() + PATIENCE;
        let mut got = self.got.0.lock().unwrap();
        while !enough(&got) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the next hop got {} messages only", got.len());
            got = self.got.1.wait_timeout(got, left).unwrap().0;
        }
        got.clone()
    }

    /// Messages by the value of their header `name`.
    pub fn by_header(&self, name: &str) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for got in self.got.0.lock().unwrap().iter() {
            if let Some(value) = header(&got.body, name) {
                *counts.entry(value).or_default() += 1;
            }
        }
        counts
    }
}

impl Drop for NextHop {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

/// The value of a header field of `message`.
pub fn header(message: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(message);
    let prefix = format!("{}:", name.to_ascii_lowercase());
    text.split("\r\n")
        .take_while(|line| !line.is_empty())
        .find(|line| line.to_ascii_lowercase().starts_with(&prefix))
        .map(|line| line[prefix.len()..].trim().to_owned())
}

fn serve(
    mut stream: TcpStream,
    got: &(Mutex<Vec<Got>>, Condvar),
    behaviour: &Behaviour,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    stream.write_all(b"220 hop.test ESMTP\r\n")?;
    let (mut sender, mut recipients) = (String::new(), Vec::new());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let upper = line.to_ascii_uppercase();
        let path = || line.split(['<', '>']).nth(1).unwrap_or("").to_owned();
        if upper.starts_with("EHLO") {
            stream
                .write_all(b"250-hop.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n")?;
        } else if upper.starts_with("MAIL") {
            (sender, recipients) = (path(), Vec::new());
            stream.write_all(b"250 2.1.0 ok\r\n")?;
        } else if upper.starts_with("RCPT") {
            match behaviour(&path()) {
                Some(reply) => stream.write_all(format!("{reply}\r\n").as_bytes())?,
                None => {
                    recipients.push(path());
                    stream.write_all(b"250 2.1.5 ok\r\n")?;
                }
            }
        } else if upper.starts_with("DATA") && recipients.is_empty() {
            stream.write_all(b"554 5.5.1 no valid recipients\r\n")?;
        } else if upper.starts_with("DATA") {
            stream.write_all(b"354 go on\r\n")?;
            let body = read_body(&mut reader)?;
            let message = Got { sender: sender.clone(), recipients: recipients.clone(), body };
            got.0.lock().unwrap().push(message);
            got.1.notify_all();
            stream.write_all(b"250 2.0.0 taken\r\n")?;
        } else if upper.starts_with("QUIT") {
            return stream.write_all(b"221 2.0.0 bye\r\n");
        } else {
            stream.write_all(b"250 2.0.0 ok\r\n")?;
        }
    }
}

/// A body up to its terminator, un-stuffed.
pub fn read_body(reader: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        match line.as_slice() {
            b".\r\n" => return Ok(body),
            [b'.', rest @ ..] => body.extend_from_slice(rest),
            line => body.extend_from_slice(line),
        }
    }
}

/// A client of a server under test.
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Connects and says EHLO.
    pub fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut client = Client { reader: BufReader::new(stream) };
        client.reply()?;
        client.command("EHLO client.test")?;
        Ok(client)
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// One reply, all its lines.
    pub fn reply(&mut self) -> std::io::Result<String> {
        let mut whole = String::new();
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let last = line.as_bytes().get(3) != Some(&b'-');
            whole.push_str(&line);
            if last {
                return Ok(whole);
            }
        }
    }

    /// Sends a line and returns the reply.
    pub fn command(&mut self, line: &str) -> std::io::Result<String> {
        self.send(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    /// Sends `message` (stuffed here) and returns the reply to its end.
    pub fn message(&mut self, from: &str, to: &[&str], message: &[u8]) -> std::io::Result<String> {
        self.command(&format!("MAIL FROM:<{from}>"))?;
        for to in to {
            self.command(&format!("RCPT TO:<{to}>"))?;
        }
        let go = self.command("DATA")?;
        if !go.starts_with("354") {
            return Ok(go);
        }
        let mut wire = Vec::with_capacity(message.len() + 64);
        for line in message.split_inclusive(|&byte| byte == b'\n') {
            if line.first() == Some(&b'.') {
                wire.push(b'.');
            }
            wire.extend_from_slice(line);
        }
        wire.extend_from_slice(b".\r\n");
        self.send(&wire)?;
        self.reply()
    }

    /// What is left until the server closes.
    pub fn rest(mut self) -> std::io::Result<String> {
        let mut rest = String::new();
        self.reader.read_to_string(&mut rest)?;
        Ok(rest)
    }
}
