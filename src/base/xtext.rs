//! `xtext` (RFC 3461, section 4): how ENVID and ORCPT carry text in a command.
//! Printable ASCII stands for itself but for `+` and `=`; any octet may be
//! written as `+` and two upper-case hexadecimal digits.
//!
//! Used by the server engine to check, by the client engine to write, and by
//! reports to read. What is queued stays encoded, as it came: it must be passed
//! on with the very same octets (section 5.2.1).

use std::fmt::Write;

/// True if `text` is xtext and stands for printable ASCII, blanks and tabs: what
/// a report can hold (sections 4.2 and 4.4).
pub fn is_printable(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some((octet, tail)) = next(rest) {
        if !matches!(octet, b'\t' | b' '..=b'~') {
            return false;
        }
        rest = tail;
    }
    rest.is_empty()
}

/// What xtext stands for. What is no xtext stands for itself, and octets above
/// 127 for the replacement character: checked text has neither.
pub fn decode(text: &str) -> String {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let (octet, tail) = next(rest).unwrap_or((byte, tail));
        octets.push(octet);
        rest = tail;
    }
    String::from_utf8_lossy(&octets).into_owned()
}

/// The octets that xtext stands for; `None` if `text` is no xtext.
pub fn octets(text: &[u8]) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((octet, tail)) = next(rest) {
        octets.push(octet);
        rest = tail;
    }
    rest.is_empty().then_some(octets)
}

/// Appends `text` as xtext.
pub fn encode(text: &str, out: &mut String) {
    for octet in text.bytes() {
        if octet.is_ascii_graphic() && !matches!(octet, b'+' | b'=') {
            out.push(char::from(octet));
        } else {
            let _ = write!(out, "+{octet:02X}");
        }
    }
}

/// The first octet that xtext stands for, and the rest; `None` at the end and
/// where it is no xtext.
fn next(text: &[u8]) -> Option<(u8, &[u8])> {
    match *text {
        [b'+', high, low, ref rest @ ..] => Some((digit(high)? << 4 | digit(low)?, rest)),
        [b'+' | b'=', ..] => None,
        [byte @ b'!'..=b'~', ref rest @ ..] => Some((byte, rest)),
        _ => None,
    }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_stands_for_printable_text_is_taken() {
        for good in ["", "a", "a+2Bb+3Dc", "QQ314159+20x", "+09+7E", "a;b\\{}"] {
            assert!(is_printable(good.as_bytes()), "{good}");
        }
        for bad in [
            "+", "+2", "+2b", "+0D", "+0A", "+00", "+7F", "+80", "+FF", "a=b", "a b", "\u{e9}",
            "\t",
        ] {
            assert!(!is_printable(bad.as_bytes()), "{bad}");
        }
        assert_eq!(decode("a+2Bb+3Dc+20+2b"), "a+b=c +2b");
        assert_eq!(decode("x+FF"), "x\u{fffd}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn text_survives(text in "[\t -~]{0,40}", other in ".{0,20}") {
            let mut coded = String::new();
            encode(&text, &mut coded);
            prop_assert!(is_printable(coded.as_bytes()));
            prop_assert_eq!(decode(&coded), text);
            coded.clear();
            encode(&other, &mut coded);
            prop_assert_eq!(decode(&coded), other);
        }
    }
}
