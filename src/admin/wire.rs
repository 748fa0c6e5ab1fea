//! The words of the admin socket, and the JSON that `ringpost queue --json`
//! prints. A request is one line of JSON ([`Ask`]); the answer is one line of
//! JSON ([`Answer`]), after which come the bytes of a message if it has
//! `message_length`. Fields of a queued message are those of `postqueue -j`,
//! and more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::{Outcome, UnixMillis};
use crate::shard::control::{Listed, ListedRecipient, Shown};

/// Longest request, in bytes.
pub const REQUEST_MAX: usize = 4096;
/// Most messages in one page of a list.
pub const PAGE_MAX: usize = 1000;
/// How the null sender is shown, as other mailers do.
pub const NULL_SENDER: &str = "MAILER-DAEMON";

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub enum Ask {
    /// The state of the server, its shards and its destinations.
    Summary {},
    /// A page of the queue.
    List {
        /// `next` of the page before; absent for the first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
        /// Most messages wanted.
        #[serde(default = "page_default")]
        limit: usize,
    },
    /// One message.
    Show {
        /// Its id.
        id: String,
        /// Whether its bytes are wanted too.
        #[serde(default)]
        message: bool,
    },
}

fn page_default() -> usize {
    100
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// To [`Ask::Summary`].
    Summary(Box<Summary>),
    /// To [`Ask::List`].
    Page(PageView),
    /// To [`Ask::Show`].
    Shown(ShownView),
    /// What is wrong with the request, or why it cannot be answered.
    Error(String),
}

/// A page of the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageView {
    /// The messages, by shard and age.
    pub messages: Vec<MessageView>,
    /// Where the next page begins; absent after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A queued message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageView {
    /// `active` while a delivery is under way or waits for its destination,
    /// else `deferred`.
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
    /// under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<u64>,
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
    /// Bytes of the message that follow the line; absent if not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_length: Option<usize>,
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
    /// The destinations, by name.
    pub sites: Vec<SiteView>,
    /// Sums of the shards' counters, by name.
    pub counters: BTreeMap<String, u64>,
}

/// One shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// One destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteView {
    /// Its next hops.
    pub site: String,
    /// Deliveries that wait for it.
    pub queued: u64,
    /// Open connections.
    pub connections: u64,
    /// Until when it is left alone, in seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_off_until: Option<u64>,
    /// The last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
}

impl From<Listed> for MessageView {
    fn from(listed: Listed) -> Self {
        let active = listed.recipients.iter().any(|r| r.next_attempt.is_none());
        let null = listed.sender.is_empty() && listed.damaged.is_none();
        MessageView {
            queue_name: if active { "active" } else { "deferred" }.to_owned(),
            queue_id: listed.id.to_string(),
            arrival_time: listed.arrival.as_secs(),
            message_size: listed.size,
            forced_expire: false,
            sender: if null { NULL_SENDER.to_owned() } else { listed.sender },
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

impl ShownView {
    /// The details, without the bytes of the message.
    pub fn new(shown: Shown) -> (Self, Option<Vec<u8>>) {
        let view = ShownView {
            listed: shown.listed.into(),
            client: shown.client,
            helo: shown.helo,
            message_length: shown.message.as_ref().map(Vec::len),
        };
        (view, shown.message)
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
    fn our_own_words_are_not_put_into_a_peers_mouth() {
        let mut listed = fake::listed(ShardId(0), 2);
        listed.recipients[0].last.as_mut().unwrap().host.clear();
        let view = MessageView::from(listed);
        assert_eq!(view.recipients[0].delay_reason.as_deref(), Some("450 4.2.0 mailbox busy"));
    }

    #[test]
    fn requests_take_defaults_and_refuse_strangers() {
        let list: Ask = serde_json::from_str(r#"{"op":"list"}"#).unwrap();
        assert_eq!(list, Ask::List { cursor: None, limit: 100 });
        for bad in [r#"{"op":"stop"}"#, r#"{"op":"list","all":1}"#, r#"{"op":"summary","x":1}"#] {
            assert!(serde_json::from_str::<Ask>(bad).is_err(), "{bad}");
        }
    }
}
