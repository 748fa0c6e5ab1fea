//! Base64 as SMTP carries SASL messages in it (RFC 4954, section 4; RFC 4648).
//! Padding is required and bits that mean nothing must be zero, so that a
//! message has one spelling.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What a line of base64 stands for; `None` if it is none.
pub fn decode(line: &[u8]) -> Option<Vec<u8>> {
    STANDARD.decode(line).ok()
}

/// What an initial response stands for: a lone `=` is the empty one.
pub fn decode_initial(text: &[u8]) -> Option<Vec<u8>> {
    if text == b"=" { Some(Vec::new()) } else { decode(text).filter(|octets| !octets.is_empty()) }
}

/// `message` in base64.
pub fn encode(message: &[u8]) -> String {
    STANDARD.encode(message)
}

/// `message` as an initial response.
pub fn encode_initial(message: &[u8]) -> String {
    if message.is_empty() { "=".into() } else { encode(message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_one_spelling() {
        assert_eq!(decode(b"AGEAYg==").unwrap(), b"\0a\0b");
        assert_eq!(decode(b"").unwrap(), b"");
        for wrong in ["AGEAYg", "AGEAYg=", "AGEAYh==", "AGEA Yg==", "AGEAYg==\r", "=", "A-_A", "*"]
        {
            assert_eq!(decode(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(decode_initial(b"="), Some(Vec::new()));
        assert_eq!(decode_initial(b""), None);
        assert_eq!(encode_initial(b""), "=");
        assert_eq!(encode_initial(b"\0a\0b"), "AGEAYg==");
    }
}
