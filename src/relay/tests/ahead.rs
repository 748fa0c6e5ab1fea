//! Short messages in one chunk, ahead of the replies to their envelopes; and hosts that
//! offer to take them so and cannot.

use super::*;
use crate::base::BodyType;
use crate::base::terms::Terms;
use crate::io::clock::moved;

const TEXT: &str = "Subject: x\r\n\r\n..stuffed\r\n..\r\n";
const CHUNK: &str = "Received: here\r\nSubject: x\r\n\r\n.stuffed\r\n.\r\n";
const STORED: &str = "Received: here\r\nSubject: x\r\n\r\n..stuffed\r\n..\r\n.\r\n";
/// All of `CHUNK`.
const IT: &str = "+ 43";
const OFFERS: [&str; 5] =
    ["> 220 peer", "< EHLO ", "> 250-peer", "> 250-CHUNKING", "> 250 PIPELINING"];
/// All that is sent ahead, for one recipient.
const SENT: [&str; 4] = ["< MAIL", "< RCPT", "< BDAT 43 LAST", IT];
/// A configuration that relays everything to `host` by LMTP.
fn lmtp(host: SocketAddr) -> Config {
    let mut config = config(&[]);
    let hop = format!("lmtp://{host}").parse().unwrap();
    config.routes[0].next_hop = NextHop::Hosts(vec![hop]);
    config
}

const BYE: [&str; 2] = ["< QUIT", "> 221 bye"];

#[test]
fn a_short_message_takes_one_round_trip_where_chunks_are_taken() {
    run(|| async {
        let takes = [&SENT[..], &["> 250", "> 250", "> 250 taken"]].concat();
        let peer = Peer::start(vec![script(&[&OFFERS, &takes, &takes, &BYE])]);
        let rig = Rig::new(config(&[peer.address])).await;
        rig.mail(&["a@x.org"], TEXT).await;
        assert_eq!(rig.outcome().await.reply.to_string(), "250 taken");
        rig.mail(&["b@x.org"], TEXT).await;
        rig.outcomes(2).await;
        rig.drain().await;
        let seen = peer.finish().await.concat();
        assert_eq!((&*seen[4], &*seen[8]), (CHUNK, CHUNK));
        assert_eq!(rig.counters.borrow().outbound_chunked, 2);
    });
}

#[test]
fn it_goes_by_data_where_that_is_not_wanted_or_of_no_use() {
    run(|| async {
        let no_pipelining = ["> 220 peer", "< EHLO ", "> 250-peer", "> 250 CHUNKING"];
        let by_one = ["< MAIL", "> 250", "< RCPT", "> 250", "< DATA", "> 354", ".", "> 250"];
        let long = format!("{}\r\n", "x".repeat(70)).repeat(300);
        for (offer, takes, chunking, in_memory, text) in [
            (&OFFERS[..], takes_one(), false, true, TEXT),
            (&OFFERS, takes_one(), true, false, TEXT),
            (&OFFERS, takes_one(), true, true, &long),
            (&HELLO, takes_one(), true, true, TEXT),
            (&no_pipelining, by_one, true, true, TEXT),
        ] {
            let peer = Peer::start(vec![script(&[offer, &takes, &BYE])]);
            let mut config = config(&[peer.address]);
            config.delivery.chunking = chunking;
            let rig = Rig::new(config).await;
            rig.envelope(envelope(&["a@x.org"]), text, in_memory).await;
            assert_eq!(rig.outcome().await.disposition, Disposition::Delivered);
            rig.drain().await;
            assert_eq!(peer.finish().await[0][4], format!("Received: here\r\n{text}.\r\n"));
            assert_eq!(rig.counters.borrow().outbound_chunked, 0);
        }
    });
}

#[test]
fn each_recipient_gets_what_was_said_about_it() {
    use Disposition::{Deferred, Delivered, Failed};
    run(|| async {
        let group = ["< MAIL", "< RCPT", "< RCPT", "< BDAT 43 LAST", IT];
        // What is said to MAIL, two RCPT and BDAT; what becomes of the two; what the
        // next transaction begins with.
        for (said, outcomes, next) in [
            (["> 250", "> 550 5.1.1 no", "> 250", "> 250"], [Failed, Delivered], "< MAIL"),
            (["> 250", "> 250", "> 450 later", "> 250"], [Delivered, Deferred], "< MAIL"),
            (["> 250", "> 550", "> 450 later", "> 503 no"], [Failed, Deferred], "< RSET"),
            (["> 250", "> 550", "> 551", "> 250 gone"], [Failed, Failed], "< RSET"),
            (["> 452 full", "> 503", "> 503", "> 503"], [Deferred, Deferred], "< RSET"),
            (["> 550 5.7.1 no", "> 503", "> 503", "> 503"], [Failed, Failed], "< RSET"),
            (["> 250", "> 250", "> 250", "> 554 5.7.1 spam"], [Failed, Failed], "< RSET"),
        ] {
            let reset: &[&str] = if next == "< RSET" { &["< RSET"] } else { &[] };
            let answer: &[&str] = if next == "< RSET" { &["> 250"] } else { &[] };
            let last = ["> 250", "> 250", "> 250"];
            let peer = Peer::start(vec![script(&[
                &OFFERS, &group, &said, reset, &SENT, answer, &last, &BYE,
            ])]);
            let rig = Rig::new(config(&[peer.address])).await;
            let quiet = Envelope { sender: String::new(), ..envelope(&["a@x.org", "b@x.org"]) };
            rig.envelope(quiet, TEXT, true).await;
            let got = rig.outcomes(2).await;
            let of = |address: &str| {
                let mut of = got.iter().filter(|(_, to, _)| to == address);
                of.next().map(|(_, _, outcome)| outcome.disposition)
            };
            let each = ["a@x.org", "b@x.org"].map(|address| of(address).unwrap());
            assert_eq!(each, outcomes, "{said:?}: {got:?}");
            rig.mail(&["c@x.org"], TEXT).await;
            assert_eq!(rig.outcomes(3).await[2].2.disposition, Delivered, "{said:?}");
            rig.drain().await;
            peer.finish().await;
            assert_eq!(rig.counters.borrow().outbound_chunk_fallbacks, 0, "{said:?}");
        }
    });
}

#[test]
fn who_offers_chunks_and_does_not_know_them_gets_it_by_data_at_once() {
    run(|| async {
        for refusal in ["> 500 what?", "> 501 what?", "> 502 no BDAT", "> 503 DATA first", "> 504"]
        {
            // It takes the body for commands.
            let babble = ["> 250", "> 250", refusal, "> 500 a", "> 500 b"];
            let again = script(&[&OFFERS, &takes_one(), &takes_one(), &BYE]);
            let peer = Peer::start(vec![script(&[&OFFERS, &SENT, &babble]), again]);
            let rig = Rig::new(config(&[peer.address])).await;
            rig.mail(&["a@x.org"], TEXT).await;
            let outcome = rig.outcome().await;
            assert_eq!((outcome.disposition, outcome.attempts), (Disposition::Delivered, 1));
            rig.mail(&["b@x.org"], TEXT).await;
            rig.outcomes(2).await;
            rig.drain().await;
            let seen = peer.finish().await;
            assert_eq!((&*seen[1][4], &*seen[1][8]), (STORED, STORED), "{refusal}");
            assert_eq!(rig.counters.borrow().outbound_chunk_fallbacks, 1, "{refusal}");
        }
    });
}

#[test]
fn who_breaks_off_at_a_chunk_gets_the_next_attempt_by_data() {
    run(|| async {
        let ends: [&[&str]; 4] = [
            &["!"],
            &["> 250", "> 250", "!"],
            // The body was taken for commands, and those for too many.
            &["> 250", "> 250", "> 421 too many errors", "!"],
            &["> 250", "> 250", "> 354 go on", "!"],
        ];
        for end in ends {
            let again = script(&[&OFFERS, &takes_one(), &BYE]);
            let later = script(&[&OFFERS, &SENT, &["> 250", "> 250", "> 250"], &BYE]);
            let peer = Peer::start(vec![script(&[&OFFERS, &SENT, end]), again, later]);
            let rig = Rig::new(config(&[peer.address])).await;
            rig.mail(&["a@x.org"], TEXT).await;
            assert_eq!(rig.outcome().await.disposition, Disposition::Deferred, "{end:?}");
            rig.until("the next attempt", || {
                moved::pass(Duration::from_secs(1));
                rig.told.outcomes.borrow().len() == 2
            })
            .await;
            assert_eq!(rig.outcomes(2).await[1].2.disposition, Disposition::Delivered, "{end:?}");
            // After a while it is believed again.
            moved::pass(Duration::from_secs(3600));
            rig.until("the connection ends", || rig.relay.0.connections.get() == 0).await;
            rig.mail(&["b@x.org"], TEXT).await;
            assert_eq!(rig.outcomes(3).await[2].2.disposition, Disposition::Delivered);
            rig.drain().await;
            peer.finish().await;
            assert_eq!(rig.counters.borrow().outbound_chunk_fallbacks, 1, "{end:?}");
        }
    });
}

#[test]
fn what_some_recipients_have_already_is_not_sent_again_at_once() {
    run(|| async {
        let limits =
            ["> 220 peer", "< EHLO ", "> 250-peer", "> 250-CHUNKING", "> 250-LIMITS RCPTMAX=1"];
        let first = [
            "> 250 PIPELINING",
            "< MAIL",
            "< RCPT TO:<a@",
            "< BDAT",
            IT,
            "> 250",
            "> 250",
            "> 250",
        ];
        let second = ["< MAIL", "< RCPT TO:<b@", "< BDAT", IT, "> 250", "> 250", "> 502 not again"];
        let peer = Peer::start(vec![script(&[&limits, &first, &second])]);
        let rig = Rig::new(config(&[peer.address])).await;
        rig.mail(&["a@x.org", "b@x.org"], TEXT).await;
        let outcomes = rig.outcomes(2).await;
        let got: Vec<_> = outcomes.iter().map(|(_, to, o)| (&**to, o.disposition)).collect();
        assert_eq!(got, [("a@x.org", Disposition::Delivered), ("b@x.org", Disposition::Deferred)]);
        assert!(outcomes[1].2.reply.to_string().starts_with("451 4.5.1"), "{outcomes:?}");
        rig.drain().await;
        peer.finish().await;
    });
}

#[test]
fn lmtp_tells_of_each_recipient_of_a_chunk() {
    run(|| async {
        let offers = ["> 220 peer", "< LHLO ", "> 250-peer", "> 250-CHUNKING", "> 250 PIPELINING"];
        let group = ["< MAIL", "< RCPT", "< RCPT", "< RCPT", "< BDAT 43 LAST", IT];
        let said = ["> 250", "> 250", "> 550 who", "> 250", "> 250 a", "> 452 4.2.2 full"];
        let peer = Peer::start(vec![script(&[&offers, &group, &said, &BYE])]);
        let rig = Rig::new(lmtp(peer.address)).await;
        let to = ["a@x.org", "b@x.org", "c@x.org"];
        let quiet = Envelope { sender: String::new(), ..envelope(&to) };
        rig.envelope(quiet, TEXT, true).await;
        let got = rig.outcomes(3).await;
        let codes = to.map(|address| got.iter().find(|it| it.1 == address).unwrap().2.reply.code);
        assert_eq!(codes, [250, 550, 452]);
        rig.drain().await;
        peer.finish().await;
        // One that does not know it.
        let lies = ["> 250", "> 250", "> 502 what?", "> 500 a", "> 500 b"];
        let again = script(&[&offers, &takes_one(), &BYE]);
        let peer = Peer::start(vec![script(&[&offers, &SENT, &lies]), again]);
        let rig = Rig::new(lmtp(peer.address)).await;
        rig.mail(&["a@x.org"], TEXT).await;
        assert_eq!(rig.outcome().await.disposition, Disposition::Delivered);
        rig.drain().await;
        peer.finish().await;
    });
}

#[test]
fn a_host_that_does_not_know_chunks_gets_no_binary_mail() {
    run(|| async {
        let hello = ["> 220 peer", "< EHLO ", "> 250-peer", "> 250-CHUNKING", "> 250-8BITMIME"];
        let binary = ["> 250 BINARYMIME"];
        let lies = ["< MAIL", "> 250", "< RCPT", "> 250", "< BDAT 43 LAST", IT, "> 502 what?"];
        let by_one = ["< MAIL", "> 250", "< RCPT", "> 250", "< DATA", "> 354", ".", "> 250"];
        // Text goes by DATA after all; what is none cannot go.
        for (text, takes) in [(TEXT, &by_one[..]), (&TEXT.replace("ff", "f\0"), &[])] {
            let again = script(&[&hello, &binary, takes, &BYE]);
            let peer = Peer::start(vec![script(&[&hello, &binary, &lies]), again]);
            let rig = Rig::new(config(&[peer.address])).await;
            let terms = Some(Box::new(Terms { binary: true, ..Terms::default() }));
            let body_type = BodyType::EightBitMime;
            let quiet =
                Envelope { sender: String::new(), body_type, terms, ..envelope(&["a@x.org"]) };
            rig.envelope(quiet, text, true).await;
            let outcome = rig.outcome().await;
            assert_eq!(outcome.disposition == Disposition::Delivered, !takes.is_empty());
            assert!(
                !takes.is_empty() || outcome.reply.to_string().contains("5.6.3"),
                "{outcome:?}"
            );
            rig.drain().await;
            peer.finish().await;
        }
    });
}
