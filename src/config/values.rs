//! From a value as written to a value of the type that its key has. One
//! function for each [`Kind`]; each says what is wrong, `read` adds where and
//! what is allowed.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::cores::Cores;
use super::host::HostPort;
use super::pattern::{DomainPattern, check_domain};
use super::rate::{Rate, parse_rate};
use super::schema::Kind;
use super::tree::{At, Node, Value};
use super::types::NextHop;
use super::units::{parse_duration, parse_size, print_duration, print_size};

/// The port of a DNS server unless one is given.
const DNS_PORT: u16 = 53;
/// Most DNS servers.
const RESOLVERS_MAX: usize = 8;

/// What is wrong with a value, and where.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: At,
    pub(super) problem: String,
}

pub(super) type Checked<T> = Result<T, Fault>;

fn fault<T>(node: &Node, problem: impl Into<String>) -> Checked<T> {
    Err(Fault { at: node.at, problem: problem.into() })
}

fn text<'a>(node: &'a Node, what: &str) -> Checked<&'a str> {
    match &node.value {
        Value::Text(text) => Ok(text),
        other => fault(node, format!("must be {what}, not {}", other.kind())),
    }
}

/// Each item of a list, or a lone text as if it were a list of one.
fn each<T>(node: &Node, what: &str, read: impl Fn(&Node) -> Checked<T>) -> Checked<Vec<T>> {
    match &node.value {
        Value::List(items) => items.iter().map(read).collect(),
        Value::Text(_) => Ok(vec![read(node)?]),
        other => fault(node, format!("must be {what}, not {}", other.kind())),
    }
}

fn without_repeats<T: PartialEq>(node: &Node, items: &[T]) -> Checked<()> {
    let repeat = (1..items.len()).find(|&index| items[..index].contains(&items[index]));
    match (repeat, &node.value) {
        (Some(index), Value::List(nodes)) => fault(&nodes[index], "stands here twice"),
        _ => Ok(()),
    }
}

/// [`Kind::Domain`].
pub(super) fn domain(node: &Node, _: &Kind) -> Checked<String> {
    let name = text(node, "a domain name")?;
    check_hostname(name).or_else(|problem| fault(node, problem))?;
    Ok(name.to_owned())
}

/// Checks a name that the server is to use for itself.
pub(super) fn check_hostname(name: &str) -> Result<(), String> {
    check_domain(name)?;
    match name.chars().find(|c| !c.is_ascii()) {
        Some(bad) => Err(format!("{bad:?} is not ASCII; write the label in its xn-- form")),
        None => Ok(()),
    }
}

/// [`Kind::Path`].
pub(super) fn path(node: &Node, _: &Kind) -> Checked<PathBuf> {
    match text(node, "a path")? {
        "" => fault(node, "the path is empty"),
        path if path.contains('\0') => fault(node, "the path contains a NUL character"),
        path => Ok(PathBuf::from(path)),
    }
}

/// [`Kind::Text`].
pub(super) fn line(node: &Node, _: &Kind) -> Checked<String> {
    match text(node, "a text")? {
        "" => fault(node, "the text is empty"),
        line if line.contains(char::is_control) => fault(node, "it holds a control character"),
        line => Ok(line.to_owned()),
    }
}

/// [`Kind::Cores`].
pub(super) fn cores(node: &Node, _: &Kind) -> Checked<Cores> {
    match node.value {
        Value::Integer(count @ 1..=1024) => Ok(Cores::Count(count as usize)),
        Value::Integer(count) => fault(node, format!("{count} is no count of 1 to 1024 CPUs")),
        _ => text(node, "a count or a text")?
            .parse()
            .or_else(|error| fault(node, format!("not a CPU list: {error}"))),
    }
}

/// [`Kind::Choice`]: the index of the word.
pub(super) fn choice(node: &Node, kind: &Kind) -> Checked<usize> {
    let Kind::Choice(words) = kind else { unreachable!("{kind:?} is no choice") };
    let word = text(node, "a text")?;
    let found = words.iter().position(|allowed| *allowed == word);
    match (found, words.len()) {
        (Some(index), _) => Ok(index),
        (None, 1) => fault(node, format!("{word:?} is not supported by this version")),
        (None, _) => fault(node, format!("{word:?} is none of the choices")),
    }
}

/// [`Kind::Choices`]: the words, in any case, each once.
pub(super) fn choices(node: &Node, kind: &Kind) -> Checked<Vec<&'static str>> {
    let Kind::Choices(words) = kind else { unreachable!("{kind:?} are no choices") };
    let chosen = each(node, "a list of texts", |node| {
        let word = text(node, "a text")?;
        match words.iter().find(|allowed| allowed.eq_ignore_ascii_case(word)) {
            Some(allowed) => Ok(*allowed),
            None => fault(node, format!("{word:?} is none of the choices")),
        }
    })?;
    without_repeats(node, &chosen)?;
    Ok(chosen)
}

/// [`Kind::Count`].
pub(super) fn count(node: &Node, kind: &Kind) -> Checked<u32> {
    let Kind::Count(min, max) = *kind else { unreachable!("{kind:?} is no count") };
    let Value::Integer(number) = node.value else {
        return fault(node, format!("must be an integer, not {}", node.value.kind()));
    };
    match u32::try_from(number) {
        Ok(count) if (min..=max).contains(&count) => Ok(count),
        _ => fault(node, too(number.to_string(), number < i64::from(min))),
    }
}

/// [`Kind::Flag`].
pub(super) fn flag(node: &Node, _: &Kind) -> Checked<bool> {
    match node.value {
        Value::Flag(flag) => Ok(flag),
        ref other => fault(node, format!("must be true or false, not {}", other.kind())),
    }
}

/// [`Kind::Rate`].
pub(super) fn rate(node: &Node, _: &Kind) -> Checked<Option<Rate>> {
    match text(node, "a text like \"100/s\"")? {
        "off" => Ok(None),
        written => match parse_rate(written) {
            None => fault(node, format!("{written:?} is not a rate")),
            Some(rate) if rate.count == 0 => {
                fault(node, "a rate of nothing would hold mail for ever; to refuse it, use a route")
            }
            rate => Ok(rate),
        },
    }
}

/// [`Kind::Size`].
pub(super) fn size(node: &Node, kind: &Kind) -> Checked<u64> {
    let Kind::Size(min, max, step) = *kind else { unreachable!("{kind:?} is no size") };
    let written = text(node, "a text with a unit")?;
    let Some(bytes) = parse_size(written) else {
        return fault(node, format!("{written:?} is not a size"));
    };
    if !(min..=max).contains(&bytes) {
        return fault(node, too(print_size(bytes), bytes < min));
    }
    if !bytes.is_multiple_of(step) {
        return fault(node, format!("{} is not a multiple of {}", written, print_size(step)));
    }
    Ok(bytes)
}

/// [`Kind::Span`], and an item of [`Kind::Spans`].
pub(super) fn span(node: &Node, kind: &Kind) -> Checked<Duration> {
    let (Kind::Span(min, max) | Kind::SpanOrOff(min, max) | Kind::Spans(min, max)) = *kind else {
        unreachable!("{kind:?} is no duration")
    };
    let written = text(node, "a text with a unit")?;
    let Some(span) = parse_duration(written) else {
        return fault(node, format!("{written:?} is not a duration"));
    };
    let (min, max) = (Duration::from_millis(min), Duration::from_millis(max));
    if (min..=max).contains(&span) {
        return Ok(span);
    }
    fault(node, too(print_duration(span), span < min))
}

/// [`Kind::SpanOrOff`].
pub(super) fn span_or_off(node: &Node, kind: &Kind) -> Checked<Option<Duration>> {
    match &node.value {
        Value::Text(word) if word == "off" => Ok(None),
        _ => span(node, kind).map(Some),
    }
}

fn too(written: String, small: bool) -> String {
    format!("{written} is too {}", if small { "small" } else { "large" })
}

/// [`Kind::Spans`].
pub(super) fn spans(node: &Node, kind: &Kind) -> Checked<Vec<Duration>> {
    let Value::List(items) = &node.value else {
        return fault(node, format!("must be a list of durations, not {}", node.value.kind()));
    };
    if items.is_empty() {
        return fault(node, "the list is empty");
    }
    items.iter().map(|item| span(item, kind)).collect()
}

fn address(node: &Node) -> Checked<SocketAddr> {
    let written = text(node, "an address with a port")?;
    if let Ok(address) = written.parse() {
        return Ok(address);
    }
    let problem = if written.parse::<IpAddr>().is_ok() {
        format!("{written:?} lacks a port")
    } else if written.contains(char::is_alphabetic) && !written.contains("::") {
        format!("{written:?} is not an address: names are not looked up by this version")
    } else {
        format!("{written:?} is not an address with a port")
    };
    fault(node, problem)
}

/// [`Kind::Addresses`].
pub(super) fn addresses(node: &Node, _: &Kind) -> Checked<Vec<SocketAddr>> {
    let addresses = each(node, "an address or a list of them", address)?;
    if addresses.is_empty() {
        return fault(node, "the list is empty");
    }
    Ok(addresses)
}

/// [`Kind::AddressOrOff`].
pub(super) fn address_or_off(node: &Node, _: &Kind) -> Checked<Option<SocketAddr>> {
    match &node.value {
        Value::Text(word) if word == "off" => Ok(None),
        _ => address(node).map(Some),
    }
}

fn network(node: &Node) -> Checked<IpNet> {
    let written = text(node, "a network")?;
    if let Ok(address) = written.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let Ok(network) = written.parse::<IpNet>() else {
        return fault(node, format!("{written:?} is neither a network nor an address"));
    };
    if network != network.trunc() {
        let problem = format!(
            "{written} has bits set outside of its prefix: the network is {}, the host {}",
            network.trunc(),
            network.addr()
        );
        return fault(node, problem);
    }
    Ok(network)
}

/// [`Kind::Networks`].
pub(super) fn networks(node: &Node, _: &Kind) -> Checked<Vec<IpNet>> {
    let networks = each(node, "a list of networks", network)?;
    without_repeats(node, &networks)?;
    Ok(networks)
}

/// [`Kind::Pattern`].
pub(super) fn pattern(node: &Node, _: &Kind) -> Checked<DomainPattern> {
    let written = text(node, "a domain")?;
    written.parse().or_else(|error| fault(node, format!("not a domain: {error}")))
}

/// [`Kind::Patterns`].
pub(super) fn patterns(node: &Node, kind: &Kind) -> Checked<Vec<DomainPattern>> {
    let patterns = each(node, "a list of domains", |item| pattern(item, kind))?;
    without_repeats(node, &patterns)?;
    Ok(patterns)
}

/// [`Kind::NextHop`].
pub(super) fn next_hop(node: &Node, _: &Kind) -> Checked<NextHop> {
    match &node.value {
        Value::Text(word) if word == "mx" => return Ok(NextHop::Mx),
        Value::Text(word) if word == "discard" => return Ok(NextHop::Discard),
        Value::Text(word) if word == "reject" => return Ok(NextHop::Reject),
        _ => {}
    }
    let hosts = each(node, "hosts or a word", |item| match text(item, "a host")? {
        word @ ("mx" | "discard" | "reject") => fault(item, format!("{word:?} stands alone")),
        written => written.parse::<HostPort>().or_else(|problem| fault(item, problem)),
    })?;
    if hosts.is_empty() {
        return fault(node, "the list is empty");
    }
    without_repeats(node, &hosts)?;
    Ok(NextHop::Hosts(hosts))
}

/// [`Kind::Resolvers`].
pub(super) fn resolvers(node: &Node, _: &Kind) -> Checked<Vec<SocketAddr>> {
    let servers = each(node, "a list of addresses", |item| {
        let written = text(item, "an address")?;
        let server = match written.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, DNS_PORT),
            Err(_) => address(item)?,
        };
        if server.port() == 0 || server.ip().is_unspecified() {
            return fault(item, format!("{server} is not an address that can be asked"));
        }
        Ok(server)
    })?;
    if servers.len() > RESOLVERS_MAX {
        return fault(node, format!("{} servers are too many", servers.len()));
    }
    without_repeats(node, &servers)?;
    Ok(servers)
}
