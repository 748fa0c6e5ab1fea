//! The client against our own server, over a wire that delivers in pieces of
//! any size: what the client is told is what the server decided, and what the
//! server took is what was sent.

mod far;
mod near;
mod plan;
mod tls;
mod wire;

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::base::{Place, QueueId, ShardId};
use crate::proto::scan::{Scan, Scanner};
use crate::proto::smtp::server::{
    BodyVerdict, Question, Server, Settings, Spec, Step, Verdict as Answer,
};

/// One message: which recipients the server refuses, and what it says of the
/// sender and of the body.
#[derive(Clone, Debug)]
struct Plan {
    refused: Vec<bool>,
    sender_refused: bool,
    body_refused: bool,
    body: Vec<u8>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let line = prop_oneof![Just(".."), Just("..x"), Just("text"), Just(""), Just("a.b")];
    let refused = prop::collection::vec(prop::bool::weighted(0.3), 1..5);
    let lines = prop::collection::vec(line, 0..6);
    (refused, prop::bool::weighted(0.1), prop::bool::weighted(0.2), lines).prop_map(
        |(refused, sender_refused, body_refused, lines)| {
            let mut body: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            body += ".\r\n";
            Plan { refused, sender_refused, body_refused, body: body.into_bytes() }
        },
    )
}

/// What became of each recipient, by the client's account.
type Account = Vec<u16>;

struct ServerSide {
    server: Option<Server>,
    plans: Vec<Plan>,
    /// The message under way, which its sender tells.
    at: usize,
    recipient: usize,
    body: Vec<u8>,
    scanner: Option<Scanner>,
    taken: Vec<(Vec<String>, Vec<u8>)>,
}

impl ServerSide {
    /// Reads what it can of `input`.
    fn run(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>) {
        let mut used = 0;
        loop {
            if let Some(scanner) = &mut self.scanner {
                let (len, done) = match scanner.scan(&input[used..]) {
                    Scan::More => (input.len() - used, false),
                    Scan::End { len } => (len, true),
                };
                self.body.extend_from_slice(&input[used..used + len]);
                used += len;
                if !done {
                    break;
                }
                self.scanner = None;
                self.body_done(out);
            }
            let server = self.server.take().unwrap();
            let (server, read, step) = server.step(&input[used..], out);
            used += read;
            let answer = match step {
                Step::StartTls => unreachable!("STARTTLS is not offered"),
                Step::NeedInput | Step::Close => {
                    self.server = Some(server);
                    break;
                }
                Step::Flush => None,
                Step::Chunk { .. } => panic!("the client sends none"),
                Step::Authenticate => panic!("nothing is offered"),
                Step::Body => {
                    self.scanner = Some(Scanner::new());
                    None
                }
                Step::Ask(question) => Some(match question {
                    Question::Mail { sender, .. } => {
                        self.recipient = 0;
                        self.at = sender.expect("not null").local()[1..].parse().unwrap();
                        self.plans[self.at].sender_refused
                    }
                    Question::Recipient { .. } => {
                        self.recipient += 1;
                        self.plans[self.at].refused[self.recipient - 1]
                    }
                    Question::Data => false,
                    Question::Xclient(_) | Question::Xforward(_) => true,
                    Question::Verify(_) | Question::Turn { .. } => panic!("never asked"),
                }),
            };
            let no = || Reply::new(550, crate::base::EnhancedCode(5, 1, 1), "no");
            self.server = Some(match answer {
                None => server,
                Some(true) => server.answer(Answer::Refuse(no()), out),
                Some(false) => server.answer(Answer::Accept, out),
            });
        }
        input.drain(..used);
    }

    fn body_done(&mut self, out: &mut Vec<u8>) {
        let mut server = self.server.take().unwrap();
        let transaction = server.take_transaction();
        let body = std::mem::take(&mut self.body);
        let refused = self.plans[self.at].body_refused;
        let verdict = if refused {
            let reply = Reply::new(452, crate::base::EnhancedCode(4, 3, 1), "full");
            BodyVerdict::Refuse(reply)
        } else {
            self.taken.push((transaction.recipients, body));
            let place = Place { segment: self.at as u32, offset: 0 };
            BodyVerdict::Queued(QueueId { log: ShardId(0), place })
        };
        self.server = Some(server.body_done(verdict, out));
    }
}

/// The client's side: begins what it may, as early as it may.
struct ClientSide {
    client: Client,
    plans: Vec<Plan>,
    begun: usize,
    /// Accounts of the transactions begun, the finished ones first.
    accounts: Vec<Account>,
    finished: usize,
}

impl ClientSide {
    fn begin(&mut self, out: &mut Vec<u8>) {
        if !self.client.may_begin() || self.begun == self.plans.len() {
            return;
        }
        let count = self.plans[self.begun].refused.len();
        let addresses: Vec<_> = (0..count).map(|n| address(self.begun, n)).collect();
        let sender = format!("s{}@example.com", self.begun);
        let transaction = Transaction { sender: &sender, size: 9, ..Transaction::default() };
        self.client.begin(&transaction, addresses.iter().map(|a| &**a), out).unwrap();
        self.begun += 1;
        self.accounts.push(vec![0; count]);
    }

    fn run(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>) {
        let mut used = 0;
        loop {
            let (read, event) = self.client.step(&input[used..], out);
            used += read;
            match event {
                Event::NeedInput => break,
                Event::Ready => self.begin(out),
                Event::Refused { recipient } => {
                    self.accounts[self.finished][recipient] = self.client.code();
                }
                Event::SendBody => {
                    out.extend_from_slice(&self.plans[self.finished].body);
                    self.client.body_sent();
                    self.begin(out);
                }
                Event::Finished => {
                    let code = self.client.code();
                    for entry in &mut self.accounts[self.finished] {
                        *entry = if *entry == 0 { code } else { *entry };
                    }
                    self.finished += 1;
                    self.begin(out);
                }
                event => panic!("the connection went wrong: {event:?}"),
            }
        }
        input.drain(..used);
    }
}

fn address(message: usize, recipient: usize) -> String {
    format!("r{recipient}@m{message}.example.org")
}

/// Moves at most `most` bytes along the wire.
fn deliver(from: &mut Vec<u8>, to: &mut Vec<u8>, most: usize) {
    let len = from.len().min(most);
    to.extend(from.drain(..len));
}

fn converse(plans: &[Plan], pieces: &[usize]) {
    let settings = Arc::new(Settings::new(Spec {
        hostname: "server.test".into(),
        message_size: 1 << 20,
        recipients_max: 100,
        errors_max: 1000,
        ..Spec::default()
    }));
    let mut to_client = Vec::new();
    let mut server = ServerSide {
        server: Some(Server::new(settings, &mut to_client)),
        plans: plans.to_vec(),
        at: 0,
        recipient: 0,
        body: Vec::new(),
        scanner: None,
        taken: Vec::new(),
    };
    let client = Client::new("client.test");
    let mut client =
        ClientSide { client, plans: plans.to_vec(), begun: 0, accounts: Vec::new(), finished: 0 };
    let (mut to_server, mut at_client, mut at_server) = (Vec::new(), Vec::new(), Vec::new());
    let mut pieces = pieces.iter().copied().cycle();
    while !to_client.is_empty() || !to_server.is_empty() {
        deliver(&mut to_client, &mut at_client, pieces.next().unwrap());
        client.run(&mut at_client, &mut to_server);
        deliver(&mut to_server, &mut at_server, pieces.next().unwrap());
        server.run(&mut at_server, &mut to_client);
    }
    assert_eq!((client.finished, client.client.phase()), (plans.len(), Phase::Idle));
    let mut taken = server.taken.into_iter();
    for (message, (plan, account)) in plans.iter().zip(&client.accounts).enumerate() {
        let mut accepted = Vec::new();
        for (n, (refused, code)) in plan.refused.iter().zip(account).enumerate() {
            let expected = match (plan.sender_refused || *refused, plan.body_refused) {
                (true, _) => 550,
                (false, true) => 452,
                (false, false) => 250,
            };
            assert_eq!(*code, expected, "recipient {n} of {plan:?}");
            if expected == 250 {
                accepted.push(address(message, n));
            }
        }
        if !accepted.is_empty() {
            assert_eq!(taken.next(), Some((accepted, plan.body.clone())));
        }
    }
    assert_eq!(taken.next(), None);
}

proptest! {
    #[test]
    fn the_client_knows_what_the_server_did(
        plans in prop::collection::vec(plan(), 1..6),
        pieces in prop::collection::vec(1..200usize, 1..8),
    ) {
        converse(&plans, &pieces);
    }
}
