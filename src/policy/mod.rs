//! Layer 2: pure decisions from configuration and facts.

pub mod access;
pub mod back_off;
pub mod governor;
pub mod lanes;
pub mod mx;
mod pacer;
pub mod retry;
pub mod route;
mod site;
mod tables;
