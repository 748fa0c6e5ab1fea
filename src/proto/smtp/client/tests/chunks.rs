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
    fn lmtp(extensions: &str) -> Self {
        let mut pair = Pair { client: Client::lmtp("me.example"), out: Vec::new() };
        pair.hear("220 hi\r\n");
        pair.said("LHLO me.example\r\n");
        assert_eq!(pair.hear(&format!("250-there\r\n250 {extensions}\r\n")), [Event::Ready]);
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
    // The next may follow behind the last.
    assert!(pair.client.may_begin());
    pair.begin(ONE);
    pair.said("MAIL FROM:<s@example.com>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n");
    let replies = "250 queued\r\n250 ok\r\n250 ok\r\n354 go\r\n";
    assert_eq!(pair.hear(replies), [Event::Finished, Event::SendBody]);
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
    // The next follows before the last is answered.
    ahead(&mut pair);
    pair.said(group);
    assert_eq!(pair.hear("250 queued\r\n"), [Event::Finished]);
    assert_eq!(pair.hear("250 ok\r\n550 5.1.1 who\r\n"), [Event::Refused { recipient: 0 }]);
    assert_eq!(pair.hear("503 5.5.1 nobody\r\n"), [Event::Finished]);
    // The server may still hold that transaction.
    pair.begin(ONE);
    assert!(pair.out.starts_with(b"RSET\r\n"));
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
    let mut pair = Pair::lmtp("PIPELINING");
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
    let mut pair = Pair::lmtp("PIPELINING");
    pair.begin(THREE);
    pair.hear("250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    pair.client.body_sent();
    let events = pair.hear("250 1\r\n250 2\r\n");
    assert_eq!(events, [0, 1].map(|recipient| Event::Verdict { recipient }));
    // Then it goes away: the third has no verdict.
    assert_eq!(pair.client.phase(), Phase::Dot);
    let events = pair.hear("421 bye\r\n");
    assert_eq!(events, [Event::Finished, Event::Closed(End::Unavailable)]);

    let mut pair = Pair::lmtp("PIPELINING");
    pair.begin(ONE);
    pair.hear("250 ok\r\n250 ok\r\n354 go\r\n");
    pair.client.body_sent();
    let events = pair.hear("250 1\r\n250 2\r\n250 3\r\n");
    let first = Event::Verdict { recipient: 0 };
    assert_eq!(events, [first, Event::Finished, Event::Closed(End::Unasked)]);
    // One that comes later, when nothing is under way.
    let mut pair = Pair::lmtp("PIPELINING");
    pair.begin(ONE);
    pair.hear("250 ok\r\n250 ok\r\n354 go\r\n");
    pair.client.body_sent();
    assert_eq!(pair.hear("250 1\r\n"), [first, Event::Finished]);
    assert_eq!(pair.hear("250 2\r\n"), [Event::Closed(End::Unasked)]);
}

#[test]
fn lmtp_takes_no_message_for_nobody_and_no_helo() {
    let mut pair = Pair::lmtp("PIPELINING");
    pair.begin(ONE);
    pair.out.clear();
    let events = pair.hear("250 ok\r\n550 no\r\n354 go\r\n");
    assert_eq!(events, [Event::Refused { recipient: 0 }, Event::Closed(End::WrongCode)]);
    pair.said("");
    let mut pair = Pair::lmtp("PIPELINING");
    pair.begin(ONE);
    let events = pair.hear("250 ok\r\n550 no\r\n503 nobody\r\n");
    assert_eq!(events, [Event::Refused { recipient: 0 }, Event::Finished]);
    let mut pair = Pair { client: Client::lmtp("me.example"), out: Vec::new() };
    pair.hear("220 hi\r\n");
    assert_eq!(pair.hear("500 what\r\n"), [Event::Closed(End::TurnedAway)]);
}

#[test]
fn lmtp_chunks_have_their_replies_at_the_end() {
    let mut pair = Pair { client: Client::lmtp("me.example"), out: Vec::new() };
    pair.hear("220 hi\r\n");
    pair.hear("250-a\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 BINARYMIME\r\n");
    pair.client.begin(&binary(), THREE.iter().copied(), &mut pair.out).unwrap();
    assert_eq!(pair.hear("250\r\n250\r\n250\r\n250\r\n"), [Event::SendBody]);
    pair.chunk("x", false);
    assert_eq!(pair.hear("250\r\n"), [Event::SendBody]);
    pair.chunk("y", true);
    let verdicts = pair.hear("250 a\r\n250 b\r\n550 c\r\n");
    let each = [0, 1, 2].map(|recipient| Event::Verdict { recipient });
    assert_eq!(verdicts, [&each[..], &[Event::Finished]].concat());
}
