//! ETRN (RFC 1985): a client asks that what is queued for a domain be tried now. It
//! is an order to retry, given on every shard, since any log may hold such mail.
//!
//! An order reads envelopes of what is queued, so each shard carries out one at a
//! time, and few wait. The client is told no more than that it has begun.

use std::rc::Rc;
use std::sync::Arc;

use async_channel::{Receiver, Sender};

use super::answer::Desk;
use super::control::{Action, Order, Range, Target};
use super::select::Selection;
use crate::config::DomainPattern;
use crate::io::clock;
use crate::io::store::Store;

/// Most that wait on one shard.
const WAITING_MAX: usize = 16;
/// Messages in one step of an order.
const PAGE: usize = 256;

/// What was asked.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    /// Whose mail.
    patterns: Arc<[DomainPattern]>,
    /// Who asked.
    by: Arc<str>,
}

/// For each of so many shards, where it is asked and where it listens.
pub(super) fn channels(shards: usize) -> Vec<(Sender<Turn>, Receiver<Turn>)> {
    (0..shards).map(|_| async_channel::bounded(WAITING_MAX)).collect()
}

/// All shards, to be asked.
pub(super) struct Turns(Vec<Sender<Turn>>);

impl Turns {
    pub(super) fn new(shards: Vec<Sender<Turn>>) -> Self {
        Turns(shards)
    }

    /// Asks all shards; false when the name is none that mail is queued for, or when
    /// too much waits on one of them.
    pub(super) fn ask(&self, by: &str, domain: &str, below: bool) -> bool {
        let names = std::iter::once(domain.to_owned()).chain(below.then(|| format!("*.{domain}")));
        let Ok(patterns) = names.map(|name| name.parse()).collect() else { return false };
        let turn = Turn { patterns, by: by.into() };
        let asked = self.0.iter().filter(|shard| shard.try_send(turn.clone()).is_ok());
        asked.count() == self.0.len()
    }
}

/// Carries out on one shard what is asked there.
pub(super) async fn take<S: Store>(desk: Rc<Desk<S>>, asked: Receiver<Turn>) {
    while let Ok(turn) = asked.recv().await {
        let order = Order { action: Action::Retry, by: Arc::clone(&turn.by), dry_run: false };
        for pattern in turn.patterns.iter() {
            // What its sender wants kept goes out at its time.
            let (domain, leaves_kept) = (Some(pattern.clone()), true);
            let selection = Selection { domain, leaves_kept, ..Selection::default() };
            let mut range = Range {
                selection: Arc::new(selection),
                after: None,
                until: clock::wall(),
                limit: PAGE,
            };
            loop {
                let done = desk.ordered(&order, &Target::Matching(range.clone())).await;
                range.after = done.next;
                if range.after.is_none() || done.trouble.is_some() {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_is_asked_and_few_wait() {
        let (senders, receivers): (Vec<_>, Vec<_>) = channels(2).into_iter().unzip();
        let turns = Turns::new(senders);
        assert!(turns.ask("192.0.2.1", "a.example", true));
        for receiver in &receivers {
            let turn = receiver.try_recv().unwrap();
            let matches = |name: &str| turn.patterns.iter().any(|pattern| pattern.matches(name));
            assert!(matches("a.example") && matches("b.a.example") && !matches("example"));
            assert_eq!(&*turn.by, "192.0.2.1");
        }
        let waiting = (0..).take_while(|_| turns.ask("192.0.2.1", "a.example", false)).count();
        assert_eq!(waiting, WAITING_MAX);
        assert!(!turns.ask("192.0.2.1", "a..example", false));
    }
}
