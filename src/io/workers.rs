//! A few threads beside the shards for work that would hold one up: hashing
//! passwords, asking sources of users that block. They step aside for shards,
//! and what waits for them is bounded: past that, work is refused.

use std::future::Future;
use std::io;

use async_channel::{Receiver, Sender, bounded};

use crate::io::process;

type Job = Box<dyn FnOnce() + Send>;

/// The threads, shared by all shards. They end when the last of this is dropped.
#[derive(Clone)]
pub struct Workers {
    jobs: Sender<Job>,
}

/// Too much waits already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

impl Workers {
    /// Starts `threads` of them, with room for `waiting` jobs.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn start(name: &str, threads: usize, waiting: usize) -> io::Result<Workers> {
        let (jobs, todo) = bounded(waiting);
        for _ in 0..threads {
            let todo = todo.clone();
            std::thread::Builder::new().name(name.into()).spawn(move || work(&todo))?;
        }
        Ok(Workers { jobs })
    }

    /// Has `work` done; the future is its result.
    ///
    /// # Errors
    /// When too much waits.
    ///
    /// # Panics
    /// The future, if `work` panicked.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<impl Future<Output = T>, Busy> {
        let (done, result) = bounded(1);
        let job = Box::new(move || {
            // Nobody waits any more: the session is gone.
            let _ = done.try_send(work());
        });
        self.jobs.try_send(job).map_err(|_| Busy)?;
        Ok(async move { result.recv().await.expect("the work panicked") })
    }
}

fn work(todo: &Receiver<Job>) {
    // Where it is not permitted, the shards have to share the CPU.
    let _ = process::step_aside();
    while let Ok(job) = todo.recv_blocking() {
        // One job that panics is not to end the thread.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_lite::future::block_on;

    use super::*;

    #[test]
    fn work_is_done_elsewhere_and_bounded() {
        let workers = Workers::start("test", 1, 1).unwrap();
        let here = std::thread::current().id();
        let there = block_on(workers.run(move || std::thread::current().id()).unwrap());
        assert_ne!(here, there);
        let (go, wait) = mpsc::channel::<()>();
        let (started, has_started) = mpsc::channel();
        let first = workers.run(move || {
            started.send(()).unwrap();
            wait.recv().unwrap();
            1
        });
        has_started.recv().unwrap();
        let second = workers.run(|| 2).unwrap();
        assert!(workers.run(|| 3).is_err(), "one works, one waits");
        go.send(()).unwrap();
        assert_eq!((block_on(first.unwrap()), block_on(second)), (1, 2));
    }

    #[test]
    fn a_panic_ends_no_thread() {
        let workers = Workers::start("test", 1, 4).unwrap();
        let broken = workers.run(|| if workers_are_fine() { panic!("on purpose") } else { 0 });
        let caught =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| block_on(broken.unwrap())));
        assert!(caught.is_err());
        assert_eq!(block_on(workers.run(|| 4).unwrap()), 4);
    }

    fn workers_are_fine() -> bool {
        true
    }
}
