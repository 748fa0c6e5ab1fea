//! Real clients against the server: Python's `smtplib`, `swaks`, and Postfix's
//! `smtp-source` and `smtp-sink`. Each test runs where its peer is installed,
//! and says so where it is not.

mod support;

use std::net::SocketAddr;
use std::process::{Command, Output};

use support::peer::NextHop;
use support::process::Server;

fn installed(program: &str, probe: &[&str]) -> bool {
    let found = Command::new(program).args(probe).output().is_ok();
    if !found {
        eprintln!("{program} is not installed: its test did not run");
    }
    found
}

fn start(hop: SocketAddr) -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let route = format!(r#"route=[{{domain="*", next_hop=["{hop}"]}}]"#);
    let server = Server::start(dir.path(), &[&route]);
    (dir, server)
}

fn assert_success(output: &Output) {
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

const PYTHON: &str = r#"
import smtplib, sys
from email.message import EmailMessage
host, port = sys.argv[1].split(":")
with smtplib.SMTP(host, int(port)) as smtp:
    code, _ = smtp.ehlo("python.test")
    assert code == 250
    for name in ("pipelining", "8bitmime", "smtputf8", "enhancedstatuscodes", "size"):
        assert smtp.has_extn(name), name
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@x.test", "b@y.test", "Grüße"
    message["X-Test"] = "python"
    message.set_content("Grüße\n.\n..\n.dot\n")
    message.add_attachment(bytes(range(256)) * 64, maintype="application", subtype="octet-stream")
    refused = smtp.send_message(message)
    assert refused == {}
    code, _ = smtp.mail("jörg@x.test", options=["SMTPUTF8", "BODY=8BITMIME"])
    assert code == 250
    assert smtp.rset()[0] == 250
    assert smtp.vrfy("b@y.test")[0] == 252
    assert smtp.help() is not None
    assert smtp.docmd("NONSENSE")[0] == 500
"#;

#[test]
fn python_smtplib() {
    if !installed("python3", &["--version"]) {
        return;
    }
    let hop = NextHop::start();
    let (_dir, server) = start(hop.address);
    let output =
        Command::new("python3").args(["-c", PYTHON, &server.smtp.to_string()]).output().unwrap();
    assert_success(&output);
    let got = hop.wait(|got| got.len() == 1);
    assert_eq!(support::peer::header(&got[0].body, "X-Test").as_deref(), Some("python"));
    let text = String::from_utf8_lossy(&got[0].body);
    assert!(text.contains("\r\n.\r\n..\r\n.dot\r\n"), "dots were not kept: {text}");
}

#[test]
fn swaks() {
    if !installed("swaks", &["--version"]) {
        return;
    }
    let hop = NextHop::start();
    let (_dir, server) = start(hop.address);
    let output = Command::new("swaks")
        .args([
            "--server",
            &server.smtp.to_string(),
            "--from",
            "a@x.test",
            "--to",
            "b@y.test,c@y.test",
        ])
        .args(["--pipeline", "--header", "X-Test: swaks", "--body", ".\nbody"])
        .output()
        .unwrap();
    assert_success(&output);
    let got = hop.wait(|got| got.len() == 1);
    assert_eq!(support::peer::header(&got[0].body, "X-Test").as_deref(), Some("swaks"));
    assert_eq!(got[0].recipients, ["b@y.test", "c@y.test"]);
}

#[test]
fn postfix_smtp_source() {
    if !installed("smtp-source", &[]) {
        return;
    }
    let hop = NextHop::start();
    let (_dir, server) = start(hop.address);
    let output = Command::new("smtp-source")
        .args(["-s", "5", "-m", "50", "-l", "4096", "-r", "2", "-f", "a@x.test", "-t", "b@y.test"])
        .arg(server.smtp.to_string())
        .output()
        .unwrap();
    assert_success(&output);
    let got = hop.wait(|got| got.len() == 50);
    assert!(got.iter().all(|got| got.recipients.len() == 2));
}
