//! Rates as an operator writes them: `100/s`, `30/m`, `500/h`. Printed as they
//! were written, so that what `ringpost check` prints can be read again.

use std::fmt;
use std::time::Duration;

/// What a rate looks like, for messages.
pub const RATE_FORM: &str = "a rate for each s, m or h, like \"100/s\", \"30/m\" or \"500/h\"";

/// The time that a [`Rate`] counts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Per {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
}

impl Per {
    const ALL: [Per; 3] = [Per::Second, Per::Minute, Per::Hour];

    /// How long it is.
    pub fn span(self) -> Duration {
        Duration::from_secs(match self {
            Per::Second => 1,
            Per::Minute => 60,
            Per::Hour => 3600,
        })
    }

    fn unit(self) -> &'static str {
        match self {
            Per::Second => "s",
            Per::Minute => "m",
            Per::Hour => "h",
        }
    }
}

/// So many in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many; at least 1.
    pub count: u32,
    /// In which time.
    pub per: Per,
}

impl Rate {
    /// The time from one to the next when they are spread evenly, rounded up, so
    /// that a rate is never exceeded by rounding.
    pub fn interval(self) -> Duration {
        let nanos = self.per.span().as_nanos().div_ceil(u128::from(self.count.max(1)));
        Duration::from_nanos(u64::try_from(nanos).expect("an hour fits"))
    }

    /// How many in a second.
    pub fn per_second(self) -> f64 {
        f64::from(self.count) / self.per.span().as_secs_f64()
    }

    /// How many may come at once after a pause: 100 ms worth of them, but at
    /// least one.
    pub fn burst(self) -> u32 {
        let per_100_ms = u64::from(self.count) / (10 * self.per.span().as_secs());
        u32::try_from(per_100_ms).expect("it is a part of `count`").max(1)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.per.unit())
    }
}

/// Reads a rate; `None` if `text` is none, or its number is not in 32 bits.
pub(super) fn parse_rate(text: &str) -> Option<Rate> {
    let (number, unit) = text.split_once('/')?;
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let per = Per::ALL.into_iter().find(|per| per.unit() == unit)?;
    Some(Rate { count: number.parse().ok()?, per })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_rates() {
        for (text, count, per) in
            [("100/s", 100, Per::Second), ("30/m", 30, Per::Minute), ("500/h", 500, Per::Hour)]
        {
            assert_eq!(parse_rate(text), Some(Rate { count, per }));
            assert_eq!(Rate { count, per }.to_string(), text);
        }
        for bad in ["", "5", "/s", "5/", "5/d", "5 /s", "+5/s", "-1/s", "1.5/s", "5/s/s", "x/s"] {
            assert_eq!(parse_rate(bad), None, "{bad}");
        }
        assert_eq!(parse_rate("4294967296/s"), None);
    }

    #[test]
    fn intervals_are_rounded_up_and_bursts_are_short() {
        let rate = |text| parse_rate(text).unwrap();
        assert_eq!(rate("3/s").interval(), Duration::from_nanos(333_333_334));
        assert_eq!(rate("30/m").interval(), Duration::from_secs(2));
        assert_eq!(rate("500/h").interval(), Duration::from_millis(7200));
        for (text, burst) in
            [("1/s", 1), ("10/s", 1), ("19/s", 1), ("20/s", 2), ("1000/s", 100), ("6000/m", 10)]
        {
            assert_eq!(rate(text).burst(), burst, "{text}");
        }
    }
}
