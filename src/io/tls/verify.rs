//! Who is believed. Signatures of the handshake are always checked, so a peer has
//! the key of the certificate that it shows. Whether the certificate itself counts
//! is asked where it matters: of servers after the handshake, so that one that is
//! not believed is still a better connection than none, and so that a resumed
//! session is judged anew; of clients in the handshake only where a certificate is
//! required.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};

use super::provider;

/// What rustls asks of either verifier in the same words: that signatures are right by
/// `self.algorithms`.
macro_rules! signatures_by_algorithms {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, certificate, signed, &self.algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signed, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.algorithms.supported_schemes()
        }
    };
}

/// A server's rule for the certificates of clients.
#[derive(Debug)]
pub(super) struct Guests {
    inner: Option<Arc<dyn ClientCertVerifier>>,
    is_required: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Guests {
    /// Takes certificates; with `is_required`, only those that lead to `roots`.
    pub(super) fn new(roots: RootCertStore, is_required: bool) -> Result<Guests, String> {
        let inner = if roots.is_empty() {
            None
        } else {
            let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider());
            Some(builder.build().map_err(|error| error.to_string())?)
        };
        let algorithms = provider().signature_verification_algorithms;
        Ok(Guests { inner, is_required, algorithms })
    }

    /// Whether a chain leads to one of the roots.
    pub(super) fn knows(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((leaf, rest)) = chain.split_first() else { return false };
        let now = UnixTime::now();
        self.inner.as_ref().is_some_and(|inner| inner.verify_client_cert(leaf, rest, now).is_ok())
    }
}

impl ClientCertVerifier for Guests {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.as_ref().map_or(&[], |inner| inner.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match &self.inner {
            Some(inner) if self.is_required => inner.verify_client_cert(leaf, rest, now),
            None if self.is_required => Err(CertificateError::UnknownIssuer.into()),
            _ => Ok(ClientCertVerified::assertion()),
        }
    }

    signatures_by_algorithms!();
}

/// A client's rule for the certificates of servers.
#[derive(Debug)]
pub(super) struct Hosts {
    inner: Option<Arc<WebPkiServerVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Hosts {
    /// Believes certificates that lead to `roots`.
    pub(super) fn new(roots: RootCertStore) -> Result<Hosts, String> {
        let inner = if roots.is_empty() {
            None
        } else {
            let builder = WebPkiServerVerifier::builder_with_provider(roots.into(), provider());
            Some(builder.build().map_err(|error| error.to_string())?)
        };
        let algorithms = provider().signature_verification_algorithms;
        Ok(Hosts { inner, algorithms })
    }

    /// Checks that a chain leads to one of the roots and is for one of `names`.
    ///
    /// # Errors
    /// In words, what is wrong with it.
    pub(super) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        names: &[&str],
    ) -> Result<(), String> {
        let Some((leaf, rest)) = chain.split_first() else {
            return Err("the server showed no certificate".into());
        };
        let Some(inner) = &self.inner else {
            return Err("there are no trusted authorities".into());
        };
        let now = UnixTime::now();
        let mut reason = "there is no name that its certificate may be for".to_owned();
        for name in names {
            let Ok(server) = ServerName::try_from(*name) else { continue };
            match inner.verify_server_cert(leaf, rest, &server, &[], now) {
                Ok(_) => return Ok(()),
                Err(error) => reason = words(&error, names),
            }
        }
        Err(reason)
    }
}

fn words(error: &Error, names: &[&str]) -> String {
    use CertificateError as C;
    match error {
        Error::InvalidCertificate(C::UnknownIssuer) => {
            "its certificate is not from a trusted authority".into()
        }
        Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => {
            "its certificate has expired".into()
        }
        Error::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            format!("its certificate is not for {}", names.join(" or "))
        }
        error => format!("its certificate is not valid: {error}"),
    }
}

impl ServerCertVerifier for Hosts {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Judged by `verify`, once the handshake is done.
        Ok(ServerCertVerified::assertion())
    }

    signatures_by_algorithms!();
}
