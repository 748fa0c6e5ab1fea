//! Walks the records of one segment, sans-IO: the caller brings windows of the
//! file, so that recovery (asynchronous, in pieces) and the offline inspector
//! (all at once) share every rule.
//!
//! What does not pass its checks is stepped over: the walk looks for the next
//! sound record at each possible position. That is safe inside messages too,
//! because checksums are salted (`format`).

use super::format::{ALIGN, Kind, RECORD_HEADER, RecordHeader, Seal};

/// One step of a walk.
#[derive(Debug, PartialEq, Eq)]
pub enum Walked {
    /// The caller must bring a window that begins at `at` and has `len` bytes,
    /// or reaches to the end of the segment.
    Need {
        /// First byte wanted.
        at: u32,
        /// Bytes wanted.
        len: u32,
    },
    /// A sound record.
    Record {
        /// Its offset.
        offset: u32,
        /// Its header.
        header: RecordHeader,
        /// Where its payload begins in the window.
        payload: usize,
        /// Bytes before it that belong to no sound record.
        skipped: u32,
    },
    /// No sound record follows.
    End,
}

/// A position in a segment.
#[derive(Debug)]
pub struct Walk {
    seal: Seal,
    /// Where the next record should be.
    at: u32,
    /// Where the last sound record ended.
    sound_end: u32,
    /// Length of the segment.
    len: u32,
}

impl Walk {
    /// Begins at `start` in a segment of `len` bytes.
    pub fn new(seal: Seal, start: u32, len: u32) -> Self {
        Walk { seal, at: start, sound_end: start, len }
    }

    /// Where the last sound record ended.
    pub fn sound_end(&self) -> u32 {
        self.sound_end
    }

    /// The next step, given a window of the segment that begins at
    /// `window_at`.
    pub fn step(&mut self, window: &[u8], window_at: u32) -> Walked {
        loop {
            if (self.len as usize) < self.at as usize + RECORD_HEADER {
                return Walked::End;
            }
            let Some(from) = self.at.checked_sub(window_at).map(|skip| skip as usize) else {
                return self.need(RECORD_HEADER);
            };
            if window.len() < from + RECORD_HEADER {
                return self.need(RECORD_HEADER);
            }
            let Some(header) = RecordHeader::decode(&window[from..], self.seal, self.at) else {
                self.at += ALIGN as u32;
                continue;
            };
            let end = from + RECORD_HEADER + header.len as usize;
            if window_at as usize + end > self.len as usize {
                self.at += ALIGN as u32;
                continue;
            }
            if window.len() < end && header.kind != Kind::Pad {
                return self.need(RECORD_HEADER + header.len as usize);
            }
            let payload = window.get(from + RECORD_HEADER..end).unwrap_or_default();
            if header.kind != Kind::Pad && !header.verify(self.seal, payload) {
                self.at += ALIGN as u32;
                continue;
            }
            let offset = self.at;
            let skipped = offset - self.sound_end;
            self.at = (offset as usize + header.extent()).min(self.len as usize) as u32;
            self.sound_end = self.at;
            return Walked::Record { offset, header, payload: from + RECORD_HEADER, skipped };
        }
    }

    fn need(&self, len: usize) -> Walked {
        Walked::Need { at: self.at, len: (len as u32).min(self.len - self.at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ShardId;
    use crate::base::checksum::crc32c;

    fn put(out: &mut Vec<u8>, seal: Seal, kind: Kind, payload: &[u8]) -> u32 {
        let offset = out.len() as u32;
        let crc = crc32c(seal.payload_seed(), payload);
        let header = RecordHeader { kind, len: payload.len() as u32, meta: 0, crc };
        out.extend_from_slice(&header.encode(seal, offset));
        out.extend_from_slice(payload);
        out.resize(offset as usize + header.extent(), 0);
        offset
    }

    fn offsets(bytes: &[u8], seal: Seal, window: usize) -> Vec<(u32, u32)> {
        let mut walk = Walk::new(seal, 0, bytes.len() as u32);
        let (mut at, mut len) = (0, window);
        let mut found = Vec::new();
        loop {
            let piece = &bytes[at..bytes.len().min(at + len)];
            match walk.step(piece, at as u32) {
                Walked::Need { at: from, len: wanted } => {
                    assert!(from as usize != at || wanted as usize > piece.len(), "no progress");
                    (at, len) = (from as usize, window.max(wanted as usize));
                }
                Walked::Record { offset, skipped, .. } => found.push((offset, skipped)),
                Walked::End => return found,
            }
        }
    }

    #[test]
    fn finds_all_sound_records_whatever_the_window_and_the_damage() {
        let seal = Seal::new(ShardId(0), 1, 42);
        let forged = Seal::new(ShardId(0), 1, 43);
        let mut bytes = Vec::new();
        let mut inner = vec![0; 32];
        put(&mut inner, forged, Kind::Chunk, b"not a record");
        let first = put(&mut bytes, seal, Kind::Chunk, b"first");
        let second = put(&mut bytes, seal, Kind::Chunk, &inner);
        let third = put(&mut bytes, seal, Kind::Chunk, b"");
        bytes.resize(bytes.len() + 100, 0);
        for window in [16, 17, 40, 64, 4096] {
            let all = offsets(&bytes, seal, window);
            assert_eq!(all, [(first, 0), (second, 0), (third, 0)], "{window}");
        }
        let mut damaged = bytes.clone();
        damaged[second as usize + 4] = 0xff;
        for window in [16, 64, 4096] {
            let rest = offsets(&damaged, seal, window);
            assert_eq!(rest, [(first, 0), (third, third - second)], "{window}");
        }
        assert_eq!(offsets(&bytes[..first as usize + 8], seal, 64), []);
    }
}
