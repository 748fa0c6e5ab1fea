//! Those who send mail to a server of the bench, and that server.

use std::cell::Cell;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use ringpost::io::executor::spawn;
use ringpost::io::net::Stream;

/// Bytes of a message, header included.
pub const SIZE: usize = 4096;
/// Clock ticks in a second, as `/proc` counts CPU time; the same on all Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// How long connecting may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that sends all it takes to one next hop; killed when dropped.
pub struct Server {
    child: Child,
    /// Where it takes mail.
    pub address: SocketAddr,
}

impl Server {
    /// One on `cpu` that keeps its log in `data`, and may send in chunks or not.
    pub fn start(data: &Path, cpu: usize, next_hop: SocketAddr, chunking: bool) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringpost"));
        command.arg("serve").stdin(Stdio::null()).stderr(Stdio::piped());
        for setting in [
            format!("data_dir={:?}", data.display().to_string()),
            "hostname=\"relay.test\"".into(),
            format!("cores=\"{cpu}-{cpu}\""),
            "listener=[{address=\"127.0.0.1:0\"}]".into(),
            format!("route=[{{domain=\"*\", next_hop=\"{next_hop}\"}}]"),
            format!("delivery.chunking={chunking}"),
            "admin.http=\"off\"".into(),
        ] {
            command.arg("--set").arg(setting);
        }
        let mut child = command.spawn().expect("the server starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is a pipe")).lines();
        let ready = lines.find_map(|line| line.ok().filter(|line| line.contains(" ready ")));
        let ready = ready.expect("the server is ready");
        let from = &ready[ready.find("127.0.0.1:").expect("an address")..];
        let is_part = |c: char| c.is_ascii_digit() || c == '.' || c == ':';
        let len = from.find(|c| !is_part(c)).unwrap_or(from.len());
        let address = from[..len].parse().expect("an address");
        // Its log must go on being read.
        std::thread::spawn(move || lines.for_each(drop));
        Server { child, address }
    }

    /// CPU time so far, in seconds.
    pub fn cpu_s(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.expect("the server runs");
        let behind_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let fields: Vec<&str> = behind_name.split(' ').collect();
        let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
        (ticks(11) + ticks(12)) / TICKS_PER_SECOND
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A session that sends message after message.
pub struct Client {
    stream: Stream,
    unread: Vec<u8>,
    body: Vec<u8>,
}

impl Client {
    /// Says EHLO to the server at `address`.
    pub async fn open(address: SocketAddr) -> Self {
        let stream = Stream::connect(address, PATIENCE).await.expect("a server");
        let line = "forty letters and their line end, so...\r\n";
        let head = "Subject: a message of the bench\r\n\r\n";
        let lines = line.repeat((SIZE - head.len()) / line.len());
        let body = format!("{head}{lines}.\r\n").into_bytes();
        let mut client = Client { stream, unread: Vec::new(), body };
        client.replies(1, b'2').await;
        client.say(b"EHLO client.test\r\n").await;
        client.replies(1, b'2').await;
        client
    }

    async fn say(&mut self, text: &[u8]) {
        self.stream.write_all(text).await.expect("the server reads");
    }

    /// Reads so many replies, the last of which begins with `digit`.
    async fn replies(&mut self, count: usize, digit: u8) {
        let (mut left, mut part) = (count, [0; 2048]);
        loop {
            while let Some(end) = memchr::memmem::find(&self.unread, b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).collect();
                left -= usize::from(line[3] == b' ');
                if left == 0 {
                    assert_eq!(line[0], digit, "{}", String::from_utf8_lossy(&line));
                    return;
                }
            }
            let len = self.stream.read(&mut part).await.expect("the server answers");
            assert!(len > 0, "the server closed the connection");
            self.unread.extend_from_slice(&part[..len]);
        }
    }

    /// Begins a message, up to the 354.
    pub async fn begin(&mut self) {
        self.say(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n").await;
        self.replies(3, b'3').await;
    }

    /// Sends the rest of it, up to the 250.
    pub async fn finish(&mut self) {
        let body = std::mem::take(&mut self.body);
        self.say(&body).await;
        self.body = body;
        self.replies(1, b'2').await;
    }
}

/// Sends so many messages over so many connections.
pub async fn send(address: SocketAddr, messages: u64, connections: usize) {
    let left = Rc::new(Cell::new(messages));
    let one = |_| {
        let left = Rc::clone(&left);
        spawn(async move {
            let mut client = Client::open(address).await;
            while let Some(rest) = left.get().checked_sub(1) {
                left.set(rest);
                client.begin().await;
                client.finish().await;
            }
        })
    };
    let tasks: Vec<_> = (0..connections).map(one).collect();
    for task in tasks {
        task.await;
    }
}
