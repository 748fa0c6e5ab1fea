//! The origin's way out: recipients of new and of due messages are routed, and
//! their handles go to the lanes of their sites as far as there is room; the
//! others wait in the index (`outflow`).

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use smallvec::{SmallVec, smallvec};

use super::attempt::{settle_all, trouble};
use super::directory::{Known, Rules};
use super::memory::Kept;
use super::{Core, Handle, OUT_MAX, RECIPIENTS_PER_HANDLE};
use crate::base::{
    Disposition, EnhancedCode, Envelope, Location, Mail, Place, QueueId, Reply, ShardId,
};
use crate::io::clock;
use crate::io::executor::spawn;
use crate::io::store::Store;
use crate::policy::route::{Destination, Site};

/// Messages whose domains are being looked up; more are looked at again after
/// [`RESOLVING_WAIT`], so that a dead resolver does not keep out mail that needs
/// none.
const RESOLVING_MAX: usize = OUT_MAX / 4;
const RESOLVING_WAIT: Duration = Duration::from_secs(2);
/// Recipients of a message, by index.
pub(super) type Indices = SmallVec<[u16; 1]>;

/// How a message comes to be given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// It is new, or due by its schedule: it queues up behind what waits.
    Due,
    /// It has waited for its destination.
    Waited,
}

/// Where some recipients of a message go.
#[derive(Clone, Debug)]
enum Way {
    Site(Arc<Site>),
    Discard,
    Reject,
    Settled(Disposition, Reply),
    /// The domain has to be looked up.
    Ask(Box<str>),
}

impl Way {
    fn is_same(&self, other: &Way) -> bool {
        match (self, other) {
            (Way::Site(a), Way::Site(b)) => Arc::ptr_eq(a, b) || a == b,
            (Way::Ask(a), Way::Ask(b)) => a == b,
            (Way::Settled(a, x), Way::Settled(b, y)) => a == b && x == y,
            (Way::Discard, Way::Discard) | (Way::Reject, Way::Reject) => true,
            _ => false,
        }
    }
}

impl From<Known> for Way {
    fn from(known: Known) -> Self {
        match known {
            Known::Site(site) => Way::Site(site),
            Known::Fail(reply) => Way::Settled(Disposition::Failed, reply),
            Known::Defer(reply) => Way::Settled(Disposition::Deferred, reply),
        }
    }
}

/// What lookups for one message have found.
type Answers = Vec<(Box<str>, Known)>;

impl<S: Store> Core<S> {
    /// See [`super::Relay::accepted`].
    pub(super) fn accepted(
        self: &Rc<Self>,
        id: QueueId,
        envelope: Envelope,
        (trace, body): (&[u8], Option<&[u8]>),
        commit: Option<Place>,
        size: u64,
    ) {
        let hold_until = envelope.terms.as_ref().and_then(|terms| terms.kept_until());
        if let Some(until) = hold_until.filter(|until| *until > clock::wall()) {
            self.postpone(id, until);
            return;
        }
        let all: Indices = (0..envelope.recipients.len() as u16).collect();
        if self.room() == 0 {
            self.put_back(id, &all, clock::wall());
            return;
        }
        let room = body.and_then(|body| self.memory.keep(trace.len() + body.len()));
        let body = match (&room, body) {
            (Some(_), Some(body)) => [trace, body].concat().into(),
            _ => Box::default(),
        };
        let mail = Arc::new(Mail { envelope, body });
        let kept = room.map(|room| room.of(&mail));
        // A message that came whole is streamed too if it is too long for a record.
        let at = self.log(id).and_then(|queue| queue.location(id));
        let at = at.unwrap_or(Location { first: id.place, commit });
        let whole = Handle { id, recipients: all, attempts: 0, at, size, station: 0, mail };
        self.give_out(whole, kept, Came::Due);
    }

    /// Handles that may be given out now.
    pub(super) fn room(&self) -> usize {
        if self.stopping() || !self.unrecorded.borrow().is_empty() {
            return 0;
        }
        let taken = self.out.get() + self.resolving.get();
        OUT_MAX.saturating_sub(taken + self.joining.len() + self.unsure.borrow().len())
    }

    /// Routes the recipients of `whole` and sends each site's lane its part.
    /// `kept` is the hold on the body, if that is in memory.
    pub(super) fn give_out(self: &Rc<Self>, whole: Handle, kept: Option<Kept>, came: Came) {
        if let [only] = *whole.recipients {
            // Nearly always, and without a copy of anything.
            let way = self.way(&whole, only, &[]);
            match way {
                Way::Ask(domain) => self.ask(whole, kept, came, vec![domain]),
                way => self.dispatch(whole, way, came),
            }
            return;
        }
        let parts = self.parts(&whole, &[]);
        let unknown: Vec<Box<str>> = parts
            .iter()
            .filter_map(
                |(way, _)| if let Way::Ask(domain) = way { Some(domain.clone()) } else { None },
            )
            .collect();
        if unknown.is_empty() {
            self.dispatch_all(&whole, parts, came);
        } else {
            self.ask(whole, kept, came, unknown);
        }
    }

    /// Where a recipient of `whole` goes, as far as that is known.
    fn way(&self, whole: &Handle, recipient: u16, answers: &[(Box<str>, Known)]) -> Way {
        let address = &whole.mail.envelope.recipients[usize::from(recipient)];
        let settings = self.settings.borrow();
        match settings.routes.address(address) {
            Destination::Site(site) => Way::Site(Arc::clone(site)),
            Destination::Discard => Way::Discard,
            Destination::Reject => Way::Reject,
            Destination::Mx => {
                let domain = settings.routes.domain_of(address).to_lowercase();
                if let Some((_, known)) = answers.iter().find(|(name, _)| **name == *domain) {
                    return known.clone().into();
                }
                let rules = Rules { config: &settings.config, routes: &settings.routes };
                let intern = |site| self.stations.borrow().intern(site);
                match self.directory.known(&domain, &rules, intern, clock::monotonic()) {
                    Some(known) => known.into(),
                    None => Way::Ask(domain.into()),
                }
            }
        }
    }

    /// The recipients of `whole` by where they go, in transactions of bounded
    /// length.
    fn parts(&self, whole: &Handle, answers: &[(Box<str>, Known)]) -> Vec<(Way, Indices)> {
        let mut parts: Vec<(Way, Indices)> = Vec::new();
        for &index in &whole.recipients {
            let way = self.way(whole, index, answers);
            let has_room = |(known, indices): &&mut (Way, Indices)| {
                known.is_same(&way) && indices.len() < RECIPIENTS_PER_HANDLE
            };
            match parts.iter_mut().find(has_room) {
                Some((_, indices)) => indices.push(index),
                None => parts.push((way, smallvec![index])),
            }
        }
        parts
    }

    fn dispatch_all(self: &Rc<Self>, whole: &Handle, parts: Vec<(Way, Indices)>, came: Came) {
        for (way, recipients) in parts {
            self.dispatch(Handle { recipients, ..whole.clone() }, way, came);
        }
    }

    /// Looks up `domains` and gives `whole` out after that.
    fn ask(self: &Rc<Self>, whole: Handle, kept: Option<Kept>, came: Came, domains: Vec<Box<str>>) {
        if self.resolving.get() >= RESOLVING_MAX {
            self.put_back(whole.id, &whole.recipients, clock::wall().plus(RESOLVING_WAIT));
            return;
        }
        self.resolving.set(self.resolving.get() + 1);
        let core = Rc::clone(self);
        spawn(async move {
            let lookups: Vec<_> = domains
                .into_iter()
                .map(|domain| {
                    let core = Rc::clone(&core);
                    spawn(async move {
                        let known = core.find(&domain).await;
                        (domain, known)
                    })
                })
                .collect();
            let mut answers = Answers::new();
            for lookup in lookups {
                answers.push(lookup.await);
            }
            core.resolving.set(core.resolving.get() - 1);
            if core.stopping() {
                core.put_back(whole.id, &whole.recipients, clock::wall());
            } else {
                let parts = core.parts(&whole, &answers);
                core.dispatch_all(&whole, parts, came);
            }
            drop(kept);
            core.check_drained();
        })
        .detach();
    }

    /// Looks a domain up, in lower case.
    pub(super) async fn find(&self, domain: &str) -> Known {
        loop {
            let settings = self.settings();
            let rules = Rules { config: &settings.config, routes: &settings.routes };
            let intern = |site| self.stations.borrow().intern(site);
            let is_current = || Rc::ptr_eq(&settings, &self.settings.borrow());
            if let Some(known) = self.directory.find(domain, &rules, intern, is_current).await {
                return known;
            }
        }
    }

    /// Sends a handle where it goes.
    fn dispatch(self: &Rc<Self>, handle: Handle, way: Way, came: Came) {
        let (disposition, reply) = match way {
            Way::Site(site) => {
                let station = self.stations.borrow_mut().of(&site);
                return self.offer(&station, handle, came);
            }
            Way::Discard => (
                Disposition::Dropped,
                Reply::new(250, EnhancedCode(2, 0, 0), "discarded by a route"),
            ),
            Way::Reject => (
                Disposition::Failed,
                Reply::new(550, EnhancedCode(5, 7, 1), "mail for this domain is not relayed"),
            ),
            Way::Settled(disposition, reply) => (disposition, reply),
            Way::Ask(domain) => {
                let text = format!("looking up {domain} was not finished");
                (Disposition::Deferred, trouble(EnhancedCode(4, 4, 3), text))
            }
        };
        let kept = self.hold(&handle.mail);
        self.judge(settle_all(handle, disposition, &reply, "", clock::wall()), kept);
    }

    /// True when outcomes cannot be recorded in this log any more.
    pub(super) fn is_halted(&self, log: ShardId) -> bool {
        self.halted.borrow().contains(&log)
    }
}
