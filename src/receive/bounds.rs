//! What a session is held to by the limits that others have a share in: its
//! place among the clients, the rate of its messages, the memory for a body, and
//! the pace of one.

use std::rc::Rc;

use crate::base::{EnhancedCode, Memory, Reply, Share};
use crate::io::clock;
use crate::io::store::Store;
use crate::io::watch::Interrupt;
use crate::policy::abuse::Pace;
use crate::proto::smtp::server::Question;

use super::body::Lost;
use super::hooks::{Broken, Hooks};
use super::listener;
use super::session::Session;

/// What a transaction may take that is not counted apart from its session, in bytes.
const LIGHT: usize = 1024;
/// What an address takes beside its octets and what was asked with it, in bytes.
const ADDRESS: usize = 128;

/// What the envelope of a transaction takes.
pub(super) struct Load {
    bytes: usize,
    share: Share,
}

impl Load {
    pub(super) fn of(memory: &Rc<Memory>) -> Load {
        Load { bytes: 0, share: Share::of(memory) }
    }

    /// Whether there is memory for one address more, from a line of so many octets.
    fn fits(&self, line: usize) -> bool {
        let more = (self.bytes + line + ADDRESS).saturating_sub(LIGHT);
        more <= self.share.bytes() || self.share.memory().has_room(more - self.share.bytes())
    }

    /// One address more.
    fn add(&mut self, line: usize) {
        self.bytes += line + ADDRESS;
        self.share.set(self.bytes.saturating_sub(LIGHT));
    }

    /// There is no transaction any more.
    pub(super) fn clear(&mut self) {
        self.bytes = 0;
        self.share.set(0);
    }
}

/// What it takes to say yes to a question.
#[derive(Clone, Copy, Debug)]
pub(super) enum Needs {
    Nothing,
    /// An envelope whose sender came in a line of so many octets.
    Sender(usize),
    /// One recipient more.
    Recipient(usize),
    /// A buffer for the body.
    Body,
}

impl Needs {
    /// Those of `question`, which came in a line of so many octets.
    pub(super) fn of(question: &Question<'_>, line: usize) -> Needs {
        match question {
            Question::Mail { .. } => Needs::Sender(line),
            Question::Recipient(_) => Needs::Recipient(line),
            Question::Data => Needs::Body,
            _ => Needs::Nothing,
        }
    }
}

/// There is no memory for what a client wants; it may come again.
pub(super) fn short_of_memory() -> Reply {
    let text = "short of memory (limits.receive_memory), try again later";
    Reply::new(452, EnhancedCode(4, 3, 1), text)
}

impl<S: Store, H: Hooks> Session<S, H> {
    /// Does what was said yes to. Nothing has happened since it was found that there
    /// is room, and what is taken here is kept until it is of no use, so that nobody
    /// else gets it while replies are written.
    pub(super) fn meet(&mut self, needs: Needs) {
        match needs {
            Needs::Nothing => {}
            Needs::Sender(line) => {
                self.use_origin();
                self.envelope.clear();
                self.envelope.add(line);
            }
            Needs::Recipient(line) => self.envelope.add(line),
            Needs::Body => {
                let is_there = self.buffer.want_large();
                assert!(is_there, "a body that there is no room for is refused");
            }
        }
    }

    /// Why one address more cannot be kept, if so.
    pub(super) fn refuses_load(&self, line: usize) -> Option<Reply> {
        if self.envelope.fits(line) {
            return None;
        }
        self.shard.counters.borrow_mut().messages_shed += 1;
        Some(short_of_memory())
    }

    /// Gives the session up: there is no memory for what its client sends.
    pub(super) fn run_short(&mut self) {
        let text = "short of memory (limits.receive_memory), try again later";
        let reply = Reply::new(421, EnhancedCode(4, 3, 2), text);
        self.given_up = Some((Broken::Short, Box::new(reply)));
    }

    /// Counts the session as one of its client's; the place that it had is free.
    pub(super) fn take_seat(&mut self) -> Result<(), Reply> {
        self.seat = None;
        match listener::seat(&self.shard, self.policy_address()) {
            Ok(seat) => {
                self.seat = Some(seat);
                Ok(())
            }
            Err(reply) => {
                self.shard.counters.borrow_mut().connections_refused += 1;
                Err(reply)
            }
        }
    }

    /// Why no transaction may begin now, for there were too many, if so.
    pub(super) fn refuses_more(&self) -> Option<Reply> {
        let limits = &self.shard.config().limits;
        let (client, user) = (self.policy_address(), self.user_name());
        let refused = self.shard.meters.message(limits, client, user, clock::monotonic()).err();
        if refused.is_some() {
            self.shard.counters.borrow_mut().messages_rate_limited += 1;
        }
        refused
    }

    /// Why there is no room for a body, if so.
    pub(super) fn refuses_body(&self) -> Option<Reply> {
        if self.buffer.large_fits() {
            return None;
        }
        self.shard.counters.borrow_mut().messages_shed += 1;
        Some(short_of_memory())
    }

    /// Reads more of a body into the buffer's room, which is not empty. `pace` is
    /// how the body has come so far.
    pub(super) async fn read_body(&mut self, pace: &mut Pace) -> Result<(), Lost> {
        let config = self.shard.config();
        let (quiet, rate) = (config.limits.data_timeout, config.limits.data_rate);
        drop(config);
        let patience = pace.patience(rate, Pace::GRACE.min(quiet)).unwrap_or(quiet);
        let before = clock::monotonic();
        let mut read = Err(Lost);
        if !patience.is_zero() {
            self.guard.arm(patience.min(quiet));
            let already = self.buffer.filled().len();
            read = self.read().await;
            pace.came(self.buffer.filled().len() - already, before.elapsed());
        }
        let gave_up = patience.is_zero() || self.guard.interrupted() == Some(Interrupt::TimedOut);
        if read.is_err() && gave_up && patience < quiet {
            let text = format!("data comes at less than {rate} bytes a second (limits.data_rate)");
            let reply = Reply::new(421, EnhancedCode(4, 7, 0), text);
            self.given_up = Some((Broken::Slow, Box::new(reply)));
        }
        read
    }
}
