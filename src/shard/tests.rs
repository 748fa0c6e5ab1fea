//! What operators ask of a shard, answered from a queue in memory.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use async_channel::Receiver;

use super::answer::Desk;
use super::control::{Action, Order, Ordered, Page, Part, Range, Standing, Target};
use super::guide::Guide;
use super::logs::Logs;
use super::maillog::{LogFormat, LogSink, MailLog};
use super::select::{AddressPattern, LastReply, Selection, Waiting};
use crate::base::counters::SharedCounters;
use crate::base::{
    Disposition, EnhancedCode, Envelope, Outcome, QueueId, Reply, ShardId, UnixMillis,
};
use crate::io::clock;
use crate::io::executor::{run_pinned, spawn};
use crate::io::memory::MemoryStore;
use crate::queue::{PendingRecipient, Queue, QueueOptions};
use crate::relay::Way;

/// Knows that mail for `x.org` goes to one site, and nothing else.
#[derive(Default)]
struct Map {
    hurried: RefCell<Vec<String>>,
}

impl Guide for Map {
    fn way(&self, address: &str) -> Way {
        let site = address.ends_with("@x.org").then(|| "mx1.x.org,mx2.x.org".to_owned());
        Way { site, by_mx: true }
    }

    fn standing(
        &self,
        address: &str,
        pending: &PendingRecipient,
        last: Option<&Outcome>,
    ) -> Standing {
        let said = last.map_or("nothing", |last| &last.reply.text);
        let why = format!("{address} has {} attempts, {said} was said", pending.attempts);
        Standing { site: self.way(address).site, why, ..Standing::default() }
    }

    fn hurry(&self, address: &str) {
        self.hurried.borrow_mut().push(address.to_owned());
    }
}

struct Rig {
    desk: Desk<MemoryStore>,
    map: Rc<Map>,
    stores: Vec<MemoryStore>,
    log: Receiver<Vec<u8>>,
}

fn options(log: ShardId) -> QueueOptions {
    QueueOptions { log, segment_size: 1 << 20, reserve: 0, ..QueueOptions::default() }
}

impl Rig {
    /// A shard that has the logs of these numbers open.
    async fn new(numbers: &[u16]) -> Self {
        let (batches, log) = async_channel::unbounded();
        let mut logs = Logs::new();
        let mut stores = Vec::new();
        for &number in numbers {
            let store = MemoryStore::new();
            let number = ShardId(number);
            let opened = Queue::open(store.clone(), options(number), clock::wall()).await;
            let (queue, _) = opened.unwrap();
            spawn(queue.clone().run_commits()).detach();
            logs.insert(number, queue);
            stores.push(store);
        }
        let counters = SharedCounters::default();
        let sink = LogSink { batches, format: LogFormat::Text, mail: true };
        let map = Rc::new(Map::default());
        let desk = Desk {
            logs: Rc::new(logs),
            guide: Rc::clone(&map) as Rc<dyn Guide>,
            maillog: Rc::new(MailLog::new(sink, counters.clone())),
            counters,
            authority: Arc::default(),
            hurried: RefCell::default(),
        };
        Rig { desk, map, stores, log }
    }

    fn queue(&self, log: u16) -> &Queue<MemoryStore> {
        &self.desk.logs[&ShardId(log)]
    }

    /// Queues a message in log `log`; the relay does not take it.
    async fn mail(&self, log: u16, sender: &str, recipients: &[&str], body: &[u8]) -> QueueId {
        let envelope = Envelope {
            sender: sender.into(),
            recipients: recipients.iter().map(|address| address.to_string()).collect(),
            arrival_ms: clock::wall().0,
            ..Envelope::default()
        };
        let queue = self.queue(log);
        let (id, commit) = queue.append(&envelope, |_, _| {}, &[body]).unwrap();
        commit.await.unwrap();
        let all: Vec<u16> = (0..recipients.len() as u16).collect();
        queue.put_back(id, &all, UnixMillis(clock::wall().0 + 3_600_000));
        id
    }

    async fn deferred(&self, id: QueueId, recipient: u16, text: &str) {
        let outcome = Outcome {
            recipient,
            disposition: Disposition::Deferred,
            reply: Reply::new(450, EnhancedCode(4, 2, 0), text),
            host: "192.0.2.1:25".into(),
            at: clock::wall(),
            attempts: 3,
            next_attempt: UnixMillis(clock::wall().0 + 60_000),
            security: None,
        };
        self.queue(id.log.0).record(id, &[outcome]).unwrap().await.unwrap();
    }

    async fn page(&self, selection: Selection, limit: usize, after: Option<QueueId>) -> Page {
        self.desk.page(&range(selection, limit, after)).await
    }

    /// Ids of all that is meant, asked for `limit` at a time.
    async fn ids(&self, selection: Selection, limit: usize) -> Vec<QueueId> {
        let (mut ids, mut after) = (Vec::new(), None);
        loop {
            let page = self.page(selection.clone(), limit, after).await;
            assert!(page.messages.len() <= limit);
            ids.extend(page.messages.iter().map(|listed| listed.id));
            match page.next {
                Some(next) => after = Some(next),
                None => return ids,
            }
        }
    }

    async fn order(&self, action: Action, target: Target) -> Ordered {
        let order = Order { action, by: "root (uid 0)".into(), dry_run: false };
        self.desk.ordered(&order, &target).await
    }

    async fn order_ids(&self, action: Action, ids: &[QueueId], selection: Selection) -> Ordered {
        self.order(action, Target::Named(ids.into(), Arc::new(selection))).await
    }

    fn logged(&self) -> String {
        self.desk.maillog.ship();
        let mut text = String::new();
        while let Ok(batch) = self.log.try_recv() {
            text.push_str(&String::from_utf8(batch).unwrap());
        }
        text
    }
}

fn range(selection: Selection, limit: usize, after: Option<QueueId>) -> Range {
    let until = UnixMillis(clock::wall().0 + 1000);
    Range { selection: Arc::new(selection), after, until, limit }
}

fn to(address: &str) -> Selection {
    let recipient = Some(AddressPattern::Address(address.into()));
    Selection { recipient, ..Selection::default() }
}

fn site(name: &str) -> Selection {
    Selection { site: Some(name.into()), ..Selection::default() }
}

fn waits(waiting: Waiting) -> Selection {
    Selection { waiting: Some(waiting), ..Selection::default() }
}

fn run<F: Future<Output = ()> + 'static>(test: impl FnOnce() -> F + Send + 'static) {
    run_pinned("desk", None, test).unwrap().join().unwrap();
}

fn addresses(ordered: &Ordered) -> Vec<Vec<String>> {
    ordered.messages.iter().map(|message| message.recipients.clone()).collect()
}

#[test]
fn pages_go_through_all_logs_and_end() {
    run(|| async {
        let rig = Rig::new(&[0, 2]).await;
        let mut ids = Vec::new();
        for number in 0..700 {
            let log = if number < 400 { 0 } else { 2 };
            ids.push(rig.mail(log, "s@x.org", &[&format!("r{number}@x.org")], b"a\r\n.\r\n").await);
        }
        for limit in [7, 256, 1000] {
            assert_eq!(rig.ids(Selection::default(), limit).await, ids, "{limit}");
        }
        assert_eq!(rig.ids(to("r555@x.org"), 10).await, [ids[555]]);
        // What was accepted later is not in the range.
        let mut early = range(Selection::default(), 10, None);
        early.until = UnixMillis(0);
        let page = rig.desk.page(&early).await;
        assert!(page.messages.is_empty() && page.next.is_none());
    });
}

#[test]
fn what_was_read_ahead_is_a_hint_only() {
    run(|| async {
        let rig = Rig::new(&[0]).await;
        let reader = rig.queue(0).reader_in_order();
        for number in 0..50 {
            // The last read went past the end of the log; this comes to lie there.
            let address = format!("r{number}@x.org");
            let id = rig.mail(0, "s@x.org", &[&address], b"a\r\n.\r\n").await;
            let envelope = rig.queue(0).envelope_by(&reader, id).await.unwrap();
            assert_eq!(envelope.recipients, [address]);
        }
    });
}

#[test]
fn one_request_looks_at_a_bounded_number_of_messages() {
    run(|| async {
        let rig = Rig::new(&[0]).await;
        for _ in 0..2100 {
            rig.mail(0, "s@x.org", &["r@x.org"], b".\r\n").await;
        }
        let page = rig.page(to("none@x.org"), 10, None).await;
        assert!(page.messages.is_empty());
        assert!(page.next.is_some(), "it has read enough for one request");
        let rest = rig.page(to("none@x.org"), 10, page.next).await;
        assert!(rest.messages.is_empty() && rest.next.is_none());
        // The index alone decides this one, and looks at many more.
        let page = rig.page(waits(Waiting::Held), 10, None).await;
        assert!(page.messages.is_empty() && page.next.is_none());
    });
}

#[test]
fn filters_are_decided_by_index_envelope_and_outcomes() {
    run(|| async {
        let rig = Rig::new(&[0]).await;
        let one = rig.mail(0, "a@x.org", &["r@x.org", "q@y.org"], b"a\r\n.\r\n").await;
        let two = rig
            .mail(0, "", &["r@x.org"], &[b"abcdefgh\r\n".repeat(90), b".\r\n".to_vec()].concat())
            .await;
        rig.deferred(one, 1, "Greylisted").await;
        let said =
            |text| Selection { last_reply: Some(LastReply::new(text)), ..Selection::default() };
        let null = Some(AddressPattern::Address(String::new()));
        let tried = Selection { attempts: 3..=3, ..Selection::default() };
        let both = Selection { recipient: to("r@x.org").recipient, ..tried.clone() };
        for (selection, expected) in [
            (Selection { sender: null, ..Selection::default() }, vec![two]),
            (to("q@y.org"), vec![one]),
            (to("R@X.org"), vec![one, two]),
            (Selection { larger_than: Some(800), ..Selection::default() }, vec![two]),
            (said("45"), vec![one]),
            (said("grey"), vec![one]),
            (said("busy"), vec![]),
            (tried, vec![one]),
            (both, vec![]),
            (site("mx"), vec![one, two]),
            (site("mx2.x.org"), vec![one, two]),
            (site("mx1.y.org"), vec![]),
        ] {
            assert_eq!(rig.ids(selection.clone(), 10).await, expected, "{selection:?}");
        }
        let page = rig.page(to("q@y.org"), 10, None).await;
        let listed = &page.messages[0].recipients;
        assert_eq!(listed.len(), 2, "the whole message is listed");
        assert_eq!((listed[0].attempts, listed[1].attempts), (0, 3));
        assert_eq!(listed[1].last.as_ref().unwrap().reply.text, "Greylisted");
    });
}

#[test]
fn orders_are_for_the_recipients_that_are_meant() {
    run(|| async {
        let rig = Rig::new(&[0]).await;
        let one = rig.mail(0, "a@x.org", &["r@x.org", "q@y.org"], b".\r\n").await;
        let two = rig.mail(0, "a@x.org", &["q@y.org"], b".\r\n").await;
        let held = rig.order(Action::Hold, Target::Matching(range(to("q@y.org"), 10, None))).await;
        assert_eq!(addresses(&held), [["q@y.org"], ["q@y.org"]]);
        let log = rig.logged();
        let lines: Vec<_> = log.lines().collect();
        assert_eq!(lines.len(), 2);
        let expected = format!("held id={one} by=\"root (uid 0)\" from=<a@x.org> to=<q@y.org>");
        assert!(lines[0].ends_with(&expected), "{}", lines[0]);
        assert_eq!(rig.ids(waits(Waiting::Held), 10).await, [one, two]);
        assert_eq!(rig.ids(waits(Waiting::Deferred), 10).await, [one]);

        // What is held already is passed over, but a named message is answered.
        let again = rig.order(Action::Hold, Target::Matching(range(to("q@y.org"), 10, None))).await;
        assert!(again.messages.is_empty());
        let named = rig.order_ids(Action::Hold, &[two, one], Selection::default()).await;
        assert_eq!(addresses(&named), [vec![], vec!["r@x.org".to_owned()]]);

        // Nothing held is due, whatever is tried.
        let retried = rig.order_ids(Action::Retry, &[one, two], Selection::default()).await;
        assert_eq!(addresses(&retried), [Vec::<String>::new(), Vec::new()]);
        assert_eq!(rig.queue(0).next_due(), None);
        let released = rig.order_ids(Action::Release, &[one], to("q@y.org")).await;
        assert_eq!(addresses(&released), [["q@y.org"]]);
        assert!(rig.queue(0).next_due().unwrap() <= clock::wall());
    });
}

#[test]
fn a_dry_run_changes_nothing_and_a_retry_makes_due() {
    run(|| async {
        let rig = Rig::new(&[0]).await;
        let one = rig.mail(0, "a@x.org", &["r@x.org"], b".\r\n").await;
        for action in [Action::Drop, Action::Hold, Action::Retry, Action::Release] {
            let order = Order { action, by: "me".into(), dry_run: true };
            let target = Target::Matching(range(Selection::default(), 10, None));
            let would = rig.desk.ordered(&order, &target).await;
            assert_eq!(would.messages.len(), usize::from(action != Action::Release));
        }
        assert_eq!(rig.logged(), "");
        assert!(rig.queue(0).next_due().unwrap() > clock::wall());
        assert_eq!(rig.ids(waits(Waiting::Deferred), 10).await, [one]);
        rig.order_ids(Action::Retry, &[one], Selection::default()).await;
        assert!(rig.queue(0).next_due().unwrap() <= clock::wall());
    });
}

#[test]
fn a_retry_hurries_each_site_once_however_many_pages_it_takes() {
    run(|| async {
        let rig = Rig::new(&[0]).await;
        for number in 0..7 {
            let to = format!("r{number}@x.org");
            rig.mail(0, "a@x.org", &[&to, "q@unknown.org"], b".\r\n").await;
        }
        let hurried = || rig.map.hurried.take();
        let all = |after| Target::Matching(range(Selection::default(), 2, after));
        let begun = all(None);
        let mut page = rig.order(Action::Retry, begun.clone()).await;
        while let Some(next) = page.next {
            let Target::Matching(mut range) = begun.clone() else { unreachable!() };
            range.after = Some(next);
            page = rig.order(Action::Retry, Target::Matching(range)).await;
        }
        assert_eq!(hurried(), ["r0@x.org"], "where mail for the other goes is not known");
        // Another order is another reason.
        rig.order(Action::Retry, all(None)).await;
        assert_eq!(hurried(), ["r0@x.org"]);
        for action in [Action::Hold, Action::Release, Action::Drop] {
            rig.order(action, all(None)).await;
        }
        let order = Order { action: Action::Retry, by: "me".into(), dry_run: true };
        rig.desk.ordered(&order, &all(None)).await;
        assert!(hurried().is_empty());
    });
}

#[test]
fn a_message_is_shown_with_where_its_recipients_stand() {
    run(|| async {
        let rig = Rig::new(&[0]).await;
        let id = rig.mail(0, "a@x.org", &["r@x.org", "q@y.org"], b".\r\n").await;
        rig.deferred(id, 1, "Greylisted").await;
        let shown = rig.desk.shown(id).await.unwrap();
        let why: Vec<_> = shown.standings.iter().map(|standing| &*standing.why).collect();
        let expected = [
            "r@x.org has 0 attempts, nothing was said",
            "q@y.org has 3 attempts, Greylisted was said",
        ];
        assert_eq!(why, expected);
        assert_eq!(shown.standings[0].site.as_deref(), Some("mx1.x.org,mx2.x.org"));
    });
}

#[test]
fn what_waits_for_its_site_is_deferred_and_can_be_asked_for() {
    run(|| async {
        let rig = Rig::new(&[0]).await;
        let queue = rig.queue(0);
        let envelope = Envelope { recipients: vec!["r@x.org".into()], ..Envelope::default() };
        let (id, commit) = queue.append(&envelope, |_, _| {}, &[b".\r\n"]).unwrap();
        commit.await.unwrap();
        queue.park(id, &[0], UnixMillis(u64::MAX));
        for (waiting, expected) in [
            (Waiting::Site, vec![id]),
            (Waiting::Deferred, vec![id]),
            (Waiting::Active, vec![]),
            (Waiting::Held, vec![]),
        ] {
            assert_eq!(rig.ids(waits(waiting), 10).await, expected, "{waiting:?}");
        }
        let page = rig.page(Selection::default(), 1, None).await;
        let recipient = &page.messages[0].recipients[0];
        assert!(recipient.waiting && !recipient.out);
        assert_eq!(recipient.next_attempt, None);
    });
}

#[test]
fn what_was_ordered_is_durable_when_it_is_answered() {
    run(|| async {
        let rig = Rig::new(&[0]).await;
        let one = rig.mail(0, "a@x.org", &["r@x.org", "q@y.org"], b".\r\n").await;
        let two = rig.mail(0, "a@x.org", &["r@x.org"], b".\r\n").await;
        rig.order_ids(Action::Drop, &[one], to("r@x.org")).await;
        rig.order_ids(Action::Drop, &[two], Selection::default()).await;
        rig.order_ids(Action::Hold, &[one], Selection::default()).await;
        assert_eq!(rig.desk.counters.borrow().recipients_dropped, 2);
        let image = rig.stores[0].crash_image(crate::io::memory::CrashPolicy::Lose);
        let (queue, _) = Queue::open(image, options(ShardId(0)), clock::wall()).await.unwrap();
        assert!(queue.message(two).is_none());
        let pending = queue.message(one).unwrap().recipients;
        assert_eq!(pending.len(), 1);
        assert!(pending[0].recipient == 1 && pending[0].held, "{pending:?}");
    });
}

#[test]
fn an_order_that_cannot_be_recorded_is_not_told_as_done() {
    run(|| async {
        let rig = Rig::new(&[0]).await;
        let one = rig.mail(0, "a@x.org", &["r@x.org"], b".\r\n").await;
        let _ = rig.logged();
        rig.stores[0].fail_at(rig.stores[0].operations().len());
        let dropped = rig.order_ids(Action::Drop, &[one], Selection::default()).await;
        assert!(dropped.messages.is_empty(), "{dropped:?}");
        assert!(dropped.trouble.is_some());
        assert_eq!(rig.logged(), "");
    });
}

#[test]
fn a_damaged_message_is_listed_and_can_be_dropped() {
    run(|| async {
        let rig = Rig::new(&[0]).await;
        let one = rig.mail(0, "a@x.org", &["r@x.org"], b".\r\n").await;
        let name = crate::queue::format::segment_name(one.place.segment);
        let mut bytes = rig.stores[0].contents(&name).unwrap();
        let middle = one.place.offset as usize + 40;
        bytes[middle] ^= 1;
        rig.stores[0].put(&name, bytes);
        let page = rig.page(Selection::default(), 10, None).await;
        assert!(page.messages[0].damaged.as_ref().unwrap().contains("damaged record"));
        // Nobody knows what it is to or from.
        assert!(rig.ids(to("r@x.org"), 10).await.is_empty());
        let dropped = rig.order_ids(Action::Drop, &[one], Selection::default()).await;
        assert_eq!(addresses(&dropped), [["#0"]]);
        assert!(dropped.messages[0].damaged.is_some());
        assert!(rig.queue(0).message(one).is_none());
    });
}

#[test]
fn a_message_is_shown_in_parts_without_its_stuffing() {
    run(|| async {
        let rig = Rig::new(&[0]).await;
        let text = b".a line that begins with a dot\r\n".repeat(3000);
        let mut wire = Vec::new();
        crate::mail::stuffing::stuff(&text, &mut wire);
        let parts: Vec<&[u8]> = wire.chunks(30_000).collect();
        let envelope = Envelope { recipients: vec!["r@x.org".into()], ..Envelope::default() };
        let queue = rig.queue(0).clone();
        let mut stream = queue.stream(&envelope, |_, _| {}).unwrap();
        for part in parts {
            stream.push(part).await.unwrap();
        }
        let id = stream.id();
        stream.finish().unwrap().await.unwrap();
        assert!(rig.desk.shown(id).await.is_some());
        let (sender, receiver) = async_channel::bounded(1);
        let desk = Desk {
            logs: Rc::clone(&rig.desk.logs),
            guide: Rc::clone(&rig.desk.guide),
            maillog: Rc::clone(&rig.desk.maillog),
            counters: rig.desk.counters.clone(),
            authority: Arc::clone(&rig.desk.authority),
            hurried: RefCell::default(),
        };
        let sending = spawn(async move { desk.send_parts(id, sender).await });
        let mut got = Vec::new();
        let is_whole = loop {
            match receiver.recv().await {
                Ok(Part::Bytes(bytes)) => got.extend_from_slice(&bytes),
                Ok(Part::End) => break true,
                _ => break false,
            }
        };
        sending.await;
        assert!(is_whole && got == text, "{} of {} bytes", got.len(), text.len());
        // A reader that goes away ends it.
        let (sender, receiver) = async_channel::bounded(1);
        drop(receiver);
        rig.desk.send_parts(id, sender).await;
    });
}
