//! One core of the load generator: its share of the connections and of the
//! schedule, with its own figures and its own end of the ledger. Workers share
//! nothing that is written but the count of accepted messages, each its own.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringpost::io::executor::{sleep, spawn};
use ringpost::io::watch::Watch;

use super::connection::Connection;
use super::figures::Figures;
use super::plan::Plan;
use super::schedule::Schedule;
use crate::ledger::Writer;

/// Wait before connecting again after a connection that came to nothing.
const RECONNECT_AFTER: Duration = Duration::from_millis(100);

/// How often the ledger is handed to the kernel, and the stop flag looked at.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// What the main thread shares with one worker.
#[derive(Default)]
pub struct Shared {
    /// Messages accepted so far.
    pub accepted: AtomicU64,
    /// Set to end the run before its time.
    pub stop: AtomicBool,
}

/// One worker.
pub struct Worker {
    /// The run.
    pub plan: Arc<Plan>,
    /// Which messages are its.
    pub schedule: Schedule,
    /// What it has counted.
    pub figures: RefCell<Figures>,
    /// Its end of the ledger.
    pub ledger: RefCell<Option<Writer>>,
    /// The deadlines of its connections.
    pub watch: Watch,
    /// Messages that began earlier are warm-up.
    pub measure_from: Instant,
    shared: Arc<Shared>,
    last_heard: Cell<Instant>,
}

impl Worker {
    /// A worker on the executor of the calling thread.
    ///
    /// # Errors
    /// The ledger cannot be opened.
    pub fn new(
        plan: Arc<Plan>,
        schedule: Schedule,
        measure_from: Instant,
        shared: Arc<Shared>,
    ) -> io::Result<Rc<Self>> {
        let ledger = plan.ledger.as_deref().map(Writer::open).transpose()?;
        Ok(Rc::new(Worker {
            plan,
            schedule,
            figures: RefCell::default(),
            ledger: RefCell::new(ledger),
            watch: Watch::default(),
            measure_from,
            shared,
            last_heard: Cell::new(Instant::now()),
        }))
    }

    /// Runs `connections` at a time until the schedule is over.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub async fn run(self: Rc<Self>, connections: u32) -> io::Result<Figures> {
        spawn(self.watch.clone().run()).detach();
        let housekeeping = spawn(Rc::clone(&self).keep_house());
        let tasks: Vec<_> =
            (0..connections).map(|_| spawn(Rc::clone(&self).keep_connected())).collect();
        for task in tasks {
            task.await;
        }
        housekeeping.cancel().await;
        self.flush()?;
        Ok(self.figures.take())
    }

    /// One connection after the other.
    async fn keep_connected(self: Rc<Self>) {
        while !self.schedule.is_over(Instant::now()) {
            match Connection::open(Rc::clone(&self)).await {
                Ok(connection) => {
                    if !connection.run().await {
                        sleep(RECONNECT_AFTER).await;
                    }
                }
                Err(error) => {
                    self.figures.borrow_mut().error("connecting", error.to_string());
                    if self.last_heard.get().elapsed() > self.plan.timeout {
                        self.schedule.stop();
                    }
                    sleep(RECONNECT_AFTER).await;
                }
            }
        }
    }

    async fn keep_house(self: Rc<Self>) {
        loop {
            sleep(HOUSEKEEPING).await;
            if self.flush().is_err() || self.shared.stop.load(Ordering::Relaxed) {
                self.schedule.stop();
            }
        }
    }

    fn flush(&self) -> io::Result<()> {
        self.ledger.borrow_mut().as_mut().map_or(Ok(()), Writer::flush)
    }

    /// The server has shown itself.
    pub fn heard_from_server(&self) {
        self.last_heard.set(Instant::now());
    }

    /// One more message accepted, for the line of progress.
    pub fn count_accepted(&self) {
        // This worker is the only writer.
        let count = self.shared.accepted.load(Ordering::Relaxed);
        self.shared.accepted.store(count + 1, Ordering::Relaxed);
    }
}
