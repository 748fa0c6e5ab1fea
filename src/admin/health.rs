//! Whether this server takes mail, in one word and in reasons. `/healthz` and
//! `ringpost queue summary` say the same.

use serde::Serialize;

use super::control::Phase;
use super::fleet::Silence;
use crate::shard::control::ShardSnapshot;

/// The verdict.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// `ok`, or the worst of what is wrong.
    pub status: &'static str,
    /// What is wrong and what to do, a sentence each.
    pub reasons: Vec<String>,
}

impl Health {
    /// The verdict on a server in `phase` whose shards gave `answers`.
    pub fn of(phase: Phase, answers: &[Result<ShardSnapshot, Silence>]) -> Health {
        let mut reasons = Vec::new();
        let mut status = "ok";
        for answer in answers {
            match answer {
                Err(silence) => {
                    status = worse(status, "failing");
                    reasons.push(silence.to_string());
                }
                Ok(shard) => {
                    if let Some(cause) = &shard.poisoned {
                        status = worse(status, "failing");
                        reasons.push(poisoned(shard, cause));
                    }
                    if let Some(why) = &shard.unreadable {
                        status = worse(status, "failing");
                        reasons.push(unreadable(shard, why));
                    }
                    if shard.full {
                        status = worse(status, "full");
                        reasons.push(full(shard));
                    }
                    reasons.extend(remarks(shard));
                }
            }
        }
        match phase {
            Phase::Ready => {}
            Phase::Starting => {
                status = worse(status, "starting");
                reasons.push("starting: the queue is being read".to_owned());
            }
            Phase::Draining => {
                status = worse(status, "draining");
                reasons.push("draining: the server was told to stop".to_owned());
            }
        }
        Health { status, reasons }
    }

    /// True when mail is accepted everywhere.
    pub fn is_ok(&self) -> bool {
        self.status == "ok"
    }
}

/// Of two words the one that matters more.
fn worse(one: &'static str, other: &'static str) -> &'static str {
    const BY_WEIGHT: [&str; 5] = ["ok", "starting", "draining", "full", "failing"];
    let weight = |word| BY_WEIGHT.iter().position(|w| *w == word);
    if weight(one) >= weight(other) { one } else { other }
}

fn poisoned(shard: &ShardSnapshot, cause: &str) -> String {
    format!(
        "shard {} accepts no mail: a write to its log failed ({cause}); nothing that was answered \
         250 is lost; check the disk (dmesg, smartctl), then restart ringpost",
        shard.shard
    )
}

fn unreadable(shard: &ShardSnapshot, why: &str) -> String {
    format!(
        "shard {} takes and delivers new mail, but what was queued before the start cannot be read \
         ({why}); it is kept: check the disk (dmesg, smartctl), then restart ringpost",
        shard.shard
    )
}

fn full(shard: &ShardSnapshot) -> String {
    format!(
        "shard {} answers 452: the disk of data_dir is nearly full; free space there (df -h), \
         delivery goes on and mail is accepted again by itself",
        shard.shard
    )
}

/// What an operator should know though mail is accepted.
fn remarks(shard: &ShardSnapshot) -> Vec<String> {
    let (number, files) = (shard.shard, &shard.files);
    let mut remarks = Vec::new();
    if files.unread > 0 {
        remarks.push(format!(
            "shard {number} is still reading its queue: {} segments left; older mail waits, new \
             mail is taken",
            files.unread
        ));
    }
    if files.quarantined > 0 {
        remarks.push(format!(
            "shard {number} keeps {} segments aside because records in them are damaged; inspect \
             them with ringpost-segments",
            files.quarantined
        ));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::fake;
    use crate::base::ShardId;

    #[test]
    fn says_what_is_wrong_where_and_what_to_do() {
        let well = Ok(fake::snapshot(0));
        assert_eq!(
            Health::of(Phase::Ready, std::slice::from_ref(&well)),
            Health { status: "ok", reasons: vec![] }
        );
        let mut full = fake::snapshot(1);
        full.full = true;
        let mut ill = fake::snapshot(2);
        ill.poisoned = Some("fdatasync: Input/output error".into());
        let mut unread = fake::snapshot(4);
        unread.unreadable = Some("log-00004: Input/output error".into());
        let unread = Health::of(Phase::Ready, &[Ok(unread)]);
        assert_eq!(unread.status, "failing");
        assert!(unread.reasons[0].contains("cannot be read (log-00004"), "{:?}", unread.reasons);
        let answers = [well, Ok(full), Ok(ill), Err(Silence::Ended(ShardId(3)))];
        let health = Health::of(Phase::Draining, &answers);
        assert_eq!(health.status, "failing");
        assert!(!health.is_ok());
        assert_eq!(health.reasons.len(), 4);
        assert!(health.reasons[0].contains("shard 1") && health.reasons[0].contains("df -h"));
        assert!(health.reasons[1].contains("Input/output error"));
        assert!(health.reasons[1].contains("restart"));
        assert!(health.reasons[2].contains("shard 3 has ended"));
        assert!(health.reasons[3].contains("draining"));
        assert_eq!(Health::of(Phase::Starting, &[]).status, "starting");
        let mut reading = fake::snapshot(4);
        reading.files.unread = 7;
        reading.files.quarantined = 1;
        let health = Health::of(Phase::Ready, &[Ok(reading)]);
        assert!(health.is_ok(), "mail is taken");
        assert!(health.reasons[0].contains("shard 4 is still reading its queue: 7 segments"));
        assert!(health.reasons[1].contains("ringpost-segments"), "{health:?}");
        assert_eq!(Health::of(Phase::Draining, &answers[..2]).status, "full");
    }
}
