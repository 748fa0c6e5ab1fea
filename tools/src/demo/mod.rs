//! `ringpost-demo`: a relay, a load and a sink on this machine, measured from
//! outside. Mail is sent flat out first, then at half of what was relayed;
//! in the end the ledgers of load and sink are held against each other.
//!
//! Each part is a process of its own ([`child`]). What the demo shows while it
//! runs comes from the server's `/metrics` ([`metrics`]); what it concludes
//! comes from the ledgers ([`result`]), drawn by [`chart`].

pub mod chart;
pub mod child;
pub mod metrics;
pub mod options;
pub mod result;
pub mod svg;

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use ringpost::io::process::allowed_cpus;

use crate::machine::{self, Machine};
use crate::text::{grouped, note, say};
use child::{Process, Role};
use metrics::Figures;
use options::Options;
use result::{Demonstration, Made, Server, Setup};

/// How long server and sink may take to start, and the queue to drain.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the live line is written, and conditions are looked at.
const TICK: Duration = Duration::from_millis(250);

/// The tool with its arguments, the program's name first.
pub fn main_with(arguments: Vec<String>) -> ExitCode {
    if let Some(code) = child::play(&arguments) {
        return code;
    }
    let options = match Options::try_parse_from(arguments) {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()) * 2);
        }
    };
    let phases = match options.phases() {
        Ok(phases) => phases,
        Err(error) => {
            note(format_args!("ringpost-demo: {error}"));
            return ExitCode::from(2);
        }
    };
    match demonstrate(&options, phases) {
        Ok(demo) if demo.verdict.is_good() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            note(format_args!("\nringpost-demo: {error}"));
            note(format_args!(
                "the logs of server, load and sink are in {}",
                options.out.display()
            ));
            ExitCode::FAILURE
        }
    }
}

/// Runs the whole demonstration and writes its results.
fn demonstrate(options: &Options, phases: [Duration; 2]) -> io::Result<Demonstration> {
    let mut stage = Stage::set(options)?;
    let [flat_out, half_load] = phases;
    let before = stage.figures()?;
    let mut made = vec![stage.send("flat out", None, flat_out)?];
    let relayed = made[0].1.max(1.0);
    let rate = (relayed / 2.0).max(1.0).round();
    made.push(stage.send("half load", Some(rate), half_load)?);
    let made: Vec<Made> = made.into_iter().map(|(made, _)| made).collect();
    let (setup, received) = (stage.setup.clone(), stage.file("received.ledger"));
    let mut server = stage.strike(before)?;
    let (phases, timeline, verdict) = result::gather(&made, &received)?;
    server.cpu_s_per_1000 = server.cpu_s * 1000.0 / verdict.messages.max(1) as f64;
    let demo = Demonstration {
        version: env!("CARGO_PKG_VERSION"),
        machine: Machine::here(),
        setup,
        phases,
        server,
        verdict,
        timeline,
    };
    fs::write(options.out.join("latency.svg"), chart::draw(&demo))?;
    fs::write(options.out.join("result.json"), serde_json::to_string_pretty(&demo)? + "\n")?;
    let out = options.out.display();
    say(format_args!("\n{demo}\nresults: {out}/latency.svg, result.json"))?;
    Ok(demo)
}

/// The server and the sink, running.
struct Stage<'a> {
    options: &'a Options,
    setup: Setup,
    server: Process,
    sink: Process,
    smtp: SocketAddr,
    http: SocketAddr,
    resident_max: u64,
}

impl<'a> Stage<'a> {
    /// Starts the sink and the server.
    fn set(options: &'a Options) -> io::Result<Self> {
        fs::create_dir_all(&options.out)?;
        let out = options.out.canonicalize()?;
        let spool = out.join("queue");
        if spool.exists() {
            fs::remove_dir_all(&spool)?;
        }
        let (server_cpus, load_cpus) = share_cpus(&allowed_cpus()?);
        let sink_arguments = [
            "--listen=127.0.0.1:0".to_owned(),
            format!("--ledger={}", out.join("received.ledger").display()),
            format!("--cores={}", cpu_list(&load_cpus)),
        ];
        let mut sink = Process::start(Role::Sink, &sink_arguments, &out.join("sink.log"))?;
        let line = sink.first_line()?;
        let sink_address = line.strip_prefix("listening on ").unwrap_or_default();
        let [smtp, http] = free_addresses()?;
        let file = out.join("ringpost.toml");
        let text = configuration(options, &spool, (smtp, http), sink_address, &server_cpus);
        fs::write(&file, text)?;
        let arguments = ["serve".to_owned(), "-c".to_owned(), file.display().to_string()];
        let mut server = Process::start(Role::Server, &arguments, &out.join("server.log"))?;
        wait_until("the server to start", &mut server, || Ok(metrics::is_healthy(http)))?;
        let setup = Setup {
            mail: options.mail(),
            connections: options.connections,
            durability: options.durability.name(),
            filesystem: machine::filesystem_of(&out),
            server_cpus,
            load_cpus,
        };
        Ok(Stage { options, setup, server, sink, smtp, http, resident_max: 0 })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.options.out.join(name)
    }

    fn figures(&mut self) -> io::Result<Figures> {
        let figures = metrics::read(self.http)?;
        self.resident_max = self.resident_max.max(figures.resident);
        Ok(figures)
    }

    /// Sends mail for `span` and waits until all of it was relayed. Returns
    /// how it was made and how many messages were relayed each second.
    fn send(
        &mut self,
        name: &'static str,
        rate: Option<f64>,
        span: Duration,
    ) -> io::Result<(Made, f64)> {
        let file = |suffix: &str| self.file(&format!("{}.{suffix}", name.replace(' ', "-")));
        let ledger = file("ledger");
        let arguments = self.load_arguments(rate, span, &ledger, &file("json"));
        let log = file("log");
        let before = self.figures()?;
        let mut load = Process::start(Role::Load, &arguments, &log)?;
        let begun = Instant::now();
        let mut last = (begun, before);
        let mut ended = false;
        while !ended {
            thread::sleep(TICK);
            ended = load.ended()?.is_some();
            last = self.show(name, last)?;
        }
        load.output()?;
        while last.1.queued > 0 {
            if begun.elapsed() > span + PATIENCE {
                let text = format!("{} messages are still queued", last.1.queued);
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            thread::sleep(TICK);
            last = self.show("draining", last)?;
        }
        let delivered = last.1.delivered - before.delivered;
        let relayed_per_s = delivered as f64 / begun.elapsed().as_secs_f64();
        Ok((Made { name, rate, ledger, warmup: span.mul_f64(0.1) }, relayed_per_s))
    }

    fn load_arguments(
        &self,
        rate: Option<f64>,
        span: Duration,
        ledger: &Path,
        json: &Path,
    ) -> Vec<String> {
        let mut arguments = vec![
            format!("--target={}", self.smtp),
            format!("--connections={}", self.options.connections),
            format!("--duration={}ms", span.as_millis()),
            format!("--cores={}", cpu_list(&self.setup.load_cpus)),
            format!("--ledger={}", ledger.display()),
            format!("--json={}", json.display()),
        ];
        arguments.push(match (&self.options.eml, self.options.size) {
            (Some(dir), _) => format!("--eml={}", dir.display()),
            (None, Some(size)) => format!("--size={size}B"),
            (None, None) => "--corpus".into(),
        });
        arguments.extend(rate.map(|rate| format!("--rate={rate}")));
        arguments
    }

    /// Writes the live line; returns the figures it is from.
    fn show(&mut self, what: &str, last: (Instant, Figures)) -> io::Result<(Instant, Figures)> {
        if self.server.ended()?.is_some() {
            return Err(io::Error::other("the server has ended by itself"));
        }
        let (now, figures) = (Instant::now(), self.figures()?);
        let span = (now - last.0).as_secs_f64();
        let rate = |now: u64, then: u64| grouped(now.saturating_sub(then) as f64 / span);
        if io::stdout().is_terminal() {
            let p99 = figures.accepts.p99_ms_since(&last.1.accepts);
            let p99 = p99.map_or("-".to_owned(), |ms| format!("{ms}"));
            print!(
                "\r\x1b[K{what:<10}{:>9} accepted/s {:>9} relayed/s {:>9} queued   p99 within {p99} ms",
                rate(figures.accepted, last.1.accepted),
                rate(figures.delivered, last.1.delivered),
                grouped(figures.queued as f64),
            );
            io::stdout().flush()?;
        }
        Ok((now, figures))
    }

    /// Stops server and sink; what the server used since `before`.
    fn strike(mut self, before: Figures) -> io::Result<Server> {
        let after = self.figures()?;
        let cpu_s = self.server.cpu_seconds();
        self.server.finish()?;
        self.sink.finish()?;
        fs::remove_dir_all(self.options.out.join("queue"))?;
        let ratio = |a: u64, b: u64| if b == 0 { 0.0 } else { a as f64 / b as f64 };
        Ok(Server {
            cpu_s,
            cpu_s_per_1000: 0.0,
            flushes_per_message: ratio(
                after.flushes - before.flushes,
                after.accepted - before.accepted,
            ),
            written_per_byte: ratio(
                after.bytes_written - before.bytes_written,
                after.bytes_accepted - before.bytes_accepted,
            ),
            memory_mib: self.resident_max as f64 / f64::from(1 << 20),
        })
    }
}

/// Half of the CPUs for the server, the rest for load and sink; all share the
/// only one if there is one.
fn share_cpus(allowed: &[usize]) -> (Vec<usize>, Vec<usize>) {
    if allowed.len() < 2 {
        return (allowed.to_vec(), allowed.to_vec());
    }
    let (server, load) = allowed.split_at(allowed.len() / 2);
    (server.to_vec(), load.to_vec())
}

/// In the notation that a single CPU is not taken for a count in.
fn cpu_list(cpus: &[usize]) -> String {
    let parts: Vec<String> = cpus.iter().map(|cpu| format!("{cpu}-{cpu}")).collect();
    parts.join(",")
}

/// Two addresses that nothing listens on.
fn free_addresses() -> io::Result<[SocketAddr; 2]> {
    let (a, b) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok([a.local_addr()?, b.local_addr()?])
}

/// The server's configuration, which stays beside the results.
fn configuration(
    options: &Options,
    spool: &Path,
    (smtp, http): (SocketAddr, SocketAddr),
    sink: &str,
    cpus: &[usize],
) -> String {
    let quoted = |path: &Path| serde_json::Value::from(path.display().to_string()).to_string();
    format!(
        "hostname = \"demo.ringpost.invalid\"\ndata_dir = {}\ncores = \"{}\"\n\
         durability = \"{}\"\n\n[[listener]]\naddress = \"{smtp}\"\n\n[[route]]\ndomain = \"*\"\n\
         next_hop = \"{sink}\"\n\n[limits]\nconnections_per_client = 100000\n\n[admin]\n\
         http = \"{http}\"\n",
        quoted(spool),
        cpu_list(cpus),
        options.durability.name(),
    )
}

/// Waits for `condition`, as long as `process` runs and patience lasts.
fn wait_until(
    what: &str,
    process: &mut Process,
    mut condition: impl FnMut() -> io::Result<bool>,
) -> io::Result<()> {
    let begun = Instant::now();
    while !condition()? {
        if let Some(status) = process.ended()? {
            return Err(io::Error::other(format!("waited for {what}, and it ended: {status}")));
        }
        if begun.elapsed() > PATIENCE {
            let text = format!("waited {PATIENCE:?} for {what}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::{Cores, cores};

    #[test]
    fn every_part_has_a_cpu() {
        assert_eq!(share_cpus(&[3]), (vec![3], vec![3]));
        assert_eq!(share_cpus(&[0, 1]), (vec![0], vec![1]));
        assert_eq!(share_cpus(&[0, 1, 2]), (vec![0], vec![1, 2]));
        assert_eq!(cores(&cpu_list(&[2, 5])), Ok(Cores::List(vec![2, 5])));
        assert_eq!(cores(&cpu_list(&[2])), Ok(Cores::List(vec![2])));
    }

    #[test]
    fn the_configuration_is_one_that_the_server_takes() {
        let options = Options::parse_from(["ringpost-demo"]);
        let [smtp, http] = free_addresses().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let cpus = allowed_cpus().unwrap();
        let spool = dir.path().join("a \"b\"");
        let text = configuration(&options, &spool, (smtp, http), "127.0.0.1:2526", &cpus[..1]);
        let file = dir.path().join("ringpost.toml");
        fs::write(&file, text).unwrap();
        let config = ringpost::config::Config::load(Some(&file), &[]).unwrap();
        assert_eq!(config.data_dir, spool);
    }
}
