//! One query to one server. Over UDP each has a socket of its own, connected: the
//! kernel gives it a random port, lets nothing in from other addresses, and tells
//! at once when nobody listens there. That costs two system calls more than a
//! shared socket, and makes a forger guess the port as well as the id.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::super::executor::within;
use super::super::net::Stream;
use super::message::{Asked, Fault, Reading};

/// Most bytes taken from a datagram: more than was asked for is cut, and then
/// read as malformed.
const DATAGRAM_MAX: usize = 1536;
/// Datagrams that do not fit the query after which it is asked over TCP: somebody
/// is guessing.
const MISFITS_MAX: u32 = 8;

/// Why a query brought no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// None came in time.
    TimedOut,
    /// Nobody is there, or the connection broke.
    Absent(io::Error),
    /// This host lacks something: sockets, memory.
    Local(io::Error),
    /// One came, and was none.
    Fault(Fault),
    /// Too many came that did not fit.
    Guessed,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Failure::TimedOut => "no answer in time",
            Failure::Absent(error) | Failure::Local(error) => return error.fmt(f),
            Failure::Guessed => "answers that fit no question",
            Failure::Fault(fault) => match fault {
                Fault::Failed(code) => return write!(f, "answered \"{code}\""),
                Fault::NotUnderstood => "did not understand the question",
                Fault::Referral => "named other servers instead of asking them",
                Fault::Loop => "too many CNAMEs, or a loop of them",
                Fault::NotOurs | Fault::OtherCase | Fault::Truncated | Fault::Malformed => {
                    "a malformed answer"
                }
            },
        };
        f.write_str(text)
    }
}

/// Sorts errors by whose they are.
fn failure(error: io::Error) -> Failure {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EAGAIN) => {
            Failure::Local(error)
        }
        _ if error.kind() == io::ErrorKind::TimedOut => Failure::TimedOut,
        _ => Failure::Absent(error),
    }
}

/// Asks over UDP and waits for the answer, at most `limit`. Counts what came and
/// did not fit in `misfits`.
///
/// # Errors
/// [`Failure`]; [`Fault::NotOurs`] is none of them.
pub(super) async fn udp(
    server: SocketAddr,
    asked: &Asked,
    has_edns: bool,
    limit: Duration,
    misfits: &mut u32,
) -> Result<Reading, Failure> {
    let socket = connected(server).map_err(failure)?;
    let query = asked.to_bytes(has_edns);
    let talk = async {
        socket.send(&query).await.map_err(|error| failure(error.into()))?;
        let mut buffer = vec![0; DATAGRAM_MAX];
        loop {
            let received = socket.recv(&mut buffer).await;
            let length = received.map_err(|error| failure(error.into()))?;
            match asked.read(&buffer[..length], false) {
                Err(Fault::NotOurs) => *misfits += 1,
                Err(fault) => return Err(Failure::Fault(fault)),
                Ok(reading) => return Ok(reading),
            }
            if *misfits >= MISFITS_MAX {
                return Err(Failure::Guessed);
            }
        }
    };
    within(limit, talk).await.unwrap_or(Err(Failure::TimedOut))
}

/// A socket for one query.
fn connected(server: SocketAddr) -> io::Result<glommio::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(server), Type::DGRAM, Some(Protocol::UDP))?;
    // Connecting an unbound socket gives it a port by chance.
    socket.connect(&server.into())?;
    // SAFETY: the descriptor is a UDP socket that we own, given up by
    // `into_raw_fd`, so that glommio's is its only owner.
    Ok(unsafe { glommio::net::UdpSocket::from_raw_fd(socket.into_raw_fd()) })
}

/// Asks over TCP and waits for the answer, at most `limit` in all.
///
/// # Errors
/// [`Failure`].
pub(super) async fn tcp(
    server: SocketAddr,
    asked: &Asked,
    has_edns: bool,
    limit: Duration,
) -> Result<Reading, Failure> {
    let talk = async {
        let mut stream = Stream::connect(server, limit).await?;
        let query = asked.to_bytes(has_edns);
        let length = u16::try_from(query.len()).expect("a query is short");
        let framed = [&length.to_be_bytes()[..], &query].concat();
        stream.write_all(&framed).await?;
        let mut length = [0; 2];
        read_exact(&mut stream, &mut length).await?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        read_exact(&mut stream, &mut answer).await?;
        Ok(answer)
    };
    let answer = within(limit, talk).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()));
    asked.read(&answer.map_err(failure)?, true).map_err(Failure::Fault)
}

async fn read_exact(stream: &mut Stream, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
    }
    Ok(())
}
