//! What a server uses, whatever processes it is made of: the processor time and
//! memory of all that descends from this program.
//!
//! This program adopts orphans among its descendants ([`adopt_orphans`]), so
//! that a server which forks and lets go is seen whole. An adopted process that
//! has ended stays until it is collected, and its time with it: so time is read
//! first and collecting done between measurements ([`end_descendants`]).

use std::collections::HashMap;
use std::fs;
use std::io;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid,
};

/// Clock ticks a second in /proc: fixed for user space on Linux.
const TICKS: f64 = 100.0;

/// How long ended processes may take to go.
const PATIENCE: Duration = Duration::from_secs(10);

/// Has orphans among the descendants become children of this process.
///
/// # Errors
/// Those of prctl(2).
pub fn adopt_orphans() -> io::Result<()> {
    set_child_subreaper(Some(getpid())).map_err(io::Error::from)
}

/// One line of /proc/PID/stat.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stat {
    parent: u32,
    zombie: bool,
    /// Processor time of the process and of its children that were collected.
    seconds: f64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name, in parentheses, may hold anything; fields are counted behind it.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<f64>().ok();
        let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
        let parent = fields.get(1)?.parse().ok()?;
        Some(Stat { parent, zombie: fields[0] == "Z", seconds: ticks / TICKS })
    }
}

/// The descendants of this process, those of `except` left out.
fn descendants(except: &[u32]) -> Vec<(u32, Stat)> {
    let mut children: HashMap<u32, Vec<(u32, Stat)>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let text = fs::read(entry.path().join("stat")).unwrap_or_default();
        if let Some(stat) = Stat::parse(&String::from_utf8_lossy(&text)) {
            children.entry(stat.parent).or_default().push((pid, stat));
        }
    }
    let (mut found, mut next) = (Vec::new(), vec![process::id()]);
    while let Some(parent) = next.pop() {
        for (pid, stat) in children.remove(&parent).unwrap_or_default() {
            if !except.contains(&pid) {
                found.push((pid, stat));
                next.push(pid);
            }
        }
    }
    found
}

/// Follows the processor time and memory of a server.
///
/// Orphans that have ended are collected as it goes, their time kept: a server
/// with a process for each message would leave thousands of them.
pub struct Meter {
    /// A child that someone else waits for.
    own: Option<u32>,
    collected_s: f64,
}

/// What a server uses at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time so far, in seconds.
    pub seconds: f64,
    /// Memory, in bytes: its own and its share of what it shares (PSS).
    pub memory: u64,
}

impl Meter {
    /// Of all descendants; `own` is the child that was started as the server.
    pub fn new(own: Option<u32>) -> Self {
        Meter { own, collected_s: 0.0 }
    }

    /// What is used now, by all but the children of `except` and those below.
    pub fn look(&mut self, except: &[u32]) -> Usage {
        let mut usage = Usage::default();
        for (pid, stat) in descendants(except) {
            if !stat.zombie {
                usage.seconds += stat.seconds;
                usage.memory += memory(pid).unwrap_or_default();
            } else if stat.parent == process::id() && self.own != Some(pid) {
                self.collected_s += stat.seconds;
                collect(pid);
            } else {
                usage.seconds += stat.seconds;
            }
        }
        usage.seconds += self.collected_s;
        usage
    }
}

/// PSS of a process, in bytes; `None` if it has gone.
fn memory(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

fn collect(pid: u32) {
    if let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = waitpid(Some(id), WaitOptions::NOHANG);
    }
}

/// Kills and collects all descendants that are left of a server.
pub fn end_descendants() {
    let begun = Instant::now();
    loop {
        let left = descendants(&[]);
        if left.is_empty() || begun.elapsed() > PATIENCE {
            return;
        }
        for (pid, stat) in left {
            let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { continue };
            if !stat.zombie {
                let _ = kill_process(id, Signal::KILL);
            } else if stat.parent == process::id() {
                collect(pid);
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whatever_the_process_is_called() {
        let line = "12 (a) Z (b) Z 7 12 12 0 -1 4194560 1 2 3 4 100 50 30 20 20 0 1 0";
        let stat = Stat { parent: 7, zombie: true, seconds: 2.0 };
        assert_eq!(Stat::parse(line), Some(stat));
        assert_eq!(Stat::parse("12 (a"), None);
    }

    #[test]
    fn descendants_are_seen_with_their_time_and_memory() {
        let busy = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; read x";
        let mut child = process::Command::new("sh")
            .args(["-c", busy])
            .stdin(process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id();
        let mut meter = Meter::new(Some(pid));
        let begun = Instant::now();
        while meter.look(&[]).seconds == 0.0 {
            assert!(begun.elapsed() < PATIENCE, "a busy process uses processor time");
        }
        assert!(meter.look(&[]).memory > 0);
        assert!(!descendants(&[pid]).iter().any(|(one, _)| *one == pid));
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
