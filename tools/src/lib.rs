//! The tools around ringpost: the load generator, the sink, the demo, the
//! comparison and the segment inspector. Each binary is a thin `main` over a
//! module of this library, so that tests and the demo can run them as calls.
//!
//! | module | tool |
//! |---|---|
//! | [`segments`] | `ringpost-segments` |
//! | [`load`] | `ringpost-load` |
//! | [`demo`] | `ringpost-demo` |
//! | [`compare`] | `ringpost-compare` |
//! | [`sink`] | `ringpost-sink` |
//! | [`verify`] | `ringpost-load verify` |
//!
//! The rest is shared between them.

pub mod compare;
pub mod corpus;
pub mod demo;
pub mod dist;
pub mod draw;
pub mod interrupt;
pub mod latency;
pub mod ledger;
pub mod load;
pub mod machine;
pub mod message;
pub mod pattern;
pub mod segments;
pub mod sink;
pub mod text;
pub mod values;
pub mod verify;
