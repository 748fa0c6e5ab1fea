//! `ringpost queue list`.

use std::io::Write;

use super::{PAGE, note_unread, write_json};
use crate::admin::client::{Server, Trouble};
use crate::admin::filter::Filter;
use crate::admin::print;
use crate::admin::wire::{Answer, Ask};

/// Prints the messages that `filter` lets through, page by page as they come.
pub(super) fn list(
    server: &mut Server,
    filter: &Filter,
    json: bool,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> Result<(), Trouble> {
    let mut cursor = None;
    let (mut count, mut bytes, mut unread) = (0u64, 0u64, 0);
    loop {
        let ask = Ask::List { cursor, limit: PAGE, filter: filter.clone() };
        let Answer::Page(page) = server.ask(&ask)? else {
            return Err(server.unexpected());
        };
        for message in &page.messages {
            if json {
                write_json(out, message)?;
            } else {
                if count == 0 {
                    print::list_head(out)?;
                }
                print::message(out, message)?;
            }
            count += 1;
            bytes += message.message_size;
        }
        out.flush()?;
        unread = page.unread.max(unread);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    if !json && count == 0 {
        let nothing = if filter.is_empty() { "Mail queue is empty" } else { "No such message" };
        writeln!(out, "{nothing}")?;
    } else if !json {
        let requests = if count == 1 { "Request" } else { "Requests" };
        writeln!(out, "-- {} Kbytes in {count} {requests}.", bytes.div_ceil(1024))?;
    }
    note_unread(notes, unread);
    Ok(())
}
