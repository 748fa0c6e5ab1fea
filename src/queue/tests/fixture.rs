//! Logs as released versions have written them, which every later version must
//! read: `tests/fixtures/log-vN` for format version N.

use std::path::PathBuf;

use super::*;
use crate::base::dsn::{Dsn, Notify, RecipientDsn, Ret};
use crate::base::terms::{ByMode, DeliverBy, Terms};
use crate::queue::Action;
use crate::queue::format::FORMAT_VERSION;

fn fixture(version: u32) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join(format!("tests/fixtures/log-v{version}"))
}

fn long_body() -> Vec<u8> {
    let line = |n: u32| format!("line {n} of a long message\r\n").into_bytes();
    (0..1200).flat_map(line).chain(*b".\r\n").collect()
}

/// A message of the log: sender, body, and the attempts made for each recipient
/// that is left.
type Expected = (&'static str, Vec<u8>, Vec<(u16, u16)>);

/// What the log is about, in the order of its ids. Holds and moves came with
/// version 2, what senders ask about reports with version 3, terms with version 4.
fn expected(version: u32) -> Vec<Expected> {
    let mut all = vec![
        ("deferred@example.com", b"Subject: 1\r\n\r\none\r\n.\r\n".to_vec(), vec![(1, 3), (2, 0)]),
        ("long@example.com", long_body(), vec![(0, 1)]),
        ("late@example.com", b"Subject: 3\r\n\r\n..three\r\n.\r\n".to_vec(), vec![(0, 0)]),
    ];
    if version >= 2 {
        all.push(("held@example.com", b"Subject: 4\r\n\r\nheld\r\n.\r\n".to_vec(), vec![(0, 0)]));
    }
    if version >= 3 {
        all.push(("asks@example.com", b"Subject: 5\r\n\r\nasks\r\n.\r\n".to_vec(), vec![(1, 0)]));
    }
    if version >= 4 {
        let kept = b"Subject: 6\r\n\r\nkept\r\n.\r\n".to_vec();
        all.push(("kept@example.com", kept, vec![(0, 0), (1, 1)]));
    }
    all
}

/// What the last of them asks.
fn asked() -> Box<Dsn> {
    let orcpt = Some("rfc822;r+2B1@example.org".to_owned());
    let second = RecipientDsn { notify: Some(Notify::ABSENT), orcpt };
    let recipients = vec![RecipientDsn::default(), second];
    Box::new(Dsn { ret: Some(Ret::Headers), envid: Some("QQ+2B1".into()), recipients })
}

/// The terms of the one that is kept.
fn terms() -> Box<Terms> {
    let by = DeliverBy { at_ms: NOW.0 + 9_000_000, mode: ByMode::Notify, trace: true };
    Box::new(Terms {
        binary: true,
        no_final_crlf: true,
        deliver_by: Some(by),
        hold_until_ms: Some(NOW.0 + 7_000_000),
        priority: -3,
        require_tls: true,
        tls_optional: false,
        auth: Some("j+=\u{f6}rg@example.com".into()),
        user: Some("j\u{f6}rg".into()),
        secured: Some("TLS1.3 TLS_AES_256_GCM_SHA384".into()),
    })
}

/// Run by hand when the format version changes, to add the new fixture.
#[test]
#[ignore = "writes a fixture into the source tree"]
fn write_the_fixture() {
    let store = MemoryStore::new();
    let (bench, queue) = start(&store);
    let record = |id, outcomes: &[Outcome]| {
        bench.run(queue.record(id, outcomes).unwrap()).unwrap().unwrap();
    };
    let [first, long, late, held, asks, kept] = &expected(4)[..] else { unreachable!() };
    let deferred = put(&bench, &queue, first.0, 3, &first.1);
    record(
        deferred,
        &[outcome(0, Disposition::Delivered, 1), outcome(1, Disposition::Deferred, 1)],
    );
    let filler = |size: usize| {
        let id = put(&bench, &queue, "filler@example.com", 1, &vec![b'x'; size]);
        record(id, &[outcome(0, Disposition::Failed, 1)]);
    };
    (0..4).for_each(|_| filler(7000));
    let long = put(&bench, &queue, long.0, 1, &long.1);
    record(deferred, &[outcome(1, Disposition::Deferred, 2)]);
    record(long, &[outcome(0, Disposition::Deferred, 1)]);
    (0..8).for_each(|_| filler(7000));
    // The segment of this outcome is freed: survivors take its place.
    record(deferred, &[outcome(1, Disposition::Deferred, 3)]);
    (0..8).for_each(|_| filler(7000));
    put(&bench, &queue, late.0, 1, &late.1);
    bench.turn(100);
    // The first message moves, and one that waits is held.
    queue.put_back(deferred, &[2], NOW);
    let held = put(&bench, &queue, held.0, 1, &held.1);
    queue.put_back(held, &[0], NOW);
    let carried = queue.order(held, Action::Hold, &[0], "root (uid 0)", NOW).unwrap();
    bench.run(carried.commit).unwrap().unwrap();
    let (asks, commit) = {
        let envelope = Envelope { dsn: Some(asked()), ..envelope(asks.0, 2) };
        queue.append(&envelope, |_, _| {}, &[&asks.1]).unwrap()
    };
    bench.run(commit).unwrap().unwrap();
    record(asks, &[outcome(0, Disposition::Delivered, 1)]);
    let (kept, commit) = {
        let envelope = Envelope { terms: Some(terms()), ..envelope(kept.0, 2) };
        queue.append(&envelope, |_, _| {}, &[&kept.1]).unwrap()
    };
    bench.run(commit).unwrap().unwrap();
    queue.postpone(kept, NOW);
    record(kept, &[outcome(1, Disposition::Deferred, 1)]);
    queue.allow_cleaning(u64::MAX);
    (0..20).for_each(|_| filler(7000));
    bench.turn(100);
    for id in [deferred, kept] {
        assert!(queue.message(id).unwrap().at.first > id.place, "it has moved");
    }
    drop(queue.stream(&envelope("abandoned@example.com", 1), |_, _| {}).unwrap());
    queue.close();
    bench.turn(100);
    let dir = fixture(FORMAT_VERSION);
    std::fs::create_dir_all(&dir).unwrap();
    for name in futures_lite::future::block_on(crate::io::store::Store::list(&store)).unwrap() {
        std::fs::write(dir.join(&name), store.contents(&name).unwrap()).unwrap();
    }
}

#[test]
fn logs_of_every_version_open() {
    for version in 1..=FORMAT_VERSION {
        let store = MemoryStore::new();
        for entry in std::fs::read_dir(fixture(version)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            store.put(&name, std::fs::read(entry.path()).unwrap());
        }
        let (queue, report) = open(&store);
        assert_eq!((&report.damage[..], &report.foreign[..]), (&[][..], &[][..]), "{report:?}");
        assert_eq!(report.unfinished, 1, "{report:?}");
        let bench = Bench::new();
        let ids = queue.ids_after(None, 9);
        assert_eq!(ids.len(), expected(version).len());
        for (id, (sender, body, recipients)) in ids.into_iter().zip(expected(version)) {
            let envelope = bench.run(queue.envelope(id)).unwrap().unwrap();
            assert_eq!(envelope.sender, sender);
            assert_eq!(envelope.dsn, sender.starts_with("asks").then(asked));
            assert_eq!(envelope.terms, sender.starts_with("kept").then(terms));
            assert_eq!(body_of(&bench, &queue, id), body);
            let state = queue.message(id).unwrap();
            let found: Vec<_> =
                state.recipients.iter().map(|r| (r.recipient, r.attempts)).collect();
            assert_eq!(found, recipients, "{sender}");
            assert_eq!(state.recipients[0].held, sender.starts_with("held"), "{sender}");
            let is_kept = sender.starts_with("kept");
            let kept: Vec<_> = state.recipients.iter().map(|r| r.postponed).collect();
            assert_eq!(kept.contains(&true), is_kept, "{sender}");
            if is_kept {
                assert_eq!(kept, [true, false], "an attempt ends it");
                assert_eq!(state.recipients[0].next_attempt, UnixMillis(NOW.0 + 7_000_000));
            }
            let tried = recipients.into_iter().filter(|(_, attempts)| *attempts > 0);
            let words: Vec<_> =
                tried.map(|(at, n)| outcome(at, Disposition::Deferred, n)).collect();
            assert_eq!(bench.run(queue.last_outcomes(id)).unwrap().unwrap(), words, "{sender}");
        }
    }
}
