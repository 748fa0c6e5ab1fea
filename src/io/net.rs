//! TCP: listening sockets made with their options before any executor runs,
//! accepted and connecting streams on the shard, and [`Hangup`], by which a
//! sweeper ends a read that has waited too long without a timer for each read.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use socket2::{Domain, Protocol, Socket, Type};

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

/// A listening socket on the executor of the calling thread.
pub struct Listener {
    inner: glommio::net::TcpListener,
}

impl Listener {
    /// Takes a socket made by [`listen`] onto this executor.
    pub fn adopt(listener: StdListener) -> Self {
        // SAFETY: the descriptor is a listening TCP socket that we own, given
        // up by `into_raw_fd`, so that `inner` is its only owner.
        let inner = unsafe { glommio::net::TcpListener::from_raw_fd(listener.into_raw_fd()) };
        Listener { inner }
    }

    /// The address it is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr().map_err(io::Error::from)
    }

    /// The next connection and its peer.
    ///
    /// # Errors
    /// Those of accept(2); EMFILE and the like pass, the caller should wait a
    /// moment and go on.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let inner = self.inner.accept().await.map_err(io::Error::from)?;
        let peer = inner.peer_addr().map_err(io::Error::from)?;
        inner.set_nodelay(true).map_err(io::Error::from)?;
        Ok((Stream::new(inner), peer))
    }
}

/// A connected TCP stream on this executor. Dropping it closes it.
pub struct Stream {
    inner: glommio::net::TcpStream,
    fd: Rc<OpenFd>,
}

/// The descriptor number of an open stream; -1 once it is closed, so that a
/// late [`Hangup`] cannot touch a descriptor that was given out again.
struct OpenFd(std::cell::Cell<RawFd>);

impl Stream {
    fn new(inner: glommio::net::TcpStream) -> Self {
        let fd = Rc::new(OpenFd(std::cell::Cell::new(inner.as_raw_fd())));
        Stream { inner, fd }
    }

    /// Connects to `to` within `limit`.
    ///
    /// # Errors
    /// Those of connect(2); `TimedOut` past the limit.
    pub async fn connect(to: SocketAddr, limit: Duration) -> io::Result<Self> {
        let connect = glommio::net::TcpStream::connect(to);
        let inner = super::executor::within(limit, connect)
            .await
            .unwrap_or_else(|| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
            .map_err(io::Error::from)?;
        inner.set_nodelay(true).map_err(io::Error::from)?;
        Ok(Stream::new(inner))
    }

    /// Connects to `to` from the local address `source`, any port of it, within
    /// `limit`.
    ///
    /// # Errors
    /// Those of bind(2) and connect(2); `TimedOut` past the limit.
    pub async fn connect_from(source: IpAddr, to: SocketAddr, limit: Duration) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        // SAFETY: the descriptor is a TCP socket that we own, given up by
        // `into_raw_fd`, so that `inner` is its only owner.
        let inner = unsafe { glommio::net::TcpStream::from_raw_fd(socket.into_raw_fd()) };
        let mut stream = Stream::new(inner);
        // A write of nothing waits for the connection, and reports its failure.
        super::executor::within(limit, stream.inner.write(&[]))
            .await
            .unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
        Ok(stream)
    }

    /// Reads what has come, at most `buf.len()` bytes; 0 at the end.
    pub async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buf).await
    }

    /// Writes all of `bytes`.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_all(bytes).await
    }

    /// Reads what has come, or has the task woken when something has. For tasks
    /// that wait for more than one thing.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }

    /// Writes as much of `bytes` as the socket takes, or has the task woken when
    /// it takes more. Nothing refers to `bytes` after the call.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    /// The local address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr().map_err(io::Error::from)
    }

    /// The peer's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.inner.peer_addr().map_err(io::Error::from)
    }

    /// A handle that can end this stream's reads from another task.
    pub fn hangup(&self) -> Hangup {
        Hangup(Rc::clone(&self.fd))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.fd.0.set(-1);
    }
}

/// Ends the reads, or reads and writes, of a [`Stream`] from another task of
/// the same executor. Does nothing once the stream is gone.
#[derive(Clone)]
pub struct Hangup(Rc<OpenFd>);

impl Hangup {
    /// The reader sees the end of the stream; writes still go through, so that
    /// a last reply can be sent.
    pub fn stop_reads(&self) {
        self.shutdown(libc::SHUT_RD);
    }

    /// Reads and writes both end.
    pub fn stop_all(&self) {
        self.shutdown(libc::SHUT_RDWR);
    }

    fn shutdown(&self, how: libc::c_int) {
        let fd = self.0.0.get();
        if fd >= 0 {
            // SAFETY: shutdown(2) takes no pointers; `fd` is open and a socket,
            // because the stream that owns it sets the cell to -1 when dropped,
            // and both live on this thread. A failure means that the peer has
            // gone, which is what was wanted.
            unsafe { libc::shutdown(fd, how) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::executor::run_pinned;

    #[test]
    fn connects_from_the_address_asked_for_or_says_why_not() {
        let limit = Duration::from_secs(5);
        run_pinned("net", None, move || async move {
            let listener = Listener::adopt(listen("127.0.0.1:0".parse().unwrap()).unwrap());
            let address = listener.local_addr().unwrap();
            let source: IpAddr = "127.0.0.77".parse().unwrap();
            let mut client = Stream::connect_from(source, address, limit).await.unwrap();
            let (mut server, peer) = listener.accept().await.unwrap();
            assert_eq!(peer.ip(), source);
            client.write_all(b"x").await.unwrap();
            assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 1);
            drop(listener);
            let refused = Stream::connect_from(source, address, limit).await.err().unwrap();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            let foreign: IpAddr = "192.0.2.1".parse().unwrap();
            let foreign = Stream::connect_from(foreign, address, limit).await.err().unwrap();
            assert_eq!(foreign.kind(), io::ErrorKind::AddrNotAvailable);
        })
        .unwrap()
        .join()
        .unwrap();
    }
}
