//! What the integration tests share.

#![allow(dead_code, unused_imports, reason = "each test uses its part")]

pub mod authority;
pub mod dialog;
pub mod dns;
pub mod engine;
pub mod full;
pub mod hop;
pub mod peer;
pub mod postfix;
pub mod process;
pub mod program;
pub mod raw;
pub mod rig;
pub mod scram;
pub mod submissions;
pub mod tls;
pub mod users;
pub mod wire;
