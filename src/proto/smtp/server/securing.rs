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

    /// There can be no handshake now. Said in place of the 220, which is the last of
    /// what [`Step::StartTls`](super::Step::StartTls) left in `out`; the session goes
    /// on in the clear (RFC 3207, 4).
    ///
    /// # Panics
    ///
    /// If no handshake was asked for, or the 220 is no longer in `out`.
    pub fn put_tls_off(mut self, out: &mut Vec<u8>) -> Server {
        assert!(matches!(self.state, State::AwaitHandshake), "no handshake was awaited");
        assert!(out.ends_with(replies::START_TLS.as_bytes()), "the 220 has been written");
        out.truncate(out.len() - replies::START_TLS.len());
        self.state = State::AwaitMail;
        self.say(replies::NO_TLS_NOW, out)
    }

    /// True over TLS.
    pub fn is_secured(&self) -> bool {
        self.session.secured
    }

    /// Does what STARTTLS says.
    pub(super) fn start_tls(mut self, out: &mut Vec<u8>) -> Server {
        let refusal = match self.state {
            _ if !self.session.offers_tls() => replies::NOT_OFFERED_NOW,
            State::AwaitHello => self.session.hello_first(),
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
    /// is required, but to ask for it (RFC 3207, 4), and LHLO is the EHLO of LMTP. BDAT
    /// does not wait: without a transaction it is refused too, and what it announced
    /// must be passed over.
    pub(super) fn waits_for_tls(&self, command: &Command<'_>) -> bool {
        use Command::{Bdat, Ehlo, Lhlo, Noop, Quit, StartTls};
        self.session.settings.tls_required()
            && !self.session.secured
            && !matches!(command, Bdat { .. } | Ehlo(_) | Lhlo(_) | Noop | Quit | StartTls)
    }
}

impl super::Session {
    /// Whether STARTTLS is offered just now.
    pub(super) fn offers_tls(&self) -> bool {
        self.settings.offers().starttls && !self.secured
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Offers, Settings, Spec, Step, replies};
    use super::*;

    #[test]
    fn a_handshake_that_cannot_be_done_now_leaves_the_session_as_it_was() {
        let offers = Offers { starttls: true, ..Offers::default() };
        let settings = Settings::new(Spec { offers, ..Spec::default() });
        let mut out = Vec::new();
        let server = Server::new(Arc::new(settings), &mut out);
        let (server, _, step) = server.step(b"EHLO c\r\n", &mut out);
        assert_eq!(step, Step::NeedInput);
        out.clear();
        let input = b"STARTTLS\r\nNOOP\r\n";
        let (server, used, step) = server.step(input, &mut out);
        assert_eq!((step, &input[used..]), (Step::StartTls, &b"NOOP\r\n"[..]));
        assert_eq!(out, replies::START_TLS.as_bytes());
        let server = server.put_tls_off(&mut out);
        assert_eq!(out, replies::NO_TLS_NOW.as_bytes());
        out.clear();
        let (server, _, step) = server.step(&input[used..], &mut out);
        assert!(step == Step::NeedInput && out.starts_with(b"250 ") && !server.is_secured());
        let (_, _, step) = server.step(b"STARTTLS\r\n", &mut out);
        assert_eq!(step, Step::StartTls, "it may ask again");
    }
}
