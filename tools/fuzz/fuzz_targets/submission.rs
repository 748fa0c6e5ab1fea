//! The completion of submitted messages on anything that may be submitted: the
//! same however the message is cut, what is wrong with its addresses too, never without
//! an end, every line of the body where it was, and no Bcc that a reader of headers would
//! see.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use ringpost::base::users::{Sender, User};
use ringpost::mail::addresses::Fault;
use ringpost::mail::headers::fields;
use ringpost::mail::submission::{Completion, Facts};
use ringpost::proto::scan::{Scan, Scanner};

/// What is stored for `message` of `owner`, handed over in pieces of `step` octets, and
/// which field has a fault.
fn completed(
    message: &[u8],
    step: usize,
    owner: Option<&Arc<User>>,
) -> (Vec<u8>, Option<(&'static str, Fault)>) {
    let mut completion = Completion::new(Facts {
        date: b"Wed, 25 Nov 2026 12:00:00 +0000".to_vec(),
        unique: "1f".into(),
        hostname: "mx.example".into(),
        sender: "s@a.example".into(),
        owner: owner.cloned(),
    });
    let mut out = Vec::new();
    message.chunks(step).for_each(|piece| completion.push(piece, &mut out));
    assert!(completion.is_done(), "the terminator ends the header at the latest");
    (out, completion.fault())
}

fuzz_target!(|input: (u16, bool, Vec<u8>)| {
    let (step, is_owned, text) = input;
    let owner = is_owned.then(|| {
        let mut owner = User::new("s".into());
        owner.senders.push(Sender::parse("s@a.example").unwrap());
        Arc::new(owner)
    });
    let mut message = text;
    message.extend_from_slice(b"\r\n.\r\n");
    let mut scanner = Scanner::new();
    let Scan::End { len } = scanner.scan(&message) else { return };
    // What has bare line ends is refused and never stored.
    if scanner.bare_cr() || scanner.bare_lf() {
        return;
    }
    let message = &message[..len];
    let owner = owner.as_ref();
    let whole = completed(message, message.len(), owner);
    assert_eq!(completed(message, usize::from(step).max(1), owner), whole);
    assert_eq!(completed(message, 1, owner), whole);
    let (whole, _) = whole;
    let mut scanner = Scanner::new();
    assert_eq!(scanner.scan(&whole), Scan::End { len: whole.len() }, "one message, to its end");
    assert!(!scanner.bare_cr() && !scanner.bare_lf());
    let has = |name: &str| fields(&whole).filter(|field| field.is(name)).count();
    assert_eq!(has("Bcc") + has("Resent-Bcc"), 0);
    assert!(has("Date") >= 1 && has("Message-ID") >= 1 && has("From") >= 1);
});
