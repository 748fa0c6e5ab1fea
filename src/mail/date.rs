//! Dates as message headers carry them (RFC 5322, 3.3), always in UTC: what a
//! relay stamps says when, not where.
//!
//! Called once a second or so by the shard for `Received:`, and for reports.

use crate::base::UnixMillis;

/// Length of a date, in octets.
pub const DATE_LEN: usize = 31;

/// A date of a message header, `Tue, 24 Nov 2026 00:09:25 +0000`.
pub type DateText = [u8; DATE_LEN];

const DAYS: [&[u8; 3]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];
const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// The date of `at`. A time past the year 9999 is written as its last second:
/// the format has four digits for the year.
pub fn rfc5322(at: UnixMillis) -> DateText {
    let stamp = i64::try_from(at.as_secs())
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .unwrap_or(jiff::Timestamp::MAX);
    let time = jiff::tz::Offset::UTC.to_datetime(stamp);
    let mut out = *b"Day, 00 Mon 0000 00:00:00 +0000";
    out[..3].copy_from_slice(DAYS[time.weekday().to_monday_zero_offset() as usize]);
    digits(&mut out[5..7], time.day() as u32);
    out[8..11].copy_from_slice(MONTHS[time.month() as usize - 1]);
    digits(&mut out[12..16], time.year() as u32);
    digits(&mut out[17..19], time.hour() as u32);
    digits(&mut out[20..22], time.minute() as u32);
    digits(&mut out[23..25], time.second() as u32);
    out
}

/// Fills `place` with `value`, zeroes in front.
fn digits(place: &mut [u8], mut value: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(millis: u64) -> String {
        String::from_utf8(rfc5322(UnixMillis(millis)).to_vec()).unwrap()
    }

    #[test]
    fn writes_the_form_of_the_standard() {
        assert_eq!(text(0), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(text(1_700_000_000_999), "Tue, 14 Nov 2023 22:13:20 +0000");
        assert_eq!(text(951_782_400_000), "Tue, 29 Feb 2000 00:00:00 +0000");
        assert_eq!(text(u64::MAX)[5..16], *"30 Dec 9999");
    }

    #[test]
    fn agrees_with_an_independent_formatter() {
        for day in 0..20_000_u64 {
            let millis = day * 86_400_000 + (day * 7_919_000) % 86_400_000;
            let stamp = jiff::Timestamp::from_millisecond(millis as i64).unwrap();
            let expected = stamp.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string();
            assert_eq!(text(millis), expected);
        }
    }
}
