//! Where mail for a domain goes, and which shard takes it there. Pure: built
//! from the configuration, asked by `relay` for every recipient.
//!
//! A *site* is a list of next hops in order of preference. Its connections are
//! limited over all cores (`delivery.connections_per_site`), so each site is
//! split into *lanes*, one on a core, each with its share of the limit. Where
//! there is a lane for every core, mail leaves on the core that accepted it;
//! where the limit is smaller than the number of cores, several cores hand
//! their mail to one lane.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::{DomainPattern, NextHop, Route};

/// A destination: next hops in order of preference.
#[derive(Debug, PartialEq, Eq)]
pub struct Site {
    /// The hosts; at least one.
    pub hosts: Box<[SocketAddr]>,
    /// Spreads sites over cores; the same in every process.
    pub hash: u32,
}

impl Site {
    /// The site of these hosts.
    pub fn new(hosts: &[SocketAddr]) -> Self {
        assert!(!hosts.is_empty(), "a site has a host");
        let mut site = Site { hosts: hosts.into(), hash: 0 };
        site.hash = crate::base::checksum::crc32c(0, site.to_string().as_bytes());
        site
    }
}

impl Hash for Site {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.hash);
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, host) in self.hosts.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{host}")?;
        }
        Ok(())
    }
}

/// What the routes say about a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination<'a> {
    /// Relay there.
    Site(&'a Arc<Site>),
    /// Throw away.
    Discard,
    /// Refuse for good.
    Reject,
    /// No route matches.
    Unrouted,
}

/// The routes, compiled: routes with the same next hops share a site.
#[derive(Debug)]
pub struct Routes {
    rules: Vec<(DomainPattern, Rule)>,
    hostname: String,
}

#[derive(Debug)]
enum Rule {
    Site(Arc<Site>),
    Discard,
    Reject,
}

impl Routes {
    /// Compiles `routes`; `hostname` stands in for the domain of an address
    /// that has none (`postmaster`).
    pub fn new(routes: &[Route], hostname: &str) -> Self {
        let mut sites: Vec<Arc<Site>> = Vec::new();
        let mut site = |hosts: &[SocketAddr]| {
            if let Some(known) = sites.iter().find(|site| *site.hosts == *hosts) {
                return Arc::clone(known);
            }
            sites.push(Arc::new(Site::new(hosts)));
            Arc::clone(&sites[sites.len() - 1])
        };
        let rules = routes.iter().map(|route| {
            let rule = match &route.next_hop {
                NextHop::Hosts(hosts) => Rule::Site(site(hosts)),
                NextHop::Discard => Rule::Discard,
                NextHop::Reject => Rule::Reject,
            };
            (route.domain.clone(), rule)
        });
        Routes { rules: rules.collect(), hostname: hostname.into() }
    }

    /// The first rule that matches `domain`.
    pub fn domain(&self, domain: &str) -> Destination<'_> {
        match self.rules.iter().find(|(pattern, _)| pattern.matches(domain)) {
            Some((_, Rule::Site(site))) => Destination::Site(site),
            Some((_, Rule::Discard)) => Destination::Discard,
            Some((_, Rule::Reject)) => Destination::Reject,
            None => Destination::Unrouted,
        }
    }

    /// True when some rule leads to `site`.
    pub fn leads_to(&self, site: &Site) -> bool {
        self.rules.iter().any(|(_, rule)| matches!(rule, Rule::Site(known) if **known == *site))
    }

    /// The first rule that matches the domain of `address`.
    pub fn address(&self, address: &str) -> Destination<'_> {
        match memchr::memrchr(b'@', address.as_bytes()) {
            Some(at) => self.domain(&address[at + 1..]),
            None => self.domain(&self.hostname),
        }
    }
}

/// How the lanes of sites lie on the cores of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lanes {
    /// Shards of the server.
    pub shards: u16,
    /// Most connections to a site, over all cores.
    pub connections: u32,
}

impl Lanes {
    /// Lanes of a site: one for each shard, as far as connections go.
    pub fn count(self) -> u16 {
        u32::from(self.shards).min(self.connections).max(1) as u16
    }

    /// The shard that delivers to a site what shard `origin` has for it.
    pub fn shard(self, site: &Site, origin: u16) -> u16 {
        let lanes = self.count();
        if lanes == self.shards {
            return origin;
        }
        self.at(site, u32::from(origin % lanes))
    }

    /// Connections that shard `shard` may have to a site.
    pub fn share(self, site: &Site, shard: u16) -> u32 {
        let lanes = u32::from(self.count());
        // The same rotation as `at`, backwards, so that the odd connections of
        // many sites do not all fall to the first shards.
        let shards = u32::from(self.shards);
        let lane = (u32::from(shard) + shards - site.hash % shards) % shards;
        if lane >= lanes {
            return 0;
        }
        self.connections / lanes + u32::from(lane < self.connections % lanes)
    }

    fn at(self, site: &Site, lane: u32) -> u16 {
        ((site.hash % u32::from(self.shards) + lane) % u32::from(self.shards)) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Tls;

    fn route(domain: &str, next_hop: NextHop) -> Route {
        Route { domain: domain.parse().unwrap(), next_hop, tls: Tls::Off }
    }

    fn hosts(ports: &[u16]) -> Vec<SocketAddr> {
        ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect()
    }

    #[test]
    fn the_first_match_wins_and_sites_are_shared() {
        let routes = Routes::new(
            &[
                route("a.org", NextHop::Hosts(hosts(&[1, 2]))),
                route("*.a.org", NextHop::Hosts(hosts(&[1, 2]))),
                route("b.org", NextHop::Discard),
                route("*.b.org", NextHop::Reject),
                route("relay.example", NextHop::Hosts(hosts(&[3]))),
            ],
            "relay.example",
        );
        let Destination::Site(first) = routes.address("x@A.org") else { panic!("no site") };
        let Destination::Site(second) = routes.address("\"@b.org\"@x.a.org") else {
            panic!("no site")
        };
        assert!(Arc::ptr_eq(first, second));
        assert_eq!(first.to_string(), "127.0.0.1:1,127.0.0.1:2");
        assert_eq!(routes.address("x@b.org"), Destination::Discard);
        assert_eq!(routes.address("x@y.b.org"), Destination::Reject);
        assert_eq!(routes.address("x@[192.0.2.1]"), Destination::Unrouted);
        let Destination::Site(own) = routes.address("Postmaster") else { panic!("no site") };
        assert_eq!(own.to_string(), "127.0.0.1:3");
    }

    #[test]
    fn shares_add_up_and_every_origin_has_a_lane() {
        for shards in 1..=9 {
            for connections in [1, 2, 3, 7, 8, 9, 20, 64] {
                for port in 1..20 {
                    let lanes = Lanes { shards, connections };
                    let site = Site::new(&hosts(&[port]));
                    let sum: u32 = (0..shards).map(|shard| lanes.share(&site, shard)).sum();
                    assert_eq!(sum, connections, "{lanes:?}");
                    for origin in 0..shards {
                        let lane = lanes.shard(&site, origin);
                        assert!(lane < shards && lanes.share(&site, lane) > 0, "{lanes:?}");
                        assert!(connections < u32::from(shards) || lane == origin);
                    }
                }
            }
        }
    }
}
