//! Loading as a whole: every key, every error, the way there and back.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use super::schema::{Fallback, KEYS, Kind, LISTS};
use super::*;
use crate::base::Durability;

const MINIMAL: &str = "hostname = \"a.example\"\n\
                       [[listener]]\naddress = \"127.0.0.1:2525\"\n\
                       [[route]]\ndomain = \"*\"\nnext_hop = \"127.0.0.1:2526\"\n";

fn load(text: &str) -> Result<Config, ConfigErrors> {
    Config::from_text("t.toml", text, &[])
}

fn with_set(set: &[&str]) -> Result<Config, ConfigErrors> {
    let set: Vec<String> = set.iter().map(|option| option.to_string()).collect();
    Config::from_text("t.toml", MINIMAL, &set)
}

fn only_error(result: Result<Config, ConfigErrors>) -> ConfigError {
    let errors = result.unwrap_err();
    assert_eq!(errors.iter().count(), 1, "{errors}");
    errors.iter().next().unwrap().clone()
}

/// An option that sets `path` to `value`, in a list of tables if need be.
fn option_for(path: &str, value: &str) -> String {
    match path.split_once('.') {
        Some(("listener", "address")) => format!("listener=[{{address={value}}}]"),
        Some(("listener", name)) => {
            format!("listener=[{{address=\"127.0.0.1:2525\",{name}={value}}}]")
        }
        Some(("route", name)) => {
            let others = [("domain", "\"*\""), ("next_hop", "\"discard\"")];
            let rest: String = others
                .iter()
                .filter(|(other, _)| *other != name)
                .map(|(other, value)| format!("{other}={value},"))
                .collect();
            format!("route=[{{{rest}{name}={value}}}]")
        }
        Some(("tls", name)) if name.contains('.') => {
            let others = [("certificate", "\"a\""), ("key", "\"b\"")];
            let name = &name["certificate.".len()..];
            let rest: String = others
                .iter()
                .filter(|(other, _)| *other != name)
                .map(|(other, value)| format!("{other}={value},"))
                .collect();
            format!("tls.certificate=[{{{rest}{name}={value}}}]")
        }
        Some(("site", name)) => {
            let others = [("domain", "\"a.org\""), ("connections", "1")];
            let rest: String = others
                .iter()
                .filter(|(other, _)| *other != name)
                .map(|(other, value)| format!("{other}={value},"))
                .collect();
            format!("site=[{{{rest}{name}={value}}}]")
        }
        _ => format!("{path}={value}"),
    }
}

#[test]
fn proxies_are_named_where_they_are_asked_for() {
    let with =
        |keys: &str| with_set(&[&format!("listener=[{{address=\"127.0.0.1:2525\",{keys}}}]")]);
    let error = only_error(with("proxy_protocol=true"));
    assert_eq!(error.key, "listener.proxy_protocol");
    let error = only_error(with("proxy_from=[\"192.0.2.1\"]"));
    assert_eq!(error.key, "listener.proxy_from");
    let config = with("proxy_protocol=true,proxy_from=[\"192.0.2.1\"]").unwrap();
    assert!(config.listeners[0].fronts.proxy_protocol);
    let open = "listener=[{address=\"0.0.0.0:2525\",xclient_from=[\"0.0.0.0/0\"]}]";
    let warnings = with_set(&[open]).unwrap().warnings();
    assert!(warnings[0].contains("listener.xclient_from holds 0.0.0.0/0"), "{warnings:?}");
}

#[test]
fn what_the_standard_asks_for_holds_by_default() {
    let config = load(MINIMAL).unwrap();
    let minutes = |count: u64| Duration::from_secs(60 * count);
    // RFC 5321, 4.5.3.2.7 and 4.5.3.2.5; 4.5.3.1.7 and 4.5.3.1.8.
    assert!(config.limits.command_timeout >= minutes(5));
    assert!(config.limits.data_timeout >= minutes(3));
    assert!(config.limits.message_size >= 64 * 1024 && config.limits.recipients >= 100);
    // 4.5.4.1: for four or five days at least, after a while half an hour apart or more.
    assert!(config.queue.expire >= minutes(4 * 24 * 60));
    assert!(config.queue.retry.is_sorted());
    assert!(*config.queue.retry.last().unwrap() >= minutes(30));
}

#[test]
fn lmtp_is_served_as_its_standard_asks() {
    let with = |keys: &str| with_set(&[&format!("listener=[{{kind=\"lmtp\",{keys}}}]")]);
    assert!(with("address=\"127.0.0.1:24\"").is_ok());
    let error = only_error(with("address=\"127.0.0.1:25\""));
    assert!(error.key == "listener.address" && error.problem.contains("RFC 2033"), "{error}");
    let error = only_error(with("address=\"127.0.0.1:24\",disable=[\"PIPELINING\"]"));
    assert!(error.key == "listener.disable" && error.problem.contains("RFC 2033"), "{error}");
}

#[test]
fn embedded_default_is_the_default() {
    let config = Config::load(None, &["hostname=localhost".into()]).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.warnings(), Vec::<String>::new());
    assert_eq!(config.admin_socket(), Path::new("./ringpost-data/admin.sock"));
}

#[test]
fn documented_defaults_are_those_that_hold() {
    let plain = load(MINIMAL).unwrap();
    for key in KEYS {
        let Fallback::Value(value) = key.default else { continue };
        let written = match key.path.split_once('.') {
            Some((table, _)) if LISTS.contains(&table) => {
                let option = option_for(key.path, value);
                let config = with_set(&[&option]).unwrap();
                match table {
                    "listener" => assert_eq!(config.listeners, plain.listeners, "{}", key.path),
                    _ => assert_eq!(config.routes[0].tls, plain.routes[0].tls, "{}", key.path),
                }
                continue;
            }
            _ => with_set(&[&format!("{}={value}", key.path)]).unwrap(),
        };
        assert_eq!(written, plain, "{}", key.path);
    }
}

#[test]
fn every_key_is_read_and_refuses_a_wrong_kind() {
    for key in KEYS {
        for wrong in ["true", "1.5", "[[1]]", "{a=1}", "\"\\u0000 :\""] {
            if wrong == "true" && matches!(key.kind, Kind::Flag) {
                continue;
            }
            let error = only_error(with_set(&[&option_for(key.path, wrong)]));
            assert_eq!(error.key, key.path, "{wrong}: {error}");
            assert_eq!(error.remedy, format!("allowed: {}", key.kind), "{wrong}");
        }
    }
}

#[test]
fn reads_all_that_differs() {
    let config = with_set(&[
        "data_dir=/tmp/x",
        "cores=2",
        "durability=os",
        "shutdown_grace=0s",
        "access.relay_from=[\"10.0.0.0/8\", \"192.0.2.7\"]",
        "access.relay_domains=[\"Example.org\", \"*.example.org\"]",
        "route=[{domain=\"*.example.org\", next_hop=[\"192.0.2.1:25\", \"[2001:db8::1]:25\"]}, \
         {domain=\"example.org\", next_hop=\"discard\"}]",
        "queue.retry=[\"10ms\"]",
        "queue.delay_notice=off",
        "delivery={port=2526,allow_private_targets=true,message_rate=\"30/m\"}",
        "site=[{domain=\"Example.org\",connections=2},{mx=[\"*.a.b\"],connection_rate=\"off\"}]",
        "queue.segment_size=1MiB",
        "dns.servers=[\"192.0.2.53\", \"[::1]:5353\"]",
        "limits.message_size=1GiB",
        "admin.http=off",
        "admin.socket=/run/ringpost.sock",
    ])
    .unwrap();
    assert_eq!(config.cores, Cores::Count(2));
    assert_eq!(config.durability, Durability::Os);
    assert_eq!(config.shutdown_grace, Duration::ZERO);
    assert_eq!(config.access.relay_from[1].to_string(), "192.0.2.7/32");
    assert_eq!(config.access.relay_domains[0], DomainPattern::Exact("example.org".into()));
    assert!(matches!(&config.routes[0].next_hop, NextHop::Hosts(hosts) if hosts.len() == 2));
    assert_eq!(config.routes[1].next_hop, NextHop::Discard);
    assert_eq!(config.queue.retry, [Duration::from_millis(10)]);
    assert_eq!(config.queue.delay_notice, None);
    assert_eq!((config.delivery.port, config.delivery.allow_private_targets), (2526, true));
    assert_eq!(config.delivery.message_rate, Some(Rate { count: 30, per: Per::Minute }));
    assert_eq!(config.delivery.given.0, ["message_rate", "port", "allow_private_targets"]);
    let sites = [
        SiteTable {
            domains: vec![DomainPattern::Exact("example.org".into())],
            connections: Some(2),
            ..SiteTable::default()
        },
        SiteTable {
            mx: vec![DomainPattern::Below("a.b".into())],
            connection_rate: Some(None),
            ..SiteTable::default()
        },
    ];
    assert_eq!(config.sites, sites);
    assert_eq!((config.queue.segment_size, config.limits.message_size), (1 << 20, 1 << 30));
    let servers: Vec<String> = config.dns.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["192.0.2.53:53", "[::1]:5353"]);
    assert_eq!(config.admin.http, None);
    assert_eq!(config.admin_socket(), Path::new("/run/ringpost.sock"));
}

#[test]
fn printed_configurations_load_the_same() {
    let odd = with_set(&[
        "data_dir=\"a\\\"b\\\\c\\u007f\\n'é\"",
        "cores=0-3,8",
        "durability=memory",
        "listener=[{address=[\"127.0.0.1:0\",\"127.0.0.1:0\"]},{address=\"[::1]:25\"}]",
        "access.relay_domains=[\"*\"]",
        "route=[{domain=\"a.b\",next_hop=\"reject\"},{domain=\"*\",next_hop=\"192.0.2.1:1\"}]",
        "queue.retry=[\"10ms\",\"90s\"]",
        "limits.message_size=65537B",
        "dns.servers=\"2001:db8::1\"",
        "dns.timeout=10ms",
        "admin.http=off",
    ])
    .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "secret\n").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let routes = format!(
        "route=[{{domain=\"a.b\",next_hop=\"mx\",tls=\"off\"}},\
         {{domain=\"c.d\",next_hop=\"lmtp+unix:///run/lmtp\"}},\
         {{domain=\"*\",next_hop=[\"mx.example.org\",\"smtps://mx2.example.org\",\"[::1]:27\"],\
         tls=\"verified\",user=\"me\",password_file={file:?}}}]"
    );
    let full = with_set(&[
        &routes,
        "delivery.tls=required",
        "delivery.tls_ca=/etc/ca.pem",
        "delivery.chunking=false",
        "delivery.connection_rate=10/s",
        "delivery.message_rate=500/h",
        "delivery.port=2526",
        "delivery.allow_private_targets=true",
        "queue.delay_notice=off",
        "auth.users=/etc/users",
        "auth.mechanisms=[\"plain\"]",
        "auth.sender_match=off",
        "site=[{domain=\"Gmail.com\",mx=[\"*.google.com\"],connections=5,connection_rate=\"1/m\",\
         messages_per_connection=7},{mx=\"*\",message_rate=\"off\"}]",
    ])
    .unwrap();
    let bare = with_set(&["route=[]"]).unwrap();
    let tls = with_set(&[
        "listener=[{address=\"127.0.0.1:1\",kind=\"submissions\"}]",
        "tls.certificate=[{certificate=\"a\",key=\"b\"},{certificate=\"c\",key=\"d\",names=\"*.x.y\"}]",
        "tls.min_version=\"1.3\"",
        "tls.client_certificates=require",
        "tls.client_ca=e",
        "auth.users=u",
    ])
    .unwrap();
    assert_eq!(tls.listeners[0].tls, ListenerTls::Implicit, "as submissions are");
    let one = with_set(&["tls.certificate=a", "tls.key=b"]).unwrap();
    let printed = full.to_toml() + &tls.to_toml();
    let own = Config { tls: one.tls.clone(), ..Config::default() };
    for config in [own, odd, bare, tls, one, full] {
        let text = config.to_toml();
        assert_eq!(load(&text).unwrap(), config, "{text}");
        let from_toml: serde_json::Value =
            serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap();
        assert_eq!(config.to_json(), from_toml);
    }
    for key in KEYS.iter().filter(|key| key.path != "hostname") {
        let name = key.path.rsplit('.').next().unwrap();
        assert!(printed.contains(&format!("\n{name} = ")), "{name}");
    }
}

#[test]
fn errors_name_place_key_and_remedy() {
    let text = MINIMAL.replace("hostname", "hostnmae")
        + "[limits]\nrecipients = 50\nconnections = \"many\"\n\
           command_timeout = 300\n[[listener]]\ntls = \"always\"\nconnect_timeout = \"1s\"\n\
           [[route]]\ndomain = \"a..b\"\nnext_hop = [\"127.0.0.1:1\", \"mx_1.example:25\"]\n\
           [nameservers]\nservers = []\n";
    let errors = load(&text).unwrap_err();
    let lines: Vec<String> =
        errors.iter().map(|error| error.to_string().replace("\n  ", " | ")).collect();
    let starts = [
        "t.toml:1:1: hostnmae: there is no such key | did you mean `hostname`?",
        "t.toml:8:14: limits.recipients: 50 is too small | allowed: 100 to 65535",
        "t.toml:9:15: limits.connections: must be an integer, not a text | allowed: 1 to 1000000",
        "t.toml:10:19: limits.command_timeout: must be a text with a unit, not an integer | allowed",
        "t.toml:11:1: listener.address: is missing | allowed: IP:PORT or a list",
        "t.toml:12:7: listener.tls: \"always\" is none of the choices | allowed: \"off\" or \"optional\" or \"required\" or \"implicit\"",
        "t.toml:13:1: listener.connect_timeout: there is no such key | `connect_timeout` belongs in",
        "t.toml:15:10: route.domain: not a domain: `a..b` has an empty label",
        "t.toml:16:28: route.next_hop: \"mx_1.example:25\" is neither an address with a port nor a",
        "t.toml:17:2: nameservers: there is no such table | known here: hostname, data_dir",
    ];
    assert_eq!(lines.len(), starts.len(), "{errors}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}\n{start}");
    }
}

#[test]
fn values_out_of_bounds_are_refused() {
    for (path, value, problem) in [
        ("cores", "0", "0 is no count"),
        ("cores", "\"3-1\"", "runs backwards"),
        ("durability", "\"fsync\"", "none of the choices"),
        ("shutdown_grace", "\"2h\"", "2h is too large"),
        ("shutdown_grace", "\"soon\"", "is not a duration"),
        ("hostname", "\"a_b\"", "'_' cannot stand in a domain name"),
        ("hostname", "\"bücher.example\"", "xn--"),
        ("listener.address", "[]", "the list is empty"),
        ("listener.address", "\"127.0.0.1\"", "lacks a port"),
        ("listener.address", "\"::1\"", "lacks a port"),
        ("listener.address", "\"localhost:25\"", "names are not looked up"),
        ("listener.address", "\"127.0.0.1:70000\"", "not an address with a port"),
        ("listener.kind", "\"pop3\"", "is none of the choices"),
        ("access.relay_from", "[\"10.0.0.1/8\"]", "the network is 10.0.0.0/8"),
        ("access.relay_from", "[\"10.0.0.0/33\"]", "neither a network"),
        ("access.relay_from", "[\"10.0.0.0/8\", \"10.0.0.0/8\"]", "twice"),
        ("access.relay_domains", "[\"a.b\", \"A.b\"]", "twice"),
        ("route.next_hop", "\"discrad\"", "no word that is known here"),
        ("route.next_hop", "[]", "the list is empty"),
        ("route.next_hop", "[\"discard\"]", "stands alone"),
        ("route.next_hop", "[\"mx\"]", "stands alone"),
        ("route.next_hop", "[\"mx.example\", \"MX.example\"]", "twice"),
        ("route.next_hop", "\"mx.example:0\"", "neither an address"),
        ("route.next_hop", "\"192.0.2.1:0\"", "connected to"),
        ("route.next_hop", "\"0.0.0.0:25\"", "connected to"),
        ("route.next_hop", "[\"192.0.2.1:25\", \"192.0.2.1:25\"]", "twice"),
        ("delivery.connections_per_site", "0", "0 is too small"),
        ("delivery.connections_per_site", "-1", "-1 is too small"),
        ("delivery.connections_per_site", "4294967297", "too large"),
        ("delivery.port", "0", "0 is too small"),
        ("delivery.port", "65536", "65536 is too large"),
        ("delivery.allow_private_targets", "\"yes\"", "must be true or false, not a text"),
        ("delivery.message_rate", "\"100\"", "\"100\" is not a rate"),
        ("delivery.message_rate", "\"0/s\"", "hold mail for ever"),
        ("delivery.connection_rate", "\"1/d\"", "\"1/d\" is not a rate"),
        ("delivery.connection_rate", "10", "must be a text like \"100/s\", not an integer"),
        ("site.connections", "0", "0 is too small"),
        ("site.mx", "[\"a.b\", \"A.b\"]", "twice"),
        ("site.domain", "\"*.\"", "the domain is empty"),
        ("site.message_rate", "\"fast\"", "\"fast\" is not a rate"),
        ("queue.delay_notice", "\"never\"", "\"never\" is not a duration"),
        ("queue.delay_notice", "\"31d\"", "31d is too large"),
        ("queue.retry", "[]", "the list is empty"),
        ("queue.retry", "\"1m\"", "must be a list"),
        ("queue.segment_size", "\"1025KiB\"", "not a multiple of 4KiB"),
        ("queue.segment_size", "\"2GiB\"", "2GiB is too large"),
        ("limits.message_size", "\"1KiB\"", "1KiB is too small"),
        ("limits.message_size", "\"5GiB\"", "5GiB is too large"),
        ("limits.message_size", "\"50MB\"", "is not a size"),
        ("limits.message_size", "52428800", "must be a text with a unit"),
        ("admin.socket", "\"\"", "the path is empty"),
    ] {
        let error = only_error(with_set(&[&option_for(path, value)]));
        assert_eq!(error.key, path);
        assert!(error.problem.contains(problem), "{path}={value}: {error}");
    }
}

#[test]
fn tables_must_be_tables() {
    for (option, key, problem) in [
        ("limits=5", "limits", "must be a table"),
        ("listener={address=\"127.0.0.1:1\"}", "listener", "must be a list of tables"),
        ("listener=x", "listener", "must be a list of tables, not a text"),
        ("listener=[]", "listener", "the list is empty"),
        ("route=[\"x\"]", "route", "this is a text"),
    ] {
        let error = only_error(with_set(&[option]));
        assert_eq!(error.key, key);
        assert!(error.problem.contains(problem), "{option}: {error}");
    }
    let errors = load("hostname = \"a\"\n").unwrap_err();
    let keys: Vec<&str> = errors.iter().map(|error| error.key.as_str()).collect();
    assert_eq!(keys, ["listener"]);
    assert!(errors.to_string().contains("write `[[listener]]`"), "{errors}");
}

#[test]
fn values_must_fit_together() {
    for (set, key, problem) in [
        (
            "listener=[{address=[\"127.0.0.1:1\", \"127.0.0.1:1\"]}]",
            "listener.address",
            "listened on already",
        ),
        (
            "listener=[{address=\"127.0.0.1:1\"}, {address=\"127.0.0.1:1\"}]",
            "listener.address",
            "listened on already",
        ),
        ("admin.http=127.0.0.1:2525", "admin.http", "listened on for mail"),
        (
            "route=[{domain=\"*.a\", next_hop=\"discard\"}, {domain=\"b.a\", next_hop=\"reject\"}]",
            "route.domain",
            "never used",
        ),
        ("route=[{domain=\"*\", next_hop=\"127.0.0.1:2525\"}]", "route.next_hop", "go round"),
        ("listener=[{address=\"0.0.0.0:2526\"}]", "route.next_hop", "go round"),
        (
            "route=[{domain=\"*\", next_hop=[\"b.example\", \"A.example:2525\"]}]",
            "route.next_hop",
            "go round",
        ),
        ("site=[{connections=1}]", "site", "is about no site"),
        ("site=[{domain=[], mx=[], connections=1}]", "site", "is about no site"),
        ("site=[{mx=\"a.b\"}]", "site", "sets no limit"),
        (
            "site=[{domain=[\"*.a\", \"b\"], connections=1}, {domain=\"x.a\", connections=2}]",
            "site",
            "never used",
        ),
        ("site=[{domain=\"*\", connections=1}, {mx=\"*.b\", connections=2}]", "site", "never used"),
        (
            "site=[{mx=\"*\", connections=1}, {mx=\"*.b\", message_rate=\"1/s\"}, \
             {mx=\"a.b\", connections=3, message_rate=\"off\"}]",
            "site",
            "never used",
        ),
        ("limits.recipients=65535", "limits.recipients", "or more, or limits"),
    ] {
        if key == "limits.recipients" {
            let options = [set, "queue.segment_size=1MiB"];
            let error = only_error(with_set(&options));
            assert!(error.key == key && error.remedy.contains(problem), "{error}");
            continue;
        }
        let error = only_error(with_set(&[set]));
        assert_eq!(error.key, key, "{error}");
        assert!(error.problem.contains(problem), "{error}");
    }
    with_set(&["listener=[{address=[\"127.0.0.1:0\", \"127.0.0.1:0\"]}]"]).unwrap();
    for sites in [
        "site=[{domain=\"a\", connections=1}, {domain=\"*\", connections=2}]",
        "site=[{domain=\"*.a\", connections=1}, {domain=\"a\", connections=2}]",
        "site=[{domain=\"*\", connections=1}, {domain=\"a\", connections=2, message_rate=\"1/s\"}]",
        "site=[{mx=\"*\", connections=1}, {domain=\"a\", connections=2}]",
        "site=[{domain=\"a\", connections=1}, {domain=\"a\", mx=\"b\", connections=2}]",
    ] {
        with_set(&[sites]).unwrap_or_else(|error| panic!("{sites}: {error}"));
    }
}

#[test]
fn a_site_table_knows_its_line() {
    let text = format!("{MINIMAL}# a comment\n[[site]]\nmx = \"*.b\"\nconnections = 1\n");
    assert_eq!(load(&text).unwrap().sites[0].line.0, 8);
    let option = with_set(&["site=[{mx=\"*.b\", connections=1}]"]).unwrap();
    assert_eq!(option.sites[0].line.0, 0);
    assert_eq!(option.sites, load(&text).unwrap().sites, "which is no difference");
}

#[test]
fn largest_allowed_values_fit_together() {
    with_set(&["limits.recipients=65535", "queue.segment_size=64MiB"]).unwrap();
    with_set(&["limits.recipients=1000", "queue.segment_size=1MiB"]).unwrap();
}

#[test]
fn warns_of_open_relays_and_weak_durability() {
    let open = "access.relay_from=[\"0.0.0.0/0\"]";
    assert!(with_set(&[open]).unwrap().warnings().is_empty());
    let public = "listener=[{address=\"192.0.2.1:25\"}]";
    let warnings = with_set(&[open, public]).unwrap().warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("open relay"), "{warnings:?}");
    let domains = "access.relay_domains=[\"*\"]";
    let warnings = with_set(&[domains, public]).unwrap().warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("open relay"), "{warnings:?}");
    let inside = "delivery.allow_private_targets=true";
    assert!(with_set(&[inside]).unwrap().warnings().is_empty());
    let warnings = with_set(&[inside, public]).unwrap().warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("inside of this"), "{warnings:?}");
    let warnings = with_set(&["queue.expire=4h"]).unwrap().warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("delay_notice is 4h"), "{warnings:?}");
    let without = with_set(&["queue.expire=4h", "queue.delay_notice=off"]).unwrap();
    assert!(without.warnings().is_empty());
    let warnings = with_set(&["durability=os"]).unwrap().warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("power"), "{warnings:?}");
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let missing = Config::load(Some(Path::new("/nonexistent/r.toml")), &[]).unwrap_err();
    assert!(missing.to_string().starts_with("/nonexistent/r.toml: cannot read"), "{missing}");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"# \xc3\xa9\nhostname = \"\xff\"\n").unwrap();
    let error = only_error(Config::load(Some(file.path()), &[]));
    assert_eq!(error.position, Some((2, 13)), "{error}");
    file.as_file().set_len(0).unwrap();
    std::fs::write(file.path(), MINIMAL).unwrap();
    assert_eq!(Config::load(Some(file.path()), &[]).unwrap().hostname, "a.example");
}

#[test]
fn syntax_errors_come_alone() {
    let errors = load("hostname = \n[limits\nrecipients = 5\n").unwrap_err();
    assert!(errors.iter().all(|error| error.problem.starts_with("not valid TOML")), "{errors}");
    assert_eq!(errors.iter().next().unwrap().position.unwrap().0, 1);
}
