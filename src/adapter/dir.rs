//! The directory store: every object is a file, its key the path below the root.
//!
//! Conditional create is a temporary file, fsync, a `renameat2(2)` that replaces nothing, or `link(2)` where that is not
//! known, and fsync of the directory; compare-and-swap is the same with `rename(2)`, under `flock(2)`. Readers need no lock: a name always points at a whole object. All processes
//! of a machine, and all machines of a network file system with working locks, may share one root.
//!
//! Besides objects the root holds `tmp~` (files being written) and `locks~`; no key can have those names, because
//! `~` is not allowed in one.

mod files;
mod walk;

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::domain::layout::Key;
use crate::port::{Object, Store, StoreError, Version, Written};

use files::Files;

/// A store in a directory. Cheap to clone; clones share what they know of the directory.
#[derive(Debug, Clone)]
pub struct Dir {
    files: Arc<Files>,
}

impl Dir {
    /// Opens the store at `root`, creating it, private to this user, where it does not exist yet.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where it cannot be created, read, or is no directory.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, StoreError> {
        Ok(Self { files: Arc::new(Files::open(root.as_ref())?) })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        self.files.root()
    }

    /// Runs one operation where waiting for a disk or a lock holds nothing else up.
    ///
    /// It runs to its end even if the caller goes away: a write is never left half-way by a cancelled task.
    async fn blocking<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Files) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let files = Arc::clone(&self.files);
        match tokio::task::spawn_blocking(move || work(&files)).await {
            Ok(done) => done,
            Err(error) => Err(StoreError::Unavailable {
                action,
                at: self.root().display().to_string(),
                source: io::Error::other(error),
            }),
        }
    }
}

impl Store for Dir {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        let key = key.clone();
        self.blocking("read", move |files| files.read(&key)).await
    }

    // Hashing what is printed costs more than decrypting it.
    async fn bytes(&self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        let key = key.clone();
        self.blocking("read", move |files| files.bytes(&key)).await
    }

    async fn add(&self, key: &Key, bytes: Vec<u8>) -> Result<bool, StoreError> {
        let key = key.clone();
        self.blocking("create", move |files| files.add(&key, &bytes)).await
    }

    async fn settle(&self, key: &Key) -> Result<(), StoreError> {
        let key = key.clone();
        self.blocking("create", move |files| files.settle(&key)).await
    }

    async fn create(&self, key: &Key, bytes: Vec<u8>) -> Result<Written, StoreError> {
        let key = key.clone();
        self.blocking("create", move |files| files.create(&key, &bytes)).await
    }

    async fn swap(&self, key: &Key, expected: &Version, bytes: Vec<u8>) -> Result<Written, StoreError> {
        let (key, expected) = (key.clone(), expected.clone());
        self.blocking("replace", move |files| files.swap(&key, &expected, &bytes)).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        self.blocking("list", move |files| walk::list(files.root(), &prefix, after.as_ref(), limit)).await
    }

    async fn remove(&self, key: &Key) -> Result<(), StoreError> {
        let key = key.clone();
        self.blocking("remove", move |files| files.remove(&key)).await
    }
}
