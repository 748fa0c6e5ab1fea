//! The picture of a run on a terminal: the figures of the last second, the rate
//! over time, the histogram of latencies, and what was not 2xx.
//!
//! It uses the terminal's other screen, so that what stood there before is back
//! when the run ends, and reads no keys: Ctrl-C is a signal as ever.

use std::io::{self, Stderr, stderr};

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Borders, Chart, Dataset, Gauge, GraphType, Paragraph};
use ratatui::{Frame, Terminal};

use super::View;
use crate::load::series::Coarse;
use crate::text::{grouped, round_steps, time_label};

/// A terminal that a run is drawn on.
pub struct Screen(Terminal<CrosstermBackend<Stderr>>);

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// It cannot be written to, or tells no size.
    pub fn open() -> io::Result<Self> {
        let terminal = Terminal::new(CrosstermBackend::new(stderr()))?;
        execute!(stderr(), EnterAlternateScreen, Hide)?;
        Ok(Screen(terminal))
    }

    /// Draws `view`.
    ///
    /// # Errors
    /// The terminal cannot be written to.
    pub fn draw(&mut self, view: &View) -> io::Result<()> {
        self.0.draw(|frame| render(frame, view)).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nobody is left to be told that it did not work.
        let _ = execute!(stderr(), Show, LeaveAlternateScreen);
    }
}

const RATE: Color = Color::Cyan;
const LATENCY: Color = Color::Green;
const FAULT: Color = Color::Red;

/// Lines of title, progress and figures, which are always shown.
const HEAD_LINES: u16 = 5;

/// Lines that charts need to say something, borders counted.
const CHART_LINES: u16 = 8;

/// Lines that failures take, borders counted, where there is room for a few of them.
const FAILURE_LINES: u16 = 8;
const FAILURE_LINES_MIN: u16 = 3;

fn render(frame: &mut Frame<'_>, view: &View) {
    let room = frame.area().height.saturating_sub(HEAD_LINES + CHART_LINES).min(FAILURE_LINES);
    let failures = if room < FAILURE_LINES_MIN { 0 } else { room };
    let [title, progress, figures, middle, bottom] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(3),
        Constraint::Fill(1),
        Constraint::Length(failures),
    ])
    .areas(frame.area());
    let name = Span::from("ringpost-load  ").fg(RATE).bold();
    frame.render_widget(Line::from(vec![name, view.title.as_str().into()]), title);
    draw_progress(frame, progress, view);
    draw_figures(frame, figures, view);
    let halves = [Constraint::Percentage(55), Constraint::Percentage(45)];
    let [left, right] = Layout::horizontal(halves).areas(middle);
    draw_rate(frame, left, view);
    draw_latency(frame, right, view);
    draw_failures(frame, bottom, view);
}

fn draw_progress(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let phase = if view.warming_up { "  warm-up" } else { "" };
    let label = format!("{:.0} s{phase}", view.elapsed.as_secs_f64());
    let gauge = Gauge::default().ratio(view.progress.unwrap_or(0.0)).label(label);
    frame.render_widget(gauge.gauge_style(Style::new().fg(RATE)).use_unicode(true), area);
}

fn draw_figures(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let recent = &view.glance.recent.0.latency;
    let time = |quantile| recent.quantile_ms(quantile).map_or("-".into(), time_label);
    let failures = view.failures();
    let mut figures = vec![
        (grouped(view.rate()) + "/s", "accepted", RATE),
        (grouped(view.glance.total as f64), "in all", Color::Reset),
        (time(0.5), "p50 now", LATENCY),
        (time(0.99), "p99 now", LATENCY),
        (grouped(failures as f64), "not 2xx", if failures > 0 { FAULT } else { Color::Reset }),
    ];
    if let Some(intended) = view.intended_per_s {
        figures.insert(1, (grouped(intended) + "/s", "intended", Color::Reset));
    }
    let columns = Layout::horizontal(vec![Constraint::Fill(1); figures.len()]).split(area);
    for ((figure, what, colour), area) in figures.into_iter().zip(columns.iter()) {
        let lines = vec![Line::from(figure).fg(colour).bold(), Line::from(what).dark_gray()];
        frame.render_widget(Paragraph::new(lines).centered(), *area);
    }
}

fn draw_rate(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let (bin, counts) = &view.glance.accepted;
    let seconds = bin.as_secs_f64().max(1e-9);
    // The interval under way would seem too low.
    let whole = (view.glance.at.as_secs_f64() / seconds) as usize;
    let points: Vec<(f64, f64)> = counts
        .iter()
        .take(whole)
        .enumerate()
        .map(|(at, count)| ((at as f64 + 0.5) * seconds, *count as f64 / seconds))
        .collect();
    let most = points.iter().map(|(_, rate)| *rate).fold(1.0, f64::max);
    let top = round_steps(most * 1.05).1;
    let end = view.elapsed.as_secs_f64();
    let data = Dataset::default()
        .marker(Marker::Braille)
        .graph_type(GraphType::Line)
        .style(Style::new().fg(RATE))
        .data(&points);
    let axis = || Axis::default().style(Style::new().dark_gray());
    let chart = Chart::new(vec![data])
        .block(block(" accepted a second "))
        .x_axis(axis().bounds([0.0, end]).labels(["0 s".to_owned(), format!("{end:.0} s")]))
        .y_axis(axis().bounds([0.0, top]).labels(["0".into(), grouped(top / 2.0), grouped(top)]));
    frame.render_widget(chart, area);
}

/// Latencies from one power of two of a millisecond to the next, and how many.
fn octaves(latency: &Coarse) -> Vec<(f64, u64)> {
    let mut octaves: Vec<(f64, u64)> = Vec::new();
    for (index, count) in latency.counters().iter().enumerate() {
        let from = 2f64.powf(Coarse::ms(index).log2().floor());
        match octaves.last_mut() {
            Some((last, sum)) if *last == from => *sum += u64::from(*count),
            _ => octaves.push((from, u64::from(*count))),
        }
    }
    let first = octaves.iter().position(|(_, count)| *count > 0).unwrap_or(octaves.len());
    let last = octaves.iter().rposition(|(_, count)| *count > 0).map_or(first, |last| last + 1);
    octaves[first..last].to_vec()
}

fn draw_latency(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let octaves = octaves(&view.glance.latency);
    let all: u64 = octaves.iter().map(|(_, count)| count).sum();
    let most = octaves.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    let room = f64::from(area.width.saturating_sub(28));
    let line = |(from, count): &(f64, u64)| {
        let length = (*count as f64 / most as f64 * room).ceil() as usize;
        let share = *count as f64 * 100.0 / all.max(1) as f64;
        Line::from(vec![
            format!("{:>7} - {:<7}", time_label(*from), time_label(from * 2.0)).dark_gray(),
            format!("{share:>5.1} % ").into(),
            "█".repeat(length).fg(LATENCY),
        ])
    };
    let height = usize::from(area.height.saturating_sub(2));
    // The slow end matters most when there is no room for all.
    let skipped = octaves.len().saturating_sub(height);
    let lines: Vec<Line<'_>> = octaves[skipped..].iter().map(line).collect();
    frame.render_widget(Paragraph::new(lines).block(block(" latency of the run ")), area);
}

fn draw_failures(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let mut kinds: Vec<_> = view.glance.failures.iter().collect();
    kinds.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    let line = |(kind, (count, example)): &(&crate::load::figures::Kind, &(u64, String))| {
        Line::from(vec![
            format!("{:>10}  ", grouped(*count as f64)).fg(FAULT),
            format!("{}: {} ", kind.stage, kind.what).into(),
            example.clone().dark_gray(),
        ])
    };
    let lines: Vec<Line<'_>> = kinds.iter().map(line).collect();
    frame.render_widget(Paragraph::new(lines).block(block(" not 2xx ")), area);
}

fn block(title: &str) -> Block<'_> {
    Block::new().borders(Borders::ALL).border_style(Style::new().dark_gray()).title(title)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::live::tests::sample;
    use ratatui::backend::TestBackend;

    fn drawn(width: u16, height: u16, view: &View) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| render(frame, view)).unwrap();
        let buffer = terminal.backend().buffer();
        let cells = buffer.content().chunks(usize::from(width));
        cells.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n").collect()
    }

    #[test]
    fn the_picture_holds_rate_histogram_and_replies() {
        let text = drawn(110, 34, &sample());
        for part in [
            "127.0.0.1:2525",
            "18,000/s",
            "54,000",
            "p99 now",
            "20,000",
            "latency of the run",
            "1 ms - 2 ms",
            "█",
            "RCPT: 550 5.1.1 No such user here",
            "3 s",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
    }

    #[test]
    fn figures_stay_where_there_is_no_room_for_more() {
        for height in [5, 10, 14, 15, 16, 24] {
            let text = drawn(110, height, &sample());
            assert!(
                text.contains("127.0.0.1:2525") && text.contains("p99 now"),
                "{height}:\n{text}"
            );
            assert_eq!(text.contains(" not 2xx ─"), height >= 16, "{height}:\n{text}");
        }
    }

    #[test]
    fn small_terminals_and_young_runs_do_no_harm() {
        let mut view = sample();
        for (width, height) in [(1, 1), (20, 5), (80, 24), (300, 90)] {
            drawn(width, height, &view);
        }
        view.glance = Default::default();
        view.elapsed = Default::default();
        view.progress = None;
        drawn(80, 24, &view);
    }
}
