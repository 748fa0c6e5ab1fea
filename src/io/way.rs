//! Giving way: an executor that waits for a write to its log lets the kernel's
//! workers onto its CPU, since one of them may be what the write waits for.
//!
//! The end of a direct write that must be durable is the work of kernel threads bound
//! to the CPU that the disk interrupts: they ask for the flush, and tell the ring when
//! it is done. A thread that is busy on that CPU is not preempted for them before its
//! time slice ends, up to 4 ms later, so the busier a shard is with its sockets the
//! later it hears that its batch is durable. `sched_yield(2)` between two rounds lets
//! them in at once, and costs half a microsecond where nobody waits.
//!
//! A yield gives up the rest of the slice, to other programs on this CPU too. So the
//! thread asks for the shortest slices that there are: it gives up a tenth of a
//! millisecond then. Its share of the CPU stays what it was. And what a yield took tells
//! who was let in: after one of more than [`LONG`] there is none for [`REST`].
//!
//! `uring::file` says what is under way ([`Awaited`]), `net::readiness` gives way
//! between its looks (docs/decisions/0014-giving-way.md).

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

/// The shortest slice that the kernel gives. Linux 6.12 and later give it; earlier ones
/// take the wish and leave the slice as it is.
const SLICE: Duration = Duration::from_micros(100);

/// A kernel worker is done in less; longer is another program's slice.
const LONG: Duration = Duration::from_micros(60);
/// How long the CPU is kept after that: another program that is always busy gets a
/// hundredth of the time by yields.
const REST: Duration = Duration::from_millis(20);

thread_local! {
    static AWAITED: Cell<usize> = const { Cell::new(0) };
}

/// A write or flush of this thread's executor that is under way, as long as it lives.
pub(super) struct Awaited(());

impl Awaited {
    pub(super) fn new() -> Self {
        AWAITED.set(AWAITED.get() + 1);
        Awaited(())
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        AWAITED.set(AWAITED.get() - 1);
    }
}

/// Whether a thread gets the slices in which it can give way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Slices {
    /// It has had no reason to ask.
    #[default]
    Unasked,
    /// It does.
    Short,
    /// It does not, and whole ones are too much to give.
    Whole,
}

/// How a thread gives way.
#[derive(Debug, Default)]
pub(super) struct Manners {
    slices: Slices,
    /// It keeps the CPU until then.
    rests_until: Option<Instant>,
}

impl Manners {
    /// Lets other threads onto this CPU if a write is under way.
    pub(super) fn give_way(&mut self) {
        if AWAITED.get() == 0 {
            return;
        }
        if self.slices == Slices::Unasked {
            self.slices = set_slice(SLICE).map_or(Slices::Whole, |()| Slices::Short);
        }
        let before = Instant::now();
        if self.slices == Slices::Short && self.rests_until.is_none_or(|until| before >= until) {
            // SAFETY: the call takes no pointers and always succeeds.
            unsafe { libc::sched_yield() };
            self.took(before, Instant::now());
        }
    }

    /// A yield took from `before` to `after`.
    fn took(&mut self, before: Instant, after: Instant) {
        let is_long = after.saturating_duration_since(before) > LONG;
        self.rests_until = is_long.then(|| after + REST);
    }
}

/// `struct sched_attr` of sched_setattr(2), as first published: all kernels take it.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime_ns: u64,
    deadline_ns: u64,
    period_ns: u64,
}

/// Asks for slices of this length for the calling thread, and leaves its policy and
/// priority as they are.
///
/// # Errors
/// Those of sched_getattr(2) and sched_setattr(2); `Unsupported` for a kernel that gives no
/// such slices, and for a thread with another policy, where a slice means something else.
fn set_slice(slice: Duration) -> io::Result<()> {
    let mut attributes = attributes()?;
    if attributes.policy != libc::SCHED_OTHER as u32 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    attributes.size = size_of::<Attributes>() as u32;
    attributes.runtime_ns = slice.as_nanos() as u64;
    // SAFETY: `attributes` outlives the call, which reads as many bytes as it says.
    checked(unsafe {
        libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0 as libc::c_uint)
    })?;
    // Before 6.12 the wish is taken and forgotten.
    let got = self::attributes()?.runtime_ns;
    if got == attributes.runtime_ns { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) }
}

/// Those of the calling thread.
///
/// # Errors
/// Those of sched_getattr(2).
fn attributes() -> io::Result<Attributes> {
    let size = size_of::<Attributes>() as libc::c_uint;
    let mut attributes = Attributes::default();
    // SAFETY: `attributes` is room for `size` bytes, which the call fills at most.
    let status = unsafe {
        libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0 as libc::c_uint)
    };
    checked(status).map(|()| attributes)
}

fn checked(status: libc::c_long) -> io::Result<()> {
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gives_way_without_a_write() {
        let mut manners = Manners::default();
        manners.give_way();
        assert_eq!(manners.slices, Slices::Unasked);
        let (one, two) = (Awaited::new(), Awaited::new());
        drop(one);
        manners.give_way();
        assert_ne!(manners.slices, Slices::Unasked);
        drop(two);
        assert_eq!(AWAITED.get(), 0);
    }

    #[test]
    fn the_cpu_is_kept_for_a_while_after_a_long_yield() {
        let mut manners = Manners::default();
        let now = Instant::now();
        manners.took(now, now + LONG);
        assert_eq!(manners.rests_until, None);
        manners.took(now, now + 2 * LONG);
        assert_eq!(manners.rests_until, Some(now + 2 * LONG + REST));
        manners.took(now, now);
        assert_eq!(manners.rests_until, None);
        // A clock that stands or goes back is no long yield.
        manners.took(now + LONG, now);
        assert_eq!(manners.rests_until, None);
        // No yield, which would end the rest.
        let later = Some(now + Duration::from_secs(3600));
        let _write = Awaited::new();
        manners.rests_until = later;
        manners.give_way();
        assert_eq!(manners.rests_until, later);
    }

    #[test]
    fn a_short_slice_keeps_the_priority() {
        let before = attributes().unwrap();
        let set = set_slice(SLICE);
        let after = attributes().unwrap();
        assert_eq!((after.policy, after.nice), (before.policy, before.nice));
        assert_eq!(set.is_ok(), after.runtime_ns == 100_000);
        assert!(set.is_ok() || after.runtime_ns == before.runtime_ns);
    }

    #[test]
    fn a_real_time_thread_keeps_its_policy() {
        let parameters = libc::sched_param { sched_priority: 1 };
        // SAFETY: `parameters` outlives the call.
        let status = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const parameters) };
        if status < 0 {
            return; // Only privileged users may.
        }
        assert_eq!(set_slice(SLICE).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}
