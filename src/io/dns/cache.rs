//! What was learnt, by name and type, for as long as it holds. Bounded by entries
//! and by bytes; when full, a clock hand looks for one that nobody asked for since
//! it last came by, a few steps at most.
//!
//! An entry is 32 bytes, one allocation of its name and data packed, and 4 to 8
//! bytes of the table that finds it. Pure: time is an argument.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::{DnsFailure, Kind, Outcome};

/// How long records hold, at least and at most. At least: a relay that sends a
/// thousand messages a second may not ask a thousand times, whatever the TTL.
const RECORDS_TTL: (u32, u32) = (5, 86_400);
/// How long "there are none" holds, at least and at most (RFC 2308, 5).
const NOTHING_TTL: (u32, u32) = (5, 3600);
/// How long trouble is remembered, in seconds: so that a dead server is not asked
/// for the same thing by each message.
const TROUBLE_TTL: u32 = 5;
/// Hits since it was fetched that make an entry hot.
const HOT_HITS: u8 = 3;
/// A hot entry is fetched anew when a tenth of its time is left, but so many
/// seconds at least and at most.
const REFRESH_SECONDS: (u32, u32) = (1, 120);
/// Steps that the hand takes to find an entry to drop.
const HAND_STEPS_MAX: usize = 64;
/// Bytes of an entry besides its name and data, on average.
const ENTRY_BYTES: usize = size_of::<Entry>() + 8 + 8;

/// What the cache knew.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) outcome: Outcome,
    pub(super) expires: Instant,
    /// It is hot and expires soon: fetch it anew.
    pub(super) is_due: bool,
}

/// The cache of one shard.
pub(super) struct Cache {
    began: Instant,
    hasher: RandomState,
    entries_max: usize,
    bytes_max: usize,
    /// Entries, those without a name free.
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Numbers of entries plus one, by hash; 0 for none. A power of two long, at
    /// most three quarters full, probed one by one.
    table: Vec<u32>,
    used: usize,
    bytes: usize,
    hand: usize,
    sweeper: usize,
}

struct Entry {
    /// Name, then data.
    packed: Box<[u8]>,
    hash: u32,
    /// Seconds since the cache began.
    expires: u32,
    refresh: u32,
    name_len: u8,
    kind: Kind,
    holds: Holds,
    heat: Heat,
}

/// How much an entry is asked for.
#[derive(Clone, Copy, Default)]
struct Heat(u8);

impl Heat {
    /// Hits since it was fetched, up to [`HOT_HITS`].
    const HITS: u8 = 0b0011;
    /// Asked for since the hand came by.
    const WANTED: u8 = 0b0100;
    /// It is being fetched anew, or that has failed.
    const REFRESHED: u8 = 0b1000;

    fn hit(&mut self) {
        let hits = self.0 & Self::HITS;
        self.0 = (self.0 - hits) | (hits + 1).min(HOT_HITS) | Self::WANTED;
    }

    /// Whether it is hot and not being fetched anew; now it is.
    fn take_hot(&mut self) -> bool {
        let is_hot = self.0 & Self::HITS == HOT_HITS && self.0 & Self::REFRESHED == 0;
        self.0 |= if is_hot { Self::REFRESHED } else { 0 };
        is_hot
    }

    /// Whether it was asked for since this was asked last.
    fn take_wanted(&mut self) -> bool {
        let is_wanted = self.0 & Self::WANTED != 0;
        self.0 &= !Self::WANTED;
        is_wanted
    }
}

/// What an entry's data is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    Records,
    NoSuchDomain,
    NoData,
    Trouble,
}

impl Cache {
    pub(super) fn new(entries_max: usize, bytes_max: usize, now: Instant) -> Self {
        Cache {
            began: now,
            hasher: RandomState::new(),
            entries_max: entries_max.max(1),
            bytes_max,
            entries: Vec::new(),
            free: Vec::new(),
            table: vec![0; 16],
            used: 0,
            bytes: 0,
            hand: 0,
            sweeper: 0,
        }
    }

    /// Entries.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// Bytes, by estimate of the allocator's share.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        let (began, entries_max, bytes_max) = (self.began, self.entries_max, self.bytes_max);
        *self = Cache::new(entries_max, bytes_max, began);
    }

    /// What holds for a name now.
    pub(super) fn get(&mut self, name: &str, kind: Kind, now: Instant) -> Option<Hit> {
        let second = self.second(now);
        let slot = self.find(self.hash(name, kind), name, kind)?;
        let index = self.table[slot] as usize - 1;
        let entry = &mut self.entries[index];
        if entry.expires <= second {
            self.remove(slot);
            return None;
        }
        entry.heat.hit();
        let is_due = second >= entry.refresh && entry.heat.take_hot();
        let expires = self.began + Duration::from_secs(entry.expires.into());
        Some(Hit { outcome: entry.outcome(), expires, is_due })
    }

    /// Keeps what was learnt of a name, as long as the bounds allow; returns when
    /// it expires. Trouble does not replace what still holds.
    pub(super) fn put(
        &mut self,
        name: &str,
        kind: Kind,
        outcome: &Outcome,
        ttl: u32,
        now: Instant,
    ) -> Instant {
        let second = self.second(now);
        let (holds, ttl) = match outcome {
            Outcome::Mx(_) | Outcome::Addresses(_) => {
                (Holds::Records, ttl.clamp(RECORDS_TTL.0, RECORDS_TTL.1))
            }
            Outcome::Nothing(DnsFailure::NoSuchDomain) => {
                (Holds::NoSuchDomain, ttl.clamp(NOTHING_TTL.0, NOTHING_TTL.1))
            }
            Outcome::Nothing(DnsFailure::NoData) => {
                (Holds::NoData, ttl.clamp(NOTHING_TTL.0, NOTHING_TTL.1))
            }
            Outcome::Nothing(DnsFailure::Trouble(_)) => (Holds::Trouble, TROUBLE_TTL),
        };
        let expires = second + ttl;
        let end = self.began + Duration::from_secs(expires.into());
        let hash = self.hash(name, kind);
        if let Some(slot) = self.find(hash, name, kind) {
            let old = &self.entries[self.table[slot] as usize - 1];
            let is_better = old.holds != Holds::Trouble && old.expires > second;
            if holds == Holds::Trouble && is_better {
                return end;
            }
            self.remove(slot);
        }
        let left = (ttl / 10).clamp(REFRESH_SECONDS.0, REFRESH_SECONDS.1);
        // Only what mail is sent by is worth a query ahead of its time.
        let refresh = if holds == Holds::Records { expires - left } else { u32::MAX };
        let name_len = u8::try_from(name.len()).expect("a name has at most 253 octets");
        let heat = Heat::default();
        let packed = pack(name, outcome);
        self.insert(Entry { packed, hash, expires, refresh, name_len, kind, holds, heat }, second);
        end
    }

    /// Drops what has expired among the next `steps` entries.
    pub(super) fn sweep(&mut self, steps: usize, now: Instant) {
        let second = self.second(now);
        for _ in 0..steps.min(self.entries.len()) {
            self.sweeper = (self.sweeper + 1) % self.entries.len();
            let entry = &self.entries[self.sweeper];
            if !entry.packed.is_empty() && entry.expires <= second {
                let slot = self.slot_of(self.sweeper);
                self.remove(slot);
            }
        }
    }

    fn second(&self, now: Instant) -> u32 {
        let seconds = now.saturating_duration_since(self.began).as_secs();
        u32::try_from(seconds).expect("a process of less than 136 years")
    }

    fn hash(&self, name: &str, kind: Kind) -> u32 {
        // The lower half of a good hash is as good.
        self.hasher.hash_one((name, kind)) as u32
    }

    /// The slot of the table that names the entry of a name.
    fn find(&self, hash: u32, name: &str, kind: Kind) -> Option<usize> {
        let mask = self.table.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            let index = self.table[slot].checked_sub(1)?;
            let entry = &self.entries[index as usize];
            if entry.hash == hash && entry.kind == kind && entry.name() == name.as_bytes() {
                return Some(slot);
            }
            slot = (slot + 1) & mask;
        }
    }

    /// The slot of the table that names the entry with this number.
    fn slot_of(&self, index: usize) -> usize {
        let mask = self.table.len() - 1;
        let mut slot = self.entries[index].hash as usize & mask;
        while self.table[slot] as usize != index + 1 {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn insert(&mut self, entry: Entry, second: u32) {
        let bytes = entry.bytes();
        if bytes > self.bytes_max {
            return;
        }
        while self.used >= self.entries_max || self.bytes + bytes > self.bytes_max {
            self.drop_one(second);
        }
        if (self.used + 1) * 4 > self.table.len() * 3 {
            self.grow();
        }
        self.bytes += bytes;
        self.used += 1;
        let hash = entry.hash;
        let index = match self.free.pop() {
            Some(index) => {
                self.entries[index as usize] = entry;
                index
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).expect("fewer entries than bytes_max")
            }
        };
        place(&mut self.table, hash, index);
    }

    fn grow(&mut self) {
        let mut table = vec![0; self.table.len() * 2];
        let live = self.entries.iter().enumerate().filter(|(_, entry)| !entry.packed.is_empty());
        for (index, entry) in live {
            place(&mut table, entry.hash, index as u32);
        }
        self.table = table;
    }

    /// Takes an entry out, and closes the gap in the table.
    fn remove(&mut self, slot: usize) {
        let index = self.table[slot] - 1;
        let entry = &mut self.entries[index as usize];
        self.bytes -= entry.bytes();
        self.used -= 1;
        entry.packed = Box::default();
        self.free.push(index);
        let mask = self.table.len() - 1;
        let (mut gap, mut next) = (slot, slot);
        loop {
            next = (next + 1) & mask;
            let Some(index) = self.table[next].checked_sub(1) else { break };
            let home = self.entries[index as usize].hash as usize & mask;
            // It may move back only as far as its home.
            if (next.wrapping_sub(home) & mask) >= (next.wrapping_sub(gap) & mask) {
                self.table[gap] = self.table[next];
                gap = next;
            }
        }
        self.table[gap] = 0;
    }

    /// Drops an entry that has expired, or that nobody asked for since the hand
    /// came by; after some steps whichever the hand is at.
    fn drop_one(&mut self, second: u32) {
        debug_assert!(self.used > 0);
        let mut steps = 0;
        loop {
            self.hand = (self.hand + 1) % self.entries.len();
            let entry = &mut self.entries[self.hand];
            if entry.packed.is_empty() {
                continue;
            }
            steps += 1;
            let is_spared = entry.heat.take_wanted() && entry.expires > second;
            if !is_spared || steps >= HAND_STEPS_MAX {
                break;
            }
        }
        let slot = self.slot_of(self.hand);
        self.remove(slot);
    }
}

/// Puts the number of an entry into the first free slot from its home on.
fn place(table: &mut [u32], hash: u32, index: u32) {
    let mask = table.len() - 1;
    let mut slot = hash as usize & mask;
    while table[slot] != 0 {
        slot = (slot + 1) & mask;
    }
    table[slot] = index + 1;
}

impl Entry {
    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.packed.len()
    }

    fn name(&self) -> &[u8] {
        &self.packed[..usize::from(self.name_len).min(self.packed.len())]
    }

    fn outcome(&self) -> Outcome {
        let data = &self.packed[usize::from(self.name_len)..];
        match (self.holds, self.kind) {
            (Holds::NoSuchDomain, _) => Outcome::Nothing(DnsFailure::NoSuchDomain),
            (Holds::NoData, _) => Outcome::Nothing(DnsFailure::NoData),
            (Holds::Trouble, _) => Outcome::Nothing(DnsFailure::Trouble(text(data))),
            (Holds::Records, Kind::Mx) => Outcome::Mx(unpack_hosts(data)),
            (Holds::Records, Kind::A) => {
                let (octets, _) = data.as_chunks::<4>();
                Outcome::Addresses(
                    octets.iter().map(|o| IpAddr::from(Ipv4Addr::from(*o))).collect(),
                )
            }
            (Holds::Records, Kind::Aaaa) => {
                let (octets, _) = data.as_chunks::<16>();
                Outcome::Addresses(
                    octets.iter().map(|o| IpAddr::from(Ipv6Addr::from(*o))).collect(),
                )
            }
        }
    }
}

fn text(bytes: &[u8]) -> Box<str> {
    String::from_utf8_lossy(bytes).into()
}

/// Name and data in one piece.
fn pack(name: &str, outcome: &Outcome) -> Box<[u8]> {
    let mut packed = Vec::with_capacity(name.len() + 64);
    packed.extend_from_slice(name.as_bytes());
    match outcome {
        Outcome::Mx(hosts) => {
            for (preference, host) in hosts {
                packed.extend_from_slice(&preference.to_be_bytes());
                let length = u16::try_from(host.len()).expect("at most 255 octets, escaped");
                packed.extend_from_slice(&length.to_be_bytes());
                packed.extend_from_slice(host.as_bytes());
            }
        }
        Outcome::Addresses(addresses) => {
            for address in addresses {
                match address {
                    IpAddr::V4(address) => packed.extend_from_slice(&address.octets()),
                    IpAddr::V6(address) => packed.extend_from_slice(&address.octets()),
                }
            }
        }
        Outcome::Nothing(DnsFailure::Trouble(text)) => packed.extend_from_slice(text.as_bytes()),
        Outcome::Nothing(_) => {}
    }
    packed.into()
}

fn unpack_hosts(mut data: &[u8]) -> Vec<(u16, Box<str>)> {
    let mut hosts = Vec::new();
    while let [a, b, c, d, rest @ ..] = data {
        let length = usize::from(u16::from_be_bytes([*c, *d]));
        let (host, rest) = rest.split_at(length);
        hosts.push((u16::from_be_bytes([*a, *b]), text(host)));
        data = rest;
    }
    hosts
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 24] = [
        "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r",
        "s", "t", "u", "v", "w", "x",
    ];

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn host(text: &str) -> Outcome {
        Outcome::Mx(vec![(1, text.into())])
    }

    fn trouble() -> Outcome {
        Outcome::Nothing(DnsFailure::Trouble("no answer".into()))
    }

    #[test]
    fn gives_back_what_it_was_given_until_it_expires() {
        let now = Instant::now();
        let mut cache = Cache::new(100, 1 << 20, now);
        let addresses = |texts: &[&str]| {
            Outcome::Addresses(texts.iter().map(|text| text.parse().unwrap()).collect())
        };
        let long = "x".repeat(253);
        let all = [
            ("a", Kind::Mx, Outcome::Mx(vec![(0, "".into()), (65535, long.clone().into())])),
            (&*long, Kind::A, addresses(&["192.0.2.1", "192.0.2.2"])),
            ("a", Kind::Aaaa, addresses(&["2001:db8::1", "2001:db8::2"])),
            ("b", Kind::Mx, Outcome::Nothing(DnsFailure::NoSuchDomain)),
            ("b", Kind::A, Outcome::Nothing(DnsFailure::NoData)),
            ("b", Kind::Aaaa, trouble()),
        ];
        for (name, kind, outcome) in &all {
            cache.put(name, *kind, outcome, 5, now);
        }
        let last = now + seconds(5) - Duration::from_nanos(1);
        for (name, kind, outcome) in &all {
            let hit = cache.get(name, *kind, last).unwrap();
            assert_eq!((&hit.outcome, hit.expires), (outcome, now + seconds(5)));
        }
        assert_eq!(cache.get("a", Kind::A, now), None);
        for (name, kind, _) in &all {
            assert_eq!(cache.get(name, *kind, now + seconds(5)), None);
        }
        assert_eq!((cache.len(), cache.bytes()), (0, 0));
    }

    #[test]
    fn ttls_are_bounded() {
        let now = Instant::now();
        let mut cache = Cache::new(100, 1 << 20, now);
        let nothing = Outcome::Nothing(DnsFailure::NoData);
        for (outcome, ttl, holds) in [
            (host("h"), 0, 5),
            (host("h"), 300, 300),
            (host("h"), u32::MAX, 86_400),
            (nothing.clone(), 0, 5),
            (nothing, u32::MAX, 3600),
            (trouble(), u32::MAX, 5),
        ] {
            cache.clear();
            assert_eq!(cache.put("a", Kind::Mx, &outcome, ttl, now), now + seconds(holds));
            assert_eq!(cache.get("a", Kind::Mx, now).unwrap().expires, now + seconds(holds));
        }
    }

    #[test]
    fn trouble_replaces_only_what_no_longer_holds() {
        let now = Instant::now();
        let mut cache = Cache::new(100, 1 << 20, now);
        cache.put("a", Kind::Mx, &host("h"), 10, now);
        cache.put("a", Kind::Mx, &trouble(), 0, now);
        assert_eq!(cache.get("a", Kind::Mx, now).unwrap().outcome, host("h"));
        cache.put("a", Kind::Mx, &trouble(), 0, now + seconds(10));
        assert_eq!(cache.get("a", Kind::Mx, now + seconds(10)).unwrap().outcome, trouble());
        cache.put("a", Kind::Mx, &host("new"), 10, now + seconds(11));
        assert_eq!(cache.get("a", Kind::Mx, now + seconds(11)).unwrap().outcome, host("new"));
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn what_is_hot_is_due_once_and_shortly_before_its_end() {
        let now = Instant::now();
        for (ttl, due) in [(0, 4), (100, 90), (3600, 3480), (86_400, 86_280)] {
            let mut cache = Cache::new(100, 1 << 20, now);
            cache.put("a", Kind::Mx, &host("h"), ttl, now);
            let mut is_due =
                |second| cache.get("a", Kind::Mx, now + seconds(second)).unwrap().is_due;
            assert!((0..10).all(|_| !is_due(due - 1)), "{ttl}");
            assert!(is_due(due) && !is_due(due), "{ttl}");
        }
        let mut cache = Cache::new(100, 1 << 20, now);
        for outcome in [Outcome::Nothing(DnsFailure::NoSuchDomain), trouble()] {
            cache.put("a", Kind::Mx, &outcome, 5, now);
            assert!((0..10).all(|_| !cache.get("a", Kind::Mx, now + seconds(4)).unwrap().is_due));
        }
    }

    #[test]
    fn what_is_asked_for_outlives_what_is_not() {
        let now = Instant::now();
        let mut cache = Cache::new(64, 1 << 20, now);
        cache.put("wanted", Kind::Mx, &host("h"), 3600, now);
        for index in 0..10_000 {
            assert!(cache.get("wanted", Kind::Mx, now).is_some(), "{index}");
            cache.put(&format!("x{index}"), Kind::Mx, &host("h"), 3600, now);
            assert!(cache.len() <= 64);
        }
        assert_eq!(cache.len(), 64);
    }

    #[test]
    fn bytes_are_bounded_and_expired_entries_swept() {
        let now = Instant::now();
        let mut cache = Cache::new(usize::MAX, 10_000, now);
        let large = Outcome::Mx((0..64).map(|n| (n, "h".repeat(40).into())).collect());
        for index in 0..1000 {
            cache.put(&format!("x{index}"), Kind::Mx, &large, 5, now);
            cache.put(&format!("y{index}"), Kind::A, &host("h"), 5, now);
            assert!(cache.bytes() <= 10_000);
        }
        assert!(cache.len() > 2);
        cache.put("huge", Kind::Mx, &Outcome::Mx(vec![(0, "h".repeat(9999).into())]), 5, now);
        assert_eq!(cache.get("huge", Kind::Mx, now), None);
        let slots = cache.entries.len();
        cache.sweep(slots, now + seconds(4));
        assert!(cache.len() > 2);
        (0..slots).for_each(|_| cache.sweep(1, now + seconds(5)));
        assert_eq!((cache.len(), cache.bytes()), (0, 0));
        assert!(cache.table.iter().all(|number| *number == 0));
    }

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Entry>(), 32);
        let now = Instant::now();
        let mut cache = Cache::new(usize::MAX, usize::MAX, now);
        let hosts =
            Outcome::Mx(vec![(10, "mx1.example.org".into()), (20, "mx2.example.org".into())]);
        for index in 0..10_000 {
            cache.put(&format!("domain{index}.example"), Kind::Mx, &hosts, 300, now);
        }
        assert!(cache.bytes() / cache.len() < 130, "{}", cache.bytes() / cache.len());
        // What the estimate leaves out of account: free places of the lists.
        assert!(cache.table.len() <= 2 * cache.len());
    }

    #[derive(Clone, Debug)]
    enum Act {
        Put(usize, u32),
        Get(usize),
        Sweep,
        Pass(u64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            4 => (0..NAMES.len(), 5..40u32).prop_map(|(name, ttl)| Act::Put(name, ttl)),
            4 => (0..NAMES.len()).prop_map(Act::Get),
            1 => Just(Act::Sweep),
            1 => (0..10u64).prop_map(Act::Pass),
        ]
    }

    proptest! {
        /// Against a map that forgets nothing: the cache gives what was put last
        /// and still holds, or nothing because it was full; and its bounds hold.
        #[test]
        fn agrees_with_a_map(acts in prop::collection::vec(act(), 1..200), bound in 1..30usize) {
            let mut now = Instant::now();
            let mut cache = Cache::new(bound, 1 << 20, now);
            let mut map: HashMap<usize, (String, Instant)> = HashMap::new();
            for (step, act) in acts.into_iter().enumerate() {
                match act {
                    Act::Put(name, ttl) => {
                        let text = format!("h{step}");
                        let expires = cache.put(NAMES[name], Kind::Mx, &host(&text), ttl, now);
                        prop_assert_eq!(expires, now + seconds(ttl.into()));
                        map.insert(name, (text, expires));
                        prop_assert!(cache.get(NAMES[name], Kind::Mx, now).is_some());
                    }
                    Act::Get(name) => {
                        let known = map.get(&name).filter(|(_, expires)| *expires > now);
                        match (cache.get(NAMES[name], Kind::Mx, now), known) {
                            (Some(hit), Some((text, expires))) => {
                                prop_assert_eq!(hit.outcome, host(text));
                                prop_assert_eq!(hit.expires, *expires);
                            }
                            (None, known) => prop_assert!(known.is_none() || bound < NAMES.len()),
                            (Some(hit), None) => prop_assert!(false, "{hit:?}"),
                        }
                    }
                    Act::Sweep => cache.sweep(7, now),
                    Act::Pass(count) => now += seconds(count),
                }
                prop_assert!(cache.len() <= bound);
                let live = cache.entries.iter().filter(|entry| !entry.packed.is_empty());
                prop_assert_eq!(live.clone().count(), cache.len());
                prop_assert_eq!(live.map(Entry::bytes).sum::<usize>(), cache.bytes());
                prop_assert_eq!(cache.table.iter().filter(|n| **n != 0).count(), cache.len());
            }
        }
    }
}
