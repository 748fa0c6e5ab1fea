//! What the integration tests share.

pub mod dialog;
pub mod engine;
