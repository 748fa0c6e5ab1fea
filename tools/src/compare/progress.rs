//! How far a comparison is: what is still to be measured, in which order, and how
//! long that will take by what the same took before.

use std::time::{Duration, Instant};

use super::options::Setting;

/// One measurement to be made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Which time.
    pub round: u32,
    /// In what setting.
    pub setting: Setting,
    /// Index of the server.
    pub server: usize,
}

/// All of them, and what they have taken.
pub struct Progress {
    steps: Vec<Step>,
    /// Times taken, by step; those of a round teach about the next.
    taken: Vec<Duration>,
    begun: Instant,
    within: Option<Duration>,
}

impl Progress {
    /// Of `steps` in their order; no setting is begun after `within`, but one that was
    /// begun is gone through, since its servers are held against each other.
    pub fn new(steps: Vec<Step>, within: Option<Duration>) -> Self {
        Progress { steps, taken: Vec::new(), begun: Instant::now(), within }
    }

    /// The next; `None` if all were made, or the time is over.
    pub fn next(&self) -> Option<Step> {
        let is_late = self.within.is_some_and(|within| self.begun.elapsed() >= within);
        let last = if is_late { self.begun_until() } else { self.all() };
        self.steps[..last].get(self.over()).copied()
    }

    /// Where the setting ends that is being gone through: how many steps are over then.
    fn begun_until(&self) -> usize {
        let is_alike = |a: &Step, b: &Step| (a.round, a.setting) == (b.round, b.setting);
        match self.steps[..self.over()].last() {
            Some(last) => {
                let rest = self.steps[self.over()..].iter();
                self.over() + rest.take_while(|step| is_alike(step, last)).count()
            }
            None => 0,
        }
    }

    /// The one that was next is over and has taken so long.
    pub fn done(&mut self, took: Duration) {
        self.taken.push(took);
    }

    /// How many there are.
    pub fn all(&self) -> usize {
        self.steps.len()
    }

    /// How many are over.
    pub fn over(&self) -> usize {
        self.taken.len()
    }

    /// How long the rest will take: each as long as those of the same server and mode
    /// took so far, or as any did. `None` before the first.
    pub fn left(&self) -> Option<Duration> {
        let mean = |of: &dyn Fn(&Step) -> bool| {
            let known = self.steps.iter().zip(&self.taken).filter(|(step, _)| of(step));
            let (count, sum) =
                known.fold((0, Duration::ZERO), |(count, sum), (_, took)| (count + 1, sum + *took));
            (count > 0).then(|| sum / count)
        };
        let any = mean(&|_| true)?;
        let like = |step: &Step| {
            let (server, mode) = (step.server, step.setting.mode);
            mean(&|other| other.server == server && other.setting.mode == mode).unwrap_or(any)
        };
        let until = |end: usize| self.steps[self.over()..end].iter().map(like).sum::<Duration>();
        let all = until(self.all());
        let left = self.within.map(|within| within.saturating_sub(self.begun.elapsed()));
        Some(left.map_or(all, |left| left.min(all).max(until(self.begun_until()))))
    }

    /// It in front of a line: how many of all, and the time left.
    pub fn label(&self) -> String {
        let count = format!("{:>3}/{}", self.over(), self.all());
        match self.left() {
            Some(left) => format!("{count}, {} left", minutes(left)),
            None => count,
        }
    }
}

/// Minutes and seconds, as "3:07".
fn minutes(span: Duration) -> String {
    let seconds = span.as_secs_f64().round() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::options::Tls;
    use crate::compare::server::Mode;

    fn steps() -> Vec<Step> {
        let (size, pipelining, tls, connections) = (4096, false, Tls::No, 1);
        let of = |mode| Setting { mode, size, pipelining, tls, connections };
        let round = |round| {
            let step = move |mode, server| Step { round, setting: of(mode), server };
            [step(Mode::Accept, 0), step(Mode::Accept, 1), step(Mode::Relay, 1)]
        };
        [round(0), round(1)].concat()
    }

    #[test]
    fn the_time_left_is_that_of_the_same_server_and_mode() {
        let second = Duration::from_secs(1);
        let mut progress = Progress::new(steps(), None);
        assert_eq!(progress.left(), None);
        assert_eq!(progress.label(), "  0/6");
        progress.done(second * 2);
        assert_eq!(progress.left(), Some(second * 10), "nothing else is known");
        progress.done(second * 4);
        progress.done(second * 60);
        assert_eq!(progress.left(), Some(second * 66));
        assert_eq!(progress.label(), "  3/6, 1:06 left");
        (0..3).for_each(|_| progress.done(second));
        assert_eq!((progress.next(), progress.left()), (None, Some(Duration::ZERO)));
    }

    #[test]
    fn nothing_is_begun_when_the_time_is_over() {
        let progress = Progress::new(steps(), Some(Duration::ZERO));
        assert_eq!(progress.next(), None);
        let mut progress = Progress::new(steps(), Some(Duration::from_secs(3600)));
        assert_eq!(progress.next(), Some(steps()[0]));
        let day = Duration::from_secs(86_400);
        progress.done(day);
        assert_eq!(progress.left(), Some(day), "of the other server in the same setting");
        progress.done(day);
        assert!(progress.left().is_some_and(|left| left <= Duration::from_secs(3600)));
    }

    #[test]
    fn a_setting_that_was_begun_is_gone_through() {
        let mut progress = Progress::new(steps(), Some(Duration::from_secs(3600)));
        progress.done(Duration::ZERO);
        progress.within = Some(Duration::ZERO);
        assert_eq!(progress.next(), Some(steps()[1]));
        progress.done(Duration::ZERO);
        assert_eq!(progress.next(), None, "all servers have had their turn");
        // The same setting in the next round is another.
        progress.done(Duration::ZERO);
        assert_eq!(progress.next(), None);
    }
}
