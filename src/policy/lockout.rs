//! How often somebody may try to authenticate: each failure is answered later
//! than the one before, and after some of them further attempts are not looked
//! at for a time. By client (an IPv4 address or an IPv6 /64), so that one host
//! cannot try all names, and by user, so that many hosts cannot try one.
//!
//! Pure: time is an argument. One for the server, since a client's connections
//! come to all cores.
//!
//! A name is shut whether anybody has it or not, and an attempt that is not
//! looked at tells nothing. So that nobody can be kept out of their own account by
//! others' attempts, a client that has authenticated as a user of late is not
//! held up by the user's failures, only by its own. Attempts of a client that are
//! under way count, so that a thousand at once are no way around.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::abuse::ClientKey;

/// The longest wait before an answer, in first ones.
const DELAYS_MAX: u32 = 16;
/// How long a client is known for a user after it has authenticated.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
/// Most entries of each table; the oldest are dropped.
const ENTRIES_MAX: usize = 100_000;

/// What is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Failures after which nothing more is looked at; 1 or more.
    pub failures: u32,
    /// For how long, and when failures are forgotten.
    pub span: Duration,
    /// Wait before the answer to a first failure; it doubles with each.
    pub delay: Duration,
}

/// Who tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt<'a> {
    /// From where.
    pub client: IpAddr,
    /// As whom, if that is a name that somebody could have.
    pub user: Option<&'a str>,
}

/// What is known of one client or user.
#[derive(Clone, Copy, Debug)]
struct Record {
    failures: u32,
    /// Attempts of a client that are being looked at.
    pending: u32,
    last: Instant,
}

/// Failures of late.
#[derive(Debug, Default)]
pub struct Lockout {
    clients: HashMap<ClientKey, Record>,
    users: HashMap<Box<str>, Record>,
    known: HashMap<(ClientKey, Box<str>), Instant>,
}

impl Lockout {
    /// Whether an attempt is to be looked at. If so, it has to be followed by
    /// [`failed`](Self::failed), [`succeeded`](Self::succeeded) or
    /// [`dropped`](Self::dropped).
    pub fn begin(&mut self, rules: &Rules, now: Instant, attempt: Attempt<'_>) -> bool {
        let client = ClientKey::from(attempt.client);
        let shut = |record: Option<&Record>| {
            record.is_some_and(|record| {
                let failures = if now - record.last < rules.span { record.failures } else { 0 };
                // Of a user nothing is pending: nobody can be kept out by attempts
                // that others have begun and leave at that.
                failures >= rules.failures || record.pending >= rules.failures
            })
        };
        let user = attempt.user.filter(|user| !self.is_known(now, client, user));
        if shut(self.clients.get(&client)) || user.is_some_and(|user| shut(self.users.get(user))) {
            return false;
        }
        entry(&mut self.clients, client, rules, now).pending += 1;
        true
    }

    /// The attempt has failed; how long to wait before that is said.
    pub fn failed(&mut self, rules: &Rules, now: Instant, attempt: Attempt<'_>) -> Duration {
        let client = ClientKey::from(attempt.client);
        let mut count = entry(&mut self.clients, client, rules, now).fail(now);
        if let Some(user) = attempt.user {
            count = count.max(entry(&mut self.users, user.into(), rules, now).fail(now));
        }
        rules.delay * (1 << (count - 1).min(16)).min(DELAYS_MAX)
    }

    /// The attempt has succeeded: the user's failures are forgotten, not those of
    /// the client, which may have an account of its own and try others.
    pub fn succeeded(&mut self, now: Instant, attempt: Attempt<'_>) {
        self.dropped(attempt);
        let Some(user) = attempt.user else { return };
        self.users.remove(user);
        let client = ClientKey::from(attempt.client);
        if self.known.len() >= ENTRIES_MAX {
            drop_oldest(&mut self.known, |seen| *seen);
        }
        self.known.insert((client, user.into()), now);
    }

    /// The attempt has come to no end.
    pub fn dropped(&mut self, attempt: Attempt<'_>) {
        if let Some(record) = self.clients.get_mut(&ClientKey::from(attempt.client)) {
            record.pending = record.pending.saturating_sub(1);
        }
    }

    fn is_known(&self, now: Instant, client: ClientKey, user: &str) -> bool {
        // The key owns its name, so a look-up has to as well.
        let seen = self.known.get(&(client, user.into()));
        seen.is_some_and(|seen| now - *seen < KNOWN_FOR)
    }
}

impl Record {
    /// One more failure of an attempt that was pending; how many there are.
    fn fail(&mut self, now: Instant) -> u32 {
        self.pending = self.pending.saturating_sub(1);
        self.failures = self.failures.saturating_add(1);
        self.last = now;
        self.failures
    }
}

/// The record of `key`, without failures that are to be forgotten.
fn entry<'t, K: Eq + Hash + Clone>(
    table: &'t mut HashMap<K, Record>,
    key: K,
    rules: &Rules,
    now: Instant,
) -> &'t mut Record {
    if table.len() >= ENTRIES_MAX && !table.contains_key(&key) {
        table.retain(|_, record| record.pending > 0 || now - record.last < rules.span);
        if table.len() >= ENTRIES_MAX {
            drop_oldest(table, |record| record.last);
        }
    }
    let record = table.entry(key).or_insert(Record { failures: 0, pending: 0, last: now });
    if now - record.last >= rules.span {
        record.failures = 0;
        record.last = now;
    }
    record
}

/// Drops the older half.
fn drop_oldest<K: Eq + Hash, V>(table: &mut HashMap<K, V>, age: impl Fn(&V) -> Instant) {
    let mut ages: Vec<Instant> = table.values().map(&age).collect();
    let middle = ages.len() / 2;
    let (_, oldest_kept, _) = ages.select_nth_unstable(middle);
    let oldest_kept = *oldest_kept;
    let mut kept = 0;
    table.retain(|_, value| {
        // All of one age: then half of them, whichever.
        kept += usize::from(age(value) >= oldest_kept);
        age(value) >= oldest_kept && kept <= middle
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules =
        Rules { failures: 3, span: Duration::from_secs(600), delay: Duration::from_millis(500) };

    fn attempt<'a>(client: &str, user: &'a str) -> Attempt<'a> {
        Attempt { client: client.parse().unwrap(), user: Some(user) }
    }

    /// Tries and fails; the wait, or `None` when it was not looked at.
    fn fail(lockout: &mut Lockout, now: Instant, attempt: Attempt<'_>) -> Option<Duration> {
        lockout.begin(&RULES, now, attempt).then(|| lockout.failed(&RULES, now, attempt))
    }

    #[test]
    fn a_client_that_fails_is_slowed_down_and_then_shut_out_for_a_time() {
        let (mut lockout, now) = (Lockout::default(), Instant::now());
        for (user, wait_ms) in [("a", 500), ("b", 1000), ("c", 2000)] {
            let wait = fail(&mut lockout, now, attempt("192.0.2.1", user));
            assert_eq!(wait, Some(Duration::from_millis(wait_ms)), "{user}");
        }
        let shut = |lockout: &mut Lockout, now, client| {
            let attempt = attempt(client, "z");
            let looked_at = lockout.begin(&RULES, now, attempt);
            if looked_at {
                lockout.dropped(attempt);
            }
            !looked_at
        };
        assert!(shut(&mut lockout, now, "192.0.2.1"));
        assert!(shut(&mut lockout, now, "::ffff:192.0.2.1"), "the same client");
        assert!(!shut(&mut lockout, now, "192.0.2.2"));
        let late = now + RULES.span - Duration::from_millis(1);
        assert!(shut(&mut lockout, late, "192.0.2.1"));
        assert!(!shut(&mut lockout, now + RULES.span, "192.0.2.1"));
    }

    #[test]
    fn a_name_is_shut_for_strangers_but_not_for_its_owner() {
        let (mut lockout, now) = (Lockout::default(), Instant::now());
        let home = attempt("2001:db8::1", "alice");
        assert!(lockout.begin(&RULES, now, home));
        lockout.succeeded(now, home);
        for host in 1..=3 {
            let client = format!("198.51.100.{host}");
            assert!(fail(&mut lockout, now, attempt(&client, "alice")).is_some());
        }
        assert_eq!(fail(&mut lockout, now, attempt("198.51.100.9", "alice")), None);
        let neighbour = attempt("2001:db8::2", "alice");
        assert!(lockout.begin(&RULES, now, neighbour), "the same /64");
        lockout.succeeded(now, neighbour);
        assert!(fail(&mut lockout, now, attempt("198.51.100.9", "alice")).is_some(), "forgotten");
    }

    #[test]
    fn a_success_does_not_clear_the_clients_failures() {
        let (mut lockout, now) = (Lockout::default(), Instant::now());
        for user in ["a", "b"] {
            fail(&mut lockout, now, attempt("192.0.2.1", user));
            let own = attempt("192.0.2.1", "mallory");
            assert!(lockout.begin(&RULES, now, own));
            lockout.succeeded(now, own);
        }
        fail(&mut lockout, now, attempt("192.0.2.1", "c"));
        assert_eq!(fail(&mut lockout, now, attempt("192.0.2.1", "d")), None);
    }

    #[test]
    fn attempts_at_once_are_no_way_around() {
        let (mut lockout, now) = (Lockout::default(), Instant::now());
        let begun = (0..100).filter(|_| lockout.begin(&RULES, now, attempt("192.0.2.1", "alice")));
        assert_eq!(begun.count(), 3);
        for _ in 0..3 {
            lockout.dropped(attempt("192.0.2.1", "alice"));
        }
        assert!(lockout.begin(&RULES, now, attempt("192.0.2.1", "alice")));
    }

    #[test]
    fn names_that_cannot_be_count_for_the_client() {
        let (mut lockout, now) = (Lockout::default(), Instant::now());
        let nameless = Attempt { user: None, ..attempt("192.0.2.1", "") };
        let looked_at = (0..9).filter(|_| fail(&mut lockout, now, nameless).is_some()).count();
        assert_eq!(looked_at, 3);
        assert!(lockout.users.is_empty());
    }

    #[test]
    fn waits_have_an_end() {
        let rules = Rules { failures: 100, ..RULES };
        let (mut lockout, now) = (Lockout::default(), Instant::now());
        let waits: Vec<u64> = (0..40)
            .map(|_| {
                let attempt = attempt("192.0.2.1", "alice");
                assert!(lockout.begin(&rules, now, attempt));
                lockout.failed(&rules, now, attempt).as_millis() as u64
            })
            .collect();
        assert_eq!(waits[..7], [500, 1000, 2000, 4000, 8000, 8000, 8000]);
        assert_eq!(waits[39], 8000);
    }

    #[test]
    fn tables_stay_bounded() {
        let mut lockout = Lockout::default();
        let start = Instant::now();
        for n in 0..ENTRIES_MAX as u32 + 10 {
            let client = IpAddr::from(std::net::Ipv4Addr::from_bits(n));
            let user = n.to_string();
            let attempt = Attempt { client, user: Some(&user) };
            let now = start + Duration::from_millis(u64::from(n / 1000));
            fail(&mut lockout, now, attempt);
        }
        let counts = [lockout.clients.len(), lockout.users.len()];
        assert!(counts.iter().all(|count| (ENTRIES_MAX / 4..=ENTRIES_MAX).contains(count)));
        assert!(lockout.users.contains_key("100009"), "the newest are kept");
        let mut same = HashMap::from_iter((0..9).map(|n| (n, start)));
        drop_oldest(&mut same, |age| *age);
        assert_eq!(same.len(), 4);
    }
}
