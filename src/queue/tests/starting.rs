//! Starting: mail is taken before what is queued has been read; checkpoints are
//! used where they can be; what is missing, foreign or in the way is named.

use super::*;
use crate::io::memory::CrashPolicy;
use crate::queue::format::{FORMAT_VERSION, checkpoint_name, segment_name};
use crate::queue::{Loading, QueueError};

fn begin(store: &MemoryStore) -> (Queue<MemoryStore>, Loading<MemoryStore>) {
    futures_lite::future::block_on(Queue::begin(store.clone(), options())).unwrap()
}

/// A log with waiting messages in several segments; their ids.
fn waiting(store: &MemoryStore, messages: usize) -> Vec<QueueId> {
    // Outcomes go with the next message: the segments are full, nothing moves.
    let (bench, queue) = start_with(store, QueueOptions { outcomes_wait: true, ..options() });
    let put = |n: usize| {
        let id = put(&bench, &queue, "a@example.com", 1, &vec![b'a' + (n % 26) as u8; 7000]);
        let word = [outcome(0, Disposition::Deferred, 1 + (n % 3) as u16)];
        drop(queue.record(id, &word).unwrap());
        id
    };
    let ids: Vec<QueueId> = (0..messages).map(put).collect();
    assert_eq!(queue.counters().messages_moved, 0);
    queue.close();
    bench.turn(100);
    ids
}

#[test]
fn mail_is_taken_before_the_queue_is_read_and_nothing_is_due_until_then() {
    let store = MemoryStore::new();
    let ids = waiting(&store, 40);
    let (queue, loading) = begin(&store);
    let bench = Bench::new();
    bench.spawn(queue.clone().run_commits());
    assert!(queue.is_loading() && queue.segments().unread > 2, "{:?}", queue.segments());
    let new = put(&bench, &queue, "new@example.com", 1, b"new\r\n.\r\n");
    let settled = put(&bench, &queue, "settled@example.com", 1, b"x\r\n.\r\n");
    let done = queue.record(settled, &[outcome(0, Disposition::Delivered, 1)]).unwrap();
    bench.run(done).unwrap().unwrap();
    bench.turn(100);
    assert_eq!((queue.live(), queue.next_due()), (1, None));
    let report = bench.run(loading.finish(NOW)).unwrap().unwrap();
    assert_eq!((report.messages, queue.live()), (40, 41));
    assert!(!queue.is_loading() && queue.segments().unread == 0);
    assert_eq!(queue.ids_after(None, 99), [&ids[..], &[new]].concat());
    assert_eq!(queue.take_due(UnixMillis(NOW.0 + 9000), 99).len(), 40);
    assert_eq!(body_of(&bench, &queue, ids[5]), [b'f'; 7000]);
}

#[test]
fn a_start_reads_checkpoints_and_not_the_segments_they_are_of() {
    let store = MemoryStore::new();
    let ids = waiting(&store, 60);
    let (queue, report) = open(&store);
    assert!(report.segments > 6 && report.checkpoints + 2 >= report.segments, "{report:?}");
    assert_eq!(report.bad_checkpoints, []);
    assert_eq!(queue.ids_after(None, 99), ids);
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(queue.message(*id).unwrap().recipients[0].attempts, 1 + (n % 3) as u16);
    }
    // What was read for want of a checkpoint has one now.
    let (_, again) = open(&store);
    assert_eq!(again.checkpoints, again.segments - 1, "{again:?}");
}

#[test]
fn checkpoints_that_cannot_be_used_are_done_without_and_written_anew() {
    type Spoil = fn(&mut Vec<u8>);
    let spoils: [(Spoil, &str); 5] = [
        (|bytes| bytes.truncate(100), "cut short"),
        (|bytes| bytes.clear(), "too short"),
        (|bytes| bytes[200] ^= 1, "damaged"),
        (|bytes| bytes[3] ^= 1, "not a checkpoint, or damaged"),
        (|bytes| bytes.fill(0), "not a checkpoint, or damaged"),
    ];
    for (spoil, why) in spoils {
        let store = MemoryStore::new();
        let ids = waiting(&store, 40);
        let segment = ids[12].place.segment;
        let name = checkpoint_name(segment);
        let mut bytes = store.contents(&name).unwrap();
        spoil(&mut bytes);
        store.put(&name, bytes);
        let (queue, report) = open(&store);
        assert_eq!(report.bad_checkpoints, [(segment, why)]);
        assert_eq!((report.damage, queue.ids_after(None, 99)), (vec![], ids), "{why}");
        let (_, report) = open(&store);
        assert_eq!(report.bad_checkpoints, [], "{why}: written anew");
    }
}

#[test]
fn the_checkpoint_of_another_segment_is_not_used() {
    let store = MemoryStore::new();
    let ids = waiting(&store, 40);
    let (one, other) = (ids[12].place.segment, ids[20].place.segment);
    assert_ne!(one, other);
    store.put(&checkpoint_name(one), store.contents(&checkpoint_name(other)).unwrap());
    let (queue, report) = open(&store);
    assert_eq!(report.bad_checkpoints, [(one, "of another segment")]);
    assert_eq!(queue.ids_after(None, 99), ids);
}

#[test]
fn a_crash_while_loading_loses_nothing() {
    let store = MemoryStore::new();
    let ids = waiting(&store, 40);
    for name in futures_lite::future::block_on(crate::io::store::Store::list(&store)).unwrap() {
        if name.ends_with(".idx") {
            futures_lite::future::block_on(crate::io::store::Store::remove(&store, &name)).unwrap();
        }
    }
    for at in 0..200 {
        let image = store.crash_image(CrashPolicy::Keep);
        image.stop_at(at);
        let opened =
            futures_lite::future::block_on(Queue::open(image.clone(), options(), NOW)).is_ok();
        for policy in
            [CrashPolicy::Lose, CrashPolicy::Keep, CrashPolicy::Subset { seed: at as u64 }]
        {
            let (queue, report) = open(&image.crash_image(policy));
            assert_eq!((report.damage, report.missing), (vec![], vec![]), "{at}");
            assert_eq!(queue.ids_after(None, 99), ids, "{at}");
        }
        if opened {
            return;
        }
    }
    panic!("loading never came to its end");
}

#[test]
fn a_missing_segment_is_named_once() {
    let store = MemoryStore::new();
    let ids = waiting(&store, 40);
    let lost = ids[12].place.segment;
    let gone = store.contents(&segment_name(lost)).unwrap();
    futures_lite::future::block_on(crate::io::store::Store::remove(&store, &segment_name(lost)))
        .unwrap();
    let (queue, report) = open(&store);
    assert_eq!(report.missing, [lost]);
    let left: Vec<_> = ids.iter().filter(|id| id.place.segment != lost).copied().collect();
    assert!(left.len() < ids.len());
    assert_eq!(queue.ids_after(None, 99), left);
    // Brought back, all is there.
    let (_, report) = open(&store);
    assert_eq!(report.missing, [lost], "nothing has been written yet");
    store.put(&segment_name(lost), gone);
    let (bench, queue) = start(&store);
    assert_eq!(queue.ids_after(None, 99), ids);
    // Segments that are freed and used again are not missing.
    for id in ids {
        let done = queue.record(id, &[outcome(0, Disposition::Delivered, 9)]).unwrap();
        bench.run(done).unwrap().unwrap();
    }
    for _ in 0..60 {
        let id = put(&bench, &queue, "b@example.com", 1, &[b'x'; 7000]);
        let done = queue.record(id, &[outcome(0, Disposition::Delivered, 1)]).unwrap();
        bench.run(done).unwrap().unwrap();
        let (_, report) = open(&store.crash_image(CrashPolicy::Keep));
        assert!(report.missing.is_empty(), "{report:?}");
        let (_, report) = open(&store.crash_image(CrashPolicy::Lose));
        assert!(report.missing.is_empty(), "{report:?}");
    }
}

#[test]
fn segments_of_a_later_version_are_left_alone_and_named() {
    let store = MemoryStore::new();
    let ids = waiting(&store, 10);
    let mut later = store.contents(&segment_name(ids[0].place.segment)).unwrap();
    for copy in [0, crate::io::store::BLOCK] {
        later[copy + 8] = FORMAT_VERSION as u8 + 1;
    }
    store.put(&segment_name(0x77), later.clone());
    let (bench, queue) = start(&store);
    assert_eq!(queue.ids_after(None, 99), ids);
    let (_, report) = open(&store.crash_image(CrashPolicy::Keep));
    let version = FORMAT_VERSION + 1;
    let why =
        format!("format version {version}; this version of ringpost reads 1 to {FORMAT_VERSION}");
    assert_eq!(report.foreign, [("00000077.seg".to_owned(), why)]);
    let id = put(&bench, &queue, "b@example.com", 1, b".\r\n");
    assert!(id.place.segment > 0x77, "its number is not used again");
    assert_eq!(store.contents(&segment_name(0x77)).unwrap(), later);
}

#[test]
fn a_full_disk_does_not_keep_a_server_from_starting() {
    let store = MemoryStore::new();
    let ids = waiting(&store, 40);
    // The segment that was prepared is used, full or not.
    let full = store.crash_image(CrashPolicy::Keep);
    full.set_capacity(full.used());
    let (bench, queue) = start(&full);
    assert!(queue.can_record());
    let commit = queue.record(ids[0], &[outcome(0, Disposition::Delivered, 9)]).unwrap();
    bench.run(commit).unwrap().unwrap();
    // Without one, it waits for room.
    let store = store.crash_image(CrashPolicy::Keep);
    let last = begin(&store.crash_image(CrashPolicy::Keep)).0.0.state.borrow().durable;
    let mut removed = 0;
    for name in futures_lite::future::block_on(crate::io::store::Store::list(&store)).unwrap() {
        let unused = name.ends_with(".free") || name > segment_name(last.segment);
        if unused && !name.ends_with(".idx") {
            futures_lite::future::block_on(crate::io::store::Store::remove(&store, &name)).unwrap();
            removed += 1;
        }
    }
    assert!(removed > 0, "one was prepared");
    store.set_capacity(store.used());
    let (bench, queue) = start(&store);
    bench.turn(50);
    assert!(queue.is_full() && !queue.can_record());
    assert_eq!((queue.ids_after(None, 99), queue.poisoned()), (ids.clone(), None));
    let refused = queue.append(&envelope("b@example.com", 1), |_, _| {}, &[b".\r\n"]);
    assert!(matches!(refused, Err(QueueError::Full { .. })));
    let refused = queue.record(ids[0], &[outcome(0, Disposition::Delivered, 9)]);
    assert!(matches!(refused, Err(QueueError::Full { .. })));
    store.set_capacity(1 << 30);
    queue.allow_cleaning(1);
    bench.turn(50);
    assert!(queue.can_record() && !queue.is_full());
    put(&bench, &queue, "b@example.com", 1, b".\r\n");
}

#[test]
fn a_queue_that_is_closed_while_it_is_read_ends() {
    let store = MemoryStore::new();
    waiting(&store, 40);
    let (queue, loading) = begin(&store);
    let bench = Bench::new();
    bench.spawn(queue.clone().run_commits());
    queue.close();
    assert!(matches!(bench.run(loading.finish(NOW)).unwrap(), Err(QueueError::Poisoned(_))));
    bench.turn(100);
    assert!(bench.jobs.borrow().is_empty(), "the committer has ended");
    let (_, report) = open(&store);
    assert_eq!((report.messages, report.damage), (40, vec![]));
}

#[test]
fn reading_a_long_queue_lets_others_run_meanwhile() {
    let store = MemoryStore::untracked();
    let options = QueueOptions { segment_size: 8 << 20, ..options() };
    let (bench, queue) = start_with(&store, options.clone());
    let sent = envelope("a@example.com", 1);
    for _ in 0..100 {
        let append = || queue.append(&sent, |_, _| {}, &[b"short\r\n.\r\n"]).unwrap().1;
        let commits: Vec<_> = std::iter::repeat_with(append).take(1000).collect();
        for commit in commits {
            bench.run(commit).unwrap().unwrap();
        }
    }
    queue.close();
    bench.turn(100);
    let begun = futures_lite::future::block_on(Queue::begin(store.clone(), options));
    let (queue, loading) = begun.unwrap();
    let mut finish = Box::pin(loading.finish(NOW));
    let mut cx = Context::from_waker(Waker::noop());
    let mut turns = 0;
    let report = loop {
        match finish.as_mut().poll(&mut cx) {
            Poll::Ready(report) => break report.unwrap(),
            Poll::Pending => turns += 1,
        }
    };
    assert_eq!((report.messages, queue.live()), (100_000, 100_000));
    assert!(report.segments <= 3 && report.checkpoints > 0, "{report:?}");
    // Some for what is read, and one for some thousand messages found and scheduled.
    assert!(turns > 40, "{turns}");
    assert_eq!(queue.take_due(NOW, usize::MAX).len(), 100_000);
}
