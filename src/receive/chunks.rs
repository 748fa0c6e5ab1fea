//! Taking a message in chunks (RFC 3030): from BDAT to the verdict that the engine
//! answers with.
//!
//! Octets are read into the session's own buffer as they come, stuffed into another
//! one, and so stored as what comes by DATA is: one record if they fit, else part
//! by part to the log. Both buffers together are no larger than the one of DATA. A
//! message of text is judged as one that comes by DATA; one of BINARYMIME keeps
//! every octet.
//!
//! What belongs to the message lives between two chunks in the session. It is
//! dropped as soon as the engine is no longer amid chunks, and then nothing is left
//! of it but dead space in the log.

use crate::io::clock;
use crate::io::store::Store;
use crate::mail::stuffing::Stuffer;
use crate::policy::abuse::Pace;
use crate::proto::scan::Scan;
use crate::proto::smtp::server::{BodyVerdict, Server};

use super::body::{Intake, Lost};
use super::buffer::{HUGE, LARGE};
use super::hooks::Hooks;
use super::session::Session;

/// Most stuffed octets held, in bytes: what the buffer that is read into leaves of
/// what a session may hold. A piece read is stuffed into what it has at most.
const WIRE_MAX: usize = HUGE - LARGE;

/// The least piece that is stuffed at once, in bytes; twice that is its most.
const PIECE: usize = 8 * 1024;

const _: () = assert!(2 * PIECE < WIRE_MAX);

/// A message of which chunks were taken.
pub(super) struct Chunks<S: Store> {
    intake: Intake<S>,
    stuffer: Stuffer,
    binary: bool,
    /// In wire form, not in the log yet.
    wire: Vec<u8>,
    pace: Pace,
}

impl<S: Store> Chunks<S> {
    /// Adds octets of a chunk, stuffed.
    fn push(&mut self, octets: &[u8]) {
        let before = self.wire.len();
        self.stuffer.push(octets, &mut self.wire);
        let more = self.intake.scanner.scan(&self.wire[before..]);
        assert_eq!(more, Scan::More, "what is stuffed has no end in it");
        self.intake.headers.push(&self.wire[before..]);
    }

    /// Adds the end.
    fn finish(&mut self) {
        let before = self.wire.len();
        let stuffer = std::mem::take(&mut self.stuffer);
        if self.binary {
            stuffer.finish_binary(&mut self.wire);
        } else {
            stuffer.finish(&mut self.wire);
        }
        let len = self.wire.len() - before;
        let end = self.intake.scanner.scan(&self.wire[before..]);
        assert_eq!(end, Scan::End { len }, "the end is where it was written");
        self.intake.headers.push(&self.wire[before..]);
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
            let chunks = Chunks {
                intake,
                stuffer: Stuffer::new(),
                binary,
                wire: Vec::new(),
                pace: Pace::default(),
            };
            self.chunks = Some(Box::new(chunks));
        }
        let mut chunks = self.chunks.take().expect("a first chunk began the message");
        if octets > 0 {
            self.buffer.want_large();
        }
        let mut left = octets;
        loop {
            let filled = self.buffer.filled();
            let len = usize::try_from(left).map_or(filled.len(), |left| left.min(filled.len()));
            for piece in filled[..len].chunks(PIECE) {
                if chunks.wire.len() + 2 * piece.len() > WIRE_MAX {
                    self.guard.disarm();
                    let Chunks { intake, wire, .. } = &mut *chunks;
                    self.spill(intake, wire).await;
                    wire.clear();
                }
                chunks.push(piece);
            }
            self.buffer.consume(len);
            left -= len as u64;
            if left == 0 {
                break;
            }
            self.read_body(&mut chunks.pace).await?;
        }
        if last {
            return Ok(Some(self.conclude_chunks(*chunks).await));
        }
        if let Some(reply) = chunks.intake.refusal() {
            self.refuse(&chunks.intake, &reply);
            return Ok(Some(BodyVerdict::Refuse(reply)));
        }
        self.chunks = Some(chunks);
        Ok(None)
    }

    /// The message has ended.
    async fn conclude_chunks(&self, mut chunks: Chunks<S>) -> BodyVerdict {
        let ended = clock::monotonic();
        self.guard.disarm();
        chunks.finish();
        let Chunks { mut intake, wire, .. } = chunks;
        match self.store(&mut intake, &wire, ended).await {
            Ok(id) => BodyVerdict::Queued(id),
            Err(reply) => {
                self.refuse(&intake, &reply);
                BodyVerdict::Refuse(reply)
            }
        }
    }
}
