//! Messages that require TLS at several hosts, of which not all may have them.

use super::peer::Seen;
use super::secure::{TO_TLS, server};
use super::*;
use crate::base::Reply;
use crate::base::dsn::{Dsn, Notify, RecipientDsn};
use crate::base::terms::Terms;
use crate::config::{Per, Rate};
use crate::io::net::{Listener, listen};
use crate::io::tls;
use crate::policy::governor::{Failure, Opening};

const TEXT: &str = "Subject: x\r\n\r\nhello\r\n";
const TAKES: [&str; 8] =
    ["< MAIL", "> 250", "< RCPT", "> 250", "< DATA", "> 354", ".", "> 250 taken"];
const BYE: [&str; 2] = ["< QUIT", "> 221"];
/// The rest of the reply to EHLO of who sees to TLS, and of who does not.
const SEES: [&str; 2] = ["> 250-peer", "> 250 REQUIRETLS"];
const BARE: [&str; 1] = ["> 250 peer"];

/// One that wants no reports.
fn mail(to: &str, requires_tls: bool) -> Envelope {
    let terms = Terms { require_tls: requires_tls, ..Terms::default() };
    let never = RecipientDsn { notify: Some(Notify::NEVER), orcpt: None };
    let dsn = Dsn { recipients: vec![never], ..Dsn::default() };
    Envelope { terms: Some(Box::new(terms)), dsn: Some(Box::new(dsn)), ..envelope(&[to]) }
}

/// Hosts with a certificate that is trusted.
struct Hosts {
    tls: tls::Server,
    ca: tempfile::NamedTempFile,
}

impl Hosts {
    fn new() -> Self {
        let (tls, ca) = server("127.0.0.1");
        Hosts { tls, ca }
    }

    /// One that is spoken to in these ways, one connection after the other.
    fn host(&self, scripts: &[&[&[&'static str]]]) -> Peer {
        Peer::with_tls(self.tls.clone(), scripts.iter().map(|pieces| script(pieces)).collect())
    }

    /// A relay's that sends everything to these.
    fn config(&self, hosts: &[SocketAddr]) -> Config {
        let mut config = config(hosts);
        config.delivery.tls_ca = Some(self.ca.path().to_owned());
        config
    }

    async fn rig(&self, hosts: &[SocketAddr]) -> Rig {
        Rig::new(self.config(hosts)).await
    }
}

/// A host that takes connections and says nothing.
fn silent() -> Listener {
    Listener::adopt(listen("127.0.0.1:0".parse().unwrap()).unwrap())
}

/// The only station there is.
fn station(rig: &Rig) -> Rc<Station> {
    rig.relay.0.stations.borrow().all().remove(0)
}

/// Waits until something is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    within(Duration::from_secs(20), wait).await.expect(what);
}

/// Accepts messages at the same moment.
async fn together(rig: &Rig, envelopes: Vec<Envelope>) {
    let body = format!("{TEXT}.\r\n");
    let mut ids = Vec::new();
    for envelope in &envelopes {
        let (id, commit) = rig.queue.append(envelope, |_, _| {}, &[body.as_bytes()]).unwrap();
        commit.await.unwrap();
        ids.push(id);
    }
    for (id, envelope) in ids.into_iter().zip(envelopes) {
        let commit = rig.queue.message(id).unwrap().at.commit;
        let bodies = (&b""[..], Some(body.as_bytes()));
        rig.relay.accepted(id, envelope, bodies, commit, body.len() as u64);
    }
}

fn senders(seen: &Seen) -> usize {
    seen.iter().filter(|line| line.starts_with("MAIL")).count()
}

#[test]
fn a_host_that_may_not_have_what_requires_tls_is_passed_over() {
    run(|| async {
        let hosts = Hosts::new();
        // One that does not see to it in turn, and one without TLS.
        let in_the_clear = ["> 220 peer", "< EHLO "];
        for hello in [&TO_TLS[..], &in_the_clear] {
            let first = hosts.host(&[&[hello, &BARE, &BYE]]);
            let second = hosts.host(&[&[&TO_TLS, &SEES, &TAKES, &BYE]]);
            let rig = hosts.rig(&[first.address, second.address]).await;
            rig.envelope(mail("a@x.org", true), TEXT, true).await;
            let got = rig.outcome().await;
            assert_eq!(got.disposition, Disposition::Delivered, "{got:?}");
            assert_eq!((got.host, got.attempts), (second.address.to_string(), 1));
            rig.drain().await;
            assert_eq!(senders(&first.finish().await[0]), 0);
            let seen = second.finish().await.concat();
            assert!(seen.iter().any(|line| line.ends_with(" REQUIRETLS\r\n")), "{seen:?}");
        }
    });
}

#[test]
fn what_no_host_may_have_comes_back_at_once_with_all_that_is_like_it() {
    run(|| async {
        let hosts = Hosts::new();
        let no_tls = hosts.host(&[&[&["> 220 peer", "< EHLO "], &BARE, &BYE]]);
        let bare = hosts.host(&[&[&TO_TLS, &BARE, &BYE]]);
        let rig = hosts.rig(&[no_tls.address, bare.address]).await;
        let three = ["a@x.org", "b@x.org", "c@x.org"].map(|to| mail(to, true));
        together(&rig, three.into()).await;
        for (_, _, got) in rig.outcomes(3).await {
            assert_eq!((got.disposition, got.attempts), (Disposition::Failed, 1), "{got:?}");
            assert!(got.reply.to_string().starts_with("550 5.7.30 "), "{got:?}");
            assert_eq!(got.host, bare.address.to_string());
        }
        rig.drain().await;
        // Each was asked once.
        no_tls.finish().await;
        bare.finish().await;
    });
}

#[test]
fn what_one_host_may_not_have_waits_for_another_that_is_down() {
    run(|| async {
        let hosts = Hosts::new();
        for is_down_first in [true, false] {
            let bare = hosts.host(&[&[&TO_TLS, &BARE, &BYE]]);
            let mut both = [nobody(), bare.address];
            if !is_down_first {
                both.reverse();
            }
            let rig = hosts.rig(&both).await;
            rig.envelope(mail("a@x.org", true), TEXT, true).await;
            let got = rig.outcome().await;
            assert_eq!((got.disposition, got.attempts), (Disposition::Deferred, 1), "{got:?}");
            let text = got.reply.to_string();
            assert!(text.starts_with("451 4.4.1 connect to "), "{text}");
            assert!(text.contains(&format!("; {}: REQUIRETLS: ", bare.address)), "{text}");
            rig.drain().await;
            bare.finish().await;
        }
    });
}

#[test]
fn what_a_host_may_have_another_time_waits() {
    run(|| async {
        let hosts = Hosts::new();
        // Its handshake fails, and it is spoken to in the clear for a while.
        let broken = [&TO_TLS[..6], &["> this is no TLS", "!"]].concat();
        let clear = [&["> 220 peer", "< EHLO "], &BARE[..], &BYE].concat();
        let first = hosts.host(&[&[&broken], &[&clear]]);
        let second = hosts.host(&[&[&TO_TLS, &BARE, &BYE]]);
        let rig = hosts.rig(&[first.address, second.address]).await;
        rig.envelope(mail("a@x.org", true), TEXT, true).await;
        let got = rig.outcome().await;
        assert_eq!(got.disposition, Disposition::Deferred, "{got:?}");
        assert!(got.reply.to_string().starts_with("451 4.7.10 REQUIRETLS: "), "{got:?}");
        rig.drain().await;
        first.finish().await;
        second.finish().await;
    });
}

#[test]
fn other_mail_goes_where_there_is_a_connection() {
    run(|| async {
        let hosts = Hosts::new();
        let first = hosts.host(&[&[&TO_TLS, &BARE, &TAKES, &BYE]]);
        let second = hosts.host(&[&[&TO_TLS, &SEES, &TAKES, &TAKES, &TAKES, &BYE]]);
        let rig = hosts.rig(&[first.address, second.address]).await;
        let mails = [("a@x.org", false), ("b@x.org", true), ("c@x.org", false), ("d@x.org", true)];
        together(&rig, mails.map(|(to, requires)| mail(to, requires)).into()).await;
        let outcomes = rig.outcomes(4).await;
        let order: Vec<_> = outcomes.iter().map(|(_, to, got)| (&to[..1], &*got.host)).collect();
        let (one, two) = (first.address.to_string(), second.address.to_string());
        assert_eq!(order, [("a", &*one), ("b", &two), ("c", &two), ("d", &two)]);
        rig.drain().await;
        assert_eq!(senders(&first.finish().await[0]), 1);
        assert_eq!(senders(&second.finish().await[0]), 3);
    });
}

#[test]
fn a_connection_that_breaks_takes_nothing_for_another_host_along() {
    run(|| async {
        let hosts = Hosts::new();
        let pipelining = ["> 250-peer", "> 250 PIPELINING"];
        let breaks = ["< MAIL", "< RCPT", "< DATA", "> 250", "> 250", "> 354", ".", "!"];
        let first = hosts.host(&[&[&TO_TLS, &pipelining, &breaks]]);
        let second = hosts.host(&[&[&TO_TLS, &SEES, &TAKES, &BYE]]);
        let rig = hosts.rig(&[first.address, second.address]).await;
        let both = [("a@x.org", false), ("b@x.org", true)];
        together(&rig, both.map(|(to, requires)| mail(to, requires)).into()).await;
        let outcomes = rig.outcomes(2).await;
        let got: Vec<_> = outcomes.iter().map(|(_, to, got)| (&to[..1], got.disposition)).collect();
        assert_eq!(got, [("a", Disposition::Deferred), ("b", Disposition::Delivered)]);
        rig.drain().await;
        first.finish().await;
        second.finish().await;
    });
}

#[test]
fn the_next_host_is_connected_to_when_the_rate_allows() {
    run(|| async {
        let hosts = Hosts::new();
        let first = hosts.host(&[&[&TO_TLS, &BARE, &BYE]]);
        let second = hosts.host(&[&[&TO_TLS, &SEES, &TAKES, &BYE]]);
        let mut config = hosts.config(&[first.address, second.address]);
        config.delivery.connection_rate = Some(Rate { count: 2, per: Per::Second });
        let rig = Rig::new(config).await;
        let began = clock::monotonic();
        rig.envelope(mail("a@x.org", true), TEXT, true).await;
        assert_eq!(rig.outcome().await.disposition, Disposition::Delivered);
        assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
        rig.drain().await;
        first.finish().await;
        second.finish().await;
    });
}

#[test]
fn a_drain_does_not_wait_for_a_host_that_says_nothing() {
    run(|| async {
        let hosts = Hosts::new();
        let first = hosts.host(&[&[&TO_TLS, &BARE, &BYE]]);
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let rig = hosts.rig(&[first.address, silent.local_addr().unwrap()]).await;
        rig.envelope(mail("a@x.org", true), TEXT, true).await;
        first.finish().await;
        rig.drain().await;
        assert!(rig.told.outcomes.borrow().is_empty());
    });
}

#[test]
fn other_mail_does_not_wait_for_a_host_that_is_looked_for() {
    run(|| async {
        let hosts = Hosts::new();
        let first = hosts.host(&[&[&TO_TLS, &BARE, &BYE], &[&TO_TLS, &BARE, &TAKES, &BYE]]);
        let second = silent();
        let mut config = hosts.config(&[first.address, second.local_addr().unwrap()]);
        config.delivery.connections_per_site = 2;
        let rig = Rig::new(config).await;
        rig.envelope(mail("a@x.org", true), TEXT, true).await;
        let held = second.accept().await.unwrap();
        rig.envelope(mail("b@x.org", false), TEXT, true).await;
        let (_, to, got) = rig.outcomes(1).await.remove(0);
        assert_eq!((&*to, got.disposition), ("b@x.org", Disposition::Delivered), "{got:?}");
        assert_eq!(station(&rig).lane.connections(), 2, "the other one is still looked for");
        rig.drain().await;
        first.finish().await;
        drop(held);
    });
}

#[test]
fn however_many_hosts_are_passed_over_the_last_one_is_tried() {
    run(|| async {
        let hosts = Hosts::new();
        let bare: Vec<_> = (0..11).map(|_| hosts.host(&[&[&TO_TLS, &BARE, &BYE]])).collect();
        let last = hosts.host(&[&[&TO_TLS, &SEES, &TAKES, &BYE]]);
        let all: Vec<_> = bare.iter().chain([&last]).map(|host| host.address).collect();
        let rig = hosts.rig(&all).await;
        rig.envelope(mail("a@x.org", true), TEXT, true).await;
        let got = rig.outcome().await;
        assert_eq!(got.disposition, Disposition::Delivered, "{got:?}");
        assert_eq!((got.host, got.attempts), (last.address.to_string(), 1));
        rig.drain().await;
        for host in bare.into_iter().chain([last]) {
            host.finish().await;
        }
    });
}

#[test]
fn a_host_that_turns_us_away_for_ever_is_one_that_is_waited_for() {
    run(|| async {
        let hosts = Hosts::new();
        for (greeting, code) in [
            ("> 554 5.7.1 go away", "451 4.4.1"),
            ("> 554 go away", "451 4.4.1"),
            ("> 450 4.3.2 go away", "451 4.3.2"),
        ] {
            let first = hosts.host(&[&[&TO_TLS, &BARE, &BYE]]);
            let second = Peer::start(vec![vec![greeting]]);
            let rig = hosts.rig(&[first.address, second.address]).await;
            rig.envelope(mail("a@x.org", true), TEXT, true).await;
            let got = rig.outcome().await;
            assert_eq!((got.disposition, got.attempts), (Disposition::Deferred, 1), "{got:?}");
            let (text, one, two) = (got.reply.to_string(), first.address, second.address);
            let start = format!("{code} {two}: go away; {one}: REQUIRETLS: ");
            assert!(text.starts_with(&start), "{text} is not {start}");
            rig.drain().await;
            first.finish().await;
            second.finish().await;
        }
    });
}

#[test]
fn no_host_is_looked_for_in_a_drain() {
    run(|| async {
        let hosts = Hosts::new();
        let first = hosts.host(&[&[&TO_TLS, &BARE, &BYE]]);
        let second = Sink::at("127.0.0.1:0".parse().unwrap());
        let mut config = hosts.config(&[first.address, second.address]);
        config.delivery.connection_rate = Some(Rate { count: 1, per: Per::Second });
        let rig = Rig::new(config).await;
        rig.envelope(mail("a@x.org", true), TEXT, true).await;
        // The second one's time comes later.
        first.finish().await;
        rig.drain().await;
        let station = station(&rig);
        until("it gives up", || station.lane.connections() == 0).await;
        assert_eq!(second.most.get(), 0, "nobody was connected to");
        assert!(rig.told.outcomes.borrow().is_empty());
    });
}

#[test]
fn what_is_on_its_way_to_another_host_goes_home_when_the_site_is_left_alone() {
    run(|| async {
        let hosts = Hosts::new();
        let first = hosts.host(&[&[&TO_TLS, &BARE, &BYE]]);
        let (second, third) = (silent(), Sink::at("127.0.0.1:0".parse().unwrap()));
        let all = [first.address, second.local_addr().unwrap(), third.address];
        let mut config = hosts.config(&all);
        config.delivery.connections_per_site = 9;
        let rig = Rig::new(config).await;
        let id = rig.envelope(mail("a@x.org", true), TEXT, true).await;
        let held = second.accept().await.unwrap();
        let station = station(&rig);
        // As the lane of another shard finds it.
        station.account.with(|governor| {
            let failure = Failure::ours(Reply::new(451, EnhancedCode(4, 4, 2), "broken"));
            let now = clock::monotonic();
            // It has worked, so there is room for some.
            (0..8).for_each(|_| governor.finished(1, now));
            let opened = (0..4).take_while(|_| governor.open(1, now) == Opening::Go).count();
            (0..opened).for_each(|_| governor.connected(1, now));
            let mut failed = (0..opened).map(|_| governor.closed(1, Some(failure.clone()), now));
            assert!(failed.any(|whole| whole), "{opened} were opened");
        });
        assert!(station.account.closed_for(clock::monotonic()).is_some());
        until("it is home", || rig.relay.out() == 0).await;
        assert_eq!(rig.queue.message(id).unwrap().recipients[0].attempts, 0);
        drop(held);
        until("it gives up", || station.lane.connections() == 0).await;
        assert_eq!(third.most.get(), 0, "no further host was connected to");
        rig.drain().await;
        assert!(rig.told.outcomes.borrow().is_empty());
        first.finish().await;
    });
}
