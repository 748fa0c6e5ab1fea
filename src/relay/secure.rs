//! From a stream to a connection that mail may go over: greeting, TLS as `policy::tls`
//! has it, and credentials where a route names some.
//!
//! Security: what a server said in the clear counts for nothing behind the
//! handshake (the engine forgets it), and credentials are sent over TLS only. Where
//! TLS is only tried and fails, the caller may connect once more: the host is
//! spoken to in the clear for a while.

use std::path::Path;
use std::rc::Rc;

use super::Core;
use super::attempt::trouble;
use super::reach::Target;
use super::station::Station;
use super::wire::Wire;
use crate::base::{EnhancedCode, Reply};
use crate::config::Login;
use crate::io::executor::blocking;
use crate::io::net::Stream;
use crate::io::store::Store;
use crate::io::tls::{self, Conn, Roots, Verify, Version};
use crate::io::watch::Interrupt;
use crate::io::{clock, random};
use crate::policy::governor::Failure;
use crate::policy::route::Way;
use crate::policy::tls::{Facts, Outcome, Plan, Step, Trust, Why, admits, plan};
use crate::proto::sasl::base64;
use crate::proto::sasl::client::{CANCEL, Credentials, Exchange, Reply as Answer, choose};
use crate::proto::smtp::client::{Client, Event};

/// A connection that came to nothing.
pub(super) struct Setback {
    pub(super) failure: Failure,
    /// It was TLS that failed, and may be done without.
    pub(super) only_tls: bool,
}

impl From<Failure> for Setback {
    fn from(failure: Failure) -> Self {
        Setback { failure, only_tls: false }
    }
}

/// A connection on which transactions may begin.
pub(super) struct Opened {
    pub(super) wire: Wire,
    pub(super) plan: Plan,
}

/// What is wrong, in our words: `enhanced` is 4.7.x.
fn insecure(detail: u16, text: String) -> Failure {
    Failure::ours(trouble(EnhancedCode(4, 7, detail), text))
}

impl<S: Store> Core<S> {
    /// What is done about TLS with a target now.
    fn plan(&self, station: &Station, target: &Target) -> Plan {
        let site = station.site();
        let trouble = self.tls_trouble.borrow();
        let failed = |address| trouble.until(address, clock::monotonic()).is_some();
        plan(&Facts {
            mode: site.tls,
            is_implicit: target.way == Way::Smtps,
            is_local: target.address().is_none(),
            failed_lately: target.address().is_some_and(failed),
            has_login: site.login.is_some(),
        })
    }

    /// Gets through greeting, TLS and authentication.
    pub(super) async fn open(
        self: &Rc<Self>,
        station: &Station,
        stream: Stream,
        target: &Target,
    ) -> Result<Opened, Setback> {
        let plan = self.plan(station, target);
        let hostname = self.config().hostname.clone();
        let client = match target.way {
            Way::Lmtp => Client::lmtp(&hostname),
            Way::Smtp | Way::Smtps => Client::new(&hostname),
        };
        let guard = self.watch.guard(stream.hangup());
        let mut wire = Wire::new(Conn::plain(stream), guard, target.label(), client);
        if let Plan::Implicit(_) = plan {
            wire.client.secured_at_once();
            self.shake(&mut wire, target, plan).await?;
        }
        ready(&mut wire).await?;
        if !wire.client.is_secured() {
            match plan.upon(wire.client.offer().starttls) {
                Step::GoOn => {}
                Step::StartTls => self.start_tls(&mut wire, target, plan).await?,
                Step::Leave(why) => {
                    return Err(insecure(10, format!("{}: {why}", wire.host)).into());
                }
            }
        }
        if plan == Plan::Plain(Why::FailedLately) {
            self.counters.borrow_mut().outbound_tls_fallbacks += 1;
        }
        if let Some(login) = &station.site().login {
            authenticate(&mut wire, login).await.inspect_err(|failure| {
                self.counters.borrow_mut().outbound_auth_failures += 1;
                let (host, why) = (&wire.host, &failure.reply.text);
                tracing::error!(target: "relay", %host, "authentication failed: {why}");
            })?;
        }
        self.weigh_chunks(&mut wire, target);
        Ok(Opened { wire, plan })
    }

    async fn start_tls(
        self: &Rc<Self>,
        wire: &mut Wire,
        target: &Target,
        plan: Plan,
    ) -> Result<(), Setback> {
        wire.client.start_tls(&mut wire.out);
        match wire.event().await {
            Ok(Event::Handshake) => {}
            // It had offered that.
            Ok(_) if plan.is_strict() => {
                let (host, said) = (&wire.host, wire.client.reply());
                let text = format!("{host} offers TLS, which is required, and refuses it: {said}");
                return Err(insecure(10, text).into());
            }
            Ok(_) => return Ok(()),
            Err(failure) => return Err(self.without_tls(wire, target, plan, failure)),
        }
        self.shake(wire, target, plan).await?;
        wire.client.secured(&mut wire.out);
        ready(wire).await?;
        Ok(())
    }

    /// TLS has failed. Where it may be done without it is, for a while.
    fn without_tls(&self, wire: &Wire, target: &Target, plan: Plan, failure: Failure) -> Setback {
        let was_cut = wire.interrupted().is_some_and(|why| why != Interrupt::TimedOut);
        let only_tls = plan == Plan::Try && !was_cut;
        if let (Some(address), true) = (target.address(), only_tls) {
            self.tls_trouble.borrow_mut().failed(address, clock::monotonic());
        }
        Setback { failure, only_tls }
    }

    async fn shake(&self, wire: &mut Wire, target: &Target, plan: Plan) -> Result<(), Setback> {
        let client = self.tls_client().await;
        let name = target.certified_name();
        let names = [&*name];
        let verify = match plan.trust() {
            Trust::Verified => Verify::Names(&names),
            Trust::Any => Verify::Note(&names),
        };
        let limit = self.config().delivery.connect_timeout;
        let shaken = wire.shake(&client, &name, verify, limit).await;
        let mut counters = self.counters.borrow_mut();
        match shaken {
            Ok(()) => {
                let facts = wire.tls().expect("the handshake is done");
                counters.outbound_tls_handshakes += 1;
                counters.outbound_tls_resumed += u64::from(facts.is_resumed);
                drop(counters);
                self.events.secured(&wire.host, facts);
                if let Some(address) = target.address() {
                    self.tls_trouble.borrow_mut().worked(address);
                }
                Ok(())
            }
            Err(why) => {
                counters.outbound_tls_failures += 1;
                drop(counters);
                self.events.not_secured(&wire.host, &why.text, plan.is_strict());
                let failure = insecure(5, format!("TLS with {} failed: {why}", wire.host));
                Err(self.without_tls(wire, target, plan, failure))
            }
        }
    }

    /// What TLS connections are made with, read when the first is made and anew
    /// after a reload.
    async fn tls_client(&self) -> tls::Client {
        if let Some(client) = &*self.tls_client.borrow() {
            return client.clone();
        }
        let roots = authorities(self.config().delivery.tls_ca.as_deref());
        let client = blocking(move || {
            tls::Client::new(&roots, Version::Tls12).or_else(|why| {
                tracing::error!(target: "relay", "no certificate can be verified: {why}");
                tls::Client::new(&Roots::None, Version::Tls12)
            })
        });
        let client = client.await.expect("without authorities there is nothing to be wrong");
        self.tls_client.replace(Some(client.clone()));
        client
    }

    /// Whether a message that requires TLS may go over this connection.
    pub(super) fn admits(&self, station: &Station, opened: (&Wire, Plan)) -> Result<(), Reply> {
        let (wire, plan) = opened;
        let peer = wire.tls().and_then(|facts| facts.peer.as_deref());
        admits(&Outcome {
            is_secured: wire.tls().is_some(),
            is_verified: peer.is_some_and(|peer| peer.is_verified),
            is_name_trusted: station.site().is_static,
            failed_lately: plan == Plan::Plain(Why::FailedLately),
            offers_require_tls: wire.client.offer().require_tls,
        })
    }
}

/// Whom next hops' certificates have to be from.
pub fn authorities(file: Option<&Path>) -> Roots {
    file.map_or(Roots::System, |path| Roots::File(path.to_owned()))
}

/// Waits until the server has greeted and said what it offers.
async fn ready(wire: &mut Wire) -> Result<(), Failure> {
    match wire.event().await? {
        Event::Ready => Ok(()),
        event => unreachable!("nothing was begun that leads to {event:?}"),
    }
}

/// Authenticates with the best mechanism that the server offers.
async fn authenticate(wire: &mut Wire, login: &Login) -> Result<(), Failure> {
    let (offered, bindings) = (wire.client.offer().auth, wire.bindings());
    let is_secured = wire.client.is_secured();
    let Some(mechanism) = choose(offered, is_secured, !bindings.is_empty()) else {
        let text = format!("{} offers no way to authenticate that is known here", wire.host);
        return Err(insecure(4, text));
    };
    let credentials = Credentials::new(&login.user, &login.password.0)
        .map_err(|why| insecure(8, format!("the credentials for {}: {why}", wire.host)))?;
    let nonce = base64::encode(&random::octets::<18>());
    let (mut exchange, command) =
        Exchange::begin(mechanism, offered, &credentials, &nonce, &bindings);
    wire.client.authenticate(&command, &mut wire.out);
    let mut broken = None;
    loop {
        match wire.event().await? {
            Event::Challenge => {
                let line = match exchange.challenged(wire.client.challenge()) {
                    Ok(Answer::Line(line)) => line,
                    Ok(Answer::Derive(work)) => {
                        exchange.derived(&blocking(move || work.run()).await)
                    }
                    Err(bad) => {
                        broken.get_or_insert(bad);
                        CANCEL.to_owned()
                    }
                };
                wire.client.respond(&line, &mut wire.out);
            }
            Event::Authenticated => {
                let Some(bad) = broken.or(exchange.succeeded().err()) else { return Ok(()) };
                return Err(insecure(8, format!("{} is not believed: {bad}", wire.host)));
            }
            Event::NotAuthenticated => {
                let (host, user) = (&wire.host, &login.user);
                let text = match broken {
                    Some(bad) => format!("{host} is not believed: {bad}"),
                    None => format!(
                        "{host} refused the credentials of {user:?}: {}",
                        wire.client.reply()
                    ),
                };
                return Err(insecure(8, text));
            }
            event => unreachable!("AUTH does not lead to {event:?}"),
        }
    }
}
