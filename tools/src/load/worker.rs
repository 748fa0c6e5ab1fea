//! One core of the load generator: its share of the connections and of the
//! schedule, with its own figures and its own end of the ledger. Workers share
//! nothing that is written but the count of accepted messages, each its own.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringpost::io::executor::{sleep, spawn};
use ringpost::io::tls::Client;
use ringpost::io::watch::Watch;
use ringpost::proto::sasl::client::{Derivation, Derived};

use super::connection::Connection;
use super::figures::{Figures, Glance};
use super::gate::Gate;
use super::plan::Plan;
use super::schedule::Schedule;
use super::security::Tls;
use crate::draw::{Draw, seed};
use crate::ledger::Writer;

/// Wait before connecting again after a connection that came to nothing.
const RECONNECT_AFTER: Duration = Duration::from_millis(100);

/// Sessions that may come to nothing for want of TLS or AUTH before the first has
/// come to mail: then none will.
const OPENINGS: u32 = 16;

/// How often the ledger is handed to the kernel, and the stop flag looked at.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// What the main thread shares with one worker.
#[derive(Default)]
pub struct Shared {
    /// Messages accepted so far.
    pub accepted: AtomicU64,
    /// Set to end the run before its time.
    pub stop: AtomicBool,
    /// How it goes, renewed several times a second if someone watches.
    pub glance: Mutex<Glance>,
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
    /// For what is left to chance.
    pub draw: RefCell<Draw>,
    /// The client's side of TLS.
    pub tls: Option<Client>,
    /// Openings that came to nothing; `None` once one has come to mail.
    failed_openings: Cell<Option<u32>>,
    /// Where connections wait until they may be opened, if they may not all at once.
    gate: Option<Gate>,
    /// Why no session will ever come to mail.
    hopeless: RefCell<Option<String>>,
    /// The last hashing of a password that a server asked for.
    derived: RefCell<Option<(Derivation, Derived)>>,
    start: Instant,
    share: (usize, usize),
    connections: Cell<u64>,
    shared: Arc<Shared>,
    last_heard: Cell<Instant>,
}

impl Worker {
    /// A worker, the `share.0`th of `share.1`, on the executor of the calling
    /// thread, that opens at most `opening` connections at a time.
    ///
    /// # Errors
    /// The ledger cannot be opened.
    pub fn new(
        plan: Arc<Plan>,
        schedule: Schedule,
        share: (usize, usize),
        (start, measure_from): (Instant, Instant),
        (shared, opening): (Arc<Shared>, Option<u32>),
    ) -> io::Result<Rc<Self>> {
        let ledger = plan.ledger.as_deref().map(Writer::open).transpose()?;
        Ok(Rc::new(Worker {
            schedule,
            figures: RefCell::new(Figures::of_plan(&plan, start)),
            ledger: RefCell::new(ledger),
            watch: Watch::default(),
            measure_from,
            draw: RefCell::new(Draw::new(seed())),
            tls: plan.tls.as_ref().map(Tls::client),
            failed_openings: Cell::new(Some(0)),
            gate: opening.map(Gate::new),
            hopeless: RefCell::new(None),
            derived: RefCell::new(None),
            start,
            share,
            connections: Cell::new(0),
            plan,
            shared,
            last_heard: Cell::new(Instant::now()),
        }))
    }

    /// Runs `connections` at a time until the schedule is over.
    ///
    /// # Errors
    /// The ledger cannot be written, or no session came to mail for a reason that
    /// will not go away.
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
        if let Some(why) = self.hopeless.take() {
            return Err(io::Error::other(why));
        }
        let nothing = Figures::of_plan(&self.plan, self.start);
        Ok(self.figures.replace(nothing))
    }

    /// One connection after the other.
    async fn keep_connected(self: Rc<Self>) {
        while !self.schedule.is_over(Instant::now()) {
            let turn = match &self.gate {
                Some(gate) => Some(gate.enter().await),
                None => None,
            };
            if self.schedule.is_over(Instant::now()) {
                return;
            }
            match Connection::open(Rc::clone(&self), turn).await {
                Ok(connection) => {
                    if !connection.run().await {
                        self.give_up_in_time();
                        sleep(RECONNECT_AFTER).await;
                    }
                }
                Err(error) => {
                    self.figures.borrow_mut().error("connecting", error.to_string());
                    self.give_up_in_time();
                    sleep(RECONNECT_AFTER).await;
                }
            }
        }
    }

    /// How long a connection may take to be made from `now` on: in a closed loop
    /// nothing would be sent on it after the end of the run.
    pub fn patience(&self, now: Instant) -> Duration {
        let end = self.schedule.until_end(now).filter(|_| self.plan.profile.is_none());
        end.map_or(self.plan.timeout, |left| left.min(self.plan.timeout))
    }

    /// Ends the run if the server has not shown itself for too long.
    fn give_up_in_time(&self) {
        if self.last_heard.get().elapsed() > self.plan.timeout {
            self.schedule.stop();
        }
    }

    async fn keep_house(self: Rc<Self>) {
        loop {
            sleep(HOUSEKEEPING).await;
            if self.plan.watched {
                let glance = self.figures.borrow().glance();
                *self.shared.glance.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) =
                    glance;
            }
            if self.flush().is_err() || self.shared.stop.load(Ordering::Relaxed) {
                self.schedule.stop();
            }
            if self.schedule.is_over(Instant::now()) {
                // Whoever was not greeted yet has nothing to send any more.
                self.watch.interrupt_idle();
            }
        }
    }

    fn flush(&self) -> io::Result<()> {
        self.ledger.borrow_mut().as_mut().map_or(Ok(()), Writer::flush)
    }

    /// The number of a connection that is about to be made: unique in the run.
    pub fn next_connection(&self) -> u64 {
        let (index, workers) = self.share;
        let count = self.connections.replace(self.connections.get() + 1);
        index as u64 + count * workers as u64
    }

    /// The part of the profile that `at` is in.
    pub fn part_of(&self, at: Instant) -> Option<usize> {
        let profile = self.plan.profile.as_ref()?;
        profile.part_of(at.saturating_duration_since(self.start))
    }

    /// A session has come to where mail can be sent.
    pub fn opened(&self) {
        self.failed_openings.set(None);
        self.heard_from_server();
    }

    /// A session has not, in these words. It ends the run if none ever has, `at_once`
    /// or after some more.
    pub fn not_opened(&self, why: &str, at_once: bool) {
        let Some(failed) = self.failed_openings.get() else { return };
        self.failed_openings.set(Some(failed + 1));
        if at_once || failed + 1 >= OPENINGS {
            self.hopeless.borrow_mut().get_or_insert_with(|| why.to_owned());
            self.schedule.stop();
        }
    }

    /// Hashes the password as a server asks for it, once for all connections.
    pub fn derive(&self, work: Derivation) -> Derived {
        let mut kept = self.derived.borrow_mut();
        match &*kept {
            Some((known, derived)) if *known == work => derived.clone(),
            _ => {
                let derived = work.run();
                *kept = Some((work, derived.clone()));
                derived
            }
        }
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
