//! The room that a shard has for bodies in memory: one budget for the bodies
//! kept for their first attempts and for the parts that attempts read from the
//! log, so that memory does not grow with the number of deliveries, the size of
//! their messages or the slowness of their peers.
//!
//! Three kinds of bytes are in it:
//! * *kept* bodies, from acceptance until the last handle of the message is
//!   home. They may take [`KEPT_SHARE`] of the budget; a body past that is read
//!   from the log;
//! * parts in *use*: being read, or read and not yet tried on the socket. Those
//!   who find no room wait in the order they came;
//! * parts that *rest*: their peer takes nothing for the moment. They are kept
//!   as long as nobody else needs the room, and taken away after that, the one
//!   that has rested longest first; its attempt reads it again when the peer
//!   goes on.
//!
//! So a peer that has stopped reading holds nothing that another one needs, and
//! those who wait for room wait for the disk only. A part is never taken away
//! before it was tried once, so every read is of use to somebody.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use crate::base::envelope::SharedMail;
use crate::base::limits::BODY_PART_MAX;

/// Bytes of bodies that a shard has in memory for its deliveries.
pub const BODY_MEMORY_MAX: usize = 64 << 20;
/// How much of it bodies kept for first attempts may take, in quarters.
const KEPT_SHARE: usize = 3;

// Reads have room for many parts at once, whatever is kept.
const _: () = assert!(BODY_MEMORY_MAX / 4 * (4 - KEPT_SHARE) >= 32 * BODY_PART_MAX);

/// The budget. See the module's comment.
pub(super) struct Memory {
    max: usize,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    kept: usize,
    used: usize,
    resting: usize,
    /// Kept bodies by the address of their mail: their size, and the handles
    /// and others that hold them.
    bodies: HashMap<usize, (usize, u32)>,
    /// Parts at rest, the one that rests longest first.
    parts: BTreeMap<u64, Rc<Cell<Option<Vec<u8>>>>>,
    rests: u64,
    waiting: VecDeque<Rc<Waiter>>,
    #[cfg(test)]
    peak: usize,
}

/// Somebody who waits for room.
struct Waiter {
    bytes: usize,
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl State {
    fn total(&self) -> usize {
        self.kept + self.used + self.resting
    }

    /// Makes room for `bytes` at the cost of parts at rest; false, and nothing
    /// is touched, when that is not enough.
    fn make_room(&mut self, bytes: usize, max: usize) -> bool {
        if self.kept + self.used + bytes > max {
            return false;
        }
        self.take_away(max - bytes);
        true
    }

    /// Takes parts at rest away until `most` bytes are left in memory.
    fn take_away(&mut self, most: usize) {
        while self.total() > most
            && let Some((_, part)) = self.parts.pop_first()
        {
            self.resting -= part.take().map_or(0, |bytes| bytes.len());
        }
    }

    /// Lets those in who wait, as far as there is room.
    fn admit(&mut self, max: usize) {
        while let Some(first) = self.waiting.front() {
            let bytes = first.bytes;
            if !self.make_room(bytes, max) {
                if self.used > 0 {
                    break;
                }
                // What is larger than the budget is read when nothing else is.
                self.take_away(0);
            }
            let first = self.waiting.pop_front().expect("there is one");
            self.take(bytes);
            first.granted.set(true);
            if let Some(waker) = first.waker.take() {
                waker.wake();
            }
        }
    }

    fn take(&mut self, bytes: usize) {
        self.used += bytes;
        self.note_peak();
    }

    fn note_peak(&mut self) {
        #[cfg(test)]
        {
            self.peak = self.peak.max(self.total());
        }
    }
}

impl Memory {
    /// A budget of `max` bytes.
    pub(super) fn new(max: usize) -> Rc<Self> {
        Rc::new(Memory { max, state: RefCell::default() })
    }

    /// Bytes of bodies in memory.
    pub(super) fn total(&self) -> usize {
        self.state.borrow().total()
    }

    /// The most there ever were.
    #[cfg(test)]
    pub(super) fn peak(&self) -> usize {
        self.state.borrow().peak
    }

    /// Room to keep a body of `bytes`, if there is. Nobody waits for it: what
    /// finds no room is read from the log.
    pub(super) fn keep(self: &Rc<Self>, bytes: usize) -> Option<Room> {
        let mut state = self.state.borrow_mut();
        let allowed = state.kept + bytes <= self.max / 4 * KEPT_SHARE && state.waiting.is_empty();
        if !allowed || !state.make_room(bytes, self.max) {
            return None;
        }
        state.kept += bytes;
        state.note_peak();
        Some(Room { memory: Rc::clone(self), bytes, kept: true })
    }

    /// A handle with this mail exists.
    pub(super) fn hold(&self, mail: &SharedMail) {
        if let Some((_, holders)) = self.state.borrow_mut().bodies.get_mut(&key(mail)) {
            *holders += 1;
        }
    }

    /// A handle with this mail is home; its body stays counted until what is
    /// returned is dropped, which must be before the mail is.
    pub(super) fn returned(self: &Rc<Self>, mail: &SharedMail) -> Kept {
        Kept { memory: Rc::clone(self), key: key(mail) }
    }

    /// Waits for room for `bytes` that are to be read.
    pub(super) async fn read(self: &Rc<Self>, bytes: usize) -> Room {
        let waiter =
            Rc::new(Waiter { bytes, granted: Cell::new(false), waker: RefCell::default() });
        let wait = Wait { memory: self, waiter: &waiter };
        {
            let mut state = self.state.borrow_mut();
            state.waiting.push_back(Rc::clone(&waiter));
            state.admit(self.max);
        }
        poll_fn(|context| {
            if waiter.granted.get() {
                return Poll::Ready(());
            }
            *waiter.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
        std::mem::forget(wait);
        Room { memory: Rc::clone(self), bytes, kept: false }
    }

    fn changed(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.borrow_mut();
        change(&mut state);
        state.admit(self.max);
    }
}

/// Where a mail lies: handles of one mail share its body.
fn key(mail: &SharedMail) -> usize {
    Arc::as_ptr(mail) as usize
}

/// A wait for room; given up when dropped.
struct Wait<'a> {
    memory: &'a Memory,
    waiter: &'a Rc<Waiter>,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let granted = self.waiter.granted.get();
        self.memory.changed(|state| {
            if granted {
                state.used -= self.waiter.bytes;
            }
            state.waiting.retain(|waiter| !Rc::ptr_eq(waiter, self.waiter));
        });
    }
}

/// Room for bytes, free again when dropped.
pub(super) struct Room {
    memory: Rc<Memory>,
    bytes: usize,
    kept: bool,
}

impl Room {
    /// Makes this the room of the body of `mail`, which was kept.
    pub(super) fn of(mut self, mail: &SharedMail) -> Kept {
        debug_assert!(self.kept && self.bytes == mail.body.len(), "room for this body");
        let bytes = std::mem::take(&mut self.bytes);
        self.memory.state.borrow_mut().bodies.insert(key(mail), (bytes, 1));
        Kept { memory: Rc::clone(&self.memory), key: key(mail) }
    }

    /// Makes this the room of a part that was read, and frees what it does not
    /// need.
    pub(super) fn part(mut self, bytes: Vec<u8>) -> Part {
        debug_assert!(!self.kept && bytes.len() <= self.bytes, "room for this part");
        let (len, spare) = (bytes.len(), self.bytes - bytes.len());
        self.bytes = 0;
        self.memory.changed(|state| state.used -= spare);
        let bytes = Rc::new(Cell::new(Some(bytes)));
        Part { memory: Rc::clone(&self.memory), len, bytes, rests: Cell::new(None) }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.memory.changed(|state| {
            let counted = if self.kept { &mut state.kept } else { &mut state.used };
            *counted -= self.bytes;
        });
    }
}

/// A hold on a kept body.
pub(super) struct Kept {
    memory: Rc<Memory>,
    key: usize,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.memory.changed(|state| {
            // A body that is not in memory has no entry.
            let Some((bytes, holders)) = state.bodies.get_mut(&self.key) else { return };
            *holders -= 1;
            if *holders == 0 {
                state.kept -= *bytes;
                state.bodies.remove(&self.key);
            }
        });
    }
}

/// A part of a body, read from the log.
pub(super) struct Part {
    memory: Rc<Memory>,
    len: usize,
    bytes: Rc<Cell<Option<Vec<u8>>>>,
    /// Its number among those at rest.
    rests: Cell<Option<u64>>,
}

impl Part {
    /// What `act` makes of the bytes; `None` when they were taken away.
    pub(super) fn with<R>(&self, act: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let bytes = self.bytes.take()?;
        let result = act(&bytes);
        self.bytes.set(Some(bytes));
        Some(result)
    }

    /// The peer takes no more of it for the moment: from now on the bytes may be
    /// taken away. Each call makes it the last to lose them.
    pub(super) fn rest(&self) {
        self.memory.changed(|state| {
            match self.rests.get() {
                // Taken away already.
                Some(number) if state.parts.remove(&number).is_none() => return,
                Some(_) => {}
                None => {
                    state.used -= self.len;
                    state.resting += self.len;
                }
            }
            state.rests += 1;
            state.parts.insert(state.rests, Rc::clone(&self.bytes));
            self.rests.set(Some(state.rests));
        });
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.memory.changed(|state| match self.rests.get() {
            None => state.used -= self.len,
            Some(number) if state.parts.remove(&number).is_some() => state.resting -= self.len,
            Some(_) => {}
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;

    use super::*;
    use crate::base::{Envelope, Mail};

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    /// A part for which there is room at once.
    fn part(memory: &Rc<Memory>, len: usize) -> Part {
        let room = poll(pin!(memory.read(len))).expect("there is room");
        room.part(vec![7; len])
    }

    #[test]
    fn parts_at_rest_make_room_the_longest_first() {
        let memory = Memory::new(100);
        let parts: Vec<_> = (0..3).map(|_| part(&memory, 30)).collect();
        assert_eq!(memory.total(), 90);
        let mut fourth = pin!(memory.read(60));
        assert!(poll(fourth.as_mut()).is_none(), "all of them are in use");
        parts[0].rest();
        assert!(poll(fourth.as_mut()).is_none(), "one is not enough");
        assert!(parts[0].with(|_| ()).is_some(), "so it was left alone");
        parts[1].rest();
        parts[0].rest();
        let fourth = poll(fourth).expect("two are").part(vec![7; 30]);
        assert!(parts[0].with(|_| ()).is_none() && parts[1].with(|_| ()).is_none());
        assert_eq!(memory.total(), 60);
        let fifth = part(&memory, 20);
        assert!(fifth.with(|bytes| bytes == [7; 20]).unwrap());
        parts[2].rest();
        fourth.rest();
        parts[2].rest();
        assert!(memory.keep(30).is_some(), "kept bodies too are worth more than what rests");
        assert!(fourth.with(|_| ()).is_none(), "it had rested longest");
        assert!(parts[2].with(|_| ()).is_some());
        drop((parts, fourth, fifth));
        assert_eq!(memory.total(), 0);
        assert_eq!(memory.peak(), 90);
    }

    #[test]
    fn room_is_given_in_order_and_waits_can_be_given_up() {
        let memory = Memory::new(100);
        let first = poll(pin!(memory.read(80))).unwrap();
        let mut large = Box::pin(memory.read(90));
        let mut small = Box::pin(memory.read(10));
        assert!(poll(large.as_mut()).is_none());
        assert!(poll(small.as_mut()).is_none(), "it came later");
        assert!(memory.keep(1).is_none(), "those who wait come first");
        drop(large);
        let small = poll(small.as_mut()).expect("nobody is before it");
        let mut given = Box::pin(memory.read(90));
        assert!(poll(given.as_mut()).is_none());
        drop(first);
        drop(given);
        assert_eq!(memory.total(), 10, "what was granted and not taken is free");
        drop(small);
        assert_eq!(memory.total(), 0);
    }

    #[test]
    fn what_is_larger_than_the_budget_is_read_alone() {
        let memory = Memory::new(100);
        let room = poll(pin!(memory.read(1000))).expect("nothing else is read");
        let mut next = Box::pin(memory.read(1000));
        assert!(poll(next.as_mut()).is_none());
        let part = room.part(vec![0; 500]);
        assert!(poll(next.as_mut()).is_none());
        part.rest();
        assert!(poll(next.as_mut()).is_some());
    }

    #[test]
    fn kept_bodies_leave_a_share_to_reads_and_go_with_their_last_handle() {
        let memory = Memory::new(100);
        let room = memory.keep(60).unwrap();
        assert!(memory.keep(16).is_none(), "three quarters");
        let body = vec![0; 60].into_boxed_slice();
        let mail = Arc::new(Mail { envelope: Envelope::default(), body });
        let giver = room.of(&mail);
        memory.hold(&mail);
        memory.hold(&mail);
        drop(giver);
        drop(memory.returned(&mail));
        assert_eq!(memory.total(), 60);
        drop(memory.returned(&mail));
        assert_eq!(memory.total(), 0);
        let elsewhere = Arc::new(Mail { envelope: Envelope::default(), body: Box::default() });
        memory.hold(&elsewhere);
        drop(memory.returned(&elsewhere));
        assert_eq!(memory.total(), 0);
    }
}
