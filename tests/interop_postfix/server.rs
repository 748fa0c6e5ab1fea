//! Postfix as the next hop of a whole server: by STARTTLS and implicit TLS whose
//! certificate is verified, with AUTH (Cyrus SASL), with and without CHUNKING, with
//! SMTPUTF8 and DSN. What it passes on is compared by octets with what was sent.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use super::send;
use super::support::authority::Authority;
use super::support::dns::DnsServer;
use super::support::hop::{Act, Hop, Skills, on_one_port};
use super::support::postfix::{self, Postfix};
use super::support::program::{added, fields, is_installed, run, succeeded, tricky};
use super::support::rig::Rig;
use super::support::submissions::{by_name, secret};
use super::support::tls::Files;

const PASSWORD: &str = "open sesame";

/// A service of Postfix, and how it is reached: the domain whose mail goes there, its
/// options, and what the route has. The host is that of the address at its place.
struct Service {
    domain: &'static str,
    options: &'static str,
    scheme: &'static str,
    route: &'static str,
}

const TLS: &str = "-o smtpd_tls_security_level=encrypt";
const VERIFIED: &str = r#", tls="verified""#;
const USER: &str = r#", tls="verified", user="relay""#;

const fn service(
    domain: &'static str,
    options: &'static str,
    scheme: &'static str,
    route: &'static str,
) -> Service {
    Service { domain, options, scheme, route }
}

const SERVICES: &[Service] = &[
    service("clear.test", "-o smtpd_tls_security_level=none", "", ""),
    // Without CHUNKING all goes by DATA.
    service("data.test", "-o smtpd_discard_ehlo_keywords=chunking", "", ""),
    service("slow.test", "-o smtpd_discard_ehlo_keywords=pipelining", "", ""),
    service("offered.test", "-o smtpd_tls_security_level=may", "", ""),
    service("verified.test", TLS, "", VERIFIED),
    service("old.test", "-o smtpd_tls_protocols=!TLSv1.3", "", VERIFIED),
    service("implicit.test", "-o smtpd_tls_wrappermode=yes", "smtps://", VERIFIED),
    service("plain.test", "-o smtpd_sasl_path=plain", "", USER),
    service("login.test", "-o smtpd_sasl_path=login", "", USER),
    service("scram.test", "-o smtpd_sasl_path=scram", "", USER),
    service("best.test", "-o smtpd_tls_wrappermode=yes -o smtpd_sasl_path=all", "smtps://", USER),
    // These get nothing.
    service("stranger.test", "", "", r#", tls="verified""#),
    service("bare.test", "-o smtpd_tls_security_level=none", "", VERIFIED),
];

/// The first of those that get nothing.
const REFUSED: usize = SERVICES.len() - 2;

/// What Cyrus SASL goes by: files with the mechanisms, and the user with a password.
/// They have to be where Debian's Postfix looks whatever its configuration says.
fn sasl(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    let users = dir.join("users");
    for (name, mechanisms) in [
        ("plain", "PLAIN"),
        ("login", "LOGIN"),
        ("scram", "SCRAM-SHA-256"),
        ("all", "PLAIN LOGIN SCRAM-SHA-256"),
    ] {
        let text = format!(
            "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {}\nmech_list: {mechanisms}\n",
            users.display()
        );
        std::fs::write(dir.join(format!("{name}.conf")), text).unwrap();
    }
    let mut command = Command::new("saslpasswd2");
    command.args(["-p", "-c", "-u", "post.test", "-f"]).arg(&users).arg("relay");
    succeeded(&run(&mut command, PASSWORD.as_bytes()));
    postfix::own(&users);
}

/// The server, Postfix behind it, and the hop behind that.
struct Scene {
    rig: Rig,
    postfix: Postfix,
    onward: Hop,
    _dir: tempfile::TempDir,
}

/// All of [`SERVICES`], each on a host of its own in the network that begins so.
fn scene(network: &str) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let authority = Authority::new();
    // It has no certificate for each of the hosts, but one for all.
    let shown = authority.files(dir.path(), "*.post.test");
    authority.write(&at("authority.pem"));
    let unknown = Files::self_signed(dir.path(), "stranger.test");
    sasl(&at("etc/sasl"));
    secret(&at("password"), PASSWORD);
    let hosts: Vec<String> = (1..=SERVICES.len()).map(|n| format!("{network}.{n}")).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let listeners = on_one_port(&hosts);
    let places: Vec<SocketAddr> = listeners.iter().map(|l| l.local_addr().unwrap()).collect();
    drop(listeners);
    let skills = Skills { offers: &["DSN"], ..Skills::default() };
    let onward = TcpListener::bind("127.0.0.1:0").unwrap();
    let onward = Hop::skilled(onward, skills, |_| Act::Well);
    let mut services = String::new();
    let dns = DnsServer::start();
    let mut routes = Vec::new();
    for (service, place) in SERVICES.iter().zip(&places) {
        let mut options = service.options.to_owned();
        if service.domain == "stranger.test" {
            let (certificate, key) = (unknown.certificate.display(), unknown.key.display());
            options = format!("-o smtpd_tls_cert_file={certificate} -o smtpd_tls_key_file={key}");
        }
        let restrictions = "-o smtpd_relay_restrictions=permit_sasl_authenticated,reject";
        let mut password = String::new();
        if service.route.contains("user=") {
            options = format!("{options} {TLS} -o smtpd_sasl_auth_enable=yes {restrictions}");
            password = format!(", password_file={:?}", at("password"));
        }
        let domain = service.domain;
        services += &format!("{place} inet n - n - - smtpd -o syslog_name={domain} {options}\n");
        let name = format!("{}.post.test", service.domain.trim_end_matches(".test"));
        dns.set_addresses(&name, &[&place.ip().to_string()]);
        routes.push(format!(
            r#"{{domain="{}", next_hop="{}{name}:{}"{}{password}}}"#,
            service.domain,
            service.scheme,
            place.port(),
            service.route,
        ));
    }
    let domains: Vec<&str> = SERVICES.iter().map(|service| service.domain).collect();
    let settings = format!(
        "relay_domains = {}\nsmtpd_tls_security_level = may\nsmtpd_tls_cert_file = {}\n\
         smtpd_tls_key_file = {}\nsmtpd_tls_loglevel = 1\nsmtpd_sasl_local_domain = post.test\n\
         cyrus_sasl_config_path = {}\nrelayhost = [127.0.0.1]:{}\n",
        domains.join(", "),
        shown.certificate.display(),
        shown.key.display(),
        at("etc/sasl").display(),
        onward.address.port(),
    );
    let postfix = Postfix::start(dir.path(), &settings, &services, &places);
    let ca = format!("delivery.tls_ca={:?}", at("authority.pem"));
    let routes = format!("route=[{}]", routes.join(", "));
    let rig = Rig::start(dns, 25, &[&routes, &ca, r#"queue.retry=["1h"]"#]);
    Scene { rig, postfix, onward, _dir: dir }
}

#[test]
fn postfix_smtpd_gets_mail_over_tls_and_auth_octet_for_octet() {
    if !postfix::is_there() || !is_installed("saslpasswd2") {
        return;
    }
    let Scene { _dir, onward, postfix, rig } = scene("127.15.5");
    let mut client = rig.client();
    let large = |domain: &str| tricky(domain).repeat(600);
    let made = |name, domain| if name == "a" { tricky(domain) } else { large(domain) };
    // The small ones by themselves: what has nothing behind it may go in one chunk.
    for name in ["a", "large"] {
        for service in SERVICES {
            let to = [format!("{name}@{}", service.domain), format!("b@{}", service.domain)];
            let to = [&*to[0], &*to[1]];
            let said =
                client.raw().message("s@sender.test", &to, &made(name, service.domain)).unwrap();
            assert!(said.starts_with("250 "), "{said}");
        }
        for service in &SERVICES[..REFUSED] {
            rig.wait_outcome("delivered", &format!("{name}@{}", service.domain));
        }
    }
    let taken = onward.wait_taken(2 * REFUSED);
    for service in &SERVICES[..REFUSED] {
        let domain = service.domain;
        for (name, message) in [("a", tricky(domain)), ("large", large(domain))] {
            let to = format!("{name}@{domain}");
            let arrived = taken.iter().find(|taken| taken.recipients.contains(&to));
            let arrived = arrived.unwrap_or_else(|| panic!("{to} did not arrive"));
            let added = added(&arrived.body, &message);
            assert_eq!(fields(&added), ["Received", "Received"], "{to}");
            let expected = match service.route {
                "" if domain != "offered.test" => "with ESMTP id ",
                USER => "with ESMTPSA id ",
                _ => "with ESMTPS id ",
            };
            assert!(added.contains(expected), "{to}: {added}");
        }
    }
    let refused = [("stranger.test", "not from a trusted authority"), ("bare.test", "offer TLS")];
    for (domain, why) in refused {
        let line = rig.wait_outcome("deferred", &format!("a@{domain}"));
        assert!(line.contains(why), "{line}");
    }
    let got_by = |domain, words: &[&str]| postfix.wait_log(&[&[domain, "/smtpd"], words].concat());
    got_by("old.test", &["TLSv1.2 with cipher"]);
    got_by("verified.test", &["TLSv1.3 with cipher"]);
    for (domain, method) in [
        ("plain.test", "sasl_method=PLAIN"),
        ("login.test", "sasl_method=LOGIN"),
        ("scram.test", "sasl_method=SCRAM-SHA-256"),
        ("best.test", "sasl_method=SCRAM-SHA-256"),
    ] {
        got_by(domain, &[method, "sasl_username=relay@post.test"]);
    }
    // What was said is counted where a connection ends.
    let server = rig.into_server();
    server.terminate();
    assert!(server.wait().success());
    for service in &SERVICES[..REFUSED] {
        // The small message goes in one chunk where both extensions are offered.
        let chunked = !["data.test", "slow.test"].contains(&service.domain);
        let word = if chunked { " bdat=1 " } else { " data=" };
        let line = got_by(service.domain, &["disconnect from", " mail=", word]);
        assert!(chunked || !line.contains(" bdat="), "{line}");
    }
}

#[test]
fn postfix_smtpd_is_told_of_utf8_and_of_reports() {
    if !postfix::is_there() || !is_installed("saslpasswd2") {
        return;
    }
    let Scene { _dir, onward, postfix, rig } = scene("127.15.6");
    let mut client = rig.client();
    let mail = "<j\u{f6}rg@sender.test> SMTPUTF8 BODY=8BITMIME RET=FULL ENVID=id+2B1+3D";
    let domains = ["clear.test", "data.test", "implicit.test", "scram.test"];
    for domain in domains {
        let first =
            format!("<gr\u{fc}n@{domain}> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@old.test");
        let second = format!("<never@{domain}> NOTIFY=NEVER");
        send(client.raw(), mail, &[&first, &second], &tricky(domain));
    }
    let taken = onward.wait_taken(domains.len());
    let commands: Vec<String> =
        onward.seen(|seen| seen.commands.iter().map(|(_, line)| line.clone()).collect());
    let one = |start: String| {
        let found = commands.iter().find(|line| line.starts_with(&start));
        found.unwrap_or_else(|| panic!("no {start} in {commands:?}"))
    };
    let mails =
        commands.iter().filter(|line| line.starts_with("MAIL FROM:<j\u{f6}rg@sender.test>"));
    for mail in mails {
        for word in [" SMTPUTF8", " RET=FULL", " ENVID=id+2B1+3D"] {
            assert!(mail.contains(word), "{mail}");
        }
    }
    for domain in domains {
        let arrived = by_name(&taken, domain);
        added(&arrived.body, &tricky(domain));
        assert_eq!(arrived.recipients.len(), 2);
        let first = one(format!("RCPT TO:<gr\u{fc}n@{domain}>"));
        assert!(first.contains(" NOTIFY=SUCCESS,DELAY"), "{first}");
        assert!(first.contains(" ORCPT=rfc822;a+2Bb@old.test"), "{first}");
        assert!(one(format!("RCPT TO:<never@{domain}>")).contains(" NOTIFY=NEVER"));
    }
    drop(postfix);
}
