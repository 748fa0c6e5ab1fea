//! The load generator and the sink by BDAT (RFC 3030): what goes in chunks arrives as
//! what goes behind DATA does.

#[path = "support/pair.rs"]
mod pair;

use pair::{count, load, sink, verified};

#[test]
fn nothing_is_lost_by_chunks() {
    for extra in ["", "--pipelining", "--pipelining --tls starttls --insecure"] {
        let given = format!("--messages 88 --connections 3 --corpus --bdat {extra}");
        let (report, verdict) = verified(&["--tls", "starttls"], &given);
        assert_eq!(report.messages.accepted, 88, "{extra}");
        assert!(report.failures.is_empty(), "{extra}");
        assert!(verdict.is_good() && verdict.received == 88, "{extra}");
    }
    let sink = sink(&["--discard", "--reject", "550:1:rcpt"]);
    let report = load(&sink, "--messages 20 --connections 2 --bdat --pipelining");
    sink.stop().unwrap();
    assert_eq!(report.messages.refused, 20);
    assert_eq!(count(&report, "RCPT", "550 5.0.0"), 20);
}
