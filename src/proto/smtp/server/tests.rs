//! The engine by itself; whole dialogs are in `tests/dialogs`.

use super::*;
use crate::base::{EnhancedCode, Mechanism, Place, ShardId};

const ID: QueueId = QueueId { log: ShardId(0), place: Place { segment: 1, offset: 4096 } };

fn settings() -> Arc<Settings> {
    Arc::new(Settings::new(Spec {
        hostname: "mx.example".into(),
        message_size: 1000,
        recipients_max: 3,
        errors_max: 4,
        ..Spec::default()
    }))
}

/// Runs `input` to its end, saying yes to everything, bodies being `.CRLF`.
fn run(mut server: Server, mut input: &[u8]) -> (Server, String, bool) {
    let (mut said, mut out) = (Vec::new(), Vec::new());
    let closed = loop {
        let (next, used, step) = server.step(input, &mut out);
        input = &input[used..];
        server = next;
        match step {
            Step::NeedInput => break false,
            Step::Close => break true,
            // As the driver does it: what is unread is dropped.
            Step::StartTls => {
                input = &[];
                server = server.secured();
            }
            Step::Chunk { .. } => panic!("no BDAT here"),
            Step::Flush => said.append(&mut out),
            Step::Ask(_) => server = server.answer(Verdict::Accept, &mut out),
            Step::Authenticate => panic!("nothing is offered"),
            Step::Body => {
                input = input.strip_prefix(b".\r\n").expect("an empty message");
                server = server.body_done(BodyVerdict::Queued(ID), &mut out);
            }
        }
    };
    said.append(&mut out);
    (server, String::from_utf8(said).unwrap(), closed)
}

fn greeted() -> Server {
    let mut out = Vec::new();
    let server = Server::new(settings(), &mut out);
    assert_eq!(out, b"220 mx.example ESMTP ringpost\r\n");
    run(server, b"EHLO client.example\r\n").0
}

#[test]
fn what_is_not_offered_is_refused() {
    let offers = Offers {
        pipelining: false,
        eight_bit: false,
        smtputf8: false,
        dsn: false,
        chunking: false,
        binarymime: false,
        deliver_by: false,
        future_release: None,
        mt_priority: false,
        requiretls: false,
        limits: false,
        etrn: false,
        ..Offers::default()
    };
    let spec = Spec { hostname: "mx.example".into(), offers, ..Spec::default() };
    let server = Server::new(Arc::new(Settings::new(spec)), &mut Vec::new());
    let (server, said, _) = run(server, b"EHLO client.example\r\n");
    assert_eq!(
        said,
        "250-mx.example\r\n250-SIZE 52428800\r\n250-ENHANCEDSTATUSCODES\r\n250 HELP\r\n"
    );
    let mut server = server;
    for parameter in ["BODY=8BITMIME", "SMTPUTF8", "RET=HDRS", "ENVID=x"] {
        let said;
        let line = format!("MAIL FROM:<s@a.example> {parameter}\r\n");
        (server, said, _) = run(server, line.as_bytes());
        assert!(said.starts_with("555 5.5.4 "), "{parameter}: {said}");
    }
    let input = b"MAIL FROM:<s@a.example> SIZE=9\r\nRCPT TO:<r@b.example> NOTIFY=NEVER\r\n";
    let (_, said, _) = run(server, input);
    assert!(said.starts_with("250 ") && said.contains("\r\n555 5.5.4 "), "{said}");
}

#[test]
fn one_message_from_end_to_end() {
    let mut server = greeted();
    let mut out = Vec::new();
    let input = b"MAIL FROM:<s@a.example> SIZE=10\r\nRCPT TO:<r@b.example>\r\nDATA\r\nbody";
    let (next, used, step) = server.step(input, &mut out);
    let Step::Ask(Question::Mail { sender: Some(sender), size: Some(10), .. }) = step else {
        panic!("{step:?}");
    };
    assert_eq!(sender.text(), "s@a.example");
    server = next.answer(Verdict::Accept, &mut out);
    let input = &input[used..];
    let (next, used, step) = server.step(input, &mut out);
    let Step::Ask(Question::Recipient(recipient)) = step else { panic!("{step:?}") };
    assert_eq!(recipient.text(), "r@b.example");
    assert!(next.transaction().unwrap().recipients.is_empty());
    server = next.answer(Verdict::Accept, &mut out);
    let input = &input[used..];
    let (next, used, step) = server.step(input, &mut out);
    assert_eq!(step, Step::Ask(Question::Data));
    server = next.answer(Verdict::Accept, &mut out);
    let input = &input[used..];
    assert_eq!(input, b"body");
    let (mut server, used, step) = server.step(input, &mut out);
    assert_eq!((used, step), (0, Step::Body));
    assert_eq!(server.take_transaction().recipients, ["r@b.example"]);
    let server = server.body_done(BodyVerdict::Queued(ID), &mut out);
    let expected = format!(
        "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n\
         250 2.0.0 Ok: queued as {ID}\r\n"
    );
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    assert!(server.transaction().is_none());
    assert_eq!((server.helo(), server.protocol()), ("client.example", Protocol::Esmtp));
}

#[test]
fn replies_keep_to_one_line_of_ascii() {
    let mut out = Vec::new();
    let text = format!("a\r\nb\u{e9}\0{}", "x".repeat(600));
    write_reply(&Reply::new(550, EnhancedCode(5, 1, 1), text), &mut out);
    assert_eq!(out.len(), crate::base::limits::REPLY_LINE_MAX);
    assert!(out.starts_with(b"550 5.1.1 a  b??xx") && out.ends_with(b"x\r\n"));
}

#[test]
fn a_flood_of_commands_is_answered_in_parts() {
    let flood = b"HELP\r\n".repeat(1000);
    let mut out = Vec::new();
    let (server, used, step) = greeted().step(&flood, &mut out);
    assert_eq!(step, Step::Flush);
    assert!(used < flood.len() && out.len() < OUT_HIGH_WATER + 512, "{used} {}", out.len());
    let (_, answer, _) = run(server, &flood[used..]);
    let all = out.len() + answer.len();
    assert_eq!(all, 1000 * (answer.len() / (1000 - used / 6)));
}

#[test]
fn an_overlong_line_is_refused_once_and_skipped() {
    let long = [b"NOOP ", &*vec![b'x'; 10_000], b"\r\nNOOP\r\n"].concat();
    for cut in [1, 2047, 2048, 2049, 9999, 10_000, long.len()] {
        let mut server = greeted();
        server.take_tally();
        let mut said = String::new();
        // A driver with a buffer of the least size allowed.
        let mut unread = Vec::new();
        for piece in long.chunks(cut).flat_map(|chunk| chunk.chunks(COMMAND_LINE_ALLOWED)) {
            unread.extend_from_slice(piece);
            loop {
                let mut out = Vec::new();
                let (next, used, step) = server.step(&unread, &mut out);
                server = next;
                assert_eq!(step, Step::NeedInput);
                unread.drain(..used);
                said.push_str(std::str::from_utf8(&out).unwrap());
                if used == 0 {
                    break;
                }
            }
            assert!(unread.len() < COMMAND_LINE_ALLOWED);
        }
        assert_eq!(said, "500 5.5.2 Command line too long\r\n250 2.0.0 Ok\r\n", "cut {cut}");
        assert_eq!(server.take_tally(), Tally { commands: 2, errors: 1 });
    }
}

#[test]
fn a_line_without_end_ends_the_session() {
    let (_, answer, closed) = run(greeted(), &vec![b'a'; lines::LINE_SKIPPED_MAX as usize + 1]);
    let expected = format!("{}{}", replies::LINE_TOO_LONG, replies::ENDLESS_LINE);
    assert!(closed);
    assert_eq!(answer, expected);
}

#[test]
fn errors_end_the_session_and_a_message_forgives_them() {
    let wrong = b"NONE\r\nNONE\r\nNONE\r\n";
    let message = b"MAIL FROM:<>\r\nRCPT TO:<r@b.example>\r\nDATA\r\n.\r\n";
    let (server, _, closed) = run(greeted(), &[&wrong[..], message, wrong].concat());
    assert!(!closed && !server.had_too_many_errors());
    let (server, answer, closed) = run(server, b"NONE\r\nNOOP\r\n");
    assert!(closed && server.had_too_many_errors());
    assert_eq!(answer, replies::TOO_MANY_ERRORS);
}

#[test]
fn refusals_for_good_count_as_errors_and_passing_ones_do_not() {
    for (code, closes) in [(550, true), (450, false)] {
        let mut server = run(greeted(), b"MAIL FROM:<>\r\n").0;
        let mut ended = false;
        for _ in 0..4 {
            let mut out = Vec::new();
            let (next, _, step) = server.step(b"RCPT TO:<r@b.example>\r\n", &mut out);
            assert!(matches!(step, Step::Ask(Question::Recipient(_))));
            let reply = Reply::new(code, EnhancedCode((code / 100) as u8, 1, 1), "no");
            server = next.answer(Verdict::Refuse(reply), &mut out);
            ended = out == replies::TOO_MANY_ERRORS.as_bytes();
        }
        assert_eq!(ended, closes);
    }
}

#[test]
fn a_verdict_can_end_the_session_anywhere() {
    let bye = Reply::new(421, EnhancedCode(4, 3, 2), "going");
    let message = b"MAIL FROM:<>\r\nRCPT TO:<r@b.example>\r\nDATA\r\n";
    for at in 0..4 {
        let mut server = greeted();
        let mut input = &message[..];
        let mut out = Vec::new();
        for step_number in 0.. {
            let (next, used, step) = server.step(input, &mut out);
            input = &input[used..];
            let ends = step_number == at;
            server = match step {
                Step::Ask(_) if ends => next.answer(Verdict::Close(bye.clone()), &mut out),
                Step::Ask(_) => next.answer(Verdict::Accept, &mut out),
                Step::Body => next.body_done(BodyVerdict::Close(bye.clone()), &mut out),
                Step::Close => break,
                other => panic!("{other:?}"),
            };
        }
        assert!(out.ends_with(b"421 4.3.2 going\r\n"), "at {at}");
    }
}

#[test]
fn says_why_it_ends_by_itself() {
    let mut out = Vec::new();
    let (_, used, step) = greeted().timed_out(&mut out).step(b"NOOP\r\n", &mut out);
    assert_eq!((used, step), (0, Step::Close));
    let (_, _, step) = greeted().shutting_down(&mut out).step(b"", &mut out);
    assert_eq!(step, Step::Close);
    assert_eq!(out, format!("{}{}", replies::TIMED_OUT, replies::SHUTTING_DOWN).into_bytes());
}

#[test]
fn the_protocol_is_what_received_names() {
    assert_eq!(run(greeted(), b"HELO me\r\n").0.protocol(), Protocol::Smtp);
    let (server, _, _) = run(greeted(), b"MAIL FROM:<> SMTPUTF8\r\n");
    assert_eq!(server.protocol(), Protocol::Utf8Smtp);
    assert_eq!(run(server, b"RSET\r\n").0.protocol(), Protocol::Esmtp);
    let names = [Protocol::Smtp, Protocol::Esmtp, Protocol::Utf8Smtp].map(Protocol::keyword);
    assert_eq!(names, ["SMTP", "ESMTP", "UTF8SMTP"]);
}

#[test]
fn every_fixed_reply_is_well_formed() {
    use replies::*;
    for text in [
        BYE,
        OK,
        SENDER_OK,
        RECIPIENT_OK,
        SEND_BODY,
        VERIFY,
        EXPAND,
        VERIFIED,
        NO_SUCH_NAME,
        NO_LIST,
        TURNED,
        NO_ETRN,
        NO_TURN,
        NO_NAMED_QUEUE,
        SENDER_LOWERED,
        NEEDS_TLS,
        NO_CHUNKING,
        IN_CHUNKS,
        CHUNKS_FAILED,
        BINARY_BY_DATA,
        BAD_CHUNK,
        CHUNK_TOO_LARGE,
        HELLO_FIRST,
        LHLO_FIRST,
        LMTP_ONLY,
        NO_LMTP,
        NO_LMTP_RECIPIENTS,
        IN_TRANSACTION,
        MAIL_FIRST,
        MAIL_TWICE,
        NO_RECIPIENTS,
        NO_PARAMETERS,
        TOO_LARGE,
        TOO_MANY_RECIPIENTS,
        NEEDS_UTF8,
        ORCPT_NEEDS_UTF8,
        BARE_LF,
        LINE_TOO_LONG,
        ENDLESS_LINE,
        FOREIGN,
        TOO_MANY_ERRORS,
        TIMED_OUT,
        SHUTTING_DOWN,
    ] {
        assert!(text.ends_with("\r\n"), "{text:?}");
        for line in text.split_terminator("\r\n") {
            assert!(line.len() < 510 && line.bytes().all(|byte| (32..127).contains(&byte)));
            assert!(line.starts_with("354") || line[..1] == line[4..5], "{line}: class differs");
        }
    }
}

#[test]
fn who_submitted_is_believed_of_users_alone() {
    let auth = Mechanisms::NONE.with(Mechanism::External);
    let spec = Spec { offers: Offers { auth, ..Offers::default() }, ..Spec::default() };
    let mut server = Server::new(Arc::new(Settings::new(spec)), &mut Vec::new());
    server.offer_mechanisms(auth);
    let (mut server, _, _) = run(server, b"EHLO client.example\r\n");
    let line = b"MAIL FROM:<s@a.example> AUTH=u+2Bx@a.example\r\n";
    let mut out = Vec::new();
    for expected in ["", "u+x@a.example"] {
        (server, _, _) = run(server, line);
        let terms = server.transaction().and_then(|mail| mail.terms.clone()).unwrap();
        assert_eq!(terms.auth.as_deref(), Some(expected));
        (server, _, _) = run(server, b"RSET\r\n");
        if !server.is_authenticated() {
            let step;
            (server, _, step) = server.step(b"AUTH EXTERNAL =\r\n", &mut out);
            assert_eq!(step, Step::Authenticate);
            server = server.identified(Identified::Checked(Some("u".into())), &mut out);
            server = server.answer(Verdict::Accept, &mut out);
            assert!(out.ends_with(b"235 2.7.0 Authenticated\r\n"));
        }
    }
}
