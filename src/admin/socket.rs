//! The admin socket: a Unix socket that only its owner may connect to, on which
//! `ringpost queue` (or a script) asks its questions, one line of JSON each
//! (see `wire`). A request is bounded in length, a connection in idle time, and
//! connections in number; whoever sends anything else is told so and cut off.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_channel::Receiver;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::control::Control;
use super::failure::Failure;
use super::fleet::READING;
use super::wire::{Answer, Ask, REQUEST_MAX};
use super::{answers, pages, who};
use crate::shard::control::{Action, Part};

/// Connections served at a time; others wait.
const CONNECTIONS_MAX: usize = 32;
/// How long a connection may be silent, or not take its answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The listening socket. Its file goes when it is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl AdminSocket {
    /// Listens at `path` with mode 0600, in place of a socket that an earlier
    /// process left there. Needs a tokio runtime.
    ///
    /// # Errors
    /// Another process answers there, something else has the name, or the path
    /// is too long for a socket.
    pub fn bind(path: &Path) -> Result<AdminSocket, Failure> {
        let trouble = |error: io::Error| {
            Failure::runtime(format!(
                "cannot make the admin socket {}: {error}; see [admin] socket (a path of at most \
                 90 bytes, in a directory that ringpost may write to)",
                path.display()
            ))
        };
        clear(path)?;
        // Made in a directory that nobody else may enter and moved into place
        // when its mode is set, so that there is no moment to slip in.
        let mut private = path.as_os_str().to_owned();
        private.push(".new");
        let private = PathBuf::from(private);
        let fresh = private.join("s");
        let _ = std::fs::remove_file(&fresh);
        let _ = std::fs::remove_dir(&private);
        DirBuilder::new().mode(0o700).create(&private).map_err(trouble)?;
        let made = UnixListener::bind(&fresh).and_then(|listener| {
            std::fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
            std::fs::rename(&fresh, path)?;
            Ok(listener)
        });
        let _ = std::fs::remove_file(&fresh);
        let _ = std::fs::remove_dir(&private);
        Ok(AdminSocket { listener: made.map_err(trouble)?, path: path.to_owned() })
    }

    /// Answers for ever.
    pub async fn serve(&self, control: Arc<Control>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let control = Arc::clone(&control);
                    tokio::spawn(async move {
                        // A caller that has gone needs no answer.
                        let _ = converse(stream, &control).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(target: "ringpost", %error, "cannot accept on the admin socket");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes a socket that nobody listens on.
fn clear(path: &Path) -> Result<(), Failure> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let shown = path.display();
    if !found.file_type().is_socket() {
        return Err(Failure::runtime(format!(
            "{shown} is in the way of the admin socket and is no socket; move it away, or choose \
             another name for [admin] socket"
        )));
    }
    if StdStream::connect(path).is_ok() {
        return Err(Failure::runtime(format!(
            "another process answers on {shown}; stop it, or choose another name for [admin] socket"
        )));
    }
    std::fs::remove_file(path)
        .map_err(|e| Failure::runtime(format!("cannot remove the old socket {shown}: {e}")))
}

async fn converse(stream: UnixStream, control: &Control) -> io::Result<()> {
    let uid = stream.peer_cred().ok().map(|peer| peer.uid());
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut stream).take(REQUEST_MAX as u64 + 1);
        let read = timeout(PATIENCE, bounded.read_until(b'\n', &mut line));
        if !matches!(read.await, Ok(Ok(1..))) {
            return Ok(());
        }
        let (reply, parts, last) = match parse(&line) {
            Ok(ask) => {
                let (reply, parts) = answer(control, ask, uid).await;
                (reply, parts, false)
            }
            Err(wrong) => (Answer::Error(wrong), None, true),
        };
        let mut out = serde_json::to_vec(&reply)?;
        out.push(b'\n');
        timeout(PATIENCE, stream.get_mut().write_all(&out)).await??;
        if let Some(parts) = parts {
            send_parts(stream.get_mut(), &parts).await?;
        }
        if last {
            return Ok(());
        }
    }
}

fn parse(line: &[u8]) -> Result<Ask, String> {
    match line.strip_suffix(b"\n") {
        None if line.len() > REQUEST_MAX => {
            Err(format!("a request has at most {REQUEST_MAX} bytes"))
        }
        None => Err("a request ends with a newline".to_owned()),
        Some(line) => serde_json::from_slice(line).map_err(|error| {
            format!(
                "not a request: {error}; requests are {{\"op\":\"summary\",\"sites\":...}}, \
                 {{\"op\":\"site\",\"site\":...}}, \
                 {{\"op\":\"list\",\"cursor\":...,\"limit\":...,\"filter\":{{...}}}}, \
                 {{\"op\":\"show\",\"id\":...,\"message\":true}} and \
                 {{\"op\":\"hold|release|retry|drop\",\"ids\":[...],\"filter\":{{...}}}}"
            )
        }),
    }
}

/// The answer, and the bytes that are to follow it.
async fn answer(control: &Control, ask: Ask, uid: Option<u32>) -> (Answer, Option<Receiver<Part>>) {
    let (action, order) = match ask {
        Ask::Summary { sites } => {
            return (Answer::Summary(Box::new(answers::summary(control, sites).await)), None);
        }
        Ask::Site { site } => return (Answer::Site(answers::site(control, &site).await), None),
        Ask::List { cursor, limit, filter } => {
            let page = match filter.selection().map(Arc::new) {
                Ok(selection) => pages::list(control, &selection, cursor.as_deref(), limit).await,
                Err(wrong) => Err(wrong),
            };
            return (page.map_or_else(Answer::Error, Answer::Page), None);
        }
        Ask::Show { id, message } => {
            return match answers::show(control, &id, message).await {
                Ok((shown, parts)) => (Answer::Shown(shown), parts),
                Err(wrong) => (Answer::Error(wrong), None),
            };
        }
        Ask::Hold(order) => (Action::Hold, order),
        Ask::Release(order) => (Action::Release, order),
        Ask::Retry(order) => (Action::Retry, order),
        Ask::Drop(order) => (Action::Drop, order),
    };
    let by = uid.map_or_else(|| "an unknown user".to_owned(), who::name);
    let done = pages::order(control, action, &order, by.into()).await;
    (done.map_or_else(Answer::Error, Answer::Ordered), None)
}

/// Writes the bytes of a message as they come from its shard.
async fn send_parts(stream: &mut UnixStream, parts: &Receiver<Part>) -> io::Result<()> {
    loop {
        let (head, bytes) = match timeout(READING, parts.recv()).await {
            Ok(Ok(Part::Bytes(bytes))) if bytes.is_empty() => continue,
            Ok(Ok(Part::Bytes(bytes))) => (Answer::Part(bytes.len()), bytes),
            Ok(Ok(Part::End)) => (Answer::Part(0), Vec::new()),
            Ok(Ok(Part::Failed(why))) => (Answer::Error(why), Vec::new()),
            Ok(Err(_)) => (Answer::Error("its shard has ended".to_owned()), Vec::new()),
            Err(_) => (Answer::Error("its shard does not go on".to_owned()), Vec::new()),
        };
        let is_last = bytes.is_empty();
        let mut line = serde_json::to_vec(&head)?;
        line.push(b'\n');
        timeout(PATIENCE, stream.write_all(&line)).await??;
        timeout(PATIENCE, stream.write_all(&bytes)).await??;
        if is_last {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::fake::{self, Manner};

    /// Serves fake shards, sends `bytes`, and returns all that comes back until
    /// the server closes or the answer to `lines` requests is complete.
    async fn exchange(manners: &[Manner], bytes: &[u8], lines: usize) -> Vec<String> {
        let (_temp, path) = fake::socket();
        let socket = AdminSocket::bind(&path).unwrap();
        let control = fake::control(manners);
        let task = tokio::spawn(async move { socket.serve(control).await });
        let mut stream = BufReader::new(UnixStream::connect(&path).await.unwrap());
        // The server may cut us off before it has read all of it.
        let _ = stream.get_mut().write_all(bytes).await;
        let mut got = Vec::new();
        while got.len() < lines {
            let mut line = String::new();
            match stream.read_line(&mut line).await {
                Ok(1..) => got.push(line),
                _ => break,
            }
        }
        task.abort();
        got
    }

    fn error_of(line: &str) -> String {
        match serde_json::from_str(line).unwrap() {
            Answer::Error(text) => text,
            other => panic!("not an error: {other:?}"),
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_is_too_strange_to_be_refused(line: Vec<u8>) {
            if let Err(wrong) = parse(&line) {
                proptest::prop_assert!(!wrong.is_empty());
            }
        }
    }

    #[tokio::test]
    async fn several_requests_on_one_connection() {
        let requests = b"{\"op\":\"summary\"}\n{\"op\":\"list\",\"limit\":1}\n\
                         {\"op\":\"list\",\"cursor\":\"x\"}\n{\"op\":\"show\",\"id\":\"y\"}\n";
        let got = exchange(&[Manner::Well, Manner::Gone], requests, 4).await;
        let Answer::Summary(summary) = serde_json::from_str(&got[0]).unwrap() else { panic!() };
        assert_eq!(summary.status, "failing");
        assert!(summary.reasons[0].contains("shard 1 has ended"), "{summary:?}");
        assert_eq!(summary.counters["messages_accepted"], 10);
        assert_eq!(summary.shards.len(), 1);
        assert_eq!(summary.sites[0].site, "127.0.0.1:2526");
        let Answer::Page(page) = serde_json::from_str(&got[1]).unwrap() else { panic!() };
        assert_eq!(page.messages.len(), 1);
        assert!(error_of(&got[2]).contains("no cursor"));
        assert!(error_of(&got[3]).contains("not a queue id"));
    }

    #[tokio::test]
    async fn show_finds_a_message_on_any_shard_and_explains_a_missing_one() {
        let id = fake::listed(crate::base::ShardId(1), 3).id;
        let ask = format!("{{\"op\":\"show\",\"id\":\"{id}\",\"message\":true}}\n");
        let got = exchange(&[Manner::Well, Manner::Well], ask.as_bytes(), 7).await;
        let Answer::Shown(shown) = serde_json::from_str(&got[0]).unwrap() else { panic!() };
        assert_eq!(shown.helo, "client.example");
        assert_eq!(shown.listed.queue_id, id.to_string());
        let follows: Vec<_> = got[1..].iter().map(String::as_str).collect();
        let parts =
            ["{\"part\":14}\n", "Subject: x\r\n", "\r\n", "{\"part\":11}\n", "{\"page\":1}\n"];
        assert_eq!(follows, [&parts[..], &["{\"part\":0}\n"]].concat());

        let got = exchange(&[Manner::Well], ask.as_bytes(), 1).await;
        assert!(error_of(&got[0]).contains("it has been settled"), "{}", got[0]);
        let got = exchange(&[Manner::Well, Manner::Gone], ask.as_bytes(), 1).await;
        assert!(error_of(&got[0]).contains("shard 1 has ended"), "{}", got[0]);
    }

    #[tokio::test]
    async fn garbage_is_explained_and_cut_off() {
        let long = [vec![b'['; 10 * REQUEST_MAX], b"\n".to_vec()].concat();
        let deep = [vec![b'['; REQUEST_MAX - 1], b"\n".to_vec()].concat();
        let cases: [(&[u8], &str); 5] = [
            (b"GET / HTTP/1.1\r\n\r\n", "not a request"),
            (b"\n{\"op\":\"summary\"}\n", "not a request"),
            (b"\xff\xfe\x00\n", "not a request"),
            (&deep, "not a request"),
            (&long, "at most 4096 bytes"),
        ];
        for (bytes, says) in cases {
            let got = exchange(&[Manner::Well], bytes, 2).await;
            assert_eq!(got.len(), 1, "{got:?}");
            assert!(error_of(&got[0]).contains(says), "{got:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_caller_is_let_go() {
        let (_temp, path) = fake::socket();
        let socket = AdminSocket::bind(&path).unwrap();
        let control = fake::control(&[Manner::Well]);
        let task = tokio::spawn(async move { socket.serve(control).await });
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"{\"op\"").await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
        task.abort();
    }

    #[tokio::test]
    async fn only_the_owner_may_connect_and_the_file_goes_at_the_end() {
        let (temp, path) = fake::socket();
        let socket = AdminSocket::bind(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1, "nothing else is left");
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_a_live_one_and_a_file_are_not() {
        let (temp, path) = fake::socket();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "as a killed process leaves it");
        std::fs::create_dir(temp.path().join("admin.sock.new")).unwrap();
        let live = AdminSocket::bind(&path).unwrap();
        let error = AdminSocket::bind(&path).unwrap_err();
        assert!(error.message.contains("another process answers"), "{error}");
        drop(live);
        std::fs::write(&path, "precious").unwrap();
        let error = AdminSocket::bind(&path).unwrap_err();
        assert!(error.message.contains("is no socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        let long = temp.path().join("x".repeat(120));
        let error = AdminSocket::bind(&long).unwrap_err();
        assert!(error.message.contains("at most 90 bytes"), "{error}");
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1, "nothing is left behind");
    }
}
