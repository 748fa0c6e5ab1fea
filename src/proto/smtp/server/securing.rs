//! STARTTLS (RFC 3207). The engine answers 220 and waits: the driver writes that,
//! drops whatever else it has read, does the handshake and says [`Server::secured`].
//! From then on the session is as new: the client greets again, and nothing of what
//! it said in the clear holds.
//!
//! Security: what stands behind STARTTLS in the clear may be anybody's. The engine
//! looks at none of it: [`Step::StartTls`](super::Step::StartTls) is all it says
//! until the handshake is done.

use super::states::State;
use super::{Server, replies};
use crate::proto::smtp::command::Command;

impl Server {
    /// The session is over TLS from its first octet on (RFC 8314).
    pub fn over_tls(mut self) -> Server {
        self.session.secured = true;
        self
    }

    /// The handshake that [`Step::StartTls`](super::Step::StartTls) asked for is done.
    ///
    /// # Panics
    ///
    /// If none was asked for.
    pub fn secured(mut self) -> Server {
        assert!(matches!(self.state, State::AwaitHandshake), "no handshake was awaited");
        self.session.secured = true;
        self.session.helo = Box::default();
        self.session.extended = false;
        self.session.skipped = 0;
        self.state = State::AwaitHello;
        self
    }

    /// True over TLS.
    pub fn is_secured(&self) -> bool {
        self.session.secured
    }

    /// Does what STARTTLS says.
    pub(super) fn start_tls(mut self, out: &mut Vec<u8>) -> Server {
        let refusal = match self.state {
            _ if !self.session.offers_tls() => replies::NOT_OFFERED_NOW,
            State::AwaitHello => replies::HELLO_FIRST,
            // HELO was told of no extension.
            _ if !self.session.extended => replies::NOT_OFFERED_NOW,
            State::AwaitMail => {
                self.state = State::AwaitHandshake;
                out.extend_from_slice(replies::START_TLS.as_bytes());
                return self;
            }
            _ => replies::TLS_WITHIN_MAIL,
        };
        self.error(refusal, out)
    }

    /// Whether a command has to wait for TLS: nothing is done in the clear where TLS
    /// is required, but to ask for it (RFC 3207, 4). BDAT does not wait: without a
    /// transaction it is refused too, and what it announced must be passed over.
    pub(super) fn waits_for_tls(&self, command: &Command<'_>) -> bool {
        use Command::{Bdat, Ehlo, Helo, Noop, Quit, Rset, StartTls};
        self.session.settings.tls_required()
            && !self.session.secured
            && !matches!(command, Bdat { .. } | Ehlo(_) | Helo(_) | Noop | Quit | Rset | StartTls)
    }
}

impl super::Session {
    /// Whether STARTTLS is offered just now.
    pub(super) fn offers_tls(&self) -> bool {
        self.settings.offers().starttls && !self.secured
    }
}
