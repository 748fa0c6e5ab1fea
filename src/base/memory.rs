//! Memory that many have a share in: how much all of them hold, how much they may,
//! and the share of each. Used by what receives mail, from its sessions down to
//! their TLS.
//!
//! A share is counted from when it is there to when its holder is dropped. Whoever
//! can do without asks for it ([`Share::ask`]); what is there in any case is counted
//! without asking ([`Share::set`]), and keeps others from getting theirs.

use std::cell::Cell;
use std::rc::Rc;

/// What is held by all, and the most that may be, in bytes.
#[derive(Debug)]
pub struct Memory {
    held: Cell<usize>,
    limit: Cell<usize>,
}

impl Default for Memory {
    /// Without a limit.
    fn default() -> Self {
        Memory { held: Cell::new(0), limit: Cell::new(usize::MAX) }
    }
}

impl Memory {
    /// Bounds what is held from now on, in bytes. What is held stays held.
    pub fn set_limit(&self, bytes: u64) {
        self.limit.set(usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    /// What is held, in bytes.
    pub fn held(&self) -> usize {
        self.held.get()
    }

    /// Whether so many bytes more may be held.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.held.get().saturating_add(bytes) <= self.limit.get()
    }

    /// Whether so many bytes more may be held by somebody who has some already. The
    /// last quarter is for those who have none.
    pub fn has_plenty(&self, bytes: usize) -> bool {
        self.has_room(bytes.saturating_add(self.limit.get() / 4))
    }
}

/// A share of it, given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    memory: Rc<Memory>,
    bytes: usize,
}

impl Share {
    /// A share of `memory`, of no bytes so far.
    pub fn of(memory: &Rc<Memory>) -> Share {
        Share { memory: Rc::clone(memory), bytes: 0 }
    }

    /// What it is a share of.
    pub fn memory(&self) -> &Rc<Memory> {
        &self.memory
    }

    /// What is held by it, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes it `bytes`, whether there is room for them or not.
    pub fn set(&mut self, bytes: usize) {
        self.memory.held.set(self.memory.held.get() - self.bytes + bytes);
        self.bytes = bytes;
    }

    /// Makes it `bytes` if that is no more than it was or there is room for it;
    /// whether it did.
    #[must_use]
    pub fn ask(&mut self, bytes: usize) -> bool {
        let granted = bytes <= self.bytes || self.memory.has_room(bytes - self.bytes);
        if granted {
            self.set(bytes);
        }
        granted
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_counted_until_they_are_dropped() {
        let memory = Rc::new(Memory::default());
        memory.set_limit(100);
        let (mut one, mut two) = (Share::of(&memory), Share::of(&memory));
        assert!(one.ask(60) && !two.ask(41) && two.ask(40));
        assert_eq!((memory.held(), one.bytes(), two.bytes()), (100, 60, 40));
        assert!(!memory.has_room(1) && one.ask(60) && !one.ask(61) && one.ask(20));
        assert!(memory.has_room(40) && memory.has_plenty(15) && !memory.has_plenty(16));
        two.set(500);
        assert_eq!(memory.held(), 520, "what is there is counted");
        assert!(one.ask(10) && !one.ask(11), "less is always granted");
        drop(two);
        assert_eq!(memory.held(), 10);
        drop(one);
        assert_eq!(memory.held(), 0);
    }
}
