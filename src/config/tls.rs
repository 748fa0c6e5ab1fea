//! `[tls]`: the certificates of the server, and what it asks of TLS clients.

use std::fmt;
use std::path::{Path, PathBuf};

use super::pattern::DomainPattern;

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl TlsVersion {
    /// As it is written in logs and in `Received:`: `TLS1.3`.
    pub fn name(self) -> &'static str {
        match self {
            TlsVersion::Tls12 => "TLS1.2",
            TlsVersion::Tls13 => "TLS1.3",
        }
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `[tls]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerTls {
    /// Where the certificates come from.
    pub certificates: Certificates,
    /// The lowest version.
    pub min_version: TlsVersion,
    /// What is asked of clients.
    pub client_certificates: ClientCertificates,
    /// The authorities that clients are to have certificates of.
    pub client_ca: Option<PathBuf>,
}

/// Where the certificates of the server come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Certificates {
    /// There are none.
    #[default]
    None,
    /// One that the server makes for itself and keeps in `data_dir`.
    SelfSigned,
    /// From these files; at least one. The first is for clients that ask for a name
    /// that none of them is for, or for none.
    Files(Vec<CertificateFiles>),
}

/// A certificate: `tls.certificate` and `tls.key`, or `[[tls.certificate]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Names that clients get it for; empty for those in the certificate.
    pub names: Vec<DomainPattern>,
    /// The certificate and those that lead to its authority, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// It stands in `[tls]` itself.
    pub is_only: bool,
}

/// What a TLS client is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// No certificate.
    #[default]
    Off,
    /// A certificate, if it has one.
    Request,
    /// A certificate that `client_ca` leads to.
    Require,
}

/// What stands for [`Certificates::SelfSigned`] in place of a path.
pub(super) const SELF_SIGNED: &str = "self-signed";

impl Certificates {
    /// Of `tls.certificate` as it is written.
    pub(super) fn of_path(certificate: Option<PathBuf>, key: Option<PathBuf>) -> Certificates {
        match certificate {
            None => Certificates::None,
            Some(path) if path == Path::new(SELF_SIGNED) => Certificates::SelfSigned,
            Some(certificate) => {
                let (names, key) = (Vec::new(), key.unwrap_or_default());
                Certificates::Files(vec![CertificateFiles {
                    names,
                    certificate,
                    key,
                    is_only: true,
                }])
            }
        }
    }

    /// The files.
    pub fn files(&self) -> &[CertificateFiles] {
        match self {
            Certificates::Files(files) => files,
            Certificates::None | Certificates::SelfSigned => &[],
        }
    }
}
