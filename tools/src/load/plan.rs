//! What a run is to do, worked out from the options once and shared by all
//! workers.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use super::options::Options;
use crate::corpus;
use crate::draw;
use crate::message::Template;

/// A run.
pub struct Plan {
    /// The server.
    pub target: SocketAddr,
    /// Said in EHLO.
    pub helo: String,
    /// Envelope sender.
    pub from: String,
    /// Envelope recipients of every message.
    pub recipients: Vec<String>,
    templates: Vec<Template>,
    /// How long a reply may take.
    pub timeout: Duration,
    /// Messages on one connection.
    pub messages_per_connection: Option<u64>,
    /// Whether PIPELINING may be used.
    pub pipelining: bool,
    /// Names the run in marks.
    pub run: u32,
    /// Where messages answered 250 are noted.
    pub ledger: Option<PathBuf>,
}

impl Plan {
    /// Works out a run.
    ///
    /// # Errors
    /// The target does not resolve, or the messages cannot be read.
    pub fn new(options: &Options) -> io::Result<Self> {
        let target = options.target.to_socket_addrs().and_then(|mut all| {
            all.next().ok_or_else(|| io::Error::other("the name has no address"))
        });
        let target = target.map_err(|error| {
            io::Error::new(error.kind(), format!("--target {}: {error}", options.target))
        })?;
        let templates = match &options.eml {
            Some(dir) => corpus::folder(dir)?,
            None if options.corpus => corpus::shipped(&options.from, &options.to),
            None => vec![Template::generated(options.size, &options.from, &options.to)],
        };
        Ok(Plan {
            target,
            helo: options.helo.clone(),
            from: options.from.clone(),
            recipients: options.recipient_list(),
            templates,
            timeout: options.timeout,
            messages_per_connection: options.messages_per_connection,
            pipelining: options.pipelining,
            run: draw::seed() as u32,
            ledger: options.ledger.clone(),
        })
    }

    /// The template of message `seq`: they take turns.
    pub fn template(&self, seq: u64) -> &Template {
        &self.templates[(seq % self.templates.len() as u64) as usize]
    }

    /// Octets of the largest template on the wire.
    pub fn wire_max(&self) -> usize {
        self.templates.iter().map(|template| template.wire.len()).max().unwrap_or(0)
    }
}
