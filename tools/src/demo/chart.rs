//! The chart of a demonstration, `latency.svg`: what it came to in four
//! figures, the flow of mail over time, and how long messages took, with
//! percentiles on a scale that gives each further nine the same room and time
//! on a logarithmic one, so that the slowest one in ten thousand is as easy to
//! read as the median.

use hdrhistogram::Histogram;

use super::result::{Demonstration, Phase};
use super::svg::{Anchor, Svg};
use crate::text::{grouped, round_steps, time_label};

const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 956.0;
const MARGIN: f64 = 40.0;
/// Room for the labels of vertical axes.
const AXIS: f64 = 100.0;

const INK: &str = "#212529";
const SOFT: &str = "#5c6770";
const GRID: &str = "#e6e9ec";
const TILE: &str = "#f3f5f7";
const ACCEPTED: &str = "#364fc7";
const RELAYED: &str = "#0ca678";
/// Of the phases, in order.
const PHASES: [&str; 2] = ["#d9480f", "#1971c2"];

const LABEL: (f64, &str, bool) = (13.0, SOFT, false);
const HEADING: (f64, &str, bool) = (16.0, INK, true);

/// Draws it.
pub fn draw(demo: &Demonstration) -> String {
    let mut svg = Svg::new(WIDTH, HEIGHT);
    heading(&mut svg, demo);
    tiles(&mut svg, demo);
    flow(&mut svg, demo, Frame { x: AXIS, y: 270.0, w: WIDTH - AXIS - MARGIN, h: 190.0 });
    let bounds = TimeScale::over(&demo.phases);
    let half = (WIDTH - 2.0 * AXIS - MARGIN - 50.0) / 2.0;
    let left = Frame { x: AXIS, y: 570.0, w: half, h: 240.0 };
    let right = Frame { x: WIDTH - MARGIN - 25.0 - half, ..left };
    latencies(&mut svg, left, bounds, "From a message's start to its 250", demo, |phase| {
        &phase.accept_distribution
    });
    latencies(
        &mut svg,
        right,
        bounds,
        "From a message's start to the next server",
        demo,
        |phase| &phase.end_to_end_distribution,
    );
    notes(&mut svg, demo);
    svg.finish()
}

#[derive(Clone, Copy)]
struct Frame {
    x: f64,
    y: f64,
    w: f64,
    h: f64,
}

impl Frame {
    fn bottom(&self) -> f64 {
        self.y + self.h
    }

    fn right(&self) -> f64 {
        self.x + self.w
    }
}

fn heading(svg: &mut Svg, demo: &Demonstration) {
    let setup = &demo.setup;
    let title = format!("ringpost {}: {}, accepted and relayed", demo.version, setup.mail);
    svg.text((MARGIN, 46.0), Anchor::Start, (25.0, INK, true), &title);
    let promise = match setup.durability {
        "sync" => "on stable storage before its 250",
        "os" => "in the page cache before its 250 (durability = \"os\")",
        _ => "in memory only (durability = \"memory\")",
    };
    let machine = &demo.machine;
    let text = format!(
        "Every message {promise}  ·  {} connections  ·  {}, {} CPUs, Linux {}  ·  queue on {}",
        setup.connections, machine.processor, machine.cpus, machine.kernel, setup.filesystem
    );
    svg.text((MARGIN, 72.0), Anchor::Start, (13.5, SOFT, false), &text);
}

fn tiles(svg: &mut Svg, demo: &Demonstration) {
    let (flat, half) = (&demo.phases[0], &demo.phases[demo.phases.len() - 1]);
    let verdict = &demo.verdict;
    let faults = verdict.lost + verdict.damaged;
    let tiles = [
        (grouped(flat.accepted_per_s), "accepted a second, flat out".to_owned(), ACCEPTED),
        (grouped(flat.relayed_per_s), "relayed a second, flat out".to_owned(), RELAYED),
        (
            time_label(half.accept.p99_ms),
            format!("to the 250 for 99 of 100, at {}", half.name),
            PHASES[1],
        ),
        (
            faults.to_string(),
            format!("lost or damaged of {}", grouped(verdict.sent as f64)),
            if faults == 0 { INK } else { PHASES[0] },
        ),
    ];
    let gap = 16.0;
    let width = (WIDTH - 2.0 * MARGIN - 3.0 * gap) / 4.0;
    for (index, (figure, what, colour)) in tiles.iter().enumerate() {
        let x = MARGIN + index as f64 * (width + gap);
        svg.rectangle((x, 94.0, width, 92.0), TILE, 8.0);
        svg.text((x + 18.0, 140.0), Anchor::Start, (34.0, colour, true), figure);
        svg.text((x + 18.0, 168.0), Anchor::Start, (13.0, SOFT, false), what);
    }
}

/// Messages each second over time.
fn flow(svg: &mut Svg, demo: &Demonstration, frame: Frame) {
    let timeline = &demo.timeline;
    let series = [
        ("accepted", &timeline.accepted_per_s, ACCEPTED),
        ("relayed", &timeline.relayed_per_s, RELAYED),
    ];
    svg.text((MARGIN, frame.y - 38.0), Anchor::Start, HEADING, "Messages each second");
    let mut x = frame.right();
    for (name, _, colour) in series.iter().rev() {
        svg.text((x, frame.y - 38.0), Anchor::End, (13.0, INK, false), name);
        x -= 7.2 * name.len() as f64 + 10.0;
        svg.line((x - 20.0, frame.y - 42.5), (x, frame.y - 42.5), colour, 3.0);
        x -= 40.0;
    }
    let span = timeline.accepted_per_s.len() as f64 * timeline.bin_s;
    let most =
        series.iter().flat_map(|(_, rates, _)| rates.iter()).fold(1.0, |a, &b| f64::max(a, b));
    let (step, top) = round_steps(most * 1.08);
    let at_x = |seconds: f64| frame.x + seconds / span * frame.w;
    let at_y = |rate: f64| frame.bottom() - rate / top * frame.h;
    for (index, phase) in demo.phases.iter().enumerate() {
        let (from, until) = (at_x(phase.from_s), at_x(phase.until_s));
        let colour = PHASES[index % PHASES.len()];
        let corners =
            [(from, frame.y), (until, frame.y), (until, frame.bottom()), (from, frame.bottom())];
        svg.area(&corners, colour, 0.06);
        let kind = match phase.rate {
            Some(rate) => format!("{}: {} a second", phase.name, grouped(rate)),
            None => format!("{}: as fast as the 250s come", phase.name),
        };
        svg.text((from + 8.0, frame.y - 8.0), Anchor::Start, (13.0, colour, true), &kind);
    }
    let mut rate = 0.0;
    while rate <= top * 1.001 {
        svg.line((frame.x, at_y(rate)), (frame.right(), at_y(rate)), GRID, 1.0);
        svg.text((frame.x - 10.0, at_y(rate) + 4.5), Anchor::End, LABEL, &grouped(rate));
        rate += step;
    }
    let every = (span / 12.0).ceil().max(1.0);
    let mut second = 0.0;
    while second <= span {
        let text = format!("{second:.0} s");
        svg.text((at_x(second), frame.bottom() + 20.0), Anchor::Middle, LABEL, &text);
        second += every;
    }
    for (name, rates, colour) in series {
        let middle = |index: usize| (index as f64 + 0.5) * timeline.bin_s;
        // The last bin is not full, so its rate would seem too low.
        let rates = &rates[..rates.len().saturating_sub(1).max(1)];
        let points: Vec<(f64, f64)> =
            rates.iter().enumerate().map(|(i, rate)| (at_x(middle(i)), at_y(*rate))).collect();
        if name == "accepted"
            && let (Some(first), Some(last)) = (points.first(), points.last())
        {
            let mut corners = points.clone();
            corners.extend([(last.0, frame.bottom()), (first.0, frame.bottom())]);
            svg.area(&corners, colour, 0.10);
        }
        svg.curve(&points, colour, false);
    }
}

/// Time on a logarithmic axis, whole decades.
#[derive(Clone, Copy)]
struct TimeScale {
    low: i32,
    high: i32,
}

impl TimeScale {
    /// Wide enough for every latency of `phases`, in powers of ten of a
    /// millisecond.
    fn over(phases: &[Phase]) -> Self {
        let all = || {
            let each = |phase: &'_ Phase| [phase.accept, phase.end_to_end];
            phases.iter().flat_map(each).filter(|percentiles| percentiles.count > 0)
        };
        let quickest = all().map(|p| p.p50_ms / 4.0).fold(1e3, f64::min).max(1e-3);
        let slowest = all().map(|p| p.max_ms).fold(1.0, f64::max);
        let (low, high) = (quickest.log10().floor() as i32, slowest.log10().ceil() as i32);
        TimeScale { low, high: high.max(low + 1) }
    }

    fn y(self, frame: Frame, ms: f64) -> f64 {
        let decades = f64::from(self.high - self.low);
        let share = (ms.max(1e-6).log10() - f64::from(self.low)) / decades;
        frame.bottom() - share.clamp(0.0, 1.0) * frame.h
    }
}

/// Nines on the axis of percentiles: 0 is p0, 1 is p90, 2 is p99 and so on.
const NINES: f64 = 4.0;

/// The median on that axis: the logarithm of two.
const MEDIAN: f64 = std::f64::consts::LOG10_2;

fn latencies(
    svg: &mut Svg,
    frame: Frame,
    scale: TimeScale,
    title: &str,
    demo: &Demonstration,
    distribution: impl Fn(&Phase) -> &Histogram<u64>,
) {
    svg.text((frame.x - 60.0, frame.y - 40.0), Anchor::Start, HEADING, title);
    for decade in scale.low..=scale.high {
        let y = scale.y(frame, 10f64.powi(decade));
        svg.line((frame.x, y), (frame.right(), y), GRID, 1.0);
        let text = time_label(10f64.powi(decade));
        svg.text((frame.x - 10.0, y + 4.5), Anchor::End, LABEL, &text);
    }
    let at_x = |nines: f64| frame.x + nines / NINES * frame.w;
    for (nines, text) in
        [(MEDIAN, "50 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "99.99 %")]
    {
        svg.line((at_x(nines), frame.y), (at_x(nines), frame.bottom()), GRID, 1.0);
        svg.text((at_x(nines), frame.bottom() + 20.0), Anchor::Middle, LABEL, text);
    }
    let mut legend_x = frame.x;
    for (index, phase) in demo.phases.iter().enumerate() {
        let (colour, histogram) = (PHASES[index % PHASES.len()], distribution(phase));
        let sample = [(legend_x, frame.y - 20.5), (legend_x + 22.0, frame.y - 20.5)];
        svg.curve(&sample, colour, index > 0);
        svg.text((legend_x + 28.0, frame.y - 16.0), Anchor::Start, (13.0, INK, false), phase.name);
        legend_x += 130.0;
        if histogram.is_empty() {
            continue;
        }
        let points = percentile_points(histogram, |nines, ms| (at_x(nines), scale.y(frame, ms)));
        svg.curve(&points, colour, index > 0);
        for (nines, quantile) in [(MEDIAN, 0.5), (2.0, 0.99), (3.0, 0.999)] {
            if (histogram.len() as f64) < 10f64.powf(nines) {
                continue;
            }
            let ms = histogram.value_at_quantile(quantile) as f64 / 1e6;
            let (x, y) = (at_x(nines), scale.y(frame, ms));
            svg.dot((x, y), colour);
            // The slower phase is labelled above its curve, the other below.
            let below = if index == 0 { -9.0 } else { 19.0 };
            let style = (12.0, colour, true);
            svg.text((x + 3.0, y + below), Anchor::Middle, style, &time_label(ms));
        }
    }
}

/// Points of a distribution, as far to the right as it has messages for.
fn percentile_points(
    histogram: &Histogram<u64>,
    place: impl Fn(f64, f64) -> (f64, f64),
) -> Vec<(f64, f64)> {
    let most = (histogram.len() as f64).log10().min(NINES);
    let steps = (most / 0.02).ceil() as usize;
    let point = |step: usize| {
        let nines = (step as f64 * 0.02).min(most);
        let ms = histogram.value_at_quantile(1.0 - 10f64.powf(-nines)) as f64 / 1e6;
        place(nines, ms)
    };
    (0..=steps).map(point).collect()
}

fn notes(svg: &mut Svg, demo: &Demonstration) {
    let verdict = &demo.verdict;
    let server = &demo.server;
    let lines = [
        "Flat out, each connection sends its next message when the last was answered, so waiting \
         is most of the latency. At half load messages begin on a fixed"
            .to_owned(),
        "beat, and count from when they should have begun: a stall of the server delays them all, \
         and shows."
            .to_owned(),
        format!(
            "Of {} messages answered 250, {} reached the sink unchanged; {} came twice.",
            grouped(verdict.sent as f64),
            grouped(verdict.received.saturating_sub(verdict.damaged) as f64),
            verdict.duplicated,
        ),
        format!(
            "Server on CPU {}, load and sink on CPU {}: the server used {:.3} CPU s and {:.0} disk \
             flushes for 1,000 messages, and {:.0} MiB of memory at most.",
            cpu_text(&demo.setup.server_cpus),
            cpu_text(&demo.setup.load_cpus),
            server.cpu_s_per_1000,
            server.flushes_per_message * 1000.0,
            server.memory_mib,
        ),
    ];
    for (index, line) in lines.iter().enumerate() {
        let y = 868.0 + 21.0 * index as f64;
        svg.text((MARGIN, y), Anchor::Start, (12.5, SOFT, false), line);
    }
}

fn cpu_text(cpus: &[usize]) -> String {
    cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_stop_where_the_messages_end() {
        let mut histogram = crate::latency::histogram();
        for ms in 1..=100 {
            crate::latency::record(&mut histogram, ms * 1_000_000);
        }
        let points = percentile_points(&histogram, |nines, ms| (nines, ms));
        let (nines, ms) = *points.last().unwrap();
        assert!((nines - 2.0).abs() < 1e-9 && (98.0..101.0).contains(&ms), "{nines} {ms}");
        assert!(points.windows(2).all(|pair| pair[0].1 <= pair[1].1));
    }
}
