//! How long what failed is left alone: whole sites (`governor`), and single
//! hosts while others of the site are left ([`HostTrouble`]). Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Most hosts that a [`HostTrouble`] remembers.
pub const HOSTS_MAX: usize = 256;
/// Time after the end of a wait in which a further failure lengthens the next.
const MEMORY: Duration = Duration::from_secs(600);
/// How long mail for a host that offers BDAT, and does not know it or failed at it, goes
/// without: past the first retries of a message that came to harm by it.
pub const CHUNKS_FORGONE: Duration = Duration::from_secs(3600);

/// The wait after so many failures in a row (the first is 1): ten seconds,
/// doubled each time, five minutes at most.
pub fn back_off(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(5);
    Duration::from_secs(10 << doublings).min(Duration::from_secs(300))
}

/// Addresses that could not be connected to, or hung up, a short time ago. They
/// are passed over while a site has others.
#[derive(Debug, Default)]
pub struct HostTrouble {
    hosts: BTreeMap<SocketAddr, Trouble>,
}

#[derive(Clone, Copy, Debug)]
struct Trouble {
    failures: u32,
    until: Instant,
}

impl HostTrouble {
    /// `host` failed. Where there are too many, the one is forgotten whose wait
    /// ends first.
    pub fn failed(&mut self, host: SocketAddr, now: Instant) {
        let known = self.hosts.get(&host).filter(|known| now < known.until + MEMORY);
        let failures = known.map_or(1, |known| known.failures.saturating_add(1));
        self.remember(host, Trouble { failures, until: now + back_off(failures) });
    }

    /// `host` failed, and is to be passed over for `span`.
    pub fn failed_for(&mut self, host: SocketAddr, span: Duration, now: Instant) {
        self.remember(host, Trouble { failures: 1, until: now + span });
    }

    fn remember(&mut self, host: SocketAddr, trouble: Trouble) {
        if self.hosts.len() >= HOSTS_MAX && !self.hosts.contains_key(&host) {
            let first = self.hosts.iter().min_by_key(|(_, trouble)| trouble.until);
            if let Some(first) = first.map(|(host, _)| *host) {
                self.hosts.remove(&first);
            }
        }
        self.hosts.insert(host, trouble);
    }

    /// `host` works.
    pub fn worked(&mut self, host: SocketAddr) {
        self.hosts.remove(&host);
    }

    /// Until when `host` is passed over, if it is.
    pub fn until(&self, host: SocketAddr, now: Instant) -> Option<Instant> {
        self.hosts.get(&host).map(|trouble| trouble.until).filter(|until| now < *until)
    }

    /// Takes out of `hosts` those to be passed over, unless that are all.
    pub fn pass_over(&self, hosts: &mut Vec<SocketAddr>, now: Instant) {
        if hosts.iter().any(|host| self.until(*host, now).is_none()) {
            hosts.retain(|host| self.until(*host, now).is_none());
        }
    }

    /// How many hosts are remembered.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// True when none is.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], number))
    }

    #[test]
    fn back_off_grows_to_five_minutes() {
        let seconds: Vec<u64> = (0..8).map(|n| back_off(n).as_secs()).collect();
        assert_eq!(seconds, [10, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(back_off(u32::MAX).as_secs(), 300);
    }

    #[test]
    fn hosts_in_trouble_are_passed_over_while_others_are_left() {
        let start = Instant::now();
        let mut trouble = HostTrouble::default();
        let passed_over = |trouble: &HostTrouble, now| {
            let mut hosts = vec![host(1), host(2)];
            trouble.pass_over(&mut hosts, now);
            hosts
        };
        assert_eq!(passed_over(&trouble, start), [host(1), host(2)]);
        trouble.failed(host(1), start);
        assert_eq!(passed_over(&trouble, start), [host(2)]);
        let after = trouble.until(host(1), start).unwrap();
        assert_eq!(after, start + back_off(1));
        assert_eq!(passed_over(&trouble, after), [host(1), host(2)], "it may have come back");
        trouble.failed(host(1), after);
        assert_eq!(trouble.until(host(1), after), Some(after + back_off(2)), "longer each time");
        trouble.failed(host(2), after);
        assert_eq!(passed_over(&trouble, after), [host(1), host(2)], "none is left");
        trouble.worked(host(1));
        assert_eq!(passed_over(&trouble, after), [host(1)]);
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let start = Instant::now();
        let mut trouble = HostTrouble::default();
        for _ in 0..4 {
            trouble.failed(host(1), start);
        }
        let later = start + back_off(4) + MEMORY;
        trouble.failed(host(1), later);
        assert_eq!(trouble.until(host(1), later), Some(later + back_off(1)));
    }

    #[test]
    fn memory_is_bounded_and_keeps_the_worst() {
        let start = Instant::now();
        let mut trouble = HostTrouble::default();
        assert!(trouble.is_empty());
        for _ in 0..3 {
            trouble.failed(host(0), start);
        }
        for number in 1..2000 {
            trouble.failed(host(number), start + Duration::from_millis(u64::from(number)));
            assert!(trouble.len() <= HOSTS_MAX);
        }
        assert_eq!(trouble.len(), HOSTS_MAX);
        assert!(
            trouble.until(host(0), start).is_some() && trouble.until(host(1999), start).is_some()
        );
        assert_eq!(trouble.until(host(1), start), None);
    }
}
