//! Goes through the queues of all shards, one after the other, for lists and
//! for orders. A request that finds little ends all the same, with a cursor to
//! go on from: nobody waits long for one answer, and nothing is collected.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::control::Control;
use super::view::OrderedMessageView;
use super::wire::{OrderAsk, OrderedView, PAGE_DEFAULT, PAGE_MAX, PageView};
use crate::base::{QueueId, UnixMillis};
use crate::io::clock;
use crate::shard::control::{Action, Order, Ordered, Range, Target};
use crate::shard::select::Selection;

/// Messages asked of a shard at a time, so that neither holds many envelopes.
const STRIDE: usize = 256;
/// Recipients after which a page is full.
const PAGE_RECIPIENTS: usize = 10_000;
/// How long a page may take to fill; what was found by then is the answer.
const FILLING: Duration = Duration::from_secs(1);

/// Where a page begins: `SHARD:SINCE` or `SHARD:SINCE:ID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor {
    /// The shard.
    index: usize,
    /// When the first page was asked for, in milliseconds: what was accepted
    /// since is left out, so that there is an end.
    since: UnixMillis,
    /// The message before the page.
    after: Option<QueueId>,
}

impl Cursor {
    fn read(text: Option<&str>) -> Result<Cursor, String> {
        match text {
            None => Ok(Cursor { index: 0, since: clock::wall(), after: None }),
            Some(text) => text.parse().map_err(|()| format!("no cursor: {text:?}")),
        }
    }

    /// Goes on behind `after`, or with the next shard.
    fn advance(&mut self, after: Option<QueueId>) {
        self.index += usize::from(after.is_none());
        self.after = after;
    }

    fn range(&self, selection: &Arc<Selection>, limit: usize) -> Range {
        let (selection, limit) = (Arc::clone(selection), limit.min(STRIDE));
        Range { selection, after: self.after, until: self.since, limit }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.index, self.since.0)?;
        self.after.map_or(Ok(()), |id| write!(f, ":{id}"))
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut fields = text.splitn(3, ':');
        let mut field = || fields.next().ok_or(());
        let index = field()?.parse().map_err(drop)?;
        let since = UnixMillis(field()?.parse().map_err(drop)?);
        let after = fields.next().map(str::parse).transpose().map_err(drop)?;
        Ok(Cursor { index, since, after })
    }
}

/// Up to `limit` messages; fewer when they have very many recipients or are
/// hard to find.
///
/// # Errors
/// The cursor is none, or a shard is silent.
pub async fn list(
    control: &Control,
    selection: &Arc<Selection>,
    cursor: Option<&str>,
    limit: usize,
) -> Result<PageView, String> {
    let limit = limit.clamp(1, PAGE_MAX);
    let mut cursor = Cursor::read(cursor)?;
    let deadline = Instant::now() + FILLING;
    let mut view = PageView::default();
    let mut recipients = 0;
    while cursor.index < control.fleet.len() {
        let is_full = view.messages.len() >= limit || recipients >= PAGE_RECIPIENTS;
        if is_full || Instant::now() >= deadline {
            view.next = Some(cursor.to_string());
            break;
        }
        let range = cursor.range(selection, limit - view.messages.len());
        let Some(page) = control.fleet.page(cursor.index, range).await else { break };
        let page = page.map_err(|silence| silence.to_string())?;
        recipients += page.messages.iter().map(|m| m.recipients.len()).sum::<usize>();
        view.messages.extend(page.messages.into_iter().map(Into::into));
        view.unread = view.unread.max(page.unread);
        cursor.advance(page.next);
    }
    Ok(view)
}

/// Carries out `action` on behalf of `by`.
///
/// # Errors
/// The request is not to be understood. Whatever stops it later is in the
/// answer, beside what was done until then.
pub async fn order(
    control: &Control,
    action: Action,
    ask: &OrderAsk,
    by: Arc<str>,
) -> Result<OrderedView, String> {
    let selection = Arc::new(ask.filter.selection()?);
    let order = Order { action, by, dry_run: ask.dry_run };
    match (ask.ids.is_empty(), ask.all) {
        (false, true) => Err("ids or all, not both".to_owned()),
        (false, false) => order_named(control, &order, &ask.ids, selection).await,
        (true, false) if ask.filter.is_empty() => {
            Err("to which messages? Give ids, a filter, or all".to_owned())
        }
        (true, _) => order_matching(control, &order, &selection, ask).await,
    }
}

async fn order_matching(
    control: &Control,
    order: &Order,
    selection: &Arc<Selection>,
    ask: &OrderAsk,
) -> Result<OrderedView, String> {
    let limit = ask.limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX);
    let mut cursor = Cursor::read(ask.cursor.as_deref())?;
    let deadline = Instant::now() + FILLING;
    let mut view = OrderedView::default();
    let mut recipients = 0;
    while cursor.index < control.fleet.len() {
        let is_full = view.messages.len() >= limit || recipients >= PAGE_RECIPIENTS;
        if is_full || Instant::now() >= deadline {
            view.next = Some(cursor.to_string());
            break;
        }
        let range = cursor.range(selection, limit - view.messages.len());
        let Some(done) = control.fleet.order(cursor.index, order, range).await else { break };
        match done {
            Ok(done) => {
                let next = done.next;
                recipients += done.messages.iter().map(|m| m.recipients.len()).sum::<usize>();
                add(&mut view, order, done);
                cursor.advance(next);
            }
            Err(silence) => view.trouble = Some(silence.to_string()),
        }
        if view.trouble.is_some() {
            break;
        }
    }
    Ok(view)
}

async fn order_named(
    control: &Control,
    order: &Order,
    names: &[String],
    selection: Arc<Selection>,
) -> Result<OrderedView, String> {
    let mut ids: Vec<QueueId> = Vec::with_capacity(names.len());
    for name in names {
        let id = name.parse().map_err(|wrong| format!("{name:?} is {wrong}"))?;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    let target = Target::Named(ids.as_slice().into(), selection);
    let mut view = OrderedView::default();
    for done in control.fleet.order_named(order, &target).await {
        match done {
            Ok(done) => add(&mut view, order, done),
            Err(silence) => view.trouble = Some(silence.to_string()),
        }
    }
    let place = |id: &str| ids.iter().position(|known| known.to_string() == id);
    view.messages.sort_by_key(|message| place(&message.queue_id));
    // With a shard silent nobody knows what is not queued.
    if view.trouble.is_none() {
        let names = ids.iter().map(ToString::to_string);
        let known = |name: &String| view.messages.iter().any(|m| m.queue_id == *name);
        view.unknown = names.filter(|name| !known(name)).collect();
    }
    Ok(view)
}

fn add(view: &mut OrderedView, order: &Order, done: Ordered) {
    let messages = done.messages.into_iter();
    let told = |message| OrderedMessageView::new(order.action, order.dry_run, message);
    view.messages.extend(messages.map(told));
    view.unread = view.unread.max(done.unread);
    view.trouble = view.trouble.take().or(done.trouble);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::fake::{self, Manner};
    use crate::admin::filter::Filter;

    const TWO: &[Manner] = &[Manner::Well, Manner::Well];

    async fn all(manners: &'static [Manner], filter: Filter, limit: usize) -> Vec<String> {
        let control = fake::control(manners);
        let selection = Arc::new(filter.selection().unwrap());
        let (mut ids, mut cursor) = (Vec::new(), None);
        loop {
            let page = list(&control, &selection, cursor.as_deref(), limit).await.unwrap();
            assert!(page.messages.len() <= limit);
            ids.extend(page.messages.into_iter().map(|m| m.queue_id));
            match page.next {
                Some(next) => cursor = Some(next),
                None => return ids,
            }
        }
    }

    #[tokio::test]
    async fn pages_run_through_all_shards_without_gap_or_repeat() {
        for limit in [1, 2, 3, 5, 7, 10, 1000] {
            let mut ids = all(TWO, Filter::default(), limit).await;
            assert_eq!(ids.len(), 2 * fake::QUEUED as usize, "limit {limit}");
            assert!(ids.is_sorted());
            ids.dedup();
            assert_eq!(ids.len(), 2 * fake::QUEUED as usize, "limit {limit}");
        }
    }

    #[tokio::test]
    async fn a_filter_goes_to_the_shards() {
        let sender = Some("s3@example.com".to_owned());
        let filter = Filter { sender, ..Filter::default() };
        assert_eq!(all(TWO, filter, 1).await.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_does_not_fill_ends_with_a_cursor() {
        let control = fake::control(&[Manner::Barren]);
        let everything = Arc::new(Selection::default());
        let page = list(&control, &everything, None, 10).await.unwrap();
        assert_eq!(page.messages, []);
        assert!(page.next.is_some());
        let ask = OrderAsk { all: true, ..OrderAsk::default() };
        let done = order(&control, Action::Drop, &ask, "me".into()).await.unwrap();
        assert_eq!(done.messages, []);
        assert!(done.next.is_some());
    }

    #[tokio::test]
    async fn an_order_stops_at_trouble_and_says_what_was_done() {
        let control = fake::control(&[Manner::Well, Manner::Gone]);
        let ask = OrderAsk { all: true, limit: Some(1000), ..OrderAsk::default() };
        let done = order(&control, Action::Hold, &ask, "me".into()).await.unwrap();
        assert_eq!(done.messages.len(), fake::QUEUED as usize - 1, "one is held already");
        assert!(done.trouble.unwrap().contains("shard 1 has ended"));
        assert_eq!(done.next, None);

        let id = fake::listed(crate::base::ShardId(1), 1).id.to_string();
        let ask = OrderAsk { ids: vec![id], ..OrderAsk::default() };
        let done = order(&control, Action::Hold, &ask, "me".into()).await.unwrap();
        assert_eq!(done.unknown, Vec::<String>::new(), "the shard that has it is gone");
        assert!(done.trouble.is_some());
    }

    #[tokio::test]
    async fn ids_are_answered_in_their_order_and_once() {
        let control = fake::control(TWO);
        let id = |shard, n| fake::listed(crate::base::ShardId(shard), n).id.to_string();
        let none = "0000000000000000".to_owned();
        let ids = vec![id(1, 2), none.clone(), id(0, 3), id(1, 2).to_lowercase()];
        let ask = OrderAsk { ids, ..OrderAsk::default() };
        let done = order(&control, Action::Retry, &ask, "me".into()).await.unwrap();
        let got: Vec<_> = done.messages.iter().map(|m| m.queue_id.clone()).collect();
        assert_eq!(got, [id(1, 2), id(0, 3)]);
        assert_eq!(done.unknown, [none]);
        assert_eq!(done.messages[0].action, "retry");
        assert_eq!(done.messages[0].recipients[0].address, "r2@example.org");
    }

    #[tokio::test]
    async fn orders_without_a_target_are_refused() {
        let control = fake::control(TWO);
        let nothing = OrderAsk::default();
        let both = OrderAsk { ids: vec!["X".into()], all: true, ..OrderAsk::default() };
        let bad = OrderAsk { ids: vec!["X".into()], ..OrderAsk::default() };
        for (ask, says) in [(nothing, "all"), (both, "not both"), (bad, "not a queue id")] {
            let wrong = order(&control, Action::Drop, &ask, "me".into()).await.unwrap_err();
            assert!(wrong.contains(says), "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_cursor_is_too_strange(text: String, index: usize, since: u64, after: Option<u32>) {
            if let Ok(cursor) = text.parse::<Cursor>() {
                proptest::prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
            }
            let after = after.map(|_| fake::listed(crate::base::ShardId(3), 1).id);
            let cursor = Cursor { index, since: UnixMillis(since), after };
            proptest::prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
    }
}
