//! The choice among a server's certificates: by the name that a client asks for (SNI,
//! RFC 6066, 3), and by the signatures that it can verify (RFC 8446, 4.4.2.2; RFC 5246,
//! 7.4.2). So a name may have a certificate with an ECDSA key, and one with an RSA key
//! for clients that know no other.

use std::slice;
use std::sync::{Arc, OnceLock};

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

    /// Whether there is but one, which is the answer to all.
    pub(super) fn is_single(&self) -> bool {
        self.entries.len() == 1
    }

    /// The certificate for `name` and a client that verifies `schemes`: the first that
    /// names it, or else its parent with `*.` in front, among those whose signature the
    /// client can verify. Where it can verify none of them, one of the first names, by
    /// the same rule: a name that is wrong is better than none. Where that is none
    /// either, the first that names it, and the handshake fails.
    fn find(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> &Arc<CertifiedKey> {
        let of = |is_for: fn(&str, &str) -> bool| {
            let names = move |entry: &&Entry| {
                name.is_some_and(|name| entry.names.iter().any(|own| is_for(own, name)))
            };
            self.entries.iter().filter(names).map(|entry| &entry.key)
        };
        let first = &self.entries[0];
        let shares = |entry: &&Entry| {
            entry.names.iter().any(|own| first.names.iter().any(|name| is_exact(own, name)))
        };
        let others = self.entries[1..].iter().filter(shares).map(|entry| &entry.key);
        let mut own = of(is_exact).chain(of(is_wild));
        verified(own.clone(), schemes)
            .or_else(|| verified([&first.key].into_iter().chain(others), schemes))
            .or_else(|| own.next())
            .unwrap_or(&first.key)
    }
}

/// The first of `keys` whose signature a client that verifies `schemes` can verify. The
/// version is not known here: what is right in both comes first.
fn verified<'k>(
    keys: impl Iterator<Item = &'k Arc<CertifiedKey>> + Clone,
    schemes: &[SignatureScheme],
) -> Option<&'k Arc<CertifiedKey>> {
    let new = schemes.iter().filter(|scheme| !OLD.contains(scheme));
    let is_new = |key: &&Arc<CertifiedKey>| new.clone().any(|it| signs(key, slice::from_ref(it)));
    let mut rest = keys.clone();
    keys.into_iter().find(is_new).or_else(|| rest.find(|key| signs(key, schemes)))
}

/// The choice for one connection, or for all where there is nothing to choose, and what
/// came of it.
#[derive(Debug)]
pub(super) struct Choice {
    certificates: Arc<Certificates>,
    shown: OnceLock<Arc<CertifiedKey>>,
}

impl Choice {
    /// Among `certificates`.
    pub(super) fn new(certificates: Arc<Certificates>) -> Choice {
        Choice { certificates, shown: OnceLock::new() }
    }

    /// The certificate that the client was shown; none before the first words of a
    /// client.
    pub(super) fn shown(&self) -> Option<CertificateDer<'static>> {
        self.shown.get()?.cert.first().cloned()
    }
}

impl ResolvesServerCert for Choice {
    /// Twice for a client that is asked to say hello again: what was chosen stays.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = || self.certificates.find(hello.server_name(), hello.signature_schemes());
        Some(Arc::clone(self.shown.get_or_init(|| Arc::clone(chosen()))))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};
    use rustls::server::{Accepted, Acceptor};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, SignatureScheme as Scheme};

    use super::super::{Identity, Pem, provider};
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
            entry(&["d.test"], &rcgen::PKCS_RSA_SHA256),
        ]);
        let kinds: Vec<_> = certificates.entries.iter().map(|entry| kind(&entry.key)).collect();
        let wanted = ["ECDSA (P-256)", "ECDSA (P-384)", "RSA", "ECDSA (P-256)", "Ed25519", "RSA"];
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
            (Some("c.test"), &[old, p256], 2),
            (Some("d.test"), &[p256, old], 5),
            (Some("d.test"), &[p256, pss], 5),
            (Some("d.test"), &[p256], 0),
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

    /// The first words of a client that asks for `name`.
    fn hello(name: &'static str) -> Accepted {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
        let (mut words, mut acceptor) = (Vec::new(), Acceptor::default());
        client.write_tls(&mut words).unwrap();
        acceptor.read_tls(&mut &words[..]).unwrap();
        acceptor.accept().ok().flatten().expect("these are all of its first words")
    }

    #[test]
    fn what_was_chosen_once_stays() {
        let entries = ["a.test", "b.test"].map(|name| entry(&[name], &rcgen::PKCS_ED25519));
        let certificates = Arc::new(Certificates::new(entries.into()));
        assert!(!certificates.is_single());
        for (name, which) in [("a.test", 0), ("b.test", 1)] {
            let choice = Choice::new(Arc::clone(&certificates));
            assert_eq!(choice.shown(), None);
            let key = &certificates.entries[which].key;
            for said in [name, "a.test", "b.test"] {
                let chosen = choice.resolve(hello(said).client_hello()).unwrap();
                assert!(Arc::ptr_eq(&chosen, key), "{name}, then {said}");
                assert_eq!(choice.shown().as_ref(), key.cert.first());
            }
        }
    }
}
