//! The engine with chunks, and with what else MAIL may ask; whole dialogs are in
//! `tests/dialogs`.

use super::*;
use crate::base::{EnhancedCode, Place, ShardId, UnixMillis};
use crate::proto::smtp::asks::By;

const ID: QueueId = QueueId { log: ShardId(0), place: Place { segment: 1, offset: 4096 } };
const OPEN: &str = "MAIL FROM:<s@a>\r\nRCPT TO:<r@b>\r\n";

/// What came of a session.
#[derive(Debug, Default, PartialEq)]
struct Played {
    said: String,
    /// Messages whose last chunk was taken, with their octets.
    taken: Vec<(Transaction, Vec<u8>)>,
    closed: bool,
}

fn server(spec: Spec) -> Server {
    let spec = Spec { hostname: "mx.example".into(), message_size: 100, errors_max: 20, ..spec };
    let mut server = Server::new(Arc::new(Settings::new(spec)), &mut Vec::new());
    server.introduce(true, UnixMillis(1_700_000_000_000));
    server
}

/// Plays `input` in pieces of `size` octets behind an EHLO. Recipients named `no` are
/// refused, and so are chunks that begin with `!`.
fn play(mut server: Server, input: &[u8], size: usize) -> Played {
    let (mut played, mut out) = (Played::default(), Vec::new());
    let mut message: Option<(Transaction, Vec<u8>)> = None;
    let mut unread: Vec<u8> = Vec::new();
    let hello = b"EHLO c\r\n";
    let pieces = std::iter::once(&hello[..]).chain(input.chunks(size));
    let mut chunk: Option<(usize, bool)> = None;
    for piece in pieces {
        unread.extend_from_slice(piece);
        loop {
            if let Some((octets, last)) = chunk {
                if unread.len() < octets {
                    break;
                }
                chunk = None;
                let (_, body) = message.as_mut().expect("begun");
                body.extend(unread.drain(..octets));
                server = if body.ends_with(b"!") {
                    let reply = Reply::new(450, EnhancedCode(4, 2, 0), "no chunk");
                    server.body_done(BodyVerdict::Refuse(reply), &mut out)
                } else if last {
                    played.taken.push(message.take().expect("begun"));
                    server.body_done(BodyVerdict::Queued(ID), &mut out)
                } else {
                    server.chunk_taken(&mut out)
                };
            }
            let (mut next, used, step) = server.step(&unread, &mut out);
            let mut wants_more = false;
            server = match step {
                Step::NeedInput => {
                    wants_more = true;
                    next
                }
                Step::Flush => next,
                Step::Ask(Question::Recipient(address)) if address.local() == "no" => {
                    let reply = Reply::new(550, EnhancedCode(5, 1, 1), "no");
                    next.answer(Verdict::Refuse(reply), &mut out)
                }
                Step::Ask(_) => next.answer(Verdict::Accept, &mut out),
                Step::Chunk { octets, first, last } => {
                    if first {
                        message = Some((next.take_transaction(), Vec::new()));
                    }
                    assert!(next.is_amid_chunks() && message.is_some());
                    chunk = Some((usize::try_from(octets).unwrap(), last));
                    next
                }
                Step::Body | Step::Authenticate | Step::StartTls => {
                    panic!("no DATA here, no AUTH, no STARTTLS")
                }
                Step::Close => {
                    played.closed = true;
                    next
                }
            };
            unread.drain(..used);
            if wants_more || played.closed {
                break;
            }
        }
        if played.closed {
            break;
        }
    }
    let said = String::from_utf8(out).unwrap();
    let hello_len = said.find("250 HELP\r\n").unwrap() + "250 HELP\r\n".len();
    played.said = said[hello_len..].to_owned();
    played
}

/// Plays `input` whole and in pieces of every size, which must make no difference;
/// returns the codes of the replies and the bodies taken.
fn codes(input: &str) -> (String, Vec<String>, bool) {
    let whole = play(server(Spec::default()), input.as_bytes(), input.len());
    for size in 1..input.len() {
        assert_eq!(play(server(Spec::default()), input.as_bytes(), size), whole, "{size}");
    }
    let codes: Vec<&str> = whole.said.lines().map(|line| &line[..3]).collect();
    let bodies = whole.taken.iter().map(|(_, body)| String::from_utf8(body.clone()).unwrap());
    (codes.join(" "), bodies.collect(), whole.closed)
}

fn taken(input: &str) -> (String, Vec<String>) {
    let (codes, bodies, closed) = codes(&format!("{OPEN}{input}"));
    assert!(!closed, "{input:?}");
    (codes.strip_prefix("250 250 ").unwrap().to_owned(), bodies)
}

#[test]
fn a_message_comes_in_chunks_of_any_size() {
    for (input, codes, body) in [
        ("BDAT 5 LAST\r\nhello", "250", "hello"),
        ("BDAT 5\r\nhelloBDAT 0 LAST\r\n", "250 250", "hello"),
        ("BDAT 0\r\nBDAT 2\r\nheBDAT 3 last\r\nllo", "250 250 250", "hello"),
        ("BDAT 0 LAST\r\n", "250", ""),
        ("BDAT 100 LAST\r\n", "250", &"x".repeat(100)),
        (
            "BDAT 26 LAST\r\nDATA\r\nRSET\r\nQUIT\r\n\r\n.\r\n\0\n\r",
            "250",
            "DATA\r\nRSET\r\nQUIT\r\n\r\n.\r\n\0\n\r",
        ),
    ] {
        let sent =
            if input == "BDAT 100 LAST\r\n" { format!("{input}{body}") } else { input.into() };
        assert_eq!(taken(&sent), (codes.into(), vec![body.to_owned()]), "{input:?}");
    }
    let played = play(
        server(Spec::default()),
        format!("{OPEN}BDAT 3\r\nabcBDAT 0 LAST\r\n").as_bytes(),
        999,
    );
    assert!(
        played
            .said
            .ends_with(&format!("250 2.0.0 3 octets received\r\n250 2.0.0 Ok: queued as {ID}\r\n"))
    );
    assert_eq!(played.taken[0].0.recipients, ["r@b"]);
}

/// Where the octets are commands, they must not be looked at.
#[test]
fn chunks_that_are_refused_are_passed_over_and_answered_in_turn() {
    let (sixty, noops) = ("x".repeat(60), "NOOP\r\n".repeat(20));
    let (noop41, noop101) = (&noops[..41], &noops[..101]);
    for (input, codes) in [
        // Too large, at once and in sum; what was sent ahead goes down with it.
        (&*format!("BDAT 101\r\n{noop101}BDAT 6 LAST\r\nNOOP\r\nNOOP\r\n"), "552 503 250"),
        (
            &format!("BDAT 60\r\n{sixty}BDAT 41\r\n{noop41}BDAT 6 LAST\r\nNOOP\r\nNOOP\r\n"),
            "250 552 503 250",
        ),
        (
            &format!("BDAT 60\r\n{sixty}BDAT 41 LAST\r\n{noop41}NOOP\r\nMAIL FROM:<>\r\n"),
            "250 552 250 250",
        ),
        // The driver refuses one.
        ("BDAT 1\r\n!BDAT 6\r\nNOOP\r\nBDAT 6 LAST\r\nNOOP\r\nMAIL FROM:<>\r\n", "450 503 503 250"),
        ("BDAT 1 LAST\r\n!MAIL FROM:<>\r\n", "450 250"),
        (
            "BDAT 1\r\n!DATA\r\nRCPT TO:<x@b>\r\nMAIL FROM:<>\r\nRSET\r\nMAIL FROM:<>\r\n",
            "450 503 503 503 250 250",
        ),
        // DATA amid chunks is the end of the message.
        ("BDAT 2\r\nokDATA\r\nBDAT 6 LAST\r\nNOOP\r\nNOOP\r\n", "250 503 503 250"),
        // What forgets it.
        ("BDAT 2\r\nokRSET\r\nBDAT 6 LAST\r\nNOOP\r\nMAIL FROM:<>\r\n", "250 250 503 250"),
        ("BDAT 2\r\nokHELO c\r\nMAIL FROM:<>\r\n", "250 250 250"),
    ] {
        assert_eq!(taken(input), (codes.into(), vec![]), "{input:?}");
    }
}

#[test]
fn what_is_said_between_chunks_and_behind_the_last_harms_no_message() {
    for (input, codes) in [
        ("BDAT 2\r\nokRCPT TO:<x@b>\r\nBDAT 0 LAST\r\n", "250 503 250"),
        ("BDAT 2\r\nokMAIL FROM:<>\r\nBDAT 0 LAST\r\n", "250 503 250"),
        (
            "BDAT 2\r\nokNOOP\r\nVRFY x\r\nHELP MAIL\r\nETRN a.b\r\nBDAT 0 LAST\r\n",
            "250 250 252 214 503 250",
        ),
        // After the last there is no transaction.
        ("BDAT 2 LAST\r\nokBDAT 6 LAST\r\nNOOP\r\nDATA\r\n", "250 503 503"),
        ("BDAT 2 LAST\r\nokBDAT 6\r\nNOOP\r\nMAIL FROM:<>\r\n", "250 503 250"),
    ] {
        assert_eq!(taken(input), (codes.into(), vec!["ok".to_owned()]), "{input:?}");
    }
}

#[test]
fn chunks_without_a_transaction_are_passed_over() {
    assert_eq!(codes("BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n").0, "503 250");
    assert_eq!(codes("MAIL FROM:<>\r\nRCPT TO:<no@b>\r\nBDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\nMAIL FROM:<>\r\n").0, "250 550 554 503 250");
    // Not offered, or after HELO: nothing of the transaction changes.
    let spec =
        || Spec { offers: Offers { chunking: false, ..Offers::default() }, ..Spec::default() };
    let input = format!("{OPEN}BDAT 6 LAST\r\nQUIT\r\nRSET\r\n");
    let played = play(server(spec()), input.as_bytes(), 7);
    assert!(
        played.said.contains("\r\n502 5.5.1 BDAT is not offered\r\n250 2.0.0 Ok\r\n"),
        "{played:?}"
    );
    let input = format!("HELO c\r\n{OPEN}BDAT 6 LAST\r\nQUIT\r\nRSET\r\n");
    let played = play(server(Spec::default()), input.as_bytes(), 7);
    assert!(played.said.ends_with("502 5.5.1 BDAT is not offered\r\n250 2.0.0 Ok\r\n"));
    let mut out = Vec::new();
    let (_, used, step) = server(spec()).step(b"BDAT 6\r\nQUIT\r\n", &mut out);
    assert_eq!((used, step), (14, Step::NeedInput), "before EHLO too");
}

#[test]
fn a_chunk_without_a_size_ends_the_session() {
    for line in [
        "BDAT",
        "BDAT LAST",
        "BDAT -1 LAST",
        "BDAT x",
        "BDAT 5 FIRST",
        "BDAT 5 LAST x",
        "BDAT 0x5",
        "BDAT 5\0 LAST",
        "BDAT 5\r LAST",
        "BDAT 5 LAST\n",
        "bdat 5\n",
    ] {
        for open in ["", OPEN, &format!("{OPEN}BDAT 2\r\nok")] {
            let input = format!("{open}{line}\r\nQUIT\r\nNOOP\r\n");
            let (codes, bodies, closed) = codes(&input);
            assert!(closed && codes.ends_with("521") && bodies.is_empty(), "{input:?}: {codes}");
        }
    }
    let long = format!("BDAT {}\r\nNOOP\r\n", "1".repeat(3000));
    let played = play(server(Spec::default()), long.as_bytes(), long.len());
    assert!(played.closed && played.said == replies::BAD_CHUNK, "{played:?}");
}

#[test]
fn a_chunk_of_absurd_size_ends_the_session() {
    for octets in ["401", "4294967296", "18446744073709551615", "99999999999999999999999999"] {
        for open in ["", OPEN, &format!("{OPEN}BDAT 2\r\nok")] {
            let (codes, bodies, closed) = codes(&format!("{open}BDAT {octets} LAST\r\nNOOP\r\n"));
            assert!(closed && codes.ends_with("552") && bodies.is_empty(), "{octets}: {codes}");
        }
    }
    let (codes, _, closed) = codes(&format!("{OPEN}BDAT 400 LAST\r\n{}NOOP\r\n", "x".repeat(400)));
    assert_eq!((codes.as_str(), closed), ("250 250 552 250", false));
}

#[test]
fn a_binary_message_needs_chunks() {
    let mail = "MAIL FROM:<> BODY=BINARYMIME\r\nRCPT TO:<r@b>\r\n";
    let (said, bodies, _) = codes(&format!("{mail}DATA\r\nBDAT 3 LAST\r\n\n\0\r"));
    assert_eq!((said.as_str(), &*bodies), ("250 250 503 250", &["\n\0\r".to_owned()][..]));
    let played = play(server(Spec::default()), format!("{mail}BDAT 0 LAST\r\n").as_bytes(), 999);
    let (transaction, _) = &played.taken[0];
    assert_eq!((transaction.asks.binary, transaction.body), (true, BodyType::EightBitMime));
    for offers in [
        Offers { chunking: false, ..Offers::default() },
        Offers { binarymime: false, ..Offers::default() },
    ] {
        let played = play(server(Spec { offers, ..Spec::default() }), mail.as_bytes(), 999);
        assert!(played.said.starts_with("555 5.5.4"), "{played:?}");
    }
}

#[test]
fn a_refusal_of_the_message_waits_for_the_chunk() {
    let mut out = Vec::new();
    let input = format!("EHLO c\r\n{OPEN}BDAT 6 LAST\r\nQUIT");
    let mut server = server(Spec::default());
    let mut unread = input.as_bytes();
    loop {
        let (next, used, step) = server.step(unread, &mut out);
        unread = &unread[used..];
        server = match step {
            Step::Ask(Question::Data) => {
                let reply = Reply::new(452, EnhancedCode(4, 3, 1), "full");
                out.clear();
                next.answer(Verdict::Refuse(reply), &mut out)
            }
            Step::Ask(_) => next.answer(Verdict::Accept, &mut out),
            Step::NeedInput => {
                assert_eq!(out, b"");
                server = next;
                break;
            }
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(unread, b"");
    let (server, used, step) = server.step(b"\r\nMAIL FROM:<>\r\n", &mut out);
    assert_eq!((used, out.as_slice()), (16, &b"452 4.3.1 full\r\n"[..]));
    assert!(matches!(step, Step::Ask(Question::Mail { .. })));
    drop(server.answer(Verdict::Accept, &mut out));
}

#[test]
fn what_mail_asks_is_granted_where_it_is_offered() {
    let said =
        |server: Server, mail: &str| play(server, format!("{mail}\r\n").as_bytes(), 999).said;
    let stranger = || {
        let mut server = server(Spec::default());
        server.introduce(false, UnixMillis(0));
        server
    };
    let secured = || {
        let mut server = stranger();
        server.session.secured = true;
        server
    };
    for asks in ["BY=60;R", "MT-PRIORITY=9"] {
        let mail = format!("MAIL FROM:<> {asks}");
        assert_eq!(said(server(Spec::default()), &mail), replies::SENDER_OK, "{asks}");
        let nothing = Offers { deliver_by: false, mt_priority: false, ..Offers::default() };
        let plain = server(Spec { offers: nothing, ..Spec::default() });
        assert_eq!(said(plain, &mail), replies::NOT_OFFERED, "{asks}");
    }
    assert_eq!(said(stranger(), "MAIL FROM:<> MT-PRIORITY=1"), replies::SENDER_LOWERED);
    assert_eq!(said(stranger(), "MAIL FROM:<> MT-PRIORITY=-1"), replies::SENDER_OK);
    assert_eq!(said(stranger(), "MAIL FROM:<> REQUIRETLS"), replies::NEEDS_TLS);
    assert_eq!(said(secured(), "MAIL FROM:<> REQUIRETLS"), replies::SENDER_OK);
    let input = "MAIL FROM:<> MT-PRIORITY=9 BY=7;N\r\nRCPT TO:<r@b>\r\nBDAT 0 LAST\r\n";
    let played = play(server(Spec::default()), input.as_bytes(), 999);
    let asks = played.taken[0].0.asks;
    assert_eq!((asks.priority, asks.by), (Some(9), By::parse(b"7;N")));
    let played = play(secured(), input.replace(" BY=7;N", " REQUIRETLS").as_bytes(), 999);
    let asks = played.taken[0].0.asks;
    assert_eq!((asks.priority, asks.require_tls), (Some(0), true));
}

#[test]
fn mail_is_held_where_it_is_submitted_and_nowhere_else() {
    for kind in [Kind::Relay, Kind::Submission, Kind::Lmtp] {
        for future_release in [Some(60), None] {
            let offers = Offers { future_release, ..Offers::default() };
            let mut server = server(Spec { offers, kind, ..Spec::default() });
            server.introduce(true, UnixMillis(1_700_000_000_999));
            server.session.authenticated = true;
            let hello = if kind == Kind::Lmtp { "LHLO" } else { "EHLO" };
            let input = format!("{hello} c\r\nMAIL FROM:<> HOLDFOR=60\r\n");
            let said = play(server, input.as_bytes(), 999).said;
            let is_held = kind == Kind::Submission && future_release.is_some();
            let line = "\r\n250-FUTURERELEASE 60 2023-11-14T22:14:20Z\r\n";
            assert_eq!(said.contains(line), is_held, "{kind:?}: {said}");
            assert_eq!(said.contains("FUTURERELEASE"), is_held, "{kind:?}: {said}");
            let reply = if is_held { replies::SENDER_OK } else { replies::NOT_OFFERED };
            assert!(said.ends_with(reply), "{kind:?}: {said}");
        }
    }
}

#[test]
fn the_reply_to_ehlo_says_what_this_client_may_ask() {
    let ehlo = |trusted, secured, offers| {
        let mut server = server(Spec { offers, ..Spec::default() });
        server.introduce(trusted, UnixMillis(1_700_000_000_999));
        server.session.secured = secured;
        let mut out = Vec::new();
        assert_eq!(server.step(b"EHLO c\r\n", &mut out).2, Step::NeedInput);
        String::from_utf8(out).unwrap()
    };
    let all = Offers { vrfy: true, expn: true, ..Offers::default() };
    let text = ehlo(true, true, all.clone());
    for line in [
        "CHUNKING",
        "BINARYMIME",
        "DELIVERBY",
        "MT-PRIORITY",
        "REQUIRETLS",
        "ETRN",
        "VRFY",
        "EXPN",
        "LIMITS RCPTMAX=1000",
    ] {
        assert!(text.contains(&format!("\r\n250-{line}\r\n")), "{line}: {text}");
    }
    let text = ehlo(false, false, all);
    for line in ["REQUIRETLS", "ETRN"] {
        assert!(!text.contains(line), "{line}: {text}");
    }
    let few = Offers { chunking: false, limits: false, ..Offers::default() };
    let text = ehlo(true, true, few);
    for line in ["CHUNKING", "BINARYMIME", "LIMITS", "VRFY", "EXPN"] {
        assert!(!text.contains(line), "{line}: {text}");
    }
}

#[test]
fn etrn_is_for_friends_and_names_a_domain() {
    let said = |trusted, offers, line: &str| {
        let mut server = server(Spec { offers, ..Spec::default() });
        server.introduce(trusted, UnixMillis(0));
        play(server, format!("{line}\r\n").as_bytes(), 999).said
    };
    let all = Offers::default;
    assert_eq!(said(true, all(), "ETRN a.example"), replies::TURNED);
    assert_eq!(said(true, all(), "ETRN @a.example"), replies::TURNED);
    assert_eq!(said(true, all(), "ETRN #queue"), replies::NO_NAMED_QUEUE);
    assert_eq!(said(false, all(), "ETRN a.example"), replies::NO_TURN);
    assert_eq!(said(true, Offers { etrn: false, ..all() }, "ETRN a.example"), replies::NO_ETRN);
    let mut out = Vec::new();
    let (_, _, step) = server(Spec::default()).step(b"ETRN a.example\r\n", &mut out);
    assert_eq!((step, out.as_slice()), (Step::NeedInput, replies::HELLO_FIRST.as_bytes()));
    // Within a transaction it is refused, and changes nothing of it.
    let input = format!("{OPEN}ETRN a.example\r\nBDAT 2 LAST\r\nok");
    assert_eq!(codes(&input).0, "250 250 503 250");
}

#[test]
fn etrn_is_not_served_where_mail_is_submitted() {
    let submission = || {
        let mut server = server(Spec { kind: Kind::Submission, ..Spec::default() });
        server.session.authenticated = true;
        server
    };
    assert_eq!(play(submission(), b"ETRN a.example\r\n", 999).said, replies::NO_ETRN);
    assert!(!play(submission(), b"HELP\r\n", 999).said.contains("ETRN"));
    assert!(!play(submission(), b"EHLO c\r\n", 999).said.contains("ETRN"));
}

#[test]
fn vrfy_tells_something_only_where_it_is_wanted() {
    let said = |offers, lines: &str| {
        play(server(Spec { offers, ..Spec::default() }), lines.as_bytes(), 999).said
    };
    let on = || Offers { vrfy: true, expn: true, ..Offers::default() };
    assert_eq!(said(Offers::default(), "VRFY r@b\r\n"), replies::VERIFY);
    assert_eq!(said(Offers::default(), "EXPN list\r\n"), replies::EXPAND);
    for line in
        ["VRFY r@b\r\n", "VRFY <r@b>\r\n", "VRFY Someone <r@b>\r\n", "VRFY \u{fc}@b SMTPUTF8\r\n"]
    {
        assert_eq!(said(on(), line), replies::VERIFIED, "{line:?}");
    }
    assert_eq!(said(on(), "VRFY \u{fc}@b\r\n"), replies::SENDER_NEEDS_UTF8);
    assert_eq!(said(on(), "VRFY someone\r\n"), replies::NO_SUCH_NAME);
    assert_eq!(said(on(), "EXPN list\r\n"), replies::NO_LIST);
    assert_eq!(
        said(on(), "RCPT TO:<x@y>\r\nVRFY r@b\r\nRCPT TO:<x@y>\r\n").matches("503").count(),
        2
    );
}

#[test]
fn help_has_words_for_each_command_that_is_offered() {
    let few = Offers { chunking: false, etrn: false, ..Offers::default() };
    let help = |offers: Offers, topic: &str| {
        play(
            server(Spec { offers, ..Spec::default() }),
            format!("HELP {topic}\r\n").as_bytes(),
            999,
        )
        .said
    };
    let all = help(Offers::default(), "");
    let commands = all.lines().next().unwrap().strip_prefix("214-2.0.0 Commands: ").unwrap();
    for command in commands.split(' ') {
        let text = help(Offers::default(), &command.to_ascii_lowercase());
        assert!(text.starts_with(&format!("214 2.0.0 {command}")) && text.lines().count() == 1);
    }
    assert!(commands.contains("BDAT") && commands.contains("ETRN") && !commands.contains("EXPN"));
    assert!(
        !help(few.clone(), "").contains("BDAT") && help(few, "ETRN").starts_with("214-2.0.0 Comm")
    );
    assert_eq!(help(Offers::default(), "no such thing"), all);
}

/// What is said to `input`, its one chunk being refused.
fn refused(mut server: Server, mut input: &[u8]) -> String {
    let mut out = Vec::new();
    loop {
        let (next, used, step) = server.step(input, &mut out);
        input = &input[used..];
        server = match step {
            Step::NeedInput => break,
            Step::Ask(_) => next.answer(Verdict::Accept, &mut out),
            Step::Chunk { octets, .. } => {
                let mut next = next;
                let _ = next.take_transaction();
                input = &input[usize::try_from(octets).unwrap()..];
                let no = Reply::new(452, EnhancedCode(4, 3, 1), "no room");
                next.body_done(BodyVerdict::Refuse(no), &mut out)
            }
            other => panic!("{other:?}"),
        };
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn lmtp_has_a_reply_for_each_recipient_to_the_last_chunk_only() {
    for (chunk, replies) in [("BDAT 1\r\n!", 1), ("BDAT 1 LAST\r\n!", 2)] {
        let lmtp = server(Spec { kind: Kind::Lmtp, ..Spec::default() });
        let input = format!("LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\n{chunk}");
        let said = refused(lmtp, input.as_bytes());
        assert_eq!(said.matches("452 4.3.1").count(), replies, "{said}");
    }
}

#[test]
fn what_a_chunk_announced_is_passed_over_where_tls_is_required_first() {
    let offers = Offers { starttls: true, ..Offers::default() };
    let strict = server(Spec { offers, tls_required: true, ..Spec::default() });
    let said = refused(strict, b"EHLO c\r\nBDAT 12 LAST\r\nMAIL FROM:<>NOOP\r\n");
    let last: Vec<&str> = said.lines().skip_while(|line| !line.starts_with("250 HELP")).collect();
    assert_eq!(last.len(), 3, "{said}");
    assert!(last[1].starts_with('5') && last[2].starts_with("250 2.0.0"), "{said}");
}
