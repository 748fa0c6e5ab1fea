//! Layer 1: protocol engines without I/O, clock or randomness.

pub mod address;
pub mod scan;
pub mod smtp;
