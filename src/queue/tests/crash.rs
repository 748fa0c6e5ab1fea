//! Power loss at every write and flush of a scripted load, and damage on disk.

use super::model::{Driven, Step};
use super::*;
use crate::io::memory::CrashPolicy;
use crate::io::store::BLOCK;
use crate::queue::format::{DATA_START, segment_name};
use crate::queue::{Damage, Reader};

/// Messages of every kind, outcomes of every kind, old mail that keeps waiting
/// while segments come and go.
fn script() -> Vec<Step> {
    let mut steps = vec![
        Step::Append { recipients: 3, size: 700 },
        Step::Record { message: 0, recipient: 0, last: true },
        Step::Turn { rounds: 3 },
        Step::Stream { size: 20_000, part: 7000 },
        Step::Record { message: 0, recipient: 1, last: false },
        Step::Abandon { size: 12_000 },
    ];
    for round in 0..14 {
        steps.push(Step::Append { recipients: 1, size: 3000 + 500 * (round % 5) });
        steps.push(Step::Append { recipients: 2, size: 100 });
        steps.push(Step::Turn { rounds: round % 4 });
        steps.push(Step::Record { message: 0, recipient: 1 + round % 2, last: false });
        steps.push(Step::Hold { message: 0, recipient: 2, hold: round % 3 == 0 });
        steps.push(Step::Append { recipients: 1, size: 8000 });
        steps.push(Step::Turn { rounds: 1 + round % 7 });
        for (message, recipient) in [(2, 0), (3, 0), (3, 1), (2, 0)] {
            steps.push(Step::Record { message, recipient, last: true });
        }
        steps.push(Step::Drop { message: 2, recipient: 1 });
        steps.push(Step::Turn { rounds: 12 });
    }
    steps
}

fn policies(seed: u64) -> [CrashPolicy; 5] {
    [
        CrashPolicy::Lose,
        CrashPolicy::Keep,
        CrashPolicy::Torn { seed },
        CrashPolicy::Subset { seed },
        CrashPolicy::Subset { seed: seed + 1 },
    ]
}

/// Runs the script on a store prepared by `prepare`, after an opening that
/// always succeeds.
fn run(prepare: impl FnOnce(&MemoryStore, usize)) -> (MemoryStore, Driven, usize) {
    let store = MemoryStore::new();
    let (queue, _) = open(&store);
    let opened = store.operations().len();
    prepare(&store, opened);
    let mut driven = Driven::new(queue);
    driven.run(&script());
    (store, driven, opened)
}

#[test]
fn a_crash_at_any_operation_loses_nothing_acknowledged() {
    let (store, driven, opened) = run(|_, _| {});
    let total = store.operations().len();
    driven.check(&driven.queue, "no crash");
    let counters = driven.queue.counters();
    assert!(counters.segments_recycled >= 2 && counters.segments_freed >= 3, "{counters:?}");
    assert!(counters.messages_moved >= 3 && counters.checkpoints >= 3, "{counters:?}");
    assert!(total > opened + 60, "{total}");
    for at in opened..=total {
        let (store, driven, _) = run(|store, _| store.stop_at(at));
        assert_eq!(driven.queue.poisoned().is_some(), at < total, "{at}");
        for policy in policies(at as u64) {
            driven.check_crash(&store, policy, &format!("operation {at}"));
        }
    }
}

#[test]
fn a_crash_while_recovering_loses_nothing_either() {
    let (store, driven, _) = run(|_, _| {});
    let torn = store.crash_image(CrashPolicy::Torn { seed: 3 });
    let (_, report) = open(&torn.crash_image(CrashPolicy::Keep));
    assert!(report.messages > 0);
    for at in 0..20 {
        let image = store.crash_image(CrashPolicy::Torn { seed: 3 });
        image.stop_at(at);
        let opened =
            futures_lite::future::block_on(Queue::open(image.clone(), options(), NOW)).is_ok();
        for policy in policies(at as u64) {
            driven.check_crash(&image, policy, &format!("recovery, operation {at}"));
        }
        if opened {
            return;
        }
    }
    panic!("recovery never came to its end");
}

#[test]
fn a_failure_at_any_operation_poisons_and_loses_nothing() {
    let (store, _, opened) = run(|_, _| {});
    let total = store.operations().len();
    for at in (opened..total).step_by(3) {
        let (store, driven, _) = run(|store, _| store.fail_at(at));
        assert!(driven.queue.poisoned().is_some(), "operation {at}");
        assert_eq!(driven.queue.counters().failures, 1, "operation {at}");
        driven.check_crash(&store, CrashPolicy::Lose, &format!("failure at {at}"));
        driven.check_crash(&store, CrashPolicy::Keep, &format!("failure at {at}"));
    }
}

#[test]
fn when_all_is_settled_all_segments_but_one_are_free() {
    let (_, mut driven, _) = run(|_, _| {});
    driven.settle_all();
    driven.bench.turn(200);
    assert_eq!(driven.queue.live(), 0);
    // The current segment stays, and speaks about none but itself.
    assert!(driven.queue.segments().in_use <= 2, "{:?}", driven.queue.segments());
}

/// Three messages in three batches; the ids.
fn three(store: &MemoryStore) -> Vec<QueueId> {
    let (bench, queue) = start(store);
    let ids = (0..3).map(|n| put(&bench, &queue, "a@example.com", 1, &[b'a' + n; 3000])).collect();
    queue.close();
    bench.turn(50);
    ids
}

pub(super) fn flip(store: &MemoryStore, segment: u32, offset: u32) {
    let name = segment_name(segment);
    let mut bytes = store.contents(&name).unwrap();
    bytes[offset as usize] ^= 0x20;
    store.put(&name, bytes);
}

#[test]
fn damage_in_the_middle_is_reported_kept_and_stepped_over() {
    let store = MemoryStore::new();
    let ids = three(&store);
    let hit = ids[1].place;
    flip(&store, hit.segment, hit.offset + 1000);
    for _ in 0..3 {
        let (queue, report) = open(&store);
        let what = "no sound record";
        let len = report.damage[0].len;
        let expected = Damage { segment: hit.segment, offset: hit.offset, len, what };
        assert_eq!((&report.damage[..], report.cut), (&[expected][..], None));
        assert!((3000..3400).contains(&len), "{len}");
        assert_eq!(queue.ids_after(None, 9), [ids[0], ids[2]]);
        assert_eq!(queue.segments().quarantined, 1);
        let bench = Bench::new();
        assert_eq!(body_of(&bench, &queue, ids[2]), [b'c'; 3000]);
    }
    // Settled or not, the segment is kept for whoever wants to look at it.
    let (bench, queue) = start(&store);
    for id in [ids[0], ids[2]] {
        let commit = queue.record(id, &[outcome(0, Disposition::Delivered, 1)]).unwrap();
        bench.run(commit).unwrap().unwrap();
    }
    for _ in 0..60 {
        let id = put(&bench, &queue, "b@example.com", 1, &[b'x'; 7000]);
        drop(queue.record(id, &[outcome(0, Disposition::Delivered, 1)]).unwrap());
    }
    bench.turn(100);
    assert!(queue.counters().segments_recycled > 0);
    queue.close();
    bench.turn(100);
    let (queue, report) = open(&store);
    assert_eq!((queue.live(), report.damage.len()), (0, 1), "the settled stay settled");
    assert_eq!(queue.segments().quarantined, 1);
}

#[test]
fn damage_is_never_given_out_as_mail() {
    let store = MemoryStore::new();
    let ids = three(&store);
    let (queue, _) = open(&store);
    flip(&store, ids[1].place.segment, ids[1].place.offset + 1000);
    let bench = Bench::new();
    let reader = Reader::new(store.clone());
    assert!(bench.run(reader.load(ids[1].place, at_home(ids[1]))).unwrap().is_err());
    assert!(bench.run(queue.load(ids[1])).unwrap().is_err());
    assert!(bench.run(reader.load(ids[2].place, at_home(ids[2]))).unwrap().is_ok());
}

#[test]
fn damage_at_the_end_of_a_segment_is_noticed() {
    let store = MemoryStore::new();
    let ids = three(&store);
    let (bench, queue) = start(&store);
    put(&bench, &queue, "b@example.com", 1, b"later\r\n.\r\n");
    drop(queue);
    flip(&store, ids[2].place.segment, ids[2].place.offset + 10);
    let (queue, report) = open(&store);
    assert_eq!(report.damage.len(), 1, "{report:?}");
    assert_eq!(report.damage[0].segment, ids[2].place.segment);
    assert_eq!(queue.live(), 3);
}

#[test]
fn an_unfinished_write_at_the_end_is_cut_and_its_parts_are_not_damage() {
    let store = MemoryStore::new();
    let ids = three(&store);
    let last = ids[2].place;
    // The last batch was never acknowledged, as far as the log can tell.
    flip(&store, last.segment, last.offset + 1000);
    let (queue, report) = open(&store);
    assert_eq!((report.damage.len(), queue.live()), (0, 2));
    let cut = report.cut.map(|cut| cut.segment);
    assert_eq!(cut, Some(last.segment), "{report:?}");
    let (_, report) = open(&store);
    assert_eq!((report.damage.len(), report.cut), (0, None));
}

#[test]
fn files_that_are_not_ours_are_reported_and_left_alone() {
    let store = MemoryStore::new();
    let ids = three(&store);
    store.put("notes.txt", b"hello".to_vec());
    store.put("000000ff.seg", vec![0; 3 * BLOCK]);
    store.put("000000fe.seg", b"short".to_vec());
    let name = segment_name(ids[0].place.segment);
    store.put("000000fd.seg", store.contents(&name).unwrap());
    let (queue, report) = open(&store);
    let mut foreign: Vec<&str> = report.foreign.iter().map(|(name, _)| &name[..]).collect();
    foreign.sort_unstable();
    assert_eq!(foreign, ["000000fd.seg", "000000fe.seg", "000000ff.seg", "notes.txt"]);
    assert_eq!(queue.live(), 3);
    let (bench, queue) = start(&store);
    let id = put(&bench, &queue, "a@example.com", 1, b".\r\n");
    assert!(id.place.segment > 0xff, "numbers seen are not used again");
    assert_eq!(store.contents("notes.txt").unwrap(), b"hello");
    let other = QueueOptions { log: crate::base::ShardId(8), ..options() };
    let (queue, report) = open_with(&store, other);
    assert_eq!(queue.live(), 0);
    assert!(report.foreign.iter().any(|(_, why)| why == "a segment of log 0"), "{report:?}");
}

#[test]
fn one_copy_of_a_segment_header_is_enough() {
    let store = MemoryStore::new();
    let ids = three(&store);
    flip(&store, ids[0].place.segment, 20);
    let (queue, report) = open(&store);
    assert_eq!((queue.live(), report.foreign.len()), (3, 0));
    flip(&store, ids[0].place.segment, BLOCK as u32 + 20);
    assert!(DATA_START as usize > BLOCK + 20);
    let checkpoint = crate::queue::format::checkpoint_name(ids[0].place.segment);
    assert!(store.contents(&checkpoint).is_some(), "written at the start before");
    let (queue, report) = open(&store);
    assert_eq!((queue.live(), report.foreign.len()), (0, 1));
    assert!(store.contents(&checkpoint).is_some(), "it may help to rescue what is there");
}

#[test]
fn a_settled_streamed_message_may_lose_its_middle_before_its_ends() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    let before = put(&bench, &queue, "b@example.com", 1, b".\r\n");
    let long = put(&bench, &queue, "l@example.com", 1, &[b'x'; 185_000]);
    let commit = queue.message(long).unwrap().at.commit.unwrap();
    assert!(commit.segment > long.place.segment + 1, "parts lie in segments between");
    let after = put(&bench, &queue, "a@example.com", 1, b".\r\n");
    assert_eq!(after.place.segment, commit.segment);
    let done = queue.record(long, &[outcome(0, Disposition::Delivered, 1)]).unwrap();
    bench.run(done).unwrap().unwrap();
    bench.turn(100);
    assert!(queue.counters().segments_freed > 0);
    let (queue, report) = open(&store.crash_image(CrashPolicy::Lose));
    assert_eq!(report.damage, []);
    assert_eq!(queue.ids_after(None, 9), [before, after]);
}

#[test]
fn a_streamed_message_that_lost_a_part_is_reported() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    let long = put(&bench, &queue, "l@example.com", 1, &[b'x'; 40_000]);
    let after = put(&bench, &queue, "a@example.com", 1, b".\r\n");
    flip(&store, long.place.segment, long.place.offset + 20_000);
    let (queue, report) = open(&store);
    assert_eq!(report.damage.len(), 2, "the part, and the message: {report:?}");
    assert_eq!(queue.ids_after(None, 9), [after]);
}
