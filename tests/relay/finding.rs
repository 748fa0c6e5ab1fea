//! From a domain to a host: what DNS says, and which address takes the mail.

use super::support::dns::{Answer, DnsServer, RecordType};
use super::support::hop::{Act, Hop, Step, on_one_port};
use super::support::rig::{Rig, at, dns_with_sender, domain, fail_all, wait_for};

/// Hops on these hosts that take everything.
fn hops<const N: usize>(hosts: [&str; N]) -> [Hop; N] {
    let listeners = on_one_port(&hosts);
    listeners.into_iter().map(Hop::start).collect::<Vec<_>>().try_into().ok().unwrap()
}

#[test]
fn the_most_preferred_host_gets_all_while_it_takes_it() {
    let [first, second] = hops(["127.11.1.1", "127.11.1.2"]);
    let dns = DnsServer::start();
    domain(&dns, "x.org", &[(20, "b.test", &["127.11.1.2"]), (10, "a.test", &["127.11.1.1"])]);
    let rig = Rig::start(dns, first.address.port(), &[]);
    let mut client = rig.client();
    (0..10).for_each(|n| drop(client.send(&format!("m{n}"), &["r@X.ORG"])));
    first.wait_taken(10);
    rig.wait_empty();
    // It goes, and the second stands in.
    first.stop();
    client.send("later", &["r@x.org"]);
    assert_eq!(second.wait_taken(1)[0].name(), "later");
    let line = rig.wait_outcome("delivered", "r@X.ORG");
    assert!(line.contains("a.test[127.11.1.1]:"), "{line}");
    rig.wait_empty();
    // More than once only if an answer was late.
    let asked = rig.dns.asked("x.org", RecordType::MX);
    assert!(asked < 5, "{asked}");
    assert_eq!(second.seen(|seen| seen.taken.len()), 1);
}

#[test]
fn the_next_host_is_taken_when_one_is_of_no_use() {
    let hosts = ["127.11.2.1", "127.11.2.2", "127.11.2.3", "127.11.2.4", "127.11.2.5"];
    let mut listeners = on_one_port(&hosts).into_iter();
    let acts = [
        Act::Last("421 4.3.2 closing"),
        Act::Say("450 4.7.0 not now"),
        Act::Say("554 5.7.1 not you"),
        Act::Close,
    ];
    let useless: Vec<Hop> = acts
        .into_iter()
        .map(|act| Hop::with(listeners.next().unwrap(), at(Step::Connect, act)))
        .collect();
    let last = Hop::start(listeners.next().unwrap());
    let dns = DnsServer::start();
    domain(
        &dns,
        "x.org",
        &[
            // Nobody listens there.
            (1, "a.test", &["127.11.2.9"]),
            (2, "b.test", &[hosts[0]]),
            // Two hosts of one preference, and one of two addresses.
            (3, "c.test", &[hosts[1]]),
            (3, "d.test", &[hosts[2], hosts[3]]),
            (4, "e.test", &[hosts[4]]),
        ],
    );
    let rig = Rig::start(dns, last.address.port(), &[]);
    rig.send("one", &["r@x.org"]);
    last.wait_taken(1);
    rig.wait_empty();
    for hop in &useless {
        assert_eq!(hop.seen(|seen| seen.connected.len()), 1, "{}", hop.address);
        assert_eq!(hop.seen(|seen| seen.taken.len()), 0);
    }
    assert_eq!(rig.server.metric("ringpost_recipients_deferred_total"), 0);
}

#[test]
fn equal_hosts_share_the_connections() {
    let hops = hops(["127.11.3.1", "127.11.3.2", "127.11.3.3"]);
    let dns = DnsServer::start();
    domain(
        &dns,
        "x.org",
        &[
            (10, "a.test", &["127.11.3.1"]),
            (10, "b.test", &["127.11.3.2"]),
            (10, "c.test", &["127.11.3.3"]),
        ],
    );
    let port = hops[0].address.port();
    let rig = Rig::start(dns, port, &["delivery.messages_per_connection=1"]);
    let mut client = rig.client();
    // That one of three is never taken in 60 times does not happen.
    (0..60).for_each(|n| drop(client.send(&format!("m{n}"), &["r@x.org"])));
    wait_for("all", || hops.iter().map(|hop| hop.seen(|s| s.taken.len())).sum::<usize>() == 60);
    for hop in &hops {
        hop.wait(|seen| !seen.taken.is_empty(), |_| ());
    }
    rig.wait_empty();
}

#[test]
fn both_families_are_tried() {
    let Ok(v6) = std::net::TcpListener::bind("[::1]:0") else {
        eprintln!("there is no IPv6 here: the test did not run");
        return;
    };
    let port = v6.local_addr().unwrap().port();
    let dns = DnsServer::start();
    domain(&dns, "x.org", &[(1, "both.test", &["127.11.4.1", "127.11.4.2", "::1"])]);
    domain(&dns, "y.org", &[(1, "six.test", &["::1"])]);
    let rig = Rig::start(dns, port, &[]);
    let six = Hop::start(v6);
    rig.send("to six", &["r@y.org"]);
    six.wait_taken(1);
    // Nobody is at either address of the other family.
    rig.send("to both", &["r@x.org"]);
    six.wait_taken(2);
    rig.wait_empty();
    assert_eq!(rig.server.metric("ringpost_recipients_deferred_total"), 0);
    six.stop();
    let four = Hop::start(std::net::TcpListener::bind(("127.11.4.2", port)).unwrap());
    rig.send("to four", &["r@x.org"]);
    four.wait_taken(1);
    rig.wait_empty();
}

#[test]
fn names_lead_on_and_long_answers_come_over_tcp() {
    let [hop] = hops(["127.11.5.1"]);
    let dns = DnsServer::start();
    dns.set("alias.test", RecordType::MX, Answer::cname("real.test"));
    dns.set_mx("real.test", &[(5, "alias-host.test")]);
    dns.set("alias-host.test", RecordType::CNAME, Answer::cname("host.test"));
    dns.set_addresses("host.test", &["127.11.5.1"]);
    // Hundreds of exchangers, of which nobody but the first is there.
    let others: Vec<String> = (0..400).map(|n| format!("host-{n}.gone.test")).collect();
    let mut many: Vec<(u16, &str)> = others.iter().map(|name| (100, &**name)).collect();
    many.push((1, "host.test"));
    dns.set_mx("many.test", &many);
    dns.set("cut.test", RecordType::MX, Answer::mx(&[(1, "host.test")]).truncated());
    let rig = Rig::start(dns, hop.address.port(), &[]);
    for (count, name) in (1..).zip(["alias.test", "many.test", "cut.test"]) {
        rig.send(name, &[&format!("r@{name}")]);
        let taken = hop.wait_taken(count);
        assert_eq!(taken[count - 1].recipients, [format!("r@{name}")]);
    }
    assert!(rig.dns.over_tcp() >= 2);
    rig.wait_empty();
}

#[test]
fn without_exchangers_the_domain_itself_is_asked_and_literals_need_no_dns() {
    let [hop] = hops(["127.11.6.1"]);
    let dns = DnsServer::start();
    dns.set_addresses("plain.test", &["127.11.6.1"]);
    let rig = Rig::start(dns, hop.address.port(), &[]);
    rig.send("implicit", &["r@plain.test"]);
    hop.wait_taken(1);
    let before = rig.dns.total();
    // One message needs one connection.
    rig.wait_empty();
    assert_eq!(hop.seen(|seen| seen.connected.len()), 1);
    rig.send("literal", &["r@[127.11.6.1]"]);
    assert_eq!(hop.wait_taken(2)[1].recipients, ["r@[127.11.6.1]"]);
    assert_eq!(rig.dns.total(), before);
    rig.wait_empty();
}

#[test]
fn what_dns_is_certain_of_is_reported() {
    let [hop] = hops(["127.11.7.1"]);
    let dns = dns_with_sender("127.11.7.1");
    dns.set_mx("null.test", &[(0, ".")]);
    dns.set_mx("lost.test", &[(1, "nobody.test"), (2, "nothing.test")]);
    dns.set("nothing.test", RecordType::A, Answer::no_data());
    dns.set_mx("me.test", &[(10, "relay.test"), (20, "127-11-7-1.test")]);
    domain(&dns, "literal.test", &[(1, "192.0.2.1", &[])]);
    let rig = Rig::start(dns, hop.address.port(), &[]);
    let cases = [
        ("r@null.test", "5.1.10"),
        ("r@nowhere.test", "5.1.2"),
        ("r@lost.test", "5.4.4"),
        ("r@me.test", "5.4.6"),
        ("r@literal.test", "5.4.4"),
        ("r@[224.0.0.1]", "5.4.4"),
    ];
    for (count, (to, code)) in (1..).zip(cases) {
        rig.send("lost", &[to]);
        let report = hop.wait_taken(count).remove(count - 1);
        assert_eq!((&*report.sender, &*report.recipients), ("", &["s@sender.test".to_owned()][..]));
        let text = report.text();
        assert!(text.contains(&format!("Status: {code}\r\n")), "{to}: {text}");
        assert!(text.contains(&format!("Final-Recipient: rfc822; {to}")), "{to}: {text}");
    }
    rig.wait_empty();
    assert_eq!(rig.server.metric("ringpost_outbound_connect_failures_total"), 0);
}

#[test]
fn a_message_is_delivered_when_dns_works_again() {
    let [hop] = hops(["127.11.8.1"]);
    let dns = DnsServer::start();
    fail_all(&dns, "x.org");
    dns.set("y.org", RecordType::MX, Answer::silence());
    domain(&dns, "z.org", &[(1, "z-host.test", &[])]);
    fail_all(&dns, "z-host.test");
    // Nothing is remembered of failures for longer than attempts are apart.
    let rig = Rig::start(dns, hop.address.port(), &[r#"dns.timeout="300ms""#]);
    for domain in ["x.org", "y.org", "z.org"] {
        let id = rig.send(domain, &[&format!("r@{domain}")]);
        let why = rig.wait_deferred(&id);
        assert!(why.contains("4.4.3"), "{domain}: {why}");
    }
    assert_eq!(rig.server.metric("ringpost_recipients_failed_total"), 0);
    domain(&rig.dns, "x.org", &[(1, "host.test", &["127.11.8.1"])]);
    rig.dns.set_mx("y.org", &[(1, "host.test")]);
    rig.dns.set_addresses("z-host.test", &["127.11.8.1"]);
    // Those that failed in their hosts' addresses have their sites backed off.
    wait_for("all", || {
        rig.queue("retry --all");
        hop.seen(|seen| seen.taken.len()) >= 3
    });
    rig.wait_empty();
    let mut names = hop.seen(|seen| seen.names());
    names.sort();
    assert_eq!(names, ["x.org", "y.org", "z.org"]);
}

#[test]
fn private_space_is_not_sent_to_unless_allowed() {
    let [hop] = hops(["127.11.9.1"]);
    let dns = DnsServer::start();
    domain(&dns, "x.org", &[(1, "inside.test", &["127.11.9.1", "10.0.0.1", "::1"])]);
    let route = format!(r#"route=[{{domain="sender.test", next_hop="{}"}}]"#, hop.address);
    let settings = [&*route, "delivery.allow_private_targets=false"];
    let rig = Rig::start(dns, hop.address.port(), &settings);
    for (count, to) in (1..).zip(["r@x.org", "r@[127.11.9.1]", "r@[IPv6:::1]"]) {
        rig.send("inside", &[to]);
        // The route names its host, which makes it allowed.
        let report = hop.wait_taken(count).remove(count - 1).text();
        assert!(report.contains("Status: 5.4.4\r\n"), "{to}: {report}");
    }
    rig.wait_empty();
}

#[test]
fn a_host_that_is_this_server_is_noticed() {
    let [hop] = hops(["127.11.10.1"]);
    // The server listens where the domain's host is; hop has the same port.
    let listen =
        format!(r#"listener=[{{address="127.11.10.2:{}", kind="relay"}}]"#, hop.address.port());
    let dns = dns_with_sender("127.11.10.1");
    domain(&dns, "x.org", &[(1, "other-name.test", &["127.11.10.2"])]);
    let rig = Rig::start(dns, hop.address.port(), &[&listen]);
    rig.send("loop", &["r@x.org"]);
    let report = hop.wait_taken(1).remove(0).text();
    assert!(report.contains("Status: 5.4.6\r\n"), "{report}");
    rig.wait_empty();
}

#[test]
fn domains_with_the_same_hosts_share_a_connection() {
    let [hop] = hops(["127.11.11.1"]);
    let dns = DnsServer::start();
    domain(&dns, "a.org", &[(5, "mx.test", &["127.11.11.1"])]);
    domain(&dns, "b.org", &[(50, "MX.test", &["127.11.11.1"])]);
    // One connection, which both have to share.
    let rig = Rig::start(dns, hop.address.port(), &["delivery.connections_per_site=1"]);
    let mut client = rig.client();
    client.send("both", &["r@a.org", "r@b.org"]);
    let taken = hop.wait_taken(1);
    assert_eq!(taken[0].recipients, ["r@a.org", "r@b.org"], "one transaction");
    client.send("a", &["r@a.org"]);
    hop.wait_taken(2);
    client.send("b", &["r@b.org"]);
    let taken = hop.wait_taken(3);
    assert!(taken.iter().all(|message| message.connection == 0));
    rig.wait_empty();
    assert_eq!(hop.seen(|seen| seen.connected.len()), 1);
}
