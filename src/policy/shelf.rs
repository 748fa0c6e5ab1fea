//! What users have on the server that is held for later (FUTURERELEASE), over all
//! shards: so that nobody has more than a quota (RFC 4865, section 6). Pure: time is an
//! argument.
//!
//! A message counts until its time comes. That an operator has released or dropped it
//! before has to be told.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::base::{EnhancedCode, QueueId, Reply, UnixMillis};

/// Messages below which none is looked for whose time has come.
const SWEEP_MIN: usize = 1024;

/// See the module's comment.
#[derive(Debug, Default)]
pub struct Shelf {
    users: HashMap<Arc<str>, Held>,
    messages: HashMap<QueueId, (Arc<str>, UnixMillis)>,
    /// So many messages were left when those whose time had come were last looked for.
    swept: usize,
}

/// What is held of a user.
#[derive(Debug, Default)]
struct Held {
    /// By the time.
    messages: BTreeSet<(UnixMillis, QueueId)>,
    /// Messages that are being stored.
    coming: u32,
}

impl Held {
    fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.coming == 0
    }
}

impl Shelf {
    /// Message `id` of `user` is held until `until`. Nothing happens if that is known.
    pub fn put(&mut self, user: &str, id: QueueId, until: UnixMillis, now: UnixMillis) {
        if until <= now || self.messages.contains_key(&id) {
            return;
        }
        if self.messages.len() >= (2 * self.swept).max(SWEEP_MIN) {
            self.sweep(now);
        }
        let user = self.users.get_key_value(user).map_or_else(|| user.into(), |u| Arc::clone(u.0));
        self.messages.insert(id, (Arc::clone(&user), until));
        self.users.entry(user).or_default().messages.insert((until, id));
    }

    /// Message `id` is not held any more.
    pub fn take(&mut self, id: QueueId) {
        let Some((user, until)) = self.messages.remove(&id) else { return };
        self.change(&user, |held| {
            held.messages.remove(&(until, id));
        });
    }

    /// A message of `user` is about to be stored: it counts until
    /// [`Shelf::unreserve`] is called, once.
    ///
    /// # Errors
    /// As [`Shelf::refusal`].
    pub fn reserve(&mut self, user: &str, most: u32, now: UnixMillis) -> Result<(), Reply> {
        if let Some(reply) = self.refusal(user, most, now) {
            return Err(reply);
        }
        self.users.entry(user.into()).or_default().coming += 1;
        Ok(())
    }

    /// See [`Shelf::reserve`].
    pub fn unreserve(&mut self, user: &str) {
        self.change(user, |held| held.coming -= 1);
    }

    /// Messages of `user` that are held, or about to be.
    pub fn count(&mut self, user: &str, now: UnixMillis) -> usize {
        let Some(held) = self.users.get_mut(user) else { return 0 };
        while let Some(&(until, id)) = held.messages.first()
            && until <= now
        {
            held.messages.pop_first();
            self.messages.remove(&id);
        }
        let count = held.messages.len() + held.coming as usize;
        self.change(user, |_| {});
        count
    }

    /// Why no further message of `user` is held, if so: `most` are, or any number for 0.
    pub fn refusal(&mut self, user: &str, most: u32, now: UnixMillis) -> Option<Reply> {
        if most == 0 || self.count(user, now) < most as usize {
            return None;
        }
        let text = format!("too many messages of this user are held for later: {most} at most");
        Some(Reply::new(452, EnhancedCode(4, 7, 1), text))
    }

    /// Changes what is known of a user, and forgets one of whom nothing is left.
    fn change(&mut self, user: &str, act: impl FnOnce(&mut Held)) {
        let Some(held) = self.users.get_mut(user) else { return };
        act(held);
        if held.is_empty() {
            self.users.remove(user);
        }
    }

    /// Forgets what has had its time.
    fn sweep(&mut self, now: UnixMillis) {
        self.messages.retain(|_, (_, until)| *until > now);
        self.users.retain(|_, held| {
            held.messages.retain(|(until, _)| *until > now);
            !held.is_empty()
        });
        self.swept = self.messages.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Place, ShardId};

    fn id(offset: u32) -> QueueId {
        QueueId { log: ShardId(0), place: Place { segment: 1, offset } }
    }

    #[test]
    fn each_user_has_a_quota_of_what_is_held() {
        let mut shelf = Shelf::default();
        let (now, later) = (UnixMillis(1000), UnixMillis(2000));
        shelf.put("ann", id(1), later, now);
        shelf.put("ann", id(1), later, now);
        shelf.put("ann", id(2), UnixMillis(3000), now);
        shelf.put("bob", id(3), later, now);
        shelf.put("bob", id(4), now, now);
        assert_eq!((shelf.count("ann", now), shelf.count("bob", now)), (2, 1));
        let refused = |shelf: &mut Shelf, most, now| shelf.refusal("ann", most, now).is_some();
        assert!(refused(&mut shelf, 2, now) && !refused(&mut shelf, 3, now));
        assert!(!refused(&mut shelf, 0, now), "any number");
        assert_eq!(shelf.refusal("ann", 1, now).map(|reply| reply.code), Some(452));
        // The time of one has come.
        assert!(!refused(&mut shelf, 2, later));
        assert_eq!(shelf.count("ann", later), 1);
        // The other is released.
        shelf.take(id(2));
        shelf.take(id(2));
        assert_eq!(shelf.count("ann", later), 0);
        assert_eq!(shelf.count("bob", later), 0);
        assert!(shelf.users.is_empty() && shelf.messages.is_empty());
    }

    #[test]
    fn what_is_about_to_be_stored_counts_too() {
        let mut shelf = Shelf::default();
        let (now, later) = (UnixMillis(1000), UnixMillis(2000));
        shelf.reserve("ann", 2, now).unwrap();
        shelf.reserve("ann", 2, now).unwrap();
        assert_eq!(shelf.reserve("ann", 2, now).map_err(|reply| reply.code), Err(452));
        shelf.put("ann", id(1), later, now);
        shelf.unreserve("ann");
        assert!(shelf.refusal("ann", 2, now).is_some());
        // The other one has come to nothing.
        shelf.unreserve("ann");
        assert!(shelf.refusal("ann", 2, now).is_none());
        shelf.reserve("ann", 2, now).unwrap();
        assert_eq!(shelf.count("ann", later), 1);
        shelf.unreserve("ann");
        assert!(shelf.users.is_empty() && shelf.messages.is_empty());
    }

    #[test]
    fn what_has_had_its_time_is_forgotten_though_nobody_asks() {
        let mut shelf = Shelf::default();
        for n in 0..10_000 {
            let now = UnixMillis(u64::from(n));
            shelf.put(&format!("user{}", n % 7), id(n), UnixMillis(u64::from(n) + 50), now);
        }
        assert!(shelf.messages.len() <= SWEEP_MIN);
        let of_users: usize = shelf.users.values().map(|held| held.messages.len()).sum();
        assert_eq!(shelf.messages.len(), of_users);
        assert_eq!(shelf.count("user3", UnixMillis(10_000)), 7);
    }
}
