//! `ringpost queue` against a whole server: what operators see and do to queued
//! mail, and what is left of it after `kill -9`.

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use support::peer::{Client, NextHop, PATIENCE, header};
use support::process::Server;

/// A port on which nothing listens. The socket that has it is kept to the end of
/// the process, so that nobody else gets it.
fn dead() -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    std::mem::forget(socket);
    address
}

/// Mail for `dead.test` and what is below it goes nowhere, all other to `hop`.
fn routes(hop: SocketAddr, dead: SocketAddr) -> String {
    format!(
        r#"route=[{{domain="dead.test", next_hop=["{dead}"]}}, {{domain="*.dead.test", next_hop=["{dead}"]}}, {{domain="*", next_hop=["{hop}"]}}]"#
    )
}

fn message(name: &str) -> Vec<u8> {
    format!("Subject: {name}\r\nX-Test: {name}\r\n\r\nHello\r\n").into_bytes()
}

/// Sends a message; its id.
fn send(server: &Server, from: &str, to: &[&str], body: &[u8]) -> String {
    let reply = Client::connect(server.smtp).unwrap().message(from, to, body).unwrap();
    reply.strip_prefix("250 2.0.0 Ok: queued as ").expect(&reply).trim().to_owned()
}

fn queue(dir: &Path, words: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringpost"))
        .args(["queue", "--socket"])
        .arg(dir.join("admin.sock"))
        .args(words.split(' '))
        .output()
        .unwrap()
}

/// Standard output of a command that does not fail.
fn done(dir: &Path, words: &str) -> String {
    let output = queue(dir, words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// The objects that a command prints with `--json`.
fn objects(dir: &Path, words: &str) -> Vec<Value> {
    let text = done(dir, &format!("{words} --json"));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(dir: &Path, words: &str) -> Vec<String> {
    let objects = objects(dir, words);
    objects.iter().map(|object| object["queue_id"].as_str().unwrap().to_owned()).collect()
}

/// Asks until it is so.
fn wait_for(what: &str, so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "it never came to be so: {what}");
        std::thread::yield_now();
    }
}

/// Waits until `count` messages have had their first attempt. A site that is down
/// is left alone with the first of them: the others are brought forward.
fn wait_deferred(dir: &Path, count: usize) {
    wait_for("deferred", || {
        queue(dir, "retry --attempts 0");
        ids(dir, "list --state deferred --attempts 1").len() == count
    });
}

#[test]
fn every_filter_finds_what_it_should() {
    let dir = tempfile::tempdir().unwrap();
    let hop = NextHop::start();
    let dead = dead();
    let settings = [&*routes(hop.address, dead), r#"queue.retry=["1h"]"#];
    let server = Server::start(dir.path(), &settings);
    let big = [message("big"), b"0123456789\r\n".repeat(2000)].concat();
    let one = send(&server, "a@x.test", &["r@dead.test"], &message("one"));
    let two = send(&server, "", &["r@dead.test", "q@sub.dead.test"], &message("two"));
    let three = send(&server, "b@y.test", &["s@dead.test"], &big);
    let dir = dir.path();
    wait_deferred(dir, 3);
    let (all, none) = (vec![&one, &two, &three], Vec::<&String>::new());
    for (words, expected) in [
        ("list", all.clone()),
        ("list --sender a@X.test", vec![&one]),
        ("list --sender @y.test", vec![&three]),
        ("list --sender MAILER-DAEMON", vec![&two]),
        ("list --recipient r@dead.test", vec![&one, &two]),
        ("list --recipient @dead.test", all.clone()),
        ("list --domain *.dead.test", vec![&two]),
        (&format!("list --site {dead}"), all.clone()),
        (&format!("list --site {}", hop.address), none.clone()),
        ("list --older-than 1h", none.clone()),
        ("list --newer-than 1h", all.clone()),
        ("list --attempts 0", none.clone()),
        ("list --min-attempts 1 --max-attempts 3", all.clone()),
        ("list --last-reply 451", all.clone()),
        ("list --last-reply refused", all.clone()),
        ("list --last-reply 5", none.clone()),
        ("list --larger-than 10KiB", vec![&three]),
        ("list --smaller-than 10KiB", vec![&one, &two]),
        ("list --state deferred", all.clone()),
        ("list --state hold", none.clone()),
        ("list --smaller-than 10KiB --sender @x.test --domain dead.test", vec![&one]),
    ] {
        let got = ids(dir, words);
        assert_eq!(got.iter().collect::<Vec<_>>(), expected, "{words}");
    }
    let second = &objects(dir, "list --domain *.dead.test")[0];
    assert_eq!(second["sender"], "MAILER-DAEMON");
    assert_eq!(second["recipients"].as_array().unwrap().len(), 2);
    let summary: Value = serde_json::from_str(&done(dir, "summary --json")).unwrap();
    assert_eq!(summary["shards"][0]["queued_messages"], 3);
    assert!(summary["shards"][0]["live_bytes"].as_u64().unwrap() > 20_000);
    let metrics = server.get("/metrics");
    assert!(metrics.contains("ringpost_space_amplification{shard=\"0\"} 0.0"), "{metrics}");
    // Nothing was said about a queue that is still being read, or anything else.
    assert_eq!(queue(dir, "list").stderr, b"");
}

#[test]
fn held_mail_survives_a_crash_and_goes_when_it_is_released() {
    let dir = tempfile::tempdir().unwrap();
    let hop = NextHop::start();
    let dead = dead();
    let settings = [&*routes(dead, dead), r#"queue.retry=["1h"]"#];
    let server = Server::start(dir.path(), &settings);
    let to = ["r@go.test", "s@go.test"];
    let one = send(&server, "a@x.test", &to, &message("one"));
    let two = send(&server, "b@x.test", &["r@go.test"], &message("two"));
    wait_deferred(dir.path(), 2);
    let text = done(dir.path(), &format!("hold {one} --recipient s@go.test"));
    assert_eq!(text, format!("{one}  s@go.test\n-- held 1 recipient of 1 message.\n"));
    server.wait_log(|line| {
        line.contains("mail: held") && line.contains(&one) && line.contains("(uid ")
    });
    let listed = &objects(dir.path(), "list --state hold")[0];
    assert_eq!(
        (&listed["queue_id"], &listed["queue_name"]),
        (&one.clone().into(), &"deferred".into())
    );
    done(dir.path(), &format!("hold {one}"));
    server.kill();

    // The way is free now, and all that is not held goes at once when it is
    // retried.
    let settings = [&*routes(hop.address, dead), r#"queue.retry=["1h"]"#];
    let server = Server::start(dir.path(), &settings);
    let listed = &objects(dir.path(), "list --state hold")[0];
    assert_eq!((&listed["queue_id"], &listed["queue_name"]), (&one.clone().into(), &"hold".into()));
    assert!(done(dir.path(), &format!("show {one}")).contains("held until it is released"));
    let text = done(dir.path(), "retry --all");
    assert_eq!(text, format!("{two}  r@go.test\n-- due now: 1 recipient of 1 message.\n"));
    let got = hop.wait(|got| !got.is_empty());
    assert_eq!(header(&got[0].body, "X-Test").as_deref(), Some("two"));
    let text = done(dir.path(), &format!("retry {one}"));
    assert!(text.contains("(nothing to do)"), "{text}");
    wait_for("two is settled", || ids(dir.path(), "list") == [one.clone()]);
    assert_eq!(hop.by_header("X-Test").get("one"), None);

    done(dir.path(), "release --sender @x.test --recipient r@go.test");
    let got = hop.wait(|got| got.len() == 2);
    assert_eq!(got[1].recipients, ["r@go.test"]);
    done(dir.path(), "release --all");
    let got = hop.wait(|got| got.len() == 3);
    assert_eq!(got[2].recipients, ["s@go.test"]);
    wait_for("all is settled", || ids(dir.path(), "list").is_empty());
    server.terminate();
    assert!(server.wait().success());
}

#[test]
fn dropped_mail_does_not_come_back_and_the_log_says_who_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let dead = dead();
    let settings = [&*routes(dead, dead), r#"queue.retry=["1h"]"#];
    let server = Server::start(dir.path(), &settings);
    let one = send(&server, "a@x.test", &["r@go.test", "s@go.test"], &message("one"));
    let two = send(&server, "b@x.test", &["r@go.test"], &message("two"));
    wait_deferred(dir.path(), 2);

    let refused = queue(dir.path(), "drop");
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(ids(dir.path(), "drop --all --dry-run"), [one.clone(), two.clone()]);
    assert_eq!(ids(dir.path(), "list").len(), 2, "that was no more than a question");

    let dropped = objects(dir.path(), "drop --sender a@x.test --recipient s@go.test");
    assert_eq!(dropped[0]["recipients"], serde_json::json!([{"address": "s@go.test"}]));
    assert_eq!(ids(dir.path(), &format!("drop {two}")), std::slice::from_ref(&two));
    let who = |line: &str| line.contains("mail: dropped") && line.contains("(uid ");
    server.wait_log(|line| who(line) && line.contains(&two) && line.contains("to=<r@go.test>"));
    server.kill();

    let server = Server::start(dir.path(), &settings);
    let left = objects(dir.path(), "list");
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["queue_id"], one.as_str());
    assert_eq!(left[0]["recipients"].as_array().unwrap().len(), 1);
    let gone = queue(dir.path(), &format!("drop {two}"));
    assert_eq!(gone.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&gone.stderr).contains("is not queued"));
    drop(server);
    assert!(recorded(dir.path(), b"dropped by "), "the outcome is in the log, with who it was");
}

/// Whether some segment holds `text`.
fn recorded(dir: &Path, text: &[u8]) -> bool {
    let files = std::fs::read_dir(dir.join("log-00000")).unwrap();
    files
        .map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .any(|bytes| bytes.windows(text.len()).any(|window| window == text))
}

#[test]
fn a_large_message_is_shown_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let dead = dead();
    let server = Server::start(dir.path(), &[&routes(dead, dead)]);
    let mut text = message("large");
    for line in 0..120_000 {
        text.extend_from_slice(format!(".{line:060}\r\n").as_bytes());
    }
    let id = send(&server, "a@x.test", &["r@go.test"], &text);
    let output = queue(dir.path(), &format!("show {id} --message"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.starts_with(b"Received: from client.test"));
    assert!(output.stdout.ends_with(&text), "{} bytes came", output.stdout.len());
    let trace = output.stdout.len() - text.len();
    assert!(output.stdout[trace - 2..].starts_with(b"\r\nSubject: large\r\n"));
}
