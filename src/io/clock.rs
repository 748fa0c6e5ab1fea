//! The clocks. Everything above takes time as an argument; drivers get it here.
//! Tests of the library can move them, each thread its own, so that five days
//! pass in a moment; sleeps and the deadlines of streams go on in real time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::base::UnixMillis;

/// Wall-clock time now.
pub fn wall() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = UnixMillis(since.as_millis() as u64);
    #[cfg(test)]
    let now = moved::wall(now);
    now
}

/// Monotonic time now, for time-outs and latencies.
pub fn monotonic() -> Instant {
    let now = Instant::now();
    #[cfg(test)]
    let now = moved::monotonic(now);
    now
}

/// By how much tests have moved the clocks of this thread.
#[cfg(test)]
pub(crate) mod moved {
    use super::{Instant, UnixMillis};
    use std::cell::Cell;
    use std::time::Duration;

    thread_local! {
        static WALL_MS: Cell<i64> = const { Cell::new(0) };
        static STEADY: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// Time passes: both clocks go on by `span`.
    pub(crate) fn pass(span: Duration) {
        STEADY.set(STEADY.get() + span);
        set_wall(span.as_millis() as i64);
    }

    /// Somebody sets the wall clock, forward or back, by so many milliseconds.
    pub(crate) fn set_wall(by_ms: i64) {
        WALL_MS.set(WALL_MS.get() + by_ms);
    }

    pub(super) fn wall(now: UnixMillis) -> UnixMillis {
        UnixMillis(now.0.saturating_add_signed(WALL_MS.get()))
    }

    pub(super) fn monotonic(now: Instant) -> Instant {
        now + STEADY.get()
    }
}
