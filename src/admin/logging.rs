//! The log. One thread owns standard error; shards send it batches of lines
//! about mail, everything else comes through `tracing` on the same channel, so
//! that lines never mix. `RINGPOST_LOG` says what is logged, `--log-format`
//! how it looks.
//!
//! Nobody waits for the writer: when standard error is not read, lines are
//! dropped, and the next line that gets through says how many batches were.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver as Done, channel};
use std::time::Duration;

use async_channel::Receiver;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use super::failure::Failure;
use crate::io::clock;
use crate::shard::maillog::{LogFormat, LogSink};

/// The variable that says what is logged.
pub const VARIABLE: &str = "RINGPOST_LOG";
/// What `RINGPOST_LOG` calls the lines about mail.
const MAIL_TARGET: &str = "mail";
/// Batches that may wait for the writer. A batch is one event, or at most
/// 64 KiB of lines about mail.
const BATCHES_MAX: usize = 512;

/// The thread that writes the log.
pub struct LogWriter {
    batches: Receiver<Vec<u8>>,
    done: Done<()>,
}

impl LogWriter {
    /// Writes what has been sent so far and ends; waits for that at most
    /// `limit`, since nobody may be reading.
    pub fn finish(self, limit: Duration) {
        self.batches.close();
        // A writer that is stuck is left behind: the process ends anyway.
        let _ = self.done.recv_timeout(limit);
    }
}

/// Starts the writer on `out`.
///
/// # Errors
/// No thread could be started.
pub fn start(
    format: LogFormat,
    mut out: impl Write + Send + 'static,
) -> io::Result<(LogSink, LogWriter)> {
    let (sender, batches) = async_channel::bounded::<Vec<u8>>(BATCHES_MAX);
    let (finished, done) = channel();
    let incoming = batches.clone();
    std::thread::Builder::new().name("log".into()).spawn(move || {
        while let Ok(batch) = incoming.recv_blocking() {
            // There is nowhere to report that the log cannot be written.
            let _ = out.write_all(&batch);
        }
        let _ = out.flush();
        let _ = finished.send(());
    })?;
    Ok((LogSink { batches: sender, format, mail: true }, LogWriter { batches, done }))
}

/// What is to be logged: the value of `RINGPOST_LOG`, or everything from INFO.
///
/// # Errors
/// The value is no filter.
pub fn filter(text: Option<&str>) -> Result<EnvFilter, Failure> {
    let builder = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    builder.parse(text.unwrap_or_default()).map_err(|error| {
        Failure::usage(format!(
            "{VARIABLE} is wrong: {error}; it takes a level (error, warn, info, debug, trace, off) \
             or TARGET=LEVEL, separated by commas, for example {VARIABLE}=info,mail=off"
        ))
    })
}

/// The subscriber that formats events and sends them to `sink`.
pub fn subscriber(
    sink: &LogSink,
    filter: EnvFilter,
) -> Box<dyn Subscriber + Send + Sync + 'static> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(Clock)
        .with_ansi(false)
        .with_writer(Events { sink: sink.clone(), lost: Arc::default() });
    match sink.format {
        LogFormat::Text => Box::new(builder.finish()),
        LogFormat::Json => Box::new(builder.json().with_current_span(false).finish()),
    }
}

/// Makes `subscriber` the one of the process, and has `sink` carry lines about
/// mail only if the filter lets them through.
pub fn install(sink: LogSink, filter: EnvFilter) -> LogSink {
    // Only the first of a process counts; a second would be a second server in
    // the same process, which may share the log of the first.
    let _ = tracing::subscriber::set_global_default(subscriber(&sink, filter));
    LogSink { mail: mail_wanted(), ..sink }
}

fn mail_wanted() -> bool {
    tracing::enabled!(target: MAIL_TARGET, tracing::Level::INFO)
}

struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, out: &mut Writer<'_>) -> std::fmt::Result {
        write!(out, "{}", clock::wall())
    }
}

/// Sends each event as one batch.
#[derive(Clone)]
struct Events {
    sink: LogSink,
    lost: Arc<AtomicU64>,
}

impl<'a> MakeWriter<'a> for Events {
    type Writer = Events;

    fn make_writer(&'a self) -> Events {
        self.clone()
    }
}

impl Write for Events {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let mut batch = Vec::with_capacity(line.len() + 128);
        if lost > 0 {
            batch.extend_from_slice(self.confession(lost).as_bytes());
        }
        batch.extend_from_slice(line);
        if self.sink.batches.try_send(batch).is_err() {
            self.lost.fetch_add(lost + 1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Events {
    fn confession(&self, lost: u64) -> String {
        let now = clock::wall();
        let message = "log lines lost: standard error was not read fast enough";
        match self.sink.format {
            LogFormat::Text => format!("{now}  WARN ringpost: {message} lines={lost}\n"),
            LogFormat::Json => format!(
                "{{\"timestamp\":\"{now}\",\"level\":\"WARN\",\"fields\":{{\"message\":\
                 \"{message}\",\"lines\":{lost}}},\"target\":\"ringpost\"}}\n"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::base::UnixMillis;
    use crate::base::counters::SharedCounters;
    use crate::shard::maillog::MailLog;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, spec: &str) -> Vec<String> {
        let page = Page::default();
        let (sink, writer) = start(format, page.clone()).unwrap();
        tracing::subscriber::with_default(subscriber(&sink, filter(Some(spec)).unwrap()), || {
            let sink = LogSink { mail: mail_wanted(), ..sink.clone() };
            let mail = MailLog::new(sink, SharedCounters::default());
            tracing::info!(target: "ringpost", peer = ?"a\nb", "first");
            mail.line(UnixMillis(0), "accepted", |line| {
                line.number("size", 7);
            });
            mail.ship();
            tracing::debug!(target: "ringpost", "not by default");
        });
        writer.finish(Duration::from_secs(10));
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn text_lines_come_in_order_with_a_utc_time() {
        let lines = logged(LogFormat::Text, "");
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].ends_with("Z  INFO ringpost: first peer=\"a\\nb\""), "{lines:?}");
        assert_eq!(lines[1], "1970-01-01T00:00:00.000Z  INFO mail: accepted size=7");
        assert_eq!(lines[0].find('Z'), Some("2026-01-01T00:00:00.000".len()));
    }

    #[test]
    fn json_lines_have_one_shape() {
        for line in logged(LogFormat::Json, "") {
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            for key in ["timestamp", "level", "target"] {
                assert!(value[key].is_string(), "{key} in {line}");
            }
            assert!(value["fields"]["message"].is_string(), "{line}");
        }
    }

    #[test]
    fn the_filter_reaches_mail_and_a_wrong_one_is_explained() {
        assert_eq!(logged(LogFormat::Text, "info,mail=off").len(), 1);
        assert_eq!(logged(LogFormat::Text, "debug").len(), 3);
        assert_eq!(logged(LogFormat::Text, "off").len(), 0);
        let error = filter(Some("mail=loud")).unwrap_err();
        assert_eq!(error.code, 2);
        assert!(error.message.contains("RINGPOST_LOG"), "{error}");
    }

    #[test]
    fn a_log_that_nobody_reads_costs_lines_and_says_so() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let (sender, batches) = async_channel::bounded(1);
            let sink = LogSink { batches: sender, format, mail: true };
            let mut events = Events { sink, lost: Arc::default() };
            for _ in 0..3 {
                assert_eq!(events.write(b"line\n").unwrap(), 5);
            }
            assert_eq!(batches.try_recv().unwrap(), b"line\n");
            events.write_all(b"last\n").unwrap();
            let text = String::from_utf8(batches.try_recv().unwrap()).unwrap();
            let (first, last) = text.split_once('\n').unwrap();
            assert_eq!(last, "last\n");
            match format {
                LogFormat::Text => assert!(first.ends_with("lines=2"), "{first}"),
                LogFormat::Json => {
                    let value: serde_json::Value = serde_json::from_str(first).unwrap();
                    assert_eq!(value["fields"]["lines"], 2);
                }
            }
        }
    }
}
