//! One message as the sink takes it in, chunk by chunk: its size, its mark and
//! checksum for the ledger, its text for a Maildir, its subject for the line
//! that is printed. Each of these only when asked for: with `--discard` there
//! is no receipt at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use ringpost::mail::headers;
use ringpost::mail::stuffing::Unstuffer;

use crate::message::{Found, Mark, find_mark};

/// Header bytes that are looked through for the mark or the subject.
const HEAD_MAX: usize = 64 * 1024;

/// Finds the mark of a message, and the checksum of what follows it.
#[derive(Debug, Default)]
pub struct Sum {
    head: Vec<u8>,
    mark: Option<Mark>,
    unmarked: bool,
    crc: u32,
}

impl Sum {
    /// Takes the next bytes.
    pub fn take(&mut self, chunk: &[u8]) {
        if self.mark.is_some() {
            self.crc = crc32c::crc32c_append(self.crc, chunk);
        } else if !self.unmarked {
            self.seek(chunk);
        }
    }

    fn seek(&mut self, chunk: &[u8]) {
        // Mostly the mark is in the first chunk, which then is not copied.
        let whole = if self.head.is_empty() {
            chunk
        } else {
            self.head.extend_from_slice(chunk);
            &self.head
        };
        match find_mark(whole) {
            Found::At(mark, at) => {
                self.mark = Some(mark);
                self.crc = crc32c::crc32c(&whole[at..]);
                self.head = Vec::new();
            }
            Found::No => self.unmarked = true,
            Found::Unknown if whole.len() > HEAD_MAX => self.unmarked = true,
            Found::Unknown if self.head.is_empty() => self.head.extend_from_slice(chunk),
            Found::Unknown => {}
        }
    }

    /// The mark, if there was one, and the checksum.
    pub fn result(&self) -> (Option<Mark>, u32) {
        (self.mark, self.crc)
    }
}

/// Keeps the beginning of a message for the line that is printed.
#[derive(Debug, Default)]
pub struct Head(Vec<u8>);

impl Head {
    /// Takes the next bytes.
    pub fn take(&mut self, chunk: &[u8]) {
        let room = HEAD_MAX - self.0.len();
        self.0.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }

    /// The subject, with what cannot be printed replaced.
    pub fn subject(&self) -> String {
        let subject = headers::fields(&self.0).find(|field| field.is("Subject"));
        let value = subject.map(|field| String::from_utf8_lossy(&field.value()).into_owned());
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        value.unwrap_or_default().chars().map(printable).collect()
    }
}

/// A Maildir that messages are put into.
#[derive(Clone, Debug)]
pub struct Maildir {
    dir: PathBuf,
}

/// Makes names of one process unique.
static DELIVERIES: AtomicU64 = AtomicU64::new(0);

impl Maildir {
    /// The Maildir at `dir`, made if it does not exist.
    ///
    /// # Errors
    /// Those of making directories.
    pub fn open(dir: &Path) -> io::Result<Self> {
        for part in ["tmp", "new", "cur"] {
            fs::create_dir_all(dir.join(part))?;
        }
        Ok(Maildir { dir: dir.to_owned() })
    }

    /// Begins a delivery.
    ///
    /// # Errors
    /// Those of making the file.
    pub fn begin(&self, sender: &str, recipients: &[String]) -> io::Result<Delivery> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let number = DELIVERIES.fetch_add(1, Ordering::Relaxed);
        let (seconds, micros) = (now.as_secs(), now.subsec_micros());
        let name = format!("{seconds}.M{micros}P{}Q{number}.sink", std::process::id());
        let from = self.dir.join("tmp").join(&name);
        let mut file = BufWriter::new(File::create_new(&from)?);
        writeln!(file, "Return-Path: <{sender}>")?;
        for recipient in recipients {
            writeln!(file, "Delivered-To: {recipient}")?;
        }
        let to = self.dir.join("new").join(name);
        Ok(Delivery { file: Some(file), from, to, unstuffer: Unstuffer::new(), held_cr: false })
    }
}

/// A message on its way into a Maildir. Removed again unless finished.
#[derive(Debug)]
pub struct Delivery {
    file: Option<BufWriter<File>>,
    from: PathBuf,
    to: PathBuf,
    unstuffer: Unstuffer,
    held_cr: bool,
}

impl Delivery {
    /// Takes the next bytes; lines end in LF in a Maildir.
    ///
    /// # Errors
    /// Those of writing the file.
    pub fn take(&mut self, chunk: &[u8]) -> io::Result<()> {
        let file = self.file.as_mut().expect("a delivery is finished once");
        for piece in self.unstuffer.chunk(chunk) {
            write_lines(piece, &mut self.held_cr, file)?;
        }
        Ok(())
    }

    /// The message is whole: into `new` with it.
    ///
    /// # Errors
    /// Those of writing and renaming the file.
    pub fn finish(mut self) -> io::Result<()> {
        let mut file = self.file.take().expect("a delivery is finished once");
        if self.held_cr {
            file.write_all(b"\r")?;
        }
        file.flush()?;
        drop(file);
        fs::rename(&self.from, &self.to)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = fs::remove_file(&self.from);
        }
    }
}

/// Writes `piece` with CRLF turned into LF; a CR that may begin one is held
/// back in `held_cr` until what follows is known.
fn write_lines(piece: &[u8], held_cr: &mut bool, out: &mut impl Write) -> io::Result<()> {
    for run in piece.split_inclusive(|&byte| byte == b'\n' || byte == b'\r') {
        if std::mem::take(held_cr) && run != b"\n" {
            out.write_all(b"\r")?;
        }
        match run.strip_suffix(b"\r") {
            Some(text) => {
                out.write_all(text)?;
                *held_cr = true;
            }
            None => out.write_all(run)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Template;

    fn marked(mark: Mark, text: &str) -> (Vec<u8>, u32) {
        let template = Template::from_file(text.as_bytes());
        let mut wire = b"Received: from a\r\n by b\r\n".to_vec();
        mark.write(&mut wire);
        wire.extend_from_slice(&template.wire);
        (wire, template.crc)
    }

    #[test]
    fn the_checksum_does_not_depend_on_how_the_message_is_cut() {
        let mark = Mark { run: 3, seq: 4 };
        let (wire, crc) = marked(mark, "Subject: x\n\n.dot\nlast\n");
        for cut in 0..wire.len() {
            for later in [cut, (cut + 7).min(wire.len())] {
                let mut sum = Sum::default();
                for chunk in [&wire[..cut], &wire[cut..later], &wire[later..]] {
                    sum.take(chunk);
                }
                assert_eq!(sum.result(), (Some(mark), crc), "cut at {cut}, {later}");
            }
        }
        let mut sum = Sum::default();
        sum.take(b"Subject: y\r\n\r\n.\r\n");
        assert_eq!(sum.result().0, None);
    }

    #[test]
    fn the_subject_is_printable() {
        let mut head = Head::default();
        head.take(b"A: b\r\nSubj");
        head.take(b"ect: one\r\n two\x1b[2J\r\n\r\nSubject: no\r\n");
        assert_eq!(head.subject(), "one two [2J");
        assert_eq!(Head::default().subject(), "");
    }

    #[test]
    fn a_maildir_gets_the_text_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let maildir = Maildir::open(dir.path()).unwrap();
        let wire = b"A: b\r\n\r\n..dot\r\nbare\rcr\r\r\nend\r\n.\r\n";
        for cut in 0..wire.len() {
            let mut delivery = maildir.begin("s@a", &["r@b".into()]).unwrap();
            delivery.take(&wire[..cut]).unwrap();
            delivery.take(&wire[cut..]).unwrap();
            delivery.finish().unwrap();
        }
        drop(maildir.begin("s@a", &[]).unwrap());
        let read = |part: &str| -> Vec<String> {
            let files = fs::read_dir(dir.path().join(part)).unwrap();
            files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect()
        };
        assert!(read("tmp").is_empty(), "what was not finished is removed");
        let texts = read("new");
        assert_eq!(texts.len(), wire.len());
        let expected = "Return-Path: <s@a>\nDelivered-To: r@b\nA: b\n\n.dot\nbare\rcr\r\nend\n";
        assert!(texts.iter().all(|text| text == expected), "{:?}", texts[0]);
    }
}
