//! A server that can be measured, as a TOML file describes it: the programs it
//! needs, files of its throw-away configuration, how it is started and stopped.
//!
//! ```toml
//! name = "mine"
//! needs = ["mined"]                          # passed over unless all are found
//! version = ["mined", "--version"]           # the first line is its version
//! prepare = [["mkdir", "{dir}/spool"]]       # before the start
//! start = ["mined", "-c", "{dir}/mined.conf"]
//! stop = ["minectl", "stop"]                 # default: SIGTERM
//! modes = ["accept", "relay"]                # default: both
//! opening = 4                                # connections made at a time; default: all
//!
//! [[file]]
//! path = "mined.conf"                        # in {dir}
//! text = "listen {address}\nnext {next}\n"
//!
//! [values.accept]                            # further placeholders, by mode
//! next = "nowhere"
//! [values.relay]
//! next = "{relay}"
//!
//! [values.clear]                             # and by whether TLS is measured
//! tls = ""
//! [values.tls]                               # without this it is not measured
//! tls = "certificate {certificate} {key}"
//! ```
//!
//! Placeholders: `{dir}` its own folder, `{address}` and `{port}` to listen on,
//! `{relay}`, `{relay_host}` and `{relay_port}` of the next hop, `{cpus}` it may
//! use, `{processes}` enough for all connections, `{certificate}` and `{key}` two PEM
//! files that are made for it, `{self}` this program. A word of a command that comes
//! out empty is left out. A
//! server that is running already has no `start`, but `address = "HOST:PORT"`:
//! nothing is known of its processor time and memory then.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ringpost::io::tls::self_signed;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Deserialize;

use super::account;

/// How long a server may take to start or stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often conditions are looked at.
const POLL: Duration = Duration::from_millis(20);

/// Where programs are looked for besides PATH.
const SYSTEM: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/sbin"];

/// Names of the placeholders over TLS and without.
const TLS: &str = "tls";
const CLEAR: &str = "clear";

/// Files that a server over TLS finds in its folder.
const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";

/// What a server does with the mail that it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Throws it away.
    Accept,
    /// Hands it to a sink.
    Relay,
}

impl Mode {
    /// Its name in options and tables.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Accept => "accept",
            Mode::Relay => "relay",
        }
    }
}

/// A file of a configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    path: PathBuf,
    text: String,
}

/// A server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Its name in tables.
    pub name: String,
    #[serde(default)]
    needs: Vec<String>,
    #[serde(default)]
    version: Vec<String>,
    #[serde(default)]
    prepare: Vec<Vec<String>>,
    #[serde(default)]
    start: Vec<String>,
    #[serde(default)]
    stop: Vec<String>,
    address: Option<SocketAddr>,
    #[serde(default = "both")]
    modes: Vec<Mode>,
    opening: Option<u32>,
    #[serde(default)]
    file: Vec<ConfigFile>,
    #[serde(default)]
    values: BTreeMap<String, BTreeMap<String, String>>,
}

fn both() -> Vec<Mode> {
    vec![Mode::Accept, Mode::Relay]
}

/// Those that are known without a file; the first is the ceiling.
const BUILT_IN: [&str; 6] = [
    include_str!("servers/sink.toml"),
    include_str!("servers/ringpost.toml"),
    include_str!("servers/postfix.toml"),
    include_str!("servers/opensmtpd.toml"),
    include_str!("servers/exim.toml"),
    include_str!("servers/haraka.toml"),
];

/// The servers that are known without a file.
pub fn built_in() -> Vec<Server> {
    BUILT_IN.iter().map(|text| toml::from_str(text).expect("a test reads them all")).collect()
}

/// The server that the file at `path` describes.
///
/// # Errors
/// It cannot be read, or describes none.
pub fn from_file(path: &Path) -> io::Result<Server> {
    let fail = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let text = fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    let server: Server =
        toml::from_str(&text).map_err(|error| fail(format!("{}: {error}", path.display())))?;
    if server.start.is_empty() == server.address.is_none() {
        return Err(fail(format!("{}: either \"start\" or \"address\"", path.display())));
    }
    Ok(server)
}

/// Where and for what a server is started.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its own folder, which is made and removed.
    pub dir: PathBuf,
    /// What it listens on.
    pub address: SocketAddr,
    /// The next hop.
    pub relay: SocketAddr,
    /// CPUs that it may use.
    pub cpus: Vec<usize>,
    /// What it does.
    pub mode: Mode,
    /// Whether it offers STARTTLS.
    pub is_secured: bool,
    /// Processes that it needs if each connection takes one.
    pub processes: u32,
}

impl Server {
    /// True if it does `mode` at all.
    pub fn does(&self, mode: Mode) -> bool {
        self.modes.contains(&mode)
    }

    /// What it does.
    pub fn modes(&self) -> &[Mode] {
        &self.modes
    }

    /// True if it can be measured over TLS.
    pub fn does_tls(&self) -> bool {
        self.values.contains_key(TLS)
    }

    /// True if it has a process for each connection: its configuration says how
    /// many there may be.
    pub fn is_heavy(&self) -> bool {
        self.file.iter().any(|file| file.text.contains("{processes}"))
    }

    /// How many connections may be made to it at a time, if not all: its queue of those
    /// that wait to be accepted is shorter than that.
    pub fn opening(&self) -> Option<u32> {
        self.opening
    }

    /// True if it is started here, so that its processes are known.
    pub fn is_ours(&self) -> bool {
        self.address.is_none()
    }

    /// The first program that it needs and that is not installed.
    pub fn missing(&self) -> Option<&str> {
        let found = |program: &str| search_path().iter().any(|dir| dir.join(program).is_file());
        self.needs.iter().find(|program| !found(program)).map(String::as_str)
    }

    fn values(&self, place: &Place) -> io::Result<Vec<(String, String)>> {
        let this = std::env::current_exe()?.display().to_string();
        let mut values: Vec<(String, String)> = Vec::new();
        // Their values may have placeholders themselves, so they come first.
        let way = if place.is_secured { TLS } else { CLEAR };
        let own = [place.mode.name(), way].into_iter().filter_map(|name| self.values.get(name));
        let own = own.flatten();
        values.extend(own.map(|(name, value)| (name.clone(), value.clone())));
        let cpus: Vec<String> = place.cpus.iter().map(|cpu| format!("{cpu}-{cpu}")).collect();
        for (name, value) in [
            ("self", this),
            ("dir", place.dir.display().to_string()),
            ("address", place.address.to_string()),
            ("port", place.address.port().to_string()),
            ("relay", place.relay.to_string()),
            ("relay_host", place.relay.ip().to_string()),
            ("relay_port", place.relay.port().to_string()),
            ("certificate", place.dir.join(CERTIFICATE).display().to_string()),
            ("key", place.dir.join(KEY).display().to_string()),
            ("cpus", cpus.join(",")),
            ("processes", place.processes.to_string()),
        ] {
            values.push((name.into(), value));
        }
        Ok(values)
    }

    /// Starts it and waits until it greets.
    ///
    /// # Errors
    /// A file cannot be written, a command fails, or it does not greet in time;
    /// then its log is kept beside its folder.
    pub fn start(&self, place: &Place) -> io::Result<Running> {
        if let Some(address) = self.address {
            return Ok(Running { child: None, stop: Vec::new(), address, dir: None });
        }
        let values = self.values(place)?;
        if place.dir.exists() {
            // Left by a comparison that was killed.
            fs::remove_dir_all(&place.dir)?;
        }
        fs::create_dir_all(&place.dir)?;
        if place.is_secured {
            write_certificate(&place.dir)?;
        }
        for file in &self.file {
            let path = place.dir.join(&file.path);
            fs::create_dir_all(path.parent().unwrap_or(&place.dir))?;
            fs::write(path, fill(&file.text, &values).trim_start())?;
        }
        for command in &self.prepare {
            run(&filled(command, &values))?;
        }
        let log = place.dir.with_extension("log");
        let child = spawn(&filled(&self.start, &values), &place.cpus, &log)?;
        let (address, dir) = (place.address, Some(place.dir.clone()));
        let stop = filled(&self.stop, &values);
        let mut running = Running { child: Some(child), stop, address, dir };
        match running.await_greeting() {
            Ok(()) => Ok(running),
            Err(error) => {
                let _ = running.stop();
                Err(io::Error::other(format!("{}: {error}, see {}", self.name, log.display())))
            }
        }
    }

    /// The first line of what it says about its version; empty if it says none.
    pub fn version(&self, place: &Place) -> String {
        let Ok(values) = self.values(place) else { return String::new() };
        let command = filled(&self.version, &values);
        let Some((program, arguments)) = command.split_first() else { return String::new() };
        let output = prepared(program, arguments).stdin(Stdio::null()).output();
        output.map_or(String::new(), |output| {
            let text = [output.stdout, output.stderr].concat();
            plain(String::from_utf8_lossy(&text).lines().next().unwrap_or_default())
        })
    }
}

/// A line without the colours that it may have for a terminal, nor the word for what it
/// says.
fn plain(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    let coloured = parts.map(|part| part.split_once('m').map_or("", |(_, text)| text));
    let line = coloured.fold(first, |text, part| text + part);
    line.trim().trim_start_matches("version: ").to_owned()
}

/// A throw-away certificate and its key.
fn write_certificate(dir: &Path) -> io::Result<()> {
    let pem = self_signed(&["compare.invalid", "localhost"]).map_err(io::Error::other)?;
    fs::write(dir.join(CERTIFICATE), &pem.certificate)?;
    fs::write(dir.join(KEY), &pem.key)?;
    fs::set_permissions(dir.join(KEY), Permissions::from_mode(0o600))
}

fn filled(command: &[String], values: &[(String, String)]) -> Vec<String> {
    let words = command.iter().map(|word| fill(word, values));
    words.filter(|word| !word.is_empty()).collect()
}

fn fill(text: &str, values: &[(String, String)]) -> String {
    values
        .iter()
        .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(SYSTEM.map(PathBuf::from)).collect()
}

/// A command in a process group of its own: a Ctrl-C on the terminal is for the
/// comparison, which stops its servers in order.
fn prepared(program: &str, arguments: &[String]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).process_group(0);
    if let Ok(path) = std::env::join_paths(search_path()) {
        command.env("PATH", path);
    }
    command
}

fn run(command: &[String]) -> io::Result<()> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let named = |what: String| io::Error::other(format!("{}: {what}", command.join(" ")));
    let output = prepared(program, arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| named(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(named(format!("{} {}", output.status, String::from_utf8_lossy(&output.stderr).trim())))
}

/// Starts `command` on `cpus`: a thread takes them, and the child has them from it.
fn spawn(command: &[String], cpus: &[usize], log: &Path) -> io::Result<Child> {
    let (program, arguments) =
        command.split_first().ok_or_else(|| io::Error::other("nothing to start"))?;
    let log = fs::File::create(log)?;
    let mut set = CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(*cpu));
    let mut command = prepared(program, arguments);
    command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
    let started = thread::spawn(move || {
        sched_setaffinity(None, &set)?;
        command.spawn()
    });
    let child = started.join().map_err(|_| io::Error::other("starting panicked"))?;
    child.map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))
}

/// A running server.
pub struct Running {
    child: Option<Child>,
    stop: Vec<String>,
    /// What it listens on.
    pub address: SocketAddr,
    dir: Option<PathBuf>,
}

impl Running {
    /// The process that it was started as.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn await_greeting(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
                && !status.success()
            {
                return Err(io::Error::other(format!("it ended: {status}")));
            }
            if greets(self.address).is_ok() {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no greeting within {PATIENCE:?}")))
    }

    /// Stops it, with everything that came of it, and removes its folder.
    ///
    /// # Errors
    /// It would not end, or its folder cannot be removed.
    pub fn stop(mut self) -> io::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if self.stop.is_empty() {
            let pid = Pid::from_child(&child);
            let _ = kill_process(pid, Signal::TERM);
        } else {
            // Whatever it says, the child is waited for.
            let _ = run(&self.stop);
        }
        drop(child.stdin.take());
        let begun = Instant::now();
        while child.try_wait()?.is_none() {
            if begun.elapsed() > PATIENCE {
                child.kill()?;
                child.wait()?;
            }
            thread::sleep(POLL);
        }
        account::end_descendants();
        match self.dir.take() {
            Some(dir) => fs::remove_dir_all(dir),
            None => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            account::end_descendants();
        }
    }
}

fn greets(address: SocketAddr) -> io::Result<()> {
    session(address).map(drop)
}

/// A session that has said EHLO and waits.
///
/// # Errors
/// It cannot be had within the time that a server may take.
pub fn session(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    for say in ["", "EHLO idle.invalid\r\n"] {
        reader.get_mut().write_all(say.as_bytes())?;
        let mut line = String::new();
        while line.as_bytes().get(3) != Some(&b' ') {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        if !line.starts_with('2') {
            return Err(io::Error::other(line));
        }
    }
    Ok(reader.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(dir: &Path, mode: Mode, is_secured: bool) -> Place {
        Place {
            dir: dir.join("server"),
            address: "127.0.0.1:2525".parse().unwrap(),
            relay: "127.0.0.1:2526".parse().unwrap(),
            cpus: vec![0, 2],
            mode,
            is_secured,
            processes: 200,
        }
    }

    #[test]
    fn those_built_in_are_whole() {
        let dir = Path::new("/srv");
        for server in built_in() {
            assert!(!server.start.is_empty() && server.address.is_none(), "{}", server.name);
            let tls = [false, true].into_iter().filter(|tls| !tls || server.does_tls());
            let ways = tls.flat_map(|tls| server.modes.iter().map(move |mode| (*mode, tls)));
            for (mode, is_secured) in ways {
                let values = server.values(&place(dir, mode, is_secured)).unwrap();
                let texts = server.file.iter().map(|file| &file.text);
                let commands = server.prepare.iter().chain([&server.start, &server.stop]).flatten();
                for text in texts.chain(commands) {
                    let text = fill(text, &values);
                    let braces = text.match_indices('{').filter(|(at, _)| {
                        text[at + 1..].starts_with(|c: char| c.is_ascii_lowercase())
                    });
                    assert_eq!(braces.count(), 0, "{}: {text}", server.name);
                }
            }
        }
    }

    #[test]
    fn ringposts_configuration_is_one_that_it_takes() {
        let dir = tempfile::tempdir().unwrap();
        let server = &built_in()[1];
        let path = dir.path().join("server");
        fs::create_dir(&path).unwrap();
        write_certificate(&path).unwrap();
        let ways = [
            (Mode::Accept, false, "\"discard\""),
            (Mode::Relay, false, "\"127.0.0.1:2526\""),
            (Mode::Accept, true, "tls = \"optional\""),
        ];
        for (mode, is_secured, part) in ways {
            let values = server.values(&place(dir.path(), mode, is_secured)).unwrap();
            let text = fill(&server.file[0].text, &values);
            assert!(text.contains(part) && text.contains("cores = \"0-0,2-2\""), "{text}");
            let text = text.replace("0-0,2-2", "1");
            let file = dir.path().join("ringpost.toml");
            fs::write(&file, text).unwrap();
            ringpost::config::Config::load(Some(&file), &[]).unwrap();
        }
    }

    #[test]
    fn a_version_is_told_without_colours() {
        assert_eq!(plain("\u{1b}[32;40mMine.js\u{1b}[0m - 3\u{1b}"), "Mine.js - 3");
        assert_eq!(plain(" mine 7 "), "mine 7");
        assert_eq!(plain("version: Mine 7"), "Mine 7");
    }

    #[test]
    fn words_that_come_out_empty_are_left_out() {
        let command = ["a".to_owned(), "{how}".to_owned(), "{how}b".to_owned()];
        assert_eq!(filled(&command, &[("how".into(), String::new())]), ["a", "b"]);
    }

    #[test]
    fn a_file_describes_a_server_or_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine.toml");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            from_file(&path)
        };
        let server =
            read("name = \"mine\"\naddress = \"127.0.0.1:25\"\nmodes = [\"accept\"]").unwrap();
        assert!(server.does(Mode::Accept) && !server.does(Mode::Relay));
        assert_eq!(server.missing(), None);
        let server = read("name = \"m\"\nstart = [\"m\"]\nneeds = [\"no-such-program\"]").unwrap();
        assert_eq!(server.missing(), Some("no-such-program"));
        for bad in ["name = \"m\"", "start = [\"m\"]", "name = \"m\"\nstart = [\"m\"]\nx = 1"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
