//! What a bench was asked for: its options, as numbers, and where it may write.

use std::path::PathBuf;

/// The arguments of this process.
pub struct Arguments(Vec<String>);

impl Arguments {
    pub fn read() -> Arguments {
        Arguments(std::env::args().skip(1).collect())
    }

    /// The number behind `name`.
    pub fn number(&self, name: &str) -> Option<f64> {
        let at = self.0.iter().position(|argument| argument == name)?;
        self.0.get(at + 1)?.parse().ok()
    }

    /// Whether it is to be measured, and not only shown to run.
    pub fn is_bench(&self) -> bool {
        self.0.iter().any(|argument| argument == "--bench")
    }
}

/// Where files are written, on the disk that is measured.
pub fn directory() -> PathBuf {
    let dir = std::env::var_os("RINGPOST_BENCH_DIR");
    dir.map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from)
}
