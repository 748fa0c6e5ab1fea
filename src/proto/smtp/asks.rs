//! What MAIL may ask beyond the address: BY (RFC 2852), BODY=BINARYMIME (RFC
//! 3030), HOLDFOR and HOLDUNTIL (RFC 4865), MT-PRIORITY (RFC 6710), REQUIRETLS
//! (RFC 8689).
//!
//! Called by the command parser. Parsing borrows nothing and never allocates.
//! Times stay as they were said until the message arrives: the engine has no
//! clock.

use std::time::Duration;

use crate::base::terms::{ByMode, DeliverBy};
use crate::base::{Terms, UnixMillis};
use crate::proto::smtp::command::{BadCommand, once};

/// What was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// `BODY=BINARYMIME`.
    pub binary: bool,
    /// BY.
    pub by: Option<By>,
    /// HOLDFOR or HOLDUNTIL.
    pub hold: Option<Hold>,
    /// MT-PRIORITY, -9 to 9.
    pub priority: Option<i8>,
    /// REQUIRETLS.
    pub require_tls: bool,
}

/// The value of BY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct By {
    /// Seconds from the arrival of the message; past ones with [`ByMode::Notify`]
    /// only.
    pub seconds: i32,
    /// What is done when they are over.
    pub mode: ByMode,
    /// Each relay on the way is to be reported.
    pub trace: bool,
}

/// Until when a message is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// For so many seconds from its arrival.
    For(u32),
    /// Until then.
    Until(UnixMillis),
}

impl Asks {
    /// True when nothing was asked.
    pub fn is_empty(&self) -> bool {
        *self == Asks::default()
    }

    /// Takes one parameter of MAIL.
    pub(super) fn parameter(
        &mut self,
        keyword: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), BadCommand> {
        if keyword.eq_ignore_ascii_case(b"BY") {
            let bad = "BY is seconds;R or seconds;N, up to 9 digits, with T behind for a trace, \
                   and with R the time must be to come";
            let by = value.and_then(By::parse).ok_or(BadCommand::Parameter(bad))?;
            once(&mut self.by, by, "BY was given twice")
        } else if keyword.eq_ignore_ascii_case(b"HOLDFOR") {
            let hold = value.and_then(Hold::span);
            let hold = hold.ok_or(BadCommand::Parameter(
                "HOLDFOR is seconds, up to 9 digits, the first no 0",
            ))?;
            once(&mut self.hold, hold, "a hold was given twice")
        } else if keyword.eq_ignore_ascii_case(b"HOLDUNTIL") {
            let bad = "HOLDUNTIL is a date like 2026-11-24T00:09:25Z";
            let hold = value.and_then(Hold::date).ok_or(BadCommand::Parameter(bad))?;
            once(&mut self.hold, hold, "a hold was given twice")
        } else if keyword.eq_ignore_ascii_case(b"MT-PRIORITY") {
            let priority = value.and_then(priority);
            let priority = priority.ok_or(BadCommand::Parameter("MT-PRIORITY is from -9 to 9"))?;
            once(&mut self.priority, priority, "MT-PRIORITY was given twice")
        } else if keyword.eq_ignore_ascii_case(b"REQUIRETLS") {
            if value.is_some() || self.require_tls {
                return Err(BadCommand::Parameter("REQUIRETLS has no value and is given once"));
            }
            self.require_tls = true;
            Ok(())
        } else {
            Err(BadCommand::UnknownParameter)
        }
    }

    /// The terms of a message that arrives now, of which `known` is known already;
    /// `None` when nothing differs from ordinary mail.
    pub fn terms(&self, arrival: UnixMillis, known: Option<Box<Terms>>) -> Option<Box<Terms>> {
        if self.is_empty() {
            return known;
        }
        let known = known.map_or_else(Terms::default, |known| *known);
        let terms = Terms {
            binary: self.binary,
            no_final_crlf: self.binary,
            deliver_by: self.by.map(|by| by.from(arrival)),
            hold_until_ms: self.hold.map(|hold| hold.until(arrival).0),
            priority: self.priority.unwrap_or(0),
            require_tls: self.require_tls,
            ..known
        };
        (!terms.is_empty()).then(|| Box::new(terms))
    }
}

impl By {
    /// `by-time ";" by-mode [by-trace]` (RFC 2852, 4). A time that is over is not
    /// allowed with the mode R.
    pub fn parse(value: &[u8]) -> Option<By> {
        let at = memchr::memchr(b';', value)?;
        let (time, how) = (&value[..at], &value[at + 1..]);
        let (negative, digits) = match time.split_first()? {
            (b'-', digits) => (true, digits),
            (b'+', digits) => (false, digits),
            _ => (false, time),
        };
        let seconds = i32::try_from(nine_digits(digits)?).ok()?;
        let seconds = if negative { -seconds } else { seconds };
        let (mode, trace) = match how {
            [mode] => (mode, false),
            [mode, b'T' | b't'] => (mode, true),
            _ => return None,
        };
        let mode = match mode {
            b'R' | b'r' if seconds > 0 => ByMode::Return,
            b'N' | b'n' => ByMode::Notify,
            _ => return None,
        };
        Some(By { seconds, mode, trace })
    }

    /// With the time made absolute.
    pub fn from(self, arrival: UnixMillis) -> DeliverBy {
        let span = Duration::from_secs(u64::from(self.seconds.unsigned_abs()));
        let at = if self.seconds < 0 {
            UnixMillis(arrival.0.saturating_sub(span.as_millis() as u64))
        } else {
            arrival.plus(span)
        };
        DeliverBy { at_ms: at.0, mode: self.mode, trace: self.trace }
    }
}

impl Hold {
    /// The value of HOLDFOR: seconds, `%x31-39 *8DIGIT` (RFC 4865, 3).
    pub fn span(value: &[u8]) -> Option<Hold> {
        let seconds = nine_digits(value).filter(|_| value[0] != b'0');
        seconds.map(Hold::For)
    }

    /// The value of HOLDUNTIL: a `date-time` of RFC 3339 (RFC 4865, erratum 2040).
    pub fn date(value: &[u8]) -> Option<Hold> {
        date_time(value).map(Hold::Until)
    }

    /// When the hold of a message that arrives now is over.
    pub fn until(self, arrival: UnixMillis) -> UnixMillis {
        match self {
            Hold::For(seconds) => arrival.plus(Duration::from_secs(u64::from(seconds))),
            Hold::Until(time) => time,
        }
    }
}

/// `priority-value` (RFC 6710, 6): `-9` to `9`, no plus sign and no needless zero.
pub fn priority(value: &[u8]) -> Option<i8> {
    match value {
        [digit @ b'0'..=b'9'] => Some((digit - b'0') as i8),
        [b'-', digit @ b'1'..=b'9'] => Some(-((digit - b'0') as i8)),
        _ => None,
    }
}

/// `1*9DIGIT`.
fn nine_digits(value: &[u8]) -> Option<u32> {
    ((1..=9).contains(&value.len())).then_some(())?;
    number(value)
}

/// Digits that make a number of 32 bits; nine at most always do.
fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0_u32, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u32::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// `2026-11-24T00:09:25[.fraction](Z|+hh:mm|-hh:mm)` (RFC 3339, 5.6), not before
/// 1970. A leap second counts as the one before.
fn date_time(value: &[u8]) -> Option<UnixMillis> {
    let (head, rest) = value.split_at_checked(19)?;
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T' | b't', clock @ ..] = head else {
        return None;
    };
    let &[h0, h1, b':', i0, i1, b':', s0, s1] = clock else { return None };
    let two = |a, b| number(&[a, b]).and_then(|value| i8::try_from(value).ok());
    let year = i16::try_from(number(&[*y0, *y1, *y2, *y3])?).ok()?;
    let seconds = Some(two(s0, s1)?).filter(|&seconds| seconds <= 60)?.min(59);
    let date = jiff::civil::Date::new(year, two(*m0, *m1)?, two(*d0, *d1)?).ok()?;
    let time = jiff::civil::Time::new(two(h0, h1)?, two(i0, i1)?, seconds, 0).ok()?;
    let stamp = jiff::tz::Offset::UTC.to_timestamp(date.to_datetime(time)).ok()?;
    let zone = match rest.strip_prefix(b".") {
        Some(fraction) => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            (digits > 0).then(|| &fraction[digits..])?
        }
        None => rest,
    };
    let east = match zone {
        [b'Z' | b'z'] => 0,
        &[sign @ (b'+' | b'-'), h0, h1, b':', m0, m1] => {
            let (hours, minutes) = (two(h0, h1)?, two(m0, m1)?);
            (hours < 24 && minutes < 60).then_some(())?;
            let span = (i64::from(hours) * 60 + i64::from(minutes)) * 60;
            if sign == b'-' { -span } else { span }
        }
        _ => return None,
    };
    let seconds = u64::try_from(stamp.as_second() - east).ok()?;
    Some(UnixMillis(seconds * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::smtp::command::Command;

    #[test]
    fn by_is_read_as_the_standard_has_it() {
        let by = |seconds, mode, trace| Some(By { seconds, mode, trace });
        assert_eq!(By::parse(b"120;R"), by(120, ByMode::Return, false));
        assert_eq!(By::parse(b"+999999999;rT"), by(999_999_999, ByMode::Return, true));
        assert_eq!(By::parse(b"-999999999;Nt"), by(-999_999_999, ByMode::Notify, true));
        assert_eq!(By::parse(b"0;N"), by(0, ByMode::Notify, false));
        for bad in [
            "",
            ";",
            "120",
            "120;",
            ";R",
            "0;R",
            "-1;R",
            "-0;R",
            "1000000000;R",
            "--1;N",
            "+;N",
            "1;X",
            "1;RTT",
            "1;RX",
            "1;NR",
            "1 ;R",
            "1;R ",
            "1;;R",
            "0x1;R",
            "1;T",
        ] {
            assert_eq!(By::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn times_are_made_absolute_at_arrival() {
        let now = UnixMillis(1_000_000);
        let asks = Asks {
            by: By::parse(b"-2;N"),
            hold: Hold::span(b"30"),
            priority: Some(0),
            ..Asks::default()
        };
        let terms = asks.terms(now, None).unwrap();
        assert_eq!(terms.deliver_by.unwrap().at(), UnixMillis(998_000));
        assert_eq!(terms.hold_until(), Some(UnixMillis(1_030_000)));
        let early = By::parse(b"-999999999;N").unwrap().from(now);
        assert_eq!(early.at(), UnixMillis(0));
        let binary = Asks { binary: true, ..Asks::default() }.terms(now, None).unwrap();
        assert!(binary.binary && binary.no_final_crlf);
        assert_eq!(Asks { priority: Some(0), ..Asks::default() }.terms(now, None), None);
        assert!(Asks::default().is_empty() && !asks.is_empty());
    }

    #[test]
    fn holds_are_spans_or_dates() {
        let until = |text: &str| match Hold::date(text.as_bytes()) {
            Some(Hold::Until(time)) => Some(time.0),
            Some(Hold::For(_)) => panic!("a span"),
            None => None,
        };
        assert_eq!(until("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(until("2023-11-14t22:13:20.999z"), Some(1_700_000_000_000));
        assert_eq!(until("2023-11-15T00:13:20+02:00"), Some(1_700_000_000_000));
        assert_eq!(until("2023-11-14T20:43:20-01:30"), Some(1_700_000_000_000));
        assert_eq!(until("2016-12-31T23:59:60Z"), until("2016-12-31T23:59:59Z"));
        for bad in [
            "",
            "2023-11-14",
            "2023-11-14T22:13:20",
            "2023-11-14 22:13:20Z",
            "2023-13-01T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2023-02-28T24:00:00Z",
            "2023-02-28T00:60:00Z",
            "2023-02-28T00:00:61Z",
            "2023-02-28T00:00:00.Z",
            "2023-02-28T00:00:00ZZ",
            "2023-02-28T00:00:00+0100",
            "2023-02-28T00:00:00+24:00",
            "1969-12-31T23:59:59Z",
            "+023-02-28T00:00:00Z",
            "2023-0b-28T00:00:00Z",
            "20230-2-28T00:00:00Z",
        ] {
            assert_eq!(until(bad), None, "{bad:?}");
        }
        assert_eq!(Hold::span(b"999999999"), Some(Hold::For(999_999_999)));
        for bad in ["", "0", "00", "060", "-1", "+1", "1.5", "1000000000", "1s"] {
            assert_eq!(Hold::span(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn priorities_have_one_spelling() {
        for value in -9..=9_i8 {
            assert_eq!(priority(value.to_string().as_bytes()), Some(value));
        }
        for bad in ["", "-0", "+1", "10", "-10", "01", "-", "a", "1 ", "9;"] {
            assert_eq!(priority(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn mail_takes_what_the_extensions_ask() {
        let line = b"MAIL FROM:<> body=BinaryMime By=60;rt HOLDFOR=5 mt-priority=-3 RequireTLS";
        let Ok(Command::Mail(mail)) = Command::parse(line) else { panic!("no MAIL") };
        assert_eq!(mail.body, Some(crate::base::BodyType::EightBitMime));
        let asks = Asks {
            binary: true,
            by: By::parse(b"60;RT"),
            hold: Some(Hold::For(5)),
            priority: Some(-3),
            require_tls: true,
        };
        assert_eq!(mail.asks, asks);
        assert!(mail.has_parameters());
        for (line, says) in [
            ("BY", "BY is"),
            ("BY=1;R BY=1;R", "BY was given twice"),
            ("HOLDFOR=x", "HOLDFOR is"),
            ("HOLDUNTIL=tomorrow", "HOLDUNTIL is"),
            ("HOLDFOR=1 HOLDUNTIL=2026-11-24T00:09:25Z", "a hold was given twice"),
            ("MT-PRIORITY=10", "MT-PRIORITY is"),
            ("MT-PRIORITY=1 MT-PRIORITY=1", "MT-PRIORITY was given twice"),
            ("REQUIRETLS=1", "REQUIRETLS has"),
            ("REQUIRETLS REQUIRETLS", "REQUIRETLS has"),
        ] {
            let line = format!("MAIL FROM:<> {line}");
            let bad = Command::parse(line.as_bytes());
            assert!(
                matches!(bad, Err(BadCommand::Parameter(bad)) if bad.starts_with(says)),
                "{line:?}: {bad:?}",
            );
        }
    }
}
