//! A batch: the records that one write carries, in the buffer they are written
//! from. Bodies are copied here once, straight from the caller's slices, and
//! their checksum is computed over the copy while it is in cache.
//!
//! Everyone who waits for a batch shares its [`Ticket`].

use std::cell::RefCell;
use std::future::Future;
use std::ops::DerefMut;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::error::QueueError;
use super::format::{Kind, RECORD_HEADER, RecordHeader, Seal, aligned};
use super::record::{MARK_LEN, Mark};
use crate::base::Place;
use crate::base::checksum::crc32c;
use crate::io::store::BLOCK;

/// Bytes at the start of a batch that its mark takes.
pub const BATCH_PREFIX: usize = aligned(RECORD_HEADER + MARK_LEN);
/// Bytes copied before their checksum is computed, so that they are in cache.
const COPY_STEP: usize = 8 * 1024;

/// What has become of a batch.
enum TicketState {
    Waiting(Vec<Waker>),
    Done,
    Failed(Rc<str>),
}

/// The notification that all waiters of a batch share.
pub(super) struct Ticket(RefCell<TicketState>);

impl Ticket {
    fn new() -> Rc<Self> {
        Rc::new(Ticket(RefCell::new(TicketState::Waiting(Vec::new()))))
    }

    /// The batch is durable.
    pub(super) fn complete(&self) {
        self.settle(TicketState::Done);
    }

    /// The batch will never be durable.
    pub(super) fn fail(&self, why: &Rc<str>) {
        self.settle(TicketState::Failed(Rc::clone(why)));
    }

    fn settle(&self, state: TicketState) {
        if let TicketState::Waiting(wakers) = self.0.replace(state) {
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

/// Resolves once what was appended is as durable as the queue's
/// [`Durability`](crate::base::Durability) says: with `sync`, after a flush
/// that began when the write had completed. Dropping it changes nothing about
/// what was appended.
#[must_use = "nothing is durable before the commit has resolved"]
pub struct Commit {
    ticket: Option<Rc<Ticket>>,
    slot: Option<usize>,
}

impl Commit {
    pub(super) fn of(ticket: &Rc<Ticket>) -> Self {
        Commit { ticket: Some(Rc::clone(ticket)), slot: None }
    }

    /// A commit that has nothing to wait for.
    pub(super) fn resolved() -> Self {
        Commit { ticket: None, slot: None }
    }
}

impl Future for Commit {
    type Output = Result<(), QueueError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(ticket) = &this.ticket else { return Poll::Ready(Ok(())) };
        match &mut *ticket.0.borrow_mut() {
            TicketState::Done => Poll::Ready(Ok(())),
            TicketState::Failed(why) => Poll::Ready(Err(QueueError::Poisoned(why.to_string()))),
            TicketState::Waiting(wakers) => {
                match this.slot.and_then(|slot| wakers.get_mut(slot)) {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => {
                        this.slot = Some(wakers.len());
                        wakers.push(cx.waker().clone());
                    }
                }
                Poll::Pending
            }
        }
    }
}

/// Records that will be written together.
pub(super) struct Batch<B> {
    /// Batches are numbered in the order of the log.
    pub(super) number: u64,
    /// Where it begins: at a whole block.
    pub(super) place: Place,
    pub(super) ticket: Rc<Ticket>,
    seal: Seal,
    buf: B,
    len: usize,
}

impl<B: DerefMut<Target = [u8]>> Batch<B> {
    pub(super) fn new(number: u64, place: Place, seal: Seal, buf: B) -> Self {
        debug_assert!((place.offset as usize).is_multiple_of(BLOCK));
        debug_assert!(buf.len().is_multiple_of(BLOCK) && buf.len() >= BATCH_PREFIX);
        Batch { number, place, ticket: Ticket::new(), seal, buf, len: BATCH_PREFIX }
    }

    /// Bytes that further records may take.
    pub(super) fn room(&self) -> usize {
        self.buf.len() - self.len
    }

    /// Where the next record will lie.
    pub(super) fn next(&self) -> Place {
        Place { segment: self.place.segment, offset: self.place.offset + self.len as u32 }
    }

    /// Where the batch ends, padding included.
    pub(super) fn end(&self) -> Place {
        let len = self.len.next_multiple_of(BLOCK) as u32;
        Place { segment: self.place.segment, offset: self.place.offset + len }
    }

    /// Adds a record whose payload is `parts` in their order, the first `meta`
    /// bytes of it being the envelope. The caller has looked at
    /// [`Batch::room`].
    pub(super) fn put<'a>(
        &mut self,
        kind: Kind,
        meta: usize,
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) {
        let seed = self.seal.payload_seed();
        let start = self.len + RECORD_HEADER;
        let (mut at, mut crc) = (start, seed);
        for part in parts {
            for piece in part.chunks(COPY_STEP) {
                let target = &mut self.buf[at..at + piece.len()];
                target.copy_from_slice(piece);
                crc = crc32c(crc, target);
                at += piece.len();
            }
        }
        let header = RecordHeader { kind, len: (at - start) as u32, meta: meta as u32, crc };
        let encoded = header.encode(self.seal, self.next().offset);
        self.buf[self.len..start].copy_from_slice(&encoded);
        let end = self.len + header.extent();
        self.buf[at..end].fill(0);
        self.len = end;
    }

    /// Writes the mark and the padding; gives the buffer, and how much of it to
    /// write.
    pub(super) fn finish(mut self, mark: Mark) -> (B, usize) {
        let end = self.len.next_multiple_of(BLOCK);
        if end > self.len {
            let len = (end - self.len - RECORD_HEADER) as u32;
            let header = RecordHeader { kind: Kind::Pad, len, meta: 0, crc: 0 };
            let encoded = header.encode(self.seal, self.next().offset);
            self.buf[self.len..self.len + RECORD_HEADER].copy_from_slice(&encoded);
            self.buf[self.len + RECORD_HEADER..end].fill(0);
        }
        self.len = 0;
        self.put(Kind::Mark, 0, [&mark.encode()[..]]);
        debug_assert_eq!(self.len, BATCH_PREFIX);
        (self.buf, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ShardId;
    use crate::queue::record::NOWHERE;
    use crate::queue::walk::{Walk, Walked};

    #[test]
    fn a_batch_reads_back_as_mark_records_and_padding() {
        let seal = Seal::new(ShardId(1), 2, 3);
        let place = Place { segment: 2, offset: 8192 };
        let mut batch = Batch::new(1, place, seal, vec![0xaa; 3 * BLOCK]);
        assert_eq!(batch.next().offset, 8192 + BATCH_PREFIX as u32);
        let body = vec![b'x'; COPY_STEP + 1];
        batch.put(Kind::Message, 3, [&b"env"[..], b"prefix", &body]);
        batch.put(Kind::Chunk, 0, [&b""[..]]);
        let end = batch.end();
        let (buf, len) = batch.finish(Mark { durable: place, previous: NOWHERE });
        assert_eq!(end.offset as usize, 8192 + len);
        let mut walk = Walk::new(seal, 8192, end.offset);
        let mut seen = Vec::new();
        while let Walked::Record { header, skipped, .. } = walk.step(&buf[..len], 8192) {
            assert_eq!(skipped, 0);
            seen.push((header.kind, header.len as usize));
        }
        let pad = len - BATCH_PREFIX - aligned(16 + 9 + COPY_STEP + 1) - 16 - 16;
        assert_eq!(
            seen,
            [
                (Kind::Mark, MARK_LEN),
                (Kind::Message, 9 + COPY_STEP + 1),
                (Kind::Chunk, 0),
                (Kind::Pad, pad)
            ]
        );
    }

    #[test]
    fn waiters_share_a_ticket_and_may_move_between_tasks() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicU32, Ordering};
        use std::task::Wake;

        #[derive(Default)]
        struct Count(AtomicU32);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let counts: Vec<Arc<Count>> = (0..3).map(|_| Arc::default()).collect();
        let wakers: Vec<Waker> = counts.iter().map(|count| Arc::clone(count).into()).collect();
        let ticket = Ticket::new();
        let mut commits = [Commit::of(&ticket), Commit::of(&ticket)];
        let poll = |commit: &mut Commit, waker: usize| {
            Pin::new(commit).poll(&mut Context::from_waker(&wakers[waker])).map(|r| r.is_ok())
        };
        assert_eq!(poll(&mut commits[0], 0), Poll::Pending);
        assert_eq!(poll(&mut commits[1], 1), Poll::Pending);
        assert_eq!(poll(&mut commits[1], 2), Poll::Pending);
        ticket.complete();
        let woken: Vec<u32> = counts.iter().map(|count| count.0.load(Ordering::Relaxed)).collect();
        assert_eq!(woken, [1, 0, 1]);
        assert_eq!(poll(&mut commits[0], 0), Poll::Ready(true));
        ticket.fail(&Rc::from("late"));
        assert_eq!(poll(&mut commits[1], 0), Poll::Ready(false));
    }
}
