//! What goes before a body in the first record of a message: the archive of its
//! envelope and, for the few messages that have more to them, *extras* behind
//! it. Each extra is a number, a length and an archive of its own, so that a
//! later one changes nothing about those before it, and mail that has none
//! costs nothing.
//!
//! Which of the two it is, one octet tells: [`MARK_AT`] octets before the end a
//! bare archive has the body type of its root, a small number; where extras
//! are, their [`TRAILER`] has [`MARK`] there.

use rkyv::api::high::to_bytes_in;
use rkyv::rancor;

use super::Malformed;
use crate::base::Envelope;
use crate::base::dsn::{ArchivedDsn, Dsn};
use crate::base::envelope::ArchivedEnvelope;
use crate::base::terms::{ArchivedTerms, Terms};
use crate::queue::fact::Timing;
use crate::queue::format::read_u32;

/// How far before the end the octet lies that tells what is there.
const MARK_AT: usize =
    size_of::<ArchivedEnvelope>() - std::mem::offset_of!(ArchivedEnvelope, body_type);
/// That octet, where there are extras.
const MARK: u8 = 0xe7;
/// Bytes of the trailer: the mark, a zero, the length of the envelope's archive
/// (4), zeroes.
const TRAILER: usize = MARK_AT;
/// Bytes of an extra before its archive: number (2), length of the archive (4).
const EXTRA_PREFIX: usize = 6;
/// The extra that holds a [`Dsn`].
const DSN: u16 = 1;
/// The extra that holds [`Terms`].
const TERMS: u16 = 2;

// The layout of format version 1: other sizes would be another format.
const _: () = assert!(size_of::<ArchivedEnvelope>() == 42 && MARK_AT == 18);

/// Appends `envelope`: its archive and its extras.
pub fn encode_envelope(envelope: &Envelope, out: &mut Vec<u8>) {
    let start = out.len();
    to_bytes_in::<_, rancor::Error>(envelope, &mut *out)
        .expect("an envelope is plain data, and a vector takes it");
    if envelope.dsn.is_none() && envelope.terms.is_none() {
        return;
    }
    let len = (out.len() - start) as u32;
    if let Some(dsn) = &envelope.dsn {
        encode_extra(DSN, out, |out| to_bytes_in(&**dsn, &mut *out).map(drop));
    }
    if let Some(terms) = &envelope.terms {
        encode_extra(TERMS, out, |out| to_bytes_in(&**terms, &mut *out).map(drop));
    }
    let mut trailer = [0; TRAILER];
    trailer[0] = MARK;
    trailer[2..6].copy_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&trailer);
}

type Archived = Result<(), rancor::Error>;

/// Appends one extra.
fn encode_extra(number: u16, out: &mut Vec<u8>, archive: impl FnOnce(&mut Vec<u8>) -> Archived) {
    let at = out.len();
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    archive(out).expect("parameters are plain data, and a vector takes them");
    let len = (out.len() - at - EXTRA_PREFIX) as u32;
    out[at + 2..at + EXTRA_PREFIX].copy_from_slice(&len.to_le_bytes());
}

/// What the index needs of an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvelopeFacts {
    /// Number of recipients, at least one.
    pub recipients: u16,
    /// `Envelope::arrival_ms`.
    pub arrival_ms: u64,
    /// What its terms say about when it is tried.
    pub timing: Timing,
}

/// What the terms of a stored envelope say about when its message is tried:
/// nothing where they cannot be read.
pub fn timing_of(bytes: &[u8]) -> Timing {
    let Ok((_, mut extras)) = split(bytes) else { return Timing::default() };
    let mut timing = Timing::default();
    while !extras.is_empty() {
        match take_extra(&mut extras) {
            Ok(Extra::Terms(terms)) => timing = terms.into(),
            Ok(Extra::Dsn(_)) => {}
            Err(_) => return Timing::default(),
        }
    }
    timing
}

/// Validates an envelope without building it.
///
/// # Errors
/// It is no envelope, or one with no recipient or too many.
pub fn envelope_facts(bytes: &[u8]) -> Result<EnvelopeFacts, Malformed> {
    let (archive, mut extras) = split(bytes)?;
    let archived = rkyv::access::<ArchivedEnvelope, rancor::Failure>(archive)
        .map_err(|_| Malformed("an envelope that does not validate"))?;
    let mut timing = Timing::default();
    while !extras.is_empty() {
        if let Extra::Terms(terms) = take_extra(&mut extras)? {
            timing = terms.into();
        }
    }
    match u16::try_from(archived.recipients.len()) {
        Ok(0) | Err(_) => Err(Malformed("an envelope without recipients, or with too many")),
        Ok(recipients) => {
            Ok(EnvelopeFacts { recipients, arrival_ms: archived.arrival_ms.to_native(), timing })
        }
    }
}

/// Reads an envelope.
///
/// # Errors
/// It does not validate.
pub fn decode_envelope(bytes: &[u8]) -> Result<Envelope, Malformed> {
    let (archive, mut extras) = split(bytes)?;
    let mut envelope = rkyv::from_bytes::<Envelope, rancor::Failure>(archive)
        .map_err(|_| Malformed("an envelope that does not validate"))?;
    while !extras.is_empty() {
        match take_extra(&mut extras)? {
            Extra::Dsn(dsn) => {
                let dsn = rkyv::deserialize::<Dsn, rancor::Failure>(dsn);
                envelope.dsn = Some(Box::new(dsn.map_err(|_| BAD_EXTRA)?));
            }
            Extra::Terms(terms) => {
                let terms = rkyv::deserialize::<Terms, rancor::Failure>(terms);
                envelope.terms = Some(Box::new(terms.map_err(|_| BAD_EXTRA)?));
            }
        }
    }
    Ok(envelope)
}

/// The archive of the envelope, and its extras.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let Some(at) = bytes.len().checked_sub(MARK_AT).filter(|&at| bytes[at] == MARK) else {
        return Ok((bytes, &[]));
    };
    let (rest, trailer) = bytes.split_at(at);
    rest.split_at_checked(read_u32(trailer, 2) as usize)
        .filter(|(_, extras)| !extras.is_empty())
        .ok_or(Malformed("an envelope whose extras have another length"))
}

const BAD_EXTRA: Malformed = Malformed("an extra of an envelope that does not validate");

/// One extra.
enum Extra<'a> {
    Dsn(&'a ArchivedDsn),
    Terms(&'a ArchivedTerms),
}

/// The next extra. Its number is known: a new one is a new format version.
fn take_extra<'a>(extras: &mut &'a [u8]) -> Result<Extra<'a>, Malformed> {
    const SHORT: Malformed = Malformed("an envelope that ends within an extra");
    let (prefix, rest) = extras.split_at_checked(EXTRA_PREFIX).ok_or(SHORT)?;
    let number = u16::from_le_bytes([prefix[0], prefix[1]]);
    let (archive, rest) = rest.split_at_checked(read_u32(prefix, 2) as usize).ok_or(SHORT)?;
    *extras = rest;
    match number {
        DSN => rkyv::access::<ArchivedDsn, rancor::Failure>(archive).map(Extra::Dsn),
        TERMS => rkyv::access::<ArchivedTerms, rancor::Failure>(archive).map(Extra::Terms),
        _ => return Err(Malformed("an envelope with an extra that is not known")),
    }
    .map_err(|_| BAD_EXTRA)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::BodyType;
    use crate::base::dsn::{Notify, RecipientDsn, Ret};
    use crate::base::terms::{ByMode, DeliverBy};

    fn encoded(envelope: &Envelope) -> Vec<u8> {
        let mut bytes = vec![];
        encode_envelope(envelope, &mut bytes);
        bytes
    }

    fn plain() -> Envelope {
        Envelope {
            recipients: vec!["b@example.org".into(), "c@example.org".into()],
            arrival_ms: 77,
            ..Envelope::default()
        }
    }

    fn dsn() -> Dsn {
        let first = RecipientDsn { notify: Some(Notify::NEVER), orcpt: None };
        let orcpt = Some("rfc822;b+2Bx@example.org".to_owned());
        let second = RecipientDsn { notify: Some(Notify::ABSENT), orcpt };
        Dsn { ret: Some(Ret::Full), envid: Some("QQ+20x".into()), recipients: vec![first, second] }
    }

    #[test]
    fn extras_come_back_and_cost_nothing_where_there_are_none() {
        let bare = encoded(&plain());
        assert_eq!(decode_envelope(&bare), Ok(plain()));
        let asked = Envelope { dsn: Some(Box::new(dsn())), ..plain() };
        let bytes = encoded(&asked);
        assert!(bytes.starts_with(&bare) && bytes.len() > bare.len());
        assert_eq!(decode_envelope(&bytes), Ok(asked));
        let facts = EnvelopeFacts { recipients: 2, arrival_ms: 77, timing: Timing::default() };
        assert_eq!((envelope_facts(&bare), envelope_facts(&bytes)), (Ok(facts), Ok(facts)));
    }

    #[test]
    fn terms_come_back_alone_and_beside_what_was_asked_about_reports() {
        let terms = Terms {
            binary: true,
            deliver_by: Some(DeliverBy { at_ms: 99, mode: ByMode::Notify, trace: true }),
            hold_until_ms: Some(88),
            priority: -4,
            auth: Some(String::new()),
            user: Some("j\u{f6}rg".into()),
            ..Terms::default()
        };
        for dsn in [None, Some(Box::new(dsn()))] {
            let envelope = Envelope { dsn, terms: Some(Box::new(terms.clone())), ..plain() };
            let bytes = encoded(&envelope);
            let timing = Timing { hold_until_ms: 88, priority: -4 };
            let facts = EnvelopeFacts { recipients: 2, arrival_ms: 77, timing };
            assert_eq!((envelope_facts(&bytes), timing_of(&bytes)), (Ok(facts), timing));
            assert_eq!(decode_envelope(&bytes), Ok(envelope));
        }
        // What is to come back is not kept past that.
        for (by, mode, kept) in
            [(80, ByMode::Return, 80), (80, ByMode::Notify, 88), (99, ByMode::Return, 88)]
        {
            let deliver_by = Some(DeliverBy { at_ms: by, mode, trace: false });
            let terms = Terms { deliver_by, ..terms.clone() };
            assert_eq!(Timing::from(&terms).hold_until_ms, kept);
            let envelope = Envelope { terms: Some(Box::new(terms)), ..plain() };
            assert_eq!(timing_of(&encoded(&envelope)).hold_until_ms, kept);
        }
    }

    #[test]
    fn every_cut_is_refused_not_a_panic() {
        let terms = Some(Box::new(Terms { auth: Some("a@b".into()), ..Terms::default() }));
        let dsn = Some(Box::new(dsn()));
        for (dsn, terms) in [(None, None), (dsn.clone(), None), (None, terms.clone()), (dsn, terms)]
        {
            let envelope = Envelope { dsn, terms, ..plain() };
            let bytes = encoded(&envelope);
            for cut in 0..bytes.len() {
                if bytes[..cut] == encoded(&plain()) {
                    continue;
                }
                let facts = envelope_facts(&bytes[..cut]);
                assert!(facts.is_err() || cut > 0, "{cut}: {facts:?}");
                let _ = decode_envelope(&bytes[..cut]);
            }
        }
        assert!(envelope_facts(&[]).is_err());
    }

    #[test]
    fn an_extra_that_is_not_known_and_an_empty_one_are_malformed() {
        let mut bytes = encoded(&Envelope { dsn: Some(Box::new(dsn())), ..plain() });
        let at = encoded(&plain()).len();
        bytes[at] = 9;
        assert!(decode_envelope(&bytes).is_err() && envelope_facts(&bytes).is_err());
        let trailer = bytes.len() - TRAILER;
        let none = [&bytes[..at], &bytes[trailer..]].concat();
        assert!(decode_envelope(&none).is_err() && envelope_facts(&none).is_err());
    }

    #[test]
    fn an_envelope_without_recipients_is_malformed() {
        assert!(envelope_facts(&encoded(&Envelope::default())).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Nothing that a client can have us store passes for extras.
        #[test]
        fn a_bare_archive_is_never_taken_for_one_with_extras(
            sender in ".{0,30}", client in ".{0,30}", helo in ".{0,30}",
            recipients in proptest::collection::vec(".{0,20}", 1..4),
            eight_bit: bool, smtputf8: bool, arrival_ms: u64,
        ) {
            let body_type = if eight_bit { BodyType::EightBitMime } else { BodyType::SevenBit };
            let envelope = Envelope {
                sender, recipients, arrival_ms, body_type, smtputf8, client, helo,
                dsn: None, terms: None,
            };
            prop_assert_eq!(decode_envelope(&encoded(&envelope)), Ok(envelope));
        }
    }
}
