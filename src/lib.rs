//! ringpost: a thread-per-core SMTP relay on io_uring.
//!
//! The layers, lowest first; a file imports only from lower layers or from its
//! own folder (`tests/tidy.rs` holds it to that):
//!
//! | layer | modules |
//! |---|---|
//! | 0 | [`base`] |
//! | 1 | [`config`], [`proto`], [`mail`] |
//! | 2 | [`policy`], [`io`] |
//! | 3 | [`queue`] |
//! | 4 | [`receive`], [`relay`] |
//! | 5 | [`shard`] |
//! | 6 | [`admin`] |
//!
//! `docs/path.md` tells the way of one message through them, file by file.

pub mod admin;
pub mod base;
pub mod config;
pub mod io;
pub mod mail;
pub mod policy;
pub mod proto;
pub mod queue;
pub mod receive;
pub mod relay;
pub mod shard;
