//! What is stored of what was received. Of mail that is relayed, the very same;
//! of mail that is submitted, the same with its header completed (RFC 6409,
//! section 8; `mail::submission`), which costs a copy.

use std::rc::Rc;
use std::sync::Arc;

use crate::base::{EnhancedCode, Envelope, Memory, Reply, Share};
use crate::config::SenderMatch;
use crate::io::random;
use crate::io::store::Store;
use crate::mail::date;
use crate::mail::submission::{Completion, Facts};
use crate::proto::smtp::server::Kind;

use super::hooks::Hooks;
use super::session::Session;

/// The way of one message from the buffer to the log.
#[derive(Default)]
pub(super) struct Passage(Option<Box<Completing>>);

/// A message whose header is completed.
struct Completing {
    completion: Completion,
    /// The last part, completed, if it had to be.
    out: Vec<u8>,
    is_copied: bool,
    /// What `out` takes.
    share: Share,
    /// Octets taken in, and octets given out.
    taken: u64,
    given: u64,
}

impl Passage {
    /// The way of a message whose header is completed with `facts`; what that takes is
    /// counted in `memory`.
    fn completing(facts: Facts, memory: &Rc<Memory>) -> Passage {
        Passage(Some(Box::new(Completing {
            completion: Completion::new(facts),
            out: Vec::new(),
            is_copied: false,
            share: Share::of(memory),
            taken: 0,
            given: 0,
        })))
    }

    /// What is stored for the next part of the body.
    pub(super) fn pass<'p>(&'p mut self, part: &'p [u8]) -> &'p [u8] {
        self.advance(part);
        self.given(part)
    }

    fn advance(&mut self, part: &[u8]) {
        let Some(way) = &mut self.0 else { return };
        way.taken += part.len() as u64;
        way.is_copied = !way.completion.is_done();
        if way.is_copied {
            way.out.clear();
            way.completion.push(part, &mut way.out);
            way.share.set(way.out.capacity());
        }
        way.given += if way.is_copied { way.out.len() } else { part.len() } as u64;
    }

    /// What is stored for `part`, which was taken in last.
    fn given<'p>(&'p self, part: &'p [u8]) -> &'p [u8] {
        match &self.0 {
            Some(way) if way.is_copied => &way.out,
            _ => part,
        }
    }

    /// Why what was taken in so far cannot be submitted (RFC 6409, 4.2 and 5.1).
    pub(super) fn fault(&self) -> Option<Reply> {
        let (field, fault) = self.0.as_ref()?.completion.fault()?;
        let (text, section) = (fault.text(), fault.section());
        let text = format!("an address in {field} {text} (RFC 6409, {section})");
        Some(Reply::new(554, EnhancedCode(5, 6, 0), text))
    }

    /// What was stored for the last part is in the log.
    pub(super) fn let_go(&mut self) {
        if let Some(way) = &mut self.0 {
            way.out = Vec::new();
            way.share.set(0);
        }
    }

    /// What is stored for the last part, and the octets stored of the body, of
    /// which so many were received.
    ///
    /// # Errors
    /// The message cannot be submitted, for this reason.
    pub(super) fn end<'p>(
        &'p mut self,
        part: &'p [u8],
        received: u64,
    ) -> Result<(&'p [u8], u64), Reply> {
        let before = received.saturating_sub(part.len() as u64);
        let before = match &self.0 {
            Some(way) => (before + way.given).saturating_sub(way.taken),
            None => before,
        };
        self.advance(part);
        if let Some(reply) = self.fault() {
            return Err(reply);
        }
        let part = self.given(part);
        Ok((part, before + part.len() as u64))
    }
}

impl<S: Store, H: Hooks> Session<S, H> {
    /// The passage of a message with this envelope.
    pub(super) fn passage(&self, envelope: &Envelope) -> Passage {
        if self.profile.settings.kind() != Kind::Submission {
            return Passage::default();
        }
        let config = self.shard.config();
        let is_strict = config.auth.sender_match == SenderMatch::Strict;
        let now = self.shard.hooks.now();
        let unique = u64::from_le_bytes(random::octets());
        let facts = Facts {
            date: date::rfc5322(now).to_vec(),
            unique: format!("{:x}.{unique:016x}", now.0),
            hostname: config.hostname.clone(),
            sender: envelope.sender.clone(),
            owner: self.identity.user.as_ref().filter(|_| is_strict).map(Arc::clone),
        };
        Passage::completing(facts, self.shard.pool.memory())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_relayed_is_passed_on_as_it_is() {
        let mut passage = Passage::default();
        let body = b"\r\nhi\r\n.\r\n";
        assert_eq!(passage.pass(body).as_ptr(), body.as_ptr());
        let (end, size) = passage.end(body, 18).unwrap();
        assert_eq!((end.as_ptr(), size), (body.as_ptr(), 18));
    }

    #[test]
    fn what_is_submitted_is_counted_as_it_is_stored() {
        let facts = Facts {
            date: b"now".to_vec(),
            unique: "1".into(),
            hostname: "mx.example".into(),
            sender: "s@a.example".into(),
            owner: None,
        };
        let memory = Rc::new(Memory::default());
        let mut passage = Passage::completing(facts, &memory);
        let parts: [&[u8]; 3] = [b"Bcc: x@b.exa", b"mple\r\n\r", b"\nhi\r\n.\r\n"];
        let received = parts.concat().len() as u64;
        let mut stored = Vec::new();
        stored.extend_from_slice(passage.pass(parts[0]));
        stored.extend_from_slice(passage.pass(parts[1]));
        let (end, size) = passage.end(parts[2], received).unwrap();
        stored.extend_from_slice(end);
        assert!(stored.starts_with(b"Date: now\r\nMessage-ID: <1@mx.example>\r\n"));
        assert_eq!(size, stored.len() as u64);
        assert!(memory.held() >= stored.len());
        passage.let_go();
        assert_eq!(memory.held(), 0);
    }
}
