//! The ledgers: what the load generator was told `250` for, and what the sink
//! took, one line a message, so that [`crate::verify`] can hold one against the
//! other. Text, to be read with the usual tools:
//!
//! ```text
//! # ringpost ledger: sent
//! MARK  UNIX_NS  LATENCY_NS  CRC32C  RECIPIENT[,RECIPIENT]...
//! # ringpost ledger: received
//! MARK  UNIX_NS  SIZE        CRC32C  RECIPIENT[,RECIPIENT]...
//! ```
//!
//! Separated by single spaces. UNIX_NS is when the `250` was read (sent) or
//! written (received); the CRC covers what follows the mark's header line. In
//! addresses, octets that are no printable ASCII, `%` and `,` are written as
//! `%XX`. A message without a mark (a delivery report, say) has `-` for it.
//!
//! Several workers append to one file: each writes whole lines at once to its
//! own descriptor opened for appending.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use crate::message::Mark;

/// Which side wrote a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The load generator.
    Sent,
    /// The sink.
    Received,
}

impl Side {
    /// First line of the file.
    fn title(self) -> &'static str {
        match self {
            Side::Sent => "# ringpost ledger: sent",
            Side::Received => "# ringpost ledger: received",
        }
    }
}

/// Makes an empty ledger, or empties one.
///
/// # Errors
/// Those of creating and writing the file.
pub fn create(path: &Path, side: Side) -> io::Result<()> {
    let mut file = File::create(path)?;
    writeln!(file, "{}", side.title())
}

/// Bytes gathered before they are written.
const BUFFERED: usize = 64 * 1024;

/// One worker's end of a ledger.
pub struct Writer {
    file: File,
    lines: Vec<u8>,
}

impl Writer {
    /// Appends to the ledger at `path`, which exists.
    ///
    /// # Errors
    /// Those of opening the file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).open(path)?;
        Ok(Writer { file, lines: Vec::with_capacity(BUFFERED + 4096) })
    }

    /// Notes one message. `figure` is the latency or the size.
    ///
    /// # Errors
    /// Those of writing the file.
    pub fn note<'a>(
        &mut self,
        mark: Option<Mark>,
        unix_ns: u64,
        figure: u64,
        crc: u32,
        recipients: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<()> {
        match mark {
            Some(mark) => self.lines.extend_from_slice(&mark.encode()),
            None => self.lines.push(b'-'),
        }
        write!(self.lines, " {unix_ns} {figure} {crc:08x} ")?;
        for (index, recipient) in recipients.enumerate() {
            if index > 0 {
                self.lines.push(b',');
            }
            escape(recipient, &mut self.lines);
        }
        self.lines.push(b'\n');
        if self.lines.len() >= BUFFERED { self.flush() } else { Ok(()) }
    }

    /// Hands what is gathered to the kernel.
    ///
    /// # Errors
    /// Those of writing the file.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.lines)?;
        self.lines.clear();
        Ok(())
    }
}

fn escape(address: &[u8], out: &mut Vec<u8>) {
    for &byte in address {
        if byte.is_ascii_graphic() && byte != b'%' && byte != b',' {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
}

/// One line of a ledger. Recipients stay as written, escapes included, which
/// is enough to compare them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Which message; `None` for one that is none of ours.
    pub mark: Option<Mark>,
    /// When, in nanoseconds since the epoch.
    pub unix_ns: u64,
    /// Latency in nanoseconds (sent) or size in bytes (received).
    pub figure: u64,
    /// Of what follows the mark.
    pub crc: u32,
    /// Accepted recipients, separated by commas.
    pub recipients: &'a str,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split(' ');
        let mark = match words.next()? {
            "-" => None,
            text => Some(text.parse().ok()?),
        };
        let unix_ns = words.next()?.parse().ok()?;
        let figure = words.next()?.parse().ok()?;
        let crc = u32::from_str_radix(words.next()?, 16).ok()?;
        let recipients = words.next()?;
        words.next().is_none().then_some(Entry { mark, unix_ns, figure, crc, recipients })
    }
}

/// Calls `each` with every entry of the ledger at `path`. A last line without
/// its end, as a killed writer leaves it, is passed over.
///
/// # Errors
/// Those of reading; `InvalidData` with the line's number when the file is not
/// a ledger of this side or has a line that is none.
pub fn read(path: &Path, side: Side, mut each: impl FnMut(Entry<'_>)) -> io::Result<()> {
    let fail = |line: usize, what: &str| {
        let text = format!("{}:{line}: {what}", path.display());
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    };
    let file = File::open(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    let mut input = BufReader::with_capacity(1 << 20, file);
    let mut line = String::new();
    input.read_line(&mut line)?;
    if line.trim_end() != side.title() {
        return fail(1, &format!("not a ledger of this side: no \"{}\"", side.title()));
    }
    for number in 2.. {
        line.clear();
        input.read_line(&mut line)?;
        let Some(text) = line.strip_suffix('\n') else { break };
        match Entry::parse(text) {
            Some(entry) => each(entry),
            None => return fail(number, "not a line of a ledger"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        create(&path, Side::Sent).unwrap();
        let mark = Mark { run: 7, seq: 9 };
        let mut writer = Writer::open(&path).unwrap();
        let odd: [&[u8]; 2] = [b"a@b", b"\"c, %\"@d"];
        writer.note(Some(mark), 1_000, 20, 0xabc, odd.into_iter()).unwrap();
        writer.note(None, 2_000, 30, 0, [b"x@y".as_slice()].into_iter()).unwrap();
        writer.flush().unwrap();
        writer.file.write_all(b"0000").unwrap();
        let mut seen = Vec::new();
        read(&path, Side::Sent, |entry| {
            seen.push((entry.mark, entry.unix_ns, entry.figure, entry.crc));
            assert_eq!(entry.recipients, ["a@b,\"c%2C%20%25\"@d", "x@y"][seen.len() - 1]);
        })
        .unwrap();
        assert_eq!(seen, [(Some(mark), 1_000, 20, 0xabc), (None, 2_000, 30, 0)]);
        assert!(read(&path, Side::Received, |_| ()).is_err());
        writer.file.write_all(b"\n").unwrap();
        let error = read(&path, Side::Sent, |_| ()).unwrap_err().to_string();
        assert!(error.ends_with("ledger:4: not a line of a ledger"), "{error}");
    }
}
