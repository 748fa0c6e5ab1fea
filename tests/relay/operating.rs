//! What operators see of mail on its way, and what they do about it: why a
//! recipient waits, what a site has, trying now, another configuration.

use std::net::TcpListener;

use serde_json::{Value, json};

use super::support::dns::DnsServer;
use super::support::hop::{Hop, on_one_port};
use super::support::peer::Client;
use super::support::process::Server;
use super::support::rig::{Rig, dns_with_sender, domain, fail_all, message, wait_for};

/// What `ringpost queue WORDS --json` prints: one object.
#[track_caller]
fn object(rig: &Rig, words: &str) -> Value {
    serde_json::from_str(&rig.queue(&format!("{words} --json"))).unwrap()
}

/// The only recipient of a message, as `show` tells of it.
#[track_caller]
fn shown(rig: &Rig, id: &str) -> Value {
    object(rig, &format!("show {id}"))["recipients"][0].clone()
}

#[track_caller]
fn has(value: &Value, text: &str) {
    let is = value.as_str().unwrap_or_else(|| panic!("{value} is no text with {text:?}"));
    assert!(is.contains(text), "{text:?} is not in {is:?}");
}

#[test]
fn a_site_that_is_down_tells_why_its_mail_waits_and_is_tried_when_it_is_asked_for() {
    let mut listeners = on_one_port(&["127.15.1.1", "127.15.1.2"]);
    let _home = Hop::start(listeners.pop().unwrap());
    let address = listeners.remove(0).local_addr().unwrap();
    let dns = dns_with_sender("127.15.1.2");
    domain(&dns, "x.org", &[(1, "mx.test", &["127.15.1.1"])]);
    let rig = Rig::start(dns, address.port(), &[r#"queue.retry=["1h"]"#]);
    let mut client = rig.client();
    let tried = client.send("m0", &["r@x.org"]);
    rig.wait_deferred(&tried);
    let waits = client.send("m1", &["r@x.org"]);
    let held = client.send("m2", &["r@x.org"]);
    wait_for("all wait", || rig.queue("list --json --state waiting").lines().count() == 2);
    rig.queue(&format!("hold {held}"));

    let one = shown(&rig, &tried);
    assert_eq!((&one["site"], &one["owner"]), (&json!("mx.test"), &json!(0)), "{one}");
    assert_eq!((&one["attempts"], &one["waiting"]), (&json!(1), &Value::Null));
    has(&one["why"], "retry 1 of 1, then every 1h; the last answer was 4.4.1");
    has(&one["last"]["reply"], "refused");
    let two = shown(&rig, &waits);
    assert_eq!((&two["attempts"], &two["waiting"]), (&json!(0), &json!(true)), "{two}");
    assert_eq!((&two["site"], &two["last"]), (&json!("mx.test"), &Value::Null));
    has(&two["why"], "back-off of the site, which failed: 451 4.4.1 connect to mx.test");
    assert!(two["next_attempt"].is_u64(), "{two}");
    assert_eq!(shown(&rig, &held)["why"], "held by an operator");
    let text = rig.queue(&format!("show {waits}"));
    assert!(text.contains("  site     mx.test\n  owner    shard 0\n"), "{text}");

    let summary = object(&rig, "summary");
    let site = &summary["sites"][0];
    assert_eq!((&site["site"], &site["lanes"]), (&json!("mx.test"), &json!(1)), "{summary}");
    assert!(site["back_off_until"].is_u64() && site["connections_allowed"] == 1, "{summary}");
    has(&site["last_failure"], "refused");
    assert!(rig.server.metric("ringpost_recipients_waiting") >= 1);
    assert_eq!(rig.server.metric("ringpost_sites_backing_off"), 1);
    assert!(rig.server.metric("ringpost_dns_queries_total") > 0);
    for (site, count) in [("mx.test", 3), ("mx", 3), ("mx.other.test", 0)] {
        let listed = rig.queue(&format!("list --json --site {site}"));
        assert_eq!(listed.lines().count(), count, "{site}");
    }

    let hop = Hop::start(TcpListener::bind(address).unwrap());
    // With new rules the site is tried anew: the first may be under way already.
    let due = rig.queue("retry --site mx.test");
    assert!(due.contains("-- due now: "), "{due}");
    hop.wait_taken(2);
    assert_eq!(hop.seen(|seen| seen.names()).len(), 2, "the one that is held stays");
    rig.queue("release --all");
    hop.wait_taken(3);
    rig.wait_empty();
}

#[test]
fn a_rate_tells_when_mail_goes() {
    let mut listeners = on_one_port(&["127.15.2.1"]);
    let port = listeners[0].local_addr().unwrap().port();
    let hop = Hop::start(listeners.pop().unwrap());
    let dns = DnsServer::start();
    domain(&dns, "x.org", &[(1, "mx.test", &["127.15.2.1"])]);
    let rig = Rig::start(dns, port, &[r#"delivery.message_rate="2/h""#]);
    let mut client = rig.client();
    let ids: Vec<_> = (0..8).map(|n| client.send(&format!("m{n}"), &["r@x.org"])).collect();
    hop.wait_taken(1);
    wait_for("waiting", || shown(&rig, &ids[7])["waiting"] == true);
    let last = shown(&rig, &ids[7]);
    has(&last["why"], "message rate of the site, 2/h");
    assert!(last["next_attempt"].is_u64(), "{last}");
    let summary = object(&rig, "summary");
    assert_eq!(summary["sites"][0]["message_rate"], "2/h");
    let text = rig.queue("summary");
    assert!(text.contains("messages limited to 2/h"), "{text}");
    // What is in line already is not called waiting, but has its reason too.
    let words = object(&rig, "summary --sites 0");
    assert_eq!((&words["sites"], &words["sites_rest"]["sites"]), (&json!([]), &json!(1)));
}

#[test]
fn a_reload_takes_other_dns_servers_and_another_port() {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.15.3.1:0").unwrap());
    let ports = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
    let [hop, other] = listeners.map(Hop::start);
    let (broken, good) = (DnsServer::start(), DnsServer::start());
    fail_all(&broken, "x.org");
    domain(&good, "x.org", &[(1, "mx.test", &["127.15.3.1"])]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ringpost.toml");
    let configure = |dns: &DnsServer, port: u16| {
        let text = format!(
            "hostname = \"relay.test\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
             [dns]\nservers = [\"{}\"]\n\
             [delivery]\nport = {port}\nallow_private_targets = true\n\
             [queue]\nretry = [\"200ms\"]\n",
            dns.address
        );
        std::fs::write(&file, text).unwrap();
    };
    configure(&broken, ports[0]);
    let server = Server::configured(Some(&file), &dir.path().join("data"), &[]);
    let mut client = Client::connect(server.smtp).unwrap();
    let mut send = |name: &str| {
        let reply = client.message("", &["r@x.org"], &message(name)).unwrap();
        assert!(reply.starts_with("250"), "{reply}");
    };
    send("one");
    server.wait_log(|line| line.contains("mail: deferred") && line.contains("451 4.4.3"));
    configure(&good, ports[0]);
    server.reload();
    hop.wait_taken(1);
    // The connection of the first message is still open.
    configure(&good, ports[1]);
    server.reload();
    wait_for("reloaded twice", || server.log().matches(": reloaded").count() == 2);
    send("two");
    other.wait_taken(1);
    assert_eq!(other.seen(|seen| seen.names()), ["two"]);
    assert_eq!(hop.seen(|seen| seen.names()), ["one"]);
}
