//! The client against a server that sends anything at all, in any pieces: it
//! never panics, finishes each transaction at most once, speaks of no recipient
//! twice, authenticates with TLS only, writes no more than its own commands, keeps no line that is too long,
//! and gives no text that could break a log line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringpost::proto::smtp::client::{Client, Event, Transaction};

const RECIPIENTS: [&str; 3] = ["a@x.example", "b@x.example", "c@x.example"];
/// Commands of one transaction and RSET, with room for their parameters.
const OUT_MAX: usize = 1024;

struct Driver {
    client: Client,
    begun: usize,
    finished: usize,
    refused: [bool; RECIPIENTS.len()],
    pipelining: bool,
    chunked: bool,
}

impl Driver {
    fn begin(&mut self, out: &mut Vec<u8>) {
        if self.client.may_begin() {
            let chunked = self.chunked && self.client.offer().chunking;
            let transaction =
                Transaction { sender: "s@x.example", chunked, ..Transaction::default() };
            self.client.begin(&transaction, RECIPIENTS, out).expect("nothing special is needed");
            self.begun += 1;
        }
    }

    /// Reads `input`; what is left of it, or `None` when the connection ended.
    fn read<'a>(&mut self, mut input: &'a [u8]) -> Option<&'a [u8]> {
        let mut out = vec![];
        loop {
            let (used, event) = self.client.step(input, &mut out);
            input = &input[used..];
            match event {
                Event::NeedInput => break,
                Event::Ready if self.client.offer().starttls && !self.client.is_secured() => {
                    self.client.start_tls(&mut out);
                }
                Event::Ready if self.client.is_secured() => {
                    self.client.authenticate("AUTH LOGIN", &mut out);
                }
                Event::Handshake => self.client.secured(&mut out),
                Event::Challenge => {
                    assert!(self.client.challenge().len() < 4096);
                    self.client.respond("YQ==", &mut out);
                }
                Event::Ready | Event::NoTls => self.begin(&mut out),
                Event::Authenticated | Event::NotAuthenticated => {
                    assert!(self.client.is_secured());
                    self.begin(&mut out);
                }
                Event::Refused { recipient } | Event::Verdict { recipient } => {
                    assert!(!std::mem::replace(&mut self.refused[recipient], true));
                }
                Event::SendBody => {
                    if self.chunked && self.client.offer().chunking {
                        self.client.chunk(1, self.begun % 2 == 0, &mut out);
                        out.push(b'x');
                    } else {
                        self.client.body_sent();
                    }
                    if self.pipelining {
                        self.begin(&mut out);
                    }
                }
                Event::Finished => {
                    let reply = self.client.reply();
                    assert!((200..600).contains(&reply.code) && reply.text.len() < 4096);
                    assert!(!reply.text.contains(char::is_control));
                    self.finished += 1;
                    assert!(self.finished <= self.begun);
                    self.refused = Default::default();
                    self.begin(&mut out);
                }
                Event::Closed(_) => return None,
            }
            assert!(out.len() <= OUT_MAX * (1 + self.begun));
        }
        Some(input)
    }
}

fuzz_target!(|input: (bool, bool, bool, Vec<Vec<u8>>)| {
    let (pipelining, chunked, is_lmtp, pieces) = input;
    let hello = if is_lmtp { Client::lmtp } else { Client::new };
    let mut driver = Driver {
        client: hello("client.example"),
        begun: 0,
        finished: 0,
        refused: Default::default(),
        pipelining,
        chunked,
    };
    let mut unread = Vec::new();
    for piece in pieces {
        unread.extend_from_slice(&piece);
        match driver.read(&unread) {
            Some(rest) => unread = rest.to_vec(),
            None => return,
        }
        assert!(unread.len() < 4096, "a longer line is refused");
    }
});
