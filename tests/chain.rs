//! ringpost behind ringpost, over loopback: a relay that authenticates to a smarthost
//! over TLS, with each mechanism, verified or only required, by STARTTLS or TLS at
//! once. What comes out behind the second is what went into the first: the octets,
//! and what was asked.

mod support;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use support::authority::Authority;
use support::full::{Came, EVERYTHING, FullHop, parameter};
use support::peer::Client;
use support::process::Server;
use support::tls::Files;
use support::users::{user, write_users};

/// How the first comes to the second.
#[derive(Clone, Copy)]
struct Way {
    is_implicit: bool,
    /// `required` or `verified`.
    tls: &'static str,
    /// What the second lets clients authenticate with; the first uses the best.
    mechanisms: &'static str,
    password: &'static str,
    /// Whom the first trusts: those who signed the second's certificate, or others.
    is_trusting: bool,
}

const WAY: Way = Way {
    is_implicit: false,
    tls: "verified",
    mechanisms: r#"["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"]"#,
    password: "pencil",
    is_trusting: true,
};

/// A relay, its smarthost, and the host behind both.
struct Chain {
    first: Server,
    second: Server,
    hop: FullHop,
    _folder: tempfile::TempDir,
}

impl Chain {
    fn new(way: Way) -> Chain {
        let folder = tempfile::tempdir().unwrap();
        let hop = FullHop::start(EVERYTHING, None);
        let (own, ca) = Files::signed(folder.path(), "127.0.0.1");
        let others = folder.path().join("others.pem");
        Authority::new().write(&others);
        let second = second(folder.path(), way, &own, hop.address);
        let trusted = if way.is_trusting { &ca } else { &others };
        let first = first(folder.path(), way, trusted, second.smtp);
        Chain { first, second, hop, _folder: folder }
    }

    fn client(&self) -> Client {
        Client::connect(self.first.smtp).unwrap()
    }
}

fn second(folder: &Path, way: Way, own: &Files, hop: SocketAddr) -> Server {
    let users = folder.join("users");
    write_users(&users, vec![user("relay", "pencil", "*")]);
    let (kind, tls) = match way.is_implicit {
        true => ("submissions", "implicit"),
        false => ("submission", "required"),
    };
    let settings = [
        format!(r#"listener=[{{address="127.0.0.1:0", kind="{kind}", tls="{tls}"}}]"#),
        r#"hostname="second.test""#.to_owned(),
        format!("tls.certificate=[{}]", own.table()),
        format!("auth.users={:?}", users.display().to_string()),
        format!("auth.mechanisms={}", way.mechanisms),
        r#"auth.failure_delay="0s""#.to_owned(),
        "access.relay_from=[]".to_owned(),
        format!(r#"route=[{{domain="*", next_hop=["{hop}"]}}]"#),
    ];
    Server::start(&folder.join("second"), &settings.each_ref().map(String::as_str))
}

fn first(folder: &Path, way: Way, trusted: &Path, second: SocketAddr) -> Server {
    let password = folder.join("password");
    std::fs::write(&password, way.password).unwrap();
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
    let scheme = if way.is_implicit { "smtps://" } else { "" };
    let tls = way.tls;
    let settings = [
        r#"hostname="first.test""#.to_owned(),
        format!(
            r#"route=[{{domain="*", next_hop=["{scheme}{second}"], tls="{tls}", user="relay", password_file={password:?}}}]"#
        ),
        format!("delivery.tls_ca={:?}", trusted.display().to_string()),
        r#"queue.retry=["300ms"]"#.to_owned(),
    ];
    Server::start(&folder.join("first"), &settings.each_ref().map(String::as_str))
}

/// A message that needs nothing added where it is submitted.
const HEAD: &str = "Date: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-ID: <1@x.test>\r\n\
    From: a@x.test\r\nSubject: through both\r\n\r\n";

/// What was sent came with a field of each server in front.
#[track_caller]
fn assert_whole(came: &Came, sent: &[u8]) {
    let at = came.content.len().checked_sub(sent.len()).expect("not too short");
    let (front, rest) = came.content.split_at(at);
    assert!(rest == sent, "{} octets at the end differ", sent.len());
    let front = String::from_utf8(front.to_vec()).unwrap();
    let fields: Vec<&str> = front.split("\r\nReceived: ").collect();
    assert_eq!(fields.len(), 2, "{front}");
    assert!(fields[0].contains("by second.test (ringpost) with ") && fields[0].contains("SA id "));
    assert!(fields[1].contains("by first.test (ringpost) with "), "{front}");
}

#[test]
fn mail_goes_through_both_with_each_mechanism() {
    let text = format!("{HEAD}.\r\n..\r\n.dot\r\n\r\nQUIT\r\n");
    for (way, mechanism, verified) in [
        (WAY, "SCRAM-SHA-256-PLUS", "yes"),
        (Way { is_implicit: true, ..WAY }, "SCRAM-SHA-256-PLUS", "yes"),
        (Way { mechanisms: r#"["SCRAM-SHA-256", "PLAIN"]"#, ..WAY }, "SCRAM-SHA-256", "yes"),
        (Way { mechanisms: r#"["PLAIN", "LOGIN"]"#, ..WAY }, "PLAIN", "yes"),
        (Way { mechanisms: r#"["LOGIN"]"#, is_implicit: true, ..WAY }, "LOGIN", "yes"),
        // Not verified is encrypted all the same, and bound.
        (Way { tls: "required", is_trusting: false, ..WAY }, "SCRAM-SHA-256-PLUS", "no"),
    ] {
        let chain = Chain::new(way);
        let said = chain.client().message("a@x.test", &["b@y.test"], text.as_bytes()).unwrap();
        assert!(said.starts_with("250 2.0.0 Ok: queued as "), "{said}");
        let came = chain.hop.wait(1).remove(0);
        assert_whole(&came, text.as_bytes());
        let line = chain.second.wait_log(|line| line.contains("mail: authenticated"));
        assert!(line.ends_with(&format!(" mechanism={mechanism}")), "{mechanism}: {line}");
        let line = chain.first.wait_log(|line| line.contains(" mail: secured "));
        assert!(line.contains(&format!("verified={verified}")), "{line}");
    }
}

#[test]
fn a_wrong_password_or_a_stranger_s_certificate_gets_no_mail_through() {
    for (way, code) in [
        (Way { password: "pencils", ..WAY }, "4.7.8"),
        (Way { password: "pencils", mechanisms: r#"["PLAIN"]"#, ..WAY }, "4.7.8"),
        (Way { is_trusting: false, ..WAY }, "4.7.5"),
    ] {
        let chain = Chain::new(way);
        chain.client().message("a@x.test", &["b@y.test"], HEAD.as_bytes()).unwrap();
        let line = chain.first.wait_log(|line| line.contains("mail: deferred"));
        assert!(line.contains(code), "{line}");
        assert!(!line.contains("pencil"), "{line}");
        assert_eq!(chain.second.metric("ringpost_messages_accepted_total"), 0);
        if !way.is_trusting {
            // Who is not believed is told nothing.
            assert_eq!(chain.second.metric("ringpost_authentications_failed_total"), 0);
        }
        assert_eq!(chain.hop.count(), 0);
    }
}

#[test]
fn what_was_asked_goes_through_both() {
    let chain = Chain::new(WAY);
    let mut client = chain.client();
    let mail = "MAIL FROM:<j\u{f6}rg@x.test> BODY=8BITMIME SMTPUTF8 RET=FULL ENVID=one+2B \
        BY=300;N MT-PRIORITY=2";
    let rcpts = [
        "RCPT TO:<ren\u{e9}@y.test> NOTIFY=FAILURE ORCPT=utf-8;ren\u{e9}@z.test",
        "RCPT TO:<b@y.test> NOTIFY=NEVER",
    ];
    let text = format!("{HEAD}Gr\u{fc}\u{df}e\r\n");
    for line in [mail, rcpts[0], rcpts[1]] {
        assert!(client.command(line).unwrap().starts_with("250 "), "{line}");
    }
    client.command("DATA").unwrap();
    client.send(text.as_bytes()).unwrap();
    assert!(client.command(".").unwrap().starts_with("250 2.0.0 Ok: queued"));
    let came = chain.hop.wait(1).remove(0);
    assert_whole(&came, text.as_bytes());
    assert!(came.mail.starts_with("MAIL FROM:<j\u{f6}rg@x.test> "), "{}", came.mail);
    for (keyword, value) in [
        ("BODY", "8BITMIME"),
        ("SMTPUTF8", ""),
        ("RET", "FULL"),
        ("ENVID", "one+2B"),
        ("MT-PRIORITY", "2"),
    ] {
        assert_eq!(came.parameter(keyword), Some(value), "{}", came.mail);
    }
    let (left, how) = came.parameter("BY").unwrap().split_once(';').unwrap();
    assert_eq!(how, "N");
    assert!((1..=300).contains(&left.parse().unwrap()), "{left}");
    let [first, second] = &came.recipients[..] else { panic!("{:?}", came.recipients) };
    assert_eq!(parameter(first, "NOTIFY"), Some("FAILURE"), "{first}");
    assert_eq!(parameter(first, "ORCPT"), Some("utf-8;ren\u{e9}@z.test"), "{first}");
    assert_eq!(parameter(second, "NOTIFY"), Some("NEVER"), "{second}");
}

#[test]
fn binary_and_large_mail_goes_through_both() {
    let chain = Chain::new(WAY);
    let mut client = chain.client();
    let octets: Vec<u8> = (0..=255u8).chain(*b"\r\n.\r\n\n.\n\r").cycle().take(2 << 20).collect();
    let sent = [HEAD.as_bytes(), &octets].concat();
    client.command("MAIL FROM:<a@x.test> BODY=BINARYMIME").unwrap();
    client.command("RCPT TO:<b@y.test>").unwrap();
    client.send(format!("BDAT {} LAST\r\n", sent.len()).as_bytes()).unwrap();
    client.send(&sent).unwrap();
    let said = client.reply().unwrap();
    assert!(said.starts_with("250 2.0.0 Ok: queued as "), "{said}");
    let came = chain.hop.wait(1).remove(0);
    assert_eq!(came.parameter("BODY"), Some("BINARYMIME"), "{}", came.mail);
    assert_whole(&came, &sent);
    // Lines with dots, as many as do not fit any buffer.
    let text = [HEAD.as_bytes(), &b".\r\n..x\r\ntext\r\n".repeat(300_000)].concat();
    let said = client.message("a@x.test", &["b@y.test"], &text).unwrap();
    assert!(said.starts_with("250 2.0.0 Ok: queued as "), "{said}");
    assert_whole(&chain.hop.wait(2)[1], &text);
}
