//! rustls between a stream and its caller. Records are read into a buffer that all
//! connections of a thread share, and are handed to rustls at once, so a connection
//! that waits holds no more than rustls does for it.
//!
//! What rustls keeps is bounded: one record that is not whole yet, what one read
//! from the socket decrypted to, and what is sent but not taken by the socket. It is
//! counted (`held`), and a connection that waits for more of what there is no memory
//! for fails.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::task::{Context, Poll, ready};

use rustls::Connection;

use super::held::Held;
use crate::base::Share;
use crate::io::net::Stream;

/// Octets read from the socket at once, or written to it.
const SCRATCH: usize = 64 * 1024;

/// Octets read at once at least. Less than the plaintext that rustls holds before
/// it takes no more.
const READ_MIN: usize = 4096;

/// Reads in a row that may bring no plaintext (a large record takes a few; empty
/// ones could go on for ever) before other tasks get their turn.
const IDLE_READS_MAX: u32 = 16;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Box<[u8]>> =
        RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// One connection's rustls.
pub(super) struct Engine {
    pub(super) session: Connection,
    /// The buffer of rustls for what is read may have grown.
    is_swollen: bool,
    /// Plaintext that its caller had no room for, when rustls had none either; it
    /// comes before what rustls holds. At most what one read from the socket brings.
    spare: Vec<u8>,
    held: Held,
}

impl Engine {
    /// What it holds is counted in `share`, if there is one.
    pub(super) fn new(session: Connection, share: Option<Share>) -> Engine {
        Engine { session, is_swollen: true, spare: Vec::new(), held: Held::new(share) }
    }

    /// Waits for more from the peer, if there is memory for what has come.
    fn wait<T>(&mut self) -> Poll<io::Result<T>> {
        if self.held.fits() {
            return Poll::Pending;
        }
        let why = "there is no memory for what the peer has sent";
        Poll::Ready(Err(io::Error::new(ErrorKind::OutOfMemory, why)))
    }

    /// Does the handshake.
    pub(super) fn poll_handshake(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut reads = 0;
        loop {
            ready!(self.poll_send(stream, cx))?;
            if !self.session.is_handshaking() {
                self.held.settle();
                return Poll::Ready(Ok(()));
            }
            if reads == IDLE_READS_MAX {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            reads += 1;
            if self.poll_fill(stream, cx, &mut [])?.is_pending() {
                return self.wait();
            }
        }
    }

    /// Reads plaintext. 0 is the end that the peer announced; one that it did not
    /// announce is an error.
    pub(super) fn poll_read(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if !self.spare.is_empty() {
            return Poll::Ready(Ok(self.give_spare(buf)));
        }
        let mut reads = 0;
        loop {
            match self.session.reader().read(buf) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => {
                    self.held.fetched(*read.as_ref().unwrap_or(&0));
                    self.held.note();
                    return Poll::Ready(read);
                }
            }
            if self.session.wants_write() {
                // Whoever waits for an answer has sent all of the question.
                let _ = self.poll_send(stream, cx)?;
            }
            if reads == IDLE_READS_MAX {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            reads += 1;
            match self.poll_fill(stream, cx, buf) {
                Poll::Ready(Ok(0)) => {}
                Poll::Pending => {
                    self.shrink();
                    return self.wait();
                }
                ready => {
                    self.held.note();
                    return ready;
                }
            }
        }
    }

    /// Reads once from the socket and has rustls take it; the octets of plaintext
    /// that went to `buf`.
    fn poll_fill(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        SCRATCH_BUFFER.with_borrow_mut(|scratch| {
            let want = buf.len().clamp(READ_MIN, SCRATCH);
            let len = ready!(stream.poll_read(cx, &mut scratch[..want]))?;
            if len == 0 {
                return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
            }
            self.is_swollen = true;
            Poll::Ready(match self.take(&scratch[..len], buf) {
                Err(error) => {
                    // Says why, if the socket takes it now.
                    let _ = self.send_some(stream, cx, scratch);
                    Err(error)
                }
                taken => taken,
            })
        })
    }

    /// Has rustls take `input`, all of it.
    fn take(&mut self, mut input: &[u8], buf: &mut [u8]) -> io::Result<usize> {
        let (mut filled, mut unread) = (0, 0);
        let was_handshaking = self.session.is_handshaking();
        self.held.came(input);
        while !input.is_empty() {
            if self.session.read_tls(&mut input)? == 0 {
                // The peer said that this is the end; what follows means nothing.
                break;
            }
            let state = self.session.process_new_packets().map_err(io::Error::other)?;
            unread = state.plaintext_bytes_to_read();
            while filled < buf.len() {
                match self.session.reader().read(&mut buf[filled..]) {
                    Ok(0) => break,
                    Ok(len) => {
                        filled += len;
                        unread = unread.saturating_sub(len);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            if !input.is_empty() {
                self.make_room()?;
                unread = 0;
            }
        }
        self.held.unread(unread + self.spare.len());
        if filled > 0 || unread > 0 || was_handshaking != self.session.is_handshaking() {
            self.held.digested();
        }
        Ok(filled)
    }

    /// Takes all plaintext out of rustls, which reads no more while it holds more than
    /// a record.
    fn make_room(&mut self) -> io::Result<()> {
        match self.session.reader().read_to_end(&mut self.spare) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// Hands out what was taken.
    fn give_spare(&mut self, buf: &mut [u8]) -> usize {
        let len = buf.len().min(self.spare.len());
        buf[..len].copy_from_slice(&self.spare[..len]);
        self.spare.drain(..len);
        if self.spare.is_empty() {
            self.spare = Vec::new();
        }
        self.held.fetched(len);
        self.held.note();
        len
    }

    /// Gives back what the buffer of rustls has grown by.
    fn shrink(&mut self) {
        if std::mem::take(&mut self.is_swollen) {
            // The buffer is fitted to what is in it before each read.
            let _ = self.session.read_tls(&mut Nothing);
        }
    }

    /// Takes plaintext to be sent, as much as has room once all before it is sent.
    pub(super) fn poll_write(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(stream, cx))?;
        let taken = self.session.writer().write(bytes)?;
        self.held.taken(taken);
        let _ = self.poll_send(stream, cx)?;
        self.held.note();
        Poll::Ready(Ok(taken))
    }

    /// Sends all that is to be sent.
    pub(super) fn poll_send(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.session.wants_write() {
            return Poll::Ready(Ok(()));
        }
        SCRATCH_BUFFER.with_borrow_mut(|scratch| self.send_some(stream, cx, scratch))
    }

    fn send_some(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<io::Result<()>> {
        let mut socket = Socket { stream, cx, scratch };
        while self.session.wants_write() {
            match self.session.write_tls(&mut socket) {
                Ok(0) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.held.sent();
        Poll::Ready(Ok(()))
    }
}

/// The socket as rustls writes it.
struct Socket<'a, 'b> {
    stream: &'a mut Stream,
    cx: &'a mut Context<'b>,
    scratch: &'a mut [u8],
}

impl Write for Socket<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.stream.poll_write(self.cx, bytes) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }

    /// Records are put together, so that each does not cost a call.
    fn write_vectored(&mut self, records: &[IoSlice<'_>]) -> io::Result<usize> {
        if let [only] = records {
            return self.write(only);
        }
        let mut len = 0;
        for record in records {
            let part = record.len().min(self.scratch.len() - len);
            self.scratch[len..len + part].copy_from_slice(&record[..part]);
            len += part;
        }
        match self.stream.poll_write(self.cx, &self.scratch[..len]) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A reader that has nothing yet.
struct Nothing;

impl Read for Nothing {
    fn read(&mut self, _buf: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
}
