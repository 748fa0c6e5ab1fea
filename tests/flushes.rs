//! Acknowledgements against flushes, on a whole server and a real disk: what is
//! answered 250 is explained by flushes that it counts. No outcome needs a flush
//! here, because the next hop takes connections and says nothing.

mod support;

use std::net::TcpListener;

use support::peer::Client;
use support::process::Server;

/// A server whose mail waits for a greeting that never comes. Its next hop's
/// socket is to be kept.
fn start(data: &std::path::Path) -> (Server, TcpListener) {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let hop = silent.local_addr().unwrap();
    let route = format!(r#"route=[{{domain="*", next_hop=["{hop}"]}}]"#);
    (Server::start(data, &[&route]), silent)
}

fn flushes(server: &Server) -> u64 {
    server.metric("ringpost_flushes_total")
}

fn send(client: &mut Client, size: usize) {
    let body = [&b"Subject: x\r\n\r\n"[..], &b"0123456789abcde\r\n".repeat(size / 17)].concat();
    let reply = client.message("a@x.test", &["b@y.test"], &body).unwrap();
    assert!(reply.starts_with("250"), "{reply}");
}

#[test]
fn each_lone_message_has_a_flush_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (server, _silent) = start(dir.path());
    let mut client = Client::connect(server.smtp).unwrap();
    let before = flushes(&server);
    for sent in 1..=20 {
        send(&mut client, 4000);
        assert_eq!(flushes(&server) - before, sent, "flushes when {sent} are acknowledged");
    }
    // One that takes several records, written as they come.
    send(&mut client, 3 << 20);
    assert!(flushes(&server) - before > 20);
}

#[test]
fn messages_that_come_together_share_flushes_and_none_goes_without() {
    const SENDERS: u64 = 16;
    const EACH: u64 = 25;
    let dir = tempfile::tempdir().unwrap();
    let (server, _silent) = start(dir.path());
    let smtp = server.smtp;
    let mut last = flushes(&server);
    let first = last;
    // A round after the other: all of a round are acknowledged when it ends.
    for round in 1..=EACH {
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| std::thread::spawn(move || send(&mut Client::connect(smtp).unwrap(), 4000)))
            .collect();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        let now = flushes(&server);
        assert!((1..=SENDERS).contains(&(now - last)), "round {round}: {} flushes", now - last);
        last = now;
    }
    assert_eq!(server.metric("ringpost_messages_accepted_total"), SENDERS * EACH);
    assert!(last - first <= SENDERS * EACH);
    assert_eq!(server.metric("ringpost_flush_failures_total"), 0);
}
