//! A transaction as the SMTP server engine sees it: MAIL, RCPT, DATA, the end of
//! an empty body and the reply, with every question answered by the access
//! policy of a trusted client.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ringpost::base::QueueId;
use ringpost::config::Access;
use ringpost::policy::access::may_relay;
use ringpost::proto::smtp::server::{BodyVerdict, Question, Server, Settings, Spec, Step, Verdict};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The commands of a transaction.
pub const COMMANDS: [&[u8]; 3] = [
    b"MAIL FROM:<sender.name@client.example> SIZE=4096 BODY=8BITMIME\r\n",
    b"RCPT TO:<recipient.name@destination.example>\r\n",
    b"DATA\r\n",
];

/// A session that has said EHLO.
pub struct Session {
    /// `None` only within a call.
    server: Option<Server>,
    access: Access,
    out: Vec<u8>,
}

impl Session {
    /// One that transactions may begin in.
    pub fn new() -> Self {
        let mut out = Vec::with_capacity(4096);
        let settings =
            Arc::new(Settings::new(Spec { hostname: "mx.example".into(), ..Spec::default() }));
        let server = Some(Server::new(settings, &mut out));
        let mut session = Session { server, access: Access::default(), out };
        session.transaction(&[b"EHLO client.example\r\n"]);
        session
    }

    /// Feeds each of `inputs` to its end, as it comes from a socket.
    pub fn transaction(&mut self, inputs: &[&[u8]]) {
        for input in inputs {
            self.out.clear();
            let server = self.server.take().expect("put back");
            self.server = Some(feed(server, black_box(input), &self.access, &mut self.out));
        }
    }

    /// Whether the last input led to what a transaction ends in.
    pub fn went_well(&self) -> bool {
        self.out.starts_with(b"354 ") || self.out.starts_with(b"250 2.1.0")
    }
}

fn feed(mut server: Server, mut input: &[u8], access: &Access, out: &mut Vec<u8>) -> Server {
    loop {
        let (next, used, step) = server.step(input, out);
        input = &input[used..];
        server = match step {
            Step::NeedInput => return next,
            Step::Ask(Question::Recipient(address)) => {
                next.answer(may_relay(access, CLIENT, false, &address), out)
            }
            Step::Ask(_) => next.answer(Verdict::Accept, out),
            Step::Body => {
                let mut next = next;
                black_box(next.take_transaction());
                next.body_done(BodyVerdict::Queued(QueueId::default()), out)
            }
            _ => panic!("not in this dialog"),
        };
    }
}
