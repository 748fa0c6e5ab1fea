//! What must not stop a log or be believed by it: an end in the middle of upkeep,
//! segments that cannot be read while they are cleaned, a disk that fills up
//! between two looks at it, a checkpoint of what was cut.

use super::*;
use crate::base::Place;
use crate::io::store::Store;
use crate::queue::format::{checkpoint_name, segment_name};
use crate::queue::{Commit, QueueError};

fn deliver(bench: &Bench, queue: &Queue<MemoryStore>, id: QueueId) {
    let commit = queue.record(id, &[outcome(0, Disposition::Delivered, 1)]).unwrap();
    bench.run(commit).unwrap().unwrap();
}

/// Mail that comes and goes, so that the log goes on and is cleaned.
fn pass_mail(bench: &Bench, queue: &Queue<MemoryStore>, messages: usize) {
    for _ in 0..messages {
        let id = put(bench, queue, "passing@example.com", 1, &[b'x'; 6000]);
        deliver(bench, queue, id);
        queue.allow_cleaning(u64::MAX);
        bench.turn(5);
    }
    bench.turn(100);
}

#[test]
fn an_end_while_survivors_are_gathered_is_no_failure() {
    let mut ended_with_survivors = false;
    for rounds in 0..24 {
        let store = MemoryStore::new();
        let (bench, queue) = start(&store);
        let old = put(&bench, &queue, "old@example.com", 2, b"old\r\n.\r\n");
        let first = old.place.segment;
        let mut attempts = 0;
        // Until the segment after the first holds nothing but words about it.
        while queue.0.state.borrow().tail.segment < first + 2 {
            attempts += 1;
            let word = [outcome(1, Disposition::Deferred, attempts)];
            drop(queue.record(old, &word).unwrap());
            let id = put(&bench, &queue, "new@example.com", 1, &[b'x'; 6000]);
            drop(queue.record(id, &[outcome(0, Disposition::Delivered, 1)]).unwrap());
        }
        bench.turn(rounds);
        ended_with_survivors |=
            queue.0.state.borrow().index.segments.values().any(|segment| segment.releasing);
        queue.close();
        bench.turn(200);
        assert_eq!(queue.poisoned(), None, "closed after {rounds} rounds");
        assert!(bench.jobs.borrow().is_empty(), "the queue has ended");
        let (again, _) = open(&store);
        assert_eq!(again.message(old).unwrap().recipients[1].attempts, attempts);
    }
    assert!(ended_with_survivors, "the test looks at what it is about");
}

#[test]
fn a_segment_that_cannot_be_read_is_not_cleaned_and_the_log_goes_on() {
    for taken_away in [true, false] {
        let store = MemoryStore::new();
        let (bench, queue) = start(&store);
        let bad = put(&bench, &queue, "bad@example.com", 1, &[b'b'; 9000]);
        let good = put(&bench, &queue, "good@example.com", 1, b"good\r\n.\r\n");
        queue.put_back(bad, &[0], NOW);
        queue.put_back(good, &[0], NOW);
        let name = segment_name(bad.place.segment);
        if taken_away {
            bench.run(store.remove(&name)).unwrap().unwrap();
        } else {
            let at = bad.place.offset as usize;
            store.spoil(&name, at + 4096..at + 4608);
        }
        pass_mail(&bench, &queue, 60);
        assert_eq!(queue.poisoned(), None);
        assert!(bench.run(queue.load(bad)).unwrap().is_err());
        put(&bench, &queue, "a@example.com", 1, b".\r\n");
        if !taken_away {
            let figures = (queue.segments().quarantined, queue.counters().damaged > 0);
            assert_eq!(figures, (1, true), "sectors that cannot be read are damage");
            assert_eq!(body_of(&bench, &queue, good), b"good\r\n.\r\n");
        }
    }
}

#[test]
fn a_message_that_was_out_when_the_cleaner_came_is_come_back_for() {
    let store = MemoryStore::new();
    let options = QueueOptions { mail_allows_cleaning: false, ..options() };
    let (bench, queue) = start_with(&store, options);
    let id = put(&bench, &queue, "a@example.com", 1, b".\r\n");
    queue.put_back(id, &[0], NOW);
    for _ in 0..60 {
        let id = put(&bench, &queue, "passing@example.com", 1, &[b'x'; 6000]);
        deliver(&bench, &queue, id);
    }
    bench.turn(50);
    assert!(queue.0.state.borrow().clean_waits, "the cleaner has chosen, and waits");
    assert_eq!(queue.take_due(NOW, 9).len(), 1);
    queue.allow_cleaning(u64::MAX);
    bench.turn(50);
    queue.put_back(id, &[0], NOW);
    queue.allow_cleaning(u64::MAX);
    bench.turn(50);
    assert!(queue.message(id).unwrap().at.first > id.place);
}

#[test]
fn a_checkpoint_that_found_no_room_is_no_failure_when_damage_is_found() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    let id = put(&bench, &queue, "a@example.com", 1, &[b'x'; 7000]);
    for _ in 0..10 {
        put(&bench, &queue, "b@example.com", 1, &[b'x'; 6000]);
    }
    bench.turn(50);
    // As a full disk leaves it.
    let name = checkpoint_name(id.place.segment);
    assert!(store.contents(&name).is_some());
    store.put(&name, Vec::new());
    super::crash::flip(&store, id.place.segment, id.place.offset + 1000);
    assert!(bench.run(queue.load(id)).unwrap().is_err());
    bench.turn(50);
    assert_eq!((queue.poisoned(), queue.segments().quarantined), (None, 1));
    let (_, report) = open(&store);
    assert_eq!(report.damage.len(), 1, "{report:?}");
}

#[test]
fn room_for_a_segment_is_promised_once() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    put(&bench, &queue, "a@example.com", 1, b".\r\n");
    bench.turn(100);
    // For one more segment, whoever looks.
    store.set_capacity(store.used() + u64::from(SMALL));
    let mut commits: Vec<Commit> = Vec::new();
    let refused = loop {
        match queue.append(&envelope("a@example.com", 1), |_, _| {}, &[&[b'x'; 5000]]) {
            Ok((_, commit)) => commits.push(commit),
            Err(error) => break error,
        }
        assert!(commits.len() < 200, "the disk has no end");
    };
    assert!(matches!(refused, QueueError::Full { .. }), "{refused}");
    for commit in commits {
        bench.run(commit).unwrap().unwrap();
    }
    assert_eq!(queue.poisoned(), None);
}

#[test]
fn cleaning_leaves_room_for_outcomes_on_a_full_disk() {
    let store = MemoryStore::new();
    let options = QueueOptions { mail_allows_cleaning: false, ..options() };
    let (bench, queue) = start_with(&store, options);
    let (mut waiting, mut out) = (Vec::new(), Vec::new());
    for round in 0..150 {
        let id = put(&bench, &queue, "a@example.com", 1, &[b'x'; 4000]);
        match round % 10 {
            0 => out.push(id),
            1..=4 => {
                queue.put_back(id, &[0], NOW);
                waiting.push(id);
            }
            _ => deliver(&bench, &queue, id),
        }
    }
    bench.turn(100);
    // Each segment has something that may be moved, and something that may not.
    store.set_capacity(store.used());
    queue.allow_cleaning(u64::MAX);
    for _ in 0..20 {
        bench.turn(200);
        queue.allow_cleaning(u64::MAX);
    }
    for id in out {
        let commit = queue.record(id, &[outcome(0, Disposition::Delivered, 1)]).unwrap();
        bench.run(commit).unwrap().unwrap();
    }
    assert_eq!((queue.poisoned(), queue.live()), (None, waiting.len()));
}

#[test]
fn the_checkpoint_of_what_was_cut_is_not_believed() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    let first = put(&bench, &queue, "a@example.com", 1, b".\r\n");
    bench.turn(20);
    // One flush for the rest of the segment and what comes in the next.
    let mut ids = Vec::new();
    let mut last = None;
    while ids.last().is_none_or(|id: &QueueId| id.place.segment == first.place.segment) {
        let (id, commit) =
            queue.append(&envelope("b@example.com", 1), |_, _| {}, &[&[b'x'; 5000]]).unwrap();
        ids.push(id);
        last = Some(commit);
    }
    bench.run(last.unwrap()).unwrap().unwrap();
    bench.turn(50);
    let name = checkpoint_name(first.place.segment);
    assert!(store.contents(&name).is_some(), "the segment is complete");
    drop((bench, queue));
    super::crash::flip(&store, ids[2].place.segment, ids[2].place.offset + 1000);
    // A start that ends before it has read the queue, but not before it took mail.
    let (queue, loading) =
        futures_lite::future::block_on(Queue::begin(store.clone(), options())).unwrap();
    assert!(loading.cut().is_some());
    drop(loading);
    let bench = Bench::new();
    bench.spawn(queue.clone().run_commits());
    for _ in 0..30 {
        put(&bench, &queue, "c@example.com", 1, &[b'x'; 5000]);
    }
    drop((bench, queue));
    let (bench, queue) = start(&store);
    for id in queue.ids_after(None, 99) {
        assert!(bench.run(queue.load(id)).unwrap().is_ok(), "{id} was cut");
    }
    assert_eq!(queue.live(), 30 + 3);
}

#[test]
fn words_too_many_to_be_said_again_are_let_go_and_the_states_are_not() {
    let store = MemoryStore::new();
    let options = QueueOptions { mail_allows_cleaning: false, ..options() };
    let (bench, queue) = start_with(&store, options);
    let many = 900;
    let id = put(&bench, &queue, "a@example.com", many, b".\r\n");
    // The rest of the first segment, so that the words have segments of their own.
    while queue.0.state.borrow().tail.offset < SMALL - 12_000 {
        put(&bench, &queue, "b@example.com", 1, &[b'x'; 3000]);
    }
    let words: Vec<Outcome> =
        (0..many as u16).map(|n| outcome(n, Disposition::Deferred, 3)).collect();
    bench.run(queue.record(id, &words).unwrap()).unwrap().unwrap();
    for _ in 0..20 {
        let id = put(&bench, &queue, "passing@example.com", 1, &[b'x'; 6000]);
        deliver(&bench, &queue, id);
    }
    // Each word is read for itself.
    bench.turn(4000);
    assert_eq!(queue.poisoned(), None);
    {
        let state = queue.0.state.borrow();
        let recipients = state.index.get(id.place).unwrap().recipients();
        let gone = |place: &Place| !state.index.segments.contains_key(&place.segment);
        let let_go = recipients.iter().filter(|recipient| gone(&recipient.last)).count();
        assert!(let_go > many / 2, "{let_go}: the test looks at what it is about");
    }
    drop((bench, queue));
    let (queue, _) = open(&store);
    let recipients = queue.message(id).unwrap().recipients;
    assert_eq!(recipients.len(), many);
    assert!(recipients.iter().all(|recipient| recipient.attempts == 3));
}
