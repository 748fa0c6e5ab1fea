//! A queue behind a throttle: what waits costs nothing until its turn, and is
//! woken once.
//!
//! There are a million of them, or `RINGPOST_SCALE`. For the figures:
//! `cargo test --lib relay::tests::scale -- --nocapture`

use super::*;
use crate::config::{DomainPattern, Per, Rate, SiteTable};
use crate::io::clock::moved;

const TEXT: &str = "Subject: x\r\n\r\nhello\r\n";
/// A burst of messages, no more, is worth this.
const MOMENT: Duration = Duration::from_millis(100);
/// Messages appended together.
const BATCH: usize = 1000;

fn scale() -> usize {
    let given = std::env::var("RINGPOST_SCALE").ok();
    given.map_or(1_000_000, |text| text.parse().expect("RINGPOST_SCALE is a number"))
}

/// `slow.org` gets `rate` and `fast.org` all there is.
fn throttled(slow: SocketAddr, fast: SocketAddr, rate: Rate) -> Config {
    let mut config = config(&[slow]);
    let next_hop = NextHop::Hosts(vec![fast.into()]);
    let route = Route::new("fast.org".parse().unwrap(), next_hop);
    config.routes.insert(0, route);
    let domains: Vec<DomainPattern> = vec!["slow.org".parse().unwrap()];
    let table = SiteTable { domains, message_rate: Some(Some(rate)), ..SiteTable::default() };
    config.sites = vec![table];
    config
}

impl Rig {
    /// Accepts a message for each of these, in order.
    pub(super) async fn mail_all(&self, recipients: impl Iterator<Item = String>) {
        let body: &[u8] = TEXT.as_bytes();
        let (mut taken, mut last) = (Vec::with_capacity(BATCH), None);
        for recipient in recipients {
            let envelope = envelope(&[&recipient]);
            let parts: &[&[u8]] = &[body, b".\r\n"];
            let (id, commit) = self.queue.append(&envelope, |_, _| {}, parts).unwrap();
            taken.push((id, envelope));
            last = Some(commit);
        }
        last.unwrap().await.unwrap();
        let whole = [body, b".\r\n"].concat();
        for (id, envelope) in taken {
            let size = whole.len() as u64;
            self.relay.accepted(id, envelope, (b"", Some(&whole)), None, size);
        }
    }
}

#[test]
fn many_messages_behind_one_throttle_are_woken_once_each_when_their_turn_comes() {
    run(|| async {
        const DELIVERIES: usize = 4000;
        let (slow, fast) =
            (Sink::at("127.0.0.1:0".parse().unwrap()), Sink::at("127.0.0.1:0".parse().unwrap()));
        let rate = Rate { count: 200, per: Per::Second };
        let config = throttled(slow.address, fast.address, rate);
        let rig = Rig::open(config, MemoryStore::untracked()).await;
        let count = scale();
        for first in (0..count).step_by(BATCH) {
            let numbers = first..(first + BATCH).min(count);
            rig.mail_all(numbers.map(|n| format!("r{n}@slow.org"))).await;
        }
        let counters = || rig.counters.borrow().clone();
        let waiting = || rig.relay.sites().iter().map(|site| site.waiting).sum::<u64>() as usize;
        // What is out at first: five seconds' worth.
        let window = 1002 + rate.burst() as usize;
        assert!(waiting() >= count - window - 100, "{}", waiting());
        let mut fast_count = 0;
        while slow.taken.borrow().len() < DELIVERIES {
            // Mail for others goes at once: the clock of the throttle stands.
            rig.mail(&["a@fast.org"], TEXT).await;
            fast_count += 1;
            let others = async {
                while fast.taken.borrow().len() < fast_count {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            within(Duration::from_secs(20), others).await.expect("others do not wait");
            let before = slow.taken.borrow().len();
            moved::pass(MOMENT);
            let a_moment = async {
                while slow.taken.borrow().len() < before + 15 {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            within(Duration::from_secs(20), a_moment).await.expect("the rate is kept up");
        }
        let taken = slow.taken.borrow().clone();
        let in_order = (0..taken.len()).map(|n| format!("r{n}@slow.org"));
        assert!(taken.iter().cloned().eq(in_order), "the oldest first");
        let (seen, left) = (counters(), waiting());
        // Each that waited came in once, in its turn, and no other was touched.
        assert_eq!(seen.parked as usize - left, seen.wakeups as usize);
        assert!(seen.wakeups as usize <= taken.len() + window, "{} {}", seen.wakeups, taken.len());
        let each = seen.wakeups as f64 / (taken.len() - (count - seen.parked as usize)) as f64;
        println!(
            "{count} messages, {} delivered of {} that waited: {} woken, {each:.2} for each",
            taken.len(),
            seen.parked,
            seen.wakeups
        );
        assert!(each <= 2.0, "{each}");
        assert_eq!((seen.recipients_deferred, seen.recipients_expired), (0, 0));
        rig.drain().await;
        assert_eq!(rig.queue.live() + slow.taken.borrow().len(), count);
    });
}
