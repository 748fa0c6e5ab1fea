//! Messages that require TLS, and those that only BDAT can carry.

use super::*;
use crate::base::BodyType;
use crate::base::dsn::{Dsn, Notify, RecipientDsn};
use crate::base::terms::Terms;
use crate::io::tls;

const TEXT: &str = "Subject: x\r\n\r\nhello\r\n";
/// A session up to the EHLO behind the handshake.
pub(super) const TO_TLS: [&str; 8] = [
    "> 220 peer",
    "< EHLO ",
    "> 250-peer",
    "> 250 STARTTLS",
    "< STARTTLS",
    "> 220 go on",
    "=",
    "< EHLO ",
];
const TAKES: [&str; 8] =
    ["< MAIL", "> 250", "< RCPT", "> 250", "< DATA", "> 354", ".", "> 250 taken"];
const BYE: [&str; 2] = ["< QUIT", "> 221"];

/// A TLS server with a certificate for `name`, and that certificate in a file, as an
/// authority.
pub(super) fn server(name: &str) -> (tls::Server, tempfile::NamedTempFile) {
    let pem = tls::self_signed(&[name]).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &pem.certificate).unwrap();
    let identity = tls::Identity::new(vec![name.to_owned()], &pem).unwrap();
    let (min_version, visitors) = (tls::Version::Tls12, tls::Visitors::Unasked);
    let setup = tls::Setup { min_version, identities: vec![identity], visitors };
    (tls::Server::new(setup).unwrap(), file)
}

fn with(terms: Terms) -> Envelope {
    Envelope { terms: Some(Box::new(terms)), ..envelope(&["a@x.org"]) }
}

#[test]
fn what_requires_tls_goes_over_verified_tls_only() {
    run(|| async {
        let requires = || with(Terms { require_tls: true, ..Terms::default() });
        let never = RecipientDsn { notify: Some(Notify::NEVER), orcpt: None };
        let dsn = Dsn { recipients: vec![never], ..Dsn::default() };
        let quiet = |envelope| Envelope { dsn: Some(Box::new(dsn.clone())), ..envelope };
        let offers = ["> 250-peer", "> 250 REQUIRETLS"];
        // The certificate's name, whether its authority is trusted, what is offered.
        for (name, is_trusted, offer, outcome) in [
            ("127.0.0.1", true, &offers[..], Ok(())),
            ("127.0.0.1", true, &["> 250 peer"], Err("5.7.30")),
            ("127.0.0.1", false, &offers, Err("5.7.10")),
            ("other.test", true, &offers, Err("5.7.10")),
        ] {
            let (tls, ca) = server(name);
            let taken: &[&str] = if outcome.is_ok() { &TAKES } else { &[] };
            let peer = Peer::with_tls(tls, vec![script(&[&TO_TLS, offer, taken, &BYE])]);
            let mut config = config(&[peer.address]);
            config.delivery.tls_ca = is_trusted.then(|| ca.path().to_owned());
            let rig = Rig::new(config).await;
            rig.envelope(quiet(requires()), TEXT, true).await;
            let got = rig.outcome().await;
            match outcome {
                Ok(()) => assert_eq!(got.disposition, Disposition::Delivered, "{got:?}"),
                Err(code) => {
                    assert_eq!(got.disposition, Disposition::Failed, "{got:?}");
                    assert!(got.reply.to_string().contains(code), "{got:?}");
                }
            }
            rig.drain().await;
            let seen = peer.finish().await.concat();
            let is_said =
                seen.iter().any(|line| line.contains("MAIL") && line.contains("REQUIRETLS"));
            assert_eq!(is_said, outcome.is_ok(), "{seen:?}");
        }
        // Without TLS the offer is worth nothing.
        let hello = ["> 220 peer", "< EHLO ", "> 250-peer", "> 250 REQUIRETLS"];
        let peer = Peer::start(vec![script(&[&hello, &BYE])]);
        let rig = Rig::new(config(&[peer.address])).await;
        rig.envelope(quiet(requires()), TEXT, true).await;
        let got = rig.outcome().await;
        assert_eq!(got.disposition, Disposition::Failed);
        assert!(got.reply.to_string().starts_with("550 5.7.10"), "{got:?}");
        rig.drain().await;
        peer.finish().await;
    });
}

#[test]
fn a_report_about_what_requires_tls_is_not_lost_where_that_is_not_offered() {
    run(|| async {
        let terms = Terms { require_tls: true, ..Terms::default() };
        let report = || Envelope { sender: String::new(), ..with(terms.clone()) };
        let plain = ["> 220 peer", "< EHLO ", "> 250-peer", "> 250 REQUIRETLS"];
        let (tls, _) = server("other.test");
        // In the clear, whatever is said there; to who does not offer it; and to who does.
        for (is_tls, offer, is_said) in [
            (false, &[][..], false),
            (true, &["> 250 peer"], false),
            (true, &["> 250-peer", "> 250 REQUIRETLS"], true),
        ] {
            let hello: &[&str] = if is_tls { &TO_TLS } else { &plain };
            let script = vec![script(&[hello, offer, &TAKES, &BYE])];
            let peer = match is_tls {
                true => Peer::with_tls(tls.clone(), script),
                false => Peer::start(script),
            };
            let rig = Rig::new(config(&[peer.address])).await;
            rig.envelope(report(), TEXT, true).await;
            assert_eq!(rig.outcome().await.disposition, Disposition::Delivered);
            rig.drain().await;
            let seen = peer.finish().await.concat();
            let mail = seen.iter().find(|line| line.starts_with("MAIL")).unwrap();
            assert_eq!(mail.contains("REQUIRETLS"), is_said, "{seen:?}");
        }
    });
}

#[test]
fn a_binary_body_goes_in_chunks_and_text_by_data() {
    run(|| async {
        let binary = |no_final_crlf| Envelope {
            body_type: BodyType::EightBitMime,
            ..with(Terms { binary: true, no_final_crlf, ..Terms::default() })
        };
        let text = "A: b\r\n\r\n..x\0\ny\r\n";
        // `Received: here`, the text without a stuffed dot, and without the CRLF
        // that was added.
        let sent = "Received: here\r\nA: b\r\n\r\n.x\0\ny";
        let hello = ["> 220 peer", "< EHLO ", "> 250-peer", "> 250-CHUNKING", "> 250 BINARYMIME"];
        for in_memory in [true, false] {
            let len = format!("+ {}", sent.len());
            let len: &'static str = Box::leak(len.into_boxed_str());
            let takes = ["< MAIL", "> 250", "< RCPT", "> 250", "< BDAT", len, "> 250 taken"];
            let peer = Peer::start(vec![script(&[&hello, &takes, &BYE])]);
            let rig = Rig::new(config(&[peer.address])).await;
            rig.envelope(binary(true), text, in_memory).await;
            assert_eq!(rig.outcome().await.disposition, Disposition::Delivered);
            rig.drain().await;
            let seen = peer.finish().await.concat();
            assert!(seen[1].contains(" BODY=BINARYMIME"), "{seen:?}");
            assert_eq!(seen[3..5], [format!("BDAT {} LAST\r\n", sent.len()), sent.into()]);
        }
        // Declared binary, but text: it goes to those who know nothing of that.
        let plain = ["> 220 peer", "< EHLO ", "> 250-peer", "> 250 8BITMIME"];
        let peer = Peer::start(vec![script(&[&plain, &TAKES, &BYE])]);
        let rig = Rig::new(config(&[peer.address])).await;
        rig.envelope(binary(false), TEXT, true).await;
        assert_eq!(rig.outcome().await.disposition, Disposition::Delivered);
        rig.drain().await;
        peer.finish().await;
        // And what is none fails there.
        let peer = Peer::start(vec![script(&[&plain, &BYE])]);
        let rig = Rig::new(config(&[peer.address])).await;
        let quiet = Envelope { sender: String::new(), ..binary(false) };
        rig.envelope(quiet, text, true).await;
        let got = rig.outcome().await;
        assert!(got.reply.to_string().contains("5.6.3"), "{got:?}");
        rig.drain().await;
        peer.finish().await;
    });
}
