//! TLS in a session: what is done before and after the handshake, and what is said
//! of it in the log and the counters.
//!
//! Security: what a client sent in the clear behind STARTTLS is dropped unread. If
//! it comes later, it is taken for a part of the handshake, which then fails.

use std::time::Duration;

use crate::base::users::Certificate;
use crate::io::store::Store;
use crate::io::tls::{self, Cause, Peer, Version};
use crate::proto::smtp::server::Server;

use super::authenticate::Secure;
use super::hooks::Hooks;
use super::session::{End, Session};

/// How long a handshake may take, if commands may take longer.
const HANDSHAKE_MAX: Duration = Duration::from_secs(60);

/// What a client is known by: its very certificate, and the addresses in one that is
/// from a trusted authority.
fn known_by(peer: &Peer) -> Vec<Certificate> {
    let addresses = peer.mail_addresses.iter().filter(|_| peer.is_verified);
    let addresses = addresses.map(|address| Certificate::Mail(address.to_lowercase()));
    std::iter::once(Certificate::Sha256(peer.fingerprint)).chain(addresses).collect()
}

impl<S: Store, H: Hooks> Session<S, H> {
    /// Whether a handshake that the client asks for can be done now; if not, the log
    /// is told.
    pub(super) fn may_start_tls(&self, helo: &str) -> bool {
        let Err(why) = self.means() else { return true };
        self.shard.counters.borrow_mut().tls_failures += 1;
        self.shard.hooks.insecure(self.peer, helo, why);
        false
    }

    /// What a handshake is done with, or why there can be none now.
    fn means(&self) -> Result<tls::Server, &'static str> {
        let tls = self.shard.tls().ok_or("there is no certificate")?;
        let has_room = self.shard.pool.memory().has_room(tls::HANDSHAKE);
        has_room.then_some(tls).ok_or("short of memory (limits.receive_memory)")
    }

    /// Drops what was sent in the clear behind STARTTLS.
    pub(super) fn drop_unread(&mut self, server: &Server) {
        let unread = self.buffer.filled().len();
        if unread > 0 {
            self.buffer.consume(unread);
            self.shard.counters.borrow_mut().tls_injections += 1;
            let what = format!("{unread} octets in the clear behind STARTTLS, dropped unread");
            self.shard.hooks.insecure(self.peer, server.helo(), &what);
        }
        self.buffer.shrink();
    }

    /// Lets the client authenticate by what TLS has shown of it.
    pub(super) fn believed(&mut self, mut server: Server) -> Server {
        let peer = self.stream.tls().and_then(|facts| facts.peer.as_deref());
        let certificates = peer.map(known_by).unwrap_or_default();
        let configured = self.profile.settings.offers().auth;
        if !configured.is_empty() {
            let secure = Secure { bindings: self.stream.bindings(), certificates };
            server.offer_mechanisms(secure.mechanisms(configured));
            self.secure = Some(Box::new(secure));
        }
        server
    }

    /// Does the handshake as the server.
    pub(super) async fn do_handshake(&mut self, helo: &str) -> Result<(), End> {
        let tls = match self.means() {
            Ok(tls) => tls,
            Err(why) => {
                self.shard.counters.borrow_mut().tls_failures += 1;
                self.shard.hooks.insecure(self.peer, helo, why);
                return Err(End::Insecure);
            }
        };
        self.guard.disarm();
        let limit = self.shard.config().limits.command_timeout.min(HANDSHAKE_MAX);
        let done = self.stream.accept_tls(&tls, limit).await;
        let mut counters = self.shard.counters.borrow_mut();
        let Err(failure) = done else {
            let facts = self.stream.tls().expect("the handshake is done");
            counters.tls_handshakes += 1;
            counters.tls_resumed += u64::from(facts.is_resumed);
            match facts.version {
                Version::Tls12 => counters.tls_12_sessions += 1,
                Version::Tls13 => counters.tls_13_sessions += 1,
            }
            return Ok(());
        };
        counters.tls_failures += 1;
        drop(counters);
        // A shutdown is no fault of the client's.
        if failure.cause != Cause::Lost || self.guard.interrupted().is_none() {
            self.shard.hooks.insecure(self.peer, helo, &failure.text);
        }
        Err(End::Insecure)
    }
}
