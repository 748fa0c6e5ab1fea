//! What DNS says about a domain, and what follows for its mail (RFC 5321, 5.1;
//! RFC 7505). Pure: the answers are arguments, a verdict comes out.
//!
//! Called by `relay` once for the MX records of a domain ([`decide`]), once for
//! each address found ([`target`]), and when no address is left ([`no_target`]).
//!
//! Only what DNS says for sure fails a recipient. Trouble with DNS defers it,
//! however long it lasts; expiry is another matter (`retry`).
//!
//! Security: whoever owns a domain chooses where its records lead. So records
//! are cut to a bound, names are checked before they are used or logged, and
//! addresses that lie inside of the operator's network are refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::site::{Hop, Host, Way};
use crate::base::limits::REPLY_TEXT_KEPT;
use crate::base::{EnhancedCode, Reply};

/// Most hosts of a site; further ones are left out.
pub const HOPS_MAX: usize = 32;
/// Longest name in DNS, as text without the final dot (RFC 1035, 2.3.4).
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// What DNS says about the MX records of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MxFacts<'a> {
    /// These: preference (the lower first) and host name, in any order; not
    /// empty. The name of the root may be empty or a dot.
    Found(&'a [(u16, Box<str>)]),
    /// The domain exists and has none.
    NoMx,
    /// The domain does not exist.
    NoSuchDomain,
    /// No answer was to be had; the reason in words.
    Trouble(&'a str),
}

/// What is to be done with mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Relay to these hosts, of which there is at least one; by rank, then name.
    Hops(Vec<Hop>),
    /// Fail the recipient (a 5xx reply).
    Fail(Reply),
    /// Try later (a 4xx reply).
    Defer(Reply),
}

/// What `facts` about the MX records of `domain` mean for its mail. `port` is
/// that of every host; `is_me` knows the names of this server, and is asked in
/// lower case without a final dot.
pub fn decide(
    domain: &str,
    facts: MxFacts<'_>,
    port: u16,
    is_me: impl Fn(&str) -> bool,
) -> Verdict {
    let records = match facts {
        MxFacts::Found(records) if is_null(records) => {
            let text = format!("{domain} takes no mail (it has a null MX)");
            return fail(556, EnhancedCode(5, 1, 10), text);
        }
        MxFacts::Found(records) => records,
        MxFacts::NoMx => return implicit(domain, port, is_me),
        MxFacts::NoSuchDomain => {
            return fail(550, EnhancedCode(5, 1, 2), format!("{domain} does not exist"));
        }
        MxFacts::Trouble(why) => {
            let text = format!("Cannot look up the MX records of {domain}: {why}");
            return defer(EnhancedCode(4, 4, 3), text);
        }
    };
    // Looking for ourselves comes before cutting: whoever lists this server must
    // not get its mail back from behind thousands of others.
    let names = records.iter().map(|(preference, name)| (*preference, without_dot(name)));
    let mut hosts: Vec<(u16, Box<str>)> = names
        .filter(|(_, name)| is_host_name(name))
        .map(|(preference, name)| (preference, name.to_ascii_lowercase().into()))
        .collect();
    if hosts.is_empty() {
        // 5.4.4, unable to route, and not 5.1.2: the domain exists, what its
        // records lead to does not.
        let text = format!("No MX record of {domain} names a host");
        return fail(550, EnhancedCode(5, 4, 4), text);
    }
    let own = hosts.iter().filter(|(_, name)| is_me(name)).map(|(preference, _)| *preference);
    if let Some(own) = own.min() {
        hosts.retain(|(preference, _)| *preference < own);
    }
    if hosts.is_empty() {
        return loops(domain);
    }
    Verdict::Hops(ranked(hosts, port))
}

/// The hop of an address literal: `domain` in brackets (RFC 5321, 4.1.3).
/// Nothing when it is a name.
pub fn literal(domain: &str, port: u16, allow_private: bool) -> Option<Verdict> {
    let inside = domain.strip_prefix('[')?.strip_suffix(']');
    let address = inside.and_then(|text| match text.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => {
            text[5..].parse::<Ipv6Addr>().ok().map(IpAddr::V6)
        }
        _ => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    });
    let Some(address) = address else {
        let text = format!("{domain} is no address literal that mail can be sent to");
        return Some(fail(550, EnhancedCode(5, 1, 2), text));
    };
    Some(match target(address, allow_private) {
        Ok(()) => {
            Verdict::Hops(vec![Hop { rank: 0, way: Way::Smtp, host: Host::Address(address), port }])
        }
        Err(why) => fail(550, EnhancedCode(5, 4, 4), format!("{domain} is {why}")),
    })
}

/// Whether mail may be sent to an address that DNS or a sender chose.
///
/// # Errors
/// It may not: what kind of address it is, in words, like "a private address".
pub fn target(address: IpAddr, allow_private: bool) -> Result<(), &'static str> {
    let mapped = address.to_canonical() != address;
    let (never, private) = match address.to_canonical() {
        IpAddr::V4(address) => (never_v4(address), private_v4(address)),
        IpAddr::V6(address) => (never_v6(address), private_v6(address)),
    };
    match never.or(if allow_private { None } else { private }) {
        Some(what) => Err(what),
        None if mapped && !allow_private => Err("an IPv4 address written as IPv6"),
        None => Ok(()),
    }
}

/// Addresses that no mail can be for, wherever the server stands.
fn never_v4(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets() {
        [0, ..] => Some("an unspecified address"),
        [224..=239, ..] => Some("a multicast address"),
        [240..=255, ..] => Some("a reserved address"),
        _ => None,
    }
}

fn private_v4(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets() {
        [127, ..] => Some("a loopback address"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some("a private address"),
        [169, 254, ..] => Some("a link-local address"),
        [100, 64..=127, ..] => Some("an address behind a carrier's NAT"),
        [192, 0, 0, _] | [198, 18..=19, ..] => Some("an address of special use"),
        _ => None,
    }
}

fn never_v6(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_unspecified() {
        return Some("an unspecified address");
    }
    address.is_multicast().then_some("a multicast address")
}

fn private_v6(address: Ipv6Addr) -> Option<&'static str> {
    let inner = |high: u16, low: u16| {
        let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
        let inner = Ipv4Addr::new(a, b, c, d);
        never_v4(inner).or(private_v4(inner))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("a loopback address"),
        [0xfc00..=0xfdff, ..] => Some("a private address"),
        [0xfe80..=0xfebf, ..] => Some("a link-local address"),
        [0xfec0..=0xfeff, ..] => Some("a site-local address"),
        // Addresses that lead to an IPv4 address within them: compatible,
        // translated (RFC 6052) and 6to4 (RFC 3056).
        [0, 0, 0, 0, 0, 0, ..] => Some("an IPv4 address written as IPv6"),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => inner(high, low),
        [0x64, 0xff9b, 1, ..] => Some("an address of special use"),
        [0x2002, high, low, ..] => inner(high, low),
        _ => None,
    }
}

/// Why a host of a site cannot be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAddress<'a> {
    /// Its name does not exist.
    NoSuchHost,
    /// It has no addresses.
    NoRecords,
    /// It has only addresses that [`target`] refuses; what they are.
    Refused(&'a str),
    /// No answer was to be had; the reason in words.
    Trouble(&'a str),
}

/// What follows when no host of `domain` has an address to send to. `hosts` are
/// all of them and why.
pub fn no_target<'a>(
    domain: &str,
    hosts: impl IntoIterator<Item = (&'a str, NoAddress<'a>)>,
) -> Verdict {
    let mut certain: Option<String> = None;
    for (host, why) in hosts {
        let words = match why {
            NoAddress::Trouble(why) => {
                let text = format!("Cannot look up the addresses of {host} for {domain}: {why}");
                return defer(EnhancedCode(4, 4, 3), text);
            }
            NoAddress::NoSuchHost => format!("{host} does not exist"),
            NoAddress::NoRecords => format!("{host} has no address"),
            NoAddress::Refused(what) => format!("{host} has only {what}, which is not sent to"),
        };
        certain.get_or_insert(words);
    }
    let why = certain.unwrap_or_else(|| "it has no host".into());
    fail(550, EnhancedCode(5, 4, 4), format!("Cannot route mail for {domain}: {why}"))
}

/// Without MX records the domain is its own and only host.
fn implicit(domain: &str, port: u16, is_me: impl Fn(&str) -> bool) -> Verdict {
    let name = without_dot(domain).to_ascii_lowercase();
    if is_me(&name) {
        return loops(domain);
    }
    Verdict::Hops(ranked(vec![(0, name.into())], port))
}

fn loops(domain: &str) -> Verdict {
    let text = format!("Mail for {domain} loops back to this server");
    fail(554, EnhancedCode(5, 4, 6), text)
}

/// RFC 7505: one record, for the root.
fn is_null(records: &[(u16, Box<str>)]) -> bool {
    matches!(records, [(_, name)] if without_dot(name).is_empty())
}

/// Dense ranks, each name once, cut to [`HOPS_MAX`].
fn ranked(mut hosts: Vec<(u16, Box<str>)>, port: u16) -> Vec<Hop> {
    hosts.sort();
    let mut hops: Vec<Hop> = Vec::with_capacity(hosts.len().min(HOPS_MAX));
    let (mut rank, mut last) = (0, None);
    for (preference, name) in hosts {
        let host = Host::Name(name);
        if hops.iter().any(|hop| hop.host == host) {
            continue;
        }
        if hops.len() == HOPS_MAX {
            break;
        }
        if last.is_some_and(|last| last != preference) {
            rank += 1;
        }
        last = Some(preference);
        hops.push(Hop { rank, way: Way::Smtp, host, port });
    }
    hops
}

fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Whether a name in an MX record can be that of a host: letters, digits,
/// hyphens, and underscores, which some hosts have; and no address, whose last
/// label would be digits.
fn is_host_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| (1..=LABEL_MAX).contains(&label.len()) && label.bytes().all(fits);
    let top = name.rsplit('.').next().unwrap_or(name);
    name.len() <= NAME_MAX
        && name.split('.').all(is_label)
        && !top.bytes().all(|byte| byte.is_ascii_digit())
}

fn fail(code: u16, enhanced: EnhancedCode, text: String) -> Verdict {
    Verdict::Fail(Reply::new(code, enhanced, bounded(text)))
}

fn defer(enhanced: EnhancedCode, text: String) -> Verdict {
    Verdict::Defer(Reply::new(451, enhanced, bounded(text)))
}

/// Domains are bounded, what a resolver says may not be.
fn bounded(mut text: String) -> String {
    if text.len() <= REPLY_TEXT_KEPT {
        return text;
    }
    let whole = (0..=REPLY_TEXT_KEPT).rev().find(|&end| text.is_char_boundary(end));
    text.truncate(whole.unwrap_or(0));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(records: &[(u16, &str)]) -> Verdict {
        found_by("relay.example", records)
    }

    fn found_by(me: &str, records: &[(u16, &str)]) -> Verdict {
        let records: Vec<(u16, Box<str>)> =
            records.iter().map(|(preference, name)| (*preference, Box::from(*name))).collect();
        decide("example.org", MxFacts::Found(&records), 25, |name| name == me)
    }

    /// Ranks and hosts of a verdict.
    fn hops(verdict: Verdict) -> Vec<(u16, String)> {
        let Verdict::Hops(hops) = verdict else { panic!("{verdict:?}") };
        assert!(hops.iter().all(|hop| hop.port == 25));
        hops.into_iter().map(|hop| (hop.rank, hop.host.to_string())).collect()
    }

    fn named(hops: &[(u16, &str)]) -> Vec<(u16, String)> {
        hops.iter().map(|(rank, name)| (*rank, (*name).to_owned())).collect()
    }

    #[track_caller]
    fn fails(verdict: Verdict, code: u16, enhanced: EnhancedCode) {
        let Verdict::Fail(reply) = &verdict else { panic!("{verdict:?}") };
        assert_eq!((reply.code, reply.enhanced), (code, Some(enhanced)), "{reply}");
    }

    #[track_caller]
    fn defers(verdict: Verdict, enhanced: EnhancedCode) {
        let Verdict::Defer(reply) = &verdict else { panic!("{verdict:?}") };
        assert_eq!((reply.code, reply.enhanced), (451, Some(enhanced)), "{reply}");
    }

    fn plain(facts: MxFacts<'_>) -> Verdict {
        decide("Example.org", facts, 25, |name| name == "relay.example")
    }

    #[test]
    fn hosts_come_by_preference_with_dense_ranks() {
        let records =
            [(20, "C.example."), (10, "b.example"), (10, "a.example"), (65535, "d.example")];
        let wanted = [(0, "a.example"), (0, "b.example"), (1, "c.example"), (2, "d.example")];
        assert_eq!(hops(found(&records)), named(&wanted));
        let twice = [(20, "a.example"), (10, "A.example."), (20, "b.example")];
        assert_eq!(hops(found(&twice)), named(&[(0, "a.example"), (1, "b.example")]));
    }

    #[test]
    fn a_null_mx_fails_for_good() {
        for root in ["", "."] {
            fails(found(&[(0, root)]), 556, EnhancedCode(5, 1, 10));
            let among = found(&[(0, root), (10, "a.example")]);
            assert_eq!(hops(among), named(&[(0, "a.example")]), "not the only record");
        }
    }

    #[test]
    fn what_is_not_there_fails_and_trouble_only_defers() {
        fails(plain(MxFacts::NoSuchDomain), 550, EnhancedCode(5, 1, 2));
        for why in ["SERVFAIL", "no answer from 192.0.2.53", &"é".repeat(10_000)] {
            let verdict = plain(MxFacts::Trouble(why));
            let Verdict::Defer(reply) = &verdict else { panic!("{verdict:?}") };
            assert!(reply.text.len() <= REPLY_TEXT_KEPT);
            defers(verdict, EnhancedCode(4, 4, 3));
        }
    }

    #[test]
    fn a_domain_without_mx_is_its_own_host() {
        assert_eq!(hops(plain(MxFacts::NoMx)), named(&[(0, "example.org")]));
        let own = decide("Relay.Example.", MxFacts::NoMx, 25, |name| name == "relay.example");
        fails(own, 554, EnhancedCode(5, 4, 6));
    }

    #[test]
    fn nothing_goes_to_ourselves_or_to_less_preferred_hosts() {
        let records =
            [(10, "a.example"), (20, "Relay.example."), (20, "b.example"), (30, "c.example")];
        assert_eq!(hops(found(&records)), named(&[(0, "a.example")]));
        fails(found(&records[1..]), 554, EnhancedCode(5, 4, 6));
        fails(found(&records[1..2]), 554, EnhancedCode(5, 4, 6));
        let twice = [(10, "relay.example"), (5, "a.example"), (1, "relay.example")];
        fails(found(&twice), 554, EnhancedCode(5, 4, 6));
    }

    #[test]
    fn names_that_are_no_hosts_are_left_out() {
        let label = "a".repeat(64);
        let long = ["abcdefg"; 32].join(".");
        let bad = [
            "192.0.2.1",
            "192.0.2.1.",
            "[192.0.2.1]",
            "2001:db8::1",
            "a b.example",
            "a..example",
            ".example",
            "*.example",
            "ü.example",
            "a\n.example",
            "25",
            &label,
            &long,
            ".",
            "",
        ];
        for name in bad {
            let good = found(&[(1, name), (2, "a_1.example")]);
            assert_eq!(hops(good), named(&[(0, "a_1.example")]), "{name:?}");
        }
        let all: Vec<(u16, &str)> = bad.iter().map(|name| (1, *name)).collect();
        fails(found(&all), 550, EnhancedCode(5, 4, 4));
        // Such a name does not make us a host of the domain either.
        fails(found_by("192.0.2.1", &[(1, "192.0.2.1")]), 550, EnhancedCode(5, 4, 4));
    }

    #[test]
    fn thousands_of_records_are_cut() {
        let names: Vec<String> = (0..5000).map(|number| format!("h{number:04}.example")).collect();
        let mut records: Vec<(u16, &str)> = names.iter().map(|name| (10, name.as_str())).collect();
        records.reverse();
        let cut = hops(found(&records));
        assert_eq!(cut.len(), HOPS_MAX);
        assert!(cut.iter().all(|(rank, _)| *rank == 0));
        records.rotate_left(1234);
        assert_eq!(hops(found(&records)), cut, "the same ones in any order");
        records.push((5, "relay.example"));
        fails(found(&records), 554, EnhancedCode(5, 4, 6));
    }

    #[test]
    fn address_literals_are_hosts() {
        for (domain, address) in [
            ("[198.51.100.1]", "198.51.100.1"),
            ("[IPv6:2001:db8::1]", "2001:db8::1"),
            ("[ipv6:2001:DB8::1]", "2001:db8::1"),
        ] {
            let verdict = literal(domain, 25, false).unwrap();
            assert_eq!(hops(verdict), named(&[(0, address)]));
        }
        for domain in ["[10.0.0.1]", "[IPv6:::1]", "[127.0.0.1]"] {
            fails(literal(domain, 25, false).unwrap(), 550, EnhancedCode(5, 4, 4));
            assert!(matches!(literal(domain, 25, true), Some(Verdict::Hops(_))));
        }
        for domain in ["[0.0.0.0]", "[224.0.0.1]", "[IPv6:ff02::1]"] {
            fails(literal(domain, 25, true).unwrap(), 550, EnhancedCode(5, 4, 4));
        }
        for domain in ["[2001:db8::1]", "[IPv6:192.0.2.1]", "[x-tag:y]", "[]", "[198.51.100.1"] {
            fails(literal(domain, 25, true).unwrap(), 550, EnhancedCode(5, 1, 2));
        }
        assert_eq!(literal("example.org", 25, false), None);
        assert_eq!(literal("198.51.100.1", 25, false), None);
    }

    #[test]
    fn private_space_is_refused_unless_allowed() {
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.8",
            "198.18.0.1",
            "::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
            "::ffff:198.51.100.1",
            "::ffff:10.0.0.1",
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert!(target(address, false).is_err(), "{text}");
            assert_eq!(target(address, true), Ok(()), "{text}");
        }
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "ff02::1",
            "::ffff:0.0.0.0",
            "::ffff:255.255.255.255",
        ] {
            let address: IpAddr = text.parse().unwrap();
            for allow_private in [false, true] {
                assert!(target(address, allow_private).is_err(), "{text}");
            }
        }
        for text in [
            "198.51.100.1",
            "9.9.9.9",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "192.167.1.1",
            "169.253.1.1",
            "2001:db8::1",
            "2a00::1",
            "64:ff9b::198.51.100.1",
            "2002:c633:6401::1",
            "fbff::1",
        ] {
            assert_eq!(target(text.parse().unwrap(), false), Ok(()), "{text}");
        }
    }

    #[test]
    fn hosts_without_addresses_fail_only_when_all_is_certain() {
        let gone = ("a.example", NoAddress::NoSuchHost);
        let empty = ("b.example", NoAddress::NoRecords);
        let inside = ("c.example", NoAddress::Refused("a private address"));
        let trouble = ("d.example", NoAddress::Trouble("time-out"));
        for hosts in [vec![gone], vec![empty], vec![inside], vec![gone, empty, inside], vec![]] {
            fails(no_target("example.org", hosts), 550, EnhancedCode(5, 4, 4));
        }
        for hosts in [vec![trouble], vec![gone, trouble], vec![trouble, inside]] {
            defers(no_target("example.org", hosts), EnhancedCode(4, 4, 3));
        }
        let Verdict::Fail(reply) = no_target("example.org", [inside]) else { panic!("no failure") };
        let words = "Cannot route mail for example.org: c.example has only a private address, \
                     which is not sent to";
        assert_eq!(reply.text, words);
    }
}
