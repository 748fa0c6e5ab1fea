//! Layer 1: the message as data.

pub mod date;
pub mod headers;
pub mod report;
pub mod stuffing;
pub mod trace;
