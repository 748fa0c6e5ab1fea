//! `/metrics`: the shards' figures in the OpenMetrics text format, which
//! Prometheus reads. Built anew from copies on each scrape; `docs/operate.md`
//! lists every name, which a test holds it to.
//!
//! Labels are bounded: single destinations only for those that a shard has most
//! mail for, the others are in its sums.

use std::fmt;

use hdrhistogram::Histogram;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::control::Phase;
use super::fleet::Silence;
use crate::base::UnixMillis;
use crate::io::dns::ServerFigures;
use crate::shard::control::{DnsFigures, ShardSnapshot, SiteState};

/// What the response calls itself.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the histograms' buckets, in microseconds.
const BOUNDS_US: [u64; 19] = [
    100,
    250,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    15_000_000,
    60_000_000,
    300_000_000,
    3_600_000_000,
    86_400_000_000,
];

/// What a scrape shows.
#[derive(Clone, Debug)]
pub struct Scrape {
    /// What each shard answered.
    pub shards: Vec<Result<ShardSnapshot, Silence>>,
    /// Where the server is in its life.
    pub phase: Phase,
    /// The durability mode in force.
    pub durability: &'static str,
    /// When the process was started.
    pub started: UnixMillis,
    /// Memory of the process in RAM, in bytes, if known.
    pub resident: Option<u64>,
}

/// The whole text.
///
/// # Errors
/// Never in practice: the text goes into a string.
pub fn encode(scrape: Scrape) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("ringpost");
    registry.register_collector(Box::new(scrape));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

/// A gauge of a shard: name, help, value.
type ShardGauge = (&'static str, &'static str, fn(&ShardSnapshot) -> u64);

const SHARD_GAUGES: [ShardGauge; 21] = [
    ("sessions", "Open SMTP sessions", |s| s.sessions),
    ("receive_memory_bytes", "Memory that sessions and the bodies they take use", |s| {
        s.receive_memory
    }),
    ("queued_messages", "Messages not settled yet", |s| s.queued_messages),
    ("queued_bytes", "Bytes of the messages not settled yet", |s| s.queued_bytes),
    ("segments", "Segment files in use", |s| s.files.in_use),
    ("segments_spare", "Segment files that wait to be used", |s| s.files.spare),
    ("segments_quarantined", "Segments kept because records in them are damaged", |s| {
        s.files.quarantined
    }),
    ("segments_unread", "Segments still to be read after the start", |s| s.files.unread),
    ("live_bytes", "Bytes of records that queued messages need", |s| s.files.live_bytes),
    ("body_memory_bytes", "Bytes of bodies in memory to be delivered", |s| s.body_memory),
    ("sites", "Destinations that the shard has mail for, or has lately had", |s| {
        s.site_totals.sites
    }),
    ("sites_backing_off", "Those of them that are left alone after a failure", |s| {
        s.site_totals.backing_off
    }),
    ("recipients_waiting", "Recipients that are due and wait for their destination", |s| {
        s.site_totals.waiting
    }),
    ("deliveries_out", "Deliveries given out: in line for a connection or under way", |s| {
        s.site_totals.out
    }),
    ("outbound_connections_open", "Open connections to destinations", |s| {
        s.site_totals.connections
    }),
    ("dns_entries", "Names and types in the resolver's cache", |s| s.dns.entries as u64),
    ("dns_bytes", "Bytes of the resolver's cache", |s| s.dns.bytes as u64),
    ("dns_in_flight", "Look-ups under way", |s| s.dns.in_flight as u64),
    ("dns_waiting", "Look-ups that wait for others to end", |s| s.dns.waiting as u64),
    ("poisoned", "1 while the shard refuses mail after a failed write", |s| {
        u64::from(s.poisoned.is_some())
    }),
    ("disk_full", "1 while the shard answers 452 because the disk is nearly full", |s| {
        u64::from(s.full)
    }),
];

/// A counter of a resolver: name, help, value.
type DnsCounter = (&'static str, &'static str, fn(&DnsFigures) -> u64);

const DNS_COUNTERS: [DnsCounter; 9] = [
    ("dns_queries", "Queries sent to DNS servers, repetitions counted", |d| d.queries),
    ("dns_hits", "Look-ups answered from the cache", |d| d.hits),
    ("dns_misses", "Look-ups that had to ask", |d| d.misses),
    ("dns_joined", "Look-ups that joined one under way", |d| d.joined),
    ("dns_timeouts", "Queries that nobody answered in time", |d| d.timeouts),
    ("dns_truncated", "Answers that were cut short, so that TCP was needed", |d| d.truncated),
    ("dns_mismatched", "Answers that did not fit the query", |d| d.mismatched),
    ("dns_prefetched", "Names fetched anew before they expired", |d| d.prefetched),
    ("dns_troubles", "Look-ups that came to no answer", |d| d.troubles),
];

/// A figure of a DNS server: name, help, kind, value.
type ServerFigure = (&'static str, &'static str, MetricType, fn(&ServerFigures) -> u64);

const SERVER_FIGURES: [ServerFigure; 3] = [
    ("dns_server_queries", "Queries sent to a DNS server", MetricType::Counter, |s| s.queries),
    ("dns_server_failures", "Those of them that failed", MetricType::Counter, |s| s.failures),
    (
        "dns_server_backing_off",
        "1 while a DNS server is left alone after failures",
        MetricType::Gauge,
        |s| u64::from(s.is_backing_off),
    ),
];

/// A gauge of a destination: name, help, value.
type SiteGauge = (&'static str, &'static str, fn(&SiteState) -> u64);

const SITE_GAUGES: [SiteGauge; 5] = [
    ("site_waiting", "Recipients that wait until more may be given out", |s| s.waiting),
    ("site_out", "Deliveries given out: in line for a connection or under way", |s| s.out),
    ("site_queued", "Deliveries in line for a connection to a destination", |s| s.queued),
    ("site_connections", "Open connections to a destination", |s| s.connections),
    ("site_backing_off", "1 while a destination is left alone after a failure", |s| {
        u64::from(s.back_off_until.is_some())
    }),
];

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.server(&mut encoder)?;
        self.counters(&mut encoder)?;
        self.gauges(&mut encoder)?;
        self.dns(&mut encoder)?;
        self.sites(&mut encoder)?;
        self.histogram(
            &mut encoder,
            "accept_seconds",
            "Time from the end of DATA to the 250",
            (1, |shard| &shard.accept_latency),
        )?;
        self.histogram(
            &mut encoder,
            "delivery_seconds",
            "Time from the 250 to the delivery of the last recipient",
            (1_000, |shard| &shard.delivery_latency),
        )
    }
}

impl Scrape {
    fn heard(&self) -> impl Iterator<Item = &ShardSnapshot> {
        self.shards.iter().filter_map(|shard| shard.as_ref().ok())
    }

    /// Figures of the process as a whole.
    fn server(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        family(encoder, "build_info", "The version that runs", MetricType::Gauge)?
            .encode_family(&version)?
            .encode_gauge(&1u64)?;
        let mode = [("mode", self.durability)];
        family(encoder, "durability", "What a 250 waits for", MetricType::Gauge)?
            .encode_family(&mode)?
            .encode_gauge(&1u64)?;
        let phase = [("phase", self.phase.name())];
        family(encoder, "phase", "Where the server is in its life", MetricType::Gauge)?
            .encode_family(&phase)?
            .encode_gauge(&1u64)?;
        let started = self.started.0 as f64 / 1000.0;
        family(encoder, "start_time_seconds", "When the process was started", MetricType::Gauge)?
            .encode_gauge(&started)?;
        if let Some(resident) = self.resident {
            family(encoder, "resident_memory_bytes", "Memory in RAM", MetricType::Gauge)?
                .encode_gauge(&resident)?;
        }
        let silent = self.shards.iter().filter(|shard| shard.is_err()).count();
        family(encoder, "shards_silent", "Shards that did not answer", MetricType::Gauge)?
            .encode_gauge(&silent)
    }

    fn counters(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let tables: Vec<_> = self.heard().map(|s| (s.shard.0, s.counters.table())).collect();
        let Some((_, first)) = tables.first() else { return Ok(()) };
        for (row, (name, help, _)) in first.iter().enumerate() {
            let mut metric = family(encoder, name, help, MetricType::Counter)?;
            for (shard, table) in &tables {
                metric
                    .encode_family(&[("shard", *shard)])?
                    .encode_counter::<NoLabelSet, u64, f64>(&table[row].2, None)?;
            }
        }
        Ok(())
    }

    fn gauges(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, value) in SHARD_GAUGES {
            let mut metric = family(encoder, name, help, MetricType::Gauge)?;
            for shard in self.heard() {
                metric.encode_family(&[("shard", shard.shard.0)])?.encode_gauge(&value(shard))?;
            }
        }
        let (name, help) = ("space_amplification", "Bytes in segments for each byte needed");
        let mut metric = family(encoder, name, help, MetricType::Gauge)?;
        for shard in self.heard() {
            let value = shard.files.amplification;
            metric.encode_family(&[("shard", shard.shard.0)])?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn dns(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, value) in DNS_COUNTERS {
            let mut metric = family(encoder, name, help, MetricType::Counter)?;
            for shard in self.heard() {
                metric
                    .encode_family(&[("shard", shard.shard.0)])?
                    .encode_counter::<NoLabelSet, u64, f64>(&value(&shard.dns), None)?;
            }
        }
        for (name, help, kind, value) in SERVER_FIGURES {
            let mut metric = family(encoder, name, help, kind)?;
            for shard in self.heard() {
                let number = shard.shard.to_string();
                for server in &shard.dns.servers {
                    let address = server.address.to_string();
                    let labels = [("shard", number.as_str()), ("server", &address)];
                    let mut metric = metric.encode_family(&labels)?;
                    match kind {
                        MetricType::Counter => {
                            metric.encode_counter::<NoLabelSet, u64, f64>(&value(server), None)?;
                        }
                        _ => metric.encode_gauge(&value(server))?,
                    }
                }
            }
        }
        Ok(())
    }

    fn sites(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, value) in SITE_GAUGES {
            let mut metric = family(encoder, name, help, MetricType::Gauge)?;
            for shard in self.heard() {
                let number = shard.shard.to_string();
                for site in &shard.sites {
                    let name = label(&site.site);
                    let labels = [("shard", number.as_str()), ("site", &name)];
                    metric.encode_family(&labels)?.encode_gauge(&value(site))?;
                }
            }
        }
        Ok(())
    }

    /// `of` is the microseconds in a histogram's unit, and the histogram.
    fn histogram(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        of: (u64, fn(&ShardSnapshot) -> &Histogram<u64>),
    ) -> fmt::Result {
        let (unit_us, pick) = of;
        let mut metric = family(encoder, name, help, MetricType::Histogram)?;
        for shard in self.heard() {
            let (sum, count, buckets) = buckets(pick(shard), unit_us);
            metric
                .encode_family(&[("shard", shard.shard.0)])?
                .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}

fn family<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &str,
    kind: MetricType,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, kind)
}

/// A label's value, escaped: the encoder writes it as it is.
fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Sum in seconds, count, and (bound in seconds, values up to it but past the
/// bound before) of a histogram whose unit is `unit_us` microseconds.
fn buckets(histogram: &Histogram<u64>, unit_us: u64) -> (f64, u64, Vec<(f64, u64)>) {
    let mut buckets = Vec::with_capacity(BOUNDS_US.len() + 1);
    let mut sum_us = 0.0;
    let mut past = 0;
    let mut bounds = BOUNDS_US.iter().peekable();
    for step in histogram.iter_recorded() {
        let us = step.value_iterated_to().saturating_mul(unit_us);
        sum_us += us as f64 * step.count_at_value() as f64;
        while let Some(bound) = bounds.next_if(|bound| **bound < us) {
            buckets.push((seconds(*bound), past));
            past = 0;
        }
        past += step.count_at_value();
    }
    for bound in bounds {
        buckets.push((seconds(*bound), past));
        past = 0;
    }
    buckets.push((f64::MAX, past));
    (sum_us / 1e6, histogram.len(), buckets)
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::fake;
    use crate::base::ShardId;

    fn scrape() -> Scrape {
        let mut one = fake::snapshot(0);
        one.counters.messages_accepted = 7;
        one.sessions = 3;
        one.sites[0].site = "a\"b\\c".into();
        for us in [90, 900, 900, 100_000_000_000] {
            one.accept_latency.record(us).unwrap();
        }
        one.delivery_latency.record(2).unwrap();
        let mut two = fake::snapshot(1);
        two.counters.messages_accepted = 5;
        two.poisoned = Some("x".into());
        Scrape {
            shards: vec![Ok(one), Ok(two), Err(Silence::Ended(ShardId(2)))],
            phase: Phase::Ready,
            durability: "sync",
            started: UnixMillis(1_700_000_000_500),
            resident: Some(4096),
        }
    }

    fn text() -> String {
        encode(scrape()).unwrap()
    }

    #[track_caller]
    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }

    #[test]
    fn counters_gauges_and_histograms_read_as_they_should() {
        let text = text();
        for line in [
            "# HELP ringpost_messages_accepted Messages answered with 250 after their commit",
            "# TYPE ringpost_messages_accepted counter",
            "ringpost_messages_accepted_total{shard=\"0\"} 7",
            "ringpost_messages_accepted_total{shard=\"1\"} 5",
            "# TYPE ringpost_sessions gauge",
            "ringpost_sessions{shard=\"0\"} 3",
            "ringpost_poisoned{shard=\"0\"} 0",
            "ringpost_segments_spare{shard=\"0\"} 3",
            "ringpost_space_amplification{shard=\"1\"} 1.25",
            "ringpost_poisoned{shard=\"1\"} 1",
            "ringpost_shards_silent 1",
            "ringpost_durability{mode=\"sync\"} 1",
            "ringpost_phase{phase=\"ready\"} 1",
            "ringpost_start_time_seconds 1700000000.5",
            "ringpost_resident_memory_bytes 4096",
            "ringpost_site_queued{shard=\"0\",site=\"a\\\"b\\\\c\"} 4",
            "ringpost_site_waiting{shard=\"1\",site=\"127.0.0.1:2526\"} 6",
            "ringpost_recipients_waiting{shard=\"1\"} 9",
            "ringpost_sites_backing_off{shard=\"0\"} 0",
            "ringpost_dns_queries_total{shard=\"0\"} 12",
            "ringpost_dns_entries{shard=\"1\"} 7",
            "ringpost_dns_server_failures_total{shard=\"0\",server=\"192.0.2.53:53\"} 2",
            "# TYPE ringpost_dns_server_backing_off gauge",
            "ringpost_dns_server_backing_off{shard=\"1\",server=\"192.0.2.53:53\"} 1",
            "# TYPE ringpost_accept_seconds histogram",
            "ringpost_accept_seconds_bucket{le=\"0.0001\",shard=\"0\"} 1",
            "ringpost_accept_seconds_bucket{le=\"0.0005\",shard=\"0\"} 1",
            "ringpost_accept_seconds_bucket{le=\"0.001\",shard=\"0\"} 3",
            "ringpost_accept_seconds_bucket{le=\"86400.0\",shard=\"0\"} 3",
            "ringpost_accept_seconds_bucket{le=\"+Inf\",shard=\"0\"} 4",
            "ringpost_accept_seconds_count{shard=\"0\"} 4",
            "ringpost_accept_seconds_count{shard=\"1\"} 0",
            "ringpost_delivery_seconds_bucket{le=\"0.001\",shard=\"0\"} 0",
            "ringpost_delivery_seconds_bucket{le=\"0.002\",shard=\"0\"} 1",
            "ringpost_delivery_seconds_sum{shard=\"0\"} 0.002",
        ] {
            has(&text, line);
        }
        assert_eq!(text.lines().last(), Some("# EOF"));
    }

    #[test]
    fn each_family_is_declared_once_before_its_samples() {
        let text = text();
        let mut declared: Vec<&str> = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let name = rest.split(' ').next().unwrap();
                assert!(!declared.contains(&name), "{name} is declared twice");
                declared.push(name);
            } else if !line.starts_with('#') {
                let family = declared.last().unwrap();
                assert!(line.starts_with(family), "{line} is not of {family}");
            }
        }
    }

    #[test]
    fn every_metric_is_documented() {
        let page = include_str!("../../docs/operate.md");
        for line in text().lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                let suffix = if kind == "counter" { "_total" } else { "" };
                let row = format!("| `{name}{suffix}` | {kind} |");
                assert!(page.contains(&row), "docs/operate.md lacks the row {row}");
            }
        }
    }

    #[test]
    fn an_empty_fleet_gives_a_valid_text() {
        let text = encode(Scrape { shards: vec![], ..scrape() }).unwrap();
        has(&text, "ringpost_shards_silent 0");
        assert!(text.ends_with("# EOF\n"));
    }
}
