//! `ringpost queue retry`, `hold`, `release` and `drop`.

use std::io::Write;

use clap::Args;

use super::{PAGE, note_unread, usage, write_json};
use crate::admin::client::{Server, Trouble};
use crate::admin::failure::Failure;
use crate::admin::filter::Filter;
use crate::admin::print;
use crate::admin::wire::{Answer, Ask, OrderAsk, OrderedView};
use crate::base::QueueId;
use crate::shard::control::Action;

/// Ids in one request: with a filter they stay well below the longest request.
const IDS: usize = 64;

/// To which messages an order is.
#[derive(Debug, Args)]
pub(super) struct OrderArgs {
    /// These messages
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// All messages
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// One JSON object a message
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: Filter,
}

impl OrderArgs {
    /// What is wrong with the words.
    pub(super) fn check(&self, action: Action) -> Result<(), Failure> {
        self.filter.selection().map_err(usage)?;
        for id in &self.ids {
            id.parse::<QueueId>().map_err(|wrong| Failure::usage(format!("{id:?} is {wrong}")))?;
        }
        if self.ids.is_empty() && self.filter.is_empty() && !self.all {
            return Err(Failure::usage(format!(
                "to which messages? Give `ringpost queue {0}` ids, a filter, or --all",
                action.name()
            )));
        }
        Ok(())
    }

    /// The requests that together are the order, but for cursors.
    fn requests(&self) -> Vec<OrderAsk> {
        let ask = |ids: &[String]| OrderAsk {
            ids: ids.to_vec(),
            filter: self.filter.clone(),
            all: self.all,
            dry_run: self.dry_run,
            cursor: None,
            limit: Some(PAGE),
        };
        if self.ids.is_empty() { vec![ask(&[])] } else { self.ids.chunks(IDS).map(ask).collect() }
    }
}

/// What has been done so far.
#[derive(Default)]
struct Done {
    messages: u64,
    recipients: u64,
    /// Named messages that are queued, concerned or not.
    found: u64,
    unread: u64,
}

/// Carries out `action`, printing each message when it is done and durable.
pub(super) fn order(
    server: &mut Server,
    action: Action,
    args: &OrderArgs,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> Result<(), Trouble> {
    let mut done = Done::default();
    let mut carried = Ok(());
    'requests: for mut ask in args.requests() {
        loop {
            let view = match server.ask(&Ask::order(action, ask.clone())) {
                Ok(Answer::Ordered(view)) => view,
                Ok(_) => Err(server.unexpected())?,
                Err(trouble) => {
                    carried = Err(trouble);
                    break 'requests;
                }
            };
            print(&view, args.json, &mut done, out, notes)?;
            if let Some(trouble) = view.trouble {
                carried = Err(Trouble::Server(Failure::runtime(trouble)));
                break 'requests;
            }
            match view.next {
                Some(next) => ask.cursor = Some(next),
                None => break,
            }
        }
    }
    if !args.json {
        writeln!(out, "{}", sum(action, args.dry_run, &done))?;
    }
    note_unread(notes, done.unread);
    carried?;
    if !args.ids.is_empty() && done.found == 0 {
        return Err(Trouble::Server(Failure::runtime("nothing done: no such message is queued")));
    }
    Ok(())
}

fn print(
    view: &OrderedView,
    json: bool,
    done: &mut Done,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> Result<(), Trouble> {
    for message in &view.messages {
        if json {
            write_json(out, message)?;
        } else {
            print::ordered(out, message)?;
        }
        done.found += 1;
        done.messages += u64::from(!message.recipients.is_empty());
        done.recipients += message.recipients.len() as u64;
    }
    out.flush()?;
    for id in &view.unknown {
        // A closed standard error leaves this unsaid.
        let _ = writeln!(
            notes,
            "ringpost: {id} is not queued: it has been settled (the log says how: grep {id}), or \
             was accepted by another server"
        );
    }
    done.unread = view.unread.max(done.unread);
    Ok(())
}

/// What was done, in one line.
fn sum(action: Action, dry_run: bool, done: &Done) -> String {
    let verb = match (action, dry_run) {
        (action, true) => format!("would {}", action.name()),
        (Action::Hold, _) => "held".to_owned(),
        (Action::Release, _) => "released".to_owned(),
        (Action::Retry, _) => "due now:".to_owned(),
        (Action::Drop, _) => "dropped".to_owned(),
    };
    let count = |number: u64, noun: &str| match number {
        1 => format!("1 {noun}"),
        number => format!("{number} {noun}s"),
    };
    let (recipients, messages) =
        (count(done.recipients, "recipient"), count(done.messages, "message"));
    format!("-- {verb} {recipients} of {messages}.")
}
