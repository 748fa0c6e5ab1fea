//! Layer 2: pure decisions from configuration and facts.

pub mod access;
pub mod retry;
pub mod route;
