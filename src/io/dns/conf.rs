//! `/etc/resolv.conf` (resolv.conf(5)): whom the host asks. Of its words
//! `nameserver` and the options `timeout`, `attempts` and `rotate` count; names
//! are never completed with search domains. A file that changes is read again.

use std::ffi::CString;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::PORT;

/// Where the host says whom it asks.
pub(super) const PATH: &str = "/etc/resolv.conf";
/// Most seconds and attempts that the file may ask for, as elsewhere.
const TIMEOUT_MAX: u64 = 30;
const ATTEMPTS_MAX: u32 = 5;
/// Rounds over the servers unless the file says otherwise.
pub(super) const ATTEMPTS: u32 = 2;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conf {
    /// At least one.
    pub(super) servers: Vec<SocketAddr>,
    /// How long to wait for a server before the next is asked.
    pub(super) timeout: Option<Duration>,
    /// Rounds over the servers.
    pub(super) attempts: u32,
    /// Begin each look-up with the next server.
    pub(super) rotates: bool,
}

impl Default for Conf {
    /// Without a file, the host itself is asked.
    fn default() -> Self {
        let servers = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))];
        Conf { servers, timeout: None, attempts: ATTEMPTS, rotates: false }
    }
}

impl Conf {
    /// Reads the text of a file. What it does not know it passes over, as the
    /// C library does.
    pub(super) fn parse(text: &str) -> Self {
        let mut conf = Conf { servers: Vec::new(), ..Conf::default() };
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().and_then(server)),
                Some("options") => words.for_each(|word| conf.option(word)),
                _ => {}
            }
        }
        if conf.servers.is_empty() {
            conf.servers = Conf::default().servers;
        }
        conf
    }

    fn option(&mut self, word: &str) {
        match word.split_once(':') {
            None if word == "rotate" => self.rotates = true,
            Some(("timeout", seconds)) => {
                let seconds = seconds.parse::<u64>().ok().map(|n| n.clamp(1, TIMEOUT_MAX));
                self.timeout = seconds.map(Duration::from_secs).or(self.timeout);
            }
            Some(("attempts", count)) => {
                let count = count.parse::<u32>().ok().map(|n| n.clamp(1, ATTEMPTS_MAX));
                self.attempts = count.unwrap_or(self.attempts);
            }
            _ => {}
        }
    }
}

/// A server's address, with the interface of a link-local one after `%`.
fn server(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, PORT));
    }
    let (address, scope) = text.split_once('%')?;
    let scope = scope.parse().ok().or_else(|| interface(scope))?;
    Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, scope).into())
}

/// The number of a network interface.
fn interface(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: `name` ends in a NUL and outlives the call.
    let number = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (number != 0).then_some(number)
}

/// What tells one state of a file from another; `None` if there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp(Option<(u64, u64, i64, i64)>);

impl Stamp {
    /// How `path` stands now.
    pub(super) fn of(path: &Path) -> Self {
        let stamp = |meta: fs::Metadata| (meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec());
        Stamp(fs::metadata(path).ok().map(stamp))
    }
}

/// Reads a file, and how it stood before it was read.
///
/// # Errors
/// Those of reading it, other than that there is none.
pub(super) fn read(path: &Path) -> (Stamp, io::Result<Conf>) {
    let stamp = Stamp::of(path);
    let conf = match fs::read(path) {
        Ok(bytes) => Ok(Conf::parse(&String::from_utf8_lossy(&bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Conf::default()),
        Err(error) => Err(error),
    };
    (stamp, conf)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn reads_servers_and_options() {
        let text = "# by hand\n;nameserver 192.0.2.9\ndomain example.org\nsearch a.example b.example\n\
                    nameserver 192.0.2.1\nnameserver\t2001:db8::1  # more\nnameserver nonsense\n\
                    nameserver fe80::1%7\nnameserver fe80::2%lo\nnameserver\n\
                    options ndots:2 timeout:3\noptions rotate attempts:4 edns0\n";
        let conf = Conf::parse(text);
        let known = ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%7]:53"];
        assert_eq!(conf.servers[..3], addresses(&known));
        assert!(matches!(conf.servers[3], SocketAddr::V6(lo) if lo.scope_id() > 0));
        assert_eq!(
            (conf.timeout, conf.attempts, conf.rotates),
            (Some(Duration::from_secs(3)), 4, true)
        );
    }

    #[test]
    fn nothing_and_nonsense_mean_the_host_itself() {
        for text in ["", "nameserver 1.2.3\n", "options timeout:x attempts: rotate:1 timeout\n"] {
            assert_eq!(Conf::parse(text), Conf::default(), "{text:?}");
        }
        let far = Conf::parse("options timeout:9999 attempts:0\n");
        assert_eq!((far.timeout, far.attempts), (Some(Duration::from_secs(TIMEOUT_MAX)), 1));
    }

    #[test]
    fn a_change_of_the_file_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let (absent, conf) = read(&path);
        assert_eq!(conf.unwrap(), Conf::default());
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        let (first, conf) = read(&path);
        assert_eq!(conf.unwrap().servers, addresses(&["192.0.2.1:53"]));
        assert_eq!(Stamp::of(&path), first);
        assert_ne!(first, absent);
        // Replaced by another of the same size, as most tools do.
        let other = folder.path().join("other");
        fs::write(&other, "nameserver 192.0.2.2\n").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_ne!(Stamp::of(&path), first);
        assert!(read(folder.path()).1.is_err());
    }
}
