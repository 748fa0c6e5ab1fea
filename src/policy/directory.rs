//! Who a client is, and what senders are theirs. [`Users`] is where users come
//! from; [`Directory`] is the one that the users file fills.
//!
//! Called on helper threads, never on a shard: a password takes tens of
//! milliseconds to check, and another source may have to ask somebody.
//!
//! Security: a name that nobody has, one that is disabled and one without a
//! password cost as much as any other, and look the same: one hash is computed
//! for each password ([`check_password`]), and SCRAM goes on with keys made up of
//! the name and a secret ([`keys_of`]).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use crate::base::scram::{ITERATIONS, SALT_LEN, ScramKeys};
use crate::base::users::{Certificate, DECOY_LEN, User, UsersFile};
use crate::policy::password;
use crate::proto::sasl::prepared_name;

/// Why users cannot be asked, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable(pub String);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A source of users. May block.
pub trait Users: Send + Sync {
    /// The user of this name, which is prepared.
    ///
    /// # Errors
    /// When it cannot be told now.
    fn by_name(&self, name: &str) -> Result<Option<Arc<User>>, Unavailable>;

    /// The user whose certificate this is.
    ///
    /// # Errors
    /// When it cannot be told now.
    fn by_certificate(&self, certificate: &Certificate) -> Result<Option<Arc<User>>, Unavailable>;

    /// The secret from which keys of unknown names are made.
    fn decoy(&self) -> &[u8; DECOY_LEN];
}

/// The users of a users file.
#[derive(Debug)]
pub struct Directory {
    by_name: HashMap<String, Arc<User>>,
    by_certificate: HashMap<Certificate, Arc<User>>,
    decoy: [u8; DECOY_LEN],
}

impl Directory {
    /// Those of `file`.
    pub fn new(file: &UsersFile) -> Directory {
        let mut directory = Directory {
            by_name: HashMap::new(),
            by_certificate: HashMap::new(),
            decoy: *file.decoy(),
        };
        for user in file.users() {
            let user = Arc::new(user.clone());
            for certificate in &user.certificates {
                directory.by_certificate.insert(certificate.clone(), Arc::clone(&user));
            }
            directory.by_name.insert(user.name.clone(), user);
        }
        directory
    }

    /// Number of users.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// True without users.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

impl Users for Directory {
    fn by_name(&self, name: &str) -> Result<Option<Arc<User>>, Unavailable> {
        Ok(self.by_name.get(name).cloned())
    }

    fn by_certificate(&self, certificate: &Certificate) -> Result<Option<Arc<User>>, Unavailable> {
        Ok(self.by_certificate.get(certificate).cloned())
    }

    fn decoy(&self) -> &[u8; DECOY_LEN] {
        &self.decoy
    }
}

/// What is checked when there is no hash to check.
static NOBODYS: LazyLock<String> =
    LazyLock::new(|| password::hash("nobody's", &[0; password::SALT_LEN]));

/// Who has this name and password; `asked` is `None` for what nobody can have.
/// Computes one hash in any case.
///
/// # Errors
/// When it cannot be told now.
pub fn check_password(
    users: &dyn Users,
    asked: Option<(&str, &str)>,
) -> Result<Option<Arc<User>>, Unavailable> {
    check_with(users, asked, password::verify)
}

fn check_with(
    users: &dyn Users,
    asked: Option<(&str, &str)>,
    verify: impl Fn(&str, &str) -> bool,
) -> Result<Option<Arc<User>>, Unavailable> {
    let (name, password) = asked.unwrap_or_default();
    let user = active(users.by_name(name)?);
    let hash = user.as_ref().and_then(|user| user.password.as_deref());
    let is_right = verify(hash.unwrap_or(&NOBODYS), password);
    Ok(user.filter(|user| user.password.is_some() && is_right))
}

/// The keys of this name for SCRAM, and who has them: made up, and nobody, for a
/// name that cannot authenticate so.
///
/// # Errors
/// When it cannot be told now.
pub fn keys_of(
    users: &dyn Users,
    name: Option<&str>,
) -> Result<(ScramKeys, Option<Arc<User>>), Unavailable> {
    let made_up = decoy_keys(users.decoy(), name.unwrap_or_default());
    let user = active(users.by_name(name.unwrap_or_default())?);
    Ok(match user.as_ref().and_then(|user| user.scram.clone()) {
        Some(keys) => (keys, user),
        None => (made_up, None),
    })
}

/// Whose certificate it is: the first of its names that somebody has. If
/// `named`, it has to be that user; the outer `None` is for a name that nobody
/// can have.
///
/// # Errors
/// When it cannot be told now.
pub fn check_certificate(
    users: &dyn Users,
    certificates: &[Certificate],
    named: Option<Option<&str>>,
) -> Result<Option<Arc<User>>, Unavailable> {
    let Some(named) = named else { return Ok(None) };
    for certificate in certificates {
        if let Some(user) = active(users.by_certificate(certificate)?) {
            return Ok(Some(user).filter(|user| named.is_none_or(|name| name == user.name)));
        }
    }
    Ok(None)
}

/// The user whom a trusted peer has authenticated by this name, prepared or not.
///
/// # Errors
/// When it cannot be told now.
pub fn named(users: &dyn Users, name: &str) -> Result<Option<Arc<User>>, Unavailable> {
    let Some(name) = prepared_name(name) else { return Ok(None) };
    Ok(active(users.by_name(&name)?))
}

fn active(user: Option<Arc<User>>) -> Option<Arc<User>> {
    user.filter(|user| !user.disabled)
}

/// Keys of the usual form that no password has: the same for the same name at
/// every attempt.
fn decoy_keys(secret: &[u8; DECOY_LEN], name: &str) -> ScramKeys {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
    let part = |label: &str| -> [u8; 32] {
        let tag = aws_lc_rs::hmac::sign(&key, format!("{label}\0{name}").as_bytes());
        tag.as_ref().try_into().expect("SHA-256 has 32 octets")
    };
    ScramKeys {
        salt: part("salt")[..SALT_LEN].into(),
        iterations: ITERATIONS,
        stored_key: part("stored"),
        server_key: part("server"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn users() -> Directory {
        let mut file = UsersFile::new([7; DECOY_LEN]);
        let mail = Certificate::Mail("alice@a.example".into());
        file.add(User {
            password: Some("hash of alice".into()),
            scram: Some(decoy_keys(&[1; DECOY_LEN], "alice")),
            certificates: vec![Certificate::Sha256([1; 32]), mail],
            ..User::new("alice".into())
        });
        file.add(User {
            password: Some("hash of bob".into()),
            scram: Some(decoy_keys(&[1; DECOY_LEN], "bob")),
            certificates: vec![Certificate::Sha256([2; 32])],
            disabled: true,
            ..User::new("bob".into())
        });
        file.add(User::new("device".into()));
        Directory::new(&file)
    }

    fn name_of(user: Option<Arc<User>>) -> Option<String> {
        user.map(|user| user.name.clone())
    }

    #[test]
    fn every_attempt_costs_one_hash() {
        let users = users();
        for (asked, user, hash) in [
            (Some(("alice", "right")), Some("alice"), "hash of alice"),
            (Some(("alice", "wrong")), None, "hash of alice"),
            (Some(("bob", "right")), None, &**NOBODYS),
            (Some(("device", "right")), None, &**NOBODYS),
            (Some(("nobody", "right")), None, &**NOBODYS),
            (None, None, &**NOBODYS),
        ] {
            let computed = RefCell::new(Vec::new());
            let found = check_with(&users, asked, |hash, password| {
                computed.borrow_mut().push(hash.to_owned());
                password == "right"
            });
            assert_eq!(name_of(found.unwrap()).as_deref(), user, "{asked:?}");
            assert_eq!(computed.take(), [hash], "{asked:?}");
        }
    }

    #[test]
    fn made_up_keys_look_like_real_ones_and_stay() {
        let users = users();
        let (real, user) = keys_of(&users, Some("alice")).unwrap();
        assert_eq!(name_of(user).as_deref(), Some("alice"));
        for name in [Some("bob"), Some("device"), Some("nobody"), None] {
            let (keys, user) = keys_of(&users, name).unwrap();
            assert_eq!(user, None);
            assert_eq!((keys.salt.len(), keys.iterations), (real.salt.len(), real.iterations));
            assert_eq!(keys_of(&users, name).unwrap().0, keys, "the same again");
            assert_ne!(keys.salt, real.salt);
        }
        let salt = |name| keys_of(&users, Some(name)).unwrap().0.salt;
        assert_ne!(salt("nobody"), salt("nobody2"));
    }

    #[test]
    fn certificates_name_users() {
        let users = users();
        let whose = |certificates: &[Certificate], named| {
            name_of(check_certificate(&users, certificates, named).unwrap())
        };
        let alice = [Certificate::Sha256([1; 32])];
        assert_eq!(whose(&alice, Some(None)).as_deref(), Some("alice"));
        assert_eq!(whose(&alice, Some(Some("alice"))).as_deref(), Some("alice"));
        assert_eq!(whose(&alice, Some(Some("bob"))), None);
        assert_eq!(whose(&alice, None), None);
        let unknown = Certificate::Sha256([9; 32]);
        let mail = Certificate::Mail("alice@a.example".into());
        assert_eq!(whose(&[unknown.clone(), mail], Some(None)).as_deref(), Some("alice"));
        assert_eq!(whose(&[unknown], Some(None)), None);
        assert_eq!(whose(&[Certificate::Sha256([2; 32])], Some(None)), None, "disabled");
        assert_eq!(whose(&[], Some(None)), None);
    }

    #[test]
    fn the_hash_of_nobody_costs_as_much_as_others() {
        let costs = |hash: &str| hash.rsplitn(3, '$').last().unwrap().to_owned();
        assert_eq!(costs(&NOBODYS), costs(&password::hash("x", &[1; password::SALT_LEN])));
    }
}
