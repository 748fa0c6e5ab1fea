//! What next hops say, and what becomes of the mail.

use std::net::TcpListener;

use super::support::hop::{Act, Hop, Moment, Step, on_one_port};
use super::support::peer::Client;
use super::support::rig::{Rig, at, dns_with_sender, domain, message, once_at, wait_for};

/// A server that reaches `x.org` at a hop with this behaviour, and senders at one
/// that takes everything, each at its address.
fn rig(
    addresses: [&str; 2],
    behaviour: impl Fn(&Moment) -> Act + Send + Sync + 'static,
    more: &[&str],
) -> (Rig, Hop, Hop) {
    let [listener, home] = <[TcpListener; 2]>::try_from(on_one_port(&addresses)).unwrap();
    let dns = dns_with_sender(addresses[1]);
    domain(&dns, "x.org", &[(1, "mx.test", &addresses[..1])]);
    let port = listener.local_addr().unwrap().port();
    let (hop, home) = (Hop::with(listener, behaviour), Hop::start(home));
    (Rig::start(dns, port, more), hop, home)
}

#[test]
fn each_recipient_gets_its_own_reply() {
    let behaviour = |moment: &Moment| match moment.step {
        Step::Rcpt if moment.has("<bad@") => Act::Say("550 5.1.1 no such user"),
        Step::Rcpt if moment.has("<worse@") => Act::Say("553-5.1.3 not\r\n553 5.1.3 like this"),
        Step::Rcpt if moment.has("<busy@") && moment.connection == 0 => Act::Say("451 4.2.1 busy"),
        Step::Rcpt if moment.has("<many@") && moment.connection == 0 => {
            Act::Say("452 4.5.3 too many")
        }
        Step::Body if moment.connection == 0 => Act::Say("250 2.0.0 taken"),
        _ => Act::Well,
    };
    let addresses = ["127.13.1.1", "127.13.1.2"];
    let (rig, hop, home) = rig(addresses, behaviour, &["delivery.messages_per_connection=1"]);
    let to = ["good", "bad", "busy", "fine", "worse", "many"].map(|name| format!("{name}@x.org"));
    rig.send("mixed", &to.each_ref().map(String::as_str));
    for recipient in &to {
        let is_bad = recipient.starts_with("bad") || recipient.starts_with("worse");
        rig.wait_outcome(if is_bad { "failed" } else { "delivered" }, recipient);
    }
    rig.wait_empty();
    let report = home.wait_taken(1).remove(0).text();
    for part in ["Status: 5.1.1", "no such user", "Status: 5.1.3", "like this"] {
        assert!(report.contains(part), "no {part} in {report}");
    }
    assert_eq!(home.seen(|seen| seen.taken.len()), 1, "one report about both");
    for recipient in ["good@", "busy@", "fine@", "many@"] {
        assert!(!report.contains(recipient), "{recipient} is in {report}");
    }
    let first = hop.seen(|seen| seen.commands.clone());
    let first: Vec<_> = first.iter().filter(|(connection, _)| *connection == 0).collect();
    let rcpts = first.iter().filter(|(_, line)| line.starts_with("RCPT")).count();
    assert_eq!(rcpts, 6, "one transaction for all: {first:?}");
}

#[test]
fn a_peer_that_breaks_off_is_tried_again_and_nothing_is_lost() {
    let cases = [
        (Step::Connect, Act::Babble("220-hello")),
        (Step::Connect, Act::Babble("what is this")),
        (Step::Ehlo, Act::Close),
        (Step::Ehlo, Act::Babble("250-EXTENSION")),
        (Step::Mail, Act::Close),
        (Step::Mail, Act::Last("421 4.3.2 closing")),
        (Step::Mail, Act::Say("451 4.3.0 later")),
        (Step::Rcpt, Act::Close),
        (Step::Rcpt, Act::Babble("250-and so on")),
        (Step::Rcpt, Act::Say("250 ok\r\n250 and one more\r\n250 and one more")),
        (Step::Data, Act::Close),
        (Step::Data, Act::Say("451 4.3.0 later")),
        (Step::Data, Act::Last("354 go on\r\n250 2.0.0 thanks, I know it")),
        (Step::Data, Act::Last("250 2.0.0 thanks, I know it")),
        (Step::Data, Act::Last("no reply")),
        (Step::Body, Act::Close),
        (Step::Body, Act::Last("421 4.3.2 closing")),
        (Step::Body, Act::Say("452 4.3.1 full")),
        (Step::Body, Act::Babble("666 what")),
        (Step::Body, Act::Babble("250-and so on")),
    ];
    // A few at a time: some wait for their site to be tried again.
    let cases: Vec<_> = (1_u8..).step_by(2).zip(cases).collect();
    for some in cases.chunks(5) {
        std::thread::scope(|scope| {
            for (host, (step, act)) in some {
                scope.spawn(|| breaks_off_once(*host, *step, act));
            }
        });
    }
}

/// One message for a peer that does `act` once.
fn breaks_off_once(host: u8, step: Step, act: &Act) {
    let addresses = [format!("127.13.2.{host}"), format!("127.13.2.{}", host + 1)];
    let addresses = addresses.each_ref().map(String::as_str);
    let (rig, hop, home) = rig(addresses, once_at(step, act.clone()), &[]);
    let id = rig.send("one", &["r@x.org"]);
    let why = rig.server.wait_log(|line| line.contains(" mail: deferred "));
    assert!(why.contains(&id), "{step:?} {act:?}: {why}");
    // The site may be left alone for a while; an operator need not wait.
    wait_for("delivered", || {
        rig.queue("retry --all");
        hop.seen(|seen| !seen.taken.is_empty())
    });
    rig.wait_empty();
    assert_eq!(hop.seen(|seen| seen.names()), ["one"], "{step:?} {act:?}");
    assert!(hop.seen(|seen| seen.taken[0].body.ends_with(&message("one"))));
    assert_eq!(home.seen(|seen| seen.connected.len()), 0, "{step:?} {act:?}: no report");
}

#[test]
fn a_peer_that_says_each_octet_by_itself_is_understood() {
    let (rig, hop, _home) = rig(["127.13.3.1", "127.13.3.2"], |_| Act::Drip, &[]);
    rig.send("one", &["r@x.org", "q@x.org"]);
    assert_eq!(hop.wait_taken(1)[0].recipients, ["r@x.org", "q@x.org"]);
    rig.wait_empty();
    assert_eq!(rig.server.metric("ringpost_recipients_deferred_total"), 0);
}

#[test]
fn a_refusal_before_the_end_of_the_message_ends_it() {
    let act = Act::Interrupt(100_000, "552 5.3.4 too much for me");
    let (rig, hop, home) = rig(["127.13.4.1", "127.13.4.2"], at(Step::Data, act), &[]);
    let mut large = message("large");
    large.extend(
        b"0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz\r\n"
            .repeat(300_000),
    );
    let reply = rig.client().raw().message("s@sender.test", &["r@x.org"], &large).unwrap();
    assert!(reply.starts_with("250"), "{reply}");
    let report = home.wait_taken(1).remove(0).text();
    assert!(report.contains("Status: 5.3.4") && report.contains("too much for me"), "{report}");
    rig.wait_empty();
    assert_eq!(hop.seen(|seen| seen.connected.len()), 1);
}

#[test]
fn old_servers_are_greeted_in_the_old_way() {
    for (number, act) in
        [Act::Say("502 5.5.1 what?"), Act::Say("500 unknown command")].into_iter().enumerate()
    {
        let addresses =
            [format!("127.13.5.{}", 2 * number + 1), format!("127.13.5.{}", 2 * number + 2)];
        let addresses = [&*addresses[0], &*addresses[1]];
        let (rig, hop, _home) = rig(addresses, at(Step::Ehlo, act), &[]);
        rig.send("one", &["r@x.org", "q@x.org"]);
        hop.wait_taken(1);
        rig.wait_empty();
        let commands: Vec<String> =
            hop.seen(|seen| seen.commands.iter().map(|(_, line)| line.clone()).collect());
        assert_eq!(commands[..2], ["EHLO relay.test", "HELO relay.test"]);
        assert_eq!(commands[2], "MAIL FROM:<s@sender.test>", "without parameters");
    }
}

#[test]
fn what_a_server_does_not_offer_is_not_forced_on_it() {
    let bare = at(Step::Ehlo, Act::Say("250-hop.test\r\n250 SIZE 3000"));
    let (rig, hop, home) = rig(["127.13.6.1", "127.13.6.2"], bare, &[]);
    let mut client = rig.client();
    let mut transaction = |from: &str, to: &str, body: &[u8]| {
        let client: &mut Client = client.raw();
        for line in [from, to] {
            let reply = client.command(line).unwrap();
            assert!(reply.starts_with("250"), "{line}: {reply}");
        }
        assert!(client.command("DATA").unwrap().starts_with("354"));
        client.send(body).unwrap();
        client.send(b".\r\n").unwrap();
        assert!(client.reply().unwrap().starts_with("250"));
    };
    let eight_bit = "X-Test: b\r\n\r\nGr\u{fc}\u{df}e\r\n".as_bytes();
    let large = [b"X-Test: c\r\n\r\n".to_vec(), b"a line of text\r\n".repeat(300)].concat();
    let from = "MAIL FROM:<s@sender.test>";
    let utf8 = format!("{from} SMTPUTF8 BODY=8BITMIME");
    let body_8bit = format!("{from} BODY=8BITMIME");
    for (count, (from, to, body, code)) in (1..).zip([
        (&*utf8, "RCPT TO:<j\u{f6}rg@x.org>", eight_bit, "5.6.7"),
        (&*body_8bit, "RCPT TO:<r@x.org>", eight_bit, "5.6.3"),
        (from, "RCPT TO:<r@x.org>", &*large, "5.3.4"),
    ]) {
        transaction(from, to, body);
        let report = home.wait_taken(count).remove(count - 1).text();
        assert!(report.contains(&format!("Status: {code}\r\n")), "{code}: {report}");
    }
    // What needs none of it goes, one command after the other.
    transaction(&utf8, "RCPT TO:<r@x.org>", &message("plain"));
    hop.wait_taken(1);
    rig.wait_empty();
    assert_eq!(hop.seen(|seen| seen.names()), ["plain"]);
}

#[test]
fn a_connection_that_ends_between_messages_costs_none_an_attempt() {
    let behaviour = |moment: &Moment| match moment.step {
        // Every connection takes one message, whatever it promises.
        Step::Mail if moment.has("second") => Act::Well,
        Step::Body => Act::Last("250 2.0.0 taken, and goodbye"),
        _ => Act::Well,
    };
    let count = std::sync::atomic::AtomicUsize::new(0);
    let closes = move |moment: &Moment| {
        let act = behaviour(moment);
        match moment.step {
            Step::Mail => {
                // The second MAIL on a connection is turned away.
                let before = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                if before % 3 == 1 { Act::Last("421 4.3.2 enough") } else { Act::Well }
            }
            Step::Body => Act::Well,
            _ => act,
        }
    };
    let more = ["delivery.connections_per_site=1"];
    let (rig, hop, _home) = rig(["127.13.7.1", "127.13.7.2"], closes, &more);
    let mut client = rig.client();
    (0..12).for_each(|n| drop(client.send(&format!("m{n}"), &["r@x.org"])));
    hop.wait_taken(12);
    rig.wait_empty();
    assert_eq!(rig.server.metric("ringpost_recipients_delivered_total"), 12);
}
