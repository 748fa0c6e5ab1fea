//! Layer 1: protocol engines without I/O, clock or randomness.

pub mod address;
pub mod proxy;
pub mod sasl;
pub mod scan;
pub mod smtp;
pub mod x509;
