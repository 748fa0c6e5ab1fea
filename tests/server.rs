//! Whole-server runs: a process of `ringpost serve`, a client and a next hop on
//! loopback.

mod support;

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::peer::{Client, Got, NextHop};
use support::process::Server;

fn route_to(hop: SocketAddr) -> String {
    format!(r#"route=[{{domain="*", next_hop=["{hop}"]}}]"#)
}

fn simple(name: &str) -> Vec<u8> {
    format!("Subject: {name}\r\nX-Test: {name}\r\n\r\nHello\r\n.dot\r\n").into_bytes()
}

fn is(got: &Got, name: &str) -> bool {
    support::peer::header(&got.body, "X-Test").as_deref() == Some(name)
}

#[test]
fn a_message_goes_from_client_to_next_hop_and_leaves_the_queue() {
    let dir = tempfile::tempdir().unwrap();
    let hop = NextHop::start();
    let server = Server::start(dir.path(), &[&route_to(hop.address)]);
    let mut client = Client::connect(server.smtp).unwrap();
    let reply = client.message("a@x.test", &["b@y.test", "c@y.test"], &simple("one")).unwrap();
    let id = reply.strip_prefix("250 2.0.0 Ok: queued as ").expect(&reply).trim();
    let got = &hop.wait(|got| got.len() == 1)[0];
    assert_eq!(
        (got.sender.as_str(), got.recipients.as_slice()),
        ("a@x.test", ["b@y.test".into(), "c@y.test".into()].as_slice())
    );
    let text = String::from_utf8(got.body.clone()).unwrap();
    assert!(
        text.starts_with("Received: from client.test ([127.0.0.1])\r\n\tby relay.test"),
        "{text}"
    );
    assert!(text.contains(&format!(" id {id}")), "{text}");
    assert!(text.ends_with("X-Test: one\r\n\r\nHello\r\n.dot\r\n"), "{text}");
    let line = server.wait_log(|line| line.contains("delivered"));
    assert!(line.contains(id), "{line}");
    assert!(server.get("/healthz").starts_with("HTTP/1.1 200"));
    wait_for(|| server.get("/metrics").contains("ringpost_queued_messages{shard=\"0\"} 0"));
    server.terminate();
    assert!(server.wait().success());
}

#[test]
fn the_priority_of_a_message_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let hop = NextHop::start();
    let server = Server::start(dir.path(), &[&route_to(hop.address)]);
    let mut client = Client::connect(server.smtp).unwrap();
    for command in ["MAIL FROM:<a@x.test> MT-PRIORITY=-3", "RCPT TO:<b@y.test>"] {
        assert!(client.command(command).unwrap().starts_with("250 "), "{command}");
    }
    assert!(client.command("DATA").unwrap().starts_with("354 "));
    client.send(&[&simple("low")[..], b".\r\n"].concat()).unwrap();
    assert!(client.reply().unwrap().starts_with("250 "));
    let got = &hop.wait(|got| got.len() == 1)[0];
    let text = String::from_utf8_lossy(&got.body);
    assert!(text.contains("\r\n\tfor <b@y.test>\r\n\tPRIORITY -3;\r\n\t"), "{text}");
    server.wait_log(|line| line.contains(" accepted ") && line.contains(" priority=-3 "));
    client.message("a@x.test", &["b@y.test"], &simple("plain")).unwrap();
    let got = &hop.wait(|got| got.len() == 2)[1];
    assert!(!String::from_utf8_lossy(&got.body).contains("PRIORITY"));
}

/// Asks until it is so; what is waited for has happened, its report follows.
fn wait_for(so: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + support::peer::PATIENCE;
    while !so() {
        assert!(std::time::Instant::now() < deadline, "it never came to be so");
        std::thread::yield_now();
    }
}

#[test]
fn replies_to_a_pipelined_batch_come_in_one_write() {
    let dir = tempfile::tempdir().unwrap();
    let hop = NextHop::start();
    let server = Server::start(dir.path(), &[&route_to(hop.address)]);
    let mut stream = TcpStream::connect(server.smtp).unwrap();
    stream.set_read_timeout(Some(support::peer::PATIENCE)).unwrap();
    let mut buf = [0; 4096];
    assert!(stream.read(&mut buf).unwrap() > 0);
    std::io::Write::write_all(&mut stream, b"EHLO c.test\r\n").unwrap();
    let mut len = 0;
    while !String::from_utf8_lossy(&buf[..len]).contains("250 HELP\r\n") {
        len += stream.read(&mut buf[len..]).unwrap();
    }
    let batch = b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nRCPT TO:<c@y.test>\r\nDATA\r\n";
    std::io::Write::write_all(&mut stream, batch).unwrap();
    let len = stream.read(&mut buf).unwrap();
    let text = String::from_utf8_lossy(&buf[..len]);
    assert!(text.ends_with("\r\n") && text.contains("\r\n354 "), "not the whole batch: {text}");
}

#[test]
fn a_large_message_streams_through_undamaged() {
    let dir = tempfile::tempdir().unwrap();
    let hop = NextHop::start();
    let server = Server::start(dir.path(), &[&route_to(hop.address)]);
    let mut message = simple("large");
    for line in 0..60_000 {
        message.extend_from_slice(format!(".{line:060}\r\n").as_bytes());
    }
    let mut client = Client::connect(server.smtp).unwrap();
    let reply = client.message("a@x.test", &["b@y.test"], &message).unwrap();
    assert!(reply.starts_with("250"), "{reply}");
    // The session goes on as before.
    assert!(
        client.message("a@x.test", &["b@y.test"], &simple("after")).unwrap().starts_with("250")
    );
    let got = hop.wait(|got| got.len() == 2);
    let large = got.iter().find(|got| is(got, "large")).unwrap();
    assert!(large.body.ends_with(&message), "damaged on the way");
}

#[test]
fn a_refused_recipient_gives_its_sender_a_report_and_a_deferred_one_is_retried() {
    let dir = tempfile::tempdir().unwrap();
    let tries = AtomicUsize::new(0);
    let hop = NextHop::with(move |recipient| match recipient {
        "bad@y.test" => Some("550 5.1.1 no such user here".into()),
        "busy@y.test" if tries.fetch_add(1, Ordering::SeqCst) < 2 => {
            Some("451 4.2.1 come again".into())
        }
        _ => None,
    });
    let settings = [&route_to(hop.address), r#"queue.retry=["1s"]"#];
    let server = Server::start(dir.path(), &settings);
    let mut client = Client::connect(server.smtp).unwrap();
    let to = ["bad@y.test", "good@y.test", "busy@y.test"];
    assert!(client.message("a@x.test", &to, &simple("mixed")).unwrap().starts_with("250"));
    let got = hop.wait(|got| got.len() == 3);
    let reached = |to: &str| {
        got.iter().any(|got| is(got, "mixed") && got.recipients.contains(&to.to_owned()))
    };
    assert!(reached("good@y.test") && reached("busy@y.test") && !reached("bad@y.test"));
    let report =
        got.iter().find(|got| got.sender.is_empty()).expect("a report with the null sender");
    assert_eq!(report.recipients, ["a@x.test"]);
    let text = String::from_utf8_lossy(&report.body);
    for part in [
        "multipart/report",
        "report-type=delivery-status",
        "Final-Recipient: rfc822;",
        "bad@y.test",
        "Status: 5.1.1",
        "no such user here",
        "Subject: mixed",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert!(!text.contains("good@y.test"), "the report names only what failed\n{text}");
}

/// The sum over the shards of a metric.
fn metric(server: &Server, name: &str) -> u64 {
    let text = server.get("/metrics");
    let values = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
    values.map(|(_, value)| value.parse::<u64>().unwrap()).sum()
}

#[test]
fn a_site_with_one_connection_gets_the_mail_of_all_cores() {
    let dir = tempfile::tempdir().unwrap();
    let hop = NextHop::start();
    let settings = [&route_to(hop.address), "delivery.connections_per_site=1", "cores=2"];
    let server = Server::start(dir.path(), &settings);
    let mut sent = 0;
    // The kernel spreads connections; some come to the core without the lane.
    while metric(&server, "ringpost_handed_off_total") == 0 {
        let mut client = Client::connect(server.smtp).unwrap();
        let name = format!("m{sent}");
        let reply = client.message("a@x.test", &["b@y.test"], &simple(&name)).unwrap();
        assert!(reply.starts_with("250"), "{reply}");
        sent += 1;
        assert!(sent < 200, "nothing was handed over");
    }
    hop.wait(|got| (0..sent).all(|n| got.iter().any(|got| is(got, &format!("m{n}")))));
    wait_for(|| metric(&server, "ringpost_recipients_delivered_total") == sent);
    wait_for(|| metric(&server, "ringpost_queued_messages") == 0);
    assert!(metric(&server, "ringpost_hand_off_batches_total") >= 2, "there and back");
}

#[test]
fn what_is_queued_survives_restarts_with_fewer_and_with_more_cores() {
    let dir = tempfile::tempdir().unwrap();
    // Nobody listens there until the server has been restarted.
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    drop(held);
    let route = route_to(address);
    let mut names: Vec<String> = Vec::new();
    for cores in ["cores=2", "cores=1", "cores=2", "cores=1"] {
        let server = Server::start(dir.path(), &[&route, r#"queue.retry=["1s"]"#, cores]);
        wait_for(|| metric(&server, "ringpost_queued_messages") == names.len() as u64);
        for n in 0..8 {
            // A connection each, so that all shards get some.
            let name = format!("m{}-{n}", names.len());
            let mut client = Client::connect(server.smtp).unwrap();
            let reply = client.message("a@x.test", &["b@y.test"], &simple(&name)).unwrap();
            assert!(reply.starts_with("250"), "{reply}");
            names.push(name);
        }
        server.kill();
    }
    let hop = NextHop::on(TcpListener::bind(address).unwrap(), |_| None);
    let _server = Server::start(dir.path(), &[&route, r#"queue.retry=["1s"]"#, "cores=2"]);
    let got = hop.wait(|got| names.iter().all(|name| got.iter().any(|got| is(got, name))));
    assert!(got.len() >= names.len());
}

#[test]
fn sigterm_lets_a_transaction_finish_and_turns_idle_sessions_away() {
    let dir = tempfile::tempdir().unwrap();
    let hop = NextHop::start();
    let server = Server::start(dir.path(), &[&route_to(hop.address)]);
    let idle = Client::connect(server.smtp).unwrap();
    let mut busy = Client::connect(server.smtp).unwrap();
    busy.command("MAIL FROM:<a@x.test>").unwrap();
    busy.command("RCPT TO:<b@y.test>").unwrap();
    assert!(busy.command("DATA").unwrap().starts_with("354"));
    server.terminate();
    let last = idle.rest().unwrap();
    assert!(last.starts_with("421 4.3.2"), "{last:?}");
    busy.send(&simple("late")).unwrap();
    busy.send(b".\r\n").unwrap();
    let reply = busy.reply().unwrap();
    assert!(reply.starts_with("250"), "{reply}");
    assert!(busy.rest().unwrap().starts_with("421 4.3.2"));
    assert!(server.wait().success());
    // Delivered before the end, or kept for the next start.
    let _server = Server::start(dir.path(), &[&route_to(hop.address)]);
    hop.wait(|got| got.iter().any(|got| is(got, "late")));
}

#[test]
fn a_bare_line_feed_never_makes_a_second_message() {
    let dir = tempfile::tempdir().unwrap();
    let hop = NextHop::start();
    let server = Server::start(dir.path(), &[&route_to(hop.address)]);
    let mut client = Client::connect(server.smtp).unwrap();
    for end in ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\n.\r"] {
        client.command("MAIL FROM:<a@x.test>").unwrap();
        client.command("RCPT TO:<b@y.test>").unwrap();
        client.command("DATA").unwrap();
        let smuggled =
            "MAIL FROM:<evil@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\nX-Test: evil\r\n\r\n";
        client.send(format!("X-Test: first\r\n\r\nhi{end}{smuggled}\r\n.\r\n").as_bytes()).unwrap();
        let reply = client.reply().unwrap();
        assert!(reply.starts_with("550 5.6.0"), "{end:?}: {reply}");
        assert!(client.command("NOOP").unwrap().starts_with("250"), "in step after {end:?}");
    }
    assert!(
        client.message("a@x.test", &["b@y.test"], &simple("clean")).unwrap().starts_with("250")
    );
    let got = hop.wait(|got| !got.is_empty());
    assert!(got.len() == 1 && is(&got[0], "clean"));
}

#[test]
fn size_is_bounded_when_it_is_declared_and_when_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let hop = NextHop::start();
    let settings = [&route_to(hop.address), r#"limits.message_size="1MiB""#];
    let server = Server::start(dir.path(), &settings);
    let mut client = Client::connect(server.smtp).unwrap();
    let reply = client.command("MAIL FROM:<a@x.test> SIZE=9999999").unwrap();
    assert!(reply.starts_with("552 5.3.4"), "{reply}");
    let mut message = simple("big");
    message.resize(2 << 20, b'x');
    message.extend_from_slice(b"\r\n");
    let reply = client.message("a@x.test", &["b@y.test"], &message).unwrap();
    assert!(reply.starts_with("552 5.3.4"), "{reply}");
    assert!(
        client.message("a@x.test", &["b@y.test"], &simple("small")).unwrap().starts_with("250")
    );
    let got = hop.wait(|got| !got.is_empty());
    assert!(got.len() == 1 && is(&got[0], "small"));
}

#[test]
fn a_looping_message_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let hop = NextHop::start();
    let server = Server::start(dir.path(), &[&route_to(hop.address)]);
    let mut client = Client::connect(server.smtp).unwrap();
    let hops = |count: usize| {
        let mut message = b"Received: by x\r\n".repeat(count);
        message.extend_from_slice(&simple("loop"));
        message
    };
    let reply = client.message("a@x.test", &["b@y.test"], &hops(101)).unwrap();
    assert!(reply.starts_with("554 5.4.6"), "{reply}");
    assert!(client.message("a@x.test", &["b@y.test"], &hops(100)).unwrap().starts_with("250"));
}

#[test]
fn a_silent_client_is_told_and_closed() {
    let dir = tempfile::tempdir().unwrap();
    let hop = NextHop::start();
    let settings = [&route_to(hop.address), r#"limits.command_timeout="1s""#];
    let server = Server::start(dir.path(), &settings);
    let client = Client::connect(server.smtp).unwrap();
    let last = client.rest().unwrap();
    assert!(last.starts_with("421 4.4.2"), "{last:?}");
}

#[test]
fn a_second_server_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(dir.path(), &[]);
    let output = second_server(dir.path());
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        error.contains("in use by another ringpost")
            && error.contains(&dir.path().display().to_string()),
        "{error}"
    );
}

fn second_server(dir: &Path) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_ringpost"))
        .args(["serve", "--set", &format!("data_dir={:?}", dir.display().to_string())])
        .args(["--set", r#"listener=[{address=["127.0.0.1:0"], kind="relay"}]"#])
        .args(["--set", r#"admin.http="off""#])
        .output()
        .unwrap()
}
