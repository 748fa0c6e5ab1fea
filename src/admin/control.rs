//! What the control thread knows: the phase of the server's life, the
//! configuration in force, and the way to the shards. `serve` changes it; the
//! admin socket and HTTP read it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::fleet::Fleet;
use crate::base::UnixMillis;
use crate::config::Config;

/// Where the server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Shards are reading their logs.
    Starting,
    /// Mail is accepted.
    Ready,
    /// The end was asked for.
    Draining,
}

impl Phase {
    /// One lower-case word.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Draining => "draining",
        }
    }
}

struct State {
    phase: Phase,
    config: Arc<Config>,
}

/// The control thread's knowledge, shared by its tasks.
pub struct Control {
    /// The shards.
    pub fleet: Fleet,
    /// When the process was started.
    pub started: UnixMillis,
    state: Mutex<State>,
}

impl Control {
    /// A server that is starting.
    pub fn new(fleet: Fleet, config: Arc<Config>, started: UnixMillis) -> Arc<Self> {
        let state = Mutex::new(State { phase: Phase::Starting, config });
        Arc::new(Control { fleet, started, state })
    }

    /// The phase.
    pub fn phase(&self) -> Phase {
        self.state().phase
    }

    /// Enters another phase.
    pub fn enter(&self, phase: Phase) {
        self.state().phase = phase;
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.state().config)
    }

    /// Puts another configuration in force.
    pub fn set_config(&self, config: Arc<Config>) {
        self.state().config = config;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Both fields are replaced whole, so a panic elsewhere leaves no ruin.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
