//! `ringpost queue`: asks the running server through its admin socket and
//! prints for people, or with `--json` for programs (one object a line). `show`
//! is about one message, `list` and `orders` about many, page by page.

mod list;
mod orders;
mod show;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::cli::ConfigArgs;
use super::client::{Server, Trouble};
use super::failure::Failure;
use super::filter::Filter;
use super::wire::SITES_DEFAULT;
use crate::shard::control::Action;
use orders::OrderArgs;

/// Messages asked for at a time.
const PAGE: usize = 1000;

/// Options of `ringpost queue`.
#[derive(Debug, Args)]
pub struct QueueArgs {
    /// The configuration of the server; without it the embedded default
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Override a key of it; may be repeated
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    set: Vec<String>,
    /// The admin socket, instead of the one that the configuration names
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// List queued messages, as `postqueue -p` does
    List {
        /// One JSON object a message, with the fields of `postqueue -j`
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        filter: Filter,
    },
    /// Show one message: its envelope and what became of it so far
    Show {
        /// The id that the client was given, and that `Received:` names
        id: String,
        /// Print the message itself, and nothing else
        #[arg(long, conflicts_with = "json")]
        message: bool,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Make the next attempt due now
    Retry(OrderArgs),
    /// Make no attempts until released
    Hold(OrderArgs),
    /// End a hold; the next attempt is due now
    Release(OrderArgs),
    /// Give messages up, without a report to their senders
    Drop(OrderArgs),
    /// Show the state of the server, its shards and its destinations
    Summary {
        /// How many destinations: those with most mail
        #[arg(long, value_name = "N", default_value_t = SITES_DEFAULT)]
        sites: usize,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
}

impl QueueCommand {
    /// The order, if it is one.
    fn order(&self) -> Option<(Action, &OrderArgs)> {
        match self {
            QueueCommand::Retry(args) => Some((Action::Retry, args)),
            QueueCommand::Hold(args) => Some((Action::Hold, args)),
            QueueCommand::Release(args) => Some((Action::Release, args)),
            QueueCommand::Drop(args) => Some((Action::Drop, args)),
            _ => None,
        }
    }

    /// What is wrong with the words, before anybody is asked.
    fn check(&self) -> Result<(), Failure> {
        if let QueueCommand::List { filter, .. } = self {
            filter.selection().map_err(usage)?;
        }
        self.order().map_or(Ok(()), |(action, args)| args.check(action))
    }
}

/// A filter that is wrong, as an option.
fn usage(wrong: String) -> Failure {
    Failure::usage(format!("--{wrong}"))
}

/// Runs the command, printing to `out`; what is to be known besides goes to
/// `notes`.
///
/// # Errors
/// The words make no sense, no server answers, or it could not do what was
/// asked.
pub fn run(args: &QueueArgs, out: &mut impl Write, notes: &mut impl Write) -> Result<(), Failure> {
    args.command.check()?;
    let path = match &args.socket {
        Some(path) => path.clone(),
        None => {
            let source = ConfigArgs { config: args.config.clone(), set: args.set.clone() };
            source.load()?.admin_socket()
        }
    };
    let mut server = Server::connect(&path)?;
    let mut out = io::BufWriter::new(out);
    let printed = match &args.command {
        QueueCommand::List { json, filter } => {
            list::list(&mut server, filter, *json, &mut out, notes)
        }
        QueueCommand::Show { id, message, json } => {
            show::show(&mut server, id, *message, *json, &mut out)
        }
        QueueCommand::Summary { sites, json } => {
            show::summarise(&mut server, *sites, *json, &mut out)
        }
        order => {
            let (action, args) = order.order().expect("the others are above");
            orders::order(&mut server, action, args, &mut out, notes)
        }
    };
    let flushed = out.flush().map_err(Trouble::Printing);
    match printed.and(flushed) {
        Ok(()) => Ok(()),
        // Whoever reads has seen enough, as `head` has.
        Err(Trouble::Printing(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(Trouble::Printing(error)) => {
            Err(Failure::runtime(format!("cannot write to standard output: {error}")))
        }
        Err(Trouble::Server(failure)) => Err(failure),
    }
}

fn write_json(out: &mut impl Write, value: &impl serde::Serialize) -> Result<(), Trouble> {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    Ok(writeln!(out)?)
}

/// Says that not all of the queue is known yet.
fn note_unread(notes: &mut impl Write, unread: u64) {
    if unread > 0 {
        // A closed standard error leaves this unsaid.
        let _ = writeln!(
            notes,
            "ringpost: the queue is still being read after a start: {unread} segments left; mail \
             in them was passed over"
        );
    }
}
