//! Questions to the shards. Every one has a deadline: a shard that hangs on its
//! disk must not take the control thread with it, and the operator is to learn
//! which shard it is.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_channel::{Receiver, Sender, TrySendError};
use tokio::time::{Instant, timeout_at};

use crate::base::{QueueId, ShardId};
use crate::config::Config;
use crate::io::tls;
use crate::shard::control::{
    Order, Ordered, Page, Part, Range, Request, ShardSnapshot, Shown, SiteState, Target,
};

/// How long a shard may take to answer from memory.
const FIGURES: Duration = Duration::from_secs(2);
/// How long it may take to answer from its log.
pub const READING: Duration = Duration::from_secs(30);

/// Why a shard gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Its thread has ended.
    Ended(ShardId),
    /// It did not answer in time.
    Late(ShardId, Duration),
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Silence::Ended(shard) => write!(f, "shard {shard} has ended; the log says why"),
            Silence::Late(shard, limit) => write!(
                f,
                "shard {shard} did not answer within {} s; its core is overloaded or its disk \
                 hangs (see `top -H` and `iostat -x 1`)",
                limit.as_secs()
            ),
        }
    }
}

/// One shard as the control thread reaches it.
#[derive(Clone)]
pub struct Member {
    /// Which.
    pub id: ShardId,
    /// Where it takes requests.
    pub requests: Sender<Request<Config>>,
}

/// All shards. Cheap to clone.
#[derive(Clone)]
pub struct Fleet(Arc<[Member]>);

/// A question under way, or why it could not be put.
type Pending<T> = (ShardId, Result<Receiver<T>, Silence>);

impl Fleet {
    /// The shards in order of their ids.
    pub fn new(members: impl IntoIterator<Item = Member>) -> Self {
        Fleet(members.into_iter().collect())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The figures of each.
    pub async fn snapshots(&self) -> Vec<Result<ShardSnapshot, Silence>> {
        let asked = self.ask_all(FIGURES, Request::Snapshot);
        collect(asked, FIGURES).await
    }

    /// What each knows of these destinations.
    pub async fn sites(&self, names: &Arc<[Box<str>]>) -> Vec<Result<Vec<SiteState>, Silence>> {
        let make = |reply| Request::Sites(Arc::clone(names), reply);
        collect(self.ask_all(FIGURES, make), FIGURES).await
    }

    /// A page of the queue of the shard at `index`; `None` past the last shard.
    pub async fn page(&self, index: usize, range: Range) -> Option<Result<Page, Silence>> {
        let member = self.0.get(index)?;
        let asked = ask(member, READING, |reply| Request::List { range, reply });
        Some(answer(member.id, asked, Instant::now() + READING, READING).await)
    }

    /// Has the shard at `index` carry out an order for a part of its queue;
    /// `None` past the last shard.
    pub async fn order(
        &self,
        index: usize,
        order: &Order,
        range: Range,
    ) -> Option<Result<Ordered, Silence>> {
        let member = self.0.get(index)?;
        let (order, target) = (order.clone(), Target::Matching(range));
        let asked = ask(member, READING, |reply| Request::Order { order, target, reply });
        Some(answer(member.id, asked, Instant::now() + READING, READING).await)
    }

    /// Has every shard carry out an order for those of the messages named that
    /// it has.
    pub async fn order_named(
        &self,
        order: &Order,
        target: &Target,
    ) -> Vec<Result<Ordered, Silence>> {
        let (order, target) = (order.clone(), target.clone());
        let make = |reply| Request::Order { order: order.clone(), target: target.clone(), reply };
        collect(self.ask_all(READING, make), READING).await
    }

    /// The message `id`, whichever shard has it (a shard may have adopted the
    /// log of another), and why some shards could not say. Its bytes go to
    /// `parts`.
    pub async fn show(
        &self,
        id: QueueId,
        parts: Option<Sender<Part>>,
    ) -> (Option<Shown>, Vec<Silence>) {
        let asked = self.ask_all(READING, |reply| {
            let parts = parts.clone();
            Request::Show { id, parts, reply }
        });
        // What is left is with the shards, so that the end of the last is seen.
        drop(parts);
        let mut silent = Vec::new();
        let mut found = None;
        for answer in collect(asked, READING).await {
            match answer {
                Ok(shown) => found = found.or(shown),
                Err(silence) => silent.push(silence),
            }
        }
        (found, silent)
    }

    /// Hands each a new configuration.
    pub async fn reload(&self, config: &Arc<Config>) -> Vec<Silence> {
        self.send_all(|| Request::Reload(Arc::clone(config))).await
    }

    /// Sends each what needs no answer.
    async fn send_all(&self, request: impl Fn() -> Request<Config>) -> Vec<Silence> {
        let deadline = Instant::now() + FIGURES;
        let mut silent = Vec::new();
        for member in self.0.iter() {
            match timeout_at(deadline, member.requests.send(request())).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => silent.push(Silence::Ended(member.id)),
                Err(_) => silent.push(Silence::Late(member.id, FIGURES)),
            }
        }
        silent
    }

    /// Has each do the handshakes that begin from now on with `server`.
    pub async fn use_tls(&self, server: &tls::Server) -> Vec<Silence> {
        self.send_all(|| Request::Tls(server.clone())).await
    }

    /// Has each finish within `grace`; waits `slack` longer than that.
    pub async fn drain(&self, grace: Duration, slack: Duration) -> Vec<Silence> {
        let limit = grace + slack;
        let deadline = Instant::now() + limit;
        let mut asked = Vec::new();
        for member in self.0.iter() {
            let (reply, answer) = async_channel::bounded(1);
            let sent = member.requests.send(Request::Drain { grace, reply });
            asked.push((
                member.id,
                match timeout_at(deadline, sent).await {
                    Ok(Ok(())) => Ok(answer),
                    Ok(Err(_)) => Err(Silence::Ended(member.id)),
                    Err(_) => Err(Silence::Late(member.id, limit)),
                },
            ));
        }
        let mut silent = Vec::new();
        for (id, asked) in asked {
            silent.extend(answer(id, asked, deadline, limit).await.err());
        }
        silent
    }

    /// Waits until one of the shards has ended.
    pub async fn any_ended(&self) -> ShardId {
        let mut ends: Vec<_> = self.0.iter().map(|m| Box::pin(m.requests.closed())).collect();
        let first = std::future::poll_fn(|cx| {
            let ended = ends.iter_mut().position(|end| end.as_mut().poll(cx).is_ready());
            ended.map_or(Poll::Pending, Poll::Ready)
        });
        self.0[first.await].id
    }

    fn ask_all<T>(
        &self,
        limit: Duration,
        make: impl Fn(Sender<T>) -> Request<Config>,
    ) -> Vec<Pending<T>> {
        self.0.iter().map(|member| (member.id, ask(member, limit, &make))).collect()
    }
}

/// Puts a question without waiting: a shard with a full inbox is late already.
fn ask<T>(
    member: &Member,
    limit: Duration,
    make: impl FnOnce(Sender<T>) -> Request<Config>,
) -> Result<Receiver<T>, Silence> {
    let (reply, answer) = async_channel::bounded(1);
    match member.requests.try_send(make(reply)) {
        Ok(()) => Ok(answer),
        Err(TrySendError::Closed(_)) => Err(Silence::Ended(member.id)),
        Err(TrySendError::Full(_)) => Err(Silence::Late(member.id, limit)),
    }
}

async fn collect<T>(asked: Vec<Pending<T>>, limit: Duration) -> Vec<Result<T, Silence>> {
    let deadline = Instant::now() + limit;
    let mut answers = Vec::with_capacity(asked.len());
    for (id, pending) in asked {
        answers.push(answer(id, pending, deadline, limit).await);
    }
    answers
}

async fn answer<T>(
    id: ShardId,
    asked: Result<Receiver<T>, Silence>,
    deadline: Instant,
    limit: Duration,
) -> Result<T, Silence> {
    match timeout_at(deadline, asked?.recv()).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(Silence::Ended(id)),
        Err(_) => Err(Silence::Late(id, limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::fake::{self, Manner};

    #[tokio::test(start_paused = true)]
    async fn a_silent_shard_is_named_and_the_others_still_answer() {
        let fleet = fake::fleet(&[Manner::Well, Manner::Silent, Manner::Gone]);
        let answers = fleet.snapshots().await;
        assert_eq!(answers[0].as_ref().unwrap().shard, ShardId(0));
        assert_eq!(answers[1].as_ref().unwrap_err(), &Silence::Late(ShardId(1), FIGURES));
        assert_eq!(answers[2].as_ref().unwrap_err(), &Silence::Ended(ShardId(2)));
        let text = answers[1].as_ref().unwrap_err().to_string();
        assert!(text.contains("shard 1") && text.contains("2 s"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_inbox_that_is_full_counts_as_late_at_once() {
        let fleet = fake::fleet(&[Manner::Stuck]);
        let before = Instant::now();
        assert_eq!(
            fleet.snapshots().await[0].as_ref().unwrap_err(),
            &Silence::Late(ShardId(0), FIGURES)
        );
        assert_eq!(Instant::now(), before);
        assert_eq!(
            fleet.reload(&fake::config()).await,
            [Silence::Late(ShardId(0), FIGURES)],
            "a reload waits for room, but not for ever"
        );
    }

    #[tokio::test]
    async fn any_ended_sees_the_one_that_ends() {
        let fleet = fake::fleet(&[Manner::Well, Manner::Gone]);
        assert_eq!(fleet.any_ended().await, ShardId(1));
    }

    #[tokio::test(start_paused = true)]
    async fn drain_waits_for_all_and_names_those_that_never_end() {
        let grace = Duration::from_secs(30);
        let slack = Duration::from_secs(10);
        let fleet = fake::fleet(&[Manner::Well, Manner::Well]);
        assert_eq!(fleet.drain(grace, slack).await, []);
        let fleet = fake::fleet(&[Manner::Well, Manner::Silent]);
        assert_eq!(
            fleet.drain(grace, slack).await,
            [Silence::Late(ShardId(1), Duration::from_secs(40))]
        );
    }
}
