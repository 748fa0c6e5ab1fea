//! STARTTLS and AUTH against scripted servers: what is believed, and what is not.

use super::*;
use crate::base::{Mechanism, Mechanisms};

impl Pair {
    /// A session that has asked for TLS.
    fn asking(extensions: &[&str]) -> Self {
        let mut pair = Pair::ready(&[extensions, &["STARTTLS"]].concat());
        pair.client.start_tls(&mut pair.out);
        pair.said("STARTTLS\r\n");
        pair
    }

    /// A session with TLS, greeted again.
    fn secure(extensions: &[&str]) -> Self {
        let mut pair = Pair::asking(&[]);
        assert_eq!(pair.hear("220 go\r\n"), [Event::Handshake]);
        pair.client.secured(&mut pair.out);
        pair.said("EHLO me.example\r\n");
        let lines: String = extensions.iter().map(|word| format!("250-{word}\r\n")).collect();
        assert_eq!(pair.hear(&format!("250-there\r\n{lines}250 HELP\r\n")), [Event::Ready]);
        assert!(pair.client.is_secured());
        pair
    }
}

#[test]
fn after_the_handshake_the_server_is_greeted_again_and_only_then_believed() {
    let mut pair = Pair::asking(&["PIPELINING", "SIZE 10", "DSN", "AUTH PLAIN", "CHUNKING"]);
    assert_eq!(pair.client.offer().auth, Mechanisms::NONE.with(Mechanism::Plain));
    assert_eq!(pair.hear("220 2.0.0 go\r\n"), [Event::Handshake]);
    assert_eq!(pair.client.phase(), Phase::Handshake);
    pair.client.secured(&mut pair.out);
    pair.said("EHLO me.example\r\n");
    assert_eq!(pair.client.offer(), Offer::default());
    assert_eq!(pair.hear("250-there\r\n250 8BITMIME\r\n"), [Event::Ready]);
    assert_eq!(pair.client.offer(), Offer { eight_bit_mime: true, ..Offer::default() });
}

#[test]
fn nothing_that_follows_the_reply_to_starttls_in_the_clear_is_believed() {
    for behind in ["250-evil\r\n250 AUTH PLAIN\r\n", "250 evil\r\n", "2", "\0", "\r\n"] {
        for cut in 0..behind.len() {
            let mut pair = Pair::asking(&["PIPELINING"]);
            let (now, later) = behind.split_at(cut + 1);
            let events = pair.hear(&format!("220 go\r\n{now}"));
            assert_eq!(events, [Event::Closed(End::Injected)], "{behind:?} cut at {cut}");
            assert_eq!(pair.hear(later), [Event::Closed(End::Injected)]);
            assert!(!pair.client.is_secured() && !pair.client.may_begin());
            pair.said("");
        }
    }
}

#[test]
fn a_reply_ahead_of_starttls_is_not_taken_for_its_own() {
    let mut pair = Pair::ready(&["STARTTLS"]);
    assert_eq!(pair.hear("220 go\r\n"), [Event::Closed(End::Unasked)]);
    // Behind the reply to EHLO, before anything was asked.
    let mut pair = Pair::new();
    pair.hear("220 hi\r\n");
    let events = pair.hear("250-x\r\n250 STARTTLS\r\n220 go\r\n");
    assert_eq!(events, [Event::Closed(End::Unasked)]);
}

#[test]
fn a_server_may_offer_tls_and_refuse_it() {
    for (reply, code) in [("454 4.7.0 not now\r\n", 454), ("502 what\r\n", 502)] {
        let mut pair = Pair::asking(&[]);
        assert_eq!(pair.hear(reply), [Event::NoTls]);
        assert_eq!(pair.client.code(), code);
        // In the clear it goes on, if the driver likes.
        assert!(pair.client.may_begin() && !pair.client.is_secured());
        pair.begin(ONE);
        pair.said("MAIL FROM:<s@example.com>\r\n");
    }
    let mut pair = Pair::asking(&[]);
    assert_eq!(pair.hear("354 go\r\n"), [Event::Closed(End::WrongCode)]);
    let mut pair = Pair::asking(&[]);
    assert_eq!(pair.hear("421 bye\r\n"), [Event::Closed(End::TurnedAway)]);
}

#[test]
fn with_tls_from_the_start_no_starttls_is_needed() {
    let mut pair = Pair::new();
    pair.client.secured_at_once();
    pair.hear("220 hi\r\n");
    assert_eq!(pair.hear("250-there\r\n250 AUTH LOGIN\r\n"), [Event::Ready]);
    assert!(pair.client.is_secured());
    pair.out.clear();
    pair.client.authenticate("AUTH LOGIN", &mut pair.out);
    pair.said("AUTH LOGIN\r\n");
}

#[test]
fn auth_goes_by_challenges() {
    let mut pair = Pair::secure(&["AUTH PLAIN LOGIN", "PIPELINING"]);
    pair.client.authenticate("AUTH LOGIN", &mut pair.out);
    pair.said("AUTH LOGIN\r\n");
    assert!(!pair.client.may_begin());
    assert_eq!(pair.hear("334 VXNlcm5hbWU6\r\n"), [Event::Challenge]);
    assert_eq!(pair.client.challenge(), "VXNlcm5hbWU6");
    pair.client.respond("YQ==", &mut pair.out);
    pair.said("YQ==\r\n");
    assert_eq!(pair.hear("334 \r\n"), [Event::Challenge]);
    assert_eq!(pair.client.challenge(), "");
    pair.client.respond("Yg==", &mut pair.out);
    assert_eq!(pair.hear("235 2.7.0 welcome\r\n"), [Event::Authenticated]);
    assert!(pair.client.may_begin());
}

#[test]
fn auth_may_be_refused() {
    for (reply, end) in [
        ("535 5.7.8 no\r\n", Event::NotAuthenticated),
        ("454 4.7.0 later\r\n", Event::NotAuthenticated),
        ("421 4.3.2 bye\r\n", Event::Closed(End::TurnedAway)),
        ("235 ok\r\n250 more\r\n", Event::Closed(End::Unasked)),
        ("334 a\r\n334 b\r\n", Event::Closed(End::Unasked)),
        ("111 x\r\n", Event::Closed(End::Malformed(Malformed::NotAReply))),
    ] {
        let mut pair = Pair::secure(&["AUTH PLAIN"]);
        pair.client.authenticate("AUTH PLAIN AGEAYg==", &mut pair.out);
        assert_eq!(pair.hear(reply), [end], "{reply}");
    }
}

#[test]
fn challenges_have_an_end() {
    let mut pair = Pair::secure(&["AUTH LOGIN"]);
    pair.client.authenticate("AUTH LOGIN", &mut pair.out);
    let mut challenges = 0;
    while pair.hear("334 again\r\n") == [Event::Challenge] {
        challenges += 1;
        assert!(challenges < 100);
        pair.client.respond("", &mut pair.out);
    }
    assert_eq!(pair.hear(""), [Event::Closed(End::EndlessChallenges)]);
}

#[test]
#[should_panic(expected = "AUTH is for secured connections")]
fn nothing_is_authenticated_in_the_clear() {
    let mut pair = Pair::ready(&["AUTH PLAIN"]);
    pair.client.authenticate("AUTH PLAIN AGEAYg==", &mut pair.out);
}

#[test]
fn endless_replies_end_the_connection_at_every_stage() {
    let flood = "220-x\r\n".repeat(200);
    let many = End::Malformed(Malformed::TooManyLines);
    let mut pair = Pair::new();
    assert_eq!(pair.hear(&flood), [Event::Closed(many)]);
    let mut pair = Pair::asking(&[]);
    assert_eq!(pair.hear(&flood), [Event::Closed(many)]);
    let mut pair = Pair::secure(&["AUTH LOGIN"]);
    pair.client.authenticate("AUTH LOGIN", &mut pair.out);
    assert_eq!(pair.hear(&"334-x\r\n".repeat(200)), [Event::Closed(many)]);
    let mut pair = Pair::asking(&[]);
    let long = End::Malformed(Malformed::LineTooLong);
    assert_eq!(pair.hear(&format!("220 {}", "x".repeat(5000))), [Event::Closed(long)]);
}
