//! What a connection of the load generator does between its greeting and its first
//! message: STARTTLS, the handshake, AUTH.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use ringpost::base::Mechanism;
use ringpost::io::random;
use ringpost::proto::sasl::base64;
use ringpost::proto::sasl::client::{CANCEL, Exchange, Reply, choose};

use super::connection::Connection;
use super::security::Login;
use crate::latency::ns;
use crate::values::TlsStart;

/// The step that handshakes are counted at.
const HANDSHAKE: &str = "in the TLS handshake";

/// Octets of a nonce.
const NONCE: usize = 18;

/// How far a connection is with all this.
#[derive(Default)]
pub(super) struct Opening {
    /// The exchange that goes on.
    exchange: Option<Exchange>,
    is_authenticated: bool,
    /// What was wrong with what the server said in it.
    distrust: Option<String>,
}

impl Connection {
    /// Begins with the handshake, if that comes before the greeting.
    pub(super) async fn secure_at_once(&mut self) -> io::Result<()> {
        if self.plan.tls.as_ref().is_some_and(|tls| tls.start == TlsStart::Implicit) {
            Box::pin(self.handshake()).await?;
            self.client.secured_at_once();
        }
        Ok(())
    }

    /// The server has said what it offers: goes on to what comes next.
    pub(super) async fn ready(&mut self) -> io::Result<()> {
        let offer = self.client.offer();
        if self.plan.tls.is_some() && !self.client.is_secured() {
            if !offer.starttls {
                return Err(self.lacks("STARTTLS, which --tls starttls is for"));
            }
            self.client.start_tls(&mut self.out);
            return Ok(());
        }
        if let Some(login) = self.plan.login.clone()
            && !self.opening.is_authenticated
        {
            return self.authenticate(&login);
        }
        if self.plan.bdat && !offer.chunking {
            return Err(self.lacks("CHUNKING, which --bdat is for"));
        }
        self.worker.opened();
        if !self.plan.pipelining {
            self.client.send_one_by_one();
        }
        self.begin_or_quit(Instant::now()).await
    }

    /// Does the handshake that the server is ready for, and greets again.
    pub(super) async fn secure(&mut self) -> io::Result<()> {
        Box::pin(self.handshake()).await?;
        self.client.secured(&mut self.out);
        Ok(())
    }

    async fn handshake(&mut self) -> io::Result<()> {
        let plan = Arc::clone(&self.plan);
        let (Some(tls), Some(client)) = (&plan.tls, &self.worker.tls) else {
            unreachable!("TLS was asked for")
        };
        self.guard.disarm();
        let begun = Instant::now();
        let verify = &[tls.name.as_str()];
        let done = self.stream.connect_tls(client, &tls.name, tls.verify(verify), plan.timeout);
        if let Err(failure) = done.await {
            self.stage = Some(HANDSHAKE);
            let text = format!("the TLS handshake failed: {failure}");
            self.worker.not_opened(&text, false);
            return Err(io::Error::other(failure.text));
        }
        let now = Instant::now();
        let counts = now >= self.worker.measure_from;
        if let Some(facts) = self.stream.tls() {
            self.worker.figures.borrow_mut().handshake(ns(now - begun), counts, facts);
        }
        Ok(())
    }

    /// The server does not want TLS just now.
    pub(super) fn not_secured(&mut self) {
        let reply = self.client.reply();
        self.worker.not_opened(&format!("the server refused STARTTLS: {reply}"), false);
        self.worker.figures.borrow_mut().refusal("STARTTLS", &reply);
        self.client.quit(&mut self.out);
    }

    fn authenticate(&mut self, login: &Login) -> io::Result<()> {
        let offered = self.client.offer().auth;
        let bindings = self.stream.bindings();
        let mechanism = match login.mechanism {
            Some(only) => offered.has(only).then_some(only),
            None => choose(offered, self.client.is_secured(), !bindings.is_empty()),
        };
        let Some(mechanism) = mechanism else {
            let what = login
                .mechanism
                .map_or("AUTH with a password".into(), |only| format!("AUTH {only}"));
            return Err(self.lacks(&what));
        };
        // A mechanism that was asked for by name is not what a binding was lost to.
        let bindings = if login.mechanism.is_some_and(|only| only != Mechanism::ScramSha256Plus) {
            vec![]
        } else {
            bindings
        };
        let nonce = base64::encode(&random::octets::<NONCE>());
        let (exchange, command) =
            Exchange::begin(mechanism, offered, &login.credentials, &nonce, &bindings);
        self.client.authenticate(&command, &mut self.out);
        self.opening.exchange = Some(exchange);
        Ok(())
    }

    /// Answers a challenge.
    pub(super) fn challenged(&mut self) {
        let exchange = self.opening.exchange.as_mut().expect("an exchange goes on");
        let line = match exchange.challenged(self.client.challenge()) {
            Ok(Reply::Line(line)) => line,
            Ok(Reply::Derive(work)) => exchange.derived(&self.worker.derive(work)),
            Err(bad) => {
                self.opening.distrust.get_or_insert(bad.to_string());
                CANCEL.to_owned()
            }
        };
        self.client.respond(&line, &mut self.out);
    }

    /// The server believes us; whether we believe it is another matter.
    pub(super) async fn authenticated(&mut self) -> io::Result<()> {
        let exchange = self.opening.exchange.take().expect("an exchange went on");
        let bad = self.opening.distrust.take();
        if let Some(bad) = bad.or_else(|| exchange.succeeded().err().map(|bad| bad.to_string())) {
            self.stage = Some("AUTH");
            let text = format!("the server is not believed: {bad}");
            self.worker.not_opened(&text, false);
            return Err(io::Error::other(text));
        }
        self.opening.is_authenticated = true;
        self.ready().await
    }

    /// The server does not believe us, or we do not believe it.
    pub(super) fn not_authenticated(&mut self) {
        let reply = self.client.reply();
        let text = match self.opening.distrust.take() {
            Some(bad) => format!("the server is not believed: {bad}"),
            None => format!("the server refused the user and password: {reply}"),
        };
        self.worker.not_opened(&text, reply.is_permanent());
        self.worker.figures.borrow_mut().refusal("AUTH", &reply);
        self.client.quit(&mut self.out);
    }

    /// The server does not offer what the run is about.
    fn lacks(&mut self, what: &str) -> io::Error {
        let text = format!("the server does not offer {what}");
        self.worker.not_opened(&text, true);
        self.stage = Some("EHLO");
        io::Error::other(text)
    }
}
