//! Why a handshake failed, in words for the log and the sender, and as far as it
//! matters for what is done next.

use std::fmt;
use std::io;

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The time for it is over.
    TimedOut,
    /// The connection broke or was closed.
    Lost,
    /// No common version, cipher or certificate, or the peer broke the protocol.
    Protocol,
    /// The peer's certificate is not what was asked for.
    Unverified,
}

/// A handshake that failed. The connection is of no more use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Of what kind it was.
    pub cause: Cause,
    /// In words: "the peer sent a message that is no TLS".
    pub text: String,
}

impl Failure {
    /// The time is over.
    pub(super) fn timed_out() -> Failure {
        Failure { cause: Cause::TimedOut, text: "the handshake took too long".into() }
    }

    /// The peer's certificate is not what was asked for.
    pub(super) fn unverified(text: String) -> Failure {
        Failure { cause: Cause::Unverified, text }
    }

    /// Of an error that reading or writing has come to.
    pub(super) fn from_io(error: &io::Error) -> Failure {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) => Failure { cause: Cause::Protocol, text: words(error) },
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                let text = "the peer closed the connection during the handshake".into();
                Failure { cause: Cause::Lost, text }
            }
            None => Failure { cause: Cause::Lost, text: error.to_string() },
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// What rustls found, in our words.
fn words(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidMessage(_) => "the peer sent a message that is no TLS".into(),
        rustls::Error::AlertReceived(alert) => {
            let name = alert.as_str().map_or_else(|| format!("{alert:?}"), apart);
            format!("the peer refused the handshake: {name}")
        }
        rustls::Error::PeerIncompatible(why) => {
            format!("nothing in common with the peer: {}", apart(&format!("{why:?}")))
        }
        rustls::Error::NoCertificatesPresented => "the peer showed no certificate".into(),
        error => error.to_string(),
    }
}

/// `CertificateUnknown` as "certificate unknown".
fn apart(name: &str) -> String {
    let mut words = String::with_capacity(name.len() + 8);
    for (at, letter) in name.char_indices() {
        if at > 0 && letter.is_ascii_uppercase() {
            words.push(' ');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_alerts_are_words() {
        assert_eq!(apart("CertificateUnknown"), "certificate unknown");
        let alert = rustls::AlertDescription::HandshakeFailure;
        let error = io::Error::other(rustls::Error::AlertReceived(alert));
        let failure = Failure::from_io(&error);
        assert_eq!(failure.cause, Cause::Protocol);
        assert_eq!(failure.text, "the peer refused the handshake: handshake failure");
        let closed = Failure::from_io(&io::ErrorKind::UnexpectedEof.into());
        assert_eq!(closed.cause, Cause::Lost);
    }
}
