//! `ringpost-load verify`: holds the load generator's ledger against the
//! sink's. Every recipient of every message that was answered `250` must have
//! been received; a recipient received twice is a duplicate, and a message
//! whose bytes behind the mark changed is damaged.
//!
//! Receipts of marked messages that the sender has no `250` for are normal
//! after a connection broke between the server's commit and its reply, and are
//! counted apart. Messages without a mark (reports) are only counted.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

use crate::latency::{self, Percentiles};
use crate::ledger::{Side, read};
use crate::message::Mark;

/// Most marks printed of each kind of fault.
const SHOWN: usize = 10;

/// What the comparison of two ledgers found.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Messages answered `250`.
    pub messages: u64,
    /// Their accepted recipients: what had to arrive.
    pub sent: u64,
    /// Recipients among them that arrived at least once.
    pub received: u64,
    /// Recipients among them that did not arrive.
    pub lost: u64,
    /// Receipts beyond the first of a recipient.
    pub duplicated: u64,
    /// Receipts whose content differs from what was sent.
    pub damaged: u64,
    /// Receipts of recipients that have no `250` in the sender's ledger.
    pub unacknowledged: u64,
    /// Receipts without a mark.
    pub unmarked: u64,
    /// Some of the lost, for a look at the logs.
    pub lost_marks: Vec<String>,
    /// Some of the damaged.
    pub damaged_marks: Vec<String>,
    /// From the message's start to its first receipt by a recipient.
    #[serde(serialize_with = "percentiles")]
    pub end_to_end: Histogram<u64>,
}

fn percentiles<S: Serializer>(histogram: &Histogram<u64>, to: S) -> Result<S::Ok, S::Error> {
    Percentiles::from(histogram).serialize(to)
}

impl Verdict {
    /// True if nothing was lost or damaged.
    pub fn is_good(&self) -> bool {
        self.lost == 0 && self.damaged == 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "sent (250)       {:>12}  messages {}", self.sent, self.messages)?;
        writeln!(f, "received         {:>12}", self.received)?;
        writeln!(f, "lost             {:>12}", self.lost)?;
        writeln!(f, "damaged          {:>12}", self.damaged)?;
        writeln!(f, "duplicated       {:>12}", self.duplicated)?;
        writeln!(f, "without a 250    {:>12}", self.unacknowledged)?;
        writeln!(f, "other mail       {:>12}", self.unmarked)?;
        for (what, marks) in [("lost", &self.lost_marks), ("damaged", &self.damaged_marks)] {
            for mark in marks {
                writeln!(f, "{what}: {mark}")?;
            }
        }
        if !self.end_to_end.is_empty() {
            writeln!(f, "\nfrom its start to the sink, in ms")?;
            latency::write_table(f, &[("end to end", &self.end_to_end)])?;
        }
        Ok(())
    }
}

/// The first receipt of a recipient that was promised; times in nanoseconds
/// since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Which of the senders' ledgers promised it.
    pub ledger: usize,
    /// When the message began.
    pub start_ns: u64,
    /// When the sink took it.
    pub received_ns: u64,
}

#[derive(Clone, Copy)]
struct Sent {
    start_ns: u64,
    crc: u32,
    receipts: u16,
    ledger: u16,
}

type Key = (Mark, u64);

fn key(mark: Mark, recipient: &str) -> Key {
    let mut hasher = DefaultHasher::new();
    recipient.hash(&mut hasher);
    (mark, hasher.finish())
}

/// Compares the ledgers at `sent` with the one at `received`; `each` is told of
/// every first receipt.
///
/// # Errors
/// A file cannot be read or is no ledger of its side.
pub fn compare(
    sent: &[PathBuf],
    received: &Path,
    mut each: impl FnMut(Arrival),
) -> io::Result<Verdict> {
    let mut expected: HashMap<Key, Sent> = HashMap::new();
    let mut verdict = Verdict {
        messages: 0,
        sent: 0,
        received: 0,
        lost: 0,
        duplicated: 0,
        damaged: 0,
        unacknowledged: 0,
        unmarked: 0,
        lost_marks: Vec::new(),
        damaged_marks: Vec::new(),
        end_to_end: latency::histogram(),
    };
    for (ledger, path) in sent.iter().enumerate() {
        read(path, Side::Sent, |entry| {
            let Some(mark) = entry.mark else { return };
            verdict.messages += 1;
            let start_ns = entry.unix_ns.saturating_sub(entry.figure);
            let sent = Sent { start_ns, crc: entry.crc, receipts: 0, ledger: ledger as u16 };
            for recipient in entry.recipients.split(',') {
                expected.insert(key(mark, recipient), sent);
            }
        })?;
    }
    verdict.sent = expected.len() as u64;
    read(received, Side::Received, |entry| {
        let Some(mark) = entry.mark else {
            verdict.unmarked += 1;
            return;
        };
        for recipient in entry.recipients.split(',') {
            let Some(sent) = expected.get_mut(&key(mark, recipient)) else {
                verdict.unacknowledged += 1;
                continue;
            };
            if sent.crc != entry.crc {
                verdict.damaged += 1;
                keep(&mut verdict.damaged_marks, || format!("{mark} to {recipient}"));
            }
            sent.receipts = sent.receipts.saturating_add(1);
            if sent.receipts > 1 {
                verdict.duplicated += 1;
                continue;
            }
            verdict.received += 1;
            latency::record(&mut verdict.end_to_end, entry.unix_ns.saturating_sub(sent.start_ns));
            each(Arrival {
                ledger: usize::from(sent.ledger),
                start_ns: sent.start_ns,
                received_ns: entry.unix_ns,
            });
        }
    })?;
    verdict.lost = verdict.sent - verdict.received;
    if verdict.lost > 0 {
        let mut lost: Vec<Mark> =
            expected.iter().filter(|(_, sent)| sent.receipts == 0).map(|(key, _)| key.0).collect();
        lost.sort_unstable();
        verdict.lost_marks = lost.iter().take(SHOWN).map(Mark::to_string).collect();
    }
    Ok(verdict)
}

fn keep(marks: &mut Vec<String>, text: impl FnOnce() -> String) {
    if marks.len() < SHOWN {
        marks.push(text());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Writer, create};

    type Line<'a> = (u64, u32, &'a [&'a str]);

    fn ledger(path: &Path, side: Side, lines: &[Line<'_>]) {
        create(path, side).unwrap();
        let mut writer = Writer::open(path).unwrap();
        for &(seq, crc, recipients) in lines {
            let mark = (seq > 0).then_some(Mark { run: 1, seq });
            let recipients = recipients.iter().map(|text| text.as_bytes());
            writer.note(mark, 5_000_000, 1_000_000, crc, recipients).unwrap();
        }
        writer.flush().unwrap();
    }

    fn compared(sent: &[Line<'_>], received: &[Line<'_>]) -> Verdict {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("sent"), dir.path().join("received"));
        ledger(&a, Side::Sent, sent);
        ledger(&b, Side::Received, received);
        compare(&[a], &b, |_| ()).unwrap()
    }

    #[test]
    fn all_arrived() {
        let lines: &[Line<'_>] = &[(1, 7, &["a@x", "b@x"]), (2, 8, &["a@x"])];
        // The recipients of one message may come in transactions of their own.
        let split: &[Line<'_>] = &[(2, 8, &["a@x"]), (1, 7, &["b@x"]), (1, 7, &["a@x"])];
        let verdict = compared(lines, split);
        assert!(verdict.is_good());
        assert_eq!((verdict.messages, verdict.sent, verdict.received), (2, 3, 3));
        assert_eq!(verdict.end_to_end.len(), 3);
        let json = serde_json::to_value(&verdict).unwrap();
        assert_eq!(json["end_to_end"]["count"], 3);
        assert_eq!((verdict.duplicated, verdict.unacknowledged), (0, 0));
    }

    #[test]
    fn a_lost_recipient_is_not_made_up_for_by_a_duplicate_of_another() {
        let verdict = compared(&[(1, 7, &["a@x", "b@x"])], &[(1, 7, &["a@x"]), (1, 7, &["a@x"])]);
        assert!(!verdict.is_good());
        assert_eq!((verdict.lost, verdict.duplicated), (1, 1));
        assert_eq!(verdict.lost_marks, ["00000001-000000000001"]);
    }

    #[test]
    fn damage_and_strangers_are_told_apart() {
        let verdict =
            compared(&[(1, 7, &["a@x"])], &[(1, 9, &["a@x"]), (2, 7, &["a@x"]), (0, 0, &["s@x"])]);
        assert!(!verdict.is_good());
        assert_eq!((verdict.damaged, verdict.unacknowledged, verdict.unmarked), (1, 1, 1));
        assert_eq!(verdict.lost, 0);
    }
}
