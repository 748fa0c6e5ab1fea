//! Floods of connections that do nothing, or begin and stop: what they cost is
//! bounded and measured, others are told so, and it is over when they are.

mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use ringpost::io::process;
use support::authority::Authority;
use support::process::Server;
use support::raw::Raw;
use support::tls::{self, Secure, say};

const MIB: u64 = 1 << 20;
/// `limits.receive_memory` here: the least that can be set.
const LIMIT: u64 = 16 * MIB;
/// What the process may take besides for so many sessions: their tasks where the
/// compiler does not optimise, and what the allocator holds.
const SLACK: u64 = 24 * MIB;

fn start(more: &[&str]) -> (tempfile::TempDir, Server) {
    process::raise_open_files().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        r#"route=[{domain="*", next_hop="discard"}]"#,
        r#"limits.receive_memory="16MiB""#,
        "limits.connections_per_client=100000",
    ];
    let settings: Vec<&str> = settings.into_iter().chain(more.iter().copied()).collect();
    let server = Server::start(dir.path(), &settings);
    (dir, server)
}

fn session(server: SocketAddr) -> Raw {
    let mut raw = Raw::greeted(server);
    assert!(raw.ask("EHLO client.example").starts_with("250 "));
    raw
}

const SHORT: &str = "452 4.3.1 short of memory (limits.receive_memory), try again later";

fn addressed(raw: &mut Raw) {
    assert!(raw.ask("MAIL FROM:<s@a.example>").starts_with("250 "));
    assert!(raw.ask("RCPT TO:<r@b.example>").starts_with("250 "));
}

/// The reply to DATA.
fn data(raw: &mut Raw) -> String {
    addressed(raw);
    raw.ask("DATA")
}

/// The reply to a chunk.
fn chunk(raw: &mut Raw, octets: &[u8], last: &str) -> String {
    raw.send(format!("BDAT {}{last}\r\n", octets.len()).as_bytes());
    raw.send(octets);
    raw.reply()
}

/// Holds what the server has grown by, and what it says that it holds, against the
/// limit.
fn assert_bounded(server: &Server, before: u64) {
    let used = server.metric("ringpost_receive_memory_bytes{");
    let grown = server.memory().0.saturating_sub(before);
    println!("{used} bytes counted, {grown} bytes of memory more");
    assert!(used <= LIMIT, "{used} bytes counted");
    assert!(grown < LIMIT + SLACK, "{grown} bytes");
}

/// Waits until nothing is held for anybody, and sends a message.
fn assert_recovers(server: &Server) {
    until("all is given back", || server.metric("ringpost_receive_memory_bytes{") == 0);
    let mut raw = session(server.smtp);
    assert!(data(&mut raw).starts_with("354 "));
    assert!(raw.ask("x\r\n.").starts_with("250 "));
}

fn until(what: &str, mut wanted: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !wanted() {
        assert!(begun.elapsed() < support::peer::PATIENCE, "{what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn connections_that_send_nothing_cost_what_they_are_allowed_to() {
    let (_dir, server) = start(&[]);
    session(server.smtp);
    let before = server.memory().0;
    let mut idle = Vec::new();
    let refusal = loop {
        let mut raw = Raw::connect(server.smtp);
        let greeting = raw.hear();
        if !greeting.starts_with("220 ") {
            break greeting;
        }
        idle.push(raw);
        assert!(idle.len() < 10_000, "nothing bounds them");
    };
    assert_eq!(refusal, "421 4.3.2 short of memory (limits.receive_memory), try again later");
    assert!(idle.len() >= 4000, "{} sessions of 4 KiB fit", idle.len());
    let used = server.metric("ringpost_receive_memory_bytes{");
    assert!(used <= LIMIT, "{used}");
    let grown = server.memory().0.saturating_sub(before);
    println!("{} idle sessions: {} bytes each", idle.len(), grown / idle.len() as u64);
    assert!(grown < LIMIT + SLACK, "{grown} bytes");
    assert!(server.metric("ringpost_connections_shed_total{") >= 1);
    // Who is in goes on.
    let first = &mut idle[0];
    assert!(first.ask("EHLO client.example").starts_with("250 "));
    drop(idle);
    until("the sessions end", || server.metric("ringpost_receive_memory_bytes{") < MIB);
    let mut raw = session(server.smtp);
    assert!(data(&mut raw).starts_with("354 "));
    assert!(raw.ask("x\r\n.").starts_with("250 "));
}

#[test]
fn bodies_that_stop_cost_what_they_are_allowed_to() {
    let (_dir, server) = start(&[]);
    let before = server.memory().0;
    let mut sessions: Vec<Raw> = (0..600).map(|_| session(server.smtp)).collect();
    let (mut begun, mut put_off) = (0u64, 0u64);
    for raw in &mut sessions {
        let reply = data(raw);
        if reply.starts_with("354 ") {
            begun += 1;
            // More than any small buffer takes, and nothing behind it.
            raw.send(&[b'x'; 40_000]);
        } else {
            assert_eq!(reply, SHORT);
            put_off += 1;
        }
    }
    println!("{begun} bodies begun, {put_off} put off");
    assert!(begun >= 100 && put_off >= 300, "{begun} begun, {put_off} put off");
    assert!(server.metric("ringpost_receive_memory_bytes{") <= LIMIT);
    let grown = server.memory().0.saturating_sub(before);
    println!("{grown} bytes of memory more");
    assert!(grown < LIMIT + SLACK, "{grown} bytes");
    assert_eq!(server.metric("ringpost_messages_shed_total{"), put_off);
    drop(sessions);
    until("the bodies are given up", || server.metric("ringpost_receive_memory_bytes{") < MIB);
    let mut raw = session(server.smtp);
    assert!(data(&mut raw).starts_with("354 "));
    assert!(raw.ask("x\r\n.").starts_with("250 "));
}

#[test]
fn stalled_bodies_make_way_when_their_time_is_up() {
    let (_dir, server) = start(&[r#"limits.data_timeout="1s""#]);
    let mut stalled: Vec<Raw> = (0..300).map(|_| session(server.smtp)).collect();
    stalled.iter_mut().for_each(|raw| drop(data(raw)));
    let mut raw = session(server.smtp);
    assert!(raw.ask("MAIL FROM:<s@a.example>").starts_with("250 "));
    assert!(raw.ask("RCPT TO:<r@b.example>").starts_with("250 "));
    assert!(raw.ask("DATA").starts_with("452 "), "there is no room at first");
    until("the stalled ones are ended", || raw.ask("DATA").starts_with("354 "));
    assert!(raw.ask("x\r\n.").starts_with("250 "));
}

#[test]
fn a_large_body_passes_in_small_parts_when_memory_is_short() {
    let (_dir, server) = start(&[]);
    let mut stalled: Vec<Raw> = (0..210).map(|_| session(server.smtp)).collect();
    stalled.iter_mut().for_each(|raw| assert!(data(raw).starts_with("354 ")));
    let mut raw = session(server.smtp);
    assert!(data(&mut raw).starts_with("354 "));
    raw.send(
        &b"0123456789012345678901234567890123456789012345678901234567890123456789\r\n"
            .repeat(20_000),
    );
    assert!(raw.ask(".").starts_with("250 "));
    assert!(server.metric("ringpost_receive_memory_bytes{") <= LIMIT);
}

#[test]
fn connections_past_the_limit_are_turned_away_while_there_are_so_many() {
    let (_dir, server) = start(&["limits.connections=50"]);
    let open: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(server.smtp).unwrap()).collect();
    until("all are in", || server.metric("ringpost_sessions{") == 50);
    let reply = Raw::connect(server.smtp).hear();
    assert_eq!(reply, "421 4.7.0 too many connections (limits.connections), try again later");
    drop(open);
    until("they are gone", || server.metric("ringpost_sessions{") == 0);
    session(server.smtp);
}

/// Sessions that have sent one chunk of so many lines and wait: those that it was taken
/// from, and those that were put off.
fn amid_chunks(server: &Server, count: usize, lines: usize) -> (Vec<Raw>, Vec<Raw>) {
    let part = b"0123456789012345678901234567890123456789012345678901234567890\r\n".repeat(lines);
    let sessions: Vec<Raw> = (0..count).map(|_| session(server.smtp)).collect();
    let (mut begun, mut put_off) = (Vec::new(), Vec::new());
    for mut raw in sessions {
        addressed(&mut raw);
        let reply = chunk(&mut raw, &part, "");
        if reply.starts_with("250 ") {
            begun.push(raw);
        } else {
            assert_eq!(reply, SHORT);
            put_off.push(raw);
        }
    }
    println!("{} messages begun, {} put off", begun.len(), put_off.len());
    (begun, put_off)
}

#[test]
fn messages_that_stop_between_large_chunks_go_to_the_log_when_memory_is_short() {
    let (_dir, server) = start(&[]);
    let before = server.memory().0;
    // More than fits three times over.
    let (mut begun, put_off) = amid_chunks(&server, 900, 950);
    assert!(put_off.is_empty(), "{} put off", put_off.len());
    assert_bounded(&server, before);
    // Those whose parts are in memory and those whose parts are in the log end well.
    for at in [0, 899] {
        let reply = chunk(&mut begun[at], b"the end\r\n", " LAST");
        assert!(reply.starts_with("250 2.0.0 Ok: queued"), "{at}: {reply}");
    }
    drop(begun);
    assert_recovers(&server);
}

#[test]
fn messages_that_stop_between_small_chunks_cost_what_they_are_allowed_to() {
    let (_dir, server) = start(&[]);
    let before = server.memory().0;
    let (mut begun, mut put_off) = amid_chunks(&server, 1600, 120);
    assert!(begun.len() >= 500 && put_off.len() >= 100);
    assert_bounded(&server, before);
    assert_eq!(server.metric("ringpost_messages_shed_total{"), put_off.len() as u64);
    // Who has been put off may try again; who has not goes on.
    assert!(chunk(&mut put_off[0], b"x\r\n", " LAST").starts_with("503 5.5.1 "));
    assert!(put_off[0].ask("NOOP").starts_with("250 "));
    let reply = chunk(&mut begun[0], b"", " LAST");
    assert!(reply.starts_with("250 2.0.0 Ok: queued"), "{reply}");
    drop((begun, put_off));
    assert_recovers(&server);
}

#[test]
fn chunks_that_stop_cost_what_they_are_allowed_to() {
    let (_dir, server) = start(&[]);
    let before = server.memory().0;
    let mut stalled: Vec<Raw> = (0..400).map(|_| session(server.smtp)).collect();
    for raw in &mut stalled {
        addressed(raw);
        // More than both buffers take, and nothing behind it.
        raw.send(b"BDAT 1000000\r\n");
        raw.send(&b"0123456789\r\n".repeat(20_000));
    }
    until("there is no room", || server.metric("ringpost_messages_shed_total{") >= 100);
    assert_bounded(&server, before);
    drop(stalled);
    assert_recovers(&server);
}

#[test]
fn chunks_come_in_small_pieces_when_memory_is_short() {
    let (_dir, server) = start(&[]);
    let mut raw = session(server.smtp);
    addressed(&mut raw);
    let part = b"0123456789012345678901234567890123456789012345678901234567890\r\n".repeat(500);
    assert!(chunk(&mut raw, &part, "").starts_with("250 "));
    // Others take all the room for bodies.
    let mut stalled = Vec::new();
    loop {
        let mut other = session(server.smtp);
        if !data(&mut other).starts_with("354 ") {
            break;
        }
        stalled.push(other);
    }
    // What is left is enough to go on.
    for _ in 0..10 {
        let reply = chunk(&mut raw, &part, "");
        assert!(reply.starts_with("250 "), "{reply}");
    }
    assert!(chunk(&mut raw, b"", " LAST").starts_with("250 2.0.0 Ok: queued"));
    assert!(server.metric("ringpost_receive_memory_bytes{") <= LIMIT);
}

#[test]
fn recipients_that_are_kept_waiting_cost_what_they_are_allowed_to() {
    let (_dir, server) = start(&["limits.commands_ahead=allow"]);
    let before = server.memory().0;
    let long = "x".repeat(400);
    let commands: String =
        (0..500).map(|at| format!("RCPT TO:<{at}@b.example> ORCPT=rfc822;{long}@b\r\n")).collect();
    let mut sessions = Vec::new();
    let mut refused = 0;
    while refused == 0 {
        let mut raw = session(server.smtp);
        assert!(raw.ask("MAIL FROM:<s@a.example>").starts_with("250 "));
        raw.send(commands.as_bytes());
        for _ in 0..500 {
            let reply = raw.reply();
            if !reply.starts_with("250 ") {
                assert_eq!(reply, SHORT);
                refused += 1;
            }
        }
        sessions.push(raw);
        assert!(sessions.len() < 500, "nothing bounds them");
    }
    println!("{} transactions of 500 recipients", sessions.len());
    assert_bounded(&server, before);
    assert_eq!(server.metric("ringpost_messages_shed_total{"), refused);
    assert_eq!(server.metric("ringpost_recipients_refused_total{"), 0, "that is for policy");
    drop(sessions);
    assert_recovers(&server);
}

fn over_tls(kind: &str) -> (tempfile::TempDir, Server) {
    let listener = format!(r#"listener=[{{address="127.0.0.1:0", tls="{kind}"}}]"#);
    let dir = tempfile::tempdir().unwrap();
    let certificate = Authority::new().files(dir.path(), "relay.test").setting();
    start(&[&certificate, &listener])
}

#[test]
fn tls_connections_are_counted_for_what_they_hold() {
    let (_dir, server) = over_tls("optional");
    let config = tls::anybody();
    drop(tls::started(server.smtp, &config, "relay.test"));
    until("it is gone", || server.metric("ringpost_receive_memory_bytes{") == 0);
    let before = server.memory().0;
    let mut open: Vec<Secure> = Vec::new();
    let refusal = loop {
        let mut stream = tls::plain(server.smtp);
        let greeting = tls::reply(&mut stream).unwrap();
        if !greeting.starts_with("220 ") {
            break greeting;
        }
        say(&mut stream, "EHLO client.test").unwrap();
        let reply = say(&mut stream, "STARTTLS").unwrap();
        if !reply.starts_with("220 ") {
            // The session goes on in the clear.
            assert!(say(&mut stream, "NOOP").unwrap().starts_with("250 "));
            break reply;
        }
        let mut secure = tls::over(stream, &config, "relay.test");
        assert!(say(&mut secure, "EHLO client.test").unwrap().starts_with("250-"));
        open.push(secure);
        assert!(open.len() < 2000, "nothing bounds them");
    };
    assert_eq!(refusal, "454 4.7.0 TLS is not available just now\r\n");
    println!("{} TLS connections", open.len());
    let each = LIMIT / open.len() as u64;
    assert!((10_000..14_000).contains(&each), "{each} bytes are counted for one");
    assert_bounded(&server, before);
    server.wait_log(|line| line.contains("tls failed") && line.contains("short of memory"));
    assert!(say(&mut open[0], "NOOP").unwrap().starts_with("250 "));
    drop(open);
    assert_recovers(&server);
}

#[test]
fn records_that_stop_cost_what_they_are_allowed_to() {
    let (_dir, server) = over_tls("implicit");
    let config = tls::anybody();
    let before = server.memory().0;
    let mut open: Vec<Secure> = (0..500)
        .map(|_| {
            let mut secure = tls::over(tls::plain(server.smtp), &config, "relay.test");
            assert!(tls::reply(&mut secure).unwrap().starts_with("220 "));
            secure
        })
        .collect();
    for secure in &mut open {
        // All of a record but its last octet.
        secure.conn.writer().write_all(&[b'x'; 16_384]).unwrap();
        let mut record = Vec::new();
        while secure.conn.wants_write() {
            secure.conn.write_tls(&mut record).unwrap();
        }
        secure.sock.write_all(&record[..record.len() - 1]).unwrap();
    }
    until("there is no room", || server.metric("ringpost_sessions_shed_total{") >= 100);
    assert_bounded(&server, before);
    // Who found no room is told.
    let told = open.iter_mut().find_map(|secure| {
        secure.sock.set_nonblocking(true).unwrap();
        tls::reply(secure).ok()
    });
    let expected = "421 4.3.2 short of memory (limits.receive_memory), try again later\r\n";
    assert_eq!(told.as_deref(), Some(expected));
    drop(open);
    until("all is given back", || server.metric("ringpost_receive_memory_bytes{") == 0);
    let mut secure = tls::over(tls::plain(server.smtp), &config, "relay.test");
    assert!(tls::reply(&mut secure).unwrap().starts_with("220 "));
    for (line, code) in [
        ("EHLO client.test", "250"),
        ("MAIL FROM:<s@a.example>", "250 "),
        ("RCPT TO:<r@b.example>", "250 "),
        ("DATA", "354 "),
        ("x\r\n.", "250 "),
    ] {
        let reply = say(&mut secure, line).unwrap();
        assert!(reply.starts_with(code), "{line}: {reply}");
    }
}
