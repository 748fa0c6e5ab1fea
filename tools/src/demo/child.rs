//! The demo's processes: each is this program again with a hidden first
//! argument, so that the server, the load and the sink have their own processor
//! time, memory and executors, as in life.
//!
//! A child's standard input is a pipe that the demo holds. When it closes, by
//! the demo's will or its death, the child ends itself as by SIGTERM. It is in a
//! process group of its own: a Ctrl-C on the terminal is for the demo alone, which
//! ends its children in order.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};

use crate::machine;

/// Which part a process plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The relay.
    Server,
    /// The load generator.
    Load,
    /// The sink.
    Sink,
}

const ROLES: [(Role, &str); 3] =
    [(Role::Server, "__server"), (Role::Load, "__load"), (Role::Sink, "__sink")];

impl Role {
    fn argument(self) -> &'static str {
        ROLES[self as usize].1
    }
}

/// Plays the part that `arguments` (the program's name first) ask for; `None`
/// when they ask for none: then this process is the demo itself.
pub fn play(arguments: &[String]) -> Option<ExitCode> {
    let asked = arguments.get(1)?;
    let (role, _) = ROLES.into_iter().find(|(_, argument)| argument == asked)?;
    thread::spawn(end_with_parent);
    let named = |name: &str| -> Vec<String> {
        std::iter::once(name.to_owned()).chain(arguments[2..].iter().cloned()).collect()
    };
    Some(match role {
        Role::Server => ringpost::admin::cli::main_with(named("ringpost")),
        Role::Load => crate::load::main_with(named("ringpost-load")),
        Role::Sink => crate::sink::main_with(named("ringpost-sink")),
    })
}

/// Waits for the end of standard input, then asks this process to finish.
fn end_with_parent() {
    let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
    let _ = kill_process(getpid(), Signal::TERM);
}

/// A running child. Dropping it kills it.
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    name: &'static str,
}

/// How long a child may take to finish when asked.
const FINISH: Duration = Duration::from_secs(30);

/// How often a child's end is looked for.
const POLL: Duration = Duration::from_millis(10);

impl Process {
    /// Starts `role` with `arguments`; what it says on standard error goes to
    /// the file `log`.
    ///
    /// # Errors
    /// Those of starting a process.
    pub fn start(role: Role, arguments: &[String], log: &Path) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(role.argument())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(log)?)
            .process_group(0)
            .spawn()?;
        let stdin = child.stdin.take();
        let name = &role.argument()[2..];
        Ok(Process { child, stdin, name })
    }

    /// The first line that it prints.
    ///
    /// # Errors
    /// Those of reading; it ended without a word.
    pub fn first_line(&mut self) -> io::Result<String> {
        let out = self.child.stdout.as_mut().ok_or_else(|| io::Error::other("asked twice"))?;
        let mut reader = BufReader::new(out);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.is_empty() {
            return Err(io::Error::other(format!("the {} did not start", self.name)));
        }
        Ok(line.trim_end().to_owned())
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, if it has ended.
    ///
    /// # Errors
    /// Those of wait(2).
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Processor time that it has used so far, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        machine::cpu_seconds(self.child.id()).unwrap_or_default()
    }

    /// Asks it to finish and waits until it has.
    ///
    /// # Errors
    /// It did not finish in time, or not well.
    pub fn finish(mut self) -> io::Result<()> {
        drop(self.stdin.take());
        let asked = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return self.check(status);
            }
            if asked.elapsed() > FINISH {
                let text = format!("the {} did not finish within {FINISH:?}", self.name);
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            thread::sleep(POLL);
        }
    }

    /// What it has printed, when it has ended; an error if it failed.
    ///
    /// # Errors
    /// Those of reading; it failed.
    pub fn output(mut self) -> io::Result<String> {
        let mut text = String::new();
        if let Some(out) = self.child.stdout.as_mut() {
            out.read_to_string(&mut text)?;
        }
        let status = self.child.wait()?;
        self.check(status).map(|()| text)
    }

    fn check(&self, status: ExitStatus) -> io::Result<()> {
        if status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("the {} failed ({status}); its log is kept", self.name)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_told_by_their_argument() {
        for (role, argument) in ROLES {
            assert_eq!(role.argument(), argument);
        }
        assert!(play(&["ringpost-demo".into()]).is_none());
        assert!(play(&["ringpost-demo".into(), "--out".into()]).is_none());
    }
}
