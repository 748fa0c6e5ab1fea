//! What the load generator can be asked for besides a plain stream of messages:
//! rates that change, messages and envelopes that differ, connections that come
//! from elsewhere, think or read slowly; and the results that it writes.

#[path = "support/pair.rs"]
mod pair;

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use assert_cmd::prelude::*;
use clap::Parser;
use pair::{count, load, options, sink, verified};
use ringpost_tools::load;
use ringpost_tools::load::options::Cli;
use ringpost_tools::load::{diff, html, knee};

#[test]
fn steps_and_ramps_send_what_they_intend() {
    let sink = sink(&["--discard"]);
    let report = load(&sink, "--steps 100/s,300/s --duration 1s --connections 8 --warmup 200ms");
    // 20 in the warm-up, then 50 and 150.
    assert_eq!(report.messages.accepted_in_all, 220);
    assert_eq!(report.messages.accepted, 200);
    let parts: Vec<(u64, f64)> =
        report.parts.iter().map(|part| (part.accept.count, part.intended_per_s)).collect();
    assert_eq!(parts, [(50, 100.0), (150, 300.0)]);
    let during = report.parts[1].accepted_per_s;
    assert!(during > 100.0 && during <= 400.0, "{during}");
    let report = load(&sink, "--ramp 100/s..300/s --duration 1s --connections 8");
    sink.stop().unwrap();
    assert_eq!(report.messages.accepted, 200);
    assert_eq!(report.parts.len(), 10);
    assert!(report.parts[9].accept.count > 2 * report.parts[0].accept.count);
    assert_eq!(report.load.rates, Some((100.0, 300.0)));
}

#[test]
fn sizes_mix_as_their_weights_say() {
    let (report, verdict) =
        verified(&[], "--messages 1000 --connections 5 --size 1KiB:90,8KiB:10 --pipelining");
    assert!(verdict.is_good() && verdict.received == 1000);
    assert_eq!(report.messages.accepted_bytes, 900 * 1024 + 100 * 8192);
}

#[test]
fn messages_and_envelopes_with_counters_arrive_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("invoice.eml");
    let text =
        "From: <a@example.org>\nSubject: Invoice {n}\n\nCustomer {connection}, {n%10}\n.{n}\n";
    fs::write(&file, text).unwrap();
    for extra in ["", "--pipelining"] {
        let maildir = dir.path().join(format!("maildir{}", extra.len()));
        let (report, verdict) = verified(
            &["--maildir", &maildir.display().to_string()],
            &format!(
                "--messages 40 --connections 3 --template {} --recipients 2 \
                 --from s{{n}}@example.org --to r{{recipient}}@d{{n%4}}.example {extra}",
                file.display()
            ),
        );
        assert_eq!(report.messages.accepted, 40);
        assert!(verdict.is_good(), "{extra}: {verdict}");
        assert_eq!((verdict.sent, verdict.received), (80, 80));
        let texts: Vec<String> = fs::read_dir(maildir.join("new"))
            .unwrap()
            .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
            .collect();
        let seventh = texts.iter().find(|text| text.contains("Subject: Invoice 7\n")).unwrap();
        for part in ["Return-Path: <s7@example.org>", "To: r1@d3.example", ", 7\n.7\n"] {
            assert!(seventh.contains(part), "{part}: {seventh}");
        }
        let size: u64 = report.messages.accepted_bytes;
        assert!((40 * 160..40 * 180).contains(&size), "{size}");
    }
}

#[test]
fn connections_come_from_the_addresses_asked_for() {
    let (report, verdict) = verified(
        &[],
        "--messages 30 --connections 3 --messages-per-connection 2 --bind 127.0.0.2,127.0.0.3",
    );
    assert_eq!(report.messages.accepted, 30);
    assert!(verdict.is_good() && report.failures.is_empty());
    let sink = sink(&["--discard"]);
    let report = load(&sink, "--messages 1 --connections 1 --bind 192.0.2.1 --timeout 1ms");
    sink.stop().unwrap();
    assert_eq!(report.messages.accepted, 0);
    assert_eq!(report.failures[0].stage, "connecting");
}

#[test]
fn clients_think_and_read_slowly() {
    let sink = sink(&["--discard"]);
    let report = load(&sink, "--messages 10 --connections 1 --think-time 20ms");
    assert!(report.seconds >= 0.18, "nine pauses: {}", report.seconds);
    assert!(report.latency.accept.p50_ms < 20.0, "a pause is no latency");
    // A greeting and an EHLO of some 200 octets at 1,000 a second.
    let report = load(&sink, "--messages 1 --connections 1 --slow-reader 100%:1000/s");
    sink.stop().unwrap();
    assert_eq!(report.messages.accepted, 1);
    assert!(report.seconds > 0.2, "{}", report.seconds);
}

#[test]
fn a_knee_is_found_where_the_sink_gets_slow() {
    let sink = sink(&["--discard", "--latency", "10ms"]);
    // Two connections and 10 ms for each message: 200 a second and no more.
    let mut seen = 0;
    let options = options(&sink, "--connections 2 --duration 200ms --find-knee 60ms");
    let knee = knee::find(&options, Duration::from_millis(60), |_| {
        seen += 1;
        Ok(())
    })
    .unwrap();
    sink.stop().unwrap();
    let rate = knee.knee_per_s.unwrap();
    assert!((60.0..260.0).contains(&rate), "{rate}");
    assert!(knee.too_much_per_s.unwrap() > rate);
    assert_eq!(knee.probes.len(), seen);
    assert!(knee.probes[0].rate.is_none() && seen > 5);
}

#[test]
fn no_knee_is_looked_for_where_the_same_share_fails_at_any_rate() {
    let sink = sink(&["--discard", "--reject", "452:50%:dot"]);
    let options = options(&sink, "--connections 4 --duration 200ms --find-knee 10s");
    let knee = knee::find(&options, Duration::from_secs(10), |_| Ok(())).unwrap();
    sink.stop().unwrap();
    let why = knee.fails_anyhow.unwrap();
    assert!(
        why.contains("% of the messages fail at any rate") && why.contains("452 4.0.0"),
        "{why}"
    );
    assert_eq!(knee.knee_per_s, None);
}

#[test]
fn results_can_be_looked_at_and_compared() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let sink = sink(&["--discard", "--reject", "451:5%:dot"]);
    let write = |name: &str, extra: &str| {
        let (json, html) = (path(&format!("{name}.json")), path(&format!("{name}.html")));
        let files = format!("--json {} --html {}", json.display(), html.display());
        let options = options(&sink, &format!("--duration 600ms --connections 4 {files} {extra}"));
        let report = load::run(&options).unwrap();
        report.write_files(&options).unwrap();
        report
    };
    let report = write("a", "");
    write("b", "--rate 200/s");
    sink.stop().unwrap();
    let text = fs::read_to_string(path("a.html")).unwrap();
    for part in [
        "<!DOCTYPE html>",
        "prefers-color-scheme: dark",
        "Messages a second",
        "by percentile",
        "Failures a second",
        "451 4.0.0",
        "4 connections",
        &report.target,
        &report.machine.kernel,
    ] {
        assert!(text.contains(part), "{part}");
    }
    // Four charts, each for wide and for narrow windows.
    assert_eq!(text.matches("<svg ").count(), 8);
    assert_eq!(text.matches("<svg ").count(), text.matches("</svg>").count());
    for outside in ["http://", "https://", "<script", "url("] {
        assert!(!text.contains(outside), "the page needs nothing else: {outside}");
    }
    assert!(html::page(&report).contains("closed loop"));
    let comparison = diff::compare(&[path("a.json")], &[path("b.json")]).unwrap();
    assert_eq!(comparison.rows[0].verdict, "worse", "200 a second are less:\n{comparison}");
    assert!(comparison.differences.iter().any(|it| it.starts_with("loop:")), "{comparison}");
    let error = diff::compare(&[path("a.html")], &[path("b.json")]).unwrap_err();
    assert!(error.to_string().contains("not a result"), "{error}");
}

#[test]
fn a_reader_that_has_seen_enough_costs_no_results() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("all.json");
    let sink = sink(&["--discard"]);
    let mut command = Command::cargo_bin("ringpost-load").unwrap();
    command.arg(format!("--target={}", sink.addresses[0])).arg("--json").arg(&json);
    command.args(["--messages=5", "--connections=1", "--quiet"]).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    sink.stop().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
    assert!(fs::read_to_string(&json).unwrap().contains("\"accepted\": 5"));
}

#[test]
fn wrong_usage_is_told_before_anything_is_sent() {
    let sink = sink(&["--discard"]);
    let target = format!("--target={}", sink.addresses[0]);
    for (given, code, said) in [
        (["--target=127.0.0.1", "--quiet"], 2, "HOST:PORT"),
        ([&target, "--json=/no/such/folder"], 2, "cannot write /no/such/folder: there is no"),
        ([&target, "--html=/"], 2, "cannot write /: it is a folder"),
        ([&target, "--eml=/no/such/folder"], 1, "/no/such/folder"),
        (["--target=127.0.0.1:1", "--quiet"], 1, "cannot connect to 127.0.0.1:1"),
    ] {
        let output = Command::cargo_bin("ringpost-load").unwrap().args(given).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && text.contains(said), "{given:?}: {text}");
    }
    assert_eq!(sink.taken(), 0);
    sink.stop().unwrap();
}

#[test]
fn connections_are_opened_so_many_at_a_time() {
    let sink = sink(&["--discard"]);
    let report = load(&sink, "--opening 1 --connections 5 --duration 2s --think-time 20ms");
    sink.stop().unwrap();
    assert_eq!(report.latency.connect.count, 5, "each has its turn");
    // A server that never greets has only those that may be on their way, and does not
    // hold up the end.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("--target={}", silent.local_addr().unwrap());
    let given = "--quiet --opening 3 --connections 20 --duration 1500ms --timeout 1h";
    let given = ["ringpost-load", &target].into_iter().chain(given.split_whitespace());
    let report = load::run(&Cli::parse_from(given).options).unwrap();
    silent.set_nonblocking(true).unwrap();
    let connected = std::iter::from_fn(|| silent.accept().ok()).count();
    assert_eq!(connected, 1 + 3, "one to see that it is there");
    assert_eq!(count(&report, "waiting for the greeting", "the run was over before it came"), 3);
}
