//! Layer 4: taking mail from clients. One [`Receiver`] a shard: its listening
//! sockets, its sessions, their buffers and deadlines.
//!
//! `listener` accepts, `session` drives the dialog, `body` takes a message to
//! the log, `chunks` one that comes by BDAT. What happens to a message after its commit is the shard's business
//! ([`Hooks`]).
//!
//! Invariant: a session answers 250 to a body only after the commit of its
//! message has resolved.

pub mod authority;
pub mod buffer;
pub mod clients;
pub mod hooks;

mod authenticate;
mod body;
mod bounds;
mod chunks;
mod front;
mod listener;
pub mod meters;
mod passage;
mod profile;
mod securing;
mod session;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::base::counters::SharedCounters;
use crate::base::{EnhancedCode, Reply};
use crate::config::Config;
use crate::io::executor::{Task, sleep, spawn};
use crate::io::net::Listener;
use crate::io::store::Store;
use crate::io::tls;
use crate::io::watch::Watch;
use crate::policy::route::Routes;
use crate::queue::Queue;

use authority::Authority;
use buffer::Pool;
use clients::Clients;
pub use hooks::{Accepted, Authenticated, Broken, Hooks, Introduced, Refused};
use meters::Meters;
use profile::Profile;

/// How often a drain looks whether sessions are left.
const QUIET_POLL: Duration = Duration::from_millis(10);

/// What the sessions of a shard share.
pub(crate) struct Shared<S: Store, H: Hooks> {
    config: RefCell<Rc<Config>>,
    profiles: RefCell<Vec<Rc<Profile>>>,
    routes: RefCell<Routes>,
    tls: RefCell<Option<tls::Server>>,
    shards: u16,
    queue: Queue<S>,
    hooks: H,
    authority: Arc<Authority>,
    counters: SharedCounters,
    accept_latency: RefCell<Histogram<u64>>,
    watch: Watch,
    pool: Rc<Pool>,
    clients: Rc<Clients>,
    meters: Arc<Meters>,
    draining: Cell<bool>,
}

impl<S: Store, H: Hooks> Shared<S, H> {
    fn config(&self) -> Rc<Config> {
        Rc::clone(&self.config.borrow())
    }

    /// What holds for new sessions of the listener with this index.
    fn profile(&self, listener: usize) -> Rc<Profile> {
        Rc::clone(&self.profiles.borrow()[listener])
    }

    /// What the handshakes of new TLS connections are done with.
    fn tls(&self) -> Option<tls::Server> {
        self.tls.borrow().clone()
    }

    /// Why no mail is taken now, if so.
    fn refuses_mail(&self) -> Option<Reply> {
        if self.queue.poisoned().is_some() {
            let text = "storage failure, try again later";
            return Some(Reply::new(451, EnhancedCode(4, 3, 0), text));
        }
        self.queue
            .is_full()
            .then(|| Reply::new(452, EnhancedCode(4, 3, 1), "queue is full, try again later"))
    }
}

/// Receiving on one shard.
pub struct Receiver<S: Store, H: Hooks> {
    shared: Rc<Shared<S, H>>,
    accepting: RefCell<Vec<Task<()>>>,
}

impl<S: Store, H: Hooks> Receiver<S, H> {
    /// Receiving that stores in `queue` and tells `hooks`; `shards` is the
    /// number of shards that limits are shared among, `authority` who answers for
    /// users to all of them, `meters` what clients have taken of their rates.
    pub fn new(
        config: Rc<Config>,
        shards: u16,
        queue: Queue<S>,
        hooks: H,
        authority: Arc<Authority>,
        counters: SharedCounters,
        meters: Arc<Meters>,
    ) -> Self {
        let pool = Rc::new(Pool::default());
        pool.memory().set_limit(config.limits.receive_memory / u64::from(shards));
        let shared = Rc::new(Shared {
            profiles: RefCell::new(Profile::all(&config)),
            routes: RefCell::new(Routes::new(&config)),
            config: RefCell::new(config),
            tls: RefCell::default(),
            shards,
            queue,
            hooks,
            authority,
            counters,
            accept_latency: RefCell::new(latency_histogram()),
            watch: Watch::default(),
            pool,
            clients: Rc::default(),
            meters,
            draining: Cell::new(false),
        });
        Receiver { shared, accepting: RefCell::default() }
    }

    /// Starts to accept on `sockets`, each with the index of its listener in the
    /// configuration.
    pub fn start(&self, sockets: Vec<(usize, std::net::TcpListener)>) {
        let mut accepting = self.accepting.borrow_mut();
        accepting.push(spawn(self.shared.watch.clone().run()));
        for (index, socket) in sockets {
            let shared = Rc::clone(&self.shared);
            let accept = listener::accept(shared, index, Listener::adopt(socket));
            accepting.push(spawn(accept));
        }
    }

    /// Uses `config` for new sessions and for the next question of open ones.
    pub fn reload(&self, config: Rc<Config>) {
        let memory = config.limits.receive_memory / u64::from(self.shared.shards);
        self.shared.pool.memory().set_limit(memory);
        *self.shared.profiles.borrow_mut() = Profile::all(&config);
        *self.shared.routes.borrow_mut() = Routes::new(&config);
        *self.shared.config.borrow_mut() = config;
    }

    /// Uses `tls` for the handshakes that begin from now on; without it there are
    /// none.
    pub fn use_tls(&self, tls: Option<tls::Server>) {
        *self.shared.tls.borrow_mut() = tls;
    }

    /// Stops accepting and sends 421 to sessions without a transaction; the
    /// others get it when theirs ends.
    pub async fn drain(&self) {
        self.shared.draining.set(true);
        let mut accepting = self.accepting.take();
        // The first task is the sweeper, which goes on until the end.
        for task in accepting.drain(1..) {
            task.cancel().await;
        }
        self.accepting.replace(accepting);
        self.shared.watch.interrupt_idle();
    }

    /// Returns when no session is left.
    pub async fn quiet(&self) {
        while !self.shared.watch.is_empty() {
            sleep(QUIET_POLL).await;
        }
    }

    /// Ends all sessions at once.
    pub fn cut(&self) {
        self.shared.watch.cut_all();
    }

    /// Open sessions.
    pub fn sessions(&self) -> usize {
        self.shared.watch.len()
    }

    /// Memory that sessions and their buffers take, in bytes.
    pub fn memory(&self) -> usize {
        self.shared.pool.memory().held()
    }

    /// Time from the end of DATA to the end of the commit, in microseconds.
    pub fn accept_latency(&self) -> Histogram<u64> {
        self.shared.accept_latency.borrow().clone()
    }
}

/// 1 µs to 1 minute, two significant digits.
fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 2).expect("the bounds are in order")
}
