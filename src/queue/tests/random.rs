//! Random histories with a crash at a random operation.

use proptest::prelude::*;

use super::model::{Driven, Step};
use super::*;
use crate::io::memory::CrashPolicy;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1usize..4, 0usize..6000)
            .prop_map(|(recipients, size)| Step::Append { recipients, size }),
        1 => (1usize..50_000, 1000usize..9000)
            .prop_map(|(size, part)| Step::Stream { size, part }),
        1 => (0usize..20_000).prop_map(|size| Step::Abandon { size }),
        6 => (0usize..8, 0usize..4, any::<bool>())
            .prop_map(|(message, recipient, last)| Step::Record { message, recipient, last }),
        2 => (0usize..8, 0usize..4, any::<bool>())
            .prop_map(|(message, recipient, hold)| Step::Hold { message, recipient, hold }),
        1 => (0usize..8, 0usize..4)
            .prop_map(|(message, recipient)| Step::Drop { message, recipient }),
        2 => (1usize..9).prop_map(|limit| Step::TakeDue { limit }),
        2 => Just(Step::PutBack),
        2 => Just(Step::Park),
        1 => Just(Step::Unpark),
        1 => (0usize..8, any::<bool>()).prop_map(|(message, begin)| Step::Read { message, begin }),
        1 => Just(Step::Reopen),
        4 => (0usize..15).prop_map(|rounds| Step::Turn { rounds }),
    ]
}

fn policy() -> impl Strategy<Value = CrashPolicy> {
    prop_oneof![
        Just(CrashPolicy::Lose),
        Just(CrashPolicy::Keep),
        any::<u64>().prop_map(|seed| CrashPolicy::Torn { seed }),
        any::<u64>().prop_map(|seed| CrashPolicy::Subset { seed }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").map_or(48, |cases| cases.parse().unwrap()),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_history_survives_any_crash(
        steps in prop::collection::vec(step(), 1..120),
        share in 0.0f64..1.0,
        policies in prop::collection::vec(policy(), 3),
    ) {
        let run = |stop: Option<usize>| {
            let store = MemoryStore::new();
            let (queue, _) = open(&store);
            let opened = store.operations().len();
            if let Some(stop) = stop {
                store.stop_at(stop);
            }
            let mut driven = Driven::new(queue);
            driven.run(&steps);
            (store, driven, opened)
        };
        let (store, driven, opened) = run(None);
        driven.check(&driven.queue, "no crash");
        let total = store.operations().len();
        let at = opened + ((total - opened) as f64 * share) as usize;
        let (store, driven, _) = run(Some(at));
        for policy in policies {
            driven.check_crash(&store, policy, &format!("operation {at} of {total}"));
        }
    }
}
