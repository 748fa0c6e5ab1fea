//! `ringpost-sink`: see `ringpost_tools::sink` and `docs/man/ringpost-sink.md`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ringpost_tools::sink::main_with(std::env::args().collect())
}
