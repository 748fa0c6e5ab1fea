//! The store on real filesystems: the disk of the machine, and small ones that
//! are full or refuse direct I/O.

use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;

use super::*;
use crate::io::executor::run_pinned;
use crate::io::store::StoreFile;

/// Runs `test` on an executor, with a directory for it.
fn on_disk<Fut: Future<Output = ()> + 'static>(test: impl FnOnce(PathBuf) -> Fut + Send + 'static) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_path_buf();
    run_pinned("store", None, move || test(path)).unwrap().join().unwrap();
}

async fn blocks_and_names(store: UringStore) {
    let file = store.open("a", OpenMode::CreateNew).await.unwrap();
    assert!(store.open("a", OpenMode::CreateNew).await.is_err());
    file.allocate(16 * BLOCK as u64).await.unwrap();
    let mut buf = file.alloc(2 * BLOCK);
    buf.fill(7);
    file.write_at(buf, BLOCK, BLOCK as u64).await.unwrap();
    file.sync().await.unwrap();
    let read = file.read_at(BLOCK as u64 - 2, 4).await.unwrap();
    assert_eq!(read, [0, 0, 7, 7]);
    assert_eq!(file.read_at(2 * BLOCK as u64, 1).await.unwrap(), [0]);
    assert_eq!(file.len().await.unwrap(), 16 * BLOCK as u64);
    file.close().await;
    let file = store.open("a", OpenMode::WriteThrough).await.unwrap();
    let mut buf = file.alloc(BLOCK);
    buf.fill(9);
    file.write_at(buf, BLOCK, 0).await.unwrap();
    file.sync().await.unwrap();
    assert_eq!(file.read_at(BLOCK as u64 - 2, 4).await.unwrap(), [9, 9, 7, 7]);
    file.truncate(BLOCK as u64).await.unwrap();
    assert_eq!(file.len().await.unwrap(), BLOCK as u64);
    file.close().await;
    store.rename("a", "b").await.unwrap();
    store.sync_dir().await.unwrap();
    assert_eq!(store.list().await.unwrap(), ["b"]);
    store.remove("b").await.unwrap();
    let missing = store.open("b", OpenMode::Read).await.err().unwrap();
    assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
}

#[test]
fn writes_blocks_reads_anything_and_names_endure() {
    on_disk(async |path| {
        let store = UringStore::new(path);
        assert!(store.space().unwrap().available > 0);
        blocks_and_names(store).await;
    });
}

#[test]
fn the_directory_is_opened_once() {
    on_disk(async |path| {
        let dir = path.join("log");
        fs::create_dir(&dir).unwrap();
        let store = UringStore::new(&dir);
        store.sync_dir().await.unwrap();
        // It cannot be opened by this name any more.
        fs::rename(&dir, path.join("moved")).unwrap();
        store.sync_dir().await.unwrap();
    });
}

#[test]
fn the_page_cache_does_the_same() {
    on_disk(async |path| {
        let store = UringStore::buffered(path);
        blocks_and_names(store.clone()).await;
        assert_eq!(store.access().await.unwrap(), Access::Buffered);
    });
}

#[test]
fn short_writes_go_through_and_all_else_is_flushed() {
    on_disk(async |path| {
        let store = UringStore::new(path);
        if store.access().await.unwrap() == Access::Buffered {
            eprintln!("skipped: no direct I/O where the tests have their files");
            return;
        }
        let file = store.open("a", OpenMode::CreateNew).await.unwrap();
        assert!(file.through.is_none());
        file.allocate(1 << 20).await.unwrap();
        file.close().await;
        let file = store.open("a", OpenMode::WriteThrough).await.unwrap();
        let flags = |fd| {
            // SAFETY: the call takes no pointers, and the descriptor is open.
            unsafe { libc::fcntl(fd, libc::F_GETFL) }
        };
        let through = flags(file.through.as_ref().unwrap().as_raw_fd());
        assert_eq!(through & libc::O_DSYNC, libc::O_DSYNC);
        let Handle::Direct(direct) = &file.file else { panic!("direct I/O") };
        assert_eq!(flags(direct.as_raw_fd()) & libc::O_DSYNC, 0);
        let flushed = || file.synced.get() == file.changes.get();
        assert!(!flushed(), "what was done before it was opened may not be durable");
        file.sync().await.unwrap();
        assert!(flushed());
        file.write_at(file.alloc(BLOCK), BLOCK, 0).await.unwrap();
        assert!(flushed());
        let long = THROUGH_MAX + BLOCK;
        file.write_at(file.alloc(long), long, 0).await.unwrap();
        assert!(!flushed());
        file.sync().await.unwrap();
        file.truncate(BLOCK as u64).await.unwrap();
        assert!(!flushed());
        file.sync().await.unwrap();
        file.allocate(1 << 20).await.unwrap();
        assert!(!flushed());
        file.close().await;
    });
}

/// A mount that ends with the test.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let ended = Command::new("umount").arg(&self.0).status();
        assert!(ended.is_ok_and(|status| status.success()), "{} stays", self.0.display());
    }
}

/// A new filesystem on `dir`; `None`, and a word about it, without the right
/// to mount one.
fn mount(kind: &str, options: &str, dir: &Path) -> Option<Mounted> {
    let mut mount = Command::new("mount");
    mount.args(["-t", kind, "-o", options, "none"]).arg(dir);
    let mounted = mount.output();
    if mounted.as_ref().is_ok_and(|output| output.status.success()) {
        return Some(Mounted(dir.to_path_buf()));
    }
    eprintln!("skipped: cannot mount {kind}, which takes root: {mounted:?}");
    None
}

#[test]
fn a_full_filesystem_can_still_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mounted) = mount("tmpfs", "size=8k", dir.path()) else { return };
    let full = fs::write(dir.path().join("a"), vec![7; 4 * BLOCK]).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    let path = dir.path().to_path_buf();
    let run = run_pinned("store", None, move || async move {
        let store = UringStore::new(path);
        let file = store.open("a", OpenMode::Read).await.unwrap();
        assert_eq!(file.read_at(5, 3).await.unwrap(), [7; 3]);
        assert_eq!(store.list().await.unwrap(), ["a"]);
        file.close().await;
    });
    run.unwrap().join().unwrap();
    drop(mounted);
}

#[test]
fn a_filesystem_without_direct_io_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mounted) = mount("ramfs", "mode=700", dir.path()) else { return };
    let path = dir.path().to_path_buf();
    let said = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&said);
    let run = run_pinned("store", None, move || async move {
        let log = tracing_subscriber::fmt().with_writer(move || Said(Arc::clone(&log)));
        let _guard = tracing::subscriber::set_default(log.finish());
        for _ in 0..2 {
            let store = UringStore::new(path.clone());
            assert_eq!(store.access().await.unwrap(), Access::Buffered);
            blocks_and_names(store).await;
        }
    });
    run.unwrap().join().unwrap();
    let said = String::from_utf8(said.lock().unwrap().clone()).unwrap();
    assert_eq!(said.matches("refuses direct I/O").count(), 1, "{said}");
    assert!(said.contains(&dir.path().display().to_string()), "{said}");
    drop(mounted);
}

struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn reads_from_the_device_on_every_executor_whose_first_file_was_empty() {
    for _ in 0..2 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_path_buf();
        run_pinned("store", None, move || async move {
            let store = UringStore::new(path.clone());
            let file = store.open("a", OpenMode::CreateNew).await.unwrap();
            let mut buf = file.alloc(64 * BLOCK);
            buf.fill(7);
            file.write_at(buf, 64 * BLOCK, 0).await.unwrap();
            file.sync().await.unwrap();
            assert_eq!(file.read_at(0, 64 * BLOCK).await.unwrap(), [7; 64 * BLOCK]);
            assert_eq!(store.list().await.unwrap(), ["a"], "the probe is gone");
            file.close().await;
        })
        .unwrap()
        .join()
        .unwrap();
    }
}
