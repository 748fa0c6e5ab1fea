//! Counts instructions: what the scanner, the engines and the log execute for an
//! operation, which no load on the machine changes, held against the counts that
//! `benches/record/instructions.toml` has. More than its bound allows is an error.
//!
//! ```sh
//! cargo bench --bench instructions              # count and compare
//! cargo bench --bench instructions -- session   # what has this in its name
//! cargo bench --bench instructions -- --write   # the growth is meant: write it
//! ```
//!
//! Callgrind does the counting: this program runs itself under it once for each
//! work, in an environment that leaves little to the machine (see `count`).
//! Works are set up and warmed up uncounted.

#[path = "instructions/count.rs"]
mod count;
#[path = "instructions/record.rs"]
mod record;
mod support;
#[path = "instructions/works.rs"]
mod works;

use std::collections::BTreeMap;
use std::process::ExitCode;

use record::Record;

/// The server's own, so that allocations count what they cost it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Cargo adds `--bench`.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [first, name] = &args[..]
        && first == count::UNDER_CALLGRIND
    {
        count::do_under_callgrind(works::all().find(|work| work.name == name).expect("a work"));
        return ExitCode::SUCCESS;
    }
    let write = args.iter().any(|arg| arg == "--write");
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    match check(write, &filters) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn check(write: bool, filters: &[&String]) -> Result<(), String> {
    if !cfg!(target_arch = "x86_64") {
        println!("the counts on record are of x86-64: nothing to hold this machine's against");
        return Ok(());
    }
    if std::env::var_os("CARGO_INCREMENTAL").is_some_and(|value| value != "0") {
        return Err("the counts are of a build that is not incremental: unset CARGO_INCREMENTAL, \
                    with which the compiler inlines less"
            .to_owned());
    }
    let rustc = count::rustc()?;
    let wanted =
        |name: &str| filters.is_empty() || filters.iter().any(|part| name.contains(&part[..]));
    let mut counts = BTreeMap::new();
    for work in works::all().filter(|work| wanted(work.name)) {
        counts.insert(work.name.to_owned(), count::count(&work)?);
    }
    let mut record = Record::read()?;
    if write {
        record.take(&rustc, counts, filters.is_empty())?;
        return record.write();
    }
    let judged = record.judge(&rustc, &counts, filters.is_empty());
    judged.lines.iter().for_each(|line| println!("{line}"));
    if judged.failures.is_empty() { Ok(()) } else { Err(judged.failures.join("\n")) }
}
