//! Routes, sites and `[[site]]` tables, from the configuration as it is written.

use super::*;
use crate::config::{Config, SiteTable};
use proptest::prelude::*;

fn config(rest: &str) -> Config {
    let head = "hostname = \"relay.example\"\n[[listener]]\naddress = \"127.0.0.1:2525\"\n";
    Config::from_text("t.toml", &format!("{head}{rest}"), &[]).unwrap_or_else(|e| panic!("{e}"))
}

fn routes(rest: &str) -> Routes {
    Routes::new(&config(rest))
}

fn hop(rank: u16, name: &str) -> Hop {
    Hop { rank, way: Way::Smtp, host: Host::Name(name.into()), port: 25 }
}

#[track_caller]
fn site<'a>(routes: &'a Routes, domain: &str) -> &'a Arc<Site> {
    match routes.domain(domain) {
        Destination::Site(site) => site,
        other => panic!("{domain}: {other:?}"),
    }
}

const PLAIN: &str = r#"
    [[route]]
    domain   = "a.org"
    next_hop = ["127.0.0.1:1", "[::1]:2", "Hop.example", "hop.example:26"]
    [[route]]
    domain   = "*.a.org"
    next_hop = ["127.0.0.1:1", "[::1]:2", "hop.example:24", "hop.example:26"]
    [[route]]
    domain   = "b.org"
    next_hop = "discard"
    [[route]]
    domain   = "*.b.org"
    next_hop = "reject"
    [[route]]
    domain   = "c.org"
    next_hop = "mx"
    [[route]]
    domain   = "relay.example"
    next_hop = "127.0.0.1:3"
    [delivery]
    port = 24
"#;

#[test]
fn the_first_match_wins_and_sites_are_shared() {
    let routes = routes(PLAIN);
    let Destination::Site(first) = routes.address("x@A.org") else { panic!("no site") };
    let Destination::Site(second) = routes.address("\"@b.org\"@x.a.org") else { panic!("no site") };
    assert!(Arc::ptr_eq(first, second));
    assert_eq!(*first.name, *"127.0.0.1:1,[::1]:2,hop.example:24,hop.example:26");
    let hops: Vec<(u16, u16)> = first.hops.iter().map(|hop| (hop.rank, hop.port)).collect();
    assert_eq!(hops, [(0, 1), (1, 2), (2, 24), (3, 26)]);
    assert!(first.is_static && routes.leads_to(first));
    assert_eq!(routes.address("x@b.org"), Destination::Discard);
    assert_eq!(routes.address("x@y.b.org"), Destination::Reject);
    assert_eq!(routes.address("x@c.org"), Destination::Mx);
    assert_eq!(routes.address("x@[192.0.2.1]"), Destination::Mx);
    let Destination::Site(own) = routes.address("Postmaster") else { panic!("no site") };
    assert_eq!(own.to_string(), "127.0.0.1:3");
    let rules = ["a.org", "x.a.org", "c.org", "relay.example", "d.org"];
    assert_eq!(rules.map(|domain| routes.rule(domain)), [Some(0), Some(1), Some(4), Some(5), None]);
}

#[test]
fn domains_with_the_same_hosts_share_a_site() {
    let routes = routes("");
    let one = routes.mx_site("a.org", vec![hop(1, "mx2.example"), hop(0, "mx1.example")]);
    let other = routes.mx_site("b.org", vec![hop(0, "mx1.example"), hop(1, "mx2.example")]);
    assert_eq!(one, other);
    assert_eq!((&*one.name, one.hash), ("mx1.example,mx2.example", other.hash));
    assert!(!one.is_static && !routes.leads_to(&one));
    for hops in [
        vec![hop(0, "mx1.example")],
        vec![hop(0, "mx1.example"), hop(0, "mx2.example")],
        vec![hop(0, "mx2.example"), hop(1, "mx1.example")],
        vec![hop(0, "mx1.example"), Hop { port: 26, ..hop(1, "mx2.example") }],
    ] {
        assert_ne!(one, routes.mx_site("a.org", hops));
    }
}

#[test]
fn limits_tell_what_set_them() {
    let routes = routes(
        r#"
        [delivery]
        connections_per_site = 20
        [[site]]
        mx           = ["*.google.com"]
        connections  = 5
        message_rate = "10/s"
        [[site]]
        domain       = "a.org"
        connections  = 7
        message_rate = "off"
        messages_per_connection = 3
        "#,
    );
    let plain = routes.mx_site("b.org", vec![hop(0, "mx.example")]).limits;
    assert_eq!(plain.connections, Set { value: 20, by: SetBy::Delivery });
    assert_eq!(plain.message_rate, Set { value: None, by: SetBy::Default });
    let google = routes.mx_site("b.org", vec![hop(0, "mx.example"), hop(1, "x.google.com")]);
    let by = SetBy::Site { line: 7, index: 0 };
    assert_eq!(google.limits.connections, Set { value: 5, by });
    assert_eq!(google.limits.message_rate.by, by);
    assert_eq!(by.to_string(), "[[site]] in line 7");
    let both = routes.mx_site("a.org", vec![hop(0, "x.google.com")]).limits;
    assert_eq!(both.connections, Set { value: 5, by });
    let second = SetBy::Site { line: 11, index: 1 };
    assert_eq!(both.messages_per_connection, Set { value: 3, by: second });
    let own = routes.mx_site("a.org", vec![hop(0, "mx.example")]).limits;
    assert_eq!(own.connections, Set { value: 7, by: second });
    assert_eq!(own.message_rate, Set { value: None, by: second }, "\"off\" is a setting");
    assert_eq!(SetBy::Site { line: 0, index: 1 }.to_string(), "[[site]] number 2");
    assert_eq!(
        [SetBy::Default, SetBy::Delivery].map(|by| by.to_string()),
        ["default", "[delivery]"]
    );
}

#[test]
fn tables_for_some_domains_split_a_site() {
    let routes = routes(
        r#"
        [[site]]
        domain      = ["a.org", "b.org"]
        connections = 5
        [[site]]
        domain       = ["a.org", "c.org"]
        message_rate = "1/s"
        [[site]]
        mx           = "mx.example"
        domain       = "d.org"
        message_rate = "2/s"
        [[site]]
        domain       = "e.org"
        message_rate = "3/s"
        [[site]]
        domain      = "*"
        connections = 9
        "#,
    );
    let name = |domain: &str, host: &str| routes.mx_site(domain, vec![hop(0, host)]).name;
    assert_eq!(*name("a.org", "m"), *"m#a.org#a.org/2");
    assert_eq!(*name("b.org", "m"), *"m#a.org", "one site for all domains of a table");
    assert_eq!(*name("c.org", "m"), *"m#a.org/2");
    assert_eq!(*name("d.org", "m"), *"m#d.org");
    assert_eq!(*name("d.org", "mx.example"), *"mx.example", "every domain there has it");
    assert_eq!(*name("e.org", "mx.example"), *"mx.example", "it sets nothing more");
    assert_eq!(*name("f.org", "m"), *"m", "the last is about every domain");
    let any = routes.mx_site("f.org", vec![hop(0, "m")]).limits;
    assert_eq!(any.connections.value, 9);
}

#[test]
fn static_sites_have_limits_by_domain_and_by_host() {
    let routes = routes(
        r#"
        [[route]]
        domain   = "*.org"
        next_hop = "192.0.2.1:25"
        [[route]]
        domain   = "*"
        next_hop = ["hop.example:587", "192.0.2.2:25"]
        [[site]]
        domain      = ["*.a.org", "b.net"]
        connections = 3
        [[site]]
        domain      = "x.a.org"
        message_rate = "1/s"
        [[site]]
        mx          = "hop.example"
        connections = 4
        "#,
    );
    let of = |domain: &str| {
        let site = site(&routes, domain);
        assert!(routes.leads_to(site));
        (site.name.to_string(), site.limits.connections.value)
    };
    assert_eq!(of("c.org"), ("192.0.2.1:25".into(), 20));
    assert_eq!(of("a.org"), ("192.0.2.1:25".into(), 20));
    assert_eq!(of("Y.a.org"), ("192.0.2.1:25#*.a.org".into(), 3));
    assert_eq!(of("x.a.org"), ("192.0.2.1:25#*.a.org#x.a.org".into(), 3));
    assert_eq!(of("b.net"), ("hop.example:587,192.0.2.2:25#*.a.org".into(), 3));
    assert_eq!(of("c.net"), ("hop.example:587,192.0.2.2:25".into(), 4));
    let split = site(&routes, "y.a.org");
    assert!(Arc::ptr_eq(split, site(&routes, "z.y.a.org")));
}

#[test]
fn an_equal_site_may_get_other_limits() {
    let (low, high) = (routes("[delivery]\nconnections_per_site = 1\n"), routes(""));
    let [low, high] = [low, high].map(|routes| routes.mx_site("a.org", vec![hop(0, "m")]));
    assert_eq!(low, high);
    assert_ne!(low.limits, high.limits);
}

#[test]
fn sites_made_by_other_rules_get_the_limits_of_these() {
    let hops = || vec![hop(0, "a.mx.org")];
    let of = |rules: &str, site: &Site| routes(rules).limits_now(site).connections.value;
    let by_host = "[[site]]\nmx = \"*.mx.org\"\nconnections = 3\n";
    let by_domain = "[[site]]\ndomain = \"d.org\"\nconnections = 4\n";
    let for_all = "[[site]]\ndomain = \"*\"\nconnections = 5\n";
    let plain = routes("").mx_site("d.org", hops());
    let split = routes(by_domain).mx_site("d.org", hops());
    assert_ne!(plain, split);
    for (rules, of_plain, of_split) in [
        ("", 20, 20),
        (by_host, 3, 3),
        (by_domain, 20, 4),
        (for_all, 5, 5),
        (&format!("{by_domain}{for_all}"), 5, 4),
        (&by_domain.replace('4', "6"), 20, 6),
    ] {
        assert_eq!((of(rules, &plain), of(rules, &split)), (of_plain, of_split), "{rules}");
    }
    assert_eq!((plain.in_short(), split.in_short()), ("a.mx.org".into(), "a.mx.org#d.org".into()));
    let many: Vec<Hop> = ["a", "b", "c", "d"].iter().map(|name| hop(0, name)).collect();
    assert_eq!(routes("").mx_site("d.org", many).in_short(), "a and 3 others");
}

#[test]
fn limits_are_small() {
    assert!(size_of::<SiteLimits>() <= 56, "{}", size_of::<SiteLimits>());
    assert!(size_of::<Site>() <= 104, "{}", size_of::<Site>());
}

const DOMAINS: [&str; 6] = ["a", "b", "x.a", "y.a", "z.x.a", "c"];
const PATTERNS: [&str; 7] = ["a", "b", "*.a", "x.a", "*.x.a", "z.x.a", "*"];

proptest! {
    /// The classes of domains are a short cut: each limit is what the first
    /// table that matches and sets it says; and sites of one name have the same
    /// limits.
    #[test]
    fn limits_are_those_of_the_first_table_that_matches(
        tables in proptest::collection::vec(
            (proptest::sample::subsequence(&PATTERNS[..], 0..3), any::<bool>(), any::<[bool; 2]>()),
            1..6,
        ),
    ) {
        let mut config = config("[[route]]\ndomain = \"*\"\nnext_hop = \"192.0.2.1:25\"\n");
        config.sites = tables.iter().zip(1..).map(|((domains, mx, sets), number)| SiteTable {
            domains: domains.iter().map(|pattern| pattern.parse().unwrap()).collect(),
            mx: mx.then(|| "m".parse().unwrap()).into_iter().collect(),
            connections: sets[0].then_some(number),
            messages_per_connection: sets[1].then_some(number),
            ..SiteTable::default()
        }).collect();
        let routes = Routes::new(&config);
        let mut seen: Vec<Site> = Vec::new();
        for domain in DOMAINS {
            for host in ["m", "n", "static"] {
                let made = match host {
                    "static" => (**site(&routes, domain)).clone(),
                    host => routes.mx_site(domain, vec![hop(0, host)]),
                };
                let first = |get: fn(&SiteTable) -> Option<u32>, missing: u32| {
                    let about = |table: &&SiteTable| {
                        table.domains.iter().any(|pattern| pattern.matches(domain))
                            || table.mx.iter().any(|pattern| pattern.matches(host))
                    };
                    config.sites.iter().filter(about).find_map(get).unwrap_or(missing)
                };
                let limits = made.limits;
                prop_assert_eq!(limits.connections.value, first(|table| table.connections, 20));
                let messages = first(|table| table.messages_per_connection, 1000);
                prop_assert_eq!(limits.messages_per_connection.value, messages);
                if let Some(same) = seen.iter().find(|seen| seen.name == made.name) {
                    prop_assert_eq!(same.limits, made.limits, "{}", made.name);
                }
                seen.push(made);
            }
        }
    }
}
