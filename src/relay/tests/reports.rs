//! Reports: what is asked for them, what joins them, what they are durable before.

use super::*;
use crate::base::Reply;
use crate::base::dsn::{Dsn, Notify, RecipientDsn, Ret};
use crate::io::memory::CrashPolicy;

const TEXT: &str = "Subject: x\r\n\r\nhello\r\n";
/// One message taken, where the next hop knows DSN, and where not.
const KNOWS: [&str; 4] = ["> 220 peer", "< EHLO ", "> 250-peer", "> 250 DSN"];
/// One message or report of which nothing is expected but that it is taken.
const TAKES: [&str; 8] =
    ["< MAIL", "> 250", "< RCPT", "> 250", "< DATA", "> 354", ".", "> 250 taken"];
/// A refusal of one recipient, commands going one by one.
const REFUSES: [&str; 6] = ["> 220 peer", "< EHLO ", "> 250 peer", "< MAIL", "> 250", "< RCPT"];

/// It takes no command behind EHLO.
const SILENT: [&str; 3] = ["> 220 peer", "< EHLO ", "> 250 peer"];

/// A configuration that relays `a.org` and `b.org` to the first two hosts, and
/// all else, reports among it, to the last.
fn three(hosts: [SocketAddr; 3]) -> Config {
    let mut config = config(&[]);
    let routes = ["a.org", "b.org", "*"].iter().zip(hosts);
    let routes = routes.map(|(domain, host)| {
        Route::new(domain.parse().unwrap(), NextHop::Hosts(vec![host.into()]))
    });
    config.routes = routes.collect();
    config
}

/// An envelope whose recipients have these NOTIFY.
fn asking(recipients: &[(&str, &str)]) -> Envelope {
    let addresses: Vec<_> = recipients.iter().map(|(address, _)| *address).collect();
    let asked = recipients
        .iter()
        .map(|(_, notify)| RecipientDsn { notify: Notify::parse(notify.as_bytes()), orcpt: None });
    let dsn = Dsn { recipients: asked.collect(), ..Dsn::default() };
    Envelope { dsn: Some(Box::new(dsn)), ..envelope(&addresses) }
}

/// Whether `address` is said to be reported on in a report.
fn is_about(report: &str, address: &str) -> bool {
    report.contains(&format!("Final-Recipient: rfc822; {address}\r\n"))
}

/// What was sent as a body over these connections.
fn bodies(seen: Vec<peer::Seen>) -> Vec<String> {
    seen.into_iter().flatten().filter(|text| text.ends_with("\r\n.\r\n")).collect()
}

async fn until(mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    within(Duration::from_secs(20), wait).await.expect("it comes to be so");
}

/// Drains, and cuts the one connection that comes to no end by itself.
async fn end(rig: &Rig) {
    assert!(within(Duration::from_millis(1), rig.relay.drain()).await.is_none());
    let open = || rig.relay.sites().iter().map(|site| site.connections).sum::<u64>();
    until(|| open() == 1).await;
    rig.relay.cut();
    rig.drain().await;
}

fn refusing(last: &'static str) -> Vec<&'static str> {
    script(&[&REFUSES, &[last, "< QUIT", "> 221"]])
}

fn taking(reports: usize) -> Vec<&'static str> {
    let mut all = script(&[&["> 220 peer", "< EHLO ", "> 250 peer"]]);
    (0..reports).for_each(|_| all.extend(TAKES));
    all.extend(["< QUIT", "> 221"]);
    all
}

#[test]
fn failures_at_different_sites_come_in_one_report() {
    run(|| async {
        let a = Peer::start(vec![refusing("> 550 5.1.1 no a")]);
        let b = Peer::start(vec![refusing("> 550 5.7.1 no b")]);
        let other = Peer::start(vec![taking(1)]);
        let rig = Rig::new(three([a.address, b.address, other.address])).await;
        rig.relay.0.joining.set_wait(Duration::from_secs(3600));
        let id = rig.mail(&["x@a.org", "y@b.org"], TEXT).await;
        let outcomes = rig.outcomes(3).await;
        let failed = outcomes.iter().filter(|(of, ..)| *of == id);
        assert!(failed.clone().all(|(.., o)| o.disposition == Disposition::Failed));
        assert_eq!(failed.count(), 2);
        assert_eq!(rig.told.reports.borrow().len(), 1);
        assert_eq!(rig.queue.live(), 0);
        rig.drain().await;
        a.finish().await;
        b.finish().await;
        let report = bodies(other.finish().await).remove(0);
        assert!(is_about(&report, "x@a.org") && is_about(&report, "y@b.org"), "{report}");
    });
}

#[test]
fn a_failure_does_not_wait_for_long() {
    run(|| async {
        let a = Peer::start(vec![refusing("> 550 5.1.1 no a")]);
        // It says nothing until the other has been reported.
        let b = Peer::start(vec![SILENT.to_vec()]);
        let other = Peer::start(vec![taking(1)]);
        let rig = Rig::new(three([a.address, b.address, other.address])).await;
        rig.relay.0.joining.set_wait(Duration::ZERO);
        let id = rig.mail(&["x@a.org", "y@b.org"], TEXT).await;
        let outcomes = rig.outcomes(2).await;
        until(|| rig.counters.borrow().attempts == 3).await;
        assert!(outcomes.iter().any(|(of, address, _)| *of == id && address == "x@a.org"));
        let left = rig.queue.message(id).unwrap().recipients;
        assert_eq!(left.iter().map(|r| (r.recipient, r.out)).collect::<Vec<_>>(), [(1, true)]);
        end(&rig).await;
        a.finish().await;
        b.finish().await;
        assert_eq!(bodies(other.finish().await).len(), 1);
    });
}

#[test]
fn a_drain_reports_what_waits() {
    run(|| async {
        let a = Peer::start(vec![refusing("> 550 5.1.1 no a")]);
        let b = Peer::start(vec![SILENT.to_vec()]);
        let rig = Rig::new(three([a.address, b.address, nobody()])).await;
        rig.relay.0.joining.set_wait(Duration::from_secs(3600));
        let id = rig.mail(&["x@a.org", "y@b.org"], TEXT).await;
        until(|| rig.relay.0.joining.len() == 1 && rig.counters.borrow().attempts == 2).await;
        assert!(rig.told.outcomes.borrow().is_empty(), "nothing is recorded before the report");
        assert!(within(Duration::from_millis(1), rig.relay.drain()).await.is_none());
        until(|| rig.told.reports.borrow().len() == 1).await;
        end(&rig).await;
        assert_eq!(rig.outcomes(1).await[0].2.disposition, Disposition::Failed);
        let report = rig.told.reports.borrow()[0].0;
        let waits = rig.queue.message(report).expect("the report is queued").recipients;
        assert!(!waits[0].out);
        let left = rig.queue.message(id).unwrap().recipients;
        assert_eq!(left.iter().map(|r| (r.recipient, r.out)).collect::<Vec<_>>(), [(1, false)]);
        a.finish().await;
        b.finish().await;
    });
}

#[test]
fn what_was_dropped_while_it_waited_is_not_reported() {
    run(|| async {
        let a = Peer::start(vec![refusing("> 550 5.1.1 no a")]);
        let b = Peer::start(vec![SILENT.to_vec()]);
        let rig = Rig::new(three([a.address, b.address, nobody()])).await;
        rig.relay.0.joining.set_wait(Duration::from_secs(3600));
        let id = rig.mail(&["x@a.org", "y@b.org"], TEXT).await;
        until(|| rig.relay.0.joining.len() == 1 && rig.counters.borrow().attempts == 2).await;
        let drop = crate::queue::Action::Drop;
        let carried = rig.queue.order(id, drop, &[0, 1], "root (uid 0)", clock::wall());
        carried.unwrap().commit.await.unwrap();
        end(&rig).await;
        assert_eq!((rig.queue.live(), rig.counters.borrow().reports_queued), (0, 0));
        a.finish().await;
        b.finish().await;
    });
}

#[test]
fn only_who_asked_is_told_of_failures() {
    run(|| async {
        let refuse = ["> 550 5.1.1 no", "< RCPT"];
        let a = Peer::start(vec![script(&[
            &REFUSES,
            &refuse,
            &refuse,
            &refuse,
            &["> 550 5.1.1 no", "< QUIT", "> 221"],
        ])]);
        let other = Peer::start(vec![taking(1)]);
        let rig = Rig::new(three([a.address, nobody(), other.address])).await;
        let mut asking = asking(&[
            ("never@a.org", "NEVER"),
            ("success@a.org", "SUCCESS,DELAY"),
            ("failure@a.org", "FAILURE"),
            ("plain@a.org", ""),
        ]);
        let dsn = asking.dsn.as_mut().unwrap();
        (dsn.envid, dsn.ret) = (Some("Q+20Q".into()), Some(Ret::Full));
        dsn.recipients[2].orcpt = Some("rfc822;F+2B@old.org".into());
        rig.envelope(asking, TEXT, false).await;
        let outcomes = rig.outcomes(5).await;
        let failed = outcomes.iter().filter(|(.., o)| o.disposition == Disposition::Failed);
        assert_eq!(failed.count(), 4);
        assert_eq!(rig.queue.live(), 0);
        rig.drain().await;
        a.finish().await;
        let report = bodies(other.finish().await).remove(0);
        for (address, expected) in [("never", false), ("success", false), ("failure", true)] {
            assert_eq!(is_about(&report, &format!("{address}@a.org")), expected, "{report}");
        }
        assert!(is_about(&report, "plain@a.org"));
        assert!(report.contains("\r\nOriginal-Envelope-Id: Q Q\r\n"), "{report}");
        assert_eq!(report.matches("Original-Recipient:").count(), 1);
        assert!(report.contains("Original-Recipient: rfc822; F+@old.org\r\n"), "{report}");
        // The whole message, read from the log.
        assert!(report.contains("message/rfc822"), "{report}");
        assert!(report.contains("Received: here\r\nSubject: x\r\n\r\nhello\r\n\r\n--report"));
    });
}

#[test]
fn nobody_is_reported_to_who_wants_no_report() {
    run(|| async {
        let again = ["> 550 5.1.1 no", "< RSET", "> 250", "< MAIL", "> 250", "< RCPT"];
        let end = ["> 550 5.1.1 no", "< QUIT", "> 221"];
        let a = Peer::start(vec![script(&[&REFUSES, &again, &end])]);
        let rig = Rig::new(three([a.address, nobody(), nobody()])).await;
        let from_nobody = Envelope { sender: String::new(), ..asking(&[("x@a.org", "FAILURE")]) };
        for (count, envelope) in [(1, asking(&[("x@a.org", "NEVER")])), (2, from_nobody)] {
            rig.envelope(envelope, TEXT, true).await;
            rig.outcomes(count).await;
        }
        assert_eq!((rig.queue.live(), rig.counters.borrow().reports_queued), (0, 0));
        rig.drain().await;
        a.finish().await;
    });
}

#[test]
fn what_is_passed_on_is_reported_where_the_next_hop_will_not() {
    run(|| async {
        let knows = [&KNOWS[..], &TAKES, &["< QUIT", "> 221"]];
        let a = Peer::start(vec![script(&knows)]);
        let b = Peer::start(vec![taking(2)]);
        let other = Peer::start(vec![taking(1)]);
        let rig = Rig::new(three([a.address, b.address, other.address])).await;
        rig.envelope(asking(&[("x@a.org", "SUCCESS"), ("y@b.org", "SUCCESS")]), TEXT, true).await;
        rig.outcomes(3).await;
        rig.envelope(asking(&[("z@b.org", "FAILURE")]), TEXT, true).await;
        let outcomes = rig.outcomes(4).await;
        assert!(outcomes.iter().all(|(.., o)| o.disposition == Disposition::Delivered));
        assert_eq!(rig.queue.live(), 0);
        rig.drain().await;
        let seen = a.finish().await.remove(0);
        assert!(seen[2].ends_with(" NOTIFY=SUCCESS ORCPT=rfc822;x@a.org\r\n"), "{seen:?}");
        b.finish().await;
        let report = bodies(other.finish().await).remove(0);
        assert!(is_about(&report, "y@b.org") && !is_about(&report, "x@a.org"), "{report}");
        assert!(report.contains("Action: relayed\r\nStatus: 2.0.0\r\n"), "{report}");
    });
}

#[test]
fn what_lmtp_takes_is_reported_as_delivered() {
    run(|| async {
        let hello = ["> 220 store", "< LHLO ", "> 250 store"];
        let end = ["< QUIT", "> 221"];
        let store = Peer::start(vec![script(&[&hello, &TAKES, &TAKES, &end])]);
        let home = Peer::start(vec![taking(1)]);
        let mut config = three([store.address, nobody(), home.address]);
        let hop = format!("lmtp://{}", store.address).parse().unwrap();
        config.routes[0].next_hop = NextHop::Hosts(vec![hop]);
        let rig = Rig::new(config).await;
        rig.envelope(asking(&[("x@a.org", "FAILURE,DELAY")]), TEXT, true).await;
        rig.outcomes(1).await;
        rig.envelope(asking(&[("y@a.org", "SUCCESS")]), TEXT, true).await;
        rig.outcomes(3).await;
        rig.drain().await;
        store.finish().await;
        let report = bodies(home.finish().await).remove(0);
        assert!(is_about(&report, "y@a.org") && !is_about(&report, "x@a.org"), "{report}");
        assert!(report.contains("Action: delivered\r\nStatus: 2.0.0\r\n"), "{report}");
    });
}

/// A deferral with an age of so many hours, after one before it or none.
async fn late(notify: &str, hours: u64, before: Option<u64>) -> (Rig, Outcome, Vec<String>) {
    let a = Peer::start(vec![refusing("> 450 4.2.1 later")]);
    let other = Peer::start(vec![taking(1)]);
    let store = MemoryStore::new();
    let rig = Rig::open(three([a.address, nobody(), other.address]), store).await;
    let ago = |hours: u64| UnixMillis(clock::wall().0 - hours * 3_600_000);
    let envelope = Envelope { arrival_ms: ago(hours).0, ..asking(&[("x@a.org", notify)]) };
    let text = format!("{TEXT}.\r\n");
    let (id, commit) = rig.queue.append(&envelope, |_, _| {}, &[text.as_bytes()]).unwrap();
    commit.await.unwrap();
    if let Some(hours) = before {
        let outcome = Outcome {
            recipient: 0,
            disposition: Disposition::Deferred,
            reply: Reply::new(450, EnhancedCode(4, 2, 1), "before"),
            host: String::new(),
            at: ago(hours),
            attempts: 1,
            next_attempt: ago(0),
            security: None,
        };
        rig.queue.record(id, &[outcome]).unwrap().await.unwrap();
    } else {
        rig.queue.put_back(id, &[0], ago(0));
    }
    let deferred =
        |rig: &Rig| rig.told.outcomes.borrow().iter().find(|(of, ..)| *of == id).cloned();
    until(|| deferred(&rig).is_some()).await;
    let outcome = deferred(&rig).unwrap().2;
    // The report is given out behind the outcome, if there is one.
    let reports = rig.told.reports.borrow().len();
    rig.outcomes(1 + reports).await;
    rig.drain().await;
    a.finish().await;
    let told = if reports > 0 { bodies(other.finish().await) } else { Vec::new() };
    (rig, outcome, told)
}

#[test]
fn a_late_message_is_told_of_once() {
    for (notify, hours, before, told) in [
        ("", 1, None, 0),
        ("", 5, None, 1),
        ("", 5, Some(2), 1),
        ("DELAY", 30, Some(27), 1),
        ("", 9, Some(4), 0),
        ("", 30, Some(1), 0),
        ("FAILURE,SUCCESS", 5, None, 0),
        ("NEVER", 5, Some(2), 0),
    ] {
        run(move || async move {
            let (rig, outcome, notices) = late(notify, hours, before).await;
            let case = format!("{notify} {hours} {before:?}");
            assert_eq!(outcome.disposition, Disposition::Deferred, "{case}");
            assert_eq!(outcome.attempts, 1 + u16::from(before.is_some()), "{case}");
            assert_eq!(notices.len(), told, "{case}");
            assert_eq!(rig.queue.live(), 1, "{case}: the message stays");
            if let Some(notice) = notices.first() {
                assert!(notice.contains("Action: delayed\r\nStatus: 4.2.1\r\n"), "{notice}");
                assert!(notice.contains("\r\nWill-Retry-Until: "), "{notice}");
            }
        });
    }
}

#[test]
fn a_crash_between_a_report_and_its_outcome_repeats_both() {
    run(|| async {
        let a = Peer::start(vec![refusing("> 550 5.1.1 no"), refusing("> 550 5.1.1 no")]);
        let config = three([a.address, nobody(), nobody()]);
        let store = MemoryStore::new();
        let rig = Rig::open(config.clone(), store.clone()).await;
        // Only what was flushed is left: the report, and not yet its outcome.
        let image = Rc::new(RefCell::new(None));
        let taken = Rc::clone(&image);
        let crash = move || *taken.borrow_mut() = Some(store.crash_image(CrashPolicy::Lose));
        rig.told.at_report.replace(Some(Box::new(crash)));
        let id = rig.mail(&["x@a.org"], TEXT).await;
        rig.outcomes(2).await;
        rig.drain().await;
        let image = image.take().expect("there was a report");
        let again = Rig::open(config, image).await;
        let queued = again.queue.ids_after(None, 9);
        assert!(queued.len() == 2 && queued.contains(&id), "{queued:?}");
        until(|| again.queue.message(id).is_none()).await;
        assert_eq!(again.told.reports.borrow().len(), 1, "reported again");
        again.drain().await;
        a.finish().await;
    });
}
