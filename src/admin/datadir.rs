//! The data directory: made if it is missing, and claimed for this process by
//! an exclusive lock on the file `lock` in it, held until the process ends.
//! Two processes on one queue would damage it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::failure::Failure;

/// A data directory that no other process uses.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes (0700) and locks `path`.
    ///
    /// # Errors
    /// It cannot be made or written, or another process holds it.
    pub fn claim(path: &Path) -> Result<DataDir, Failure> {
        let shown = path.display();
        let remedy = "give the user that runs ringpost a data_dir it may write to";
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| {
            Failure::runtime(format!("cannot make data_dir {shown}: {e}; {remedy}"))
        })?;
        let name = path.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&name)
            .map_err(|e| {
                Failure::runtime(format!("cannot open {}: {e}; {remedy}", name.display()))
            })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::runtime(format!(
                    "data_dir {shown} is in use by another ringpost{}; stop that one, or give \
                     this one a data_dir of its own",
                    holder(&mut lock)
                )));
            }
            Err(TryLockError::Error(e)) => {
                return Err(Failure::runtime(format!(
                    "cannot lock {}: {e}; the filesystem of data_dir must support flock(2)",
                    name.display()
                )));
            }
        }
        // The number is for the message above only; the lock is what counts.
        let written = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        written.map_err(|e| {
            Failure::runtime(format!("cannot write {}: {e}; {remedy}", name.display()))
        })?;
        Ok(DataDir { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    match lock.take(32).read_to_string(&mut text).map(|_| text.trim().parse::<u32>()) {
        Ok(Ok(pid)) => format!(" (process {pid})"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn one_holder_at_a_time_and_the_second_is_told_who() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        let first = DataDir::claim(&path).unwrap();
        let mode = std::fs::metadata(first.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let error = DataDir::claim(&path).unwrap_err();
        assert_eq!(error.code, 1);
        let pid = format!("(process {})", std::process::id());
        assert!(error.message.contains("in use by another ringpost"), "{error}");
        assert!(error.message.contains(&pid), "{error}");
        drop(first);
        DataDir::claim(&path).expect("the lock goes with its holder");
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let error = DataDir::claim(&path).unwrap_err();
        assert!(error.message.contains(&path.display().to_string()), "{error}");
    }
}
