//! Configurations and logs that change while mail is under way or waits.

use super::sites::{by_mx, limited};
use super::*;
use crate::config::{Per, Rate};
use crate::io::dns::server::{Answer, DnsServer, RecordType};
use crate::policy::governor::Why;
use crate::policy::route::{Hop, Host, Way};
use crate::queue::QueueError;

const TEXT: &str = "Subject: x\r\n\r\nhello\r\n";

/// Waits until `is_so`.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    within(Duration::from_secs(20), wait).await.unwrap_or_else(|| panic!("not in time: {what}"));
}

/// The only station of a shard.
fn station(rig: &Rig) -> Rc<Station> {
    let mut stations = rig.relay.0.stations.borrow().all();
    assert_eq!(stations.len(), 1);
    stations.remove(0)
}

#[test]
fn a_limit_that_is_raised_holds_at_once() {
    run(|| async {
        let peer = Sink::at("127.0.0.1:0".parse().unwrap());
        let rig = Rig::new(limited(peer.address, Rate { count: 1, per: Per::Hour })).await;
        for n in 0..20 {
            rig.mail(&[&format!("r{n}@x.org")], TEXT).await;
        }
        rig.outcomes(1).await;
        let is_paced = || station(&rig).lane.held_up(clock::monotonic()).is_some();
        until("the second message has to wait", is_paced).await;
        let faster = limited(peer.address, Rate { count: 100, per: Per::Second });
        rig.relay.reload(Arc::new(faster));
        rig.outcomes(20).await;
        rig.drain().await;
    });
}

#[test]
fn a_new_limit_reaches_the_lane_with_mail_of_other_shards() {
    run(|| async {
        let peer = Sink::at("127.0.0.1:0".parse().unwrap());
        let rigs = shards::shards(2, peer.address).await;
        rigs[0].mail(&["a@x.org"], TEXT).await;
        rigs[0].outcome().await;
        let owner = usize::from(station(&rigs[0]).account.owner(2).0);
        let (owner, other) = (&rigs[owner], &rigs[1 - owner]);
        other.mail(&["b@x.org"], TEXT).await;
        until("it is delivered", || peer.taken.borrow().len() == 2).await;
        let slow = limited(peer.address, Rate { count: 1, per: Per::Hour });
        rigs.iter().for_each(|rig| rig.relay.reload(Arc::new(slow.clone())));
        for n in 0..3 {
            other.mail(&[&format!("r{n}@x.org")], TEXT).await;
        }
        let is_paced = || {
            let held_up = station(owner).lane.held_up(clock::monotonic());
            held_up.is_some_and(|(why, _)| why == Why::MessageRate)
        };
        until("the owner keeps to the rate", is_paced).await;
        until("the first is delivered", || peer.taken.borrow().len() == 3).await;
        // The owner first: it has what the other one waits for.
        for rig in [owner, other] {
            rig.relay.cut();
            rig.drain().await;
        }
    });
}

#[test]
fn an_answer_is_judged_by_the_configuration_that_holds_when_it_comes() {
    run(|| async {
        let dns = DnsServer::start();
        let late = Answer::mx(&[(1, "mx.test")]).delay(Duration::from_millis(200));
        dns.set("x.org", RecordType::MX, late);
        dns.set_addresses("mx.test", &["127.0.0.1"]);
        let peer = Sink::at("127.0.0.1:0".parse().unwrap());
        let rig = Rig::new(by_mx(&dns, nobody().port())).await;
        rig.mail(&["a@x.org"], TEXT).await;
        until("DNS is asked", || dns.asked("x.org", RecordType::MX) == 1).await;
        rig.relay.reload(Arc::new(by_mx(&dns, peer.address.port())));
        assert_eq!(rig.outcome().await.disposition, Disposition::Delivered);
        rig.mail(&["b@x.org"], TEXT).await;
        assert_eq!(rig.outcomes(2).await[1].2.disposition, Disposition::Delivered);
        rig.drain().await;
    });
}

#[test]
fn what_waits_for_a_dead_host_goes_elsewhere_as_soon_as_routes_do() {
    run(|| async {
        let rig = Rig::new(config(&[nobody()])).await;
        for n in 0..10 {
            rig.mail(&[&format!("r{n}@x.org")], TEXT).await;
        }
        let is_given_up = || rig.relay.sites()[0].waiting > 0 && rig.relay.out() == 0;
        until("the site is given up", is_given_up).await;
        // Until it is left alone for a minute or more.
        for _ in 0..4 {
            let tried = rig.told.outcomes.borrow().len();
            rig.relay.hurry("x@x.org");
            let is_tried = || rig.told.outcomes.borrow().len() > tried && rig.relay.out() == 0;
            until("it is tried again", is_tried).await;
        }
        let waiting = rig.relay.sites()[0].waiting as usize;
        let peer = Sink::at("127.0.0.1:0".parse().unwrap());
        rig.relay.reload(Arc::new(config(&[peer.address])));
        until("they are delivered", || peer.taken.borrow().len() == waiting).await;
        rig.drain().await;
    });
}

#[test]
fn what_waits_stays_when_outcomes_cannot_be_recorded() {
    run(|| async {
        let peer = Sink::at("127.0.0.1:0".parse().unwrap());
        let rig = Rig::new(limited(peer.address, Rate { count: 1, per: Per::Hour })).await;
        for n in 0..20 {
            rig.mail(&[&format!("r{n}@x.org")], TEXT).await;
        }
        rig.outcomes(1).await;
        assert!(rig.relay.sites()[0].waiting >= 16);
        let error = QueueError::Unknown(QueueId::default());
        rig.relay.0.halt(ShardId(0), &error);
        until("nothing is out", || rig.relay.out() == 0).await;
        let woken = rig.counters.borrow().wakeups;
        rig.relay.reload(Arc::new(config(&[peer.address])));
        until("nothing is left to be looked at", || rig.relay.sites()[0].waiting == 0).await;
        assert_eq!(rig.counters.borrow().wakeups, woken);
        rig.drain().await;
        assert_eq!(peer.taken.borrow().len(), 1);
    });
}

#[test]
fn sites_of_one_name_have_an_account_each() {
    let routes = Routes::new(&Config::default());
    let site = |ranks: [u16; 2]| {
        let hop = |(rank, name): (u16, &str)| Hop {
            rank,
            way: Way::Smtp,
            host: Host::Name(name.into()),
            port: 25,
        };
        let hops = ranks.into_iter().zip(["mx1.test", "mx2.test"]).map(hop).collect();
        Arc::new(routes.mx_site("x.org", hops))
    };
    let (equal, ordered) = (site([0, 0]), site([0, 1]));
    assert_eq!(equal.name, ordered.name);
    let accounts = Accounts::new(2);
    let open = |site| accounts.open(site);
    let (first, second) = (open(&equal), open(&ordered));
    assert_eq!((&first.site.hops, &second.site.hops), (&equal.hops, &ordered.hops));
    // Another shard, which comes later, shares its limits with the first.
    assert!(Arc::ptr_eq(&first, &open(&equal)) && Arc::ptr_eq(&second, &open(&ordered)));
}
