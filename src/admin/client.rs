//! The caller's end of the admin socket: puts a question (`wire`), waits for
//! its answer, and explains to an operator why there is none.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::failure::Failure;
use super::wire::{Answer, Ask};

/// How long the server may take for one answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest line of an answer, in bytes: a page of messages with thousands of
/// recipients each.
const ANSWER_MAX: u64 = 1 << 30;

/// What can go wrong between a question and its print.
pub enum Trouble {
    /// Standard output takes no more.
    Printing(io::Error),
    /// The server said no, or nothing that makes sense.
    Server(Failure),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::Printing(error)
    }
}

/// A connection to the admin socket.
pub struct Server {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

impl Server {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// Nobody listens there, or only for others.
    pub fn connect(path: &Path) -> Result<Server, Failure> {
        let connected = UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        });
        let stream = connected.map_err(|error| {
            let remedy = match error.kind() {
                io::ErrorKind::PermissionDenied => "run this as the user that runs ringpost",
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    "ringpost does not run with this configuration; start it, or name its \
                     configuration with -c or its socket with --socket"
                }
                _ => "see [admin] socket in the configuration",
            };
            let path = path.display();
            Failure::runtime(format!("cannot reach the server at {path}: {error}; {remedy}"))
        })?;
        Ok(Server { stream: BufReader::new(stream), path: path.to_owned() })
    }

    /// Puts a question; an answer that says what is wrong is an error.
    ///
    /// # Errors
    /// That, or an answer that makes no sense.
    pub fn ask(&mut self, ask: &Ask) -> Result<Answer, Trouble> {
        self.put(ask).map_err(|error| self.broken(&error))?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Answer, Trouble> {
        let line = self.line().map_err(|error| self.broken(&error))?;
        match serde_json::from_slice(&line) {
            Ok(Answer::Error(wrong)) => Err(Trouble::Server(Failure::runtime(wrong))),
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.broken(&error.into())),
        }
    }

    /// Copies to `out` the bytes that follow an answer, part by part.
    ///
    /// # Errors
    /// The server says that it cannot go on, or breaks off.
    pub fn copy_parts(&mut self, out: &mut impl Write) -> Result<(), Trouble> {
        loop {
            match self.answer()? {
                Answer::Part(0) => return Ok(()),
                Answer::Part(length) => self.copy(length as u64, out)?,
                _ => return Err(self.unexpected()),
            }
        }
    }

    fn copy(&mut self, mut left: u64, out: &mut impl Write) -> Result<(), Trouble> {
        while left > 0 {
            let taken = {
                let bytes = match self.stream.fill_buf() {
                    Ok([]) => Err(io::ErrorKind::UnexpectedEof.into()),
                    other => other,
                };
                match bytes {
                    Ok(bytes) => {
                        let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                        out.write_all(&bytes[..taken])?;
                        Ok(taken)
                    }
                    Err(error) => Err(error),
                }
            };
            let taken = taken.map_err(|error| self.broken(&error))?;
            self.stream.consume(taken);
            left -= taken as u64;
        }
        Ok(())
    }

    fn put(&mut self, ask: &Ask) -> io::Result<()> {
        let mut request = serde_json::to_vec(ask)?;
        request.push(b'\n');
        self.stream.get_mut().write_all(&request)
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        (&mut self.stream).take(ANSWER_MAX).read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line)
    }

    /// The server broke off, or sent what cannot be.
    pub fn broken(&self, error: &io::Error) -> Trouble {
        let what = match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "did not answer in time",
            io::ErrorKind::UnexpectedEof => "hung up: it is stopping, or of another version",
            _ => "gave no answer that this version understands",
        };
        Trouble::Server(Failure::runtime(format!(
            "the server at {} {what} ({error}); its log says more",
            self.path.display()
        )))
    }

    /// An answer of the wrong kind.
    pub fn unexpected(&self) -> Trouble {
        self.broken(&io::ErrorKind::InvalidData.into())
    }
}
