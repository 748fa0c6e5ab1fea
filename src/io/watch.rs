//! Deadlines for many streams without a timer for each read: every stream has
//! an entry in a slab with the tick at which its patience ends; one task looks
//! at all of them four times a second and hangs up on those that are late. So
//! arming a deadline before a read costs one store, and time-outs are late by a
//! quarter of a second at most.
//!
//! Used by `receive` for sessions and by `relay` for outbound connections. The
//! same entry lets a drain wake the sessions that wait for a command.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::executor::sleep;
use super::net::Hangup;

/// Length of a tick, in milliseconds.
const TICK_MS: u64 = 250;

/// Ticks that a stream whose reads were ended has for its last words, before
/// its writes end too (the peer may have stopped reading).
const LAST_WORDS_TICKS: u32 = 20;

/// Never due.
const NEVER: u32 = u32::MAX;

/// Why a read was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// Its deadline passed.
    TimedOut,
    /// The shard is draining, and nothing was under way on the stream.
    Drained,
    /// The grace of the drain is over.
    Cut,
}

struct Entry {
    hangup: Hangup,
    due: u32,
    idle: bool,
    interrupt: Option<Interrupt>,
}

#[derive(Default)]
struct Slab {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
}

struct Inner {
    slab: RefCell<Slab>,
    tick: Cell<u32>,
}

/// The deadlines of one kind of stream on one shard. Cheap to clone.
#[derive(Clone)]
pub struct Watch(Rc<Inner>);

impl Default for Watch {
    fn default() -> Self {
        Watch(Rc::new(Inner { slab: RefCell::default(), tick: Cell::new(0) }))
    }
}

impl Watch {
    /// Looks at the deadlines for ever; one task a shard.
    pub async fn run(self) {
        loop {
            sleep(Duration::from_millis(TICK_MS)).await;
            self.tick();
        }
    }

    /// One look at all deadlines.
    fn tick(&self) {
        let now = self.0.tick.get().wrapping_add(1) % NEVER;
        self.0.tick.set(now);
        for entry in self.0.slab.borrow_mut().entries.iter_mut().flatten() {
            if entry.due <= now {
                entry.end(Interrupt::TimedOut);
                entry.due = now.saturating_add(LAST_WORDS_TICKS).min(NEVER - 1);
            }
        }
    }

    /// Watches a stream until the guard is dropped.
    pub fn guard(&self, hangup: Hangup) -> Guard {
        let entry = Entry { hangup, due: NEVER, idle: false, interrupt: None };
        let mut slab = self.0.slab.borrow_mut();
        let index = match slab.free.pop() {
            Some(index) => {
                slab.entries[index as usize] = Some(entry);
                index
            }
            None => {
                slab.entries.push(Some(entry));
                (slab.entries.len() - 1) as u32
            }
        };
        Guard { watch: self.clone(), index }
    }

    /// Ends the reads of all streams that are idle now.
    pub fn interrupt_idle(&self) {
        for entry in self.0.slab.borrow_mut().entries.iter_mut().flatten() {
            if entry.idle {
                entry.end(Interrupt::Drained);
                entry.due = self.0.tick.get().saturating_add(LAST_WORDS_TICKS).min(NEVER - 1);
            }
        }
    }

    /// Ends reads and writes of all streams.
    pub fn cut_all(&self) {
        for entry in self.0.slab.borrow_mut().entries.iter_mut().flatten() {
            entry.interrupt = Some(Interrupt::Cut);
            entry.hangup.stop_all();
        }
    }

    /// Streams watched.
    pub fn len(&self) -> usize {
        let slab = self.0.slab.borrow();
        slab.entries.len() - slab.free.len()
    }

    /// True when no stream is watched.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Entry {
    fn end(&mut self, cause: Interrupt) {
        if self.interrupt.is_none() {
            self.interrupt = Some(cause);
            self.hangup.stop_reads();
        } else {
            self.hangup.stop_all();
        }
    }
}

/// The entry of one stream.
pub struct Guard {
    watch: Watch,
    index: u32,
}

impl Guard {
    fn entry<R>(&self, act: impl FnOnce(&mut Entry) -> R) -> R {
        let mut slab = self.watch.0.slab.borrow_mut();
        act(slab.entries[self.index as usize].as_mut().expect("a guard owns its entry"))
    }

    /// The stream's reads end if `limit` passes before the next `arm` or
    /// `disarm`, and its writes a few seconds later. Once reads have ended,
    /// this changes nothing: the time for last words is fixed.
    pub fn arm(&self, limit: Duration) {
        // One more than the quotient: the tick under way is partly over.
        let ticks = (limit.as_millis() as u64).div_ceil(TICK_MS) + 1;
        let due = u64::from(self.watch.0.tick.get()) + ticks;
        self.entry(|entry| {
            if entry.interrupt.is_none() {
                entry.due = u32::try_from(due).unwrap_or(NEVER).min(NEVER - 1);
            }
        });
    }

    /// No deadline, until armed again.
    pub fn disarm(&self) {
        self.entry(|entry| {
            if entry.interrupt.is_none() {
                entry.due = NEVER;
            }
        });
    }

    /// Says whether a drain may end this stream's reads now.
    pub fn set_idle(&self, idle: bool) {
        self.entry(|entry| entry.idle = idle);
    }

    /// Why the stream's reads ended, if it was not the peer.
    pub fn interrupted(&self) -> Option<Interrupt> {
        self.entry(|entry| entry.interrupt)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut slab = self.watch.0.slab.borrow_mut();
        slab.entries[self.index as usize] = None;
        slab.free.push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::executor::run_pinned;
    use crate::io::net::{Listener, Stream, listen};

    #[test]
    fn hangs_up_on_the_late_and_the_idle_only() {
        run_pinned("watch", None, || async {
            let listener = Listener::adopt(listen("127.0.0.1:0".parse().unwrap()).unwrap());
            let address = listener.local_addr().unwrap();
            let mut client = Stream::connect(address, Duration::from_secs(5)).await.unwrap();
            let (mut server, _) = listener.accept().await.unwrap();
            let watch = Watch::default();
            let guard = watch.guard(server.hangup());
            guard.arm(Duration::from_millis(TICK_MS));
            watch.tick();
            assert_eq!(guard.interrupted(), None, "one tick may be a short one");
            guard.disarm();
            watch.interrupt_idle();
            watch.tick();
            watch.tick();
            assert_eq!(guard.interrupted(), None);
            guard.arm(Duration::from_millis(TICK_MS));
            watch.tick();
            watch.tick();
            assert_eq!(guard.interrupted(), Some(Interrupt::TimedOut));
            assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
            server.write_all(b"421").await.unwrap();
            let mut got = [0; 8];
            assert_eq!(client.read(&mut got).await.unwrap(), 3);
            guard.disarm();
            for _ in 0..LAST_WORDS_TICKS {
                watch.tick();
            }
            assert!(server.write_all(b"too late").await.is_err());
            assert_eq!(watch.len(), 1);
            drop(guard);
            assert!(watch.is_empty());
        })
        .unwrap()
        .join()
        .unwrap();
    }
}
