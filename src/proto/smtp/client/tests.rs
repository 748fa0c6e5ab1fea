//! The client against scripted servers.

mod chunks;
mod secure;

use super::*;
use crate::base::dsn::{Notify, RecipientDsn, Ret};
use crate::proto::smtp::reply::Malformed;

const ONE: &[&str] = &["a@example.org"];
const THREE: &[&str] = &["a@x.org", "b@x.org", "c@x.org"];

fn mail() -> Transaction<'static> {
    Transaction { sender: "s@example.com", size: 42, ..Transaction::default() }
}

/// One client and what it has written since it was last looked at.
struct Pair {
    client: Client,
    out: Vec<u8>,
}

impl Pair {
    fn new() -> Self {
        Pair { client: Client::new("me.example"), out: Vec::new() }
    }

    /// A session past EHLO, with these extensions offered.
    fn ready(extensions: &[&str]) -> Self {
        let mut pair = Pair::new();
        assert_eq!(pair.hear("220 hi\r\n"), []);
        pair.said("EHLO me.example\r\n");
        let mut reply = String::from("250-there\r\n");
        for extension in extensions {
            reply += &format!("250-{extension}\r\n");
        }
        reply += "250 HELP\r\n";
        assert_eq!(pair.hear(&reply), [Event::Ready]);
        pair
    }

    /// All events that `input` brings, without NeedInput.
    fn hear(&mut self, input: &str) -> Vec<Event> {
        let (mut used, mut events) = (0, Vec::new());
        loop {
            let (read, event) = self.client.step(&input.as_bytes()[used..], &mut self.out);
            used += read;
            match event {
                Event::NeedInput => return events,
                Event::Closed(_) => {
                    events.push(event);
                    return events;
                }
                _ => events.push(event),
            }
        }
    }

    #[track_caller]
    fn said(&mut self, expected: &str) {
        assert_eq!(String::from_utf8_lossy(&self.out), expected);
        self.out.clear();
    }

    fn begin(&mut self, recipients: &[&str]) {
        let recipients = recipients.iter().copied();
        self.client.begin(&mail(), recipients, &mut self.out).unwrap();
    }
}

const GROUP: &str = "MAIL FROM:<s@example.com> SIZE=42\r\nRCPT TO:<a@example.org>\r\nDATA\r\n";

#[test]
fn pipelined_group_then_body_then_next_group_behind_it() {
    let mut pair = Pair::ready(&["PIPELINING", "SIZE 1000"]);
    pair.begin(ONE);
    pair.said(GROUP);
    assert_eq!(pair.hear("250 ok\r\n250 ok\r\n354 go\r\n"), [Event::SendBody]);
    pair.client.body_sent();
    assert!(pair.client.may_begin());
    pair.begin(ONE);
    pair.said(GROUP);
    assert!(!pair.client.may_begin());
    let replies = "250 2.0.0 queued as X\r\n250 ok\r\n250 ok\r\n354 go\r\n";
    assert_eq!(pair.hear(replies), [Event::Finished, Event::SendBody]);
    pair.client.body_sent();
    assert_eq!(pair.hear("451 4.3.0 no\r\n"), [Event::Finished]);
    assert_eq!(pair.client.reply().to_string(), "451 4.3.0 no");
    pair.client.quit(&mut pair.out);
    pair.said("QUIT\r\n");
    assert_eq!(pair.hear("221 bye\r\n"), [Event::Closed(End::Quit)]);
}

#[test]
fn without_pipelining_commands_go_one_by_one() {
    let mut pair = Pair::ready(&[]);
    pair.begin(THREE);
    pair.said("MAIL FROM:<s@example.com>\r\n");
    assert_eq!(pair.hear("250 ok\r\n"), []);
    pair.said("RCPT TO:<a@x.org>\r\n");
    assert_eq!(pair.hear("550 5.1.1 who\r\n"), [Event::Refused { recipient: 0 }]);
    assert_eq!(pair.client.reply().to_string(), "550 5.1.1 who");
    pair.said("RCPT TO:<b@x.org>\r\n");
    assert_eq!(pair.hear("250 ok\r\n"), []);
    pair.said("RCPT TO:<c@x.org>\r\n");
    assert_eq!(pair.hear("450 later\r\n"), [Event::Refused { recipient: 2 }]);
    pair.said("DATA\r\n");
    assert_eq!(pair.hear("354 go\r\n"), [Event::SendBody]);
    pair.client.body_sent();
    assert!(!pair.client.may_begin(), "nothing follows a body without PIPELINING");
    assert_eq!(pair.hear("250 ok\r\n"), [Event::Finished]);
}

#[test]
fn a_driver_can_do_without_pipelining() {
    let mut pair = Pair::ready(&["PIPELINING", "8BITMIME"]);
    pair.client.send_one_by_one();
    pair.begin(ONE);
    pair.said("MAIL FROM:<s@example.com>\r\n");
    assert!(pair.client.offer().eight_bit_mime);
}

#[test]
fn all_recipients_refused_resets_before_the_next() {
    let mut pair = Pair::ready(&[]);
    pair.begin(ONE);
    assert_eq!(pair.hear("250 ok\r\n"), []);
    let events = [Event::Refused { recipient: 0 }, Event::Finished];
    assert_eq!(pair.hear("550 no\r\n"), events);
    pair.out.clear();
    pair.begin(ONE);
    pair.said("RSET\r\n");
    assert_eq!(pair.hear("250 ok\r\n"), []);
    pair.said("MAIL FROM:<s@example.com>\r\n");
}

#[test]
fn all_recipients_refused_in_a_group_ends_with_a_lone_dot() {
    let mut pair = Pair::ready(&["PIPELINING"]);
    pair.begin(ONE);
    pair.out.clear();
    let events = pair.hear("250 ok\r\n550 no\r\n354 go\r\n");
    assert_eq!(events, [Event::Refused { recipient: 0 }]);
    pair.said(".\r\n");
    assert_eq!(pair.hear("554 no valid recipients\r\n"), [Event::Finished]);
    pair.begin(ONE);
    pair.out.clear();
    let events = pair.hear("250 ok\r\n550 no\r\n503 no recipients\r\n");
    assert_eq!(events, [Event::Refused { recipient: 0 }, Event::Finished]);
    pair.begin(ONE);
    assert!(pair.out.starts_with(b"RSET\r\nMAIL"));
    assert_eq!(pair.hear("250\r\n250\r\n250\r\n354\r\n"), [Event::SendBody]);
}

#[test]
fn a_refused_sender_is_the_reply_for_all() {
    let mut pair = Pair::ready(&["PIPELINING"]);
    pair.begin(THREE);
    let events = pair.hear("450 4.1.8 later\r\n503 a\r\n503 b\r\n503 c\r\n503 d\r\n");
    assert_eq!(events, [Event::Finished]);
    assert_eq!(pair.client.reply().to_string(), "450 4.1.8 later");
    assert_eq!(pair.client.code(), 450);
    pair.begin(ONE);
    assert_eq!(pair.hear("250\r\n250\r\n354\r\n"), [Event::SendBody]);
    pair.client.body_sent();
    assert_eq!(pair.hear("250 done\r\n"), [Event::Finished]);
    assert_eq!(pair.client.reply().to_string(), "250 done");
    let mut pair = Pair::ready(&[]);
    pair.begin(ONE);
    assert_eq!(pair.hear("550 no\r\n"), [Event::Finished]);
}

#[test]
fn falls_back_to_helo() {
    let mut pair = Pair::new();
    assert_eq!(pair.hear("220 hi\r\n"), []);
    assert_eq!(pair.hear("502 what\r\n"), []);
    pair.said("EHLO me.example\r\nHELO me.example\r\n");
    assert_eq!(pair.hear("250 PIPELINING\r\n"), [Event::Ready]);
    assert_eq!(pair.client.offer(), Offer::default());
}

#[test]
fn a_session_can_be_turned_away() {
    for greeting in ["421 busy\r\n", "554 go away\r\n", "450-a\r\n450 b\r\n"] {
        assert_eq!(Pair::new().hear(greeting), [Event::Closed(End::TurnedAway)]);
    }
    for reply in ["421 busy\r\n", "450 later\r\n"] {
        let mut pair = Pair::new();
        assert_eq!(pair.hear("220 hi\r\n"), []);
        assert_eq!(pair.hear(reply), [Event::Closed(End::TurnedAway)]);
    }
}

#[test]
fn unavailable_ends_the_transaction_and_the_connection() {
    let mut pair = Pair::ready(&["PIPELINING"]);
    pair.begin(THREE);
    let events = pair.hear("250 ok\r\n550 no\r\n421 4.3.2 closing\r\n");
    let expected =
        [Event::Refused { recipient: 0 }, Event::Finished, Event::Closed(End::Unavailable)];
    assert_eq!(events, expected);
    assert_eq!(pair.client.reply().to_string(), "421 4.3.2 closing");
    let mut pair = Pair::ready(&["PIPELINING"]);
    assert_eq!(pair.hear("421 idle\r\n"), [Event::Closed(End::Unavailable)]);
    let mut pair = Pair::ready(&["PIPELINING"]);
    pair.begin(ONE);
    let _ = pair.hear("250\r\n250\r\n354\r\n");
    pair.client.body_sent();
    pair.begin(ONE);
    let events = pair.hear("250 mine\r\n421 no more\r\n");
    assert_eq!(events, [Event::Finished, Event::Finished, Event::Closed(End::Unavailable)]);
    assert_eq!(pair.client.phase(), Phase::Mail);
}

#[test]
fn nothing_early_is_taken_for_the_reply_to_what_follows() {
    // Behind the reply to EHLO.
    let mut pair = Pair::new();
    let _ = pair.hear("220 hi\r\n");
    assert_eq!(pair.hear("250 hi\r\n250 ok\r\n"), [Event::Closed(End::Unasked)]);
    // Greeting and reply to EHLO at once.
    assert_eq!(Pair::new().hear("220 hi\r\n250 ok\r\n"), [Event::Closed(End::Unasked)]);
    // To a command that is still being sent.
    let mut pair = Pair::ready(&[]);
    pair.begin(THREE);
    let events = pair.hear("250 ok\r\n250 early\r\n");
    assert_eq!(events, [Event::Closed(End::Unasked)]);
    // Acceptance before the body was sent is no acceptance.
    let mut pair = Pair::ready(&["PIPELINING"]);
    pair.begin(ONE);
    let events = pair.hear("250\r\n250\r\n354\r\n250 queued\r\n");
    assert_eq!(events, [Event::Closed(End::Unasked)]);
    // A refusal before the end of the body is one.
    let mut pair = Pair::ready(&["PIPELINING"]);
    pair.begin(ONE);
    let events = pair.hear("250\r\n250\r\n354\r\n552 too much\r\n");
    assert_eq!(events, [Event::Finished, Event::Closed(End::Unasked)]);
    assert_eq!(pair.client.code(), 552);
    // Even when only its beginning came with the 354.
    let mut pair = Pair::ready(&["PIPELINING"]);
    pair.begin(ONE);
    assert_eq!(pair.hear("250\r\n250\r\n354\r\n25"), []);
    assert_eq!(pair.hear("250 queued\r\n"), [Event::Closed(End::Unasked)]);
    // Behind the reply to the dot.
    let mut pair = Pair::ready(&["PIPELINING"]);
    pair.begin(ONE);
    let _ = pair.hear("250\r\n250\r\n354\r\n");
    pair.client.body_sent();
    let events = pair.hear("250 mine\r\n250 whose\r\n");
    assert_eq!(events, [Event::Finished, Event::Closed(End::Unasked)]);
    assert!(!pair.client.may_begin());
}

#[test]
fn codes_out_of_place_and_garbage_end_the_connection() {
    let mut pair = Pair::ready(&[]);
    pair.begin(ONE);
    assert_eq!(pair.hear("354 go\r\n"), [Event::Closed(End::WrongCode)]);
    let mut pair = Pair::ready(&["PIPELINING"]);
    pair.begin(ONE);
    assert_eq!(pair.hear("250\r\n250\r\n250 ok\r\n"), [Event::Closed(End::WrongCode)]);
    let malformed = [Event::Closed(End::Malformed(Malformed::NotAReply))];
    assert_eq!(Pair::new().hear("SSH-2.0-OpenSSH_9\r\n"), malformed);
}

#[test]
fn needs_are_held_against_the_offer() {
    let mut pair = Pair::ready(&["SIZE 41", "PIPELINING"]);
    let begin = |pair: &mut Pair, transaction: Transaction<'_>, recipient| {
        pair.client.begin(&transaction, [recipient], &mut pair.out)
    };
    assert_eq!(begin(&mut pair, mail(), "a@b"), Err(Unsupported::Size { max: 41 }));
    let small = Transaction { size: 41, ..mail() };
    let eight_bit = Transaction { eight_bit: true, ..small };
    assert_eq!(begin(&mut pair, eight_bit, "a@b"), Err(Unsupported::EightBit));
    let utf8 = Transaction { smtputf8: true, ..small };
    assert_eq!(begin(&mut pair, utf8, "a@b"), Err(Unsupported::Utf8));
    assert_eq!(begin(&mut pair, small, "a@b>\r\nRSET"), Err(Unsupported::Address));
    pair.said("");
    assert_eq!(begin(&mut pair, small, "a@b"), Ok(()));
    pair.said("MAIL FROM:<s@example.com> SIZE=41\r\nRCPT TO:<a@b>\r\nDATA\r\n");
    let mut pair = Pair::ready(&["SIZE", "8BITMIME", "SMTPUTF8", "PIPELINING"]);
    let all = Transaction { eight_bit: true, smtputf8: true, ..mail() };
    assert_eq!(begin(&mut pair, all, "a@b"), Ok(()));
    pair.said(
        "MAIL FROM:<s@example.com> SIZE=42 BODY=8BITMIME SMTPUTF8\r\nRCPT TO:<a@b>\r\nDATA\r\n",
    );
}

#[test]
fn what_was_asked_about_reports_goes_to_who_knows_of_it() {
    let asked = [
        RecipientDsn { notify: Notify::parse(b"SUCCESS,DELAY"), orcpt: None },
        RecipientDsn { notify: None, orcpt: Some("rfc822;B+2Bc@old.example".into()) },
        RecipientDsn { notify: Some(Notify::NEVER), orcpt: None },
        RecipientDsn { notify: None, orcpt: Some("utf-8;j\u{f6}rg@old.example".into()) },
    ];
    let recipients = ["a+b@x.org", "b@x.org", "c@x.org", "d@x.org"];
    let begin = |pair: &mut Pair, smtputf8| {
        let mail =
            Transaction { ret: Some(Ret::Headers), envid: Some("Q+2B1"), smtputf8, ..mail() };
        let recipients = recipients.iter().zip(&asked);
        let recipients =
            recipients.map(|(address, asked)| Recipient { address, asked: Some(asked) });
        pair.client.begin(&mail, recipients, &mut pair.out).unwrap();
    };
    let mut pair = Pair::ready(&["PIPELINING", "DSN", "SMTPUTF8"]);
    begin(&mut pair, false);
    pair.said(
        "MAIL FROM:<s@example.com> RET=HDRS ENVID=Q+2B1\r\n\
         RCPT TO:<a+b@x.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@x.org\r\n\
         RCPT TO:<b@x.org> ORCPT=rfc822;B+2Bc@old.example\r\n\
         RCPT TO:<c@x.org> NOTIFY=NEVER\r\n\
         RCPT TO:<d@x.org> ORCPT=utf-8;j\\x{F6}rg@old.example\r\nDATA\r\n",
    );
    let mut pair = Pair::ready(&["PIPELINING", "DSN", "SMTPUTF8"]);
    begin(&mut pair, true);
    assert!(String::from_utf8_lossy(&pair.out).contains(" ORCPT=utf-8;j\u{f6}rg@old.example\r\n"));
    // An address that escapes make too long is left out.
    let long =
        RecipientDsn { notify: None, orcpt: Some(format!("utf-8;{}", "\u{f6}".repeat(100))) };
    for (smtputf8, is_there) in [(true, true), (false, false)] {
        let mut pair = Pair::ready(&["PIPELINING", "DSN", "SMTPUTF8"]);
        let mail = Transaction { smtputf8, ..mail() };
        let to = [Recipient { address: "a@x.org", asked: Some(&long) }];
        pair.client.begin(&mail, to, &mut pair.out).unwrap();
        assert_eq!(String::from_utf8_lossy(&pair.out).contains("ORCPT"), is_there);
    }
    let mut pair = Pair::ready(&["PIPELINING"]);
    begin(&mut pair, false);
    pair.said(
        "MAIL FROM:<s@example.com>\r\nRCPT TO:<a+b@x.org>\r\nRCPT TO:<b@x.org>\r\n\
         RCPT TO:<c@x.org>\r\nRCPT TO:<d@x.org>\r\nDATA\r\n",
    );
}

#[test]
fn input_cut_anywhere_gives_the_same_events() {
    let script = "250-2.1.0 x\r\n250 y\r\n250 ok\r\n550-a\r\n550 b\r\n250 ok\r\n354 go\r\n";
    for cut in 0..=script.len() {
        let mut pair = Pair::ready(&["PIPELINING"]);
        pair.begin(THREE);
        let (mut pending, mut events) = (String::new(), Vec::new());
        for part in [&script[..cut], &script[cut..]] {
            pending += part;
            loop {
                let (read, event) = pair.client.step(pending.as_bytes(), &mut pair.out);
                pending.drain(..read);
                match event {
                    Event::NeedInput => break,
                    event => events.push(event),
                }
            }
        }
        assert_eq!(events, [Event::Refused { recipient: 1 }, Event::SendBody], "cut at {cut}");
    }
}

proptest::proptest! {
    /// Each transaction ends at most once, in order, and the invariants of the
    /// driver's contract hold, whatever is sent and however it is cut.
    #[test]
    fn nothing_a_server_says_breaks_the_contract(
        pieces in proptest::collection::vec(
            proptest::sample::select(vec![
                "220 hi\r\n", "250 ok\r\n", "250-a\r\n", "250 PIPELINING\r\n", "250-PIPELINING\r\n",
                "354 go\r\n", "421 bye\r\n", "450 no\r\n", "550 5.1.1 no\r\n", "55", "2", "\r\n", "x",
                "250 STARTTLS\r\n", "250-CHUNKING\r\n", "250 AUTH LOGIN\r\n", "334 more\r\n",
            ]),
            0..40,
        ),
        is_lmtp in proptest::bool::ANY,
        is_chunked in proptest::bool::ANY,
    ) {
        let mut pair = Pair::new();
        pair.client.is_lmtp = is_lmtp;
        let (mut pending, mut begun, mut finished) = (String::new(), 0, 0);
        let mut refused = [false; 3];
        for piece in pieces {
            pending += piece;
            loop {
                let (read, event) = pair.client.step(pending.as_bytes(), &mut pair.out);
                pending.drain(..read);
                match event {
                    Event::NeedInput => break,
                    Event::Closed(_) => return Ok(()),
                    Event::Refused { recipient } => {
                        assert!(!std::mem::replace(&mut refused[recipient], true));
                    }
                    Event::Verdict { recipient } => {
                        assert!(is_lmtp && !std::mem::replace(&mut refused[recipient], true));
                    }
                    Event::SendBody if pair.client.current.is_chunked => {
                        pair.chunk("x", begun % 2 == 0);
                    }
                    Event::SendBody => pair.client.body_sent(),
                    Event::Finished => {
                        finished += 1;
                        refused = [false; 3];
                        assert!(finished <= begun && pair.client.code() >= 200);
                    }
                    Event::Handshake => pair.client.secured(&mut pair.out),
                    Event::Challenge => pair.client.respond("", &mut pair.out),
                    Event::Ready if pair.client.offer().starttls && !pair.client.is_secured() => {
                        pair.client.start_tls(&mut pair.out);
                    }
                    Event::Ready if pair.client.is_secured() => {
                        pair.client.authenticate("AUTH LOGIN", &mut pair.out);
                    }
                    Event::Ready | Event::NoTls => {}
                    Event::Authenticated | Event::NotAuthenticated => {
                        assert!(pair.client.is_secured());
                    }
                }
                if pair.client.may_begin() {
                    let chunked = is_chunked && pair.client.offer().chunking;
                    let transaction = Transaction { chunked, ..mail() };
                    let three = THREE.iter().copied();
                    pair.client.begin(&transaction, three, &mut pair.out).unwrap();
                    begun += 1;
                    assert!(begun <= finished + 2);
                }
            }
        }
    }
}
