//! `ringpost route` against a DNS server of our own: what it says of every kind
//! of route and of answer, with and without a running server.

mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use support::dns::{Answer, DnsServer, RecordType};
use support::peer::{Client, NextHop};
use support::process::Server;

/// A configuration in `dir` that asks `dns`, with `more` below it. The lines of
/// `more` begin at 11.
fn configure(dir: &Path, dns: SocketAddr, more: &str) -> PathBuf {
    let file = dir.join("ringpost.toml");
    let text = format!(
        "hostname = \"relay.test\"\ndata_dir = {:?}\ncores = 1\n\n\
         [[listener]]\naddress = \"127.0.0.1:2525\"\n\n\
         [dns]\nservers = [\"{dns}\"]\ntimeout = \"2s\"\n{more}",
        dir.join("data")
    );
    std::fs::write(&file, text).unwrap();
    file
}

fn route(config: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringpost"));
    command.env_remove("RINGPOST_LOG");
    command.arg("route").args(words).arg("-c").arg(config).output().unwrap()
}

/// What is printed about an address when nothing goes wrong.
#[track_caller]
fn explained(config: &Path, address: &str) -> (Value, String) {
    let output = route(config, &[address, "--json"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{address}: {said}");
    let text = route(config, &[address]);
    assert!(text.status.success());
    let text = String::from_utf8(text.stdout).unwrap();
    (serde_json::from_slice(&output.stdout).unwrap(), text)
}

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|l| l == line), "{line:?} is not in\n{text}");
}

#[test]
fn a_static_route_with_limits_and_where_they_were_set() {
    let dir = tempfile::tempdir().unwrap();
    let dns = DnsServer::start();
    dns.set_addresses("hop.test", &["127.0.0.9"]);
    let more = r#"
[[route]]
domain = "discard.test"
next_hop = "discard"

[[route]]
domain = "*.reject.test"
next_hop = "reject"

[[route]]
domain = "*"
next_hop = ["127.0.0.1:2526", "hop.test:2527"]

[delivery]
messages_per_connection = 7

[[site]]
domain = "slow.test"
message_rate = "30/m"
"#;
    let config = configure(dir.path(), dns.address, more);
    let (json, text) = explained(&config, "Someone@Slow.test");
    assert_eq!(json["domain"], "slow.test");
    assert_eq!(
        json["route"],
        json!({
            "number": 3,
            "line": 20,
            "domain": "*",
            "next_hop": ["127.0.0.1:2526", "hop.test:2527"],
        })
    );
    let name = "127.0.0.1:2526,hop.test:2527#slow.test";
    assert_eq!(json["site"]["name"], name);
    let set = |value: Value, by: &str| json!({ "value": value, "set_by": by });
    assert_eq!(
        json["site"]["limits"],
        json!({
            "connections": set(json!(20), "default"),
            "messages_per_connection": set(json!(7), "[delivery]"),
            "connection_rate": set(json!("off"), "default"),
            "message_rate": set(json!("30/m"), "[[site]] in line 27"),
        })
    );
    assert_eq!((&json["action"], &json["tls"]), (&json!("relay"), &json!("optional")));
    assert_eq!(json["hosts"][0]["protocol"], "smtp");
    assert!(json["hosts"][0]["tls"].as_str().unwrap().starts_with("over TLS where"), "{json}");
    assert_eq!(json["hosts"][1]["addresses"][0]["address"], "127.0.0.9");
    assert_eq!(json["schedule"]["retry"][6], "4h");
    assert_eq!(json["server"], json!({ "runs": false }));
    for line in [
        "route      [[route]] number 3 in line 20: * to 127.0.0.1:2526, hop.test:2527",
        &format!("site       {name}"),
        "           messages               30/m     ([[site]] in line 27)",
        "host       127.0.0.1 port 2526, rank 0",
        "retry      after 1m, 5m, 15m, 30m, 1h, 2h, 4h, then every 4h",
        "server     does not run with this configuration",
    ] {
        has(&text, line);
    }

    let (json, _) = explained(&config, "a@discard.test");
    assert_eq!((&json["action"], &json["route"]["number"]), (&json!("discard"), &json!(1)));
    assert_eq!(json["site"], Value::Null);
    let (json, text) = explained(&config, "a@b.reject.test");
    assert_eq!(json["action"], "reject");
    assert!(text.contains("refused by the route: 550 5.7.1"), "{text}");
    // A route given as an option has no line.
    let option = r#"route=[{domain="*", next_hop="discard"}]"#;
    let output = route(&config, &["a@b.test", "--json", "--set", option]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["route"]["number"], &json["route"]["line"]), (&json!(1), &Value::Null));
}

#[test]
fn mail_exchangers_in_order_with_what_is_left_out_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let dns = DnsServer::start();
    let records = [(20, "b.mx.test"), (10, "a.mx.test"), (15, "192.0.2.7"), (30, "relay.test")];
    dns.set("many.test", RecordType::MX, Answer::mx(&records).ttl(77));
    dns.set_addresses("a.mx.test", &["10.0.0.1", "198.41.0.4", "::1", "2001:503:ba3e::2:30"]);
    dns.set("b.mx.test", RecordType::A, Answer::no_such_domain());
    dns.set("b.mx.test", RecordType::AAAA, Answer::no_such_domain());
    let config = configure(dir.path(), dns.address, "");
    let (json, text) = explained(&config, "a@many.test");
    assert_eq!(json["route"], Value::Null);
    assert_eq!((&json["mx"]["answer"], &json["mx"]["ttl"]), (&json!("found"), &json!(77)));
    assert_eq!(
        json["mx"]["records"],
        json!([
            { "preference": 10, "host": "a.mx.test" },
            { "preference": 15, "host": "192.0.2.7", "left_out": "it is no host name" },
            { "preference": 20, "host": "b.mx.test" },
            { "preference": 30, "host": "relay.test", "left_out": "it is this server" },
        ])
    );
    assert_eq!(json["site"]["name"], "a.mx.test,b.mx.test");
    let refused = |address: &str| {
        let addresses = json["hosts"][0]["addresses"].as_array().unwrap();
        let found = addresses.iter().find(|found| found["address"] == address).unwrap();
        (found["family"].clone(), found["refused"].clone())
    };
    assert_eq!(refused("10.0.0.1"), (json!("ipv4"), json!("a private address")));
    assert_eq!(refused("198.41.0.4"), (json!("ipv4"), Value::Null));
    assert_eq!(refused("::1"), (json!("ipv6"), json!("a loopback address")));
    assert_eq!(json["hosts"][1]["problem"], "it does not exist");
    assert_eq!((&json["hosts"][1]["rank"], &json["hosts"][1]["port"]), (&json!(1), &json!(25)));
    has(&text, "route      none matches: the MX records decide");
    has(&text, "              15 192.0.2.7  (left out: it is no host name)");
    has(&text, "                 10.0.0.1  (refused: a private address)");
}

#[test]
fn answers_that_decide_by_themselves_are_told_in_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let dns = DnsServer::start();
    dns.set_mx("null.test", &[(0, ".")]);
    dns.set_addresses("implicit.test", &["198.41.0.4"]);
    dns.set_mx("loop.test", &[(10, "relay.test")]);
    dns.set_mx("private.test", &[(10, "mx.private.test")]);
    dns.set_addresses("mx.private.test", &["192.168.0.1"]);
    dns.set_mx("own.test", &[(10, "mx.own.test")]);
    dns.set_addresses("mx.own.test", &["127.0.0.1"]);
    let config = configure(dir.path(), dns.address, "");
    for (address, action, says) in [
        ("a@null.test", "fail", "556 5.1.10 null.test takes no mail"),
        ("a@gone.test", "fail", "550 5.1.2 gone.test does not exist"),
        ("a@implicit.test", "relay", "has no MX records, so it is its own mail host"),
        ("a@loop.test", "fail", "554 5.4.6 Mail for loop.test loops back"),
        ("a@private.test", "fail", "550 5.4.4 Cannot route mail"),
        ("a@[198.41.0.4]", "relay", "mail is relayed to the address in brackets"),
        ("a@[127.0.0.1]", "fail", "550 5.4.4 [127.0.0.1] is a loopback address"),
        ("a@[IPv6:2001:503:ba3e::2:30]", "relay", "the address in brackets"),
        ("a@xn--a.test", "fail", "550 5.1.2 xn--a.test is no domain name"),
        // The server's own domain has no MX records either.
        ("postmaster", "fail", "relay.test"),
    ] {
        let (json, text) = explained(&config, address);
        assert_eq!(json["action"], action, "{address}: {text}");
        assert!(text.contains(says), "{address}: {text}");
    }
    // Where private targets are allowed, the server still knows itself.
    let output = route(
        &config,
        &[
            "a@own.test",
            "--set",
            "delivery.allow_private_targets=true",
            "--set",
            "delivery.port=2525",
        ],
    );
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("554 5.4.6 Mail for mx.own.test loops back"), "{text}");
}

#[test]
fn trouble_with_dns_is_code_1_and_what_is_known_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let dns = DnsServer::start();
    dns.set("broken.test", RecordType::MX, Answer::failure());
    dns.set_mx("half.test", &[(10, "good.test"), (20, "bad.test")]);
    dns.set_addresses("good.test", &["198.41.0.4"]);
    dns.set("bad.test", RecordType::A, Answer::failure());
    dns.set("bad.test", RecordType::AAAA, Answer::failure());
    let config = configure(dir.path(), dns.address, "");
    let output = route(&config, &["a@broken.test"]);
    assert_eq!(output.status.code(), Some(1));
    let (out, err) = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
    let (out, err) = (out.unwrap(), err.unwrap());
    assert!(out.contains("defer: recipients are deferred") && out.contains("451 4.4.3"), "{out}");
    assert!(err.contains("Cannot look up the MX records of broken.test"), "{err}");

    let output = route(&config, &["a@half.test", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["action"], "relay", "the other host will do");
    assert_eq!(json["hosts"][0]["addresses"][0]["address"], "198.41.0.4");
    assert!(json["trouble"].as_str().unwrap().contains("bad.test"), "{json}");
}

#[test]
fn wrong_words_are_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let dns = DnsServer::start();
    let config = configure(dir.path(), dns.address, "");
    for address in ["", "nobody", "a@", "a@b..test", "a b@c.test", "a@[1.2.3]", "<a@b.test>"] {
        let output = route(&config, &[address]);
        assert_eq!(output.status.code(), Some(2), "{address}");
        assert_eq!(output.stdout, b"");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("is no address"), "{address}: {said}");
    }
    assert_eq!(dns.total(), 0);
    assert_eq!(route(&config, &["a@b.test", "--set", "delivery.port=0"]).status.code(), Some(2));
}

#[test]
fn a_running_server_tells_what_it_has_of_the_site() {
    let dir = tempfile::tempdir().unwrap();
    let hop = NextHop::with(|_| Some("451 4.2.1 come again".into()));
    let dns = DnsServer::start();
    dns.set_mx("live.test", &[(10, "mx.live.test")]);
    dns.set_addresses("mx.live.test", &["127.0.0.1"]);
    let more = format!(
        "[delivery]\nport = {}\nallow_private_targets = true\nconnections_per_site = 3\n",
        hop.address.port()
    );
    let config = configure(dir.path(), dns.address, &more);
    let settings = [
        &*format!("dns.servers=[\"{}\"]", dns.address),
        &*format!("delivery.port={}", hop.address.port()),
        "delivery.allow_private_targets=true",
        "delivery.connections_per_site=3",
        "route=[]",
        // So often that the server does not forget the site meanwhile.
        r#"queue.retry=["200ms"]"#,
    ];
    let server = Server::start(&dir.path().join("data"), &settings);
    let (json, text) = explained(&config, "a@live.test");
    assert_eq!(json["server"], json!({ "runs": true }));
    has(&text, "server     runs, and has had no mail for the site lately");
    let mut client = Client::connect(server.smtp).unwrap();
    let reply = client.message("s@x.test", &["a@live.test"], b"Subject: x\r\n\r\nx\r\n").unwrap();
    assert!(reply.starts_with("250"), "{reply}");
    server.wait_log(|line| line.contains("mail: deferred"));
    let (json, text) = explained(&config, "a@live.test");
    let site = &json["server"]["site"];
    assert_eq!((&site["site"], &site["owner"]), (&json!("mx.live.test"), &json!(0)), "{json}");
    assert_eq!(site["connections_limit"], 3);
    assert!(text.contains("(3 at most)"), "{text}");
    drop(server);
}
