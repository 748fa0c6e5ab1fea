//! A TLS client over a blocking socket, certificates for servers and clients, and
//! the configuration that names them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};
use rustls::{StreamOwned, SupportedProtocolVersion};

use super::peer::PATIENCE;

/// A TLS connection.
pub type Secure = StreamOwned<ClientConnection, TcpStream>;

/// Believes every server that signs by one of these schemes.
#[derive(Debug)]
struct Trusting(Arc<CryptoProvider>, Vec<SignatureScheme>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.1.clone()
    }
}

fn trusting(schemes: Option<&[SignatureScheme]>) -> Arc<Trusting> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let all = || provider.signature_verification_algorithms.supported_schemes();
    let schemes = schemes.map_or_else(all, <[_]>::to_vec);
    Arc::new(Trusting(provider, schemes))
}

/// A client that speaks `version` and can verify `schemes`.
pub fn verifying(
    version: &'static SupportedProtocolVersion,
    schemes: &[SignatureScheme],
) -> Arc<ClientConfig> {
    let trusting = trusting(Some(schemes));
    let builder = ClientConfig::builder_with_provider(Arc::clone(&trusting.0))
        .with_protocol_versions(&[version])
        .unwrap();
    let builder = builder.dangerous().with_custom_certificate_verifier(trusting);
    Arc::new(builder.with_no_client_auth())
}

/// A client that speaks `versions` and shows `files`, if any.
pub fn client(
    versions: &[&'static SupportedProtocolVersion],
    files: Option<&Files>,
) -> Arc<ClientConfig> {
    let trusting = trusting(None);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&trusting.0))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(trusting);
    Arc::new(match files {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let certificate = CertificateDer::from_pem_file(&files.certificate).unwrap();
            let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    })
}

/// Any client.
pub fn anybody() -> Arc<ClientConfig> {
    client(rustls::ALL_VERSIONS, None)
}

/// A socket to `server`.
pub fn plain(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// TLS over `stream`, whose handshake is done with the first octet.
pub fn over(stream: TcpStream, config: &Arc<ClientConfig>, name: &str) -> Secure {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), stream)
}

/// Reads one reply, of however many lines.
pub fn reply(stream: &mut impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    loop {
        let mut octet = [0];
        if stream.read(&mut octet)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        text.push(octet[0].into());
        let last = text.lines().last().unwrap_or_default();
        if text.ends_with("\r\n") && last.as_bytes().get(3) != Some(&b'-') {
            return Ok(text);
        }
    }
}

/// Sends a line and reads the reply.
pub fn say(stream: &mut (impl Read + Write), line: &str) -> std::io::Result<String> {
    stream.write_all(format!("{line}\r\n").as_bytes())?;
    stream.flush()?;
    reply(stream)
}

/// A session in the clear, greeted, up to the reply to STARTTLS.
pub fn asked_for_tls(server: SocketAddr) -> TcpStream {
    let mut stream = plain(server);
    assert!(reply(&mut stream).unwrap().starts_with("220 "));
    let offers = say(&mut stream, "EHLO client.test").unwrap();
    assert!(offers.contains("250-STARTTLS\r\n"), "{offers}");
    assert_eq!(say(&mut stream, "STARTTLS").unwrap(), "220 2.0.0 Ready to start TLS\r\n");
    stream
}

/// A session after STARTTLS, its handshake done, before EHLO.
pub fn started(server: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Secure {
    let mut secure = over(asked_for_tls(server), config, name);
    secure.conn.complete_io(&mut secure.sock).unwrap();
    secure
}

/// A certificate and its key on disk.
pub struct Files {
    /// The certificate.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

impl Files {
    /// Self-signed, for `name`, in `dir`.
    pub fn self_signed(dir: &Path, name: &str) -> Files {
        let pem = ringpost::io::tls::self_signed(&[name]).unwrap();
        Files::write(dir, name, &pem.certificate, &pem.key)
    }

    /// Signed by an authority of its own, whose certificate is the second.
    pub fn signed(dir: &Path, name: &str) -> (Files, PathBuf) {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().unwrap();
        let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let issuer = Issuer::new(authority, authority_key);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let ca = dir.join(format!("{name}.ca"));
        std::fs::write(&ca, authority_pem).unwrap();
        let (certificate, key) = (certificate.pem(), key.serialize_pem());
        (Files::write(dir, name, certificate.as_bytes(), key.as_bytes()), ca)
    }

    /// These, in PEM, in `dir`.
    pub fn write(dir: &Path, name: &str, certificate: &[u8], key: &[u8]) -> Files {
        let files = Files {
            certificate: dir.join(format!("{name}.crt")),
            key: dir.join(format!("{name}.key")),
        };
        std::fs::write(&files.certificate, certificate).unwrap();
        std::fs::write(&files.key, key).unwrap();
        files
    }

    /// The certificate in DER.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.certificate).unwrap()
    }

    /// As a setting.
    pub fn setting(&self) -> String {
        format!("tls.certificate=[{}]", self.table())
    }

    /// As the value of `tls.certificate`, in a list.
    pub fn table(&self) -> String {
        let (certificate, key) = (&self.certificate, &self.key);
        format!("{{certificate={certificate:?}, key={key:?}}}")
    }
}
