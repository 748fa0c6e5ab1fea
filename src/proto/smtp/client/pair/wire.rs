//! A connection in memory: in the clear at first, then TLS by rustls on both ends.

use std::io::{ErrorKind, Read, Write};
use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, Connection, ProtocolVersion, RootCertStore, ServerConfig,
    ServerConnection, SupportedProtocolVersion,
};

use crate::proto::sasl::{Binding, BindingKind};

/// The name that the certificate is for.
pub(super) const NAME: &str = "server.test";

/// A server's certificate, and who trusts it.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
    roots: RootCertStore,
}

fn identity() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(params.self_signed(&authority_key).unwrap().der().clone()).unwrap();
        let issuer = Issuer::new(params, authority_key);
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        Identity { chain: vec![certificate.der().clone()], key: key.serialize_der(), roots }
    })
}

/// TLS of one version.
pub(super) type Version = &'static SupportedProtocolVersion;

/// The server's side of a connection.
pub(super) fn serving(version: Version) -> Connection {
    let Identity { chain, key, .. } = identity();
    let key = PrivateKeyDer::try_from(key.clone()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.clone(), key)
        .unwrap();
    ServerConnection::new(Arc::new(config)).unwrap().into()
}

/// The client's side of a connection.
pub(super) fn asking(version: Version) -> Connection {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(identity().roots.clone())
        .with_no_client_auth();
    let name = ServerName::try_from(NAME).unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap().into()
}

/// One end of a connection.
#[derive(Default)]
pub(super) struct End {
    tls: Option<Connection>,
    is_shaken: bool,
    /// Octets on their way to the other end.
    wire: Vec<u8>,
    /// What has come, and is not given to the engine.
    come: Vec<u8>,
    /// What the engine was given and has not used.
    pub(super) unread: Vec<u8>,
    /// What the engine has written.
    pub(super) out: Vec<u8>,
}

impl End {
    /// Begins TLS. What was written before leaves in the clear.
    pub(super) fn begin_tls(&mut self, session: Connection) {
        assert!(self.tls.is_none() && self.come.is_empty() && self.unread.is_empty());
        self.wire.append(&mut self.out);
        self.tls = Some(session);
        self.send();
    }

    /// True from the beginning of TLS until [`End::take_shaken`] was true.
    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.is_some() && !self.is_shaken
    }

    /// True once, when the handshake is done.
    pub(super) fn take_shaken(&mut self) -> bool {
        let done = self.tls.as_ref().is_some_and(|tls| !tls.is_handshaking());
        done && !std::mem::replace(&mut self.is_shaken, true)
    }

    /// What SASL can bind an exchange to.
    pub(super) fn bindings(&self) -> Vec<Binding> {
        let Some(tls) = &self.tls else { return Vec::new() };
        let binding = if tls.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
            let label = b"EXPORTER-Channel-Binding";
            let data = tls.export_keying_material([0; 32], label, None).unwrap();
            Binding { kind: BindingKind::Exporter, data: data.into() }
        } else {
            let leaf = match tls {
                Connection::Client(client) => client.peer_certificates().unwrap()[0].clone(),
                Connection::Server(_) => identity().chain[0].clone(),
            };
            let data = digest::digest(&digest::SHA256, &leaf).as_ref().into();
            Binding { kind: BindingKind::EndPoint, data }
        };
        vec![binding]
    }

    /// Puts what is to be sent on the wire.
    pub(super) fn send(&mut self) {
        let Some(tls) = &mut self.tls else {
            self.wire.append(&mut self.out);
            return;
        };
        if self.is_shaken && !self.out.is_empty() {
            tls.writer().write_all(&self.out).unwrap();
            self.out.clear();
        }
        while tls.wants_write() {
            tls.write_tls(&mut self.wire).unwrap();
        }
    }

    /// Takes at most `most` octets off the wire of the other end, and lets the
    /// engine have at most `most` of what they come to. False when nothing moved.
    pub(super) fn receive(&mut self, other: &mut End, most: usize) -> bool {
        let len = other.wire.len().min(most);
        let arrived: Vec<u8> = other.wire.drain(..len).collect();
        match &mut self.tls {
            None => self.come.extend(&arrived),
            Some(tls) => take(tls, &arrived, &mut self.come),
        }
        let given = self.come.len().min(most);
        self.unread.extend(self.come.drain(..given));
        self.send();
        len > 0 || given > 0
    }

    /// Nothing is on its way, in either direction.
    pub(super) fn is_quiet(&self) -> bool {
        self.wire.is_empty() && self.come.is_empty()
    }

    /// Drops what the engine has not seen, wherever it is.
    pub(super) fn drop_unseen(&mut self) {
        self.come.clear();
        self.unread.clear();
    }
}

/// Has rustls take what has arrived.
fn take(tls: &mut Connection, mut arrived: &[u8], come: &mut Vec<u8>) {
    while !arrived.is_empty() {
        assert!(tls.read_tls(&mut arrived).unwrap() > 0);
        tls.process_new_packets().unwrap();
        match tls.reader().read_to_end(come) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            Ok(_) => panic!("nobody says that TLS ends"),
        }
    }
}
