//! Hosts to relay to, as `route.next_hop` names them: an address with a port, or
//! a host name with or without one.

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
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Address(address) => address.fmt(f),
            Host::Name(name) => f.write_str(name),
        }
    }
}

/// A host and the port to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// The host.
    pub host: Host,
    /// The port; `delivery.port` for `None`. Never 0, and always there with an
    /// address.
    pub port: Option<u16>,
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        HostPort { host: Host::Address(address.ip()), port: Some(address.port()) }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
        Ok(HostPort { host: Host::Name(name.to_ascii_lowercase().into()), port })
    }
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
        for text in
            ["192.0.2.1:25", "[2001:db8::1]:25", "mx.example.org:587", "mx.example.org", "hop:2525"]
        {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
        let host: HostPort = "MX.Example.org.".parse().unwrap();
        assert_eq!(host, HostPort { host: Host::Name("mx.example.org".into()), port: None });
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
        ] {
            let error = text.parse::<HostPort>().unwrap_err();
            assert!(error.contains(problem), "{text:?}: {error}");
        }
    }
}
