//! The clocks. Everything above takes time as an argument; drivers get it here.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::base::UnixMillis;

/// Wall-clock time now.
pub fn wall() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(since.as_millis() as u64)
}

/// Monotonic time now, for time-outs and latencies.
pub fn monotonic() -> Instant {
    Instant::now()
}
