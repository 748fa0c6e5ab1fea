//! A listener for the admin HTTP server that no caller can wear down: few
//! connections at a time, and each ends when its caller has been silent, or has
//! taken nothing, for a while. Descriptors are for mail.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Connections served at a time; others wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// Longest wait on a caller; longer than Prometheus waits between scrapes.
const PATIENCE: Duration = Duration::from_secs(90);

/// The listener.
pub struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Bounded {
    /// Bounds `listener`.
    pub fn new(listener: TcpListener) -> Self {
        Bounded { listener, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let places = Arc::clone(&self.places);
        let place = places.acquire_owned().await.expect("the semaphore is never closed");
        // The trait's own accept of a TCP listener waits out EMFILE and the like.
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        (Connection { stream, patience: Box::pin(sleep(PATIENCE)), _place: place }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// An accepted connection and its place.
pub struct Connection {
    stream: TcpStream,
    patience: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    /// What the stream said, or `TimedOut` if it has been silent too long.
    fn hurry<T>(&mut self, cx: &mut Context<'_>, said: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if said.is_ready() {
            self.patience.as_mut().reset(Instant::now() + PATIENCE);
            return said;
        }
        ready!(self.patience.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let said = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.hurry(cx, said)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let said = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.hurry(cx, said)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn bounded() -> (Bounded, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Bounded::new(listener), address)
    }

    #[tokio::test]
    async fn a_place_is_given_back_with_its_connection() {
        let (mut listener, address) = bounded().await;
        let mut callers = Vec::new();
        let mut served = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            callers.push(TcpStream::connect(address).await.unwrap());
            served.push(listener.accept().await.0);
        }
        assert_eq!(listener.places.available_permits(), 0);
        callers.push(TcpStream::connect(address).await.unwrap());
        served.pop();
        let mut last = listener.accept().await.0;
        callers.last_mut().unwrap().write_all(b"x").await.unwrap();
        let mut got = [0; 1];
        assert_eq!(last.read(&mut got).await.unwrap(), 1);
        assert_eq!(&got, b"x");
    }

    #[tokio::test(start_paused = true)]
    async fn patience_starts_anew_with_every_word() {
        let (mut listener, address) = bounded().await;
        let mut caller = TcpStream::connect(address).await.unwrap();
        let mut served = listener.accept().await.0;
        let start = Instant::now();
        caller.write_all(b"x").await.unwrap();
        assert_eq!(served.read(&mut [0; 4]).await.unwrap(), 1);
        tokio::time::advance(PATIENCE / 2).await;
        caller.write_all(b"y").await.unwrap();
        assert_eq!(served.read(&mut [0; 4]).await.unwrap(), 1);
        let error = served.read(&mut [0; 4]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= PATIENCE * 3 / 2);
        served.write_all(b"last words").await.unwrap();
    }
}
