//! A queued message as the index knows it.

use smallvec::SmallVec;

use crate::base::{Location, Place};
use crate::queue::fact::First;
use crate::queue::format::{RECORD_HEADER, aligned};
use crate::queue::record::NOWHERE;

/// What is left to do for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Waits for `next_ms`.
    Pending,
    /// Given to the relay.
    Out,
    /// Due, and waits for its destination to have room, which the relay knows
    /// of; `next_ms` is when it is looked at even so.
    Waiting,
    /// Held back by an operator.
    Held,
    /// Given to the relay, and held back when it comes home undelivered.
    OutHeld,
    /// Nothing.
    Done,
}

impl Status {
    /// The relay has it.
    pub(crate) fn is_out(self) -> bool {
        matches!(self, Status::Out | Status::OutHeld)
    }

    /// An operator holds it back.
    pub(crate) fn is_held(self) -> bool {
        matches!(self, Status::Held | Status::OutHeld)
    }

    /// The state once an attempt is over without a final outcome.
    pub(super) fn back(self) -> Status {
        if self.is_held() { Status::Held } else { Status::Pending }
    }
}

/// A recipient of a queued message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecipientState {
    /// The record that holds its last outcome; [`NOWHERE`] for none.
    pub(crate) last: Place,
    /// When it is due.
    pub(crate) next_ms: u64,
    pub(crate) attempts: u16,
    pub(crate) status: Status,
    /// How many of the moments at which its sender is to be told of the delay are
    /// dealt with. Not in the log.
    pub(crate) noticed: u8,
    /// Its sender wants it kept until `next_ms`.
    pub(crate) postponed: bool,
    /// Some record besides the message itself speaks about it: its state has to
    /// be said again before that record goes.
    pub(super) spoken_of: bool,
}

impl RecipientState {
    /// True while it comes up by itself.
    pub(super) fn is_scheduled(&self) -> bool {
        matches!(self.status, Status::Pending | Status::Waiting)
    }

    /// When it is due, for the log: what waits for its destination is due after
    /// a restart.
    pub(crate) fn due_ms(&self) -> u64 {
        if self.status == Status::Waiting { 0 } else { self.next_ms }
    }
}

const _: () = assert!(size_of::<RecipientState>() == 24, "see docs/durability.md");

/// The recipients of a message: nearly always one.
enum Recipients {
    One(RecipientState),
    Many(Box<[RecipientState]>),
}

/// More about a message that is not one record at the place that its id names:
/// a streamed one, or one that has moved.
pub(crate) struct Far {
    /// Where it is.
    pub(crate) at: Location,
    /// Bytes of the whole body.
    pub(crate) size: u64,
    /// Where its records are.
    pub(crate) parts: PartSizes,
}

/// Segments that hold records of a message, each once, and the bytes they take:
/// nearly always one, for a message that has moved.
pub(crate) type PartSizes = SmallVec<[(u32, u64); 1]>;

/// A queued message.
pub(crate) struct Entry {
    /// Bytes before the body in its first record.
    pub(crate) meta: u32,
    /// Bytes of body in that record.
    pub(crate) part: u32,
    pub(crate) arrival_ms: u64,
    recipients: Recipients,
    pub(crate) far: Option<Box<Far>>,
}

const _: () =
    assert!(size_of::<Option<Entry>>() <= 48, "RAM of a queued message: see docs/durability.md");

impl Entry {
    /// A whole message, or the head of a streamed one.
    pub(crate) fn new(first: First, status: Status, next_ms: u64) -> Self {
        let state = RecipientState {
            last: NOWHERE,
            next_ms,
            attempts: 0,
            status,
            noticed: 0,
            postponed: false,
            spoken_of: false,
        };
        let recipients = match first.recipients {
            1 => Recipients::One(state),
            many => Recipients::Many(vec![state; usize::from(many)].into()),
        };
        let First { meta, part, arrival_ms, .. } = first;
        Entry { meta, part, arrival_ms, recipients, far: None }
    }

    /// Bytes of the whole body.
    pub(crate) fn size(&self) -> u64 {
        self.far.as_ref().map_or(u64::from(self.part), |far| far.size)
    }

    /// Where the message with this id is.
    pub(crate) fn location(&self, id: Place) -> Location {
        self.far.as_ref().map_or(Location { first: id, commit: None }, |far| far.at)
    }

    /// Bytes of its first record.
    pub(crate) fn first_extent(&self) -> u64 {
        aligned(RECORD_HEADER + self.meta as usize + self.part as usize) as u64
    }

    /// Its recipients; an index is what outcomes name them by.
    pub(crate) fn recipients(&self) -> &[RecipientState] {
        match &self.recipients {
            Recipients::One(one) => std::slice::from_ref(one),
            Recipients::Many(many) => many,
        }
    }

    pub(super) fn recipients_mut(&mut self) -> &mut [RecipientState] {
        match &mut self.recipients {
            Recipients::One(one) => std::slice::from_mut(one),
            Recipients::Many(many) => many,
        }
    }

    pub(super) fn recipient_mut(&mut self, index: u16) -> Option<&mut RecipientState> {
        self.recipients_mut().get_mut(usize::from(index))
    }

    pub(super) fn is_settled(&self) -> bool {
        self.recipients().iter().all(|recipient| recipient.status == Status::Done)
    }

    /// True while the relay has one of its recipients.
    pub(crate) fn is_out(&self) -> bool {
        self.recipients().iter().any(|recipient| recipient.status.is_out())
    }

    /// When its next recipient comes up.
    pub(super) fn next_due(&self) -> Option<u64> {
        let scheduled = self.recipients().iter().filter(|r| r.is_scheduled());
        scheduled.map(|recipient| recipient.next_ms).min()
    }
}
