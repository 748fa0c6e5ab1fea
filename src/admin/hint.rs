//! For who runs ringpost without a configuration: how to send the first
//! message and see it arrive.

use std::net::SocketAddr;

/// What to print once the server listens on `listening`.
pub fn first_message(listening: SocketAddr) -> String {
    let (host, port) = (listening.ip(), listening.port());
    format!(
        "\
No configuration was given, so this is a relay for this host only: mail sent to
{listening} is queued in ./ringpost-data and relayed to 127.0.0.1:2526.

  1. Something that receives there, in another terminal:
       ringpost-sink --listen 127.0.0.1:2526
  2. A first message:
       swaks --server {listening} --from me@example.com --to you@example.org
     or, without swaks:
       python3 -c 'import smtplib; smtplib.SMTP(\"{host}\", {port}).sendmail(\
\"me@example.com\", \"you@example.org\", \"Subject: hello\\n\\nIt works.\\n\")'
  3. What is queued, and how it goes:
       ringpost queue list
       ringpost queue summary

"
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_the_port_that_was_bound() {
        let text = super::first_message("127.0.0.1:2525".parse().unwrap());
        assert!(text.contains("--server 127.0.0.1:2525 "), "{text}");
        assert!(text.contains("smtplib.SMTP(\"127.0.0.1\", 2525).sendmail("), "{text}");
        assert!(text.contains("\"Subject: hello\\n\\nIt works.\\n\")'\n"), "{text}");
    }
}
