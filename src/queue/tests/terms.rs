//! What the terms of a message mean for the schedule: kept until its sender wants
//! it sent, or an operator does; and the order of priorities after a start.

use super::*;
use crate::base::terms::Terms;
use crate::io::memory::CrashPolicy;
use crate::queue::Action;

const LATER: UnixMillis = UnixMillis(NOW.0 + 3_600_000);

fn with(terms: Terms) -> Envelope {
    Envelope { terms: Some(Box::new(terms)), ..envelope("a@example.com", 2) }
}

/// Appends a message that its sender wants kept until `LATER`.
fn keep(bench: &Bench, queue: &Queue<MemoryStore>) -> QueueId {
    let envelope = with(Terms { hold_until_ms: Some(LATER.0), ..Terms::default() });
    let (id, commit) = queue.append(&envelope, |_, _| {}, &[b"x\r\n.\r\n"]).unwrap();
    bench.run(commit).unwrap().unwrap();
    queue.postpone(id, LATER);
    id
}

/// Whether each recipient left is kept, and when it is due.
fn waits(queue: &Queue<MemoryStore>, id: QueueId) -> Vec<(bool, UnixMillis)> {
    let recipients = queue.message(id).unwrap().recipients;
    recipients.iter().map(|r| (r.postponed, r.next_attempt)).collect()
}

fn again(store: &MemoryStore) -> Queue<MemoryStore> {
    open(&store.crash_image(CrashPolicy::Lose)).0
}

#[test]
fn a_message_is_kept_until_its_time_across_starts() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    let id = keep(&bench, &queue);
    for queue in [queue.clone(), again(&store)] {
        assert_eq!(waits(&queue, id), [(true, LATER); 2]);
        assert_eq!(queue.next_due(), Some(LATER));
        assert!(queue.take_due(UnixMillis(LATER.0 - 1), 9).is_empty());
        assert_eq!(
            queue.bring_within(UnixMillis(NOW.0 + 5)),
            0,
            "a clock set back changes nothing"
        );
        let due = queue.take_due(LATER, 9);
        assert_eq!(due.iter().map(|(id, to)| (*id, to.len())).collect::<Vec<_>>(), [(id, 2)]);
        // From now on it is like any other.
        queue.put_back(id, &[0, 1], UnixMillis(LATER.0 + 9_999_999));
        assert_eq!(queue.bring_within(LATER), 1);
        assert_eq!(waits(&queue, id), [(false, LATER); 2]);
    }
    assert_eq!(waits(&again(&store), id), [(true, LATER); 2], "nothing was tried yet");
    let commit = queue.record(id, &[outcome(1, Disposition::Deferred, 1)]).unwrap();
    bench.run(commit).unwrap().unwrap();
    let next = outcome(1, Disposition::Deferred, 1).next_attempt;
    assert_eq!(waits(&again(&store), id), [(true, LATER), (false, next)]);
}

#[test]
fn a_streamed_message_is_kept_too() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    let envelope = with(Terms { hold_until_ms: Some(LATER.0), ..Terms::default() });
    let mut stream = queue.stream(&envelope, |_, _| {}).unwrap();
    bench.run(stream.push(&[b'x'; 100_000])).unwrap().unwrap();
    let id = stream.id();
    bench.run(stream.finish().unwrap()).unwrap().unwrap();
    queue.postpone(id, LATER);
    assert_eq!(waits(&again(&store), id), [(true, LATER); 2]);
}

#[test]
fn operators_end_the_wait_for_good() {
    for action in [Action::Release, Action::Retry] {
        let store = MemoryStore::new();
        let (bench, queue) = start(&store);
        let id = keep(&bench, &queue);
        let carried = queue.order(id, action, &[0], "root", NOW).unwrap();
        assert_eq!(carried.recipients, [0]);
        bench.run(carried.commit).unwrap().unwrap();
        for queue in [queue, again(&store)] {
            assert_eq!(waits(&queue, id), [(false, NOW), (true, LATER)], "{action:?}");
            assert_eq!(queue.next_due(), Some(NOW));
        }
    }
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    let id = keep(&bench, &queue);
    for (action, held) in [(Action::Hold, true), (Action::Release, false)] {
        let carried = queue.order(id, action, &[0], "root", NOW).unwrap();
        bench.run(carried.commit).unwrap().unwrap();
        for queue in [queue.clone(), again(&store)] {
            let first = queue.message(id).unwrap().recipients[0];
            assert_eq!((first.held, first.postponed), (held, false));
            assert!(held || first.next_attempt == NOW);
        }
    }
    let none = queue.order(id, Action::Release, &[0], "root", NOW).unwrap();
    assert!(none.recipients.is_empty(), "nothing keeps it any more");
}

#[test]
fn after_a_start_what_is_urgent_comes_first() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    let mut ids = Vec::new();
    for priority in [0, -9, 3, 0, 9] {
        let envelope = with(Terms { priority, ..Terms::default() });
        let (id, commit) = queue.append(&envelope, |_, _| {}, &[b"x\r\n.\r\n"]).unwrap();
        bench.run(commit).unwrap().unwrap();
        ids.push(id);
    }
    let queue = again(&store);
    let soon = UnixMillis(NOW.0 + 9);
    let order: Vec<_> = queue.take_due(soon, 9).into_iter().map(|(id, _)| id).collect();
    assert_eq!(order, [4, 2, 0, 3, 1].map(|at: usize| ids[at]));
}
