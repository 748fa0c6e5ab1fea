//! Patterns for mail domains, as `access.relay_domains` and `route.domain` hold
//! them. Built when the configuration is read; matched by `policy` for every
//! recipient, so matching does not allocate.
//!
//! Domains compare without regard to ASCII case (RFC 5321, 2.4); an A-label and
//! its U-label are different texts here.

use std::fmt;
use std::str::FromStr;

use crate::base::limits::DOMAIN_MAX;

/// Which domains a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DomainPattern {
    /// `*`: every domain.
    Any,
    /// `example.org`: this domain only. Kept in lower case.
    Exact(String),
    /// `*.example.org`: every domain below `example.org`, at any depth, but not
    /// `example.org` itself. Kept without the `*.`, in lower case.
    Below(String),
}

impl DomainPattern {
    /// Whether `domain` is one of those meant. A final dot counts for nothing.
    pub fn matches(&self, domain: &str) -> bool {
        let domain = domain.strip_suffix('.').unwrap_or(domain);
        match self {
            DomainPattern::Any => true,
            DomainPattern::Exact(name) => domain.eq_ignore_ascii_case(name),
            DomainPattern::Below(parent) => is_below(domain, parent),
        }
    }

    /// Whether every domain that `other` matches is matched by this too.
    pub fn covers(&self, other: &DomainPattern) -> bool {
        match (self, other) {
            (DomainPattern::Any, _) => true,
            (_, DomainPattern::Any) => false,
            (DomainPattern::Exact(name), DomainPattern::Exact(that)) => name == that,
            (DomainPattern::Exact(_), DomainPattern::Below(_)) => false,
            (DomainPattern::Below(_), DomainPattern::Exact(that)) => self.matches(that),
            (DomainPattern::Below(parent), DomainPattern::Below(that)) => {
                parent == that || is_below(that, parent)
            }
        }
    }

    /// Whether some domain could match both.
    pub fn overlaps(&self, other: &DomainPattern) -> bool {
        self.covers(other) || other.covers(self)
    }
}

fn is_below(domain: &str, parent: &str) -> bool {
    let (domain, parent) = (domain.as_bytes(), parent.as_bytes());
    let Some(dot) = domain.len().checked_sub(parent.len() + 1) else { return false };
    dot > 0 && domain[dot] == b'.' && domain[dot + 1..].eq_ignore_ascii_case(parent)
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DomainPattern::Any => f.write_str("*"),
            DomainPattern::Exact(name) => f.write_str(name),
            DomainPattern::Below(parent) => write!(f, "*.{parent}"),
        }
    }
}

/// A text that is no [`DomainPattern`]: what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPattern(String);

impl fmt::Display for BadPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadPattern {}

impl FromStr for DomainPattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        if text == "*" {
            return Ok(DomainPattern::Any);
        }
        let (below, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        check_domain(name).map_err(BadPattern)?;
        let name = name.to_ascii_lowercase();
        Ok(if below { DomainPattern::Below(name) } else { DomainPattern::Exact(name) })
    }
}

/// Checks the syntax of a domain name (RFC 5321, 4.1.2 `Domain`; labels of
/// U-labels by RFC 6531, 3.3). Returns what is wrong with it.
pub(crate) fn check_domain(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the domain is empty".into());
    }
    if name.len() > DOMAIN_MAX {
        return Err(format!("the domain is longer than {DOMAIN_MAX} octets"));
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err(format!("`{name}` has an empty label (two dots, or a dot at an end)"));
        }
        if label.len() > 63 {
            return Err(format!("the label `{label}` is longer than 63 octets"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(format!("the label `{label}` begins or ends with a hyphen"));
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || !c.is_ascii();
        if let Some(bad) = label.chars().find(|&c| !fits(c)) {
            return Err(format!("{bad:?} cannot stand in a domain name"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> DomainPattern {
        text.parse().unwrap()
    }

    #[test]
    fn matches_whole_labels_without_regard_to_case() {
        for (rule, yes, no) in [
            ("*", vec!["example.org", "x"], vec![]),
            (
                "Example.org",
                vec!["example.org", "EXAMPLE.ORG", "example.org."],
                vec!["a.example.org", "badexample.org", "org", ""],
            ),
            (
                "*.example.org",
                vec!["a.example.org", "a.b.EXAMPLE.org"],
                vec!["example.org", "badexample.org", ".example.org", "org"],
            ),
        ] {
            let rule = pattern(rule);
            for domain in yes {
                assert!(rule.matches(domain), "{rule} should match {domain:?}");
            }
            for domain in no {
                assert!(!rule.matches(domain), "{rule} should not match {domain:?}");
            }
        }
    }

    #[test]
    fn knows_what_it_covers() {
        let covers = |a: &str, b: &str| pattern(a).covers(&pattern(b));
        assert!(covers("*", "*") && covers("*", "a.org") && covers("*", "*.a.org"));
        assert!(covers("*.a.org", "*.b.a.org") && covers("*.a.org", "b.a.org"));
        assert!(covers("*.a.org", "*.a.org") && covers("a.org", "A.org"));
        assert!(!covers("*.a.org", "a.org") && !covers("a.org", "*.a.org"));
        assert!(!covers("a.org", "*") && !covers("*.b.a.org", "*.a.org"));
        assert!(pattern("*.b.a.org").overlaps(&pattern("*.a.org")));
        assert!(!pattern("*.a.org").overlaps(&pattern("a.org")));
    }

    #[test]
    fn refuses_what_is_no_domain() {
        for bad in ["", "*.", "a..b", ".a", "a.", "-a.b", "a-.b", "a b", "a_b", "**.a", "a.*", "@a"]
        {
            assert!(bad.parse::<DomainPattern>().is_err(), "{bad:?} was taken");
        }
        for long in ["a".repeat(64), vec!["abcdefg"; 40].join(".")] {
            assert!(long.parse::<DomainPattern>().is_err(), "{long:?} was taken");
        }
        for good in ["a", "1.2", "xn--bcher-kva.example", "bücher.example"] {
            assert_eq!(pattern(good).to_string(), good);
        }
    }
}
