//! What operators may do to queued messages: hold, release, try now, drop. Each
//! is for some of a message's recipients. Holds, releases and drops are records
//! of the log, so that they outlast the process; trying now is a change of the
//! schedule only, unless the sender wanted the message kept: then it is a release
//! too.

use super::Queue;
use super::batch::Commit;
use super::error::QueueError;
use super::fact::{Ordered, What};
use super::format::Kind;
use super::index::Status;
use super::record::{self, OrderKind};
use super::state::Purpose;
use crate::base::{Disposition, EnhancedCode, Outcome, QueueId, Reply, UnixMillis};
use crate::io::store::Store;

/// What an operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// No attempts until released.
    Hold,
    /// End a hold, an operator's or the sender's; the next attempt is due at once.
    Release,
    /// The next attempt is due at once, whatever the sender wanted. Does nothing to
    /// what an operator holds or what is under way.
    Retry,
    /// Give up without a report; what is under way may still be delivered.
    Drop,
}

impl Action {
    /// Lower-case word, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Action::Hold => "hold",
            Action::Release => "release",
            Action::Retry => "retry",
            Action::Drop => "drop",
        }
    }
}

/// What an order did.
pub struct Carried {
    /// Recipients concerned: those for which it changed something.
    pub recipients: Vec<u16>,
    /// When it is durable. Resolved already where nothing was recorded.
    pub commit: Commit,
    /// The outcomes of a drop.
    pub outcomes: Vec<Outcome>,
}

impl<S: Store> Queue<S> {
    /// Carries out `action` for those of `recipients` that it can be carried out
    /// for, on behalf of `by`. The index has it when this returns.
    ///
    /// # Errors
    /// `Unknown` if the message is not queued; `Poisoned` or `Full` if nothing
    /// can be recorded. Nothing has changed then.
    pub fn order(
        &self,
        id: QueueId,
        action: Action,
        recipients: &[u16],
        by: &str,
        now: UnixMillis,
    ) -> Result<Carried, QueueError> {
        let concerned = self.concerned(id, action, recipients)?;
        let carried =
            |commit, outcomes| Carried { recipients: concerned.clone(), commit, outcomes };
        if concerned.is_empty() {
            return Ok(carried(Commit::resolved(), Vec::new()));
        }
        match action {
            Action::Retry => {
                let postponed = self.concerned(id, Action::Release, &concerned)?;
                let commit = match postponed.is_empty() {
                    true => Commit::resolved(),
                    // Else it would be kept again after a restart.
                    false => self.record_order(id, OrderKind::Release, &postponed, by, now)?,
                };
                self.0.state.borrow_mut().index.bring_forward(id.place, &concerned, now);
                Ok(carried(commit, Vec::new()))
            }
            Action::Drop => {
                let outcomes = self.dropped(id, &concerned, by, now);
                let commit = self.record(id, &outcomes)?;
                self.0.urge();
                Ok(carried(commit, outcomes))
            }
            Action::Hold => {
                let commit = self.record_order(id, OrderKind::Hold, &concerned, by, now)?;
                Ok(carried(commit, Vec::new()))
            }
            Action::Release => {
                let commit = self.record_order(id, OrderKind::Release, &concerned, by, now)?;
                Ok(carried(commit, Vec::new()))
            }
        }
    }

    /// Those of `recipients` that `action` changes something for.
    fn concerned(
        &self,
        id: QueueId,
        action: Action,
        recipients: &[u16],
    ) -> Result<Vec<u16>, QueueError> {
        let state = self.0.state.borrow();
        state.writable()?;
        let entry = state.index.get(id.place).filter(|_| id.log == state.options.log);
        let states = entry.ok_or(QueueError::Unknown(id))?.recipients();
        let changes = |index: &u16| {
            states.get(usize::from(*index)).is_some_and(|state| match action {
                Action::Hold => {
                    matches!(state.status, Status::Pending | Status::Waiting | Status::Out)
                }
                Action::Release => state.status.is_held() || state.postponed,
                Action::Retry => matches!(state.status, Status::Pending | Status::Waiting),
                Action::Drop => state.status != Status::Done,
            })
        };
        Ok(recipients.iter().copied().filter(changes).collect())
    }

    fn dropped(&self, id: QueueId, recipients: &[u16], by: &str, now: UnixMillis) -> Vec<Outcome> {
        let state = self.0.state.borrow();
        let states = state.index.get(id.place).map_or(&[][..], |entry| entry.recipients());
        let text = format!("dropped by {by}");
        recipients
            .iter()
            .map(|&recipient| Outcome {
                recipient,
                disposition: Disposition::Dropped,
                reply: Reply::new(554, EnhancedCode(5, 7, 0), text.clone()),
                host: String::new(),
                at: now,
                attempts: states.get(usize::from(recipient)).map_or(0, |state| state.attempts),
                next_attempt: now,
                security: None,
            })
            .collect()
    }

    fn record_order(
        &self,
        id: QueueId,
        kind: OrderKind,
        recipients: &[u16],
        by: &str,
        now: UnixMillis,
    ) -> Result<Commit, QueueError> {
        let mut state = self.0.state.borrow_mut();
        let state = &mut *state;
        let message = id.place;
        let recipients = recipients.to_vec();
        let order = record::Order { message, at: now, kind, recipients, by: by.to_owned() };
        state.scratch.clear();
        order.encode(&mut state.scratch);
        let len = state.scratch.len();
        let place = state.make_room(len, Purpose::Settling, || self.0.store.space())?;
        let batch = state.open.as_mut().expect("room has been made");
        batch.put(Kind::Order, 0, [&state.scratch[..]]);
        state.count(len);
        let hold = kind == OrderKind::Hold;
        state.index.hold(message, &order.recipients, hold, now.0, place);
        let recipients = order.recipients;
        let ordered = Ordered { message, hold, at_ms: now.0, recipients };
        state.note(place, What::Order(Box::new(ordered)));
        let commit = state.commit();
        self.0.urge();
        Ok(commit)
    }
}
