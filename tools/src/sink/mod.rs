//! `ringpost-sink`: an SMTP server that takes mail and does little or nothing
//! with it: the far end of measurements and tests, the ceiling that a relay is
//! measured against (`--discard`), and a peer that misbehaves as asked.
//!
//! One pinned executor for each core ([`worker`]), a task for each connection
//! ([`session`]) with its own [`mood`]; [`limits`] are kept over all of them, and
//! [`persona`] has the words; [`start`] is the whole of it as a call.

mod chunks;
pub mod limits;
pub mod mood;
pub mod options;
pub mod persona;
pub mod receipt;
mod secure;
pub mod session;
pub mod tls;
pub mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Parser;
use ringpost::io::executor::{Pinned, run_pinned};
use ringpost::io::net::listen;
use ringpost::io::process::{allowed_cpus, raise_open_files};

use crate::text::{ended_badly, say};
use crate::{draw, interrupt, ledger};
use limits::Limits;
use options::Options;
use secure::Belief;
use tls::Tls;
use worker::{Shared, Worker};

/// The tool with its arguments, the program's name first.
pub fn main_with(arguments: Vec<String>) -> ExitCode {
    let options = match Options::try_parse_from(arguments) {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()) * 2);
        }
    };
    match serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ended_badly("ringpost-sink", &error),
    }
}

/// Runs until a signal comes or enough messages have.
fn serve(options: &Options) -> io::Result<()> {
    let sink = start(options)?;
    for address in &sink.addresses {
        say(format_args!("listening on {address}"))?;
    }
    let begun = Instant::now();
    let (totals, threads) = (Totals(sink.shared), sink.threads);
    let enough = options.messages.unwrap_or(u64::MAX);
    let joiner = std::thread::spawn(move || join(threads));
    interrupt::wait(&joiner, |_| totals.taken() >= enough, || totals.stop(), || ())?;
    let joined = joiner.join().map_err(|_| io::Error::other("a worker panicked"))?;
    say(totals.summary(begun.elapsed()))?;
    joined
}

/// A running sink.
pub struct Sink {
    /// What it listens on, ports filled in.
    pub addresses: Vec<SocketAddr>,
    shared: Vec<Arc<Shared>>,
    threads: Vec<Pinned<io::Result<()>>>,
}

/// Starts a sink.
///
/// # Errors
/// An address cannot be listened on, a file cannot be made, or the kernel
/// refuses an executor.
pub fn start(options: &Options) -> io::Result<Sink> {
    let cpus = options
        .cores
        .resolve(&allowed_cpus()?)
        .map_err(|error| io::Error::other(format!("--cores: {error}")))?;
    raise_open_files()?;
    if let Some(path) = &options.ledger {
        ledger::create(path, ledger::Side::Received)?;
    }
    let mut addresses = options.listen.clone();
    let mut shared: Vec<Arc<Shared>> = Vec::new();
    let mut threads = Vec::new();
    let limits = Arc::new(Limits::new(options.bounds()));
    let seed = options.seed.unwrap_or_else(draw::seed);
    let tls = Arc::new(Tls::new(&options.security, &options.hostname)?);
    let belief = Belief::new(&options.security)?;
    for (index, cpu) in cpus.iter().enumerate() {
        let listeners = listen_on(&mut addresses)?;
        let (options, mine) = (options.clone(), Arc::<Shared>::default());
        let limits = Arc::clone(&limits);
        let security = (Arc::clone(&tls), belief.clone());
        shared.push(Arc::clone(&mine));
        threads.push(run_pinned(&format!("sink-{index}"), Some(*cpu), move || async move {
            Worker::new(index as u16, &options, (seed, limits), security, mine)?
                .run(listeners)
                .await
        })?);
    }
    Ok(Sink { addresses, shared, threads })
}

/// A socket for each address; the first worker's fill in port 0 for the rest.
fn listen_on(addresses: &mut [SocketAddr]) -> io::Result<Vec<TcpListener>> {
    let one = |address: &mut SocketAddr| {
        let listener = listen(*address)
            .map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
        *address = listener.local_addr()?;
        Ok(listener)
    };
    addresses.iter_mut().map(one).collect()
}

impl Sink {
    /// Messages taken so far.
    pub fn taken(&self) -> u64 {
        self.shared.iter().map(|one| one.taken.load(Ordering::Relaxed)).sum()
    }

    /// Stops it, its ledger written.
    ///
    /// # Errors
    /// The ledger could not be written, or a worker panicked.
    pub fn stop(self) -> io::Result<()> {
        Totals(self.shared).stop();
        join(self.threads)
    }
}

fn join(threads: Vec<Pinned<io::Result<()>>>) -> io::Result<()> {
    threads.into_iter().try_for_each(|thread| thread.join()?)
}

/// The counts of all workers.
struct Totals(Vec<Arc<Shared>>);

impl Totals {
    fn taken(&self) -> u64 {
        self.0.iter().map(|one| one.taken.load(Ordering::Relaxed)).sum()
    }

    fn stop(&self) {
        self.0.iter().for_each(|one| one.stop.store(true, Ordering::Relaxed));
    }

    fn summary(&self, elapsed: Duration) -> String {
        let bytes: u64 = self.0.iter().map(|one| one.bytes.load(Ordering::Relaxed)).sum();
        let connections: u64 =
            self.0.iter().map(|one| one.connections.load(Ordering::Relaxed)).sum();
        format!(
            "{} messages, {:.1} MB, {connections} connections in {:.1} s",
            self.taken(),
            bytes as f64 / 1e6,
            elapsed.as_secs_f64()
        )
    }
}
