//! Texts with units: sizes like `64MiB`, durations like `1h30m`. Read and
//! printed here only, so that what `ringpost check` prints can be read again.

use std::time::Duration;

const SIZE_UNITS: [(&str, u64); 4] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// What a size looks like, for messages.
pub const SIZE_FORM: &str = "a whole number with B, KiB, MiB or GiB, like \"64MiB\"";
/// What a duration looks like, for messages.
pub const DURATION_FORM: &str =
    "whole numbers with d, h, m, s or ms, longest unit first, like \"5m\" or \"1h30m\"";

/// Reads a size in bytes; `None` if `text` is none, or too large for 64 bits.
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text)?;
    let factor = SIZE_UNITS.iter().find(|(name, _)| *name == unit)?.1;
    number.checked_mul(factor)
}

/// Prints a size with the largest unit that leaves a whole number.
pub(super) fn print_size(bytes: u64) -> String {
    let fits = |&&(_, factor): &&(&str, u64)| bytes >= factor && bytes.is_multiple_of(factor);
    let (unit, factor) = SIZE_UNITS.iter().find(fits).unwrap_or(&SIZE_UNITS[3]);
    format!("{}{unit}", bytes / factor)
}

/// Reads a duration; `None` if `text` is none, or too large for 64 bits of
/// milliseconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut units = TIME_UNITS.iter();
    let mut total_ms: u64 = 0;
    loop {
        let unit_end = rest.find(|c: char| !c.is_ascii_digit())?;
        let length = rest[unit_end..].find(|c: char| c.is_ascii_digit());
        let (part, after) = rest.split_at(length.map_or(rest.len(), |length| unit_end + length));
        let (number, unit) = split_number(part)?;
        // The iterator is not rewound: units may only get smaller.
        let factor = units.find(|(name, _)| *name == unit)?.1;
        total_ms = total_ms.checked_add(number.checked_mul(factor)?)?;
        if after.is_empty() {
            return Some(Duration::from_millis(total_ms));
        }
        rest = after;
    }
}

/// Prints a duration, cut to milliseconds.
pub fn print_duration(span: Duration) -> String {
    let mut rest = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, factor) in TIME_UNITS {
        if rest >= factor {
            text.push_str(&format!("{}{unit}", rest / factor));
            rest %= factor;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_sizes() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("1GiB", 1 << 30),
            ("512B", 512),
            ("0B", 0),
            ("1536KiB", 1536 << 10),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for bad in ["", "64", "MiB", "64mib", "64MB", "64 MiB", "-1B", "1.5MiB", "64MiBx", "+1B"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
        assert_eq!(parse_size("99999999999GiB"), None);
        assert_eq!(parse_size("99999999999999999999B"), None);
    }

    #[test]
    fn reads_durations() {
        for (text, ms) in [
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("0s", 0),
            ("1d1ms", 86_400_001),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "5", "m", "5 m", "30m1h", "1m1m", "1.5h", "-1s", "5M", "1h30", "5min", "s5"]
        {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
        assert_eq!(parse_duration("999999999999999d"), None);
    }

    #[test]
    fn prints_the_largest_units() {
        assert_eq!(print_size(64 << 20), "64MiB");
        assert_eq!(print_size(1025), "1025B");
        assert_eq!(print_size(0), "0B");
        assert_eq!(print_duration(Duration::from_secs(5400)), "1h30m");
        assert_eq!(print_duration(Duration::ZERO), "0s");
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_the_same(bytes: u64, ms: u64) {
            prop_assert_eq!(parse_size(&print_size(bytes)), Some(bytes));
            let span = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&print_duration(span)), Some(span));
        }
    }
}
