//! How instruction counts are held against their record (`benches/instructions.rs`):
//! growth is noticed and told so that whoever meets it knows what to do.

#[path = "../benches/instructions/record.rs"]
#[allow(dead_code, reason = "the bench uses the rest")]
mod record;

use std::collections::BTreeMap;

use record::{Judged, Record};

const RUSTC: &str = "rustc 1.90.0";
const RECORD: &str = r#"
    rustc = "rustc 1.90.0"
    growth_percent = 3
    growth_percent_other_rustc = 15
    [instructions]
    "scan" = 1000
    "session" = 2000
"#;

fn judge(rustc: &str, counts: &[(&str, u64)], whole: bool) -> Judged {
    let counts = counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    Record::parse(RECORD).unwrap().judge(rustc, &counts, whole)
}

#[test]
fn growth_past_the_bound_fails_and_says_what_to_do() {
    let judged = judge(RUSTC, &[("scan", 1031), ("session", 2060)], true);
    assert_eq!(
        judged.failures,
        ["scan: 1031 instructions, 1000 on record: 3.1 % more, and 3 % is the bound. If it is \
          meant: `cargo bench --bench instructions -- --write`"]
    );
    assert_eq!(judged.lines.len(), 2, "{judged:?}");
}

#[test]
fn another_compiler_is_told_of_and_has_a_wider_bound() {
    let judged = judge("rustc 1.91.0", &[("scan", 1150), ("session", 2301)], true);
    assert_eq!(judged.failures.len(), 1, "{judged:?}");
    assert!(judged.failures[0].starts_with("session: 2301 instructions, 2000 on record"));
    assert!(judged.lines[0].starts_with("this is rustc 1.91.0, the record is of rustc 1.90.0"));
}

#[test]
fn fewer_instructions_are_told_of() {
    let judged = judge(RUSTC, &[("scan", 969), ("session", 1940)], true);
    assert!(judged.failures.is_empty() && judged.lines.len() == 3, "{judged:?}");
    assert!(judged.lines[1].starts_with("scan: fewer"), "{judged:?}");
}

#[test]
fn what_is_new_or_gone_does_not_pass_in_silence() {
    let judged = judge(RUSTC, &[("scan", 1000), ("append", 5)], true);
    assert_eq!(judged.failures.len(), 2, "{judged:?}");
    assert!(judged.failures[0].starts_with("append: 5 instructions, none on record"));
    assert!(judged.failures[1].starts_with("session: on record, and not counted"));
    assert_eq!(judge(RUSTC, &[("scan", 1000)], false).failures, [""; 0]);
}

#[test]
fn new_counts_replace_the_old_and_one_record_has_one_compiler() {
    let mut record = Record::parse(RECORD).unwrap();
    let counts = |count| BTreeMap::from([("scan".to_owned(), count)]);
    assert!(record.take("rustc 1.91.0", counts(7), false).is_err());
    record.take(RUSTC, counts(7), false).unwrap();
    let read = Record::parse(&record.text()).unwrap();
    assert_eq!(read, record);
    let judged = read.judge(RUSTC, &counts(7), true);
    assert!(judged.failures[0].starts_with("session: on record"), "kept: {judged:?}");
    record.take("rustc 1.91.0", counts(8), true).unwrap();
    assert_eq!(record.judge("rustc 1.91.0", &counts(8), true).failures, [""; 0]);
}
