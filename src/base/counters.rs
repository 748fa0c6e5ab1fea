//! Counters of one shard: plain integers that only their shard touches. The
//! control thread gets copies by message and adds them up for `/metrics`.
//!
//! One table names each counter once: the field, the metric and the help text.

use std::cell::RefCell;
use std::rc::Rc;

/// The counters of a shard, shared by its parts.
pub type SharedCounters = Rc<RefCell<Counters>>;

macro_rules! counters {
    ($($field:ident: $help:literal,)*) => {
        /// The counters of one shard, or the sum of several.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $(#[doc = $help] pub $field: u64,)*
        }

        impl Counters {
            /// (name, help, value) of each, in the order of the table.
            pub fn table(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($field), $help, self.$field),)*]
            }

            /// Adds another shard's counters to these.
            pub fn add(&mut self, other: &Counters) {
                $(self.$field += other.$field;)*
            }
        }
    };
}

counters! {
    connections_accepted: "Connections accepted",
    connections_refused: "Connections refused with 421 because a limit was reached",
    sessions_timed_out: "Sessions closed because the client was silent too long",
    sessions_aborted: "Sessions closed for too many errors, or by the client within a transaction",
    commands: "Commands read",
    command_errors: "Commands answered with 5xx for their form or order",
    recipients_refused: "RCPT commands refused by policy",
    messages_accepted: "Messages answered with 250 after their commit",
    messages_refused: "Messages refused after the end of the data",
    messages_tempfailed: "Messages answered with 4xx after the end of the data",
    bytes_accepted: "Bytes of accepted messages, as received",
    recipients_accepted: "Recipients of accepted messages",
    appends: "Records appended to the log",
    flushes: "Flushes of the log completed",
    flush_failures: "Writes or flushes of the log that failed; the first poisons the shard",
    bytes_appended: "Bytes of records appended, padding not counted",
    bytes_written: "Bytes written to segments, padding counted",
    bytes_zeroed: "Zeroes written into new segment files ahead of their use",
    segments_created: "Segment files created",
    segments_recycled: "Segment files used again",
    segments_freed: "Segments whose messages were all settled",
    messages_moved: "Messages moved out of segments of which little was needed",
    bytes_moved: "Bytes of records written to move messages",
    checkpoints_written: "Checkpoints of completed segments written",
    records_damaged: "Records of the log found damaged when they were read",
    attempts: "Delivery transactions begun",
    outbound_connections: "Connections opened to next hops",
    outbound_connect_failures: "Connections to next hops that could not be opened",
    recipients_delivered: "Recipients delivered",
    recipients_deferred: "Attempts that left a recipient deferred",
    recipients_failed: "Recipients refused for good",
    recipients_expired: "Recipients given up after queue.expire",
    recipients_dropped: "Recipients dropped by an operator or a discard route",
    reports_queued: "Delivery reports queued to senders",
    bodies_from_memory: "Attempts whose body was still in memory",
    bodies_from_log: "Attempts whose body was read from the log",
    handed_off: "Handles handed to another core",
    parked: "Recipients that had to wait for their site to have room",
    wakeups: "Messages read from the log to be given out, by schedule or after a wait",
    hand_off_batches: "Batches of handles and outcomes sent to another core",
    log_lines_lost: "Log lines dropped because standard error did not keep up",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_by_name() {
        let mut sum = Counters { commands: 2, ..Counters::default() };
        sum.add(&Counters { commands: 3, flushes: 1, ..Counters::default() });
        assert_eq!((sum.commands, sum.flushes), (5, 1));
        let names: Vec<_> = sum.table().iter().map(|row| row.0).collect();
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), names.len());
    }
}
