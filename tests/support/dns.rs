//! An authoritative DNS server on loopback, made of blocking sockets and threads,
//! that answers as it is told: records, failures, silence, and everything that a
//! broken or hostile server can do. UDP and TCP share one port.
//!
//! What is asked is looked up in a table by name and type first
//! ([`DnsServer::set`]), then given to the closure of [`DnsServer::with`]: with
//! one, a million domains need no table. What neither knows does not exist.
//! `CNAME`s lead on to what the server has itself, unless [`Answer::alone`].
//!
//! For tests within the library (`#[path]`), those in `tests` and the benches.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NS, SOA};
use hickory_proto::rr::{Name, RData, Record};

pub use hickory_proto::rr::RecordType;

/// What UDP carries for a client that did not say more (RFC 1035, 4.2.1).
const UDP_PLAIN_MAX: usize = 512;
/// Answers with a wrong id to one question.
const GUESSES: usize = 20;
/// Links of a chain of `CNAME`s that one answer may hold.
const CHAIN_MAX: usize = 40;

/// What was asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// Lower case, without the final dot.
    pub name: String,
    pub kind: RecordType,
    pub over_tcp: bool,
    pub has_edns: bool,
    /// How often this name and type were asked for before.
    pub before: u64,
}

/// What a server does with a question.
#[derive(Clone, Debug)]
pub struct Answer {
    code: ResponseCode,
    records: Vec<RData>,
    ttl: u32,
    /// TTL and minimum of the SOA record of an answer without records.
    soa: Option<(u32, u32)>,
    how: How,
    delay: Option<Duration>,
    truncated: bool,
    alone: bool,
    referral: bool,
}

/// How an answer is spoilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Well,
    Silence,
    Garbage,
    WrongId,
    WrongQuestion,
    WrongSource,
    LowerCase,
    /// Lower case over UDP alone, as a forger would have it.
    LowerCaseByUdp,
    /// Over UDP with many wrong ids.
    Guesses,
    /// Over TCP the connection is closed in the middle of the answer.
    Half,
    /// With the question left out.
    NoQuestion,
}

impl Answer {
    fn new(code: ResponseCode, records: Vec<RData>) -> Self {
        let (soa, how, delay) = (Some((300, 300)), How::Well, None);
        let (truncated, alone, referral) = (false, false, false);
        Answer { code, records, ttl: 300, soa, how, delay, truncated, alone, referral }
    }

    /// Mail exchangers with their preferences; `"."` is the null MX.
    pub fn mx(hosts: &[(u16, &str)]) -> Self {
        let record = |(preference, host): &(u16, &str)| RData::MX(MX::new(*preference, name(host)));
        Self::new(ResponseCode::NoError, hosts.iter().map(record).collect())
    }

    /// IPv4 and IPv6 addresses, each given out for its type.
    pub fn addresses(addresses: &[&str]) -> Self {
        let record = |text: &&str| match text.parse().expect("an address") {
            IpAddr::V4(address) => RData::A(A(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(address)),
        };
        Self::new(ResponseCode::NoError, addresses.iter().map(record).collect())
    }

    /// Another name.
    pub fn cname(target: &str) -> Self {
        Self::new(ResponseCode::NoError, vec![RData::CNAME(CNAME(name(target)))])
    }

    pub fn no_data() -> Self {
        Self::new(ResponseCode::NoError, Vec::new())
    }

    pub fn no_such_domain() -> Self {
        Self::new(ResponseCode::NXDomain, Vec::new())
    }

    /// SERVFAIL.
    pub fn failure() -> Self {
        Self::new(ResponseCode::ServFail, Vec::new())
    }

    pub fn refused() -> Self {
        Self::new(ResponseCode::Refused, Vec::new())
    }

    /// FORMERR, as servers have it that do not know EDNS.
    pub fn malformed() -> Self {
        Self::new(ResponseCode::FormErr, Vec::new())
    }

    pub fn silence() -> Self {
        Self { how: How::Silence, ..Self::no_data() }
    }

    /// Octets that are no message.
    pub fn garbage() -> Self {
        Self { how: How::Garbage, ..Self::no_data() }
    }

    /// Names of other servers instead of an answer.
    pub fn referral() -> Self {
        Self { referral: true, ..Self::no_data().without_soa() }
    }

    pub fn ttl(self, seconds: u32) -> Self {
        Self { ttl: seconds, ..self }
    }

    /// TTL and minimum of the SOA record that tells how long "nothing" holds.
    pub fn soa(self, ttl: u32, minimum: u32) -> Self {
        Self { soa: Some((ttl, minimum)), ..self }
    }

    pub fn without_soa(self) -> Self {
        Self { soa: None, ..self }
    }

    pub fn delay(self, delay: Duration) -> Self {
        Self { delay: Some(delay), ..self }
    }

    /// Cut short over UDP, whatever its size.
    pub fn truncated(self) -> Self {
        Self { truncated: true, ..self }
    }

    /// A `CNAME` without what it leads to.
    pub fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    pub fn wrong_id(self) -> Self {
        Self { how: How::WrongId, ..self }
    }

    pub fn wrong_question(self) -> Self {
        Self { how: How::WrongQuestion, ..self }
    }

    /// From another port than the one that was asked.
    pub fn wrong_source(self) -> Self {
        Self { how: How::WrongSource, ..self }
    }

    /// With the question in lower case, however it was asked.
    pub fn lower_case(self) -> Self {
        Self { how: How::LowerCase, ..self }
    }

    /// With the question in lower case over UDP, as asked over TCP.
    pub fn lower_case_by_udp(self) -> Self {
        Self { how: How::LowerCaseByUdp, ..self }
    }

    /// Truncated over UDP; over TCP closed in the middle.
    pub fn half(self) -> Self {
        Self { how: How::Half, truncated: true, ..self }
    }

    /// Many times over UDP, each with a wrong id; well over TCP.
    pub fn guessed(self) -> Self {
        Self { how: How::Guesses, ..self }
    }

    pub fn without_question(self) -> Self {
        Self { how: How::NoQuestion, ..self }
    }
}

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).expect("a name");
    name.set_fqdn(true);
    name
}

fn plain(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

type Closure = dyn Fn(&Question) -> Option<Answer> + Send + Sync;

struct Shared {
    table: Mutex<HashMap<(String, RecordType), Answer>>,
    closure: Box<Closure>,
    counts: Mutex<HashMap<(String, RecordType), u64>>,
    /// Whether questions are counted by name, not in all only.
    counts_names: AtomicBool,
    total: AtomicU64,
    over_tcp: AtomicU64,
    without_edns: AtomicU64,
    /// Source ports and ids of the questions that came over UDP.
    seen: Mutex<Vec<(u16, u16)>>,
    stop: (Mutex<bool>, Condvar),
}

/// The server. Its threads end when it is dropped.
pub struct DnsServer {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl DnsServer {
    /// One that knows only what it is told by [`DnsServer::set`].
    pub fn start() -> Self {
        Self::with(|_| None)
    }

    /// One that asks `closure` for what is not in its table.
    pub fn with(closure: impl Fn(&Question) -> Option<Answer> + Send + Sync + 'static) -> Self {
        let (udp, tcp) = one_port();
        let address = udp.local_addr().unwrap();
        let shared = Arc::new(Shared {
            table: Mutex::default(),
            closure: Box::new(closure),
            counts: Mutex::default(),
            counts_names: AtomicBool::new(true),
            total: AtomicU64::new(0),
            over_tcp: AtomicU64::new(0),
            without_edns: AtomicU64::new(0),
            seen: Mutex::default(),
            stop: (Mutex::new(false), Condvar::new()),
        });
        let (for_udp, for_tcp) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            std::thread::spawn(move || serve_udp(&udp, &for_udp)),
            std::thread::spawn(move || serve_tcp(&tcp, &for_tcp)),
        ];
        DnsServer { address, shared, threads }
    }

    /// What to answer for a name and type from now on.
    pub fn set(&self, name: &str, kind: RecordType, answer: Answer) {
        let key = (name.to_ascii_lowercase(), kind);
        self.shared.table.lock().unwrap().insert(key, answer);
    }

    /// A domain with these exchangers.
    pub fn set_mx(&self, name: &str, hosts: &[(u16, &str)]) {
        self.set(name, RecordType::MX, Answer::mx(hosts));
    }

    /// A host with these addresses; without any of one family, it has none there.
    pub fn set_addresses(&self, name: &str, addresses: &[&str]) {
        for (kind, is_v6) in [(RecordType::A, false), (RecordType::AAAA, true)] {
            let of_kind = addresses.iter().filter(|text| text.contains(':') == is_v6);
            self.set(name, kind, Answer::addresses(&of_kind.copied().collect::<Vec<_>>()));
        }
    }

    /// Questions for a name and type so far.
    pub fn asked(&self, name: &str, kind: RecordType) -> u64 {
        let key = (name.to_ascii_lowercase(), kind);
        self.shared.counts.lock().unwrap().get(&key).copied().unwrap_or(0)
    }

    /// Questions so far.
    pub fn total(&self) -> u64 {
        self.shared.total.load(Ordering::SeqCst)
    }

    /// Questions over TCP so far.
    pub fn over_tcp(&self) -> u64 {
        self.shared.over_tcp.load(Ordering::SeqCst)
    }

    /// Questions without EDNS so far.
    pub fn without_edns(&self) -> u64 {
        self.shared.without_edns.load(Ordering::SeqCst)
    }

    /// Source port and id of each question over UDP, in order.
    pub fn seen(&self) -> Vec<(u16, u16)> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Keeps nothing of single questions from now on, only [`DnsServer::total`]:
    /// for benches with millions of names.
    pub fn count_in_all_only(&self) {
        self.shared.counts_names.store(false, Ordering::SeqCst);
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        *self.shared.stop.0.lock().unwrap() = true;
        self.shared.stop.1.notify_all();
        // A datagram and a connection, so that both threads look up.
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let _ = socket.send_to(&[], self.address);
        let _ = TcpStream::connect(self.address);
        for thread in self.threads.drain(..) {
            // A panic of a thread has been printed; a test that fails already
            // must not abort.
            let _ = thread.join();
        }
    }
}

/// Sockets for both protocols on one free port.
fn one_port() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
    panic!("no port is free for UDP and TCP both");
}

fn serve_udp(socket: &UdpSocket, shared: &Arc<Shared>) {
    let mut buffer = [0; 4096];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
        if shared.is_stopped() {
            return;
        }
        let Ok(request) = Message::from_vec(&buffer[..length]) else { continue };
        if shared.counts_names.load(Ordering::Relaxed) {
            shared.seen.lock().unwrap().push((peer.port(), request.id));
        }
        let Some((answer, question)) = shared.answer(&request, false) else { continue };
        let Some(reply) = shared.reply(&request, &question, &answer) else { continue };
        let socket = match answer.how {
            How::WrongSource => UdpSocket::bind("127.0.0.1:0").unwrap(),
            _ if answer.delay.is_none() => {
                let times = if answer.how == How::Guesses { GUESSES } else { 1 };
                (0..times).for_each(|_| drop(socket.send_to(&reply, peer)));
                continue;
            }
            _ => socket.try_clone().unwrap(),
        };
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            if shared.waits(answer.delay) {
                let _ = socket.send_to(&reply, peer);
            }
        });
    }
}

fn serve_tcp(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.is_stopped() {
            return;
        }
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            // The client has gone, or said nothing.
            let _ = serve_stream(stream, &shared);
        });
    }
}

/// Questions of one connection, until it is closed.
fn serve_stream(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut request = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut request)?;
        let Ok(request) = Message::from_vec(&request) else { return Ok(()) };
        let Some((answer, question)) = shared.answer(&request, true) else { return Ok(()) };
        let Some(reply) = shared.reply(&request, &question, &answer) else { continue };
        if !shared.waits(answer.delay) {
            return Ok(());
        }
        let length = u16::try_from(reply.len()).expect("an answer fits in TCP's frame");
        stream.write_all(&length.to_be_bytes())?;
        if answer.how == How::Half {
            return stream.write_all(&reply[..reply.len() / 2]);
        }
        stream.write_all(&reply)?;
    }
}

impl Shared {
    fn is_stopped(&self) -> bool {
        *self.stop.0.lock().unwrap()
    }

    /// Waits for `delay`; false if the server stopped meanwhile.
    fn waits(&self, delay: Option<Duration>) -> bool {
        let stopped = self.stop.0.lock().unwrap();
        let Some(delay) = delay else { return !*stopped };
        let waited = self.stop.1.wait_timeout_while(stopped, delay, |stopped| !*stopped);
        !*waited.unwrap().0
    }

    /// What to do with a request; nothing if it asks for nothing.
    fn answer(&self, request: &Message, over_tcp: bool) -> Option<(Answer, Question)> {
        let query = request.queries.first()?;
        let (name, kind) = (plain(query.name()), query.query_type());
        self.total.fetch_add(1, Ordering::SeqCst);
        self.over_tcp.fetch_add(u64::from(over_tcp), Ordering::SeqCst);
        self.without_edns.fetch_add(u64::from(request.edns.is_none()), Ordering::SeqCst);
        let mut before = 0;
        if self.counts_names.load(Ordering::Relaxed) {
            let mut counts = self.counts.lock().unwrap();
            let count = counts.entry((name.clone(), kind)).or_default();
            before = *count;
            *count += 1;
        }
        let has_edns = request.edns.is_some();
        let question = Question { name, kind, over_tcp, has_edns, before };
        let answer = self.look_up(&question).unwrap_or_else(Answer::no_such_domain);
        Some((answer, question))
    }

    /// Table, then closure; a name that is known for another type has no data.
    fn look_up(&self, question: &Question) -> Option<Answer> {
        let table = self.table.lock().unwrap();
        let get = |kind| table.get(&(question.name.clone(), kind)).cloned();
        if let Some(found) = get(question.kind).or_else(|| get(RecordType::CNAME)) {
            return Some(found);
        }
        let kinds = [RecordType::A, RecordType::AAAA, RecordType::MX];
        let is_known = kinds.into_iter().any(|kind| get(kind).is_some());
        drop(table);
        (self.closure)(question).or_else(|| is_known.then(Answer::no_data))
    }

    /// The octets of an answer; none for silence.
    fn reply(&self, request: &Message, question: &Question, answer: &Answer) -> Option<Vec<u8>> {
        let asked = request.queries.first()?;
        let mut reply = Message::response(request.id, OpCode::Query);
        reply.metadata.recursion_desired = request.metadata.recursion_desired;
        reply.metadata.authoritative = !answer.referral;
        let mut query = asked.clone();
        match answer.how {
            How::Silence => return None,
            How::Garbage => return Some(vec![0xa5; 40]),
            How::WrongId => reply.metadata.id ^= 1,
            How::Guesses if !question.over_tcp => reply.metadata.id ^= 1,
            How::WrongQuestion => query = Query::query(name("other.invalid"), asked.query_type()),
            How::LowerCase => query = Query::query(asked.name().to_lowercase(), asked.query_type()),
            How::LowerCaseByUdp if !question.over_tcp => {
                query = Query::query(asked.name().to_lowercase(), asked.query_type());
            }
            _ => {}
        }
        if answer.how != How::NoQuestion {
            reply.add_query(query);
        }
        self.fill(&mut reply, question, asked.name(), answer);
        if request.edns.is_some() && answer.code != ResponseCode::FormErr {
            reply.set_edns(Edns::new());
        }
        let limit = match (question.over_tcp, &request.edns) {
            (true, _) => usize::MAX,
            (false, Some(edns)) => usize::from(edns.max_payload()),
            (false, None) => UDP_PLAIN_MAX,
        };
        let whole = reply.to_vec().expect("an answer of at most 64 KiB");
        if !question.over_tcp && (answer.truncated || whole.len() > limit) {
            return Some(reply.truncate().to_vec().expect("a short message"));
        }
        Some(whole)
    }

    /// Puts in the records, following `CNAME`s.
    fn fill(&self, reply: &mut Message, question: &Question, asked: &Name, answer: &Answer) {
        let (mut owner, mut answer) = (asked.clone(), answer.clone());
        for _ in 0..CHAIN_MAX {
            reply.metadata.response_code = answer.code;
            let mut target = None;
            for data in &answer.records {
                if let RData::CNAME(CNAME(name)) = data {
                    target = Some(name.clone());
                } else if data.record_type() != question.kind {
                    continue;
                }
                reply.add_answer(Record::from_rdata(owner.clone(), answer.ttl, data.clone()));
            }
            let next = target.filter(|_| !answer.alone).map(|target| {
                let next = Question { name: plain(&target), ..question.clone() };
                (self.look_up(&next).unwrap_or_else(Answer::no_such_domain), target)
            });
            let Some(next) = next else { break };
            (answer, owner) = next;
        }
        if answer.referral {
            let other = RData::NS(NS(name("ns.other.invalid")));
            reply.add_authority(Record::from_rdata(owner.clone(), answer.ttl, other));
        }
        let has_records = answer.records.iter().any(|data| {
            data.record_type() == question.kind || data.record_type() == RecordType::CNAME
        });
        if let Some((ttl, minimum)) = answer.soa
            && !has_records
            && matches!(answer.code, ResponseCode::NoError | ResponseCode::NXDomain)
        {
            let root = Name::root;
            let soa = SOA::new(root(), root(), 1, 3600, 600, 86400, minimum);
            reply.add_authority(Record::from_rdata(root(), ttl, RData::SOA(soa)));
        }
    }
}
