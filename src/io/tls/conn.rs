//! A TCP connection that may become a TLS connection.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::Connection;
use rustls::pki_types::ServerName;

use super::choice::Choice;
use super::client::{Client, Verify};
use super::engine::Engine;
use super::facts::{self, Facts, Version};
use super::failure::{Cause, Failure};
use super::server::Server;
use crate::base::{Memory, Share};
use crate::io::executor::within;
use crate::io::net::{Hangup, Stream};
use crate::proto::sasl::{Binding, BindingKind};

/// What RFC 9266 has the exporter called with.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";
/// Octets of a `tls-exporter` binding.
const EXPORTER_LEN: usize = 32;

/// A stream, plain at first. Dropping it closes it; [`Conn::close`] says so to the
/// peer first.
pub struct Conn {
    stream: Stream,
    tls: Option<Box<Tls>>,
    /// Where what TLS holds is counted, if it is.
    memory: Option<Rc<Memory>>,
}

/// What a TLS connection is beside its stream.
struct Tls {
    engine: Engine,
    facts: Facts,
    /// Of a server: the certificate that was shown.
    shown: Option<Arc<Choice>>,
}

impl Conn {
    /// A connection without TLS.
    pub fn plain(stream: Stream) -> Conn {
        Conn { stream, tls: None, memory: None }
    }

    /// Has what TLS will hold of this connection counted in `memory`. When there is
    /// no room for a record that has come in part, reading it fails with
    /// [`OutOfMemory`](io::ErrorKind::OutOfMemory).
    pub fn count_in(&mut self, memory: &Rc<Memory>) {
        self.memory = Some(Rc::clone(memory));
    }

    /// Does a handshake as the server, within `limit`. What was read before is not
    /// part of it.
    ///
    /// # Errors
    /// Why there is no TLS connection; nothing can be read or written any more that
    /// the peer would believe. It has been told, if it was reading.
    ///
    /// # Panics
    /// If it is a TLS connection already.
    pub async fn accept_tls(&mut self, server: &Server, limit: Duration) -> Result<(), Failure> {
        assert!(self.tls.is_none(), "TLS within TLS");
        let (session, shown) = server.connection().map_err(protocol)?;
        let engine = self.handshake(Connection::Server(session), limit).await?;
        let Connection::Server(session) = &engine.session else { unreachable!("a server's") };
        let chain = session.peer_certificates();
        let is_verified = chain.is_some_and(|chain| server.knows(chain));
        let facts = Facts::new(session, session.server_name(), is_verified);
        self.tls = Some(Box::new(Tls { engine, facts, shown: Some(shown) }));
        Ok(())
    }

    /// Does a handshake as the client of the server `name` (a host's name, which is
    /// sent along, or an IP address, which is not), within `limit`.
    ///
    /// # Errors
    /// Why there is no TLS connection, or the certificate is not what `verify` asks
    /// for; the connection is of no more use.
    ///
    /// # Panics
    /// If it is a TLS connection already.
    pub async fn connect_tls(
        &mut self,
        client: &Client,
        name: &str,
        verify: Verify<'_>,
        limit: Duration,
    ) -> Result<(), Failure> {
        assert!(self.tls.is_none(), "TLS within TLS");
        // A name that is none in DNS cannot be sent: as if there were no name.
        let to = ServerName::try_from(name.to_owned())
            .or_else(|_| self.peer_addr().map(|peer| ServerName::from(peer.ip())))
            .map_err(|error| Failure::from_io(&error))?;
        let session = client.connection(to).map_err(protocol)?;
        let mut engine = self.handshake(Connection::Client(session), limit).await?;
        let chain = engine.session.peer_certificates().unwrap_or_default();
        let is_verified = match verify {
            Verify::Nothing => false,
            Verify::Note(names) => client.hosts().verify(chain, names).is_ok(),
            Verify::Names(names) => match client.hosts().verify(chain, names) {
                Ok(()) => true,
                Err(reason) => {
                    engine.session.send_close_notify();
                    let _ = within(limit, self.send(&mut engine)).await;
                    return Err(Failure::unverified(reason));
                }
            },
        };
        let facts = Facts::new(&engine.session, Some(name), is_verified);
        self.tls = Some(Box::new(Tls { engine, facts, shown: None }));
        Ok(())
    }

    async fn handshake(&mut self, session: Connection, limit: Duration) -> Result<Engine, Failure> {
        let share = self.memory.as_ref().map(Share::of);
        let mut engine = Engine::new(session, share);
        let stream = &mut self.stream;
        let done = within(limit, poll_fn(|cx| engine.poll_handshake(stream, cx))).await;
        match done {
            None => Err(Failure::timed_out()),
            Some(Err(error)) => Err(Failure::from_io(&error)),
            Some(Ok(())) => Ok(engine),
        }
    }

    async fn send(&mut self, engine: &mut Engine) -> io::Result<()> {
        poll_fn(|cx| engine.poll_send(&mut self.stream, cx)).await
    }

    /// What is known of the TLS connection, if it is one.
    pub fn tls(&self) -> Option<&Facts> {
        self.tls.as_deref().map(|tls| &tls.facts)
    }

    /// What SASL can bind an exchange to, the best first: `tls-exporter` (RFC 9266)
    /// on TLS 1.3, `tls-server-end-point` (RFC 5929) on TLS 1.2. Empty without TLS, and
    /// for a resumed session of TLS 1.2: nobody says whether its secret was bound to its
    /// first handshake (RFC 7677, 4).
    pub fn bindings(&self) -> Vec<Binding> {
        self.tls.as_deref().and_then(Tls::binding).into_iter().collect()
    }

    /// Reads what has come, at most `buf.len()` octets; 0 at the end.
    ///
    /// # Errors
    /// Those of the socket; `UnexpectedEof` where a TLS connection ends without its
    /// peer saying so, since someone else may have cut it short.
    pub async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, buf)).await
    }

    /// Writes all of `bytes`; they have left for the socket when it returns.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if self.tls.is_none() {
            return self.stream.write_all(bytes).await;
        }
        poll_fn(|cx| {
            while !bytes.is_empty() {
                match ready!(self.poll_write(cx, bytes))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    taken => bytes = &bytes[taken..],
                }
            }
            self.poll_flush(cx)
        })
        .await
    }

    /// Reads what has come, or has the task woken when something has. What was
    /// written before goes on being sent. For tasks that wait for more than one
    /// thing.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match &mut self.tls {
            None => self.stream.poll_read(cx, buf),
            Some(tls) => tls.engine.poll_read(&mut self.stream, cx, buf),
        }
    }

    /// Writes as much of `bytes` as is taken now, or has the task woken when more
    /// is. Nothing refers to `bytes` after the call. What a TLS connection has taken
    /// may still be on its way to the socket: [`Conn::poll_flush`], and any later
    /// read or write, sends it.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.tls {
            None => self.stream.poll_write(cx, bytes),
            Some(tls) => tls.engine.poll_write(&mut self.stream, cx, bytes),
        }
    }

    /// Ready when all that was written has been taken by the socket.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.tls {
            None => Poll::Ready(Ok(())),
            Some(tls) => tls.engine.poll_send(&mut self.stream, cx),
        }
    }

    /// Tells the peer that nothing more comes (close_notify) and closes. The
    /// caller's deadline holds, as it does for a write.
    pub async fn close(mut self) {
        self.say_goodbye().await;
    }

    /// Tells the peer that nothing more comes. The caller's deadline holds.
    pub async fn say_goodbye(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.engine.session.send_close_notify();
            // It may have gone already.
            let _ = poll_fn(|cx| tls.engine.poll_send(&mut self.stream, cx)).await;
        }
    }

    /// The local address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// The peer's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// A handle that can end this connection's reads from another task.
    pub fn hangup(&self) -> Hangup {
        self.stream.hangup()
    }
}

impl Tls {
    fn binding(&self) -> Option<Binding> {
        if self.facts.version == Version::Tls13 {
            let data = vec![0; EXPORTER_LEN];
            // RFC 9266, 2: no context, which in TLS 1.3 is an empty one.
            let data = self.engine.session.export_keying_material(data, EXPORTER_LABEL, None);
            return Some(Binding { kind: BindingKind::Exporter, data: data.ok()?.into() });
        }
        if self.facts.is_resumed {
            return None;
        }
        let data = match &self.shown {
            Some(choice) => facts::end_point(&choice.shown()?)?,
            None => facts::end_point(self.engine.session.peer_certificates()?.first()?)?,
        };
        Some(Binding { kind: BindingKind::EndPoint, data })
    }
}

/// A failure before the first octet.
fn protocol(error: rustls::Error) -> Failure {
    Failure { cause: Cause::Protocol, text: error.to_string() }
}
