//! A segment as the index sees it: what it is still needed for.

use std::collections::BTreeSet;

use crate::base::Place;

/// See the module's comment.
#[derive(Default)]
pub(crate) struct Segment {
    /// Messages, live or still coming, that have records here.
    pub(crate) needed: u32,
    /// Bytes of those records.
    pub(crate) live_bytes: u64,
    /// Messages that have records here although their id does not name this
    /// segment, or names it but not all of them: streamed and moved ones. Ids of
    /// some that are gone are among them.
    pub(crate) far: Vec<Place>,
    /// Other segments about whose messages records here say something.
    pub(crate) refs: BTreeSet<u32>,
    /// The last batch that wrote here, or on which its being settled depends.
    pub(crate) settled_in: u64,
    /// Some of its bytes are damaged: it is kept as it is.
    pub(crate) quarantined: bool,
    /// Survivors are on their way to disk so that it may be let go.
    pub(crate) releasing: bool,
    /// Nothing could be moved out of it when this much of it was needed.
    pub(crate) futile_at: Option<u64>,
    /// What is in it is not known yet.
    pub(crate) unread: bool,
}

impl Segment {
    /// True if nothing that is stored here itself is needed; records about
    /// other segments may be.
    pub(crate) fn is_dead(&self) -> bool {
        self.needed == 0 && !self.quarantined && !self.unread
    }
}
