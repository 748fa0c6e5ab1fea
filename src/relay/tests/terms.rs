//! Terms of messages: kept until a time, to be delivered by a time, urgent or
//! not, over TLS or not at all; and what next hops are told of them.

use super::peer::{Stage, takes_all};
use super::secure::{TO_TLS, server};
use super::time::{later, with_home};
use super::*;
use crate::base::dsn::{Dsn, Notify, RecipientDsn, Ret};
use crate::base::terms::{ByMode, DeliverBy, Terms};
use crate::io::clock::moved;
use crate::io::memory::CrashPolicy;
use crate::queue::Action;

const TEXT: &str = "Subject: x\r\n\r\nhello\r\n";
const HOUR: Duration = Duration::from_secs(3600);
/// A next hop that takes one message, commands going one by one, up to EHLO.
const PLAIN: [&str; 3] = ["> 220 peer", "< EHLO ", "> 250 peer"];
const TAKES: [&str; 8] =
    ["< MAIL", "> 250", "< RCPT", "> 250", "< DATA", "> 354", ".", "> 250 taken"];
const BYE: [&str; 2] = ["< QUIT", "> 221"];

fn with(terms: Terms) -> Envelope {
    Envelope { terms: Some(Box::new(terms)), ..envelope(&["a@x.org"]) }
}

fn by(seconds: i64, mode: ByMode, trace: bool) -> Terms {
    let at_ms = clock::wall().0.saturating_add_signed(seconds * 1000);
    Terms { deliver_by: Some(DeliverBy { at_ms, mode, trace }), ..Terms::default() }
}

fn notify(envelope: Envelope, value: &str) -> Envelope {
    let notify = Notify::parse(value.as_bytes());
    let recipients = vec![RecipientDsn { notify, orcpt: None }];
    Envelope { dsn: Some(Box::new(Dsn { recipients, ..Dsn::default() })), ..envelope }
}

/// The bodies that were sent over these connections.
fn bodies(seen: Vec<peer::Seen>) -> Vec<String> {
    seen.into_iter().flatten().filter(|text| text.ends_with("\r\n.\r\n")).collect()
}

/// Where senders are: takes so many reports over one connection.
fn home(reports: usize) -> Peer {
    let mut script = PLAIN.to_vec();
    (0..reports).for_each(|_| script.extend(TAKES));
    script.extend(BYE);
    Peer::start(vec![script])
}

#[test]
fn what_its_sender_wants_kept_goes_out_at_its_time_and_not_before() {
    run(|| async {
        let site = Sink::at("127.0.0.1:0".parse().unwrap());
        let rig = Rig::new(config(&[site.address])).await;
        let until = clock::wall().plus(5 * HOUR);
        let kept = with(Terms { hold_until_ms: Some(until.0), ..Terms::default() });
        let id = rig.envelope(kept.clone(), TEXT, true).await;
        let other = rig.envelope(kept, TEXT, true).await;
        rig.is_done_for_now().await;
        moved::pass(4 * HOUR);
        rig.is_done_for_now().await;
        assert!(site.taken.borrow().is_empty() && rig.counters.borrow().attempts == 0);
        let pending = rig.queue.message(id).unwrap().recipients[0];
        let standing = rig.relay.standing("a@x.org", &pending, None);
        assert_eq!(standing.next_attempt, Some(until));
        assert_eq!(standing.why, "its sender wants it kept until then");
        // An operator can have it sent at once.
        let carried = rig.queue.order(other, Action::Retry, &[0], "root", clock::wall()).unwrap();
        carried.commit.await.unwrap();
        rig.until("it is sent", || site.taken.borrow().len() == 1).await;
        moved::pass(HOUR);
        rig.until("the other too", || site.taken.borrow().len() == 2).await;
        rig.until("both are settled", || rig.queue.live() == 0).await;
        rig.drain().await;
    });
}

#[test]
fn what_is_kept_is_kept_after_a_crash_and_grows_old_from_its_time_on() {
    run(|| async {
        let (site, home) = (later(), Sink::at("127.0.0.1:0".parse().unwrap()));
        let config = with_home(site.address, home.address);
        let rig = Rig::new(config.clone()).await;
        let until = clock::wall().plus(6 * 24 * HOUR);
        let kept = with(Terms { hold_until_ms: Some(until.0), ..Terms::default() });
        let id = rig.envelope(kept, TEXT, true).await;
        rig.drain().await;
        let rig = Rig::open(config.clone(), rig.store.crash_image(CrashPolicy::Lose)).await;
        rig.is_done_for_now().await;
        assert_eq!((rig.queue.live(), rig.queue.next_due()), (1, Some(until)));
        moved::pass(6 * 24 * HOUR);
        // Its age would be past the expiry by now.
        rig.until("the first attempt", || rig.told_of("a@x.org").len() == 1).await;
        assert_eq!(rig.told_of("a@x.org")[0].disposition, Disposition::Deferred);
        assert!(rig.told.reports.borrow().is_empty(), "it is not late");
        while rig.queue.message(id).is_some() {
            rig.is_done_for_now().await;
            moved::pass(HOUR);
        }
        let last = rig.told_of("a@x.org").pop().unwrap();
        assert_eq!(last.disposition, Disposition::Expired);
        assert!(last.at >= until.plus(config.queue.expire), "{last:?}");
        rig.drain().await;
    });
}

#[test]
fn what_is_to_come_back_comes_back_at_its_time() {
    run(|| async {
        let offers = |stage, address: &str| match stage {
            Stage::Hello => Some("250-sink\r\n250 DELIVERBY".to_owned()),
            Stage::Recipient => Some("450 4.2.0 later".to_owned()),
            _ => takes_all(stage, address),
        };
        let site = Sink::with("127.0.0.1:0".parse().unwrap(), Rc::new(offers));
        let home = home(1);
        let rig = Rig::new(with_home(site.address, home.address)).await;
        let (began, terms) = (clock::wall(), by(1000, ByMode::Return, false));
        let at = terms.deliver_by.unwrap().at();
        rig.envelope(with(terms), TEXT, true).await;
        let is_over = || rig.told_of("a@x.org").last().is_some_and(|o| o.disposition.is_final());
        while !is_over() {
            rig.is_done_for_now().await;
            let next = rig.queue.next_due();
            assert!(next.is_none_or(|next| next <= at), "nothing is put off past its time");
            next.into_iter().for_each(|next| moved::pass(next.since(clock::wall())));
        }
        let last = rig.told_of("a@x.org").pop().unwrap();
        assert_eq!((last.disposition, last.attempts), (Disposition::Expired, 3), "{last:?}");
        assert!(last.at >= at && last.at.since(began) < Duration::from_secs(1030), "{last:?}");
        assert_eq!(last.reply.enhanced, Some(EnhancedCode(5, 4, 7)));
        rig.until("the sender knows", || rig.queue.live() == 0).await;
        rig.drain().await;
        let report = bodies(home.finish().await).remove(0);
        assert!(report.contains("Action: failed\r\nStatus: 5.4.7\r\n"), "{report}");
        assert!(report.contains("\r\nDeliver-By-Date: "), "{report}");
    });
}

#[test]
fn what_waits_for_a_site_comes_back_at_its_time_too() {
    run(|| async {
        let home = Sink::at("127.0.0.1:0".parse().unwrap());
        let address = nobody();
        let rig = Rig::new(with_home(address, home.address)).await;
        let ids = [rig.mail(&["b@x.org"], TEXT).await, {
            rig.envelope(with(by(1800, ByMode::Return, false)), TEXT, true).await
        }];
        rig.is_done_for_now().await;
        moved::pass(Duration::from_secs(1801));
        rig.until("it has come back", || rig.queue.message(ids[1]).is_none()).await;
        // Where it works again there is nothing left to send.
        let peer = Sink::at(address);
        while rig.queue.live() > 0 {
            rig.is_done_for_now().await;
            moved::pass(HOUR);
        }
        assert_eq!(*peer.taken.borrow(), ["b@x.org"]);
        assert_eq!(*home.taken.borrow(), ["sender@example.com"]);
        assert_eq!(rig.told_of("a@x.org").pop().unwrap().disposition, Disposition::Expired);
        rig.drain().await;
    });
}

#[test]
fn a_message_whose_time_is_up_when_it_comes_is_not_sent() {
    run(|| async {
        let (site, home) = (Sink::at("127.0.0.1:0".parse().unwrap()), home(1));
        let rig = Rig::new(with_home(site.address, home.address)).await;
        rig.envelope(with(by(0, ByMode::Return, false)), TEXT, true).await;
        rig.until("the sender knows", || rig.queue.live() == 0).await;
        assert!(site.taken.borrow().is_empty());
        rig.drain().await;
        let report = bodies(home.finish().await).remove(0);
        assert!(report.contains("Action: failed\r\nStatus: 5.4.7\r\n"), "{report}");
    });
}

#[test]
fn who_wants_to_be_told_is_told_once_and_delivery_goes_on() {
    for (value, told) in [("", 2), ("DELAY", 2), ("FAILURE", 0), ("NEVER", 0)] {
        run(move || async move {
            let (site, home) = (later(), Sink::at("127.0.0.1:0".parse().unwrap()));
            let rig = Rig::new(with_home(site.address, home.address)).await;
            let envelope = notify(with(by(1000, ByMode::Notify, false)), value);
            let at = envelope.terms.as_ref().unwrap().deliver_by.unwrap().at();
            let id = rig.envelope(envelope, TEXT, true).await;
            let mut told_at = Vec::new();
            for _ in 0..20 {
                rig.is_done_for_now().await;
                told_at.resize(rig.told.reports.borrow().len(), clock::wall());
                let next = rig.queue.next_due().unwrap();
                moved::pass(next.since(clock::wall()));
            }
            // At the time set, and of the usual delay.
            assert_eq!(told_at.len(), told, "{value}");
            if told > 0 {
                assert!(told_at[0] >= at && told_at[0].since(at) < Duration::from_secs(30));
            }
            assert!(rig.queue.message(id).is_some(), "it is tried on");
            rig.drain().await;
        });
    }
}

#[test]
fn who_wants_to_be_told_is_told_while_it_waits_for_a_site() {
    run(|| async {
        let home = home(1);
        let rig = Rig::new(with_home(nobody(), home.address)).await;
        rig.mail(&["b@x.org"], TEXT).await;
        rig.envelope(with(by(1800, ByMode::Notify, false)), TEXT, true).await;
        rig.is_done_for_now().await;
        moved::pass(Duration::from_secs(1801));
        rig.until("the sender knows", || rig.told.reports.borrow().len() == 1).await;
        rig.is_done_for_now().await;
        moved::pass(HOUR);
        rig.is_done_for_now().await;
        assert_eq!((rig.told.reports.borrow().len(), rig.queue.live()), (1, 2));
        rig.drain().await;
        let report = bodies(home.finish().await).remove(0);
        assert!(report.contains("Action: delayed\r\nStatus: 4.4.7\r\n"), "{report}");
    });
}

/// What a next hop with this offer is told, and what its sender is told of that.
async fn passed_on(
    offer: &'static [&'static str],
    envelope: Envelope,
    reports: usize,
) -> (peer::Seen, Vec<String>, Outcome) {
    let taken = script(&[&PLAIN[..2], offer, &TAKES, &BYE]);
    let (site, home) = (Peer::start(vec![taken]), home(reports));
    let rig = Rig::new(with_home(site.address, home.address)).await;
    rig.envelope(envelope, TEXT, true).await;
    rig.outcomes(1 + reports).await;
    let outcome = rig.told_of("a@x.org").remove(0);
    rig.drain().await;
    let told = if reports > 0 { bodies(home.finish().await) } else { Vec::new() };
    (site.finish().await.remove(0), told, outcome)
}

const KNOWS_ALL: [&str; 6] = [
    "> 250-peer",
    "> 250-DELIVERBY 10",
    "> 250-MT-PRIORITY",
    "> 250-REQUIRETLS",
    "> 250-AUTH PLAIN",
    "> 250 DSN",
];

#[test]
fn terms_are_passed_on_where_they_are_offered() {
    run(|| async {
        let terms = Terms {
            priority: -4,
            auth: Some("e+f=g@x.org".into()),
            user: Some("secret".into()),
            hold_until_ms: Some(1),
            ..by(1000, ByMode::Return, false)
        };
        let (seen, _, _) = passed_on(&KNOWS_ALL, with(terms), 0).await;
        let (before, behind) = seen[1].trim_end().split_once(" BY=").unwrap();
        assert!(before.starts_with("MAIL FROM:<sender@example.com>"), "{seen:?}");
        let (seconds, rest) = behind.split_once(';').unwrap();
        assert!((900..=1000).contains(&seconds.parse::<u32>().unwrap()), "{seen:?}");
        assert_eq!(rest, "R MT-PRIORITY=-4 AUTH=e+2Bf+3Dg@x.org");
    });
}

#[test]
fn what_is_a_courtesy_is_left_out_where_it_is_not_offered() {
    run(|| async {
        let terms = Terms { priority: 9, auth: Some(String::new()), ..Terms::default() };
        let (seen, _, _) = passed_on(&["> 250 peer"], with(terms.clone()), 0).await;
        assert_eq!(seen[1], "MAIL FROM:<sender@example.com>\r\n");
        let (seen, _, _) = passed_on(&KNOWS_ALL, with(terms), 0).await;
        assert_eq!(seen[1], "MAIL FROM:<sender@example.com> MT-PRIORITY=9 AUTH=<>\r\n");
    });
}

#[test]
fn a_trace_is_told_at_each_relay_and_so_is_one_that_does_not_know_the_time() {
    for (knows, trace, value, told) in [
        (true, false, "", 0),
        (true, true, "", 1),
        (true, true, "FAILURE", 1),
        (true, true, "NEVER", 0),
        (false, false, "", 1),
        (false, false, "NEVER", 0),
    ] {
        run(move || async move {
            let envelope = notify(with(by(1000, ByMode::Notify, trace)), value);
            let offer: &[&str] = if knows { &KNOWS_ALL } else { &["> 250-peer", "> 250 DSN"] };
            let (seen, reports, _) = passed_on(offer, envelope, told).await;
            let case = format!("{knows} {trace} {value}: {seen:?}");
            assert_eq!(seen[1].contains(";N"), knows, "{case}");
            assert_eq!(seen[1].contains(";NT"), trace, "{case}");
            let asks = if knows { "" } else { " NOTIFY=FAILURE,DELAY" };
            assert!(!value.is_empty() || seen[2].contains(asks), "{case}");
            assert!(value != "NEVER" || seen[2].contains(" NOTIFY=NEVER"), "{case}");
            assert_eq!(reports.len(), told, "{case}");
            for report in reports {
                assert!(report.contains("Action: relayed\r\nStatus: 2."), "{report}");
            }
        });
    }
}

/// What becomes of a message that a next hop with this offer may not have.
async fn refused(offer: &'static [&'static str], terms: Terms) -> Outcome {
    let site = Peer::start(vec![script(&[&PLAIN[..2], offer, &BYE])]);
    let home = home(1);
    let rig = Rig::new(with_home(site.address, home.address)).await;
    rig.envelope(with(terms), TEXT, true).await;
    rig.outcomes(2).await;
    let outcome = rig.told_of("a@x.org").remove(0);
    rig.drain().await;
    site.finish().await;
    assert!(bodies(home.finish().await)[0].contains("Action: failed\r\n"));
    outcome
}

#[test]
fn what_is_to_come_back_does_not_go_where_that_is_not_seen_to() {
    for offer in [&["> 250 peer"][..], &["> 250 DELIVERBY 2000"]] {
        run(move || async move {
            let outcome = refused(offer, by(1000, ByMode::Return, false)).await;
            assert_eq!(outcome.disposition, Disposition::Failed, "{outcome:?}");
            assert_eq!(outcome.reply.enhanced, Some(EnhancedCode(5, 4, 7)));
        });
    }
}

#[test]
fn reports_on_what_needs_tls_need_it_too_and_return_the_header_only() {
    run(|| async {
        let refuse = ["> 550 5.1.1 no"];
        let first = ["> 250-peer", "> 250 REQUIRETLS", "< MAIL", "> 250", "< RCPT"];
        let (tls, ca) = server("127.0.0.1");
        let refuses = script(&[&TO_TLS, &first, &refuse, &BYE]);
        let site = Peer::with_tls(tls.clone(), vec![refuses]);
        let takes = script(&[&TO_TLS, &KNOWS_ALL, &TAKES, &BYE]);
        let home = Peer::with_tls(tls, vec![takes]);
        let mut config = with_home(site.address, home.address);
        config.delivery.tls_ca = Some(ca.path().to_owned());
        let rig = Rig::new(config).await;
        let terms = Terms { require_tls: true, priority: 3, ..Terms::default() };
        let mut envelope = notify(with(terms), "FAILURE");
        envelope.dsn.as_mut().unwrap().ret = Some(Ret::Full);
        rig.envelope(envelope, TEXT, true).await;
        let outcomes = rig.outcomes(2).await;
        assert_eq!(outcomes[1].2.disposition, Disposition::Delivered, "{outcomes:?}");
        rig.drain().await;
        site.finish().await;
        let seen = home.finish().await.remove(0);
        assert!(seen[3].starts_with("MAIL FROM:<> ") && !seen[3].contains("RET="), "{seen:?}");
        assert!(seen[3].ends_with(" MT-PRIORITY=3 REQUIRETLS\r\n"), "{seen:?}");
        let report = bodies(vec![seen]).remove(0);
        assert!(report.contains("text/rfc822-headers") && !report.contains("hello"), "{report}");
    });
}

#[test]
fn the_urgent_overtake_what_waits_and_the_rest_is_not_forgotten() {
    run(|| async {
        let address = nobody();
        let rig = Rig::new(config(&[address])).await;
        rig.mail(&["first@x.org"], TEXT).await;
        rig.until("the site is left alone", || rig.told_of("first@x.org").len() == 1).await;
        let send = async |address: &str, priority: i8| {
            let terms = (priority != 0).then(|| Box::new(Terms { priority, ..Terms::default() }));
            rig.envelope(Envelope { terms, ..envelope(&[address]) }, TEXT, true).await
        };
        send("low@x.org", -1).await;
        for n in 0..20 {
            send(&format!("o{n}@x.org"), 0).await;
        }
        for n in 0..10 {
            send(&format!("u{n}@x.org"), 4).await;
        }
        rig.is_done_for_now().await;
        let site = Sink::at(address);
        // Less than what the first has to wait for its next attempt.
        moved::pass(Duration::from_secs(40));
        rig.until("they are delivered", || site.taken.borrow().len() >= 31).await;
        let taken = site.taken.borrow().clone();
        let place = |address: &str| taken.iter().position(|to| to == address).unwrap();
        let order = |kind: &str, count: usize| {
            (0..count).map(|n| place(&format!("{kind}{n}@x.org"))).collect::<Vec<_>>()
        };
        let (urgent, usual) = (order("u", 10), order("o", 20));
        assert!(urgent.is_sorted() && usual.is_sorted(), "{taken:?}");
        assert!(urgent[0] <= 1 && urgent[9] <= 13, "{taken:?}");
        assert!(place("low@x.org") <= 16, "the oldest has its turn: {taken:?}");
        rig.until("the first too", || {
            moved::pass(Duration::from_secs(1));
            rig.queue.live() == 0
        })
        .await;
        rig.drain().await;
    });
}
