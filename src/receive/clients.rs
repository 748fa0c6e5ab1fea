//! How many sessions each client has open on this shard, so that one client
//! cannot take them all (`limits.connections_per_client`). IPv6 clients are
//! counted by their /64, the smallest block that one customer gets.
//!
//! The kernel spreads one client's connections over the shards; each shard
//! allows its share of the limit, at least one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use crate::policy::abuse::ClientKey;

/// Open sessions by client.
#[derive(Default)]
pub struct Clients {
    open: RefCell<HashMap<ClientKey, u32>>,
}

/// One session of a client; dropping it gives the place free.
pub struct Seat {
    clients: Rc<Clients>,
    key: ClientKey,
}

impl Clients {
    /// A place for a session of `client` if it has fewer than `max`.
    pub fn seat(self: &Rc<Self>, client: IpAddr, max: u32) -> Option<Seat> {
        let key = ClientKey::from(client);
        let mut open = self.open.borrow_mut();
        let count = open.entry(key).or_insert(0);
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Seat { clients: Rc::clone(self), key })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.clients.open.borrow_mut();
        if let Some(count) = open.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_address_and_by_64() {
        let clients = Rc::new(Clients::default());
        let v4: IpAddr = "192.0.2.1".parse().unwrap();
        let first = clients.seat(v4, 1).expect("the first fits");
        assert!(clients.seat(v4, 1).is_none());
        assert!(clients.seat("::ffff:192.0.2.1".parse().unwrap(), 1).is_none());
        drop(first);
        assert!(clients.open.borrow().is_empty(), "what is closed costs nothing");
        let _v6 = clients.seat("2001:db8::1".parse().unwrap(), 1).unwrap();
        assert!(clients.seat("2001:db8::2".parse().unwrap(), 1).is_none());
        assert!(clients.seat("2001:db8:0:1::1".parse().unwrap(), 1).is_some());
    }
}
