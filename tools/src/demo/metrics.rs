//! The server's figures, read from its `/metrics` while it runs: one plain HTTP
//! request, and the sums over its shards of the few families that are shown.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Figures of the server at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Messages answered 250.
    pub accepted: u64,
    /// Recipients delivered.
    pub delivered: u64,
    /// Messages not settled yet.
    pub queued: u64,
    /// Flushes of the log.
    pub flushes: u64,
    /// Bytes written to the log.
    pub bytes_written: u64,
    /// Bytes of messages accepted.
    pub bytes_accepted: u64,
    /// Memory in RAM, in bytes.
    pub resident: u64,
    /// Times to the 250.
    pub accepts: Accepts,
}

/// Most buckets of a histogram that are read.
const BUCKETS: usize = 32;

/// The histogram of times to the 250: for each bucket its upper bound in
/// microseconds and how many were at or below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepts([(u64, u64); BUCKETS]);

impl Accepts {
    fn parse(text: &str) -> Accepts {
        let mut sums = BTreeMap::new();
        for line in text.lines() {
            let Some(rest) = line.strip_prefix("ringpost_accept_seconds_bucket{") else { continue };
            let Some((labels, value)) = rest.rsplit_once("} ") else { continue };
            let bound = labels.split(',').find_map(|label| label.strip_prefix("le=\""));
            let Some(bound) = bound.and_then(|bound| bound.strip_suffix('"')) else { continue };
            let bound_us = match bound.parse::<f64>() {
                Ok(seconds) if seconds.is_finite() => (seconds * 1e6).round() as u64,
                _ => u64::MAX,
            };
            *sums.entry(bound_us).or_insert(0) += value.parse::<f64>().unwrap_or(0.0) as u64;
        }
        let mut accepts = Accepts::default();
        for (place, bucket) in accepts.0.iter_mut().zip(sums) {
            *place = bucket;
        }
        accepts
    }

    /// The bound, in milliseconds, that 99 of 100 since `before` were within;
    /// `None` when there were none, or when some took longer than any bound.
    pub fn p99_ms_since(&self, before: &Accepts) -> Option<f64> {
        let since = |place: usize| self.0[place].1.saturating_sub(before.0[place].1);
        let count = (0..BUCKETS).map(since).max().unwrap_or(0);
        let place = (0..BUCKETS).find(|place| count > 0 && since(*place) * 100 >= count * 99)?;
        let bound_us = self.0[place].0;
        (bound_us != u64::MAX).then(|| bound_us as f64 / 1000.0)
    }
}

/// Asks the server whose HTTP port is at `address`.
///
/// # Errors
/// Those of the connection; the answer was not 200.
pub fn read(address: SocketAddr) -> io::Result<Figures> {
    let text = get(address, "/metrics")?;
    let counter = |name: &str| sum(&text, &format!("ringpost_{name}_total"));
    let gauge = |name: &str| sum(&text, &format!("ringpost_{name}"));
    Ok(Figures {
        accepted: counter("messages_accepted"),
        delivered: counter("recipients_delivered"),
        queued: gauge("queued_messages"),
        flushes: counter("flushes"),
        bytes_written: counter("bytes_written"),
        bytes_accepted: counter("bytes_accepted"),
        resident: gauge("resident_memory_bytes"),
        accepts: Accepts::parse(&text),
    })
}

/// True once the server says that it is in health.
pub fn is_healthy(address: SocketAddr) -> bool {
    get(address, "/healthz").is_ok()
}

fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    if text.starts_with("HTTP/1.1 200 ") {
        Ok(text)
    } else {
        let status = text.lines().next().unwrap_or("no answer");
        Err(io::Error::other(format!("{path}: {status}")))
    }
}

/// The sum of all samples of the family `name`.
fn sum(text: &str, name: &str) -> u64 {
    let value = |line: &str| -> Option<u64> {
        let rest = line.strip_prefix(name)?;
        let rest = match rest.strip_prefix('{') {
            Some(labels) => labels.rsplit_once('}')?.1,
            None => rest,
        };
        Some(rest.strip_prefix(' ')?.split(' ').next()?.parse::<f64>().ok()? as u64)
    };
    text.lines().filter_map(value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn sums_over_shards_and_takes_no_family_for_another() {
        let text = "# HELP ringpost_flushes Flushes.\n\
                    ringpost_flushes_total{shard=\"0\"} 7\n\
                    ringpost_flushes_total{shard=\"1\"} 5\n\
                    ringpost_flushes_total_more 100\n\
                    ringpost_resident_memory_bytes 1.5e6\n";
        assert_eq!(sum(text, "ringpost_flushes_total"), 12);
        assert_eq!(sum(text, "ringpost_resident_memory_bytes"), 1_500_000);
        assert_eq!(sum(text, "ringpost_nothing"), 0);
    }

    #[test]
    fn tells_the_bound_that_99_of_100_were_within() {
        let text = |fast: u64, slow: u64, all: u64| {
            let line = |shard: u8, le: &str, count: u64| {
                format!("ringpost_accept_seconds_bucket{{le=\"{le}\",shard=\"{shard}\"}} {count}\n")
            };
            let shards = [0, 1].map(|shard| {
                [line(shard, "0.001", fast), line(shard, "0.05", slow), line(shard, "+Inf", all)]
                    .concat()
            });
            Accepts::parse(&shards.concat())
        };
        let before = text(100, 100, 100);
        assert_eq!(text(100, 100, 100).p99_ms_since(&before), None, "nothing since");
        assert_eq!(text(199, 200, 200).p99_ms_since(&before), Some(1.0));
        assert_eq!(text(190, 200, 200).p99_ms_since(&before), Some(50.0));
        assert_eq!(text(190, 190, 200).p99_ms_since(&before), None, "beyond all bounds");
    }

    #[test]
    fn asks_over_http() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            for status in ["200 OK", "503 Service Unavailable"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut part = [0; 1024];
                    let count = stream.read(&mut part).unwrap();
                    assert!(count > 0, "the request has no end");
                    request.extend_from_slice(&part[..count]);
                }
                assert!(request.starts_with(b"GET /"));
                let body = "ringpost_queued_messages{shard=\"0\"} 3\n";
                write!(stream, "HTTP/1.1 {status}\r\n\r\n{body}").unwrap();
            }
        });
        assert_eq!(read(address).unwrap().queued, 3);
        assert!(!is_healthy(address));
        server.join().unwrap();
    }
}
