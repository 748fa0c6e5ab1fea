//! Replies as a client reads them (RFC 5321, sections 4.2 and 4.2.1), line by
//! line and without copying more than is kept.
//!
//! The client engine owns one [`ReplyReader`] for a connection. Whatever a peer
//! sends is bounded here: the length of a line, the lines of a reply, and the
//! text kept of it. A line may end with a bare LF, as some servers' do; all
//! lines of a reply must carry the same code.

use crate::base::limits::{PEER_REPLY_LINE_MAX, PEER_REPLY_LINES_MAX, REPLY_TEXT_KEPT};
use crate::base::{EnhancedCode, Reply};

/// What a peer sent that is no reply, or too much of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A line without a code of three digits from 200 to 599.
    NotAReply,
    /// Lines of one reply with different codes.
    CodeChanged,
    /// A line longer than [`PEER_REPLY_LINE_MAX`].
    LineTooLong,
    /// A reply of more than [`PEER_REPLY_LINES_MAX`] lines.
    TooManyLines,
}

impl Malformed {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Malformed::NotAReply => "a line that is no SMTP reply",
            Malformed::CodeChanged => "a reply whose lines have different codes",
            Malformed::LineTooLong => "a reply line too long to be one",
            Malformed::TooManyLines => "a reply of too many lines",
        }
    }
}

/// One line of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Bytes of input that it took, line end included.
    pub len: usize,
    /// What follows the code and its separator.
    pub text: &'a [u8],
    /// True for the last line of a reply.
    pub last: bool,
}

/// Assembles replies from the bytes of a connection.
#[derive(Debug, Default)]
pub struct ReplyReader {
    code: u16,
    lines: u16,
    complete: bool,
    text: Vec<u8>,
}

impl ReplyReader {
    /// The next line at the start of `input`; `None` when it is not all there.
    ///
    /// # Errors
    /// What the peer sent cannot be a reply. The connection is of no more use.
    pub fn line<'a>(&mut self, input: &'a [u8]) -> Result<Option<Line<'a>>, Malformed> {
        let window = &input[..input.len().min(PEER_REPLY_LINE_MAX)];
        let Some(end) = memchr::memchr(b'\n', window) else {
            return if window.len() == PEER_REPLY_LINE_MAX {
                Err(Malformed::LineTooLong)
            } else {
                Ok(None)
            };
        };
        let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
        let (code, last, text) = parse_line(line).ok_or(Malformed::NotAReply)?;
        if self.complete || self.lines == 0 {
            self.code = code;
            self.lines = 0;
            self.text.clear();
        } else if code != self.code {
            return Err(Malformed::CodeChanged);
        }
        self.lines += 1;
        if usize::from(self.lines) > PEER_REPLY_LINES_MAX {
            return Err(Malformed::TooManyLines);
        }
        self.complete = last;
        self.keep(text);
        Ok(Some(Line { len: end + 1, text, last }))
    }

    /// True between the first line of a reply and its last.
    pub fn within_reply(&self) -> bool {
        self.lines > 0 && !self.complete
    }

    /// The code of the reply read last.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The reply read last, as far as its text was kept.
    pub fn reply(&self) -> Reply {
        let (enhanced, text) = match split_enhanced(self.code, &self.text) {
            Some((code, text)) => (Some(code), text),
            None => (None, &self.text[..]),
        };
        Reply { code: self.code, enhanced, text: printable(text) }
    }

    /// Keeps a line's text. Lines are joined by a space; an enhanced code that
    /// only repeats the first line's is left out.
    fn keep(&mut self, text: &[u8]) {
        let text = match split_enhanced(self.code, text) {
            Some((_, words)) if self.lines > 1 => words,
            _ => text,
        };
        if text.is_empty() {
            return;
        }
        if self.lines > 1 && !self.text.is_empty() && self.text.len() < REPLY_TEXT_KEPT {
            self.text.push(b' ');
        }
        let room = REPLY_TEXT_KEPT.saturating_sub(self.text.len());
        self.text.extend_from_slice(&text[..text.len().min(room)]);
    }
}

/// Code, whether it is the last line, text.
#[inline]
fn parse_line(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (digits, rest) = line.split_at_checked(3)?;
    if !digits.iter().all(u8::is_ascii_digit) || !(b'2'..=b'5').contains(&digits[0]) {
        return None;
    }
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match rest.split_first() {
        None => Some((code, true, rest)),
        Some((b' ', text)) => Some((code, true, text)),
        Some((b'-', text)) => Some((code, false, text)),
        Some(_) => None,
    }
}

/// Takes an enhanced status code (RFC 2034, section 4) off the front of
/// `text`; it must be of the class that `code` is of.
fn split_enhanced(code: u16, text: &[u8]) -> Option<(EnhancedCode, &[u8])> {
    let class = *text.first()?;
    if text.get(1) != Some(&b'.') || u16::from(class.wrapping_sub(b'0')) != code / 100 {
        return None;
    }
    let (subject, rest) = small_number(&text[2..])?;
    let (detail, rest) = small_number(rest.strip_prefix(b".")?)?;
    let rest = match rest.split_first() {
        None => rest,
        Some((b' ', words)) => words,
        Some(_) => return None,
    };
    Some((EnhancedCode(class - b'0', subject, detail), rest))
}

/// One to three digits.
fn small_number(text: &[u8]) -> Option<(u16, &[u8])> {
    let len = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=3).contains(&len) {
        return None;
    }
    let number = text[..len].iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    Some((number, &text[len..]))
}

/// Text that may go into logs and reports: control characters become spaces,
/// what is not UTF-8 its replacement character.
fn printable(text: &[u8]) -> String {
    if text.iter().all(|byte| (0x20..0x7f).contains(byte)) {
        return text.iter().map(|&byte| char::from(byte)).collect();
    }
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    String::from_utf8_lossy(text).chars().map(clean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads all of `input` as replies.
    fn read(input: &[u8]) -> Result<Vec<Reply>, Malformed> {
        let (mut reader, mut used, mut replies) = (ReplyReader::default(), 0, Vec::new());
        while let Some(line) = reader.line(&input[used..])? {
            used += line.len;
            if line.last {
                replies.push(reader.reply());
            }
        }
        Ok(replies)
    }

    fn plain(code: u16, text: &str) -> Reply {
        Reply { code, enhanced: None, text: text.into() }
    }

    #[test]
    fn reads_lines_codes_and_enhanced_codes() {
        assert_eq!(
            read(b"250-2.1.5 first\r\n250-2.1.5 second\r\n250 2.1.5\r\n").unwrap(),
            [Reply::new(250, EnhancedCode(2, 1, 5), "first second")]
        );
        assert_eq!(read(b"220\r\n354 go\n").unwrap(), [plain(220, ""), plain(354, "go")]);
        assert_eq!(
            read(b"550 4.1.1 class of another code\r\n").unwrap(),
            [plain(550, "4.1.1 class of another code")]
        );
        assert_eq!(read(b"550 5.1.1x\r\n").unwrap(), [plain(550, "5.1.1x")]);
        assert_eq!(read(b"550 5.1234.1 x\r\n").unwrap(), [plain(550, "5.1234.1 x")]);
    }

    #[test]
    fn text_is_made_printable_and_bounded() {
        assert_eq!(read(b"250 a\x07b\xff\r\n").unwrap(), [plain(250, "a b\u{fffd}")]);
        let long = format!("250-{0}\r\n250 {0}\r\n", "x".repeat(400));
        assert_eq!(read(long.as_bytes()).unwrap()[0].text.len(), REPLY_TEXT_KEPT);
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for bad in
            [&b"\r\n"[..], b"25\r\n", b"650 x\r\n", b"150 x\r\n", b"250x\r\n", b"HTTP/1.1\r\n"]
        {
            assert_eq!(read(bad), Err(Malformed::NotAReply), "{bad:?}");
        }
        assert_eq!(read(b"250-a\r\n251 b\r\n"), Err(Malformed::CodeChanged));
        assert_eq!(read(&[b'2'; PEER_REPLY_LINE_MAX]), Err(Malformed::LineTooLong));
        assert_eq!(read(&[b'2'; PEER_REPLY_LINE_MAX - 1]), Ok(vec![]));
        assert_eq!(read(&b"250-x\r\n".repeat(PEER_REPLY_LINES_MAX)), Ok(vec![]));
        assert_eq!(
            read(&b"250-x\r\n".repeat(PEER_REPLY_LINES_MAX + 1)),
            Err(Malformed::TooManyLines)
        );
    }

    #[test]
    fn a_reply_cut_anywhere_reads_the_same() {
        let whole = b"250-2.0.0 one\r\n250 2.0.0 two\r\n";
        for cut in 0..whole.len() {
            let mut reader = ReplyReader::default();
            let mut used = 0;
            for end in [cut, whole.len()] {
                while let Some(line) = reader.line(&whole[used..end]).unwrap() {
                    used += line.len;
                }
            }
            assert_eq!(used, whole.len());
            assert_eq!(reader.reply(), Reply::new(250, EnhancedCode(2, 0, 0), "one two"));
        }
    }
}
