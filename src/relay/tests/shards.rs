//! Several shards, drains, and logs that fail.

use super::*;

const TEXT: &str = "Subject: x\r\n\r\nhello\r\n";

/// `count` shards that have one lane together, on the first or any other.
pub(super) async fn shards(count: u16, address: SocketAddr) -> Vec<Rig> {
    shards_with(count, config(&[address])).await
}

async fn shards_with(count: u16, config: Config) -> Vec<Rig> {
    let stores: Vec<_> = (0..count).map(|_| MemoryStore::new()).collect();
    let net = Rc::new(Net::default());
    let mut rigs = Vec::new();
    for me in 0..count {
        let rig = Rig::shard(config.clone(), stores.clone(), me, Rc::clone(&net)).await;
        net.relays.borrow_mut().push(Some(rig.relay.clone()));
        rigs.push(rig);
    }
    rigs.iter().for_each(|rig| rig.relay.start());
    rigs
}

#[test]
fn handles_cross_to_the_lane_and_outcomes_come_home() {
    run(|| async {
        let peer = Peer::start(vec![script(&[
            &HELLO,
            &takes_one(),
            &takes_one(),
            &takes_one(),
            &["< QUIT", "> 221"],
        ])]);
        let rigs = shards(3, peer.address).await;
        for rig in &rigs {
            // Not in memory: the lane reads another shard's log.
            rig.envelope(envelope(&["a@x.org"]), TEXT, false).await;
            assert_eq!(rig.outcome().await.disposition, Disposition::Delivered);
            assert_eq!(rig.queue.live(), 0);
        }
        let opened = rigs.iter().map(|rig| rig.counters.borrow().outbound_connections);
        assert_eq!(opened.sum::<u64>(), 1, "the limit holds for all shards together");
        let crossed = rigs.iter().map(|rig| rig.counters.borrow().handed_off);
        assert_eq!(crossed.sum::<u64>(), 2);
        for rig in &rigs {
            rig.drain().await;
        }
        let seen = peer.finish().await.remove(0);
        assert!(seen[4].ends_with("hello\r\n.\r\n"));
    });
}

#[test]
fn a_lane_that_is_told_to_make_way_does() {
    run(|| async {
        let peer = Sink::at("127.0.0.1:0".parse().unwrap());
        let mut config = config(&[peer.address]);
        config.delivery.connections_per_site = 2;
        config.delivery.messages_per_connection = 1_000_000;
        let rigs = shards_with(2, config).await;
        let many = 3000;
        for n in 0..many {
            rigs[0].mail(&[&format!("r{n}@x.org")], TEXT).await;
        }
        let all_taken = async {
            while peer.connections.get() < 2 {
                crate::io::executor::yield_now().await;
            }
        };
        within(Duration::from_secs(20), all_taken).await.expect("one lane has both connections");
        rigs[1].mail(&["a@x.org"], TEXT).await;
        rigs[1].outcome().await;
        let before = rigs[0].told.outcomes.borrow().len();
        assert!(before < many, "the other lane had nothing left");
        rigs[0].outcomes(many).await;
        for rig in &rigs {
            rig.drain().await;
        }
    });
}

#[test]
fn a_message_that_came_whole_and_was_stored_in_parts_is_read_by_other_shards() {
    run(|| async {
        let takes = takes_one();
        let peer = Peer::start(vec![script(&[&HELLO, &takes, &takes, &["< QUIT", "> 221"]])]);
        let rigs = shards(2, peer.address).await;
        let text = format!("Subject: x\r\n\r\n{}.\r\n", "hello\r\n".repeat(40_000));
        for rig in &rigs {
            let envelope = envelope(&["a@x.org"]);
            let (id, commit) = rig.queue.append(&envelope, |_, _| {}, &[text.as_bytes()]).unwrap();
            commit.await.unwrap();
            assert!(rig.queue.location(id).unwrap().commit.is_some());
            // As receive does for what it had in memory.
            rig.relay.accepted(id, envelope, (b"", None), None, text.len() as u64);
            let outcome = rig.outcome().await;
            assert_eq!(outcome.disposition, Disposition::Delivered, "{outcome:?}");
        }
        for rig in &rigs {
            rig.drain().await;
        }
        peer.finish().await;
    });
}

#[test]
fn a_drain_finishes_what_is_under_way_and_returns_the_rest() {
    run(|| async {
        let peer = Peer::start(vec![script(&[
            &HELLO,
            &["< MAIL", "< RCPT", "< DATA", "> 250", "> 250", "> 354", ".", "> 250 ok"],
            &["< QUIT", "> 221"],
        ])]);
        let rig = Rig::new(config(&[peer.address])).await;
        // The lane has one connection, which is being made: both wait.
        let first = rig.mail(&["a@x.org"], TEXT).await;
        rig.outcome().await;
        rig.drain().await;
        let second = rig.mail(&["b@x.org"], TEXT).await;
        assert!(rig.queue.message(first).is_none());
        let waiting = rig.queue.message(second).unwrap().recipients;
        assert!(!waiting[0].out, "it waits in the log for the next start");
        peer.finish().await;
    });
}

#[test]
fn deliveries_stop_when_outcomes_cannot_be_recorded() {
    run(|| async {
        let peer = Peer::start(vec![script(&[&HELLO, &takes_one(), &["< QUIT", "> 221"]])]);
        let rig = Rig::new(config(&[peer.address])).await;
        let id = rig.mail(&["a@x.org"], TEXT).await;
        let (next, _) = {
            let envelope = envelope(&["b@x.org"]);
            let body: &[&[u8]] = &[b"Subject: x\r\n\r\n.\r\n"];
            rig.queue.append(&envelope, |_, _| {}, body).unwrap()
        };
        let next_operation = rig.store.operations().len();
        rig.store.fail_at(next_operation);
        let poisoned = async {
            while rig.queue.poisoned().is_none() {
                crate::io::executor::yield_now().await;
            }
        };
        within(Duration::from_secs(20), poisoned).await.expect("the log fails");
        let halted = async {
            while !rig.relay.0.is_halted(ShardId(0)) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        within(Duration::from_secs(20), halted).await.expect("the relay stops");
        rig.queue.put_back(next, &[0], UnixMillis(0));
        rig.relay.0.give_out_due().await;
        assert_eq!(rig.relay.out(), 0);
        assert!(rig.told.outcomes.borrow().iter().all(|(of, ..)| *of != id || of != &next));
        rig.drain().await;
        peer.finish().await;
    });
}

#[test]
fn a_drain_waits_for_what_is_being_read() {
    run(|| async {
        let rig = Rig::new(config(&[nobody()])).await;
        let body: &[&[u8]] = &[b"Subject: x\r\n\r\n.\r\n"];
        let (id, commit) = rig.queue.append(&envelope(&["a@x.org"]), |_, _| {}, body).unwrap();
        commit.await.unwrap();
        rig.queue.put_back(id, &[0], UnixMillis(0));
        let begun = async {
            while rig.counters.borrow().wakeups == 0 {
                crate::io::executor::yield_now().await;
            }
        };
        within(Duration::from_secs(20), begun).await.expect("it is due");
        rig.drain().await;
        let left = rig.queue.message(id).unwrap().recipients;
        assert!(!left[0].out, "{left:?}");
    });
}

#[test]
fn what_is_cut_waits_in_the_log_untouched() {
    run(|| async {
        let peer = Peer::start(vec![script(&[&HELLO, &["< MAIL", "< RCPT", "< DATA"]])]);
        let rig = Rig::new(config(&[peer.address])).await;
        let id = rig.mail(&["a@x.org"], TEXT).await;
        let begun = async {
            while rig.counters.borrow().attempts == 0 {
                crate::io::executor::yield_now().await;
            }
        };
        within(Duration::from_secs(20), begun).await.expect("the attempt begins");
        assert!(within(Duration::from_millis(1), rig.relay.drain()).await.is_none());
        rig.relay.cut();
        rig.drain().await;
        let left = rig.queue.message(id).unwrap().recipients;
        assert_eq!((left[0].out, left[0].attempts), (false, 0));
        assert!(rig.told.outcomes.borrow().is_empty());
        peer.finish().await;
    });
}
