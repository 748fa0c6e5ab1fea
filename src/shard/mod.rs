//! Layer 5: one core. [`start`] makes a pinned executor for each plan and joins
//! them by a mesh; `core` is the wiring of one, `hooks` where receiving and
//! relaying meet, `logs` what a shard opens, `control` what the control thread may
//! ask, `answer` and `order` what it gets back, by way of `scan` and `select` from
//! the logs and of `guide` from the relay; `turns` what clients may order.

mod answer;
pub mod control;
mod core;
mod guide;
mod hooks;
mod logs;
pub mod maillog;
mod mesh;
pub mod order;
mod scan;
pub mod select;
mod shelf;
#[cfg(test)]
mod tests;
mod turns;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use async_channel::{Receiver, Sender};

use crate::base::ShardId;
use crate::config::Config;
use crate::io::executor::run_pinned;
use crate::io::tls;
use crate::receive::authority::Authority;
use crate::receive::meters::Meters;
use crate::relay::Accounts;
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
    /// What its TLS connections are made with, if there are any.
    pub tls: Option<tls::Server>,
    /// Its own listening sockets, one for each address, each with the index of its
    /// listener in the configuration.
    pub listeners: Vec<(usize, TcpListener)>,
    /// Who answers for users, to all shards.
    pub authority: Arc<Authority>,
    /// Where its log lines go.
    pub log: LogSink,
}

/// What a shard found when it began its logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// What an operator should know: tails that were cut.
    pub notes: Vec<String>,
}

/// A running shard as the control thread holds it.
pub struct ShardHandle {
    /// Which.
    pub id: ShardId,
    /// Where it takes requests; closed once it has ended.
    pub requests: Sender<Request<Config>>,
    /// Says once whether the shard has begun its logs and is listening, or
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

/// Starts a shard for each plan. They recover their logs at the same time; each
/// says through its handle when it is ready.
///
/// # Errors
/// An executor could not be made: io_uring is not to be had, or a CPU is not.
pub fn start(plans: Vec<ShardPlan>) -> io::Result<Vec<ShardHandle>> {
    let (senders, receivers): (Vec<_>, Vec<_>) = mesh::channels(plans.len()).into_iter().unzip();
    let (all_turns, turns): (Vec<_>, Vec<_>) = turns::channels(plans.len()).into_iter().unzip();
    let accounts = Accounts::new(plans.len() as u16);
    let meters: Arc<Meters> = Arc::default();
    let mut handles = Vec::with_capacity(plans.len());
    for ((plan, parcels), turns) in plans.into_iter().zip(receivers).zip(turns) {
        let (requests, asked) = async_channel::unbounded();
        let (ready, is_ready) = async_channel::bounded(1);
        let (id, cpu) = (plan.id, plan.cpu);
        let (mesh, accounts) = (senders.clone(), Arc::clone(&accounts));
        let meters = Arc::clone(&meters);
        let all_turns = all_turns.clone();
        let channels = core::Channels {
            requests: asked,
            ready,
            parcels,
            mesh,
            accounts,
            meters,
            turns,
            all_turns,
        };
        let name = format!("shard-{id}");
        let thread = run_pinned(&name, cpu, move || core::run(plan, channels))?;
        handles.push(ShardHandle::new(id, requests, is_ready, move || thread.join()));
    }
    Ok(handles)
}
