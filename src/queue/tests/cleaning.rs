//! Cleaning: what little is needed of old segments moves, keeps its id, its
//! state and its bytes, and the disk does not grow.

use super::*;
use crate::base::Place;
use crate::io::memory::CrashPolicy;
use crate::queue::Action;

/// Settles a message.
fn settle(bench: &Bench, queue: &Queue<MemoryStore>, id: QueueId) {
    let commit = queue.record(id, &[outcome(0, Disposition::Delivered, 1)]).unwrap();
    bench.run(commit).unwrap().unwrap();
}

/// Defers a recipient, as the relay would.
fn defer(bench: &Bench, queue: &Queue<MemoryStore>, id: QueueId, recipient: u16, attempts: u16) {
    let word = [outcome(recipient, Disposition::Deferred, attempts)];
    bench.run(queue.record(id, &word).unwrap()).unwrap().unwrap();
}

/// Mail that comes and goes until the log has gone on by some segments.
fn pass_mail(bench: &Bench, queue: &Queue<MemoryStore>, messages: usize) {
    for _ in 0..messages {
        let id = put(bench, queue, "passing@example.com", 1, &[b'x'; 6000]);
        settle(bench, queue, id);
        queue.allow_cleaning(u64::MAX);
        bench.turn(5);
    }
    bench.turn(100);
}

fn word(bench: &Bench, queue: &Queue<MemoryStore>, id: QueueId) -> Vec<Outcome> {
    bench.run(queue.last_outcomes(id)).unwrap().unwrap()
}

#[test]
fn a_message_that_waits_moves_on_and_stays_what_it_was() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    let long: Vec<u8> = (0..20_000u32).map(|n| (n % 251) as u8).collect();
    let ids = [
        put(&bench, &queue, "small@example.com", 3, b"Subject: 1\r\n\r\n.\r\n"),
        put(&bench, &queue, "long@example.com", 1, &long),
        put(&bench, &queue, "untried@example.com", 1, b"untried\r\n.\r\n"),
    ];
    settle(&bench, &queue, ids[0]);
    defer(&bench, &queue, ids[0], 1, 1);
    queue.put_back(ids[0], &[2], NOW);
    defer(&bench, &queue, ids[1], 0, 4);
    queue.put_back(ids[2], &[0], NOW);
    pass_mail(&bench, &queue, 60);
    for id in ids {
        let at = queue.message(id).unwrap().at;
        assert!(at.first.segment > id.place.segment, "{id} has not moved: {at:?}");
    }
    assert!(queue.counters().messages_moved >= 3, "{:?}", queue.counters());
    assert!(queue.segments().in_use <= 5, "{:?}", queue.segments());
    let check = |bench: &Bench, queue: &Queue<MemoryStore>| {
        assert_eq!(queue.ids_after(None, 9), ids);
        let pending = |id| {
            let state = queue.message(id).unwrap();
            state.recipients.iter().map(|r| (r.recipient, r.attempts)).collect::<Vec<_>>()
        };
        assert_eq!(pending(ids[0]), [(1, 1), (2, 0)]);
        assert_eq!(pending(ids[1]), [(0, 4)]);
        assert_eq!(pending(ids[2]), [(0, 0)]);
        assert_eq!(word(bench, queue, ids[0]), [outcome(1, Disposition::Deferred, 1)]);
        assert_eq!(word(bench, queue, ids[1]), [outcome(0, Disposition::Deferred, 4)]);
        assert_eq!(word(bench, queue, ids[2]), []);
        assert_eq!(body_of(bench, queue, ids[0]), b"Subject: 1\r\n\r\n.\r\n");
        assert_eq!(body_of(bench, queue, ids[1]), long);
        assert_eq!(body_of(bench, queue, ids[2]), b"untried\r\n.\r\n");
        let sent = bench.run(queue.envelope(ids[1])).unwrap().unwrap();
        assert_eq!(sent, envelope("long@example.com", 1));
    };
    check(&bench, &queue);
    for policy in [CrashPolicy::Lose, CrashPolicy::Keep] {
        let image = store.crash_image(policy);
        let (bench, again) = start(&image);
        check(&bench, &again);
        // It moves on from there, too, and settles where it then is.
        pass_mail(&bench, &again, 60);
        check(&bench, &again);
        defer(&bench, &again, ids[1], 0, 5);
        settle(&bench, &again, ids[2]);
        let (after, report) = open(&image.crash_image(CrashPolicy::Lose));
        assert_eq!((report.damage, report.missing), (vec![], vec![]));
        assert_eq!(after.ids_after(None, 9), ids[..2]);
        assert_eq!(after.message(ids[1]).unwrap().recipients[0].attempts, 5);
    }
}

#[test]
fn what_is_out_or_being_read_stays_where_it_is() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    let out = put(&bench, &queue, "out@example.com", 1, b"out\r\n.\r\n");
    let read = put(&bench, &queue, "read@example.com", 1, b"read\r\n.\r\n");
    queue.put_back(read, &[0], NOW);
    let mut reader = bench.run(queue.body(read)).unwrap().unwrap();
    pass_mail(&bench, &queue, 60);
    let first = |id| queue.message(id).unwrap().at.first;
    assert_eq!((first(out), first(read)), (out.place, read.place));
    assert_eq!(bench.run(reader.next()).unwrap().unwrap().unwrap(), b"read\r\n.\r\n");
    drop(reader);
    queue.put_back(out, &[0], NOW);
    pass_mail(&bench, &queue, 30);
    assert!(first(out) > out.place && first(read) > read.place);
}

#[test]
fn the_parts_of_a_streamed_message_move_one_by_one() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    // Between the parts of it, mail that goes: each segment has a little of it.
    let body: Vec<u8> = (0..40_000u32).map(|n| (n % 241) as u8).collect();
    let mut stream = queue.stream(&envelope("s@example.com", 1), |_, _| {}).unwrap();
    for part in body.chunks(5000) {
        bench.run(stream.push(part)).unwrap().unwrap();
        for _ in 0..10 {
            let id = put(&bench, &queue, "passing@example.com", 1, &[b'x'; 6000]);
            settle(&bench, &queue, id);
        }
    }
    let id = stream.id();
    bench.run(stream.finish().unwrap()).unwrap().unwrap();
    assert_eq!(queue.message(id).unwrap().at.first, id.place);
    assert!(queue.segments().in_use > 6, "{:?}", queue.segments());
    queue.put_back(id, &[0], NOW);
    pass_mail(&bench, &queue, 40);
    assert!(queue.segments().in_use <= 5, "{:?}", queue.segments());
    assert_eq!(body_of(&bench, &queue, id), body);
    let (again, report) = open(&store.crash_image(CrashPolicy::Lose));
    assert_eq!((report.damage, again.live()), (vec![], 1));
    assert_eq!(body_of(&Bench::new(), &again, id), body);
}

#[test]
fn cleaning_writes_no_more_than_it_may() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    let mut kept = Vec::new();
    for round in 0..120 {
        let id = put(&bench, &queue, "a@example.com", 1, &[b'x'; 6000]);
        if round % 10 == 0 {
            queue.put_back(id, &[0], NOW);
            kept.push(id);
        } else {
            settle(&bench, &queue, id);
        }
        let counters = queue.counters();
        let mail = 6100 * (round + 1);
        assert!(counters.bytes_moved <= mail + 8192, "{counters:?}");
    }
    bench.turn(500);
    let moved = queue.counters().bytes_moved;
    bench.turn(500);
    assert_eq!(queue.counters().bytes_moved, moved, "nothing more is allowed");
    assert_eq!(queue.ids_after(None, 99), kept);
}

/// Mail of which a share waits for long: how much the disk holds for each byte
/// needed.
#[test]
fn the_disk_holds_less_than_twice_what_is_needed_under_a_mixed_load() {
    let store = MemoryStore::untracked();
    let options = QueueOptions { outcomes_wait: true, ..options() };
    let (bench, queue) = start_with(&store, options);
    let mut waiting = std::collections::VecDeque::new();
    let mut worst = 0.0f64;
    for round in 0..600usize {
        let mut last = None;
        let sent: Vec<(usize, QueueId)> = (0..20)
            .map(|n| {
                let body = vec![b'x'; 500 + (round * 7919 + n * 613) % 9000];
                let sent = envelope("a@example.com", 1);
                let (id, commit) = queue.append(&sent, |_, _| {}, &[&body]).unwrap();
                last = Some(commit);
                (n, id)
            })
            .collect();
        bench.run(last.unwrap()).unwrap().unwrap();
        for (n, id) in sent {
            let disposition = if n < 6 { Disposition::Deferred } else { Disposition::Delivered };
            drop(queue.record(id, &[outcome(0, disposition, 1)]).unwrap());
            if n < 6 {
                waiting.push_back((n, id));
            }
        }
        // One in six waits for ever, the others for some hundred messages.
        while waiting.len() > 800 {
            let (n, id) = waiting.pop_front().unwrap();
            if n > 0 {
                drop(queue.record(id, &[outcome(0, Disposition::Delivered, 2)]).unwrap());
            }
        }
        bench.turn(40);
        if round > 200 {
            worst = worst.max(queue.segments().amplification());
        }
    }
    let (segments, counters) = (queue.segments(), queue.counters());
    assert!(worst < 2.0, "{worst}: {segments:?} {counters:?}");
    let used = store.used() as f64 / segments.live_bytes as f64;
    assert!(used < 2.2, "{used} with spares and checkpoints: {segments:?}");
    assert!(counters.messages_moved > 100, "{counters:?}");
    let mail = counters.bytes_appended - counters.bytes_moved;
    assert!(counters.bytes_moved <= mail, "{counters:?}");
}

#[test]
fn holds_move_along() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    let id = put(&bench, &queue, "a@example.com", 2, b"held\r\n.\r\n");
    queue.put_back(id, &[0, 1], NOW);
    let carried = queue.order(id, Action::Hold, &[1], "root (uid 0)", NOW).unwrap();
    assert_eq!(carried.recipients, [1]);
    bench.run(carried.commit).unwrap().unwrap();
    pass_mail(&bench, &queue, 60);
    assert!(queue.message(id).unwrap().at.first > id.place);
    let (again, _) = open(&store.crash_image(CrashPolicy::Lose));
    let held: Vec<bool> = again.message(id).unwrap().recipients.iter().map(|r| r.held).collect();
    assert_eq!(held, [false, true]);
    assert_eq!(again.take_due(NOW, 9), [(id, [0].into_iter().collect())]);
}

#[test]
fn what_waits_for_its_destination_moves_along_and_is_due_after_a_start() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    let id = put(&bench, &queue, "a@example.com", 2, b"waits\r\n.\r\n");
    let deferred = outcome(1, Disposition::Deferred, 1);
    bench.run(queue.record(id, &[deferred]).unwrap()).unwrap().unwrap();
    let later = UnixMillis(NOW.0 + 1_000_000);
    assert_eq!(queue.take_due(UnixMillis(later.0 - 1), 9)[0].1[..], [1]);
    queue.park(id, &[0, 1], later);
    pass_mail(&bench, &queue, 60);
    assert!(queue.message(id).unwrap().at.first > id.place, "nothing holds it where it was");
    assert!(queue.message(id).unwrap().recipients.iter().all(|r| r.waiting && !r.out));
    let (again, _) = open(&store.crash_image(CrashPolicy::Lose));
    assert_eq!(again.take_due(NOW, 9), [(id, [0, 1].into_iter().collect())]);
}

#[test]
fn a_damaged_message_is_left_where_it_is_and_its_segment_kept() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    let good = put(&bench, &queue, "good@example.com", 1, b"good\r\n.\r\n");
    let bad = put(&bench, &queue, "bad@example.com", 1, &[b'b'; 3000]);
    queue.put_back(good, &[0], NOW);
    queue.put_back(bad, &[0], NOW);
    super::crash::flip(&store, bad.place.segment, bad.place.offset + 1000);
    pass_mail(&bench, &queue, 60);
    let Place { segment, .. } = bad.place;
    assert_eq!(queue.message(bad).unwrap().at.first.segment, segment);
    assert_eq!((queue.segments().quarantined, queue.counters().damaged), (1, 1));
    assert!(bench.run(queue.load(bad)).unwrap().is_err());
    assert_eq!(body_of(&bench, &queue, good), b"good\r\n.\r\n");
    // The next start finds it too, and still knows of the message.
    bench.turn(50);
    let (again, report) = open(&store.crash_image(CrashPolicy::Lose));
    assert_eq!((report.damage.len(), report.damage[0].segment), (1, segment), "{report:?}");
    assert_eq!(again.segments().quarantined, 1);
    assert_eq!(again.ids_after(None, 9), [good, bad]);
    settle(&bench, &queue, bad);
    settle(&bench, &queue, good);
    pass_mail(&bench, &queue, 30);
    assert_eq!(queue.segments().quarantined, 1, "kept though nothing in it is needed");
    // And so it is after the next start.
    queue.close();
    bench.turn(100);
    for _ in 0..2 {
        let (queue, report) = open(&store);
        assert_eq!(report.damage.len(), 1, "{report:?}");
        assert_eq!((report.damage[0].segment, queue.segments().quarantined), (segment, 1));
    }
}
