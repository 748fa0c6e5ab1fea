//! Next hops that do anything at random, and operators that hold, release, drop
//! and retry meanwhile: every handle comes home, nothing is lost, and when the
//! sites work again all is delivered without anybody's help.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::peer::{Mood, Stage, takes_all};
use super::*;
use crate::base::terms::Terms;
use crate::config::{DomainPattern, Per, Rate, SiteTable};
use crate::io::clock::moved;
use crate::queue::Action;

const TEXT: &str = "Subject: x\r\n\r\nhello\r\n";
const HOUR: Duration = Duration::from_secs(3600);
/// `s0.org` and so on, each with a next hop of its own. The last next hop is the second
/// one of the first.
const SITES: u8 = 3;
const ACTIONS: [Action; 4] = [Action::Hold, Action::Release, Action::Retry, Action::Drop];

/// What happens.
#[derive(Clone, Debug)]
enum Step {
    /// A message for a recipient at each of these sites, with a sender who gets
    /// reports or none; it may require TLS, which there is nowhere.
    Mail {
        sites: Vec<u8>,
        reports: bool,
        requires_tls: bool,
        in_memory: bool,
    },
    /// An operator acts on one of the recipients there are.
    Order {
        action: usize,
        which: usize,
    },
    Hurry(u8),
    Pass {
        seconds: u64,
    },
    /// From now on a site misbehaves in so many of a hundred answers.
    Mood {
        site: u8,
        trouble: u64,
    },
    /// All that can be done now is done.
    Settle,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let sites = prop::collection::vec(0..SITES, 1..4);
    let step = prop_oneof![
        6 => (sites, any::<bool>(), prop::bool::weighted(0.3), any::<bool>()).prop_map(
            |(sites, reports, requires_tls, in_memory)| Step::Mail {
                sites, reports, requires_tls, in_memory
            }
        ),
        3 => (0..ACTIONS.len(), any::<usize>())
            .prop_map(|(action, which)| Step::Order { action, which }),
        1 => (0..SITES).prop_map(Step::Hurry),
        3 => (1..1800_u64).prop_map(|seconds| Step::Pass { seconds }),
        1 => (0..SITES, 0..100_u64).prop_map(|(site, trouble)| Step::Mood { site, trouble }),
        1 => Just(Step::Settle),
    ];
    prop::collection::vec(step, 1..80)
}

/// A next hop that misbehaves in `trouble` of a hundred answers.
struct Moody {
    sink: Sink,
    trouble: Rc<Cell<u64>>,
}

impl Moody {
    fn new(seed: u64) -> Self {
        let trouble = Rc::new(Cell::new(30));
        let (level, random) = (Rc::clone(&trouble), Cell::new(seed | 1));
        let mood: Mood = Rc::new(move |stage, argument: &str| {
            let mut word = random.get();
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            random.set(word);
            if word % 100 >= level.get() {
                return takes_all(stage, argument);
            }
            match ((word >> 32) % 5, stage) {
                (0, _) => None,
                (1, _) => Some("421 4.3.2 closing".to_owned()),
                // What fails for good says so where it matters.
                (2, Stage::Recipient | Stage::End) => Some("550 5.1.1 no".to_owned()),
                _ => Some("450 4.3.0 not now".to_owned()),
            }
        });
        Moody { sink: Sink::with("127.0.0.1:0".parse().unwrap(), mood), trouble }
    }
}

fn config_for(hosts: &[Moody]) -> Config {
    let mut config = config(&[]);
    let (second, hosts) = hosts.split_last().expect("there is one more than sites");
    let routes = hosts.iter().enumerate().map(|(site, host)| {
        // Of two with a second host one is down.
        let mut addresses = vec![host.sink.address.into()];
        addresses.extend((site == 0).then(|| second.sink.address.into()));
        addresses.extend((site == 1).then(|| nobody().into()));
        Route::new(format!("s{site}.org").parse().unwrap(), NextHop::Hosts(addresses))
    });
    config.routes = routes.collect();
    config.delivery.connections_per_site = 3;
    config.delivery.messages_per_connection = 4;
    let domains: Vec<DomainPattern> = vec!["s2.org".parse().unwrap()];
    let rate = Rate { count: 1000, per: Per::Second };
    let table = SiteTable { domains, message_rate: Some(Some(rate)), ..SiteTable::default() };
    config.sites = vec![table];
    config
}

/// Every recipient there was, and those that an operator dropped.
#[derive(Default)]
struct Book {
    recipients: Vec<(QueueId, u16, String)>,
    dropped: BTreeSet<(QueueId, u16)>,
}

impl Book {
    async fn act(&mut self, rig: &Rig, hosts: &[Moody], step: Step) {
        match step {
            Step::Mail { sites, reports, requires_tls, in_memory } => {
                let number = self.recipients.len();
                let numbered = sites.iter().enumerate();
                let addresses: Vec<_> =
                    numbered.map(|(n, site)| format!("r{number}-{n}@s{site}.org")).collect();
                let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
                let sender = if reports { format!("sender{number}@s0.org") } else { String::new() };
                // Where a host is down it would wait for that.
                let require_tls = requires_tls && !sites.contains(&1);
                let terms = Some(Box::new(Terms { require_tls, ..Terms::default() }));
                let envelope = Envelope { sender, terms, ..envelope(&addresses) };
                let id = rig.envelope(envelope, TEXT, in_memory).await;
                let all = addresses.iter().zip(0..);
                self.recipients.extend(all.map(|(address, n)| (id, n, (*address).to_owned())));
            }
            Step::Order { action, which } if !self.recipients.is_empty() => {
                let (id, recipient, _) = self.recipients[which % self.recipients.len()];
                let action = ACTIONS[action];
                let now = clock::wall();
                let carried = rig.queue.order(id, action, &[recipient], "root (uid 0)", now);
                let Ok(carried) = carried else { return };
                if action == Action::Drop {
                    self.dropped.extend(carried.recipients.iter().map(|n| (id, *n)));
                }
            }
            Step::Order { .. } => {}
            Step::Hurry(site) => rig.relay.hurry(&format!("x@s{site}.org")),
            Step::Pass { seconds } => moved::pass(Duration::from_secs(seconds)),
            Step::Mood { site, trouble } => hosts[usize::from(site)].trouble.set(trouble),
            Step::Settle => rig.is_done_for_now().await,
        }
    }

    /// All recipients have ended, each once, as `told`; those that are delivered
    /// were taken by their next hop.
    fn check(&self, told: &[(QueueId, String, Outcome)], hosts: &[Moody]) {
        let mut ends: BTreeMap<(QueueId, u16), Vec<Disposition>> = BTreeMap::new();
        for (id, _, outcome) in told {
            if outcome.disposition != Disposition::Deferred {
                ends.entry((*id, outcome.recipient)).or_default().push(outcome.disposition);
            }
        }
        let taken: Vec<String> =
            hosts.iter().flat_map(|host| host.sink.taken.borrow().clone()).collect();
        for (id, recipient, address) in &self.recipients {
            let key = (*id, *recipient);
            let ended = ends.get(&key).map(Vec::as_slice).unwrap_or_default();
            let taken = taken.iter().filter(|of| *of == address).count();
            if self.dropped.contains(&key) {
                // What was under way may have been delivered even so.
                assert!(ended.len() <= 1 && taken <= 1, "{address}: {ended:?}");
                continue;
            }
            assert_eq!(ended.len(), 1, "{address}: {ended:?}");
            assert!(matches!(ended[0], Disposition::Delivered | Disposition::Failed));
            let delivered = ended[0] == Disposition::Delivered;
            assert_eq!(taken, usize::from(delivered), "{address}: {ended:?}");
        }
    }
}

/// What operators held is released, and all sites work: everything ends, with
/// no more help than that time passes.
async fn all_ends(rig: &Rig, hosts: &[Moody]) {
    hosts.iter().for_each(|host| host.trouble.set(0));
    for id in rig.queue.ids_after(None, usize::MAX) {
        let all: Vec<u16> = (0..8).collect();
        let _ = rig.queue.order(id, Action::Release, &all, "root (uid 0)", clock::wall());
    }
    for _ in 0..24 {
        rig.is_done_for_now().await;
        if rig.queue.live() == 0 {
            return;
        }
        moved::pass(HOUR);
    }
    let left = rig.queue.ids_after(None, 3).into_iter().map(|id| rig.queue.message(id));
    panic!("left: {:?}; {:?}", left.collect::<Vec<_>>(), rig.relay.sites());
}

async fn play(steps: Vec<Step>, seed: u64, restart: bool) {
    let hosts: Vec<_> =
        (0..=u64::from(SITES)).map(|n| Moody::new(seed.wrapping_add(n << 40))).collect();
    let mut rig = Rig::new(config_for(&hosts)).await;
    let mut book = Book::default();
    for step in steps {
        book.act(&rig, &hosts, step).await;
    }
    let mut told = Vec::new();
    if restart {
        rig.drain().await;
        for id in rig.queue.ids_after(None, usize::MAX) {
            let recipients = rig.queue.message(id).unwrap().recipients;
            assert!(recipients.iter().all(|r| !r.out), "{id}: {recipients:?}");
        }
        let Rig { queue, store, commits, told: before, .. } = rig;
        queue.close();
        commits.await;
        told.append(&mut before.outcomes.borrow_mut());
        rig = Rig::open(config_for(&hosts), store).await;
    }
    all_ends(&rig, &hosts).await;
    rig.drain().await;
    told.append(&mut rig.told.outcomes.borrow_mut());
    book.check(&told, &hosts);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24, failure_persistence: None, max_shrink_iters: 40, ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_is_lost_or_stuck_whatever_peers_and_operators_do(
        steps in steps(),
        seed in any::<u64>(),
        restart in any::<bool>(),
    ) {
        run(move || play(steps, seed, restart));
    }
}
