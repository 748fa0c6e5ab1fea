//! For who runs ringpost without a configuration: how to send the first
//! message and see it arrive.

use std::net::SocketAddr;
use std::path::Path;

/// What to print once the server listens on `listening`.
pub fn first_message(listening: SocketAddr) -> String {
    message(listening, Path::new(&std::env::args_os().next().unwrap_or_default()))
}

/// The same; `program` is what it was called as, so that the commands can be copied as
/// they stand.
fn message(listening: SocketAddr, program: &Path) -> String {
    let (host, port) = (listening.ip(), listening.port());
    let is_in_path = program.parent().is_none_or(|folder| folder.as_os_str().is_empty());
    let beside = program.with_file_name("ringpost-sink");
    let (ringpost, sink) = match () {
        () if is_in_path => ("ringpost".into(), "ringpost-sink".into()),
        () if beside.exists() => (program.display().to_string(), beside.display().to_string()),
        () => {
            (program.display().to_string(), "cargo run --release --bin ringpost-sink --".to_owned())
        }
    };
    format!(
        "\
No configuration was given, so this is a relay for this host only: mail sent to
{listening} is queued in ./ringpost-data and relayed to 127.0.0.1:2526.

  1. Something that receives there, in another terminal:
       {sink} --listen 127.0.0.1:2526
  2. A first message:
       swaks --server {listening} --from me@example.com --to you@example.org
     or, without swaks:
       python3 -c 'import smtplib; smtplib.SMTP(\"{host}\", {port}).sendmail(\
\"me@example.com\", \"you@example.org\", \"Subject: hello\\n\\nIt works.\\n\")'
  3. What is queued, and how it goes:
       {ringpost} queue list
       {ringpost} queue summary

"
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    fn text(program: &Path) -> String {
        super::message("127.0.0.1:2525".parse().unwrap(), program)
    }

    #[test]
    fn commands_can_be_copied() {
        for (program, ringpost, sink) in [
            ("ringpost", "ringpost", "ringpost-sink"),
            ("", "ringpost", "ringpost-sink"),
            (
                "target/x/ringpost",
                "target/x/ringpost",
                "cargo run --release --bin ringpost-sink --",
            ),
        ] {
            let text = text(Path::new(program));
            assert!(text.contains(&format!("       {ringpost} queue list\n")), "{text}");
            assert!(text.contains(&format!("       {sink} --listen 127.0.0.1:2526\n")), "{text}");
        }
        let folder = tempfile::tempdir().unwrap();
        let sink = folder.path().join("ringpost-sink");
        std::fs::write(&sink, "").unwrap();
        let text = text(&folder.path().join("ringpost"));
        assert!(text.contains(&format!("       {} --listen", sink.display())), "{text}");
    }

    #[test]
    fn names_the_port_that_was_bound() {
        let text = text(Path::new("ringpost"));
        assert!(text.contains("--server 127.0.0.1:2525 "), "{text}");
        assert!(text.contains("smtplib.SMTP(\"127.0.0.1\", 2525).sendmail("), "{text}");
        assert!(text.contains("\"Subject: hello\\n\\nIt works.\\n\")'\n"), "{text}");
    }
}
