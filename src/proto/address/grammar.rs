//! The grammar of paths, production by production (RFC 5321, 4.1.2 and 4.1.3).
//! Works on octets; octets above 127 pass here and are looked at once the whole
//! address is known to be UTF-8.

use super::{BadAddress, Domain};

/// Longest label of a domain name in octets (RFC 1035, 2.3.4).
const LABEL_MAX: usize = 63;

/// What stands behind a source route (`A-d-l ":"`), or all of `input` if there
/// is none. The route is ignored, so there is no reason to take names in it that are
/// not ASCII.
pub(super) fn skip_route(input: &[u8]) -> Result<&[u8], BadAddress> {
    let mut rest = input;
    if rest.first() != Some(&b'@') {
        return Ok(input);
    }
    loop {
        rest = rest.strip_prefix(b"@").ok_or(BadAddress::Route)?;
        let len = domain(rest).map_err(|_| BadAddress::Route)?;
        if !rest[..len].is_ascii() {
            return Err(BadAddress::Route);
        }
        match rest.get(len) {
            Some(b',') => rest = &rest[len + 1..],
            Some(b':') => return Ok(&rest[len + 1..]),
            _ => return Err(BadAddress::Route),
        }
    }
}

/// Lengths of the local part and of the whole mailbox that `input` begins with.
/// `postmaster` may stand alone (RFC 5321, 4.1.1.3).
pub(super) fn mailbox(input: &[u8]) -> Result<(usize, usize), BadAddress> {
    let local_len = match input.first() {
        Some(b'"') => quoted_string(input)?,
        _ => dot_string(input)?,
    };
    if input.get(local_len) != Some(&b'@') {
        let alone = matches!(input.get(local_len), None | Some(b'>'));
        return match input[..local_len].eq_ignore_ascii_case(b"postmaster") {
            true if alone => Ok((local_len, local_len)),
            _ if alone => Err(BadAddress::NoDomain),
            _ => Err(BadAddress::LocalPart),
        };
    }
    let behind = &input[local_len + 1..];
    let domain_len = match behind.first() {
        Some(b'[') => bracketed(behind)?,
        _ => domain(behind)?,
    };
    Ok((local_len, local_len + 1 + domain_len))
}

/// `atext` of RFC 5322, and what RFC 6531 adds, by octet.
static ATEXT: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric() || byte >= 0x80;
        byte += 1;
    }
    let others = b"!#$%&'*+-/=?^_`{|}~";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

fn is_atext(byte: u8) -> bool {
    ATEXT[usize::from(byte)]
}

/// `Dot-string = Atom *("." Atom)`.
fn dot_string(input: &[u8]) -> Result<usize, BadAddress> {
    let mut atom_len = 0;
    for (at, &byte) in input.iter().enumerate() {
        if is_atext(byte) {
            atom_len += 1;
        } else if byte == b'.' && atom_len > 0 {
            atom_len = 0;
        } else if atom_len > 0 {
            return Ok(at);
        } else {
            return Err(BadAddress::LocalPart);
        }
    }
    if atom_len > 0 { Ok(input.len()) } else { Err(BadAddress::LocalPart) }
}

/// `Quoted-string = DQUOTE *QcontentSMTP DQUOTE`.
fn quoted_string(input: &[u8]) -> Result<usize, BadAddress> {
    let mut at = 1;
    loop {
        match input.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => match input.get(at + 1) {
                Some(b' '..=b'~') => at += 2,
                _ => return Err(BadAddress::LocalPart),
            },
            Some(b' '..=b'~' | 0x80..) => at += 1,
            _ => return Err(BadAddress::LocalPart),
        }
    }
}

/// `Domain = sub-domain *("." sub-domain)`: the length of the one that `input`
/// begins with.
fn domain(input: &[u8]) -> Result<usize, BadAddress> {
    let is_inner =
        |&byte: &u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.' || byte >= 0x80;
    let len = input.iter().position(|byte| !is_inner(byte)).unwrap_or(input.len());
    for label in input[..len].split(|&byte| byte == b'.') {
        if label.is_empty() || label.starts_with(b"-") || label.ends_with(b"-") {
            return Err(BadAddress::Domain);
        }
        if label.len() > LABEL_MAX {
            return Err(BadAddress::LongDomain);
        }
    }
    Ok(len)
}

/// True if all of `text` is a `Domain`.
pub(super) fn is_domain_name(text: &str) -> bool {
    domain(text.as_bytes()) == Ok(text.len()) && check_unicode(text, 0).is_ok()
}

/// `address-literal`: the length of the one that `input` begins with, brackets
/// included.
fn bracketed(input: &[u8]) -> Result<usize, BadAddress> {
    let end = input.iter().position(|&byte| byte == b']').ok_or(BadAddress::Literal)?;
    let text = std::str::from_utf8(&input[1..end]).map_err(|_| BadAddress::Literal)?;
    literal(text).ok_or(BadAddress::Literal)?;
    Ok(end + 1)
}

/// What the inside of an address literal says.
pub(super) fn literal(inside: &str) -> Option<Domain<'_>> {
    let Some((tag, content)) = inside.split_once(':') else {
        return inside.parse().ok().map(Domain::V4);
    };
    if tag.eq_ignore_ascii_case("IPv6") {
        return content.parse().ok().map(Domain::V6);
    }
    // `Standardized-tag = Ldh-str`, which ends in a letter or digit.
    let tag_fits = tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && tag.bytes().next_back().is_some_and(|byte| byte != b'-');
    let content_fits =
        !content.is_empty() && content.bytes().all(|byte| matches!(byte, 33..=90 | 94..=126));
    (tag_fits && content_fits).then_some(Domain::General(inside))
}

/// Refuses the characters above U+007F that have no place in an address:
/// controls, separators, and in the domain what some software takes for a dot.
pub(super) fn check_unicode(text: &str, local_len: usize) -> Result<(), BadAddress> {
    let is_odd = |c: char| !c.is_ascii() && (c.is_control() || c.is_whitespace());
    let is_dot = |c: char| matches!(c, '\u{3002}' | '\u{ff0e}' | '\u{ff61}');
    if text[..local_len].chars().any(is_odd) {
        return Err(BadAddress::LocalPart);
    }
    if text[local_len..].chars().any(|c| is_odd(c) || is_dot(c)) {
        return Err(BadAddress::Domain);
    }
    Ok(())
}
