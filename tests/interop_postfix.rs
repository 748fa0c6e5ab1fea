//! Postfix as the next hop: its `smtp-sink` with each way that it has to fail, and a
//! real `smtpd` with a throw-away configuration; and Postfix as a client. Each test
//! runs where Postfix is installed and may be started, and says so where it is not;
//! where CI is set it has to be.

mod support;

#[path = "interop_postfix/client.rs"]
mod client;
#[path = "interop_postfix/server.rs"]
mod server;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use support::hop::{Hop, on_one_port};
use support::peer::{Client, NextHop};
use support::postfix::{self, Daemon, Postfix, wait_listening};
use support::program::{is_installed, is_root};
use support::rig::{Rig, dns_with_sender, domain, wait_for};

/// `smtp-sink` at `address` with these options.
fn sink(address: SocketAddr, options: &[&str]) -> Daemon {
    let mut command = Command::new("smtp-sink");
    if is_root() {
        command.args(["-u", "nobody"]);
    }
    command.args(options).arg(address.to_string()).arg("100");
    let process = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let sink = Daemon::new(process);
    wait_listening(address);
    sink
}

/// Sends `message` to `recipients`, each with its parameters.
#[track_caller]
fn send(client: &mut Client, mail: &str, recipients: &[&str], message: &[u8]) {
    let begin = client.command(&format!("MAIL FROM:{mail}")).unwrap();
    assert!(begin.starts_with("250"), "{begin}");
    for recipient in recipients {
        let said = client.command(&format!("RCPT TO:{recipient}")).unwrap();
        assert!(said.starts_with("250"), "{said}");
    }
    assert!(client.command("DATA").unwrap().starts_with("354"));
    let mut wire = Vec::new();
    for line in message.split_inclusive(|&octet| octet == b'\n') {
        wire.extend(line.starts_with(b".").then_some(b'.'));
        wire.extend_from_slice(line);
    }
    wire.extend_from_slice(b".\r\n");
    client.send(&wire).unwrap();
    let taken = client.reply().unwrap();
    assert!(taken.starts_with("250"), "{taken}");
}

/// What becomes of a message for a sink with these options; `next` goes to the
/// host after it.
const SINKS: &[(&str, &[&str])] = &[
    ("delivered", &[]),
    ("delivered", &["-p"]),
    ("delivered", &["-e"]),
    ("delivered", &["-8", "-E", "-N"]),
    ("delivered", &["-P"]),
    ("delivered", &["-f", "EHLO"]),
    ("delivered", &["-q", "QUIT"]),
    ("delivered", &["-w", "1"]),
    // It loses count when commands come while it waits.
    ("delivered", &["-p", "-W", "RCPT:1"]),
    ("delivered", &["-T", "1000", "-H", "1"]),
    ("failed", &["-f", "MAIL"]),
    ("failed", &["-f", "RCPT"]),
    ("failed", &["-f", "DATA"]),
    ("failed", &["-f", "."]),
    ("failed", &["-A", "0"]),
    ("deferred", &["-r", "MAIL"]),
    ("deferred", &["-r", "RCPT"]),
    ("deferred", &["-r", "DATA"]),
    ("deferred", &["-r", "."]),
    ("deferred", &["-Q", "MAIL"]),
    ("deferred", &["-Q", "RCPT"]),
    ("deferred", &["-Q", "DATA"]),
    ("deferred", &["-Q", "."]),
    ("deferred", &["-q", "EHLO"]),
    ("deferred", &["-q", "MAIL"]),
    ("deferred", &["-q", "RCPT"]),
    ("deferred", &["-q", "DATA"]),
    ("deferred", &["-q", "."]),
    ("next", &["-f", "CONNECT"]),
    ("next", &["-r", "CONNECT"]),
    ("next", &["-Q", "CONNECT"]),
    ("next", &["-q", "CONNECT"]),
    ("next", &["-Q", "EHLO"]),
    ("next", &["-q", "EHLO"]),
    ("next", &["-r", "EHLO,HELO"]),
];

#[test]
fn smtp_sink_in_each_of_its_moods() {
    if !is_installed("smtp-sink") {
        return;
    }
    let listeners = on_one_port(&["127.15.1.1", "127.15.1.2"]);
    let [home, next] = <[_; 2]>::try_from(listeners).unwrap().map(Hop::start);
    let port = home.address.port();
    let dns = dns_with_sender("127.15.1.1");
    let mut sinks = Vec::new();
    for (number, (becomes, options)) in SINKS.iter().enumerate() {
        let host = format!("127.15.1.{}", 100 + number);
        let name = format!("sink-{number}.test");
        let mut hosts = vec![(10, &*name, vec![&*host])];
        if *becomes == "next" {
            hosts.push((20, "next.test", vec!["127.15.1.2"]));
        }
        let hosts: Vec<_> = hosts.iter().map(|(rank, name, at)| (*rank, *name, &at[..])).collect();
        domain(&dns, &format!("{number}.test"), &hosts);
        sinks.push(sink(format!("{host}:{port}").parse().unwrap(), options));
    }
    let rig = Rig::start(dns, port, &[r#"queue.retry=["1h"]"#]);
    let mut client = rig.client();
    for number in 0..SINKS.len() {
        client.send(&number.to_string(), &[&format!("r@{number}.test")]);
    }
    for (number, (becomes, options)) in SINKS.iter().enumerate() {
        let kind = if *becomes == "next" { "delivered" } else { becomes };
        let line = rig.wait_outcome(kind, &format!("r@{number}.test"));
        if *becomes == "next" {
            assert!(line.contains("next.test["), "{options:?}: {line}");
        }
    }
    let count = |kind: &str| SINKS.iter().filter(|(becomes, _)| *becomes == kind).count();
    home.wait_taken(count("failed"));
    assert_eq!(next.seen(|seen| seen.taken.len()), count("next"));
    wait_for("the rest", || {
        rig.server.metric("ringpost_queued_messages") == count("deferred") as u64
    });
    assert_eq!(home.seen(|seen| seen.taken.len()), count("failed"), "no report of the others");
}

#[test]
fn smtp_sink_takes_many_messages_as_they_are() {
    if !is_installed("smtp-sink") {
        return;
    }
    let listener = on_one_port(&["127.15.2.1"]).remove(0);
    let address = listener.local_addr().unwrap();
    drop(listener);
    let dns = dns_with_sender("127.15.2.2");
    domain(&dns, "x.org", &[(1, "sink.test", &["127.15.2.1"])]);
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let dump = dir.path().join("m.").display().to_string();
    let _sink = sink(address, &["-d", &dump]);
    let rig = Rig::start(dns, address.port(), &[]);
    let mut client = rig.client();
    (0..200).for_each(|n| drop(client.send(&format!("m{n}"), &["r@x.org", "q@x.org"])));
    rig.wait_empty();
    let files = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path());
    let mut texts: Vec<String> = files.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    // It strips dots, and turns line ends into line feeds.
    for n in 0..200 {
        let end = String::from_utf8(support::rig::message(&format!("m{n}")))
            .unwrap()
            .replace("\r\n", "\n");
        let at = texts.iter().position(|text| text.trim_end().ends_with(end.trim_end()));
        let text = texts.remove(at.unwrap_or_else(|| panic!("m{n} is missing")));
        assert!(text.contains("X-Rcpt-Args: <r@x.org>"), "{text}");
    }
    assert!(texts.is_empty(), "{texts:?}");
}

/// A Postfix that takes mail for `post.test` at `address` and passes it on to
/// `onward`, all in `dir`.
fn postfix(dir: &Path, address: SocketAddr, onward: SocketAddr) -> Postfix {
    let settings = format!(
        "relay_domains = post.test\nsmtpd_recipient_restrictions = check_recipient_access inline:{{\
         {{bad@post.test = 550 5.1.1 nobody by that name}}, \
         {{busy@post.test = 450 4.2.0 the mailbox is busy}}}}\n\
         message_size_limit = 3000000\nrelayhost = [{}]:{}\n",
        onward.ip(),
        onward.port(),
    );
    Postfix::start(dir, &settings, &format!("{address} inet n - n - - smtpd"), &[address])
}

#[test]
fn postfix_smtpd_gets_mail_by_mx() {
    if !postfix::is_there() {
        return;
    }
    let [home, place] = <[_; 2]>::try_from(on_one_port(&["127.15.3.1", "127.15.3.2"])).unwrap();
    let address = place.local_addr().unwrap();
    drop(place);
    let (home, onward) = (Hop::start(home), NextHop::start());
    let dir = tempfile::tempdir().unwrap();
    let _postfix = postfix(dir.path(), address, onward.address);
    let dns = dns_with_sender("127.15.3.1");
    domain(&dns, "post.test", &[(10, "mx.post.test", &["127.15.3.2"])]);
    let rig = Rig::start(dns, address.port(), &[r#"queue.retry=["1h"]"#]);
    let mut client = rig.client();
    let all = ["good@post.test", "bad@post.test", "busy@post.test", "fine@post.test"];
    client.send("mixed", &all);
    (0..50).for_each(|n| drop(client.send(&format!("m{n}"), &["r@post.test"])));
    let lines = "a line of text, with a dot before the next\r\n..\r\n".repeat(40_000);
    let large = [support::rig::message("large"), lines.clone().into_bytes()].concat();
    let taken = client.raw().message("s@sender.test", &["r@post.test"], &large).unwrap();
    assert!(taken.starts_with("250"), "{taken}");
    let too_large =
        [support::rig::message("too large"), (lines.clone() + &lines).into_bytes()].concat();
    client.raw().message("s@sender.test", &["r@post.test"], &too_large).unwrap();
    let outcomes =
        [("failed", all[1]), ("deferred", all[2]), ("delivered", all[0]), ("delivered", all[3])];
    for (kind, recipient) in outcomes {
        rig.wait_outcome(kind, recipient);
    }
    let got = onward.wait(|got| got.len() == 52);
    let of = |name: &str| {
        let is = |got: &&support::peer::Got| {
            support::peer::header(&got.body, "X-Test").as_deref() == Some(name)
        };
        got.iter().find(is).unwrap_or_else(|| panic!("{name} did not arrive"))
    };
    let mut recipients = of("mixed").recipients.clone();
    recipients.sort();
    assert_eq!(recipients, [all[3], all[0]]);
    assert!(of("large").body.ends_with(lines.as_bytes()), "it was changed on the way");
    // Postfix adds fields to the header.
    (0..50).for_each(|n| assert!(of(&format!("m{n}")).body.ends_with(b"Hello\r\n.dot\r\n")));
    let reports: Vec<String> = home.wait_taken(2).iter().map(|report| report.text()).collect();
    let has = |parts: [&str; 2]| {
        reports.iter().any(|report| parts.iter().all(|part| report.contains(part)))
    };
    assert!(has(["Status: 5.1.1", "nobody by that name"]), "{reports:?}");
    assert!(has(["Status: 5.3.4", "Final-Recipient: rfc822; r@post.test"]), "{reports:?}");
    // Only the busy one is left.
    wait_for("one", || rig.server.metric("ringpost_queued_messages") == 1);
}
