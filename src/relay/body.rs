//! The bodies of messages that lie in the log: opened, looked at and read in
//! parts, each within the shard's budget.

use std::rc::Rc;

use super::memory::{Memory, Part};
use super::{Core, Handle};
use crate::base::limits::BODY_PART_MAX;
use crate::base::{BodyType, QueueId};
use crate::io::store::Store;
use crate::mail::chunks::TextCheck;
use crate::mail::headers::header_section;
use crate::proto::smtp::client::Offer;
use crate::queue::{BodyReader, QueueError, Reader};

/// Longest header section that is read from the log, in bytes.
const HEADER_MAX: usize = 64 * 1024;

/// Bytes in memory while a record of `len` bytes is read: the buffer that the
/// disk fills and what is made of it.
pub(super) fn while_read(len: usize) -> usize {
    2 * len
}

/// A body in the log, read part by part.
pub(super) struct LogBody<S: Store> {
    memory: Rc<Memory>,
    reader: BodyReader<S>,
}

impl<S: Store> LogBody<S> {
    /// The next part; `None` at the end. Waits for room.
    pub(super) async fn next(&mut self) -> Result<Option<Part>, QueueError> {
        let Some(len) = self.reader.next_len() else { return Ok(None) };
        let room = self.memory.read(while_read(len)).await;
        Ok(self.reader.next().await?.map(|bytes| room.part(bytes)))
    }

    /// True when there is no next part.
    pub(super) fn is_at_end(&self) -> bool {
        self.reader.next_len().is_none()
    }

    /// Has the part that was read last be the next again.
    pub(super) fn again(&mut self) {
        self.reader.again();
    }
}

/// What a message needs of the server that gets it.
#[derive(Clone, Copy, Default)]
pub(super) struct Needs {
    pub(super) eight_bit: bool,
    pub(super) smtputf8: bool,
    /// The body is none that DATA can carry.
    pub(super) binary: bool,
}

fn text_check() -> impl FnMut(&[u8]) -> bool {
    let mut check = TextCheck::default();
    move |octets| check.look(octets)
}

impl<S: Store> Core<S> {
    /// The body of a message, from this shard's log or from another's files. Its
    /// first record has been read and found whole.
    pub(super) async fn open_body(&self, handle: &Handle) -> Result<LogBody<S>, QueueError> {
        let len = handle.size.min(BODY_PART_MAX as u64) as usize;
        let _room = self.memory.read(while_read(len)).await;
        let mut reader = self.reader(handle).await?;
        // It may be long until it is sent.
        reader.unload();
        Ok(LogBody { memory: Rc::clone(&self.memory), reader })
    }

    async fn reader(&self, handle: &Handle) -> Result<BodyReader<S>, QueueError> {
        match self.log(handle.id) {
            Some(queue) => queue.body(handle.id).await,
            None => self.foreign(handle.id).body(handle.id.place, handle.at).await,
        }
    }

    /// The reader of a log that another shard has open.
    fn foreign(&self, id: QueueId) -> Reader<S> {
        let mut readers = self.readers.borrow_mut();
        readers.entry(id.log).or_insert_with(|| Reader::new((self.stores)(id.log))).clone()
    }

    /// What a message needs of a server with this offer. What the sender
    /// declared is believed where the server offers it; where it does not, the
    /// message is looked at: many senders declare more than they use.
    pub(super) async fn needs(&self, handle: &Handle, offer: Offer) -> Needs {
        let envelope = &handle.mail.envelope;
        let mut needs = Needs {
            eight_bit: envelope.body_type == BodyType::EightBitMime,
            smtputf8: envelope.smtputf8,
            binary: envelope.terms.as_deref().is_some_and(|terms| terms.binary),
        };
        let takes_binary = offer.binary_mime && offer.chunking;
        if needs.binary && !takes_binary && self.is_all(handle, text_check()).await {
            (needs.binary, needs.eight_bit) = (false, true);
        }
        if needs.smtputf8 && !offer.smtputf8 {
            let plain = envelope.sender.is_ascii() && handle.addresses().all(str::is_ascii);
            needs.smtputf8 = !(plain && self.header(handle).await.is_ascii());
        }
        if needs.eight_bit && !offer.eight_bit_mime {
            needs.eight_bit = !self.is_all(handle, <[u8]>::is_ascii).await;
        }
        needs
    }

    /// The header section of a message, as far as it can be read; cut where it
    /// is longer than any that is meant for people.
    pub(super) async fn header(&self, handle: &Handle) -> Vec<u8> {
        if let Some(body) = handle.body() {
            return header_section(body).to_vec();
        }
        let mut header = Vec::new();
        let Ok(mut body) = self.open_body(handle).await else { return header };
        while let Ok(Some(part)) = body.next().await {
            let whole = part.with(|bytes| {
                // The part before may have ended within the line that ends it.
                header.extend_from_slice(&bytes[..bytes.len().min(HEADER_MAX - header.len())]);
                let section = header_section(&header).len();
                let whole = section < header.len() || header.len() == HEADER_MAX;
                header.truncate(section);
                whole
            });
            if whole != Some(false) {
                break;
            }
        }
        header
    }

    /// Whether all of a body is as `is_so` wants it, which is asked part by part.
    async fn is_all(&self, handle: &Handle, mut is_so: impl FnMut(&[u8]) -> bool) -> bool {
        if let Some(body) = handle.body() {
            return is_so(body);
        }
        let Ok(mut body) = self.open_body(handle).await else { return false };
        loop {
            match body.next().await {
                Ok(Some(part)) if part.with(&mut is_so) == Some(true) => {}
                Ok(None) => return true,
                _ => return false,
            }
        }
    }
}
