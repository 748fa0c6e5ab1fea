//! What the integration tests share.

#![allow(dead_code, unused_imports, reason = "each test uses its part")]

pub mod dialog;
pub mod engine;
pub mod peer;
pub mod process;
