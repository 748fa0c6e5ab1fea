//! Real clients against the server: Python's `smtplib`, `swaks`, Postfix's
//! `smtp-source`, `msmtp` and `nodemailer`; and Python's `email`, which reads the
//! reports. Each test runs where its peer is installed, and says so where it is not;
//! where CI is set it has to be.

mod support;

#[path = "interop/msmtp.rs"]
mod msmtp;
#[path = "interop/nodemailer.rs"]
mod nodemailer;

use std::net::SocketAddr;
use std::process::Command;

use ringpost::base::{Disposition, EnhancedCode, Outcome, Reply, UnixMillis};
use ringpost::mail::report::{Kind, ReportInput, Reported, Returned, build};
use ringpost::mail::stuffing::unstuff;
use support::peer::NextHop;
use support::process::Server;
use support::program::{is_installed, succeeded};

fn start(hop: SocketAddr) -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let route = format!(r#"route=[{{domain="*", next_hop=["{hop}"]}}]"#);
    let server = Server::start(dir.path(), &[&route]);
    (dir, server)
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
    if !is_installed("python3") {
        return;
    }
    let hop = NextHop::start();
    let (_dir, server) = start(hop.address);
    let output =
        Command::new("python3").args(["-c", PYTHON, &server.smtp.to_string()]).output().unwrap();
    succeeded(&output);
    let got = hop.wait(|got| got.len() == 1);
    assert_eq!(support::peer::header(&got[0].body, "X-Test").as_deref(), Some("python"));
    let text = String::from_utf8_lossy(&got[0].body);
    assert!(text.contains("\r\n.\r\n..\r\n.dot\r\n"), "dots were not kept: {text}");
}

#[test]
fn swaks() {
    if !is_installed("swaks") {
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
    succeeded(&output);
    let got = hop.wait(|got| got.len() == 1);
    assert_eq!(support::peer::header(&got[0].body, "X-Test").as_deref(), Some("swaks"));
    assert_eq!(got[0].recipients, ["b@y.test", "c@y.test"]);
}

#[test]
fn postfix_smtp_source() {
    if !is_installed("smtp-source") {
        return;
    }
    let hop = NextHop::start();
    let (_dir, server) = start(hop.address);
    let output = Command::new("smtp-source")
        .args(["-s", "5", "-m", "50", "-l", "4096", "-r", "2", "-f", "a@x.test", "-t", "b@y.test"])
        .arg(server.smtp.to_string())
        .output()
        .unwrap();
    succeeded(&output);
    let got = hop.wait(|got| got.len() == 50);
    assert!(got.iter().all(|got| got.recipients.len() == 2));
}

/// Reads reports from files, and prints what each tells: kind, sender, and the
/// fields of each recipient in one line.
const READER: &str = r#"
import email, email.policy, sys
for name in sys.argv[1:]:
    with open(name, "rb") as file:
        report = email.message_from_binary_file(file, policy=email.policy.default)
    parts = list(report.iter_parts())
    for part in report.walk():
        assert not part.defects, (name, part.defects)
    assert report.get_content_type() == "multipart/report", name
    assert report.get_param("report-type") == "delivery-status", name
    assert report["Auto-Submitted"] == "auto-replied" and report["Message-ID"], name
    assert len(parts) == 3 and parts[0].get_content_type() == "text/plain", name
    words = " ".join(parts[0].get_content().split())
    status = parts[1].get_payload()
    if parts[1].get_content_type() == "message/global-delivery-status":
        # Python knows no more of it than that it begins with fields.
        text = status[0].get_payload(decode=True).decode("utf-8").replace("\r\n", "\n")
        status += [email.message_from_string(fields, policy=email.policy.default)
                   for fields in text.strip().split("\n\n")]
    assert "Reporting-MTA" in status[0] and "Arrival-Date" in status[0], name
    print("|".join([
        report["Subject"], status[0].get("Original-Envelope-Id", ""),
        parts[1].get_content_type(), parts[2].get_content_type(),
    ]))
    assert status[1:], name
    for fields in status[1:]:
        address = fields["Final-Recipient"].split(";")[1].strip()
        assert address in words or "\\x{" in address, (name, address, words)
        assert fields["Diagnostic-Code"] and fields["Last-Attempt-Date"], name
        names = ("Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA")
        print("|".join([" "] + [fields.get(name, "") for name in names]))
"#;

/// What Python's `email` makes of these reports.
fn read_by_python(reports: &[Vec<u8>]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("python3");
    command.args(["-c", READER]);
    for (number, report) in reports.iter().enumerate() {
        let path = dir.path().join(format!("{number}.eml"));
        std::fs::write(&path, report).unwrap();
        command.arg(path);
    }
    let output = command.env("PYTHONIOENCODING", "utf-8").output().unwrap();
    succeeded(&output);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn python_email_reads_every_kind_of_report() {
    if !is_installed("python3") {
        return;
    }
    let outcome = |disposition, reply| Outcome {
        recipient: 0,
        disposition,
        reply,
        host: "192.0.2.9:25".into(),
        at: UnixMillis(1_700_000_100_000),
        attempts: 3,
        next_attempt: UnixMillis(0),
        security: None,
    };
    let failed = outcome(Disposition::Failed, Reply::new(550, EnhancedCode(5, 1, 1), "gr\u{fc}n"));
    let late = outcome(Disposition::Deferred, Reply::new(450, EnhancedCode(4, 2, 1), "busy"));
    let taken = outcome(Disposition::Delivered, Reply::new(250, EnhancedCode(2, 0, 0), "ok"));
    let hostile = "no\r\n--report-s--\r\n\r\nX-Evil: 1\u{2028}\u{85}\0".to_owned();
    let hostile = outcome(Disposition::Failed, Reply::new(550, EnhancedCode(5, 0, 0), hostile));
    let original = "Received: x\r\nSubject: Gr\u{fc}\u{df}e\r\n\r\n--report-s\r\n\r\n.\r\n";
    let report = |kind, sender, address, outcome, returned| {
        let report = build(&ReportInput {
            kind,
            host: "relay.example",
            sender,
            envid: Some("QQ+20314"),
            queue_id: "000000000000G00Z",
            arrival: UnixMillis(1_700_000_000_000),
            retry_until: UnixMillis(1_700_400_000_000),
            deliver_by: None,
            hold_until: None,
            is_overdue: false,
            recipients: &[Reported { address, orcpt: Some("rfc822;a+2Bb@old.example"), outcome }],
            original: original.as_bytes(),
            returned,
            now: UnixMillis(1_700_000_101_000),
            seed: "s",
        });
        unstuff(&report.body)
    };
    let (ascii, global) = ("ann@example.net", "\u{e4}nn@example.net");
    let said = read_by_python(&[
        report(Kind::Failed, ascii, "j\u{f6}rg@x.example", &failed, Returned::Header),
        report(Kind::Failed, global, "j\u{f6}rg@x.example", &failed, Returned::Whole),
        report(Kind::Delayed, ascii, "bob@x.example", &late, Returned::Header),
        report(Kind::Relayed, ascii, "bob@x.example", &taken, Returned::Header),
        report(Kind::Failed, ascii, "bob@x.example", &hostile, Returned::TooLong),
    ]);
    let lines: Vec<_> = said.lines().collect();
    let status = "QQ 314|message/delivery-status|text/rfc822-headers";
    let orcpt = " |rfc822; a+b@old.example|";
    let expected = [
        format!("Undelivered mail: returned to sender|{status}"),
        format!(r"{orcpt}utf-8; j\x{{F6}}rg@x.example|failed|5.1.1|dns; [192.0.2.9]"),
        "Undelivered mail: returned to sender|QQ 314|message/global-delivery-status|message/global"
            .to_owned(),
        format!("{orcpt}utf-8; j\u{f6}rg@x.example|failed|5.1.1|dns; [192.0.2.9]"),
        format!("Delayed mail: still being tried|{status}"),
        format!("{orcpt}rfc822; bob@x.example|delayed|4.2.1|dns; [192.0.2.9]"),
        format!("Mail passed on: no report on its delivery will come|{status}"),
        format!("{orcpt}rfc822; bob@x.example|relayed|2.0.0|dns; [192.0.2.9]"),
        format!("Undelivered mail: returned to sender|{status}"),
        format!("{orcpt}rfc822; bob@x.example|failed|5.0.0|dns; [192.0.2.9]"),
    ];
    assert_eq!(lines, expected);
}

const ASKING: &str = r#"
import smtplib, sys
host, port = sys.argv[1].split(":")
with smtplib.SMTP(host, int(port)) as smtp:
    smtp.ehlo("python.test")
    assert smtp.has_extn("dsn")
    assert smtp.mail("a@x.test", ["RET=FULL", "ENVID=QQ+2B1"])[0] == 250
    assert smtp.rcpt("bad@y.test", ["NOTIFY=FAILURE", "ORCPT=rfc822;b+2Bad@y.test"])[0] == 250
    assert smtp.rcpt("quiet-bad@y.test", ["NOTIFY=NEVER"])[0] == 250
    assert smtp.rcpt("good@y.test", ["NOTIFY=SUCCESS,FAILURE"])[0] == 250
    assert smtp.rcpt("other@y.test", ["NOTIFY=SOMETIMES"])[0] == 501
    assert smtp.data("Subject: x\r\n\r\nwhole text\r\n")[0] == 250
"#;

#[test]
fn python_smtplib_asks_for_reports_and_gets_them() {
    if !is_installed("python3") {
        return;
    }
    let refuse = |address: &str| address.contains("bad@").then(|| "550 5.1.1 no".to_owned());
    let hop = NextHop::with(refuse);
    let (_dir, server) = start(hop.address);
    let output =
        Command::new("python3").args(["-c", ASKING, &server.smtp.to_string()]).output().unwrap();
    succeeded(&output);
    let got = hop.wait(|got| got.len() == 3);
    let reports = got.iter().filter(|got| got.sender.is_empty());
    let reports: Vec<_> = reports.map(|got| got.body.clone()).collect();
    let whole =
        reports.iter().filter(|report| String::from_utf8_lossy(report).contains("whole text"));
    assert_eq!((reports.len(), whole.count()), (2, 1));
    let said = read_by_python(&reports);
    let recipients: Vec<_> = said.lines().filter_map(|line| line.strip_prefix(" |")).collect();
    let of = |wanted: &str| recipients.iter().filter(|line| line.contains(wanted)).count();
    assert_eq!(recipients.len(), 2, "{said}");
    assert_eq!(of("rfc822; b+ad@y.test|rfc822; bad@y.test|failed|5.1.1|dns; [127.0.0.1]"), 1);
    assert_eq!(of("|rfc822; good@y.test|relayed|2.0.0|dns; [127.0.0.1]"), 1, "{said}");
    assert_eq!(said.matches("|QQ+1|").count(), 2, "{said}");
}
