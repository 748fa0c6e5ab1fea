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
    connections_rate_limited: "Those of them that came faster than a client may make them",
    connections_shed: "Those of them for which there was no memory",
    sessions_timed_out: "Sessions closed because the client was silent too long",
    sessions_aborted: "Sessions closed for too many errors, or by the client within a transaction",
    tls_handshakes: "TLS handshakes done with clients",
    tls_resumed: "Those of them that resumed an earlier session",
    tls_12_sessions: "TLS 1.2 connections of clients",
    tls_13_sessions: "TLS 1.3 connections of clients",
    tls_failures: "TLS handshakes with clients that failed",
    tls_injections: "Times that octets in the clear behind STARTTLS were dropped unread",
    sessions_deaf: "Sessions ended because the client did not read its replies",
    sessions_slow: "Sessions ended because a message came slower than limits.data_rate",
    sessions_ahead: "Sessions ended because the client sent before it might",
    sessions_idle_commands: "Sessions ended for too many commands without mail",
    sessions_shed: "Sessions ended because there was no memory for what the client sent",
    claims_refused: "PROXY headers, XCLIENT and XFORWARD that were not believed",
    commands: "Commands read",
    command_errors: "Commands answered with 5xx for their form or order",
    authentications: "Clients that authenticated",
    authentications_failed: "Authentications that failed",
    authentications_locked_out: "Authentications not looked at after too many failures",
    authentications_put_off: "Authentications answered 454, those locked out among them",
    recipients_refused: "RCPT commands refused by policy",
    messages_rate_limited: "MAIL commands answered 451 because a client or user sends too many",
    messages_shed: "Commands answered 452 because there was no memory",
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
    outbound_tls_handshakes: "TLS handshakes with next hops",
    outbound_tls_resumed: "TLS handshakes with next hops that resumed an earlier session",
    outbound_tls_failures: "TLS handshakes with next hops that failed",
    outbound_tls_fallbacks: "Connections in the clear to next hops with which TLS has failed",
    outbound_chunked: "Messages that went to next hops in chunks (BDAT)",
    outbound_chunk_fallbacks: "Next hops that offer BDAT and do not know it, or failed at it",
    outbound_auth_failures: "Connections to next hops on which authentication failed",
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
