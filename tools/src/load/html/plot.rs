//! Charts as SVG inside of a page: lines, areas and stacked bars over axes that
//! are linear, logarithmic, or made of nines. Colours are names of the page's
//! style sheet (`s1`, `s2`...), so that one drawing serves light and dark.

use std::fmt::Write;

use crate::text::{grouped, round_steps, time_label};

/// The size of a drawing in its own units, which the page scales, and the space
/// around what is plotted.
#[derive(Clone, Copy, Debug)]
struct Frame {
    class: &'static str,
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

/// For windows of a desk.
const WIDE: Frame = Frame {
    class: "on-wide",
    width: 1000.0,
    height: 280.0,
    left: 76.0,
    right: 18.0,
    top: 14.0,
    bottom: 34.0,
};

/// For a phone held upright.
const NARROW: Frame = Frame {
    class: "on-narrow",
    width: 360.0,
    height: 230.0,
    left: 52.0,
    right: 8.0,
    top: 16.0,
    bottom: 28.0,
};

/// Width of a letter of a label, about, and the least space between two labels.
const LETTER: f64 = 7.0;
const BETWEEN: f64 = 6.0;

impl Frame {
    /// The edge that what is plotted ends at.
    fn right_edge(&self) -> f64 {
        self.width - self.right
    }

    /// The line that what is plotted stands on.
    fn floor(&self) -> f64 {
        self.height - self.bottom
    }
}

/// Draws a chart with `draw`, for both widths; `what` is read to those who do not
/// see it.
pub fn chart(what: &str, x: &Axis, y: &Axis, draw: impl Fn(&mut Plot)) -> String {
    let one = |frame| {
        let mut plot = Plot::new(frame, x.clone(), y.clone());
        draw(&mut plot);
        plot.finish(what)
    };
    one(WIDE) + &one(NARROW)
}

/// An axis.
#[derive(Clone, Debug)]
pub enum Axis {
    /// Seconds from 0 to this.
    Seconds(f64),
    /// Numbers from 0 to at least this.
    Count(f64),
    /// Milliseconds, whole decades from 10 to the first to 10 to the second.
    Times(i32, i32),
    /// Percentiles: 0 is p0, 1 is p90, 2 is p99 and so on, up to so many nines.
    Nines(f64),
}

impl Axis {
    /// Times that hold all of `values`, in milliseconds; those not positive are
    /// passed over.
    pub fn times(values: impl Iterator<Item = f64>) -> Self {
        let (mut least, mut most) = (f64::INFINITY, 0.0f64);
        for value in values.filter(|value| *value > 0.0) {
            (least, most) = (least.min(value), most.max(value));
        }
        if most == 0.0 {
            return Axis::Times(-1, 1);
        }
        let low = least.log10().floor() as i32;
        Axis::Times(low, (most.log10().ceil() as i32).max(low + 1))
    }

    /// Where `value` lies, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let share = match self {
            Axis::Seconds(most) => value / most.max(1e-9),
            Axis::Count(most) => value / round_steps(most.max(1.0)).1,
            Axis::Times(low, high) => {
                (value.max(1e-9).log10() - f64::from(*low)) / f64::from(high - low)
            }
            Axis::Nines(most) => value / most,
        };
        share.clamp(0.0, 1.0)
    }

    /// Values with a grid line, and their labels.
    fn ticks(&self) -> Vec<(f64, String)> {
        match self {
            Axis::Seconds(most) => {
                let step = round_steps(*most).0;
                let count = (most / step).floor() as u32;
                (0..=count).map(|at| f64::from(at) * step).map(|s| (s, format!("{s} s"))).collect()
            }
            Axis::Count(most) => {
                let (step, top) = round_steps(most.max(1.0));
                let count = (top / step).round() as u32;
                (0..=count).map(|at| f64::from(at) * step).map(|n| (n, grouped(n))).collect()
            }
            Axis::Times(low, high) => (*low..=*high)
                .map(|decade| 10f64.powi(decade))
                .map(|ms| (ms, time_label(ms)))
                .collect(),
            Axis::Nines(most) => {
                [(std::f64::consts::LOG10_2, "50 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %")]
                    .into_iter()
                    .chain([(4.0, "99.99 %"), (5.0, "99.999 %")])
                    .filter(|(nines, _)| nines <= most)
                    .map(|(nines, text)| (nines, text.to_owned()))
                    .collect()
            }
        }
    }
}

/// A chart as it grows.
pub struct Plot {
    frame: Frame,
    x: Axis,
    y: Axis,
    body: String,
}

impl Plot {
    /// An empty chart.
    fn new(frame: Frame, x: Axis, y: Axis) -> Self {
        let mut plot = Plot { frame, x, y, body: String::new() };
        let (left, right) = (frame.left, frame.right_edge());
        for (value, label) in plot.y.ticks() {
            let y = plot.at(0.0, value).1;
            plot.put(format_args!("<path class=\"grid\" d=\"M{left} {y:.1}H{right}\"/>"));
            plot.put(format_args!(
                "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                left - 8.0,
                y + 4.0
            ));
        }
        plot.name_x();
        plot
    }

    /// The labels of the axis below: none beyond the edge, none in another.
    fn name_x(&mut self) {
        let (top, floor) = (self.frame.top, self.frame.floor());
        let mut free_from = 0.0;
        for (value, label) in self.x.ticks() {
            let x = self.at(value, 0.0).0;
            if matches!(self.x, Axis::Nines(_)) {
                self.put(format_args!("<path class=\"grid\" d=\"M{x:.1} {top}V{floor}\"/>"));
            }
            let half = label.chars().count() as f64 * LETTER / 2.0;
            let middle = x.min(self.frame.width - half);
            if middle - half < free_from {
                continue;
            }
            free_from = middle + half + BETWEEN;
            self.put(format_args!(
                "<text class=\"tick\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                floor + 19.0
            ));
        }
    }

    fn put(&mut self, shape: std::fmt::Arguments<'_>) {
        let _ = self.body.write_fmt(shape);
        self.body.push('\n');
    }

    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let Frame { left, top, .. } = self.frame;
        let (width, height) = (self.frame.right_edge() - left, self.frame.floor() - top);
        (left + self.x.share(x) * width, top + (1.0 - self.y.share(y)) * height)
    }

    fn path(&self, points: &[(f64, f64)]) -> String {
        let mut path = String::with_capacity(points.len() * 14);
        for (index, &(x, y)) in points.iter().enumerate() {
            let (x, y) = self.at(x, y);
            let _ = write!(path, "{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' });
        }
        path
    }

    /// A line through `points`.
    pub fn line(&mut self, points: &[(f64, f64)], class: &str) {
        let path = self.path(points);
        self.put(format_args!("<path class=\"line {class}\" d=\"{path}\"/>"));
    }

    /// The surface under a line.
    pub fn area(&mut self, points: &[(f64, f64)], class: &str) {
        let (Some(first), Some(last)) = (points.first(), points.last()) else { return };
        let (mut path, floor) = (self.path(points), self.frame.floor());
        let (from, to) = (self.at(first.0, 0.0).0, self.at(last.0, 0.0).0);
        let _ = write!(path, "L{to:.1} {floor}L{from:.1} {floor}Z");
        self.put(format_args!("<path class=\"area {class}\" d=\"{path}\"/>"));
    }

    /// Bars from `from` to `until` on the axis below, piled on each other.
    pub fn pile(&mut self, (from, until): (f64, f64), parts: &[(f64, &str)]) {
        let mut sum = 0.0;
        for (value, class) in parts.iter().filter(|(value, _)| *value > 0.0) {
            let (left, low) = self.at(from, sum);
            sum += value;
            let (right, high) = self.at(until, sum);
            self.put(format_args!(
                "<rect class=\"bar {class}\" x=\"{left:.1}\" y=\"{high:.1}\" width=\"{:.1}\" \
                 height=\"{:.1}\"/>",
                (right - left - 0.5).max(0.8),
                (low - high).max(0.8)
            ));
        }
    }

    /// A dot with a label above it.
    pub fn mark(&mut self, (x, y): (f64, f64), class: &str, label: &str) {
        let (x, y) = self.at(x, y);
        self.put(format_args!(
            "<circle class=\"dot {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>"
        ));
        // A label at the right edge would be cut, one on a steep rise crossed.
        let (left, right) = (self.frame.left, self.frame.width);
        let (x, y, anchor) = match x {
            x if x > right - 36.0 => (x - 4.0, y - 10.0, "end"),
            x if x < left + (right - left) * 0.14 => (x + 8.0, y + 17.0, "start"),
            x => (x, y - 10.0, "middle"),
        };
        self.put(format_args!(
            "<text class=\"mark {class}\" x=\"{x:.1}\" y=\"{:.1}\" \
             text-anchor=\"{anchor}\">{label}</text>",
            y.max(11.0)
        ));
    }

    /// A shade from `from` to `until` on the axis below, for a phase of the run.
    pub fn shade(&mut self, (from, until): (f64, f64)) {
        let (left, right) = (self.at(from, 0.0).0, self.at(until, 0.0).0);
        let (top, width) = (self.frame.top, right - left);
        let height = self.frame.floor() - top;
        self.put(format_args!(
            "<rect class=\"shade\" x=\"{left:.1}\" y=\"{top}\" width=\"{width:.1}\" height=\"{height}\"/>"
        ));
    }

    /// The drawing.
    fn finish(self, what: &str) -> String {
        let Frame { class, width, height, .. } = self.frame;
        format!(
            "<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">\n{}</svg>\n",
            escape(what),
            self.body
        )
    }
}

/// Text that cannot break out of where it is put.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_their_values() {
        match Axis::times([0.0, 0.3, 25.0].into_iter()) {
            Axis::Times(low, high) => assert_eq!((low, high), (-1, 2)),
            other => panic!("{other:?}"),
        }
        let labels =
            |axis: Axis| axis.ticks().into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(labels(Axis::Times(-1, 1)), ["100 µs", "1 ms", "10 ms"]);
        assert_eq!(labels(Axis::Nines(3.0)), ["50 %", "90 %", "99 %", "99.9 %"]);
        assert_eq!(labels(Axis::Count(9_000.0)).last().unwrap(), "10,000");
        assert_eq!(labels(Axis::Seconds(3.0))[..2], ["0 s", "1 s"]);
        assert!((Axis::Times(-1, 1).share(1.0) - 0.5).abs() < 1e-9);
        assert_eq!(Axis::Count(10.0).share(-1.0), 0.0);
    }

    #[test]
    fn shapes_stay_within_the_drawing() {
        let mut plot = Plot::new(WIDE, Axis::Seconds(2.0), Axis::Count(10.0));
        plot.line(&[(0.0, 0.0), (2.0, 10.0), (9.0, 99.0)], "s1");
        plot.area(&[(0.0, 1.0), (2.0, 2.0)], "s1");
        plot.area(&[], "s1");
        plot.pile((0.0, 1.0), &[(2.0, "s3"), (0.0, "s4"), (3.0, "s5")]);
        plot.mark((2.0, 10.0), "s2", "top");
        plot.shade((0.0, 0.5));
        let text = plot.finish("a \"chart\"");
        assert!(text.contains("d=\"M76.0 246.0L982.0 14.0L982.0 14.0\""), "{text}");
        assert_eq!(text.matches("class=\"bar").count(), 2);
        assert!(
            text.starts_with("<svg class=\"on-wide\" ")
                && text.contains("aria-label=\"a &quot;chart&quot;\"")
        );
        assert_eq!(escape("<a href=\"x\">&\u{7}"), "&lt;a href=&quot;x&quot;&gt;&amp; ");
    }

    #[test]
    fn labels_below_neither_meet_nor_leave_the_drawing() {
        for frame in [WIDE, NARROW] {
            for nines in [1.0, 3.3, 5.0] {
                let text = Plot::new(frame, Axis::Nines(nines), Axis::Count(10.0)).finish("");
                let mut end = 0.0;
                let labels: Vec<&str> =
                    text.lines().filter(|line| line.contains("\"middle\"")).collect();
                assert!(!labels.is_empty());
                for line in labels {
                    let x = line.split("x=\"").nth(1).unwrap().split('"').next().unwrap();
                    let label = line.split('>').nth(1).unwrap().split('<').next().unwrap();
                    let half = label.len() as f64 * LETTER / 2.0;
                    let x: f64 = x.parse().unwrap();
                    assert!(x - half >= end && x + half <= frame.width + 0.1, "{nines}: {line}");
                    end = x + half;
                }
            }
        }
    }

    #[test]
    fn a_chart_is_drawn_for_both_widths() {
        let (x, y) = (Axis::Seconds(2.0), Axis::Count(10.0));
        let text = chart("both", &x, &y, |plot| plot.line(&[(0.0, 0.0), (2.0, 10.0)], "s1"));
        assert_eq!((text.matches("<svg ").count(), text.matches("class=\"line").count()), (2, 2));
        assert!(text.contains("L982.0 14.0") && text.contains("L352.0 16.0"), "{text}");
    }
}
