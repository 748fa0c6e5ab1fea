//! kill -9 under load: what got 250 is at the next hop after a restart.

mod support;

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::peer::{Client, NextHop};
use support::process::Server;

const CLIENTS: usize = 4;
const ROUNDS: usize = 4;
/// Acknowledgements in a round before the server is killed.
const BEFORE_KILL: usize = 60;

fn message(name: &str) -> Vec<u8> {
    let mut message = format!("Subject: crash\r\nX-Test: {name}\r\n\r\n").into_bytes();
    for line in 0..40 {
        message.extend_from_slice(format!("..line {line} of {name}\r\n").as_bytes());
    }
    message
}

/// Sends until the server goes away; what was acknowledged goes to `sent`.
fn send_until_lost(
    server: std::net::SocketAddr,
    name: &str,
    sent: &Mutex<HashSet<String>>,
    count: &AtomicUsize,
) {
    let Ok(mut client) = Client::connect(server) else { return };
    for number in 0.. {
        let key = format!("{name}-{number}");
        match client.message("a@client.test", &["b@hop.test"], &message(&key)) {
            Ok(reply) if reply.starts_with("250") => {
                sent.lock().unwrap().insert(key);
                count.fetch_add(1, Ordering::SeqCst);
            }
            Ok(reply) => panic!("unexpected reply {reply}"),
            Err(_) => return,
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let hop = NextHop::start();
    let route = format!(r#"route=[{{domain="*", next_hop=["{}"]}}]"#, hop.address);
    let sent = Mutex::new(HashSet::new());
    for round in 0..ROUNDS {
        let server = Server::start(dir.path(), &[&route]);
        let (address, count) = (server.smtp, AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (sent, count) = (&sent, &count);
                scope.spawn(move || {
                    send_until_lost(address, &format!("{round}-{client}"), sent, count);
                });
            }
            while count.load(Ordering::SeqCst) < BEFORE_KILL {
                std::thread::yield_now();
            }
            server.kill();
        });
    }
    let sent = sent.into_inner().unwrap();
    assert!(sent.len() >= ROUNDS * BEFORE_KILL);
    let server = Server::start(dir.path(), &[&route]);
    let got = hop.wait(|got| {
        let keys: HashSet<_> =
            got.iter().filter_map(|got| support::peer::header(&got.body, "X-Test")).collect();
        sent.is_subset(&keys)
    });
    for got in &got {
        let key = support::peer::header(&got.body, "X-Test").expect("every message is one of ours");
        let body = message(&key);
        assert!(got.body.ends_with(&body), "damaged: {key}");
        assert_eq!(got.recipients, ["b@hop.test"]);
    }
    server.terminate();
    assert!(server.wait().success());
}
