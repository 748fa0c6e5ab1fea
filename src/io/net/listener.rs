//! Listening sockets on an executor.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};

use super::Stream;
use super::readiness::{Registered, Side};

/// A listening socket on the executor of the calling thread.
pub struct Listener {
    inner: Registered<TcpListener>,
}

impl Listener {
    /// Takes a socket made by [`listen`](super::listen) onto this executor.
    ///
    /// # Panics
    /// When the kernel has no memory for one more registration.
    pub fn adopt(listener: TcpListener) -> Self {
        let inner = listener.set_nonblocking(true).and_then(|()| Registered::new(listener));
        Listener { inner: inner.expect("a listening socket can be registered") }
    }

    /// The address it is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.io().local_addr()
    }

    /// The next connection and its peer.
    ///
    /// # Errors
    /// Those of accept(2); EMFILE and the like pass, the caller should wait a
    /// moment and go on.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let accept = || self.inner.io().accept();
        let source = self.inner.source();
        let (stream, peer) = poll_fn(|cx| source.poll(Side::Read, cx, accept)).await?;
        stream.set_nonblocking(true)?;
        Ok((Stream::new(stream)?, peer))
    }
}
