//! Queries written and answers read. An answer counts only if it repeats the id
//! and the question, letter by letter; of its records only those count that the
//! question leads to, by `CNAME`s or at once. All else in it is passed over, what
//! is malformed in it spoils it, and its work is bounded however long it is.
//!
//! Pure but for the randomness of a query. RFC 1035 (form), 2181 and 2308 (how
//! long things hold), 6891 (EDNS).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::name::{self, in_random_case};
use super::random::Random;
use super::{DnsFailure, Kind, Outcome};

/// What we take over UDP, in bytes: passes every network unfragmented.
const UDP_PAYLOAD_MAX: u16 = 1232;
/// Records of one answer that are used; the rest is cut.
pub const RECORDS_MAX: usize = 64;
/// `CNAME`s that lead from one name to another until it is called a loop.
pub const LINKS_MAX: usize = 16;
/// How long "nothing" holds when no SOA record tells, in seconds.
const NOTHING_TTL: u32 = 60;
const CNAME: u16 = 5;

/// A query, to hold answers against.
pub struct Asked {
    id: u16,
    /// As it was written, letter by letter.
    name: Name,
    kind: Kind,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What was found, or where to ask on.
    pub says: Says,
    /// Seconds for which it holds, as its records have it.
    pub ttl: u32,
    /// Whether the question was repeated letter by letter.
    pub is_exact: bool,
}

/// The end of an answer's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Says {
    /// Records, or that there are none for certain.
    Found(Outcome),
    /// The name is another name's alias, of which nothing is said.
    LeadsTo {
        /// The other name.
        name: Name,
        /// `CNAME`s that led there.
        links: usize,
    },
}

/// Why octets are no answer to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They answer something else, or are no answer at all.
    NotOurs,
    /// The question is ours but for the case of its letters.
    OtherCase,
    /// Cut short: TCP brings it whole.
    Truncated,
    /// The server did not understand the query.
    NotUnderstood,
    /// The server failed or refused.
    Failed(ResponseCode),
    /// The server names other servers instead.
    Referral,
    /// `CNAME`s lead in a circle, or too far.
    Loop,
    /// The answer has errors of form.
    Malformed,
}

impl Kind {
    fn record_type(self) -> RecordType {
        match self {
            Kind::A => RecordType::A,
            Kind::Aaaa => RecordType::AAAA,
            Kind::Mx => RecordType::MX,
        }
    }
}

impl Asked {
    /// A new query for `name`, with an id and a spelling that nobody can guess;
    /// in lower case with `is_plain`, for servers that do not keep the case.
    pub(super) fn new(name: &Name, kind: Kind, is_plain: bool, random: &mut Random) -> Self {
        let id = random.u16();
        let name = if is_plain { name.to_lowercase() } else { in_random_case(name, random) };
        Asked { id, name, kind }
    }

    /// A query with this id for a name in the form of a text, spelt as it is.
    ///
    /// # Errors
    /// The name, if it is none.
    pub fn with_id(id: u16, name: &str, kind: Kind) -> Result<Self, &str> {
        let mut name = Name::from_ascii(name).map_err(|_| name)?;
        name.set_fqdn(true);
        Ok(Asked { id, name, kind })
    }

    /// The octets to send.
    pub fn to_bytes(&self, has_edns: bool) -> Vec<u8> {
        let mut message = Message::new(self.id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(self.name.clone(), self.kind.record_type()));
        if has_edns {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_PAYLOAD_MAX);
            message.set_edns(edns);
        }
        message.to_vec().expect("one question fits in any message")
    }

    /// Reads octets that came in answer.
    ///
    /// # Errors
    /// Whatever keeps them from being one.
    pub fn read(&self, bytes: &[u8], over_tcp: bool) -> Result<Reading, Fault> {
        let mut decoder = BinDecoder::new(bytes);
        let header = Header::read(&mut decoder).map_err(|_| Fault::NotOurs)?;
        let is_answer = header.message_type == MessageType::Response
            && header.op_code == OpCode::Query
            && header.id == self.id;
        if !is_answer {
            return Err(Fault::NotOurs);
        }
        let code = header.response_code;
        let is_failure = !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
        let is_exact = match header.counts.queries {
            // Some leave the question out when they failed.
            0 if is_failure => true,
            1 => self.is_repeated(&mut decoder)?,
            _ => return Err(Fault::NotOurs),
        };
        if !is_exact && !over_tcp {
            return Err(Fault::OtherCase);
        }
        match code {
            ResponseCode::NoError | ResponseCode::NXDomain => {}
            ResponseCode::FormErr | ResponseCode::NotImp => return Err(Fault::NotUnderstood),
            code => return Err(Fault::Failed(code)),
        }
        if header.truncation && !over_tcp {
            return Err(Fault::Truncated);
        }
        let records = self.records(&mut decoder, header.counts.answers)?;
        let (says, ttl) = match self.walk(records)? {
            Walked::Records(outcome, ttl) => (Says::Found(outcome), ttl),
            Walked::End { name, links, ttl } => {
                let nothing = Nothing::read(&mut decoder, &header)?;
                let says = nothing.says(&header, name, links)?;
                let holds = nothing.soa_ttl.unwrap_or(NOTHING_TTL);
                let is_known = matches!(says, Says::Found(_));
                (says, if is_known { ttl.min(holds) } else { ttl })
            }
        };
        Ok(Reading { says, ttl, is_exact })
    }

    /// Whether the question of an answer is ours letter by letter.
    fn is_repeated(&self, decoder: &mut BinDecoder<'_>) -> Result<bool, Fault> {
        let query = Query::read(decoder).map_err(|_| Fault::NotOurs)?;
        let is_ours = query.query_type() == self.kind.record_type()
            && query.query_class() == DNSClass::IN
            && query.name().eq_ignore_root(&self.name);
        if is_ours { Ok(query.name().eq_case(&self.name)) } else { Err(Fault::NotOurs) }
    }

    /// The aliases of an answer and its records of the kind that was asked for.
    /// All are looked at, since the most preferred exchanger may be the last; a
    /// message has room for four thousand.
    fn records(&self, decoder: &mut BinDecoder<'_>, count: u16) -> Result<Vec<Record>, Fault> {
        let mut records = Vec::with_capacity(usize::from(count).min(8));
        for _ in 0..count {
            let raw = Raw::read(decoder)?;
            if let Some(data) = self.data(decoder, &raw)? {
                records.push(Record { owner: raw.owner, ttl: raw.ttl, data });
            }
        }
        Ok(records)
    }

    /// What a record holds, if it is of use.
    fn data(&self, decoder: &BinDecoder<'_>, raw: &Raw<'_>) -> Result<Option<Data>, Fault> {
        if raw.class != u16::from(DNSClass::IN) {
            return Ok(None);
        }
        if raw.kind == CNAME {
            let (name, rest) = raw.name_at(decoder, 0)?;
            return if rest == 0 { Ok(Some(Data::Alias(name))) } else { Err(Fault::Malformed) };
        }
        if raw.kind != u16::from(self.kind.record_type()) {
            return Ok(None);
        }
        let data = match (self.kind, raw.data) {
            (Kind::A, data) => {
                let octets: [u8; 4] = data.try_into().map_err(|_| Fault::Malformed)?;
                Data::Address(Ipv4Addr::from(octets).into())
            }
            (Kind::Aaaa, data) => {
                let octets: [u8; 16] = data.try_into().map_err(|_| Fault::Malformed)?;
                Data::Address(Ipv6Addr::from(octets).into())
            }
            (Kind::Mx, [high, low, _, ..]) => {
                let (host, rest) = raw.name_at(decoder, 2)?;
                if rest != 0 {
                    return Err(Fault::Malformed);
                }
                Data::Exchanger(u16::from_be_bytes([*high, *low]), name::text(&host))
            }
            (Kind::Mx, _) => return Err(Fault::Malformed),
        };
        Ok(Some(data))
    }

    /// Follows the aliases from the name that was asked for.
    fn walk(&self, records: Vec<Record>) -> Result<Walked, Fault> {
        let (mut owner, mut ttl) = (self.name.clone(), u32::MAX);
        for links in 0..=LINKS_MAX {
            let mut of_owner = records.iter().filter(|record| record.owner.eq_ignore_root(&owner));
            if of_owner.clone().any(|record| !matches!(record.data, Data::Alias(_))) {
                let found =
                    records.into_iter().filter(|record| record.owner.eq_ignore_root(&owner));
                let (outcome, shortest) = self.collect(found);
                return Ok(Walked::Records(outcome, ttl.min(shortest)));
            }
            let Some(Record { ttl: alias_ttl, data: Data::Alias(target), .. }) = of_owner.next()
            else {
                return Ok(Walked::End { name: owner, links, ttl });
            };
            (owner, ttl) = (target.clone(), ttl.min(*alias_ttl));
        }
        Err(Fault::Loop)
    }

    /// The records of one owner, in order, each once; and the shortest TTL.
    fn collect(&self, records: impl Iterator<Item = Record>) -> (Outcome, u32) {
        let (mut hosts, mut addresses, mut ttl) = (Vec::new(), Vec::new(), u32::MAX);
        for record in records {
            ttl = ttl.min(record.ttl);
            match record.data {
                Data::Exchanger(preference, host) => hosts.push((preference, host)),
                Data::Address(address) if addresses.len() < RECORDS_MAX => {
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
                Data::Address(_) | Data::Alias(_) => {}
            }
        }
        if self.kind != Kind::Mx {
            return (Outcome::Addresses(addresses), ttl);
        }
        // Of too many the most preferred are kept.
        hosts.sort();
        hosts.dedup();
        hosts.truncate(RECORDS_MAX);
        (Outcome::Mx(hosts), ttl)
    }
}

struct Record {
    owner: Name,
    ttl: u32,
    data: Data,
}

enum Data {
    Alias(Name),
    Address(IpAddr),
    Exchanger(u16, Box<str>),
}

enum Walked {
    Records(Outcome, u32),
    /// The last name of the chain has no records here.
    End {
        name: Name,
        links: usize,
        ttl: u32,
    },
}

/// A record before its data is read.
struct Raw<'a> {
    owner: Name,
    kind: u16,
    class: u16,
    ttl: u32,
    /// Where the data begins in the message.
    at: usize,
    data: &'a [u8],
}

impl<'a> Raw<'a> {
    fn read(decoder: &mut BinDecoder<'a>) -> Result<Self, Fault> {
        let mut read = || {
            let owner = Name::read(decoder)?;
            let kind = decoder.read_u16()?.unverified();
            let class = decoder.read_u16()?.unverified();
            let ttl = decoder.read_u32()?.unverified();
            let length = decoder.read_u16()?.unverified();
            let at = decoder.index();
            let data = decoder.read_slice(usize::from(length))?.unverified();
            // The highest bit means that the sender is confused (RFC 2181, 8).
            let ttl = if ttl > i32::MAX as u32 { 0 } else { ttl };
            Ok(Raw { owner, kind, class, ttl, at, data })
        };
        read().map_err(|_: hickory_proto::serialize::binary::DecodeError| Fault::Malformed)
    }

    /// The name at `offset` of the data, and how many octets follow it.
    fn name_at(&self, decoder: &BinDecoder<'_>, offset: usize) -> Result<(Name, usize), Fault> {
        let start = u16::try_from(self.at + offset).map_err(|_| Fault::Malformed)?;
        let mut decoder = decoder.clone(start);
        let name = Name::read(&mut decoder).map_err(|_| Fault::Malformed)?;
        let end = self.at + self.data.len();
        let rest = end.checked_sub(decoder.index()).ok_or(Fault::Malformed)?;
        Ok((name, rest))
    }
}

/// What the rest of an answer says about why there are no records.
struct Nothing {
    soa_ttl: Option<u32>,
    has_servers: bool,
}

impl Nothing {
    fn read(decoder: &mut BinDecoder<'_>, header: &Header) -> Result<Self, Fault> {
        let mut nothing = Nothing { soa_ttl: None, has_servers: false };
        for _ in 0..header.counts.authorities {
            let raw = Raw::read(decoder)?;
            match (RecordType::from(raw.kind), raw.data) {
                // Two names of at least an octet, then five numbers.
                (RecordType::SOA, [_, _, .., a, b, c, d]) if raw.data.len() >= 22 => {
                    let minimum = u32::from_be_bytes([*a, *b, *c, *d]);
                    nothing.soa_ttl = Some(raw.ttl.min(minimum));
                }
                (RecordType::SOA, _) => return Err(Fault::Malformed),
                (RecordType::NS, _) => nothing.has_servers = true,
                _ => {}
            }
        }
        for _ in 0..header.counts.additionals {
            let owner_and_kind = Name::read(decoder)
                .and_then(|_| Ok(decoder.read_u16()?.unverified()))
                .and_then(|kind| {
                    let (_class, high) = (decoder.read_u16()?, decoder.read_u8()?.unverified());
                    decoder.read_slice(3)?;
                    let length = decoder.read_u16()?.unverified();
                    decoder.read_slice(usize::from(length))?;
                    Ok((kind, high))
                });
            let (kind, high) = owner_and_kind.map_err(|_| Fault::Malformed)?;
            // The upper bits of the code are in the OPT record (RFC 6891, 6.1.3).
            if kind == u16::from(RecordType::OPT) && high != 0 {
                let code = ResponseCode::from(high, header.response_code.low());
                return Err(Fault::Failed(code));
            }
        }
        Ok(nothing)
    }

    /// RFC 2308, 2.
    fn says(&self, header: &Header, name: Name, links: usize) -> Result<Says, Fault> {
        let nothing = |failure| Ok(Says::Found(Outcome::Nothing(failure)));
        if header.response_code == ResponseCode::NXDomain {
            return nothing(DnsFailure::NoSuchDomain);
        }
        if self.soa_ttl.is_some() {
            return nothing(DnsFailure::NoData);
        }
        if links > 0 {
            return Ok(Says::LeadsTo { name, links });
        }
        if self.has_servers && !header.authoritative {
            return Err(Fault::Referral);
        }
        nothing(DnsFailure::NoData)
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::rdata::{A, CNAME, MX, NS, SOA};
    use hickory_proto::rr::{RData, Record as Rr};
    use proptest::prelude::*;

    use super::*;

    const ID: u16 = 0x1234;

    fn named(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn asked(kind: Kind) -> Asked {
        Asked::with_id(ID, "a.Example", kind).unwrap()
    }

    fn rr(owner: &str, ttl: u32, data: RData) -> Rr {
        Rr::from_rdata(named(owner), ttl, data)
    }

    fn a(last: u8) -> RData {
        RData::A(A(Ipv4Addr::new(192, 0, 2, last)))
    }

    fn alias(to: &str) -> RData {
        RData::CNAME(CNAME(named(to)))
    }

    fn soa(minimum: u32) -> RData {
        RData::SOA(SOA::new(named("ns."), named("me."), 1, 2, 3, 4, minimum))
    }

    /// An answer to `asked(kind)`, changed by `change`.
    fn answer(kind: Kind, change: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut message = Message::response(ID, OpCode::Query);
        message.add_query(Query::query(named("a.Example."), kind.record_type()));
        change(&mut message);
        message.to_vec().unwrap()
    }

    fn read(kind: Kind, change: impl FnOnce(&mut Message)) -> Result<Reading, Fault> {
        asked(kind).read(&answer(kind, change), false)
    }

    fn says(kind: Kind, change: impl FnOnce(&mut Message)) -> (Says, u32) {
        let reading = read(kind, change).unwrap();
        (reading.says, reading.ttl)
    }

    fn addresses(last: &[u8]) -> Says {
        let addresses = last.iter().map(|last| Ipv4Addr::new(192, 0, 2, *last).into());
        Says::Found(Outcome::Addresses(addresses.collect()))
    }

    fn nothing(failure: DnsFailure) -> Says {
        Says::Found(Outcome::Nothing(failure))
    }

    #[test]
    fn queries_ask_one_thing() {
        let bytes = asked(Kind::Mx).to_bytes(true);
        let query = Message::from_vec(&bytes).unwrap();
        assert_eq!((query.id, query.recursion_desired), (ID, true));
        assert_eq!(query.queries.len(), 1);
        assert_eq!(query.queries[0].name().to_ascii(), "a.Example.");
        assert_eq!(query.max_payload(), UDP_PAYLOAD_MAX);
        assert!(Message::from_vec(&asked(Kind::A).to_bytes(false)).unwrap().edns.is_none());
        let mut random = Random::new();
        let plain = Asked::new(&named("A.b."), Kind::A, true, &mut random);
        assert_eq!(plain.name.to_ascii(), "a.b.");
    }

    #[test]
    fn only_an_answer_to_the_query_counts() {
        let good = |message: &mut Message| {
            message.add_answer(rr("A.example.", 9, a(1)));
        };
        assert_eq!(says(Kind::A, good), (addresses(&[1]), 9));
        let not_ours: [fn(&mut Message); 7] = [
            |message| message.metadata.id ^= 0x100,
            |message| message.metadata.message_type = MessageType::Query,
            |message| message.metadata.op_code = OpCode::Status,
            |message| message.queries.clear(),
            |message| message.queries.push(message.queries[0].clone()),
            |message| _ = message.queries[0].set_query_type(RecordType::MX),
            |message| _ = message.queries[0].set_query_class(DNSClass::CH),
        ];
        for change in not_ours {
            let both = |message: &mut Message| {
                good(message);
                change(message);
            };
            assert_eq!(read(Kind::A, both), Err(Fault::NotOurs));
        }
        for length in 0..=4 {
            let start = &[0x12, 0x34, 0x80, 0][..length];
            assert_eq!(asked(Kind::A).read(start, true), Err(Fault::NotOurs));
        }
        let other = |message: &mut Message| {
            message.queries[0].set_name(named("b.example."));
        };
        assert_eq!(read(Kind::A, other), Err(Fault::NotOurs));
        let lower = answer(Kind::A, |message| {
            message.queries[0].set_name(named("a.example."));
            good(message);
        });
        assert_eq!(asked(Kind::A).read(&lower, false), Err(Fault::OtherCase));
        assert!(!asked(Kind::A).read(&lower, true).unwrap().is_exact);
    }

    #[test]
    fn failures_and_truncation_are_told_apart() {
        let code = |code| move |message: &mut Message| message.metadata.response_code = code;
        use ResponseCode::{FormErr, NotImp, Refused, ServFail};
        assert_eq!(read(Kind::A, code(ServFail)), Err(Fault::Failed(ServFail)));
        assert_eq!(read(Kind::A, code(FormErr)), Err(Fault::NotUnderstood));
        assert_eq!(read(Kind::A, code(NotImp)), Err(Fault::NotUnderstood));
        let bare = |message: &mut Message| {
            code(Refused)(message);
            message.queries.clear();
        };
        assert_eq!(read(Kind::A, bare), Err(Fault::Failed(Refused)));
        let cut = answer(Kind::A, |message| message.metadata.truncation = true);
        assert_eq!(asked(Kind::A).read(&cut, false), Err(Fault::Truncated));
        assert!(asked(Kind::A).read(&cut, true).is_ok());
        // The upper bits of this code stand in the OPT record alone.
        let extended = |message: &mut Message| {
            message.set_edns(Edns::new());
            message.metadata.response_code = ResponseCode::BADVERS;
        };
        assert!(matches!(read(Kind::A, extended), Err(Fault::Failed(_))));
    }

    #[test]
    fn nothing_is_told_from_elsewhere() {
        let none = (nothing(DnsFailure::NoData), NOTHING_TTL);
        assert_eq!(says(Kind::A, |_| ()), none);
        let with_soa = |message: &mut Message| {
            message.add_authority(rr("example.", 50, soa(40)));
        };
        assert_eq!(says(Kind::A, with_soa), (nothing(DnsFailure::NoData), 40));
        let gone = |message: &mut Message| {
            message.metadata.response_code = ResponseCode::NXDomain;
            message.add_authority(rr("example.", 30, soa(40)));
        };
        assert_eq!(says(Kind::A, gone), (nothing(DnsFailure::NoSuchDomain), 30));
        let elsewhere = |message: &mut Message| {
            message.add_authority(rr("example.", 50, RData::NS(NS(named("ns.example.")))));
        };
        assert_eq!(read(Kind::A, elsewhere), Err(Fault::Referral));
        let own = |message: &mut Message| {
            elsewhere(message);
            message.metadata.authoritative = true;
        };
        assert_eq!(says(Kind::A, own), none);
        let confused = |message: &mut Message| {
            message.add_authority(rr("example.", 1 << 31, soa(40)));
        };
        assert_eq!(says(Kind::A, confused), (nothing(DnsFailure::NoData), 0));
    }

    #[test]
    fn records_of_others_do_not_count() {
        let strange = |message: &mut Message| {
            message.add_answer(rr("b.example.", 1, a(9)));
            message.add_answer(rr("a.example.", 1, RData::NS(NS(named("ns.example.")))));
            let mut chaos = rr("a.example.", 1, a(8));
            chaos.dns_class = DNSClass::CH;
            message.add_answer(chaos);
            message.add_answer(rr("a.example.", 70, a(1)));
            message.add_answer(rr("a.example.", 60, a(2)));
            message.add_answer(rr("a.example.", 80, a(1)));
            message.add_additional(rr("a.example.", 1, a(7)));
        };
        assert_eq!(says(Kind::A, strange), (addresses(&[1, 2]), 60));
    }

    #[test]
    fn aliases_are_followed_in_any_order_to_their_end() {
        let chain = |message: &mut Message| {
            message.add_answer(rr("c.example.", 90, a(1)));
            message.add_answer(rr("B.example.", 50, alias("c.example.")));
            message.add_answer(rr("a.example.", 80, alias("b.example.")));
        };
        assert_eq!(says(Kind::A, chain), (addresses(&[1]), 50));
        let open = |message: &mut Message| {
            message.add_answer(rr("a.example.", 80, alias("b.example.")));
            message.add_answer(rr("b.example.", 70, alias("c.example.")));
        };
        let on = Says::LeadsTo { name: named("c.example."), links: 2 };
        assert_eq!(says(Kind::A, open), (on, 70));
        let to_nothing = |message: &mut Message| {
            open(message);
            message.add_authority(rr("example.", 9, soa(40)));
        };
        assert_eq!(says(Kind::A, to_nothing), (nothing(DnsFailure::NoData), 9));
        let ring = |message: &mut Message| {
            open(message);
            message.add_answer(rr("c.example.", 70, alias("a.example.")));
        };
        assert_eq!(read(Kind::A, ring), Err(Fault::Loop));
    }

    #[test]
    fn exchangers_are_sorted_and_cut() {
        let many = |message: &mut Message| {
            for n in (0..400).rev() {
                let host = named(&format!("MX{n}.Example."));
                message.add_answer(rr("a.example.", 9, RData::MX(MX::new(n, host))));
            }
        };
        let (Says::Found(Outcome::Mx(hosts)), 9) = says(Kind::Mx, many) else { panic!() };
        assert_eq!(hosts.len(), RECORDS_MAX);
        assert_eq!((hosts[0].0, &*hosts[63].1), (0, "mx63.example"));
        let null = |message: &mut Message| {
            message.add_answer(rr("a.example.", 9, RData::MX(MX::new(0, Name::root()))));
        };
        assert_eq!(says(Kind::Mx, null).0, Says::Found(Outcome::Mx(vec![(0, "".into())])));
        // Ours behind a flood of others.
        let flood = |message: &mut Message| {
            message.add_answers((0..900).map(|_| rr("b.example.", 9, a(1))));
            message.add_answer(rr("a.example.", 8, a(2)));
        };
        let ours = Outcome::Addresses(vec!["192.0.2.2".parse().unwrap()]);
        assert_eq!(says(Kind::A, flood), (Says::Found(ours), 8));
    }

    #[test]
    fn malformed_records_spoil_an_answer() {
        let whole = answer(Kind::Mx, |message| {
            message.add_answer(rr("a.example.", 9, RData::MX(MX::new(1, named("b.example.")))));
        });
        let (says, header) = (asked(Kind::Mx).read(&whole, false), 12 + 11 + 4);
        assert!(says.is_ok());
        for length in header..whole.len() {
            assert_eq!(asked(Kind::Mx).read(&whole[..length], false), Err(Fault::Malformed));
        }
        // A record's data that is shorter or longer than what it holds.
        for (kind, length) in [(1_u16, 3_u16), (1, 5), (15, 2), (15, 5), (5, 3)] {
            let mut bytes = answer(if kind == 15 { Kind::Mx } else { Kind::A }, |_| ());
            bytes[7] = 1;
            bytes.extend([0xc0, 12]);
            bytes.extend(
                [kind.to_be_bytes(), [0, 1], [0, 0], [0, 9], length.to_be_bytes()].concat(),
            );
            bytes.extend([0; 5][..usize::from(length)].iter());
            let asked = asked(if kind == 15 { Kind::Mx } else { Kind::A });
            assert_eq!(asked.read(&bytes, false), Err(Fault::Malformed), "{kind} {length}");
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_read_or_refused(
            mut bytes in prop::collection::vec(any::<u8>(), 12..200),
            has_question in any::<bool>(),
            over_tcp in any::<bool>(),
        ) {
            bytes[..2].copy_from_slice(&ID.to_be_bytes());
            if has_question {
                let question = &answer(Kind::Mx, |_| ())[12..];
                bytes.splice(12..12, question.iter().copied());
                (bytes[2], bytes[3], bytes[4], bytes[5]) = (0x80, 0, 0, 1);
            }
            if let Ok(Reading { says: Says::Found(Outcome::Mx(hosts)), .. }) =
                asked(Kind::Mx).read(&bytes, over_tcp)
            {
                prop_assert!(hosts.len() <= RECORDS_MAX && hosts.is_sorted());
            }
        }
    }
}
