//! What an operator ordered for recipients of a message, and who it was.

use super::{Malformed, place_bytes, read_place};
use crate::base::{Place, UnixMillis};
use crate::queue::format::read_u64;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum OrderKind {
    /// Make no attempts until released.
    Hold = 1,
    /// End the hold; the next attempt is due at once.
    Release = 2,
}

impl OrderKind {
    /// Lower-case word for listings.
    pub fn name(self) -> &'static str {
        match self {
            OrderKind::Hold => "hold",
            OrderKind::Release => "release",
        }
    }
}

/// Payload of [`Kind::Order`](super::Kind::Order).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The id of the message.
    pub message: Place,
    /// When it was given.
    pub at: UnixMillis,
    /// What is to be done.
    pub kind: OrderKind,
    /// For which recipients: indices into the envelope.
    pub recipients: Vec<u16>,
    /// Who gave it.
    pub by: String,
}

const ORDER_PREFIX: usize = 20;

impl Order {
    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&place_bytes(self.message));
        out.extend_from_slice(&self.at.0.to_le_bytes());
        out.extend_from_slice(&[self.kind as u8, 0]);
        out.extend_from_slice(&(self.recipients.len() as u16).to_le_bytes());
        self.recipients.iter().for_each(|index| out.extend_from_slice(&index.to_le_bytes()));
        out.extend_from_slice(self.by.as_bytes());
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// The payload is malformed.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        const SHORT: Malformed = Malformed("an order that is too short");
        let prefix = payload.get(..ORDER_PREFIX).ok_or(SHORT)?;
        let kind = match prefix[16] {
            1 => OrderKind::Hold,
            2 => OrderKind::Release,
            _ => return Err(Malformed("an order that is not known")),
        };
        let count = usize::from(u16::from_le_bytes([prefix[18], prefix[19]]));
        let rest = &payload[ORDER_PREFIX..];
        let (list, by) = rest.split_at_checked(2 * count).ok_or(SHORT)?;
        let by = std::str::from_utf8(by).map_err(|_| Malformed("an order by nobody"))?;
        Ok(Order {
            message: read_place(prefix, 0),
            at: UnixMillis(read_u64(prefix, 8)),
            kind,
            recipients: list
                .chunks_exact(2)
                .map(|two| u16::from_le_bytes([two[0], two[1]]))
                .collect(),
            by: by.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::record::tests::PLACE;

    #[test]
    fn an_order_round_trips_and_others_are_malformed() {
        for kind in [OrderKind::Hold, OrderKind::Release] {
            let (at, by) = (UnixMillis(7), "root (uid 0)".to_owned());
            let order = Order { message: PLACE, at, kind, recipients: vec![0, 700], by };
            let mut bytes = Vec::new();
            order.encode(&mut bytes);
            assert_eq!(Order::decode(&bytes), Ok(order));
            assert!(Order::decode(&bytes[..ORDER_PREFIX + 3]).is_err());
            bytes[16] = 9;
            assert!(Order::decode(&bytes).is_err());
        }
    }
}
