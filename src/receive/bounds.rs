//! What a session is held to by the limits that others have a share in: its
//! place among the clients, the rate of its messages, the memory for a body, and
//! the pace of one.

use crate::base::{EnhancedCode, Reply};
use crate::io::clock;
use crate::io::store::Store;
use crate::io::watch::Interrupt;
use crate::policy::abuse::Pace;

use super::body::Lost;
use super::hooks::{Broken, Hooks};
use super::listener;
use super::session::Session;

impl<S: Store, H: Hooks> Session<S, H> {
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
        let text = "short of memory (limits.receive_memory), try again later";
        Some(Reply::new(452, EnhancedCode(4, 3, 1), text))
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
