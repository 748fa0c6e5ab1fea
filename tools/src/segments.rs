//! `ringpost-segments`: looks into the log of a stopped server, or a copy of
//! one, file by file. It reads with the server's own rules
//! (`ringpost::queue::{format, record, walk, fact, checkpoint}`) and writes
//! nothing into the log.
//!
//! The files by job: `log` finds out which files there are, `file` reads one
//! segment, `list`, `dump` and `verify` say what is in them; `replay` finds what
//! is still queued, `mail` reads a message, `recover` joins the two and gives
//! the messages to `export` or `resend`.
//!
//! Logs are larger than memory: a window of one segment is in memory, and what
//! the messages that are queued need.

mod dump;
mod export;
mod file;
mod list;
mod log;
mod mail;
mod recover;
mod replay;
mod resend;
mod verify;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ringpost::base::QueueId;

use crate::values;
use log::Log;

/// Looks into the segments of a queue, offline.
#[derive(Debug, Parser)]
#[command(name = "ringpost-segments", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One line for each file: what it is and what it holds.
    List(Which),
    /// Check every record and checkpoint; exit 1 if something is damaged.
    Verify(Which),
    /// One line for each record.
    Dump(Which),
    /// Write the messages that are still queued to files, or give them to a
    /// server.
    Recover(Recover),
}

#[derive(Debug, Args)]
struct Which {
    /// A log's directory (data_dir/log-NNNNN), or files of one log.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct Recover {
    /// The log's directory.
    log: PathBuf,
    #[command(flatten)]
    to: Where,
    /// Settled messages too, as far as they are still there.
    #[arg(long, conflicts_with = "resend")]
    all: bool,
    /// Only the message with this id; may be given more than once.
    #[arg(long, value_name = "ID")]
    id: Vec<QueueId>,
    /// Only messages of which something lies in this segment, a number as in
    /// the name of its file; may be given more than once.
    #[arg(long, value_name = "SEGMENT", value_parser = segment_number)]
    segment: Vec<u32>,
    /// Send to recipients too that an operator holds back.
    #[arg(long, requires = "resend")]
    held: bool,
    /// How long the server may take for an answer, or to take a part.
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = values::span)]
    timeout: Duration,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Where {
    /// Where the messages go: ID.eml, and ID.json with the envelope. Made if it
    /// does not exist.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The server that the messages are given to, over SMTP.
    #[arg(long, value_name = "HOST:PORT")]
    resend: Option<String>,
}

fn segment_number(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 16)
        .map_err(|_| format!("\"{text}\" is no segment: hexadecimal digits, as in \"0000002a\""))
}

/// Runs the tool. True if nothing was found damaged, and all that was to be
/// recovered has been.
///
/// # Errors
/// A path cannot be read, the output not written, or the server not reached.
pub fn run(cli: &Cli, out: &mut impl Write) -> io::Result<bool> {
    match &cli.command {
        Command::List(which) => list::list(&Log::open_all(&which.paths)?, out),
        Command::Verify(which) => verify::verify(&Log::open_all(&which.paths)?, out),
        Command::Dump(which) => dump::dump(&Log::open_all(&which.paths)?, out),
        Command::Recover(recover) => recover::recover(recover, out),
    }
}
