//! Commands, one by one: what is read, and what is refused and how.

use super::*;

fn parse(line: &str) -> Result<Command<'_>, BadCommand> {
    Command::parse(line.as_bytes())
}

fn mail_of(line: &str) -> MailFrom<'_> {
    match parse(line) {
        Ok(Command::Mail(mail)) => mail,
        other => panic!("{line:?}: {other:?}"),
    }
}

#[test]
fn verbs_are_read_in_any_case() {
    for (line, command) in [
        ("EHLO a.example", Command::Ehlo("a.example")),
        ("helo  [192.0.2.1] ", Command::Helo("[192.0.2.1]")),
        ("dAtA", Command::Data),
        ("DATA \t", Command::Data),
        ("rset", Command::Rset),
        ("QUIT", Command::Quit),
        ("NOOP whatever \u{e4}", Command::Noop),
        ("HELP", Command::Help("")),
        ("HELP MAIL", Command::Help("MAIL")),
        ("VRFY someone", Command::Vrfy(Asked { text: "someone", smtputf8: false })),
        ("VRFY <ü@b> smtputf8", Command::Vrfy(Asked { text: "<ü@b>", smtputf8: true })),
        ("EXPN list", Command::Expn(Asked { text: "list", smtputf8: false })),
        ("ETRN a.example", Command::Etrn(Turn::Domain("a.example"))),
        ("etrn @a.example", Command::Etrn(Turn::Tree("a.example"))),
        ("ETRN #q1", Command::Etrn(Turn::Queue("q1"))),
    ] {
        assert_eq!(parse(line), Ok(command), "{line:?}");
    }
}

#[test]
fn mail_takes_the_parameters_we_offer() {
    let mail = mail_of("MAIL FROM:<a@b.example> size=1000 Body=8bitmime SMTPUTF8");
    assert_eq!(
        (mail.size, mail.body, mail.smtputf8),
        (Some(1000), Some(BodyType::EightBitMime), true)
    );
    assert!(mail.has_parameters() && !mail_of("mail from: <>").has_parameters());
    assert_eq!(mail_of("MAIL FROM:<> SIZE=99999999999999999999").size, Some(u64::MAX));
    for (line, bad) in [
        ("MAIL FROM:<> SIZE=", "write SIZE=octets"),
        ("MAIL FROM:<> SIZE", "write SIZE=octets"),
        ("MAIL FROM:<> SIZE=-1", "write SIZE=octets"),
        ("MAIL FROM:<> SIZE=999999999999999999999", "write SIZE=octets"),
        ("MAIL FROM:<> SIZE=1 SIZE=1", "SIZE was given twice"),
        ("MAIL FROM:<> BODY=BINARY", "BODY is 7BIT, 8BITMIME or BINARYMIME"),
        ("MAIL FROM:<> BODY=7BIT BODY=7BIT", "BODY was given twice"),
        ("MAIL FROM:<> SMTPUTF8=1", "SMTPUTF8 has no value and is given once"),
    ] {
        assert_eq!(parse(line), Err(BadCommand::Parameter(bad)), "{line:?}");
    }
    for line in ["MAIL FROM:<> MT=1", "MAIL FROM:<> =", "RCPT TO:<a@b> RET=FULL"] {
        assert_eq!(parse(line), Err(BadCommand::UnknownParameter), "{line:?}");
    }
}

#[test]
fn chunks_say_how_many_octets_follow_or_are_none() {
    for (line, octets, last) in [
        ("BDAT 0", 0, false),
        ("bdat 86 last", 86, true),
        ("BDAT  007  LAST ", 7, true),
        ("BDAT 18446744073709551615", u64::MAX, false),
        ("BDAT 99999999999999999999999999 LAST", u64::MAX, true),
    ] {
        assert_eq!(parse(line), Ok(Command::Bdat { octets, last }), "{line:?}");
    }
    for line in [
        "BDAT",
        "BDAT ",
        "BDAT LAST",
        "BDAT -1",
        "BDAT +1",
        "BDAT 0x10",
        "BDAT 1.0",
        "BDAT 1 FIRST",
        "BDAT 1 LAST LAST",
        "BDAT 1LAST",
        "BDAT 1\tLAST",
        "BDAT 1 2",
        "BDAT 1\0",
        "BDAT\0 1",
        "BDAT 1\r",
        "BDAT\t1 LAST x",
        "BDAT \u{665}",
    ] {
        assert_eq!(parse(line), Err(BadCommand::Chunk), "{line:?}");
    }
    assert_eq!(parse("BDATA 1\0"), Err(BadCommand::Control));
    assert_eq!(parse("BDATA 1"), Err(BadCommand::Unknown));
}

#[test]
fn names_of_queues_are_domains() {
    for line in [
        "ETRN",
        "ETRN ",
        "ETRN @",
        "ETRN [192.0.2.1]",
        "ETRN a b",
        "ETRN a..b",
        "ETRN .a",
        "ETRN @@a",
        "ETRN a@b",
        "ETRN -a.example",
        "ETRN a/b",
        "ETRN <a>",
    ] {
        assert!(matches!(parse(line), Err(BadCommand::Arguments(_))), "{line:?}");
    }
    let long = format!("ETRN {}a", "a.".repeat(128));
    assert!(matches!(parse(&long), Err(BadCommand::Arguments(_))));
}

#[test]
fn parameters_about_reports_are_read() {
    let mail = mail_of("MAIL FROM:<s@a> ret=hdrs ENVID=QQ+2B1");
    assert_eq!((mail.ret, mail.envid), (Some(Ret::Headers), Some("QQ+2B1")));
    assert!(mail.has_parameters());
    let line = "RCPT TO:<r@b> NOTIFY=success,DELAY  ORCPT=rfc822;R+2B@b";
    let Ok(Command::Rcpt(to)) = parse(line) else { panic!("{line}") };
    let notify = Notify { success: true, failure: false, delay: true };
    assert_eq!((to.notify, to.orcpt), (Some(notify), Some("rfc822;R+2B@b")));
    for (line, bad) in [
        ("MAIL FROM:<> RET", "RET is FULL or HDRS"),
        ("MAIL FROM:<> RET=BODY", "RET is FULL or HDRS"),
        ("MAIL FROM:<> RET=FULL RET=FULL", "RET was given twice"),
        ("MAIL FROM:<> ENVID=a ENVID=a", "ENVID was given twice"),
        ("RCPT TO:<a@b> NOTIFY=DELAY NOTIFY=DELAY", "NOTIFY was given twice"),
        ("RCPT TO:<a@b> ORCPT=x;y ORCPT=x;y", "ORCPT was given twice"),
    ] {
        assert_eq!(parse(line), Err(BadCommand::Parameter(bad)), "{line:?}");
    }
    for line in ["MAIL FROM:<> ENVID", "MAIL FROM:<> ENVID=", "MAIL FROM:<> ENVID=a+0D"] {
        assert!(matches!(parse(line), Err(BadCommand::Parameter(bad)) if bad.contains("ENVID")));
    }
    for line in ["RCPT TO:<a@b> NOTIFY", "RCPT TO:<a@b> NOTIFY=NEVER,DELAY"] {
        assert!(matches!(parse(line), Err(BadCommand::Parameter(bad)) if bad.contains("NOTIFY")));
    }
}

#[test]
fn refuses_what_is_malformed() {
    use BadCommand::*;
    for (line, bad) in [
        ("", Unknown),
        (" NOOP", Unknown),
        ("FOO", Unknown),
        ("MAILFROM:<a@b>", Unknown),
        ("\u{e4}\u{e4}", Unknown),
        ("BURL imap://a LAST", NotOffered),
        ("GET / HTTP/1.1", Foreign),
        ("post / HTTP/1.1", Foreign),
        ("NOOP \0", Control),
        ("NOOP\rQUIT", Control),
        ("RCPT TO:<a@b>\r", Control),
        ("EHLO", Name),
        ("EHLO a b", Name),
        ("EHLO b\u{fc}cher.example", Name),
        ("DATA now", Arguments("DATA takes no argument")),
        ("QUIT now", Arguments("QUIT takes no argument")),
        ("VRFY ", Arguments("VRFY takes a user name or address")),
        ("MAIL", Arguments("write MAIL FROM:<address>")),
        ("MAIL TO:<a@b>", Arguments("write MAIL FROM:<address>")),
        ("MAIL FROM <a@b>", Arguments("write MAIL FROM:<address>")),
        ("RCPT FROM:<a@b>", Arguments("write RCPT TO:<address>")),
        ("MAIL FROM:a@b", Sender(BadAddress::Brackets)),
        ("MAIL FROM:<a@b>SIZE=1", Sender(BadAddress::Brackets)),
        ("MAIL FROM:<postmaster>", Sender(BadAddress::NoDomain)),
        ("RCPT TO:<>", NullRecipient),
        ("RCPT TO:<a@b>>", Recipient(BadAddress::Brackets)),
        ("RCPT TO:<a@b>,<c@d>", Recipient(BadAddress::Brackets)),
    ] {
        assert_eq!(parse(line), Err(bad), "{line:?}");
    }
    assert_eq!(parse(&format!("EHLO {}", "a".repeat(256))), Err(Name));
}
