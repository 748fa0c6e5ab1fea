//! What is different in LMTP (RFC 2033): LHLO in place of EHLO and HELO (4.1), a
//! refusal of DATA without recipients by 503, and after the message a reply for
//! each recipient that was taken, in the order in which they were, repeats too
//! (4.2); behind the last chunk that is none where nobody was taken (4.3).
//!
//! A message is committed as a whole, so its recipients have one fate and the
//! replies are alike. The same for each of them is what a client needs: it keeps
//! the recipients that were put off, and reports those that were refused.

use super::{BodyVerdict, Kind, Server, Session, State, replies};

impl Session {
    pub(super) fn is_lmtp(&self) -> bool {
        self.settings.kind() == Kind::Lmtp
    }

    /// What is said to a command that comes before its time.
    pub(super) fn hello_first(&self) -> &'static str {
        if self.is_lmtp() { replies::LHLO_FIRST } else { replies::HELLO_FIRST }
    }

    /// What is said to DATA when no recipient was taken.
    pub(super) fn no_recipients(&self) -> &'static str {
        if self.is_lmtp() { replies::NO_LMTP_RECIPIENTS } else { replies::NO_RECIPIENTS }
    }

    /// Replies to a chunk that is refused: to the last one of a message as many as
    /// recipients were taken, none if there are none (RFC 2033, 4.3).
    pub(super) fn replies_to_chunk(&self, last: bool) -> u32 {
        if self.is_lmtp() && last { self.taken } else { 1 }
    }

    /// Replies to the end of a message.
    fn replies_due(&self) -> u32 {
        if self.is_lmtp() { self.taken.max(1) } else { 1 }
    }
}

impl Server {
    /// LHLO where it belongs, EHLO and HELO where they do.
    pub(super) fn greeted(self, name: &str, how: Hello, out: &mut Vec<u8>) -> Server {
        match (how, self.session.is_lmtp()) {
            (Hello::Lhlo, true) | (Hello::Ehlo, false) => self.hello(name, true, out),
            (Hello::Helo, false) => self.hello(name, false, out),
            (Hello::Lhlo, false) => self.error(replies::NO_LMTP, out),
            (Hello::Ehlo | Hello::Helo, true) => self.error(replies::LMTP_ONLY, out),
        }
    }

    /// Says what became of the message to each of its recipients; once where its end
    /// is still to come, for then that is the reply to a chunk.
    pub(super) fn conclude(
        mut self,
        verdict: &BodyVerdict,
        is_whole: bool,
        out: &mut Vec<u8>,
    ) -> Server {
        let replies = if is_whole { self.session.replies_due() } else { 1 };
        for nth in 0..replies {
            match verdict {
                BodyVerdict::Queued(id) => {
                    self.session.errors = 0;
                    self.session.idle_commands = 0;
                    replies::queued(*id, out);
                }
                // One message is one error, whoever it was for.
                BodyVerdict::Refuse(reply) if nth == 0 => self = self.refuse(reply, out),
                BodyVerdict::Refuse(_) if matches!(self.state, State::Closed) => break,
                BodyVerdict::Refuse(reply) => super::write_reply(reply, out),
                BodyVerdict::Close(reply) => {
                    super::write_reply(reply, out);
                    self.state = State::Closed;
                }
            }
        }
        self
    }
}

/// How a client greets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hello {
    Ehlo,
    Helo,
    Lhlo,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Question, Settings, Spec, Step, Verdict};
    use super::*;
    use crate::base::{EnhancedCode, Reply};

    /// What is said to a message for `recipients`, whose repeats are `r`.
    fn said(recipients: &str, verdict: BodyVerdict) -> (Server, String) {
        let spec = Spec { kind: Kind::Lmtp, errors_max: 2, ..Spec::default() };
        let mut out = Vec::new();
        let mut server = Server::new(Arc::new(Settings::new(spec)), &mut out);
        let mut input = "LHLO me\r\nMAIL FROM:<>\r\n".to_owned();
        for name in recipients.chars() {
            input.push_str(&format!("RCPT TO:<{name}@b.example>\r\n"));
        }
        input.push_str("DATA\r\n");
        let mut input = input.as_bytes();
        loop {
            let (next, used, step) = server.step(input, &mut out);
            input = &input[used..];
            let refused = Reply::new(550, EnhancedCode(5, 1, 1), "no");
            server = match step {
                Step::Ask(Question::Recipient(address)) if address.text().starts_with('x') => {
                    next.answer(Verdict::Refuse(refused), &mut out)
                }
                Step::Ask(_) => next.answer(Verdict::Accept, &mut out),
                Step::Body => {
                    out.clear();
                    server = next.body_done(verdict, &mut out);
                    return (server, String::from_utf8(out).unwrap());
                }
                other => panic!("{other:?}"),
            };
        }
    }

    #[test]
    fn each_recipient_that_was_taken_gets_a_reply() {
        let put_off = Reply::new(452, EnhancedCode(4, 3, 1), "full");
        let (_, text) = said("axbab", BodyVerdict::Refuse(put_off.clone()));
        assert_eq!(text, "452 4.3.1 full\r\n".repeat(4));
        let (server, text) = said("a", BodyVerdict::Close(put_off));
        assert_eq!(text, "452 4.3.1 full\r\n");
        assert!(matches!(server.state, State::Closed));
    }

    #[test]
    fn a_refused_message_is_one_error() {
        let refused = Reply::new(550, EnhancedCode(5, 6, 0), "bad");
        let (server, text) = said("abc", BodyVerdict::Refuse(refused.clone()));
        assert_eq!(text, "550 5.6.0 bad\r\n".repeat(3));
        assert_eq!(server.session.errors, 1);
        let (server, text) = said("axb", BodyVerdict::Refuse(refused));
        assert_eq!(text, replies::TOO_MANY_ERRORS, "the refused recipient was the first error");
        assert!(server.had_too_many_errors());
    }
}
