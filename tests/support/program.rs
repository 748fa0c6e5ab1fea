//! Programs that others have made, as peers for tests: whether they are there, and
//! how one is run.

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Whether `program` is in the path; says so if not. Where CI is set it must be.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    is_there(program, std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// Whether this runs as root.
pub fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    output.stdout.trim_ascii() == b"0"
}

/// `found`, and a word on what is missing.
pub fn is_there(what: &str, found: bool) -> bool {
    assert!(found || std::env::var_os("CI").is_none(), "{what} is missing, which CI must have");
    if !found {
        eprintln!("{what} is missing: the test did not run");
    }
    found
}

/// Runs a program to its end, with `input` to read.
pub fn run(command: &mut Command, input: &[u8]) -> Output {
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    // One that fails may not have read it.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// What a program said, which must have succeeded.
#[track_caller]
pub fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// All that a program said.
pub fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{}: {out}\n{err}", output.status)
}

/// A message to compare by octets: its text is `name` and what is easily changed on
/// the way. Lines end in CRLF.
pub fn tricky(name: &str) -> Vec<u8> {
    let long = "long".repeat(200);
    format!(
        "From: Alice <alice@x.test>\r\nTo: b@y.test\r\nSubject: Gr\u{fc}\u{df}e\r\n\
         Date: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-ID: <{name}@x.test>\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Transfer-Encoding: 8bit\r\nX-Test: {name}\r\n\r\n\
         .\r\n..\r\n.dot\r\n...\r\n \r\ntrailing \t\r\n\r\nFrom here on\r\n\
         Bcc: in the text\r\n{long}\r\n\u{20ac}\u{85}\u{2028}=20=\r\n.{long}\r\n\r\n\r\n"
    )
    .into_bytes()
}

/// What stands in front of `message` in `body`, which must end in it unchanged.
#[track_caller]
pub fn added(body: &[u8], message: &[u8]) -> String {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    let Some(prefix) = body.strip_suffix(message) else {
        let same = body.iter().rev().zip(message.iter().rev()).take_while(|(a, b)| a == b).count();
        let [got, sent] = [body, message]
            .map(|octets| text(&octets[octets.len().saturating_sub(same + 200)..][..200]));
        panic!("changed on the way, {same} octets before its end: {got:?} was {sent:?}");
    };
    text(prefix)
}

/// The names of the header fields in `head`.
pub fn fields(head: &str) -> Vec<&str> {
    let names = head.lines().filter(|line| !line.starts_with([' ', '\t']));
    names.map(|line| line.split(':').next().unwrap_or(line)).collect()
}
