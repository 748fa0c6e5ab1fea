//! `ringpost queue show` and `ringpost queue summary`.

use std::io::Write;

use super::write_json;
use crate::admin::client::{Server, Trouble};
use crate::admin::print;
use crate::admin::wire::{Answer, Ask};

/// Prints one message: its details, or its bytes as they come.
pub(super) fn show(
    server: &mut Server,
    id: &str,
    message: bool,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Trouble> {
    let Answer::Shown(shown) = server.ask(&Ask::Show { id: id.to_owned(), message })? else {
        return Err(server.unexpected());
    };
    if message {
        server.copy_parts(out)
    } else if json {
        write_json(out, &shown)
    } else {
        print::shown(out, &shown).map_err(Trouble::Printing)
    }
}

/// Prints the state of the server, with so many destinations.
pub(super) fn summarise(
    server: &mut Server,
    sites: usize,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Trouble> {
    let Answer::Summary(summary) = server.ask(&Ask::Summary { sites })? else {
        return Err(server.unexpected());
    };
    if json {
        write_json(out, &summary)
    } else {
        print::summary(out, &summary).map_err(Trouble::Printing)
    }
}
