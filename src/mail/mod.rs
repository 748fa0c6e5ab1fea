//! Layer 1: the message as data.

pub mod addresses;
pub mod chunks;
pub mod date;
mod encoded_word;
mod encoding;
pub mod headers;
pub mod report;
pub mod stuffing;
pub mod submission;
pub mod trace;
