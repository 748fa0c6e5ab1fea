//! Runs a work under callgrind and reads what it counted.
//!
//! What depends on the machine is kept out as far as it goes. Only what happens
//! within [`measured_work`] counts, so no start-up, no setting up. Valgrind shows
//! programs a processor of its own (one with AVX2, if the machine has that), so
//! what libraries choose by the processor is the same everywhere; the string
//! functions of glibc are kept from `rep movs`, which counts by the byte, and
//! mimalloc from giving memory back by the clock. What is left is the compiler,
//! by whose version the record goes, and glibc's own.

use std::process::{Command, Stdio};

use crate::works::Work;

/// The argument that has this program do a work once, as callgrind runs it.
pub const UNDER_CALLGRIND: &str = "--under-callgrind";

const ENVIRONMENT: [(&str, &str); 2] = [
    (
        "GLIBC_TUNABLES",
        "glibc.cpu.x86_rep_movsb_threshold=0x10000000:glibc.cpu.x86_rep_stosb_threshold=0x10000000:\
         glibc.cpu.x86_non_temporal_threshold=0x10000000",
    ),
    ("MIMALLOC_PURGE_DELAY", "-1"),
];

/// The work, in the process that callgrind watches.
pub fn do_under_callgrind(work: Work) {
    let mut turn = (work.prepare)();
    for _ in 0..work.turns {
        turn();
    }
    measured_work(&mut *turn, work.turns);
}

/// Callgrind counts from the beginning of this function to its end, by its name.
#[inline(never)]
fn measured_work(turn: &mut dyn FnMut(), turns: u64) {
    for _ in 0..turns {
        turn();
    }
}

/// Instructions that one operation of a work takes.
pub fn count(work: &Work) -> Result<u64, String> {
    let itself = std::env::current_exe().map_err(|error| error.to_string())?;
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let out = dir.path().join("callgrind.out");
    let ran = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*measured_work*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(itself)
        .args([UNDER_CALLGRIND, work.name])
        .envs(ENVIRONMENT)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("valgrind cannot be run ({error}); is it installed?"))?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr);
        return Err(format!("{}: valgrind ended with {}:\n{said}", work.name, ran.status));
    }
    let text = std::fs::read_to_string(&out).map_err(|error| format!("{out:?}: {error}"))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals:"));
    let total: u64 = total.and_then(|total| total.trim().parse().ok()).unwrap_or(0);
    if total == 0 {
        return Err(format!("{}: callgrind did not see `measured_work`", work.name));
    }
    Ok(total / (work.turns * work.operations))
}

/// The compiler's version, in its own words.
pub fn rustc() -> Result<String, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let ran = Command::new(&rustc).arg("-V").output();
    let ran = ran.map_err(|error| format!("{rustc:?} cannot be run: {error}"))?;
    Ok(String::from_utf8_lossy(&ran.stdout).trim().to_owned())
}
