//! What `ringpost route` finds out: the JSON that it prints with `--json`.

use serde::Serialize;

use crate::admin::view::SiteView as LiveSite;

/// What would be done with mail for an address.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct RouteView {
    /// As given.
    pub(super) address: String,
    /// Its domain in lower case; the server's own name where it has none.
    pub(super) domain: String,
    /// The route that matches; absent for none, which means MX.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) route: Option<RuleView>,
    /// `relay`, `discard`, `reject`, `fail` (the recipient fails for good) or
    /// `defer` (it is tried again later).
    pub(super) action: &'static str,
    /// In a sentence.
    pub(super) explanation: String,
    /// The reply that a failure, deferral or refusal is told with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reply: Option<String>,
    /// What DNS said about the MX records; absent where it was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mx: Option<MxView>,
    /// The hosts that mail goes to, the first to be tried first.
    pub(super) hosts: Vec<HostView>,
    /// The site; absent where mail goes nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) site: Option<SiteView>,
    /// Whether TLS is used: what the route or `[delivery]` says.
    pub(super) tls: String,
    /// When a deferred recipient is tried again.
    pub(super) schedule: ScheduleView,
    /// What the running server knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server: Option<LiveView>,
    /// Why not all of this could be found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trouble: Option<String>,
}

/// A `[[route]]`.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct RuleView {
    /// Which, from 1.
    pub(super) number: usize,
    /// The line that it begins in; absent where it comes from an option.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<u32>,
    /// Its pattern.
    pub(super) domain: String,
    /// Its hosts or word.
    pub(super) next_hop: serde_json::Value,
}

/// What DNS said about the mail exchangers of a domain.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct MxView {
    /// `found`, `none` (the domain has no such records), `no such domain` or
    /// `trouble`.
    pub(super) answer: &'static str,
    /// Seconds that the answer holds for.
    pub(super) ttl: u64,
    /// What the trouble is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trouble: Option<String>,
    /// The records, the most preferred first.
    pub(super) records: Vec<MxRecordView>,
}

/// One MX record.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct MxRecordView {
    /// The lower the more preferred.
    pub(super) preference: u16,
    /// The host; empty for the null MX.
    pub(super) host: String,
    /// Why it is not used; absent if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) left_out: Option<&'static str>,
}

/// A host that mail goes to.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct HostView {
    /// Hosts of rank 0 are tried first, those of equal rank in random order.
    pub(super) rank: u16,
    /// Its name or address.
    pub(super) host: String,
    /// The port.
    pub(super) port: u16,
    /// Seconds that its addresses hold for; absent for an address as given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ttl: Option<u64>,
    /// Its addresses.
    pub(super) addresses: Vec<AddressView>,
    /// What is spoken to it: `smtp`, `smtps` or `lmtp`.
    pub(super) protocol: &'static str,
    /// How mail goes there, as far as TLS goes.
    pub(super) tls: &'static str,
    /// Why there are none, or none of one family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
}

/// An address of a host.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct AddressView {
    /// The address.
    pub(super) address: String,
    /// `ipv4` or `ipv6`.
    pub(super) family: &'static str,
    /// What it is, if it is not sent to because of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refused: Option<&'static str>,
}

/// A site.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct SiteView {
    /// Its name, as `ringpost queue summary` prints it.
    pub(super) name: String,
    /// What chooses its owner.
    #[serde(skip)]
    pub(super) hash: u32,
    /// A route names its hosts.
    #[serde(rename = "static")]
    pub(super) is_static: bool,
    /// The shard that delivers to it while it has one lane; absent where the
    /// configured CPUs are not here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<OwnerView>,
    /// Lanes that it begins with.
    pub(super) lanes: usize,
    /// Its limits.
    pub(super) limits: LimitsView,
}

/// The shard that owns a site.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct OwnerView {
    /// Its number.
    pub(super) shard: usize,
    /// How many there are.
    pub(super) shards: usize,
    /// Its CPU.
    pub(super) cpu: usize,
}

/// The limits of a site.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct LimitsView {
    /// Most open connections.
    pub(super) connections: LimitView<u32>,
    /// Most messages over one connection.
    pub(super) messages_per_connection: LimitView<u32>,
    /// Most new connections in a time, or `off`.
    pub(super) connection_rate: LimitView<String>,
    /// Most messages in a time, or `off`.
    pub(super) message_rate: LimitView<String>,
}

/// A limit.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct LimitView<T> {
    /// The limit.
    pub(super) value: T,
    /// Where it was set: `default`, `[delivery]` or a `[[site]]` with its line.
    pub(super) set_by: String,
}

/// When a deferred recipient is tried again.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct ScheduleView {
    /// Waits between attempts; the last repeats.
    pub(super) retry: Vec<String>,
    /// The age at which it is given up.
    pub(super) expire: String,
    /// The age at which the sender is told of the delay, or `off`.
    pub(super) delay_notice: String,
}

/// What the running server knows of the site.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct LiveView {
    /// A server answers at the admin socket.
    pub(super) runs: bool,
    /// Why it says nothing of the site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
    /// The site, if the server has or had lately mail for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) site: Option<LiveSite>,
}
