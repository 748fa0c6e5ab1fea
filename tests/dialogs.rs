//! Plays every file of `tests/dialogs` to the SMTP server engine: as written,
//! octet by octet, all at once, and cut in two at every place. What the server
//! says must not depend on that. The format is told in `support/dialog.rs`. And looks
//! for a dialog for each reply that there is in the code.

mod support;

use support::dialog::{Dialog, Pace, read_all};
use support::engine::Engine;

fn play(pace_of: impl Fn(&Dialog) -> Vec<Pace>) {
    let mut complaints = Vec::new();
    for dialog in read_all().into_iter().filter(|it| !it.setup.is_for_whole_servers()) {
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
fn there_is_a_dialog_for_every_command_and_for_every_parameter() {
    let dialogs = read_all();
    assert!(dialogs.len() >= 30, "only {} dialogs are seen", dialogs.len());
    let sent: Vec<u8> = dialogs.iter().flat_map(Dialog::client_octets).collect();
    let sent = String::from_utf8_lossy(&sent).to_ascii_uppercase();
    for verb in
        "EHLO HELO LHLO MAIL RCPT DATA RSET NOOP QUIT VRFY EXPN HELP STARTTLS AUTH BDAT ETRN XCLIENT XFORWARD".split(' ')
    {
        assert!(sent.lines().any(|line| line.starts_with(verb)), "no dialog has {verb}");
    }
    for parameter in "SIZE= BODY=8BITMIME BODY=BINARYMIME SMTPUTF8 RET= ENVID= NOTIFY= ORCPT= BY= \
                      HOLDFOR= HOLDUNTIL= MT-PRIORITY= REQUIRETLS AUTH="
        .split_whitespace()
    {
        assert!(sent.contains(&format!("> {parameter}")), "no dialog has {parameter}");
    }
}

/// Replies that no dialog shows: a part of their words, and why.
const NOT_SHOWN: &[(&str, &str)] = &[
    ("Shutting down", "comes at SIGTERM: `tests/hostile.rs`, `tests/server.rs`"),
    ("data comes at less than", "needs a client that trickles: `tests/hostile.rs`"),
    ("users cannot be checked", "needs a source of users that fails, which the file does not"),
    ("too many log-ins", "needs a hundred at once: `src/receive/authority.rs`"),
    ("queue cannot be started now", "needs a shard that is behind: `src/shard/turns.rs`"),
    ("no memory for the PROXY header", "needs more clients than there is memory for"),
    ("connection closed within the PROXY header", "is said to nobody, but for the log"),
    ("storage failure", "needs a disk that fails: `tests/disk.rs`"),
    ("could not be stored", "needs a disk that fails: `tests/disk.rs`"),
    ("queue is full", "needs a full disk: `tests/disk.rs`"),
    (
        "too many recipients for one message",
        "limits that would lead to it are refused at the start",
    ),
];

/// The string literals of Rust code, each with the place behind it.
fn literals(code: &str) -> Vec<(usize, String)> {
    let (mut found, mut literal, mut escaped) = (Vec::new(), None::<String>, false);
    for (at, character) in code.char_indices() {
        match (&mut literal, character) {
            (None, '"') => literal = Some(String::new()),
            (None, _) => {}
            (Some(_), '"') if !escaped => found.extend(literal.take().map(|it| (at, it))),
            (Some(text), _) if escaped => {
                escaped = false;
                text.extend(['\\', character]);
            }
            (Some(_), '\\') => escaped = true,
            (Some(text), _) => text.push(character),
        }
    }
    // A line that goes on in the next one.
    let joined = |text: String| {
        let mut lines = text.split("\\\n");
        let first = lines.next().unwrap_or_default().to_owned();
        lines.fold(first, |joined, line| joined + line.trim_start())
    };
    found.into_iter().map(|(at, text)| (at, joined(text))).collect()
}

/// The replies in Rust code: literals that are a reply as they stand, and the words that
/// stand in, or else before, calls that make one of a code and words.
fn replies(code: &str) -> Vec<String> {
    let literals = literals(code);
    let whole = literals.iter().filter(|(_, text)| {
        text.ends_with("\\r\\n") && text.len() > 8 && text[..3].parse::<u16>().is_ok()
    });
    let mut found: Vec<String> = whole.map(|(_, text)| text.replace("\\r\\n", "")).collect();
    for maker in ["Reply::new(", "distrust(", "put_off(", "denied("] {
        for (start, _) in code.match_indices(maker) {
            let mut depth = 0;
            let end = code[start..].find(|character| {
                depth += i32::from(character == '(') - i32::from(character == ')');
                depth == 0 && character == ')'
            });
            let end = start + end.expect("the end of a call");
            let within = literals.iter().find(|(at, _)| (start..end).contains(at));
            let before = || literals.iter().rfind(|(at, _)| *at < start);
            found.extend(within.or_else(before).map(|(_, text)| text.clone()));
        }
    }
    found
}

/// The longest part of a reply that is always the same.
fn fixed(reply: &str) -> &str {
    let parts = reply.split('{').flat_map(|part| {
        match part.split_once('}') {
            Some((_, behind)) => behind,
            None => part,
        }
        .split('\n')
    });
    parts.max_by_key(|part| part.len()).unwrap_or_default()
}

#[test]
fn there_is_a_dialog_for_every_reply() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let folders = ["receive", "proto/smtp/server"].map(|folder| root.join(folder));
    let listed = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let files = listed.map(|entry| entry.unwrap().path());
    let files = files
        .chain(["access.rs", "shelf.rs", "terms.rs"].map(|name| root.join("policy").join(name)));
    let mut replies: Vec<String> = Vec::new();
    for file in files.filter(|path| !path.to_string_lossy().ends_with("tests.rs")) {
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let code: String = lines.flat_map(|line| [line, "\n"]).collect();
        replies.extend(self::replies(&code));
    }
    assert!(replies.len() > 80, "only {} replies are seen", replies.len());
    let dialogs = read_all();
    let said: Vec<&str> = dialogs.iter().flat_map(Dialog::said).collect();
    let is_shown = |part: &str| said.iter().any(|line| line.contains(part));
    let excused = |reply: &str| NOT_SHOWN.iter().any(|(part, _)| reply.contains(part));
    let lacking: Vec<&String> =
        replies.iter().filter(|it| !is_shown(fixed(it)) && !excused(it)).collect();
    assert!(lacking.is_empty(), "no dialog shows {lacking:#?}");
    for (part, why) in NOT_SHOWN {
        assert!(!is_shown(part), "{part:?} is shown: it is not so that it {why}");
        assert!(replies.iter().any(|reply| reply.contains(part)), "no reply has {part:?}");
    }
}
