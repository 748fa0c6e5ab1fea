//! TCP: listening sockets made with their options before any executor runs,
//! accepted and connecting streams on the shard, and [`Hangup`], by which a
//! sweeper ends a read that has waited too long without a timer for each read.

mod listener;
mod readiness;
mod stream;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};

use socket2::{Domain, Protocol, Socket, Type};

pub use listener::Listener;
pub(super) use readiness::Set;
pub use stream::{Hangup, Stream};

/// Connections the kernel completes ahead of accept, for each socket.
const BACKLOG: i32 = 4096;

/// A listening socket with SO_REUSEPORT, not yet on an executor.
///
/// # Errors
/// The address is in use without SO_REUSEPORT, not ours, or not permitted.
pub fn listen(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Those that are accepted inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whether nobody listens on `address`, not even with SO_REUSEPORT: a second
/// server on the same port would silently take a part of the connections.
///
/// # Errors
/// `AddrInUse`, or any other reason why it could not be bound.
pub fn probe(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Old connections of an earlier process are no listeners.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1)
}
