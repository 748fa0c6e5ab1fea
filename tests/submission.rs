//! Submission and authentication on a whole server over TLS, with real clients:
//! Python's `smtplib`, with SCRAM written out in the script, and `swaks`. Each test
//! runs where its peer is installed, and says so where it is not. What Python cannot
//! do, bind an exchange to TLS 1.3, a client of the test does.

mod support;

use std::path::PathBuf;
use std::process::{Command, Output};

use ringpost::io::tls::self_signed;
use support::peer::{NextHop, header};
use support::process::Server;
use support::scram;
use support::tls::{Secure, anybody, client, over, plain, reply, say, started};
use support::users::{fingerprint, user, write_users};

/// Python functions for the scripts: `client()` is a session within TLS.
const PRELUDE: &str = r#"
import base64, hashlib, hmac, os, smtplib, ssl, sys
host, port, mode, folder = sys.argv[1:5]
b64 = lambda octets: base64.b64encode(octets).decode()

def client(own=None, most=None):
    context = ssl.create_default_context(cafile=folder + "/cert.pem")
    context.check_hostname = False
    if own:
        context.load_cert_chain(folder + "/" + own + ".pem", folder + "/" + own + ".key")
    if most:
        context.maximum_version = most
    if mode == "implicit":
        smtp = smtplib.SMTP_SSL(host, int(port), context=context)
    else:
        smtp = smtplib.SMTP(host, int(port))
        smtp.ehlo("python.test")
        assert not smtp.has_extn("auth"), "AUTH is offered in the clear"
        code, _ = smtp.docmd("AUTH", "PLAIN " + b64(b"\0alice\0pencil"))
        assert code in (530, 538), code
        assert smtp.starttls(context=context)[0] == 220
    smtp.ehlo("python.test")
    return smtp

def plain(smtp, name, password):
    return smtp.docmd("AUTH", "PLAIN " + b64(f"\0{name}\0{password}".encode()))

def scram(smtp, name, password, header="n,,", data=b"", plus=""):
    """SCRAM-SHA-256 as RFC 5802 has it; the last reply."""
    mac = lambda key, text: hmac.new(key, text.encode(), "sha256").digest()
    own = b64(os.urandom(18))
    bare = f"n={name},r={own}"
    code, text = smtp.docmd("AUTH", f"SCRAM-SHA-256{plus} " + b64((header + bare).encode()))
    if code != 334:
        return code, text
    first = base64.b64decode(text).decode()
    parts = dict(part.split("=", 1) for part in first.split(","))
    assert parts["r"].startswith(own) and len(parts["r"]) >= len(own) + 24, first
    salt, rounds = base64.b64decode(parts["s"]), int(parts["i"])
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    last = f"c={b64(header.encode() + data)},r={parts['r']}"
    said = f"{bare},{first},{last}"
    key = mac(salted, "Client Key")
    proof = bytes(a ^ b for a, b in zip(key, mac(hashlib.sha256(key).digest(), said)))
    code, text = smtp.docmd(b64(f"{last},p={b64(proof)}".encode()))
    if code != 334:
        return code, text
    expected = "v=" + b64(mac(mac(salted, "Server Key"), said))
    assert base64.b64decode(text).decode() == expected, "the server proves itself"
    return smtp.docmd("")
"#;

/// A server that users submit to, with `alice` and `bob`.
struct Place {
    folder: tempfile::TempDir,
    server: Server,
    hop: NextHop,
    mode: &'static str,
}

impl Place {
    /// One on STARTTLS (`mode` "starttls") or implicit TLS, with more settings.
    fn new(mode: &'static str, more: &[&str]) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["cert", "alice"] {
            let pem = self_signed(&["relay.test"]).unwrap();
            std::fs::write(at(&format!("{name}.pem")), pem.certificate).unwrap();
            std::fs::write(at(&format!("{name}.key")), pem.key).unwrap();
        }
        let mut alice = user("alice", "pencil", "@x.test");
        alice.certificates.push(fingerprint(&at("alice.pem")));
        write_users(&at("users"), vec![alice, user("bob", "secret", "bob@x.test")]);
        let hop = NextHop::start();
        let listener = match mode {
            "implicit" => {
                r#"listener=[{address="127.0.0.1:0", kind="submissions", tls="implicit"}]"#
            }
            _ => r#"listener=[{address="127.0.0.1:0", kind="submission", tls="required"}]"#,
        };
        let path = |key: &str, name: &str| format!("{key}={:?}", at(name).display().to_string());
        let settings = [
            listener.to_owned(),
            path("tls.certificate", "cert.pem"),
            path("tls.key", "cert.key"),
            path("auth.users", "users"),
            r#"tls.client_certificates="request""#.to_owned(),
            "access.relay_from=[]".to_owned(),
            r#"auth.failure_delay="10ms""#.to_owned(),
            format!(r#"route=[{{domain="*", next_hop=["{}"]}}]"#, hop.address),
        ];
        let settings: Vec<&str> =
            settings.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let server = Server::start(&folder.path().join("data"), &settings);
        Place { folder, server, hop, mode }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A session within TLS, greeted.
    fn secure(&self, config: &std::sync::Arc<rustls::ClientConfig>) -> Secure {
        let server = self.server.smtp;
        let mut secure = if self.mode == "implicit" {
            let mut secure = over(plain(server), config, "relay.test");
            assert!(reply(&mut secure).unwrap().starts_with("220 "));
            secure
        } else {
            started(server, config, "relay.test")
        };
        let offers = say(&mut secure, "EHLO client.test").unwrap();
        assert!(offers.contains("250-AUTH SCRAM-SHA-256-PLUS "), "{offers}");
        secure
    }

    /// Runs a script, which must succeed.
    fn python(&self, script: &str) {
        let address = self.server.smtp;
        let output = Command::new("python3")
            .args(["-c", &format!("{PRELUDE}\n{script}")])
            .args([&address.ip().to_string(), &address.port().to_string(), self.mode])
            .arg(self.folder.path())
            .output()
            .unwrap();
        assert_success(&output, &self.server);
    }
}

#[track_caller]
fn assert_success(output: &Output, server: &Server) {
    assert!(
        output.status.success(),
        "{}\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        server.log()
    );
}

fn installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("{program} is not installed: its test did not run");
    }
    found
}

#[test]
fn a_user_submits_and_the_message_is_completed() {
    if !installed("python3") {
        return;
    }
    for mode in ["starttls", "implicit"] {
        let place = Place::new(mode, &[]);
        place.python(
            r#"
smtp = client()
assert smtp.docmd("MAIL", "FROM:<alice@x.test>")[0] == 530
offered = smtp.esmtp_features["auth"].split()
assert offered == ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"], offered
smtp.login("alice", "pencil")
assert smtp.mail("alice@x.test")[0] == 250
assert smtp.rcpt("anybody@anywhere.test")[0] == 250
text = "Subject: hi\r\nBcc: secret@y.test\r\n other@y.test\r\n\r\nBcc: text\r\n..\r\n"
assert smtp.data(text)[0] == 250
smtp.quit()
"#,
        );
        let got = place.hop.wait(|got| got.len() == 1);
        let text = String::from_utf8_lossy(&got[0].body).into_owned();
        assert!(text.contains("with ESMTPSA id "), "{text}");
        assert!(text.contains("(using TLS1.3)") && text.contains("\r\n\ttls TLS_"), "{text}");
        assert!(header(&got[0].body, "Date").is_some(), "{text}");
        let id = header(&got[0].body, "Message-ID").unwrap();
        assert!(id.ends_with("@relay.test>"), "{id}");
        assert_eq!(header(&got[0].body, "From").as_deref(), Some("<alice@x.test>"));
        assert_eq!(header(&got[0].body, "Bcc"), None, "{text}");
        assert!(!text.contains("@y.test") && text.contains("\r\n\r\nBcc: text\r\n"), "{text}");
        let log = place.server.wait_log(|line| line.contains("mail: accepted"));
        assert!(log.contains("user=\"alice\""), "{log}");
        place.server.wait_log(|line| line.contains("mail: authenticated"));
    }
}

#[test]
fn a_large_submission_streams_and_is_completed_too() {
    if !installed("python3") {
        return;
    }
    let place = Place::new("implicit", &[]);
    place.python(
        r#"
smtp = client()
smtp.login("alice", "pencil")
line = "x" * 70 + "\r\n"
head = "Bcc: " + ",\r\n ".join("secret%d@y.test" % n for n in range(9000)) + "\r\nSubject: big\r\n"
smtp.sendmail("alice@x.test", ["b@y.test"], head + "\r\n" + line * 9000)
smtp.quit()
"#,
    );
    let got = place.hop.wait(|got| got.len() == 1);
    assert_eq!(header(&got[0].body, "Bcc"), None);
    assert_eq!(header(&got[0].body, "Subject").as_deref(), Some("big"));
    assert!(header(&got[0].body, "Message-ID").is_some());
    let lines = got[0].body.windows(72).filter(|at| at.starts_with(&[b'x'; 70])).count();
    assert_eq!(lines, 9000);
}

#[test]
fn addresses_that_are_not_whole_are_refused_with_the_message() {
    if !installed("python3") {
        return;
    }
    let place = Place::new("implicit", &[]);
    place.python(
        r#"
smtp = client()
smtp.login("alice", "pencil")
def refused(text, chunks=()):
    assert smtp.mail("alice@x.test")[0] == 250
    assert smtp.rcpt("b@y.test")[0] == 250
    if not chunks:
        code, said = smtp.data(text)
    for at in chunks:
        last = " LAST" if at == chunks[-1] else ""
        smtp.send(f"BDAT {len(at)}{last}\r\n{at}")
        code, said = smtp.getreply()
    assert code == 554, (code, said)
    assert said.startswith(b"5.6.0 an address in "), said
long = "x" * 70 + "\r\n"
refused("To: bob\r\n\r\nhi\r\n")
refused("To: b@y.test,\r\n bob@sales\r\n\r\n" + long * 9000)
many = "Cc: " + ",\r\n ".join("somebody%d@y.test" % n for n in range(19000)) + ", bob\r\n"
refused(many + "\r\nhi\r\n")
refused("", ["From: al", "ice@x\r\n\r\nhi\r\n"])
assert smtp.docmd("MAIL", "FROM:<alice@x>")[0] == 554
smtp.sendmail("alice@x.test", ["b@y.test"], "To: us: b@y.test, b@[192.0.2.1];\r\n\r\nhi\r\n")
smtp.quit()
"#,
    );
    let got = place.hop.wait(|got| got.len() == 1);
    assert_eq!(header(&got[0].body, "To").as_deref(), Some("us: b@y.test, b@[192.0.2.1];"));
    assert_eq!(place.server.metric("ringpost_messages_refused_total"), 4);
}

#[test]
fn every_mechanism_over_tls() {
    if !installed("python3") {
        return;
    }
    let place = Place::new("starttls", &[]);
    place.python(
        r#"
def good(answer): assert answer[0] == 235, answer
def bad(answer, code=535): assert answer[0] == code, answer
good(plain(client(), "Alice", "pencil"))
smtp = client()
assert smtp.docmd("AUTH", "LOGIN")[0] == 334
assert smtp.docmd(b64(b"alice"))[0] == 334
good(smtp.docmd(b64(b"pencil")))
good(scram(client(), "alice", "pencil"))
bad(scram(client(), "alice", "pencils"))
bad(scram(client(), "nobody", "pencil"))
bad(plain(client(), "nobody", "pencil"))
# Bound to the connection, as far as Python can: TLS 1.2 and the certificate.
twelve = ssl.TLSVersion.TLSv1_2
bind = lambda smtp: hashlib.sha256(smtp.sock.getpeercert(True)).digest()
smtp = client(most=twelve)
good(scram(smtp, "alice", "pencil", "p=tls-server-end-point,,", bind(smtp), "-PLUS"))
bad(scram(client(most=twelve), "alice", "pencil", "p=tls-server-end-point,,", b"\1" * 32, "-PLUS"))
bad(scram(client(most=twelve), "alice", "pencil", "y,,"))
bad(scram(client(), "alice", "pencil", "p=tls-unique,,", b"", "-PLUS"))
bad(scram(client(), "alice", "pencil", "n,,", b"", "-PLUS"), 501)
"#,
    );
    assert_eq!(place.server.metric("ringpost_authentications_failed_total"), 7);
    assert_eq!(place.server.metric("ringpost_authentications_total"), 4);
}

/// `tls-exporter` (RFC 9266) of a connection.
fn exporter(secure: &Secure) -> [u8; 32] {
    let label = b"EXPORTER-Channel-Binding";
    secure.conn.export_keying_material([0; 32], label, None).unwrap()
}

const PLUS: &str = "SCRAM-SHA-256-PLUS";

#[test]
fn an_exchange_is_bound_to_its_connection_of_tls_1_3() {
    for mode in ["starttls", "implicit"] {
        let place = Place::new(mode, &[]);
        let config = client(&[&rustls::version::TLS13], None);
        let alice = ("alice", "pencil");
        let header = "p=tls-exporter,,";
        // Another connection to the same server, as one who stands between has it.
        let between = place.secure(&config);
        let refused = |header: &str, data: &[u8]| {
            let mut secure = place.secure(&config);
            let said = scram::authenticate(&mut secure, alice, PLUS, (header, data));
            assert_eq!(said, "535 5.7.8 Wrong name or password\r\n", "{header}");
            let said = say(&mut secure, "MAIL FROM:<alice@x.test>").unwrap();
            assert!(said.starts_with("530 "), "{said}");
        };
        refused(header, &exporter(&between));
        refused(header, &[0; 32]);
        refused(header, b"");
        refused("p=tls-unique,,", b"");
        let shown = between.conn.peer_certificates().unwrap()[0].clone();
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &shown);
        refused("p=tls-server-end-point,,", hash.as_ref());
        // One that could bind, and did not hear that it may.
        let mut secure = place.secure(&config);
        let said = scram::authenticate(&mut secure, alice, "SCRAM-SHA-256", ("y,,", b""));
        assert!(said.starts_with("535 5.7.8 "), "{said}");
        // A wrong password is no better for being bound.
        let mut secure = place.secure(&config);
        let data = exporter(&secure);
        let said = scram::authenticate(&mut secure, ("alice", "pencils"), PLUS, (header, &data));
        assert!(said.starts_with("535 5.7.8 "), "{said}");
        assert_eq!(place.server.metric("ringpost_authentications_total"), 0);
        let mut secure = place.secure(&config);
        let data = exporter(&secure);
        let said = scram::authenticate(&mut secure, alice, PLUS, (header, &data));
        assert_eq!(said, "235 2.7.0 Authenticated\r\n");
        assert!(say(&mut secure, "MAIL FROM:<alice@x.test>").unwrap().starts_with("250 "));
        let line = place.server.wait_log(|line| line.contains("mail: authenticated"));
        assert!(line.contains("mechanism=SCRAM-SHA-256-PLUS"), "{line}");
    }
}

#[test]
fn an_exchange_is_bound_to_a_resumed_connection_too() {
    let place = Place::new("starttls", &[]);
    let config = anybody();
    for is_resumed in [false, true] {
        let mut secure = place.secure(&config);
        let was = secure.conn.handshake_kind().unwrap();
        assert_eq!(was == rustls::HandshakeKind::Resumed, is_resumed);
        let bound = exporter(&secure);
        let alice = ("alice", "pencil");
        let bound = ("p=tls-exporter,,", &bound[..]);
        let said = scram::authenticate(&mut secure, alice, PLUS, bound);
        assert_eq!(said, "235 2.7.0 Authenticated\r\n");
    }
}

#[test]
fn certificates_authenticate() {
    if !installed("python3") {
        return;
    }
    let place = Place::new("starttls", &[]);
    place.python(
        r#"
smtp = client(own="alice")
assert "EXTERNAL" in smtp.esmtp_features["auth"]
assert smtp.docmd("AUTH", "EXTERNAL " + b64(b"bob"))[0] == 535
assert smtp.docmd("AUTH", "EXTERNAL =")[0] == 235
assert smtp.docmd("MAIL", "FROM:<bob@x.test>")[0] == 250, "@x.test is alice's"
smtp = client(own="cert")
assert smtp.docmd("AUTH", "EXTERNAL =")[0] == 535, "nobody has that one"
assert client().docmd("AUTH", "EXTERNAL =")[0] == 504
"#,
    );
}

#[test]
fn senders_are_the_users_own() {
    if !installed("python3") {
        return;
    }
    let script = r#"
smtp = client()
smtp.login("bob", "secret")
for sender, code in (("bob@x.test", 250), ("BOB@X.test", 250), ("alice@x.test", OTHER), ("", 250)):
    answer = smtp.docmd("MAIL", "FROM:<%s>" % sender)
    assert answer[0] == code, (sender, answer)
    smtp.rset()
"#;
    let strict = Place::new("starttls", &[]);
    strict.python(&script.replace("OTHER", "550"));
    strict.server.wait_log(|line| line.contains("mail: refused") && line.contains("550 5.7.1"));
    Place::new("starttls", &[r#"auth.sender_match="off""#]).python(&script.replace("OTHER", "250"));
}

#[test]
fn who_guesses_is_shut_out_and_others_are_not() {
    if !installed("python3") {
        return;
    }
    let place = Place::new("implicit", &["auth.lockout_failures=2", r#"auth.lockout_time="1d""#]);
    place.python(
        r#"
assert plain(client(), "bob", "wrong")[0] == 535
assert plain(client(), "other", "wrong")[0] == 535
code, text = plain(client(), "bob", "secret")
assert code == 454 and text.startswith(b"4.7.0 "), (code, text)
assert scram(client(), "alice", "pencil")[0] == 454, "the client is shut out, whoever it says it is"
"#,
    );
    let line = place.server.wait_log(|line| line.contains("not authenticated"));
    assert!(line.contains("mechanism=PLAIN"), "{line}");
    place.server.wait_log(|line| line.contains("locked out"));
}

#[test]
fn the_users_file_is_read_again_when_it_changes() {
    if !installed("python3") {
        return;
    }
    let place = Place::new("implicit", &[]);
    place.python(r#"assert plain(client(), "bob", "secret")[0] == 235"#);
    write_users(&place.at("users"), vec![user("carol", "other", "*")]);
    place.server.wait_log(|line| line.contains("read users") && line.contains("users=1"));
    place.python(
        r#"
assert plain(client(), "bob", "secret")[0] == 535
assert plain(client(), "carol", "other")[0] == 235
"#,
    );
    std::fs::write(place.at("users"), "nonsense").unwrap();
    place.server.wait_log(|line| line.contains("the users stay as they were"));
    place.python(r#"assert plain(client(), "carol", "other")[0] == 235"#);
}

#[test]
fn swaks_authenticates() {
    let speaks_tls = Command::new("perl").args(["-MNet::SSLeay", "-e1"]).output();
    if !installed("swaks") || !speaks_tls.is_ok_and(|probe| probe.status.success()) {
        eprintln!("swaks cannot speak TLS here: its test did not run");
        return;
    }
    for (mode, tls) in [("starttls", "--tls"), ("implicit", "--tls-on-connect")] {
        let place = Place::new(mode, &[]);
        for mechanism in ["PLAIN", "LOGIN"] {
            let run = |password: &str| {
                Command::new("swaks")
                    .args(["--server", &place.server.smtp.to_string(), tls, "--auth", mechanism])
                    .args(["--auth-user", "alice", "--auth-password", password])
                    .args(["--from", "alice@x.test", "--to", "b@y.test"])
                    .output()
                    .unwrap()
            };
            assert_success(&run("pencil"), &place.server);
            // 28: no authentication was accepted.
            assert_eq!(run("wrong").status.code(), Some(28), "{mechanism}");
        }
        place.hop.wait(|got| got.len() == 2);
    }
}
