//! `ringpost-segments` on the log that is kept for format version 1, sound and
//! damaged.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use ringpost_tools::segments::{Cli, run};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/log-v1")
}

/// A copy that a test may damage.
fn copy() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

fn tool(arguments: &[&str]) -> (bool, String) {
    let arguments = std::iter::once(&"ringpost-segments").chain(arguments);
    let mut out = Vec::new();
    let sound = run(&Cli::try_parse_from(arguments).unwrap(), &mut out).unwrap();
    (sound, String::from_utf8(out).unwrap())
}

#[test]
fn lists_and_dumps_what_is_there() {
    let dir = copy();
    fs::write(dir.path().join("0000000f.free"), b"").unwrap();
    let path = dir.path().to_str().unwrap();
    let (sound, text) = tool(&["list", path]);
    assert!(sound, "{text}");
    assert!(text.contains("segment 00000001 created") && text.contains(" message"), "{text}");
    assert!(text.contains("0000000f.free: spare"), "{text}");
    let (sound, text) = tool(&["dump", path]);
    assert!(sound, "{text}");
    for kind in ["mark", "pad", "message", "head", "chunk", "commit", "outcome", "survivors"] {
        assert!(text.lines().any(|line| line.contains(&format!(" {kind} "))), "{kind}: {text}");
    }
    assert!(text.contains("1 deferred (450 4.2.0 word 1.1)"), "{text}");
}

#[test]
fn verify_tells_damage_from_an_unfinished_write() {
    let dir = copy();
    let path = dir.path().to_str().unwrap();
    let (sound, text) = tool(&["verify", path]);
    assert!(sound && text.starts_with("sound: "), "{text}");

    let first = dir.path().join("00000001.seg");
    let mut bytes = fs::read(&first).unwrap();
    bytes[8192 + 100] ^= 1;
    fs::write(&first, &bytes).unwrap();
    let (sound, text) = tool(&["verify", path]);
    assert!(!sound && text.contains("segment 00000001: ") && text.contains("damaged"), "{text}");
    assert!(text.contains("DAMAGED: "), "{text}");

    fs::write(dir.path().join("00000009.seg"), b"short").unwrap();
    let (sound, text) = tool(&["verify", path]);
    assert!(!sound && text.contains("neither copy of its header is sound"), "{text}");
}

#[test]
fn recover_writes_what_is_queued_as_files() {
    let out = tempfile::tempdir().unwrap();
    let log = fixture();
    let to = out.path().join("mail");
    let arguments = ["recover", log.to_str().unwrap(), "--out", to.to_str().unwrap()];
    let (sound, text) = tool(&arguments);
    assert!(sound && text.starts_with("3 messages written"), "{text}");
    let mut found = Vec::new();
    for entry in fs::read_dir(&to).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let described: serde_json::Value =
                serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let body = fs::read(path.with_extension("eml")).unwrap();
            found.push((described["sender"].as_str().unwrap().to_owned(), described, body));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let senders: Vec<&str> = found.iter().map(|(sender, ..)| &sender[..]).collect();
    assert_eq!(senders, ["deferred@example.com", "late@example.com", "long@example.com"]);
    assert_eq!(found[1].2, b"Subject: 3\r\n\r\n.three\r\n", "a stuffed dot is taken out");
    assert!(found[2].2.ends_with(b"line 1199 of a long message\r\n"));
    let pending: Vec<_> = found[0].1["recipients"].as_array().unwrap().to_vec();
    let pending: Vec<_> = pending.iter().map(|recipient| recipient["pending"].as_bool()).collect();
    assert_eq!(pending, [Some(false), Some(true), Some(true)]);
    let all = out.path().join("all");
    let arguments = ["recover", log.to_str().unwrap(), "--out", all.to_str().unwrap(), "--all"];
    let (_, text) = tool(&arguments);
    let count: u32 = text.split(' ').next().unwrap().parse().unwrap();
    assert!(count > 3, "{text}");
}
