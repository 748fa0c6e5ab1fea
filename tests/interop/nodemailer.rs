//! `nodemailer`, from the npm registry, as the client of a user: STARTTLS and
//! implicit TLS that it verifies, AUTH, SMTPUTF8, DSN, REQUIRETLS, attachments and
//! pooled connections. What arrives at the next hop is compared by octets with what
//! it made.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use ringpost::proto::sasl::base64::encode;
use serde_json::{Value, json};

use super::support::program::{added, fields, is_installed, is_there, run, succeeded, tricky};
use super::support::submissions::{NAME, Submissions, by_name};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/nodemailer.js");

/// What is installed, of one version, so that tests are about the same thing always.
const PACKAGE: &str = "nodemailer@9.1.1";

/// The folder that has nodemailer, installed at its first use and kept with what else
/// tests make. `None` where it cannot be installed.
fn modules() -> Option<&'static Path> {
    static MODULES: OnceLock<Option<PathBuf>> = OnceLock::new();
    let install = || {
        if !is_installed("node") || !is_installed("npm") {
            return None;
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(PACKAGE);
        let modules = folder.join("node_modules");
        if modules.join("nodemailer/package.json").is_file() {
            return Some(modules);
        }
        std::fs::create_dir_all(&folder).unwrap();
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-save", "--no-package-lock", "--no-audit", "--no-fund"]);
        npm.args(["--ignore-scripts", PACKAGE, "--prefix"]).arg(&folder);
        let output = run(&mut npm, b"");
        is_there(PACKAGE, output.status.success()).then_some(modules)
    };
    MODULES.get_or_init(install).as_deref()
}

/// Sends `messages` over a transport with these options and those that every one
/// has; what became of each.
fn send(place: &Submissions, options: Value, messages: &[Value]) -> Vec<Value> {
    let mut all = json!({
        "host": place.starttls.ip(),
        "name": "client.test",
        "auth": {"user": "alice", "pass": "pencil"},
        "tls": {
            "servername": NAME,
            "ca": std::fs::read_to_string(place.authority()).unwrap(),
        },
    });
    all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    let mut node = Command::new("node");
    node.env("NODE_PATH", modules().expect("nodemailer")).arg(SCRIPT);
    let told = json!({"options": all, "messages": messages}).to_string();
    let lines = succeeded(&run(&mut node, told.as_bytes()));
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn starttls(place: &Submissions) -> Value {
    json!({"port": place.starttls.port(), "requireTLS": true})
}

fn implicit(place: &Submissions) -> Value {
    json!({"port": place.implicit.port(), "secure": true})
}

fn with(mut options: Value, key: &str, value: Value) -> Value {
    options[key] = value;
    options
}

/// A message from `alice` by that name, which must not be taken for another.
fn message(name: &str) -> Value {
    json!({
        "from": "Alice <alice@x.test>",
        "to": ["b@y.test", "c@y.test"],
        "subject": name,
        "headers": {"X-Test": name},
        "text": "Hello\n.\n..\n.dot\nFrom here on\n",
    })
}

/// The message that nodemailer made and kept in a file, as it has to be sent: lines
/// end in CRLF, the last as well.
fn made(path: &Path) -> Vec<u8> {
    let text = std::fs::read(path).unwrap();
    let mut sent = Vec::with_capacity(text.len() + 2);
    for line in text.split_inclusive(|&octet| octet == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        sent.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        sent.extend_from_slice(b"\r\n");
    }
    sent
}

#[track_caller]
fn assert_taken(result: &Value) {
    let response = result["response"].as_str().unwrap_or_default();
    assert!(response.starts_with("250 2.0.0 Ok: queued as "), "{result}");
    assert_eq!(result["rejected"], json!([]));
}

#[test]
fn nodemailer_submits_over_tls_to_who_it_has_verified() {
    if modules().is_none() {
        return;
    }
    let place = Submissions::start();
    for (at, options) in [starttls(&place), implicit(&place)].into_iter().enumerate() {
        for method in ["PLAIN", "LOGIN"] {
            let name = format!("{method}-{at}");
            let mut one = message(&name);
            one["to"] = json!(format!("{name}@y.test"));
            let options = with(options.clone(), "authMethod", json!(method));
            assert_taken(&send(&place, options, &[one])[0]);
            place.accepted(&format!("{name}@y.test"));
            assert_eq!(place.authenticated("alice", method), at + 1);
        }
        let wrong = json!({"user": "alice", "pass": "guess"});
        let said = &send(&place, with(options.clone(), "auth", wrong), &[message("no")])[0];
        assert_eq!(said["error"], "EAUTH");
        assert!(said["response"].as_str().unwrap().starts_with("535 5.7.8 "), "{said}");
        let said = &send(&place, with(options.clone(), "auth", json!(false)), &[message("no")])[0];
        assert!(said["response"].as_str().unwrap().starts_with("530 5.7.0 "), "{said}");
        // It goes no further with a server that it cannot verify.
        let unknown = with(options, "tls", json!({"servername": NAME}));
        let said = &send(&place, unknown, &[message("no")])[0];
        let failed = ["ESOCKET", "ETLS"].iter().any(|code| said["error"] == *code);
        assert!(failed && said["response"].as_str().unwrap().contains("certificate"), "{said}");
    }
    assert_eq!(place.hop.wait_taken(4).len(), 4);
    assert_eq!(place.server.metric("ringpost_messages_accepted_total"), 4);
}

#[test]
fn nodemailer_sends_attachments_and_raw_octets_that_arrive_as_they_are() {
    if modules().is_none() {
        return;
    }
    let place = Submissions::start();
    let octets: Vec<u8> = (0..=255).cycle().take(200_000).collect();
    let mut composed = message("composed");
    composed["html"] = json!("<p>.\n..\n<b>Gr\u{fc}\u{df}e</b>\n</p>");
    composed["attachments"] = json!([
        {"filename": "\u{e4}ll.bin", "content": {"base64": encode(&octets)}},
        {"filename": "dots.txt", "content": ".\n..\n...\n", "contentTransferEncoding": "7bit"},
    ]);
    let raw = tricky("raw");
    let envelope = json!({"from": "alice@x.test", "to": ["b@y.test", "c@y.test"]});
    let mut as_it_is = json!({"raw": {"base64": encode(&raw)}, "envelope": envelope});
    as_it_is["envelope"]["use8BitMime"] = json!(true);
    for (name, one) in [("composed", &mut composed), ("raw", &mut as_it_is)] {
        one["keep"] = json!(place.at(name));
    }
    let results = send(&place, starttls(&place), &[composed, as_it_is]);
    results.iter().for_each(assert_taken);
    let taken = place.hop.wait_taken(2);
    for name in ["composed", "raw"] {
        let arrived = by_name(&taken, name);
        assert_eq!(arrived.recipients, ["b@y.test", "c@y.test"]);
        let sent = made(&place.at(name));
        assert_eq!(fields(&added(&arrived.body, &sent)), ["Received"], "{name}");
    }
    added(&by_name(&taken, "raw").body, &raw);
    assert!(by_name(&taken, "composed").body.len() > octets.len());
    // What the client said of the body is said to the next hop.
    let commands = place.commands();
    let with_8bit = commands.iter().filter(|line| line.contains(" BODY=8BITMIME"));
    assert_eq!(with_8bit.count(), 1, "{commands:?}");
}

#[test]
fn nodemailer_asks_for_utf8_reports_and_tls_all_the_way() {
    if modules().is_none() {
        return;
    }
    let place = Submissions::start();
    let mut utf8 = message("utf8");
    utf8["to"] = json!("j\u{f6}rg@y.test");
    let mut reports = message("reports");
    reports["to"] = json!("b@y.test");
    reports["dsn"] = json!({
        "id": "id+1 =", "return": "headers", "notify": ["success", "delay"],
        "recipient": "rfc822;first@y.test",
    });
    let mut secret = message("secret");
    secret["to"] = json!("s@y.test");
    secret["requireTLSExtensionEnabled"] = json!(true);
    let results = send(&place, implicit(&place), &[utf8, reports, secret]);
    results.iter().for_each(assert_taken);
    let taken = place.hop.wait_taken(3);
    assert!(by_name(&taken, "utf8").is_secured);
    assert_eq!(by_name(&taken, "utf8").recipients, ["j\u{f6}rg@y.test"]);
    let commands = place.commands();
    let one = |verb: &str, word: &str| {
        let found = commands.iter().find(|line| line.starts_with(verb) && line.contains(word));
        found.unwrap_or_else(|| panic!("no {verb} {word} in {commands:?}"))
    };
    one("MAIL", " SMTPUTF8");
    one("MAIL", " REQUIRETLS");
    let mail = one("MAIL", " RET=HDRS");
    assert!(mail.contains(" ENVID=id+2B1+20+3D"), "{mail}");
    let rcpt = one("RCPT TO:<b@y.test>", " NOTIFY=SUCCESS,DELAY");
    assert!(rcpt.contains(" ORCPT=rfc822;first@y.test"), "{rcpt}");
}

#[test]
fn nodemailer_keeps_pooled_connections() {
    if modules().is_none() {
        return;
    }
    let place = Submissions::start();
    let options = json!({"pool": true, "maxConnections": 2, "maxMessages": 10});
    for (at, mut transport) in [starttls(&place), implicit(&place)].into_iter().enumerate() {
        transport.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        let name = |n: usize| format!("pooled-{at}-{n}");
        let keep = |n: usize| place.at(&name(n));
        let messages: Vec<Value> =
            (0..40).map(|n| with(message(&name(n)), "keep", json!(keep(n)))).collect();
        let results = send(&place, transport, &messages);
        results.iter().for_each(assert_taken);
        let taken = place.hop.wait_taken(40 * (at + 1));
        for n in 0..40 {
            added(&by_name(&taken, &name(n)).body, &made(&keep(n)));
        }
        let sessions = place.server.metric("ringpost_tls_handshakes_total");
        // Ten messages over each, and a connection more where they came unevenly.
        assert!((4 * (at as u64 + 1)..=6 * (at as u64 + 1)).contains(&sessions), "{sessions}");
    }
}
