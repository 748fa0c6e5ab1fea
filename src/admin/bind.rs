//! The listening sockets: for each address one for each shard, sharing the port
//! by SO_REUSEPORT, so that the kernel spreads connections over the cores.

use std::io;
use std::net::{SocketAddr, TcpListener};

use super::failure::Failure;
use crate::io::net::{listen, probe};

/// The sockets of all shards.
pub struct Bound {
    /// For each shard, a socket for each address.
    pub per_shard: Vec<Vec<TcpListener>>,
    /// The addresses, port 0 resolved.
    pub addresses: Vec<SocketAddr>,
}

/// Binds every address once for each of `shards`.
///
/// # Errors
/// An address is taken, not ours, or not permitted; the text says what to do.
pub fn bind(addresses: &[SocketAddr], shards: usize) -> Result<Bound, Failure> {
    let mut bound = Bound { per_shard: Vec::new(), addresses: Vec::new() };
    bound.per_shard.resize_with(shards, Vec::new);
    // All of them before the first is bound: ours may overlap.
    for &address in addresses {
        probe(address).map_err(|error| explain(address, &error))?;
    }
    for &wanted in addresses {
        let mut address = wanted;
        for sockets in &mut bound.per_shard {
            let socket = listen(address).map_err(|error| explain(address, &error))?;
            address = socket.local_addr().map_err(|error| explain(address, &error))?;
            sockets.push(socket);
        }
        bound.addresses.push(address);
    }
    Ok(bound)
}

/// What went wrong with an address, and what to do.
pub fn explain(address: SocketAddr, error: &io::Error) -> Failure {
    let port = address.port();
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("another process listens there (`ss -ltnp sport = :{port}` shows which)")
        }
        io::ErrorKind::PermissionDenied if port < 1024 => "ports below 1024 need \
             CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE)"
            .to_owned(),
        io::ErrorKind::AddrNotAvailable => {
            format!("this host has no address {} (`ip addr` shows those it has)", address.ip())
        }
        _ => "see [[listener]] address and [admin] http in the configuration".to_owned(),
    };
    Failure::runtime(format!("cannot listen on {address}: {error}; {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_gets_each_address_with_one_port() {
        let any = "127.0.0.1:0".parse().unwrap();
        let bound = bind(&[any, any], 3).unwrap();
        assert_eq!(bound.per_shard.len(), 3);
        for sockets in &bound.per_shard {
            let got: Vec<_> = sockets.iter().map(|s| s.local_addr().unwrap()).collect();
            assert_eq!(got, bound.addresses);
        }
        assert_ne!(bound.addresses[0].port(), bound.addresses[1].port());
    }

    #[test]
    fn a_port_in_use_is_refused_even_if_it_could_be_shared() {
        let first = bind(&["127.0.0.1:0".parse().unwrap()], 1).unwrap();
        let address = first.addresses[0];
        let error = bind(&[address], 1).err().expect("in use");
        assert!(error.message.contains(&address.to_string()), "{error}");
        assert!(error.message.contains("ss -ltnp"), "{error}");
        drop(first);
        assert_eq!(bind(&[address], 2).expect("free again").addresses, [address]);
    }

    #[test]
    fn our_own_addresses_may_overlap() {
        let free = bind(&["0.0.0.0:0".parse().unwrap()], 1).unwrap().addresses[0].port();
        let mut addresses: Vec<SocketAddr> =
            vec![([0, 0, 0, 0], free).into(), ([127, 0, 0, 1], free).into()];
        if std::path::Path::new("/proc/net/if_inet6").exists() {
            addresses.push(([0u16; 8], free).into());
        }
        assert_eq!(bind(&addresses, 2).map(|b| b.addresses).map_err(|e| e.message), Ok(addresses));
    }

    #[test]
    fn an_address_of_another_host_is_explained() {
        let error = bind(&["192.0.2.1:2525".parse().unwrap()], 1).err().expect("not ours");
        assert!(error.message.contains("this host has no address 192.0.2.1"), "{error}");
    }
}
