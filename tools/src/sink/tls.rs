//! What the sink's TLS is made with: certificates of its own, or those given, and
//! handshakes that go wrong on request.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use ringpost::io::tls::{Identity, Pem, Server, Setup, Version, Visitors};

use crate::values::{self, TlsStart};

/// Options about TLS and authentication.
#[derive(Clone, Debug, Default, Args)]
pub struct Security {
    /// Speak TLS: offer STARTTLS, or begin with the first octet
    #[arg(long, value_name = "HOW")]
    pub tls: Option<TlsStart>,
    /// Certificate with its chain, PEM [default: one that is made at the start]
    #[arg(long, value_name = "FILE", requires_all = ["tls", "key"])]
    pub cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Write the authority of the certificates that are made at the start, for
    /// clients to trust
    #[arg(long, value_name = "FILE", requires = "tls")]
    pub ca_out: Option<PathBuf>,
    /// Have this share of handshakes go wrong: garbage, stall, close,
    /// expired-certificate or wrong-name; may be repeated
    #[arg(long, value_name = "KIND:SHARE", requires = "tls")]
    pub bad_tls: Vec<BadTls>,
    /// Offer AUTH over TLS, and believe everyone
    #[arg(long, requires = "tls")]
    pub auth: bool,
    /// Believe only who knows the first line of this file; offers SCRAM too
    #[arg(long, value_name = "FILE", requires = "auth")]
    pub auth_password_file: Option<PathBuf>,
}

/// How a handshake goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It is answered with what is no TLS.
    Garbage,
    /// It is not answered.
    Stall,
    /// The connection is closed instead.
    Close,
    /// The certificate is one of long ago.
    Expired,
    /// The certificate is for another name.
    WrongName,
}

const FLAWS: [(&str, Flaw); 5] = [
    ("garbage", Flaw::Garbage),
    ("stall", Flaw::Stall),
    ("close", Flaw::Close),
    ("expired-certificate", Flaw::Expired),
    ("wrong-name", Flaw::WrongName),
];

/// A share of handshakes that go wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BadTls {
    /// How.
    pub flaw: Flaw,
    /// How many of all.
    pub share: f64,
}

impl FromStr for BadTls {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = |name: &str| FLAWS.iter().find(|(known, _)| *known == name);
        let named = text.split_once(':').and_then(|(name, rest)| Some((known(name)?.1, rest)));
        let (flaw, share) = named.ok_or_else(|| {
            let names = FLAWS.map(|(name, _)| name).join(", ");
            format!("\"{text}\": the form is KIND:SHARE, as in \"garbage:5%\"; a kind is {names}")
        })?;
        Ok(BadTls { flaw, share: values::share(share)? })
    }
}

/// The name that a certificate for another name is for.
const OTHER_NAME: &str = "another.ringpost.invalid";

/// The server's side of TLS.
pub struct Tls {
    /// How it begins.
    pub start: TlsStart,
    good: Server,
    expired: Server,
    misnamed: Server,
}

impl Tls {
    /// That of `security`, for a server that calls itself `hostname`, if it speaks
    /// TLS at all.
    ///
    /// # Errors
    /// A file cannot be read or written, or holds nothing of use.
    pub fn new(security: &Security, hostname: &str) -> io::Result<Option<Tls>> {
        let Some(start) = security.tls else { return Ok(None) };
        let authority = Authority::new().map_err(made)?;
        if let Some(path) = &security.ca_out {
            fs::write(path, &authority.certificate).map_err(|error| named(path, &error))?;
        }
        let own = [hostname, "localhost", "127.0.0.1", "::1"];
        let good = match (&security.cert, &security.key) {
            (Some(certificate), Some(key)) => given(certificate, key)?,
            _ => server(&authority.issue(&own, false).map_err(made)?).map_err(io::Error::other)?,
        };
        let flawed = |names: &[&str], is_expired| {
            server(&authority.issue(names, is_expired).map_err(made)?).map_err(io::Error::other)
        };
        let (expired, misnamed) = (flawed(&own, true)?, flawed(&[OTHER_NAME], false)?);
        Ok(Some(Tls { start, good, expired, misnamed }))
    }

    /// What a handshake with this flaw is made with.
    pub fn server(&self, flaw: Option<Flaw>) -> &Server {
        match flaw {
            Some(Flaw::Expired) => &self.expired,
            Some(Flaw::WrongName) => &self.misnamed,
            _ => &self.good,
        }
    }
}

/// What the certificates of a sink are from.
struct Authority {
    /// In PEM.
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Result<Authority, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "ringpost-sink, for tests");
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Authority { certificate, issuer: Issuer::new(params, key) })
    }

    fn issue(&self, names: &[&str], is_expired: bool) -> Result<Pem, rcgen::Error> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        if is_expired {
            (params.not_before, params.not_after) =
                (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 1, 1));
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Pem { certificate: certificate.into(), key: key.serialize_pem().into() })
    }
}

fn server(pem: &Pem) -> Result<Server, String> {
    let identity = Identity::new(Vec::new(), pem).map_err(|(_, why)| why)?;
    let visitors = Visitors::Unasked;
    Server::new(Setup { min_version: Version::Tls12, identities: vec![identity], visitors })
}

/// A server with the certificate and key of these files.
fn given(certificate: &Path, key: &Path) -> io::Result<Server> {
    let read = |path: &Path| fs::read(path).map_err(|error| named(path, &error));
    let pem = Pem { certificate: read(certificate)?, key: read(key)? };
    server(&pem).map_err(|why| {
        let text = format!("{} with {}: {why}", certificate.display(), key.display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn made(error: rcgen::Error) -> io::Error {
    io::Error::other(format!("no certificate could be made: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flaws_have_names_and_shares() {
        let bad = BadTls { flaw: Flaw::Expired, share: 0.3 };
        assert_eq!("expired-certificate:30%".parse(), Ok(bad));
        for wrong in ["", "garbage", "garbage:2", "rot:5%"] {
            assert!(wrong.parse::<BadTls>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn files_that_are_no_certificate_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cert.pem");
        fs::write(&file, "no PEM").unwrap();
        let tls = Some(TlsStart::Implicit);
        let security =
            Security { tls, cert: Some(file.clone()), key: Some(file), ..Security::default() };
        let error = Tls::new(&security, "sink.invalid").err().unwrap().to_string();
        assert!(error.contains("cert.pem with ") && error.contains("PEM"), "{error}");
        assert!(Tls::new(&Security::default(), "sink.invalid").unwrap().is_none());
    }
}
