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

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::control::Control;
use super::failure::Failure;
use super::health::Health;
use super::wire::{Answer, Ask, PAGE_MAX, PageView, REQUEST_MAX, ShardView, ShownView};
use super::wire::{SiteView, Summary};
use crate::base::counters::Counters;
use crate::base::{QueueId, UnixMillis};
use crate::shard::control::ShardSnapshot;

/// Connections served at a time; others wait.
const CONNECTIONS_MAX: usize = 32;
/// Messages asked of a shard at a time, so that neither holds many envelopes.
const STRIDE: usize = 50;
/// Recipients after which a page is full.
const PAGE_RECIPIENTS: usize = 10_000;
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
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut stream).take(REQUEST_MAX as u64 + 1);
        let read = timeout(PATIENCE, bounded.read_until(b'\n', &mut line));
        if !matches!(read.await, Ok(Ok(1..))) {
            return Ok(());
        }
        let (reply, message, last) = match parse(&line) {
            Ok(ask) => {
                let (reply, message) = answer(control, ask).await;
                (reply, message, false)
            }
            Err(wrong) => (Answer::Error(wrong), None, true),
        };
        let mut out = serde_json::to_vec(&reply)?;
        out.push(b'\n');
        out.extend_from_slice(message.as_deref().unwrap_or_default());
        timeout(PATIENCE, stream.get_mut().write_all(&out)).await??;
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
                "not a request: {error}; requests are {{\"op\":\"summary\"}}, \
                 {{\"op\":\"list\",\"cursor\":...,\"limit\":...}} and \
                 {{\"op\":\"show\",\"id\":...,\"message\":true}}"
            )
        }),
    }
}

async fn answer(control: &Control, ask: Ask) -> (Answer, Option<Vec<u8>>) {
    match ask {
        Ask::Summary {} => (Answer::Summary(Box::new(summary(control).await)), None),
        Ask::List { cursor, limit } => {
            let page = page(control, cursor.as_deref(), limit.clamp(1, PAGE_MAX)).await;
            (page.map_or_else(Answer::Error, Answer::Page), None)
        }
        Ask::Show { id, message } => match show(control, &id, message).await {
            Ok((shown, message)) => (Answer::Shown(shown), message),
            Err(wrong) => (Answer::Error(wrong), None),
        },
    }
}

/// Up to `limit` messages, fewer when they have very many recipients. The
/// cursor is `SHARD` or `SHARD:ID`: pages go through one shard after the other,
/// a stride at a time.
async fn page(control: &Control, cursor: Option<&str>, limit: usize) -> Result<PageView, String> {
    let (mut index, mut after) = match cursor {
        None => (0, None),
        Some(text) => read_cursor(text).ok_or_else(|| format!("no cursor: {text:?}"))?,
    };
    let mut view = PageView::default();
    let mut recipients = 0;
    while index < control.fleet.len() {
        if view.messages.len() >= limit || recipients >= PAGE_RECIPIENTS {
            view.next = Some(after.map_or(index.to_string(), |id| format!("{index}:{id}")));
            break;
        }
        let stride = STRIDE.min(limit - view.messages.len());
        let Some(page) = control.fleet.page(index, after, stride).await else { break };
        let page = page.map_err(|silence| silence.to_string())?;
        recipients += page.messages.iter().map(|m| m.recipients.len()).sum::<usize>();
        view.messages.extend(page.messages.into_iter().map(Into::into));
        (index, after) = match page.next {
            Some(id) => (index, Some(id)),
            None => (index + 1, None),
        };
    }
    Ok(view)
}

fn read_cursor(text: &str) -> Option<(usize, Option<QueueId>)> {
    match text.split_once(':') {
        None => Some((text.parse().ok()?, None)),
        Some((index, id)) => Some((index.parse().ok()?, Some(id.parse().ok()?))),
    }
}

async fn show(
    control: &Control,
    id: &str,
    message: bool,
) -> Result<(ShownView, Option<Vec<u8>>), String> {
    let id: QueueId = id.parse().map_err(|wrong| format!("{id:?} is {wrong}"))?;
    match control.fleet.show(id, message).await {
        (Some(shown), _) => Ok(ShownView::new(shown)),
        (None, silent) if silent.is_empty() => Err(format!(
            "no message {id} is queued: it has been settled (the log says how: grep {id}), or was \
             accepted by another server"
        )),
        (None, silent) => {
            let why: Vec<_> = silent.iter().map(ToString::to_string).collect();
            Err(format!("message {id} was not found, but {}", why.join("; ")))
        }
    }
}

async fn summary(control: &Control) -> Summary {
    let answers = control.fleet.snapshots().await;
    let health = Health::of(control.phase(), &answers);
    let config = control.config();
    let mut sum = Counters::default();
    let mut shards = Vec::new();
    let mut sites = Vec::new();
    for shard in answers.into_iter().flatten() {
        sum.add(&shard.counters);
        shards.push(shard_view(&shard));
        sites.extend(shard.sites.into_iter().map(|site| SiteView {
            site: site.site,
            queued: site.queued,
            connections: site.connections,
            back_off_until: site.back_off_until.map(UnixMillis::as_secs),
            last_failure: site.last_failure,
        }));
    }
    sites.sort_by(|a, b| a.site.cmp(&b.site));
    Summary {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: config.hostname.clone(),
        status: health.status.to_owned(),
        reasons: health.reasons,
        durability: config.durability.name().to_owned(),
        started: control.started.as_secs(),
        shards,
        sites,
        counters: sum.table().into_iter().map(|(name, _, n)| (name.to_owned(), n)).collect(),
    }
}

fn shard_view(shard: &ShardSnapshot) -> ShardView {
    ShardView {
        shard: shard.shard.0,
        cpu: shard.cpu,
        sessions: shard.sessions,
        queued_messages: shard.queued_messages,
        queued_bytes: shard.queued_bytes,
        segments: shard.segments,
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

    #[tokio::test]
    async fn pages_run_through_all_shards_without_gap_or_repeat() {
        for limit in [1, 2, 3, 5, 7, 10, 1000] {
            let control = fake::control(&[Manner::Well, Manner::Well]);
            let mut ids = Vec::new();
            let mut cursor: Option<String> = None;
            loop {
                let page = page(&control, cursor.as_deref(), limit).await.unwrap();
                assert!(page.messages.len() <= limit);
                ids.extend(page.messages.into_iter().map(|m| m.queue_id));
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(ids.len(), 2 * fake::QUEUED as usize, "limit {limit}");
            assert!(ids.is_sorted());
            ids.dedup();
            assert_eq!(ids.len(), 2 * fake::QUEUED as usize, "limit {limit}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_is_too_strange_to_be_refused(line: Vec<u8>, text: String) {
            if let Err(wrong) = parse(&line) {
                proptest::prop_assert!(!wrong.is_empty());
            }
            if let Some((index, after)) = read_cursor(&text) {
                let again = after.map_or(index.to_string(), |id| format!("{index}:{id}"));
                proptest::prop_assert_eq!(read_cursor(&again), Some((index, after)));
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
        let got = exchange(&[Manner::Well, Manner::Well], ask.as_bytes(), 3).await;
        let Answer::Shown(shown) = serde_json::from_str(&got[0]).unwrap() else { panic!() };
        assert_eq!(shown.helo, "client.example");
        assert_eq!(shown.listed.queue_id, id.to_string());
        assert_eq!(shown.message_length, Some(b"Subject: x\r\n\r\n\xff\n{\"page\":1}\n".len()));
        assert_eq!(got[1], "Subject: x\r\n", "the bytes follow the line");

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
