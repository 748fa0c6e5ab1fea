//! Figures for people: numbers with their thousands apart, times with a unit
//! that fits, round values for axes.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// Writes `text` and a line end to standard output. That its reader has seen enough
/// (`| head`) is no error.
///
/// # Errors
/// Others of writing.
pub fn say(text: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes `text` and a line end to standard error. Whether somebody reads it makes no
/// difference: a Ctrl-C ends a `tee` behind a pipe before what writes to it.
pub fn note(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Looks whether a file can be made at each of `paths`, so that a long run does not end
/// with results that go nowhere. Nothing is written yet.
///
/// # Errors
/// A folder is missing, or where a file is to be is one; with the path.
pub fn can_write<'p>(paths: impl IntoIterator<Item = &'p Path>) -> io::Result<()> {
    for path in paths {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if path.is_dir() || folder.is_some_and(|folder| !folder.is_dir()) {
            let why = if path.is_dir() { "it is a folder" } else { "there is no such folder" };
            let text = format!("cannot write {}: {why}", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
    }
    Ok(())
}

/// Tells of the error that `tool` ended with; its exit code. What is wrong with what was
/// asked for, and not with the world, is wrong usage: those errors are made here, and the
/// kernel has no part in them.
pub fn ended_badly(tool: &str, error: &io::Error) -> ExitCode {
    note(format_args!("{tool}: {error}"));
    let is_usage = error.kind() == io::ErrorKind::InvalidInput && error.raw_os_error().is_none();
    ExitCode::from(if is_usage { 2 } else { 1 })
}

/// A whole number with its thousands apart.
pub fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.max(0.0));
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// So many of something, as "1 core" or "2,000 cores".
pub fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {what}{plural}", grouped(count as f64))
}

/// A time with two or three digits and its unit.
pub fn time_label(ms: f64) -> String {
    let (value, unit) = match ms {
        ms if ms < 0.9995 => (ms * 1000.0, "µs"),
        ms if ms < 999.5 => (ms, "ms"),
        ms => (ms / 1000.0, "s"),
    };
    let tenths = (value * 10.0).round() as u64;
    let decimals = usize::from(tenths < 100 && !tenths.is_multiple_of(10));
    format!("{value:.decimals$} {unit}")
}

/// A size in the largest unit that it is a multiple of.
pub fn size_label(size: u64) -> String {
    match size {
        size if size.is_multiple_of(1 << 20) => format!("{} MiB", size >> 20),
        size if size.is_multiple_of(1 << 10) => format!("{} KiB", size >> 10),
        size => format!("{size} octets"),
    }
}

/// The distance of round grid lines and the topmost of them, for values up to
/// `most`: four to eight lines.
pub fn round_steps(most: f64) -> (f64, f64) {
    let rough = most / 5.0;
    let decade = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * decade)
        .find(|step| *step >= rough)
        .unwrap_or(rough)
        .max(1.0);
    (step, (most / step).ceil() * step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_made_is_noticed_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        assert!(can_write([path("new").as_path(), Path::new("here")]).is_ok());
        for bad in [path("no/such"), dir.path().to_owned()] {
            let error = can_write([bad.as_path()]).unwrap_err().to_string();
            assert!(error.contains(&bad.display().to_string()), "{error}");
        }
        assert!(!path("new").exists());
    }

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!(grouped(1_234_567.4), "1,234,567");
        assert_eq!(grouped(12.0), "12");
        for (ms, text) in
            [(0.1, "100 µs"), (0.0456, "46 µs"), (1.0, "1 ms"), (1.26, "1.3 ms"), (999.7, "1 s")]
        {
            assert_eq!(time_label(ms), text);
        }
        for (ms, text) in [(3.95, "4 ms"), (4.06, "4.1 ms"), (9.94, "9.9 ms"), (9.97, "10 ms")] {
            assert_eq!(time_label(ms), text);
        }
        assert_eq!([4096, 3 << 20, 999].map(size_label), ["4 KiB", "3 MiB", "999 octets"]);
        assert_eq!(counted(1, "core") + &counted(2000, "run"), "1 core2,000 runs");
        assert_eq!(round_steps(23_000.0), (5_000.0, 25_000.0));
        assert_eq!(round_steps(0.5).0, 1.0);
    }
}
