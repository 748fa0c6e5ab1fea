//! `ringpost-segments`: see [`ringpost_tools::segments`].

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use ringpost_tools::segments::{Cli, run};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let result = run(&cli, &mut out).and_then(|sound| out.flush().map(|()| sound));
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringpost-segments: {error}");
            ExitCode::FAILURE
        }
    }
}
