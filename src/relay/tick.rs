//! What a relay looks at again and again: the schedule, sites that have room or
//! may be tried again, idle connections, sites that should be split or made whole,
//! the clock.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Core, IDLE_MAX, Station};
use crate::base::UnixMillis;
use crate::io::clock;
use crate::io::executor::{sleep, within};
use crate::io::store::Store;
use crate::policy::retry;

/// A jump of the wall clock back by more than this is one.
const JUMP: Duration = Duration::from_secs(60);

impl<S: Store> Core<S> {
    /// Gives out what is due, until the drain. A task of its own: there may be a
    /// million.
    pub(super) async fn run_schedule(self: Rc<Self>) {
        while !self.stopping() {
            self.record_again();
            self.report_late();
            self.give_out_due().await;
            for station in self.hurried.take() {
                self.refill_soon(&station);
                self.kick(&station);
            }
            within(self.tick, self.urgent.wait()).await;
        }
    }

    /// Looks at everything else, until the drain.
    pub(super) async fn run_ticks(self: Rc<Self>) {
        let mut clocks = (clock::wall(), clock::monotonic());
        while !self.stopping() {
            let before = clocks.1;
            clocks = self.look_at_clock(clocks);
            self.look_at_stations(clocks.1 - before);
            sleep(self.tick).await;
        }
    }

    /// After a jump of the clock back, what is due by the old time would wait too
    /// long.
    fn look_at_clock(&self, (wall, steady): (UnixMillis, Instant)) -> (UnixMillis, Instant) {
        let (now, steady_now) = (clock::wall(), clock::monotonic());
        let expected = wall.plus(steady_now - steady);
        if now.plus(JUMP) < expected {
            let latest = retry::sane(UnixMillis(u64::MAX), now, &self.config().queue);
            for (log, queue) in &self.logs {
                let moved = queue.bring_within(latest);
                tracing::warn!(
                    target: "relay", %log, moved,
                    "the clock has jumped back: attempts that it put off too far are brought forward"
                );
            }
        }
        (now, steady_now)
    }

    /// `passed`: the time since the last look, longer than a tick when the shard
    /// has much to do.
    fn look_at_stations(self: &Rc<Self>, passed: Duration) {
        let now = clock::monotonic();
        let stations = self.stations.borrow().all();
        let taken: Vec<u64> = stations.iter().map(|station| station.lane.tell_taken()).collect();
        let own = taken.iter().sum();
        for station in &stations {
            station.lane.wake_idle(now, IDLE_MAX);
            if station.lane.has_handles() {
                // Another lane may have found the site down.
                if station.account.closed_for(now).is_some() {
                    let waiting = station.lane.purge(|_| true);
                    waiting.into_iter().for_each(|handle| self.release(handle));
                }
                self.kick(station);
            }
            if station.flow.borrow().waiting() > 0 {
                self.refill_soon(station);
            }
            self.look_at_split(station, passed, own);
        }
        drop(stations);
        self.stations.borrow_mut().forget_idle(now);
    }

    /// The owner decides whether each core gets a lane; whether they are needed no
    /// more, any core that has one. What the configuration gives lanes to keeps
    /// them.
    fn look_at_split(&self, station: &Station, passed: Duration, own: u64) {
        let account = &station.account;
        let shards = self.mesh.shards();
        let is_split = account.is_laned();
        let decides = is_split || account.owner(shards) == self.mesh.me();
        if shards == 1 || account.site.is_static || !decides {
            return;
        }
        let mut split = station.split.borrow_mut();
        if let Some(laned) = split.tick(passed, is_split, account.taken(), own) {
            account.set_laned(laned);
            let site = &account.site.name;
            let lanes = if laned { shards } else { 1 };
            tracing::info!(target: "relay", %site, lanes, "lanes changed with the traffic");
        }
    }
}
