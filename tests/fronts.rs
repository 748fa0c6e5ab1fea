//! Proxies and filters in front of a whole server: the PROXY protocol, XCLIENT and
//! XFORWARD from hosts that may speak it, and from those that may not.

mod support;

use std::io::Write;
use std::net::SocketAddr;

use support::authority::Authority;
use support::process::Server;
use support::raw::Raw;
use support::tls::{self, say};

/// Only recipients of `here.example` are taken, unless the client is 192.0.2.7.
const RULES: [&str; 4] = [
    r#"access.relay_from=["192.0.2.7", "2001:db8:7::/48"]"#,
    r#"access.relay_domains=["here.example"]"#,
    r#"route=[{domain="*", next_hop="discard"}]"#,
    r#"limits.command_timeout="700ms""#,
];

fn start(listener: &str) -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let listener = format!(r#"listener=[{{address="127.0.0.1:0", {listener}}}]"#);
    let settings: Vec<&str> = RULES.into_iter().chain([&*listener]).collect();
    let server = Server::start(dir.path(), &settings);
    (dir, server)
}

fn behind_proxies() -> (tempfile::TempDir, Server) {
    start(r#"proxy_protocol=true, proxy_from=["127.0.0.0/8"]"#)
}

/// Whether a session that was greeted may relay to anybody.
fn relays(raw: &mut Raw) -> bool {
    assert!(raw.ask("EHLO client.example").starts_with("250 "));
    assert!(raw.ask("MAIL FROM:<s@a.example>").starts_with("250 "));
    assert!(raw.ask("RCPT TO:<r@here.example>").starts_with("250 "));
    let reply = raw.ask("RCPT TO:<r@other.example>");
    assert!(["250 2.1.5 Ok", "550 5.7.1 Relaying denied"].contains(&&*reply), "{reply}");
    reply.starts_with("250")
}

/// A header of version 2.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([command, family]);
    header.extend((body.len() as u16).to_be_bytes());
    header.extend(body);
    header
}

fn v2_of(source: [u8; 4]) -> Vec<u8> {
    v2(0x21, 0x11, &[&source[..], &[127, 0, 0, 1, 4, 1, 0, 25]].concat())
}

/// What a server behind proxies makes of a header: a session that relays or not,
/// or the line that it was refused with.
fn after(server: SocketAddr, header: &[u8]) -> Result<bool, String> {
    let mut raw = Raw::connect(server);
    raw.send(header);
    let greeting = raw.hear();
    match greeting.starts_with("220 ") {
        true => Ok(relays(&mut raw)),
        false => {
            assert!(raw.is_closed());
            Err(greeting)
        }
    }
}

#[test]
fn the_client_is_the_one_that_the_header_names() {
    let (_dir, server) = behind_proxies();
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
    let extended = v2(
        0x21,
        0x11,
        &[&[192, 0, 2, 7, 127, 0, 0, 1, 0, 1, 0, 25][..], &[4, 7, 208], &[0; 2000]].concat(),
    );
    let mapped = "PROXY TCP6 ::ffff:192.0.2.7 ::1 1 25\r\n".as_bytes();
    for (header, relays) in [
        (&b"PROXY TCP4 192.0.2.7 127.0.0.1 1025 25\r\n"[..], true),
        (b"PROXY TCP4 192.0.2.8 127.0.0.1 1025 25\r\n", false),
        (b"PROXY TCP6 2001:db8:7::1 ::1 1025 25\r\n", true),
        (b"PROXY TCP6 2001:db8:8::1 ::1 1025 25\r\n", false),
        (mapped, true),
        (&v2_of([192, 0, 2, 7]), true),
        (&v2_of([198, 51, 100, 7]), false),
        (&extended, true),
        // Not known: a stranger, and so is the proxy for itself.
        (b"PROXY UNKNOWN\r\n", false),
        (longest.as_bytes(), false),
        (&v2(0x21, 0x00, b""), false),
        (&v2(0x21, 0x31, &[0; 216]), false),
        (&v2(0x20, 0x00, b""), false),
        (&v2_of([0, 0, 0, 0]), false),
    ] {
        assert_eq!(after(server.smtp, header), Ok(relays), "{}", header.escape_ascii());
    }
    let line =
        server.wait_log(|line| line.contains("introduced") && line.contains("2001:db8:7::1"));
    assert!(line.contains("by=PROXY") && line.contains("via=127.0.0.1:"), "{line}");
}

#[test]
fn what_the_proxy_itself_may_do_is_for_itself_alone() {
    let (_dir, server) = {
        let dir = tempfile::tempdir().unwrap();
        let listener =
            r#"listener=[{address="127.0.0.1:0", proxy_protocol=true, proxy_from=["127.0.0.1"]}]"#;
        let settings = [listener, RULES[1], RULES[2], r#"access.relay_from=["127.0.0.1"]"#];
        let server = Server::start(dir.path(), &settings);
        (dir, server)
    };
    assert_eq!(after(server.smtp, &v2(0x20, 0x00, b"")), Ok(true), "LOCAL");
    assert_eq!(after(server.smtp, b"PROXY UNKNOWN\r\n"), Ok(false));
    assert_eq!(after(server.smtp, &v2(0x21, 0x00, b"")), Ok(false));
    assert_eq!(after(server.smtp, &v2_of([192, 0, 2, 7])), Ok(false));
}

#[test]
fn a_header_may_come_in_pieces_and_smtp_right_behind_it_is_early() {
    let (_dir, server) = behind_proxies();
    let mut raw = Raw::connect(server.smtp);
    for octet in b"PROXY TCP4 192.0.2.7 127.0.0.1 1025 25\r\n" {
        raw.send(&[*octet]);
    }
    assert!(raw.hear().starts_with("220 "));
    assert!(relays(&mut raw));
    let mut early = Raw::connect(server.smtp);
    early.send(&[&v2_of([192, 0, 2, 7])[..], b"EHLO client.example\r\n"].concat());
    let reply = early.hear();
    assert!(reply.starts_with("421 4.7.0 you spoke before the greeting"), "{reply}");
}

#[test]
fn what_is_no_header_is_refused_and_nothing_believed() {
    let (_dir, server) = behind_proxies();
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(200));
    let mut count: u64 = 0;
    for header in [
        &b"EHLO client.example\r\n"[..],
        b"PROXY TCP4 192.0.2.7\r\nEHLO client.example\r\n",
        b"PROXY TCP9 192.0.2.7 127.0.0.1 1025 25\r\n",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 1025 99999\r\n",
        b"proxy TCP4 192.0.2.7 127.0.0.1 1025 25\r\n",
        long.as_bytes(),
        &v2(0x2f, 0x11, &[0; 12]),
        &v2(0x21, 0x11, &[0; 4]),
        &v2(0x21, 0x12, &[0; 12]),
        &v2(0x21, 0x00, &[0; 60_000]),
    ] {
        let reply = after(server.smtp, header).unwrap_err();
        assert!(reply.starts_with("421 4.7.0 ") || reply.is_empty(), "{reply}");
        count += 1;
    }
    assert_eq!(server.metric("ringpost_claims_refused_total{"), count);
    assert_eq!(server.metric("ringpost_recipients_refused_total{"), 0);
    server
        .wait_log(|line| line.contains("turned away") && line.contains("length that does not fit"));
}

#[test]
fn a_header_that_does_not_come_is_not_waited_for() {
    let (_dir, server) = behind_proxies();
    let starts: [&[u8]; 3] = [b"", b"PROXY TCP4 192.0.2.7", &v2_of([192, 0, 2, 7])[..15]];
    let mut slow: Vec<Raw> = starts
        .into_iter()
        .map(|start| {
            let mut raw = Raw::connect(server.smtp);
            raw.send(start);
            raw
        })
        .collect();
    for raw in &mut slow {
        assert_eq!(raw.hear(), "421 4.7.0 no whole PROXY header in time");
        assert!(raw.is_closed());
    }
    let cut = Raw::connect(server.smtp);
    cut.finish();
    server.wait_log(|line| line.contains("connection closed within the PROXY header"));
}

#[test]
fn a_header_from_elsewhere_is_refused_unread() {
    let (_dir, server) = start(r#"proxy_protocol=true, proxy_from=["192.0.2.1", "127.0.0.2"]"#);
    let reply = after(server.smtp, b"PROXY TCP4 192.0.2.7 127.0.0.1 1025 25\r\n").unwrap_err();
    let expected = "421 4.7.0 this port is for proxies, and your address is none of theirs";
    assert!(reply == expected || reply.is_empty(), "{reply}");
    let reply = Raw::connect(server.smtp).hear();
    assert_eq!(reply, expected);
    assert_eq!(server.metric("ringpost_claims_refused_total{"), 2);
    server.wait_log(|line| line.contains("turned away") && line.contains("client=127.0.0.1"));
    assert!(!server.log().contains("192.0.2.7"), "nothing of it is believed");
}

#[test]
fn a_header_where_none_is_expected_is_an_early_talkers() {
    let (_dir, server) = start(r#"kind="relay", greet_delay="2s""#);
    for header in [&b"PROXY TCP4 192.0.2.7 127.0.0.1 1025 25\r\n"[..], &v2_of([192, 0, 2, 7])] {
        let reply = after(server.smtp, header).unwrap_err();
        assert!(reply.starts_with("421 4.7.0 you spoke before the greeting"), "{reply}");
    }
    assert_eq!(server.metric("ringpost_sessions_ahead_total{"), 2);
}

#[test]
fn limits_are_those_of_the_client_behind_the_proxy() {
    let dir = tempfile::tempdir().unwrap();
    let listener =
        r#"listener=[{address="127.0.0.1:0", proxy_protocol=true, proxy_from=["127.0.0.1"]}]"#;
    let limits = ["limits.connections_per_client=1", "limits.connection_rate_per_client=3/h"];
    let settings: Vec<&str> = RULES[..3].iter().copied().chain([listener]).chain(limits).collect();
    let server = Server::start(dir.path(), &settings);
    let connect = |source| {
        let mut raw = Raw::connect(server.smtp);
        raw.send(&v2_of(source));
        let greeting = raw.hear();
        (raw, greeting)
    };
    let (first, greeting) = connect([192, 0, 2, 7]);
    assert!(greeting.starts_with("220 "));
    let (_, greeting) = connect([192, 0, 2, 7]);
    assert!(greeting.contains("limits.connections_per_client"), "{greeting}");
    let (_other, greeting) = connect([192, 0, 2, 8]);
    assert!(greeting.starts_with("220 "), "{greeting}");
    drop(first);
    let (_, greeting) = connect([192, 0, 2, 7]);
    // The third in an hour; the second had counted too.
    assert!(greeting.starts_with("220 ") || greeting.contains("connections_per_client"));
    let (_, greeting) = connect([192, 0, 2, 7]);
    assert!(greeting.starts_with("421 4.7.0 more than 3/h connections"), "{greeting}");
    assert_eq!(server.metric("ringpost_connections_rate_limited_total{"), 1);
}

#[test]
fn tls_begins_behind_the_header_where_it_is_implicit() {
    let dir = tempfile::tempdir().unwrap();
    let listener = r#"listener=[{address="127.0.0.1:0", tls="implicit", proxy_protocol=true, proxy_from=["127.0.0.1"]}]"#;
    let certificate = Authority::new().files(dir.path(), "relay.test").setting();
    let settings: Vec<&str> = RULES.into_iter().chain([listener, &certificate]).collect();
    let server = Server::start(dir.path(), &settings);
    let config = tls::anybody();
    for (header, relays) in [
        (&b"PROXY TCP4 192.0.2.7 127.0.0.1 1025 465\r\n"[..], true),
        (b"PROXY TCP4 192.0.2.8 127.0.0.1 1025 465\r\n", false),
        (&v2_of([192, 0, 2, 7]), true),
    ] {
        let mut secure = tls::over(tls::plain(server.smtp), &config, "relay.test");
        // In one write with the first of the handshake.
        let mut first = header.to_vec();
        secure.conn.write_tls(&mut first).unwrap();
        secure.sock.write_all(&first).unwrap();
        assert!(tls::reply(&mut secure).unwrap().starts_with("220 "));
        assert!(say(&mut secure, "EHLO client.example").unwrap().starts_with("250-"));
        assert!(say(&mut secure, "MAIL FROM:<s@a.example>").unwrap().starts_with("250 "));
        assert!(say(&mut secure, "RCPT TO:<r@here.example>").unwrap().starts_with("250 "));
        let reply = say(&mut secure, "RCPT TO:<r@other.example>").unwrap();
        assert_eq!(reply.starts_with("250 "), relays, "{reply}");
        assert!(say(&mut secure, "DATA").unwrap().starts_with("354 "));
        assert!(say(&mut secure, "Subject: x\r\n\r\n.").unwrap().starts_with("250 "));
    }
    for client in ["192.0.2.7", "192.0.2.8"] {
        let line = server.wait_log(|line| {
            line.contains("accepted") && line.contains(&format!("client=\"{client}\""))
        });
        assert!(line.contains("tls=TLS1.3"), "{line}");
    }
    assert_eq!(server.metric("ringpost_tls_handshakes_total{"), 3);
    // A handshake without a header is no header, and a header within TLS is early.
    let mut secure = tls::over(tls::plain(server.smtp), &config, "relay.test");
    assert!(secure.conn.complete_io(&mut secure.sock).is_err(), "no header, no handshake");
    assert_eq!(server.metric("ringpost_claims_refused_total{"), 1);
    let mut secure = tls::over(tls::plain(server.smtp), &config, "relay.test");
    secure.sock.write_all(&v2_of([192, 0, 2, 8])).unwrap();
    while secure.conn.is_handshaking() {
        if secure.conn.wants_write() {
            secure.conn.write_tls(&mut secure.sock).unwrap();
        } else {
            secure.conn.read_tls(&mut secure.sock).unwrap();
            secure.conn.process_new_packets().unwrap();
        }
    }
    // In one write with the last of the handshake.
    let header = b"PROXY TCP4 192.0.2.7 127.0.0.1 1025 465\r\n";
    secure.conn.writer().write_all(header).unwrap();
    let mut last = Vec::new();
    while secure.conn.wants_write() {
        secure.conn.write_tls(&mut last).unwrap();
    }
    secure.sock.write_all(&last).unwrap();
    let reply = tls::reply(&mut secure).unwrap();
    assert!(reply.starts_with("421 4.7.0 you spoke before the greeting"), "{reply}");
}

#[test]
fn xclient_makes_the_client_another_and_the_log_tells() {
    let (_dir, server) = start(r#"xclient_from=["127.0.0.1"]"#);
    let mut raw = Raw::greeted(server.smtp);
    assert!(!relays(&mut raw));
    raw.ask("RSET");
    let greeting = raw.ask("XCLIENT NAME=spike.example ADDR=192.0.2.7 PORT=99 HELO=the+2Bclient");
    assert!(greeting.starts_with("220 "), "{greeting}");
    assert!(relays(&mut raw));
    assert!(raw.ask("DATA").starts_with("354 "));
    assert!(raw.ask("Subject: x\r\n\r\n.").starts_with("250 "));
    let line = server.wait_log(|line| line.contains("accepted"));
    assert!(
        line.contains(r#"client="192.0.2.7""#) && line.contains(r#"helo="the+client""#),
        "{line}"
    );
    let line = server.wait_log(|line| line.contains("introduced"));
    let peer = raw.address();
    for part in
        ["client=192.0.2.7:99", "by=XCLIENT", r#"name="spike.example""#, &format!("via={peer}")]
    {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(raw.ask("XCLIENT ADDR=192.0.2.8").starts_with("220 "), "by the peer, not the client");
    assert!(!relays(&mut raw));
    raw.ask("RSET");
    assert!(raw.ask("XCLIENT LOGIN=somebody").starts_with("220 "));
    assert!(relays(&mut raw), "who has authenticated may relay");
    raw.ask("RSET");
    assert!(raw.ask("XCLIENT LOGIN=[UNAVAILABLE]").starts_with("220 "));
    assert!(!relays(&mut raw));
    raw.ask("RSET");
    assert!(raw.ask("XCLIENT ADDR=[UNAVAILABLE]").starts_with("220 "));
    assert!(!relays(&mut raw));
}

#[test]
fn who_is_named_by_xclient_is_held_to_the_senders_of_that_user() {
    let dir = tempfile::tempdir().unwrap();
    let users = format!("auth.users={:?}", dir.path().join("users").display().to_string());
    for (name, more) in [("alice", "alice@a.example"), ("bob", "bob@a.example")] {
        let mut add = assert_cmd::Command::new(env!("CARGO_BIN_EXE_ringpost"));
        add.args(["user", "add", name, "--sender", more, "--password-stdin", "--set", &users]);
        add.args(["--set", "hostname=relay.test"]).write_stdin("pencil").assert().success();
    }
    let listener = r#"listener=[{address="127.0.0.1:0", xclient_from=["127.0.0.1"]}]"#;
    let settings: Vec<&str> = RULES.into_iter().chain([listener, &*users]).collect();
    let server = Server::start(dir.path(), &settings);
    let mut raw = Raw::greeted(server.smtp);
    let mut sends = |claims: &str, sender: &str| {
        assert!(raw.ask(&format!("XCLIENT {claims}")).starts_with("220 "));
        assert!(raw.ask("EHLO client.example").starts_with("250 "));
        let reply = raw.ask(&format!("MAIL FROM:<{sender}>"));
        assert!(raw.ask("RSET").starts_with("250 "));
        assert!(reply.starts_with("250 ") || reply.starts_with("550 5.7.1 "), "{reply}");
        reply.starts_with("250 ")
    };
    assert!(sends("ADDR=198.51.100.1", "anybody@b.example"), "nobody in particular");
    assert!(sends("LOGIN=alice", "alice@a.example"));
    assert!(!sends("LOGIN=alice", "bob@a.example"));
    assert!(sends("LOGIN=ALICE", ""), "the null sender is everybody's");
    assert!(!sends("ADDR=198.51.100.2", "bob@a.example"), "still alice");
    assert!(sends("LOGIN=Bob", "bob@a.example"), "names are as with AUTH");
    assert!(!sends("LOGIN=mallory", "bob@a.example"), "a user that nobody knows has no senders");
    assert!(sends("LOGIN=[UNAVAILABLE]", "bob@a.example"));
}

#[test]
fn xclient_and_xforward_from_elsewhere_are_refused_and_logged() {
    let (_dir, server) = start(r#"xclient_from=["192.0.2.7"], xforward_from=["192.0.2.7"]"#);
    let mut raw = Raw::greeted(server.smtp);
    for command in ["XCLIENT ADDR=192.0.2.7 LOGIN=x", "XFORWARD ADDR=192.0.2.7"] {
        let verb = command.split(' ').next().unwrap();
        let expected = format!("550 5.7.0 {verb} is not permitted from your address");
        assert_eq!(raw.ask(command), expected);
        server.wait_log(|line| line.contains("refused") && line.contains(verb));
    }
    assert!(!relays(&mut raw));
    assert_eq!(server.metric("ringpost_claims_refused_total{"), 2);
    assert!(!server.log().contains("introduced"));
}

#[test]
fn who_a_proxy_speaks_for_may_speak_for_others_only_if_named() {
    let fronts = r#"proxy_protocol=true, proxy_from=["127.0.0.1"], xclient_from=["192.0.2.9"]"#;
    let (_dir, server) = start(fronts);
    for (source, reply) in [([192, 0, 2, 9], "220 "), ([127, 0, 0, 1], "550 5.7.0 ")] {
        let mut raw = Raw::connect(server.smtp);
        raw.send(&v2_of(source));
        assert!(raw.hear().starts_with("220 "));
        assert!(raw.ask("XCLIENT ADDR=192.0.2.7").starts_with(reply), "{source:?}");
    }
}

#[test]
fn xforward_is_told_for_the_next_message_alone() {
    let (_dir, server) = start(r#"xforward_from=["127.0.0.1"]"#);
    let mut raw = Raw::greeted(server.smtp);
    assert!(raw.ask("EHLO filter.example").starts_with("250 "));
    let mut send = |origin: &[&str], sender: &str| {
        for command in origin {
            assert_eq!(raw.ask(command), "250 2.0.0 Ok");
        }
        assert!(raw.ask(&format!("MAIL FROM:<{sender}@a.example>")).starts_with("250 "));
        assert!(raw.ask("RCPT TO:<r@here.example>").starts_with("250 "));
        assert!(raw.ask("RCPT TO:<r@other.example>").starts_with("550 "), "it decides nothing");
        assert!(raw.ask("DATA").starts_with("354 "));
        assert!(raw.ask("Subject: x\r\n\r\n.").starts_with("250 "));
        server.wait_log(|line| line.contains("accepted") && line.contains(sender))
    };
    let line = send(&["XFORWARD ADDR=192.0.2.7 NAME=[UNAVAILABLE]", "XFORWARD IDENT=4F2A"], "one");
    for part in [
        r#"client="127.0.0.1""#,
        r#"orig_client="192.0.2.7""#,
        r#"orig_name="unknown""#,
        r#"orig_id="4F2A""#,
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let line = send(&[], "two");
    assert!(!line.contains("orig_"), "{line}");
}
