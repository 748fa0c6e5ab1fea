//! The comparison as a whole, small: servers are started, measured, stopped and
//! told of in a document.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Child, Command, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::prelude::*;

#[test]
fn a_small_run_measures_starts_and_cleans_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    // A server of the user's own that lets go of the process it was started as.
    let mine = "name = \"mine\"\nmodes = [\"accept\"]\nversion = [\"echo\", \"mine 7\"]\n\
                prepare = [[\"mkdir\", \"{dir}/spool\"]]\n\
                start = [\"sh\", \"-c\", \"test -d {dir}/spool && . {dir}/run\"]\n\
                [[file]]\npath = \"run\"\n\
                text = \"sleep 600 | {self} __sink --listen {address} {how} &\\nread gone\\n\"\n\
                [values.accept]\nhow = \"--discard\"\n";
    fs::write(path("mine.toml"), mine).unwrap();
    let mut command = Command::cargo_bin("ringpost-compare").unwrap();
    command.args(["--quick", "--only=sink,ringpost,mine", "--server", &path("mine.toml")]);
    command.args(["--data", &path("data"), "--json", &path("all.json"), "--out", &path("all.md")]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let all: serde_json::Value =
        serde_json::from_slice(&fs::read(path("all.json")).unwrap()).unwrap();
    let measurements = all["measurements"].as_array().unwrap();
    let told: Vec<(&str, &str)> = measurements
        .iter()
        .map(|it| (it["setting"]["mode"].as_str().unwrap(), it["server"].as_str().unwrap()))
        .collect();
    let accepting = ["sink", "ringpost", "mine"].map(|server| ("accept", server));
    assert_eq!(told, [&accepting[..], &[("relay", "ringpost")]].concat());
    for it in measurements {
        assert!(it["accepted_per_s"].as_f64().unwrap() > 0.0, "{it}");
        assert!(it["cpu_s_per_1000"].as_f64().unwrap() > 0.0, "{it}");
        assert!(it["memory_mib"].as_f64().unwrap() > 0.5, "{it}");
        assert_eq!((it["failed"].as_u64(), it["stuck"].as_u64()), (Some(0), Some(0)), "{it}");
    }
    assert!(measurements[3]["relayed_per_s"].as_f64().unwrap() > 0.0);
    let document = fs::read_to_string(path("all.md")).unwrap();
    for part in ["| mine | mine 7 |", "## Accepting and relaying, 4 KiB", "| 10 | ringpost |"] {
        assert!(document.contains(part), "{part}\n{document}");
    }
    assert!(!dir.path().join("data/server").exists(), "its folder is gone");
}

#[test]
fn servers_are_measured_over_tls_if_they_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let mine = "name = \"mine\"\nmodes = [\"accept\"]\n\
                start = [\"{self}\", \"__sink\", \"--discard\", \"--listen={address}\"]\n";
    fs::write(path("mine.toml"), mine).unwrap();
    let mut command = Command::cargo_bin("ringpost-compare").unwrap();
    command.args(["--quick", "--only=sink,ringpost,mine", "--tls=kept,new", "--idle=0"]);
    command.args(["--server", &path("mine.toml"), "--data", &path("data")]);
    command.args(["--json", &path("all.json"), "--out", &path("all.md")]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let all: serde_json::Value =
        serde_json::from_slice(&fs::read(path("all.json")).unwrap()).unwrap();
    let measurements = all["measurements"].as_array().unwrap();
    let told: Vec<(&str, &str)> = measurements
        .iter()
        .map(|it| (it["setting"]["tls"].as_str().unwrap(), it["server"].as_str().unwrap()))
        .collect();
    let both = |tls| [(tls, "sink"), (tls, "ringpost")];
    assert_eq!(told, [both("kept"), both("new")].concat());
    for it in measurements {
        let rate = |name: &str| it[name].as_f64().unwrap();
        assert!(rate("accepted_per_s") > 0.0 && it["failed"] == 0, "{it}");
        // With a connection for each message there is a handshake for each.
        let is_new = it["setting"]["tls"] == "new";
        assert_eq!(rate("handshakes_per_s") >= rate("accepted_per_s") * 0.9, is_new, "{it}");
    }
    let document = fs::read_to_string(path("all.md")).unwrap();
    for part in ["over TLS, connections kept, 4 KiB", "message, 4 KiB", "| handshakes/s |"] {
        assert!(document.contains(part), "{part}\n{document}");
    }
}

#[test]
fn a_server_that_does_not_start_is_told_with_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.toml");
    fs::write(&file, "name = \"bad\"\nstart = [\"sh\", \"-c\", \"echo no >&2; exit 3\"]\n")
        .unwrap();
    let mut command = Command::cargo_bin("ringpost-compare").unwrap();
    command.args(["--quick", "--only=bad", "--server"]).arg(&file);
    let output = command.arg("--data").arg(dir.path().join("data")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("bad: it ended: exit status: 3, see "), "{said}");
    assert_eq!(fs::read_to_string(dir.path().join("data/server.log")).unwrap(), "no\n");
}

#[test]
fn a_signal_stops_the_server_that_runs_and_then_the_comparison() {
    // Whoever runs the tests may have SIGHUP ignored.
    let hangup = (!is_in("SigIgn:", HUP, process::id())).then_some("HUP");
    for signal in ["TERM"].into_iter().chain(hangup) {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let mut command = Command::cargo_bin("ringpost-compare").unwrap();
        command.args(["--only=ringpost", "--modes=accept", "--duration=60s", "--idle=0"]);
        command.arg("--data").arg(&data).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        await_file(&mut child, &data.join("load.log"));
        send(&child, signal);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{signal}: {said}");
        assert!(said.contains("interrupted"), "{signal}: {said}");
        assert!(!data.join("server").exists(), "{signal}: the server's folder is gone");
    }
}

/// A server with a process that sees nothing of its end, and that takes its time to stop.
const SLOW_TO_STOP: &str = r#"
name = "mine"
modes = ["accept"]
start = ["sh", "{dir}/run"]
stop = ["sh", "-c", "touch {dir}/stopping; sleep 600"]

[[file]]
path = "run"
text = """
sleep 600 &
echo $! >{dir}/pid
exec {self} __sink --discard --listen={address}
"""
"#;

#[test]
fn a_second_signal_leaves_no_server_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("mine.toml"), SLOW_TO_STOP).unwrap();
    let mut command = Command::cargo_bin("ringpost-compare").unwrap();
    command.args(["--only=mine", "--modes=accept", "--duration=60s", "--idle=0", "--tls=no"]);
    command.arg("--server").arg(path("mine.toml")).arg("--data").arg(path("data"));
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    await_file(&mut child, &path("data/load.log"));
    send(&child, "INT");
    await_file(&mut child, &path("data/server/stopping"));
    let pid = fs::read_to_string(path("data/server/pid")).unwrap();
    let left = Path::new("/proc").join(pid.trim());
    assert!(left.exists());
    send(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(!left.exists(), "process {pid} is left");
}

#[test]
fn a_closed_terminal_means_nothing_where_it_is_ignored() {
    let usual = !is_in("SigIgn:", HUP, process::id());
    for (prelude, is_heeded) in [(":", usual), ("trap '' HUP", false)] {
        let dir = tempfile::tempdir().unwrap();
        let program = Command::cargo_bin("ringpost-compare").unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{prelude}; exec \"$@\""), "sh"]).arg(program.get_program());
        command.args(["--only=sink", "--modes=accept", "--duration=60s", "--idle=0", "--tls=no"]);
        let command = command.arg("--data").arg(dir.path());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        await_file(&mut child, &dir.path().join("load.log"));
        let caught = [HUP, TERM].map(|signal| is_in("SigCgt:", signal, child.id()));
        send(&child, "TERM");
        assert_eq!(child.wait().unwrap().code(), Some(1));
        assert_eq!(caught, [is_heeded, true], "{prelude}");
    }
}

/// Numbers of signals.
const HUP: u32 = 1;
const TERM: u32 = 15;

/// Whether the signal is in this set (`SigIgn:`, `SigCgt:`) of the process.
fn is_in(set: &str, signal: u32, pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let set = status.lines().find_map(|line| line.strip_prefix(set)).unwrap();
    u64::from_str_radix(set.trim(), 16).unwrap() >> (signal - 1) & 1 == 1
}

fn send(child: &Child, signal: &str) {
    let status = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
    assert!(status.unwrap().success());
}

/// Waits until `child` has made the file at `path`.
fn await_file(child: &mut Child, path: &Path) {
    let begun = Instant::now();
    while !path.exists() {
        assert!(begun.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A comparison that gets a SIGINT, with all that it has started, when the first of four
/// measurements is over. What it said on standard error, unless nobody listened any more.
fn interrupted(is_heard: bool) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let mut command = Command::cargo_bin("ringpost-compare").unwrap();
    command.args(["--only=sink", "--modes=accept", "--connections=1", "--sizes=1KiB", "--tls=no"]);
    command.args(["--idle=0", "--duration=1500ms", "--rounds=2", "--data", &path("data")]);
    command.args(["--json", &path("all.json"), "--out", &path("all.md")]);
    // A group of its own, so that the signal can meet all of it, as Ctrl-C does.
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut lines = String::new();
    while !lines.contains(" accepted/s") {
        assert!(said.read_line(&mut lines).unwrap() > 0, "{lines}");
    }
    let mut said = Some(said).filter(|_| is_heard);
    Command::new("kill").args(["-INT", "--", &format!("-{}", child.id())]).status().unwrap();
    if let Some(said) = &mut said {
        said.read_to_string(&mut lines).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{lines}");
    let all: serde_json::Value =
        serde_json::from_slice(&fs::read(path("all.json")).unwrap()).unwrap();
    // One, or more if the signal was long on its way.
    let measured = all["measurements"].as_array().unwrap().len();
    assert!((1..4).contains(&measured), "{all}");
    assert_eq!((&all["interrupted"], &all["planned"]), (&true.into(), &4.into()));
    let document = fs::read_to_string(path("all.md")).unwrap();
    assert!(document.contains(&format!("Cut off after {measured} of 4")), "{document}");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(printed.trim(), document.trim());
    lines
}

#[test]
fn what_was_measured_before_a_signal_is_written() {
    let lines = interrupted(true);
    assert!(lines.trim_end().ends_with("interrupted"), "{lines}");
    // The signal may have ended what its words went to.
    interrupted(false);
}

#[test]
fn a_load_that_fails_does_not_have_the_figures_of_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    // It says that it can do TLS, and does not offer it.
    let mine = "name = \"mine\"\nmodes = [\"accept\"]\n\
                start = [\"{self}\", \"__sink\", \"--discard\", \"--listen={address}\"]\n\
                [values.tls]\nwith = \"tls\"\n";
    fs::write(path("mine.toml"), mine).unwrap();
    let mut command = Command::cargo_bin("ringpost-compare").unwrap();
    command.args(["--quick", "--only=mine", "--tls=no,kept", "--idle=0"]);
    command.args(["--server", &path("mine.toml"), "--data", &path("data")]);
    command.args(["--json", &path("all.json"), "--out", &path("all.md")]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let all: serde_json::Value =
        serde_json::from_slice(&fs::read(path("all.json")).unwrap()).unwrap();
    let measurements = all["measurements"].as_array().unwrap();
    let tls: Vec<&serde_json::Value> =
        measurements.iter().map(|it| &it["setting"]["tls"]).collect();
    assert_eq!(tls, [&serde_json::Value::from("no")]);
    let missing = all["missing"][0].as_str().unwrap();
    assert!(missing.contains("mine: ") && missing.contains("does not offer STARTTLS"), "{missing}");
}
