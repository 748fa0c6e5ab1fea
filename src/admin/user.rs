//! `ringpost user`: keeps the users file. The server sees a change within
//! seconds and needs no signal.
//!
//! A change is written to a new file that takes the old one's place, under a lock,
//! so that two of these at once lose nothing, and a crash leaves one or the other.
//! Passwords are read from the terminal, unseen, or from standard input; what is
//! kept is hashed.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::cli::ConfigArgs;
use super::failure::Failure;
use super::users;
use crate::base::scram::{self, ITERATIONS};
use crate::base::users::{Certificate, Sender, User, UsersFile, check_name};
use crate::config::Config;
use crate::io::{process, random};
use crate::policy::password;
use crate::proto::sasl::{derive_keys, prepared_name, prepared_password};

/// Options of `ringpost user`.
#[derive(Debug, Args)]
pub struct UserArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add a user
    Add {
        /// The name; one that is an address may send as that address
        name: String,
        #[command(flatten)]
        secret: SecretArgs,
        #[command(flatten)]
        more: MoreArgs,
        #[command(flatten)]
        source: ConfigArgs,
    },
    /// Give a user another password
    Passwd {
        /// The name
        name: String,
        #[command(flatten)]
        secret: SecretArgs,
        #[command(flatten)]
        source: ConfigArgs,
    },
    /// Change a user's senders, certificates, or whether it may authenticate
    Set {
        /// The name
        name: String,
        #[command(flatten)]
        more: MoreArgs,
        /// Let the user authenticate again
        #[arg(long, conflicts_with = "disable")]
        enable: bool,
        #[command(flatten)]
        source: ConfigArgs,
    },
    /// List the users
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        source: ConfigArgs,
    },
    /// Remove a user
    Remove {
        /// The name
        name: String,
        #[command(flatten)]
        source: ConfigArgs,
    },
}

/// Where the password comes from.
#[derive(Debug, Args)]
struct SecretArgs {
    /// Read the password from standard input: its first line
    #[arg(long)]
    password_stdin: bool,
    /// No password: the user authenticates by certificate only
    #[arg(long, conflicts_with = "password_stdin")]
    no_password: bool,
}

/// What else is known of a user; each list given replaces the one there was.
#[derive(Debug, Args)]
struct MoreArgs {
    /// A sender that is the user's: an address, @domain, or * for any; may be
    /// repeated
    #[arg(long = "sender", value_name = "SENDER", value_parser = sender)]
    senders: Vec<Sender>,
    /// A client certificate that is the user's: sha256:HEX, or mail:ADDRESS for an
    /// address in a certificate that auth's authority has signed; may be repeated
    #[arg(long = "certificate", value_name = "CERTIFICATE", value_parser = certificate)]
    certificates: Vec<Certificate>,
    /// Let the user not authenticate
    #[arg(long)]
    disable: bool,
}

fn sender(text: &str) -> Result<Sender, String> {
    Sender::parse(text).ok_or_else(|| "write an address, @domain or *".into())
}

fn certificate(text: &str) -> Result<Certificate, String> {
    Certificate::parse(text)
        .ok_or_else(|| "write sha256: and 64 hexadecimal digits, or mail:address".into())
}

/// Runs one command; what it lists goes to `out`.
///
/// # Errors
/// Wrong use, a users file that cannot be read or written, no such user.
pub fn run(args: &UserArgs, out: &mut impl Write) -> Result<(), Failure> {
    match &args.action {
        Action::Add { name, secret, more, source } => add(name, secret, more, source),
        Action::Passwd { name, secret, source } => {
            let secret = secret.read()?;
            change(source, name, |user| {
                secret.put(user);
                Ok(())
            })
        }
        Action::Set { name, more, enable, source } => {
            if more.senders.is_empty() && more.certificates.is_empty() && !more.disable && !enable {
                return Err(Failure::usage(
                    "nothing to set; give --sender, --certificate, --disable or --enable",
                ));
            }
            change(source, name, |user| {
                more.put(user);
                user.disabled &= !enable;
                Ok(())
            })
        }
        Action::List { json, source } => list(source, *json, out),
        Action::Remove { name, source } => {
            let name = known_form(name)?;
            edit(source, |file, _| if file.remove(&name) { Ok(()) } else { Err(unknown(&name)) })
        }
    }
}

fn add(
    name: &str,
    secret: &SecretArgs,
    more: &MoreArgs,
    source: &ConfigArgs,
) -> Result<(), Failure> {
    let name = known_form(name)?;
    check_name(&name).map_err(|problem| Failure::usage(format!("{name:?}: {problem}")))?;
    if secret.no_password && more.certificates.is_empty() {
        return Err(Failure::usage("a user without a password needs a --certificate"));
    }
    let secret = secret.read()?;
    edit(source, |file, config| {
        if file.user_mut(&name).is_some() {
            return Err(Failure::runtime(format!(
                "there is a user {name} already; see `ringpost user passwd` and `set`"
            )));
        }
        let mut user = User::new(name.clone());
        secret.put(&mut user);
        more.put(&mut user);
        if user.senders.is_empty() {
            let own = match name.contains('@') {
                true => name.clone(),
                false => format!("{name}@{}", config.hostname),
            };
            user.senders.extend(Sender::parse(&own));
        }
        file.add(user);
        Ok(())
    })
}

fn change(
    source: &ConfigArgs,
    name: &str,
    change: impl FnOnce(&mut User) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let name = known_form(name)?;
    edit(source, |file, _| change(file.user_mut(&name).ok_or_else(|| unknown(&name))?))
}

fn list(source: &ConfigArgs, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let config = source.load()?;
    let file = users::read(users_path(&config)?).map_err(Failure::runtime)?;
    let texts = |items: &[Sender]| items.iter().map(Sender::to_string).collect::<Vec<_>>();
    let mut text = String::new();
    for user in file.users() {
        let certificates: Vec<_> = user.certificates.iter().map(ToString::to_string).collect();
        if json {
            let line = serde_json::json!({
                "name": user.name,
                "senders": texts(&user.senders),
                "certificates": certificates,
                "password": user.password.is_some(),
                "disabled": user.disabled,
            });
            text.push_str(&format!("{line}\n"));
        } else {
            text.push_str(&format!("{}  {}", user.name, texts(&user.senders).join(" ")));
            let count = certificates.len();
            if count > 0 {
                text.push_str(&format!(
                    "  ({count} certificate{})",
                    if count == 1 { "" } else { "s" }
                ));
            }
            text.push_str(if user.disabled { "  disabled\n" } else { "\n" });
        }
    }
    match out.write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::runtime(format!("cannot print the users: {error}")))
        }
        _ => Ok(()),
    }
}

/// What was hashed of a password.
struct Secret(Option<String>);

impl SecretArgs {
    /// Reads the password, prepared.
    fn read(&self) -> Result<Secret, Failure> {
        if self.no_password {
            return Ok(Secret(None));
        }
        let text = if self.password_stdin { first_line()? } else { from_terminal()? };
        let prepared = prepared_password(&text).ok_or_else(|| {
            Failure::usage("the password is empty, too long, or holds control characters")
        })?;
        Ok(Secret(Some(prepared.into_owned())))
    }
}

impl Secret {
    fn put(&self, user: &mut User) {
        user.password = self.0.as_ref().map(|text| password::hash(text, &random::octets()));
        let salt: [u8; scram::SALT_LEN] = random::octets();
        user.scram = self.0.as_ref().map(|text| derive_keys(text, &salt, ITERATIONS));
    }
}

impl MoreArgs {
    fn put(&self, user: &mut User) {
        if !self.senders.is_empty() {
            user.senders.clone_from(&self.senders);
        }
        if !self.certificates.is_empty() {
            user.certificates.clone_from(&self.certificates);
        }
        user.disabled |= self.disable;
    }
}

fn first_line() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().lock().read_line(&mut text);
    read.map_err(|error| Failure::runtime(format!("cannot read the password: {error}")))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn from_terminal() -> Result<String, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("no terminal to ask for the password; give --password-stdin"));
    }
    let ask = |prompt: &str| {
        // Without standard error the question is not seen; the answer is read.
        let _ = write!(std::io::stderr(), "{prompt}: ");
        let text = process::unseen(first_line);
        let _ = writeln!(std::io::stderr());
        text.map_err(|error| Failure::runtime(format!("cannot ask for the password: {error}")))?
    };
    let text = ask("Password")?;
    if ask("Once more")? != text {
        return Err(Failure::usage("the two are not the same"));
    }
    Ok(text)
}

/// The form by which a user is known.
fn known_form(name: &str) -> Result<String, Failure> {
    prepared_name(name).ok_or_else(|| {
        Failure::usage(format!("{name:?} holds characters that no name may hold, or none at all"))
    })
}

fn unknown(name: &str) -> Failure {
    Failure::runtime(format!("there is no user {name}"))
}

fn users_path(config: &Config) -> Result<&Path, Failure> {
    config.auth.users.as_deref().ok_or_else(|| {
        Failure::usage("auth.users is not set: name the users file in the configuration")
    })
}

/// Changes the users file, or makes it.
fn edit(
    source: &ConfigArgs,
    change: impl FnOnce(&mut UsersFile, &Config) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let config = source.load()?;
    let path = users_path(&config)?;
    // A link is followed, so that the file that it names is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let _lock = Lock::take(&path)?;
    let mut file = match fs::exists(&path) {
        Ok(false) => UsersFile::new(random::octets()),
        _ => users::read(&path).map_err(Failure::runtime)?,
    };
    change(&mut file, &config)?;
    replace(&path, &file.to_string())
        .map_err(|error| Failure::runtime(format!("cannot write {}: {error}", path.display())))
}

/// Holds the lock on a file beside the users file.
struct Lock {
    _file: File,
}

impl Lock {
    fn take(path: &Path) -> Result<Lock, Failure> {
        let name = beside(path, ".lock");
        let fails = |error| Failure::runtime(format!("cannot lock {}: {error}", name.display()));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&name)
            .map_err(fails)?;
        file.lock().map_err(fails)?;
        Ok(Lock { _file: file })
    }
}

/// Puts `text` in the place of the file, whole and on stable storage, its mode
/// and owner as they were, 0600 for a new one.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let draft = beside(path, ".new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    if let Ok(old) = fs::metadata(path) {
        use std::os::unix::fs::MetadataExt;
        file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
        // Root keeps the file readable for the user that runs the server; others
        // own it anyway.
        let _ = std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()));
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))?
        .sync_all()
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        replace(&path, "one\n").unwrap();
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        replace(&path, "two\n").unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode()), ("two\n", 0o640));
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing is left behind");
    }

    #[test]
    fn what_is_kept_is_no_password() {
        let mut user = User::new("alice".into());
        Secret(Some("pencil".into())).put(&mut user);
        let line = user.to_string();
        assert!(!line.contains("pencil"), "{line}");
        assert!(password::verify(user.password.as_ref().unwrap(), "pencil"));
        let keys = user.scram.clone().unwrap();
        assert_eq!(derive_keys("pencil", &keys.salt, keys.iterations), keys);
        Secret(None).put(&mut user);
        assert_eq!((&user.password, &user.scram), (&None, &None));
    }
}
