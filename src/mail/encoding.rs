//! Quoted-printable (RFC 2045, 6.7), for the parts of a report that may not be
//! sent as they are: octets above 127 to a host without 8BITMIME, bare CR or
//! LF, lines too long. CRLF stays a line end.

use crate::base::limits;

/// Longest line of quoted-printable, CRLF not counted (RFC 2045, 6.7, rule 5).
const LINE_MAX: usize = 76;

/// True if `text` can be sent as 7-bit text as it is (RFC 2045, 2.7).
pub(super) fn is_seven_bit(text: &[u8]) -> bool {
    text.is_ascii() && is_clean(text)
}

/// True if `text` can be sent as 8-bit text as it is (RFC 2045, 2.8): no line
/// too long, no NUL, and CR and LF only together.
pub(super) fn is_clean(text: &[u8]) -> bool {
    let mut lines = text.split(|&byte| byte == b'\n');
    let last = lines.next_back().unwrap_or(b"");
    let is_plain = |line: &[u8]| {
        line.len() + 2 <= limits::TEXT_LINE_MAX && !line.iter().any(|byte| b"\r\0".contains(byte))
    };
    is_plain(last) && lines.all(|line| line.strip_suffix(b"\r").is_some_and(is_plain))
}

/// Appends `text` to `out` in quoted-printable.
pub(super) fn quoted_printable(text: &[u8], out: &mut Vec<u8>) {
    let mut column = 0;
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        if let Some(tail) = rest.strip_prefix(b"\r\n") {
            out.extend_from_slice(b"\r\n");
            column = 0;
            rest = tail;
            continue;
        }
        let ends_line = tail.is_empty() || tail.starts_with(b"\r\n");
        let is_literal = match byte {
            b'=' => false,
            b' ' | b'\t' => !ends_line,
            _ => byte.is_ascii_graphic(),
        };
        let width = if is_literal { 1 } else { 3 };
        // A soft line break takes a column itself.
        if column + width + usize::from(!ends_line) > LINE_MAX {
            out.extend_from_slice(b"=\r\n");
            column = 0;
        }
        if is_literal {
            out.push(*byte);
        } else {
            out.extend_from_slice(format!("={byte:02X}").as_bytes());
        }
        column += width;
        rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(text: &[u8]) -> Vec<u8> {
        let mut out = vec![];
        quoted_printable(text, &mut out);
        out
    }

    /// The inverse, for well-formed input.
    fn decoded(text: &[u8]) -> Vec<u8> {
        let mut out = vec![];
        let mut rest = text;
        while let [byte, tail @ ..] = rest {
            rest = if let Some(tail) = rest.strip_prefix(b"=\r\n") {
                tail
            } else if *byte == b'=' {
                let digits = std::str::from_utf8(&tail[..2]).unwrap();
                out.push(u8::from_str_radix(digits, 16).unwrap());
                &tail[2..]
            } else {
                out.push(*byte);
                tail
            };
        }
        out
    }

    #[test]
    fn encodes_what_cannot_be_sent() {
        assert_eq!(encoded(b"a=b \r\n\ncaf\xc3\xa9\r"), b"a=3Db=20\r\n=0Acaf=C3=A9=0D");
    }

    #[test]
    fn knows_what_can_be_sent_as_it_is() {
        assert!(is_seven_bit(b"") && is_seven_bit(b"a\r\nb") && is_clean(b"caf\xc3\xa9\r\n"));
        for odd in [&b"a\nb"[..], b"a\rb\r\n", b"\0", b"a\r", b"a\r\r\n", &[b'x'; 999]] {
            assert!(!is_clean(odd) && !is_seven_bit(odd), "{odd:?}");
        }
        assert!(!is_seven_bit(b"\xff"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_encoded_decodes_and_fits(
            text in proptest::collection::vec(prop_oneof![
                any::<u8>(), Just(b' '), Just(b'\r'), Just(b'\n'), Just(b'e'),
            ], 0..400),
        ) {
            let wire = encoded(&text);
            prop_assert!(is_seven_bit(&wire), "{}", wire.escape_ascii());
            for line in wire.split(|&byte| byte == b'\n') {
                prop_assert!(line.strip_suffix(b"\r").unwrap_or(line).len() <= LINE_MAX);
            }
            prop_assert_eq!(decoded(&wire), text);
        }
    }
}
