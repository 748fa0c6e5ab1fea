//! The tools around ringpost: the load generator, the sink, the demo and the
//! segment inspector. Each binary is a thin `main` over a module of this
//! library, so that tests and the demo can run them as calls.
//!
//! | module | tool |
//! |---|---|
//! | [`segments`] | `ringpost-segments` |
//! | [`verify`] | `ringpost-load verify` |
//!
//! The rest is shared between them.

pub mod corpus;
pub mod latency;
pub mod ledger;
pub mod message;
pub mod segments;
pub mod values;
pub mod verify;
