//! SMTP dialogs as transcripts: the format of `tests/dialogs/*.dialog` and the
//! interpreter that plays one to a server and complains about what differs.
//!
//! The server is behind [`Transport`], so the same files run on the engine by
//! itself (`support::engine`, `tests/dialogs.rs`) and on a whole server over a
//! socket. To join another server: make a server as [`Setup`] says (its name is
//! [`HOSTNAME`], the client counts as 127.0.0.1), implement [`Transport`] on a
//! connection to it, and for each of [`read_all`] call [`Dialog::play`] with a
//! fresh connection. [`Pace::Turns`] and [`Pace::Bytes`] fit every transport;
//! with [`Pace::Whole`] the client does not read before it has sent everything,
//! so the transport must have room for all replies. A server on a socket may
//! close while the client still sends, which can cost the client the last
//! reply: dialogs with [`Dialog::ends_early`] are for [`Pace::Turns`] there.
//!
//! A file holds one thing a line:
//!
//! | line | meaning |
//! |---|---|
//! | `# ...` | a comment; the first line says what the dialog shows |
//! | `set KEY VALUE` | before the dialog: part of the [`Setup`] |
//! | `setting KEY=VALUE` | before the dialog: as `--set` has it; for a whole server |
//! | `C: text` | the client sends `text` and CRLF |
//! | `C< text` | the client sends `text` as it stands, without CRLF |
//! | `S: text` | the server says exactly this line; `*` at the end: any end |
//! | `R: 250` | the server says one reply with this code, of any lines |
//! | `Q: text` | the server took a message: see [`Accepted`] for the text |
//! | `closed` | the server closes |
//!
//! In `C<` lines `\r`, `\n`, `\t`, `\0`, `\\`, `\xNN` are octets and `{text*N}`
//! is `text` N times over. Client lines that follow one another are one write.

use std::fmt;
use std::path::Path;

/// What servers call themselves in the dialogs.
pub const HOSTNAME: &str = "mx.example";

/// How a session has TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Not at all.
    Off,
    /// If the client wants it.
    Offered,
    /// Before anything else.
    Required,
    /// From the first octet on.
    On,
}

/// The server that a dialog needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// `set message-size N`: `limits.message_size`.
    pub message_size: u64,
    /// `set recipients N`: `limits.recipients`.
    pub recipients: u32,
    /// `set errors N`: `limits.errors_per_session`.
    pub errors: u32,
    /// `set client stranger`: the client is not in `access.relay_from`.
    pub trusted: bool,
    /// `set relay-domains A B`: `access.relay_domains`.
    pub relay_domains: Vec<String>,
    /// `set kind lmtp`: `listener.kind`; else `relay`.
    pub lmtp: bool,
    /// `set claims yes`: the client may send XCLIENT and XFORWARD.
    pub claims: bool,
    /// `set idle-commands N`: `limits.commands_without_mail`.
    pub idle_commands: u32,
    /// `set ahead refuse`: `limits.commands_ahead`; else `allow`. What is ahead
    /// depends on how the octets are cut, so such a dialog is played turn by turn
    /// alone.
    pub strict: bool,
    /// `set disable A B`: `listener.disable`.
    pub disable: Vec<String>,
    /// `set listener tells`: `listener.vrfy` and `listener.expn`.
    pub tells: bool,
    /// `set auth A B`: the mechanisms of `auth.mechanisms`, on a listener where
    /// clients may authenticate. There is one user, `user` with `pencil`.
    pub auth: String,
    /// `set tls on`: the session is within TLS, and can be bound by `tls-exporter`
    /// to 32 octets of 1. `set tls offered`, `set tls required`: by STARTTLS. What is
    /// behind that depends on how the octets are cut, so such a dialog is played turn
    /// by turn alone.
    pub tls: Tls,
    /// `set certificate user`: the client shows a certificate, which is that user's;
    /// `set certificate stranger`: nobody's.
    pub certificate: String,
    /// `set kind submission`: `listener.kind`.
    pub submission: bool,
    /// `setting KEY=VALUE`: what only a whole server has. Such a dialog is played to one
    /// of its own, once, turn by turn.
    pub settings: Vec<String>,
    /// `set others N`: so many other sessions are open, greeted and idle. For a whole
    /// server too.
    pub others: usize,
    /// `set server whole`: it is for a whole server, for what it says is not the engine's.
    pub whole: bool,
}

impl Setup {
    /// Whether the engine by itself cannot be like this.
    pub fn is_for_whole_servers(&self) -> bool {
        self.whole || !self.settings.is_empty() || self.others > 0
    }
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            message_size: 100_000,
            recipients: 100,
            errors: 20,
            trusted: true,
            relay_domains: Vec::new(),
            lmtp: false,
            claims: false,
            idle_commands: 200,
            strict: false,
            disable: Vec::new(),
            tells: false,
            auth: String::new(),
            tls: Tls::Off,
            certificate: String::new(),
            submission: false,
            settings: Vec::new(),
            others: 0,
            whole: false,
        }
    }
}

/// A message as a server took it. Its text in `Q:` lines is
/// `PROTOCOL <sender> <recipient>... SIZE`, where SIZE counts the octets after
/// 354 with the terminator, and the addresses are those of the envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// SMTP, ESMTP or UTF8SMTP.
    pub protocol: String,
    /// Reverse-path, without brackets.
    pub sender: String,
    /// Forward-paths, without brackets.
    pub recipients: Vec<String>,
    /// Octets.
    pub size: usize,
}

impl fmt::Display for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} <{}>", self.protocol, self.sender)?;
        self.recipients.iter().try_for_each(|recipient| write!(f, " <{recipient}>"))?;
        write!(f, " {}", self.size)
    }
}

/// What a server did next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It said a line; here without CRLF.
    Line(String),
    /// It closed the connection.
    Closed,
    /// Nothing, and nothing will come by itself.
    Silence,
}

/// A connection to a server, as the client has it.
pub trait Transport {
    /// Sends octets. What a server that has closed does not take is lost.
    fn send(&mut self, bytes: &[u8]);
    /// Waits for the next line, or until it is clear that there is none.
    fn hear(&mut self) -> Heard;
    /// The next message taken; `None` where a transport cannot see that.
    fn accepted(&mut self) -> Option<Accepted>;
    /// True if [`accepted`](Transport::accepted) works.
    fn sees_messages(&self) -> bool;
    /// Ends the client's side and returns what the server still said.
    fn hang_up(self) -> String;
}

/// How the client's octets are cut into writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As the file shows it.
    Turns,
    /// Each octet by itself.
    Bytes,
    /// Everything at once, before the first reply is read.
    Whole,
    /// All octets up to here, and then all others.
    Halves(usize),
}

/// One line of a dialog.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    Client(Vec<u8>),
    Says(String),
    Replies(String),
    Queued(String),
    Closed,
}

/// One file.
#[derive(Clone, Debug)]
pub struct Dialog {
    /// Name of the file.
    pub name: String,
    /// The server it needs.
    pub setup: Setup,
    lines: Vec<(usize, Line)>,
}

/// All dialogs of the folder, by name.
pub fn read_all() -> Vec<Dialog> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogs");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder of dialogs")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "dialog"))
        .collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(path).expect("a readable dialog");
        Dialog::parse(&name, &text).unwrap_or_else(|wrong| panic!("{wrong}"))
    };
    paths.iter().map(read).collect()
}

impl Dialog {
    /// Reads the text of a file.
    pub fn parse(name: &str, text: &str) -> Result<Dialog, String> {
        let mut dialog = Dialog { name: name.into(), setup: Setup::default(), lines: Vec::new() };
        if !text.starts_with("# ") {
            return Err(format!("{name}: the first line must say what the dialog shows"));
        }
        for (number, line) in (1..).zip(text.lines()) {
            dialog.line(number, line).map_err(|wrong| format!("{name}:{number}: {wrong}"))?;
        }
        Ok(dialog)
    }

    fn line(&mut self, number: usize, line: &str) -> Result<(), String> {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        let parsed = match kind {
            "" | "#" => return Ok(()),
            "set" if self.lines.is_empty() => return self.set(rest),
            "setting" if self.lines.is_empty() && rest.contains('=') => {
                self.setup.settings.push(rest.into());
                return Ok(());
            }
            "C:" => Line::Client(format!("{rest}\r\n").into_bytes()),
            "C<" => Line::Client(unescape(rest)?),
            "S:" => Line::Says(rest.into()),
            "R:" if rest.len() == 3 => Line::Replies(rest.into()),
            "Q:" => Line::Queued(rest.into()),
            "closed" => Line::Closed,
            _ => return Err(format!("not a line of a dialog: {line:?}")),
        };
        self.lines.push((number, parsed));
        Ok(())
    }

    fn set(&mut self, rest: &str) -> Result<(), String> {
        let (key, value) = rest.split_once(' ').ok_or("set KEY VALUE")?;
        let number = || value.parse::<u32>().map_err(|wrong| format!("{value:?}: {wrong}"));
        match key {
            "message-size" => self.setup.message_size = number()?.into(),
            "recipients" => self.setup.recipients = number()?,
            "errors" => self.setup.errors = number()?,
            "client" if value == "stranger" => self.setup.trusted = false,
            "kind" if value == "lmtp" => self.setup.lmtp = true,
            "claims" if value == "yes" => self.setup.claims = true,
            "idle-commands" => self.setup.idle_commands = number()?,
            "ahead" if value == "refuse" => self.setup.strict = true,
            "listener" if value == "tells" => self.setup.tells = true,
            "disable" => self.setup.disable = value.split(' ').map(String::from).collect(),
            "auth" => self.setup.auth = value.into(),
            "tls" if value == "on" => self.setup.tls = Tls::On,
            "tls" if value == "offered" => self.setup.tls = Tls::Offered,
            "tls" if value == "required" => self.setup.tls = Tls::Required,
            "server" if value == "whole" => self.setup.whole = true,
            "others" => self.setup.others = number()? as usize,
            "certificate" => self.setup.certificate = value.into(),
            "kind" if value == "submission" => self.setup.submission = true,
            "relay-domains" => {
                self.setup.relay_domains = value.split(' ').map(String::from).collect();
            }
            _ => return Err(format!("no setting: {rest:?}")),
        }
        Ok(())
    }

    /// True when it shows the same only if it is played turn by turn.
    pub fn is_for_turns(&self) -> bool {
        let octets = self.client_octets();
        let begins_tls = octets.split(|&octet| octet == b'\n').any(|line| line == b"STARTTLS\r");
        let has_tls = matches!(self.setup.tls, Tls::Offered | Tls::Required);
        self.setup.strict || self.setup.is_for_whole_servers() || begins_tls && has_tls
    }

    /// True when the client may send something behind what makes the server
    /// close.
    pub fn ends_early(&self) -> bool {
        let closed = self.lines.iter().any(|(_, line)| *line == Line::Closed);
        closed && !self.client_octets().to_ascii_uppercase().ends_with(b"QUIT\r\n")
    }

    /// The lines that the server says.
    pub fn said(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|(_, line)| match line {
            Line::Says(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// All that the client sends.
    pub fn client_octets(&self) -> Vec<u8> {
        let sent = self.lines.iter().filter_map(|(_, line)| match line {
            Line::Client(bytes) => Some(bytes.as_slice()),
            _ => None,
        });
        sent.collect::<Vec<_>>().concat()
    }

    /// Plays the dialog; `Err` says where the server differs, and how.
    pub fn play<T: Transport>(&self, pace: Pace, mut server: T) -> Result<(), String> {
        let whole = match pace {
            Pace::Whole => vec![self.client_octets()],
            Pace::Halves(at) => {
                let octets = self.client_octets();
                vec![octets[..at].to_vec(), octets[at..].to_vec()]
            }
            Pace::Turns | Pace::Bytes => Vec::new(),
        };
        whole.iter().for_each(|part| server.send(part));
        let mut turn = Vec::new();
        for (number, line) in &self.lines {
            match line {
                Line::Client(bytes) if whole.is_empty() => turn.extend_from_slice(bytes),
                Line::Client(_) => {}
                _ => {
                    send_turn(&mut server, pace, &mut turn);
                    expect(&mut server, line)
                        .map_err(|wrong| format!("{}:{number}: {wrong} ({pace:?})", self.name))?;
                }
            }
        }
        send_turn(&mut server, pace, &mut turn);
        let rest = server.hang_up();
        if rest.is_empty() {
            return Ok(());
        }
        Err(format!("{}: at the end the server also said {rest:?} ({pace:?})", self.name))
    }
}

fn send_turn<T: Transport>(server: &mut T, pace: Pace, turn: &mut Vec<u8>) {
    match pace {
        Pace::Bytes => turn.chunks(1).for_each(|byte| server.send(byte)),
        _ if turn.is_empty() => {}
        _ => server.send(turn),
    }
    turn.clear();
}

fn expect<T: Transport>(server: &mut T, line: &Line) -> Result<(), String> {
    match line {
        Line::Client(_) => unreachable!("sent, not expected"),
        Line::Says(text) => match server.hear() {
            Heard::Line(said) if fits(&said, text) => Ok(()),
            other => Err(format!("expected {text:?}, got {other:?}")),
        },
        Line::Replies(code) => loop {
            match server.hear() {
                Heard::Line(said) if said.starts_with(code) && said[3..].starts_with('-') => {}
                Heard::Line(said) if said.starts_with(code) && said[3..].starts_with(' ') => {
                    return Ok(());
                }
                other => return Err(format!("expected a reply {code}, got {other:?}")),
            }
        },
        Line::Queued(_) if !server.sees_messages() => Ok(()),
        Line::Queued(text) => match server.accepted().map(|message| message.to_string()) {
            Some(message) if message == *text => Ok(()),
            other => Err(format!("expected the message {text:?}, got {other:?}")),
        },
        Line::Closed => match server.hear() {
            Heard::Closed => Ok(()),
            other => Err(format!("expected the server to close, got {other:?}")),
        },
    }
}

fn fits(said: &str, text: &str) -> bool {
    match text.strip_suffix('*') {
        Some(start) => said.starts_with(start),
        None => said == text,
    }
}

/// Octets of a `C<` line.
fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut octets = Vec::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        rest = &rest[next.len_utf8()..];
        match next {
            '\\' => {
                let kind = rest.chars().next().ok_or("a lone backslash")?;
                rest = &rest[kind.len_utf8()..];
                octets.push(match kind {
                    'r' => b'\r',
                    'n' => b'\n',
                    't' => b'\t',
                    '0' => 0,
                    '\\' => b'\\',
                    'x' => {
                        let digits = rest.get(..2).ok_or("\\x needs two digits")?;
                        rest = &rest[2..];
                        u8::from_str_radix(digits, 16).map_err(|wrong| wrong.to_string())?
                    }
                    other => return Err(format!("no such escape: \\{other}")),
                });
            }
            '{' => {
                let (inside, behind) = rest.split_once('}').ok_or("`{` without `}`")?;
                let (what, times) = inside.rsplit_once('*').ok_or("write {text*N}")?;
                let times: usize = times.parse().map_err(|_| "write {text*N}")?;
                octets.extend_from_slice(&unescape(what)?.repeat(times));
                rest = behind;
            }
            other => octets.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that has said everything beforehand.
    struct Recording(Vec<Heard>);

    impl Transport for Recording {
        fn send(&mut self, _: &[u8]) {}
        fn hear(&mut self) -> Heard {
            if self.0.is_empty() { Heard::Silence } else { self.0.remove(0) }
        }
        fn accepted(&mut self) -> Option<Accepted> {
            None
        }
        fn sees_messages(&self) -> bool {
            true
        }
        fn hang_up(self) -> String {
            self.0.iter().map(|heard| format!("{heard:?}")).collect()
        }
    }

    fn complaint(text: &str, said: &[&str]) -> Option<String> {
        let dialog = Dialog::parse("d", &format!("# d\n{text}")).expect("a dialog");
        let heard = said.iter().map(|&line| match line {
            "closed" => Heard::Closed,
            line => Heard::Line(line.into()),
        });
        dialog.play(Pace::Turns, Recording(heard.collect())).err()
    }

    #[test]
    fn what_differs_is_noticed() {
        for (text, said, fits) in [
            ("S: 250 Ok", &["250 Ok"][..], true),
            ("S: 250 Ok", &["250 Okay"], false),
            ("S: 250 Ok", &["251 Ok"], false),
            ("S: 250 Ok", &[], false),
            ("S: 250 O*", &["250 Ok"], true),
            ("S: 250 O*", &["250 o"], false),
            ("R: 250", &["250-a", "250 b"], true),
            ("R: 250", &["250-a", "251 b"], false),
            ("R: 250", &["250-a"], false),
            ("R: 250", &["250 a", "250 b"], false),
            ("S: a", &["a", "b"], false),
            ("closed", &["closed"], true),
            ("closed", &["421 no"], false),
            ("closed", &[], false),
            ("Q: ESMTP <> <a@b> 3", &[], false),
        ] {
            assert_eq!(complaint(text, said).is_none(), fits, "{text:?} {said:?}");
        }
        assert!(complaint("C: NOOP\nS: 1", &["2"]).unwrap().starts_with("d:3: expected \"1\""));
    }

    #[test]
    fn what_the_client_sends_in_vain_is_known() {
        for (text, early) in [
            ("C: QUIT\nclosed", false),
            ("C: WHAT\nclosed", true),
            ("C: QUIT\nC: NOOP\nclosed", true),
            ("C: NOOP", false),
        ] {
            let dialog = Dialog::parse("d", &format!("# d\n{text}")).unwrap();
            assert_eq!(dialog.ends_early(), early, "{text:?}");
        }
    }

    #[test]
    fn files_that_are_wrong_are_refused() {
        for text in
            ["S: x", "# d\nX: x", "# d\nset x 1", "# d\nS: x\nset recipients 1", "# d\nR: x"]
        {
            assert!(Dialog::parse("d", text).is_err(), "{text:?}");
        }
        for text in ["\\q", "\\x1", "\\xzz", "{a", "{a}", "{a*b}", "\\"] {
            assert!(unescape(text).is_err(), "{text:?}");
        }
        assert_eq!(unescape("a\\r\\n\\0\\xff{b*3}\\\\é").unwrap(), b"a\r\n\0\xffbbb\\\xc3\xa9");
    }
}
