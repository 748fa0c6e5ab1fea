//! Values that the tools' options take: sizes, spans of time, rates, shares and
//! CPUs, each with an error that says what is allowed. Used as clap value
//! parsers by all tools.

use std::time::Duration;

use clap::ValueEnum;

/// How TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TlsStart {
    /// With STARTTLS (RFC 3207), in a session that began in the clear.
    Starttls,
    /// With the first octet (RFC 8314).
    Implicit,
}

impl TlsStart {
    /// Its name in options and results.
    pub fn name(self) -> &'static str {
        match self {
            TlsStart::Starttls => "starttls",
            TlsStart::Implicit => "implicit",
        }
    }
}

/// A size in bytes: `4096`, `4KiB`, `1MiB`, `10kB`.
///
/// # Errors
/// With what is allowed.
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text);
    let scale: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" | "k" => 1 << 10,
        "mib" | "m" => 1 << 20,
        "gib" | "g" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return Err(bad_size(text)),
    };
    let count: u64 = number.parse().map_err(|_| bad_size(text))?;
    count.checked_mul(scale).ok_or_else(|| bad_size(text))
}

fn bad_size(text: &str) -> String {
    format!("\"{text}\" is no size: a whole number of bytes, KiB, MiB or GiB, as in \"4KiB\"")
}

/// A span of time: `500us`, `20ms`, `5s`, `1.5s`, `2m`, `1h30m`.
///
/// # Errors
/// With what is allowed.
pub fn span(text: &str) -> Result<Duration, String> {
    let bad = || format!("\"{text}\" is no span of time: as in \"20ms\", \"5s\", \"1h30m\"");
    let mut total = Duration::ZERO;
    let mut rest = text;
    loop {
        let (number, tail) = split_unit(rest);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(letters);
        let count: f64 = number.parse().map_err(|_| bad())?;
        let seconds = match unit {
            "us" => count / 1e6,
            "ms" => count / 1e3,
            "s" => count,
            "m" | "min" => count * 60.0,
            "h" => count * 3600.0,
            "d" => count * 86_400.0,
            _ => return Err(bad()),
        };
        total += Duration::try_from_secs_f64(seconds).map_err(|_| bad())?;
        if next.is_empty() {
            return Ok(total);
        }
        rest = next;
    }
}

/// A rate in events each second: `5000`, `5000/s`, `90/m`.
///
/// # Errors
/// With what is allowed.
pub fn rate(text: &str) -> Result<f64, String> {
    let bad = || format!("\"{text}\" is no rate: a number above 0, as in \"5000/s\" or \"90/m\"");
    let (number, per_second) = match text.split_once('/') {
        None | Some((_, "s")) => (text.split('/').next().unwrap_or(text), 1.0),
        Some((number, "m")) => (number, 1.0 / 60.0),
        Some(_) => return Err(bad()),
    };
    let rate = number.parse::<f64>().map_err(|_| bad())? * per_second;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err(bad()) }
}

/// A share of a whole: `0.05` or `5%`.
///
/// # Errors
/// With what is allowed.
pub fn share(text: &str) -> Result<f64, String> {
    let bad = || format!("\"{text}\" is no share: 0 to 1, or 0% to 100%");
    let (number, scale) = match text.strip_suffix('%') {
        Some(number) => (number, 0.01),
        None => (text, 1.0),
    };
    let share = number.trim().parse::<f64>().map_err(|_| bad())? * scale;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(bad()) }
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.split_at(end)
}

/// The CPUs to run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// Every one this process may use.
    All,
    /// The first so many of them.
    Count(usize),
    /// Exactly these.
    List(Vec<usize>),
}

/// `all`, a count, or a list in the kernel's notation that names at least one
/// range or comma (`0-3,8`, `2,` for CPU 2 alone).
///
/// # Errors
/// With what is allowed.
pub fn cores(text: &str) -> Result<Cores, String> {
    let bad = || format!("\"{text}\" names no CPUs: \"all\", a count, or a list as in \"0-3,8\"");
    if text == "all" {
        return Ok(Cores::All);
    }
    if let Ok(count) = text.parse::<usize>() {
        return if count > 0 { Ok(Cores::Count(count)) } else { Err(bad()) };
    }
    let list = cpu_list(text).filter(|list| !list.is_empty()).ok_or_else(bad)?;
    Ok(Cores::List(list))
}

fn cpu_list(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last < first || last - first > 4096 {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

impl Cores {
    /// The CPUs themselves, among those `allowed`.
    ///
    /// # Errors
    /// One of a list is not allowed.
    pub fn resolve(&self, allowed: &[usize]) -> Result<Vec<usize>, String> {
        match self {
            Cores::All => Ok(allowed.to_vec()),
            Cores::Count(count) => Ok(allowed.iter().copied().take(*count).collect()),
            Cores::List(list) => match list.iter().find(|cpu| !allowed.contains(cpu)) {
                None => Ok(list.clone()),
                Some(cpu) => Err(format!("CPU {cpu} is not among the allowed ones: {allowed:?}")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans() {
        assert_eq!(size("4KiB"), Ok(4096));
        assert_eq!(size("10kB"), Ok(10_000));
        assert_eq!(size("123"), Ok(123));
        for bad in ["", "KiB", "4 furlongs", "99999999999GiB", "-1"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!(span("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(span("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(span("500us"), Ok(Duration::from_micros(500)));
        for bad in ["", "5", "s", "5 s", "1h30"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_and_shares() {
        assert_eq!(rate("5000/s"), Ok(5000.0));
        assert_eq!(rate("5000"), Ok(5000.0));
        assert_eq!(rate("90/m"), Ok(1.5));
        for bad in ["0", "-1/s", "5/h", "x", "inf"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
        assert_eq!(share("5%"), Ok(0.05));
        assert_eq!(share("1"), Ok(1.0));
        for bad in ["1.1", "101%", "-1%", "", "x"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cpus() {
        assert_eq!(cores("all"), Ok(Cores::All));
        assert_eq!(cores("2"), Ok(Cores::Count(2)));
        assert_eq!(cores("0-2,8"), Ok(Cores::List(vec![0, 1, 2, 8])));
        assert_eq!(cores("3,"), Ok(Cores::List(vec![3])));
        for bad in ["0", "", ",", "2-1", "a"] {
            assert!(cores(bad).is_err(), "{bad}");
        }
        assert_eq!(Cores::Count(9).resolve(&[1, 4]), Ok(vec![1, 4]));
        assert!(Cores::List(vec![2]).resolve(&[0, 1]).is_err());
    }
}
