//! Which sockets of an executor can be read and written: one epoll set a thread,
//! and one task that looks at it.
//!
//! A socket is registered once, edge-triggered, when it is made. Reads and writes
//! try the system call first; one that finds nothing leaves its task's waker with
//! the [`Source`] of the socket and is woken by the look that finds it ready again.
//! Closing the descriptor takes it out of the set.
//!
//! The task looks without waiting, lets those it has woken run, and looks again, as
//! long as there is something. Only with nothing to do, or a short while after the
//! last time, does it wait for the set itself through glommio's ring: the executor
//! sees its other events then (disk, timers, other threads), and sleeps if there
//! are none. So a socket that becomes ready while the executor is busy costs neither
//! side more than a list entry. With a poll for each socket in the ring it costs an
//! interrupt of this CPU (docs/decisions/0012-readiness.md).

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_lite::AsyncReadExt;

use crate::io::executor::{sleep, spawn, yield_now};
use crate::io::way::Manners;

/// Events taken by one look; what is beyond is found by the next.
const EVENTS_MAX: usize = 256;
/// How long the executor's other events may go unseen while sockets keep it busy.
const OTHERS_AFTER: Duration = Duration::from_micros(150);
/// Operations in a row that a source completes before other tasks get a turn.
const STREAK_MAX: u8 = 32;
/// How often the set is looked at while it cannot be waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

const READABLE: u8 = 1;
const WRITABLE: u8 = 2;
/// Reads or writes end, and no further event will say so.
const ENDED: u8 = 4;

thread_local! {
    static DRIVER: RefCell<Option<Rc<Driver>>> = const { RefCell::new(None) };
}

/// A direction to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Read,
    Write,
}

impl Side {
    fn bit(self) -> u8 {
        match self {
            Side::Read => READABLE,
            Side::Write => WRITABLE,
        }
    }
}

/// An epoll set that no executor looks at yet.
pub(in crate::io) struct Set(OwnedFd);

impl Set {
    /// A new set.
    ///
    /// # Errors
    /// Those of epoll_create1(2): too many open files.
    pub(in crate::io) fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointers.
        let fd = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor is new, and nobody else has it.
        Ok(Set(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes this the set of the calling thread, and has its executor look at it
    /// while `main` runs.
    pub(in crate::io) async fn serve<T>(self, main: impl Future<Output = T>) -> T {
        let driver = Rc::new(Driver { epoll: self.0, slots: RefCell::default() });
        DRIVER.set(Some(Rc::clone(&driver)));
        let looking = spawn(Rc::clone(&driver).run());
        let output = main.await;
        drop(looking);
        driver.forget_waiters();
        output
    }
}

fn checked(status: libc::c_int) -> io::Result<libc::c_int> {
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(status) }
}

/// The sources of one executor.
struct Driver {
    epoll: OwnedFd,
    slots: RefCell<Slots>,
}

#[derive(Default)]
struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

/// A place for a source. Its number and generation are what the kernel hands back
/// with an event; what it has to say of an earlier generation concerns nobody.
#[derive(Default)]
struct Slot {
    generation: u32,
    source: Option<Rc<Source>>,
}

impl Slots {
    fn put(&mut self, source: &Rc<Source>) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.source = Some(Rc::clone(source));
        u64::from(slot.generation) << 32 | u64::from(index)
    }

    fn at(&mut self, key: u64) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(key as u32 as usize)?;
        (slot.generation == (key >> 32) as u32).then_some(slot)
    }

    fn remove(&mut self, key: u64) {
        if let Some(slot) = self.at(key) {
            slot.generation = slot.generation.wrapping_add(1);
            slot.source = None;
            self.free.push(key as u32);
        }
    }
}

impl Driver {
    /// Looks at the set for ever.
    async fn run(self: Rc<Self>) {
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
        let mut others_at = Instant::now();
        let mut manners = Manners::default();
        loop {
            let count = self.look(&mut events);
            manners.give_way();
            if count > 0 && others_at.elapsed() < OTHERS_AFTER {
                yield_now().await;
            } else {
                // Comes back at once if there is something by then.
                self.wait().await;
                others_at = Instant::now();
            }
        }
    }

    /// Lets go of the tasks that wait for a socket: nobody would wake them. With
    /// them go the sockets that they own.
    fn forget_waiters(&self) {
        let sources: Vec<_> =
            self.slots.borrow().slots.iter().filter_map(|slot| slot.source.clone()).collect();
        for source in sources {
            source.forget_waiters();
        }
    }

    /// Wakes whom the set has something for; how many events there were.
    fn look(&self, events: &mut [libc::epoll_event]) -> usize {
        // SAFETY: `events` is room for as many events as its length says, and
        // outlives the call, which does not wait.
        let count = unsafe {
            let room = events.len() as libc::c_int;
            libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), room, 0)
        };
        // The descriptor is an epoll set, so that only EINTR can happen.
        let count = usize::try_from(count).unwrap_or(0);
        for event in &events[..count] {
            let (events, key) = (event.events as libc::c_int, event.u64);
            let source = self.slots.borrow_mut().at(key).and_then(|slot| slot.source.clone());
            if let Some(source) = source {
                source.happened(events);
            }
        }
        count
    }

    /// Waits until the set has something, through glommio's ring.
    async fn wait(&self) {
        let copy = self.epoll.try_clone();
        #[cfg(test)]
        let copy = copy.and_then(tests::unless_there_are_none);
        let Ok(copy) = copy else {
            // No descriptor is left. Timers need none.
            return sleep(LOOK_AGAIN).await;
        };
        // SAFETY: the descriptor is ours, given up by `into_raw_fd`, so that `poll`
        // is its only owner. That it is no TCP socket harms nobody: glommio polls
        // it, calls recv(2) when there is something, and gets ENOTSOCK.
        let mut poll = unsafe { glommio::net::TcpStream::from_raw_fd(copy.into_raw_fd()) };
        let _ = poll.read(&mut [0]).await;
    }

    fn control(&self, fd: RawFd, key: u64) -> io::Result<()> {
        let all = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        let mut event = libc::epoll_event { events: all as u32, u64: key };
        // SAFETY: `event` outlives the call, which only reads it.
        let status =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) };
        checked(status).map(drop)
    }
}

/// What is known of one descriptor, and who waits for it.
pub(super) struct Source {
    driver: Rc<Driver>,
    key: Cell<u64>,
    /// -1 once it is closed, or about to be.
    fd: Cell<RawFd>,
    ready: Cell<u8>,
    streak: Cell<u8>,
    reader: Cell<Option<Waker>>,
    writer: Cell<Option<Waker>>,
}

impl Source {
    fn happened(&self, events: libc::c_int) {
        let mut ready = self.ready.get();
        if events & (libc::EPOLLHUP | libc::EPOLLERR) != 0 {
            ready |= READABLE | WRITABLE | ENDED;
        }
        if events & libc::EPOLLRDHUP != 0 {
            ready |= READABLE | ENDED;
        }
        if events & libc::EPOLLIN != 0 {
            ready |= READABLE;
        }
        if events & libc::EPOLLOUT != 0 {
            ready |= WRITABLE;
        }
        self.set_ready(ready);
    }

    fn set_ready(&self, ready: u8) {
        self.ready.set(ready);
        if ready & READABLE != 0
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
        if ready & WRITABLE != 0
            && let Some(writer) = self.writer.take()
        {
            writer.wake();
        }
    }

    fn forget_waiters(&self) {
        drop((self.reader.take(), self.writer.take()));
    }

    /// Both sides may have ended, by an act of ours.
    pub(super) fn ended(&self) {
        self.set_ready(READABLE | WRITABLE | ENDED);
    }

    /// The descriptor; `None` once it is closed.
    pub(super) fn fd(&self) -> Option<RawFd> {
        let fd = self.fd.get();
        (fd >= 0).then_some(fd)
    }

    /// Reads have taken all that there was: the next will wait for an event.
    pub(super) fn drained(&self) {
        // After the end there is none.
        if self.ready.get() & ENDED == 0 {
            self.clear(Side::Read);
        }
    }

    fn clear(&self, side: Side) {
        self.ready.set(self.ready.get() & !side.bit());
    }

    /// Has the task woken when `side` is ready.
    fn leave(&self, side: Side, cx: &Context<'_>) {
        let place = match side {
            Side::Read => &self.reader,
            Side::Write => &self.writer,
        };
        place.set(Some(cx.waker().clone()));
        self.streak.set(0);
    }

    /// Completes `act`, which never blocks, or has the task woken when `side` is
    /// ready for it.
    pub(super) fn poll<R>(
        &self,
        side: Side,
        cx: &Context<'_>,
        mut act: impl FnMut() -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        if self.ready.get() & side.bit() == 0 {
            self.leave(side, cx);
            return Poll::Pending;
        }
        if self.streak.get() >= STREAK_MAX {
            self.streak.set(0);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            match act() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.clear(side);
                    self.leave(side, cx);
                    return Poll::Pending;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => {
                    self.streak.set(self.streak.get() + 1);
                    return Poll::Ready(result);
                }
            }
        }
    }
}

/// A descriptor that does not block, in the set of the calling thread as long as
/// it lives.
pub(super) struct Registered<T> {
    io: T,
    source: Rc<Source>,
}

impl<T: AsFd> Registered<T> {
    /// Puts `io` into the set of this thread.
    ///
    /// # Errors
    /// Those of epoll_ctl(2): no memory, or too many watches of this user.
    ///
    /// # Panics
    /// On a thread that was not made by `run_pinned`.
    pub(super) fn new(io: T) -> io::Result<Self> {
        let driver = DRIVER.with_borrow(Clone::clone).expect("sockets live on an executor");
        let fd = io.as_fd().as_raw_fd();
        let source = Rc::new(Source {
            driver: Rc::clone(&driver),
            key: Cell::new(0),
            fd: Cell::new(fd),
            ready: Cell::new(0),
            streak: Cell::new(0),
            reader: Cell::default(),
            writer: Cell::default(),
        });
        let key = driver.slots.borrow_mut().put(&source);
        source.key.set(key);
        let registered = Registered { io, source };
        driver.control(fd, key)?;
        Ok(registered)
    }

    pub(super) fn io(&self) -> &T {
        &self.io
    }

    pub(super) fn source(&self) -> &Rc<Source> {
        &self.source
    }
}

impl<T> Drop for Registered<T> {
    fn drop(&mut self) {
        // `io` is closed after this. No copy of it exists but, for a moment, in a
        // process that is being started; what that one causes finds no slot.
        self.source.fd.set(-1);
        self.source.forget_waiters();
        self.source.driver.slots.borrow_mut().remove(self.source.key.get());
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    thread_local! {
        static WITHOUT_COPIES: Cell<bool> = const { Cell::new(false) };
    }

    /// From now on this thread has no descriptor left to wait with.
    pub(in super::super) fn without_copies() {
        WITHOUT_COPIES.set(true);
    }

    pub(super) fn unless_there_are_none(copy: OwnedFd) -> io::Result<OwnedFd> {
        if WITHOUT_COPIES.get() {
            Err(io::Error::from_raw_os_error(libc::EMFILE))
        } else {
            Ok(copy)
        }
    }

    #[test]
    fn what_comes_late_finds_no_slot() {
        crate::io::executor::run_pinned("slots", None, || async {
            let ends = std::os::unix::net::UnixStream::pair().unwrap();
            let first = Registered::new(ends.0).unwrap();
            let driver = Rc::clone(&first.source.driver);
            let (key, at) =
                (first.source.key.get(), |key| driver.slots.borrow_mut().at(key).is_some());
            assert!(at(key));
            drop(first);
            assert!(!at(key));
            let second = Registered::new(ends.1).unwrap();
            assert_eq!(second.source.key.get() as u32, key as u32, "the slot is used again");
            assert!(!at(key) && at(second.source.key.get()));
            driver.slots.borrow_mut().remove(key);
            assert!(at(second.source.key.get()));
        })
        .unwrap()
        .join()
        .unwrap();
    }
}
