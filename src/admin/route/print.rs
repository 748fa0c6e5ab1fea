//! The route of an address in the form that people read: a word, then what there
//! is to be said of it. What came from outside is made harmless for terminals.

use std::io::{self, Write};

use super::view::{HostView, LimitView, LimitsView, LiveView, MxView, RouteView, SiteView};
use crate::admin::print::{tame, utc};

/// Most MX records that are printed.
const RECORDS_SHOWN: usize = 40;

/// Everything about the route of an address.
pub(super) fn route(out: &mut impl Write, view: &RouteView) -> io::Result<()> {
    line(out, "address", &view.address)?;
    line(out, "domain", &view.domain)?;
    line(out, "route", &rule(view))?;
    let verdict = match &view.reply {
        Some(reply) => format!("{}: {}: {reply}", view.action, view.explanation),
        None => format!("{}: {}", view.action, view.explanation),
    };
    line(out, "action", &verdict)?;
    if let Some(answer) = &view.mx {
        mx(out, answer)?;
    }
    view.hosts.iter().try_for_each(|found| host(out, found))?;
    if let Some(found) = &view.site {
        site(out, found)?;
        line(out, "tls", &view.tls)?;
        let schedule = &view.schedule;
        let waits = schedule.retry.join(", ");
        let last = schedule.retry.last().map_or("", |wait| wait);
        line(out, "retry", &format!("after {waits}, then every {last}"))?;
        line(out, "expiry", &format!("after {}", schedule.expire))?;
        let notice = match schedule.delay_notice.as_str() {
            "off" => "none".to_owned(),
            age => format!("after {age}"),
        };
        line(out, "notice", &notice)?;
    }
    view.server.as_ref().map_or(Ok(()), |known| server(out, known))
}

fn line(out: &mut impl Write, word: &str, text: &str) -> io::Result<()> {
    writeln!(out, "{word:<10} {}", tame(text))
}

fn rule(view: &RouteView) -> String {
    let Some(route) = &view.route else {
        return "none matches: the MX records decide".to_owned();
    };
    let line = route.line.map_or(String::new(), |line| format!(" in line {line}"));
    let hops = match &route.next_hop {
        serde_json::Value::String(word) => word.clone(),
        serde_json::Value::Array(hosts) => {
            hosts.iter().filter_map(|host| host.as_str()).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    };
    format!("[[route]] number {}{line}: {} to {hops}", route.number, route.domain)
}

fn mx(out: &mut impl Write, mx: &MxView) -> io::Result<()> {
    let said = match (&mx.trouble, mx.records.len()) {
        (Some(trouble), _) => format!("trouble: {trouble}"),
        (None, 0) => mx.answer.to_owned(),
        (None, 1) => "1 record".to_owned(),
        (None, count) => format!("{count} records"),
    };
    line(out, "mx", &format!("{said}, holds for {} s", mx.ttl))?;
    for record in mx.records.iter().take(RECORDS_SHOWN) {
        let host = if record.host.is_empty() { "." } else { &record.host };
        let why = record.left_out.map_or(String::new(), |why| format!("  (left out: {why})"));
        line(out, "", &format!("{:>5} {host}{why}", record.preference))?;
    }
    match mx.records.len().saturating_sub(RECORDS_SHOWN) {
        0 => Ok(()),
        more => line(out, "", &format!("      and {more} more")),
    }
}

fn host(out: &mut impl Write, host: &HostView) -> io::Result<()> {
    let ttl = host.ttl.map_or(String::new(), |ttl| format!(", holds for {ttl} s"));
    let problem = host.problem.as_ref().map_or(String::new(), |why| format!(": {why}"));
    let port = match host.port {
        0 => String::new(),
        port => format!(" port {port}"),
    };
    let head = format!("{}{port}, rank {}{ttl}{problem}", host.host, host.rank);
    line(out, "host", &head)?;
    line(out, "", &format!("      {}: {}", host.protocol, host.tls))?;
    for address in &host.addresses {
        let why = address.refused.map_or(String::new(), |what| format!("  (refused: {what})"));
        line(out, "", &format!("      {}{why}", address.address))?;
    }
    Ok(())
}

fn site(out: &mut impl Write, site: &SiteView) -> io::Result<()> {
    line(out, "site", &site.name)?;
    let owner = match &site.owner {
        None => "not known: the CPUs of the configuration are not here".to_owned(),
        Some(owner) if owner.shards == 1 => "shard 0, the only one".to_owned(),
        Some(owner) if site.lanes > 1 => format!("each of {} shards has a lane", owner.shards),
        Some(owner) => format!(
            "shard {} of {}, on CPU {}; each has a lane while the site is most of the traffic",
            owner.shard, owner.shards, owner.cpu
        ),
    };
    line(out, "owner", &owner)?;
    let LimitsView { connections, messages_per_connection, connection_rate, message_rate } =
        &site.limits;
    limit(out, "limits", "connections", connections)?;
    limit(out, "", "messages a connection", messages_per_connection)?;
    limit(out, "", "new connections", connection_rate)?;
    limit(out, "", "messages", message_rate)
}

fn limit<T: std::fmt::Display>(
    out: &mut impl Write,
    word: &str,
    name: &str,
    limit: &LimitView<T>,
) -> io::Result<()> {
    line(out, word, &format!("{name:<22} {:<8} ({})", limit.value.to_string(), limit.set_by))
}

fn server(out: &mut impl Write, live: &LiveView) -> io::Result<()> {
    let site = match (&live.note, &live.site) {
        (Some(note), _) => return line(out, "server", note),
        (None, None) if live.runs => {
            return line(out, "server", "runs, and has had no mail for the site lately");
        }
        (None, None) => return line(out, "server", "does not run with this configuration"),
        (None, Some(site)) => site,
    };
    let count = format!(
        "runs: {} of {} connections open ({} at most), {} given out, {} waiting",
        site.connections, site.connections_allowed, site.connections_limit, site.out, site.waiting
    );
    line(out, "server", &count)?;
    let lanes = match site.owner {
        Some(owner) => format!("delivered to by shard {owner}"),
        None => format!("delivered to by each of {} shards", site.lanes),
    };
    line(out, "", &lanes)?;
    if let Some(until) = site.back_off_until {
        line(out, "", &format!("left alone until {}", utc(until)))?;
    }
    match &site.last_failure {
        Some(failure) => line(out, "", &format!("last failure: {failure}")),
        None => Ok(()),
    }
}
