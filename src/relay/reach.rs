//! From a site to a connection: its hosts in order of preference, their
//! addresses, and the first of these that takes a connection and greets.
//!
//! Equal hosts are tried in random order (RFC 5321, section 5.1). Of a host with
//! addresses of both families each is given a short head start before the next
//! is tried beside it, so that a network without one of the two costs a moment
//! and not a time-out (RFC 8305). Addresses that failed lately are tried last.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Core;
use super::attempt::trouble;
use super::station::Station;
use crate::base::{EnhancedCode, Reply};
use crate::config::HostPort;
use crate::io::clock;
use crate::io::dns::DnsFailure;
use crate::io::executor::{sleep, spawn, within};
use crate::io::net::Stream;
use crate::io::store::Store;
use crate::io::unix;
use crate::policy::governor::Failure;
use crate::policy::mx::{self, NoAddress, Verdict};
use crate::policy::route::{Hop, Host, Way};

/// Addresses tried for one connection, over all hosts.
const ADDRESSES_MAX: usize = 10;
/// How long an address is tried alone before the next one of its host is tried
/// beside it.
const HEAD_START: Duration = Duration::from_millis(300);

/// Why a site gave no connection.
pub(super) enum Unreachable {
    /// It may be otherwise later.
    Now(Failure),
    /// It will not be: the site's hosts do not exist, or may not be used.
    Ever(Reply),
}

/// Where a connection is made to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Inet(SocketAddr),
    Socket(Box<str>),
}

/// An address of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) place: Place,
    /// The host's name, if it was found by one.
    pub(super) name: Option<Box<str>>,
    /// What is spoken there.
    pub(super) way: Way,
    /// The host as a configuration names it.
    host: HostPort,
    /// The host's rank.
    rank: u16,
}

impl Target {
    /// As logs and reports name it: `mx1.example.org[192.0.2.1]:25` or
    /// `192.0.2.1:25`.
    pub(super) fn label(&self) -> String {
        match (&self.name, &self.place) {
            (Some(name), Place::Inet(address)) => {
                format!("{name}[{}]:{}", address.ip(), address.port())
            }
            (None, Place::Inet(address)) => address.to_string(),
            (_, Place::Socket(path)) => path.to_string(),
        }
    }

    /// The address, unless it is a socket of this machine.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self.place {
            Place::Inet(address) => Some(address),
            Place::Socket(_) => None,
        }
    }

    /// What a certificate is to be for.
    pub(super) fn certified_name(&self) -> String {
        match (&self.name, &self.place) {
            (Some(name), _) => name.to_string(),
            (None, Place::Inet(address)) => address.ip().to_string(),
            (None, Place::Socket(_)) => String::new(),
        }
    }

    async fn connect(&self, limit: Duration) -> io::Result<Stream> {
        match &self.place {
            Place::Inet(address) => Stream::connect(*address, limit).await,
            Place::Socket(path) => unix::connect(Path::new(&**path), limit).await,
        }
    }
}

/// Why a host has no address to be tried.
enum Fact {
    NoSuchHost,
    NoRecords,
    Refused(&'static str),
    Trouble(Box<str>),
    /// It is this server.
    Own,
}

/// The search for a connection. Each call of [`Search::next`] gives one more
/// connected stream, until there are no more addresses; what the caller finds
/// wrong with one is told by [`Search::failed`].
pub(super) struct Search<S: Store> {
    core: Rc<Core<S>>,
    station: Rc<Station>,
    hops: std::vec::IntoIter<Hop>,
    is_static: bool,
    /// Addresses of the host whose turn it is.
    fresh: Vec<Target>,
    /// Addresses passed over at first because they failed lately.
    resting: Vec<Target>,
    /// What is wrong with the hosts that have no address to be tried.
    facts: Vec<(Box<str>, Fact)>,
    tried: usize,
    failure: Option<Failure>,
}

impl<S: Store> Search<S> {
    pub(super) fn new(core: Rc<Core<S>>, station: Rc<Station>) -> Self {
        let site = station.site();
        let mut hops = site.hops.to_vec();
        // Within a rank, random; the sort keeps that order.
        core.shuffle(&mut hops);
        hops.sort_by_key(|hop| hop.rank);
        Search {
            core,
            station,
            hops: hops.into_iter(),
            is_static: site.is_static,
            fresh: Vec::new(),
            resting: Vec::new(),
            facts: Vec::new(),
            tried: 0,
            failure: None,
        }
    }

    /// The next connection.
    ///
    /// # Errors
    /// There are no more addresses to try: why the site cannot be used.
    pub(super) async fn next(&mut self) -> Result<(Stream, Target), Unreachable> {
        while self.tried < ADDRESSES_MAX {
            if !self.fresh.is_empty() {
                if let Some(found) = self.connect().await {
                    return Ok(found);
                }
            } else if let Some(hop) = self.hops.next() {
                let targets = self.targets(&hop).await;
                let (hosts, now) = (self.station.hosts.borrow(), clock::monotonic());
                let rests = |address| hosts.until(address, now).is_some();
                let is_fresh = |target: &Target| !target.address().is_some_and(rests);
                let (fresh, resting): (Vec<_>, Vec<_>) = targets.into_iter().partition(is_fresh);
                self.fresh = fresh;
                self.resting.extend(resting);
            } else if !self.resting.is_empty() {
                self.fresh = std::mem::take(&mut self.resting);
            } else {
                break;
            }
        }
        Err(self.verdict())
    }

    /// A connection was of no use.
    pub(super) fn failed(&mut self, target: &Target, failure: Failure) {
        self.station.failed(target, clock::monotonic());
        self.failure = Some(failure);
    }

    /// A connection was of no use, but another to the same address may be.
    pub(super) fn again(&mut self, target: Target) {
        self.tried -= 1;
        self.fresh.insert(0, target);
    }

    /// True when there are hosts that are not tried yet.
    pub(super) fn has_more(&self) -> bool {
        let is_empty = self.fresh.is_empty() && self.resting.is_empty() && self.hops.len() == 0;
        self.tried < ADDRESSES_MAX && !is_empty
    }

    /// The hosts that these are of are of no use for what is to be sent. The last one
    /// took a connection, which is none in vain: however many are passed over, the next
    /// one is tried.
    pub(super) fn pass_over(&mut self, targets: &[Target]) {
        self.tried = self.tried.saturating_sub(1);
        let is_left = |host: &HostPort| targets.iter().all(|target| target.host != *host);
        let hops: Vec<Hop> = self.hops.by_ref().filter(|hop| is_left(&hop.written())).collect();
        self.hops = hops.into_iter();
        self.fresh.retain(|target| is_left(&target.host));
        self.resting.retain(|target| is_left(&target.host));
    }

    fn verdict(&mut self) -> Unreachable {
        if let Some(failure) = self.failure.take() {
            return Unreachable::Now(failure);
        }
        // A better host that was not found may be there another time.
        let is_certain = self.facts.iter().all(|(_, fact)| !matches!(fact, Fact::Trouble(_)));
        let own = self.facts.iter().find(|(_, fact)| matches!(fact, Fact::Own));
        if let Some((host, _)) = own.filter(|_| is_certain) {
            let text = format!("Mail for {host} loops back to this server");
            return Unreachable::Ever(Reply::new(554, EnhancedCode(5, 4, 6), text));
        }
        let hosts = self.facts.iter().map(|(host, fact)| {
            let why = match fact {
                Fact::NoSuchHost => NoAddress::NoSuchHost,
                Fact::NoRecords | Fact::Own => NoAddress::NoRecords,
                Fact::Refused(what) => NoAddress::Refused(what),
                Fact::Trouble(why) => NoAddress::Trouble(why),
            };
            (&**host, why)
        });
        match mx::no_target(&self.station.site().in_short(), hosts) {
            Verdict::Fail(reply) => Unreachable::Ever(reply),
            Verdict::Defer(reply) => Unreachable::Now(Failure::ours(reply)),
            Verdict::Hops(_) => unreachable!("there was no host to be tried"),
        }
    }

    /// The addresses of a host, in the order to be tried: both families in turn.
    async fn targets(&mut self, hop: &Hop) -> Vec<Target> {
        let (addresses, name, missing) = match &hop.host {
            Host::Address(address) => (vec![*address], None, None),
            Host::Socket(path) => {
                let (place, name) = (Place::Socket(path.clone()), None);
                let host = hop.written();
                return vec![Target { place, name, way: hop.way, host, rank: hop.rank }];
            }
            Host::Name(name) => {
                let lookup = self.core.directory.resolver().addresses(name).await;
                match lookup.result {
                    Ok(addresses) => (addresses, Some(name.clone()), lookup.missing),
                    Err(failure) => {
                        let fact = match failure {
                            DnsFailure::NoSuchDomain => Fact::NoSuchHost,
                            DnsFailure::NoData => Fact::NoRecords,
                            DnsFailure::Trouble(why) => Fact::Trouble(why),
                        };
                        self.facts.push((name.clone(), fact));
                        return Vec::new();
                    }
                }
            }
        };
        let allow_private = self.is_static || self.core.config().delivery.allow_private_targets;
        let mut usable = Vec::with_capacity(addresses.len());
        for address in addresses {
            match mx::target(address, allow_private) {
                Ok(()) => usable.push(address),
                Err(why) => {
                    let host = name.clone().unwrap_or_else(|| address.to_string().into());
                    self.facts.push((host, Fact::Refused(why)));
                }
            }
        }
        // The family that is not known may have one that can be used.
        if let (Some(why), Some(name), true) = (missing, &name, usable.is_empty()) {
            self.facts.push((name.clone(), Fact::Trouble(why)));
        }
        self.core.shuffle(&mut usable);
        let in_turn = interleave(usable);
        in_turn
            .into_iter()
            .map(|address| Target {
                place: Place::Inet(SocketAddr::new(address, hop.port)),
                name: name.clone(),
                way: hop.way,
                host: hop.written(),
                rank: hop.rank,
            })
            .collect()
    }

    /// Connects to the first of the fresh addresses that takes a connection. The
    /// others stay, for when it turns out to be of no use.
    async fn connect(&mut self) -> Option<(Stream, Target)> {
        let limit = self.core.config().delivery.connect_timeout;
        let (say, hear) = async_channel::unbounded();
        let mut tasks = Vec::new();
        let mut waiting = std::mem::take(&mut self.fresh).into_iter().peekable();
        let mut trying: Vec<Target> = Vec::new();
        loop {
            if let Some(target) = waiting.next_if(|_| self.tried < ADDRESSES_MAX) {
                self.tried += 1;
                trying.push(target.clone());
                let say = say.clone();
                tasks.push(spawn(async move {
                    let connected = target.connect(limit).await;
                    let _ = say.try_send((connected, target));
                }));
            }
            if trying.is_empty() {
                return None;
            }
            let answer = async { hear.recv().await.expect("this holds a sender") };
            let heard = if waiting.peek().is_some() && self.tried < ADDRESSES_MAX {
                within(HEAD_START, answer).await
            } else {
                Some(answer.await)
            };
            let Some((connected, target)) = heard else { continue };
            trying.retain(|other| *other != target);
            match connected {
                Ok(stream) => match self.own_mail(&stream, &target) {
                    None => {
                        // Those that were overtaken have not been tried.
                        self.tried -= trying.len();
                        self.fresh = trying.into_iter().chain(waiting).collect();
                        return Some((stream, target));
                    }
                    Some(host) => {
                        self.facts.push((host, Fact::Own));
                        self.keep_better_than(target.rank);
                        return None;
                    }
                },
                Err(error) => {
                    self.core.counters.borrow_mut().outbound_connect_failures += 1;
                    let text = format!("connect to {}: {error}", target.label());
                    let reply = trouble(EnhancedCode(4, 4, 1), text);
                    self.failed(&target, Failure::ours(reply));
                }
            }
        }
    }

    /// This server is a host of `rank`: those of that rank and after would send
    /// their mail back to it (RFC 5321, section 5.1).
    fn keep_better_than(&mut self, rank: u16) {
        let better: Vec<Hop> = self.hops.by_ref().filter(|hop| hop.rank < rank).collect();
        self.hops = better.into_iter();
        self.fresh.retain(|target| target.rank < rank);
        self.resting.retain(|target| target.rank < rank);
    }

    /// The host of a connection to ourselves, by way of a mail exchanger that is
    /// this server: its mail would go round in circles.
    fn own_mail(&self, stream: &Stream, target: &Target) -> Option<Box<str>> {
        let address = target.address().filter(|_| !self.is_static)?;
        let local = stream.local_addr().ok()?.ip();
        let config = self.core.config();
        let mut listeners = config.listeners.iter().flat_map(|listener| &listener.addresses);
        let is_ours = listeners.any(|own| {
            own.port() == address.port()
                && (own.ip() == address.ip()
                    || (own.ip().is_unspecified() && local == address.ip()))
        });
        let host = target.name.clone().unwrap_or_else(|| address.ip().to_string().into());
        is_ours.then_some(host)
    }
}

/// Addresses of both families in turn, in the order of each; the first family
/// is that of the first address.
fn interleave(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let begins_with_v6 = addresses.first().is_some_and(|first| first.is_ipv6());
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == begins_with_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut order = Vec::new();
    loop {
        match (first.next(), second.next()) {
            (None, None) => return order,
            pair => order.extend([pair.0, pair.1].into_iter().flatten()),
        }
    }
}

/// Waits until a time that may have passed.
pub(super) async fn sleep_until(at: Instant) {
    let left = at.saturating_duration_since(clock::monotonic());
    if !left.is_zero() {
        sleep(left).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
        let mixed = ["::1", "::2", "1.1.1.1", "::3", "2.2.2.2"].map(parse).to_vec();
        let order = ["::1", "1.1.1.1", "::2", "2.2.2.2", "::3"].map(parse);
        assert_eq!(interleave(mixed), order);
        let one = ["1.1.1.1", "2.2.2.2"].map(parse);
        assert_eq!(interleave(one.to_vec()), one);
        assert!(interleave(Vec::new()).is_empty());
    }

    #[test]
    fn hosts_are_named_as_in_other_logs() {
        let address: SocketAddr = "192.0.2.1:25".parse().unwrap();
        let (place, way, host) = (Place::Inet(address), Way::Smtp, HostPort::from(address));
        let mut target = Target { place, name: None, way, host: host.clone(), rank: 0 };
        assert_eq!(target.label(), "192.0.2.1:25");
        assert_eq!(target.certified_name(), "192.0.2.1");
        target.name = Some("mx.example.org".into());
        assert_eq!(target.label(), "mx.example.org[192.0.2.1]:25");
        assert_eq!(target.certified_name(), "mx.example.org");
        let place = Place::Socket("/run/lmtp".into());
        let socket = Target { place, name: None, way: Way::Lmtp, host, rank: 0 };
        assert_eq!(socket.label(), "/run/lmtp");
    }
}
