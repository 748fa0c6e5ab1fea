//! `ringpost-load`: offers mail to an SMTP server over many connections, in a
//! closed or an open loop, and reports how fast it was taken, how long each
//! step took and what was refused.
//!
//! One pinned executor for each core ([`worker`]) with its share of the
//! connections ([`connection`]) and of the messages ([`schedule`], [`profile`]);
//! the main thread waits, shows how it goes ([`live`]), and adds the figures up
//! ([`report`], [`html`]). [`knee`] makes many short runs of it, [`diff`]
//! compares their results.

mod body;
pub mod connection;
pub mod diff;
pub mod figures;
mod gate;
pub mod html;
pub mod knee;
pub mod live;
mod opening;
pub mod options;
pub mod plan;
pub mod profile;
pub mod report;
pub mod schedule;
pub mod security;
pub mod series;
pub mod sizes;
pub mod worker;

use std::io;
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Parser;
use ringpost::io::executor::{Pinned, run_pinned, sleep};
use ringpost::io::process::{allowed_cpus, raise_open_files};

use crate::text::{can_write, ended_badly, say};
use crate::{interrupt, ledger, machine, verify};
use figures::Figures;
use live::Live;
use options::{Cli, Command, DiffOptions, Options, VerifyOptions};
use plan::Plan;
use report::{Conditions, Report};
use schedule::Schedule;
use worker::{Shared, Worker};

/// Time between the start of the workers and the first message, so that all
/// of them are ready for it.
const HEAD_START: Duration = Duration::from_millis(50);

/// The tool with its arguments, the program's name first.
pub fn main_with(arguments: Vec<String>) -> ExitCode {
    let command_line = arguments.join(" ");
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()) * 2);
        }
    };
    let done = match &cli.command {
        Some(Command::Verify(options)) => verify_ledgers(options),
        Some(Command::Diff(options)) => compare_results(options),
        None if cli.options.find_knee.is_some() => knee::find_and_print(&cli.options),
        None => run_and_print(&cli.options, command_line),
    };
    done.unwrap_or_else(|error| ended_badly("ringpost-load", &error))
}

fn verify_ledgers(options: &VerifyOptions) -> io::Result<ExitCode> {
    let verdict = verify::compare(&options.sent, &options.received, |_| ())?;
    match options.json {
        true => say(serde_json::to_string_pretty(&verdict)?)?,
        false => say(verdict.to_string().trim_end())?,
    }
    Ok(if verdict.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn compare_results(options: &DiffOptions) -> io::Result<ExitCode> {
    let comparison = diff::compare(&options.before, &options.after)?;
    match options.json {
        true => say(serde_json::to_string_pretty(&comparison)?)?,
        false => say(comparison.to_string().trim_end())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_and_print(options: &Options, command_line: String) -> io::Result<ExitCode> {
    can_write(options.files())?;
    let mut report = run(options)?;
    report.command_line = command_line;
    let written = report.write_files(options);
    say(report.to_string().trim_end())?;
    written?;
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
    let cpu_before = machine::cpu_seconds(std::process::id()).unwrap_or_default();
    let start = Instant::now() + HEAD_START;
    let measured_from = start + options.warmup;
    let shared: Vec<Arc<Shared>> = (0..workers).map(|_| Arc::default()).collect();
    let threads = start_workers(options, &plan, (start, measured_from), &cpus, &shared)?;
    let total = Figures::of_plan(&plan, start);
    let joiner = std::thread::spawn(move || join(total, threads));
    let mut live = Live::new(options, &plan, start);
    let tick = |_| {
        live.tick(&shared);
        false
    };
    let stop = || shared.iter().for_each(|one| one.stop.store(true, Ordering::Relaxed));
    let waited = interrupt::wait(&joiner, tick, stop, || ());
    live.finish();
    let figures = joiner.join().map_err(|_| io::Error::other("a worker panicked"))??;
    let conditions = Conditions {
        measured_from: options.warmup,
        ended: start.elapsed(),
        profile: plan.profile.clone(),
        intended_until: intended_until(options, &plan),
        cpu_s: machine::cpu_seconds(std::process::id()).unwrap_or_default() - cpu_before,
        cores: workers,
        interrupted: waited?,
    };
    Ok(Report::new(options, figures, &conditions))
}

/// When the last message of an open loop should begin, from the start.
fn intended_until(options: &Options, plan: &Plan) -> Option<Duration> {
    let by_time = options.end_after().map(|span| options.warmup + span);
    let counted = options.messages.zip(plan.profile.as_ref());
    let by_count = counted.map(|(count, profile)| profile.at(count.saturating_sub(1)));
    by_time.into_iter().chain(by_count).min()
}

/// An executor for each worker.
fn start_workers(
    options: &Options,
    plan: &Arc<Plan>,
    (start, measured_from): (Instant, Instant),
    cpus: &[usize],
    shared: &[Arc<Shared>],
) -> io::Result<Vec<Pinned<io::Result<Figures>>>> {
    let end = options.end_after().map(|span| measured_from + span);
    let workers = shared.len();
    let one = |(index, cpu): (usize, &usize)| {
        let share = (index, workers);
        let profile = plan.profile.clone();
        let schedule = Schedule::new(share, options.messages, (start, end), profile);
        let (plan, shared) = (Arc::clone(plan), Arc::clone(&shared[index]));
        let connections = share_of(options.connections, share);
        let opening = options.opening.map(|most| share_of(most, share).max(1));
        run_pinned(&format!("load-{index}"), Some(*cpu), move || async move {
            let times = (start, measured_from);
            let worker = Worker::new(plan, schedule, share, times, (shared, opening))?;
            sleep(start.saturating_duration_since(Instant::now())).await;
            worker.run(connections).await
        })
    };
    cpus.iter().take(workers).enumerate().map(one).collect()
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

fn join(mut total: Figures, threads: Vec<Pinned<io::Result<Figures>>>) -> io::Result<Figures> {
    for thread in threads {
        total.add(thread.join()??);
    }
    Ok(total)
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
