//! How fast queued mail leaves, and what it costs: messages of 4 KiB to one site, to
//! many, and with a tenth of them deferred at first. A log is filled by the queue
//! itself; a server is started on it, as after a restart, and finds its way by a
//! DNS server to a next hop that only answers, all on loopback. Each site has an
//! address of 127.0.0.0/8 of its own, so that many sites are many connections.
//!
//! The server has CPU 0, the next hop the last. It works in the directory that
//! `RINGPOST_BENCH_DIR` names, by default one under `target`. `--messages N`
//! (50,000) go to `--sites N` (10,000). Of criterion's options `--sample-size` is
//! how many turns there are at most (3), and `--measurement-time` the seconds after
//! which no other begins (60). Run as a test it does everything once and with
//! little.

mod support;

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringpost::base::{Envelope, QueueId};
use ringpost::io::clock;
use ringpost::io::executor::{run_pinned, spawn};
use ringpost::io::net::{Listener, Stream, listen};
use ringpost::io::process::{allowed_cpus, raise_open_files};
use ringpost::io::uring::UringStore;
use ringpost::queue::{Queue, QueueOptions};

#[allow(dead_code, reason = "a bench needs little of it")]
#[path = "../tests/support/dns.rs"]
mod dns;

use dns::{Answer, DnsServer, RecordType};
use support::arguments::{Arguments, directory};

/// Bytes of a message, header included.
const SIZE: usize = 4096;
/// Messages that wait for one flush while a log is made.
const TOGETHER: u64 = 512;
/// How long a run may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// Clock ticks in a second, as `/proc` counts CPU time; the same on all Linux.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Clone)]
struct Plan {
    dir: PathBuf,
    messages: u64,
    sites: u64,
    turns: usize,
    span: Duration,
}

fn plan() -> Plan {
    let arguments = Arguments::read();
    let option = |name: &str| arguments.number(name);
    let dir = directory();
    // A short measurement is one that CI asks for.
    let span = option("--measurement-time").unwrap_or(60.0);
    let bench = arguments.is_bench() && span >= 1.0;
    let (messages, sites) = if bench { (50_000.0, 10_000.0) } else { (1000.0, 200.0) };
    Plan {
        dir,
        messages: option("--messages").unwrap_or(messages) as u64,
        sites: option("--sites").unwrap_or(sites).clamp(1.0, 1e6) as u64,
        turns: if bench { option("--sample-size").unwrap_or(3.0) as usize } else { 1 },
        span: Duration::from_secs_f64(span),
    }
}

/// Queues messages that were never tried, each for the next of so many domains.
async fn fill(log: PathBuf, messages: u64, domains: u64) {
    fs::create_dir_all(&log).expect("a directory");
    let (store, now) = (UringStore::new(log), clock::wall());
    let (queue, _) = Queue::open(store, QueueOptions::default(), now).await.expect("a log");
    let commits = spawn(queue.clone().run_commits());
    let line = "forty letters and their line end, so...\r\n";
    let head = "Subject: a message of the bench\r\n\r\n";
    // Mail is stored as it came, with its final dot.
    let body = format!("{head}{}.\r\n", line.repeat((SIZE - head.len()) / line.len()));
    let mut made = 0;
    while made < messages {
        let mut last = None;
        for _ in 0..TOGETHER.min(messages - made) {
            let envelope = Envelope {
                sender: "sender@example.com".into(),
                recipients: vec![format!("r{made}@d{}.test", made % domains)],
                arrival_ms: now.0,
                client: "192.0.2.7".into(),
                helo: "client.example.com".into(),
                ..Envelope::default()
            };
            let prefix = |_: QueueId, _: &mut Vec<u8>| {};
            let (_, commit) = queue.append(&envelope, prefix, &[body.as_bytes()]).expect("room");
            last = Some(commit);
            made += 1;
        }
        last.expect("one at least").await.expect("durable");
    }
    queue.close();
    commits.await;
}

/// `dN.test` has its mail at `mN.test`, which is the N-th address of 127.16.0.0/12.
fn names() -> DnsServer {
    let number = |name: &str| name.strip_suffix(".test")?[1..].parse::<u32>().ok();
    let server = DnsServer::with(move |question| {
        let number = number(&question.name)?;
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 16, 0, 1)) + number).to_string();
        match question.kind {
            RecordType::MX => Some(Answer::mx(&[(10, &format!("m{number}.test"))])),
            RecordType::A => Some(Answer::addresses(&[&address])),
            _ => Some(Answer::no_data()),
        }
    });
    server.count_in_all_only();
    server
}

/// What the next hop has done, told to the bench's thread.
#[derive(Default)]
struct Taken {
    messages: AtomicU64,
    connections: AtomicU64,
}

/// A next hop that only answers. With `defers` it defers each tenth recipient the
/// first time.
struct Hop {
    taken: Arc<Taken>,
    defers: bool,
    deferred: RefCell<HashSet<Vec<u8>>>,
}

impl Hop {
    async fn serve(self: Rc<Self>, mut stream: Stream) -> std::io::Result<()> {
        self.taken.connections.fetch_add(1, Ordering::Relaxed);
        let (mut unread, mut out) = (Vec::new(), b"220 hop\r\n".to_vec());
        let (mut in_body, mut recipients) = (false, 0);
        let mut part = vec![0; 64 << 10];
        loop {
            let mut used = 0;
            loop {
                let rest = &unread[used..];
                let end: &[u8] = if in_body { b"\r\n.\r\n" } else { b"\r\n" };
                let Some(at) = memchr::memmem::find(rest, end) else { break };
                used += at + end.len();
                if in_body {
                    in_body = false;
                    out.extend_from_slice(b"250 2.0.0 taken\r\n");
                    self.taken.messages.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let line = &rest[..at];
                let answer: &[u8] = match line.get(..4) {
                    Some(b"EHLO") => b"250-hop\r\n250-SIZE\r\n250-8BITMIME\r\n250 PIPELINING\r\n",
                    Some(b"MAIL") => {
                        recipients = 0;
                        b"250 2.1.0 ok\r\n"
                    }
                    Some(b"RCPT") if self.is_deferred(line) => b"451 4.3.0 later\r\n",
                    Some(b"RCPT") => {
                        recipients += 1;
                        b"250 2.1.5 ok\r\n"
                    }
                    Some(b"DATA") if recipients == 0 => b"554 5.5.1 nobody to send to\r\n",
                    Some(b"DATA") => {
                        in_body = true;
                        b"354 go on\r\n"
                    }
                    _ => b"250 2.0.0 ok\r\n",
                };
                out.extend_from_slice(answer);
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

    fn is_deferred(&self, line: &[u8]) -> bool {
        let name = line.split(|&byte| byte == b'@').next().unwrap_or_default();
        self.defers && name.ends_with(b"7") && self.deferred.borrow_mut().insert(name.to_vec())
    }
}

/// Serves on `listener` for ever; a thread of its own, which ends with the bench.
fn start_hop(cpu: usize, listener: TcpListener, defers: bool) -> Arc<Taken> {
    let taken = Arc::new(Taken::default());
    let hop_taken = Arc::clone(&taken);
    let run = run_pinned("hop", Some(cpu), move || async move {
        let hop = Rc::new(Hop { taken: hop_taken, defers, deferred: RefCell::default() });
        let listener = Listener::adopt(listener);
        while let Ok((stream, _)) = listener.accept().await {
            let hop = Rc::clone(&hop);
            // The client may close in any way.
            spawn(async move { drop(hop.serve(stream).await) }).detach();
        }
    });
    drop(run.expect("an executor"));
    taken
}

/// A server; killed when dropped.
struct Server {
    child: Child,
    http: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(data: &Path, dns: SocketAddr, port: u16) -> Self {
        let http = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
        let settings = [
            format!("data_dir={:?}", data.display().to_string()),
            "hostname=\"relay.test\"".into(),
            "cores=\"0-0\"".into(),
            "listener=[{address=\"127.0.0.1:0\"}]".into(),
            "route=[]".into(),
            format!("admin.http=\"{http}\""),
            format!("dns.servers=[\"{dns}\"]"),
            format!("delivery.port={port}"),
            "delivery.allow_private_targets=true".into(),
            "queue.retry=[\"1s\"]".into(),
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringpost"));
        command.arg("serve").stdin(Stdio::null()).stderr(Stdio::null());
        for setting in settings {
            command.arg("--set").arg(setting);
        }
        Server { child: command.spawn().expect("the server"), http }
    }

    /// The sum over the shards of a metric, once the server answers.
    fn metric(&self, name: &str) -> Option<u64> {
        let mut stream = TcpStream::connect(self.http).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let values = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
        Some(values.filter_map(|(_, value)| value.parse::<u64>().ok()).sum())
    }

    /// CPU time so far and the most memory so far, in seconds and MiB.
    fn used(&self) -> (f64, f64) {
        let read = |what: &str| {
            fs::read_to_string(format!("/proc/{}/{what}", self.child.id())).unwrap_or_default()
        };
        let stat = read("stat");
        let behind_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let fields: Vec<&str> = behind_name.split(' ').collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse().ok()).unwrap_or(0.0);
        let status = read("status");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: f64 = peak
            .and_then(|text| text.trim().trim_end_matches(" kB").parse().ok())
            .unwrap_or_default();
        ((ticks(11) + ticks(12)) / TICKS_PER_SECOND, kib / 1024.0)
    }
}

fn wait(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "it never came to be so: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

const COLUMNS: [&str; 7] = [
    "messages/s",
    "CPU s for 1,000",
    "flushes a message",
    "wake-ups a message",
    "connections a message",
    "questions to DNS a message",
    "memory at most, MiB",
];

/// One log relayed: the figures of [`COLUMNS`].
fn relay(plan: &Plan, cpus: &[usize], sites: u64, defers: bool) -> [f64; 7] {
    let work = tempfile::tempdir_in(&plan.dir).expect("a directory to work in");
    let (log, messages) = (work.path().join("log-00000"), plan.messages);
    let first = cpus[0];
    let filled = run_pinned("fill", Some(first), move || fill(log, messages, sites));
    filled.expect("an executor").join().expect("no panic");
    let listener = listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let taken = start_hop(cpus[cpus.len() - 1], listener, defers);
    let dns = names();
    let server = Server::start(work.path(), dns.address, port);
    let count = || taken.messages.load(Ordering::Relaxed);
    wait("the first", || count() > 0);
    let (begun, before) = (Instant::now(), count());
    wait("the last", || count() >= messages);
    let seconds = begun.elapsed().as_secs_f64();
    let metric = |name: &str| server.metric(&format!("ringpost_{name}")).unwrap_or(u64::MAX);
    wait("all settled", || metric("queued_messages{") == 0);
    let (cpu, memory) = server.used();
    let each = |count: u64| count as f64 / messages as f64;
    [
        (count() - before) as f64 / seconds,
        cpu * 1000.0 / messages as f64,
        each(metric("flushes_total")),
        each(metric("wakeups_total")),
        each(taken.connections.load(Ordering::Relaxed)),
        each(dns.total()),
        memory,
    ]
}

/// Median and range.
fn show(mut seen: Vec<f64>) -> String {
    seen.sort_by(f64::total_cmp);
    let digits = match seen[0] {
        100.0.. => 0,
        10.0.. => 1,
        _ => 3,
    };
    let (median, last) = (seen[seen.len() / 2], seen[seen.len() - 1]);
    format!("{median:.digits$} ({:.digits$}-{last:.digits$})", seen[0])
}

fn main() {
    let plan = plan();
    raise_open_files().expect("a limit");
    let cpus = allowed_cpus().expect("the CPUs");
    let many = format!("{} sites", plan.sites);
    let scenes = [
        ("one site".to_owned(), 1, false),
        (many.clone(), plan.sites, false),
        ("one site, a tenth deferred at first".into(), 1, true),
        (format!("{many}, a tenth deferred at first"), plan.sites, true),
    ];
    let mut seen: Vec<Vec<[f64; 7]>> = vec![Vec::new(); scenes.len()];
    let begun = Instant::now();
    for turn in 0..plan.turns.max(1) {
        if turn > 0 && begun.elapsed() > plan.span {
            break;
        }
        for ((_, sites, defers), seen) in scenes.iter().zip(&mut seen) {
            seen.push(relay(&plan, &cpus, *sites, *defers));
        }
    }
    println!("{} messages of {SIZE} bytes, from the log; median and range:\n", plan.messages);
    println!("| | {} |\n|{}", COLUMNS.join(" | "), "---|".repeat(COLUMNS.len() + 1));
    for ((name, ..), turns) in scenes.iter().zip(seen) {
        let cells = (0..COLUMNS.len()).map(|at| show(turns.iter().map(|turn| turn[at]).collect()));
        println!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
}
