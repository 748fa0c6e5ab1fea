//! The SMTP server engine as a [`Transport`], without a socket. Recipients are
//! decided by the access policy; messages are scanned for their end, held
//! against the limits as `receive` does it, and forgotten but for their envelope.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ringpost::base::{EnhancedCode, Place, QueueId, Reply, ShardId};
use ringpost::config::Access;
use ringpost::policy::access::may_relay;
use ringpost::proto::scan::{Scan, Scanner};
use ringpost::proto::smtp::server::{
    BodyVerdict, Question, Server, Settings, Step, Transaction, Verdict,
};

use super::dialog::{Accepted, HOSTNAME, Heard, Setup, Transport};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A session with the engine.
pub struct Engine {
    /// `None` only within a call.
    server: Option<Server>,
    access: Access,
    message_size: u64,
    /// What was sent and not used.
    unread: Vec<u8>,
    body: Option<Body>,
    said: VecDeque<u8>,
    taken: VecDeque<Accepted>,
    messages: u32,
    closed: bool,
}

/// A message whose end was not found yet.
struct Body {
    scanner: Scanner,
    transaction: Transaction,
    protocol: &'static str,
}

impl Engine {
    /// A session that was greeted.
    pub fn new(setup: &Setup) -> Engine {
        let relay_from =
            if setup.trusted { vec!["127.0.0.0/8".parse().unwrap()] } else { Vec::new() };
        let domains = setup.relay_domains.iter();
        let relay_domains = domains.map(|text| text.parse().expect("a domain pattern")).collect();
        let settings = Settings::new(HOSTNAME, setup.message_size, setup.recipients, setup.errors);
        let mut out = Vec::new();
        let server = Server::new(Arc::new(settings), &mut out);
        Engine {
            server: Some(server),
            access: Access { relay_from, relay_domains },
            message_size: setup.message_size,
            unread: Vec::new(),
            body: None,
            said: out.into(),
            taken: VecDeque::new(),
            messages: 0,
            closed: false,
        }
    }

    fn run(&mut self) {
        let mut out = Vec::new();
        while !self.closed {
            if self.body.is_some() {
                if !self.scan(&mut out) {
                    break;
                }
                continue;
            }
            let server = self.server.take().expect("put back");
            let (mut server, used, step) = server.step(&self.unread, &mut out);
            let mut wants_more = false;
            match step {
                Step::NeedInput => wants_more = true,
                Step::Flush => self.said.extend(out.drain(..)),
                Step::Ask(question) => {
                    server = server.answer(verdict(&self.access, question), &mut out);
                }
                Step::Body => {
                    let protocol = server.protocol().keyword();
                    let transaction = server.take_transaction();
                    self.body = Some(Body { scanner: Scanner::new(), transaction, protocol });
                }
                Step::Close => self.closed = true,
            }
            self.server = Some(server);
            self.unread.drain(..used);
            if wants_more {
                break;
            }
        }
        self.said.extend(out);
    }

    /// Looks for the end of the message; false if it did not come yet.
    fn scan(&mut self, out: &mut Vec<u8>) -> bool {
        let body = self.body.as_mut().expect("a message");
        let used = match body.scanner.scan(&self.unread) {
            Scan::More => {
                self.unread.clear();
                return false;
            }
            Scan::End { len } => len,
        };
        self.unread.drain(..used);
        let Body { scanner, transaction, protocol } = self.body.take().expect("a message");
        let verdict = if scanner.size() > self.message_size {
            BodyVerdict::Refuse(Reply::new(552, EnhancedCode(5, 3, 4), "Message too large"))
        } else if scanner.bare_cr() || scanner.bare_lf() {
            BodyVerdict::Refuse(Reply::new(550, EnhancedCode(5, 6, 0), "Bare CR or LF"))
        } else {
            self.taken.push_back(Accepted {
                protocol: protocol.into(),
                sender: transaction.sender,
                recipients: transaction.recipients,
                size: scanner.size() as usize,
            });
            self.messages += 1;
            let place = Place { segment: self.messages, offset: 4096 };
            BodyVerdict::Queued(QueueId { log: ShardId(0), place })
        };
        let server = self.server.take().expect("put back");
        self.server = Some(server.body_done(verdict, out));
        true
    }
}

fn verdict(access: &Access, question: Question<'_>) -> Verdict {
    match question {
        Question::Mail { .. } | Question::Data => Verdict::Accept,
        Question::Recipient(address) => may_relay(access, CLIENT, &address),
    }
}

impl Transport for Engine {
    fn send(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        self.run();
    }

    fn hear(&mut self) -> Heard {
        match self.said.iter().position(|&byte| byte == b'\n') {
            Some(at) => {
                let line: Vec<u8> = self.said.drain(..=at).collect();
                let text = String::from_utf8(line).expect("replies are ASCII");
                assert!(text.is_ascii() && text.len() <= 512, "no reply line: {text:?}");
                Heard::Line(text.strip_suffix("\r\n").expect("replies end in CRLF").into())
            }
            None if self.closed => Heard::Closed,
            None => Heard::Silence,
        }
    }

    fn accepted(&mut self) -> Option<Accepted> {
        self.taken.pop_front()
    }

    fn sees_messages(&self) -> bool {
        true
    }

    fn hang_up(self) -> String {
        let said: Vec<u8> = self.said.into();
        let taken = self.taken.iter().map(|message| format!("took {message}"));
        String::from_utf8(said).expect("replies are ASCII") + &taken.collect::<String>()
    }
}
