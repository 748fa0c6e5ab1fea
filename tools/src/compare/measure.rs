//! One measurement: a fresh server, a load on it for a while, and what it took,
//! relayed and used meanwhile.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use serde::Serialize;

use super::account::{Meter, Usage};
use super::options::{Setting, Tls};
use super::server::{Mode, Place, Running, Server, session};
use crate::demo::child::{Process, Role};
use crate::sink::{self, Sink};

/// How long mail is sent before it counts: servers with a process for each connection
/// need a while to start them, those in a language that is compiled as it runs too.
const WARMUP: Duration = Duration::from_secs(2);

/// How often a server's processes are looked at, at most.
const SAMPLE: Duration = Duration::from_millis(200);

/// Looking at processes may take one part in so many of the time: with many of
/// them it takes longer, and would disturb what is measured.
const LOOKING: u32 = 50;

/// Idle connections for each one asked for, of servers that do not have a process
/// for each: theirs cost little, and a few of them would not show.
const LIGHT: u32 = 10;
/// How long opening idle connections may take; fewer will do where a server is slow to
/// greet.
const IDLE_SPAN: Duration = Duration::from_secs(15);

/// How long the memory of a server may take to settle.
const SETTLING: Duration = Duration::from_secs(3);

/// How often receipts are counted while a queue drains.
const POLL: Duration = Duration::from_millis(10);

/// A queue that has handed on nothing for so long does not drain any more.
const STALLED: Duration = Duration::from_secs(10);

/// Processes that a server with one for each connection needs besides those.
const SPARE_PROCESSES: u32 = 50;

/// The surroundings of all measurements.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Folder for queues and logs.
    pub data: PathBuf,
    /// CPUs of the server and of the load, for accepting and for relaying.
    pub cpus: [(Vec<usize>, Vec<usize>); 2],
    /// How long mail is sent.
    pub duration: Duration,
    /// How long a queue may take to drain behind that.
    pub drain: Duration,
    /// Idle connections to measure the memory of one by.
    pub idle: u32,
    /// Set when everything is to end.
    pub stop: Arc<AtomicBool>,
}

/// What came of one measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// The server.
    pub server: String,
    /// In what setting.
    pub setting: Setting,
    /// Which time.
    pub round: u32,
    /// Messages answered 250 a second.
    pub accepted_per_s: f64,
    /// Messages that reached the sink, a second, until all had.
    pub relayed_per_s: Option<f64>,
    /// TLS connections made a second, over TLS.
    pub handshakes_per_s: Option<f64>,
    /// Median time to the 250.
    pub p50_ms: f64,
    /// 99 of a hundred were faster.
    pub p99_ms: f64,
    /// Processor time of the server for 1,000 messages; `None` if it is not ours.
    pub cpu_s_per_1000: Option<f64>,
    /// Memory at most, in MiB.
    pub memory_mib: Option<f64>,
    /// Messages refused or unanswered.
    pub failed: u64,
    /// Messages answered 250 that had not been relayed when nothing came any more.
    pub stuck: u64,
    /// Messages that were still being relayed when the time for it was over.
    pub queued: u64,
}

/// What the JSON of a load has, as far as it is needed.
#[derive(serde::Deserialize)]
struct LoadResult {
    messages_per_s: f64,
    messages: LoadMessages,
    tls: Option<LoadTls>,
    latency: LoadLatency,
}

#[derive(serde::Deserialize)]
struct LoadMessages {
    accepted_in_all: u64,
    refused: u64,
    unanswered: u64,
}

#[derive(serde::Deserialize)]
struct LoadTls {
    handshakes_per_s: f64,
}

#[derive(serde::Deserialize)]
struct LoadLatency {
    accept: crate::latency::Percentiles,
}

impl LoadResult {
    /// The figures in `json`; if there are none, what the load said last in `log`.
    fn read(json: &Path, log: &Path) -> io::Result<Self> {
        if !json.exists() {
            let said = fs::read_to_string(log).unwrap_or_default();
            return Err(io::Error::other(said.lines().last().unwrap_or("the load failed")));
        }
        Ok(serde_json::from_slice(&fs::read(json)?)?)
    }
}

impl Surroundings {
    fn cpus(&self, mode: Mode) -> &(Vec<usize>, Vec<usize>) {
        &self.cpus[usize::from(mode == Mode::Relay)]
    }

    /// Goes on, unless everything is to end.
    ///
    /// # Errors
    /// It is.
    pub fn check(&self) -> io::Result<()> {
        match self.stop.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted")),
        }
    }

    /// Where `server` is started next: a port and a next hop that are free.
    ///
    /// # Errors
    /// There is no free port.
    pub fn place(
        &self,
        (mode, is_secured): (Mode, bool),
        connections: u32,
        relay: SocketAddr,
    ) -> io::Result<Place> {
        Ok(Place {
            dir: self.data.join("server"),
            address: TcpListener::bind("127.0.0.1:0")?.local_addr()?,
            relay,
            cpus: self.cpus(mode).0.clone(),
            mode,
            is_secured,
            processes: connections + SPARE_PROCESSES,
        })
    }

    /// Measures `server` in `setting`.
    ///
    /// # Errors
    /// It does not start or stop, or the load cannot be made.
    pub fn measure(
        &self,
        server: &Server,
        setting: Setting,
        round: u32,
    ) -> io::Result<Measurement> {
        self.check()?;
        let (_, load_cpus) = self.cpus(setting.mode);
        let sink = start_sink(load_cpus)?;
        let how = (setting.mode, setting.tls != Tls::No);
        let place = self.place(how, setting.connections, sink.addresses[0])?;
        let running = server.start(&place)?;
        let measured = self.load(server, setting, &running, &sink);
        running.stop()?;
        sink.stop()?;
        measured.map(|measured| Measurement { round, ..measured })
    }

    fn load(
        &self,
        server: &Server,
        setting: Setting,
        running: &Running,
        sink: &Sink,
    ) -> io::Result<Measurement> {
        let json = self.data.join("load.json");
        if json.exists() {
            // A load that fails writes none, and would seem to have the last one's figures.
            fs::remove_file(&json)?;
        }
        let warmup = WARMUP.min(self.duration * 2 / 3);
        let arguments = [
            format!("--target={}", running.address),
            format!("--connections={}", setting.connections),
            format!("--size={}", setting.size),
            format!("--duration={}us", self.duration.as_micros()),
            format!("--warmup={}us", warmup.as_micros()),
            format!("--cores={}", cpu_list(&self.cpus(setting.mode).1)),
            format!("--json={}", json.display()),
            "--quiet".to_owned(),
        ];
        let opening = server.opening().map(|most| format!("--opening={most}"));
        let further = further_arguments(setting).into_iter().map(str::to_owned).chain(opening);
        let arguments: Vec<String> = arguments.into_iter().chain(further).collect();
        let mut watch = Watch::new(running);
        let cpu_before = watch.look(&[]).seconds;
        let begun = Instant::now();
        let log = self.data.join("load.log");
        let mut load = Process::start(Role::Load, &arguments, &log)?;
        let pid = load.id();
        while load.ended()?.is_none() {
            self.check()?;
            watch.look_if_due(&[pid]);
            thread::sleep(POLL);
        }
        self.check()?;
        // It fails if nothing was accepted too, and says so in its figures.
        let _ = load.output();
        let result = LoadResult::read(&json, &log)
            .map_err(|error| io::Error::other(format!("{}: {error}", server.name)))?;
        let accepted = result.messages.accepted_in_all;
        let (mut relayed_per_s, mut stuck, mut queued) = (None, 0, 0);
        if setting.mode == Mode::Relay {
            let drained = self.drained(sink, accepted, &mut watch)?;
            let left = accepted.saturating_sub(drained.taken);
            *(if drained.stalled { &mut stuck } else { &mut queued }) = left;
            let span = drained.last.saturating_duration_since(begun).as_secs_f64();
            relayed_per_s = Some(if span > 0.0 { drained.taken as f64 / span } else { 0.0 });
        }
        let cpu = watch.look(&[]).seconds - cpu_before;
        let ours = server.is_ours();
        Ok(Measurement {
            server: server.name.clone(),
            setting,
            round: 0,
            accepted_per_s: result.messages_per_s,
            relayed_per_s,
            handshakes_per_s: result.tls.map(|tls| tls.handshakes_per_s),
            p50_ms: result.latency.accept.p50_ms,
            p99_ms: result.latency.accept.p99_ms,
            cpu_s_per_1000: ours.then(|| cpu * 1000.0 / accepted.max(1) as f64),
            memory_mib: ours.then_some(watch.memory as f64 / f64::from(1 << 20)),
            failed: result.messages.refused + result.messages.unanswered,
            stuck,
            queued,
        })
    }

    /// Waits until `sink` has all of `accepted`, nothing comes any more, or the time
    /// for it is over.
    fn drained(&self, sink: &Sink, accepted: u64, watch: &mut Watch) -> io::Result<Drained> {
        let begun = Instant::now();
        let (mut last, mut taken) = (begun, sink.taken());
        let mut stalled = false;
        while taken < accepted && !stalled && begun.elapsed() < self.drain {
            self.check()?;
            thread::sleep(POLL);
            let now = sink.taken();
            if now > taken {
                (last, taken) = (Instant::now(), now);
            }
            stalled = last.elapsed() > STALLED;
            watch.look_if_due(&[]);
        }
        Ok(Drained { last, taken, stalled })
    }

    /// Memory of `server` for each idle connection, in KiB; `None` if it is not
    /// ours, or lets no connection wait.
    ///
    /// # Errors
    /// It does not start or stop.
    pub fn idle_kib(&self, server: &Server) -> io::Result<Option<f64>> {
        if self.idle == 0 || !server.is_ours() {
            return Ok(None);
        }
        let relay = "127.0.0.1:9".parse().expect("an address");
        let mode = server.modes().first().copied().unwrap_or(Mode::Accept);
        let idle = if server.is_heavy() { self.idle } else { self.idle * LIGHT };
        let running = server.start(&self.place((mode, false), self.idle * 2, relay)?)?;
        let some = |count: u32| -> io::Result<Vec<TcpStream>> {
            let (begun, mut open) = (Instant::now(), Vec::new());
            while open.len() < count as usize && begun.elapsed() < IDLE_SPAN {
                self.check()?;
                open.push(session(running.address)?);
            }
            Ok(open)
        };
        // What the first ones cost once for all is no matter of one more.
        let measured = some(idle.div_ceil(4)).and_then(|first| {
            let mut watch = Watch::new(&running);
            let before = watch.settled();
            let more = some(idle)?;
            let (after, count) = (watch.settled(), more.len().max(1));
            drop((first, more));
            Ok(after.saturating_sub(before) as f64 / 1024.0 / count as f64)
        });
        running.stop()?;
        Ok(measured.ok())
    }
}

/// How the queue of a server drained.
struct Drained {
    /// When the last message came.
    last: Instant,
    /// How many have come.
    taken: u64,
    /// Nothing had come for long.
    stalled: bool,
}

/// Looks at a server now and then while it is measured.
struct Watch {
    meter: Meter,
    /// Most memory seen.
    memory: u64,
    next: Instant,
}

impl Watch {
    fn new(running: &Running) -> Self {
        Watch { meter: Meter::new(running.pid()), memory: 0, next: Instant::now() }
    }

    fn look(&mut self, except: &[u32]) -> Usage {
        let begun = Instant::now();
        let usage = self.meter.look(except);
        self.memory = self.memory.max(usage.memory);
        self.next = Instant::now() + SAMPLE.max(begun.elapsed() * LOOKING);
        usage
    }

    fn look_if_due(&mut self, except: &[u32]) {
        if Instant::now() >= self.next {
            self.look(except);
        }
    }

    /// Memory once it has stopped changing, or after a while.
    fn settled(&mut self) -> u64 {
        let (begun, mut last) = (Instant::now(), self.look(&[]).memory);
        while begun.elapsed() < SETTLING {
            thread::sleep(SAMPLE);
            let now = self.look(&[]).memory;
            if now.abs_diff(last) < last / 1000 {
                return now;
            }
            last = now;
        }
        last
    }
}

/// What the load is told of `setting` beside the rest.
fn further_arguments(setting: Setting) -> Vec<&'static str> {
    let mut all = Vec::new();
    if setting.pipelining {
        all.push("--pipelining");
    }
    if setting.tls != Tls::No {
        all.extend(["--tls=starttls", "--insecure"]);
    }
    if setting.tls == Tls::New {
        all.push("--messages-per-connection=1");
    }
    all
}

fn start_sink(cpus: &[usize]) -> io::Result<Sink> {
    let cores = format!("--cores={}", cpu_list(cpus));
    let given = ["ringpost-sink", "--discard", "--listen=127.0.0.1:0", &cores];
    sink::start(&sink::options::Options::parse_from(given))
}

/// In the notation that a single CPU is not taken for a count in.
fn cpu_list(cpus: &[usize]) -> String {
    let parts: Vec<String> = cpus.iter().map(|cpu| format!("{cpu}-{cpu}")).collect();
    parts.join(",")
}
