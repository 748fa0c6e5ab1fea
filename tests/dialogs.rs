//! Plays every file of `tests/dialogs` to the SMTP server engine: as written,
//! octet by octet, all at once, and cut in two at every place. What the server
//! says must not depend on that. The format is told in `support/dialog.rs`.

mod support;

use support::dialog::{Dialog, Pace, read_all};
use support::engine::Engine;

fn play(pace_of: impl Fn(&Dialog) -> Vec<Pace>) {
    let mut complaints = Vec::new();
    for dialog in read_all() {
        let paces = pace_of(&dialog).into_iter();
        let wrong = paces
            .filter(|pace| *pace == Pace::Turns || !dialog.is_for_turns())
            .find_map(|pace| dialog.play(pace, Engine::new(&dialog.setup)).err());
        complaints.extend(wrong);
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn as_written() {
    play(|_| vec![Pace::Turns]);
}

#[test]
fn octet_by_octet() {
    play(|_| vec![Pace::Bytes]);
}

#[test]
fn all_at_once() {
    play(|_| vec![Pace::Whole]);
}

#[test]
fn cut_in_two_at_every_place() {
    play(|dialog| {
        let len = dialog.client_octets().len();
        // Long ones, which have long lines, are cut at fewer places and at the end.
        let stride = if len < 4000 { 1 } else { len / 60 };
        let places = (0..=len).filter(move |at| at % stride == 0 || at + 40 > len);
        places.map(Pace::Halves).collect()
    });
}

#[test]
fn there_is_a_dialog_for_every_command_and_for_every_limit() {
    let dialogs = read_all();
    assert!(dialogs.len() >= 30, "only {} dialogs are seen", dialogs.len());
    let sent: Vec<u8> = dialogs.iter().flat_map(Dialog::client_octets).collect();
    let sent = String::from_utf8_lossy(&sent).to_ascii_uppercase();
    for verb in
        "EHLO HELO LHLO MAIL RCPT DATA RSET NOOP QUIT VRFY EXPN HELP STARTTLS AUTH BDAT ETRN XCLIENT XFORWARD".split(' ')
    {
        assert!(sent.lines().any(|line| line.starts_with(verb)), "no dialog has {verb}");
    }
}
