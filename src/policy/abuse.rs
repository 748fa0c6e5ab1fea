//! How much of the server one client may use: rates by client and by user, and
//! the pace below which a body is not worth waiting for.
//!
//! Called by `receive` at each connection and each MAIL where a rate is
//! configured, and between the reads of a body. Pure: time is an argument.
//!
//! Security: who is counted is a stranger, so what is remembered is bounded
//! ([`KEYS_MAX`]). When more clients come than that, those are forgotten first
//! that have nearly nothing left to be remembered for.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::config::Rate;

/// Most clients or users that a table of rates remembers.
pub const KEYS_MAX: usize = 65_536;
/// How often a full table is looked through for those that need no memory.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Of how many one is forgotten when the table is full of those that do.
const FORGET_AMONG: usize = 8;

/// The address, or for IPv6 the /64, that limits count by: the smallest block
/// that one customer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey(IpAddr);

impl From<IpAddr> for ClientKey {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => {
                let net = u128::from(v6) & (u128::MAX << 64);
                ClientKey(IpAddr::V6(Ipv6Addr::from(net)))
            }
            v4 => ClientKey(v4),
        }
    }
}

/// What many clients or users have taken of a rate: each may take `count` at
/// once, and gets them back evenly over the time of the rate.
#[derive(Debug)]
pub struct Rates<K> {
    /// When each will have got everything back.
    full_at: HashMap<K, Instant>,
    swept: Option<Instant>,
}

impl<K> Default for Rates<K> {
    fn default() -> Self {
        Rates { full_at: HashMap::new(), swept: None }
    }
}

impl<K: Hash + Eq + Clone> Rates<K> {
    /// Takes one for `key`.
    ///
    /// # Errors
    /// Nothing is left; in so long there is.
    pub fn take<Q>(&mut self, key: &Q, rate: Rate, now: Instant) -> Result<(), Duration>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let interval = rate.interval();
        let whole = interval * rate.count.max(1);
        match self.full_at.get_mut(key) {
            Some(full_at) => {
                let after = (*full_at).max(now) + interval;
                match (after - now).checked_sub(whole).filter(|wait| !wait.is_zero()) {
                    Some(wait) => Err(wait),
                    None => {
                        *full_at = after;
                        Ok(())
                    }
                }
            }
            None => {
                self.make_room(now);
                self.full_at.insert(key.to_owned(), now + interval);
                Ok(())
            }
        }
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.full_at.len()
    }

    /// True when nobody is remembered.
    pub fn is_empty(&self) -> bool {
        self.full_at.is_empty()
    }

    fn make_room(&mut self, now: Instant) {
        if self.full_at.len() < KEYS_MAX {
            return;
        }
        if self.swept.is_none_or(|swept| now.duration_since(swept) >= SWEEP_EVERY) {
            self.swept = Some(now);
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        if self.full_at.len() >= KEYS_MAX {
            let some = self.full_at.iter().take(FORGET_AMONG);
            let nearest = some.min_by_key(|(_, full_at)| **full_at).map(|(key, _)| key.clone());
            nearest.and_then(|key| self.full_at.remove(&key));
        }
    }
}

/// How fast the body of one message comes, by the time spent waiting for it:
/// what the server itself takes does not count.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// How long a body may come at any pace.
    pub const GRACE: Duration = Duration::from_secs(60);

    /// `bytes` have come after a wait.
    pub fn came(&mut self, bytes: usize, waited: Duration) {
        self.bytes += bytes as u64;
        self.waited += waited;
    }

    /// How long the next bytes may take to come when the whole has to come at
    /// `rate` bytes a second, `grace` given: zero if it is too slow already,
    /// `None` if there is no such rate.
    pub fn patience(&self, rate: u64, grace: Duration) -> Option<Duration> {
        let worth_ms = self.bytes.saturating_mul(1000).checked_div(rate)?;
        Some((grace + Duration::from_millis(worth_ms)).saturating_sub(self.waited))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Per;

    const RATE: Rate = Rate { count: 3, per: Per::Minute };

    fn key(text: &str) -> ClientKey {
        ClientKey::from(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn clients_are_counted_by_address_and_by_64() {
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:0:0:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
    }

    #[test]
    fn a_rate_gives_its_count_at_once_and_the_rest_evenly() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut rates = Rates::default();
        let (one, other) = (key("192.0.2.1"), key("192.0.2.2"));
        for _ in 0..3 {
            assert_eq!(rates.take(&one, RATE, start), Ok(()));
        }
        assert_eq!(rates.take(&one, RATE, start), Err(Duration::from_secs(20)));
        assert_eq!(rates.take(&other, RATE, start), Ok(()), "each has its own");
        assert_eq!(rates.take(&one, RATE, at(19)), Err(Duration::from_secs(1)));
        assert_eq!(rates.take(&one, RATE, at(20)), Ok(()));
        assert_eq!(rates.take(&one, RATE, at(20)), Err(Duration::from_secs(20)));
        for _ in 0..3 {
            assert_eq!(rates.take(&one, RATE, at(1000)), Ok(()), "it does not grow past its count");
        }
        assert!(rates.take(&one, RATE, at(1000)).is_err());
    }

    #[test]
    fn who_asks_again_and_again_is_not_put_off_for_longer() {
        let start = Instant::now();
        let mut rates: Rates<String> = Rates::default();
        let hourly = Rate { count: 1, per: Per::Hour };
        assert_eq!(rates.take("user", hourly, start), Ok(()));
        for minute in 1..60 {
            let now = start + Duration::from_secs(60 * minute);
            let left = Duration::from_secs(60 * (60 - minute));
            assert_eq!(rates.take("user", hourly, now), Err(left));
        }
        assert_eq!(rates.take("user", hourly, start + Duration::from_secs(3600)), Ok(()));
    }

    #[test]
    fn memory_is_bounded_and_the_busy_are_remembered() {
        let start = Instant::now();
        let mut rates: Rates<u32> = Rates::default();
        let busy = 0;
        for _ in 0..3 {
            rates.take(&busy, RATE, start).unwrap();
        }
        for stranger in 1..=2 * KEYS_MAX as u32 {
            rates.take(&stranger, RATE, start).unwrap();
        }
        assert_eq!(rates.len(), KEYS_MAX);
        assert!(rates.take(&busy, RATE, start).is_err(), "forgotten before those who took less");
        let later = start + Duration::from_secs(120);
        rates.take(&u32::MAX, RATE, later).unwrap();
        assert_eq!(rates.len(), 1, "who has everything back is not remembered");
    }

    #[test]
    fn a_body_has_its_grace_and_then_its_pace() {
        let (second, grace) = (Duration::from_secs(1), Duration::from_secs(10));
        let mut pace = Pace::default();
        assert_eq!(pace.patience(100, grace), Some(grace));
        assert_eq!(pace.patience(0, grace), None);
        pace.came(500, 12 * second);
        assert_eq!(pace.patience(100, grace), Some(3 * second), "what came is worth 5 s");
        pace.came(1, 3 * second);
        assert_eq!(pace.patience(100, grace), Some(Duration::from_millis(10)));
        pace.came(1, second);
        assert_eq!(pace.patience(100, grace), Some(Duration::ZERO));
        pace.came(1 << 40, second);
        assert!(pace.patience(100, grace).unwrap() > 1000 * grace);
        assert!(Pace { bytes: u64::MAX, ..pace }.patience(1, grace).is_some());
    }
}
