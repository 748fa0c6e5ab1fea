//! Layer 6: the cold side: command line, control thread, HTTP, admin socket.

pub mod check;
