//! The accept loop of one listening socket of one shard.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::base::{EnhancedCode, Reply};
use crate::config::ListenerTls;
use crate::io::clock;
use crate::io::executor::{sleep, spawn};
use crate::io::net::{Listener, Stream};
use crate::io::store::Store;
use crate::io::tls::{self, Conn};

use super::Shared;
use super::buffer::SESSION;
use super::clients::Seat;
use super::hooks::Hooks;
use super::profile::{Profile, holds};
use super::session::Session;

/// How long to wait after accept failed for want of descriptors or memory.
const BREATH: Duration = Duration::from_millis(50);
/// How often that is logged at most.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// Accepts on the socket of the listener `index` for ever. Dropping the future closes the socket.
pub(super) async fn accept<S: Store, H: Hooks>(
    shard: Rc<Shared<S, H>>,
    index: usize,
    listener: Listener,
) {
    let mut complained: Option<Instant> = None;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => admit(&shard, index, stream, peer),
            Err(error) if is_the_peers(&error) => {}
            Err(error) => {
                let now = clock::monotonic();
                if complained.is_none_or(|last| now - last > COMPLAIN_EVERY) {
                    complained = Some(now);
                    tracing::error!(
                        %error,
                        "cannot accept connections; if it is for too many open files, raise \
                         LimitNOFILE (ulimit -n) or lower limits.connections"
                    );
                }
                sleep(BREATH).await;
            }
        }
    }
}

/// The connection was gone before it was accepted.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
    )
}

fn admit<S: Store, H: Hooks>(
    shard: &Rc<Shared<S, H>>,
    index: usize,
    stream: Stream,
    peer: SocketAddr,
) {
    let profile = shard.profile(index);
    match place(shard, &profile, peer) {
        Ok(seat) => {
            shard.counters.borrow_mut().connections_accepted += 1;
            let mut stream = Conn::plain(stream);
            stream.count_in(shard.pool.memory());
            spawn(Session::new(Rc::clone(shard), profile, stream, peer, seat).run()).detach();
        }
        Err(reply) => {
            shard.counters.borrow_mut().connections_refused += 1;
            shard.hooks.turned_away(peer, &reply);
            // In the clear, a client that awaits TLS would not understand it.
            if shard.profile(index).tls != ListenerTls::Implicit {
                spawn(turn_away(stream, reply)).detach();
            }
        }
    }
}

/// A place for the connection, or why there is none. Whose place it is, among the
/// clients, is not known before a proxy has told.
fn place<S: Store, H: Hooks>(
    shard: &Shared<S, H>,
    profile: &Profile,
    peer: SocketAddr,
) -> Result<Option<Seat>, Reply> {
    if shard.queue.poisoned().is_some() {
        let text = "service unavailable: storage failure";
        return Err(Reply::new(421, EnhancedCode(4, 3, 2), text));
    }
    let limits = &shard.config().limits;
    if shard.watch.len() >= share(limits.connections, shard.shards) as usize {
        return Err(Reply::new(
            421,
            EnhancedCode(4, 7, 0),
            "too many connections (limits.connections), try again later",
        ));
    }
    let tls = if profile.tls == ListenerTls::Implicit { tls::HANDSHAKE } else { 0 };
    if !shard.pool.memory().has_room(SESSION + tls) {
        shard.counters.borrow_mut().connections_shed += 1;
        let text = "short of memory (limits.receive_memory), try again later";
        return Err(Reply::new(421, EnhancedCode(4, 3, 2), text));
    }
    let fronts = &profile.fronts;
    if !fronts.proxy_protocol {
        return seat(shard, peer.ip()).map(Some);
    }
    if holds(&fronts.proxy_from, peer.ip()) {
        return Ok(None);
    }
    shard.counters.borrow_mut().claims_refused += 1;
    let text = "this port is for proxies, and your address is none of theirs";
    Err(Reply::new(421, EnhancedCode(4, 7, 0), text))
}

/// A place among the clients, or why `client` gets none.
pub(super) fn seat<S: Store, H: Hooks>(
    shard: &Shared<S, H>,
    client: IpAddr,
) -> Result<Seat, Reply> {
    let limits = &shard.config().limits;
    if let Err(reply) = shard.meters.connection(limits, client, clock::monotonic()) {
        shard.counters.borrow_mut().connections_rate_limited += 1;
        return Err(reply);
    }
    let per_client = match holds(&limits.unlimited, client) {
        true => u32::MAX,
        false => share(limits.connections_per_client, shard.shards),
    };
    shard.clients.seat(client, per_client).ok_or_else(|| {
        let text = format!(
            "too many connections from your address, {} at a time \
             (limits.connections_per_client), try again later",
            limits.connections_per_client
        );
        Reply::new(421, EnhancedCode(4, 7, 0), text)
    })
}

/// A shard's part of a limit of the server; at least one.
fn share(limit: u32, shards: u16) -> u32 {
    limit.div_ceil(u32::from(shards)).max(1)
}

async fn turn_away(mut stream: Stream, reply: Reply) {
    let line = format!("{reply}\r\n");
    // A fresh connection has room for one line; if it has not, it is gone.
    let _ = stream.write_all(line.as_bytes()).await;
}
