//! `ringpost-load`: see `ringpost_tools::load` and `docs/man/ringpost-load.md`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ringpost_tools::load::main_with(std::env::args().collect())
}
