//! Durable files: written whole or not at all, linked or renamed into place.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::domain::layout::Key;
use crate::domain::script::sha256_hex;
use crate::port::{Object, StoreError, Version, Written};

/// The largest object. The largest that is written is a script (16 MiB) or the record of a batch.
const MAX_OBJECT_BYTES: u64 = 64 * 1024 * 1024;

/// Where files are while they are written.
const TEMPORARY: &str = "tmp~";

/// Where lock files are. They are never removed: a lock on a removed file excludes nobody.
const LOCKS: &str = "locks~";

/// A temporary file this old belongs to nobody any more: a write takes seconds, a suspended laptop a night.
const LEFTOVER_AGE: Duration = Duration::from_hours(24);

/// How long a lock may be held by others: it is held for two fsyncs, which a dying disk can draw out.
/// Beyond that its holder is stopped, and waiting for ever would only hide it.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// The longest pause between two looks at a lock.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// How often a folder may vanish under a creator before it gives up: each time means that someone removed the last
/// object in it within microseconds.
const CREATE_TRIES: u32 = 100;

/// How many folders are remembered as durable, at some hundred bytes each.
const MAX_DURABLE: usize = 16_384;

/// A failed file operation, naming the file.
pub(super) fn unavailable(action: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Unavailable { action, at: path.display().to_string(), source }
}

/// The files below one root.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
    /// Folders whose own entry in their parent was synced since this process first used them. Another process may
    /// have made one a moment ago and not have come to that yet.
    durable: Mutex<HashSet<PathBuf>>,
    swept: Once,
}

impl Files {
    pub(super) fn open(root: &Path) -> Result<Self, StoreError> {
        // Absolute, so that the store stays where it is when someone changes the working directory.
        let root = std::path::absolute(root).map_err(|error| unavailable("open", root, error))?;
        let files = Self { root, durable: Mutex::default(), swept: Once::new() };
        make_folders(&files.root).map_err(|error| unavailable("create", &files.root, error))?;
        // A root that cannot be read is told now, not in the middle of a run.
        fs::read_dir(&files.root).map_err(|error| unavailable("open", &files.root, error))?;
        Ok(files)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn read(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        Ok(self.bytes(key)?.map(|bytes| Object { version: Version(sha256_hex(&bytes)), bytes }))
    }

    pub(super) fn bytes(&self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(key)?;
        let damaged = |why: String| StoreError::Damaged { at: path.display().to_string(), why };
        // Whatever someone has put in an object's place, reading must neither follow it nor wait for it.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let flags = i32::try_from(flags.bits()).unwrap_or_default();
        let read = || -> io::Result<Option<(Vec<u8>, fs::Metadata)>> {
            let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
                Ok(file) => file,
                Err(error) if is_absent(&error) => return Ok(None),
                Err(error) => return Err(error),
            };
            let metadata = file.metadata()?;
            let mut bytes = Vec::new();
            if metadata.is_file() {
                // At once instead of in pieces that double; the byte more finds the end.
                let room = usize::try_from(metadata.len().min(MAX_OBJECT_BYTES) + 1).unwrap_or_default();
                bytes.reserve_exact(room);
                file.take(MAX_OBJECT_BYTES + 1).read_to_end(&mut bytes)?;
            }
            Ok(Some((bytes, metadata)))
        };
        match read().map_err(|error| unavailable("read", &path, error))? {
            None => Ok(None),
            Some((_, metadata)) if metadata.is_dir() => Ok(None),
            Some((_, metadata)) if !metadata.is_file() => Err(damaged("it is not a regular file".to_owned())),
            Some((bytes, metadata)) if bytes.len() as u64 > MAX_OBJECT_BYTES => {
                Err(damaged(format!("it has {} bytes, an object at most {MAX_OBJECT_BYTES}", metadata.len())))
            }
            Some((bytes, _)) => Ok(Some(bytes)),
        }
    }

    pub(super) fn create(&self, key: &Key, bytes: &[u8]) -> Result<Written, StoreError> {
        if !self.add(key, bytes)? {
            return Ok(Written::Conflict);
        }
        self.settle(key)?;
        Ok(Written::Done(Version(sha256_hex(bytes))))
    }

    /// Whether it was not there. Its content is durable, its name is not before it is settled.
    pub(super) fn add(&self, key: &Key, bytes: &[u8]) -> Result<bool, StoreError> {
        let path = self.path(key)?;
        let failed = |error| unavailable("create", &path, error);
        if is_occupied(&path).map_err(failed)? {
            return Ok(false);
        }
        let mut temporary = self.write_temporary(bytes).map_err(failed)?;
        for _ in 0..CREATE_TRIES {
            self.make_folders(parent(&path)).map_err(failed)?;
            match temporary.place(&path) {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return is_occupied(&path).map(|_| false).map_err(failed);
                }
                // The last object of the folder was removed meanwhile, and the folder with it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.forget_durable(),
                Err(error) => return Err(failed(error)),
            }
        }
        Err(failed(io::Error::other("someone keeps removing its folder, or its temporary file")))
    }

    /// Makes durable what was added beside `key`. Where it was removed meanwhile there is nothing to be.
    pub(super) fn settle(&self, key: &Key) -> Result<(), StoreError> {
        let path = self.path(key)?;
        let failed = |error| unavailable("create", &path, error);
        sync_folder(parent(&path)).map_err(failed)?;
        self.make_durable(self.unknown(parent(&path))).map_err(failed)
    }

    pub(super) fn swap(&self, key: &Key, expected: &Version, bytes: &[u8]) -> Result<Written, StoreError> {
        let path = self.path(key)?;
        let failed = |error| unavailable("replace", &path, error);
        let _lock = self.lock(key).map_err(failed)?;
        if self.read(key)?.is_none_or(|object| object.version != *expected) {
            return Ok(Written::Conflict);
        }
        let temporary = self.write_temporary(bytes).map_err(failed)?;
        temporary.rename(&path).map_err(failed)?;
        sync_folder(parent(&path)).map_err(failed)?;
        Ok(Written::Done(Version(sha256_hex(bytes))))
    }

    /// Removes the object, and the folders that it leaves empty: a run on 100,000 hosts has a folder for each.
    ///
    /// Creators cope: a folder that is gone when they link into it is made again.
    pub(super) fn remove(&self, key: &Key) -> Result<(), StoreError> {
        let path = self.path(key)?;
        let failed = |error| unavailable("remove", &path, error);
        if is_no_object(&path) {
            return Ok(());
        }
        // Else a swap that has just compared could bring back what is removed.
        let _lock = self.lock(key).map_err(failed)?;
        match fs::remove_file(&path) {
            Ok(()) => sync_folder(parent(&path)).map_err(failed)?,
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(failed(error)),
        }
        for folder in path.ancestors().skip(1).take_while(|folder| *folder != self.root) {
            // Fails where something is in it, which is as good a reason to stop as any other.
            if fs::remove_dir(folder).is_err() {
                break;
            }
            self.forget_durable();
        }
        Ok(())
    }

    /// Where the object lies: always below the root.
    fn path(&self, key: &Key) -> Result<PathBuf, StoreError> {
        // A key that came in through deserialization was never checked.
        if Key::parse(key.as_str()).is_some() {
            return Ok(self.root.join(key.as_str()));
        }
        let at = key.as_str().chars().filter(|c| !c.is_control()).take(80).collect();
        Err(StoreError::Damaged { at, why: "no object can have this name".to_owned() })
    }

    /// Writes a file under a name that nobody else has, and syncs it. It goes when the result does.
    fn write_temporary(&self, bytes: &[u8]) -> io::Result<Temporary> {
        if bytes.len() as u64 > MAX_OBJECT_BYTES {
            let why = format!("it would have {} bytes, an object at most {MAX_OBJECT_BYTES}", bytes.len());
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        let folder = self.root.join(TEMPORARY);
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(io::Error::other)?;
        let path = folder.join(format!("{:032x}", u128::from_le_bytes(nonce)));
        let mut file = open_in(&folder, &path, OpenOptions::new().write(true).create_new(true).mode(0o600))?;
        let temporary = Temporary { path, is_renamed: false };
        file.write_all(bytes)?;
        file.sync_all()?;
        self.swept.call_once(|| sweep(&folder, &file));
        Ok(temporary)
    }

    /// Waits for the lock of `key`; it is held until the file is dropped, or the process ends.
    ///
    /// Keys share 256 lock files, so that their number is bounded.
    fn lock(&self, key: &Key) -> io::Result<File> {
        let folder = self.root.join(LOCKS);
        let hash = sha256_hex(key.as_str().as_bytes());
        let path = folder.join(hash.get(..2).unwrap_or_default());
        let options = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).clone();
        let file = open_in(&folder, &path, &options)?;
        let (mut waited, mut pause) = (Duration::ZERO, Duration::from_micros(100));
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if waited < LOCK_PATIENCE => {
                    std::thread::sleep(pause);
                    waited += pause;
                    pause = LOCK_PAUSE.min(pause * 2);
                }
                Err(TryLockError::WouldBlock) => {
                    let why = format!(
                        "another process has held `{}` for {} s; is one stopped?",
                        path.display(),
                        LOCK_PATIENCE.as_secs()
                    );
                    return Err(io::Error::new(io::ErrorKind::TimedOut, why));
                }
            }
        }
    }

    /// Makes `folder`, below the root, and those above it.
    fn make_folders(&self, folder: &Path) -> io::Result<()> {
        for folder in self.unknown(folder).into_iter().rev() {
            match make_folder(folder) {
                // A folder above it was pruned meanwhile; the caller finds out when it links, and comes again.
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                made => made?,
            }
        }
        Ok(())
    }

    /// Of `folder` and those above it, below the root, those whose own entry may not be durable yet; the deepest first.
    fn unknown<'a>(&self, folder: &'a Path) -> Vec<&'a Path> {
        let below = folder.ancestors().take_while(|folder| *folder != self.root);
        below.filter(|folder| !self.durable().contains(*folder)).collect()
    }

    /// Sees to it that a power failure does not take `folders` away, once what is in them is durable.
    ///
    /// All were made before: a journal that takes the first down has the others with it, which then cost next to nothing.
    fn make_durable(&self, folders: Vec<&Path>) -> io::Result<()> {
        for folder in folders {
            sync_folder(parent(folder))?;
            let mut durable = self.durable();
            if durable.len() >= MAX_DURABLE {
                durable.clear();
            }
            durable.insert(folder.to_owned());
        }
        Ok(())
    }

    fn forget_durable(&self) {
        self.durable().clear();
    }

    fn durable(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that is removed when it is dropped, unless it was renamed.
struct Temporary {
    path: PathBuf,
    is_renamed: bool,
}

impl Temporary {
    /// Gives it its name, which nobody may have.
    fn place(&mut self, to: &Path) -> io::Result<()> {
        match renameat_with(CWD, &self.path, CWD, to, RenameFlags::NOREPLACE) {
            // Some file systems know no such renaming, as those of a network, and some sandboxes allow none.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP | Errno::PERM) => {
                fs::hard_link(&self.path, to).map_err(|error| match error.kind() {
                    io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied => {
                        let why = "the file system of a store must support hard links, or `renameat2`";
                        io::Error::new(error.kind(), format!("{error}; {why}"))
                    }
                    _ => error,
                })
            }
            Err(error) => Err(error.into()),
            Ok(()) => {
                self.is_renamed = true;
                Ok(())
            }
        }
    }

    fn rename(mut self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        self.is_renamed = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_renamed {
            // A file that stays is swept a day later.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether an object stands at `path`; it is an error where something does that cannot be an object's neighbour.
fn is_occupied(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether nothing that `remove` could remove is at `path`.
fn is_no_object(path: &Path) -> bool {
    match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.is_dir(),
        Err(error) => is_absent(&error),
    }
}

/// Whether there is no object because its name, or a folder above it, is not there.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Opens a file in a folder that is made where it is missing.
fn open_in(folder: &Path, path: &Path, options: &OpenOptions) -> io::Result<File> {
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_folder(folder)?;
            options.open(path)
        }
        opened => opened,
    }
}

/// Makes one folder, private whatever the umask says; it is no error where it exists.
fn make_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Makes a folder and those above it that are missing, each durably.
fn make_folders(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    for folder in missing.into_iter().rev() {
        make_folder(folder)?;
        sync_folder(parent(folder))?;
    }
    Ok(())
}

/// Makes the entries of a folder durable; where it is gone there are none.
fn sync_folder(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Ok(folder) => folder.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes what crashed writers have left in `folder`, by the clock of the file system that has just written `fresh`.
///
/// What cannot be looked at or removed stays: nothing reads it.
fn sweep(folder: &Path, fresh: &File) {
    let Ok(now) = fresh.metadata().and_then(|metadata| metadata.modified()) else { return };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let written = entry.metadata().and_then(|metadata| metadata.modified());
        let age = written.ok().and_then(|written| now.duration_since(written).ok());
        if age.is_some_and(|age| age > LEFTOVER_AGE) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
