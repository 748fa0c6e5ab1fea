//! What a client may send before it has to wait or stop: commands that lead to no
//! mail, and commands ahead of a reply that must be waited for.
//!
//! RFC 2920 (3.1): only after EHLO was answered with PIPELINING may commands be
//! sent ahead, and EHLO, DATA and some others must be the last of a group. Who
//! does not wait does not read replies, or smuggles what an earlier server took
//! for data. What is ahead is seen only when it has come in together with the
//! command, so this is the one place where the replies depend on how the input
//! is cut; it is off unless [`Spec::strict`](super::Spec::strict) asks for it.

use super::{Reply, Server, Session};
use crate::base::Mechanism;

/// What is said to a client that does not wait.
const AHEAD: &str = "421 4.7.0 Commands sent ahead of a reply that must be waited for \
                     (RFC 2920; limits.commands_ahead), closing connection\r\n";

/// What a client did too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdraft {
    /// Commands that led to no mail.
    Commands,
    /// Commands sent ahead of a reply.
    Ahead,
}

impl Server {
    /// Why the session ended, if it was for one of these.
    pub fn overdraft(&self) -> Option<Overdraft> {
        self.session.overdraft
    }

    /// Ends the session for a reason of the driver, in its words (421).
    pub fn dismissed(mut self, reply: &Reply, out: &mut Vec<u8>) -> Server {
        super::write_reply(reply, out);
        self.state = super::State::Closed;
        self
    }
}

impl Session {
    /// Why the session ends at the command `line`, if so; `more` input has come
    /// with it.
    pub(super) fn overdrawn(&mut self, line: &[u8], more: bool) -> Option<String> {
        let mut verb = [0; 4];
        let len = line.len().min(4);
        verb[..len].copy_from_slice(&line[..len]);
        verb.make_ascii_uppercase();
        if !matches!(&verb, b"MAIL" | b"RCPT" | b"DATA" | b"BDAT" | b"QUIT") {
            self.idle_commands += 1;
            let limit = self.settings.idle_commands_max();
            if self.idle_commands > limit {
                self.overdraft = Some(Overdraft::Commands);
                return Some(format!(
                    "421 4.7.0 More than {limit} commands without mail \
                     (limits.commands_without_mail), closing connection\r\n"
                ));
            }
        }
        let ahead = more && self.settings.is_strict() && self.must_wait(verb, line);
        if ahead {
            self.overdraft = Some(Overdraft::Ahead);
        }
        ahead.then(|| AHEAD.to_owned())
    }

    /// Whether nothing may be sent before `line`, which begins with `verb`, is
    /// answered.
    fn must_wait(&self, verb: [u8; 4], line: &[u8]) -> bool {
        match &verb {
            b"EHLO" | b"HELO" | b"LHLO" | b"DATA" => true,
            b"AUTH" if !is_whole(line) => true,
            // What follows BDAT is its data; what follows QUIT is not read; and
            // the injection behind STARTTLS has its own rule. XCLIENT may stand in
            // a group, whoever it makes of the client.
            b"BDAT" | b"QUIT" | b"STAR" | b"XCLI" | b"XFOR" => false,
            _ => !self.extended || !self.settings.offers().pipelining,
        }
    }
}

/// Whether an AUTH command is all of its exchange, so that others may follow it in
/// a group (RFC 4954, section 4).
fn is_whole(line: &[u8]) -> bool {
    let mut words = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty()).skip(1);
    let mechanism = words.next().and_then(Mechanism::parse);
    let is_short = matches!(mechanism, Some(Mechanism::Plain | Mechanism::External));
    is_short && words.next().is_some()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Offers, Server, Settings, Spec, Step, Verdict, replies};
    use super::AHEAD;

    fn server(pipelining: bool) -> Server {
        let offers = Offers { pipelining, ..Offers::default() };
        let spec = Spec { strict: true, idle_commands_max: 5, offers, ..Spec::default() };
        Server::new(Arc::new(Settings::new(spec)), &mut Vec::new())
    }

    /// Sends each write by itself; what is said to the last.
    fn say(mut server: Server, writes: &[&str]) -> (String, bool) {
        let mut out = Vec::new();
        for write in writes {
            out.clear();
            let mut input = write.as_bytes();
            loop {
                let (next, used, step) = server.step(input, &mut out);
                input = &input[used..];
                server = match step {
                    Step::Ask(_) => next.answer(Verdict::Accept, &mut out),
                    Step::NeedInput | Step::Body => {
                        server = next;
                        break;
                    }
                    Step::Flush => next,
                    Step::Authenticate | Step::StartTls | Step::Chunk { .. } => {
                        panic!("not in these dialogs")
                    }
                    Step::Close => return (String::from_utf8(out).unwrap(), true),
                };
            }
        }
        (String::from_utf8(out).unwrap(), false)
    }

    const GROUP: &str = "MAIL FROM:<>\r\nRCPT TO:<r@b.example>\r\nDATA\r\n";

    #[test]
    fn who_may_pipeline_does() {
        for writes in [
            &["EHLO me\r\n", GROUP][..],
            &["EHLO me\r\n", "NOOP\r\nRSET\r\nMAIL FROM:<>\r\n"],
            &["HELO me\r\n", "MAIL FROM:<>\r\n", "RCPT TO:<r@b.example>\r\n", "DATA\r\n"],
            &["EHLO me\r\n", "NOOP\r\nMAIL"],
            &["EHLO me\r\n", "AUTH PLAIN AGEAYg==\r\nMAIL FROM:<>\r\n"],
            &["EHLO me\r\n", "auth external =\r\nMAIL FROM:<>\r\n"],
        ] {
            let (said, closed) = say(server(true), writes);
            assert!(!closed, "{writes:?}: {said}");
        }
        let (_, closed) = say(server(true), &["EHLO me\r\n", "QUIT\r\nMAIL FROM:<>\r\n"]);
        assert!(closed, "by QUIT");
    }

    #[test]
    fn who_may_not_is_ended_before_the_next_command() {
        let with_body = format!("{GROUP}x");
        for (pipelining, writes) in [
            (true, &["EHLO me\r\nMAIL FROM:<>\r\n"][..]),
            (true, &["HELO me\r\nM"]),
            (true, &["NOOP\r\nNOOP\r\n"]),
            (true, &["HELO me\r\n", "MAIL FROM:<>\r\nRCPT TO:<r@b.example>\r\n"]),
            (true, &["EHLO me\r\n", &with_body]),
            (true, &["EHLO me\r\n", "AUTH PLAIN\r\nAGEAYg==\r\n"]),
            (true, &["EHLO me\r\n", "AUTH SCRAM-SHA-256 biws\r\nMAIL FROM:<>\r\n"]),
            (true, &["HELO me\r\n", "AUTH PLAIN AGEAYg==\r\nMAIL FROM:<>\r\n"]),
            (false, &["EHLO me\r\n", "MAIL FROM:<>\r\nRCPT TO:<r@b.example>\r\n"]),
        ] {
            let (said, closed) = say(server(pipelining), writes);
            assert!(closed && said.ends_with(AHEAD), "{writes:?}: {said}");
            assert!(!said.contains("354"), "{said}");
        }
    }

    #[test]
    fn commands_without_mail_are_bounded() {
        let noop = ["NOOP\r\n"; 5];
        assert_eq!(say(server(true), &noop), (replies::OK.into(), false));
        let (said, closed) = say(server(true), &["RSET\r\n"; 6]);
        assert!(
            closed && said.starts_with("421 4.7.0 More than 5 commands without mail"),
            "{said}"
        );
        let mut writes = vec!["EHLO me\r\n", "NOOP\r\n", "NOOP\r\n", "NOOP\r\n", "NOOP\r\n"];
        writes.extend(["MAIL FROM:<>\r\n", "RCPT TO:<r@b.example>\r\n"]);
        assert!(!say(server(true), &writes).1, "steps of a transaction are not counted");
    }
}
