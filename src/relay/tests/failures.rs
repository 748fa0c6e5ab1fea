//! Next hops that refuse, misbehave or are not there.

use super::*;
use crate::io::clock::moved;
use crate::io::net::{Listener, listen};
use crate::queue::Action;

const TEXT: &str = "Subject: x\r\n\r\nhello\r\n";

/// One message for one recipient to a peer with these scripts: its outcome, and
/// what the peer saw.
async fn attempt(scripts: Vec<Vec<&'static str>>) -> (Outcome, Rig, Vec<peer::Seen>) {
    let peer = Peer::start(scripts);
    let rig = Rig::new(config(&[peer.address])).await;
    rig.mail(&["a@x.org"], TEXT).await;
    let outcome = rig.outcome().await;
    rig.drain().await;
    let seen = peer.finish().await;
    (outcome, rig, seen)
}

#[test]
fn a_site_that_is_down_defers_at_once_and_is_left_alone() {
    run(|| async {
        let rig = Rig::new(config(&[nobody(), nobody()])).await;
        let id = rig.mail(&["a@x.org"], TEXT).await;
        let outcome = rig.outcome().await;
        assert_eq!(outcome.disposition, Disposition::Deferred);
        assert_eq!(outcome.reply.enhanced, Some(EnhancedCode(4, 4, 1)));
        assert!(outcome.reply.text.contains("refused"), "{}", outcome.reply);
        let wait = outcome.next_attempt.since(outcome.at);
        assert!((52..=68).contains(&wait.as_secs()), "{wait:?}");
        assert_eq!(rig.queue.message(id).unwrap().recipients[0].attempts, 1);
        let failures = || rig.counters.borrow().outbound_connect_failures;
        assert_eq!(failures(), 2, "each host was tried");
        let second = rig.mail(&["b@x.org"], TEXT).await;
        let waits = rig.queue.message(second).unwrap().recipients.remove(0);
        assert!(waits.waiting && waits.attempts == 0, "it waits, untried: {waits:?}");
        assert_eq!(failures(), 2, "nobody was tried during the back-off");
        let site = rig.relay.sites().remove(0);
        assert!(site.back_off_until.is_some() && site.last_failure.is_some(), "{site:?}");
        let standing = rig.relay.standing("b@x.org", &waits, None);
        assert!(standing.why.starts_with("back-off of the site"), "{standing:?}");
        assert_eq!(
            standing.next_attempt.map(UnixMillis::as_secs),
            site.back_off_until.map(UnixMillis::as_secs)
        );
        rig.relay.hurry("b@x.org");
        rig.outcomes(2).await;
        assert_eq!(failures(), 4, "an operator had it tried");
        rig.drain().await;
    });
}

#[test]
fn the_next_host_is_taken_when_one_turns_us_away() {
    for greeting in ["> 421 busy", "> 450 later", "> 554 not you", "> what?", "!"] {
        run(move || async move {
            let first = Peer::start(vec![vec![greeting]]);
            let second = Peer::start(vec![script(&[&HELLO, &takes_one(), &["< QUIT", "> 221"]])]);
            let rig = Rig::new(config(&[first.address, nobody(), second.address])).await;
            rig.mail(&["a@x.org"], TEXT).await;
            let outcome = rig.outcome().await;
            assert_eq!(outcome.disposition, Disposition::Delivered, "{greeting}");
            assert_eq!(outcome.host, second.address.to_string());
            rig.drain().await;
            first.finish().await;
            second.finish().await;
        });
    }
}

#[test]
fn turned_away_by_all_is_deferred_with_their_words() {
    run(|| async {
        let (outcome, ..) = attempt(vec![vec!["> 554 5.7.1 not you"]]).await;
        assert_eq!(outcome.disposition, Disposition::Deferred);
        assert_eq!(outcome.reply.to_string(), "554 5.7.1 not you");
    });
}

#[test]
fn mixed_replies_are_told_apart_and_reported() {
    run(|| async {
        let mixed = [
            "< MAIL",
            "< RCPT TO:<a@x.org>",
            "< RCPT TO:<b@x.org>",
            "< RCPT TO:<c@x.org>",
            "< DATA",
            "> 250 ok",
            "> 250 ok",
            "> 550 5.1.1 who is b",
            "> 450 4.2.1 c is busy",
            "> 354 go",
            ".",
            "> 250 taken",
        ];
        let report = [
            "< MAIL FROM:<>",
            "< RCPT TO:<sender@example.com>",
            "< DATA",
            "> 250",
            "> 250",
            "> 354",
            ".",
        ];
        let peer = Peer::start(vec![script(&[
            &HELLO,
            &mixed,
            &report,
            &["> 250 reported", "< QUIT", "> 221"],
        ])]);
        let rig = Rig::new(config(&[peer.address])).await;
        let id = rig.mail(&["a@x.org", "b@x.org", "c@x.org"], TEXT).await;
        let outcomes = rig.outcomes(4).await;
        let mut seen: Vec<_> = outcomes
            .iter()
            .map(|(_, address, outcome)| (&**address, outcome.disposition, outcome.reply.code))
            .collect();
        seen.sort_by_key(|(address, ..)| *address);
        use Disposition::{Deferred, Delivered, Failed};
        assert_eq!(
            seen,
            [
                ("a@x.org", Delivered, 250),
                ("b@x.org", Failed, 550),
                ("c@x.org", Deferred, 450),
                ("sender@example.com", Delivered, 250),
            ]
        );
        let report_id = outcomes.iter().find(|(of, ..)| *of != id).unwrap().0;
        assert_eq!(*rig.told.reports.borrow(), [(report_id, id)]);
        let left = rig.queue.message(id).unwrap().recipients;
        assert_eq!(left.iter().map(|r| r.recipient).collect::<Vec<_>>(), [2]);
        rig.drain().await;
        let seen = peer.finish().await.remove(0);
        let body = seen.iter().rfind(|text| text.contains("\r\n\r\n")).unwrap();
        assert!(body.starts_with("Received: by relay.test (ringpost) id "), "{body}");
        assert!(body.contains("who is b") && !body.contains("c is busy"), "{body}");
    });
}

#[test]
fn a_refused_message_fails_and_a_refused_report_is_not_reported() {
    run(|| async {
        let refused = |code| ["< MAIL", "< RCPT", "< DATA", "> 250", "> 250", "> 354", ".", code];
        let peer = Peer::start(vec![script(&[
            &HELLO,
            &refused("> 554 5.6.0 spam"),
            &refused("> 550 5.1.1 gone"),
            &["< QUIT", "> 221"],
        ])]);
        let rig = Rig::new(config(&[peer.address])).await;
        rig.mail(&["a@x.org"], TEXT).await;
        let outcomes = rig.outcomes(2).await;
        assert!(outcomes.iter().all(|(.., o)| o.disposition == Disposition::Failed));
        assert_eq!(rig.told.reports.borrow().len(), 1);
        assert_eq!(rig.queue.live(), 0);
        rig.drain().await;
        peer.finish().await;
    });
}

#[test]
fn what_was_dropped_while_under_way_is_not_reported() {
    run(|| async {
        let refusal = ["> 250 ok", "> 550 5.1.1 no such user", "> 554 5.5.1 nobody to send to"];
        let dialog = script(&[&HELLO, &["< MAIL", "< RCPT", "< DATA"], &refusal]);
        let peer = Peer::start(vec![script(&[&dialog, &["< QUIT", "> 221 bye"]])]);
        let rig = Rig::new(config(&[peer.address])).await;
        let id = rig.mail(&["a@x.org"], TEXT).await;
        let carried = rig.queue.order(id, Action::Drop, &[0], "root (uid 0)", clock::wall());
        carried.unwrap().commit.await.unwrap();
        let home = async {
            while rig.relay.out() > 0 {
                crate::io::executor::pause().await;
            }
        };
        within(Duration::from_secs(20), home).await.expect("the handle comes home");
        rig.drain().await;
        peer.finish().await;
        assert_eq!((rig.queue.live(), rig.counters.borrow().reports_queued), (0, 0));
    });
}

#[test]
fn an_old_message_expires_instead_of_being_deferred() {
    run(|| async {
        let peer = Peer::start(vec![script(&[
            &HELLO,
            &[
                "< MAIL",
                "< RCPT",
                "< DATA",
                "> 451 4.3.0 later",
                "> 503",
                "> 503",
                "< QUIT",
                "> 221",
            ],
        ])]);
        let rig = Rig::new(config(&[peer.address])).await;
        let mut old = envelope(&["a@x.org"]);
        (old.arrival_ms, old.sender) = (0, String::new());
        rig.envelope(old, TEXT, true).await;
        assert_eq!(rig.outcome().await.disposition, Disposition::Expired);
        assert_eq!(rig.queue.live(), 0);
        rig.drain().await;
        peer.finish().await;
    });
}

#[test]
fn connections_that_break_in_a_transaction_defer() {
    let group = ["< MAIL", "< RCPT", "< DATA"];
    let cases: [(&[&'static str], &str); 9] = [
        (&["!"], "MAIL"),
        (&["> 250 ok", "!"], "RCPT"),
        (&["> 250", "> 250", "!"], "DATA"),
        (&["> 250", "> 250", "> 354", ".", "!"], "end of the message"),
        (&["> 250", "> 421 4.3.2 closing", "!"], "4.3.2 closing"),
        (&["> 250", "> 250", "> 354", "> 250 early", "!"], "nothing had asked"),
        (&["> 250", "> 250", "> 250 ok", "!"], "reply code"),
        (&["> 250", "~ 250-and so on"], "too many lines"),
        (&["> 250", "~ 666 x"], "no SMTP reply"),
    ];
    for (case, words) in cases {
        run(move || async move {
            let (outcome, rig, _) = attempt(vec![script(&[&HELLO, &group, case])]).await;
            assert_eq!(outcome.disposition, Disposition::Deferred, "{case:?}");
            assert!(outcome.reply.to_string().contains(words), "{case:?}: {}", outcome.reply);
            assert_eq!(rig.queue.live(), 1);
        });
    }
}

#[test]
fn a_refusal_in_the_middle_of_the_body_counts() {
    run(|| async {
        let group =
            ["< MAIL", "< RCPT", "< DATA", "> 250", "> 250", "> 354", "> 552 5.3.4 big", "!"];
        let peer = Peer::start(vec![script(&[&HELLO, &group])]);
        let rig = Rig::new(config(&[peer.address])).await;
        let mut from_nobody = envelope(&["a@x.org"]);
        from_nobody.sender.clear();
        rig.envelope(from_nobody, TEXT, true).await;
        let outcome = rig.outcome().await;
        // Unless it came too late to be seen before the connection broke.
        let refused = (Disposition::Failed, 552);
        let broke = (Disposition::Deferred, 451);
        let seen = (outcome.disposition, outcome.reply.code);
        assert!(seen == refused || seen == broke, "{outcome:?}");
        rig.drain().await;
        peer.finish().await;
    });
}

#[test]
fn a_connection_that_grew_stale_does_not_cost_an_attempt() {
    for stale in [
        &["!"][..],
        &["> 421 idle too long", "!"],
        &["< MAIL", "< RCPT", "< DATA", "> 421 enough", "!"],
    ] {
        run(move || async move {
            let peer = Peer::start(vec![
                script(&[&HELLO, &takes_one(), stale]),
                script(&[&HELLO, &takes_one(), &["< QUIT", "> 221"]]),
            ]);
            let rig = Rig::new(config(&[peer.address])).await;
            rig.mail(&["a@x.org"], TEXT).await;
            rig.outcomes(1).await;
            rig.mail(&["b@x.org"], TEXT).await;
            let outcomes = rig.outcomes(2).await;
            let delivered = |(.., o): &(_, _, Outcome)| {
                (o.disposition, o.attempts) == (Disposition::Delivered, 1)
            };
            assert!(outcomes.iter().all(delivered), "{outcomes:?}");
            rig.drain().await;
            peer.finish().await;
        });
    }
}

#[test]
fn a_message_that_the_peer_cannot_take_fails_without_a_connection_lost() {
    run(|| async {
        let peer = Peer::start(vec![script(&[&HELLO, &takes_one(), &["< QUIT", "> 221"]])]);
        let rig = Rig::new(config(&[peer.address])).await;
        let eight_bit = Envelope {
            sender: String::new(),
            body_type: crate::base::BodyType::EightBitMime,
            ..envelope(&["a@x.org"])
        };
        rig.envelope(eight_bit.clone(), "Subject: x\r\n\r\n\u{e9}\r\n", true).await;
        let outcome = rig.outcome().await;
        assert_eq!(outcome.reply.enhanced, Some(EnhancedCode(5, 6, 3)));
        assert_eq!(outcome.disposition, Disposition::Failed);
        // Declared so, but plain.
        rig.envelope(eight_bit, TEXT, false).await;
        assert_eq!(rig.outcomes(2).await[1].2.disposition, Disposition::Delivered);
        rig.drain().await;
        peer.finish().await;
    });
}

#[test]
fn every_handle_comes_back_once_whatever_the_peer_does() {
    run(|| async {
        let endings: [&[&'static str]; 8] = [
            &["< MAIL", "!"],
            &["< MAIL", "< RCPT", "< DATA", "> 250", "!"],
            &["< MAIL", "< RCPT", "< DATA", "> 250", "> 250", "> 354", ".", "!"],
            &["< MAIL", "< RCPT", "< DATA", "> 250", "> 421 no", "!"],
            &["< MAIL", "< RCPT", "< DATA", "> 250", "> 450 no", "> 554 nobody", "!"],
            &["< MAIL", "< RCPT", "< DATA", "> 450 no", "> 503", "> 503", "!"],
            &["< MAIL", "< RCPT", "< DATA", "> 250", "> 250", "> 354", ".", "> 452 full", "!"],
            &["!"],
        ];
        let scripts = (0..24)
            .map(|n| script(&[&HELLO, &takes_one()[..8 * (n % 2)], endings[n % 8]]))
            .collect();
        let peer = Peer::start(scripts);
        let mut config = config(&[peer.address]);
        config.delivery.connections_per_site = 3;
        let rig = Rig::new(config).await;
        for n in 0..60 {
            rig.mail(&[&format!("r{n}@x.org")], TEXT).await;
        }
        while rig.told.outcomes.borrow().len() < 60 {
            // What waits for the end of the site's back-off has it now.
            rig.relay.hurry("r@x.org");
            sleep(Duration::from_millis(2)).await;
        }
        let outcomes = rig.outcomes(60).await;
        let mut ids: Vec<_> = outcomes.iter().map(|(id, ..)| *id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 60);
        rig.drain().await;
    });
}

#[test]
fn a_reply_that_comes_in_drips_has_to_be_whole_in_time() {
    run(|| async {
        let listener = Listener::adopt(listen("127.0.0.1:0".parse().unwrap()).unwrap());
        let rig = Rig::new(config(&[listener.local_addr().unwrap()])).await;
        let peer = spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"220 ").await.unwrap();
            // An octet a minute, until the client has had enough.
            for _ in 0..2000 {
                if stream.write_all(b"x").await.is_err() {
                    return;
                }
                moved::pass(Duration::from_secs(60));
                sleep(Duration::from_millis(2)).await;
            }
        });
        rig.mail(&["a@x.org"], TEXT).await;
        let outcome = rig.outcome().await;
        assert!(outcome.reply.text.contains("timed out"), "{}", outcome.reply);
        peer.await;
        rig.drain().await;
    });
}
