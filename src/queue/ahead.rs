//! Reading ahead for who goes through a log in order, as lists of the queue do:
//! many small records come with one read. What was read is a hint only. A
//! record found in it is checked like any other, and one that is not, or not
//! whole, is read by itself.

use super::format::{RECORD_HEADER, RecordHeader, Seal};
use super::reader::Record;
use crate::base::Place;

/// Bytes of the first read, and of one that does not go on from the last.
const SHORT: usize = 8 * 1024;
/// Bytes of the longest read.
const LONG: usize = 128 * 1024;
/// Bytes passed over that still count as going on.
const GAP: u32 = 32 * 1024;

/// What the last read brought.
pub(super) struct Ahead {
    from: Place,
    bytes: Vec<u8>,
    len: usize,
}

impl Ahead {
    pub(super) fn new() -> Self {
        Ahead { from: Place::default(), bytes: Vec::new(), len: SHORT }
    }

    /// The record at `place`, if all of it has been read and passes its checks.
    pub(super) fn record(&self, place: Place, seal: Seal) -> Option<Record> {
        let skip = place.offset.checked_sub(self.from.offset)? as usize;
        let bytes = self.bytes.get(skip..).filter(|_| place.segment == self.from.segment)?;
        let header = RecordHeader::decode(bytes, seal, place.offset)?;
        let bytes = bytes.get(..RECORD_HEADER + header.len as usize)?;
        let is_whole = header.verify(seal, &bytes[RECORD_HEADER..]);
        is_whole.then(|| Record::new(header, bytes.to_vec()))
    }

    /// Bytes to read at `place`: the more, the longer reads have gone on one from
    /// the other.
    pub(super) fn length(&mut self, place: Place) -> usize {
        let end = self.from.offset.saturating_add(self.bytes.len() as u32);
        let goes_on = place.segment == self.from.segment
            && (self.from.offset..=end.saturating_add(GAP)).contains(&place.offset);
        self.len = if goes_on { (self.len * 2).min(LONG) } else { SHORT };
        self.len
    }

    /// Keeps what was read at `place`.
    pub(super) fn keep(&mut self, place: Place, bytes: &[u8]) {
        self.from = place;
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_grow_while_they_go_on_and_shrink_when_they_do_not() {
        let mut ahead = Ahead::new();
        let at = |segment, offset| Place { segment, offset };
        assert_eq!(ahead.length(at(3, 4096)), SHORT);
        ahead.keep(at(3, 4096), &[0; SHORT]);
        let mut offset = 4096 + SHORT as u32 - 100;
        for expected in [2 * SHORT, 4 * SHORT, 8 * SHORT, LONG, LONG] {
            assert_eq!(ahead.length(at(3, offset)), expected);
            ahead.keep(at(3, offset), &vec![0; expected]);
            offset += expected as u32 + GAP;
        }
        assert_eq!(ahead.length(at(3, offset + LONG as u32)), SHORT, "far ahead");
        assert_eq!(ahead.length(at(4, offset)), SHORT, "another segment");
        assert_eq!(ahead.length(at(3, 0)), SHORT, "backwards");
    }
}
