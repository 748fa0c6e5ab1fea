//! The comparison as a document: the machine, the servers, and a table for each
//! kind of work with medians, ranges and ratios.

use std::fmt::Write;

use super::measure::Measurement;
use super::options::{Setting, Tls};
use super::server::Mode;
use crate::machine::Machine;
use crate::text::{counted, grouped, size_label, time_label};

/// A server that was measured.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What it says of its version.
    pub version: String,
    /// Memory of one more idle connection.
    pub idle_kib: Option<f64>,
}

/// Everything that was found.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Comparison {
    /// What it ran on.
    pub machine: Machine,
    /// The name of the host.
    pub host: String,
    /// The day, as people write it.
    pub date: String,
    /// The filesystem of the queues.
    pub filesystem: String,
    /// How it was called.
    pub command_line: String,
    /// CPUs of the servers, and of load and sink, for each mode.
    pub cpus: Vec<String>,
    /// The servers.
    pub servers: Vec<Entry>,
    /// What was passed over, and why.
    pub missing: Vec<String>,
    /// How many measurements there should have been.
    pub planned: usize,
    /// How many there were, those that failed among them.
    pub over: usize,
    /// Whether someone ended it.
    pub interrupted: bool,
    /// Every measurement.
    pub measurements: Vec<Measurement>,
}

/// Name of the server that keeps nothing.
const CEILING: &str = "sink";

/// In a table, where there is nothing to tell.
pub const NONE: &str = "-";

/// Name of the server that others are held against.
pub const OURS: &str = "ringpost";

/// Lowest, median and highest.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread(f64, f64, f64);

fn spread(values: impl Iterator<Item = f64>) -> Option<Spread> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (first, last) = (*values.first()?, *values.last()?);
    let half = values.len() / 2;
    let median = match values.len() % 2 {
        0 => f64::midpoint(values[half - 1], values[half]),
        _ => values[half],
    };
    Some(Spread(first, median, last))
}

impl Measurement {
    /// What it is about: messages relayed, or accepted, a second, or handshakes.
    fn rate(&self) -> f64 {
        let handshakes = self.handshakes_per_s.filter(|_| self.setting.tls == Tls::New);
        if let Some(handshakes) = handshakes {
            return handshakes;
        }
        self.relayed_per_s.unwrap_or(self.accepted_per_s)
    }
}

impl Comparison {
    fn of<'a>(
        &'a self,
        server: &'a str,
        setting: Setting,
    ) -> impl Iterator<Item = &'a Measurement> + Clone {
        self.measurements.iter().filter(move |it| it.server == server && it.setting == setting)
    }

    fn rate(&self, server: &str, setting: Setting) -> Option<Spread> {
        spread(self.of(server, setting).map(Measurement::rate))
    }

    /// The settings that were measured, in order.
    fn settings(&self) -> Vec<Setting> {
        let mut all: Vec<Setting> = Vec::new();
        for measurement in &self.measurements {
            if !all.contains(&measurement.setting) {
                all.push(measurement.setting);
            }
        }
        all
    }

    /// How often `server` was measured in `setting`.
    fn rounds(&self, server: &str, setting: Setting) -> usize {
        self.of(server, setting).count()
    }

    /// The most that any server was measured in `setting`.
    fn rounds_max(&self, setting: Setting) -> usize {
        let rounds = |entry: &Entry| self.rounds(&entry.name, setting);
        self.servers.iter().map(rounds).max().unwrap_or_default()
    }

    /// Of how many rounds the tables are.
    fn rounds_in_words(&self) -> String {
        let all = || self.settings().into_iter().map(|setting| self.rounds_max(setting));
        match (all().min().unwrap_or_default(), all().max().unwrap_or_default()) {
            (least, most) if least == most => {
                format!("each setting has {}", counted(most as u64, "round"))
            }
            (least, most) => format!(
                "some settings have {least}, others up to {}",
                counted(most as u64, "round")
            ),
        }
    }

    /// The document, in Markdown.
    pub fn document(&self) -> String {
        let mut text = String::new();
        let Machine { processor, cpus, kernel, memory_gib } = &self.machine;
        let _ = writeln!(
            text,
            "# Mail servers on {}\n\n{processor} ({cpus} CPUs), {memory_gib} GiB of RAM, Linux \
             {kernel}, queues on {}; {}.\n",
            self.host, self.filesystem, self.date
        );
        let _ = writeln!(text, "```sh\n{}\n```\n", self.command_line);
        for line in &self.cpus {
            let _ = writeln!(text, "* {line}");
        }
        text.push_str(
            "* Each server is started anew for each measurement, in turn with the others, with a \
             queue of its own\n  on the same disk, and flushes before its 250. Medians, in \
             parentheses the range.\n* *relayed/s*: messages that reached the sink, until all had or the time \
             for it was over (*still\n  queued*). \
             *CPU*: processor seconds of the server\n  and all its processes for 1,000 messages. \
             *memory*: at most, shared pages divided (PSS).\n\
             * Over TLS, begun with STARTTLS: *handshakes/s* are whole ones, none resumed.\n",
        );
        if self.over < self.planned {
            let _ = writeln!(
                text,
                "* Cut off after {} of {} measurements: {}.",
                self.over,
                self.planned,
                self.rounds_in_words()
            );
        }
        text.push('\n');
        self.list_servers(&mut text);
        let mut head = None;
        for setting in self.settings() {
            let now = (setting.mode, setting.size, setting.pipelining, setting.tls);
            if head != Some(now) {
                head = Some(now);
                self.open_table(&mut text, setting);
            }
            for server in &self.servers {
                self.row(&mut text, server, setting);
            }
        }
        text
    }

    fn list_servers(&self, text: &mut String) {
        text.push_str("| server | version | memory of an idle connection |\n|---|---|---|\n");
        for Entry { name, version, idle_kib } in &self.servers {
            let idle = idle_kib.map_or("-".into(), |kib| format!("{kib:.1} KiB"));
            let _ = writeln!(text, "| {name} | {version} | {idle} |");
        }
        if !self.missing.is_empty() {
            let _ = writeln!(text, "\nNot measured: {}.", self.missing.join("; "));
        }
    }

    fn open_table(&self, text: &mut String, setting: Setting) {
        let Setting { mode, size, pipelining, tls, .. } = setting;
        let (work, rate) = match (mode, tls) {
            (Mode::Accept, Tls::No) => ("Accepting", "accepted/s"),
            (_, Tls::Kept) => ("Accepting over TLS, connections kept", "accepted/s"),
            (_, Tls::New) => {
                ("Accepting over TLS, a new connection for each message", "handshakes/s")
            }
            (Mode::Relay, Tls::No) => ("Accepting and relaying", "relayed/s"),
        };
        let pipelined = if pipelining { "with" } else { "without" };
        let _ = write!(
            text,
            "\n## {work}, {}, {pipelined} pipelining\n\n| connections | server | {rate} | of the \
             ceiling | {OURS} is | p50 | p99 | CPU | memory | faults |\n\
             |---|---|---|---|---|---|---|---|---|---|\n",
            size_label(size),
        );
    }

    fn row(&self, text: &mut String, server: &Entry, setting: Setting) {
        let all = || self.of(&server.name, setting);
        let Some(Spread(low, rate, high)) = self.rate(&server.name, setting) else { return };
        let of = self.rate(CEILING, setting);
        let ours = self.rate(OURS, setting).filter(|_| server.name != OURS);
        let ratio = |over: f64, under: f64| (under > 0.0).then(|| over / under);
        let text_of = |value: Option<f64>, show: fn(f64) -> String| value.map_or("-".into(), show);
        let middle = |values: &dyn Fn(&Measurement) -> Option<f64>| {
            spread(all().filter_map(values)).map(|Spread(_, median, _)| median)
        };
        let (rounds, most) = (self.rounds(&server.name, setting), self.rounds_max(setting));
        let fewer = (rounds < most).then(|| format!("{rounds} of {most} rounds"));
        let faults = Some(faults(all())).filter(|text| text != NONE);
        let faults: Vec<String> = fewer.into_iter().chain(faults).collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} ({}-{}) | {} | {} | {} | {} | {} | {} | {} |",
            setting.connections,
            server.name,
            grouped(rate),
            grouped(low),
            grouped(high),
            text_of(of.and_then(|of| ratio(rate, of.1)), |it| format!("{it:.2}")),
            text_of(ours.and_then(|ours| ratio(ours.1, rate)), |it| format!("{it:.1}×")),
            text_of(middle(&|it| Some(it.p50_ms)), time_label),
            text_of(middle(&|it| Some(it.p99_ms)), time_label),
            text_of(middle(&|it| it.cpu_s_per_1000), |it| format!("{it:.3} s")),
            text_of(middle(&|it| it.memory_mib), |it| format!("{it:.0} MiB")),
            if faults.is_empty() { NONE.into() } else { faults.join(", ") },
        );
    }
}

/// What went wrong, in all rounds; [`NONE`] if nothing did.
pub fn faults<'a>(all: impl Iterator<Item = &'a Measurement>) -> String {
    let (mut failed, mut stuck, mut queued) = (0, 0, 0);
    for it in all {
        failed += it.failed;
        stuck += it.stuck;
        queued += it.queued;
    }
    let mut parts = Vec::new();
    if failed > 0 {
        parts.push(format!("{} failed", grouped(failed as f64)));
    }
    if stuck > 0 {
        parts.push(format!("{} not relayed", grouped(stuck as f64)));
    }
    if queued > 0 {
        parts.push(format!("{} still queued", grouped(queued as f64)));
    }
    if parts.is_empty() { NONE.into() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(server: &str, how: (Mode, Tls), rate: f64, round: u32) -> Measurement {
        let (mode, tls) = how;
        Measurement {
            server: server.into(),
            setting: Setting { mode, size: 4096, pipelining: false, tls, connections: 100 },
            round,
            accepted_per_s: rate * 2.0,
            relayed_per_s: (mode == Mode::Relay).then_some(rate),
            handshakes_per_s: (tls != Tls::No).then_some(rate / 10.0),
            p50_ms: 5.0,
            p99_ms: 12.0,
            cpu_s_per_1000: Some(0.11),
            memory_mib: None,
            failed: u64::from(round),
            stuck: 0,
            queued: u64::from(server == "other"),
        }
    }

    #[test]
    fn the_document_has_medians_and_ratios() {
        let entry =
            |name: &str| Entry { name: name.into(), version: "1".into(), idle_kib: Some(2.5) };
        let (accept, relay) = ((Mode::Accept, Tls::No), (Mode::Relay, Tls::No));
        let mut measurements = Vec::new();
        for (round, scale) in [(0, 1.0), (1, 1.2), (2, 0.9)] {
            measurements.push(measurement(CEILING, accept, 20_000.0 * scale, round));
            measurements.push(measurement(OURS, accept, 15_000.0 * scale, round));
            measurements.push(measurement(OURS, relay, 9_000.0 * scale, round));
            if round < 2 {
                measurements.push(measurement("other", relay, 500.0 * scale, round));
            }
            measurements.push(measurement(OURS, (Mode::Accept, Tls::New), 9_000.0, round));
        }
        let text = Comparison {
            machine: Machine::here(),
            host: "test".into(),
            date: "today".into(),
            filesystem: "ext4".into(),
            command_line: "ringpost-compare".into(),
            cpus: vec!["all".into()],
            servers: vec![entry(CEILING), entry(OURS), entry("other")],
            missing: vec!["exim: no exim4".into()],
            planned: 20,
            over: 13,
            interrupted: false,
            measurements,
        }
        .document();
        for part in [
            "# Mail servers on test",
            "| ringpost | 1 | 2.5 KiB |",
            "Not measured: exim: no exim4.",
            "## Accepting, 4 KiB, without pipelining",
            "| 100 | ringpost | 30,000 (27,000-36,000) | 0.75 | - | 5 ms | 12 ms | 0.110 s | - | 3 failed |",
            "| 100 | other | 550 (500-600) | - | 16.4× |",
            "| 2 of 3 rounds, 1 failed, 2 still queued |",
            "Cut off after 13 of 20 measurements: each setting has 3 rounds.",
            "## Accepting over TLS, a new connection for each message, 4 KiB, without",
            "| connections | server | handshakes/s |",
            "| 100 | ringpost | 900 (900-900) |",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn medians_of_few() {
        assert_eq!(spread([3.0, 1.0].into_iter()), Some(Spread(1.0, 2.0, 3.0)));
        assert_eq!(spread([3.0, 1.0, 2.0].into_iter()), Some(Spread(1.0, 2.0, 3.0)));
        assert_eq!(spread(std::iter::empty()), None);
    }
}
