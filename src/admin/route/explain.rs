//! Finds out what would be done with mail for an address: by the same routes,
//! decisions and resolver as `relay`, but for the moment and without a
//! connection.

use std::net::{IpAddr, UdpSocket};
use std::time::Instant;

use super::view::{
    AddressView, HostView, LimitView, LimitsView, MxRecordView, MxView, RouteView, RuleView,
    ScheduleView, SiteView,
};
use crate::base::Reply;
use crate::config::{Config, Rate, print_duration};
use crate::io::dns::{DnsFailure, DnsOptions, Lookup, Resolver};
use crate::io::executor::spawn;
use crate::policy::mx::{self, HOPS_MAX, NoAddress, Verdict};
use crate::policy::route::{Destination, Hop, Host, Routes, Set, Site, Way};
use crate::policy::tls::{self, plan};
use crate::relay::{Decision, decide};

/// Explains the route of a checked address.
pub(super) async fn explain(config: &Config, address: &str) -> RouteView {
    let routes = Routes::new(config);
    let domain = routes.domain_of(address).to_lowercase();
    let mut view = RouteView {
        address: address.to_owned(),
        schedule: schedule(config),
        tls: config.delivery.tls.name().to_owned(),
        ..RouteView::default()
    };
    let rule = routes.rule(&domain);
    if let Some(index) = rule {
        let json = &config.to_json()["route"][index];
        let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
        let line = config.route_lines.0.get(index).copied().filter(|line| *line > 0);
        let (domain, next_hop) = (text("domain"), json["next_hop"].clone());
        let route = &config.routes[index];
        view.tls = route.tls.unwrap_or(config.delivery.tls).name().to_owned();
        view.route = Some(RuleView { number: index + 1, line, domain, next_hop });
    }
    let resolver = Resolver::new(DnsOptions::from(&config.dns));
    match routes.domain(&domain) {
        Destination::Discard => {
            view.action = "discard";
            view.explanation = "mail is accepted and thrown away by the route".to_owned();
        }
        Destination::Reject => {
            view.action = "reject";
            view.explanation = "recipients are refused by the route".to_owned();
            view.reply = Some("550 5.7.1 mail for this domain is not accepted here".to_owned());
        }
        Destination::Site(site) => {
            view.action = "relay";
            view.explanation = "mail is relayed to the hosts of the route".to_owned();
            relay(config, &resolver, site, &mut view).await;
        }
        Destination::Mx => by_mx(config, &routes, &resolver, &domain, &mut view).await,
    }
    view.domain = domain;
    view
}

fn schedule(config: &Config) -> ScheduleView {
    let queue = &config.queue;
    ScheduleView {
        retry: queue.retry.iter().map(|wait| print_duration(*wait)).collect(),
        expire: print_duration(queue.expire),
        delay_notice: queue.delay_notice.map_or("off".to_owned(), print_duration),
    }
}

/// A domain whose mail goes where DNS says.
async fn by_mx(
    config: &Config,
    routes: &Routes,
    resolver: &Resolver,
    domain: &str,
    view: &mut RouteView,
) {
    let Decision { verdict, mx: lookup, .. } = decide(resolver, domain, config).await;
    let hops = match verdict {
        Verdict::Hops(hops) => hops,
        Verdict::Fail(reply) => {
            view.mx = lookup.map(|lookup| mx_view(config, &lookup, &[]));
            return fail(view, &reply);
        }
        Verdict::Defer(reply) => {
            view.mx = lookup.map(|lookup| mx_view(config, &lookup, &[]));
            return defer(view, &reply);
        }
    };
    view.action = "relay";
    view.explanation = match &lookup {
        None => "mail is relayed to the address in brackets".to_owned(),
        Some(Lookup { result: Ok(_), .. }) => {
            format!("mail is relayed by the MX records of {domain}")
        }
        Some(_) => format!("{domain} has no MX records, so it is its own mail host"),
    };
    view.mx = lookup.map(|lookup| mx_view(config, &lookup, &hops));
    let site = routes.mx_site(domain, hops);
    relay(config, resolver, &site, view).await;
}

fn fail(view: &mut RouteView, reply: &Reply) {
    view.action = "fail";
    view.explanation = "recipients fail for good".to_owned();
    view.reply = Some(reply.to_string());
}

/// Only trouble with DNS defers what was not tried.
fn defer(view: &mut RouteView, reply: &Reply) {
    view.action = "defer";
    view.explanation = "recipients are deferred until it is known where mail goes".to_owned();
    view.reply = Some(reply.to_string());
    view.trouble = Some(reply.text.clone());
}

fn mx_view(config: &Config, lookup: &Lookup<Vec<(u16, Box<str>)>>, hops: &[Hop]) -> MxView {
    let none = Vec::new();
    let (answer, trouble, found) = match &lookup.result {
        Ok(found) => ("found", None, found),
        Err(DnsFailure::NoData) => ("none", None, &none),
        Err(DnsFailure::NoSuchDomain) => ("no such domain", None, &none),
        Err(DnsFailure::Trouble(why)) => ("trouble", Some(why.to_string()), &none),
    };
    let is_me = |host: &str| host.eq_ignore_ascii_case(&config.hostname);
    let own = found.iter().filter(|(_, host)| is_me(host)).map(|(preference, _)| *preference).min();
    let left_out = |preference: u16, host: &str| {
        let is_used =
            hops.iter().any(|hop| matches!(&hop.host, Host::Name(name) if **name == *host));
        match own {
            _ if is_used => None,
            _ if host.is_empty() => Some("the null MX: the domain takes no mail"),
            _ if is_me(host) => Some("it is this server"),
            Some(own) if preference >= own => {
                Some("it is no nearer to the domain than this server")
            }
            _ if hops.len() == HOPS_MAX => Some("there are more than 32 hosts"),
            _ => Some("it is no host name"),
        }
    };
    let records = found.iter().map(|(preference, host)| MxRecordView {
        preference: *preference,
        host: host.to_string(),
        left_out: left_out(*preference, host),
    });
    MxView { answer, ttl: ttl(lookup.expires), trouble, records: records.collect() }
}

/// Mail that goes to a site: its hosts with their addresses, its limits.
async fn relay(config: &Config, resolver: &Resolver, site: &Site, view: &mut RouteView) {
    let lookups: Vec<_> = site
        .hops
        .iter()
        .map(|hop| {
            let (resolver, host) = (resolver.clone(), hop.host.clone());
            spawn(async move {
                match host {
                    Host::Address(_) | Host::Socket(_) => None,
                    Host::Name(name) => Some(resolver.addresses(&name).await),
                }
            })
        })
        .collect();
    let mut facts = Facts::default();
    for (hop, lookup) in site.hops.iter().zip(lookups) {
        let host = host_view(config, site, hop, lookup.await, &mut facts);
        view.hosts.push(host);
    }
    if !facts.any_usable {
        facts.conclude(&site.name, view);
    }
    view.trouble = view.trouble.take().or(facts.trouble);
    view.site = Some(site_view(site));
}

/// What was learnt about all hosts of a site.
#[derive(Default)]
struct Facts {
    /// Some address can be tried.
    any_usable: bool,
    /// Some address is this server's own.
    own: Option<String>,
    /// Why hosts cannot be used.
    problems: Vec<(String, Problem)>,
    /// Some name could not be looked up.
    trouble: Option<String>,
}

enum Problem {
    Dns(DnsFailure),
    Refused(&'static str),
}

impl Facts {
    /// No host has an address to send to.
    fn conclude(&self, site: &str, view: &mut RouteView) {
        if let Some(host) = &self.own {
            view.action = "fail";
            view.explanation = format!("mail would loop: {host} is this server");
            view.reply = Some(format!("554 5.4.6 Mail for {host} loops back to this server"));
            return;
        }
        let why = self.problems.iter().map(|(host, problem)| {
            let why = match problem {
                Problem::Dns(DnsFailure::NoSuchDomain) => NoAddress::NoSuchHost,
                Problem::Dns(DnsFailure::NoData) => NoAddress::NoRecords,
                Problem::Dns(DnsFailure::Trouble(why)) => NoAddress::Trouble(why),
                Problem::Refused(what) => NoAddress::Refused(what),
            };
            (host.as_str(), why)
        });
        match mx::no_target(site, why) {
            Verdict::Fail(reply) => fail(view, &reply),
            Verdict::Defer(reply) => defer(view, &reply),
            Verdict::Hops(_) => unreachable!("there is no host to be tried"),
        }
    }
}

/// What is spoken to a host, and how mail goes there as far as TLS goes.
fn manner(site: &Site, hop: &Hop) -> (&'static str, &'static str) {
    let tls = plan(&tls::Facts {
        mode: site.tls,
        is_implicit: hop.way == Way::Smtps,
        is_local: matches!(hop.host, Host::Socket(_)),
        failed_lately: false,
        has_login: site.login.is_some(),
    });
    let protocol = match hop.way {
        Way::Smtp => "smtp",
        Way::Smtps => "smtps",
        Way::Lmtp => "lmtp",
    };
    (protocol, tls.text())
}

fn host_view(
    config: &Config,
    site: &Site,
    hop: &Hop,
    lookup: Option<Lookup<Vec<IpAddr>>>,
    facts: &mut Facts,
) -> HostView {
    let (rank, host, port) = (hop.rank, hop.host.to_string(), hop.port);
    let (protocol, tls) = manner(site, hop);
    let mut view = HostView { rank, host, port, protocol, tls, ..HostView::default() };
    let addresses = match (&hop.host, lookup) {
        (Host::Address(address), _) => vec![*address],
        (Host::Socket(_), _) => {
            facts.any_usable = true;
            Vec::new()
        }
        (Host::Name(_), None) => Vec::new(),
        (Host::Name(name), Some(lookup)) => {
            view.ttl = Some(ttl(lookup.expires));
            if let Some(missing) = &lookup.missing {
                view.problem = Some(missing.to_string());
                facts.trouble = Some(format!("Cannot look up all addresses of {name}: {missing}"));
            }
            match lookup.result {
                Ok(addresses) => addresses,
                Err(failure) => {
                    view.problem = Some(match &failure {
                        DnsFailure::NoSuchDomain => "it does not exist".to_owned(),
                        DnsFailure::NoData => "it has no address".to_owned(),
                        DnsFailure::Trouble(why) => {
                            let text = format!("Cannot look up the addresses of {name}: {why}");
                            facts.trouble = Some(text);
                            format!("it cannot be looked up: {why}")
                        }
                    });
                    facts.problems.push((view.host.clone(), Problem::Dns(failure)));
                    Vec::new()
                }
            }
        }
    };
    let allow_private = site.is_static || config.delivery.allow_private_targets;
    for address in addresses {
        let is_own = !site.is_static && is_own(config, address, hop.port);
        let refused = match mx::target(address, allow_private) {
            Err(what) => {
                facts.problems.push((view.host.clone(), Problem::Refused(what)));
                Some(what)
            }
            Ok(()) if is_own => {
                facts.own = Some(view.host.clone());
                Some("this server itself")
            }
            Ok(()) => {
                facts.any_usable = true;
                None
            }
        };
        let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        view.addresses.push(AddressView { address: address.to_string(), family, refused });
    }
    view
}

/// Whether this server listens there.
fn is_own(config: &Config, address: IpAddr, port: u16) -> bool {
    let mut listeners = config.listeners.iter().flat_map(|listener| &listener.addresses);
    listeners.any(|own| {
        let is_of_all = own.ip().is_unspecified() && UdpSocket::bind((address, 0)).is_ok();
        own.port() == port && (own.ip() == address || is_of_all)
    })
}

fn site_view(site: &Site) -> SiteView {
    let limits = &site.limits;
    let count = |limit: &Set<u32>| LimitView { value: limit.value, set_by: limit.by.to_string() };
    let rate = |limit: &Set<Option<Rate>>| LimitView {
        value: limit.value.map_or("off".to_owned(), |rate| rate.to_string()),
        set_by: limit.by.to_string(),
    };
    SiteView {
        name: site.name.to_string(),
        hash: site.hash,
        is_static: site.is_static,
        owner: None,
        lanes: 1,
        limits: LimitsView {
            connections: count(&limits.connections),
            messages_per_connection: count(&limits.messages_per_connection),
            connection_rate: rate(&limits.connection_rate),
            message_rate: rate(&limits.message_rate),
        },
    }
}

/// Whole seconds left until then.
fn ttl(expires: Instant) -> u64 {
    expires.saturating_duration_since(Instant::now()).as_secs_f64().ceil() as u64
}
