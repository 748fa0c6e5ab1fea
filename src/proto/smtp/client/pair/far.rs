//! The server of a pair: our engine over an [`End`], with one user, that takes and
//! refuses messages as they were planned and keeps what it took.

use std::sync::{Arc, OnceLock};

use super::plan::Message;
use super::wire::{End, Version, serving};
use crate::base::scram::ScramKeys;
use crate::base::{EnhancedCode, Mechanisms, Place, QueueId, Reply, ShardId, UnixMillis};
use crate::proto::sasl::derive_keys;
use crate::proto::sasl::server::{Keys, Need};
use crate::proto::scan::{Scan, Scanner};
use crate::proto::smtp::server::{
    Authentication, BodyVerdict, Identified, Question, Server, Settings, Spec, Step, Transaction,
    Verdict,
};

/// The one who may authenticate, and the password.
pub(super) const USER: (&str, &str) = ("user", "pencil");

/// A server in memory.
pub(super) struct Far {
    pub(super) end: End,
    /// `None` only within a step.
    server: Option<Server>,
    version: Version,
    mechanisms: Mechanisms,
    plans: Vec<Message>,
    /// The message under way, which its sender tells, and how many recipients it has.
    at: usize,
    recipient: usize,
    /// The message that comes by DATA, as far as it came.
    scanned: Option<(Scanner, Vec<u8>)>,
    /// The message that comes in chunks, and what is left of the chunk.
    chunks: Option<(Transaction, Vec<u8>)>,
    chunk_left: Option<(usize, bool)>,
    /// What it took: number, what was asked, and the octets of the sender.
    pub(super) taken: Vec<(usize, Transaction, Vec<u8>)>,
    pub(super) is_closed: bool,
}

fn keys() -> ScramKeys {
    static KEYS: OnceLock<ScramKeys> = OnceLock::new();
    let rounds = 4096.try_into().unwrap();
    KEYS.get_or_init(|| derive_keys(USER.1, b"salt of a user", rounds)).clone()
}

fn no() -> Reply {
    Reply::new(550, EnhancedCode(5, 1, 1), "no")
}

impl Far {
    /// One that was just connected to; with `is_implicit`, its handshake comes first.
    pub(super) fn new(
        spec: Spec,
        version: Version,
        is_implicit: bool,
        mechanisms: Mechanisms,
        plans: &[Message],
    ) -> Far {
        let mut end = End::default();
        let mut greeting = Vec::new();
        let mut server = Server::new(Arc::new(Settings::new(spec)), &mut greeting);
        server.introduce(true, UnixMillis(1_700_000_000_000));
        if is_implicit {
            server = server.over_tls();
            end.begin_tls(serving(version));
        }
        end.out = greeting;
        end.send();
        Far {
            end,
            server: Some(server),
            version,
            mechanisms,
            plans: plans.to_vec(),
            at: 0,
            recipient: 0,
            scanned: None,
            chunks: None,
            chunk_left: None,
            taken: Vec::new(),
            is_closed: false,
        }
    }

    pub(super) fn server(&self) -> &Server {
        self.server.as_ref().expect("put back")
    }

    fn change(&mut self, act: impl FnOnce(Server, &mut Vec<u8>) -> Server) {
        let server = self.server.take().expect("put back");
        self.server = Some(act(server, &mut self.end.out));
    }

    /// Reads what there is to read.
    pub(super) fn run(&mut self) {
        if self.end.take_shaken() {
            let mechanisms = self.mechanisms;
            self.change(|server, _| {
                let mut server = if server.is_secured() { server } else { server.secured() };
                server.offer_mechanisms(mechanisms);
                server
            });
        }
        while !self.is_closed && !self.end.is_handshaking() && self.step() {}
        self.end.send();
    }

    /// False when more has to come first.
    fn step(&mut self) -> bool {
        if self.scanned.is_some() {
            return self.scan();
        }
        if self.chunk_left.is_some() {
            return self.take_chunk();
        }
        let server = self.server.take().expect("put back");
        let unread = std::mem::take(&mut self.end.unread);
        let (server, used, step) = server.step(&unread, &mut self.end.out);
        self.server = Some(server);
        self.chunks.take_if(|_| !self.server.as_ref().unwrap().is_amid_chunks());
        let goes_on = self.follow(step);
        self.end.unread = unread[used..].to_vec();
        if matches!(step, Step::StartTls) {
            self.end.drop_unseen();
            self.end.begin_tls(serving(self.version));
        }
        goes_on
    }

    fn follow(&mut self, step: Step<'_>) -> bool {
        match step {
            Step::NeedInput | Step::StartTls => return false,
            Step::Close => self.is_closed = true,
            Step::Flush => {}
            Step::Ask(question) => {
                let refuses = self.refuses(question);
                let verdict = if refuses { Verdict::Refuse(no()) } else { Verdict::Accept };
                self.change(|server, out| server.answer(verdict, out));
            }
            Step::Authenticate => self.authenticate(),
            Step::Body => self.scanned = Some((Scanner::new(), Vec::new())),
            Step::Chunk { octets, first, last } => {
                if first {
                    let server = self.server.as_mut().expect("put back");
                    self.chunks = Some((server.take_transaction(), Vec::new()));
                }
                self.chunk_left = Some((octets.try_into().unwrap(), last));
            }
        }
        true
    }

    fn refuses(&mut self, question: Question<'_>) -> bool {
        match question {
            Question::Mail { sender, .. } => {
                let local = sender.expect("not null").local();
                let digits: String = local.chars().filter(char::is_ascii_digit).collect();
                (self.at, self.recipient) = (digits.parse().unwrap(), 0);
                self.plans[self.at].sender_refused
            }
            Question::Recipient(_) => {
                self.recipient += 1;
                self.plans[self.at].refused[self.recipient - 1]
            }
            Question::Data => false,
            question => panic!("nobody asks {question:?}"),
        }
    }

    fn authenticate(&mut self) {
        let bindings = self.end.bindings();
        self.change(|server, out| {
            let Some(Authentication::Need(need)) = server.authentication() else {
                return server.answer(Verdict::Accept, out);
            };
            let user = Some(USER.0.to_owned());
            let answer = match need {
                Need::Password(asked) => Identified::Checked(user.filter(|_| asked == Some(USER))),
                Need::Certificate(named) => {
                    let is_user = matches!(named, Some(None | Some("user")));
                    Identified::Checked(user.filter(|_| is_user))
                }
                Need::Keys(name) => {
                    let user = user.filter(|user| name == Some(user));
                    let nonce = "nonce-of-the-server-alone";
                    Identified::Keys(Keys { keys: keys(), user, nonce, bindings: &bindings })
                }
            };
            server.identified(answer, out)
        });
    }

    /// Looks for the end of a message that comes by DATA.
    fn scan(&mut self) -> bool {
        let (scanner, body) = self.scanned.as_mut().expect("a message");
        let (len, is_done) = match scanner.scan(&self.end.unread) {
            Scan::More => (self.end.unread.len(), false),
            Scan::End { len } => (len, true),
        };
        body.extend(self.end.unread.drain(..len));
        if is_done {
            let (_, body) = self.scanned.take().expect("a message");
            let transaction = self.server.as_mut().expect("put back").take_transaction();
            self.conclude(transaction, unstuffed(&body));
        }
        is_done
    }

    /// Takes what there is of a chunk.
    fn take_chunk(&mut self) -> bool {
        let (left, is_last) = self.chunk_left.as_mut().expect("a chunk");
        let len = self.end.unread.len().min(*left);
        *left -= len;
        let (is_done, is_last) = (*left == 0, *is_last);
        let (_, content) = self.chunks.as_mut().expect("begun");
        content.extend(self.end.unread.drain(..len));
        if !is_done {
            return false;
        }
        self.chunk_left = None;
        if is_last {
            let (transaction, content) = self.chunks.take().expect("begun");
            self.conclude(transaction, content);
        } else if self.plans[self.at].body_refused && self.plans[self.at].is_refused_early {
            self.chunks = None;
            self.refuse_body();
        } else {
            self.change(|server, out| server.chunk_taken(out));
        }
        true
    }

    fn conclude(&mut self, transaction: Transaction, content: Vec<u8>) {
        if self.plans[self.at].body_refused {
            return self.refuse_body();
        }
        self.taken.push((self.at, transaction, content));
        let place = Place { segment: self.at as u32, offset: 0 };
        let verdict = BodyVerdict::Queued(QueueId { log: ShardId(0), place });
        self.change(|server, out| server.body_done(verdict, out));
    }

    fn refuse_body(&mut self) {
        let full = Reply::new(452, EnhancedCode(4, 3, 1), "full");
        self.change(|server, out| server.body_done(BodyVerdict::Refuse(full), out));
    }
}

/// What its sender meant by a message that came by DATA.
fn unstuffed(body: &[u8]) -> Vec<u8> {
    let content = body.strip_suffix(b".\r\n").expect("a terminator");
    let lines = content.split_inclusive(|&octet| octet == b'\n');
    lines.flat_map(|line| line.strip_prefix(b".").unwrap_or(line)).copied().collect()
}
