//! Postfix as a client: it passes mail on to a whole server over TLS that it
//! verifies, authenticates with each mechanism that it shares, speaks LMTP, and
//! carries SMTPUTF8 and DSN. Its client has no BDAT: what it sends comes by DATA.

use std::net::SocketAddr;

use super::send;
use super::support::hop::on_one_port;
use super::support::peer::Client;
use super::support::postfix::{self, Postfix};
use super::support::program::{added, fields, tricky};
use super::support::submissions::{Submissions, by_name};

/// Each way to the server: the domain that goes it, the listener, and what sets it
/// apart.
const WAYS: &[(&str, Way, &str)] = &[
    ("plain.test", Way::StartTls, "-o smtp_sasl_mechanism_filter=plain"),
    ("login.test", Way::StartTls, "-o smtp_sasl_mechanism_filter=login"),
    ("scram.test", Way::StartTls, "-o smtp_sasl_mechanism_filter=scram-sha-256"),
    ("best.test", Way::StartTls, ""),
    ("old.test", Way::StartTls, "-o smtp_tls_mandatory_protocols=!TLSv1.3"),
    ("implicit.test", Way::Implicit, "-o smtp_tls_wrappermode=yes"),
    ("lmtp.test", Way::Lmtp, ""),
    ("wrong.test", Way::StartTls, "-o smtp_sasl_password_maps=static:gate:guess"),
    ("nobody.test", Way::StartTls, "-o smtp_sasl_auth_enable=no"),
];

#[derive(Clone, Copy, PartialEq)]
enum Way {
    StartTls,
    Implicit,
    Lmtp,
}

/// A Postfix that goes each of [`WAYS`] to `place`, and takes mail at `address`.
fn start(place: &Submissions, dir: &std::path::Path, address: SocketAddr) -> Postfix {
    let mut maps = String::new();
    let mut services = format!("{address} inet n - n - - smtpd\n");
    for (domain, way, options) in WAYS {
        let name = domain.strip_suffix(".test").unwrap();
        let (to, program) = match way {
            Way::StartTls => (place.starttls, "smtp"),
            Way::Implicit => (place.implicit, "smtp"),
            Way::Lmtp => (place.lmtp, "lmtp"),
        };
        maps += &format!(", {{{domain} = way-{name}:[{}]:{}}}", to.ip(), to.port());
        services += &format!("way-{name} unix - - n - - {program} {options}\n");
    }
    let domains: Vec<&str> = WAYS.iter().map(|(domain, ..)| *domain).collect();
    let tls = |client: &str| {
        format!(
            "{client}_tls_security_level = secure\n{client}_tls_secure_cert_match = relay.test\n\
             {client}_tls_CAfile = {}\n{client}_tls_loglevel = 1\n",
            place.authority().display()
        )
    };
    let settings = format!(
        "relay_domains = {}\ntransport_maps = inline:{{{}}}\n{}{}\
         smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = static:gate:sesame\n\
         smtp_sasl_security_options = noanonymous\nlmtp_send_xforward_command = yes\n\
         smtpd_authorized_xforward_hosts = 127.0.0.0/8\nminimal_backoff_time = 1000s\n",
        domains.join(", "),
        maps.trim_start_matches(", "),
        tls("smtp"),
        tls("lmtp"),
    );
    Postfix::start(dir, &settings, &services, &[address])
}

struct Scene {
    place: Submissions,
    postfix: Postfix,
    client: Client,
    _dir: tempfile::TempDir,
}

fn scene(host: &str) -> Scene {
    let place = Submissions::start();
    let dir = tempfile::tempdir().unwrap();
    let listener = on_one_port(&[host]).remove(0);
    let address = listener.local_addr().unwrap();
    drop(listener);
    let postfix = start(&place, dir.path(), address);
    let client = Client::connect(address).unwrap();
    Scene { place, postfix, client, _dir: dir }
}

#[test]
fn postfix_passes_mail_on_over_verified_tls_with_each_mechanism() {
    if !postfix::is_there() {
        return;
    }
    let Scene { _dir, place, postfix, mut client } = scene("127.15.4.1");
    let good =
        || WAYS.iter().filter(|(domain, ..)| !["wrong.test", "nobody.test"].contains(domain));
    for (domain, ..) in WAYS {
        let to = [format!("<b@{domain}>"), format!("<c@{domain}>")];
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        send(&mut client, "<alice@x.test> BODY=8BITMIME", &to, &tricky(domain));
    }
    let taken = place.hop.wait_taken(good().count());
    for (domain, way, _) in good() {
        let arrived = by_name(&taken, domain);
        assert_eq!(arrived.recipients, [format!("b@{domain}"), format!("c@{domain}")]);
        let added = added(&arrived.body, &tricky(domain));
        assert_eq!(fields(&added), ["Received", "Received"]);
        let with = if *way == Way::Lmtp { "with LMTPS id " } else { "with ESMTPSA id " };
        assert!(added.contains(with), "{domain}: {added}");
        let version = if *domain == "old.test" { "TLS1.2" } else { "TLS1.3" };
        assert!(added.contains(&format!("(using {version})")), "{domain}: {added}");
        let line = place.accepted(&format!("b@{domain}"));
        let word = if *way == Way::Lmtp { " orig_client=" } else { " user=\"gate\"" };
        assert!(line.contains(word), "no {word} in {line}");
    }
    let by = |mechanism| place.authenticated("gate", mechanism);
    let best = by("SCRAM-SHA-256");
    assert!(by("PLAIN") >= 1 && by("LOGIN") >= 1 && best >= 1, "{}", place.server.log());
    let line = postfix.wait_log(&["Verified TLS connection established to", "TLSv1.3"]);
    assert!(line.contains("127.0.0.1"), "{line}");
    let line = postfix.wait_log(&["<b@wrong.test>", "status=deferred"]);
    assert!(line.contains("SASL authentication failed") && line.contains("535 5.7.8"), "{line}");
    let line = postfix.wait_log(&["<b@nobody.test>", "status=bounced"]);
    assert!(line.contains("530 5.7.0"), "{line}");
    assert_eq!(place.server.metric("ringpost_messages_accepted_total"), good().count() as u64);
}

#[test]
fn postfix_carries_utf8_and_what_is_asked_about_reports() {
    if !postfix::is_there() {
        return;
    }
    let Scene { _dir, place, postfix, mut client } = scene("127.15.4.2");
    let mail = "<j\u{f6}rg@x.test> SMTPUTF8 BODY=8BITMIME RET=HDRS ENVID=id+2B1+3D";
    for domain in ["scram.test", "implicit.test", "lmtp.test"] {
        let first =
            format!("<gr\u{fc}n@{domain}> NOTIFY=SUCCESS,DELAY ORCPT=utf-8;gr\\x{{FC}}n@old.test");
        let second = format!("<never@{domain}> NOTIFY=NEVER ORCPT=rfc822;a+2Bb@old.test");
        send(&mut client, mail, &[&first, &second], &tricky(domain));
    }
    let taken = place.hop.wait_taken(3);
    for domain in ["scram.test", "implicit.test", "lmtp.test"] {
        let arrived = by_name(&taken, domain);
        added(&arrived.body, &tricky(domain));
        assert_eq!(arrived.sender, "j\u{f6}rg@x.test");
        let commands = place.commands();
        let one = |start: String| {
            let found = commands.iter().find(|line| line.starts_with(&start));
            found.unwrap_or_else(|| panic!("no {start} in {commands:?}"))
        };
        let mail = one("MAIL FROM:<j\u{f6}rg@x.test>".into());
        for word in [" SMTPUTF8", " RET=HDRS", " ENVID=id+2B1+3D"] {
            assert!(mail.contains(word), "{mail}");
        }
        let first = one(format!("RCPT TO:<gr\u{fc}n@{domain}>"));
        assert!(first.contains(" NOTIFY=SUCCESS,DELAY"), "{first}");
        assert!(first.contains(" ORCPT=utf-8;gr"), "{first}");
        let second = one(format!("RCPT TO:<never@{domain}>"));
        assert!(second.contains(" NOTIFY=NEVER ORCPT=rfc822;a+2Bb@old.test"), "{second}");
        postfix.wait_log(&[&format!("<never@{domain}>"), "status=sent"]);
    }
}
