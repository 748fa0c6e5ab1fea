//! What the admin socket answers about the server and about one message.

use async_channel::Receiver;

use super::control::Control;
use super::health::Health;
use super::view::{ShardView, ShownView, SiteView, Summary};
use crate::base::counters::Counters;
use crate::base::{QueueId, UnixMillis};
use crate::shard::control::{Part, ShardSnapshot};

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

/// The state of the server.
pub async fn summary(control: &Control) -> Summary {
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
