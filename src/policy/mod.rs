//! Layer 2: pure decisions from configuration and facts.

pub mod abuse;
pub mod access;
pub mod back_off;
pub mod directory;
pub mod governor;
pub mod lanes;
pub mod lockout;
pub mod mx;
mod pacer;
pub mod password;
pub mod retry;
pub mod route;
pub mod shelf;
mod site;
mod tables;
pub mod terms;
pub mod times;
pub mod tls;
