//! A private temporary folder that goes with its owner.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A folder that only its owner may enter, removed with all that it holds when dropped.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Creates a folder of a random name in the system's place for temporary files.
    pub(super) fn create() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("sshjob-demo-{:016x}", getrandom::u64()?));
        // Fails where the name is taken, a link included: nobody else can have prepared it.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Creates a folder in it, with those above.
    pub(super) fn create_folder(&self, name: &str) -> io::Result<()> {
        DirBuilder::new().mode(0o700).recursive(true).create(self.0.join(name))
    }

    /// Writes a new file in it, with these permissions from the first moment on.
    pub(super) fn write(&self, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(self.0.join(name))?;
        file.write_all(bytes)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is temporary all the same.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
