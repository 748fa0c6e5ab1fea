//! The resolver against a server that answers as it is told.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::super::executor::{run_pinned, spawn};
use super::*;

use super::server::{Answer, DnsServer, RecordType};

/// Long enough for any answer on loopback.
const PATIENCE: Duration = Duration::from_secs(20);
/// Short, where a test waits for it to pass.
const SHORT: Duration = Duration::from_millis(200);

fn options(servers: &[SocketAddr], timeout: Duration) -> DnsOptions {
    DnsOptions {
        source: Source::Fixed(servers.to_vec()),
        timeout,
        ..DnsOptions::from(&Dns { servers: vec![], timeout })
    }
}

/// Runs a test on an executor with a resolver.
fn with<Fut: Future<Output = ()> + 'static>(
    options: DnsOptions,
    test: impl FnOnce(Resolver) -> Fut + Send + 'static,
) {
    let make = move || async move { test(Resolver::new(options)).await };
    run_pinned("dns", None, make).unwrap().join().unwrap();
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn hosts(hosts: &[(u16, &str)]) -> Vec<(u16, Box<str>)> {
    hosts.iter().map(|(preference, host)| (*preference, (*host).into())).collect()
}

fn trouble<T>(lookup: Lookup<T>) -> String {
    match lookup.result {
        Err(DnsFailure::Trouble(text)) => text.into(),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("found something"),
    }
}

#[test]
fn finds_exchangers_and_addresses_and_remembers() {
    let server = DnsServer::start();
    server.set_mx("example.org", &[(20, "B.example.net"), (10, "a.example.net")]);
    server.set_addresses("a.example.net", &["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
    with(options(&[server.address], PATIENCE), |resolver| async move {
        assert_eq!(resolver.cached_mx("example.org"), None);
        let found = resolver.mx("Example.ORG.").await;
        let expected = hosts(&[(10, "a.example.net"), (20, "b.example.net")]);
        assert_eq!(found.result, Ok(expected.clone()));
        assert_eq!(resolver.cached_mx("EXAMPLE.org"), Some(found.clone()));
        assert_eq!(resolver.mx("example.org").await, found);
        let addresses = resolver.addresses("a.example.net").await;
        assert_eq!(addresses.result, Ok(ips(&["192.0.2.1", "192.0.2.2", "2001:db8::1"])));
        assert_eq!(addresses.missing, None);
        let figures = resolver.figures();
        assert_eq!((figures.hits, figures.misses, figures.queries, figures.entries), (2, 3, 3, 3));
    });
}

#[test]
fn nothing_is_certain_and_holds_as_long_as_the_zone_says() {
    let server = DnsServer::start();
    server.set("gone.example", RecordType::MX, Answer::no_such_domain().soa(900, 60));
    server.set("empty.example", RecordType::MX, Answer::no_data().soa(40, 900));
    server.set("bare.example", RecordType::MX, Answer::no_data().without_soa());
    server.set("null.example", RecordType::MX, Answer::mx(&[(0, ".")]).ttl(0));
    with(options(&[server.address], PATIENCE), |resolver| async move {
        let began = Instant::now();
        let gone = resolver.mx("gone.example").await;
        let empty = resolver.mx("empty.example").await;
        let bare = resolver.mx("bare.example").await;
        let null = resolver.mx("null.example").await;
        assert_eq!(gone.result, Err(DnsFailure::NoSuchDomain));
        assert_eq!(empty.result, Err(DnsFailure::NoData));
        assert_eq!(bare.result, Err(DnsFailure::NoData));
        assert_eq!(null.result, Ok(hosts(&[(0, "")])));
        // Whole seconds: one may be lost.
        for (lookup, seconds) in [(gone, 60), (empty, 40), (bare, 60), (null, 5)] {
            let holds = lookup.expires - began;
            let most = Duration::from_secs(seconds) + began.elapsed();
            assert!(holds <= most && holds + Duration::from_secs(1) >= most, "{holds:?} {seconds}");
        }
        assert_eq!(
            resolver.addresses("nowhere.example").await.result,
            Err(DnsFailure::NoSuchDomain)
        );
        let queries = resolver.figures().queries;
        for name in ["gone.example", "empty.example", "bare.example", "null.example"] {
            assert!(resolver.cached_mx(name).is_some());
            resolver.mx(name).await;
        }
        assert_eq!(resolver.figures().queries, queries);
    });
}

#[test]
fn names_that_cannot_be_are_not_asked_for() {
    let server = DnsServer::start();
    server.set_mx("xn--bcher-kva.example", &[(1, "mx.example")]);
    let address = server.address;
    with(options(&[address], PATIENCE), |resolver| async move {
        for name in ["", "a..example", "a b.example", "[192.0.2.1]", &"x".repeat(64)] {
            assert_eq!(resolver.mx(name).await.result, Err(DnsFailure::NoSuchDomain), "{name:?}");
            assert_eq!(resolver.addresses(name).await.result, Err(DnsFailure::NoSuchDomain));
            assert!(resolver.cached_mx(name).is_some());
        }
        assert_eq!(resolver.figures().queries, 0);
        assert_eq!(resolver.mx("bücher.example").await.result, Ok(hosts(&[(1, "mx.example")])));
    });
    assert_eq!(server.total(), 1);
}

#[test]
fn failures_are_trouble_and_not_asked_for_again_at_once() {
    let server = DnsServer::start();
    let bad = [
        ("failed.example", Answer::failure(), "Server Failure"),
        ("refused.example", Answer::refused(), "Query Refused"),
        ("unasked.example", Answer::refused().without_question(), "Query Refused"),
        ("referred.example", Answer::referral(), "named other servers"),
        ("odd.example", Answer::malformed(), "did not understand"),
        ("silent.example", Answer::silence(), "no answer in time"),
        ("garbage.example", Answer::garbage(), "no answer in time"),
        ("half.example", Answer::mx(&[(1, "a.example")]).half(), "end of file"),
        ("forged.example", Answer::mx(&[(1, "a.example")]).wrong_id(), "no answer in time"),
        ("other.example", Answer::mx(&[(1, "a.example")]).wrong_question(), "no answer in time"),
        ("elsewhere.example", Answer::mx(&[(1, "a.example")]).wrong_source(), "no answer in time"),
        ("late.example", Answer::mx(&[(1, "a.example")]).delay(PATIENCE), "no answer in time"),
    ];
    for (name, answer, _) in &bad {
        server.set(name, RecordType::MX, answer.clone());
    }
    let address = server.address;
    let (silent, loud): (Vec<_>, Vec<_>) =
        bad.into_iter().partition(|(.., why)| *why == "no answer in time");
    let check = move |resolver: Resolver, bad: Vec<(&'static str, Answer, &'static str)>| async move {
        for (name, _, why) in bad {
            let text = trouble(resolver.mx(name).await);
            assert!(text.contains(why) && text.contains(&address.to_string()), "{name}: {text}");
            let queries = resolver.figures().queries;
            assert_eq!(trouble(resolver.mx(name).await), text);
            let cached = resolver.cached_mx(name).unwrap();
            assert!(cached.expires - Instant::now() <= Duration::from_secs(5));
            assert_eq!(resolver.figures().queries, queries, "{name}");
        }
        resolver.figures()
    };
    with(options(&[address], PATIENCE), move |resolver| async move {
        assert_eq!(check(resolver, loud).await.timeouts, 0);
    });
    with(options(&[address], SHORT), move |resolver| async move {
        let count = silent.len() as u64;
        let figures = check(resolver, silent).await;
        assert!(figures.mismatched >= 3, "{figures:?}");
        assert!(figures.timeouts >= count && figures.troubles == count, "{figures:?}");
    });
}

#[test]
fn a_wrong_answer_is_passed_over_and_the_right_one_taken() {
    let server = DnsServer::with(|question| {
        let answer = Answer::mx(&[(1, "a.example")]);
        Some(match (&*question.name, question.before) {
            ("id.example", 0) => answer.wrong_id(),
            ("question.example", 0) => answer.wrong_question(),
            ("source.example", 0) => answer.wrong_source(),
            ("guessed.example", _) => answer.guessed(),
            _ => answer,
        })
    });
    let address = server.address;
    // A fifth of it passes.
    with(options(&[address], 25 * SHORT), |resolver| async move {
        let names = ["id.example", "question.example", "source.example", "guessed.example"];
        let look_up = |name: &'static str| {
            let resolver = resolver.clone();
            spawn(async move { resolver.mx(name).await.result })
        };
        let tasks = names.map(look_up);
        for (name, task) in names.into_iter().zip(tasks) {
            assert_eq!(task.await, Ok(hosts(&[(1, "a.example")])), "{name}");
        }
        let figures = resolver.figures();
        // What came from elsewhere was never seen.
        assert_eq!((figures.mismatched, figures.timeouts), (10, 3));
    });
    assert_eq!(server.over_tcp(), 1);
}

#[test]
fn a_server_that_loses_case_is_believed_over_tcp_then_spared() {
    let server = DnsServer::with(|_| Some(Answer::mx(&[(1, "a.example")]).lower_case()));
    let forged = DnsServer::with(|_| Some(Answer::mx(&[(1, "a.example")]).lower_case_by_udp()));
    // Of these letters, all are lower case once in a thousand million times.
    let name = |index: u32| format!("abcdefghijklmnopqrstuvwxyzabcd{index}.example");
    for (server, over_tcp) in [(&server, 1), (&forged, 4)] {
        with(options(&[server.address], PATIENCE), move |resolver| async move {
            for index in 0..4 {
                assert!(resolver.mx(&name(index)).await.result.is_ok());
            }
        });
        assert_eq!(server.over_tcp(), over_tcp);
    }
}

#[test]
fn servers_without_edns_are_asked_without() {
    let server = DnsServer::with(|question| {
        Some(match question.has_edns {
            true => Answer::malformed(),
            false => Answer::mx(&[(1, "a.example")]),
        })
    });
    with(options(&[server.address], PATIENCE), |resolver| async move {
        for name in ["a.example", "b.example", "c.example"] {
            assert!(resolver.mx(name).await.result.is_ok());
        }
        assert_eq!(resolver.figures().queries, 4);
    });
    assert_eq!(server.without_edns(), 3);
}

#[test]
fn long_answers_come_over_tcp_and_are_cut() {
    let server = DnsServer::with(|question| match question.kind {
        RecordType::MX => {
            let names: Vec<String> = (0..3000).map(|n| format!("h{n}.x.example")).collect();
            let hosts: Vec<(u16, &str)> = (0..3000).rev().zip(names.iter().map(|n| &**n)).collect();
            Some(Answer::mx(&hosts))
        }
        RecordType::A => {
            let texts: Vec<String> =
                (0..4000).map(|n| format!("198.18.{}.{}", n / 256, n % 256)).collect();
            Some(Answer::addresses(&texts.iter().map(|text| &**text).collect::<Vec<_>>()))
        }
        _ => Some(Answer::addresses(&["2001:db8::1"]).truncated()),
    });
    with(options(&[server.address], PATIENCE), |resolver| async move {
        let found = resolver.mx("many.example").await.result.unwrap();
        assert_eq!(found.len(), message::RECORDS_MAX);
        assert!(found.is_sorted_by_key(|(preference, _)| *preference));
        let addresses = resolver.addresses("many.example").await.result.unwrap();
        assert_eq!(addresses.len(), message::RECORDS_MAX + 1);
        assert_eq!(resolver.figures().truncated, 3);
    });
    assert_eq!(server.over_tcp(), 3);
}

#[test]
fn aliases_are_followed_but_not_for_ever() {
    let server = DnsServer::with(|question| {
        let number = |prefix: &str| {
            let rest = question.name.strip_prefix(prefix)?;
            rest.strip_suffix(".example")?.parse::<u32>().ok()
        };
        match (number("chain"), number("steps"), number("ring"), &*question.name) {
            (Some(0), ..) | (_, Some(0), ..) => Some(Answer::mx(&[(1, "a.example")]).ttl(70)),
            (Some(n), ..) => Some(Answer::cname(&format!("Chain{}.example", n - 1)).ttl(80 - n)),
            (_, Some(n), ..) => Some(Answer::cname(&format!("steps{}.example", n - 1)).alone()),
            (_, _, Some(n), _) => {
                Some(Answer::cname(&format!("ring{}.example", (n + 1) % 3)).alone())
            }
            (.., "self.example") => Some(Answer::cname("self.example")),
            (.., "loop.example") => Some(Answer::cname("pool.example")),
            (.., "pool.example") => Some(Answer::cname("loop.example")),
            (.., "to-gone.example") => Some(Answer::cname("gone.example")),
            (.., "to-empty.example") => Some(Answer::cname("empty.example")),
            (.., "empty.example") => Some(Answer::no_data()),
            _ => None,
        }
    });
    with(options(&[server.address], PATIENCE), |resolver| async move {
        for name in ["chain16.example", "steps16.example"] {
            assert_eq!(resolver.mx(name).await.result, Ok(hosts(&[(1, "a.example")])), "{name}");
        }
        let holds = resolver.cached_mx("chain16.example").unwrap().expires - Instant::now();
        assert!(holds <= Duration::from_secs(64), "{holds:?}");
        let before = resolver.figures().queries;
        for name in
            ["chain17.example", "steps17.example", "ring0.example", "self.example", "loop.example"]
        {
            let text = trouble(resolver.mx(name).await);
            assert!(text.contains("CNAME"), "{name}: {text}");
        }
        let queries = resolver.figures().queries - before;
        assert!(queries <= 3 + 2 * (message::LINKS_MAX as u64 + 1), "{queries}");
        assert_eq!(resolver.mx("to-gone.example").await.result, Err(DnsFailure::NoSuchDomain));
        assert_eq!(resolver.mx("to-empty.example").await.result, Err(DnsFailure::NoData));
    });
}

#[test]
fn one_query_serves_all_who_wait() {
    let server = DnsServer::with(|_| Some(Answer::mx(&[(1, "a.example")]).delay(SHORT)));
    with(options(&[server.address], PATIENCE), |resolver| async move {
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let resolver = resolver.clone();
                spawn(async move { resolver.mx("example.org").await })
            })
            .collect();
        for task in tasks {
            assert!(task.await.result.is_ok());
        }
        let figures = resolver.figures();
        assert_eq!((figures.queries, figures.misses), (1, 1));
        assert!(figures.joined > 0 && figures.joined + figures.hits == 99, "{figures:?}");
        // One who goes does not take the answer from the others.
        let gone = spawn({
            let resolver = resolver.clone();
            async move { resolver.mx("example.net").await }
        });
        let stays = spawn({
            let resolver = resolver.clone();
            async move { resolver.mx("example.net").await }
        });
        super::super::executor::yield_now().await;
        gone.cancel().await;
        assert!(stays.await.result.is_ok());
    });
    assert_eq!(server.total(), 2);
}

#[test]
fn ports_ids_and_letters_are_random() {
    let server = DnsServer::with(|_| Some(Answer::mx(&[(1, "a.example")])));
    with(options(&[server.address], PATIENCE), |resolver| async move {
        for index in 0..100 {
            assert!(resolver.mx(&format!("x{index}.example")).await.result.is_ok());
        }
    });
    let seen = server.seen();
    let distinct = |values: Vec<u16>| {
        let rises = values.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((20..80).contains(&rises), "in order: {values:?}");
        values.into_iter().collect::<std::collections::HashSet<_>>().len()
    };
    assert!(distinct(seen.iter().map(|(port, _)| *port).collect()) > 90);
    assert!(distinct(seen.iter().map(|(_, id)| *id).collect()) > 90);
}

#[test]
fn another_server_is_asked_and_the_bad_one_left_alone() {
    let silent = DnsServer::with(|_| Some(Answer::silence()));
    let good = DnsServer::with(|_| Some(Answer::mx(&[(1, "a.example")])));
    let absent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let servers = [absent, silent.address, good.address];
    with(options(&servers, 10 * SHORT), |resolver| async move {
        for index in 0..40 {
            assert!(resolver.mx(&format!("x{index}.example")).await.result.is_ok());
        }
        let servers = resolver.figures().servers;
        assert!(servers[0].failures >= 1 && servers[1].failures >= 3, "{servers:?}");
        assert!(servers[1].failures <= 8 && servers[0].failures <= 8, "{servers:?}");
        assert!(servers[2].queries >= 40, "{servers:?}");
    });
}

#[test]
fn a_server_that_fails_is_not_asked_twice_for_the_same() {
    let failing = DnsServer::with(|_| Some(Answer::failure()));
    let refusing = DnsServer::with(|_| Some(Answer::refused()));
    with(options(&[failing.address, refusing.address], PATIENCE), |resolver| async move {
        trouble(resolver.mx("example.org").await);
    });
    assert_eq!((failing.total(), refusing.total()), (1, 1));
}

#[test]
fn lookups_wait_their_turn_in_order() {
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let asked_there = std::sync::Arc::clone(&asked);
    let server = DnsServer::with(move |question| {
        asked_there.lock().unwrap().push(question.name.clone());
        Some(Answer::mx(&[(1, "a.example")]).delay(SHORT / 20))
    });
    let address = server.address;
    let limited = DnsOptions { in_flight_max: 2, ..options(&[address], PATIENCE) };
    with(limited, |resolver| async move {
        let mut tasks = Vec::new();
        for index in 0..40 {
            let resolver = resolver.clone();
            tasks.push(spawn(async move {
                assert!(resolver.mx(&format!("x{index}.example")).await.result.is_ok());
                assert!(resolver.figures().in_flight <= 2);
            }));
        }
        while resolver.figures().waiting < 38 {
            super::super::executor::yield_now().await;
        }
        // Those who leave are not asked for.
        for task in tasks.drain(30..) {
            task.cancel().await;
        }
        for task in tasks {
            task.await;
        }
        let figures = resolver.figures();
        assert_eq!((figures.waiting, figures.queries), (0, 30));
    });
    let expected: Vec<String> = (0..30).map(|index| format!("x{index}.example")).collect();
    assert_eq!(*asked.lock().unwrap(), expected);
}

#[test]
fn no_more_wait_than_may_and_none_for_ever() {
    let server = DnsServer::with(|_| Some(Answer::silence()));
    let address = server.address;
    let limited = DnsOptions { in_flight_max: 1, ..options(&[address], SHORT / 10) };
    with(limited, |resolver| async move {
        let tasks: Vec<_> = (0..resolver::WAITING_MAX + 3)
            .map(|index| {
                let resolver = resolver.clone();
                spawn(async move { trouble(resolver.mx(&format!("x{index}.example")).await) })
            })
            .collect();
        let mut texts = Vec::new();
        for task in tasks {
            texts.push(task.await);
        }
        let count = |why: &str| texts.iter().filter(|text| text.contains(why)).count();
        assert_eq!(count("too many look-ups wait"), 2);
        let (asked, late) = (count("no answer in time"), count("its turn did not come"));
        assert!((1..100).contains(&asked), "{asked}");
        assert_eq!(asked + late, resolver::WAITING_MAX + 1);
        assert_eq!((resolver.figures().waiting, resolver.figures().in_flight), (0, 0));
    });
}

#[test]
fn a_name_that_is_asked_for_often_is_fetched_before_it_expires() {
    let server = DnsServer::start();
    server.set_mx("hot.example", &[(1, "new.example")]);
    with(options(&[server.address], PATIENCE), |resolver| async move {
        let old = Outcome::Mx(hosts(&[(1, "old.example")]));
        resolver.put_aged("hot.example", Kind::Mx, &old, 300, Duration::from_secs(260));
        for _ in 0..10 {
            let found = resolver.cached_mx("hot.example").unwrap().result;
            assert_eq!(found, Ok(hosts(&[(1, "old.example")])));
        }
        assert_eq!(resolver.figures().prefetched, 0, "too early");
        resolver.put_aged("hot.example", Kind::Mx, &old, 300, Duration::from_secs(275));
        let found = |resolver: &Resolver| resolver.cached_mx("hot.example").unwrap();
        assert_eq!(found(&resolver).result, Ok(hosts(&[(1, "old.example")])));
        assert_eq!(found(&resolver).result, Ok(hosts(&[(1, "old.example")])));
        assert_eq!(resolver.figures().prefetched, 0, "not hot yet");
        while found(&resolver).result != Ok(hosts(&[(1, "new.example")])) {
            super::super::executor::pause().await;
        }
        assert_eq!(resolver.figures().prefetched, 1);
        assert_eq!((resolver.figures().misses, resolver.figures().queries), (0, 1));
    });
}

#[test]
fn a_fetch_ahead_that_fails_takes_nothing_away() {
    let server = DnsServer::with(|_| Some(Answer::failure()));
    with(options(&[server.address], PATIENCE), |resolver| async move {
        let old = Outcome::Mx(hosts(&[(1, "old.example")]));
        resolver.put_aged("hot.example", Kind::Mx, &old, 300, Duration::from_secs(275));
        while resolver.figures().troubles == 0 {
            assert!(resolver.cached_mx("hot.example").unwrap().result.is_ok());
            super::super::executor::pause().await;
        }
        (0..10).for_each(|_| assert!(resolver.cached_mx("hot.example").unwrap().result.is_ok()));
        assert_eq!(resolver.figures().prefetched, 1);
    });
}

#[test]
fn what_is_not_known_of_one_family_is_told() {
    let server = DnsServer::with(|question| {
        let (v4, v6) = (Answer::addresses(&["192.0.2.1"]), Answer::addresses(&["2001:db8::1"]));
        Some(match (&*question.name, question.kind) {
            ("v4.example", RecordType::A) => v4,
            ("v4.example", _) => Answer::failure(),
            ("v6.example", RecordType::A) => Answer::no_data(),
            ("v6.example", _) => v6,
            ("slow.example", RecordType::A) => v4.delay(PATIENCE),
            ("slow.example", _) => v6,
            ("bad.example", RecordType::A) => Answer::no_data(),
            ("bad.example", _) => Answer::failure(),
            ("none.example", _) => Answer::no_data(),
            _ => return None,
        })
    });
    with(options(&[server.address], PATIENCE), |resolver| async move {
        let v4 = resolver.addresses("v4.example").await;
        assert_eq!(v4.result, Ok(ips(&["192.0.2.1"])));
        assert!(v4.missing.unwrap().starts_with("IPv6 addresses: "));
        assert!(v4.expires - Instant::now() <= Duration::from_secs(5));
        let v6 = resolver.addresses("v6.example").await;
        assert_eq!((v6.result, v6.missing), (Ok(ips(&["2001:db8::1"])), None));
        let slow = resolver.addresses("slow.example").await;
        assert_eq!(slow.result, Ok(ips(&["2001:db8::1"])));
        assert!(slow.missing.unwrap().starts_with("IPv4 addresses: no answer within"));
        assert!(trouble(resolver.addresses("bad.example").await).contains("Server Failure"));
        assert_eq!(resolver.addresses("none.example").await.result, Err(DnsFailure::NoData));
        assert_eq!(resolver.addresses("gone.example").await.result, Err(DnsFailure::NoSuchDomain));
    });
}

#[test]
fn resolv_conf_is_watched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resolv.conf");
    let options =
        DnsOptions { source: Source::File(path.clone()), ..options(&[], Duration::from_secs(1)) };
    with(options, move |resolver| async move {
        let servers = |resolver: &Resolver| -> Vec<String> {
            resolver.figures().servers.iter().map(|server| server.address.to_string()).collect()
        };
        assert_eq!(servers(&resolver), ["127.0.0.1:53"]);
        let old = Outcome::Mx(hosts(&[(1, "old.example")]));
        resolver.put_aged("kept.example", Kind::Mx, &old, 300, Duration::ZERO);
        resolver.look_at_conf().await;
        assert!(resolver.cached_mx("kept.example").is_some());
        std::fs::write(&path, "nameserver 127.0.0.9\nnameserver 127.0.0.8\n").unwrap();
        resolver.look_at_conf().await;
        assert_eq!(servers(&resolver), ["127.0.0.9:53", "127.0.0.8:53"]);
        assert!(resolver.cached_mx("kept.example").is_none());
        // A file that cannot be read changes nothing.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        resolver.look_at_conf().await;
        assert_eq!(servers(&resolver), ["127.0.0.9:53", "127.0.0.8:53"]);
    });
}

#[test]
fn other_servers_are_taken_over() {
    let (old, new) = (DnsServer::start(), DnsServer::start());
    old.set_mx("example.org", &[(1, "old.example")]);
    new.set_mx("example.org", &[(1, "new.example")]);
    let (before, after) = (options(&[old.address], PATIENCE), options(&[new.address], PATIENCE));
    with(before.clone(), |resolver| async move {
        resolver.start();
        assert_eq!(resolver.mx("example.org").await.result, Ok(hosts(&[(1, "old.example")])));
        resolver.reload(before);
        assert!(resolver.cached_mx("example.org").is_some());
        resolver.reload(after);
        assert_eq!(resolver.mx("example.org").await.result, Ok(hosts(&[(1, "new.example")])));
    });
    assert_eq!((old.total(), new.total()), (1, 1));
}
