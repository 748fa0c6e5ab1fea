//! Pinned executors, tasks and timers: the part of glommio that the rest of
//! ringpost and its tools use, under our own names.
//!
//! [`run_pinned`] makes one executor on one core and runs a future there; tasks
//! spawned inside stay on that core. Channels between executors and from the
//! control thread are `async_channel`'s: its wakers work across threads, and
//! every message on them is a batch or cold.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use futures_lite::future;
use glommio::{LocalExecutorBuilder, Placement};

use super::net::Set;

/// A thread that runs one executor.
pub struct Pinned<T: Send + 'static> {
    handle: glommio::ExecutorJoinHandle<T>,
}

impl<T: Send + 'static> Pinned<T> {
    /// Waits for the executor's future; an error if its thread panicked.
    pub fn join(self) -> io::Result<T> {
        self.handle.join().map_err(|error| io::Error::other(error.to_string()))
    }
}

/// Starts a thread named `name` with an executor pinned to CPU `cpu` (unpinned
/// with `None`) and runs the future that `make` returns on it.
///
/// # Errors
/// When the kernel refuses io_uring or the CPU does not exist.
pub fn run_pinned<F, Fut, T>(name: &str, cpu: Option<usize>, make: F) -> io::Result<Pinned<T>>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let placement = cpu.map_or(Placement::Unbound, Placement::Fixed);
    let set = Set::new()?;
    let handle = LocalExecutorBuilder::new(placement)
        .name(name)
        .ring_depth(1024)
        .spawn(move || async move { set.serve(async { make().await }).await })
        .map_err(|error| {
            io::Error::other(format!(
                "cannot start an io_uring executor{}: {error}. ringpost needs Linux 5.8 or later, \
                 io_uring allowed (kernel.io_uring_disabled = 0, no seccomp filter against it) and \
                 512 KiB of locked memory (ulimit -l)",
                cpu.map_or(String::new(), |cpu| format!(" on CPU {cpu}"))
            ))
        })?;
    Ok(Pinned { handle })
}

/// A task on this executor. Dropping it cancels the task; [`Task::detach`] lets
/// it run.
pub struct Task<T>(glommio::Task<T>);

impl<T: 'static> Task<T> {
    /// Lets the task run to its end by itself.
    pub fn detach(self) {
        self.0.detach();
    }

    /// Stops the task; returns its output if it had finished.
    pub async fn cancel(self) -> Option<T> {
        self.0.cancel().await
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<T> {
        Pin::new(&mut self.0).poll(cx)
    }
}

/// Spawns a task on the executor of the calling thread.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    Task(glommio::spawn_local(future))
}

/// Sleeps on the executor of the calling thread.
pub async fn sleep(span: Duration) {
    glommio::timer::sleep(span).await;
}

/// Lets other tasks of this executor run.
pub async fn yield_now() {
    glommio::executor().yield_now().await;
}

/// Lets other tasks of this executor run, and the kernel's answers and timers in.
/// While a task goes on after [`yield_now`] again and again, those are looked for
/// only every 100 ms, unless a socket has something: work without I/O in it takes
/// this.
pub async fn pause() {
    sleep(Duration::from_micros(20)).await;
}

/// `future`'s output, or `None` if `limit` passed first.
pub async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    future::or(async { Some(future.await) }, async {
        sleep(limit).await;
        None
    })
    .await
}

/// Runs blocking `work` on a helper thread of this executor.
pub async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    glommio::executor().spawn_blocking(work).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_tasks_timers_and_foreign_wakers() {
        let (to_shard, from_main) = async_channel::bounded::<u32>(1);
        let (to_main, from_shard) = async_channel::bounded::<u32>(1);
        let thread = run_pinned("test", None, move || async move {
            let doubled = spawn(async move {
                let got = from_main.recv().await.unwrap();
                to_main.send(got * 2).await.unwrap();
                got
            });
            assert_eq!(
                within(Duration::from_millis(1), sleep(Duration::from_secs(60))).await,
                None
            );
            doubled.await
        })
        .unwrap();
        to_shard.send_blocking(21).unwrap();
        assert_eq!(from_shard.recv_blocking(), Ok(42));
        assert_eq!(thread.join().unwrap(), 21);
    }

    #[test]
    fn a_pause_lets_timers_in() {
        let thread = run_pinned("test", None, || async {
            let timer = spawn(sleep(Duration::from_millis(1)));
            let mut pauses = 0;
            let work = async {
                loop {
                    pause().await;
                    pauses += 1;
                }
            };
            future::or(timer, work).await;
            pauses
        })
        .unwrap();
        // Without them it would be a matter of chance and of 100 ms.
        assert!(thread.join().unwrap() < 1000);
    }
}
