//! What the servers of the bench send to: a next hop that offers CHUNKING and only
//! answers, and a wire of 20 ms there and back before it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ringpost::io::executor::{run_pinned, spawn};
use ringpost::io::net::{Listener, Stream, listen};

/// The word of the reply to a message.
const TAKEN: &[u8] = b"taken";

/// What has been taken, and how.
#[derive(Default)]
pub struct Taken {
    /// Behind DATA.
    pub by_data: AtomicU64,
    /// In chunks.
    pub by_chunks: AtomicU64,
}

impl Taken {
    /// All messages.
    pub fn all(&self) -> u64 {
        self.by_data.load(Ordering::Relaxed) + self.by_chunks.load(Ordering::Relaxed)
    }
}

/// What comes next of a session.
enum Next {
    Line,
    /// A body that ends with a dot.
    Body,
    /// So many octets more of the chunk that is the last.
    Chunk(usize),
}

/// Serves on a port of its own for ever, on `cpu`; a thread that ends with the bench.
pub fn start_hop(cpu: usize) -> (SocketAddr, Arc<Taken>) {
    let listener = listen(([127, 0, 0, 1], 0).into()).expect("a port");
    let address = listener.local_addr().expect("bound");
    let taken = Arc::new(Taken::default());
    let counts = Arc::clone(&taken);
    let run = run_pinned("hop", Some(cpu), move || async move {
        let listener = Listener::adopt(listener);
        while let Ok((stream, _)) = listener.accept().await {
            let counts = Arc::clone(&counts);
            // The client may close in any way.
            spawn(async move { drop(serve(stream, &counts).await) }).detach();
        }
    });
    drop(run.expect("an executor"));
    (address, taken)
}

async fn serve(mut stream: Stream, taken: &Taken) -> std::io::Result<()> {
    let (mut unread, mut out) = (Vec::new(), b"220 hop\r\n".to_vec());
    let (mut next, mut part) = (Next::Line, vec![0; 64 << 10]);
    loop {
        let mut used = 0;
        while let Some(len) = answer(&unread[used..], &mut next, &mut out, taken) {
            used += len;
        }
        unread.drain(..used);
        stream.write_all(&out).await?;
        out.clear();
        let len = stream.read(&mut part).await?;
        if len == 0 {
            return Ok(());
        }
        unread.extend_from_slice(&part[..len]);
    }
}

/// Answers what `input` begins with; how long that was, `None` if it is not whole.
fn answer(input: &[u8], next: &mut Next, out: &mut Vec<u8>, taken: &Taken) -> Option<usize> {
    let count = match next {
        Next::Line => {
            let len = memchr::memmem::find(input, b"\r\n")? + 2;
            command(&input[..len - 2], next, out);
            return Some(len);
        }
        Next::Body => &taken.by_data,
        Next::Chunk(_) => &taken.by_chunks,
    };
    let len = match next {
        Next::Chunk(len) => Some(*len).filter(|len| input.len() >= *len)?,
        _ => memchr::memmem::find(input, b"\r\n.\r\n")? + 5,
    };
    count.fetch_add(1, Ordering::Relaxed);
    *next = Next::Line;
    out.extend_from_slice(b"250 2.0.0 ");
    out.extend_from_slice(TAKEN);
    out.extend_from_slice(b"\r\n");
    Some(len)
}

fn command(line: &[u8], next: &mut Next, out: &mut Vec<u8>) {
    let reply: &[u8] = match line.get(..4) {
        Some(b"EHLO") => {
            b"250-hop\r\n250-SIZE\r\n250-8BITMIME\r\n250-PIPELINING\r\n250 CHUNKING\r\n"
        }
        Some(b"DATA") => {
            *next = Next::Body;
            b"354 go on\r\n"
        }
        Some(b"BDAT") => {
            let line = std::str::from_utf8(line).expect("a command");
            let len = line.strip_suffix(" LAST").and_then(|line| line[5..].parse().ok());
            *next = Next::Chunk(len.expect("all of it in one chunk"));
            return;
        }
        _ => b"250 2.0.0 ok\r\n",
    };
    out.extend_from_slice(reply);
}

/// Messages whose reply has come back over the wire.
#[derive(Default)]
pub struct Delivered {
    count: Mutex<u64>,
    more: Condvar,
}

impl Delivered {
    /// Waits until there are `count` of them.
    pub fn wait(&self, count: u64, patience: Duration) {
        let now = self.count.lock().expect("no panic");
        let waited = self.more.wait_timeout_while(now, patience, |now| *now < count);
        assert!(!waited.expect("no panic").1.timed_out(), "message {count} did not arrive");
    }
}

/// A wire to `hop` on a port of its own, which takes `delay` each way.
pub fn start_wire(hop: SocketAddr, delay: Duration) -> (SocketAddr, Arc<Delivered>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let delivered = Arc::new(Delivered::default());
    let seen = Arc::clone(&delivered);
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(hop).expect("the hop listens");
            let twin = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
            carry(twin(&client), twin(&server), delay, None);
            carry(server, client, delay, Some(Arc::clone(&seen)));
        }
    });
    (address, delivered)
}

/// Carries what comes from `from` to `to`, each part `delay` after it came.
fn carry(mut from: TcpStream, mut to: TcpStream, delay: Duration, seen: Option<Arc<Delivered>>) {
    to.set_nodelay(true).expect("a socket");
    let (parts, due): (Sender<(Instant, Vec<u8>)>, Receiver<_>) = channel();
    thread::spawn(move || {
        let mut part = vec![0; 64 << 10];
        while let Ok(len @ 1..) = from.read(&mut part) {
            if parts.send((Instant::now() + delay, part[..len].to_vec())).is_err() {
                break;
            }
        }
    });
    thread::spawn(move || {
        // Replies are short and come whole.
        for (at, part) in due {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&part).is_err() {
                break;
            }
            if let Some(seen) = &seen {
                let count = memchr::memmem::find_iter(&part, TAKEN).count() as u64;
                *seen.count.lock().expect("no panic") += count;
                seen.more.notify_all();
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
