//! Which server is asked next. Servers that fail again and again are left alone
//! for a while, at most a minute, then one query tries them. With nobody better
//! left a bad server is asked all the same. Pure: time is an argument.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Servers that are used; more in a file are passed over.
pub(super) const SERVERS_MAX: usize = 8;
/// Weight of failures in a row, without a good answer between, at which a server
/// is left alone.
const WEIGHT_MAX: u32 = 12;
/// How long a bad server is left alone at first, and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long a server that lost something (the case of names, EDNS) is spared it.
const LENIENCE: Duration = Duration::from_secs(600);

/// How a query went for the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// It answered.
    Good,
    /// It answered that it could not or would not: this one domain may be to blame.
    Failed,
    /// No answer in time, or none with sense: a packet may have been lost.
    Silent,
    /// Nobody is there.
    Absent,
}

impl Health {
    fn weight(self) -> u32 {
        match self {
            Health::Good => 0,
            Health::Failed => 1,
            Health::Silent => 4,
            Health::Absent => WEIGHT_MAX,
        }
    }
}

/// A server as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFigures {
    /// Its address.
    pub address: SocketAddr,
    /// Queries sent to it.
    pub queries: u64,
    /// Of those, the ones that were not answered or answered with a failure.
    pub failures: u64,
    /// Whether it is left alone at the moment.
    pub is_backing_off: bool,
}

/// A server that was chosen, and how to ask it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) address: SocketAddr,
    /// It does not keep the case of names.
    pub(super) is_plain: bool,
    /// It understands EDNS, or has not shown that it does not.
    pub(super) has_edns: bool,
}

/// The servers, in their order.
pub(super) struct Servers {
    list: Vec<Server>,
    /// Whether each look-up begins with the next one.
    rotates: bool,
    first: usize,
}

struct Server {
    address: SocketAddr,
    queries: u64,
    failures: u64,
    weight: u32,
    back_off: Duration,
    off_until: Option<Instant>,
    is_on_trial: bool,
    plain_until: Option<Instant>,
    edns_off_until: Option<Instant>,
}

impl Server {
    fn new(address: SocketAddr) -> Self {
        Server {
            address,
            queries: 0,
            failures: 0,
            weight: 0,
            back_off: BACK_OFF.0,
            off_until: None,
            is_on_trial: false,
            plain_until: None,
            edns_off_until: None,
        }
    }

    fn is_off(&self, now: Instant) -> bool {
        self.off_until.is_some_and(|until| until > now)
    }
}

impl Servers {
    pub(super) fn new(addresses: &[SocketAddr], rotates: bool) -> Self {
        let mut servers = Servers { list: Vec::new(), rotates, first: 0 };
        servers.replace(addresses, rotates);
        servers
    }

    /// Takes over another list; what is known of servers that stay is kept.
    /// Returns whether any came or went.
    pub(super) fn replace(&mut self, addresses: &[SocketAddr], rotates: bool) -> bool {
        let mut old = std::mem::take(&mut self.list);
        let count = old.len();
        for address in addresses.iter().take(SERVERS_MAX) {
            if self.list.iter().all(|server| server.address != *address) {
                let known = old.iter().position(|server| server.address == *address);
                let server = known.map(|index| old.swap_remove(index));
                self.list.push(server.unwrap_or_else(|| Server::new(*address)));
            }
        }
        (self.rotates, self.first) = (rotates, 0);
        !old.is_empty() || count != self.list.len()
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// A new look-up begins: where it begins in the list.
    pub(super) fn begin(&mut self) -> usize {
        let first = self.first;
        if self.rotates && !self.list.is_empty() {
            self.first = (first + 1) % self.list.len();
        }
        first
    }

    /// The server to ask next in a look-up that began at `first` and has asked
    /// those in `tried`; none of those in `out`. Those that are left alone come
    /// after the others, unless these were tried more often.
    pub(super) fn choose(
        &mut self,
        first: usize,
        tried: &[SocketAddr],
        out: &[SocketAddr],
        now: Instant,
    ) -> Option<Choice> {
        let count = self.list.len();
        let rank = |index: &usize| {
            let server = &self.list[*index];
            let tries = tried.iter().filter(|address| **address == server.address).count();
            let off_until = server.off_until.filter(|until| *until > now);
            let place = (index + count - first % count) % count;
            (tries + usize::from(off_until.is_some()), off_until, place)
        };
        let index = (0..count)
            .filter(|index| !out.contains(&self.list[*index].address))
            .min_by_key(rank)?;
        let server = &mut self.list[index];
        if server.off_until.is_some() && !server.is_off(now) {
            // Its time is over: this query tries it, others wait for the result.
            server.is_on_trial = true;
            server.off_until = Some(now + server.back_off);
        }
        server.queries += 1;
        let is_within = |until: Option<Instant>| until.is_some_and(|until| until > now);
        Some(Choice {
            address: server.address,
            is_plain: is_within(server.plain_until),
            has_edns: !is_within(server.edns_off_until),
        })
    }

    /// How a query to a server went.
    pub(super) fn report(&mut self, address: SocketAddr, health: Health, now: Instant) {
        let Some(server) = self.server(address) else { return };
        if health == Health::Good {
            (server.weight, server.back_off) = (0, BACK_OFF.0);
            (server.off_until, server.is_on_trial) = (None, false);
            return;
        }
        server.failures += 1;
        server.weight = (server.weight + health.weight()).min(WEIGHT_MAX);
        if server.weight < WEIGHT_MAX {
            return;
        }
        // Queries that were under way when it was found bad say nothing new.
        if server.is_on_trial {
            server.back_off = (server.back_off * 2).min(BACK_OFF.1);
        } else if server.is_off(now) {
            return;
        }
        server.is_on_trial = false;
        server.off_until = Some(now + server.back_off);
    }

    /// It was seen not to keep the case of names.
    pub(super) fn loses_case(&mut self, address: SocketAddr, now: Instant) {
        if let Some(server) = self.server(address) {
            server.plain_until = Some(now + LENIENCE);
        }
    }

    /// It was seen to understand queries only without EDNS.
    pub(super) fn lacks_edns(&mut self, address: SocketAddr, now: Instant) {
        if let Some(server) = self.server(address) {
            server.edns_off_until = Some(now + LENIENCE);
        }
    }

    pub(super) fn figures(&self, now: Instant) -> Vec<ServerFigures> {
        let figures = |server: &Server| ServerFigures {
            address: server.address,
            queries: server.queries,
            failures: server.failures,
            is_backing_off: server.is_off(now),
        };
        self.list.iter().map(figures).collect()
    }

    fn server(&mut self, address: SocketAddr) -> Option<&mut Server> {
        self.list.iter_mut().find(|server| server.address == address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(count: u8, rotates: bool) -> (Servers, Vec<SocketAddr>) {
        let addresses: Vec<_> =
            (0..count).map(|i| SocketAddr::from(([192, 0, 2, i], 53))).collect();
        (Servers::new(&addresses, rotates), addresses)
    }

    fn next(servers: &mut Servers, now: Instant) -> SocketAddr {
        let first = servers.begin();
        servers.choose(first, &[], &[], now).unwrap().address
    }

    #[test]
    fn the_first_is_asked_first_unless_they_rotate() {
        let now = Instant::now();
        let (mut fixed, a) = servers(3, false);
        let (mut turning, _) = servers(3, true);
        let order = |servers: &mut Servers| [(); 4].map(|()| next(servers, now));
        assert_eq!(order(&mut fixed), [a[0]; 4]);
        assert_eq!(order(&mut turning), [a[0], a[1], a[2], a[0]]);
    }

    #[test]
    fn one_lookup_asks_one_after_the_other_and_none_twice_that_is_out() {
        let now = Instant::now();
        let (mut servers, a) = servers(3, false);
        let mut tried = vec![];
        for _ in 0..6 {
            tried.push(servers.choose(1, &tried, &[], now).unwrap().address);
        }
        assert_eq!(tried, [a[1], a[2], a[0], a[1], a[2], a[0]]);
        assert_eq!(servers.choose(0, &[], &a[..2], now).unwrap().address, a[2]);
        assert_eq!(servers.choose(0, &[], &a, now), None);
        assert_eq!(Servers::new(&[], true).choose(0, &[], &[], now), None);
    }

    #[test]
    fn a_bad_server_is_left_alone_then_tried_by_one() {
        let mut now = Instant::now();
        let (mut servers, a) = servers(2, false);
        servers.report(a[0], Health::Silent, now);
        servers.report(a[0], Health::Silent, now);
        assert_eq!(next(&mut servers, now), a[0]);
        // A hundred that were under way count as one.
        (0..100).for_each(|_| servers.report(a[0], Health::Silent, now));
        let mut expected = BACK_OFF.0;
        for _ in 0..10 {
            assert_eq!(next(&mut servers, now + expected - Duration::from_millis(1)), a[1]);
            assert!(servers.figures(now)[0].is_backing_off);
            now += expected;
            assert_eq!(next(&mut servers, now), a[0], "tried");
            assert_eq!(next(&mut servers, now), a[1], "by one only");
            servers.report(a[0], Health::Silent, now);
            expected = (expected * 2).min(BACK_OFF.1);
        }
        now += expected;
        assert_eq!(next(&mut servers, now), a[0]);
        servers.report(a[0], Health::Good, now);
        assert_eq!([(); 3].map(|()| next(&mut servers, now)), [a[0]; 3]);
    }

    #[test]
    fn a_good_answer_outweighs_failures_and_an_absent_server_is_known_at_once() {
        let now = Instant::now();
        let (mut servers, a) = servers(2, false);
        for _ in 0..100 {
            (1..WEIGHT_MAX).for_each(|_| servers.report(a[0], Health::Failed, now));
            servers.report(a[0], Health::Good, now);
        }
        assert_eq!(next(&mut servers, now), a[0]);
        (0..WEIGHT_MAX).for_each(|_| servers.report(a[0], Health::Failed, now));
        assert_eq!(next(&mut servers, now), a[1]);
        servers.report(a[1], Health::Absent, now + Duration::from_millis(1));
        // Both are bad: the one that is due first, then the other.
        let first = servers.choose(0, &[], &[], now).unwrap().address;
        let second = servers.choose(0, &[first], &[], now).unwrap().address;
        assert_eq!([first, second], [a[0], a[1]]);
    }

    #[test]
    fn a_new_list_keeps_what_is_known_of_those_that_stay() {
        let now = Instant::now();
        let (mut servers, a) = servers(3, false);
        servers.report(a[1], Health::Absent, now);
        servers.loses_case(a[1], now);
        servers.lacks_edns(a[1], now);
        assert!(!servers.replace(&[a[2], a[1], a[0], a[1]], true));
        assert!(servers.replace(&[a[1], a[0]], false));
        assert_eq!(next(&mut servers, now), a[0]);
        let choice = servers.choose(0, &[], &a[..1], now).unwrap();
        assert_eq!(choice, Choice { address: a[1], is_plain: true, has_edns: false });
        let later = now + LENIENCE;
        let choice = servers.choose(0, &[], &a[..1], later).unwrap();
        assert_eq!(choice, Choice { address: a[1], is_plain: false, has_edns: true });
        let many: Vec<_> = (0..20).map(|i| SocketAddr::from(([192, 0, 2, i], 53))).collect();
        assert!(servers.replace(&many, false));
        assert_eq!(servers.len(), SERVERS_MAX);
        servers.report(many[19], Health::Absent, now);
    }
}
