//! `ringpost queue`: asks the running server through its admin socket and
//! prints for people, or with `--json` for programs (one object a line).

use std::io::{self, Read, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::cli::ConfigArgs;
use super::client::{Server, Trouble};
use super::failure::Failure;
use super::print;
use super::wire::{Answer, Ask, MessageView};

/// Messages asked for at a time.
const PAGE: usize = 500;
/// Options of `ringpost queue`.
#[derive(Debug, Args)]
pub struct QueueArgs {
    /// The configuration of the server; without it the embedded default
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Override a key of it; may be repeated
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    set: Vec<String>,
    /// The admin socket, instead of the one that the configuration names
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// List queued messages, as `postqueue -p` does
    List {
        /// One JSON object a message, with the fields of `postqueue -j`
        #[arg(long)]
        json: bool,
        /// Only messages from this address, or from any address of @DOMAIN;
        /// MAILER-DAEMON for the null sender
        #[arg(long, value_name = "ADDRESS")]
        sender: Option<String>,
        /// Only messages that wait for this recipient, or for one of @DOMAIN
        #[arg(long, value_name = "ADDRESS")]
        recipient: Option<String>,
    },
    /// Show one message: its envelope and what became of it so far
    Show {
        /// The id that the client was given, and that `Received:` names
        id: String,
        /// Print the message itself, and nothing else
        #[arg(long, conflicts_with = "json")]
        message: bool,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show the state of the server, its shards and its destinations
    Summary {
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command, printing to `out`.
///
/// # Errors
/// No server answers, or it could not do what was asked.
pub fn run(args: &QueueArgs, out: &mut impl Write) -> Result<(), Failure> {
    let path = match &args.socket {
        Some(path) => path.clone(),
        None => {
            let source = ConfigArgs { config: args.config.clone(), set: args.set.clone() };
            source.load()?.admin_socket()
        }
    };
    let mut server = Server::connect(&path)?;
    let mut out = io::BufWriter::new(out);
    let printed = match &args.command {
        QueueCommand::List { json, sender, recipient } => {
            let wanted = Wanted { sender: sender.as_deref(), recipient: recipient.as_deref() };
            list(&mut server, &wanted, *json, &mut out)
        }
        QueueCommand::Show { id, message, json } => {
            show(&mut server, id, *message, *json, &mut out)
        }
        QueueCommand::Summary { json } => summarise(&mut server, *json, &mut out),
    };
    match printed.and_then(|()| out.flush().map_err(Trouble::Printing)) {
        Ok(()) => Ok(()),
        // Whoever reads has seen enough, as `head` has.
        Err(Trouble::Printing(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(Trouble::Printing(error)) => {
            Err(Failure::runtime(format!("cannot write to standard output: {error}")))
        }
        Err(Trouble::Server(failure)) => Err(failure),
    }
}

/// Which messages to list.
struct Wanted<'a> {
    sender: Option<&'a str>,
    recipient: Option<&'a str>,
}

impl Wanted<'_> {
    fn holds(&self, message: &MessageView) -> bool {
        self.sender.is_none_or(|pattern| matches(pattern, &message.sender))
            && self.recipient.is_none_or(|pattern| {
                message.recipients.iter().any(|r| matches(pattern, &r.address))
            })
    }
}

/// Whether `address` is the one that `pattern` names, or of its @DOMAIN; case
/// does not matter.
fn matches(pattern: &str, address: &str) -> bool {
    if pattern.starts_with('@') {
        let domain = address.rfind('@').map_or("", |at| &address[at..]);
        domain.eq_ignore_ascii_case(pattern)
    } else {
        address.eq_ignore_ascii_case(pattern)
    }
}

fn list(
    server: &mut Server,
    wanted: &Wanted<'_>,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Trouble> {
    let mut cursor = None;
    let (mut count, mut bytes) = (0u64, 0u64);
    loop {
        let Answer::Page(page) = server.ask(&Ask::List { cursor, limit: PAGE })? else {
            return Err(server.unexpected());
        };
        for message in page.messages.iter().filter(|message| wanted.holds(message)) {
            if json {
                write_json(out, message)?;
            } else {
                if count == 0 {
                    print::list_head(out)?;
                }
                print::message(out, message)?;
            }
            count += 1;
            bytes += message.message_size;
        }
        out.flush()?;
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    if !json && count == 0 {
        let filtered = wanted.sender.is_some() || wanted.recipient.is_some();
        writeln!(out, "{}", if filtered { "No such message" } else { "Mail queue is empty" })?;
    } else if !json {
        let requests = if count == 1 { "Request" } else { "Requests" };
        writeln!(out, "-- {} Kbytes in {count} {requests}.", bytes.div_ceil(1024))?;
    }
    Ok(())
}

fn show(
    server: &mut Server,
    id: &str,
    message: bool,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Trouble> {
    let Answer::Shown(shown) = server.ask(&Ask::Show { id: id.to_owned(), message })? else {
        return Err(server.unexpected());
    };
    if message {
        let length = shown.message_length.unwrap_or(0) as u64;
        let copied = io::copy(&mut server.stream().take(length), out)?;
        if copied < length {
            return Err(server.broken(&io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    } else if json {
        write_json(out, &shown)
    } else {
        print::shown(out, &shown).map_err(Trouble::Printing)
    }
}

fn summarise(server: &mut Server, json: bool, out: &mut impl Write) -> Result<(), Trouble> {
    let Answer::Summary(summary) = server.ask(&Ask::Summary {})? else {
        return Err(server.unexpected());
    };
    if json {
        write_json(out, &summary)
    } else {
        print::summary(out, &summary).map_err(Trouble::Printing)
    }
}

fn write_json(out: &mut impl Write, value: &impl serde::Serialize) -> Result<(), Trouble> {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    Ok(writeln!(out)?)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::admin::fake::{self, Manner};
    use crate::admin::socket::AdminSocket;
    use crate::admin::wire::{ShownView, Summary};
    use crate::base::ShardId;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        queue: QueueArgs,
    }

    /// Runs `ringpost queue WORDS` against fake shards.
    fn queue(manners: &'static [Manner], words: &str) -> (String, Result<(), Failure>) {
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
        let done = run(&Line::parse_from(line).queue, &mut out);
        (String::from_utf8_lossy(&out).into_owned(), done)
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
    fn filters_go_by_address_and_domain() {
        for (words, lines) in [
            ("list --json --sender S3@example.com", 2),
            ("list --json --sender @EXAMPLE.com", 8),
            ("list --json --sender MAILER-DAEMON", 2),
            ("list --json --recipient r1@example.org", 2),
            ("list --json --recipient @example.com", 0),
            ("list --json --sender @example.com --recipient r3@example.org", 2),
        ] {
            let (text, done) = queue(TWO, words);
            done.unwrap();
            assert_eq!(text.lines().count(), lines, "{words}: {text}");
        }
        assert_eq!(queue(TWO, "list --sender @none.example").0, "No such message\n");
        assert_eq!(queue(&[], "list").0, "Mail queue is empty\n");
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
            "  next     2023-11-14T22:19:20Z",
            "  last     127.0.0.1:2526 said: 450 4.2.0 mailbox busy",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        let (text, done) = queue(TWO, &format!("show {id} --message"));
        done.unwrap();
        assert_eq!(text, "Subject: x\r\n\r\n\u{fffd}\n{\"page\":1}\n");
        let (text, done) = queue(TWO, &format!("show {id} --json"));
        done.unwrap();
        let shown: ShownView = serde_json::from_str(&text).unwrap();
        assert_eq!((shown.helo.as_str(), shown.message_length), ("client.example", None));
    }

    #[test]
    fn summary_says_what_is_wrong() {
        let (text, done) = queue(&[Manner::Well, Manner::Poisoned], "summary");
        done.unwrap();
        assert!(
            text.contains("localhost: failing, durability sync, up since 2023-11-14T22:13:20Z")
        );
        assert!(text.contains("  ! shard 1 accepts no mail"), "{text}");
        assert!(text.contains("accepted 20, delivered 16, deferred 0 times"), "{text}");
        assert!(text.contains("    1     1         1         5           5         2\n"), "{text}");
        assert!(
            text.contains("left alone until 2023-11-14T22:19:20Z: connection refused"),
            "{text}"
        );
        let (text, done) = queue(TWO, "summary --json");
        done.unwrap();
        let summary: Summary = serde_json::from_str(&text).unwrap();
        assert_eq!(summary.status, "ok");
    }

    #[test]
    fn failures_have_code_1_and_a_remedy() {
        let (_temp, path) = fake::socket();
        let line = ["queue", "--socket", path.to_str().unwrap(), "list"];
        let failure = run(&Line::parse_from(line).queue, &mut Vec::new()).unwrap_err();
        assert_eq!(failure.code, 1);
        assert!(failure.message.contains("ringpost does not run"), "{failure}");
        let (text, done) = queue(TWO, "show nonsense");
        assert_eq!(text, "");
        assert!(done.unwrap_err().message.contains("not a queue id"));
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
        run(&Line::parse_from(line).queue, &mut Closed).unwrap();
    }
}
