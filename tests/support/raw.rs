//! A connection that says what it is told and hears lines: for clients that do
//! not behave.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::peer::PATIENCE;

/// A client's connection.
pub struct Raw(BufReader<TcpStream>);

impl Raw {
    /// Connects.
    pub fn connect(to: SocketAddr) -> Raw {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Raw(BufReader::new(stream))
    }

    /// Connects and hears the greeting.
    pub fn greeted(to: SocketAddr) -> Raw {
        let mut raw = Raw::connect(to);
        let greeting = raw.hear();
        assert!(greeting.starts_with("220 "), "{greeting:?}");
        raw
    }

    /// Sends octets. What a server that has closed does not take is lost.
    pub fn send(&mut self, octets: &[u8]) {
        let _ = self.0.get_mut().write_all(octets);
    }

    /// The sending side, for another thread.
    pub fn sender(&self) -> TcpStream {
        self.0.get_ref().try_clone().unwrap()
    }

    /// The next line without its end; empty when there is none.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        // A reset is an end as well.
        let _ = self.0.read_line(&mut line);
        line.trim_end().to_owned()
    }

    /// Sends a command; the last line of the reply to it.
    pub fn ask(&mut self, command: &str) -> String {
        self.send(format!("{command}\r\n").as_bytes());
        self.reply()
    }

    /// The last line of the next reply; empty when there is none.
    pub fn reply(&mut self) -> String {
        loop {
            let line = self.hear();
            if line.as_bytes().get(3) != Some(&b'-') {
                return line;
            }
        }
    }

    /// True if the server closes and says nothing more.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => rest.is_empty(),
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// Ends the client's side.
    pub fn finish(&self) {
        let _ = self.0.get_ref().shutdown(Shutdown::Write);
    }

    /// The address of the client.
    pub fn address(&self) -> SocketAddr {
        self.0.get_ref().local_addr().unwrap()
    }
}
