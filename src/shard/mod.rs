//! One core: its parts, built and wired.

pub mod control;
pub mod maillog;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use async_channel::{Receiver, Sender};

use crate::base::ShardId;
use crate::config::Config;
use crate::shard::control::Request;
use crate::shard::maillog::LogSink;

/// What a shard is made of.
pub struct ShardPlan {
    /// Its number, and that of the log it writes.
    pub id: ShardId,
    /// How many shards there are.
    pub shards: u16,
    /// The CPU to pin it to; `None` leaves it to the kernel.
    pub cpu: Option<usize>,
    /// The configuration it starts with.
    pub config: Arc<Config>,
    /// Its own listening sockets, one for each address.
    pub listeners: Vec<TcpListener>,
    /// Where its log lines go.
    pub log: LogSink,
}

/// What a shard found in its logs when it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Messages that are still to be delivered.
    pub messages: u64,
    /// What an operator should know: tails cut, records quarantined, files
    /// that do not belong here.
    pub notes: Vec<String>,
}

/// A running shard as the control thread holds it.
pub struct ShardHandle {
    /// Which.
    pub id: ShardId,
    /// Where it takes requests; closed once it has ended.
    pub requests: Sender<Request<Config>>,
    /// Says once whether the shard has recovered its logs and is listening, or
    /// why it could not.
    pub ready: Receiver<Result<Recovered, String>>,
    thread: Box<dyn FnOnce() -> io::Result<()> + Send>,
}

impl ShardHandle {
    /// A handle; `thread` waits for the shard's end.
    pub fn new(
        id: ShardId,
        requests: Sender<Request<Config>>,
        ready: Receiver<Result<Recovered, String>>,
        thread: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Self {
        ShardHandle { id, requests, ready, thread: Box::new(thread) }
    }

    /// Waits for the shard's end.
    ///
    /// # Errors
    /// Its thread panicked.
    pub fn join(self) -> io::Result<()> {
        (self.thread)()
    }
}

/// Starts a shard for each plan, each on a thread of its own.
///
/// # Errors
/// A thread or its io_uring could not be made.
pub fn start(plans: Vec<ShardPlan>) -> io::Result<Vec<ShardHandle>> {
    let planned = plans.len();
    Err(io::Error::new(io::ErrorKind::Unsupported, format!("no parts for {planned} shards")))
}
