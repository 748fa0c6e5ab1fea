//! The server as an operator runs it: the binary on real sockets and a real
//! disk, told what to do by signals, and asked how it is by every way there is.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// A test that waits longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server; killed if the test ends before it does.
struct Server {
    child: Child,
    lines: Receiver<String>,
    listening: String,
    http: String,
    queued: u64,
}

/// The binary, with `data` and `routed` (where all mail goes) as configured.
fn ringpost(config: &Path) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("ringpost"));
    command.args(["serve", "--log-format", "json", "-c"]).arg(config);
    command.env_remove("RINGPOST_LOG").stderr(Stdio::piped()).stdin(Stdio::null());
    command
}

/// A port on which nothing listens. The socket that has it is kept to the end of
/// the process, so that nobody else gets it.
fn nobody() -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    std::mem::forget(socket);
    address
}

/// Writes a configuration whose mail is to wait: nobody is at its next hop.
fn configure(dir: &Path) -> std::path::PathBuf {
    let nobody = nobody();
    let file = dir.join("ringpost.toml");
    let text = format!(
        "hostname = \"relay.example\"\ndata_dir = \"{}\"\ncores = 1\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\n\
         [[route]]\ndomain = \"*\"\nnext_hop = \"{nobody}\"\n\
         [limits]\nconnections = 100\n\
         [queue]\nsegment_size = \"1MiB\"\n\
         [admin]\nhttp = \"127.0.0.1:0\"\n",
        dir.join("data").display()
    );
    std::fs::write(&file, text).unwrap();
    file
}

impl Server {
    /// Starts the server and waits until it is ready.
    fn start(config: &Path) -> Server {
        let mut child = ringpost(config).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (said, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = said.send(line);
            }
        });
        let mut server =
            Server { child, lines, listening: String::new(), http: String::new(), queued: 0 };
        // Mail may be taken before the queue has been read, or the other way round.
        let found = server.wait_for_all(&["ready", "queue read"]);
        server.listening = found[0]["fields"]["listening"].as_str().unwrap().to_owned();
        server.http = found[0]["fields"]["http"].as_str().unwrap().to_owned();
        server.queued = found[1]["fields"]["queued"].as_u64().unwrap();
        server
    }

    /// The next log line whose message starts with `message`.
    #[track_caller]
    fn wait_for(&self, message: &str) -> Value {
        self.wait_for_all(&[message]).remove(0)
    }

    /// The next log lines whose messages start with each of `messages`, in
    /// whichever order they come.
    #[track_caller]
    fn wait_for_all(&self, messages: &[&str]) -> Vec<Value> {
        let mut found = vec![None; messages.len()];
        let mut seen = Vec::new();
        while found.contains(&None) {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                panic!("not all of {messages:?} in the log:\n{}", seen.join("\n"));
            };
            let value: Value = serde_json::from_str(&line).expect("every line is JSON");
            let said = value["fields"]["message"].as_str().unwrap();
            match messages.iter().position(|message| said.starts_with(message)) {
                Some(at) if found[at].is_none() => found[at] = Some(value),
                _ => seen.push(line),
            }
        }
        found.into_iter().flatten().collect()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Asks for the end; returns the exit code.
    fn stop(mut self) -> Option<i32> {
        self.signal("-TERM");
        self.wait_for("stopping");
        self.wait_for("ended");
        self.child.wait().unwrap().code()
    }

    /// Sends a message; returns the id of `250 2.0.0 Ok: queued as ID`.
    fn send(&self, body: &str) -> String {
        let stream = TcpStream::connect(&self.listening).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream = BufReader::new(stream);
        let mut reply = String::new();
        let lines = [
            "",
            "HELO client.example\r\n",
            "MAIL FROM:<a@example.com>\r\n",
            "RCPT TO:<b@example.org>\r\n",
            "DATA\r\n",
            &format!("{body}\r\n.\r\n"),
        ];
        for line in lines {
            stream.get_mut().write_all(line.as_bytes()).unwrap();
            reply.clear();
            stream.read_line(&mut reply).unwrap();
            assert!(reply.starts_with(['2', '3']), "{line:?}: {reply}");
        }
        let id = reply.trim_end().strip_prefix("250 2.0.0 Ok: queued as ");
        id.unwrap_or_else(|| panic!("{reply}")).to_owned()
    }

    /// Status and body of a page of the admin HTTP server.
    fn fetch(&self, page: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {page} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).unwrap();
        let (head, body) = got.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing to kill once it has ended, as it should have.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Standard output of `ringpost queue WORDS`.
#[track_caller]
fn queue(config: &Path, words: &[&str]) -> String {
    let mut command = assert_cmd::Command::new(assert_cmd::cargo::cargo_bin!("ringpost"));
    let done = command.arg("queue").args(words).arg("-c").arg(config).timeout(PATIENCE).assert();
    String::from_utf8_lossy(&done.success().get_output().stdout).into_owned()
}

#[test]
fn a_message_is_seen_everywhere_and_survives_a_restart() {
    let temp = tempfile::tempdir().unwrap();
    let config = configure(temp.path());
    let server = Server::start(&config);
    assert_eq!(server.queued, 0);
    assert_eq!(queue(&config, &["list"]), "Mail queue is empty\n");

    let id = server.send("Subject: hello\r\n\r\n..dotted");
    let accepted = server.wait_for("accepted");
    assert_eq!(accepted["target"], "mail");
    assert_eq!(accepted["fields"]["id"], id);
    server.wait_for("deferred");

    assert_eq!(server.fetch("/healthz"), (200, r#"{"status":"ok","reasons":[]}"#.to_owned()));
    let (_, metrics) = server.fetch("/metrics");
    for line in [
        "ringpost_messages_accepted_total{shard=\"0\"} 1",
        "ringpost_queued_messages{shard=\"0\"} 1",
        "ringpost_accept_seconds_count{shard=\"0\"} 1",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} is not in\n{metrics}");
    }
    let listed: Value = serde_json::from_str(&queue(&config, &["list", "--json"])).unwrap();
    assert_eq!(listed["queue_id"], id);
    assert_eq!(listed["sender"], "a@example.com");
    assert_eq!(listed["recipients"][0]["address"], "b@example.org");
    let why = listed["recipients"][0]["delay_reason"].as_str().unwrap();
    assert!(why.contains("refused"), "{why}");
    let message = queue(&config, &["show", &id, "--message"]);
    assert!(message.starts_with("Received: from client.example"), "{message}");
    assert!(message.contains(&id), "{message}");
    assert!(message.ends_with("Subject: hello\r\n\r\n.dotted\r\n"), "{message}");
    assert!(queue(&config, &["summary"]).contains("accepted 1, delivered 0"));

    assert_eq!(server.stop(), Some(0));
    assert!(!temp.path().join("data/admin.sock").exists());
    let again = Server::start(&config);
    assert_eq!(again.queued, 1);
    assert!(queue(&config, &["list"]).contains(&id));
    assert_eq!(again.stop(), Some(0));
}

#[test]
fn a_killed_server_leaves_a_queue_and_a_socket_that_do_not_hinder() {
    let temp = tempfile::tempdir().unwrap();
    let config = configure(temp.path());
    let mut server = Server::start(&config);
    let id = server.send("Subject: x\r\n\r\nx");
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    assert!(temp.path().join("data/admin.sock").exists(), "nobody was there to remove it");
    let again = Server::start(&config);
    assert_eq!(again.queued, 1);
    assert!(queue(&config, &["show", &id]).contains("b@example.org"));
    assert_eq!(again.stop(), Some(0));
}

#[test]
fn a_second_server_on_the_same_directory_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let config = configure(temp.path());
    let server = Server::start(&config);
    let second = ringpost(&config).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains(&format!("another ringpost (process {})", server.child.id())), "{said}");
    assert_eq!(server.fetch("/healthz").0, 200, "the first is not disturbed");
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_reload_takes_a_right_configuration_and_refuses_a_wrong_one() {
    let temp = tempfile::tempdir().unwrap();
    let config = configure(temp.path());
    let server = Server::start(&config);
    let right = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, right.replace("connections = 100", "connections = many")).unwrap();
    server.signal("-HUP");
    let refused = server.wait_for("not reloaded");
    let said = refused["fields"]["message"].as_str().unwrap();
    assert!(said.contains("ringpost.toml:10:"), "{said}");
    let changed = right.replace("connections = 100", "errors_per_session = 1");
    std::fs::write(&config, changed.replace("relay.example", "other.example")).unwrap();
    server.signal("-HUP");
    assert_eq!(server.wait_for("changed, but need a restart")["fields"]["keys"], "hostname");
    server.wait_for("reloaded");
    assert_eq!(server.fetch("/healthz").0, 200);
    assert_eq!(server.stop(), Some(0));
}
