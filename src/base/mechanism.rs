//! The SASL mechanisms (RFC 4422) that are spoken here, and sets of them.

use std::fmt;

/// A mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// SCRAM-SHA-256-PLUS (RFC 7677): SCRAM bound to the TLS connection.
    ScramSha256Plus,
    /// SCRAM-SHA-256 (RFC 7677): neither side learns the other's secret.
    ScramSha256,
    /// EXTERNAL (RFC 4422, appendix A): who the client's certificate says.
    External,
    /// PLAIN (RFC 4616): the password as it is.
    Plain,
    /// LOGIN: PLAIN in two steps, for clients that know nothing else.
    Login,
}

impl Mechanism {
    /// All, in the order in which they are offered: the best first.
    pub const ALL: [Mechanism; 5] = [
        Mechanism::ScramSha256Plus,
        Mechanism::ScramSha256,
        Mechanism::External,
        Mechanism::Plain,
        Mechanism::Login,
    ];

    /// The registered name.
    pub const fn name(self) -> &'static str {
        match self {
            Mechanism::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::External => "EXTERNAL",
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
        }
    }

    /// The mechanism of this name, in any case.
    pub fn parse(name: &[u8]) -> Option<Mechanism> {
        Self::ALL.into_iter().find(|known| name.eq_ignore_ascii_case(known.name().as_bytes()))
    }

    /// True if the server is sent the password itself.
    pub fn shows_password(self) -> bool {
        matches!(self, Mechanism::Plain | Mechanism::Login)
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of mechanisms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mechanisms(u8);

impl Mechanisms {
    /// None.
    pub const NONE: Mechanisms = Mechanisms(0);

    /// This set with `mechanism` in it.
    #[must_use]
    pub const fn with(self, mechanism: Mechanism) -> Mechanisms {
        Mechanisms(self.0 | 1 << mechanism as u8)
    }

    /// This set with `mechanism` out of it.
    #[must_use]
    pub const fn without(self, mechanism: Mechanism) -> Mechanisms {
        Mechanisms(self.0 & !(1 << mechanism as u8))
    }

    /// Whether `mechanism` is in it.
    pub const fn has(self, mechanism: Mechanism) -> bool {
        self.0 & 1 << mechanism as u8 != 0
    }

    /// True without any.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its members, the best first.
    pub fn iter(self) -> impl Iterator<Item = Mechanism> {
        Mechanism::ALL.into_iter().filter(move |mechanism| self.has(*mechanism))
    }

    /// Those of the blank-separated names of an EHLO line that are known here.
    pub fn parse(names: &str) -> Mechanisms {
        names
            .split_ascii_whitespace()
            .filter_map(|name| Mechanism::parse(name.as_bytes()))
            .collect()
    }
}

impl FromIterator<Mechanism> for Mechanisms {
    fn from_iter<T: IntoIterator<Item = Mechanism>>(iter: T) -> Self {
        iter.into_iter().fold(Mechanisms::NONE, Mechanisms::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_any_case_and_as_a_whole() {
        for mechanism in Mechanism::ALL {
            let lower = mechanism.name().to_ascii_lowercase();
            assert_eq!(Mechanism::parse(lower.as_bytes()), Some(mechanism));
        }
        for other in ["", "PLAI", "PLAIN ", "SCRAM-SHA-1", "CRAM-MD5", "SCRAM-SHA-256-PLU"] {
            assert_eq!(Mechanism::parse(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_set_keeps_what_is_put_in() {
        let set = Mechanisms::parse("LOGIN XOAUTH2 plain  SCRAM-SHA-256");
        let names: Vec<_> = set.iter().map(Mechanism::name).collect();
        assert_eq!(names, ["SCRAM-SHA-256", "PLAIN", "LOGIN"]);
        assert!(!set.without(Mechanism::Plain).has(Mechanism::Plain));
        assert!(Mechanisms::parse("").is_empty() && !set.is_empty());
    }
}
