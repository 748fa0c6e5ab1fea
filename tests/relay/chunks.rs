//! Short messages in one chunk (BDAT) to hops that take them so, and to those that only
//! say that they do.

use std::net::TcpListener;

use super::support::hop::{Act, Hop, Moment, Skills, Step, on_one_port};
use super::support::rig::{Rig, dns_with_sender, domain, wait_for};

const CHUNKING: Skills =
    Skills { tls: None, is_implicit: false, is_lmtp: false, offers: &["CHUNKING"], login: None };

fn to_hop(
    address: &str,
    behaviour: impl Fn(&Moment) -> Act + Send + Sync + 'static,
    more: &[&str],
) -> (Rig, Hop) {
    let [listener] = <[TcpListener; 1]>::try_from(on_one_port(&[address])).unwrap();
    let dns = dns_with_sender("127.0.0.1");
    domain(&dns, "x.org", &[(1, "mx.test", &[address])]);
    let port = listener.local_addr().unwrap().port();
    (Rig::start(dns, port, more), Hop::skilled(listener, CHUNKING, behaviour))
}

fn count(hop: &Hop, command: &str) -> usize {
    let starts = |(_, line): &&(usize, String)| line.starts_with(command);
    hop.seen(|seen| seen.commands.iter().filter(starts).count())
}

#[test]
fn the_same_octets_arrive_in_a_chunk_and_by_data() {
    let bodies = [(1, "true"), (2, "false")].map(|(host, chunking)| {
        let chunking = format!("delivery.chunking={chunking}");
        let (rig, hop) = to_hop(&format!("127.16.1.{host}"), |_| Act::Well, &[&chunking]);
        rig.send("one", &["r@x.org"]);
        let body = hop.wait_taken(1).remove(0).text();
        rig.wait_empty();
        let line = rig.server.wait_log(|line| line.contains(" mail: delivered "));
        assert!(line.contains(" tls=none "), "{line}");
        let chunked = if host == 1 { 1 } else { 0 };
        assert_eq!((count(&hop, "BDAT"), count(&hop, "DATA")), (chunked, 1 - chunked));
        assert_eq!(rig.server.metric("ringpost_outbound_chunked_total"), chunked as u64);
        // Without what tells of the place and the time.
        body.split_once("X-Test").map(|(_, rest)| rest.to_owned()).unwrap()
    });
    assert_eq!(bodies[0], bodies[1]);
}

#[test]
fn who_only_says_that_it_takes_chunks_gets_mail_by_data_and_none_is_lost_or_bounced() {
    let liar = |moment: &Moment| match moment.line.starts_with("BDAT") {
        true => Act::Say("502 5.5.1 what is that?"),
        false => Act::Well,
    };
    let (rig, hop) = to_hop("127.16.2.1", liar, &["cores=1"]);
    for name in ["one", "two", "three"] {
        rig.send(name, &["r@x.org"]);
    }
    hop.wait_taken(3);
    rig.wait_empty();
    let mut names = hop.seen(|seen| seen.names());
    names.sort();
    assert_eq!(names, ["one", "three", "two"]);
    let tried = rig.server.metric("ringpost_outbound_chunk_fallbacks_total");
    assert!((1..=3).contains(&tried) && count(&hop, "DATA") == 3, "{tried}");
    for what in ["deferred", "failed"] {
        assert_eq!(rig.server.metric(&format!("ringpost_recipients_{what}_total")), 0);
    }
}

#[test]
fn nobody_to_take_it_costs_the_refused_only() {
    let refuses = |moment: &Moment| match moment.step {
        Step::Rcpt if moment.has("<no") => Act::Say("550 5.1.1 who?"),
        _ => Act::Well,
    };
    let (rig, hop) = to_hop("127.16.3.1", refuses, &[]);
    rig.send("one", &["no@x.org"]);
    rig.send("two", &["no@x.org", "yes@x.org"]);
    rig.send("three", &["yes@x.org"]);
    hop.wait_taken(2);
    let failed = || rig.server.metric("ringpost_recipients_failed_total");
    wait_for("both refusals", || failed() == 2);
    let mut names = hop.seen(|seen| seen.names());
    names.sort();
    assert_eq!(names, ["three", "two"]);
    assert_eq!(rig.server.metric("ringpost_outbound_chunk_fallbacks_total"), 0);
}
