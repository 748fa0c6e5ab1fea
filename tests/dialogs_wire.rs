//! Plays every file of `tests/dialogs` to a whole server over loopback: turn by
//! turn, octet by octet, and all at once. The engine alone is played by
//! `tests/dialogs.rs`.

mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use support::dialog::{Accepted, Dialog, HOSTNAME, Heard, Pace, Setup, Transport, read_all};
use support::peer::PATIENCE;
use support::process::Server;

/// A client's connection.
struct Wire(BufReader<TcpStream>);

impl Wire {
    fn connect(server: SocketAddr) -> Wire {
        let stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Wire(BufReader::new(stream))
    }
}

impl Transport for Wire {
    fn send(&mut self, bytes: &[u8]) {
        // A server that has closed takes no more; what it said says so.
        let _ = self.0.get_mut().write_all(bytes);
    }

    fn hear(&mut self) -> Heard {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(0) => Heard::Closed,
            Ok(_) => Heard::Line(line.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Heard::Silence,
            Err(_) => Heard::Closed,
        }
    }

    fn accepted(&mut self) -> Option<Accepted> {
        None
    }

    fn sees_messages(&self) -> bool {
        false
    }

    fn hang_up(mut self) -> String {
        let _ = self.0.get_ref().shutdown(Shutdown::Write);
        let mut rest = Vec::new();
        // A reset, for what it had not read, is an end as well.
        let _ = self.0.read_to_end(&mut rest);
        String::from_utf8_lossy(&rest).into_owned()
    }
}

fn settings(setup: &Setup) -> Vec<String> {
    let quoted = |items: &[String]| format!("{items:?}");
    let loopback = ["127.0.0.0/8".to_owned()];
    let trusted = if setup.trusted { loopback.to_vec() } else { Vec::new() };
    let kind = if setup.lmtp { "lmtp" } else { "relay" };
    let claims = quoted(if setup.claims { &loopback } else { &[] });
    vec![
        format!("hostname={HOSTNAME:?}"),
        format!("limits.message_size=\"{}B\"", setup.message_size),
        format!("limits.recipients={}", setup.recipients),
        format!("limits.commands_without_mail={}", setup.idle_commands),
        format!("limits.commands_ahead={}", if setup.strict { "refuse" } else { "allow" }),
        format!(
            r#"listener=[{{address="127.0.0.1:0", kind="{kind}", xclient_from={claims}, xforward_from={claims}, disable={}, vrfy={tells}, expn={tells}}}]"#,
            quoted(&setup.disable),
            tells = setup.tells
        ),
        format!("limits.errors_per_session={}", setup.errors),
        format!("access.relay_from={}", quoted(&trusted)),
        format!("access.relay_domains={}", quoted(&setup.relay_domains)),
        r#"route=[{domain="*", next_hop="discard"}]"#.to_owned(),
    ]
}

/// What an operator could not configure: limits below those that the standard
/// sets for every server. And what needs TLS, which these clients do not speak.
fn is_configurable(setup: &Setup) -> bool {
    let within_bounds = setup.recipients >= 100 && setup.message_size >= 65_536;
    within_bounds && setup.auth.is_empty() && !setup.tls
}

fn play(dialog: &Dialog, server: SocketAddr, complaints: &mut Vec<String>) {
    let paces = [Pace::Turns, Pace::Bytes, Pace::Whole];
    for pace in paces.into_iter().filter(|pace| *pace == Pace::Turns || !dialog.setup.strict) {
        complaints.extend(dialog.play(pace, Wire::connect(server)).err());
    }
}

#[test]
fn every_dialog_over_loopback() {
    let mut by_settings: HashMap<Vec<String>, Vec<Dialog>> = HashMap::new();
    for dialog in read_all() {
        if is_configurable(&dialog.setup) {
            by_settings.entry(settings(&dialog.setup)).or_default().push(dialog);
        }
    }
    let played: usize = by_settings.values().map(Vec::len).sum();
    assert!(played >= 30, "only {played} dialogs were played");
    let mut complaints = Vec::new();
    for (settings, dialogs) in by_settings {
        let dir = tempfile::tempdir().unwrap();
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let server = Server::start(dir.path(), &settings);
        for dialog in &dialogs {
            play(dialog, server.smtp, &mut complaints);
        }
        server.terminate();
        assert!(server.wait().success());
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}
