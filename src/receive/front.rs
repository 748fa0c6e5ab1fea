//! Who the client of a session is: the peer of the connection, or whom a trusted
//! peer speaks for by the PROXY protocol or XCLIENT. And what XFORWARD tells about
//! where a message came from, which is for the log and decides nothing.
//!
//! Security: a claim is looked at only if the address of the connection is in the
//! list of the listener for that kind of claim. XCLIENT and XFORWARD go by the
//! client that a PROXY header named, not by one that XCLIENT did. Where a proxy
//! does not know who the client is, the client is a stranger, whatever the proxy
//! itself may do.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::base::users::User;
use crate::base::{EnhancedCode, Reply};
use crate::io::executor::within;
use crate::io::store::Store;
use crate::proto::proxy::{self, Said};
use crate::proto::smtp::server::Verdict;
use crate::proto::smtp::server::proxying::{Claim, Claims};

use super::authenticate::Identity;
use super::authority::{Asked, Silence, Told};
use super::hooks::{Hooks, Introduced, Refused};
use super::profile::holds;
use super::session::{End, Session};

/// How long a proxy may take to send its header: it has it at hand.
const HEADER_PATIENCE: Duration = Duration::from_secs(5);

/// What is known of a client that speaks through another.
pub(super) struct Front {
    /// The peer of the connection.
    connection: SocketAddr,
    /// Nobody has said what the client's address is.
    is_unknown: bool,
    /// What XCLIENT said.
    claims: Claims,
    /// What XFORWARD said, and whether a transaction has begun since.
    forwarded: Option<(Box<Claims>, bool)>,
}

impl Front {
    fn of(connection: SocketAddr) -> Box<Front> {
        Box::new(Front {
            connection,
            is_unknown: false,
            claims: Claims::default(),
            forwarded: None,
        })
    }
}

impl<S: Store, H: Hooks> Session<S, H> {
    /// The address that policy goes by: for a client that nobody knows, one that
    /// no client has.
    pub(super) fn policy_address(&self) -> IpAddr {
        match &self.front {
            Some(front) if front.is_unknown => Ipv4Addr::UNSPECIFIED.into(),
            _ => self.peer.ip(),
        }
    }

    /// As whom the client has authenticated, here or by the word of a trusted peer.
    pub(super) fn user_name(&self) -> Option<&str> {
        let here = self.identity.user.as_ref().map(|user| user.name.as_str());
        here.or_else(|| self.claimed_login())
    }

    /// As whom the client has authenticated elsewhere.
    fn claimed_login(&self) -> Option<&str> {
        said(self.front.as_ref().map(|front| &front.claims.login)?)
    }

    /// What the client called itself elsewhere.
    pub(super) fn claimed_helo(&self) -> Option<&str> {
        said(self.front.as_ref().map(|front| &front.claims.helo)?)
    }

    /// Where the message of this transaction came from.
    pub(super) fn forwarded(&self) -> Option<&Claims> {
        self.front.as_ref()?.forwarded.as_ref().map(|(claims, _)| &**claims)
    }

    /// Reads the PROXY header that the connection must begin with, and nothing
    /// past it.
    pub(super) async fn read_header(&mut self) -> Result<(), End> {
        let limit = HEADER_PATIENCE.min(self.shard.config().limits.command_timeout);
        self.guard.arm(limit);
        let said = loop {
            match proxy::parse(self.buffer.filled()) {
                Ok(Some((len, said))) => {
                    self.buffer.consume(len);
                    break said;
                }
                Ok(None) => {}
                Err(malformed) => return Err(self.distrust(malformed.text())),
            }
            let lacking = proxy::lacking(self.buffer.filled());
            if self.buffer.room().is_empty() && !self.buffer.grow() {
                return Err(self.distrust("no memory for the PROXY header"));
            }
            let room = self.buffer.room();
            let len = room.len().min(lacking);
            match self.stream.read(&mut room[..len]).await {
                Ok(count) if count > 0 => self.buffer.advance(count),
                _ if self.guard.interrupted().is_some() => {
                    return Err(self.distrust("no whole PROXY header in time"));
                }
                _ => return Err(self.distrust("connection closed within the PROXY header")),
            }
        };
        self.buffer.shrink();
        self.believe(said)
    }

    fn believe(&mut self, said: Said) -> Result<(), End> {
        let connection = self.peer;
        let mut front = Front::of(connection);
        let mut destination = None;
        match said {
            // The proxy for itself: as if there were no header.
            Said::Local => {}
            Said::Unknown => front.is_unknown = true,
            Said::Client { source, destination: to } => {
                self.peer = source;
                destination = Some(to.ip());
                front.is_unknown = source.ip().is_unspecified();
            }
        }
        self.front = Some(front);
        self.may_claim = self.profile.may_claim(self.peer.ip());
        if said != Said::Local {
            let claims = Claims { destination: Some(destination), ..Claims::default() };
            self.introduce("PROXY", connection, &claims);
        }
        self.take_seat().map_err(|reply| self.turn_away(&reply))
    }

    /// Ends the session of a proxy that cannot be understood.
    fn distrust(&mut self, why: &str) -> End {
        self.shard.counters.borrow_mut().claims_refused += 1;
        self.turn_away(&Reply::new(421, EnhancedCode(4, 7, 0), why.to_owned()))
    }

    /// Says why the connection is not served, as its greeting.
    fn turn_away(&mut self, reply: &Reply) -> End {
        self.shard.hooks.turned_away(self.peer, reply);
        self.say(reply);
        End::Done
    }

    /// Waits before the greeting, and turns away who does not.
    pub(super) async fn hold_greeting(&mut self) -> Result<(), End> {
        let (strict, delay) = (self.profile.strict, self.profile.greet_delay);
        let mut early = !self.buffer.is_empty();
        if delay.is_zero() {
            if strict && !early {
                early = self.read_now().await?;
            }
        } else if !early {
            self.guard.arm(delay + Duration::from_secs(1));
            self.guard.set_idle(true);
            let read = within(delay, self.stream.read(self.buffer.room())).await;
            self.guard.set_idle(false);
            match read {
                None => {}
                Some(Ok(count)) if count > 0 => {
                    self.buffer.advance(count);
                    early = true;
                }
                Some(_) => return Err(self.cause()),
            }
        }
        if !(early && strict) {
            return Ok(());
        }
        self.shard.counters.borrow_mut().sessions_ahead += 1;
        let text = "you spoke before the greeting (limits.commands_ahead), closing connection";
        Err(self.turn_away(&Reply::new(421, EnhancedCode(4, 7, 0), text)))
    }

    /// Decides on XCLIENT, and makes the client another.
    pub(super) fn replace_client(&mut self, claims: Claims, helo: &str) -> Verdict {
        if !self.may_claim.xclient {
            return self.refuse_claim("XCLIENT", helo);
        }
        let connection = self.peer;
        // Who the proxy may have authenticated as is none of the client's.
        self.identity = Identity::default();
        let front = self.front.get_or_insert_with(|| Front::of(connection));
        let connection = front.connection;
        front.claims.update(claims.clone());
        match claims.address {
            Some(Some(address)) => {
                self.peer = SocketAddr::new(address, 0);
                front.is_unknown = address.is_unspecified();
            }
            Some(None) => {
                self.peer = connection;
                front.is_unknown = true;
            }
            None => {}
        }
        if let (Some(Some(port)), false) = (claims.port, front.is_unknown) {
            self.peer.set_port(port);
        }
        self.introduce("XCLIENT", connection, &claims);
        match claims.address.map_or(Ok(()), |_| self.take_seat()) {
            Ok(()) => Verdict::Accept,
            Err(reply) => {
                self.shard.hooks.turned_away(self.peer, &reply);
                Verdict::Close(reply)
            }
        }
    }

    /// Whether the client is said to be a user, and there are users to be one of.
    pub(super) fn must_look_up(&self) -> bool {
        self.claimed_login().is_some() && self.shard.authority.users().is_some()
    }

    /// Finds who it is that the client has authenticated as elsewhere, so that it is
    /// held to the senders of that user. A name that nobody has here has none.
    pub(super) async fn look_up_user(&mut self) -> Result<(), End> {
        let Some(name) = self.claimed_login().map(String::from) else { return Ok(()) };
        self.guard.disarm();
        let told = self.shard.authority.ask(Asked::Name(name.clone())).await;
        match told {
            Ok(Told::Checked(user)) => {
                self.identity.user = Some(user.unwrap_or_else(|| Arc::new(User::new(name))));
                return Ok(());
            }
            Err(Silence::Unavailable(why)) => {
                tracing::error!(target: "ringpost", "users cannot be asked: {why}");
            }
            Ok(Told::Keys(..)) | Err(Silence::Busy) => {}
        }
        let text = "users cannot be checked now, try again later";
        Err(self.turn_away(&Reply::new(421, EnhancedCode(4, 3, 0), text)))
    }

    /// Decides on XFORWARD, and keeps what it says for the next transaction.
    pub(super) fn note_origin(&mut self, claims: Claims, helo: &str) -> Verdict {
        if !self.may_claim.xforward {
            return self.refuse_claim("XFORWARD", helo);
        }
        let connection = self.peer;
        let front = self.front.get_or_insert_with(|| Front::of(connection));
        match &mut front.forwarded {
            Some((known, false)) => known.update(claims),
            forwarded => *forwarded = Some((Box::new(claims), false)),
        }
        Verdict::Accept
    }

    /// A transaction begins: what XFORWARD said is for it alone.
    pub(super) fn use_origin(&mut self) {
        if let Some(front) = &mut self.front {
            front.forwarded = front.forwarded.take().filter(|(_, is_used)| !is_used);
            if let Some((_, is_used)) = &mut front.forwarded {
                *is_used = true;
            }
        }
    }

    fn refuse_claim(&self, verb: &str, helo: &str) -> Verdict {
        self.shard.counters.borrow_mut().claims_refused += 1;
        let text = format!("{verb} is not permitted from your address");
        let reply = Reply::new(550, EnhancedCode(5, 7, 0), text);
        let refused =
            Refused { client: self.peer, helo, sender: "", recipient: None, reply: &reply };
        self.shard.hooks.refused(refused);
        Verdict::Refuse(reply)
    }

    fn introduce(&self, by: &'static str, connection: SocketAddr, claims: &Claims) {
        self.shard.hooks.introduced(Introduced { by, connection, client: self.peer, claims });
    }
}

/// What was said, if anything.
fn said(claim: &Claim<String>) -> Option<&str> {
    claim.as_ref()?.as_deref()
}

/// What a client may claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MayClaim {
    pub(super) xclient: bool,
    pub(super) xforward: bool,
}

impl super::profile::Profile {
    /// What a client with this address may claim.
    pub(super) fn may_claim(&self, client: IpAddr) -> MayClaim {
        MayClaim {
            xclient: holds(&self.fronts.xclient_from, client),
            xforward: holds(&self.fronts.xforward_from, client),
        }
    }
}
