//! The work that several benches measure: some by its time, one by its
//! instructions.

#![allow(dead_code, reason = "each bench uses its part")]

pub mod arguments;
pub mod dialog;
pub mod log;
pub mod mail;
