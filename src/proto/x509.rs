//! As much of an X.509 certificate (RFC 5280) as is of use here: the subject's
//! common name, the names it is for, until when, and the hash of its signature.
//! Whether it is to be believed is the business of webpki, not of this reader: a
//! stranger may have written it.
//!
//! DER is read strictly forwards, each length checked against what is left; no
//! value is looked at but those named here, and nothing is kept.

/// A DER element: its tag and its contents.
type Element<'a> = (u8, &'a [u8]);

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_ID: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]`, constructed: the version.
const VERSION: u8 = 0xa0;
/// `[3]`, constructed: the extensions.
const EXTENSIONS: u8 = 0xa3;
/// `[1]` and `[2]` of GeneralName: rfc822Name and dNSName.
const MAIL_ADDRESS: u8 = 0x81;
const DNS_NAME: u8 = 0x82;

const COMMON_NAME_ID: &[u8] = &[0x55, 0x04, 0x03];
const SUBJECT_ALT_NAME_ID: &[u8] = &[0x55, 0x1d, 0x11];

/// Most names taken of a certificate.
const NAMES_MAX: usize = 100;

/// The hash function of a certificate's signature, as RFC 5929 has it for
/// `tls-server-end-point`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureHash {
    /// SHA-256, or MD5 or SHA-1, in whose place SHA-256 is taken.
    Sha256OrWeaker,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// The parts of a certificate, each still in DER.
#[derive(Clone, Copy, Debug)]
pub struct Certificate<'a> {
    algorithm: &'a [u8],
    not_after: Element<'a>,
    subject: &'a [u8],
    alt_names: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// Reads a certificate; `None` if it is none.
    pub fn parse(der: &'a [u8]) -> Option<Certificate<'a>> {
        let mut whole = Reader(Reader(der).expect(SEQUENCE)?);
        let mut body = Reader(whole.expect(SEQUENCE)?);
        let algorithm = whole.expect(SEQUENCE)?;
        if body.peek() == Some(VERSION) {
            body.next()?;
        }
        let _serial = body.next()?;
        let _algorithm = body.expect(SEQUENCE)?;
        let _issuer = body.expect(SEQUENCE)?;
        let mut validity = Reader(body.expect(SEQUENCE)?);
        let _not_before = validity.next()?;
        let not_after = validity.next()?;
        let subject = body.expect(SEQUENCE)?;
        let _key = body.expect(SEQUENCE)?;
        let mut alt_names: &[u8] = &[];
        while let Some((tag, contents)) = body.next() {
            if tag == EXTENSIONS {
                alt_names = alt_names_in(Reader(contents).expect(SEQUENCE)?).unwrap_or_default();
            }
        }
        Some(Certificate { algorithm, not_after, subject, alt_names })
    }

    /// The last common name of the subject, without control characters.
    pub fn common_name(&self) -> Option<String> {
        let mut found = None;
        let mut names = Reader(self.subject);
        while let Some(set) = names.expect(SET) {
            let mut pair = Reader(Reader(set).expect(SEQUENCE)?);
            if pair.expect(OBJECT_ID)? == COMMON_NAME_ID {
                found = Some(text(pair.next()?.1));
            }
        }
        found
    }

    /// The DNS names that it is for.
    pub fn dns_names(&self) -> Vec<String> {
        self.names(DNS_NAME)
    }

    /// The mail addresses that it is for.
    pub fn mail_addresses(&self) -> Vec<String> {
        self.names(MAIL_ADDRESS)
    }

    fn names(&self, wanted: u8) -> Vec<String> {
        let mut names = Reader(self.alt_names);
        std::iter::from_fn(|| names.next())
            .filter(|(tag, contents)| *tag == wanted && contents.is_ascii())
            .map(|(_, contents)| text(contents))
            .take(NAMES_MAX)
            .collect()
    }

    /// The second since 1970 after which it is not valid.
    pub fn not_after(&self) -> Option<i64> {
        let (tag, digits) = self.not_after;
        let digits = digits.strip_suffix(b"Z")?;
        let (year, rest) = match tag {
            UTC_TIME if digits.len() == 12 => {
                let year = number(&digits[..2])?;
                (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
            }
            GENERALIZED_TIME if digits.len() == 14 => (number(&digits[..4])?, &digits[4..]),
            _ => return None,
        };
        let mut parts = [0; 5];
        for (part, digits) in parts.iter_mut().zip(rest.chunks(2)) {
            *part = number(digits)?;
        }
        let [month, day, hour, minute, second] = parts;
        let is_time = (1..=12).contains(&month)
            && (1..=31).contains(&day)
            && hour < 24
            && minute < 60
            && second < 61;
        is_time.then(|| days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second)
    }

    /// The hash function of its signature; `None` if it has none or more than one.
    pub fn signature_hash(&self) -> Option<SignatureHash> {
        const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
        const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
        const SHA2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
        let mut algorithm = Reader(self.algorithm);
        let id = algorithm.expect(OBJECT_ID)?;
        if let Some(id) = id.strip_prefix(RSA) {
            return match id {
                // RSASSA-PSS: the hash is the first of its parameters; SHA-1 without.
                [10] => {
                    let mut parameters = Reader(algorithm.expect(SEQUENCE)?);
                    if parameters.peek() != Some(0xa0) {
                        return Some(SignatureHash::Sha256OrWeaker);
                    }
                    let mut hash = Reader(Reader(parameters.expect(0xa0)?).expect(SEQUENCE)?);
                    sha2(hash.expect(OBJECT_ID)?.strip_prefix(SHA2)?, [1, 2, 3])
                }
                [4 | 5] => Some(SignatureHash::Sha256OrWeaker),
                id => sha2(id, [11, 12, 13]),
            };
        }
        match id.strip_prefix(ECDSA)? {
            [1] => Some(SignatureHash::Sha256OrWeaker),
            [3, id] => sha2(&[*id], [2, 3, 4]),
            _ => None,
        }
    }
}

/// The last arc of an object identifier as one of three hash functions.
fn sha2(id: &[u8], of: [u8; 3]) -> Option<SignatureHash> {
    use SignatureHash::{Sha256OrWeaker, Sha384, Sha512};
    let [id] = id else { return None };
    let hashes = [Sha256OrWeaker, Sha384, Sha512];
    of.iter().zip(hashes).find_map(|(arc, hash)| (arc == id).then_some(hash))
}

/// The names in the extension that has them.
fn alt_names_in(extensions: &[u8]) -> Option<&[u8]> {
    let mut extensions = Reader(extensions);
    loop {
        let mut extension = Reader(extensions.expect(SEQUENCE)?);
        if extension.expect(OBJECT_ID)? != SUBJECT_ALT_NAME_ID {
            continue;
        }
        let (mut tag, mut value) = extension.next()?;
        if tag != OCTET_STRING {
            // The flag that it is critical.
            (tag, value) = extension.next()?;
        }
        return (tag == OCTET_STRING).then(|| Reader(value).expect(SEQUENCE))?;
    }
}

/// A name as text that may stand in a log.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|letter| !letter.is_control()).collect()
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |sum, digit| {
        digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0'))
    })
}

/// Days from 1970-01-01 to a day of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March have their leap day at the end.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// What is left of a DER value.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next element.
    fn next(&mut self) -> Option<Element<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let len = octets.iter().fold(0u64, |len, octet| len << 8 | u64::from(*octet));
                (usize::try_from(len).ok()?, rest)
            }
            _ => return None,
        };
        let (contents, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, contents))
    }

    /// The contents of the next element, if it has this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, contents) = self.next()?;
        (found == tag).then_some(contents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn made(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["mx.example.org".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2031, 3, 1);
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn says_whose_it_is_and_until_when() {
        let der = made(|params| {
            params.distinguished_name.push(DnType::CommonName, "Ann\r\nX: y");
            let mail = "ann@example.org".try_into().unwrap();
            params.subject_alt_names.push(SanType::Rfc822Name(mail));
        });
        let certificate = Certificate::parse(&der).unwrap();
        assert_eq!(certificate.common_name().unwrap(), "AnnX: y", "no line ends in a log");
        assert_eq!(certificate.dns_names(), ["mx.example.org"]);
        assert_eq!(certificate.mail_addresses(), ["ann@example.org"]);
        // date -u -d 2031-03-01 +%s
        assert_eq!(certificate.not_after(), Some(1_930_089_600));
        assert_eq!(certificate.signature_hash(), Some(SignatureHash::Sha256OrWeaker));
        let far = made(|params| params.not_after = rcgen::date_time_ymd(2096, 2, 29));
        // date -u -d 2096-02-29 +%s
        assert_eq!(Certificate::parse(&far).unwrap().not_after(), Some(3_981_312_000));
    }

    #[test]
    fn a_certificate_that_was_cut_or_changed_is_read_without_harm() {
        let der = made(|_| {});
        for len in 0..der.len() {
            assert!(Certificate::parse(&der[..len]).is_none(), "{len} octets are not all of it");
        }
        let mut spoilt = der.clone();
        for at in 0..der.len() {
            for mask in [0x01, 0x80, 0xff] {
                spoilt[at] ^= mask;
                if let Some(read) = Certificate::parse(&spoilt) {
                    let names = read.dns_names().len() + read.mail_addresses().len();
                    assert!(names <= NAMES_MAX);
                    let name = read.common_name().unwrap_or_default();
                    assert!(!name.contains(char::is_control));
                    let _ = (read.not_after(), read.signature_hash());
                }
                spoilt[at] ^= mask;
            }
        }
    }
}
