//! One core: its parts, built and wired.

pub mod control;
pub mod maillog;
