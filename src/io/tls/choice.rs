//! The choice among a server's certificates: by the name that a client asks for (SNI,
//! RFC 6066, 3), and by the signatures that it can verify (RFC 8446, 4.4.2.2; RFC 5246,
//! 7.4.2). So a name may have a certificate with an ECDSA key, and one with an RSA key
//! for clients that know no other.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Kinds of keys: a signature that each can make in every version, and its name.
const KINDS: [(SignatureScheme, &str); 5] = [
    (SignatureScheme::ECDSA_NISTP256_SHA256, "ECDSA (P-256)"),
    (SignatureScheme::ECDSA_NISTP384_SHA384, "ECDSA (P-384)"),
    (SignatureScheme::ECDSA_NISTP521_SHA512, "ECDSA (P-521)"),
    (SignatureScheme::ED25519, "Ed25519"),
    (SignatureScheme::RSA_PSS_SHA256, "RSA"),
];

/// Signatures of TLS 1.2 alone (RFC 8446, 4.2.3).
const OLD: [SignatureScheme; 5] = [
    SignatureScheme::RSA_PKCS1_SHA1,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::ECDSA_SHA1_Legacy,
];

/// What kind of key it is, in words.
pub(super) fn kind(key: &CertifiedKey) -> &'static str {
    let found = KINDS.iter().find(|(scheme, _)| signs(key, &[*scheme]));
    found.map_or("another", |(_, name)| name)
}

fn signs(key: &CertifiedKey, schemes: &[SignatureScheme]) -> bool {
    key.key.choose_scheme(schemes).is_some()
}

/// Whether `own` is the name itself.
fn is_exact(own: &str, name: &str) -> bool {
    own.eq_ignore_ascii_case(name)
}

/// Whether `own` stands for all names of its level, `name` among them.
fn is_wild(own: &str, name: &str) -> bool {
    let (Some(below), Some((_, parent))) = (own.strip_prefix("*."), name.split_once('.')) else {
        return false;
    };
    below.eq_ignore_ascii_case(parent)
}

/// A certificate and the names that it is shown for.
#[derive(Debug)]
pub(super) struct Entry {
    /// In any case; `*.example.org` stands for one label.
    pub(super) names: Vec<String>,
    /// The certificate with its key.
    pub(super) key: Arc<CertifiedKey>,
}

/// The certificates of a server.
#[derive(Debug)]
pub(super) struct Certificates {
    /// The first, with those that share a name with it, is for those who ask for no
    /// name, or for one that is not here.
    entries: Vec<Entry>,
}

impl Certificates {
    /// At least one; of those for one name, the ones that are preferred come first.
    pub(super) fn new(entries: Vec<Entry>) -> Certificates {
        assert!(!entries.is_empty(), "a server has a certificate");
        Certificates { entries }
    }

    /// The certificate for `name` and a client that verifies `schemes`: the first that
    /// names it, or else its parent with `*.` in front, or else one of the first names,
    /// among those whose signature the client can verify. Where it can verify none,
    /// the first of them, and the handshake fails.
    fn find(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> &Arc<CertifiedKey> {
        let of = |is_for: fn(&str, &str) -> bool| {
            let names = move |entry: &&Entry| {
                name.is_some_and(|name| entry.names.iter().any(|own| is_for(own, name)))
            };
            self.entries.iter().filter(names)
        };
        let first = &self.entries[0];
        let shares = |entry: &&Entry| {
            entry.names.iter().any(|own| first.names.iter().any(|name| is_exact(own, name)))
        };
        let others = self.entries[1..].iter().filter(shares);
        let fitting = of(is_exact).chain(of(is_wild)).chain([first]).chain(others);
        let fitting = fitting.map(|entry| &entry.key);
        // The version is not known here: what is right in both comes first.
        let new: Vec<SignatureScheme> =
            schemes.iter().copied().filter(|scheme| !OLD.contains(scheme)).collect();
        let verified = |schemes: &[_]| fitting.clone().find(|key| signs(key, schemes));
        verified(&new)
            .or_else(|| verified(schemes))
            .or_else(|| fitting.clone().next())
            .expect("there is the first")
    }
}

/// The choice for one connection, and what came of it.
#[derive(Debug)]
pub(super) struct Choice {
    certificates: Arc<Certificates>,
    shown: Mutex<Option<Arc<CertifiedKey>>>,
}

impl Choice {
    /// Among `certificates`.
    pub(super) fn new(certificates: Arc<Certificates>) -> Choice {
        Choice { certificates, shown: Mutex::new(None) }
    }

    /// The certificate that the client was shown; none before its first words.
    pub(super) fn shown(&self) -> Option<CertificateDer<'static>> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.as_ref()?.cert.first().cloned()
    }
}

impl ResolvesServerCert for Choice {
    /// Twice for a client that is asked to say hello again.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let key = self.certificates.find(hello.server_name(), hello.signature_schemes());
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(key));
        Some(Arc::clone(key))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};
    use rustls::SignatureScheme as Scheme;

    use super::super::{Identity, Pem};
    use super::*;

    /// A certificate for `names`, by a key of its own for `algorithm`.
    fn entry(names: &[&str], algorithm: &'static SignatureAlgorithm) -> Entry {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = CertificateParams::new(names.clone()).unwrap().self_signed(&key).unwrap();
        let pem = Pem { certificate: certificate.pem().into(), key: key.serialize_pem().into() };
        Identity::new(names, &pem).unwrap().into_entry()
    }

    #[test]
    fn a_client_gets_what_it_asks_for_and_can_verify() {
        let certificates = Certificates::new(vec![
            entry(&["a.test"], &rcgen::PKCS_ECDSA_P256_SHA256),
            entry(&["b.test"], &rcgen::PKCS_ECDSA_P384_SHA384),
            entry(&["a.test", "c.test"], &rcgen::PKCS_RSA_SHA256),
            entry(&["*.b.test"], &rcgen::PKCS_ECDSA_P256_SHA256),
            entry(&["x.b.test", "*.b.test"], &rcgen::PKCS_ED25519),
        ]);
        let kinds: Vec<_> = certificates.entries.iter().map(|entry| kind(&entry.key)).collect();
        let wanted = ["ECDSA (P-256)", "ECDSA (P-384)", "RSA", "ECDSA (P-256)", "Ed25519"];
        assert_eq!(kinds, wanted);
        let all: Vec<Scheme> = KINDS.iter().map(|(scheme, _)| *scheme).collect();
        let (p256, p384) = (Scheme::ECDSA_NISTP256_SHA256, Scheme::ECDSA_NISTP384_SHA384);
        let (old, pss) = (Scheme::RSA_PKCS1_SHA256, Scheme::RSA_PSS_SHA512);
        for (name, schemes, which) in [
            (Some("A.test"), &all[..], 0),
            (Some("a.test"), &[pss], 2),
            (Some("a.test"), &[old], 2),
            (Some("a.test"), &[old, p256], 0),
            // The name counts more than the order.
            (Some("c.test"), &all, 2),
            (Some("b.test"), &all, 1),
            // The first is better than none.
            (Some("b.test"), &[p256], 0),
            (Some("b.test"), &[pss], 2),
            // Nothing helps: the handshake says so, with the right name.
            (Some("b.test"), &[Scheme::ED448], 1),
            (Some("x.b.test"), &all, 4),
            (Some("y.b.test"), &all, 3),
            (Some("x.b.test"), &[p256], 3),
            (Some("y.b.test"), &[Scheme::ED25519, pss], 4),
            (Some("y.x.b.test"), &all, 0),
            (None, &all, 0),
            (None, &[pss], 2),
            (None, &[p384], 0),
        ] {
            let found = certificates.find(name, schemes);
            assert!(Arc::ptr_eq(found, &certificates.entries[which].key), "{name:?} {schemes:?}");
        }
    }

    #[test]
    fn what_tls_13_cannot_do_is_chosen_last() {
        let rsa = entry(&["a.test"], &rcgen::PKCS_RSA_SHA256);
        let ed25519 = entry(&["a.test"], &rcgen::PKCS_ED25519);
        let certificates = Certificates::new(vec![rsa, ed25519]);
        let found = |schemes: &[Scheme]| kind(certificates.find(Some("a.test"), schemes));
        assert_eq!(found(&[Scheme::RSA_PKCS1_SHA256, Scheme::ED25519]), "Ed25519");
        assert_eq!(found(&[Scheme::RSA_PSS_SHA256, Scheme::ED25519]), "RSA");
        assert_eq!(found(&[Scheme::RSA_PKCS1_SHA256]), "RSA");
    }
}
