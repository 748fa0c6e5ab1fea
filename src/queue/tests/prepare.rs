//! Segments made ready ahead of their use: filled with zeroes when there is
//! time, used as they are when there is not, removed when they are too many; and
//! how many flushes that load takes which keeps the committer busy.

use super::model::{Driven, Step};
use super::*;
use crate::base::Durability;
use crate::io::memory::{CrashPolicy, Operation};
use crate::queue::format::DATA_START;

/// Zeroes in a segment that was filled.
const FILLED: u64 = (SMALL - DATA_START) as u64;

fn writes(store: &MemoryStore) -> usize {
    store.operations().iter().filter(|operation| **operation == Operation::Write).count()
}

#[test]
fn the_next_segment_is_filled_when_there_is_time_and_the_first_never() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    assert_eq!((queue.counters().bytes_zeroed, writes(&store)), (0, 1), "the header only");
    bench.turn(50);
    assert_eq!(queue.counters().bytes_zeroed, FILLED);
    assert_eq!((queue.segments().prepared, queue.counters().bytes_written), (1, 0));
    // Four steps, and the header.
    assert_eq!(writes(&store), 6);
}

#[test]
fn a_commit_does_not_wait_for_the_filling_of_the_next_segment() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    put(&bench, &queue, "a@example.com", 1, b".\r\n");
    assert!(queue.counters().bytes_zeroed < FILLED, "{:?}", queue.counters());
    assert_eq!(queue.segments().prepared, 0);
}

#[test]
fn a_segment_for_which_mail_waits_is_used_as_far_as_it_is_filled() {
    for (turns, filled) in [(0, 0..1), (5, 1..FILLED)] {
        let store = MemoryStore::new();
        let (bench, queue) = start(&store);
        bench.turn(turns);
        let commits: Vec<_> = (0..10)
            .map(|_| queue.append(&envelope("a@x", 1), |_, _| {}, &[&[b'x'; 8000]]).unwrap().1)
            .collect();
        assert_eq!(queue.segments().in_use, 2);
        while queue.counters().segments_created < 2 {
            bench.turn(1);
        }
        let counters = queue.counters();
        assert!(filled.contains(&counters.bytes_zeroed), "{turns}: {counters:?}");
        for commit in commits {
            bench.run(commit).unwrap().unwrap();
        }
    }
}

#[test]
fn files_used_again_are_not_filled_again() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    for _ in 0..100 {
        let id = put(&bench, &queue, "a@example.com", 1, &[b'x'; 5000]);
        let done = queue.record(id, &[outcome(0, Disposition::Delivered, 1)]).unwrap();
        bench.run(done).unwrap().unwrap();
        bench.turn(20);
    }
    let counters = queue.counters();
    assert!(counters.segments_recycled > 5, "{counters:?}");
    assert_eq!(counters.bytes_zeroed, (counters.segments_created - 1) * FILLED, "{counters:?}");
}

#[test]
fn nothing_is_filled_when_nothing_is_flushed() {
    for durability in [Durability::Os, Durability::Memory] {
        let store = MemoryStore::new();
        let (bench, queue) = start_with(&store, QueueOptions { durability, ..options() });
        bench.turn(50);
        assert_eq!((queue.segments().prepared, queue.counters().bytes_zeroed), (1, 0));
    }
}

#[test]
fn a_crash_at_any_operation_while_filling_loses_nothing() {
    let run = |stop: Option<usize>| {
        let store = MemoryStore::new();
        let (queue, _) = open(&store);
        let opened = store.operations().len();
        if let Some(stop) = stop {
            store.stop_at(opened + stop);
        }
        let mut driven = Driven::new(queue);
        driven.run(&[
            Step::Append { recipients: 1, size: 3000 },
            Step::Turn { rounds: 4 },
            Step::Append { recipients: 1, size: 3000 },
            Step::Turn { rounds: 30 },
            Step::Append { recipients: 2, size: 6000 },
            Step::Turn { rounds: 30 },
        ]);
        (store, driven, opened)
    };
    let (store, driven, opened) = run(None);
    assert_eq!(driven.queue.counters().bytes_zeroed, FILLED);
    let total = store.operations().len() - opened;
    assert!(total > 14, "three commits, four steps and the rest: {total}");
    for at in 0..=total {
        let (store, driven, _) = run(Some(at));
        let seed = at as u64;
        for policy in [
            CrashPolicy::Lose,
            CrashPolicy::Keep,
            CrashPolicy::Torn { seed },
            CrashPolicy::Subset { seed },
        ] {
            driven.check_crash(&store, policy, &format!("operation {at} of {total}"));
        }
    }
}

#[test]
fn the_end_does_not_wait_for_zeroes() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    bench.turn(4);
    queue.close();
    bench.turn(30);
    assert!(bench.jobs.borrow().is_empty(), "the committer has ended");
    assert!(queue.counters().bytes_zeroed < FILLED, "{:?}", queue.counters());
}

#[test]
fn files_too_many_go_one_at_a_time_and_only_while_little_happens() {
    let store = MemoryStore::new();
    let options = QueueOptions { spares_max: 2, ..options() };
    let (bench, queue) = start_with(&store, options);
    let delivered = [outcome(0, Disposition::Delivered, 1)];
    let ids: Vec<_> =
        (0..60).map(|_| put(&bench, &queue, "a@example.com", 1, &[b'x'; 9000])).collect();
    for id in ids {
        bench.run(queue.record(id, &delivered).unwrap()).unwrap().unwrap();
    }
    bench.turn(200);
    let spare = queue.segments().spare;
    assert!(spare > 5, "{:?}", queue.segments());
    let trimmed = || {
        queue.trim();
        bench.turn(20);
        queue.segments().spare
    };
    assert_eq!(trimmed(), spare, "much was appended since the last time");
    assert_eq!(trimmed(), spare - 1);
    for _ in 0..2 {
        put(&bench, &queue, "a@example.com", 1, b".\r\n");
    }
    assert_eq!(queue.segments().spare, spare - 1, "nobody else removes any");
    assert_eq!(trimmed(), spare - 2, "a little mail does not matter");
    for _ in 0..20 {
        trimmed();
    }
    // A file that the last roster lists stays until there is another roster.
    assert!((2..=3).contains(&queue.segments().spare), "{:?}", queue.segments());
}

/// A hundred sessions, each sending its next message when the last is committed.
#[test]
fn a_flush_carries_many_messages_and_a_lone_message_waits_for_nobody() {
    const SESSIONS: usize = 100;
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    bench.turn(50);
    let before = queue.counters();
    store.hold_syncs(true);
    let send = || queue.append(&envelope("a@x", 1), |_, _| {}, &[&[b'x'; 200]]).unwrap().1;
    let lone = send();
    bench.turn(3);
    assert_eq!(store.syncs_held(), 1, "it is being flushed already");
    let mut waiting: Vec<_> = (0..SESSIONS).map(|_| send()).collect();
    store.hold_syncs(false);
    bench.run(lone).unwrap().unwrap();
    assert_eq!(queue.counters().flushes - before.flushes, 1);
    let rounds = 10;
    for _ in 0..rounds {
        for commit in std::mem::take(&mut waiting) {
            bench.run(commit).unwrap().unwrap();
            waiting.push(send());
        }
    }
    let counters = queue.counters();
    let messages = (counters.appends - before.appends) as f64;
    let flushes = (counters.flushes - before.flushes) as f64;
    assert!(flushes / messages <= 0.05, "{flushes} for {messages}");
}
