//! Both sides of every mechanism against each other, the examples of the RFCs,
//! and what attackers do to an exchange.

use std::num::NonZeroU32;

use proptest::prelude::*;

use super::client::{self, BadServer, Credentials, Reply, choose};
use super::server::{Exchange, Failure, Keys, Need, Progress};
use super::{Binding, BindingKind, base64, derive_keys};
use crate::base::scram::ITERATIONS_MIN;
use crate::base::{Mechanism, Mechanisms};

const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const ITERATIONS: NonZeroU32 = NonZeroU32::new(ITERATIONS_MIN).unwrap();

fn exporter() -> Binding {
    Binding { kind: BindingKind::Exporter, data: [1; 32].into() }
}

/// A server with one user.
struct Users {
    user: &'static str,
    password: &'static str,
    bindings: Vec<Binding>,
}

impl Users {
    fn new(bindings: Vec<Binding>) -> Users {
        Users { user: "user", password: "pencil", bindings }
    }

    /// One response, and what the users say to it.
    fn answer(&self, exchange: Exchange, response: Option<&[u8]>) -> (Exchange, Progress) {
        let (exchange, progress) = exchange.respond(response);
        if progress != Progress::Ask {
            return (exchange, progress);
        }
        let known = |name: &str| (name == self.user).then(|| name.to_owned());
        match exchange.need().expect("it asks") {
            Need::Password(asked) => {
                let right = asked.filter(|asked| *asked == (self.user, self.password));
                let user = right.map(|(name, _)| name.to_owned());
                exchange.checked(user)
            }
            Need::Certificate(named) => {
                let fits = named.is_some_and(|named| named.is_none_or(|name| name == self.user));
                exchange.checked(fits.then(|| self.user.to_owned()))
            }
            Need::Keys(name) => {
                let user = name.and_then(known);
                let salt = base64::decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
                let keys = derive_keys(self.password, &salt, ITERATIONS);
                let bindings = &self.bindings;
                exchange.keys(Keys { keys, user, nonce: NONCE, bindings })
            }
        }
    }

    /// The responses of a client one after the other; how it ends.
    fn hear(&self, mechanism: Mechanism, responses: &[&str]) -> Progress {
        let mut last = Progress::Challenge(Vec::new());
        let mut exchange = Exchange::new(mechanism, Mechanism::ALL.into_iter().collect());
        for response in responses {
            assert!(matches!(last, Progress::Challenge(_)), "{last:?} before {response:?}");
            (exchange, last) = self.answer(exchange, Some(response.as_bytes()));
        }
        last
    }
}

/// Plays a client against a server; the name that the server ends with.
fn pair(
    users: &Users,
    mechanism: Mechanism,
    offered: Mechanisms,
    credentials: &Credentials,
    bindings: &[Binding],
) -> Result<String, Failure> {
    let nonce = "rOprNGfwEbeRWgbNEkqO";
    let (mut client, command) =
        client::Exchange::begin(mechanism, offered, credentials, nonce, bindings);
    assert!(command.len() <= 510, "{command}");
    let mut words = command.split(' ').skip(2);
    let mut response = words.next().map(|word| base64::decode_initial(word.as_bytes()).unwrap());
    let mut server = Exchange::new(mechanism, Mechanism::ALL.into_iter().collect());
    loop {
        let progress;
        (server, progress) = users.answer(server, response.as_deref());
        response = match progress {
            Progress::Challenge(challenge) => {
                let line = match client.challenged(&base64::encode(&challenge)).unwrap() {
                    Reply::Line(line) => line,
                    Reply::Derive(work) => client.derived(&work.run()),
                };
                Some(base64::decode(line.as_bytes()).unwrap())
            }
            Progress::Done(name) => {
                client.succeeded().expect("the server has proved itself");
                return Ok(name);
            }
            Progress::Failed(failure) => return Err(failure),
            Progress::Ask => unreachable!("it was answered"),
        };
    }
}

#[test]
fn every_mechanism_leads_to_the_user_and_a_wrong_password_to_nobody() {
    let all: Mechanisms = Mechanism::ALL.into_iter().collect();
    let right = Credentials::new("User", "pencil").unwrap();
    let wrong = Credentials::new("user", "pencils").unwrap();
    let unknown = Credentials::new("nobody", "pencil").unwrap();
    for binding in [BindingKind::Exporter, BindingKind::EndPoint] {
        let bindings = [Binding { kind: binding, data: [3; 32].into() }];
        let users = Users::new(bindings.to_vec());
        for mechanism in Mechanism::ALL {
            let run = |credentials| pair(&users, mechanism, all, credentials, &bindings);
            assert_eq!(run(&right).as_deref(), Ok("user"), "{mechanism}");
            if mechanism != Mechanism::External {
                assert_eq!(run(&wrong), Err(Failure::Denied), "{mechanism}");
                assert_eq!(run(&unknown), Err(Failure::Denied), "{mechanism}");
            }
        }
    }
}

#[test]
fn a_response_too_long_for_a_command_goes_by_itself() {
    let all: Mechanisms = Mechanism::ALL.into_iter().collect();
    let long = Credentials::new(&"u".repeat(500), "pencil").unwrap();
    let users = Users::new(Vec::new());
    for mechanism in [Mechanism::Plain, Mechanism::ScramSha256] {
        let (_, command) = client::Exchange::begin(mechanism, all, &long, "abc", &[]);
        assert_eq!(command, format!("AUTH {mechanism}"));
        assert_eq!(pair(&users, mechanism, all, &long, &[]), Err(Failure::Denied));
    }
}

/// The example of RFC 7677, section 3.
#[test]
fn the_example_of_the_standard() {
    let credentials = Credentials::new("user", "pencil").unwrap();
    let offered = Mechanisms::NONE.with(Mechanism::ScramSha256);
    let nonce = "rOprNGfwEbeRWgbNEkqO";
    let (mut client, command) =
        client::Exchange::begin(Mechanism::ScramSha256, offered, &credentials, nonce, &[]);
    let first = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    assert_eq!(command, format!("AUTH SCRAM-SHA-256 {}", base64::encode(first.as_bytes())));
    let challenge = format!("r={nonce}{NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
    let Ok(Reply::Derive(work)) = client.challenged(&base64::encode(challenge.as_bytes())) else {
        panic!("no work");
    };
    let last = format!("c=biws,r={nonce}{NONCE},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
    assert_eq!(client.derived(&work.run()), base64::encode(last.as_bytes()));
    assert_eq!(client.succeeded(), Err(BadServer::Proof), "the server has proved nothing yet");
    let proof = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
    let users = Users::new(Vec::new());
    let said = users.hear(Mechanism::ScramSha256, &[first, &last]);
    assert_eq!(said, Progress::Challenge(proof.into()));
    let reply = client.challenged(&base64::encode(proof.as_bytes()));
    assert!(matches!(reply, Ok(Reply::Line(line)) if line.is_empty()));
    assert_eq!(client.succeeded(), Ok(()));
    let done = users.hear(Mechanism::ScramSha256, &[first, &last, ""]);
    assert_eq!(done, Progress::Done("user".into()));
}

#[test]
fn nothing_is_chosen_in_the_clear() {
    let all: Mechanisms = Mechanism::ALL.into_iter().collect();
    assert_eq!(choose(all, false, false), None);
    assert_eq!(choose(all, true, true), Some(Mechanism::ScramSha256Plus));
    assert_eq!(choose(all, true, false), Some(Mechanism::ScramSha256));
    assert_eq!(choose(Mechanisms::parse("PLAIN LOGIN"), true, true), Some(Mechanism::Plain));
    assert_eq!(choose(Mechanisms::parse("LOGIN EXTERNAL"), true, true), Some(Mechanism::Login));
    assert_eq!(choose(Mechanisms::parse("GSSAPI"), true, true), None);
}

#[test]
fn whoever_takes_the_binding_out_of_the_offer_is_noticed() {
    let credentials = Credentials::new("user", "pencil").unwrap();
    let users = Users::new(vec![exporter()]);
    let stripped = Mechanisms::parse("SCRAM-SHA-256");
    let run = |bindings: &[Binding]| {
        pair(&users, Mechanism::ScramSha256, stripped, &credentials, bindings)
    };
    assert_eq!(run(&[exporter()]), Err(Failure::Binding), "the client says y");
    assert_eq!(run(&[]).as_deref(), Ok("user"), "a client that cannot bind says n");
}

#[test]
fn an_exchange_is_bound_to_its_connection() {
    let all: Mechanisms = Mechanism::ALL.into_iter().collect();
    let credentials = Credentials::new("user", "pencil").unwrap();
    let other = Binding { data: [2; 32].into(), ..exporter() };
    let end_point = Binding { kind: BindingKind::EndPoint, data: [1; 32].into() };
    for (ours, theirs) in
        [(vec![exporter()], other), (vec![exporter()], end_point), (Vec::new(), exporter())]
    {
        let users = Users::new(ours);
        let run = pair(&users, Mechanism::ScramSha256Plus, all, &credentials, &[theirs]);
        assert_eq!(run, Err(Failure::Binding));
    }
    let users = Users::new(vec![exporter()]);
    for first in ["n,,n=user,r=abc", "y,,n=user,r=abc"] {
        let said = users.hear(Mechanism::ScramSha256Plus, &[first]);
        assert_eq!(said, Progress::Failed(Failure::Malformed), "-PLUS needs p: {first}");
    }
    let said = users.hear(Mechanism::ScramSha256Plus, &["p=tls-unique,,n=user,r=abc"]);
    assert_eq!(said, Progress::Failed(Failure::Binding));
    let said = users.hear(Mechanism::ScramSha256, &["p=tls-exporter,,n=user,r=abc"]);
    assert_eq!(said, Progress::Failed(Failure::Malformed), "without -PLUS there is no p");
}

#[test]
fn a_proof_is_good_for_one_exchange() {
    let users = Users::new(Vec::new());
    let first = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    let last = format!(
        "c=biws,r=rOprNGfwEbeRWgbNEkqO{NONCE},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    );
    let hear = |first: &str, last: &str| users.hear(Mechanism::ScramSha256, &[first, last]);
    // Replayed to another nonce of ours, which is what a new exchange has.
    let stale = last.replace(NONCE, "another");
    for (first, last, why) in [
        (first, &*stale, "the nonce of another exchange"),
        (first, &last.replace(NONCE, ""), "the client's nonce alone"),
        ("n,,n=user,r=other", &*last, "a first message with another nonce"),
        ("n,,n=User,r=rOprNGfwEbeRWgbNEkqO", &*last, "another spelling of the name"),
        ("n,,n=nobody,r=rOprNGfwEbeRWgbNEkqO", &*last, "a name that nobody has"),
        (first, &last.replace("p=d", "p=e"), "a proof with one bit changed"),
    ] {
        assert_eq!(hear(first, last), Progress::Failed(Failure::Denied), "{why}");
    }
    for (first, last, why) in [
        (first, &*last.replace("biws", "eSws"), "another header than in the first message"),
        ("n,a=user,n=user,r=rOprNGfwEbeRWgbNEkqO", &last, "a header that was taken out"),
    ] {
        assert_eq!(hear(first, last), Progress::Failed(Failure::Binding), "{why}");
    }
}

#[test]
fn malformed_messages_fail_without_a_question() {
    let users = Users::new(vec![exporter()]);
    for (mechanism, response) in [
        (Mechanism::Plain, ""),
        (Mechanism::Plain, "user"),
        (Mechanism::Plain, "\0user"),
        (Mechanism::Plain, "\0\0pencil"),
        (Mechanism::Plain, "\0user\0"),
        (Mechanism::Plain, "\0user\0pencil\0"),
        (Mechanism::Plain, "\0user\0pen\0cil"),
        (Mechanism::ScramSha256, ""),
        (Mechanism::ScramSha256, "n,n=user,r=abc"),
        (Mechanism::ScramSha256, "x,,n=user,r=abc"),
        (Mechanism::ScramSha256, "n,,m=must,n=user,r=abc"),
        (Mechanism::ScramSha256, "n,,n=user"),
        (Mechanism::ScramSha256, "n,,r=abc,n=user"),
        (Mechanism::ScramSha256, "n,,n=user,r="),
        (Mechanism::ScramSha256, "n,,n=us=er,r=abc"),
        (Mechanism::ScramSha256, "n,user,n=user,r=abc"),
    ] {
        let failed = Progress::Failed(Failure::Malformed);
        assert_eq!(users.hear(mechanism, &[response]), failed, "{mechanism} {response:?}");
    }
    for last in ["", "c=biws", "c=biws,r=x", "r=x,c=biws,p=AAAA", "c=biws,r=x,p=AAAA", "c=biws,p="]
    {
        let said = users.hear(Mechanism::ScramSha256, &["n,,n=user,r=abc", last]);
        assert_eq!(said, Progress::Failed(Failure::Malformed), "{last:?}");
    }
}

#[test]
fn names_that_nobody_can_have_and_names_of_others_are_denied() {
    let users = Users::new(Vec::new());
    for (mechanism, responses) in [
        (Mechanism::Plain, vec!["other\0user\0pencil"]),
        (Mechanism::Plain, vec!["\0us\r\ner\0pencil"]),
        (Mechanism::Plain, vec!["\0user\u{85}\0pencil"]),
        (Mechanism::Login, vec!["us\0er", "pencil"]),
        (Mechanism::Login, vec!["user\r\nMAIL FROM:<>", "pencil"]),
        (Mechanism::Login, vec!["user", "pen\0cil"]),
        (Mechanism::Login, vec!["", ""]),
        (Mechanism::External, vec!["other"]),
        (Mechanism::External, vec!["us\ner"]),
    ] {
        let denied = Progress::Failed(Failure::Denied);
        assert_eq!(users.hear(mechanism, &responses), denied, "{mechanism} {responses:?}");
    }
    // An unknown name goes as far as a known one: it gets a challenge as well.
    for name in ["other", "us\r\ner", "us\0er"] {
        let said = users.hear(Mechanism::ScramSha256, &[&format!("n,,n={name},r=abc")]);
        assert!(matches!(said, Progress::Challenge(_)), "{name:?}: {said:?}");
    }
    let said = users.hear(Mechanism::Plain, &["user\0user\0pencil"]);
    assert_eq!(said, Progress::Done("user".into()), "acting for oneself");
}

#[test]
fn a_server_that_lies_is_left() {
    let offered = Mechanisms::parse("SCRAM-SHA-256 PLAIN LOGIN");
    let credentials = Credentials::new("user", "pencil").unwrap();
    let begin =
        |mechanism| client::Exchange::begin(mechanism, offered, &credentials, "abcdef", &[]).0;
    for (challenge, why) in [
        ("r=abcdef,s=QSXCR+Q6sek8bf92,i=4096", BadServer::Nonce),
        ("r=xabcdef1,s=QSXCR+Q6sek8bf92,i=4096", BadServer::Nonce),
        ("r=abcdef1,s=QSXCR+Q6sek8bf92,i=1", BadServer::Iterations),
        ("r=abcdef1,s=QSXCR+Q6sek8bf92,i=4294967295", BadServer::Iterations),
        ("r=abcdef1,s=QSXCR+Q6sek8bf92,i=0", BadServer::Malformed),
        ("r=abcdef1,s=,i=4096", BadServer::Malformed),
        ("r=abcdef1,s=QSXCR+Q6sek8bf92", BadServer::Malformed),
        ("m=x,r=abcdef1,s=QSXCR+Q6sek8bf92,i=4096", BadServer::Malformed),
        ("", BadServer::Malformed),
    ] {
        let mut client = begin(Mechanism::ScramSha256);
        let said = client.challenged(&base64::encode(challenge.as_bytes()));
        assert_eq!(said.unwrap_err(), why, "{challenge:?}");
        assert_eq!(client.succeeded(), Err(BadServer::TooSoon));
        assert_eq!(client.challenged("").unwrap_err(), BadServer::TooMuch);
    }
    let mut client = begin(Mechanism::ScramSha256);
    assert_eq!(client.succeeded(), Err(BadServer::TooSoon), "235 at once");
    assert_eq!(client.challenged("no base64").unwrap_err(), BadServer::Base64);
    let mut client = begin(Mechanism::Plain);
    assert_eq!(client.succeeded(), Ok(()));
    assert_eq!(client.challenged("").unwrap_err(), BadServer::TooMuch);
    let mut client = begin(Mechanism::Login);
    for line in ["dXNlcg==", "cGVuY2ls"] {
        assert_eq!(client.succeeded(), Err(BadServer::TooSoon));
        let Ok(Reply::Line(said)) = client.challenged("What now?") else { panic!("no line") };
        assert_eq!(said, line);
    }
    assert_eq!(client.challenged("").unwrap_err(), BadServer::TooMuch);
}

#[test]
fn secrets_are_not_in_debug_output() {
    let credentials = Credentials::new("user", "pencil").unwrap();
    let all: Mechanisms = Mechanism::ALL.into_iter().collect();
    let (client, _) = client::Exchange::begin(Mechanism::Login, all, &credentials, "abc", &[]);
    let (server, _) = Exchange::new(Mechanism::Plain, all).respond(Some(b"\0user\0pencil"));
    let shown = format!("{credentials:?} {client:?} {server:?}");
    assert!(!shown.contains("pencil"), "{shown}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a client says, nobody is authenticated by it, and nothing panics.
    #[test]
    fn noise_authenticates_nobody(
        which in 0..5usize,
        responses in proptest::collection::vec("[nypa=,.rc\\x00\\r\\nuserpncil]{0,30}", 1..5),
    ) {
        let users = Users::new(vec![exporter()]);
        let mechanism = Mechanism::ALL[which];
        prop_assume!(mechanism != Mechanism::External);
        let mut exchange = Exchange::new(mechanism, Mechanism::ALL.into_iter().collect());
        for response in &responses {
            let progress;
            (exchange, progress) = users.answer(exchange, Some(response.as_bytes()));
            match progress {
                Progress::Challenge(_) => {}
                Progress::Done(_) => {
                    let right = ["\0user\0pencil", "user\0user\0pencil"].contains(&&**response)
                        || responses[..2] == ["user", "pencil"];
                    prop_assert!(right, "{responses:?}");
                    break;
                }
                _ => break,
            }
        }
    }
}
