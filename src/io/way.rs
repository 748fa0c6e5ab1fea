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
//! millisecond then. Its share of the CPU stays what it was.
//!
//! `uring::file` says what is under way ([`Awaited`]), `net::readiness` gives way
//! between its looks (docs/decisions/0014-giving-way.md).

use std::cell::Cell;
use std::io;
use std::time::Duration;

/// The shortest slice that the kernel gives. Linux 6.12 and later give it; earlier ones
/// take the wish and leave the slice as it is.
const SLICE: Duration = Duration::from_micros(100);

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

/// Whether and how a thread gives way.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Manners {
    /// It has had no reason to.
    #[default]
    Untried,
    /// In slices of [`SLICE`].
    Yields,
    /// It does not get such slices, and whole ones are too much to give.
    Keeps,
}

impl Manners {
    /// Lets other threads onto this CPU if a write is under way.
    pub(super) fn give_way(&mut self) {
        if AWAITED.get() == 0 {
            return;
        }
        if *self == Manners::Untried {
            *self = match set_slice(SLICE) {
                Ok(()) => Manners::Yields,
                Err(_) => Manners::Keeps,
            };
        }
        if *self == Manners::Yields {
            // SAFETY: the call takes no pointers and always succeeds.
            unsafe { libc::sched_yield() };
        }
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
        assert_eq!(manners, Manners::Untried);
        let (one, two) = (Awaited::new(), Awaited::new());
        drop(one);
        manners.give_way();
        assert_ne!(manners, Manners::Untried);
        drop(two);
        assert_eq!(AWAITED.get(), 0);
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
