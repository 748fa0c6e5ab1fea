//! What is known of a TLS connection once its handshake is done, as it stands in
//! `Received:`, the log and the metrics, and as policy needs it.

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use rustls::{CommonState, HandshakeKind, ProtocolVersion};

use crate::proto::x509::Certificate;

pub use crate::config::TlsVersion as Version;

/// What the handshake has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The version.
    pub version: Version,
    /// The cipher suite, as IANA names it: `TLS_AES_256_GCM_SHA384`.
    pub cipher: Box<str>,
    /// The name that the client asked for (SNI, RFC 6066).
    pub server_name: Option<Box<str>>,
    /// An earlier session was resumed.
    pub is_resumed: bool,
    /// The peer's certificate, if it showed one.
    pub peer: Option<Box<Peer>>,
}

/// Who the peer says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The common name of the certificate's subject; empty without one.
    pub subject: String,
    /// Mail addresses of the certificate (SAN rfc822Name).
    pub mail_addresses: Vec<String>,
    /// SHA-256 of the certificate.
    pub fingerprint: [u8; 32],
    /// The chain leads to a trusted root, and on the client's side the certificate
    /// is for one of the names that were asked for. `false` where nobody asked.
    pub is_verified: bool,
}

impl Facts {
    /// The version and the cipher, as they stand in `Received:`.
    pub fn words(&self) -> String {
        format!("{} with cipher {}", self.version, self.cipher)
    }

    /// Of a connection whose handshake is done.
    pub(super) fn new(state: &CommonState, server_name: Option<&str>, is_verified: bool) -> Facts {
        let suite = state.negotiated_cipher_suite().map(|suite| suite.suite());
        let cipher = suite.and_then(|suite| suite.as_str()).unwrap_or("unknown");
        let leaf = state.peer_certificates().and_then(|chain| chain.first());
        Facts {
            version: match state.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => Version::Tls13,
                _ => Version::Tls12,
            },
            cipher: match cipher.strip_prefix("TLS13_") {
                Some(rest) => format!("TLS_{rest}").into(),
                None => cipher.into(),
            },
            server_name: server_name.map(Into::into),
            is_resumed: state.handshake_kind() == Some(HandshakeKind::Resumed),
            peer: leaf.map(|leaf| Box::new(Peer::new(leaf, is_verified))),
        }
    }
}

impl Peer {
    fn new(certificate: &CertificateDer<'_>, is_verified: bool) -> Peer {
        let parsed = Certificate::parse(certificate);
        let digest = digest::digest(&digest::SHA256, certificate);
        Peer {
            subject: parsed.as_ref().and_then(Certificate::common_name).unwrap_or_default(),
            mail_addresses: parsed.map(|parsed| parsed.mail_addresses()).unwrap_or_default(),
            fingerprint: digest.as_ref().try_into().expect("SHA-256 has 32 octets"),
            is_verified,
        }
    }
}

/// The hash of a certificate that `tls-server-end-point` is (RFC 5929, 4.1): that of
/// its signature, SHA-256 in place of the weak ones; `None` for a signature without
/// a single hash function.
pub(super) fn end_point(certificate: &CertificateDer<'_>) -> Option<Box<[u8]>> {
    use crate::proto::x509::SignatureHash;
    let algorithm = match Certificate::parse(certificate)?.signature_hash()? {
        SignatureHash::Sha256OrWeaker => &digest::SHA256,
        SignatureHash::Sha384 => &digest::SHA384,
        SignatureHash::Sha512 => &digest::SHA512,
    };
    Some(digest::digest(algorithm, certificate).as_ref().into())
}
