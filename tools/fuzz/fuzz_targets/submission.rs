//! The completion of submitted messages on anything that may be submitted: the
//! same however the message is cut, never without an end, every line of the body
//! where it was, and no Bcc that a reader of headers would see.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringpost::mail::headers::fields;
use ringpost::mail::submission::{Completion, Facts};
use ringpost::proto::scan::{Scan, Scanner};

/// What is stored for `message`, handed over in pieces of `step` octets.
fn completed(message: &[u8], step: usize) -> Vec<u8> {
    let mut completion = Completion::new(Facts {
        date: b"Wed, 25 Nov 2026 12:00:00 +0000".to_vec(),
        unique: "1f".into(),
        hostname: "mx.example".into(),
        sender: "s@a.example".into(),
        owner: None,
    });
    let mut out = Vec::new();
    message.chunks(step).for_each(|piece| completion.push(piece, &mut out));
    assert!(completion.is_done(), "the terminator ends the header at the latest");
    out
}

fuzz_target!(|input: (u16, Vec<u8>)| {
    let (step, text) = input;
    let mut message = text;
    message.extend_from_slice(b"\r\n.\r\n");
    let mut scanner = Scanner::new();
    let Scan::End { len } = scanner.scan(&message) else { return };
    // What has bare line ends is refused and never stored.
    if scanner.bare_cr() || scanner.bare_lf() {
        return;
    }
    let message = &message[..len];
    let whole = completed(message, message.len());
    assert_eq!(completed(message, usize::from(step).max(1)), whole);
    assert_eq!(completed(message, 1), whole);
    let mut scanner = Scanner::new();
    assert_eq!(scanner.scan(&whole), Scan::End { len: whole.len() }, "one message, to its end");
    assert!(!scanner.bare_cr() && !scanner.bare_lf());
    let has = |name: &str| fields(&whole).filter(|field| field.is(name)).count();
    assert_eq!(has("Bcc") + has("Resent-Bcc"), 0);
    assert!(has("Date") >= 1 && has("Message-ID") >= 1 && has("From") >= 1);
});
