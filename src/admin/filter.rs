//! The filters of `ringpost queue` as they are written: the same words on the
//! command line and in a request of the admin socket. Made into a
//! [`Selection`] before anything is asked of a shard, on both sides, so that a
//! wrong word is a usage error for a person and an answer for a script.

use std::ops::RangeInclusive;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::view::NULL_SENDER;
use crate::config::{DURATION_FORM, SIZE_FORM, parse_duration, parse_size};
use crate::shard::select::{AddressPattern, LastReply, Selection, Waiting};

/// Which messages; the default is all.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Only messages from this address, or from any address of @DOMAIN;
    /// MAILER-DAEMON for the null sender
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// Only this recipient, or those of @DOMAIN
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// Only recipients of this domain; *.DOMAIN for those below it
    #[arg(long, value_name = "DOMAIN")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Only recipients whose mail goes there, as far as the server knows: a
    /// destination as `summary` prints it, or one of its hosts; or discard,
    /// reject, mx
    #[arg(long, value_name = "SITE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Only messages accepted longer ago than this, like 2h
    #[arg(long, value_name = "DURATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than: Option<String>,
    /// Only messages accepted less long ago than this
    #[arg(long, value_name = "DURATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newer_than: Option<String>,
    /// Only recipients for which exactly so many attempts were made
    #[arg(long, value_name = "N", conflicts_with_all = ["min_attempts", "max_attempts"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u16>,
    /// Only recipients for which at least so many attempts were made
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_attempts: Option<u16>,
    /// Only recipients for which at most so many attempts were made
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u16>,
    /// Only recipients about which this was said last: one to three digits are
    /// the beginning of the code, anything else is a part of the reply
    #[arg(long, value_name = "TEXT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_reply: Option<String>,
    /// Only messages with more bytes than this, like 1MiB
    #[arg(long, value_name = "SIZE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub larger_than: Option<String>,
    /// Only messages with fewer bytes than this
    #[arg(long, value_name = "SIZE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smaller_than: Option<String>,
    /// Only recipients in this state: active, deferred, waiting, hold or kept
    #[arg(long, value_name = "STATE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

impl Filter {
    /// True if it lets everything through.
    pub fn is_empty(&self) -> bool {
        *self == Filter::default()
    }

    /// What is meant.
    ///
    /// # Errors
    /// Which filter is wrong, and what it looks like.
    pub fn selection(&self) -> Result<Selection, String> {
        Ok(Selection {
            sender: self.sender.as_deref().map(sender).transpose()?,
            recipient: self
                .recipient
                .as_deref()
                .map(|text| address("recipient", text))
                .transpose()?,
            domain: match &self.domain {
                None => None,
                Some(text) => Some(text.parse().map_err(|e| wrong("domain", text, e))?),
            },
            site: match self.site.as_deref() {
                Some("") => return Err(wrong("site", "", "a destination as `summary` prints it")),
                site => site.map(str::to_owned),
            },
            older_than: span("older-than", self.older_than.as_deref())?,
            newer_than: span("newer-than", self.newer_than.as_deref())?,
            attempts: self.attempts()?,
            last_reply: match self.last_reply.as_deref() {
                Some("") => return Err(wrong("last-reply", "", "a code or a text")),
                text => text.map(LastReply::new),
            },
            larger_than: size("larger-than", self.larger_than.as_deref())?,
            smaller_than: size("smaller-than", self.smaller_than.as_deref())?,
            waiting: self.state.as_deref().map(waiting).transpose()?,
            leaves_kept: false,
        })
    }

    fn attempts(&self) -> Result<RangeInclusive<u16>, String> {
        match (self.attempts, self.min_attempts, self.max_attempts) {
            (Some(exactly), None, None) => Ok(exactly..=exactly),
            (Some(_), ..) => Err("attempts stands alone, without min or max".to_owned()),
            (None, min, max) => {
                let range = min.unwrap_or(0)..=max.unwrap_or(u16::MAX);
                if range.is_empty() {
                    return Err("min-attempts is more than max-attempts".to_owned());
                }
                Ok(range)
            }
        }
    }
}

fn wrong(name: &str, text: &str, form: impl std::fmt::Display) -> String {
    format!("{name}: {text:?} is not right: {form}")
}

fn sender(text: &str) -> Result<AddressPattern, String> {
    match text {
        NULL_SENDER => Ok(AddressPattern::Address(String::new())),
        text => address("sender", text),
    }
}

fn address(name: &str, text: &str) -> Result<AddressPattern, String> {
    match text.strip_prefix('@') {
        Some("") => Err(wrong(name, text, "an address, or @DOMAIN")),
        None if text.is_empty() => Err(wrong(name, text, "an address, or @DOMAIN")),
        Some(domain) => Ok(AddressPattern::Domain(domain.to_owned())),
        None => Ok(AddressPattern::Address(text.to_owned())),
    }
}

fn span(name: &str, text: Option<&str>) -> Result<Option<Duration>, String> {
    let read = |text| parse_duration(text).ok_or_else(|| wrong(name, text, DURATION_FORM));
    text.map(read).transpose()
}

fn size(name: &str, text: Option<&str>) -> Result<Option<u64>, String> {
    let read = |text| parse_size(text).ok_or_else(|| wrong(name, text, SIZE_FORM));
    text.map(read).transpose()
}

fn waiting(text: &str) -> Result<Waiting, String> {
    match text {
        "active" => Ok(Waiting::Active),
        "deferred" => Ok(Waiting::Deferred),
        "waiting" => Ok(Waiting::Site),
        "hold" => Ok(Waiting::Held),
        "kept" => Ok(Waiting::Kept),
        _ => Err(wrong("state", text, "active, deferred, waiting, hold or kept")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        filter: Filter,
    }

    fn filter(words: &[&str]) -> Filter {
        Line::try_parse_from([&["filter"], words].concat()).unwrap().filter
    }

    #[test]
    fn every_word_becomes_what_it_says() {
        let words = [
            "--sender=MAILER-DAEMON",
            "--recipient=@example.org",
            "--domain=*.example.org",
            "--site=127.0.0.1:25",
            "--older-than=1h30m",
            "--newer-than=2d",
            "--min-attempts=2",
            "--max-attempts=5",
            "--last-reply=Grey",
            "--larger-than=1MiB",
            "--smaller-than=2MiB",
            "--state=hold",
        ];
        let written = filter(&words);
        assert!(!written.is_empty());
        let expected = Selection {
            sender: Some(AddressPattern::Address(String::new())),
            recipient: Some(AddressPattern::Domain("example.org".into())),
            domain: Some("*.example.org".parse().unwrap()),
            site: Some("127.0.0.1:25".into()),
            older_than: Some(Duration::from_secs(5400)),
            newer_than: Some(Duration::from_secs(2 * 86400)),
            attempts: 2..=5,
            last_reply: Some(LastReply::Text("grey".into())),
            larger_than: Some(1 << 20),
            smaller_than: Some(2 << 20),
            waiting: Some(Waiting::Held),
            leaves_kept: false,
        };
        assert_eq!(written.selection(), Ok(expected));
        // The admin socket carries the same.
        let json = serde_json::to_string(&written).unwrap();
        assert_eq!(serde_json::from_str::<Filter>(&json).unwrap(), written);
        assert_eq!(filter(&["--attempts", "3"]).selection().unwrap().attempts, 3..=3);
        assert!(filter(&[]).is_empty());
        assert_eq!(filter(&[]).selection(), Ok(Selection::default()));
    }

    #[test]
    fn wrong_words_are_named_with_their_form() {
        for (word, says) in [
            ("--sender=", "an address"),
            ("--recipient=@", "@DOMAIN"),
            ("--domain=a..b", "empty label"),
            ("--site=", "summary"),
            ("--older-than=5", "1h30m"),
            ("--newer-than=1 day", "1h30m"),
            ("--last-reply=", "a code"),
            ("--larger-than=5MB", "64MiB"),
            ("--smaller-than=5", "64MiB"),
            ("--state=held", "hold"),
        ] {
            let error = filter(&[word]).selection().unwrap_err();
            let name = word.trim_start_matches('-').split('=').next().unwrap();
            assert!(error.starts_with(name) && error.contains(says), "{word}: {error}");
        }
        let error = filter(&["--min-attempts=3", "--max-attempts=2"]).selection().unwrap_err();
        assert!(error.contains("more than"), "{error}");
        let both: Filter = serde_json::from_str(r#"{"attempts":1,"max_attempts":2}"#).unwrap();
        assert!(both.selection().unwrap_err().contains("alone"));
        assert!(Line::try_parse_from(["filter", "--attempts=1", "--max-attempts=2"]).is_err());
        assert!(Line::try_parse_from(["filter", "--attempts=70000"]).is_err());
        assert!(serde_json::from_str::<Filter>(r#"{"older-than":"1h"}"#).is_err());
    }
}
