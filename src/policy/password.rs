//! Hashes of passwords: Argon2id (RFC 9106) in PHC strings.
//!
//! Slow by intent, some tens of milliseconds and 19 MiB each: never called on a
//! shard.

use argon2::password_hash::{PasswordHasher, Salt};
use argon2::{Argon2, PasswordHash, PasswordVerifier};

/// Octets of a salt.
pub const SALT_LEN: usize = 16;

/// The hash of a prepared password; `salt` is random. The costs are those that
/// OWASP recommends (19 MiB, two passes, one lane), so that all hashes made here
/// take as long to check.
pub fn hash(password: &str, salt: &[u8; SALT_LEN]) -> String {
    let salt = argon2::password_hash::SaltString::encode_b64(salt).expect("16 octets are a salt");
    let salt: Salt<'_> = salt.as_salt();
    let hash = Argon2::default().hash_password(password.as_bytes(), salt);
    hash.expect("the default costs are in bounds").to_string()
}

/// Whether `password`, prepared, has this hash. Takes as long as making one.
pub fn verify(hash: &str, password: &str) -> bool {
    let Ok(hash) = PasswordHash::new(hash) else { return false };
    Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_for_one_password() {
        let made = hash("pencil", &[7; SALT_LEN]);
        assert!(made.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{made}");
        assert!(verify(&made, "pencil"));
        assert!(!verify(&made, "pencils") && !verify(&made, "") && !verify("", "pencil"));
        assert_ne!(made, hash("pencil", &[8; SALT_LEN]));
    }
}
