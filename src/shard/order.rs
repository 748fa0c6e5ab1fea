//! Carries out what operators want done to queued messages, and says so in the
//! mail log. The answer is given when everything in it is durable.
//!
//! What is retried is tried at once, even where its site is being left alone. An
//! order for many messages comes in pages; each site is hurried by the first of
//! them that has mail for it, so that one that is down is not tried by each.

use std::cell::RefCell;
use std::collections::HashSet;

use super::answer::Desk;
use super::control::{Action, Order, Ordered, OrderedMessage, Target};
use super::scan::{Found, Wants, named, scan};
use super::select::Chosen;
use super::shelf::is_held;
use crate::base::UnixMillis;
use crate::io::clock;
use crate::io::executor::yield_now;
use crate::io::store::Store;
use crate::queue::{Carried, PendingRecipient, QueueError};

/// Messages dealt with before other tasks get a turn.
const TURN: usize = 32;
/// Addresses are for the log and the answer.
const ENVELOPE: Wants = Wants { envelope: true, outcomes: false };

/// The sites that an order has hurried, and which order: by the time it began.
/// Nothing between orders.
pub(super) type Hurried = RefCell<(UnixMillis, HashSet<String>)>;

/// Whether `action` changes anything for a recipient.
pub fn concerns(action: Action, recipient: &PendingRecipient) -> bool {
    match action {
        Action::Hold => !recipient.held,
        Action::Release => recipient.held || recipient.postponed,
        Action::Retry => !recipient.held && !recipient.out,
        Action::Drop => true,
    }
}

/// What the mail log calls it.
fn event(action: Action) -> &'static str {
    match action {
        Action::Hold => "held",
        Action::Release => "released",
        Action::Retry => "retried",
        Action::Drop => "dropped",
    }
}

impl<S: Store> Desk<S> {
    /// Carries out `order` for the recipients of `target`.
    pub(super) async fn ordered(&self, order: &Order, target: &Target) -> Ordered {
        let concerned = |recipient: &PendingRecipient| concerns(order.action, recipient);
        let (found, next) = match target {
            Target::Named(ids, selection) => {
                (named(&self.logs, &*self.guide, ids, selection, ENVELOPE).await, None)
            }
            Target::Matching(range) => {
                scan(&self.logs, &*self.guide, range, concerned, ENVELOPE).await
            }
        };
        let mut answer = Ordered { next, unread: self.unread(), ..Ordered::default() };
        let now = clock::wall();
        let mut carried = Vec::with_capacity(found.len());
        for (index, message) in found.into_iter().enumerate() {
            if order.dry_run {
                let recipients = concerned_of(&message, order.action);
                answer.messages.push(told(&message, &recipients));
                continue;
            }
            match message.queue.order(
                message.state.id,
                order.action,
                &message.chosen,
                &order.by,
                now,
            ) {
                Ok(done) => {
                    if !is_held(&message.queue, message.state.id) {
                        self.authority.released(message.state.id);
                    }
                    carried.push((message, done));
                }
                // Settled meanwhile.
                Err(QueueError::Unknown(_)) => {}
                Err(error) => {
                    answer.trouble = Some(error.to_string());
                    break;
                }
            }
            if index % TURN == TURN - 1 {
                yield_now().await;
            }
        }
        self.conclude(order, carried, now, &mut answer).await;
        if order.action == Action::Retry && !order.dry_run {
            self.hurry(target, &answer);
        }
        answer
    }

    /// Has the sites of what is due now tried, each once for an order.
    fn hurry(&self, target: &Target, answer: &Ordered) {
        let begun = match target {
            Target::Named(..) => None,
            Target::Matching(range) => Some(range.until),
        };
        let mut hurried = self.hurried.borrow_mut();
        if begun != Some(hurried.0) {
            *hurried = (begun.unwrap_or_default(), HashSet::new());
        }
        let mut domains: HashSet<&str> = HashSet::new();
        for address in answer.messages.iter().flat_map(|message| &message.recipients) {
            let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
            if !domains.insert(domain) {
                continue;
            }
            if let Some(site) = self.guide.way(address).site
                && hurried.1.insert(site)
            {
                self.guide.hurry(address);
            }
        }
        if answer.next.is_none() {
            *hurried = Default::default();
        }
    }

    /// Waits until what was done is durable, and tells of it.
    async fn conclude(
        &self,
        order: &Order,
        carried: Vec<(Found<S>, Carried)>,
        now: UnixMillis,
        answer: &mut Ordered,
    ) {
        for (message, done) in carried {
            if let Err(error) = done.commit.await {
                answer.trouble = Some(error.to_string());
                return;
            }
            if order.action == Action::Drop {
                self.counters.borrow_mut().recipients_dropped += done.outcomes.len() as u64;
            }
            let told = told(&message, &done.recipients);
            for address in &told.recipients {
                self.maillog.line(now, event(order.action), |line| {
                    line.word("id", told.id)
                        .text("by", &order.by)
                        .address("from", &told.sender)
                        .address("to", address);
                });
            }
            answer.messages.push(told);
        }
    }
}

/// Recipients for which something would be done.
fn concerned_of<S: Store>(message: &Found<S>, action: Action) -> Chosen {
    let pending = message.state.recipients.iter();
    let concerned = pending.filter(|recipient| {
        message.chosen.contains(&recipient.recipient) && concerns(action, recipient)
    });
    concerned.map(|recipient| recipient.recipient).collect()
}

fn told<S: Store>(message: &Found<S>, recipients: &[u16]) -> OrderedMessage {
    let addresses = &message.envelope.recipients;
    let name = |index: &u16| match addresses.get(usize::from(*index)) {
        Some(address) => address.clone(),
        None => format!("#{index}"),
    };
    OrderedMessage {
        id: message.state.id,
        sender: message.envelope.sender.clone(),
        recipients: recipients.iter().map(name).collect(),
        damaged: message.damaged.clone(),
    }
}
