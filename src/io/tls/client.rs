//! What a client's connections are made with: whom it trusts, the versions it
//! speaks, and the sessions it may resume.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::verify::Hosts;
use super::{Version, certificates, provider, versions};

/// Octets of plaintext that a connection takes at a time to be sent.
const OUT_MAX: usize = 64 * 1024;

/// Servers whose sessions are kept to be resumed.
const SESSIONS_MAX: usize = 1024;

/// Where systems keep the authorities that they trust.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Which authorities are trusted.
#[derive(Clone, Debug)]
pub enum Roots {
    /// None: no server is verified.
    None,
    /// Those of the system; none, if it has no list where such lists are.
    System,
    /// Those of this PEM.
    Pem(Vec<u8>),
    /// Those of a PEM file.
    File(PathBuf),
}

impl Roots {
    /// Reads the system's list, if that is what is asked for. Blocks.
    fn load(&self) -> Result<RootCertStore, String> {
        match self {
            Roots::None => Ok(RootCertStore::empty()),
            Roots::Pem(pem) => certificates::roots(pem),
            Roots::File(path) => from_file(path),
            Roots::System => {
                let Some(path) = SYSTEM_ROOTS.iter().find(|path| Path::new(path).exists()) else {
                    return Ok(RootCertStore::empty());
                };
                from_file(Path::new(path))
            }
        }
    }
}

fn from_file(path: &Path) -> Result<RootCertStore, String> {
    let name = path.display();
    let pem = std::fs::read(path).map_err(|error| format!("{name}: {error}"))?;
    certificates::roots(&pem).map_err(|reason| format!("{name}: {reason}"))
}

/// What the certificate of a server must be.
#[derive(Clone, Copy, Debug)]
pub enum Verify<'a> {
    /// Any will do.
    Nothing,
    /// From a trusted authority, for one of these names.
    Names(&'a [&'a str]),
    /// Any will do; whether it is as with [`Verify::Names`] is noted.
    Note(&'a [&'a str]),
}

/// The client's side of TLS. Cheap to clone; clones share the sessions that may be
/// resumed.
#[derive(Clone, Debug)]
pub struct Client {
    config: Arc<ClientConfig>,
    hosts: Arc<Hosts>,
}

impl Client {
    /// A client that trusts `roots` and speaks `min_version` and what is newer.
    /// Reads files: not for a shard.
    ///
    /// # Errors
    /// In words, when the authorities cannot be used.
    pub fn new(roots: &Roots, min_version: Version) -> Result<Client, String> {
        let hosts = Arc::new(Hosts::new(roots.load()?)?);
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(min_version))
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Hosts>::clone(&hosts))
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        Ok(Client { config: Arc::new(config), hosts })
    }

    /// The same client with sessions of its own: one for each shard, so that they
    /// share no lock.
    pub fn apart(&self) -> Client {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        Client { config: Arc::new(config), hosts: Arc::clone(&self.hosts) }
    }

    /// The same client, but it resumes no session: every handshake is a whole one.
    pub fn without_resumption(&self) -> Client {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = Resumption::disabled();
        Client { config: Arc::new(config), hosts: Arc::clone(&self.hosts) }
    }

    /// A connection that is about to greet the server `name`, an IP address or a
    /// host's name; only a name is sent along.
    pub(super) fn connection(
        &self,
        name: ServerName<'static>,
    ) -> Result<ClientConnection, rustls::Error> {
        let mut connection = ClientConnection::new(Arc::clone(&self.config), name)?;
        connection.set_buffer_limit(Some(OUT_MAX));
        Ok(connection)
    }

    /// Whom it believes.
    pub(super) fn hosts(&self) -> &Hosts {
        &self.hosts
    }
}

/// A client that does not speak TLS 1.3, with those of its suites whose names hold
/// `part`.
#[cfg(test)]
pub(super) fn only_tls12(part: &str) -> Client {
    let client = Client::new(&Roots::None, Version::Tls12).unwrap();
    let mut provider = rustls::crypto::CryptoProvider::clone(&provider());
    provider.cipher_suites.retain(|it| it.suite().as_str().is_some_and(|it| it.contains(part)));
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::<Hosts>::clone(&client.hosts))
        .with_no_client_auth();
    Client { config: Arc::new(config), ..client }
}
