//! The header of the PROXY protocol, versions 1 and 2, by which a load balancer
//! tells who is behind a connection ("The PROXY protocol", HAProxy
//! Technologies, 2020; sections 2.1 and 2.2).
//!
//! Called by the receiving session with what a connection began with, again and
//! again until the header is whole. Pure, and borrows nothing.
//!
//! Security: the header is believed without proof, so the caller asks for it
//! only where the peer is one of the configured proxies, and takes no connection
//! without it there: which protocol is spoken is never guessed. What is not
//! exactly a header is refused, and no more than [`HEADER_MAX`] bytes are ever
//! waited for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::{FromStr, from_utf8};

use crate::base::checksum::crc32c;

/// Longest header taken, in bytes. One of version 1 has 107 at most; one of
/// version 2 could be longer, with extensions that nobody needs here.
pub const HEADER_MAX: usize = 4096;
/// Longest header of version 1, CRLF included (section 2.1).
const LINE_MAX: usize = 107;
/// What version 2 begins with (section 2.2).
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and protocol, length.
const FIXED: usize = 16;
/// The extension that holds a checksum (section 2.2.2).
const TYPE_CRC32C: u8 = 0x03;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// The connection is the proxy's own, to see whether we live: its addresses
    /// are those of the connection.
    Local,
    /// The proxy does not know the client, or its address is none of IP.
    Unknown,
    /// It stands for a connection between these two.
    Client {
        /// The client.
        source: SocketAddr,
        /// What the client connected to.
        destination: SocketAddr,
    },
}

/// Why something is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It begins as no header does.
    Signature,
    /// A line of version 1 that is too long.
    LineTooLong,
    /// A word of version 1 is missing, malformed or too much.
    Line,
    /// Another version than 1 and 2, or an unknown command.
    Version,
    /// A family or protocol that is none of the standard, or not a stream.
    Family,
    /// A length too short for the addresses, or more than [`HEADER_MAX`].
    Length,
    /// Extensions that do not fill their place.
    Extensions,
    /// The checksum is wrong.
    Checksum,
}

impl Malformed {
    /// In words, for the log.
    pub fn text(self) -> &'static str {
        match self {
            Malformed::Signature => "no PROXY header",
            Malformed::LineTooLong => "PROXY line longer than 107 bytes",
            Malformed::Line => "malformed PROXY line",
            Malformed::Version => "unknown version or command in PROXY header",
            Malformed::Family => "unknown address family in PROXY header",
            Malformed::Length => "PROXY header of a length that does not fit",
            Malformed::Extensions => "malformed extension in PROXY header",
            Malformed::Checksum => "wrong checksum in PROXY header",
        }
    }
}

/// The header that `input` begins with and its length in bytes; `None` while
/// more must come.
///
/// # Errors
/// What is wrong; for most faults before the header is whole.
pub fn parse(input: &[u8]) -> Result<Option<(usize, Said)>, Malformed> {
    let begins = |with: &[u8]| {
        let len = input.len().min(with.len());
        input[..len] == with[..len]
    };
    if begins(&SIGNATURE) {
        binary(input)
    } else if begins(b"PROXY ") {
        line(input)
    } else {
        Err(Malformed::Signature)
    }
}

/// How many bytes may be read without reading past the header that `input` is
/// the beginning of; at least 1. What follows a header may be TLS, which is not
/// for the reader of the header.
pub fn lacking(input: &[u8]) -> usize {
    /// The shortest line: `PROXY UNKNOWN`.
    const LINE_MIN: usize = 15;
    let least = match input.first() {
        Some(&first) if first == SIGNATURE[0] => match input.get(14..FIXED) {
            Some(&[high, low]) => FIXED + usize::from(u16::from_be_bytes([high, low])),
            _ => FIXED,
        },
        _ if input.len() < LINE_MIN => LINE_MIN,
        _ if input.ends_with(b"\r") => input.len() + 1,
        _ => input.len() + 2,
    };
    least.saturating_sub(input.len()).max(1)
}

/// Version 1.
fn line(input: &[u8]) -> Result<Option<(usize, Said)>, Malformed> {
    let seen = &input[..input.len().min(LINE_MAX)];
    let Some(end) = memchr::memchr(b'\r', seen) else {
        return if seen.len() < LINE_MAX { Ok(None) } else { Err(Malformed::LineTooLong) };
    };
    match seen.get(end + 1) {
        None if end + 1 < LINE_MAX => return Ok(None),
        None => return Err(Malformed::LineTooLong),
        Some(b'\n') => {}
        Some(_) => return Err(Malformed::Line),
    }
    let text = from_utf8(&seen[..end]).map_err(|_| Malformed::Line)?;
    let rest = text.strip_prefix("PROXY ").ok_or(Malformed::Line)?;
    let (family, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let said = match family {
        "TCP4" => addresses::<Ipv4Addr>(rest)?,
        "TCP6" => addresses::<Ipv6Addr>(rest)?,
        // What follows is to be passed over.
        "UNKNOWN" => Said::Unknown,
        _ => return Err(Malformed::Line),
    };
    Ok(Some((end + 2, said)))
}

/// `source destination source-port destination-port`.
fn addresses<A: FromStr + Into<IpAddr>>(words: &str) -> Result<Said, Malformed> {
    let mut words = words.split(' ');
    let mut next = || words.next().ok_or(Malformed::Line);
    let (source, destination) = (next()?, next()?);
    let (source_port, destination_port) = (next()?, next()?);
    if words.next().is_some() {
        return Err(Malformed::Line);
    }
    let address = |text: &str| text.parse::<A>().map(Into::into).map_err(|_| Malformed::Line);
    let port = |text: &str| {
        let digits = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits).ok_or(Malformed::Line)
    };
    Ok(Said::Client {
        source: SocketAddr::new(address(source)?, port(source_port)?),
        destination: SocketAddr::new(address(destination)?, port(destination_port)?),
    })
}

/// Version 2.
fn binary(input: &[u8]) -> Result<Option<(usize, Said)>, Malformed> {
    let is_local = match input.get(SIGNATURE.len()) {
        None => return Ok(None),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => return Err(Malformed::Version),
    };
    let family = match input.get(13) {
        None => return Ok(None),
        // The family of what is local is to be passed over.
        Some(_) if is_local => Family::None,
        Some(0x00) => Family::None,
        Some(0x11) => Family::V4,
        Some(0x21) => Family::V6,
        Some(0x31) => Family::Unix,
        Some(_) => return Err(Malformed::Family),
    };
    let Some(&[high, low]) = input.get(14..FIXED) else { return Ok(None) };
    let total = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if total > HEADER_MAX || total < FIXED + family.len() {
        return Err(Malformed::Length);
    }
    let Some(header) = input.get(..total) else { return Ok(None) };
    let body = &header[FIXED..];
    if is_local {
        return Ok(Some((total, Said::Local)));
    }
    if !matches!(family, Family::None) {
        check_extensions(header, FIXED + family.len())?;
    }
    let said = match family {
        Family::None | Family::Unix => Said::Unknown,
        Family::V4 => {
            let at = |from: usize| Ipv4Addr::from(array::<4>(body, from));
            client(at(0).into(), at(4).into(), body, 8)
        }
        Family::V6 => {
            let at = |from: usize| Ipv6Addr::from(array::<16>(body, from));
            client(at(0).into(), at(16).into(), body, 32)
        }
    };
    Ok(Some((total, said)))
}

/// Which addresses version 2 holds.
#[derive(Clone, Copy)]
enum Family {
    None,
    V4,
    V6,
    Unix,
}

impl Family {
    /// Bytes of the two addresses and ports.
    fn len(self) -> usize {
        match self {
            Family::None => 0,
            Family::V4 => 12,
            Family::V6 => 36,
            Family::Unix => 216,
        }
    }
}

fn client(source: IpAddr, destination: IpAddr, body: &[u8], ports: usize) -> Said {
    let port = |from: usize| u16::from_be_bytes(array(body, from));
    Said::Client {
        source: SocketAddr::new(source, port(ports)),
        destination: SocketAddr::new(destination, port(ports + 2)),
    }
}

/// `N` bytes of `body`, whose length was checked.
fn array<const N: usize>(body: &[u8], from: usize) -> [u8; N] {
    body[from..from + N].try_into().expect("a slice of N bytes")
}

/// The extensions from `at` to the end of the header: each fits, and a checksum
/// is right. What else they say is of no use here.
fn check_extensions(header: &[u8], mut at: usize) -> Result<(), Malformed> {
    while at < header.len() {
        let Some(&[kind, high, low]) = header.get(at..at + 3) else {
            return Err(Malformed::Extensions);
        };
        let value = at + 3;
        at = value + usize::from(u16::from_be_bytes([high, low]));
        if at > header.len() {
            return Err(Malformed::Extensions);
        }
        if kind == TYPE_CRC32C {
            let sum: [u8; 4] = header[value..at].try_into().map_err(|_| Malformed::Extensions)?;
            // The sum is that of the header with zeroes in its place.
            let zeroed = crc32c(crc32c(0, &header[..value]), &[0; 4]);
            if crc32c(zeroed, &header[at..]) != u32::from_be_bytes(sum) {
                return Err(Malformed::Checksum);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(source: &str, destination: &str) -> Said {
        Said::Client { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    /// A header of version 2.
    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([command, family]);
        header.extend((body.len() as u16).to_be_bytes());
        header.extend(body);
        header
    }

    /// 192.0.2.1:1025 to 198.51.100.2:25.
    const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 4, 1, 0, 25];

    #[test]
    fn version_1_is_read() {
        for (line, said) in [
            (
                "PROXY TCP4 192.0.2.1 198.51.100.2 56324 25\r\n",
                client("192.0.2.1:56324", "198.51.100.2:25"),
            ),
            (
                "PROXY TCP6 2001:db8::1 2001:db8::2 65535 0\r\n",
                client("[2001:db8::1]:65535", "[2001:db8::2]:0"),
            ),
            ("PROXY UNKNOWN\r\n", Said::Unknown),
            ("PROXY UNKNOWN ffff:f...f:ffff anything 65535 at all\r\n", Said::Unknown),
        ] {
            let with_more = format!("{line}EHLO");
            assert_eq!(parse(with_more.as_bytes()), Ok(Some((line.len(), said))), "{line}");
        }
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(107 - 16));
        assert_eq!(parse(longest.as_bytes()), Ok(Some((107, Said::Unknown))));
    }

    #[test]
    fn what_is_not_quite_version_1_is_refused() {
        for line in [
            "PROXY\r\n",
            "PROXY \r\n",
            "PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
            "PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 000001 2\r\n",
            "PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP6 [2001:db8::1] 2001:db8::2 1 2\r\n",
            "PROXY TCP6 fe80::1%eth0 2001:db8::2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rX",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n\r\n",
            "PROXY TCP4 192.0.2.1\0 192.0.2.2 1 2\r\n",
            "proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            " PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "EHLO client.example\r\n",
            "\r\n\r\nQUIT\r\n",
        ] {
            assert!(parse(line.as_bytes()).is_err(), "{line:?}: {:?}", parse(line.as_bytes()));
        }
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(107 - 14));
        assert_eq!(parse(endless.as_bytes()), Err(Malformed::LineTooLong));
        assert_eq!(parse(&endless.as_bytes()[..106]), Ok(None));
    }

    #[test]
    fn version_2_is_read() {
        let v6: Vec<u8> = [
            &Ipv6Addr::from_str("2001:db8::1").unwrap().octets()[..],
            &Ipv6Addr::from_str("2001:db8::2").unwrap().octets(),
            &[0, 7, 0, 25],
        ]
        .concat();
        let alpn = [&V4[..], &[0x01, 0, 2, b'h', b'2']].concat();
        for (header, said) in [
            (v2(0x21, 0x11, &V4), client("192.0.2.1:1025", "198.51.100.2:25")),
            (v2(0x21, 0x21, &v6), client("[2001:db8::1]:7", "[2001:db8::2]:25")),
            (v2(0x21, 0x11, &alpn), client("192.0.2.1:1025", "198.51.100.2:25")),
            (v2(0x21, 0x00, b"whatever"), Said::Unknown),
            (v2(0x21, 0x31, &[b'/'; 216]), Said::Unknown),
            (v2(0x20, 0x00, b""), Said::Local),
            (v2(0x20, 0x11, &V4), Said::Local),
            (v2(0x20, 0xff, b"?"), Said::Local),
        ] {
            let with_more = [&header[..], b"EHLO"].concat();
            assert_eq!(parse(&with_more), Ok(Some((header.len(), said))), "{header:?}");
        }
    }

    #[test]
    fn what_is_not_quite_version_2_is_refused() {
        let after = |extra: &[u8]| [&V4[..], extra].concat();
        for (header, why) in [
            (v2(0x11, 0x11, &V4), Malformed::Version),
            (v2(0x22, 0x11, &V4), Malformed::Version),
            (v2(0x21, 0x12, &V4), Malformed::Family),
            (v2(0x21, 0x13, &V4), Malformed::Family),
            (v2(0x21, 0x41, &V4), Malformed::Family),
            (v2(0x21, 0x11, &V4[..11]), Malformed::Length),
            (v2(0x21, 0x21, &V4), Malformed::Length),
            (v2(0x21, 0x31, &V4), Malformed::Length),
            (v2(0x21, 0x11, &[0; HEADER_MAX]), Malformed::Length),
            (v2(0x20, 0x00, &[0; HEADER_MAX]), Malformed::Length),
            (v2(0x21, 0x11, &after(&[1, 0])), Malformed::Extensions),
            (v2(0x21, 0x11, &after(&[1, 0, 9, 0])), Malformed::Extensions),
            (v2(0x21, 0x11, &after(&[TYPE_CRC32C, 0, 1, 0])), Malformed::Extensions),
        ] {
            assert_eq!(parse(&header), Err(why), "{header:?}");
        }
    }

    #[test]
    fn a_checksum_is_held_against_the_header() {
        let mut header = v2(0x21, 0x11, &[&V4[..], &[TYPE_CRC32C, 0, 4, 0, 0, 0, 0]].concat());
        let sum = crc32c(0, &header).to_be_bytes();
        let at = header.len() - 4;
        assert_eq!(parse(&header), Err(Malformed::Checksum));
        header[at..].copy_from_slice(&sum);
        assert_eq!(
            parse(&header),
            Ok(Some((header.len(), client("192.0.2.1:1025", "198.51.100.2:25"))))
        );
        header[FIXED] ^= 1;
        assert_eq!(parse(&header), Err(Malformed::Checksum));
    }

    #[test]
    fn nothing_is_read_past_a_header() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(107 - 16));
        for header in [
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 11 2\r\n".to_vec(),
            long.into_bytes(),
            v2(0x21, 0x11, &V4),
            v2(0x20, 0x00, b""),
            v2(0x21, 0x00, &[0; 2000]),
        ] {
            let mut read = 0;
            while parse(&header[..read]) == Ok(None) {
                read += lacking(&header[..read]);
                assert!(read <= header.len(), "{header:?}");
            }
            assert_eq!(parse(&header[..read]).unwrap().unwrap().0, header.len());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// However the bytes arrive, the same is read: a part of a header is a
        /// part, and what is wrong does not become right.
        #[test]
        fn cuts_do_not_matter(
            start in prop_oneof![
                Just(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec()),
                Just(v2(0x21, 0x11, &V4)),
                Just(v2(0x20, 0x00, b"abc")),
                Just(Vec::new()),
            ],
            place in 0usize..60,
            byte in any::<u8>(),
            tail in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut input = [start, tail].concat();
            if let Some(at) = input.get_mut(place) {
                *at = byte;
            }
            let whole = parse(&input);
            for end in 0..input.len() {
                match (parse(&input[..end]), whole) {
                    (Ok(None), _) => {}
                    (Ok(Some(read)), whole) => {
                        prop_assert_eq!(whole, Ok(Some(read)));
                        prop_assert!(read.0 <= end);
                    }
                    (Err(_), whole) => prop_assert!(whole.is_err()),
                }
            }
        }
    }
}
