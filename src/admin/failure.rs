//! Why a command could not do its work: the exit code and what to print.
//! The text says what is wrong and what to do about it.

use std::fmt;

/// A command's failure.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// 1: failed at run time; 2: usage or configuration.
    pub code: u8,
    /// For the operator.
    pub message: String,
}

impl Failure {
    /// It failed at run time: exit code 1.
    pub fn runtime(message: impl Into<String>) -> Self {
        Failure { code: 1, message: message.into() }
    }

    /// The command line or the configuration is wrong: exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Failure { code: 2, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
