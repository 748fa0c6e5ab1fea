//! SCRAM-SHA-256 (RFC 5802, RFC 7677) as a client does it, written by the standard
//! and apart from ringpost's own.

use std::io::{Read, Write};
use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use ringpost::proto::sasl::base64::{decode, encode};

use super::tls::say;

/// The value of the attribute `key` of a message.
pub fn attribute<'a>(message: &'a str, key: &str) -> Option<&'a str> {
    message.split(',').find_map(|part| part.strip_prefix(key)?.strip_prefix('='))
}

/// A salted password.
pub struct Secret([u8; 32]);

impl Secret {
    /// As the server's first message asks for it.
    pub fn new(password: &str, server_first: &str) -> Option<Secret> {
        let salt = decode(attribute(server_first, "s")?.as_bytes())?;
        let rounds: NonZeroU32 = attribute(server_first, "i")?.parse().ok()?;
        let mut salted = [0; 32];
        let kind = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(kind, rounds, &salt, password.as_bytes(), &mut salted);
        Some(Secret(salted))
    }

    /// The client's proof, in base64, at the end of a conversation.
    pub fn proof(&self, said: &str) -> String {
        let key = mac(&self.0, b"Client Key");
        let stored = digest::digest(&digest::SHA256, &key);
        let signature = mac(stored.as_ref(), said.as_bytes());
        let proof: Vec<u8> = key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        encode(&proof)
    }

    /// The server's signature, in base64.
    pub fn signature(&self, said: &str) -> String {
        encode(&mac(&mac(&self.0, b"Server Key"), said.as_bytes()))
    }
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
}

/// Authenticates with the GS2 header `header` and the octets that it says the
/// exchange is bound to; the last reply. A server that says yes has proved itself.
pub fn authenticate(
    stream: &mut (impl Read + Write),
    (name, password): (&str, &str),
    mechanism: &str,
    (header, data): (&str, &[u8]),
) -> String {
    let bare = format!("n={name},r=a-nonce-of-the-test");
    let first = encode(format!("{header}{bare}").as_bytes());
    let answer = say(stream, &format!("AUTH {mechanism} {first}")).unwrap();
    let Some(challenge) = challenge(&answer) else { return answer };
    let nonce = attribute(&challenge, "r").unwrap();
    assert!(nonce.strip_prefix("a-nonce-of-the-test").is_some_and(|own| own.len() >= 24));
    let secret = Secret::new(password, &challenge).unwrap();
    let bound = encode(&[header.as_bytes(), data].concat());
    let without_proof = format!("c={bound},r={nonce}");
    let said = format!("{bare},{challenge},{without_proof}");
    let last = format!("{without_proof},p={}", secret.proof(&said));
    let answer = say(stream, &encode(last.as_bytes())).unwrap();
    let Some(verdict) = self::challenge(&answer) else { return answer };
    assert_eq!(verdict, format!("v={}", secret.signature(&said)), "the server proves itself");
    say(stream, "").unwrap()
}

/// What a 334 says.
pub fn challenge(line: &str) -> Option<String> {
    let text = decode(line.trim_end().strip_prefix("334 ")?.as_bytes())?;
    String::from_utf8(text).ok()
}
