//! Messages that the sink is sent in chunks (RFC 3030): noted in wire form, as those
//! that come by DATA, so that a ledger does not tell which way they came.

use std::io;

use ringpost::mail::stuffing::Stuffer;
use ringpost::proto::smtp::server::{Server, Transaction};

use super::session::{Ending, Receipt, Session};

/// A message of which chunks came.
pub(super) struct Chunks {
    transaction: Transaction,
    receipt: Option<Receipt>,
    stuffer: Stuffer,
    wire: Vec<u8>,
    size: u64,
}

impl Chunks {
    pub(super) fn new(transaction: Transaction, receipt: Option<Receipt>) -> Self {
        let stuffer = Stuffer::new();
        Chunks { transaction, receipt, stuffer, wire: Vec::new(), size: 0 }
    }

    /// Notes what has been stuffed.
    fn note(&mut self) {
        self.size += self.wire.len() as u64;
        if let Some(receipt) = &mut self.receipt {
            receipt.take(&self.wire);
        }
        self.wire.clear();
    }
}

impl Session {
    /// Takes a chunk in; the ending of the message if it was the `last`.
    pub(super) async fn chunk(
        &mut self,
        server: &mut Server,
        octets: u64,
        first: bool,
        last: bool,
    ) -> io::Result<Option<Ending>> {
        if first {
            let transaction = server.take_transaction();
            let receipt = self.worker.begin(&transaction);
            self.chunks = Some(Box::new(Chunks::new(transaction, receipt)));
        }
        let mut chunks = self.chunks.take().expect("a first chunk began the message");
        let breaks = !self.mood.is_calm() && last && self.mood.breaks_body();
        let mut left = octets;
        while left > 0 {
            if self.buffer.is_empty() && !self.read().await? {
                return Ok(Some(Ending::Gone));
            }
            let filled = self.buffer.filled();
            let len = usize::try_from(left).map_or(filled.len(), |left| left.min(filled.len()));
            let Chunks { stuffer, wire, .. } = &mut *chunks;
            stuffer.push(&filled[..len], wire);
            chunks.note();
            self.buffer.consume(len);
            left -= len as u64;
        }
        if breaks {
            return Ok(Some(Ending::Gone));
        }
        if !last {
            self.chunks = Some(chunks);
            return Ok(None);
        }
        let Chunks { transaction, stuffer, wire, .. } = &mut *chunks;
        let stuffer = std::mem::take(stuffer);
        if transaction.asks.binary {
            stuffer.finish_binary(wire);
        } else {
            stuffer.finish(wire);
        }
        chunks.note();
        let Chunks { transaction, receipt, size, .. } = *chunks;
        self.settle(&transaction, receipt, size).await.map(Some)
    }
}
