//! Mail that waits: for a site that is down, for a restart, for an operator, and
//! too long.

use super::support::hop::{Hop, on_one_port};
use super::support::rig::{Rig, dns_with_sender, domain, wait_for};

/// A server with `x.org` at an address where nobody listens yet, and senders at
/// one that takes everything; and that address with its port.
fn down(addresses: [&str; 2], more: &[&str]) -> (Rig, std::net::SocketAddr, Hop) {
    let mut listeners = on_one_port(&addresses);
    let home = Hop::start(listeners.pop().unwrap());
    let address = listeners.remove(0).local_addr().unwrap();
    let dns = dns_with_sender(addresses[1]);
    domain(&dns, "x.org", &[(1, "mx.test", &addresses[..1])]);
    (Rig::start(dns, address.port(), more), address, home)
}

fn up(address: std::net::SocketAddr) -> Hop {
    Hop::start(std::net::TcpListener::bind(address).unwrap())
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("m{n:03}")).collect()
}

/// Sends messages by these names; the first is deferred before the others come,
/// so that these find the site being left alone.
fn send(rig: &Rig, names: &[String]) -> Vec<String> {
    let mut client = rig.client();
    let first = client.send(&names[0], &["r@x.org"]);
    rig.wait_deferred(&first);
    let others = names[1..].iter().map(|name| client.send(name, &["r@x.org"]));
    std::iter::once(first).chain(others).collect()
}

/// What was taken, in order, but for the first message that was sent.
fn in_turn(hop: &Hop) -> Vec<String> {
    let mut names = hop.seen(|seen| seen.names());
    names.retain(|name| name != "m000");
    names
}

const ONE_AT_A_TIME: [&str; 2] = [r#"queue.retry=["1h"]"#, "delivery.connections_per_site=1"];

#[test]
fn a_site_that_comes_back_gets_its_mail_in_order_of_age_when_an_operator_says_so() {
    let (rig, address, _home) = down(["127.14.1.1", "127.14.1.2"], &ONE_AT_A_TIME);
    let names = names(40);
    send(&rig, &names);
    assert_eq!(rig.server.metric("ringpost_attempts_total"), 0);
    let tried = rig.server.metric("ringpost_outbound_connect_failures_total");
    assert_eq!(tried, 1, "the others wait without being tried");
    let hop = up(address);
    rig.queue("retry --all");
    hop.wait_taken(40);
    // The one that was tried comes by the schedule, the others from where they
    // wait.
    assert_eq!(in_turn(&hop), names[1..]);
    rig.wait_empty();
}

#[test]
fn a_site_that_comes_back_is_found_by_its_probe() {
    let (rig, address, _home) = down(["127.14.2.1", "127.14.2.2"], &ONE_AT_A_TIME);
    let names = names(20);
    let ids = send(&rig, &names);
    let hop = up(address);
    // The one that was tried waits by the schedule, the others for the site.
    hop.wait_taken(19);
    assert_eq!(hop.seen(|seen| seen.names()), names[1..]);
    wait_for("one", || rig.server.metric("ringpost_queued_messages") == 1);
    rig.queue(&format!("retry {}", ids[0]));
    hop.wait_taken(20);
    rig.wait_empty();
}

#[test]
fn mail_that_waits_survives_a_kill_and_goes_in_order() {
    let (rig, address, _home) = down(["127.14.3.1", "127.14.3.2"], &ONE_AT_A_TIME);
    let names = names(30);
    send(&rig, &names);
    let rig = rig.restart();
    wait_for("all", || rig.server.metric("ringpost_queued_messages") == 30);
    let rig = rig.restart();
    let hop = up(address);
    wait_for("all", || {
        rig.queue("retry --all");
        hop.seen(|seen| seen.taken.len()) >= 30
    });
    let mut got = hop.seen(|seen| seen.names());
    got.sort();
    assert_eq!(got, names, "each once");
    rig.wait_empty();
}

#[test]
fn what_waits_can_be_held_released_and_dropped() {
    let (rig, address, _home) = down(["127.14.4.1", "127.14.4.2"], &ONE_AT_A_TIME);
    let names = names(10);
    let ids = send(&rig, &names);
    rig.queue(&format!("hold {}", ids[3]));
    rig.queue(&format!("drop {}", ids[4]));
    let hop = up(address);
    rig.queue("retry --all");
    hop.wait_taken(8);
    wait_for("one", || rig.server.metric("ringpost_queued_messages") == 1);
    rig.queue(&format!("release {}", ids[3]));
    hop.wait_taken(9);
    rig.wait_empty();
    let mut expected = names;
    expected.remove(4);
    let held = expected.remove(3);
    expected.push(held);
    assert_eq!(in_turn(&hop), expected[1..]);
}

#[test]
fn mail_that_waits_too_long_is_given_back() {
    let more = [r#"queue.expire="1500ms""#, ONE_AT_A_TIME[0], ONE_AT_A_TIME[1]];
    let (rig, _address, home) = down(["127.14.5.1", "127.14.5.2"], &more);
    send(&rig, &names(6));
    let reports = home.wait_taken(6);
    rig.wait_empty();
    for report in &reports {
        let text = report.text();
        assert!(text.contains("Action: failed\r\n"), "{text}");
        // The site's trouble is what they are told, tried or not.
        assert!(text.contains("refused"), "{text}");
    }
    let mut subjects: Vec<_> = reports
        .iter()
        .map(|report| {
            let text = report.text();
            text.lines().find_map(|line| line.strip_prefix("X-Test: ")).map(str::to_owned)
        })
        .collect();
    subjects.sort();
    assert_eq!(subjects, names(6).into_iter().map(Some).collect::<Vec<_>>());
}

#[test]
fn a_stop_leaves_what_waits_and_a_start_delivers_it() {
    let more = [r#"site=[{domain="x.org", message_rate="1/h"}]"#];
    let (rig, address, _home) = down(["127.14.6.1", "127.14.6.2"], &more);
    let hop = up(address);
    let mut client = rig.client();
    names(20).iter().for_each(|name| drop(client.send(name, &["r@x.org"])));
    hop.wait_taken(1);
    wait_for("nineteen", || rig.server.metric("ringpost_queued_messages") == 19);
    let rig = rig.stop_and_start(&["delivery.connections_per_site=1"]);
    hop.wait_taken(20);
    rig.wait_empty();
    // Which one went first is a matter of whose look-up was told first.
    let mut seen = hop.seen(|seen| seen.names());
    seen.sort();
    assert_eq!(seen, names(20));
}
