//! Answers of DNS servers that say anything at all: reading one never panics, is
//! bounded in what it gives, and gives no text that could break a log line or be
//! taken for something else.

#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use ringpost::io::dns::message::{Asked, RECORDS_MAX, Says};
use ringpost::io::dns::{Kind, Outcome};

const ID: u16 = 0x5250;
/// Type and class of the question, after its name.
const KINDS: [(Kind, [u8; 4]); 3] =
    [(Kind::A, [0, 1, 0, 1]), (Kind::Aaaa, [0, 28, 0, 1]), (Kind::Mx, [0, 15, 0, 1])];

/// Octets as they come, or made an answer to the question as far as its head goes.
fn answer(rest: &[u8], is_ours: bool, question: [u8; 4]) -> Vec<u8> {
    let [flags, code, answers, authorities, additionals, rest @ ..] = rest else {
        return rest.to_vec();
    };
    if !is_ours {
        return rest.to_vec();
    }
    let mut bytes = ID.to_be_bytes().to_vec();
    bytes.extend([0x80 | (flags & 0x07), *code, 0, 1]);
    bytes.extend([0, *answers, 0, *authorities, 0, *additionals]);
    bytes.extend(b"\x01a\x07example\0");
    bytes.extend(question);
    bytes.extend(rest);
    bytes
}

fuzz_target!(|input: (u8, bool, bool, &[u8])| {
    let (kind, is_ours, over_tcp, rest) = input;
    let (kind, question) = KINDS[usize::from(kind) % KINDS.len()];
    let asked = Asked::with_id(ID, "a.example", kind).expect("a name");
    let bytes = answer(rest, is_ours, question);
    let Ok(reading) = asked.read(&bytes, over_tcp) else { return };
    match reading.says {
        Says::Found(Outcome::Mx(hosts)) => {
            assert!(kind == Kind::Mx && (1..=RECORDS_MAX).contains(&hosts.len()));
            assert!(hosts.is_sorted());
            let is_plain = |c: char| c.is_ascii_graphic() && !c.is_ascii_uppercase();
            assert!(hosts.iter().all(|(_, host)| host.chars().all(is_plain)));
            assert!(hosts.iter().all(|(_, host)| host.len() <= 4 * 255));
        }
        Says::Found(Outcome::Addresses(addresses)) => {
            assert!((1..=RECORDS_MAX).contains(&addresses.len()));
            let is_of_kind = |address: &IpAddr| address.is_ipv4() == (kind == Kind::A);
            assert!(kind != Kind::Mx && addresses.iter().all(is_of_kind));
        }
        Says::Found(Outcome::Nothing(_)) | Says::LeadsTo { .. } => {}
    }
});
