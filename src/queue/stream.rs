//! Long messages: a head with the envelope, chunks as they come, and a commit
//! record that makes a message of them. Without the commit record there is no
//! message; what was written is dead space that goes with its segments.

use super::append::{take_envelope, write_prefix};
use super::batch::Commit;
use super::error::QueueError;
use super::fact::{Committed, First, What};
use super::format::{Kind, RECORD_HEADER, aligned};
use super::index::{Entry, Far, Index, PartSizes, Status};
use super::record::{self, EnvelopeFacts, Extent};
use super::state::{BACKLOG_MAX, Purpose, State};
use super::{PREFIX_MAX, Queue};
use crate::base::{Envelope, Location, Place, QueueId};
use crate::io::store::{Space, Store, StoreFile};

/// Most chunks of a message: what bounds its commit record.
const EXTENTS_MAX: usize = 1 << 16;

/// A message whose end has not come.
struct Parts {
    head: Place,
    first: First,
    extents: Vec<Extent>,
    size: u64,
    pins: Pins,
}

/// What a message needs of which segments, each once, as the index counts it.
#[derive(Default)]
pub(super) struct Pins(PartSizes);

impl Pins {
    /// A record with `len` bytes of payload lies at `place`.
    pub(super) fn add(&mut self, index: &mut Index, place: Place, len: usize) {
        let bytes = aligned(RECORD_HEADER + len) as u64;
        let known = self.0.iter_mut().find(|(segment, _)| *segment == place.segment);
        index.pin(place.segment, bytes, known.is_none());
        match known {
            Some((_, sum)) => *sum += bytes,
            None => self.0.push((place.segment, bytes)),
        }
    }

    /// The message is in the index, which takes them over.
    pub(super) fn take(&mut self) -> PartSizes {
        std::mem::take(&mut self.0)
    }

    /// Nothing is needed after all.
    pub(super) fn release(&mut self, index: &mut Index) {
        for (segment, bytes) in self.0.drain(..) {
            index.unpin(segment, bytes, 0);
        }
    }
}

type SpaceOf<'a> = &'a dyn Fn() -> std::io::Result<Space>;

impl Parts {
    /// Appends the head. The envelope's archive is in the scratch.
    fn begin<F: StoreFile>(
        state: &mut State<F>,
        facts: EnvelopeFacts,
        prefix: impl FnOnce(QueueId, &mut Vec<u8>),
        space: SpaceOf<'_>,
    ) -> Result<Self, QueueError> {
        let meta = state.scratch.len();
        let head = state.make_room(meta + PREFIX_MAX, Purpose::Mail, space)?;
        write_prefix(state, QueueId { log: state.options.log, place: head }, prefix)?;
        let part = state.prefix.len();
        let parts = [&state.scratch[..], &state.prefix[..]];
        let batch = state.open.as_mut().expect("room has been made");
        batch.put(Kind::Head, meta, parts);
        state.count(meta + part);
        let first = facts.first(meta, part);
        state.note(head, What::Head(first));
        state.note_timing(head, record::NOWHERE, facts.timing);
        let mut pins = Pins::default();
        pins.add(&mut state.index, head, meta + part);
        Ok(Parts { head, first, extents: Vec::new(), size: part as u64, pins })
    }

    /// Appends a part that is not longer than `part_max`.
    fn push<F: StoreFile>(
        &mut self,
        state: &mut State<F>,
        bytes: &[u8],
        space: SpaceOf<'_>,
    ) -> Result<(), QueueError> {
        if self.extents.len() == EXTENTS_MAX {
            return Err(QueueError::TooLarge { bytes: self.size, limit: self.size });
        }
        let len = record::CHUNK_PREFIX + bytes.len();
        let place = state.make_room(len, Purpose::Mail, space)?;
        let prefix = record::encode_chunk_prefix(self.head);
        state.open_batch().put(Kind::Chunk, 0, [&prefix[..], bytes]);
        state.count(len);
        let part = bytes.len() as u32;
        state.note(place, What::Chunk { head: self.head, len: part });
        self.pins.add(&mut state.index, place, len);
        self.extents.push(Extent { place, len: part });
        self.size += bytes.len() as u64;
        state.mail_came(bytes.len());
        Ok(())
    }

    /// Appends the commit record: from here on it is a message. On an error the
    /// caller releases the parts.
    fn finish<F: StoreFile>(
        &mut self,
        state: &mut State<F>,
        space: SpaceOf<'_>,
    ) -> Result<Commit, QueueError> {
        let extents = std::mem::take(&mut self.extents);
        let record = record::Commit { head: self.head, size: self.size, extents };
        state.scratch.clear();
        record.encode(&mut state.scratch);
        let len = state.scratch.len();
        let place = state.make_room(len, Purpose::Mail, space)?;
        let batch = state.open.as_mut().expect("room has been made");
        batch.put(Kind::Commit, 0, [&state.scratch[..]]);
        state.count(len);
        let commit = state.commit();
        let record::Commit { head, size, extents } = record;
        let extent = aligned(RECORD_HEADER + len) as u32;
        state.note(place, What::Commit(Box::new(Committed { head, size, extent, extents })));
        self.pins.add(&mut state.index, place, len);
        let mut entry = Entry::new(self.first, Status::Out, 0);
        let at = Location { first: self.head, commit: Some(place) };
        entry.far = Some(Box::new(Far { at, size, parts: self.pins.take() }));
        state.index.insert(self.head, entry);
        Ok(commit)
    }
}

/// Appends a whole message that is too long for one record. The envelope's
/// archive is in the scratch.
pub(super) fn append_long<F: StoreFile>(
    state: &mut State<F>,
    facts: EnvelopeFacts,
    prefix: impl FnOnce(QueueId, &mut Vec<u8>),
    body: &[&[u8]],
    space: SpaceOf<'_>,
) -> Result<(QueueId, Commit), QueueError> {
    let mut parts = Parts::begin(state, facts, prefix, space)?;
    let part_max = state.options.part_max();
    let result = body
        .iter()
        .flat_map(|part| part.chunks(part_max))
        .try_for_each(|part| parts.push(state, part, space))
        .and_then(|()| parts.finish(state, space));
    parts.pins.release(&mut state.index);
    let id = QueueId { log: state.options.log, place: parts.head };
    Ok((id, result?))
}

/// A message on its way into the log, part by part. Dropping it before
/// [`StreamedAppend::finish`] abandons it.
pub struct StreamedAppend<S: Store> {
    queue: Queue<S>,
    parts: Parts,
}

impl<S: Store> Queue<S> {
    /// Begins a message whose body follows in parts. `prefix` writes what goes
    /// before the body, as in [`Queue::append`].
    ///
    /// # Errors
    /// As [`Queue::append`].
    ///
    /// # Panics
    /// If the envelope has no recipient.
    pub fn stream(
        &self,
        envelope: &Envelope,
        prefix: impl FnOnce(QueueId, &mut Vec<u8>),
    ) -> Result<StreamedAppend<S>, QueueError> {
        let mut state = self.0.state.borrow_mut();
        state.writable()?;
        let facts = take_envelope(&mut state, envelope)?;
        let parts = Parts::begin(&mut state, facts, prefix, &|| self.0.store.space())?;
        self.0.urge();
        Ok(StreamedAppend { queue: self.clone(), parts })
    }

    /// Waits while much is waiting for the disk. Parts of streams wait by
    /// themselves; who appends many messages at once should wait before each.
    ///
    /// # Errors
    /// What is waiting could not be written.
    pub async fn room(&self) -> Result<(), QueueError> {
        loop {
            let oldest = {
                let state = self.0.state.borrow();
                if state.backlog < BACKLOG_MAX { None } else { state.oldest() }
            };
            match oldest {
                Some(commit) => commit.await?,
                None => return Ok(()),
            }
        }
    }
}

impl<S: Store> StreamedAppend<S> {
    /// The id that the message will have.
    pub fn id(&self) -> QueueId {
        QueueId { log: self.queue.0.options.log, place: self.parts.head }
    }

    /// Bytes of body so far, the prefix included.
    pub fn size(&self) -> u64 {
        self.parts.size
    }

    /// Appends the next part. Waits while much is waiting for the disk. Each
    /// call makes records of its own: parts of 64 KiB and more are best.
    ///
    /// # Errors
    /// As [`Queue::append`]; the message can then only be abandoned.
    pub async fn push(&mut self, bytes: &[u8]) -> Result<(), QueueError> {
        let part_max = self.queue.0.options.part_max();
        for part in bytes.chunks(part_max) {
            self.queue.room().await?;
            let queue = &self.queue.0;
            let mut state = queue.state.borrow_mut();
            state.writable()?;
            self.parts.push(&mut state, part, &|| queue.store.space())?;
            queue.urge();
        }
        Ok(())
    }

    /// Completes the message. It is queued when this returns and durable when
    /// the commit resolves.
    ///
    /// # Errors
    /// As [`Queue::append`]; the message is then abandoned.
    pub fn finish(mut self) -> Result<Commit, QueueError> {
        let queue = self.queue.clone();
        let mut state = queue.0.state.borrow_mut();
        state.writable()?;
        let commit = self.parts.finish(&mut state, &|| queue.0.store.space())?;
        queue.0.urge();
        drop(state);
        Ok(commit)
    }
}

impl<S: Store> Drop for StreamedAppend<S> {
    fn drop(&mut self) {
        let mut state = self.queue.0.state.borrow_mut();
        self.parts.pins.release(&mut state.index);
        drop(state);
        self.queue.0.upkeep.raise();
    }
}
