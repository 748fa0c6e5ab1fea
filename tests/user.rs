//! `ringpost user` as its users meet it: the file it keeps, its words, its exit
//! codes.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use ringpost::base::users::UsersFile;
use ringpost::policy::password;
use ringpost::proto::sasl::derive_keys;

/// A folder with room for a users file.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("users")
    }

    /// Runs `ringpost user` with these words and this standard input; its exit
    /// code, output and complaint.
    fn run(&self, words: &[&str], input: &str) -> (i32, String, String) {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("ringpost"));
        command.arg("user").args(words);
        command.arg("--set").arg(format!("auth.users={:?}", self.path().display().to_string()));
        command.arg("--set").arg("hostname=relay.test").write_stdin(input);
        command.timeout(std::time::Duration::from_secs(60));
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    fn done(&self, words: &[&str], input: &str) -> String {
        let (code, said, complaint) = self.run(words, input);
        assert_eq!((code, &*complaint), (0, ""), "{words:?}");
        said
    }

    fn read(&self) -> UsersFile {
        UsersFile::parse(&std::fs::read_to_string(self.path()).unwrap()).unwrap()
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn users_are_added_changed_listed_and_removed() {
    let place = Place::new();
    let stdin = "--password-stdin";
    assert_eq!(place.done(&["add", "Alice@Example.org", stdin], "pencil\nrest"), "");
    assert_eq!(mode(&place.path()), 0o600);
    place.done(&["add", "printer", stdin], "secret\r\n");
    let list = place.done(&["list"], "");
    assert_eq!(list, "alice@example.org  alice@example.org\nprinter  printer@relay.test\n");
    let file = place.read();
    let alice = file.users().next().unwrap();
    assert!(password::verify(alice.password.as_ref().unwrap(), "pencil"));
    let keys = alice.scram.as_ref().unwrap();
    assert_eq!(derive_keys("pencil", &keys.salt, keys.iterations), *keys);

    place.done(&["passwd", "ALICE@example.org", stdin], "other");
    let file = place.read();
    let alice = file.users().next().unwrap();
    assert!(password::verify(alice.password.as_ref().unwrap(), "other"));

    let print = format!("sha256:{}", "0a".repeat(32));
    let senders = ["--sender", "@example.org", "--sender", "x@y.example"];
    place.done(
        &[&["set", "printer", "--certificate", &print, "--disable"][..], &senders].concat(),
        "",
    );
    let json = place.done(&["list", "--json"], "");
    let line: serde_json::Value = serde_json::from_str(json.lines().nth(1).unwrap()).unwrap();
    assert_eq!(
        line,
        serde_json::json!({
            "name": "printer",
            "senders": ["@example.org", "x@y.example"],
            "certificates": [print],
            "password": true,
            "disabled": true,
        })
    );
    assert!(place.done(&["list"], "").ends_with("(1 certificate)  disabled\n"));
    place.done(&["set", "printer", "--enable"], "");
    assert!(place.read().users().all(|user| !user.disabled));
    place.done(&["remove", "printer"], "");
    assert_eq!(place.read().users().count(), 1);
    assert!(!place.folder.path().join("users.new").exists());
}

#[test]
fn two_at_once_lose_nothing() {
    let place = Place::new();
    std::thread::scope(|scope| {
        for name in ["a", "b", "c", "d"] {
            let place = &place;
            scope.spawn(move || place.done(&["add", name, "--password-stdin"], "pencil"));
        }
    });
    assert_eq!(place.read().users().count(), 4);
}

#[test]
fn what_cannot_be_done_is_said() {
    let place = Place::new();
    for (words, input, code, word) in [
        (&["passwd", "alice", "--password-stdin"][..], "x", 1, "no user alice"),
        (&["remove", "alice"], "", 1, "no user alice"),
        (&["list"], "", 1, "ringpost user add"),
        (&["add", "alice"], "", 2, "--password-stdin"),
        (&["add", "alice", "--password-stdin"], "", 2, "password is empty"),
        (&["add", "alice", "--password-stdin"], "a\u{7}b\n", 2, "control characters"),
        (&["add", "al ice", "--password-stdin"], "x", 2, "no blanks"),
        (&["add", "al\u{7}ice", "--password-stdin"], "x", 2, "no name may hold"),
        (&["add", "alice", "--no-password"], "", 2, "--certificate"),
        (&["add", "alice", "--password-stdin", "--sender", "x"], "x", 2, "@domain"),
        (&["add", "alice", "--password-stdin", "--certificate", "x"], "x", 2, "sha256:"),
        (&["set", "alice"], "", 2, "--sender"),
        (&["set", "alice", "--enable", "--disable"], "", 2, "--disable"),
        (&["add"], "", 2, "<NAME>"),
    ] {
        let (found, said, complaint) = place.run(words, input);
        assert_eq!((found, &*said), (code, ""), "{words:?}: {complaint}");
        assert!(complaint.contains(word), "{words:?}: {complaint}");
    }
    assert!(!place.path().exists(), "nothing was written");
    place.done(&["add", "alice", "--password-stdin"], "x");
    let (code, _, complaint) = place.run(&["add", "Alice", "--password-stdin"], "x");
    assert!(code == 1 && complaint.contains("already"), "{complaint}");
    std::fs::write(place.path(), "alice=pencil\n").unwrap();
    let (code, _, complaint) = place.run(&["add", "bob", "--password-stdin"], "x");
    assert!(code == 1 && complaint.contains("users:1: "), "{complaint}");
    assert_eq!(std::fs::read_to_string(place.path()).unwrap(), "alice=pencil\n", "left alone");
}

#[test]
fn check_names_the_wrong_line_and_warns_of_readers() {
    let place = Place::new();
    let check = || {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("ringpost"));
        command.args(["check", "--set"]);
        command.arg(format!("auth.users={:?}", place.path().display().to_string()));
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    };
    let (code, text) = check();
    assert!(code == 2 && text.contains("auth.users") && text.contains("No such file"), "{text}");
    place.done(&["add", "alice", "--password-stdin"], "x");
    assert_eq!(check().0, 0);
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o644)).unwrap();
    let (code, text) = check();
    assert!(code == 0 && text.contains("# warning: auth.users"), "{text}");
    std::fs::write(place.path(), std::fs::read_to_string(place.path()).unwrap() + "bob what\n")
        .unwrap();
    let (code, text) = check();
    assert!(code == 2 && text.contains("users:3: "), "{text}");
}
