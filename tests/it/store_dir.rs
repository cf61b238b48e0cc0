//! What only the directory store promises: other processes, permissions, leftovers, things that are no objects.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use sshjob::adapter::dir::Dir;
use sshjob::cli::exit::{Exit, Fail};
use sshjob::domain::layout::Key;
use sshjob::port::{Store, StoreError, Written};

/// Names the root to the processes that [`dir_shared_by_processes_loses_no_update`] starts.
const ROOT: &str = "SSHJOB_TEST_STORE";

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn open() -> (tempfile::TempDir, Dir) {
    let root = tempfile::tempdir().unwrap();
    let store = Dir::open(root.path().join("store")).unwrap();
    (root, store)
}

fn modes_below(path: &Path) -> Vec<(bool, u32)> {
    let mut modes = Vec::new();
    for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
        let metadata = entry.metadata().unwrap();
        modes.push((metadata.is_dir(), metadata.permissions().mode() & 0o7777));
        if metadata.is_dir() {
            modes.extend(modes_below(&entry.path()));
        }
    }
    modes
}

/// Not a test of its own: what the processes of the next one do.
#[tokio::test]
async fn child_process_increments() {
    #[expect(clippy::disallowed_methods, reason = "how the parent hands the root over")]
    let Some(root) = std::env::var_os(ROOT) else { return };
    let store = Dir::open(root).unwrap();
    let at = key("state/counter");
    for _ in 0..50 {
        loop {
            let object = store.get(&at).await.unwrap().unwrap();
            let count: u64 = String::from_utf8(object.bytes).unwrap().parse().unwrap();
            if store.swap(&at, &object.version, (count + 1).to_string().into()).await.unwrap() != Written::Conflict {
                break;
            }
        }
    }
}

#[tokio::test]
async fn dir_shared_by_processes_loses_no_update() {
    let (_alive, store) = open();
    store.create(&key("state/counter"), b"0".to_vec()).await.unwrap();
    let start = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store_dir::child_process_increments"])
            .env(ROOT, store.root())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    for mut child in [start(), start()] {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(store.get(&key("state/counter")).await.unwrap().unwrap().bytes, b"100");
}

#[tokio::test]
async fn dir_is_private_to_its_user() {
    let root = tempfile::tempdir().unwrap();
    let store = Dir::open(root.path().join("state/sshjob")).unwrap();
    let Written::Done(version) = store.create(&key("a/b"), b"x".to_vec()).await.unwrap() else { panic!() };
    store.swap(&key("a/b"), &version, b"y".to_vec()).await.unwrap();
    let modes = modes_below(root.path());
    assert!(modes.len() > 5, "{modes:?}");
    assert!(modes.iter().all(|(is_dir, mode)| *mode == if *is_dir { 0o700 } else { 0o600 }), "{modes:?}");
}

#[tokio::test]
async fn dir_sweeps_old_leftovers_and_never_lists_them() {
    let (_alive, store) = open();
    let folder = store.root().join("tmp~");
    fs::create_dir(&folder).unwrap();
    for (name, age) in [("old", Duration::from_hours(48)), ("young", Duration::from_hours(1))] {
        let file = fs::File::create(folder.join(name)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_hours(48)).unwrap();
        if name == "young" {
            // By the clock of the file system, as the store sees it.
            let now = fs::metadata(&folder).unwrap().modified().unwrap();
            file.set_modified(now.checked_sub(age).unwrap()).unwrap();
        }
    }
    store.create(&key("a"), Vec::new()).await.unwrap();
    let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["young"]);
    assert_eq!(store.list("", None, 9).await.unwrap(), [key("a")]);
}

#[tokio::test]
async fn dir_remove_prunes_the_folders_that_it_empties() {
    let (_alive, store) = open();
    for at in ["runs/x/1/output/i/1.out.0", "runs/x/1/run.json", "runs/y/1/run.json"] {
        store.create(&key(at), Vec::new()).await.unwrap();
    }
    store.remove(&key("runs/x/1/output/i/1.out.0")).await.unwrap();
    assert!(!store.root().join("runs/x/1/output").exists());
    assert!(store.root().join("runs/x/1/run.json").exists());
    store.remove(&key("runs/x/1/run.json")).await.unwrap();
    store.remove(&key("runs/y/1/run.json")).await.unwrap();
    assert!(!store.root().join("runs").exists());
    assert!(store.root().exists());
}

#[tokio::test]
async fn dir_keeps_to_its_root_and_follows_no_link() {
    let (alive, store) = open();
    fs::write(alive.path().join("outside"), "secret").unwrap();
    symlink(alive.path().join("outside"), store.root().join("link")).unwrap();
    symlink(alive.path(), store.root().join("folder")).unwrap();
    assert!(store.get(&key("link")).await.is_err());
    assert_eq!(store.list("", None, 9).await.unwrap(), []);
    // Deserialization does not check a key; the store does.
    let escape: Key = serde_json::from_str("\"../outside\"").unwrap();
    for result in [store.get(&escape).await.map(|_| ()), store.remove(&escape).await] {
        assert_eq!(result.unwrap_err().to_string(), "`../outside` is damaged: no object can have this name");
    }
    assert!(store.create(&escape, Vec::new()).await.is_err());
    assert_eq!(fs::read_to_string(alive.path().join("outside")).unwrap(), "secret");
}

#[tokio::test]
async fn dir_refuses_an_object_beyond_the_limit() {
    let (_alive, store) = open();
    let path = store.root().join("huge");
    fs::File::create(&path).unwrap().set_len(64 * 1024 * 1024 + 1).unwrap();
    let error = store.get(&key("huge")).await.unwrap_err();
    let expected = format!("`{}` is damaged: it has 67108865 bytes, an object at most 67108864", path.display());
    assert_eq!(error.to_string(), expected);
    assert!(matches!(error, StoreError::Damaged { .. }));
}

#[tokio::test]
async fn dir_that_cannot_be_opened_names_the_path_and_what_to_do() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    let fail = Fail::from(Dir::open(&file).unwrap_err());
    assert_eq!(fail.exit, Exit::Unavailable);
    assert_eq!(fail.message, format!("cannot open `{}`: Not a directory (os error 20)", file.display()));
    assert_eq!(fail.hint.as_deref(), Some("name a directory of its own with `--store`"));
    let below = file.join("store");
    let fail = Fail::from(Dir::open(&below).unwrap_err());
    assert_eq!(fail.message, format!("cannot create `{}`: Not a directory (os error 20)", below.display()));
}
