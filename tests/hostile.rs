//! Clients that do not behave, against a whole server: each meets its limit, is
//! told which, and costs nobody else anything.

mod support;

use std::io::{ErrorKind, Write};
use std::time::Duration;

use support::peer::PATIENCE;
use support::process::Server;
use support::raw::Raw;

fn start(settings: &[&str]) -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let discard = r#"route=[{domain="*", next_hop="discard"}]"#;
    let settings: Vec<&str> = settings.iter().copied().chain([discard]).collect();
    let server = Server::start(dir.path(), &settings);
    (dir, server)
}

/// A session that has said EHLO.
fn session(server: &Server) -> Raw {
    let mut raw = Raw::greeted(server.smtp);
    assert!(raw.ask("EHLO client.example").starts_with("250 "));
    raw
}

fn begin_data(raw: &mut Raw) {
    assert!(raw.ask("MAIL FROM:<s@a.example>").starts_with("250 "));
    assert!(raw.ask("RCPT TO:<r@b.example>").starts_with("250 "));
    assert!(raw.ask("DATA").starts_with("354 "));
}

fn sends_mail(raw: &mut Raw) {
    begin_data(raw);
    assert!(raw.ask("Subject: x\r\n\r\nx\r\n.").starts_with("250 "));
}

#[test]
fn who_speaks_before_the_greeting_is_turned_away() {
    let listener = r#"listener=[{address="127.0.0.1:0", greet_delay="500ms"}]"#;
    let (_dir, server) = start(&[listener]);
    let mut early = Raw::connect(server.smtp);
    early.send(b"EHLO client.example\r\n");
    let reply = early.hear();
    assert!(reply.starts_with("421 4.7.0 you spoke before the greeting"), "{reply}");
    assert!(early.is_closed());
    sends_mail(&mut session(&server));
    assert_eq!(server.metric("ringpost_sessions_ahead_total{"), 1);
    let (_dir, tolerant) = start(&[listener, "limits.commands_ahead=allow"]);
    let mut early = Raw::connect(tolerant.smtp);
    early.send(b"EHLO client.example\r\n");
    assert!(early.hear().starts_with("220 "));
    assert!(early.reply().starts_with("250 "));
}

#[test]
fn a_drain_does_not_wait_for_greetings_that_are_held_back() {
    let (_dir, server) = start(&[r#"listener=[{address="127.0.0.1:0", greet_delay="30s"}]"#]);
    let mut raw = Raw::connect(server.smtp);
    // Its session has begun when it is counted.
    while server.metric("ringpost_sessions{") == 0 {
        std::thread::yield_now();
    }
    server.terminate();
    assert_eq!(raw.hear(), "421 4.3.2 Shutting down, closing connection");
    assert!(server.wait().success());
}

#[test]
fn rates_are_kept_by_client_and_say_when_there_is_room() {
    let (_dir, server) = start(&[
        "limits.connection_rate_per_client=3/h",
        "limits.message_rate_per_client=2/h",
        "cores=2",
    ]);
    let mut first = session(&server);
    sends_mail(&mut first);
    sends_mail(&mut first);
    let reply = first.ask("MAIL FROM:<s@a.example>");
    assert!(
        reply.starts_with("451 4.7.1 more than 2/h messages from your address (limits.message_rate_per_client), try again in "),
        "{reply}"
    );
    // Whichever cores they come to.
    let mut second = session(&server);
    assert!(second.ask("MAIL FROM:<s@a.example>").starts_with("451 4.7.1 "));
    let _third = session(&server);
    let reply = Raw::connect(server.smtp).hear();
    assert!(
        reply.starts_with("421 4.7.0 more than 3/h connections from your address (limits.connection_rate_per_client), try again in "),
        "{reply}"
    );
    assert_eq!(server.metric("ringpost_messages_rate_limited_total{"), 2);
    assert_eq!(server.metric("ringpost_connections_rate_limited_total{"), 1);
    server.wait_log(|line| line.contains("turned away") && line.contains("3/h connections"));
    server.wait_log(|line| line.contains("refused") && line.contains("2/h messages"));
}

#[test]
fn users_have_their_rate_wherever_they_come_from() {
    let listener = r#"listener=[{address="127.0.0.1:0", xclient_from=["127.0.0.1"]}]"#;
    let (_dir, server) = start(&[listener, "limits.message_rate_per_user=1/h"]);
    let mut raw = Raw::greeted(server.smtp);
    for (source, reply) in
        [("192.0.2.1", "250 "), ("192.0.2.2", "451 4.7.1 more than 1/h messages of this user")]
    {
        assert!(raw.ask(&format!("XCLIENT ADDR={source} LOGIN=user")).starts_with("220 "));
        assert!(raw.ask("EHLO client.example").starts_with("250 "));
        let said = raw.ask("MAIL FROM:<s@a.example>");
        assert!(said.starts_with(reply), "{said}");
        raw.ask("RSET");
    }
    assert!(raw.ask("XCLIENT LOGIN=other").starts_with("220 "));
    assert!(raw.ask("EHLO client.example").starts_with("250 "));
    assert!(raw.ask("MAIL FROM:<s@a.example>").starts_with("250 "));
}

#[test]
fn the_unlimited_have_no_limits_by_client() {
    let (_dir, server) = start(&[
        "limits.connection_rate_per_client=1/h",
        "limits.message_rate_per_client=1/h",
        "limits.connections_per_client=1",
        r#"limits.unlimited=["127.0.0.0/8"]"#,
    ]);
    let mut sessions: Vec<Raw> = (0..3).map(|_| session(&server)).collect();
    sessions.iter_mut().for_each(sends_mail);
}

#[test]
fn recipients_that_a_stranger_may_not_send_to_are_counted() {
    let rules = ["access.relay_from=[]", r#"access.relay_domains=["b.example"]"#];
    let (_dir, server) = start(&rules);
    let mut raw = session(&server);
    assert!(raw.ask("MAIL FROM:<s@a.example>").starts_with("250 "));
    for (recipient, code) in [("r@c.example", "550 "), ("r@b.example", "250 "), ("r", "501 ")] {
        let reply = raw.ask(&format!("RCPT TO:<{recipient}>"));
        assert!(reply.starts_with(code), "{recipient}: {reply}");
    }
    assert_eq!(server.metric("ringpost_recipients_refused_total{"), 1);
}

#[test]
fn a_body_at_a_trickle_is_not_waited_for() {
    // The grace is as long as a pause may be.
    let (_dir, server) = start(&[r#"limits.data_timeout="1s""#, r#"limits.data_rate="1KiB""#]);
    let mut raw = session(&server);
    begin_data(&mut raw);
    let said = std::thread::scope(|scope| {
        let mut writer = raw.sender();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            // Never a pause of `data_timeout`, nor `data_rate`.
            while stopped.recv_timeout(Duration::from_millis(100)).is_err()
                && writer.write_all(b"x").is_ok()
            {}
        });
        let said = raw.hear();
        let _ = stop.send(());
        said
    });
    assert_eq!(said, "421 4.7.0 data comes at less than 1024 bytes a second (limits.data_rate)");
    assert_eq!(server.metric("ringpost_sessions_slow_total{"), 1);
    server.wait_log(|line| line.contains("data too slow"));
}

#[test]
fn a_command_at_a_trickle_has_the_time_of_one_command() {
    let (_dir, server) = start(&[r#"limits.command_timeout="1s""#]);
    let mut raw = session(&server);
    let said = std::thread::scope(|scope| {
        let mut writer = raw.sender();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            while stopped.recv_timeout(Duration::from_millis(100)).is_err()
                && writer.write_all(b"N").is_ok()
            {}
        });
        let said = raw.hear();
        let _ = stop.send(());
        said
    });
    assert_eq!(said, "421 4.4.2 Timeout, closing connection");
}

#[test]
fn who_never_reads_replies_is_cut_off() {
    let (_dir, server) =
        start(&[r#"limits.command_timeout="500ms""#, "limits.commands_without_mail=1000000"]);
    let raw = session(&server);
    let mut deaf = raw.sender();
    deaf.set_write_timeout(Some(PATIENCE)).unwrap();
    let commands = b"HELP\r\n".repeat(1000);
    let before = server.memory().0;
    // Until the server has closed: its replies fill what the kernel holds, and then
    // it takes no more commands.
    let end = loop {
        match deaf.write_all(&commands) {
            Ok(()) => {}
            Err(error) => break error.kind(),
        }
    };
    assert!(matches!(end, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{end}");
    server.wait_log(|line| line.contains("does not read replies"));
    assert_eq!(server.metric("ringpost_sessions_deaf_total{"), 1);
    let grown = server.memory().0.saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes");
    sends_mail(&mut session(&server));
}

#[test]
fn commands_without_mail_and_ahead_end_sessions_and_are_counted() {
    let (_dir, server) = start(&["limits.commands_without_mail=10"]);
    let mut raw = session(&server);
    for _ in 0..9 {
        assert!(raw.ask("NOOP").starts_with("250 "));
    }
    let reply = raw.ask("NOOP");
    assert!(reply.contains("limits.commands_without_mail"), "{reply}");
    assert!(raw.is_closed());
    let mut raw = Raw::greeted(server.smtp);
    raw.send(b"HELO me\r\nMAIL FROM:<s@a.example>\r\n");
    let reply = raw.hear();
    assert!(reply.contains("limits.commands_ahead"), "{reply}");
    server.wait_log(|line| line.contains("too many commands without mail"));
    server.wait_log(|line| line.contains("commands sent ahead"));
    assert_eq!(server.metric("ringpost_sessions_idle_commands_total{"), 1);
    assert_eq!(server.metric("ringpost_sessions_ahead_total{"), 1);
}
