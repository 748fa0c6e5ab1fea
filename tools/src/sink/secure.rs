//! TLS and AUTH in a session of the sink: the handshake, or what takes its place,
//! and clients that are believed.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use ringpost::base::scram::{ITERATIONS, ScramKeys};
use ringpost::base::{Mechanism, Mechanisms};
use ringpost::io::random;
use ringpost::proto::sasl::server::{Keys, Need};
use ringpost::proto::sasl::{base64, derive_keys, prepared_password};
use ringpost::proto::smtp::server::{Authentication, Identified, Server, Verdict};

use super::session::Session;
use super::tls::{Flaw, Security};
use crate::values::TlsStart;

/// What stands where a handshake should be.
const GARBAGE: &[u8] = b"454 4.7.0 No TLS is spoken here\r\n";

/// Octets of a record's header, the last two of which are the length of the rest
/// (RFC 8446, 5.1), and of the longest record.
const HEADER: usize = 5;
const RECORD_MAX: usize = HEADER + (1 << 14) + 256;

/// Octets of a nonce.
const NONCE: usize = 18;

/// Whom the sink believes.
#[derive(Clone)]
pub struct Belief {
    /// With what clients may authenticate over TLS.
    pub mechanisms: Mechanisms,
    password: Option<(String, ScramKeys)>,
}

impl Belief {
    /// As `security` says.
    ///
    /// # Errors
    /// The password cannot be read, or is none.
    pub fn new(security: &Security) -> io::Result<Belief> {
        use Mechanism::{Login, Plain, ScramSha256, ScramSha256Plus};
        let password = security.auth_password_file.as_deref().map(known).transpose()?;
        let all: &[Mechanism] = match (security.auth, &password) {
            (false, _) => &[],
            (true, None) => &[Plain, Login],
            (true, Some(_)) => &[ScramSha256Plus, ScramSha256, Plain, Login],
        };
        Ok(Belief { mechanisms: all.iter().copied().collect(), password })
    }
}

/// The password of a file, and its keys.
fn known(path: &Path) -> io::Result<(String, ScramKeys)> {
    let named = |what: &str| io::Error::other(format!("{}: {what}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| named(&error.to_string()))?;
    let password = prepared_password(text.lines().next().unwrap_or_default())
        .ok_or_else(|| named("the first line is no password"))?;
    let keys = derive_keys(&password, &random::octets::<16>(), ITERATIONS);
    Ok((password.into(), keys))
}

impl Session {
    /// Does the handshake, or what goes wrong in its place; false if the connection
    /// is of no more use then. What was read before is dropped.
    pub(super) async fn secure(&mut self) -> io::Result<bool> {
        let worker = Arc::clone(&self.worker.tls);
        let Some(tls) = &*worker else { return Ok(false) };
        self.drop_unread();
        let flaw = self.mood.flaw();
        match flaw {
            None | Some(Flaw::Expired | Flaw::WrongName) => {
                self.guard.disarm();
                let patience = self.worker.patience;
                Ok(self.stream.accept_tls(tls.server(flaw), patience).await.is_ok())
            }
            Some(Flaw::Stall) => {
                while self.read().await? {
                    self.drop_unread();
                }
                Ok(false)
            }
            Some(flaw) => {
                self.read_hello().await?;
                if flaw == Flaw::Garbage {
                    self.stream.write_all(GARBAGE).await?;
                }
                Ok(false)
            }
        }
    }

    /// Reads the record that a handshake begins with, whole: a connection that is
    /// closed with something unread is reset instead.
    async fn read_hello(&mut self) -> io::Result<()> {
        let mut record = vec![0; RECORD_MAX];
        let mut filled = 0;
        let whole =
            |record: &[u8]| HEADER + usize::from(u16::from_be_bytes([record[3], record[4]]));
        while filled < HEADER || filled < whole(&record).min(RECORD_MAX) {
            self.guard.arm(self.worker.patience);
            match self.stream.read(&mut record[filled..]).await? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(())
    }

    fn drop_unread(&mut self) {
        let unread = self.buffer.filled().len();
        self.buffer.consume(unread);
    }

    /// Does the handshake that a client asked for; `None` if the connection is of no
    /// more use then.
    pub(super) async fn start_tls(&mut self, server: Server) -> io::Result<Option<Server>> {
        self.flush().await?;
        if !Box::pin(self.secure()).await? {
            return Ok(None);
        }
        let mut server = server.secured();
        self.trust(&mut server);
        Ok(Some(server))
    }

    /// Does the handshake, if that comes before the greeting; false as before. What it
    /// needs meanwhile is not kept by the session.
    pub(super) async fn secure_at_once(&mut self) -> io::Result<bool> {
        let tls = Arc::clone(&self.worker.tls);
        match &*tls {
            Some(tls) if tls.start == TlsStart::Implicit => Box::pin(self.secure()).await,
            _ => Ok(true),
        }
    }

    /// What a session over TLS may do beside others.
    pub(super) fn trust(&self, server: &mut Server) {
        let mechanisms = self.worker.belief.mechanisms;
        let can_bind = !self.stream.bindings().is_empty();
        let usable = |one: &Mechanism| can_bind || *one != Mechanism::ScramSha256Plus;
        server.offer_mechanisms(mechanisms.iter().filter(usable).collect());
    }

    /// Says who a client that authenticates is.
    pub(super) fn identify(&mut self, server: Server) -> Server {
        let password = self.worker.belief.password.as_ref();
        let nonce = base64::encode(&random::octets::<NONCE>());
        let bindings = self.stream.bindings();
        let answer = match server.authentication() {
            Some(Authentication::Need(Need::Password(given))) => {
                let believed = |(_, said): &(&str, &str)| password.is_none_or(|it| it.0 == *said);
                Identified::Checked(given.filter(believed).map(|(user, _)| user.to_owned()))
            }
            Some(Authentication::Need(Need::Keys(user))) => match password {
                Some((_, keys)) => Identified::Keys(Keys {
                    keys: keys.clone(),
                    user: user.map(str::to_owned),
                    nonce: &nonce,
                    bindings: &bindings,
                }),
                None => unreachable!("without a password SCRAM is not offered"),
            },
            Some(Authentication::Need(Need::Certificate(_))) => Identified::Checked(None),
            Some(Authentication::Ended(_)) | None => {
                return server.answer(Verdict::Accept, &mut self.out);
            }
        };
        server.identified(answer, &mut self.out)
    }
}
