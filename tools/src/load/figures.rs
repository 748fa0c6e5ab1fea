//! What a run counts and measures; each worker has its own, added up at the
//! end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ringpost::base::Reply;
use ringpost::io::tls::Facts;

use super::plan::Plan;
use super::series::{Bin, Coarse, Failed, Series};
use crate::latency::{self, ns};

/// Most kinds of failure told apart; the rest are counted together.
const KINDS_MAX: usize = 64;

/// One kind of failure: at which step, and what the server or the kernel said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// The step.
    pub stage: &'static str,
    /// Code and enhanced code, or the error.
    pub what: String,
}

/// Counts and latencies of one worker, or of all.
pub struct Figures {
    /// From the call to connect(2) to the connection.
    pub connect: Histogram<u64>,
    /// From the connection to the first bytes of the greeting.
    pub first_reply: Histogram<u64>,
    /// Handshakes of TLS, from their first octet to their end.
    pub handshake: Histogram<u64>,
    /// Those that ended behind the warm-up.
    pub handshakes: u64,
    /// Those of all that resumed an earlier session.
    pub resumed: u64,
    /// Version and cipher of the first.
    pub cipher: Option<String>,
    /// From a message's start to its `250`.
    pub accept: Histogram<u64>,
    /// Messages answered `250` at the end of data, warm-up left out.
    pub accepted: u64,
    /// Their octets, marks counted.
    pub accepted_bytes: u64,
    /// Recipients of these messages that were accepted.
    pub accepted_recipients: u64,
    /// Messages answered `250` in all, warm-up counted.
    pub accepted_ever: u64,
    /// Messages refused, whole.
    pub refused: u64,
    /// Messages that got no answer because the connection ended.
    pub unanswered: u64,
    /// Failures by kind: how often, and the words of the first.
    pub failures: BTreeMap<Kind, (u64, String)>,
    /// When the last message was accepted.
    pub last: Option<Instant>,
    /// The run over time.
    pub series: Series,
    /// How long messages took, by the part of the profile that they began in.
    pub parts: Vec<Histogram<u64>>,
    /// Messages answered `250` during each part.
    pub answered: Vec<u64>,
    start: Instant,
}

/// What is shown of a run while it goes on.
#[derive(Clone, Default)]
pub struct Glance {
    /// When it was taken, from the start of the run.
    pub at: Duration,
    /// Length of an interval, and the messages accepted in each.
    pub accepted: (Duration, Vec<u64>),
    /// The last second or interval, and how many seconds it is.
    pub recent: (Bin, f64),
    /// Latencies of the whole run.
    pub latency: Coarse,
    /// Messages accepted.
    pub total: u64,
    /// Failures by kind: how often, and the words of the first.
    pub failures: BTreeMap<Kind, (u64, String)>,
}

impl Glance {
    /// Adds another worker's, taken at about the same time.
    pub fn add(&mut self, other: &Glance) {
        self.at = if self.at.is_zero() { other.at } else { self.at.min(other.at) };
        let (bin, counts) = &other.accepted;
        // Workers that double their intervals do so within a moment.
        if self.accepted.0 != *bin {
            self.accepted = (*bin, Vec::new());
        }
        let mine = &mut self.accepted.1;
        mine.resize(mine.len().max(counts.len()), 0);
        mine.iter_mut().zip(counts).for_each(|(mine, theirs)| *mine += theirs);
        self.recent.0.add(&other.recent.0);
        self.recent.1 = self.recent.1.max(other.recent.1);
        self.latency.add(&other.latency);
        self.total += other.total;
        for (kind, (count, example)) in &other.failures {
            self.failures.entry(kind.clone()).or_insert((0, example.clone())).0 += count;
        }
    }
}

impl Figures {
    /// Nothing yet, of a run of `plan` that begins at `start`.
    pub fn of_plan(plan: &Plan, start: Instant) -> Self {
        Figures::new(start, plan.profile.as_ref().map_or(0, |profile| profile.parts().len()))
    }

    /// Nothing yet, of a run that begins at `start` and has so many parts.
    pub fn new(start: Instant, parts: usize) -> Self {
        Figures {
            connect: latency::histogram(),
            first_reply: latency::histogram(),
            handshake: latency::histogram(),
            handshakes: 0,
            resumed: 0,
            cipher: None,
            accept: latency::histogram(),
            accepted: 0,
            accepted_bytes: 0,
            accepted_recipients: 0,
            accepted_ever: 0,
            refused: 0,
            unanswered: 0,
            failures: BTreeMap::new(),
            last: None,
            series: Series::default(),
            parts: (0..parts).map(|_| latency::histogram()).collect(),
            answered: vec![0; parts],
            start,
        }
    }

    /// Counts a reply that was not 2xx.
    pub fn refusal(&mut self, stage: &'static str, reply: &Reply) {
        let what = match reply.enhanced {
            Some(enhanced) => format!("{:03} {enhanced}", reply.code),
            None => format!("{:03}", reply.code),
        };
        let kind = if reply.is_permanent() { Failed::Rejected } else { Failed::Deferred };
        self.fail(stage, what, reply.text.clone(), kind);
    }

    /// Counts a handshake that took so many nanoseconds; `counts` if it ended behind
    /// the warm-up.
    pub fn handshake(&mut self, took: u64, counts: bool, facts: &Facts) {
        latency::record(&mut self.handshake, took);
        self.handshakes += u64::from(counts);
        self.resumed += u64::from(facts.is_resumed);
        self.cipher.get_or_insert_with(|| format!("{} {}", facts.version, facts.cipher));
    }

    /// Counts a failure that is no reply.
    pub fn error(&mut self, stage: &'static str, what: String) {
        self.fail(stage, what, String::new(), Failed::Broken);
    }

    fn fail(&mut self, stage: &'static str, what: String, example: String, failed: Failed) {
        let at = ns(self.start.elapsed());
        self.series.at(at).failed[failed as usize] += 1;
        let mut kind = Kind { stage, what };
        if self.failures.len() >= KINDS_MAX && !self.failures.contains_key(&kind) {
            kind = Kind { stage: "various", what: "others".into() };
        }
        self.failures.entry(kind).or_insert((0, example)).0 += 1;
    }

    /// Counts a message of `bytes` octets that was answered `250` at `now`,
    /// `took` nanoseconds after its start; `parts` are those of the profile that
    /// it began and ended in.
    pub fn accept(&mut self, now: Instant, took: u64, bytes: u64, parts: [Option<usize>; 2]) {
        self.accepted_ever += 1;
        self.last = Some(now);
        let bin = self.series.at(ns(now.saturating_duration_since(self.start)));
        bin.accepted += 1;
        bin.bytes += bytes;
        bin.latency.record(took);
        let [began, ended] = parts;
        if let Some(part) = began {
            latency::record(&mut self.parts[part], took);
        }
        if let Some(part) = ended {
            self.answered[part] += 1;
        }
    }

    /// What is shown of it now.
    pub fn glance(&self) -> Glance {
        let bin = self.series.bin();
        let at = self.start.elapsed();
        let now = ns(at);
        let whole = (now / bin.as_nanos() as u64) as usize;
        let last = ((1.0 / bin.as_secs_f64()).ceil() as usize).min(whole);
        let mut latency = Coarse::default();
        self.series.bins().iter().for_each(|bin| latency.add(&bin.latency));
        Glance {
            at,
            accepted: (bin, self.series.bins().iter().map(|bin| bin.accepted).collect()),
            recent: (self.series.recent(now, last), last as f64 * bin.as_secs_f64()),
            latency,
            total: self.accepted_ever,
            failures: self.failures.clone(),
        }
    }

    /// From the start to the last message accepted, if any was.
    pub fn last_after(&self) -> Option<Duration> {
        self.last.map(|last| last.saturating_duration_since(self.start))
    }

    /// Adds another worker's figures.
    pub fn add(&mut self, other: Figures) {
        for (mine, theirs) in [
            (&mut self.connect, &other.connect),
            (&mut self.first_reply, &other.first_reply),
            (&mut self.handshake, &other.handshake),
            (&mut self.accept, &other.accept),
        ] {
            mine.add(theirs).expect("all histograms have the same bounds");
        }
        for (mine, theirs) in self.parts.iter_mut().zip(&other.parts) {
            mine.add(theirs).expect("all histograms have the same bounds");
        }
        self.answered.iter_mut().zip(other.answered).for_each(|(mine, theirs)| *mine += theirs);
        self.series.add(&other.series);
        self.accepted += other.accepted;
        self.accepted_bytes += other.accepted_bytes;
        self.accepted_recipients += other.accepted_recipients;
        self.accepted_ever += other.accepted_ever;
        self.handshakes += other.handshakes;
        self.resumed += other.resumed;
        self.cipher = self.cipher.take().or(other.cipher);
        self.refused += other.refused;
        self.unanswered += other.unanswered;
        for (kind, (count, example)) in other.failures {
            self.failures.entry(kind).or_insert((0, example)).0 += count;
        }
        self.last = self.last.max(other.last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringpost::base::EnhancedCode;

    #[test]
    fn failures_are_told_apart_by_code_and_bounded() {
        let mut figures = Figures::new(Instant::now(), 0);
        let reply = |text: &str| Reply::new(450, EnhancedCode(4, 2, 0), text);
        figures.refusal("RCPT", &reply("first"));
        figures.refusal("RCPT", &reply("second"));
        let mut total = Figures::new(Instant::now(), 0);
        total.add(figures);
        let (kind, (count, example)) = total.failures.first_key_value().unwrap();
        assert_eq!((kind.what.as_str(), *count, example.as_str()), ("450 4.2.0", 2, "first"));
        for number in 0..1000 {
            total.error("read", format!("error {number}"));
        }
        assert!(total.failures.len() <= KINDS_MAX + 1);
        assert_eq!(total.failures.values().map(|(count, _)| count).sum::<u64>(), 1002);
    }
}
