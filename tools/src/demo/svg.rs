//! A drawing in SVG: the few shapes that the chart is made of, with numbers cut
//! to what can be seen, and text escaped.

use std::fmt::Write;

/// A drawing as it grows.
pub struct Svg {
    body: String,
    width: f64,
    height: f64,
}

/// Where a text is anchored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Its left end.
    Start,
    /// Its middle.
    Middle,
    /// Its right end.
    End,
}

impl Svg {
    /// An empty drawing of this size on a white ground.
    pub fn new(width: f64, height: f64) -> Self {
        let mut svg = Svg { body: String::new(), width, height };
        svg.rectangle((0.0, 0.0, width, height), "#ffffff", 0.0);
        svg
    }

    /// A filled rectangle (x, y, width, height) with rounded corners.
    pub fn rectangle(&mut self, (x, y, w, h): (f64, f64, f64, f64), fill: &str, radius: f64) {
        let _ = writeln!(
            self.body,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" rx=\"{radius}\" \
             fill=\"{fill}\"/>"
        );
    }

    /// A straight line.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), stroke: &str, width: f64) {
        let _ = writeln!(
            self.body,
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{stroke}\" \
             stroke-width=\"{width}\"/>",
            from.0, from.1, to.0, to.1
        );
    }

    /// A line through `points`.
    pub fn curve(&mut self, points: &[(f64, f64)], stroke: &str, dashed: bool) {
        let dashes = if dashed { " stroke-dasharray=\"6 4\"" } else { "" };
        let _ = writeln!(
            self.body,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{stroke}\" stroke-width=\"2.2\" \
             stroke-linejoin=\"round\" stroke-linecap=\"round\"{dashes}/>",
            path(points)
        );
    }

    /// A surface with these corners.
    pub fn area(&mut self, points: &[(f64, f64)], fill: &str, opacity: f64) {
        let _ = writeln!(
            self.body,
            "<polygon points=\"{}\" fill=\"{fill}\" fill-opacity=\"{opacity}\"/>",
            path(points)
        );
    }

    /// A dot.
    pub fn dot(&mut self, (x, y): (f64, f64), fill: &str) {
        let _ = writeln!(
            self.body,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.4\" fill=\"{fill}\" stroke=\"#ffffff\" \
             stroke-width=\"1.2\"/>"
        );
    }

    /// A text with its baseline at (x, y).
    pub fn text(
        &mut self,
        (x, y): (f64, f64),
        anchor: Anchor,
        (size, fill, bold): (f64, &str, bool),
        text: &str,
    ) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let weight = if bold { " font-weight=\"600\"" } else { "" };
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" fill=\"{fill}\" \
             text-anchor=\"{anchor}\"{weight}>{}</text>",
            escape(text)
        );
    }

    /// The whole document.
    pub fn finish(self) -> String {
        let Svg { body, width, height } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" \
             font-family=\"-apple-system, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, \
             sans-serif\">\n{body}</svg>\n"
        )
    }
}

fn path(points: &[(f64, f64)]) -> String {
    let mut text = String::with_capacity(points.len() * 14);
    for (x, y) in points {
        let _ = write!(text, "{x:.1},{y:.1} ");
    }
    text
}

fn escape(text: &str) -> String {
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
    fn text_cannot_break_out() {
        let mut svg = Svg::new(10.0, 10.0);
        svg.text((1.0, 2.0), Anchor::End, (9.0, "#000", true), "<a & \"b\">\u{1}");
        let text = svg.finish();
        assert!(text.contains("&lt;a &amp; &quot;b&quot;&gt; </text>"), "{text}");
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
    }
}
