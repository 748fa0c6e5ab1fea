//! Who answers for users, for all shards: the source of users, the threads that
//! ask it and hash, the memory of who failed of late, and what is held for whom.
//!
//! Shared between cores and behind locks, unlike what is on the way of a message:
//! an authentication is rare, and costs a thousand times what a lock does.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::base::scram::ScramKeys;
use crate::base::users::{Certificate, User};
use crate::base::{Envelope, QueueId, Reply, UnixMillis};
use crate::io::workers::Workers;
use crate::policy::directory::{self, Unavailable, Users};
use crate::policy::lockout::{Attempt, Lockout, Rules};
use crate::policy::shelf::Shelf;

/// Threads that hash: a log-in takes one about 20 ms, so some 50 a second each.
const THREADS: usize = 2;
/// Log-ins that may wait for them: about a second.
const WAITING: usize = 100;

/// What the users are asked, apart from the session that asks.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    /// Name and password, if somebody could have them.
    Password(Option<(String, String)>),
    /// A name, if somebody could have it.
    Keys(Option<String>),
    /// What the client's certificate is known by, and who it is to be.
    Certificate(Vec<Certificate>, Option<Option<String>>),
    /// As whom a trusted peer has authenticated it.
    Name(String),
}

/// What they say.
#[derive(Clone, Debug)]
pub(super) enum Told {
    /// Who it is, if anybody.
    Checked(Option<Arc<User>>),
    /// The keys, and who has them, if anybody.
    Keys(ScramKeys, Option<Arc<User>>),
}

/// Why they say nothing now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// Too many log-ins wait.
    Busy,
    /// The source of users, in its words.
    Unavailable(String),
}

/// The authority on users of a server.
#[derive(Default)]
pub struct Authority {
    users: RwLock<Option<Arc<dyn Users>>>,
    workers: OnceLock<Workers>,
    lockout: Mutex<Lockout>,
    shelf: Mutex<Shelf>,
}

impl Authority {
    /// Has `users` answer from now on.
    ///
    /// # Errors
    /// The threads that ask them could not be started.
    pub fn set_users(&self, users: Arc<dyn Users>) -> std::io::Result<()> {
        if self.workers.get().is_none() {
            // Two at once would start threads that end at once.
            let _ = self.workers.set(Workers::start("users", THREADS, WAITING)?);
        }
        *self.users.write().unwrap_or_else(PoisonError::into_inner) = Some(users);
        Ok(())
    }

    /// The source of users, if there is one.
    pub fn users(&self) -> Option<Arc<dyn Users>> {
        self.users.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the users.
    pub(super) async fn ask(&self, asked: Asked) -> Result<Told, Silence> {
        let (Some(users), Some(workers)) = (self.users(), self.workers.get()) else {
            return Err(Silence::Unavailable("there is no source of users".into()));
        };
        let told = workers.run(move || answer(&*users, &asked)).map_err(|_| Silence::Busy)?;
        told.await.map_err(|Unavailable(why)| Silence::Unavailable(why))
    }

    fn lockout(&self) -> std::sync::MutexGuard<'_, Lockout> {
        self.lockout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shelf(&self) -> std::sync::MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message is queued: it counts against the quota of its user if it is held for
    /// later.
    pub fn holds(&self, id: QueueId, envelope: &Envelope, now: UnixMillis) {
        if let Some((user, until)) = for_later(envelope, now) {
            self.shelf().put(user, id, until, now);
        }
    }

    /// A message is about to be stored: a place in the quota of its user, if it is to be
    /// held for later and `most` are.
    ///
    /// # Errors
    /// There is none: as [`Shelf::refusal`].
    pub(super) fn reserve(
        &self,
        envelope: &Envelope,
        most: u32,
        now: UnixMillis,
    ) -> Result<Option<Reserved<'_>>, Reply> {
        let Some((user, until)) = for_later(envelope, now) else { return Ok(None) };
        self.shelf().reserve(user, most, now)?;
        Ok(Some(Reserved { authority: self, user: Some(user.to_owned()), until }))
    }

    /// A message is not held for later any more, before its time.
    pub fn released(&self, id: QueueId) {
        self.shelf().take(id);
    }

    /// Why no further message is held for a user, if so. See [`Shelf::refusal`].
    pub(super) fn refuses_hold(&self, user: &str, most: u32, now: UnixMillis) -> Option<Reply> {
        self.shelf().refusal(user, most, now)
    }

    /// Whether an attempt is looked at. See [`Lockout::begin`].
    pub(super) fn begin(&self, rules: &Rules, now: Instant, attempt: Attempt<'_>) -> bool {
        self.lockout().begin(rules, now, attempt)
    }

    /// An attempt failed; how long to wait before that is said.
    pub(super) fn failed(&self, rules: &Rules, now: Instant, attempt: Attempt<'_>) -> Duration {
        self.lockout().failed(rules, now, attempt)
    }

    /// An attempt succeeded.
    pub(super) fn succeeded(&self, now: Instant, attempt: Attempt<'_>) {
        self.lockout().succeeded(now, attempt);
    }

    /// An attempt came to no end.
    pub(super) fn dropped(&self, attempt: Attempt<'_>) {
        self.lockout().dropped(attempt);
    }
}

/// A place in the quota of a user, given back when this is dropped.
pub(super) struct Reserved<'a> {
    authority: &'a Authority,
    /// Until it is filled.
    user: Option<String>,
    until: UnixMillis,
}

impl Reserved<'_> {
    /// The message is stored.
    pub(super) fn fill(mut self, id: QueueId, now: UnixMillis) {
        if let Some(user) = self.user.take() {
            let mut shelf = self.authority.shelf();
            shelf.put(&user, id, self.until, now);
            shelf.unreserve(&user);
        }
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(user) = &self.user {
            self.authority.shelf().unreserve(user);
        }
    }
}

/// For whom a message is held, and until when, if so.
fn for_later(envelope: &Envelope, now: UnixMillis) -> Option<(&str, UnixMillis)> {
    let terms = envelope.terms.as_deref()?;
    let until = terms.kept_until().filter(|until| *until > now)?;
    Some((terms.user.as_deref()?, until))
}

/// Runs on a helper thread.
fn answer(users: &dyn Users, asked: &Asked) -> Result<Told, Unavailable> {
    match asked {
        Asked::Password(asked) => {
            let asked = asked.as_ref().map(|(name, password)| (&**name, &**password));
            directory::check_password(users, asked).map(Told::Checked)
        }
        Asked::Keys(name) => {
            let (keys, user) = directory::keys_of(users, name.as_deref())?;
            Ok(Told::Keys(keys, user))
        }
        Asked::Certificate(certificates, named) => {
            let named = named.as_ref().map(Option::as_deref);
            directory::check_certificate(users, certificates, named).map(Told::Checked)
        }
        Asked::Name(name) => directory::named(users, name).map(Told::Checked),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use async_channel::{Receiver, bounded};
    use futures_lite::future::{block_on, poll_once};

    use super::*;
    use crate::base::users::Certificate;

    /// A source that answers when the channel is closed, and that it cannot tell.
    struct Stuck(Receiver<()>);

    impl Users for Stuck {
        fn by_name(&self, _: &str) -> Result<Option<Arc<User>>, Unavailable> {
            let _ = self.0.recv_blocking();
            Err(Unavailable("gone".into()))
        }

        fn by_certificate(&self, _: &Certificate) -> Result<Option<Arc<User>>, Unavailable> {
            unreachable!("nobody shows one")
        }

        fn decoy(&self) -> &[u8; 32] {
            &[0; 32]
        }
    }

    #[test]
    fn log_ins_past_what_may_wait_are_put_off_and_the_others_hear_what_is_wrong() {
        let asked = || Asked::Name("user".into());
        let authority = Authority::default();
        let silence = block_on(authority.ask(asked())).err();
        assert!(matches!(silence, Some(Silence::Unavailable(_))), "there is no source");
        let (stuck, gate) = bounded(1);
        authority.set_users(Arc::new(Stuck(gate))).unwrap();
        let mut waiting: Vec<Pin<Box<dyn Future<Output = _>>>> = Vec::new();
        let refused = loop {
            let mut one: Pin<Box<dyn Future<Output = _>>> = Box::pin(authority.ask(asked()));
            match block_on(poll_once(&mut one)) {
                None => waiting.push(one),
                Some(told) => break told,
            }
            assert!(waiting.len() <= THREADS + WAITING, "nothing bounds them");
        };
        assert_eq!(refused.err(), Some(Silence::Busy));
        assert!(waiting.len() >= WAITING, "{} wait", waiting.len());
        drop(stuck);
        for one in waiting {
            assert_eq!(block_on(one).err(), Some(Silence::Unavailable("gone".into())));
        }
    }
}
