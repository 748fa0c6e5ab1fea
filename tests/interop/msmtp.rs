//! `msmtp` as the client of a user: TLS with a certificate that it verifies, each
//! mechanism of AUTH that it shares with the server, reports, ETRN and LMTP.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};

use super::support::program::{added, fields, is_installed, run, said, succeeded, tricky};
use super::support::submissions::{NAME, Submissions};

/// `msmtp` at `server`, which it knows by the authority in `trusted`.
fn msmtp(server: SocketAddr, trusted: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("msmtp");
    command.args(["--host", &server.ip().to_string(), "--port", &server.port().to_string()]);
    command.args(["--tls=on", "--tls-host-override", NAME, "--timeout=30"]);
    command.arg("--tls-trust-file").arg(trusted).args(words);
    command
}

/// Sends `message` with `words`, to the listener with implicit TLS or the other.
fn send(place: &Submissions, is_implicit: bool, words: &[&str], message: &[u8]) -> Output {
    let (server, starttls) = match is_implicit {
        true => (place.implicit, "--tls-starttls=off"),
        false => (place.starttls, "--tls-starttls=on"),
    };
    let from = ["--from=alice@x.test", "--domain=client.test", starttls];
    let mut command = msmtp(server, &place.authority(), &[&from, words].concat());
    // It reads lines as programs write them here.
    let text: Vec<u8> = message.iter().copied().filter(|octet| *octet != b'\r').collect();
    run(&mut command, &text)
}

#[test]
fn msmtp_submits_with_each_mechanism_over_verified_tls() {
    if !is_installed("msmtp") {
        return;
    }
    let place = Submissions::start();
    let mut count = 0;
    for is_implicit in [false, true] {
        for mechanism in ["plain", "login", "scram-sha-256"] {
            count += 1;
            let name = format!("{mechanism}-{is_implicit}");
            let auth = format!("--auth={mechanism}");
            let to = [format!("{name}@y.test"), format!("second-{name}@y.test")];
            let user = [&*auth, "--user=alice", "--passwordeval=echo pencil", "--"];
            let words: Vec<&str> = user.into_iter().chain(to.iter().map(String::as_str)).collect();
            let message = tricky(&name);
            succeeded(&send(&place, is_implicit, &words, &message));
            let taken = place.hop.wait_taken(count).pop().unwrap();
            assert_eq!(taken.recipients, to);
            let added = added(&taken.body, &message);
            assert_eq!(fields(&added), ["Received"]);
            assert!(added.contains("with ESMTPSA id "), "{added}");
            let line = place.accepted(&to[0]);
            assert!(line.contains(" user=\"alice\""), "{line}");
        }
    }
    for mechanism in ["PLAIN", "LOGIN", "SCRAM-SHA-256"] {
        assert_eq!(place.authenticated("alice", mechanism), 2, "{mechanism}");
    }
    assert_eq!(place.server.metric("ringpost_tls_failures_total"), 0);
}

#[test]
fn msmtp_shows_a_certificate_and_is_known_by_it() {
    if !is_installed("msmtp") {
        return;
    }
    let place = Submissions::start();
    for (is_implicit, name) in [(false, "first"), (true, "second")] {
        let [certificate, key] = ["crt", "key"].map(|kind| place.at(&format!("alice.test.{kind}")));
        let words = [
            "--auth=external",
            "--user=alice",
            &format!("--tls-cert-file={}", certificate.display()),
            &format!("--tls-key-file={}", key.display()),
            "--",
            &format!("{name}@y.test"),
        ];
        succeeded(&send(&place, is_implicit, &words, &tricky(name)));
        place.accepted(&format!("{name}@y.test"));
    }
    assert_eq!(place.authenticated("alice", "EXTERNAL"), 2);
    place.hop.wait_taken(2);
    // Without the certificate there is nothing to go by.
    let output = send(&place, false, &["--auth=external", "--user=alice", "c@y.test"], b"\r\n");
    assert!(!output.status.success());
}

#[test]
fn msmtp_is_refused_what_it_may_not() {
    if !is_installed("msmtp") {
        return;
    }
    let place = Submissions::start();
    for mechanism in ["plain", "login", "scram-sha-256"] {
        let auth = format!("--auth={mechanism}");
        let words = [&*auth, "--user=alice", "--passwordeval=echo guess", "b@y.test"];
        let output = send(&place, true, &words, &tricky("guess"));
        assert_eq!(output.status.code(), Some(77), "{}", said(&output));
        assert!(said(&output).contains("535 5.7.8 "), "{}", said(&output));
    }
    // Nobody, and a sender that is not the user's.
    let output = send(&place, false, &["--auth=off", "b@y.test"], &tricky("nobody"));
    assert!(said(&output).contains("530 5.7.0 "), "{}", said(&output));
    let words = ["--auth=plain", "--user=alice", "--passwordeval=echo pencil", "--from=bob@z.test"];
    let text = tricky("other");
    let mut command = msmtp(place.implicit, &place.authority(), &words);
    let output = run(command.args(["--tls-starttls=off", "b@y.test"]), &text);
    assert!(said(&output).contains("550 5.7.1 "), "{}", said(&output));
    // It believes nobody whose certificate it cannot verify, and tells him nothing.
    let mut command = msmtp(place.starttls, &place.at("other.pem"), &words);
    let output = run(command.args(["--tls-starttls=on", "b@y.test"]), &text);
    assert!(said(&output).contains("certificate"), "{}", said(&output));
    assert_eq!(place.server.metric("ringpost_messages_accepted_total"), 0);
}

#[test]
fn msmtp_asks_for_reports_in_terms_that_reach_the_next_hop() {
    if !is_installed("msmtp") {
        return;
    }
    let place = Submissions::start();
    let words = [
        "--auth=on",
        "--user=alice",
        "--passwordeval=echo pencil",
        "--dsn-notify=failure,success",
        "--dsn-return=headers",
        "b@y.test",
    ];
    succeeded(&send(&place, false, &words, &tricky("one")));
    place.hop.wait_taken(1);
    let commands = place.commands();
    let with = |verb: &str, word: &str| {
        commands.iter().any(|line| line.starts_with(verb) && line.contains(word))
    };
    assert!(with("MAIL FROM:<alice@x.test>", " RET=HDRS"), "{commands:?}");
    assert!(with("RCPT TO:<b@y.test>", " NOTIFY=SUCCESS,FAILURE"), "{commands:?}");
}

#[test]
fn msmtp_is_told_what_the_server_can_and_may_have_a_domain_tried() {
    if !is_installed("msmtp") {
        return;
    }
    let place = Submissions::start();
    let said_of = |server, starttls: &str| {
        let words = [starttls, "--serverinfo"];
        succeeded(&run(&mut msmtp(server, &place.authority(), &words), b""))
    };
    let texts = [
        said_of(place.starttls, "--tls-starttls=on"),
        said_of(place.implicit, "--tls-starttls=off"),
        said_of(place.relay, "--tls-starttls=on"),
    ];
    for text in &texts {
        for word in ["SIZE 52428800", "PIPELINING", "DSN", "AUTH", "SCRAM-SHA-256 "] {
            assert!(text.contains(word), "no {word} in {text}");
        }
        assert!(text.contains("TLS1.3"), "{text}");
    }
    // It tells what was offered first.
    assert!(texts[0].contains("STARTTLS:") && !texts[1].contains("STARTTLS:"), "{texts:?}");
    // Not where mail is submitted (RFC 6409, 7).
    assert_eq!(texts.map(|text| text.contains("ETRN")), [false, false, true]);
    let words = ["--tls-starttls=on", "--auth=plain", "--user=alice", "--rmqs=@y.test"];
    let mut command = msmtp(place.relay, &place.authority(), &words);
    succeeded(&run(command.arg("--passwordeval=echo pencil"), b""));
}

#[test]
fn msmtp_speaks_lmtp() {
    if !is_installed("msmtp") {
        return;
    }
    let place = Submissions::start();
    let message = tricky("lmtp");
    let text: Vec<u8> = message.iter().copied().filter(|octet| *octet != b'\r').collect();
    let words = ["--protocol=lmtp", "--tls-starttls=on", "--from=a@x.test", "b@y.test", "c@y.test"];
    succeeded(&run(&mut msmtp(place.lmtp, &place.authority(), &words), &text));
    let taken = place.hop.wait_taken(1).remove(0);
    assert_eq!(taken.recipients, ["b@y.test", "c@y.test"]);
    let added = added(&taken.body, &message);
    assert!(added.contains("with LMTPS id "), "{added}");
}
