//! SIGINT and SIGTERM for the tools: the first asks them to finish and report,
//! the second ends them at once. SIGHUP, as when the terminal is closed, asks like the
//! first, however often it comes; under `nohup` it does nothing.

use std::fs;
use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// How soon the end of the work is noticed.
const POLL: Duration = Duration::from_millis(20);

/// Waits on the calling thread until the thread `work` has ended. Calls `tick`
/// often, with the time since the start; when it says true, or at the first
/// signal, `stop`. True if there was a signal. Where the second ends the program,
/// `at_end` is called before.
///
/// # Errors
/// Signal handlers cannot be installed.
pub fn wait<T>(
    work: &JoinHandle<T>,
    mut tick: impl FnMut(Duration) -> bool,
    mut stop: impl FnMut(),
    at_end: impl Fn(),
) -> io::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before the others: who sees those listened for knows of this one, too.
        let mut hangup = match ignores_hangup() {
            true => None,
            false => Some(signal(SignalKind::hangup())?),
        };
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (start, mut asked) = (Instant::now(), false);
        while !work.is_finished() {
            tokio::select! {
                () = hung_up(&mut hangup) => {
                    asked = true;
                    stop();
                    continue;
                }
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                () = tokio::time::sleep(POLL) => {
                    if tick(start.elapsed()) {
                        stop();
                    }
                    continue;
                }
            }
            if asked {
                at_end();
                std::process::exit(1);
            }
            asked = true;
            stop();
        }
        Ok(asked)
    })
}

/// Waits for a SIGHUP; for ever if it is ignored.
async fn hung_up(hangup: &mut Option<Signal>) {
    match hangup {
        Some(hangup) => drop(hangup.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether this program was started with SIGHUP ignored.
fn ignores_hangup() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // The lowest bit is signal 1.
    ignored.is_some_and(|mask| mask & 1 == 1)
}
