//! Anything may lie on a disk: walking it and reading its records must come to
//! an end without a panic, whatever the bytes, and what was sound must stay
//! found when bytes around it change.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringpost::base::ShardId;
use ringpost::base::checksum::crc32c;
use ringpost::queue::checkpoint::Checkpoint;
use ringpost::queue::format::{FORMAT_VERSION, Kind, RecordHeader, Seal, SegmentHeader};
use ringpost::queue::record::Payload;
use ringpost::queue::walk::{Walk, Walked};

/// Walks `bytes` through windows of `window` bytes; offsets of what is sound.
fn walk(bytes: &[u8], seal: Seal, window: usize) -> Vec<u32> {
    let mut walk = Walk::new(seal, 0, bytes.len() as u32);
    let (mut at, mut len, mut found) = (0, window, Vec::new());
    loop {
        let piece = &bytes[at..bytes.len().min(at + len)];
        match walk.step(piece, at as u32) {
            Walked::Need { at: from, len: wanted } => {
                (at, len) = (from as usize, window.max(wanted as usize));
            }
            Walked::Record { offset, header, payload, .. } => {
                let end = (payload + header.len as usize).min(piece.len());
                let _ = Payload::decode(header.kind, header.meta, &piece[payload.min(end)..end]);
                found.push(offset);
            }
            Walked::End => return found,
        }
    }
}

/// Takes `archive` as that of a checkpoint, as if its checksums had matched.
fn checkpoint(archive: &[u8], seal: Seal) {
    let mut bytes = b"RINGPIDX".to_vec();
    let (len, crc) = (archive.len() as u32, crc32c(0, archive));
    for word in [FORMAT_VERSION, 1, seal.payload_seed(), 0, 0, 0, len, crc, 0] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    let crc = crc32c(0, &bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(archive);
    match Checkpoint::decode(bytes, 1, seal) {
        Ok(checkpoint) => assert!(checkpoint.facts().count() <= archive.len()),
        Err(why) => assert_eq!(why, "malformed"),
    }
}

fuzz_target!(|data: &[u8]| {
    let _ = SegmentHeader::decode(data);
    let Some((&[kind, meta, window], data)) = data.split_first_chunk::<3>() else { return };
    // The payload of each kind, as if its checksum had matched.
    if let Some(kind) = Kind::from_u8(kind % 12) {
        let _ = Payload::decode(kind, u32::from(meta), data);
    }
    // A sound record with anything before and behind it.
    let seal = Seal::new(ShardId(0), 1, 2);
    checkpoint(data, seal);
    let cut = data.len() / 2 / 16 * 16;
    let payload = &data[cut..];
    let crc = crc32c(seal.payload_seed(), payload);
    let header = RecordHeader { kind: Kind::Chunk, len: payload.len() as u32, meta: 0, crc };
    let mut bytes = data[..cut].to_vec();
    bytes.extend_from_slice(&header.encode(seal, cut as u32));
    bytes.extend_from_slice(payload);
    bytes.resize(cut + header.extent(), 0);
    bytes.extend_from_slice(data);
    let found = walk(&bytes, seal, bytes.len());
    assert!(found.contains(&(cut as u32)));
    assert_eq!(walk(&bytes, seal, 16 + usize::from(window)), found);
});
