//! The receive buffer of a session, and the pool that lends the large ones.
//!
//! A session that waits for a command holds 512 bytes. When more is coming (the
//! body, a long pipelined batch) it borrows a large buffer and gives it back as
//! soon as it waits with nothing buffered. So memory follows the sessions that
//! are busy, not those that are open; a session never holds more than
//! [`HUGE`] bytes.
//!
//! All of it together is bounded: the pool counts what is lent and a little for
//! each session, and lends no more when its limit is reached
//! (`limits.receive_memory`). Near it sessions make do with the smaller of the
//! large buffers. What else sessions hold is counted there too ([`Pool::memory`]).

use std::cell::RefCell;
use std::rc::Rc;

use crate::base::limits::{BODY_PART_MAX, COMMAND_LINE_ALLOWED};
use crate::base::{Memory, Share};

/// What an idle session holds, in bytes.
pub const SMALL: usize = 512;
/// What a session borrows for commands that do not fit, in bytes: more than the
/// longest command.
const PAGE: usize = 4096;
/// What a session counts for beside what it has borrowed, in bytes: its task, its
/// small buffer, its place among the clients.
pub const SESSION: usize = 4096;
/// Size of the buffers that a session borrows for a body first, in bytes.
pub const LARGE: usize = 64 * 1024;
/// What a session borrows for a body that does not fit the first, in bytes:
/// the largest part of a body that one record takes, less room for the trace
/// header in front of it.
pub const HUGE: usize = BODY_PART_MAX - 4096;

const _: () = assert!(SMALL < PAGE && PAGE < LARGE && LARGE < HUGE);
const _: () = assert!(PAGE >= COMMAND_LINE_ALLOWED);

/// Most bytes of free buffers kept of each size; what is beyond goes back to the
/// allocator. Enough that some hundred busy sessions never ask it: a buffer that
/// comes from there is filled with zeroes first.
const KEPT: usize = 16 * 1024 * 1024;

/// The free buffers of one shard, and what its sessions hold.
#[derive(Default)]
pub struct Pool {
    page: RefCell<Vec<Box<[u8]>>>,
    large: RefCell<Vec<Box<[u8]>>>,
    huge: RefCell<Vec<Box<[u8]>>>,
    memory: Rc<Memory>,
}

impl Pool {
    /// What sessions and their buffers hold.
    pub fn memory(&self) -> &Rc<Memory> {
        &self.memory
    }

    /// Whether a buffer of this size may be lent in place of a smaller one.
    fn may_lend(&self, size: usize) -> bool {
        if size == HUGE { self.memory.has_plenty(size) } else { self.memory.has_room(size) }
    }

    fn free(&self, size: usize) -> &RefCell<Vec<Box<[u8]>>> {
        match size {
            PAGE => &self.page,
            LARGE => &self.large,
            _ => &self.huge,
        }
    }

    fn take(&self, size: usize) -> Box<[u8]> {
        let free = self.free(size).borrow_mut().pop();
        free.unwrap_or_else(|| vec![0; size].into_boxed_slice())
    }

    fn give(&self, buffer: Box<[u8]>) {
        let mut free = self.free(buffer.len()).borrow_mut();
        if free.len() < KEPT / buffer.len() {
            free.push(buffer);
        }
    }
}

/// Received bytes that are not consumed yet: `start..end` of the buffer in use.
pub struct Buffer {
    pool: Rc<Pool>,
    share: Share,
    small: Box<[u8]>,
    borrowed: Option<Box<[u8]>>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// A small, empty buffer.
    pub fn new(pool: Rc<Pool>) -> Self {
        let mut share = Share::of(pool.memory());
        share.set(SESSION);
        let small = vec![0; SMALL].into_boxed_slice();
        Buffer { pool, share, small, borrowed: None, start: 0, end: 0 }
    }

    fn bytes(&self) -> &[u8] {
        self.borrowed.as_deref().unwrap_or(&self.small)
    }

    /// Bytes received and not consumed.
    pub fn filled(&self) -> &[u8] {
        &self.bytes()[self.start..self.end]
    }

    /// True when all that was received is consumed.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Marks the first `count` of [`Buffer::filled`] as done with.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.end - self.start, "consumed more than was received");
        self.start += count;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Room to read into, after what is filled. Empty when the buffer is full.
    pub fn room(&mut self) -> &mut [u8] {
        let end = self.end;
        match &mut self.borrowed {
            Some(borrowed) => &mut borrowed[end..],
            None => &mut self.small[end..],
        }
    }

    /// Takes `count` bytes that were read into [`Buffer::room`].
    pub fn advance(&mut self, count: usize) {
        self.end += count;
        assert!(self.end <= self.bytes().len(), "read past the room");
    }

    /// Moves what is filled to the front.
    pub fn compact(&mut self) {
        if self.start > 0 {
            let (start, end) = (self.start, self.end);
            match &mut self.borrowed {
                Some(borrowed) => borrowed.copy_within(start..end, 0),
                None => self.small.copy_within(start..end, 0),
            }
            self.start = 0;
            self.end = end - start;
        }
    }

    /// Makes the buffer as large as the next size; false when it is the
    /// largest already, or there is no memory for it.
    pub fn grow(&mut self) -> bool {
        let next = match self.bytes().len() {
            SMALL => PAGE,
            PAGE => LARGE,
            LARGE => HUGE,
            _ => return false,
        };
        self.pool.may_lend(next) && self.resize(next)
    }

    /// Moves to a buffer of the size `next`.
    fn resize(&mut self, next: usize) -> bool {
        self.compact();
        let mut larger = self.pool.take(next);
        larger[..self.end].copy_from_slice(&self.bytes()[..self.end]);
        if let Some(old) = self.borrowed.replace(larger) {
            self.pool.give(old);
        }
        self.share.set(SESSION + next);
        true
    }

    /// Makes room for a body: at least a large buffer. False, and nothing is
    /// changed, when there is no memory for it.
    pub fn want_large(&mut self) -> bool {
        self.large_fits() && (self.bytes().len() >= LARGE || self.resize(LARGE))
    }

    /// Whether there is memory for a body.
    pub fn large_fits(&self) -> bool {
        self.bytes().len() >= LARGE || self.pool.memory.has_room(LARGE)
    }

    /// Gives a borrowed buffer back if what is filled fits the small one.
    pub fn shrink(&mut self) {
        if self.end - self.start > SMALL {
            return;
        }
        if let Some(borrowed) = self.borrowed.take() {
            let len = self.end - self.start;
            self.small[..len].copy_from_slice(&borrowed[self.start..self.end]);
            self.pool.give(borrowed);
            self.share.set(SESSION);
            (self.start, self.end) = (0, len);
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(borrowed) = self.borrowed.take() {
            self.pool.give(borrowed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(buffer: &mut Buffer, bytes: &[u8]) {
        buffer.room()[..bytes.len()].copy_from_slice(bytes);
        buffer.advance(bytes.len());
    }

    #[test]
    fn keeps_its_bytes_through_growing_and_shrinking() {
        let pool = Rc::new(Pool::default());
        let mut buffer = Buffer::new(Rc::clone(&pool));
        fill(&mut buffer, b"NOOP\r\nRS");
        buffer.consume(6);
        assert!(buffer.grow());
        assert_eq!(buffer.filled(), b"RS");
        assert_eq!(buffer.room().len(), PAGE - 2);
        assert!(buffer.grow());
        assert_eq!(buffer.room().len(), LARGE - 2);
        assert!(buffer.grow());
        assert!(!buffer.grow(), "there is a largest size");
        assert_eq!(pool.memory().held(), HUGE + SESSION);
        fill(&mut buffer, b"ET\r\n");
        buffer.shrink();
        assert_eq!(buffer.filled(), b"RSET\r\n");
        assert_eq!(buffer.room().len(), SMALL - 6);
        assert_eq!((pool.large.borrow().len(), pool.huge.borrow().len()), (1, 1));
        assert_eq!(pool.memory().held(), SESSION);
        drop(buffer);
        assert_eq!(pool.memory().held(), 0);
    }

    #[test]
    fn no_more_is_lent_than_there_is() {
        let pool = Rc::new(Pool::default());
        pool.memory().set_limit(8 * LARGE as u64);
        let mut first = Buffer::new(Rc::clone(&pool));
        assert!(first.want_large());
        assert!(first.grow(), "with half of it free");
        let mut second = Buffer::new(Rc::clone(&pool));
        assert!(second.want_large());
        assert!(!second.grow(), "the last quarter is for sessions that have none");
        let mut others = Vec::new();
        while pool.memory().has_room(SESSION + LARGE) {
            let mut buffer = Buffer::new(Rc::clone(&pool));
            assert!(buffer.want_large());
            others.push(buffer);
        }
        let mut last = Buffer::new(Rc::clone(&pool));
        assert!(!last.large_fits() && !last.want_large() && second.large_fits());
        fill(&mut last, &[b'x'; SMALL]);
        assert!(last.grow(), "a command fits");
        while pool.memory().has_room(SESSION) {
            others.push(Buffer::new(Rc::clone(&pool)));
        }
        assert!(!others.last_mut().unwrap().grow() && !last.grow());
        assert!(pool.memory().held() <= 8 * LARGE);
        drop((first, others));
        assert!(last.grow() && last.filled() == [b'x'; SMALL]);
    }

    #[test]
    fn stays_large_while_more_is_filled_than_a_small_one_holds() {
        let mut buffer = Buffer::new(Rc::default());
        assert!(buffer.want_large());
        fill(&mut buffer, &[b'x'; SMALL + 1]);
        buffer.shrink();
        assert_eq!(buffer.filled().len(), SMALL + 1);
        buffer.consume(1);
        buffer.shrink();
        assert_eq!(buffer.filled().len(), SMALL);
        assert!(buffer.room().is_empty());
        buffer.consume(SMALL);
        assert!(buffer.is_empty());
        assert_eq!(buffer.room().len(), SMALL);
    }
}
