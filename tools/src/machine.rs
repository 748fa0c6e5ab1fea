//! What a figure was measured on, for reports: processor, cores, kernel; and
//! the processor time that a process has used.

use std::fs;
use std::path::Path;

use serde::Serialize;

/// The machine.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Model name of the processor.
    pub processor: String,
    /// Logical processors.
    pub cpus: usize,
    /// Release of the kernel.
    pub kernel: String,
    /// Memory, in GiB.
    pub memory_gib: u64,
}

impl Machine {
    /// This machine, as far as /proc tells.
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let value = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = value(&read("/proc/meminfo"), "MemTotal");
        let kib = memory.and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        Machine {
            processor: value(&cpuinfo, "model name").unwrap_or_else(|| "unknown".into()),
            cpus: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory_gib: (kib.unwrap_or(0) + (1 << 19)) >> 20,
        }
    }
}

/// Clock ticks a second in /proc: fixed for user space on Linux.
const TICKS: f64 = 100.0;

/// Processor time, user and system, that process `pid` has used so far.
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; fields are counted behind it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS)
}

/// The filesystem that holds `path`, as "ext4 on /dev/sda1". An ext4 without a journal
/// is told apart: there each new file looks at all that were removed in the minutes
/// before, and what makes and removes one for each message gets slower as it goes.
pub fn filesystem_of(path: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    // Device, where it is mounted, kind; a later mount hides an earlier one.
    let holds = |line: &&str| {
        let point = line.split(' ').nth(1).unwrap_or("\0");
        path.starts_with(point.replace("\\040", " "))
    };
    let depth = |line: &&str| {
        line.split(' ').nth(1).map_or(0, |point| Path::new(point).components().count())
    };
    let Some(line) = mounts.lines().filter(holds).max_by_key(depth) else {
        return "an unknown filesystem".into();
    };
    let mut words = line.split(' ');
    let (device, kind) = (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default());
    if !device.starts_with('/') {
        return kind.to_owned();
    }
    let journal = if kind == "ext4" && has_no_journal(device) { " without a journal" } else { "" };
    format!("{kind}{journal} on {device}")
}

/// True if the kernel says of the ext4 on `device` how it works, and names no way of
/// keeping a journal.
fn has_no_journal(device: &str) -> bool {
    let device = fs::canonicalize(device).unwrap_or_else(|_| device.into());
    let name = device.file_name().unwrap_or_default();
    let options = fs::read_to_string(Path::new("/proc/fs/ext4").join(name).join("options"));
    options.is_ok_and(|options| !options.lines().any(|option| option.starts_with("data=")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_this_machine_and_process() {
        let machine = Machine::here();
        assert!(machine.cpus > 0 && machine.memory_gib > 0);
        assert!(!machine.kernel.is_empty());
        assert_eq!(filesystem_of(Path::new("/proc/self")), "proc");
        let start = std::time::Instant::now();
        while cpu_seconds(std::process::id()).unwrap() == 0.0 {
            assert!(start.elapsed().as_secs() < 10, "a busy process uses processor time");
        }
    }
}
