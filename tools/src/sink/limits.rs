//! What the sink remembers of its clients and recipients, so that it can set
//! limits: open connections, rates, and who came back after being told to
//! (greylisting). One memory for all workers, behind a lock that is only taken
//! when a limit is set. Time is an argument.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::persona::Reason;

/// Entries of each kind that are remembered; past it those that say least go.
const ENTRIES_MAX: usize = 1 << 20;

/// The limits; `None` where there is none.
#[derive(Clone, Debug, Default)]
pub struct Bounds {
    /// Open connections.
    pub connections: Option<u32>,
    /// Open connections of one client.
    pub connections_per_client: Option<u32>,
    /// Messages a second of one client.
    pub rate_per_client: Option<f64>,
    /// Messages a second to one recipient.
    pub rate_per_recipient: Option<f64>,
    /// How long a client, sender and recipient that are new must wait.
    pub greylist: Option<Duration>,
}

impl Bounds {
    fn any(&self) -> bool {
        self.connections.is_some()
            || self.connections_per_client.is_some()
            || self.rate_per_client.is_some()
            || self.rate_per_recipient.is_some()
            || self.greylist.is_some()
    }
}

/// Tokens that come back at a fixed rate, up to what a second brings.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn fill(&mut self, rate: f64, now: Instant) {
        let span = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + span * rate).min(rate.max(1.0));
        self.filled = now;
    }
}

#[derive(Debug, Default)]
struct Memory {
    open: u32,
    open_by: HashMap<IpAddr, u32>,
    clients: HashMap<IpAddr, Bucket>,
    recipients: HashMap<u64, Bucket>,
    first_tries: HashMap<u64, Instant>,
}

/// The limits and what is remembered for them.
#[derive(Debug, Default)]
pub struct Limits {
    bounds: Bounds,
    memory: Mutex<Memory>,
}

impl Limits {
    /// With nothing remembered yet.
    pub fn new(bounds: Bounds) -> Self {
        Limits { bounds, memory: Mutex::default() }
    }

    /// True if any limit is set; if none is, the rest need not be called.
    pub fn are_set(&self) -> bool {
        self.bounds.any()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A connection of `client`, which counts until [`Limits::leave`], also
    /// when it is turned away.
    pub fn enter(&self, client: IpAddr) -> Option<Reason> {
        let mut memory = self.memory();
        memory.open += 1;
        let all = memory.open;
        let own = memory.open_by.entry(client).or_insert(0);
        *own += 1;
        if self.bounds.connections_per_client.is_some_and(|most| *own > most) {
            return Some(Reason::Connections);
        }
        self.bounds.connections.is_some_and(|most| all > most).then_some(Reason::Busy)
    }

    /// A connection of `client` is over.
    pub fn leave(&self, client: IpAddr) {
        let mut memory = self.memory();
        memory.open -= 1;
        if let Some(own) = memory.open_by.get_mut(&client) {
            *own -= 1;
            if *own == 0 {
                memory.open_by.remove(&client);
            }
        }
    }

    /// A message of `client` begins at `now`.
    pub fn message(&self, client: IpAddr, now: Instant) -> Option<Reason> {
        let rate = self.bounds.rate_per_client?;
        let mut memory = self.memory();
        (!spend(&mut memory.clients, client, rate, now)).then_some(Reason::TooFast)
    }

    /// A recipient is named at `now`.
    pub fn recipient(
        &self,
        (client, sender, recipient): (IpAddr, &str, &str),
        now: Instant,
    ) -> Option<Reason> {
        let mut memory = self.memory();
        if let Some(wait) = self.bounds.greylist {
            let known = hash((network(client), sender, recipient));
            shrink(&mut memory.first_tries, |first| now - *first < wait);
            let first = *memory.first_tries.entry(known).or_insert(now);
            if now.saturating_duration_since(first) < wait {
                return Some(Reason::Greylisted);
            }
        }
        let rate = self.bounds.rate_per_recipient?;
        let took = spend(&mut memory.recipients, hash(recipient), rate, now);
        (!took).then_some(Reason::RecipientTooFast)
    }
}

/// Takes a token; false if there is none.
fn spend<K: Hash + Eq>(buckets: &mut HashMap<K, Bucket>, key: K, rate: f64, now: Instant) -> bool {
    shrink(buckets, |bucket| now - bucket.filled < Duration::from_secs(1));
    let full = Bucket { tokens: rate.max(1.0), filled: now };
    let bucket = buckets.entry(key).or_insert(full);
    bucket.fill(rate, now);
    if bucket.tokens < 1.0 {
        return false;
    }
    bucket.tokens -= 1.0;
    true
}

/// Makes room if there is none: keeps what is `worth` it, or nothing.
fn shrink<K: Hash + Eq, V>(map: &mut HashMap<K, V>, worth: impl Fn(&V) -> bool) {
    if map.len() >= ENTRIES_MAX {
        map.retain(|_, value| worth(value));
        if map.len() >= ENTRIES_MAX {
            map.clear();
        }
    }
}

/// The network that greylisting sees a client as: a pool of servers takes turns.
fn network(client: IpAddr) -> u64 {
    match client {
        IpAddr::V4(address) => u64::from(u32::from(address) >> 8),
        IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
    }
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn connections_are_counted_while_they_last() {
        let limits = Limits::new(Bounds {
            connections: Some(3),
            connections_per_client: Some(2),
            ..Bounds::default()
        });
        assert!(limits.are_set() && !Limits::default().are_set());
        assert_eq!([0; 2].map(|_| limits.enter(client(1))), [None; 2]);
        assert_eq!(limits.enter(client(1)), Some(Reason::Connections));
        limits.leave(client(1));
        assert_eq!(limits.enter(client(2)), None);
        assert_eq!(limits.enter(client(3)), Some(Reason::Busy));
        limits.leave(client(3));
        limits.leave(client(1));
        assert_eq!(limits.enter(client(1)), None);
    }

    #[test]
    fn rates_allow_what_a_second_brings() {
        let limits = Limits::new(Bounds {
            rate_per_client: Some(5.0),
            rate_per_recipient: Some(0.5),
            ..Bounds::default()
        });
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let taken = |now| (0..20).filter(|_| limits.message(client(1), now).is_none()).count();
        assert_eq!(taken(start), 5);
        assert_eq!(taken(at(400)), 2);
        assert_eq!(taken(at(60_000)), 5);
        assert_eq!(limits.message(client(2), at(60_000)), None, "others do not suffer");
        let to = |recipient, now| limits.recipient((client(1), "s@x", recipient), now);
        assert_eq!(to("a@x", start), None);
        assert_eq!(to("a@x", at(1_900)), Some(Reason::RecipientTooFast));
        assert_eq!(to("b@x", at(1_900)), None);
        assert_eq!(to("a@x", at(2_000)), None);
    }

    #[test]
    fn who_comes_back_is_let_in() {
        let greylist = Some(Duration::from_secs(60));
        let limits = Limits::new(Bounds { greylist, ..Bounds::default() });
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let to = |last, recipient, now| limits.recipient((client(last), "s@x", recipient), now);
        assert_eq!(to(1, "a@x", start), Some(Reason::Greylisted));
        assert_eq!(to(1, "a@x", at(59)), Some(Reason::Greylisted));
        assert_eq!(to(2, "a@x", at(60)), None, "a neighbour may come in its place");
        assert_eq!(to(1, "a@x", at(99)), None);
        assert_eq!(to(1, "b@x", at(99)), Some(Reason::Greylisted));
    }

    #[test]
    fn memory_is_bounded() {
        let mut map: HashMap<usize, usize> = (0..ENTRIES_MAX).map(|key| (key, key)).collect();
        shrink(&mut map, |value| *value < 10);
        assert_eq!(map.len(), 10);
        map.extend((0..ENTRIES_MAX).map(|key| (key, key)));
        shrink(&mut map, |_| true);
        assert!(map.is_empty());
    }
}
