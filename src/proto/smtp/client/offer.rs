//! What a server offers in its reply to EHLO (RFC 5321, section 4.1.1.1), as
//! far as a relay makes use of it, and what a message needs of it.

use std::fmt;

use crate::base::{EnhancedCode, Reply};

/// The extensions a server offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// SIZE (RFC 1870): the largest message in octets, 0 for no fixed limit.
    pub size: Option<u64>,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
}

impl Offer {
    /// Takes note of one line of the reply to EHLO, the first one excepted.
    pub fn learn(&mut self, line: &[u8]) {
        let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let Some(keyword) = words.next() else { return };
        if keyword.eq_ignore_ascii_case(b"PIPELINING") {
            self.pipelining = true;
        } else if keyword.eq_ignore_ascii_case(b"8BITMIME") {
            self.eight_bit_mime = true;
        } else if keyword.eq_ignore_ascii_case(b"SMTPUTF8") {
            self.smtputf8 = true;
        } else if keyword.eq_ignore_ascii_case(b"DSN") {
            self.dsn = true;
        } else if keyword.eq_ignore_ascii_case(b"SIZE") {
            let number = words.next().and_then(|word| std::str::from_utf8(word).ok());
            self.size = Some(number.and_then(|number| number.parse().ok()).unwrap_or(0));
        }
    }

    /// Holds what a message needs against the offer.
    ///
    /// # Errors
    /// The server cannot take the message, now or ever.
    pub fn admits(&self, transaction: &super::Transaction<'_>) -> Result<(), Unsupported> {
        if transaction.smtputf8 && !self.smtputf8 {
            return Err(Unsupported::Utf8);
        }
        if transaction.eight_bit && !self.eight_bit_mime {
            return Err(Unsupported::EightBit);
        }
        match self.size {
            Some(max) if max > 0 && transaction.size > max => Err(Unsupported::Size { max }),
            _ => Ok(()),
        }
    }
}

/// Why a message cannot be given to a server. All are permanent: nothing is
/// converted on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// An eight-bit body, and no 8BITMIME.
    EightBit,
    /// Internationalised addresses or headers, and no SMTPUTF8.
    Utf8,
    /// Larger than the SIZE the server gives.
    Size {
        /// That size, in octets.
        max: u64,
    },
    /// An address that cannot be written in a command.
    Address,
}

impl Unsupported {
    /// As the reply that a server would have given.
    pub fn reply(self) -> Reply {
        let (code, enhanced) = match self {
            Unsupported::EightBit => (554, EnhancedCode(5, 6, 3)),
            Unsupported::Utf8 => (553, EnhancedCode(5, 6, 7)),
            Unsupported::Size { .. } => (552, EnhancedCode(5, 3, 4)),
            Unsupported::Address => (553, EnhancedCode(5, 1, 3)),
        };
        Reply::new(code, enhanced, self.to_string())
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unsupported::EightBit => {
                f.write_str("the body has 8-bit octets and the next hop does not offer 8BITMIME")
            }
            Unsupported::Utf8 => f.write_str(
                "addresses or headers are internationalised and the next hop does not offer \
                 SMTPUTF8",
            ),
            Unsupported::Size { max } => {
                write!(f, "the message is larger than the {max} octets that the next hop takes")
            }
            Unsupported::Address => f.write_str("an address holds control characters"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_in_any_case_and_sizes_of_any_kind() {
        let mut offer = Offer::default();
        for line in
            [&b"pipelining"[..], b"SIZE 1000", b"8BitMime", b"", b"XFOO bar", b"SMTPUTF8 x", b"dsn"]
        {
            offer.learn(line);
        }
        let all = Offer {
            pipelining: true,
            size: Some(1000),
            eight_bit_mime: true,
            smtputf8: true,
            dsn: true,
        };
        assert_eq!(offer, all);
        for unlimited in [&b"SIZE"[..], b"SIZE 0", b"SIZE many"] {
            offer.learn(unlimited);
            assert_eq!(offer.size, Some(0));
        }
    }
}
