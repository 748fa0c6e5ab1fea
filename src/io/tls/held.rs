//! What a connection makes rustls hold, as far as that can be told from outside, for
//! whoever has to bound what all connections hold together. The figures were measured
//! (`docs/performance.md`) and are rather too high than too low.

use crate::base::Share;

/// What rustls keeps of any connection, its read buffer of 4 KiB among it, in bytes.
pub const KEPT: usize = 8 * 1024;
/// What it keeps while it does a handshake of the usual size, in bytes.
pub const HANDSHAKE: usize = KEPT + 8 * 1024;

/// Most that rustls joins of messages of a handshake that come in several records, in
/// bytes. Past it the connection fails.
const JOINED_MAX: usize = 64 * 1024;
/// By how much the read buffer is ahead of what is in it, in bytes.
const READ_AHEAD: usize = 4096;
/// Octets of the head of a record.
const HEAD: usize = 5;

/// The book of one connection.
#[derive(Default)]
pub(super) struct Held {
    share: Option<Share>,
    /// What has come of a record that is not whole, and its head as far as it has.
    come: usize,
    head: [u8; HEAD],
    /// Octets from which nothing has come yet: parts of records and of messages.
    undigested: usize,
    /// Plaintext that nobody has fetched.
    unread: usize,
    /// Plaintext that was taken to be sent since all was sent.
    unsent: usize,
    /// The handshake is done.
    is_settled: bool,
}

impl Held {
    /// Counts in `share`; nothing is counted without one.
    pub(super) fn new(share: Option<Share>) -> Held {
        let mut held = Held { share, ..Held::default() };
        held.note();
        held
    }

    /// What is held, in bytes.
    fn bytes(&self) -> usize {
        // A buffer that grows may double.
        let input = match self.undigested {
            0 => 0,
            octets => 2 * octets + READ_AHEAD,
        };
        let kept = if self.is_settled { KEPT + input } else { HANDSHAKE.max(KEPT + input) };
        kept + self.unread + self.unsent
    }

    /// The handshake is done.
    pub(super) fn settle(&mut self) {
        self.is_settled = true;
        self.note();
    }

    /// Octets have come from the peer.
    pub(super) fn came(&mut self, mut octets: &[u8]) {
        self.undigested = JOINED_MAX.min(self.undigested + octets.len());
        while !octets.is_empty() {
            let wanted = if self.come < HEAD { HEAD } else { self.whole() };
            let len = octets.len().min(wanted - self.come);
            if self.come < HEAD {
                self.head[self.come..self.come + len].copy_from_slice(&octets[..len]);
            }
            self.come += len;
            octets = &octets[len..];
            if self.come >= HEAD && self.come == self.whole() {
                self.come = 0;
            }
        }
    }

    /// Octets of the record whose head is known.
    fn whole(&self) -> usize {
        HEAD + usize::from(u16::from_be_bytes([self.head[3], self.head[4]]))
    }

    /// Of what had come, rustls keeps no more than the last record, which is not whole.
    pub(super) fn digested(&mut self) {
        self.undigested = self.come;
    }

    /// So much plaintext waits to be fetched.
    pub(super) fn unread(&mut self, octets: usize) {
        self.unread = octets;
    }

    /// So much of it was fetched.
    pub(super) fn fetched(&mut self, octets: usize) {
        self.unread = self.unread.saturating_sub(octets);
    }

    /// So much plaintext was taken to be sent.
    pub(super) fn taken(&mut self, octets: usize) {
        self.unsent += octets;
    }

    /// All is sent.
    pub(super) fn sent(&mut self) {
        self.unsent = 0;
    }

    /// Brings the share up to date.
    pub(super) fn note(&mut self) {
        let bytes = self.bytes();
        if let Some(share) = &mut self.share {
            share.set(bytes);
        }
    }

    /// As [`Held::note`]; false if there is no room for what is more than before.
    #[must_use]
    pub(super) fn fits(&mut self) -> bool {
        let bytes = self.bytes();
        self.share.as_mut().is_none_or(|share| share.ask(bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::base::Memory;

    fn record(len: u16) -> Vec<u8> {
        [&[23, 3, 3][..], &len.to_be_bytes(), &vec![0; len.into()]].concat()
    }

    #[test]
    fn a_record_that_is_not_whole_is_counted_however_it_is_cut() {
        let memory = Rc::new(Memory::default());
        let stream = [record(300), record(0), record(16_000), record(40)[..20].to_vec()].concat();
        for size in [1, 3, 7, 1000, stream.len()] {
            let mut held = Held::new(Some(Share::of(&memory)));
            assert_eq!(memory.held(), HANDSHAKE);
            held.settle();
            assert_eq!(memory.held(), KEPT);
            for piece in stream.chunks(size) {
                held.came(piece);
                held.note();
                assert!(memory.held() > KEPT);
                held.digested();
            }
            held.note();
            assert_eq!(memory.held(), KEPT + 2 * 20 + READ_AHEAD, "in pieces of {size}");
            held.came(&record(40)[20..]);
            held.digested();
            held.note();
            assert_eq!(memory.held(), KEPT);
        }
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn what_finds_no_room_is_not_counted() {
        let memory = Rc::new(Memory::default());
        memory.set_limit(2 * KEPT as u64);
        let mut held = Held::new(Some(Share::of(&memory)));
        held.settle();
        held.taken(KEPT);
        assert!(held.fits() && memory.held() == 2 * KEPT);
        held.came(&record(4000));
        assert!(!held.fits() && memory.held() == 2 * KEPT);
        held.sent();
        held.digested();
        assert!(held.fits() && memory.held() == KEPT);
        for _ in 0..100 {
            held.came(&record(16_384));
        }
        held.note();
        assert_eq!(memory.held(), KEPT + 2 * JOINED_MAX + READ_AHEAD, "rustls joins no more");
    }
}
