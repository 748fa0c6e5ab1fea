//! Mail addresses and paths (RFC 5321, 4.1.2 and 4.1.3; RFC 6531, 3.3).
//!
//! Called by the command parser for MAIL and RCPT, by `policy` to look at a
//! recipient, and by whoever has to take an envelope's address apart again.
//!
//! Invariants:
//! * Parsing borrows and never allocates; an [`Address`] is a checked text and
//!   the place of its `@`.
//! * What is accepted is the grammar of the RFC and nothing else: no control
//!   character, no CR or LF, no unquoted space and no second `@` outside of
//!   quotes can be in an accepted address, so it can be put into a command or a
//!   header field as it is.
//! * A source route is checked and dropped (RFC 5321, appendix C): it never
//!   decides where mail goes.

mod grammar;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::base::limits::{DOMAIN_MAX, LOCAL_PART_MAX, PATH_MAX};

/// A checked address without angle brackets and source route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address<'a> {
    text: &'a str,
    /// Length of the local part in octets, quotes included.
    local_len: u8,
    /// True when a source route stood before it.
    routed: bool,
}

/// What stands behind the `@`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain<'a> {
    /// Nothing: the reserved mailbox `postmaster` of this host.
    Here,
    /// A domain name, as written.
    Name(&'a str),
    /// `[192.0.2.1]`.
    V4(Ipv4Addr),
    /// `[IPv6:2001:db8::1]`.
    V6(Ipv6Addr),
    /// `[tag:content]` with a tag that we know nothing of; without brackets.
    General(&'a str),
}

/// Why a text is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadAddress {
    /// No `<` before it or no `>` behind it.
    Brackets,
    /// The local part is not a dot-string or a quoted string.
    LocalPart,
    /// The local part has more than 64 octets.
    LongLocalPart,
    /// There is no `@` where one must be.
    NoDomain,
    /// The domain breaks the rules for names.
    Domain,
    /// The domain or one of its labels is too long.
    LongDomain,
    /// The address literal is malformed.
    Literal,
    /// The source route is malformed.
    Route,
    /// The path has more than 256 octets.
    Long,
    /// An octet above 127 that is not part of well-formed UTF-8.
    Utf8,
}

impl BadAddress {
    /// In words, for a reply.
    pub fn text(self) -> &'static str {
        match self {
            BadAddress::Brackets => "the address must stand in angle brackets",
            BadAddress::LocalPart => "malformed local part",
            BadAddress::LongLocalPart => "local part longer than 64 octets",
            BadAddress::NoDomain => "the address has no domain",
            BadAddress::Domain => "malformed domain",
            BadAddress::LongDomain => "domain or label too long",
            BadAddress::Literal => "malformed address literal",
            BadAddress::Route => "malformed source route",
            BadAddress::Long => "path longer than 256 octets",
            BadAddress::Utf8 => "not well-formed UTF-8",
        }
    }
}

impl fmt::Display for BadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for BadAddress {}

/// A path of a command: the null reverse-path or an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path<'a> {
    /// `<>`.
    Null,
    /// A mailbox; with [`Domain::Here`] only if it is `postmaster`.
    Mailbox(Address<'a>),
}

impl<'a> Path<'a> {
    /// Parses the path that `input` begins with, from `<` to `>`, and returns it
    /// with what follows.
    pub fn parse(input: &'a [u8]) -> Result<(Path<'a>, &'a [u8]), BadAddress> {
        let inside = input.strip_prefix(b"<").ok_or(BadAddress::Brackets)?;
        if let Some(rest) = inside.strip_prefix(b">") {
            return Ok((Path::Null, rest));
        }
        let behind_route = grammar::skip_route(inside)?;
        let (local_len, len) = grammar::mailbox(behind_route)?;
        let rest = match behind_route[len..].split_first() {
            Some((b'>', rest)) => rest,
            Some(_) if len > local_len => return Err(BadAddress::Domain),
            _ => return Err(BadAddress::Brackets),
        };
        if input.len() - rest.len() > PATH_MAX {
            return Err(BadAddress::Long);
        }
        let routed = behind_route.len() != inside.len();
        let address = Address::checked(&behind_route[..len], local_len, routed)?;
        Ok((Path::Mailbox(address), rest))
    }
}

impl<'a> Address<'a> {
    /// Parses an address without angle brackets, as an envelope holds it.
    pub fn parse(text: &'a str) -> Result<Address<'a>, BadAddress> {
        let (local_len, len) = grammar::mailbox(text.as_bytes())?;
        if len != text.len() {
            return Err(BadAddress::Domain);
        }
        Address::checked(text.as_bytes(), local_len, false)
    }

    /// True if `text` is the name of a domain as it may stand behind an `@`.
    pub fn is_domain_name(text: &str) -> bool {
        let fits = (1..=DOMAIN_MAX).contains(&text.len());
        fits && grammar::is_domain_name(text)
    }

    /// True unless the domain is a name of one label, which can be a short form of
    /// another one. The bare `postmaster` is of this host.
    pub fn is_fully_qualified(&self) -> bool {
        match self.domain() {
            Domain::Name(name) => name.contains('.'),
            _ => true,
        }
    }

    fn checked(bytes: &'a [u8], local_len: usize, routed: bool) -> Result<Address<'a>, BadAddress> {
        if local_len > LOCAL_PART_MAX {
            return Err(BadAddress::LongLocalPart);
        }
        if bytes.len() > local_len + 1 + DOMAIN_MAX {
            return Err(BadAddress::LongDomain);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| BadAddress::Utf8)?;
        if !text.is_ascii() {
            grammar::check_unicode(text, local_len)?;
        }
        Ok(Address { text, local_len: local_len as u8, routed })
    }

    /// The whole address as written, without source route.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The local part as written, quotes included.
    pub fn local(&self) -> &'a str {
        &self.text[..usize::from(self.local_len)]
    }

    /// What stands behind the `@`.
    pub fn domain(&self) -> Domain<'a> {
        let Some(domain) = self.domain_text() else { return Domain::Here };
        match domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(literal) => grammar::literal(literal).expect("checked when parsed"),
            None => Domain::Name(domain),
        }
    }

    /// The domain as written, brackets of a literal included; `None` for the
    /// bare `postmaster`.
    pub fn domain_text(&self) -> Option<&'a str> {
        self.text.get(usize::from(self.local_len) + 1..)
    }

    /// True when a source route stood before it.
    pub fn was_routed(&self) -> bool {
        self.routed
    }

    /// True when it has octets above 127, so that it needs SMTPUTF8.
    pub fn needs_smtputf8(&self) -> bool {
        !self.text.is_ascii()
    }

    /// True when the local part, quoted or not, has a character that some mail
    /// systems take for routing: `user%other@here`, `other!user@here`,
    /// `"user@other"@here`, `@other:user`.
    pub fn has_routing_local_part(&self) -> bool {
        self.local().bytes().any(|byte| matches!(byte, b'%' | b'!' | b'@' | b':'))
    }
}

impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text)
    }
}
