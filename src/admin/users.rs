//! The users file of a running server: read at the start, when it changes, and
//! at each reload of the configuration. One that cannot be used leaves the old
//! one in force, and the log says why.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::failure::Failure;
use crate::base::users::UsersFile;
use crate::config::Config;
use crate::policy::directory::Directory;
use crate::receive::authority::Authority;

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    len: u64,
    changed: (i64, i64),
}

/// The authority on users, and the file that it answers from.
pub(super) struct WatchedUsers {
    authority: Arc<Authority>,
    seen: Mutex<Option<(PathBuf, Option<Stamp>)>>,
}

impl WatchedUsers {
    /// The authority of a server with this configuration.
    ///
    /// # Errors
    /// The users file cannot be read, or is wrong.
    pub(super) fn new(config: &Config) -> Result<WatchedUsers, Failure> {
        let users = WatchedUsers { authority: Arc::default(), seen: Mutex::new(None) };
        users.load(config).map_err(Failure::usage)?;
        Ok(users)
    }

    /// Who answers for users.
    pub(super) fn authority(&self) -> Arc<Authority> {
        Arc::clone(&self.authority)
    }

    /// Reads the file that `config` names.
    fn load(&self, config: &Config) -> Result<(), String> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = &config.auth.users else {
            *seen = None;
            return Ok(());
        };
        // The stamp first: a change while it is read is seen by the next look.
        *seen = Some((path.clone(), stamp(path)));
        drop(seen);
        let directory = Directory::new(&read(path)?);
        let count = directory.len();
        let set = self.authority.set_users(Arc::new(directory));
        set.map_err(|error| format!("the threads that check passwords: {error}"))?;
        tracing::info!(target: "ringpost", file = %path.display(), users = count, "read users");
        Ok(())
    }

    /// Reads the file again, whether it has changed or not.
    pub(super) fn reload(&self, config: &Config) {
        if let Err(problem) = self.load(config) {
            tracing::error!(target: "ringpost", "the users stay as they were: {problem}");
        }
    }

    /// Reads the file again if it has changed.
    pub(super) fn look(&self, config: &Config) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((path, known)) = seen
            && config.auth.users.as_ref() == Some(&path)
            && stamp(&path) != known
        {
            self.reload(config);
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs::metadata(path).ok()?;
    let changed = (meta.mtime(), meta.mtime_nsec());
    Some(Stamp { inode: meta.ino(), len: meta.len(), changed })
}

/// The users file at `path`.
///
/// # Errors
/// In words, with the path and the lines that are wrong.
pub(super) fn read(path: &Path) -> Result<UsersFile, String> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::NotFound => "; `ringpost user add` makes it",
            std::io::ErrorKind::PermissionDenied => {
                "; it must belong to the user that runs ringpost"
            }
            _ => "",
        };
        format!("cannot read auth.users {shown}: {error}{remedy}")
    })?;
    UsersFile::parse(&text).map_err(|faults| {
        let faults: Vec<String> = faults
            .iter()
            .map(|fault| format!("{shown}:{}: {}", fault.line, fault.problem))
            .collect();
        faults.join("\n")
    })
}

/// What an operator should know about the users file.
pub(super) fn warnings(path: &Path) -> Vec<String> {
    let mode = fs::metadata(path).map_or(0, |meta| meta.mode());
    let mut warnings = Vec::new();
    if mode & 0o077 != 0 {
        warnings.push(format!(
            "auth.users {} may be read by others than its owner, and passwords be guessed from \
             it: chmod 600",
            path.display()
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::policy::directory::Users;

    fn file(text: &str) -> (tempfile::TempDir, Config) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        fs::write(&path, text).unwrap();
        let mut config = Config::default();
        config.auth.users = Some(path);
        (folder, config)
    }

    fn written(users: &[&str]) -> String {
        let mut file = UsersFile::new([7; 32]);
        for name in users {
            file.add(crate::base::users::User::new((*name).into()));
        }
        file.to_string()
    }

    fn knows(users: &WatchedUsers, name: &str) -> bool {
        let source: Arc<dyn Users> = users.authority.users().expect("they were read");
        source.by_name(name).unwrap().is_some()
    }

    #[test]
    fn a_changed_file_is_read_and_a_broken_one_is_not() {
        let (_folder, config) = file(&written(&["alice"]));
        let path = config.auth.users.clone().unwrap();
        let users = WatchedUsers::new(&config).unwrap();
        assert!(knows(&users, "alice") && !knows(&users, "bob"));
        fs::write(&path, written(&["alice", "bob"])).unwrap();
        users.look(&config);
        assert!(knows(&users, "bob"));
        fs::write(&path, "nonsense").unwrap();
        users.look(&config);
        assert!(knows(&users, "bob"), "the old ones stay");
        fs::remove_file(&path).unwrap();
        users.look(&config);
        assert!(knows(&users, "bob"));
        fs::write(&path, written(&["carol"])).unwrap();
        users.look(&config);
        assert!(knows(&users, "carol") && !knows(&users, "bob"));
    }

    #[test]
    fn a_server_does_not_start_with_a_wrong_file() {
        let (_folder, mut config) = file("nonsense\nx y\n");
        let failure = WatchedUsers::new(&config).err().expect("it is wrong");
        assert!(failure.code == 2 && failure.message.contains("users:2: "), "{failure}");
        config.auth.users.as_mut().unwrap().push("x");
        config.auth.users = Some("/nonexistent/users".into());
        let failure = WatchedUsers::new(&config).err().expect("it is missing");
        assert!(failure.message.contains("ringpost user add"), "{failure}");
        config.auth.users = None;
        assert!(WatchedUsers::new(&config).is_ok());
    }

    #[test]
    fn a_file_that_others_may_read_is_warned_of() {
        let (_folder, config) = file("");
        let path = config.auth.users.unwrap();
        for (mode, count) in [(0o600, 0), (0o640, 1), (0o604, 1)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(warnings(&path).len(), count, "{mode:o}");
        }
    }
}
