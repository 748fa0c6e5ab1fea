//! `ringpost-compare`: see `ringpost_tools::compare` and
//! `docs/man/ringpost-compare.md`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ringpost_tools::compare::main_with(std::env::args().collect())
}
