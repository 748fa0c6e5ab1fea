//! A next hop that offers what it is told to and takes it: BDAT in chunks of any
//! number, all parameters, TLS. It keeps commands and octets as they came. Refusing
//! and misbehaving is for [`super::hop`].

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::peer::{PATIENCE, read_body};

/// All that is passed on.
pub const EVERYTHING: &[&str] = &[
    "PIPELINING",
    "SIZE",
    "8BITMIME",
    "SMTPUTF8",
    "DSN",
    "CHUNKING",
    "BINARYMIME",
    "DELIVERBY",
    "MT-PRIORITY",
];

/// A message as it came.
#[derive(Clone, Debug)]
pub struct Came {
    /// When.
    pub at: Instant,
    /// Whether over TLS.
    pub is_secured: bool,
    /// MAIL.
    pub mail: String,
    /// RCPT, each.
    pub recipients: Vec<String>,
    /// Chunks that it came in; none by DATA.
    pub chunks: usize,
    /// Its octets.
    pub content: Vec<u8>,
}

impl Came {
    /// The value of a parameter of MAIL; empty for one without.
    pub fn parameter(&self, keyword: &str) -> Option<&str> {
        parameter(&self.mail, keyword)
    }

    /// Its text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.content).into_owned()
    }
}

/// The value of a parameter of a command.
pub fn parameter<'a>(command: &'a str, keyword: &str) -> Option<&'a str> {
    command.split(' ').find_map(|word| {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        (name == keyword).then_some(value)
    })
}

/// A running hop.
pub struct FullHop {
    /// Where it listens.
    pub address: SocketAddr,
    came: Arc<(Mutex<Vec<Came>>, Condvar)>,
    stop: Arc<AtomicBool>,
}

/// What sessions know.
#[derive(Clone)]
struct Shared {
    offers: &'static [&'static str],
    tls: Option<Arc<ServerConfig>>,
    came: Arc<(Mutex<Vec<Came>>, Condvar)>,
}

impl FullHop {
    /// One that offers these; STARTTLS too if it has TLS, and REQUIRETLS within.
    pub fn start(offers: &'static [&'static str], tls: Option<Arc<ServerConfig>>) -> FullHop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let came = Arc::new((Mutex::default(), Condvar::new()));
        let shared = Shared { offers, tls, came: Arc::clone(&came) };
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let shared = shared.clone();
                // The client may go away at any point; its loss.
                std::thread::spawn(move || stream.and_then(|stream| shared.serve(stream)));
            }
        });
        FullHop { address, came, stop }
    }

    /// Waits for so many messages, and returns them.
    #[track_caller]
    pub fn wait(&self, count: usize) -> Vec<Came> {
        let deadline = Instant::now() + PATIENCE;
        let mut came = self.came.0.lock().unwrap();
        while came.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} messages came, not {count}", came.len());
            came = self.came.1.wait_timeout(came, left).unwrap().0;
        }
        came.clone()
    }

    /// How many have come by now.
    pub fn count(&self) -> usize {
        self.came.0.lock().unwrap().len()
    }
}

impl Drop for FullHop {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

trait Channel: Read + Write + Send {}

impl<C: Read + Write + Send> Channel for C {}

type Peer = BufReader<Box<dyn Channel>>;

impl Shared {
    fn offer(&self, is_secured: bool) -> String {
        let mut words = vec!["hop.test"];
        words.extend(self.offers);
        match &self.tls {
            Some(_) if is_secured => words.push("REQUIRETLS"),
            Some(_) => words.push("STARTTLS"),
            None => {}
        }
        let (last, before) = words.split_last().expect("a name");
        let before: String = before.iter().map(|word| format!("250-{word}\r\n")).collect();
        format!("{before}250 {last}\r\n")
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut peer: Peer = BufReader::new(Box::new(stream.try_clone()?));
        let mut is_secured = false;
        let mut came = None::<Came>;
        peer.get_mut().write_all(b"220 hop.test\r\n")?;
        loop {
            let mut line = String::new();
            if peer.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end();
            let reply = match line.split([' ', ':']).next().unwrap_or_default() {
                "EHLO" => self.offer(is_secured),
                "STARTTLS" => {
                    peer.get_mut().write_all(b"220 go on\r\n")?;
                    let config = self.tls.clone().expect("it is offered");
                    let session = ServerConnection::new(config).map_err(std::io::Error::other)?;
                    let secure = StreamOwned::new(session, stream.try_clone()?);
                    peer = BufReader::new(Box::new(secure));
                    is_secured = true;
                    continue;
                }
                "MAIL" => {
                    came = Some(Came {
                        at: Instant::now(),
                        is_secured,
                        mail: line.to_owned(),
                        recipients: Vec::new(),
                        chunks: 0,
                        content: Vec::new(),
                    });
                    "250 2.1.0 ok\r\n".to_owned()
                }
                "RCPT" => {
                    came.as_mut().expect("MAIL came").recipients.push(line.to_owned());
                    "250 2.1.5 ok\r\n".to_owned()
                }
                "DATA" => {
                    peer.get_mut().write_all(b"354 go on\r\n")?;
                    let mut whole = came.take().expect("MAIL came");
                    whole.content = read_body(&mut peer)?;
                    self.keep(whole)
                }
                "BDAT" => {
                    let words: Vec<&str> = line.split(' ').collect();
                    let mut chunk = vec![0; words[1].parse().expect("a length")];
                    peer.read_exact(&mut chunk)?;
                    let growing = came.as_mut().expect("MAIL came");
                    growing.content.extend(chunk);
                    growing.chunks += 1;
                    if words.get(2) == Some(&"LAST") {
                        self.keep(came.take().expect("MAIL came"))
                    } else {
                        "250 2.0.0 go on\r\n".to_owned()
                    }
                }
                _ => "250 2.0.0 ok\r\n".to_owned(),
            };
            peer.get_mut().write_all(reply.as_bytes())?;
        }
    }

    fn keep(&self, whole: Came) -> String {
        self.came.0.lock().unwrap().push(Came { at: Instant::now(), ..whole });
        self.came.1.notify_all();
        "250 2.0.0 taken\r\n".to_owned()
    }
}
