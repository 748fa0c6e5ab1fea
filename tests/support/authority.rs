//! An authority that signs certificates for servers of a test, good ones and bad.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rcgen::{PKCS_ECDSA_P256_SHA256, SignatureAlgorithm};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::tls::Files;

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// An authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Names tell authorities apart.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        params.distinguished_name.push(DnType::CommonName, format!("authority {number}"));
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// Writes its certificate to a file.
    pub fn write(&self, path: &Path) {
        std::fs::write(path, &self.pem).unwrap();
    }

    /// A server with a certificate for `names`.
    pub fn server(&self, names: &[&str]) -> Arc<ServerConfig> {
        self.signed(names, 4000)
    }

    /// A server with a certificate for `names` that has expired.
    pub fn expired(&self, names: &[&str]) -> Arc<ServerConfig> {
        self.signed(names, 2020)
    }

    /// Writes a certificate for `name`, and its key, into `dir`.
    pub fn files(&self, dir: &Path, name: &str) -> Files {
        self.keyed(dir, name, name, &PKCS_ECDSA_P256_SHA256)
    }

    /// Writes a certificate for `name`, and its key for `algorithm`, into `dir`; the
    /// files are called `stem`.
    pub fn keyed(
        &self,
        dir: &Path,
        stem: &str,
        name: &str,
        algorithm: &'static SignatureAlgorithm,
    ) -> Files {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Files::write(dir, stem, certificate.pem().as_bytes(), key.serialize_pem().as_bytes())
    }

    fn signed(&self, names: &[&str], until_year: i32) -> Arc<ServerConfig> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(until_year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let chain = vec![certificate.der().clone()];
        config(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
}

/// A server with a certificate that nobody else has signed.
pub fn self_signed(names: &[&str]) -> Arc<ServerConfig> {
    let pem = ringpost::io::tls::self_signed(names).unwrap();
    let chain = CertificateDer::pem_slice_iter(&pem.certificate).map(Result::unwrap).collect();
    config(chain, PrivateKeyDer::from_pem_slice(&pem.key).unwrap())
}

fn config(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth();
    Arc::new(builder.with_single_cert(chain, key).unwrap())
}
