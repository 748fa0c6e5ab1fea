//! What both sides of SCRAM-SHA-256 share (RFC 5802, RFC 7677): the hashes, the
//! grammar of messages, and what binds an exchange to its TLS connection.

use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};

use crate::base::scram::{HASH_LEN, Hash, ScramKeys};

/// How an exchange can be bound to its TLS connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingKind {
    /// `tls-exporter` (RFC 9266): key material of this connection; TLS 1.3.
    Exporter,
    /// `tls-server-end-point` (RFC 5929): the hash of the server's certificate.
    EndPoint,
}

impl BindingKind {
    /// The registered name.
    pub fn name(self) -> &'static str {
        match self {
            BindingKind::Exporter => "tls-exporter",
            BindingKind::EndPoint => "tls-server-end-point",
        }
    }

    pub(super) fn parse(name: &str) -> Option<BindingKind> {
        [BindingKind::Exporter, BindingKind::EndPoint].into_iter().find(|kind| kind.name() == name)
    }
}

/// What both ends of a TLS connection know and nobody between them can bring
/// about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// What it is.
    pub kind: BindingKind,
    /// Its octets.
    pub data: Box<[u8]>,
}

/// PBKDF2-HMAC-SHA-256 of a prepared password. Costs about a millisecond for
/// some thousand iterations.
pub(super) fn salted(password: &str, salt: &[u8], iterations: NonZeroU32) -> Hash {
    let mut salted = [0; HASH_LEN];
    let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
    pbkdf2::derive(algorithm, iterations, salt, password.as_bytes(), &mut salted);
    salted
}

/// The keys that a server keeps of a prepared password. Costs as much as
/// hashing it so often.
pub fn derive_keys(password: &str, salt: &[u8], iterations: NonZeroU32) -> ScramKeys {
    let salted = salted(password, salt, iterations);
    ScramKeys {
        salt: salt.into(),
        iterations,
        stored_key: hash(&client_key(&salted)),
        server_key: server_key(&salted),
    }
}

pub(super) fn client_key(salted: &Hash) -> Hash {
    mac(salted, b"Client Key")
}

pub(super) fn server_key(salted: &Hash) -> Hash {
    mac(salted, b"Server Key")
}

pub(super) fn hash(octets: &[u8]) -> Hash {
    digest::digest(&digest::SHA256, octets).as_ref().try_into().expect("SHA-256 has 32 octets")
}

pub(super) fn mac(key: &Hash, octets: &[u8]) -> Hash {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), octets);
    tag.as_ref().try_into().expect("SHA-256 has 32 octets")
}

pub(super) fn xor(left: &Hash, right: &Hash) -> Hash {
    std::array::from_fn(|at| left[at] ^ right[at])
}

/// Comparison that takes as long whatever differs.
pub(super) fn same(left: &[u8], right: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(left, right).is_ok()
}

/// The value of an attribute `name=value`.
pub(super) fn attribute(text: &str, name: char) -> Option<&str> {
    text.strip_prefix(name)?.strip_prefix('=')
}

/// True if `nonce` is one (`printable`, RFC 5802, section 7): visible ASCII
/// without commas.
pub(super) fn is_nonce(nonce: &str) -> bool {
    !nonce.is_empty()
        && nonce.len() <= 256
        && nonce.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// A name as it stands in a message: `=2C` for a comma, `=3D` for an equals sign.
pub(super) fn escape(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

/// The name that stands so in a message.
pub(super) fn unescape(text: &str) -> Option<String> {
    let mut name = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('=') {
        name.push_str(&rest[..at]);
        name.push(match rest.get(at..at + 3)? {
            "=2C" => ',',
            "=3D" => '=',
            _ => return None,
        });
        rest = &rest[at + 3..];
    }
    name.push_str(rest);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_only_so() {
        for name in ["alice", "a,b", "a=b", "=2C,", "\u{e9}="] {
            assert_eq!(unescape(&escape(name)).as_deref(), Some(name));
        }
        for wrong in ["=", "a=2", "a=2c", "a==", "=\u{e9}\u{e9}", "=41"] {
            assert_eq!(unescape(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn nonces_hold_no_comma_and_no_control() {
        assert!(is_nonce("rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"));
        for wrong in ["", "a,b", "a b", "a\r\n", "\u{e9}", &"a".repeat(257)] {
            assert!(!is_nonce(wrong), "{wrong:?}");
        }
    }
}
