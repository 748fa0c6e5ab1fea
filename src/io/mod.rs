//! The one seam to the outside: sockets, files, timers, tasks and channels.
//!
//! Besides `shard`, only this folder names glommio, so that another executor (a
//! seeded one with virtual time, say) can stand in. `unsafe` is allowed here
//! and in the scanner, and nowhere else.

pub mod clock;
pub mod dns;
pub mod executor;
pub mod memory;
pub mod net;
pub mod process;
pub mod random;
pub mod signal;
pub mod space;
pub mod store;
pub mod tls;
pub mod unix;
pub mod uring;
pub mod watch;
mod way;
pub mod workers;
