//! The signals that the server heeds, and the one event that is none: a shard
//! that ends by itself.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;
use super::fleet::Fleet;
use crate::base::ShardId;

/// The signals that mean something here.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// Why the wait for a signal is over.
pub enum Event {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
    /// This shard ended though nobody told it to.
    Ended(ShardId),
}

impl Signals {
    /// Takes the signals from here on; needs a tokio runtime.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new() -> Result<Signals, Failure> {
        let make =
            |kind| signal(kind).map_err(|e| Failure::runtime(format!("cannot take signals: {e}")));
        Ok(Signals {
            terminate: make(SignalKind::terminate())?,
            interrupt: make(SignalKind::interrupt())?,
            hangup: make(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGTERM or SIGINT.
    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits for a signal, or for a shard to end by itself.
    pub async fn next(&mut self, fleet: &Fleet) -> Event {
        tokio::select! {
            _ = self.terminate.recv() => Event::Stop,
            _ = self.interrupt.recv() => Event::Stop,
            _ = self.hangup.recv() => Event::Reload,
            shard = fleet.any_ended() => Event::Ended(shard),
        }
    }
}
