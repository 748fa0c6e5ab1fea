//! SMTP smuggling, against a whole server: whatever has been taken for the end of a
//! message by one server or another, in every split, by DATA and in chunks, in the
//! clear and over TLS, ends no message here but `CRLF . CRLF`; and nothing goes out
//! that a next hop could take for two messages. The next hop of these tests takes a
//! bare LF for a line end.

mod support;

use std::io::{Read, Write};

use support::authority::Authority;
use support::peer::{Got, NextHop};
use support::process::Server;
use support::tls::{anybody, plain, reply, say, started};

/// What passes for a line end somewhere, and what is left out by somebody.
const ENDS: [&str; 14] = [
    "\r\n", "\n", "\r", "\r\r\n", "\n\r", "\n\n", "\r\n\r\n", "\r\n\0", "\0", "\u{b}", "\u{c}",
    "\u{85}", "\u{2028}", " \r\n",
];

/// The commands of a message that nobody may ever take for one.
const EVIL: &str = "MAIL FROM:<evil@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n\
                    Subject: evil\r\n\r\nevil";

/// The start of each message.
const START: &str = "Subject: first\r\n\r\nfirst";

/// Every spelling of an end of data.
fn spellings() -> Vec<String> {
    let all = ENDS.iter().flat_map(|before| ENDS.map(|after| format!("{before}.{after}")));
    let mut all: Vec<String> = all.collect();
    all.sort();
    all.dedup();
    all
}

/// Whether a CR or LF stands alone.
fn is_bare(octets: &[u8]) -> bool {
    let at = |index: usize| octets.get(index).copied();
    (0..octets.len()).any(|index| match octets[index] {
        b'\r' => at(index + 1) != Some(b'\n'),
        b'\n' => index == 0 || at(index - 1) != Some(b'\r'),
        _ => false,
    })
}

fn serve(hop: &NextHop, dir: &std::path::Path) -> Server {
    let route = format!(r#"route=[{{domain="*", next_hop=["{}"]}}]"#, hop.address);
    Server::start(
        dir,
        &[
            r#"listener=[{address="127.0.0.1:0", tls="optional"}]"#,
            &Authority::new().files(dir, "relay.test").setting(),
            r#"durability="memory""#,
            "limits.errors_per_session=1000",
            &route,
        ],
    )
}

/// Begins a message; over `stream` EHLO was said.
fn begin(stream: &mut (impl Read + Write), parameters: &str) {
    for line in [&*format!("MAIL FROM:<a@x.test>{parameters}"), "RCPT TO:<b@y.test>"] {
        let said = say(stream, line).unwrap();
        assert!(said.starts_with("250 "), "{line}: {said}");
    }
}

/// Ends a message: nothing but `said` may have come.
fn mark(stream: &mut (impl Read + Write), said: &str, what: &str) {
    let marked = say(stream, "VRFY mark@x.test").unwrap();
    assert!(marked.starts_with("252 "), "{what:?}: {said} and {marked}");
}

/// Sends a message by DATA, cut at `cut`; whether it was taken.
fn by_data(stream: &mut (impl Read + Write), spelling: &str, cut: usize) -> bool {
    begin(stream, "");
    assert!(say(stream, "DATA").unwrap().starts_with("354 "));
    let body = format!("{START}{spelling}{EVIL}\r\n.\r\n").into_bytes();
    for piece in [&body[..cut], &body[cut..]] {
        stream.write_all(piece).unwrap();
        stream.flush().unwrap();
    }
    let said = reply(stream).unwrap();
    mark(stream, &said, spelling);
    let expected = if is_bare(&body) { "550 5.6.0 bare " } else { "250 2.0.0 Ok: queued " };
    assert!(said.starts_with(expected), "{spelling:?} cut at {cut}: {said}");
    said.starts_with("250 ")
}

/// Sends the same in two chunks, the second behind the first; whether it was taken.
fn by_chunks(stream: &mut (impl Read + Write), spelling: &str, cut: usize) -> bool {
    begin(stream, "");
    let body = format!("{START}{spelling}{EVIL}\r\n").into_bytes();
    let (first, last) = body.split_at(cut);
    let mut all = format!("BDAT {}\r\n", first.len()).into_bytes();
    all.extend_from_slice(first);
    all.extend_from_slice(format!("BDAT {} LAST\r\n", last.len()).as_bytes());
    all.extend_from_slice(last);
    stream.write_all(&all).unwrap();
    stream.flush().unwrap();
    let said = [reply(stream).unwrap(), reply(stream).unwrap()];
    mark(stream, &said.concat(), spelling);
    let is_taken = said[1].starts_with("250 2.0.0 Ok: queued ");
    let is_refused = said.iter().any(|said| said.starts_with("550 5.6.0 bare "));
    assert_eq!((is_taken, is_refused), (!is_bare(&body), is_bare(&body)), "{spelling:?}: {said:?}");
    is_taken
}

/// Places to cut a message with this spelling.
fn cuts(spelling: &str) -> std::ops::RangeInclusive<usize> {
    START.len() - 1..=START.len() + spelling.len() + 1
}

/// The next hop has got `count` messages, and none but whole ones.
fn check(hop: &NextHop, count: usize) {
    let got: Vec<Got> = hop.wait(|got| got.len() >= count);
    assert_eq!(got.len(), count);
    for message in got {
        let text = String::from_utf8_lossy(&message.body);
        assert_eq!(message.sender, "a@x.test", "{text:?}");
        assert!(!is_bare(&message.body), "{text:?}");
        assert!(text.contains("Subject: first\r\n") && text.ends_with("\r\nevil\r\n"), "{text:?}");
    }
}

#[test]
fn only_one_spelling_ends_a_message_by_data() {
    let dir = tempfile::tempdir().unwrap();
    let hop = NextHop::start();
    let server = serve(&hop, dir.path());
    let mut taken = 0;
    // A real end within a spelling is one, and dots that are stuffed are none.
    let spellings: Vec<String> = spellings();
    let spellings: Vec<&String> =
        spellings.iter().filter(|text| !text.contains("\r\n.\r\n")).collect();
    assert!(spellings.len() > 150, "{}", spellings.len());
    for spelling in spellings {
        let mut clear = plain(server.smtp);
        assert!(reply(&mut clear).unwrap().starts_with("220 "));
        assert!(say(&mut clear, "EHLO client.test").unwrap().starts_with("250-"));
        for cut in cuts(spelling) {
            taken += usize::from(by_data(&mut clear, spelling, cut));
        }
        let mut secure = started(server.smtp, &anybody(), "relay.test");
        assert!(say(&mut secure, "EHLO client.test").unwrap().starts_with("250-"));
        let cut = START.len() + spelling.len() / 2;
        taken += usize::from(by_data(&mut secure, spelling, cut));
    }
    check(&hop, taken);
}

#[test]
fn no_spelling_ends_a_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let hop = NextHop::start();
    let server = serve(&hop, dir.path());
    let mut taken = 0;
    for spelling in spellings() {
        let mut clear = plain(server.smtp);
        assert!(reply(&mut clear).unwrap().starts_with("220 "));
        assert!(say(&mut clear, "EHLO client.test").unwrap().starts_with("250-"));
        for cut in cuts(&spelling) {
            taken += usize::from(by_chunks(&mut clear, &spelling, cut));
        }
        let mut secure = started(server.smtp, &anybody(), "relay.test");
        assert!(say(&mut secure, "EHLO client.test").unwrap().starts_with("250-"));
        let cut = START.len() + spelling.len() / 2;
        taken += usize::from(by_chunks(&mut secure, &spelling, cut));
    }
    check(&hop, taken);
}

#[test]
fn binary_mail_never_goes_out_as_lines_nor_do_reports_about_it() {
    let dir = tempfile::tempdir().unwrap();
    // It offers no BINARYMIME.
    let hop = NextHop::start();
    let server = serve(&hop, dir.path());
    let (mut as_text, mut reported) = (0, 0);
    for spelling in spellings() {
        let mut stream = plain(server.smtp);
        assert!(reply(&mut stream).unwrap().starts_with("220 "));
        assert!(say(&mut stream, "EHLO client.test").unwrap().starts_with("250-"));
        // Once in the header, which is returned, and once behind it.
        for body in [
            format!("Subject: first{spelling}{EVIL}\r\n\r\n"),
            format!("Subject: first\r\n\r\n{spelling}{EVIL}"),
        ] {
            begin(&mut stream, " BODY=BINARYMIME RET=FULL");
            let chunk = format!("BDAT {} LAST\r\n{body}", body.len());
            stream.write_all(chunk.as_bytes()).unwrap();
            let said = reply(&mut stream).unwrap();
            assert!(said.starts_with("250 2.0.0 Ok: queued "), "{spelling:?}: {said}");
            mark(&mut stream, &said, &spelling);
            // What is text after all may go as such.
            let is_text = !is_bare(body.as_bytes()) && !body.contains('\0');
            (as_text, reported) =
                if is_text { (as_text + 1, reported) } else { (as_text, reported + 1) };
        }
    }
    assert!(as_text > 10 && reported > 200, "{as_text} and {reported}");
    let count = as_text + reported;
    let got = hop.wait(|got| got.len() >= count);
    assert_eq!(got.len(), count);
    for message in &got {
        let text = String::from_utf8_lossy(&message.body);
        assert!(["", "a@x.test"].contains(&&*message.sender), "{text:?}");
        assert!(!is_bare(&message.body) && !text.contains('\0'), "{text:?}");
    }
    let reports = got.iter().filter(|message| message.sender.is_empty());
    assert_eq!(reports.count(), reported);
}
