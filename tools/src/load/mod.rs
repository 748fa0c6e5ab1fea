//! `ringpost-load`: offers mail to an SMTP server over many connections, in a
//! closed or an open loop, and reports how fast it was taken, how long each
//! step took and what was refused.
//!
//! One pinned executor for each core ([`worker`]) with its share of the
//! connections ([`connection`]) and of the messages ([`schedule`]); the main
//! thread waits, shows progress, and adds the figures up ([`report`]).

pub mod connection;
pub mod figures;
pub mod options;
pub mod plan;
pub mod report;
pub mod schedule;
pub mod worker;

use std::io::{self, IsTerminal, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Parser;
use ringpost::io::executor::{Pinned, run_pinned};
use ringpost::io::process::{allowed_cpus, raise_open_files};

use crate::{interrupt, ledger, machine, verify};
use figures::Figures;
use options::{Cli, Command, Options, VerifyOptions};
use plan::Plan;
use report::Report;
use schedule::Schedule;
use worker::{Shared, Worker};

/// Time between the start of the workers and the first message, so that all
/// of them are ready for it.
const HEAD_START: Duration = Duration::from_millis(50);

/// The tool with its arguments, the program's name first.
pub fn main_with(arguments: Vec<String>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()) * 2);
        }
    };
    let done = match &cli.command {
        Some(Command::Verify(options)) => verify_ledgers(options),
        None => run_and_print(&cli.options),
    };
    done.unwrap_or_else(|error| {
        eprintln!("ringpost-load: {error}");
        ExitCode::FAILURE
    })
}

fn verify_ledgers(options: &VerifyOptions) -> io::Result<ExitCode> {
    let verdict = verify::compare(&options.sent, &options.received, |_| ())?;
    let mut out = io::stdout().lock();
    if options.json {
        serde_json::to_writer_pretty(&mut out, &verdict)?;
        writeln!(out)?;
    } else {
        write!(out, "{verdict}")?;
    }
    Ok(if verdict.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_and_print(options: &Options) -> io::Result<ExitCode> {
    let report = run(options)?;
    print!("{report}");
    report.write_files(options)?;
    let took_nothing = report.messages.accepted_in_all == 0;
    Ok(if took_nothing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Makes a run.
///
/// # Errors
/// The server cannot be reached at the start, a file cannot be read or
/// written, or the kernel refuses an executor.
pub fn run(options: &Options) -> io::Result<Report> {
    let cpus = options
        .cores
        .resolve(&allowed_cpus()?)
        .map_err(|error| io::Error::other(format!("--cores: {error}")))?;
    let workers = cpus.len().min(options.connections as usize);
    raise_open_files()?;
    let plan = Arc::new(Plan::new(options)?);
    probe(&plan, &options.target)?;
    if let Some(path) = &options.ledger {
        ledger::create(path, ledger::Side::Sent)?;
    }
    let start = Instant::now() + HEAD_START;
    let end = options.end_after().map(|span| start + options.warmup + span);
    let measure_from = start + options.warmup;
    let shared: Vec<Arc<Shared>> = (0..workers).map(|_| Arc::default()).collect();
    let mut threads: Vec<Pinned<io::Result<Figures>>> = Vec::new();
    for (index, cpu) in cpus.iter().take(workers).enumerate() {
        let share = (index, workers);
        let schedule = Schedule::new(share, options.messages, (start, end), options.rate);
        let (plan, shared) = (Arc::clone(&plan), Arc::clone(&shared[index]));
        let connections = share_of(options.connections, share);
        threads.push(run_pinned(&format!("load-{index}"), Some(*cpu), move || async move {
            let worker = Worker::new(plan, schedule, measure_from, shared)?;
            ringpost::io::executor::sleep(start.saturating_duration_since(Instant::now())).await;
            worker.run(connections).await
        })?);
    }
    let joiner = std::thread::spawn(move || join(threads));
    let mut shown = 0;
    let tick = |elapsed: Duration| {
        if elapsed.as_secs() > shown {
            shown = elapsed.as_secs();
            show_progress(elapsed, &shared);
        }
        false
    };
    let stop = || shared.iter().for_each(|one| one.stop.store(true, Ordering::Relaxed));
    let interrupted = interrupt::wait(&joiner, tick, stop)?;
    let figures = joiner.join().map_err(|_| io::Error::other("a worker panicked"))??;
    clear_progress();
    let cpu_s = machine::cpu_seconds(std::process::id()).unwrap_or_default();
    Ok(Report::new(options, figures, measure_from, (cpu_s, workers), interrupted))
}

/// Connects once, so that a wrong target is told at once and plainly.
fn probe(plan: &Plan, name: &str) -> io::Result<()> {
    TcpStream::connect_timeout(&plan.target, plan.timeout)
        .map(drop)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot connect to {name}: {error}")))
}

fn share_of(connections: u32, (index, workers): (usize, usize)) -> u32 {
    let (all, index, workers) = (connections as usize, index, workers);
    (all / workers + usize::from(index < all % workers)) as u32
}

fn join(threads: Vec<Pinned<io::Result<Figures>>>) -> io::Result<Figures> {
    let mut total = Figures::default();
    for thread in threads {
        total.add(thread.join()??);
    }
    Ok(total)
}

fn show_progress(elapsed: Duration, shared: &[Arc<Shared>]) {
    if io::stderr().is_terminal() {
        let accepted: u64 = shared.iter().map(|one| one.accepted.load(Ordering::Relaxed)).sum();
        let rate = accepted as f64 / elapsed.as_secs_f64();
        eprint!("\r{:>5.0} s  {accepted:>12} accepted  {rate:>9.0}/s ", elapsed.as_secs_f64());
    }
}

fn clear_progress() {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_has_a_worker() {
        for (connections, workers) in [(100, 3), (1, 1), (7, 7)] {
            let shares = (0..workers).map(|index| share_of(connections, (index, workers)));
            assert_eq!(shares.sum::<u32>(), connections);
        }
    }
}
