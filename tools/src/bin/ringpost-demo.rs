//! `ringpost-demo`: see `ringpost_tools::demo` and `docs/man/ringpost-demo.md`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ringpost_tools::demo::main_with(std::env::args().collect())
}
