//! Certificates that no authority has signed: for the embedded default
//! configuration, and for tests.

use rcgen::{CertificateParams, DnType, KeyPair};

/// A certificate with its chain, and its private key, each in PEM.
#[derive(Clone)]
pub struct Pem {
    /// The certificate, followed by those that lead to its authority.
    pub certificate: Vec<u8>,
    /// The private key.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key is nobody's business.
        f.debug_struct("Pem").field("certificate", &self.certificate.len()).finish_non_exhaustive()
    }
}

/// The words that mark such a certificate, as its organization.
const MARK: &str = "ringpost self-signed";

/// A certificate for `names`, with a new ECDSA key (P-256), signed with that key.
/// It is marked as such by its organization, "ringpost self-signed".
///
/// # Errors
/// In words, when a name is not one that a certificate can have.
pub fn self_signed(names: &[&str]) -> Result<Pem, String> {
    let words = |error: rcgen::Error| error.to_string();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let common_name = names.first().cloned().unwrap_or_default();
    let mut params = CertificateParams::new(names).map_err(words)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.distinguished_name.push(DnType::OrganizationName, MARK);
    let key = KeyPair::generate().map_err(words)?;
    let certificate = params.self_signed(&key).map_err(words)?;
    Ok(Pem { certificate: certificate.pem().into(), key: key.serialize_pem().into() })
}
