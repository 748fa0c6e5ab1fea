//! Checkpoints: the facts of a completed segment in a file of their own, so that
//! a start reads a few dozen bytes for a message and never its body. They are
//! written once, after everything in the segment is durable, and read in place.
//!
//! A checkpoint is a shortcut, not a truth: one that is missing, cut short or
//! altered is not used, the segment is read instead, and the checkpoint written
//! anew. It is bound to its segment by the segment's seal.
//!
//! When a record of the segment is found damaged later, the checkpoint is marked as
//! doubted: it still tells what the record said (so that no outcome is forgotten,
//! and the sender of a damaged message is told), and the next start looks for the
//! damage and keeps the segment.
//!
//! The file: a header of [`HEADER`] bytes, then an rkyv archive of the facts, in
//! the order of the records.

use std::io::ErrorKind;

use rkyv::rancor;
use rkyv::vec::ArchivedVec;

use super::error::QueueError;
use super::fact::{ArchivedFact, Fact};
use super::format::{FORMAT_VERSION, Seal, checkpoint_name, read_u32};
use crate::base::Place;
use crate::base::checksum::crc32c;
use crate::io::store::{BLOCK, OpenMode, Store, StoreFile};

/// First bytes of a checkpoint.
const MAGIC: [u8; 8] = *b"RINGPIDX";
/// Oldest format version whose checkpoints are read: their facts are the same.
const CHECKPOINT_OLDEST: u32 = 2;
/// Bytes before the archive.
const HEADER: usize = 48;
/// Where the checksum of the header lies in it.
const CRC_AT: usize = 44;
/// Most bytes that are read of a file that calls itself a checkpoint.
const LEN_MAX: u64 = 1 << 30;

/// A completed segment whose checkpoint is still to be written.
pub(super) struct Draft {
    pub(super) segment: u32,
    pub(super) seal: Seal,
    /// Where its last record ends.
    pub(super) end: u32,
    /// Where the segment before it ended.
    pub(super) previous: Place,
    /// The last batch in it: nothing is written before that is durable.
    pub(super) batch: u64,
    pub(super) facts: Vec<Fact>,
}

impl Draft {
    /// The bytes of the file, padded to whole blocks.
    pub(super) fn encode(&self, doubted: bool) -> Vec<u8> {
        let mut out = vec![0; HEADER];
        out = rkyv::api::high::to_bytes_in::<_, rancor::Error>(&self.facts, out)
            .expect("facts are plain data, and a vector takes them");
        let len = (out.len() - HEADER) as u32;
        let words = [
            FORMAT_VERSION,
            self.segment,
            self.seal.payload_seed(),
            self.end,
            self.previous.segment,
            self.previous.offset,
            len,
            crc32c(0, &out[HEADER..]),
            u32::from(doubted),
        ];
        out[..8].copy_from_slice(&MAGIC);
        for (index, word) in words.into_iter().enumerate() {
            out[8 + 4 * index..12 + 4 * index].copy_from_slice(&word.to_le_bytes());
        }
        seal_header(&mut out);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
        out
    }

    /// Writes the file, in place of one that could not be used. It need not be
    /// durable.
    pub(super) async fn write<S: Store>(
        &self,
        store: &S,
        replace: bool,
        doubted: bool,
    ) -> Result<(), QueueError> {
        let name = checkpoint_name(self.segment);
        let failed = |what: &str| QueueError::io(format!("{what} {name} failed"));
        if replace {
            store.remove(&name).await.map_err(failed("replacing"))?;
        }
        let bytes = self.encode(doubted);
        let file = store.open(&name, OpenMode::CreateNew).await.map_err(failed("creating"))?;
        let mut buf = file.alloc(bytes.len());
        buf.copy_from_slice(&bytes);
        let written = file.write_at(buf, bytes.len(), 0).await.map_err(failed("writing"));
        file.close().await;
        written
    }
}

fn seal_header(bytes: &mut [u8]) {
    let crc = crc32c(0, &bytes[..CRC_AT]);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Marks the checkpoint of a segment as doubted, if there is one. Should that be
/// torn, the checkpoint is not used and the segment read instead; so it is when
/// the checkpoint itself cannot be read, which then goes.
pub(super) async fn doubt<S: Store>(store: &S, segment: u32) -> Result<(), QueueError> {
    let name = checkpoint_name(segment);
    let failed = |what: &str| QueueError::io(format!("{what} {name} failed"));
    let file = match store.open(&name, OpenMode::Write).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(failed("opening"))?,
    };
    let mut block = file.alloc(BLOCK);
    match file.read_at(0, BLOCK).await {
        Ok(read) => block.copy_from_slice(&read),
        Err(_) => {
            file.close().await;
            return store.remove(&name).await.map_err(failed("removing"));
        }
    }
    block[40..CRC_AT].copy_from_slice(&1u32.to_le_bytes());
    seal_header(&mut block);
    file.write_at(block, BLOCK, 0).await.map_err(failed("writing"))?;
    file.sync().await.map_err(failed("flushing"))?;
    file.close().await;
    Ok(())
}

/// A checkpoint as read.
pub struct Checkpoint {
    /// Where the last record of the segment ends.
    pub end: u32,
    /// Where the segment before it ended.
    pub previous: Place,
    /// A record of the segment was found damaged.
    pub doubted: bool,
    bytes: Vec<u8>,
    len: usize,
}

impl Checkpoint {
    /// Takes the bytes of a file as the checkpoint of `segment`, sealed so.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn decode(bytes: Vec<u8>, segment: u32, seal: Seal) -> Result<Self, &'static str> {
        let header = bytes.get(..HEADER).ok_or("too short")?;
        if header[..8] != MAGIC || read_u32(header, CRC_AT) != crc32c(0, &header[..CRC_AT]) {
            return Err("not a checkpoint, or damaged");
        }
        let word = |index: usize| read_u32(header, 8 + 4 * index);
        if !(CHECKPOINT_OLDEST..=FORMAT_VERSION).contains(&word(0)) {
            return Err("of another format version");
        }
        if word(1) != segment || word(2) != seal.payload_seed() {
            return Err("of another segment");
        }
        let (end, previous) = (word(3), Place { segment: word(4), offset: word(5) });
        let (len, crc) = (word(6) as usize, word(7));
        let archive = bytes.get(HEADER..HEADER + len).ok_or("cut short")?;
        if crc32c(0, archive) != crc {
            return Err("damaged");
        }
        if rkyv::access::<ArchivedVec<ArchivedFact>, rancor::Failure>(archive).is_err() {
            return Err("malformed");
        }
        Ok(Checkpoint { end, previous, doubted: word(8) != 0, bytes, len })
    }

    /// The facts, in the order of the records.
    pub fn facts(&self) -> impl Iterator<Item = Fact> {
        let archive = &self.bytes[HEADER..HEADER + self.len];
        let facts = rkyv::access::<ArchivedVec<ArchivedFact>, rancor::Failure>(archive);
        facts.expect("validated when it was decoded").iter().map(|fact| {
            rkyv::deserialize::<Fact, rancor::Failure>(fact).expect("facts hold nothing shared")
        })
    }

    /// Reads the checkpoint of a segment.
    ///
    /// # Errors
    /// `Io`; what is wrong with the file itself is in the inner result.
    pub(super) async fn read<S: Store>(
        store: &S,
        segment: u32,
        seal: Seal,
    ) -> Result<Result<Self, &'static str>, QueueError> {
        let name = checkpoint_name(segment);
        let failed = |what: &str| QueueError::io(format!("{what} {name} failed"));
        let file = store.open(&name, OpenMode::Read).await.map_err(failed("opening"))?;
        let len = file.len().await.map_err(failed("measuring"))?;
        let read = if len > LEN_MAX {
            Ok(Err("too long"))
        } else {
            match file.read_at(0, len as usize).await {
                Ok(bytes) => Ok(Checkpoint::decode(bytes, segment, seal)),
                Err(error) if super::recover::is_unreadable(&error) => Ok(Err("unreadable")),
                Err(error) => Err(failed("reading")(error)),
            }
        };
        file.close().await;
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ShardId;
    use crate::queue::fact::{First, What};

    #[test]
    fn a_checkpoint_reads_back_and_none_that_was_touched_does() {
        let seal = Seal::new(ShardId(0), 7, 42);
        let first = First { meta: 100, part: 4000, recipients: 1, arrival_ms: 1 << 40 };
        let facts: Vec<Fact> =
            (0..300).map(|n| Fact { at: 8192 + 16 * n, what: What::Message(first) }).collect();
        let previous = Place { segment: 6, offset: 12288 };
        let draft = Draft { segment: 7, seal, end: 65536, previous, batch: 1, facts };
        let bytes = draft.encode(false);
        assert!(bytes.len() / draft.facts.len() < 32, "{} bytes", bytes.len());
        let read = Checkpoint::decode(bytes.clone(), 7, seal).unwrap();
        assert_eq!((read.end, read.previous), (65536, previous));
        assert!(read.facts().eq(draft.facts.iter().cloned()));
        let refused = |bytes: Vec<u8>| Checkpoint::decode(bytes, 7, seal).is_err();
        for cut in [0, 20, HEADER, HEADER + 100, 4096] {
            assert!(refused(bytes[..cut].to_vec()), "{cut}");
        }
        assert!(!read.doubted && Checkpoint::decode(draft.encode(true), 7, seal).unwrap().doubted);
        for at in [0, 9, 13, 17, 30, 43, 47, HEADER, HEADER + 3000] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(refused(damaged), "{at}");
        }
        assert!(Checkpoint::decode(bytes.clone(), 8, seal).is_err());
        assert!(Checkpoint::decode(bytes, 7, Seal::new(ShardId(0), 7, 43)).is_err());
    }
}
