//! TLS between clients and a whole server: what is offered and demanded, what is
//! never obeyed, what a handshake changes, which certificate is shown, and what
//! happens to clients that stall, break off or send anything else.
//!
//! RFC 3207, RFC 8314, RFC 6066 (SNI).

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use rustls::HandshakeKind;
use support::authority::Authority;
use support::peer::NextHop;
use support::process::Server;
use support::tls::verifying;
use support::tls::{Files, anybody, asked_for_tls, client, over, plain, reply, say, started};

const NAME: &str = "relay.test";
/// Where mail goes that nobody is to get.
const DISCARD: &str = r#""discard""#;

/// A server whose one listener has `tls`, with further `settings`, which make it one of
/// the embedded default unless they name a certificate; all mail goes to `hop`.
fn serve(dir: &Path, tls: &str, hop: &str, settings: &[&str]) -> Server {
    let all = [
        format!(r#"listener=[{{address=["127.0.0.1:0"], tls="{tls}"}}]"#),
        format!(r#"route=[{{domain="*", next_hop={hop}}}]"#),
    ];
    let all: Vec<&str> = all.iter().map(String::as_str).chain(settings.iter().copied()).collect();
    Server::start(dir, &all)
}

/// One with a certificate that an authority has signed.
fn certified(dir: &Path, tls: &str, hop: &str, settings: &[&str]) -> Server {
    std::fs::create_dir_all(dir).unwrap();
    let certificate = Authority::new().files(dir, NAME).setting();
    serve(dir, tls, hop, &[&[&*certificate], settings].concat())
}

/// One that takes all mail and sends none.
fn simple(dir: &Path, tls: &str) -> Server {
    certified(dir, tls, DISCARD, &[])
}

/// Sends a message over a session that was greeted.
fn message(stream: &mut (impl Read + Write)) {
    for (line, code) in [
        ("MAIL FROM:<a@x.test>", "250"),
        ("RCPT TO:<b@y.test>", "250"),
        ("DATA", "354"),
        ("Subject: hi\r\n\r\nhello\r\n.", "250"),
    ] {
        let said = say(stream, line).unwrap();
        assert!(said.starts_with(code), "{line}: {said}");
    }
}

#[test]
fn messages_come_in_over_either_version_and_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let hop = NextHop::start();
    let server = serve(dir.path(), "optional", &format!("[\"{}\"]", hop.address), &[]);
    let versions = [(&rustls::version::TLS12, "TLS1.2"), (&rustls::version::TLS13, "TLS1.3")];
    for (at, (version, name)) in versions.into_iter().enumerate() {
        let mut secure = started(server.smtp, &client(&[version], None), NAME);
        let offers = say(&mut secure, "EHLO client.test").unwrap();
        assert!(!offers.contains("STARTTLS"), "not within TLS: {offers}");
        message(&mut secure);
        let again = say(&mut secure, "STARTTLS").unwrap();
        assert!(again.starts_with("502 5.5.1 "), "{again}");
        assert!(say(&mut secure, "QUIT").unwrap().starts_with("221 "));
        // close_notify, then the end.
        assert_eq!(secure.read(&mut [0; 8]).unwrap(), 0);
        let got = hop.wait(|got| got.len() == at + 1);
        let received = String::from_utf8_lossy(&got[at].body).into_owned();
        assert!(received.contains("with ESMTPS id "), "{received}");
        assert!(received.contains(&format!("(using {name})\r\n\tby ")), "{received}");
        assert!(received.contains("\r\n\ttls TLS_"), "{received}");
        let line = server.wait_log(|line| line.contains(&format!(" tls={name} ")));
        assert!(line.contains(" accepted ") && line.contains(" tls_cipher=TLS_"), "{line}");
    }
    // The certificate of the embedded default is marked as what it is.
    server.wait_log(|line| line.contains("made the self-signed certificate"));
    assert_eq!(server.metric("ringpost_tls_handshakes_total"), 2);
    assert_eq!(server.metric("ringpost_tls_12_sessions_total"), 1);
    assert_eq!(server.metric("ringpost_tls_13_sessions_total"), 1);
    // Mail in the clear is taken too, and says nothing of TLS.
    let mut clear = plain(server.smtp);
    reply(&mut clear).unwrap();
    say(&mut clear, "EHLO client.test").unwrap();
    message(&mut clear);
    let got = hop.wait(|got| got.len() == 3);
    let received = String::from_utf8_lossy(&got[2].body).into_owned();
    assert!(received.contains("with ESMTP id ") && !received.contains("TLS"), "{received}");
}

#[test]
fn what_stands_behind_starttls_in_the_clear_is_never_obeyed() {
    let dir = tempfile::tempdir().unwrap();
    let server = simple(dir.path(), "optional");
    let start = b"STARTTLS\r\n";
    let injected = b"MAIL FROM:<evil@x.test>\r\nRCPT TO:<b@y.test>\r\nQUIT\r\n";
    let whole = [&start[..], injected].concat();
    // All in one, and cut in two at every place.
    for cut in start.len() - 2..=whole.len() {
        let mut stream = plain(server.smtp);
        reply(&mut stream).unwrap();
        say(&mut stream, "EHLO client.test").unwrap();
        stream.write_all(&whole[..cut]).unwrap();
        if cut < whole.len() {
            // Up to the line end, the other half must come for there to be a reply.
            if cut >= start.len() {
                assert!(reply(&mut stream).unwrap().starts_with("220 "));
            }
            stream.write_all(&whole[cut..]).unwrap();
        }
        if cut < start.len() || cut == whole.len() {
            assert!(reply(&mut stream).unwrap().starts_with("220 "), "cut at {cut}");
        }
        let mut secure = over(stream, &anybody(), NAME);
        match secure.conn.complete_io(&mut secure.sock) {
            // It was dropped unread: the session is as new.
            Ok(_) => {
                let said = say(&mut secure, "RCPT TO:<b@y.test>").unwrap();
                assert!(said.starts_with("503 5.5.1 Send EHLO"), "cut at {cut}: {said}");
                assert!(say(&mut secure, "EHLO client.test").unwrap().starts_with("250-"));
                let said = say(&mut secure, "RCPT TO:<b@y.test>").unwrap();
                assert!(said.starts_with("503 5.5.1 Send MAIL"), "cut at {cut}: {said}");
            }
            // It was taken for a part of the handshake.
            Err(_) => assert!(cut < whole.len(), "in one packet it is dropped"),
        }
    }
    assert!(server.metric("ringpost_tls_injections_total") >= 1);
    server.wait_log(|line| line.contains("in the clear behind STARTTLS, dropped unread"));
    assert_eq!(server.metric("ringpost_messages_accepted_total"), 0);
}

#[test]
fn a_handshake_makes_the_session_new() {
    let dir = tempfile::tempdir().unwrap();
    let server = simple(dir.path(), "optional");
    let mut stream = plain(server.smtp);
    reply(&mut stream).unwrap();
    assert!(say(&mut stream, "STARTTLS").unwrap().starts_with("503 5.5.1 Send EHLO"));
    say(&mut stream, "HELO client.test").unwrap();
    assert!(say(&mut stream, "STARTTLS").unwrap().starts_with("502 "), "HELO offers nothing");
    say(&mut stream, "EHLO client.test").unwrap();
    assert!(say(&mut stream, "STARTTLS now").unwrap().starts_with("501 5.5.4 "));
    say(&mut stream, "MAIL FROM:<a@x.test>").unwrap();
    assert!(say(&mut stream, "STARTTLS").unwrap().starts_with("503 5.5.1 STARTTLS within"));
    say(&mut stream, "RSET").unwrap();
    assert!(say(&mut stream, "STARTTLS").unwrap().starts_with("220 "));
    let mut secure = over(stream, &anybody(), NAME);
    assert!(say(&mut secure, "MAIL FROM:<a@x.test>").unwrap().starts_with("503 5.5.1 Send EHLO"));
}

#[test]
fn where_tls_is_required_nothing_is_done_without() {
    let dir = tempfile::tempdir().unwrap();
    let server = simple(dir.path(), "required");
    let mut stream = plain(server.smtp);
    reply(&mut stream).unwrap();
    assert!(say(&mut stream, "EHLO client.test").unwrap().contains("STARTTLS"));
    for line in ["MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "DATA", "VRFY x", "HELP", "RSET"] {
        let said = say(&mut stream, line).unwrap();
        assert_eq!(said, "530 5.7.0 Must issue a STARTTLS command first\r\n", "{line}");
    }
    for line in ["NOOP", "EHLO client.test"] {
        assert!(say(&mut stream, line).unwrap().starts_with("250"), "{line}");
    }
    assert!(say(&mut stream, "STARTTLS").unwrap().starts_with("220 "));
    let mut secure = over(stream, &anybody(), NAME);
    say(&mut secure, "EHLO client.test").unwrap();
    message(&mut secure);
}

#[test]
fn implicit_tls_greets_only_within() {
    let dir = tempfile::tempdir().unwrap();
    let server = simple(dir.path(), "implicit");
    let mut secure = over(plain(server.smtp), &anybody(), NAME);
    assert!(reply(&mut secure).unwrap().starts_with("220 "));
    assert!(!say(&mut secure, "EHLO client.test").unwrap().contains("STARTTLS"));
    message(&mut secure);
    // A client that speaks in the clear hears no SMTP.
    let mut clear = plain(server.smtp);
    clear.write_all(b"EHLO client.test\r\n").unwrap();
    let mut said = Vec::new();
    let _ = clear.read_to_end(&mut said);
    assert!(said.is_empty() || said[0] == 21, "an alert at most: {said:?}");
    server.wait_log(|line| line.contains("tls failed") && line.contains("no TLS"));
}

#[test]
fn a_certificate_is_chosen_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["a.test", "b.test", "*.c.test"];
    let files: Vec<Files> = names.map(|name| Files::self_signed(dir.path(), name)).into();
    let tables: Vec<String> = files.iter().map(Files::table).collect();
    let list = format!("tls.certificate=[{}]", tables.join(", "));
    let data = dir.path().join("data");
    let server = serve(&data, "optional", DISCARD, &[&list]);
    for (name, which) in
        [("a.test", 0), ("B.Test", 1), ("x.c.test", 2), ("y.x.c.test", 0), ("127.0.0.1", 0)]
    {
        let secure = started(server.smtp, &anybody(), name);
        let shown = secure.conn.peer_certificates().unwrap()[0].clone();
        assert!(shown == files[which].der(), "{name}");
    }
}

/// What OpenSSL is shown by a server when it speaks `version` and can verify `schemes`.
fn shown_to_openssl(server: SocketAddr, version: &str, schemes: &str) -> String {
    let mut openssl = Command::new("openssl")
        .args(["s_client", "-starttls", "smtp", "-crlf", "-ign_eof", version])
        .args(["-sigalgs", schemes, "-servername", NAME, "-connect", &server.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    openssl.stdin.take().unwrap().write_all(b"quit\n").unwrap();
    String::from_utf8_lossy(&openssl.wait_with_output().unwrap().stdout).into_owned()
}

#[test]
fn a_client_gets_a_certificate_that_it_can_verify() {
    use rustls::SignatureScheme as Scheme;
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let ecdsa = authority.keyed(dir.path(), "ecdsa", NAME, &rcgen::PKCS_ECDSA_P256_SHA256);
    let rsa = authority.keyed(dir.path(), "rsa", NAME, &rcgen::PKCS_RSA_SHA256);
    let list = format!("tls.certificate=[{}, {}]", ecdsa.table(), rsa.table());
    let server = serve(&dir.path().join("data"), "optional", DISCARD, &[&list]);
    let p256 = Scheme::ECDSA_NISTP256_SHA256;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (schemes, wanted) in [
            (&[p256][..], &ecdsa),
            (&[Scheme::RSA_PSS_SHA256], &rsa),
            (&[Scheme::RSA_PSS_SHA256, p256], &ecdsa),
        ] {
            // By its name, and by another one.
            for name in [NAME, "other.test"] {
                let mut secure = started(server.smtp, &verifying(version, schemes), name);
                let shown = secure.conn.peer_certificates().unwrap()[0].clone();
                assert!(shown == wanted.der(), "{version:?} {schemes:?} {name}");
                say(&mut secure, "EHLO client.test").unwrap();
                message(&mut secure);
            }
        }
        // Nothing helps.
        let mut secure =
            over(asked_for_tls(server.smtp), &verifying(version, &[Scheme::ED25519]), NAME);
        assert!(secure.conn.complete_io(&mut secure.sock).is_err());
    }
    if !installed("openssl") {
        return;
    }
    for version in ["-tls1_2", "-tls1_3"] {
        for (schemes, wanted) in [
            ("ECDSA+SHA256", &ecdsa),
            ("RSA-PSS+SHA256", &rsa),
            ("RSA-PSS+SHA256:ECDSA+SHA256", &ecdsa),
        ] {
            let said = shown_to_openssl(server.smtp, version, schemes);
            let pem = std::fs::read_to_string(&wanted.certificate).unwrap().replace('\r', "");
            assert!(said.contains(pem.trim()), "{version} {schemes}: {said}");
            assert!(said.contains("221 2.0.0 Bye"), "{version} {schemes}: {said}");
        }
    }
}

#[test]
fn new_certificates_are_taken_and_bad_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::self_signed(dir.path(), "a.test");
    let data = dir.path().join("data");
    let server = serve(&data, "optional", DISCARD, &[&files.setting()]);
    let shown = || {
        let secure = started(server.smtp, &anybody(), "a.test");
        secure.conn.peer_certificates().unwrap()[0].clone()
    };
    let first = files.der();
    assert!(shown() == first);
    let mut open = started(server.smtp, &anybody(), "a.test");
    say(&mut open, "EHLO client.test").unwrap();
    // A bad one, seen at a reload and without one.
    std::fs::write(&files.key, "nothing").unwrap();
    server.reload();
    let line = server.wait_log(|line| line.contains("the old certificates stay in force"));
    assert!(line.contains("a.test.key: no PEM block of a PRIVATE KEY"), "{line}");
    assert!(shown() == first);
    // A good one is noticed without a signal.
    let fresh = Files::self_signed(dir.path(), "fresh.test");
    std::fs::rename(&fresh.certificate, &files.certificate).unwrap();
    std::fs::rename(&fresh.key, &files.key).unwrap();
    server.wait_log(|line| line.contains("new certificates are in force"));
    let second = files.der();
    // The shard has it a moment later.
    let deadline = std::time::Instant::now() + support::peer::PATIENCE;
    while shown() != second {
        assert!(std::time::Instant::now() < deadline, "the new certificate is not used");
    }
    message(&mut open);
}

#[test]
fn certificates_of_clients_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (known, ca) = Files::signed(dir.path(), "client.test");
    let stranger = Files::self_signed(dir.path(), "stranger.test");
    let ca = format!("tls.client_ca={ca:?}");
    let with = |mode: &str| {
        let mode = format!("tls.client_certificates={mode:?}");
        let data = dir.path().join(&mode);
        certified(&data, "optional", DISCARD, &[&mode, &ca])
    };
    let versions = rustls::ALL_VERSIONS;
    let greets = |server: SocketAddr, files: Option<&Files>| {
        let mut secure = over(asked_for_tls(server), &client(versions, files), NAME);
        say(&mut secure, "EHLO client.test").is_ok()
    };
    let server = with("require");
    assert!(greets(server.smtp, Some(&known)));
    assert!(!greets(server.smtp, Some(&stranger)));
    assert!(!greets(server.smtp, None));
    server.wait_log(|line| line.contains("tls failed") && line.contains("showed no certificate"));
    assert_eq!(server.metric("ringpost_tls_failures_total"), 2);
    let server = with("request");
    assert!(greets(server.smtp, Some(&known)));
    assert!(greets(server.smtp, Some(&stranger)), "any is taken");
    assert!(greets(server.smtp, None));
}

#[test]
fn sessions_are_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let server = simple(dir.path(), "optional");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = client(&[version], None);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut secure = started(server.smtp, &config, NAME);
            say(&mut secure, "EHLO client.test").unwrap();
            let was = secure.conn.handshake_kind().unwrap();
            // A group that the server did not share costs a round, no more.
            let was = match was {
                HandshakeKind::FullWithHelloRetryRequest => HandshakeKind::Full,
                was => was,
            };
            assert_eq!(was, kind, "{version:?}");
        }
    }
    assert_eq!(server.metric("ringpost_tls_resumed_total"), 2);
}

#[test]
fn a_message_that_was_cut_short_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let server = simple(dir.path(), "optional");
    for notify in [false, true] {
        let mut secure = started(server.smtp, &anybody(), NAME);
        say(&mut secure, "EHLO client.test").unwrap();
        say(&mut secure, "MAIL FROM:<a@x.test>").unwrap();
        say(&mut secure, "RCPT TO:<b@y.test>").unwrap();
        assert!(say(&mut secure, "DATA").unwrap().starts_with("354 "));
        secure.write_all(b"Subject: half\r\n\r\nof a mess").unwrap();
        if notify {
            secure.conn.send_close_notify();
        }
        secure.flush().unwrap();
        secure.sock.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let _ = secure.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"250"), "{}", String::from_utf8_lossy(&rest));
    }
    let lost = |line: &&str| line.contains("connection lost");
    server.wait_log(|line| lost(&line));
    assert_eq!(server.metric("ringpost_messages_accepted_total"), 0);
}

#[test]
fn handshakes_that_go_nowhere_end() {
    let dir = tempfile::tempdir().unwrap();
    let limit = [r#"limits.command_timeout="1s""#];
    let server = certified(dir.path(), "optional", DISCARD, &limit);
    // Garbage is answered with an alert, and the connection is closed.
    let mut stream = asked_for_tls(server.smtp);
    stream.write_all(&[0xff; 600]).unwrap();
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    assert!(said.is_empty() || said[0] == 21, "{said:?}");
    server.wait_log(|line| line.contains("tls failed") && line.contains("no TLS"));
    // Silence, and a hello that never ends, octet by octet.
    let mut silent = asked_for_tls(server.smtp);
    let mut slow = asked_for_tls(server.smtp);
    slow.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
    let head = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
    let mut at = 0;
    let ended = loop {
        let octet = head.get(at).copied().unwrap_or(0);
        at += 1;
        if slow.write_all(&[octet]).is_err() {
            break true;
        }
        match slow.read(&mut [0; 64]) {
            Ok(0) => break true,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break true,
        }
        if at > 500 {
            break false;
        }
    };
    assert!(ended, "the slow client was cut off");
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest);
    server.wait_log(|line| line.contains("tls failed") && line.contains("took too long"));
    // Old versions.
    let mut old = asked_for_tls(server.smtp);
    // TLS 1.1, one suite, no extensions.
    let mut hello = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0, 47, 1, 0]);
    old.write_all(&hello).unwrap();
    let mut said = Vec::new();
    let _ = old.read_to_end(&mut said);
    assert_eq!(said.first(), Some(&21), "an alert: {said:?}");
    // Others are served all the while.
    let mut secure = started(server.smtp, &anybody(), NAME);
    say(&mut secure, "EHLO client.test").unwrap();
    message(&mut secure);
}

const PYTHON: &str = r#"
import smtplib, ssl, sys
host, port = sys.argv[1].split(":")
context = ssl._create_unverified_context()
with smtplib.SMTP(host, int(port)) as smtp:
    smtp.ehlo("python.test")
    assert smtp.has_extn("starttls")
    assert smtp.starttls(context=context)[0] == 220
    smtp.ehlo("python.test")
    assert not smtp.has_extn("starttls")
    assert smtp.sendmail("a@x.test", ["b@y.test"], "Subject: hi\r\n\r\n" + "hello\r\n" * 50000) == {}
"#;

/// Whether `program` is there; says so if not.
fn installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("{program} is not installed: its test did not run");
    }
    found
}

#[test]
fn python_and_openssl_speak_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = simple(dir.path(), "optional");
    let address = server.smtp.to_string();
    if installed("python3") {
        let done = Command::new("python3").args(["-c", PYTHON, &address]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(server.metric("ringpost_messages_accepted_total"), 1);
    }
    if installed("openssl") {
        for version in ["-tls1_2", "-tls1_3"] {
            let mut openssl = Command::new("openssl")
                .args(["s_client", "-starttls", "smtp", "-crlf", "-quiet", version])
                .args(["-connect", &address])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            // In lower case: openssl has commands of its own in capitals.
            openssl.stdin.take().unwrap().write_all(b"quit\n").unwrap();
            let said = openssl.wait_with_output().unwrap().stdout;
            let said = String::from_utf8_lossy(&said);
            assert!(said.contains("221 2.0.0 Bye"), "{version}: {said}");
        }
    }
}

#[test]
fn the_certificate_of_the_embedded_default_is_refused_elsewhere_and_another_soon_made() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("relay.toml");
    let text = format!(
        "hostname = {NAME:?}\n[[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"optional\"\n\
         [tls]\ncertificate = \"self-signed\"\n"
    );
    std::fs::write(&file, &text).unwrap();
    let mut told = String::new();
    for arguments in [&["check"][..], &["serve"], &["serve", "--set", "cores=1"]] {
        let mut ringpost = Command::new(env!("CARGO_BIN_EXE_ringpost"));
        let done = ringpost.args(arguments).arg("-c").arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{said}");
        assert!(said.contains(":6:15: tls.certificate: \"self-signed\" is for the"), "{said}");
        told = said.split("openssl ").nth(1).unwrap().lines().next().unwrap().to_owned();
    }
    if !installed("openssl") {
        return;
    }
    // The command that it tells does what it says.
    let made = Command::new("openssl").args(told.split(' ')).current_dir(dir.path()).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let at = |name: &str| dir.path().join(name);
    let trial = Files { certificate: at("trial.crt"), key: at("trial.key") };
    let server = serve(&at("data"), "optional", DISCARD, &[&trial.setting()]);
    let secure = started(server.smtp, &anybody(), NAME);
    assert!(secure.conn.peer_certificates().unwrap()[0] == trial.der());
    for word in ["self-signed", "can be read by everybody"] {
        assert!(!server.log().contains(word), "{}", server.log());
    }
}
