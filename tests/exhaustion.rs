//! Floods of connections that do nothing, or begin and stop: what they cost is
//! bounded and measured, others are told so, and it is over when they are.

mod support;

use std::net::{SocketAddr, TcpStream};

use ringpost::io::process;
use support::process::Server;
use support::raw::Raw;

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

/// The reply to DATA.
fn data(raw: &mut Raw) -> String {
    assert!(raw.ask("MAIL FROM:<s@a.example>").starts_with("250 "));
    assert!(raw.ask("RCPT TO:<r@b.example>").starts_with("250 "));
    raw.ask("DATA")
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
            assert_eq!(reply, "452 4.3.1 short of memory (limits.receive_memory), try again later");
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
