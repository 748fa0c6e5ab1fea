//! Keeps the certificates that are in force, and notices when their files change.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::super::failure::Failure;
use super::super::fleet::Fleet;
use super::{Loaded, Missing, Problem, Texts, files, load};
use crate::config::Config;
use crate::io::clock;
use crate::io::tls::Server;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// What tells one version of a file from another: nobody reads it for that.
type Stamp = Option<(u64, u64, i64, i64, i64)>;

/// The certificates in force.
pub struct Keeper(RefCell<State>);

struct State {
    config: Arc<Config>,
    texts: Texts,
    stamps: Vec<Stamp>,
    server: Option<Server>,
}

impl Keeper {
    /// Reads the certificates of a server that starts.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn start(config: &Arc<Config>) -> Result<Keeper, Failure> {
        let stamps = stamps(config);
        let loaded =
            load(config, Missing::Make, clock::wall().as_secs() as i64).map_err(refusal)?;
        tell(&loaded);
        let Loaded { server, texts, .. } = loaded;
        Ok(Keeper(RefCell::new(State { config: Arc::clone(config), texts, stamps, server })))
    }

    /// What handshakes are done with now.
    pub fn server(&self) -> Option<Server> {
        self.0.borrow().server.clone()
    }

    /// Reads the files that `config` names, and has the shards use what is new in
    /// them. What cannot be used is said in the log, and what was in force stays so.
    pub async fn reload(&self, config: &Arc<Config>, fleet: &Fleet) {
        if let Some(fresh) = self.renew(config) {
            hand_out(&fresh, fleet).await;
        }
    }

    /// Does as much if one of the files has changed since they were read.
    pub async fn look(&self, fleet: &Fleet) {
        if let Some(fresh) = self.changed() {
            hand_out(&fresh, fleet).await;
        }
    }

    /// Reads the files that `config` names; what handshakes are done with from now
    /// on, if that is something new.
    pub(super) fn renew(&self, config: &Arc<Config>) -> Option<Server> {
        let mut state = self.0.borrow_mut();
        state.config = Arc::clone(config);
        // Before the files are read: a change after that shows.
        state.stamps = stamps(config);
        match load(config, Missing::Make, clock::wall().as_secs() as i64) {
            Err(problems) => {
                for problem in problems {
                    tracing::error!(
                        target: "ringpost",
                        "the old certificates stay in force: {problem}"
                    );
                }
                None
            }
            Ok(loaded) if loaded.texts == state.texts => None,
            Ok(loaded) => {
                tell(&loaded);
                tracing::info!(target: "ringpost", "new certificates are in force");
                state.texts = loaded.texts;
                state.server = loaded.server;
                state.server.clone()
            }
        }
    }

    /// Reads the files again if one of them has changed since they were read.
    pub(super) fn changed(&self) -> Option<Server> {
        let config = {
            let state = self.0.borrow();
            if stamps(&state.config) == state.stamps {
                return None;
            }
            Arc::clone(&state.config)
        };
        self.renew(&config)
    }

    /// Waits until the files are to be looked at again.
    pub async fn pause(&self) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Has the shards do their handshakes with new certificates.
async fn hand_out(fresh: &Server, fleet: &Fleet) {
    for silence in fleet.use_tls(fresh).await {
        tracing::error!(target: "ringpost", "has the old certificates: {silence}");
    }
}

fn refusal(problems: Vec<Problem>) -> Failure {
    let problems: Vec<String> = problems.iter().map(Problem::to_string).collect();
    Failure::usage(problems.join("\n"))
}

fn tell(loaded: &Loaded) {
    for warning in &loaded.warnings {
        tracing::warn!(target: "ringpost", "tls: {warning}");
    }
    for note in &loaded.notes {
        tracing::info!(target: "ringpost", "tls: {note}");
    }
}

fn stamps(config: &Config) -> Vec<Stamp> {
    files(config).iter().map(|path| stamp(path)).collect()
}

/// By inode too: files are replaced as a rule, and clocks are coarse.
fn stamp(path: &Path) -> Stamp {
    let about = fs::metadata(path).ok()?;
    Some((about.dev(), about.ino(), about.mtime(), about.mtime_nsec(), about.size() as i64))
}
