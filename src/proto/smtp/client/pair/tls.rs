//! Pairs over TLS: STARTTLS or TLS at once, of either version, each mechanism of
//! AUTH, and then messages of every kind, in pieces of any size. What the client is
//! told is what the server decided, and what the server was told, and took, is what
//! the client was given, as far as the server offers it.

use proptest::prelude::*;
use rustls::version::{TLS12, TLS13};

use super::super::End as Closing;
use super::far::{Far, USER};
use super::near::{Known, Login, Near, converse};
use super::plan::{Message, Standing, message, offers};
use super::wire::Version;
use crate::base::{Mechanism, Mechanisms, Terms};
use crate::proto::smtp::server::{Kind, Offers, Spec, Transaction};

/// A connection and the messages that go over it.
#[derive(Clone, Debug)]
struct Plan {
    is_lmtp: bool,
    version: Option<Version>,
    is_implicit: bool,
    offers: Offers,
    login: Option<Login>,
    messages: Vec<Message>,
}

fn right(mechanism: Option<Mechanism>) -> Login {
    Login { mechanism, password: USER.1, binding: None, told: None }
}

fn any_mechanisms() -> impl Strategy<Value = Mechanisms> {
    let each = Mechanism::ALL.map(Just).to_vec();
    prop::sample::subsequence(each, 1..=5)
        .prop_map(|some| some.into_iter().map(|Just(one)| one).collect::<Mechanisms>())
        .prop_filter("EXTERNAL needs a certificate", |some| {
            !some.without(Mechanism::External).is_empty()
        })
}

fn any_plan() -> impl Strategy<Value = Plan> {
    let version = prop_oneof![1 => Just(None), 4 => Just(Some(&TLS12)), 4 => Just(Some(&TLS13))];
    let form = (version, any::<bool>(), prop::bool::weighted(0.2), any::<bool>());
    let messages = prop::collection::vec(message(), 0..6);
    (form, offers(), any_mechanisms(), messages).prop_map(
        |((version, is_implicit, is_lmtp, logs_in), offers, auth, messages)| Plan {
            is_lmtp,
            version,
            is_implicit: is_implicit && version.is_some(),
            offers: Offers { auth, starttls: !is_implicit, ..offers },
            login: (logs_in && version.is_some()).then(|| right(None)),
            messages,
        },
    )
}

fn play(plan: &Plan, pieces: &[usize]) -> (Near, Far) {
    let Plan { is_lmtp, version, is_implicit, offers, login, messages } = plan.clone();
    let spec = Spec {
        hostname: super::wire::NAME.into(),
        kind: if is_lmtp { Kind::Lmtp } else { Kind::Relay },
        message_size: 1 << 20,
        recipients_max: 100,
        errors_max: 1000,
        offers,
        ..Spec::default()
    };
    let auth = plan.offers.auth;
    let mut far = Far::new(spec, version.unwrap_or(&TLS13), is_implicit, auth, &messages);
    let mut near = Near::new(is_lmtp, version, is_implicit, login, &messages);
    converse(&mut near, &mut far, pieces);
    assert_eq!(near.closed, Some(Closing::Quit));
    assert!(far.is_closed);
    assert_eq!(far.server().is_secured(), version.is_some());
    assert_eq!(near.client.is_secured(), version.is_some());
    (near, far)
}

/// What was told, with nothing said of who submitted the message where it was said
/// that this is not known: a client may say that of its own.
fn known(told: &Transaction) -> Transaction {
    let nobody = Terms { auth: Some(String::new()), ..Terms::default() };
    let terms = told.terms.clone().filter(|terms| **terms != nobody);
    Transaction { terms, ..told.clone() }
}

/// Both have the same account of each message, and it is the right one.
fn check(plan: &Plan, near: &Near, far: &Far) {
    let there = Standing {
        offers: &plan.offers,
        is_secured: plan.version.is_some(),
        offers_auth: plan.version.is_some(),
        is_authenticated: plan.login.is_some(),
    };
    let mut taken = far.taken.iter();
    for (number, message) in plan.messages.iter().enumerate() {
        let account = &near.accounts[number];
        if !message.is_fit(&there) {
            assert!(account.is_empty(), "{message:?}");
            continue;
        }
        let codes: Vec<u16> = (0..message.refused.len()).map(|at| message.code(at)).collect();
        assert_eq!(*account, codes, "{message:?}");
        if let Some(expected) = message.expected(number, &there) {
            let (at, told, content) = taken.next().expect("one more was taken");
            assert_eq!((*at, content), (number, &message.content));
            assert_eq!(known(told), known(&expected));
        }
    }
    assert_eq!(taken.next(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn the_client_knows_what_the_server_did_over_tls(
        plan in any_plan(),
        pieces in prop::collection::vec(1..400usize, 1..8),
    ) {
        let (near, far) = play(&plan, &pieces);
        let known = match &plan.login {
            None => Known::Nobody,
            // The best of those that are offered.
            Some(_) => Known::By(
                Mechanism::ALL
                    .into_iter()
                    .find(|one| plan.offers.auth.has(*one) && *one != Mechanism::External)
                    .unwrap(),
            ),
        };
        assert_eq!(near.known, known);
        assert_eq!(far.server().is_authenticated(), plan.login.is_some());
        check(&plan, &near, &far);
    }
}

fn with_login(version: Version, is_implicit: bool, auth: Mechanisms, login: Login) -> Plan {
    let offers = Offers { auth, starttls: !is_implicit, ..Offers::default() };
    let login = Some(login);
    let version = Some(version);
    Plan { is_lmtp: false, version, is_implicit, offers, login, messages: Vec::new() }
}

const WAYS: [(Version, bool); 4] =
    [(&TLS12, false), (&TLS12, true), (&TLS13, false), (&TLS13, true)];

#[test]
fn every_mechanism_lets_the_right_password_in_and_no_other() {
    for (version, is_implicit) in WAYS {
        for mechanism in Mechanism::ALL {
            let auth = Mechanism::ALL.into_iter().collect();
            let with = |login| play(&with_login(version, is_implicit, auth, login), &[1, 7, 1000]);
            let (near, far) = with(right(Some(mechanism)));
            assert_eq!(near.known, Known::By(mechanism));
            assert!(far.server().is_authenticated());
            if mechanism == Mechanism::External {
                continue;
            }
            let wrong = Login { password: "pencils", ..right(Some(mechanism)) };
            let (near, far) = with(wrong);
            assert_eq!(near.known, Known::Refused(535), "{mechanism}");
            assert!(!far.server().is_authenticated());
        }
    }
}

#[test]
fn who_stands_between_cannot_pass_a_bound_exchange_on() {
    for (version, is_implicit) in WAYS {
        let plus = Mechanisms::NONE.with(Mechanism::ScramSha256Plus);
        let plan = with_login(version, is_implicit, plus, right(None));
        let (own, _) = play(&plan, &[1000]);
        // The client's binding is that of its connection to the one between.
        let mut binding = own.end.bindings().remove(0);
        if version.version == TLS12.version {
            // One certificate is all that TLS 1.2 binds to: another one it is.
            binding.data[0] ^= 1;
        }
        let login = Login { binding: Some(binding), ..right(None) };
        let (near, far) = play(&Plan { login: Some(login), ..plan }, &[1000]);
        assert_eq!(near.known, Known::Refused(535));
        assert!(!far.server().is_authenticated());
    }
}

#[test]
fn a_client_that_was_not_told_of_plus_says_so_and_is_refused() {
    // Somebody has taken -PLUS out of the offer (RFC 5802, section 6).
    let auth = Mechanism::ALL.into_iter().collect::<Mechanisms>();
    let told = Some(auth.without(Mechanism::ScramSha256Plus));
    for (version, is_implicit) in WAYS {
        let login = Login { told, ..right(Some(Mechanism::ScramSha256)) };
        let (near, far) = play(&with_login(version, is_implicit, auth, login), &[1000]);
        assert_eq!(near.known, Known::Refused(535));
        assert!(!far.server().is_authenticated());
    }
}
