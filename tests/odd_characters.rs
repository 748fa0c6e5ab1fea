//! CR, LF, NUL and what else has been taken for the end of a line or of a word, in
//! every argument and parameter of every command, as they are and in xtext: nothing
//! of it is taken, and one line is never two commands. Against a whole server.

mod support;

use support::process::Server;
use support::raw::Raw;

/// What is put into commands: control characters, line ends of Unicode, octets that
/// are no UTF-8, and spellings of CR and LF that are not the shortest.
const ODD: [&[u8]; 22] = [
    b"\r",
    b"\n",
    b"\0",
    b"\r\r",
    b"\n\r",
    b"\x0b",
    b"\x0c",
    b"\x1a",
    b"\x1b",
    b"\x7f",
    b"\x85",
    b"\xff",
    b"\xc2",
    b"\xc2\x80",
    b"\xc2\x85",
    b"\xc2\xa0",
    b"\xe2\x80\xa8",
    b"\xe2\x80\xa9",
    b"\xe3\x80\x80",
    b"\xc0\x8a",
    b"\xe0\x80\x8d",
    b"\xed\xa0\x80",
];

/// Where: `{}` in a command. Those of the second list come within a transaction.
const FIRST: [&str; 33] = [
    "EHLO a{}b",
    "EHLO {}",
    "HELO a{}b",
    "MAIL FROM:<a{}b@x.test> SMTPUTF8",
    "MAIL FROM:<\"a{}b\"@x.test> SMTPUTF8",
    "MAIL FROM:<a@x{}y.test> SMTPUTF8",
    "MAIL FROM:<@r{}s.test:a@x.test> SMTPUTF8",
    "MAIL FROM:<a@[127.0.0.1{}]> SMTPUTF8",
    "MAIL FROM:<a@[tag:{}]> SMTPUTF8",
    "MAIL FROM:<a@x.test>{} SMTPUTF8",
    "MAIL FROM:<a@x.test> SMTPUTF8{}SIZE=1",
    "MAIL FROM:<a@x.test> SMTPUTF8{}",
    "MAIL FROM:<a@x.test> SIZE={}1",
    "MAIL FROM:<a@x.test> SIZE=1{}",
    "MAIL FROM:<a@x.test> BODY=8BITMIME{}",
    "MAIL FROM:<a@x.test> RET=FULL{}",
    "MAIL FROM:<a@x.test> ENVID=a{}b",
    "MAIL FROM:<a@x.test> AUTH=a{}b@x.test",
    "MAIL FROM:<a@x.test> BY=60;N{}",
    "MAIL FROM:<a@x.test> BY=60{};N",
    "MAIL FROM:<a@x.test> HOLDFOR=60{}",
    "MAIL FROM:<a@x.test> HOLDUNTIL=2030-01-01T00:00:00{}Z",
    "MAIL FROM:<a@x.test> MT-PRIORITY=1{}",
    "MAIL FROM:<a@x.test> REQUIRETLS{}",
    "MAIL FROM:<a@x.test> X{}Y=1",
    "MAIL{}FROM:<a@x.test>",
    "ETRN a{}b.test",
    "VRFY a{}b@x.test",
    "EXPN a{}b",
    "XCLIENT NAME=a{}b",
    "XCLIENT LOGIN=a{}b",
    "XCLIENT ADDR=192.0.2.1{}",
    "XFORWARD IDENT=a{}b",
];
const WITHIN: [&str; 11] = [
    "RCPT TO:<a{}b@y.test>",
    "RCPT TO:<\"a{}b\"@y.test>",
    "RCPT TO:<a@x{}y.test>",
    "RCPT TO:<@r{}s.test:a@y.test>",
    "RCPT TO:<a@y.test>{}",
    "RCPT TO:<a@y.test> NOTIFY=NEVER{}",
    "RCPT TO:<a@y.test> NOTIFY=DELAY,{}FAILURE",
    "RCPT TO:<a@y.test> ORCPT=rfc822;a{}b@y.test",
    "RCPT TO:<a@y.test> ORCPT=rfc822{};a@y.test",
    "RCPT TO:<a@y.test> ORCPT=utf-8;a{}b@y.test",
    "DATA{}",
];

/// Behind a parameter whose value is xtext.
const XTEXT: [&str; 7] = ["+0D", "+0A", "+00", "+0D+0A", "+85", "+C2+85", "+E2+80+A8"];

fn start() -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let listener = r#"listener=[{address="127.0.0.1:0", vrfy=true, expn=true, xclient_from=["127.0.0.1"], xforward_from=["127.0.0.1"]}]"#;
    let discard = r#"route=[{domain="*", next_hop="discard"}]"#;
    let errors = "limits.errors_per_session=1000";
    let settings = [listener, discard, errors, "limits.commands_ahead=allow"];
    let server = Server::start(dir.path(), &settings);
    (dir, server)
}

/// Sends a line; everything that is said to it is a refusal. The session has another
/// one after that if it is ended.
fn is_refused(server: &Server, raw: &mut Raw, line: &[u8]) {
    let shown = line.escape_ascii();
    raw.send(line);
    raw.send(b"\r\n");
    // Of no effect, and with a reply that nothing else has.
    raw.send(b"HELP\r\n");
    let mut refusals = 0;
    loop {
        let said = raw.reply();
        match said.get(..1) {
            Some("5") => refusals += 1,
            Some("2") if said.starts_with("214 ") => break,
            _ => panic!("{shown}: {said:?}"),
        }
        if said.starts_with("521 ") {
            *raw = session(server);
            return;
        }
    }
    let most = 1 + line.iter().filter(|octet| **octet == b'\n').count();
    assert!((1..=most).contains(&refusals), "{shown}: {refusals} replies");
}

fn session(server: &Server) -> Raw {
    let mut raw = Raw::greeted(server.smtp);
    assert!(raw.ask("EHLO client.test").starts_with("250 "));
    raw
}

/// A command with `odd` in its place.
fn with(template: &str, odd: &[u8]) -> Vec<u8> {
    let (before, after) = template.split_once("{}").unwrap();
    [before.as_bytes(), odd, after.as_bytes()].concat()
}

/// The log is lines of the server's, with nothing odd in them.
fn check_log(server: &Server) {
    for line in server.log().lines() {
        assert!(line.starts_with("20") && line.contains("Z "), "{line:?}");
        // Colours are the terminal's, which this is not.
        assert!(
            !line.contains(|c: char| c.is_control() || "\u{2028}\u{2029}".contains(c)),
            "{line:?}"
        );
    }
}

#[test]
fn nothing_odd_stands_in_a_command() {
    let (_dir, server) = start();
    for template in FIRST {
        let mut raw = session(&server);
        for odd in ODD {
            is_refused(&server, &mut raw, &with(template, odd));
        }
    }
    for template in WITHIN {
        let mut raw = session(&server);
        assert!(raw.ask("MAIL FROM:<a@x.test> SMTPUTF8").starts_with("250 "));
        for odd in ODD {
            is_refused(&server, &mut raw, &with(template, odd));
        }
        let said = raw.ask("RCPT TO:<b@y.test>");
        assert!(said.starts_with("250 "), "{template}: the transaction is as it was: {said}");
    }
    check_log(&server);
}

#[test]
fn nothing_odd_is_hidden_in_xtext() {
    let (_dir, server) = start();
    for odd in XTEXT {
        let mut raw = session(&server);
        for template in [
            "MAIL FROM:<a@x.test> ENVID=a{}b",
            "MAIL FROM:<a@x.test> AUTH=a{}b@x.test",
            "XCLIENT NAME=a{}b",
            "XCLIENT HELO=a{}b",
            "XFORWARD IDENT=a{}b",
            "XFORWARD HELO=a{}b",
        ] {
            is_refused(&server, &mut raw, &with(template, odd.as_bytes()));
        }
        assert!(raw.ask("MAIL FROM:<a@x.test> SMTPUTF8").starts_with("250 "));
        for template in [
            "RCPT TO:<b@y.test> ORCPT=rfc822;a{}b@y.test",
            "RCPT TO:<b@y.test> ORCPT=utf-8;a{}b@y.test",
        ] {
            is_refused(&server, &mut raw, &with(template, odd.as_bytes()));
        }
    }
    check_log(&server);
}

#[test]
fn a_chunk_that_is_announced_oddly_ends_the_session() {
    let (_dir, server) = start();
    for template in ["BDAT{}5 LAST", "BDAT 5{} LAST", "BDAT 5 LAST{}"] {
        for odd in ODD {
            let mut raw = session(&server);
            assert!(raw.ask("MAIL FROM:<a@x.test>").starts_with("250 "));
            assert!(raw.ask("RCPT TO:<b@y.test>").starts_with("250 "));
            let line = with(template, odd);
            raw.send(&line);
            raw.send(b"\r\nRSET\r\n");
            let said = raw.hear();
            assert!(said.starts_with("521 5.5.4 "), "{}: {said}", line.escape_ascii());
            assert!(raw.is_closed(), "{}", line.escape_ascii());
        }
    }
}
