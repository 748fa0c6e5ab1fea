//! What a run counts and measures; each worker has its own, added up at the
//! end.

use std::collections::BTreeMap;
use std::time::Instant;

use hdrhistogram::Histogram;
use ringpost::base::Reply;

use crate::latency;

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
}

impl Default for Figures {
    fn default() -> Self {
        Figures {
            connect: latency::histogram(),
            first_reply: latency::histogram(),
            accept: latency::histogram(),
            accepted: 0,
            accepted_bytes: 0,
            accepted_recipients: 0,
            accepted_ever: 0,
            refused: 0,
            unanswered: 0,
            failures: BTreeMap::new(),
            last: None,
        }
    }
}

impl Figures {
    /// Counts a reply that was not 2xx.
    pub fn refusal(&mut self, stage: &'static str, reply: &Reply) {
        let what = match reply.enhanced {
            Some(enhanced) => format!("{:03} {enhanced}", reply.code),
            None => format!("{:03}", reply.code),
        };
        self.fail(stage, what, reply.text.clone());
    }

    /// Counts a failure that is no reply.
    pub fn error(&mut self, stage: &'static str, what: String) {
        self.fail(stage, what, String::new());
    }

    fn fail(&mut self, stage: &'static str, what: String, example: String) {
        let mut kind = Kind { stage, what };
        if self.failures.len() >= KINDS_MAX && !self.failures.contains_key(&kind) {
            kind = Kind { stage: "various", what: "others".into() };
        }
        self.failures.entry(kind).or_insert((0, example)).0 += 1;
    }

    /// Adds another worker's figures.
    pub fn add(&mut self, other: Figures) {
        for (mine, theirs) in [
            (&mut self.connect, &other.connect),
            (&mut self.first_reply, &other.first_reply),
            (&mut self.accept, &other.accept),
        ] {
            mine.add(theirs).expect("all histograms have the same bounds");
        }
        self.accepted += other.accepted;
        self.accepted_bytes += other.accepted_bytes;
        self.accepted_recipients += other.accepted_recipients;
        self.accepted_ever += other.accepted_ever;
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
        let mut figures = Figures::default();
        let reply = |text: &str| Reply::new(450, EnhancedCode(4, 2, 0), text);
        figures.refusal("RCPT", &reply("first"));
        figures.refusal("RCPT", &reply("second"));
        let mut total = Figures::default();
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
