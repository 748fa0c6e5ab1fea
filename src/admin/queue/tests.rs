//! `ringpost queue` against fake shards.

use clap::Parser;

use super::*;
use crate::admin::fake::{self, Manner};
use crate::admin::socket::AdminSocket;
use crate::admin::view::{MessageView, RestView, ShownView, Summary};
use crate::base::ShardId;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    queue: QueueArgs,
}

/// Runs `ringpost queue WORDS` against fake shards.
fn queue(manners: &'static [Manner], words: &str) -> (String, Result<(), Failure>) {
    let (text, _, done) = queue_noting(manners, words);
    (text, done)
}

/// The same, with what went to standard error.
fn queue_noting(manners: &'static [Manner], words: &str) -> (String, String, Result<(), Failure>) {
    let (_temp, path) = fake::socket();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.unwrap();
    let socket = {
        let _inside = runtime.enter();
        AdminSocket::bind(&path).unwrap()
    };
    runtime.spawn(async move { socket.serve(fake::control(manners)).await });
    let mut line = vec!["queue", "--socket", path.to_str().unwrap()];
    line.extend(words.split(' '));
    let mut out = Vec::new();
    let mut notes = Vec::new();
    let done = run(&Line::parse_from(line).queue, &mut out, &mut notes);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(out), text(notes), done)
}

const TWO: &[Manner] = &[Manner::Well, Manner::Well];

#[test]
fn list_reads_like_postqueue() {
    let (text, done) = queue(TWO, "list");
    done.unwrap();
    let lines: Vec<_> = text.lines().collect();
    let id = |n| fake::listed(ShardId(0), n).id.to_string();
    assert_eq!(lines[0], "-Queue ID-------- --Size-- -Arrival (UTC)------ -Sender/Recipient-");
    assert_eq!(lines[1], format!("{}*     1001 2023-11-14T22:13:20Z s1@example.com", id(1)));
    assert_eq!(lines[2].trim_start(), "r1@example.org");
    assert_eq!(lines[3], "");
    assert_eq!(lines[4], format!("{}      1002 2023-11-14T22:13:20Z MAILER-DAEMON", id(2)));
    assert_eq!(
        lines[5],
        "      (127.0.0.1:2526 said: 450 4.2.0 mailbox busy; attempts 2, next \
         2023-11-14T22:19:20Z)"
    );
    assert_eq!(lines.last(), Some(&"-- 10 Kbytes in 10 Requests."));
}

#[test]
fn list_json_is_one_object_a_line() {
    let (text, done) = queue(TWO, "list --json");
    done.unwrap();
    let messages: Vec<MessageView> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(messages.len(), 10);
    assert_eq!(messages[1].sender, "MAILER-DAEMON");
    assert!(!text.contains("Kbytes"));
}

#[test]
fn filters_reach_the_shards() {
    for (words, lines) in [
        ("list --json --sender S3@example.com", 2),
        ("list --json --sender @EXAMPLE.com", 8),
        ("list --json --sender MAILER-DAEMON", 2),
        ("list --json --recipient r1@example.org", 2),
        ("list --json --recipient @example.com", 0),
        ("list --json --sender @example.com --recipient r3@example.org", 2),
        ("list --json --domain example.org", 10),
        ("list --json --domain *.example.org", 0),
        ("list --json --site 127.0.0.1:2526", 10),
        ("list --json --site 127.0.0.1:25", 0),
        ("list --json --older-than 1h", 10),
        ("list --json --newer-than 1h", 0),
        ("list --json --attempts 2", 8),
        ("list --json --min-attempts 1 --max-attempts 2", 8),
        ("list --json --max-attempts 1", 2),
        ("list --json --last-reply 45", 8),
        ("list --json --last-reply MAILBOX", 8),
        ("list --json --last-reply greylisted", 0),
        ("list --json --larger-than 1003B", 4),
        ("list --json --smaller-than 1003B", 4),
        ("list --json --larger-than 1KiB", 0),
        ("list --json --state active", 2),
        ("list --json --state deferred", 6),
        ("list --json --state waiting", 0),
        ("list --json --state hold", 2),
    ] {
        let (text, done) = queue(TWO, words);
        done.unwrap();
        assert_eq!(text.lines().count(), lines, "{words}: {text}");
    }
    assert_eq!(queue(TWO, "list --sender @none.example").0, "No such message\n");
    assert_eq!(queue(&[], "list").0, "Mail queue is empty\n");
}

#[test]
fn wrong_words_are_usage_errors_before_anybody_is_asked() {
    for (words, says) in [
        ("list --older-than 5", "--older-than: \"5\""),
        ("list --state held", "active, deferred, waiting, hold or kept"),
        ("drop", "--all"),
        ("hold --json", "`ringpost queue hold` ids"),
        ("retry nonsense", "not a queue id"),
        ("release --larger-than 5MB", "--larger-than"),
    ] {
        let (text, done) = queue(&[Manner::Gone], words);
        let failure = done.unwrap_err();
        assert_eq!((failure.code, text.as_str()), (2, ""), "{words}");
        assert!(failure.message.contains(says), "{words}: {failure}");
    }
    let both = ["queue", "drop", "--all", "0000000000000000"];
    assert!(Line::try_parse_from(both).is_err());
}

#[test]
fn orders_say_what_was_done() {
    let id = |shard, n| fake::listed(ShardId(shard), n).id.to_string();
    let (text, done) = queue(TWO, "retry --state deferred --recipient r2@example.org");
    done.unwrap();
    let lines: Vec<_> = text.lines().collect();
    let expected = [
        format!("{}  r2@example.org", id(0, 2)),
        format!("{}  r2@example.org", id(1, 2)),
        "-- due now: 2 recipients of 2 messages.".to_owned(),
    ];
    assert_eq!(lines, expected);
    for (words, last) in [
        ("hold --all", "-- held 8 recipients of 8 messages."),
        ("release --all", "-- released 2 recipients of 2 messages."),
        ("retry --all", "-- due now: 6 recipients of 6 messages."),
        ("drop --all --last-reply 450", "-- dropped 8 recipients of 8 messages."),
        ("drop --all --dry-run", "-- would drop 10 recipients of 10 messages."),
        ("drop --sender nobody@example.com", "-- dropped 0 recipients of 0 messages."),
    ] {
        let (text, done) = queue(TWO, words);
        done.unwrap();
        assert_eq!(text.lines().last(), Some(last), "{words}: {text}");
    }
}

#[test]
fn orders_in_json_are_one_object_a_message() {
    let (text, done) = queue(TWO, "drop --json --dry-run --sender MAILER-DAEMON");
    done.unwrap();
    let id = fake::listed(ShardId(0), 2).id.to_string();
    let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(
        first,
        serde_json::json!({
            "action": "drop",
            "queue_id": id,
            "sender": "MAILER-DAEMON",
            "recipients": [{"address": "r2@example.org"}],
            "dry_run": true,
        })
    );
    assert_eq!(text.lines().count(), 2);
}

#[test]
fn ids_that_are_not_queued_are_named_and_none_found_is_a_failure() {
    let queued = fake::listed(ShardId(1), 3).id.to_string();
    let held = fake::listed(ShardId(0), 5).id.to_string();
    let none = "0000000000000000";
    let (text, notes, done) = queue_noting(TWO, &format!("hold {none} {queued} {held}"));
    done.unwrap();
    let expected = format!(
        "{queued}  r3@example.org\n{held}  (nothing to do)\n-- held 1 recipient of 1 message.\n"
    );
    assert_eq!(text, expected);
    assert!(notes.contains(&format!("{none} is not queued")), "{notes}");

    let (_, notes, done) = queue_noting(TWO, &format!("drop {none}"));
    assert_eq!(done.unwrap_err().code, 1);
    assert!(notes.contains("is not queued"), "{notes}");

    // An id and a filter: those recipients of that message.
    let (text, done) = queue(TWO, &format!("hold {queued} --recipient other@example.org"));
    done.unwrap();
    assert!(text.contains("(nothing to do)"), "{text}");
}

#[test]
fn many_ids_go_in_several_requests() {
    let queued = fake::listed(ShardId(1), 3).id.to_string();
    let mut words = "retry".to_owned();
    for number in 0..200 {
        words.push_str(&format!(" {:016}", 7_000_000 + number));
    }
    words.push_str(&format!(" {queued}"));
    let (text, notes, done) = queue_noting(TWO, &words);
    done.unwrap();
    assert_eq!(notes.lines().count(), 200);
    assert!(text.starts_with(&queued), "{text}");
}

#[test]
fn an_order_that_fails_says_how_far_it_came() {
    let (text, done) = queue(&[Manner::Well, Manner::Failing], "hold --all");
    assert!(text.ends_with("-- held 4 recipients of 4 messages.\n"), "{text}");
    let failure = done.unwrap_err();
    assert_eq!(failure.code, 1);
    assert!(failure.message.contains("EIO"), "{failure}");
}

#[test]
fn a_queue_that_is_still_being_read_is_said_beside_the_list() {
    for words in ["list --json", "hold --json --all"] {
        let (text, notes, done) = queue_noting(&[Manner::Loading], words);
        done.unwrap();
        assert!(notes.contains("12 segments left"), "{notes}");
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
        assert_eq!(queue_noting(TWO, words).1, "");
    }
}

#[test]
fn a_held_message_says_so() {
    let id = fake::listed(ShardId(0), 5).id;
    let (text, done) = queue(TWO, &format!("show {id}"));
    done.unwrap();
    assert!(text.contains("queue      hold\n"), "{text}");
    assert!(text.contains("  next     held until it is released\n"), "{text}");
    let (text, _) = queue(TWO, "list --state hold");
    assert!(text.contains(&format!("{id}! ")) && text.contains("attempts 2, held)"), "{text}");
}

#[test]
fn show_gives_details_or_the_bytes_themselves() {
    let id = fake::listed(ShardId(1), 2).id;
    let (text, done) = queue(TWO, &format!("show {id}"));
    done.unwrap();
    for line in [
        format!("id         {id}").as_str(),
        "sender     MAILER-DAEMON",
        "client     192.0.2.7",
        "recipient  r2@example.org",
        "  site     127.0.0.1:2526",
        "  owner    shard 1",
        "  next     2023-11-14T22:19:20Z",
        "  why      retry 2 of 7, then every 4h",
        "  at       2023-11-14T22:14:20Z",
        "  last     127.0.0.1:2526 said: 450 4.2.0 mailbox busy",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    let (text, done) = queue(TWO, &format!("show {id} --message"));
    done.unwrap();
    assert_eq!(text, "Subject: x\r\n\r\n{\"page\":1}\n");
    let (text, done) = queue(TWO, &format!("show {id} --json"));
    done.unwrap();
    let shown: ShownView = serde_json::from_str(&text).unwrap();
    assert_eq!(shown.helo, "client.example");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        json["recipients"][0],
        serde_json::json!({
            "address": "r2@example.org",
            "delay_reason": "127.0.0.1:2526 said: 450 4.2.0 mailbox busy",
            "attempts": 2,
            "next_attempt": 1_700_000_360u64,
            "site": "127.0.0.1:2526",
            "owner": 1,
            "why": "retry 2 of 7, then every 4h",
            "last": {
                "reply": "450 4.2.0 mailbox busy",
                "host": "127.0.0.1:2526",
                "time": 1_700_000_060u64,
            },
        })
    );
}

#[test]
fn summary_says_what_is_wrong() {
    let (text, done) = queue(&[Manner::Well, Manner::Poisoned], "summary");
    done.unwrap();
    assert!(text.contains("localhost: failing, durability sync, up since 2023-11-14T22:13:20Z"));
    assert!(text.contains("  ! shard 1 accepts no mail"), "{text}");
    assert!(text.contains("accepted 20, delivered 16, deferred 0 times"), "{text}");
    assert!(text.contains("    1     1         1         5           5\n"), "{text}");
    assert!(
        text.contains("    1         2      3      0       0            0        1.25"),
        "{text}"
    );
    assert!(text.contains("left alone until 2023-11-14T22:19:20Z: connection refused"), "{text}");
    let (text, done) = queue(TWO, "summary --json");
    done.unwrap();
    let summary: Summary = serde_json::from_str(&text).unwrap();
    assert_eq!(summary.status, "ok");
}

#[test]
fn summary_has_each_destination_once_and_the_others_in_sum() {
    let (text, done) = queue(TWO, "summary");
    done.unwrap();
    let lines: Vec<_> = text.lines().collect();
    let site = lines.iter().position(|line| line.ends_with("  127.0.0.1:2526")).unwrap();
    assert_eq!(lines[site - 1], "  Waiting     Out  Queued  Open/now/max  Shard  Destination");
    assert_eq!(lines[site], "       12      10       8        2/2/20   each  127.0.0.1:2526");
    assert!(lines[site + 1].ends_with("left alone until 2023-11-14T22:19:20Z: connection refused"));
    assert_eq!(lines[site + 2], "        6       4       2             2         (3 others)");
    assert_eq!(lines.len(), site + 3, "{text}");

    let (text, done) = queue(TWO, "summary --sites 0 --json");
    done.unwrap();
    let summary: Summary = serde_json::from_str(&text).unwrap();
    assert_eq!(summary.sites, []);
    let rest = RestView { sites: 4, queued: 10, out: 14, waiting: 18, connections: 4 };
    assert_eq!(summary.sites_rest, Some(rest));
}

#[test]
fn failures_have_code_1_and_a_remedy() {
    let (_temp, path) = fake::socket();
    let line = ["queue", "--socket", path.to_str().unwrap(), "list"];
    let failure = run(&Line::parse_from(line).queue, &mut Vec::new(), &mut io::sink()).unwrap_err();
    assert_eq!(failure.code, 1);
    assert!(failure.message.contains("ringpost does not run"), "{failure}");
    let (text, done) = queue(TWO, "show nonsense");
    assert_eq!(text, "");
    assert!(done.unwrap_err().message.contains("not a queue id"));
    let id = fake::listed(ShardId(0), 1).id;
    let (text, done) = queue(&[Manner::Failing], &format!("show {id} --message"));
    assert!(text.starts_with("Subject: x"), "what could be read: {text}");
    let failure = done.unwrap_err();
    assert!(failure.code == 1 && failure.message.contains("damaged record"), "{failure}");
    let (_, done) = queue(&[Manner::Gone], "list");
    assert!(done.unwrap_err().message.contains("shard 0 has ended"));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (_temp, path) = fake::socket();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.unwrap();
    let socket = {
        let _inside = runtime.enter();
        AdminSocket::bind(&path).unwrap()
    };
    runtime.spawn(async move { socket.serve(fake::control(TWO)).await });
    let line = ["queue", "--socket", path.to_str().unwrap(), "list"];
    run(&Line::parse_from(line).queue, &mut Closed, &mut io::sink()).unwrap();
}
