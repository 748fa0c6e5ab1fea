//! Answers of the admin socket in the form that people read. What came from
//! outside is made harmless for terminals first.

use std::io::{self, Write};

use super::wire::{MessageView, ShownView, SiteView, Summary};
use crate::base::UnixMillis;

/// The head of a list.
pub fn list_head(out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "-Queue ID-------- --Size-- -Arrival (UTC)------ -Sender/Recipient-")
}

/// An entry of the list: a line, then for each recipient the reason why it
/// waits and its address.
pub fn message(out: &mut impl Write, message: &MessageView) -> io::Result<()> {
    let mark = if message.queue_name == "active" { '*' } else { ' ' };
    let (id, size) = (&message.queue_id, message.message_size);
    let (time, sender) = (utc(message.arrival_time), tame(&message.sender));
    writeln!(out, "{id}{mark} {size:>8} {time} {sender}")?;
    if let Some(damage) = &message.damaged {
        writeln!(out, "      (damaged: {})", tame(damage))?;
    }
    for recipient in &message.recipients {
        if let Some(reason) = &recipient.delay_reason {
            write!(out, "      ({}; attempts {}", tame(reason), recipient.attempts)?;
            match recipient.next_attempt {
                Some(next) => writeln!(out, ", next {})", utc(next))?,
                None => writeln!(out, ", under way)")?,
            }
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
    if let Some(damage) = &message.damaged {
        writeln!(out, "damaged    {}", tame(damage))?;
    }
    for recipient in &message.recipients {
        writeln!(out, "recipient  {}", tame(&recipient.address))?;
        writeln!(out, "  attempts {}", recipient.attempts)?;
        let next = recipient.next_attempt.map_or("under way".to_owned(), utc);
        writeln!(out, "  next     {next}")?;
        if let Some(reason) = &recipient.delay_reason {
            writeln!(out, "  last     {}", tame(reason))?;
        }
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
        "accepted {}, delivered {}, deferred {} times, failed {}, expired {}\n",
        count("messages_accepted"),
        count("recipients_delivered"),
        count("recipients_deferred"),
        count("recipients_failed"),
        count("recipients_expired")
    )?;
    writeln!(out, "Shard   CPU  Sessions    Queued      Kbytes  Segments")?;
    for shard in &summary.shards {
        writeln!(
            out,
            "{:>5} {:>5} {:>9} {:>9} {:>11} {:>9}",
            shard.shard,
            shard.cpu.map_or("-".to_owned(), |cpu| cpu.to_string()),
            shard.sessions,
            shard.queued_messages,
            shard.queued_bytes.div_ceil(1024),
            shard.segments
        )?;
    }
    if !summary.sites.is_empty() {
        writeln!(out, "\nWaiting  Connections  Destination")?;
    }
    for site in &summary.sites {
        site_state(out, site)?;
    }
    Ok(())
}

fn site_state(out: &mut impl Write, site: &SiteView) -> io::Result<()> {
    writeln!(out, "{:>7} {:>12}  {}", site.queued, site.connections, tame(&site.site))?;
    match (&site.last_failure, site.back_off_until) {
        (Some(failure), Some(until)) => {
            writeln!(out, "{:22}left alone until {}: {}", "", utc(until), tame(failure))
        }
        (Some(failure), None) => writeln!(out, "{:22}last failure: {}", "", tame(failure)),
        (None, Some(until)) => writeln!(out, "{:22}left alone until {}", "", utc(until)),
        (None, None) => Ok(()),
    }
}

/// RFC 3339 to the second.
fn utc(seconds: u64) -> String {
    let text = UnixMillis(seconds.saturating_mul(1000)).to_string();
    text.replace(".000Z", "Z")
}

/// What a peer said or called itself, fit for a terminal.
fn tame(text: &str) -> String {
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
