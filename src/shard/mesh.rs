//! The way from core to core: one channel into each shard, on which the others
//! put parcels. A parcel is a batch already, so a channel that wakes its reader
//! across threads costs once a batch.

use async_channel::{Receiver, Sender};

use crate::base::ShardId;
use crate::relay::{Mesh, Parcel};

/// Both ends of the channels between `shards` shards: for each shard, where the
/// others reach it and where it listens. Unbounded: what is in them is bounded
/// by the handles that the shards have out.
pub(super) fn channels(shards: usize) -> Vec<(Sender<Parcel>, Receiver<Parcel>)> {
    (0..shards).map(|_| async_channel::unbounded()).collect()
}

/// One shard's way to all shards.
pub(super) struct ShardMesh {
    me: ShardId,
    shards: Vec<Sender<Parcel>>,
}

impl ShardMesh {
    pub(super) fn new(me: ShardId, shards: Vec<Sender<Parcel>>) -> Self {
        ShardMesh { me, shards }
    }
}

impl Mesh for ShardMesh {
    fn shards(&self) -> u16 {
        self.shards.len() as u16
    }

    fn me(&self) -> ShardId {
        self.me
    }

    fn send(&self, to: ShardId, parcel: Parcel) {
        // A shard that has ended takes no more: its log, or ours, still has the
        // message, and the next start delivers it.
        let _ = self.shards[usize::from(to.0)].try_send(parcel);
    }
}
