//! The words of the admin socket. A request is one line of JSON ([`Ask`]); the
//! answer is one line of JSON ([`Answer`], made of `view`). Where the bytes of a
//! message were asked for, they follow in parts: a line with the length of the
//! next ([`Answer::Part`]) and that many bytes, until the length is 0.

use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::view::{MessageView, OrderedMessageView, ShownView, SiteView, Summary, is_false};
use crate::shard::control::Action;

/// Longest request, in bytes.
pub const REQUEST_MAX: usize = 4096;
/// Most messages in one page of a list, or of an order.
pub const PAGE_MAX: usize = 1000;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub enum Ask {
    /// The state of the server, its shards and its destinations.
    Summary {
        /// How many destinations: those with most mail.
        #[serde(default = "sites_default")]
        sites: usize,
    },
    /// One destination.
    Site {
        /// Its name, as a summary tells it.
        site: String,
    },
    /// A page of the queue.
    List {
        /// `next` of the page before; absent for the first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
        /// Most messages wanted.
        #[serde(default = "page_default")]
        limit: usize,
        /// Which messages.
        #[serde(default, skip_serializing_if = "Filter::is_empty")]
        filter: Filter,
    },
    /// One message.
    Show {
        /// Its id.
        id: String,
        /// Whether its bytes are wanted too.
        #[serde(default)]
        message: bool,
    },
    /// No attempts until released.
    Hold(OrderAsk),
    /// Ends a hold.
    Release(OrderAsk),
    /// The next attempt is due now.
    Retry(OrderAsk),
    /// Give up, without a report.
    Drop(OrderAsk),
}

/// To which messages an order is. It needs ids, a filter, or `all`; ids with a
/// filter are to be for those recipients of those messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OrderAsk {
    /// These messages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// What this lets through.
    #[serde(skip_serializing_if = "Filter::is_empty")]
    pub filter: Filter,
    /// Everything, in so many words.
    #[serde(skip_serializing_if = "is_false")]
    pub all: bool,
    /// Only say what would be done.
    #[serde(skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// `next` of the page before; absent for the first, and with ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Most messages to deal with.
    pub limit: Option<usize>,
}

impl Ask {
    /// An order.
    pub fn order(action: Action, ask: OrderAsk) -> Ask {
        match action {
            Action::Hold => Ask::Hold(ask),
            Action::Release => Ask::Release(ask),
            Action::Retry => Ask::Retry(ask),
            Action::Drop => Ask::Drop(ask),
        }
    }
}

/// Destinations in a summary, if the request does not say.
pub const SITES_DEFAULT: usize = 20;

fn sites_default() -> usize {
    SITES_DEFAULT
}

/// Messages in a page, if the request does not say.
pub const PAGE_DEFAULT: usize = 100;

fn page_default() -> usize {
    PAGE_DEFAULT
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// To [`Ask::Summary`].
    Summary(Box<Summary>),
    /// To [`Ask::Site`]; nothing when there is no mail for it.
    Site(Option<SiteView>),
    /// To [`Ask::List`].
    Page(PageView),
    /// To [`Ask::Show`].
    Shown(ShownView),
    /// Before so many bytes of a message; 0 is its end.
    Part(usize),
    /// To an order.
    Ordered(OrderedView),
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
    /// Segments that are still to be read after a start: what is queued in them
    /// is not listed yet. Absent when there are none.
    #[serde(default, skip_serializing_if = "is_none")]
    pub unread: u64,
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

/// What became of an order. All of it is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderedView {
    /// The messages concerned, by shard and age. Of those that were named also
    /// the ones for which there was nothing to do: without recipients.
    pub messages: Vec<OrderedMessageView>,
    /// Ids that were named and are not queued.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// Where to go on; absent when all is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// See [`PageView::unread`].
    #[serde(default, skip_serializing_if = "is_none")]
    pub unread: u64,
    /// Why the rest was not done, if something stopped it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_take_defaults_and_refuse_strangers() {
        let list: Ask = serde_json::from_str(r#"{"op":"list"}"#).unwrap();
        assert_eq!(list, Ask::List { cursor: None, limit: 100, filter: Filter::default() });
        let drop: Ask = serde_json::from_str(r#"{"op":"drop","all":true}"#).unwrap();
        assert_eq!(drop, Ask::Drop(OrderAsk { all: true, ..OrderAsk::default() }));
        let hold: Ask =
            serde_json::from_str(r#"{"op":"hold","ids":["X"],"filter":{"state":"active"}}"#)
                .unwrap();
        assert_eq!(
            serde_json::from_value::<Ask>(serde_json::to_value(&hold).unwrap()).unwrap(),
            hold
        );
        let summary: Ask = serde_json::from_str(r#"{"op":"summary"}"#).unwrap();
        assert_eq!(summary, Ask::Summary { sites: 20 });
        for bad in [
            r#"{"op":"drop","every":true}"#,
            r#"{"op":"hold","filter":{"older-than":"1h"}}"#,
            r#"{"op":"stop"}"#,
            r#"{"op":"list","all":1}"#,
            r#"{"op":"summary","x":1}"#,
        ] {
            assert!(serde_json::from_str::<Ask>(bad).is_err(), "{bad}");
        }
    }
}
