//! The load generator and the sink over TLS and with AUTH: what is sent arrives, what
//! goes wrong on purpose is counted by kind, and what can never go well is told at
//! once.

#[path = "support/pair.rs"]
mod pair;

use std::fs;

use pair::{load, options, sink, verified};
use ringpost_tools::load;
use ringpost_tools::load::report::Report;

const HANDSHAKE: &str = "in the TLS handshake";

#[test]
fn all_that_was_accepted_over_tls_arrived_unchanged() {
    for how in ["starttls", "implicit"] {
        for extra in ["", "--pipelining", "--messages-per-connection 3 --size 100KiB"] {
            let sent = format!("--messages 60 --connections 4 --tls {how} --insecure {extra}");
            let (report, verdict) = verified(&["--tls", how], &sent);
            assert_eq!(report.messages.accepted, 60, "{how} {extra}");
            assert!(report.failures.is_empty(), "{how} {extra}");
            assert!(verdict.is_good() && verdict.received == 60, "{how} {extra}");
            let tls = report.tls.unwrap();
            let connections = if extra.starts_with("--messages-per") { 20 } else { 4 };
            assert!(tls.handshakes >= connections, "{how} {extra}: {}", tls.handshakes);
            assert!(tls.handshakes_per_s > 0.0 && tls.resumed == 0);
            assert!(tls.cipher.starts_with("TLS1.3 TLS_"), "{}", tls.cipher);
            assert_eq!(report.latency.handshake.unwrap().count, tls.handshakes);
        }
    }
}

#[test]
fn each_message_has_its_handshake_and_sessions_are_resumed_only_when_asked() {
    let run = |extra: &str| -> Report {
        let sink = sink(&["--discard", "--tls", "starttls"]);
        let churn = "--messages 12 --connections 1 --messages-per-connection 1 --insecure";
        let report = load(&sink, &format!("{churn} --tls starttls {extra}"));
        sink.stop().unwrap();
        report
    };
    let whole = run("").tls.unwrap();
    assert_eq!((whole.handshakes, whole.resumed), (12, 0));
    let resumed = run("--tls-resume").tls.unwrap();
    assert_eq!((resumed.handshakes, resumed.resumed), (12, 11));
}

#[test]
fn a_server_is_believed_for_its_name_by_its_authority() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem").display().to_string();
    let sink = sink(&["--discard", "--tls", "implicit", "--ca-out", &ca]);
    let good = format!("--messages 3 --connections 1 --tls implicit --tls-ca {ca}");
    assert_eq!(load(&sink, &good).messages.accepted, 3);
    assert_eq!(load(&sink, &format!("{good} --tls-name localhost")).messages.accepted, 3);
    let error = |arguments: &str| load::run(&options(&sink, arguments)).err().unwrap().to_string();
    let wrong = error(&format!("{good} --tls-name other.example"));
    assert!(wrong.starts_with("the TLS handshake failed: "), "{wrong}");
    let unknown = error("--messages 3 --connections 1 --tls implicit");
    assert!(unknown.starts_with("the TLS handshake failed: "), "{unknown}");
    sink.stop().unwrap();
}

#[test]
fn handshakes_that_go_wrong_are_counted_by_kind() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem").display().to_string();
    let run = |bad: &str| {
        let given = ["--discard", "--seed", "5", "--ca-out", &ca, "--tls", "starttls"];
        let sink = sink(&[&given[..], &["--bad-tls", bad]].concat());
        let report = load(
            &sink,
            &format!(
                "--messages 40 --connections 4 --messages-per-connection 1 --tls starttls \
                 --tls-ca {ca} --timeout 2s"
            ),
        );
        sink.stop().unwrap();
        assert_eq!(report.messages.accepted, 40, "{bad}");
        let kinds: Vec<&str> = report.failures.iter().map(|one| one.what.as_str()).collect();
        assert!(report.failures.iter().all(|one| one.stage == HANDSHAKE), "{bad}: {kinds:?}");
        assert!(!kinds.is_empty(), "{bad}");
        kinds.join("; ")
    };
    assert!(run("garbage:30%").contains("no TLS"));
    assert!(run("close:30%").contains("closed the connection"));
    assert!(run("expired-certificate:30%").contains("expired"));
    assert!(run("wrong-name:30%").contains("is not for 127.0.0.1"));
    assert!(run("stall:10%").contains("took too long"));
}

#[test]
fn users_are_believed_by_every_mechanism() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, word: &str| {
        let path = dir.path().join(name);
        fs::write(&path, word).unwrap();
        path.display().to_string()
    };
    let (right, wrong) = (file("right", "open sesame\n"), file("wrong", "open barley\n"));
    let sink = sink(&["--discard", "--tls", "starttls", "--auth", "--auth-password-file", &right]);
    let run = |password: &str, mechanism: &str| {
        let user = format!("--tls starttls --insecure --auth u --auth-password-file {password}");
        let how = "--messages 6 --connections 2 --messages-per-connection 2";
        load::run(&options(&sink, &format!("{how} {user} {mechanism}")))
    };
    let named = ["PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"];
    let mechanisms = named.map(|name| format!("--auth-mechanism {name}"));
    for mechanism in mechanisms.iter().map(String::as_str).chain([""]) {
        let report = run(&right, mechanism).unwrap();
        assert_eq!(report.messages.accepted, 6, "{mechanism}");
        assert!(report.failures.is_empty() && report.load.auth, "{mechanism}");
        let error = run(&wrong, mechanism).err().unwrap().to_string();
        assert!(error.contains("535 5.7.8"), "{mechanism}: {error}");
    }
    sink.stop().unwrap();
}

#[test]
fn what_the_server_does_not_offer_ends_the_run_with_words() {
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("password");
    fs::write(&password, "x\n").unwrap();
    let error = |sink_arguments: &[&str], arguments: &str| {
        let sink = sink(&[&["--discard"], sink_arguments].concat());
        let error = load::run(&options(&sink, arguments)).err().unwrap().to_string();
        sink.stop().unwrap();
        error
    };
    let starttls = "--messages 5 --tls starttls --insecure";
    let said = error(&[], starttls);
    assert_eq!(said, "the server does not offer STARTTLS, which --tls starttls is for");
    let auth = format!("{starttls} --auth u --auth-password-file {}", password.display());
    let said = error(&["--tls", "starttls"], &auth);
    assert_eq!(said, "the server does not offer AUTH with a password");
    let said =
        error(&["--tls", "starttls", "--auth"], &format!("{auth} --auth-mechanism SCRAM-SHA-256"));
    assert_eq!(said, "the server does not offer AUTH SCRAM-SHA-256");
}
