//! Layer 4: taking mail from clients.

pub mod buffer;
pub mod clients;
