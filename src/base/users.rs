//! The users file as data: who may authenticate, what is kept of their passwords
//! and certificates, and which senders are theirs. A line each:
//!
//! ```text
//! ringpost-users 1 decoy=BASE64
//! alice@example.org password=$argon2id$... scram=SCRAM-SHA-256$... sender=@example.org
//! meter7 certificate=sha256:HEX sender=meter7@example.org disabled
//! ```
//!
//! The first line names the format, and holds the secret from which keys of names
//! that nobody has are made up: so they are the same at every start, as real ones
//! are. Empty lines and lines that begin with `#` are kept.
//!
//! Written by `ringpost user`, read by the server. No password is in it, only what
//! was hashed from one.

use std::collections::HashSet;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::scram::ScramKeys;

/// What the first line begins with.
const HEAD: &str = "ringpost-users 1";
/// Longest name, in octets.
pub const NAME_MAX: usize = 255;
/// Octets of the secret in the first line.
pub const DECOY_LEN: usize = 32;

/// Which senders a user may write in MAIL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sender {
    /// This address.
    Address(String),
    /// Every address of this domain, written `@example.org`.
    Domain(String),
    /// Every address, written `*`.
    Any,
}

impl Sender {
    /// Reads `address`, `@domain` or `*`; in lower case.
    pub fn parse(text: &str) -> Option<Sender> {
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return None;
        }
        match text.rsplit_once('@') {
            None => (text == "*").then_some(Sender::Any),
            Some((_, "")) => None,
            Some(("", domain)) => Some(Sender::Domain(domain_form(domain))),
            Some((local, domain)) => {
                let local = local.to_lowercase();
                Some(Sender::Address(format!("{local}@{}", domain_form(domain))))
            }
        }
    }

    /// Whether `address` is meant. Case does not matter, nor whether a domain is
    /// written in Unicode.
    pub fn matches(&self, address: &str) -> bool {
        let Some((local, domain)) = address.rsplit_once('@') else { return false };
        let domain = domain_form(domain);
        match self {
            Sender::Any => true,
            Sender::Domain(own) => *own == domain,
            Sender::Address(own) => own.rsplit_once('@') == Some((&local.to_lowercase(), &*domain)),
        }
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sender::Address(address) => f.write_str(address),
            Sender::Domain(domain) => write!(f, "@{domain}"),
            Sender::Any => f.write_str("*"),
        }
    }
}

/// A domain as it is compared: as in DNS, in lower case.
fn domain_form(domain: &str) -> String {
    idna::domain_to_ascii(domain).unwrap_or_else(|_| domain.to_lowercase())
}

/// What names a client's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Certificate {
    /// The SHA-256 hash of the certificate, written `sha256:` and 64 hexadecimal
    /// digits.
    Sha256([u8; 32]),
    /// A mail address in a certificate that was verified, written `mail:address`.
    Mail(String),
}

impl Certificate {
    /// Reads the written form; colons between digits may stand.
    pub fn parse(text: &str) -> Option<Certificate> {
        if let Some(address) = text.strip_prefix("mail:") {
            let is_address = matches!(Sender::parse(address), Some(Sender::Address(_)));
            return is_address.then(|| Certificate::Mail(address.to_lowercase()));
        }
        let digits: Vec<u8> =
            text.strip_prefix("sha256:")?.bytes().filter(|&byte| byte != b':').collect();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut hash = [0; 32];
        for (octet, pair) in hash.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).ok()?;
            *octet = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(Certificate::Sha256(hash))
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Certificate::Mail(address) => write!(f, "mail:{address}"),
            Certificate::Sha256(hash) => {
                f.write_str("sha256:")?;
                hash.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
            }
        }
    }
}

/// One user.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The name, prepared and in lower case.
    pub name: String,
    /// The password's hash, as a PHC string of Argon2id.
    pub password: Option<String>,
    /// The password's keys for SCRAM.
    pub scram: Option<ScramKeys>,
    /// Certificates that show that it is this user.
    pub certificates: Vec<Certificate>,
    /// Its senders.
    pub senders: Vec<Sender>,
    /// May not authenticate.
    pub disabled: bool,
}

impl User {
    /// A user without anything.
    pub fn new(name: String) -> User {
        User {
            name,
            password: None,
            scram: None,
            certificates: Vec::new(),
            senders: Vec::new(),
            disabled: false,
        }
    }

    /// Whether mail from `sender` is this user's. The null sender is everybody's:
    /// it is what notices about mail are sent with.
    pub fn owns(&self, sender: &str) -> bool {
        sender.is_empty() || self.senders.iter().any(|own| own.matches(sender))
    }

    /// Reads one line.
    fn parse(line: &str) -> Result<User, String> {
        let mut words = line.split_ascii_whitespace();
        let name = words.next().ok_or("is empty")?;
        check_name(name)?;
        let mut user = User::new(name.into());
        for word in words {
            user.take(word)?;
        }
        Ok(user)
    }

    fn take(&mut self, word: &str) -> Result<(), String> {
        let unread = |what: &str| format!("{what} is not in the form that `ringpost user` writes");
        match word.split_once('=') {
            None if word == "disabled" => self.disabled = true,
            Some(("password", hash)) if self.password.is_none() => {
                let is_hash = hash.starts_with("$argon2id$")
                    && argon2::PasswordHash::new(hash).is_ok_and(|hash| hash.hash.is_some());
                self.password = Some(hash.to_owned());
                return if is_hash { Ok(()) } else { Err(unread("password")) };
            }
            Some(("scram", keys)) if self.scram.is_none() => {
                self.scram = Some(ScramKeys::parse(keys).ok_or_else(|| unread("scram"))?);
            }
            Some(("certificate", text)) => {
                let certificate = Certificate::parse(text).ok_or_else(|| unread("certificate"))?;
                self.certificates.push(certificate);
            }
            Some(("sender", text)) => {
                self.senders.push(Sender::parse(text).ok_or_else(|| unread("sender"))?);
            }
            Some((key @ ("password" | "scram"), _)) => return Err(format!("{key} is there twice")),
            Some((key, _)) => return Err(format!("there is no `{key}=`")),
            None => return Err("there is a word that means nothing".into()),
        }
        Ok(())
    }
}

impl fmt::Display for User {
    /// The line, without its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(hash) = &self.password {
            write!(f, " password={hash}")?;
        }
        if let Some(keys) = &self.scram {
            write!(f, " scram={keys}")?;
        }
        self.certificates.iter().try_for_each(|item| write!(f, " certificate={item}"))?;
        self.senders.iter().try_for_each(|item| write!(f, " sender={item}"))?;
        if self.disabled { f.write_str(" disabled") } else { Ok(()) }
    }
}

impl fmt::Debug for User {
    /// Without hashes: who reads a log is not to try passwords against them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Whether a prepared name can stand in the file.
///
/// # Errors
/// In words.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(format!("a name has 1 to {NAME_MAX} octets"));
    }
    if name.starts_with('#') || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("a name holds no blanks and no control characters, and begins with no #".into());
    }
    if name.to_lowercase() != name {
        return Err("names are in lower case".into());
    }
    Ok(())
}

/// A fault of a users file: its line, from 1, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
}

/// A line of the file behind the first.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    Kept(String),
    User(User),
}

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsersFile {
    /// The secret of made-up keys.
    decoy: [u8; DECOY_LEN],
    lines: Vec<Line>,
}

impl UsersFile {
    /// A file without users; `decoy` is random.
    pub fn new(decoy: [u8; DECOY_LEN]) -> UsersFile {
        UsersFile { decoy, lines: Vec::new() }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Every line that is wrong.
    pub fn parse(text: &str) -> Result<UsersFile, Vec<BadLine>> {
        let mut faults = Vec::new();
        // An editor may have left CR before the line ends; the last may have none.
        let mut lines = text.lines().map(|line| line.trim_end_matches('\r'));
        let decoy = lines.next().and_then(decoy_of).unwrap_or_else(|| {
            let problem =
                format!("does not begin with `{HEAD} decoy=...`: made by `ringpost user`?");
            faults.push(BadLine { line: 1, problem });
            [0; DECOY_LEN]
        });
        let mut file = UsersFile::new(decoy);
        let (mut names, mut certificates) = (HashSet::new(), HashSet::new());
        for (index, text) in lines.enumerate() {
            let mut fault = |problem| faults.push(BadLine { line: index + 2, problem });
            if text.trim().is_empty() || text.starts_with('#') {
                file.lines.push(Line::Kept(text.into()));
                continue;
            }
            match User::parse(text) {
                Err(problem) => fault(problem),
                Ok(user) if !names.insert(user.name.clone()) => {
                    fault(format!("{} is there twice", user.name));
                }
                Ok(user) => {
                    for certificate in &user.certificates {
                        if !certificates.insert(certificate.clone()) {
                            fault(format!("{certificate} is a certificate of two users"));
                        }
                    }
                    file.lines.push(Line::User(user));
                }
            }
        }
        if faults.is_empty() { Ok(file) } else { Err(faults) }
    }

    /// The secret of made-up keys.
    pub fn decoy(&self) -> &[u8; DECOY_LEN] {
        &self.decoy
    }

    /// The users, in the order of the file.
    pub fn users(&self) -> impl Iterator<Item = &User> {
        self.lines.iter().filter_map(|line| match line {
            Line::User(user) => Some(user),
            Line::Kept(_) => None,
        })
    }

    /// The user of this name.
    pub fn user_mut(&mut self, name: &str) -> Option<&mut User> {
        self.lines.iter_mut().find_map(|line| match line {
            Line::User(user) if user.name == name => Some(user),
            _ => None,
        })
    }

    /// Puts `user` at the end.
    pub fn add(&mut self, user: User) {
        self.lines.push(Line::User(user));
    }

    /// Takes the user of this name out; false if there is none.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.lines.len();
        self.lines.retain(|line| !matches!(line, Line::User(user) if user.name == name));
        self.lines.len() < before
    }
}

/// The secret of the first line.
fn decoy_of(line: &str) -> Option<[u8; DECOY_LEN]> {
    let text = line.strip_prefix(HEAD)?.strip_prefix(" decoy=")?;
    BASE64.decode(text.trim_end()).ok()?.try_into().ok()
}

impl fmt::Display for UsersFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEAD} decoy={}", BASE64.encode(self.decoy))?;
        self.lines.iter().try_for_each(|line| match line {
            Line::Kept(text) => writeln!(f, "{text}"),
            Line::User(user) => writeln!(f, "{user}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$\
                        WVfeBRKYKTCVkJlXPeKZnKmQLQ3jZ9+x5ybB6Co4hnA";

    fn file(lines: &str) -> String {
        format!("{HEAD} decoy={}\n{lines}", BASE64.encode([7; DECOY_LEN]))
    }

    #[test]
    fn what_is_written_is_read_again_with_comments() {
        let scram = format!("SCRAM-SHA-256$4096:AAAA${0}:{0}", BASE64.encode([1; 32]));
        let certificate = "ab".repeat(32);
        let text = file(&format!(
            "# people\nalice@a.example password={HASH} scram={scram} sender=@a.example\n\n\
             meter certificate=sha256:{certificate} certificate=mail:m@a.example sender=* disabled\n"
        ));
        let users = UsersFile::parse(&text).unwrap();
        assert_eq!(users.to_string(), text);
        assert_eq!(users.decoy(), &[7; DECOY_LEN]);
        let names: Vec<_> = users.users().map(|user| (&*user.name, user.disabled)).collect();
        assert_eq!(names, [("alice@a.example", false), ("meter", true)]);
        assert!(!format!("{users:?}").contains("argon2id"), "{users:?}");
    }

    #[test]
    fn line_ends_of_another_kind_are_left_out() {
        let text = file("# a\r\n\r\r\n\r");
        let read = UsersFile::parse(&text).unwrap();
        assert!(!read.to_string().contains('\r'));
        assert_eq!(UsersFile::parse(&read.to_string()), Ok(read));
    }

    #[test]
    fn users_are_changed_in_their_place() {
        let mut users = UsersFile::parse(&file("a sender=*\n# note\nb sender=*\n")).unwrap();
        users.user_mut("a").unwrap().disabled = true;
        users.add(User::new("c".into()));
        assert!(users.remove("b") && !users.remove("b"));
        assert_eq!(users.to_string(), file("a sender=* disabled\n# note\nc\n"));
        assert!(users.user_mut("b").is_none());
    }

    #[test]
    fn every_wrong_line_is_named() {
        let wrong = "\u{e4} \u{c4}\nA sender=*\na sender=x\nb sender=*\nb sender=*\nc password=x\n\
                     d scram=x\ne certificate=x\nf what\ng mail=x\nh password=$argon2id$\n";
        let faults = UsersFile::parse(&file(wrong)).unwrap_err();
        let lines: Vec<usize> = faults.iter().map(|fault| fault.line).collect();
        assert_eq!(lines, [2, 3, 4, 6, 7, 8, 9, 10, 11, 12], "{faults:?}");
        for head in ["", "\n", "ringpost-users 2 decoy=", "alice sender=*\n"] {
            assert_eq!(UsersFile::parse(head).unwrap_err()[0].line, 1, "{head:?}");
        }
        let twice = "a certificate=mail:x@y sender=*\nb certificate=mail:X@y sender=*\n";
        assert_eq!(UsersFile::parse(&file(twice)).unwrap_err()[0].line, 3);
    }

    #[test]
    fn senders_are_compared_as_people_write_them() {
        let user = |senders: &[&str]| User {
            senders: senders.iter().map(|text| Sender::parse(text).unwrap()).collect(),
            ..User::new("u".into())
        };
        let alice = user(&["Alice@A.example", "@b\u{fc}cher.example"]);
        for own in [
            "",
            "alice@a.example",
            "ALICE@a.EXAMPLE",
            "x@xn--bcher-kva.example",
            "y@B\u{dc}CHER.example",
        ] {
            assert!(alice.owns(own), "{own}");
        }
        for other in [
            "bob@a.example",
            "alice@b.example",
            "alice@sub.a.example",
            "alice",
            "x@b.example",
            "\"alice@a.example\"@c.example",
        ] {
            assert!(!alice.owns(other), "{other}");
        }
        assert!(user(&["*"]).owns("who@ever.example"));
        assert!(user(&[]).owns("") && !user(&[]).owns("u@a.example"));
        for wrong in ["", "alice", "a@", "@", "a b@c", "a\n@c", "**"] {
            assert_eq!(Sender::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn fingerprints_may_have_colons() {
        let plain = Certificate::parse(&format!("sha256:{}", "0A".repeat(32))).unwrap();
        let colons = Certificate::parse(&format!("sha256:0a{}", ":0A".repeat(31))).unwrap();
        assert_eq!(plain, colons);
        assert_eq!(plain.to_string(), format!("sha256:{}", "0a".repeat(32)));
        for wrong in
            ["sha256:", "sha1:00", "mail:x", "mail:@y", &format!("sha256:{}", "+1".repeat(32))]
        {
            assert_eq!(Certificate::parse(wrong), None, "{wrong}");
        }
    }
}
