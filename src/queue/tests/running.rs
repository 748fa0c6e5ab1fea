//! A queue that runs: what is appended can be read, outcomes settle it, the
//! schedule holds, commits wait for the right flush, segments are used again.

use std::path::PathBuf;

use super::*;
use crate::base::{Durability, Place};
use crate::io::memory::Operation;
use crate::io::uring::UringStore;
use crate::queue::state::BACKLOG_MAX;
use crate::queue::{Action, BODY_PART_MAX, PREFIX_MAX, QueueError, Reader};

#[test]
fn a_message_reads_back_as_it_was_appended() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    let sent = envelope("a@example.com", 2);
    let prefix = |id: QueueId, out: &mut Vec<u8>| out.extend_from_slice(&id.encode());
    let (id, commit) = queue.append(&sent, prefix, &[b"Subject: x\r\n", b"\r\n.\r\n"]).unwrap();
    bench.run(commit).unwrap().unwrap();
    let body = [&id.encode()[..], b"Subject: x\r\n\r\n.\r\n"].concat();
    assert_eq!(body_of(&bench, &queue, id), body);
    let mail = bench.run(queue.load(id)).unwrap().unwrap();
    assert_eq!((&mail.envelope, &*mail.body), (&sent, &body[..]));
    assert_eq!(bench.run(queue.envelope(id)).unwrap().unwrap(), sent);
    let remote = Reader::new(store);
    assert_eq!(bench.run(remote.envelope(id.place)).unwrap().unwrap(), sent);
    assert_eq!(*bench.run(remote.load(id.place, at_home(id))).unwrap().unwrap().body, body[..]);
    let state = queue.message(id).unwrap();
    assert_eq!((state.size, state.recipients.len()), (body.len() as u64, 2));
    assert!(state.recipients.iter().all(|recipient| recipient.out));
    assert_eq!((queue.live(), queue.bytes_live()), (1, body.len() as u64));
}

#[test]
fn a_long_message_is_streamed_and_an_abandoned_one_leaves_nothing() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    let body: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    let mut stream = queue
        .stream(&envelope("s@example.com", 1), |_, out| out.extend(b"Received: x\r\n"))
        .unwrap();
    for part in body.chunks(30_000) {
        bench.run(stream.push(part)).unwrap().unwrap();
    }
    let id = stream.id();
    assert_eq!(queue.live(), 0);
    let commit = stream.finish().unwrap();
    bench.run(commit).unwrap().unwrap();
    let expected = [&b"Received: x\r\n"[..], &body].concat();
    assert_eq!(body_of(&bench, &queue, id), expected);
    // An append of a long body does the same at once.
    let long = put(&bench, &queue, "l@example.com", 1, &body);
    assert_eq!(body_of(&bench, &queue, long), body);
    assert!(matches!(bench.run(queue.load(long)).unwrap(), Err(QueueError::TooLarge { .. })));
    let remote = Reader::new(store.clone());
    let at = queue.message(long).unwrap().at;
    assert!(at.commit.is_some());
    assert_eq!(bench.run(remote.body(long.place, at)).unwrap().unwrap().len(), body.len() as u64);

    let mut abandoned = queue.stream(&envelope("x@example.com", 1), |_, _| {}).unwrap();
    bench.run(abandoned.push(&body)).unwrap().unwrap();
    drop(abandoned);
    for id in [id, long] {
        bench
            .run(queue.record(id, &[outcome(0, Disposition::Delivered, 1)]).unwrap())
            .unwrap()
            .unwrap();
    }
    bench.turn(100);
    assert_eq!((queue.live(), queue.segments().in_use), (0, 1), "all segments but one are free");
    queue.close();
    bench.turn(100);
    let (queue, report) = open(&store);
    assert_eq!((queue.live(), report.damage.len()), (0, 0));
}

#[test]
fn the_schedule_follows_the_outcomes() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    let id = put(&bench, &queue, "a@example.com", 3, b"x\r\n.\r\n");
    assert_eq!((queue.next_due(), queue.take_due(UnixMillis(u64::MAX), 10)), (None, vec![]));
    let outcomes = [
        outcome(0, Disposition::Delivered, 1),
        outcome(1, Disposition::Deferred, 2),
        outcome(2, Disposition::Deferred, 1),
    ];
    bench.run(queue.record(id, &outcomes).unwrap()).unwrap().unwrap();
    let due = |n: u64| UnixMillis(NOW.0 + 1000 * n);
    assert_eq!(queue.next_due(), Some(due(1)));
    assert_eq!(queue.take_due(UnixMillis(due(1).0 - 1), 10), []);
    let taken = queue.take_due(due(1), 10);
    assert_eq!((taken[0].0, taken[0].1.to_vec()), (id, vec![2]));
    assert_eq!(queue.take_due(due(1), 10), []);
    // The second one's element was merged with the first's: it comes up next.
    queue.put_back(id, &[2], due(9));
    assert_eq!(queue.next_due(), Some(due(2)));
    assert_eq!(queue.take_due(due(20), 10)[0].1.to_vec(), [1, 2]);
    let said = bench.run(queue.last_outcomes(id)).unwrap().unwrap();
    assert_eq!(said, outcomes[1..]);
    let last = [outcome(1, Disposition::Failed, 3), outcome(2, Disposition::Expired, 2)];
    bench.run(queue.record(id, &last).unwrap()).unwrap().unwrap();
    assert_eq!((queue.live(), queue.next_due(), queue.message(id)), (0, None, None));
    assert!(matches!(queue.record(id, &last), Err(QueueError::Unknown(_))));
}

#[test]
fn asking_what_is_due_next_forgets_nothing() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    let id = put(&bench, &queue, "a@example.com", 2, b"x\r\n.\r\n");
    let both = [outcome(0, Disposition::Deferred, 1), outcome(1, Disposition::Deferred, 2)];
    bench.run(queue.record(id, &both).unwrap()).unwrap().unwrap();
    // The one that is due first goes; its element stood for the other as well.
    let dropped = queue.order(id, Action::Drop, &[0], "root", NOW).unwrap();
    bench.run(dropped.commit).unwrap().unwrap();
    let second = UnixMillis(NOW.0 + 2000);
    assert_eq!(queue.next_due(), Some(second));
    assert_eq!(queue.take_due(second, 9)[0].1[..], [1]);
}

#[test]
fn what_waits_for_its_destination_is_not_woken_before_its_time() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    let id = put(&bench, &queue, "a@example.com", 3, b"x\r\n.\r\n");
    let wake = UnixMillis(NOW.0 + 5000);
    queue.park(id, &[0, 1, 2], wake);
    assert_eq!(queue.next_due(), Some(wake));
    assert!(queue.take_due(UnixMillis(wake.0 - 1), 9).is_empty());
    assert_eq!(queue.unpark(id.place, &[0])[..], [0]);
    assert!(queue.unpark(id.place, &[0]).is_empty(), "once only");
    let order = |action, recipient| {
        let carried = queue.order(id, action, &[recipient], "root", NOW).unwrap();
        bench.run(carried.commit).unwrap().unwrap();
        carried.recipients
    };
    assert_eq!(order(Action::Hold, 1), [1]);
    assert!(queue.unpark(id.place, &[1]).is_empty(), "it is held now");
    assert_eq!(order(Action::Release, 1), [1]);
    assert_eq!(queue.take_due(NOW, 9)[0].1[..], [1], "and due again");
    assert_eq!(order(Action::Retry, 2), [2], "its destination is asked, it waits on");
    assert!(queue.message(id).unwrap().recipients[2].waiting);
    assert_eq!(queue.take_due(wake, 9)[0].1[..], [2]);
    // Held while out: the wait ends in the hold.
    assert_eq!(order(Action::Hold, 2), [2]);
    queue.park(id, &[2], wake);
    assert!(queue.message(id).unwrap().recipients[2].held);
    // A clock that was far ahead.
    queue.park(id, &[0, 1], UnixMillis(wake.0 + 1_000_000));
    assert_eq!(queue.bring_within(wake), 1);
    assert_eq!(queue.take_due(wake, 9)[0].1[..], [0, 1]);
}

#[test]
fn outcomes_for_what_is_not_there_are_refused() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    let id = put(&bench, &queue, "a@example.com", 1, b".\r\n");
    let refused = |id, recipient| {
        let result = queue.record(id, &[outcome(recipient, Disposition::Delivered, 1)]);
        matches!(result, Err(QueueError::Unknown(_)))
    };
    assert!(refused(id, 1));
    assert!(refused(QueueId { place: Place { offset: 1, ..id.place }, ..id }, 0));
    assert!(refused(QueueId { log: crate::base::ShardId(9), ..id }, 0));
    assert!(!refused(id, 0));
}

#[test]
fn a_commit_waits_for_a_flush_that_began_after_its_write() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    bench.turn(50);
    store.hold_syncs(true);
    let flushes = queue.counters().flushes;
    let (_, first) = queue.append(&envelope("1@example.com", 1), |_, _| {}, &[b".\r\n"]).unwrap();
    let mut first = Box::pin(first);
    bench.turn(10);
    assert_eq!(store.syncs_held(), 1, "the first batch is being flushed");
    let later: Vec<_> = (0..20)
        .map(|_| queue.append(&envelope("2@example.com", 1), |_, _| {}, &[b".\r\n"]).unwrap().1)
        .collect();
    bench.turn(10);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(first.as_mut().poll(&mut cx).is_pending());
    store.hold_syncs(false);
    bench.run(first).unwrap().unwrap();
    for commit in later {
        bench.run(commit).unwrap().unwrap();
    }
    assert_eq!(queue.counters().flushes - flushes, 2, "all that waited shared one flush");
}

#[test]
fn what_waits_for_the_disk_is_bounded() {
    const MESSAGES: usize = 100;
    let store = MemoryStore::new();
    let (bench, queue) = start_with(&store, QueueOptions { segment_size: 4 << 20, ..options() });
    bench.turn(50);
    store.hold_syncs(true);
    let body = vec![b'x'; 200 * 1024];
    let put = || async {
        queue.room().await.unwrap();
        queue.append(&envelope("a@example.com", 1), |_, _| {}, &[&body]).unwrap().1.await.unwrap();
    };
    let mut puts: Vec<_> = (0..MESSAGES).map(|_| Box::pin(put())).collect();
    let mut cx = Context::from_waker(Waker::noop());
    for put in &mut puts {
        assert!(put.as_mut().poll(&mut cx).is_pending());
        bench.turn(2);
    }
    let waiting = queue.counters().bytes_appended as usize;
    assert!((BACKLOG_MAX..BACKLOG_MAX + BODY_PART_MAX).contains(&waiting), "{waiting}");
    store.hold_syncs(false);
    for put in puts {
        bench.run(put).unwrap();
    }
    assert_eq!(queue.live(), MESSAGES);
}

#[test]
fn other_durability_modes_do_not_flush() {
    for durability in [Durability::Os, Durability::Memory] {
        let store = MemoryStore::new();
        let (bench, queue) = start_with(&store, QueueOptions { durability, ..options() });
        bench.turn(50);
        store.hold_syncs(true);
        let (id, commit) =
            queue.append(&envelope("a@example.com", 1), |_, _| {}, &[b"x\r\n.\r\n"]).unwrap();
        if durability == Durability::Memory {
            futures_lite::future::block_on(commit).unwrap();
        } else {
            bench.run(commit).unwrap().unwrap();
        }
        assert_eq!(body_of(&bench, &queue, id), b"x\r\n.\r\n");
        assert_eq!(store.syncs_held(), 0, "{durability}");
    }
}

#[test]
fn settled_segments_are_recycled_and_the_disk_does_not_grow() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    let body = vec![b'x'; 5000];
    for round in 0..200 {
        let id = put(&bench, &queue, "a@example.com", 1, &body);
        bench
            .run(queue.record(id, &[outcome(0, Disposition::Delivered, 1)]).unwrap())
            .unwrap()
            .unwrap();
        assert!(store.used() <= 6 * u64::from(SMALL), "round {round}: {}", store.used());
    }
    bench.turn(50);
    let counters = queue.counters();
    assert!(counters.segments_recycled > 10 && counters.segments_created < 6, "{counters:?}");
    assert_eq!(queue.segments().in_use, 1);
    let removed = store.operations().iter().filter(|op| **op == Operation::Name).count();
    // A name for each step in the life of a segment and its checkpoint, none for a message.
    assert!(removed as u64 <= counters.segments_created * 3 + 4 * counters.segments_recycled + 2);
}

#[test]
fn one_old_message_holds_one_segment_and_keeps_its_words() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    let old = put(&bench, &queue, "old@example.com", 3, b"old\r\n.\r\n");
    let done = [outcome(0, Disposition::Delivered, 1)];
    bench.run(queue.record(old, &done).unwrap()).unwrap().unwrap();
    let body = vec![b'x'; 6000];
    let mut attempts = 0;
    for round in 0..200 {
        if round % 20 == 0 {
            attempts += 1;
            let again = [outcome(1, Disposition::Deferred, attempts)];
            bench.run(queue.record(old, &again).unwrap()).unwrap().unwrap();
        }
        let id = put(&bench, &queue, "new@example.com", 1, &body);
        bench
            .run(queue.record(id, &[outcome(0, Disposition::Delivered, 1)]).unwrap())
            .unwrap()
            .unwrap();
    }
    bench.turn(100);
    assert!(queue.segments().in_use <= 4, "{:?}", queue.segments());
    assert!(queue.counters().segments_recycled > 10);
    let check = |bench: &Bench, queue: &Queue<MemoryStore>| {
        let state = queue.message(old).unwrap();
        let pending: Vec<_> = state.recipients.iter().map(|r| (r.recipient, r.attempts)).collect();
        assert_eq!(pending, [(1, attempts), (2, 0)]);
        let words = bench.run(queue.last_outcomes(old)).unwrap().unwrap();
        assert_eq!(words, [outcome(1, Disposition::Deferred, attempts)]);
        assert_eq!(body_of(bench, queue, old), b"old\r\n.\r\n");
    };
    check(&bench, &queue);
    queue.close();
    bench.turn(100);
    let (again, report) = open(&store);
    assert_eq!((again.live(), report.damage.len(), report.cut), (1, 0, None));
    check(&Bench::new(), &again);
}

#[test]
fn full_comes_before_the_disk_is_and_outcomes_go_on() {
    let store = MemoryStore::new();
    store.set_capacity(7 * u64::from(SMALL));
    let reserve = 2 * u64::from(SMALL);
    let (bench, queue) = start_with(&store, QueueOptions { reserve, ..options() });
    let body = vec![b'x'; 5000];
    let mut ids = Vec::new();
    let refused = loop {
        match queue.append(&envelope("a@example.com", 1), |_, _| {}, &[&body]) {
            Ok((id, commit)) => {
                bench.run(commit).unwrap().unwrap();
                ids.push(id);
            }
            Err(error) => break error,
        }
        assert!(ids.len() < 100);
    };
    assert!(matches!(refused, QueueError::Full { .. }), "{refused}");
    assert!(refused.to_string().contains("bytes available"));
    assert!(queue.is_full() && ids.len() > 20, "{}", ids.len());
    for id in ids.drain(..ids.len() - 1) {
        let commit = queue.record(id, &[outcome(0, Disposition::Delivered, 1)]).unwrap();
        bench.run(commit).unwrap().unwrap();
    }
    bench.turn(100);
    assert_eq!(queue.poisoned(), None);
    assert!(!queue.is_full(), "{:?}", queue.segments());
    put(&bench, &queue, "b@example.com", 1, &body);
    assert_eq!(queue.live(), 2);
}

#[test]
fn the_first_failure_poisons() {
    for (nth, kind) in [(0, Operation::Write), (0, Operation::Sync), (1, Operation::Write)] {
        let store = MemoryStore::new();
        let (bench, queue) = start(&store);
        bench.turn(50);
        let ok = put(&bench, &queue, "a@example.com", 1, b"x\r\n.\r\n");
        bench.turn(50);
        let at = store.operations().len();
        // Appends write, then sync: find the operation to fail.
        let skip = if kind == Operation::Sync { 1 } else { nth * 2 };
        store.fail_at(at + skip);
        let results: Vec<_> = (0..3)
            .map(|_| match queue.append(&envelope("b@example.com", 1), |_, _| {}, &[b".\r\n"]) {
                Ok((_, commit)) => bench.run(commit).unwrap(),
                Err(error) => Err(error),
            })
            .collect();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), nth, "{kind:?}");
        assert!(matches!(results[2], Err(QueueError::Poisoned(_))));
        assert!(queue.poisoned().unwrap().contains("injected failure"), "{:?}", queue.poisoned());
        assert_eq!(queue.counters().failures, 1);
        assert!(queue.record(ok, &[outcome(0, Disposition::Delivered, 1)]).is_err());
        let operations = store.operations().len();
        bench.turn(50);
        assert_eq!(store.operations().len(), operations, "nothing is written any more");
        assert!(bench.jobs.borrow().is_empty(), "the committer has ended");
        // What was durable before can still be read.
        assert_eq!(body_of(&bench, &queue, ok), b"x\r\n.\r\n");
    }
}

#[test]
fn what_cannot_fit_is_refused_and_changes_nothing() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    let many = envelope("a@example.com", 4000);
    let refused = queue.append(&many, |_, _| {}, &[b".\r\n"]).map(|_| ());
    assert!(matches!(refused, Err(QueueError::TooLarge { .. })), "{refused:?}");
    let long = |_: QueueId, out: &mut Vec<u8>| out.resize(PREFIX_MAX + 1, b'x');
    let refused = queue.append(&envelope("a@example.com", 1), long, &[b".\r\n"]).map(|_| ());
    assert!(matches!(refused, Err(QueueError::TooLarge { .. })), "{refused:?}");
    assert_eq!(queue.live(), 0);
    put(&bench, &queue, "a@example.com", 100, b".\r\n");
    assert_eq!(queue.live(), 1);
}

#[test]
fn ids_come_in_pages() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    let ids: Vec<_> =
        (0..50).map(|_| put(&bench, &queue, "a@example.com", 1, &[b'x'; 9000])).collect();
    for id in ids.iter().step_by(3) {
        drop(queue.record(*id, &[outcome(0, Disposition::Dropped, 0)]).unwrap());
    }
    let expected: Vec<_> =
        ids.iter().enumerate().filter(|(n, _)| n % 3 != 0).map(|(_, id)| *id).collect();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = queue.ids_after(after, 7);
        after = page.last().copied();
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    assert_eq!(seen, expected);
}

#[test]
fn the_same_on_a_real_disk() {
    on_a_real_disk(UringStore::new);
}

#[test]
fn the_same_through_the_page_cache() {
    on_a_real_disk(UringStore::buffered);
}

fn on_a_real_disk(store: fn(PathBuf) -> UringStore) {
    use crate::io::executor::{run_pinned, spawn};

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_path_buf();
    let done = run_pinned("queue", None, move || async move {
        let options = || QueueOptions { segment_size: 1 << 20, ..options() };
        let store = store(path);
        let (queue, _) = Queue::open(store.clone(), options(), NOW).await.unwrap();
        let commits = spawn(queue.clone().run_commits());
        let body: Vec<u8> = (0..70_000u32).map(|n| (n % 253) as u8).collect();
        let mut last = None;
        let mut kept = Vec::new();
        for n in 0..100 {
            let size = 700 * n;
            let sent = envelope("a@example.com", 1);
            let (id, commit) = queue.append(&sent, |_, _| {}, &[&body[..size]]).unwrap();
            commit.await.unwrap();
            if n % 10 == 0 {
                kept.push((id, size));
            } else {
                last = Some(queue.record(id, &[outcome(0, Disposition::Delivered, 1)]).unwrap());
            }
        }
        last.unwrap().await.unwrap();
        queue.close();
        commits.await;
        assert_eq!(queue.poisoned(), None);
        drop(queue);
        let (queue, report) = Queue::open(store, options(), NOW).await.unwrap();
        assert_eq!((report.damage, report.foreign, report.cut), (vec![], vec![], None));
        assert_eq!(queue.ids_after(None, 99), kept.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        for (id, size) in kept {
            assert_eq!(*queue.load(id).await.unwrap().body, body[..size]);
        }
    });
    done.unwrap().join().unwrap();
}

#[test]
fn outcomes_wait_for_mail_or_a_nudge_when_told_to() {
    let store = MemoryStore::new();
    let options = QueueOptions { outcomes_wait: true, ..options() };
    let (bench, queue) = start_with(&store, options);
    let ids = ["a@x", "b@x"].map(|sender| put(&bench, &queue, sender, 1, b"x\r\n.\r\n"));
    let delivered = [outcome(0, Disposition::Delivered, 1)];
    let flushes = queue.counters().flushes;
    let mut first = Box::pin(queue.record(ids[0], &delivered).unwrap());
    assert_eq!(bench.run(queue.recorded()), Some(()), "the owner is told");
    bench.turn(100);
    assert_eq!(queue.counters().flushes, flushes, "nothing is written for an outcome alone");
    put(&bench, &queue, "c@x", 1, b"x\r\n.\r\n");
    assert!(bench.run(&mut first).unwrap().is_ok());
    assert_eq!(queue.counters().flushes, flushes + 1, "it went with the mail");
    let second = queue.record(ids[1], &delivered).unwrap();
    bench.turn(100);
    queue.nudge();
    assert!(bench.run(second).unwrap().is_ok());
    assert_eq!(queue.counters().flushes, flushes + 2);
}

#[test]
fn closing_makes_outcomes_that_wait_durable() {
    let store = MemoryStore::new();
    let options = QueueOptions { outcomes_wait: true, ..options() };
    let (bench, queue) = start_with(&store, options);
    let id = put(&bench, &queue, "a@x", 1, b"x\r\n.\r\n");
    let commit = queue.record(id, &[outcome(0, Disposition::Delivered, 1)]).unwrap();
    queue.close();
    assert!(bench.run(commit).unwrap().is_ok());
    bench.turn(100);
    assert_eq!(open(&store).0.live(), 0);
}

#[test]
fn segments_that_were_freed_are_not_missed() {
    let store = MemoryStore::new();
    let few_spares = || QueueOptions { spares_max: 1, ..options() };
    let (bench, queue) = start_with(&store, few_spares());
    let ids: Vec<_> =
        (0..80).map(|_| put(&bench, &queue, "a@example.com", 1, &[b'x'; 6000])).collect();
    // In one batch, so that no newer segment says what is left.
    let last = put(&bench, &queue, "b@example.com", 1, b"x");
    let done = [outcome(0, Disposition::Delivered, 1)];
    let commits: Vec<_> = ids.iter().map(|id| queue.record(*id, &done).unwrap()).collect();
    for commit in commits {
        bench.run(commit).unwrap().unwrap();
    }
    bench.turn(200);
    queue.close();
    bench.turn(100);
    // Again and again without mail: no newer roster is written.
    for start in 0..4 {
        let (queue, report) = open_with(&store, few_spares());
        let bench = Bench::new();
        bench.spawn(queue.clone().run_commits());
        bench.turn(100);
        assert!(queue.live() == 1 && queue.message(last).is_some());
        queue.close();
        bench.turn(100);
        assert!(report.missing.is_empty(), "start {start}: {:?}", report.missing);
    }
}
