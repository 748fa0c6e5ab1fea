//! The client side of SASL, in lines as SMTP writes them (RFC 4954).
//!
//! [`choose`] a mechanism, [`Exchange::begin`] with it and send the command; give
//! each 334 to [`Exchange::challenged`] and send what it returns. After 235,
//! [`Exchange::succeeded`] says whether the server is believed: with SCRAM it has
//! to have shown that it knows the password too.
//!
//! Security: nothing is sent without TLS ([`choose`] finds no mechanism then). A
//! server that breaks the rules (a nonce that is not ours, fewer iterations than
//! RFC 7677 allows or more than anybody asks for, a proof that is wrong, a
//! challenge too many) gets `*`, and its mail stays where it is. Passwords are
//! not in the debug form.

use std::fmt;
use std::num::NonZeroU32;

use super::base64;
use super::prep::prepared_password;
use super::scram::{self, Binding};
use crate::base::limits::COMMAND_LINE_MAX;
use crate::base::scram::{Hash, ITERATIONS_MIN};
use crate::base::{Mechanism, Mechanisms};

/// Most iterations that a server may ask for: about a second of work here.
const ITERATIONS_MAX: u32 = 1_000_000;
/// The line that cancels an exchange (RFC 4954, section 4).
pub const CANCEL: &str = "*";

/// A name and its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: String,
}

impl Credentials {
    /// These, if they can be sent at all.
    ///
    /// # Errors
    /// In words: a text that is empty or holds control characters.
    pub fn new(user: &str, password: &str) -> Result<Credentials, &'static str> {
        if prepared_password(user).is_none() {
            return Err("the user name is empty or holds characters that no name may hold");
        }
        if prepared_password(password).is_none() {
            return Err("the password is empty or holds characters that no password may hold");
        }
        Ok(Credentials { user: user.into(), password: password.into() })
    }

    /// The name.
    pub fn user(&self) -> &str {
        &self.user
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The best mechanism of `offered` for a name and password, over a connection
/// with `is_secured` TLS that `can_bind` when it has a [`Binding`]. Without TLS
/// there is none.
pub fn choose(offered: Mechanisms, is_secured: bool, can_bind: bool) -> Option<Mechanism> {
    let usable = |mechanism: &Mechanism| match mechanism {
        Mechanism::ScramSha256Plus => can_bind,
        Mechanism::External => false,
        Mechanism::ScramSha256 | Mechanism::Plain | Mechanism::Login => true,
    };
    if is_secured { offered.iter().find(usable) } else { None }
}

/// Why a server is not believed. Nothing was authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadServer {
    /// What follows 334 is no base64.
    Base64,
    /// It is no message of the mechanism.
    Malformed,
    /// The server's nonce does not begin with ours: an answer to somebody else.
    Nonce,
    /// It asks for fewer or more iterations than are reasonable.
    Iterations,
    /// It could not prove that it knows the password.
    Proof,
    /// It says that we are authenticated before the exchange is over.
    TooSoon,
    /// It asks once more when all has been said.
    TooMuch,
}

impl fmt::Display for BadServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadServer::Base64 => "its challenge is no base64",
            BadServer::Malformed => "its challenge is malformed",
            BadServer::Nonce => "its nonce is not an answer to ours",
            BadServer::Iterations => "it asks for too few or too many iterations",
            BadServer::Proof => "it could not prove that it knows the password",
            BadServer::TooSoon => "it ended the exchange before it had proved itself",
            BadServer::TooMuch => "it goes on asking when all is said",
        })
    }
}

/// What to do about a challenge.
#[derive(Debug)]
pub enum Reply {
    /// Send this line, and CRLF.
    Line(String),
    /// Do this work, away from what must not wait, and tell
    /// [`Exchange::derived`].
    Derive(Derivation),
}

/// The hashing of a password, as a server asked for it. Work of milliseconds
/// to a second.
#[derive(Clone, PartialEq, Eq)]
pub struct Derivation {
    password: String,
    salt: Vec<u8>,
    iterations: NonZeroU32,
}

/// Its result. The same for an equal [`Derivation`], so it may be kept.
#[derive(Clone)]
pub struct Derived(Hash);

impl Derivation {
    /// Does the work.
    pub fn run(&self) -> Derived {
        Derived(scram::salted(&self.password, &self.salt, self.iterations))
    }
}

impl fmt::Debug for Derivation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Derivation").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// One exchange.
pub struct Exchange {
    mechanism: Mechanism,
    state: State,
}

/// What is said next.
enum State {
    /// This, to an empty challenge; then nothing.
    Response(Vec<u8>),
    /// The name and then the password, whatever the challenges are.
    Name(Credentials),
    Password(String),
    /// SCRAM's first message, if it did not go with the command.
    First(Scram, bool),
    /// The proof, once the password is hashed.
    Deriving(Scram, String),
    /// The server's own proof is checked: it must be this.
    Proof(Hash),
    /// Nothing.
    Said,
    /// Nothing: the exchange went wrong.
    Broken,
}

struct Scram {
    password: String,
    /// The header that says how the exchange is bound, and the data.
    header: String,
    binding: Box<[u8]>,
    bare: String,
    nonce: String,
}

impl Exchange {
    /// The exchange for `mechanism`, which is one of `offered`, and the command
    /// that begins it, without CRLF. `nonce` is random, 18 octets in base64 or
    /// more; `bindings` are those of the connection, the best first.
    pub fn begin(
        mechanism: Mechanism,
        offered: Mechanisms,
        credentials: &Credentials,
        nonce: &str,
        bindings: &[Binding],
    ) -> (Exchange, String) {
        let state = match mechanism {
            Mechanism::Plain => {
                let Credentials { user, password } = credentials;
                State::Response(format!("\0{user}\0{password}").into_bytes())
            }
            Mechanism::External => State::Response(Vec::new()),
            Mechanism::Login => State::Name(credentials.clone()),
            Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => {
                State::First(Scram::new(mechanism, offered, credentials, nonce, bindings), false)
            }
        };
        let mut exchange = Exchange { mechanism, state };
        let command = exchange.command();
        (exchange, command)
    }

    /// The mechanism.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// The command, with the first message if it has room (RFC 4954, section 4).
    fn command(&mut self) -> String {
        let name = self.mechanism.name();
        let first = match &self.state {
            State::Response(response) => base64::encode_initial(response),
            State::First(scram, _) => base64::encode_initial(&scram.first()),
            _ => return format!("AUTH {name}"),
        };
        let command = format!("AUTH {name} {first}");
        if command.len() + 2 > COMMAND_LINE_MAX {
            return format!("AUTH {name}");
        }
        match &mut self.state {
            State::First(_, is_sent) => *is_sent = true,
            state => *state = State::Said,
        }
        command
    }

    /// What to do about a 334 with this text.
    ///
    /// # Errors
    /// The server breaks the rules: send [`CANCEL`], and do not go on.
    pub fn challenged(&mut self, text: &str) -> Result<Reply, BadServer> {
        let state = std::mem::replace(&mut self.state, State::Broken);
        // What challenges of LOGIN say is for people, and not always base64.
        let challenge = match &state {
            State::Name(_) | State::Password(_) => Vec::new(),
            _ => base64::decode(text.trim_end().as_bytes()).ok_or(BadServer::Base64)?,
        };
        let said;
        (self.state, said) = match state {
            State::Response(response) if challenge.is_empty() => (State::Said, response),
            State::Response(_) => return Err(BadServer::Malformed),
            State::Name(Credentials { user, password }) => {
                (State::Password(password), user.into_bytes())
            }
            State::Password(password) => (State::Said, password.into_bytes()),
            State::First(scram, false) if challenge.is_empty() => {
                let first = scram.first();
                (State::First(scram, true), first)
            }
            State::First(_, false) => return Err(BadServer::Malformed),
            State::First(scram, true) => {
                let challenge = String::from_utf8(challenge).map_err(|_| BadServer::Malformed)?;
                let work = scram.derivation(&challenge)?;
                self.state = State::Deriving(scram, challenge);
                return Ok(Reply::Derive(work));
            }
            State::Proof(expected) => {
                let proof = challenge.strip_prefix(b"v=").and_then(base64::decode);
                if !scram::same(&proof.ok_or(BadServer::Malformed)?, &expected) {
                    return Err(BadServer::Proof);
                }
                (State::Said, Vec::new())
            }
            State::Said | State::Broken | State::Deriving(..) => return Err(BadServer::TooMuch),
        };
        Ok(Reply::Line(base64::encode(&said)))
    }

    /// The line to send, without CRLF, now that the password is hashed.
    ///
    /// # Panics
    /// If that was not asked for.
    pub fn derived(&mut self, derived: &Derived) -> String {
        let State::Deriving(scram, server_first) =
            std::mem::replace(&mut self.state, State::Broken)
        else {
            panic!("no hashing was asked for")
        };
        let (line, expected) = scram.last(&server_first, &derived.0);
        self.state = State::Proof(expected);
        base64::encode(line.as_bytes())
    }

    /// Whether a 235 is believed.
    ///
    /// # Errors
    /// The exchange is not over.
    pub fn succeeded(&self) -> Result<(), BadServer> {
        match self.state {
            State::Said => Ok(()),
            State::Proof(_) => Err(BadServer::Proof),
            _ => Err(BadServer::TooSoon),
        }
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

impl Scram {
    fn new(
        mechanism: Mechanism,
        offered: Mechanisms,
        credentials: &Credentials,
        nonce: &str,
        bindings: &[Binding],
    ) -> Scram {
        let bound = bindings.first().filter(|_| mechanism == Mechanism::ScramSha256Plus);
        let header = match (bound, bindings.is_empty()) {
            (Some(binding), _) => format!("p={},,", binding.kind.name()),
            // We could have bound, and the server seems not to: if it does offer
            // that, somebody between has taken it out, and it will notice.
            (None, false) if !offered.has(Mechanism::ScramSha256Plus) => "y,,".into(),
            (None, _) => "n,,".into(),
        };
        let name = prepared_password(&credentials.user).unwrap_or_default();
        let password = prepared_password(&credentials.password).unwrap_or_default();
        Scram {
            password: password.into_owned(),
            header,
            binding: bound.map_or_else(Box::default, |binding| binding.data.clone()),
            bare: format!("n={},r={nonce}", scram::escape(&name)),
            nonce: nonce.into(),
        }
    }

    /// client-first-message.
    fn first(&self) -> Vec<u8> {
        format!("{}{}", self.header, self.bare).into_bytes()
    }

    /// Reads server-first-message. `m=` at its begin would be an extension that
    /// must be understood.
    fn derivation(&self, server_first: &str) -> Result<Derivation, BadServer> {
        let mut parts = server_first.split(',');
        let mut next = |name| {
            parts.next().and_then(|part| scram::attribute(part, name)).ok_or(BadServer::Malformed)
        };
        let (nonce, salt, iterations) = (next('r')?, next('s')?, next('i')?);
        let ours = &self.nonce;
        if !scram::is_nonce(nonce) || !nonce.starts_with(ours) || nonce.len() == ours.len() {
            return Err(BadServer::Nonce);
        }
        let salt = base64::decode(salt.as_bytes()).filter(|salt| !salt.is_empty());
        let iterations: NonZeroU32 = iterations.parse().map_err(|_| BadServer::Malformed)?;
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations.get()) {
            return Err(BadServer::Iterations);
        }
        let salt = salt.ok_or(BadServer::Malformed)?;
        Ok(Derivation { password: self.password.clone(), salt, iterations })
    }

    /// client-final-message, and the proof that the server has to give.
    fn last(&self, server_first: &str, salted: &Hash) -> (String, Hash) {
        let nonce = server_first.split(',').next().unwrap_or_default();
        let bound = [self.header.as_bytes(), &self.binding].concat();
        let without_proof = format!("c={},{nonce}", base64::encode(&bound));
        let said = format!("{},{server_first},{without_proof}", self.bare);
        let client_key = scram::client_key(salted);
        let signature = scram::mac(&scram::hash(&client_key), said.as_bytes());
        let proof = base64::encode(&scram::xor(&client_key, &signature));
        let expected = scram::mac(&scram::server_key(salted), said.as_bytes());
        (format!("{without_proof},p={proof}"), expected)
    }
}
