//! AUTH in a session: asks the users what the engine needs to know, keeps the
//! book of attempts, and tells the log. What is secret about it, and how long it
//! takes, is decided in `policy::directory` and `policy::lockout`.

use std::sync::Arc;

use crate::base::users::{Certificate, User};
use crate::base::{EnhancedCode, Mechanism, Mechanisms, Reply};
use crate::config::SenderMatch;
use crate::io::executor::sleep;
use crate::io::store::Store;
use crate::io::{clock, random};
use crate::policy::lockout::{self, Rules};
use crate::proto::sasl::server::{Failure, Keys, Need};
use crate::proto::sasl::{Binding, base64};
use crate::proto::smtp::server::{Authentication, Identified, Server, Verdict};

use super::authority::{Asked, Authority, Silence, Told};
use super::hooks::{Authenticated, Hooks};
use super::session::Session;

/// What TLS lends to authentication on one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Secure {
    /// What exchanges can be bound by, the best first.
    pub(super) bindings: Vec<Binding>,
    /// What the client's certificate is known by; empty without one.
    pub(super) certificates: Vec<Certificate>,
}

impl Secure {
    /// Those of `configured` that can be used over this connection.
    pub(super) fn mechanisms(&self, configured: Mechanisms) -> Mechanisms {
        let usable = |mechanism: &Mechanism| match mechanism {
            Mechanism::ScramSha256Plus => !self.bindings.is_empty(),
            Mechanism::External => !self.certificates.is_empty(),
            Mechanism::ScramSha256 | Mechanism::Plain | Mechanism::Login => true,
        };
        configured.iter().filter(usable).collect()
    }
}

/// Who a session is, or tries to be.
#[derive(Default)]
pub(super) struct Identity {
    /// Who has authenticated.
    pub(super) user: Option<Arc<User>>,
    attempt: Option<Box<Attempt>>,
}

impl Identity {
    /// An exchange that was left counts for nothing.
    pub(super) fn forget_attempt(&mut self) {
        self.attempt = None;
    }
}

/// An attempt under way. Dropped, it counts for nothing.
struct Attempt {
    authority: Arc<Authority>,
    client: std::net::IpAddr,
    /// The name that is tried, if somebody could have it.
    name: Option<String>,
    /// Who it will be if the proof is right.
    candidate: Option<Arc<User>>,
    is_open: bool,
}

impl Attempt {
    fn facts(&self) -> lockout::Attempt<'_> {
        lockout::Attempt { client: self.client, user: self.name.as_deref() }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.is_open {
            self.authority.dropped(self.facts());
        }
    }
}

impl<S: Store, H: Hooks> Session<S, H> {
    /// Does what an exchange waits for.
    pub(super) async fn authenticate(&mut self, server: Server) -> Server {
        match server.authentication().expect("an exchange waits") {
            Authentication::Need(need) => {
                let asked = self.asked(need);
                self.identify(server, asked).await
            }
            Authentication::Ended(Ok(_)) => self.welcome(server),
            Authentication::Ended(Err(failure)) => self.turn_down(server, failure).await,
        }
    }

    fn asked(&self, need: Need<'_>) -> Asked {
        match need {
            Need::Password(asked) => {
                Asked::Password(asked.map(|(name, password)| (name.into(), password.into())))
            }
            Need::Keys(name) => Asked::Keys(name.map(String::from)),
            Need::Certificate(named) => {
                let certificates = self.secure.as_ref().map(|secure| secure.certificates.clone());
                let named = named.map(|named| named.map(String::from));
                Asked::Certificate(certificates.unwrap_or_default(), named)
            }
        }
    }

    /// Asks the users, unless this client or user has failed too often.
    async fn identify(&mut self, server: Server, asked: Asked) -> Server {
        let authority = Arc::clone(&self.shard.authority);
        let mut attempt = Attempt {
            authority: Arc::clone(&authority),
            client: self.peer.ip(),
            name: server.exchange().and_then(|exchange| exchange.name()).map(String::from),
            candidate: None,
            is_open: false,
        };
        self.identity.attempt = None;
        self.guard.disarm();
        let rules = self.lockout_rules();
        if !authority.begin(&rules, clock::monotonic(), attempt.facts()) {
            self.shard.counters.borrow_mut().authentications_locked_out += 1;
            self.tell(&server, None, "locked out");
            sleep(rules.delay).await;
            let text = "too many failed attempts, try again later";
            return self.put_off(server, text);
        }
        attempt.is_open = true;
        let told = match authority.ask(asked).await {
            Ok(told) => told,
            Err(Silence::Busy) => return self.put_off(server, "too many log-ins, try again later"),
            Err(Silence::Unavailable(why)) => {
                tracing::error!(target: "ringpost", "users cannot be asked: {why}");
                return self.put_off(server, "users cannot be checked now, try again later");
            }
        };
        let nonce;
        let answer = match told {
            Told::Checked(user) => {
                attempt.candidate = user.clone();
                Identified::Checked(user.map(|user| user.name.clone()))
            }
            Told::Keys(keys, user) => {
                nonce = base64::encode(&random::octets::<18>());
                attempt.candidate = user.clone();
                let bindings = self.secure.as_ref().map_or(&[][..], |secure| &secure.bindings);
                let user = user.map(|user| user.name.clone());
                Identified::Keys(Keys { keys, user, nonce: &nonce, bindings })
            }
        };
        let server = server.identified(answer, &mut self.out);
        self.identity.attempt = Some(Box::new(attempt));
        server
    }

    /// The attempt is not looked at now.
    fn put_off(&mut self, server: Server, text: &str) -> Server {
        self.shard.counters.borrow_mut().authentications_put_off += 1;
        let reply = Reply::new(454, EnhancedCode(4, 7, 0), text);
        server.answer(Verdict::Refuse(reply), &mut self.out)
    }

    /// The client is who it says.
    fn welcome(&mut self, server: Server) -> Server {
        let mut attempt = self.identity.attempt.take().expect("users were asked");
        attempt.is_open = false;
        attempt.authority.succeeded(clock::monotonic(), attempt.facts());
        self.identity.user = attempt.candidate.take();
        assert!(self.identity.user.is_some(), "nobody is authenticated as nobody");
        self.shard.counters.borrow_mut().authentications += 1;
        self.tell(&server, None, "");
        server.answer(Verdict::Accept, &mut self.out)
    }

    /// The client is not; the answer takes its time.
    async fn turn_down(&mut self, server: Server, failure: Failure) -> Server {
        let why = match failure {
            Failure::Malformed => "malformed",
            Failure::Binding => "not bound to this connection",
            Failure::Denied => "wrong name or password",
        };
        self.shard.counters.borrow_mut().authentications_failed += 1;
        self.tell(&server, Some(failure), why);
        let attempt = self.identity.attempt.take();
        if let (Some(mut attempt), true) = (attempt, failure != Failure::Malformed) {
            attempt.is_open = false;
            let rules = self.lockout_rules();
            let wait = attempt.authority.failed(&rules, clock::monotonic(), attempt.facts());
            self.guard.disarm();
            sleep(wait).await;
        }
        server.answer(Verdict::Accept, &mut self.out)
    }

    /// Tells the log.
    fn tell(&self, server: &Server, failure: Option<Failure>, why: &str) {
        let exchange = server.exchange().expect("an exchange goes on");
        let user = self.identity.user.as_ref().map(|user| &*user.name);
        self.shard.hooks.authenticated(Authenticated {
            client: self.peer,
            helo: server.helo(),
            mechanism: exchange.mechanism(),
            user: user.or(exchange.name()).unwrap_or_default(),
            failed: (failure.is_some() || !why.is_empty()).then_some(why),
        });
    }

    fn lockout_rules(&self) -> Rules {
        let auth = &self.shard.config().auth;
        Rules {
            failures: auth.lockout_failures,
            span: auth.lockout_time,
            delay: auth.failure_delay,
        }
    }

    /// Why this user may not send as `sender`, if so (RFC 6409, 6.1).
    pub(super) fn refuses_sender(&self, sender: &str) -> Option<Reply> {
        let user = self.identity.user.as_ref()?;
        let is_strict = self.shard.config().auth.sender_match == SenderMatch::Strict;
        (is_strict && !user.owns(sender)).then(|| {
            let text = "sender address is not one of the authenticated user's";
            Reply::new(550, EnhancedCode(5, 7, 1), text)
        })
    }
}
