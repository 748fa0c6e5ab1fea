//! The binary: the allocator, and the command line in [`ringpost::admin::cli`].

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ringpost::admin::cli::main_with(std::env::args_os())
}
