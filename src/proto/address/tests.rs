//! The grammar against examples of both kinds.

use super::*;

fn mailbox(text: &str) -> Result<Address<'_>, BadAddress> {
    match Path::parse(text.as_bytes())? {
        (Path::Mailbox(address), b"") => Ok(address),
        (Path::Mailbox(_), _) => Err(BadAddress::Brackets),
        (Path::Null, _) => panic!("{text:?} is the null path"),
    }
}

#[test]
fn takes_what_the_grammar_has() {
    for (path, local, domain) in [
        ("<a@b>", "a", Domain::Name("b")),
        ("<User.Name+tag@Example.ORG>", "User.Name+tag", Domain::Name("Example.ORG")),
        ("<!#$%&'*+-/=?^_`{|}~@x-1.example>", "!#$%&'*+-/=?^_`{|}~", Domain::Name("x-1.example")),
        ("<\"\"@x.example>", "\"\"", Domain::Name("x.example")),
        ("<\"a b\\\"@<c>\"@x.example>", "\"a b\\\"@<c>\"", Domain::Name("x.example")),
        ("<@a.example:u@b.example>", "u", Domain::Name("b.example")),
        ("<@a,@b.example,@c:u@d>", "u", Domain::Name("d")),
        ("<u@[192.0.2.1]>", "u", Domain::V4(Ipv4Addr::new(192, 0, 2, 1))),
        ("<u@[IPv6:::1]>", "u", Domain::V6(Ipv6Addr::LOCALHOST)),
        ("<u@[ipv6:2001:db8::7]>", "u", Domain::V6("2001:db8::7".parse().unwrap())),
        ("<u@[x-tag:a;b]>", "u", Domain::General("x-tag:a;b")),
        ("<PostMaster>", "PostMaster", Domain::Here),
        ("<postmaster@b>", "postmaster", Domain::Name("b")),
        ("<bücher@bücher.example>", "bücher", Domain::Name("bücher.example")),
    ] {
        let address = mailbox(path).unwrap_or_else(|bad| panic!("{path}: {bad}"));
        assert_eq!((address.local(), address.domain()), (local, domain), "{path}");
        assert_eq!(address.was_routed(), path.starts_with("<@"), "{path}");
        assert_eq!(address.needs_smtputf8(), !path.is_ascii(), "{path}");
        if domain != Domain::Here {
            let again = Address::parse(address.text()).unwrap();
            assert_eq!((again.text(), again.domain()), (address.text(), domain));
        }
    }
    assert_eq!(Path::parse(b"<> SIZE=1"), Ok((Path::Null, &b" SIZE=1"[..])));
}

#[test]
fn refuses_what_it_has_not() {
    use BadAddress::*;
    for (path, bad) in [
        ("", Brackets),
        ("a@b", Brackets),
        ("<a@b", Brackets),
        ("<a@b >", Domain),
        ("<a@b@c>", Domain),
        ("< a@b>", LocalPart),
        ("<a b@c>", LocalPart),
        ("<@b>", Route),
        ("<.a@b>", LocalPart),
        ("<a.@b>", LocalPart),
        ("<a..b@c>", LocalPart),
        ("<a(comment)@b>", LocalPart),
        ("<\"a@b>", LocalPart),
        ("<\"a\"b@c>", LocalPart),
        ("<a\"b\"@c>", LocalPart),
        ("<\"a\tb\"@c>", LocalPart),
        ("<\"a\rb\"@c>", LocalPart),
        ("<\"a\\\u{7f}\"@c>", LocalPart),
        ("<a\0@c>", LocalPart),
        ("<a>", NoDomain),
        ("<postmasters>", NoDomain),
        ("<\"postmaster\">", NoDomain),
        ("<a@>", Domain),
        ("<a@b.>", Domain),
        ("<a@.b>", Domain),
        ("<a@b..c>", Domain),
        ("<a@-b>", Domain),
        ("<a@b->", Domain),
        ("<a@b_c>", Domain),
        ("<a@b\u{3002}c>", Domain),
        ("<a@b\u{a0}c>", Domain),
        ("<a\u{85}@b>", LocalPart),
        ("<a@[1.2.3]>", Literal),
        ("<a@[256.1.1.1]>", Literal),
        ("<a@[1.2.3.4>", Literal),
        ("<a@[IPv6:1.2.3.4]>", Literal),
        ("<a@[IPv6:2001:db8::1::]>", Literal),
        ("<a@[tag-:x]>", Literal),
        ("<a@[tag:]>", Literal),
        ("<a@[]>", Literal),
        ("<@a.example;u@b>", Route),
        ("<@a.example,u@b>", Route),
        ("<@a\u{85}.example:u@b>", Route),
        ("<@a.example,@j\u{f6}rg.example:u@b>", Route),
        ("<@a.example:>", LocalPart),
        ("<@a.example:@b:u@c>", LocalPart),
    ] {
        assert_eq!(mailbox(path), Err(bad), "{path:?}");
    }
    assert_eq!(Path::parse(b"<a\xff@b>"), Err(Utf8));
    assert_eq!(Path::parse(b"<a@b\xc3>"), Err(Utf8));
    assert_eq!(Path::parse(b"<a@[\xff]>"), Err(Literal));
    assert_eq!(Path::parse(b"<@\xff:a@b>"), Err(Route));
}

#[test]
fn holds_the_limits() {
    let at = |local: usize, label: usize, labels: usize| {
        let domain = vec!["d".repeat(label); labels].join(".");
        format!("<{}@{domain}>", "l".repeat(local))
    };
    assert!(mailbox(&at(64, 63, 2)).is_ok());
    assert_eq!(mailbox(&at(65, 3, 1)), Err(BadAddress::LongLocalPart));
    assert_eq!(mailbox(&at(1, 64, 1)), Err(BadAddress::LongDomain));
    assert_eq!(at(2, 62, 4).len(), PATH_MAX);
    assert!(mailbox(&at(2, 62, 4)).is_ok());
    assert_eq!(mailbox(&at(3, 62, 4)), Err(BadAddress::Long));
    assert_eq!(Address::parse(&at(1, 63, 5)[1..322]), Err(BadAddress::LongDomain));
}

#[test]
fn sees_routing_in_local_parts() {
    for (path, routing) in [
        ("<u@b>", false),
        ("<u+t@b>", false),
        ("<u%c@b>", true),
        ("<c!u@b>", true),
        ("<\"u@c\"@b>", true),
        ("<\"u%c\"@b>", true),
        ("<\"u\\@c\"@b>", true),
        ("<\"@c:u\"@b>", true),
        ("<\"plain\"@b>", false),
    ] {
        assert_eq!(mailbox(path).unwrap().has_routing_local_part(), routing, "{path}");
    }
}
