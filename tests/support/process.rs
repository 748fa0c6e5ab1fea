//! A whole server as a child process, for tests that kill and restart it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::peer::PATIENCE;

/// Stands behind the last line of a log.
const END: &str = "(end of log)";

/// A running `ringpost serve`; killed when dropped.
pub struct Server {
    child: Child,
    /// Where it takes mail.
    pub smtp: SocketAddr,
    /// Where it answers HTTP.
    pub http: SocketAddr,
    log: Arc<(Mutex<Vec<String>>, Condvar)>,
}

impl Server {
    /// Starts a server on free ports with `data_dir` and settings `KEY=VALUE`.
    pub fn start(data_dir: &Path, settings: &[&str]) -> Self {
        Self::configured(None, data_dir, settings)
    }

    /// One that reads a file too, again at each [`Server::reload`]; the settings
    /// go before what it says.
    pub fn configured(file: Option<&Path>, data_dir: &Path, settings: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringpost"));
        command.arg("serve");
        if let Some(file) = file {
            command.arg("-c").arg(file);
        }
        let mut all = vec![
            format!("data_dir={:?}", data_dir.display().to_string()),
            r#"hostname="relay.test""#.to_owned(),
            r#"listener=[{address=["127.0.0.1:0"], kind="relay"}]"#.to_owned(),
            r#"admin.http="127.0.0.1:0""#.to_owned(),
            "cores=1".to_owned(),
            r#"queue.segment_size="4MiB""#.to_owned(),
        ];
        let key = |setting: &str| setting.split('=').next().map(str::to_owned);
        all.retain(|preset| settings.iter().all(|setting| key(setting) != key(preset)));
        all.extend(settings.iter().map(|&setting| setting.to_owned()));
        for setting in &all {
            command.arg("--set").arg(setting);
        }
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log: Arc<(Mutex<Vec<String>>, Condvar)> = Arc::default();
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.0.lock().unwrap().push(line);
                lines.1.notify_all();
            }
            lines.0.lock().unwrap().push(END.to_owned());
            lines.1.notify_all();
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Server { child, smtp: nowhere, http: nowhere, log };
        let ready = server.wait_log(|line| line.contains(" ready ") || line == END);
        assert!(ready != END, "the server did not start:\n{}", server.log());
        let bound = |key: &str| {
            let at = ready.find(key).unwrap_or_else(|| panic!("no {key} in {ready}"));
            let text: String = ready[at..]
                .chars()
                .skip_while(|c| !c.is_ascii_digit())
                .take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':'))
                .collect();
            text.parse().unwrap_or_else(|_| panic!("{text} in {ready}"))
        };
        server.smtp = bound("listen");
        server.http = bound("http");
        server
    }

    /// The memory it has now and the most it has had so far, in bytes.
    pub fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let bytes = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
        };
        (bytes("VmRSS:"), bytes("VmHWM:"))
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.log.0.lock().unwrap().join("\n")
    }

    /// Waits for a log line.
    pub fn wait_log(&self, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.log.0.lock().unwrap();
        loop {
            if let Some(line) = lines.iter().find(|line| wanted(line)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not in the log:\n{}", lines.join("\n"));
            lines = self.log.1.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Has the configuration read again, and waits until it is.
    pub fn reload(&self) {
        let reloads = |log: &str| log.matches("reloaded").count();
        let before = reloads(&self.log());
        self.signal("-HUP");
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.log.0.lock().unwrap();
        while reloads(&lines.join("\n")) == before {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not reloaded:\n{}", lines.join("\n"));
            lines = self.log.1.wait_timeout(lines, left).unwrap().0;
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// The sum over the shards of a metric.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics");
        let values = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
        values.map(|(_, value)| value.parse::<u64>().unwrap()).sum()
    }

    /// Waits for the end of the process.
    pub fn wait(mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The answer to `GET path`.
    pub fn get(&self, path: &str) -> String {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(self.http).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
