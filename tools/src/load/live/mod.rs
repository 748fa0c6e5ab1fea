//! How a run goes, shown while it does: on a terminal as a picture that is
//! renewed several times a second ([`screen`]), otherwise, or when asked for,
//! as a line each second. Both go to standard error, so that standard output
//! holds the result and nothing else.

pub mod screen;

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::figures::Glance;
use super::options::Options;
use super::plan::Plan;
use super::profile::Profile;
use super::report::Load;
use super::series::Failed;
use super::worker::Shared;
use crate::text::{grouped, note, time_label};
use screen::Screen;

/// How often the picture is renewed.
const FRAME: Duration = Duration::from_millis(250);

/// How often a plain line is written.
const LINE: Duration = Duration::from_secs(1);

/// What is known of a run at a moment.
pub struct View {
    /// The run in words.
    pub title: String,
    /// Since the start of the run, the warm-up counted.
    pub elapsed: Duration,
    /// How much of the run is over, from 0 to 1; `None` if that is not known.
    pub progress: Option<f64>,
    /// Messages a second that should begin now, in an open loop.
    pub intended_per_s: Option<f64>,
    /// The warm-up is not over.
    pub warming_up: bool,
    /// The figures.
    pub glance: Glance,
}

impl View {
    /// Messages accepted each second of late.
    pub fn rate(&self) -> f64 {
        let (bin, seconds) = &self.glance.recent;
        if *seconds > 0.0 { bin.accepted as f64 / seconds } else { 0.0 }
    }

    /// Failures of all kinds.
    pub fn failures(&self) -> u64 {
        self.glance.failures.values().map(|(count, _)| count).sum()
    }

    /// One line.
    pub fn line(&self) -> String {
        let recent = &self.glance.recent.0;
        let time = |quantile: f64| match recent.latency.quantile_ms(quantile) {
            Some(ms) => time_label(ms),
            None => "-".into(),
        };
        let mut line = format!(
            "{:>6.0} s {:>12} accepted {:>10}/s   p50 {:>7}   p99 {:>7}",
            self.elapsed.as_secs_f64(),
            grouped(self.glance.total as f64),
            grouped(self.rate()),
            time(0.5),
            time(0.99),
        );
        if let Some(intended) = self.intended_per_s {
            line += &format!("   intended {}/s", grouped(intended));
        }
        let [deferred, rejected, broken] = [Failed::Deferred, Failed::Rejected, Failed::Broken]
            .map(|kind| recent.failed[kind as usize]);
        if deferred + rejected + broken > 0 {
            line += &format!("   4xx {deferred}  5xx {rejected}  broken {broken}");
        }
        if self.warming_up {
            line += "   (warm-up)";
        }
        line
    }
}

enum Form {
    Nothing,
    Lines,
    Screen(Box<Screen>),
}

/// Shows a run.
pub struct Live {
    form: Form,
    title: String,
    start: Instant,
    warmup: Duration,
    span: Option<Duration>,
    messages: Option<u64>,
    profile: Option<Arc<Profile>>,
    next: Duration,
}

impl Live {
    /// Shows the run of `options` that begins at `start`.
    pub fn new(options: &Options, plan: &Plan, start: Instant) -> Self {
        let form = if options.quiet {
            Form::Nothing
        } else if options.plain || !io::stderr().is_terminal() {
            Form::Lines
        } else {
            // A terminal that cannot be drawn on still takes lines.
            Screen::open().map_or(Form::Lines, |screen| Form::Screen(Box::new(screen)))
        };
        let load = Load::new(options, 0);
        let (pace, mail, connections) = (load.pace(), &load.mail, options.connections);
        Live {
            form,
            title: format!("{}   {connections} connections, {pace}, {mail}", options.target),
            start,
            warmup: options.warmup,
            span: options.end_after(),
            messages: options.messages,
            profile: plan.profile.clone(),
            next: FRAME,
        }
    }

    /// Called often; shows what there is to show by now.
    pub fn tick(&mut self, shared: &[Arc<Shared>]) {
        let elapsed = self.start.elapsed();
        if elapsed < self.next || matches!(self.form, Form::Nothing) {
            return;
        }
        let view = self.view(elapsed, shared);
        match &mut self.form {
            Form::Nothing => {}
            Form::Lines => {
                self.next = next_after(elapsed, LINE);
                // The first is due with the first whole second.
                if elapsed >= LINE {
                    note(view.line());
                }
            }
            Form::Screen(screen) => {
                self.next = next_after(elapsed, FRAME);
                if screen.draw(&view).is_err() {
                    self.form = Form::Lines;
                }
            }
        }
    }

    fn view(&self, elapsed: Duration, shared: &[Arc<Shared>]) -> View {
        let mut glance = Glance::default();
        for one in shared {
            glance.add(&one.glance.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        }
        let by_time = self
            .span
            .map(|span| elapsed.as_secs_f64() / (self.warmup + span).as_secs_f64().max(1e-9));
        let by_count = self.messages.map(|all| glance.total as f64 / all as f64);
        let progress = match (by_time, by_count) {
            (Some(time), Some(count)) => Some(time.max(count)),
            (one, other) => one.or(other),
        };
        View {
            title: self.title.clone(),
            elapsed,
            progress: progress.map(|share| share.clamp(0.0, 1.0)),
            intended_per_s: self.profile.as_ref().map(|profile| profile.rate_at(elapsed)),
            warming_up: elapsed < self.warmup,
            glance,
        }
    }

    /// The run is over: gives the terminal back.
    pub fn finish(&mut self) {
        self.form = Form::Nothing;
    }
}

fn next_after(elapsed: Duration, step: Duration) -> Duration {
    let steps = elapsed.as_nanos() / step.as_nanos() + 1;
    step * u32::try_from(steps).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::figures::Kind;

    /// A run in its middle.
    pub fn sample() -> View {
        let accepted = (Duration::from_millis(50), (0..60).map(|at| 900 + at % 7).collect());
        let at = Duration::from_secs(3);
        let mut glance = Glance { at, accepted, ..Glance::default() };
        glance.recent.1 = 1.0;
        glance.recent.0.accepted = 18_000;
        glance.recent.0.failed[Failed::Rejected as usize] = 3;
        for us in 1..2_000 {
            glance.recent.0.latency.record(us * 2_000);
        }
        glance.latency = glance.recent.0.latency.clone();
        glance.total = 54_000;
        let kind = Kind { stage: "RCPT", what: "550 5.1.1".into() };
        glance.failures.insert(kind, (3, "No such user here".into()));
        View {
            title: "127.0.0.1:2525   100 connections, closed loop, 4096 octets".into(),
            elapsed: Duration::from_secs(3),
            progress: Some(0.3),
            intended_per_s: None,
            warming_up: false,
            glance,
        }
    }

    #[test]
    fn a_line_says_how_it_goes() {
        let mut view = sample();
        let line = view.line();
        for part in ["3 s", "54,000 accepted", "18,000/s", "p50", "2 ms", "p99", "5xx 3"] {
            assert!(line.contains(part), "{part}: {line}");
        }
        view.intended_per_s = Some(20_000.0);
        view.warming_up = true;
        assert!(view.line().contains("intended 20,000/s") && view.line().ends_with("(warm-up)"));
        assert_eq!(view.failures(), 3);
    }

    #[test]
    fn lines_come_at_whole_steps() {
        let ms = Duration::from_millis;
        assert_eq!(next_after(ms(999), LINE), ms(1000));
        assert_eq!(next_after(ms(1000), LINE), ms(2000));
        assert_eq!(next_after(ms(5600), LINE), ms(6000));
    }
}
