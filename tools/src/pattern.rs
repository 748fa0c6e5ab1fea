//! Text with counters in it, for addresses and messages that differ from one
//! to the next: `{n}` is the number of the message within the run,
//! `{connection}` that of the connection, `{recipient}` that of the recipient
//! within its message, each from 0; `{n%100}` is the rest after division, so
//! that the values come round again. Anything else in braces stays as it is.

/// The values of the counters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Number of the message.
    pub n: u64,
    /// Number of the connection.
    pub connection: u64,
    /// Number of the recipient.
    pub recipient: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    N,
    Connection,
    Recipient,
}

const NAMES: [(&[u8], Name); 3] =
    [(b"n", Name::N), (b"connection", Name::Connection), (b"recipient", Name::Recipient)];

#[derive(Clone, Debug)]
enum Piece {
    Text(Box<[u8]>),
    Count { name: Name, modulus: Option<u64> },
}

impl Piece {
    fn value(&self, counters: &Counters) -> Option<u64> {
        let Piece::Count { name, modulus } = self else { return None };
        let value = match name {
            Name::N => counters.n,
            Name::Connection => counters.connection,
            Name::Recipient => counters.recipient,
        };
        Some(modulus.map_or(value, |modulus| value % modulus))
    }
}

/// A text with counters.
#[derive(Clone, Debug)]
pub struct Pattern(Vec<Piece>);

impl Pattern {
    /// Finds the counters in `text`.
    pub fn parse(text: &[u8]) -> Self {
        let (mut pieces, mut kept, mut at) = (Vec::new(), 0, 0);
        while let Some(open) = memchr::memchr(b'{', &text[at..]).map(|open| open + at) {
            let Some((piece, len)) = counter(&text[open..]) else {
                at = open + 1;
                continue;
            };
            if open > kept {
                pieces.push(Piece::Text(text[kept..open].into()));
            }
            pieces.push(piece);
            at = open + len;
            kept = at;
        }
        if kept < text.len() {
            pieces.push(Piece::Text(text[kept..].into()));
        }
        Pattern(pieces)
    }

    /// True if it has no counter, so that it is always the same.
    pub fn is_fixed(&self) -> bool {
        self.0.iter().all(|piece| matches!(piece, Piece::Text(_)))
    }

    /// True if it counts recipients.
    pub fn counts_recipients(&self) -> bool {
        let counts = |piece: &Piece| matches!(piece, Piece::Count { name: Name::Recipient, .. });
        self.0.iter().any(counts)
    }

    /// Appends it with these values.
    pub fn write(&self, counters: &Counters, out: &mut Vec<u8>) {
        for piece in &self.0 {
            match (piece, piece.value(counters)) {
                (Piece::Text(text), _) => out.extend_from_slice(text),
                (_, value) => digits(value.unwrap_or_default(), out),
            }
        }
    }

    /// Its length with these values.
    pub fn len(&self, counters: &Counters) -> usize {
        let len = |piece: &Piece| match (piece, piece.value(counters)) {
            (Piece::Text(text), _) => text.len(),
            (_, value) => value.unwrap_or_default().checked_ilog10().unwrap_or(0) as usize + 1,
        };
        self.0.iter().map(len).sum()
    }

    /// It with these values, as text; octets that are no UTF-8 are replaced.
    pub fn text(&self, counters: &Counters) -> String {
        let mut out = Vec::new();
        self.write(counters, &mut out);
        String::from_utf8(out)
            .unwrap_or_else(|bad| String::from_utf8_lossy(bad.as_bytes()).into_owned())
    }
}

fn digits(value: u64, out: &mut Vec<u8>) {
    let mut text = [0; 20];
    let (mut at, mut rest) = (text.len(), value);
    loop {
        at -= 1;
        text[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
}

/// The counter that `text` begins with, and its length.
fn counter(text: &[u8]) -> Option<(Piece, usize)> {
    let end = text.iter().take(40).position(|&byte| byte == b'}')?;
    let inside = &text[1..end];
    let (name, modulus) = match inside.iter().position(|&byte| byte == b'%') {
        Some(at) => {
            let modulus: u64 = std::str::from_utf8(&inside[at + 1..]).ok()?.parse().ok()?;
            (&inside[..at], Some(modulus).filter(|modulus| *modulus > 0).map(Some)?)
        }
        None => (inside, None),
    };
    let (_, name) = NAMES.into_iter().find(|(known, _)| *known == name)?;
    Some((Piece::Count { name, modulus }, end + 1))
}

/// An address given on the command line: braces that are no counter are
/// refused, since they are a slip of the pen there.
///
/// # Errors
/// With what is allowed.
pub fn address(text: &str) -> Result<String, String> {
    let pattern = Pattern::parse(text.as_bytes());
    let stray = |piece: &Piece| matches!(piece, Piece::Text(text) if text.contains(&b'{'));
    if pattern.0.iter().any(stray) {
        return Err(format!(
            "\"{text}\": the counters are {{n}}, {{connection}} and {{recipient}}, and {{n%100}} \
             and so on for values that come round again"
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_replaced_and_braces_of_others_are_not() {
        let counters = Counters { n: 1234, connection: 0, recipient: 7 };
        for (text, want) in [
            ("u{n}@d{n%100}.example", "u1234@d34.example"),
            ("{connection}-{recipient}", "0-7"),
            ("p { color: red } {n}", "p { color: red } 1234"),
            ("{n%0}{m}{n", "{n%0}{m}{n"),
            ("{{n}}", "{1234}"),
            ("", ""),
        ] {
            let pattern = Pattern::parse(text.as_bytes());
            assert_eq!(pattern.text(&counters), want, "{text}");
            assert_eq!(pattern.len(&counters), want.len(), "{text}");
        }
        assert!(Pattern::parse(b"{x}").is_fixed() && !Pattern::parse(b"{n}").is_fixed());
        assert!(Pattern::parse(b"{recipient%3}").counts_recipients());
        assert!(!Pattern::parse(b"{n}").counts_recipients());
    }

    #[test]
    fn lengths_are_known_before() {
        let pattern = Pattern::parse(b"{n}");
        for n in [0, 9, 10, 99, 100, u64::MAX] {
            let counters = Counters { n, ..Counters::default() };
            assert_eq!(pattern.len(&counters), pattern.text(&counters).len());
            assert_eq!(pattern.text(&counters), n.to_string());
        }
    }

    #[test]
    fn an_address_with_a_slip_is_refused() {
        assert!(address("u{n}@example.org").is_ok());
        assert!(address("u{m}@example.org").is_err());
    }
}
