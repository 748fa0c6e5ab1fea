//! What a server keeps of a password for SCRAM (RFC 5802, section 3): a salted
//! hash that lets it check a client's proof, and prove itself, without knowing
//! the password. Written as in RFC 5803.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

/// Octets of a SHA-256 hash.
pub const HASH_LEN: usize = 32;
/// A SHA-256 hash.
pub type Hash = [u8; HASH_LEN];

/// Iterations of new keys. RFC 7677 (section 4) asks for 4,096 at least and tells
/// of 15,000; each log-in costs the client this many, and a server nothing.
pub const ITERATIONS: NonZeroU32 = NonZeroU32::new(15_000).unwrap();
/// Fewest iterations that are taken (RFC 7677, section 4).
pub const ITERATIONS_MIN: u32 = 4096;
/// Octets of a new salt.
pub const SALT_LEN: usize = 16;

/// The keys of one user for SCRAM-SHA-256.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    /// The salt of the password.
    pub salt: Box<[u8]>,
    /// How often it was hashed.
    pub iterations: NonZeroU32,
    /// The hash of the client's key: checks proofs.
    pub stored_key: Hash,
    /// Proves the server to the client.
    pub server_key: Hash,
}

/// Prefix of the written form.
const SCHEME: &str = "SCRAM-SHA-256$";

impl ScramKeys {
    /// Reads `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`.
    pub fn parse(text: &str) -> Option<ScramKeys> {
        let (info, keys) = text.strip_prefix(SCHEME)?.split_once('$')?;
        let (iterations, salt) = info.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let iterations: NonZeroU32 = iterations.parse().ok()?;
        let salt = BASE64.decode(salt).ok().filter(|salt| !salt.is_empty())?;
        (iterations.get() >= ITERATIONS_MIN).then_some(ScramKeys {
            salt: salt.into(),
            iterations,
            stored_key: BASE64.decode(stored).ok()?.try_into().ok()?,
            server_key: BASE64.decode(server).ok()?.try_into().ok()?,
        })
    }
}

impl fmt::Display for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored, server] =
            [&*self.salt, &self.stored_key, &self.server_key].map(|octets| BASE64.encode(octets));
        write!(f, "{SCHEME}{}:{salt}${stored}:{server}", self.iterations)
    }
}

impl fmt::Debug for ScramKeys {
    /// Without the keys: they would let who reads a log pass for the server.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramKeys").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_form_is_read_again_and_nothing_else_is() {
        let keys = ScramKeys {
            salt: (*b"0123456789abcdef").into(),
            iterations: ITERATIONS,
            stored_key: [7; HASH_LEN],
            server_key: [9; HASH_LEN],
        };
        let text = keys.to_string();
        assert_eq!(ScramKeys::parse(&text), Some(keys.clone()));
        assert!(!format!("{keys:?}").contains("9, 9"), "{keys:?}");
        for wrong in [
            "",
            &text[1..],
            &text[..text.len() - 1],
            &text.replace("15000", "0"),
            &text.replace("15000", "4095"),
            &text.replace("15000", "-1"),
            &text.replace("SHA-256", "SHA-1"),
            &format!("{text}="),
        ] {
            assert_eq!(ScramKeys::parse(wrong), None, "{wrong}");
        }
    }
}
