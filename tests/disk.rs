//! A whole server on a disk that fills up, and on one that fails: filesystems of
//! their own, made in a file and mounted for the test. Making them takes root,
//! mount(8) and mkfs.ext4(8); without them the tests say so and do nothing.

mod support;

use std::collections::HashSet;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use socket2::{Domain, Socket, Type};
use support::peer::{Client, Got, NextHop, PATIENCE, header};
use support::process::Server;

/// EXT4_IOC_SHUTDOWN of linux/fs: everything fails from then on.
const SHUTDOWN: libc::c_ulong = 0x8004_587d;
/// Without flushing the journal, as if the disk had gone.
const NO_LOG_FLUSH: u32 = 2;

/// A filesystem of its own.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    /// A disk of `mib` MiB; `None` where none can be made.
    fn new(mib: u64) -> Option<Disk> {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        std::fs::create_dir(dir.path().join("mnt")).unwrap();
        let disk = Disk { dir };
        let made = run("mkfs.ext4", &["-q", "-m", "0", image.to_str().unwrap()]);
        if made && disk.mount() {
            return Some(disk);
        }
        eprintln!("skipped: a filesystem cannot be made and mounted here");
        None
    }

    fn mount(&self) -> bool {
        let image = self.dir.path().join("image");
        run("mount", &["-o", "loop", image.to_str().unwrap(), self.path().to_str().unwrap()])
    }

    fn unmount(&self) -> bool {
        run("umount", &[self.path().to_str().unwrap()])
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// Everything that is read or written fails from now on.
    fn fail(&self) {
        let root = std::fs::File::open(self.path()).unwrap();
        let how = NO_LOG_FLUSH;
        // SAFETY: the descriptor is open, and the call reads one u32 at the
        // address given, which lives until it returns.
        let status = unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN, &how) };
        assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if !self.unmount() {
            run("umount", &["-l", self.path().to_str().unwrap()]);
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|done| done.status.success())
}

fn settings(hop: SocketAddr) -> [String; 3] {
    let route = format!(r#"route=[{{domain="*", next_hop=["{hop}"]}}]"#);
    [route, r#"queue.retry=["1s"]"#.into(), r#"queue.segment_size="4MiB""#.into()]
}

fn start(data: &Path, hop: SocketAddr) -> Server {
    let settings = settings(hop);
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    Server::start(data, &settings)
}

/// A place for a next hop at which nobody listens yet, and which nobody else gets.
struct Place(Socket);

impl Place {
    fn new() -> Place {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        Place(socket)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }

    /// The next hop comes.
    fn open(self) -> NextHop {
        self.0.listen(128).unwrap();
        NextHop::on(self.0.into(), |_| None)
    }
}

fn message(name: &str) -> Vec<u8> {
    let mut message = format!("Subject: disk\r\nX-Test: {name}\r\n\r\n").into_bytes();
    for line in 0..2000 {
        message.extend_from_slice(format!("line {line} of the message {name}\r\n").as_bytes());
    }
    message
}

/// Sends a message; the first reply that refuses it: at its end, or before if the
/// failure of the disk has been noticed meanwhile.
fn refusal(client: &mut Client) -> String {
    for command in ["MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "DATA"] {
        let reply = client.command(command).unwrap();
        if !reply.starts_with(['2', '3']) {
            return reply;
        }
    }
    client.send(&message("lost")).unwrap();
    client.send(b".\r\n").unwrap();
    client.reply().unwrap()
}

/// Waits until each of the messages has arrived, whole.
fn all_arrive(hop: &NextHop, names: &[String]) {
    let name_of = |got: &Got| header(&got.body, "X-Test");
    let got = hop.wait(|got| {
        let there: HashSet<String> = got.iter().filter_map(name_of).collect();
        names.iter().all(|name| there.contains(name))
    });
    for got in &got {
        let whole = name_of(got).is_none_or(|name| got.body.ends_with(&message(&name)));
        assert!(whole, "damaged: {:?}", name_of(got));
    }
}

fn wait_for(what: &str, so: impl Fn() -> bool) {
    let deadline = Instant::now() + 2 * PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "it never came to be so: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_full_disk_puts_mail_off_before_it_is_full_and_what_is_queued_goes_on() {
    let Some(disk) = Disk::new(64) else { return };
    let place = Place::new();
    let hop = place.address();
    let server = start(&disk.path().join("data"), hop);
    let mut client = Client::connect(server.smtp).unwrap();
    let mut sent = Vec::new();
    let refused = loop {
        let name = format!("m{}", sent.len());
        let reply = client.message("a@x.test", &["b@y.test"], &message(&name)).unwrap();
        if !reply.starts_with("250") {
            break reply;
        }
        sent.push(name);
        assert!(sent.len() < 5000, "it never fills up");
    };
    assert!(refused.starts_with("452 4.3.1"), "{refused}");
    assert!(sent.len() > 100, "{} messages fill 64 MiB", sent.len());
    // What is left takes small messages; then mail is refused before the body.
    let mut small = 0;
    let reply = loop {
        let reply = client.command("MAIL FROM:<a@x.test>").unwrap();
        if !reply.starts_with("250") {
            break reply;
        }
        client.command("RSET").unwrap();
        let reply = client.message("a@x.test", &["b@y.test"], b"Subject: small\r\n\r\n").unwrap();
        small += u32::from(reply.starts_with("250"));
        client.command("RSET").unwrap();
        assert!(small < 5000, "it never fills up");
    };
    assert!(reply.starts_with("452 4.3.1"), "{reply}");
    let health = server.get("/healthz");
    assert!(health.contains(r#""status":"full""#) && health.contains("df -h"), "{health}");
    assert!(server.get("/metrics").contains("ringpost_disk_full{shard=\"0\"} 1"));
    assert!(server.get("/metrics").contains("ringpost_poisoned{shard=\"0\"} 0"));
    server.wait_log(|line| line.contains("nearly full"));

    // A start on the full disk, and the next hop comes back.
    server.kill();
    let server = start(&disk.path().join("data"), hop);
    let next_hop = place.open();
    all_arrive(&next_hop, &sent);
    wait_for("the disk has room", || server.get("/metrics").contains("disk_full{shard=\"0\"} 0"));
    let mut client = Client::connect(server.smtp).unwrap();
    let reply = client.message("a@x.test", &["b@y.test"], &message("after")).unwrap();
    assert!(reply.starts_with("250"), "{reply}");
    server.terminate();
    assert!(server.wait().success());
}

#[test]
fn a_disk_that_cannot_be_written_is_named_before_the_server_starts() {
    let Some(disk) = Disk::new(16) else { return };
    assert!(disk.unmount());
    let (image, at) = (disk.dir.path().join("image"), disk.path());
    assert!(run("mount", &["-o", "loop,ro", image.to_str().unwrap(), at.to_str().unwrap()]));
    let data = disk.path().join("data");
    let output = Command::new(env!("CARGO_BIN_EXE_ringpost"))
        .args(["serve", "--set", &format!("data_dir={:?}", data.display().to_string())])
        .args(["--set", r#"listener=[{address="127.0.0.1:0"}]"#, "--set", r#"admin.http="off""#])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let named = said.contains(&data.display().to_string()) && said.contains("may write to");
    assert!(named && said.contains("Read-only file system"), "{said}");
}

#[test]
fn a_failing_disk_stops_acceptance_at_once_and_loses_nothing() {
    let Some(disk) = Disk::new(64) else { return };
    let place = Place::new();
    let hop = place.address();
    let data = disk.path().join("data");
    let server = start(&data, hop);
    let mut client = Client::connect(server.smtp).unwrap();
    let names: Vec<String> = (0..20).map(|n| format!("m{n}")).collect();
    for name in &names {
        let reply = client.message("a@x.test", &["b@y.test"], &message(name)).unwrap();
        assert!(reply.starts_with("250"), "{reply}");
    }
    disk.fail();
    let reply = refusal(&mut client);
    assert!(reply.starts_with("451 4.3.0"), "{reply}");
    client.command("RSET").unwrap();
    let reply = client.command("MAIL FROM:<a@x.test>").unwrap();
    assert!(reply.starts_with("451 4.3.0"), "{reply}");
    let mut greeting = String::new();
    TcpStream::connect(server.smtp).unwrap().read_to_string(&mut greeting).unwrap();
    assert!(greeting.starts_with("421 4.3.2"), "{greeting:?}");
    assert!(server.get("/metrics").contains("ringpost_poisoned{shard=\"0\"} 1"));
    let health = server.get("/healthz");
    assert!(health.starts_with("HTTP/1.1 503") && health.contains("restart"), "{health}");
    assert!(health.contains("Input/output error"), "{health}");
    server.wait_log(|line| line.contains("no more mail is taken") && line.contains("output error"));
    server.kill();

    // The disk is repaired.
    assert!(disk.unmount() && disk.mount());
    let next_hop = place.open();
    let server = start(&data, hop);
    all_arrive(&next_hop, &names);
    let mut client = Client::connect(server.smtp).unwrap();
    let reply = client.message("a@x.test", &["b@y.test"], &message("after")).unwrap();
    assert!(reply.starts_with("250"), "{reply}");
    server.terminate();
    assert!(server.wait().success());
}
