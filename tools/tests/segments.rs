//! `ringpost-segments` on the log that is kept for format version 1 and on logs
//! that the queue makes here, sound and damaged.

#[path = "support/log.rs"]
mod log;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use log::{Made, Maker, envelope, outcome};
use ringpost::base::{Disposition, QueueId};
use ringpost::queue::Action;
use ringpost_tools::segments::{Cli, run};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/log-v1")
}

/// A copy that a test may damage.
fn copy() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

fn tool(arguments: &[&str]) -> (bool, String) {
    let arguments = std::iter::once(&"ringpost-segments").chain(arguments);
    let mut out = Vec::new();
    let sound = run(&Cli::try_parse_from(arguments).unwrap(), &mut out).unwrap();
    (sound, String::from_utf8(out).unwrap())
}

/// A message written to files: its sender, what is said of it, its text.
type Exported = (String, serde_json::Value, Vec<u8>);

/// The messages in a directory, by sender.
fn exported(dir: &Path) -> Vec<Exported> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let described: serde_json::Value =
                serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let body = fs::read(path.with_extension("eml")).unwrap();
            found.push((described["sender"].as_str().unwrap().to_owned(), described, body));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// What `recover` makes of a log, and the messages it wrote.
fn recovered(log: &str, more: &[&str]) -> (bool, String, Vec<Exported>) {
    let out = tempfile::tempdir().unwrap();
    let arguments = ["recover", log, "--out", out.path().to_str().unwrap()];
    let arguments: Vec<&str> = arguments.iter().chain(more).copied().collect();
    let (sound, text) = tool(&arguments);
    (sound, text, exported(out.path()))
}

/// A log in which messages have moved, one of them held for one recipient, and
/// their ids.
struct Moved {
    made: Made,
    ids: Vec<QueueId>,
    /// The files before anything moved.
    before: Vec<(String, Vec<u8>)>,
}

fn moved() -> Moved {
    let mut maker = Maker::new(3);
    let mut ids = Vec::new();
    for n in 0..6 {
        let body = format!("Subject: {n}\r\n\r\n..dotted {n}\r\n.\r\n");
        ids.push(maker.put_deferred(&envelope(&format!("s{n}@example.com"), 3), body.as_bytes()));
        maker.fill(1);
    }
    maker.record(ids[0], &[outcome(1, Disposition::Delivered)]);
    let carried = maker.queue.order(ids[1], Action::Hold, &[2], "root (uid 0)", log::NOW).unwrap();
    maker.run(carried.commit).unwrap();
    maker.fill(2);
    let before = maker.files();
    maker.clean();
    assert!(maker.queue.counters().messages_moved > 3, "{:?}", maker.queue.counters());
    let made = maker.finish(3);
    Moved { made, ids, before }
}

/// What is said of the recipients of an exported message.
fn states(described: &serde_json::Value, what: &str) -> Vec<bool> {
    let recipients = described["recipients"].as_array().unwrap().iter();
    recipients.map(|recipient| recipient[what].as_bool().unwrap()).collect()
}

fn assert_all_six(found: &[Exported], ids: &[QueueId]) {
    assert_eq!(found.len(), 6);
    for (n, (sender, described, body)) in found.iter().enumerate() {
        assert_eq!(sender, &format!("s{n}@example.com"));
        assert_eq!(described["queue_id"].as_str().unwrap(), ids[n].to_string());
        assert_eq!(*body, format!("Subject: {n}\r\n\r\n.dotted {n}\r\n").as_bytes());
    }
    assert_eq!(states(&found[0].1, "pending"), [true, false, true]);
    assert_eq!(states(&found[1].1, "pending"), [true, true, true]);
    assert_eq!(states(&found[1].1, "held"), [false, false, true]);
}

#[test]
fn moved_messages_are_recovered_under_their_ids() {
    let moved = moved();
    let (sound, text) = tool(&["verify", moved.made.path()]);
    assert!(sound && text.starts_with("sound: "), "{text}");
    let (sound, text, found) = recovered(moved.made.path(), &[]);
    assert!(sound && text.starts_with("6 messages written"), "{text}");
    assert_all_six(&found, &moved.ids);
}

#[test]
fn a_message_whose_old_copy_is_still_there_is_recovered_once() {
    let moved = moved();
    // As if the power had failed before the old segments were freed.
    let mut brought_back = 0;
    for (name, bytes) in &moved.before {
        let path = moved.made.dir.join(name);
        if name.ends_with(".seg") && !path.exists() {
            fs::write(path, bytes).unwrap();
            brought_back += 1;
        }
    }
    assert!(brought_back >= 3, "{brought_back}");
    let (_, text, found) = recovered(moved.made.path(), &[]);
    assert!(text.starts_with("6 messages written"), "{text}");
    assert_all_six(&found, &moved.ids);
}

#[test]
fn what_senders_asked_about_reports_is_recovered() {
    let log = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/log-v3");
    let (_, text, found) = recovered(log.to_str().unwrap(), &[]);
    let asks = found.iter().find(|(sender, ..)| sender == "asks@example.com");
    let (_, described, _) = asks.unwrap_or_else(|| panic!("{text}"));
    assert_eq!((&described["ret"], &described["envid"]), (&"HDRS".into(), &"QQ+2B1".into()));
    let second = &described["recipients"][1];
    assert_eq!(second["notify"], serde_json::json!(["FAILURE", "DELAY"]));
    assert_eq!(second["orcpt"], "rfc822;r+2B1@example.org");
    assert!(described["recipients"][0].get("notify").is_none());
}

#[test]
fn some_messages_can_be_asked_for() {
    let Moved { made, ids, .. } = moved();
    let (id, missing) = (ids[2].to_string(), "0000000000000000");
    let (sound, _, found) = recovered(made.path(), &["--id", &id]);
    assert!(sound && found.len() == 1 && found[0].0 == "s2@example.com");
    let (sound, text, found) = recovered(made.path(), &["--id", missing, "--id", &id]);
    assert!(!sound && found.len() == 1, "{text}");
    assert!(text.contains(&format!("{missing}: not queued")), "{text}");
    let newest = made.numbers("seg").into_iter().map(|number| format!("{number:08x}"));
    let found: usize =
        newest.map(|number| recovered(made.path(), &["--segment", &number]).2.len()).sum();
    assert_eq!(found, 6, "each message lies in one segment");
}

#[test]
fn dump_shows_every_kind_of_record() {
    let mut maker = Maker::new(3);
    let first = maker.put_deferred(&envelope("first@example.com", 2), b"one\r\n.\r\n");
    let carried = maker.queue.order(first, Action::Hold, &[1], "root (uid 0)", log::NOW).unwrap();
    maker.run(carried.commit).unwrap();
    maker.put_deferred(&envelope("long@example.com", 1), &long_body());
    let made = maker.finish(3);
    let mut text = tool(&["dump", made.path()]).1;
    let first = first.to_string();
    assert!(text.contains(&format!("{first} hold recipients [1] by root (uid 0) at ")), "{text}");
    let moved = moved();
    text += &tool(&["dump", moved.made.path()]).1;
    assert!(text.contains("; 2 held attempts 1 (450 4.2.0 word 2)"), "{text}");
    text += &tool(&["dump", fixture().to_str().unwrap()]).1;
    for kind in [
        "mark",
        "pad",
        "message",
        "head",
        "chunk",
        "commit",
        "outcome",
        "order",
        "survivors",
        "moved",
        "roster",
    ] {
        assert!(text.lines().any(|line| line.contains(&format!(" {kind} "))), "{kind}: {text}");
    }
    assert!(text.contains("in use: 00000001"), "{text}");
    assert!(text.contains("further parts 00000001:"), "{text}");
}

fn long_body() -> Vec<u8> {
    let line = |n: u32| format!("line {n} of a long message\r\n").into_bytes();
    (0..4000).flat_map(line).chain(*b".\r\n").collect()
}

#[test]
fn checkpoints_are_listed_and_held_against_their_segments() {
    let mut maker = Maker::new(3);
    for n in 0..3 {
        maker.put_deferred(&envelope(&format!("s{n}@example.com"), 1), b"x\r\n.\r\n");
        maker.put_deferred(&envelope("long@example.com", 1), &long_body());
    }
    let made = maker.finish(3);
    let with = made.numbers("idx");
    assert!(with.len() >= 4, "{with:?}");
    let (sound, text) = tool(&["list", made.path()]);
    assert!(sound, "{text}");
    assert!(text.contains("00000001.idx: checkpoint of segment 00000001, "), "{text}");
    let (sound, text) = tool(&["verify", made.path()]);
    assert!(sound && text.contains(&format!("{} checkpoints", with.len())), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");

    // One cut short, one of another segment, one altered: none is damage.
    made.alter(1, "idx", |bytes| bytes.truncate(100));
    fs::copy(made.file(3, "idx"), made.file(2, "idx")).unwrap();
    made.alter(3, "idx", |bytes| bytes[60] ^= 1);
    let (sound, text) = tool(&["verify", made.path()]);
    assert!(sound, "{text}");
    for (number, why) in [(1, "cut short"), (2, "of another segment"), (3, "damaged")] {
        let line = format!("checkpoint of segment {number:08x}: {why}; will be written anew");
        assert!(text.contains(&line), "{text}");
    }
    let (sound, text) = tool(&["list", made.path()]);
    assert!(sound && text.contains("not to be used: cut short"), "{text}");

    fs::copy(made.file(4, "idx"), made.file(0x77, "idx")).unwrap();
    let (sound, text) = tool(&["verify", made.path()]);
    assert!(sound && text.contains("checkpoint of segment 00000077, which"), "{text}");
}

/// Makes a checkpoint sound again after its archive has been altered.
fn resign(bytes: &mut [u8]) {
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let len = word(bytes, 32) as usize;
    let crc = crc32c::crc32c(&bytes[48..48 + len]);
    bytes[36..40].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..44]);
    bytes[44..48].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_sound_checkpoint_that_says_something_else_is_a_complaint() {
    let mut maker = Maker::new(3);
    for _ in 0..60 {
        maker.put_deferred(
            &envelope("a@example.com", 1),
            &[&[b'x'; 2000][..], b"\r\n.\r\n"].concat(),
        );
    }
    let made = maker.finish(3);
    // The attempts of the first outcome: one becomes three.
    let sound = fs::read(made.file(1, "idx")).unwrap();
    let mut noticed = 0;
    for at in 48..200 {
        made.alter(1, "idx", |bytes| {
            bytes.copy_from_slice(&sound);
            bytes[at] ^= 2;
            resign(bytes);
        });
        let (is_sound, text) = tool(&["verify", made.path()]);
        let malformed = text.contains("00000001: malformed; will be written anew");
        let differs = text.contains("00000001: it is sound and does not say what the segment says");
        // Bytes that only fill up structures change nothing.
        assert!(is_sound || differs, "{at}: {text}");
        assert!(!(malformed && differs), "{at}: {text}");
        noticed += u32::from(differs);
    }
    assert!(noticed > 10, "{noticed}");
}

#[test]
fn a_checkpoint_tells_what_damaged_records_said() {
    let mut maker = Maker::new(3);
    let id = maker.put(&envelope("a@example.com", 2), b"x\r\n.\r\n");
    maker.record(id, &[outcome(0, Disposition::Delivered)]);
    maker.fill(2);
    let made = maker.finish(3);
    let dump = tool(&["dump", made.file(1, "seg").to_str().unwrap()]).1;
    let line = dump.lines().find(|line| line.contains("0 delivered")).unwrap();
    let offset: usize = line.split_whitespace().next().unwrap().parse().unwrap();
    made.alter(1, "seg", |bytes| bytes[offset + 20] ^= 1);
    let (sound, text) = tool(&["verify", made.path()]);
    assert!(!sound && text.contains("are damaged") && !text.contains("does not say"), "{text}");
    let (sound, text, found) = recovered(made.path(), &[]);
    assert!(!sound && found.len() == 1, "{text}");
    assert_eq!(states(&found[0].1, "pending"), [false, true], "from the checkpoint");
    fs::remove_file(made.file(1, "idx")).unwrap();
    let (_, _, found) = recovered(made.path(), &[]);
    assert_eq!(states(&found[0].1, "pending"), [true, true], "nobody knows any more");
}

#[test]
fn newer_versions_and_missing_segments_are_named() {
    let Moved { made, .. } = moved();
    let numbers = made.numbers("seg");
    let newest = *numbers.last().unwrap();
    let mut maker = Maker::new(3);
    maker.put_deferred(&envelope("a@example.com", 1), b"x\r\n.\r\n");
    (0..3).for_each(|_| {
        maker.put_deferred(&envelope("long@example.com", 1), &long_body());
    });
    let made_too = maker.finish(3);
    for extension in ["seg", "idx"] {
        fs::remove_file(made_too.file(2, extension)).unwrap();
    }
    let (sound, text) = tool(&["verify", made_too.path()]);
    assert!(!sound && text.contains("segment 00000002 was in use and is not here"), "{text}");
    assert_eq!(text.matches("is not here").count(), 1, "{text}");
    // Of single files nothing can be missing.
    let last = *made_too.numbers("seg").last().unwrap();
    let (sound, text) = tool(&["verify", made_too.file(last, "seg").to_str().unwrap()]);
    assert!(sound, "{text}");
    let (sound, text, found) = recovered(made_too.path(), &[]);
    assert!(!sound && text.contains("segment 00000002 was in use and is not here"), "{text}");
    assert!(text.contains("a segment that holds some of it is missing"), "{text}");
    assert!(found.iter().any(|(sender, ..)| sender == "a@example.com"), "{text}");

    made.alter(newest, "seg", |bytes| {
        for copy in [0, 4096] {
            bytes[copy + 8..copy + 12].copy_from_slice(&9u32.to_le_bytes());
        }
    });
    for command in ["list", "verify", "dump"] {
        let (sound, text) = tool(&[command, made.path()]);
        assert!(!sound && text.contains("format version 9; this version"), "{command}: {text}");
    }
}

#[test]
fn a_segment_whose_header_is_lost_is_read_all_the_same() {
    let Moved { made, ids, .. } = moved();
    let numbers = made.numbers("seg");
    for &number in &numbers {
        made.alter(number, "seg", |bytes| bytes[..8192].fill(0));
    }
    let (sound, text) = tool(&["verify", made.path()]);
    assert!(!sound, "{text}");
    assert!(text.contains("its records can be read with the seal found from the first"), "{text}");
    let (sound, text) = tool(&["dump", made.path()]);
    assert!(!sound && text.contains("log 3 segment") && text.contains("header lost"), "{text}");
    let (sound, text, found) = recovered(made.path(), &[]);
    assert!(!sound && text.contains("6 messages written"), "{text}");
    assert_all_six(&found, &ids);

    // The first record gone too: the next mark tells the seal.
    made.alter(numbers[0], "seg", |bytes| bytes[8192..8192 + 4096].fill(0));
    let (_, text) = tool(&["list", made.path()]);
    assert!(text.contains(&format!("segment {:08x} header lost", numbers[0])), "{text}");
}

#[test]
fn what_a_recycled_file_was_before_is_never_taken_for_its_contents() {
    let mut maker = Maker::new(3);
    let keep = maker.put_deferred(&envelope("keep@example.com", 1), b"x\r\n.\r\n");
    maker.fill(4);
    maker.put_deferred(&envelope("new@example.com", 1), b"x\r\n.\r\n");
    let made = maker.finish(3);
    let list = tool(&["list", made.path()]).1;
    let line = list.lines().rfind(|line| line.contains(" was ") && line.contains(" message"));
    let line = line.expect("a segment in a file that was another one");
    let number = u32::from_str_radix(&line.split("segment ").nth(1).unwrap()[..8], 16).unwrap();
    let used = line.split(" of ").next().unwrap().rsplit(' ').next().unwrap();
    let used: usize = used.parse().unwrap();
    let len = fs::read(made.file(number, "seg")).unwrap().len();
    assert!(used < len, "older records are behind: {line}");
    made.alter(number, "seg", |bytes| bytes[..used].fill(0));
    let (sound, text) = tool(&["list", made.path()]);
    assert!(!sound && text.contains("sound, and no record is sound"), "{text}");
    let (_, text, found) = recovered(made.path(), &["--id", &keep.to_string()]);
    assert_eq!(found.len(), 1, "{text}");
}

#[test]
fn lists_and_dumps_what_is_there() {
    let dir = copy();
    fs::write(dir.path().join("0000000f.free"), b"").unwrap();
    let path = dir.path().to_str().unwrap();
    let (sound, text) = tool(&["list", path]);
    assert!(sound, "{text}");
    assert!(text.contains("segment 00000001 created") && text.contains(" message"), "{text}");
    assert!(text.contains("0000000f.free: spare"), "{text}");
    let (sound, text) = tool(&["dump", path]);
    assert!(sound, "{text}");
    for kind in ["mark", "pad", "message", "head", "chunk", "commit", "outcome", "survivors"] {
        assert!(text.lines().any(|line| line.contains(&format!(" {kind} "))), "{kind}: {text}");
    }
    assert!(text.contains("1 deferred (450 4.2.0 word 1.1)"), "{text}");
}

#[test]
fn verify_tells_damage_from_an_unfinished_write() {
    let dir = copy();
    let path = dir.path().to_str().unwrap();
    let (sound, text) = tool(&["verify", path]);
    assert!(sound && text.starts_with("sound: "), "{text}");

    let first = dir.path().join("00000001.seg");
    let mut bytes = fs::read(&first).unwrap();
    bytes[8192 + 100] ^= 1;
    fs::write(&first, &bytes).unwrap();
    let (sound, text) = tool(&["verify", path]);
    assert!(!sound && text.contains("segment 00000001: ") && text.contains("damaged"), "{text}");
    assert!(text.contains("DAMAGED: "), "{text}");

    fs::write(dir.path().join("00000009.seg"), vec![7; 20_000]).unwrap();
    let (sound, text) = tool(&["verify", path]);
    assert!(!sound && text.contains("neither copy of its header is sound"), "{text}");
}

#[test]
fn recover_writes_what_is_queued_as_files() {
    let out = tempfile::tempdir().unwrap();
    let log = fixture();
    let to = out.path().join("mail");
    let arguments = ["recover", log.to_str().unwrap(), "--out", to.to_str().unwrap()];
    let (sound, text) = tool(&arguments);
    assert!(sound && text.starts_with("3 messages written"), "{text}");
    let found = exported(&to);
    let senders: Vec<&str> = found.iter().map(|(sender, ..)| &sender[..]).collect();
    assert_eq!(senders, ["deferred@example.com", "late@example.com", "long@example.com"]);
    assert_eq!(found[1].2, b"Subject: 3\r\n\r\n.three\r\n", "a stuffed dot is taken out");
    assert!(found[2].2.ends_with(b"line 1199 of a long message\r\n"));
    let pending: Vec<_> = found[0].1["recipients"].as_array().unwrap().to_vec();
    let pending: Vec<_> = pending.iter().map(|recipient| recipient["pending"].as_bool()).collect();
    assert_eq!(pending, [Some(false), Some(true), Some(true)]);
    let all = out.path().join("all");
    let arguments = ["recover", log.to_str().unwrap(), "--out", all.to_str().unwrap(), "--all"];
    let (_, text) = tool(&arguments);
    let count: u32 = text.split(' ').next().unwrap().parse().unwrap();
    assert!(count > 3, "{text}");
}
