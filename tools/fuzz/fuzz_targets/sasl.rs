//! SASL exchanges on anything that a client or a server may send: nothing panics,
//! nobody is authenticated but by the password, and names that users are asked
//! for have one form and no control characters. And the users file: what is read
//! is written as it was read.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringpost::base::users::UsersFile;
use ringpost::base::{Mechanism, Mechanisms};
use ringpost::proto::sasl::client::{self, Credentials};
use ringpost::proto::sasl::server::{Exchange, Keys, Need, Progress};
use ringpost::proto::sasl::{Binding, BindingKind, derive_keys, prepared_name};

const PASSWORD: &str = "pencil";

/// Plays a client that says `lines` to a server with the one user `user`.
fn serve(mechanism: Mechanism, offered: Mechanisms, lines: &[&[u8]]) {
    let bindings = [Binding { kind: BindingKind::EndPoint, data: [1; 32].into() }];
    let mut exchange = Exchange::new(mechanism, offered);
    for line in lines {
        let mut progress;
        (exchange, progress) = exchange.respond(Some(line));
        if progress == Progress::Ask {
            if let Some(name) = exchange.name() {
                assert_eq!(prepared_name(name).as_deref(), Some(name));
                assert!(!name.chars().any(char::is_control));
            }
            (exchange, progress) = match exchange.need().expect("it asks") {
                Need::Password(asked) => {
                    let right = asked == Some(("user", PASSWORD));
                    exchange.checked(right.then(|| "user".into()))
                }
                Need::Certificate(_) => exchange.checked(None),
                Need::Keys(name) => {
                    let user = (name == Some("user")).then(|| "user".to_owned());
                    let keys = derive_keys(PASSWORD, b"salt", 4096.try_into().expect("not 0"));
                    exchange.keys(Keys { keys, user, nonce: "nonce", bindings: &bindings })
                }
            };
        }
        match progress {
            Progress::Challenge(challenge) => assert!(challenge.len() < 1000),
            Progress::Done(user) => {
                assert!(user == "user" && mechanism.shows_password());
                assert!(lines.iter().any(|line| line.ends_with(PASSWORD.as_bytes())));
                return;
            }
            Progress::Failed(_) => return,
            Progress::Ask => unreachable!("it was answered"),
        }
    }
}

/// Plays a server that says `lines` to a client.
fn ask(mechanism: Mechanism, offered: Mechanisms, lines: &[&[u8]]) {
    let credentials = Credentials::new("user", PASSWORD).expect("a name and a password");
    let (mut exchange, command) =
        client::Exchange::begin(mechanism, offered, &credentials, "nonce", &[]);
    assert!(command.len() <= 510);
    for line in lines {
        match exchange.challenged(&String::from_utf8_lossy(line)) {
            Ok(client::Reply::Line(line)) => assert!(!line.contains(['\r', '\n', '\0'])),
            // Nobody guesses the proof that follows.
            Ok(client::Reply::Derive(_)) => return,
            Err(_) => {
                assert!(exchange.succeeded().is_err());
                return;
            }
        }
    }
}

fuzz_target!(|input: (u8, u8, Vec<u8>)| {
    let (which, offered, data) = input;
    let mechanism = Mechanism::ALL[usize::from(which) % Mechanism::ALL.len()];
    let in_set = |index: &usize| offered >> index & 1 == 1;
    let offered = (0..5).filter(in_set).map(|index| Mechanism::ALL[index]).collect();
    let lines: Vec<&[u8]> = data.split(|&byte| byte == b'\n').collect();
    serve(mechanism, offered, &lines);
    ask(mechanism, offered, &lines);

    let text = String::from_utf8_lossy(&data);
    let head = format!("ringpost-users 1 decoy={}=\n", "A".repeat(43));
    for text in [&*text, &*(head + &text)] {
        if let Ok(file) = UsersFile::parse(text) {
            let again = UsersFile::parse(&file.to_string()).expect("it was written by us");
            assert_eq!(again, file);
        }
    }
});
