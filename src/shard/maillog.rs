//! The mail log: one line for each message accepted and each outcome, made on
//! the shard without a system call and shipped in batches to the thread that
//! owns standard error. Lines of other events go there through `tracing`.
//!
//! `admin` makes the [`LogSink`]; `shard` writes through [`MailLog`]. When the
//! writer does not keep up, whole batches are dropped and counted
//! (`log_lines_lost`): mail is never held up by its log.

use std::cell::{Cell, RefCell};
use std::fmt::{Display, Write as _};

use async_channel::Sender;

use crate::base::UnixMillis;
use crate::base::counters::SharedCounters;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `TIME LEVEL TARGET: event key=value ...`
    Text,
    /// One JSON object a line.
    Json,
}

/// Where log lines go, and how they look. Cheap to clone.
#[derive(Clone)]
pub struct LogSink {
    /// Batches of whole lines; bounded.
    pub batches: Sender<Vec<u8>>,
    /// How lines look.
    pub format: LogFormat,
    /// Whether lines about mail are wanted (`RINGPOST_LOG` may turn them off).
    pub mail: bool,
}

/// A batch is shipped when it has grown to this many bytes, or by the shard's
/// tick.
const BATCH: usize = 64 * 1024;

/// The mail log of one shard.
pub struct MailLog {
    sink: LogSink,
    batch: RefCell<String>,
    lines: Cell<u64>,
    counters: SharedCounters,
}

impl MailLog {
    /// A log that writes to `sink` and counts what was lost in `counters`.
    pub fn new(sink: LogSink, counters: SharedCounters) -> Self {
        MailLog { sink, batch: RefCell::default(), lines: Cell::new(0), counters }
    }

    /// Writes the line `event` with the fields that `fill` adds.
    pub fn line(&self, now: UnixMillis, event: &str, fill: impl FnOnce(&mut Line<'_>)) {
        if !self.sink.mail {
            return;
        }
        let mut batch = self.batch.borrow_mut();
        let format = self.sink.format;
        match format {
            LogFormat::Text => write!(batch, "{now}  INFO mail: {event}"),
            LogFormat::Json => write!(
                batch,
                r#"{{"timestamp":"{now}","level":"INFO","target":"mail","fields":{{"message":"{event}""#
            ),
        }
        .expect("a String takes all");
        fill(&mut Line { out: &mut batch, format });
        batch.push_str(if format == LogFormat::Text { "\n" } else { "}}\n" });
        self.lines.set(self.lines.get() + 1);
        if batch.len() >= BATCH {
            drop(batch);
            self.ship();
        }
    }

    /// Hands what has been written to the writer.
    pub fn ship(&self) {
        let batch = self.batch.take();
        let lines = self.lines.take();
        if !batch.is_empty() && self.sink.batches.try_send(batch.into_bytes()).is_err() {
            self.counters.borrow_mut().log_lines_lost += lines;
        }
    }
}

/// A line under construction.
pub struct Line<'a> {
    out: &'a mut String,
    format: LogFormat,
}

impl Line<'_> {
    /// A number, an id or another word without spaces or quotes.
    pub fn word(&mut self, key: &str, value: impl Display) -> &mut Self {
        match self.format {
            LogFormat::Text => write!(self.out, " {key}={value}"),
            LogFormat::Json => write!(self.out, r#","{key}":"{value}""#),
        }
        .expect("a String takes all");
        self
    }

    /// A number.
    pub fn number(&mut self, key: &str, value: u64) -> &mut Self {
        match self.format {
            LogFormat::Text => write!(self.out, " {key}={value}"),
            LogFormat::Json => write!(self.out, r#","{key}":{value}"#),
        }
        .expect("a String takes all");
        self
    }

    /// An address, printed in angle brackets in text.
    pub fn address(&mut self, key: &str, value: &str) -> &mut Self {
        match self.format {
            LogFormat::Text => {
                let _ = write!(self.out, " {key}=<");
                escape(self.out, value, '>');
                self.out.push('>');
            }
            LogFormat::Json => self.json(key, value),
        }
        self
    }

    /// Any text: what a peer said.
    pub fn text(&mut self, key: &str, value: &str) -> &mut Self {
        match self.format {
            LogFormat::Text => {
                let _ = write!(self.out, " {key}=\"");
                escape(self.out, value, '"');
                self.out.push('"');
            }
            LogFormat::Json => self.json(key, value),
        }
        self
    }

    fn json(&mut self, key: &str, value: &str) {
        let quoted = serde_json::to_string(value).expect("a string is JSON");
        write!(self.out, r#","{key}":{quoted}"#).expect("a String takes all");
    }
}

/// Writes `value` so that it cannot end its quotes or its line.
fn escape(out: &mut String, value: &str, close: char) {
    let is_plain = |b: u8| matches!(b, b' '..=b'~') && !matches!(b, b'\\' | b'"' | b'>');
    if value.bytes().all(is_plain) {
        return out.push_str(value);
    }
    for c in value.chars() {
        if is_odd(c) || c == '\\' || (c == close && close == '"') {
            let _ = write!(out, "{}", c.escape_default());
        } else if c == close {
            let _ = write!(out, "\\{c}");
        } else {
            out.push(c);
        }
    }
}

/// What ends a line or turns its direction, for one program or another.
fn is_odd(c: char) -> bool {
    let turns =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_line(format: LogFormat) -> String {
        let (batches, lines) = async_channel::bounded(1);
        let log = MailLog::new(LogSink { batches, format, mail: true }, SharedCounters::default());
        log.line(UnixMillis(1_700_000_000_123), "accepted", |line| {
            line.word("id", "0123")
                .number("size", 7)
                .address("from", "a@b")
                .text("helo", "x\"\n\u{1b}y");
        });
        log.ship();
        String::from_utf8(lines.try_recv().unwrap()).unwrap()
    }

    #[test]
    fn text_lines_cannot_be_broken_by_a_peer() {
        assert_eq!(
            one_line(LogFormat::Text),
            "2023-11-14T22:13:20.123Z  INFO mail: accepted id=0123 size=7 from=<a@b> \
             helo=\"x\\\"\\n\\u{1b}y\"\n"
        );
    }

    #[test]
    fn an_address_cannot_pass_for_another_field() {
        let escaped = |value, close| {
            let mut out = String::new();
            escape(&mut out, value, close);
            out
        };
        assert_eq!(escaped("a.b@c", '>'), "a.b@c");
        assert_eq!(
            escaped(r#""x> status=delivered to=<y"@z"#, '>'),
            r#""x\> status=delivered to=<y"@z"#
        );
        assert_eq!(escaped("a > b", '"'), "a > b");
        assert_eq!(escaped("a\u{85}\u{2028}\u{202e}b", '"'), r"a\u{85}\u{2028}\u{202e}b");
        assert_eq!(escaped("caf\u{e9}", '>'), "caf\u{e9}");
    }

    #[test]
    fn json_lines_are_json() {
        let value: serde_json::Value = serde_json::from_str(&one_line(LogFormat::Json)).unwrap();
        assert_eq!(value["fields"]["message"], "accepted");
        assert_eq!(value["fields"]["size"], 7);
        assert_eq!(value["fields"]["helo"], "x\"\n\u{1b}y");
    }

    #[test]
    fn counts_what_a_slow_writer_loses() {
        let (batches, _lines) = async_channel::bounded(1);
        let counters = SharedCounters::default();
        let sink = LogSink { batches, format: LogFormat::Text, mail: true };
        let log = MailLog::new(sink, counters.clone());
        for _ in 0..3 {
            log.line(UnixMillis(0), "accepted", |_| {});
            log.ship();
        }
        assert_eq!(counters.borrow().log_lines_lost, 2);
    }
}
