//! How a connection of the load generator sends the content of a message: behind
//! 354, or in a chunk (RFC 3030) that follows the envelope in the same write where
//! the server takes commands in groups.

use std::io;
use std::time::Instant;

use super::connection::{Connection, Sending};
use crate::message::{MARK_LINES_LEN, Mark};
use crate::pattern::Counters;

/// Messages up to this size are put behind their mark in one buffer and leave
/// with one write; larger ones are written as they lie, after their mark.
pub(super) const COPIED_MAX: usize = 64 * 1024;

impl Connection {
    /// Sends the content that the server awaits, and begins the next message behind
    /// it if one is due.
    pub(super) async fn send_body(&mut self) -> io::Result<()> {
        let current = self.current.as_mut().expect("a body is asked for by a message under way");
        current.body_sent = true;
        let seq = current.ticket.seq;
        if self.plan.bdat {
            self.send_chunk(seq).await?;
        } else {
            self.send_text(seq).await?;
            self.client.body_sent();
        }
        let thinks = !self.plan.think_time.is_zero();
        if self.client.may_begin() && !thinks && !self.is_worn_out() {
            let now = Instant::now();
            if let Some(ticket) = self.worker.schedule.take_due(now) {
                self.next = self.begin(ticket, now);
            }
        }
        Ok(())
    }

    async fn send_text(&mut self, seq: u64) -> io::Result<()> {
        Mark { run: self.plan.run, seq }.write(&mut self.out);
        let mail = self.plan.mail(seq);
        let wire = &mail.template.wire;
        if let Some(pattern) = &mail.pattern {
            let begins = self.out.len();
            let counters = Counters { n: seq, connection: self.number, recipient: 0 };
            pattern.write(&counters, &mut self.out);
            let crc = crc32c::crc32c(&self.out[begins..]);
            self.current.iter_mut().for_each(|current| current.crc = crc);
        } else if wire.len() <= COPIED_MAX {
            self.out.extend_from_slice(wire);
        } else {
            self.guard.arm(self.plan.timeout);
            self.stream.write_all(&self.out).await?;
            self.out.clear();
            self.stream.write_all(wire).await?;
        }
        Ok(())
    }

    async fn send_chunk(&mut self, seq: u64) -> io::Result<()> {
        let counters = Counters { n: seq, connection: self.number, recipient: 0 };
        let (text, crc) = self.plan.mail(seq).text(&counters);
        self.current.iter_mut().for_each(|current| current.crc = crc);
        self.client.chunk(MARK_LINES_LEN + text.len(), true, &mut self.out);
        Mark { run: self.plan.run, seq }.write(&mut self.out);
        if text.len() <= COPIED_MAX {
            self.out.extend_from_slice(&text);
        } else {
            self.guard.arm(self.plan.timeout);
            self.stream.write_all(&self.out).await?;
            self.out.clear();
            self.stream.write_all(&text).await?;
        }
        Ok(())
    }

    /// Puts the content behind the envelope that was just written, if the server
    /// takes it there and it is small enough to be lost.
    pub(super) fn send_ahead(&mut self, sending: &mut Sending) {
        if !(self.plan.bdat && self.client.offer().pipelining) {
            return;
        }
        let seq = sending.ticket.seq;
        let counters = Counters { n: seq, connection: self.number, recipient: 0 };
        let (text, crc) = self.plan.mail(seq).text(&counters);
        if text.len() <= COPIED_MAX {
            self.client.chunk_ahead(MARK_LINES_LEN + text.len(), &mut self.out);
            Mark { run: self.plan.run, seq }.write(&mut self.out);
            self.out.extend_from_slice(&text);
            (sending.crc, sending.body_sent) = (crc, true);
        }
    }
}
