//! A connection to a whole server as the [`Transport`] of a dialog, within TLS where
//! the dialog says so.
//!
//! Dialogs know what a server answers to SCRAM, octet by octet. A whole server has a
//! nonce of its own, and keys and a TLS connection that are not those of the dialog:
//! [`Scram`] stands between and says in the words of each what the other said. What
//! is right in the dialog is made right for the server, what is wrong stays wrong,
//! and what the server proves is checked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use ringpost::proto::sasl::base64::{decode, encode};
use rustls::ClientConfig;

use super::dialog::{Accepted, Heard, Setup, Tls, Transport};
use super::engine::{BINDING, NONCE, SALT, USER};
use super::scram::{Secret, attribute, challenge};
use super::tls::{Secure, over, plain};

/// The name that clients ask for.
const NAME: &str = "mx.example";

/// What octets travel over.
trait Channel: Read + Write {
    /// Says that nothing more comes.
    fn finish(&mut self);
}

impl Channel for TcpStream {
    fn finish(&mut self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}

impl Channel for Secure {
    fn finish(&mut self) {
        self.conn.send_close_notify();
        let _ = self.flush();
        self.sock.finish();
    }
}

/// A client's connection.
pub struct Wire {
    channel: BufReader<Box<dyn Channel>>,
    /// What TLS begins with, at STARTTLS.
    socket: TcpStream,
    config: Arc<ClientConfig>,
    is_starting: bool,
    scram: Option<Scram>,
}

impl Wire {
    /// A connection as the dialog needs it.
    pub fn connect(server: SocketAddr, setup: &Setup, config: &Arc<ClientConfig>) -> Wire {
        let socket = plain(server);
        let stream = Box::new(socket.try_clone().unwrap());
        let config = Arc::clone(config);
        let (is_starting, scram) = (setup.tls == Tls::On, None);
        let channel: BufReader<Box<dyn Channel>> = BufReader::new(stream);
        let mut wire = Wire { channel, socket, config, is_starting, scram };
        if is_starting {
            wire.secure();
        }
        wire
    }

    fn secure(&mut self) {
        self.is_starting = false;
        let mut secure = over(self.socket.try_clone().unwrap(), &self.config, NAME);
        while secure.conn.is_handshaking() {
            secure.conn.complete_io(&mut secure.sock).unwrap();
        }
        let binding =
            secure.conn.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None);
        self.scram = Some(Scram::new(binding.unwrap()));
        self.channel = BufReader::new(Box::new(secure));
    }
}

impl Transport for Wire {
    fn send(&mut self, bytes: &[u8]) {
        if self.is_starting {
            self.secure();
        }
        let translated = match &mut self.scram {
            Some(scram) => scram.said(bytes),
            None => bytes.to_vec(),
        };
        // A server that has closed takes no more; what it said says so.
        let channel = self.channel.get_mut();
        let _ = channel.write_all(&translated).and_then(|()| channel.flush());
    }

    fn hear(&mut self) -> Heard {
        let mut line = String::new();
        match self.channel.read_line(&mut line) {
            Ok(0) => Heard::Closed,
            Ok(_) => {
                let line = line.trim_end_matches(['\r', '\n']).to_owned();
                self.is_starting |= line == "220 2.0.0 Ready to start TLS";
                Heard::Line(match &mut self.scram {
                    Some(scram) => scram.heard(line),
                    None => line,
                })
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Heard::Silence,
            Err(_) => Heard::Closed,
        }
    }

    fn accepted(&mut self) -> Option<Accepted> {
        None
    }

    fn sees_messages(&self) -> bool {
        false
    }

    fn hang_up(mut self) -> String {
        self.channel.get_mut().finish();
        let mut rest = Vec::new();
        // A reset, for what it had not read, is an end as well.
        let _ = self.channel.read_to_end(&mut rest);
        String::from_utf8_lossy(&rest).into_owned()
    }
}

/// An interpreter between a dialog and a server.
struct Scram {
    binding: [u8; 32],
    /// The line that the client says.
    line: Vec<u8>,
    exchange: Exchange,
}

/// How far an exchange has come.
enum Exchange {
    None,
    /// The server has sent its first message: the client's, as far as it counts, and
    /// the server's, real and as the dialog has it.
    Challenged {
        bare: String,
        real: String,
        told: String,
    },
    /// The client has sent its proof: the signatures, real and as the dialog has it.
    Proved {
        real: String,
        told: String,
    },
}

impl Scram {
    fn new(binding: [u8; 32]) -> Scram {
        Scram { binding, line: Vec::new(), exchange: Exchange::None }
    }

    /// What is sent in place of what the client says. The answer to a challenge is
    /// held back until it is whole.
    fn said(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut sent = Vec::new();
        for &byte in bytes {
            if self.line.last() == Some(&b'\n') {
                self.line.clear();
            }
            self.line.push(byte);
            let is_held = matches!(self.exchange, Exchange::Challenged { .. });
            match (is_held, byte) {
                (false, _) => sent.push(byte),
                (true, b'\n') => sent.extend(self.answered()),
                (true, _) => {}
            }
        }
        sent
    }

    /// The server's line as the dialog has it.
    fn heard(&mut self, line: String) -> String {
        let Some(text) = challenge(&line) else { return line };
        if let Exchange::Proved { real, told } = &self.exchange
            && let Some(signature) = text.strip_prefix("v=")
        {
            assert_eq!(signature, real, "the server proves itself");
            return format!("334 {}", encode(format!("v={told}").as_bytes()));
        }
        let Some(nonce) = attribute(&text, "r").filter(|_| text.starts_with("r=")) else {
            return line;
        };
        // The client's own comes first, and 18 octets in base64 behind it.
        let own = &nonce[..nonce.len().checked_sub(24).expect("a nonce of the server")];
        let (salt, rounds) = SALT;
        let told = format!("r={own}{NONCE},s={salt},i={rounds}");
        let first = String::from_utf8_lossy(&self.line).into_owned();
        let first = first.split_whitespace().last().and_then(|word| decode(word.as_bytes()));
        let first = String::from_utf8(first.expect("the client's first message")).unwrap();
        let bare = first.splitn(3, ',').nth(2).expect("a header of two").to_owned();
        let line = format!("334 {}", encode(told.as_bytes()));
        self.exchange = Exchange::Challenged { bare, real: text, told };
        line
    }

    /// What is sent in place of the line that answers a challenge.
    fn answered(&mut self) -> Vec<u8> {
        let exchange = std::mem::replace(&mut self.exchange, Exchange::None);
        let Exchange::Challenged { bare, real, told } = exchange else { unreachable!() };
        let unchanged = self.line.clone();
        let decoded = decode(self.line.trim_ascii_end()).and_then(|it| String::from_utf8(it).ok());
        let Some(message) = decoded else { return unchanged };
        let Some((without_proof, proof)) = message.split_once(",p=") else { return unchanged };
        let (bound, nonce) = (attribute(without_proof, "c"), attribute(without_proof, "r"));
        let (Some(bound), Some(nonce)) = (bound, nonce) else { return unchanged };
        let mut bound = decode(bound.as_bytes()).expect("base64");
        if let Some(header) = bound.strip_suffix(&BINDING) {
            bound = [header, &self.binding].concat();
        }
        let is_right = Some(nonce) == attribute(&told, "r");
        let nonce = if is_right { attribute(&real, "r").unwrap() } else { nonce };
        let said_in_dialog = format!("{bare},{told},{without_proof}");
        let without_proof = format!("c={},r={nonce}", encode(&bound));
        let said = format!("{bare},{real},{without_proof}");
        let in_dialog = Secret::new(USER.1, &told).unwrap();
        let here = Secret::new(USER.1, &real).unwrap();
        let is_proof = proof == in_dialog.proof(&said_in_dialog);
        let proof = if is_proof { here.proof(&said) } else { proof.to_owned() };
        let (real, told) = (here.signature(&said), in_dialog.signature(&said_in_dialog));
        self.exchange = Exchange::Proved { real, told };
        let line = encode(format!("{without_proof},p={proof}").as_bytes());
        format!("{line}\r\n").into_bytes()
    }
}
