//! Messages that are read from the log while they are sent, to peers that read
//! and to peers that do not.

use async_channel::{Receiver, Sender, bounded, unbounded};

use super::*;
use crate::base::limits::BODY_PART_MAX;
use crate::io::net::{Listener, Stream, listen};
use crate::io::process::raise_open_files;

/// How many deliveries, and how many of their peers read at once, or after all
/// of those.
const PEERS: usize = 1000;
const READ_AT_ONCE: usize = 10;
const READ_LATER: usize = 10;

/// A text whose every part is unlike the others.
fn long_text(bytes: usize) -> String {
    let mut text = String::from("Subject: long\r\n\r\n");
    for number in 0.. {
        if text.len() >= bytes {
            return text;
        }
        text.push_str(&format!("..{number:060}\r\n"));
    }
    unreachable!("it is long enough at some time")
}

/// A listening socket whose connections take little that is not read.
fn narrow() -> Listener {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    socket2::SockRef::from(&listener).set_recv_buffer_size(32 * 1024).unwrap();
    Listener::adopt(listener)
}

/// A peer's end of a connection.
struct End {
    stream: Stream,
    buf: Vec<u8>,
}

impl End {
    async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads up to a line that is `last`; all of it.
    async fn until(&mut self, last: &str) -> String {
        let mut seen = Vec::new();
        while !seen.ends_with(last.as_bytes()) {
            let len = self.stream.read(&mut self.buf).await.unwrap();
            assert!(len > 0, "the client closed: {:?}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&self.buf[..len]);
        }
        String::from_utf8(seen).unwrap()
    }

    /// Goes on up to the 354, which it does not give; the group of commands.
    async fn hello(stream: Stream) -> (Self, String) {
        let mut end = End { stream, buf: vec![0; 64 * 1024] };
        end.say("220 peer\r\n").await;
        end.until("\r\n").await;
        end.say("250-peer\r\n250 PIPELINING\r\n").await;
        let group = end.until("DATA\r\n").await;
        end.say("250 ok\r\n250 ok\r\n").await;
        (end, group)
    }

    /// Reads a body, which must be `expected`, and takes it.
    async fn take(&mut self, expected: &[u8]) {
        let mut rest = expected;
        while !rest.is_empty() {
            let len = self.stream.read(&mut self.buf).await.unwrap();
            assert!(len > 0 && rest.starts_with(&self.buf[..len]), "the body differs");
            rest = &rest[len..];
        }
        self.say("250 2.0.0 taken\r\n").await;
        // QUIT, or the end.
        let _ = self.stream.read(&mut self.buf).await;
    }
}

/// What the peers of a crowd wait for: that its sender is gone.
struct Gates {
    at_once: Receiver<()>,
    later: Receiver<()>,
    never: Receiver<()>,
}

/// Takes connections; each peer behaves as the number in its recipient says, and
/// tells of its 354 if it does not read after that.
async fn crowd(listener: Listener, gates: Gates, body: Rc<Vec<u8>>, told: Sender<()>) {
    let gates = Rc::new(gates);
    for _ in 0..PEERS {
        let (stream, _) = listener.accept().await.unwrap();
        let (gates, body, told) = (Rc::clone(&gates), Rc::clone(&body), told.clone());
        let peer = async move {
            let (mut end, group) = End::hello(stream).await;
            let number = group.split("@d").nth(1).unwrap().split('.').next().unwrap();
            let number: usize = number.parse().unwrap();
            if number < READ_AT_ONCE {
                let _ = gates.at_once.recv().await;
                end.say("354 go\r\n").await;
                return end.take(&body).await;
            }
            end.say("354 go\r\n").await;
            told.send(()).await.unwrap();
            if number < READ_AT_ONCE + READ_LATER {
                let _ = gates.later.recv().await;
                return end.take(&body).await;
            }
            let _ = gates.never.recv().await;
        };
        spawn(peer).detach();
    }
}

/// A site of its own for each peer, all of them at one address.
fn crowded(address: SocketAddr) -> Config {
    let mut config = config(&[address]);
    config.routes = (0..PEERS)
        .map(|number| {
            let other = SocketAddr::from(([127, 0, 0, 1], number as u16 + 1));
            let next_hop = NextHop::Hosts(vec![address.into(), other.into()]);
            Route::new(format!("d{number}.org").parse().unwrap(), next_hop)
        })
        .collect();
    config
}

#[test]
fn a_thousand_deliveries_stay_within_the_budget_and_stalled_peers_hold_nobody_up() {
    raise_open_files().unwrap();
    run(|| async {
        let listener = narrow();
        let config = crowded(listener.local_addr().unwrap());
        let text = long_text(50 << 20);
        let body = Rc::new(format!("Received: here\r\n{text}.\r\n").into_bytes());
        let (told, stalled) = unbounded();
        let (read, at_once) = bounded(1);
        let (go_on, later) = bounded(1);
        let (hang_up, never) = bounded(1);
        let gates = Gates { at_once, later, never };
        let peers = spawn(crowd(listener, gates, Rc::clone(&body), told));

        let rig = Rig::open(config, MemoryStore::untracked()).await;
        let recipients: Vec<_> = (0..PEERS).map(|number| format!("a@d{number}.org")).collect();
        let recipients: Vec<_> = recipients.iter().map(|address| &**address).collect();
        let from_nobody = Envelope { sender: String::new(), ..envelope(&recipients) };
        rig.envelope(from_nobody, &text, false).await;
        let within_budget = || assert!(rig.relay.body_memory() <= BODY_MEMORY_MAX as u64);
        for _ in READ_AT_ONCE..PEERS {
            let told = within(Duration::from_secs(60), stalled.recv()).await;
            told.expect("all peers are served at once").unwrap();
            within_budget();
        }
        drop(read);
        let delivered = |outcomes: &[(QueueId, String, Outcome)]| {
            outcomes.iter().all(|(.., o)| o.disposition == Disposition::Delivered)
        };
        assert!(delivered(&rig.outcomes(READ_AT_ONCE).await));
        within_budget();
        // What was sent before they stalled is not sent again, and nothing is
        // left out.
        drop(go_on);
        assert!(delivered(&rig.outcomes(READ_AT_ONCE + READ_LATER).await));
        within_budget();
        drop(hang_up);
        rig.outcomes(PEERS).await;
        assert_eq!(rig.counters.borrow().bodies_from_log, PEERS as u64);
        let peak = rig.relay.0.memory.peak();
        assert!(peak <= BODY_MEMORY_MAX, "{peak}");
        assert!(peak > BODY_MEMORY_MAX - 2 * BODY_PART_MAX, "there was no want of room: {peak}");
        rig.drain().await;
        peers.await;
    });
}

/// One delivery of a message that no socket takes whole, to a peer that behaves
/// like this after the 354.
async fn deliver<F>(behave: impl FnOnce(End, Receiver<()>) -> F + 'static) -> Outcome
where
    F: Future<Output = ()> + 'static,
{
    let listener = narrow();
    let config = config(&[listener.local_addr().unwrap()]);
    let (done, is_done) = bounded(1);
    let peer = spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut end, _) = End::hello(stream).await;
        end.say("354 go\r\n").await;
        // The body has begun.
        assert!(end.stream.read(&mut end.buf).await.unwrap() > 0);
        behave(end, is_done).await;
    });
    let rig = Rig::open(config, MemoryStore::untracked()).await;
    let from_nobody = Envelope { sender: String::new(), ..envelope(&["a@x.org"]) };
    rig.envelope(from_nobody, &long_text(16 << 20), false).await;
    let outcome = rig.outcome().await;
    drop(done);
    rig.drain().await;
    peer.await;
    outcome
}

#[test]
fn a_refusal_before_the_end_of_the_body_is_heard_and_the_rest_is_not_sent() {
    for (reply, disposition) in
        [("552 5.3.4 too big", Disposition::Failed), ("452 4.3.1 full", Disposition::Deferred)]
    {
        run(move || async move {
            let outcome = deliver(move |mut end, done| async move {
                end.say(&reply[..7]).await;
                end.say(&format!("{}\r\n", &reply[7..])).await;
                // It reads nothing more: the client must look.
                let _ = done.recv().await;
            })
            .await;
            assert_eq!(outcome.disposition, disposition);
            assert_eq!(outcome.reply.to_string(), reply);
        });
    }
}

#[test]
fn a_peer_that_goes_away_within_the_body_is_noticed() {
    run(|| async {
        let outcome = deliver(|end, _| async move { drop(end) }).await;
        assert_eq!(outcome.disposition, Disposition::Deferred);
        assert!(outcome.reply.text.contains("sending the message"), "{}", outcome.reply);
    });
}

#[test]
fn the_report_about_a_long_message_has_its_header() {
    run(|| async {
        let refuses = ["< MAIL", "< RCPT", "< DATA", "> 250", "> 550 5.1.1 who", "> 503 no"];
        let resets =
            ["< RSET", "< MAIL", "< RCPT", "< DATA", "> 250", "> 250", "> 250", "> 354", "."];
        let end = ["> 250 taken", "< QUIT", "> 221"];
        let peer = Peer::start(vec![script(&[&HELLO, &refuses, &resets, &end])]);
        let rig = Rig::new(config(&[peer.address])).await;
        rig.envelope(envelope(&["a@x.org"]), &long_text(1 << 20), false).await;
        rig.outcomes(2).await;
        rig.drain().await;
        let seen = peer.finish().await.remove(0);
        let report = seen.iter().find(|text| text.contains("\r\n\r\n")).unwrap();
        assert!(report.contains("\r\nSubject: long\r\n"), "{report}");
        assert!(!report.contains(&"0".repeat(40)), "no more than the header");
    });
}
