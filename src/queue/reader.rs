//! Reads messages back, by their location. A record is immutable once it is
//! committed, and a message that is out neither moves nor loses its segments, so
//! that any core can read any log with a [`Reader`] of its own.
//!
//! Every record passes its checksum before a byte of it is given out: damage
//! shows as an error for that message, never as altered mail.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use super::ahead::Ahead;
use super::error::QueueError;
use super::format::{
    DATA_START, Kind, RECORD_HEADER, RecordHeader, Seal, SegmentHeader, segment_name,
};
use super::record::{self, CHUNK_PREFIX, Commit, Extent, Malformed, Payload};
use super::recover::is_unreadable;
use super::view::Reading;
use crate::base::{Envelope, Location, Mail, Outcome, Place};
use crate::io::store::{OpenMode, Store, StoreFile};

/// Bytes read at first for a record of unknown length: most messages whole.
const FIRST_READ: usize = 8 * 1024;
/// Segments kept open for reading.
const OPEN_MAX: usize = 32;
/// Longest body that is loaded whole.
const LOAD_MAX: u64 = super::BODY_PART_MAX as u64 + super::PREFIX_MAX as u64;

struct OpenSegment<F> {
    number: u32,
    seal: Seal,
    len: u64,
    file: F,
}

/// A record as read: its header and payload.
pub(super) struct Record {
    pub(super) header: RecordHeader,
    bytes: Vec<u8>,
}

/// A message as its first record, and its commit record if it has one, tell it.
pub(super) struct Told {
    pub(super) first: Record,
    /// Bytes of the whole body.
    pub(super) size: u64,
    /// Where what is not in the first record lies, in order.
    pub(super) extents: Vec<Extent>,
}

impl Record {
    /// A record whose header has been read from `bytes`, which are all of it.
    pub(super) fn new(header: RecordHeader, bytes: Vec<u8>) -> Self {
        Record { header, bytes }
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.bytes[RECORD_HEADER..]
    }

    /// The archive of the envelope and the first part of the body of a record
    /// that begins a message and has been read as such.
    pub(super) fn split(&self) -> (&[u8], &[u8]) {
        let meta = self.header.meta;
        match self.header.kind {
            Kind::Moved => record::Moved::decode(meta, self.payload())
                .map(|(_, envelope, part)| (envelope, part))
                .expect("decoded once already"),
            _ => self.payload().split_at(meta as usize),
        }
    }

    /// The payload from `skip` on.
    fn into_rest(mut self, skip: usize) -> Vec<u8> {
        self.bytes.drain(..RECORD_HEADER + skip);
        self.bytes
    }
}

/// Segments open for reading, the one used last at the end.
type OpenSegments<F> = RefCell<VecDeque<Rc<OpenSegment<F>>>>;

/// Reads the messages of one log. Cheap to clone.
pub struct Reader<S: Store> {
    store: S,
    open: Rc<OpenSegments<S::File>>,
    ahead: Option<Rc<RefCell<Ahead>>>,
}

impl<S: Store> Clone for Reader<S> {
    fn clone(&self) -> Self {
        Reader { store: self.store.clone(), open: Rc::clone(&self.open), ahead: self.ahead.clone() }
    }
}

impl<S: Store> Reader<S> {
    /// A reader of the log in `store`'s directory.
    pub fn new(store: S) -> Self {
        Reader { store, open: Rc::default(), ahead: None }
    }

    /// A reader of the same log for who reads small records in their order. It
    /// shares the open files, and nothing that was read, with others.
    pub fn in_order(&self) -> Self {
        Reader { ahead: Some(Rc::new(RefCell::new(Ahead::new()))), ..self.clone() }
    }

    /// The envelope of the message whose first record is there.
    ///
    /// # Errors
    /// `Io` or `Damaged`.
    pub async fn envelope(&self, first: Place) -> Result<Envelope, QueueError> {
        let record = self.first(first, FIRST_READ).await?;
        decode_envelope(&record, first)
    }

    /// The body of the message `id`, which lies there, in parts.
    ///
    /// # Errors
    /// `Io` or `Damaged`.
    pub async fn body(&self, id: Place, at: Location) -> Result<BodyReader<S>, QueueError> {
        let (_, body) = self.open_message(id, at, FIRST_READ).await?;
        Ok(body)
    }

    /// A message whole.
    ///
    /// # Errors
    /// `TooLarge` past [`BODY_PART_MAX`](super::BODY_PART_MAX) and the prefix;
    /// `Io` or `Damaged`.
    pub async fn load(&self, id: Place, at: Location) -> Result<Mail, QueueError> {
        self.load_hinted(id, at, FIRST_READ).await
    }

    pub(super) async fn load_hinted(
        &self,
        id: Place,
        at: Location,
        hint: usize,
    ) -> Result<Mail, QueueError> {
        let (envelope, mut reader) = self.open_message(id, at, hint).await?;
        if reader.len() > LOAD_MAX {
            return Err(QueueError::TooLarge { bytes: reader.len(), limit: LOAD_MAX });
        }
        let mut body = Vec::new();
        while let Some(mut part) = reader.next().await? {
            if body.is_empty() {
                body = part;
            } else {
                body.append(&mut part);
            }
        }
        Ok(Mail { envelope, body: body.into_boxed_slice() })
    }

    /// What the record `at` says about a recipient of the message `id`, whose
    /// first record is `first`.
    pub(super) async fn outcome(
        &self,
        at: Place,
        id: Place,
        first: Place,
        recipient: u16,
    ) -> Result<Option<Outcome>, QueueError> {
        let record = self.record(at, FIRST_READ).await?;
        let payload = Payload::decode(record.header.kind, record.header.meta, record.payload());
        Ok(match payload.map_err(damaged(at))? {
            Payload::Outcomes { message: of, outcomes } if of == id => {
                outcomes.into_iter().rev().find(|outcome| outcome.recipient == recipient)
            }
            Payload::Survivors(survivors) if survivors.segment == first.segment => survivors
                .messages
                .into_iter()
                .find(|survivor| survivor.offset == first.offset)
                .and_then(|m| m.recipients.into_iter().find(|r| r.recipient == recipient)?.last),
            Payload::Moved { moved, .. } if moved.id == id => moved
                .known
                .into_iter()
                .find(|known| known.recipient == recipient)
                .and_then(|k| k.last),
            _ => None,
        })
    }

    async fn open_message(
        &self,
        id: Place,
        at: Location,
        hint: usize,
    ) -> Result<(Envelope, BodyReader<S>), QueueError> {
        let told = self.told(id, at, hint).await?;
        let envelope = decode_envelope(&told.first, at.first)?;
        let meta = told.first.header.meta as usize;
        let body = BodyReader {
            reader: self.clone(),
            reading: None,
            id,
            first_at: at.first,
            first_len: told.first.header.len as usize - meta,
            record_len: told.first.bytes.len(),
            first: Some(told.first.into_rest(meta)),
            rest: told.extents,
            at: 0,
            len: told.size,
        };
        Ok((envelope, body))
    }

    /// What is said about the message `id` where it lies.
    pub(super) async fn told(
        &self,
        id: Place,
        at: Location,
        hint: usize,
    ) -> Result<Told, QueueError> {
        let first = self.first(at.first, hint).await?;
        let part_len = u64::from(first.header.len - first.header.meta);
        let (mut size, mut extents) = (part_len, Vec::new());
        match (first.header.kind, at.commit) {
            (Kind::Moved, None) => {
                let decoded = record::Moved::decode(first.header.meta, first.payload());
                let (moved, ..) = decoded.map_err(damaged(at.first))?;
                if moved.id != id {
                    return Err(damaged(at.first)(Malformed("another message that has moved")));
                }
                (size, extents) = (moved.size, moved.extents);
            }
            (Kind::Head, Some(place)) => {
                let commit = self.commit(place).await?;
                if commit.head != id {
                    return Err(damaged(place)(Malformed("a commit of another message")));
                }
                (size, extents) = (commit.size, commit.extents);
            }
            (Kind::Message, None) => {}
            _ => return Err(damaged(at.first)(Malformed("not a message of this kind"))),
        }
        let listed: u64 = extents.iter().map(|extent| u64::from(extent.len)).sum();
        if listed + part_len != size {
            return Err(damaged(at.first)(Malformed("its parts do not make up its size")));
        }
        Ok(Told { first, size, extents })
    }

    async fn first(&self, place: Place, hint: usize) -> Result<Record, QueueError> {
        let record = self.record(place, hint).await?;
        match record.header.kind {
            Kind::Message | Kind::Head | Kind::Moved => Ok(record),
            _ => Err(damaged(place)(Malformed("not the first record of a message"))),
        }
    }

    async fn commit(&self, at: Place) -> Result<Commit, QueueError> {
        let record = self.record(at, FIRST_READ).await?;
        match Payload::decode(record.header.kind, record.header.meta, record.payload()) {
            Ok(Payload::Commit(commit)) => Ok(commit),
            Ok(_) => Err(damaged(at)(Malformed("not a commit record"))),
            Err(error) => Err(damaged(at)(error)),
        }
    }

    /// The part of the message `id` that `extent` names.
    pub(super) async fn chunk(&self, id: Place, extent: Extent) -> Result<Vec<u8>, QueueError> {
        let hint = RECORD_HEADER + CHUNK_PREFIX + extent.len as usize;
        let chunk = self.record(extent.place, hint).await?;
        let (head, part) = record::decode_chunk(chunk.payload()).map_err(damaged(extent.place))?;
        if chunk.header.kind != Kind::Chunk || head != id || part.len() != extent.len as usize {
            return Err(damaged(extent.place)(Malformed("not the part that was committed")));
        }
        Ok(chunk.into_rest(CHUNK_PREFIX))
    }

    /// The record at `place`, checked.
    async fn record(&self, place: Place, hint: usize) -> Result<Record, QueueError> {
        let segment = self.segment(place.segment).await?;
        let known = self.ahead.as_ref().and_then(|a| a.borrow().record(place, segment.seal));
        if let Some(record) = known {
            return Ok(record);
        }
        let hint = self.ahead.as_ref().map_or(hint, |ahead| ahead.borrow_mut().length(place));
        let at = u64::from(place.offset);
        let left = segment.len.saturating_sub(at) as usize;
        let mut first = hint.max(RECORD_HEADER).min(left);
        let mut bytes = match segment.file.read_at(at, first).await {
            // What cannot be read may lie behind the record.
            Err(error) if is_unreadable(&error) => {
                first = RECORD_HEADER.min(left);
                segment.file.read_at(at, first).await
            }
            read => read,
        }
        .map_err(failed(place))?;
        if let Some(ahead) = &self.ahead {
            ahead.borrow_mut().keep(place, &bytes);
        }
        let header = RecordHeader::decode(&bytes, segment.seal, place.offset)
            .ok_or_else(|| damaged(place)(Malformed("no record begins there")))?;
        let len = RECORD_HEADER + header.len as usize;
        if len > left {
            return Err(damaged(place)(Malformed("longer than its segment")));
        }
        if len > bytes.len() {
            let more = segment.file.read_at(at + first as u64, len - first).await;
            bytes.extend_from_slice(&more.map_err(failed(place))?);
        }
        bytes.truncate(len);
        let record = Record { header, bytes };
        if !header.verify(segment.seal, record.payload()) {
            return Err(damaged(place)(Malformed("its checksum does not match")));
        }
        Ok(record)
    }

    async fn segment(&self, number: u32) -> Result<Rc<OpenSegment<S::File>>, QueueError> {
        let cached = {
            let mut open = self.open.borrow_mut();
            let found = open.iter().position(|segment| segment.number == number);
            found.and_then(|at| open.remove(at)).inspect(|segment| {
                open.push_back(Rc::clone(segment));
            })
        };
        if let Some(segment) = cached {
            return Ok(segment);
        }
        let name = segment_name(number);
        let failed = |what: &str| QueueError::io(format!("{what} {name} failed"));
        let file = self.store.open(&name, OpenMode::Read).await.map_err(failed("opening"))?;
        let header = file.read_at(0, DATA_START as usize).await.map_err(failed("reading"))?;
        let header = SegmentHeader::decode(&header).ok().filter(|header| header.segment == number);
        let place = Place { segment: number, offset: 0 };
        let seal = header.ok_or_else(|| damaged(place)(Malformed("the segment's header")))?.seal();
        let len = file.len().await.map_err(failed("measuring"))?;
        let segment = Rc::new(OpenSegment { number, seal, len, file });
        let evicted = {
            let mut open = self.open.borrow_mut();
            open.push_back(Rc::clone(&segment));
            if open.len() > OPEN_MAX { open.pop_front() } else { None }
        };
        if let Some(Ok(segment)) = evicted.map(Rc::try_unwrap) {
            segment.file.close().await;
        }
        Ok(segment)
    }
}

fn decode_envelope(first: &Record, place: Place) -> Result<Envelope, QueueError> {
    let RecordHeader { kind, meta, .. } = first.header;
    record::first_envelope(kind, meta, first.payload()).map_err(damaged(place))
}

fn damaged(place: Place) -> impl Fn(Malformed) -> QueueError {
    move |Malformed(what)| QueueError::Damaged { place, what }
}

/// Sectors that cannot be read are damage; anything else is not about the record.
fn failed(place: Place) -> impl FnOnce(io::Error) -> QueueError {
    move |error| match is_unreadable(&error) {
        true => damaged(place)(Malformed("it cannot be read from the disk")),
        false => QueueError::io(format!("reading segment {:08x} failed", place.segment))(error),
    }
}

/// The body of a message, part by part.
pub struct BodyReader<S: Store> {
    reader: Reader<S>,
    /// Keeps the message where it is, if it is of a log that is open here.
    reading: Option<Reading<S>>,
    id: Place,
    first_at: Place,
    /// The first part, as it was read with the envelope.
    first: Option<Vec<u8>>,
    first_len: usize,
    /// Bytes of the record it is in.
    record_len: usize,
    rest: Vec<Extent>,
    /// Number of the next part.
    at: usize,
    len: u64,
}

impl<S: Store> BodyReader<S> {
    pub(super) fn holding(self, reading: Reading<S>) -> Self {
        BodyReader { reading: Some(reading), ..self }
    }

    /// Bytes of the whole body.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True for a body of no bytes, which no stored message has.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the next part; `None` at the end.
    pub fn next_len(&self) -> Option<usize> {
        match self.at.checked_sub(1) {
            None => Some(self.first_len),
            Some(at) => self.rest.get(at).map(|extent| extent.len as usize),
        }
    }

    /// Forgets what was read ahead if it is more than a few bytes, to be read
    /// again in its turn.
    pub fn unload(&mut self) {
        self.first = self.first.take().filter(|first| first.len() <= super::PREFIX_MAX);
    }

    /// Has the part that was read last be the next again.
    ///
    /// # Panics
    /// When nothing was read.
    pub fn again(&mut self) {
        self.at -= 1;
    }

    /// The next part, of 256 KiB and a prefix at most; `None` at the end.
    ///
    /// # Errors
    /// `Io` or `Damaged`: the body cannot be completed.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, QueueError> {
        if self.next_len().is_none() {
            return Ok(None);
        }
        let part = match self.at.checked_sub(1) {
            None => self.first_part().await,
            Some(at) => self.reader.chunk(self.id, self.rest[at]).await,
        };
        if let (Err(error), Some(reading)) = (&part, &self.reading) {
            reading.queue.notice(error);
        }
        self.at += 1;
        part.map(Some)
    }

    async fn first_part(&mut self) -> Result<Vec<u8>, QueueError> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        let first = self.reader.first(self.first_at, self.record_len).await?;
        let meta = first.header.meta as usize;
        Ok(first.into_rest(meta))
    }
}
