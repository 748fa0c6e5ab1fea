//! Reports of each kind, and what strangers may do to them.

use proptest::prelude::*;

use super::status::{host_name, status_code};
use super::*;
use crate::base::{Disposition, EnhancedCode, Reply};
use crate::mail::headers::fields;

fn refused(code: EnhancedCode, text: &str) -> Outcome {
    Outcome {
        recipient: 0,
        disposition: Disposition::Failed,
        reply: Reply::new(550, code, text),
        host: "192.0.2.9:25".to_owned(),
        at: UnixMillis(1_700_000_100_000),
        attempts: 1,
        next_attempt: UnixMillis(0),
        security: None,
    }
}

fn deferred() -> Outcome {
    Outcome {
        disposition: Disposition::Deferred,
        reply: Reply::new(451, EnhancedCode(4, 7, 1), "greylisted"),
        attempts: 7,
        at: UnixMillis(1_700_000_000_000 + 5 * 3_600_000),
        ..refused(EnhancedCode(5, 0, 0), "")
    }
}

fn reported<'a>(address: &'a str, outcome: &'a Outcome) -> Reported<'a> {
    Reported { address, orcpt: None, outcome }
}

fn input<'a>(recipients: &'a [Reported<'a>]) -> ReportInput<'a> {
    ReportInput {
        kind: Kind::Failed,
        host: "relay1.example.com",
        sender: "ann@example.net",
        envid: None,
        queue_id: "000000000000G00Z",
        arrival: UnixMillis(1_700_000_000_000),
        retry_until: UnixMillis(1_700_000_000_000 + 5 * 86_400_000),
        deliver_by: None,
        hold_until: None,
        is_overdue: false,
        recipients,
        original:
            b"Received: from x\r\n\tby y\r\nSubject: Hello\r\n..odd: 1\r\n\r\n..Text\r\n.\r\n",
        returned: Returned::Header,
        now: UnixMillis(1_700_000_101_000),
        seed: "s33d",
    }
}

fn text(report: &Report) -> String {
    String::from_utf8(stuffing::unstuff(&report.body)).unwrap()
}

/// The header and the text of each part, as a reader splits them.
fn parts(message: &str) -> Vec<(String, String)> {
    let line = message.lines().find(|line| line.contains("boundary=")).unwrap();
    let boundary = line.split('"').nth(1).unwrap();
    let (body, _) = message.split_once(&format!("\r\n--{boundary}--\r\n")).unwrap();
    let delimiter = format!("\r\n--{boundary}\r\n");
    body.split(&delimiter)
        .skip(1)
        .map(|part| {
            let (header, text) = part.split_once("\r\n\r\n").unwrap();
            (header.to_owned(), text.to_owned())
        })
        .collect()
}

#[test]
fn a_report_reads_as_the_one_in_the_fixture() {
    let outcome = refused(EnhancedCode(5, 1, 1), "no such user");
    let mut expired = refused(EnhancedCode(4, 2, 2), "mailbox full");
    expired.disposition = Disposition::Expired;
    expired.reply.code = 452;
    expired.host = String::new();
    expired.attempts = 31;
    expired.at = UnixMillis(1_700_000_000_000 + 101 * 3_600_000);
    let bob = Reported {
        orcpt: Some("rfc822;B+2Bx@old.example"),
        ..reported("bob@example.org", &outcome)
    };
    let recipients = [bob, reported("eve@example.org", &expired)];
    let report = build(&ReportInput { envid: Some("QQ+2B1"), ..input(&recipients) });
    let fixture = include_str!("../../../tests/fixtures/report.eml").replace('\n', "\r\n");
    assert_eq!(text(&report), fixture);
    assert_eq!((report.body_type, report.smtputf8), (BodyType::SevenBit, false));
    assert!(report.body.ends_with(b"\r\n.\r\n"));
    let names: Vec<_> = fields(&report.body).map(|field| field.name.to_vec()).collect();
    assert_eq!(names.len(), 9);
}

#[test]
fn a_notice_tells_until_when_it_is_tried() {
    let outcome = deferred();
    let recipients = [reported("bob@example.org", &outcome)];
    let report = text(&build(&ReportInput { kind: Kind::Delayed, ..input(&recipients) }));
    assert!(report.contains("\r\nSubject: Delayed mail: still being tried\r\n"));
    let parts = parts(&report);
    let words = parts[0].1.replace("\r\n", " ");
    assert!(words.contains("You need not do anything: it is tried again until Sun, 19 Nov 2023"));
    assert!(words.contains("Not delivered for 5 h (attempts: 7)."), "{words}");
    assert!(parts[1].1.contains("Action: delayed\r\nStatus: 4.7.1\r\n"));
    assert!(parts[1].1.ends_with("Will-Retry-Until: Sun, 19 Nov 2023 22:13:20 +0000\r\n"));
}

#[test]
fn what_was_passed_on_is_said_to_be() {
    let mut outcome = refused(EnhancedCode(2, 0, 0), "queued as X");
    (outcome.disposition, outcome.reply.code) = (Disposition::Delivered, 250);
    let recipients = [reported("bob@example.org", &outcome)];
    let report = text(&build(&ReportInput { kind: Kind::Relayed, ..input(&recipients) }));
    assert!(
        report.contains("\r\nSubject: Mail passed on: no report on its delivery will come\r\n")
    );
    assert!(report.contains("Action: relayed\r\nStatus: 2.0.0\r\n"), "{report}");
    assert!(!report.contains("Will-Retry-Until"));
    let report = text(&build(&ReportInput { kind: Kind::Delivered, ..input(&recipients) }));
    assert!(report.contains("\r\nSubject: Mail delivered\r\n"), "{report}");
    assert!(report.contains("Action: delivered\r\nStatus: 2.0.0\r\n"), "{report}");
    assert!(!report.contains("Will-Retry-Until") && !report.contains("passed on"));
}

#[test]
fn what_only_expired_has_a_subject_of_its_own() {
    let mut outcome = deferred();
    outcome.disposition = Disposition::Expired;
    let recipients = [reported("bob@example.org", &outcome)];
    let report = text(&build(&input(&recipients)));
    assert!(report.contains("Subject: Undelivered mail: given up after many attempts\r\n"));
    assert!(report.contains("Action: failed\r\nStatus: 4.4.7\r\n"));
}

#[test]
fn a_message_is_returned_whole_if_that_was_asked_and_can_be() {
    let outcome = refused(EnhancedCode(5, 1, 1), "no such user");
    let recipients = [reported("bob@example.org", &outcome)];
    let full = ReportInput { returned: Returned::Whole, ..input(&recipients) };
    let whole = text(&build(&full));
    let last = parts(&whole).remove(2);
    assert!(last.0.contains("Content-Type: message/rfc822\r\n"), "{}", last.0);
    assert_eq!(last.1, "Received: from x\r\n\tby y\r\nSubject: Hello\r\n.odd: 1\r\n\r\n.Text\r\n");
    assert!(whole.replace("\r\n", " ").contains("Your message is attached"));
    // One that would have to be encoded is not.
    let eight_bit = ReportInput { original: b"Subject: x\r\n\r\n\xe9\r\n.\r\n", ..full };
    let report = text(&build(&eight_bit));
    assert!(report.contains("text/rfc822-headers"), "{report}");
    assert!(report.replace("\r\n", " ").contains("that a report cannot hold, and only its header"));
    let global = ReportInput {
        sender: "\u{e4}nn@example.net",
        original: b"Subject: x\r\n\r\n\xc3\xa9\r\n.\r\n",
        ..full
    };
    assert!(text(&build(&global)).contains("Content-Type: message/global\r\n"));
    let long = ReportInput { returned: Returned::TooLong, ..input(&recipients) };
    let report = text(&build(&long)).replace("\r\n", " ");
    assert!(report.contains("it is longer than 64 KiB, and only its header is attached"));
}

#[test]
fn an_international_recipient_of_an_ascii_sender_stays_seven_bit() {
    let outcome = refused(EnhancedCode(5, 1, 1), "kein Postfach f\u{fc}r Sie");
    let orcpt = Some("utf-8;j\u{f6}rg@old.example");
    let recipients = [Reported { orcpt, ..reported("j\u{f6}rg+a@example.org", &outcome) }];
    let mut ascii = input(&recipients);
    ascii.original = b"Subject: Gr\xc3\xbc\xc3\x9fe\r\n\r\n.\r\n";
    let report = build(&ascii);
    assert!(encoding::is_seven_bit(&report.body) && !report.smtputf8);
    let parts = parts(&text(&report));
    assert!(parts[0].0.contains("charset=utf-8") && parts[0].1.contains("j=C3=B6rg"));
    assert!(parts[1].0.contains("message/delivery-status"));
    assert!(parts[1].1.contains("Final-Recipient: utf-8; j\\x{F6}rg\\x{2B}a@example.org\r\n"));
    assert!(parts[1].1.contains("Original-Recipient: utf-8; j\\x{F6}rg@old.example\r\n"));
    assert!(parts[1].1.contains("kein Postfach f?r Sie"));
    assert!(parts[2].1.contains("Gr=C3=BC=C3=9Fe"), "{}", parts[2].1);
}

#[test]
fn an_international_sender_gets_an_international_report() {
    let outcome = refused(EnhancedCode(5, 1, 1), "kein Postfach f\u{fc}r Sie");
    let orcpt =
        |orcpt| Reported { orcpt: Some(orcpt), ..reported("j\u{f6}rg@example.org", &outcome) };
    let recipients = [orcpt("utf-8;J\\x{F6}rg@old.example"), orcpt("UTF-8;\\x{0D}@old.example")];
    let mut global = input(&recipients);
    global.sender = "\u{e4}nn@example.net";
    global.original = b"Subject: Gr\xc3\xbc\xc3\x9fe\r\n\r\n.\r\n";
    let report = build(&global);
    assert!(report.smtputf8 && report.body_type == BodyType::EightBitMime);
    let parts = parts(&text(&report));
    assert!(parts[1].0.contains("message/global-delivery-status"));
    assert!(parts[1].1.contains("Final-Recipient: utf-8; j\u{f6}rg@example.org\r\n"));
    assert!(parts[1].1.contains("Original-Recipient: utf-8; J\u{f6}rg@old.example\r\n"));
    assert!(parts[1].1.contains("Original-Recipient: UTF-8; \\x{0D}@old.example\r\n"));
    assert!(parts[2].0.contains("message/global-headers"));
    global.original = b"Subject: \xff\r\n\r\n.\r\n";
    assert!(text(&build(&global)).contains("text/rfc822-headers"));
}

#[test]
fn a_long_header_is_cut_behind_a_line() {
    let outcome = refused(EnhancedCode(5, 1, 1), "no such user");
    let recipients = [reported("bob@example.org", &outcome)];
    let mut long = input(&recipients);
    let original = b"X-Line: of thirty-two octets...\r\n".repeat(2000);
    long.original = &original;
    let parts = parts(&text(&build(&long)));
    assert!(parts[2].1.len() <= HEADER_RETURNED_MAX);
    assert!(parts[2].1.len() > HEADER_RETURNED_MAX - 40);
    assert!(parts[2].1.ends_with("octets...\r\n"), "{}", &parts[2].1[32_000..]);
}

#[test]
fn hosts_and_codes_are_named_as_the_standard_wants() {
    assert_eq!(host_name("192.0.2.9:25"), "[192.0.2.9]");
    assert_eq!(host_name("[2001:db8::1]:25"), "[IPv6:2001:db8::1]");
    assert_eq!(host_name("mx.example.org:25"), "mx.example.org");
    let mut outcome = refused(EnhancedCode(5, 1, 1), "");
    let failed = input(&[]);
    let delayed = ReportInput { kind: Kind::Delayed, ..failed };
    let overdue = ReportInput { is_overdue: true, ..delayed };
    assert_eq!(status_code(&failed, &outcome), EnhancedCode(5, 1, 1));
    // A greeting that turns everybody away defers.
    assert_eq!(status_code(&delayed, &outcome), EnhancedCode(4, 1, 1));
    assert_eq!(status_code(&overdue, &outcome), EnhancedCode(4, 4, 7));
    outcome.reply.enhanced = None;
    assert_eq!(status_code(&failed, &outcome), EnhancedCode(5, 0, 0));
    outcome.disposition = Disposition::Expired;
    assert_eq!(status_code(&failed, &outcome), EnhancedCode(4, 4, 7));
    outcome.reply.enhanced = Some(EnhancedCode(5, 4, 7));
    assert_eq!(status_code(&failed, &outcome), EnhancedCode(5, 4, 7));
    for (host, remote) in [("mx.example.org:25", "Remote-MTA: dns; mx.example.org\r\n"), ("", "")] {
        outcome.host = host.into();
        let recipients = [reported("a@example.org", &outcome)];
        let text = text(&build(&input(&recipients)));
        assert_eq!(text.contains("Remote-MTA:"), !host.is_empty(), "{text}");
        let kind = if host.is_empty() { "x-ringpost" } else { "smtp" };
        assert!(
            text.contains(remote) && text.contains(&format!("Diagnostic-Code: {kind}; 550 ")),
            "{text}"
        );
    }
}

#[test]
fn that_mail_was_to_be_kept_is_named() {
    let outcome = refused(EnhancedCode(5, 1, 1), "no such user");
    let all = [reported("bob@example.org", &outcome)];
    let hold_until = Some(UnixMillis(1_700_000_090_999));
    for kind in [Kind::Failed, Kind::Delayed, Kind::Relayed] {
        let message = text(&build(&ReportInput { kind, hold_until, ..input(&all) }));
        let status = parts(&message).remove(1).1;
        assert!(status.contains("\r\nArrival-Date: "), "{status}");
        let field = "\r\nFuture-Release-Request: until;2023-11-14T22:14:50Z\r\n";
        assert!(status.contains(field), "{status}");
    }
}

#[test]
fn nothing_that_a_stranger_wrote_ends_a_line() {
    let odd = refused(EnhancedCode(5, 1, 1), "a\u{85}b\u{2028}c\u{2029}d\re\nf");
    let all = [reported("j\u{f6}rg@example.org", &odd)];
    let message = text(&build(&ReportInput { sender: "\u{e4}@x.example", ..input(&all) }));
    assert!(message.contains("Diagnostic-Code: smtp; 550 5.1.1 a?b?c?d?e?f\r\n"), "{message}");
    assert!(!message.contains(['\u{85}', '\u{2028}', '\u{2029}']), "{message}");
}

#[test]
fn the_time_that_a_sender_has_set_is_named() {
    let by = Some(UnixMillis(1_700_000_090_000));
    let expired = Outcome {
        disposition: Disposition::Expired,
        ..refused(EnhancedCode(5, 4, 7), "not delivered within the time that its sender has set")
    };
    let all = [reported("bob@example.org", &expired)];
    let message = text(&build(&ReportInput { deliver_by: by, ..input(&all) }));
    assert!(message.contains("Subject: Undelivered mail: not delivered in time\r\n"), "{message}");
    let parts = parts(&message);
    assert!(parts[0].1.contains("by the time that you have set for"), "{}", parts[0].1);
    assert!(parts[1].1.contains("\r\nDeliver-By-Date: Tue, 14 Nov 2023 22:14:50 +0000\r\n"));
    assert!(parts[1].1.contains("Action: failed\r\nStatus: 5.4.7\r\n"), "{}", parts[1].1);
    let late = deferred();
    let all = [reported("bob@example.org", &late)];
    let overdue =
        ReportInput { kind: Kind::Delayed, deliver_by: by, is_overdue: true, ..input(&all) };
    let parts = super::tests::parts(&text(&build(&overdue)));
    assert!(parts[0].1.contains("by the time that you have set"), "{}", parts[0].1);
    assert!(parts[1].1.contains("Action: delayed\r\nStatus: 4.4.7\r\n"), "{}", parts[1].1);
    let relayed = ReportInput { kind: Kind::Relayed, deliver_by: by, ..input(&all) };
    let parts = super::tests::parts(&text(&build(&relayed)));
    assert!(parts[0].1.contains("which may not report"), "{}", parts[0].1);
    assert!(parts[1].1.contains("Action: relayed\r\nStatus: 2."), "{}", parts[1].1);
}

/// Text as strangers write it, with what could mean something in a report.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\r\n"),
        Just("\n"),
        Just("\r"),
        Just("."),
        Just("--report-s33d"),
        Just("--"),
        Just("X-Evil: 1"),
        Just("\r\n\r\n"),
        Just("\0"),
        Just(" "),
        Just("\t"),
        Just("+0D+0A"),
        Just("=?"),
        Just("\u{f6}"),
        Just("\u{85}"),
        Just("\u{2028}"),
        Just(";"),
        Just("a"),
        Just("Subject: "),
        Just("<"),
        Just("\""),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is in it, a report has its nine fields, three parts, one line for
    /// each field of a recipient, and ends where it should.
    #[test]
    fn nothing_that_strangers_wrote_breaks_the_structure(
        address in hostile(), orcpt in hostile(), envid in hostile(), words in hostile(),
        host in hostile(), original in hostile(), sender in "(ann|\u{e4}nn)@example.net",
        kind in prop::sample::select(vec![
            Kind::Failed, Kind::Delayed, Kind::Relayed, Kind::Delivered,
        ]),
        whole: bool,
    ) {
        let mut outcome = refused(EnhancedCode(5, 0, 0), &words);
        outcome.host = host;
        let recipients = [Reported { address: &address, orcpt: Some(&orcpt), outcome: &outcome }];
        let mut stored = vec![];
        stuffing::stuff(original.as_bytes(), &mut stored);
        let report = build(&ReportInput {
            kind,
            sender: &sender,
            envid: Some(&envid),
            original: &stored,
            returned: if whole { Returned::Whole } else { Returned::Header },
            ..input(&recipients)
        });
        prop_assert_eq!(fields(&report.body).count(), 9);
        prop_assert_eq!(report.smtputf8, !sender.is_ascii());
        prop_assert!(report.smtputf8 || encoding::is_seven_bit(&report.body));
        let message = text(&report);
        let mut wire = vec![];
        stuffing::stuff(message.as_bytes(), &mut wire);
        prop_assert_eq!(&wire, &report.body, "it ends at its terminator and nowhere else");
        let parts = parts(&message);
        prop_assert_eq!(parts.len(), 3);
        prop_assert!(message.ends_with("--\r\n") && !parts[1].0.contains("quoted"));
        let groups: Vec<_> = parts[1].1.split("\r\n\r\n").collect();
        prop_assert_eq!(groups.len(), 2);
        let optional = usize::from(!outcome.host.is_empty()) + usize::from(kind == Kind::Delayed);
        prop_assert_eq!(groups[0].lines().count(), 4);
        prop_assert_eq!(groups[1].lines().count(), 6 + optional);
        prop_assert!(!parts[1].1.lines().any(|line| line.starts_with("X-Evil")));
    }
}
