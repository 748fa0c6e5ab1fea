//! AUTH (RFC 4954): the command, the lines of its exchange, and how it ends. What
//! a mechanism says is in `proto::sasl`.
//!
//! The driver says with [`Server::offer_mechanisms`] what this connection may
//! use, after the handshake: before that nothing is offered, and AUTH gets 538.
//! [`Step::Authenticate`](super::Step::Authenticate) then comes for two reasons,
//! which [`Server::authentication`] tells: users must be asked
//! ([`Server::identified`] takes what they say), or the exchange is over, and the
//! driver does its book-keeping before it lets the engine say so.

use super::states::State;
use super::{Server, replies};
use crate::base::{Mechanism, Mechanisms};
use crate::proto::sasl::base64;
use crate::proto::sasl::server::{Exchange, Failure, Keys, Need, Progress};
use crate::proto::smtp::command::AuthCommand;

/// What an exchange waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// The users, asked this.
    Need(Need<'a>),
    /// The driver, to be told of the end: who the client is, or why nobody.
    Ended(Result<&'a str, Failure>),
}

/// What the users say.
#[derive(Clone, Debug)]
pub enum Identified<'a> {
    /// To a password or certificate: who it is, if anybody.
    Checked(Option<String>),
    /// To a name: its keys.
    Keys(Keys<'a>),
}

/// An exchange that asks, or is over.
#[derive(Debug)]
pub(super) struct AuthAsked {
    exchange: Box<Exchange>,
    ended: Option<Result<String, Failure>>,
}

impl Server {
    /// The mechanisms that may be used from now on; of those that are configured
    /// ([`Offers::auth`](super::Offers::auth)), no others.
    pub fn offer_mechanisms(&mut self, mechanisms: Mechanisms) {
        let configured = self.session.settings.offers().auth;
        self.session.mechanisms = mechanisms.iter().filter(|one| configured.has(*one)).collect();
    }

    /// True once the client has authenticated.
    pub fn is_authenticated(&self) -> bool {
        self.session.authenticated
    }

    /// The exchange that goes on, if one does.
    pub fn exchange(&self) -> Option<&Exchange> {
        match &self.state {
            State::AwaitResponse(exchange) => Some(exchange),
            State::AuthAsked(asked) => Some(&asked.exchange),
            _ => None,
        }
    }

    /// What an exchange waits for, after [`Step::Authenticate`](super::Step::Authenticate).
    pub fn authentication(&self) -> Option<Authentication<'_>> {
        let State::AuthAsked(asked) = &self.state else { return None };
        match &asked.ended {
            None => asked.exchange.need().map(Authentication::Need),
            Some(Ok(user)) => Some(Authentication::Ended(Ok(user))),
            Some(Err(failure)) => Some(Authentication::Ended(Err(*failure))),
        }
    }

    /// Says what the users say to [`Authentication::Need`]. To refuse instead, see
    /// [`Server::answer`].
    ///
    /// # Panics
    ///
    /// If they were not asked, or not that.
    pub fn identified(mut self, answer: Identified<'_>, out: &mut Vec<u8>) -> Server {
        let State::AuthAsked(AuthAsked { exchange, ended: None }) = self.state else {
            panic!("the users were not asked")
        };
        let next = match answer {
            Identified::Checked(user) => exchange.checked(user),
            Identified::Keys(keys) => exchange.keys(keys),
        };
        self.state = go_on(next, out);
        self
    }

    /// AUTH.
    pub(super) fn authenticate(mut self, command: AuthCommand<'_>, out: &mut Vec<u8>) -> Server {
        let session = &self.session;
        let configured = session.settings.offers().auth;
        let refusal = match &self.state {
            _ if configured.is_empty() => Some(replies::COMMAND_NOT_OFFERED),
            State::AwaitHello => Some(session.hello_first()),
            State::Open(_) | State::Chunked(_) | State::Failed => {
                Some(replies::AUTH_IN_TRANSACTION)
            }
            _ if !session.extended => Some(replies::EHLO_FIRST),
            _ if session.authenticated => Some(replies::AUTH_TWICE),
            _ if session.mechanisms.is_empty() => Some(replies::AUTH_NEEDS_TLS),
            _ => None,
        };
        if let Some(text) = refusal {
            return self.error(text, out);
        }
        let usable = command.mechanism.filter(|mechanism| session.mechanisms.has(*mechanism));
        let Some(mechanism) = usable else { return self.error(replies::NO_SUCH_MECHANISM, out) };
        let initial = match command.initial.map(base64::decode_initial) {
            Some(None) => return self.error(replies::NO_BASE64, out),
            Some(Some(response)) => Some(response),
            None => None,
        };
        let mechanisms = session.mechanisms;
        if mechanism == Mechanism::ScramSha256Plus {
            // RFC 9266, 4.1. It stays in the offer: taken out, a client that was lied to
            // about it would be believed.
            if session.bound {
                return self.error(replies::BOUND_ALREADY, out);
            }
            self.session.bound = true;
        }
        let exchange = Exchange::new(mechanism, mechanisms);
        self.state = go_on(exchange.respond(initial.as_deref()), out);
        self
    }

    /// A line of the exchange.
    pub(super) fn response(mut self, line: &[u8], out: &mut Vec<u8>) -> Server {
        let State::AwaitResponse(exchange) = std::mem::replace(&mut self.state, State::AwaitMail)
        else {
            unreachable!("no response is awaited")
        };
        if line == b"*" {
            return self.error(replies::AUTH_CANCELLED, out);
        }
        let Some(response) = base64::decode(line) else {
            return self.error(replies::NO_BASE64, out);
        };
        self.state = go_on(exchange.respond(Some(&response)), out);
        self
    }

    /// A line that cannot be one of the exchange ends it.
    pub(super) fn no_response(mut self, text: &str, out: &mut Vec<u8>) -> Server {
        self.state = State::AwaitMail;
        self.error(text, out)
    }

    /// The driver has taken note of the end.
    pub(super) fn auth_ended(mut self, asked: AuthAsked, out: &mut Vec<u8>) -> Server {
        self.state = State::AwaitMail;
        match asked.ended.expect("the exchange is over") {
            Ok(_) => {
                self.session.authenticated = true;
                self.say(replies::AUTHENTICATED, out)
            }
            Err(Failure::Malformed) => self.error(replies::BAD_EXCHANGE, out),
            Err(Failure::Binding | Failure::Denied) => self.error(replies::NOT_AUTHENTICATED, out),
        }
    }
}

/// The state after an exchange has taken something in.
fn go_on((exchange, progress): (Exchange, Progress), out: &mut Vec<u8>) -> State {
    let exchange = Box::new(exchange);
    let ended = match progress {
        Progress::Challenge(challenge) => {
            out.extend_from_slice(b"334 ");
            out.extend_from_slice(base64::encode(&challenge).as_bytes());
            out.extend_from_slice(b"\r\n");
            return State::AwaitResponse(exchange);
        }
        Progress::Ask => None,
        Progress::Done(user) => Some(Ok(user)),
        Progress::Failed(failure) => Some(Err(failure)),
    };
    State::AuthAsked(AuthAsked { exchange, ended })
}
