//! Time as a value. Only `io` reads a clock; every other layer is handed the
//! time as an argument, so that schedules can be tested in no time.

use std::fmt;
use std::time::Duration;

/// Wall-clock time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// This time plus `span`, saturating.
    pub fn plus(self, span: Duration) -> Self {
        UnixMillis(self.0.saturating_add(span.as_millis().min(u128::from(u64::MAX)) as u64))
    }

    /// How long after `earlier` this is; zero if the clock went backwards.
    pub fn since(self, earlier: UnixMillis) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Whole seconds since the epoch.
    pub fn as_secs(self) -> u64 {
        self.0 / 1000
    }
}

impl fmt::Display for UnixMillis {
    /// RFC 3339 in UTC with milliseconds, as the logs print it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0 as i64) {
            Ok(stamp) => write!(f, "{stamp:.3}"),
            Err(_) => write!(f, "@{}ms", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_rfc_3339_and_survives_a_clock_that_jumps() {
        let time = UnixMillis(1_700_000_000_123);
        assert_eq!(time.to_string(), "2023-11-14T22:13:20.123Z");
        assert_eq!(UnixMillis(5).since(UnixMillis(9)), Duration::ZERO);
        assert_eq!(UnixMillis(u64::MAX).plus(Duration::from_secs(1)), UnixMillis(u64::MAX));
    }
}
