//! What idle connections cost others: the latency of one client that sends mail,
//! by itself and beside as many idle connections as descriptors allow, in turns.
//! Prints each round, the ratio of the p99s, and the memory of an idle connection.
//!
//! `cargo bench --bench idle [-- CONNECTIONS]`

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringpost::io::process::raise_open_files;

/// Descriptors that neither process spends on idle connections.
const SPARE: u64 = 500;
const MESSAGES: usize = 2000;
const ROUNDS: usize = 5;

struct Server {
    child: Child,
    smtp: SocketAddr,
}

impl Server {
    fn start(data_dir: &std::path::Path) -> Server {
        let data_dir = format!("data_dir={:?}", data_dir.display().to_string());
        let settings = [
            data_dir.as_str(),
            r#"hostname="relay.test""#,
            r#"listener=[{address="127.0.0.1:0"}]"#,
            r#"route=[{domain="*", next_hop="discard"}]"#,
            "admin.http=off",
            "cores=1",
            "limits.connections_per_client=1000000",
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringpost"));
        command.arg("serve").stdin(Stdio::null()).stderr(Stdio::piped());
        for setting in settings {
            command.arg("--set").arg(setting);
        }
        let mut child = command.spawn().expect("the server starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is a pipe")).lines();
        let ready = lines.find_map(|line| line.ok().filter(|line| line.contains(" ready ")));
        let ready = ready.expect("the server is ready");
        let at = ready.find("127.0.0.1:").expect("an address");
        let end = ready[at..].find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':');
        let smtp = ready[at..at + end.unwrap_or(ready.len() - at)].parse().expect("an address");
        // Its log must go on being read.
        std::thread::spawn(move || lines.for_each(drop));
        Server { child, smtp }
    }

    fn memory(&self) -> u64 {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).expect("the server runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        1024 * line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(to: SocketAddr) -> Client {
        let stream = TcpStream::connect(to).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
        stream.set_nodelay(true).expect("an option");
        let mut client = Client(BufReader::new(stream));
        client.expect("220");
        client
    }

    fn expect(&mut self, code: &str) {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("a reply");
            assert!(line.starts_with(code), "{line:?}");
            if !line[3..].starts_with('-') {
                return;
            }
        }
    }

    fn ask(&mut self, command: &[u8], code: &str) {
        self.0.get_mut().write_all(command).expect("it is taken");
        self.expect(code);
    }
}

/// The p50 and p99 of so many messages, from MAIL to the 250.
fn round(to: SocketAddr) -> [Duration; 2] {
    let mut client = Client::connect(to);
    client.ask(b"EHLO client.example\r\n", "250");
    let body =
        [&b"Subject: x\r\n\r\n"[..], &b"0123456789abcdef\r\n".repeat(220), b".\r\n"].concat();
    let mut took: Vec<Duration> = (0..MESSAGES)
        .map(|_| {
            let begun = Instant::now();
            client.ask(b"MAIL FROM:<s@a.example>\r\n", "250");
            client.ask(b"RCPT TO:<r@b.example>\r\n", "250");
            client.ask(b"DATA\r\n", "354");
            client.ask(&body, "250");
            begun.elapsed()
        })
        .collect();
    took.sort_unstable();
    [took[MESSAGES / 2], took[MESSAGES * 99 / 100]]
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let most = raise_open_files().expect("a limit") - SPARE;
    let asked = std::env::args().skip(1).find_map(|word| word.parse::<u64>().ok());
    let count = asked.unwrap_or(most).min(most);
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    round(server.smtp);
    let (mut ratios, mut sizes) = (Vec::new(), Vec::new());
    for number in 1..=ROUNDS {
        let alone = round(server.smtp);
        let before = server.memory();
        let idle: Vec<Client> = (0..count).map(|_| Client::connect(server.smtp)).collect();
        sizes.push(server.memory().saturating_sub(before) as f64 / count as f64);
        let beside = round(server.smtp);
        drop(idle);
        ratios.push(beside[1].as_secs_f64() / alone[1].as_secs_f64());
        println!(
            "round {number}: alone p50 {:?} p99 {:?}; beside {count} idle p50 {:?} p99 {:?}",
            alone[0], alone[1], beside[0], beside[1]
        );
    }
    println!("p99 beside {count} idle connections / alone: {:.2} (median)", median(ratios));
    println!("memory of an idle connection: {:.0} bytes (first round)", sizes[0]);
}
