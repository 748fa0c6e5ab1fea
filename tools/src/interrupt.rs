//! SIGINT and SIGTERM for the tools: the first asks them to finish and report,
//! the second ends them at once.

use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

/// How soon the end of the work is noticed.
const POLL: Duration = Duration::from_millis(20);

/// Waits on the calling thread until the thread `work` has ended. Calls `tick`
/// often, with the time since the start; when it says true, or at the first
/// signal, `stop`. True if there was a signal.
///
/// # Errors
/// Signal handlers cannot be installed.
pub fn wait<T>(
    work: &JoinHandle<T>,
    mut tick: impl FnMut(Duration) -> bool,
    mut stop: impl FnMut(),
) -> io::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (start, mut asked) = (Instant::now(), false);
        while !work.is_finished() {
            tokio::select! {
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
                std::process::exit(1);
            }
            asked = true;
            stop();
        }
        Ok(asked)
    })
}
