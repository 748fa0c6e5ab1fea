//! Both sides of a TLS connection over loopback.

use std::future::Future;
use std::time::Duration;

use super::*;
use crate::io::executor::{run_pinned, spawn, within};
use crate::io::net::{self, Listener, Stream};
use crate::proto::sasl::{Binding, BindingKind};

const LIMIT: Duration = Duration::from_secs(20);

/// A server with a certificate of its own for each name.
fn server(names: &[&str], min_version: Version, visitors: Visitors) -> Server {
    let identities = names.iter().map(|name| {
        let pem = self_signed(&[name]).unwrap();
        Identity::new(vec![(*name).to_owned()], &pem).unwrap()
    });
    Server::new(Setup { min_version, identities: identities.collect(), visitors }).unwrap()
}

/// A client that speaks `version` only, and a server of one name.
fn pair(version: Version) -> (Server, Client) {
    let server = server(&["mx.example.org"], Version::Tls12, Visitors::Unasked);
    (server, speaking(version))
}

/// A client that trusts nobody and speaks `version` only.
fn speaking(version: Version) -> Client {
    match version {
        Version::Tls13 => Client::new(&Roots::None, Version::Tls13).unwrap(),
        Version::Tls12 => client::only_tls12("TLS_"),
    }
}

/// Two ends of a connection.
async fn ends() -> (Conn, Conn) {
    let listener = Listener::adopt(net::listen("127.0.0.1:0".parse().unwrap()).unwrap());
    let address = listener.local_addr().unwrap();
    let near = Stream::connect(address, LIMIT).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    (Conn::plain(near), Conn::plain(far))
}

/// Both handshakes at once: the client's end, then the server's.
async fn shake(
    server: &Server,
    client: &Client,
    name: &str,
    verify: Verify<'_>,
) -> (Result<Conn, Failure>, Result<Conn, Failure>) {
    let (mut near, mut far) = ends().await;
    let server = server.clone();
    let accept = spawn(async move { far.accept_tls(&server, LIMIT).await.map(|()| far) });
    let connected = near.connect_tls(client, name, verify, LIMIT).await.map(|()| near);
    (connected, accept.await)
}

fn run<F: Future<Output = ()> + 'static>(test: impl FnOnce() -> F + Send + 'static) {
    let test = || async { within(2 * LIMIT, test()).await.expect("the test took too long") };
    run_pinned("tls", None, test).unwrap().join().unwrap();
}

#[test]
fn records_of_all_sizes_are_read_a_little_at_a_time() {
    run(|| async {
        let (server, client) = pair(Version::Tls13);
        let (near, far) = shake(&server, &client, "mx.example.org", Verify::Nothing).await;
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        // Small records behind a large one come with its end.
        let lens = [16_384].into_iter().chain((0..40).map(|at| 100 + 37 * at % 400));
        let mut sent = Vec::new();
        for (at, len) in lens.enumerate() {
            let part = vec![at as u8; len];
            near.write_all(&part).await.unwrap();
            sent.extend(part);
        }
        let (mut got, mut buf) = (Vec::new(), [0; 512]);
        while got.len() < sent.len() {
            let len = far.read(&mut buf).await.unwrap();
            assert!(len > 0);
            got.extend_from_slice(&buf[..len]);
        }
        assert!(got == sent);
    });
}

#[test]
fn a_resumed_session_of_tls_1_2_binds_nothing() {
    for version in [Version::Tls12, Version::Tls13] {
        run(move || async move {
            let (server, client) = pair(version);
            for is_resumed in [false, true] {
                let (near, far) = shake(&server, &client, "mx.example.org", Verify::Nothing).await;
                let (mut near, mut far) = (near.unwrap(), far.unwrap());
                for conn in [&near, &far] {
                    assert_eq!(conn.tls().unwrap().is_resumed, is_resumed, "{version}");
                    let is_bound = !conn.bindings().is_empty();
                    assert_eq!(is_bound, !is_resumed || version == Version::Tls13, "{version}");
                }
                // The ticket of TLS 1.3 comes with what is read first.
                far.write_all(b"220\r\n").await.unwrap();
                assert_eq!(near.read(&mut [0; 8]).await.unwrap(), 5);
            }
        });
    }
}

#[test]
fn what_is_written_is_read_in_either_version() {
    for version in [Version::Tls12, Version::Tls13] {
        run(move || async move {
            let (server, client) = pair(version);
            let (near, far) = shake(&server, &client, "mx.example.org", Verify::Nothing).await;
            let (mut near, mut far) = (near.unwrap(), far.unwrap());
            for conn in [&near, &far] {
                let facts = conn.tls().unwrap();
                assert_eq!(facts.version, version);
                assert_eq!(facts.server_name.as_deref(), Some("mx.example.org"));
                assert!(facts.cipher.starts_with("TLS_"), "{}", facts.cipher);
                assert!(!facts.is_resumed);
            }
            assert_eq!(near.bindings(), far.bindings(), "both ends know the same");
            let kind = match version {
                Version::Tls12 => BindingKind::EndPoint,
                Version::Tls13 => BindingKind::Exporter,
            };
            assert_eq!(near.bindings()[0].kind, kind);
            let text: Vec<u8> = (0..1_000_000u32).map(|at| (at % 251) as u8).collect();
            let sent = text.clone();
            far.write_all(b"220\r\n").await.unwrap();
            assert_eq!(near.read(&mut [0; 8]).await.unwrap(), 5);
            let writer = spawn(async move {
                near.write_all(&sent).await.unwrap();
                near.close().await;
            });
            let mut got = Vec::new();
            let mut buf = vec![0; 3000];
            loop {
                match far.read(&mut buf).await.unwrap() {
                    0 => break,
                    len => got.extend_from_slice(&buf[..len]),
                }
            }
            writer.await;
            assert!(got == text, "{} octets of {}", got.len(), text.len());
        });
    }
}

#[test]
fn a_session_is_bound_to_the_certificate_that_was_shown() {
    run(|| async {
        let identities =
            [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_RSA_SHA256].map(|algorithm| {
                let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
                let params =
                    rcgen::CertificateParams::new(vec!["mx.example.org".to_owned()]).unwrap();
                let certificate = params.self_signed(&key).unwrap().pem().into();
                let pem = Pem { certificate, key: key.serialize_pem().into() };
                Identity::new(Vec::new(), &pem).unwrap()
            });
        let end_points = identities.clone().map(|it| facts::end_point(&it.certificate().into()));
        let setup = Setup {
            min_version: Version::Tls12,
            identities: identities.into(),
            visitors: Visitors::Unasked,
        };
        let server = Server::new(setup).unwrap();
        for (suites, which) in [("_ECDHE_ECDSA_", 0), ("_ECDHE_RSA_", 1), ("TLS_", 0)] {
            let client = client::only_tls12(suites);
            // The second time the session is resumed, and not bound to any.
            for is_resumed in [false, true] {
                let (near, far) = shake(&server, &client, "mx.example.org", Verify::Nothing).await;
                let (near, far) = (near.unwrap(), far.unwrap());
                assert_eq!(far.tls().unwrap().is_resumed, is_resumed, "{suites}");
                for conn in [near, far] {
                    let expected = (!is_resumed).then(|| Binding {
                        kind: BindingKind::EndPoint,
                        data: end_points[which].clone().unwrap(),
                    });
                    assert_eq!(conn.bindings().pop(), expected, "{suites}");
                }
            }
        }
    });
}
