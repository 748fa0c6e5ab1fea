//! What the answers of the admin socket are made of, which is the JSON that
//! `ringpost queue --json` prints. Fields of a queued message are those of
//! `postqueue -j`, and more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::terms::TermsView;
use crate::base::{Outcome, UnixMillis};
use crate::shard::control::{
    Action, Listed, ListedRecipient, OrderedMessage, Shown, SiteState, SiteTotals, Standing,
};

/// How the null sender is shown, as other mailers do.
pub const NULL_SENDER: &str = "MAILER-DAEMON";

/// Absent fields are false.
pub(super) fn is_false(flag: &bool) -> bool {
    !flag
}

/// A message to which an order was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderedMessageView {
    /// What was done: `hold`, `release`, `retry`, `drop`.
    pub action: String,
    /// Its id.
    pub queue_id: String,
    /// Reverse-path; `MAILER-DAEMON` for the null sender.
    pub sender: String,
    /// Recipients for which it was done.
    pub recipients: Vec<AddressView>,
    /// Nothing was done yet: this is what would be.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Why the envelope could not be read, if it could not: recipients have
    /// numbers then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
}

/// A recipient that an order concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressView {
    /// Its address.
    pub address: String,
}

/// A queued message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageView {
    /// `hold` while all its recipients are held; `active` while a delivery is
    /// under way or next in line; else `deferred`.
    pub queue_name: String,
    /// Its id.
    pub queue_id: String,
    /// When it was accepted, in seconds since the epoch.
    pub arrival_time: u64,
    /// Stored size, in bytes.
    pub message_size: u64,
    /// Whether an operator made it expire.
    pub forced_expire: bool,
    /// Reverse-path; `MAILER-DAEMON` for the null sender.
    pub sender: String,
    /// Recipients not settled yet.
    pub recipients: Vec<RecipientView>,
    /// Why the envelope could not be read, if it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
}

/// A recipient not settled yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientView {
    /// Its address.
    pub address: String,
    /// What the last attempt came to; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_reason: Option<String>,
    /// Attempts made.
    pub attempts: u16,
    /// When the next is due, in seconds since the epoch; absent while one is
    /// under way, and while the recipient is held. While it waits for its site:
    /// when it is expected to go, absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<u64>,
    /// It is due, and waits until its site has room; absent if not.
    #[serde(default, skip_serializing_if = "is_false")]
    pub waiting: bool,
    /// Held back by an operator; absent if not.
    #[serde(default, skip_serializing_if = "is_false")]
    pub held: bool,
    /// Its sender wants it kept until `next_attempt`; absent if not.
    #[serde(default, skip_serializing_if = "is_false")]
    pub postponed: bool,
    /// More about it, when its message is shown.
    #[serde(flatten)]
    pub standing: Option<StandingView>,
}

/// Where a recipient stands, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingView {
    /// The destination, as far as it is known; `discard` or `reject` for routes
    /// that lead to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// The shard that delivers to it; absent while each one does, or where the
    /// destination is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<u16>,
    /// Why it is tried when it is, and not now.
    pub why: String,
    /// What the last attempt came to; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastView>,
}

/// The last word about a recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastView {
    /// Code and text.
    pub reply: String,
    /// Whose word it was; empty for our own.
    pub host: String,
    /// When, in seconds since the epoch.
    pub time: u64,
}

/// A message with its details.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownView {
    /// As listed.
    #[serde(flatten)]
    pub listed: MessageView,
    /// Address of the client; empty for mail made here.
    pub client: String,
    /// How the client announced itself.
    pub helo: String,
    /// The terms on which it was taken; absent where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<TermsView>,
}

/// The state of the server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Version of the program.
    pub version: String,
    /// The name it goes by.
    pub hostname: String,
    /// `ok`, or what is wrong, as in `/healthz`.
    pub status: String,
    /// What is wrong and what to do.
    pub reasons: Vec<String>,
    /// The durability mode.
    pub durability: String,
    /// When the process was started, in seconds since the epoch.
    pub started: u64,
    /// The shards that answered.
    pub shards: Vec<ShardView>,
    /// The destinations with most mail, the fullest first.
    pub sites: Vec<SiteView>,
    /// All other destinations in sum; absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sites_rest: Option<RestView>,
    /// Sums of the shards' counters, by name.
    pub counters: BTreeMap<String, u64>,
}

/// One shard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardView {
    /// Its number.
    pub shard: u16,
    /// The CPU it is pinned to.
    pub cpu: Option<usize>,
    /// Open sessions.
    pub sessions: u64,
    /// Messages not settled.
    pub queued_messages: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Segment files in use.
    pub segments: u64,
    /// Files that wait to be used again.
    pub segments_spare: u64,
    /// Segments kept because some of their bytes are damaged.
    pub segments_quarantined: u64,
    /// Segments still to be read after the start.
    pub segments_unread: u64,
    /// Bytes of records that queued messages need.
    pub live_bytes: u64,
    /// Bytes in segments for each byte that is needed.
    pub space_amplification: f64,
    /// Bytes written so far to move messages out of segments with little left.
    pub bytes_moved: u64,
    /// Records found damaged so far.
    pub records_damaged: u64,
}

/// One destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteView {
    /// Its name: the hosts.
    pub site: String,
    /// The shard that delivers to it; absent while each one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<u16>,
    /// Lanes: one, or one on each shard.
    pub lanes: u16,
    /// Deliveries that are next in line for a connection.
    pub queued: u64,
    /// Deliveries given out: those, and those under way.
    pub out: u64,
    /// Recipients that wait until more may be given out.
    pub waiting: u64,
    /// Open connections.
    pub connections: u64,
    /// Connections that it may have now.
    pub connections_allowed: u32,
    /// Connections that it may have at most.
    pub connections_limit: u32,
    /// Messages that it may get, like `10/s`; absent for any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_rate: Option<String>,
    /// Until when it is left alone, in seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_off_until: Option<u64>,
    /// The last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
}

/// Destinations in sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestView {
    /// How many they are.
    pub sites: u64,
    /// See [`SiteView::queued`].
    pub queued: u64,
    /// See [`SiteView::out`].
    pub out: u64,
    /// See [`SiteView::waiting`].
    pub waiting: u64,
    /// See [`SiteView::connections`].
    pub connections: u64,
}

impl SiteView {
    /// One site, as `states` of it on several shards tell; `None` without any.
    pub fn merged(states: impl IntoIterator<Item = SiteState>) -> Option<SiteView> {
        let mut states = states.into_iter();
        let mut view = SiteView::from(states.next()?);
        for state in states {
            let other = SiteView::from(state);
            view.queued += other.queued;
            view.out += other.out;
            view.waiting += other.waiting;
            view.connections += other.connections;
            // These are the site's, not a shard's: they differ by the moment only.
            view.back_off_until = view.back_off_until.max(other.back_off_until);
            view.last_failure = view.last_failure.or(other.last_failure);
        }
        Some(view)
    }
}

impl From<SiteState> for SiteView {
    fn from(state: SiteState) -> Self {
        SiteView {
            site: state.site,
            owner: (state.lanes == 1).then_some(state.owner.0),
            lanes: state.lanes,
            queued: state.queued,
            out: state.out,
            waiting: state.waiting,
            connections: state.connections,
            connections_allowed: state.connections_allowed,
            connections_limit: state.connections_limit,
            message_rate: state.message_rate.map(|rate| rate.to_string()),
            back_off_until: state.back_off_until.map(UnixMillis::as_secs),
            last_failure: state.last_failure,
        }
    }
}

impl RestView {
    /// What of `totals`, of all shards, is not of `told`; `None` if that is
    /// nothing.
    pub fn new(totals: &[SiteTotals], told: &[SiteView]) -> Option<RestView> {
        let all = totals.iter().map(|totals| totals.sites_of_all).max().unwrap_or(0);
        let sites = all.saturating_sub(told.len() as u64);
        let rest = |of: fn(&SiteTotals) -> u64, less: fn(&SiteView) -> u64| {
            let less: u64 = told.iter().map(less).sum();
            totals.iter().map(of).sum::<u64>().saturating_sub(less)
        };
        (sites > 0).then(|| RestView {
            sites,
            queued: rest(|all| all.queued, |site| site.queued),
            out: rest(|all| all.out, |site| site.out),
            waiting: rest(|all| all.waiting, |site| site.waiting),
            connections: rest(|all| all.connections, |site| site.connections),
        })
    }
}

impl From<Listed> for MessageView {
    fn from(listed: Listed) -> Self {
        let recipients = &listed.recipients;
        let queue_name = if !recipients.is_empty() && recipients.iter().all(|r| r.held) {
            "hold"
        } else if recipients.iter().any(|r| r.out) {
            "active"
        } else {
            "deferred"
        };
        MessageView {
            queue_name: queue_name.to_owned(),
            queue_id: listed.id.to_string(),
            arrival_time: listed.arrival.as_secs(),
            message_size: listed.size,
            forced_expire: false,
            sender: sender(listed.sender, listed.damaged.is_some()),
            recipients: listed.recipients.into_iter().map(RecipientView::from).collect(),
            damaged: listed.damaged,
        }
    }
}

impl From<ListedRecipient> for RecipientView {
    fn from(listed: ListedRecipient) -> Self {
        RecipientView {
            address: listed.address,
            delay_reason: listed.last.as_ref().map(reason),
            attempts: listed.attempts,
            next_attempt: listed.next_attempt.map(UnixMillis::as_secs),
            waiting: listed.waiting,
            held: listed.held,
            postponed: listed.postponed,
            standing: None,
        }
    }
}

/// A sender as it is shown; nothing for one that is not known.
fn sender(address: String, is_unknown: bool) -> String {
    if address.is_empty() && !is_unknown { NULL_SENDER.to_owned() } else { address }
}

impl OrderedMessageView {
    /// What `action` did to `message`.
    pub fn new(action: Action, dry_run: bool, message: OrderedMessage) -> Self {
        let addresses = message.recipients.into_iter();
        OrderedMessageView {
            action: action.name().to_owned(),
            queue_id: message.id.to_string(),
            sender: sender(message.sender, message.damaged.is_some()),
            recipients: addresses.map(|address| AddressView { address }).collect(),
            dry_run,
            damaged: message.damaged,
        }
    }
}

/// The last word about a recipient, and whose it was.
fn reason(last: &Outcome) -> String {
    match last.host.as_str() {
        "" => last.reply.to_string(),
        host => format!("{host} said: {}", last.reply),
    }
}

impl From<Shown> for ShownView {
    fn from(shown: Shown) -> Self {
        let lasts: Vec<_> = shown.listed.recipients.iter().map(|r| r.last.clone()).collect();
        let mut listed = MessageView::from(shown.listed);
        let standings = shown.standings.into_iter().zip(lasts);
        for (recipient, (standing, last)) in listed.recipients.iter_mut().zip(standings) {
            recipient.next_attempt = standing.next_attempt.map(UnixMillis::as_secs);
            recipient.standing = Some(StandingView::new(standing, last));
        }
        let terms = shown.terms.map(|terms| TermsView::from(&*terms));
        ShownView { listed, client: shown.client, helo: shown.helo, terms }
    }
}

impl StandingView {
    fn new(standing: Standing, last: Option<Outcome>) -> Self {
        let Standing { site, owner, why, .. } = standing;
        let last = last.map(|last| LastView {
            reply: last.reply.to_string(),
            host: last.host,
            time: last.at.as_secs(),
        });
        StandingView { site, owner: owner.map(|owner| owner.0), why, last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::fake;
    use crate::base::ShardId;

    #[test]
    fn a_message_has_the_fields_operators_know() {
        let view = MessageView::from(fake::listed(ShardId(0), 2));
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "queue_name": "deferred",
                "queue_id": fake::listed(ShardId(0), 2).id.to_string(),
                "arrival_time": 1_700_000_000u64,
                "message_size": 1002,
                "forced_expire": false,
                "sender": "MAILER-DAEMON",
                "recipients": [{
                    "address": "r2@example.org",
                    "delay_reason": "127.0.0.1:2526 said: 450 4.2.0 mailbox busy",
                    "attempts": 2,
                    "next_attempt": 1_700_000_360u64,
                }],
            })
        );
        let first = serde_json::to_value(MessageView::from(fake::listed(ShardId(0), 1))).unwrap();
        assert_eq!(first["queue_name"], "active");
        assert_eq!(
            first["recipients"][0],
            serde_json::json!({
                "address": "r1@example.org", "attempts": 0
            })
        );
    }

    #[test]
    fn a_message_is_on_hold_when_all_of_it_is() {
        let mut listed = fake::listed(ShardId(0), 2);
        listed.recipients[0].held = true;
        listed.recipients[0].next_attempt = None;
        let mut other = listed.recipients[0].clone();
        let view = MessageView::from(listed.clone());
        assert_eq!(view.queue_name, "hold");
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(json["recipients"][0]["held"], true);
        assert_eq!(json["recipients"][0]["next_attempt"], serde_json::Value::Null);
        other.held = false;
        other.next_attempt = Some(UnixMillis(1));
        listed.recipients.push(other.clone());
        assert_eq!(MessageView::from(listed.clone()).queue_name, "deferred");
        other.out = true;
        listed.recipients.push(other);
        assert_eq!(MessageView::from(listed).queue_name, "active");
    }

    #[test]
    fn our_own_words_are_not_put_into_a_peers_mouth() {
        let mut listed = fake::listed(ShardId(0), 2);
        listed.recipients[0].last.as_mut().unwrap().host.clear();
        let view = MessageView::from(listed);
        assert_eq!(view.recipients[0].delay_reason.as_deref(), Some("450 4.2.0 mailbox busy"));
    }
}
