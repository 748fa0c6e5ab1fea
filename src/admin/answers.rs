//! What the admin socket answers about the server, one message, one destination.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use async_channel::Receiver;

use super::control::Control;
use super::health::Health;
use super::view::{RestView, ShardView, ShownView, SiteView, Summary};
use crate::base::QueueId;
use crate::base::counters::Counters;
use crate::shard::control::{Part, ShardSnapshot, SiteState};

/// Parts of a message on their way from the shard: one is being read while one
/// is being written.
const PARTS_MAX: usize = 1;

/// A message, and where its bytes come if they are wanted.
///
/// # Errors
/// Why there is none to show.
pub async fn show(
    control: &Control,
    id: &str,
    message: bool,
) -> Result<(ShownView, Option<Receiver<Part>>), String> {
    let id: QueueId = id.parse().map_err(|wrong| format!("{id:?} is {wrong}"))?;
    let (sender, receiver) = async_channel::bounded(PARTS_MAX);
    match control.fleet.show(id, message.then_some(sender)).await {
        (Some(shown), _) => match &shown.listed.damaged {
            Some(damage) if message => Err(format!("message {id} cannot be read: {damage}")),
            _ => Ok((shown.into(), message.then_some(receiver))),
        },
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

/// The state of the server, with `most` destinations.
pub async fn summary(control: &Control, most: usize) -> Summary {
    let answers = control.fleet.snapshots().await;
    let health = Health::of(control.phase(), &answers);
    let config = control.config();
    let mut sum = Counters::default();
    let mut shards = Vec::new();
    let (mut told, mut totals) = (Vec::new(), Vec::new());
    for shard in answers.into_iter().flatten() {
        sum.add(&shard.counters);
        shards.push(shard_view(&shard));
        totals.push(shard.site_totals);
        told.extend(shard.sites);
    }
    let all: u64 = totals.iter().map(|totals| totals.sites).sum();
    let is_all = told.len() as u64 == all;
    let names = fullest(&told, most);
    let mut sites = match is_all {
        true => merged(&names, told),
        // A shard has not told of those for which it has less than for others.
        false => sites(control, names).await,
    };
    sites.sort_by_key(|site| Reverse(site.waiting + site.out));
    Summary {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: config.hostname.clone(),
        status: health.status.to_owned(),
        reasons: health.reasons,
        durability: config.durability.name().to_owned(),
        started: control.started.as_secs(),
        shards,
        sites_rest: RestView::new(&totals, &sites),
        sites,
        counters: sum.table().into_iter().map(|(name, _, n)| (name.to_owned(), n)).collect(),
    }
}

/// Names of the `most` fullest destinations of those told of.
fn fullest(told: &[SiteState], most: usize) -> Arc<[Box<str>]> {
    let mut mail: BTreeMap<&str, u64> = BTreeMap::new();
    for state in told {
        *mail.entry(&state.site).or_default() += state.waiting + state.out;
    }
    let mut names: Vec<(u64, &str)> = mail.into_iter().map(|(name, mail)| (mail, name)).collect();
    names.sort_by_key(|&(mail, name)| (Reverse(mail), name));
    names.into_iter().take(most).map(|(_, name)| name.into()).collect()
}

/// Destinations by name, asked of all shards.
async fn sites(control: &Control, names: Arc<[Box<str>]>) -> Vec<SiteView> {
    if names.is_empty() {
        return Vec::new();
    }
    let answers = control.fleet.sites(&names).await;
    merged(&names, answers.into_iter().flatten().flatten())
}

/// One view of each destination, in the order of `names`; those of which nobody
/// told are left out.
fn merged(names: &[Box<str>], told: impl IntoIterator<Item = SiteState>) -> Vec<SiteView> {
    let mut known: BTreeMap<String, Vec<SiteState>> = BTreeMap::new();
    for state in told {
        known.entry(state.site.clone()).or_default().push(state);
    }
    names.iter().filter_map(|name| SiteView::merged(known.remove(&**name)?)).collect()
}

/// One destination; `None` if no shard has anything for it.
pub async fn site(control: &Control, name: &str) -> Option<SiteView> {
    sites(control, [name.into()].into()).await.pop()
}

fn shard_view(shard: &ShardSnapshot) -> ShardView {
    let files = &shard.files;
    ShardView {
        shard: shard.shard.0,
        cpu: shard.cpu,
        sessions: shard.sessions,
        queued_messages: shard.queued_messages,
        queued_bytes: shard.queued_bytes,
        segments: files.in_use,
        segments_spare: files.spare,
        segments_quarantined: files.quarantined,
        segments_unread: files.unread,
        live_bytes: files.live_bytes,
        space_amplification: files.amplification,
        bytes_moved: shard.counters.bytes_moved,
        records_damaged: shard.counters.records_damaged,
    }
}
