//! What all sessions of a listener have in common: limits, and the replies that
//! name the host, made once.

use crate::proto::address::Address;

/// Limits and name of a server; shared by its sessions.
#[derive(Debug)]
pub struct Settings {
    hostname: Box<str>,
    message_size: u64,
    recipients_max: usize,
    errors_max: u32,
    greeting: Box<[u8]>,
    ehlo: Box<[u8]>,
    helo: Box<[u8]>,
}

impl Settings {
    /// Settings of a server that calls itself `hostname`, takes messages of up
    /// to `message_size` octets for up to `recipients_max` recipients, and ends
    /// a session at its error number `errors_max`.
    pub fn new(
        hostname: &str,
        message_size: u64,
        recipients_max: u32,
        errors_max: u32,
    ) -> Settings {
        debug_assert!(Address::parse(&format!("postmaster@{hostname}")).is_ok());
        let ehlo = format!(
            "250-{hostname}\r\n250-PIPELINING\r\n250-SIZE {message_size}\r\n250-8BITMIME\r\n\
             250-SMTPUTF8\r\n250-DSN\r\n250-ENHANCEDSTATUSCODES\r\n250 HELP\r\n"
        );
        Settings {
            hostname: hostname.into(),
            message_size,
            recipients_max: recipients_max as usize,
            errors_max,
            greeting: format!("220 {hostname} ESMTP ringpost\r\n").into_bytes().into(),
            ehlo: ehlo.into_bytes().into(),
            helo: format!("250 {hostname}\r\n").into_bytes().into(),
        }
    }

    /// The name of the host.
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// Most octets in a message.
    pub fn message_size(&self) -> u64 {
        self.message_size
    }

    /// Most recipients in a transaction.
    pub fn recipients_max(&self) -> usize {
        self.recipients_max
    }

    /// The number of the error that ends a session.
    pub fn errors_max(&self) -> u32 {
        self.errors_max
    }

    pub(super) fn greeting(&self) -> &[u8] {
        &self.greeting
    }

    pub(super) fn hello(&self, extended: bool) -> &[u8] {
        if extended { &self.ehlo } else { &self.helo }
    }
}
