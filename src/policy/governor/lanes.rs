//! The lanes of a site: how many connections each has, which wait for one, and
//! whose turn it is.
//!
//! A lane that is refused a connection is remembered as waiting (its *wish*) as
//! long as it keeps asking. The turn is of the lane with the fewest connections,
//! among equals of the one that has waited longest. So whoever asks again and
//! again comes to the front, since those before it get connections and fall
//! behind it.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

/// How long a lane counts as waiting after it asked, or after the time at which
/// it was told to ask again. Lanes ask several times in it.
const WISH_SPAN: Duration = Duration::from_secs(1);
/// Transactions that a lane's only connection may finish before it makes way for
/// a lane that has none.
pub(super) const TURN: u32 = 100;

/// See the module's comment.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// Those that have connections or wait for one.
    lanes: SmallVec<[Lane; 2]>,
    /// Numbers the wishes.
    wishes: u64,
}

#[derive(Debug, Default)]
struct Lane {
    id: u16,
    /// Connections open or being opened.
    connections: u32,
    /// Those of them that are being opened.
    connecting: u32,
    /// Those of them that were told to make way.
    yielding: u32,
    /// Transactions since the lane had no connection.
    turn: u32,
    wish: Option<Wish>,
}

/// A lane waits for a connection.
#[derive(Clone, Copy, Debug)]
struct Wish {
    number: u64,
    /// When it counts no more.
    until: Instant,
}

impl Lanes {
    /// Connections open or being opened.
    pub(super) fn connections(&self) -> u32 {
        self.lanes.iter().map(|lane| lane.connections).sum()
    }

    /// Lanes that a free connection is kept for before `lane` gets it.
    pub(super) fn ahead_of(&mut self, lane: u16, now: Instant) -> u32 {
        let new = self.wishes;
        let turn = |lane: &Lane| (lane.connections, lane.wish.map_or(new, |wish| wish.number));
        let mine = turn(self.lane(lane));
        let ahead = |other: &&Lane| other.waits(now) && turn(other) < mine;
        self.lanes.iter().filter(ahead).count() as u32
    }

    /// `lane` has to wait; it asks again at once, or at `until`.
    pub(super) fn wait(&mut self, lane: u16, until: Instant) {
        let number = self.wishes;
        let wish = self.lane(lane).wish.get_or_insert(Wish { number, until });
        wish.until = until + WISH_SPAN;
        self.wishes += u64::from(wish.number == number);
    }

    /// True when a lane that waits has so few connections that another may have
    /// to give it one of its own.
    pub(super) fn is_uneven(&self, now: Instant) -> bool {
        let waiting = self.lanes.iter().filter(|lane| lane.waits(now));
        let most = self.lanes.iter().map(|lane| lane.connections).max().unwrap_or_default();
        let least = waiting.map(|lane| lane.connections).min();
        least.is_some_and(|least| most >= least + 2 || (least == 0 && most > 0))
    }

    /// `lane` waits no more.
    pub(super) fn withdraw(&mut self, lane: u16) {
        self.lane(lane).wish = None;
        self.forget_absent();
    }

    /// `lane` opens a connection.
    pub(super) fn opening(&mut self, lane: u16) {
        let lane = self.lane(lane);
        if lane.connections == 0 {
            lane.turn = 0;
        }
        lane.connections += 1;
        lane.connecting += 1;
        lane.wish = None;
    }

    /// A connection that `lane` opened is made.
    pub(super) fn connected(&mut self, lane: u16) {
        let lane = self.lane(lane);
        debug_assert!(lane.connecting > 0, "connected without opening");
        lane.connecting = lane.connecting.saturating_sub(1);
    }

    /// A connection that `lane` opened could not be made.
    pub(super) fn failed(&mut self, lane: u16) {
        self.connected(lane);
        self.ended(lane);
    }

    /// A connection of `lane` is made anew.
    pub(super) fn moves_on(&mut self, lane: u16) {
        let lane = self.lane(lane);
        debug_assert!(lane.connections > lane.connecting, "moved on without being connected");
        lane.connecting += 1;
    }

    /// A connection of `lane` has ended.
    pub(super) fn ended(&mut self, lane: u16) {
        let lane = self.lane(lane);
        debug_assert!(lane.connections > lane.connecting, "ended without being connected");
        lane.connections = lane.connections.saturating_sub(1);
        lane.yielding = lane.yielding.saturating_sub(1);
        self.forget_absent();
    }

    /// A transaction of `lane` has ended.
    pub(super) fn finished(&mut self, lane: u16) {
        let lane = self.lane(lane);
        lane.turn = lane.turn.saturating_add(1);
    }

    /// Whether `lane` is to close a connection because more than `limit` are
    /// open.
    pub(super) fn must_shrink(&mut self, lane: u16, limit: u32) -> bool {
        let staying: u32 = self.lanes.iter().map(Lane::staying).sum();
        staying > limit && self.lane(lane).give_way()
    }

    /// Whether `lane` is to close a connection for a waiting lane that has
    /// fewer, when the site may have `allowed`. One that has as many but one
    /// waits until the turn of the other is over.
    pub(super) fn must_make_way(&mut self, lane: u16, allowed: u32, now: Instant) -> bool {
        let staying: u32 = self.lanes.iter().map(Lane::staying).sum();
        let mine = self.lane(lane);
        let (held, turn_is_over) = (mine.staying(), mine.turn >= TURN);
        let (mut waiting, mut at_once) = (0, false);
        for other in self.lanes.iter().filter(|other| other.id != lane && other.waits(now)) {
            let has_many_fewer = held >= other.connections + 2;
            waiting += u32::from(has_many_fewer || other.connections == 0);
            at_once |= has_many_fewer;
        }
        waiting > allowed.saturating_sub(staying)
            && (at_once || turn_is_over)
            && self.lane(lane).give_way()
    }

    fn lane(&mut self, id: u16) -> &mut Lane {
        let index = self.lanes.iter().position(|lane| lane.id == id).unwrap_or_else(|| {
            self.lanes.push(Lane { id, ..Lane::default() });
            self.lanes.len() - 1
        });
        &mut self.lanes[index]
    }

    fn forget_absent(&mut self) {
        self.lanes.retain(|lane| lane.connections > 0 || lane.wish.is_some());
    }
}

impl Lane {
    fn waits(&self, now: Instant) -> bool {
        self.wish.is_some_and(|wish| now < wish.until)
    }

    /// Connections that were not told to make way.
    fn staying(&self) -> u32 {
        self.connections.saturating_sub(self.yielding)
    }

    /// One more connection makes way, if there is one.
    fn give_way(&mut self) -> bool {
        let has = self.staying() > 0;
        self.yielding += u32::from(has);
        has
    }
}
