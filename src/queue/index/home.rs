//! The live messages whose ids name one segment, by offset. They may have moved
//! to other segments since, and the segment itself may be gone.

use super::entry::Entry;

/// See the module's comment.
#[derive(Default)]
pub(super) struct Home {
    /// Offsets of the messages, in order, settled ones too until they are swept
    /// out.
    offsets: Vec<u32>,
    /// The messages at those offsets; `None` once settled.
    entries: Vec<Option<Entry>>,
    vacant: usize,
}

impl Home {
    /// True if no message is left.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.len() == self.vacant
    }

    pub(super) fn get(&self, offset: u32) -> Option<&Entry> {
        self.entries[self.offsets.binary_search(&offset).ok()?].as_ref()
    }

    pub(super) fn get_mut(&mut self, offset: u32) -> Option<&mut Entry> {
        self.entries[self.offsets.binary_search(&offset).ok()?].as_mut()
    }

    /// The live messages at `offset` and after.
    pub(super) fn after(&self, offset: u32) -> impl Iterator<Item = (u32, &Entry)> {
        let from = self.offsets.partition_point(|&at| at < offset);
        let pairs = self.offsets[from..].iter().zip(&self.entries[from..]);
        pairs.filter_map(|(&at, entry)| Some((at, entry.as_ref()?)))
    }

    /// Adds a message. Nearly always the last one, so that nothing is shifted.
    pub(super) fn insert(&mut self, offset: u32, entry: Entry) {
        let at = self.offsets.partition_point(|&other| other < offset);
        if self.offsets.get(at) == Some(&offset) {
            self.vacant -= usize::from(self.entries[at].is_none());
            self.entries[at] = Some(entry);
        } else {
            self.offsets.insert(at, offset);
            self.entries.insert(at, Some(entry));
        }
    }

    /// Takes a message out. Sweeps when more is vacant than not, so that the
    /// work a message costs stays constant.
    pub(super) fn take(&mut self, offset: u32) -> Option<Entry> {
        let at = self.offsets.binary_search(&offset).ok()?;
        let entry = self.entries[at].take()?;
        self.vacant += 1;
        if self.vacant == self.entries.len() {
            self.offsets = Vec::new();
            self.entries = Vec::new();
            self.vacant = 0;
        } else if self.vacant >= 64 && self.vacant * 2 > self.entries.len() {
            let kept = |(at, entry): (u32, Option<Entry>)| Some((at, Some(entry?)));
            let entries = std::mem::take(&mut self.entries);
            let pairs = std::mem::take(&mut self.offsets).into_iter().zip(entries);
            (self.offsets, self.entries) = pairs.filter_map(kept).unzip();
            self.shrink();
            self.vacant = 0;
        }
        Some(entry)
    }

    /// Gives back room that is kept for more.
    pub(super) fn shrink(&mut self) {
        self.offsets.shrink_to_fit();
        self.entries.shrink_to_fit();
    }
}
