//! What relaying passes around: handles to the lane that delivers, and back
//! with their outcomes to the shard whose log holds the message; and what
//! relaying needs of the shard around it.
//!
//! Invariant: each handle given out comes back exactly once, with an outcome for
//! each of its recipients or with none at all, which means untouched. So the
//! shard that gave it out knows what is under way, and a drain has an end.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::base::envelope::SharedMail;
use crate::base::{Envelope, Location, Mail, Outcome, QueueId, ShardId};
use crate::io::tls;
use crate::policy::route::{Site, Way};
use crate::proto::smtp::client::Offer;

/// One message to be delivered to some of its recipients, at one site.
#[derive(Clone, Debug)]
pub struct Handle {
    /// The message.
    pub id: QueueId,
    /// Which of its recipients: indices into the envelope; at least one.
    pub recipients: SmallVec<[u16; 1]>,
    /// Attempts made before for these recipients.
    pub attempts: u16,
    /// Where the message lies in its log. It stays there while the handle is out.
    pub at: Location,
    /// Stored size of the body, in bytes.
    pub size: u64,
    /// The site it is out for, by a number that the shard which gave it out
    /// understands; 0 before that.
    pub station: u32,
    /// The message. The body is empty when it has to be read from the log: a
    /// stored body has its terminator at least.
    pub mail: SharedMail,
}

impl Handle {
    /// The addresses of the handle's recipients.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.recipients.iter().map(|index| &*self.mail.envelope.recipients[usize::from(*index)])
    }

    /// The priority of the message.
    pub(super) fn priority(&self) -> i8 {
        self.mail.envelope.terms.as_ref().map_or(0, |terms| terms.priority)
    }

    /// True when it may go over verified TLS only, to who sees to that in turn (RFC
    /// 8689). What has no sender would be lost (section 5).
    pub(super) fn requires_tls(&self) -> bool {
        let envelope = &self.mail.envelope;
        !envelope.sender.is_empty() && envelope.terms.as_ref().is_some_and(|t| t.require_tls)
    }

    /// The same without a body in memory: it has to be read from the log.
    pub(super) fn without_body(&self) -> Handle {
        if self.mail.body.is_empty() {
            return self.clone();
        }
        let envelope = self.mail.envelope.clone();
        Handle { mail: Arc::new(Mail { envelope, body: Box::default() }), ..self.clone() }
    }

    /// The body, if it is in memory.
    pub fn body(&self) -> Option<&[u8]> {
        (!self.mail.body.is_empty()).then_some(&self.mail.body)
    }
}

/// A handle on its way back.
#[derive(Clone, Debug)]
pub struct Settled {
    /// The handle as it was given out.
    pub handle: Handle,
    /// An outcome for each of its recipients, or none: nothing was attempted.
    pub outcomes: SmallVec<[Outcome; 1]>,
    /// What the next hop sees to itself.
    pub knows: Knows,
}

/// What a next hop sees to itself of a message that it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Knows {
    /// DSN (RFC 3461): it reports.
    pub dsn: bool,
    /// DELIVERBY (RFC 2852): it heeds the time.
    pub deliver_by: bool,
    /// It delivers to mailboxes: LMTP (RFC 2033) is for nothing else.
    pub delivers: bool,
}

impl Knows {
    /// Of a next hop with this offer, to which this is spoken.
    pub(super) fn of(offer: Offer, way: Way) -> Self {
        Knows { dsn: offer.dsn, deliver_by: offer.deliver_by.is_some(), delivers: way == Way::Lmtp }
    }
}

/// What shards send one another, in batches.
#[derive(Debug)]
pub enum Parcel {
    /// Deliver these, to the sites as they are known where they come from: they
    /// may have other limits by now, or their hosts other ranks.
    Deliver(Vec<(Arc<Site>, Vec<Handle>)>),
    /// These are back.
    Outcomes(Vec<Settled>),
    /// This log has failed, outcomes cannot be recorded there: leave what is
    /// queued of it.
    Halt(ShardId),
}

/// The way to the other shards.
pub trait Mesh: 'static {
    /// How many shards there are.
    fn shards(&self) -> u16;
    /// Which one this is.
    fn me(&self) -> ShardId;
    /// Sends a parcel. To a shard that has ended it is lost, which costs time
    /// only.
    fn send(&self, to: ShardId, parcel: Parcel);

    /// The shard that has a log open: that of its number, or the one that
    /// adopted it.
    fn holder(&self, log: ShardId) -> ShardId {
        ShardId(log.0 % self.shards())
    }
}

/// What the shard wants to hear of, to log and measure it.
pub trait Events: 'static {
    /// An outcome was decided for a recipient.
    fn outcome(&self, id: QueueId, envelope: &Envelope, outcome: &Outcome);
    /// A TLS handshake with a next hop, which logs name `host`, was done.
    fn secured(&self, _host: &str, _facts: &tls::Facts) {}
    /// One failed; with `is_strict` mail does not go without.
    fn not_secured(&self, _host: &str, _why: &str, _is_strict: bool) {}
    /// A report about `id` is durable as message `report`.
    fn reported(&self, report: QueueId, envelope: &Envelope, id: QueueId);
}
