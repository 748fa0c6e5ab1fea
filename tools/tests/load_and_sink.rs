//! The load generator against the sink over loopback, as the tools run in life:
//! what one says it sent, the other must have; what the sink does wrong on
//! purpose, the load generator must count.

#[path = "support/pair.rs"]
mod pair;

use std::fs;
use std::path::Path;

use clap::Parser;
use pair::{count, load, sink, verified};
use ringpost_tools::load;
use ringpost_tools::load::options::Cli;
use ringpost_tools::verify::compare;

#[test]
fn all_that_was_accepted_arrived_unchanged() {
    for extra in ["", "--pipelining", "--messages-per-connection 3", "--recipients 5"] {
        let (report, verdict) =
            verified(&[], &format!("--messages 500 --connections 7 --size 6KiB {extra}"));
        assert_eq!(report.messages.accepted, 500, "{extra}");
        assert_eq!(report.latency.accept.count, 500, "{extra}");
        assert_eq!(report.messages.refused + report.messages.unanswered, 0, "{extra}");
        assert!(report.failures.is_empty(), "{extra}");
        let recipients = if extra == "--recipients 5" { 5 } else { 1 };
        assert_eq!(verdict.sent, 500 * recipients, "{extra}");
        assert_eq!(verdict.received, verdict.sent, "{extra}");
        let rest = verdict.lost + verdict.damaged + verdict.duplicated + verdict.unacknowledged;
        assert_eq!(rest, 0, "{extra}");
        assert!(!verdict.end_to_end.is_empty());
    }
}

#[test]
fn the_corpus_and_folders_go_through_unchanged() {
    let (report, verdict) = verified(&[], "--messages 442 --connections 4 --corpus --pipelining");
    assert_eq!(report.messages.accepted, 442);
    assert!(report.messages.accepted_bytes > 2 << 20, "two of them are a mebibyte");
    assert!(verdict.is_good() && verdict.received == 442);

    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("one.eml"), "Subject: one\n\n.dot\n").unwrap();
    fs::write(dir.path().join("two.eml"), "Subject: zwei\n\nä\n").unwrap();
    let (report, verdict) =
        verified(&[], &format!("--messages 10 --connections 2 --eml {}", dir.path().display()));
    assert_eq!(report.messages.accepted, 10);
    assert!(verdict.is_good() && verdict.received == 10);
}

#[test]
fn several_cores_share_one_ledger_and_every_number_is_used_once() {
    let (report, verdict) =
        verified(&["--cores", "all"], "--messages 1001 --connections 9 --cores all");
    assert_eq!(report.messages.accepted, 1001);
    assert_eq!((verdict.messages, verdict.received), (1001, 1001));
    assert_eq!(verdict.duplicated, 0);
}

#[test]
fn an_open_loop_keeps_its_pace() {
    let sink = sink(&["--discard"]);
    let report = load(&sink, "--rate 400/s --duration 500ms --connections 4");
    sink.stop().unwrap();
    assert_eq!(report.messages.accepted, 200, "one for each beat");
    assert!(report.seconds > 0.45, "{}", report.seconds);
}

#[test]
fn an_open_loop_counts_the_wait_behind_a_slow_server() {
    let sink = sink(&["--discard", "--latency", "20ms"]);
    // One connection takes 50 messages a second, and 200 are due.
    let report = load(&sink, "--rate 200/s --messages 40 --connections 1");
    sink.stop().unwrap();
    assert_eq!(report.messages.accepted, 40);
    assert!(report.latency.accept.p50_ms > 200.0, "{}", report.latency.accept.p50_ms);
    assert!(report.latency.accept.max_ms > 500.0, "{}", report.latency.accept.max_ms);
}

#[test]
fn warm_up_is_left_out() {
    let sink = sink(&["--discard"]);
    let report = load(&sink, "--rate 200/s --warmup 250ms --duration 250ms --connections 2");
    sink.stop().unwrap();
    assert_eq!(report.messages.accepted_in_all, 100);
    assert_eq!(report.messages.accepted, 50);
    assert_eq!(report.latency.accept.count, 50);
}

#[test]
fn refusals_are_counted_by_step_and_code() {
    for (reject, stage, what) in [
        ("451:1:mail", "MAIL or DATA", "451 4.0.0"),
        ("550:1:rcpt", "RCPT", "550 5.0.0"),
        ("452:1:data", "MAIL or DATA", "452 4.0.0"),
        ("554:1:dot", "end of data", "554 5.0.0"),
    ] {
        for extra in ["", "--pipelining"] {
            let sink = sink(&["--discard", "--reject", reject]);
            let report = load(&sink, &format!("--messages 20 --connections 2 {extra}"));
            assert_eq!(sink.taken(), 0, "{reject} {extra}");
            sink.stop().unwrap();
            assert_eq!(report.messages.refused, 20, "{reject} {extra}");
            assert_eq!(count(&report, stage, what), 20, "{reject} {extra}");
        }
    }
}

#[test]
fn a_refused_recipient_does_not_take_the_others_along() {
    let (report, verdict) =
        verified(&["--reject", "450:30%"], "--messages 200 --recipients 4 --connections 3");
    assert!(report.messages.accepted > 0 && count(&report, "RCPT", "450 4.0.0") > 0);
    assert_eq!(report.messages.accepted_recipients, verdict.sent);
    assert!(verdict.sent < 800 && verdict.is_good());
    assert_eq!(verdict.unacknowledged, 0);
}

#[test]
fn a_session_that_is_turned_away_is_counted() {
    let sink = sink(&["--discard", "--reject", "421:50%:connect"]);
    let report = load(&sink, "--messages 40 --messages-per-connection 1 --connections 8");
    sink.stop().unwrap();
    assert_eq!(report.messages.accepted, 40);
    assert!(count(&report, "waiting for the greeting", "421 4.0.0") > 0);
}

#[test]
fn what_is_dropped_after_the_dot_counts_as_unanswered_and_is_not_noted() {
    let (report, verdict) =
        verified(&["--drop-after-dot", "20%"], "--messages 100 --connections 4");
    assert!(report.messages.unanswered > 0);
    assert_eq!(report.messages.accepted + report.messages.unanswered, 100);
    assert_eq!(verdict.received, report.messages.accepted);
    assert_eq!((verdict.lost, verdict.unacknowledged), (0, 0));
}

#[test]
fn too_large_a_message_is_refused() {
    let sink = sink(&["--discard", "--message-size", "10KiB"]);
    let report = load(&sink, "--messages 4 --size 20KiB --connections 1");
    sink.stop().unwrap();
    assert_eq!(report.messages.refused, 4);
    assert_eq!(count(&report, "before MAIL", "552 5.3.4"), 4);
}

#[test]
fn a_maildir_gets_each_message() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display().to_string();
    let sink = sink(&["--maildir", &path]);
    let report = load(&sink, "--messages 11 --connections 2 --corpus");
    sink.stop().unwrap();
    assert_eq!(report.messages.accepted, 11);
    let texts: Vec<String> = fs::read_dir(dir.path().join("new"))
        .unwrap()
        .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    assert_eq!(texts.len(), 11);
    assert!(texts.iter().all(|text| text.starts_with("Return-Path: <load@example.org>\n")));
    assert!(texts.iter().any(|text| text.contains("\n\n.\n..\n...\n.hidden\n")), "the dots");
    assert!(!texts.iter().any(|text| text.contains('\r')));
}

#[test]
fn files_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let sink = sink(&["--discard"]);
    let target = format!("--target={}", sink.addresses[0]);
    let (json, hgrm) = (path("run.json"), path("run.hgrm"));
    let given = ["ringpost-load", &target, "--messages=50", "--connections=2", "--json", &json];
    let given = given.into_iter().chain(["--hgrm", &hgrm]).map(String::from).collect();
    let code = load::main_with(given);
    sink.stop().unwrap();
    assert_eq!(format!("{code:?}"), format!("{:?}", std::process::ExitCode::SUCCESS));
    let run: serde_json::Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    assert_eq!(run["messages"]["accepted"], 50);
    assert_eq!(run["latency"]["accept"]["count"], 50);
    assert!(fs::read_to_string(hgrm).unwrap().contains("Total count    =           50]"));
}

#[test]
fn a_target_that_does_not_answer_is_an_error_at_once() {
    let sink = sink(&["--discard"]);
    let target = format!("--target={}", sink.addresses[0]);
    sink.stop().unwrap();
    let cli = Cli::parse_from(["ringpost-load", &target, "--messages=1"]);
    let error = load::run(&cli.options).err().unwrap().to_string();
    assert!(error.starts_with("cannot connect to 127.0.0.1:"), "{error}");
    let missing = ["ringpost-load", "--eml", "/nonexistent"];
    assert!(load::run(&Cli::parse_from(missing).options).is_err());
    assert!(compare(&[], Path::new("/nonexistent"), |_| ()).is_err());
}

#[test]
fn what_is_wrong_with_a_target_or_a_file_is_said_by_name() {
    for target in ["mail.example.org", "mail.example.org:smtp"] {
        let cli = Cli::parse_from(["ringpost-load", "--target", target]);
        let error = load::run(&cli.options).err().unwrap().to_string();
        assert!(error.contains(target) && error.contains("HOST:PORT"), "{error}");
    }
    let nowhere = std::path::PathBuf::from("no/such/ledger");
    let error = compare(std::slice::from_ref(&nowhere), &nowhere, |_| ()).err().unwrap();
    assert!(error.to_string().contains("no/such/ledger"), "{error}");
}
