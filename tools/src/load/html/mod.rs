//! A run as one page that needs nothing else: figures, throughput and latency
//! over time, the distribution of latencies, failures over time, every kind of
//! reply that was not 2xx, and how the run was made. No script; light and dark
//! follow the reader's setting.

mod plot;

use std::fmt::Write;

use ringpost::base::UnixMillis;
use ringpost::mail::date;

use super::report::{Messages, Report};
use crate::latency::Percentiles;
use crate::text::{counted, grouped, time_label};
use plot::{Axis, Plot, chart, escape};

const STYLE: &str = include_str!("style.css");

/// Most nines on the axis of percentiles.
const NINES_MAX: f64 = 5.0;

/// Most bars of failures over time.
const BARS_MAX: usize = 120;

/// The page.
pub fn page(report: &Report) -> String {
    let mut page = String::with_capacity(256 * 1024);
    let title = escape(&format!("ringpost-load: {}", report.target));
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
    );
    heading(&mut page, report);
    tiles(&mut page, report);
    throughput(&mut page, report);
    latency_over_time(&mut page, report);
    percentiles(&mut page, report);
    failures_over_time(&mut page, report);
    parts(&mut page, report);
    latencies(&mut page, report);
    replies(&mut page, report);
    made(&mut page, report);
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

fn heading(page: &mut String, report: &Report) {
    let load = &report.load;
    let ended = date::rfc5322(UnixMillis(report.ended_unix_s * 1000));
    let ways = load.ways().replace(", ", " · ");
    let interrupted = if report.interrupted { " · interrupted" } else { "" };
    let _ = write!(
        page,
        "<h1>{}</h1>\n<p class=\"lead\">{} · {} · {} · {}{ways}\
         {interrupted} · {}</p>\n",
        escape(&report.target),
        escape(&load.pace()),
        counted(load.connections.into(), "connection"),
        escape(&load.mail),
        counted(load.recipients.into(), "recipient"),
        escape(&String::from_utf8_lossy(&ended)),
    );
}

fn tiles(page: &mut String, report: &Report) {
    let Messages { accepted, refused, unanswered, .. } = report.messages;
    let failed = refused + unanswered;
    let accept = report.latency.accept;
    let tiles = [
        (grouped(report.messages_per_s), "messages a second", "s1"),
        (format!("{:.1}", report.megabytes_per_s), "MB a second", "s1"),
        (time_label(accept.p50_ms), "to the 250, half of them", "s2"),
        (time_label(accept.p99_ms), "to the 250, 99 of 100", "s2"),
        (grouped(accepted as f64), "messages accepted", ""),
        (grouped(failed as f64), "refused or unanswered", if failed > 0 { "s4" } else { "" }),
    ];
    let handshakes = report
        .tls
        .as_ref()
        .map(|tls| (grouped(tls.handshakes_per_s), "TLS handshakes a second", "s6"));
    page.push_str("<div class=\"tiles\">\n");
    for (figure, what, class) in tiles.into_iter().chain(handshakes) {
        let colour = if class.is_empty() { "var(--ink)" } else { "var(--colour)" };
        let _ = writeln!(
            page,
            "<div class=\"tile {class}\"><b style=\"color:{colour}\">{figure}</b><span>{what}</span></div>"
        );
    }
    page.push_str("</div>\n");
}

/// Opens a section with its title and the key to its colours.
fn section(page: &mut String, title: &str, keys: &[(&str, &str)]) {
    let _ = write!(page, "<section>\n<div class=\"head\"><h2>{title}</h2>");
    for (class, text) in keys {
        let _ = write!(page, "<span class=\"key {class}\">{text}</span>");
    }
    page.push_str("</div>\n");
}

/// The middles of the intervals of the timeline, with `values`.
fn over_time(report: &Report, values: &[f64]) -> Vec<(f64, f64)> {
    let bin = report.timeline.bin_s;
    values.iter().enumerate().map(|(at, value)| ((at as f64 + 0.5) * bin, *value)).collect()
}

fn span(report: &Report) -> f64 {
    (report.timeline.accepted_per_s.len() as f64 * report.timeline.bin_s).max(0.1)
}

fn shade_warmup(plot: &mut Plot, report: &Report) {
    let warmup = report.timeline.measured_from_s;
    if warmup > 0.0 {
        plot.shade((0.0, warmup.min(span(report))));
    }
}

fn throughput(page: &mut String, report: &Report) {
    let timeline = &report.timeline;
    let open = !timeline.intended_per_s.is_empty();
    let keys = [("s1", "accepted"), ("s6", "intended")];
    section(page, "Messages a second", &keys[..1 + usize::from(open)]);
    let all = timeline.accepted_per_s.iter().chain(&timeline.intended_per_s);
    let most = all.fold(1.0, |most: f64, rate| most.max(*rate));
    let accepted = over_time(report, &timeline.accepted_per_s);
    // Behind the last that should have begun there is nothing to be held against.
    let mut intended = over_time(report, &timeline.intended_per_s);
    while intended.pop_if(|(_, rate)| *rate <= 0.0).is_some() {}
    let (x, y) = (Axis::Seconds(span(report)), Axis::Count(most));
    page.push_str(&chart("Messages accepted each second over time", &x, &y, |plot| {
        shade_warmup(plot, report);
        plot.area(&accepted, "s1");
        plot.line(&accepted, "s1");
        if open {
            plot.line(&intended, "s6 dashed");
        }
    }));
    page.push_str("</section>\n");
}

fn latency_over_time(page: &mut String, report: &Report) {
    let timeline = &report.timeline;
    section(page, "Time to the 250, as it went", &[("s2", "p50"), ("s3", "p99")]);
    let values = || timeline.p50_ms.iter().chain(&timeline.p99_ms).copied();
    let (x, y) = (Axis::Seconds(span(report)), Axis::times(values()));
    page.push_str(&chart("Median and 99th percentile of the latency over time", &x, &y, |plot| {
        shade_warmup(plot, report);
        for (values, class) in [(&timeline.p50_ms, "s2"), (&timeline.p99_ms, "s3")] {
            // Where no 250 came the line is broken, not at zero.
            for stretch in over_time(report, values).split(|(_, ms)| *ms <= 0.0) {
                if !stretch.is_empty() {
                    plot.line(stretch, class);
                }
            }
        }
    }));
    page.push_str("</section>\n");
}

fn percentiles(page: &mut String, report: &Report) {
    section(page, "Time to the 250, by percentile", &[("s2", "accept")]);
    let histogram = &report.accept;
    if histogram.is_empty() {
        page.push_str("<p class=\"note\">No message was accepted.</p>\n</section>\n");
        return;
    }
    let most = (histogram.len() as f64).log10().clamp(1.0, NINES_MAX);
    let steps = (most / 0.02).ceil() as usize;
    let points: Vec<(f64, f64)> = (0..=steps)
        .map(|step| {
            let nines = (step as f64 * 0.02).min(most);
            let ns = histogram.value_at_quantile(1.0 - 10f64.powf(-nines));
            (nines, ns as f64 / 1e6)
        })
        .collect();
    let axis = Axis::times(points.iter().map(|(_, ms)| *ms));
    let marks =
        [(std::f64::consts::LOG10_2, 0.5), (1.0, 0.9), (2.0, 0.99), (3.0, 0.999), (4.0, 0.9999)];
    page.push_str(&chart("Latency by percentile", &Axis::Nines(most), &axis, |plot| {
        plot.area(&points, "s2");
        plot.line(&points, "s2");
        for (nines, quantile) in marks.into_iter().filter(|(nines, _)| *nines <= most) {
            let ms = histogram.value_at_quantile(quantile) as f64 / 1e6;
            plot.mark((nines, ms), "s2", &time_label(ms));
        }
    }));
    let from = if report.timeline.intended_per_s.is_empty() {
        "From a message's first command to its 250."
    } else {
        "From when a message should have begun to its 250."
    };
    let _ = writeln!(page, "<p class=\"note\">{from}</p>\n</section>");
}

fn failures_over_time(page: &mut String, report: &Report) {
    let timeline = &report.timeline;
    let keys = [("s3", "4xx"), ("s4", "5xx"), ("s5", "broken connections")];
    section(page, "Failures a second", &keys);
    let together = timeline.deferred_per_s.len().div_ceil(BARS_MAX).max(1);
    let row = |rates: &[f64]| -> Vec<f64> {
        let mean = |bar: &[f64]| bar.iter().sum::<f64>() / bar.len() as f64;
        rates.chunks(together).map(mean).collect()
    };
    let rows =
        [row(&timeline.deferred_per_s), row(&timeline.rejected_per_s), row(&timeline.broken_per_s)];
    let sums: Vec<f64> =
        (0..rows[0].len()).map(|at| rows.iter().map(|row| row[at]).sum()).collect();
    let most = sums.iter().copied().fold(0.0, f64::max);
    if most == 0.0 {
        page.push_str("<p class=\"note\">None.</p>\n</section>\n");
        return;
    }
    let width = timeline.bin_s * together as f64;
    let (x, y) = (Axis::Seconds(span(report)), Axis::Count(most));
    page.push_str(&chart("Failures each second over time", &x, &y, |plot| {
        shade_warmup(plot, report);
        for at in (0..sums.len()).filter(|at| sums[*at] > 0.0) {
            let from = at as f64 * width;
            let parts = [(rows[0][at], "s3"), (rows[1][at], "s4"), (rows[2][at], "s5")];
            plot.pile((from, from + width), &parts);
        }
    }));
    page.push_str("</section>\n");
}

fn parts(page: &mut String, report: &Report) {
    if report.parts.is_empty() {
        return;
    }
    section(page, "By intended rate", &[]);
    page.push_str(
        "<div class=\"wide\"><table><tr><th>from</th><th>intended/s</th><th>accepted/s</th><th>p50</th>\
         <th>p99</th><th>max</th></tr>\n",
    );
    for part in &report.parts {
        let _ = writeln!(
            page,
            "<tr><td>{:.1} s</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            part.from_s,
            grouped(part.intended_per_s),
            grouped(part.accepted_per_s),
            time_label(part.accept.p50_ms),
            time_label(part.accept.p99_ms),
            time_label(part.accept.max_ms),
        );
    }
    page.push_str("</table></div>\n</section>\n");
}

fn latencies(page: &mut String, report: &Report) {
    section(page, "Latencies", &[]);
    page.push_str(
        "<div class=\"wide\"><table><tr><th class=\"text\"></th><th>count</th><th>p50</th><th>p90</th>\
         <th>p99</th><th>p99.9</th><th>max</th></tr>\n",
    );
    for (name, histogram) in report.histograms() {
        let Percentiles { count, p50_ms, p90_ms, p99_ms, p999_ms, max_ms } = histogram.into();
        let _ =
            write!(page, "<tr><td class=\"text\">{name}</td><td>{}</td>", grouped(count as f64));
        for ms in [p50_ms, p90_ms, p99_ms, p999_ms, max_ms] {
            let _ = write!(page, "<td>{}</td>", time_label(ms));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n</section>\n");
}

fn replies(page: &mut String, report: &Report) {
    section(page, "Not 2xx", &[]);
    if report.failures.is_empty() {
        page.push_str("<p class=\"note\">Every reply was 2xx.</p>\n</section>\n");
        return;
    }
    page.push_str(
        "<div class=\"wide\"><table class=\"replies\"><tr><th>count</th><th class=\"text\">at</th>\
         <th class=\"text\">reply</th><th class=\"text\">words of the first</th></tr>\n",
    );
    for failure in &report.failures {
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td class=\"text\">{}</td><td class=\"text\">{}</td>\
             <td class=\"text words\">{}</td></tr>",
            grouped(failure.count as f64),
            escape(failure.stage),
            escape(&failure.what),
            escape(&failure.example),
        );
    }
    page.push_str("</table></div>\n</section>\n");
}

fn made(page: &mut String, report: &Report) {
    section(page, "How it was made", &[]);
    if !report.command_line.is_empty() {
        let _ = writeln!(page, "<p><code>{}</code></p>", escape(&report.command_line));
    }
    let machine = &report.machine;
    let _ = write!(
        page,
        "<p class=\"note\">{}, {} CPUs, {} GiB, Linux {}. {} The load generator used {:.2} s of \
         processor time on {}.</p>\n</section>\n<footer>ringpost-load {}</footer>\n",
        escape(&machine.processor),
        machine.cpus,
        machine.memory_gib,
        escape(&machine.kernel),
        if report.timeline.measured_from_s > 0.0 {
            "The shaded warm-up is left out of figures and percentiles."
        } else {
            "There was no warm-up."
        },
        report.cpu_s,
        counted(report.load.cores as u64, "core"),
        report.version,
    );
}
