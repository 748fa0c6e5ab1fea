//! Sockets on an executor: connecting, waiting, ending, and that nobody is
//! forgotten.

use std::cell::Cell;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future;

use super::*;
use crate::io::executor::{Task, run_pinned, sleep, spawn, yield_now};

const LIMIT: Duration = Duration::from_secs(60);

/// Runs a test on an executor of its own.
fn on_executor<Fut: Future<Output = ()> + 'static>(test: impl FnOnce() -> Fut + Send + 'static) {
    run_pinned("net", None, test).unwrap().join().unwrap();
}

fn listener() -> (Listener, SocketAddr) {
    let listener = Listener::adopt(listen("127.0.0.1:0".parse().unwrap()).unwrap());
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Both ends of a connection.
async fn pair() -> (Stream, Stream) {
    let (listener, address) = listener();
    let client = Stream::connect(address, LIMIT).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

async fn read_exact(stream: &mut Stream, buf: &mut [u8]) {
    let mut filled = 0;
    while filled < buf.len() {
        let count = stream.read(&mut buf[filled..]).await.unwrap();
        assert!(count > 0, "the stream ended early");
        filled += count;
    }
}

/// Sends back what comes, until the end.
async fn echo(mut stream: Stream) {
    let mut buf = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buf).await {
            Ok(count) if count > 0 => stream.write_all(&buf[..count]).await.unwrap(),
            _ => return,
        }
    }
}

/// An executor that sends back what comes on any connection.
fn echo_server() -> SocketAddr {
    let socket = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    run_pinned("echo", None, move || async move {
        let listener = Listener::adopt(socket);
        while let Ok((stream, _)) = listener.accept().await {
            spawn(echo(stream)).detach();
        }
    })
    .unwrap();
    address
}

#[test]
fn connects_from_the_address_asked_for_or_says_why_not() {
    on_executor(|| async {
        let (listener, address) = listener();
        let source: IpAddr = "127.0.0.77".parse().unwrap();
        let mut client = Stream::connect_from(source, address, LIMIT).await.unwrap();
        let (mut server, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip(), source);
        assert!(client.sends_at_once() && server.sends_at_once());
        assert_eq!((client.local_addr().unwrap(), client.peer_addr().unwrap()), (peer, address));
        client.write_all(b"x").await.unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 1);
        drop(listener);
        let refused = Stream::connect_from(source, address, LIMIT).await.err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let refused = Stream::connect(address, LIMIT).await.err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let foreign: IpAddr = "192.0.2.1".parse().unwrap();
        let foreign = Stream::connect_from(foreign, address, LIMIT).await.err().unwrap();
        assert_eq!(foreign.kind(), io::ErrorKind::AddrNotAvailable);
    });
}

#[test]
fn a_connection_that_nobody_answers_times_out() {
    on_executor(|| async {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        // The kernel completes one; further ones are not answered.
        let first = Stream::connect(address, LIMIT).await.unwrap();
        let late = Stream::connect(address, Duration::from_millis(20)).await.err().unwrap();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        drop(first);
    });
}

#[test]
fn an_end_that_comes_with_the_last_bytes_is_seen() {
    on_executor(|| async {
        for waits in [false, true] {
            let (listener, address) = listener();
            let mut client = TcpStream::connect(address).unwrap();
            let (mut server, _) = listener.accept().await.unwrap();
            let mut buf = [0; 64];
            client.write_all(b"last words").unwrap();
            if waits {
                assert_eq!(server.read(&mut buf).await.unwrap(), 10);
                client.write_all(b"of one who").unwrap();
            }
            drop(client);
            assert_eq!(server.read(&mut buf).await.unwrap(), 10);
            assert_eq!(server.read(&mut buf).await.unwrap(), 0);
            assert_eq!(server.read(&mut buf).await.unwrap(), 0, "and stays seen");
        }
    });
}

#[test]
fn a_hangup_wakes_who_waits_and_leaves_later_sockets_alone() {
    on_executor(|| async {
        let (mut client, mut server) = pair().await;
        let hangup = server.hangup();
        let reader = spawn(async move {
            let mut buf = [0; 8];
            let end = server.read(&mut buf).await.unwrap();
            server.write_all(b"421").await.unwrap();
            (server, end)
        });
        yield_now().await;
        hangup.stop_reads();
        let (mut server, end) = reader.await;
        assert_eq!(end, 0);
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 3);
        // Nobody reads what this writes.
        let writer = spawn(async move {
            let full = server.write_all(&vec![0; 64 << 20]).await;
            (server, full)
        });
        sleep(Duration::from_millis(5)).await;
        hangup.stop_all();
        let (server, full) = writer.await;
        assert!(full.is_err());
        drop(server);
        // Of the same descriptor and the same slot.
        let (mut client, mut server) = pair().await;
        hangup.stop_all();
        client.write_all(b"x").await.unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 1);
    });
}

#[test]
fn long_streams_pass_in_both_directions() {
    on_executor(|| async {
        const LEN: usize = 8 << 20;
        let mut stream = Stream::connect(echo_server(), LIMIT).await.unwrap();
        let sent: Vec<u8> = (0..LEN).map(|n| (n * 31 / 7) as u8).collect();
        let mut written = 0;
        let mut got = vec![0; LEN];
        let mut read = 0;
        // One task that waits for both.
        std::future::poll_fn(|cx| {
            use std::task::Poll;
            loop {
                let mut idle = true;
                if written < LEN
                    && let Poll::Ready(count) = stream.poll_write(cx, &sent[written..])
                {
                    written += count.unwrap();
                    idle = false;
                }
                if let Poll::Ready(count) = stream.poll_read(cx, &mut got[read..]) {
                    read += count.unwrap();
                    idle = false;
                }
                if read == LEN {
                    return Poll::Ready(());
                }
                if idle {
                    return Poll::Pending;
                }
            }
        })
        .await;
        assert!(got == sent);
    });
}

/// Questions and answers on many connections at once, more than one look takes,
/// from all of them together and then with all but one silent.
async fn converse(address: SocketAddr, rounds: usize) {
    let talk = |rounds: usize| async move {
        let mut stream = Stream::connect(address, LIMIT).await.unwrap();
        for round in 0..rounds {
            let question = [round as u8; 100];
            stream.write_all(&question).await.unwrap();
            let mut answer = [0; 100];
            read_exact(&mut stream, &mut answer).await;
            assert_eq!(answer, question);
        }
        stream
    };
    let tasks: Vec<Task<Stream>> = (0..600).map(|_| spawn(talk(rounds))).collect();
    let mut streams = Vec::new();
    for task in tasks {
        streams.push(task.await);
    }
    drop(spawn(talk(rounds * 50)).await);
}

#[test]
fn nobody_is_forgotten() {
    let address = echo_server();
    on_executor(move || converse(address, 20));
}

#[test]
fn nobody_is_forgotten_when_no_descriptor_is_left() {
    let address = echo_server();
    on_executor(move || async move {
        readiness::tests::without_copies();
        converse(address, 2).await;
    });
}

#[test]
fn who_has_much_to_read_lets_others_go_on() {
    on_executor(|| async {
        const LEN: usize = 1000;
        let (mut client, mut server) = pair().await;
        client.write_all(&[7; LEN]).await.unwrap();
        let turns = Rc::new(Cell::new(0));
        let counted = Rc::clone(&turns);
        let other = spawn(async move {
            loop {
                counted.set(counted.get() + 1);
                yield_now().await;
            }
        });
        let mut byte = [0];
        server.read(&mut byte).await.unwrap();
        let before = turns.get();
        for _ in 1..LEN {
            assert_eq!(server.read(&mut byte).await.unwrap(), 1);
        }
        assert!(turns.get() - before > 10);
        drop(other);
    });
}

#[test]
fn timers_go_off_while_sockets_are_busy() {
    on_executor(|| async {
        let (mut client, server) = pair().await;
        spawn(echo(server)).detach();
        let talks = Cell::new(0);
        let talk = async {
            loop {
                client.write_all(b"x").await.unwrap();
                client.read(&mut [0; 8]).await.unwrap();
                talks.set(talks.get() + 1);
            }
        };
        let timer = spawn(sleep(Duration::from_millis(1)));
        future::or(timer, talk).await;
        // Otherwise it would be a matter of chance and of 100 ms.
        assert!(talks.get() < 2000, "{} talks within a millisecond", talks.get());
    });
}

#[test]
fn sockets_of_waiting_tasks_are_closed_with_their_executor() {
    let socket = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut client = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
    on_executor(move || async move {
        let listener = Listener::adopt(socket);
        let (stream, _) = listener.accept().await.unwrap();
        spawn(echo(stream)).detach();
        spawn(async move { drop(listener.accept().await) }).detach();
        yield_now().await;
    });
    client.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
}
