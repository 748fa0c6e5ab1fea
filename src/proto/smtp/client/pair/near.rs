//! The client of a pair: our engine over an [`End`], driven as `relay` drives it.

use super::super::{Client, End as Closing, Event};
use super::far::Far;
use super::plan::{Carriage, Message};
use super::wire::{End, Version, asking};
use crate::base::{Mechanism, Mechanisms};
use crate::proto::sasl::Binding;
use crate::proto::sasl::client::{Credentials, Exchange, Reply, choose};

/// How a client authenticates.
#[derive(Clone, Debug)]
pub(super) struct Login {
    /// With this, or the best that there is.
    pub(super) mechanism: Option<Mechanism>,
    pub(super) password: &'static str,
    /// Bound to another connection: somebody stands between.
    pub(super) binding: Option<Binding>,
    /// What it heard of the server's offer, if that is not what was said.
    pub(super) told: Option<Mechanisms>,
}

/// What a client has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Nobody,
    By(Mechanism),
    Refused(u16),
}

/// A client in memory.
pub(super) struct Near {
    pub(super) end: End,
    pub(super) client: Client,
    version: Option<Version>,
    login: Option<Login>,
    exchange: Option<Exchange>,
    pub(super) known: Known,
    plans: Vec<Message>,
    /// The message to be begun next.
    next: usize,
    /// Those that were begun and are not over.
    begun: Vec<usize>,
    /// Octets of the first of them that were sent, and how many chunks they made.
    sent: (usize, usize),
    /// The word on each recipient of each message; empty for one that was not begun.
    pub(super) accounts: Vec<Vec<u16>>,
    pub(super) closed: Option<Closing>,
}

impl Near {
    /// One that was just connected. With a `version` it speaks TLS, from the start if
    /// it `is_implicit`.
    pub(super) fn new(
        is_lmtp: bool,
        version: Option<Version>,
        is_implicit: bool,
        login: Option<Login>,
        plans: &[Message],
    ) -> Near {
        let mut end = End::default();
        let mut client =
            if is_lmtp { Client::lmtp("client.test") } else { Client::new("client.test") };
        if is_implicit {
            client.secured_at_once();
            end.begin_tls(asking(version.expect("a version")));
        }
        Near {
            end,
            client,
            version,
            login,
            exchange: None,
            known: Known::Nobody,
            plans: plans.to_vec(),
            next: 0,
            begun: Vec::new(),
            sent: (0, 0),
            accounts: plans.iter().map(|_| Vec::new()).collect(),
            closed: None,
        }
    }

    /// Reads what there is to read.
    pub(super) fn run(&mut self) {
        if self.end.take_shaken() && self.client.phase() == super::super::Phase::Handshake {
            self.client.secured(&mut self.end.out);
        }
        while self.closed.is_none() && !self.end.is_handshaking() {
            let (used, event) = self.client.step(&self.end.unread, &mut self.end.out);
            self.end.unread.drain(..used);
            if event == Event::NeedInput {
                break;
            }
            self.follow(event);
        }
        self.end.send();
    }

    fn follow(&mut self, event: Event) {
        match event {
            Event::Ready => self.ready(),
            Event::Handshake => self.end.begin_tls(asking(self.version.expect("a version"))),
            Event::Challenge => self.challenged(),
            Event::Authenticated => {
                let exchange = self.exchange.take().expect("AUTH was sent");
                exchange.succeeded().unwrap();
                self.known = Known::By(exchange.mechanism());
                self.begin();
            }
            Event::NotAuthenticated => {
                self.known = Known::Refused(self.client.code());
                self.next = self.plans.len();
                self.begin();
            }
            Event::Refused { recipient } | Event::Verdict { recipient } => {
                self.accounts[self.begun[0]][recipient] = self.client.code();
            }
            Event::SendBody => self.send_body(),
            Event::Finished => {
                let code = self.client.code();
                for entry in &mut self.accounts[self.begun.remove(0)] {
                    *entry = if *entry == 0 { code } else { *entry };
                }
                self.sent = (0, 0);
                self.begin();
            }
            Event::Closed(end) => self.closed = Some(end),
            Event::NoTls | Event::NeedInput => panic!("{event:?} where it cannot be"),
        }
    }

    fn ready(&mut self) {
        let offers_tls = self.client.offer().starttls;
        if self.version.is_some() && !self.client.is_secured() {
            assert!(offers_tls && self.client.offer().auth.is_empty());
            return self.client.start_tls(&mut self.end.out);
        }
        assert!(!offers_tls || self.version.is_none(), "TLS within TLS");
        let Some(login) = self.login.clone() else { return self.begin() };
        let offered = login.told.unwrap_or(self.client.offer().auth);
        let bindings = login.binding.map_or_else(|| self.end.bindings(), |other| vec![other]);
        let best = choose(offered, self.client.is_secured(), !bindings.is_empty());
        let mechanism = login.mechanism.or(best).expect("a mechanism is offered");
        let credentials = Credentials::new(super::far::USER.0, login.password).unwrap();
        let nonce = "nonce-of-the-client-alone";
        let (exchange, command) =
            Exchange::begin(mechanism, offered, &credentials, nonce, &bindings);
        self.exchange = Some(exchange);
        self.client.authenticate(&command, &mut self.end.out);
    }

    fn challenged(&mut self) {
        let exchange = self.exchange.as_mut().expect("AUTH was sent");
        let line = match exchange.challenged(self.client.challenge()).unwrap() {
            Reply::Line(line) => line,
            Reply::Derive(work) => exchange.derived(&work.run()),
        };
        self.client.respond(&line, &mut self.end.out);
    }

    /// Begins what may be begun, and says goodbye when there is nothing left.
    fn begin(&mut self) {
        while self.client.may_begin() && self.next < self.plans.len() {
            let number = self.next;
            let plan = &self.plans[number];
            self.next += 1;
            let offer = self.client.offer();
            let is_chunked = plan.binary || offer.chunking && plan.carriage != Carriage::Data;
            let begun = plan.begin(number, is_chunked, &mut self.client, &mut self.end.out);
            if begun.is_err() {
                continue;
            }
            self.accounts[number] = vec![0; plan.refused.len()];
            self.begun.push(number);
            if is_chunked && self.goes_ahead(number) {
                let plan = &self.plans[number];
                self.client.chunk_ahead(plan.content.len(), &mut self.end.out);
                self.end.out.extend(&plan.content);
            }
        }
        if self.begun.is_empty() && self.next == self.plans.len() {
            self.client.quit(&mut self.end.out);
        }
    }

    fn goes_ahead(&self, number: usize) -> bool {
        let is_asked = self.plans[number].carriage == Carriage::Ahead;
        is_asked && self.client.offer().pipelining && !self.client.is_lmtp
    }

    fn send_body(&mut self) {
        let number = self.begun[0];
        let plan = &self.plans[number];
        let offer = self.client.offer();
        if !plan.binary && (plan.carriage == Carriage::Data || !offer.chunking) {
            self.end.out.extend(stuffed(&plan.content));
            self.client.body_sent();
            return self.begin();
        }
        let (sent, chunks) = self.sent;
        let rest = &plan.content[sent..];
        let size = match &plan.carriage {
            Carriage::Chunks(sizes) => sizes[chunks % sizes.len()].min(rest.len()),
            _ => rest.len(),
        };
        let is_last = size == rest.len();
        self.client.chunk(size, is_last, &mut self.end.out);
        self.end.out.extend(&rest[..size]);
        self.sent = (sent + size, chunks + 1);
        if is_last {
            self.begin();
        }
    }
}

fn stuffed(content: &[u8]) -> Vec<u8> {
    let lines = content.split_inclusive(|&octet| octet == b'\n');
    let dot = |line: &[u8]| if line.starts_with(b".") { &b"."[..] } else { b"" };
    let mut wire = lines.flat_map(|line| [dot(line), line]).collect::<Vec<_>>().concat();
    wire.extend(b".\r\n");
    wire
}

/// Carries octets between the two, in pieces of these sizes, until nothing moves.
pub(super) fn converse(near: &mut Near, far: &mut Far, pieces: &[usize]) {
    let mut pieces = pieces.iter().copied().cycle();
    loop {
        let mut moves = near.end.receive(&mut far.end, pieces.next().unwrap());
        near.run();
        moves |= far.end.receive(&mut near.end, pieces.next().unwrap());
        far.run();
        if !moves && near.end.is_quiet() && far.end.is_quiet() {
            return;
        }
    }
}
