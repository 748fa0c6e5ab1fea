//! The SMTP server engine as a [`Transport`], without a socket. Recipients are
//! decided by the access policy; messages are scanned for their end, held
//! against the limits as `receive` does it, and forgotten but for their envelope.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ringpost::base::{
    EnhancedCode, Mechanism, Mechanisms, Place, QueueId, Reply, ShardId, UnixMillis,
};
use ringpost::config::Access;
use ringpost::mail::stuffing::Stuffer;
use ringpost::policy::access::{may_relay, refuses_to_submit};
use ringpost::policy::terms;
use ringpost::proto::sasl::server::{Keys, Need};
use ringpost::proto::sasl::{Binding, BindingKind, base64, derive_keys};
use ringpost::proto::scan::{Scan, Scanner};
use ringpost::proto::smtp::server::{
    Authentication, BodyVerdict, Identified, Kind, Offers, Question, Server, Settings, Spec, Step,
    Transaction, Verdict,
};

use super::dialog::{Accepted, HOSTNAME, Heard, Setup, Tls, Transport};

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
/// The user of the dialogs, and the password.
pub const USER: (&str, &str) = ("user", "pencil");
/// The salt of the user's keys, in base64, and how often the password is hashed.
pub const SALT: (&str, u32) = ("W22ZaJ0SNY7soEsUEjb6gQ==", 4096);
/// What the server adds to nonces of clients.
pub const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
/// What a session within TLS can be bound to, by `tls-exporter`.
pub const BINDING: [u8; 32] = [1; 32];
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A session with the engine.
pub struct Engine {
    /// `None` only within a call.
    server: Option<Server>,
    access: Access,
    /// The client, and whether it may claim to be another.
    client: IpAddr,
    claims: bool,
    /// Mail is submitted.
    submits: bool,
    /// What may be used within TLS, and whose certificate the client has.
    mechanisms: Mechanisms,
    certificate: String,
    message_size: u64,
    /// What was sent and not used.
    unread: Vec<u8>,
    body: Option<Body>,
    chunks: Option<Chunks>,
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

/// A message of which chunks came, or are coming.
struct Chunks {
    body: Body,
    stuffer: Stuffer,
    left: u64,
    last: bool,
}

impl Engine {
    /// A session that was greeted.
    pub fn new(setup: &Setup) -> Engine {
        let relay_from =
            if setup.trusted { vec!["127.0.0.0/8".parse().unwrap()] } else { Vec::new() };
        let domains = setup.relay_domains.iter();
        let relay_domains = domains.map(|text| text.parse().expect("a domain pattern")).collect();
        let settings = Settings::new(Spec {
            hostname: HOSTNAME.into(),
            message_size: setup.message_size,
            recipients_max: setup.recipients,
            errors_max: setup.errors,
            kind: match (setup.lmtp, setup.submission) {
                (true, _) => Kind::Lmtp,
                (_, true) => Kind::Submission,
                _ => Kind::Relay,
            },
            idle_commands_max: setup.idle_commands,
            strict: setup.strict,
            tls_required: setup.tls == Tls::Required,
            offers: offers(setup),
        });
        let mut out = Vec::new();
        let mut server = Server::new(Arc::new(settings), &mut out);
        server.introduce(setup.trusted, NOW);
        server.allow_proxying(setup.claims, setup.claims);
        if setup.tls == Tls::On {
            server = server.over_tls();
            server.offer_mechanisms(mechanisms(setup));
        }
        Engine {
            server: Some(server),
            access: Access { relay_from, relay_domains },
            client: CLIENT,
            claims: setup.claims,
            submits: setup.submission,
            mechanisms: mechanisms(setup),
            certificate: setup.certificate.clone(),
            message_size: setup.message_size,
            unread: Vec::new(),
            body: None,
            chunks: None,
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
            if self.chunks.as_ref().is_some_and(|chunks| chunks.left > 0 || chunks.last) {
                if !self.take_chunk(&mut out) {
                    break;
                }
                continue;
            }
            let server = self.server.take().expect("put back");
            let (mut server, used, step) = server.step(&self.unread, &mut out);
            self.chunks.take_if(|_| !server.is_amid_chunks());
            let mut wants_more = false;
            match step {
                Step::NeedInput => wants_more = true,
                Step::Flush => self.said.extend(out.drain(..)),
                Step::Ask(question) => {
                    let may = (server.is_authenticated(), self.claims, self.submits);
                    let verdict = decide(&self.access, &mut self.client, may, question);
                    server = server.answer(verdict, &mut out);
                }
                Step::Authenticate => server = authenticate(server, &self.certificate, &mut out),
                Step::Body => {
                    let protocol = server.protocol().keyword();
                    let transaction = server.take_transaction();
                    self.body = Some(Body { scanner: Scanner::new(), transaction, protocol });
                }
                Step::StartTls => {
                    // As after a handshake: what was sent in the clear is gone.
                    self.unread.clear();
                    let mut server = server.secured();
                    server.offer_mechanisms(self.mechanisms);
                    self.server = Some(server);
                    break;
                }
                Step::Chunk { octets, first, last } => {
                    if first {
                        let protocol = server.protocol().keyword();
                        let transaction = server.take_transaction();
                        let body = Body { scanner: Scanner::new(), transaction, protocol };
                        let stuffer = Stuffer::new();
                        self.chunks = Some(Chunks { body, stuffer, left: 0, last: false });
                    }
                    let chunks = self.chunks.as_mut().expect("begun");
                    (chunks.left, chunks.last) = (octets, last);
                    if octets == 0 && !last {
                        server = server.chunk_taken(&mut out);
                    }
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
        let body = self.body.take().expect("a message");
        self.conclude(body, false, out);
        true
    }

    /// Takes what there is of a chunk; false if its end did not come yet.
    fn take_chunk(&mut self, out: &mut Vec<u8>) -> bool {
        let Chunks { body, stuffer, left, last } = self.chunks.as_mut().expect("a chunk");
        let len = self.unread.len().min(usize::try_from(*left).unwrap());
        let mut wire = Vec::new();
        stuffer.push(&self.unread[..len], &mut wire);
        assert_eq!(body.scanner.scan(&wire), Scan::More);
        self.unread.drain(..len);
        *left -= len as u64;
        if *left > 0 {
            return false;
        }
        if !*last {
            let refusal = faulty(&body.scanner, &body.transaction);
            let server = self.server.take().expect("put back");
            self.server = Some(match refusal {
                None => server.chunk_taken(out),
                Some(refusal) => server.body_done(refusal, out),
            });
            return true;
        }
        let Chunks { mut body, stuffer, .. } = self.chunks.take().expect("a chunk");
        let mut end = Vec::new();
        if body.transaction.asks.binary {
            stuffer.finish_binary(&mut end);
        } else {
            stuffer.finish(&mut end);
        }
        assert_eq!(body.scanner.scan(&end), Scan::End { len: end.len() });
        self.conclude(body, true, out);
        true
    }

    /// Says what becomes of a message whose end has come. The server itself sees to
    /// the size of what comes in chunks.
    fn conclude(&mut self, body: Body, in_chunks: bool, out: &mut Vec<u8>) {
        let Body { scanner, transaction, protocol } = body;
        let size_max = self.message_size;
        let verdict = if !in_chunks && scanner.size() > size_max {
            let text = format!("message exceeds {size_max} bytes, the limit of this server");
            BodyVerdict::Refuse(Reply::new(552, EnhancedCode(5, 3, 4), text))
        } else if let Some(refusal) = faulty(&scanner, &transaction) {
            refusal
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
    }
}

fn offers(setup: &Setup) -> Offers {
    let offered = |keyword: &str| !setup.disable.iter().any(|disabled| disabled == keyword);
    let all = Offers::default();
    Offers {
        pipelining: offered("PIPELINING"),
        eight_bit: offered("8BITMIME"),
        smtputf8: offered("SMTPUTF8"),
        dsn: offered("DSN"),
        chunking: offered("CHUNKING"),
        binarymime: offered("BINARYMIME"),
        deliver_by: offered("DELIVERBY"),
        future_release: all.future_release.filter(|_| offered("FUTURERELEASE")),
        mt_priority: offered("MT-PRIORITY"),
        requiretls: offered("REQUIRETLS"),
        limits: offered("LIMITS"),
        starttls: matches!(setup.tls, Tls::Offered | Tls::Required),
        etrn: offered("ETRN"),
        vrfy: setup.tells,
        expn: setup.tells,
        auth: Mechanisms::parse(&setup.auth),
    }
}

/// What the dialogs' listener has clients use within TLS.
fn mechanisms(setup: &Setup) -> Mechanisms {
    let all = Mechanisms::parse(&setup.auth);
    if setup.certificate.is_empty() { all.without(Mechanism::External) } else { all }
}

/// What is said of bare CR and LF, where they matter.
fn faulty(scanner: &Scanner, transaction: &Transaction) -> Option<BodyVerdict> {
    let bare = scanner.bare_cr() || scanner.bare_lf();
    let what = if scanner.bare_lf() { "LF" } else { "CR" };
    let text = format!("bare {what} in message; lines end with CRLF (RFC 5321, 2.3.8)");
    let reply = Reply::new(550, EnhancedCode(5, 6, 0), text);
    (bare && !transaction.asks.binary).then_some(BodyVerdict::Refuse(reply))
}

/// Asks the one user of the dialogs, and always with the same nonce.
fn authenticate(server: Server, certificate: &str, out: &mut Vec<u8>) -> Server {
    let Some(Authentication::Need(need)) = server.authentication() else {
        return server.answer(Verdict::Accept, out);
    };
    let user = Some("user".to_owned());
    let answer = match need {
        Need::Password(asked) => Identified::Checked(user.filter(|_| asked == Some(USER))),
        Need::Certificate(named) => {
            let owner = Some(certificate).filter(|owner| *owner == USER.0);
            let is_meant = named.is_some_and(|named| named.is_none() || named == owner);
            Identified::Checked(user.filter(|_| owner.is_some() && is_meant))
        }
        Need::Keys(name) => {
            let salt = base64::decode(SALT.0.as_bytes()).expect("base64");
            let keys = derive_keys(USER.1, &salt, SALT.1.try_into().expect("not 0"));
            let user = user.filter(|user| name == Some(user));
            Identified::Keys(Keys { keys, user, nonce: NONCE, bindings: &bindings() })
        }
    };
    server.identified(answer, out)
}

fn bindings() -> Vec<Binding> {
    vec![Binding { kind: BindingKind::Exporter, data: BINDING.into() }]
}

fn decide(
    access: &Access,
    client: &mut IpAddr,
    (is_user, claims, submits): (bool, bool, bool),
    question: Question<'_>,
) -> Verdict {
    let not_permitted = |verb| {
        let text = format!("{verb} is not permitted from your address");
        Verdict::Refuse(Reply::new(550, EnhancedCode(5, 7, 0), text))
    };
    let refusal = match &question {
        Question::Mail { sender: Some(sender), .. } => refuses_to_submit(sender, true),
        Question::Recipient(recipient) => refuses_to_submit(recipient, false),
        _ => None,
    };
    if let Some(reply) = refusal.filter(|_| submits) {
        return Verdict::Refuse(reply);
    }
    match question {
        Question::Mail { asks, .. } => {
            let longest = Duration::from_secs(30 * 24 * 3600);
            terms::refusal(&asks, NOW, longest).map_or(Verdict::Accept, Verdict::Refuse)
        }
        Question::Data => Verdict::Accept,
        Question::Recipient(address) | Question::Verify(address) => {
            may_relay(access, *client, is_user, &address)
        }
        Question::Turn { .. } => Verdict::Accept,
        Question::Xclient(_) if !claims => not_permitted("XCLIENT"),
        Question::Xforward(_) if !claims => not_permitted("XFORWARD"),
        Question::Xclient(attributes) => {
            if let Some(address) = attributes.claims().address {
                *client = address.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
            }
            Verdict::Accept
        }
        Question::Xforward(_) => Verdict::Accept,
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
