//! A whole Postfix that is thrown away: its files are in a folder of the test, and
//! it ends with it. It has to be started as root.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::program::{self, is_installed, is_root};
use super::rig::wait_for;

/// Services beside those that a test has; none of them in a changed root.
const SERVICES: &str = "cleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n\
     rewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\n\
     defer unix - - n - 0 bounce\ntrace unix - - n - 0 bounce\n\
     proxymap unix - - n - - proxymap\nsmtp unix - - n - - smtp\n\
     relay unix - - n - - smtp\nlmtp unix - - n - - lmtp\nerror unix - - n - - error\n\
     retry unix - - n - - error\nanvil unix - - n - 1 anvil\nscache unix - - n - 1 scache\n\
     tlsmgr unix - - n 1000? 1 tlsmgr\npostlog unix-dgram n - n - 1 postlogd\n";

/// A process that ends with the test.
pub struct Daemon {
    process: Child,
    /// Where the process writes its number that is to be ended, if that is a
    /// child of `process`.
    pid_file: Option<PathBuf>,
}

impl Daemon {
    /// `process` itself.
    pub fn new(process: Child) -> Self {
        Daemon { process, pid_file: None }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let written = self.pid_file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        let pid = written.unwrap_or_else(|| self.process.id().to_string());
        let _ = Command::new("kill").args(["-TERM", pid.trim()]).status();
        let _ = self.process.wait();
    }
}

/// Waits until somebody listens there.
#[track_caller]
pub fn wait_listening(address: SocketAddr) {
    wait_for("listening", || TcpStream::connect(address).is_ok());
}

/// Whether Postfix can be started; says so if not.
pub fn is_there() -> bool {
    is_installed("postfix") && program::is_there("root, which Postfix needs,", is_root())
}

/// A running Postfix.
pub struct Postfix {
    _daemon: Daemon,
    log: PathBuf,
}

impl Postfix {
    /// One that has these further settings, and these further services, of which
    /// those that listen do so at `addresses`. Its configuration is in the folder
    /// `etc`, where files may be already.
    pub fn start(dir: &Path, settings: &str, services: &str, addresses: &[SocketAddr]) -> Self {
        let output =
            Command::new("postconf").args(["-d", "-h", "daemon_directory"]).output().unwrap();
        let daemons = String::from_utf8(output.stdout).unwrap();
        let [etc, queue, data] = ["etc", "queue", "data"].map(|name| dir.join(name));
        for folder in [&etc, &queue, &data] {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
        own(&data);
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {}\ndata_directory = {}\n\
             daemon_directory = {}\nmyhostname = post.test\nmydestination =\nalias_maps =\n\
             inet_protocols = ipv4\nmynetworks = 127.0.0.0/8\n\
             smtpd_peername_lookup = no\nmaillog_file = /dev/stdout\n\
             local_header_rewrite_clients =\n\
             smtpd_relay_restrictions = permit_mynetworks, reject\n{settings}\n",
            queue.display(),
            data.display(),
            daemons.trim(),
        );
        std::fs::write(etc.join("main.cf"), main).unwrap();
        std::fs::write(etc.join("master.cf"), format!("{services}\n{SERVICES}")).unwrap();
        let path = dir.join("log");
        let log = std::fs::File::create(&path).unwrap();
        let mut command = Command::new("postfix");
        // Its end is that of its process group, which must not be ours.
        command.arg("-c").arg(&etc).arg("start-fg").process_group(0).stdin(Stdio::null());
        let process = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let daemon = Daemon { process, pid_file: Some(queue.join("pid/master.pid")) };
        addresses.iter().copied().for_each(wait_listening);
        Postfix { _daemon: daemon, log: path }
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// Waits for a line of its log with all of `words` in it.
    #[track_caller]
    pub fn wait_log(&self, words: &[&str]) -> String {
        let has = |line: &&str| words.iter().all(|word| line.contains(word));
        let mut found = None;
        wait_for(&format!("Postfix logs {words:?}"), || {
            found = self.log().lines().find(has).map(str::to_owned);
            found.is_some()
        });
        found.expect("it was waited for")
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let log = std::thread::panicking().then(|| std::fs::read(&self.log));
        if let Some(Ok(log)) = log {
            eprintln!("Postfix logged:\n{}", String::from_utf8_lossy(&log));
        }
    }
}

/// Gives a file to the user that Postfix is.
pub fn own(path: &Path) {
    assert!(Command::new("chown").arg("postfix").arg(path).status().unwrap().success());
}
