//! Plays every file of `tests/dialogs` to a whole server over loopback, in the clear
//! and over TLS: turn by turn, octet by octet, and all at once. The engine alone is
//! played by `tests/dialogs.rs`.

mod support;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use ringpost::io::process;
use ringpost::proto::sasl::{base64, derive_keys};
use rustls::ClientConfig;
use support::authority::Authority;
use support::dialog::{Dialog, HOSTNAME, Pace, Setup, Tls, read_all};
use support::engine::{SALT, USER};
use support::process::Server;
use support::tls::{Files, client, plain, reply};
use support::users::{fingerprint, user, write_users};
use support::wire::Wire;

/// What is on disk for the dialogs: the user, and certificates of the server and of
/// clients.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = tempfile::tempdir().unwrap();
        Authority::new().files(folder.path(), HOSTNAME);
        let own = Files::self_signed(folder.path(), USER.0);
        let clerk = user("clerk", USER.1, "@a.example");
        Files::self_signed(folder.path(), "stranger");
        let salt = base64::decode(SALT.0.as_bytes()).unwrap();
        let mut user = user(USER.0, USER.1, "*");
        user.scram = Some(derive_keys(USER.1, &salt, SALT.1.try_into().unwrap()));
        user.certificates.push(fingerprint(&own.certificate));
        write_users(&folder.path().join("users"), vec![user, clerk]);
        Folder(folder)
    }

    /// The certificate of `name`.
    fn files(&self, name: &str) -> Files {
        let at = |kind: &str| self.0.path().join(format!("{name}.{kind}"));
        Files { certificate: at("crt"), key: at("key") }
    }

    /// A client that shows this certificate, or none.
    fn client(&self, certificate: &str) -> Arc<ClientConfig> {
        let files = self.files(certificate);
        let files = Some(&files).filter(|_| !certificate.is_empty());
        client(&[&rustls::version::TLS13], files)
    }
}

fn settings(setup: &Setup, folder: &Folder) -> Vec<String> {
    let quoted = |items: &[String]| format!("{items:?}");
    let loopback = ["127.0.0.0/8".to_owned()];
    let trusted = if setup.trusted { loopback.to_vec() } else { Vec::new() };
    let claims = quoted(if setup.claims { &loopback } else { &[] });
    let kind = match (setup.lmtp, setup.submission, setup.tls) {
        (true, ..) => "lmtp",
        (_, true, Tls::On) => "submissions",
        (_, true, _) => "submission",
        _ => "relay",
    };
    let tls = match setup.tls {
        Tls::Off => "off",
        Tls::Offered => "optional",
        Tls::Required => "required",
        Tls::On => "implicit",
    };
    let mut settings = vec![
        format!("hostname={HOSTNAME:?}"),
        format!("limits.message_size=\"{}B\"", setup.message_size),
        format!("limits.recipients={}", setup.recipients),
        format!("limits.commands_without_mail={}", setup.idle_commands),
        format!("limits.commands_ahead={}", if setup.strict { "refuse" } else { "allow" }),
        format!(
            r#"listener=[{{address="127.0.0.1:0", kind="{kind}", tls="{tls}", auth={auth}, xclient_from={claims}, xforward_from={claims}, disable={}, vrfy={tells}, expn={tells}}}]"#,
            quoted(&setup.disable),
            auth = !setup.auth.is_empty(),
            tells = setup.tells
        ),
        format!("limits.errors_per_session={}", setup.errors),
        format!("access.relay_from={}", quoted(&trusted)),
        format!("access.relay_domains={}", quoted(&setup.relay_domains)),
        r#"route=[{domain="*", next_hop="discard"}]"#.to_owned(),
    ];
    if setup.tls != Tls::Off {
        settings.push(folder.files(HOSTNAME).setting());
        settings.push(r#"tls.client_certificates="request""#.to_owned());
    }
    if !setup.auth.is_empty() {
        let mechanisms: Vec<&str> = setup.auth.split(' ').collect();
        settings
            .push(format!("auth.users={:?}", folder.0.path().join("users").display().to_string()));
        settings.push(format!("auth.mechanisms={mechanisms:?}"));
        // Each failure is meant.
        settings.push(r#"auth.failure_delay="0s""#.to_owned());
        settings.push("auth.lockout_failures=1000".to_owned());
    }
    // The later ones hold.
    settings.extend(setup.settings.iter().cloned());
    settings
}

/// What an operator could not configure: limits below those that the standard
/// sets for every server.
fn is_configurable(setup: &Setup) -> bool {
    setup.recipients >= 100 && setup.message_size >= 65_536
}

/// Opens the sessions that a dialog finds there.
fn others(dialog: &Dialog, server: SocketAddr) -> Vec<TcpStream> {
    let greeted = |_| {
        let mut other = plain(server);
        let greeting = reply(&mut other).unwrap();
        assert!(greeting.starts_with("220 "), "{}: {greeting}", dialog.name);
        other
    };
    (0..dialog.setup.others).map(greeted).collect()
}

fn play(dialog: &Dialog, server: SocketAddr, folder: &Folder, complaints: &mut Vec<String>) {
    // What the client says within SCRAM depends on what it has heard.
    let hears = dialog.setup.auth.contains("SCRAM");
    let others = others(dialog, server);
    let paces = [Pace::Turns, Pace::Bytes, Pace::Whole];
    let paces = paces.into_iter().filter(|pace| match pace {
        Pace::Turns => true,
        Pace::Whole => !dialog.is_for_turns() && !hears,
        _ => !dialog.is_for_turns(),
    });
    for pace in paces {
        let config = folder.client(&dialog.setup.certificate);
        let wire = Wire::connect(server, &dialog.setup, &config);
        complaints.extend(dialog.play(pace, wire).err());
    }
    drop(others);
}

#[test]
fn every_dialog_over_loopback() {
    let folder = Folder::new();
    // What one that is for whole servers leaves behind is not for others.
    let mut by_settings: HashMap<(Vec<String>, Option<String>), Vec<Dialog>> = HashMap::new();
    for dialog in read_all() {
        if is_configurable(&dialog.setup) {
            let settings = settings(&dialog.setup, &folder);
            let own = dialog.setup.is_for_whole_servers().then(|| dialog.name.clone());
            by_settings.entry((settings, own)).or_default().push(dialog);
        }
    }
    let played = by_settings.values().flatten();
    let (all, secure) = (played.clone().count(), played.filter(|it| it.setup.tls == Tls::On));
    assert!(all >= 30 && secure.count() >= 15, "only {all} dialogs were played");
    let mut complaints = Vec::new();
    process::raise_open_files().unwrap();
    for ((settings, _), dialogs) in by_settings {
        let dir = tempfile::tempdir().unwrap();
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let server = Server::start(dir.path(), &settings);
        for dialog in &dialogs {
            play(dialog, server.smtp, &folder, &mut complaints);
        }
        server.terminate();
        assert!(server.wait().success());
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}
