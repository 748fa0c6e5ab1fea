//! The command line as its users meet it: words, streams and exit codes of the
//! binary.

use std::path::Path;

use assert_cmd::Command;

fn ringpost<S: AsRef<std::ffi::OsStr>>(words: &[S]) -> assert_cmd::assert::Assert {
    command(words).assert()
}

fn command<S: AsRef<std::ffi::OsStr>>(words: &[S]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("ringpost"));
    command.args(words).env_remove("RINGPOST_LOG").timeout(std::time::Duration::from_secs(60));
    command
}

#[track_caller]
fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Asserts exit code 2 with nothing on standard output; returns the complaint.
#[track_caller]
fn usage_error(words: &[&str]) -> String {
    let assert = ringpost(words).code(2);
    let output = assert.get_output();
    assert_eq!(text(&output.stdout), "");
    text(&output.stderr)
}

#[test]
fn help_and_version_go_to_standard_output() {
    let version = ringpost(&["--version"]).success();
    assert_eq!(
        text(&version.get_output().stdout),
        format!("ringpost {}\n", env!("CARGO_PKG_VERSION"))
    );
    for words in [&["--help"][..], &["help"], &["help", "serve"], &["queue", "list", "--help"]] {
        let help = ringpost(words).success();
        assert_eq!(text(&help.get_output().stderr), "", "{words:?}");
        assert!(text(&help.get_output().stdout).contains("Usage: ringpost"), "{words:?}");
    }
    let help = text(&ringpost(&["--help"]).success().get_output().stdout);
    for word in ["serve", "check", "queue", "--config", "--set", "--log-format", "Exit codes"] {
        assert!(help.contains(word), "{word} is not in\n{help}");
    }
}

#[test]
fn words_that_mean_nothing_are_usage_errors() {
    assert!(usage_error(&["serv"]).contains("serve"));
    assert!(usage_error(&["--nonsense"]).contains("--nonsense"));
    assert!(usage_error(&["queue"]).contains("list"));
    assert!(usage_error(&["queue", "show"]).contains("<ID>"));
    assert!(usage_error(&["serve", "--log-format", "xml"]).contains("json"));
    assert!(usage_error(&["queue", "show", "X", "--message", "--json"]).contains("--json"));
}

#[test]
fn a_wrong_configuration_is_code_2_for_every_command() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("relay.toml");
    std::fs::write(&file, "hostname = \"mx.example\"\n\n[limits]\nrecipient = 5\n").unwrap();
    let file = file.to_str().unwrap();
    for words in [
        &["-c", file][..],
        &["serve", "-c", file],
        &["check", "-c", file],
        &["queue", "-c", file, "list"],
        &["queue", "list", "-c", file],
        &["route", "a@b.test", "-c", file],
    ] {
        let complaint = usage_error(words);
        assert!(complaint.contains(&format!("{file}:4:1: limits.recipient")), "{complaint}");
        assert!(complaint.contains("recipients"), "what is allowed: {complaint}");
    }
    assert!(usage_error(&["check", "-c", "/nonexistent.toml"]).contains("/nonexistent.toml"));
    assert!(usage_error(&["check", "--set", "durability=fast"]).contains("durability"));
}

#[test]
fn a_wrong_log_filter_is_code_2() {
    let assert = command(&["serve"]).env("RINGPOST_LOG", "mail=loud").assert().code(2);
    let complaint = text(&assert.get_output().stderr);
    assert!(complaint.contains("RINGPOST_LOG"), "{complaint}");
    assert!(complaint.contains("info,mail=off"), "{complaint}");
}

#[test]
fn check_prints_what_is_in_effect() {
    let toml = ringpost(&["check", "--set", "shutdown_grace=\"7s\""]).success();
    let shown = text(&toml.get_output().stdout);
    assert!(shown.starts_with("# durability: sync: "), "{shown}");
    assert!(shown.contains("shutdown_grace = \"7s\""), "{shown}");
    let json = ringpost(&["check", "--json", "--set", "durability=os"]).success();
    let value: serde_json::Value = serde_json::from_slice(&json.get_output().stdout).unwrap();
    assert_eq!(value["durability"], "os");
    assert!(!value["cpus"].as_array().unwrap().is_empty());
    let wrong = ringpost(&["check", "--json", "--set", "durability=fast"]).code(2);
    let value: serde_json::Value = serde_json::from_slice(&wrong.get_output().stdout).unwrap();
    assert_eq!(value["errors"][0]["key"], "durability");
}

#[test]
fn queue_without_a_server_is_code_1_and_says_so() {
    let temp = tempfile::tempdir().unwrap();
    let socket = temp.path().join("admin.sock");
    let assert = ringpost(&["queue", "--socket", socket.to_str().unwrap(), "summary"]).code(1);
    let complaint = text(&assert.get_output().stderr);
    assert!(complaint.starts_with("ringpost: cannot reach the server at "), "{complaint}");
    assert!(complaint.contains("ringpost does not run"), "{complaint}");
}

/// Words that start a server in `dir` on `address`.
fn serve(dir: &Path, address: &str) -> Vec<String> {
    let mut words = vec!["serve".to_owned()];
    for key in [
        format!("listener=[{{ address = \"{address}\" }}]"),
        format!("data_dir=\"{}\"", dir.join("data").display()),
        "admin.http=\"127.0.0.1:0\"".to_owned(),
        "cores=1".to_owned(),
        "limits.connections=10".to_owned(),
    ] {
        words.extend(["--set".to_owned(), key]);
    }
    words
}

#[test]
fn a_data_directory_in_use_is_code_1_and_named() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::create_dir(temp.path().join("data")).unwrap();
    let lock = std::fs::File::create(temp.path().join("data/lock")).unwrap();
    lock.lock().unwrap();
    let assert = ringpost(&serve(temp.path(), "127.0.0.1:0")).code(1);
    let complaint = text(&assert.get_output().stderr);
    let data = temp.path().join("data");
    assert!(
        complaint.contains(&format!("data_dir {} is in use by another ringpost", data.display())),
        "{complaint}"
    );
}

#[test]
fn a_port_in_use_is_code_1_and_says_how_to_find_who_has_it() {
    let temp = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let assert = ringpost(&serve(temp.path(), &address)).code(1);
    let complaint = text(&assert.get_output().stderr);
    assert!(complaint.contains(&format!("cannot listen on {address}")), "{complaint}");
    assert!(complaint.contains("ss -ltnp"), "{complaint}");
}
