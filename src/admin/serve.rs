//! `ringpost serve`, on one page: configuration, log, data directory, sockets,
//! shards, in this order; then the signals; then all of it down again.
//!
//! Everything that can fail for an operator's reasons fails before the shards
//! start. A signal that comes while the logs are read is not lost. A shard that
//! ends by itself takes the server down with exit code 1, so that a service
//! manager starts it anew: its queue would otherwise lie unattended.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime;

use super::cli::{ServeArgs, available_cpus};
use super::control::{Control, Phase};
use super::datadir::DataDir;
use super::failure::Failure;
use super::fleet::{Fleet, Member};
use super::reload::keep_fixed;
use super::signals::{Event, Signals};
use super::socket::AdminSocket;
use super::tls::Keeper;
use super::users::WatchedUsers;
use super::{bind, check, hint, http, logging, notify};
use crate::base::{Durability, ShardId, UnixMillis};
use crate::config::{Config, EMBEDDED_NAME, Listener};
use crate::io::{clock, process};
use crate::shard::maillog::{LogFormat, LogSink};
use crate::shard::{Recovered, ShardHandle, ShardPlan};

/// How often the control thread looks whether the users file has changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// What a shard may need beyond the grace to flush and end.
const SLACK: Duration = Duration::from_secs(15);
/// How long the log's last lines may take.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Descriptors kept free of sessions: segments, admin sockets, rings.
const FILES_BESIDES: u64 = 256;

/// Runs the server to its end and returns its exit code; `start` starts the
/// shards. What goes wrong once there is a log is said there.
///
/// # Errors
/// What is wrong before there is a log: `RINGPOST_LOG`, the configuration.
pub fn run(
    args: &ServeArgs,
    start: impl FnOnce(Vec<ShardPlan>) -> io::Result<Vec<ShardHandle>>,
) -> Result<ExitCode, Failure> {
    let started = clock::wall();
    let variable = std::env::var(logging::VARIABLE).ok();
    let filter = logging::filter(variable.as_deref())?;
    let config = Arc::new(args.source.load()?);
    let (sink, writer) = logging::start(args.log_format.into(), io::stderr())
        .map_err(|e| Failure::runtime(format!("cannot start the log's thread: {e}")))?;
    let log = logging::install(sink, filter);
    let code = match WatchedUsers::new(&config)
        .and_then(|users| Server { args, config, users: Arc::new(users), log, started }.run(start))
    {
        Ok(()) => {
            tracing::info!(target: "ringpost", "ended");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            tracing::error!(target: "ringpost", "ended: {failure}");
            ExitCode::from(failure.code)
        }
    };
    writer.finish(LAST_WORDS);
    Ok(code)
}

struct Server<'a> {
    args: &'a ServeArgs,
    config: Arc<Config>,
    users: Arc<WatchedUsers>,
    log: LogSink,
    started: UnixMillis,
}

impl Server<'_> {
    fn run(
        &self,
        start: impl FnOnce(Vec<ShardPlan>) -> io::Result<Vec<ShardHandle>>,
    ) -> Result<(), Failure> {
        let data = DataDir::claim(&self.config.data_dir)?;
        let cpus = self.cpus()?;
        self.check_authorities(&self.config)?;
        self.check_open_files();
        let addresses: Vec<SocketAddr> =
            self.config.listeners.iter().flat_map(|l| l.addresses.iter().copied()).collect();
        let bound = bind::bind(&addresses, cpus.len())?;
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Failure::runtime(format!("cannot start the control thread: {e}")))?;
        tracing::info!(
            target: "ringpost",
            version = env!("CARGO_PKG_VERSION"),
            durability = %self.config.durability,
            shards = cpus.len(),
            data_dir = %data.path().display(),
            "starting"
        );
        for warning in check::warnings(&self.config) {
            tracing::warn!(target: "ringpost", "configuration: {warning}");
        }
        let tls = Keeper::start(&self.config)?;
        let plans = self.plans(&cpus, bound.per_shard, &tls);
        let done = runtime.block_on(self.control(plans, &bound.addresses, &tls, start));
        // A shard that hangs must not keep the process.
        runtime.shutdown_background();
        done
    }

    async fn control(
        &self,
        plans: Vec<ShardPlan>,
        addresses: &[SocketAddr],
        tls: &Keeper,
        start: impl FnOnce(Vec<ShardPlan>) -> io::Result<Vec<ShardHandle>>,
    ) -> Result<(), Failure> {
        let mut signals = Signals::new()?;
        let admin = self.config.admin.http.map(http::listen).transpose()?;
        let socket = AdminSocket::bind(&self.config.admin_socket())?;
        let handles =
            start(plans).map_err(|e| Failure::runtime(format!("cannot start the shards: {e}")))?;
        let members = handles.iter().map(|h| Member { id: h.id, requests: h.requests.clone() });
        let control = Control::new(Fleet::new(members), Arc::clone(&self.config), self.started);
        let admin_address = admin.map(|(listener, address)| {
            tokio::spawn(http::serve(listener, Arc::clone(&control)));
            address
        });
        let asked = Arc::clone(&control);
        let serving = tokio::spawn(async move { socket.serve(asked).await });
        let looking = tokio::spawn(look(Arc::clone(&self.users), Arc::clone(&control)));

        let outcome = match self.start_up(&handles, &control, tls, &mut signals).await {
            Ok(Some(found)) => {
                self.announce(&control, &found, addresses, admin_address);
                self.attend(&control, tls, &mut signals).await
            }
            Ok(None) => Ok(()),
            Err(failure) => Err(failure),
        };
        let down = self.take_down(&control, &mut signals, handles).await;
        looking.abort();
        serving.abort();
        // The task owns the socket's file, which goes with it.
        let _ = serving.await;
        outcome.and(down)
    }

    /// Waits until the shards have begun their logs; `None` when the server is
    /// to stop before that.
    async fn start_up(
        &self,
        handles: &[ShardHandle],
        control: &Control,
        tls: &Keeper,
        signals: &mut Signals,
    ) -> Result<Option<Recovered>, Failure> {
        let mut recovered = std::pin::pin!(recovered(handles));
        loop {
            tokio::select! {
                biased;
                found = &mut recovered => return found.map(Some),
                event = signals.next(&control.fleet) => match event {
                    Event::Ended(shard) => return Err(why_ended(handles, shard)),
                    Event::Stop => return Ok(None),
                    Event::Reload => self.reload(control, tls).await,
                },
            }
        }
    }

    /// Everything works: says so to the log, the service manager and whoever
    /// runs this for the first time.
    fn announce(
        &self,
        control: &Control,
        found: &Recovered,
        addresses: &[SocketAddr],
        admin: Option<SocketAddr>,
    ) {
        control.enter(Phase::Ready);
        for note in &found.notes {
            tracing::warn!(target: "ringpost", "found in the queue: {note}");
        }
        tracing::info!(
            target: "ringpost",
            listening = %join(addresses),
            http = %admin.map_or("off".to_owned(), |address| address.to_string()),
            durability = %self.config.durability,
            "ready"
        );
        notify::tell(notify::READY);
        if let (true, LogFormat::Text, Some(address)) =
            (self.is_embedded(), self.log.format, addresses.first())
        {
            // A log that is behind loses a hint; nobody misses it.
            let _ = self.log.batches.try_send(hint::first_message(*address).into_bytes());
        }
    }

    /// Heeds signals until it is time to stop.
    async fn attend(
        &self,
        control: &Control,
        tls: &Keeper,
        signals: &mut Signals,
    ) -> Result<(), Failure> {
        loop {
            tokio::select! {
                event = signals.next(&control.fleet) => match event {
                    Event::Stop => return Ok(()),
                    Event::Ended(shard) => return Err(gone(shard)),
                    Event::Reload => self.reload(control, tls).await,
                },
                () = tls.pause() => tls.look(&control.fleet).await,
            }
        }
    }

    async fn reload(&self, control: &Control, tls: &Keeper) {
        let loaded = self.args.source.load();
        let checked = loaded.and_then(|fresh| self.check_authorities(&fresh).map(|()| fresh));
        let fresh = match checked {
            Ok(fresh) => fresh,
            Err(failure) => {
                tracing::error!(
                    target: "ringpost",
                    "not reloaded, the old configuration stays in force: {failure}"
                );
                return;
            }
        };
        let (config, fixed) = keep_fixed(&control.config(), fresh);
        if !fixed.is_empty() {
            tracing::warn!(target: "ringpost", keys = fixed.join(", "), "changed, but need a restart");
        }
        let config = Arc::new(config);
        self.users.reload(&config);
        for silence in control.fleet.reload(&config).await {
            tracing::error!(target: "ringpost", "has the old configuration: {silence}");
        }
        tls.reload(&config, &control.fleet).await;
        control.set_config(config);
        tracing::info!(target: "ringpost", "reloaded");
    }

    /// Drains and joins the shards; a second signal ends the process at once.
    async fn take_down(
        &self,
        control: &Control,
        signals: &mut Signals,
        handles: Vec<ShardHandle>,
    ) -> Result<(), Failure> {
        control.enter(Phase::Draining);
        notify::tell(notify::STOPPING);
        let grace = control.config().shutdown_grace;
        tracing::info!(target: "ringpost", grace_s = grace.as_secs(), "stopping");
        let calm = async {
            let silent = control.fleet.drain(grace, SLACK).await;
            let left = silent.first().map(|silence| {
                let fate = self.fate();
                Failure::runtime(format!("not ended cleanly: {silence}; {fate}"))
            });
            let joined = match left {
                None => join_all(handles).await,
                Some(_) => Ok(()),
            };
            left.map_or(joined, Err)
        };
        tokio::select! {
            done = calm => done,
            () = signals.stop() => Err(Failure::runtime(format!(
                "stopped by a second signal before everything in flight was finished; {}",
                self.fate()
            ))),
        }
    }

    /// What becomes of accepted mail when a shard does not end by itself.
    fn fate(&self) -> &'static str {
        match self.config.durability {
            Durability::Sync | Durability::Os => {
                "what was answered 250 is in the queue and goes on at the next start"
            }
            Durability::Memory => "durability is \"memory\": what was not delivered may be lost",
        }
    }

    /// What messages call the configuration.
    fn name(&self) -> String {
        let file = self.args.source.config.as_deref();
        file.map_or(EMBEDDED_NAME.into(), |path| path.display().to_string())
    }

    /// The CPUs to run shards on.
    fn cpus(&self) -> Result<Vec<usize>, Failure> {
        check::resolve_cores(&self.config, &available_cpus()?, &self.name())
            .map_err(|errors| Failure::usage(errors.to_string()))
    }

    /// Without the authorities that are named, `verified` would deliver nothing.
    fn check_authorities(&self, config: &Config) -> Result<(), Failure> {
        check::authorities_can_be_read(config, &self.name())
            .map_err(|errors| Failure::usage(errors.to_string()))
    }

    /// Whether the embedded configuration is in force as it stands.
    fn is_embedded(&self) -> bool {
        self.args.source.config.is_none() && self.args.source.set.is_empty()
    }

    fn check_open_files(&self) {
        let wanted = u64::from(self.config.limits.connections) + FILES_BESIDES;
        match process::raise_open_files() {
            // Who tries the embedded default has not asked for that many.
            Ok(limit) if limit < wanted && !self.is_embedded() => tracing::warn!(
                target: "ringpost",
                limit,
                "limits.connections = {} needs {wanted} open files; raise the limit \
                 (systemd: LimitNOFILE={wanted}) or lower limits.connections",
                self.config.limits.connections
            ),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(target: "ringpost", %error, "cannot raise the limit of open files");
            }
        }
    }

    fn plans(
        &self,
        cpus: &[usize],
        listeners: Vec<Vec<std::net::TcpListener>>,
        tls: &Keeper,
    ) -> Vec<ShardPlan> {
        let shards = cpus.len() as u16;
        let of_listener =
            |(index, listener): (usize, &Listener)| vec![index; listener.addresses.len()];
        let indices: Vec<usize> =
            self.config.listeners.iter().enumerate().flat_map(of_listener).collect();
        let each = cpus.iter().zip(listeners).enumerate();
        each.map(|(index, (cpu, listeners))| ShardPlan {
            id: ShardId(index as u16),
            shards,
            cpu: Some(*cpu),
            config: Arc::clone(&self.config),
            tls: tls.server(),
            listeners: indices.iter().copied().zip(listeners).collect(),
            authority: self.users.authority(),
            log: self.log.clone(),
        })
        .collect()
    }
}

/// Looks after the users file for ever.
async fn look(users: Arc<WatchedUsers>, control: Arc<Control>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        users.look(&control.config());
    }
}

/// Waits until every shard has read its logs and listens.
async fn recovered(handles: &[ShardHandle]) -> Result<Recovered, Failure> {
    let mut all = Recovered::default();
    for handle in handles {
        let id = handle.id;
        match handle.ready.recv().await {
            Ok(Ok(found)) => {
                all.notes.extend(found.notes.into_iter().map(|n| format!("shard {id}: {n}")));
            }
            Ok(Err(why)) => return Err(not_started(id, &why)),
            Err(_) => return Err(gone(id)),
        }
    }
    Ok(all)
}

async fn join_all(handles: Vec<ShardHandle>) -> Result<(), Failure> {
    for handle in handles {
        let id = handle.id;
        let join = tokio::task::spawn_blocking(move || handle.join());
        match tokio::time::timeout(SLACK, join).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => {
                return Err(Failure::runtime(format!("shard {id} failed at its end: {error}")));
            }
            Ok(Err(_)) | Err(_) => {
                return Err(Failure::runtime(format!("shard {id} did not end")));
            }
        }
    }
    Ok(())
}

/// A shard that could not start says why, and ends.
fn why_ended(handles: &[ShardHandle], shard: ShardId) -> Failure {
    let said = handles.iter().find(|h| h.id == shard).map(|h| h.ready.try_recv());
    match said {
        Some(Ok(Err(why))) => not_started(shard, &why),
        _ => gone(shard),
    }
}

fn not_started(shard: ShardId, why: &str) -> Failure {
    Failure::runtime(format!("shard {shard} could not start: {why}"))
}

fn gone(shard: ShardId) -> Failure {
    Failure::runtime(format!(
        "shard {shard} ended by itself, which is a bug of ringpost: please report it with the log, \
         and start ringpost again"
    ))
}

fn join(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;
    use std::process::Command;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::admin::cli::{ConfigArgs, Format};
    use crate::admin::fake::{self, Manner};
    use crate::admin::view::Summary;
    use crate::admin::wire::Answer;
    use crate::shard::control::Request;

    fn with_users(config: Config) -> (Arc<Config>, Arc<WatchedUsers>) {
        let users = WatchedUsers::new(&config).unwrap();
        (Arc::new(config), Arc::new(users))
    }

    type Ready = async_channel::Sender<Result<Recovered, String>>;
    type Inbox = async_channel::Receiver<Request<Config>>;

    /// A server whose only shard is in the hands of the test.
    struct Rig {
        data: tempfile::TempDir,
        ended: Receiver<Result<(), Failure>>,
        inbox: Inbox,
        ready: Option<Ready>,
    }

    impl Rig {
        /// Returns once the shard would have been started; by then signals are
        /// caught.
        fn start() -> Rig {
            let data = tempfile::tempdir().unwrap();
            let mut config = Config { data_dir: data.path().join("data"), ..Config::default() };
            config.listeners[0].addresses = vec!["127.0.0.1:0".parse().unwrap()];
            config.admin.http = Some("127.0.0.1:0".parse().unwrap());
            config.cores = "1".parse().unwrap();
            config.limits.connections = 1;
            let (told, started) = channel();
            let (end, ended) = channel();
            std::thread::spawn(move || {
                let source = ConfigArgs::default();
                let args = ServeArgs { source, log_format: Format::Json };
                let (log, _writer) = logging::start(LogFormat::Json, io::sink()).unwrap();
                let (config, users) = with_users(config);
                let started = clock::wall();
                let server = Server { args: &args, config, users, log, started };
                end.send(server.run(|plans| Ok(pretend(plans, &told)))).unwrap();
            });
            let (inbox, ready) = started.recv().expect("the shard is started");
            Rig { data, ended, inbox, ready: Some(ready) }
        }

        fn ready(mut self) -> Rig {
            let ready = self.ready.take().unwrap();
            ready.try_send(Ok(Recovered { notes: vec!["x".into()] })).unwrap();
            self
        }

        fn signal(&self, name: &str) {
            let pid = std::process::id().to_string();
            assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
        }

        /// Asks for the state until it is `status`; the shard answers.
        fn until(&self, status: &str) -> Summary {
            loop {
                let path = self.data.path().join("data/admin.sock");
                let mut stream = BufReader::new(UnixStream::connect(path).unwrap());
                stream.get_mut().write_all(b"{\"op\":\"summary\",\"sites\":0}\n").unwrap();
                let request = self.inbox.recv_blocking().unwrap();
                assert!(matches!(request, Request::Snapshot(_)));
                let answered = fake::answer(ShardId(0), Manner::Well, request);
                assert!(!futures_lite::future::block_on(answered), "that was not the end");
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                match serde_json::from_str(&line).unwrap() {
                    Answer::Summary(summary) if summary.status == status => return *summary,
                    Answer::Summary(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }

        fn drain(&self) -> async_channel::Sender<()> {
            match self.inbox.recv_blocking().unwrap() {
                Request::Drain { grace, reply } => {
                    assert_eq!(grace, Config::default().shutdown_grace);
                    reply
                }
                _ => panic!("not a drain"),
            }
        }

        fn end(self) -> Result<(), Failure> {
            let socket = self.data.path().join("data/admin.sock");
            drop(self.inbox);
            let done = self.ended.recv().unwrap();
            assert!(!socket.exists(), "the socket goes with the server");
            DataDir::claim(&self.data.path().join("data")).expect("and so does the lock");
            done
        }
    }

    fn pretend(plans: Vec<ShardPlan>, told: &Sender<(Inbox, Ready)>) -> Vec<ShardHandle> {
        assert_eq!(plans.len(), 1);
        assert_eq!(plans[0].listeners.len(), 1);
        let (requests, inbox) = async_channel::bounded(16);
        let (tell, ready) = async_channel::bounded(1);
        told.send((inbox, tell)).unwrap();
        vec![ShardHandle::new(ShardId(0), requests, ready, || Ok(()))]
    }

    /// Signals go to the whole process, so this is one test.
    #[test]
    fn signals_failures_and_the_way_down() {
        // SIGHUP before the shards are ready is heeded, and does not end it.
        let rig = Rig::start();
        rig.signal("-HUP");
        assert!(matches!(rig.inbox.recv_blocking(), Ok(Request::Reload(_))));
        assert_eq!(rig.until("starting").hostname, "localhost");
        let rig = rig.ready();
        assert_eq!(rig.until("ok").durability, "sync");
        rig.signal("-TERM");
        let reply = rig.drain();
        rig.until("draining");
        reply.try_send(()).unwrap();
        assert_eq!(rig.end(), Ok(()));

        // A second signal ends a drain that does not.
        let rig = Rig::start().ready();
        rig.until("ok");
        rig.signal("-INT");
        let reply = rig.drain();
        rig.signal("-TERM");
        let failure = rig.end().unwrap_err();
        assert!(failure.message.contains("second signal"), "{failure}");
        assert!(failure.message.contains("goes on at the next start"), "{failure}");
        drop(reply);

        // A shard that cannot start, and one that ends by itself.
        let rig = Rig::start();
        rig.ready.as_ref().unwrap().try_send(Err("log-00000: not ours".into())).unwrap();
        rig.drain().try_send(()).unwrap();
        let failure = rig.end().unwrap_err();
        assert_eq!(failure, Failure::runtime("shard 0 could not start: log-00000: not ours"));
        let rig = Rig::start().ready();
        let failure = rig.end().unwrap_err();
        assert!(failure.message.contains("shard 0 ended by itself"), "{failure}");

        // SIGTERM while the logs are read.
        let rig = Rig::start();
        rig.signal("-TERM");
        rig.drain().try_send(()).unwrap();
        assert_eq!(rig.end(), Ok(()));
    }

    #[test]
    fn a_shard_that_ends_while_another_still_reads_is_heard() {
        let handle = |id| {
            let (requests, _) = async_channel::bounded(1);
            let (tell, ready) = async_channel::bounded(1);
            (tell, ShardHandle::new(ShardId(id), requests, ready, || Ok(())))
        };
        let (_still_reading, first) = handle(0);
        let (tell, second) = handle(1);
        let handles = [first, second];
        tell.try_send(Err("log-00001: no space".into())).unwrap();
        drop(tell);
        let failure = why_ended(&handles, ShardId(1));
        assert_eq!(failure.message, "shard 1 could not start: log-00001: no space");
        assert_eq!(why_ended(&handles, ShardId(1)), gone(ShardId(1)), "it says so once");
    }

    #[test]
    fn cores_that_are_not_there_are_a_configuration_error() {
        let args = ServeArgs { source: ConfigArgs::default(), log_format: Format::Text };
        let config = Config { cores: "4000-4001".parse().unwrap(), ..Config::default() };
        let (log, _writer) = logging::start(LogFormat::Text, io::sink()).unwrap();
        let (config, users) = with_users(config);
        let server = Server { args: &args, config, users, log, started: clock::wall() };
        let failure = server.cpus().unwrap_err();
        assert_eq!(failure.code, 2);
        assert!(failure.message.starts_with("embedded default: cores: "), "{failure}");
    }
}
