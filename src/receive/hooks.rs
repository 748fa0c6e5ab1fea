//! What receiving needs from the rest of its shard. `receive` and `relay` never
//! import one another; the shard implements this trait and so joins them.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::{Envelope, Mechanism, Place, QueueId, Reply, UnixMillis};
use crate::proto::smtp::server::proxying::Claims;

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
    /// Octets of the body as it is stored, terminator included.
    pub size: u64,
    /// From the end of the data to the end of the commit.
    pub took: Duration,
    /// Where it came from, if XFORWARD told.
    pub forwarded: Option<&'a Claims>,
}

/// A client for whom another spoke.
pub struct Introduced<'a> {
    /// By which protocol.
    pub by: &'static str,
    /// Who spoke for it: the peer of the connection.
    pub connection: SocketAddr,
    /// The client; the peer of the connection if it is not known.
    pub client: SocketAddr,
    /// What was said about it.
    pub claims: &'a Claims,
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

/// An authentication that came to its end.
pub struct Authenticated<'a> {
    /// The client.
    pub client: SocketAddr,
    /// What it called itself.
    pub helo: &'a str,
    /// How it authenticates.
    pub mechanism: Mechanism,
    /// Who it is, or says it is; empty when it did not say, or said what is no
    /// name.
    pub user: &'a str,
    /// Why it is not believed, if so.
    pub failed: Option<&'a str>,
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
    /// The client did not read its replies.
    Deaf,
    /// A body came too slowly.
    Slow,
    /// Commands were sent ahead of a reply that had to be waited for.
    Ahead,
    /// Too many commands that led to no mail.
    Idle,
    /// There was no memory for what the client sent.
    Short,
}

impl Broken {
    /// Lower-case words for the log.
    pub fn name(self) -> &'static str {
        match self {
            Broken::TimedOut => "timed out",
            Broken::Errors => "too many errors",
            Broken::Gone => "connection lost",
            Broken::Deaf => "does not read replies",
            Broken::Slow => "data too slow",
            Broken::Ahead => "commands sent ahead",
            Broken::Idle => "too many commands without mail",
            Broken::Short => "short of memory",
        }
    }
}

/// The rest of the shard, as receiving sees it.
pub trait Hooks: 'static {
    /// Wall-clock time.
    fn now(&self) -> UnixMillis;
    /// A message is durable: schedule it and log it.
    fn accepted(&self, message: Accepted<'_>);
    /// A trusted peer speaks for another client: log it.
    fn introduced(&self, introduced: Introduced<'_>);
    /// A client asks that mail for a domain, and for those `below` it, be tried now.
    /// False when that cannot be begun.
    fn turn(&self, client: SocketAddr, domain: &str, below: bool) -> bool;
    /// Something was refused: log it.
    fn refused(&self, refused: Refused<'_>);
    /// A client authenticated, or could not: log it.
    fn authenticated(&self, authenticated: Authenticated<'_>);
    /// A session ended badly: log it.
    fn broken(&self, client: SocketAddr, helo: &str, how: Broken);
    /// A session could not be made secure, or somebody meddled with it: log it.
    fn insecure(&self, client: SocketAddr, helo: &str, why: &str);
    /// A connection was turned away with 421: log it.
    fn turned_away(&self, client: SocketAddr, reply: &Reply);
}
