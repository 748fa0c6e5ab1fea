//! When an append to the log counts as done. Chosen by `durability` in the
//! configuration; the queue acts on it, and every place that reports a figure
//! names it.

use std::fmt;
use std::str::FromStr;

/// What must have happened to a message before its commit resolves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Durability {
    /// Written and flushed to stable storage: survives power loss.
    #[default]
    Sync,
    /// Handed to the operating system: survives a crash of the process, not
    /// power loss.
    Os,
    /// Copied into the write buffer: survives nothing. For measurement, and for
    /// spools that may be lost.
    Memory,
}

impl Durability {
    /// The word used in the configuration, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Durability::Sync => "sync",
            Durability::Os => "os",
            Durability::Memory => "memory",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A word that names no durability mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadDurability;

impl fmt::Display for BadDurability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a durability mode: \"sync\", \"os\" or \"memory\"")
    }
}

impl std::error::Error for BadDurability {}

impl FromStr for Durability {
    type Err = BadDurability;

    fn from_str(text: &str) -> Result<Self, BadDurability> {
        [Durability::Sync, Durability::Os, Durability::Memory]
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or(BadDurability)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for mode in [Durability::Sync, Durability::Os, Durability::Memory] {
            assert_eq!(mode.name().parse(), Ok(mode));
        }
        assert_eq!("fsync".parse::<Durability>(), Err(BadDurability));
        assert_eq!(Durability::default(), Durability::Sync);
    }
}
