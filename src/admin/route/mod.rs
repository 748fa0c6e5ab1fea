//! `ringpost route`: what would be done with mail for an address now, and why.
//! No server is needed: the routes are read from the configuration and DNS is
//! asked here (`explain`). Where the server of that configuration runs, it is
//! asked what it knows of the site. `view` is what comes out, `print` how people
//! read it.

mod explain;
mod print;
mod view;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::check;
use super::cli::{ConfigArgs, available_cpus};
use super::client::{Server, Trouble};
use super::failure::Failure;
use super::wire::{Answer, Ask};
use crate::config::{Config, EMBEDDED_NAME};
use crate::io::executor::run_pinned;
use crate::proto::address::Address;
use view::{LiveView, OwnerView, RouteView, SiteView};

/// Options of `ringpost route`.
#[derive(Debug, Args)]
pub struct RouteArgs {
    /// The recipient's address
    address: String,
    #[command(flatten)]
    source: ConfigArgs,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Explains the route of an address, printing to `out`.
///
/// # Errors
/// The address or the configuration is wrong (code 2), or some name could not be
/// looked up (code 1): what is known is printed even so.
pub fn run(args: &RouteArgs, out: &mut impl Write) -> Result<ExitCode, Failure> {
    if let Err(wrong) = Address::parse(&args.address) {
        return Err(Failure::usage(format!("{:?} is no address: {wrong}", args.address)));
    }
    let config = Arc::new(args.source.load()?);
    let mut view = on_an_executor(&config, &args.address)?;
    if let Some(site) = &mut view.site {
        site.owner = owner(&config, args, site.hash);
        site.lanes = lanes(site);
        view.server = Some(live(&config, &site.name));
    }
    let printed = if args.json {
        serde_json::to_writer(&mut *out, &view)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        print::route(out, &view)
    };
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(Failure::runtime(format!("cannot write to standard output: {error}")));
        }
        _ => {}
    }
    match view.trouble {
        Some(trouble) => Err(Failure::runtime(trouble)),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Resolvers live on executors.
fn on_an_executor(config: &Arc<Config>, address: &str) -> Result<RouteView, Failure> {
    let (config, address) = (Arc::clone(config), address.to_owned());
    let explain = move || async move { explain::explain(&config, &address).await };
    run_pinned("route", None, explain)
        .and_then(|thread| thread.join())
        .map_err(|error| Failure::runtime(format!("cannot look up names: {error}")))
}

/// The shard that has the site, if the CPUs are there that the configuration
/// gives it.
fn owner(config: &Config, args: &RouteArgs, hash: u32) -> Option<OwnerView> {
    let file = args.source.config.as_deref();
    let name = file.map_or(EMBEDDED_NAME.into(), |path| path.display().to_string());
    let cpus = check::resolve_cores(config, &available_cpus().ok()?, &name).ok()?;
    let shard = hash as usize % cpus.len();
    Some(OwnerView { shard, shards: cpus.len(), cpu: cpus[shard] })
}

/// Lanes that the site has from the start.
fn lanes(site: &SiteView) -> usize {
    let shards = site.owner.as_ref().map_or(1, |owner| owner.shards);
    let has_enough = site.limits.connections.value as usize >= shards;
    if site.is_static && has_enough { shards } else { 1 }
}

/// What the server knows of the site, if it runs.
fn live(config: &Config, site: &str) -> LiveView {
    let path = config.admin_socket();
    if !path.exists() {
        return LiveView::default();
    }
    let mut server = match Server::connect(&path) {
        Ok(server) => server,
        Err(failure) => return LiveView { note: Some(failure.message), ..LiveView::default() },
    };
    match server.ask(&Ask::Site { site: site.to_owned() }) {
        Ok(Answer::Site(site)) => LiveView { runs: true, site, note: None },
        Ok(_) => LiveView { runs: true, note: Some(note(server.unexpected())), site: None },
        Err(trouble) => LiveView { runs: true, note: Some(note(trouble)), site: None },
    }
}

fn note(trouble: Trouble) -> String {
    match trouble {
        Trouble::Server(failure) => failure.message,
        Trouble::Printing(error) => error.to_string(),
    }
}
