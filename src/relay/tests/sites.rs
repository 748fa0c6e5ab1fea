//! Mail that finds its way by DNS, and sites that are given less than there is.

use super::peer::{Stage, takes_all};
use super::*;
use crate::config::{DomainPattern, Per, Rate, SiteTable};
use crate::io::dns::server::{Answer, DnsServer, RecordType};

const TEXT: &str = "Subject: x\r\n\r\nhello\r\n";
const GOODBYE: [&str; 2] = ["< QUIT", "> 221 bye"];

/// A configuration that relays by MX, to `port`, with names from `dns`.
pub(super) fn by_mx(dns: &DnsServer, port: u16) -> Config {
    let mut config = Config { routes: Vec::new(), ..Config::default() };
    config.hostname = "relay.test".into();
    config.delivery.port = port;
    config.delivery.allow_private_targets = true;
    config.delivery.connections_per_site = 1;
    config.dns.servers = vec![dns.address];
    config
}

/// A peer that takes `count` messages on one connection, on this address of
/// loopback and that port (0 for any).
fn takes(host: &str, port: u16, count: usize) -> Peer {
    let taken = takes_one().repeat(count);
    Peer::at(format!("{host}:{port}").parse().unwrap(), vec![script(&[&HELLO, &taken, &GOODBYE])])
}

/// A sender that gets no reports.
fn from_nobody(recipients: &[&str]) -> Envelope {
    Envelope { sender: String::new(), ..envelope(recipients) }
}

#[test]
fn mail_goes_to_the_most_preferred_host_that_takes_it() {
    run(|| async {
        let dns = DnsServer::start();
        dns.set_mx("x.org", &[(20, "second.test"), (10, "first.test")]);
        // The first has two addresses where nobody listens.
        dns.set_addresses("first.test", &["127.0.0.7", "127.0.0.8"]);
        dns.set_addresses("second.test", &["127.0.0.9"]);
        let peer = takes("127.0.0.9", 0, 2);
        let rig = Rig::new(by_mx(&dns, peer.address.port())).await;
        for recipient in ["a@X.org", "b@x.org"] {
            rig.mail(&[recipient], TEXT).await;
        }
        let outcomes = rig.outcomes(2).await;
        assert!(outcomes.iter().all(|(.., o)| o.disposition == Disposition::Delivered));
        let host = format!("second.test[127.0.0.9]:{}", peer.address.port());
        assert_eq!(outcomes[0].2.host, host);
        assert_eq!(dns.asked("x.org", RecordType::MX), 1, "asked once for both");
        assert!(rig.relay.way("z@x.org").leads_to("first.test,second.test"));
        rig.drain().await;
        peer.finish().await;
    });
}

#[test]
fn domains_with_the_same_hosts_share_a_site_and_a_transaction() {
    run(|| async {
        let dns = DnsServer::start();
        dns.set_mx("a.org", &[(5, "mx1.test"), (7, "mx2.test")]);
        dns.set_mx("b.org", &[(10, "MX1.test"), (20, "mx2.test.")]);
        dns.set_addresses("mx1.test", &["127.0.0.1"]);
        dns.set_addresses("mx2.test", &["127.0.0.1"]);
        let both = ["< MAIL", "< RCPT TO:<x@a.org>", "< RCPT TO:<y@b.org>", "< DATA"];
        let taken = ["> 250", "> 250", "> 250", "> 354", ".", "> 250 taken"];
        let peer = Peer::start(vec![script(&[&HELLO, &both, &taken, &GOODBYE])]);
        let rig = Rig::new(by_mx(&dns, peer.address.port())).await;
        rig.mail(&["x@a.org", "y@b.org"], TEXT).await;
        let outcomes = rig.outcomes(2).await;
        assert!(outcomes.iter().all(|(.., o)| o.disposition == Disposition::Delivered));
        assert_eq!(rig.relay.sites().len(), 1);
        rig.drain().await;
        peer.finish().await;
    });
}

#[test]
fn without_mx_the_domain_is_its_own_host() {
    run(|| async {
        let dns = DnsServer::start();
        dns.set("b\u{fc}cher.test", RecordType::MX, Answer::no_data());
        dns.set("xn--bcher-kva.test", RecordType::MX, Answer::no_data());
        dns.set_addresses("xn--bcher-kva.test", &["127.0.0.1"]);
        let peer = Sink::at("127.0.0.1:0".parse().unwrap());
        let rig = Rig::new(by_mx(&dns, peer.address.port())).await;
        let addressed = Envelope { smtputf8: true, ..from_nobody(&["a@b\u{fc}cher.test"]) };
        rig.envelope(addressed, TEXT, true).await;
        let outcome = rig.outcome().await;
        // The peer does not offer SMTPUTF8: it was reached, which is the point.
        assert_eq!(outcome.reply.enhanced, Some(EnhancedCode(5, 6, 7)), "{outcome:?}");
        rig.mail(&["a@[127.0.0.1]"], TEXT).await;
        assert_eq!(rig.outcomes(2).await[1].2.disposition, Disposition::Delivered);
        rig.drain().await;
        assert_eq!(*peer.taken.borrow(), ["a@[127.0.0.1]"]);
    });
}

/// The outcome of mail to `address`, with no peer that could take it.
async fn goes_nowhere(dns: &DnsServer, change: impl Fn(&mut Config), address: &str) -> Outcome {
    let mut config = by_mx(dns, nobody().port());
    config.dns.timeout = Duration::from_millis(300);
    change(&mut config);
    let rig = Rig::new(config).await;
    rig.envelope(from_nobody(&[address]), TEXT, true).await;
    let outcome = rig.outcome().await;
    rig.drain().await;
    outcome
}

#[test]
fn what_dns_says_decides_between_failing_and_trying_again() {
    use Disposition::{Deferred, Failed};
    run(|| async {
        let dns = DnsServer::start();
        dns.set_mx("null.test", &[(0, ".")]);
        dns.set("servfail.test", RecordType::MX, Answer::failure());
        dns.set("silent.test", RecordType::MX, Answer::silence());
        dns.set_mx("lost.test", &[(1, "gone.test")]);
        dns.set_mx("half.test", &[(1, "gone.test"), (2, "troubled.test")]);
        dns.set("troubled.test", RecordType::A, Answer::failure());
        dns.set("troubled.test", RecordType::AAAA, Answer::failure());
        dns.set_mx("loop.test", &[(1, "RELAY.test")]);
        dns.set_mx("literal.test", &[(1, "192.0.2.1")]);
        dns.set_mx("down.test", &[(1, "down-host.test")]);
        dns.set_addresses("down-host.test", &["127.0.0.1"]);
        for (address, disposition, code) in [
            ("a@null.test", Failed, EnhancedCode(5, 1, 10)),
            ("a@nowhere.test", Failed, EnhancedCode(5, 1, 2)),
            ("a@servfail.test", Deferred, EnhancedCode(4, 4, 3)),
            ("a@silent.test", Deferred, EnhancedCode(4, 4, 3)),
            ("a@lost.test", Failed, EnhancedCode(5, 4, 4)),
            ("a@half.test", Deferred, EnhancedCode(4, 4, 3)),
            ("a@loop.test", Failed, EnhancedCode(5, 4, 6)),
            ("a@literal.test", Failed, EnhancedCode(5, 4, 4)),
            ("a@down.test", Deferred, EnhancedCode(4, 4, 1)),
            ("a@[127.0.0.1]", Deferred, EnhancedCode(4, 4, 1)),
        ] {
            let outcome = goes_nowhere(&dns, |_| {}, address).await;
            let seen = (outcome.disposition, outcome.reply.enhanced);
            assert_eq!(seen, (disposition, Some(code)), "{address}: {}", outcome.reply);
        }
        let private = |config: &mut Config| config.delivery.allow_private_targets = false;
        for address in ["a@down.test", "a@[127.0.0.1]", "a@[IPv6:::1]"] {
            let outcome = goes_nowhere(&dns, private, address).await;
            let seen = (outcome.disposition, outcome.reply.enhanced);
            assert_eq!(seen, (Failed, Some(EnhancedCode(5, 4, 4))), "{address}");
            assert!(outcome.reply.text.contains("loopback"), "{}", outcome.reply);
        }
    });
}

#[test]
fn a_host_that_is_this_server_is_not_sent_to() {
    run(|| async {
        let dns = DnsServer::start();
        dns.set_mx("x.org", &[(1, "other-name.test")]);
        dns.set_addresses("other-name.test", &["127.0.0.1"]);
        let own = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = own.local_addr().unwrap();
        let outcome = goes_nowhere(
            &dns,
            |config| {
                config.delivery.port = address.port();
                config.listeners[0].addresses = vec![address];
            },
            "a@x.org",
        )
        .await;
        assert_eq!(outcome.reply.enhanced, Some(EnhancedCode(5, 4, 6)), "{}", outcome.reply);
    });
}

#[test]
fn less_preferred_hosts_than_this_server_are_not_sent_to() {
    run(|| async {
        let dns = DnsServer::start();
        dns.set_addresses("other-name.test", &["127.0.0.1"]);
        dns.set_addresses("third.test", &["127.0.0.9"]);
        dns.set("first.test", RecordType::A, Answer::failure());
        dns.set("first.test", RecordType::AAAA, Answer::failure());
        let own = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = own.local_addr().unwrap();
        let third = Sink::at(format!("127.0.0.9:{}", address.port()).parse().unwrap());
        let here = |config: &mut Config| {
            config.delivery.port = address.port();
            config.listeners[0].addresses = vec![address];
        };
        dns.set_mx("x.org", &[(1, "other-name.test"), (2, "third.test")]);
        let outcome = goes_nowhere(&dns, here, "a@x.org").await;
        assert_eq!(outcome.reply.enhanced, Some(EnhancedCode(5, 4, 6)), "{}", outcome.reply);
        // Where it is not known what a better host says, there is hope.
        dns.set_mx("y.org", &[(1, "first.test"), (2, "other-name.test"), (3, "third.test")]);
        let outcome = goes_nowhere(&dns, here, "a@y.org").await;
        let seen = (outcome.disposition, outcome.reply.enhanced);
        assert_eq!(seen, (Disposition::Deferred, Some(EnhancedCode(4, 4, 3))), "{outcome:?}");
        assert!(third.taken.borrow().is_empty());
    });
}

#[test]
fn all_addresses_of_a_host_that_turn_us_away_are_tried() {
    run(|| async {
        let dns = DnsServer::start();
        dns.set_mx("x.org", &[(1, "mx.test")]);
        let hosts = ["127.0.0.6", "127.0.0.7", "127.0.0.8", "127.0.0.9"];
        dns.set_addresses("mx.test", &hosts);
        let good = Sink::at("127.0.0.6:0".parse().unwrap());
        let busy = |host: &&str| {
            let mood = |stage, argument: &str| match stage {
                Stage::Greeting => Some("421 busy".to_owned()),
                _ => takes_all(stage, argument),
            };
            let address = format!("{host}:{}", good.address.port());
            Sink::with(address.parse().unwrap(), Rc::new(mood))
        };
        let others: Vec<Sink> = hosts[1..].iter().map(busy).collect();
        // Their order is a matter of chance.
        for _ in 0..8 {
            let rig = Rig::new(by_mx(&dns, good.address.port())).await;
            rig.mail(&["a@x.org"], TEXT).await;
            let outcome = rig.outcome().await;
            assert_eq!(outcome.disposition, Disposition::Delivered, "{}", outcome.reply);
            rig.drain().await;
        }
        assert!(others.iter().any(|sink| sink.most.get() > 0));
    });
}

#[test]
fn many_messages_for_a_domain_wait_for_one_lookup() {
    run(|| async {
        let dns = DnsServer::start();
        dns.set(
            "x.org",
            RecordType::MX,
            Answer::mx(&[(1, "mx.test")]).delay(Duration::from_millis(200)),
        );
        dns.set_addresses("mx.test", &["127.0.0.1"]);
        let peer = takes("127.0.0.1", 0, 20);
        let rig = Rig::new(by_mx(&dns, peer.address.port())).await;
        for n in 0..20 {
            rig.mail(&[&format!("r{n}@x.org")], TEXT).await;
        }
        rig.outcomes(20).await;
        assert_eq!(dns.asked("x.org", RecordType::MX), 1);
        rig.drain().await;
        peer.finish().await;
    });
}

/// One host for all of `x.org`, limited to `rate`.
pub(super) fn limited(address: SocketAddr, rate: Rate) -> Config {
    let mut config = config(&[address]);
    let domains: Vec<DomainPattern> = vec!["*".parse().unwrap()];
    let table = SiteTable { domains, message_rate: Some(Some(rate)), ..SiteTable::default() };
    config.sites = vec![table];
    config
}

#[test]
fn a_limited_site_gets_its_mail_in_order_of_age_and_each_message_is_woken_once() {
    run(|| async {
        let count = 60;
        let peer = takes("127.0.0.1", 0, count);
        // Five seconds' worth is more than what may be out at a time.
        let rig = Rig::new(limited(peer.address, Rate { count: 50, per: Per::Second })).await;
        rig.relay.0.out.set(OUT_MAX - 10);
        for n in 0..count {
            rig.mail(&[&format!("r{n}@x.org")], TEXT).await;
        }
        let waiting = rig.relay.sites()[0].waiting as usize;
        assert!(waiting > 40, "{waiting}");
        let outcomes = rig.outcomes(count).await;
        let order: Vec<_> = outcomes.iter().map(|(_, address, _)| address.clone()).collect();
        let expected: Vec<_> = (0..count).map(|n| format!("r{n}@x.org")).collect();
        assert_eq!(order, expected);
        rig.relay.0.out.set(rig.relay.0.out.get() - (OUT_MAX - 10));
        let counters = rig.counters.borrow().clone();
        assert!(counters.parked as usize >= waiting);
        assert_eq!(counters.wakeups, counters.parked, "each that waited was read once");
        rig.drain().await;
        peer.finish().await;
    });
}

#[test]
fn a_limit_that_is_lifted_lets_go_what_waits_at_once() {
    run(|| async {
        let peer = Sink::at("127.0.0.1:0".parse().unwrap());
        let rig = Rig::new(limited(peer.address, Rate { count: 1, per: Per::Hour })).await;
        for n in 0..20 {
            rig.mail(&[&format!("r{n}@x.org")], TEXT).await;
        }
        rig.outcomes(1).await;
        assert!(rig.relay.sites()[0].waiting >= 16);
        rig.relay.reload(Arc::new(config(&[peer.address])));
        rig.outcomes(20).await;
        rig.drain().await;
    });
}

#[test]
fn what_waits_for_a_site_that_is_down_goes_elsewhere_when_the_route_changes() {
    run(|| async {
        let rig = Rig::new(config(&[nobody()])).await;
        for n in 0..20 {
            rig.mail(&[&format!("r{n}@x.org")], TEXT).await;
        }
        rig.outcomes(1).await;
        assert!(rig.relay.sites()[0].back_off_until.is_some());
        let peer = Sink::at("127.0.0.1:0".parse().unwrap());
        rig.relay.reload(Arc::new(config(&[peer.address])));
        rig.outcomes(20).await;
        rig.drain().await;
        assert_eq!(peer.taken.borrow().len(), 19);
    });
}

#[test]
fn a_limit_that_is_raised_holds_on_all_shards_and_not_from_hours_ahead() {
    run(|| async {
        let peer = Sink::at("127.0.0.1:0".parse().unwrap());
        let rate = |count, per| limited(peer.address, Rate { count, per });
        let net = Rc::new(Net::default());
        let stores = [MemoryStore::new(), MemoryStore::new()];
        let mut rigs = Vec::new();
        for me in 0..2 {
            let config = rate(1, Per::Hour);
            let rig = Rig::shard(config, stores.to_vec(), me, Rc::clone(&net)).await;
            net.relays.borrow_mut().push(Some(rig.relay.clone()));
            rig.relay.start();
            rigs.push(rig);
        }
        rigs[0].mail(&["first@x.org"], TEXT).await;
        rigs[0].outcomes(1).await;
        // The lane is on one shard, all mail that waits on the other: only there
        // is anything routed after the reload.
        let owner = usize::from(rigs[0].relay.sites()[0].owner.0);
        let origin = &rigs[1 - owner];
        for n in 0..10 {
            origin.mail(&[&format!("r{n}@x.org")], TEXT).await;
        }
        let before = origin.told.outcomes.borrow().len();
        for rig in &rigs {
            rig.relay.reload(Arc::new(rate(1000, Per::Second)));
        }
        origin.outcomes(before + 10).await;
        for rig in &rigs {
            rig.drain().await;
        }
    });
}

#[test]
fn other_sites_do_not_wait_for_one_that_is_slow() {
    run(|| async {
        let slow = Peer::start(vec![vec!["> 220 slow"]]);
        let fast = Sink::at("127.0.0.1:0".parse().unwrap());
        let mut config = config(&[slow.address]);
        let next_hop = NextHop::Hosts(vec![fast.address.into()]);
        let route = Route::new("fast.org".parse().unwrap(), next_hop);
        config.routes.insert(0, route);
        let rig = Rig::new(config).await;
        rig.relay.0.out.set(OUT_MAX - 8);
        for n in 0..50 {
            rig.mail(&[&format!("r{n}@slow.org")], TEXT).await;
        }
        rig.mail(&["a@fast.org"], TEXT).await;
        let outcome = rig.outcome().await;
        assert_eq!(outcome.host, fast.address.to_string());
        rig.relay.0.out.set(rig.relay.0.out.get() - (OUT_MAX - 8));
        rig.relay.cut();
        rig.drain().await;
        drop(slow);
    });
}

#[test]
fn after_a_failure_one_message_tries_the_site_for_all() {
    run(|| async {
        let address = nobody();
        let mut config = config(&[address]);
        config.delivery.connections_per_site = 5;
        let rig = Rig::new(config).await;
        for n in 0..30 {
            rig.mail(&[&format!("r{n}@x.org")], TEXT).await;
        }
        // Connections being made at the same time may each have had a message.
        let refused = async {
            while rig.relay.sites()[0].waiting == 0 || rig.relay.out() > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        within(Duration::from_secs(20), refused).await.expect("the site is given up");
        let tried = rig.told.outcomes.borrow().len();
        assert!((1..=2).contains(&tried), "{tried}");
        let probes = rig.counters.borrow().outbound_connect_failures;
        rig.relay.hurry("x@x.org");
        rig.outcomes(tried + 1).await;
        let quiet = async {
            while rig.relay.out() > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        within(Duration::from_secs(20), quiet).await.expect("it comes home");
        assert_eq!(rig.counters.borrow().outbound_connect_failures, probes + 1);
        // Now it works.
        let peer = Sink::at(address);
        rig.relay.hurry("x@x.org");
        let rest = 30 - tried - 1;
        let all = async {
            while rig.told.outcomes.borrow().len() < 30 {
                rig.told.signal.wait().await;
            }
        };
        within(Duration::from_secs(20), all).await.expect("all are delivered");
        let outcomes = rig.told.outcomes.borrow().clone();
        let delivered = |(.., o): &&(_, _, Outcome)| o.disposition == Disposition::Delivered;
        assert_eq!(outcomes.iter().filter(delivered).count(), rest);
        assert_eq!(peer.taken.borrow().len(), rest);
        assert!(peer.most.get() <= 5 && peer.connections.get() <= 5);
        rig.drain().await;
    });
}
