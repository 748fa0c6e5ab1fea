//! One core of the sink: its listening sockets, its sessions, its counts and
//! its end of the ledger.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringpost::io::executor::{Task, sleep, spawn};
use ringpost::io::net::Listener;
use ringpost::io::tls::Conn;
use ringpost::io::watch::Watch;
use ringpost::proto::smtp::server::{Offers, Settings, Spec};
use ringpost::receive::buffer::Pool;

use super::limits::Limits;
use super::mood::Habits;
use super::options::Options;
use super::receipt::Maildir;
use super::secure::Belief;
use super::session::Session;
use super::tls::Tls;
use crate::ledger::Writer;

/// How often the ledger is handed to the kernel, and the stop flag looked at.
const HOUSEKEEPING: Duration = Duration::from_millis(50);

/// How long a client may be silent.
const PATIENCE: Duration = Duration::from_secs(300);

/// Time after a failed accept(2), which mostly means that descriptors ran out.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// What the main thread shares with one worker.
#[derive(Default)]
pub struct Shared {
    /// Messages taken.
    pub taken: AtomicU64,
    /// Their octets.
    pub bytes: AtomicU64,
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Set to end the worker.
    pub stop: AtomicBool,
}

/// One worker.
pub struct Worker {
    /// Its number.
    pub index: u16,
    /// Of the SMTP engine.
    pub settings: Arc<Settings>,
    /// Whether messages are looked at at all.
    pub discard: bool,
    /// Whether a line is printed for each message.
    pub prints: bool,
    /// Where messages are kept.
    pub maildir: Option<Maildir>,
    /// Its end of the ledger.
    pub ledger: RefCell<Option<Writer>>,
    /// The deadlines of its sessions.
    pub watch: Watch,
    /// What its sessions borrow while they take a message.
    pub pool: Rc<Pool>,
    /// How long a client may be silent.
    pub patience: Duration,
    /// The server's side of TLS.
    pub tls: Arc<Option<Tls>>,
    /// Whom it believes.
    pub belief: Belief,
    /// How its sessions misbehave.
    pub habits: Rc<Habits>,
    connections: Cell<u64>,
    taken: Cell<u64>,
    shared: Arc<Shared>,
}

impl Worker {
    /// A worker on the executor of the calling thread.
    ///
    /// # Errors
    /// The ledger or the Maildir cannot be opened.
    pub fn new(
        index: u16,
        options: &Options,
        (seed, limits): (u64, Arc<Limits>),
        (tls, belief): (Arc<Option<Tls>>, Belief),
        shared: Arc<Shared>,
    ) -> io::Result<Rc<Self>> {
        let size = options.message_size;
        // A client that makes errors on purpose is what some tests are about.
        let settings = Settings::new(Spec {
            hostname: options.hostname.clone(),
            message_size: size,
            recipients_max: u32::from(u16::MAX),
            errors_max: u32::MAX,
            offers: Offers {
                starttls: tls.is_some(),
                auth: belief.mechanisms,
                ..Offers::default()
            },
            idle_commands_max: u32::MAX,
            ..Spec::default()
        });
        let prints = !options.discard && options.ledger.is_none() && options.maildir.is_none();
        Ok(Rc::new(Worker {
            index,
            settings: Arc::new(settings),
            discard: options.discard,
            prints,
            maildir: options.maildir.as_deref().map(Maildir::open).transpose()?,
            ledger: RefCell::new(options.ledger.as_deref().map(Writer::open).transpose()?),
            watch: Watch::default(),
            pool: Rc::default(),
            patience: PATIENCE,
            tls,
            belief,
            habits: Rc::new(Habits::new(options, seed, limits)),
            connections: Cell::new(0),
            taken: Cell::new(0),
            shared,
        }))
    }

    /// Serves on `listeners` until told to stop.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub async fn run(self: Rc<Self>, listeners: Vec<TcpListener>) -> io::Result<()> {
        spawn(self.watch.clone().run()).detach();
        let adopt = |listener| spawn(Rc::clone(&self).accept(Listener::adopt(listener)));
        let accepting: Vec<Task<()>> = listeners.into_iter().map(adopt).collect();
        while !self.shared.stop.load(Ordering::Relaxed) {
            sleep(HOUSEKEEPING).await;
            self.flush()?;
        }
        for task in accepting {
            task.cancel().await;
        }
        self.watch.cut_all();
        self.flush()
    }

    async fn accept(self: Rc<Self>, listener: Listener) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    self.shared.connections.fetch_add(1, Ordering::Relaxed);
                    let stream = Conn::plain(stream);
                    spawn(Session::new(Rc::clone(&self), stream, peer.ip()).run()).detach();
                }
                Err(_) => sleep(ACCEPT_AGAIN).await,
            }
        }
    }

    fn flush(&self) -> io::Result<()> {
        self.ledger.borrow_mut().as_mut().map_or(Ok(()), Writer::flush)
    }

    /// Counts a message; returns its number on this worker.
    pub fn count_taken(&self, size: u64) -> u64 {
        let count = self.taken.get() + 1;
        self.taken.set(count);
        // This worker is the only writer of its counts.
        self.shared.taken.store(count, Ordering::Relaxed);
        let bytes = self.shared.bytes.load(Ordering::Relaxed);
        self.shared.bytes.store(bytes + size, Ordering::Relaxed);
        count
    }

    /// The number of a connection just accepted: with several workers, which of
    /// them the kernel gives it to is chance.
    pub fn next_connection(&self) -> u64 {
        let count = self.connections.replace(self.connections.get() + 1);
        (u64::from(self.index) << 48) | count
    }
}
