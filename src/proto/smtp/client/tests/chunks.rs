//! BDAT (RFC 3030), LMTP (RFC 2033) and LIMITS against scripted servers.

use super::*;

fn binary() -> Transaction<'static> {
    let (binary, chunked) = (true, true);
    Transaction { sender: "s@example.com", size: 9, eight_bit: true, binary, chunked, ..mail() }
}

impl Pair {
    fn chunking(extensions: &[&str], recipients: &[&str]) -> Self {
        let mut pair = Pair::ready(&[extensions, &["CHUNKING", "BINARYMIME"]].concat());
        let recipients = recipients.iter().copied();
        pair.client.begin(&binary(), recipients, &mut pair.out).unwrap();
        pair
    }

    pub(super) fn chunk(&mut self, octets: &str, is_last: bool) {
        self.client.chunk(octets.len(), is_last, &mut self.out);
        self.out.extend_from_slice(octets.as_bytes());
    }

    /// A session past LHLO.
    fn lmtp(extensions: &[&str]) -> Self {
        let mut pair = Pair { client: Client::lmtp("me.example"), out: Vec::new() };
        pair.hear("220 hi\r\n");
        pair.said("LHLO me.example\r\n");
        let offer: String = extensions.iter().map(|word| format!("250-{word}\r\n")).collect();
        assert_eq!(pair.hear(&format!("{offer}250 HELP\r\n")), [Event::Ready]);
        pair
    }
}

#[test]
fn chunks_are_announced_one_after_the_other() {
    let mut pair = Pair::chunking(&["PIPELINING"], ONE);
    pair.said("MAIL FROM:<s@example.com> BODY=BINARYMIME\r\nRCPT TO:<a@example.org>\r\n");
    assert_eq!(pair.hear("250 ok\r\n250 ok\r\n"), [Event::SendBody]);
    pair.chunk("\0\r.\r\n", false);
    pair.said("BDAT 5\r\n\0\r.\r\n");
    assert!(!pair.client.may_begin());
    assert_eq!(pair.hear("250 5 octets\r\n"), [Event::SendBody]);
    pair.chunk("rest", true);
    pair.said("BDAT 4 LAST\r\nrest");
    // A refusal may leave the transaction open: nothing follows before it is known.
    assert!(!pair.client.may_begin());
    assert_eq!(pair.hear("250 queued\r\n"), [Event::Finished]);
    pair.begin(ONE);
    pair.said("MAIL FROM:<s@example.com>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n");
}

#[test]
fn chunks_without_pipelining() {
    let mut pair = Pair::chunking(&[], THREE);
    pair.said("MAIL FROM:<s@example.com> BODY=BINARYMIME\r\n");
    pair.hear("250 ok\r\n");
    pair.hear("250 ok\r\n");
    assert_eq!(pair.hear("550 no\r\n"), [Event::Refused { recipient: 1 }]);
    pair.out.clear();
    let events = [Event::Refused { recipient: 2 }, Event::SendBody];
    assert_eq!(pair.hear("550 no\r\n"), events);
    pair.chunk("x", true);
    pair.said("BDAT 1 LAST\r\nx");
    assert_eq!(pair.hear("250 ok\r\n"), [Event::Finished]);
}

#[test]
fn a_chunk_may_be_sent_ahead_of_all_replies() {
    let ahead = |pair: &mut Pair| {
        pair.client.begin(&binary(), ["a@example.org"], &mut pair.out).unwrap();
        pair.client.chunk_ahead(4, &mut pair.out);
        pair.out.extend_from_slice(b"body");
    };
    let group = "MAIL FROM:<s@example.com> BODY=BINARYMIME\r\nRCPT TO:<a@example.org>\r\n\
                 BDAT 4 LAST\r\nbody";
    let mut pair = Pair::ready(&["PIPELINING", "CHUNKING", "BINARYMIME"]);
    ahead(&mut pair);
    pair.said(group);
    assert_eq!(pair.hear("250 ok\r\n250 ok\r\n"), []);
    assert!(!pair.client.may_begin());
    assert_eq!(pair.hear("250 queued\r\n"), [Event::Finished]);
    ahead(&mut pair);
    pair.said(group);
    assert_eq!(pair.hear("250 ok\r\n550 5.1.1 who\r\n"), [Event::Refused { recipient: 0 }]);
    assert!(!pair.client.may_begin(), "its MAIL would come into the transaction that is left");
    assert_eq!(pair.hear("503 5.5.1 nobody\r\n"), [Event::Finished]);
    // The server may still hold that transaction.
    pair.begin(ONE);
    assert!(pair.out.starts_with(b"RSET\r\n"));
}

/// A message for three in one chunk, sent ahead.
fn sent_ahead(mut pair: Pair) -> Pair {
    let ordinary = Transaction { chunked: true, ..mail() };
    pair.client.begin(&ordinary, THREE.iter().copied(), &mut pair.out).unwrap();
    pair.client.chunk_ahead(4, &mut pair.out);
    pair.out.clear();
    pair
}

fn ahead() -> Pair {
    sent_ahead(Pair::ready(&["PIPELINING", "CHUNKING"]))
}

fn refused(recipient: usize) -> Event {
    Event::Refused { recipient }
}

/// What comes of all that the server says, which is the same whether it arrives at once,
/// octet by octet or in two pieces.
fn hears(pair: impl Fn() -> Pair, said: &str) -> (Pair, Vec<Event>) {
    let mut whole = pair();
    let events = whole.hear(said);
    let octets: Vec<usize> = (1..=said.len()).collect();
    let in_two = (1..said.len()).map(|cut| vec![cut, said.len()]);
    for ends in in_two.chain([octets]) {
        let (mut cut, mut used, mut heard) = (pair(), 0, Vec::new());
        for end in &ends {
            loop {
                let (read, event) = cut.client.step(&said.as_bytes()[used..*end], &mut cut.out);
                used += read;
                match event {
                    Event::NeedInput => break,
                    // The same would be said again and again.
                    Event::Closed(_) if heard.last() == Some(&event) => break,
                    _ => heard.push(event),
                }
            }
        }
        assert_eq!((&heard, &cut.out), (&events, &whole.out), "{said:?} in pieces: {ends:?}");
    }
    (whole, events)
}

#[test]
fn what_is_said_of_a_message_sent_ahead() {
    let all = [refused(0), refused(1), refused(2), Event::Finished];
    for (said, events, code, resets) in [
        ("250\r\n250\r\n250\r\n250\r\n250 queued\r\n", &all[3..], 250, false),
        ("250\r\n550\r\n250\r\n250\r\n250 queued\r\n", &[all[0], all[3]], 250, false),
        ("250\r\n250\r\n250\r\n250\r\n452 full\r\n", &all[3..], 452, true),
        ("250\r\n550\r\n450\r\n550\r\n503 nobody\r\n", &all[..], 503, true),
        // The octets were taken and count for nothing.
        ("250\r\n550\r\n450\r\n550\r\n250 gone\r\n", &all[..], 250, true),
        ("550\r\n503\r\n503\r\n503\r\n503\r\n", &all[3..], 550, true),
        ("452\r\n503\r\n503\r\n503\r\n250 gone\r\n", &all[3..], 452, false),
    ] {
        let (mut pair, heard) = hears(ahead, said);
        assert_eq!((&heard[..], pair.client.code()), (events, code), "{said:?}");
        assert!(!pair.client.denies_chunks());
        pair.begin(ONE);
        assert_eq!(pair.out.starts_with(b"RSET\r\n"), resets, "{said:?}");
    }
}

#[test]
fn a_server_that_does_not_know_chunks_after_all_is_not_believed_any_more() {
    for code in 500..505 {
        // It takes the body for commands.
        let said = format!("250\r\n250\r\n550\r\n250\r\n{code} what?\r\n500 a\r\n250 ok\r\n");
        let (pair, events) = hears(ahead, &said);
        let end = Event::Closed(End::NoChunks);
        assert_eq!(events, [refused(1), Event::Finished, end], "{code}");
        assert!(pair.client.denies_chunks() && !pair.client.may_begin());
    }
    // The same of a chunk that was asked for.
    let mut pair = Pair::chunking(&["PIPELINING"], ONE);
    pair.hear("250\r\n250\r\n");
    pair.chunk("x", false);
    let events = pair.hear("502 what?\r\n");
    assert_eq!(events, [Event::Finished, Event::Closed(End::NoChunks)]);
    // A verdict on the message, and what may be one on the sequence.
    for said in ["554 5.6.0 spam", "550 5.7.1 no", "452 full", "421 bye", "555 what"] {
        let (pair, events) = hears(ahead, &format!("250\r\n250\r\n250\r\n250\r\n{said}\r\n"));
        assert_eq!(events[0], Event::Finished);
        assert!(!pair.client.denies_chunks(), "{said}");
    }
}

#[test]
fn a_server_can_be_done_without_chunks() {
    let mut pair = Pair::ready(&["PIPELINING", "CHUNKING", "BINARYMIME"]);
    pair.client.forgo_chunks();
    assert!(!pair.client.offer().chunking);
    let refused = pair.client.begin(&binary(), ONE.iter().copied(), &mut pair.out);
    assert_eq!(refused, Err(Unsupported::Binary));
}

#[test]
fn more_or_fewer_replies_than_commands_to_a_message_sent_ahead() {
    // The last reply is not there.
    let (pair, events) = hears(ahead, "250\r\n250\r\n250\r\n250\r\n");
    assert_eq!((events, pair.client.phase()), (vec![], Phase::Dot));
    let (_, events) = hears(ahead, "250\r\n250\r\n250\r\n250\r\n250\r\n250\r\n");
    assert_eq!(events, [Event::Finished, Event::Closed(End::Unasked)]);
    // A 354 is no reply to it.
    let (_, events) = hears(ahead, "250\r\n250\r\n250\r\n250\r\n354 go\r\n");
    assert_eq!(events, [Event::Closed(End::WrongCode)]);
    for (before, is_over) in [("", true), ("250\r\n", true), ("250\r\n250\r\n250\r\n250\r\n", true)]
    {
        let (_, events) = hears(ahead, &format!("{before}421 bye\r\n"));
        assert_eq!(events.contains(&Event::Finished), is_over);
        assert_eq!(events.last(), Some(&Event::Closed(End::Unavailable)));
    }
}

#[test]
fn lmtp_has_a_reply_for_each_recipient_of_a_message_sent_ahead() {
    let lmtp = || sent_ahead(Pair::lmtp(&["PIPELINING", "CHUNKING"]));
    let verdict = |recipient| Event::Verdict { recipient };
    let said = "250\r\n250\r\n550\r\n250\r\n250 a\r\n452 c\r\n";
    let (pair, events) = hears(lmtp, said);
    assert_eq!(events, [refused(1), verdict(0), verdict(2), Event::Finished]);
    assert_eq!(pair.client.code(), 452);
    // None for nobody (RFC 2033, 4.3), or one: what is heard next is not relied on.
    let nobody = "250\r\n550\r\n550\r\n550\r\n";
    let (mut pair, events) = hears(lmtp, nobody);
    assert_eq!(events, [refused(0), refused(1), refused(2), Event::Finished]);
    pair.said("QUIT\r\n");
    for more in ["221 bye\r\n", "503 nobody\r\n", "503 nobody\r\n221 bye\r\n"] {
        let (_, events) = hears(lmtp, &format!("{nobody}{more}"));
        assert_eq!(events[3..], [Event::Finished, Event::Closed(End::Quit)], "{more}");
    }
    // Too many, and one for all of them.
    let (_, events) = hears(lmtp, &format!("{said}250 d\r\n"));
    assert_eq!(events.last(), Some(&Event::Closed(End::Unasked)));
    let (pair, events) = hears(lmtp, "250\r\n250\r\n250\r\n250\r\n250 all\r\n");
    assert_eq!((events, pair.client.phase()), (vec![verdict(0)], Phase::Dot));
    // It does not know it; what one recipient is refused with later is a verdict.
    let (_, events) = hears(lmtp, "250\r\n250\r\n250\r\n250\r\n502 what?\r\n500 x\r\n");
    assert_eq!(events, [Event::Finished, Event::Closed(End::NoChunks)]);
    let (_, events) = hears(lmtp, "250\r\n250\r\n250\r\n250\r\n250\r\n504 b\r\n250\r\n");
    assert_eq!(events, [verdict(0), verdict(1), verdict(2), Event::Finished]);
}

#[test]
fn a_refused_chunk_ends_the_transaction_and_resets() {
    let mut pair = Pair::chunking(&["PIPELINING"], ONE);
    pair.hear("250 ok\r\n250 ok\r\n");
    pair.chunk("x", false);
    assert_eq!(pair.hear("552 5.3.4 too much\r\n"), [Event::Finished]);
    assert_eq!(pair.client.code(), 552);
    pair.out.clear();
    pair.begin(ONE);
    assert!(pair.out.starts_with(b"RSET\r\n"));
}

#[test]
fn without_recipients_no_chunk_is_sent() {
    for extensions in [&["PIPELINING"][..], &[]] {
        let mut pair = Pair::chunking(extensions, ONE);
        pair.hear("250 ok\r\n");
        let events = [Event::Refused { recipient: 0 }, Event::Finished];
        assert_eq!(pair.hear("550 no\r\n"), events);
        pair.out.clear();
        pair.begin(ONE);
        assert!(pair.out.starts_with(b"RSET\r\n"));
        // MAIL refused: there is nothing to reset.
        let mut pair = Pair::chunking(extensions, ONE);
        let mut events = pair.hear("550 no\r\n");
        if !extensions.is_empty() {
            events = pair.hear("503 no\r\n");
        }
        assert_eq!(events, [Event::Finished]);
        assert_eq!(pair.client.code(), 550);
        pair.out.clear();
        pair.begin(ONE);
        assert!(pair.out.starts_with(b"MAIL"));
    }
}

#[test]
fn what_is_said_ahead_of_a_chunk_is_a_refusal_or_the_end() {
    let mut pair = Pair::chunking(&["PIPELINING"], ONE);
    let events = pair.hear("250 ok\r\n250 ok\r\n452 full\r\n");
    assert_eq!(events, [Event::Finished, Event::Closed(End::Unasked)]);
    let mut pair = Pair::chunking(&["PIPELINING"], THREE);
    let events = pair.hear("250 ok\r\n250 ok\r\n250 ok\r\n550 no\r\n250 stored\r\n");
    assert_eq!(events, [Event::Refused { recipient: 2 }, Event::Closed(End::Unasked)]);
}

#[test]
fn a_binary_body_needs_both_extensions() {
    for offered in [&["CHUNKING"][..], &["BINARYMIME"], &["8BITMIME"]] {
        let mut pair = Pair::ready(offered);
        let refused = pair.client.begin(&binary(), ONE.iter().copied(), &mut pair.out).unwrap_err();
        assert_eq!(refused.reply().to_string().split(' ').nth(1), Some("5.6.3"));
        pair.said("");
    }
}

#[test]
fn lmtp_has_a_reply_for_each_recipient_that_was_taken() {
    let mut pair = Pair::lmtp(&["PIPELINING"]);
    pair.begin(THREE);
    let events = pair.hear("250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n");
    assert_eq!(events, [Event::Refused { recipient: 1 }, Event::SendBody]);
    pair.client.body_sent();
    assert!(!pair.client.may_begin(), "the replies must be told apart");
    assert_eq!(pair.hear("250 stored\r\n"), [Event::Verdict { recipient: 0 }]);
    assert_eq!(pair.client.code(), 250);
    let events = pair.hear("452 4.2.2 full\r\n");
    assert_eq!(events, [Event::Verdict { recipient: 2 }, Event::Finished]);
    assert_eq!(pair.client.code(), 452);
    assert!(pair.client.may_begin());
}

#[test]
fn lmtp_with_replies_missing_or_too_many() {
    let mut pair = Pair::lmtp(&["PIPELINING"]);
    pair.begin(THREE);
    pair.hear("250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    pair.client.body_sent();
    let events = pair.hear("250 1\r\n250 2\r\n");
    assert_eq!(events, [0, 1].map(|recipient| Event::Verdict { recipient }));
    // Then it goes away: the third has no verdict.
    assert_eq!(pair.client.phase(), Phase::Dot);
    let events = pair.hear("421 bye\r\n");
    assert_eq!(events, [Event::Finished, Event::Closed(End::Unavailable)]);

    let mut pair = Pair::lmtp(&["PIPELINING"]);
    pair.begin(ONE);
    pair.hear("250 ok\r\n250 ok\r\n354 go\r\n");
    pair.client.body_sent();
    let events = pair.hear("250 1\r\n250 2\r\n250 3\r\n");
    let first = Event::Verdict { recipient: 0 };
    assert_eq!(events, [first, Event::Finished, Event::Closed(End::Unasked)]);
    // One that comes later, when nothing is under way.
    let mut pair = Pair::lmtp(&["PIPELINING"]);
    pair.begin(ONE);
    pair.hear("250 ok\r\n250 ok\r\n354 go\r\n");
    pair.client.body_sent();
    assert_eq!(pair.hear("250 1\r\n"), [first, Event::Finished]);
    assert_eq!(pair.hear("250 2\r\n"), [Event::Closed(End::Unasked)]);
}

#[test]
fn lmtp_takes_no_message_for_nobody_and_no_helo() {
    let mut pair = Pair::lmtp(&["PIPELINING"]);
    pair.begin(ONE);
    pair.out.clear();
    let events = pair.hear("250 ok\r\n550 no\r\n354 go\r\n");
    assert_eq!(events, [Event::Refused { recipient: 0 }, Event::Closed(End::WrongCode)]);
    pair.said("");
    let mut pair = Pair::lmtp(&["PIPELINING"]);
    pair.begin(ONE);
    let events = pair.hear("250 ok\r\n550 no\r\n503 nobody\r\n");
    assert_eq!(events, [Event::Refused { recipient: 0 }, Event::Finished]);
    let mut pair = Pair { client: Client::lmtp("me.example"), out: Vec::new() };
    pair.hear("220 hi\r\n");
    assert_eq!(pair.hear("500 what\r\n"), [Event::Closed(End::TurnedAway)]);
}

#[test]
fn lmtp_chunks_have_their_replies_at_the_end() {
    let mut pair = Pair::lmtp(&["PIPELINING", "CHUNKING", "BINARYMIME"]);
    pair.client.begin(&binary(), THREE.iter().copied(), &mut pair.out).unwrap();
    assert_eq!(pair.hear("250\r\n250\r\n250\r\n250\r\n"), [Event::SendBody]);
    pair.chunk("x", false);
    assert_eq!(pair.hear("250\r\n"), [Event::SendBody]);
    pair.chunk("y", true);
    let verdicts = pair.hear("250 a\r\n250 b\r\n550 c\r\n");
    let each = [0, 1, 2].map(|recipient| Event::Verdict { recipient });
    assert_eq!(verdicts, [&each[..], &[Event::Finished]].concat());
}
