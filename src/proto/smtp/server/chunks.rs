//! Messages that come in chunks: BDAT (RFC 3030).
//!
//! Whatever BDAT is answered, the octets that it announced are taken off the input
//! first: by the driver if they belong to a message, by the engine if they are
//! refused. So nothing in a chunk is ever obeyed, and chunks that were sent ahead
//! are passed over when one before them failed. Where the number of octets is not
//! to be made out, or is far more than a message may have, the session ends.
//!
//! RFC 3030 leaves open what holds after a chunk was refused, or DATA was sent
//! between two: here the message has failed, and all that belongs to it is refused
//! up to RSET, EHLO, or the chunk that was to be its last.

use super::states::{Next, State};
use super::transaction::Transaction;
use super::{BodyVerdict, Question, Server, Step, replies, write_reply};
use crate::base::Reply;

/// Chunks of more octets than this many messages of the largest size end the
/// session: they are not worth reading.
const PATIENCE: u64 = 4;

/// The first chunk of a message, in question.
#[derive(Debug)]
pub(super) struct ChunkAsked {
    pub(super) transaction: Box<Transaction>,
    octets: u64,
    last: bool,
    /// Replies to it if it is refused.
    replies: u32,
}

/// A chunk that the driver takes.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) transaction: Box<Transaction>,
    /// Octets of the chunks before.
    before: u64,
    octets: u64,
    last: bool,
    first: bool,
}

/// A message between two chunks.
#[derive(Debug)]
pub(super) struct Chunked {
    pub(super) transaction: Box<Transaction>,
    /// Octets so far.
    taken: u64,
}

/// A chunk that is refused: passed over, then answered.
#[derive(Debug)]
pub(super) struct Skip {
    left: u64,
    refusal: Refusal,
    /// How often that is said.
    replies: u32,
    /// What holds when it is answered.
    then: State,
}

/// How a chunk is refused.
#[derive(Debug)]
enum Refusal {
    /// The client did wrong.
    Error(&'static str),
    /// The client could not know.
    Known(&'static str),
    /// In the words of the driver.
    Reply(Reply),
}

impl ChunkAsked {
    /// The chunk is to be taken.
    pub(super) fn accepted(mut self) -> State {
        self.transaction.forget_repeats();
        let ChunkAsked { transaction, octets, last, .. } = self;
        State::AwaitChunk(Box::new(Chunk { transaction, before: 0, octets, last, first: true }))
    }

    /// The chunk is to be passed over and answered with `reply`.
    pub(super) fn refused(self, reply: Reply) -> State {
        skip(self.octets, Refusal::Reply(reply), self.replies, failed(self.last))
    }
}

impl Chunk {
    /// What the driver has to do about it.
    pub(super) fn step(&self) -> Step<'static> {
        Step::Chunk { octets: self.octets, first: self.first, last: self.last }
    }

    /// Whether the message ends with it.
    pub(super) fn is_last(&self) -> bool {
        self.last
    }

    /// The state after the chunk, with the verdict on it.
    ///
    /// # Panics
    ///
    /// If a message was stored that goes on.
    pub(super) fn ended(self, verdict: &BodyVerdict) -> State {
        assert!(self.last || !matches!(verdict, BodyVerdict::Queued(_)), "more was to come");
        failed(self.last)
    }
}

/// What holds when a message has failed with a chunk.
fn failed(last: bool) -> State {
    if last { State::AwaitMail } else { State::Failed }
}

fn skip(left: u64, refusal: Refusal, replies: u32, then: State) -> State {
    State::Skipping(Box::new(Skip { left, refusal, replies, then }))
}

impl Server {
    /// BDAT.
    pub(super) fn bdat<'a>(mut self, octets: u64, last: bool, out: &mut Vec<u8>) -> Next<'a> {
        let limit = self.session.settings.message_size();
        if octets > limit.saturating_mul(PATIENCE) {
            return (self.close(replies::CHUNK_TOO_LARGE, out), None);
        }
        let is_offered = self.session.extended && self.session.settings.offers().chunking;
        let due = self.session.replies_to_chunk(last);
        let refused = |refusal| skip(octets, refusal, due, failed(last));
        self.state = match self.state {
            state if !is_offered => skip(octets, Refusal::Error(replies::NO_CHUNKING), 1, state),
            State::AwaitHello => {
                let text = self.session.hello_first();
                skip(octets, Refusal::Error(text), 1, State::AwaitHello)
            }
            State::Open(transaction) if transaction.recipients.is_empty() => {
                refused(Refusal::Known(self.session.no_recipients()))
            }
            State::Open(_) if octets > limit => refused(Refusal::Error(replies::TOO_LARGE)),
            State::Open(transaction) => {
                let asked = ChunkAsked { transaction, octets, last, replies: due };
                self.state = State::ChunkAsked(asked);
                return (self, Some(Question::Data));
            }
            State::Chunked(chunked) if octets > limit - chunked.taken => {
                refused(Refusal::Error(replies::TOO_LARGE))
            }
            State::Chunked(chunked) => {
                let Chunked { transaction, taken: before } = *chunked;
                let chunk = Chunk { transaction, before, octets, last, first: false };
                State::AwaitChunk(Box::new(chunk))
            }
            State::Failed => refused(Refusal::Known(replies::CHUNKS_FAILED)),
            _ => skip(octets, Refusal::Error(replies::MAIL_FIRST), 1, State::AwaitMail),
        };
        (self, None)
    }

    /// Passes over a refused chunk as far as `input` goes, and answers it at its
    /// end. Returns the octets used, and whether it has ended.
    pub(super) fn skip(mut self, input: &[u8], out: &mut Vec<u8>) -> (Server, usize, bool) {
        let State::Skipping(mut skip) = self.state else { panic!("nothing to pass over") };
        let len = usize::try_from(skip.left).map_or(input.len(), |left| left.min(input.len()));
        skip.left -= len as u64;
        if skip.left > 0 {
            self.state = State::Skipping(skip);
            return (self, len, false);
        }
        let Skip { refusal, replies, then, .. } = *skip;
        self.state = then;
        for nth in 0..replies {
            self = match &refusal {
                _ if matches!(self.state, State::Closed) => break,
                // One chunk is one error, whoever it was for.
                Refusal::Error(text) if nth == 0 => self.error(text, out),
                Refusal::Reply(reply) if nth == 0 => self.refuse(reply, out),
                Refusal::Error(text) | Refusal::Known(text) => self.say(text, out),
                Refusal::Reply(reply) => {
                    write_reply(reply, out);
                    self
                }
            };
        }
        (self, len, true)
    }

    /// Says that the chunk of the last [`Step::Chunk`](super::Step::Chunk) was taken
    /// and the message goes on.
    ///
    /// # Panics
    ///
    /// If no chunk was awaited, or the message ended with it.
    pub fn chunk_taken(mut self, out: &mut Vec<u8>) -> Server {
        let State::AwaitChunk(chunk) = self.state else { panic!("no chunk was awaited") };
        assert!(!chunk.last, "the message has ended");
        let Chunk { transaction, before, octets, .. } = *chunk;
        out.extend_from_slice(format!("250 2.0.0 {octets} octets received\r\n").as_bytes());
        self.state = State::Chunked(Box::new(Chunked { transaction, taken: before + octets }));
        self
    }

    /// True while a message comes in chunks: some were taken or are being taken, and
    /// nothing has ended it. When it is not, what was taken is of no use.
    pub fn is_amid_chunks(&self) -> bool {
        matches!(self.state, State::AwaitChunk(_) | State::Chunked(_))
    }
}
