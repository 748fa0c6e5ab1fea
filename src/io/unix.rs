//! Streams to sockets of this machine, for next hops that listen on one. A stream is
//! a stream: once connected it is read and written as those of TCP are.

use std::io;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::executor::{sleep, within};
use super::net::Stream;

/// How soon it is tried again whether a listener that is busy takes a connection.
const BUSY_WAIT: Duration = Duration::from_millis(20);

/// Connects to the socket at `path` within `limit`.
///
/// # Errors
/// Those of connect(2); `TimedOut` when its listener has been too busy for as long.
pub async fn connect(path: &Path, limit: Duration) -> io::Result<Stream> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    let connect = async {
        loop {
            match socket.connect(&address) {
                // A connection to such a socket is never under way: it is made at
                // once, or the listener's queue is full, and nobody says when there
                // is room.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(BUSY_WAIT).await,
                other => return other,
            }
        }
    };
    within(limit, connect).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
    Stream::new(socket.into())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::io::executor::run_pinned;

    #[test]
    fn what_is_written_arrives_and_what_is_not_there_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let peer = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut got = [0; 5];
            stream.read_exact(&mut got).unwrap();
            stream.write_all(b"world").unwrap();
            got
        });
        run_pinned("unix", None, move || async move {
            let limit = Duration::from_secs(5);
            let mut stream = connect(&path, limit).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            let (mut got, mut len) = ([0; 8], 0);
            while len < 5 {
                len += stream.read(&mut got[len..]).await.unwrap();
            }
            assert_eq!(&got[..len], b"world");
            let hangup = stream.hangup();
            hangup.stop_all();
            assert_eq!(stream.read(&mut got).await.unwrap(), 0);
            drop(stream);
            let missing = path.with_extension("none");
            let error = connect(&missing, limit).await.err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        })
        .unwrap()
        .join()
        .unwrap();
        assert_eq!(&peer.join().unwrap(), b"hello");
    }

    #[test]
    fn a_listener_that_is_busy_is_waited_for_within_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        socket.listen(0).unwrap();
        run_pinned("unix", None, move || async move {
            let limit = Duration::from_millis(100);
            let mut taken = Vec::new();
            let error = loop {
                match connect(&path, limit).await {
                    Ok(stream) => taken.push(stream),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            let room = async { socket.accept().map(drop) };
            let long = Duration::from_secs(20);
            let (connected, accepted) = futures_lite::future::zip(connect(&path, long), room).await;
            accepted.unwrap();
            connected.unwrap();
        })
        .unwrap()
        .join()
        .unwrap();
    }
}
