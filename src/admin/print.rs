//! Answers of the admin socket in the form that people read. What came from
//! outside is made harmless for terminals first.

use std::io::{self, Write};

use super::terms::TermsView;
use super::view::{
    MessageView, OrderedMessageView, RecipientView, RestView, ShownView, SiteView, Summary,
};
use crate::base::UnixMillis;

/// The head of a list.
pub fn list_head(out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "-Queue ID-------- --Size-- -Arrival (UTC)------ -Sender/Recipient-")
}

/// An entry of the list: a line, then for each recipient the reason why it
/// waits and its address.
pub fn message(out: &mut impl Write, message: &MessageView) -> io::Result<()> {
    let mark = match message.queue_name.as_str() {
        "active" => '*',
        "hold" => '!',
        _ => ' ',
    };
    let (id, size) = (&message.queue_id, message.message_size);
    let (time, sender) = (utc(message.arrival_time), tame(&message.sender));
    writeln!(out, "{id}{mark} {size:>8} {time} {sender}")?;
    if let Some(damage) = &message.damaged {
        writeln!(out, "      (damaged: {})", tame(damage))?;
    }
    for recipient in &message.recipients {
        if let Some(reason) = &recipient.delay_reason {
            write!(out, "      ({}; attempts {}", tame(reason), recipient.attempts)?;
            match (recipient.held, recipient.next_attempt) {
                (true, _) => writeln!(out, ", held)")?,
                (false, Some(next)) => writeln!(out, ", next {})", utc(next))?,
                (false, None) if recipient.waiting => writeln!(out, ", waits for its site)")?,
                (false, None) => writeln!(out, ", under way)")?,
            }
        } else if recipient.held {
            writeln!(out, "      (held)")?;
        } else if let (true, Some(until)) = (recipient.postponed, recipient.next_attempt) {
            writeln!(out, "      (kept until {})", utc(until))?;
        } else if recipient.waiting {
            writeln!(out, "      (waits for its site)")?;
        }
        writeln!(out, "{:48}{}", "", tame(&recipient.address))?;
    }
    writeln!(out)
}

/// The details of a message.
pub fn shown(out: &mut impl Write, shown: &ShownView) -> io::Result<()> {
    let message = &shown.listed;
    let client = match shown.client.as_str() {
        "" => "made here",
        client => client,
    };
    writeln!(out, "id         {}", message.queue_id)?;
    writeln!(out, "queue      {}", message.queue_name)?;
    writeln!(out, "arrival    {}", utc(message.arrival_time))?;
    writeln!(out, "size       {}", message.message_size)?;
    writeln!(out, "sender     {}", tame(&message.sender))?;
    writeln!(out, "client     {}", tame(client))?;
    writeln!(out, "helo       {}", tame(&shown.helo))?;
    for line in shown.terms.iter().flat_map(TermsView::lines) {
        writeln!(out, "terms      {}", tame(&line))?;
    }
    if let Some(damage) = &message.damaged {
        writeln!(out, "damaged    {}", tame(damage))?;
    }
    message.recipients.iter().try_for_each(|recipient| shown_recipient(out, recipient))
}

fn shown_recipient(out: &mut impl Write, recipient: &RecipientView) -> io::Result<()> {
    writeln!(out, "recipient  {}", tame(&recipient.address))?;
    if let Some(standing) = &recipient.standing {
        let site = standing.site.as_deref().unwrap_or("not known yet");
        writeln!(out, "  site     {}", tame(site))?;
        if let Some(owner) = standing.owner {
            writeln!(out, "  owner    shard {owner}")?;
        }
    }
    writeln!(out, "  attempts {}", recipient.attempts)?;
    let next = match (recipient.held, recipient.next_attempt) {
        (true, _) => "held until it is released".to_owned(),
        (false, Some(next)) => utc(next),
        (false, None) if recipient.waiting => "when its site has room".to_owned(),
        (false, None) => "under way".to_owned(),
    };
    writeln!(out, "  next     {next}")?;
    if let Some(standing) = &recipient.standing {
        writeln!(out, "  why      {}", tame(&standing.why))?;
    }
    if let Some(reason) = &recipient.delay_reason {
        writeln!(out, "  last     {}", tame(reason))?;
    }
    if let Some(last) = recipient.standing.as_ref().and_then(|standing| standing.last.as_ref()) {
        writeln!(out, "  at       {}", utc(last.time))?;
    }
    Ok(())
}

/// The state of the server.
pub fn summary(out: &mut impl Write, summary: &Summary) -> io::Result<()> {
    let Summary { version, hostname, status, durability, started, .. } = summary;
    let count = |name: &str| summary.counters.get(name).copied().unwrap_or(0);
    writeln!(
        out,
        "ringpost {version} on {}: {status}, durability {durability}, up since {}",
        tame(hostname),
        utc(*started)
    )?;
    for reason in &summary.reasons {
        writeln!(out, "  ! {}", tame(reason))?;
    }
    writeln!(
        out,
        "accepted {}, delivered {}, deferred {} times, failed {}, expired {}, dropped {}\n",
        count("messages_accepted"),
        count("recipients_delivered"),
        count("recipients_deferred"),
        count("recipients_failed"),
        count("recipients_expired"),
        count("recipients_dropped")
    )?;
    writeln!(out, "Shard   CPU  Sessions    Queued      Kbytes")?;
    for shard in &summary.shards {
        let cpu = shard.cpu.map_or("-".to_owned(), |cpu| cpu.to_string());
        let kbytes = shard.queued_bytes.div_ceil(1024);
        let (number, sessions, queued) = (shard.shard, shard.sessions, shard.queued_messages);
        writeln!(out, "{number:>5} {cpu:>5} {sessions:>9} {queued:>9} {kbytes:>11}")?;
    }
    writeln!(
        out,
        "\nShard  Segments  Spare  Aside  Unread  Live Kbytes  Space/live  Moved Kbytes"
    )?;
    for shard in &summary.shards {
        writeln!(
            out,
            "{:>5} {:>9} {:>6} {:>6} {:>7} {:>12} {:>11.2} {:>13}",
            shard.shard,
            shard.segments,
            shard.segments_spare,
            shard.segments_quarantined,
            shard.segments_unread,
            shard.live_bytes.div_ceil(1024),
            shard.space_amplification,
            shard.bytes_moved.div_ceil(1024)
        )?;
    }
    if !summary.sites.is_empty() {
        writeln!(out, "\n  Waiting     Out  Queued  Open/now/max  Shard  Destination")?;
    }
    summary.sites.iter().try_for_each(|state| site(out, state))?;
    summary.sites_rest.as_ref().map_or(Ok(()), |rest| sites_rest(out, rest))
}

/// What an order did to one message.
pub fn ordered(out: &mut impl Write, message: &OrderedMessageView) -> io::Result<()> {
    let id = &message.queue_id;
    if message.recipients.is_empty() {
        return writeln!(out, "{id}  (nothing to do)");
    }
    write!(out, "{id} ")?;
    for recipient in &message.recipients {
        write!(out, " {}", tame(&recipient.address))?;
    }
    writeln!(out)
}

/// A destination: a line of the summary's table, and what there is to be said.
pub fn site(out: &mut impl Write, site: &SiteView) -> io::Result<()> {
    let SiteView { waiting, out: given, queued, connections_allowed: allowed, .. } = site;
    let connections = format!("{}/{allowed}/{}", site.connections, site.connections_limit);
    let shard = site.owner.map_or("each".to_owned(), |owner| owner.to_string());
    let name = tame(&site.site);
    writeln!(out, "{waiting:>9} {given:>7} {queued:>7} {connections:>13} {shard:>6}  {name}")?;
    if let Some(rate) = &site.message_rate {
        writeln!(out, "{:48}messages limited to {rate}", "")?;
    }
    let failure = site.last_failure.as_deref().map(tame);
    match (failure, site.back_off_until) {
        (Some(failure), Some(until)) => {
            writeln!(out, "{:48}left alone until {}: {failure}", "", utc(until))
        }
        (Some(failure), None) => writeln!(out, "{:48}last failure: {failure}", ""),
        (None, Some(until)) => writeln!(out, "{:48}left alone until {}", "", utc(until)),
        (None, None) => Ok(()),
    }
}

fn sites_rest(out: &mut impl Write, rest: &RestView) -> io::Result<()> {
    let RestView { sites, queued, out: given, waiting, connections } = rest;
    let noun = if *sites == 1 { "other" } else { "others" };
    let shard = "";
    writeln!(
        out,
        "{waiting:>9} {given:>7} {queued:>7} {connections:>13} {shard:>6}  ({sites} {noun})"
    )
}

/// RFC 3339 to the second.
pub fn utc(seconds: u64) -> String {
    let text = UnixMillis(seconds.saturating_mul(1000)).to_string();
    text.replace(".000Z", "Z")
}

/// What a peer said or called itself, fit for a terminal.
pub fn tame(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_not_at_the_mercy_of_peers() {
        assert_eq!(tame("a\u{1b}[2J\r\nb\u{9b}ü"), "a?[2J??b?ü");
    }

    #[test]
    fn a_damaged_message_is_listed_with_the_cause() {
        let view = MessageView {
            queue_id: "0000000000000000".into(),
            damaged: Some("crc differs".into()),
            ..MessageView::default()
        };
        let mut out = Vec::new();
        message(&mut out, &view).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("\n      (damaged: crc differs)\n"));
    }
}
