//! Hosts to relay to, as `route.next_hop` names them: an address with a port, or
//! a host name with or without one; for other ways than plain SMTP as a URL,
//! `smtps://HOST:PORT`, `lmtp://HOST:PORT` or `lmtp+unix:///PATH`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::values::check_hostname;

/// A host: its address, or a name that is to be looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A host name in lower case, without a final dot.
    Name(Box<str>),
    /// A socket of this machine: its path, which is absolute.
    Socket(Box<str>),
}

/// What is spoken to a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Way {
    /// SMTP (RFC 5321).
    #[default]
    Smtp,
    /// SMTP over TLS from the first octet on (RFC 8314).
    Smtps,
    /// LMTP (RFC 2033).
    Lmtp,
}

impl Way {
    /// The port where none is written; `delivery.port` for SMTP.
    pub fn port(self) -> Option<u16> {
        match self {
            Way::Smtp => None,
            Way::Smtps => Some(465),
            Way::Lmtp => Some(24),
        }
    }

    /// What stands before the host.
    fn scheme(self) -> &'static str {
        match self {
            Way::Smtp => "",
            Way::Smtps => "smtps://",
            Way::Lmtp => "lmtp://",
        }
    }
}

/// What stands before the path of a socket, on which LMTP is spoken.
const SOCKET_SCHEME: &str = "lmtp+unix://";
/// Longest path of a socket (`sun_path`, without the NUL behind it).
const SOCKET_PATH_MAX: usize = 107;

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Address(address) => address.fmt(f),
            Host::Name(name) => f.write_str(name),
            Host::Socket(path) => f.write_str(path),
        }
    }
}

/// A host, the port to connect to, and what is spoken there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// What is spoken.
    pub way: Way,
    /// The host.
    pub host: Host,
    /// The port; that of the way, or `delivery.port`, for `None`. Never 0, always
    /// there with an address, and never with a socket.
    pub port: Option<u16>,
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        let host = Host::Address(address.ip());
        HostPort { way: Way::Smtp, host, port: Some(address.port()) }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Host::Socket(path) = &self.host {
            return write!(f, "{SOCKET_SCHEME}{path}");
        }
        f.write_str(self.way.scheme())?;
        match (&self.host, self.port) {
            (Host::Address(address), Some(port)) => SocketAddr::new(*address, port).fmt(f),
            (host, Some(port)) => write!(f, "{host}:{port}"),
            (host, None) => host.fmt(f),
        }
    }
}

impl FromStr for HostPort {
    /// What is wrong with the text.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix(SOCKET_SCHEME) {
            return socket(path);
        }
        for way in [Way::Smtps, Way::Lmtp] {
            if let Some(host) = text.strip_prefix(way.scheme()) {
                let plain = plain(host)?;
                return Ok(HostPort { way, ..plain });
            }
        }
        plain(text)
    }
}

fn socket(path: &str) -> Result<HostPort, String> {
    if !path.starts_with('/') || path.len() == 1 || path.contains(char::is_control) {
        return Err(format!("{path:?} is not the absolute path of a socket"));
    }
    if path.len() > SOCKET_PATH_MAX {
        return Err(format!("the path is longer than the {SOCKET_PATH_MAX} octets of a socket's"));
    }
    Ok(HostPort { way: Way::Lmtp, host: Host::Socket(path.into()), port: None })
}

/// Without a scheme.
fn plain(text: &str) -> Result<HostPort, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        if address.port() == 0 || address.ip().is_unspecified() {
            return Err(format!("{address} is not an address that can be connected to"));
        }
        return Ok(address.into());
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err(format!("{text:?} lacks a port"));
    }
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(parse_port(port).ok_or_else(|| no_host(text))?)),
        None => (text, None),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let top = name.rsplit('.').next().unwrap_or(name);
    if !top.is_empty() && top.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(no_host(text));
    }
    check_hostname(name).map_err(|problem| format!("{}: {problem}", no_host(text)))?;
    if port.is_none() && !name.contains('.') {
        return Err(format!(
            "{text:?} is no word that is known here; as a host name it needs a port or a dot"
        ));
    }
    let host = Host::Name(name.to_ascii_lowercase().into());
    Ok(HostPort { way: Way::Smtp, host, port })
}

fn no_host(text: &str) -> String {
    format!("{text:?} is neither an address with a port nor a host name")
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_hosts() {
        for (text, way) in [
            ("192.0.2.1:25", Way::Smtp),
            ("[2001:db8::1]:25", Way::Smtp),
            ("mx.example.org:587", Way::Smtp),
            ("mx.example.org", Way::Smtp),
            ("hop:2525", Way::Smtp),
            ("smtps://mx.example.org", Way::Smtps),
            ("smtps://[::1]:465", Way::Smtps),
            ("lmtp://127.0.0.1:24", Way::Lmtp),
            ("lmtp://store.example.org", Way::Lmtp),
            ("lmtp+unix:///run/dovecot/lmtp", Way::Lmtp),
        ] {
            let host = text.parse::<HostPort>().unwrap();
            assert_eq!((host.to_string().as_str(), host.way), (text, way));
        }
        let host: HostPort = "MX.Example.org.".parse().unwrap();
        let name = Host::Name("mx.example.org".into());
        assert_eq!(host, HostPort { way: Way::Smtp, host: name, port: None });
    }

    #[test]
    fn refuses_what_cannot_be_connected_to() {
        for (text, problem) in [
            ("192.0.2.1", "lacks a port"),
            ("::1", "lacks a port"),
            ("192.0.2.1:0", "connected to"),
            ("0.0.0.0:25", "connected to"),
            ("[::]:25", "connected to"),
            ("127.0.0.1:70000", "neither"),
            ("192.0.2.300:25", "neither"),
            ("mx.example.org:0", "neither"),
            ("mx.example.org:", "neither"),
            ("mx.example.org:+25", "neither"),
            ("mx_1.example.org", "'_' cannot stand"),
            ("a..b", "empty label"),
            ("mx.example.org..", "empty label"),
            ("bücher.example", "xn--"),
            ("", "neither"),
            ("discrad", "no word that is known"),
            ("lmtp://127.0.0.1", "lacks a port"),
            ("lmtp+unix://run/lmtp", "absolute path"),
            ("lmtp+unix:///", "absolute path"),
            ("smtps://", "neither"),
            ("smtp://mx.example.org", "neither"),
        ] {
            let error = text.parse::<HostPort>().unwrap_err();
            assert!(error.contains(problem), "{text:?}: {error}");
        }
    }
}
