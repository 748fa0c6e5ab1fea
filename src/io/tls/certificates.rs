//! Certificates with their keys, from PEM (RFC 7468).

use rustls::RootCertStore;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::provider;

/// The certificates of `pem`, which is to hold one at least.
pub(super) fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(chain) if chain.is_empty() => Err("no PEM block of a CERTIFICATE".into()),
        Ok(chain) => Ok(chain),
        Err(error) => Err(pem_words(&error)),
    }
}

/// The private key of `pem`.
pub(super) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        PemError::NoItemsFound if contains(pem, b"BEGIN ENCRYPTED PRIVATE KEY") => {
            "the private key is encrypted; keys are read without a passphrase".into()
        }
        PemError::NoItemsFound => {
            "no PEM block of a PRIVATE KEY (PKCS #8, PKCS #1 or SEC 1)".into()
        }
        error => pem_words(&error),
    })
}

/// The authorities of `pem`.
pub(super) fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let (taken, left) = roots.add_parsable_certificates(chain(pem)?);
    if taken == 0 {
        return Err(format!("none of its {left} certificates can be used as an authority"));
    }
    Ok(roots)
}

fn contains(pem: &[u8], words: &[u8]) -> bool {
    memchr::memmem::find(pem, words).is_some()
}

fn pem_words(error: &PemError) -> String {
    match error {
        PemError::MissingSectionEnd { end_marker } => {
            format!("a PEM block of a {} without its end", String::from_utf8_lossy(end_marker))
        }
        PemError::IllegalSectionStart { line } => {
            format!("not a PEM line: {}", String::from_utf8_lossy(line).trim_end())
        }
        PemError::Base64Decode(_) => "a PEM block that is not base64".into(),
        error => error.to_string(),
    }
}

/// A key for its certificate.
pub(super) fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, String> {
    use rustls::{Error, InconsistentKeys};
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            "the private key is not that of the certificate".into()
        }
        error => format!("cannot be used: {error}"),
    })
}
