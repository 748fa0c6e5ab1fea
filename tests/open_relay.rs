//! Who may relay, as one table: kinds of listeners, clients, what they claim to be
//! authenticated as or try to authenticate as, and recipients in every spelling that
//! has opened relays.

mod support;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;

use support::authority::Authority;
use support::process::Server;
use support::raw::Raw;
use support::tls::{self, say};

/// Recipients for which everybody may send.
const LOCAL: [&str; 5] = [
    "<r@here.example>",
    "<R@HERE.EXAMPLE>",
    "<r@sub.net.example>",
    "<\"two words\"@here.example>",
    "<@other.example,@third.example:r@here.example>",
];

/// Recipients for which only friends may.
const FOREIGN: [&str; 24] = [
    "<r@other.example>",
    "<r@here.example.other.example>",
    "<r@nothere.example>",
    "<r@sub.here.example>",
    "<r@net.example>",
    "<r@here.exampl>",
    "<r%other.example@here.example>",
    "<r%other.example%here.example@here.example>",
    "<other.example!r@here.example>",
    "<here.example!other.example!r@here.example>",
    "<other.example!r%x@here.example>",
    "<\"r@other.example\"@here.example>",
    "<\"r%other.example\"@here.example>",
    "<\"other.example!r\"@here.example>",
    "<\"r\\@other.example\"@here.example>",
    "<\"@here.example:r\"@here.example>",
    "<@here.example:r@other.example>",
    "<@here.example,@here.example:r@other.example>",
    "<r@[127.0.0.1]>",
    "<r@[192.0.2.7]>",
    "<r@[IPv6:::1]>",
    "<r@[IPv6:2001:db8:7::1]>",
    "<r@[x-domain:here.example]>",
    "<r%other.example@[127.0.0.1]>",
];

/// Recipients that are none: nobody may.
const MALFORMED: [&str; 10] = [
    "<>",
    "<r@here.example@other.example>",
    "<r@other.example>@here.example",
    "<r@here.example><r@other.example>",
    "<r@here.example,r@other.example>",
    "<r@here.example r@other.example>",
    "<r@other.example\0@here.example>",
    "<r @other.example@here.example>",
    "r@other.example",
    "<<r@other.example>>",
];

/// How a client comes: what it sends first, whether it then waits for a greeting
/// and speaks LMTP, and what XCLIENT says, if it is sent.
struct Client {
    name: &'static str,
    relays: bool,
    header: Option<&'static str>,
    xclient: Option<&'static str>,
}

const PLAIN: [Client; 1] =
    [Client { name: "a stranger", relays: false, header: None, xclient: None }];

/// By XCLIENT.
const CLAIMED: [Client; 8] = [
    Client { name: "the proxy itself", relays: false, header: None, xclient: None },
    Client { name: "a friend", relays: true, header: None, xclient: Some("ADDR=192.0.2.7") },
    Client {
        name: "a friend by IPv6",
        relays: true,
        header: None,
        xclient: Some("ADDR=IPV6:2001:db8:7::1"),
    },
    Client {
        name: "a friend mapped",
        relays: true,
        header: None,
        xclient: Some("ADDR=IPV6:::ffff:192.0.2.7"),
    },
    Client {
        name: "a neighbour of the friend",
        relays: false,
        header: None,
        xclient: Some("ADDR=192.0.2.8"),
    },
    Client { name: "unknown", relays: false, header: None, xclient: Some("ADDR=[UNAVAILABLE]") },
    Client {
        name: "a friend by name",
        relays: false,
        header: None,
        xclient: Some("NAME=localhost HELO=here.example"),
    },
    Client {
        name: "a user",
        relays: true,
        header: None,
        xclient: Some("ADDR=198.51.100.1 LOGIN=u"),
    },
];

/// By the PROXY protocol.
const PROXIED: [Client; 4] = [
    Client {
        name: "a friend",
        relays: true,
        header: Some("PROXY TCP4 192.0.2.7 127.0.0.1 1 25\r\n"),
        xclient: None,
    },
    Client {
        name: "a stranger",
        relays: false,
        header: Some("PROXY TCP4 198.51.100.7 192.0.2.7 1 25\r\n"),
        xclient: None,
    },
    Client {
        name: "unknown",
        relays: false,
        header: Some("PROXY UNKNOWN 192.0.2.7 192.0.2.7 1 25\r\n"),
        xclient: None,
    },
    Client {
        name: "a friend by IPv6",
        relays: true,
        header: Some("PROXY TCP6 2001:db8:7::2 ::1 1 25\r\n"),
        xclient: None,
    },
];

/// Clients of a submission listener, by XCLIENT: it serves users alone, and them
/// everywhere, wherever they come from.
const SUBMITTERS: [Client; 3] = [
    Client { name: "nobody", relays: false, header: None, xclient: None },
    Client { name: "a friend", relays: false, header: None, xclient: Some("ADDR=192.0.2.7") },
    Client {
        name: "a user",
        relays: true,
        header: None,
        xclient: Some("ADDR=198.51.100.1 LOGIN=u"),
    },
];

fn opened(server: SocketAddr, client: &Client, hello: &str) -> Raw {
    let mut raw = Raw::connect(server);
    if let Some(header) = client.header {
        raw.send(header.as_bytes());
    }
    assert!(raw.hear().starts_with("220 "), "{}", client.name);
    if let Some(claims) = client.xclient {
        assert!(raw.ask(&format!("XCLIENT {claims}")).starts_with("220 "), "{}", client.name);
    }
    assert!(raw.ask(&format!("{hello} client.example")).starts_with("250 "));
    raw
}

/// Holds every recipient against what the client may; each in a transaction of its
/// own, with senders that claim to be from here.
fn matrix(kind: &str, listener: &str, clients: &[Client]) {
    let dir = tempfile::tempdir().unwrap();
    let listener = format!(r#"listener=[{{address="127.0.0.1:0", kind="{kind}", {listener}}}]"#);
    let settings = [
        r#"access.relay_from=["192.0.2.7", "2001:db8:7::/48"]"#,
        r#"access.relay_domains=["here.example", "*.net.example"]"#,
        r#"route=[{domain="*", next_hop="discard"}]"#,
        "limits.errors_per_session=1000",
        "limits.commands_without_mail=100000",
        &listener,
    ];
    let server = Server::start(dir.path(), &settings);
    let hello = if kind == "lmtp" { "LHLO" } else { "EHLO" };
    for client in clients {
        for sender in
            ["<>", "<s@here.example>", "<s@other.example>", "<r%other.example@here.example>"]
        {
            let mut raw = opened(server.smtp, client, hello);
            assert!(raw.ask(&format!("MAIL FROM:{sender}")).starts_with("250 "), "{sender}");
            let place = |to: &str| format!("{kind}, {}, from {sender} to {to}", client.name);
            for to in LOCAL {
                let reply = raw.ask(&format!("RCPT TO:{to}"));
                assert!(reply.starts_with("250 "), "{}: {reply}", place(to));
            }
            for to in FOREIGN {
                let reply = raw.ask(&format!("RCPT TO:{to}"));
                let expected =
                    if client.relays { ["250 ", "501 "] } else { ["550 5.7.1 ", "501 "] };
                let fits = expected.iter().any(|start| reply.starts_with(start));
                assert!(fits, "{}: {reply}", place(to));
            }
            for to in MALFORMED {
                let reply = raw.ask(&format!("RCPT TO:{to}"));
                assert!(reply.starts_with("50"), "{}: {reply}", place(to));
            }
            assert!(raw.ask("QUIT").starts_with("221 "));
        }
    }
}

#[test]
fn smtp_for_strangers() {
    matrix("relay", "", &PLAIN);
}

#[test]
fn smtp_by_xclient() {
    matrix("relay", r#"xclient_from=["127.0.0.1"]"#, &CLAIMED);
}

#[test]
fn smtp_behind_a_proxy() {
    matrix("relay", r#"proxy_protocol=true, proxy_from=["127.0.0.1"]"#, &PROXIED);
}

#[test]
fn lmtp_for_strangers() {
    matrix("lmtp", "", &PLAIN);
}

#[test]
fn lmtp_by_xclient() {
    matrix("lmtp", r#"xclient_from=["127.0.0.1"]"#, &CLAIMED);
}

#[test]
fn lmtp_behind_a_proxy() {
    matrix("lmtp", r#"proxy_protocol=true, proxy_from=["127.0.0.1"]"#, &PROXIED);
}

/// A server with the user `u`, whose password is `pencil` and who may send as anybody
/// of `here.example`.
fn with_users(dir: &Path, listener: &str) -> Server {
    let users = format!("auth.users={:?}", dir.join("users").display().to_string());
    let mut add = assert_cmd::Command::new(env!("CARGO_BIN_EXE_ringpost"));
    add.args(["user", "add", "u", "--sender", "@here.example", "--password-stdin"]);
    add.args(["--set", &users, "--set", "hostname=relay.test"]);
    add.write_stdin("pencil").assert().success();
    let settings = [
        r#"access.relay_from=["192.0.2.7"]"#,
        r#"access.relay_domains=["here.example", "*.net.example"]"#,
        r#"route=[{domain="*", next_hop="discard"}]"#,
        &Authority::new().files(dir, "relay.test").setting(),
        r#"auth.failure_delay="10ms""#,
        "limits.errors_per_session=1000",
        "limits.commands_without_mail=100000",
        &format!(r#"listener=[{{address="127.0.0.1:0", {listener}}}]"#),
        &users,
    ];
    Server::start(dir, &settings)
}

#[test]
fn submission_is_for_users() {
    let dir = tempfile::tempdir().unwrap();
    let listener = r#"kind="submission", tls="optional", xclient_from=["127.0.0.1"]"#;
    let server = with_users(dir.path(), listener);
    for client in &SUBMITTERS {
        let mut raw = opened(server.smtp, client, "EHLO");
        for to in ["<r@here.example>", "<r@other.example>", "<r%other.example@here.example>"] {
            let sender = raw.ask("MAIL FROM:<s@here.example>");
            let recipient = raw.ask(&format!("RCPT TO:{to}"));
            raw.ask("RSET");
            let expected = if client.relays { "250 " } else { "530 5.7.0 " };
            for reply in [sender, recipient] {
                assert!(reply.starts_with(expected), "{}, {to}: {reply}", client.name);
            }
        }
    }
}

/// What a client does to become a user, and whether it is one then.
struct Attempt {
    name: &'static str,
    /// Lines, and what their replies begin with.
    lines: &'static [(&'static str, &'static str)],
    relays: bool,
}

/// AUTH PLAIN of `u` with `pencil`.
const RIGHT: &str = "AUTH PLAIN AHUAcGVuY2ls";
/// With `pencils`.
const WRONG: &str = "AUTH PLAIN AHUAcGVuY2lscw==";

const ATTEMPTS: [Attempt; 9] = [
    Attempt { name: "no attempt", lines: &[], relays: false },
    Attempt { name: "the right password", lines: &[(RIGHT, "235 2.7.0 ")], relays: true },
    Attempt { name: "a wrong one", lines: &[(WRONG, "535 5.7.8 ")], relays: false },
    Attempt {
        name: "a wrong one and the right one",
        lines: &[(WRONG, "535 5.7.8 "), (RIGHT, "235 2.7.0 ")],
        relays: true,
    },
    Attempt {
        // As somebody else, with one's own password.
        name: "another identity",
        lines: &[("AUTH PLAIN dgB1AHBlbmNpbA==", "535 5.7.8 ")],
        relays: false,
    },
    Attempt { name: "nobody", lines: &[("AUTH PLAIN AAA=", "501 5.5.2 ")], relays: false },
    Attempt {
        name: "an exchange that is given up",
        lines: &[("AUTH PLAIN", "334 "), ("*", "501 5.7.0 ")],
        relays: false,
    },
    Attempt {
        name: "a word in MAIL",
        lines: &[("MAIL FROM:<s@here.example> AUTH=u@here.example", ""), ("RSET", "250 ")],
        relays: false,
    },
    Attempt {
        name: "a greeting anew",
        lines: &[(RIGHT, "235 2.7.0 "), ("EHLO other.example", "250-")],
        relays: true,
    },
];

/// Holds what a greeted session may send where against whether it may relay.
fn holds(stream: &mut (impl Read + Write), relays: bool, users_only: bool, place: &str) {
    let mut ask = |line: &str| say(stream, line).unwrap();
    let sender = ask("MAIL FROM:<s@here.example>");
    if users_only && !relays {
        assert!(sender.starts_with("530 5.7.0 "), "{place}: {sender}");
        return;
    }
    assert!(sender.starts_with("250 "), "{place}: {sender}");
    for to in LOCAL {
        let reply = ask(&format!("RCPT TO:{to}"));
        assert!(reply.starts_with("250 "), "{place}, {to}: {reply}");
    }
    for to in FOREIGN {
        let reply = ask(&format!("RCPT TO:{to}"));
        let expected = if relays { ["250 ", "501 "] } else { ["550 5.7.1 ", "501 "] };
        let fits = expected.iter().any(|start| reply.starts_with(start));
        assert!(fits, "{place}, {to}: {reply}");
    }
    assert!(ask("RSET").starts_with("250 "));
}

#[test]
fn users_over_tls() {
    for (kind, users_only) in [("relay", false), ("submission", true)] {
        let dir = tempfile::tempdir().unwrap();
        let listener = format!(r#"kind="{kind}", tls="optional", auth=true"#);
        let server = with_users(dir.path(), &listener);
        let config = tls::anybody();
        for attempt in &ATTEMPTS {
            let place = format!("{kind}, {}", attempt.name);
            let mut secure = tls::started(server.smtp, &config, "relay.test");
            assert!(say(&mut secure, "EHLO client.example").unwrap().contains("AUTH"));
            for (line, expected) in attempt.lines {
                let reply = say(&mut secure, line).unwrap();
                assert!(reply.starts_with(expected), "{place}, {line}: {reply}");
            }
            holds(&mut secure, attempt.relays, users_only, &place);
        }
        // In the clear nothing of the kind is looked at, neither then nor after
        // STARTTLS.
        let mut stream = tls::plain(server.smtp);
        assert!(tls::reply(&mut stream).unwrap().starts_with("220 "));
        let offers = say(&mut stream, "EHLO client.example").unwrap();
        assert!(!offers.contains("AUTH"), "{offers}");
        for line in [RIGHT, "AUTH PLAIN", "AUTH LOGIN", "AUTH SCRAM-SHA-256"] {
            let reply = say(&mut stream, line).unwrap();
            assert!(reply.starts_with("538 5.7.11 "), "{kind}, {line}: {reply}");
        }
        holds(&mut stream, false, users_only, &format!("{kind}, in the clear"));
        assert!(say(&mut stream, "STARTTLS").unwrap().starts_with("220 "));
        let mut secure = tls::over(stream, &config, "relay.test");
        assert!(say(&mut secure, "EHLO client.example").unwrap().contains("AUTH"));
        holds(&mut secure, false, users_only, &format!("{kind}, in the clear before TLS"));
        assert_eq!(server.metric("ringpost_authentications_total{"), 3, "{kind}");
    }
}
