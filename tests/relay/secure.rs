//! TLS and credentials towards next hops, and what malicious ones make of them.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rustls::ServerConfig;

use super::support::authority::{Authority, self_signed};
use super::support::dns::DnsServer;
use super::support::hop::{Act, Hop, Moment, Skills, Step, on_one_port};
use super::support::rig::{Rig, at, dns_with_sender, domain, once_at};

/// A server that reaches `x.org` by MX at a hop with TLS, whose name is `mx.test`.
fn by_mx(
    address: &str,
    tls: Arc<ServerConfig>,
    behaviour: impl Fn(&Moment) -> Act + Send + Sync + 'static,
    more: &[&str],
) -> (Rig, Hop) {
    let skills = Skills { tls: Some(tls), ..Skills::default() };
    skilled(address, skills, behaviour, more)
}

fn skilled(
    address: &str,
    skills: Skills,
    behaviour: impl Fn(&Moment) -> Act + Send + Sync + 'static,
    more: &[&str],
) -> (Rig, Hop) {
    let [listener] = <[TcpListener; 1]>::try_from(on_one_port(&[address])).unwrap();
    let dns = dns_with_sender("127.0.0.1");
    domain(&dns, "x.org", &[(1, "mx.test", &[address])]);
    let port = listener.local_addr().unwrap().port();
    let hop = Hop::skilled(listener, skills, behaviour);
    (Rig::start(dns, port, more), hop)
}

fn commands(hop: &Hop) -> Vec<String> {
    hop.seen(|seen| seen.commands.iter().map(|(_, line)| line.clone()).collect())
}

#[test]
fn tls_is_used_where_it_is_offered_and_the_certificate_is_anybodys() {
    let (rig, hop) = by_mx("127.14.1.1", self_signed(&["other.test"]), |_| Act::Well, &[]);
    rig.send("one", &["r@x.org"]);
    assert!(hop.wait_taken(1)[0].is_secured);
    rig.wait_empty();
    let said = commands(&hop);
    assert_eq!(said[..3], ["EHLO relay.test", "STARTTLS", "EHLO relay.test"]);
    let line = rig.server.wait_log(|line| line.contains(" mail: secured "));
    for word in ["mx.test[127.14.1.1]", "tls=TLS1.3", "tls_cipher=TLS_", "verified=no"] {
        assert!(line.contains(word), "no {word} in {line}");
    }
    assert_eq!(rig.server.metric("ringpost_outbound_tls_handshakes_total"), 1);
    let line = rig.server.wait_log(|line| line.contains(" mail: delivered "));
    assert!(line.contains(" tls=TLS1.3 verified=no "), "{line}");
}

#[test]
fn sessions_are_resumed() {
    let more = ["delivery.messages_per_connection=1", "cores=1"];
    let (rig, hop) = by_mx("127.14.2.1", self_signed(&["mx.test"]), |_| Act::Well, &more);
    for count in 1..4 {
        rig.send("one", &["r@x.org"]);
        assert!(hop.wait_taken(count).iter().all(|taken| taken.is_secured));
    }
    rig.wait_empty();
    let resumed = rig.server.metric("ringpost_outbound_tls_resumed_total");
    assert!(resumed > 0, "{resumed} of 3");
}

#[test]
fn a_host_whose_tls_fails_is_spoken_to_in_the_clear_for_a_while() {
    // It is no TLS that it speaks behind its reply.
    for (host, act) in [
        (1, Act::Last("220 go on")),
        (2, Act::Last("220 go on\r\n220 this is no TLS")),
        (3, Act::Close),
        (4, Act::Babble("220 go on")),
    ] {
        let address = format!("127.14.3.{host}");
        let behaviour = at(Step::StartTls, act.clone());
        let (rig, hop) = by_mx(&address, self_signed(&["mx.test"]), behaviour, &[]);
        rig.send("one", &["r@x.org"]);
        assert!(!hop.wait_taken(1)[0].is_secured, "{act:?}");
        rig.wait_empty();
        assert_eq!(rig.server.metric("ringpost_outbound_tls_fallbacks_total"), 1, "{act:?}");
        assert_eq!(rig.server.metric("ringpost_recipients_deferred_total"), 0, "{act:?}");
        let asked = commands(&hop).iter().filter(|line| *line == "STARTTLS").count();
        assert_eq!(asked, 1, "{act:?}: it is remembered");
    }
}

#[test]
fn a_host_that_refuses_tls_that_it_offers_gets_mail_in_the_clear_unless_tls_is_required() {
    let refuses = || at(Step::StartTls, Act::Say("454 4.7.0 not now"));
    let hop_with = |address, more: &[&str]| {
        // Refused, the hop must not begin a handshake.
        let skills = Skills { offers: &["STARTTLS"], ..Skills::default() };
        skilled(address, skills, refuses(), more)
    };
    let (rig, hop) = hop_with("127.14.4.1", &[]);
    rig.send("one", &["r@x.org"]);
    assert!(!hop.wait_taken(1)[0].is_secured);
    rig.wait_empty();
    let (rig, hop) = hop_with("127.14.4.2", &["delivery.tls=required"]);
    let id = rig.send("one", &["r@x.org"]);
    let why = rig.wait_deferred(&id);
    assert!(why.contains("4.7.10") && why.contains("not now"), "{why}");
    assert!(commands(&hop).iter().all(|line| !line.starts_with("MAIL")));
}

#[test]
fn what_is_required_is_not_given_up_when_starttls_is_taken_out() {
    for (host, mode) in [(1, "required"), (2, "verified")] {
        let address = format!("127.14.5.{host}");
        let stripped = at(Step::Ehlo, Act::Say("250-hop.test\r\n250 SIZE"));
        let more = format!("delivery.tls={mode}");
        let (rig, hop) = by_mx(&address, self_signed(&["mx.test"]), stripped, &[&more]);
        let id = rig.send("one", &["r@x.org"]);
        let why = rig.wait_deferred(&id);
        assert!(why.contains("does not offer TLS, which is required"), "{why}");
        assert!(commands(&hop).iter().all(|line| !line.starts_with("MAIL")));
    }
}

#[test]
fn nothing_said_behind_the_reply_to_starttls_is_believed() {
    // Each time mail is refused there, were it believed.
    for (host, injected) in [
        (1, "220 go on\r\n250-hop.test\r\n250 SIZE 1"),
        (2, "220 go on\r\n550 5.7.1 no mail from you"),
        (3, "220 go on\r\n421 4.3.2 closing"),
    ] {
        let address = format!("127.14.6.{host}");
        let behaviour = at(Step::StartTls, Act::Last(injected));
        let more = ["delivery.tls=required"];
        let (rig, hop) = by_mx(&address, self_signed(&["mx.test"]), behaviour, &more);
        let id = rig.send("one", &["r@x.org"]);
        let why = rig.wait_deferred(&id);
        assert!(why.contains("in the clear") || why.contains("TLS"), "{injected:?}: {why}");
        assert!(commands(&hop).iter().all(|line| !line.starts_with("MAIL")));
        assert_eq!(rig.server.metric("ringpost_recipients_failed_total"), 0);
    }
}

#[test]
fn what_is_offered_in_the_clear_is_forgotten() {
    // Behind the handshake there is no SMTPUTF8, no SIZE and no PIPELINING.
    let behaviour = |moment: &Moment| match moment.step {
        Step::Mail if moment.line != "MAIL FROM:<s@sender.test>" => Act::Say("555 5.5.4 what?"),
        _ => Act::Well,
    };
    let count = std::sync::atomic::AtomicUsize::new(0);
    let both = move |moment: &Moment| {
        let second = moment.step == Step::Ehlo
            && count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 1;
        if second { Act::Say("250 hop.test") } else { behaviour(moment) }
    };
    let (rig, hop) = by_mx("127.14.7.1", self_signed(&["mx.test"]), both, &[]);
    rig.send("one", &["r@x.org"]);
    assert!(hop.wait_taken(1)[0].is_secured);
    rig.wait_empty();
}

#[test]
fn certificates_are_verified_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(&dir.path().join("ca.pem"));
    let ca = format!("delivery.tls_ca={}", dir.path().join("ca.pem").display());
    let more = ["delivery.tls=verified", &ca];
    for (host, tls, problem) in [
        (1, authority.expired(&["mx.test"]), "has expired"),
        (2, authority.server(&["other.test"]), "is not for mx.test"),
        (3, self_signed(&["mx.test"]), "not from a trusted authority"),
        (4, Authority::new().server(&["mx.test"]), "not from a trusted authority"),
    ] {
        let (rig, hop) = by_mx(&format!("127.14.8.{host}"), tls, |_| Act::Well, &more);
        let id = rig.send("one", &["r@x.org"]);
        let why = rig.wait_deferred(&id);
        assert!(why.contains("4.7.5") && why.contains(problem), "{why}");
        let said = commands(&hop);
        assert_eq!(said.iter().filter(|line| line.starts_with("MAIL")).count(), 0);
    }
    let tls = authority.server(&["*.example", "mx.test"]);
    let (rig, hop) = by_mx("127.14.8.9", tls, |_| Act::Well, &more);
    rig.send("one", &["r@x.org"]);
    assert!(hop.wait_taken(1)[0].is_secured);
    let line = rig.server.wait_log(|line| line.contains(" mail: secured "));
    assert!(line.contains("verified=yes"), "{line}");
}

#[test]
fn authorities_that_cannot_be_read_keep_a_server_from_starting_and_from_reloading() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (dir.path().join("ca.pem"), dir.path().join("bad.pem"));
    let authority = Authority::new();
    authority.write(&good);
    std::fs::write(&bad, "no certificate\n").unwrap();
    for file in [&bad, &dir.path().join("none.pem")] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_ringpost"))
            .args(["serve", "--set", &format!("delivery.tls_ca={:?}", file.display().to_string())])
            .args(["--set", "listener=[{address=\"127.0.0.1:0\"}]", "--set"])
            .arg(format!("data_dir={:?}", dir.path().join("data").display().to_string()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("delivery.tls_ca"), "{said}");
    }
    let address = "127.14.14.1";
    let [listener] = <[TcpListener; 1]>::try_from(on_one_port(&[address])).unwrap();
    let dns = dns_with_sender("127.0.0.1");
    domain(&dns, "x.org", &[(1, "mx.test", &[address])]);
    let port = listener.local_addr().unwrap().port();
    let skills = Skills { tls: Some(authority.server(&["mx.test"])), ..Skills::default() };
    let hop = Hop::skilled(listener, skills, |_| Act::Well);
    let file =
        |path: &std::path::Path| format!("[delivery]\ntls = \"verified\"\ntls_ca = {path:?}\n");
    let rig = Rig::run(Some(&file(&good)), dns, port, &[]);
    rig.rewrite(&file(&bad));
    let line = rig.server.wait_log(|line| line.contains("not reloaded"));
    assert!(line.contains("delivery.tls_ca") && line.contains("stays in force"), "{line}");
    rig.send("one", &["r@x.org"]);
    assert!(hop.wait_taken(1)[0].is_secured);
    rig.wait_empty();
}

#[test]
fn a_handshake_without_an_end_costs_only_its_own_time() {
    let more = ["delivery.tls=required", "delivery.connect_timeout=500ms"];
    let address = "127.14.9.1";
    let [listener] = <[TcpListener; 1]>::try_from(on_one_port(&[address])).unwrap();
    let port = listener.local_addr().unwrap().port();
    let dns = dns_with_sender("127.0.0.1");
    domain(&dns, "x.org", &[(1, "mx.test", &[address])]);
    // One octet of a handshake now and then.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || drip_handshake(stream.unwrap()));
        }
    });
    let rig = Rig::start(dns, port, &more);
    let id = rig.send("one", &["r@x.org"]);
    let why = rig.wait_deferred(&id);
    assert!(why.contains("took too long"), "{why}");
}

fn drip_handshake(mut stream: std::net::TcpStream) -> Option<()> {
    use std::io::{BufRead, BufReader, Write};
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    for reply in ["220 hi\r\n", "250-hop.test\r\n250 STARTTLS\r\n"] {
        stream.write_all(reply.as_bytes()).ok()?;
        reader.read_line(&mut line).ok()?;
    }
    stream.write_all(b"220 go on\r\n").ok()?;
    for octet in [22, 3, 3, 1, 0].into_iter().chain(std::iter::repeat(2)) {
        stream.write_all(&[octet]).ok()?;
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    None
}

/// A server whose mail all goes to one hop by a route with credentials.
fn smarthost(
    address: &str,
    skills: Skills,
    behaviour: impl Fn(&Moment) -> Act + Send + Sync + 'static,
    password: &str,
) -> (Rig, Hop, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, format!("{password}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let [listener] = <[TcpListener; 1]>::try_from(on_one_port(&[address])).unwrap();
    let scheme = if skills.is_implicit { "smtps://" } else { "" };
    let route = format!(
        "route=[{{domain=\"*\",next_hop=\"{scheme}{}\",tls=\"required\",user=\"relay\",\
         password_file={file:?}}}]",
        listener.local_addr().unwrap()
    );
    let hop = Hop::skilled(listener, skills, behaviour);
    (Rig::start(DnsServer::start(), 25, &[&route]), hop, dir)
}

fn with_login(is_implicit: bool) -> Skills {
    let tls = Some(self_signed(&["hop.test"]));
    Skills { tls, is_implicit, login: Some("\0relay\0open sesame"), ..Skills::default() }
}

#[test]
fn a_smarthost_is_told_the_password_over_tls_only() {
    for (host, is_implicit) in [(1, false), (2, true)] {
        let address = format!("127.14.10.{host}");
        let skills = with_login(is_implicit);
        let (rig, hop, _dir) = smarthost(&address, skills, |_| Act::Well, "open sesame");
        rig.send("one", &["r@x.org"]);
        assert!(hop.wait_taken(1)[0].is_secured);
        let said = commands(&hop);
        let at = |word: &str| said.iter().position(|line| line.starts_with(word));
        assert_eq!(at("STARTTLS").is_none(), is_implicit);
        assert!(at("AUTH PLAIN ") > at("STARTTLS") && at("AUTH") < at("MAIL"), "{said:?}");
    }
}

#[test]
fn without_tls_or_a_known_mechanism_nothing_is_told() {
    let stripped = at(Step::Ehlo, Act::Say("250-hop.test\r\n250 AUTH PLAIN LOGIN"));
    let address = "127.14.11.1";
    let (rig, hop, _dir) = smarthost(address, with_login(false), stripped, "open sesame");
    let id = rig.send("one", &["r@x.org"]);
    assert!(rig.wait_deferred(&id).contains("does not offer TLS"));
    assert!(commands(&hop).iter().all(|line| line.starts_with("EHLO") || line == "QUIT"));
    let odd = at(Step::Ehlo, Act::Say("250-hop.test\r\n250-STARTTLS\r\n250 AUTH X-ODD EXTERNAL"));
    let (rig, hop, _dir) = smarthost("127.14.11.2", with_login(false), odd, "open sesame");
    let id = rig.send("one", &["r@x.org"]);
    assert!(rig.wait_deferred(&id).contains("no way to authenticate"));
    assert!(commands(&hop).iter().all(|line| !line.starts_with("AUTH")));
}

#[test]
fn a_password_that_is_refused_defers_and_so_do_endless_challenges() {
    let address = "127.14.12.1";
    let (rig, hop, _dir) = smarthost(address, with_login(false), |_| Act::Well, "guess");
    let id = rig.send("one", &["r@x.org"]);
    let why = rig.wait_deferred(&id);
    assert!(why.contains("4.7.8") && why.contains("who?") && !why.contains("guess"), "{why}");
    assert!(commands(&hop).iter().all(|line| !line.starts_with("MAIL")));
    assert!(rig.server.metric("ringpost_outbound_auth_failures_total") > 0);
    // All lines that follow are challenged too.
    let loops = |moment: &Moment| match moment.step {
        Step::Auth | Step::Other => Act::Say("334 bW9yZQ=="),
        _ => Act::Well,
    };
    let (rig, hop, _dir) = smarthost("127.14.12.2", with_login(false), loops, "open sesame");
    let id = rig.send("one", &["r@x.org"]);
    rig.wait_deferred(&id);
    let said = commands(&hop);
    assert!(said.len() < 40 && said.iter().all(|line| !line.starts_with("MAIL")), "{said:?}");
}

#[test]
fn a_server_that_ends_tls_in_the_middle_of_a_message_gets_it_again() {
    let behaviour = once_at(Step::Body, Act::Close);
    let (rig, hop) = by_mx("127.14.13.1", self_signed(&["mx.test"]), behaviour, &[]);
    rig.send("one", &["r@x.org"]);
    super::support::rig::wait_for("delivered", || {
        rig.queue("retry --all");
        hop.seen(|seen| !seen.taken.is_empty())
    });
    rig.wait_empty();
    assert_eq!(hop.seen(|seen| seen.names()), ["one"]);
}
