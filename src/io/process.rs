//! What the kernel grants this process: CPUs, open files, its turn, and a
//! terminal.

use std::io;
use std::mem::MaybeUninit;

/// The CPUs that this process may run on, ascending (sched_getaffinity(2)).
///
/// # Errors
/// The kernel knows more CPUs than a `cpu_set_t` has room for.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: `set` is room for one cpu_set_t of the size given, and outlives
    // the call; 0 means the calling thread.
    let status =
        unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr()) };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeroes is a valid cpu_set_t, and the call filled it.
    let set = unsafe { set.assume_init() };
    let is_in = |cpu: &usize| {
        // SAFETY: `cpu` is below CPU_SETSIZE, the number of bits of the set.
        unsafe { libc::CPU_ISSET(*cpu, &set) }
    };
    Ok((0..libc::CPU_SETSIZE as usize).filter(is_in).collect())
}

/// Raises the limit of open files as far as it goes without privileges, and
/// returns it.
///
/// # Errors
/// Those of setrlimit(2).
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is one rlimit that outlives the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above; the kernel only reads it.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}

/// Niceness of what must not disturb a server on the same machine.
const ASIDE: libc::c_int = 10;

/// Lets others have the CPU before the calling thread: niceness 10.
///
/// # Errors
/// Those of setpriority(2).
pub fn step_aside() -> io::Result<()> {
    // SAFETY: the call takes plain numbers; 0 means the calling thread.
    let status = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, ASIDE) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Runs `read` while the terminal of standard input does not show what is typed.
///
/// # Errors
/// Standard input is no terminal.
pub fn unseen<T>(read: impl FnOnce() -> T) -> io::Result<T> {
    let mut before = MaybeUninit::<libc::termios>::zeroed();
    // SAFETY: `before` is room for one termios and outlives the call.
    if unsafe { libc::tcgetattr(libc::STDIN_FILENO, before.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call filled it.
    let before = unsafe { before.assume_init() };
    let mut unseen = before;
    unseen.c_lflag &= !libc::ECHO;
    let set = |to: &libc::termios| {
        // SAFETY: `to` is one termios that outlives the call; it is only read.
        unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSAFLUSH, to) }
    };
    if set(&unseen) != 0 {
        return Err(io::Error::last_os_error());
    }
    let text = read();
    set(&before);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_steps_aside_alone() {
        let niceness = || {
            // SAFETY: the call takes plain numbers; 0 means the calling thread.
            unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
        };
        let before = niceness();
        let aside = std::thread::spawn(move || {
            step_aside().unwrap();
            niceness()
        });
        assert_eq!(aside.join().unwrap(), before.max(ASIDE));
        assert_eq!(niceness(), before);
    }

    #[test]
    fn there_is_a_cpu_and_room_for_files() {
        let cpus = allowed_cpus().unwrap();
        assert!(!cpus.is_empty() && cpus.is_sorted());
        assert_eq!(cpus.len(), std::thread::available_parallelism().unwrap().get());
        let files = raise_open_files().unwrap();
        assert!(files > 3);
        assert_eq!(raise_open_files().unwrap(), files);
    }
}
