//! The committer: takes all batches that wait, writes them, flushes once, and
//! tells everyone who waited. While it does so the next batch fills.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use futures_lite::future;

use super::Queue;
use super::error::QueueError;
use super::record::Mark;
use super::state::{InFlight, State};
use crate::base::{Durability, Place};
use crate::io::store::{Store, StoreFile};

/// Flights at a time.
const FLIGHTS_MAX: usize = 2;

type BufOf<S> = <<S as Store>::File as StoreFile>::Buf;

/// A batch in the committer's hands.
struct Write<B> {
    number: u64,
    place: Place,
    buf: B,
    len: usize,
}

/// Batches that are being written and flushed together.
struct Flight<'a> {
    /// Number of the last of them.
    last: u64,
    /// Flushes that they take.
    flushes: u64,
    work: Pin<Box<dyn Future<Output = Result<(), QueueError>> + 'a>>,
    landed: bool,
    /// What became of it, until all flights before it have landed.
    result: Option<Result<(), QueueError>>,
}

/// What the committer has to do.
enum Next<B> {
    /// The first flight has landed, or a later one has failed.
    Landed(Result<(), QueueError>),
    /// There is something to write.
    Writes(Vec<Write<B>>),
    End,
}

impl<S: Store> Queue<S> {
    /// Writes what is appended and keeps the segments in order, until the queue
    /// is closed and all that waited is durable, or the log has failed. Whoever
    /// opens a queue spawns this once.
    pub async fn run_commits(self) {
        let commits = future::zip(self.commit_loop(), self.upkeep_loop());
        future::zip(commits, self.prepare_loop()).await;
    }

    /// Takes no more, lets what waits become durable, then ends
    /// [`Queue::run_commits`].
    pub fn close(&self) {
        self.0.state.borrow_mut().closing = true;
        self.0.upkeep.raise();
        self.0.prepare.raise();
        self.0.work.raise();
    }

    /// Has outcomes written that wait for company.
    pub fn nudge(&self) {
        self.0.urge();
    }

    /// Waits until outcomes wait for company.
    pub async fn recorded(&self) {
        self.0.recorded.wait().await;
    }

    /// Why nothing is written any more, if so.
    pub fn poisoned(&self) -> Option<String> {
        self.0.state.borrow().poisoned.as_ref().map(|why| why.to_string())
    }

    /// Stops the log for good.
    pub(super) fn poison(&self, why: &str) {
        let why: Rc<str> = Rc::from(format!("{}: {why}", self.0.store.describe()));
        let tickets = self.0.state.borrow_mut().poison(&why);
        tickets.iter().for_each(|ticket| ticket.fail(&why));
        self.0.work.raise();
        self.0.upkeep.raise();
        self.0.prepare.raise();
    }

    async fn commit_loop(&self) {
        let mut flights: VecDeque<Flight<'_>> = VecDeque::new();
        loop {
            let next = match self.next(&mut flights).await {
                Next::Landed(result) => result.map(|()| self.flushed(&mut flights)),
                Next::Writes(writes) => {
                    flights.push_back(self.take_off(writes));
                    Ok(())
                }
                Next::End => return,
            };
            if let Err(error) = next {
                self.poison(&error.to_string());
                // The kernel still has the buffers of the others.
                for flight in &mut flights {
                    if !flight.landed {
                        let _ = flight.work.as_mut().await;
                    }
                }
                return;
            }
        }
    }

    /// Waits until there is something to do.
    async fn next(&self, flights: &mut VecDeque<Flight<'_>>) -> Next<BufOf<S>> {
        poll_fn(|context| {
            for flight in flights.iter_mut().filter(|flight| !flight.landed) {
                if let Poll::Ready(result) = flight.work.as_mut().poll(context) {
                    flight.landed = true;
                    flight.result = Some(result);
                }
            }
            // A later batch counts only when all before it do; a failure at once.
            let failed = flights.iter().position(|flight| matches!(flight.result, Some(Err(_))));
            let done = flights.get_mut(failed.unwrap_or(0)).and_then(|first| first.result.take());
            if let Some(result) = done {
                return Poll::Ready(Next::Landed(result));
            }
            loop {
                if flights.len() < FLIGHTS_MAX
                    && let Some(next) = self.take_work(flights.is_empty())
                {
                    return Poll::Ready(next);
                }
                if self.0.work.poll_wait(context).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// All batches that wait, or the end.
    fn take_work(&self, idle: bool) -> Option<Next<BufOf<S>>> {
        let mut state = self.0.state.borrow_mut();
        if state.poisoned.is_some() {
            return idle.then_some(Next::End);
        }
        if self.0.urgent.take() || state.closing {
            state.seal();
        }
        if state.prepared <= state.tail.segment {
            self.0.prepare.raise();
        }
        let writes = take_writes(&mut state);
        if !writes.is_empty() {
            return Some(Next::Writes(writes));
        }
        let idle = idle && state.sealed.is_empty();
        (idle && state.closing && state.upkeep_done).then_some(Next::End)
    }

    /// Begins to write and flush what is about to be committed.
    fn take_off(&self, writes: Vec<Write<BufOf<S>>>) -> Flight<'_> {
        let state = self.0.state.borrow();
        let mut files: Vec<(u32, Rc<S::File>)> = Vec::with_capacity(1);
        let mut pending = Vec::with_capacity(writes.len());
        let (mut last, mut flushes) = (0, 0);
        for write in writes {
            let segment = write.place.segment;
            let file = Rc::clone(&state.files[&segment]);
            if files.last().is_none_or(|(last, _)| *last != segment) {
                files.push((segment, Rc::clone(&file)));
            }
            let at = u64::from(write.place.offset);
            pending.push(Box::pin(async move { file.write_at(write.buf, write.len, at).await }));
            (last, flushes) = (write.number, flushes + 1);
        }
        let work = async move {
            join_all(pending).await.map_err(QueueError::io("writing to the log failed"))?;
            if self.0.options.durability == Durability::Sync {
                for (segment, file) in files {
                    let what = format!("flushing segment {segment:08x} failed");
                    file.sync().await.map_err(QueueError::io(what))?;
                }
            }
            Ok(())
        };
        Flight { last, flushes, work: Box::pin(work), landed: false, result: None }
    }

    /// What the first flight carried is durable.
    fn flushed(&self, flights: &mut VecDeque<Flight<'_>>) {
        let flight = flights.pop_front().expect("a flight has landed");
        let mut state = self.0.state.borrow_mut();
        let carried = state.in_flight.partition_point(|batch| batch.number <= flight.last);
        let done: Vec<InFlight> = state.in_flight.drain(..carried).collect();
        if let Some(last) = done.last() {
            state.flushed = last.number;
            state.durable = last.end;
        }
        state.counters.flushes += flight.flushes;
        state.backlog = state.unflushed();
        let unprepared = state.prepared <= state.tail.segment;
        drop(state);
        done.iter().for_each(|batch| batch.ticket.complete());
        self.0.upkeep.raise();
        if unprepared {
            self.0.prepare.raise();
        }
    }
}

/// The batches that wait for a segment that is ready.
fn take_writes<F: StoreFile>(state: &mut State<F>) -> Vec<Write<F::Buf>> {
    let mut writes = Vec::with_capacity(state.sealed.len());
    while state.sealed.front().is_some_and(|batch| batch.place.segment <= state.prepared)
        && let Some(batch) = state.sealed.pop_front()
    {
        let (number, place, end) = (batch.number, batch.place, batch.end());
        let ticket = Rc::clone(&batch.ticket);
        state.in_flight.push(InFlight { number, start: place, end, ticket });
        let mark = Mark { durable: state.durable, previous: state.previous };
        let (buf, len) = batch.finish(mark);
        state.previous = end;
        state.counters.bytes_written += len as u64;
        writes.push(Write { number, place, buf, len });
    }
    writes
}

/// Runs all of `pending` at once to their ends; the first error, if any.
async fn join_all<F: Future<Output = io::Result<()>>>(
    mut pending: Vec<Pin<Box<F>>>,
) -> io::Result<()> {
    let mut result = Ok(());
    poll_fn(|cx| {
        pending.retain_mut(|one| match one.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(done) => {
                if result.is_ok() {
                    result = done;
                }
                false
            }
        });
        if pending.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    result
}
