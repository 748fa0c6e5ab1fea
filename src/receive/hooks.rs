//! What receiving needs from the rest of its shard. `receive` and `relay` never
//! import one another; the shard implements this trait and so joins them.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::{Envelope, Place, QueueId, Reply, UnixMillis};

/// A message that is on stable storage, about to be answered with 250.
pub struct Accepted<'a> {
    /// Its id.
    pub id: QueueId,
    /// Its envelope.
    pub envelope: Envelope,
    /// The trace header put in front of the body.
    pub trace: &'a [u8],
    /// The body as received, terminator included; `None` when it was too large
    /// to be in memory.
    pub body: Option<&'a [u8]>,
    /// Where the commit record of a streamed message is.
    pub commit: Option<Place>,
    /// Octets received after 354, terminator included.
    pub size: u64,
    /// From the end of the data to the end of the commit.
    pub took: Duration,
}

/// A message or recipient that was refused.
pub struct Refused<'a> {
    /// The client.
    pub client: SocketAddr,
    /// What it called itself; empty before EHLO.
    pub helo: &'a str,
    /// The sender, if a transaction was open.
    pub sender: &'a str,
    /// The recipient, if one was refused; else the message was.
    pub recipient: Option<&'a str>,
    /// The reply it got.
    pub reply: &'a Reply,
}

/// How a session ended when the client did not say QUIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The client was silent for too long.
    TimedOut,
    /// Too many errors.
    Errors,
    /// The client went away within a transaction.
    Gone,
}

impl Broken {
    /// Lower-case words for the log.
    pub fn name(self) -> &'static str {
        match self {
            Broken::TimedOut => "timed out",
            Broken::Errors => "too many errors",
            Broken::Gone => "connection lost",
        }
    }
}

/// The rest of the shard, as receiving sees it.
pub trait Hooks: 'static {
    /// Wall-clock time.
    fn now(&self) -> UnixMillis;
    /// A message is durable: schedule it and log it.
    fn accepted(&self, message: Accepted<'_>);
    /// Something was refused: log it.
    fn refused(&self, refused: Refused<'_>);
    /// A session ended badly: log it.
    fn broken(&self, client: SocketAddr, helo: &str, how: Broken);
    /// A connection was turned away with 421: log it.
    fn turned_away(&self, client: SocketAddr, reply: &Reply);
}
