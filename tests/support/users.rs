//! Users of a server under test, in a file.

use std::path::Path;

use ringpost::base::scram::ITERATIONS_MIN;
use ringpost::base::users::{Certificate, Sender, User, UsersFile};
use ringpost::policy::password;
use ringpost::proto::sasl::derive_keys;

/// A user who may send as `sender`.
pub fn user(name: &str, secret: &str, sender: &str) -> User {
    let rounds = ITERATIONS_MIN.try_into().unwrap();
    User {
        password: Some(password::hash(secret, &[7; password::SALT_LEN])),
        scram: Some(derive_keys(secret, b"salt of a user", rounds)),
        senders: vec![Sender::parse(sender).unwrap()],
        ..User::new(name.into())
    }
}

/// Writes a file of users.
pub fn write_users(path: &Path, users: Vec<User>) {
    let mut file = UsersFile::new([9; 32]);
    users.into_iter().for_each(|user| file.add(user));
    std::fs::write(path, file.to_string()).unwrap();
}

/// What a certificate in PEM is known by.
pub fn fingerprint(pem: &Path) -> Certificate {
    let text = std::fs::read_to_string(pem).unwrap();
    let base64: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    let der = ringpost::proto::sasl::base64::decode(base64.as_bytes()).unwrap();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
    Certificate::Sha256(hash.as_ref().try_into().unwrap())
}
