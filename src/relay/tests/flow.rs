//! Mail that gets through.

use super::*;

const TEXT: &str = "Subject: x\r\n\r\n..stuffed\r\n";
const STORED: &str = "Received: here\r\nSubject: x\r\n\r\n..stuffed\r\n.\r\n";

#[test]
fn one_connection_delivers_message_after_message() {
    run(|| async {
        let peer = Peer::start(vec![script(&[
            &HELLO,
            &takes_one(),
            &takes_one(),
            &["< QUIT", "> 221 bye"],
        ])]);
        let rig = Rig::new(config(&[peer.address])).await;
        let first = rig.mail(&["a@x.org"], TEXT).await;
        let one = rig.outcome().await;
        assert_eq!(one.disposition, Disposition::Delivered);
        assert_eq!(one.reply.to_string(), "250 2.0.0 taken");
        assert_eq!((one.attempts, &*one.host), (1, &*peer.address.to_string()));
        let second = rig.mail(&["b@x.org"], TEXT).await;
        let outcomes = rig.outcomes(2).await;
        assert_eq!((outcomes[0].0, outcomes[1].0), (first, second));
        assert_eq!(rig.queue.live(), 0);
        rig.drain().await;
        let seen = &peer.finish().await[0];
        assert_eq!(seen[0], "EHLO relay.test\r\n");
        let size = STORED.len();
        assert_eq!(seen[1], format!("MAIL FROM:<sender@example.com> SIZE={size}\r\n"));
        assert_eq!(seen[2], "RCPT TO:<a@x.org>\r\n");
        assert_eq!(seen[4], STORED);
        assert_eq!(seen[8], STORED);
        let counters = rig.counters.borrow();
        assert_eq!((counters.outbound_connections, counters.bodies_from_memory), (1, 2));
    });
}

#[test]
fn a_backlog_is_pipelined_behind_the_bodies() {
    run(|| async {
        // The next group comes before the reply to the body is given.
        let behind = ["< MAIL", "< RCPT", "< DATA", "> 250 2.0.0 one", "> 250", "> 250", "> 354"];
        let first = ["< MAIL", "< RCPT", "< DATA", "> 250", "> 250", "> 354", "."];
        let peer = Peer::start(vec![script(&[
            &HELLO,
            &first,
            &behind,
            &["."],
            &behind,
            &[".", "> 250 2.0.0 last", "< QUIT", "> 221 bye"],
        ])]);
        let rig = Rig::new(config(&[peer.address])).await;
        for recipient in ["a@x.org", "b@x.org", "c@x.org"] {
            rig.mail(&[recipient], TEXT).await;
        }
        let outcomes = rig.outcomes(3).await;
        let order: Vec<_> = outcomes.iter().map(|(_, address, _)| &**address).collect();
        assert_eq!(order, ["a@x.org", "b@x.org", "c@x.org"]);
        assert_eq!(outcomes[2].2.reply.to_string(), "250 2.0.0 last");
        rig.drain().await;
        assert_eq!(peer.finish().await.len(), 1);
    });
}

#[test]
fn a_body_that_is_not_in_memory_comes_from_the_log_in_parts() {
    run(|| async {
        let peer = Peer::start(vec![script(&[&HELLO, &takes_one(), &["< QUIT", "> 221"]])]);
        let rig = Rig::new(config(&[peer.address])).await;
        let text = "\r\n0123456789012345678901234567890123456789\r\n".repeat(20_000);
        rig.envelope(envelope(&["a@x.org"]), &text, false).await;
        assert_eq!(rig.outcome().await.disposition, Disposition::Delivered);
        rig.drain().await;
        let seen = &peer.finish().await[0];
        assert!(seen[4] == format!("Received: here\r\n{text}.\r\n"), "the body differs");
        assert_eq!(rig.counters.borrow().bodies_from_log, 1);
    });
}

#[test]
fn what_is_recovered_is_delivered() {
    run(|| async {
        let store = MemoryStore::new();
        {
            let rig = Rig::open(config(&[nobody()]), store.clone()).await;
            rig.relay.drain().await;
            rig.mail(&["a@x.org"], TEXT).await;
            rig.queue.close();
            rig.commits.await;
        }
        let peer = Peer::start(vec![script(&[&HELLO, &takes_one(), &["< QUIT", "> 221"]])]);
        let rig = Rig::open(config(&[peer.address]), store).await;
        let outcome = rig.outcome().await;
        assert_eq!((outcome.disposition, outcome.attempts), (Disposition::Delivered, 1));
        rig.drain().await;
        assert_eq!(peer.finish().await[0][4], STORED);
    });
}

#[test]
fn an_old_server_gets_helo_and_one_command_at_a_time() {
    run(|| async {
        let peer = Peer::start(vec![vec![
            "> 220 old",
            "< EHLO",
            "> 502 what",
            "< HELO",
            "> 250 hi",
            "< MAIL FROM:<sender@example.com>\r",
            "> 250 ok",
            "< RCPT",
            "> 250 ok",
            "< DATA",
            "> 354 go",
            ".",
            "> 250 ok",
            "< QUIT",
            "> 221",
        ]]);
        let rig = Rig::new(config(&[peer.address])).await;
        rig.mail(&["a@x.org"], TEXT).await;
        assert_eq!(rig.outcome().await.disposition, Disposition::Delivered);
        rig.drain().await;
        peer.finish().await;
    });
}

#[test]
fn routes_that_are_no_hosts_settle_at_once() {
    run(|| async {
        let mut config = config(&[nobody()]);
        config.dns.servers = vec![nobody()];
        config.dns.timeout = Duration::from_millis(50);
        let route = |domain: &str, next_hop| Route::new(domain.parse().unwrap(), next_hop);
        config.routes = vec![route("drop.org", NextHop::Discard), route("no.org", NextHop::Reject)];
        let rig = Rig::new(config).await;
        let mut envelope = envelope(&["a@drop.org", "b@no.org", "c@other.org"]);
        envelope.sender.clear();
        let id = rig.envelope(envelope, TEXT, true).await;
        let mut seen: Vec<_> = rig
            .outcomes(3)
            .await
            .into_iter()
            .map(|(_, _, o)| (o.recipient, o.disposition))
            .collect();
        seen.sort_by_key(|(recipient, _)| *recipient);
        use Disposition::{Deferred, Dropped, Failed};
        assert_eq!(seen, [(0, Dropped), (1, Failed), (2, Deferred)]);
        assert_eq!(rig.queue.message(id).unwrap().recipients.len(), 1);
        assert!(rig.told.reports.borrow().is_empty(), "nobody to report to");
        rig.drain().await;
    });
}
