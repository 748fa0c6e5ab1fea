//! What the tests of relaying share: a server that finds its way by a DNS server
//! of the test, and what is asked of both.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::dns::{Answer, DnsServer, RecordType};
use super::hop::{Act, Moment, Step};
use super::peer::{Client, PATIENCE};
use super::process::Server;

/// The name of a configuration file.
const FILE: &str = "ringpost.toml";

/// A server and the DNS that it asks.
pub struct Rig {
    // The server ends before the directory goes.
    pub server: Server,
    pub dns: DnsServer,
    dir: tempfile::TempDir,
    settings: Vec<String>,
    port: u16,
}

/// Settings of a server that relays by MX to hosts of loopback, and retries soon.
fn settings(dns: &DnsServer, port: u16, more: &[&str]) -> Vec<String> {
    let mut settings = vec![
        "route=[]".to_owned(),
        format!("dns.servers=[\"{}\"]", dns.address),
        format!("delivery.port={port}"),
        "delivery.allow_private_targets=true".to_owned(),
        r#"queue.retry=["300ms"]"#.to_owned(),
    ];
    let key = |setting: &str| setting.split('=').next().map(str::to_owned);
    settings.retain(|preset| more.iter().all(|setting| key(setting) != key(preset)));
    settings.extend(more.iter().map(|&setting| setting.to_owned()));
    settings
}

impl Rig {
    /// A server whose hosts are reached on `port`, with further settings.
    pub fn start(dns: DnsServer, port: u16, more: &[&str]) -> Self {
        Self::run(None, dns, port, more)
    }

    /// One that has a file with this text too.
    pub fn run(file: Option<&str>, dns: DnsServer, port: u16, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(&dns, port, more);
        let file = file.map(|text| {
            let path = dir.path().join(FILE);
            std::fs::write(&path, text).unwrap();
            path
        });
        let server = serve(file.as_deref(), dir.path(), &settings);
        Rig { server, dns, dir, settings, port }
    }

    /// Puts this text into the file and has it read again.
    pub fn rewrite(&self, text: &str) {
        std::fs::write(self.dir.path().join(FILE), text).unwrap();
        self.server.reload();
    }

    /// Kills the server and starts it again.
    pub fn restart(self) -> Self {
        let Rig { server, dns, dir, settings, port } = self;
        server.kill();
        let server = serve(None, dir.path(), &settings);
        Rig { server, dns, dir, settings, port }
    }

    /// Stops the server in peace and starts it with these further settings
    /// instead of those it had.
    pub fn stop_and_start(self, more: &[&str]) -> Self {
        let Rig { server, dns, dir, port, .. } = self;
        server.terminate();
        assert!(server.wait().success());
        let settings = settings(&dns, port, more);
        let server = serve(None, dir.path(), &settings);
        Rig { server, dns, dir, settings, port }
    }

    /// The server alone.
    pub fn into_server(self) -> Server {
        self.server
    }

    /// Sends a message by that name; its id.
    pub fn send(&self, name: &str, to: &[&str]) -> String {
        self.client().send(name, to)
    }

    /// A session with the server.
    pub fn client(&self) -> Sender {
        Sender(Client::connect(self.server.smtp).unwrap())
    }

    fn ringpost(&self, words: &str) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_ringpost"))
            .args(["queue", "--socket"])
            .arg(self.data().join("admin.sock"))
            .args(words.split(' '))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// `ringpost queue WORDS`.
    pub fn queue(&self, words: &str) -> String {
        self.ringpost(words)
    }

    /// What is queued, oldest first.
    pub fn queued(&self) -> Vec<Value> {
        let text = self.ringpost("list --json");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until a message has been deferred; why.
    #[track_caller]
    pub fn wait_deferred(&self, id: &str) -> String {
        let mut why = None;
        wait_for("deferred", || {
            let queued = self.queued();
            let it = queued.iter().find(|message| message["queue_id"] == id);
            let reason = it.map(|message| &message["recipients"][0]["delay_reason"]);
            why = reason.and_then(Value::as_str).filter(|text| !text.is_empty()).map(String::from);
            why.is_some()
        });
        why.expect("it was waited for")
    }

    /// Waits until nothing is queued.
    #[track_caller]
    pub fn wait_empty(&self) {
        wait_for("empty", || self.server.metric("ringpost_queued_messages") == 0);
    }

    /// Waits for the log line of an outcome for a recipient.
    #[track_caller]
    pub fn wait_outcome(&self, kind: &str, recipient: &str) -> String {
        let (kind, to) = (format!(" mail: {kind} "), format!("<{recipient}>"));
        self.server.wait_log(|line| line.contains(&kind) && line.contains(&to))
    }
}

fn serve(file: Option<&Path>, dir: &Path, settings: &[String]) -> Server {
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    Server::configured(file, &dir.join("data"), &settings)
}

/// A client of the server under test.
pub struct Sender(Client);

impl Sender {
    /// Sends a message by that name from `s@sender.test`; its id.
    #[track_caller]
    pub fn send(&mut self, name: &str, to: &[&str]) -> String {
        self.send_from("s@sender.test", name, to)
    }

    /// Sends a message by that name; its id.
    #[track_caller]
    pub fn send_from(&mut self, from: &str, name: &str, to: &[&str]) -> String {
        let reply = self.0.message(from, to, &message(name)).unwrap();
        reply.strip_prefix("250 2.0.0 Ok: queued as ").expect(&reply).trim().to_owned()
    }

    /// The session itself.
    pub fn raw(&mut self) -> &mut Client {
        &mut self.0
    }
}

/// A message by that name.
pub fn message(name: &str) -> Vec<u8> {
    format!("Subject: {name}\r\nX-Test: {name}\r\n\r\nHello\r\n.dot\r\n").into_bytes()
}

/// A DNS server where `domain` has these exchangers, each with its address.
pub fn domain(dns: &DnsServer, domain: &str, hosts: &[(u16, &str, &[&str])]) {
    let records: Vec<_> = hosts.iter().map(|(preference, name, _)| (*preference, *name)).collect();
    dns.set_mx(domain, &records);
    for (_, name, addresses) in hosts {
        dns.set_addresses(name, addresses);
    }
}

/// A DNS server that has only a mailbox for senders, at `address`.
pub fn dns_with_sender(address: &str) -> DnsServer {
    let dns = DnsServer::start();
    domain(&dns, "sender.test", &[(10, "mx.sender.test", &[address])]);
    dns
}

/// SERVFAIL for all of a name.
pub fn fail_all(dns: &DnsServer, name: &str) {
    for kind in [RecordType::MX, RecordType::A, RecordType::AAAA] {
        dns.set(name, kind, Answer::failure());
    }
}

/// Takes everything but does `act` at `step`.
pub fn at(step: Step, act: Act) -> impl Fn(&Moment) -> Act + Send + Sync + 'static {
    move |moment| if moment.step == step { act.clone() } else { Act::Well }
}

/// Takes everything but does `act` the first time at `step`.
pub fn once_at(step: Step, act: Act) -> impl Fn(&Moment) -> Act + Send + Sync + 'static {
    let done = AtomicBool::new(false);
    move |moment| {
        if moment.step == step && !done.swap(true, Ordering::SeqCst) {
            act.clone()
        } else {
            Act::Well
        }
    }
}

/// Asks until it is so.
#[track_caller]
pub fn wait_for(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "it never came to be so: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
