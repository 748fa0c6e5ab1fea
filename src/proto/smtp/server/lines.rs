//! Command lines out of the input: complete, partial, too long.

use super::Session;

/// Octets of one line that are skipped before the session is ended: somebody
/// who sends that much without a line end does not speak SMTP.
pub(super) const LINE_SKIPPED_MAX: u32 = 1 << 20;

/// What the input begins with.
pub(super) enum Line<'a> {
    /// No complete line; what there is must be given again, with more.
    Partial,
    /// A line, its CRLF taken off.
    Whole(&'a [u8]),
    /// A line that ends in LF without CR.
    BareLf(&'a [u8]),
    /// What begins a line too long, found so just now.
    TooLong(&'a [u8]),
    /// A line too long to be skipped.
    Endless,
}

impl Session {
    /// The next line of `input`, which has `longest` octets at most, and how many
    /// octets of it were used.
    #[inline]
    pub(super) fn next_line<'a>(&mut self, input: &'a [u8], longest: usize) -> (Line<'a>, usize) {
        let mut used = 0;
        if self.skipped > 0 {
            match self.skip(input) {
                Ok(len) => used = len,
                Err(partial) => return partial,
            }
        }
        let rest = &input[used..];
        let seen = &rest[..rest.len().min(longest)];
        match memchr::memchr(b'\n', seen) {
            Some(at) => {
                self.tally.commands += 1;
                match seen[..at].strip_suffix(b"\r") {
                    Some(line) => (Line::Whole(line), used + at + 1),
                    None => (Line::BareLf(&seen[..at]), used + at + 1),
                }
            }
            None if seen.len() < longest => (Line::Partial, used),
            None => {
                self.tally.commands += 1;
                self.skipped = longest as u32;
                (Line::TooLong(seen), used + longest)
            }
        }
    }

    /// Skips the rest of a line that is too long. `Ok` has the octets up to and
    /// with its LF; what is in `Err` ends the search.
    #[cold]
    fn skip(&mut self, input: &[u8]) -> Result<usize, (Line<'static>, usize)> {
        let left = (LINE_SKIPPED_MAX - self.skipped) as usize;
        let seen = &input[..input.len().min(left)];
        match memchr::memchr(b'\n', seen) {
            Some(at) => {
                self.skipped = 0;
                Ok(at + 1)
            }
            None if seen.len() == left => Err((Line::Endless, left)),
            None => {
                self.skipped += seen.len() as u32;
                Err((Line::Partial, seen.len()))
            }
        }
    }
}
