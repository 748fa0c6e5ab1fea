//! Taking a message in chunks (RFC 3030): from BDAT to the verdict that the engine
//! answers with.
//!
//! Octets are read into the session's own buffer as they come, stuffed into another
//! one, and so stored as what comes by DATA is: one record if they fit, else part
//! by part to the log. Both buffers together are no larger than the one of DATA. A
//! message of text is judged as one that comes by DATA; one of BINARYMIME keeps
//! every octet.
//!
//! Both buffers are counted (`buffer::Pool::memory`). Where memory is short the second
//! one stays small, and what is in it goes to the log earlier; where there is none the
//! message is answered 452. Between two chunks, which may be a long time apart, it is
//! no larger than what is in it, and that is little where memory is short.
//!
//! What belongs to the message lives between two chunks in the session. It is
//! dropped as soon as the engine is no longer amid chunks, and then nothing is left
//! of it but dead space in the log.

use crate::base::Share;
use crate::io::clock;
use crate::io::store::Store;
use crate::mail::stuffing::Stuffer;
use crate::policy::abuse::Pace;
use crate::proto::scan::Scan;
use crate::proto::smtp::server::{BodyVerdict, Server};

use super::body::{Intake, Lost};
use super::bounds::short_of_memory;
use super::buffer::{HUGE, LARGE};
use super::hooks::Hooks;
use super::session::Session;

/// Most stuffed octets held, in bytes: what the buffer that is read into leaves of
/// what a session may hold. A piece read is stuffed into what it has at most.
const WIRE_MAX: usize = HUGE - LARGE;

/// The least piece that is stuffed at once, in bytes; twice that is its most.
const PIECE: usize = 8 * 1024;
/// Most octets that end a message: CRLF and the terminator.
const END: usize = 5;
/// What is stuffed is held in so many bytes, or a multiple.
const STEP: usize = 4096;

const _: () = assert!(2 * PIECE + END < WIRE_MAX && WIRE_MAX.is_multiple_of(STEP));
const _: () = assert!(LARGE < WIRE_MAX);

/// What is in wire form and not in the log yet, in a buffer that is counted.
struct Wire {
    octets: Vec<u8>,
    share: Share,
}

impl Wire {
    /// Makes room for `more` octets and the end, if there is memory for it.
    fn make_room(&mut self, more: usize) -> bool {
        let (need, has) = (self.octets.len() + more + END, self.octets.capacity());
        if need <= has {
            return true;
        }
        let least = need.next_multiple_of(STEP);
        // Twice as much each time, so that what is there is not moved often.
        let ample = least.max(2 * has).min(WIRE_MAX);
        if ample >= need && self.share.memory().has_plenty(ample - has) {
            self.resize(ample);
            return true;
        }
        let is_granted = least <= (2 * PIECE + END).next_multiple_of(STEP)
            && self.share.memory().has_room(least - has);
        if is_granted {
            self.resize(least);
        }
        is_granted
    }

    /// Holds no more than what is in it and room for the end.
    fn fit(&mut self) {
        let least = match self.octets.len() {
            0 => 0,
            len => (len + END).next_multiple_of(STEP),
        };
        if least < self.octets.capacity() {
            self.resize(least);
        }
    }

    /// A buffer of its own of exactly this size: one that grows or shrinks in place may
    /// keep more than is counted.
    fn resize(&mut self, capacity: usize) {
        let mut octets = Vec::with_capacity(capacity);
        octets.extend_from_slice(&self.octets);
        self.octets = octets;
        self.share.set(self.octets.capacity());
    }
}

/// A message of which chunks were taken.
pub(super) struct Chunks<S: Store> {
    intake: Intake<S>,
    stuffer: Stuffer,
    binary: bool,
    wire: Wire,
    pace: Pace,
}

impl<S: Store> Chunks<S> {
    /// Adds octets of a chunk, stuffed. There is room for them.
    fn push(&mut self, octets: &[u8]) {
        let wire = &mut self.wire.octets;
        let before = wire.len();
        self.stuffer.push(octets, wire);
        let more = self.intake.scanner.scan(&wire[before..]);
        assert_eq!(more, Scan::More, "what is stuffed has no end in it");
        self.intake.headers.push(&wire[before..]);
    }

    /// Adds the end. There is room for it.
    fn finish(&mut self) {
        let wire = &mut self.wire.octets;
        let before = wire.len();
        let stuffer = std::mem::take(&mut self.stuffer);
        if self.binary {
            stuffer.finish_binary(wire);
        } else {
            stuffer.finish(wire);
        }
        let len = wire.len() - before;
        let end = self.intake.scanner.scan(&wire[before..]);
        assert_eq!(end, Scan::End { len }, "the end is where it was written");
        self.intake.headers.push(&wire[before..]);
    }

    /// The message is to be refused for want of memory.
    fn give_up(&mut self) {
        self.intake.give_up(short_of_memory());
        self.wire.octets.clear();
        self.wire.fit();
    }
}

impl<S: Store, H: Hooks> Session<S, H> {
    /// Reads a chunk of `octets`, the `first` of its message or not. `None` when it
    /// was taken and the message goes on.
    pub(super) async fn take_chunk(
        &mut self,
        server: &mut Server,
        octets: u64,
        first: bool,
        last: bool,
    ) -> Result<Option<BodyVerdict>, Lost> {
        if first {
            let protocol = server.protocol();
            let envelope = self.envelope(server);
            let binary = envelope.terms.as_ref().is_some_and(|terms| terms.binary);
            let passage = self.passage(&envelope);
            let intake = Intake::of_chunks(envelope, passage, protocol, binary);
            let wire = Wire { octets: Vec::new(), share: Share::of(self.shard.pool.memory()) };
            let (stuffer, pace) = (Stuffer::new(), Pace::default());
            self.chunks = Some(Box::new(Chunks { intake, stuffer, binary, wire, pace }));
        }
        let mut chunks = self.chunks.take().expect("a first chunk began the message");
        let mut left = octets;
        loop {
            let filled = self.buffer.filled();
            let len = usize::try_from(left).map_or(filled.len(), |left| left.min(filled.len()));
            for piece in filled[..len].chunks(PIECE) {
                self.take_piece(&mut chunks, piece).await;
            }
            self.buffer.consume(len);
            left -= len as u64;
            if left == 0 {
                break;
            }
            // If there is no memory for it, the chunk comes in smaller pieces.
            self.buffer.want_large();
            self.read_body(&mut chunks.pace).await?;
        }
        if last {
            return Ok(Some(self.conclude_chunks(*chunks).await));
        }
        self.let_rest(&mut chunks).await;
        if let Some(reply) = chunks.intake.refusal() {
            self.refuse(&chunks.intake, &reply);
            return Ok(Some(BodyVerdict::Refuse(reply)));
        }
        self.chunks = Some(chunks);
        Ok(None)
    }

    /// Takes a piece of a chunk, of [`PIECE`] octets at most.
    async fn take_piece(&self, chunks: &mut Chunks<S>, piece: &[u8]) {
        if chunks.intake.is_given_up() {
            return;
        }
        let most = 2 * piece.len();
        if !chunks.wire.make_room(most) {
            self.spill_wire(chunks).await;
            if !chunks.wire.make_room(most) {
                self.shed(chunks);
                return;
            }
        }
        chunks.push(piece);
    }

    /// Takes what is stuffed to the log.
    async fn spill_wire(&self, chunks: &mut Chunks<S>) {
        self.guard.disarm();
        self.spill(&mut chunks.intake, &chunks.wire.octets).await;
        chunks.wire.octets.clear();
    }

    /// Has the message hold no more than it needs while it waits for its next chunk.
    async fn let_rest(&self, chunks: &mut Chunks<S>) {
        let has_plenty = self.shard.pool.memory().has_plenty(LARGE);
        let most = if has_plenty { LARGE } else { PIECE };
        if chunks.wire.octets.len() > most {
            self.spill_wire(chunks).await;
        }
        chunks.wire.fit();
    }

    /// There is no memory for what comes next.
    fn shed(&self, chunks: &mut Chunks<S>) {
        self.shard.counters.borrow_mut().messages_shed += 1;
        chunks.give_up();
    }

    /// The message has ended.
    async fn conclude_chunks(&self, mut chunks: Chunks<S>) -> BodyVerdict {
        let ended = clock::monotonic();
        self.guard.disarm();
        if chunks.wire.make_room(0) {
            chunks.finish();
        } else {
            self.shed(&mut chunks);
        }
        let Chunks { mut intake, wire, .. } = chunks;
        match self.store(&mut intake, &wire.octets, ended).await {
            Ok(id) => BodyVerdict::Queued(id),
            Err(reply) => {
                self.refuse(&intake, &reply);
                BodyVerdict::Refuse(reply)
            }
        }
    }
}
