//! LMTP towards a store, over TCP and over a socket of the machine; and the limits
//! that a server announces.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;

use super::support::dns::DnsServer;
use super::support::hop::{Act, Hop, Moment, Skills, Step, on_one_port};
use super::support::rig::{Rig, at, dns_with_sender, domain, message};

const LMTP: Skills =
    Skills { tls: None, is_implicit: false, is_lmtp: true, offers: &[], login: None };

/// A server whose mail for `x.org` goes to `next_hop`, and other mail to a hop.
fn rig(address: &str, next_hop: &str) -> (Rig, Hop) {
    let [listener] = <[TcpListener; 1]>::try_from(on_one_port(&[address])).unwrap();
    let route = format!(
        "route=[{{domain=\"x.org\",next_hop=\"{next_hop}\"}},{{domain=\"*\",next_hop=\"{}\"}}]",
        listener.local_addr().unwrap()
    );
    (Rig::start(DnsServer::start(), 25, &[&route]), Hop::start(listener))
}

fn store(
    address: &str,
    behaviour: impl Fn(&Moment) -> Act + Send + Sync + 'static,
) -> (Hop, SocketAddr) {
    let [listener] = <[TcpListener; 1]>::try_from(on_one_port(&[address])).unwrap();
    let address = listener.local_addr().unwrap();
    (Hop::skilled(listener, LMTP, behaviour), address)
}

#[test]
fn a_store_answers_for_each_recipient() {
    let behaviour = |moment: &Moment| match moment.step {
        Step::Rcpt if moment.has("<none@") => Act::Say("550 5.1.1 no such user"),
        Step::Body if moment.has("full@") => Act::Say("552 5.2.2 mailbox full"),
        Step::Body if moment.has("busy@") && moment.connection == 0 => Act::Say("451 4.2.1 busy"),
        _ => Act::Well,
    };
    let (store, address) = store("127.15.1.1", behaviour);
    let (rig, home) = rig("127.15.1.2", &format!("lmtp://{address}"));
    let to = ["good", "none", "full", "busy", "fine"].map(|name| format!("{name}@x.org"));
    rig.send("one", &to.each_ref().map(String::as_str));
    for (recipient, kind) in
        to.iter().zip(["delivered", "failed", "failed", "deferred", "delivered"])
    {
        rig.wait_outcome(kind, recipient);
    }
    let report = home.wait_taken(1).remove(0).text();
    for part in ["Status: 5.1.1", "Status: 5.2.2", "mailbox full"] {
        assert!(report.contains(part), "no {part} in {report}");
    }
    for recipient in ["good@", "fine@", "busy@"] {
        assert!(!report.contains(recipient), "{recipient} is in {report}");
    }
    let first = store.seen(|seen| seen.commands[0].1.clone());
    assert_eq!(first, "LHLO relay.test");
}

#[test]
fn replies_that_a_store_leaves_out_or_adds_harm_only_the_recipients_concerned() {
    // It goes away before the second; the others are tried again, the first is not.
    let behaviour = |moment: &Moment| match moment.step {
        Step::Body if moment.has("b@") && moment.connection == 0 => Act::Close,
        _ => Act::Well,
    };
    let (hop, address) = store("127.15.2.1", behaviour);
    let (rig, _home) = rig("127.15.2.2", &format!("lmtp://{address}"));
    rig.send("one", &["a@x.org", "b@x.org", "c@x.org"]);
    super::support::rig::wait_for("delivered", || {
        rig.queue("retry --all");
        hop.seen(|seen| seen.taken.len() >= 3)
    });
    rig.wait_empty();
    let mut got: Vec<_> =
        hop.seen(|seen| seen.taken.iter().flat_map(|taken| taken.recipients.clone()).collect());
    got.sort();
    assert_eq!(got, ["a@x.org", "b@x.org", "c@x.org"], "each once");
    // One reply more than there are recipients.
    let more = at(Step::Body, Act::Say("250 2.1.5 one\r\n550 5.1.1 two"));
    let (_hop, address) = store("127.15.2.3", more);
    let (rig, home) = rig_of("127.15.2.4", &address);
    rig.send("one", &["a@x.org"]);
    rig.wait_outcome("delivered", "a@x.org");
    rig.wait_empty();
    rig.send("two", &["b@x.org"]);
    rig.wait_outcome("delivered", "b@x.org");
    assert_eq!(home.seen(|seen| seen.taken.len()), 0, "no report");
}

fn rig_of(address: &str, store: &SocketAddr) -> (Rig, Hop) {
    rig(address, &format!("lmtp://{store}"))
}

#[test]
fn a_socket_of_the_machine_is_a_next_hop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lmtp");
    let (hop, address) = store("127.15.3.1", |_| Act::Well);
    pass_on(UnixListener::bind(&path).unwrap(), address);
    let (rig, _home) = rig("127.15.3.2", &format!("lmtp+unix://{}", path.display()));
    rig.send("one", &["a@x.org", "b@x.org"]);
    let taken = hop.wait_taken(2);
    assert!(taken.iter().all(|taken| taken.body.ends_with(&message("one"))));
    let line = rig.wait_outcome("delivered", "a@x.org");
    assert!(line.contains(&path.display().to_string()), "{line}");
    rig.wait_empty();
    let missing = dir.path().join("none");
    let (rig, _home) = self::rig("127.15.3.3", &format!("lmtp+unix://{}", missing.display()));
    let id = rig.send("one", &["a@x.org"]);
    let why = rig.wait_deferred(&id);
    assert!(why.contains(&missing.display().to_string()), "{why}");
}

/// Passes what comes over a socket on to `address`.
fn pass_on(listener: UnixListener, address: SocketAddr) {
    std::thread::spawn(move || {
        for near in listener.incoming() {
            let (near, far) = (near.unwrap(), TcpStream::connect(address).unwrap());
            let (mut in_near, mut in_far) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            let (mut out_near, mut out_far) = (near, far);
            std::thread::spawn(move || {
                let _ = io::copy(&mut in_near, &mut out_far);
                let _ = out_far.shutdown(Shutdown::Write);
            });
            std::thread::spawn(move || {
                let _ = io::copy(&mut in_far, &mut out_near);
                let _ = out_near.shutdown(Shutdown::Write);
            });
        }
    });
}

#[test]
fn limits_that_a_server_announces_are_kept() {
    let address = "127.15.4.1";
    let [listener] = <[TcpListener; 1]>::try_from(on_one_port(&[address])).unwrap();
    let port = listener.local_addr().unwrap().port();
    let dns = dns_with_sender("127.0.0.1");
    domain(&dns, "x.org", &[(1, "mx.test", &[address])]);
    let offers = &["LIMITS RCPTMAX=3 MAILMAX=2"];
    let hop = Hop::skilled(listener, Skills { offers, ..Skills::default() }, |_| Act::Well);
    let rig = Rig::start(dns, port, &["delivery.connections_per_site=1"]);
    let to: Vec<String> = (0..5).map(|n| format!("r{n}@x.org")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    rig.send("one", &to);
    let taken = hop.wait_taken(2);
    let sizes: Vec<usize> = taken.iter().map(|taken| taken.recipients.len()).collect();
    assert_eq!(sizes, [3, 2]);
    (0..3).for_each(|n| drop(rig.send(&format!("m{n}"), &["r@x.org"])));
    hop.wait_taken(5);
    rig.wait_empty();
    let most = hop.seen(|seen| seen.by_connection()).into_iter().max();
    assert_eq!(most, Some(2));
    assert_eq!(rig.server.metric("ringpost_recipients_deferred_total"), 0);
}
