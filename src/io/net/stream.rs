//! Connected TCP streams, and the handle that ends their reads from another task.

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::readiness::{Registered, Side, Source};
use crate::io::executor::within;

/// A connected TCP stream on this executor. Dropping it closes it.
pub struct Stream {
    inner: Registered<TcpStream>,
}

impl Stream {
    /// A stream that does not block.
    pub(in crate::io) fn new(stream: TcpStream) -> io::Result<Self> {
        Ok(Stream { inner: Registered::new(stream)? })
    }

    /// Connects to `to` within `limit`.
    ///
    /// # Errors
    /// Those of connect(2); `TimedOut` past the limit.
    pub async fn connect(to: SocketAddr, limit: Duration) -> io::Result<Self> {
        Self::open(None, to, limit).await
    }

    /// Connects to `to` from the local address `source`, any port of it, within
    /// `limit`.
    ///
    /// # Errors
    /// Those of bind(2) and connect(2); `TimedOut` past the limit.
    pub async fn connect_from(source: IpAddr, to: SocketAddr, limit: Duration) -> io::Result<Self> {
        Self::open(Some(source), to, limit).await
    }

    async fn open(source: Option<IpAddr>, to: SocketAddr, limit: Duration) -> io::Result<Self> {
        let kind = Type::STREAM.nonblocking();
        let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        let connected = match socket.connect(&to.into()) {
            Ok(()) => true,
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => false,
            Err(error) => return Err(error),
        };
        // Not before: a socket that is not connecting yet is reported as ended.
        let stream = Stream::new(socket.into())?;
        if !connected {
            within(limit, poll_fn(|cx| stream.poll_connect(cx)))
                .await
                .unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
        }
        Ok(stream)
    }

    /// Whether short writes leave without waiting for more.
    #[cfg(test)]
    pub(super) fn sends_at_once(&self) -> bool {
        self.inner.io().nodelay().unwrap()
    }

    /// Completes when the connection is made or has failed.
    fn poll_connect(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.inner.source().poll(Side::Write, cx, || {
            let stream = self.inner.io();
            match stream.take_error()? {
                Some(error) => Err(error),
                // Connected, or still connecting?
                None => match stream.peer_addr() {
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                        Err(io::ErrorKind::WouldBlock.into())
                    }
                    other => other.map(drop),
                },
            }
        })
    }

    /// Reads what has come, at most `buf.len()` bytes; 0 at the end.
    pub async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, buf)).await
    }

    /// Writes all of `bytes`.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = poll_fn(|cx| self.poll_write(cx, bytes)).await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Reads what has come, or has the task woken when something has. For tasks
    /// that wait for more than one thing.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let source = self.inner.source();
        source.poll(Side::Read, cx, || {
            let count = self.inner.io().read(buf)?;
            if count < buf.len() {
                // The queue is empty, unless more has come meanwhile: then there
                // is an event that nobody has looked at yet.
                source.drained();
            }
            Ok(count)
        })
    }

    /// Writes as much of `bytes` as the socket takes, or has the task woken when
    /// it takes more. Nothing refers to `bytes` after the call.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.inner.source().poll(Side::Write, cx, || self.inner.io().write(bytes))
    }

    /// The local address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.io().local_addr()
    }

    /// The peer's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.inner.io().peer_addr()
    }

    /// A handle that can end this stream's reads from another task.
    pub fn hangup(&self) -> Hangup {
        Hangup(Rc::clone(self.inner.source()))
    }
}

/// Ends the reads, or reads and writes, of a [`Stream`] from another task of
/// the same executor. Does nothing once the stream is gone.
#[derive(Clone)]
pub struct Hangup(Rc<Source>);

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
        let Some(fd) = self.0.fd() else { return };
        // SAFETY: shutdown(2) takes no pointers; `fd` is open and a socket, because
        // the stream that owns it says so, and both live on this thread. A failure
        // means that the peer has gone, which is what was wanted.
        unsafe { libc::shutdown(fd, how) };
        self.0.ended();
    }
}
