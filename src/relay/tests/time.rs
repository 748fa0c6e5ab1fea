//! Schedules over days, in moments: the clocks are moved to when something is
//! due. And clocks that somebody has set wrong.

use super::peer::{Stage, takes_all};
use super::*;
use crate::io::clock::moved;
use crate::policy::retry;

const TEXT: &str = "Subject: x\r\n\r\nhello\r\n";
const HOUR: Duration = Duration::from_secs(3600);
const YEAR_MS: i64 = 365 * 24 * 3_600_000;
/// By how much a real moment of a busy machine may make an attempt late.
const LATE: Duration = Duration::from_secs(30);

/// Mail for `example.com`, where senders are, goes to `home`, all other to
/// `site`.
pub(super) fn with_home(site: SocketAddr, home: SocketAddr) -> Config {
    let mut config = config(&[site]);
    let next_hop = NextHop::Hosts(vec![home.into()]);
    let route = Route::new("example.com".parse().unwrap(), next_hop);
    config.routes.insert(0, route);
    config
}

/// A next hop that puts everybody off.
pub(super) fn later() -> Sink {
    let mood = |stage, address: &str| match stage {
        Stage::Recipient => Some("450 4.2.0 later".to_owned()),
        _ => takes_all(stage, address),
    };
    Sink::with("127.0.0.1:0".parse().unwrap(), Rc::new(mood))
}

impl Rig {
    /// Waits until `is_so`.
    pub(super) async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let wait = async {
            while !is_so() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        within(Duration::from_secs(20), wait).await.unwrap_or_else(|| panic!("never: {what}"));
    }

    /// Waits until all that is to be done now is done: nothing is out or due,
    /// and what waits waits for a site that is left alone.
    pub(super) async fn is_done_for_now(&self) {
        let idle = || {
            let waits_for_nothing = |site: SiteState| {
                site.queued == 0 && (site.waiting == 0 || site.back_off_until.is_some())
            };
            let ids = self.queue.ids_after(None, usize::MAX);
            let messages = ids.into_iter().filter_map(|id| self.queue.message(id));
            let mut recipients = messages.flat_map(|message| message.recipients);
            let core = &self.relay.0;
            core.out.get() + core.resolving.get() + core.reports.get() == 0
                && !recipients.any(|recipient| recipient.out)
                && self.queue.next_due().is_none_or(|next| next > clock::wall())
                && self.relay.sites().into_iter().all(waits_for_nothing)
        };
        self.until("nothing is left to do now", idle).await;
    }

    /// Outcomes of a recipient so far.
    pub(super) fn told_of(&self, address: &str) -> Vec<Outcome> {
        let told = self.told.outcomes.borrow();
        told.iter()
            .filter(|(_, of, _)| of == address)
            .map(|(.., outcome)| outcome.clone())
            .collect()
    }
}

#[test]
fn what_is_put_off_again_and_again_follows_the_schedule_for_five_days() {
    run(|| async {
        let (site, home) = (later(), Sink::at("127.0.0.1:0".parse().unwrap()));
        let config = with_home(site.address, home.address);
        let queue = config.queue.clone();
        let rig = Rig::new(config).await;
        let began = clock::wall();
        rig.mail(&["a@x.org"], TEXT).await;
        let seen = || rig.told_of("a@x.org");
        rig.until("the first attempt", || seen().len() == 1).await;
        while rig.queue.live() > 0 {
            rig.is_done_for_now().await;
            if let Some(next) = rig.queue.next_due() {
                moved::pass(next.since(clock::wall()));
            }
        }
        rig.is_done_for_now().await;
        let outcomes = seen();
        for (count, pair) in outcomes.windows(2).enumerate() {
            let (before, after) = (&pair[0], &pair[1]);
            assert_eq!(before.disposition, Disposition::Deferred);
            assert_eq!(usize::from(before.attempts), count + 1);
            let late = after.at.since(before.next_attempt);
            assert!(after.at >= before.next_attempt && late < LATE, "{late:?}");
            let wait = before.next_attempt.since(before.at);
            let planned = queue.retry[count.min(queue.retry.len() - 1)];
            let is_last = before.next_attempt == began.plus(queue.expire);
            let is_near = (planned * 7 / 8..=planned * 9 / 8).contains(&wait);
            assert!(is_near || (is_last && wait < planned), "{count}: {wait:?}");
        }
        let last = outcomes.last().unwrap();
        assert_eq!(last.disposition, Disposition::Expired);
        let age = last.at.since(began);
        assert!(age >= queue.expire && age < queue.expire + LATE, "{age:?}");
        // Seven waits of eight hours together, and then every four hours.
        assert!((28..=42).contains(&outcomes.len()), "{}", outcomes.len());
        // A notice of the delay, and the end.
        assert_eq!(*home.taken.borrow(), ["sender@example.com", "sender@example.com"]);
        assert_eq!(rig.told.reports.borrow().len(), 2);
        assert!(site.taken.borrow().is_empty());
        rig.drain().await;
    });
}

#[test]
fn what_waits_for_a_site_that_stays_down_expires_with_reports() {
    run(|| async {
        const COUNT: usize = 20;
        let home = Sink::at("127.0.0.1:0".parse().unwrap());
        let config = with_home(nobody(), home.address);
        let expire = config.queue.expire;
        let rig = Rig::new(config).await;
        let began = clock::wall();
        let addresses: Vec<_> = (0..COUNT).map(|n| format!("r{n}@x.org")).collect();
        for address in &addresses {
            rig.mail(&[address], TEXT).await;
        }
        while rig.queue.live() > 0 {
            rig.is_done_for_now().await;
            assert!(clock::wall().since(began) < expire + 2 * HOUR, "{:?}", rig.relay.sites());
            moved::pass(HOUR);
        }
        rig.until("all handles are home", || rig.relay.out() == 0).await;
        for address in &addresses {
            let (last, before) = {
                let mut outcomes = rig.told_of(address);
                (outcomes.pop().unwrap(), outcomes)
            };
            assert_eq!(last.disposition, Disposition::Expired, "{address}");
            assert!(last.at >= began.plus(expire) && last.reply.text.contains("refused"));
            assert!(before.iter().all(|o| o.disposition == Disposition::Deferred));
        }
        assert_eq!(home.taken.borrow().len(), 2 * COUNT, "a notice and an end for each");
        // One message tries it for all: an attempt for each time that we looked,
        // and some for those that are due by their own schedule.
        let tried = rig.counters.borrow().outbound_connect_failures;
        assert!((100..=300).contains(&tried), "{tried}");
        rig.drain().await;
        assert_eq!(rig.queue.next_due(), None);
    });
}

#[test]
fn mail_that_waits_for_a_site_is_delivered_when_it_works_again() {
    run(|| async {
        let address = nobody();
        let home = Sink::at("127.0.0.1:0".parse().unwrap());
        let rig = Rig::new(with_home(address, home.address)).await;
        for n in 0..20 {
            rig.mail(&[&format!("r{n}@x.org")], TEXT).await;
        }
        for _ in 0..30 {
            rig.is_done_for_now().await;
            moved::pass(HOUR);
        }
        let peer = Sink::at(address);
        while rig.queue.live() > 0 {
            rig.is_done_for_now().await;
            moved::pass(HOUR);
        }
        assert_eq!(peer.taken.borrow().len(), 20);
        rig.drain().await;
    });
}

#[test]
fn a_clock_that_jumps_back_puts_nothing_off_and_one_that_jumps_forward_loses_nothing() {
    run(|| async {
        let (site, home) = (later(), Sink::at("127.0.0.1:0".parse().unwrap()));
        let config = with_home(site.address, home.address);
        let longest = retry::sane(UnixMillis(u64::MAX), UnixMillis(0), &config.queue);
        let rig = Rig::new(config).await;
        rig.mail(&["a@x.org"], TEXT).await;
        let seen = || rig.told_of("a@x.org").len();
        rig.until("the first attempt", || seen() == 1).await;
        moved::set_wall(-YEAR_MS);
        let due_soon = || {
            let next = rig.queue.next_due();
            next.is_some_and(|next| next <= UnixMillis(clock::wall().0 + longest.0))
        };
        rig.until("the schedule follows the clock", due_soon).await;
        moved::pass(Duration::from_millis(longest.0));
        rig.until("the second attempt", || seen() == 2).await;
        // What arrives now is older than anything after the jump forward.
        rig.mail(&["b@x.org", "c@example.com"], TEXT).await;
        rig.until("both are tried", || rig.told_of("b@x.org").len() == 1).await;
        moved::set_wall(YEAR_MS);
        rig.until("the old one expires", || rig.told_of("b@x.org").len() == 2).await;
        assert_eq!(rig.told_of("b@x.org")[1].disposition, Disposition::Expired);
        assert_eq!(rig.told_of("b@x.org")[1].attempts, 2, "it was tried once more");
        rig.until("the other is tried again", || seen() == 3).await;
        rig.is_done_for_now().await;
        let outcomes = rig.told_of("a@x.org");
        assert!(outcomes.iter().all(|o| o.disposition == Disposition::Deferred));
        assert_eq!(rig.queue.live(), 1, "it is as old as it was");
        rig.until("both know", || home.taken.borrow().len() >= 2).await;
        assert!(home.taken.borrow().contains(&"c@example.com".to_owned()));
        assert!(home.taken.borrow().contains(&"sender@example.com".to_owned()));
        rig.drain().await;
    });
}

#[test]
fn what_waits_for_a_site_goes_out_after_a_jump_of_the_clock() {
    for jump_ms in [-YEAR_MS, YEAR_MS] {
        run(move || async move {
            let address = nobody();
            let home = Sink::at("127.0.0.1:0".parse().unwrap());
            let rig = Rig::new(with_home(address, home.address)).await;
            for n in 0..20 {
                rig.mail(&[&format!("r{n}@x.org")], TEXT).await;
            }
            rig.is_done_for_now().await;
            let peer = Sink::at(address);
            moved::set_wall(jump_ms);
            rig.is_done_for_now().await;
            while rig.queue.live() > 0 {
                moved::pass(HOUR);
                rig.is_done_for_now().await;
            }
            // Forward, all are too old at once: then their senders know.
            let expired = rig.told.reports.borrow().len();
            let (delivered, told) = (peer.taken.borrow().len(), home.taken.borrow().len());
            assert_eq!((delivered + expired, told), (20, expired), "{jump_ms}");
            assert!(jump_ms > 0 || expired == 0);
            rig.drain().await;
        });
    }
}
