//! The password files that routes name, read with the configuration. A file that
//! others may read is refused: a password that is not kept is none.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::error::ConfigError;
use super::secret::Secret;
use super::tree::Tree;
use super::types::Config;

/// Longest file that is read, in bytes.
const FILE_MAX: u64 = 4096;
/// Access for others than the owner.
const OTHERS: u32 = 0o077;

/// Reads all passwords into `config`. Returns what is wrong.
pub(super) fn read(config: &mut Config, tree: &Tree) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    for (index, route) in config.routes.iter_mut().enumerate() {
        let Some(login) = &mut route.login else { continue };
        match read_one(&login.password_file) {
            Ok(password) => login.password = Secret(password.into()),
            Err((problem, remedy)) => {
                let at = tree.locate(&["route", &index.to_string(), "password_file"]);
                let problem = format!("{}: {problem}", login.password_file.display());
                errors.push(tree.error(at, "route.password_file", problem, remedy.into()));
            }
        }
    }
    errors
}

/// The first line of a file.
fn read_one(path: &Path) -> Result<String, (String, &'static str)> {
    let unreadable = |error: io::Error| (format!("cannot be read: {error}"), "");
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    if mode & OTHERS != 0 {
        let problem =
            format!("others than its owner have access to it (mode {:04o})", mode & 0o7777);
        return Err((problem, "take it from them: chmod 600"));
    }
    let mut text = String::new();
    file.take(FILE_MAX).read_to_string(&mut text).map_err(unreadable)?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(("its first line is empty".into(), "write the password there"));
    }
    if line.contains(char::is_control) {
        return Err(("its first line holds a control character".into(), ""));
    }
    Ok(line.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    fn config(file: &Path, rest: &str) -> Result<Config, String> {
        let text = format!(
            "hostname = \"r.example\"\n[[listener]]\naddress = \"127.0.0.1:2525\"\n\
             [[route]]\ndomain = \"*\"\nnext_hop = \"hop.example\"\nuser = \"me\"\n\
             password_file = {file:?}\n{rest}"
        );
        Config::from_text("t.toml", &text, &[]).map_err(|errors| errors.to_string())
    }

    fn file(dir: &tempfile::TempDir, mode: u32, text: &str) -> PathBuf {
        let path = dir.path().join("password");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn the_first_line_is_the_password_and_is_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, 0o600, "open sesame\r\nmore\n");
        let config = config(&path, "tls = \"verified\"\n").unwrap();
        assert_eq!(&*config.routes[0].login.as_ref().unwrap().password.0, "open sesame");
        for printed in [config.to_toml(), config.to_json().to_string(), format!("{config:?}")] {
            assert!(printed.contains("me") && !printed.contains("sesame"), "{printed}");
        }
        assert_eq!(Config::from_text("t", &config.to_toml(), &[]).unwrap(), config);
    }

    #[test]
    fn files_that_others_may_read_are_refused_and_so_are_empty_ones() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, text, problem) in [
            (0o640, "x\n", "mode 0640"),
            (0o604, "x\n", "chmod 600"),
            (0o600, "\n", "first line is empty"),
            (0o600, "a\tb\n", "control character"),
        ] {
            let error = config(&file(&dir, mode, text), "tls = \"verified\"\n").unwrap_err();
            assert!(error.contains(problem) && error.contains("t.toml:8:"), "{error}");
        }
        let error = config(&dir.path().join("none"), "tls = \"verified\"\n").unwrap_err();
        assert!(error.contains("cannot be read"), "{error}");
    }

    #[test]
    fn credentials_need_tls_and_hosts() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, 0o600, "x\n");
        for rest in ["", "tls = \"optional\"\n", "tls = \"off\"\n"] {
            let error = config(&path, rest).unwrap_err();
            assert!(error.contains("over TLS only"), "{error}");
        }
        for rest in ["tls = \"required\"\n", "[delivery]\ntls = \"verified\"\n"] {
            config(&path, rest).unwrap();
        }
        for (hop, problem) in [("mx", "names none"), ("lmtp+unix:///run/x", "not for sockets")] {
            let text = config(&path, "tls = \"verified\"\n").unwrap().to_toml();
            let text = text.replace("[\"hop.example\"]", &format!("{hop:?}"));
            let error = Config::from_text("t", &text, &[]).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
        let alone = "hostname = \"r.example\"\n[[listener]]\naddress = \"127.0.0.1:2525\"\n\
                     [[route]]\ndomain = \"*\"\nnext_hop = \"hop.example\"\nuser = \"me\"\n";
        let error = Config::from_text("t", alone, &[]).unwrap_err().to_string();
        assert!(error.contains("stands without `password_file`"), "{error}");
    }
}
