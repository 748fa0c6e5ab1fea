//! How the body of a message goes: behind DATA, in chunks (BDAT, RFC 3030), or, if it is
//! short, in one chunk ahead of the replies to its envelope. That takes one round trip in
//! place of two where nothing else is under way on the connection.
//!
//! A server that offers CHUNKING and does not know it takes the body for commands. So the
//! first reply that says so ends the connection, and for a while mail goes to that host
//! without; so it does when a connection breaks before its first chunk was answered.

use super::Core;
use super::attempt::{Attempt, unreadable};
use super::body::{LogBody, Needs};
use super::memory::Room;
use super::reach::Target;
use super::wire::{OUT_KEPT, Wire};
use crate::base::Mail;
use crate::base::envelope::SharedMail;
use crate::io::clock;
use crate::io::store::Store;
use crate::mail::chunks::{Chunker, whole};
use crate::policy::back_off::CHUNKS_FORGONE;
use crate::policy::governor::Failure;

/// Bodies up to this many bytes are copied behind the commands, so that one system call
/// sends both.
pub(super) const COPIED_MAX: usize = OUT_KEPT;

/// Where the body of the transaction begun comes from.
pub(super) enum Body<S: Store> {
    Memory,
    Log(Box<LogBody<S>>),
}

/// How it goes.
pub(super) enum Carriage {
    Data,
    Chunks(Chunker),
    /// In one chunk, which has gone.
    Ahead,
}

impl Carriage {
    pub(super) fn is_chunked(&self) -> bool {
        !matches!(self, Carriage::Data)
    }
}

/// How a body is to go.
pub(super) enum Choice {
    Data,
    Chunks,
    /// With room for the copy of it.
    Ahead(Room),
}

impl Choice {
    pub(super) fn is_chunked(&self) -> bool {
        !matches!(self, Choice::Data)
    }

    /// The commands have been written: sends what goes at once.
    pub(super) fn begin(self, wire: &mut Wire, mail: &Mail) -> Carriage {
        match self {
            Choice::Data => Carriage::Data,
            Choice::Chunks => {
                let terms = mail.envelope.terms.as_deref();
                Carriage::Chunks(Chunker::new(terms.is_some_and(|terms| terms.no_final_crlf)))
            }
            Choice::Ahead(room) => {
                let text = whole(&mail.body);
                wire.client.chunk_ahead(text.len(), &mut wire.out);
                wire.copy(&text, room);
                Carriage::Ahead
            }
        }
    }
}

/// What is known of a host's chunks on a connection.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Chunks {
    /// Nothing: none was sent.
    #[default]
    Unused,
    /// Some were sent, and none was taken yet.
    Tried,
    /// It takes them.
    Work,
}

impl<S: Store> Core<S> {
    /// How the body of an attempt goes; `is_alone`: nothing is under way on the
    /// connection, and nothing waits to follow. A socket of this machine could not be remembered for failing, and has
    /// no round trip to be won.
    pub(super) fn choose(
        &self,
        attempt: &Attempt,
        needs: Needs,
        (wire, target): (&Wire, &Target),
        is_alone: bool,
    ) -> Choice {
        if needs.binary {
            return Choice::Chunks;
        }
        let offer = wire.client.offer();
        if !is_alone || !offer.chunking || !offer.pipelining || target.address().is_none() {
            return Choice::Data;
        }
        let len = attempt.handle.body().map_or(usize::MAX, <[u8]>::len);
        if len > COPIED_MAX || !self.config().delivery.chunking {
            return Choice::Data;
        }
        self.memory.keep(len).map_or(Choice::Data, Choice::Ahead)
    }

    /// Has a connection just opened do without chunks if the host is known to fail at
    /// them.
    pub(super) fn weigh_chunks(&self, wire: &mut Wire, target: &Target) {
        let now = clock::monotonic();
        let fails = |address| self.chunk_trouble.borrow().until(address, now).is_some();
        let Some(address) = target.address() else { return };
        if wire.client.offer().chunking && fails(address) {
            wire.client.forgo_chunks();
        }
    }

    /// A host took a chunk.
    pub(super) fn chunks_work(&self, target: &Target) {
        let mut trouble = self.chunk_trouble.borrow_mut();
        if let Some(address) = target.address().filter(|_| !trouble.is_empty()) {
            trouble.worked(address);
        }
    }

    /// A host does not take chunks, which it offers; false where that cannot be
    /// remembered.
    pub(super) fn chunks_fail(&self, target: &Target, why: &str) -> bool {
        let Some(address) = target.address() else { return false };
        let now = clock::monotonic();
        self.chunk_trouble.borrow_mut().failed_for(address, CHUNKS_FORGONE, now);
        self.counters.borrow_mut().outbound_chunk_fallbacks += 1;
        let host = target.label();
        tracing::warn!(target: "relay", %host, "mail goes without BDAT for a while: {why}");
        true
    }
}

/// Sends a body part by part. A part that the server does not take in good time
/// may have to make room for others; it is read again when the server goes on.
pub(super) async fn send_from_log<S: Store>(
    wire: &mut Wire,
    body: &mut LogBody<S>,
) -> Result<(), Failure> {
    loop {
        wire.listen().await?;
        let Some(mut part) = body.next().await.map_err(unreadable)? else { return Ok(()) };
        let mut from = 0;
        wire.be_patient();
        while !wire.send_part(&part, &mut from).await? {
            drop(part);
            wire.listen().await?;
            body.again();
            part = body.next().await.map_err(unreadable)?.expect("it was there before");
        }
        wire.be_at_ease();
    }
}

/// Sends the next chunk of a body: all of one that is in memory, else a part of it.
pub(super) async fn send_chunk<S: Store>(
    wire: &mut Wire,
    mail: SharedMail,
    body: &mut Body<S>,
    chunker: &mut Chunker,
) -> Result<(), Failure> {
    let (text, is_last) = loop {
        let (text, is_last) = match body {
            Body::Memory => (chunker.chunk(&mail.body, true), true),
            Body::Log(body) => {
                let part = body.next().await.map_err(unreadable)?;
                let is_last = body.is_at_end();
                let octets = part.and_then(|part| part.with(<[u8]>::to_vec));
                (chunker.chunk(&octets.unwrap_or_default(), is_last), is_last)
            }
        };
        // A chunk of nothing says nothing, unless it is the last.
        if is_last || !text.is_empty() {
            break (text, is_last);
        }
    };
    wire.client.chunk(text.len(), is_last, &mut wire.out);
    if text.len() <= COPIED_MAX {
        wire.out.extend_from_slice(&text);
        return Ok(());
    }
    wire.flush().await?;
    wire.write(&text).await
}
