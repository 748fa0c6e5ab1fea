//! The rates of clients and users, for all shards: how many connections and
//! messages each has begun of late (`limits.*_rate_per_*`).
//!
//! Behind locks, which are taken only where a rate is configured, so that a rate
//! holds for the server and not for each core by itself: the connections of one
//! client are spread over the cores by chance.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::base::{EnhancedCode, Reply};
use crate::config::{Limits, Rate};
use crate::policy::abuse::{ClientKey, Rates};

use super::profile::holds;

/// What clients and users have taken of their rates.
#[derive(Default)]
pub struct Meters {
    connections: Mutex<Rates<ClientKey>>,
    messages: Mutex<Rates<ClientKey>>,
    users: Mutex<Rates<String>>,
}

impl Meters {
    /// Whether `client` may have one more connection.
    ///
    /// # Errors
    /// The reply to it (421).
    pub(super) fn connection(
        &self,
        limits: &Limits,
        client: IpAddr,
        now: Instant,
    ) -> Result<(), Reply> {
        let Some(rate) = limits.connection_rate_per_client else { return Ok(()) };
        if holds(&limits.unlimited, client) {
            return Ok(());
        }
        let mut rates = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        rates.take(&ClientKey::from(client), rate, now).map_err(|wait| {
            let key = "connection_rate_per_client";
            refusal(421, 0, ("connections from your address", key), rate, wait)
        })
    }

    /// Whether `client`, who may have authenticated as `user`, may begin one more
    /// transaction.
    ///
    /// # Errors
    /// The reply to it (451).
    pub(super) fn message(
        &self,
        limits: &Limits,
        client: IpAddr,
        user: Option<&str>,
        now: Instant,
    ) -> Result<(), Reply> {
        if let (Some(rate), Some(user)) = (limits.message_rate_per_user, user) {
            let mut rates = self.users.lock().unwrap_or_else(PoisonError::into_inner);
            rates.take(user, rate, now).map_err(|wait| {
                refusal(451, 1, ("messages of this user", "message_rate_per_user"), rate, wait)
            })?;
        }
        let Some(rate) = limits.message_rate_per_client else { return Ok(()) };
        if holds(&limits.unlimited, client) {
            return Ok(());
        }
        let mut rates = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        rates.take(&ClientKey::from(client), rate, now).map_err(|wait| {
            let key = "message_rate_per_client";
            refusal(451, 1, ("messages from your address", key), rate, wait)
        })
    }
}

/// A reply that says what there was too much of, the limit and when there is room.
fn refusal(code: u16, detail: u16, what: (&str, &str), rate: Rate, wait: Duration) -> Reply {
    let (what, key) = what;
    let seconds = wait.as_millis().div_ceil(1000);
    let text = format!("more than {rate} {what} (limits.{key}), try again in {seconds} s");
    Reply::new(code, EnhancedCode(4, 7, detail), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Per;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_refusal_names_its_limit() {
        let rate = |count| Some(Rate { count, per: Per::Hour });
        let limits = Limits {
            connection_rate_per_client: rate(1),
            message_rate_per_client: rate(2),
            message_rate_per_user: rate(1),
            unlimited: vec!["192.0.2.9/32".parse().unwrap()],
            ..Limits::default()
        };
        let (meters, now, client) = (Meters::default(), Instant::now(), ip("192.0.2.1"));
        assert_eq!(meters.connection(&limits, client, now), Ok(()));
        let refused = meters.connection(&limits, client, now).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "421 4.7.0 more than 1/h connections from your address \
             (limits.connection_rate_per_client), try again in 3600 s"
        );
        assert_eq!(meters.message(&limits, client, Some("user"), now), Ok(()));
        let refused = meters.message(&limits, ip("192.0.2.2"), Some("user"), now).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "451 4.7.1 more than 1/h messages of this user (limits.message_rate_per_user), \
             try again in 3600 s"
        );
        assert_eq!(meters.message(&limits, client, None, now), Ok(()));
        let refused = meters.message(&limits, client, None, now).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "451 4.7.1 more than 2/h messages from your address \
             (limits.message_rate_per_client), try again in 1800 s"
        );
        for _ in 0..5 {
            assert_eq!(meters.connection(&limits, ip("192.0.2.9"), now), Ok(()));
            assert_eq!(meters.message(&limits, ip("::ffff:192.0.2.9"), None, now), Ok(()));
        }
    }
}
