//! Messages ready to send: in wire form (RFC 5321, 4.5.2: CRLF line ends, a dot
//! in front of lines that begin with one, `.` CRLF last), rendered once before
//! the run. Each copy that is sent differs only in the few header lines that
//! [`Mark::write`] puts in front, so sending costs a copy of bytes and no
//! formatting.
//!
//! The header field `X-Ringpost-Load: RUN-SEQ` is how the ledgers know a
//! message again; the CRC32C of everything behind that line, the terminator
//! included, is how they know that it arrived unchanged.

use std::fmt;
use std::str::FromStr;

use memchr::memmem;

/// Name of the header field that carries the [`Mark`], with its colon and space.
pub const MARK_FIELD: &[u8] = b"X-Ringpost-Load: ";
/// Length of a [`Mark`] as text.
pub const MARK_LEN: usize = 8 + 1 + 12;
/// What ends a message on the wire, after its last CRLF.
pub const TERMINATOR: &[u8] = b".\r\n";

/// Names one message among all of all runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mark {
    /// Drawn at the start of a run.
    pub run: u32,
    /// Number of the message within the run; less than 2^48.
    pub seq: u64,
}

impl Mark {
    /// The printed form: run and number in hexadecimal, of fixed width.
    pub fn encode(self) -> [u8; MARK_LEN] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut out = [b'-'; MARK_LEN];
        for (index, slot) in out[..8].iter_mut().enumerate() {
            *slot = DIGITS[(self.run >> (28 - 4 * index)) as usize & 15];
        }
        for (index, slot) in out[9..].iter_mut().enumerate() {
            *slot = DIGITS[(self.seq >> (44 - 4 * index)) as usize & 15];
        }
        out
    }

    /// Appends the header lines that make a message this one.
    pub fn write(self, out: &mut Vec<u8>) {
        let text = self.encode();
        out.extend_from_slice(b"Message-ID: <");
        out.extend_from_slice(&text);
        out.extend_from_slice(b"@load.ringpost.invalid>\r\n");
        out.extend_from_slice(MARK_FIELD);
        out.extend_from_slice(&text);
        out.extend_from_slice(b"\r\n");
    }
}

/// Bytes that [`Mark::write`] appends.
pub const MARK_LINES_LEN: usize = 13 + MARK_LEN + 25 + MARK_FIELD.len() + MARK_LEN + 2;

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:012x}", self.run, self.seq)
    }
}

impl FromStr for Mark {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let hex = |part: &str, len: usize| {
            let digits = part.len() == len && part.bytes().all(|b| b.is_ascii_hexdigit());
            digits.then(|| u64::from_str_radix(part, 16).ok()).flatten().ok_or(())
        };
        let (run, seq) = text.split_once('-').ok_or(())?;
        Ok(Mark { run: hex(run, 8)? as u32, seq: hex(seq, 12)? })
    }
}

/// A message in wire form without its mark.
#[derive(Clone, Debug)]
pub struct Template {
    /// What follows the mark, terminator included.
    pub wire: Box<[u8]>,
    /// CRC32C of `wire`.
    pub crc: u32,
    /// True if it has octets above 127, so that BODY=8BITMIME is due.
    pub eight_bit: bool,
}

impl Template {
    /// Takes a message as it lies in a file: LF or CRLF line ends, not stuffed.
    /// A Message-ID of its own is left out, since each copy gets its own.
    pub fn from_file(content: &[u8]) -> Self {
        Template::from_wire(to_wire(content))
    }

    fn from_wire(wire: Vec<u8>) -> Self {
        let crc = crc32c::crc32c(&wire);
        let eight_bit = !wire.is_ascii();
        Template { wire: wire.into_boxed_slice(), crc, eight_bit }
    }

    /// A message of readable text that is `size` octets long as sent, its mark
    /// counted and the terminator not; a little longer if `size` does not hold
    /// its headers.
    pub fn generated(size: u64, from: &str, to: &str) -> Self {
        let mut text = format!(
            "From: <{from}>\r\nTo: <{to}>\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\n\
             Subject: A message of {size} octets\r\nMIME-Version: 1.0\r\n\
             Content-Type: text/plain; charset=us-ascii\r\n\r\n"
        )
        .into_bytes();
        let target = usize::try_from(size).unwrap_or(usize::MAX).saturating_sub(MARK_LINES_LEN);
        let mut words = Words::default();
        while text.len() < target {
            words.line(&mut text, target);
        }
        text.extend_from_slice(TERMINATOR);
        Template::from_wire(text)
    }

    /// Octets of one copy as sent, without the terminator.
    pub fn size(&self) -> u64 {
        (MARK_LINES_LEN + self.wire.len() - TERMINATOR.len()) as u64
    }
}

/// Readable filler from a fixed seed.
struct Words(u32);

impl Default for Words {
    fn default() -> Self {
        Words(0x2545_f491)
    }
}

/// Length of a full line of filler, CRLF included.
const FILLER_LINE: usize = 76;

impl Words {
    fn next(&mut self) -> &'static [u8] {
        const WORDS: [&[u8]; 16] = [
            b"the",
            b"post",
            b"rings",
            b"twice",
            b"and",
            b"a",
            b"letter",
            b"waits",
            b"under",
            b"its",
            b"seal",
            b"until",
            b"morning",
            b"when",
            b"carriers",
            b"come",
        ];
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        WORDS[self.0 as usize % WORDS.len()]
    }

    /// Appends one line, so that `out` comes to `target` exactly in the end.
    fn line(&mut self, out: &mut Vec<u8>, target: usize) {
        let left = target - out.len();
        // The last line takes what a line of its own could not hold.
        let len = if left < FILLER_LINE + 3 { left.max(2) } else { FILLER_LINE } - 2;
        let end = out.len() + len;
        while out.len() < end {
            out.extend_from_slice(self.next());
            out.push(b' ');
        }
        out.truncate(end);
        if let Some(last) = out.last_mut().filter(|last| **last == b' ') {
            *last = b'.';
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// `content` in wire form: every LF becomes CRLF (CRLF stays), leading dots
/// are doubled, the last line is ended, and the terminator follows. Its own
/// Message-ID field is left out.
fn to_wire(content: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(content.len() + content.len() / 40 + 16);
    let (mut in_headers, mut dropping) = (true, false);
    for line in content.split_inclusive(|&byte| byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if in_headers {
            in_headers = !text.is_empty();
            dropping = match text.first() {
                Some(b' ' | b'\t') => dropping,
                _ => has_name(text, b"message-id:"),
            };
            if dropping {
                continue;
            }
        }
        if text.first() == Some(&b'.') {
            wire.push(b'.');
        }
        wire.extend_from_slice(text);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(TERMINATOR);
    wire
}

fn has_name(line: &[u8], name: &[u8]) -> bool {
    line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
}

/// Finds the mark in the header of a received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The mark, and where the bytes behind its line begin.
    At(Mark, usize),
    /// The header has ended and holds no mark.
    No,
    /// The bytes end before either could be told.
    Unknown,
}

/// Looks for the mark in the first bytes of a message in wire form.
pub fn find_mark(start: &[u8]) -> Found {
    let header = match memmem::find(start, b"\r\n\r\n") {
        Some(end) => &start[..end + 2],
        None => start,
    };
    let mut from = 0;
    while let Some(at) = memmem::find(&header[from..], MARK_FIELD).map(|at| at + from) {
        let end = at + MARK_FIELD.len() + MARK_LEN;
        let at_line_start = at == 0 || header[at - 1] == b'\n';
        match header.get(end..end + 2) {
            Some(b"\r\n") if at_line_start => {
                let text = std::str::from_utf8(&header[end - MARK_LEN..end]).unwrap_or_default();
                if let Ok(mark) = text.parse() {
                    return Found::At(mark, end + 2);
                }
            }
            Some(_) => {}
            None if header.len() == start.len() => return Found::Unknown,
            None => {}
        }
        from = at + 1;
    }
    let ended = header.len() < start.len()
        || start.starts_with(b"\r\n")
        || start.starts_with(TERMINATOR)
        || start.ends_with(b"\r\n.\r\n");
    if ended { Found::No } else { Found::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_round_trip() {
        let mark = Mark { run: 0xdead_beef, seq: 0x0123_4567_89ab };
        assert_eq!(mark.to_string().as_bytes(), mark.encode());
        assert_eq!(mark.to_string().parse(), Ok(mark));
        for bad in ["", "deadbeef", "deadbeef-+12345678901", "deadbeef-0123456789ab0"] {
            assert_eq!(bad.parse::<Mark>(), Err(()), "{bad}");
        }
        let mut lines = Vec::new();
        mark.write(&mut lines);
        assert_eq!(lines.len(), MARK_LINES_LEN);
    }

    #[test]
    fn a_generated_message_has_the_size_asked_for() {
        for size in (400..1000).chain([4096, 100_000, 1 << 20]) {
            let template = Template::generated(size, "a@example.org", "b@example.org");
            assert_eq!(template.size(), size, "{size}");
            assert!(template.wire.ends_with(b"\r\n.\r\n"));
            let longest = template.wire.split(|&b| b == b'\n').map(<[u8]>::len).max();
            assert!(longest.unwrap() <= FILLER_LINE + 3, "{size}");
        }
    }

    #[test]
    fn wire_form_of_files() {
        let wire = |text: &[u8]| Template::from_file(text).wire.into_vec();
        assert_eq!(wire(b""), b".\r\n");
        assert_eq!(wire(b"A: b\n\n.x\r\ny"), b"A: b\r\n\r\n..x\r\ny\r\n.\r\n");
        assert_eq!(wire(b"message-id: <a>\n b\nA: b\n\nMessage-ID: c\n").as_slice(), {
            b"A: b\r\n\r\nMessage-ID: c\r\n.\r\n"
        });
        assert!(Template::from_file("ä".as_bytes()).eight_bit);
    }

    #[test]
    fn finds_its_mark_behind_trace_fields_and_nowhere_else() {
        let mark = Mark { run: 1, seq: 2 };
        let mut message = b"Received: from x\r\n\tby y\r\n".to_vec();
        mark.write(&mut message);
        let behind = message.len();
        message.extend_from_slice(b"A: b\r\n\r\ntext\r\n.\r\n");
        assert_eq!(find_mark(&message), Found::At(mark, behind));
        for cut in 0..behind {
            assert_eq!(find_mark(&message[..cut]), Found::Unknown, "{cut}");
        }
        let quoted = [b"A: b\r\n\r\n", &message[..]].concat();
        assert_eq!(find_mark(&quoted), Found::No);
        let folded = [b"A: ".as_slice(), MARK_FIELD, b"nothing of ours here!\r\n\r\n"].concat();
        assert_eq!(find_mark(&folded), Found::No);
        assert_eq!(find_mark(b"\r\n.\r\n"), Found::No);
        assert_eq!(find_mark(b".\r\n"), Found::No);
        assert_eq!(find_mark(b"A: b\r\n.\r\n"), Found::No);
    }
}
