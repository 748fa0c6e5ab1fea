//! What a governor decides, case by case, and what holds whatever lanes do.

use proptest::prelude::*;

use super::lanes::TURN;
use super::*;
use crate::base::EnhancedCode;
use crate::config::Per;
use crate::policy::route::{Set, SetBy};

fn limits(connections: u32) -> SiteLimits {
    fn set<T>(value: T) -> Set<T> {
        Set { value, by: SetBy::Default }
    }
    SiteLimits {
        connections: set(connections),
        messages_per_connection: set(1000),
        connection_rate: set(None),
        message_rate: set(None),
    }
}

fn with_rate(connections: u32, count: u32, per: Per) -> SiteLimits {
    let mut limits = limits(connections);
    limits.connection_rate.value = Some(Rate { count, per });
    limits
}

fn failure() -> Failure {
    Failure::ours(Reply::new(451, EnhancedCode(4, 4, 1), "down"))
}

fn after(start: Instant, ms: u64) -> Instant {
    start + Duration::from_millis(ms)
}

fn waits(governor: &mut Governor, lane: u16, now: Instant) -> (Why, Option<Instant>) {
    match governor.open(lane, now) {
        Opening::Go => panic!("was let through"),
        Opening::Wait { why, until } => (why, until),
    }
}

/// Opens a connection that works.
fn connect(governor: &mut Governor, lane: u16, now: Instant) {
    assert_eq!(governor.open(lane, now), Opening::Go);
    governor.connected(lane, now);
}

/// A governor whose slow start is over.
fn proven(limit: u32, now: Instant) -> Governor {
    let mut governor = Governor::new(&limits(limit));
    connect(&mut governor, 0, now);
    while governor.allowed() < limit {
        governor.finished(0, now);
    }
    assert!(!governor.closed(0, None, now));
    governor
}

#[test]
fn connections_grow_with_each_finished_transaction() {
    let now = Instant::now();
    let mut governor = Governor::new(&limits(4));
    connect(&mut governor, 0, now);
    connect(&mut governor, 0, now);
    assert_eq!(waits(&mut governor, 0, now), (Why::SlowStart, None));
    governor.finished(0, now);
    connect(&mut governor, 0, now);
    for _ in 0..5 {
        governor.finished(0, now);
    }
    assert_eq!(governor.allowed(), 4);
    connect(&mut governor, 1, now);
    assert_eq!(waits(&mut governor, 1, now), (Why::Connections, None));
    assert_eq!(Governor::new(&limits(1)).allowed(), 1);
}

#[test]
fn trouble_halves_and_stops_growth_for_a_while() {
    let now = Instant::now();
    let mut governor = proven(16, now);
    for _ in 0..6 {
        connect(&mut governor, 0, now);
    }
    assert_eq!(governor.open(1, now), Opening::Go);
    assert!(!governor.connect_failed(1, now, failure()), "others work");
    assert_eq!((governor.connections(), governor.allowed()), (6, 3));
    assert_eq!(governor.last_failure(), Some(&failure()));
    for _ in 0..10 {
        governor.finished(0, now);
    }
    assert_eq!(governor.last_failure(), None);
    assert_eq!(waits(&mut governor, 0, now), (Why::SlowStart, Some(now + GROWTH_PAUSE)));
    assert!(!governor.closed(0, None, now));
    connect(&mut governor, 0, now);
    let later = now + GROWTH_PAUSE;
    assert_eq!(governor.open(0, later), Opening::Go);
    assert!(!governor.connect_failed(0, later, failure()));
    for _ in 0..10 {
        governor.finished(0, later);
    }
    assert_eq!(waits(&mut governor, 0, later).1, Some(later + 2 * GROWTH_PAUSE), "longer");
    governor.lift();
    assert_eq!(governor.open(0, later), Opening::Go);
}

#[test]
fn a_dead_site_is_left_alone_then_probed_by_one_connection() {
    let now = Instant::now();
    let mut governor = Governor::new(&limits(5));
    assert_eq!(governor.open(0, now), Opening::Go);
    assert_eq!(governor.open(1, now), Opening::Go);
    assert!(!governor.connect_failed(0, now, failure()), "the other may still be made");
    assert!(governor.connect_failed(1, now, failure()));
    let mut until = now + back_off(1);
    assert_eq!(governor.closed_until(now), Some(until));
    assert_eq!(waits(&mut governor, 2, now), (Why::BackOff, Some(until)));
    assert!(!governor.is_probing(now) && !governor.is_forgettable(now));
    for failures in 2..9 {
        assert!(governor.is_probing(until) && governor.is_forgettable(until));
        assert_eq!(governor.open(2, until), Opening::Go);
        assert_eq!(waits(&mut governor, 0, until), (Why::Probe, None));
        assert!(governor.connect_failed(2, until, failure()));
        assert_eq!(governor.failures(), failures);
        let next = governor.closed_until(until).unwrap();
        assert_eq!(next - until, back_off(failures));
        until = next;
    }
    connect(&mut governor, 2, until);
    assert_eq!(waits(&mut governor, 0, until), (Why::Probe, None), "it may still hang up");
    governor.finished(2, until);
    assert!(!governor.is_probing(until) && governor.last_failure().is_none());
    assert_eq!(governor.open(0, until), Opening::Go);
    assert_eq!(waits(&mut governor, 0, until), (Why::SlowStart, None), "a new start");
}

#[test]
fn an_operator_lifts_a_back_off() {
    let now = Instant::now();
    let mut governor = Governor::new(&limits(5));
    assert_eq!(governor.open(0, now), Opening::Go);
    assert!(governor.connect_failed(0, now, failure()));
    governor.lift();
    assert!(governor.is_probing(now));
    assert_eq!(governor.open(1, now), Opening::Go);
    assert_eq!(waits(&mut governor, 0, now), (Why::Probe, None));
    assert!(governor.connect_failed(1, now, failure()));
    assert_eq!(governor.closed_until(now), Some(now + back_off(2)), "it goes on growing");
}

#[test]
fn connections_that_bring_nothing_are_a_failure_in_the_end() {
    let now = Instant::now();
    let mut governor = proven(8, now);
    for round in 1..=FRUITLESS_MAX {
        connect(&mut governor, 0, now);
        let failed = governor.closed(0, Some(failure()), now);
        assert_eq!(failed, round == FRUITLESS_MAX);
    }
    let probe = governor.closed_until(now).unwrap();
    connect(&mut governor, 0, probe);
    assert!(governor.closed(0, Some(failure()), probe), "a probe has one try");
    let probe = governor.closed_until(probe).unwrap();
    connect(&mut governor, 0, probe);
    assert!(!governor.closed(0, None, probe), "there was nothing to send");
    assert_eq!(governor.open(0, probe), Opening::Go, "so the next one probes");
}

#[test]
fn connections_that_end_while_the_site_is_left_alone_do_not_prolong_it() {
    let now = Instant::now();
    let mut governor = proven(8, now);
    for _ in 0..6 {
        connect(&mut governor, 0, now);
    }
    let failed: Vec<bool> = (0..6).map(|_| governor.closed(0, Some(failure()), now)).collect();
    assert_eq!(failed, [false, false, true, true, true, true]);
    assert_eq!((governor.failures(), governor.closed_until(now)), (1, Some(now + back_off(1))));
}

#[test]
fn a_connection_from_before_the_back_off_can_end_it() {
    let now = Instant::now();
    let mut governor = proven(8, now);
    connect(&mut governor, 0, now);
    for _ in 0..FRUITLESS_MAX {
        connect(&mut governor, 1, now);
        let _ = governor.closed(1, Some(failure()), now);
    }
    assert!(governor.closed_until(now).is_some());
    governor.finished(0, now);
    assert_eq!(governor.failures(), 0);
    assert_eq!(governor.closed_until(now), None);
    assert_eq!(governor.open(1, now), Opening::Go);
}

#[test]
fn a_lane_without_connections_gets_the_next_that_is_free() {
    let now = Instant::now();
    let mut governor = proven(4, now);
    for _ in 0..4 {
        connect(&mut governor, 0, now);
    }
    assert!(!governor.must_yield(0), "nobody waits");
    assert_eq!(waits(&mut governor, 1, now), (Why::Connections, None));
    assert!(governor.must_yield(0));
    assert!(!governor.must_yield(0), "one is enough");
    assert!(!governor.closed(0, None, now));
    assert_eq!(waits(&mut governor, 0, now), (Why::Connections, None), "it is kept for lane 1");
    connect(&mut governor, 1, now);
    assert!(!governor.must_yield(0) && !governor.must_yield(1));
    assert_eq!(waits(&mut governor, 1, now), (Why::Connections, None));
    assert!(governor.must_yield(0), "3 to 1 is not fair");
    assert!(!governor.closed(0, None, now));
    connect(&mut governor, 1, now);
    assert_eq!(waits(&mut governor, 1, now).0, Why::Connections);
    assert!(!governor.must_yield(0), "2 to 2 is");
}

#[test]
fn a_lane_that_asks_no_more_holds_nobody_up() {
    let now = Instant::now();
    for withdraws in [true, false] {
        let mut governor = proven(2, now);
        connect(&mut governor, 0, now);
        connect(&mut governor, 0, now);
        assert_eq!(waits(&mut governor, 1, now).0, Why::Connections);
        assert!(!governor.closed(0, None, now));
        assert_eq!(waits(&mut governor, 0, now).0, Why::Connections);
        let later = if withdraws { now } else { after(now, 1001) };
        if withdraws {
            governor.withdraw(1);
        }
        assert_eq!(governor.open(0, later), Opening::Go);
    }
}

#[test]
fn a_single_connection_changes_hands_after_its_turn() {
    let now = Instant::now();
    let mut governor = Governor::new(&limits(1));
    connect(&mut governor, 0, now);
    assert_eq!(waits(&mut governor, 1, now).0, Why::Connections);
    for _ in 1..TURN {
        governor.finished(0, now);
        assert!(!governor.must_yield(0));
    }
    governor.finished(0, now);
    assert!(governor.must_yield(0));
    assert!(!governor.closed(0, None, now));
    connect(&mut governor, 1, now);
    assert_eq!(waits(&mut governor, 0, now).0, Why::Connections);
    assert!(!governor.must_yield(1), "it has just begun");
}

#[test]
fn a_lower_limit_closes_what_is_too_many() {
    let now = Instant::now();
    let mut governor = proven(6, now);
    for lane in [0, 0, 0, 1, 1, 1] {
        connect(&mut governor, lane, now);
    }
    governor.set_limits(&limits(4));
    assert_eq!(governor.allowed(), 4);
    assert!(governor.must_yield(0) && governor.must_yield(1));
    assert!(!governor.must_yield(0) && !governor.must_yield(1));
    for lane in [0, 1] {
        assert!(!governor.closed(lane, None, now));
        assert_eq!(waits(&mut governor, lane, now).0, Why::Connections);
    }
    governor.set_limits(&limits(8));
    governor.finished(0, now);
    assert_eq!(governor.open(0, now), Opening::Go);
}

#[test]
fn new_connections_keep_their_rate() {
    let now = Instant::now();
    let mut governor = Governor::new(&with_rate(10, 1, Per::Minute));
    connect(&mut governor, 0, now);
    let minute = after(now, 60_000);
    assert_eq!(waits(&mut governor, 1, now), (Why::ConnectionRate, Some(minute)));
    assert!(!governor.closed(0, None, now));
    assert!(!governor.is_forgettable(now) && governor.is_forgettable(minute));
    // Lane 1 asked first, and is remembered until it may ask again.
    assert_ne!(governor.open(0, minute), Opening::Go);
    assert_eq!(governor.open(1, minute), Opening::Go);
}

#[test]
fn a_connection_that_moves_on_keeps_its_place_and_the_rate() {
    let now = Instant::now();
    let mut governor = Governor::new(&limits(1));
    connect(&mut governor, 0, now);
    governor.moves_on(0, now);
    assert_eq!(governor.reserve_connection(now), now);
    assert_eq!(waits(&mut governor, 1, now).0, Why::Connections);
    governor.abandoned(0, now);
    assert_eq!(governor.open(1, now), Opening::Go);
    let mut governor = Governor::new(&with_rate(10, 1, Per::Minute));
    connect(&mut governor, 0, now);
    let minute = after(now, 60_000);
    governor.moves_on(0, now);
    assert_eq!(governor.reserve_connection(now), minute);
    governor.connected(0, minute);
    let two = after(now, 120_000);
    assert_eq!(waits(&mut governor, 1, minute), (Why::ConnectionRate, Some(two)));
}

#[test]
fn messages_are_reserved_in_order() {
    let now = Instant::now();
    let mut governor = Governor::new(&limits(1));
    assert!(!governor.limits_messages());
    assert_eq!([governor.reserve(now), governor.reserve(now)], [now, now]);
    let mut limited = limits(1);
    limited.message_rate.value = Some(Rate { count: 2, per: Per::Second });
    governor.set_limits(&limited);
    assert!(governor.limits_messages());
    assert_eq!([governor.reserve(now), governor.reserve(now)], [now, after(now, 500)]);
    let last = governor.reserve(now);
    governor.unreserve(last);
    assert_eq!(governor.reserve(now), last);
}

#[test]
fn a_governor_is_small() {
    assert!(size_of::<Governor>() <= 304, "{}", size_of::<Governor>());
}

/// What a lane may do.
#[derive(Clone, Copy, Debug)]
enum Act {
    Open,
    Connected,
    Failed,
    Finished,
    MovesOn,
    Closed { fruitless: bool },
    Yield,
    Withdraw,
    Lift,
    Limit(u32),
    Pass(u64),
}

fn acts() -> impl Strategy<Value = (u16, Act)> {
    let act = prop_oneof![
        6 => Just(Act::Open),
        4 => Just(Act::Connected),
        1 => Just(Act::Failed),
        6 => Just(Act::Finished),
        1 => Just(Act::MovesOn),
        2 => any::<bool>().prop_map(|fruitless| Act::Closed { fruitless }),
        2 => Just(Act::Yield),
        1 => Just(Act::Withdraw),
        1 => Just(Act::Lift),
        1 => (1..12_u32).prop_map(Act::Limit),
        2 => (1..20_000_u64).prop_map(Act::Pass),
    ];
    (0..4_u16, act)
}

/// The lanes as they are, beside the governor that is told of them.
#[derive(Default)]
struct World {
    connecting: [u32; 4],
    open: [u32; 4],
    opened_at: Vec<Instant>,
}

impl World {
    fn total(&self) -> u32 {
        self.connecting.iter().chain(&self.open).sum()
    }

    /// Does one thing if it is possible.
    fn act(&mut self, governor: &mut Governor, lane: u16, act: Act, now: Instant) {
        let at = usize::from(lane);
        match act {
            Act::Open if governor.open(lane, now) == Opening::Go => {
                self.connecting[at] += 1;
                self.opened_at.push(now);
            }
            Act::Connected if self.connecting[at] > 0 => {
                self.connecting[at] -= 1;
                self.open[at] += 1;
                governor.connected(lane, now);
            }
            Act::Failed if self.connecting[at] > 0 => {
                self.connecting[at] -= 1;
                let failed = governor.connect_failed(lane, now, failure());
                assert_eq!(failed, governor.closed_until(now).is_some());
            }
            Act::Finished if self.open[at] > 0 => governor.finished(lane, now),
            Act::MovesOn if self.open[at] > 0 => {
                self.open[at] -= 1;
                self.connecting[at] += 1;
                governor.moves_on(lane, now);
                self.opened_at.push(governor.reserve_connection(now));
            }
            Act::Closed { fruitless } if self.open[at] > 0 => {
                self.open[at] -= 1;
                let failed = governor.closed(lane, fruitless.then(failure), now);
                assert!(!failed || governor.closed_until(now).is_some());
            }
            Act::Yield if self.open[at] > 0 && governor.must_yield(lane) => {
                self.open[at] -= 1;
                assert!(!governor.closed(lane, None, now));
            }
            Act::Withdraw => governor.withdraw(lane),
            Act::Lift => governor.lift(),
            _ => {}
        }
    }
}

proptest! {
    /// Whatever happens in whatever order: the count is right, no connection is
    /// opened past the limit, the window or the rate, none while the site is
    /// left alone, and one at most to probe it.
    #[test]
    fn limits_are_never_exceeded(
        mut limit in 1..12_u32,
        rate in proptest::option::of((1..50_u32, prop_oneof![Just(Per::Second), Just(Per::Minute)])),
        acts in proptest::collection::vec(acts(), 1..300),
    ) {
        let limits_of = |limit| match rate {
            Some((count, per)) => with_rate(limit, count, per),
            None => limits(limit),
        };
        let mut governor = Governor::new(&limits_of(limit));
        let mut world = World::default();
        let mut now = Instant::now();
        for (lane, act) in acts {
            let (before, allowed) = (world.total(), governor.allowed());
            let (closed, probes) = (governor.closed_until(now).is_some(), governor.is_probing(now));
            match act {
                Act::Pass(ms) => now += Duration::from_millis(ms),
                Act::Limit(new) => {
                    limit = new;
                    governor.set_limits(&limits_of(limit));
                }
                act => world.act(&mut governor, lane, act, now),
            }
            prop_assert_eq!(governor.connections(), world.total());
            prop_assert!((1..=limit).contains(&governor.allowed()));
            if world.total() > before {
                prop_assert!(world.total() <= limit && world.total() <= allowed && !closed);
                prop_assert!(!probes || world.total() == 1);
            }
        }
        if let Some((count, per)) = rate {
            let rate = Rate { count, per };
            for (first, from) in world.opened_at.iter().enumerate() {
                for (last, to) in world.opened_at.iter().enumerate().skip(first) {
                    let worth = (*to - *from).as_nanos() / rate.interval().as_nanos();
                    prop_assert!(((last - first) as u128) < worth + u128::from(rate.burst()));
                }
            }
        }
    }

    /// Lanes that always have more to send all get connections, within a bounded
    /// number of transactions, however few there are; and where there is one for
    /// each, in fair shares.
    #[test]
    fn no_lane_starves(
        limit in 1..9_u32,
        lanes in 2..6_u16,
        early in 0..6_u16,
        order in proptest::collection::vec(0..1000_usize, 16),
    ) {
        let mut governor = proven(limit, Instant::now());
        let mut now = Instant::now();
        let mut open = vec![0_u32; usize::from(lanes)];
        let mut hungry = vec![0_u32; usize::from(lanes)];
        // Others wait their turn before each, and each turn is a bounded one.
        let patience = TURN * u32::from(lanes) + 20 * u32::from(lanes);
        for step in 0..4 * patience {
            now += Duration::from_millis(50);
            let shift = order[step as usize % order.len()];
            for index in 0..usize::from(lanes) {
                let lane = (index + shift) % usize::from(lanes);
                // One lane may have everything to itself at first.
                if step < 50 && lane != usize::from(early % lanes) {
                    continue;
                }
                let id = lane as u16;
                if governor.open(id, now) == Opening::Go {
                    governor.connected(id, now);
                    open[lane] += 1;
                }
                for _ in 0..open[lane] {
                    governor.finished(id, now);
                    if governor.must_yield(id) {
                        open[lane] -= 1;
                        prop_assert!(!governor.closed(id, None, now));
                    }
                }
                hungry[lane] = if open[lane] == 0 { hungry[lane] + 1 } else { 0 };
                prop_assert!(hungry[lane] <= patience, "lane {lane} starves");
            }
            prop_assert!(open.iter().sum::<u32>() <= limit);
        }
        let (most, fewest) = (open.iter().max().unwrap(), open.iter().min().unwrap());
        prop_assert!(most - fewest <= 1 + u32::from(limit < u32::from(lanes)), "{open:?}");
    }
}

#[test]
fn lanes_are_asked_to_make_way_only_where_it_would_change_something() {
    let now = Instant::now();
    let mut governor = proven(4, now);
    for _ in 0..4 {
        connect(&mut governor, 0, now);
    }
    assert!(matches!(governor.open(0, now), Opening::Wait { why: Why::Connections, .. }));
    assert!(!governor.is_contended(), "it waits for nobody's but its own");
    assert!(governor.is_steady());
    assert!(matches!(governor.open(1, now), Opening::Wait { why: Why::Connections, .. }));
    assert!(governor.is_contended() && !governor.is_steady());
    assert!(governor.must_yield(0));
    governor.closed(0, None, now);
    assert_eq!(governor.open(1, now), Opening::Go);
    governor.connected(1, now);
    assert!(matches!(governor.open(1, now), Opening::Wait { .. }));
    assert!(governor.is_contended(), "one against three");
    assert!(governor.must_yield(0));
    governor.closed(0, None, now);
    assert_eq!(governor.open(1, now), Opening::Go);
    assert!(matches!(governor.open(1, now), Opening::Wait { .. }));
    assert!(!governor.is_contended(), "two against two");
}

#[test]
fn a_lane_that_has_ceased_to_ask_is_not_waited_for() {
    let now = Instant::now();
    let mut governor = proven(4, now);
    for _ in 0..4 {
        connect(&mut governor, 0, now);
    }
    assert!(matches!(governor.open(1, now), Opening::Wait { .. }));
    assert!(governor.is_contended());
    // What it had was taken back, and it has nothing left to ask for.
    governor.finished(0, now + Duration::from_secs(2));
    assert!(!governor.is_contended() && governor.is_steady());
}
