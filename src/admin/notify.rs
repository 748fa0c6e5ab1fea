//! The service manager's notification socket (sd_notify(3)): one datagram for
//! each change of state, to the address in `NOTIFY_SOCKET`; nothing without it.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Everything has been recovered and listens.
pub const READY: &str = "READY=1\nSTATUS=Accepting mail";
/// The drain has begun.
pub const STOPPING: &str = "STOPPING=1\nSTATUS=Finishing what is in flight";

/// Tells the service manager named by the environment, if there is one.
pub fn tell(state: &str) {
    if let Some(address) = std::env::var_os("NOTIFY_SOCKET").filter(|a| !a.is_empty())
        && let Err(error) = send(&address, state)
    {
        let address = address.display();
        tracing::warn!(target: "ringpost", %error, %address, "cannot tell the service manager");
    }
}

/// `address` is a path, or a name in the abstract namespace after `@`.
fn send(address: &OsStr, state: &str) -> io::Result<()> {
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reaches_a_path_and_an_abstract_name() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), READY).unwrap();
        let mut got = [0; 128];
        let len = manager.recv(&mut got).unwrap();
        assert!(got[..len].starts_with(b"READY=1\n"));

        let name = format!("ringpost-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        send(OsStr::new(&format!("@{name}")), STOPPING).unwrap();
        let len = manager.recv(&mut got).unwrap();
        assert!(got[..len].starts_with(b"STOPPING=1\n"));
    }
}
