//! `ringpost-compare`: measures mail servers on this machine against each other.
//!
//! In one run and in turn, so that what the machine does meanwhile meets all of
//! them: the sink that only answers (the ceiling), ringpost, each other server
//! that is installed, and those that the user describes ([`server`]). Each is
//! started anew for each measurement ([`measure`]), what it uses is taken from
//! all of its processes ([`account`]), and the medians go into a document with
//! the machine named ([`table`]). Everything is measured once before anything is
//! measured again ([`progress`]), so that a run that is cut off leaves a whole table.

pub mod account;
pub mod measure;
pub mod options;
pub mod progress;
pub mod server;
pub mod table;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use ringpost::base::UnixMillis;
use ringpost::io::process::{allowed_cpus, raise_open_files};
use ringpost::mail::date;

use crate::demo::child;
use crate::interrupt;
use crate::machine::{self, Machine};
use crate::text::{can_write, ended_badly, grouped, note, say, size_label};
use crate::values::Cores;
use measure::{Measurement, Surroundings};
use options::{Options, Setting, Tls};
use progress::{Progress, Step};
use server::{Mode, Server};
use table::{Comparison, Entry};

/// The tool with its arguments, the program's name first.
pub fn main_with(arguments: Vec<String>) -> ExitCode {
    if let Some(code) = child::play(&arguments) {
        return code;
    }
    let command_line = arguments.join(" ");
    let options = match Options::try_parse_from(arguments) {
        Ok(options) => options.settled(),
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()) * 2);
        }
    };
    match watched(options, command_line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ended_badly("ringpost-compare", &error),
    }
}

/// Compares on a thread of its own, so that a signal stops it in order: the
/// server that runs then must not be left behind. A second one kills what runs.
fn watched(options: Options, command_line: String) -> io::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    let work = thread::spawn(move || compare_and_write(&options, command_line, seen));
    let stop = || stop.store(true, Ordering::Relaxed);
    interrupt::wait(&work, |_| false, stop, account::end_descendants)?;
    work.join().map_err(|_| io::Error::other("the comparison panicked"))?
}

fn compare_and_write(
    options: &Options,
    command_line: String,
    stop: Arc<AtomicBool>,
) -> io::Result<()> {
    can_write([&options.json, &options.out].into_iter().filter_map(|path| path.as_deref()))?;
    let comparison = compare(options, command_line, stop)?;
    let document = comparison.document();
    let written = write(options, &comparison, &document);
    say(format_args!("\n{}", document.trim_end()))?;
    written?;
    if comparison.interrupted {
        return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted"));
    }
    Ok(())
}

/// Writes the files that are asked for.
fn write(options: &Options, comparison: &Comparison, document: &str) -> io::Result<()> {
    if options.out.is_some() || !options.quick {
        let path = options.out.clone().unwrap_or_else(|| usual_file(&comparison.host));
        fs::write(&path, document)?;
        note(format_args!("written to {}", path.display()));
    }
    match &options.json {
        Some(path) => fs::write(path, serde_json::to_string_pretty(comparison)? + "\n"),
        None => Ok(()),
    }
}

/// Where the document goes if nobody says.
fn usual_file(host: &str) -> PathBuf {
    let records = Path::new("benches/record");
    let folder = if records.is_dir() { records } else { Path::new("") };
    folder.join(format!("compare-{host}.md"))
}

/// Measures everything that `options` ask for, until the time is over or `stop` is
/// set. A server that cannot be measured is passed over, with the reason.
///
/// # Errors
/// No server can be measured, it was stopped before anything was, or the kernel
/// refuses something.
pub fn compare(
    options: &Options,
    command_line: String,
    stop: Arc<AtomicBool>,
) -> io::Result<Comparison> {
    account::adopt_orphans()?;
    raise_open_files()?;
    fs::create_dir_all(&options.data)?;
    let surroundings = Surroundings {
        data: options.data.canonicalize()?,
        cpus: cpus(options)?,
        duration: options.duration,
        drain: options.drain,
        idle: options.idle,
        stop,
    };
    let (servers, mut missing) = chosen(options)?;
    let (servers, entries) = met(&surroundings, servers, &mut missing)?;
    let within = Some(options.within).filter(|within| !within.is_zero());
    let mut progress = Progress::new(steps(options, &servers), within);
    let measurements = measure_all(&surroundings, &servers, &mut progress, &mut missing);
    let interrupted = surroundings.check().is_err();
    if measurements.is_empty() {
        surroundings.check()?;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let date = date::rfc5322(UnixMillis(now.as_millis() as u64));
    let of = |mode: Mode, cpus: &(Vec<usize>, Vec<usize>)| {
        format!("{}: servers on CPU {:?}, load and sink on CPU {:?}.", mode.name(), cpus.0, cpus.1)
    };
    Ok(Comparison {
        machine: Machine::here(),
        host: fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned(),
        date: String::from_utf8_lossy(&date[..16]).into_owned(),
        filesystem: machine::filesystem_of(&surroundings.data),
        command_line,
        cpus: [Mode::Accept, Mode::Relay]
            .iter()
            .filter(|mode| options.modes.contains(mode))
            .map(|mode| of(*mode, &surroundings.cpus[usize::from(*mode == Mode::Relay)]))
            .collect(),
        servers: entries,
        missing,
        planned: progress.all(),
        over: progress.over(),
        interrupted,
        measurements,
    })
}

/// Everything that is to be measured: all of it once, then again.
fn steps(options: &Options, servers: &[Server]) -> Vec<Step> {
    let settings = options.settings();
    let of_setting = |round, setting: Setting| {
        let all = servers.iter().enumerate().filter(move |(_, server)| setting.is_for(server));
        all.map(move |(server, _)| Step { round, setting, server })
    };
    (0..options.rounds)
        .flat_map(|round| settings.iter().flat_map(move |setting| of_setting(round, *setting)))
        .collect()
}

/// Makes the steps of `progress` until they are all over or it was stopped.
fn measure_all(
    surroundings: &Surroundings,
    servers: &[Server],
    progress: &mut Progress,
    missing: &mut Vec<String>,
) -> Vec<Measurement> {
    let mut measurements = Vec::new();
    while let Some(Step { round, setting, server }) = progress.next() {
        let begun = Instant::now();
        match surroundings.measure(&servers[server], setting, round) {
            Ok(measured) => {
                progress.done(begun.elapsed());
                note(format_args!("{}  {}", progress.label(), line(&measured)));
                measurements.push(measured);
            }
            Err(_) if surroundings.check().is_err() => break,
            Err(error) => {
                progress.done(begun.elapsed());
                let (mode, connections) = (setting.mode.name(), setting.connections);
                pass_over(missing, format!("{error} ({mode}, {connections} connections)"));
            }
        }
    }
    measurements
}

/// The servers that start, with what is known of them before any mail.
fn met(
    surroundings: &Surroundings,
    servers: Vec<Server>,
    missing: &mut Vec<String>,
) -> io::Result<(Vec<Server>, Vec<Entry>)> {
    let (mut started, mut entries) = (Vec::new(), Vec::new());
    for server in servers {
        let idle_kib = match surroundings.idle_kib(&server) {
            Ok(idle_kib) => idle_kib,
            Err(error) => {
                surroundings.check()?;
                pass_over(missing, error.to_string());
                continue;
            }
        };
        let place = surroundings.place((Mode::Accept, false), 1, ([127, 0, 0, 1], 9).into())?;
        let (name, version) = (server.name.clone(), server.version(&place));
        note(format_args!("{name}: {version}"));
        entries.push(Entry { name, version, idle_kib });
        started.push(server);
    }
    if started.is_empty() {
        return Err(io::Error::other(format!("nothing to measure: {}", missing.join("; "))));
    }
    Ok((started, entries))
}

fn pass_over(missing: &mut Vec<String>, reason: String) {
    note(reason.as_str());
    if !missing.contains(&reason) {
        missing.push(reason);
    }
}

impl Setting {
    /// True if `server` can be measured in it.
    fn is_for(self, server: &Server) -> bool {
        server.does(self.mode) && (self.tls == Tls::No || server.does_tls())
    }
}

/// A measurement in one line.
fn line(measured: &Measurement) -> String {
    let setting = measured.setting;
    let relayed = measured
        .relayed_per_s
        .map_or(String::new(), |rate| format!(", {} relayed/s", grouped(rate)));
    let faults = Some(table::faults(std::iter::once(measured))).filter(|text| text != table::NONE);
    format!(
        "{:<7}{:>8} {:>4} conn{}{}  {:<12}{:>8} accepted/s{relayed}{}",
        setting.mode.name(),
        size_label(setting.size),
        setting.connections,
        if setting.pipelining { " pipelining" } else { "" },
        match setting.tls {
            Tls::No => "",
            Tls::Kept => " TLS",
            Tls::New => " TLS, new",
        },
        measured.server,
        grouped(measured.accepted_per_s),
        faults.map_or(String::new(), |faults| format!("  ({faults})")),
    )
}

/// The servers to be measured, and those that are not, with the reason.
fn chosen(options: &Options) -> io::Result<(Vec<Server>, Vec<String>)> {
    let mut all = server::built_in();
    for path in &options.server {
        all.push(server::from_file(path)?);
    }
    for name in &options.only {
        if !all.iter().any(|server| server.name == *name) {
            let names: Vec<&str> = all.iter().map(|server| server.name.as_str()).collect();
            let text = format!("--only {name}: the servers are {}", names.join(", "));
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
    }
    all.retain(|server| options.only.is_empty() || options.only.contains(&server.name));
    let mut missing = Vec::new();
    all.retain(|server| match server.missing() {
        None => true,
        Some(program) => {
            missing.push(format!("{} ({program} is not installed)", server.name));
            false
        }
    });
    if all.is_empty() {
        return Err(io::Error::other(format!("nothing to measure: {}", missing.join("; "))));
    }
    Ok((all, missing))
}

/// CPUs of the server and of the load, for accepting and for relaying.
fn cpus(options: &Options) -> io::Result<[(Vec<usize>, Vec<usize>); 2]> {
    let allowed = allowed_cpus()?;
    let resolve = |cores: &Option<Cores>, usual: &[usize]| match cores {
        Some(cores) => cores.resolve(&allowed).map_err(io::Error::other),
        None => Ok(usual.to_vec()),
    };
    let (first, second) = allowed.split_at(allowed.len().div_ceil(2));
    let second = if second.is_empty() { first } else { second };
    let pair = |server: &[usize], load: &[usize]| {
        Ok((resolve(&options.server_cores, server)?, resolve(&options.load_cores, load)?))
    };
    let all = pair(&allowed, &allowed)?;
    let halves: io::Result<_> = pair(first, second);
    Ok([halves?, all])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_chosen_by_name() {
        let chosen = |arguments: &[&str]| {
            let given = ["ringpost-compare"].iter().chain(arguments);
            super::chosen(&Options::parse_from(given))
        };
        let (servers, missing) = chosen(&["--only=ringpost"]).unwrap();
        assert_eq!((servers.len(), missing.len()), (1, 0));
        assert!(chosen(&["--only=sendmail"]).is_err());
        let (servers, missing) = chosen(&[]).unwrap();
        assert_eq!(servers.len() + missing.len(), 6);
        assert_eq!(servers[1].name, table::OURS);
    }

    #[test]
    fn cores_are_shared_unless_given() {
        let options = Options::parse_from(["ringpost-compare"]);
        let [accept, relay] = cpus(&options).unwrap();
        let allowed = allowed_cpus().unwrap();
        assert!(!accept.0.is_empty() && !accept.1.is_empty());
        assert_eq!(relay, (allowed.clone(), allowed));
        let options =
            Options::parse_from(["ringpost-compare", "--server-cores=1", "--load-cores=1"]);
        let [accept, relay] = cpus(&options).unwrap();
        assert_eq!(accept, relay);
    }
}
