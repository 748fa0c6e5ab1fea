//! Who may send mail to whom: the gate against being an open relay.
//!
//! Called by the receiving session for every RCPT. Pure: rules, facts, verdict.
//!
//! A client in `access.relay_from` may send to everybody, and so may a user who
//! has authenticated. A stranger may send
//! to the domains in `access.relay_domains`, and to `postmaster` without a
//! domain, which is a mailbox of this host (RFC 5321, 4.5.1). Everything else
//! gets 550 5.7.1.
//!
//! Security: the domain that counts is the one behind the last `@`, as a name;
//! source routes are dropped by the parser. An address literal is never one of
//! the relay domains. And a stranger's local part must not hold a route by
//! itself (`user%other@here`, `other!user@here`, `"user@other"@here`), since
//! the next hop, which trusts us, may follow it.

use std::net::IpAddr;

use crate::base::{EnhancedCode, Reply};
use crate::config::Access;
use crate::proto::address::{Address, Domain};
use crate::proto::smtp::server::Verdict;

/// The part of the configuration that decides.
pub type AccessRules = Access;

/// Whether `client` may send to `recipient`. Who has authenticated may send to
/// everybody.
pub fn may_relay(
    rules: &AccessRules,
    client: IpAddr,
    is_user: bool,
    recipient: &Address<'_>,
) -> Verdict {
    if is_user || is_trusted(rules, client) {
        return Verdict::Accept;
    }
    match recipient.domain() {
        Domain::Here => Verdict::Accept,
        Domain::Name(name) if rules.relay_domains.iter().any(|rule| rule.matches(name)) => {
            if recipient.has_routing_local_part() {
                denied("Routing in the local part is refused")
            } else {
                Verdict::Accept
            }
        }
        _ => denied("Relaying denied"),
    }
}

/// Whether `client` may send to everybody. An IPv4 client that came in through
/// an IPv6 socket (`::ffff:192.0.2.1`) is an IPv4 client.
pub fn is_trusted(rules: &AccessRules, client: IpAddr) -> bool {
    let client = client.to_canonical();
    rules.relay_from.iter().any(|net| net.contains(&client))
}

/// Why an address cannot stand in the envelope of mail that is submitted, if so: its
/// domain is not fully qualified (RFC 6409, 4.2).
pub fn refuses_to_submit(address: &Address<'_>, is_sender: bool) -> Option<Reply> {
    if address.is_fully_qualified() {
        return None;
    }
    let (detail, whose) = if is_sender { (8, "sender") } else { (2, "recipient") };
    let text = format!("the domain of the {whose} is not fully qualified");
    Some(Reply::new(554, EnhancedCode(5, 1, detail), text))
}

fn denied(text: &str) -> Verdict {
    Verdict::Refuse(Reply::new(550, EnhancedCode(5, 7, 1), text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::address::Path;

    #[test]
    fn what_is_submitted_has_domains_of_more_than_one_label() {
        for (path, is_full) in [
            ("<a@b.example>", true),
            ("<a@[192.0.2.1]>", true),
            ("<postmaster>", true),
            ("<a@b>", false),
        ] {
            let Ok((Path::Mailbox(address), _)) = Path::parse(path.as_bytes()) else { panic!() };
            for (is_sender, start) in [(true, "554 5.1.8 "), (false, "554 5.1.2 ")] {
                let refusal = refuses_to_submit(&address, is_sender);
                assert_eq!(refusal.is_none(), is_full, "{path}");
                assert!(refusal.is_none_or(|reply| reply.to_string().starts_with(start)));
            }
        }
    }

    const FRIEND: &str = "192.0.2.7";
    const STRANGER: &str = "198.51.100.7";

    fn rules() -> AccessRules {
        let relay_from = ["192.0.2.0/28", "2001:db8:1::/48"];
        let relay_domains = ["example.org", "*.example.net"];
        Access {
            relay_from: relay_from.map(|net| net.parse().unwrap()).to_vec(),
            relay_domains: relay_domains.map(|domain| domain.parse().unwrap()).to_vec(),
        }
    }

    fn verdict(client: &str, path: &str) -> Verdict {
        let Ok((Path::Mailbox(address), b"")) = Path::parse(path.as_bytes()) else {
            panic!("{path:?} is no address");
        };
        may_relay(&rules(), client.parse().unwrap(), false, &address)
    }

    /// Spellings that have opened relays.
    const ROUTED: [&str; 22] = [
        "<u@other.example>",
        "<u@notexample.org>",
        "<u@example.org.other.example>",
        "<u@sub.example.org>",
        "<u@example.net>",
        "<u%other.example@example.org>",
        "<u%other.example%x@a.example.net>",
        "<other.example!u@example.org>",
        "<other.example!u%x@example.org>",
        "<\"u@other.example\"@example.org>",
        "<\"u%other.example\"@example.org>",
        "<\"other.example!u\"@example.org>",
        "<\"u\\@other.example\"@example.org>",
        "<\"@other.example:u\"@example.org>",
        "<@example.org:u@other.example>",
        "<@example.org,@a.example.net:u@other.example>",
        "<@example.org:u%other.example@example.org>",
        "<u@[198.51.100.9]>",
        "<u@[192.0.2.7]>",
        "<u@[IPv6:2001:db8:1::1]>",
        "<u@[x-domain:example.org]>",
        "<u%other.example@[192.0.2.7]>",
    ];

    #[test]
    fn strangers_reach_relay_domains_only() {
        for path in [
            "<u@example.org>",
            "<U@EXAMPLE.ORG>",
            "<u@a.example.net>",
            "<u@b.a.example.net>",
            "<u+tag@example.org>",
            "<\"two words\"@example.org>",
            "<@other.example:u@example.org>",
            "<postmaster>",
            "<Postmaster@example.org>",
        ] {
            assert_eq!(verdict(STRANGER, path), Verdict::Accept, "{path}");
        }
        for path in ROUTED {
            match verdict(STRANGER, path) {
                Verdict::Refuse(reply) => assert!(
                    reply.code == 550 && reply.enhanced == Some(EnhancedCode(5, 7, 1)),
                    "{path}: {reply}"
                ),
                other => panic!("{path}: {other:?}"),
            }
        }
    }

    #[test]
    fn clients_in_relay_from_reach_everybody() {
        for client in [FRIEND, "::ffff:192.0.2.7", "2001:db8:1:2::3"] {
            for path in ROUTED {
                assert_eq!(verdict(client, path), Verdict::Accept, "{client} {path}");
            }
        }
        for client in
            [STRANGER, "192.0.2.16", "::ffff:198.51.100.7", "::192.0.2.7", "2001:db8:2::1"]
        {
            assert!(!is_trusted(&rules(), client.parse().unwrap()), "{client}");
        }
    }

    #[test]
    fn users_reach_everybody_from_everywhere() {
        let closed = Access { relay_from: Vec::new(), relay_domains: Vec::new() };
        let client = STRANGER.parse().unwrap();
        for text in ["u@other.example", "u@[198.51.100.9]", "u%other.example@example.org"] {
            let address = Address::parse(text).unwrap();
            assert_eq!(may_relay(&closed, client, true, &address), Verdict::Accept, "{text}");
        }
    }

    #[test]
    fn no_rules_means_closed() {
        let closed = Access { relay_from: Vec::new(), relay_domains: Vec::new() };
        let address = Address::parse("u@example.org").unwrap();
        for client in ["127.0.0.1", "::1", STRANGER] {
            let verdict = may_relay(&closed, client.parse().unwrap(), false, &address);
            assert_ne!(verdict, Verdict::Accept);
        }
    }
}
