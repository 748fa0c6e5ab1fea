//! What the index needs of a record, and nothing else: no addresses, no bodies,
//! no words. The facts of a segment, in the order of its records, are what
//! recovery replays; they come from the records themselves or, for a segment
//! that was completed, from its checkpoint.

#![allow(missing_docs, reason = "rkyv makes a struct of each variant of an enum")]

use super::record::{EnvelopeFacts, Extent, Known, NOWHERE, OrderKind, Payload};
use crate::base::terms::{ArchivedTerms, Terms};
use crate::base::{Outcome, Place};

/// One fact, and the offset of the record that states it.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Fact {
    /// Offset of the record in its segment.
    pub at: u32,
    /// What it says.
    pub what: What,
}

/// The first record of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct First {
    /// Bytes before the body.
    pub meta: u32,
    /// Bytes of body in this record.
    pub part: u32,
    /// Recipients in the envelope.
    pub recipients: u16,
    /// When the message was accepted, in milliseconds since 1970.
    pub arrival_ms: u64,
}

/// What the terms of a message say about when it is tried. Nearly always nothing:
/// the default.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
pub struct Timing {
    /// Its sender wants it kept until then, in milliseconds since 1970; 0 if not.
    pub hold_until_ms: u64,
    /// `Terms::priority`.
    pub priority: i8,
}

impl Timing {
    /// True when it says nothing.
    pub fn is_usual(&self) -> bool {
        *self == Timing::default()
    }
}

impl From<&Terms> for Timing {
    fn from(terms: &Terms) -> Self {
        let hold_until_ms = terms.kept_until().map_or(0, |at| at.0);
        Timing { hold_until_ms, priority: terms.priority }
    }
}

impl From<&ArchivedTerms> for Timing {
    fn from(terms: &ArchivedTerms) -> Self {
        let hold_until_ms = terms.kept_until().map_or(0, |at| at.0);
        Timing { hold_until_ms, priority: terms.priority }
    }
}

/// What became of a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Ruling {
    /// Index into the envelope's recipients.
    pub recipient: u16,
    /// Nothing is left to do.
    pub is_final: bool,
    /// Attempts so far.
    pub attempts: u16,
    /// When to try again.
    pub next_ms: u64,
}

impl From<&Outcome> for Ruling {
    fn from(outcome: &Outcome) -> Self {
        Ruling {
            recipient: outcome.recipient,
            is_final: outcome.disposition.is_final(),
            attempts: outcome.attempts,
            next_ms: outcome.next_attempt.0,
        }
    }
}

/// The state of a recipient, said again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Restated {
    /// Its state.
    pub ruling: Ruling,
    /// An operator holds it back.
    pub held: bool,
    /// The record holds its last outcome too.
    pub said: bool,
}

impl From<&Known> for Restated {
    fn from(known: &Known) -> Self {
        Restated {
            ruling: Ruling {
                recipient: known.recipient,
                is_final: known.done,
                attempts: known.attempts,
                next_ms: known.next_ms,
            },
            held: known.held,
            said: known.last.is_some(),
        }
    }
}

/// A commit record.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Committed {
    /// The head of the message.
    pub head: Place,
    /// Bytes of the whole body.
    pub size: u64,
    /// Bytes that the commit record takes in its segment.
    pub extent: u32,
    /// Where the rest of the body lies.
    pub extents: Vec<Extent>,
}

/// A survivors record.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Surviving {
    /// The segment spoken about.
    pub segment: u32,
    /// First offset spoken about.
    pub from: u32,
    /// First offset no longer spoken about.
    pub to: u32,
    /// The live messages, by offset.
    pub messages: Vec<(u32, Vec<Restated>)>,
}

/// A moved message.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct MovedTo {
    /// Its id.
    pub id: Place,
    /// Its first record.
    pub first: First,
    /// Bytes of the whole body.
    pub size: u64,
    /// Where the rest of a streamed body lies.
    pub extents: Vec<Extent>,
    /// The state of its recipients.
    pub known: Vec<Restated>,
}

/// An operator's order.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Ordered {
    /// The message.
    pub message: Place,
    /// Hold, or else release.
    pub hold: bool,
    /// When it was given, in milliseconds since 1970.
    pub at_ms: u64,
    /// For which recipients.
    pub recipients: Vec<u16>,
}

/// What a record says. The frequent ones are small; the others are boxed.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum What {
    /// A whole message.
    Message(First),
    /// The head of a streamed message.
    Head(First),
    /// A part of a streamed body.
    Chunk {
        /// The message it belongs to.
        head: Place,
        /// Bytes of body.
        len: u32,
    },
    /// The end of a streamed message.
    Commit(Box<Committed>),
    /// What became of a recipient of a message.
    Outcome {
        /// The message.
        message: Place,
        /// What became of the recipient.
        ruling: Ruling,
    },
    /// Survivors.
    Survivors(Box<Surviving>),
    /// A message that moved here.
    Moved(Box<MovedTo>),
    /// An operator's order.
    Order(Box<Ordered>),
    /// The segments in use when this one was begun.
    Roster(Box<Vec<u32>>),
    /// What the terms of a message say; behind its first record, or the one that
    /// it has moved to, if they say something.
    Timing {
        /// The message; [`NOWHERE`] for the one whose first record lies here.
        message: Place,
        /// What they say.
        timing: Timing,
    },
}

// Facts of earlier versions have this layout: another size would be another one.
const _: () = assert!(size_of::<ArchivedFact>() == 26);

/// Adds what a record at offset `at`, whose payload is `payload`, says. `meta`
/// and `extent` are of its header.
pub fn push_facts(facts: &mut Vec<Fact>, at: u32, meta: u32, extent: u32, payload: &Payload<'_>) {
    let first = |facts: &EnvelopeFacts, part: &[u8]| First {
        meta,
        part: part.len() as u32,
        recipients: facts.recipients,
        arrival_ms: facts.arrival_ms,
    };
    let timed = match payload {
        Payload::Message { facts, .. } | Payload::Head { facts, .. } => (NOWHERE, facts.timing),
        Payload::Moved { moved, facts, .. } => (moved.id, facts.timing),
        _ => Default::default(),
    };
    let what = match payload {
        Payload::Pad | Payload::Mark(_) => return,
        Payload::Message { facts, body } => What::Message(first(facts, body)),
        Payload::Head { facts, part } => What::Head(first(facts, part)),
        Payload::Chunk { head, part } => What::Chunk { head: *head, len: part.len() as u32 },
        Payload::Commit(commit) => What::Commit(Box::new(Committed {
            head: commit.head,
            size: commit.size,
            extent,
            extents: commit.extents.clone(),
        })),
        Payload::Outcomes { message, outcomes } => {
            facts.extend(outcomes.iter().map(|outcome| Fact {
                at,
                what: What::Outcome { message: *message, ruling: outcome.into() },
            }));
            return;
        }
        Payload::Survivors(survivors) => What::Survivors(Box::new(survivors.into())),
        Payload::Moved { moved, facts, part } => What::Moved(Box::new(MovedTo {
            id: moved.id,
            first: first(facts, part),
            size: moved.size,
            extents: moved.extents.clone(),
            known: moved.known.iter().map(Restated::from).collect(),
        })),
        Payload::Order(order) => What::Order(Box::new(Ordered {
            message: order.message,
            hold: order.kind == OrderKind::Hold,
            at_ms: order.at.0,
            recipients: order.recipients.clone(),
        })),
        Payload::Roster(segments) => What::Roster(Box::new(segments.clone())),
    };
    facts.push(Fact { at, what });
    let (message, timing) = timed;
    if !timing.is_usual() {
        facts.push(Fact { at, what: What::Timing { message, timing } });
    }
}

impl From<&super::record::Survivors> for Surviving {
    fn from(survivors: &super::record::Survivors) -> Self {
        let messages = survivors.messages.iter();
        Surviving {
            segment: survivors.segment,
            from: survivors.from,
            to: survivors.to,
            messages: messages
                .map(|message| {
                    (message.offset, message.recipients.iter().map(Restated::from).collect())
                })
                .collect(),
        }
    }
}
