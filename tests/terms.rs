//! What a sender asks with EHLO's extensions, from the wire to the wire: accepted by a
//! whole server with its parameters, and seen at the next hop, or reported to the
//! sender where the next hop does not know of it.
//!
//! RFC 2852 (DELIVERBY), RFC 3030 (BINARYMIME), RFC 3461 (DSN), RFC 4865
//! (FUTURERELEASE), RFC 6531 (SMTPUTF8), RFC 6710 (MT-PRIORITY), RFC 8689 (REQUIRETLS).

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ringpost::proto::sasl::base64::encode;
use support::authority::Authority;
use support::full::{Came, EVERYTHING, FullHop, parameter};
use support::hop::{Act, Hop, Skills};
use support::process::Server;
use support::rig::wait_for;
use support::tls::{Files, anybody, over, plain, reply, say, started};
use support::users::{user, write_users};

/// A server that reaches `full.test`, which knows everything, over verified TLS,
/// `bare.test`, which knows nothing, and the senders of `x.test` as it does the first.
/// At `down.test` there is nobody. `list.test`, `none.test` and `half.test` have a host
/// that has TLS without REQUIRETLS: before the first, behind the second, and with nobody.
struct Place {
    folder: tempfile::TempDir,
    settings: Vec<String>,
    server: Server,
    full: FullHop,
    bare: FullHop,
    senders: FullHop,
    lax: Hop,
}

const OPTIONAL: &str = r#"{address="127.0.0.1:0", tls="optional"}"#;

impl Place {
    fn new() -> Place {
        Place::listening(OPTIONAL, &[])
    }

    fn listening(listener: &str, more: &[&str]) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let ca = folder.path().join("ca.pem");
        authority.write(&ca);
        let tls = || Some(authority.server(&["127.0.0.1"]));
        let full = FullHop::start(EVERYTHING, tls());
        let bare = FullHop::start(&["PIPELINING"], None);
        let senders = FullHop::start(EVERYTHING, tls());
        let skills = Skills { tls: tls(), ..Skills::default() };
        let lax = Hop::skilled(TcpListener::bind("127.0.0.1:0").unwrap(), skills, |_| Act::Well);
        let both = |first: SocketAddr, second: SocketAddr| format!(r#"{first}", "{second}"#);
        let nobody = "127.0.0.1:1".parse().unwrap();
        let routes = [
            ("list.test", both(lax.address, full.address), "optional"),
            ("none.test", both(bare.address, lax.address), "optional"),
            ("half.test", both(lax.address, nobody), "optional"),
            ("full.test", full.address.to_string(), "verified"),
            ("bare.test", bare.address.to_string(), "optional"),
            ("x.test", senders.address.to_string(), "verified"),
            // Nobody listens there.
            ("down.test", "127.0.0.1:1".to_owned(), "optional"),
        ];
        let route = |(domain, hop, tls): &(&str, String, &str)| {
            format!(r#"{{domain="{domain}", next_hop=["{hop}"], tls="{tls}"}}"#)
        };
        let routes: Vec<String> = routes.iter().map(route).collect();
        let files = Files::self_signed(folder.path(), "relay.test");
        let settings = [
            format!("listener=[{listener}]"),
            format!("route=[{}]", routes.join(", ")),
            format!("tls.certificate=[{}]", files.table()),
            format!("delivery.tls_ca={:?}", ca.display().to_string()),
            r#"queue.retry=["300ms"]"#.to_owned(),
        ];
        let more = more.iter().map(|setting| (*setting).to_owned());
        let settings: Vec<String> = settings.into_iter().chain(more).collect();
        let server = serve(folder.path(), &settings);
        Place { folder, settings, server, full, bare, senders, lax }
    }

    /// The same after a crash of the server.
    fn after_a_crash(self) -> Place {
        self.server.kill();
        let server = serve(self.folder.path(), &self.settings);
        Place { server, ..self }
    }

    fn secure(&self) -> support::tls::Secure {
        let mut secure = started(self.server.smtp, &anybody(), "relay.test");
        say(&mut secure, "EHLO client.test").unwrap();
        secure
    }

    /// Sends `message` over TLS with these parameters of MAIL and RCPT.
    #[track_caller]
    fn send(&self, mail: &str, recipient: &str, message: &[u8]) -> String {
        let mut secure = self.secure();
        let mail = format!("MAIL FROM:<a@x.test> {mail}");
        submit(&mut secure, &mail, &format!("RCPT TO:{recipient}"), message)
    }

    /// The one report that senders get.
    #[track_caller]
    fn report(&self, action: &str, status: &str) -> Came {
        let came = self.senders.wait(1).remove(0);
        let text = came.text();
        assert!(text.contains(&format!("\r\nAction: {action}\r\n")), "{text}");
        assert!(text.contains(&format!("\r\nStatus: {status}\r\n")), "{text}");
        assert!(came.mail.starts_with("MAIL FROM:<>"), "{}", came.mail);
        came
    }

    fn queue(&self, words: &str) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_ringpost"))
            .args(["queue", "--socket"])
            .arg(self.folder.path().join("data/admin.sock"))
            .args(words.split(' '))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn serve(folder: &Path, settings: &[String]) -> Server {
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    Server::start(&folder.join("data"), &settings)
}

/// Sends a message by DATA; its id.
#[track_caller]
fn submit(stream: &mut (impl Read + Write), mail: &str, rcpt: &str, message: &[u8]) -> String {
    for (line, code) in [(mail, "250 "), (rcpt, "250 "), ("DATA", "354 ")] {
        let said = say(stream, line).unwrap();
        assert!(said.starts_with(code), "{line}: {said}");
    }
    stream.write_all(message).unwrap();
    queued(&say(stream, ".").unwrap())
}

#[track_caller]
fn queued(said: &str) -> String {
    let id = said.strip_prefix("250 2.0.0 Ok: queued as ").expect(said);
    id.trim().to_owned()
}

/// What was sent came with one field in front.
#[track_caller]
fn assert_whole(came: &Came, sent: &[u8]) {
    let at = came.content.len().checked_sub(sent.len()).expect("not too short");
    let (front, rest) = came.content.split_at(at);
    assert!(rest == sent, "{} octets at the end differ", sent.len());
    let front = String::from_utf8(front.to_vec()).unwrap();
    assert!(front.starts_with("Received: from ") && front.ends_with("\r\n"), "{front}");
    assert_eq!(front.split("\r\n").filter(|line| !line.starts_with(['\t', ' '])).count(), 2);
}

const MESSAGE: &[u8] = b"Subject: terms\r\n\r\nHello\r\n";

/// Octets without any order.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(next).collect()
}

#[test]
fn binary_octets_are_relayed_as_they_came() {
    let place = Place::new();
    let head = b"Subject: octets\r\nContent-Transfer-Encoding: binary\r\n\r\n";
    let mut tails: Vec<Vec<u8>> = [
        &b""[..],
        b"no line end",
        b"\r",
        b"\n",
        b".",
        b"..",
        b"\r\n.\r\n",
        b".\r\nMAIL FROM:<evil@x.test>\r\n.\r\n",
        b"\n.\n\r.\r",
        b"\0\0\0",
        b"line\r\n",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    tails.push((0..=255).collect());
    tails.push(noise(3 << 20));
    let mut count = 0;
    for tail in tails {
        let sent = [&head[..], &tail].concat();
        let sizes =
            if sent.len() < 1000 { vec![1, 7, sent.len()] } else { vec![70_000, sent.len()] };
        for size in sizes {
            let mut clear = plain(place.server.smtp);
            reply(&mut clear).unwrap();
            for line in [
                "EHLO client.test",
                "MAIL FROM:<a@x.test> BODY=BINARYMIME",
                "RCPT TO:<b@full.test>",
            ] {
                assert!(say(&mut clear, line).unwrap().starts_with("250"), "{line}");
            }
            let mut said = String::new();
            let pieces: Vec<&[u8]> = sent.chunks(size).collect();
            for (at, piece) in pieces.iter().enumerate() {
                let last = if at + 1 == pieces.len() { " LAST" } else { "" };
                let command = format!("BDAT {}{last}\r\n", piece.len());
                clear.write_all(&[command.as_bytes(), piece].concat()).unwrap();
                said = reply(&mut clear).unwrap();
            }
            queued(&said);
            count += 1;
            let came = place.full.wait(count).pop().unwrap();
            assert_eq!(came.parameter("BODY"), Some("BINARYMIME"), "{}", came.mail);
            assert!(came.is_secured && came.chunks > 0);
            assert_whole(&came, &sent);
        }
    }
}

#[test]
fn binary_mail_for_a_host_that_does_not_take_it_comes_back() {
    let place = Place::new();
    let mut secure = place.secure();
    say(&mut secure, "MAIL FROM:<a@x.test> BODY=BINARYMIME").unwrap();
    say(&mut secure, "RCPT TO:<b@bare.test>").unwrap();
    secure.write_all(b"BDAT 19 LAST\r\nSubject: b\r\n\r\n\0\xff\r\n.").unwrap();
    queued(&reply(&mut secure).unwrap());
    let report = place.report("failed", "5.6.3");
    // Its text comes back as far as lines can carry it.
    assert!(report.text().contains("Subject: b\r\n"), "{}", report.text());
    assert_eq!(place.bare.count(), 0);
}

#[test]
fn what_is_asked_about_reports_is_passed_on_or_carried_out() {
    let place = Place::new();
    let mail = "RET=HDRS ENVID=QQ+2B314159";
    place.send(mail, "<b@full.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2B@z.test", MESSAGE);
    let came = place.full.wait(1).remove(0);
    assert_eq!(came.parameter("RET"), Some("HDRS"));
    assert_eq!(came.parameter("ENVID"), Some("QQ+2B314159"));
    let rcpt = &came.recipients[0];
    assert_eq!(parameter(rcpt, "NOTIFY"), Some("SUCCESS,DELAY"), "{rcpt}");
    assert_eq!(parameter(rcpt, "ORCPT"), Some("rfc822;Bob+2B@z.test"), "{rcpt}");
    assert_whole(&came, MESSAGE);
    // Who does not know of it is not asked, and the sender is told.
    place.send(mail, "<b@bare.test> NOTIFY=SUCCESS ORCPT=rfc822;Bob+2B@z.test", MESSAGE);
    let came = place.bare.wait(1).remove(0);
    assert_eq!(came.mail, "MAIL FROM:<a@x.test>");
    assert_eq!(came.recipients, ["RCPT TO:<b@bare.test>"]);
    let report = place.report("relayed", "2.0.0").text();
    for line in ["Original-Envelope-Id: QQ+314159", "Original-Recipient: rfc822; Bob+@z.test"] {
        assert!(report.contains(&format!("\r\n{line}\r\n")), "{line}: {report}");
    }
    assert!(!report.contains("Hello"), "RET=HDRS: {report}");
    assert_eq!(place.senders.count(), 1, "the next hop of the first reports itself");
}

#[test]
fn internationalised_mail_goes_where_it_is_taken() {
    let place = Place::new();
    let message = "Subject: Gr\u{fc}\u{df}e\r\n\r\nHall\u{f6}chen\r\n".as_bytes();
    let mail = "MAIL FROM:<j\u{f6}rg@x.test> SMTPUTF8 BODY=8BITMIME";
    submit(&mut place.secure(), mail, "RCPT TO:<ren\u{e9}@full.test>", message);
    let came = place.full.wait(1).remove(0);
    assert!(came.mail.starts_with("MAIL FROM:<j\u{f6}rg@x.test> "), "{}", came.mail);
    assert_eq!(came.parameter("SMTPUTF8"), Some(""));
    assert_eq!(came.parameter("BODY"), Some("8BITMIME"));
    assert!(came.recipients[0].starts_with("RCPT TO:<ren\u{e9}@full.test>"));
    assert!(came.text().contains("with UTF8SMTPS id "), "{}", came.text());
    assert_whole(&came, message);
    submit(&mut place.secure(), mail, "RCPT TO:<b@bare.test>", message);
    let report = place.report("failed", "5.6.7");
    assert!(report.recipients[0].starts_with("RCPT TO:<j\u{f6}rg@x.test>"));
    assert_eq!(place.bare.count(), 0);
}

/// What is left of the time that a hop was told, in seconds, and what follows it.
fn time_told(came: &Came) -> (i64, &str) {
    let (seconds, how) = came.parameter("BY").unwrap().split_once(';').unwrap();
    (seconds.parse().unwrap(), how)
}

#[test]
fn a_time_is_passed_on_and_kept() {
    let place = Place::new();
    place.send("BY=120;R", "<b@full.test>", MESSAGE);
    place.send("BY=-7;NT", "<b@full.test>", MESSAGE);
    let came = place.full.wait(2);
    let find = |how| came.iter().map(time_told).find(|told| told.1 == how).unwrap().0;
    let left = find("R");
    assert!((1..=120).contains(&left), "{left}");
    let left = find("NT");
    assert!(left <= -7, "{left}");
    // The trace is told once, as this relay has passed it on.
    let report = place.report("relayed", "2.0.0").text();
    assert!(report.contains("\r\nDeliver-By-Date: "), "{report}");
}

#[test]
fn a_message_whose_time_is_up_comes_back_or_is_told_of() {
    let place = Place::new();
    let accepted = Instant::now();
    place.send("BY=1;R", "<b@down.test>", MESSAGE);
    let report = place.report("failed", "5.4.7");
    assert!(report.at.duration_since(accepted) >= Duration::from_secs(1), "not before its time");
    assert!(report.text().contains("\r\nDeliver-By-Date: "), "{}", report.text());
    wait_for("empty", || place.server.metric("ringpost_queued_messages") == 0);
    let place = Place::new();
    place.send("BY=1;N", "<b@down.test>", MESSAGE);
    let report = place.report("delayed", "4.4.7");
    assert!(report.text().contains("\r\nDeliver-By-Date: "), "{}", report.text());
    wait_for("the report has gone", || place.server.metric("ringpost_queued_messages") == 1);
}

#[test]
fn a_time_is_not_left_to_who_does_not_know_of_it() {
    let place = Place::new();
    place.send("BY=120;R", "<b@bare.test>", MESSAGE);
    place.report("failed", "5.4.7");
    assert_eq!(place.bare.count(), 0);
    let place = Place::new();
    place.send("BY=120;N", "<b@bare.test>", MESSAGE);
    assert_eq!(place.bare.wait(1)[0].mail, "MAIL FROM:<a@x.test>");
    place.report("relayed", "2.0.0");
}

#[test]
fn a_priority_is_passed_on() {
    let place = Place::new();
    for (at, value) in ["4", "-9", "0"].into_iter().enumerate() {
        place.send(&format!("MT-PRIORITY={value}"), "<b@full.test>", MESSAGE);
        let came = place.full.wait(at + 1).pop().unwrap();
        // 0 is what holds without.
        let expected = Some(value).filter(|value| *value != "0");
        assert_eq!(came.parameter("MT-PRIORITY"), expected, "{}", came.mail);
    }
    place.send("MT-PRIORITY=4", "<b@bare.test>", MESSAGE);
    assert_eq!(place.bare.wait(1)[0].mail, "MAIL FROM:<a@x.test>");
    assert_eq!(place.senders.count(), 0);
}

#[test]
fn tls_that_is_required_is_required_all_the_way() {
    let place = Place::new();
    place.send("REQUIRETLS", "<b@full.test>", MESSAGE);
    let came = place.full.wait(1).remove(0);
    assert!(came.is_secured);
    assert_eq!(came.parameter("REQUIRETLS"), Some(""), "{}", came.mail);
    assert_whole(&came, MESSAGE);
    place.send("REQUIRETLS", "<b@bare.test>", MESSAGE);
    // The report has as much to hide (RFC 8689, section 5).
    let report = place.report("failed", "5.7.10");
    assert!(report.is_secured && !report.text().contains("Hello"), "{}", report.text());
    assert_eq!(report.parameter("REQUIRETLS"), Some(""), "{}", report.mail);
    assert_eq!(place.bare.count(), 0);
}

#[test]
fn of_several_hosts_one_is_found_that_sees_to_tls() {
    // Cores have connections of their own.
    let place = Place::listening(OPTIONAL, &["cores=1"]);
    place.send("", "<a@list.test>", MESSAGE);
    place.lax.wait_taken(1);
    let id = place.send("REQUIRETLS", "<b@list.test>", MESSAGE);
    let came = place.full.wait(1).remove(0);
    assert!(came.is_secured);
    assert_eq!(came.parameter("REQUIRETLS"), Some(""), "{}", came.mail);
    assert_whole(&came, MESSAGE);
    place.server.wait_log(|line| line.contains(" mail: delivered ") && line.contains(&id));
    // There is a connection to that one now.
    place.send("", "<c@list.test>", MESSAGE);
    assert_eq!(place.full.wait(2)[1].parameter("REQUIRETLS"), None);
    place.server.wait_log(|line| line.contains("passed over for a message that requires TLS"));
    assert_eq!(place.lax.seen(|seen| seen.taken.len()), 1);
    assert_eq!(place.senders.count(), 0);
}

#[test]
fn what_requires_tls_comes_back_where_no_host_sees_to_it_and_waits_for_one_that_is_down() {
    let place = Place::new();
    place.send("REQUIRETLS", "<b@none.test>", MESSAGE);
    let report = place.report("failed", "5.7.30");
    assert!(report.text().contains("REQUIRETLS: it does not offer"), "{}", report.text());
    let id = place.send("REQUIRETLS", "<b@half.test>", MESSAGE);
    let line =
        place.server.wait_log(|line| line.contains(" mail: deferred ") && line.contains(&id));
    for words in ["connect to 127.0.0.1:1: ", "REQUIRETLS: it does not offer"] {
        assert!(line.contains(words), "no {words} in {line}");
    }
    assert_eq!((place.bare.count(), place.lax.seen(|seen| seen.taken.len())), (0, 0));
}

/// Where FUTURERELEASE is at home: users submit.
fn submission(folder: &Path, more: &[&str]) -> Place {
    let users = ["alice", "bob"].map(|name| user(name, "pencil", "*"));
    write_users(&folder.join("users"), users.into());
    let users = format!("auth.users={:?}", folder.join("users").display().to_string());
    let listener = r#"{address="127.0.0.1:0", kind="submissions", tls="implicit"}"#;
    Place::listening(listener, &[&[&*users], more].concat())
}

/// A session of a user, greeted.
fn log_in(place: &Place, user: &str) -> support::tls::Secure {
    let mut secure = over(plain(place.server.smtp), &anybody(), "relay.test");
    reply(&mut secure).unwrap();
    let offers = say(&mut secure, "EHLO client.test").unwrap();
    assert!(offers.contains("\r\n250-AUTH "), "{offers}");
    let credentials = encode(format!("\0{user}\0pencil").as_bytes());
    let said = say(&mut secure, &format!("AUTH PLAIN {credentials}")).unwrap();
    assert!(said.starts_with("235 "), "{said}");
    assert!(say(&mut secure, "EHLO client.test").unwrap().contains("\r\n250-FUTURERELEASE "));
    secure
}

#[test]
fn no_user_has_more_held_than_the_quota() {
    let folder = tempfile::tempdir().unwrap();
    let place = submission(folder.path(), &["limits.held_per_user=2"]);
    const HOLD: &str = "MAIL FROM:<a@x.test> HOLDFOR=86400";
    const RCPT: &str = "RCPT TO:<b@full.test>";
    const TOO_MANY: &str =
        "452 4.7.1 too many messages of this user are held for later: 2 at most\r\n";
    // Each by a session of its own, on whichever core.
    let hold = |place: &Place, user| submit(&mut log_in(place, user), HOLD, RCPT, MESSAGE);
    let refused = |place: &Place, user| {
        let said = say(&mut log_in(place, user), HOLD).unwrap();
        assert!(said.starts_with("250 ") || said == TOO_MANY, "{said}");
        said == TOO_MANY
    };
    let ids = [hold(&place, "alice"), hold(&place, "alice")];
    assert!(refused(&place, "alice") && !refused(&place, "bob"));
    // What is not for later is none of it.
    let mut alice = log_in(&place, "alice");
    for parameters in ["", " HOLDUNTIL=2020-01-01T00:00:00Z"] {
        submit(&mut alice, &format!("MAIL FROM:<a@x.test>{parameters}"), RCPT, MESSAGE);
    }
    place.full.wait(2);
    place.queue(&format!("release {}", ids[0]));
    // Two that come at a time for the one place.
    let mut both = [log_in(&place, "alice"), log_in(&place, "alice")];
    for session in &mut both {
        for (line, code) in [(HOLD, "250 "), (RCPT, "250 "), ("DATA", "354 ")] {
            assert!(say(session, line).unwrap().starts_with(code));
        }
        session.write_all(MESSAGE).unwrap();
    }
    let said = both.each_mut().map(|session| say(session, ".").unwrap());
    assert_eq!(said[1], TOO_MANY, "{said:?}");
    let third = queued(&said[0]);
    assert!(refused(&place, "alice"));
    place.queue(&format!("drop {third}"));
    hold(&place, "alice");
    assert!(refused(&place, "alice"));
    let place = place.after_a_crash();
    wait_for("what was held is counted", || refused(&place, "alice"));
    assert!(!refused(&place, "bob"));
    place.queue(&format!("retry {}", ids[1]));
    assert!(!refused(&place, "alice"));
}

#[test]
fn mail_for_later_is_kept_until_then() {
    let folder = tempfile::tempdir().unwrap();
    let place = submission(folder.path(), &[]);
    let message = b"Date: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-ID: <1@x.test>\r\n\
        From: a@x.test\r\nSubject: later\r\n\r\nHello\r\n";
    let mut secure = log_in(&place, "alice");
    let accepted = Instant::now();
    submit(&mut secure, "MAIL FROM:<a@x.test> HOLDFOR=1", "RCPT TO:<b@full.test>", message);
    let came = place.full.wait(1).remove(0);
    assert!(came.at.duration_since(accepted) >= Duration::from_secs(1), "not before its time");
    assert_eq!(came.parameter("HOLDFOR"), None, "{}", came.mail);
    assert_whole(&came, message);
    // For longer than a test waits; until somebody thinks better of it.
    let until = "MAIL FROM:<a@x.test> HOLDFOR=86400";
    let id = submit(&mut secure, until, "RCPT TO:<b@full.test>", message);
    let listed = place.queue("list --json --state kept");
    assert!(listed.contains(&id), "{listed}");
    assert_eq!(place.full.count(), 1);
    place.queue(&format!("release {id}"));
    assert_whole(&place.full.wait(2)[1], message);
}
