//! The parameters of RFC 3461 as anybody may send them: parsing never panics,
//! takes only what can be passed on and reported, and what the client engine
//! writes of it the parser reads as the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringpost::base::dsn::{Dsn, RecipientDsn, escape_utf8};
use ringpost::base::limits::{COMMAND_LINE_ALLOWED, ORCPT_MAX};
use ringpost::base::{Envelope, UnixMillis, xtext};
use ringpost::proto::smtp::client::{Client, Event, Recipient, Transaction};
use ringpost::proto::smtp::command::{Command, MailFrom, RcptTo};

/// What a client sends for these parameters to a server that offers all there is.
fn written(dsn: Dsn, smtputf8: bool) -> String {
    let envelope = Envelope {
        sender: "s@a.example".into(),
        recipients: vec!["r+x@b.example".into()],
        smtputf8,
        dsn: Some(Box::new(dsn)),
        ..Envelope::default()
    };
    let mut client = Client::new("me.example");
    let mut out = Vec::new();
    for said in ["220 hi\r\n", "250-there\r\n250-DSN\r\n250-PIPELINING\r\n250 SMTPUTF8\r\n"] {
        let (_, event) = client.step(said.as_bytes(), &mut out);
        let _ = client.step(b"", &mut out);
        assert!(matches!(event, Event::NeedInput | Event::Ready));
    }
    out.clear();
    let transaction = Transaction::of(&envelope, 0, UnixMillis(0));
    client.begin(&transaction, [Recipient::of(&envelope, 0)], &mut out).expect("it is clean");
    String::from_utf8(out).expect("it was UTF-8")
}

fn parsed(line: &str) -> Option<(Option<MailFrom<'_>>, Option<RcptTo<'_>>)> {
    assert!(line.len() + 2 <= COMMAND_LINE_ALLOWED);
    match Command::parse(line.as_bytes()) {
        Ok(Command::Mail(mail)) => Some((Some(mail), None)),
        Ok(Command::Rcpt(to)) => Some((None, Some(to))),
        _ => None,
    }
}

fuzz_target!(|input: (&[u8], &[u8])| {
    let (of_mail, of_recipient) = input;
    let mail = [b"MAIL FROM:<s@a.example> SMTPUTF8 ", of_mail].concat();
    let rcpt = [b"RCPT TO:<r+x@b.example> ", of_recipient].concat();
    let mut dsn = Dsn::default();
    if let Ok(Command::Mail(mail)) = Command::parse(&mail) {
        (dsn.ret, dsn.envid) = (mail.ret, mail.envid.map(String::from));
    }
    if let Ok(Command::Rcpt(to)) = Command::parse(&rcpt) {
        dsn.note(0, RecipientDsn { notify: to.notify, orcpt: to.orcpt.map(String::from) });
    }
    if let Some(envid) = &dsn.envid {
        let text = xtext::decode(envid);
        assert!(envid.len() <= 100 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte) || byte == b'\t'));
        let mut again = String::new();
        xtext::encode(&text, &mut again);
        assert_eq!(xtext::decode(&again), text);
    }
    for smtputf8 in [true, false] {
        let lines = written(dsn.clone(), smtputf8);
        let lines: Vec<_> = lines.split_terminator("\r\n").collect();
        let [mail, rcpt, "DATA"] = lines[..] else { panic!("{lines:?}") };
        assert!(smtputf8 || rcpt.is_ascii());
        let Some((Some(mail), None)) = parsed(mail) else { panic!("{mail}") };
        assert_eq!((mail.ret, mail.envid), (dsn.ret, dsn.envid.as_deref()));
        let Some(asked) = dsn.recipients.first() else { continue };
        let Some((None, Some(to))) = parsed(rcpt) else { panic!("{rcpt}") };
        assert_eq!(to.notify, asked.notify);
        if let Some(orcpt) = &asked.orcpt {
            let mut expected = String::new();
            if smtputf8 { expected.push_str(orcpt) } else { escape_utf8(orcpt, &mut expected) }
            // Escaped, an address may be longer than ORCPT can be.
            assert_eq!(to.orcpt, Some(&*expected).filter(|orcpt| orcpt.len() <= ORCPT_MAX));
        }
    }
});
