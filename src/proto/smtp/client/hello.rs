//! What comes before transactions: the greeting, EHLO or LHLO, STARTTLS (RFC 3207)
//! and AUTH (RFC 4954).
//!
//! The driver decides whether to ask for TLS or to authenticate; here it is seen
//! to that nothing which was said in the clear is believed behind it. Invariant:
//! what stands behind the reply to STARTTLS ends the connection, and the offer
//! that was made before the handshake is forgotten.

use super::group::put;
use super::{Client, End, Event, Offer, Phase};
use crate::proto::smtp::reply::ReplyReader;

/// Challenges that a server may send in one AUTH; no mechanism has as many.
const CHALLENGES_MAX: u8 = 8;

impl Client {
    /// Asks for TLS: [`Event::Handshake`] or [`Event::NoTls`] follows.
    ///
    /// # Panics
    /// Unless the connection is idle, in the clear.
    pub fn start_tls(&mut self, out: &mut Vec<u8>) {
        assert!(self.is_at_rest() && !self.is_secured, "STARTTLS comes first, and once");
        out.extend_from_slice(b"STARTTLS\r\n");
        self.await_next(Phase::StartTls);
    }

    /// The handshake is done. Everything known of the server is forgotten, and it
    /// is greeted again: [`Event::Ready`] follows.
    ///
    /// # Panics
    /// Unless the last event was [`Event::Handshake`].
    pub fn secured(&mut self, out: &mut Vec<u8>) {
        assert!(self.phase == Phase::Handshake && self.end.is_none(), "a handshake was asked for");
        self.is_secured = true;
        self.reader = ReplyReader::default();
        self.say_hello(out);
    }

    /// The connection has had TLS from its first octet on.
    ///
    /// # Panics
    /// Unless the greeting is still awaited.
    pub fn secured_at_once(&mut self) {
        assert!(self.phase == Phase::Greeting && self.replies == 0, "the connection is new");
        self.is_secured = true;
    }

    /// True when TLS is on.
    pub fn is_secured(&self) -> bool {
        self.is_secured
    }

    /// Sends `command`, an AUTH command without CRLF. Challenges and an end
    /// follow.
    ///
    /// # Panics
    /// Unless the connection is idle, with TLS: nothing is said in the clear.
    pub fn authenticate(&mut self, command: &str, out: &mut Vec<u8>) {
        assert!(self.is_at_rest() && self.is_secured, "AUTH is for secured connections");
        put(out, &[command.as_bytes(), b"\r\n"]);
        self.challenges = 0;
        self.await_next(Phase::Auth);
    }

    /// What the server asks, without `334`; the last event was
    /// [`Event::Challenge`].
    pub fn challenge(&self) -> &str {
        &self.challenge
    }

    /// Answers a challenge with `line`, without CRLF.
    ///
    /// # Panics
    /// Unless the last event was [`Event::Challenge`].
    pub fn respond(&mut self, line: &str, out: &mut Vec<u8>) {
        assert!(self.phase == Phase::Challenge && self.end.is_none(), "a challenge was sent");
        put(out, &[line.as_bytes(), b"\r\n"]);
        self.await_next(Phase::Auth);
    }

    fn is_at_rest(&self) -> bool {
        self.phase == Phase::Idle && self.end.is_none() && !self.finish
    }

    pub(super) fn say_hello(&mut self, out: &mut Vec<u8>) {
        self.offer = Offer::default();
        let word: &[u8] = if self.is_lmtp { b"LHLO " } else { b"EHLO " };
        put(out, &[word, self.helo.as_bytes(), b"\r\n"]);
        self.await_next(Phase::Ehlo);
    }

    /// Acts on the reply with this code to one of the commands above.
    pub(super) fn greeted(&mut self, code: u16, out: &mut Vec<u8>) -> Option<Event> {
        match (self.phase, code / 100) {
            (Phase::Greeting, 2) => self.say_hello(out),
            (Phase::Ehlo | Phase::Helo, 2) => {
                // In the clear that is worth nothing (RFC 8689, section 2).
                self.offer.require_tls &= self.is_secured;
                self.phase = Phase::Idle;
                return Some(Event::Ready);
            }
            // LMTP has no older form (RFC 2033, section 4.1).
            (Phase::Ehlo, 5) if !self.is_lmtp => {
                self.offer = Offer::default();
                put(out, &[b"HELO ", self.helo.as_bytes(), b"\r\n"]);
                self.await_next(Phase::Helo);
            }
            (Phase::Greeting | Phase::Ehlo | Phase::Helo, 4 | 5) => {
                self.end = Some(End::TurnedAway);
            }
            (Phase::StartTls, 2) => {
                self.phase = Phase::Handshake;
                return Some(Event::Handshake);
            }
            (Phase::StartTls, 4 | 5) => {
                self.phase = Phase::Idle;
                return Some(Event::NoTls);
            }
            (Phase::Auth, 2) => {
                self.offer.knows_us = true;
                self.phase = Phase::Idle;
                return Some(Event::Authenticated);
            }
            (Phase::Auth, 3) if self.challenges == CHALLENGES_MAX => {
                self.end = Some(End::EndlessChallenges);
            }
            (Phase::Auth, 3) => {
                self.challenges += 1;
                self.phase = Phase::Challenge;
                return Some(Event::Challenge);
            }
            (Phase::Auth, 4 | 5) => {
                self.phase = Phase::Idle;
                return Some(Event::NotAuthenticated);
            }
            _ => self.end = Some(End::WrongCode),
        }
        None
    }
}
