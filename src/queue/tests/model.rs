//! What a queue was told, kept beside it, and what may be found after a crash:
//! no acknowledged message lost, none altered, none that was never accepted,
//! and each recipient in a state that it was in, no older than the last one
//! acknowledged.

use std::collections::BTreeMap;

use super::*;
use crate::base::terms::Terms;
use crate::io::memory::CrashPolicy;
use crate::queue::{Action, BodyReader, Commit, QueueError, StreamedAppend};

/// One thing that a test does with a queue.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Append a message.
    Append { recipients: usize, size: usize },
    /// Stream a message in parts, letting the committer run between them.
    Stream { size: usize, part: usize },
    /// Begin a streamed message and abandon it.
    Abandon { size: usize },
    /// Record an outcome for a recipient of one of the live messages.
    Record { message: usize, recipient: usize, last: bool },
    /// Hold a recipient of one of the live messages back, or release it.
    Hold { message: usize, recipient: usize, hold: bool },
    /// Drop a recipient of one of the live messages.
    Drop { message: usize, recipient: usize },
    /// Take out what is due, as the relay does.
    TakeDue { limit: usize },
    /// Give back untried what was taken out first.
    PutBack,
    /// Have what was taken out first wait for its destination.
    Park,
    /// Take out what has waited longest.
    Unpark,
    /// Begin to read a live message, or end the reading begun first.
    Read { message: usize, begin: bool },
    /// End, and start again.
    Reopen,
    /// Let the committer run.
    Turn { rounds: usize },
}

struct Sent {
    envelope: Envelope,
    body: Vec<u8>,
    acknowledged: bool,
    /// Outcomes of each recipient, in order, and how many were acknowledged.
    histories: Vec<(Vec<Outcome>, usize)>,
    /// Whether each recipient was held, from the beginning, and how many of the
    /// changes were acknowledged.
    holds: Vec<(Vec<bool>, usize)>,
}

impl Sent {
    fn settled(&self) -> bool {
        self.histories.iter().all(|(history, _)| is_done(history.last()))
    }
}

fn kept_until(envelope: &Envelope) -> Option<UnixMillis> {
    envelope.terms.as_ref()?.hold_until()
}

fn is_done(last: Option<&Outcome>) -> bool {
    last.is_some_and(|outcome| outcome.disposition.is_final())
}

enum Waiting {
    Message(QueueId),
    Outcome(QueueId, usize),
    Hold(QueueId, usize),
}

/// A queue with its model.
pub(super) struct Driven {
    pub(super) bench: Bench,
    pub(super) queue: Queue<MemoryStore>,
    sent: BTreeMap<QueueId, Sent>,
    waiting: Vec<(Waiting, Pin<Box<Commit>>)>,
    count: usize,
    out: std::collections::VecDeque<(QueueId, Vec<u16>)>,
    parked: std::collections::VecDeque<(QueueId, Vec<u16>)>,
    readers: std::collections::VecDeque<(QueueId, BodyReader<MemoryStore>)>,
}

impl Driven {
    pub(super) fn new(queue: Queue<MemoryStore>) -> Self {
        let bench = Bench::new();
        bench.spawn(queue.clone().run_commits());
        let (sent, waiting, count) = (BTreeMap::new(), Vec::new(), 0);
        let (out, parked, readers) = Default::default();
        Driven { bench, queue, sent, waiting, count, out, parked, readers }
    }

    /// Does the steps until one fails; true if none did.
    pub(super) fn run(&mut self, steps: &[Step]) -> bool {
        steps.iter().all(|step| self.step(step).is_ok())
    }

    fn step(&mut self, step: &Step) -> Result<(), QueueError> {
        match *step {
            Step::Append { recipients, size } => self.append(recipients, size),
            Step::Stream { size, part } => self.stream(size, part),
            Step::Abandon { size } => self.abandon(size),
            Step::Record { message, recipient, last } => self.record(message, recipient, last),
            Step::Hold { message, recipient, hold } => self.hold(message, recipient, hold),
            Step::Drop { message, recipient } => self.drop_one(message, recipient),
            Step::TakeDue { limit } => {
                let due = self.queue.take_due(UnixMillis(u64::MAX), limit);
                self.out.extend(due.into_iter().map(|(id, to)| (id, to.to_vec())));
                Ok(())
            }
            Step::PutBack => {
                if let Some((id, recipients)) = self.out.pop_front() {
                    self.queue.put_back(id, &recipients, NOW);
                }
                Ok(())
            }
            Step::Park => {
                if let Some((id, recipients)) = self.out.pop_front() {
                    self.queue.park(id, &recipients, UnixMillis(u64::MAX));
                    self.parked.push_back((id, recipients));
                }
                Ok(())
            }
            Step::Unpark => {
                if let Some((id, recipients)) = self.parked.pop_front() {
                    let taken = self.queue.unpark(id.place, &recipients).to_vec();
                    self.out.push_back((id, taken));
                }
                Ok(())
            }
            Step::Read { message, begin: true } => self.read(message),
            Step::Read { begin: false, .. } => self.read_to_end(),
            Step::Reopen => self.reopen(),
            Step::Turn { rounds } => {
                self.turn(rounds);
                Ok(())
            }
        }
    }

    fn read(&mut self, message: usize) -> Result<(), QueueError> {
        let Some((id, _)) = self.pick(message, 0) else { return Ok(()) };
        let reader = self.bench.run(self.queue.body(id)).expect("it is opened")?;
        self.readers.push_back((id, reader));
        Ok(())
    }

    /// Whole and unaltered, or not at all: not if it was settled meanwhile.
    fn read_to_end(&mut self) -> Result<(), QueueError> {
        let Some((id, mut reader)) = self.readers.pop_front() else { return Ok(()) };
        let mut body = Vec::new();
        loop {
            match self.bench.run(reader.next()).expect("it is read") {
                Ok(Some(part)) => body.extend_from_slice(&part),
                Ok(None) => break,
                Err(error) => {
                    assert!(self.sent[&id].settled(), "{id}: {error}");
                    return Ok(());
                }
            }
        }
        assert!(body == self.sent[&id].body, "{id} is altered");
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), QueueError> {
        let (store, options) = (self.queue.0.store.clone(), self.queue.0.options.clone());
        self.readers.clear();
        self.out.clear();
        self.parked.clear();
        self.queue.close();
        self.turn(300);
        if let Some(why) = self.queue.poisoned() {
            return Err(QueueError::Poisoned(why));
        }
        assert!(self.bench.jobs.borrow().is_empty() && self.waiting.is_empty(), "all has ended");
        let opened = futures_lite::future::block_on(Queue::open(store, options, NOW));
        let (queue, report) = opened?;
        assert_eq!((&report.damage[..], &report.missing[..], report.cut), (&[][..], &[][..], None));
        self.queue = queue;
        self.bench.spawn(self.queue.clone().run_commits());
        Ok(())
    }

    fn turn(&mut self, rounds: usize) {
        self.queue.allow_cleaning(u64::MAX);
        self.bench.turn(rounds);
        let mut cx = Context::from_waker(Waker::noop());
        let sent = &mut self.sent;
        self.waiting.retain_mut(|(what, commit)| match commit.as_mut().poll(&mut cx) {
            Poll::Pending => true,
            Poll::Ready(Err(_)) => false,
            Poll::Ready(Ok(())) => {
                match what {
                    Waiting::Message(id) => sent.get_mut(id).unwrap().acknowledged = true,
                    Waiting::Outcome(id, at) => sent.get_mut(id).unwrap().histories[*at].1 += 1,
                    Waiting::Hold(id, at) => sent.get_mut(id).unwrap().holds[*at].1 += 1,
                }
                false
            }
        });
    }

    fn compose(&mut self, recipients: usize, size: usize) -> (Envelope, Vec<u8>) {
        self.count += 1;
        let count = self.count;
        let body = (0..size).map(|n| (n.wrapping_mul(count + 7) >> 3) as u8).collect();
        // Every third has terms, and every other of these is to be kept.
        let hold_until_ms = count.is_multiple_of(2).then_some(NOW.0 + 1_000_000 + count as u64);
        let priority = (count % 19) as i8 - 9;
        let terms = Terms { hold_until_ms, priority, ..Terms::default() };
        let terms = count.is_multiple_of(3).then(|| Box::new(terms));
        (Envelope { terms, ..envelope(&format!("s{count}@example.com"), recipients) }, body)
    }

    fn accepted(&mut self, id: QueueId, commit: Commit, envelope: Envelope, body: Vec<u8>) {
        let count = envelope.recipients.len();
        // Given back by the relay, so that it may be moved.
        let all: Vec<u16> = (0..count as u16).collect();
        match kept_until(&envelope) {
            Some(until) => self.queue.postpone(id, until),
            None => self.queue.put_back(id, &all, NOW),
        }
        let (histories, holds) = (vec![(Vec::new(), 0); count], vec![(vec![false], 0); count]);
        let sent = Sent { envelope, body, acknowledged: false, histories, holds };
        assert!(self.sent.insert(id, sent).is_none(), "an id was given twice");
        self.waiting.push((Waiting::Message(id), Box::pin(commit)));
    }

    fn append(&mut self, recipients: usize, size: usize) -> Result<(), QueueError> {
        let (envelope, body) = self.compose(recipients, size);
        let split = body.len() / 3;
        let prefix = |_: QueueId, out: &mut Vec<u8>| out.extend_from_slice(&body[..split]);
        let (id, commit) = self.queue.append(&envelope, prefix, &[&body[split..]])?;
        self.accepted(id, commit, envelope, body);
        Ok(())
    }

    fn push_all(
        &mut self,
        stream: &mut StreamedAppend<MemoryStore>,
        body: &[u8],
        part: usize,
    ) -> Result<(), QueueError> {
        for part in body.chunks(part) {
            self.bench.run(stream.push(part)).expect("a push ends")?;
            self.turn(2);
        }
        Ok(())
    }

    fn stream(&mut self, size: usize, part: usize) -> Result<(), QueueError> {
        let (envelope, body) = self.compose(1, size);
        let mut stream = self.queue.stream(&envelope, |_, _| {})?;
        self.push_all(&mut stream, &body, part)?;
        let id = stream.id();
        let commit = stream.finish()?;
        self.accepted(id, commit, envelope, body);
        Ok(())
    }

    fn abandon(&mut self, size: usize) -> Result<(), QueueError> {
        let (envelope, body) = self.compose(1, size);
        let mut stream = self.queue.stream(&envelope, |_, _| {})?;
        self.push_all(&mut stream, &body, 5000)
    }

    /// A recipient of a live message of which something is left to do.
    fn pick(&self, message: usize, recipient: usize) -> Option<(QueueId, usize)> {
        let live: Vec<QueueId> =
            self.sent.iter().filter(|(_, sent)| !sent.settled()).map(|(id, _)| *id).collect();
        let id = *live.get(message % live.len().max(1))?;
        let histories = &self.sent[&id].histories;
        let at = recipient % histories.len();
        (!is_done(histories[at].0.last())).then_some((id, at))
    }

    fn hold(&mut self, message: usize, recipient: usize, hold: bool) -> Result<(), QueueError> {
        let Some((id, at)) = self.pick(message, recipient) else { return Ok(()) };
        let action = if hold { Action::Hold } else { Action::Release };
        let state = self.queue.message(id).expect("something is left to do");
        let state = state.recipients.iter().find(|r| usize::from(r.recipient) == at).copied();
        let ends_wait = !hold && state.is_some_and(|state| state.postponed);
        let carried = self.queue.order(id, action, &[at as u16], "root", NOW)?;
        let holds = &mut self.sent.get_mut(&id).unwrap().holds[at].0;
        let changes = ends_wait || holds.last() != Some(&hold);
        assert_eq!(carried.recipients.len(), usize::from(changes));
        if !carried.recipients.is_empty() {
            holds.push(hold);
            self.waiting.push((Waiting::Hold(id, at), Box::pin(carried.commit)));
        }
        Ok(())
    }

    fn drop_one(&mut self, message: usize, recipient: usize) -> Result<(), QueueError> {
        let Some((id, at)) = self.pick(message, recipient) else { return Ok(()) };
        let carried = self.queue.order(id, Action::Drop, &[at as u16], "root", NOW)?;
        let history = &mut self.sent.get_mut(&id).unwrap().histories[at].0;
        history.extend(carried.outcomes);
        self.waiting.push((Waiting::Outcome(id, at), Box::pin(carried.commit)));
        Ok(())
    }

    fn record(&mut self, message: usize, recipient: usize, last: bool) -> Result<(), QueueError> {
        let Some((id, at)) = self.pick(message, recipient) else { return Ok(()) };
        let histories = &mut self.sent.get_mut(&id).unwrap().histories;
        let attempts = histories[at].0.len() as u16 + 1;
        let disposition = if last { Disposition::Delivered } else { Disposition::Deferred };
        let outcome = outcome(at as u16, disposition, attempts);
        let commit = self.queue.record(id, std::slice::from_ref(&outcome))?;
        histories[at].0.push(outcome);
        self.waiting.push((Waiting::Outcome(id, at), Box::pin(commit)));
        Ok(())
    }

    /// Settles every message, so that all but one segment should become free.
    pub(super) fn settle_all(&mut self) {
        for (id, sent) in &self.sent {
            for (at, (history, _)) in sent.histories.iter().enumerate() {
                if !is_done(history.last()) {
                    let last = [outcome(at as u16, Disposition::Dropped, 1)];
                    drop(self.queue.record(*id, &last).unwrap());
                }
            }
        }
    }

    /// Holds what a queue contains against what it was told.
    pub(super) fn check(&self, queue: &Queue<MemoryStore>, context: &str) {
        for id in queue.ids_after(None, usize::MAX) {
            assert!(self.sent.contains_key(&id), "{context}: {id} was never appended");
        }
        for (&id, sent) in &self.sent {
            let Some(state) = queue.message(id) else {
                assert!(
                    !sent.acknowledged || sent.settled(),
                    "{context}: {id} was acknowledged and is lost"
                );
                continue;
            };
            let body = body_of(&self.bench, queue, id);
            assert!(body == sent.body, "{context}: {id} is altered");
            let envelope = self.bench.run(queue.envelope(id)).unwrap().unwrap();
            assert_eq!(envelope, sent.envelope, "{context}");
            let words = self.bench.run(queue.last_outcomes(id)).unwrap().unwrap();
            for (at, (history, acknowledged)) in sent.histories.iter().enumerate() {
                let pending = state.recipients.iter().find(|r| usize::from(r.recipient) == at);
                let known = pending.map_or(history.len(), |r| usize::from(r.attempts));
                assert!(
                    (*acknowledged..=history.len()).contains(&known),
                    "{context}: {id} recipient {at} is at {known} of {}, {acknowledged} were \
                     acknowledged",
                    history.len()
                );
                let last = known.checked_sub(1).map(|last| &history[last]);
                assert_eq!(pending.is_none(), is_done(last), "{context}: {id} {at} {history:?}");
                if let Some(held) = pending.map(|pending| pending.held) {
                    let (holds, acknowledged) = &sent.holds[at];
                    assert!(holds[*acknowledged..].contains(&held), "{context}: {id} {at}");
                }
                let word = words.iter().find(|word| usize::from(word.recipient) == at);
                assert_eq!(word, last.filter(|_| pending.is_some()), "{context}: {id} {at}");
            }
        }
    }

    /// Right after a start: what is to be kept is kept until then, unless an operator
    /// or an attempt has ended that.
    fn check_kept(&self, queue: &Queue<MemoryStore>, context: &str) {
        for (&id, sent) in &self.sent {
            let until = kept_until(&sent.envelope);
            for pending in queue.message(id).into_iter().flat_map(|state| state.recipients) {
                let (holds, acknowledged) = &sent.holds[usize::from(pending.recipient)];
                let is_tried = pending.attempts > 0;
                let may_be = until.is_some() && !is_tried && *acknowledged == 0 && !pending.held;
                let must_be = may_be && holds.len() == 1;
                let context = format!("{context}: {id} {pending:?}");
                assert!(if pending.postponed { may_be } else { !must_be }, "{context}");
                assert!(!pending.postponed || Some(pending.next_attempt) == until, "{context}");
            }
        }
    }

    /// Opens what a power loss would leave, checks it, uses it, opens it again.
    pub(super) fn check_crash(&self, store: &MemoryStore, policy: CrashPolicy, context: &str) {
        let context = format!("{context}, {policy:?}");
        let image = store.crash_image(policy);
        let (queue, report) = open(&image);
        assert_eq!(report.damage, [], "{context}");
        assert_eq!(report.foreign, [], "{context}");
        self.check(&queue, &context);
        self.check_kept(&queue, &context);
        let bench = Bench::new();
        bench.spawn(queue.clone().run_commits());
        bench.turn(50);
        let live = queue.live();
        let id = put(&bench, &queue, "after@example.com", 1, &[b'x'; 30_000]);
        // The id of a message that nobody was told of may come again.
        let used = self.sent.get(&id).is_some_and(|sent| sent.acknowledged);
        assert!(!used, "{context}: the id was used before");
        assert_eq!(queue.poisoned(), None, "{context}");
        let done = queue.record(id, &[outcome(0, Disposition::Delivered, 1)]).unwrap();
        bench.run(done).unwrap().unwrap();
        drop(queue);
        let (queue, report) = open(&image.crash_image(CrashPolicy::Lose));
        assert_eq!((&report.damage[..], report.cut), (&[][..], None), "{context}, again");
        assert_eq!(queue.live(), live, "{context}, again");
        self.check(&queue, &format!("{context}, again"));
    }
}
