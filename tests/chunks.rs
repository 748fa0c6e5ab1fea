//! Messages in chunks through a whole server: what is relayed is what was sent,
//! memory does not follow the size of chunks, and of a message that is not finished
//! nothing is left.

mod support;

use std::path::Path;

use support::peer::{Client, NextHop};
use support::process::Server;

const MIB: usize = 1 << 20;

fn begun(server: &Server, parameters: &str) -> Client {
    let mut client = Client::connect(server.smtp).unwrap();
    for command in [&*format!("MAIL FROM:<a@x.test>{parameters}"), "RCPT TO:<b@y.test>"] {
        assert!(client.command(command).unwrap().starts_with("250"));
    }
    client
}

/// Sends a chunk and returns what is said.
fn chunk(client: &mut Client, octets: &[u8], last: &str) -> String {
    client.send(format!("BDAT {}{last}\r\n", octets.len()).as_bytes()).unwrap();
    client.send(octets).unwrap();
    client.reply().unwrap()
}

fn started(dir: &Path, hop: &NextHop) -> Server {
    let route = format!(r#"route=[{{domain="*", next_hop=["{}"]}}]"#, hop.address);
    Server::start(dir, &[&route, r#"limits.message_size="1GiB""#])
}

#[test]
fn text_in_chunks_is_relayed_as_it_came() {
    let dir = tempfile::tempdir().unwrap();
    let hop = NextHop::start();
    let server = started(dir.path(), &hop);
    let text = b"Subject: chunks\r\n\r\n.\r\n..two\r\n\r\n.\r\nMAIL FROM:<evil@x.test>\r\n.\r\n";
    for size in [1, 7, text.len()] {
        let mut client = begun(&server, "");
        for piece in text.chunks(size) {
            assert!(chunk(&mut client, piece, "").starts_with("250 2.0.0"));
        }
        assert!(chunk(&mut client, b"", " LAST").starts_with("250 2.0.0 Ok: queued"));
    }
    let got = hop.wait(|got| got.len() == 3);
    for message in &got {
        assert_eq!(message.sender, "a@x.test");
        assert!(message.body.ends_with(text), "{:?}", String::from_utf8_lossy(&message.body));
    }
    server.terminate();
    assert!(server.wait().success());
}

#[test]
fn a_chunk_larger_than_memory_streams_to_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(
        dir.path(),
        &[
            r#"route=[{domain="*", next_hop="discard"}]"#,
            r#"limits.message_size="1GiB""#,
            r#"queue.segment_size="64MiB""#,
        ],
    );
    let (before, _) = server.memory();
    let piece = b".a line of text that begins with a dot, as stuffed ones do\r\n".repeat(4096);
    let count = 300 * MIB / piece.len();
    let mut client = begun(&server, "");
    client.send(format!("BDAT {} LAST\r\n", count * piece.len()).as_bytes()).unwrap();
    for _ in 0..count {
        client.send(&piece).unwrap();
    }
    assert!(client.reply().unwrap().starts_with("250 2.0.0 Ok: queued"));
    let grown = server.memory().1 - before;
    assert!(grown < 48 * MIB as u64, "{} KiB more than before", grown / 1024);
}

#[test]
fn nothing_is_left_of_a_message_that_is_killed_amid_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let hop = NextHop::start();
    let server = started(dir.path(), &hop);
    let part = b"a line\r\n".repeat(100_000);
    // One that goes away, one that thinks better of it, one that the server does not
    // outlive.
    drop({
        let mut client = begun(&server, "");
        assert!(chunk(&mut client, &part, "").starts_with("250"));
        client
    });
    let mut client = begun(&server, "");
    assert!(chunk(&mut client, &part, "").starts_with("250"));
    assert!(client.command("RSET").unwrap().starts_with("250"));
    let mut client = begun(&server, " BODY=BINARYMIME");
    assert!(chunk(&mut client, &part, "").starts_with("250"));
    server.kill();
    let server = started(dir.path(), &hop);
    let mut client = begun(&server, "");
    assert!(chunk(&mut client, b"Subject: whole\r\n\r\n", " LAST").starts_with("250"));
    let got = hop.wait(|got| !got.is_empty());
    assert!(got.len() == 1 && got[0].body.ends_with(b"Subject: whole\r\n\r\n"));
    server.wait_log(|line| line.contains("delivered"));
    assert!(server.get("/metrics").contains("ringpost_queued_messages"));
    assert_eq!(server.metric("ringpost_queued_messages"), 0);
    server.terminate();
    assert!(server.wait().success());
}
