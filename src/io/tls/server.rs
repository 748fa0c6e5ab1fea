//! What a server's connections are made with: its certificates, the versions it
//! speaks, what it asks of clients, and the keys of its session tickets.
//!
//! Tickets (RFC 8446, 4.6.1; RFC 5077) are sealed with keys that all shards share
//! and that change every few hours. A [`Server`] that is made anew has new ones, so
//! a ticket never outlives the certificates and the rules it was given under.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{RootCertStore, ServerConfig, ServerConnection};

use super::certificates;
use super::choice::{self, Certificates, Choice, Entry};
use super::facts::Version;
use super::self_signed::Pem;
use super::verify::Guests;
use super::{provider, versions};
use crate::proto::x509::Certificate;

/// Octets of plaintext that a connection takes at a time to be sent. Replies are
/// small, and a client that does not read them keeps no more than this.
const OUT_MAX: usize = 16 * 1024;

/// Names that a certificate is shown for.
pub type Names = Vec<String>;

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct Identity {
    names: Names,
    key: Arc<rustls::sign::CertifiedKey>,
}

impl Identity {
    /// The certificate and key of `pem`, shown to clients that ask for one of
    /// `names` (`*.example.org` stands for one label), or of those in the certificate
    /// if there are none.
    ///
    /// # Errors
    /// What is wrong with them, in words; the first of the pair is true if it is
    /// the key.
    pub fn new(names: Names, pem: &Pem) -> Result<Identity, (bool, String)> {
        let chain = certificates::chain(&pem.certificate).map_err(|reason| (false, reason))?;
        let key = certificates::private_key(&pem.key).map_err(|reason| (true, reason))?;
        let key = certificates::certified(chain, key).map_err(|reason| (true, reason))?;
        let own = || Certificate::parse(key.cert.first()?).map(|it| it.dns_names());
        let names = if names.is_empty() { own().unwrap_or_default() } else { names };
        Ok(Identity { names, key: Arc::new(key) })
    }

    /// The names that it is shown for.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// What kind of key it has: `RSA`, `ECDSA (P-256)`.
    pub fn kind(&self) -> &'static str {
        choice::kind(&self.key)
    }

    /// As one to choose among.
    pub(super) fn into_entry(self) -> Entry {
        Entry { names: self.names, key: self.key }
    }

    /// The certificate itself, in DER.
    pub fn certificate(&self) -> &[u8] {
        self.key.cert.first().expect("a certified key has a certificate")
    }
}

/// What is asked of clients.
#[derive(Clone, Debug, Default)]
pub enum Visitors {
    /// No certificate.
    #[default]
    Unasked,
    /// A certificate, if they have one. Any is taken; whether it leads to one of
    /// these authorities (in PEM) is one of the [facts](super::Facts).
    Asked(Option<Vec<u8>>),
    /// A certificate that leads to one of these authorities (in PEM).
    Required(Vec<u8>),
}

/// What a [`Server`] is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The lowest version.
    pub min_version: Version,
    /// The certificates, at least one; the first, and those that share a name with it,
    /// are for clients that ask for none of the names. Of those for one name a client
    /// gets the first whose signatures it can verify.
    pub identities: Vec<Identity>,
    /// What is asked of clients.
    pub visitors: Visitors,
}

/// The server's side of TLS. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Server(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    /// Of a single certificate: it is the answer to every client, so that connections
    /// share the choice with the configuration.
    only: Option<Arc<Choice>>,
    guests: Option<Arc<Guests>>,
}

impl Server {
    /// A server with new ticket keys.
    ///
    /// # Errors
    /// In words, when the authorities for clients cannot be used.
    pub fn new(setup: Setup) -> Result<Server, String> {
        let guests = match setup.visitors {
            Visitors::Unasked => None,
            Visitors::Asked(None) => Some(Guests::new(RootCertStore::empty(), false)?),
            Visitors::Asked(Some(pem)) => Some(Guests::new(certificates::roots(&pem)?, false)?),
            Visitors::Required(pem) => Some(Guests::new(certificates::roots(&pem)?, true)?),
        };
        let guests = guests.map(Arc::new);
        let entries = setup.identities.into_iter().map(Identity::into_entry).collect();
        let certificates = Arc::new(Certificates::new(entries));
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(setup.min_version))
            .map_err(|error| error.to_string())?;
        let builder = match &guests {
            Some(guests) => builder.with_client_cert_verifier(Arc::<Guests>::clone(guests)),
            None => builder.with_no_client_auth(),
        };
        // Where there is more than one, each connection has a choice of its own in place
        // of this one.
        let choice = Arc::new(Choice::new(Arc::clone(&certificates)));
        let mut config = builder.with_cert_resolver(Arc::<Choice>::clone(&choice));
        config.ticketer =
            rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        // One session is resumed at a time: a client that comes again gets another.
        config.send_tls13_tickets = 1;
        let only = certificates.is_single().then_some(choice);
        Ok(Server(Arc::new(Inner { config: Arc::new(config), certificates, only, guests })))
    }

    /// A connection that awaits its client, and which certificate it will show.
    pub(super) fn connection(&self) -> Result<(ServerConnection, Arc<Choice>), rustls::Error> {
        let (config, choice) = match &self.0.only {
            Some(choice) => (Arc::clone(&self.0.config), Arc::clone(choice)),
            None => {
                let choice = Arc::new(Choice::new(Arc::clone(&self.0.certificates)));
                // rustls tells nobody what it has shown.
                let mut config = ServerConfig::clone(&self.0.config);
                config.cert_resolver = Arc::<Choice>::clone(&choice);
                (Arc::new(config), choice)
            }
        };
        let mut connection = ServerConnection::new(config)?;
        connection.set_buffer_limit(Some(OUT_MAX));
        Ok((connection, choice))
    }

    /// Whether a client's certificate leads to one of the authorities.
    pub(super) fn knows(&self, chain: &[CertificateDer<'_>]) -> bool {
        self.0.guests.as_ref().is_some_and(|guests| guests.knows(chain))
    }
}

#[cfg(test)]
mod tests {
    use super::super::self_signed;
    use super::*;

    #[test]
    fn connections_share_what_need_not_be_chosen() {
        let server = |names: &[&str]| {
            let identities = names
                .iter()
                .map(|name| Identity::new(Names::new(), &self_signed(&[name]).unwrap()).unwrap());
            Server::new(Setup {
                min_version: Version::Tls12,
                identities: identities.collect(),
                visitors: Visitors::Unasked,
            })
            .unwrap()
        };
        for (names, is_shared) in [(&["a.test"][..], true), (&["a.test", "b.test"], false)] {
            let server = server(names);
            let [(_, one), (_, other)] = [(); 2].map(|()| server.connection().unwrap());
            assert_eq!(Arc::ptr_eq(&one, &other), is_shared, "{names:?}");
        }
    }
}
