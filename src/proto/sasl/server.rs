//! The server side of SASL. The SMTP server engine gives each response of the
//! client to [`Exchange::respond`] and does what the [`Progress`] says. Where the
//! users must be asked, [`Exchange::need`] says what, and one of
//! [`Exchange::checked`] and [`Exchange::keys`] takes the answer.
//!
//! Security:
//! * Whether a name is unknown, disabled, or its password wrong looks the same:
//!   for SCRAM, unknown names get keys that were made up, by an answer of the same
//!   form.
//! * A client that could bind its exchange to TLS and thinks that we cannot
//!   (`y`) is refused where we can: somebody has taken -PLUS out of our offer
//!   (RFC 5802, section 6).
//! * Nobody acts for another: an authorization identity has to be the name that is
//!   authenticated.
//! * Names are prepared (RFC 4013) before anybody is asked for them. None has
//!   control characters in it.

use std::fmt;

use super::base64;
use super::prep::{prepared_name, prepared_password};
use super::scram::{self, Binding, BindingKind};
use crate::base::scram::{Hash, ScramKeys};
use crate::base::{Mechanism, Mechanisms};

/// What the users must be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need<'a> {
    /// Whether this is the password of this user. `None` for a name or a password
    /// that no user can have: take as long, and say no.
    Password(Option<(&'a str, &'a str)>),
    /// The keys of this user, `None` as before.
    Keys(Option<&'a str>),
    /// Whose certificate the client has, and whether that is this user, if one is
    /// named. The outer `None` is for a name that no user can have.
    Certificate(Option<Option<&'a str>>),
}

/// What comes next.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Send this challenge and read a response.
    Challenge(Vec<u8>),
    /// The users must be asked.
    Ask,
    /// This is who the client is.
    Done(String),
    /// The exchange has failed.
    Failed(Failure),
}

/// Why an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A response that is no message of the mechanism; no password was tried.
    Malformed,
    /// The exchange is not bound to this TLS connection as it would have to be.
    Binding,
    /// Wrong name, password or certificate.
    Denied,
}

/// Keys for an exchange of SCRAM.
#[derive(Clone, Debug)]
pub struct Keys<'a> {
    /// The keys, or made up ones.
    pub keys: ScramKeys,
    /// Who has them; `None` when they were made up.
    pub user: Option<String>,
    /// Random: 18 octets in base64 or more.
    pub nonce: &'a str,
    /// What this TLS connection can be bound by.
    pub bindings: &'a [Binding],
}

/// An exchange with one client.
pub struct Exchange {
    mechanism: Mechanism,
    /// -PLUS was offered beside it.
    plus_offered: bool,
    /// Who the client says it is, once it has, if that is a name at all.
    name: Option<Box<str>>,
    state: State,
}

enum State {
    /// The client's first response.
    Begin,
    /// The password, for LOGIN.
    LoginPassword(String),
    /// Whether this is the password.
    PasswordAsked(Option<(String, String)>),
    /// The keys.
    KeysAsked(First),
    /// Whose certificate it is.
    CertificateAsked(Option<Option<String>>),
    /// SCRAM's last message.
    Proof(Box<Awaited>),
    /// The empty response to our own proof.
    Assent(String),
    /// Nothing more.
    Over,
}

/// The client's first message of SCRAM.
struct First {
    /// `n,,` and the like: it comes again in the last message.
    header: String,
    bound_by: Option<BindingKind>,
    bare: String,
    name: Option<String>,
    nonce: String,
}

/// What SCRAM's last message is held against.
struct Awaited {
    user: Option<String>,
    keys: ScramKeys,
    /// What `c=` has to say.
    bound: String,
    nonce: String,
    /// client-first-message-bare and server-first-message.
    said: String,
}

impl State {
    /// The name that is asked about, if it can be one.
    fn name(&self) -> Option<&str> {
        match self {
            State::PasswordAsked(asked) => asked.as_ref().map(|(name, _)| &**name),
            State::KeysAsked(first) => first.name.as_deref(),
            State::CertificateAsked(named) => named.as_ref()?.as_deref(),
            _ => None,
        }
    }
}

type Next = (Exchange, Progress);

impl Exchange {
    /// An exchange for `mechanism`, which is one of `offered`. The client's first
    /// response comes with the command, or after a first [`respond`](Self::respond)
    /// to nothing.
    pub fn new(mechanism: Mechanism, offered: Mechanisms) -> Exchange {
        let plus_offered = offered.has(Mechanism::ScramSha256Plus);
        Exchange { mechanism, plus_offered, name: None, state: State::Begin }
    }

    /// The mechanism.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Who the client says it is, once it has, if that is a name that a user can
    /// have; prepared.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Takes the client's response, decoded; `None` stands for a command without
    /// an initial one.
    ///
    /// # Panics
    /// If the users were asked and did not answer.
    pub fn respond(self, response: Option<&[u8]>) -> Next {
        let Exchange { mechanism, plus_offered, state, .. } = self;
        let (state, progress) = match (state, response) {
            (State::Begin, None) => (State::Begin, Progress::Challenge(first_challenge(mechanism))),
            (State::Begin, Some(response)) => begin(mechanism, plus_offered, response),
            (State::LoginPassword(name), Some(password)) => {
                (State::PasswordAsked(login(&name, password)), Progress::Ask)
            }
            (State::Proof(awaited), Some(response)) => awaited.prove(response),
            (State::Assent(user), Some(b"")) => (State::Over, Progress::Done(user)),
            (State::Assent(_) | State::Over | State::LoginPassword(_) | State::Proof(_), _) => {
                failed(Failure::Malformed)
            }
            (State::PasswordAsked(_) | State::KeysAsked(_) | State::CertificateAsked(_), _) => {
                panic!("the users were asked and have not answered")
            }
        };
        let name = state.name().map(Box::from).or(self.name);
        (Exchange { mechanism, plus_offered, name, state }, progress)
    }

    /// What the users are asked, after [`Progress::Ask`].
    pub fn need(&self) -> Option<Need<'_>> {
        match &self.state {
            State::PasswordAsked(asked) => {
                Some(Need::Password(asked.as_ref().map(|(name, password)| (&**name, &**password))))
            }
            State::KeysAsked(first) => Some(Need::Keys(first.name.as_deref())),
            State::CertificateAsked(named) => {
                Some(Need::Certificate(named.as_ref().map(Option::as_deref)))
            }
            _ => None,
        }
    }

    /// Answers [`Need::Password`] and [`Need::Certificate`]: who the client is, if
    /// it is anybody.
    ///
    /// # Panics
    /// If that was not asked.
    pub fn checked(self, user: Option<String>) -> Next {
        let asked = matches!(self.state, State::PasswordAsked(_) | State::CertificateAsked(_));
        assert!(asked, "nothing was to be checked");
        let progress = user.map_or(Progress::Failed(Failure::Denied), Progress::Done);
        (Exchange { state: State::Over, ..self }, progress)
    }

    /// Answers [`Need::Keys`].
    ///
    /// # Panics
    /// If that was not asked.
    pub fn keys(self, keys: Keys<'_>) -> Next {
        let State::KeysAsked(first) = self.state else { panic!("no keys were asked for") };
        let (state, progress) = match first.bound(keys.bindings) {
            None => failed(Failure::Binding),
            Some(bound) => {
                let nonce = format!("{}{}", first.nonce, keys.nonce);
                let salt = base64::encode(&keys.keys.salt);
                let challenge = format!("r={nonce},s={salt},i={}", keys.keys.iterations);
                let said = format!("{},{challenge}", first.bare);
                let (user, keys) = (keys.user, keys.keys);
                let awaited = Awaited { user, keys, bound, nonce, said };
                (State::Proof(Box::new(awaited)), Progress::Challenge(challenge.into_bytes()))
            }
        };
        (Exchange { state, ..self }, progress)
    }
}

impl fmt::Debug for Exchange {
    /// Without what the client said: that may be a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

/// The challenge to a command without an initial response.
fn first_challenge(mechanism: Mechanism) -> Vec<u8> {
    match mechanism {
        Mechanism::Login => b"Username:".to_vec(),
        _ => Vec::new(),
    }
}

fn failed(failure: Failure) -> (State, Progress) {
    (State::Over, Progress::Failed(failure))
}

fn text(octets: &[u8]) -> Option<&str> {
    std::str::from_utf8(octets).ok()
}

/// Reads the client's first response.
fn begin(mechanism: Mechanism, plus_offered: bool, response: &[u8]) -> (State, Progress) {
    match mechanism {
        Mechanism::Plain => match plain(response) {
            Some(asked) => (State::PasswordAsked(asked), Progress::Ask),
            None => failed(Failure::Malformed),
        },
        Mechanism::Login => match text(response) {
            Some(name) => {
                (State::LoginPassword(name.into()), Progress::Challenge(b"Password:".to_vec()))
            }
            None => failed(Failure::Malformed),
        },
        Mechanism::External => match text(response) {
            Some("") => (State::CertificateAsked(Some(None)), Progress::Ask),
            Some(name) => (State::CertificateAsked(prepared_name(name).map(Some)), Progress::Ask),
            None => failed(Failure::Malformed),
        },
        Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => {
            let is_plus = mechanism == Mechanism::ScramSha256Plus;
            match First::parse(response, is_plus, plus_offered) {
                Ok(first) => (State::KeysAsked(first), Progress::Ask),
                Err(failure) => failed(failure),
            }
        }
    }
}

/// The name and password of LOGIN, as far as somebody could have them.
fn login(name: &str, password: &[u8]) -> Option<(String, String)> {
    let password = prepared_password(text(password)?)?;
    Some((prepared_name(name)?, password.into_owned()))
}

/// Reads `[authzid] NUL authcid NUL passwd` (RFC 4616, section 2). The inner
/// `None` is for what no user can have.
fn plain(response: &[u8]) -> Option<Option<(String, String)>> {
    let mut parts = text(response)?.split('\0');
    let (acts_for, name, password) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || name.is_empty() || password.is_empty() {
        return None;
    }
    let prepared = || {
        let prepared = prepared_name(name)?;
        let is_self = acts_for.is_empty() || prepared_name(acts_for)? == prepared;
        is_self.then_some((prepared, prepared_password(password)?.into_owned()))
    };
    Some(prepared())
}

impl First {
    /// Reads client-first-message (RFC 5802, section 7).
    fn parse(response: &[u8], is_plus: bool, plus_offered: bool) -> Result<First, Failure> {
        let message = text(response).ok_or(Failure::Malformed)?;
        let (flag, rest) = message.split_once(',').ok_or(Failure::Malformed)?;
        let (acts_for, bare) = rest.split_once(',').ok_or(Failure::Malformed)?;
        let bound_by = match flag {
            "n" if !is_plus => None,
            "y" if !is_plus && !plus_offered => None,
            "y" if !is_plus => return Err(Failure::Binding),
            _ if is_plus => {
                let kind = scram::attribute(flag, 'p').ok_or(Failure::Malformed)?;
                Some(BindingKind::parse(kind).ok_or(Failure::Binding)?)
            }
            _ => return Err(Failure::Malformed),
        };
        let mut parts = bare.split(',');
        let mut next = |name| {
            parts.next().and_then(|part| scram::attribute(part, name)).ok_or(Failure::Malformed)
        };
        // `m=` in the place of the name would be an extension that must be understood.
        let name = scram::unescape(next('n')?).ok_or(Failure::Malformed)?;
        let nonce = next('r')?;
        if !scram::is_nonce(nonce) {
            return Err(Failure::Malformed);
        }
        let name = prepared_name(&name);
        let is_self = match acts_for {
            "" => true,
            other => {
                let other = scram::attribute(other, 'a').and_then(scram::unescape);
                prepared_name(&other.ok_or(Failure::Malformed)?) == name
            }
        };
        Ok(First {
            header: format!("{flag},{acts_for},"),
            bound_by,
            bare: bare.into(),
            name: name.filter(|_| is_self),
            nonce: nonce.into(),
        })
    }

    /// What `c=` of the last message has to be; `None` if this connection cannot
    /// be bound so.
    fn bound(&self, bindings: &[Binding]) -> Option<String> {
        let data: &[u8] = match self.bound_by {
            None => &[],
            Some(kind) => &bindings.iter().find(|binding| binding.kind == kind)?.data,
        };
        Some(base64::encode(&[self.header.as_bytes(), data].concat()))
    }
}

impl Awaited {
    /// Reads client-final-message, and checks it.
    fn prove(self, response: &[u8]) -> (State, Progress) {
        let Some((without_proof, proof)) = text(response).and_then(|m| m.rsplit_once(",p=")) else {
            return failed(Failure::Malformed);
        };
        let mut parts = without_proof.split(',');
        let bound = parts.next().and_then(|part| scram::attribute(part, 'c'));
        let nonce = parts.next().and_then(|part| scram::attribute(part, 'r'));
        let proof = base64::decode(proof.as_bytes());
        let proof = proof.and_then(|proof| Hash::try_from(proof).ok());
        let (Some(bound), Some(nonce), Some(proof)) = (bound, nonce, proof) else {
            return failed(Failure::Malformed);
        };
        if nonce != self.nonce {
            return failed(Failure::Denied);
        }
        if bound != self.bound {
            return failed(Failure::Binding);
        }
        let said = format!("{},{without_proof}", self.said);
        let signature = scram::mac(&self.keys.stored_key, said.as_bytes());
        let client_key = scram::xor(&proof, &signature);
        let is_right = scram::same(&scram::hash(&client_key), &self.keys.stored_key);
        match self.user {
            Some(user) if is_right => {
                let proof = scram::mac(&self.keys.server_key, said.as_bytes());
                let challenge = format!("v={}", base64::encode(&proof));
                (State::Assent(user), Progress::Challenge(challenge.into_bytes()))
            }
            _ => failed(Failure::Denied),
        }
    }
}
