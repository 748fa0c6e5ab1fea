//! Limits of sites, as the hosts see them. Time is only measured from below:
//! what a rate forbids must not have happened, however slow the machine.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::support::dns::DnsServer;
use super::support::hop::{Act, Hop, Step, on_one_port};
use super::support::rig::{Rig, at, domain, wait_for};

/// Holds back what comes to it until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn pass(&self) {
        let open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(open, |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

/// `x.org` with one host; its listener is the first of those on `hosts`.
fn one_host(address: &str) -> (DnsServer, std::net::TcpListener) {
    let listener = on_one_port(&[address]).remove(0);
    let dns = DnsServer::start();
    domain(&dns, "x.org", &[(1, "mx.test", &[address])]);
    (dns, listener)
}

/// Sends so many messages to `r@x.org`, each over a connection of its own, so
/// that all cores get some.
fn send(rig: &Rig, count: usize) {
    (0..count).for_each(|n| drop(rig.send(&format!("m{n}"), &["r@x.org"])));
}

#[test]
fn connections_are_limited_over_all_cores() {
    for (cores, address) in [("cores=1", "127.12.1.1"), ("cores=2", "127.12.1.2")] {
        let (dns, listener) = one_host(address);
        let (gate, count) = (Gate::default(), AtomicUsize::new(0));
        let held = gate.clone();
        let hop = Hop::with(listener, move |moment| {
            // After some the limit is reached; then connections stay busy.
            if moment.step == Step::Body && count.fetch_add(1, Ordering::SeqCst) >= 4 {
                held.pass();
            }
            Act::Well
        });
        let settings = ["delivery.connections_per_site=3", cores];
        let rig = Rig::start(dns, hop.address.port(), &settings);
        send(&rig, 40);
        hop.wait(|seen| seen.open == 3, |_| ());
        gate.open();
        hop.wait_taken(40);
        rig.wait_empty();
        assert_eq!(hop.seen(|seen| seen.most), 3, "{cores}");
    }
}

#[test]
fn a_connection_carries_no_more_messages_than_it_may() {
    let (dns, listener) = one_host("127.12.2.1");
    let hop = Hop::start(listener);
    let table = r#"site=[{mx="*.test", messages_per_connection=4}]"#;
    let rig = Rig::start(dns, hop.address.port(), &[table]);
    send(&rig, 30);
    let taken = hop.wait_taken(30);
    rig.wait_empty();
    let by_connection = hop.seen(|seen| seen.by_connection());
    assert!(by_connection.iter().all(|&count| count <= 4), "{by_connection:?}");
    assert_eq!(taken.len(), 30);
}

#[test]
fn messages_come_no_faster_than_their_rate_on_all_cores() {
    for (cores, address) in [("cores=1", "127.12.3.1"), ("cores=2", "127.12.3.2")] {
        let (dns, listener) = one_host(address);
        let hop = Hop::start(listener);
        let table = r#"site=[{domain="x.org", message_rate="20/s"}]"#;
        let rig = Rig::start(dns, hop.address.port(), &[table, cores]);
        let begun = Instant::now();
        send(&rig, 42);
        hop.wait_taken(42);
        // Two at once, the others one by one.
        assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
        rig.wait_empty();
    }
}

#[test]
fn connections_are_made_no_faster_than_their_rate() {
    let (dns, listener) = one_host("127.12.4.1");
    let hop = Hop::start(listener);
    let settings = [r#"delivery.connection_rate="5/s""#, "delivery.messages_per_connection=1"];
    let rig = Rig::start(dns, hop.address.port(), &settings);
    let begun = Instant::now();
    send(&rig, 11);
    hop.wait_taken(11);
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    rig.wait_empty();
    assert!(hop.seen(|seen| seen.connected.len()) >= 11);
}

#[test]
fn a_table_for_a_domain_leaves_others_with_its_host_alone() {
    let (dns, listener) = one_host("127.12.5.1");
    domain(&dns, "y.org", &[(1, "mx.test", &["127.12.5.1"])]);
    let hop = Hop::start(listener);
    let table = r#"site=[{domain="x.org", message_rate="1/h"}]"#;
    let rig = Rig::start(dns, hop.address.port(), &[table]);
    send(&rig, 3);
    hop.wait_taken(1);
    let mut client = rig.client();
    (0..5).for_each(|n| drop(client.send(&format!("y{n}"), &["r@y.org"])));
    hop.wait(|seen| seen.names().iter().filter(|name| name.starts_with('y')).count() == 5, |_| ());
    wait_for("two", || rig.server.metric("ringpost_queued_messages") == 2);
    assert_eq!(hop.seen(|seen| seen.names().iter().filter(|n| n.starts_with('m')).count()), 1);
}

#[test]
fn a_reload_changes_the_limits_of_sites_for_mail_that_waits() {
    let (dns, listener) = one_host("127.12.6.1");
    let hop = Hop::start(listener);
    let base = "hostname = \"relay.test\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n";
    let table = |limits: &str| format!("{base}[[site]]\nmx = \"mx.test\"\n{limits}\n");
    let limited = table("message_rate = \"1/h\"\nconnections = 1");
    let rig = Rig::run(Some(&limited), dns, hop.address.port(), &[]);
    send(&rig, 20);
    hop.wait_taken(1);
    wait_for("waiting", || rig.server.metric("ringpost_queued_messages") == 19);
    // Nothing new comes for the site: what waits goes by the new rule.
    rig.rewrite(&table("messages_per_connection = 2\nconnections = 1"));
    hop.wait_taken(20);
    rig.wait_empty();
    let by_connection = hop.seen(|seen| seen.by_connection());
    assert!(by_connection[1..].iter().all(|&count| count <= 2), "{by_connection:?}");
    // The host may see the end of one after the beginning of the next.
    assert!(hop.seen(|seen| seen.most) <= 2);
    // And back.
    rig.rewrite(&table("message_rate = \"1/h\""));
    send(&rig, 5);
    hop.wait_taken(21);
    wait_for("waiting", || rig.server.metric("ringpost_queued_messages") == 4);
    rig.rewrite(base);
    hop.wait_taken(25);
    rig.wait_empty();
}

#[test]
fn a_host_that_says_nothing_keeps_no_other_mail() {
    let listeners = on_one_port(&["127.12.7.1", "127.12.7.2"]);
    let [silent, working] = <[_; 2]>::try_from(listeners).unwrap();
    let dns = DnsServer::start();
    domain(&dns, "x.org", &[(1, "silent.test", &["127.12.7.1"])]);
    domain(&dns, "y.org", &[(1, "working.test", &["127.12.7.2"])]);
    let silent = Hop::with(silent, at(Step::Connect, Act::Silence));
    let working = Hop::start(working);
    let rig = Rig::start(dns, working.address.port(), &[r#"shutdown_grace="500ms""#]);
    send(&rig, 50);
    silent.wait(|seen| seen.open > 0, |_| ());
    let mut client = rig.client();
    (0..50).for_each(|n| drop(client.send(&format!("y{n}"), &["r@y.org"])));
    working.wait_taken(50);
    wait_for("fifty", || rig.server.metric("ringpost_queued_messages") == 50);
    // What the silent one keeps does not keep the server from ending.
    rig.server.terminate();
    assert!(rig.into_server().wait().success());
}
